//! Requests on sockets.

use std::mem::MaybeUninit;
use std::net::Shutdown;

use io_uring::opcode;

use super::aside::{Header, Piece};
use super::entry::{bare, on_memory, with_priority};
use super::sqe::{self, IORING_RECV_MULTISHOT, IORING_RECVSEND_BUNDLE, Usual};
use super::{Address, Aside, Control, Parts, Peer, RecvControl, Request, Stream, Target, datagram};
use crate::buffers::BufferPool;
use crate::facts::Yields;
use crate::fixed::FixedSlice;

const IORING_ACCEPT_MULTISHOT: u32 = 1;

/// An entry that moves bytes between a socket and memory.
#[inline(always)]
fn transfer<'d, T>(
    opcode: u8,
    socket: &'d impl Target,
    memory: *const T,
    bytes: usize,
    op_flags: u32,
) -> Request<'d> {
    let entry = on_memory(opcode.into(), memory, bytes);
    Parts::usual_on(socket, Usual { op_flags, ..entry }).request()
}

/// Accepts one connection (`IORING_OP_ACCEPT`, since 5.5).
///
/// The socket comes out of [`into_fd`](crate::Completion::into_fd), close-on-exec.
pub fn accept<'d>(listener: &'d impl Target) -> Request<'d> {
    accepting(listener, bare(opcode::Accept::CODE.into(), -1)).request()
}

/// As [`accept`], and says where the connection comes from (`IORING_OP_ACCEPT`, since 5.5), as `accept(2)`.
///
/// ```
/// # use rummelplatz::{request, request::{Peer, Request}};
/// # use std::{net::TcpListener, sync::Arc};
/// struct Accept { listener: Arc<TcpListener>, peer: Peer }
///
/// impl Accept {
///     fn request(&mut self) -> Request<'_> {
///         request::accept_from(&self.listener, &mut self.peer)
///     }
/// }
/// ```
///
/// There is no such stream: all its connections would share one place for their addresses.
pub fn accept_from<'d>(listener: &'d impl Target, peer: &'d mut Peer) -> Request<'d> {
    let [address, offset] = peer.accept();
    accepting(listener, Usual { address, offset, ..bare(opcode::Accept::CODE.into(), -1) }).request()
}

/// Accepts connections until it is cancelled (`IORING_ACCEPT_MULTISHOT`, since 5.19).
///
/// Each completion has a socket in [`into_fd`](crate::Completion::into_fd), close-on-exec. Get the peer's address with
/// `getpeername(2)`, as `TcpStream::peer_addr` does, or accept connections one at a time with [`accept_from`].
///
/// ```
/// # use rummelplatz::{Completion, RingOperation, SubmitError, Submitter, request, ring};
/// # use std::{error::Error, io, net::{TcpListener, TcpStream}};
/// # #[ring]
/// # struct Server { acceptor: Acceptor }
/// # #[derive(RingOperation)]
/// # #[ring_operation(ring = Server, data = TcpListener, warn = io::Error, on_more, on_final)]
/// # struct Acceptor;
/// # impl Acceptor {
/// fn on_more(&mut self, completion: Completion, _: &mut TcpListener, mut submitter: Submitter<'_, Server, Self>)
///     -> io::Result<()>
/// {
///     let client = TcpStream::from(completion.into_fd()?);
///     println!("hello {}", client.peer_addr()?);
/// #   submitter.handle().stop();
///     Ok(())
/// }
/// #   fn on_final(&mut self, completion: Completion, _: TcpListener, _: Submitter<'_, Server, Self>)
/// #       -> io::Result<()>
/// #   {
/// #       completion.result().map(drop)
/// #   }
/// # }
/// # fn main() -> Result<(), Box<dyn Error>> {
/// # let mut server = Server::builder(Acceptor).build()?;
/// # let listener = TcpListener::bind("127.0.0.1:0")?;
/// # let _client = TcpStream::connect(listener.local_addr()?)?;
///
/// server.submitter(Server::ACCEPTOR).stream(listener, |listener| request::accept_multi(listener))?;
/// # server.run()?;
/// # Ok(()) }
/// ```
///
/// When the stream ends with an error, the cause is usually a lack of descriptors (`EMFILE`). With
/// [`retry_after`](Stream::retry_after), it goes on after a pause instead.
#[doc(alias = "multishot_accept")]
pub fn accept_multi<'d>(listener: &'d impl Target) -> Stream<'d> {
    let opcode = with_priority(opcode::Accept::CODE, IORING_ACCEPT_MULTISHOT);
    accepting(listener, bare(opcode, -1)).stream()
}

fn accepting(listener: &impl Target, entry: Usual) -> Parts<'_> {
    let entry = Usual { op_flags: libc::SOCK_CLOEXEC as u32, ..entry };
    Parts::usual_on(listener, entry).yielding(Yields::Descriptor)
}

