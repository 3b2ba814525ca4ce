//! Reads of a file, each into the buffer that it carries.

use std::convert::Infallible;
use std::io;
use std::marker::PhantomData;
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use kit::file::{self, BLOCK, Block, Offsets};
use kit::{Args, Outcome, Pace, skip};
use rummelplatz::{
    Completion, CompletionResult, ControlFlow, FixedBuffer, FixedBuffers, FixedFile, Request, RingOperation,
    Submitter, request, ring,
};

/// How the kernel is asked to read.
trait Way: Sized + 'static {
    /// What is read from.
    type File;
    /// What is read into.
    type Buffer;

    /// As many reads as there are to be in flight.
    fn reads(
        file: &Arc<OwnedFd>,
        depth: u32,
        submitter: &mut Submitter<'_, Bench<Self>, Reads<Self>>,
    ) -> io::Result<Vec<Box<Read<Self>>>>;

    fn request(read: &mut Read<Self>) -> Request<'_>;

    fn bytes(buffer: &Self::Buffer) -> &[u8];
}

/// One read. Its requests move the box, which is made once.
struct Read<W: Way> {
    file: W::File,
    buffer: W::Buffer,
    offset: u64,
    counter: u64,
}

impl<W: Way> Read<W> {
    fn new(file: W::File, buffer: W::Buffer) -> Box<Self> {
        Box::new(Read { file, buffer, offset: 0, counter: 0 })
    }
}

/// From a file, into memory.
struct Plain;

impl Way for Plain {
    // Getting the descriptor of a `File` is a call, unless the standard library is compiled along.
    type File = Arc<OwnedFd>;
    type Buffer = Block;

    fn reads(
        file: &Arc<OwnedFd>,
        depth: u32,
        _: &mut Submitter<'_, Bench<Self>, Reads<Self>>,
    ) -> io::Result<Vec<Box<Read<Self>>>> {
        Ok((0..depth).map(|_| Read::new(file.clone(), Block::default())).collect())
    }

    fn request(read: &mut Read<Plain>) -> Request<'_> {
        request::read_at(&read.file, &mut read.buffer.0, read.offset)
    }

    fn bytes(buffer: &Block) -> &[u8] {
        &buffer.0
    }
}

/// From a file into memory, both of them registered.
struct Fixed;

impl Way for Fixed {
    type File = FixedFile;
    type Buffer = FixedBuffer;

    fn reads(
        file: &Arc<OwnedFd>,
        depth: u32,
        submitter: &mut Submitter<'_, Bench<Self>, Reads<Self>>,
    ) -> io::Result<Vec<Box<Read<Self>>>> {
        let buffers = FixedBuffers::new(depth, BLOCK as u32)?;
        submitter.register_buffers(&buffers)?;
        let file = submitter.register_file(file)?;
        Ok(std::iter::from_fn(|| buffers.take()).map(|buffer| Read::new(file.clone(), buffer)).collect())
    }

    fn request(read: &mut Read<Fixed>) -> Request<'_> {
        request::read_fixed_at(&read.file, &mut read.buffer, read.offset)
    }

    fn bytes(buffer: &FixedBuffer) -> &[u8] {
        buffer
    }
}

struct Reads<W: Way> {
    file: Arc<OwnedFd>,
    depth: u32,
    offsets: Offsets,
    pace: Pace,
    total: u64,
    way: PhantomData<W>,
}

#[ring]
struct Bench<W: Way> {
    reads: Reads<W>,
}

impl<W: Way> RingOperation<Bench<W>> for Reads<W> {
    type RingData = Box<Read<W>>;
    type SetupError = io::Error;
    type TeardownError = Infallible;
    type ControlFlowWarn = Infallible;
    type ControlFlowError = io::Error;

    fn setup(&mut self, mut submitter: Submitter<'_, Bench<W>, Self>) -> io::Result<()> {
        for mut read in W::reads(&self.file, self.depth, &mut submitter)? {
            read.offset = self.offsets.draw();
            submitter.submit(read, |it| W::request(it))?;
        }
        Ok(())
    }

    fn on_completion(
        &mut self,
        completion: Completion,
        mut read: Box<Read<W>>,
        mut submitter: Submitter<'_, Bench<W>, Self>,
    ) -> CompletionResult<Bench<W>, Self> {
        match completion.result() {
            Ok(length) if length as usize == BLOCK && file::is_from(W::bytes(&read.buffer), read.offset) => {}
            Ok(_) => return (ControlFlow::Error(wrong(read.offset)), None),
            Err(error) => return (ControlFlow::Error(error), None),
        }
        read.counter += 1;
        if !self.pace.again() {
            self.total += read.counter;
            return (ControlFlow::Continue, None);
        }
        read.offset = self.offsets.draw();
        match submitter.submit(read, |it| W::request(it)) {
            Ok(_) => (ControlFlow::Continue, None),
            Err(error) => (ControlFlow::Error(error.into()), None),
        }
    }
}

fn wrong(offset: u64) -> io::Error {
    io::Error::other(format!("wrong bytes at {offset}"))
}

/// Keeps `depth` reads in flight.
pub(crate) fn read(args: &Args) -> Outcome {
    match args.text("mode", "plain") {
        "plain" | "direct" => reads::<Plain>(args),
        "fixed" | "direct-fixed" => reads::<Fixed>(args),
        other => Err(skip(format!("no mode `{other}`"))),
    }
}

fn reads<W: Way>(args: &Args) -> Outcome {
    let depth: u32 = args.number("depth", 32)?;
    let file = Arc::new(OwnedFd::from(file::open(args)?));
    let pace = Pace::from_args(args, depth as usize, 250_000)?;
    let entries = NonZeroU32::new(4 * depth).ok_or("depth=0")?;
    let ring = Bench::<W>::new_raw_ring(entries)?;
    let reads = Reads { file, depth, offsets: Offsets::default(), pace, total: 0, way: PhantomData };
    let mut bench = Bench::<W>::builder(reads).raw_ring(ring).build()?;
    bench.run()?;
    let Reads { pace, total, .. } = bench.reads;
    pace.finish(total)
}
