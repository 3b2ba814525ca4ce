use std::io;
use std::num::NonZeroU32;

use rummelplatz::{Completion, ControlFlow, Ring, RingOperation, Submitter, ring};

#[ring]
struct Server {
    accept: Accept,
}

#[derive(RingOperation)]
#[ring_operation(warn = io::Error, error = io::Error, on_completion)]
struct Accept;

impl Accept {
    fn on_completion<R: Ring>(
        &mut self,
        completion: Completion,
        _: (),
        _: Submitter<'_, R, Self>,
    ) -> Result<(), ControlFlow<io::Error, io::Error>> {
        completion.result()?;
        Ok(())
    }
}

fn main() {
    let raw = Server::new_raw_ring(NonZeroU32::MIN).unwrap();
    let mut server = Server::new(raw, None, Accept);
    server.run().unwrap();
    println!("{:?} {:?}", server.stats(), Server::ACCEPT);
}
