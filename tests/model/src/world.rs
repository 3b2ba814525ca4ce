//! What surrounds the ring of a program: the accounts of what was accepted, delivered and dropped, and the answers of
//! the kernel.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet, VecDeque};
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rummelplatz::io_uring::opcode;
use rummelplatz::request::{Datagram, Pipe, RecvControl};
use rummelplatz::sim::{Answer, Asked, Event, Simulation};
use rummelplatz::{
    BufferPool, Completion, FixedBuffer, FixedBuffers, FixedFile, InvalidEntry, Key, RawCompletion, Stats,
    Stuck, SubmitError,
};

use crate::connections::{Connection, Held};
use crate::neighbour::Neighbour;
use crate::program::{Action, Chance, End, Kind, Limit, Program};
use crate::ring::Operation;
use crate::surroundings::Surroundings;

mod pauses;

use pauses::Pauses;

const F_MORE: u32 = 1 << 1;
const F_NOTIF: u32 = 1 << 3;

/// How often a stream goes on before it ends by itself.
const LONGEST_STREAM: u32 = 5;

/// How long the requests of teardown handlers are awaited before they are cancelled.
pub(crate) const GRACE: Duration = Duration::from_millis(20);

/// How often a stream is told that there are no buffers before there are some again.
const MOST_STARVED: u32 = 12;

/// How often in a row a stream must have been told that there are no buffers before it ends by itself.
const HOPELESS: u32 = 4;

/// How many buffers are registered; what would need one more becomes a NOP.
const REGISTERED: u32 = 8;

/// The data of a request.
pub(crate) struct Data {
    pub(crate) id: usize,
    pub(crate) kind: Kind,
    pub(crate) limit: Limit,
    /// In the slot, where the kernel reads and writes: the id, and what was written last.
    pub(crate) place: [u8; 16],
    /// As `place`, at an address of its own.
    pub(crate) heap: Heap,
    pub(crate) fd: Arc<OwnedFd>,
    pub(crate) closes: Option<OwnedFd>,
    /// What is in the ring's table, if it is about that.
    pub(crate) file: Option<Held>,
    /// What is waited for, and the value that it is expected to have.
    pub(crate) word: Arc<AtomicU32>,
    pub(crate) expected: u32,
    pub(crate) pipe: Pipe,
    pub(crate) pool: Option<BufferPool>,
    /// What comes with a message.
    pub(crate) receives: Option<RefCell<RecvControl>>,
    /// What kind of stream it becomes when it is armed again, and with which pool.
    pub(crate) becomes: Option<(Kind, Option<BufferPool>)>,
    pub(crate) world: Arc<World>,
}

impl Data {
    /// Sets how long the request may take.
    pub(crate) fn limit(&mut self, limit: Limit) {
        self.limit = limit;
        let now = self.world.now();
        let request = &mut self.world.lock().requests[self.id];
        (request.limit, request.since) = (limit, now);
    }

    /// Becomes the kind that was chosen for it meanwhile, if one was.
    pub(crate) fn change(&mut self) {
        if let Some((kind, pool)) = self.becomes.take() {
            self.world.changed(self.id, kind);
            self.fd = self.world.surroundings.descriptor(kind);
            (self.kind, self.pool) = (kind, pool);
        }
    }

    /// Notes the address that the kernel is given for the bytes.
    pub(crate) fn note_place(&self) {
        let place = match &self.heap {
            _ if self.kind.is_on_words() => self.word.as_ptr().cast_const().cast(),
            _ if self.kind == Kind::Pipe => (&raw const self.pipe).cast(),
            heap if self.kind.is_on_file() => heap.as_ptr(),
            Heap::Own(_) => self.place.as_ptr(),
            Heap::Registered(buffer) => buffer.as_ptr(),
        };
        self.world.lock().requests[self.id].place = place.expose_provenance() as u64;
    }
}

impl Data {
    /// Another descriptor of one end of the pipe, if there is one. Which end, the id says.
    pub(crate) fn end_of_pipe(&self) -> Option<OwnedFd> {
        // No other function shows the numbers and leaves them where they are.
        let shown = format!("{:?}", self.pipe);
        let is_digit = |byte: char| byte.is_ascii_digit();
        let mut numbers = shown.split(|byte| !is_digit(byte)).filter_map(|number| number.parse().ok());
        let number: RawFd = numbers.nth(self.id % 4 / 2)?;
        if shown.contains('-') {
            return None;
        }
        // SAFETY: the pipe is borrowed, so its ends stay open.
        let end = unsafe { BorrowedFd::borrow_raw(number) };
        Some(end.try_clone_to_owned().expect("there are descriptors for it"))
    }
}

impl Drop for Data {
    fn drop(&mut self) {
        if self.kind == Kind::Pipe
            && let Some(end) = self.end_of_pipe()
        {
            self.world.lock().ends.push(end);
        }
        self.world.dropped(self.id);
    }
}

/// Memory of a request outside its slot.
pub(crate) enum Heap {
    /// For raw entries.
    Own(Box<[u8; 16]>),
    /// A buffer of the set that the ring has registered.
    Registered(FixedBuffer),
}

impl Deref for Heap {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Heap::Own(own) => &**own,
            Heap::Registered(buffer) => buffer,
        }
    }
}

impl DerefMut for Heap {
    fn deref_mut(&mut self) -> &mut [u8] {
        match self {
            Heap::Own(own) => &mut **own,
            Heap::Registered(buffer) => buffer,
        }
    }
}

/// Where requests are made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Caller {
    /// `setup`, or a handler while the ring runs.
    Handler,
    TeardownHandler,
    /// Between two turns; it is not known whether those are of a teardown.
    Outside,
}

/// What is known of a request.
struct Request {
    kind: Kind,
    limit: Limit,
    /// When that was set, which is when it is submitted.
    since: Duration,
    /// Of a stream: when it was submitted, told the last time, or became another.
    told_at: Duration,
    /// The longest time between two of these, and from the last one to its end.
    longest: Duration,
    /// It is in a chain made with the safe call.
    linked: bool,
    /// It is of the second operation.
    second: bool,
    /// It is in a chain, or was submitted raw.
    raw: bool,
    name: Option<u64>,
    place: u64,
    /// What the kernel has written last.
    written: u64,
    accepted: bool,
    is_message: bool,
    /// It is delivered when there is nothing else to deliver.
    is_last: bool,
    /// It receives into the pool of this ring, and has done so since it was submitted.
    has_pool: bool,
    /// It was to be submitted with the pool of the neighbour.
    borrows: bool,
    /// It is a message that was sent by a handle.
    is_sent: bool,
    /// What it has received into buffers and has not told yet.
    received: VecDeque<Vec<u8>>,
    /// Nobody is told of its end.
    silent: bool,
    /// The other side is holding it up.
    blocked: bool,
    /// The word for which it waits was changed.
    woken: bool,
    /// What it is on, if that is in the ring's table.
    connection: Option<Arc<Connection>>,
    /// How many descriptors there are in the message that waits for it.
    passed: usize,
    told: u32,
    /// A cancel has found it.
    cancelled: bool,
    /// How many ticks it has told, or how many bytes, if they are limited.
    counted: u32,
    /// How often in a row it was told that there are no buffers, while nobody held one and nobody had taken one since
    /// the last time.
    starved: u32,
    /// How many buffers had been taken at the last time.
    taken: u64,
    /// The kernel says each time that there are no buffers.
    starves: bool,
    /// For a message: how many of the kernel's completions may be delivered before it must be.
    round: u64,
    finals: u32,
    drops: u32,
    taken_in: bool,
    /// A cancel of this request was taken in before the request.
    overtaken: bool,
    /// It was submitted in a teardown.
    is_late: bool,
    /// Does not keep the ring running.
    is_background: bool,
    /// How often it went on although it was to end, so that it was cancelled once more.
    insisted: u64,
    pauses: Pauses,
}

/// What a handler is told of a request.
#[derive(Clone, Copy)]
struct Told {
    id: usize,
    /// Of a stream, unless it is a raw entry.
    is_stream: bool,
    raw: RawCompletion,
    more: bool,
    timed_out: bool,
    /// The kernel has posted something of the request that nobody was told of yet.
    from_kernel: bool,
    /// By the teardown handler.
    teardown: bool,
}

/// What is around a ring.
pub(crate) struct World {
    /// `None` on the real kernel: there only what the ring says is known.
    pub(crate) simulation: Option<Simulation>,
    surroundings: Surroundings,
    /// Memory that the ring registers.
    pub(crate) registered: FixedBuffers,
    inner: Mutex<Inner>,
}

pub(crate) struct Inner {
    pub(crate) chance: Chance,
    kernel: Chance,
    pub(crate) program: Program,
    pub(crate) actions: VecDeque<Action>,
    /// Calls of `on_completion` so far.
    pub(crate) calls: u8,
    /// The stream whose handler is running, and its operation.
    lent: Option<(bool, usize)>,
    /// Requests that teardown handlers may still submit.
    pub(crate) late_left: u32,
    requests: Vec<Request>,
    by_name: HashMap<u64, usize>,
    pub(crate) keys: Vec<(bool, usize, Key<Operation>)>,
    /// Completions that were posted and not delivered, by name.
    posted: HashMap<u64, VecDeque<RawCompletion>>,
    /// The requests that the kernel has: taken in, with no final completion posted.
    owned: HashSet<u64>,
    /// Entries that the kernel has been shown but has not taken in.
    shown: u32,
    last_taken: Option<usize>,
    /// The timer that must be taken in next.
    next_timer: Option<u64>,
    /// What linked timers have ended with, by name.
    timers: HashMap<u64, i32>,
    /// When requests ended in the kernel, at the latest, by name.
    ended_by: HashMap<u64, Duration>,
    /// Requests for which a cancel was taken in.
    asked_for: HashSet<u64>,
    /// Chains by their first id: how long they are, and how much of them was taken in.
    chains: Vec<Chain>,
    /// Buffers that are held for a while.
    kept: Vec<Kept>,
    /// How many buffers were ever taken, from each of the pools: see [`whose`].
    taken: [u64; 3],
    pool: Option<BufferPool>,
    /// The one whose buffers are used up piece by piece.
    pieces: Option<BufferPool>,
    pub(crate) neighbour: Option<Neighbour>,
    /// What the kernel has put into the ring's table.
    connections: Vec<Arc<Connection>>,
    /// Those of them that were not reported yet, by the name of their requests.
    arriving: HashMap<u64, VecDeque<Arc<Connection>>>,
    /// Who was reported last for each place of the table.
    places: HashMap<i32, Arc<Connection>>,
    /// Files in the table that are held for a while, if need be beyond the end of the ring.
    files: Vec<Held>,
    /// How many files handlers were given.
    held: u64,
    /// A pipe; every descriptor that the kernel makes is its writing end.
    pipe: Option<(OwnedFd, OwnedFd)>,
    /// One end of each pipe that was dropped with its data. The other end must be closed.
    ends: Vec<OwnedFd>,
    /// What the figures of the ring must be.
    expected: Expected,
    /// What is wrong.
    violations: Vec<String>,
    /// The kernel has lost a completion, or will never give one: leaks are to be expected.
    pub(crate) silenced: bool,
}