/// As [`accept`], except that the kernel puts the socket into the ring's table (since 5.19): it comes out of
/// [`into_fixed_file`](crate::Completion::into_fixed_file).
///
/// If there is no room in the table, this ends with `ENFILE`, *and the connection is closed*: see
/// [`Builder::direct_descriptors`](crate::Builder::direct_descriptors).
pub fn accept_direct<'d>(listener: &'d impl Target) -> Request<'d> {
    Parts::direct_on(listener, bare(opcode::Accept::CODE.into(), -1)).request()
}

/// As [`accept_direct`], and says where the connection comes from, as [`accept_from`]: a socket that has no descriptor
/// can't be asked for that afterwards.
pub fn accept_from_direct<'d>(listener: &'d impl Target, peer: &'d mut Peer) -> Request<'d> {
    let [address, offset] = peer.accept();
    let entry = Usual { address, offset, ..bare(opcode::Accept::CODE.into(), -1) };
    Parts::direct_on(listener, entry).request()
}

/// As [`accept_multi`], except that the kernel puts the sockets into the ring's table (since 5.19): they come out
/// of [`into_fixed_file`](crate::Completion::into_fixed_file).
///
/// A socket is closed when the last clone of its [`FixedFile`](crate::FixedFile) is gone. It has the options of its
/// listener, such as `TCP_NODELAY`; [`set_option`](super::set_option) sets others.
///
/// ```
/// # use rummelplatz::{Completion, ControlFlow, FixedFile, RingOperation, Submitter, request, ring};
/// # use rummelplatz::request::Request;
/// # use std::{error::Error, io, io::Read, net::{TcpListener, TcpStream}, num::NonZeroU32};
/// # #[ring]
/// # struct Server { acceptor: Acceptor, greetings: Greetings }
/// # #[derive(RingOperation)]
/// # #[ring_operation(ring = Server, data = TcpListener, error = io::Error, on_more, on_final)]
/// # struct Acceptor;
/// # #[derive(RingOperation)]
/// # #[ring_operation(ring = Server, data = Greeting)]
/// # struct Greetings;
/// struct Greeting { client: FixedFile }
///
/// impl Greeting {
///     fn request(&mut self) -> Request<'_> {
///         request::send(&self.client, b"hello")
///     }
/// }
///
/// # impl Acceptor {
/// fn on_more(&mut self, completion: Completion, _: &mut TcpListener, mut submitter: Submitter<'_, Server, Self>)
///     -> io::Result<()>
/// {
///     let client = completion.into_fixed_file()?;
///     submitter.to(Server::GREETINGS).submit(Greeting { client }, Greeting::request)?;
/// #   submitter.end_stream();
///     Ok(())
/// }
/// #   fn on_final(&mut self, _: Completion, _: TcpListener, _: Submitter<'_, Server, Self>) {}
/// # }
/// # fn main() -> Result<(), Box<dyn Error>> {
/// # let listener = TcpListener::bind("127.0.0.1:0")?;
/// # let mut client = TcpStream::connect(listener.local_addr()?)?;
///
/// let places = NonZeroU32::new(1000).expect("not zero");
/// let mut server = Server::builder(Acceptor, Greetings).direct_descriptors(places).build()?;
/// server.submitter(Server::ACCEPTOR).stream(listener, |it| request::accept_multi_direct(it))?;
/// # server.run()?;
/// # let mut heard = String::new();
/// # client.read_to_string(&mut heard)?;
/// # assert_eq!(heard, "hello");
/// # Ok(()) }
/// ```
///
/// If there is no room in the table, the stream ends with `ENFILE`, *and the connection is closed*: see
/// [`Builder::direct_descriptors`](crate::Builder::direct_descriptors).
pub fn accept_multi_direct<'d>(listener: &'d impl Target) -> Stream<'d> {
    let opcode = with_priority(opcode::Accept::CODE, IORING_ACCEPT_MULTISHOT);
    Parts::direct_on(listener, bare(opcode, -1)).stream()
}

/// Makes a socket, as `socket(2)` (`IORING_OP_SOCKET`, since 5.19). `domain` is one of libc's `AF_*`, such as that of
/// an [address](Address::domain), `kind` one of `SOCK_*`, and `protocol` is 0 or one of `IPPROTO_*`.
///
/// The socket comes out of [`into_fd`](crate::Completion::into_fd), close-on-exec.
pub fn socket<'d>(domain: i32, kind: i32, protocol: i32) -> Request<'d> {
    let entry = making_socket(domain, kind | libc::SOCK_CLOEXEC, protocol);
    Parts::usual(entry).yielding(Yields::Descriptor).request()
}

