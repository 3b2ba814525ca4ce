//! A simulated kernel, for tests of one's own operations: the feature `sim`.
//!
//! A [`Simulation`] is at the other end of a ring's queues, in place of io_uring. A ring that is built on its
//! [`raw_ring`](Simulation::raw_ring) runs as always: the same queues, loop, slots and teardown. What it asks
//! for is done by ordinary system calls on the descriptors of the process, without waiting. But chance
//! decides, by a seed, what goes wrong ([`Faults`]): transfers are short, connections are reset, completions
//! are late and overtake each other, cancels lose their races. Time is simulated: a timeout of an hour takes
//! no time. So a thousand ways for things to happen can be tried in a second, and one that fails can be run
//! again by its seed ([`explore`]).
//!
//! ```
//! use rummelplatz::sim::{self, Faults};
//! use rummelplatz::{Completion, RingOperation, Submitter, request, ring};
//! use std::io::{self, Write};
//! use std::num::NonZeroU32;
//! use std::os::unix::net::UnixStream;
//!
//! #[ring]
//! struct Client { reader: Reader }
//!
//! /// Receives a message of eight bytes.
//! #[derive(RingOperation)]
//! #[ring_operation(ring = Client, data = Message, error = io::Error, on_completion)]
//! struct Reader { received: Option<[u8; 8]> }
//!
//! struct Message { socket: UnixStream, bytes: [u8; 8], filled: usize }
//!
//! impl Message {
//!     fn rest(&mut self) -> rummelplatz::Request<'_> {
//!         request::recv(&self.socket, &mut self.bytes[self.filled..])
//!     }
//! }
//!
//! impl Reader {
//!     fn on_completion(
//!         &mut self,
//!         completion: Completion,
//!         mut message: Message,
//!         mut submitter: Submitter<'_, Client, Self>,
//!     ) -> io::Result<()> {
//!         message.filled += completion.result()? as usize;
//!         match message.filled {
//!             8 => self.received = Some(message.bytes),
//!             // Without this, the first seed with a short read fails.
//!             _ => { submitter.submit(message, Message::rest)?; }
//!         }
//!         Ok(())
//!     }
//! }
//!
//! sim::explore(0..100, |simulation| {
//!     let (ours, mut theirs) = UnixStream::pair().unwrap();
//!     // The other side writes when the ring has nothing to do but wait.
//!     let mut left = &b"ahoy, you"[..8];
//!     simulation.on_idle(move || {
//!         let (byte, rest) = left.split_at(left.len().min(1));
//!         left = rest;
//!         theirs.write(byte).is_ok_and(|written| written > 0)
//!     });
//!     let raw = simulation.raw_ring(NonZeroU32::new(8).unwrap()).unwrap();
//!     let mut client = Client::new(raw, None, Reader { received: None });
//!     let message = Message { socket: ours, bytes: [0; 8], filled: 0 };
//!     client.submitter(Client::READER).submit(message, Message::rest).unwrap();
//!     client.run().unwrap();
//!     assert_eq!(client.reader.received.unwrap(), *b"ahoy, yo");
//!     assert_eq!(client.stats().in_flight, 0);
//! });
//! ```
//!
//! # How to test with it
//!
//! ```toml
//! [dev-dependencies]
//! rummelplatz = { version = "0.1", features = ["sim"] }
//! ```
//!
//! The ring is built as always, with the simulation's raw ring: `Client::new(raw, …)` as above, or
//! `Client::builder(…).raw_ring(raw)`. What it talks to is in the same test:
//!
//! * What the other side does by itself is done before the ring runs. What it does in answer to the ring, or
//!   bit by bit, is done in [`on_idle`](Simulation::on_idle). Keep the other ends open as long as the test
//!   needs them: an end that is dropped is a connection that is closed.
//! * Time goes by when nothing else happens: when no request can go on, and the other side says that it does
//!   nothing (`false`). So timeouts don't fire while there is still something to come.
//! * An answer that no descriptor gives, above all an error, comes from
//!   [`on_request`](Simulation::on_request): see [`Answer`].
//!
//! Begin with [`Faults::none`] and one seed, then try many seeds with [`Faults::many`], or with those faults that
//! the operation is to withstand: `Faults { short: 0.5, reset: 0.05, ..Faults::none() }`. What comes of them:
//!
//! | [`Faults`] | what handlers are told | so |
//! |---|---|---|
//! | `short` | `Ok` with fewer bytes than there was room for | submit the rest |
//! | `reset` | `ECONNRESET`; at the other end, no more bytes, and `EPIPE` | give that connection up, and not the ring |
//! | `cancelled` | `ECANCELED` or `EINTR`, without a cancel: nothing was synced, opened or closed, and a timer has not run its time | try again, or fail |
//! | `delay`, `reorder`, `late` | what was submitted first ends later | nothing may depend on the order |
//! | `lost_race`, `odd_ends`, `running` | after a cancel: success all the same, a part of it, `EINTR`, more of a stream | use it, or let go of it |
//! | `cut` | nothing: `more()` is true, and the ring arms the stream again | give the data back |
//! | `no_buffers` | `ENOBUFS`, with `more()` true; without it, after several in a row, or from a single request | give the data back, or submit again |
//! | `interrupt`, `busy`, `partial`, `silent`, `foreign` | nothing | that is the ring's business |
//! | `never`, `lost` | nothing more: `run` ends with [`Abandoned`](crate::RingError::Abandoned) | set a `deadline`, for `never` |
//!
//! # What is durable
//!
//! `FSYNC` is a real `fsync(2)` or `fdatasync(2)`, unless the hook answers `Finish(0)`. That hook is also the place
//! to record what a crash would leave: what was written to the file by the time that an `FSYNC` is answered is
//! durable, and nothing else need be. One that is `cancelled` is not asked about, and has made nothing durable.
//!
//! ```
//! # use rummelplatz::sim::{Answer, Simulation};
//! # use std::sync::{Arc, Mutex};
//! # let simulation = Simulation::new(0);
//! # let path = std::path::PathBuf::from("/proc/self/stat");
//! let durable = Arc::new(Mutex::new(Vec::new()));
//! let disk = Arc::clone(&durable);
//! simulation.on_request(move |asked| match asked.name() {
//!     "FSYNC" => {
//!         *disk.lock().unwrap() = std::fs::read(&path).unwrap();
//!         Answer::Finish(0)
//!     }
//!     _ => Answer::Perform,
//! });
//! ```
//!
//! # When a seed fails
//!
//! `RUMMEL_SEED=N cargo test the_test` runs it alone and prints the log: what was taken in
//! ([`Event::TakenIn`]), and what was posted for it, by the same `user_data`
//! ([`Key::user_data`](crate::Key::user_data)).
//!
//! A ring that waits for what can't happen is told so, instead of hanging: `run` ends with
//! [`RingError::Api`](crate::RingError::Api) and `EDEADLK` ("Resource deadlock avoided"). What was taken in
//! and never posted is what it has waited for. Or a stream waits for a buffer that nobody gives back: the
//! kernel knows nothing of that (see [`BufferPool::available`](crate::BufferPool::available)). For programs
//! that don't wait but go round for ever, there is [`limit_enters`](Simulation::limit_enters).
//!
//! # What it knows
//!
//! | `IORING_OP_…` | |
//! |---|---|
//! | `NOP`, `FSYNC`, `SYNC_FILE_RANGE`, `CLOSE`, `SHUTDOWN`, `SOCKET`, `BIND`, `LISTEN`, `FALLOCATE`, `FTRUNCATE`, `FADVISE` | |
//! | `OPENAT`, `OPENAT2`, `STATX`, `UNLINKAT`, `RENAMEAT`, `MKDIRAT`, `LINKAT`, `SYMLINKAT` | |
//! | `GETXATTR`, `SETXATTR`, `FGETXATTR`, `FSETXATTR`, `TEE` | |
//! | `URING_CMD` | on sockets: `SETSOCKOPT`, `GETSOCKOPT`, `SIOCINQ` and `SIOCOUTQ`, these two also of Unix sockets |
//! | `PIPE`, `EPOLL_WAIT` | |
//! | `WAITID` | of a process that has ended, or ends while the ring waits for it |
//! | `FUTEX_WAIT`, `FUTEX_WAKE` | woken by a ring on the same simulation; nobody sees a wake by `futex(2)`, but a wait also ends when its word has changed, as seen the next time that the kernel does something |
//! | `READ`, `WRITE`, `READ_FIXED`, `WRITE_FIXED`, `READV`, `WRITEV`, `READV_FIXED`, `WRITEV_FIXED`, `READ_MULTISHOT` | at an offset, or at the file's position; `READ` also into a buffer of a [`BufferPool`](crate::BufferPool); a write to what is no file moves 4096 bytes at most; with `RWF_*` |
//! | `RECV`, `SEND`, `SEND_ZC` | also into a [`BufferPool`](crate::BufferPool), and then also multishot, one buffer at a time, bundles of them, or pieces of one, and up to a limit; with `MSG_WAITALL`; `SEND_ZC` with a second completion that frees the memory, also if its chain has ended it, and to the socket's own peer only |
//! | `RECVMSG`, `SENDMSG`, `SENDMSG_ZC` | with control messages, which go with the first byte; also multishot, into a [`BufferPool`](crate::BufferPool); to be sent also with `MSG_WAITALL`; `SENDMSG_ZC` with a second completion, as `SEND_ZC` |
//! | `ACCEPT`, `CONNECT` | also multishot |
//! | `FIXED_FD_INSTALL` | |
//! | `POLL_ADD` | also multishot, which tells again after a millisecond of what is still there |
//! | `TIMEOUT`, `LINK_TIMEOUT` | also multishot, absolute and real time; without a number of completions to wait for |
//! | `ASYNC_CANCEL` | by `user_data`, by descriptor, or any |
//!
//! What is not in the table ends with `EINVAL`, as with a kernel that is too old for it, unless
//! [`on_request`](Simulation::on_request) answers. In the ring's table, there are [`FixedFile`](crate::FixedFile)s; no
//! entry can name a place there for what it opens or closes (`ENXIO`). Links, hard links and drains hold, and a full completion queue ends streams and keeps everything else for later.
//!
//! There are no workers, no poll thread and no devices, so the builder's
//! [`worker_limits`](crate::Builder::worker_limits), [`worker_cpus`](crate::Builder::worker_cpus) and
//! [`busy_poll`](crate::Builder::busy_poll) have no effect. Nor has [`min_wait`](crate::Builder::min_wait): a wait
//! ends with the first completion.
//!
//! A stream stays on its file even if its handler drops the descriptor. For that it has a duplicate, from when it
//! is issued to its final completion, which counts towards the process's limit: without room for one, it ends with
//! `EMFILE`. All other requests leave their descriptor with their data until they have ended.
//!
//! # What is the same each time
//!
//! With the same seed and the same program, the same things happen in the same order. That is what the log
//! ([`Simulation::take_log`]) shows, except for addresses and the numbers of descriptors. This holds as long
//! as the program and what it talks to are deterministic:
//!
//! * Let the other side be in the same thread, in [`on_idle`](Simulation::on_idle), and talk to it over
//!   [`UnixStream::pair`](std::os::unix::net::UnixStream::pair), pipes and files. TCP delivers when it
//!   likes, even over the loopback interface.
//! * Other threads may use the ring's handles. But time in the simulation does not wait for them, and the
//!   seed does not decide when they get to run. A ring that nothing else can wake waits for them up to
//!   [`set_patience`](Simulation::set_patience).
//! * The clocks of the simulation begin with the real ones: a time that is given absolutely, as an `Instant`,
//!   is as far away as it happens to be.
//!
//! # A ring in another loop
//!
//! Nothing happens in the simulated kernel while the ring is outside of it, unless [`pass`](Simulation::pass)
//! says so. So don't sleep on the descriptor of a ring that is turned: let time pass, or turn it again.
//!
//! In the same way, several rings run in one thread, each on a simulation of its own, for a test of what they send
//! to each other:
//!
//! ```
//! # use rummelplatz::{Completion, RingOperation, Submitter, ring, sim::Simulation};
//! # use std::{num::NonZeroU32, time::Duration};
//! # #[ring]
//! # struct Node { inbox: Inbox }
//! # #[derive(RingOperation)]
//! # #[ring_operation(ring = Node, data = u32, on_completion)]
//! # struct Inbox { other: Option<rummelplatz::RingHandle<Node>>, received: u32 }
//! # impl Inbox {
//! #     fn on_completion(&mut self, _: Completion, number: u32, _: Submitter<'_, Node, Self>) {
//! #         self.received += number;
//! #         if let Some(other) = self.other.take() { other.send(Node::INBOX, number + 1).unwrap(); }
//! #     }
//! # }
//! let mut nodes = [1, 2].map(|seed| {
//!     let simulation = Simulation::new(seed);
//!     let raw = simulation.raw_ring(NonZeroU32::new(8).unwrap()).unwrap();
//!     (Node::new(raw, None, Inbox { other: None, received: 0 }), simulation)
//! });
//! let handles = [0, 1].map(|index| nodes[index].0.handle());
//! # let [first, second] = handles;
//! # nodes[0].0.inbox.other = Some(second);
//! # first.send(Node::INBOX, 1).unwrap();
//! # drop(first);
//! // Each hands the other its messages by such a handle.
//! while nodes.iter().any(|(node, _)| node.inbox.received == 0) {
//!     for (node, simulation) in &mut nodes {
//!         node.turn().unwrap();
//!         simulation.pass(Duration::from_micros(100));
//!     }
//! }
//! # assert_eq!(nodes.map(|(node, _)| node.inbox.received), [1, 2]);
//! ```
//!
//! # Why this is sound
//!
//! The simulation does to memory what the kernel would do, where and as long as the kernel may: an entry is
//! queued only by code that vouches for what it points to until the final completion, and the ring keeps that
//! promise by the same code. What the simulation has pending when the ring is closed, it forgets. No hook is
//! given access to that memory.
//!
//! What a completion says is believed. So the completions of strangers ([`Faults::foreign`]) have tags that no
//! operation can have, whatever the seed: they name no request, and none that will come. What hooks answer is
//! checked. And no request is done on a number that is somebody else's by then: the descriptor of a single request
//! is in its data, and a stream has its own.

