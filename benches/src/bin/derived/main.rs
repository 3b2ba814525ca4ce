//! The contestant `derived`: operations made by `#[derive(RingOperation)]`, with `?`, as a newcomer writes them.

#![forbid(unsafe_code)]

mod multishot;
mod nop;
mod oneshot;
mod read;

use std::net::TcpListener;
use std::process::ExitCode;

use kit::echo::{self, Shape};
use kit::{Args, Error, Outcome};

/// The queue size of a ring that serves this many connections.
fn entries(conns: usize) -> u32 {
    (4 * conns).next_power_of_two().clamp(64, 4096) as u32
}

fn run(listener: TcpListener, shape: Shape) -> Result<(), Error> {
    match shape.multishot {
        true => multishot::run(listener, shape),
        false => oneshot::run(listener, shape),
    }
}

fn echo(args: &Args) -> Outcome {
    let (listener, shape) = echo::start(args)?;
    run(listener, shape)?;
    echo::finish()
}

fn serve(args: &Args) -> Outcome {
    let (listener, shape) = echo::serve("derived", args)?;
    run(listener, shape)?;
    Err("the server has ended by itself".into())
}

fn main() -> ExitCode {
    kit::contest("derived", &[("nop", nop::nop), ("read", read::read), ("echo", echo), ("serve", serve)])
}
