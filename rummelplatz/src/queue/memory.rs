//! The memory that both ends of the queues share.
//!
//! Each end is looked at when the caller wants to know, and moved when the caller says so.
//!
//! # How the unsafe code stays right
//!
//! * Who makes a [`Queues`] promises that the memory is there, laid out as `io_uring(7)` says, for as long
//!   as it is used; it is kept in one struct with the owner of the memory, and never taken out.
//! * Heads, tails and flags are only used as atomics, and follow the kernel's rules: what is read is
//!   acquired, what is written is released.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering, fence};

use io_uring::squeue;

use super::Cqe;

/// Where the queues are.
#[derive(Clone, Copy)]
pub(crate) struct Queues {
    pub(super) entry: NonNull<squeue::Entry>,
    pub(super) entry_capacity: u32,
    pub(super) cqe: NonNull<Cqe>,
    pub(super) cqe_capacity: u32,
    pub(super) entries_head: Shared,
    pub(super) entries_tail: Shared,
    pub(super) entries_flags: Shared,
    pub(super) completions_head: Shared,
    pub(super) completions_tail: Shared,
}

// SAFETY: they lead into memory that is sent along, and used from one thread at a time or as atomics.
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
        // SAFETY: who made it has promised that it is there.
        unsafe { self.0.as_ref() }
    }
}

/// `IORING_SQ_NEED_WAKEUP`.
const NEED_WAKEUP: u32 = 1;
/// `IORING_SQ_CQ_OVERFLOW`.
pub(crate) const CQ_OVERFLOW: u32 = 1 << 1;
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

    /// Forgets that there is work for this thread to enter for, because it is about to.
    ///
    /// Who adds work from another CPU sets the flag after that: if the work was done in between, the
    /// flag stays for ever, because an enter that finds none does not look at it. The kernel sets it
    /// again for what it leaves undone.
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

    /// Where the completions are, and how many places there are.
    pub(crate) fn completions(&self) -> (NonNull<Cqe>, u32) {
        (self.cqe, self.cqe_capacity)
    }
}
