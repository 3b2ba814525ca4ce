//! The contestant `rummelplatz`: operations written by hand, on the safe interface.

#![forbid(unsafe_code)]

mod bundles;
mod deadline;
mod multishot;
mod nop;
mod oneshot;
mod read;
mod teardown;

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::process::ExitCode;

use kit::echo::{self, Shape};
use kit::{Args, Error, Outcome};
use rummelplatz::{BufferPool, FixedFile};

fn run(args: &Args, listener: TcpListener, shape: Shape) -> Result<(), Error> {
    match (shape.multishot, args.text("mode", "plain")) {
        (true, "bundles") => bundles::run(listener, shape),
        (true, "incremental") => {
            let pool = BufferPool::incremental(shape.buffers as u16, shape.buffer as u32)?;
            multishot::run(listener, shape, pool)
        }
        (true, _) => {
            let pool = BufferPool::new(shape.buffers as u16, shape.buffer as u32)?;
            multishot::run(listener, shape, pool)
        }
        (false, "direct") => oneshot::run::<FixedFile>(listener, shape),
        (false, _) => oneshot::run::<OwnedFd>(listener, shape),
    }
}

fn echo(args: &Args) -> Outcome {
    let (listener, shape) = echo::start(args)?;
    run(args, listener, shape)?;
    echo::finish()
}

fn serve(args: &Args) -> Outcome {
    let (listener, shape) = echo::serve("rummelplatz", args)?;
    run(args, listener, shape)?;
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
