//! What must compile, and what must not and how it is said: each file in `ui/` and in `pass/` is a program.
//!
//! `RUMMEL_OVERWRITE=1 cargo test -p rummelplatz-tests --test ui` writes the expected messages anew; read them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// The compiler whose words the `.stderr` files are in.
const TOOLCHAIN: &str = "rustc 1.95.";

#[test]
fn mistakes_are_reported_in_one_build_and_once() {
    let version = rustc().arg("--version").output().map(|output| output.stdout);
    let version = String::from_utf8(version.unwrap_or_default()).unwrap_or_default();
    if !version.starts_with(TOOLCHAIN) {
        println!("skipped: the messages are those of {TOOLCHAIN}x, this is {version}");
        return;
    }
    let mut wrong = Vec::new();
    for case in ["ui/ring", "ui/operation", "ui/types"].iter().flat_map(|directory| cases(directory)) {
        let compiled = compile(&case, &["--emit=metadata"]);
        let said = canonical(&String::from_utf8_lossy(&compiled.stderr));
        let expected = workspace().join(case.with_extension("stderr"));
        if std::env::var_os("RUMMEL_OVERWRITE").is_some() {
            fs::write(&expected, &said).unwrap();
        }
        let expected = fs::read_to_string(expected).unwrap_or_default();
        if compiled.status.success() || said != expected {
            println!("{}: {}\n{said}\nand not\n{expected}", case.display(), compiled.status);
            wrong.push(case);
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn what_is_allowed_compiles_and_runs() {
    let mut wrong = Vec::new();
    for case in cases("pass") {
        let mut output = compile(&case, &[]);
        if output.status.success() {
            output = Command::new(scratch(&case)).output().unwrap();
        }
        if !output.status.success() {
            println!("{}: {}", case.display(), output.status);
            println!(
                "{}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
            wrong.push(case);
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// The programs in a directory, by their paths in the workspace.
fn cases(directory: &str) -> Vec<PathBuf> {
    let directory = Path::new("tests").join(directory);
    let entries = fs::read_dir(workspace().join(&directory)).unwrap();
    let names = entries.map(|entry| PathBuf::from(entry.unwrap().file_name()));
    let mut cases: Vec<PathBuf> = names
        .filter(|name| name.extension().is_some_and(|it| it == "rs"))
        .map(|it| directory.join(it))
        .collect();
    cases.sort();
    assert!(!cases.is_empty(), "no programs in {directory:?}");
    cases
}

fn rustc() -> Command {
    Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
}

/// Where a program is put.
fn scratch(case: &Path) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(case.file_stem().unwrap())
}

/// Compiles a program, without cargo, with which it would take ten times as long.
fn compile(case: &Path, arguments: &[&str]) -> Output {
    static LIBRARIES: OnceLock<Vec<String>> = OnceLock::new();
    let mut rustc = rustc();
    rustc.current_dir(workspace()).arg(case).args(["--edition=2024", "--crate-type=bin", "-o"]);
    rustc.arg(scratch(case)).args(["--diagnostic-width=240", "-Adead_code"]);
    rustc.args(LIBRARIES.get_or_init(libraries)).args(arguments).output().unwrap()
}

/// Builds what the programs use, and says how the compiler finds it.
fn libraries() -> Vec<String> {
    // …/target/PROFILE/deps/ui-0123456789abcdef
    let test = std::env::current_exe().unwrap();
    let target = test.ancestors().nth(3).unwrap();
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(workspace()).args(["build", "--quiet", "--package", env!("CARGO_PKG_NAME"), "--lib"]);
    let built = cargo.arg("--message-format=json").arg("--target-dir").arg(target).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    // The files that were made, among the strings of the JSON.
    let messages = String::from_utf8(built.stdout).unwrap();
    let made = |name: &str| {
        messages.split('"').find(|it| it.contains(&format!("/lib{name}-")) && it.ends_with(".rlib"))
    };
    let externs = ["rummelplatz", "eyre"].map(|name| format!("--extern={name}={}", made(name).unwrap()));
    externs.into_iter().chain([format!("-Ldependency={}", target.join("debug/deps").display())]).collect()
}

/// Whose lines a message shows.
#[derive(Clone, Copy)]
enum Source {
    TheProgram,
    Ours,
    TheStandardLibrary,
}

impl Source {
    /// Of a path, and the path without what changes when another file does.
    fn of(path: &str) -> (Source, &str) {
        let end_of_file_name = |path: &str| path.find(':').unwrap_or(path.len());
        if path.starts_with("tests/ui/") {
            (Source::TheProgram, path)
        } else if path.starts_with("rummelplatz/") {
            (Source::Ours, &path[..end_of_file_name(path)])
        } else {
            // Wherever its sources are. Where they are installed, lines of them are shown.
            let path = path.rsplit("/library/").next().unwrap_or(path);
            (Source::TheStandardLibrary, &path[..end_of_file_name(path)])
        }
    }
}

/// What the compiler has said, without what changes when another file does: the numbers of its lines, and how wide the
/// widest of them is.
fn canonical(said: &str) -> String {
    let mut canonical = String::new();
    let (mut source, mut margin) = (Source::TheProgram, 0);
    for line in said.lines().take_while(|line| !line.starts_with("error: aborting due to")) {
        let arrow = ["--> ", "::: "].iter().find(|&&arrow| line.trim_start().starts_with(arrow));
        if let Some(arrow) = arrow {
            margin = line.len() - line.trim_start().len();
            let path;
            (source, path) = Source::of(line[margin..].trim_start_matches(arrow));
            canonical += &format!("  {arrow}{path}\n");
            continue;
        }
        let (number, rest) = line.split_at_checked(margin).unwrap_or((line, ""));
        let is_margin = |number: &str| number.bytes().all(|byte| byte == b' ' || byte.is_ascii_digit());
        match source {
            _ if number.is_empty() || !is_margin(number) => {
                // What is suggested is in the program.
                if !line.starts_with("...") {
                    source = Source::TheProgram;
                }
                canonical += &format!("{line}\n");
            }
            Source::Ours if rest.starts_with(" |") => canonical += &format!("  {rest}\n"),
            Source::TheStandardLibrary if rest.starts_with(" |") => {}
            _ => canonical += &format!("{:2}{rest}\n", number.trim()),
        }
    }
    canonical.trim_end().to_owned() + "\n"
}
