//! The two clocks of the kernel that requests are measured by.

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

/// A stamp of a few milliseconds' accuracy that fits beside a request: 10 ms ticks of
/// `CLOCK_MONOTONIC_COARSE`, which is read without a system call. Wraps after 497 days.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Stamp(pub(crate) u32);

impl Stamp {
    const TICK_MS: u64 = 10;

    pub(crate) fn now() -> Stamp {
        Stamp((read(libc::CLOCK_MONOTONIC_COARSE).as_millis() as u64 / Self::TICK_MS) as u32)
    }

    /// How long before `self` the earlier stamp was taken.
    pub(crate) fn since(self, earlier: Stamp) -> Duration {
        Duration::from_millis(u64::from(self.0.wrapping_sub(earlier.0)) * Self::TICK_MS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_survive_the_wrap() {
        assert_eq!(Stamp(1).since(Stamp(u32::MAX)), Duration::from_millis(20));
        assert_eq!(Stamp(5).since(Stamp(5)), Duration::ZERO);
    }
}
