//! What a program is, and how it is made from a seed.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use rummelplatz::sim::Faults;

/// The source of choices: a stream of numbers from a seed (SplitMix64), or the bytes of a fuzzer.
#[derive(Clone, Debug)]
pub(crate) enum Chance {
    Seed(u64),
    /// One byte for each choice; after the last byte, the first option is always chosen.
    Bytes(std::vec::IntoIter<u8>),
}

impl Chance {
    pub(crate) fn new(seed: u64) -> Chance {
        Chance::Seed(seed)
    }

    pub(crate) fn of_bytes(bytes: &[u8]) -> Chance {
        Chance::Bytes(Vec::from(bytes).into_iter())
    }

    pub(crate) fn next(&mut self) -> u64 {
        let state = match self {
            Chance::Seed(state) => state,
            Chance::Bytes(bytes) => return bytes.next().map_or(0, u64::from),
        };
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = *state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }
}

/// What a request asks for.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Kind {
    #[default]
    Nop,
    /// Takes a millisecond.
    Timeout,
    /// Takes so long that only a cancel ends it.
    Never,
    /// A read of a file: once it has begun, no cancel ends it.
    Read,
    /// As `Read`, into memory that the ring has registered.
    ReadFixed,
    /// Like the reads, but without memory, and always left to a worker.
    Sync,
    Receive,
    /// As `Receive`, into a buffer of a pool.
    ReceiveProvided,
    Send,
    /// A send whose memory is in use until its notification.
    SendZeroCopy,
    Poll,
    Accept,
    Close,
    AcceptMulti,
    ReceiveMulti,
    /// Ends by itself, after a number of bytes (`LIMIT`).
    ReceiveLimited,
    /// Several buffers in one completion.
    ReceiveBundles,
    /// As `ReceiveMulti`, into a pool whose buffers are used up piece by piece.
    ReceivePieces,
    ReceiveDatagrams,
    PollMulti,
    TimeoutMulti,
    /// Ends by itself, after three ticks.
    TimeoutThrice,
    /// A message that brings descriptors.
    ReceiveMessage,
    /// As `SendZeroCopy`, in two pieces.
    SendVectoredZeroCopy,
    /// Waits until a word of the program is changed, or those who wait for it are woken.
    WordWait,
    WordWake,
    /// As `Accept`, into the ring's table.
    AcceptDirect,
    AcceptMultiDirect,
    OpenDirect,
    SocketDirect,
    /// On a file in the ring's table, as all that follow.
    ReceiveOnFile,
    SendOnFile,
    SendZeroCopyOnFile,
    Install,
    /// Makes a pipe, whose ends are in the data from then on.
    Pipe,
}

/// How long the requests of teardown handlers are awaited before they are cancelled.
pub(crate) const GRACE: Duration = Duration::from_millis(20);

/// How many bytes a limited stream receives, not counting the rest of the last buffer.
pub(crate) const LIMIT: NonZeroU32 = NonZeroU32::new(100).unwrap();

impl Limit {
    pub(crate) const SHORT: Duration = Duration::from_micros(500);

    pub(crate) fn some(chance: &mut Chance) -> Limit {
        chance.pick(&[Limit::None, Limit::None, Limit::Short, Limit::Long])
    }

    pub(crate) fn time(self) -> Option<Duration> {
        match self {
            Limit::None => None,
            Limit::Short => Some(Limit::SHORT),
            Limit::Long => Some(Duration::from_secs(100_000)),
        }
    }
}

impl Kind {
    /// The kinds that can be submitted by themselves, in each program.
    pub const ALL: [Kind; 22] = [
        Kind::Nop,
        Kind::Timeout,
        Kind::Never,
        Kind::Read,
        Kind::ReadFixed,
        Kind::Sync,
        Kind::Receive,
        Kind::ReceiveProvided,
        Kind::Send,
        Kind::SendZeroCopy,
        Kind::Poll,
        Kind::Accept,
        Kind::Close,
        Kind::AcceptMulti,
        Kind::ReceiveMulti,
        Kind::ReceiveLimited,
        Kind::ReceiveBundles,
        Kind::ReceivePieces,
        Kind::ReceiveDatagrams,
        Kind::PollMulti,
        Kind::TimeoutMulti,
        Kind::TimeoutThrice,
    ];

