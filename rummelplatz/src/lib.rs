//! A Rust framework for programs built around io_uring, without an async runtime. It is about as fast as a loop written
//! by hand (`docs/performance.md` has the figures), and the compiler checks memory safety.
//!
//! A struct with [`#[ring]`](macro@ring) is a ring. Each of its fields is an operation: one kind of work, with the
//! state that all its requests share ([`RingOperation`]). Each request is submitted with data of its own
//! ([`RingData`](RingOperation::RingData)). The ring keeps that data in a slot until the kernel is done, and then hands
//! it back with the [`Completion`].
//!
//! ```
//! use rummelplatz::{Completion, RingOperation, Submitter, request, ring};
//! use std::{error::Error, fs::File, io};
//!
//! #[ring]
//! struct Reader { head: Head }
//!
//! #[derive(RingOperation)]
//! #[ring_operation(ring = Reader, data = Block, error = io::Error, setup, on_completion)]
//! struct Head { file: Option<File>, text: String }
//!
//! struct Block { file: File, bytes: Box<[u8]> }
//!
//! impl Head {
//!     fn setup(&mut self, mut submitter: Submitter<'_, Reader, Self>) -> io::Result<()> {
//!         let Some(file) = self.file.take() else { return Ok(()) };
//!         let block = Block { file, bytes: vec![0; 512].into() };
//!         // The closure can only borrow from the block in its slot: nothing else compiles.
//!         submitter.submit(block, |block| request::read_at(&block.file, &mut block.bytes, 0))?;
//!         Ok(())
//!     }
//!
//!     fn on_completion(
//!         &mut self,
//!         completion: Completion,
//!         block: Block,
//!         _: Submitter<'_, Reader, Self>,
//!     ) -> io::Result<()> {
//!         let length = completion.result()? as usize;
//!         self.text = String::from_utf8_lossy(&block.bytes[..length]).into_owned();
//!         Ok(())
//!     }
//! }
//!
//! fn main() -> Result<(), Box<dyn Error>> {
//!     let head = Head { file: Some(File::open("/proc/version")?), text: String::new() };
//!     let mut reader = Reader::builder(head).build()?;
//!     reader.run()?; // ends when nothing is in flight
//!     assert!(reader.head.text.starts_with("Linux"));
//!     Ok(())
//! }
//! ```
//!
//! # Where to begin
//!
//! 1. The program above: one operation and one request.
//! 2. The [server](#a-server) below: two operations, and a state machine for each connection.
//! 3. The programs in `examples/`. Read `proxy.rs` first: it is a TCP proxy that accepts, connects with a time limit,
//!    receives and sends, and waits for peers that do not read. An error of one peer ends only that peer's connection.
//!    `echo.rs` is a server that receives bytes and sends them back, with one [`BufferPool`] for all clients.
//!    `shards.rs` is a server on many rings. `pixelflut` is a server that parses lines, and a client that loads it.
//!    `cp.rs` copies a file, `wal.rs` makes lines safe on disk, `basic.rs` is a timer.
//!
//! # Where to look
//!
//! | for | see |
//! |---|---|
//! | what can be asked of the kernel | the module [`request`] |
//! | multishot requests | [`Submitter::stream`] |
//! | a peer that sends faster than something else takes it (back-pressure) | [`Submitter::pause_stream`], [`Submitter::resume`]; `examples/echo.rs` |
//! | linked requests; a time limit for one | [`Submitter::chain`]; [`Request::deadline`] |
//! | what is done once for many completions | [Batches](#batches) |
//! | operations that talk to each other | [`Submitter::to`], [`Submitter::post`]; for state that several need, give each an `Rc` or `Arc` of it |
//! | other threads; many cores | [`RingHandle`]; [Many rings](#many-rings) |
//! | what must not keep the ring running, such as waiting for a signal | [`Submitter::submit_in_background`] |
//! | stopping on a signal | a `signalfd` that is read, as in `examples/signals.rs`; [Stopping](#stopping) |
//! | accepting that goes on when descriptors have run out | [`Stream::retry_after`] |
//! | a limit for the number of clients | [pause](Submitter::pause) the stream that accepts, which may still bring some, and resume it when there is room |
//! | the same bytes for many clients | an `Rc` or `Arc` of them, or of a [`Buffer`], in the data of each request |
//! | time limits for idle clients | [`Request::deadline`]; of streams, [`Stream::idle_limit`] |
//! | buffers that the kernel picks when there is something to receive | [`BufferPool`]; [cut to what has come](BufferPool::incremental) |
//! | descriptors that are passed over a socket; datagrams that the kernel splits and joins, or tells more of | [`request::send_message`], [`request::recv_message`], [`request::recv_message_multi`] |
//! | options of sockets | [`request::set_option`], [`request::get_option`] |
//! | registered memory and files | [`FixedBuffers`], [`FixedFile`] |
//! | files and sockets that are in the ring's table only (direct descriptors) | [`request::accept_multi_direct`], [`request::openat_direct`] |
//! | another event loop | [`turn`](macro@ring#a-ring-in-another-event-loop) |
//! | tests | [`RingOperation`](trait@RingOperation#testing-an-operation), the feature `sim` |
//!
//! # A server
//!
//! This server sends back what it gets. One operation accepts, and hands connections over to the other by its [`Tag`].
//! A function of the connection's data makes the next request:
//!
//! ```
//! use rummelplatz::{Completion, Request, RingOperation, Submitter, request, ring};
//! use std::{error::Error, io, net::TcpListener, os::fd::OwnedFd};
//! # use std::{io::{Read, Write}, net::{Shutdown, TcpStream}, thread};
//!
//! #[ring]
//! struct Echo { acceptor: Acceptor, connections: Connections }
//!
//! #[derive(RingOperation)]
//! #[ring_operation(ring = Echo, data = TcpListener, error = io::Error, on_more, on_final)]
//! struct Acceptor;
//!
//! impl Acceptor {
//!     fn on_more(&mut self, completion: Completion, _: &mut TcpListener, mut submitter: Submitter<'_, Echo, Self>)
//!         -> io::Result<()>
//!     {
//!         let connection = Connection { socket: completion.into_fd()?, buffer: vec![0; 4096], received: 0 };
//!         submitter.to(Echo::CONNECTIONS).submit(Box::new(connection), |it| it.request())?;
//!         Ok(())
//!     }
//!
//!     fn on_final(&mut self, completion: Completion, _: TcpListener, _: Submitter<'_, Echo, Self>) -> io::Result<()> {
//!         completion.result()?; // `error` is declared, so this ends the server (see `Stream::retry_after`).
//!         Ok(())
//!     }
//! }
//!
//! #[derive(RingOperation)]
//! #[ring_operation(ring = Echo, data = Box<Connection>, warn = io::Error, on_completion)]
//! struct Connections;
//!
//! struct Connection { socket: OwnedFd, buffer: Vec<u8>, received: usize }
//!
//! impl Connection {
//!     fn request(&mut self) -> Request<'_> {
//!         match self.received {
//!             0 => request::recv(&self.socket, &mut self.buffer),
//!             received => request::send(&self.socket, &self.buffer[..received]).whole(),
//!         }
//!     }
//! }
//!
//! impl Connections {
//!     fn on_completion(
//!         &mut self,
//!         completion: Completion,
//!         mut connection: Box<Connection>,
//!         mut submitter: Submitter<'_, Echo, Self>,
//!     ) -> io::Result<()> {
//!         // `warn` is declared, so this ends the connection, not the server.
//!         let bytes = completion.result()? as usize;
//!         if connection.received == 0 && bytes == 0 {
//!             return Ok(()); // The client is done: its socket is dropped, which closes it.
//!         }
//!         connection.received = if connection.received == 0 { bytes } else { 0 };
//!         submitter.submit(connection, |it| it.request())?;
//!         Ok(())
//!     }
//! }
//!
//! fn main() -> Result<(), Box<dyn Error>> {
//!     let mut echo = Echo::builder(Acceptor, Connections).build()?;
//! #   if false {
//!     let listener = TcpListener::bind("127.0.0.1:7777")?;
//! #   }
//! #   let listener = TcpListener::bind("127.0.0.1:0")?;
//! #   let (address, handle) = (listener.local_addr()?, echo.handle());
//! #   let client = thread::spawn(move || -> io::Result<Vec<u8>> {
//! #       let mut client = TcpStream::connect(address)?;
//! #       client.write_all(&[7; 10_000])?;
//! #       client.shutdown(Shutdown::Write)?;
//! #       let mut received = Vec::new();
//! #       client.read_to_end(&mut received)?;
//! #       handle.stop();
//! #       Ok(received)
//! #   });
//!     echo.submitter(Echo::ACCEPTOR).stream(listener, |listener| request::accept_multi(listener))?;
//!     echo.run()?;
//! #   assert_eq!(client.join().unwrap()?, [7; 10_000]);
//!     Ok(())
//! }
//! ```
//!
//! The data of a request moves from its slot to the handler and back with each request. Here it is a box, made once for
//! each connection, so only a pointer moves. `data = Connection` does as well, and with `Connection::request` in the
//! place of the closure, but takes more instructions from a few words on. So does a `TcpStream` instead of an `OwnedFd`,
//! without LTO: its descriptor is read by a call. Where the function of the data makes many kinds of requests,
//! `#[inline]` keeps it a part of the loop. (What else makes a difference: `docs/performance.md`, "Trades".)
//!
//! # The loop
//!
//! ```text
//!            ┌──────────────────────────── Submitter ◀──────────────────────────┐
//!            ▼                                                                  │
//!  slab: data in its slot      submission      io_uring      completion         │
//!  backlog: no room yet ─────▶   queue    ──▶   enter   ──▶    queue   ──▶ match on the tag
//!                                                                               │
//!                              setup · on_completion · on_teardown_completion ◀─┘
//! ```
//!
//! Each request carries a tag, a generation and a slot in its `user_data`. Only the generated `match` on the tag
//! differs from ring to ring. Everything else is written once, in this crate.
//!
//! # Batches
//!
//! The ring delivers all completions that are there, one after the other, before it enters the kernel again. It then
//! submits everything that their handlers have queued, in one system call. So a limited queue, such as that of what is
//! still to be sent to a client, needs room for what all of them bring.
//!
//! To do something once for all of them, let the first handler call [`post_last`](Submitter::post_last): its message is
//! delivered after everything else that is there. In this way many small records are written and made safe together
//! ("group commit"), one group after the other:
//!
//! ```
//! # use rummelplatz::{Completion, RingOperation, Submitter, request, ring};
//! # use std::{error::Error, fs::{self, File}, io, mem, sync::Arc};
//! # #[ring]
//! # struct Store { log: Log }
//! #[derive(RingOperation)]
//! #[ring_operation(ring = Store, data = Step, error = io::Error, on_completion)]
//! struct Log { file: Arc<File>, records: Vec<u8>, is_busy: bool, commits: u32 }
//!
//! enum Step {
//!     /// Posted by others: `submitter.to(Store::LOG).post(Step::Record(bytes))`.
//!     Record(Vec<u8>),
//!     Commit,
//!     Write { file: Arc<File>, records: Vec<u8>, written: usize },
//!     Sync(Arc<File>),
//! }
//!
//! impl Log {
//!     fn on_completion(
//!         &mut self,
//!         completion: Completion,
//!         step: Step,
//!         mut submitter: Submitter<'_, Store, Self>,
//!     ) -> io::Result<()> {
//!         let done = completion.result()? as usize;
//!         let write = match step {
//!             Step::Record(record) => {
//!                 self.records.extend(record);
//!                 // Records that come while a group is on its way form the next group.
//!                 if !mem::replace(&mut self.is_busy, true) {
//!                     submitter.post_last(Step::Commit)?;
//!                 }
//!                 return Ok(());
//!             }
//!             Step::Commit => (mem::take(&mut self.records), 0),
//!             Step::Write { records, written, .. } => (records, written + done),
//!             Step::Sync(_) => {
//!                 self.commits += 1;
//!                 self.is_busy = !self.records.is_empty();
//!                 (mem::take(&mut self.records), 0)
//!             }
//!         };
//!         match write {
//!             (records, written) if written < records.len() => {
//!                 let write = Step::Write { file: self.file.clone(), records, written };
//!                 submitter.submit(write, |step| match step {
//!                     Step::Write { file, records, written } => request::write(file, &records[*written..]),
//!                     _ => unreachable!(),
//!                 })?;
//!             }
//!             _ if self.is_busy => {
//!                 submitter.submit(Step::Sync(self.file.clone()), |step| match step {
//!                     Step::Sync(file) => request::fdatasync(file),
//!                     _ => unreachable!(),
//!                 })?;
//!             }
//!             _ => {}
//!         }
//!         Ok(())
//!     }
//! }
//! # fn main() -> Result<(), Box<dyn Error>> {
//! # let path = std::env::temp_dir().join(format!("rummelplatz-doc-{}", std::process::id()));
//! # let file = Arc::new(File::create(&path)?);
//! # let log = Log { file, records: Vec::new(), is_busy: false, commits: 0 };
//! # let mut store = Store::builder(log).build()?;
//! # for number in 0..100 {
//! #     store.submitter(Store::LOG).post(Step::Record(format!("{number}\n").into()))?;
//! # }
//! # store.run()?;
//! # let written = fs::read_to_string(&path);
//! # fs::remove_file(&path)?;
//! # assert_eq!((written?.lines().count(), store.log.commits), (100, 1));
//! # Ok(()) }
//! ```
//!
//! # Stopping
//!
//! [`ControlFlow::Exit`] and [`RingHandle::stop`] stop a ring now: what is in flight is cancelled at once, and handed
//! to `on_teardown_completion`. That handler may submit, for example the rest of an answer. The ring waits for such
//! requests for the [`grace`](Builder::grace) period, and then cancels them as well. If the teardown has a
//! [`deadline`](Builder::deadline), whatever the kernel still has when that has passed is leaked.
//!
//! To let connections finish, let the ring end by itself: it does when nothing is in flight and there is no strong
//! handle. So accept no more, and cancel the requests that wait for clients, who may be idle. All handlers must know
//! that the server is stopping, so that they submit nothing more that waits for a client. A flag that they share tells
//! them:
//!
//! ```
//! # use rummelplatz::{Completion, Request, RingOperation, Submitter, request, ring};
//! # use std::{cell::Cell, error::Error, io::{self, Read, Write}, net::{TcpListener, TcpStream}, rc::Rc};
//! # use std::os::unix::net::UnixStream;
//! # #[ring]
//! # struct Server { signals: Signals, acceptor: Acceptor, receivers: Receivers, senders: Senders }
//! # #[derive(RingOperation)]
//! # #[ring_operation(ring = Server, data = SignalRead, error = io::Error, on_completion)]
//! # struct Signals { is_stopping: Rc<Cell<bool>> }
//! # struct SignalRead { descriptor: UnixStream, info: [u8; 128] }
//! # #[derive(RingOperation)]
//! # #[ring_operation(ring = Server, data = TcpListener, error = io::Error, on_more, on_final)]
//! # struct Acceptor { is_stopping: Rc<Cell<bool>> }
//! # #[derive(RingOperation)]
//! # #[ring_operation(ring = Server, data = Connection, warn = io::Error, on_completion)]
//! # struct Receivers { is_stopping: Rc<Cell<bool>> }
//! # #[derive(RingOperation)]
//! # #[ring_operation(ring = Server, data = Connection, warn = io::Error, on_completion)]
//! # struct Senders { is_stopping: Rc<Cell<bool>> }
//! # struct Connection { socket: TcpStream, buffer: Vec<u8>, received: usize }
//! # impl Connection {
//! #     fn receive(&mut self) -> Request<'_> {
//! #         request::recv(&self.socket, &mut self.buffer)
//! #     }
//! #     fn send(&mut self) -> Request<'_> {
//! #         request::send(&self.socket, &self.buffer[..self.received]).whole()
//! #     }
//! # }
//! impl Signals {
//!     /// A signal was read, from a `signalfd` as in `examples/signals.rs`. Nothing reads the next one.
//!     fn on_completion(&mut self, completion: Completion, _: SignalRead, mut submitter: Submitter<'_, Server, Self>)
//!         -> io::Result<()>
//!     {
//!         completion.result()?;
//!         self.is_stopping.set(true);
//!         submitter.to(Server::ACCEPTOR).cancel_all();
//!         submitter.to(Server::RECEIVERS).cancel_all(); // Sends go on.
//!         Ok(())
//!     }
//! }
//!
//! impl Acceptor {
//!     fn on_more(&mut self, completion: Completion, _: &mut TcpListener, mut submitter: Submitter<'_, Server, Self>)
//!         -> io::Result<()>
//!     {
//!         let socket = completion.into_fd()?.into();
//!         if !self.is_stopping.get() { // Otherwise, it was accepted before the cancel, and is closed here.
//!             let connection = Connection { socket, buffer: vec![0; 4096], received: 0 };
//!             submitter.to(Server::RECEIVERS).submit(connection, Connection::receive)?;
//!         }
//!         Ok(())
//!     }
//!
//!     fn on_final(
//!         &mut self, completion: Completion, listener: TcpListener, mut submitter: Submitter<'_, Server, Self>,
//!     ) -> io::Result<()> {
//!         if !self.is_stopping.get() {
//!             completion.result()?;
//!             submitter.stream(listener, |listener| request::accept_multi(listener))?;
//!         }
//!         Ok(()) // The listener is closed: whoever connects now is refused.
//!     }
//! }
//!
//! impl Receivers {
//!     fn on_completion(
//!         &mut self, completion: Completion, mut connection: Connection, mut submitter: Submitter<'_, Server, Self>,
//!     ) -> io::Result<()> {
//!         if self.is_stopping.get() && completion.is_cancelled() {
//!             return Ok(()); // The client was idle. Its socket is dropped, which closes it.
//!         }
//!         connection.received = completion.result()? as usize;
//!         if connection.received > 0 { // The cancel may have come too late: then this is still answered.
//!             submitter.to(Server::SENDERS).submit(connection, Connection::send)?;
//!         }
//!         Ok(())
//!     }
//! }
//!
//! impl Senders {
//!     fn on_completion(
//!         &mut self, completion: Completion, connection: Connection, mut submitter: Submitter<'_, Server, Self>,
//!     ) -> io::Result<()> {
//!         completion.result()?;
//!         if !self.is_stopping.get() {
//!             submitter.to(Server::RECEIVERS).submit(connection, Connection::receive)?;
//!         }
//!         Ok(())
//!     }
//! }
//! # fn main() -> Result<(), Box<dyn Error>> {
//! # let is_stopping = Rc::new(Cell::new(false));
//! # let (signals, acceptor) =
//! #     (Signals { is_stopping: is_stopping.clone() }, Acceptor { is_stopping: is_stopping.clone() });
//! # let (receivers, senders) = (Receivers { is_stopping: is_stopping.clone() }, Senders { is_stopping });
//! # let mut server = Server::builder(signals, acceptor, receivers, senders).build()?;
//! # let (mut kill, descriptor) = UnixStream::pair()?;
//! # let read = SignalRead { descriptor, info: [0; 128] };
//! # server.submitter(Server::SIGNALS).submit(read, |it| request::read(&it.descriptor, &mut it.info))?;
//! # let listener = TcpListener::bind("127.0.0.1:0")?;
//! # let address = listener.local_addr()?;
//! # server.submitter(Server::ACCEPTOR).stream(listener, |listener| request::accept_multi(listener))?;
//! # let client = std::thread::spawn(move || -> io::Result<usize> {
//! #     let mut client = TcpStream::connect(address)?;
//! #     client.write_all(b"hello")?;
//! #     client.read_exact(&mut [0; 5])?;
//! #     kill.write_all(&[1; 128])?;
//! #     client.read(&mut [0; 8]) // idle
//! # });
//! # server.run()?;
//! # assert_eq!(client.join().unwrap()?, 0);
//! # assert!(TcpStream::connect(address).is_err());
//! # Ok(()) }
//! ```
//!
//! A client that takes no answers keeps the ring running. Either give sends a [`deadline`](Request::deadline), or limit
//! the time for all clients: from the first handler above, submit a [`timeout`](request::timeout) whose own handler
//! returns `Exit`. Such a timer, a signal that the server may read again, or a timer for statistics must not keep the
//! ring running itself: submit it [in the background](Submitter::submit_in_background).
//!
//! Closing a socket with bytes in it that nobody has received resets the connection, and then the client may lose
//! answers that it has not read yet. If it must not, call `shutdown(Shutdown::Write)` on the socket after the last
//! answer, and receive, with a deadline, until the client has closed its side.
//!
//! # Many rings
//!
//! A ring runs on one thread. A program that needs more cores runs one ring in each thread, as `examples/shards.rs`
//! does.
//!
//! * **Building.** A ring is built in its thread. Or it is built elsewhere and sent there, if its operations and data
//!   are `Send`: then nothing runs yet if one of them can't be built. For clients, each ring has its own listener, all
//!   at one port (`SO_REUSEPORT`). Or one ring accepts, and sends sockets to the others.
//! * **Handles.** Take a [`RingHandle`] of each ring before the first one runs, and give all of them to all rings. What
//!   is sent to a ring that does not run yet is kept.
//! * **Messages.** [`RingHandle::send`] allocates a box for each message, and wakes the ring if nobody else has. What
//!   one thread sends to one operation arrives in order. For an answer, put a weak handle and a number of your own into
//!   the message. There is no limit, so keep count of the questions that are not answered yet.
//! * **The end.** A ring waits as long as anybody has a strong handle to it, and two rings that always have one of each
//!   other never end. So keep strong handles only where the answers of other rings are still needed, as in the data of
//!   connections: with the last of them, all rings end. A message needs only a weak handle, because whoever waits for
//!   the answer keeps its own ring running.
//! * **Failures.** A ring that has ended hands back what is sent to it ([`SendError`]). But what it had accepted goes
//!   to [`on_teardown_completion`](trait@RingOperation), or is dropped if it has panicked, so somebody may wait for an
//!   answer that never comes. Let each thread stop the other rings when its own has ended.
//! * **Signals.** One ring reads them, and tells the others. Block them before the threads are made, which inherit
//!   that.
//! * **What belongs to one ring:** a [`BufferPool`] (its buffers may be dropped anywhere), [`FixedBuffers`], a
//!   [`FixedFile`], and each [`Key`].
//!
//! # What is promised
//!
//! * Every accepted request ends exactly once. Its data is handed to a handler. Or it is dropped without one, if nobody
//!   is to know ([`detach`](Submitter::detach), a stream that was given up, a ring that was dropped or ended by a
//!   panic). Or it is leaked and the request is named: by [`RingError::abandoned`], or to the hook
//!   [`on_abandoned`](Builder::on_abandoned) if the ring was dropped or ended by a panic.
//! * No data is freed, moved or dropped while the kernel may still use it, whatever happens: `?`, `panic!`, `drop` or
//!   `mem::forget`. Closing a ring does not stop the kernel, so leaking is the default.
//! * You need no `unsafe`, except for raw entries ([`push`](Submitter::push)) and for an io_uring that was made
//!   elsewhere ([`RawRing::from_io_uring`]).
//!
//! # Features
//!
//! * `tracing`: warnings, data that a handler has returned too late, and requests that a ring which was dropped or
//!   ended by a panic had to abandon, are logged through the `tracing` crate.
//! * `sim`: a simulated kernel, for tests of your own operations. A seed decides what goes wrong in it. It is meant for
//!   `dev-dependencies`: see the module `sim`.

