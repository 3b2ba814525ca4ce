//! What becomes of a ring in a process that is forked off: memory of its own, and no descriptor.
//!
//! A child must not write to the queues of its parent's rings, so it does not inherit them (`MADV_DONTFORK`). But a
//! submitter that was there before the fork, such as that of the handler which has forked, looks at nothing else before
//! it writes. So where the queues were, the child has other memory, all zero, which no kernel reads: then it writes to
//! that, and what asks where it is refuses to go on.
//!
//! Nor must it enter the ring, whose entries it would take in its parent's stead, with addresses that are good in the
//! parent: the kernel forbids that only for rings with `IORING_SETUP_SINGLE_ISSUER` (since 6.0). So where the ring's
//! descriptor was, the child has another, which can't be entered.
//!
//! `fork(3)` sees to both (`pthread_atfork(3)`). Whoever calls the kernel without it has neither.

use std::cell::RefCell;
use std::io;
use std::os::fd::RawFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

/// A piece of memory of a ring, which children don't inherit.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Region {
    start: NonNull<u8>,
    length: usize,
    ring: RawFd,
}

// SAFETY: it only says where something is.
unsafe impl Send for Region {}

static REGIONS: Mutex<Vec<Region>> = Mutex::new(Vec::new());

/// See [`generation`].
static GENERATION: AtomicU32 = AtomicU32::new(0);

thread_local! {
    /// Locked from before a fork until after it, by the thread that forks: so the list is whole in the child.
    static FORKING: RefCell<Option<MutexGuard<'static, Vec<Region>>>> = const { RefCell::new(None) };
}

fn regions() -> MutexGuard<'static, Vec<Region>> {
    // Nothing under the lock can panic half-way.
    REGIONS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many forks lie between this process and the one that has made the first ring. It takes no call of the kernel to
/// see by that whether something was made before a fork; but one without `fork(3)` is not seen.
pub(crate) fn generation() -> u32 {
    GENERATION.load(Ordering::Relaxed)
}

/// Has children not inherit a map of a ring, nor the ring.
///
/// # Errors
///
/// If the kernel refuses.
///
/// # Safety
///
/// It is a map of the caller's, whole pages of so many bytes, until [`forget`]; and so long, `ring` is the ring's
/// descriptor.
pub(super) unsafe fn withhold(start: NonNull<u8>, length: usize, ring: RawFd) -> io::Result<()> {
    static PREPARED: Once = Once::new();
    // SAFETY: these may be called at any time, and only by forks.
    PREPARED.call_once(|| unsafe {
        libc::pthread_atfork(Some(before), Some(in_parent), Some(in_child));
    });
    // SAFETY: the caller's promise.
    if unsafe { libc::madvise(start.as_ptr().cast(), length, libc::MADV_DONTFORK) } != 0 {
        return Err(io::Error::last_os_error());
    }
    regions().push(Region { start, length, ring });
    Ok(())
}

/// The map is about to be no map any more.
pub(super) fn forget(start: NonNull<u8>) {
    regions().retain(|region| region.start != start);
}

unsafe extern "C" fn before() {
    let guard = regions();
    // A thread that is ending has no such place any more. Then its child gets neither memory in the place of the queues,
    // where whatever it submits is a fault, nor another descriptor.
    FORKING.try_with(|forking| forking.replace(Some(guard))).ok();
}

unsafe extern "C" fn in_parent() {
    FORKING.try_with(RefCell::take).ok();
}

unsafe extern "C" fn in_child() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
    let Ok(Some(mut regions)) = FORKING.try_with(RefCell::take) else { return };
    for Region { start, length, ring } in regions.drain(..) {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
        // SAFETY: what was there has not been inherited. If something else is there already, it stays.
        unsafe { libc::mmap(start.as_ptr().cast(), length, protection, flags, -1, 0) };
        // SAFETY: the number is the ring's, as whoever has withheld it has promised.
        unsafe { replace(ring) };
    }
}

/// Has another descriptor be where this one is. As a forked child may, it only calls the kernel.
///
/// # Safety
///
/// Whoever uses the number does not mind.
unsafe fn replace(ring: RawFd) {
    // SAFETY: the caller's promise. Before there is another: so there is a number for that.
    unsafe { libc::close(ring) };
    // SAFETY: a plain call.
    let other = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
    if other >= 0 && other != ring {
        // SAFETY: a plain call; nobody has the number now, because there is no other thread.
        unsafe { libc::dup3(other, ring, libc::O_CLOEXEC) };
        // SAFETY: it was just made.
        unsafe { libc::close(other) };
    }
}
