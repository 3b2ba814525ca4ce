//! What can be asked of the kernel, as safe values.
//!
//! Each function here builds a [`Request`] or a [`Stream`] that borrows what the kernel will use, buffers and
//! descriptors. It borrows them for `'d`, the time that the data of the request spends in its slot. A request
//! is given to [`submit`](crate::Submitter::submit), a stream to [`stream`](crate::Submitter::stream), inside
//! the closure that gets the data:
//!
//! ```no_run
//! # use rummelplatz::{request, request::Request};
//! # use std::os::fd::OwnedFd;
//! struct Connection { socket: OwnedFd, buffer: Box<[u8]>, received: usize }
//!
//! impl Connection {
//!     fn receive(&mut self) -> Request<'_> {
//!         request::recv(&self.socket, &mut self.buffer)
//!     }
//!     fn send_back(&mut self) -> Request<'_> {
//!         request::send(&self.socket, &self.buffer[..self.received])
//!     }
//! }
//! ```
//!
//! What the kernel reads only while it takes an entry in (a time, an address to connect to, the pieces
//! of a vector) is passed by value. What it reads later (an option, control messages) is borrowed, as buffers are.
//!
//! One request moves at most 0x7fff_f000 bytes (2 GiB less a page, `MAX_RW_COUNT`): check how many were
//! moved. Where nobody would be told, [detached](crate::Submitter::detach) or in a
//! [chain](crate::Submitter::chain), and where [all](Request::whole) are to be moved, a request for more is
//! refused (`EINVAL`; `EMSGSIZE` if pieces are sent). [`send`] and [`recv`] refuse a slice of 2 GiB or more
//! in any case: `EINVAL`.
//!
//! | | requests | streams |
//! |---|---|---|
//! | time | [`timeout`], [`timeout_at`], [`timeout_at_time`] | [`timeout_multi`], [`timeout_multi_times`] |
//! | connections | [`socket`], [`bind`], [`listen`], [`accept`], [`accept_from`], [`connect`], [`shutdown`]; in the ring's table [`socket_direct`], [`accept_direct`], [`accept_from_direct`] | [`accept_multi`], [`accept_multi_direct`] |
//! | options and queues of sockets | [`set_option`], [`get_option`], [`bytes_to_receive`], [`bytes_to_acknowledge`] | |
//! | bytes of sockets | [`recv`], [`recv_uninit`], [`recv_provided`], [`recv_from`], [`send`], [`send_to`], [`send_vectored`], [`send_zc`], [`send_zc_fixed`], [`send_to_zc`], [`send_vectored_zc`]; with control messages [`recv_message`], [`send_message`], [`send_message_zc`] | [`recv_multi`], [`recv_multi_bundle`], [`recv_from_multi`], [`recv_message_multi`] |
//! | bytes of files, pipes and all else | [`read_at`], [`readv_at`], [`read_vectored_at`], [`read_fixed_at`], [`write_at`], [`writev_at`], [`write_vectored_at`], [`write_fixed_at`], [`read_vectored_fixed_at`], [`write_vectored_fixed_at`], [`read_provided_at`], each also without `_at`; [`read_uninit`], [`read_at_uninit`]; [`splice`], [`tee`] | [`read_multi`] |
//! | files | [`openat`], [`openat_direct`], [`fsync`], [`fdatasync`], [`sync_file_range`], [`fallocate`], [`ftruncate`], [`fadvise`], [`fstat`] | |
//! | names | [`statx`], [`unlinkat`], [`renameat`], [`linkat`], [`symlinkat`], [`mkdirat`], [`rmdirat`] | |
//! | attributes | [`getxattr`], [`setxattr`], [`fgetxattr`], [`fsetxattr`] | |
//! | processes | [`waitid`] | |
//! | words that threads wait for | [`futex_wait`], [`futex_wake`] | |
//! | anything | [`poll`], [`close`], [`install`], [`pipe`], [`epoll_wait`], [`nop`] | [`poll_multi`] |
//!
//! Any request, but no stream, can be given a [deadline](Request::deadline). Those that send or receive can
//! be told to move [all of their bytes](Request::whole), and those that read or write,
//! [how](Request::rw_flags) to do that. What is likely to wait can be left to a [worker](Request::in_worker),
//! or wait [for its socket](Request::poll_first). Streams that receive from a socket can be given a
//! [limit](Stream::limit), and those of connections can [go on](Stream::retry_after) after an error.
//!
//! The kernel always leaves some of these to its worker threads, which costs a few microseconds: those about
//! names, room on disk or attributes, [`fsync`], [`splice`], [`tee`] and [`shutdown`]. It leaves reads and
//! writes of files to them if these would have to wait for the disk.
//!
//! What is not here can be asked for with a [raw entry](crate::Submitter::push).
//!
//! # Why this is sound
//!
//! A `Request<'d>` proves that its pointers and descriptors are good for `'d`, and the closure that
//! builds it must work for *every* `'d`, up to `'static`; so they come from the data or live for
//! ever. The data stays in its slot, unmoved and unread, until the final completion.