use std::fmt;
use std::io;
use std::mem;
use std::num::NonZeroU32;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use crate::clock;
use crate::config::RawRing;
use crate::cpus::Cpus;
use crate::eventfd::Eventfd;
use crate::queue::{BufferRing, BusyPoll, Change, Host, Kernel, MinWait, Own, Patience, Queues};

mod asked;
mod descriptors;
mod machine;
mod pool;
mod rng;
mod settings;
mod tables;
#[cfg(test)]
mod tests;

pub use asked::Asked;
use machine::{Machine, Start, Step};
use settings::Settings;

/// How the simulation answers for the kernel: see [`Simulation::on_request`].
#[derive(Debug)]
#[non_exhaustive]
pub enum Answer {
    /// Does what was asked, on the descriptors of this process.
    Perform,
    /// Not yet: the request waits, and is asked about again.
    Wait,
    /// The request ends with this result: what the operation returns, or a negative `errno`.
    Finish(i32),
    /// A stream goes on after this result; other requests end with it.
    More(i32),
    /// These bytes are read or received, as many of them as there is room for; the others are lost. A stream
    /// goes on, unless there are no bytes; other requests end. Datagrams are from nobody.
    Bytes(Vec<u8>),
    /// This descriptor is what was accepted or opened; it goes into the ring's table if it was to
    /// ([`Asked::is_direct`]). A stream goes on; other requests end.
    Descriptor(OwnedFd),
}

