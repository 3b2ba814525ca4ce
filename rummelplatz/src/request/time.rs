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

/// A time as the kernel reads it, while it takes in what is about it.
#[inline]
fn spec(time: Duration) -> Timespec {
    // The kernel's seconds are signed: more of them would be refused, rather than take for ever.
    let seconds = time.as_secs().min(i64::MAX as u64);
    Timespec::new().sec(seconds).nsec(time.subsec_nanos())
}

/// The entry of a timer, but for the address of its time; and that.
#[inline]
pub(super) fn armed(opcode: u8, time: Duration) -> (Usual, Timespec) {
    // As many times as there are.
    (Usual { length: 1, ..bare(opcode.into(), -1) }, spec(time))
}

fn timer(time: Duration, count: u32, flags: TimeoutFlags) -> Parts<'static> {
    let (entry, time) = armed(opcode::Timeout::CODE, time);
    let entry = Usual { offset: count.into(), op_flags: flags.bits(), ..entry };
    let mut parts = Parts::beside(entry, Aside::Time(time)).yielding(Yields::Tick);
    parts.facts.set_left(count);
    parts
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
/// For a time limit of another request, there is [`deadline`](Request::deadline).
pub fn timeout<'d>(duration: Duration) -> Request<'d> {
    timer(duration, 0, TimeoutFlags::empty()).request()
}

/// Completes at `instant`, on the monotonic clock (`IORING_TIMEOUT_ABS`, since 5.4).
///
/// An instant in the past completes at once.
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

/// The shortest interval of a multishot timer. The kernel can cancel one only between the moment that
/// its task work has armed it again and the next time that it fires: with a shorter interval, a cancel
/// does not get there in between, and the timer could never be ended.
const SHORTEST_INTERVAL: Duration = Duration::from_micros(50);

/// Completes again and again, each time `interval` has passed (`IORING_TIMEOUT_MULTISHOT`, since
/// 6.4).
///
/// An interval of less than 50 microseconds counts as that: the kernel could not cancel a faster timer.
pub fn timeout_multi<'d>(interval: Duration) -> Stream<'d> {
    timer(interval.max(SHORTEST_INTERVAL), 0, TimeoutFlags::MULTISHOT).stream()
}

/// Completes `times` times, each time `interval` has passed (`IORING_TIMEOUT_MULTISHOT`, since
/// 6.4).
///
/// The last completion is final: [`more`](crate::Completion::more) is false. The shortest interval is
/// that of [`timeout_multi`].
pub fn timeout_multi_times<'d>(interval: Duration, times: NonZeroU32) -> Stream<'d> {
    timer(interval.max(SHORTEST_INTERVAL), times.get(), TimeoutFlags::MULTISHOT).stream()
}
