//! A TCP proxy.
//!
//! ```text
//!  acceptor ── socket ──▶ connector ── two pumps ──▶ pumps
//!  a stream of            a connect to the           one for each direction:
//!  connections            upstream for each          receive, send, receive, …
//! ```
//!
//! A pump has one buffer, and one request at a time: it receives nothing before it has sent what it has received. So a
//! side that sends more than the other side reads is held up, and there is no other queue. When one direction ends, the
//! other goes on; the connection is over when both have ended. A failure of one side is passed on to the other as a
//! reset, so that the other does not take a part for the whole.

#![forbid(unsafe_code)]

use std::cell::Cell;
use std::error::Error;
use std::fmt::Display;
use std::io::{self, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use clap::Parser;
use nix::libc::linger;
use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, setsockopt, sockopt};
use rummelplatz::{
    Completion, ControlFlow, Request, ResultExt, RingOperation, SubmitError, Submitter, request, ring,
};

use signals::{SignalRead, Signals};

mod signals;

/// The size of a pump's buffer, in bytes.
const BUFFER_SIZE: usize = 1 << 14;

/// How long to wait after accepting has failed, usually for lack of descriptors.
const PAUSE: Duration = Duration::from_millis(500);

/// Hands on to UPSTREAM what clients send, and to them what it answers. Stops on SIGINT and SIGTERM.
#[derive(Parser)]
#[command(name = "proxy", version)]
struct Arguments {
    /// The address to listen at; with port 0, any port that is free.
    listen: SocketAddr,
    /// The address to connect to, once for each client.
    upstream: SocketAddr,
    /// How long a connect may take.
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 5000)]
    connect_ms: u64,
    /// Tells of connections that end with an error.
    #[arg(short, long)]
    verbose: bool,
}

#[ring(entries = 1024)]
struct Proxy {
    signals: Signals,
    acceptor: Acceptor,
    connector: Connector,
    pumps: Pumps,
}

#[cfg(all(test, feature = "sim"))]
#[path = "proxy/tests.rs"]
mod tests;

// ---- accepting ------------------------------------------------------------------------------------

/// Accepts clients, and hands them over to [`Connector`].
#[derive(RingOperation)]
#[ring_operation(
    ring = Proxy, data = TcpListener, warn = io::Error, error = io::Error,
    on_more = on_client, on_final = on_end,
)]
struct Acceptor {
    upstream: SocketAddr,
    connect_time: Duration,
}

impl Acceptor {
    fn on_client(
        &mut self,
        completion: Completion,
        _: &mut TcpListener,
        mut submitter: Submitter<'_, Proxy, Self>,
    ) -> Result<(), ControlFlow<io::Error, io::Error>> {
        let client = completion.into_fd().or_warn()?;
        let connect = Connect::new(client.into(), self.upstream, self.connect_time).or_warn()?;
        submitter.to(Proxy::CONNECTOR).submit(connect, Connect::request).or_end()?;
        Ok(())
    }

    /// The stream has ended for good: this kernel has no multishot accept.
    fn on_end(
        &mut self,
        completion: Completion,
        _: TcpListener,
        _: Submitter<'_, Proxy, Self>,
    ) -> Result<(), ControlFlow<io::Error, io::Error>> {
        completion.result().or_end()?;
        Ok(())
    }
}

// ---- connecting -----------------------------------------------------------------------------------

/// Connects to the upstream, and starts the [`Pumps`].
#[derive(RingOperation)]
#[ring_operation(ring = Proxy, data = Connect, warn = io::Error, error = SubmitError, on_completion)]
struct Connector;

struct Connect {
    client: TcpStream,
    upstream: TcpStream,
    address: SocketAddr,
    time: Duration,
}

impl Connect {
    fn new(client: TcpStream, address: SocketAddr, time: Duration) -> io::Result<Connect> {
        let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let upstream = socket::socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?.into();
        Ok(Connect { client, upstream, address, time })
    }

    fn request(&mut self) -> Request<'_> {
        request::connect(&self.upstream, self.address).deadline(self.time)
    }
}

impl Connector {
    fn on_completion(
        &mut self,
        completion: Completion,
        connect: Connect,
        mut submitter: Submitter<'_, Proxy, Self>,
    ) -> Result<(), ControlFlow<io::Error, SubmitError>> {
        completion.in_time().or_warn()?; // The sockets are dropped with the data, which closes them.
        for socket in [&connect.client, &connect.upstream] {
            // No bytes wait until those before are acknowledged, and a peer that has vanished silently is found out.
            setsockopt(socket, sockopt::TcpNoDelay, &true).or_warn()?;
            setsockopt(socket, sockopt::KeepAlive, &true).or_warn()?;
        }
        for pump in Pump::both_ways(connect.client, connect.upstream) {
            submitter.to(Proxy::PUMPS).submit(pump, Pump::request).or_end()?;
        }
        Ok(())
    }
}

