//! A request in its slot, and on its way from there to the queue.
//!
//! What is [`Placed`] may be queued: its pointers and descriptors stay good until its final completion.

use std::time::Duration;

use io_uring::types::TimeoutFlags;
use io_uring::{opcode, squeue};

use super::draft::{Besides, Prepared};
use super::sqe::Usual;
use super::{Request, Stream, time};
use crate::buffers::BufferPool;
use crate::clock::Stamp;
use crate::facts::{Brief, Facts, Flags};
use crate::slab::{self, Identity, Meta, Occupied, Remember, Vacancy};
use crate::user_data::UserData;

/// A [`Placed`] that is its entry and nothing else.
pub(crate) struct Bare {
    entry: Usual,
    user_data: u64,
}

impl Bare {
    #[inline(always)]
    pub(crate) fn apart(self) -> (Usual, u64) {
        (self.entry, self.user_data)
    }
}

/// What a ring adds to a request that it accepts.
#[derive(Clone, Copy)]
pub(crate) struct Terms {
    /// Which ring it is.
    pub(crate) ring: u64,
    pub(crate) flags: Flags,
    /// When the request is accepted.
    pub(crate) born: Stamp,
}

/// A prepared request whose pointers and descriptors stay good until the final completion of its
/// `user_data`: it may be queued.
///
/// Made by [`place`], [`place_stream`] and [`arm_again`], from what the compiler has checked; by
/// [`vouched`](Placed::vouched), from what somebody answers for (a [`Request`] can be made like that as
/// well); by [`control`](Placed::control), for entries that point to nothing; and by [`alarm`](Placed::alarm)
/// and [`add_timer`](Placed::add_timer), for timers, which point only to what is kept beside the entry.
pub(crate) struct Placed {
    prepared: Prepared,
    user_data: u64,
}

impl Placed {
    /// An entry that the caller answers for.
    ///
    /// # Safety
    ///
    /// What the entry points to must stay valid, and in place, until the final completion of `user_data`. And
    /// the entry must not do what no safe request could do to others.
    pub(crate) unsafe fn vouched(entry: squeue::Entry, user_data: u64) -> Placed {
        Placed { prepared: Prepared::whole(entry), user_data }
    }

    /// An entry of the ring's own, which points to nothing.
    pub(crate) fn control(entry: squeue::Entry, user_data: u64) -> Placed {
        Placed { prepared: Prepared::whole(entry), user_data }
    }

    /// A timer of the ring's own.
    pub(crate) fn alarm(time: Duration, user_data: u64) -> Placed {
        let (entry, time) = time::armed(opcode::Timeout::CODE, time);
        Placed { prepared: Prepared::timer(entry, time), user_data }
    }

    /// Links a timer to the request, which ends the request after this much time. Returns the timer, which
    /// must be queued next.
    pub(crate) fn add_timer(&mut self, time: Duration) -> Placed {
        self.prepared.add(squeue::Flags::IO_LINK);
        let (entry, time) = time::armed(opcode::LinkTimeout::CODE, time);
        let user_data = UserData::of_timer(self.user_data);
        Placed { prepared: Prepared::timer(entry, time), user_data }
    }

    /// Links the entry to what is queued next, if these flags say so.
    pub(crate) fn link(&mut self, flags: squeue::Flags) {
        self.prepared.add(flags);
        if !flags.is_empty() && self.prepared.entry.opcode as u8 == opcode::Timeout::CODE {
            // A timer that has run its time has succeeded.
            self.prepared.entry.op_flags |= TimeoutFlags::ETIME_SUCCESS.bits();
        }
    }

    /// Makes the entry the last one of its chain.
    pub(crate) fn end_chain(&mut self) {
        self.prepared.remove(squeue::Flags::IO_LINK | squeue::Flags::IO_HARDLINK);
    }

    #[inline]
    pub(crate) fn user_data(&self) -> u64 {
        self.user_data
    }

    #[inline]
    pub(crate) fn into_prepared(self) -> Prepared {
        self.prepared
    }

    /// The pool that this request receives from, as long as it is not [bound](Self::bind).
    #[inline(always)]
    pub(crate) fn pool(&self) -> Option<&BufferPool> {
        match &self.prepared.besides {
            Besides::Pool { pool, .. } => Some(pool),
            _ => None,
        }
    }

    /// Whether the request may receive from a pool whose buffers are used piece by piece.
    pub(crate) fn takes_pieces(&self) -> bool {
        self.prepared.entry.takes_pieces()
    }

    /// Makes the request receive from this group, which is that of its pool.
    pub(crate) fn bind(&mut self, group: u16) {
        let Prepared { entry, besides } = &mut self.prepared;
        if let Besides::Pool { limit, ref pool } = *besides {
            if pool.is_incremental() {
                entry.take_no_bundles();
            }
            *besides = match limit {
                0 => Besides::Index(group),
                _ => Besides::Whole(entry.limited(group, limit)),
            };
        }
    }

