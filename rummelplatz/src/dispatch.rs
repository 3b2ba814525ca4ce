//! From a completion to the handler of its operation, and back: no unsafe, no kernel.
//!
//! `#[ring]` generates one `match` from tag to field; each arm calls [`deliver`].

use std::any::Any;
use std::fmt;

use crate::completion::Completion;
use crate::core::{Core, Parked};
use crate::error::SubmitError;
use crate::operation::{ControlFlow, RingOperation};
use crate::queue::Cqe;
use crate::record::{Facts, Flags, Record, Slab};
use crate::request;
use crate::ring::Ring;
use crate::runtime::{Inner, Runtime};
use crate::settle::{Settled, settle};
use crate::slab::Occupied;
use crate::submission::Submitter;
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
#[inline]
pub fn deliver<R: Ring, Op: RingOperation<R>>(
    delivery: Delivery,
    runtime: &mut Runtime<R>,
    operation: &mut Op,
    tag: Tag<R, Op>,
    glue: Glue<R, Op>,
) -> Verdict<R> {
    let inner = runtime.inner_mut();
    let user_data = delivery.cqe.user_data;
    match settle(&mut inner.core, tag.slab(&mut inner.slabs), delivery.cqe) {
        Settled::Silent => Verdict::Continue,
        Settled::Final(completion, data) if inner.core.phase.is_teardown() => {
            let submitter = Submitter::new(inner, tag);
            match operation.on_teardown_completion(completion, data, submitter) {
                Ok(()) => Verdict::Continue,
                Err(error) => Verdict::Teardown((glue.teardown_error)(error)),
            }
        }
        Settled::Final(completion, data) => {
            let submitter = Submitter::new(inner, tag);
            let (flow, late) = operation.on_completion(completion, data, submitter);
            if late.is_some() {
                inner.returned_late(tag.number());
            }
            follow(inner, tag, flow, glue)
        }
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
#[inline]
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

/// After how many times that the pool was empty though nobody holds a buffer of it a stream ends. Once
/// or twice is possible: completions with buffers may not have been looked at yet.
const HOPELESS: u8 = 4;

/// Goes on with a stream, or ends it, as its handler has decided by returning the data or not.
fn resume<D>(
    core: &mut Core,
    slab: &mut Slab<D>,
    user_data: u64,
    data: Option<D>,
    starved: bool,
) {
    let Some(mut slot) = slab.find(user_data) else { return };
    let facts = &mut slot.meta().facts;
    let (flags, group) = (facts.flags, facts.pool);
    let with_kernel = !flags.contains(Flags::PARKED);
    match data {
        Some(data) => {
            slot.give_back(data);
            if with_kernel {
                return;
            }
            let facts = &mut slot.meta().facts;
            facts.starved = if starved && core.has_all_buffers(group) { facts.starved + 1 } else { 0 };
            if flags.contains(Flags::CANCELLED) {
                core.end_without_kernel(user_data, -libc::ECANCELED);
            } else if facts.starved == HOPELESS {
                // As if cancelled, so that it is not taken for one more cut.
                facts.flags.insert(Flags::CANCELLED);
                core.end_without_kernel(user_data, -libc::ENOBUFS);
            } else if starved {
                core.park(Parked { user_data, group });
            } else {
                arm_again(core, slot, user_data);
            }
        }
        None if with_kernel => {
            facts.flags.insert(Flags::CANCELLED);
            slot.abandon();
            if !flags.contains(Flags::CANCELLED) {
                core.cancel(user_data);
            }
        }
        None => {
            core.in_flight -= 1;
            drop(slot.take());
        }
    }
}

/// Submits a stream anew after the kernel has cut it.
fn arm_again<D>(core: &mut Core, mut slot: Occupied<'_, D, Record<D>>, user_data: u64) {
    let Some(mut placed) = request::arm_again(&mut slot, user_data) else { return };
    let facts = &mut slot.meta().facts;
    match core.bind(&mut placed) {
        Ok(group) => {
            facts.pool = group;
            facts.flags.remove(Flags::PARKED);
            core.push(placed);
        }
        Err(error) => {
            let errno = match error {
                SubmitError::PoolRefused(errno) => errno,
                _ => libc::EBUSY,
            };
            core.end_without_kernel(user_data, -errno);
        }
    }
}

/// What the runtime does with the slab of an operation whose type it does not know.
pub trait AnySlab {
    /// How many requests are in flight.
    fn in_flight(&self) -> usize;
    /// Makes this the slab of `tag` in the ring of `core`, with room for `limit` requests. Until then
    /// it has none: so a slab that the ring does not know of can't hold requests, whose `user_data`
    /// would be those of others.
    fn adopt(&mut self, core: &Core, tag: u8, limit: u32);
    /// Calls `visit` with the `user_data` and facts of each request.
    fn visit(&self, visit: &mut dyn FnMut(u64, &Facts));
    /// Settles a completion without telling anybody. The data is dropped here, which may panic.
    fn discard(&mut self, core: &mut Core, cqe: Cqe);
    /// Goes on with a stream that waited for a buffer.
    fn unpark(&mut self, core: &mut Core, user_data: u64);
    /// Takes in data that another thread sent. False if it is not of the right type or is refused.
    fn receive(&mut self, core: &mut Core, data: Box<dyn Any + Send>) -> bool;
}

impl<D: 'static> AnySlab for Slab<D> {
    fn in_flight(&self) -> usize {
        self.occupied_slots()
    }

    fn adopt(&mut self, _: &Core, tag: u8, limit: u32) {
        if self.tag() == tag {
            self.set_limit(limit);
        }
    }

    fn visit(&self, visit: &mut dyn FnMut(u64, &Facts)) {
        self.for_each(|user_data, record| visit(user_data, &record.facts));
    }

    fn discard(&mut self, core: &mut Core, cqe: Cqe) {
        match settle(core, self, cqe) {
            Settled::Silent => {}
            Settled::Final(completion, data) => drop((completion, data)),
            // Not while the ring is being torn down, which is when this is called.
            Settled::More(completion, data) => {
                resume(core, self, cqe.user_data, Some(data), completion.lacks_buffers());
            }
        }
    }

    fn unpark(&mut self, core: &mut Core, user_data: u64) {
        let Some(mut slot) = self.find(user_data) else { return };
        let flags = slot.meta().facts.flags;
        if flags.contains(Flags::PARKED) && !flags.contains(Flags::CANCELLED) {
            arm_again(core, slot, user_data);
        }
    }

    fn receive(&mut self, core: &mut Core, data: Box<dyn Any + Send>) -> bool {
        let Ok(data) = data.downcast::<D>() else { return false };
        if self.reserve().is_err() {
            return false;
        }
        let (_, user_data) = request::place_message(self, *data, core.mark, core.now);
        core.count();
        core.end_without_kernel(user_data, 0);
        true
    }
}

const _: () = assert!(size_of::<Option<Completion>>() <= 64, "completions are handed over by value");
