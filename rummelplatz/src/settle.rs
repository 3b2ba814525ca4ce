//! What a completion means for its slot: the one place where requests end.

use std::os::fd::{FromRawFd, OwnedFd};

use io_uring::cqueue;

use crate::completion::Completion;
use crate::core::Core;
use crate::facts::{Facts, Flags, Held, Yields};
use crate::mutant;
use crate::queue::{Cqe, is_ring};
use crate::request::{Record, Slab, sqe};
use crate::slab::{Calm, Lent, Occupied, Plain, State};
use crate::streams::go_on;
use crate::user_data::UserData;

/// `IORING_CQE_F_MORE`.
const F_MORE: u32 = 1 << 1;

/// What is to be told to the operation.
pub(crate) enum Settled<D> {
    /// Nothing: it was no completion of a request in flight, or nobody is to know.
    Silent,
    /// If the data is lent, there is [`more`](Completion::more) to come, and the stream goes on if the
    /// handler returns the data. Otherwise the request is over, and its slot is free.
    Told(Completion, D, Option<Lent>),
}

/// The request that a completion belongs to.
pub(crate) enum Found<'s, D> {
    /// A plain one, which has ended. It is counted as in flight until its slot is released.
    Plain(Plain<'s, D, Record<D>>),
    /// A stream that just goes on: see [`settle_going_on`].
    Calm(Calm<'s, D, Record<D>>),
    /// Something that [`settle`] is to deal with.
    Other,
}

/// A completion and the tag of its request. In the code of one operation the compiler knows the tag, but not
/// that it is a part of the `user_data`.
pub(crate) struct Tagged {
    cqe: Cqe,
    tag: u8,
}

impl Tagged {
    #[inline(always)]
    pub(crate) fn new(cqe: Cqe) -> Tagged {
        Tagged { tag: UserData::tag(cqe.user_data), cqe }
    }
}

/// Finds out whether a completion can take one of the short paths that nearly all take, which are kept apart
/// from the rest.
#[inline(always)]
pub(crate) fn find<'s, D>(slab: &'s mut Slab<D>, Tagged { cqe, tag }: &Tagged) -> Found<'s, D> {
    if *tag == 0 {
        return Found::Other;
    }
    if Completion::can_be_plain(cqe.flags) {
        // SAFETY: the `user_data` is not 0, because the tag is a part of it and not 0.
        let plain = unsafe { slab.find_plain(cqe.user_data) };
        return plain.map_or(Found::Other, Found::Plain);
    }
    match Completion::can_be_calm(cqe.flags) {
        true => slab.find_calm(cqe.user_data).map_or(Found::Other, Found::Calm),
        false => Found::Other,
    }
}

/// Settles a completion of a stream that just goes on.
#[inline(always)]
pub(crate) fn settle_going_on(core: &Core, facts: &Facts, cqe: &Cqe) -> Completion {
    let pool = match facts.yields {
        Yields::Buffer => core.queue.pool(facts.pool),
        _ => None,
    };
    // SAFETY: the kernel posted this result for a request that yields what `facts` say, and each completion
    // is settled once, so nobody else owns what it carries; all pools of the queue are registered with this
    // ring. No calm stream yields anything involved.
    unsafe { Completion::simple(facts, pool, cqe.result, cqe.flags) }.announcing_more()
}

