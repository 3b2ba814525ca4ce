//! The memory that both ends of the queues share.
//!
//! Each end is read when the caller wants to know it, and moved when the caller says so.
//!
//! # How the unsafe code stays right
//!
//! * Whoever makes a [`Queues`] promises that the memory is there, laid out as `io_uring(7)` says, for as
//!   long as it is used. It is kept in one struct with the owner of the memory, and never taken out.
//! * Heads, tails and flags are only used as atomics, and follow the kernel's rules: what is read is
//!   acquired, what is written is released.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering, fence};

use io_uring::squeue;

use super::Cqe;
use crate::buffers::Losses;

/// Where the queues are.
#[derive(Clone, Copy)]
pub(crate) struct Queues {
    pub(super) entry: NonNull<squeue::Entry>,
    pub(super) entry_capacity: u32,
    pub(super) cqe: NonNull<Cqe>,
    pub(super) cqe_capacity: u32,
    /// Completions are posted only while the ring is entered (`IORING_SETUP_DEFER_TASKRUN`, since 6.1).
    pub(super) posts_when_entered: bool,
    pub(super) entries_head: Shared,
    pub(super) entries_tail: Shared,
    pub(super) entries_flags: Shared,
    pub(super) completions_head: Shared,
    pub(super) completions_tail: Shared,
    pub(super) completions_lost: Shared,
}

// SAFETY: the pointers lead into memory that is sent along, and is used from one thread at a time or as
// atomics.
unsafe impl Send for Queues {}

/// A number that the other end reads or writes, too.
#[derive(Clone, Copy)]
pub(super) struct Shared(NonNull<AtomicU32>);

impl Shared {
    /// # Safety
    ///
    /// The number is there, aligned, for as long as this is used.
    pub(super) unsafe fn new(place: NonNull<AtomicU32>) -> Shared {
        Shared(place)
    }

    #[inline(always)]
    fn get(&self) -> &AtomicU32 {
        // SAFETY: whoever made it has promised that the number is there.
        unsafe { self.0.as_ref() }
    }
}

/// `IORING_SQ_NEED_WAKEUP`.
const NEED_WAKEUP: u32 = 1;
/// `IORING_SQ_CQ_OVERFLOW`.
const CQ_OVERFLOW: u32 = 1 << 1;
/// `IORING_SQ_TASKRUN`.
const TASKRUN: u32 = 1 << 2;

impl Queues {
    /// Where the entries are.
    pub(crate) fn entries(&self) -> NonNull<squeue::Entry> {
        self.entry
    }

    /// How many entries the submission queue has: a power of two.
    #[inline]
    pub(crate) fn capacity(&self) -> u32 {
        self.entry_capacity
    }

    /// Whether completions are posted only while the ring is entered.
    #[inline(always)]
    pub(crate) fn posts_when_entered(&self) -> bool {
        self.posts_when_entered
    }

    /// Up to where the kernel has taken entries in.
    #[inline]
    pub(crate) fn entries_taken_in(&self) -> u32 {
        self.entries_head.get().load(Ordering::Acquire)
    }

    /// Shows the kernel all entries before `tail`.
    #[inline]
    pub(crate) fn publish_entries(&self, tail: u32) {
        self.entries_tail.get().store(tail, Ordering::Release);
    }

    /// Whether the kernel's polling thread sleeps (`IORING_SETUP_SQPOLL`).
    pub(crate) fn needs_wakeup(&self) -> bool {
        // The tail must be visible before the flag is read: the thread sets the flag, then looks at
        // the tail a last time.
        fence(Ordering::SeqCst);
        self.entries_flags.get().load(Ordering::Relaxed) & NEED_WAKEUP != 0
    }

    /// Forgets that there is work for which this thread should enter, because it is about to enter.
    ///
    /// Whoever adds work from another CPU sets the flag after adding it. If the work was done in between, the
    /// flag stays set for ever, because an enter that finds no work does not look at it. For work that it
    /// leaves undone, the kernel sets the flag again.
    #[inline]
    pub(crate) fn forget_work(&self) {
        let flags = self.entries_flags.get();
        if flags.load(Ordering::Relaxed) & TASKRUN != 0 {
            flags.fetch_and(!TASKRUN, Ordering::AcqRel);
        }
    }

    /// Whether completions wait in the kernel, for room in the queue or for this thread to enter.
    #[inline]
    pub(crate) fn holds_back(&self) -> bool {
        self.entries_flags.get().load(Ordering::Acquire) & (CQ_OVERFLOW | TASKRUN) != 0
    }

    /// Up to where completions were posted.
    #[inline]
    pub(crate) fn completions_posted(&self) -> u32 {
        self.completions_tail.get().load(Ordering::Acquire)
    }

    /// Up to where the kernel thinks that completions were seen.
    pub(crate) fn completions_seen(&self) -> u32 {
        self.completions_head.get().load(Ordering::Acquire)
    }

    /// Gives the kernel back the places of all completions before `head`.
    #[inline]
    pub(crate) fn set_completions_seen(&self, head: u32) {
        self.completions_head.get().store(head, Ordering::Release);
    }

    /// What the kernel loses from now on.
    ///
    /// # Safety
    ///
    /// It is asked only while the memory of these queues is there.
    pub(super) unsafe fn losses(&self) -> Losses {
        // SAFETY: the number lies in that memory, and so is there whenever it is asked for.
        unsafe { Losses::from_now_on(self.completions_lost.0) }
    }

    /// Where the completions are, and how many places there are.
    pub(crate) fn completions(&self) -> (NonNull<Cqe>, u32) {
        (self.cqe, self.cqe_capacity)
    }
}

