//! What becomes of a ring in a process that is forked off: memory of its own, and no descriptor of the ring.
//!
//! A child must not write to the queues of its parent's rings, so it does not inherit them (`MADV_DONTFORK`).
//! But a submitter that was there before the fork, such as that of the handler that has forked, checks
//! nothing else before it writes. So where the queues were, the child has other memory, all zero, which no
//! kernel reads. The submitter writes to that, and whatever checks which process it is in refuses to go on.
//!
//! Nor must the child enter the ring: it would take in entries in its parent's stead, with addresses that are
//! good in the parent. The kernel forbids that only for rings with `IORING_SETUP_SINGLE_ISSUER` (since 6.0).
//! So where the ring's descriptor was, the child has another one, which can't be entered.
//!
//! `fork(3)` sees to both (`pthread_atfork(3)`). A process that is forked by a system call without it has
//! neither.

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
    /// Locked by the thread that forks, from before the fork until after it, so that the list is whole in the
    /// child.
    static FORKING: RefCell<Option<MutexGuard<'static, Vec<Region>>>> = const { RefCell::new(None) };
}

fn regions() -> MutexGuard<'static, Vec<Region>> {
    // Nothing under the lock can panic half-way.
    REGIONS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many forks lie between this process and the one that made the first ring. It tells without a system
/// call whether something was made before a fork; but a fork without `fork(3)` is not seen.
pub(crate) fn generation() -> u32 {
    GENERATION.load(Ordering::Relaxed)
}

/// Keeps children from inheriting a map of a ring, and the ring.
///
/// # Errors
///
/// If the kernel refuses.
///
/// # Safety
///
/// The `length` bytes at `start` are a map of the caller's, in whole pages, until [`forget`]; and for as
/// long, `ring` is the ring's descriptor.
pub(crate) unsafe fn withhold(start: NonNull<u8>, length: usize, ring: RawFd) -> io::Result<()> {
    static PREPARED: Once = Once::new();
    // SAFETY: these functions may be called at any time, and only forks call them.
    PREPARED.call_once(|| unsafe {
        libc::pthread_atfork(Some(before), Some(in_parent), Some(in_child));
    });
    // SAFETY: the caller promises that this is a map of its own, in whole pages.
    if unsafe { libc::madvise(start.as_ptr().cast(), length, libc::MADV_DONTFORK) } != 0 {
        return Err(io::Error::last_os_error());
    }
    regions().push(Region { start, length, ring });
    Ok(())
}

/// Forgets a map that is about to be unmapped.
pub(crate) fn forget(start: NonNull<u8>) {
    regions().retain(|region| region.start != start);
}

unsafe extern "C" fn before() {
    let guard = regions();
    // A thread that is ending has no such place any more. Its child then gets no memory in the place of the
    // queues, so that whatever it submits is a fault, and no other descriptor.
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

/// Puts another descriptor in the place of this one. As a forked child may do no more, it only makes system
/// calls.
///
/// # Safety
///
/// Whoever uses the number does not mind that it stands for something else.
unsafe fn replace(ring: RawFd) {
    // SAFETY: the caller promises that nobody minds. It is closed first, so that a number is free for the
    // other one.
    unsafe { libc::close(ring) };
    // SAFETY: a plain call.
    let other = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
    if other >= 0 && other != ring {
        // SAFETY: a plain call; nobody has the number now, because there is no other thread.
        unsafe { libc::dup3(other, ring, libc::O_CLOEXEC) };
        // SAFETY: it was just made, and nobody else has it.
        unsafe { libc::close(other) };
    }
}