    /// Those of them that are streams.
    pub const STREAMS: [Kind; 9] = [
        Kind::AcceptMulti,
        Kind::ReceiveMulti,
        Kind::ReceiveLimited,
        Kind::ReceiveBundles,
        Kind::ReceivePieces,
        Kind::ReceiveDatagrams,
        Kind::PollMulti,
        Kind::TimeoutMulti,
        Kind::TimeoutThrice,
    ];

    /// The kinds that only some programs have.
    pub const ON_WORDS: [Kind; 4] =
        [Kind::WordWait, Kind::WordWait, Kind::WordWake, Kind::SendVectoredZeroCopy];

    /// The kinds by which something gets into the ring's table.
    pub const OPENING: [Kind; 4] =
        [Kind::AcceptMultiDirect, Kind::AcceptDirect, Kind::SocketDirect, Kind::OpenDirect];

    /// The kinds that are on something in the ring's table.
    pub const ON_FILES: [Kind; 4] =
        [Kind::ReceiveOnFile, Kind::SendOnFile, Kind::SendZeroCopyOnFile, Kind::Install];

    /// The kinds that can be a part of a chain.
    pub const LINKED: [Kind; 5] = [Kind::Nop, Kind::Read, Kind::Receive, Kind::Send, Kind::TimeoutMulti];

    /// The kinds that can be a part of a chain by the safe call, as far as the simulation knows what becomes of the
    /// next request.
    pub const SAFELY_LINKED: [Kind; 9] = [
        Kind::Nop,
        Kind::Timeout,
        Kind::Read,
        Kind::ReadFixed,
        Kind::Sync,
        Kind::Receive,
        Kind::ReceiveProvided,
        Kind::Send,
        Kind::Close,
    ];

    /// The number of ticks, or of bytes, after which it ends by itself, if it does.
    pub(crate) fn limit(self) -> Option<u32> {
        match self {
            Kind::TimeoutThrice => Some(3),
            Kind::ReceiveLimited => Some(LIMIT.get()),
            _ => None,
        }
    }

    pub(crate) fn is_stream(self) -> bool {
        Kind::STREAMS.contains(&self) || self == Kind::AcceptMultiDirect
    }

    /// Whether the request with this number goes on after errors that pass, if it is of this kind.
    pub(crate) fn is_patient(self, id: usize) -> bool {
        matches!(self, Kind::AcceptMulti | Kind::AcceptMultiDirect) && id.is_multiple_of(2)
    }

    /// How long the request with this number may be idle, if it is of this kind and that is limited.
    pub(crate) fn idle_limit(self, id: usize) -> Option<Duration> {
        (self.is_stream() && id % 5 == 3).then_some(Duration::from_millis(1))
    }

    /// Whether its memory is in use until a second completion says so.
    pub(crate) fn is_zero_copy(self) -> bool {
        matches!(self, Kind::SendZeroCopy | Kind::SendVectoredZeroCopy | Kind::SendZeroCopyOnFile)
    }

    /// Whether it puts something into the ring's table.
    pub(crate) fn opens(self) -> bool {
        Kind::OPENING.contains(&self)
    }

    /// Whether it is on a word.
    pub(crate) fn is_on_words(self) -> bool {
        matches!(self, Kind::WordWait | Kind::WordWake)
    }

    /// Whether it ends as soon as it begins, or, if it is work on a file, some time later.
    pub(crate) fn never_waits(self) -> bool {
        let others = [Kind::Install, Kind::WordWake, Kind::OpenDirect, Kind::SocketDirect, Kind::Pipe];
        matches!(self, Kind::Close | Kind::Read | Kind::ReadFixed | Kind::Sync) || others.contains(&self)
    }

