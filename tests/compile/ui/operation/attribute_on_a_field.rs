use std::num::NonZeroU32;

use rummelplatz::{RingOperation, ring};

#[ring]
struct Server {
    accept: Accept,
}

#[derive(RingOperation)]
struct Accept {
    #[ring_operation(data = u8)]
    limit: u8,
}

fn main() {
    let raw = Server::new_raw_ring(NonZeroU32::MIN).unwrap();
    let mut server = Server::new(raw, None, Accept { limit: 5 });
    server.run().unwrap();
    println!("{:?} {:?}", server.stats(), Server::ACCEPT);
}