/// As [`socket`], except that the kernel puts the socket into the ring's table: it comes out of
/// [`into_fixed_file`](crate::Completion::into_fixed_file).
///
/// Ends with `ENFILE` if there is no room in the table: see
/// [`Builder::direct_descriptors`](crate::Builder::direct_descriptors).
pub fn socket_direct<'d>(domain: i32, kind: i32, protocol: i32) -> Request<'d> {
    // The kernel refuses this flag here: no program that is executed has the table.
    let entry = making_socket(domain, kind & !libc::SOCK_CLOEXEC, protocol);
    Parts::direct(entry).request()
}

fn making_socket(domain: i32, kind: i32, protocol: i32) -> Usual {
    let entry = bare(opcode::Socket::CODE.into(), domain);
    Usual { offset: (kind as u32).into(), length: protocol as u32, ..entry }
}

/// Gives a socket an address, as `bind(2)` (`IORING_OP_BIND`, since 6.11).
pub fn bind<'d>(socket: &'d impl Target, address: impl Into<Address>) -> Request<'d> {
    addressed(opcode::Bind::CODE, socket, address.into())
}

/// Makes a socket accept connections, as `listen(2)` (`IORING_OP_LISTEN`, since 6.11).
pub fn listen<'d>(socket: &'d impl Target, backlog: u32) -> Request<'d> {
    let entry = bare(opcode::Listen::CODE.into(), -1);
    Parts::usual_on(socket, Usual { length: backlog, ..entry }).request()
}

/// Connects a socket (`IORING_OP_CONNECT`, since 5.5).
///
/// After this was cancelled, the socket may still connect: close it, and don't use it again.
///
/// ```
/// # use rummelplatz::{Completion, request, request::Request};
/// # use std::{io, net::{SocketAddr, TcpStream}, os::fd::OwnedFd, time::Duration};
/// /// The socket is not connected yet: from [`socket`], say, or from `socket(2)`.
/// struct Connect { socket: OwnedFd, address: SocketAddr }
///
/// impl Connect {
///     fn request(&mut self) -> Request<'_> {
///         request::connect(&self.socket, self.address).deadline(Duration::from_secs(5))
///     }
///     /// For the handler: the connected socket, or why there is none.
///     fn connected(self, completion: Completion) -> io::Result<TcpStream> {
///         completion.in_time()?; // such as ECONNREFUSED, or `TimedOut`
///         Ok(self.socket.into())
///     }
/// }
/// ```
///
/// `examples/proxy.rs` is a whole program that connects.
#[inline(always)]
pub fn connect<'d>(socket: &'d impl Target, address: impl Into<Address>) -> Request<'d> {
    addressed(opcode::Connect::CODE, socket, address.into())
}

// Inlined, for functions that make one of several requests: see `time::timer`.
#[inline(always)]
fn addressed(opcode: u8, socket: &impl Target, address: Address) -> Request<'_> {
    let offset = address.raw().1.into();
    let entry = Usual { offset, ..bare(opcode.into(), -1) };
    Parts::beside_on(socket, entry, Aside::Address(address)).request()
}

/// Receives into `buffer` what has arrived, and waits if nothing has (`IORING_OP_RECV`, since 5.6). The result is the
/// number of bytes; 0 means the end of the stream, or no room in `buffer`.
///
/// ```
/// # use rummelplatz::{Completion, request, request::Request};
/// # use std::{io, net::TcpStream};
/// struct Connection { socket: TcpStream, buffer: Box<[u8]> }
///
/// impl Connection {
///     fn receive(&mut self) -> Request<'_> {
///         request::recv(&self.socket, &mut self.buffer)
///     }
///     /// For the handler: the bytes that were received; none at the end.
///     fn received(&self, completion: &Completion) -> io::Result<&[u8]> {
///         Ok(&self.buffer[..completion.result()? as usize])
///     }
/// }
/// ```
#[inline]
pub fn recv<'d>(socket: &'d impl Target, buffer: &'d mut [u8]) -> Request<'d> {
    transfer(opcode::Recv::CODE, socket, buffer.as_mut_ptr(), buffer.len(), 0)
}

/// As [`recv`], into memory that need not be initialised.
#[inline]
pub fn recv_uninit<'d>(socket: &'d impl Target, buffer: &'d mut [MaybeUninit<u8>]) -> Request<'d> {
    transfer(opcode::Recv::CODE, socket, buffer.as_mut_ptr(), buffer.len(), 0)
}

