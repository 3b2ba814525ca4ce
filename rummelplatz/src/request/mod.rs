//! What can be asked of the kernel, as safe values.
//!
//! Each function here builds a [`Request`] or a [`Stream`] that borrows what the kernel will use:
//! buffers and descriptors, for `'d`, the time that the data of the request spends in its slot.
//! A request is given to [`submit`](crate::Submitter::submit), a stream to
//! [`stream`](crate::Submitter::stream), inside the closure that gets the data:
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
//! of a vector) is passed by value.
//!
//! One request moves at most 0x7fff_f000 bytes (2 GiB less a page, `MAX_RW_COUNT`): check how much was done. Where that
//! would be told nobody, [detached](crate::Submitter::detach) or in a [chain](crate::Submitter::chain), and where
//! [all](Request::whole) is to be moved, more are refused (`EINVAL`; of pieces that are sent, `EMSGSIZE`). A slice of
//! 2 GiB or more is no length to [`send`] and [`recv`], which refuse it everywhere: `EINVAL`.
//!
//! | | requests | streams |
//! |---|---|---|
//! | time | [`timeout`], [`timeout_at`], [`timeout_at_time`] | [`timeout_multi`], [`timeout_multi_times`] |
//! | connections | [`socket`], [`bind`], [`listen`], [`accept`], [`accept_from`], [`connect`], [`shutdown`] | [`accept_multi`] |
//! | bytes of sockets | [`recv`], [`recv_provided`], [`recv_from`], [`send`], [`send_to`], [`send_vectored`], [`send_zc`], [`send_zc_fixed`] | [`recv_multi`], [`recv_multi_bundle`], [`recv_from_multi`] |
//! | bytes of files, pipes and all else | [`read_at`], [`readv_at`], [`read_vectored_at`], [`read_fixed_at`], [`write_at`], [`writev_at`], [`write_vectored_at`], [`write_fixed_at`], [`read_provided_at`], each also without `_at`; [`splice`], [`tee`] | [`read_multi`] |
//! | files | [`openat`], [`fsync`], [`fdatasync`], [`sync_file_range`], [`fallocate`], [`ftruncate`], [`fadvise`], [`fstat`] | |
//! | names | [`statx`], [`unlinkat`], [`renameat`], [`linkat`], [`symlinkat`], [`mkdirat`], [`rmdirat`] | |
//! | attributes | [`getxattr`], [`setxattr`], [`fgetxattr`], [`fsetxattr`] | |
//! | processes | [`waitid`] | |
//! | anything | [`poll`], [`close`], [`nop`] | [`poll_multi`] |
//!
//! Any request, but no stream, can be given a [`deadline`](Request::deadline); those that send or receive can be told to
//! move [all or nothing less](Request::whole), and those that read or write, [how](Request::rw_flags). What is likely to wait
//! can be left to a [worker](Request::in_worker), or [to its socket](Request::poll_first). Streams that
//! receive from a socket can be given a [limit](Stream::limit).
//!
//! Of these, some are left to worker threads of the kernel always, which costs a few microseconds: what is about names, room
//! on disk, attributes or [`fsync`], and [`splice`], [`tee`], [`shutdown`]. Reads and writes of files are if they would have
//! to wait for the disk.
//!
//! What is not here can be asked for by a [raw entry](crate::Submitter::push).
//!
//! # Why this is sound
//!
//! A `Request<'d>` proves that its pointers and descriptors are good for `'d`, and the closure that
//! builds it must work for *every* `'d`, up to `'static`; so they come from the data or live for
//! ever. The data stays in its slot, unmoved and unread, until the final completion.

use std::fmt;
use std::marker::PhantomData;
use std::num::NonZeroU32;
use std::os::fd::{OwnedFd, RawFd};
use std::time::Duration;

use io_uring::types::TimeoutFlags;
use io_uring::{opcode, squeue};

use crate::buffers::BufferPool;
use crate::clock::Stamp;
use crate::facts::{Brief, Facts, Flags, Yields};
use crate::fixed::Registered;
use crate::slab::{self, Identity, Meta, Occupied, Remember, Vacancy};
use crate::user_data::UserData;

mod address;
mod aside;
mod attributes;
mod children;
mod datagram;
mod entry;
mod files;
mod general;
mod paths;
mod peer;
mod sockets;
pub(crate) mod sqe;
mod target;
#[cfg(test)]
mod tests;
mod time;

