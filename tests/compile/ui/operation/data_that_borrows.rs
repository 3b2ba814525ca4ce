use std::num::NonZeroU32;

use rummelplatz::{RingOperation, ring};

#[ring]
struct Server {
    accept: Accept<'static>,
}

#[derive(RingOperation)]
#[ring_operation(data = &'a str)]
struct Accept<'a>(&'a str);

fn main() {
    let raw = Server::new_raw_ring(NonZeroU32::MIN).unwrap();
    let mut server = Server::new(raw, None, Accept("x"));
    server.run().unwrap();
    println!("{:?} {:?}", server.stats(), Server::ACCEPT);
}
