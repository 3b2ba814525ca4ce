//! A TCP echo server.
//!
//! ```text
//!  acceptor ── socket ──▶ receivers ── chunk ──▶ senders
//!  a stream of            a stream of each       one send of each client
//!  connections            client's bytes         at a time, in order
//! ```
//!
//! Usually nothing is copied: the kernel receives into a buffer of the pool. The same buffer is sent, and then goes back
//! to the pool. If a client sends but does not read, its stream is paused once [`MOST_WAITING`] chunks of it wait, until
//! no more than half as many do. What the kernel has received by then, which may be a hundred more, waits as well. And
//! when the pool runs low, chunks are copied out of it, so that such clients don't starve the others.

#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::error::Error;
use std::fmt::Display;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::ops::Deref;
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use clap::Parser;
use nix::sys::socket::{Backlog, listen, setsockopt, sockopt};
use rummelplatz::{
    Buffer, BufferPool, Completion, ControlFlow, Key, Request, ResultExt, RingOperation, SubmitError,
    Submitter, request, ring,
};

use signals::{SignalRead, Signals};

mod signals;

/// How many chunks of one client may wait behind the one that is being sent.
const MOST_WAITING: usize = 16;

/// How long to wait after accepting has failed, usually for lack of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Sends back to each client what it sends. Stops on SIGINT and SIGTERM.
#[derive(Parser)]
#[command(name = "echo", version)]
struct Arguments {
    /// The address to listen at; with port 0, any port that is free.
    #[arg(default_value = "127.0.0.1:7777")]
    address: SocketAddr,
    /// The number of buffers in the pool, at most 32768.
    #[arg(long, default_value_t = 2048, value_parser = clap::value_parser!(u16).range(1..=32768))]
    buffers: u16,
    /// The size of each buffer, in bytes.
    #[arg(long, default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    buffer_size: u32,
    /// How long to wait for a client that sends nothing.
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 600_000)]
    idle_ms: u64,
    /// Tells of connections that end with an error.
    #[arg(short, long)]
    verbose: bool,
}

#[ring(entries = 1024)]
struct EchoServer {
    signals: Signals,
    acceptor: Acceptor,
    receivers: Receivers,
    senders: Senders,
}

#[cfg(all(test, feature = "sim"))]
#[path = "echo/tests.rs"]
mod tests;

// ---- accepting ------------------------------------------------------------------------------------

/// Accepts connections, and hands them over to [`Receivers`].
#[derive(RingOperation)]
#[ring_operation(
    ring = EchoServer, data = Rc<TcpListener>, warn = String, error = io::Error,
    setup, on_more = on_connection, on_final = on_end,
)]
struct Acceptor {
    listener: Rc<TcpListener>,
    pool: BufferPool,
    idle: Duration,
    accepted: u64,
    /// Accepting has failed, and has not succeeded since.
    failing: bool,
}

impl Acceptor {
    fn bind(arguments: &Arguments) -> io::Result<Acceptor> {
        let listener = TcpListener::bind(arguments.address)?;
        // The accepted sockets inherit these options from the listener. `KeepAlive` finds out in the end that a client
        // has vanished silently; with `TcpNoDelay`, no chunk waits until the last one is acknowledged.
        setsockopt(&listener, sockopt::KeepAlive, &true)?;
        setsockopt(&listener, sockopt::TcpNoDelay, &true)?;
        // So that more clients than std's 128 may come at once.
        listen(&listener, Backlog::MAXALLOWABLE)?;
        let pool = BufferPool::new(arguments.buffers, arguments.buffer_size)?;
        let idle = Duration::from_millis(arguments.idle_ms);
        Ok(Acceptor { listener: listener.into(), pool, idle, accepted: 0, failing: false })
    }

    fn setup(&mut self, mut submitter: Submitter<'_, EchoServer, Self>) -> io::Result<()> {
        submitter.stream(self.listener.clone(), |it| request::accept_multi(it).retry_after(PAUSE))?;
        Ok(())
    }

    fn on_connection(
        &mut self,
        completion: Completion,
        _: &mut Rc<TcpListener>,
        mut submitter: Submitter<'_, EchoServer, Self>,
    ) -> Result<(), ControlFlow<String, io::Error>> {
        let socket = match completion.into_fd() {
            Ok(socket) => socket,
            Err(_) if self.failing => return Ok(()),
            Err(error) => {
                self.failing = true;
                return Err(ControlFlow::Warn(format!("can't accept connections for now: {error}")));
            }
        };
        self.accepted += 1;
        self.failing = false;
        let connection = Connection::new(socket, self.pool.clone(), self.idle);
        connection.receive(submitter.to(EchoServer::RECEIVERS)).or_end()?;
        Ok(())
    }

