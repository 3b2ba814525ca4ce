//! What becomes of the queues in a process that is forked off: memory of its own.
//!
//! A child must not write to the queues of its parent's rings, so it does not inherit them (`MADV_DONTFORK`). But a
//! submitter that was there before the fork, such as that of the handler which has forked, looks at nothing else before
//! it writes. So where the queues were, the child has other memory, all zero, which no kernel reads: then it writes to
//! that, and what asks where it is refuses to go on. `fork(3)` sees to it (`pthread_atfork(3)`); whoever calls the kernel
//! without it has nothing there.

use std::cell::RefCell;
use std::io;
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

/// A piece of memory that children don't inherit.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Region {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: it only says where something is.
unsafe impl Send for Region {}

static REGIONS: Mutex<Vec<Region>> = Mutex::new(Vec::new());

thread_local! {
    /// Locked from before a fork until after it, by the thread that forks: so the list is whole in the child.
    static FORKING: RefCell<Option<MutexGuard<'static, Vec<Region>>>> = const { RefCell::new(None) };
}

fn regions() -> MutexGuard<'static, Vec<Region>> {
    // Nothing under the lock can panic half-way.
    REGIONS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Has children not inherit a map.
///
/// # Errors
///
/// If the kernel refuses.
///
/// # Safety
///
/// It is a map of the caller's, whole pages of so many bytes, until [`forget`].
pub(super) unsafe fn withhold(start: NonNull<u8>, length: usize) -> io::Result<()> {
    static PREPARED: Once = Once::new();
    // SAFETY: these may be called at any time, and only by forks.
    PREPARED.call_once(|| unsafe {
        libc::pthread_atfork(Some(before), Some(in_parent), Some(in_child));
    });
    // SAFETY: the caller's promise.
    if unsafe { libc::madvise(start.as_ptr().cast(), length, libc::MADV_DONTFORK) } != 0 {
        return Err(io::Error::last_os_error());
    }
    regions().push(Region { start, length });
    Ok(())
}

/// The map is about to be no map any more.
pub(super) fn forget(start: NonNull<u8>) {
    regions().retain(|region| region.start != start);
}

unsafe extern "C" fn before() {
    let guard = regions();
    // A thread that is ending has no such place any more; then the list is as whole as it happens to be.
    FORKING.try_with(|forking| forking.replace(Some(guard))).ok();
}

unsafe extern "C" fn in_parent() {
    FORKING.try_with(RefCell::take).ok();
}

unsafe extern "C" fn in_child() {
    let Ok(Some(mut regions)) = FORKING.try_with(RefCell::take) else { return };
    for Region { start, length } in regions.drain(..) {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
        // SAFETY: what was there has not been inherited. If something else is there already, it stays.
        unsafe { libc::mmap(start.as_ptr().cast(), length, protection, flags, -1, 0) };
    }
}
