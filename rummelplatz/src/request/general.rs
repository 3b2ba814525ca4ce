//! Requests on anything that has a descriptor, or on nothing.

use std::ops::BitOr;
use std::os::fd::OwnedFd;

use io_uring::opcode;

use super::entry::{bare, fd};
use super::sqe::Usual;
use super::{Parts, Request, Stream, Target};
use crate::facts::Yields;
use crate::fixed::FixedFile;

/// Does nothing, and completes (`IORING_OP_NOP`, since 5.1).
#[inline]
pub fn nop<'d>() -> Request<'d> {
    Parts::usual(bare(opcode::Nop::CODE.into(), -1)).request()
}

/// Closes a descriptor (`IORING_OP_CLOSE`, since 5.6).
///
/// From here on, the request's slot owns the descriptor. It is closed exactly once: by the kernel, or by the slot if
/// the request is cancelled before the kernel begins, or if the kernel refuses, as it does for the descriptor of an
/// io_uring (`EBADF`). Errors of `close(2)` are reported as `close(2)` does; the descriptor is closed even then.
pub fn close<'d>(descriptor: OwnedFd) -> Request<'d> {
    Parts::closing(bare(opcode::Close::CODE.into(), fd(&descriptor)), descriptor).request()
}

/// Makes a descriptor of the process for a file or a socket of the ring's table (`IORING_OP_FIXED_FD_INSTALL`, since
/// 6.8), for system calls that need one.
///
/// The descriptor comes out of [`into_fd`](crate::Completion::into_fd), close-on-exec. The file stays in the table, and
/// is closed when both are gone.
#[doc(alias = "fixed_fd_install")]
pub fn install<'d>(file: &'d FixedFile) -> Request<'d> {
    let entry = bare(opcode::FixedFdInstall::CODE.into(), -1);
    Parts::usual_on(file, entry).yielding(Yields::Descriptor).request()
}

/// What to wait for, and what has happened, in [`poll`] and [`poll_multi`] (`poll(2)`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Events(u32);

impl Events {
    /// There is something to read, or to accept (`POLLIN`).
    pub const READABLE: Events = Events(libc::POLLIN as u32);
    /// Writing would not block (`POLLOUT`).
    pub const WRITABLE: Events = Events(libc::POLLOUT as u32);
    /// Something out of the ordinary, such as urgent data (`POLLPRI`).
    pub const PRIORITY: Events = Events(libc::POLLPRI as u32);
    /// The peer will write no more (`POLLRDHUP`).
    pub const READ_CLOSED: Events = Events(libc::POLLRDHUP as u32);
    /// Hung up; always reported (`POLLHUP`). Does not end a [`poll_multi`].
    pub const HANG_UP: Events = Events(libc::POLLHUP as u32);
    /// An error is pending; always reported (`POLLERR`).
    pub const ERROR: Events = Events(libc::POLLERR as u32);

    /// The events in the result of a poll.
    pub const fn from_result(result: u32) -> Events {
        Events(result)
    }

    /// The `POLL*` bits.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Whether all events of `other` are in here.
    pub const fn contains(self, other: Events) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for Events {
    type Output = Events;
    fn bitor(self, other: Events) -> Events {
        Events(self.0 | other.0)
    }
}

/// Waits until one of `events` happens (`IORING_OP_POLL_ADD`, since 5.1). The result is what
/// [`Events::from_result`] takes.
#[doc(alias = "poll_add")]
pub fn poll<'d>(descriptor: &'d impl Target, events: Events) -> Request<'d> {
    polling(descriptor, events, 0).request()
}

/// Tells of `events` whenever they happen, until it is cancelled (`IORING_POLL_ADD_MULTI`, since 5.13). It is
/// edge-triggered: it tells of changes.
///
/// A file that is always ready, such as a regular file, is reported again and again, for as long as the handler gives
/// the data back.
#[doc(alias = "poll_multishot")]
pub fn poll_multi<'d>(descriptor: &'d impl Target, events: Events) -> Stream<'d> {
    const IORING_POLL_ADD_MULTI: u32 = 1;
    polling(descriptor, events, IORING_POLL_ADD_MULTI).stream()
}

fn polling(descriptor: &impl Target, Events(events): Events, length: u32) -> Parts<'_> {
    // Two halves of a word; the first has the events that have always existed.
    let op_flags = if cfg!(target_endian = "big") { events.rotate_left(16) } else { events };
    let entry = bare(opcode::PollAdd::CODE.into(), -1);
    Parts::usual_on(descriptor, Usual { length, op_flags, ..entry }).yielding(Yields::Events)
}