/// What goes wrong, and how often: probabilities from 0 to 1, each time that it could happen. More than 1
/// counts as 1; less than 0, or NaN, counts as 0.
///
/// All of it is what the kernel does, or may do. Unless said otherwise, it was provoked on Linux 6.18.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Faults {
    /// A transfer moves fewer bytes than it was to, but at least one. Never with `MSG_WAITALL`.
    pub short: f64,
    /// A connection is reset (`ECONNRESET`), when something is received or sent: both ends are shut down.
    pub reset: f64,
    /// A request ends with `ECANCELED` though nobody has cancelled it, or with `EINTR` if it is one that waits
    /// for others, as can happen to one that is left to a worker when there may be none. Nothing was done for it
    /// then; a transfer that is to be whole (`MSG_WAITALL`) says what it has moved. Not reads and writes of
    /// files, but those of sockets and pipes. Work on files and timers end like this before they have begun, or
    /// not at all. Deadlines and what wakes the ring are spared.
    pub cancelled: f64,
    /// A completion is held back for up to three milliseconds, and is overtaken by others.
    pub delay: f64,
    /// Requests that could go on do so in any order.
    pub reorder: bool,
    /// A request is issued up to three milliseconds after it was taken in. No cancel finds it before that, as
    /// with one that stands behind another in a chain, or waits for a worker.
    pub late: f64,
    /// A cancel comes too late (`EALREADY`, or `ENOENT` from a timer that goes on): what is about to fire goes
    /// on.
    pub lost_race: f64,
    /// A cancelled request ends with `EINTR`, with `ERESTARTSYS` (512), with success after all, with more
    /// of a stream before the end, or with a buffer.
    pub odd_ends: f64,
    /// Work on a file has begun, takes up to three milliseconds, and is ended by no cancel.
    pub running: f64,
    /// A stream ends by itself, with its payload and without `IORING_CQE_F_MORE`, as if the completion queue
    /// were full. The ring arms it again.
    pub cut: f64,
    /// A pool seems to be empty (`ENOBUFS`).
    pub no_buffers: f64,
    /// A zero-copy send never gets its notification, as with a peer that never reads: its memory is in use
    /// for ever, and only the deadline of a teardown ends that.
    pub never: f64,
    /// A signal interrupts the ring (`EINTR`), or makes it return early if it has submitted something.
    pub interrupt: f64,
    /// The kernel is short of something for what is submitted (`EAGAIN`, `EBUSY`); never more than three
    /// times in a row. According to the manual page; not provoked.
    pub busy: f64,
    /// Only a part of the submission queue is taken in, and there is no wait. No chain is torn: it is not
    /// simulated that the kernel has no memory for the next request of a chain.
    pub partial: f64,
    /// A wait ends without a completion.
    pub silent: f64,
    /// Another ring posts a completion (`IORING_OP_MSG_RING`) that names no request of an operation: it has a
    /// tag that nobody has, or pretends to come from what the ring has asked for itself, such as its alarm; not
    /// so often that this would end the run.
    pub foreign: f64,
    /// A place of a table of files or memory is not cleared (`ENOMEM`). According to the source of kernels that are older
    /// than 6.18, on which this can't be provoked.
    pub uncleared: f64,
    /// The kernel loses a completion (`EBADR`), and with it all accounts: the ring is abandoned. According to
    /// its source; not provoked.
    pub lost: f64,
}