use std::fmt;
use std::marker::PhantomData;
use std::num::NonZeroU32;
use std::time::Duration;

use io_uring::{opcode, squeue};

use crate::facts::{Flags, Yields};

mod address;
mod aside;
mod attributes;
mod children;
mod control;
mod datagram;
mod draft;
mod entry;
mod epoll;
mod files;
mod futexes;
mod general;
mod options;
mod paths;
mod peer;
mod pipes;
mod placed;
mod sockets;
pub(crate) mod sqe;
mod target;
#[cfg(test)]
mod tests;
mod time;

use draft::{Draft, Parts};

pub(crate) use aside::Aside;
pub(crate) use draft::{Besides, Prepared};
pub(crate) use placed::{
    Bare, More, Placed, Queue, Record, Slab, Terms, arm_again, place, place_into, place_message, place_stream,
};

pub use address::Address;
pub use attributes::*;
pub use children::*;
pub use control::{
    Control, ControlMessage, ControlMessages, Credentials, FillControl, PacketInfo, RecvControl, SendControl,
};
pub use datagram::Datagram;
pub(crate) use datagram::Layout;
pub use epoll::*;
pub use files::*;
pub use futexes::*;
pub use general::*;
pub use options::*;
pub use paths::*;
pub use peer::Peer;
pub use pipes::*;
pub use sockets::*;
pub use target::Target;
pub use time::*;

/// One thing to do, which ends with one completion.
///
/// Made by the functions of [this module](self), within the closure given to
/// [`submit`](crate::Submitter::submit); [`stream`](crate::Submitter::stream) takes a [`Stream`]. It borrows
/// from the request's data for `'d` and can't be kept or copied.
#[must_use = "a request does nothing until it is submitted"]
pub struct Request<'d> {
    parts: Parts<'d>,
    borrows: PhantomData<&'d mut ()>,
}

/// A multishot request: one submission, many completions.
///
/// Given to [`stream`](crate::Submitter::stream); [`submit`](crate::Submitter::submit) takes a [`Request`]. A
/// stream uses no buffers of the data: what it receives is in buffers of a [`BufferPool`](crate::BufferPool).
#[must_use = "a stream does nothing until it is submitted"]
pub struct Stream<'d> {
    parts: Parts<'d>,
    idle_limit: Option<Duration>,
    borrows: PhantomData<&'d mut ()>,
}

