//! Threads, by number.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that names this thread, for ever; never 0. (`std::thread::current` allocates in threads that it did
/// not make, and valgrind reports that as a leak.)
pub(crate) fn this_thread() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    thread_local!(static NAME: u64 = NEXT.fetch_add(1, Ordering::Relaxed));
    NAME.with(|name| *name)
}