impl Faults {
    /// Nothing goes wrong.
    pub const fn none() -> Faults {
        Faults {
            short: 0.0,
            reset: 0.0,
            cancelled: 0.0,
            delay: 0.0,
            reorder: false,
            late: 0.0,
            lost_race: 0.0,
            odd_ends: 0.0,
            running: 0.0,
            cut: 0.0,
            no_buffers: 0.0,
            never: 0.0,
            interrupt: 0.0,
            busy: 0.0,
            partial: 0.0,
            silent: 0.0,
            foreign: 0.0,
            uncleared: 0.0,
            lost: 0.0,
        }
    }

    /// All that a program must live with, rather often. But no connection is reset, no request is cancelled
    /// that nobody has cancelled, and nothing is lost for ever.
    pub const fn usual() -> Faults {
        Faults {
            short: 0.3,
            delay: 0.2,
            reorder: true,
            late: 0.1,
            lost_race: 0.2,
            odd_ends: 0.3,
            running: 0.3,
            cut: 0.1,
            no_buffers: 0.1,
            interrupt: 0.1,
            busy: 0.05,
            partial: 0.1,
            silent: 0.1,
            foreign: 0.05,
            ..Faults::none()
        }
    }

    /// As [`usual`](Self::usual); in addition, connections are reset and requests are cancelled.
    pub const fn many() -> Faults {
        Faults { reset: 0.02, cancelled: 0.02, ..Faults::usual() }
    }
}

