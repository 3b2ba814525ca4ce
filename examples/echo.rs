//! A TCP echo server.
//!
//! ```text
//!  acceptor ── socket ──▶ receivers ── chunk ──▶ senders
//!  a stream of            a stream of each       one send of each client
//!  connections            client's bytes         at a time, in order
//! ```
//!
//! Nothing is copied: the kernel receives into a buffer of the pool, and the same buffer is sent and
//! goes back to the pool. A client that sends but does not read is no longer received from once
//! [`MOST_WAITING`] chunks of it wait; and when the pool runs low, chunks are copied out of it, so that
//! such clients don't starve the others.

#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::error::Error;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroU32;
use std::ops::Deref;
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use clap::Parser;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::SignalFd;
use nix::sys::socket::{setsockopt, sockopt};
use rummelplatz::{
    Buffer, BufferPool, Completion, ControlFlow, Key, Request, ResultExt, RingOperation, SubmitError,
    Submitter, request, ring,
};

/// As many chunks of one client may wait behind the one that is being sent.
const MOST_WAITING: usize = 16;

/// How long nothing is accepted after it has failed, for want of descriptors as a rule.
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

// ---- signals --------------------------------------------------------------------------------------

/// Reads the signal that stops the server.
#[derive(RingOperation)]
#[ring_operation(ring = EchoServer, data = SignalRead, error = io::Error, setup, on_completion)]
struct Signals {
    /// The descriptor, until it is read from.
    descriptor: Option<SignalFd>,
}

struct SignalRead {
    descriptor: SignalFd,
    /// A `struct signalfd_siginfo`.
    info: [u8; 128],
}

impl Signals {
    /// Blocks the signals, so that they are read instead of ending the process.
    fn block() -> io::Result<Signals> {
        let mut signals = SigSet::empty();
        signals.add(Signal::SIGINT);
        signals.add(Signal::SIGTERM);
        signals.thread_block()?;
        Ok(Signals { descriptor: Some(SignalFd::new(&signals)?) })
    }

    fn setup(&mut self, mut submitter: Submitter<'_, EchoServer, Self>) -> io::Result<()> {
        if let Some(descriptor) = self.descriptor.take() {
            let read = SignalRead { descriptor, info: [0; 128] };
            submitter.submit(read, |read| request::read(&read.descriptor, &mut read.info))?;
        }
        Ok(())
    }

    fn on_completion(
        &mut self,
        completion: Completion,
        _: SignalRead,
        _: Submitter<'_, EchoServer, Self>,
    ) -> io::Result<ControlFlow<Infallible, io::Error>> {
        completion.result()?;
        Ok(ControlFlow::Exit)
    }
}

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
    accepted: u64,
    /// Accepting has failed, and not succeeded since.
    failing: bool,
}

impl Acceptor {
    fn bind(arguments: &Arguments) -> io::Result<Acceptor> {
        let listener = TcpListener::bind(arguments.address)?;
        // The sockets that are accepted have these options from the listener. A client that vanished
        // without a word is found out in the end, and no chunk waits for the last one's receipt.
        setsockopt(&listener, sockopt::KeepAlive, &true)?;
        setsockopt(&listener, sockopt::TcpNoDelay, &true)?;
        let pool = BufferPool::new(arguments.buffers, arguments.buffer_size)?;
        Ok(Acceptor { listener: listener.into(), pool, accepted: 0, failing: false })
    }

    fn setup(&mut self, submitter: Submitter<'_, EchoServer, Self>) -> io::Result<()> {
        Ok(Self::listen(self.listener.clone(), submitter)?)
    }

    fn listen(
        listener: Rc<TcpListener>,
        mut submitter: Submitter<'_, EchoServer, Self>,
    ) -> Result<(), SubmitError> {
        submitter.stream(listener, |listener| request::accept_multi(listener))?;
        Ok(())
    }

    fn on_connection(
        &mut self,
        completion: Completion,
        _: &mut Rc<TcpListener>,
        mut submitter: Submitter<'_, EchoServer, Self>,
    ) -> Result<(), ControlFlow<String, io::Error>> {
        let socket = completion.into_fd().or_end()?;
        self.accepted += 1;
        self.failing = false;
        Connection::new(socket, self.pool.clone())
            .receive(submitter.to(EchoServer::RECEIVERS))
            .or_end()
    }