/// As [`recv`], into a buffer of `pool`, which the kernel takes when something has arrived (`IOSQE_BUFFER_SELECT`, with
/// a [`BufferPool`] since 5.19): so a connection on which nothing happens needs no buffer.
///
/// The bytes come out of [`into_buffer`](crate::Completion::into_buffer); at the end of the stream there are none. The
/// first request that uses the pool registers it with the ring, and may be refused for that
/// ([`PoolInUse`](crate::SubmitError::PoolInUse), [`PoolRefused`](crate::SubmitError::PoolRefused)).
///
/// If the pool has no buffer at that moment, the request ends with `ENOBUFS`, and the bytes stay where they are: unlike
/// a stream, it does not wait for a buffer. Submit it again when a [`Buffer`](crate::Buffer) was dropped.
///
/// An [incremental](BufferPool::incremental) pool is refused.
///
/// It costs some hundred instructions more than [`recv`] (`docs/performance.md`, "Trades"): use it where connections are
/// mostly quiet, and their buffers would take the memory.
///
/// ```
/// # use rummelplatz::{request, request::Request, Buffer, BufferPool};
/// # use std::os::fd::OwnedFd;
/// struct Connection { socket: OwnedFd, pool: BufferPool, received: Buffer }
///
/// impl Connection {
///     fn receive(&mut self) -> Request<'_> {
///         request::recv_provided(&self.socket, &self.pool)
///     }
///     fn send_back(&mut self) -> Request<'_> {
///         request::send(&self.socket, &self.received)
///     }
/// }
/// ```
#[doc(alias = "buffer_select")]
pub fn recv_provided<'d>(socket: &'d impl Target, pool: &BufferPool) -> Request<'d> {
    let opcode = u32::from(opcode::Recv::CODE) | sqe::BUFFER_SELECT;
    Parts::from_pool(socket, bare(opcode, -1), pool).request()
}

/// Receives again and again, each time into a buffer of `pool` (`IORING_RECV_MULTISHOT`, since 6.0).
///
/// A completion's bytes come out of [`into_buffer`](crate::Completion::into_buffer). The stream ends with an empty
/// buffer at the end of file, or with an error.
///
/// When the pool has run out, the handler sees `ENOBUFS` with [`more`](crate::Completion::more) true: ask
/// [`is_starved`](crate::Completion::is_starved) before `into_buffer()?`, which returns that as an error. If the
/// handler gives the data back, the stream goes on as soon as a [`Buffer`](crate::Buffer) of that pool is dropped,
/// after the streams that waited for one before. While the stream waits, the kernel does not have it. So it notices
/// neither that its peer has ended nor a [`shutdown`], only a [cancel](crate::Submitter::cancel): when you give up a
/// connection, give up its buffers as well.
///
/// If nobody holds a buffer, the ring tries again at once. After the fourth `ENOBUFS` in a row, with no buffer taken
/// out of the pool in between, comes a final one, because waiting would be of no use. (The exception is a buffer that a
/// request which waits [in a worker](Request::in_worker) has: nothing tells of that.) No byte is lost: submit the
/// stream again, as `examples/echo.rs` does.
///
/// With a [`limit`](Stream::limit), the stream ends when it has received that many bytes. From an
/// [incremental](BufferPool::incremental) pool, each buffer is as long as what has come.
///
/// ```
/// # use rummelplatz::{BufferPool, Completion, RingOperation, Submitter, request, ring};
/// # use std::{error::Error, io::{self, Write}, os::unix::net::UnixStream};
/// # #[ring]
/// # struct Server { receivers: Receivers }
/// struct Connection { socket: UnixStream, pool: BufferPool, received: Vec<u8> }
///
/// # #[derive(RingOperation)]
/// # #[ring_operation(ring = Server, data = Connection, warn = io::Error, on_more, on_final)]
/// # struct Receivers { received: Vec<u8> }
/// # impl Receivers {
/// fn on_more(&mut self, completion: Completion, connection: &mut Connection, _: Submitter<'_, Server, Self>)
///     -> io::Result<()>
/// {
///     let buffer = completion.into_buffer()?; // Goes back to its pool when it is dropped.
///     connection.received.extend_from_slice(&buffer);
///     Ok(())
/// }
/// #   fn on_final(&mut self, completion: Completion, connection: Connection, _: Submitter<'_, Server, Self>)
/// #       -> io::Result<()>
/// #   {
/// #       self.received = connection.received;
/// #       completion.result().map(drop)
/// #   }
/// # }
/// # fn main() -> Result<(), Box<dyn Error>> {
/// # let (socket, mut other) = UnixStream::pair()?;
/// # other.write_all(b"hello")?;
/// # drop(other);
/// # let mut server = Server::builder(Receivers { received: Vec::new() }).build()?;
///
/// let pool = BufferPool::new(64, 4096)?;
/// let connection = Connection { socket, pool, received: Vec::new() };
/// let mut submitter = server.submitter(Server::RECEIVERS);
/// submitter.stream(connection, |it| request::recv_multi(&it.socket, &it.pool))?;
/// # server.run()?;
/// # assert_eq!(server.receivers.received, b"hello");
/// # Ok(()) }
/// ```
#[doc(alias = "recv_multishot")]
pub fn recv_multi<'d>(socket: &'d impl Target, pool: &BufferPool) -> Stream<'d> {
    let opcode = with_priority(opcode::Recv::CODE, IORING_RECV_MULTISHOT) | sqe::BUFFER_SELECT;
    Parts::from_pool(socket, bare(opcode, -1), pool).stream()
}

