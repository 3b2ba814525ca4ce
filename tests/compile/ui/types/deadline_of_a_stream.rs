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
        submitter.stream(File { file, buffer: vec![0; 16] }, |data| {
            request::accept_multi(&data.file).deadline(std::time::Duration::from_secs(1))
        })?;
        Ok(())
    }
}

fn main() {
    let raw = Server::new_raw_ring(std::num::NonZeroU32::MIN).unwrap();
    Server::new(raw, None, Reader::default(), Timer).run().unwrap();
}
