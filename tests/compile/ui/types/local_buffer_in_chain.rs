use std::io;

use rummelplatz::{RingOperation, Submitter, request, ring};

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
        let file = std::fs::File::open("/dev/zero")?;
        let mut local = [0; 16];
        let mut chain = submitter.chain();
        chain.link(File { file, buffer: vec![0; 16] }, |data| request::read(&data.file, &mut local))?;
        Ok(())
    }
}

fn main() {
    let raw = Server::new_raw_ring(std::num::NonZeroU32::MIN).unwrap();
    Server::new(raw, None, Reader::default(), Timer).run().unwrap();
}
