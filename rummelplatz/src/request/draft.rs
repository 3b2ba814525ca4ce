//! What a constructor makes of a request, before it is known which ring will ask.
//!
//! ```text
//! constructor ──▶ Parts { draft, facts, … } ──place(terms)──▶ Facts, for the slot
//!                                                       └───▶ Prepared, for the queue
//! ```
//!
//! A [`Draft`] may name something registered, whose index only the ring knows. In what is [`Prepared`], only
//! the group of a pool may still be unknown.

use std::marker::PhantomData;
use std::os::fd::{OwnedFd, RawFd};
use std::time::Duration;

use io_uring::squeue;

use super::aside::Aside;
use super::placed::Terms;
use super::sqe::{self, Usual};
use super::target::{Named, Target};
use super::{Request, Stream};
use crate::buffers::BufferPool;
use crate::facts::{Facts, Flags, Yields};
use crate::fixed::Registered;

/// A request, and what its constructor knows about it.
pub(super) struct Parts<'d> {
    pub(super) draft: Draft<'d>,
    pub(super) facts: Facts,
    /// The descriptor of a `close`, owned until the slot takes it over.
    pub(super) closes: Option<OwnedFd>,
    /// How long it may take.
    pub(super) deadline: Option<Duration>,
}

/// What the kernel is asked for, before it is known which ring will ask.
pub(super) enum Draft<'d> {
    /// It is the same whichever ring asks.
    Prepared(Prepared),
    /// It names something registered.
    Fixed(Fixed<'d>),
    /// It is on a registered file, and something is to be kept beside it, or it is given buffers.
    OnFixed { prepared: Prepared, file: &'d Registered },
}

/// A usual entry, except for the indices of what a ring has registered.
pub(super) struct Fixed<'d> {
    pub(super) entry: Usual,
    pub(super) file: Option<&'d Registered>,
    pub(super) index: Index<'d>,
}

/// What the index of an entry says, besides that of a file.
pub(super) enum Index<'d> {
    Nothing,
    Memory(&'d Registered),
    Pool(BufferPool),
}

/// All that is needed to write an entry when it is queued.
pub(crate) enum Prepared {
    Usual(Usual),
    /// A usual one on registered memory, with its index; or one that is given buffers, with the group of its pool.
    Indexed(Usual, u16),
    /// A usual one that [leads to](Usual::lead_to) what is kept beside it until the kernel has taken it in.
    Beside(Usual, Aside),
    /// A usual one that is given buffers, when the group of its pool in the ring is not known yet: this can't
    /// be queued.
    FromPool {
        entry: Usual,
        pool: BufferPool,
        /// How many bytes it receives in all, or 0 for no end.
        limit: u32,
    },
    /// Its fields are not the usual ones.
    Entry(squeue::Entry),
}

impl Prepared {
    /// Adds flags of the entry (`IOSQE_*`).
    pub(super) fn add(&mut self, flags: squeue::Flags) {
        match self {
            Prepared::Entry(entry) => *entry = entry.clone().flags(flags),
            _ => self.change(|entry| entry.opcode |= u32::from(flags.bits()) << sqe::FLAGS_SHIFT),
        }
    }

    /// Changes the entry, if it is a usual one.
    #[inline(always)]
    pub(super) fn change(&mut self, change: impl FnOnce(&mut Usual)) {
        match self {
            Prepared::Usual(entry)
            | Prepared::Indexed(entry, _)
            | Prepared::Beside(entry, _)
            | Prepared::FromPool { entry, .. } => change(entry),
            Prepared::Entry(_) => {}
        }
    }

