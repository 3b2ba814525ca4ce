//! Requests that wait for a time.

use std::num::NonZeroU32;
use std::time::{Duration, Instant, SystemTime};

use io_uring::opcode;
use io_uring::types::{TimeoutFlags, Timespec};

use super::entry::bare;
use super::sqe::Usual;
use super::{Aside, Parts, Request, Stream};
use crate::clock;
use crate::facts::Yields;

/// A time as the kernel reads it, while it takes in the entry that uses it.
#[inline]
fn spec(time: Duration) -> Timespec {
    // The kernel's seconds are signed: it would refuse a larger number, rather than wait for ever.
    let seconds = time.as_secs().min(i64::MAX as u64);
    Timespec::new().sec(seconds).nsec(time.subsec_nanos())
}

/// The entry of a timer, without the address of its time; and the time.
#[inline(always)]
pub(super) fn armed(opcode: u8, time: Duration) -> (Usual, Timespec) {
    // The number of times (`struct timespec`) at that address.
    (Usual { length: 1, ..bare(opcode.into(), -1) }, spec(time))
}

// Inlined, as is `timeout`, like `connect`: a function that makes either a timer or something else has both in memory if
// one of them is returned there.
#[inline(always)]
fn timer(time: Duration, count: u32, flags: TimeoutFlags) -> Parts<'static> {
    let (entry, time) = armed(opcode::Timeout::CODE, time);
    let entry = Usual { offset: count.into(), op_flags: flags.bits(), ..entry };
    Parts::beside(entry, Aside::Time(time)).yielding(Yields::Tick)
}

/// Completes once `duration` has passed (`IORING_OP_TIMEOUT`, since 5.4).
///
/// A timer that ran its time has the result `Ok(0)`; one that was cancelled, `ECANCELED`.
///
/// ```
/// # use rummelplatz::{Completion, RingOperation, SubmitError, Submitter, request, ring};
/// # use std::{error::Error, time::Duration};
/// # #[ring]
/// # struct Clock { ticks: Ticks }
/// # #[derive(RingOperation)]
/// # #[ring_operation(ring = Clock, data = u32, error = SubmitError, on_completion)]
/// # struct Ticks;
/// # impl Ticks {
/// /// The data says how many ticks are left.
/// fn on_completion(&mut self, _: Completion, left: u32, mut submitter: Submitter<'_, Clock, Self>)
///     -> Result<(), SubmitError>
/// {
///     if left > 0 {
///         submitter.submit(left - 1, |_| request::timeout(Duration::from_millis(10)))?;
///     }
///     Ok(())
/// }
/// # }
/// # fn main() -> Result<(), Box<dyn Error>> {
/// # let mut clock = Clock::builder(Ticks).build()?;
/// # clock.submitter(Clock::TICKS).submit(3, |_| request::timeout(Duration::from_millis(10)))?;
/// # let begun = std::time::Instant::now();
/// # clock.run()?;
/// # assert!(begun.elapsed() >= Duration::from_millis(40));
/// # Ok(()) }
/// ```
///
/// To limit the time of another request, use [`deadline`](Request::deadline).
#[doc(alias = "sleep")]
#[doc(alias = "timer")]
#[inline(always)]
pub fn timeout<'d>(duration: Duration) -> Request<'d> {
    timer(duration, 0, TimeoutFlags::empty()).request()
}

/// Completes at `instant`, on the monotonic clock (`IORING_TIMEOUT_ABS`, since 5.5).
///
/// An instant in the past completes at once.
///
/// The kernel takes no account of a time namespace whose monotonic clock is shifted (`time_namespaces(7)`; seen
/// on 6.18): there, use [`timeout`].
#[doc(alias = "sleep_until")]
pub fn timeout_at<'d>(instant: Instant) -> Request<'d> {
    let at = clock::monotonic() + instant.saturating_duration_since(Instant::now());
    timer(at, 0, TimeoutFlags::ABS).request()
}

/// Completes when the system's clock shows `time` (`IORING_TIMEOUT_REALTIME`, since 5.15).
///
/// Unlike [`timeout_at`], this follows changes of the clock.
pub fn timeout_at_time<'d>(time: SystemTime) -> Request<'d> {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    timer(since, 0, TimeoutFlags::ABS | TimeoutFlags::REALTIME).request()
}

/// The shortest interval of a multishot timer. The kernel can cancel such a timer only after its task work has armed it
/// again and before it fires the next time. With a shorter interval, a cancel does not get in between, and the timer
/// could never be ended.
const SHORTEST_INTERVAL: Duration = Duration::from_micros(50);

/// Completes again and again, each time `interval` has passed (`IORING_TIMEOUT_MULTISHOT`, since
/// 6.4).
///
/// The kernel begins each interval when it has posted the completion of the one before. So a completion that is late
/// makes all later ones late, too, and none is made up for: don't measure time by counting them. If there is a schedule
/// to keep, use a [`timeout_at`] for each of its times.
///
/// An interval of less than 50 microseconds counts as 50: the kernel could not cancel a faster timer.
#[doc(alias = "interval")]
#[doc(alias = "timeout_multishot")]
pub fn timeout_multi<'d>(interval: Duration) -> Stream<'d> {
    timer(interval.max(SHORTEST_INTERVAL), 0, TimeoutFlags::MULTISHOT).stream()
}

/// Completes `times` times, each time `interval` has passed (`IORING_TIMEOUT_MULTISHOT`, since
/// 6.4).
///
/// The last completion is final: [`more`](crate::Completion::more) is false. The shortest interval is the same as for
/// [`timeout_multi`].
pub fn timeout_multi_times<'d>(interval: Duration, times: NonZeroU32) -> Stream<'d> {
    timer(interval.max(SHORTEST_INTERVAL), times.get(), TimeoutFlags::MULTISHOT).stream()
}