/// What the figures of a ring must be.
#[derive(Default)]
struct Expected {
    warnings: u64,
    returned_late: u64,
    /// Completions that name no request: how many were posted, and how many of them before one that was delivered.
    strangers: u64,
    strangers_seen: u64,
    /// How many of them there were when the end of a request was posted, by the request's name.
    strangers_before: HashMap<u64, u64>,
    /// Requests whose end nobody is told, and those of them that the kernel has ended well.
    detached: u64,
    detached_well: u64,
    /// There is a reason for a run to end.
    may_end: bool,
    /// The last time at which no teardown had begun.
    ran_at: Duration,
    /// The last message that was delivered: of those that were posted, of those that were sent to each operation, and
    /// of those that were posted to be delivered last.
    last_message: [Option<usize>; 4],
    /// What a handler has failed with, in this run.
    cause: Option<String>,
    /// What teardown handlers have failed with, in this run.
    teardown: Vec<String>,
    /// How many failures there were.
    failures: u32,
    /// How many completions of the kernel were delivered; one more while one of the ring's own is.
    round: u64,
    is_own: bool,
    /// Messages on their way.
    messages: Vec<usize>,
}

/// A buffer with what was received, or with a datagram.
pub(crate) type Piece = Box<dyn AsRef<[u8]> + Send>;

/// A buffer that is held for a while.
struct Kept {
    buffer: Piece,
    content: Vec<u8>,
    whose: usize,
}

/// How large the buffers are that are used up piece by piece.
const PIECES: usize = 100;
const OWN: usize = 0;
const THEIRS: usize = 1;
const PIECEWISE: usize = 2;

/// Which pool this is, if it is one: the own one, the neighbour's, or the one whose buffers are used up piece by piece.
fn whose(pool: Option<&BufferPool>) -> usize {
    match pool.map(BufferPool::buffer_size) {
        Some(Neighbour::SIZE) => THEIRS,
        Some(PIECES) => PIECEWISE,
        _ => OWN,
    }
}

struct Chain {
    first: usize,
    length: usize,
    taken: usize,
}

impl Chain {
    /// Whether only a part of it was taken in.
    fn is_torn(&self) -> bool {
        (1..self.length).contains(&self.taken)
    }
}

impl World {
    pub(crate) fn new(
        program: &Program,
        simulation: Option<Simulation>,
        surroundings: Surroundings,
    ) -> Arc<World> {
        Arc::new(World {
            simulation,
            surroundings,
            registered: FixedBuffers::new(REGISTERED, 16).expect("there is so much memory"),
            inner: Mutex::new(Inner {
                chance: Chance::new(program.seed ^ 0x1111),
                kernel: Chance::new(program.seed ^ 0x2222),
                actions: program.actions.clone().into(),
                program: program.clone(),
                calls: 0,
                lent: None,
                late_left: 20,
                requests: Vec::new(),
                by_name: HashMap::new(),
                keys: Vec::new(),
                posted: HashMap::new(),
                owned: HashSet::new(),
                shown: 0,
                last_taken: None,
                next_timer: None,
                timers: HashMap::new(),
                ended_by: HashMap::new(),
                asked_for: HashSet::new(),
                chains: Vec::new(),
                kept: Vec::new(),
                taken: [0; 3],
                pool: None,
                pieces: None,
                neighbour: None,
                connections: Vec::new(),
                arriving: HashMap::new(),
                places: HashMap::new(),
                files: Vec::new(),
                held: 0,
                pipe: None,
                ends: Vec::new(),
                expected: Expected::default(),
                violations: Vec::new(),
                silenced: false,
            }),
        })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what the kernel has done since the last time.
    fn look(&self) -> MutexGuard<'_, Inner> {
        let Some(simulation) = &self.simulation else { return self.lock() };
        let (log, now) = (simulation.take_log(), simulation.now());
        let mut inner = self.lock();
        for event in log {
            inner.note(event, now);
        }
        inner
    }

    /// Something is wrong.
    pub(crate) fn violation(&self, what: String) {
        self.lock().violation(what);
    }

    // ---- what the ring does -------------------------------------------------------------------------

    /// Data for a new request.
    pub(crate) fn issue(self: &Arc<Self>, kind: Kind, second: bool, raw: bool) -> Data {
        let mut inner = self.lock();
        // What may be leaked must hold no descriptor, or a million programs would run out of them.
        let has_descriptor = matches!(kind, Kind::Close | Kind::Pipe | Kind::ReceiveMessage) || kind.opens();
        let kind = if has_descriptor && inner.may_leak() { Kind::Nop } else { kind };
        // Miri does not know which files are open.
        let kind =
            if kind.opens() && (inner.program.places.is_none() || cfg!(miri)) { Kind::Nop } else { kind };
        let kind =
            if matches!(kind, Kind::Pipe | Kind::ReceiveMessage) && cfg!(miri) { Kind::Nop } else { kind };
        let file = if kind.is_on_file() { inner.some_file() } else { None };
        let kind = match &file {
            None if kind.is_on_file() => Kind::Nop,
            // What comes over it tells with what may be answered.
            Some(held) if held.connection.tag() == 0 && kind != Kind::Install => Kind::ReceiveOnFile,
            _ => kind,
        };
        let registered = if kind == Kind::ReadFixed { self.registered.take() } else { None };
        let kind = if kind == Kind::ReadFixed && registered.is_none() { Kind::Nop } else { kind };
        let id = inner.requests.len();
        let blocked = inner.chance.one_in(3);
        inner.requests.push(Request {
            kind,
            limit: Limit::None,
            since: Duration::ZERO,
            told_at: Duration::ZERO,
            longest: Duration::ZERO,
            linked: false,
            second,
            raw,
            name: None,
            place: 0,
            written: 0,
            accepted: false,
            is_message: false,
            is_last: false,
            has_pool: false,
            borrows: false,
            is_sent: false,
            received: VecDeque::new(),
            silent: false,
            blocked,
            woken: false,
            connection: file.as_ref().map(|held| Arc::clone(&held.connection)),
            passed: 0,
            told: 0,
            cancelled: false,
            counted: 0,
            starved: 0,
            taken: 0,
            starves: false,
            round: 0,
            finals: 0,
            drops: 0,
            taken_in: false,
            overtaken: false,
            is_late: false,
            is_background: false,
            insisted: 0,
            pauses: Pauses::default(),
        });
        let mut place = [0; 16];
        place[..8].copy_from_slice(&(id as u64).to_ne_bytes());
        let heap = match registered {
            Some(mut buffer) => {
                buffer.copy_from_slice(&place);
                Heap::Registered(buffer)
            }
            None => Heap::Own(Box::new(file.as_ref().map_or(place, |held| [held.connection.tag(); 16]))),
        };
        if raw {
            inner.requests[id].place = heap.as_ptr().expose_provenance() as u64;
        }
        let pool = kind.has_pool().then(|| inner.pool_for(kind));
        inner.requests[id].borrows = whose(pool.as_ref()) == THEIRS;
        let closes = (kind == Kind::Close).then(|| inner.descriptor());
        let mut fd = self.surroundings.descriptor(kind);
        let receives = (kind == Kind::ReceiveMessage).then(|| {
            let (ours, theirs) = UnixDatagram::pair().expect("there are descriptors for it");
            inner.requests[id].passed = inner.pass(&ours);
            fd = Arc::new(theirs.into());
            RefCell::default()
        });
        let word = Arc::clone(&self.surroundings.words[id % 2]);
        let mut expected = word.load(Ordering::SeqCst);
        if kind == Kind::WordWait && inner.chance.one_in(6) {
            expected = expected.wrapping_sub(1);
        }
        Data {
            id,
            kind,
            limit: Limit::None,
            place,
            heap,
            fd,
            closes,
            file,
            word,
            expected,
            pipe: Pipe::new(),
            pool,
            receives,
            becomes: None,
            world: Arc::clone(self),
        }
    }

    /// A message was received, or not. Whatever has come with it is taken, or some of it, or it is left.
    pub(crate) fn receives(&self, is_received: bool, data: &Data) {
        let Some(receives) = &data.receives else { return };
        let mut inner = self.lock();
        let passed = if is_received { inner.requests[data.id].passed } else { 0 };
        let taken = inner.chance.below(passed as u64 + 2) as usize;
        let mut receives = receives.borrow_mut();
        let count = receives.take_fds().take(taken).count();
        let is_cut = receives.is_control_truncated();
        if count != taken.min(passed) || is_cut {
            inner.violation(format!("of {passed} descriptors for #{}, {count} came, cut: {is_cut}", data.id));
        }
    }

    /// Data for a part of a chain by the safe call.
    pub(crate) fn issue_linked(self: &Arc<Self>, kind: Kind, second: bool, limit: Limit) -> Data {
        let mut data = self.issue(kind, second, false);
        data.limit(limit);
        self.lock().requests[data.id].linked = true;
        data
    }

    /// A stream is armed again as one of another kind.
    fn changed(&self, id: usize, kind: Kind) {
        let now = self.now();
        let mut inner = self.lock();
        let request = &mut inner.requests[id];
        // Each `ENOBUFS` in a row still counts, whichever pool it is about.
        if !request.kind.has_pool() || !kind.has_pool() {
            request.starved = 0;
        }
        (request.kind, request.counted, request.told_at) = (kind, 0, now);
        (request.starves, request.has_pool) = (false, false);
    }

    /// What a stream may become: another kind of stream, or one with another pool.
    pub(crate) fn some_change(&self, kind: Kind) -> Option<(Kind, Option<BufferPool>)> {
        let mut inner = self.lock();
        // The rest of a limit would become that of the new kind.
        let may_change = self.simulation.is_some() && kind.limit().is_none() && inner.chance.one_in(6);
        may_change.then(|| {
            let is_direct = inner.program.places.is_some() && !inner.may_leak() && inner.chance.one_in(3);
            let kind = if is_direct { Kind::AcceptMultiDirect } else { inner.chance.pick(&Kind::STREAMS) };
            (kind, kind.has_pool().then(|| inner.pool_for(kind)))
        })
    }