use sqe::Usual;
use target::Named;

pub(crate) use aside::Aside;

pub use address::Address;
pub use attributes::*;
pub use children::*;
pub use datagram::Datagram;
pub use files::*;
pub use general::*;
pub use paths::*;
pub use peer::Peer;
pub use sockets::*;
pub use target::Target;
pub use time::*;

/// One thing to do: ends with one completion.
///
/// Made by the functions of [this module](self), within the closure given to
/// [`submit`](crate::Submitter::submit); [`stream`](crate::Submitter::stream) takes a [`Stream`]. It borrows from the request's data for `'d` and can't be
/// kept or copied.
#[must_use = "a request does nothing until it is submitted"]
pub struct Request<'d> {
    parts: Parts<'d>,
    borrows: PhantomData<&'d mut ()>,
}

/// A multishot request: one submission, many completions.
///
/// Given to [`stream`](crate::Submitter::stream); [`submit`](crate::Submitter::submit) takes a [`Request`]. A stream takes no buffers of the data: what it
/// receives comes out of a [`BufferPool`].
#[must_use = "a stream does nothing until it is submitted"]
pub struct Stream<'d> {
    parts: Parts<'d>,
    borrows: PhantomData<&'d mut ()>,
}

/// A request, and what its constructor knows about it.
struct Parts<'d> {
    draft: Draft<'d>,
    facts: Facts,
    /// The descriptor of a `close`, owned until the slot takes it over.
    closes: Option<OwnedFd>,
    /// How long it may take.
    deadline: Option<Duration>,
}

/// What the kernel is asked for, before it is known which ring shall ask.
enum Draft<'d> {
    /// That does not matter.
    Prepared(Prepared),
    /// There is something registered in it.
    Fixed(Fixed<'d>),
    /// It is on a registered file, and something is to be kept beside it, or it is given buffers.
    OnFixed { prepared: Prepared, file: &'d Registered },
}

/// A usual entry, but for the indices of what a ring has registered.
struct Fixed<'d> {
    entry: Usual,
    file: Option<&'d Registered>,
    memory: Option<&'d Registered>,
}

/// What it takes to write an entry in the moment it is queued.
pub(crate) enum Prepared {
    Usual(Usual),
    /// A usual one on registered memory, with its index; or one that is given buffers, with the group of its pool.
    Indexed(Usual, u16),
    /// A usual one that [leads to](Usual::lead_to) what is kept beside it until the kernel has taken it in.
    Beside(Usual, Aside),
    /// A usual one that is given buffers, before it is known which group its pool is in the ring: this can't be queued.
    FromPool {
        entry: Usual,
        pool: BufferPool,
        /// How many bytes it receives in all, or 0 for no end.
        limit: u32,
    },
    /// Its fields are not the usual ones.
    Entry(squeue::Entry),
}

/// What a ring says of a request that it accepts.
#[derive(Clone, Copy)]
pub(crate) struct Terms {
    /// Which one it is.
    pub(crate) ring: u64,
    pub(crate) flags: Flags,
    /// When that is.
    pub(crate) born: Stamp,
}

/// A prepared request whose pointers and descriptors stay good until the final completion of its
/// `user_data`: it may be queued.
///
/// Made by [`place`], [`place_stream`] and [`arm_again`], from what the compiler has checked; by
/// [`vouched`](Placed::vouched), from what somebody answers for, as a [`Request`] can be as well; and
/// by [`control`](Placed::control), for entries that point to nothing.
pub(crate) struct Placed {
    prepared: Prepared,
    user_data: u64,
}

