use std::num::NonZeroU32;

use rummelplatz::{Completion, Ring, RingOperation, Submitter, ring};

#[ring]
struct Server {
    accept: Accept,
}

#[derive(RingOperation)]
#[ring_operation(on_completion)]
struct Accept;

mod elsewhere {
    use super::*;

    impl Accept {
        fn on_completion<R: Ring>(&mut self, _: Completion, _: (), _: Submitter<'_, R, Self>) {}
    }
}

fn main() {
    let raw = Server::new_raw_ring(NonZeroU32::MIN).unwrap();
    let mut server = Server::new(raw, None, Accept);
    server.run().unwrap();
    println!("{:?} {:?}", server.stats(), Server::ACCEPT);
}