    /// Whether it is on something in the ring's table.
    pub(crate) fn is_on_file(self) -> bool {
        Kind::ON_FILES.contains(&self)
    }

    /// Whether it receives into buffers of a pool.
    pub(crate) fn has_pool(self) -> bool {
        matches!(
            self,
            Kind::ReceiveProvided
                | Kind::ReceiveMulti
                | Kind::ReceiveLimited
                | Kind::ReceiveBundles
                | Kind::ReceivePieces
                | Kind::ReceiveDatagrams
        )
    }

    /// The kernel's name of the operation, without `IORING_OP_`.
    pub(crate) fn opcode_name(self) -> &'static str {
        match self {
            Kind::Nop => "NOP",
            Kind::Timeout | Kind::Never | Kind::TimeoutMulti | Kind::TimeoutThrice => "TIMEOUT",
            Kind::Read => "READ",
            Kind::ReadFixed => "READ_FIXED",
            Kind::Sync => "FSYNC",
            Kind::Receive | Kind::ReceiveProvided | Kind::ReceiveOnFile => "RECV",
            Kind::ReceiveMulti | Kind::ReceiveLimited | Kind::ReceiveBundles | Kind::ReceivePieces => "RECV",
            Kind::ReceiveDatagrams | Kind::ReceiveMessage => "RECVMSG",
            Kind::Send | Kind::SendOnFile => "SEND",
            Kind::SendZeroCopy | Kind::SendZeroCopyOnFile => "SEND_ZC",
            Kind::SendVectoredZeroCopy => "SENDMSG_ZC",
            Kind::WordWait => "FUTEX_WAIT",
            Kind::WordWake => "FUTEX_WAKE",
            Kind::OpenDirect => "OPENAT",
            Kind::SocketDirect => "SOCKET",
            Kind::Install => "FIXED_FD_INSTALL",
            Kind::Pipe => "PIPE",
            Kind::Poll | Kind::PollMulti => "POLL_ADD",
            Kind::Accept | Kind::AcceptMulti | Kind::AcceptDirect | Kind::AcceptMultiDirect => "ACCEPT",
            Kind::Close => "CLOSE",
        }
    }
}

/// How long a request may take.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Limit {
    #[default]
    None,
    /// Less than the time that most requests wait.
    Short,
    /// Longer than anything takes.
    Long,
}

/// A part of a chain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Link {
    pub kind: Kind,
    /// The next one is issued even if this one fails.
    pub hard: bool,
    /// Left to a worker of the kernel.
    pub worker: bool,
}

/// A part of a chain by the safe call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Member {
    pub second: bool,
    pub kind: Kind,
    pub limit: Limit,
    /// The next one is issued even if this one fails.
    pub hard: bool,
}

/// Something that a program does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    Submit {
        second: bool,
        kind: Kind,
        /// Not for streams.
        limit: Limit,
    },
    Detach {
        second: bool,
        kind: Kind,
        limit: Limit,
    },
    Chain {
        second: bool,
        links: Vec<Link>,
    },
    /// As `Chain`, with the safe call.
    Link {
        members: Vec<Member>,
        /// The chain is dropped before its last request is submitted.
        dropped: bool,
    },
    Post {
        second: bool,
        /// To be delivered when there is nothing else to deliver.
        last: bool,
    },
    /// Sends by a handle, as another thread does.
    Send {
        second: bool,
    },
    /// Cancels a request that was submitted, whether or not it is over.
    Cancel {
        which: u8,
    },
    CancelAll {
        second: bool,
    },
    /// Ends the stream whose handler is running, if the stream is of that operation.
    EndStream {
        second: bool,
    },
    /// Pauses a request that was submitted, mostly a stream.
    Pause {
        which: u8,
    },
    /// Pauses the stream whose handler is running, if the stream is of that operation.
    PauseStream {
        second: bool,
    },
    /// Resumes a request that was submitted, mostly a paused stream.
    Resume {
        which: u8,
    },
    /// What the other side has held back comes.
    External,
    /// Another ring wants to use the pool of this one.
    Borrow,
    /// The other ring, which has a pool of its own, is done with it.
    Yield,
    /// Drops a clone of a file in the table, if one is kept.
    Leave {
        which: u8,
    },
    /// Gives the ring a turn.
    Step,
}