impl Request<'_> {
    /// Cancels the request if it is not over after this much time. Of several calls, the last counts.
    ///
    /// The time begins when the request is submitted, and may be up to a hundredth longer, so that the
    /// deadlines of many requests pass at once. Afterwards, [`timed_out`](crate::Completion::timed_out) says
    /// whether the deadline has passed. If so, the result depends on how far the request has come: mostly it
    /// is `ECANCELED` (which [`in_time`](crate::Completion::in_time) calls `TimedOut`), but a part of the bytes may
    /// have been moved, or all.
    ///
    /// The ring keeps the deadline itself. A timer of the kernel (`IORING_OP_TIMEOUT`, since 5.4) wakes the ring
    /// when the earliest deadline passes. So a request takes no entry of the submission queue and no completion
    /// for its deadline; the timer takes one of each now and then, for all of them. In a ring that is restricted
    /// and may set no timers, the run ends with [`RingError::Api`](crate::RingError::Api).
    ///
    /// A request that a worker of the kernel is at work on may outlast its deadline: mostly, a worker that waits
    /// for a disk can't be interrupted.
    ///
    /// In a [chain](crate::Submitter::chain), the kernel keeps the deadline, because only the kernel knows
    /// when it begins with the request. It does so with a linked timeout (`IORING_OP_LINK_TIMEOUT`, since
    /// 5.5), which takes an entry and a completion, and the ring waits for that completion, too. A linked
    /// timeout does not fire while a worker waits in the middle of a request (seen on 6.18), so deadlines in
    /// chains are for reads and writes.
    ///
    /// ```
    /// # use rummelplatz::{request, request::Request};
    /// # use std::{os::fd::OwnedFd, time::Duration};
    /// # struct Connection { socket: OwnedFd, buffer: Box<[u8]> }
    /// # impl Connection {
    /// fn receive(&mut self) -> Request<'_> {
    ///     request::recv(&self.socket, &mut self.buffer).deadline(Duration::from_secs(5))
    /// }
    /// # }
    /// ```
    #[doc(alias = "link_timeout")]
    #[inline(always)]
    pub fn deadline(mut self, time: Duration) -> Self {
        self.parts.time = Some(time);
        self
    }

    /// Makes a send or a [`recv`] go on until all of its bytes are moved (`MSG_WAITALL`, since 5.19).
    ///
    /// Other requests stay as they are.
    ///
    /// The result is less than all only if the stream of bytes has ended or failed on the way, or if the
    /// request was cancelled: then it says how many were moved by then.
    ///
    /// If the peer answers while it is still receiving, as an echo does, a send of more than the buffers of both
    /// sockets hold ends only if the answer is received at the same time.
    ///
    /// ```
    /// # use rummelplatz::{request, request::Request};
    /// # use std::os::fd::OwnedFd;
    /// # struct Connection { socket: OwnedFd, head: [u8; 16] }
    /// # impl Connection {
    /// fn receive_head(&mut self) -> Request<'_> {
    ///     request::recv(&self.socket, &mut self.head).whole()
    /// }
    /// # }
    /// ```
    #[doc(alias = "MSG_WAITALL")]
    #[doc(alias = "read_exact")]
    #[doc(alias = "write_all")]
    #[inline(always)]
    pub fn whole(mut self) -> Self {
        self.parts.entry.move_whole();
        self
    }

    /// Says how a read or a write is done.
    ///
    /// This is for `read`, `write`, and their variants with vectors, registered memory or a pool; other
    /// requests stay as they are. The flags of several calls add up.
    ///
    /// ```
    /// # use rummelplatz::{request, request::{Request, RwFlags}};
    /// # use std::{fs::File, sync::Arc};
    /// # struct Line { log: Arc<File>, text: Vec<u8> }
    /// # impl Line {
    /// fn append(&mut self) -> Request<'_> {
    ///     request::write(&self.log, &self.text).rw_flags(RwFlags::APPEND | RwFlags::DSYNC)
    /// }
    /// # }
    /// ```
    #[inline(always)]
    pub fn rw_flags(mut self, flags: RwFlags) -> Self {
        self.parts.entry.add_rw_flags(flags.bits());
        self
    }

    /// Leaves the request to a worker thread of the kernel at once (`IOSQE_ASYNC`, since 5.6).
    ///
    /// Otherwise, the kernel would first try it in the ring's own thread, and look whether it would have to
    /// wait.
    ///
    /// Worth it for what takes long even though it does not wait, such as a large read out of the page cache,
    /// or a write with [`RwFlags::DSYNC`]: the ring goes on meanwhile. It costs more in all, and each worker
    /// that waits is a thread that waits: see [`worker_limits`](crate::Builder::worker_limits). A request
    /// into a [`BufferPool`](crate::BufferPool) that is left to a worker may have its buffer from the
    /// beginning.
    #[doc(alias = "IOSQE_ASYNC")]
    #[inline(always)]
    pub fn in_worker(mut self) -> Self {
        self.parts.add(squeue::Flags::ASYNC);
        self.parts.flags.insert(Flags::IN_WORKER);
        self
    }

    /// Makes a send, a receive or an accept wait until its socket is ready, without trying it before.
    ///
    /// This needs `IORING_RECVSEND_POLL_FIRST` (since 5.19) or `IORING_ACCEPT_POLL_FIRST` (since 6.10;
    /// `EINVAL` before). Other requests stay as they are.
    ///
    /// Worth it where the attempt would nearly always be in vain: a receive on a connection that has just
    /// been answered, a send to one that has just taken less than it was given. Where the socket is ready
    /// already, it costs a little more.
    #[inline(always)]
    pub fn poll_first(mut self) -> Self {
        self.parts.entry.poll_first();
        self
    }

    /// Makes the request do all or fail: nobody could see to the rest, or only after the next request of a
    /// chain, which would not know that there is a rest. If the kernel would do only a part of the request,
    /// this changes it so that the kernel refuses it.
    // This is not done where requests are placed: most requests never need it, and it would be in the way of
    // all.
    #[inline]
    pub(crate) fn all_or_nothing(mut self) -> Self {
        let Parts { entry, draft, .. } = &mut self.parts;
        entry.send_whole();
        entry.refuse_part();
        if let Draft::Aside { aside: Aside::Pieces(pieces), .. } | Draft::Pieces { pieces, .. } = draft {
            pieces.refuse_part();
            entry.length = entry::length(pieces.len());
        }
        self
    }

    /// A request made of an entry that the caller answers for.
    ///
    /// # Safety
    ///
    /// What the entry points to must stay valid, and in place, until its final completion: owned by the data
    /// of the request at an address that survives a move, or alive for ever. And the entry must not do what
    /// no safe request could do to others.
    #[inline(always)]
    pub(crate) unsafe fn vouched(entry: squeue::Entry) -> Self {
        let yields = if sqe::yields_descriptor(&entry) { Yields::Descriptor } else { Yields::Result };
        Parts::whole(entry).yielding(yields).request()
    }
}

