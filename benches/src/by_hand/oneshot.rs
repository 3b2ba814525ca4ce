//! The echo server with one request at a time for each connection, which has a buffer.

use std::io;
use std::net::TcpListener;
use std::os::fd::RawFd;

use io_uring::{opcode, types};

use super::connections::{self, ACCEPT, RECEIVE, SEND, Table, accept, accepted, take_apart};
use super::{Completion, Queue, Ring};
use crate::echo::{Shape, echoed};

pub(super) struct Server<'a> {
    listener: &'a TcpListener,
    connections: Table<Connection>,
    buffer: usize,
}

struct Connection {
    fd: RawFd,
    buffer: Box<[u8]>,
    length: u32,
    sent: u32,
}

impl Connection {
    /// Receives into the buffer.
    ///
    /// # Safety
    ///
    /// Nothing of this connection is in flight.
    #[inline]
    unsafe fn receive(&mut self, index: u32, queue: &mut impl Queue) {
        let (memory, length) = (self.buffer.as_mut_ptr(), self.buffer.len() as u32);
        let entry = opcode::Recv::new(types::Fd(self.fd), memory, length).build();
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
        // SAFETY: the buffer is on the heap, stays in the table, and nothing else uses it now.
        unsafe { queue.push(connections::send(self.fd, rest.as_ptr(), rest.len() as u32, index)) };
    }
}

impl<'a> Server<'a> {
    pub(super) fn new(listener: &'a TcpListener, shape: Shape) -> Server<'a> {
        Server { listener, connections: Table::new(shape.conns), buffer: shape.buffer }
    }

    pub(super) fn run<R: Ring>(mut self, ring: &mut R) -> io::Result<()> {
        let first = accept(self.listener, false);
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

    fn accepted(&mut self, completion: Completion, queue: &mut impl Queue) -> io::Result<bool> {
        if let Some(fd) = accepted(completion)? {
            let buffer = self.buffer;
            let make = || Connection { fd, buffer: vec![0; buffer].into(), length: 0, sent: 0 };
            let index = self.connections.open(make, |it| it.fd = fd);
            // SAFETY: the connection is new.
            unsafe { self.connections.get(index).receive(index, queue) };
        }
        // SAFETY: this accept points to nothing; the listener stays open.
        unsafe { queue.push(accept(self.listener, false)) };
        Ok(false)
    }

    #[inline]
    fn received(&mut self, index: u32, completion: Completion, queue: &mut impl Queue) -> bool {
        let connection = self.connections.get(index);
        if completion.result <= 0 {
            let fd = connection.fd;
            self.connections.close(index, fd, queue);
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
        if completion.result < 0 {
            let fd = connection.fd;
            self.connections.close(index, fd, queue);
            return false;
        }
        connection.sent += completion.result as u32;
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