impl Default for Faults {
    fn default() -> Self {
        Faults::usual()
    }
}

/// What has happened in a simulation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Figures {
    /// How often the ring has entered the kernel.
    pub enters: u64,
    /// Entries that were taken in.
    pub taken_in: u64,
    /// Cancels among them.
    pub cancels: u64,
    /// Requests that have ended, other than cancels.
    pub ended: u64,
    /// Completions that were posted.
    pub posted: u64,
    /// The most cancels of one request that were ever unanswered at the same time, because their answers
    /// waited for room in the completion queue.
    pub most_unanswered: u64,
}

/// Something that has happened between a ring and its simulated kernel.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The ring has entered the kernel, with this many entries to be taken in.
    Entered {
        /// How many entries there are.
        shown: u32,
    },
    /// An entry was taken in.
    TakenIn(Asked),
    /// A completion was posted, even if only to wait for room.
    Posted {
        /// What it names.
        user_data: u64,
        /// `cqe->res`.
        result: i32,
        /// `cqe->flags`.
        flags: u32,
    },
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Entered { shown } => f.debug_struct("Entered").field("shown", shown).finish(),
            Event::TakenIn(asked) => f.debug_tuple("TakenIn").field(asked).finish(),
            // As an `Asked` shows it.
            Event::Posted { user_data, result, flags } => {
                write!(f, "Posted(user_data {user_data:#x}, result {result}, flags {flags:#x})")
            }
        }
    }
}

/// A simulated kernel, for one ring at a time.
///
/// A cheap clone: all clones are the same kernel. It may be used from any thread, and from within the hooks,
/// with one exception. What looks into the kernel ([`has`](Self::has), [`uses`](Self::uses),
/// [`in_kernel`](Self::in_kernel), [`figures`](Self::figures), [`take_log`](Self::take_log)) and what changes
/// it ([`raw_ring`](Self::raw_ring), [`pass`](Self::pass)) panics in [`on_request`](Self::on_request), which
/// is asked while the kernel is at work.
#[derive(Clone)]
pub struct Simulation {
    shared: Arc<Shared>,
}

struct Shared {
    seed: u64,
    machine: Mutex<Option<Machine>>,
    /// The thread that has the machine locked, as [`here`] names it; 0 if there is none.
    at_work: AtomicUsize,
    /// What a ring has left when it was closed.
    left: Mutex<(Figures, Vec<Event>)>,
    settings: Arc<Settings>,
}

impl Shared {
    /// Does something with the machine.
    ///
    /// # Panics
    ///
    /// If called from within a hook that the machine has called.
    fn machine<T>(&self, work: impl FnOnce(&mut Option<Machine>) -> T) -> T {
        assert!(!self.is_at_work_here(), "this looks into the simulated kernel from within `on_request`");
        let mut machine = lock(&self.machine);
        self.at_work.store(here(), Ordering::Relaxed);
        let _ends = AtWork(&self.at_work);
        work(&mut machine)
    }

    /// Whether this is called from within a hook that the machine has called.
    fn is_at_work_here(&self) -> bool {
        // Only this thread writes its own name there.
        self.at_work.load(Ordering::Relaxed) == here()
    }
}

/// A name of this thread that no other has while it lives. (`thread::current` would count a reference.)
fn here() -> usize {
    thread_local!(static HERE: u8 = const { 0 });
    HERE.with(|here| ptr::from_ref(here).addr())
}

/// Ends the work on the machine, even if there is a panic.
struct AtWork<'a>(&'a AtomicUsize);

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The kernel's largest queues (`IORING_MAX_ENTRIES`, `IORING_MAX_CQ_ENTRIES`).
const MOST_ENTRIES: u32 = 32_768;
const MOST_COMPLETIONS: u32 = 2 * MOST_ENTRIES;

impl Simulation {
    /// A kernel that does what the seed says, with [`Faults::usual`].
    pub fn new(seed: u64) -> Simulation {
        let shared = Shared {
            seed,
            machine: Mutex::default(),
            at_work: AtomicUsize::new(0),
            left: Mutex::default(),
            settings: Arc::new(Settings::new()),
        };
        Simulation { shared: Arc::new(shared) }
    }

    /// The seed.
    pub fn seed(&self) -> u64 {
        self.shared.seed
    }

    /// Sets what goes wrong, from the next time on that the ring enters the kernel.
    pub fn set_faults(&self, faults: Faults) {
        self.shared.settings.set_faults(faults);
    }

    /// Panics when a ring enters the kernel more often than this: for programs that must have an end. The
    /// ring is torn down by that panic, and is told `EDEADLK` from then on. So is a ring that another panic
    /// is dropping already.
    pub fn limit_enters(&self, most: u64) {
        self.shared.settings.set_most_enters(most);
    }