    /// The stream has ended for good: this kernel has no multishot accept.
    fn on_end(
        &mut self,
        completion: Completion,
        _: Rc<TcpListener>,
        _: Submitter<'_, EchoServer, Self>,
    ) -> Result<(), ControlFlow<String, io::Error>> {
        completion.result().or_end()?;
        Ok(())
    }
}

// ---- connections ----------------------------------------------------------------------------------

/// A client, shared by the stream that receives from it and the send that answers it. When both are over, the
/// connection is dropped, which closes the socket.
struct Connection {
    socket: OwnedFd,
    pool: BufferPool,
    /// How long nothing may come.
    idle: Duration,
    /// Receives from the client, if that is not over.
    stream: Cell<Option<Key<Receivers>>>,
    /// Whether the stream is paused, because too much is waiting.
    is_paused: Cell<bool>,
    /// Whether a send is in flight.
    sending: Cell<bool>,
    /// What was received, and is to be sent after the send in flight.
    waiting: RefCell<VecDeque<Chunk>>,
}

impl Connection {
    fn new(socket: OwnedFd, pool: BufferPool, idle: Duration) -> Rc<Connection> {
        Rc::new(Connection {
            socket,
            pool,
            idle,
            stream: Cell::new(None),
            is_paused: Cell::new(false),
            sending: Cell::new(false),
            waiting: RefCell::default(),
        })
    }

    fn receive(
        self: Rc<Self>,
        mut submitter: Submitter<'_, EchoServer, Receivers>,
    ) -> Result<(), SubmitError> {
        let stream = submitter
            .stream(self.clone(), |it| request::recv_multi(&it.socket, &it.pool).idle_limit(it.idle))?;
        self.stream.set(Some(stream));
        self.is_paused.set(false);
        Ok(())
    }

    /// Receives again, if receiving was paused and only little is waiting now.
    fn go_on(&self, mut submitter: Submitter<'_, EchoServer, Receivers>) {
        let is_little = self.waiting.borrow().len() <= MOST_WAITING / 2;
        if let Some(stream) = self.stream.get()
            && is_little
            && self.is_paused.replace(false)
        {
            submitter.resume(stream);
        }
    }

    /// The client takes nothing any more, so this receives nothing more either.
    fn give_up(&self, mut submitter: Submitter<'_, EchoServer, Receivers>) {
        self.waiting.borrow_mut().clear();
        if let Some(stream) = self.stream.take() {
            submitter.cancel(stream);
        }
    }

    /// What is to be sent next: the chunk that has waited longest, if there is one.
    fn next_answer(self: Rc<Self>) -> Option<Answer> {
        let next = self.waiting.borrow_mut().pop_front();
        self.sending.set(next.is_some());
        next.map(|chunk| Answer { connection: self, chunk, sent: 0 })
    }
}

/// Bytes that were received: where the kernel has put them, or a copy if the pool runs low.
enum Chunk {
    Received(Buffer),
    Copied(Box<[u8]>),
}

impl Chunk {
    fn new(buffer: Buffer, pool: &BufferPool) -> Chunk {
        match pool.available() <= pool.capacity() / 4 {
            true => Chunk::Copied(Box::from(&*buffer)),
            false => Chunk::Received(buffer),
        }
    }
}

impl Deref for Chunk {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Chunk::Received(buffer) => buffer,
            Chunk::Copied(bytes) => bytes,
        }
    }
}

/// Receives from clients.
#[derive(RingOperation)]
#[ring_operation(
    ring = EchoServer, data = Rc<Connection>, warn = io::Error,
    on_more = on_bytes, on_final = on_end,
)]
struct Receivers;

impl Receivers {
    fn on_bytes(
        &mut self,
        completion: Completion,
        connection: &mut Rc<Connection>,
        mut submitter: Submitter<'_, EchoServer, Self>,
    ) -> io::Result<()> {
        // The only error after which a stream goes on: the pool is empty, and the stream waits for a buffer.
        let Ok(buffer) = completion.into_buffer() else { return Ok(()) };
        let chunk = Chunk::new(buffer, &connection.pool);
        if !connection.sending.replace(true) {
            let answer = Answer { connection: connection.clone(), chunk, sent: 0 };
            submitter.to(EchoServer::SENDERS).submit(answer, Answer::request)?;
            return Ok(());
        }
        let mut waiting = connection.waiting.borrow_mut();
        waiting.push_back(chunk);
        if waiting.len() >= MOST_WAITING && !connection.is_paused.replace(true) {
            submitter.pause_stream();
        }
        Ok(())
    }