/// How the ring is driven.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    Run,
    Turns,
}

/// How the program ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// When nothing is left to do.
    Idle,
    /// A handler says so, at its call of this number.
    Exit(u8),
    /// A handler fails.
    Error(u8),
    /// A handler panics.
    Panic(u8),
    /// A handle says so.
    Stop(u8),
    /// `finish()`, in the middle.
    Finish,
    /// The ring is dropped, in the middle.
    Drop,
    /// `setup` fails.
    SetupError,
    /// `setup` panics.
    SetupPanic,
}

/// A program.
#[derive(Clone, PartialEq, Debug)]
pub struct Program {
    pub seed: u64,
    pub entries: u32,
    pub completions: u32,
    pub backlog_limit: Option<usize>,
    /// How many requests each operation may have.
    pub request_limit: Option<u32>,
    /// Another ring has a pool that streams of this one want to use, too.
    pub neighbour: bool,
    /// How many places of its table the ring leaves to the kernel.
    pub places: Option<u32>,
    pub faults: Faults,
    pub mode: Mode,
    pub end: End,
    /// How often teardown handlers do something: once in this many calls; 0 for never.
    pub late: u8,
    /// A second run follows.
    pub twice: bool,
    /// The teardown has a deadline.
    pub deadline: bool,
    pub actions: Vec<Action>,
}

impl Program {
    /// The program of a seed.
    pub fn new(seed: u64) -> Program {
        Program::choose(seed, Chance::new(seed))
    }

    /// The program of some bytes: the first byte is the seed of what happens, the others choose what is done. Nothing
    /// leaks in it.
    pub fn from_bytes(bytes: &[u8]) -> Program {
        let mut chance = Chance::of_bytes(bytes);
        let mut program = Program::choose(chance.next(), chance);
        program.faults = Faults { never: 0.0, lost: 0.0, ..program.faults };
        program
    }

    fn choose(seed: u64, mut chance: Chance) -> Program {
        // Most faults show when there is hardly any room.
        let entries = chance.pick(&[1, 1, 1, 2, 2, 2, 4, 8, 16]);
        let completions = entries * chance.pick(&[1, 1, 2, 4]);
        let calls = chance.below(12) as u8;
        let end = match chance.below(14) {
            0..=2 => End::Idle,
            3..=5 => End::Exit(calls),
            6 => End::Error(calls),
            7 => End::Panic(calls),
            // Under Miri nobody can be woken.
            8 if !cfg!(miri) => End::Stop(calls),
            8..=10 => End::Finish,
            11 => End::Drop,
            12 => End::SetupError,
            _ => End::SetupPanic,
        };
        let mut faults = match chance.below(4) {
            0 => Faults::none(),
            1 => Faults { late: 0.5, lost_race: 0.3, ..Faults::usual() },
            2 => Faults::many(),
            _ => Faults::usual(),
        };
        let mut deadline = false;
        match chance.below(40) {
            0 => {
                faults.never = 0.5;
                deadline = true;
            }
            1 => faults.lost = 0.02,
            _ => {}
        }
        if chance.one_in(20) {
            return Program::of_late_streams(seed, entries, completions, &mut chance);
        }
        let length = 1 + chance.below(24);
        let streams = chance.one_in(2);
        let actions = (0..length).map(|_| action(&mut chance, entries, streams)).collect();
        let mut program = Program {
            seed,
            entries,
            completions,
            backlog_limit: chance.one_in(4).then(|| 1 + chance.below(6) as usize),
            request_limit: chance.one_in(6).then(|| 1 + chance.below(8) as u32),
            neighbour: chance.one_in(20),
            places: None,
            faults,
            mode: if chance.one_in(3) { Mode::Turns } else { Mode::Run },
            end,
            late: chance.pick(&[0, 0, 1, 3]),
            twice: chance.one_in(6),
            deadline,
            actions,
        };
        program.add_words(&mut chance);
        program.add_files(streams, &mut chance);
        program.add_some(Kind::Pipe, &mut chance);
        program.add_some(Kind::ReceiveMessage, &mut chance);
        program.add_pauses(&mut chance);
        program
    }

