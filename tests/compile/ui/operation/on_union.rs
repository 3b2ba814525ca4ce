use std::num::NonZeroU32;

use rummelplatz::{RingOperation, ring};

#[ring]
struct Server {
    accept: Accept,
}

#[derive(RingOperation)]
union Accept {
    number: u32,
}

fn main() {
    let raw = Server::new_raw_ring(NonZeroU32::MIN).unwrap();
    let mut server = Server::new(raw, None, Accept { number: 5 });
    server.run().unwrap();
    println!("{:?} {:?}", server.stats(), Server::ACCEPT);
}
