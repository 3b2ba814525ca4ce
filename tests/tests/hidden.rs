//! The hidden names that generated code uses, when somebody else uses them: without `unsafe`, they do no harm to a ring
//! that `#[ring]` has made. (What is not checked of one that is written by hand is said in `slab_cell.rs`.)

#![forbid(unsafe_code)]

use std::convert::Infallible;

use rummelplatz::__private::{RingShape, SlabRef};
use rummelplatz::{Completion, CompletionResult, ControlFlow, RingOperation, Submitter, Tag, request, ring};
use rummelplatz_tests::{Ledger, Tracked, panic_of, watched};

#[ring]
struct Two {
    first: Counter,
    second: Counter,
}

#[derive(Default)]
struct Counter {
    completions: u32,
}

impl RingOperation<Two> for Counter {
    type RingData = Tracked<()>;
    type SetupError = Infallible;
    type TeardownError = Infallible;
    type ControlFlowWarn = Infallible;
    type ControlFlowError = Infallible;

    fn on_completion(
        &mut self,
        _: Completion,
        _: Tracked<()>,
        _: Submitter<'_, Two, Self>,
    ) -> CompletionResult<Two, Self> {
        self.completions += 1;
        (ControlFlow::Continue, None)
    }
}

fn two() -> Two {
    Two::new(Two::new_raw_ring(8.try_into().unwrap()).unwrap(), None, Counter::default(), Counter::default())
}

#[test]
fn a_slab_that_is_not_of_the_ring_is_not_opened() {
    watched(|| {
        let ledger = Ledger::new();
        let mut ring = two();
        let other = Tag::<Two, Counter>::__new(1, |_| &Box::leak(Box::new(Two::slabs())).first);
        ring.submitter(Two::FIRST).submit(ledger.issue(()), |_| request::nop()).unwrap();
        let refused = panic_of(|| ring.submitter(other).submit(ledger.issue(()), |_| request::nop()));
        assert_eq!(refused, "a tag is of its ring, and so is its slab");
        ring.run().unwrap();
        assert_eq!(ring.first.completions, 1);
        ledger.assert_all_dropped_once();
    });
}

#[test]
fn a_slab_of_another_operation_has_its_requests() {
    watched(|| {
        let ledger = Ledger::new();
        let mut ring = two();
        let crossed = Tag::<Two, Counter>::__new(1, |slabs| &slabs.second);
        let mut submitter = ring.submitter(crossed);
        let key = submitter.submit(ledger.issue(()), |_| request::nop()).unwrap();
        assert!(!submitter.cancel(key), "it is none of the first operation");
        let mut chain = submitter.chain();
        chain.link(ledger.issue(()), |_| request::nop()).unwrap();
        drop(chain);
        ring.run().unwrap();
        assert_eq!((ring.first.completions, ring.second.completions), (0, 1));
        assert_eq!((ring.stats().in_flight, ring.stats().foreign), (0, 0));
        ledger.assert_all_dropped_once();
    });
}

#[test]
fn slabs_can_be_found_and_no_more() {
    let slabs = Two::slabs();
    let found: Vec<Option<SlabRef<'_>>> = (0..4).map(|tag| Two::slab(&slabs, tag)).collect();
    assert_eq!(found.iter().map(Option::is_some).collect::<Vec<_>>(), [false, true, true, false]);
}
