//! What becomes of the requests in a slab, whatever the type of their data: streams go on, or are
//! armed again; data is dropped, or taken in.
//!
//! # How the unsafe code stays right
//!
//! Slabs lie in a structure that is generated, in code that is a user's; and what finds one there is generated as well, or
//! written by somebody who knows the hidden names. So a [`SlabCell`] can be referred to and nothing else: who has no
//! `&mut` can't move it away. It is opened only in this crate, for whoever has the structure to himself, and only if it lies
//! within that: so two rings never share a slab, whatever a projection returns.

use std::any::Any;
use std::cell::UnsafeCell;

use crate::core::Core;
use crate::error::SubmitError;
use crate::facts::{Facts, Flags};
use crate::queue::Cqe;
use crate::request::{self, Record, Slab};
use crate::settle::{Settled, is_not_over, settle, withdraw};
use crate::slab::{Lent, Occupied};

/// After how many times that the pool was empty though nobody holds a buffer of it a stream ends. Once
/// or twice is possible: completions with buffers may not have been looked at yet.
const HOPELESS: u8 = 4;

/// Goes on with a stream whose data was taken back, but which is not calm.
///
/// # Safety
///
/// The data was lent by this slab, which has it again.
#[cold]
#[inline(never)]
pub(crate) unsafe fn resume<D>(core: &mut Core, slab: &mut Slab<D>, lent: Lent) {
    // SAFETY: the caller's promise is the same.
    let mut slot = unsafe { slab.find_lent(lent) };
    let user_data = slot.user_data();
    let facts = &mut slot.demote().facts;
    let (flags, group) = (facts.flags, facts.pool);
    if !flags.intersects(Flags::PARKED) {
        return;
    }
    let starved = facts.lacks_buffers(facts.held.result);
    facts.starved = match core.untouched(group) {
        Some(taken) if starved => {
            let again = std::mem::replace(&mut facts.taken, taken) == taken;
            if again { facts.starved + 1 } else { 1 }
        }
        _ => 0,
    };
    if flags.intersects(Flags::CANCELLED) {
        core.end_without_kernel(user_data, -libc::ECANCELED);
    } else if facts.starved == HOPELESS {
        // As if cancelled, so that it is not taken for one more cut.
        facts.flags.insert(Flags::CANCELLED);
        core.end_without_kernel(user_data, -libc::ENOBUFS);
    } else if starved {
        core.park(user_data, group);
    } else {
        arm_again(core, slot, user_data);
    }
}

/// Ends a stream whose handler has kept its data.
///
/// # Safety
///
/// The data was lent by this slab, and still is.
#[cold]
#[inline(never)]
pub(crate) unsafe fn give_up<D>(core: &mut Core, slab: &mut Slab<D>, lent: Lent) {
    // SAFETY: the caller's promise is the same.
    let mut slot = unsafe { slab.find_lent(lent) };
    let user_data = slot.user_data();
    let facts = &mut slot.demote().facts;
    let flags = facts.flags;
    if flags.intersects(Flags::PARKED) {
        core.in_flight -= 1;
        drop(slot.take());
        return;
    }
    facts.flags.insert(Flags::CANCELLED);
    slot.abandon();
    if !flags.intersects(Flags::CANCELLED) {
        core.cancel_stream(user_data);
    }
}

/// Submits a stream anew after the kernel has cut it.
fn arm_again<D>(core: &mut Core, mut slot: Occupied<'_, D, Record<D>>, user_data: u64) {
    let Some(mut placed) = request::arm_again(&mut slot, user_data, core.serial) else { return };
    let facts = &mut slot.demote().facts;
    match core.bind_stream(&mut placed) {
        Ok(group) => {
            if facts.pool != group {
                // What was taken from another pool says nothing of this one.
                facts.starved = 0;
            }
            facts.pool = group;
            facts.flags.remove(Flags::PARKED);
            core.push(placed);
        }
        Err(error) => {
            let errno = match error {
                SubmitError::PoolRefused(errno) => errno,
                _ => libc::EBUSY,
            };
            // So that a cancel does not end it once more.
            facts.flags.insert(Flags::CANCELLED);
            core.end_without_kernel(user_data, -errno);
        }
    }
}