    /// How long a ring that nothing in the simulation can wake waits for other threads, in real time, before
    /// it is told `EDEADLK`: 100 milliseconds by default.
    ///
    /// It waits only if there is a descriptor that they could do something to: that of a pending request, or
    /// the ring's own, by which a [`RingHandle`](crate::RingHandle) wakes it.
    pub fn set_patience(&self, patience: Duration) {
        self.shared.settings.set_patience(patience);
    }

    /// Answers in place of the kernel. Replaces the hook that did so before.
    ///
    /// The hook is asked each time that a request could go on, until that has ended; but not about cancels or
    /// linked timeouts. It says what the results are. What these leave in memory is up to the simulation: a
    /// number of bytes that were read is that many zeros, [`Answer::Bytes`] gives other bytes, and
    /// [`Answer::Descriptor`] hands over a descriptor. What a `CLOSE` was to close is closed, whatever the result:
    /// by the simulation, or by the ring after `ECANCELED`.
    ///
    /// A hook that keeps a clone of this simulation keeps it, and itself, for ever.
    ///
    /// # Panics
    ///
    /// The ring's call into the kernel panics, and with it the ring, if the hook does, or if its answer is
    /// impossible: more bytes than there is memory for, the number of a descriptor, `EBADF` for a `CLOSE`, or
    /// success of an operation that fills memory in ways that the simulation does not know. A hook that has
    /// panicked is gone.
    pub fn on_request(&self, answer: impl FnMut(&Asked) -> Answer + Send + 'static) {
        self.shared.settings.set_answer(Box::new(answer), false);
    }

    /// As [`on_request`](Self::on_request), without a check of the answers, without zeros, and without closing
    /// what a `CLOSE` was to close, other than by [`Answer::Perform`].
    ///
    /// # Safety
    ///
    /// Each answer is true: bytes that it reports as read were written to the memory of the request, and a
    /// result that is a descriptor is that of a file that was open and that nobody else owns.
    pub unsafe fn on_request_unchecked(&self, answer: impl FnMut(&Asked) -> Answer + Send + 'static) {
        self.shared.settings.set_answer(Box::new(answer), true);
    }

    /// Does what the other side does. Replaces the hook that did so before.
    ///
    /// The hook is called whenever the ring has nothing to do but wait, if only for time to go by. It returns
    /// whether it has done something; if so, the kernel looks whether that helps before it lets time go by.
    /// It is the place for a test to write to the other end of a socket, or to look into the simulation. It
    /// should not wait, except for what another thread does.
    ///
    /// # Panics
    ///
    /// The ring's call into the kernel panics, and with it the ring, if the hook does (then the hook is
    /// gone), or if it has said ten thousand times in a row that it has done something and nothing has come
    /// of it.
    pub fn on_idle(&self, idle: impl FnMut() -> bool + Send + 'static) {
        self.shared.settings.set_idle(Box::new(idle));
    }

    /// A ring of this kernel, with `entries` in its submission queue, rounded up to a power of two, and four
    /// times as many in its completion queue. For `new`, or for [`Builder::raw_ring`].
    ///
    /// A ring that is made after another begins with the same seed. Its descriptor, as `as_raw_fd` returns
    /// it, is -1: no other ring can send messages to it.
    ///
    /// [`Builder::raw_ring`]: crate::Builder::raw_ring
    ///
    /// # Errors
    ///
    /// * `EBUSY`: a ring of this kernel has not been dropped yet.
    /// * `EINVAL`: more than 32 768 entries.
    /// * If there are no descriptors for what wakes it.
    pub fn raw_ring(&self, entries: NonZeroU32) -> io::Result<RawRing> {
        self.raw_ring_with(entries, entries.saturating_mul(NonZeroU32::MIN.saturating_add(3)))
    }