#[doc(hidden)]
#[allow(missing_docs, reason = "what generated code uses is documented where it is defined")]
pub mod __private;

mod accept;
mod alarms;
mod any_slab;
mod asked_again;
mod backlog;
mod block;
mod buffers;
mod builder;
mod chain;
#[allow(missing_docs, reason = "for generated code")]
mod checked;
mod clock;
mod completion;
mod config;
mod core;
mod cpus;
mod deadlines;
mod dispatch;
mod error;
mod eventfd;
mod facts;
mod failures;
mod fixed;
mod forked;
mod handle;
#[allow(missing_docs, reason = "for generated code")]
mod handler;
mod idle;
mod inbox;
mod insistent;
mod lifecycle;
mod lock;
mod mutant;
mod operation;
mod own;
mod panics;
mod parcels;
mod parked;
mod parts;
#[allow(missing_docs, reason = "for generated code")]
mod probe;
mod queue;
pub mod request;
mod resting;
mod ring;
mod ring_error;
mod route;
mod runtime;
mod settle;
mod shape;
#[cfg(feature = "sim")]
pub mod sim;
mod slab;
mod slab_cell;
mod state;
mod stats;
mod streams;
mod submission;
mod submitter;
mod tag;
mod teardown;
mod thread;
mod user_data;
mod wake_poll;
mod waker;
mod warning;
mod wave;