/// Queues that no kernel has: memory of this process, and what the kernel does at its end of them.
#[cfg(feature = "sim")]
pub(crate) struct Own {
    queues: Queues,
    /// Given back when this is dropped; the queues point into them.
    entries: *mut [squeue::Entry],
    completions: *mut [Cqe],
    numbers: *mut [AtomicU32; 6],
    posted: u32,
}

// SAFETY: the memory is owned, and used from one thread at a time or as atomics.
#[cfg(feature = "sim")]
unsafe impl Send for Own {}

#[cfg(feature = "sim")]
impl Own {
    /// Queues of these sizes, which are powers of two.
    pub(crate) fn new(entries: u32, completions: u32) -> Own {
        let nop = || io_uring::opcode::Nop::new().build();
        let entries: Box<[squeue::Entry]> = (0..entries).map(|_| nop()).collect();
        let none = Cqe { user_data: 0, result: 0, flags: 0 };
        let completions = vec![none; completions as usize].into_boxed_slice();
        let (entry_capacity, cqe_capacity) = (entries.len() as u32, completions.len() as u32);
        let entries = Box::leak(entries);
        let completions = Box::leak(completions);
        let numbers: &mut [AtomicU32; 6] = Box::leak(Box::default());
        // SAFETY: the numbers stay where they are until this is dropped.
        let [entries_head, entries_tail, entries_flags, completions_head, completions_tail, completions_lost] =
            numbers.each_ref().map(|number| unsafe { Shared::new(NonNull::from(number)) });
        let queues = Queues {
            entry: NonNull::from(&mut *entries).cast(),
            entry_capacity,
            cqe: NonNull::from(&mut *completions).cast(),
            cqe_capacity,
            posts_when_entered: true,
            entries_head,
            entries_tail,
            entries_flags,
            completions_head,
            completions_tail,
            completions_lost,
        };
        Own { queues, entries, completions, numbers, posted: 0 }
    }

    /// Where the queues are, for as long as this lives.
    pub(crate) fn queues(&self) -> Queues {
        self.queues
    }

    /// How many entries there are to be taken in.
    pub(crate) fn shown(&self) -> u32 {
        let tail = self.queues.entries_tail.get().load(Ordering::Acquire);
        tail.wrapping_sub(self.queues.entries_taken_in())
    }

    /// Takes in the next entry, if there is one, and returns its 64 bytes.
    pub(crate) fn take_in(&mut self) -> Option<[u64; 8]> {
        if self.shown() == 0 {
            return None;
        }
        let head = self.queues.entries_taken_in();
        let index = head & (self.queues.entry_capacity - 1);
        // SAFETY: the index is below the capacity; the other end has written the entry and shown it, and
        // writes no other in its place before it is taken in; its 64 bytes are initialised.
        let entry = unsafe { self.queues.entry.add(index as usize).cast::<[u64; 8]>().read() };
        self.queues.entries_head.get().store(head.wrapping_add(1), Ordering::Release);
        Some(entry)
    }

    /// How many completions can be posted.
    pub(crate) fn room(&self) -> u32 {
        self.queues.cqe_capacity - self.unseen()
    }

    /// How many completions were posted and not seen.
    pub(crate) fn unseen(&self) -> u32 {
        self.posted.wrapping_sub(self.queues.completions_seen())
    }

    /// Posts a completion.
    ///
    /// # Panics
    ///
    /// If there is no [`room`](Self::room).
    pub(crate) fn post(&mut self, cqe: Cqe) {
        assert!(self.room() > 0, "the other end has seen more completions than there were");
        let index = self.posted & (self.queues.cqe_capacity - 1);
        // SAFETY: the index is below the capacity; the other end has seen what was there, and does not
        // look again before it is told.
        unsafe { self.queues.cqe.add(index as usize).write(cqe) };
        self.posted = self.posted.wrapping_add(1);
        self.queues.completions_tail.get().store(self.posted, Ordering::Release);
    }

    /// Counts a completion that is lost.
    pub(crate) fn lose(&self) {
        self.queues.completions_lost.get().fetch_add(1, Ordering::AcqRel);
    }

    /// Sets whether completions wait for room.
    pub(crate) fn set_overflow(&self, overflow: bool) {
        let flags = self.queues.entries_flags.get();
        match overflow {
            true => flags.fetch_or(CQ_OVERFLOW, Ordering::AcqRel),
            false => flags.fetch_and(!CQ_OVERFLOW, Ordering::AcqRel),
        };
    }
}

#[cfg(feature = "sim")]
impl Drop for Own {
    fn drop(&mut self) {
        // SAFETY: leaked by `new`, and given back once; whoever has the queues is gone, or goes with this.
        drop(unsafe { Box::from_raw(self.entries) });
        // SAFETY: leaked by `new`, and given back once; whoever has the queues is gone, or goes with this.
        drop(unsafe { Box::from_raw(self.completions) });
        // SAFETY: leaked by `new`, and given back once; whoever has the queues is gone, or goes with this.
        drop(unsafe { Box::from_raw(self.numbers) });
    }
}

#[cfg(test)]
#[cfg(feature = "sim")]
mod tests {
    use super::*;

    #[test]
    fn who_is_about_to_enter_forgets_that_there_is_work_and_nothing_else() {
        let own = Own::new(1, 1);
        let queues = own.queues();
        let flags = queues.entries_flags.get();
        for (set, left) in
            [(0, 0), (TASKRUN, 0), (NEED_WAKEUP | TASKRUN | CQ_OVERFLOW, NEED_WAKEUP | CQ_OVERFLOW)]
        {
            flags.store(set, Ordering::Relaxed);
            assert_eq!(queues.holds_back(), set != 0);
            queues.forget_work();
            assert_eq!(flags.load(Ordering::Relaxed), left);
            assert_eq!(queues.holds_back(), left != 0);
        }
    }
}
