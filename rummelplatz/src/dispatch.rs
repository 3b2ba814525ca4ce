//! From a completion to the handler of its operation, and back: no kernel.
//!
//! `#[ring]` generates one `match` from tag to field; each arm calls [`deliver`].

use std::fmt;
use std::io;

use crate::accept::{release, release_slowly};
use crate::completion::Completion;
use crate::core::OwnTraffic;
use crate::operation::{ControlFlow, RingOperation};
use crate::parcels;
use crate::parts::Round;
use crate::queue::Cqe;
use crate::runtime::Runtime;
use crate::settle::{Found, Settled, Tagged, find, settle, settle_going_on};
use crate::shape::Ring;
use crate::slab::{Lent, Warm};
use crate::state::{FirstCause, Inner};
use crate::streams::{give_up, resume};
use crate::submitter::Submitter;
use crate::tag::Tag;

/// The tag of the operation that the next completion is for, if one is known of.
#[inline(always)]
pub fn next_tag<R: Ring>(runtime: &Runtime<R>) -> Option<u8> {
    runtime.inner().core.queue.next_tag()
}

/// What turns an operation's types into the ring's. The parts are passed on one by one, in registers: what is
/// passed on as a whole is put together in memory, for each completion.
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

/// Delivers a completion whose tag no operation has: one of the ring's own traffic, or a foreign one.
#[inline(always)]
pub fn unclaimed<R: Ring>(runtime: &mut Runtime<R>, _: &Round) {
    let inner = runtime.inner_mut();
    let Some(cqe) = inner.core.queue.pop_known() else { return };
    belongs_to_nobody(inner, cqe.user_data, cqe.result, cqe.flags);
}

// Takes the parts of a completion and not a reference to it, so that it is never put together in memory.
#[cold]
#[inline(never)]
fn belongs_to_nobody<R: Ring>(inner: &mut Inner<R>, user_data: u64, result: i32, flags: u32) {
    match inner.settle_unclaimed(Cqe { user_data, result, flags }) {
        _ if inner.core.phase.is_teardown() => {}
        OwnTraffic::Settled | OwnTraffic::Alarm(_) => {}
        OwnTraffic::Woken => {
            let (stop, panic) = parcels::collect(inner);
            if stop {
                inner.end(FirstCause::Exit);
            }
            panic.go_on();
        }
        OwnTraffic::Refused(errno) => inner.end(FirstCause::Api(io::Error::from_raw_os_error(errno))),
    }
}

/// Calls an operation's `setup`.
///
/// # Errors
///
/// The error of `setup`.
pub fn setup<R: Ring, Op: RingOperation<R>>(
    runtime: &mut Runtime<R>,
    operation: &mut Op,
    tag: Tag<R, Op>,
) -> Result<(), Op::SetupError> {
    operation.setup(Submitter::new(runtime.inner_mut(), tag))
}

/// The slot that a handler is called with; it is released if the handler unwinds.
struct Handling<'i, R: Ring, Op: RingOperation<R>> {
    inner: &'i mut Inner<R>,
    tag: Tag<R, Op>,
    /// If there is a slot, it is of the slab of this tag, and its request still counts as in flight. A
    /// handler may pass its address to a function that is not a part of the loop; so it lies on its own, and
    /// the rest of this stays in registers.
    warm: &'i mut Warm,
}

impl<R: Ring, Op: RingOperation<R>> Drop for Handling<'_, R, Op> {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: the slot, if there is one, is of the slab of this tag: see `warm`.
        unsafe { release_slowly(self.inner, self.tag, self.warm.take()) };
    }
}

