use rummelplatz::{Completion, Request, RingOperation, Submitter, request, ring};
use std::{error::Error, io, ops::Range};

#[ring] // The struct is the ring: one field for each operation.
struct Cat {
    copier: Copier,
}

#[derive(RingOperation)]
#[ring_operation(ring = Cat, data = Block, error = io::Error, setup, on_completion)]
struct Copier;

struct Block {
    input: io::Stdin,
    output: io::Stdout,
    buffer: Box<[u8]>,
    unwritten: Range<usize>,
}

impl Block {
    // The next request follows from the data, and borrows from nothing else.
    fn request(&mut self) -> Request<'_> {
        match self.unwritten.is_empty() {
            true => request::read(&self.input, &mut self.buffer),
            false => request::write(&self.output, &self.buffer[self.unwritten.clone()]),
        }
    }
}

impl Copier {
    fn setup(&mut self, mut submitter: Submitter<'_, Cat, Self>) -> io::Result<()> {
        let buffer = vec![0; 65536].into();
        let block = Block { input: io::stdin(), output: io::stdout(), buffer, unwritten: 0..0 };
        submitter.submit(block, Block::request)?;
        Ok(())
    }
    fn on_completion(&mut self, completion: Completion, mut block: Block, mut submitter: Submitter<'_, Cat, Self>) -> io::Result<()> {
        let bytes = completion.result()? as usize;
        match block.unwritten.is_empty() {
            true if bytes == 0 => return Ok(()), // The end; nothing is in flight, so the ring ends.
            true => block.unwritten = 0..bytes,
            false => block.unwritten.start += bytes,
        }
        submitter.submit(block, Block::request)?;
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    Cat::builder(Copier).build()?.run()?;
    Ok(())
}