/// As [`recv_multi`], but one completion may be about several buffers: all that had arrived, or as much of it as the
/// kernel takes at once (`IORING_RECVSEND_BUNDLE`, since 6.10; `EINVAL` before).
///
/// The buffers come out of [`into_buffers`](crate::Completion::into_buffers); at the end there are none. This pays
/// where messages are larger than the buffers: it takes one completion for all buffers, not one for each.
/// [`send_vectored`] sends them on. From an [incremental](BufferPool::incremental) pool, there is one buffer each time.
pub fn recv_multi_bundle<'d>(socket: &'d impl Target, pool: &BufferPool) -> Stream<'d> {
    let priority = IORING_RECV_MULTISHOT | IORING_RECVSEND_BUNDLE;
    let opcode = with_priority(opcode::Recv::CODE, priority) | sqe::BUFFER_SELECT;
    Parts::from_pool(socket, bare(opcode, -1), pool).yielding(Yields::Bundle).stream()
}

/// Receives datagrams, and the address of their senders, again and again, each into a buffer of `pool`
/// (`IORING_OP_RECVMSG` with `IORING_RECV_MULTISHOT`, since 6.0).
///
/// The datagrams come out of [`into_datagram`](crate::Completion::into_datagram).
/// [`Datagram::OVERHEAD`](crate::Datagram::OVERHEAD) bytes of each buffer are for what the kernel says about the
/// datagram; buffers smaller than that end the stream with `EFAULT`. Bytes that do not fit into the rest are lost, as
/// [`is_truncated`](crate::Datagram::is_truncated) says. When the pool has run out, the stream behaves as
/// [`recv_multi`].
///
/// An [incremental](BufferPool::incremental) pool is refused.
///
/// An empty datagram with a sender is delivered like any other. An empty one without a sender ends the stream, because
/// the end of a stream socket looks the same.
#[doc(alias = "recvmsg_multishot")]
pub fn recv_from_multi<'d>(socket: &'d impl Target, pool: &BufferPool) -> Stream<'d> {
    let entry = receiving_datagrams(&datagram::ASKED);
    Parts::from_pool(socket, entry, pool).yielding(Yields::Datagram).stream()
}

/// As [`recv_from_multi`], with room for control messages: [`messages`](crate::Datagram::messages) says what the
/// socket's options ask for, such as the size of joined datagrams
/// ([`UDP_GRO`](super::SocketOption::udp_gro)), or [where they were sent to](super::SocketOption::tell_packet_info).
///
/// [`Datagram::OVERHEAD_WITH_CONTROL`](crate::Datagram::OVERHEAD_WITH_CONTROL) bytes of each buffer are for what the
/// kernel says. Descriptors that come over a Unix socket are closed: [`recv_message`] is for those.
///
/// ```
/// # use rummelplatz::{request, BufferPool, Completion, Datagram, RingOperation, Submitter, ring};
/// # use std::{error::Error, io, net::UdpSocket};
/// # #[ring]
/// # struct Server { receivers: Receivers }
/// /// The socket's option `UDP_GRO` is set: `SocketOption::udp_gro(true)`.
/// struct Receiver { socket: UdpSocket, pool: BufferPool }
///
/// # #[derive(RingOperation)]
/// # #[ring_operation(ring = Server, data = Receiver, warn = io::Error, on_more, on_final)]
/// # struct Receivers { received: Vec<u8> }
/// # impl Receivers {
/// fn on_more(&mut self, completion: Completion, _: &mut Receiver, mut submitter: Submitter<'_, Server, Self>)
///     -> io::Result<()>
/// {
///     let joined = completion.into_datagram()?;
///     for datagram in joined.messages().datagrams(&joined) {
///         println!("{:?}: {} bytes", joined.peer(), datagram.len());
/// #       self.received.extend_from_slice(datagram);
///     }
/// #   submitter.end_stream();
///     Ok(())
/// }
/// #   fn on_final(&mut self, _: Completion, _: Receiver, _: Submitter<'_, Server, Self>) {}
/// # }
/// # fn main() -> Result<(), Box<dyn Error>> {
/// # let (socket, client) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
/// # client.send_to(b"hello", socket.local_addr()?)?;
/// # let mut server = Server::builder(Receivers { received: Vec::new() }).build()?;
///
/// // What is joined has 64 KiB at most.
/// let pool = BufferPool::new(16, 65536 + Datagram::OVERHEAD_WITH_CONTROL)?;
/// let receiver = Receiver { socket, pool };
/// let mut submitter = server.submitter(Server::RECEIVERS);
/// submitter.stream(receiver, |it| request::recv_message_multi(&it.socket, &it.pool))?;
/// # server.run()?;
/// # assert_eq!(server.receivers.received, b"hello");
/// # Ok(()) }
/// ```
#[doc(alias = "recvmsg_multishot")]
pub fn recv_message_multi<'d>(socket: &'d impl Target, pool: &BufferPool) -> Stream<'d> {
    // Whoever forks must not hand on the descriptors that are closed here.
    let op_flags = libc::MSG_CMSG_CLOEXEC as u32;
    let entry = Usual { op_flags, ..receiving_datagrams(&datagram::ASKED_WITH_CONTROL) };
    Parts::from_pool(socket, entry, pool).yielding(Yields::Message).stream()
}

