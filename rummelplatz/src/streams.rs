//! How streams go on: when their handler has returned, when the kernel has cut them, when a buffer has come back or a
//! rest is over, when they have been idle, and when they were paused.
//!
//! # Pauses
//!
//! To pause a stream is to have the kernel cancel it, and then to keep it as one that was cut: see
//! [`Flags`](crate::facts::Flags). What the kernel posts before it does so is delivered as always. A stream that is cut
//! meanwhile, or was before, goes on waiting for its buffer or resting; when that is over, it is passed over, and a
//! resume arms it.
//!
//! A stream has the same name after a pause, so a cancel that was meant for what was armed before must not find it. The
//! kernel takes entries in one after the other, and carries a cancel out when it takes it in: so a cancel that is queued
//! before the stream is armed again finds nothing. Those that are asked for again later are only for streams that are
//! still to stop.

use crate::core::Core;
use crate::error::SubmitError;
use crate::facts::{Flags, Held};
use crate::idle::IdleLimit;
use crate::mutant;
use crate::request::{self, Placed, Record, Slab};
use crate::slab::{Identity, Lent, Occupied, State};

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
        // A paused one does not ask for a buffer.
        Some(taken) if starved && !flags.intersects(Flags::PAUSED) => {
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
        go_on(core, slot);
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

/// Submits a stream anew that the kernel does not have, unless it is paused.
pub(crate) fn go_on<D>(core: &mut Core, mut slot: Occupied<'_, D, Record<D>>) {
    let user_data = slot.user_data();
    if !slot.demote().facts.flags.intersects(Flags::PAUSED) || mutant::is("a paused stream goes on") {
        arm_again(core, slot, user_data);
    }
}

/// Submits a stream anew after the kernel has cut it.
fn arm_again<D>(core: &mut Core, mut slot: Occupied<'_, D, Record<D>>, user_data: u64) {
    if let Some(placed) = request::arm_again(&mut slot, user_data, core.serial) {
        submit_anew(core, slot, placed);
    }
}

/// Submits what [`request::arm_again`] has built of a stream in this slot that the kernel does not have.
fn submit_anew<D>(core: &mut Core, mut slot: Occupied<'_, D, Record<D>>, mut placed: Placed) {
    let user_data = placed.user_data();
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
            slot.calm();
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
    if !flags.intersects(Flags::PARKED) || flags.intersects(Flags::CANCELLED) {
        return false;
    }
    if flags.intersects(Flags::PAUSED) {
        // It has nothing to wait for when it is resumed.
        slot.demote().facts.held = Held::default();
        return false;
    }
    arm_again(core, slot, user_data);
    true
}

/// Pauses the stream in a slot. Returns false if there is no stream, if it ends, or if it is paused already.
pub(crate) fn pause<D>(core: &mut Core, mut slot: Occupied<'_, D, Record<D>>) -> bool {
    let user_data = slot.user_data();
    let flags = slot.peek().facts.flags;
    let may_pause = flags.intersects(Flags::STREAM) && !flags.intersects(Flags::CANCELLED | Flags::PAUSED);
    if !may_pause || core.phase.is_teardown() || core.shared.is_forked() {
        return false;
    }
    let flags = &mut slot.demote().facts.flags;
    core.recount(flags, |flags| flags.insert(Flags::PAUSED));
    // One that the kernel does not have, or is asked for already, need not be asked for.
    if !flags.intersects(Flags::PARKED | Flags::STOPPING) {
        flags.insert(Flags::STOPPING);
        core.cancel_stream(user_data);
    }
    true
}

/// Lets the stream in a slot go on that was paused. Returns false if it was not.
pub(crate) fn end_pause<D>(core: &mut Core, mut slot: Occupied<'_, D, Record<D>>) -> bool {
    let user_data = slot.user_data();
    let is_here = slot.state() == State::Live;
    let facts = slot.peek().facts;
    let flags = facts.flags;
    let is_paused = flags.intersects(Flags::PAUSED) && !flags.intersects(Flags::CANCELLED);
    if !is_paused || core.phase.is_teardown() || core.shared.is_forked() {
        return false;
    }
    let held = facts.held.result;
    let waits = facts.lacks_buffers(held) || facts.rest_after(held).is_some();
    // Otherwise it goes on when the kernel has answered the cancel, when its handler returns, when a buffer is back, or
    // when its rest is over.
    let placed = match flags.intersects(Flags::PARKED) && is_here && !waits {
        // If its function panics, it stays paused.
        true => request::arm_again(&mut slot, user_data, core.serial),
        false => None,
    };
    core.end_pause(user_data, &mut slot.demote().facts.flags, true);
    if let Some(placed) = placed {
        submit_anew(core, slot, placed);
    }
    true
}

/// Looks after a stream that may not be idle for too long, and ends it if it was. Returns how to go on with that; `None`
/// if the stream is over, ends, or is in a pause.
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
    if flags.are_halted() {
        core.put_limit_aside(identity, limit);
        return None;
    }
    // While it waits for a buffer, rests or is paused, it can't tell of anything.
    let was_quiet = flags.intersects(Flags::QUIET) && !flags.intersects(Flags::PARKED | Flags::PAUSED);
    flags.insert(Flags::QUIET);
    let next = limit.after_look(was_quiet);
    if next.is_none() {
        flags.insert(Flags::TIMED_OUT | Flags::CANCELLED);
        core.cancel_stream(identity.user_data);
    }
    next
}
