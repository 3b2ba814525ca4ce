#![forbid(unsafe_code)]

use rummelplatz::__private::RingShape;
use rummelplatz::{Completion, CompletionResult, ControlFlow, RingOperation, Submitter, Tag, ring};
use std::convert::Infallible;

#[ring]
struct Server {
    echo: Echo,
}

struct Echo;

impl RingOperation<Server> for Echo {
    type RingData = Vec<u8>;
    type SetupError = Infallible;
    type TeardownError = Infallible;
    type ControlFlowWarn = Infallible;
    type ControlFlowError = Infallible;

    fn on_completion(
        &mut self,
        _: Completion,
        _: Vec<u8>,
        _: Submitter<'_, Server, Self>,
    ) -> CompletionResult<Server, Self> {
        (ControlFlow::Continue, None)
    }
}

const STEALS: Tag<Server, Echo> = Tag::<Server, Echo>::__new(1, |slabs| {
    let _stolen = std::mem::replace(slabs, Server::slabs());
    &slabs.echo
});

const WITHDRAWS: Tag<Server, Echo> = Tag::<Server, Echo>::__new(1, |slabs| {
    if let Some(slab) = Server::slab(slabs, 1) {
        slab.withdraw(1);
    }
    &slabs.echo
});

fn main() {}