/// Settles a completion and calls the handler, if it is to be told.
///
/// There is one call of `on_completion` for all kinds of requests, so that the compiler inlines it into the
/// loop however long it is.
#[inline(always)]
pub fn deliver<R: Ring, Op: RingOperation<R>>(
    runtime: &mut Runtime<R>,
    operation: &mut Op,
    tag: Tag<R, Op>,
    glue: Glue<R, Op>,
    _: &Round,
) {
    let inner = runtime.inner_mut();
    if inner.core.queue.next_tag() != Some(tag.number()) {
        return;
    }
    let Some(cqe) = inner.core.queue.pop_known() else { return };
    let tagged = Tagged::new(cqe);
    let mut warm = Warm::NONE;
    let this = Handling { inner, tag, warm: &mut warm };
    let Inner { core, slabs, .. } = &mut *this.inner;
    let slab = tag.slab(slabs);
    let (completion, data) = match find(slab, &tagged) {
        Found::Plain(plain) => {
            // SAFETY: `this` releases the slot if nobody fills it; until then, only a submitter uses the
            // slab, and it knows of the slot.
            let (data, warm) = unsafe { plain.take() };
            *this.warm = warm;
            (Completion::plain(cqe.result, cqe.flags), data)
        }
        Found::Calm(calm) => {
            let (data, record, lent) = calm.lend();
            core.lent = Some(lent);
            (settle_going_on(core, &record.facts, &cqe), data)
        }
        Found::Other => match settle(core, slab, cqe.user_data, cqe.result, cqe.flags) {
            Settled::Silent => return,
            // When a teardown begins, no request is plain or calm any more.
            Settled::Told(completion, data, _) if core.phase.is_teardown() => {
                return tear_down(this.inner, operation, tag, glue.teardown_error, completion, data);
            }
            Settled::Told(completion, data, lent) => {
                core.lent = lent;
                (completion, data)
            }
        },
    };
    let is_only_result = completion.is_only_result();
    // SAFETY: the slot, if there is one, is of the slab of this tag, and its request still counts as in
    // flight: see `Handling::warm`.
    let submitter = unsafe { Submitter::with_slot(this.inner, tag, this.warm) };
    let (flow, data) = operation.on_completion(completion, data, submitter);
    // The two paths that nearly all completions take. They are apart from the others because here the compiler
    // knows the answers to their checks.
    if is_only_result && let ControlFlow::Continue = flow {
        // SAFETY: the slot, if there is one, is of the slab of this tag: see `Handling::warm`.
        unsafe { release(this.inner, tag, this.warm.take()) };
        if let Some(data) = data {
            drop_late(this.inner, tag, data);
        }
        return;
    }
    if !is_only_result && let ControlFlow::Continue = flow {
        // That of a plain request is only a result. This tells the compiler that there is nothing to release.
        debug_assert!(this.warm.is_none());
        *this.warm = Warm::NONE;
        finish(this.inner, tag, data);
        return;
    }
    // SAFETY: the slot, if there is one, is of the slab of this tag: see `Handling::warm`.
    unsafe { release(this.inner, tag, this.warm.take()) };
    let inner = &mut *this.inner;
    // The cold functions get the parts of the flow by value, so that a flow is never put together in memory.
    match flow {
        ControlFlow::Continue => {}
        ControlFlow::Warn(warn) => tell(inner, tag, warn, glue.warn),
        ControlFlow::Exit => exit(inner),
        ControlFlow::Error(error) => fail::<R, Op>(inner, error, glue.completion_error),
    }
    // As in `finish`; but if that is called here as well, the compiler has its two calls share their code, and
    // the short path above must tell it again what it knew.
    if !is_only_result && let Some(lent) = inner.core.lent.take() {
        go_on(inner, tag, lent, data);
    } else if let Some(data) = data {
        drop_late(inner, tag, data);
    }
}

/// Deals with the data that a handler has returned for a completion that is more than a result. Such a
/// completion is not that of a plain request, so `lent` is of this delivery.
#[inline(always)]
fn finish<R: Ring, Op: RingOperation<R>>(inner: &mut Inner<R>, tag: Tag<R, Op>, data: Option<Op::RingData>) {
    if let Some(lent) = inner.core.lent.take() {
        go_on(inner, tag, lent, data);
    } else if let Some(data) = data {
        drop_late(inner, tag, data);
    }
}

#[cold]
#[inline(never)]
fn drop_late<R: Ring, Op: RingOperation<R>>(inner: &mut Inner<R>, tag: Tag<R, Op>, data: Op::RingData) {
    inner.returned_late(tag.number());
    drop(data);
}

/// Deals with the data of a stream.
#[inline(always)]
fn go_on<R: Ring, Op: RingOperation<R>>(
    inner: &mut Inner<R>,
    tag: Tag<R, Op>,
    lent: Lent,
    data: Option<Op::RingData>,
) {
    let Inner { core, slabs, .. } = inner;
    let slab = tag.slab(slabs);
    // `lent` is of the last delivery, which was for this tag, and a lent slot stays lent until the loop goes
    // on.
    let Some(data) = data else {
        // SAFETY: the value was lent by this slab, and still is.
        return unsafe { give_up(core, slab, lent) };
    };
    // SAFETY: the value was lent by this slab, and still is.
    if !unsafe { slab.take_back(&lent, data) } {
        // SAFETY: the value was lent by this slab, and was just taken back.
        unsafe { resume(core, slab, lent) };
    }
}

/// Tells an operation of the end of a request that the teardown has caught.
#[cold]
#[inline(never)]
fn tear_down<R: Ring, Op: RingOperation<R>>(
    inner: &mut Inner<R>,
    operation: &mut Op,
    tag: Tag<R, Op>,
    wrap: fn(Op::TeardownError) -> R::TeardownError,
    completion: Completion,
    data: Op::RingData,
) {
    let result = operation.on_teardown_completion(completion, data, Submitter::new(inner, tag));
    if let (Err(error), Some(ending)) = (result, &mut inner.ending) {
        ending.errors.push_back(wrap(error));
    }
}

#[cold]
#[inline(never)]
fn tell<R: Ring, Op: RingOperation<R>>(
    inner: &mut Inner<R>,
    tag: Tag<R, Op>,
    warn: Op::ControlFlowWarn,
    show: fn(&Op::ControlFlowWarn, &mut fmt::Formatter<'_>) -> fmt::Result,
) {
    inner.warn(tag.number(), &Shown { warn: &warn, show });
}

#[cold]
#[inline(never)]
fn exit<R: Ring>(inner: &mut Inner<R>) {
    inner.end(FirstCause::Exit);
}

#[cold]
#[inline(never)]
fn fail<R: Ring, Op: RingOperation<R>>(
    inner: &mut Inner<R>,
    error: Op::ControlFlowError,
    wrap: fn(Op::ControlFlowError) -> R::CompletionError,
) {
    inner.end(FirstCause::Completion(wrap(error)));
}

const _: () = assert!(size_of::<Option<Completion>>() <= 64, "completions are handed over by value");
