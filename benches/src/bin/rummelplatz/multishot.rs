//! The echo server with multishot accept and receive: what is received is sent back from the buffer of the pool in
//! which it arrived.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::TcpListener;
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use kit::Error;
use kit::echo::{Shape, echoed};
use rummelplatz::{
    Buffer, BufferPool, Completion, CompletionResult, ControlFlow, Request, RingOperation, SubmitError,
    Submitter, request, ring,
};

/// Connections that have ended; new ones reuse their memory.
type Spare = Rc<RefCell<Vec<Rc<Connection>>>>;

struct Acceptor {
    listener: Option<TcpListener>,
    pool: BufferPool,
    spare: Spare,
}

struct Receivers {
    spare: Spare,
}

struct Senders;

#[ring]
struct Server {
    receivers: Receivers,
    senders: Senders,
    acceptor: Acceptor,
}

/// What receiving and sending share.
struct Connection {
    /// The socket, until the connection has ended.
    socket: Option<OwnedFd>,
    pool: BufferPool,
    /// What waits behind the bytes that are being sent.
    waiting: RefCell<VecDeque<Buffer>>,
    sending: Cell<bool>,
}

impl Connection {
    #[inline]
    fn socket(&self) -> &OwnedFd {
        let Some(socket) = &self.socket else { unreachable!("no request is made once it has ended") };
        socket
    }

    /// Closes the connection, unless something is still being sent: in that case it ends after that send.
    fn end(mut self: Rc<Self>, spare: &Spare) {
        if let Some(connection) = Rc::get_mut(&mut self) {
            connection.socket = None;
            spare.borrow_mut().push(self);
        }
    }
}

struct Sending {
    connection: Rc<Connection>,
    buffer: Buffer,
    sent: usize,
}

impl Sending {
    #[inline]
    fn request(&mut self) -> Request<'_> {
        request::send(self.connection.socket(), &self.buffer[self.sent..])
    }
}

impl RingOperation<Server> for Acceptor {
    type RingData = TcpListener;
    type SetupError = SubmitError;
    type TeardownError = Infallible;
    type ControlFlowWarn = Infallible;
    type ControlFlowError = Error;

    fn setup(&mut self, mut submitter: Submitter<'_, Server, Self>) -> Result<(), SubmitError> {
        let Some(listener) = self.listener.take() else { return Ok(()) };
        submitter.stream(listener, |listener| request::accept_multi(listener)).map(drop)
    }

    fn on_completion(
        &mut self,
        completion: Completion,
        listener: TcpListener,
        mut submitter: Submitter<'_, Server, Self>,
    ) -> CompletionResult<Server, Self> {
        let accepted = completion.into_fd().and_then(|socket| {
            let mut connection = self.spare.borrow_mut().pop().unwrap_or_else(|| {
                let (waiting, sending) = (RefCell::default(), Cell::new(false));
                Rc::new(Connection { socket: None, pool: self.pool.clone(), waiting, sending })
            });
            if let Some(connection) = Rc::get_mut(&mut connection) {
                connection.socket = Some(socket);
            }
            let mut receivers = submitter.to(Server::RECEIVERS);
            receivers.stream(connection, |it| request::recv_multi(it.socket(), &it.pool))?;
            Ok(())
        });
        match accepted {
            Ok(()) => (ControlFlow::Continue, Some(listener)),
            Err(error) => (ControlFlow::Error(error.into()), None),
        }
    }
}

impl RingOperation<Server> for Receivers {
    type RingData = Rc<Connection>;
    type SetupError = Infallible;
    type TeardownError = Infallible;
    type ControlFlowWarn = Infallible;
    type ControlFlowError = SubmitError;

    fn on_completion(
        &mut self,
        completion: Completion,
        connection: Rc<Connection>,
        mut submitter: Submitter<'_, Server, Self>,
    ) -> CompletionResult<Server, Self> {
        if !completion.more() {
            connection.end(&self.spare);
            return (ControlFlow::Continue, None);
        }
        // An error is that there is no buffer just now: the stream waits for one.
        let Ok(buffer) = completion.into_buffer() else { return (ControlFlow::Continue, Some(connection)) };
        if connection.sending.replace(true) {
            connection.waiting.borrow_mut().push_back(buffer);
            return (ControlFlow::Continue, Some(connection));
        }
        let sending = Sending { connection: connection.clone(), buffer, sent: 0 };
        match submitter.to(Server::SENDERS).submit(sending, Sending::request) {
            Ok(_) => (ControlFlow::Continue, Some(connection)),
            Err(error) => (ControlFlow::Error(error), Some(connection)),
        }
    }
}

impl RingOperation<Server> for Senders {
    type RingData = Sending;
    type SetupError = Infallible;
    type TeardownError = Infallible;
    type ControlFlowWarn = Infallible;
    type ControlFlowError = SubmitError;

    fn on_completion(
        &mut self,
        completion: Completion,
        mut sending: Sending,
        mut submitter: Submitter<'_, Server, Self>,
    ) -> CompletionResult<Server, Self> {
        // If the client takes nothing any more, receiving ends with an error, too.
        let Ok(count) = completion.result() else { return (ControlFlow::Continue, None) };
        sending.sent += count as usize;
        if sending.sent == sending.buffer.len() {
            let next = sending.connection.waiting.borrow_mut().pop_front();
            let is_over = echoed(sending.sent);
            match next {
                Some(buffer) => (sending.buffer, sending.sent) = (buffer, 0),
                None => {
                    sending.connection.sending.set(false);
                    let flow = if is_over { ControlFlow::Exit } else { ControlFlow::Continue };
                    return (flow, None);
                }
            }
        }
        match submitter.submit(sending, Sending::request) {
            Ok(_) => (ControlFlow::Continue, None),
            Err(error) => (ControlFlow::Error(error), None),
        }
    }
}

/// Serves until everything is over.
pub(crate) fn run(listener: TcpListener, shape: Shape, pool: BufferPool) -> Result<(), Error> {
    let entries = NonZeroU32::new(shape.entries() as u32).ok_or("no entries")?;
    let spare = Spare::default();
    let receivers = Receivers { spare: spare.clone() };
    let acceptor = Acceptor { listener: Some(listener), pool, spare };
    Ok(Server::builder(receivers, Senders, acceptor).entries(entries).build()?.run()?)
}
