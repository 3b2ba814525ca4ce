//! The echo server.

use std::net::TcpListener;

use super::{Buffers, Ring, multishot, oneshot};
use crate::echo::{self, Shape};
use crate::{Args, Error, Outcome};

/// The server with the client in the same thread.
pub(super) fn echo<R: Ring>(args: &Args) -> Outcome {
    let (listener, shape) = echo::start(args)?;
    run::<R>(args, &listener, shape)?;
    echo::finish()
}

/// The server for a client on the other core.
///
/// # Errors
///
/// If something fails that is no connection's fault: it does not end otherwise.
pub fn serve<R: Ring>(name: &'static str, args: &Args) -> Outcome {
    let (listener, shape) = echo::serve(name, args)?;
    run::<R>(args, &listener, shape)?;
    Err("the server has ended by itself".into())
}

fn run<R: Ring>(args: &Args, listener: &TcpListener, shape: Shape) -> Result<(), Error> {
    let entries = (4 * shape.conns).next_power_of_two().clamp(64, 4096) as u32;
    if !shape.multishot {
        return Ok(oneshot::Server::new(listener, shape).run(&mut R::build(args, entries)?)?);
    }
    // The ring is dropped before the buffers that it knows of.
    let buffers;
    let mut ring = R::build(args, entries)?;
    buffers = Buffers::new(&ring.submitter(), shape.buffers, shape.buffer)?;
    multishot::Server::new(listener, shape, buffers).run(&mut ring)?;
    Ok(())
}