impl Request<'_> {
    /// Has the request cancelled if it is not over after so much time. Of several calls, the last counts.
    ///
    /// The time begins when the request is submitted, and may be up to a hundredth longer, so that the deadlines of many
    /// requests pass at once. Afterwards, [`timed_out`](crate::Completion::timed_out) says whether it has passed. What the
    /// result is then depends on how far the request has come: mostly `ECANCELED`, but a part of the bytes may have been
    /// moved, or all.
    ///
    /// The ring keeps the deadline itself. It takes no entry of the submission queue and no completion: one timer of the
    /// kernel (`IORING_OP_TIMEOUT`) wakes the ring for all. What a worker of the kernel is at work on may outlast its
    /// deadline: mostly, one that waits for a disk can't be interrupted.
    ///
    /// In a [chain](crate::Submitter::chain), the kernel keeps it, because only the kernel knows when it begins with the
    /// request: by a linked timeout (`IORING_OP_LINK_TIMEOUT`, since 5.5), which takes an entry, and a completion that is
    /// waited for. A linked timeout does not fire while a worker waits in the middle of a request (seen on 6.18), so
    /// deadlines in chains are for reads and writes.
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
    #[inline(always)]
    pub fn deadline(mut self, time: Duration) -> Self {
        self.parts.deadline = Some(time);
        self
    }

    /// Has a send or a [`recv`] go on until all of its bytes are moved (`MSG_WAITALL`, since 5.19). Other requests stay as
    /// they are.
    ///
    /// The result is less only if the stream has ended or failed on the way, or if the request was cancelled: what was
    /// moved by then counts.
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
    #[inline(always)]
    pub fn whole(mut self) -> Self {
        self.parts.draft.change(Usual::move_whole);
        self
    }

    /// Says how a read or a write is done: `read`, `write`, and their kin with vectors, registered memory or a pool. Other
    /// requests stay as they are. Of several calls, all count.
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
        self.parts.draft.change(|entry| entry.add_rw_flags(flags.bits()));
        self
    }

    /// Leaves the request to a worker thread of the kernel at once (`IOSQE_ASYNC`, since 5.6), which would otherwise try
    /// it first, in the ring's own thread, and look whether it would have to wait.
    ///
    /// Worth it for what takes long even though it does not wait, such as a large read out of the page cache, or a write
    /// with [`RwFlags::DSYNC`]: the ring goes on meanwhile. It costs more in all, and a worker that waits is a thread that
    /// waits: see [`worker_limits`](crate::Builder::worker_limits). Of requests into a [`BufferPool`], such a one may have
    /// its buffer from the beginning.
    #[inline(always)]
    pub fn in_worker(mut self) -> Self {
        self.parts.draft.add(squeue::Flags::ASYNC);
        self.parts.facts.flags.insert(Flags::IN_WORKER);
        self
    }

    /// Has a send, a receive or an accept wait until its socket is ready, without trying it before
    /// (`IORING_RECVSEND_POLL_FIRST`, since 5.19; `IORING_ACCEPT_POLL_FIRST`, since 6.10, before which it is `EINVAL`). Other
    /// requests stay as they are.
    ///
    /// Worth it where the attempt would nearly always be in vain: a receive on a connection that has just been answered, a
    /// send to one that has just taken less than it was given. Where something is there already, it costs a little more.
    #[inline(always)]
    pub fn poll_first(mut self) -> Self {
        self.parts.draft.change(Usual::poll_first);
        self
    }

    /// Has it do all or fail, because nobody could see to the rest, or not before what comes next, which would not know
    /// that there is one. What the kernel would take only a part of, it gets so that it refuses it.
    // Not a part of how requests are placed: what is never asked of most of them would be in the way of all.
    #[inline]
    pub(crate) fn all_or_nothing(mut self) -> Self {
        self.parts.draft.change(|entry| {
            entry.send_whole();
            entry.refuse_part();
        });
        if let Draft::Prepared(prepared) | Draft::OnFixed { prepared, .. } = &mut self.parts.draft
            && let Prepared::Beside(entry, Aside::Pieces(pieces)) = prepared
        {
            pieces.refuse_part();
            entry.length = entry::length(pieces.len());
        }
        self
    }

    /// An entry that somebody else answers for.
    ///
    /// # Safety
    ///
    /// What the entry points to must stay valid, and in place, until its final completion: owned by the data of the
    /// request at an address that survives a move, or alive for ever. And it must not do what no safe request could do to
    /// others.
    #[inline(always)]
    pub(crate) unsafe fn vouched(entry: squeue::Entry) -> Self {
        let yields = if sqe::yields_descriptor(&entry) { Yields::Descriptor } else { Yields::Result };
        Parts::new(entry).yielding(yields).request()
    }
}

