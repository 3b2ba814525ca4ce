use std::num::NonZeroU32;

use rummelplatz::{Completion, RingOperation, ring};

#[ring]
struct Server {
    accept: Accept,
}

#[derive(RingOperation)]
#[ring_operation(on_completion)]
struct Accept;

impl Accept {
    fn on_completion(&mut self, _: Completion) {}
}

fn main() {
    let raw = Server::new_raw_ring(NonZeroU32::MIN).unwrap();
    let mut server = Server::new(raw, None, Accept);
    server.run().unwrap();
    println!("{:?} {:?}", server.stats(), Server::ACCEPT);
}
