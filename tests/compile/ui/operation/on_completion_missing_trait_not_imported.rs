use std::num::NonZeroU32;

#[rummelplatz::ring]
struct Server {
    accept: Accept,
}

#[derive(rummelplatz::RingOperation)]
#[ring_operation(ring = Server, on_completion)]
struct Accept;

fn main() {
    let raw = Server::new_raw_ring(NonZeroU32::MIN).unwrap();
    let mut server = Server::new(raw, None, Accept);
    server.run().unwrap();
    println!("{:?} {:?}", server.stats(), Server::ACCEPT);
}