impl Stream<'_> {
    /// Has a [`recv_multi`] or a [`recv_multi_bundle`] end when it has received so many bytes in all (`optlen` of
    /// `IORING_RECV_MULTISHOT`, since 6.17; `EINVAL` before). Other streams stay as they are. Of several calls, the last
    /// counts.
    ///
    /// The completion with which it has received them is final: [`more`](crate::Completion::more) is false, the bytes are
    /// in it, and the data comes back for good. So whoever can't use more than that yet is given no more, without a cancel,
    /// and submits the stream again when he can. A buffer that is begun is filled: single ones may bring more than the
    /// limit, by less than one of them.
    ///
    /// When the kernel cuts the stream before, and it is armed again, that is for what is left of the limit, whatever its
    /// function says then.
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
        if self.parts.facts.opcode == opcode::Recv::CODE
            && let Draft::Prepared(prepared) | Draft::OnFixed { prepared, .. } = &mut self.parts.draft
        {
            prepared.set_left(bytes.get());
            self.parts.facts.set_left(bytes.get());
        }
        self
    }
}

impl Placed {
    /// An entry that somebody else answers for.
    ///
    /// # Safety
    ///
    /// What the entry points to must stay valid, and in place, until the final completion of
    /// `user_data`. And it must not do what no safe request could do to others.
    pub(crate) unsafe fn vouched(entry: squeue::Entry, user_data: u64) -> Placed {
        Placed { prepared: Prepared::Entry(entry), user_data }
    }

    /// An entry of the ring's own, which points to nothing.
    pub(crate) fn control(entry: squeue::Entry, user_data: u64) -> Placed {
        Placed { prepared: Prepared::Entry(entry), user_data }
    }

    /// A timer of the ring's own.
    pub(crate) fn alarm(time: Duration, user_data: u64) -> Placed {
        let (entry, time) = time::armed(opcode::Timeout::CODE, time);
        Placed { prepared: Prepared::Beside(entry, Aside::Time(time)), user_data }
    }

    /// Links a timer to it, which ends it after so much time, and is to be queued next.
    pub(crate) fn add_timer(&mut self, time: Duration) -> Placed {
        self.prepared.add(squeue::Flags::IO_LINK);
        let (entry, time) = time::armed(opcode::LinkTimeout::CODE, time);
        let user_data = UserData::of_timer(self.user_data);
        Placed { prepared: Prepared::Beside(entry, Aside::Time(time)), user_data }
    }

    /// Links it to what is queued next, if these flags say so.
    pub(crate) fn link(&mut self, flags: squeue::Flags) {
        self.prepared.add(flags);
        if !flags.is_empty()
            && let Prepared::Beside(timer, Aside::Time(_)) = &mut self.prepared
            && timer.opcode as u8 == opcode::Timeout::CODE
        {
            // One that runs its time has succeeded.
            timer.op_flags |= TimeoutFlags::ETIME_SUCCESS.bits();
        }
    }

    #[inline]
    pub(crate) fn user_data(&self) -> u64 {
        self.user_data
    }

    #[inline]
    pub(crate) fn into_prepared(self) -> Prepared {
        self.prepared
    }

    /// The pool out of which this request receives, as long as it is not [bound](Self::bind).
    #[inline(always)]
    pub(crate) fn pool(&self) -> Option<&BufferPool> {
        match &self.prepared {
            Prepared::FromPool { pool, .. } => Some(pool),
            _ => None,
        }
    }

    /// Has it receive out of this group, which is that of its pool.
    pub(crate) fn bind(&mut self, group: u16) {
        if let Prepared::FromPool { entry, limit, .. } = self.prepared {
            self.prepared = match limit {
                0 => Prepared::Indexed(entry, group),
                _ => Prepared::Entry(entry.limited(group, limit)),
            };
        }
    }

    /// One that is not bound, put together again from what was [in it](Self::into_prepared).
    pub(crate) fn unbound(prepared: Prepared, user_data: u64) -> Placed {
        Placed { prepared, user_data }
    }
}

impl Prepared {
    /// Adds flags of the entry (`IOSQE_*`).
    fn add(&mut self, flags: squeue::Flags) {
        match self {
            Prepared::Entry(entry) => *entry = entry.clone().flags(flags),
            _ => self.change(|entry| entry.opcode |= u32::from(flags.bits()) << sqe::FLAGS_SHIFT),
        }
    }

