//! What a constructor makes of a request, before it is known which ring will ask.
//!
//! ```text
//! constructor ──▶ Parts { entry, draft, … } ──place(terms)──▶ Facts, for the slot
//!                                                       └───▶ Prepared, for the queue
//! ```
//!
//! A [`Draft`] may name something registered, whose index only the ring knows. In what is [`Prepared`], only
//! the group of a pool may still be unknown.
//!
//! In both, the entry is a field of its own, whatever else there is to the request, and [`Parts`] is not much more
//! than that. So what changes the entry need not ask what kind of request it is; and a function that makes one
//! of several requests stays short enough to be inlined, and joins its paths in a few registers.

use std::marker::PhantomData;
use std::os::fd::{OwnedFd, RawFd};
use std::time::Duration;

use io_uring::squeue;
use io_uring::types::Timespec;

use super::aside::{Aside, Pieces};
use super::entry::bare;
use super::placed::Terms;
use super::sqe::{self, Usual};
use super::target::{Named, Target};
use super::{Request, Stream};
use crate::buffers::BufferPool;
use crate::facts::{Facts, Flags, Yields};
use crate::fixed::Registered;

/// A request, and what its constructor knows about it.
pub(super) struct Parts<'d> {
    /// If its fields are not the usual ones, only the opcode is right.
    pub(super) entry: Usual,
    pub(super) draft: Draft<'d>,
    pub(super) yields: Yields,
    pub(super) flags: Flags,
    /// How long it may take; of a stream, how long it rests after an error.
    pub(super) time: Option<Duration>,
}

/// What there is to a request besides its entry, before it is known which ring will ask.
pub(super) enum Draft<'d> {
    Nothing,
    /// It names something registered.
    Registered {
        file: Option<&'d Registered>,
        memory: Option<&'d Registered>,
    },
    /// The entry leads to something.
    Aside {
        aside: Aside,
        file: Option<&'d Registered>,
    },
    /// The entry leads to pieces of registered memory.
    Pieces {
        pieces: Pieces,
        file: Option<&'d Registered>,
        memory: &'d Registered,
    },
    /// It is given buffers of a pool, until there are so many bytes in them; 0 for no end.
    Pool {
        pool: BufferPool,
        limit: u32,
        file: Option<&'d Registered>,
    },
    /// The descriptor of a `close`, until the slot takes it over.
    Closes(OwnedFd),
    /// The fields of the entry are not the usual ones: this is all of it.
    Whole(squeue::Entry),
}

/// All that is needed to write an entry when it is queued.
pub(crate) struct Prepared {
    pub(crate) entry: Usual,
    pub(crate) besides: Besides,
}

/// What there is to an entry besides its usual fields.
pub(crate) enum Besides {
    Nothing,
    /// The index of registered memory, or the group of the pool that it is given buffers of.
    Index(u16),
    /// What the entry [leads to](Usual::lead_to), and is kept beside it until the kernel has taken it in.
    Aside(Aside),
    /// The pool that it is given buffers of, when the group of that in the ring is not known yet: this can't
    /// be queued.
    Pool {
        pool: BufferPool,
        /// How many bytes it receives in all, or 0 for no end.
        limit: u32,
    },
    /// Its fields are not the usual ones: this is all of the entry, and the other one is not looked at.
    Whole(squeue::Entry),
}

impl Prepared {
    pub(super) fn whole(entry: squeue::Entry) -> Prepared {
        Prepared { entry: bare(0, 0), besides: Besides::Whole(entry) }
    }

    pub(super) fn timer(entry: Usual, time: Timespec) -> Prepared {
        Prepared { entry, besides: Besides::Aside(Aside::Time(time)) }
    }

    /// Adds flags of the entry (`IOSQE_*`).
    pub(super) fn add(&mut self, flags: squeue::Flags) {
        match &mut self.besides {
            Besides::Whole(entry) => *entry = entry.clone().flags(flags),
            _ => self.entry.add_flags(flags),
        }
    }

    /// Takes flags of the entry away.
    pub(super) fn remove(&mut self, flags: squeue::Flags) {
        match &mut self.besides {
            Besides::Whole(entry) => {
                let rest = sqe::flags(entry).difference(flags);
                *entry = entry.clone().clear_flags().flags(rest);
            }
            _ => self.entry.remove_flags(flags),
        }
    }