    /// Makes it end after this many ticks or bytes, if it is a timer or is given buffers; 0 for no end.
    pub(super) fn set_left(&mut self, left: u32) {
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
    pub(super) fn change(&mut self, change: impl FnOnce(&mut Usual)) {
        match self {
            Draft::Prepared(prepared) | Draft::OnFixed { prepared, .. } => prepared.change(change),
            Draft::Fixed(Fixed { entry, .. }) => change(entry),
        }
    }

    /// Adds flags of the entry (`IOSQE_*`).
    #[inline(always)]
    pub(super) fn add(&mut self, flags: squeue::Flags) {
        match self {
            Draft::Prepared(prepared) | Draft::OnFixed { prepared, .. } => prepared.add(flags),
            Draft::Fixed(Fixed { entry, .. }) => entry.opcode |= u32::from(flags.bits()) << sqe::FLAGS_SHIFT,
        }
    }

    /// What is to be queued in the ring with this number.
    #[inline(always)]
    pub(super) fn prepare(self, ring: u64) -> Prepared {
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

/// The entry, on this registered file of the ring. If the ring does not have the file, the entry gets a
/// descriptor that no file has.
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
    /// Fills in the indices by which the ring knows what is registered. For memory that the ring does not
    /// have, the kernel gets an index that nothing has.
    #[inline(always)]
    pub(super) fn prepare(self, ring: u64) -> Prepared {
        const NOTHING: u32 = u16::MAX as u32;
        let Fixed { mut entry, file, index } = self;
        if let Some(file) = file {
            entry = on_file_of(ring, file, entry);
        }
        match index {
            Index::Nothing => Prepared::Usual(entry),
            Index::Memory(memory) => Prepared::Indexed(entry, memory.in_ring(ring).unwrap_or(NOTHING) as u16),
            Index::Pool(pool) => match pool.group(ring) {
                Some(group) => Prepared::Indexed(entry, group),
                None => Prepared::FromPool { entry, pool, limit: 0 },
            },
        }
    }
}

impl<'d> Parts<'d> {
    #[inline(always)]
    pub(super) fn prepared(prepared: Prepared, facts: Facts) -> Self {
        Parts { draft: Draft::Prepared(prepared), facts, closes: None, deadline: None }
    }

    #[inline(always)]
    pub(super) fn new(entry: squeue::Entry) -> Self {
        let facts = Facts::new(entry.get_opcode() as u8);
        Parts::prepared(Prepared::Entry(entry), facts)
    }

    /// The parts of an entry of the usual kind.
    #[inline(always)]
    pub(super) fn usual(entry: Usual) -> Self {
        Parts::prepared(Prepared::Usual(entry), Facts::new(entry.opcode as u8))
    }

    /// The parts of an entry that names something registered.
    #[inline(always)]
    pub(super) fn fixed(fixed: Fixed<'d>) -> Self {
        let facts = Facts::new(fixed.entry.opcode as u8);
        Parts { draft: Draft::Fixed(fixed), facts, closes: None, deadline: None }
    }

    /// The parts of an entry of the usual kind, on a file or a socket, which may be a registered one.
    #[inline(always)]
    pub(super) fn on_target(target: &'d impl Target, entry: Usual) -> Self {
        let Named { descriptor, place } = target.named();
        let entry = Usual { descriptor, ..entry };
        match place {
            None => Parts::usual(entry),
            Some(file) => Parts::on_fixed(entry, file),
        }
    }

    // Not inlined: that would change the code of requests on what is not registered.
    #[inline(never)]
    pub(super) fn on_fixed(entry: Usual, file: &'d Registered) -> Self {
        Parts::fixed(Fixed { entry, file: Some(file), index: Index::Nothing })
    }

    /// The parts of an entry that leads to what is kept beside it.
    #[inline(always)]
    pub(super) fn beside(entry: Usual, aside: Aside) -> Self {
        Parts::prepared(Prepared::Beside(entry, aside), Facts::new(entry.opcode as u8))
    }

    /// The same, on a file or a socket, which may be a registered one.
    #[inline(always)]
    pub(super) fn beside_on(target: &'d impl Target, entry: Usual, aside: Aside) -> Self {
        let Named { descriptor, place } = target.named();
        Parts::beside(Usual { descriptor, ..entry }, aside).on(place)
    }

    /// The parts of an entry that is given a buffer of a pool, on a file or a socket, which may be a registered
    /// one.
    #[inline(always)]
    pub(super) fn from_pool(target: &'d impl Target, entry: Usual, pool: &BufferPool) -> Self {
        let Named { descriptor, place: file } = target.named();
        let index = Index::Pool(pool.clone());
        Parts::fixed(Fixed { entry: Usual { descriptor, ..entry }, file, index }).yielding(Yields::Buffer)
    }

    /// The parts of a stream that is given buffers of a pool, on a file or a socket, which may be a registered
    /// one.
    pub(super) fn stream_from_pool(target: &'d impl Target, entry: Usual, pool: &BufferPool) -> Self {
        let Named { descriptor, place } = target.named();
        let entry = Usual { descriptor, ..entry };
        let prepared = Prepared::FromPool { entry, pool: pool.clone(), limit: 0 };
        Parts::prepared(prepared, Facts::new(entry.opcode as u8)).yielding(Yields::Buffer).on(place)
    }

    /// The same, on this registered file, if there is one.
    #[inline(always)]
    pub(super) fn on(self, file: Option<&'d Registered>) -> Self {
        match (self.draft, file) {
            (Draft::Prepared(prepared), Some(file)) => {
                Parts { draft: Draft::OnFixed { prepared, file }, ..self }
            }
            (draft, _) => Parts { draft, ..self },
        }
    }

    pub(super) fn yielding(mut self, yields: Yields) -> Self {
        self.facts.set_yields(yields);
        self
    }

    #[inline(always)]
    pub(super) fn request(self) -> Request<'d> {
        Request { parts: self, borrows: PhantomData }
    }

    pub(super) fn stream(mut self) -> Stream<'d> {
        self.facts.flags.insert(Flags::STREAM);
        Stream { parts: self, borrows: PhantomData }
    }

    /// Splits the request into what the slot must know, what is queued, and the deadline. A descriptor to
    /// close passes to the slot.
    #[inline(always)]
    pub(super) fn place(self, terms: Terms) -> (Facts, Prepared, Option<Duration>) {
        let Terms { ring, flags, born } = terms;
        let Parts { draft, mut facts, closes, deadline } = self;
        let mut prepared = draft.prepare(ring);
        facts.flags.insert(flags);
        facts.born = born;
        if let Prepared::Indexed(_, group) = prepared
            && facts.yields.is_from_pool()
        {
            facts.pool = group;
        }
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
