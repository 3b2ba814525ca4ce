//! Compiles the loops of the contestant `liburing`, when that is asked for and can be done here.

use std::env;
use std::path::PathBuf;
use std::process::Command;

const LOOPS: &str = "src/bin/liburing/loops.c";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(has_liburing)");
    if env::var_os("CARGO_FEATURE_LIBURING").is_none() {
        return;
    }
    println!("cargo::rerun-if-changed={LOOPS}");
    println!("cargo::rerun-if-changed=/usr/include/liburing.h");
    println!("cargo::rerun-if-env-changed=CC");
    match compile() {
        Ok(files) => {
            for file in files {
                println!("cargo::rustc-link-arg-bin=liburing={}", file.display());
            }
            println!("cargo::rustc-cfg=has_liburing");
        }
        // No failure, so that a build with all features works anywhere.
        Err(reason) => {
            println!("cargo::rustc-env=NO_LIBURING={reason}");
            // Until it is there, each build looks again: a header that is installed later is of an older date than this.
            println!("cargo::rerun-if-changed=no-liburing");
        }
    }
}

/// The loops and the library, by their paths: glommio has a liburing of its own, which the linker would
/// find first.
fn compile() -> Result<[PathBuf; 2], String> {
    let object = PathBuf::from(env::var_os("OUT_DIR").ok_or("no OUT_DIR")?).join("loops.o");
    let compiler = env::var("CC").unwrap_or_else(|_| "gcc".to_owned());
    let run = |command: &mut Command| command.output().map_err(|error| format!("{compiler}: {error}"));
    let arguments = ["-std=gnu11", "-O3", "-g1", "-Wall", "-Wextra", "-Werror", "-fPIE", "-c", LOOPS, "-o"];
    let output = run(Command::new(&compiler).args(arguments).arg(&object))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        let reason = text.lines().find(|line| line.contains("error")).unwrap_or("it failed");
        return Err(format!("{compiler}: {reason} (liburing-dev 2.3 or later is needed)"));
    }
    let output = run(Command::new(&compiler).arg("-print-file-name=liburing.a"))?;
    let library = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    // A file that is not found is printed as its bare name.
    if library.is_absolute() { Ok([object, library]) } else { Err("there is no liburing.a".to_owned()) }
}
