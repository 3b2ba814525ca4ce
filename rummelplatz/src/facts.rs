//! What a slot remembers about its request, recorded when the request is made and never guessed
//! from a completion.

use std::fmt;
use std::ops::{BitOr, BitOrAssign, RangeInclusive};
use std::os::fd::{IntoRawFd, OwnedFd, RawFd};
use std::time::Duration;

use crate::clock::Stamp;

/// Results that are the kernel's own, from `ERESTARTSYS` on (`include/linux/errno.h`). They mean that nothing was done.
pub(crate) const KERNELS_OWN: RangeInclusive<i32> = -531..=-512;

/// What is known about a request, whatever the type of its data.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    pub(crate) opcode: u8,
    pub(crate) yields: Yields,
    pub(crate) flags: Flags,
    /// Which of the ring's pools the request receives from.
    pub(crate) pool: u16,
    /// How many times in a row the pool was empty although nobody held a buffer of it, without one having
    /// been taken since the time before.
    pub(crate) starved: u8,
    /// How many buffers had ever been taken from the pool by then; wraps.
    pub(crate) taken: u16,
    /// Of a counted timer, how often it still ticks; of a limited stream, how many bytes it still receives.
    /// Of a `close`, the descriptor that it owns, if [`Flags::CLOSES`] says so. Of a stream of connections, how many
    /// milliseconds it rests after an error, if it goes on then. 0 for all others.
    pub(crate) number: u32,
    /// When the request was accepted.
    pub(crate) born: Stamp,
    /// Of a request that announced more (`F_MORE`) without being a stream, or that waits for its timer: the
    /// first result. Of a stream: the result with which it was cut.
    pub(crate) held: Held,
}

/// All that is remembered of a request that has nothing else to remember: its opcode, when it was accepted,
/// and whether it yields events. It is one number, which is put together in fewer instructions than it has
/// parts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Brief(u64);

impl Brief {
    const EVENTS: u16 = 1 << 8;

    /// The facts that it stands for.
    pub(crate) fn facts(self) -> Facts {
        let (born, small) = Stamp::apart(self.0);
        let yields = if small & Self::EVENTS == 0 { Yields::Result } else { Yields::Events };
        Facts { yields, born, ..Facts::new(small as u8) }
    }
}

const _: () = assert!(size_of::<Facts>() == 32, "there are as many as there are slots");

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Held {
    pub(crate) result: i32,
    pub(crate) flags: u32,
}

/// What a successful completion of a request carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Yields {
    /// A number.
    Result,
    /// A new descriptor, in `res`.
    Descriptor,
    /// A file in the ring's table, whose index is in `res`.
    Direct,
    /// A buffer of a pool, where `IORING_CQE_F_BUFFER` is set.
    Buffer,
    /// As `Buffer`; it holds a datagram, behind what the kernel says of that.
    Datagram,
    /// As `Datagram`; what the kernel says of it includes control messages.
    Message,
    /// Buffers of a pool, of which `IORING_CQE_F_BUFFER` names the first.
    Bundle,
    /// A piece of a buffer of a pool, where `IORING_CQE_F_BUFFER` is set. To a handler, this is a `Buffer`.
    Piece,
    /// The poll events, in `res`.
    Events,
    /// Nothing: the time is up, which the kernel calls `ETIME`.
    Tick,
}

impl Yields {
    pub(crate) const LAST: Yields = Yields::Tick;

    /// Whether it is in buffers of a pool.
    pub(crate) const fn is_from_pool(self) -> bool {
        matches!(self, Yields::Buffer | Yields::Datagram | Yields::Message | Yields::Bundle | Yields::Piece)
    }

    /// Whether it is more than one buffer, a buffer with more in it than bytes, or something that the ring must
    /// take note of: the short path of streams is not for that.
    #[inline(always)]
    pub(crate) const fn is_involved(self) -> bool {
        matches!(self, Yields::Datagram | Yields::Message | Yields::Bundle | Yields::Piece | Yields::Direct)
    }
}

/// A small set of booleans about a request.
///
/// Some say what kind of request it is, and never change: `STREAM`, `DETACHED`, `MESSAGE`, `LATE`, `CLOSES`, `BACKGROUND`
/// and `IN_WORKER`; `INVOLVED` and `COUNTED` follow from what a stream yields and has left. The others say how far it has
/// come:
///
/// * In a chain, `IN_CHAIN` until that is submitted. With a deadline there, also `TIMED` until the timer has completed. If
///   the request completes first, it is `ENDED` as well until the timer does.
/// * Whatever announces more without being a stream is `HELD` from its first completion on.
/// * A stream that the kernel has cut is `PARKED` until it is armed again, also while its handler runs. One with a limit for
///   being idle is now and then `QUIET`, until its next completion.
/// * A stream is `PAUSED` from when somebody asks for that until it is resumed or cancelled, and `STOPPING` from then until
///   the kernel does not have it any more. So one that is resumed before that is `STOPPING` only, and one that the kernel
///   does not have is `PAUSED` and `PARKED`.
/// * Whoever asks for its end makes it `CANCELLED`; a deadline makes it `TIMED_OUT`, an idle limit both. That stays.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Flags(u32);

