//! A server of counters on several rings, one in each thread.
//!
//! ```text
//!  acceptor ── client ──▶ counters ◀── client ──▶ clients
//!  a stream of             ▲    ▲                  one receive or send of
//!  connections             │    │                  each client at a time
//!            other rings ──┘    └── the main thread
//! ```
//!
//! Clients send lines, and get a number for each: `INCR key` adds one to a counter, `GET key` reads it, and `TOTAL`
//! adds up all counters. All rings listen at one port, and the kernel chooses a ring for each client. Each counter
//! belongs to one ring. If a client asks for a counter of another ring, its own ring sends the question there as a
//! message, and keeps the client until the answer has come back. A client has one question on its way at a time, so no
//! ring can send messages faster than the others answer them.
//!
//! The server stops gracefully: what was received is answered, which may take other rings. So there are strong handles
//! to all rings, which all clients share, and the last client to go ends the rings. What clients send meanwhile is not
//! received any more, and resets their connections.

#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::error::Error;
use std::fmt::Display;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroUsize;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use clap::Parser;
use nix::sys::socket::{
    self, AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, setsockopt, sockopt,
};
use rummelplatz::{
    Completion, ControlFlow, Request, ResultExt, RingHandle, RingOperation, Stream, SubmitError, Submitter,
    request, ring,
};

use signals::{SignalRead, Signals};

mod signals;

/// The length of the longest line, in bytes.
const LONGEST_LINE: usize = 1 << 12;

/// How long to wait after accepting has failed, usually for lack of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Counts for its clients, on several threads. Stops on SIGINT and SIGTERM.
#[derive(Parser)]
#[command(name = "shards", version)]
struct Arguments {
    /// The address to listen at; with port 0, any port that is free.
    #[arg(default_value = "127.0.0.1:7777")]
    address: SocketAddr,
    /// The number of rings; without this, one for each core.
    #[arg(long)]
    rings: Option<NonZeroUsize>,
    /// How long to wait for a client that sends nothing, or takes nothing.
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 60_000)]
    idle_ms: u64,
}

#[ring(entries = 1024)]
struct Shard {
    acceptor: Acceptor,
    clients: Clients,
    counters: Counters,
}

/// The ring of the main thread, which waits for a signal.
#[ring]
struct Control {
    signals: Signals,
}

// ---- accepting ------------------------------------------------------------------------------------

/// Accepts clients.
#[derive(RingOperation)]
#[ring_operation(
    ring = Shard, data = Listener, warn = io::Error, error = io::Error,
    on_more = on_client, on_final = on_end,
)]
struct Acceptor;

struct Listener {
    socket: TcpListener,
    shared: Arc<Shared>,
}

impl Listener {
    fn accept(&mut self) -> Stream<'_> {
        request::accept_multi(&self.socket).retry_after(PAUSE)
    }
}

/// What all listeners and all clients share.
struct Shared {
    /// Strong handles to all rings.
    rings: Vec<RingHandle<Shard>>,
    idle: Duration,
}

impl Acceptor {
    fn on_client(
        &mut self,
        completion: Completion,
        listener: &mut Listener,
        mut submitter: Submitter<'_, Shard, Self>,
    ) -> Result<(), ControlFlow<io::Error, io::Error>> {
        let client = Client {
            socket: completion.into_fd().or_warn()?.into(),
            shared: Arc::clone(&listener.shared),
            buffer: [0; LONGEST_LINE],
            lines: 0..0,
            answers: Vec::new(),
            missing: 0,
            sum: 0,
        };
        submitter.to(Shard::COUNTERS).post(Message::Client(client.into())).or_end()?;
        Ok(())
    }

    /// The stream has ended for good: the server stops, or this kernel has no multishot accept.
    fn on_end(
        &mut self,
        completion: Completion,
        _: Listener,
        _: Submitter<'_, Shard, Self>,
    ) -> Result<(), ControlFlow<io::Error, io::Error>> {
        if !completion.is_cancelled() {
            completion.result().or_end()?;
        }
        Ok(())
    }
}

// ---- clients --------------------------------------------------------------------------------------

struct Client {
    socket: TcpStream,
    shared: Arc<Shared>,
    buffer: [u8; LONGEST_LINE],
    /// Where in the buffer the lines are that were not looked at.
    lines: Range<usize>,
    /// What is to be sent.
    answers: Vec<u8>,
    /// How many rings have not answered yet, and the sum of what the others have answered.
    missing: usize,
    sum: u64,
}

impl Client {
    fn request(&mut self) -> Request<'_> {
        let request = if self.answers.is_empty() {
            self.buffer.copy_within(self.lines.clone(), 0);
            self.lines = 0..self.lines.len();
            request::recv(&self.socket, &mut self.buffer[self.lines.end..])
        } else {
            request::send(&self.socket, &self.answers)
        };
        request.deadline(self.shared.idle)
    }

    fn next_line(&mut self) -> Option<&[u8]> {
        let rest = &self.buffer[self.lines.clone()];
        let length = rest.iter().position(|byte| *byte == b'\n')?;
        self.lines.start += length + 1;
        Some(&rest[..length])
    }

    fn answer(&mut self, answer: impl Display) {
        self.answers.extend_from_slice(format!("{answer}\n").as_bytes());
    }
}