    /// Adds requests on words to some programs. The others are what they were without these.
    fn add_words(&mut self, chance: &mut Chance) {
        if chance.below(8) != 7 {
            return;
        }
        for _ in 0..1 + chance.below(6) {
            let kind = chance.pick(&Kind::ON_WORDS);
            let action = Action::Submit { second: chance.one_in(3), kind, limit: Limit::some(chance) };
            self.insert(action, chance);
        }
    }

    /// Adds requests of this kind to some programs. The others are what they were without these.
    fn add_some(&mut self, kind: Kind, chance: &mut Chance) {
        if chance.below(8) != 7 {
            return;
        }
        for _ in 0..1 + chance.below(6) {
            let (second, limit) = (chance.one_in(3), Limit::some(chance));
            let action = match chance.one_in(3) {
                false => Action::Submit { second, kind, limit },
                true => Action::Detach { second, kind, limit },
            };
            self.insert(action, chance);
        }
    }

    /// Adds streams that are paused and resumed to some programs. The others are what they were without these.
    fn add_pauses(&mut self, chance: &mut Chance) {
        if chance.below(4) != 3 {
            return;
        }
        for _ in 0..2 + chance.below(12) {
            let which = chance.next() as u8;
            let second = chance.one_in(3);
            let action = match chance.below(8) {
                0 | 1 => Action::Submit { second, kind: chance.pick(&Kind::STREAMS), limit: Limit::None },
                2 => Action::Pause { which },
                3 | 4 => Action::PauseStream { second },
                5 | 6 => Action::Resume { which },
                _ => Action::Step,
            };
            self.insert(action, chance);
        }
    }

    /// Adds requests on files in the ring's table to some programs. The others are what they were without these.
    fn add_files(&mut self, streams: bool, chance: &mut Chance) {
        if chance.below(4) != 3 {
            return;
        }
        // Too few, mostly.
        self.places = Some(chance.pick(&[1, 1, 2, 2, 4, 8]));
        // What is held beyond a run is of use only in the next.
        self.twice |= chance.one_in(3);
        for _ in 0..2 + chance.below(10) {
            let second = chance.one_in(3);
            let action = match chance.below(12) {
                0..=4 => {
                    let of = if streams { &Kind::OPENING[..] } else { &Kind::OPENING[1..] };
                    let kind = chance.pick(of);
                    let limit = if kind.is_stream() { Limit::None } else { Limit::some(chance) };
                    Action::Submit { second, kind, limit }
                }
                5 | 6 => {
                    let kind = chance.pick(&Kind::ON_FILES);
                    Action::Submit { second, kind, limit: Limit::some(chance) }
                }
                7 => {
                    let kind = chance.pick(&[Kind::AcceptDirect, Kind::SendOnFile, Kind::ReceiveOnFile]);
                    Action::Detach { second, kind, limit: Limit::some(chance) }
                }
                8 | 9 => Action::Leave { which: chance.next() as u8 },
                _ => Action::Step,
            };
            self.insert(action, chance);
        }
    }

    fn insert(&mut self, action: Action, chance: &mut Chance) {
        let index = chance.below(self.actions.len() as u64 + 1) as usize;
        self.actions.insert(index, action);
    }
}