impl Flags {
    pub(crate) const EMPTY: Flags = Flags(0);
    /// Completions that are not final are delivered, too.
    pub(crate) const STREAM: Flags = Flags(1);
    /// Nobody is told of the end.
    pub(crate) const DETACHED: Flags = Flags(1 << 1);
    /// Data on its way from handler to handler; the kernel knows nothing of it.
    pub(crate) const MESSAGE: Flags = Flags(1 << 2);
    /// Submitted while the ring was being torn down.
    pub(crate) const LATE: Flags = Flags(1 << 3);
    /// Somebody asked for its end: a stream is not armed again.
    pub(crate) const CANCELLED: Flags = Flags(1 << 4);
    /// A stream that waits for a buffer to come back, rests, or is paused; the kernel does not have it.
    pub(crate) const PARKED: Flags = Flags(1 << 5);
    /// [`Facts::held`] has the first result.
    pub(crate) const HELD: Flags = Flags(1 << 6);
    /// It owns a [descriptor to close](Facts::owned_descriptor).
    pub(crate) const CLOSES: Flags = Flags(1 << 7);
    /// The timer that is linked to it has not completed. Only a request in a chain has one.
    pub(crate) const TIMED: Flags = Flags(1 << 8);
    /// It does not keep the ring running.
    pub(crate) const BACKGROUND: Flags = Flags(1 << 9);
    /// The request itself has completed, as [`Facts::held`] says, and waits for its timer to complete: it is
    /// [timed](Flags::TIMED), too.
    pub(crate) const ENDED: Flags = Flags(1 << 10);
    /// Its deadline has passed, or it was idle for too long.
    pub(crate) const TIMED_OUT: Flags = Flags(1 << 11);
    /// A part of a chain that was not submitted yet: nobody counts it, and the kernel knows nothing of it.
    pub(crate) const IN_CHAIN: Flags = Flags(1 << 12);
    /// It yields something [involved](Yields::is_involved), so it is never calm.
    pub(crate) const INVOLVED: Flags = Flags(1 << 13);
    /// It is left to a worker of the kernel, because its submitter wants that.
    pub(crate) const IN_WORKER: Flags = Flags(1 << 14);
    /// Something [is left](Facts::left) of a count or a limit, so it is not calm.
    pub(crate) const COUNTED: Flags = Flags(1 << 15);
    /// A stream that has told of nothing since it was last looked after: see [`idle`](crate::idle).
    pub(crate) const QUIET: Flags = Flags(1 << 16);
    /// Somebody wants the stream to tell of nothing more until it is resumed.
    pub(crate) const PAUSED: Flags = Flags(1 << 17);
    /// The kernel was asked to cancel the stream only because of a pause, and still has it.
    pub(crate) const STOPPING: Flags = Flags(1 << 18);

    #[inline]
    pub(crate) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether one of `others` is set.
    #[inline]
    pub(crate) const fn intersects(self, others: Flags) -> bool {
        self.0 & others.0 != 0
    }

    /// Whether all of `others` are set.
    #[inline]
    pub(crate) const fn contain(self, others: Flags) -> bool {
        self.0 & others.0 == others.0
    }

    /// Whether it is a paused stream that the kernel does not have: nothing but a resume makes it go on.
    #[inline]
    pub(crate) const fn are_halted(self) -> bool {
        self.contain(Flags(Flags::PAUSED.0 | Flags::PARKED.0))
    }

    #[inline]
    pub(crate) const fn insert(&mut self, other: Flags) {
        self.0 |= other.0;
    }

    pub(crate) const fn remove(&mut self, other: Flags) {
        self.0 &= !other.0;
    }
}

impl BitOr for Flags {
    type Output = Flags;
    fn bitor(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }
}

impl BitOrAssign for Flags {
    fn bitor_assign(&mut self, other: Flags) {
        self.0 |= other.0;
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#021b}", self.0)
    }
}

/// The pool that a request receives from, in its ring.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Bound {
    pub(crate) group: u16,
    /// The buffers are used up piece by piece.
    pub(crate) is_incremental: bool,
}

impl Facts {
    /// Notes which pool the request receives from, if it receives from one.
    pub(crate) fn bind(&mut self, Bound { group, is_incremental }: Bound) {
        self.pool = group;
        if is_incremental {
            self.set_yields(Yields::Piece);
        }
    }

    /// The descriptor that this `close` owns, if [`Flags::CLOSES`] says so.
    pub(crate) fn owned_descriptor(&self) -> Option<RawFd> {
        self.flags.intersects(Flags::CLOSES).then_some(self.number as RawFd)
    }

    /// Makes this `close` own a descriptor.
    #[inline]
    pub(crate) fn own(&mut self, descriptor: OwnedFd) {
        self.flags.insert(Flags::CLOSES);
        self.number = descriptor.into_raw_fd() as u32;
    }

