//! The echo server.

use std::net::TcpListener;

use super::{Buffers, Ring, multishot, oneshot};
use crate::echo::{self, Shape};
use crate::{Args, Error, Outcome, skip};

/// The server with the client in the same thread.
///
/// # Errors
///
/// Those of the server, and of `echo::start` and `echo::finish`.
pub fn echo<R: Ring>(args: &Args) -> Outcome {
    let (listener, shape) = echo::start(args)?;
    run::<R>(args, &listener, shape)?;
    echo::finish()
}

/// The server for a client on the other core.
///
/// # Errors
///
/// If something fails that is not a connection's fault; otherwise it does not end.
pub fn serve<R: Ring>(name: &'static str, args: &Args) -> Outcome {
    let (listener, shape) = echo::serve(name, args)?;
    run::<R>(args, &listener, shape)?;
    Err("the server has ended by itself".into())
}

/// As `echo`, with the variant that `mode` names.
///
/// # Errors
///
/// As for `echo`.
pub fn trade<R: Ring>(args: &Args) -> Outcome {
    let (listener, shape) = echo::start(args)?;
    let ring = build(args, shape)?;
    match args.text("mode", "plain") {
        "poll-first" => run_oneshot::<R, oneshot::PollFirst>(&listener, shape, ring)?,
        "zero-copy" => run_oneshot::<R, oneshot::ZeroCopy>(&listener, shape, ring)?,
        "fixed-files" => run_oneshot::<R, oneshot::FixedFiles>(&listener, shape, ring)?,
        "bundles" => run_multishot::<R, true>(&listener, shape, ring)?,
        other => return Err(skip(format!("no mode `{other}`"))),
    }
    echo::finish()
}

fn build<R: Ring>(args: &Args, shape: Shape) -> Result<R, Error> {
    R::build(args, shape.entries() as u32)
}

fn run<R: Ring>(args: &Args, listener: &TcpListener, shape: Shape) -> Result<(), Error> {
    let ring = build(args, shape)?;
    match shape.multishot {
        false => run_oneshot::<R, oneshot::Plain>(listener, shape, ring),
        true => run_multishot::<R, false>(listener, shape, ring),
    }
}

fn run_oneshot<R: Ring, V: oneshot::Variant>(
    listener: &TcpListener,
    shape: Shape,
    mut ring: R,
) -> Result<(), Error> {
    Ok(oneshot::Server::<V>::new(listener, shape).run(&mut ring)?)
}

fn run_multishot<R: Ring, const BUNDLES: bool>(
    listener: &TcpListener,
    shape: Shape,
    ring: R,
) -> Result<(), Error> {
    // The ring is dropped before the buffers that it knows of.
    let buffers;
    let mut ring = ring;
    buffers = Buffers::new(&ring.submitter(), shape.buffers, shape.buffer)?;
    multishot::Server::<BUNDLES>::new(listener, shape, buffers).run(&mut ring)?;
    Ok(())
}
