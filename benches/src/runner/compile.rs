//! How long rings take to compile: programs of one operation and of many, generated beside the target directory.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::Error;
use super::arena::{Arena, succeed};
use super::stats::quantile;

/// How many operations the rings have.
pub(crate) const OPERATIONS: &[usize] = &[1, 8, 64];

/// How they are compiled, and with which arguments of cargo.
pub(crate) const WAYS: &[(&str, &[&str])] =
    &[("check", &["check"]), ("build", &["build"]), ("release", &["build", "--release"])];

/// The seconds that one program takes, without its dependencies, for each of the `WAYS`: the shortest time.
///
/// # Errors
///
/// If it does not compile.
pub(crate) fn seconds(arena: &Arena, operations: usize, times: usize) -> Result<Vec<f64>, Error> {
    let name = format!("ring-{operations}");
    let directory = arena.target().join("contest/rings").join(&name);
    fs::create_dir_all(directory.join("src"))?;
    let library = arena.workspace().join("rummelplatz");
    let manifest = format!(
        "[package]\nname = \"{name}\"\nedition = \"2024\"\n\n[dependencies]\nrummelplatz = {{ path = {library:?} }}\n\n[workspace]\n"
    );
    fs::write(directory.join("Cargo.toml"), manifest)?;
    fs::copy(arena.workspace().join("Cargo.lock"), directory.join("Cargo.lock"))?;
    let source = directory.join("src/main.rs");
    fs::write(&source, program(operations))?;
    let cargo = |arguments: &[&str]| {
        let mut cargo = Command::new("cargo");
        cargo.current_dir(&directory).args(arguments).args(["--quiet", "--offline"]);
        cargo.env("CARGO_TARGET_DIR", arena.target().join("contest/rings/target"));
        succeed(&mut cargo, "cargo")
    };
    let mut seconds = Vec::new();
    for (_, arguments) in WAYS {
        // This builds the dependencies, and makes sure that the right program is built.
        cargo(arguments)?;
        let mut taken = Vec::new();
        for _ in 0..times {
            touch(&source)?;
            let begin = Instant::now();
            cargo(arguments)?;
            taken.push(begin.elapsed().as_secs_f64());
        }
        seconds.push(quantile(&taken, 0.0));
    }
    Ok(seconds)
}

fn touch(source: &Path) -> Result<(), Error> {
    // Cargo compares modification times, which are coarse on some file systems.
    std::thread::sleep(Duration::from_millis(20));
    let text = fs::read(source)?;
    Ok(fs::write(source, text)?)
}

/// Each operation has a type of its own, as in a program that somebody wrote.
fn program(operations: usize) -> String {
    let mut text = "use std::error::Error;\nuse std::io;\n\nuse rummelplatz::{Completion, CompletionResult, ControlFlow, RingOperation, Submitter, request, ring};\n\n".to_owned();
    text.push_str("#[ring]\nstruct Program {\n");
    for number in 0..operations {
        writeln!(text, "    operation_{number}: Operation{number},").ok();
    }
    text.push_str("}\n");
    for number in 0..operations {
        write!(
            text,
            "
struct Operation{number} {{
    left: u64,
}}

impl RingOperation<Program> for Operation{number} {{
    type RingData = u64;
    type SetupError = io::Error;
    type TeardownError = io::Error;
    type ControlFlowWarn = io::Error;
    type ControlFlowError = io::Error;

    fn setup(&mut self, mut submitter: Submitter<'_, Program, Self>) -> io::Result<()> {{
        submitter.submit({number}, |_| request::nop())?;
        Ok(())
    }}

    fn on_completion(
        &mut self,
        completion: Completion,
        data: u64,
        mut submitter: Submitter<'_, Program, Self>,
    ) -> CompletionResult<Program, Self> {{
        if let Err(error) = completion.result() {{
            return (ControlFlow::Error(error), None);
        }}
        self.left -= 1;
        if self.left == 0 {{
            return (ControlFlow::Continue, None);
        }}
        match submitter.submit(data + 1, |_| request::nop()) {{
            Ok(_) => (ControlFlow::Continue, None),
            Err(error) => (ControlFlow::Error(error.into()), None),
        }}
    }}
}}
"
        )
        .ok();
    }
    text.push_str("\nfn main() -> Result<(), Box<dyn Error>> {\n    let mut program = Program::builder(\n");
    for number in 0..operations {
        writeln!(text, "        Operation{number} {{ left: 3 }},").ok();
    }
    text.push_str("    )\n    .build()?;\n    program.run()?;\n    Ok(())\n}\n");
    text
}
