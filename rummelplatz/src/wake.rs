//! How another thread reaches a ring that waits in the kernel: an eventfd that the ring polls.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;

/// Wakes one ring. A cheap clone.
#[derive(Clone, Debug)]
pub(crate) struct Waker {
    eventfd: Arc<File>,
}

impl Waker {
    pub(crate) fn new() -> io::Result<Waker> {
        // SAFETY: a plain call; the result is checked before it is owned.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a descriptor that was just made, and nobody else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Waker { eventfd: Arc::new(fd.into()) })
    }

    /// Makes the ring look around.
    pub(crate) fn wake(&self) {
        // The only failure is a counter that is full (EAGAIN): the ring is awake already.
        (&*self.eventfd).write_all(&1u64.to_ne_bytes()).ok();
    }

    /// Forgets the wake-ups so far.
    pub(crate) fn reset(&self) {
        // The only failure is a counter that is zero (EAGAIN).
        (&*self.eventfd).read_exact(&mut [0; 8]).ok();
    }
}

impl AsRawFd for Waker {
    fn as_raw_fd(&self) -> RawFd {
        self.eventfd.as_raw_fd()
    }
}
