//! The contestant `mio`: a loop around epoll, the readiness that io_uring is compared with.

use std::io::{self, ErrorKind, Read, Write};
use std::process::ExitCode;

use kit::Error;
use kit::echo::{self, Server, Shape, echoed};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

const LISTENER: Token = Token(usize::MAX);

/// A connection, and the bytes that could not be sent yet.
struct Connection {
    socket: TcpStream,
    unsent: Vec<u8>,
    /// How many bytes of a message are in `unsent`, or were sent of it.
    length: usize,
}

struct Mio;

impl Server for Mio {
    const NAME: &'static str = "mio";
    const SHAPES: &'static [&'static str] = &["oneshot"];

    fn run(listener: std::net::TcpListener, shape: Shape) -> Result<(), Error> {
        listener.set_nonblocking(true)?;
        let mut listener = TcpListener::from_std(listener);
        let mut poll = Poll::new()?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        let mut events = Events::with_capacity(1024);
        let mut connections: Vec<Option<Connection>> = Vec::with_capacity(shape.conns);
        let mut free = Vec::with_capacity(shape.conns);
        let mut buffer = vec![0; shape.buffer];
        loop {
            match poll.poll(&mut events, None) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
                _ => {}
            }
            for event in &events {
                if event.token() == LISTENER {
                    while let Some(mut socket) = accept(&listener)? {
                        let index = free.pop().unwrap_or_else(|| {
                            connections.push(None);
                            connections.len() - 1
                        });
                        let interest = Interest::READABLE | Interest::WRITABLE;
                        poll.registry().register(&mut socket, Token(index), interest)?;
                        connections[index] = Some(Connection { socket, unsent: Vec::new(), length: 0 });
                    }
                    continue;
                }
                let Token(index) = event.token();
                let Some(connection) = &mut connections[index] else { continue };
                match connection.turn(&mut buffer) {
                    Ok(After::Wait) => {}
                    Ok(After::Over) => return Ok(()),
                    // The connection's end, or an error of its own. Dropping the socket removes it from epoll.
                    Ok(After::End) | Err(_) => {
                        connections[index] = None;
                        free.push(index);
                    }
                }
            }
        }
    }
}

/// A connection, if one is waiting to be accepted.
fn accept(listener: &TcpListener) -> io::Result<Option<TcpStream>> {
    match listener.accept() {
        Ok((socket, _)) => Ok(Some(socket)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

enum After {
    Wait,
    End,
    Over,
}

impl Connection {
    /// Sends what is left, then receives and sends until there is nothing more.
    fn turn(&mut self, buffer: &mut [u8]) -> io::Result<After> {
        if !self.unsent.is_empty() {
            let sent = write(&mut self.socket, &self.unsent)?;
            self.unsent.drain(..sent);
            if !self.unsent.is_empty() {
                return Ok(After::Wait);
            }
            if echoed(self.length) {
                return Ok(After::Over);
            }
        }
        loop {
            let length = match self.socket.read(buffer) {
                Ok(0) => return Ok(After::End),
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(After::Wait),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let sent = write(&mut self.socket, &buffer[..length])?;
            if sent < length {
                self.unsent.extend_from_slice(&buffer[sent..length]);
                self.length = length;
                return Ok(After::Wait);
            }
            if echoed(length) {
                return Ok(After::Over);
            }
            // A short read has emptied the socket: Linux reports what comes later.
            if length < buffer.len() {
                return Ok(After::Wait);
            }
        }
    }
}

/// Sends as much as there is room for.
fn write(socket: &mut TcpStream, mut bytes: &[u8]) -> io::Result<usize> {
    let length = bytes.len();
    while !bytes.is_empty() {
        match socket.write(bytes) {
            Ok(sent) => bytes = &bytes[sent..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length - bytes.len())
}

fn main() -> ExitCode {
    kit::contest(Mio::NAME, &[("echo", echo::alone::<Mio>), ("serve", echo::loaded::<Mio>)])
}
