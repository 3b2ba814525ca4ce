//! Runs the contestants: `gate` counts and judges, `report` measures and writes pages, `one` runs one.

mod runner;

use std::process::ExitCode;

use runner::Error;
use runner::arena::Arena;

const USAGE: &str = "\
usage: rummelplatz-bench COMMAND
  gate                       counts instructions and allocations, and fails if there are too many
  report [OPTIONS]           measures everything and writes docs/benchmarks
    --quick                  in few and short rounds
    --peers                  with peers, which are many crates to build
    --only nop,read,echo     only these pages
  list                       the contestants and what they can do
  one CONTESTANT WORK KEY=VALUE…   runs one work of one contestant";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match command(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("rummelplatz-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether everything is as it should be.
fn command(arguments: &[String]) -> Result<bool, Error> {
    let (command, rest) = arguments.split_first().ok_or(USAGE)?;
    match command.as_str() {
        "gate" if rest.is_empty() => runner::gate::gate(&Arena::new()?),
        "report" => runner::report::report(&Arena::new()?, &runner::report::Options::parse(rest)?),
        "list" if rest.is_empty() => runner::list(&Arena::new()?),
        "one" => {
            let [contestant, work, args @ ..] = rest else { return Err(USAGE.into()) };
            runner::one(&Arena::new()?, contestant, work, args)
        }
        _ => Err(USAGE.into()),
    }
}
