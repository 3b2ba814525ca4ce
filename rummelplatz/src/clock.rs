//! The clocks that requests are measured by: that of the kernel's timeouts, and one that is cheap to read.

use std::time::Duration;

fn read(clock: libc::clockid_t) -> Duration {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a valid place for the answer, for the duration of the call.
    let result = unsafe { libc::clock_gettime(clock, &raw mut now) };
    debug_assert_eq!(result, 0, "both clocks exist since Linux 2.6.32");
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// `CLOCK_MONOTONIC`: what absolute timeouts are given in.
pub(crate) fn monotonic() -> Duration {
    read(libc::CLOCK_MONOTONIC)
}

/// A time as the kernel counts it; as many nanoseconds as fit, if it is longer than 584 years.
pub(crate) fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// A moment, that fits beside a request and costs a few instructions: to within some microseconds on x86-64, and some
/// milliseconds elsewhere.
///
/// The lowest 16 bits are zero, for something small that is kept with it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Stamp(u64);

impl Stamp {
    /// Before all others.
    pub(crate) const ZERO: Stamp = Stamp(0);

    /// The stamp and something small, in one number.
    #[inline(always)]
    pub(crate) const fn with(self, small: u16) -> u64 {
        self.0 | small as u64
    }

    /// Takes the two apart again.
    pub(crate) const fn apart(both: u64) -> (Stamp, u16) {
        let small = both as u16;
        (Stamp(both ^ small as u64), small)
    }

    /// Whether two moments are within the same few milliseconds, or nearly so.
    fn is_about(self, other: Stamp) -> bool {
        self.0 >> 24 == other.0 >> 24
    }

    /// The processor's time stamp counter.
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    #[inline(always)]
    pub(crate) fn now() -> Stamp {
        // SAFETY: every x86-64 processor has the counter, and Linux lets programs read it.
        Stamp::apart(unsafe { core::arch::x86_64::_rdtsc() }).0
    }

    /// `CLOCK_MONOTONIC_COARSE`, in nanoseconds.
    #[cfg(any(not(target_arch = "x86_64"), miri))]
    pub(crate) fn now() -> Stamp {
        Stamp::apart(read(libc::CLOCK_MONOTONIC_COARSE).as_nanos() as u64).0
    }
}

/// Shows the time to the loop without reading the clock in each pass, which would take about as long as all
/// the rest of a pass.
///
/// In busy times the clock is read only in every sixteenth pass. So for up to fifteen passes after a wait,
/// the time that it shows may be that from before the wait.
#[derive(Debug)]
pub(crate) struct Watch {
    shown: Stamp,
    /// How many looks in a row have shown [about](Stamp::is_about) the same time.
    same: u32,
    /// For how many more passes nobody looks at the clock.
    rest: u32,
    /// `rest` as it was right after the last look, and how many passes there had been by then.
    rest_then: u32,
    passes_then: u64,
}

impl Watch {
    /// Times are busy when this many looks in a row have shown about the same time.
    const BUSY: u32 = 64;
    const REST: u32 = 15;

    pub(crate) fn new() -> Watch {
        Watch { shown: Stamp::now(), same: 0, rest: 0, rest_then: 0, passes_then: 0 }
    }

    /// The time when somebody last looked.
    #[inline(always)]
    pub(crate) fn shown(&self) -> Stamp {
        self.shown
    }

    /// To be called in each pass of the loop.
    #[inline(always)]
    pub(crate) fn pass(&mut self) {
        let (rest, is_over) = self.rest.overflowing_sub(1);
        // Stored in any case, so that this is one subtraction in memory.
        self.rest = rest;
        if is_over {
            self.look();
        }
    }

    #[cold]
    #[inline(never)]
    pub(crate) fn look(&mut self) {
        self.look_at(Stamp::now());
    }

    /// How many passes there have been. They are not counted, which would cost something: what is left of a
    /// rest tells.
    pub(crate) fn passes(&self) -> u64 {
        self.passes_then + u64::from(self.rest_then.wrapping_sub(self.rest))
    }

    #[inline]
    fn look_at(&mut self, now: Stamp) {
        self.passes_then = self.passes();
        self.same = if now.is_about(self.shown) { self.same.saturating_add(1) } else { 0 };
        self.rest = if self.same < Self::BUSY { 0 } else { Self::REST };
        self.rest_then = self.rest;
        self.shown = now;
    }
}

/// Converts the distance of two stamps to a time, whatever their unit: it knows how many steps there were in
/// the time since it was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    made: Duration,
    stamp: Stamp,
}