    /// A request that is not bound, put together again from what was [in it](Self::into_prepared).
    pub(crate) fn unbound(prepared: Prepared, user_data: u64) -> Placed {
        Placed { prepared, user_data }
    }
}

/// The function of a stream, run again on the present data whenever the stream must be armed again.
type Arm<D> = for<'d> fn(&'d mut D) -> Stream<'d>;

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
    /// Queues the request, and returns true. If that can't be done here, sets the request aside and returns
    /// false.
    fn fill(self, placed: Placed) -> bool;
    /// Queues a request that is its entry and nothing else.
    fn fill_with_bare(self, bare: Bare);
}

/// As [`place`], into a vacancy; and queues the request. The entry is written to its place in the queue
/// before all of the slot is written, so that it is not kept anywhere in between. Returns whether the request
/// is [queued](Queue::fill), and its deadline.
///
/// All that is done with the data is one closure: so the compiler sees which kind of request it is, and
/// leaves the others out before it works on any of it.
///
/// # Safety
///
/// The vacancy is of this slab, and filling the place does not unwind.
#[inline(always)]
pub(crate) unsafe fn place_into<D>(
    vacancy: Vacancy,
    slab: &mut Slab<D>,
    data: D,
    terms: Terms,
    build: impl for<'d> FnOnce(&'d mut D) -> Request<'d>,
    place: impl Queue,
) -> (Identity, Option<More>) {
    let user_data = vacancy.user_data();
    // SAFETY: the caller promises that the vacancy is of this slab.
    unsafe { slab.fill(vacancy, data, Queued { build, terms, place, user_data }) }
}

/// What is still to be done about a request that is in its slot.
pub(crate) struct More {
    pub(crate) is_queued: bool,
    pub(crate) deadline: Option<Duration>,
}

struct Queued<B, Q> {
    build: B,
    terms: Terms,
    place: Q,
    user_data: u64,
}

impl<D, B, Q: Queue> slab::Build<D, Record<D>, Option<More>> for Queued<B, Q>
where
    B: for<'d> FnOnce(&'d mut D) -> Request<'d>,
{
    #[inline(always)]
    fn build(self, data: &mut D) -> (Remember<Record<D>>, Option<More>) {
        let Queued { build, terms, place, user_data } = self;
        let request = build(data);
        // Asked first, and so a short way for most requests even where they lie in memory: where the function that
        // makes them is not inlined, or may also make one that is more than its entry.
        if let Some(entry) = request.parts.bare() {
            std::mem::forget(request);
            let Terms { flags, born, .. } = terms;
            let facts = Facts { flags, born, ..Facts::new(entry.opcode as u8) };
            place.fill_with_bare(Bare { entry, user_data });
            return (remember(facts), None);
        }
        let (facts, prepared, deadline) = request.parts.place(terms);
        // This is done last, and filling the place does not unwind: so no slot is given back whose request is
        // queued.
        let is_queued = place.fill(Placed { prepared, user_data });
        (remember(facts), Some(More { is_queued, deadline }))
    }
}

/// As [`place`], for a stream. Its function is kept. Returns how long it may be idle, too.
pub(crate) fn place_stream<D>(
    slab: &mut Slab<D>,
    data: D,
    terms: Terms,
    arm: Arm<D>,
) -> (Identity, Placed, Option<Duration>) {
    let (identity, (prepared, idle_limit)) = slab.insert_with(data, |data| {
        let Stream { parts, idle_limit, .. } = arm(data);
        let (mut facts, prepared, rest) = parts.place(terms);
        facts.set_rest(rest);
        if idle_limit.is_some() {
            facts.flags.insert(Flags::QUIET);
        }
        (Remember::All(Record { facts, arm: Some(arm) }), (prepared, idle_limit))
    });
    (identity, Placed { prepared, user_data: identity.user_data }, idle_limit)
}

/// Puts `data` into a slot that the kernel knows nothing of.
///
/// Returns the `user_data` of the slot.
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
    // The stream was accepted long ago, and the slot remembers the terms.
    let terms = Terms { ring, flags: Flags::EMPTY, born: Stamp::ZERO };
    // SAFETY: only streams have a function to arm them, and no stream points into its data; so even
    // if the kernel still had this one, nothing but Rust would use the data.
    let (facts, mut prepared, rest) = unsafe { slot.with_value(|data| arm(data).parts.place(terms)) }?;
    let old = &mut slot.demote().facts;
    if old.left() > 0 && old.opcode == facts.opcode {
        // What is left of a count or a limit goes on; it does not start over.
        prepared.set_left(old.left());
    } else {
        old.set_left(facts.left());
        old.set_rest(rest);
    }
    old.opcode = facts.opcode;
    old.set_yields(facts.yields);
    Some(Placed { prepared, user_data })
}