/// Receives lines, and sends answers.
#[derive(RingOperation)]
#[ring_operation(ring = Shard, data = Box<Client>, warn = io::Error, on_completion)]
struct Clients;

impl Clients {
    fn on_completion(
        &mut self,
        completion: Completion,
        mut client: Box<Client>,
        mut submitter: Submitter<'_, Shard, Self>,
    ) -> io::Result<()> {
        match completion.in_time() {
            Ok(sent) if !client.answers.is_empty() => drop(client.answers.drain(..sent as usize)),
            Ok(0) => return Ok(()), // The client is done: its socket is dropped, which closes it.
            Ok(received) => client.lines.end += received as usize,
            // `Counters` knows whether to go on.
            Err(_) if completion.is_cancelled() && !completion.timed_out() => {}
            Err(error) => return Err(error),
        }
        if client.lines == (0..LONGEST_LINE) && !client.buffer.contains(&b'\n') {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a line is too long"));
        }
        Ok(submitter.to(Shard::COUNTERS).post(Message::Client(client))?)
    }
}

// ---- counting -------------------------------------------------------------------------------------

/// The counters of one ring. What to do next is decided here, for all clients: this operation has only messages, and no
/// requests.
#[derive(Default, RingOperation)]
#[ring_operation(ring = Shard, data = Message, error = SubmitError, on_completion)]
struct Counters {
    /// Which of the rings this is.
    index: usize,
    counts: HashMap<String, u64>,
    /// Clients that wait for other rings, each by a number of its own.
    waiting: HashMap<u64, Box<Client>>,
    last_ticket: u64,
    is_stopping: bool,
}

enum Message {
    /// Of this ring: a client that is new, or has received or sent something.
    Client(Box<Client>),
    /// Of any ring. A weak handle is enough here: the client that waits keeps its ring running.
    Question { question: Question, asker: RingHandle<Shard>, ticket: u64 },
    /// Of any ring.
    Answer { ticket: u64, number: u64 },
    /// Of the main thread.
    Stop,
}

#[derive(Clone)]
enum Question {
    Increment(String),
    Get(String),
    Total,
}

impl Question {
    fn parse(line: &[u8]) -> Option<Question> {
        let mut words = str::from_utf8(line).ok()?.split_ascii_whitespace();
        let question = match (words.next()?, words.next()) {
            ("INCR", Some(key)) => Question::Increment(key.into()),
            ("GET", Some(key)) => Question::Get(key.into()),
            ("TOTAL", None) => Question::Total,
            _ => return None,
        };
        words.next().is_none().then_some(question)
    }

    /// Which of so many rings must be asked.
    fn owners(&self, rings: usize) -> Range<usize> {
        let (Question::Increment(key) | Question::Get(key)) = self else { return 0..rings };
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        let owner = (hasher.finish() % rings as u64) as usize;
        owner..owner + 1
    }
}

impl Counters {
    fn on_completion(
        &mut self,
        _: Completion,
        message: Message,
        mut submitter: Submitter<'_, Shard, Self>,
    ) -> Result<(), SubmitError> {
        match message {
            Message::Client(client) => self.serve(client, submitter)?,
            Message::Question { question, asker, ticket } => {
                let number = self.number(question);
                // It comes back if that ring has failed. Then nobody waits for it any more.
                asker.send(Shard::COUNTERS, Message::Answer { ticket, number }).ok();
            }
            Message::Answer { ticket, number } => {
                if let Some(client) = self.take_answer(ticket, number) {
                    self.serve(client, submitter)?;
                }
            }
            Message::Stop => {
                self.is_stopping = true;
                submitter.to(Shard::ACCEPTOR).cancel_all();
                submitter.to(Shard::CLIENTS).cancel_all(); // This cancels sends as well; they go on.
            }
        }
        Ok(())
    }

    /// Looks at the lines that a client has sent, up to one for which other rings must be asked. After the last line,
    /// sends the answers; and when they are sent, receives more lines.
    fn serve(
        &mut self,
        mut client: Box<Client>,
        mut submitter: Submitter<'_, Shard, Self>,
    ) -> Result<(), SubmitError> {
        while let Some(line) = client.next_line() {
            let Some(question) = Question::parse(line) else {
                client.answer("ERROR: `INCR key`, `GET key` or `TOTAL`");
                continue;
            };
            let owners = question.owners(client.shared.rings.len());
            if owners != (self.index..self.index + 1) {
                self.ask(owners, question, client, submitter.handle());
                return Ok(());
            }
            client.answer(self.number(question));
        }
        if !client.answers.is_empty() || !self.is_stopping {
            submitter.to(Shard::CLIENTS).submit(client, |client| client.request())?;
        }
        Ok(())
    }