// ---- pumping --------------------------------------------------------------------------------------

/// Moves bytes from one socket to another, in both directions of each connection.
#[derive(RingOperation)]
#[ring_operation(ring = Proxy, data = Pump, warn = io::Error, error = SubmitError, on_completion)]
struct Pumps;

/// One direction of a connection. When both directions are over, the sockets are dropped, which closes them.
struct Pump {
    from: Rc<TcpStream>,
    to: Rc<TcpStream>,
    /// Whether one of the two directions has failed.
    has_failed: Rc<Cell<bool>>,
    buffer: Box<[u8]>,
    step: Step,
}

enum Step {
    Receive,
    /// The part of the buffer that is still to be sent.
    Send(Range<usize>),
}

impl Pump {
    fn both_ways(client: TcpStream, upstream: TcpStream) -> [Pump; 2] {
        let (client, upstream, has_failed) = (Rc::new(client), Rc::new(upstream), Rc::default());
        let pump = |from: &Rc<TcpStream>, to: &Rc<TcpStream>| Pump {
            from: from.clone(),
            to: to.clone(),
            has_failed: Rc::clone(&has_failed),
            buffer: vec![0; BUFFER_SIZE].into(),
            step: Step::Receive,
        };
        [pump(&client, &upstream), pump(&upstream, &client)]
    }

    fn request(&mut self) -> Request<'_> {
        match &self.step {
            Step::Receive => request::recv(&self.from, &mut self.buffer),
            Step::Send(rest) => request::send(&self.to, &self.buffer[rest.clone()]),
        }
    }

    /// The pump with its next step, after `done` bytes; `None` if this direction has ended.
    fn next(mut self, done: usize) -> Option<Pump> {
        self.step = match self.step {
            _ if self.has_failed.get() => return None,
            Step::Receive if done == 0 => {
                // This passes the end on to the other side. If that side is gone, the other direction learns it.
                self.to.shutdown(Shutdown::Write).ok();
                return None;
            }
            Step::Receive => Step::Send(0..done),
            Step::Send(rest) if done < rest.len() => Step::Send(rest.start + done..rest.end),
            Step::Send(_) => Step::Receive,
        };
        Some(self)
    }

    /// Ends the other direction, too. Returns whether this is the first failure.
    fn fail(self) -> bool {
        for socket in [&self.from, &self.to] {
            // When the socket is closed, its peer gets a reset rather than an end.
            setsockopt(socket, sockopt::Linger, &linger { l_onoff: 1, l_linger: 0 }).ok();
            // This sends nothing: it wakes whoever waits to receive.
            socket.shutdown(Shutdown::Read).ok();
        }
        !self.has_failed.replace(true)
    }
}

impl Pumps {
    fn on_completion(
        &mut self,
        completion: Completion,
        pump: Pump,
        mut submitter: Submitter<'_, Proxy, Self>,
    ) -> Result<(), ControlFlow<io::Error, SubmitError>> {
        match completion.result() {
            Ok(done) => {
                if let Some(next) = pump.next(done as usize) {
                    submitter.submit(next, Pump::request).or_end()?;
                }
                Ok(())
            }
            Err(error) if pump.fail() => Err(ControlFlow::Warn(error)),
            Err(_) => Ok(()),
        }
    }
}

// ---- the program ----------------------------------------------------------------------------------

fn serve(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let Arguments { listen, upstream, verbose, .. } = *arguments;
    let signal = SignalRead::new()?;
    let listener = TcpListener::bind(listen);
    let listener = listener.map_err(|error| format!("can't listen on {listen}: {error}"))?;
    // So that more clients than std's 128 may come at once.
    socket::listen(&listener, Backlog::MAXALLOWABLE)?;
    let address = listener.local_addr()?;
    let acceptor = Acceptor { upstream, connect_time: Duration::from_millis(arguments.connect_ms) };
    let mut proxy = Proxy::builder(Signals, acceptor, Connector, Pumps)
        .on_warn(move |warning| {
            if verbose || warning.operation == Proxy::ACCEPTOR.name() {
                report(warning);
            }
        })
        .build()?;
    proxy.submitter(Proxy::SIGNALS).submit(signal, SignalRead::request)?;
    proxy.submitter(Proxy::ACCEPTOR).stream(listener, |it| request::accept_multi(it).retry_after(PAUSE))?;
    writeln!(io::stdout(), "listening on {address}")?;
    proxy.run()?;
    report(format_args!("stopped, with {} requests in flight", proxy.stats().in_flight));
    Ok(())
}

/// Writes to standard error, and does not fail if nobody reads it.
fn report(message: impl Display) {
    writeln!(io::stderr(), "proxy: {message}").ok();
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