    /// This many requests of an operation were accepted, but are not known as such yet.
    pub(crate) fn admitted(&self, second: bool, count: usize) {
        let mut inner = self.look();
        let (certain, _) = inner.occupied(second);
        if inner.knows_slots()
            && inner.program.request_limit.is_some_and(|limit| certain + count > limit as usize)
        {
            inner.violation(format!("{count} more were accepted, though {certain} requests had not ended"));
        }
    }

    /// Data comes back because a request was refused, or several that belong together.
    pub(crate) fn refused(&self, ids: &[usize], data: &[Data], error: SubmitError, from: Caller) {
        let mut inner = self.look();
        for (id, data) in ids.iter().zip(data) {
            let mut place = [0; 16];
            place[..8].copy_from_slice(&(*id as u64).to_ne_bytes());
            // The interval of a timer is written there when the entry is made.
            let is_tagged = data.kind.is_on_file() && data.heap.iter().all(|byte| *byte == data.heap[0]);
            let heap_is_whole = data.heap[..] == place || data.kind == Kind::TimeoutMulti || is_tagged;
            let is_whole = data.place == place && heap_is_whole;
            let has_files = data.closes.is_some() == (data.kind == Kind::Close)
                && data.file.is_some() == data.kind.is_on_file();
            if data.id != *id || !is_whole || !has_files {
                inner.violation(format!("#{id} was refused, and came back other than it was"));
            }
        }
        let Program { entries, backlog_limit, request_limit, .. } = inner.program;
        let count = ids.len();
        // The requests of a chain may be of both operations, and the last one was refused.
        let second = ids.last().is_some_and(|id| inner.requests[*id].second);
        let (_, possible) = inner.occupied(second);
        let of_operation = ids.iter().filter(|id| inner.requests[**id].second == second).count();
        let timers = ids.iter().filter(|id| inner.requests[**id].has_linked_timer()).count();
        // A stream may wait to be armed again.
        let may_wait = |it: &&Request| !it.taken_in || it.kind.is_stream();
        let waiting =
            inner.requests.iter().filter(|it| it.accepted && it.drops == 0).filter(may_wait).count();
        let is_taken = inner.neighbour.as_ref().is_some_and(Neighbour::has_pool);
        let borrows = is_taken && ids.iter().any(|id| inner.requests[*id].borrows);
        let is_right = match error {
            SubmitError::Full => backlog_limit.is_some_and(|limit| waiting + count > limit),
            SubmitError::TooManyRequests => request_limit
                .is_some_and(|limit| !inner.knows_slots() || possible + of_operation > limit as usize),
            SubmitError::Closed => from != Caller::Handler,
            SubmitError::PoolInUse => borrows,
            SubmitError::Invalid(InvalidEntry::ChainTooLong) => count + timers > entries as usize,
            _ => false,
        };
        if !is_right && self.simulation.is_some() {
            let first = ids[0];
            inner.violation(format!("#{first} (of {count}) was refused in vain: {error:?}, {from:?}"));
        }
    }

    /// Data was sent, or comes back.
    pub(crate) fn sent(&self, id: usize, refused: Option<&Data>, from: Caller) {
        if refused.is_none() {
            let mut inner = self.lock();
            inner.requests[id].accepted = true;
            inner.requests[id].is_message = true;
            inner.requests[id].is_sent = true;
        }
        let is_right = match from {
            Caller::Handler => refused.is_none(),
            Caller::TeardownHandler => refused.is_some(),
            Caller::Outside => true,
        };
        if !is_right || refused.is_some_and(|data| data.id != id || data.place[8..] != [0; 8]) {
            self.violation(format!("#{id} was sent, refused: {}, {from:?}", refused.is_some()));
        }
    }

    /// A handler returns the data of a stream: if a buffer of its pool is held, what was counted is void.
    pub(crate) fn goes_on(&self, id: usize, pool: Option<&BufferPool>) {
        let mut inner = self.lock();
        if inner.kept.iter().any(|kept| kept.whose == whose(pool)) {
            inner.requests[id].starved = 0;
        }
    }

    /// There is a reason for the run to end.
    pub(crate) fn may_end(&self) {
        self.lock().expected.may_end = true;
    }

    /// A run begins.
    pub(crate) fn begins(&self) {
        let ran_at = self.now();
        let mut inner = self.lock();
        (inner.expected.may_end, inner.expected.ran_at) = (false, ran_at);
    }

    /// The time in the simulation.
    pub(crate) fn now(&self) -> Duration {
        self.simulation.as_ref().map(Simulation::now).unwrap_or_default()
    }

    /// A request does not keep the ring running.
    pub(crate) fn is_background(&self, id: usize) {
        self.lock().requests[id].is_background = true;
    }

    /// A request was submitted during the teardown.
    pub(crate) fn is_late(&self, id: usize) {
        self.lock().requests[id].is_late = true;
    }

    /// A run has panicked, and reports nothing else.
    pub(crate) fn forget_result(&self) {
        let mut inner = self.lock();
        inner.expected.cause = None;
        inner.expected.teardown.clear();
    }

    /// A request was accepted that receives into this pool, or that receives into none.
    pub(crate) fn bound(&self, id: usize, pool: Option<&BufferPool>) {
        let mut inner = self.lock();
        inner.requests[id].has_pool = pool.is_some() && whose(pool) == OWN;
        if inner.belongs_to_neighbour(pool) {
            inner.violation(format!("#{id} was accepted, though its pool is another ring's"));
        }
    }

    /// Another ring comes, which has a pool.
    pub(crate) fn new_neighbour(&self) {
        let neighbour = Neighbour::new(self.surroundings.descriptor(Kind::ReceiveMulti));
        self.lock().neighbour = Some(neighbour);
    }

    /// Another ring wants to use the pool of this one.
    pub(crate) fn borrow(&self, is_over: bool) {
        if self.simulation.is_none() {
            return;
        }
        if self.lock().neighbour.is_none() {
            self.new_neighbour();
        }
        let mut inner = self.lock();
        let is_used = inner
            .requests
            .iter()
            .any(|it| it.has_pool && it.accepted && !it.silent && it.finals == 0 && it.drops == 0);
        let pool = inner.pool();
        let Some(mut neighbour) = inner.neighbour.take() else { return };
        drop(inner);
        let borrowed = neighbour.borrow(&pool);
        let mut inner = self.lock();
        inner.neighbour = Some(neighbour);
        let is_right = match borrowed {
            Ok(()) => is_over || !is_used,
            Err(SubmitError::PoolInUse) => !is_over,
            Err(_) => false,
        };
        if !is_right {
            inner.violation(format!("a pool that is in use ({is_used}): {borrowed:?}"));
        }
    }

    /// Another ring is done with its pool.
    pub(crate) fn yield_pool(&self) {
        let neighbour = self.lock().neighbour.take();
        if let Some(mut neighbour) = neighbour {
            neighbour.give_up();
            self.lock().neighbour = Some(neighbour);
        }
    }

    /// A stream has received this many bytes, in one buffer or more, which may be kept.
    pub(crate) fn received(&self, id: usize, pool: Option<&BufferPool>, pieces: Vec<Piece>, length: usize) {
        let mut inner = self.lock();
        let whose = whose(pool);
        let content: Vec<u8> = pieces.iter().flat_map(|piece| (**piece).as_ref()).copied().collect();
        let taken = pieces.iter().filter(|piece| !(***piece).as_ref().is_empty()).count();
        inner.taken[whose] += taken as u64;
        if content.len() != length {
            inner.violation(format!("#{id} is told of {length} bytes, and given {}", content.len()));
        }
        if self.simulation.is_some() && !content.is_empty() {
            let received = &mut inner.requests[id].received;
            // Nobody is told what a stream that was to end has received.
            let found = received.iter().position(|bytes| bytes.starts_with(&content));
            match found {
                Some(index) => drop(received.drain(..=index)),
                None => inner.violation(format!("#{id} is told of {content:?}, which it has not received")),
            }
        }
        let mut given_back = Vec::new();
        for buffer in pieces {
            // On the real kernel there is no idle moment in which the last buffer would be given back.
            let may_keep = self.simulation.is_some() || inner.kept.is_empty();
            let content = (*buffer).as_ref().to_vec();
            if !content.is_empty() && may_keep && inner.chance.one_in(3) {
                inner.kept.push(Kept { buffer, content, whose });
            } else {
                given_back.push(buffer);
            }
        }
        // Not under the lock: this may wake the ring.
        drop(inner);
        drop(given_back);
    }

    /// A handler fails: returns with what.
    pub(crate) fn fails(&self, is_first: bool, in_teardown: bool) -> u32 {
        let mut inner = self.lock();
        let expected = &mut inner.expected;
        expected.may_end = true;
        expected.failures += 1;
        let name = if is_first { "first" } else { "second" };
        let text = format!("operation `{name}`: failure {}", expected.failures);
        match in_teardown {
            true => expected.teardown.push(text),
            false => expected.cause = Some(text),
        }
        expected.failures
    }

    /// A run has ended like this: the kind of its error, what the error says, and the errors of teardown handlers
    /// beside it.
    pub(crate) fn check_result(&self, is_cause: bool, first: Option<String>, others: Vec<String>) {
        let mut inner = self.lock();
        let cause = inner.expected.cause.take();
        let teardown = std::mem::take(&mut inner.expected.teardown);
        let told = match is_cause {
            true => (first, others),
            false => (None, first.into_iter().chain(others).collect()),
        };
        let expected = (cause, teardown);
        if told != expected {
            inner.violation(format!("the run is to say {expected:?}, and says {told:?}"));
        }
    }

    /// A request was accepted.
    pub(crate) fn accepted(&self, id: usize, key: Option<(bool, Key<Operation>)>) {
        let now = self.now();
        let mut inner = self.lock();
        inner.requests[id].accepted = true;
        inner.requests[id].told_at = now;
        if let Some((second, key)) = key {
            let name = key.user_data();
            if inner.owned.contains(&name) {
                inner.violation(format!("#{id} is named {name:#x}, as a request is that the kernel has"));
            }
            inner.requests[id].name = Some(name);
            inner.by_name.insert(name, id);
            inner.posted.remove(&name);
            inner.keys.push((second, id, key));
        }
    }

    pub(crate) fn accepted_silently(&self, id: usize) {
        let mut inner = self.lock();
        inner.requests[id].accepted = true;
        inner.requests[id].silent = true;
        inner.expected.detached += 1;
    }

