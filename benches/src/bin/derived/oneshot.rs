//! The echo server with one request at a time for each connection: the server of the crate's documentation.

use std::io;
use std::net::TcpListener;
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;

use kit::Error;
use kit::echo::{Shape, echoed};
use rummelplatz::{Completion, ControlFlow, Request, RingOperation, Submitter, request, ring};

struct Connection {
    socket: OwnedFd,
    buffer: Vec<u8>,
    received: usize,
}

impl Connection {
    fn request(&mut self) -> Request<'_> {
        match self.received {
            0 => request::recv(&self.socket, &mut self.buffer),
            received => request::send(&self.socket, &self.buffer[..received]).whole(),
        }
    }
}

#[derive(RingOperation)]
#[ring_operation(ring = Server, data = TcpListener, error = Error, on_completion)]
struct Acceptor {
    buffer: usize,
}

#[derive(RingOperation)]
#[ring_operation(ring = Server, data = Box<Connection>, warn = io::Error, on_completion)]
struct Connections;

#[ring]
struct Server {
    acceptor: Acceptor,
    connections: Connections,
}

impl Acceptor {
    fn on_completion(
        &mut self,
        completion: Completion,
        listener: TcpListener,
        mut submitter: Submitter<'_, Server, Self>,
    ) -> Result<(), Error> {
        let socket = completion.into_fd()?;
        submitter.submit(listener, |listener| request::accept(listener))?;
        let connection = Box::new(Connection { socket, buffer: vec![0; self.buffer], received: 0 });
        submitter.to(Server::CONNECTIONS).submit(connection, |it| it.request())?;
        Ok(())
    }
}

impl Connections {
    fn on_completion(
        &mut self,
        completion: Completion,
        mut connection: Box<Connection>,
        mut submitter: Submitter<'_, Server, Self>,
    ) -> io::Result<ControlFlow> {
        let bytes = completion.result()? as usize;
        if connection.received == 0 && bytes == 0 {
            return Ok(ControlFlow::Continue);
        }
        if connection.received > 0 && echoed(bytes) {
            return Ok(ControlFlow::Exit);
        }
        connection.received = if connection.received == 0 { bytes } else { 0 };
        submitter.submit(connection, |it| it.request())?;
        Ok(ControlFlow::Continue)
    }
}

/// Serves until everything is over.
pub(crate) fn run(listener: TcpListener, shape: Shape) -> Result<(), Error> {
    let entries = NonZeroU32::new(shape.entries() as u32).ok_or("no entries")?;
    let acceptor = Acceptor { buffer: shape.buffer };
    let mut server = Server::builder(acceptor, Connections).entries(entries).build()?;
    server.submitter(Server::ACCEPTOR).submit(listener, |listener| request::accept(listener))?;
    Ok(server.run()?)
}
