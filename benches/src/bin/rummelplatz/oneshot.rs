//! The echo server with one request at a time for each connection, which has a buffer.

use std::cell::RefCell;
use std::convert::Infallible;
use std::io;
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

/// Connections that have ended; new ones reuse their memory.
type Spare<S> = Rc<RefCell<Vec<Box<Connection<S>>>>>;

struct Acceptor<S> {
    listener: Option<TcpListener>,
    buffer: usize,
    spare: Spare<S>,
}

struct Connections<S> {
    spare: Spare<S>,
}

#[ring]
struct Server<S: Socket> {
    connections: Connections<S>,
    acceptor: Acceptor<S>,
}

/// A connection, in a box that its requests move, and what it does: it receives while nothing in the buffer waits to be
/// sent.
struct Connection<S> {
    /// Until the connection has ended.
    socket: Option<S>,
    buffer: Box<[u8]>,
    length: u32,
    sent: u32,
}

impl<S: Socket> Connection<S> {
    #[inline]
    fn request(&mut self) -> Request<'_> {
        let Some(socket) = &self.socket else { unreachable!("no request is made once it has ended") };
        match self.sent < self.length {
            true => request::send(socket, &self.buffer[self.sent as usize..self.length as usize]),
            false => request::recv(socket, &mut self.buffer),
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
        let mut connection = spare.unwrap_or_else(|| {
            let buffer = vec![0; self.buffer].into_boxed_slice();
            Box::new(Connection { socket: None, buffer, length: 0, sent: 0 })
        });
        let accepted = S::accepted(completion).and_then(|socket| {
            connection.socket = Some(socket);
            submitter.to(Server::CONNECTIONS).submit(connection, |it| it.request())?;
            submitter.submit(listener, |listener| S::accept(listener))?;
            Ok(())
        });
        match accepted {
            Ok(()) => (ControlFlow::Continue, None),
            Err(error) => (ControlFlow::Error(error.into()), None),
        }
    }
}

impl<S: Socket> RingOperation<Server<S>> for Connections<S> {
    type RingData = Box<Connection<S>>;
    type SetupError = Infallible;
    type TeardownError = Infallible;
    type ControlFlowWarn = Infallible;
    type ControlFlowError = SubmitError;

    fn on_completion(
        &mut self,
        completion: Completion,
        mut connection: Box<Connection<S>>,
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
            connection.socket = None;
            self.spare.borrow_mut().push(connection);
            return (ControlFlow::Continue, None);
        } else {
            (connection.length, connection.sent) = (count, 0);
        }
        match submitter.submit(connection, |it| it.request()) {
            Ok(_) => (ControlFlow::Continue, None),
            Err(error) => (ControlFlow::Error(error), None),
        }
    }
}

/// Serves until everything is over.
pub(crate) fn run<S: Socket>(listener: TcpListener, shape: Shape) -> Result<(), Error> {
    let entries = NonZeroU32::new(shape.entries() as u32).ok_or("no entries")?;
    let spare = Spare::<S>::default();
    let connections = Connections { spare: spare.clone() };
    let acceptor = Acceptor { listener: Some(listener), buffer: shape.buffer, spare };
    let places = NonZeroU32::new(shape.conns as u32).ok_or("no connections")?;
    let builder = Server::builder(connections, acceptor).entries(entries);
    let builder = if S::IS_DIRECT { builder.direct_descriptors(places) } else { builder };
    Ok(builder.build()?.run()?)
}
