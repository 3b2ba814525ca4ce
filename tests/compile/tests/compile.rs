//! What must compile, and what must not and how it is said.
//!
//! `TRYBUILD=overwrite cargo test -p rummelplatz-compile` writes the expected messages anew; read them.

use std::process::Command;

/// The compiler whose words the `.stderr` files are in.
const TOOLCHAIN: &str = "rustc 1.95.";

#[test]
fn mistakes_are_reported_in_one_build_and_once() {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = Command::new(rustc).arg("--version").output().map(|output| output.stdout);
    let version = String::from_utf8(version.unwrap_or_default()).unwrap_or_default();
    if !version.starts_with(TOOLCHAIN) {
        println!("skipped: the messages are those of {TOOLCHAIN}x, this is {version}");
        return;
    }
    let cases = trybuild::TestCases::new();
    cases.compile_fail("ui/ring/*.rs");
    cases.compile_fail("ui/operation/*.rs");
    cases.compile_fail("ui/types/*.rs");
}

#[test]
fn what_is_allowed_compiles_and_runs() {
    let cases = trybuild::TestCases::new();
    cases.pass("pass/*.rs");
}
