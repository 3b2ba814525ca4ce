use std::num::NonZeroU32;

use rummelplatz::{RingOperation, ring};

#[derive(RingOperation)]
struct Accept;

#[ring]
struct Server<'a> {
    accept: &'a mut Accept,
}

fn main() {
    let mut accept = Accept;
    let raw = Server::new_raw_ring(NonZeroU32::MIN).unwrap();
    let mut server = Server::new(raw, None, &mut accept);
    server.run().unwrap();
    println!("{:?} {:?}", server.stats(), Server::ACCEPT);
}
