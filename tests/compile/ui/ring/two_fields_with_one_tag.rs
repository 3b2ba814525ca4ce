use std::num::NonZeroU32;

use rummelplatz::{RingOperation, ring};

#[derive(RingOperation)]
struct Accept;

#[ring]
#[allow(non_snake_case)]
struct Server {
    accept: Accept,
    ACCEPT: Accept,
}

fn main() {
    let raw = Server::new_raw_ring(NonZeroU32::MIN).unwrap();
    let mut server = Server::new(raw, None, Accept, Accept);
    server.run().unwrap();
    println!("{:?} {:?}", server.stats(), Server::ACCEPT);
}
