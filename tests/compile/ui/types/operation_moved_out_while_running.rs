use rummelplatz::{RingOperation, ring};

#[ring]
struct Server {
    reader: Reader,
    timer: Timer,
}

#[derive(RingOperation)]
struct Timer;

#[derive(Default, RingOperation)]
struct Reader;

fn main() {
    let raw = Server::new_raw_ring(std::num::NonZeroU32::MIN).unwrap();
    let mut server = Server::new(raw, None, Reader, Timer);
    let moved = server.reader;
    server.run().unwrap();
    drop(moved);
}
