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
#[ring_operation(ring = Server, data = File, setup)]
struct Reader {
    kept: Option<Submitter<'static, Server, Reader>>,
}

impl Reader {
    fn setup(&mut self, submitter: Submitter<'_, Server, Self>) {
        self.kept = Some(submitter);
    }
}

fn main() {
    let raw = Server::new_raw_ring(std::num::NonZeroU32::MIN).unwrap();
    Server::new(raw, None, Reader::default(), Timer).run().unwrap();
}