    pub(crate) fn accepted_message(&self, id: usize, last: bool) {
        let mut inner = self.lock();
        inner.requests[id].accepted = true;
        inner.requests[id].is_message = true;
        if last {
            inner.requests[id].is_last = true;
            return;
        }
        inner.requests[id].round = inner.expected.round + u64::from(inner.expected.is_own);
        inner.expected.messages.push(id);
    }

    /// A handler has returned data for a request that is over.
    pub(crate) fn returned_late(&self) {
        self.lock().expected.returned_late += 1;
    }

    /// A handler warns.
    pub(crate) fn warned(&self) {
        self.lock().expected.warnings += 1;
    }

    pub(crate) fn accepted_chain(&self, first: usize, length: usize) {
        self.lock().chains.push(Chain { first, length, taken: 0 });
    }

    /// A stream was given up: nobody is told the rest of it.
    pub(crate) fn forgotten(&self, id: usize) {
        self.lock().requests[id].silent = true;
    }

    /// Whether a cancel of this request found it.
    pub(crate) fn cancelled(&self, id: usize, found: bool) {
        let mut inner = self.lock();
        if found && inner.requests[id].finals > 0 {
            inner.violation(format!("a cancel of #{id} found something, though it is over"));
        }
        let is_open = inner.requests[id].finals == 0 && !inner.requests[id].silent && !inner.silenced;
        if !found && is_open {
            inner.violation(format!("a cancel of #{id} found nothing"));
        }
        inner.requests[id].cancelled |= found;
    }

    /// A handler has the data of this stream of an operation, or of no stream.
    pub(crate) fn lend(&self, lent: Option<(bool, usize)>) {
        self.lock().lent = lent;
    }

    /// Whether the submitter of an operation ought to be able to end the stream whose handler is running.
    pub(crate) fn ended(&self, second: bool, found: bool) {
        let mut inner = self.lock();
        let lent = inner.lent.filter(|(of_second, _)| *of_second == second).map(|(_, id)| id);
        // One that was idle may have been ended by the ring before.
        let may_be_ending = lent.is_some_and(|id| inner.requests[id].kind.idle_limit(id).is_some());
        let is_open = lent.is_some_and(|id| !inner.requests[id].cancelled);
        if is_open != found && (found || !may_be_ending) {
            inner.violation(format!("the end of {lent:?} was asked for: {found}"));
        }
        if let Some(id) = lent {
            inner.requests[id].cancelled = true;
        }
    }

    /// Cancels of all requests of an operation found this many.
    pub(crate) fn cancelled_all(&self, second: bool, found: usize) {
        let mut inner = self.lock();
        let Inner { keys, requests, .. } = &mut *inner;
        let silent = requests.iter().filter(|request| request.silent && request.finals == 0).count();
        let mut open = 0;
        for (_, id, _) in keys.iter().filter(|(of_second, _, _)| *of_second == second) {
            let request = &mut requests[*id];
            if request.finals == 0 && !request.silent {
                request.cancelled = true;
                open += 1;
            }
        }
        if !inner.silenced && !(open..=open + silent).contains(&found) {
            inner.violation(format!("cancels found {found} of {open} requests"));
        }
    }

    /// A handler is called.
    pub(crate) fn delivered(&self, data: &Data, completion: &Completion, teardown: bool) {
        let now = self.now();
        let mut inner = self.look();
        if !teardown {
            inner.expected.ran_at = now;
        }
        inner.check_files(now, false);
        let id = data.id;
        let raw = completion.raw();
        inner.expected.may_end |= teardown && !inner.requests.iter().any(|it| inner.keeps_running(it));
        if teardown && !inner.expected.may_end && !inner.may_leak() && self.simulation.is_some() {
            inner.violation(format!("#{id} ends in a teardown, for which there is no reason"));
        }
        let (more, message) = (completion.more(), completion.is_message());
        let Request { kind, raw: is_raw, name, written, accepted, finals, is_message, silent, .. } =
            inner.requests[id];
        // The real kernel writes whatever it has, and what it has posted is not known.
        let is_simulated = self.simulation.is_some();
        let mut wrong = |what: &str| inner.violations.push(format!("#{id} ({kind:?}): {what}; {raw:?}"));
        if !accepted {
            wrong("delivered, but it was refused");
        }
        if finals > 0 {
            wrong("delivered after its end");
        }
        if silent {
            wrong("delivered, though nobody was to be told");
        }
        if message != is_message {
            wrong("a message is no completion");
        }
        if more && teardown {
            wrong("a stream does not go on in a teardown");
        }
        let is_stream = kind.is_stream() && !is_raw;
        if message && (raw.result, raw.flags) != (0, 0) {
            wrong("a message has no result");
        }
        if more && !is_stream {
            wrong("more is announced, but it is no stream");
        }
        let borrowed = kind.has_pool() && raw.result == -libc::EBUSY && !more;
        // What was in the table of an earlier run is nowhere now.
        let is_void = data.file.as_ref().map_or(Some(false), |held| held.connection.is_void());
        let is_missing = raw.result == -libc::EBADF;
        let is_right = match is_void {
            // The simulated kernel resets whatever it is to send on, without looking whether there is something.
            Some(true) => {
                let others = [libc::ECANCELED, libc::EINTR, 512, libc::ECONNRESET];
                is_missing || others.contains(&-raw.result)
            }
            Some(false) => is_possible(kind, raw.result),
            None => is_missing || is_possible(kind, raw.result),
        };
        if !is_right && !borrowed {
            wrong("no kernel ends it so");
        }
        if kind == Kind::ReceiveOnFile
            && raw.result > 0
            && let Some(held) = &data.file
        {
            held.connection.received(&data.heap[..raw.result as usize]);
        }
        let in_place = kind != Kind::ReadFixed && (!is_raw || kind.is_stream());
        let place = if in_place { &data.place } else { &*data.heap };
        let number = |bytes: &[u8]| u64::from_ne_bytes(bytes.try_into().unwrap_or_default());
        if is_simulated && number(&place[..8]) != id as u64 {
            wrong("its memory is that of another request");
        }
        if is_simulated && number(&place[8..]) != written {
            wrong("what the kernel has written is not there");
        }
        if is_simulated {
            let timed_out = completion.timed_out();
            let from_kernel = inner.is_from_kernel(id, &raw, more, teardown || timed_out);
            let told = Told { id, is_stream, raw, more, timed_out, from_kernel, teardown };
            inner.compare_with_kernel(told, now, whose(data.pool.as_ref()));
        }
        // One operation may have room for what was sent to it while the other has none.
        let way = match inner.requests[id] {
            Request { is_last: true, .. } => 3,
            Request { is_sent: false, .. } => 0,
            Request { second, .. } => 1 + usize::from(second),
        };
        if is_message && inner.expected.last_message[way].replace(id).is_some_and(|last| last > id) {
            inner.violation(format!("message #{id} was overtaken"));
        }
        if !more {
            inner.requests[id].finals += 1;
            if let Some(before) = name.and_then(|name| inner.expected.strangers_before.get(&name).copied()) {
                inner.expected.strangers_seen = inner.expected.strangers_seen.max(before);
            }
        }
    }

    fn dropped(&self, id: usize) {
        let mut inner = self.look();
        let request = &mut inner.requests[id];
        request.drops += 1;
        let (drops, name, finals, accepted) = (request.drops, request.name, request.finals, request.accepted);
        if request.is_sent && finals == 0 && inner.program.end != End::Drop && inner.knows_slots() {
            inner.violation(format!("#{id} was sent, and nobody was told"));
        }
        if drops > 1 {
            inner.violation(format!("#{id} was dropped {drops} times"));
        }
        // What was delivered belongs to the handler; before that, the kernel must be done with it.
        if let Some(name) = name
            && finals == 0
            && accepted
            && inner.by_name.get(&name) == Some(&id)
            && inner.owned.contains(&name)
            && !inner.requests[id].kind.is_stream()
        {
            inner.violation(format!("#{id} was dropped while the kernel has its request"));
        }
    }

    // ---- what the kernel does -------------------------------------------------------------------------

    /// Answers in place of the kernel.
    pub(crate) fn answer(&self, asked: &Asked) -> Answer {
        self.lock().answer(asked)
    }

    /// From time to time, another ring names a request that is over. (The strangers of [`Faults::foreign`] don't:
    /// only who knows the ring's slots can tell that none has that name again.)
    ///
    /// [`Faults::foreign`]: rummelplatz::sim::Faults::foreign
    pub(crate) fn name_what_is_over(&self) {
        let Some(simulation) = &self.simulation else { return };
        let mut inner = self.look();
        if inner.program.faults.foreign <= 0.0 || !inner.kernel.one_in(4) {
            return;
        }
        let is_over = |request: &&Request| {
            let kernel_has = |name: u64| inner.owned.contains(&name) || inner.owned.contains(&timer_of(name));
            let is_told = request.finals == 1 && request.drops == 1;
            let was_single = !request.kind.is_stream() && !request.kind.is_zero_copy();
            is_told && was_single && request.name.is_some_and(|name| !kernel_has(name))
        };
        let names: Vec<u64> =
            inner.requests.iter().filter(is_over).filter_map(|request| request.name).collect();
        if names.is_empty() {
            return;
        }
        let name = inner.kernel.pick(&names);
        let result = inner.kernel.pick(&[0, 1, i32::MAX, -libc::ECANCELED]);
        let flags = inner.kernel.pick(&[0, F_MORE]);
        drop(inner);
        // SAFETY: the request is over: its end was told, and its data was dropped. No slot is used so often in a
        // program that it has a name again.
        unsafe { simulation.post(name, result, flags) };
    }

    /// Lets what was held up go on, except for what was to be cancelled: that ends when the kernel finds it. Returns
    /// whether anything was held up.
    pub(crate) fn release(&self) -> bool {
        let mut inner = self.look();
        let kept = inner.kept();
        let mut any = !kept.is_empty();
        let words = &self.surroundings.words;
        let Inner { requests, asked_for, .. } = &mut *inner;
        for (id, request) in requests.iter_mut().enumerate().filter(|(_, request)| request.drops == 0) {
            let is_to_end = request.name.is_some_and(|name| asked_for.contains(&name));
            // Cancels have no influence on the memory of a zero-copy send.
            if !is_to_end || request.kind.is_zero_copy() {
                let was_blocked = std::mem::take(&mut request.blocked);
                let waits = request.kind == Kind::WordWait && request.taken_in && request.finals == 0;
                if waits && !was_blocked && !is_to_end && !std::mem::replace(&mut request.woken, true) {
                    words[id % 2].fetch_add(1, Ordering::SeqCst);
                    any = true;
                }
                any |= was_blocked;
            }
        }
        let left = inner.left_elsewhere(self.now());
        // Not under the lock: this may wake the ring.
        drop(inner);
        drop(kept);
        if let Some(left) = left {
            any = true;
            std::thread::scope(|scope| drop(scope.spawn(|| drop(left))));
        }
        any
    }

