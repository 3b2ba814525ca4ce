//! An operation that ends its ring on SIGINT and SIGTERM. It works in any ring; four of the examples use this module.

use std::io;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::SignalFd;
use rummelplatz::{Completion, ControlFlow, Request, Ring, RingOperation, Submitter, request};

/// Ends the ring when a signal has been read.
#[derive(RingOperation)]
#[ring_operation(data = SignalRead, error = io::Error, on_completion)]
pub(crate) struct Signals;

pub(crate) struct SignalRead {
    descriptor: SignalFd,
    /// A `struct signalfd_siginfo`.
    info: [u8; 128],
}

impl SignalRead {
    /// Blocks the signals, so that they can be read and don't end the process.
    pub(crate) fn new() -> io::Result<SignalRead> {
        let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM]);
        signals.thread_block()?;
        Ok(SignalRead { descriptor: SignalFd::new(&signals)?, info: [0; 128] })
    }

    pub(crate) fn request(&mut self) -> Request<'_> {
        request::read(&self.descriptor, &mut self.info)
    }
}

impl Signals {
    fn on_completion<R: Ring>(
        &mut self,
        completion: Completion,
        _: SignalRead,
        _: Submitter<'_, R, Self>,
    ) -> io::Result<ControlFlow> {
        completion.result()?;
        Ok(ControlFlow::Exit)
    }
}