    /// Asks some of the rings, of which this may be one.
    fn ask(
        &mut self,
        owners: Range<usize>,
        question: Question,
        mut client: Box<Client>,
        asker: RingHandle<Shard>,
    ) {
        self.last_ticket += 1;
        let ticket = self.last_ticket;
        (client.missing, client.sum) = (owners.len(), 0);
        for ring in &client.shared.rings[owners] {
            let (question, asker) = (question.clone(), asker.clone());
            if ring.send(Shard::COUNTERS, Message::Question { question, asker, ticket }).is_err() {
                return; // That ring has failed. The client is dropped, and this ring will be stopped as well.
            }
        }
        self.waiting.insert(ticket, client);
    }

    /// Returns the client that waits for this answer, if it has all answers now.
    fn take_answer(&mut self, ticket: u64, number: u64) -> Option<Box<Client>> {
        let client = self.waiting.get_mut(&ticket)?;
        client.missing -= 1;
        client.sum += number;
        if client.missing > 0 {
            return None;
        }
        let mut client = self.waiting.remove(&ticket)?;
        client.answer(client.sum);
        Some(client)
    }

    /// The answer of this ring.
    fn number(&mut self, question: Question) -> u64 {
        match question {
            Question::Increment(key) => {
                let count = self.counts.entry(key).or_default();
                *count += 1;
                *count
            }
            Question::Get(key) => self.counts.get(&key).copied().unwrap_or(0),
            Question::Total => self.counts.values().sum(),
        }
    }
}

// ---- the program ----------------------------------------------------------------------------------

type Failure = Box<dyn Error + Send + Sync>;

/// Stops all rings when it is dropped. Each thread has one, with weak handles. If a ring fails, or its thread panics,
/// the others would wait for its answers for ever. When a ring ends in good order, they have nothing left to do.
struct StopAll {
    control: RingHandle<Control>,
    shards: Vec<RingHandle<Shard>>,
}

impl Drop for StopAll {
    fn drop(&mut self) {
        self.control.stop();
        self.shards.iter().for_each(RingHandle::stop);
    }
}

/// Opens a socket that shares its port with others, also with those of another program of the same user.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket::socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    setsockopt(&socket, sockopt::ReusePort, &true)?;
    // The accepted sockets inherit this: no answer waits until the last one is acknowledged.
    setsockopt(&socket, sockopt::TcpNoDelay, &true)?;
    socket::bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    socket::listen(&socket, Backlog::MAXALLOWABLE)?;
    Ok(socket.into())
}

fn build(index: usize) -> Result<Shard, Failure> {
    let counters = Counters { index, ..Counters::default() };
    let builder = Shard::builder(Acceptor, Clients, counters).on_warn(|warning| {
        if warning.operation == Shard::ACCEPTOR.name() {
            report(warning);
        }
    });
    Ok(builder.build()?)
}

/// Runs a ring in a thread of its own.
fn spawn(mut shard: Shard, stop_all: StopAll) -> io::Result<JoinHandle<Result<Shard, Failure>>> {
    thread::Builder::new().name(format!("ring {}", shard.counters.index)).spawn(move || {
        let _stop_all = stop_all;
        shard.run()?;
        Ok(shard)
    })
}

fn serve(arguments: &Arguments) -> Result<(), Failure> {
    let Arguments { mut address, idle_ms, .. } = *arguments;
    // This blocks the signals. The threads inherit that, so they must be made afterwards.
    let signal = SignalRead::new()?;
    let mut control = Control::builder(Signals).build()?;
    control.submitter(Control::SIGNALS).submit(signal, SignalRead::request)?;

    let count = arguments.rings.map_or_else(thread::available_parallelism, Ok)?.get();
    let mut shards = (0..count).map(build).collect::<Result<Vec<_>, _>>()?;
    let rings: Vec<_> = shards.iter_mut().map(|shard| shard.handle()).collect();
    let weak: Vec<_> = rings.iter().map(RingHandle::downgrade).collect();
    let shared = Arc::new(Shared { rings, idle: Duration::from_millis(idle_ms) });
    for shard in &mut shards {
        let socket = listen(address).map_err(|error| format!("can't listen on {address}: {error}"))?;
        address = socket.local_addr()?; // All others get the port that the first one has found.
        let shared = Arc::clone(&shared);
        shard.submitter(Shard::ACCEPTOR).stream(Listener { socket, shared }, Listener::accept)?;
    }
    drop(shared);
    let mut threads = Vec::new();
    for shard in shards {
        let stop_all = StopAll { control: control.handle().downgrade(), shards: weak.clone() };
        threads.push(spawn(shard, stop_all)?);
    }
    writeln!(io::stdout(), "listening on {address}")?;
    control.run()?;

    for ring in weak {
        ring.send(Shard::COUNTERS, Message::Stop).ok(); // It comes back from a ring that has failed.
    }
    let (mut counters, mut in_flight) = (Vec::new(), 0);
    for thread in threads {
        let shard = thread.join().map_err(|_| "a thread has panicked")??;
        counters.push(shard.counters.counts.len());
        in_flight += shard.stats().in_flight;
    }
    report(format_args!("stopped with {counters:?} counters, with {in_flight} requests in flight"));
    Ok(())
}

/// Writes to standard error, and does not fail if nobody reads it.
fn report(message: impl Display) {
    writeln!(io::stderr(), "shards: {message}").ok();
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