pub use io_uring;

/// Makes a ring of a struct: each field is an operation.
///
/// ```
/// # use rummelplatz::{ring, RingOperation};
/// # #[derive(RingOperation)] pub struct Acceptor;
/// # #[derive(RingOperation)] pub struct Connections;
/// #[ring(entries = 1024)]
/// pub struct Server {
///     acceptor: Acceptor,
///     connections: Connections,
/// }
/// ```
///
/// The struct keeps its fields: they can be read, and moved out after the run. It gets one more field, which is
/// private. The macro generates:
///
/// | | |
/// |---|---|
/// | `Server::ACCEPTOR`, `Server::CONNECTIONS` | a [`Tag`] for each field, as visible as the field |
/// | `Server::builder(acceptor, connections)` | a [`Builder`], the usual way to make a ring: `.build()?` |
/// | `Server::new_raw_ring(entries)` | a [`RawRing`], for when the ring is made apart from its operations |
/// | `Server::new(raw, backlog_limit, acceptor, connections)` | the ring, made of a [`RawRing`]; the limit is an `Option<NonZeroUsize>` |
/// | `server.run()` | runs until a handler ends the ring, or until nothing is in flight (other than [in the background](Submitter::submit_in_background) and [paused](Submitter::pause) streams) and no strong [`RingHandle`] is left |
/// | `server.turn()` | does what can be done without waiting: see below |
/// | `server.finish()` | cancels what is in flight and waits for it, now |
/// | `server.submitter(TAG)` | a [`Submitter`] for use from outside |
/// | `server.handle()` | a strong [`RingHandle`], for other threads |
/// | `server.stats()` | [`Stats`] |
/// | `ServerSetupError`, `ServerCompletionError`, `ServerTeardownError` | the errors of the operations, with a variant for each, for [`RingError`] |
/// | `Debug`, `AsFd`, `AsRawFd` | for the ring; its descriptor is readable when there is something to do |
///
/// The struct may have generics, lifetimes, where clauses, any visibility, `#[cfg]` on fields, and two fields of one
/// type. It may have up to 250 fields. A field removed by `#[cfg]` leaves a gap in the tags.
///
/// # Arguments
///
/// `entries = N`, `backlog_limit = N`, `grace_ms = N` and `deadline_ms = N` (both in milliseconds) are the defaults of
/// what the [`Builder`]'s methods of these names set. All but `entries` hold for a ring made by `new`, too.
/// `crate = path` says where this crate is, if you have renamed it.
///
/// # Running it again
///
/// A ring that has ended can be run again, unless it was [abandoned](RingError::Abandoned): `run` calls `setup` once
/// more. Pools are registered again when they are used. Buffers and files are not: register them again with
/// [`register_buffers`](Submitter::register_buffers) and [`register_file`](Submitter::register_file). `turn` does not
/// begin a second run: it returns [`Status::Finished`].
///
/// Before the first run and between two runs, `submit` and `post` through `server.submitter(TAG)` are accepted, and
/// done in the next run. [`RingHandle::send`] is accepted before the first run, and refused between two runs. A
/// [`RingHandle::stop`] that comes between two runs is kept: the next run ends right after `setup`.
///
/// # A ring in another event loop
///
/// `turn()` flushes, reaps and dispatches without blocking, and runs `setup` the first time. It returns a [`Progress`],
/// which says what was done, and when `turn` must be called again at the latest. Keep to that time: there may be work
/// left that nothing else announces. Between turns, the ring's descriptor becomes readable when there is something to
/// do, so you can give it to `epoll` or `mio`. If handlers submit again and again what completes at once, a turn ends
/// after a thousand completions or so, and asks to be called again at once.
///
/// This descriptor is an eventfd that the kernel signals, because the descriptor of an io_uring with `DEFER_TASKRUN`
/// does not wake those who sleep on it. (For the descriptor of the io_uring itself, ask the [`RawRing`].) Only wait for
/// it: each turn reads it, and must not be made to wait there (`O_NONBLOCK`). If your requests read or poll eventfds,
/// see [`Builder::defer_taskrun`].
///
/// ```
/// # use rummelplatz::{RingOperation, Submitter, SubmitError, request, ring};
/// # use std::{error::Error, io, os::fd::AsRawFd, time::Duration};
/// # #[ring]
/// # struct Server { ticks: Ticks }
/// # #[derive(RingOperation)]
/// # #[ring_operation(ring = Server, error = SubmitError, setup)]
/// # struct Ticks;
/// # impl Ticks {
/// #     fn setup(&mut self, mut submitter: Submitter<'_, Server, Self>) -> Result<(), SubmitError> {
/// #         submitter.submit((), |()| request::timeout(Duration::from_millis(3)))?;
/// #         Ok(())
/// #     }
/// # }
/// # fn main() -> Result<(), Box<dyn Error>> {
/// # let mut server = Server::builder(Ticks).build()?;
/// loop {
///     let progress = server.turn()?;
///     if progress.is_finished() || progress.is_idle() {
///         break; // or go on, if others submit to the ring
///     }
///     // Rounded up: with a timeout that is too short, the loop would spin.
///     let timeout = progress.call_again_in.map_or(-1, |time| time.as_micros().div_ceil(1000) as i32);
///     let mut descriptors = [libc::pollfd { fd: server.as_raw_fd(), events: libc::POLLIN, revents: 0 }];
///     // Wait here for the loop's other descriptors as well.
///     if unsafe { libc::poll(descriptors.as_mut_ptr(), 1, timeout) } < 0 {
///         let error = io::Error::last_os_error();
///         if error.kind() != io::ErrorKind::Interrupted {
///             return Err(error.into());
///         }
///     }
/// }
/// # Ok(()) }
/// ```
///
/// When a turn says [`Status::Finished`], take the descriptor out of the loop. The descriptor may still be readable
/// from what `finish()` has seen, and no turn of a finished ring changes that.
///
/// # Threads and processes
///
/// A ring may be built in one thread and run in another, if its data and operations are `Send`. From its first run on
/// it belongs to the thread that runs it: called from another thread, it returns [`RingError::WrongThread`] and changes
/// nothing.
///
/// In a forked child, a ring returns [`RingError::Forked`], also when the handler that has forked returns there. A
/// submitter that was made before the fork can't report this: what it accepts in the child goes nowhere. Handles reach
/// nothing from the child: what they send comes back. The child keeps nothing of the ring open: the descriptor of the
/// io_uring is replaced by another there. A [`Buffer`] or a [`FixedBuffer`] may be dropped in the child, which then has
/// its copy of the pool to itself; a pool that no ring had at the fork can be used by a ring of the child.
pub use rummelplatz_macros::ring;

