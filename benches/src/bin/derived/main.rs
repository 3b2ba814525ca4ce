//! The contestant `derived`: operations made by `#[derive(RingOperation)]`, with `?`, as a newcomer writes them.

#![forbid(unsafe_code)]

mod multishot;
mod nop;
mod oneshot;
mod read;

use std::net::TcpListener;
use std::process::ExitCode;

use kit::Error;
use kit::echo::{self, Server, Shape};

struct Derived;

impl Server for Derived {
    const NAME: &'static str = "derived";
    const SHAPES: &'static [&'static str] = &["multishot", "oneshot"];

    fn run(listener: TcpListener, shape: Shape) -> Result<(), Error> {
        match shape.multishot {
            true => multishot::run(listener, shape),
            false => oneshot::run(listener, shape),
        }
    }
}

fn main() -> ExitCode {
    kit::contest(
        "derived",
        &[
            ("nop", nop::nop),
            ("read", read::read),
            ("echo", echo::alone::<Derived>),
            ("serve", echo::loaded::<Derived>),
        ],
    )
}
