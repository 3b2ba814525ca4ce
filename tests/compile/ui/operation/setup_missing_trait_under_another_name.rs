use std::num::NonZeroU32;

use rummelplatz::RingOperation as Operation;

#[rummelplatz::ring]
struct Server {
    accept: Accept,
}

#[derive(rummelplatz::RingOperation)]
#[ring_operation(setup)]
struct Accept;

fn is_operation<Op: Operation<Server>>(_: &Op) {}

fn main() {
    let raw = Server::new_raw_ring(NonZeroU32::MIN).unwrap();
    let mut server = Server::new(raw, None, Accept);
    server.run().unwrap();
    is_operation(&server.accept);
}
