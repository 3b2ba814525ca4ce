use std::num::NonZeroU32;

use rummelplatz::{RingOperation, ring};

#[derive(RingOperation)]
struct Accept;

const GRACE: &str = "soon";

#[ring(grace_ms = GRACE)]
struct Server {
    accept: Accept,
}

fn main() {
    let raw = Server::new_raw_ring(NonZeroU32::MIN).unwrap();
    let mut server = Server::new(raw, None, Accept);
    server.run().unwrap();
    println!("{:?} {:?}", server.stats(), Server::ACCEPT);
}