fn receiving_datagrams(asked: &'static Header) -> Usual {
    let opcode = with_priority(opcode::RecvMsg::CODE, IORING_RECV_MULTISHOT) | sqe::BUFFER_SELECT;
    let address = (&raw const *asked).expose_provenance() as u64;
    Usual { address, length: 1, ..bare(opcode, -1) }
}

/// Sends as much of `buffer` as the socket takes (`IORING_OP_SEND`, since 5.6). The result is the number of bytes.
///
/// If the peer is gone, the error is `EPIPE`; there is never a signal (`MSG_NOSIGNAL`). Given to
/// [`detach`](crate::Submitter::detach), it goes out whole (`MSG_WAITALL`), as all sends do.
///
/// Beware of Unix datagram sockets whose receiver is slow: a send that has to wait because the receiver's queue is full
/// arrives as an empty datagram, with the result 0 (seen on 6.18, with all requests that send). On a connected socket,
/// [`poll_first`](Request::poll_first) prevents that, as long as nobody else fills the queue meanwhile.
///
/// The socket may take only a part. So count what is sent, and submit the rest; or let the kernel go on with
/// [`whole`](Request::whole):
///
/// ```
/// # use rummelplatz::{request, request::Request};
/// # use std::net::TcpStream;
/// struct Answer { socket: TcpStream, bytes: Vec<u8>, sent: usize }
///
/// impl Answer {
///     fn request(&mut self) -> Request<'_> {
///         request::send(&self.socket, &self.bytes[self.sent..])
///     }
///     /// For the handler: the rest after `sent` more bytes, to be submitted again.
///     fn rest(mut self, sent: u32) -> Option<Answer> {
///         self.sent += sent as usize;
///         (self.sent < self.bytes.len()).then_some(self)
///     }
/// }
/// ```
#[inline]
pub fn send<'d>(socket: &'d impl Target, buffer: &'d [u8]) -> Request<'d> {
    transfer(opcode::Send::CODE, socket, buffer.as_ptr(), buffer.len(), libc::MSG_NOSIGNAL as u32)
}

/// Sends as much of these pieces as the socket takes, in order (`IORING_OP_SENDMSG`, since 5.3), as `sendmsg(2)`. The
/// result is the number of bytes.
///
/// The pieces may be [`Buffers`](crate::Buffers) that were received. Pieces that are neighbours in memory count as one.
/// More than four others take an allocation, and those after the 1024th are left out (`UIO_MAXIOV`): check how much was
/// sent. More than that are refused (`EMSGSIZE`) where nobody would be told, that is if the request is
/// [detached](crate::Submitter::detach) or in a [chain](crate::Submitter::chain), and where [all](Request::whole) must
/// be sent. Otherwise as [`send`].
///
/// For files other than sockets, there is [`write_vectored`](super::write_vectored).
#[doc(alias = "sendmsg")]
pub fn send_vectored<'d>(socket: &'d impl Target, pieces: impl IntoIterator<Item = &'d [u8]>) -> Request<'d> {
    send_pieces(opcode::SendMsg::CODE, socket, pieces)
}

#[inline(always)]
fn send_pieces<'d>(
    opcode: u8,
    socket: &'d impl Target,
    pieces: impl IntoIterator<Item = &'d [u8]>,
) -> Request<'d> {
    send_headed(opcode, socket, pieces, Header::default())
}

#[inline(always)]
fn send_headed<'d>(
    opcode: u8,
    socket: &'d impl Target,
    pieces: impl IntoIterator<Item = &'d [u8]>,
    header: Header,
) -> Request<'d> {
    let pieces = pieces.into_iter().map(|piece| Piece::new(piece.as_ptr(), piece.len()));
    let aside = Aside::Message(header, pieces.collect());
    Parts::beside_on(socket, to_be_sent(opcode), aside).request()
}

