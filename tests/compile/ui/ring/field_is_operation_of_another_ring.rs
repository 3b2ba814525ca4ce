use std::num::NonZeroU32;

use rummelplatz::{RingOperation, ring};

#[derive(RingOperation)]
struct Accept;

#[ring]
struct Other {
    timer: Timer,
}

#[derive(RingOperation)]
#[ring_operation(ring = Other)]
struct Timer;

#[ring]
struct Server {
    accept: Accept,
    timer: Timer,
}

fn main() {
    let raw = Server::new_raw_ring(NonZeroU32::MIN).unwrap();
    let mut server = Server::new(raw, None, Accept, Timer);
    server.run().unwrap();
    let _ = server.submitter(Server::ACCEPT);
    println!("{:?} {:?}", server.stats(), Other::TIMER);
}
