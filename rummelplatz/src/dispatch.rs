//! From a completion to the handler of its operation, and back: no unsafe, no kernel.
//!
//! `#[ring]` generates one `match` from tag to field; each arm calls [`deliver`].

use std::fmt;

use crate::any_slab::resume;
use crate::completion::Completion;
use crate::operation::{ControlFlow, RingOperation};
use crate::queue::Cqe;
use crate::runtime::Runtime;
use crate::settle::{Settled, settle, settle_ordinary};
use crate::shape::Ring;
use crate::state::Inner;
use crate::submitter::Submitter;
use crate::tag::Tag;
use crate::user_data::UserData;

/// A completion on its way to the operation that its tag names.
pub struct Delivery {
    cqe: Cqe,
}

impl Delivery {
    #[inline]
    pub(crate) fn new(cqe: Cqe) -> Self {
        Delivery { cqe }
    }

    /// Which operation it is for.
    #[inline]
    pub fn tag(&self) -> u8 {
        UserData::tag(self.cqe.user_data)
    }
}

/// What an operation's types need in order to become the ring's.
pub struct Glue<R: Ring, Op: RingOperation<R>> {
    /// Shows a warning, as far as its type can be shown.
    pub warn: fn(&Op::ControlFlowWarn, &mut fmt::Formatter<'_>) -> fmt::Result,
    /// Wraps an error.
    pub completion_error: fn(Op::ControlFlowError) -> R::CompletionError,
    /// Wraps an error of teardown.
    pub teardown_error: fn(Op::TeardownError) -> R::TeardownError,
}

/// A warning and how to show it.
struct Shown<'w, W> {
    warn: &'w W,
    show: fn(&W, &mut fmt::Formatter<'_>) -> fmt::Result,
}

impl<W> fmt::Display for Shown<'_, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (self.show)(self.warn, f)
    }
}

/// What the ring is to do after a delivery.
pub enum Verdict<R: Ring> {
    /// Go on.
    Continue,
    /// End.
    Exit,
    /// End, with this error.
    Error(R::CompletionError),
    /// Keep this error, and go on tearing down.
    Teardown(R::TeardownError),
}

/// A delivery for a tag that the ring does not have.
#[cold]
pub fn foreign<R: Ring>(runtime: &mut Runtime<R>) -> Verdict<R> {
    runtime.inner_mut().core.counters.foreign += 1;
    Verdict::Continue
}

/// Calls an operation's `setup`.
///
/// # Errors
///
/// What it fails with.
pub fn setup<R: Ring, Op: RingOperation<R>>(
    runtime: &mut Runtime<R>,
    operation: &mut Op,
    tag: Tag<R, Op>,
) -> Result<(), Op::SetupError> {
    operation.setup(Submitter::new(runtime.inner_mut(), tag))
}

/// Settles a completion and calls the handler, if one is to know.
#[inline(always)]
pub fn deliver<R: Ring, Op: RingOperation<R>>(
    delivery: Delivery,
    runtime: &mut Runtime<R>,
    operation: &mut Op,
    tag: Tag<R, Op>,
    glue: Glue<R, Op>,
) -> Verdict<R> {
    let inner = runtime.inner_mut();
    let ordinary = settle_ordinary(&mut inner.core, tag.slab(&mut inner.slabs), &delivery.cqe);
    if let Some((completion, data)) = ordinary {
        return finish(inner, operation, tag, glue, completion, data);
    }
    deliver_unusual(delivery, inner, operation, tag, glue)
}

/// Tells an operation of the end of a request.
#[inline(always)]
fn finish<R: Ring, Op: RingOperation<R>>(
    inner: &mut Inner<R>,
    operation: &mut Op,
    tag: Tag<R, Op>,
    glue: Glue<R, Op>,
    completion: Completion,
    data: Op::RingData,
) -> Verdict<R> {
    let is_teardown = inner.core.phase.is_teardown();
    let submitter = Submitter::new(inner, tag);
    if is_teardown {
        return match operation.on_teardown_completion(completion, data, submitter) {
            Ok(()) => Verdict::Continue,
            Err(error) => Verdict::Teardown((glue.teardown_error)(error)),
        };
    }
    let (flow, late) = operation.on_completion(completion, data, submitter);
    if late.is_some() {
        inner.returned_late(tag.number());
    }
    follow(inner, tag, flow, glue)
}

/// Settles all that is not the one completion of an ordinary request.
#[inline(never)]
fn deliver_unusual<R: Ring, Op: RingOperation<R>>(
    delivery: Delivery,
    inner: &mut Inner<R>,
    operation: &mut Op,
    tag: Tag<R, Op>,
    glue: Glue<R, Op>,
) -> Verdict<R> {
    let user_data = delivery.cqe.user_data;
    match settle(&mut inner.core, tag.slab(&mut inner.slabs), delivery.cqe) {
        Settled::Silent => Verdict::Continue,
        Settled::Final(completion, data) => finish(inner, operation, tag, glue, completion, data),
        Settled::More(completion, data) => {
            let starved = completion.lacks_buffers();
            let submitter = Submitter::new(inner, tag);
            let (flow, data) = operation.on_completion(completion, data, submitter);
            resume(&mut inner.core, tag.slab(&mut inner.slabs), user_data, data, starved);
            follow(inner, tag, flow, glue)
        }
    }
}

/// Turns what a handler returned into what the ring is to do.
#[inline(always)]
fn follow<R: Ring, Op: RingOperation<R>>(
    inner: &mut Inner<R>,
    tag: Tag<R, Op>,
    flow: ControlFlow<Op::ControlFlowWarn, Op::ControlFlowError>,
    glue: Glue<R, Op>,
) -> Verdict<R> {
    match flow {
        ControlFlow::Continue => Verdict::Continue,
        ControlFlow::Exit => Verdict::Exit,
        ControlFlow::Warn(warn) => {
            inner.warn(tag.number(), &Shown { warn: &warn, show: glue.warn });
            Verdict::Continue
        }
        ControlFlow::Error(error) => Verdict::Error((glue.completion_error)(error)),
    }
}

const _: () = assert!(size_of::<Option<Completion>>() <= 64, "completions are handed over by value");
