//! The echo server with one request at a time for each connection, which has a buffer.

use std::io;
use std::marker::PhantomData;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, RawFd};
use std::ptr;

use io_uring::squeue::Entry;
use io_uring::{cqueue, opcode, types};

use super::connections::{self, ACCEPT, CLOSE, RECEIVE, SEND, Table, accept, accepted, take_apart};
use super::{Completion, Queue, Ring};
use crate::echo::{Shape, echoed};

/// `IORING_RECVSEND_POLL_FIRST`.
const RECVSEND_POLL_FIRST: u16 = 1;

/// Places in the table of files.
const FILES: u32 = 4096;

/// How requests are made. Options that are off cost nothing: they are decided at compile time.
pub(super) trait Variant {
    /// Receives wait for something to arrive before they try.
    const POLL_FIRST: bool = false;
    /// Sends leave the bytes where they are until the network has taken them.
    const ZERO_COPY: bool = false;
    /// Sockets have a place in the ring's table of files, and no descriptor.
    const FIXED_FILES: bool = false;
}

/// The usual way.
pub(super) struct Plain;
pub(super) struct PollFirst;
pub(super) struct ZeroCopy;
pub(super) struct FixedFiles;

impl Variant for Plain {}
impl Variant for PollFirst {
    const POLL_FIRST: bool = true;
}
impl Variant for ZeroCopy {
    const ZERO_COPY: bool = true;
}
impl Variant for FixedFiles {
    const FIXED_FILES: bool = true;
}

pub(super) struct Server<'a, V> {
    listener: &'a TcpListener,
    connections: Table<Connection<V>>,
    buffer: usize,
}

struct Connection<V> {
    /// A descriptor, or a place in the table of files.
    fd: RawFd,
    buffer: Box<[u8]>,
    length: u32,
    sent: u32,
    variant: PhantomData<V>,
}

impl<V: Variant> Connection<V> {
    /// Receives into the buffer.
    ///
    /// # Safety
    ///
    /// Nothing of this connection is in flight.
    #[inline]
    unsafe fn receive(&mut self, index: u32, queue: &mut impl Queue) {
        let (memory, length) = (self.buffer.as_mut_ptr(), self.buffer.len() as u32);
        let receive = match V::FIXED_FILES {
            true => opcode::Recv::new(types::Fixed(self.fd as u32), memory, length),
            false => opcode::Recv::new(types::Fd(self.fd), memory, length),
        };
        let entry = receive.ioprio(if V::POLL_FIRST { RECVSEND_POLL_FIRST } else { 0 }).build();
        let user_data = connections::user_data(RECEIVE, index);
        // SAFETY: the buffer is on the heap, stays in the table, and nothing else uses it now.
        unsafe { queue.push(entry.user_data(user_data)) };
    }

    /// Sends what is left in the buffer.
    ///
    /// # Safety
    ///
    /// Nothing of this connection is in flight.
    #[inline]
    unsafe fn send(&mut self, index: u32, queue: &mut impl Queue) {
        let rest = &self.buffer[self.sent as usize..self.length as usize];
        let (memory, length) = (rest.as_ptr(), rest.len() as u32);
        let entry = match (V::ZERO_COPY, V::FIXED_FILES) {
            (true, _) => {
                let send = opcode::SendZc::new(types::Fd(self.fd), memory, length).flags(libc::MSG_NOSIGNAL);
                send.build().user_data(connections::user_data(SEND, index))
            }
            (_, true) => {
                let send = opcode::Send::new(types::Fixed(self.fd as u32), memory, length);
                send.flags(libc::MSG_NOSIGNAL).build().user_data(connections::user_data(SEND, index))
            }
            _ => connections::send(self.fd, memory, length, index),
        };
        // SAFETY: the buffer is on the heap, stays in the table, and nothing else uses it now.
        unsafe { queue.push(entry) };
    }
}