/// An entry that sends the message that is kept beside it.
#[inline(always)]
fn to_be_sent(opcode: u8) -> Usual {
    Usual { length: 1, op_flags: libc::MSG_NOSIGNAL as u32, ..bare(opcode.into(), -1) }
}

/// Receives a datagram into `buffer`, and its sender's address into `peer` (`IORING_OP_RECVMSG`, since 5.3), as
/// `recvfrom(2)`. The result is the number of bytes; the rest of a longer datagram is lost.
#[doc(alias = "recvfrom")]
pub fn recv_from<'d>(socket: &'d impl Target, buffer: &'d mut [u8], peer: &'d mut Peer) -> Request<'d> {
    let address = peer.receive(Piece::new(buffer.as_mut_ptr(), buffer.len()));
    let entry = Usual { address, length: 1, ..bare(opcode::RecvMsg::CODE.into(), -1) };
    Parts::usual_on(socket, entry).request()
}

/// Sends a datagram to `address` (`IORING_OP_SENDMSG`, since 5.3), as `sendto(2)`. The result is the number of bytes.
///
/// No signal is raised (`MSG_NOSIGNAL`).
#[doc(alias = "sendto")]
pub fn send_to<'d>(socket: &'d impl Target, buffer: &'d [u8], address: impl Into<Address>) -> Request<'d> {
    send_datagram(opcode::SendMsg::CODE, socket, buffer, address.into())
}

#[inline(always)]
fn send_datagram<'d>(opcode: u8, socket: &'d impl Target, buffer: &'d [u8], address: Address) -> Request<'d> {
    let piece = Piece::new(buffer.as_ptr(), buffer.len());
    let aside = Aside::Datagram(Header::default(), piece, address);
    Parts::beside_on(socket, to_be_sent(opcode), aside).request()
}

/// As [`send_vectored`], with control messages, and perhaps to an [address](Control::to): as all that `sendmsg(2)` can
/// do (`IORING_OP_SENDMSG`; with control messages since 5.12, `EINVAL` before).
///
/// They are sent with the first byte. If the kernel sends the rest later ([`whole`](Request::whole), or
/// [detached](crate::Submitter::detach)), they are not sent again. (That is so since 6.4. Before, they are; and a
/// message that has to wait for room ends with `EFAULT`.)
///
/// ```
/// # use rummelplatz::{request, request::{Request, SendControl}};
/// # use std::net::{SocketAddr, UdpSocket};
/// /// Many datagrams for one peer, one after the other.
/// struct Burst { socket: UdpSocket, datagrams: Vec<u8>, peer: SocketAddr, control: SendControl }
///
/// impl Burst {
///     fn request(&mut self) -> Request<'_> {
///         let control = self.control.start().to(self.peer).segment_size(1200);
///         request::send_message(&self.socket, [&self.datagrams[..]], control)
///     }
/// }
/// ```
///
/// [`SendControl`](super::SendControl) has an example that passes a file.
#[doc(alias = "sendmsg")]
pub fn send_message<'d>(
    socket: &'d impl Target,
    pieces: impl IntoIterator<Item = &'d [u8]>,
    control: Control<'d>,
) -> Request<'d> {
    send_headed(opcode::SendMsg::CODE, socket, pieces, control.header())
}

/// As [`send_message`], but the bytes are not copied: see [`send_zc`] (`IORING_OP_SENDMSG_ZC`, since 6.1).
#[doc(alias = "sendmsg_zc")]
pub fn send_message_zc<'d>(
    socket: &'d impl Target,
    pieces: impl IntoIterator<Item = &'d [u8]>,
    control: Control<'d>,
) -> Request<'d> {
    send_headed(opcode::SendMsgZc::CODE, socket, pieces, control.header())
}

/// Receives into `buffer` as [`recv_from`], and into `control` all that comes with the message: descriptors, the
/// size of joined datagrams, where they were sent to, and more (`IORING_OP_RECVMSG`; with control messages since
/// 5.12, `EINVAL` before). The result is the number of bytes.
///
/// What comes with a message is mostly an option of the socket: see [`ControlMessages`](super::ControlMessages).
/// Descriptors always come, and are opened close-on-exec (`MSG_CMSG_CLOEXEC`).
///
/// ```
/// # use rummelplatz::{request, request::{RecvControl, Request}, Completion};
/// # use std::{io, net::UdpSocket};
/// /// The socket's option `UDP_GRO` is set: 64 KiB are room for all datagrams that may be joined.
/// struct Receiving { socket: UdpSocket, buffer: Box<[u8; 65536]>, control: RecvControl }
///
/// impl Receiving {
///     fn request(&mut self) -> Request<'_> {
///         request::recv_message(&self.socket, &mut self.buffer[..], &mut self.control)
///     }
///     /// For the handler: the datagrams that were received.
///     fn datagrams(&self, completion: &Completion) -> io::Result<impl Iterator<Item = &[u8]>> {
///         let bytes = &self.buffer[..completion.result()? as usize];
///         Ok(self.control.messages().datagrams(bytes))
///     }
/// }
/// ```
///
/// [`RecvControl`] has an example that receives files.
#[doc(alias = "recvmsg")]
pub fn recv_message<'d>(
    socket: &'d impl Target,
    buffer: &'d mut [u8],
    control: &'d mut RecvControl,
) -> Request<'d> {
    let address = control.receive(Piece::new(buffer.as_mut_ptr(), buffer.len()));
    let op_flags = libc::MSG_CMSG_CLOEXEC as u32;
    let entry = Usual { address, length: 1, op_flags, ..bare(opcode::RecvMsg::CODE.into(), -1) };
    Parts::usual_on(socket, entry).request()
}

