use std::num::NonZeroU32;

use rummelplatz::{RingOperation, ring};

#[ring]
struct Server {
    accept: Accept,
}

#[derive(RingOperation)]
#[ring_operation(data)]
struct Accept;

fn main() {
    let raw = Server::new_raw_ring(NonZeroU32::MIN).unwrap();
    let mut server = Server::new(raw, None, Accept);
    server.run().unwrap();
    println!("{:?} {:?}", server.stats(), Server::ACCEPT);
}
