//! Counts the lines of its standard input.
use rummelplatz::{Completion, RingOperation, Submitter, request, ring};
use std::{error::Error, io};

#[ring] // The struct is the ring: one field for each operation.
struct LineCount {
    reader: Reader,
}

/// What a request needs while it is in flight is in its data: here, a file and a buffer.
#[derive(RingOperation)]
#[ring_operation(ring = LineCount, data = (io::Stdin, Vec<u8>), error = io::Error, on_completion)]
struct Reader {
    lines: usize,
}

impl Reader {
    fn on_completion(
        &mut self,
        completion: Completion,
        (input, bytes): (io::Stdin, Vec<u8>),
        mut submitter: Submitter<'_, LineCount, Self>,
    ) -> io::Result<()> {
        let read = completion.result()? as usize;
        self.lines += bytes[..read].iter().filter(|byte| **byte == b'\n').count();
        if read > 0 {
            submitter.submit((input, bytes), |(input, bytes)| request::read(input, bytes))?;
        }
        Ok(()) // At the end of the input nothing is in flight, and the ring ends.
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut ring = LineCount::builder(Reader { lines: 0 }).build()?;
    let data = (io::stdin(), vec![0; 65536]);
    ring.submitter(LineCount::READER).submit(data, |(input, bytes)| request::read(input, bytes))?;
    ring.run()?;
    println!("{} lines", ring.reader.lines);
    Ok(())
}
