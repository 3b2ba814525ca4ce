use std::num::NonZeroU32;

use rummelplatz::{RingOperation, ring};

#[derive(RingOperation)]
#[ring_operation(data = u8)]
struct Accept<'a>(&'a str);

#[ring]
struct Server<'a> {
    accept: Accept<'a>,
    texts: Vec<&'a str>,
}

fn main() {
    let raw = Server::new_raw_ring(NonZeroU32::MIN).unwrap();
    let mut server = Server::new(raw, None, Accept("x"), vec!["y"]);
    server.run().unwrap();
    let _ = server.submitter(Server::TEXTS);
    println!("{:?} {:?}", server.stats(), server.texts);
}