impl Clock {
    pub(crate) fn new() -> Clock {
        Clock { made: monotonic(), stamp: Stamp::now() }
    }

    /// The time from one stamp to another, both taken after this was made.
    pub(crate) fn between(&self, earlier: Stamp, later: Stamp) -> Duration {
        self.share(earlier, later, Stamp::now(), monotonic().saturating_sub(self.made))
    }

    /// As [`between`](Self::between), if it is `now`, and `elapsed` has passed since this was made.
    fn share(&self, earlier: Stamp, later: Stamp, now: Stamp, elapsed: Duration) -> Duration {
        let steps = |from: Stamp, to: Stamp| to.0.wrapping_sub(from.0) as f64;
        let all = steps(self.stamp, now);
        if all == 0.0 {
            return Duration::ZERO;
        }
        elapsed.mul_f64((steps(earlier, later) / all).clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A moment; the next one is not [about](Stamp::is_about) the same.
    fn stamp(step: u32) -> Stamp {
        Stamp(u64::from(step) << 32)
    }

    #[test]
    fn ages_are_in_proportion_to_the_time_that_was_seen() {
        let clock = Clock { made: Duration::ZERO, stamp: stamp(1000) };
        let age = |earlier, later| {
            clock.share(stamp(earlier), stamp(later), stamp(1100), Duration::from_secs(50)).as_millis()
        };
        assert_eq!(age(1020, 1020), 0);
        assert_eq!(age(1020, 1024), 2_000);
        assert_eq!(age(1000, 1100), 50_000);
        assert_eq!(age(1050, 1200), 50_000, "nothing is older than that");
        let now = clock.stamp;
        assert_eq!(clock.share(now, now, now, Duration::ZERO), Duration::ZERO, "nothing was seen yet");
    }

    #[test]
    fn ages_survive_the_wrap() {
        let clock = Clock { made: Duration::ZERO, stamp: stamp(u32::MAX - 89) };
        let age = clock.share(stamp(u32::MAX - 4), stamp(5), stamp(10), Duration::from_secs(100));
        assert_eq!(age, Duration::from_secs(10));
    }

    #[test]
    fn time_is_seen() {
        let clock = Clock::new();
        let first = Stamp::now();
        let later = loop {
            std::thread::sleep(Duration::from_millis(1));
            if Stamp::now() != first {
                break Stamp::now();
            }
        };
        assert!(clock.between(first, later) > Duration::ZERO);
    }

    #[test]
    fn in_quiet_times_the_watch_is_right_and_in_busy_ones_behind_for_a_few_passes() {
        /// A pass at the time `now`. Returns whether the clock was looked at.
        fn pass(watch: &mut Watch, now: u32) -> bool {
            let rests = watch.rest > 0;
            match rests {
                true => watch.pass(),
                false => {
                    watch.rest = watch.rest.wrapping_sub(1);
                    watch.look_at(stamp(now));
                }
            }
            !rests
        }
        let mut watch = Watch { shown: stamp(0), ..Watch::new() };
        for now in 1..100 {
            // Some passes at once, then a wait.
            for _ in 0..40 {
                assert!(pass(&mut watch, now) && watch.shown == stamp(now));
            }
        }
        assert_eq!(watch.passes(), 99 * 40);
        let looks = (0..1000).filter(|_| pass(&mut watch, 100)).count();
        assert_eq!((looks, watch.passes()), (65 + (1000 - 65) / 16, 99 * 40 + 1000));
        // A look outside of a pass does not count as one.
        watch.look_at(stamp(100));
        watch.look_at(stamp(100));
        assert_eq!(watch.passes(), 99 * 40 + 1000);
        let late = (0..100).position(|_| pass(&mut watch, 101)).unwrap();
        assert!(late < 16 && watch.shown == stamp(101), "{late}");
        assert!((102..200).all(|now| pass(&mut watch, now)), "it is quiet again");
    }
}