impl Stream<'_> {
    /// Ends a [`recv_multi`] or a [`recv_multi_bundle`] when it has received this many bytes in all.
    ///
    /// This is the `optlen` of `IORING_RECV_MULTISHOT` (since 6.17; `EINVAL` before). Other streams stay as
    /// they are. Of several calls, the last counts.
    ///
    /// The completion with which the limit is reached is final: [`more`](crate::Completion::more) is false,
    /// the completion carries its bytes, and the data comes back for good. So whoever can't use more than
    /// that yet gets no more, without a cancel, and submits the stream again later. A buffer that is begun is
    /// filled: single buffers may bring more than the limit, by less than one buffer (also of an
    /// [incremental](crate::BufferPool::incremental) pool).
    ///
    /// If the kernel cuts the stream before that, it is armed again for what is left of the limit, whatever
    /// its function says then.
    ///
    /// ```
    /// # use rummelplatz::{request, request::Stream, BufferPool};
    /// # use std::{num::NonZeroU32, os::fd::OwnedFd};
    /// struct Connection { socket: OwnedFd, pool: BufferPool, window: NonZeroU32 }
    ///
    /// impl Connection {
    ///     fn receive(&mut self) -> Stream<'_> {
    ///         request::recv_multi(&self.socket, &self.pool).limit(self.window)
    ///     }
    /// }
    /// ```
    pub fn limit(mut self, bytes: NonZeroU32) -> Self {
        if self.parts.entry.opcode as u8 == opcode::Recv::CODE
            && let Draft::Pool { limit, .. } = &mut self.parts.draft
        {
            *limit = bytes.get();
        }
        self
    }

    /// Ends the stream when it has told of nothing for this long: mostly, when a client has sent nothing.
    ///
    /// The last completion then has `ECANCELED`, or what came of it meanwhile, and
    /// [`timed_out`](crate::Completion::timed_out) is true ([`in_time`](crate::Completion::in_time) is `TimedOut`).
    ///
    /// The time begins when the stream is submitted, and anew with each completion, and may be up to a quarter longer:
    /// the ring looks after the stream four times in that time, and sees whether there was a completion since. So this
    /// costs no timer of the kernel for each stream, and next to nothing for a completion. A limit below a
    /// millisecond counts as one. While a stream waits for a buffer, [rests](Self::retry_after), or is
    /// [paused](crate::Submitter::pause), it is not idle.
    ///
    /// Of several calls, the last counts. If the function of the stream is run again, the first limit stays. In a ring
    /// that is restricted and may set no timers, the run ends with [`RingError::Api`](crate::RingError::Api), as with a
    /// [`deadline`](Request::deadline).
    ///
    /// ```
    /// # use rummelplatz::{BufferPool, Completion, RingOperation, Submitter, request, ring, request::Stream};
    /// # use std::{error::Error, io, net::{TcpListener, TcpStream}, time::Duration};
    /// # #[ring]
    /// # struct Server { receivers: Receivers }
    /// struct Connection { socket: TcpStream, pool: BufferPool }
    ///
    /// impl Connection {
    ///     fn receive(&mut self) -> Stream<'_> {
    ///         request::recv_multi(&self.socket, &self.pool).idle_limit(IDLE)
    ///     }
    /// }
    /// # const IDLE: Duration = Duration::from_millis(4);
    /// # #[derive(RingOperation)]
    /// # #[ring_operation(ring = Server, data = Connection, warn = io::Error, on_more, on_final)]
    /// # struct Receivers { idle: u32 }
    ///
    /// impl Receivers {
    /// #   fn on_more(&mut self, _: Completion, _: &mut Connection, _: Submitter<'_, Server, Self>) {}
    ///     fn on_final(&mut self, completion: Completion, _: Connection, _: Submitter<'_, Server, Self>) -> io::Result<()> {
    ///         if completion.timed_out() {
    ///             self.idle += 1;
    ///             return Ok(()); // The socket is closed, since nobody has it any more.
    ///         }
    ///         completion.result().map(drop)
    ///     }
    /// }
    /// # fn main() -> Result<(), Box<dyn Error>> {
    /// # let listener = TcpListener::bind("127.0.0.1:0")?;
    /// # let _client = TcpStream::connect(listener.local_addr()?)?;
    /// # let connection = Connection { socket: listener.accept()?.0, pool: BufferPool::new(4, 64)? };
    /// # let mut server = Server::builder(Receivers { idle: 0 }).build()?;
    /// # server.submitter(Server::RECEIVERS).stream(connection, Connection::receive)?;
    /// # server.run()?;
    /// # assert_eq!(server.receivers.idle, 1);
    /// # Ok(()) }
    /// ```
    pub fn idle_limit(mut self, time: Duration) -> Self {
        self.idle_limit = Some(time);
        self
    }

    /// Makes an [`accept_multi`] or an [`accept_multi_direct`] go on after an error, with a pause before it does.
    ///
    /// Mostly, accepting fails because there are no descriptors left (`EMFILE`, `ENFILE`). That passes, but trying
    /// again at once would keep the CPU busy until then. Without this, the stream ends; with it, the handler is told
    /// of the error while there is [more](crate::Completion::more) to come, and after the pause (of at least a
    /// millisecond) the ring arms the stream again. If the handler does not return the data, the stream is over.
    /// Meanwhile, connections wait in the queue of the listener.
    ///
    /// Errors that can't pass end the stream all the same: if it was cancelled, if the descriptor can't accept
    /// (`EBADF`, `EFAULT`, `EINVAL`, `ENOTSOCK`, `EOPNOTSUPP`), or if the ring may not do this or the kernel does not
    /// know it (`EACCES`, `EINVAL`, `ENOSYS`). Other streams stay as they are. Of several calls, the last counts.
    ///
    /// ```
    /// # use rummelplatz::{Completion, RingOperation, Submitter, request, ring};
    /// # use std::{error::Error, io, net::{TcpListener, TcpStream}, time::Duration};
    /// # #[ring]
    /// # struct Server { acceptor: Acceptor }
    /// # #[derive(RingOperation)]
    /// # #[ring_operation(ring = Server, data = TcpListener, error = io::Error, setup, on_more, on_final)]
    /// # struct Acceptor;
    /// # impl Acceptor {
    /// # fn setup(&mut self, mut submitter: Submitter<'_, Server, Self>) -> io::Result<()> {
    /// # let listener = TcpListener::bind("127.0.0.1:0")?;
    /// # let _client = TcpStream::connect(listener.local_addr()?)?;
    /// submitter.stream(listener, |it| request::accept_multi(it).retry_after(Duration::from_millis(100)))?;
    /// # Ok(()) }
    /// # fn on_more(&mut self, _: Completion, _: &mut TcpListener, mut submitter: Submitter<'_, Server, Self>) {
    /// #     submitter.handle().stop();
    /// # }
    /// # fn on_final(&mut self, _: Completion, _: TcpListener, _: Submitter<'_, Server, Self>) {}
    /// # }
    /// # fn main() -> Result<(), Box<dyn Error>> { Ok(Server::builder(Acceptor).build()?.run()?) }
    /// ```
    pub fn retry_after(mut self, pause: Duration) -> Self {
        if self.parts.entry.opcode as u8 == opcode::Accept::CODE {
            self.parts.time = Some(pause);
        }
        self
    }
}

impl fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Request({})", sqe::name(self.parts.entry.opcode as u8))
    }
}

impl fmt::Debug for Stream<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stream({})", sqe::name(self.parts.entry.opcode as u8))
    }
}