    /// Makes it end after this many ticks or bytes, if it is a timer or is given buffers; 0 for no end.
    pub(super) fn set_left(&mut self, left: u32) {
        match &mut self.besides {
            Besides::Aside(Aside::Time(_)) => self.entry.offset = left.into(),
            Besides::Pool { limit, .. } => *limit = left,
            _ => {}
        }
    }
}

/// The entry, on this registered file of the ring, if there is one. If the ring does not have the file, the
/// entry gets a descriptor that no file has.
#[inline(always)]
fn on_file_of(ring: u64, file: Option<&Registered>, mut entry: Usual) -> Usual {
    if let Some(file) = file {
        entry.descriptor = match file.in_ring(ring) {
            Some(index) => {
                entry.opcode |= sqe::FIXED_FILE;
                index as RawFd
            }
            None => -1,
        };
    }
    entry
}

/// The index of registered memory. For memory that the ring does not have, the kernel gets an index that
/// nothing has.
#[inline(always)]
fn index_in(ring: u64, memory: &Registered) -> u16 {
    memory.in_ring(ring).map_or(u16::MAX, |index| index as u16)
}

impl<'d> Parts<'d> {
    #[inline(always)]
    fn with(entry: Usual, draft: Draft<'d>) -> Self {
        Parts { entry, draft, yields: Yields::Result, flags: Flags::EMPTY, time: None }
    }

    /// The parts of an entry whose fields are not the usual ones.
    #[inline(always)]
    pub(super) fn whole(entry: squeue::Entry) -> Self {
        Parts::with(bare(entry.get_opcode(), 0), Draft::Whole(entry))
    }

    /// The parts of an entry of the usual kind.
    #[inline(always)]
    pub(super) fn usual(entry: Usual) -> Self {
        Parts::with(entry, Draft::Nothing)
    }

    /// The same, on a file or a socket, which may be a registered one.
    #[inline(always)]
    pub(super) fn usual_on(target: &'d impl Target, entry: Usual) -> Self {
        Parts::about(target, entry, None)
    }

    /// The same, about memory that may be registered.
    // Who has the descriptor is asked before there is anything that a panic there would have to drop: what lies in
    // memory for that stays there.
    #[inline(always)]
    pub(super) fn about(target: &'d impl Target, entry: Usual, memory: Option<&'d Registered>) -> Self {
        let Named { descriptor, place: file } = target.named();
        let entry = Usual { descriptor, ..entry };
        match (file, memory) {
            (None, None) => Parts::usual(entry),
            (file, memory) => Parts::with(entry, Draft::Registered { file, memory }),
        }
    }

    /// The parts of an entry that leads to what is kept beside it.
    #[inline(always)]
    pub(super) fn beside(entry: Usual, aside: Aside) -> Self {
        Parts::with(entry, Draft::Aside { aside, file: None })
    }

    /// The same, on a file or a socket, which may be a registered one.
    #[inline(always)]
    pub(super) fn beside_on(target: &'d impl Target, entry: Usual, aside: Aside) -> Self {
        let Named { descriptor, place: file } = target.named();
        Parts::with(Usual { descriptor, ..entry }, Draft::Aside { aside, file })
    }

    /// The same, leading to pieces of registered memory.
    #[inline(always)]
    pub(super) fn pieces_on(
        target: &'d impl Target,
        entry: Usual,
        pieces: Pieces,
        memory: &'d Registered,
    ) -> Self {
        let Named { descriptor, place: file } = target.named();
        Parts::with(Usual { descriptor, ..entry }, Draft::Pieces { pieces, file, memory })
    }

    /// The parts of an entry that is given buffers of a pool, on a file or a socket, which may be a registered
    /// one.
    #[inline(always)]
    pub(super) fn from_pool(target: &'d impl Target, entry: Usual, pool: &BufferPool) -> Self {
        let Named { descriptor, place: file } = target.named();
        let draft = Draft::Pool { pool: pool.clone(), limit: 0, file };
        Parts::with(Usual { descriptor, ..entry }, draft).yielding(Yields::Buffer)
    }

