//! From a completion to the handler of its operation, and back: no unsafe, no kernel.
//!
//! `#[ring]` generates one `match` from tag to field; each arm calls [`deliver`].

use std::fmt;

use crate::any_slab::resume;
use crate::completion::Completion;
use crate::operation::{ControlFlow, RingOperation};
use crate::queue::Cqe;
use crate::runtime::Runtime;
use crate::settle::{Settled, settle, settle_going_on, settle_plain};
use crate::shape::Ring;
use crate::state::{FirstCause, Inner};
use crate::submitter::Submitter;
use crate::tag::Tag;
use crate::teardown;
use crate::user_data::UserData;

/// A completion on its way to the operation that its tag names.
pub struct Delivery {
    cqe: Cqe,
}

impl Delivery {
    #[inline(always)]
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
#[derive(Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// Go on.
    Continue,
    /// End, if the runtime has a cause; if not, no operation was concerned.
    Look,
}

/// A delivery for a tag that no operation has: the ring's own traffic, or a stranger's.
#[inline(always)]
pub fn unclaimed<R: Ring>(delivery: Delivery, runtime: &mut Runtime<R>) -> Verdict {
    let Delivery { cqe } = delivery;
    belongs_to_nobody(runtime.inner_mut(), cqe.user_data, cqe.result, cqe.flags)
}

// The parts of a completion, not a reference to it: so that it is never put together in memory.
#[cold]
#[inline(never)]
fn belongs_to_nobody<R: Ring>(inner: &mut Inner<R>, user_data: u64, result: i32, flags: u32) -> Verdict {
    let woken = inner.core.unclaimed(Cqe { user_data, result, flags });
    if woken && !inner.core.phase.is_teardown() && teardown::collect_parcels(inner) {
        inner.cause = Some(FirstCause::Exit);
    }
    Verdict::Look
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
///
/// There is one call of `on_completion` for all kinds of requests, so that the compiler makes it a part
/// of the loop however long it is.
#[inline(always)]
pub fn deliver<R: Ring, Op: RingOperation<R>>(
    delivery: Delivery,
    runtime: &mut Runtime<R>,
    operation: &mut Op,
    tag: Tag<R, Op>,
    glue: Glue<R, Op>,
) -> Verdict {
    let Delivery { cqe } = delivery;
    let inner = runtime.inner_mut();
    let slab = tag.slab(&mut inner.slabs);
    let (completion, data, mut vacancy, lent) = match settle_plain(&mut inner.core, slab, &cqe) {
        Some((completion, data, vacancy)) => (completion, data, Some(vacancy), None),
        None => match settle_going_on(&mut inner.core, slab, &cqe) {
            Some((completion, data, lent)) => (completion, data, None, Some(lent)),
            None => match settle(&mut inner.core, slab, cqe.user_data, cqe.result, cqe.flags) {
                Settled::Silent => return Verdict::Continue,
                // No request is plain any more when this begins.
                Settled::Told(completion, data) if inner.core.phase.is_teardown() => {
                    return tear_down(inner, operation, tag, glue, completion, data);
                }
                Settled::Told(completion, data) => (completion, data, None, None),
            },
        },
    };
    let more = completion.more();
    // SAFETY: if there is a vacancy, it was made in the slab of this tag.
    let submitter = unsafe { Submitter::with_vacancy(inner, tag, &mut vacancy) };
    let (flow, data) = operation.on_completion(completion, data, submitter);
    if let Some(vacancy) = vacancy {
        // SAFETY: as above.
        unsafe { tag.slab(&mut inner.slabs).release(vacancy) };
    }
    match (lent, data) {
        (None, None) if !more => {}
        (Some(lent), Some(data)) => {
            // SAFETY: it was lent by the slab of this tag; and a lent slot stays so until the loop goes
            // on.
            unsafe { tag.slab(&mut inner.slabs).take_back(lent, data) };
        }
        (_, data) => take_back(inner, tag, cqe.user_data, cqe.result, more, data),
    }
    follow(inner, tag, flow, glue)
}

/// Deals with the data of a stream, or with data that comes too late.
#[inline(never)]
fn take_back<R: Ring, Op: RingOperation<R>>(
    inner: &mut Inner<R>,
    tag: Tag<R, Op>,
    user_data: u64,
    result: i32,
    more: bool,
    data: Option<Op::RingData>,
) {
    if more {
        resume(&mut inner.core, tag.slab(&mut inner.slabs), user_data, result, data);
    } else {
        inner.returned_late(tag.number());
    }
}

/// Tells an operation of the end of a request that the teardown has caught.
#[cold]
#[inline(never)]
fn tear_down<R: Ring, Op: RingOperation<R>>(
    inner: &mut Inner<R>,
    operation: &mut Op,
    tag: Tag<R, Op>,
    glue: Glue<R, Op>,
    completion: Completion,
    data: Op::RingData,
) -> Verdict {
    let result = operation.on_teardown_completion(completion, data, Submitter::new(inner, tag));
    if let (Err(error), Some(ending)) = (result, &mut inner.ending) {
        ending.errors.push_back((glue.teardown_error)(error));
    }
    Verdict::Continue
}

/// Turns what a handler returned into what the ring is to do.
#[inline(always)]
fn follow<R: Ring, Op: RingOperation<R>>(
    inner: &mut Inner<R>,
    tag: Tag<R, Op>,
    flow: ControlFlow<Op::ControlFlowWarn, Op::ControlFlowError>,
    glue: Glue<R, Op>,
) -> Verdict {
    match flow {
        ControlFlow::Continue => Verdict::Continue,
        flow => deviate(inner, tag, flow, glue),
    }
}

/// The ring does not just go on.
#[cold]
#[inline(never)]
fn deviate<R: Ring, Op: RingOperation<R>>(
    inner: &mut Inner<R>,
    tag: Tag<R, Op>,
    flow: ControlFlow<Op::ControlFlowWarn, Op::ControlFlowError>,
    glue: Glue<R, Op>,
) -> Verdict {
    let cause = match flow {
        ControlFlow::Continue => return Verdict::Continue,
        ControlFlow::Warn(warn) => {
            inner.warn(tag.number(), &Shown { warn: &warn, show: glue.warn });
            return Verdict::Continue;
        }
        ControlFlow::Exit => FirstCause::Exit,
        ControlFlow::Error(error) => FirstCause::Completion((glue.completion_error)(error)),
    };
    inner.cause = Some(cause);
    Verdict::Look
}

const _: () = assert!(size_of::<Option<Completion>>() <= 64, "completions are handed over by value");