/// A slab among those of a ring.
pub struct SlabCell<D: 'static>(UnsafeCell<Slab<D>>);

impl<D: 'static> SlabCell<D> {
    /// An empty slab whose requests carry `tag`. It has no room before a ring adopts it.
    pub fn new(tag: u8) -> Self {
        SlabCell(UnsafeCell::new(Slab::new(tag)))
    }

    /// The slab without its type.
    pub fn any(&self) -> SlabRef<'_> {
        SlabRef(&self.0)
    }

    /// The slab, if this is one of `slabs`.
    ///
    /// # Panics
    ///
    /// If it is not: it was not `#[ring]` that has made the projection.
    #[inline(always)]
    pub(crate) fn open<'s, S>(
        slabs: &'s mut S,
        project: impl FnOnce(&'s S) -> &'s SlabCell<D>,
    ) -> &'s mut Slab<D> {
        let slabs: &'s S = slabs;
        let cell = project(slabs);
        if !lies_within(slabs, cell) {
            elsewhere();
        }
        // SAFETY: the pointer is that of a reference, so it is aligned and what it points to is there, for `'s`. Nobody
        // else uses the slab: it is a part of what is borrowed exclusively for `'s`, and the projection, which was lent
        // that, could neither keep it nor open a cell in it.
        unsafe { &mut *cell.0.get() }
    }
}

/// A slab of which the type is not known.
pub struct SlabRef<'s>(&'s UnsafeCell<dyn AnySlab>);

impl<'s> SlabRef<'s> {
    /// The slab, if this is one of `slabs`.
    pub(crate) fn open<S>(
        slabs: &'s mut S,
        project: impl FnOnce(&'s S) -> Option<SlabRef<'s>>,
    ) -> Option<&'s mut dyn AnySlab> {
        let slabs: &'s S = slabs;
        let SlabRef(cell) = project(slabs).filter(|slab| lies_within(slabs, slab.0))?;
        // SAFETY: as in `SlabCell::open`.
        Some(unsafe { &mut *cell.get() })
    }

    /// The same, to look at.
    pub(crate) fn look<S>(
        slabs: &'s S,
        project: impl FnOnce(&'s S) -> Option<SlabRef<'s>>,
    ) -> Option<&'s dyn AnySlab> {
        let SlabRef(cell) = project(slabs).filter(|slab| lies_within(slabs, slab.0))?;
        // SAFETY: the pointer is that of a reference, as above. Nobody writes to the slab: it is a part of what is borrowed,
        // which whoever opens it would have to borrow exclusively.
        Some(unsafe { &*cell.get() })
    }
}

/// Whether the one is a part of the other. Of a projection that the compiler sees through, it knows.
#[inline(always)]
fn lies_within<S, T: ?Sized>(whole: &S, part: &T) -> bool {
    let offset = (&raw const *part).addr().wrapping_sub((&raw const *whole).addr());
    size_of::<S>().checked_sub(size_of_val(part)).is_some_and(|last| offset <= last)
}

#[cold]
#[inline(never)]
fn elsewhere() -> ! {
    panic!("a tag is of its ring, and so is its slab")
}

