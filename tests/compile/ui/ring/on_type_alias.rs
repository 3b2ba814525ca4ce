use rummelplatz::{RingOperation, ring};

#[derive(RingOperation)]
struct Accept;

#[ring]
type Server = Accept;

fn main() {
    let _: Server = Accept;
}
