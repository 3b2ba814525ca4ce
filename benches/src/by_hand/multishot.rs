//! The echo server with multishot accept and receive: what is received is sent back from the provided buffer in which
//! it arrived.

use std::collections::VecDeque;
use std::io;
use std::net::TcpListener;
use std::os::fd::RawFd;

use io_uring::{cqueue, opcode, types};

use super::connections::{self, ACCEPT, RECEIVE, SEND, Table, accept, accepted, take_apart};
use super::{Buffers, Completion, Queue, Ring};
use crate::echo::{Shape, echoed};

/// With `BUNDLES`, one completion may be about several buffers. Buffers that are neighbours in memory are sent as one.
pub(super) struct Server<'a, const BUNDLES: bool> {
    listener: &'a TcpListener,
    connections: Table<Connection>,
    buffers: Buffers,
    /// For each buffer that is not with the kernel, its place in the queue of its connection.
    chunks: Vec<Chunk>,
    /// With bundles: the buffers that the kernel has, in the order in which it takes them.
    order: VecDeque<u16>,
    /// Connections that don't receive because there was no buffer.
    starved: Vec<u32>,
}

/// What was received in one buffer, or in several that are neighbours; the first buffer identifies it.
#[derive(Clone, Copy)]
struct Chunk {
    length: u32,
    /// How many buffers; used only with bundles.
    count: u16,
    /// The next buffer of the connection, if this is not the last.
    next: u16,
}

struct Connection {
    fd: RawFd,
    receiving: bool,
    /// How many buffers wait to be sent, including the one that is being sent.
    waiting: u16,
    first: u16,
    last: u16,
    /// How much of the first buffer has been sent.
    sent: u32,
}

impl<'a, const BUNDLES: bool> Server<'a, BUNDLES> {
    pub(super) fn new(listener: &'a TcpListener, shape: Shape, buffers: Buffers) -> Server<'a, BUNDLES> {
        Server {
            listener,
            connections: Table::new(shape.conns),
            buffers,
            chunks: vec![Chunk { length: 0, count: 1, next: 0 }; shape.buffers],
            order: (0..shape.buffers as u16).collect(),
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
        let fd = types::Fd(connection.fd);
        let entry = match BUNDLES {
            true => opcode::RecvMultiBundle::new(fd, 0).build(),
            false => opcode::RecvMulti::new(fd, 0).build(),
        };
        let user_data = connections::user_data(RECEIVE, index);
        // SAFETY: a receive into provided buffers points to nothing; they are registered.
        unsafe { queue.push(entry.user_data(user_data)) };
    }

    #[inline]
    fn received(&mut self, index: u32, completion: Completion, queue: &mut impl Queue) -> bool {
        if let Some(buffer) = cqueue::buffer_select(completion.flags) {
            let length = completion.result.max(0) as u32;
            match BUNDLES {
                true => self.bundle(index, length, queue),
                false => self.chunk(index, buffer, length, queue),
            }
        }
        if !cqueue::more(completion.flags) {
            self.stream_ended(index, completion.result, queue);
        }
        false
    }

    /// Appends what is in a buffer to what waits to be sent.
    #[inline]
    fn chunk(&mut self, index: u32, buffer: u16, length: u32, queue: &mut impl Queue) {
        let connection = self.connections.get(index);
        self.chunks[usize::from(buffer)].length = length;
        connection.waiting += 1;
        if connection.waiting == 1 {
            connection.first = buffer;
            self.send(index, queue);
        } else {
            self.chunks[usize::from(connection.last)].next = buffer;
        }
        self.connections.get(index).last = buffer;
    }

    /// Appends what is in all buffers of a bundle: the next ones that the kernel had.
    fn bundle(&mut self, index: u32, mut length: u32, queue: &mut impl Queue) {
        let size = self.buffers.size() as u32;
        while length > 0 {
            let Some(buffer) = self.order.pop_front() else { return };
            let mut count = 1;
            while u32::from(count) * size < length && self.order.front() == Some(&(buffer + count)) {
                self.order.pop_front();
                count += 1;
            }
            let part = length.min(u32::from(count) * size);
            length -= part;
            self.chunks[usize::from(buffer)].count = count;
            self.chunk(index, buffer, part, queue);
        }
    }

    /// Gives a chunk's buffers back.
    #[inline]
    fn give(&mut self, buffer: u16) {
        if !BUNDLES {
            return self.buffers.give(buffer);
        }
        for buffer in buffer..buffer + self.chunks[usize::from(buffer)].count {
            self.buffers.give(buffer);
            self.order.push_back(buffer);
        }
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
        let Chunk { length, next, .. } = self.chunks[usize::from(connection.first)];
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
        self.give(buffer);
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

    /// The client takes nothing any more: drops what is meant for it. The stream ends with an error, too.
    #[cold]
    fn give_up(&mut self, index: u32, queue: &mut impl Queue) {
        let connection = self.connections.get(index);
        connection.sent = 0;
        let mut buffer = connection.first;
        for _ in 0..std::mem::take(&mut connection.waiting) {
            self.give(buffer);
            buffer = self.chunks[usize::from(buffer)].next;
        }
        self.close_if_done(index, queue);
    }
}
