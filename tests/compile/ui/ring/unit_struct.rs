use std::num::NonZeroU32;

use rummelplatz::ring;

#[ring]
struct Server;

fn main() {
    let raw = Server::new_raw_ring(NonZeroU32::MIN).unwrap();
    let mut server = Server::new(raw, None);
    server.run().unwrap();
}
