use std::io;
use std::num::NonZeroU32;

use rummelplatz::{Completion, RingOperation, Submitter, ring};

#[ring]
struct Server {
    accept: Accept,
}

#[derive(RingOperation)]
#[ring_operation(ring = Server, error = io::Error, warn = io::Error)]
struct Accept;

impl Accept {
    fn on_completion(&mut self, completion: Completion, _: (), _: Submitter<'_, Server, Self>) {
        drop(completion);
    }
}

fn main() {
    let raw = Server::new_raw_ring(NonZeroU32::MIN).unwrap();
    let mut server = Server::new(raw, None, Accept);
    server.run().unwrap();
    println!("{:?} {:?}", server.stats(), Server::ACCEPT);
}