/// What the runtime does with the slab of an operation whose type it does not know.
pub(crate) trait AnySlab {
    /// How many requests are in flight.
    fn in_flight(&self) -> usize;
    /// Makes this the slab of `tag` in the ring of `core`, with room for `limit` requests. Until then
    /// it has none: so a slab that the ring does not know of can't hold requests, whose `user_data`
    /// would be those of others.
    fn adopt(&mut self, core: &Core, tag: u8, limit: u32);
    /// Calls `visit` with the `user_data` and facts of each request.
    fn visit(&self, visit: &mut dyn FnMut(u64, &Facts));
    /// Has all completions from here on be looked at closely: no request is plain any more.
    fn demote_all(&mut self);
    /// Finds the slots that a panic has lost, when no request is in flight.
    fn tidy(&mut self);
    /// Settles a completion without telling anybody. The data is dropped here, which may panic.
    fn discard(&mut self, core: &mut Core, cqe: Cqe);
    /// A request of a chain that was not submitted yet is counted from here on.
    fn submitted(&mut self, user_data: u64);
    /// Takes back a request that was neither counted nor queued. The data is dropped here, which may panic.
    fn withdraw(&mut self, user_data: u64);
    /// Which request a cancel of this name was to end, if the kernel still has it.
    fn is_not_over(&mut self, cancel: u64) -> Option<u64>;
    /// Goes on with a stream that waited for a buffer. False if it has ended since.
    fn unpark(&mut self, core: &mut Core, user_data: u64) -> bool;
    /// Makes room for one more request. False if there are as many as may be.
    fn make_room(&mut self) -> bool;
    /// Takes in data that another thread sent, for which there is room. (If it is not of the right type, it is dropped,
    /// which may panic.)
    fn receive(&mut self, core: &mut Core, data: Box<dyn Any + Send>);
}

impl<D: 'static> AnySlab for Slab<D> {
    fn in_flight(&self) -> usize {
        let mut count = 0;
        AnySlab::visit(self, &mut |_, _| count += 1);
        count
    }

    fn adopt(&mut self, _: &Core, tag: u8, limit: u32) {
        if self.tag() == tag {
            self.set_limit(limit);
        }
    }

    fn visit(&self, visit: &mut dyn FnMut(u64, &Facts)) {
        self.for_each(|user_data, record| {
            // A chain that is forgotten leaves some behind.
            if !record.facts.flags.intersects(Flags::IN_CHAIN) {
                visit(user_data, &record.facts);
            }
        });
    }

    fn demote_all(&mut self) {
        Slab::demote_all(self);
    }

    fn tidy(&mut self) {
        Slab::tidy(self);
    }

    fn discard(&mut self, core: &mut Core, cqe: Cqe) {
        match settle(core, self, cqe.user_data, cqe.result, cqe.flags) {
            Settled::Silent => {}
            Settled::Plain(cqe) => self.discard(core, cqe),
            // Not while the ring is being torn down, which is when this is called.
            Settled::Told(_completion, data, Some(lent)) => {
                // SAFETY: it was just lent, here.
                if !unsafe { self.take_back(&lent, data) } {
                    // SAFETY: it was taken back.
                    unsafe { resume(core, self, lent) };
                }
            }
            Settled::Told(completion, data, None) => drop((completion, data)),
        }
    }

    fn submitted(&mut self, user_data: u64) {
        if let Some(mut slot) = self.find(user_data) {
            slot.demote().facts.flags.remove(Flags::IN_CHAIN);
        }
    }

    fn withdraw(&mut self, user_data: u64) {
        drop(withdraw(self, user_data));
    }

    fn is_not_over(&mut self, cancel: u64) -> Option<u64> {
        is_not_over(self, cancel)
    }

    fn unpark(&mut self, core: &mut Core, user_data: u64) -> bool {
        let Some(mut slot) = self.find(user_data) else { return false };
        let flags = slot.peek().facts.flags;
        let waits = flags.intersects(Flags::PARKED) && !flags.intersects(Flags::CANCELLED);
        if waits {
            arm_again(core, slot, user_data);
        }
        waits
    }

    fn make_room(&mut self) -> bool {
        self.reserve().is_ok()
    }

    fn receive(&mut self, core: &mut Core, data: Box<dyn Any + Send>) {
        let Ok(data) = data.downcast::<D>() else { return };
        let user_data = request::place_message(self, *data, core.terms(Flags::EMPTY));
        core.count();
        core.end_without_kernel(user_data, 0);
    }
}