    /// Changes the entry, if it is a usual one.
    #[inline(always)]
    fn change(&mut self, change: impl FnOnce(&mut Usual)) {
        match self {
            Prepared::Usual(entry)
            | Prepared::Indexed(entry, _)
            | Prepared::Beside(entry, _)
            | Prepared::FromPool { entry, .. } => change(entry),
            Prepared::Entry(_) => {}
        }
    }

    /// Has it end after so many ticks or bytes, if it is a timer, or is given buffers.
    fn set_left(&mut self, left: u32) {
        match self {
            Prepared::Beside(timer, Aside::Time(_)) => timer.offset = left.into(),
            Prepared::FromPool { limit, .. } => *limit = left,
            _ => {}
        }
    }
}

impl Draft<'_> {
    /// Changes the entry, if it is a usual one.
    #[inline(always)]
    fn change(&mut self, change: impl FnOnce(&mut Usual)) {
        match self {
            Draft::Prepared(prepared) | Draft::OnFixed { prepared, .. } => prepared.change(change),
            Draft::Fixed(Fixed { entry, .. }) => change(entry),
        }
    }

    /// Adds flags of the entry (`IOSQE_*`).
    #[inline(always)]
    fn add(&mut self, flags: squeue::Flags) {
        match self {
            Draft::Prepared(prepared) | Draft::OnFixed { prepared, .. } => prepared.add(flags),
            Draft::Fixed(Fixed { entry, .. }) => entry.opcode |= u32::from(flags.bits()) << sqe::FLAGS_SHIFT,
        }
    }

    /// What is to be queued in the ring with this number.
    #[inline(always)]
    fn prepare(self, ring: u64) -> Prepared {
        match self {
            Draft::Prepared(prepared) => prepared,
            Draft::Fixed(fixed) => fixed.prepare(ring),
            Draft::OnFixed { mut prepared, file } => {
                prepared.change(|entry| *entry = on_file_of(ring, file, *entry));
                prepared
            }
        }
    }
}

/// The entry, on this file of the ring. A file that the ring does not have becomes one that nothing is.
#[inline(always)]
fn on_file_of(ring: u64, file: &Registered, mut entry: Usual) -> Usual {
    entry.descriptor = match file.in_ring(ring) {
        Some(index) => {
            entry.opcode |= sqe::FIXED_FILE;
            index as RawFd
        }
        None => -1,
    };
    entry
}

impl Fixed<'_> {
    /// Fills in what the ring knows it by. For memory that it does not have, the kernel gets an index that nothing has.
    #[inline(always)]
    fn prepare(self, ring: u64) -> Prepared {
        const NOTHING: u32 = u16::MAX as u32;
        let Fixed { mut entry, file, memory } = self;
        if let Some(file) = file {
            entry = on_file_of(ring, file, entry);
        }
        match memory {
            Some(memory) => Prepared::Indexed(entry, memory.in_ring(ring).unwrap_or(NOTHING) as u16),
            None => Prepared::Usual(entry),
        }
    }
}

impl<'d> Parts<'d> {
    #[inline(always)]
    fn prepared(prepared: Prepared, facts: Facts) -> Self {
        Parts { draft: Draft::Prepared(prepared), facts, closes: None, deadline: None }
    }

    #[inline(always)]
    fn new(entry: squeue::Entry) -> Self {
        let facts = Facts::new(entry.get_opcode() as u8);
        Parts::prepared(Prepared::Entry(entry), facts)
    }

    /// Of an entry of the usual kind.
    #[inline(always)]
    fn usual(entry: Usual) -> Self {
        Parts::prepared(Prepared::Usual(entry), Facts::new(entry.opcode as u8))
    }

    /// Of one in which something registered is named.
    #[inline(always)]
    fn fixed(fixed: Fixed<'d>) -> Self {
        let facts = Facts::new(fixed.entry.opcode as u8);
        Parts { draft: Draft::Fixed(fixed), facts, closes: None, deadline: None }
    }

    /// Of an entry of the usual kind, on a file or a socket, which may be a registered one.
    #[inline(always)]
    fn on_target(target: &'d impl Target, entry: Usual) -> Self {
        let Named { descriptor, place } = target.named();
        let entry = Usual { descriptor, ..entry };
        match place {
            None => Parts::usual(entry),
            Some(file) => Parts::on_fixed(entry, file),
        }
    }

    // In place, this would change the way of requests on what is not registered.
    #[inline(never)]
    fn on_fixed(entry: Usual, file: &'d Registered) -> Self {
        Parts::fixed(Fixed { entry, file: Some(file), memory: None })
    }

