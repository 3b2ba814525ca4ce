//! The server: each client has one buffer, and one request at a time.
//!
//! A client that asks but does not read is not listened to any more, because its answers are sent first. So nothing
//! grows, whatever clients do.

use std::error::Error;
use std::io::{self, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use nix::sys::socket::{self, Backlog, setsockopt, sockopt};
use rummelplatz::{Completion, ControlFlow, Request, ResultExt, RingOperation, Submitter, request, ring};

use crate::canvas::Canvas;
use crate::protocol::Command;
use crate::signals::{SignalRead, Signals};
use crate::{ServeArguments, report};

/// How long to wait after accepting has failed, usually for lack of descriptors.
const PAUSE: Duration = Duration::from_millis(500);

/// How many bytes a client may send before the server looks at them, and so how long a line may be.
pub(crate) const BUFFER_SIZE: usize = 1 << 15;

#[ring(entries = 1024)]
pub(crate) struct Server {
    signals: Signals,
    acceptor: Acceptor,
    pub(crate) clients: Clients,
}

// ---- accepting ------------------------------------------------------------------------------------

/// Accepts clients, and begins to receive from them.
#[derive(RingOperation)]
#[ring_operation(
    ring = Server, data = TcpListener, warn = io::Error, error = io::Error,
    on_more = on_client, on_final = on_end,
)]
pub(crate) struct Acceptor;

impl Acceptor {
    fn on_client(
        &mut self,
        completion: Completion,
        _: &mut TcpListener,
        mut submitter: Submitter<'_, Server, Self>,
    ) -> Result<(), ControlFlow<io::Error, io::Error>> {
        let client = Client::new(completion.into_fd().or_warn()?.into());
        submitter.to(Server::CLIENTS).submit(client, |client| client.request()).or_end()?;
        Ok(())
    }

    /// The stream has ended for good: this kernel has no multishot accept.
    fn on_end(
        &mut self,
        completion: Completion,
        _: TcpListener,
        _: Submitter<'_, Server, Self>,
    ) -> Result<(), ControlFlow<io::Error, io::Error>> {
        completion.result().or_end()?;
        Ok(())
    }
}

// ---- clients --------------------------------------------------------------------------------------

/// Receives commands and sends answers. The canvas belongs to all clients, so it is here.
#[derive(RingOperation)]
#[ring_operation(ring = Server, data = Box<Client>, warn = io::Error, error = io::Error, on_completion)]
pub(crate) struct Clients {
    pub(crate) canvas: Canvas,
}

pub(crate) struct Client {
    socket: TcpStream,
    offset: (u32, u32),
    buffer: Box<[u8]>,
    /// How much of the buffer has been received and is the beginning of a line.
    filled: usize,
    answers: Vec<u8>,
    sent: usize,
}

impl Client {
    pub(crate) fn new(socket: TcpStream) -> Box<Client> {
        let (buffer, answers) = (vec![0; BUFFER_SIZE].into(), Vec::new());
        Box::new(Client { socket, offset: (0, 0), buffer, filled: 0, answers, sent: 0 })
    }

    pub(crate) fn request(&mut self) -> Request<'_> {
        match self.sent < self.answers.len() {
            true => request::send(&self.socket, &self.answers[self.sent..]),
            false => request::recv(&self.socket, &mut self.buffer[self.filled..]),
        }
    }

    /// Goes on after this many bytes were sent or received. Returns whether there is more to do.
    fn go_on(&mut self, moved: usize, canvas: &mut Canvas) -> io::Result<bool> {
        if self.sent < self.answers.len() {
            self.sent += moved;
            return Ok(true);
        }
        self.answers.clear();
        self.sent = 0;
        self.filled += moved;
        self.obey(canvas)?;
        Ok(moved > 0)
    }

    /// Obeys all whole lines, and keeps the rest.
    fn obey(&mut self, canvas: &mut Canvas) -> io::Result<()> {
        let received = &self.buffer[..self.filled];
        let whole = received.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        for line in received[..whole].split_inclusive(|byte| *byte == b'\n') {
            let Some(command) = Command::parse(line) else {
                let line = line.trim_ascii().escape_ascii();
                return Err(io::Error::new(io::ErrorKind::InvalidData, format!("not a command: {line}")));
            };
            command.obey(canvas, &mut self.offset, &mut self.answers);
        }
        self.buffer.copy_within(whole..self.filled, 0);
        self.filled -= whole;
        match self.filled < self.buffer.len() {
            true => Ok(()),
            false => Err(io::Error::new(io::ErrorKind::InvalidData, "a line without end")),
        }
    }
}

impl Clients {
    fn on_completion(
        &mut self,
        completion: Completion,
        mut client: Box<Client>,
        mut submitter: Submitter<'_, Server, Self>,
    ) -> Result<(), ControlFlow<io::Error, io::Error>> {
        let moved = completion.result().or_warn()? as usize;
        if client.go_on(moved, &mut self.canvas).or_warn()? {
            submitter.submit(client, |client| client.request()).or_end()?;
        }
        Ok(()) // A client that has gone is dropped, which closes its socket.
    }
}

// ---- the program ----------------------------------------------------------------------------------

pub(crate) fn serve(arguments: &ServeArguments) -> Result<(), Box<dyn Error>> {
    let ServeArguments { address, width, height, verbose, .. } = *arguments;
    let signal = SignalRead::new()?;
    let listener = TcpListener::bind(address);
    let listener = listener.map_err(|error| format!("can't listen on {address}: {error}"))?;
    // The accepted sockets inherit this. It finds out in the end that a client has vanished silently.
    setsockopt(&listener, sockopt::KeepAlive, &true)?;
    // So that more clients than std's 128 may come at once.
    socket::listen(&listener, Backlog::MAXALLOWABLE)?;
    let address = listener.local_addr()?;
    let clients = Clients { canvas: Canvas::new(width, height) };
    let mut server = Server::builder(Signals, Acceptor, clients)
        .on_warn(move |warning| {
            if verbose || warning.operation == Server::ACCEPTOR.name() {
                report(warning);
            }
        })
        .build()?;
    server.submitter(Server::SIGNALS).submit(signal, SignalRead::request)?;
    server.submitter(Server::ACCEPTOR).stream(listener, |it| request::accept_multi(it).retry_after(PAUSE))?;
    writeln!(io::stdout(), "listening on {address}")?;
    server.run()?;
    if let Some(path) = &arguments.image {
        let written = server.clients.canvas.write(path);
        written.map_err(|error| format!("can't write {}: {error}", path.display()))?;
    }
    report(format_args!("stopped, with {} requests in flight", server.stats().in_flight));
    Ok(())
}
