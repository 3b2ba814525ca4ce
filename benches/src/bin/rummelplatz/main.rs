//! The contestant `rummelplatz`: operations written by hand, on the safe interface.

#![forbid(unsafe_code)]

mod deadline;
mod multishot;
mod nop;
mod oneshot;
mod read;
mod teardown;

use std::process::ExitCode;

use kit::echo;
use kit::{Args, Outcome};

/// Of a ring that serves so many connections.
fn entries(conns: usize) -> u32 {
    (4 * conns).next_power_of_two().clamp(64, 4096) as u32
}

fn echo(args: &Args) -> Outcome {
    let (listener, shape) = echo::start(args)?;
    match shape.multishot {
        true => multishot::run(listener, shape)?,
        false => oneshot::run(listener, shape)?,
    }
    echo::finish()
}

fn serve(args: &Args) -> Outcome {
    let (listener, shape) = echo::serve("rummelplatz", args)?;
    match shape.multishot {
        true => multishot::run(listener, shape)?,
        false => oneshot::run(listener, shape)?,
    }
    Err("the server has ended by itself".into())
}

fn main() -> ExitCode {
    kit::contest(
        "rummelplatz",
        &[
            ("nop", nop::nop),
            ("data", nop::data),
            ("neighbour", nop::neighbour),
            ("deadline", deadline::deadline),
            ("read", read::read),
            ("echo", echo),
            ("serve", serve),
            ("teardown", teardown::teardown),
        ],
    )
}
