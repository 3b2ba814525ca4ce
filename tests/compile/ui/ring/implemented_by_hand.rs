use rummelplatz::{Ring, RingHandle};

struct Server;

impl Ring for Server {}

fn main() {
    let _: Option<RingHandle<Server>> = None;
}
