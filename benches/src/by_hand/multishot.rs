//! The echo server with multishot accept and receive: what is received is sent back from the provided
//! buffer that it came in.

use std::io;
use std::net::TcpListener;
use std::os::fd::RawFd;

use io_uring::{cqueue, opcode, types};

use super::connections::{self, ACCEPT, RECEIVE, SEND, Table, accept, accepted, take_apart};
use super::{Buffers, Completion, Queue, Ring};
use crate::echo::{Shape, echoed};

pub(super) struct Server<'a> {
    listener: &'a TcpListener,
    connections: Table<Connection>,
    buffers: Buffers,
    /// For each buffer that is not with the kernel, its place in the queue of its connection.
    chunks: Vec<Chunk>,
    /// Connections that don't receive because there was no buffer.
    starved: Vec<u32>,
}

/// What was received in one buffer.
#[derive(Clone, Copy)]
struct Chunk {
    length: u32,
    /// The next buffer of the connection, if this is not the last.
    next: u16,
}

struct Connection {
    fd: RawFd,
    receiving: bool,
    /// How many buffers wait to be sent, with the one that is being sent.
    waiting: u16,
    first: u16,
    last: u16,
    /// How much of the first has been sent.
    sent: u32,
}

impl<'a> Server<'a> {
    pub(super) fn new(listener: &'a TcpListener, shape: Shape, buffers: Buffers) -> Server<'a> {
        Server {
            listener,
            connections: Table::new(shape.conns),
            buffers,
            chunks: vec![Chunk { length: 0, next: 0 }; shape.buffers],
            starved: Vec::with_capacity(shape.conns),
        }
    }

    pub(super) fn run<R: Ring>(mut self, ring: &mut R) -> io::Result<()> {
        let first = accept(self.listener, true);
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
            let new = || Connection { fd, receiving: false, waiting: 0, first: 0, last: 0, sent: 0 };
            let index = self.connections.open(new, |it| *it = new());
            self.receive(index, queue);
        }
        if !cqueue::more(completion.flags) {
            // SAFETY: this accept points to nothing; the listener stays open.
            unsafe { queue.push(accept(self.listener, true)) };
        }
        Ok(false)
    }

    /// Begins to receive.
    fn receive(&mut self, index: u32, queue: &mut impl Queue) {
        let connection = self.connections.get(index);
        connection.receiving = true;
        let entry = opcode::RecvMulti::new(types::Fd(connection.fd), 0).build();
        let user_data = connections::user_data(RECEIVE, index);
        // SAFETY: a receive into provided buffers points to nothing; they are registered.
        unsafe { queue.push(entry.user_data(user_data)) };
    }

    #[inline]
    fn received(&mut self, index: u32, completion: Completion, queue: &mut impl Queue) -> bool {
        let connection = self.connections.get(index);
        if let Some(buffer) = cqueue::buffer_select(completion.flags) {
            self.chunks[usize::from(buffer)].length = completion.result.max(0) as u32;
            connection.waiting += 1;
            if connection.waiting == 1 {
                connection.first = buffer;
                self.send(index, queue);
            } else {
                self.chunks[usize::from(connection.last)].next = buffer;
            }
            self.connections.get(index).last = buffer;
        }
        if !cqueue::more(completion.flags) {
            self.stream_ended(index, completion.result, queue);
        }
        false
    }

    /// The stream has ended: at the end of the file, with an error, or only for now.
    #[cold]
    fn stream_ended(&mut self, index: u32, result: i32, queue: &mut impl Queue) {
        match result {
            1.. => self.receive(index, queue),
            result if result == -libc::ENOBUFS => self.starved.push(index),
            _ => {
                self.connections.get(index).receiving = false;
                self.close_if_done(index, queue);
            }
        }
    }

    /// Closes a connection that neither receives nor sends.
    fn close_if_done(&mut self, index: u32, queue: &mut impl Queue) {
        let Connection { fd, receiving, waiting, .. } = *self.connections.get(index);
        if !receiving && waiting == 0 {
            self.connections.close(index, fd, queue);
        }
    }

    /// Sends what is left of the connection's first buffer.
    #[inline]
    fn send(&mut self, index: u32, queue: &mut impl Queue) {
        let Connection { fd, first, sent, .. } = *self.connections.get(index);
        let memory = self.buffers.at(first).wrapping_add(sent as usize);
        let length = self.chunks[usize::from(first)].length - sent;
        // SAFETY: the kernel has filled this part of the buffer, which is given back only when all of
        // it was sent.
        unsafe { queue.push(connections::send(fd, memory, length, index)) };
    }

    #[inline]
    fn sent(&mut self, index: u32, completion: Completion, queue: &mut impl Queue) -> bool {
        let connection = self.connections.get(index);
        let Chunk { length, next } = self.chunks[usize::from(connection.first)];
        if completion.result < 0 {
            self.give_up(index, queue);
            return false;
        }
        connection.sent += completion.result as u32;
        if connection.sent < length {
            self.send(index, queue);
            return false;
        }
        let buffer = connection.first;
        connection.sent = 0;
        connection.first = next;
        connection.waiting -= 1;
        let (more, receiving) = (connection.waiting > 0, connection.receiving);
        self.buffers.give(buffer);
        if more {
            self.send(index, queue);
        } else if !receiving {
            self.close_if_done(index, queue);
        }
        if let Some(index) = self.starved.pop() {
            self.receive(index, queue);
        }
        echoed(length as usize)
    }

    /// The client takes nothing any more: drops what is for it. The stream ends with an error, too.
    #[cold]
    fn give_up(&mut self, index: u32, queue: &mut impl Queue) {
        let connection = self.connections.get(index);
        connection.sent = 0;
        for _ in 0..std::mem::take(&mut connection.waiting) {
            self.buffers.give(connection.first);
            connection.first = self.chunks[usize::from(connection.first)].next;
        }
        self.close_if_done(index, queue);
    }
}
