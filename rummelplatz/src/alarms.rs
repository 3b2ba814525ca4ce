//! The alarms that wake the ring when something of its own is due: a [deadline](crate::deadlines) has passed, a
//! cancel is to be [repeated](crate::asked_again), a stream has [rested](crate::resting), or one is to be looked after
//! that may not be [idle](crate::idle) for too long.
//!
//! A timer of the kernel for each of them would cost more than what it is for, and is nearly always in vain. So
//! an alarm is set only for what is due before all other alarms go off, and each says up to which time things
//! count as due.

use std::time::Duration;

use crate::clock::nanoseconds;
use crate::failures::{Failures, Refused};

/// See the [module documentation](self). Times are those of the kernel's clock, in nanoseconds.
pub(crate) struct Alarms {
    /// When those that the kernel has will go off. Each goes off before all that were set earlier.
    set: Vec<u64>,
    /// How many have failed since one has gone off.
    failures: Failures,
}

impl Alarms {
    pub(crate) fn new() -> Alarms {
        Alarms { set: Vec::new(), failures: Failures::new() }
    }

    /// Whether all go off after this time.
    #[inline]
    pub(crate) fn is_first(&self, when: u64) -> bool {
        self.set.last().is_none_or(|alarm| *alarm > when)
    }

    /// Notes an alarm at this time, unless there is one by then. Returns the time until then.
    pub(crate) fn set(&mut self, when: u64, now: Duration) -> Option<Duration> {
        // If it is late, it is for all that is late by now, and not for one thing after the other.
        let when = when.max(nanoseconds(now));
        self.is_first(when).then(|| {
            self.set.push(when);
            Duration::from_nanos(when).saturating_sub(now)
        })
    }

    /// Notes that one has gone off, with this result. Returns the time up to which things count as due: that of
    /// the alarm, not the present. Requests whose deadline has passed since then may have ended in time, with a
    /// completion that was not seen yet.
    ///
    /// # Errors
    ///
    /// If setting another would be of no use.
    pub(crate) fn gone_off(&mut self, result: i32, now: Duration) -> Result<u64, Refused> {
        // A message of another ring can pretend that an alarm has gone off.
        let alarm = self.set.pop();
        match result.wrapping_neg() {
            libc::ETIME => self.failures.forget(),
            // A raw entry has cancelled everything.
            libc::ECANCELED => {}
            errno @ 1.. if alarm.is_some() => self.failures.add(errno)?,
            _ => {}
        }
        let now = nanoseconds(now);
        Ok(alarm.map_or(now, |alarm| alarm.min(now)))
    }

    /// Forgets the last one: the kernel will not hear of it.
    pub(crate) fn forget_last(&mut self) {
        self.set.pop();
    }

    /// Forgets all: some have gone off unheard.
    pub(crate) fn forget(&mut self) {
        self.set.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_fail_again_and_again_are_given_up() {
        let mut alarms = Alarms::new();
        for run in 0..3 {
            let now = Duration::from_millis(run);
            let when = nanoseconds(now) + 1000;
            assert!(alarms.set(when, now).is_some());
            for failed in 0..7 {
                let result = if failed == 5 { -libc::ECANCELED } else { -libc::EACCES };
                assert_eq!(alarms.gone_off(result, now), Ok(nanoseconds(now)));
                assert!(alarms.set(when, now).is_some(), "another is set");
            }
            assert!(alarms.gone_off(-libc::EACCES, now).is_ok());
            assert!(alarms.set(when, now).is_some());
            assert_eq!(alarms.gone_off(-libc::EACCES, now), Err(Refused(libc::EACCES)));
        }
        for _ in 0..100 {
            for result in [-libc::EACCES, -libc::ETIME] {
                assert!(alarms.set(1000, Duration::ZERO).is_some());
                assert!(alarms.gone_off(result, Duration::ZERO).is_ok(), "it is well again");
            }
        }
    }

    #[test]
    fn what_was_not_set_cannot_fail() {
        let mut alarms = Alarms::new();
        for _ in 0..100 {
            assert_eq!(alarms.gone_off(-libc::EACCES, Duration::from_nanos(7)), Ok(7));
        }
    }

    #[test]
    fn what_is_forgotten_is_set_again() {
        let (mut alarms, now) = (Alarms::new(), Duration::ZERO);
        assert!(alarms.set(20, now).is_some());
        assert!(alarms.set(10, now).is_some());
        assert_eq!(alarms.set(10, now), None);
        alarms.forget_last();
        assert!(alarms.set(15, now).is_some() && alarms.set(20, now).is_none());
        alarms.forget();
        assert!(alarms.set(20, now).is_some());
    }
}
