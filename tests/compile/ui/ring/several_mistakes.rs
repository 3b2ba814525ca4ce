use std::num::NonZeroU32;

use rummelplatz::{RingOperation, ring};

#[derive(RingOperation)]
struct Accept;

#[ring(sqpoll, entries = 0, grace_ms)]
#[derive(Debug, Clone)]
struct Server<'a> {
    accept: Accept,
    borrowed: &'a Accept,
    Accept: Accept,
}

fn main() {
    let raw = Server::new_raw_ring(NonZeroU32::MIN).unwrap();
    let mut server = Server::new(raw, None, Accept, &Accept, Accept);
    server.run().unwrap();
    println!("{:?} {:?}", server.stats(), Server::ACCEPT);
}
