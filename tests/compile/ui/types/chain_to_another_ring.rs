use std::io;

use rummelplatz::{RingOperation, Submitter, request, ring};

#[ring]
struct Server {
    reader: Reader,
    timer: Timer,
}

#[derive(RingOperation)]
struct Timer;

#[ring]
struct Other {
    reader: Timer,
}

#[derive(Default, RingOperation)]
#[ring_operation(ring = Server, setup_error = io::Error, setup)]
struct Reader;

impl Reader {
    fn setup(&mut self, mut submitter: Submitter<'_, Server, Self>) -> io::Result<()> {
        let chain = submitter.chain();
        chain.to(Other::READER).submit((), |_| request::nop())?;
        Ok(())
    }
}

fn main() {
    let raw = Server::new_raw_ring(std::num::NonZeroU32::MIN).unwrap();
    Server::new(raw, None, Reader::default(), Timer).run().unwrap();
}
