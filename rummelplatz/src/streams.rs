//! How streams go on: when their handler has returned, when the kernel has cut them, when a buffer has come back or a
//! rest is over, and when they have been idle.

use crate::core::Core;
use crate::error::SubmitError;
use crate::facts::Flags;
use crate::idle::IdleLimit;
use crate::request::{self, Record, Slab};
use crate::slab::{Identity, Lent, Occupied};

/// A stream ends after it has found its pool empty this many times although nobody held a buffer of it. Once
/// or twice is possible: completions with buffers may not have been looked at yet.
const HOPELESS: u8 = 4;

/// Goes on with a stream whose data was taken back, but which is not calm.
///
/// # Safety
///
/// The data was lent by this slab, and the slab has it back.
#[cold]
#[inline(never)]
pub(crate) unsafe fn resume<D>(core: &mut Core, slab: &mut Slab<D>, lent: Lent) {
    // SAFETY: the caller promises that the value was lent by this slab; it is back, so the slot was not freed
    // since.
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
        // Marked as cancelled, so that this is not taken for one more cut.
        facts.flags.insert(Flags::CANCELLED);
        core.end_without_kernel(user_data, -libc::ENOBUFS);
    } else if starved {
        core.park(user_data, group);
    } else if let Some(time) = facts.rest_after(facts.held.result) {
        core.rest(user_data, time);
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
    // SAFETY: the caller promises that the value was lent by this slab and still is, so the slot was not
    // freed since.
    let mut slot = unsafe { slab.find_lent(lent) };
    let user_data = slot.user_data();
    let facts = &mut slot.demote().facts;
    let flags = facts.flags;
    if flags.intersects(Flags::PARKED) {
        core.count_off(flags);
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
        Ok(bound) => {
            if facts.pool != bound.group {
                // That the stream starved on another pool says nothing about this one.
                facts.starved = 0;
            }
            facts.bind(bound);
            // While it had to wait, it was not idle.
            facts.flags.remove(Flags::PARKED | Flags::QUIET);
            core.push(placed);
        }
        Err(error) => {
            let errno = match error {
                SubmitError::PoolRefused(errno) => errno,
                SubmitError::Invalid(_) => libc::EINVAL,
                _ => libc::EBUSY,
            };
            // So that a cancel does not end it once more.
            facts.flags.insert(Flags::CANCELLED);
            core.end_without_kernel(user_data, -errno);
        }
    }
}

/// Resumes a stream that waited for a buffer, or rested. Returns false if it has ended since.
pub(crate) fn unpark<D>(core: &mut Core, slab: &mut Slab<D>, user_data: u64) -> bool {
    let Some(mut slot) = slab.find(user_data) else { return false };
    let flags = slot.peek().facts.flags;
    let waits = flags.intersects(Flags::PARKED) && !flags.intersects(Flags::CANCELLED);
    if waits {
        arm_again(core, slot, user_data);
    }
    waits
}

/// Looks after a stream that may not be idle for too long, and ends it if it was. Returns how to go on with that; `None`
/// if the stream is over or ends.
pub(crate) fn look_after<D>(
    core: &mut Core,
    slab: &mut Slab<D>,
    identity: Identity,
    limit: IdleLimit,
) -> Option<IdleLimit> {
    let mut slot = slab.find_identity(identity)?;
    let flags = &mut slot.demote().facts.flags;
    if flags.intersects(Flags::CANCELLED) {
        return None;
    }
    // While it waits for a buffer, or rests, it can't tell of anything.
    let was_quiet = flags.intersects(Flags::QUIET) && !flags.intersects(Flags::PARKED);
    flags.insert(Flags::QUIET);
    let next = limit.after_look(was_quiet);
    if next.is_none() {
        flags.insert(Flags::TIMED_OUT | Flags::CANCELLED);
        core.cancel_stream(identity.user_data);
    }
    next
}
