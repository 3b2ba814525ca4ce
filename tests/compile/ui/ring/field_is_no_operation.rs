use std::num::NonZeroU32;

use rummelplatz::{RingOperation, ring};

#[derive(RingOperation)]
struct Accept;

#[ring]
struct Server {
    accept: Accept,
    numbers: Vec<u32>,
}

fn main() {
    let raw = Server::new_raw_ring(NonZeroU32::MIN).unwrap();
    let mut server = Server::new(raw, None, Accept, vec![1]);
    server.run().unwrap();
    let _ = server.submitter(Server::NUMBERS);
    println!("{:?} {:?}", server.stats(), server.numbers);
}