    /// Of one that leads to what is kept beside it.
    #[inline(always)]
    fn beside(entry: Usual, aside: Aside) -> Self {
        Parts::prepared(Prepared::Beside(entry, aside), Facts::new(entry.opcode as u8))
    }

    /// The same, on a file or a socket, which may be a registered one.
    #[inline(always)]
    fn beside_on(target: &'d impl Target, entry: Usual, aside: Aside) -> Self {
        let Named { descriptor, place } = target.named();
        Parts::beside(Usual { descriptor, ..entry }, aside).on(place)
    }

    /// Of one that is given buffers of a pool, on a file or a socket, which may be a registered one.
    fn from_pool(target: &'d impl Target, entry: Usual, pool: &BufferPool) -> Self {
        let Named { descriptor, place } = target.named();
        let entry = Usual { descriptor, ..entry };
        let prepared = Prepared::FromPool { entry, pool: pool.clone(), limit: 0 };
        Parts::prepared(prepared, Facts::new(entry.opcode as u8)).yielding(Yields::Buffer).on(place)
    }

    /// The same, on this registered file, if it is one.
    #[inline(always)]
    fn on(self, file: Option<&'d Registered>) -> Self {
        match (self.draft, file) {
            (Draft::Prepared(prepared), Some(file)) => {
                Parts { draft: Draft::OnFixed { prepared, file }, ..self }
            }
            (draft, _) => Parts { draft, ..self },
        }
    }

    fn yielding(mut self, yields: Yields) -> Self {
        self.facts.set_yields(yields);
        self
    }

    #[inline(always)]
    fn request(self) -> Request<'d> {
        Request { parts: self, borrows: PhantomData }
    }

    fn stream(mut self) -> Stream<'d> {
        self.facts.flags.insert(Flags::STREAM);
        Stream { parts: self, borrows: PhantomData }
    }

    /// Parts with what the slot must know, and with the deadline; a descriptor to close passes to the slot.
    #[inline(always)]
    fn place(self, terms: Terms) -> (Facts, Prepared, Option<Duration>) {
        let Terms { ring, flags, born } = terms;
        let Parts { draft, mut facts, closes, deadline } = self;
        let mut prepared = draft.prepare(ring);
        facts.flags.insert(flags);
        facts.born = born;
        if let Some(descriptor) = closes {
            facts.own(descriptor);
        }
        if let Prepared::Beside(entry, Aside::Message(_, pieces)) = &mut prepared {
            match entry.is_message_whole() {
                true => pieces.refuse_part(),
                false => pieces.truncate(),
            }
        }
        if deadline.is_some() && flags.intersects(Flags::IN_CHAIN) {
            facts.flags.insert(Flags::TIMED);
        }
        (facts, prepared, deadline)
    }
}

/// The function of a stream, run again on the present data whenever the stream must be armed again.
pub(crate) type Arm<D> = for<'d> fn(&'d mut D) -> Stream<'d>;

/// What a slot remembers of its request: facts, and for streams the function that arms them.
pub(crate) struct Record<D> {
    pub(crate) facts: Facts,
    pub(crate) arm: Option<Arm<D>>,
}

impl<D> Clone for Record<D> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<D> Copy for Record<D> {}

impl<D> Meta for Record<D> {
    type Brief = Brief;

    fn of_plain(brief: Brief) -> Self {
        Record { facts: brief.facts(), arm: None }
    }

    #[inline(always)]
    fn is_calm(&self) -> bool {
        self.facts.flags == Flags::STREAM
    }
}

/// What a slot is to remember of a request that is no stream.
#[inline(always)]
fn remember<D>(facts: Facts) -> Remember<Record<D>> {
    match facts.brief() {
        Some(brief) => Remember::Plain(brief),
        None => Remember::All(Record { facts, arm: None }),
    }
}

/// The slab of an operation: its `RingData`, and a [`Record`] beside each.
pub(crate) type Slab<D> = slab::Slab<D, Record<D>>;

