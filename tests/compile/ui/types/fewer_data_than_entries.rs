// Fault 18 of the earlier library.
use rummelplatz::io_uring::opcode;
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
        let nop = opcode::Nop::new().build();
        // SAFETY: a NOP points to nothing.
        unsafe { submitter.push_multiple([nop.clone(), nop], [()]) }.ok();
    }
}

fn main() {
    let raw = Server::new_raw_ring(std::num::NonZeroU32::MIN).unwrap();
    Server::new(raw, None, Reader).run().unwrap();
}
