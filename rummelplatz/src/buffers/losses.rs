//! What a ring does not tell its pools.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

/// How many completions the kernel has lost, for want of memory. It counts one before it posts the next.
pub(crate) struct Losses {
    count: NonNull<AtomicU32>,
    before: u32,
}

// SAFETY: the number is only read, as an atomic, and is there whenever it is (`from_now_on`).
unsafe impl Send for Losses {}
// SAFETY: the number is only read, as an atomic, and is there whenever it is (`from_now_on`).
unsafe impl Sync for Losses {}

impl Losses {
    /// Those that the kernel counts here from now on.
    ///
    /// # Safety
    ///
    /// The number is there now, and whenever [`are_more`](Self::are_more) is called.
    pub(crate) unsafe fn from_now_on(count: NonNull<AtomicU32>) -> Losses {
        // SAFETY: the caller promises that it is there.
        let before = unsafe { count.as_ref() }.load(Ordering::Acquire);
        Losses { count, before }
    }

    /// Whether there were more since this was made. Only while the ring is there.
    pub(super) fn are_more(&self) -> bool {
        // SAFETY: whoever made this promised that the number is there.
        unsafe { self.count.as_ref() }.load(Ordering::Acquire) != self.before
    }

    /// Those of a ring that loses nothing.
    #[cfg(test)]
    pub(crate) fn none() -> Losses {
        static NONE: AtomicU32 = AtomicU32::new(0);
        // SAFETY: it is there for ever.
        unsafe { Losses::from_now_on(NonNull::from(&NONE)) }
    }
}