    /// Compares the figures of the ring with the accounts, between two calls of it.
    pub(crate) fn check_figures(&self, stats: &Stats) {
        let mut inner = self.look();
        let Expected { warnings, returned_late, strangers, strangers_seen, detached, detached_well, .. } =
            inner.expected;
        let mut wrong = Vec::new();
        if (stats.warnings, stats.returned_late) != (warnings, returned_late) {
            wrong.push(format!("{warnings} warnings and {returned_late} late returns"));
        }
        let is_on_its_way = |it: &&Request| it.is_sent && it.finals == 0 && it.drops == 0;
        let on_their_way = inner.requests.iter().filter(is_on_its_way).count();
        // Other requests may keep it waiting.
        let may_wait = inner.program.request_limit.is_some() && stats.in_flight > 0;
        if stats.undelivered > if may_wait { on_their_way as u64 } else { 0 } && inner.knows_slots() {
            wrong.push(format!("{on_their_way} were sent and not delivered"));
        }
        if !(strangers_seen..=strangers).contains(&stats.foreign) {
            wrong.push(format!("{strangers_seen} to {strangers} strangers"));
        }
        let failed = detached - detached_well;
        // Only for the simulated kernel is it known how a request has ended that nobody is told of.
        let is_over = stats.in_flight == 0 && !inner.silenced && self.simulation.is_some();
        if stats.detached_failed > failed || is_over && stats.detached_failed != failed {
            wrong.push(format!("{failed} failed unnoticed"));
        }
        if stats.operations().iter().map(|operation| operation.in_flight).sum::<usize>() != stats.in_flight {
            wrong.push("the operations have others in flight".to_owned());
        }
        // Streams that are armed again were accepted once and for all.
        let streams = inner.requests.iter().filter(|it| it.accepted && it.drops == 0 && it.kind.is_stream());
        let again = streams.count();
        if inner.program.backlog_limit.is_some_and(|limit| stats.backlog > limit + again) {
            wrong.push("more wait than may".to_owned());
        }
        let ((first, first_at_most), (second, second_at_most)) =
            (inner.occupied(false), inner.occupied(true));
        let (open, at_most) = (first + second, first_at_most + second_at_most);
        if !inner.silenced && !(open..=at_most).contains(&stats.in_flight) {
            wrong.push(format!("{open} to {at_most} requests have not ended"));
        }
        for what in wrong {
            inner.violation(format!("{what}, but {stats:?}"));
        }
    }

    // ---- files in the ring's table ------------------------------------------------------------------

    /// The kernel has put a file into this place of the table, and a handler has it.
    pub(crate) fn hold(&self, index: i32, file: FixedFile) {
        let mut inner = self.look();
        let known = inner.places.get(&index).cloned();
        let connection = match (known, &self.simulation) {
            (Some(connection), Some(_)) => connection,
            (None, Some(_)) => return inner.violation(format!("nothing was put into place {index}")),
            (_, None) => {
                let connection = Connection::unknown(self.surroundings.heard.clone());
                inner.connections.push(Arc::clone(&connection));
                connection
            }
        };
        let held = Held::first(file, connection);
        inner.held += 1;
        if inner.chance.one_in(3) {
            drop(inner);
            drop(held);
        } else {
            inner.files.push(held);
        }
    }

    /// What else is to be done with a file when a request of this kind has succeeded.
    pub(crate) fn some_service(&self, kind: Kind) -> Option<(Kind, Limit)> {
        let mut inner = self.lock();
        let often = if kind.opens() { 2 } else { 3 };
        let is_done = (kind.opens() || kind.is_on_file()) && !inner.files.is_empty();
        (is_done && inner.chance.one_in(often))
            .then(|| (inner.chance.pick(&Kind::ON_FILES), Limit::some(&mut inner.chance)))
    }

    /// Drops a clone of a file.
    pub(crate) fn leave(&self, which: u8) {
        let mut inner = self.lock();
        let count = inner.files.len();
        let left = (count > 0).then(|| inner.files.swap_remove(usize::from(which) % count));
        drop(inner);
        drop(left);
    }

    /// Checks that those files are open that somebody holds; and before the ring waits, that the others are not.
    pub(crate) fn check_files(&self, waits: bool) {
        let now = self.now();
        self.look().check_files(now, waits);
    }

    /// A run is over, and has ended as runs do if `is_known`.
    pub(crate) fn files_end(&self, is_known: bool) {
        let mut inner = self.look();
        inner.connections.iter().for_each(|connection| connection.ends(is_known));
        inner.check_files(Duration::ZERO, false);
    }

    /// How many files handlers were given.
    pub(crate) fn files(&self) -> u64 {
        self.lock().held
    }

    // ---- in the end -----------------------------------------------------------------------------------

    /// After a run: `leaked` is how many requests were abandoned.
    pub(crate) fn check_end(&self, leaked: Option<usize>) -> Vec<String> {
        let mut inner = self.look();
        let (kept, neighbour) = (inner.kept(), inner.neighbour.take());
        let (connections, files) = (inner.connections.clone(), std::mem::take(&mut inner.files));
        drop(inner);
        drop(kept);
        drop(files);
        for connection in connections {
            if leaked.is_none() {
                connection.check_end();
            }
            connection.wrong().into_iter().for_each(|what| self.violation(what));
        }
        if neighbour.as_ref().is_some_and(|it| it.pool.available() != it.pool.capacity()) && leaked.is_none()
        {
            self.violation("a buffer of the neighbour's is lost".to_owned());
        }
        drop(neighbour);
        if self.registered.available() != self.registered.capacity() && leaked.is_none() {
            self.violation("a registered buffer is lost".to_owned());
        }
        let mut inner = self.lock();
        let silenced = inner.silenced;
        let mut missing = 0;
        let mut wrong = Vec::new();
        for (id, request) in inner.requests.iter().enumerate() {
            let Request { kind, accepted, silent, is_sent, finals, drops, .. } = request;
            missing += usize::from(*drops == 0);
            if *drops != 1 && (leaked.is_none() || *drops > 1) {
                wrong.push(format!("#{id} ({kind:?}) was dropped {drops} times"));
            }
            // Whether sent data may be dropped was checked when it was dropped.
            let is_over = *finals == 1 || *is_sent && *finals == 0;
            if *accepted && !is_over && !silent && !silenced && leaked.is_none() {
                wrong.push(format!("#{id} ({kind:?}) has ended {finals} times"));
            }
        }
        // A stream that was given up, or whose handler panicked, no longer has data.
        let gone = |it: &&Request| it.kind.is_stream() && it.finals == 0 && it.drops == 1;
        let given_up = inner.requests.iter().filter(gone).count();
        if let Some(leaked) = leaked
            && !(missing..=missing + given_up).contains(&leaked)
        {
            wrong.push(format!("{leaked} requests were said to be abandoned, and {missing} were"));
        }
        if leaked.is_none() {
            if !inner.owned.is_empty() {
                let names = format!("{:x?}", inner.owned);
                wrong.push(format!("the kernel still has {names}"));
            }
            for pool in [&inner.pool, &inner.pieces].into_iter().flatten() {
                if pool.available() != pool.capacity() {
                    wrong.push(format!(
                        "{} of {} buffers are lost",
                        pool.capacity() - pool.available(),
                        pool.capacity()
                    ));
                }
            }
            if !inner.ends.iter().all(is_hung_up) {
                wrong.push("an end of a pipe was not closed".to_owned());
            }
            if let Some((reader, writer)) = inner.pipe.take() {
                drop(writer);
                if !cfg!(miri) && !is_hung_up(&reader) {
                    wrong.push("a descriptor was not closed".to_owned());
                }
            }
        }
        inner.violations.append(&mut wrong);
        std::mem::take(&mut inner.violations)
    }

    /// Everything that was abandoned is named: requests whose data was never dropped, and streams that no longer have
    /// data.
    pub(crate) fn check_stuck(&self, stuck: &Stuck) {
        let mut inner = self.lock();
        let mut named: Vec<_> = stuck.requests.iter().map(|it| (it.operation, it.opcode_name())).collect();
        let missing = |it: &&Request| it.drops == 0 && it.accepted;
        let mut wrong = Vec::new();
        for request in inner.requests.iter().filter(missing) {
            let name = if request.second { "second" } else { "first" };
            let is = |it: &(&str, &str)| *it == (name, request.kind.opcode_name());
            match named.iter().position(is) {
                Some(index) => drop(named.swap_remove(index)),
                None => wrong.push(request.kind),
            }
        }
        if !wrong.is_empty() {
            inner.violation(format!("{wrong:?} are stuck, but not in {stuck:?}"));
        }
    }

    /// How often a request went on although it was to end: the maximum over all requests.
    pub(crate) fn most_insisted(&self) -> u64 {
        self.lock().requests.iter().map(|request| request.insisted).max().unwrap_or_default()
    }

    pub(crate) fn is_sound(&self) -> bool {
        self.lock().violations.is_empty()
    }

    /// How much data was never dropped.
    pub(crate) fn missing(&self) -> usize {
        self.lock().requests.iter().filter(|request| request.drops == 0).count()
    }

    pub(crate) fn accepted_requests(&self) -> usize {
        self.lock().requests.iter().filter(|request| request.accepted).count()
    }

    pub(crate) fn cancel_is_for(&self, which: u8) -> Option<(bool, usize, Key<Operation>)> {
        let inner = self.lock();
        let count = inner.keys.len();
        (count > 0).then(|| inner.keys[usize::from(which) % count])
    }
}

/// Whether this result is an error after which accepting may succeed again.
fn passes(result: i32) -> bool {
    let errors = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ECONNRESET, libc::EINTR];
    errors.contains(&-result)
}