    /// The stream is over. What is still to be sent keeps the connection alive.
    fn on_end(
        &mut self,
        completion: Completion,
        connection: Rc<Connection>,
        submitter: Submitter<'_, EchoServer, Self>,
    ) -> io::Result<()> {
        let is_given_up = connection.stream.take().is_none();
        match completion.result() {
            // Cancelled by `give_up`, which has reported the reason.
            Err(_) if is_given_up => Ok(()),
            // There was no buffer again and again, though nobody held one.
            Err(_) if completion.is_starved() => Ok(connection.receive(submitter)?),
            // Nothing has come for too long.
            Err(_) if completion.timed_out() => Ok(()),
            result => result.map(drop),
        }
    }
}

/// Sends back to clients what came from them.
#[derive(RingOperation)]
#[ring_operation(
    ring = EchoServer, data = Answer, warn = io::Error,
    on_completion, on_teardown_completion,
)]
struct Senders;

struct Answer {
    connection: Rc<Connection>,
    chunk: Chunk,
    sent: usize,
}

impl Answer {
    fn request(&mut self) -> Request<'_> {
        request::send(&self.connection.socket, &self.chunk[self.sent..])
    }

    /// What is to be sent after `sent` bytes of this chunk: the rest of it, or the next one.
    fn next(mut self, sent: u32) -> Option<Answer> {
        self.sent += sent as usize;
        match self.sent == self.chunk.len() {
            true => self.connection.next_answer(),
            false => Some(self),
        }
    }
}

impl Senders {
    fn on_completion(
        &mut self,
        completion: Completion,
        answer: Answer,
        mut submitter: Submitter<'_, EchoServer, Self>,
    ) -> io::Result<()> {
        let connection = answer.connection.clone();
        match completion.result() {
            Ok(sent) => {
                if let Some(next) = answer.next(sent) {
                    submitter.submit(next, Answer::request)?;
                }
                connection.go_on(submitter.to(EchoServer::RECEIVERS));
                Ok(())
            }
            Err(error) => {
                connection.give_up(submitter.to(EchoServer::RECEIVERS));
                Err(error)
            }
        }
    }

    /// The server stops. What was received is still sent, to clients that take it within the ring's grace period.
    fn on_teardown_completion(
        &mut self,
        completion: Completion,
        answer: Answer,
        mut submitter: Submitter<'_, EchoServer, Self>,
    ) {
        let sent = match completion.result() {
            Ok(sent) => sent,
            Err(_) if completion.is_cancelled() => 0,
            Err(_) => return,
        };
        if let Some(next) = answer.next(sent) {
            // This is refused when the grace period is over.
            submitter.submit(next, Answer::request).ok();
        }
    }
}

// ---- the program ----------------------------------------------------------------------------------

fn serve(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let signal = SignalRead::new()?;
    let acceptor = Acceptor::bind(arguments)
        .map_err(|error| format!("can't listen on {}: {error}", arguments.address))?;
    let address = acceptor.listener.local_addr()?;
    let verbose = arguments.verbose;
    let mut server = EchoServer::builder(Signals, acceptor, Receivers, Senders)
        .on_warn(move |warning| {
            if verbose || warning.operation == EchoServer::ACCEPTOR.name() {
                report(warning);
            }
        })
        .build()?;
    server.submitter(EchoServer::SIGNALS).submit(signal, SignalRead::request)?;
    writeln!(io::stdout(), "listening on {address}")
        .and_then(|()| io::stdout().flush())
        .map_err(|error| format!("can't write to standard output: {error}"))?;
    server.run()?;
    let in_flight = server.stats().in_flight;
    let accepted = server.acceptor.accepted;
    report(format_args!("stopped after {accepted} connections, with {in_flight} requests in flight"));
    Ok(())
}

/// Writes to standard error, and does not fail if nobody reads it.
fn report(message: impl Display) {
    writeln!(io::stderr(), "echo: {message}").ok();
}

fn main() -> ExitCode {
    match serve(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(error);
            ExitCode::FAILURE
        }
    }
}