/// Finds the slot that a completion names, and changes it accordingly.
///
/// Accounting is by slot: a completion that names no request in flight is [counted](Core::count_foreign)
/// and dropped; one that names a request is believed.
#[inline(never)]
pub(crate) fn settle<D>(
    core: &mut Core,
    slab: &mut Slab<D>,
    user_data: u64,
    result: i32,
    flags: u32,
) -> Settled<D> {
    let mut cqe = Cqe { user_data, result, flags };
    if let Some(timed) = UserData::timed(user_data) {
        match settle_timer(core, slab, timed, cqe) {
            Some(ended) => cqe = ended,
            None => return Settled::Silent,
        }
    }
    let Some(mut slot) = slab.find(cqe.user_data) else {
        core.count_foreign(&cqe);
        return Settled::Silent;
    };
    let facts = &mut slot.demote().facts;
    if facts.waits_for_timer() || facts.flags.intersects(Flags::IN_CHAIN) {
        // The request's own completion has come already, or the kernel has not heard of the request.
        core.count_foreign(&cqe);
        return Settled::Silent;
    }
    core.settled = !mutant::is("only ends move") || !cqueue::more(cqe.flags);
    let is_taken_for_end =
        mutant::is("F_MORE means nothing") || mutant::is("errors are final") && cqe.result < 0;
    if cqueue::more(cqe.flags) && !is_taken_for_end {
        if facts.flags == Flags::STREAM | Flags::INVOLVED && !core.phase.is_teardown() {
            // A stream that just goes on, but is not calm.
            let completion = complete(core, facts, cqe.result, cqe.flags);
            return tell_more(slot, completion);
        }
        settle_more(core, slot, &cqe)
    } else if facts.flags.is_empty() {
        // A request that yields something, and about which there is nothing else to know.
        let completion = complete(core, facts, cqe.result, cqe.flags);
        core.count_off(Flags::EMPTY);
        slot.take().map_or(Settled::Silent, |data| Settled::Told(completion, data, None))
    } else if facts.flags.intersects(Flags::TIMED) && !mutant::is("a timer is not awaited") {
        await_timer(core, facts, &cqe);
        Settled::Silent
    } else {
        settle_final(core, slot, &cqe)
    }
}

/// Settles a completion after which there is more to come: one of a stream, or the first one of a request
/// whose memory the kernel still uses.
#[inline(never)]
fn settle_more<D>(core: &mut Core, mut slot: Occupied<'_, D, Record<D>>, cqe: &Cqe) -> Settled<D> {
    let state = slot.state();
    let facts = &mut slot.demote().facts;
    let is_stream = facts.flags.intersects(Flags::STREAM);
    if !is_stream && !facts.flags.intersects(Flags::HELD) {
        // A zero-copy send, or a raw entry. What the result carries is taken over with the final completion.
        facts.flags.insert(Flags::HELD);
        facts.held = Held { result: cqe.result, flags: cqe.flags };
        return Settled::Silent;
    }
    let completion = complete(core, facts, cqe.result, cqe.flags);
    if facts.flags.intersects(Flags::CANCELLED | Flags::STOPPING) && !core.phase.is_teardown() {
        core.insist_on(cqe.user_data);
    }
    if !is_stream || state != State::Live || core.phase.is_teardown() {
        return Settled::Silent;
    }
    count_down(facts, &completion);
    if !mutant::is("quiet for ever") {
        facts.flags.remove(Flags::QUIET);
    }
    tell_more(slot, completion)
}

/// Tells of a completion after which a stream goes on, if its handler returns the data.
fn tell_more<D>(mut slot: Occupied<'_, D, Record<D>>, completion: Completion) -> Settled<D> {
    match slot.lend() {
        Some((data, lent)) => Settled::Told(completion.announcing_more(), data, Some(lent)),
        None => Settled::Silent,
    }
}

/// Notes that a request has ended. Its handler is told when the linked timer, which names this slot, has
/// completed as well.
#[inline(always)]
fn await_timer(core: &mut Core, facts: &mut Facts, cqe: &Cqe) {
    facts.flags.insert(Flags::ENDED);
    core.half_ended += 1;
    let held = Held { result: cqe.result, flags: cqe.flags };
    match facts.flags.intersects(Flags::HELD) {
        // What is told is the result that was posted first.
        true => drop(complete(core, facts, held.result, held.flags)),
        false => facts.held = held,
    }
}

