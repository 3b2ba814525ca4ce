//! Reads of a file, each into the buffer that it carries.

use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::num::NonZeroU32;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use kit::file::{self, BLOCK, Block, Offsets};
use kit::{Args, Error, Outcome, Pace, skip};
use rummelplatz::{
    Completion, CompletionResult, ControlFlow, Request, RingOperation, SubmitError, Submitter, request, ring,
};

use super::fixed::{Fixed, register};

/// How the kernel is asked.
pub(crate) trait Way: Sized + 'static {
    /// What is read from, and into.
    type Target;

    fn submit(
        read: Read<Self>,
        submitter: &mut Submitter<'_, Bench<Self>, Reads<Self>>,
    ) -> Result<(), SubmitError>;
}

/// One read.
pub(crate) struct Read<W: Way> {
    pub(crate) target: W::Target,
    pub(crate) block: Box<Block>,
    pub(crate) offset: u64,
    counter: u64,
}

/// From a file, by the safe way.
struct Plain;

impl Way for Plain {
    type Target = Arc<File>;

    #[inline(always)]
    fn submit(
        read: Read<Plain>,
        submitter: &mut Submitter<'_, Bench<Plain>, Reads<Plain>>,
    ) -> Result<(), SubmitError> {
        submitter.submit(read, Read::request).map(drop)
    }
}

impl Read<Plain> {
    fn request(&mut self) -> Request<'_> {
        request::read_at(&self.target, &mut self.block.0, self.offset)
    }
}

pub(crate) struct Reads<W: Way> {
    /// Those to begin with.
    first: Vec<Read<W>>,
    offsets: Offsets,
    pace: Pace,
    total: u64,
}

#[ring]
pub(crate) struct Bench<W: Way> {
    reads: Reads<W>,
}

impl<W: Way> RingOperation<Bench<W>> for Reads<W> {
    type RingData = Read<W>;
    type SetupError = SubmitError;
    type TeardownError = Infallible;
    type ControlFlowWarn = Infallible;
    type ControlFlowError = io::Error;

    fn setup(&mut self, mut submitter: Submitter<'_, Bench<W>, Self>) -> Result<(), SubmitError> {
        for mut read in std::mem::take(&mut self.first) {
            read.offset = self.offsets.draw();
            W::submit(read, &mut submitter)?;
        }
        Ok(())
    }

    fn on_completion(
        &mut self,
        completion: Completion,
        mut read: Read<W>,
        mut submitter: Submitter<'_, Bench<W>, Self>,
    ) -> CompletionResult<Bench<W>, Self> {
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
        match W::submit(read, &mut submitter) {
            Ok(()) => (ControlFlow::Continue, None),
            Err(error) => (ControlFlow::Error(error.into()), None),
        }
    }
}

/// Keeps `depth` reads in flight.
pub(crate) fn read(args: &Args) -> Outcome {
    let depth: usize = args.number("depth", 32)?;
    let file = Arc::new(file::open(args)?);
    match args.text("mode", "plain") {
        "plain" | "direct" => reads::<Plain>(args, depth, |_| file.clone(), |_, _| Ok(())),
        "fixed" => reads::<Fixed>(args, depth, |number| number, |ring, first| register(ring, &file, first)),
        other => Err(skip(format!("no mode `{other}`"))),
    }
}

fn reads<W: Way>(
    args: &Args,
    depth: usize,
    target: impl Fn(u16) -> W::Target,
    prepare: impl FnOnce(RawFd, &mut [Read<W>]) -> Result<(), Error>,
) -> Outcome {
    let pace = Pace::from_args(args, depth, 250_000)?;
    let entries = NonZeroU32::new(4 * depth as u32).ok_or("depth=0")?;
    let read = |number| Read { target: target(number), block: Box::default(), offset: 0, counter: 0 };
    let mut first: Vec<Read<W>> = (0..u16::try_from(depth)?).map(read).collect();
    let ring = Bench::<W>::new_raw_ring(entries)?;
    prepare(ring.as_raw_fd(), &mut first)?;
    let reads = Reads { first, offsets: Offsets::default(), pace, total: 0 };
    let mut bench = Bench::builder(reads).raw_ring(ring).build()?;
    bench.run()?;
    let Reads { pace, total, .. } = bench.reads;
    pace.finish(total)
}