    /// The parts of an entry that opens something in the ring's table, by way of a file or a socket, which may be
    /// a registered one.
    pub(super) fn direct_on(target: &'d impl Target, entry: Usual) -> Self {
        Parts::beside_on(target, entry, Aside::Direct).yielding(Yields::Direct)
    }

    /// The same, without such a file.
    pub(super) fn direct(entry: Usual) -> Self {
        Parts::beside(entry, Aside::Direct).yielding(Yields::Direct)
    }

    /// The parts of an entry that closes a descriptor.
    #[inline(always)]
    pub(super) fn closing(entry: Usual, descriptor: OwnedFd) -> Self {
        Parts::with(entry, Draft::Closes(descriptor))
    }

    #[inline(always)]
    pub(super) fn yielding(mut self, yields: Yields) -> Self {
        self.yields = yields;
        self
    }

    #[inline(always)]
    pub(super) fn request(self) -> Request<'d> {
        Request { parts: self, borrows: PhantomData }
    }

    pub(super) fn stream(mut self) -> Stream<'d> {
        self.flags.insert(Flags::STREAM);
        Stream { parts: self, idle_limit: None, borrows: PhantomData }
    }

    /// Adds flags of the entry (`IOSQE_*`).
    #[inline(always)]
    pub(super) fn add(&mut self, flags: squeue::Flags) {
        match &mut self.draft {
            Draft::Whole(entry) => *entry = entry.clone().flags(flags),
            _ => self.entry.add_flags(flags),
        }
    }

    /// The entry, if there is nothing else to the request.
    #[inline(always)]
    pub(super) fn bare(&self) -> Option<Usual> {
        match *self {
            Parts { entry, draft: Draft::Nothing, yields: Yields::Result, flags, time: None }
                if flags.is_empty() =>
            {
                Some(entry)
            }
            _ => None,
        }
    }

    /// Splits the request into what the slot must know, what is queued, and the deadline (or the rest of a
    /// stream). A descriptor to close passes to the slot.
    #[inline(always)]
    pub(super) fn place(self, terms: Terms) -> (Facts, Prepared, Option<Duration>) {
        let Terms { ring, flags, born } = terms;
        let Parts { mut entry, draft, yields, flags: own, time } = self;
        let mut facts = Facts { flags: own | flags, born, ..Facts::new(entry.opcode as u8) };
        facts.set_yields(yields);
        if time.is_some() && flags.intersects(Flags::IN_CHAIN) {
            facts.flags.insert(Flags::TIMED);
        }
        // By value: where something is changed or dropped in place, the compiler keeps all of it in memory.
        let besides = match draft {
            Draft::Nothing => Besides::Nothing,
            Draft::Registered { file, memory } => {
                entry = on_file_of(ring, file, entry);
                memory.map_or(Besides::Nothing, |memory| Besides::Index(index_in(ring, memory)))
            }
            Draft::Aside { aside, file } => {
                entry = on_file_of(ring, file, entry);
                Besides::Aside(match aside {
                    Aside::Message(header, mut pieces) => {
                        match entry.is_message_whole() {
                            true => pieces.refuse_part(),
                            false => pieces.truncate(),
                        }
                        Aside::Message(header, pieces)
                    }
                    Aside::Time(time) => {
                        facts.set_left(entry.offset as u32);
                        Aside::Time(time)
                    }
                    aside => aside,
                })
            }
            Draft::Pieces { pieces, file, memory } => {
                entry = on_file_of(ring, file, entry);
                Besides::Aside(Aside::FixedPieces(pieces, index_in(ring, memory)))
            }
            Draft::Pool { pool, limit, file } => {
                entry = on_file_of(ring, file, entry);
                facts.set_left(limit);
                match pool.group(ring) {
                    Some(group) if !own.intersects(Flags::STREAM) => {
                        facts.pool = group;
                        Besides::Index(group)
                    }
                    _ => Besides::Pool { pool, limit },
                }
            }
            Draft::Closes(descriptor) => {
                facts.own(descriptor);
                Besides::Nothing
            }
            Draft::Whole(whole) => Besides::Whole(whole),
        };
        (facts, Prepared { entry, besides }, time)
    }
}
