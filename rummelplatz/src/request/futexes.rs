//! Requests on a word that threads wait for.

use std::sync::atomic::AtomicU32;

use io_uring::opcode;

use super::{Parts, Request};

/// Of 32 bits, and waited for only in this process (`futex2`).
const FLAGS: u32 = FUTEX2_SIZE_U32 | FUTEX2_PRIVATE;
const FUTEX2_SIZE_U32: u32 = 2;
const FUTEX2_PRIVATE: u32 = 1 << 7;

/// Whoever waits is woken, whatever for.
const ANY: u64 = libc::FUTEX_BITSET_MATCH_ANY as u32 as u64;

/// Waits until somebody wakes those who wait for `word`, if that has the value `expected`; otherwise ends at once, with
/// `EAGAIN` (`IORING_OP_FUTEX_WAIT`, since 6.7), as `futex(2)`. The result is 0.
///
/// In this way a thread that has no ring tells a ring that something is ready, and many threads and rings can wait for
/// one word: the thread changes it, and then wakes (`FUTEX_WAKE_PRIVATE`), with the crate `atomic-wait`, for example. To
/// wake just one ring, or to send it something, use its [`RingHandle`](crate::RingHandle).
///
/// Look at the word in both cases, woken or `EAGAIN` (`WouldBlock`): in both, it may have been changed in between, several
/// times, or back. The kernel compares and begins to wait in one step. So whoever changes the word before waking wakes
/// all that have waited for its old value, and those that come too late end with `EAGAIN`.
///
/// In a [chain](crate::Submitter::chain), `EAGAIN` ends the chain like any error. But if the wait is cancelled, or its
/// deadline passes, the kernel goes on with the chain (seen on 6.18).
///
/// The kernel only reads the word, at once and whole, as a thread does that loads it, so others may change it meanwhile.
/// The word is in the data of the request, mostly behind an [`Arc`](std::sync::Arc), and so it is there for as long as
/// somebody waits for it. Only this process is meant: for words in memory that it shares with others, there are
/// [raw entries](crate::Submitter::push).
///
/// ```
/// # use rummelplatz::{request, request::Request};
/// # use std::sync::{Arc, atomic::{AtomicU32, Ordering}};
/// /// Other threads add to `rung`, and wake.
/// struct Doorbell { rung: Arc<AtomicU32>, seen: u32 }
///
/// impl Doorbell {
///     fn wait(&mut self) -> Request<'_> {
///         request::futex_wait(&self.rung, self.seen)
///     }
///     /// For the handler, before it waits again: how often it has rung since.
///     fn rings(&mut self) -> u32 {
///         let rung = self.rung.load(Ordering::Acquire);
///         rung.wrapping_sub(std::mem::replace(&mut self.seen, rung))
///     }
/// }
/// ```
pub fn futex_wait(word: &AtomicU32, expected: u32) -> Request<'_> {
    let place = word.as_ptr().cast_const();
    Parts::whole(opcode::FutexWait::new(place, expected.into(), ANY, FLAGS).build()).request()
}

/// Wakes up to `count` of those who wait for `word`, rings and threads of this process (`IORING_OP_FUTEX_WAKE`, since
/// 6.7), as `futex(2)`. The result is how many were woken.
///
/// Change the word first, or somebody may begin to wait for it right afterwards. From a handler, the system call does
/// the same at once. As a request, it may be at the end of a [chain](crate::Submitter::chain): who waits is woken when a
/// write is done, for example. If nobody waits, it has succeeded as well.
///
/// ```
/// # use rummelplatz::{request, request::Request};
/// # use std::sync::{Arc, atomic::AtomicU32};
/// # struct Done { word: Arc<AtomicU32> }
/// # impl Done {
/// fn wake_all(&mut self) -> Request<'_> {
///     request::futex_wake(&self.word, u32::MAX)
/// }
/// # }
/// ```
pub fn futex_wake(word: &AtomicU32, count: u32) -> Request<'_> {
    let place = word.as_ptr().cast_const();
    // The kernel's count is signed, and a negative one counts as 1.
    let count = count.min(i32::MAX as u32);
    Parts::whole(opcode::FutexWake::new(place, count.into(), ANY, FLAGS).build()).request()
}