fn action(chance: &mut Chance, entries: u32, streams: bool) -> Action {
    let second = chance.one_in(3);
    let kind = |chance: &mut Chance| loop {
        let kind = chance.pick(&Kind::ALL);
        if streams || !kind.is_stream() {
            break kind;
        }
    };
    match chance.below(24) {
        0..=8 => {
            let kind = kind(chance);
            let limit = if kind.is_stream() { Limit::None } else { Limit::some(chance) };
            Action::Submit { second, kind, limit }
        }
        9 => {
            let kind = chance.pick(&[Kind::Nop, Kind::Send, Kind::Receive, Kind::Close]);
            Action::Detach { second, kind, limit: Limit::some(chance) }
        }
        10 | 11 => {
            // From time to time, one more than fit.
            let length = 1 + chance.below(u64::from(entries).min(4) + 1);
            let link = |chance: &mut Chance| Link {
                kind: chance.pick(&Kind::LINKED),
                hard: chance.one_in(3),
                worker: chance.one_in(6),
            };
            Action::Chain { second, links: (0..length).map(|_| link(chance)).collect() }
        }
        12 => Action::Post { second, last: chance.one_in(3) },
        22 | 23 => {
            let length = 1 + chance.below(u64::from(entries).min(4) + 1);
            let member = |chance: &mut Chance| Member {
                second: if chance.one_in(3) { !second } else { second },
                kind: chance.pick(&Kind::SAFELY_LINKED),
                limit: Limit::some(chance),
                hard: chance.one_in(3),
            };
            let members = (0..length).map(|_| member(chance)).collect();
            Action::Link { members, dropped: chance.one_in(6) }
        }
        13 | 14 => Action::Cancel { which: chance.next() as u8 },
        15 if chance.one_in(3) => Action::CancelAll { second },
        16 => Action::External,
        19 if streams => Action::EndStream { second },
        // Under Miri nobody can be woken.
        17 if !cfg!(miri) => Action::Send { second },
        18 if chance.one_in(8) => Action::Borrow,
        18 if chance.one_in(4) => Action::Yield,
        _ => Action::Step,
    }
}

impl Program {
    /// A program whose streams begin late, so that the first cancel misses them. They keep posting completions until
    /// they are cancelled again, and nothing else does.
    fn of_late_streams(seed: u64, entries: u32, completions: u32, chance: &mut Chance) -> Program {
        let late = Link { kind: Kind::TimeoutMulti, hard: false, worker: true };
        let actions = (0..1 + chance.below(8)).map(|_| match chance.below(3) {
            0 => Action::Submit { second: chance.one_in(2), kind: Kind::TimeoutMulti, limit: Limit::None },
            _ => Action::Chain { second: chance.one_in(2), links: vec![late] },
        });
        Program {
            seed,
            entries,
            completions,
            backlog_limit: None,
            request_limit: None,
            neighbour: false,
            places: None,
            faults: Faults { late: 0.7, ..Faults::none() },
            mode: Mode::Turns,
            end: End::Finish,
            late: 0,
            twice: false,
            deadline: false,
            actions: actions.collect(),
        }
    }

    /// Whether it is one [`of_late_streams`](Self::of_late_streams).
    pub(crate) fn is_of_late_streams(&self) -> bool {
        let ticks = |action: &Action| match action {
            Action::Submit { kind, .. } => *kind == Kind::TimeoutMulti,
            Action::Chain { links, .. } => links.len() == 1 && links[0].kind == Kind::TimeoutMulti,
            _ => false,
        };
        let faults = Faults { late: 0.0, ..self.faults };
        faults == Faults::none()
            && self.end == End::Finish
            && self.late == 0
            && self.actions.iter().all(ticks)
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Program { entries, completions, backlog_limit, request_limit, neighbour, places, .. } = self;
        let Program { mode, end, late, twice, deadline, .. } = self;
        writeln!(f, "  {entries} entries, {completions} completions, backlog {backlog_limit:?}")?;
        writeln!(f, "  requests {request_limit:?}, neighbour {neighbour}, places {places:?}")?;
        writeln!(f, "  {mode:?}, {end:?}, late {late}, twice {twice}, deadline {deadline}")?;
        writeln!(f, "  {:?}", self.faults)?;
        self.actions.iter().try_for_each(|action| writeln!(f, "  {action:?}"))
    }
}
