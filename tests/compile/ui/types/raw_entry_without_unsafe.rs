// Fault 17 of the earlier library.
use rummelplatz::io_uring::{opcode, types};
use rummelplatz::{RingOperation, Submitter, ring};

#[ring]
struct Server {
    reader: Reader,
}

#[derive(RingOperation)]
#[ring_operation(ring = Server, setup)]
struct Reader;

impl Reader {
    fn setup(&mut self, mut submitter: Submitter<'_, Server, Self>) {
        let mut buffer = [0; 64];
        let entry = opcode::Read::new(types::Fd(0), buffer.as_mut_ptr(), 64).build();
        submitter.push(entry, ()).ok();
    }
}

fn main() {
    let raw = Server::new_raw_ring(std::num::NonZeroU32::MIN).unwrap();
    Server::new(raw, None, Reader).run().unwrap();
}