    /// As [`raw_ring`](Self::raw_ring), with this many entries in the completion queue: rounded up to a power
    /// of two, not less than in the submission queue, and at most 65 536.
    ///
    /// # Errors
    ///
    /// The same as for [`raw_ring`](Self::raw_ring).
    pub fn raw_ring_with(&self, entries: NonZeroU32, completions: NonZeroU32) -> io::Result<RawRing> {
        if entries.get() > MOST_ENTRIES {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let entries = entries.get().next_power_of_two();
        let completions = completions.get().min(MOST_COMPLETIONS).next_power_of_two().max(entries);
        let Shared { seed, settings, .. } = &*self.shared;
        let queues = self.shared.machine(|machine| {
            if machine.is_some() {
                // The machine's memory is that of the ring that there is.
                return Err(io::Error::from_raw_os_error(libc::EBUSY));
            }
            let memory = Own::new(entries, completions);
            let queues = memory.queues();
            let start = Start {
                now: clock::monotonic(),
                since_1970: SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default(),
            };
            *machine = Some(Machine::new(memory, *seed, Arc::clone(settings), start));
            Ok(queues)
        })?;
        let kernel = Simulated { shared: Arc::clone(&self.shared), queues, process: std::process::id() };
        RawRing::assemble(Host::Simulated(Box::new(kernel)), true)
    }

    fn look<T>(&self, look: impl FnOnce(&Machine) -> T) -> Option<T> {
        self.shared.machine(|machine| machine.as_ref().map(look))
    }

    /// Lets time go by in the kernel while the ring is outside of it, as in a loop of your own: what is due
    /// happens, completions are posted, and the descriptor of a ring that is turned becomes readable. While a
    /// ring is inside the kernel, time goes by without this.
    pub fn pass(&self, time: Duration) {
        self.shared.machine(|machine| {
            if let Some(machine) = machine {
                machine.pass(time);
            }
        });
    }

    /// How many requests the kernel has: taken in, and without their final completion. This includes the
    /// ring's own: cancels, and the poll by which it is woken, which stays when a run is over. For the
    /// requests of the operations, there is [`Stats`](crate::Stats).
    pub fn in_kernel(&self) -> usize {
        self.look(Machine::owned).unwrap_or(0)
    }

    /// Posts a completion, as another ring can by a message (`IORING_OP_MSG_RING`).
    ///
    /// # Safety
    ///
    /// A completion that names a request in flight is believed: the memory of that request is given back
    /// while the kernel still uses it, and the result is taken for a descriptor that nobody owns, or for a
    /// number of bytes that were written. So nothing else may come of the request. If it yields a descriptor,
    /// the result must be an error or such a descriptor; and if it receives into memory that was not
    /// initialised, the result must be an error, or that many bytes must have been written there.
    pub unsafe fn post(&self, user_data: u64, result: i32, flags: u32) {
        self.shared.machine(|machine| {
            if let Some(machine) = machine {
                machine.post(user_data, result, flags);
            }
        });
    }

    /// Whether the kernel has a request with this name ([`Asked::user_data`]).
    pub fn has(&self, user_data: u64) -> bool {
        self.look(|machine| machine.has(user_data)).unwrap_or(false)
    }

    /// Whether a request that the kernel has uses the memory at this place.
    pub fn uses<T>(&self, place: *const T) -> bool {
        self.look(|machine| machine.uses(place.addr() as u64)).unwrap_or(false)
    }

    /// What has happened since the last call. The first call returns nothing, and begins the log.
    pub fn take_log(&self) -> Vec<Event> {
        self.shared.settings.begin_log();
        self.shared.machine(|machine| {
            let mut log = mem::take(&mut lock(&self.shared.left).1);
            if let Some(machine) = machine {
                log.append(&mut machine.take_log());
            }
            log
        })
    }

    /// What has happened to the present ring, or to the last one if there is none.
    pub fn figures(&self) -> Figures {
        self.look(Machine::figures).unwrap_or_else(|| lock(&self.shared.left).0)
    }

    /// The time in the simulation, as its monotonic clock counts it; 0 while there is no ring. It begins with
    /// the real monotonic time when the ring is made, and goes its own way from then on.
    pub fn now(&self) -> Duration {
        match self.shared.is_at_work_here() {
            true => self.shared.settings.asked_at(),
            false => self.look(Machine::now).unwrap_or_default(),
        }
    }
}

impl fmt::Debug for Simulation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Simulation").field("seed", &self.shared.seed).finish_non_exhaustive()
    }
}

/// The seed that [`explore`] runs alone, if it is set.
const SEED: &str = "RUMMEL_SEED";

/// Runs a test under the simulated kernels of all these seeds, or only of the one that `RUMMEL_SEED` names.
///
/// # Panics
///
/// With the panic of the first run that does. Standard error says its seed, and how to run that alone. When
/// it is run alone, the log of what happened between the ring and the kernel is printed as well, as far as
/// the test has not taken it. Also panics if `RUMMEL_SEED` is no number.
///
/// ```
/// # use rummelplatz::sim;
/// sim::explore(0..100, |simulation| {
///     // Make a ring of `simulation.raw_ring(…)`, run it, and assert what must hold.
///     assert!(simulation.seed() < 100);
/// });
/// ```
pub fn explore(seeds: impl IntoIterator<Item = u64>, mut test: impl FnMut(Simulation)) {
    match std::env::var_os(SEED) {
        Some(text) => match text.to_str().and_then(|text| text.trim().parse().ok()) {
            Some(seed) => explore_one(seed, true, &mut test),
            None => panic!("{SEED} is to be a number, and is {text:?}"),
        },
        None => seeds.into_iter().for_each(|seed| explore_one(seed, false, &mut test)),
    }
}

fn explore_one(seed: u64, keeps_log: bool, test: &mut impl FnMut(Simulation)) {
    let simulation = Simulation::new(seed);
    if keeps_log {
        simulation.take_log();
    }
    let Err(panic) = catch_unwind(AssertUnwindSafe(|| test(simulation.clone()))) else { return };
    for event in simulation.take_log() {
        eprintln!("{event:?}");
    }
    eprintln!("the simulation of seed {seed} fails: {SEED}={seed} runs it alone");
    resume_unwind(panic);
}

/// The simulated kernel, as a ring sees it.
struct Simulated {
    shared: Arc<Shared>,
    queues: Queues,
    process: u32,
}

