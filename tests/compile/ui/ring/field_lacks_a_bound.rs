use std::convert::Infallible;
use std::num::NonZeroU32;

use rummelplatz::{Completion, CompletionResult, ControlFlow, Ring, RingOperation, Submitter, ring};

#[derive(RingOperation)]
struct Accept;

struct NoClone;

struct Needs<T>(T);

impl<R: Ring, T: Clone> RingOperation<R> for Needs<T> {
    type RingData = ();
    type SetupError = Infallible;
    type TeardownError = Infallible;
    type ControlFlowWarn = Infallible;
    type ControlFlowError = Infallible;

    fn on_completion(
        &mut self,
        _: Completion,
        (): (),
        _: Submitter<'_, R, Self>,
    ) -> CompletionResult<R, Self> {
        drop(self.0.clone());
        (ControlFlow::Continue, None)
    }
}

#[ring]
struct Server {
    accept: Accept,
    needs: Needs<NoClone>,
}

fn main() {
    let raw = Server::new_raw_ring(NonZeroU32::MIN).unwrap();
    let mut server = Server::new(raw, None, Accept, Needs(NoClone));
    server.run().unwrap();
    println!("{:?} {:?}", server.stats(), Server::ACCEPT);
}