/// Whether a request of this kind can have this result, under the real kernel and the simulated one.
fn is_possible(kind: Kind, result: i32) -> bool {
    let errno = -result;
    let interrupted = matches!(errno, libc::ECANCELED | libc::EINTR | 512);
    match kind {
        Kind::Nop => result == 0 || interrupted,
        Kind::Timeout | Kind::Never | Kind::TimeoutMulti | Kind::TimeoutThrice => {
            // A full queue that cuts a timer in a teardown ends it with 0.
            matches!(errno, 0 | libc::ETIME) || interrupted
        }
        Kind::Read | Kind::ReadFixed | Kind::Receive | Kind::Send => {
            (0..=16).contains(&result) || matches!(errno, libc::ECONNRESET | libc::EPIPE) || interrupted
        }
        Kind::SendZeroCopy | Kind::SendVectoredZeroCopy => {
            let refused = matches!(errno, libc::ECONNRESET | libc::EPIPE | libc::EOPNOTSUPP | libc::ENOMEM);
            (0..=16).contains(&result) || refused || interrupted
        }
        Kind::ReceiveProvided
        | Kind::ReceiveMulti
        | Kind::ReceiveLimited
        | Kind::ReceiveBundles
        | Kind::ReceivePieces
        | Kind::ReceiveDatagrams => {
            let possible = match kind {
                Kind::ReceiveProvided | Kind::ReceiveMulti | Kind::ReceiveLimited => 0..=64,
                Kind::ReceivePieces => 0..=PIECES as i32,
                Kind::ReceiveBundles => 0..=128,
                // The end is an empty datagram, too.
                _ => Datagram::OVERHEAD as i32..=64,
            };
            let unknown = kind == Kind::ReceivePieces && errno == libc::EBADR;
            possible.contains(&result)
                || matches!(errno, libc::ECONNRESET | libc::ENOBUFS)
                || interrupted
                || unknown
        }
        Kind::Poll | Kind::PollMulti => result > 0 || errno == libc::ECONNRESET || interrupted,
        Kind::Accept | Kind::AcceptMulti => {
            let possible = [libc::EMFILE, libc::ENOBUFS, libc::ECONNRESET, libc::EINVAL];
            result >= 0 || possible.contains(&errno) || interrupted
        }
        Kind::WordWait => matches!(errno, 0 | libc::EAGAIN) || interrupted,
        Kind::WordWake => result >= 0 || interrupted,
        Kind::AcceptDirect | Kind::AcceptMultiDirect | Kind::OpenDirect | Kind::SocketDirect => {
            let possible = [libc::ENFILE, libc::ENOBUFS, libc::ECONNRESET, libc::EINVAL];
            result >= 0 || possible.contains(&errno) || interrupted
        }
        Kind::Install => result >= 0 || interrupted,
        Kind::Pipe => matches!(errno, 0 | libc::EMFILE) || interrupted,
        Kind::ReceiveOnFile | Kind::SendOnFile | Kind::SendZeroCopyOnFile => {
            // It may be a file, or a socket that is not connected, or one that can't send without copies.
            let others = [libc::ENOTSOCK, libc::ENOTCONN, libc::EINVAL, libc::EOPNOTSUPP];
            let possible = matches!(errno, libc::ECONNRESET | libc::EPIPE) || others.contains(&errno);
            (0..=16).contains(&result) || possible || interrupted
        }
        Kind::ReceiveMessage => matches!(errno, 0 | libc::ECONNRESET) || interrupted,
        Kind::Close => matches!(errno, 0 | libc::ECANCELED),
        // In the real kernel's file, there may be nothing to sync.
        Kind::Sync => matches!(errno, 0 | libc::EINVAL) || interrupted,
    }
}

/// The bit that the name of a timer has and the name of its request does not have.
const TIMER: u64 = 1 << 39;

/// The name of the timer of a request.
pub(crate) fn timer_of(name: u64) -> u64 {
    name | TIMER
}

fn is_timer(name: u64) -> bool {
    name & TIMER != 0
}

/// Whether this is the name of something that the ring made for itself, such as a cancel.
fn is_of_ring(name: u64) -> bool {
    matches!(name as u8, 0 | 254)
}

impl Request {
    /// Whether it has a timer, which must be taken in right behind it.
    fn has_linked_timer(&self) -> bool {
        self.limit != Limit::None && self.linked
    }
}

/// Whether nobody has the other end of a pipe or a connection any more. Whoever looks by its number whether a file is
/// open ([`Connection`]) may keep another thread's from being closed for a moment.
pub(crate) fn is_hung_up(reader: &impl AsRawFd) -> bool {
    const A_MOMENT: libc::c_int = 1_000;
    let mut poll = libc::pollfd { fd: reader.as_raw_fd(), events: 0, revents: 0 };
    // SAFETY: there is one of it.
    unsafe { libc::poll(&raw mut poll, 1, A_MOMENT) };
    poll.revents & (libc::POLLHUP | libc::POLLERR) != 0
}

impl Inner {
    fn violation(&mut self, what: String) {
        self.violations.push(what);
    }

    /// Whether the kernel may lose a completion, or may never give one.
    fn may_leak(&self) -> bool {
        self.program.faults.lost > 0.0 || self.program.faults.never > 0.0
    }

    /// Whether it is known which slots are free: it is not when a panic has lost some.
    fn knows_slots(&self) -> bool {
        !self.silenced && !self.may_leak()
    }

    /// How many requests an operation has in its slots: the minimum and the maximum.
    fn occupied(&self, second: bool) -> (usize, usize) {
        let (mut certain, mut possible) = (0, 0);
        let of_operation = |it: &&Request| it.second == second && it.accepted;
        for request in self.requests.iter().filter(of_operation) {
            let is_owned = || request.name.is_some_and(|name| self.owned.contains(&name));
            let (is_here, may_be_here) = match request {
                // It may not have been looked at yet, and may have been dropped.
                Request { is_sent: true, finals, drops, .. } => (false, *finals == 0 && *drops == 0),
                Request { silent: false, finals, .. } => (*finals == 0, *finals == 0),
                // A stream that was given up, or one whose end is not to be told.
                Request { name: Some(_), .. } => (is_owned(), true),
                Request { drops, .. } => (*drops == 0, *drops == 0),
            };
            certain += usize::from(is_here);
            possible += usize::from(may_be_here);
        }
        (certain, possible)
    }

    /// The buffers that are held. They must be dropped only when this is no longer locked.
    fn kept(&mut self) -> Vec<Kept> {
        let kept = std::mem::take(&mut self.kept);
        if kept.iter().any(|Kept { buffer, content, .. }| (**buffer).as_ref() != content) {
            self.violation("a buffer was written to while it was held".to_owned());
        }
        kept
    }

    /// A pool for a request of this kind to receive from.
    fn pool_for(&mut self, kind: Kind) -> BufferPool {
        match kind {
            Kind::ReceivePieces => self
                .pieces
                .get_or_insert_with(|| {
                    BufferPool::incremental(2, PIECES as u32).expect("there is memory for it")
                })
                .clone(),
            _ => self.some_pool(),
        }
    }

    /// A pool to receive from: from time to time, that of the neighbour.
    fn some_pool(&mut self) -> BufferPool {
        let borrows = self.neighbour.is_some() && self.chance.one_in(3);
        match &self.neighbour {
            Some(neighbour) if borrows => neighbour.pool.clone(),
            _ => self.pool(),
        }
    }

    /// Whether a pool is registered with the neighbour.
    fn belongs_to_neighbour(&self, pool: Option<&BufferPool>) -> bool {
        whose(pool) == THEIRS && self.neighbour.as_ref().is_some_and(Neighbour::has_pool)
    }

    pub(crate) fn pool(&mut self) -> BufferPool {
        self.pool.get_or_insert_with(|| BufferPool::new(2, 64).expect("there is memory for it")).clone()
    }

    /// A descriptor whose leak is noticed.
    fn descriptor(&mut self) -> OwnedFd {
        let pipe = || std::io::pipe().map(|(reader, writer)| (reader.into(), writer.into()));
        let (_, writer) = self.pipe.get_or_insert_with(|| pipe().expect("there are descriptors for it"));
        writer.try_clone().expect("there are descriptors for it")
    }

    /// Sends a message with some descriptors. Returns how many.
    fn pass(&mut self, sender: &UnixDatagram) -> usize {
        let fds: Vec<_> = (0..1 + self.kernel.below(3)).map(|_| self.descriptor()).collect();
        let numbers = fds.iter().flat_map(|fd| fd.as_raw_fd().to_ne_bytes());
        let length = size_of::<libc::cmsghdr>() + size_of::<RawFd>() * fds.len();
        let head = [libc::SOL_SOCKET, libc::SCM_RIGHTS].map(i32::to_ne_bytes);
        let control: Vec<u8> = length.to_ne_bytes().into_iter().chain(head.concat()).chain(numbers).collect();
        // SAFETY: all zeroes is a message.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        (message.msg_control, message.msg_controllen) =
            (control.as_ptr().cast_mut().cast(), control.len() as _);
        // SAFETY: the message leads to what is there.
        let sent = unsafe { libc::sendmsg(sender.as_raw_fd(), &raw const message, 0) };
        assert_eq!(sent, 0, "there is room for it");
        fds.len()
    }

    /// What has happened, by now.
    fn note(&mut self, event: Event, now: Duration) {
        match event {
            Event::Entered { shown } => {
                // Whatever the kernel leaves in the queue is its own decision.
                let all_taken = std::mem::replace(&mut self.shown, shown) == 0;
                if all_taken && let Some(torn) = self.chains.iter_mut().find(|chain| chain.is_torn()) {
                    torn.taken = torn.length;
                    let first = torn.first;
                    self.violation(format!("the chain of #{first} was torn apart"));
                }
                if all_taken && let Some(timer) = self.next_timer.take() {
                    self.violation(format!("the timer {timer:#x} comes too late"));
                }
            }
            Event::TakenIn(_) if self.shown == 0 => {
                self.violation("more was taken in than was shown".to_owned());
            }
            Event::TakenIn(asked) => {
                self.shown -= 1;
                if let Some(timer) = self.next_timer.take_if(|timer| *timer != asked.user_data) {
                    self.violation(format!("{asked:?} comes before the timer {timer:#x}"));
                }
                self.next_timer = None;
                if !is_of_ring(asked.user_data) {
                    self.taken_in(&asked);
                } else if asked.opcode == opcode::AsyncCancel::CODE {
                    self.cancel_taken_in(asked.address, now);
                }
            }
            Event::Posted { user_data, result, flags } => {
                let of_ours = self.owned.contains(&user_data);
                self.opened(user_data, result);
                // Everything with tag 0 that is not the ring's own is a stranger's.
                let is_control = is_of_ring(user_data) && (user_data as u8 != 0 || user_data >> 8 <= 4);
                // From a zero-copy send that its chain has ended; a stranger's looks the same.
                let is_notification = flags & (F_MORE | F_NOTIF) == F_NOTIF && result & i32::MAX == 0;
                if !of_ours && !is_control && !is_notification {
                    self.expected.strangers += 1;
                }
                if of_ours {
                    if is_timer(user_data) {
                        self.owned.remove(&user_data);
                        self.timers.insert(user_data, result);
                        return;
                    }
                    if flags & F_MORE == 0 {
                        self.owned.remove(&user_data);
                        self.ended_by.insert(user_data, now);
                        let detached = !self.by_name.contains_key(&user_data);
                        self.expected.detached_well += u64::from(detached && result >= 0);
                        self.expected.strangers_before.insert(user_data, self.expected.strangers);
                    }
                    let id = self.by_name.get(&user_data).copied();
                    if let Some(id) = id.filter(|_| flags & F_MORE != 0 && !self.expected.may_end) {
                        let Request { silent, cancelled, insisted, pauses, .. } = &mut self.requests[id];
                        *insisted += u64::from(*silent || *cancelled || pauses.was_paused);
                    }
                    self.posted.entry(user_data).or_default().push_back(RawCompletion { result, flags });
                }
            }
            _ => {}
        }
    }