/// Derives [`RingOperation`](trait@RingOperation): the associated types get their usual values, and the handlers
/// forward to methods of the type.
///
/// ```
/// # use rummelplatz::{ring, Completion, ControlFlow, RingOperation, Submitter, request};
/// # use std::{io, time::Duration};
/// #[derive(RingOperation)]
/// #[ring_operation(ring = Clock, data = u32, error = io::Error, setup, on_completion)]
/// struct Ticks { interval: Duration }
///
/// impl Ticks {
///     fn setup(&mut self, mut submitter: Submitter<'_, Clock, Self>) -> io::Result<()> {
///         let interval = self.interval;
///         submitter.submit(3, move |_| request::timeout(interval))?;
///         Ok(())
///     }
///
///     fn on_completion(
///         &mut self,
///         completion: Completion,
///         left: u32,
///         mut submitter: Submitter<'_, Clock, Self>,
///     ) -> io::Result<()> {
///         completion.result()?; // an error ends the ring: `error` is declared, and `warn` is not
///         let interval = self.interval;
///         if left > 0 {
///             submitter.submit(left - 1, move |_| request::timeout(interval))?;
///         }
///         Ok(())
///     }
/// }
///
/// #[ring]
/// struct Clock { ticks: Ticks }
/// # let raw = Clock::new_raw_ring(std::num::NonZeroU32::new(8).unwrap())?;
/// # Clock::new(raw, None, Ticks { interval: Duration::from_millis(1) }).run()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Arguments of `#[ring_operation(…)]`
///
/// | | | if left out |
/// |---|---|---|
/// | `ring = R` | the ring | any ring |
/// | `data = D` | `RingData` | `()` |
/// | `warn = W` | `ControlFlowWarn` | `Infallible` |
/// | `error = E` | `ControlFlowError` | `Infallible` |
/// | `setup_error = E`, `teardown_error = E` | `SetupError`, `TeardownError` | as `error` |
/// | `setup` | forwards to the method `setup` | nothing is submitted |
/// | `on_completion` | forwards to the method `on_completion` | the data is dropped, and the ring goes on |
/// | `on_more`, `on_final` | in place of `on_completion`: see below | |
/// | `on_teardown_completion` | forwards to the method of that name | the data is dropped |
/// | `crate = path` | where this crate is, if you have renamed it | `::rummelplatz` |
///
/// The bare name of a handler forwards to the method of that name; with `= name`, it forwards to the method `name`.
///
/// A method that is not named here is not called, even if its name is that of a handler. The compiler warns that it is
/// never used, unless it is `pub` and so is its type: so leave handlers private.
///
/// # What handlers return
///
/// Whatever reads best: `()`, a [`ControlFlow`], an `Option<RingData>`, the pair of the last two, or a `Result` of one
/// of these. (`on_more` and `on_final` have no data to return: `()`, a `ControlFlow`, or a `Result` of one of these.)
/// A handler that may end the ring, and fail, returns `io::Result<ControlFlow>`. `setup` and `on_teardown_completion`
/// return `()`, or a `Result` of that. (To end the ring in `setup`, return an error, or call
/// [`submitter.handle().stop()`](RingHandle::stop).)
///
/// What an error does depends on the arguments. With `warn` alone, a plain `?` warns. With `error` alone, it ends the
/// ring. With both, [`.or_warn()?`](ResultExt::or_warn) and [`.or_end()?`](ResultExt::or_end) choose, in a
/// `Result<_, ControlFlow<W, E>>`:
///
/// ```
/// # use rummelplatz::{Completion, ControlFlow, ResultExt, RingOperation, SubmitError, Submitter, request, ring};
/// # use std::{io, net::TcpStream};
/// # #[ring] struct Server { connections: Connections }
/// # struct Connection { socket: TcpStream, buffer: Vec<u8> }
/// #[derive(RingOperation)]
/// #[ring_operation(ring = Server, data = Connection, warn = io::Error, error = SubmitError, on_completion)]
/// struct Connections;
///
/// impl Connections {
///     fn on_completion(
///         &mut self,
///         completion: Completion,
///         connection: Connection,
///         mut submitter: Submitter<'_, Server, Self>,
///     ) -> Result<(), ControlFlow<io::Error, SubmitError>> {
///         // On an error this peer is gone: a warning, and the ring goes on.
///         if completion.result().or_warn()? == 0 {
///             return Err(ControlFlow::Exit); // this ends the ring, without an error
///         }
///         // This ends the ring with an error.
///         submitter.submit(connection, |it| request::recv(&it.socket, &mut it.buffer)).or_end()?;
///         Ok(())
///     }
/// }
/// ```
///
/// # Streams
///
/// `on_more(&mut self, completion, data: &mut RingData, submitter)` is called while more completions are announced, and
/// `on_final(&mut self, completion, data: RingData, submitter)` at the end. So the data of a stream can be neither lost
/// too early nor returned too late.
///
/// `on_final` gets no bytes, no socket and no events of a stream. If the kernel ends a stream with one of these,
/// `on_more` gets it, and the ring arms the stream again. So the end of a [`recv_multi`](request::recv_multi) is an
/// error, or the end of the file with an empty buffer. The exceptions are the completion that reaches a
/// [`limit`](Stream::limit), the last tick of a timer that [counts](request::timeout_multi_times), and what
/// `on_teardown_completion` gets.
///
/// `on_final` also gets whatever is [posted](Submitter::post) or [sent](RingHandle::send) to the operation, and the one
/// completion of a request that is not a stream. Data that is only posted or sent is best given to an operation of its
/// own: then the function that makes requests of data needs no arm for what never becomes a request.
pub use rummelplatz_macros::RingOperation;

pub use crate::buffers::{Buffer, BufferPool, Buffers};
pub use crate::builder::Builder;
pub use crate::chain::Chain;
pub use crate::completion::{Completion, RawCompletion};
pub use crate::config::{RawRing, SqPoller};
pub use crate::error::{BuildError, BuildErrorKind, InvalidEntry, Refused, Stuck, StuckRequest, SubmitError};
pub use crate::fixed::{FixedBuffer, FixedBuffers, FixedFile, FixedSlice, FixedSliceMut};
pub use crate::handle::{RingHandle, SendError};
pub use crate::handler::{Ended, ResultExt, Warned};
pub use crate::operation::{CompletionResult, ControlFlow, RingOperation};
pub use crate::request::{Datagram, Request, Stream};
pub use crate::ring::{Progress, Status};
pub use crate::ring_error::{Cause, RingError};
pub use crate::shape::Ring;
pub use crate::stats::{OperationStats, Stats};
pub use crate::submitter::{SubmissionQueueSubmitter, Submitter};
pub use crate::tag::{Key, Tag};
pub use crate::warning::Warning;
