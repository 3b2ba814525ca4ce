//! Reads of a file, each into the buffer that it carries.

use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::num::NonZeroU32;
use std::sync::Arc;

use kit::file::{self, BLOCK, Block, Offsets};
use kit::{Args, Outcome, Pace, skip};
use rummelplatz::{
    Completion, CompletionResult, ControlFlow, Request, RingOperation, SubmitError, Submitter, request, ring,
};

/// One read.
struct Read {
    file: Arc<File>,
    block: Box<Block>,
    offset: u64,
    counter: u64,
}

impl Read {
    fn request(&mut self) -> Request<'_> {
        request::read_at(&self.file, &mut self.block.0, self.offset)
    }
}

struct Reads {
    file: Arc<File>,
    depth: usize,
    offsets: Offsets,
    pace: Pace,
    total: u64,
}

#[ring]
struct Bench {
    reads: Reads,
}

impl RingOperation<Bench> for Reads {
    type RingData = Read;
    type SetupError = SubmitError;
    type TeardownError = Infallible;
    type ControlFlowWarn = Infallible;
    type ControlFlowError = io::Error;

    fn setup(&mut self, mut submitter: Submitter<'_, Bench, Self>) -> Result<(), SubmitError> {
        for _ in 0..self.depth {
            let (file, block, offset) = (self.file.clone(), Box::default(), self.offsets.draw());
            submitter.submit(Read { file, block, offset, counter: 0 }, Read::request)?;
        }
        Ok(())
    }

    fn on_completion(
        &mut self,
        completion: Completion,
        mut read: Read,
        mut submitter: Submitter<'_, Bench, Self>,
    ) -> CompletionResult<Bench, Self> {
        match completion.result() {
            Ok(length) if length as usize == BLOCK && read.block.is_from(read.offset) => {}
            Ok(_) => {
                let error = io::Error::other(format!("wrong bytes at {}", read.offset));
                return (ControlFlow::Error(error), None);
            }
            Err(error) => return (ControlFlow::Error(error), None),
        }
        read.counter += 1;
        if !self.pace.again() {
            self.total += read.counter;
            return (ControlFlow::Continue, None);
        }
        read.offset = self.offsets.draw();
        match submitter.submit(read, Read::request) {
            Ok(_) => (ControlFlow::Continue, None),
            Err(error) => (ControlFlow::Error(error.into()), None),
        }
    }
}

/// Keeps `depth` reads in flight.
pub(crate) fn read(args: &Args) -> Outcome {
    let mode = args.text("mode", "plain");
    if !["plain", "direct"].contains(&mode) {
        return Err(skip("has no requests for registered files and buffers yet"));
    }
    let depth: usize = args.number("depth", 32)?;
    let pace = Pace::from_args(args, depth, 250_000)?;
    let file = Arc::new(file::open(args)?);
    let entries = NonZeroU32::new(4 * depth as u32).ok_or("depth=0")?;
    let reads = Reads { file, depth, offsets: Offsets::default(), pace, total: 0 };
    let mut bench = Bench::builder(reads).entries(entries).build()?;
    bench.run()?;
    let Reads { pace, total, .. } = bench.reads;
    pace.finish(total)
}
