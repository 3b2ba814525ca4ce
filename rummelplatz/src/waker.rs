//! How another thread reaches a ring that waits in the kernel: the ring polls one end of a socket pair,
//! and whoever wakes it writes to the other.
//!
//! An eventfd would do for a ring that waits by itself. But when a ring polls one eventfd and signals another
//! one for its completions, Linux 6.18 reports only the first write: it may not signal an eventfd while it is
//! writing to one, so it puts the signal off, and then believes for ever that it is still put off.

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

/// Wakes one ring. A cheap clone.
#[derive(Clone, Debug)]
pub(crate) struct Waker {
    ends: Arc<Ends>,
}

#[derive(Debug)]
struct Ends {
    ring: UnixStream,
    others: UnixStream,
}

impl Waker {
    pub(crate) fn new() -> io::Result<Waker> {
        let (ring, others) = UnixStream::pair()?;
        ring.set_nonblocking(true)?;
        others.set_nonblocking(true)?;
        Ok(Waker { ends: Arc::new(Ends { ring, others }) })
    }

    /// Makes the ring look around.
    pub(crate) fn wake(&self) {
        // The only failure is a socket that is full (EAGAIN): the ring is awake already.
        (&self.ends.others).write_all(&[1]).ok();
    }

    /// Forgets the wake-ups so far.
    pub(crate) fn reset(&self) {
        let mut bytes = [0; 64];
        // Ends with EAGAIN, when there is no more.
        while (&self.ends.ring).read(&mut bytes).is_ok_and(|read| read == bytes.len()) {}
    }
}

/// The end that the ring polls.
impl AsRawFd for Waker {
    fn as_raw_fd(&self) -> RawFd {
        self.ends.ring.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reset_forgets_all_wake_ups_and_the_next_is_seen() {
        let waker = Waker::new().unwrap();
        let is_readable = || (&waker.ends.ring).read(&mut [0]).is_ok();
        (0..200).for_each(|_| waker.wake());
        waker.reset();
        assert!(!is_readable());
        waker.wake();
        assert!(is_readable());
    }
}