impl Simulated {
    fn machine<T>(&self, work: impl FnOnce(&mut Machine) -> T) -> io::Result<T> {
        self.shared.machine(|machine| match machine {
            Some(machine) => Ok(work(machine)),
            None => Err(io::Error::from_raw_os_error(libc::EBADF)),
        })
    }

    /// One enter, and what happens in the kernel meanwhile.
    fn work(&mut self, queued: u32, patience: Patience) -> io::Result<()> {
        let entering = match self.machine(|machine| machine.begin(queued, patience))? {
            Ok(entering) => entering,
            Err(result) => return result,
        };
        let (mut said, mut promises, mut stuck_since) = (None, 0, None);
        loop {
            said = match self.machine(|machine| machine.go_on(&entering, said))? {
                Step::Return(result) => return result,
                Step::Idle => Some(self.shared.settings.ask_the_other_side()),
                Step::Stuck(mut descriptors) => {
                    let since = *stuck_since.get_or_insert_with(Instant::now);
                    let left = self.shared.settings.patience().saturating_sub(since.elapsed());
                    if !await_any(&mut descriptors, left) {
                        return Err(machine::deadlock());
                    }
                    // Another thread makes no promise.
                    promises = 0;
                    Some(true)
                }
            };
            promises += u32::from(said == Some(true));
            assert!(
                promises <= MOST_PROMISES,
                "the other side says that it does something, but nothing comes of it: see `on_idle`"
            );
        }
    }
}

/// How often in a row the other side may say that it does something, with nothing coming of it.
const MOST_PROMISES: u32 = 10_000;

/// Waits until something can be done with one of these descriptors, or this time has passed. Returns whether
/// it can.
fn await_any(descriptors: &mut [libc::pollfd], time: Duration) -> bool {
    if descriptors.is_empty() || time.is_zero() {
        return false;
    }
    let milliseconds = time.as_micros().div_ceil(1000).try_into().unwrap_or(libc::c_int::MAX);
    let count = descriptors.len() as libc::nfds_t;
    // SAFETY: the pointer and the count are those of the slice.
    let ready = unsafe { libc::poll(descriptors.as_mut_ptr(), count, milliseconds) };
    // After a signal, the caller sees whether there is time left.
    ready != 0
}

impl Kernel for Simulated {
    fn queues(&self) -> Queues {
        self.queues
    }

    /// It has none.
    fn descriptor(&self) -> RawFd {
        -1
    }

    fn is_forked(&self) -> bool {
        self.process != std::process::id()
    }

    fn enable(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Panics where a hook does, or if the program spins. But not while a panic is dropping the ring: a
    /// second panic would end the process, and nobody would be told of the first.
    fn enter(&mut self, queued: u32, patience: Patience) -> io::Result<()> {
        if !thread::panicking() {
            return self.work(queued, patience);
        }
        let worked = catch_unwind(AssertUnwindSafe(|| self.work(queued, patience)));
        worked.unwrap_or_else(|_| Err(machine::deadlock()))
    }

    fn register(&mut self) {}

    fn unregister(&mut self) {}

    fn notify(&mut self, eventfd: Option<&Eventfd>) -> io::Result<()> {
        self.machine(|machine| machine.set_eventfd(eventfd.map(AsRawFd::as_raw_fd)))
    }

    unsafe fn register_buffers(&mut self, buffers: BufferRing, group: u16) -> io::Result<()> {
        // SAFETY: the contract is the same, and the caller keeps it.
        self.machine(|machine| unsafe { machine.register_buffers(buffers, group) })?
    }

    fn unregister_buffers(&mut self, group: u16) -> io::Result<()> {
        self.machine(|machine| machine.unregister_buffers(group))?
    }

    /// It has none.
    fn limit_workers(&mut self, _: [u32; 2]) -> io::Result<()> {
        Ok(())
    }

    /// It has none.
    fn place_workers(&mut self, _: &Cpus) -> io::Result<()> {
        Ok(())
    }

    /// Its waits end with the first completion, as they may.
    fn set_min_wait(&mut self, _: MinWait) -> io::Result<()> {
        Ok(())
    }

    /// It has no devices.
    fn busy_poll(&mut self, _: BusyPoll) -> io::Result<()> {
        Ok(())
    }

    fn change_files(&mut self, change: Change<BorrowedFd<'_>>) -> io::Result<()> {
        self.machine(|machine| machine.change_files(change))?
    }

    unsafe fn change_memory(&mut self, change: Change<(u64, usize)>) -> io::Result<()> {
        // SAFETY: the contract is the same, and the caller keeps it.
        self.machine(|machine| unsafe { machine.change_memory(change) })?
    }

    fn now(&self) -> Duration {
        self.machine(|machine| machine.now()).unwrap_or_default()
    }
}

impl Drop for Simulated {
    /// Closes the ring. Requests that it has left are forgotten with it.
    fn drop(&mut self) {
        let closed = self.shared.machine(|machine| {
            let mut closed = machine.take()?;
            let mut left = lock(&self.shared.left);
            left.0 = closed.figures();
            left.1.append(&mut closed.take_log());
            Some(closed)
        });
        drop(closed);
    }
}