/// Settles the last completion of a request; of a stream, the last one before it must be armed again, if it
/// is to go on.
#[inline(never)]
fn settle_final<D>(core: &mut Core, mut slot: Occupied<'_, D, Record<D>>, cqe: &Cqe) -> Settled<D> {
    let state = slot.state();
    let facts = &mut slot.demote().facts;
    let mut completion = complete(core, facts, cqe.result, cqe.flags);
    if facts.flags.intersects(Flags::HELD) {
        completion = complete(core, facts, facts.held.result, facts.held.flags);
    }
    let may_go_on =
        facts.flags.intersects(Flags::STREAM) && state == State::Live && !core.phase.is_teardown();
    if may_go_on && was_paused(facts, &completion) {
        core.set_parked(cqe.user_data, &mut facts.flags);
        facts.held = Held::default();
        go_on(core, slot);
        return Settled::Silent;
    }
    if may_go_on && was_cut(facts, &completion) {
        // The kernel does not have the stream any more. If the handler returns the data, it may be armed
        // again.
        core.set_parked(cqe.user_data, &mut facts.flags);
        facts.held = Held { result: cqe.result, flags: cqe.flags };
        return tell_more(slot, completion);
    }
    if facts.flags.intersects(Flags::TIMED_OUT) {
        completion = completion.timing_out();
    }

    let flags = facts.flags;
    if flags.intersects(Flags::CLOSES) && was_not_begun(facts, cqe.result) {
        // SAFETY: the kernel has not begun to close it, as was just found out; and the slot is freed below.
        drop(unsafe { take_owned(facts) });
    }
    if flags.intersects(Flags::MESSAGE) {
        completion = completion.into_message();
    }
    core.count_off(flags);
    let Some(data) = slot.take() else { return Settled::Silent };
    if flags.intersects(Flags::DETACHED) {
        if completion.result().is_err() {
            core.counters.detached_failed += 1;
        }
        return Settled::Silent;
    }
    Settled::Told(completion, data, None)
}

/// Whether a `close` that ended with this result leaves its descriptor open.
///
/// Mostly it does not: the kernel first takes the descriptor out of its table and then asks the file, whose
/// answer is the result (`filp_flush`). A file system in user space may answer with any error: `EIO` and
/// `EINTR`, but also `EINVAL`, `EACCES` or `EBADF`. Closing the descriptor again would then close somebody
/// else's.
///
/// * `ECANCELED` means that the `close` was not begun. (Such a file system could answer with it as well, and
///   nothing would distinguish that from a cancel.)
/// * With `EBADF`, the kernel refuses to close the descriptor of a ring, and leaves it where it is. A ring's
///   file is not asked, so it can't answer that itself. So if the number belongs to a ring now, the `close`
///   was refused. (Unless such a file system has answered, and another thread has got a ring with this very
///   number since.)
fn was_not_begun(facts: &Facts, result: i32) -> bool {
    match result.wrapping_neg() {
        libc::ECANCELED => true,
        libc::EBADF => facts.owned_descriptor().is_some_and(is_ring),
        _ => false,
    }
}

