//! `run()?` in a `main` that returns `Result<(), Box<dyn std::error::Error>>`.

#![forbid(unsafe_code)]
#![deny(warnings)]

use std::num::NonZeroU32;

use rummelplatz::{RingOperation, Submitter, ring};

#[ring]
struct Server {
    operation: Operation,
}

#[derive(RingOperation)]
#[ring_operation(ring = Server, error = Opaque, setup)]
struct Operation;

impl Operation {
    fn setup(&mut self, _: Submitter<'_, Server, Self>) {}
}

struct Opaque;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let Ok(raw) = Server::new_raw_ring(NonZeroU32::MIN) else { return Ok(()) };
    Server::new(raw, None, Operation).run()?;
    Ok(())
}