/// Puts `data` into a slot of `slab` and builds the request from it, there. Returns its deadline, too.
#[inline(always)]
pub(crate) fn place<D>(
    slab: &mut Slab<D>,
    data: D,
    terms: Terms,
    build: impl for<'d> FnOnce(&'d mut D) -> Request<'d>,
) -> (Identity, Placed, Option<Duration>) {
    let (identity, (prepared, deadline)) = slab.insert_with(data, |data| {
        let (facts, prepared, deadline) = build(data).parts.place(terms);
        (remember(facts), (prepared, deadline))
    });
    // The pointers in `prepared` were good for every lifetime that the data could have, and the data
    // now stays where it is until the completion of `user_data` is dispatched.
    (identity, Placed { prepared, user_data: identity.user_data }, deadline)
}

/// A place in a submission queue.
pub(crate) trait Queue {
    /// Queues the request: `true`. If that can't be done here, it is set aside.
    fn fill(self, placed: Placed) -> bool;
}

/// As [`place`], into a vacancy, and queues the request, which is written where it shall be before all of its slot is, so
/// that it is not kept anywhere in between. Returns whether it is [queued](Queue::fill), and its deadline.
///
/// All that is done with the data is one closure: the compiler sees which kind of request it is, and leaves the others out,
/// before it works on any of it.
///
/// # Safety
///
/// The vacancy is of this slab, and to fill the place does not unwind.
#[inline(always)]
pub(crate) unsafe fn place_into<D>(
    vacancy: Vacancy,
    slab: &mut Slab<D>,
    data: D,
    terms: Terms,
    build: impl for<'d> FnOnce(&'d mut D) -> Request<'d>,
    place: impl Queue,
) -> (Identity, (bool, Option<Duration>)) {
    let user_data = vacancy.user_data();
    let build = |data: &mut D| {
        let (facts, prepared, deadline) = build(data).parts.place(terms);
        // The last thing that is done, and to write an entry does not unwind: so no slot is given back whose request is queued.
        (remember(facts), (place.fill(Placed { prepared, user_data }), deadline))
    };
    // SAFETY: the caller's promise is the same.
    unsafe { slab.fill(vacancy, data, build) }
}

/// As [`place`], for a stream, whose function is kept.
pub(crate) fn place_stream<D>(slab: &mut Slab<D>, data: D, terms: Terms, arm: Arm<D>) -> (Identity, Placed) {
    let (identity, prepared) = slab.insert_with(data, |data| {
        let (facts, prepared, _) = arm(data).parts.place(terms);
        (Remember::All(Record { facts, arm: Some(arm) }), prepared)
    });
    (identity, Placed { prepared, user_data: identity.user_data })
}

/// Puts `data` into a slot that the kernel knows nothing of.
///
/// Returns the `user_data` that it would have.
pub(crate) fn place_message<D>(slab: &mut Slab<D>, data: D, terms: Terms) -> u64 {
    let Terms { flags, born, .. } = terms;
    let nop = io_uring::opcode::Nop::CODE;
    let facts = Facts { flags: flags | Flags::MESSAGE, born, ..Facts::new(nop) };
    let (identity, ()) = slab.insert_with(data, |_| (remember(facts), ()));
    identity.user_data
}

/// Builds a stream anew from the data in its slot, after the kernel has cut it.
///
/// `None` if the slot is not that of a stream whose data is here.
pub(crate) fn arm_again<D>(
    slot: &mut Occupied<'_, D, Record<D>>,
    user_data: u64,
    ring: u64,
) -> Option<Placed> {
    let arm = slot.demote().arm?;
    // It was accepted long ago, and the slot remembers how.
    let terms = Terms { ring, flags: Flags::EMPTY, born: Stamp::ZERO };
    // SAFETY: only streams have a function to arm them, and no stream points into its data; so even
    // if the kernel still had this one, nothing but Rust would use the data.
    let (facts, mut prepared, _) = unsafe { slot.with_value(|data| arm(data).parts.place(terms)) }?;
    let old = &mut slot.demote().facts;
    if old.left() > 0 && old.opcode == facts.opcode {
        // What is left of a count or a limit goes on; it does not start over.
        prepared.set_left(old.left());
    } else {
        old.set_left(facts.left());
    }
    old.opcode = facts.opcode;
    old.set_yields(facts.yields);
    Some(Placed { prepared, user_data })
}

impl fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Request({})", sqe::name(self.parts.facts.opcode))
    }
}

impl fmt::Debug for Stream<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stream({})", sqe::name(self.parts.facts.opcode))
    }
}
