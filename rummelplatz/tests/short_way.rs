//! What a handler sees of the request that it is called for: it is over, and its slot is free, although
//! nobody has written that down yet.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::cell::RefCell;
use std::convert::Infallible;
use std::num::NonZeroU32;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use rummelplatz::{
    Completion, CompletionResult, ControlFlow, Key, RingOperation, SubmitError, Submitter, request, ring,
};

type Data = Rc<RefCell<Vec<&'static str>>>;
type Step = fn(&mut Submitter<'_, Bench, Steps>, &Data, Key<Steps>);

/// One NOP, whose handler does something; what comes of that is logged by later calls.
struct Steps {
    step: Option<Step>,
    log: Data,
    key: Option<Key<Steps>>,
}

#[ring]
struct Bench {
    steps: Steps,
}

impl RingOperation<Bench> for Steps {
    type RingData = Data;
    type SetupError = SubmitError;
    type TeardownError = Infallible;
    type ControlFlowWarn = Infallible;
    type ControlFlowError = Infallible;

    fn setup(&mut self, mut submitter: Submitter<'_, Bench, Self>) -> Result<(), SubmitError> {
        self.key = Some(submitter.submit(self.log.clone(), |_| request::nop())?);
        Ok(())
    }

    fn on_completion(
        &mut self,
        completion: Completion,
        data: Data,
        mut submitter: Submitter<'_, Bench, Self>,
    ) -> CompletionResult<Bench, Self> {
        match (self.step.take(), self.key) {
            (Some(step), Some(key)) => step(&mut submitter, &data, key),
            _ => data.borrow_mut().push(if completion.is_message() { "message" } else { "completion" }),
        }
        (ControlFlow::Continue, None)
    }
}

fn ignore(_: Key<Steps>) {}

/// Runs it, with room for one request at a time; the ring ends when nothing is left to do.
fn logged(step: Step) -> Vec<&'static str> {
    let log = Data::default();
    let steps = Steps { step: Some(step), log: log.clone(), key: None };
    let builder = Bench::builder(steps).entries(NonZeroU32::MIN).request_limit(NonZeroU32::MIN);
    let mut bench = match builder.build() {
        Ok(bench) => bench,
        // As everywhere, there may be no io_uring.
        Err(_) => return vec!["skipped"],
    };
    bench.run().unwrap();
    let stats = bench.stats();
    assert_eq!((stats.in_flight, stats.foreign), (0, 0));
    drop(bench);
    assert_eq!(Rc::strong_count(&log), 1, "no data was lost");
    log.take()
}

fn assert_logged(step: Step, expected: &[&str]) {
    let log = logged(step);
    assert!(
        log == expected || log == ["skipped"] && std::env::var_os("RUMMELPLATZ_NO_SKIP").is_none(),
        "{log:?}"
    );
}

#[test]
fn its_slot_is_free_for_every_kind_of_request() {
    assert_logged(
        |it, data, _| ignore(it.submit(data.clone(), |_| request::nop()).unwrap()),
        &["completion"],
    );
    assert_logged(|it, data, _| it.post(data.clone()).unwrap(), &["message"]);
    assert_logged(
        |it, data, _| ignore(it.to(Bench::STEPS).submit(data.clone(), |_| request::nop()).unwrap()),
        &["completion"],
    );
    assert_logged(
        |it, data, _| ignore(it.reborrow().submit(data.clone(), |_| request::nop()).unwrap()),
        &["completion"],
    );
    assert_logged(|it, data, _| it.detach(data.clone(), |_| request::nop()).unwrap(), &[]);
    assert_logged(
        |it, data, _| {
            it.stream(data.clone(), |_| request::timeout_multi_times(Duration::ZERO, NonZeroU32::MIN))
                .unwrap();
        },
        &["completion"],
    );
    assert_logged(
        |it, data, _| {
            let entry = rummelplatz::io_uring::opcode::Nop::new().build();
            // SAFETY: a NOP points to nothing.
            unsafe { it.push(entry, data.clone()) }.unwrap();
        },
        &["completion"],
    );
}

#[test]
fn there_is_room_for_one_request_and_no_more() {
    assert_logged(
        |it, data, _| {
            it.submit(data.clone(), |_| request::nop()).unwrap();
            assert!(matches!(it.submit(data.clone(), |_| request::nop()), Err(SubmitError::TooManyRequests)));
            assert!(matches!(it.post(data.clone()), Err(SubmitError::TooManyRequests)));
        },
        &["completion"],
    );
}

#[test]
fn it_can_not_be_cancelled_any_more() {
    assert_logged(
        |it, _, key| {
            assert!(!it.cancel(key));
            assert_eq!(it.cancel_all(), 0);
        },
        &[],
    );
    assert_logged(
        |it, data, key| {
            let next = it.submit(data.clone(), |_| request::nop()).unwrap();
            assert!(next != key && !it.cancel(key) && it.cancel(next));
        },
        &["completion"],
    );
}

#[test]
fn a_request_that_is_not_built_is_not_counted() {
    assert_logged(
        |it, data, key| {
            let built =
                catch_unwind(AssertUnwindSafe(|| it.submit(data.clone(), |_| panic!("while building"))));
            assert!(built.is_err() && !it.cancel(key) && it.cancel_all() == 0);
            it.submit(data.clone(), |_| request::nop()).unwrap();
        },
        &["completion"],
    );
}

#[test]
fn a_handler_that_panics_leaves_its_slot_free() {
    let log = Data::default();
    let steps = Steps { step: Some(|_, _, _| panic!("in a handler")), log: log.clone(), key: None };
    let builder = Bench::builder(steps).entries(NonZeroU32::MIN).request_limit(NonZeroU32::MIN);
    let Ok(mut bench) = builder.build() else { return };
    assert!(catch_unwind(AssertUnwindSafe(|| bench.run())).is_err());
    assert_eq!(bench.stats().in_flight, 0);
    bench.run().unwrap();
    assert_eq!(log.take(), ["completion"]);
    drop(bench);
    assert_eq!(Rc::strong_count(&log), 1, "no data was lost");
}
