use std::convert::Infallible;

use rummelplatz::{Completion, CompletionResult, ControlFlow, RingOperation, Submitter, ring};

#[ring]
struct Server {
    reader: Reader<'static>,
    timer: Timer,
}

#[derive(RingOperation)]
struct Timer;

#[derive(Default)]
struct Reader<'a>(&'a str);

impl<'a> RingOperation<Server> for Reader<'a> {
    type RingData = &'a str;
    type SetupError = Infallible;
    type TeardownError = Infallible;
    type ControlFlowWarn = Infallible;
    type ControlFlowError = Infallible;

    fn on_completion(
        &mut self,
        _: Completion,
        _: &'a str,
        _: Submitter<'_, Server, Self>,
    ) -> CompletionResult<Server, Self> {
        (ControlFlow::Continue, None)
    }
}

fn main() {
    let raw = Server::new_raw_ring(std::num::NonZeroU32::MIN).unwrap();
    Server::new(raw, None, Reader::default(), Timer).run().unwrap();
}
