//! An eventfd: how a ring reaches an event loop that it is a part of.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Signalled by the kernel while it is registered with a ring; readable from then on until it is reset.
#[derive(Debug)]
pub(crate) struct Eventfd {
    file: File,
}

impl Eventfd {
    pub(crate) fn new() -> io::Result<Eventfd> {
        // SAFETY: a plain call; the result is checked before it is owned.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made, and nobody else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Eventfd { file: fd.into() })
    }

    pub(crate) fn reset(&self) {
        // The only failure is a counter that is zero (EAGAIN).
        (&self.file).read_exact(&mut [0; 8]).ok();
    }
}

impl AsFd for Eventfd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl AsRawFd for Eventfd {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}
