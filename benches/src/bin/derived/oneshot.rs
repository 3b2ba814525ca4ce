//! The echo server with one request at a time for each connection: an operation that receives, and one that sends.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::num::NonZeroU32;

use kit::Error;
use kit::echo::{Shape, echoed};
use rummelplatz::{Completion, ControlFlow, Request, RingOperation, Submitter, request, ring};

struct Connection {
    socket: TcpStream,
    buffer: Box<[u8]>,
    length: usize,
    sent: usize,
}

impl Connection {
    fn receive(&mut self) -> Request<'_> {
        request::recv(&self.socket, &mut self.buffer)
    }

    fn send(&mut self) -> Request<'_> {
        request::send(&self.socket, &self.buffer[self.sent..self.length])
    }
}

#[derive(RingOperation)]
#[ring_operation(ring = Server, data = TcpListener, error = Error, on_completion)]
struct Acceptor {
    buffer: usize,
}

#[derive(RingOperation)]
#[ring_operation(ring = Server, data = Connection, error = io::Error, on_completion)]
struct Receiver;

#[derive(RingOperation)]
#[ring_operation(ring = Server, data = Connection, error = io::Error, on_completion)]
struct Sender;

#[ring]
struct Server {
    acceptor: Acceptor,
    receiver: Receiver,
    sender: Sender,
}

impl Acceptor {
    fn on_completion(
        &mut self,
        completion: Completion,
        listener: TcpListener,
        mut submitter: Submitter<'_, Server, Self>,
    ) -> Result<(), Error> {
        let socket = completion.into_fd()?.into();
        submitter.submit(listener, |listener| request::accept(listener))?;
        let connection = Connection { socket, buffer: vec![0; self.buffer].into(), length: 0, sent: 0 };
        submitter.to(Server::RECEIVER).submit(connection, Connection::receive)?;
        Ok(())
    }
}

impl Receiver {
    fn on_completion(
        &mut self,
        completion: Completion,
        mut connection: Connection,
        mut submitter: Submitter<'_, Server, Self>,
    ) -> io::Result<()> {
        // At the end of the stream, or after an error, the connection is closed.
        let Ok(length @ 1..) = completion.result() else { return Ok(()) };
        (connection.length, connection.sent) = (length as usize, 0);
        submitter.to(Server::SENDER).submit(connection, Connection::send)?;
        Ok(())
    }
}

impl Sender {
    fn on_completion(
        &mut self,
        completion: Completion,
        mut connection: Connection,
        mut submitter: Submitter<'_, Server, Self>,
    ) -> io::Result<ControlFlow> {
        let Ok(sent) = completion.result() else { return Ok(ControlFlow::Continue) };
        connection.sent += sent as usize;
        if connection.sent < connection.length {
            submitter.submit(connection, Connection::send)?;
        } else if echoed(connection.length) {
            return Ok(ControlFlow::Exit);
        } else {
            submitter.to(Server::RECEIVER).submit(connection, Connection::receive)?;
        }
        Ok(ControlFlow::Continue)
    }
}

/// Serves until everything is over.
pub(crate) fn run(listener: TcpListener, shape: Shape) -> Result<(), Error> {
    let entries = NonZeroU32::new(shape.entries() as u32).ok_or("no entries")?;
    let acceptor = Acceptor { buffer: shape.buffer };
    let mut server = Server::builder(acceptor, Receiver, Sender).entries(entries).build()?;
    server.submitter(Server::ACCEPTOR).submit(listener, |listener| request::accept(listener))?;
    Ok(server.run()?)
}
