//! The echo server with multishot accept and bundles: one request sends back everything that one completion is about,
//! from the buffers of the pool in which it arrived.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::mem;
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

struct Acceptor {
    listener: Option<TcpListener>,
    pool: BufferPool,
}

struct Receivers;

struct Senders;

#[ring]
struct Server {
    receivers: Receivers,
    senders: Senders,
    acceptor: Acceptor,
}

/// What receiving and sending share.
struct Connection {
    socket: OwnedFd,
    pool: BufferPool,
    /// What waits behind the bytes that are being sent.
    waiting: RefCell<Vec<Buffer>>,
    sending: Cell<bool>,
}

struct Sending {
    connection: Rc<Connection>,
    buffers: Vec<Buffer>,
    sent: usize,
}

impl Sending {
    /// Sends what is left.
    fn request(&mut self) -> Request<'_> {
        let mut sent = self.sent;
        let rest = self.buffers.iter().map(|buffer| {
            let skipped = sent.min(buffer.len());
            sent -= skipped;
            &buffer[skipped..]
        });
        request::send_vectored(&self.connection.socket, rest)
    }

    fn length(&self) -> usize {
        self.buffers.iter().map(|buffer| buffer.len()).sum()
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
            let (waiting, sending) = (RefCell::default(), Cell::new(false));
            let connection = Rc::new(Connection { socket, pool: self.pool.clone(), waiting, sending });
            let mut receivers = submitter.to(Server::RECEIVERS);
            receivers.stream(connection, |it| request::recv_multi_bundle(&it.socket, &it.pool))?;
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
            return (ControlFlow::Continue, None);
        }
        // On an error, the stream waits for a buffer.
        let Ok(buffers) = completion.into_buffers() else { return (ControlFlow::Continue, Some(connection)) };
        connection.waiting.borrow_mut().extend(buffers);
        if connection.sending.replace(true) {
            return (ControlFlow::Continue, Some(connection));
        }
        let buffers = mem::take(&mut *connection.waiting.borrow_mut());
        let sending = Sending { connection: connection.clone(), buffers, sent: 0 };
        match submitter.to(Server::SENDERS).submit(sending, Sending::request) {
            Ok(_) => (ControlFlow::Continue, Some(connection)),
            Err(error) => (ControlFlow::Error(error), None),
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
        if sending.sent == sending.length() {
            let is_over = echoed(mem::take(&mut sending.sent));
            // The connection's memory is kept for the next one.
            sending.buffers.clear();
            mem::swap(&mut sending.buffers, &mut sending.connection.waiting.borrow_mut());
            if sending.buffers.is_empty() {
                sending.connection.sending.set(false);
                return (if is_over { ControlFlow::Exit } else { ControlFlow::Continue }, None);
            }
        }
        match submitter.submit(sending, Sending::request) {
            Ok(_) => (ControlFlow::Continue, None),
            Err(error) => (ControlFlow::Error(error), None),
        }
    }
}

/// Serves until everything is over.
pub(crate) fn run(listener: TcpListener, shape: Shape) -> Result<(), Error> {
    let entries = NonZeroU32::new(shape.entries() as u32).ok_or("no entries")?;
    let pool = BufferPool::new(shape.buffers as u16, shape.buffer as u32)?;
    let acceptor = Acceptor { listener: Some(listener), pool };
    Ok(Server::builder(Receivers, Senders, acceptor).entries(entries).build()?.run()?)
}
