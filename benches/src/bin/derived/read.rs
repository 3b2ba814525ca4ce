//! Reads of a file, each into the buffer that it carries.

use std::fs::File;
use std::num::NonZeroU32;
use std::sync::Arc;

use kit::file::{self, BLOCK, Offsets};
use kit::{Args, Error, Outcome, Pace, skip};
use rummelplatz::{Completion, Request, RingOperation, Submitter, request, ring};

struct Read {
    file: Arc<File>,
    buffer: Vec<u8>,
    offset: u64,
    counter: u64,
}

impl Read {
    fn request(&mut self) -> Request<'_> {
        request::read_at(&*self.file, &mut self.buffer, self.offset)
    }
}

/// Keeps `depth` reads in flight.
#[derive(RingOperation)]
#[ring_operation(ring = Bench, data = Read, error = Error, setup, on_completion)]
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

impl Reads {
    fn setup(&mut self, mut submitter: Submitter<'_, Bench, Self>) -> Result<(), Error> {
        for _ in 0..self.depth {
            let (file, offset) = (self.file.clone(), self.offsets.draw());
            submitter.submit(Read { file, buffer: vec![0; BLOCK], offset, counter: 0 }, Read::request)?;
        }
        Ok(())
    }

    fn on_completion(
        &mut self,
        completion: Completion,
        mut read: Read,
        mut submitter: Submitter<'_, Bench, Self>,
    ) -> Result<(), Error> {
        let length = completion.result()? as usize;
        if length < BLOCK || !file::is_from(&read.buffer, read.offset) {
            return Err(format!("wrong bytes at {}", read.offset).into());
        }
        read.counter += 1;
        if self.pace.again() {
            read.offset = self.offsets.draw();
            submitter.submit(read, Read::request)?;
        } else {
            self.total += read.counter;
        }
        Ok(())
    }
}

pub(crate) fn read(args: &Args) -> Outcome {
    match args.text("mode", "plain") {
        "plain" => {}
        other => return Err(skip(format!("no mode `{other}`"))),
    }
    let depth = args.number("depth", 32)?;
    let file = Arc::new(file::open(args)?);
    let pace = Pace::from_args(args, depth, 250_000)?;
    let entries = NonZeroU32::new(4 * depth as u32).ok_or("depth=0")?;
    let reads = Reads { file, depth, offsets: Offsets::default(), pace, total: 0 };
    let mut bench = Bench::builder(reads).entries(entries).build()?;
    bench.run()?;
    let Reads { pace, total, .. } = bench.reads;
    pace.finish(total)
}