    /// A cancel that comes before the request that it cancels is in vain.
    fn cancel_taken_in(&mut self, name: u64, now: Duration) {
        let Some(id) = self.by_name.get(&name).copied() else { return };
        self.asked_for.insert(name);
        let Request { taken_in, overtaken, is_late, cancelled, .. } = &mut self.requests[id];
        *overtaken |= !*taken_in;
        // The teardown began later than `ran_at`, and looked at the clock earlier than `now`.
        let is_spared = *is_late && !*cancelled && now.saturating_sub(self.expected.ran_at) < GRACE;
        // A request whose time is up is cancelled for that reason.
        let Request { limit, since, kind, told_at, .. } = self.requests[id];
        let is_up = self.timers.contains_key(&timer_of(name))
            || limit == Limit::Short && now >= since + Limit::SHORT
            || kind.idle_limit(id).is_some_and(|limit| now >= told_at + limit);
        let is_spared = is_spared && !is_up;
        if is_spared && !self.silenced && self.program.end != End::Drop {
            self.violation(format!("#{id} was cancelled within the grace period"));
        }
    }

    fn taken_in(&mut self, asked: &Asked) {
        if !self.owned.insert(asked.user_data) {
            self.violation(format!("{asked:?} has the name of a request that the kernel has"));
        }
        let Some(id) = self.find(asked) else { return };
        if self.requests[id].overtaken {
            self.violation(format!("#{id} was overtaken by a cancel of it"));
        }
        if std::mem::replace(&mut self.requests[id].taken_in, true) {
            // A stream that is armed again, and that no cancel was meant for.
            self.asked_for.remove(&asked.user_data);
            return;
        }
        if self.last_taken.is_some_and(|last| last > id) {
            self.violation(format!("#{id} was overtaken by #{}", self.last_taken.unwrap_or_default()));
        }
        self.last_taken = Some(id);
        let is_linked = self.requests[id].has_linked_timer();
        self.next_timer = is_linked.then(|| timer_of(asked.user_data));
        let mut torn = false;
        for chain in &mut self.chains {
            if (chain.first..chain.first + chain.length).contains(&id) {
                torn |= id != chain.first + chain.taken;
                chain.taken += 1;
            } else {
                torn |= chain.is_torn();
            }
        }
        if torn {
            self.violation(format!("a chain was torn apart at #{id}"));
        }
    }

    /// Which request an entry is.
    fn find(&mut self, asked: &Asked) -> Option<usize> {
        let named = self.by_name.get(&asked.user_data).copied();
        named.or_else(|| {
            let at = |request: &Request| request.accepted && request.place == asked.address;
            self.requests.iter().rposition(|request| asked.address != 0 && at(request))
        })
    }

    fn answer(&mut self, asked: &Asked) -> Answer {
        // The poll by which the ring is woken is a real one; Miri has none.
        if is_of_ring(asked.user_data) {
            return if cfg!(miri) { Answer::Wait } else { Answer::Perform };
        }
        let Some(id) = self.find(asked) else {
            // Detached, and without memory.
            if asked.is_direct() {
                return self.connect(asked.user_data);
            }
            return Answer::Perform;
        };
        let Request { kind, place, drops, blocked, told, starves, .. } = self.requests[id];
        if drops > 0 && !kind.is_stream() {
            self.violation(format!("the kernel works on #{id} ({kind:?}), whose data is gone"));
            return Answer::Finish(-libc::EFAULT);
        }
        let has_memory = [Kind::Read, Kind::ReadFixed, Kind::Receive, Kind::Send, Kind::SendZeroCopy];
        if has_memory.contains(&kind) {
            if asked.address != place {
                self.violation(format!("the kernel was told of a wrong place for #{id}"));
                return Answer::Finish(-libc::EFAULT);
            }
            self.touch(id, asked);
        }
        let is_in_slot =
            kind.is_on_words() || kind == Kind::Pipe || kind.is_on_file() && kind != Kind::Install;
        if is_in_slot && asked.address != place {
            self.violation(format!("the kernel was told of a wrong place for #{id}"));
            return Answer::Finish(-libc::EFAULT);
        }
        if let Some(connection) = self.requests[id].connection.clone() {
            connection.is_at(asked.descriptor);
            if connection.is_void() != Some(false) {
                return Answer::Perform;
            }
        }
        if blocked && !kind.never_waits() {
            return Answer::Wait;
        }
        let some = 1 + self.kernel.below(u64::from(asked.length).max(1)) as i32;
        if kind.is_stream() {
            self.requests[id].told += 1;
            if starves && told < MOST_STARVED {
                return Answer::Finish(-libc::ENOBUFS);
            }
            if told >= LONGEST_STREAM {
                // A patient one would go on after a reset.
                let errno = if kind.is_patient(id) { libc::EINVAL } else { libc::ECONNRESET };
                return Answer::Finish(-errno);
            }
            self.requests[id].blocked = self.kernel.one_in(2);
        }
        let fails = self.kernel.one_in(8);
        match kind {
            Kind::Nop | Kind::Timeout | Kind::Never | Kind::TimeoutMulti | Kind::TimeoutThrice => {
                Answer::Finish(0)
            }
            Kind::Pipe if fails => Answer::Finish(-libc::EMFILE),
            Kind::ReceiveMessage if fails => Answer::Finish(-libc::ECONNRESET),
            Kind::Close
            | Kind::WordWait
            | Kind::WordWake
            | Kind::Install
            | Kind::Pipe
            | Kind::ReceiveMessage => Answer::Perform,
            Kind::Sync => Answer::Finish(0),
            Kind::Read | Kind::ReadFixed => Answer::Finish(some),
            Kind::Receive | Kind::Send | Kind::SendZeroCopy if fails => Answer::Finish(-libc::ECONNRESET),
            Kind::Receive | Kind::Send | Kind::SendZeroCopy => Answer::Finish(some),
            Kind::SendVectoredZeroCopy
            | Kind::ReceiveOnFile
            | Kind::SendOnFile
            | Kind::SendZeroCopyOnFile
                if fails =>
            {
                Answer::Finish(-libc::ECONNRESET)
            }
            Kind::SendVectoredZeroCopy => Answer::Finish(1 + self.kernel.below(16) as i32),
            Kind::ReceiveOnFile | Kind::SendOnFile | Kind::SendZeroCopyOnFile => {
                if let Some(connection) = &self.requests[id].connection {
                    connection.feed();
                }
                Answer::Perform
            }
            Kind::AcceptDirect | Kind::AcceptMultiDirect | Kind::OpenDirect | Kind::SocketDirect if fails => {
                Answer::Finish(self.kernel.pick(&[-libc::ECONNRESET, -libc::ENOBUFS]))
            }
            Kind::AcceptDirect | Kind::AcceptMultiDirect | Kind::OpenDirect | Kind::SocketDirect => {
                self.connect(asked.user_data)
            }
            Kind::Poll => Answer::Finish(libc::POLLIN.into()),
            Kind::Accept | Kind::AcceptMulti if fails || self.may_leak() => {
                Answer::Finish(self.kernel.pick(&[-libc::EMFILE, -libc::ENOBUFS]))
            }
            Kind::Accept | Kind::AcceptMulti => Answer::More(self.descriptor().into_raw_fd()),
            Kind::ReceiveProvided
            | Kind::ReceiveMulti
            | Kind::ReceiveLimited
            | Kind::ReceiveBundles
            | Kind::ReceivePieces
            | Kind::ReceiveDatagrams
                if fails =>
            {
                let result = self.kernel.pick(&[0, -libc::ECONNRESET, -libc::ENOBUFS]);
                self.requests[id].starves = result == -libc::ENOBUFS;
                match (kind, result) {
                    (Kind::ReceiveDatagrams, 0) => Answer::Bytes(Vec::new()),
                    _ => Answer::Finish(result),
                }
            }
            Kind::ReceiveProvided
            | Kind::ReceiveMulti
            | Kind::ReceiveLimited
            | Kind::ReceiveBundles
            | Kind::ReceivePieces
            | Kind::ReceiveDatagrams => {
                let length = 1 + self.kernel.below(if kind == Kind::ReceiveBundles { 150 } else { 64 });
                let bytes: Vec<u8> = (0..length).map(|_| self.kernel.next() as u8).collect();
                self.requests[id].received.push_back(bytes.clone());
                Answer::Bytes(bytes)
            }
            Kind::PollMulti => Answer::More(libc::POLLIN.into()),
        }
    }

    /// Something for the ring's table, opened for the request with this name.
    fn connect(&mut self, name: u64) -> Answer {
        let tag = (self.connections.len() % 255) as u8 + 1;
        let (connection, file) = Connection::pair(tag);
        self.connections.push(Arc::clone(&connection));
        self.arriving.entry(name).or_default().push_back(connection);
        Answer::Descriptor(file)
    }

    /// What the kernel says of the file that was last opened for the request with this name.
    fn opened(&mut self, name: u64, result: i32) {
        if result < 0 && result != -libc::ENFILE {
            return;
        }
        let Some(connection) = self.arriving.get_mut(&name).and_then(VecDeque::pop_front) else { return };
        match result {
            0.. => drop(self.places.insert(result, connection)),
            _ => connection.is_refused(),
        }
    }

    /// A clone of one of the files that are held.
    fn some_file(&mut self) -> Option<Held> {
        let count = self.files.len() as u64;
        (count > 0).then(|| self.files[self.chance.below(count) as usize].clone())
    }

    /// Any kind of request that the program may have.
    pub(crate) fn some_kind(&mut self) -> Kind {
        let is_direct = self.program.places.is_some() && self.chance.one_in(2);
        match is_direct.then(|| self.chance.one_in(2)) {
            None => self.chance.pick(&Kind::ALL),
            Some(true) => self.chance.pick(&Kind::OPENING),
            Some(false) => self.chance.pick(&Kind::ON_FILES),
        }
    }