impl<'a, V: Variant> Server<'a, V> {
    pub(super) fn new(listener: &'a TcpListener, shape: Shape) -> Server<'a, V> {
        Server { listener, connections: Table::new(shape.conns), buffer: shape.buffer }
    }

    pub(super) fn run<R: Ring>(mut self, ring: &mut R) -> io::Result<()> {
        if V::FIXED_FILES {
            ring.submitter().register_files_sparse(FILES)?;
        }
        let first = self.accept();
        let complete =
            |queue: &mut R::Queue<'_>, completion: Completion| match take_apart(completion.user_data) {
                (RECEIVE, index) => Ok(self.received(index, completion, queue)),
                (SEND, index) => Ok(self.sent(index, completion, queue)),
                (ACCEPT, _) => self.accepted(completion, queue),
                _ => Ok(false),
            };
        // SAFETY: an accept points to nothing; the listener stays open.
        unsafe { ring.run([first], complete) }
    }

    fn accept(&self) -> Entry {
        if !V::FIXED_FILES {
            return accept(self.listener, false);
        }
        let fd = types::Fd(self.listener.as_raw_fd());
        let accept = opcode::Accept::new(fd, ptr::null_mut(), ptr::null_mut());
        let accept = accept.file_index(Some(types::DestinationSlot::auto_target()));
        accept.build().user_data(connections::user_data(ACCEPT, 0))
    }

    #[inline(always)]
    fn close(&mut self, index: u32, queue: &mut impl Queue) {
        let fd = self.connections.get(index).fd;
        if !V::FIXED_FILES {
            return self.connections.close(index, fd, queue);
        }
        self.connections.free(index);
        let close = opcode::Close::new(types::Fixed(fd as u32)).build();
        // SAFETY: a close points to nothing; the place is ours, and not used again.
        unsafe { queue.push(close.user_data(connections::user_data(CLOSE, index))) };
    }

    fn accepted(&mut self, completion: Completion, queue: &mut impl Queue) -> io::Result<bool> {
        if let Some(fd) = accepted(completion)? {
            let buffer = self.buffer;
            let make = || {
                let (buffer, variant) = (vec![0; buffer].into(), PhantomData);
                Connection { fd, buffer, length: 0, sent: 0, variant }
            };
            let index = self.connections.open(make, |it| it.fd = fd);
            // SAFETY: the connection is new.
            unsafe { self.connections.get(index).receive(index, queue) };
        }
        // SAFETY: this accept points to nothing; the listener stays open.
        unsafe { queue.push(self.accept()) };
        Ok(false)
    }

    #[inline]
    fn received(&mut self, index: u32, completion: Completion, queue: &mut impl Queue) -> bool {
        let connection = self.connections.get(index);
        if completion.result <= 0 {
            self.close(index, queue);
            return false;
        }
        connection.length = completion.result as u32;
        connection.sent = 0;
        // SAFETY: the only request of this connection has just completed.
        unsafe { connection.send(index, queue) };
        false
    }

    #[inline]
    fn sent(&mut self, index: u32, completion: Completion, queue: &mut impl Queue) -> bool {
        let connection = self.connections.get(index);
        if V::ZERO_COPY && cqueue::notif(completion.flags) {
            // Now the buffer is ours again.
            match connection.sent < connection.length {
                // SAFETY: the only request of this connection has just ended.
                true => unsafe { connection.send(index, queue) },
                // SAFETY: as above.
                false => unsafe { connection.receive(index, queue) },
            }
            return false;
        }
        if completion.result < 0 {
            self.close(index, queue);
            return false;
        }
        connection.sent += completion.result as u32;
        if V::ZERO_COPY {
            return connection.sent == connection.length && echoed(connection.length as usize);
        }
        if connection.sent < connection.length {
            // SAFETY: the only request of this connection has just completed.
            unsafe { connection.send(index, queue) };
            return false;
        }
        // SAFETY: as above.
        unsafe { connection.receive(index, queue) };
        echoed(connection.length as usize)
    }
}
