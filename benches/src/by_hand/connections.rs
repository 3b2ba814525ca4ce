//! What both shapes of the echo server have in common: the listener, and a table of connections.

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, RawFd};
use std::ptr;

use io_uring::squeue::Entry;
use io_uring::{opcode, types};

use super::{Completion, Queue};

/// What a completion is about: in the upper half of `user_data`, above the index of the connection.
pub(super) const ACCEPT: u32 = 0;
pub(super) const RECEIVE: u32 = 1;
pub(super) const SEND: u32 = 2;
pub(super) const CLOSE: u32 = 3;

/// Names a kind of completion of a connection.
#[inline]
pub(super) fn user_data(kind: u32, index: u32) -> u64 {
    u64::from(kind) << 32 | u64::from(index)
}

/// The kind, and the index of the connection.
#[inline]
pub(super) fn take_apart(user_data: u64) -> (u32, u32) {
    ((user_data >> 32) as u32, user_data as u32)
}

/// Connections, each at an index that stays the same until it is closed.
#[derive(Debug)]
pub(super) struct Table<C> {
    connections: Vec<C>,
    free: Vec<u32>,
}

impl<C> Table<C> {
    pub(super) fn new(capacity: usize) -> Table<C> {
        Table { connections: Vec::with_capacity(capacity), free: Vec::with_capacity(capacity) }
    }

    /// Takes a free place, or a new one made by `make`, in which `begin` begins.
    pub(super) fn open(&mut self, make: impl FnOnce() -> C, begin: impl FnOnce(&mut C)) -> u32 {
        let index = self.free.pop().unwrap_or_else(|| {
            self.connections.push(make());
            (self.connections.len() - 1) as u32
        });
        begin(&mut self.connections[index as usize]);
        index
    }

    #[inline]
    pub(super) fn get(&mut self, index: u32) -> &mut C {
        &mut self.connections[index as usize]
    }

    /// Frees the place for another connection.
    pub(super) fn free(&mut self, index: u32) {
        self.free.push(index);
    }

    /// Closes the socket; nothing of this connection is in flight.
    pub(super) fn close(&mut self, index: u32, fd: RawFd, queue: &mut impl Queue) {
        self.free(index);
        let close = opcode::Close::new(types::Fd(fd)).build().user_data(user_data(CLOSE, index));
        // SAFETY: a close points to nothing; the descriptor is ours, and not used again.
        unsafe { queue.push(close) };
    }
}

/// An accept, multishot or not.
pub(super) fn accept(listener: &TcpListener, multishot: bool) -> Entry {
    let fd = types::Fd(listener.as_raw_fd());
    let flags = libc::SOCK_CLOEXEC;
    let entry = match multishot {
        true => opcode::AcceptMulti::new(fd).flags(flags).build(),
        false => opcode::Accept::new(fd, ptr::null_mut(), ptr::null_mut()).flags(flags).build(),
    };
    entry.user_data(user_data(ACCEPT, 0))
}

/// The socket that was accepted, unless its client has already gone.
pub(super) fn accepted(completion: Completion) -> io::Result<Option<RawFd>> {
    match completion.result {
        fd if fd >= 0 => Ok(Some(fd)),
        gone if gone == -libc::ECONNABORTED => Ok(None),
        error => Err(io::Error::from_raw_os_error(-error)),
    }
}

/// A send of what is at `memory`.
#[inline]
pub(super) fn send(fd: RawFd, memory: *const u8, length: u32, index: u32) -> Entry {
    let entry = opcode::Send::new(types::Fd(fd), memory, length).flags(libc::MSG_NOSIGNAL);
    entry.build().user_data(user_data(SEND, index))
}
