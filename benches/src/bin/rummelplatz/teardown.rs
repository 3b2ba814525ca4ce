//! The end of a ring with much in flight.

use std::convert::Infallible;
use std::io::{self, PipeReader};
use std::num::NonZeroU32;
use std::sync::Arc;

use kit::{Args, Error, Outcome, Window, skip};
use rummelplatz::{
    Completion, CompletionResult, ControlFlow, Request, RingOperation, SubmitError, Submitter, request, ring,
};

/// A read of a pipe that stays empty.
struct Read {
    pipe: Arc<PipeReader>,
    byte: [u8; 1],
}

impl Read {
    fn request(&mut self) -> Request<'_> {
        request::read(&self.pipe, &mut self.byte)
    }
}

struct Reads {
    pipe: Arc<PipeReader>,
    requests: usize,
    cancelled: u64,
}

/// Reports that everything is armed, and ends the ring.
struct End {
    window: Option<Window>,
}

#[ring]
struct Armed {
    reads: Reads,
    end: End,
}

impl RingOperation<Armed> for Reads {
    type RingData = Read;
    type SetupError = SubmitError;
    type TeardownError = Infallible;
    type ControlFlowWarn = Infallible;
    type ControlFlowError = Infallible;

    fn setup(&mut self, mut submitter: Submitter<'_, Armed, Self>) -> Result<(), SubmitError> {
        for _ in 0..self.requests {
            submitter.submit(Read { pipe: self.pipe.clone(), byte: [0] }, Read::request)?;
        }
        submitter.to(Armed::END).submit((), |()| request::nop()).map(drop)
    }

    fn on_completion(
        &mut self,
        _: Completion,
        _: Read,
        _: Submitter<'_, Armed, Self>,
    ) -> CompletionResult<Armed, Self> {
        (ControlFlow::Continue, None)
    }

    fn on_teardown_completion(
        &mut self,
        completion: Completion,
        _: Read,
        _: Submitter<'_, Armed, Self>,
    ) -> Result<(), Infallible> {
        self.cancelled += u64::from(completion.is_cancelled());
        Ok(())
    }
}

impl RingOperation<Armed> for End {
    type RingData = ();
    type SetupError = Infallible;
    type TeardownError = Infallible;
    type ControlFlowWarn = Infallible;
    type ControlFlowError = Infallible;

    fn on_completion(
        &mut self,
        _: Completion,
        (): (),
        _: Submitter<'_, Armed, Self>,
    ) -> CompletionResult<Armed, Self> {
        self.window = Some(Window::open());
        (ControlFlow::Exit, None)
    }
}

/// Arms requests on a pipe that stays empty, then ends the ring.
pub(crate) fn teardown(args: &Args) -> Outcome {
    let requests: usize = args.number("requests", 10_000)?;
    if args.text("kind", "read") != "read" {
        return Err(skip("reads only"));
    }
    let (reader, _writer) = io::pipe()?;
    let reads = Reads { pipe: Arc::new(reader), requests, cancelled: 0 };
    let entries = NonZeroU32::new(4096).ok_or("no entries")?;
    let mut ring = Armed::builder(reads, End { window: None }).entries(entries).build()?;
    ring.run()?;
    let window = ring.end.window.ok_or_else(|| Error::from("it ended before all was armed"))?;
    Ok(window.close(requests as u64, ring.reads.cancelled))
}