/// As [`send`], but the bytes are not copied: the network takes them from where they are (`IORING_OP_SEND_ZC`, since
/// 6.0). Worth it from some ten KiB on. The loopback interface copies all the same.
///
/// The buffer is in use until the peer has taken everything. Only then is the handler called, once, with what `send`
/// would have said, although the kernel posts two completions. As long as the socket is open, nothing on our side
/// hurries that, neither a cancel nor a [`shutdown`]. So a peer that does not read keeps a teardown waiting; the
/// builder has a [`deadline`](crate::Builder::deadline) for that.
///
/// On sockets that don't support it, such as those of `AF_UNIX`, the request ends with `EOPNOTSUPP`. Memory in flight
/// counts towards `RLIMIT_MEMLOCK` (`ENOMEM`).
#[inline]
pub fn send_zc<'d>(socket: &'d impl Target, buffer: &'d [u8]) -> Request<'d> {
    transfer(opcode::SendZc::CODE, socket, buffer.as_ptr(), buffer.len(), libc::MSG_NOSIGNAL as u32)
}

/// As [`send_zc`], out of memory that the ring has registered (`IORING_RECVSEND_FIXED_BUF`, since 6.0), which need not
/// be pinned again for each send.
///
/// If its [`FixedBuffers`](crate::FixedBuffers) are not registered with the ring, this ends with `EFAULT`.
#[inline]
pub fn send_zc_fixed<'d>(socket: &'d impl Target, buffer: impl Into<FixedSlice<'d>>) -> Request<'d> {
    const IORING_RECVSEND_FIXED_BUF: u32 = 1 << 2;
    let FixedSlice { bytes, place: memory } = buffer.into();
    let opcode = with_priority(opcode::SendZc::CODE, IORING_RECVSEND_FIXED_BUF);
    let entry = on_memory(opcode, bytes.as_ptr(), bytes.len());
    let entry = Usual { op_flags: libc::MSG_NOSIGNAL as u32, ..entry };
    Parts::about(socket, entry, Some(memory)).request()
}

/// As [`send_vectored`], but the bytes are not copied: see [`send_zc`] (`IORING_OP_SENDMSG_ZC`, since 6.1).
///
/// Each piece takes a part of the socket's buffer for itself, so of many small ones the socket takes fewer bytes than
/// [`send_vectored`] would send. Those are better copied.
pub fn send_vectored_zc<'d>(
    socket: &'d impl Target,
    pieces: impl IntoIterator<Item = &'d [u8]>,
) -> Request<'d> {
    send_pieces(opcode::SendMsgZc::CODE, socket, pieces)
}

/// As [`send_to`], but the bytes are not copied: see [`send_zc`] (`IORING_OP_SENDMSG_ZC`, since 6.1). They are in use
/// until the network has sent the datagram; nobody waits for its receiver.
// `IORING_OP_SEND_ZC` takes an address as well, since 6.0. But it has the length of the address behind the `user_data`,
// so it would be no usual entry.
pub fn send_to_zc<'d>(socket: &'d impl Target, buffer: &'d [u8], address: impl Into<Address>) -> Request<'d> {
    send_datagram(opcode::SendMsgZc::CODE, socket, buffer, address.into())
}

/// Shuts down one or both directions of a socket (`IORING_OP_SHUTDOWN`, since 5.11). The kernel leaves this to a worker
/// thread; to do it at once, call `shutdown(2)`.
pub fn shutdown<'d>(socket: &'d impl Target, how: Shutdown) -> Request<'d> {
    let how = match how {
        Shutdown::Read => libc::SHUT_RD,
        Shutdown::Write => libc::SHUT_WR,
        Shutdown::Both => libc::SHUT_RDWR,
    };
    let entry = bare(opcode::Shutdown::CODE.into(), -1);
    Parts::usual_on(socket, Usual { length: how as u32, ..entry }).request()
}