    /// The stream has failed, or the pause after that is over.
    fn on_end(
        &mut self,
        completion: Completion,
        listener: Rc<TcpListener>,
        mut submitter: Submitter<'_, EchoServer, Self>,
    ) -> Result<(), ControlFlow<String, io::Error>> {
        let Err(error) = completion.result() else {
            return Self::listen(listener, submitter).or_end();
        };
        // EINVAL is about us: this kernel has no multishot accept. All else passes.
        if error.kind() == io::ErrorKind::InvalidInput {
            return Err(ControlFlow::Error(error));
        }
        submitter.submit(listener, |_| request::timeout(PAUSE)).or_end()?;
        match std::mem::replace(&mut self.failing, true) {
            true => Ok(()),
            false => Err(ControlFlow::Warn(format!("can't accept connections for now: {error}"))),
        }
    }
}

// ---- connections ----------------------------------------------------------------------------------

/// A client, shared by the stream that receives from it and the send that answers it. When both are
/// over it is dropped, which closes the socket.
struct Connection {
    socket: OwnedFd,
    pool: BufferPool,
    receiving: Cell<Receiving>,
    /// Whether a send is in flight.
    sending: Cell<bool>,
    /// What was received and is to be sent after that.
    waiting: RefCell<VecDeque<Chunk>>,
}

#[derive(Clone, Copy)]
enum Receiving {
    Running(Key<Receivers>),
    /// Too much is waiting; the stream was cancelled, and has not ended yet.
    Stopping,
    /// Goes on when less is waiting.
    Stopped,
    Over,
}

impl Connection {
    fn new(socket: OwnedFd, pool: BufferPool) -> Rc<Connection> {
        Rc::new(Connection {
            socket,
            pool,
            receiving: Cell::new(Receiving::Over),
            sending: Cell::new(false),
            waiting: RefCell::default(),
        })
    }

    fn receive(
        self: Rc<Self>,
        mut submitter: Submitter<'_, EchoServer, Receivers>,
    ) -> Result<(), SubmitError> {
        let stream = submitter.stream(self.clone(), |it| request::recv_multi(&it.socket, &it.pool))?;
        self.receiving.set(Receiving::Running(stream));
        Ok(())
    }

    /// Sends the chunk that has waited longest, if there is one.
    fn send_next(
        self: Rc<Self>,
        mut submitter: Submitter<'_, EchoServer, Senders>,
    ) -> Result<(), SubmitError> {
        let next = self.waiting.borrow_mut().pop_front();
        self.sending.set(next.is_some());
        if let Some(chunk) = next {
            let answer = Answer { connection: self, chunk, sent: 0 };
            submitter.submit(answer, Answer::request)?;
        }
        Ok(())
    }
}

/// Bytes that were received: where the kernel has put them, or copied if the pool runs low.
enum Chunk {
    Received(Buffer),
    Copied(Box<[u8]>),
}

impl Chunk {
    fn new(buffer: Buffer, pool: &BufferPool) -> Chunk {
        match pool.available() < pool.capacity() / 4 {
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
        let buffer = match completion.into_buffer() {
            Ok(buffer) => buffer,
            // The pool is empty: the stream waits, and goes on by itself.
            Err(error) if error.raw_os_error() == Some(ENOBUFS) => return Ok(()),
            Err(error) => return Err(error),
        };
        let chunk = Chunk::new(buffer, &connection.pool);
        connection.waiting.borrow_mut().push_back(chunk);
        if !connection.sending.get() {
            connection.clone().send_next(submitter.to(EchoServer::SENDERS))?;
        } else if let Receiving::Running(stream) = connection.receiving.get()
            && connection.waiting.borrow().len() >= MOST_WAITING
        {
            connection.receiving.set(Receiving::Stopping);
            submitter.cancel(stream);
        }
        Ok(())
    }

    /// The end of the stream. What is still to be sent has its own share of the connection.
    fn on_end(
        &mut self,
        completion: Completion,
        connection: Rc<Connection>,
        submitter: Submitter<'_, EchoServer, Self>,
    ) -> io::Result<()> {
        let stopping = matches!(connection.receiving.replace(Receiving::Over), Receiving::Stopping);
        match completion.result() {
            Err(error) if stopping && error.raw_os_error() == Some(ECANCELED) => {
                connection.receiving.set(Receiving::Stopped);
                connection.go_on(submitter)?
            }
            result => result.map(drop),
        }
    }
}