    /// Sets what the request yields from here on.
    #[inline(always)]
    pub(crate) fn set_yields(&mut self, yields: Yields) {
        self.yields = yields;
        self.flags.remove(Flags::INVOLVED);
        if yields.is_involved() {
            self.flags.insert(Flags::INVOLVED);
        }
    }

    /// How often a timer still ticks, or how many bytes a stream still receives, if that is counted; 0
    /// otherwise.
    pub(crate) fn left(&self) -> u32 {
        if self.flags.intersects(Flags::COUNTED) { self.number } else { 0 }
    }

    /// Sets how often a timer still ticks, or how many bytes a stream still receives; 0 if that is not
    /// counted.
    pub(crate) fn set_left(&mut self, left: u32) {
        self.number = left;
        match left {
            0 => self.flags.remove(Flags::COUNTED),
            _ => self.flags.insert(Flags::COUNTED),
        }
    }

    /// How long a stream of connections rests after an error, if it goes on then.
    fn rest(&self) -> Option<Duration> {
        let accepts = self.flags.intersects(Flags::STREAM)
            && matches!(self.yields, Yields::Descriptor | Yields::Direct)
            && self.number > 0;
        accepts.then(|| Duration::from_millis(self.number.into()))
    }

    /// Sets how long a stream of connections rests after an error, if it goes on then. For other streams, there is
    /// no such time.
    pub(crate) fn set_rest(&mut self, rest: Option<Duration>) {
        if let Some(time) = rest {
            self.number = u32::try_from(time.as_millis()).unwrap_or(u32::MAX).max(1);
        }
    }

    /// How long the request rests if this result is an error after which it goes on.
    pub(crate) fn rest_after(&self, result: i32) -> Option<Duration> {
        let is_permanent = matches!(
            result.wrapping_neg(),
            libc::ECANCELED
                | libc::EBADF
                | libc::EFAULT
                | libc::EINVAL
                | libc::ENOTSOCK
                | libc::EOPNOTSUPP
                | libc::EACCES
                | libc::ENOSYS
        );
        if result >= 0 || is_permanent || KERNELS_OWN.contains(&result) { None } else { self.rest() }
    }

    /// Whether the request itself has completed, and only its timer has not.
    pub(crate) fn waits_for_timer(&self) -> bool {
        self.flags.intersects(Flags::ENDED)
    }

    /// Whether this result says that the pool is empty.
    pub(crate) fn lacks_buffers(&self, result: i32) -> bool {
        self.yields.is_from_pool() && result == -libc::ENOBUFS
    }

    /// The brief form of the facts, if the completion is just a result and nothing else is known of the
    /// request.
    #[inline(always)]
    pub(crate) const fn brief(&self) -> Option<Brief> {
        let yields = match self.yields {
            Yields::Result => 0,
            Yields::Events => Brief::EVENTS,
            Yields::Descriptor
            | Yields::Direct
            | Yields::Buffer
            | Yields::Datagram
            | Yields::Message
            | Yields::Bundle
            | Yields::Piece
            | Yields::Tick => return None,
        };
        match self.flags.is_empty() {
            true => Some(Brief(self.born.with(yields | self.opcode as u16))),
            false => None,
        }
    }

    #[inline]
    pub(crate) const fn new(opcode: u8) -> Facts {
        Facts {
            opcode,
            yields: Yields::Result,
            flags: Flags::EMPTY,
            pool: 0,
            starved: 0,
            taken: 0,
            number: 0,
            born: Stamp::ZERO,
            held: Held { result: 0, flags: 0 },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_flags_are_shown_in_columns() {
        let shown = [Flags::EMPTY, Flags::STREAM, Flags::STOPPING].map(|flags| format!("{flags:?}"));
        assert_eq!(shown, ["0b0000000000000000000", "0b0000000000000000001", "0b1000000000000000000"]);
    }

    #[test]
    fn what_is_brief_is_all_that_there_was() {
        let born = Stamp::now();
        for opcode in [0, 1, u8::MAX] {
            let of_more = [
                Yields::Descriptor,
                Yields::Direct,
                Yields::Buffer,
                Yields::Datagram,
                Yields::Message,
                Yields::Bundle,
                Yields::Piece,
                Yields::Tick,
            ];
            for yields in [Yields::Result, Yields::Events].into_iter().chain(of_more) {
                let facts = Facts { yields, born, ..Facts::new(opcode) };
                let kept = facts.brief().map(Brief::facts);
                let is_brief = matches!(yields, Yields::Result | Yields::Events);
                assert_eq!(kept.is_some(), is_brief, "{yields:?}");
                if let Some(kept) = kept {
                    assert_eq!((kept.opcode, kept.yields, kept.born), (opcode, yields, born));
                }
                let marked = Facts { flags: Flags::LATE, ..facts };
                assert!(marked.brief().is_none(), "a mark is not brief");
            }
        }
    }
}
