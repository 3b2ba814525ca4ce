use std::io;

use rummelplatz::{Completion, RingOperation, Submitter, ring};

#[ring]
struct Server {
    reader: Reader,
    timer: Timer,
}

#[derive(RingOperation)]
struct Timer;

struct File {
    file: std::fs::File,
    buffer: Vec<u8>,
}

#[derive(Default, RingOperation)]
#[ring_operation(ring = Server, data = File, warn = io::Error, on_completion)]
struct Reader;

impl Reader {
    fn on_completion(
        &mut self,
        completion: Completion,
        _: File,
        _: Submitter<'_, Server, Self>,
    ) -> io::Result<()> {
        let first = completion.into_buffer()?;
        let second = completion.into_buffer()?;
        drop((first, second));
        Ok(())
    }
}

fn main() {
    let raw = Server::new_raw_ring(std::num::NonZeroU32::MIN).unwrap();
    Server::new(raw, None, Reader::default(), Timer).run().unwrap();
}