/// The descriptor that a `close` was to close.
///
/// # Safety
///
/// The kernel has not begun to close it, and the slot that owns it is freed next.
unsafe fn take_owned(facts: &Facts) -> Option<OwnedFd> {
    // SAFETY: the slot has owned the descriptor since `close` was given it. The caller promises that the
    // kernel has not begun to close it, and that the slot is freed next, so it has no other owner.
    facts.owned_descriptor().map(|descriptor| unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Takes back a request that was neither counted nor queued. Returns its data; nothing else of it is left.
pub(crate) fn withdraw<D>(slab: &mut Slab<D>, user_data: u64) -> Option<D> {
    let mut slot = slab.find(user_data)?;
    // SAFETY: the kernel never had the request, so it has not begun to close anything; and the slot is freed
    // next.
    drop(unsafe { take_owned(&slot.demote().facts) });
    slot.take()
}

/// Which request the cancel with this name was to end, if the kernel still has that request.
pub(crate) fn is_not_over<D>(slab: &mut Slab<D>, cancel: u64) -> Option<u64> {
    let mut slot = slab.at(UserData::slot(cancel))?;
    let user_data = slot.user_data();
    if UserData::of_cancel(user_data) != cancel {
        return None;
    }
    let Facts { flags, opcode, .. } = slot.peek().facts;
    // A zero-copy send whose result was posted has ended, except that the kernel still uses its memory.
    let is_sent = flags.intersects(Flags::HELD) && sqe::is_zero_copy(opcode);
    let elsewhere = Flags::ENDED | Flags::PARKED | Flags::MESSAGE | Flags::IN_CHAIN;
    let is_to_end = flags.intersects(Flags::CANCELLED | Flags::TIMED_OUT | Flags::STOPPING);
    (is_to_end && !is_sent && !flags.intersects(elsewhere)).then_some(user_data)
}

/// Settles the completion of a linked timer. If its request has completed before, it ends now, and its
/// completion is returned; `None` if it has not, or if there is no such timer.
fn settle_timer<D>(core: &mut Core, slab: &mut Slab<D>, user_data: u64, timer: Cqe) -> Option<Cqe> {
    let Some(mut slot) = slab.find(user_data) else {
        core.count_foreign(&timer);
        return None;
    };
    let facts = &mut slot.demote().facts;
    if !facts.flags.intersects(Flags::TIMED) || facts.flags.intersects(Flags::IN_CHAIN) {
        core.count_foreign(&timer);
        return None;
    }
    core.settled = true;
    facts.flags.remove(Flags::TIMED);
    // If a linked timer has cancelled a `waitid` or a `futex_wait`, its result is how many it has cancelled.
    let errno = if timer.result > 0 { libc::ETIME } else { timer.result.wrapping_neg() };
    let is_up = matches!(errno, libc::ETIME | libc::EALREADY | libc::ENOENT);
    if is_up && !mutant::is("time is never up") {
        facts.flags.insert(Flags::TIMED_OUT);
    }
    if facts.flags.intersects(Flags::ENDED) {
        facts.flags.remove(Flags::ENDED | Flags::HELD);
        core.half_ended -= 1;
        // As it was posted. Of a zero-copy send, only what was posted first is told.
        let Held { result, flags } = facts.held;
        return Some(Cqe { user_data, result, flags: flags & !F_MORE });
    }
    // With `ETIME` the kernel has found the request and cancelled it. With `ECANCELED` the request was over
    // first, or what came before it has failed. Otherwise, the kernel has not found it where it could be
    // cancelled; or it has never set the timer, because it could not take both entries in at once.
    if errno != libc::ECANCELED && errno != libc::ETIME {
        facts.flags.insert(Flags::CANCELLED);
        core.cancel(user_data);
    }
    None
}

/// Whether a final completion is not the end of a stream: the kernel ran out of space for completions, of buffers
/// or of descriptors, and would go on if it were asked again.
fn was_cut(facts: &mut Facts, completion: &Completion) -> bool {
    let has_payload = completion.has_payload();
    if !has_payload && completion.result().is_ok() {
        // The end of what there was to receive.
        return false;
    }
    let counted = facts.left() > 0;
    count_down(facts, completion);
    if counted && facts.left() == 0 {
        return false;
    }
    // What it carries is delivered before the end, even if somebody has asked for the end.
    let is_cancelled = facts.flags.intersects(Flags::CANCELLED);
    let result = completion.raw().result;
    let passes = facts.lacks_buffers(result) || facts.rest_after(result).is_some();
    has_payload || !is_cancelled && passes
}

/// Whether a final completion is that of a cancel which only a pause has asked for.
fn was_paused(facts: &Facts, completion: &Completion) -> bool {
    let is_for_pause = facts.flags.intersects(Flags::STOPPING) && !facts.flags.intersects(Flags::CANCELLED);
    is_for_pause && completion.was_interrupted() && !mutant::is("a pause is an end")
}

/// Counts down a timer that ticks a limited number of times, or a stream that receives a limited number of bytes.
fn count_down(facts: &mut Facts, completion: &Completion) {
    if facts.left() > 0 && completion.has_payload() {
        let done = match facts.yields {
            Yields::Tick => 1,
            _ => completion.raw().result.unsigned_abs(),
        };
        facts.set_left(facts.left().saturating_sub(done));
    }
}

/// Takes over what a completion of a request with these facts carries.
fn complete(core: &mut Core, facts: &Facts, result: i32, flags: u32) -> Completion {
    if facts.yields == Yields::Direct {
        let index = u32::try_from(result).ok();
        let file = index.and_then(|index| core.queue.receive_file(index));
        // As if the kernel had found no room, which it should not have.
        let result = if result >= 0 && file.is_none() { -libc::ENFILE } else { result };
        return Completion::with_file(result, flags, file);
    }
    let pool = facts.yields.is_from_pool().then(|| core.queue.pool(facts.pool)).flatten();
    // SAFETY: the kernel posted this result for a request that yields what `facts` say, and each completion is settled
    // once, in the order of the queue; nothing safe lets anybody else post one. All pools of the queue are registered
    // with this ring.
    unsafe { Completion::new(facts, pool, result, flags) }
}