    /// A file that another thread is to drop at this time.
    fn left_elsewhere(&mut self, now: Duration) -> Option<Held> {
        let is_one = !self.files.is_empty() && !cfg!(miri) && self.kernel.one_in(4);
        let left = is_one.then(|| self.files.swap_remove(0));
        if let Some(left) = &left {
            left.connection.is_left_elsewhere(now);
        }
        left
    }

    fn check_files(&mut self, now: Duration, waits: bool) {
        for connection in &self.connections {
            connection.check_held();
            connection.check_left(now, waits);
            self.violations.append(&mut connection.wrong());
        }
    }

    /// The kernel looks at the memory of a request and, if it receives, writes to it.
    fn touch(&mut self, id: usize, asked: &Asked) {
        let place = std::ptr::with_exposed_provenance_mut::<[u64; 2]>(asked.address as usize);
        // SAFETY: it is where the data of the request is, which was not dropped. (That this holds is what
        // is tested here.)
        let [found, _] = unsafe { place.read_unaligned() };
        if found != id as u64 {
            return self.violation(format!("the memory of #{id} has become that of #{found}"));
        }
        if matches!(self.requests[id].kind, Kind::Read | Kind::ReadFixed | Kind::Receive) {
            let written = self.kernel.next();
            self.requests[id].written = written;
            // SAFETY: as above.
            unsafe { place.write_unaligned([found, written]) };
        }
    }

    /// Compares what a handler is told with what the simulated kernel has done.
    fn compare_with_kernel(&mut self, told: Told, now: Duration, whose: usize) {
        let Told { id, raw, is_stream, .. } = told;
        let kind = self.requests[id].kind;
        let is_timed = if is_stream { self.was_idle(told, now) } else { self.is_timed(told) };
        if let Err(why) = is_timed {
            self.violation(format!("#{id} ({kind:?}): {why}; {raw:?}"));
        }
        self.order(told);
        self.count(told, whose);
        if let Err(why) = self.expected(told).and_then(|()| self.compare(told)) {
            self.violation(format!("#{id} ({kind:?}): {why}; {raw:?}"));
        }
    }

    /// Whether a completion says the right thing of the deadline of its request.
    fn is_timed(&self, Told { id, timed_out, teardown, .. }: Told) -> Result<(), String> {
        let Request { limit, since, name, is_message, .. } = self.requests[id];
        let Some(name) = name.filter(|_| limit != Limit::None && !is_message) else {
            return if timed_out { Err("it has no deadline".to_owned()) } else { Ok(()) };
        };
        if self.requests[id].has_linked_timer() {
            return self.is_timed_by_kernel(limit, name, timed_out);
        }
        let passes = since + limit.time().unwrap_or_default();
        let ended_by = self.ended_by.get(&name).copied();
        if timed_out && ended_by.is_some_and(|ended_by| ended_by < passes) {
            return Err(format!("its time is said to be up at {passes:?}, but it had ended by {ended_by:?}"));
        }
        // The time that it may take until the ring hears of the alarm, and the kernel of the cancel.
        const AT_MOST: Duration = Duration::from_millis(50);
        let is_late = !teardown && ended_by.is_some_and(|ended_by| ended_by > passes + AT_MOST);
        match is_late && !timed_out {
            true => Err(format!("its time was up at {passes:?}, and it ended at {ended_by:?}")),
            false => Ok(()),
        }
    }

    /// Whether a completion of a stream says the right thing of the time for which that may be idle.
    fn was_idle(&mut self, Told { id, timed_out, more, .. }: Told, now: Duration) -> Result<(), String> {
        let Request { kind, told_at, longest, cancelled, .. } = &mut self.requests[id];
        *longest = (now - *told_at).max(*longest);
        *told_at = now;
        if !timed_out {
            return Ok(());
        }
        // For that reason, the ring has cancelled it.
        *cancelled = true;
        match kind.idle_limit(id) {
            None => Err("it may be idle".to_owned()),
            Some(_) if more => Err("its time is said to be up, but it goes on".to_owned()),
            Some(limit) if *longest < limit => {
                Err(format!("its time is said to be up, but it was never idle for longer than {longest:?}"))
            }
            Some(_) => Ok(()),
        }
    }

    /// The same as [`is_timed`](Self::is_timed), of one that is in a chain.
    fn is_timed_by_kernel(&self, limit: Limit, name: u64, timed_out: bool) -> Result<(), String> {
        let timer = timer_of(name);
        if self.owned.contains(&timer) {
            return Err("the kernel has its timer".to_owned());
        }
        let ended = self.timers.get(&timer).copied();
        let is_up =
            ended.is_some_and(|result| [-libc::ETIME, -libc::EALREADY, -libc::ENOENT].contains(&result));
        match (timed_out, is_up) {
            (_, true) if limit == Limit::Long => Err("its timer was not ended".to_owned()),
            (true, false) => {
                Err(format!("its time is said to be up, but its timer has ended with {ended:?}"))
            }
            (false, true) => Err("its time was up".to_owned()),
            _ => Ok(()),
        }
    }

    /// What the ring has made itself by the end of a handler is delivered before the kernel's next completion.
    fn order(&mut self, Told { id, from_kernel, .. }: Told) {
        let Inner { expected, requests, .. } = self;
        expected.messages.retain(|message| *message != id && requests[*message].drops == 0);
        let is_late = |message: &&usize| requests[**message].round <= expected.round;
        let late = expected.messages.iter().find(is_late).copied();
        expected.is_own = !from_kernel;
        expected.round += u64::from(from_kernel);
        if from_kernel && let Some(late) = late {
            self.violation(format!("#{id} has overtaken message #{late}"));
        }
    }

    /// Counts ticks and `ENOBUFS`, and checks when a stream must end, and when it may.
    fn count(&mut self, Told { id, raw: told, more, from_kernel, teardown, .. }: Told, whose: usize) {
        let result = told.result;
        let now_taken = self.taken[whose];
        let Request { kind, raw, cancelled, counted, starved, taken, is_message, .. } =
            &mut self.requests[id];
        // A limit is reached once, and nothing comes after it.
        let too_often = kind.limit().is_some_and(|limit| {
            let was_reached = *counted >= limit;
            *counted += match kind {
                Kind::ReceiveLimited => result.max(0).unsigned_abs(),
                _ => u32::from(result == -libc::ETIME),
            };
            was_reached || *counted >= limit && more
        });
        let gave_up = !from_kernel && !more && result == -libc::ENOBUFS;
        // A buffer of which pieces are held may be one that the kernel has: it does not come back with them.
        let too_early = gave_up && *starved < HOPELESS && whose != PIECEWISE;
        let others_took = std::mem::replace(taken, now_taken) != now_taken;
        *starved = match result == -libc::ENOBUFS {
            true if others_took => 1,
            true => *starved + 1,
            false => 0,
        };
        let uncalled = !from_kernel && result == -libc::ECANCELED && !*cancelled && !teardown;
        let (kind, uncalled) = (*kind, uncalled && !*raw && !*is_message);
        if too_often {
            self.violation(format!("#{id} ({kind:?}) goes on behind its limit"));
        }
        if too_early {
            self.violation(format!("#{id} ({kind:?}) was given up too early"));
        }
        if uncalled {
            self.violation(format!("#{id} ({kind:?}) was cancelled, but by nobody"));
        }
    }

    /// Removes from what was posted what nobody is told, so that the next one is what is delivered.
    fn expected(&mut self, Told { id, is_stream, more, teardown, .. }: Told) -> Result<(), String> {
        let name = self.requests[id].name;
        let Some(posted) = name.and_then(|name| self.posted.get_mut(&name)) else { return Ok(()) };
        if !is_stream && posted.len() > 1 {
            // The first one is told, when the last has come.
            let last = posted.len() - 1;
            if posted.iter().enumerate().any(|(index, it)| (it.flags & F_MORE == 0) != (index == last)) {
                return Err(format!("the kernel has posted {posted:?}"));
            }
            posted.truncate(1);
            posted[0].flags &= !F_MORE;
        } else if teardown && !more {
            // Parts of a stream are not told in a teardown.
            while posted.len() > 1 {
                posted.pop_front();
            }
        }
        Ok(())
    }

    /// Compares what a handler is told with what the kernel has posted.
    fn compare(&mut self, Told { id, is_stream, raw, more, teardown, .. }: Told) -> Result<(), String> {
        let Request { name, kind, cancelled, counted, is_message, .. } = self.requests[id];
        let next = name.and_then(|name| self.posted.get_mut(&name)?.pop_front());
        match next {
            Some(posted) => {
                let told = RawCompletion { flags: raw.flags & !F_MORE, ..raw };
                let announced = posted.flags & F_MORE != 0;
                // After the kernel has lost a completion, it is not known where the bytes of others are.
                let is_unknown =
                    kind == Kind::ReceivePieces && told.result == -libc::EBADR && posted.result > 0;
                let result = if is_unknown { told.result } else { posted.result };
                if (told.result, told.flags) != (result, posted.flags & !F_MORE) {
                    return Err(format!("the kernel has posted {posted:?}"));
                }
                if announced && !more {
                    return Err("it ends, but the kernel goes on".to_owned());
                }
                // What it carries is told before its end, even if it was cancelled.
                let cut = is_stream
                    && (raw.result
                        > if kind == Kind::ReceiveDatagrams { Datagram::OVERHEAD as i32 } else { 0 }
                        || kind.has_pool() && raw.result == -libc::ENOBUFS && !cancelled
                        || raw.result == -libc::ETIME
                        || kind == Kind::AcceptMultiDirect && raw.result >= 0
                        || kind == Kind::AcceptMulti && raw.result == 0
                        || kind.is_patient(id) && passes(raw.result) && !cancelled);
                if more && !announced && !cut {
                    return Err("it goes on, but the kernel has ended it".to_owned());
                }
                let has_run_out = kind.limit().is_some_and(|limit| counted >= limit);
                if !more && !announced && cut && !teardown && !has_run_out {
                    return Err("it ends, but was only cut".to_owned());
                }
                Ok(())
            }
            None if is_message && raw.result == 0 && !more => Ok(()),
            // The ring itself ends it.
            None if (cancelled || teardown) && raw.result == -libc::ECANCELED && !more => Ok(()),
            // Whether it was given up too early is checked elsewhere.
            None if is_stream && kind.has_pool() && !more => match -raw.result {
                libc::ENOBUFS => Ok(()),
                libc::EBUSY if self.neighbour.is_some() => Ok(()),
                _ => Err("the kernel has posted nothing".to_owned()),
            },
            None => Err("the kernel has posted nothing".to_owned()),
        }
    }
}
