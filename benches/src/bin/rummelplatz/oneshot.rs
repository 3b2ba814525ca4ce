//! The echo server with one request at a time for each connection, which has a buffer.

use std::cell::RefCell;
use std::convert::Infallible;
use std::io;
use std::marker::PhantomData;
use std::net::TcpListener;
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use kit::Error;
use kit::echo::{Shape, echoed};
use rummelplatz::request::Target;
use rummelplatz::{
    Completion, CompletionResult, ControlFlow, FixedFile, Request, RingOperation, SubmitError, Submitter,
    request, ring,
};

/// What a connection is known by.
pub(crate) trait Socket: Target + Sized + 'static {
    const IS_DIRECT: bool;

    fn accept(listener: &TcpListener) -> Request<'_>;
    fn accepted(completion: Completion) -> io::Result<Self>;
}

impl Socket for OwnedFd {
    const IS_DIRECT: bool = false;

    fn accept(listener: &TcpListener) -> Request<'_> {
        request::accept(listener)
    }

    fn accepted(completion: Completion) -> io::Result<OwnedFd> {
        completion.into_fd()
    }
}

impl Socket for FixedFile {
    const IS_DIRECT: bool = true;

    fn accept(listener: &TcpListener) -> Request<'_> {
        request::accept_direct(listener)
    }

    fn accepted(completion: Completion) -> io::Result<FixedFile> {
        completion.into_fixed_file()
    }
}

/// Buffers of connections that have ended; new connections reuse them.
type Spare = Rc<RefCell<Vec<Box<[u8]>>>>;

struct Acceptor<S> {
    listener: Option<TcpListener>,
    buffer: usize,
    spare: Spare,
    sockets: PhantomData<S>,
}

struct Connections {
    spare: Spare,
}

#[ring]
struct Server<S: Socket> {
    connections: Connections,
    acceptor: Acceptor<S>,
}

/// A connection, and what it does: it receives while nothing in the buffer waits to be sent.
struct Connection<S> {
    socket: S,
    buffer: Box<[u8]>,
    length: u32,
    sent: u32,
}

impl<S: Socket> Connection<S> {
    #[inline]
    fn request(&mut self) -> Request<'_> {
        match self.sent < self.length {
            true => request::send(&self.socket, &self.buffer[self.sent as usize..self.length as usize]),
            false => request::recv(&self.socket, &mut self.buffer),
        }
    }
}

impl<S: Socket> RingOperation<Server<S>> for Acceptor<S> {
    type RingData = TcpListener;
    type SetupError = SubmitError;
    type TeardownError = Infallible;
    type ControlFlowWarn = Infallible;
    type ControlFlowError = Error;

    fn setup(&mut self, mut submitter: Submitter<'_, Server<S>, Self>) -> Result<(), SubmitError> {
        let Some(listener) = self.listener.take() else { return Ok(()) };
        submitter.submit(listener, |listener| S::accept(listener)).map(drop)
    }

    fn on_completion(
        &mut self,
        completion: Completion,
        listener: TcpListener,
        mut submitter: Submitter<'_, Server<S>, Self>,
    ) -> CompletionResult<Server<S>, Self> {
        let spare = self.spare.borrow_mut().pop();
        let buffer = spare.unwrap_or_else(|| vec![0; self.buffer].into_boxed_slice());
        let accepted = S::accepted(completion).and_then(|socket| {
            let connection = Connection { socket, buffer, length: 0, sent: 0 };
            submitter.to(Server::CONNECTIONS).submit(connection, Connection::request)?;
            submitter.submit(listener, |listener| S::accept(listener))?;
            Ok(())
        });
        match accepted {
            Ok(()) => (ControlFlow::Continue, None),
            Err(error) => (ControlFlow::Error(error.into()), None),
        }
    }
}

impl<S: Socket> RingOperation<Server<S>> for Connections {
    type RingData = Connection<S>;
    type SetupError = Infallible;
    type TeardownError = Infallible;
    type ControlFlowWarn = Infallible;
    type ControlFlowError = SubmitError;

    fn on_completion(
        &mut self,
        completion: Completion,
        mut connection: Connection<S>,
        mut submitter: Submitter<'_, Server<S>, Self>,
    ) -> CompletionResult<Server<S>, Self> {
        let Ok(count) = completion.result() else { return (ControlFlow::Continue, None) };
        if connection.sent < connection.length {
            connection.sent += count;
            if connection.sent == connection.length && echoed(connection.length as usize) {
                return (ControlFlow::Exit, None);
            }
        } else if count == 0 {
            // The end: the connection is closed.
            self.spare.borrow_mut().push(connection.buffer);
            return (ControlFlow::Continue, None);
        } else {
            (connection.length, connection.sent) = (count, 0);
        }
        match submitter.submit(connection, Connection::request) {
            Ok(_) => (ControlFlow::Continue, None),
            Err(error) => (ControlFlow::Error(error), None),
        }
    }
}

/// Serves until everything is over.
pub(crate) fn run<S: Socket>(listener: TcpListener, shape: Shape) -> Result<(), Error> {
    let entries = NonZeroU32::new(shape.entries() as u32).ok_or("no entries")?;
    let spare = Spare::default();
    let connections = Connections { spare: spare.clone() };
    let sockets = PhantomData::<S>;
    let acceptor = Acceptor { listener: Some(listener), buffer: shape.buffer, spare, sockets };
    let places = NonZeroU32::new(shape.conns as u32).ok_or("no connections")?;
    let builder = Server::builder(connections, acceptor).entries(entries);
    let builder = if S::IS_DIRECT { builder.direct_descriptors(places) } else { builder };
    Ok(builder.build()?.run()?)
}
