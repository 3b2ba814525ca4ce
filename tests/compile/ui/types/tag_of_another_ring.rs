use std::io;

use rummelplatz::{RingOperation, Submitter, ring};

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
#[ring_operation(ring = Server, data = File, setup_error = io::Error, setup)]
struct Reader;

impl Reader {
    fn setup(&mut self, mut submitter: Submitter<'_, Server, Self>) -> io::Result<()> {
        submitter.to(Other::TIMER).post(())?;
        Ok(())
    }
}

#[ring]
struct Other {
    reader: Idle,
    timer: Timer,
}

#[derive(RingOperation)]
struct Idle;

fn main() {
    let raw = Server::new_raw_ring(std::num::NonZeroU32::MIN).unwrap();
    Server::new(raw, None, Reader::default(), Timer).run().unwrap();
}
