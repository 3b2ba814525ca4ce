//! The deadlines of requests: the ring keeps them, and has the kernel wake it when the earliest has passed.
//!
//! A timer of the kernel for each request costs five times as much as a short request itself, and is nearly
//! always in vain. So one alarm serves all requests. A request that is over in time leaves its deadline
//! behind; such deadlines are sorted out when they are most of those that are kept.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::time::Duration;

use crate::failures::{Failures, Refused};
use crate::mutant;
use crate::slab::Identity;

/// See the [module documentation](self). Times are those of the kernel's clock, in nanoseconds.
pub(crate) struct Deadlines {
    /// The earliest comes first.
    kept: BinaryHeap<Deadline>,
    /// When the alarms that the kernel has will go off. Each goes off before all that were set earlier.
    alarms: Vec<u64>,
    /// Those of alarms since one has gone off.
    failures: Failures,
}

struct Deadline {
    when: u64,
    identity: Identity,
}

impl Deadlines {
    pub(crate) fn new() -> Deadlines {
        Deadlines { kept: BinaryHeap::new(), alarms: Vec::new(), failures: Failures::new() }
    }

    /// Keeps the deadline of a request that has this much time from now on. Returns when it passes, unless
    /// there is an alarm by then.
    pub(crate) fn keep(&mut self, identity: Identity, time: Duration, now: Duration) -> Option<u64> {
        let when = deadline(time, now)?;
        self.kept.push(Deadline { when, identity });
        self.is_first(when).then_some(when)
    }

    /// Whether all alarms go off after this time.
    #[inline]
    fn is_first(&self, when: u64) -> bool {
        self.alarms.last().is_none_or(|alarm| *alarm > when)
    }

    /// Notes an alarm at this time, unless there is one by then. Returns the time until then.
    pub(crate) fn set_alarm(&mut self, when: u64, now: Duration) -> Option<Duration> {
        // If it is late, it ends all that is late by now, and not one deadline after the other.
        let when = when.max(nanoseconds(now));
        self.is_first(when).then(|| {
            self.alarms.push(when);
            Duration::from_nanos(when).saturating_sub(now)
        })
    }

    /// Notes that an alarm has gone off, with this result. Returns the time up to which deadlines count as
    /// passed: that of the alarm, not the present. Requests whose deadline has passed since then may have
    /// ended in time, with a completion that was not seen yet.
    ///
    /// # Errors
    ///
    /// If setting another alarm would be of no use.
    pub(crate) fn gone_off(&mut self, result: i32, now: Duration) -> Result<u64, Refused> {
        // A message of another ring can pretend that an alarm has gone off.
        let alarm = self.alarms.pop();
        match result.wrapping_neg() {
            libc::ETIME => self.failures.forget(),
            // A raw entry has cancelled everything.
            libc::ECANCELED => {}
            errno @ 1.. => self.failures.add(errno)?,
            _ => {}
        }
        let now = nanoseconds(now);
        Ok(alarm.map_or(now, |alarm| alarm.min(now)))
    }

    /// The next request whose deadline has passed by this time.
    pub(crate) fn due(&mut self, until: u64) -> Option<Identity> {
        let is_due = self.kept.peek()?.when <= until;
        if is_due { self.kept.pop().map(|it| it.identity) } else { None }
    }

    /// If another alarm must be set, returns the time until then. `is_there` says of a request whether it is
    /// not over.
    pub(crate) fn next_alarm(
        &mut self,
        now: Duration,
        mut is_there: impl FnMut(Identity) -> bool,
    ) -> Option<Duration> {
        while let Some(Deadline { when, identity }) = self.kept.peek() {
            if is_there(*identity) && !mutant::is("an alarm is the last") {
                let when = *when;
                return self.set_alarm(when, now);
            }
            self.kept.pop();
        }
        None
    }

    /// Whether most deadlines are those of requests that are over, when this many requests are in flight.
    pub(crate) fn is_crowded(&self, in_flight: usize) -> bool {
        self.kept.len() > 2 * in_flight + 64
    }

    /// Forgets the deadlines of requests that are over.
    pub(crate) fn tidy(&mut self, mut is_there: impl FnMut(Identity) -> bool) {
        self.kept.retain(|it| is_there(it.identity));
    }

    /// Forgets all deadlines.
    pub(crate) fn forget(&mut self) {
        self.kept.clear();
    }

    /// Forgets the last alarm: the kernel will not hear of it.
    pub(crate) fn forget_alarm(&mut self) {
        self.alarms.pop();
    }

    /// Forgets all alarms: some have gone off unheard.
    pub(crate) fn forget_alarms(&mut self) {
        self.alarms.clear();
    }
}

/// When this much time will have passed, or up to a hundredth of it later, so that the deadlines of many
/// requests pass at once. `None` if that is never.
fn deadline(time: Duration, now: Duration) -> Option<u64> {
    let time = u64::try_from(time.as_nanos()).ok()?;
    let when = nanoseconds(now).checked_add(time)?;
    let step = 1 << (time >> 7).checked_ilog2().unwrap_or(0);
    when.checked_next_multiple_of(step)
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Ord for Deadline {
    fn cmp(&self, other: &Self) -> Ordering {
        Reverse(self.when).cmp(&Reverse(other.when))
    }
}

impl PartialOrd for Deadline {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Deadline {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Deadline {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slab::{Meta, Remember, Slab};

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[derive(Clone, Copy)]
    struct Nothing;

    impl Meta for Nothing {
        type Brief = ();
        fn of_plain((): ()) -> Self {
            Nothing
        }
        fn is_calm(&self) -> bool {
            false
        }
    }

    /// This many requests.
    fn identities<const N: usize>() -> [Identity; N] {
        let mut slab = Slab::<(), Nothing>::new(1);
        slab.set_limit(N as u32);
        std::array::from_fn(|_| {
            slab.reserve().unwrap();
            slab.insert_with((), |()| (Remember::Plain(()), ())).0
        })
    }

    /// Keeps a deadline. If an alarm is set for it, returns the time until then.
    fn keep(
        deadlines: &mut Deadlines,
        identity: Identity,
        time: Duration,
        now: Duration,
    ) -> Option<Duration> {
        let when = deadlines.keep(identity, time, now)?;
        deadlines.set_alarm(when, now)
    }

    /// The requests whose time is up when an alarm goes off.
    fn due(deadlines: &mut Deadlines, now: Duration) -> Vec<Identity> {
        let until = deadlines.gone_off(-libc::ETIME, now).unwrap();
        std::iter::from_fn(|| deadlines.due(until)).collect()
    }

    #[test]
    fn one_alarm_is_set_for_all_and_another_for_what_is_earlier() {
        let [first, second, third] = identities();
        let mut deadlines = Deadlines::new();
        // Whole steps, which are not rounded.
        let time = |step: u64| Duration::from_nanos(step << 20);
        assert_eq!(keep(&mut deadlines, first, time(64), time(0)), Some(time(64)));
        assert_eq!(keep(&mut deadlines, second, time(64), time(16)), None);
        assert_eq!(keep(&mut deadlines, third, time(32), time(16)), Some(time(32)));
        assert_eq!(due(&mut deadlines, time(48)), [third]);
        assert_eq!(deadlines.next_alarm(time(48), |_| true), None, "it is set");
        assert_eq!(due(&mut deadlines, time(64)), [first]);
        assert_eq!(deadlines.next_alarm(time(64), |_| true), Some(time(16)));
        assert_eq!(due(&mut deadlines, time(80)), [second]);
        assert_eq!(deadlines.next_alarm(time(80), |_| true), None);
    }

    #[test]
    fn who_hears_late_of_an_alarm_ends_nothing_that_was_later_than_that() {
        let [first, second] = identities();
        let mut deadlines = Deadlines::new();
        assert!(keep(&mut deadlines, first, ms(10), ms(0)).is_some());
        assert_eq!(keep(&mut deadlines, second, ms(20), ms(0)), None);
        assert_eq!(due(&mut deadlines, ms(100)), [first]);
        assert_eq!(deadlines.next_alarm(ms(100), |_| true), Some(ms(0)), "at once");
        assert_eq!(due(&mut deadlines, ms(100)), [second]);
    }

    #[test]
    fn what_is_late_already_ends_at_once_and_all_together() {
        let all: [Identity; 10] = identities();
        let mut deadlines = Deadlines::new();
        for (identity, time) in std::iter::zip(all, (0..).map(|number| ms(10 + 10 * number))) {
            keep(&mut deadlines, identity, time, ms(0));
        }
        // The ring was busy with other things for long.
        assert_eq!(due(&mut deadlines, ms(1000)), all[..1]);
        assert_eq!(deadlines.next_alarm(ms(1000), |_| true), Some(ms(0)));
        assert_eq!(due(&mut deadlines, ms(1001)), all[1..]);
        assert_eq!(deadlines.next_alarm(ms(1001), |_| true), None);
    }

    #[test]
    fn alarms_that_fail_again_and_again_are_given_up() {
        let [first] = identities();
        let mut deadlines = Deadlines::new();
        for run in 0..3 {
            let now = ms(run);
            assert!(keep(&mut deadlines, first, ms(10), now).is_some());
            for failed in 0..7 {
                let result = if failed == 5 { -libc::ECANCELED } else { -libc::EACCES };
                assert_eq!(deadlines.gone_off(result, now), Ok(nanoseconds(now)));
                assert!(deadlines.next_alarm(now, |_| true).is_some(), "another is set");
            }
            assert!(deadlines.gone_off(-libc::EACCES, now).is_ok());
            assert_eq!(deadlines.gone_off(-libc::EACCES, now), Err(Refused(libc::EACCES)));
            deadlines.forget();
        }
        for _ in 0..100 {
            assert!(deadlines.gone_off(-libc::EACCES, ms(1)).is_ok());
            assert!(deadlines.gone_off(-libc::ETIME, ms(1)).is_ok(), "it is well again");
        }
    }

    #[test]
    fn an_alarm_that_was_never_set_ends_nothing_early() {
        let [first] = identities();
        let mut deadlines = Deadlines::new();
        assert!(keep(&mut deadlines, first, ms(10), ms(0)).is_some());
        assert_eq!(due(&mut deadlines, ms(5)), []);
        assert!(deadlines.next_alarm(ms(5), |_| true).is_some(), "nobody knows whether there is another");
        assert_eq!(due(&mut deadlines, ms(11)), [first]);
        assert_eq!(due(&mut deadlines, ms(12)), []);
    }

    #[test]
    fn what_is_over_in_time_sets_no_alarm_and_is_forgotten() {
        let all: [Identity; 200] = identities();
        let mut deadlines = Deadlines::new();
        for identity in all {
            keep(&mut deadlines, identity, ms(10), ms(0));
        }
        let is_there = |identity: Identity| identity == all[77];
        assert!(deadlines.is_crowded(1) && !deadlines.is_crowded(100));
        deadlines.tidy(is_there);
        assert_eq!(deadlines.kept.len(), 1);
        assert_eq!(due(&mut deadlines, ms(11)), [all[77]]);
        keep(&mut deadlines, all[3], ms(10), ms(20));
        assert_eq!(deadlines.gone_off(-libc::ETIME, ms(25)), Ok(nanoseconds(ms(25))));
        assert_eq!(deadlines.next_alarm(ms(25), is_there), None);
        assert!(deadlines.kept.is_empty());
    }

    #[test]
    fn a_deadline_is_at_most_a_hundredth_late_and_never_early() {
        let now = Duration::from_nanos(123_456_789_123_457);
        for exponent in 0..63 {
            for time in [1_u64 << exponent, (1 << exponent) + (1 << exponent >> 1), (2 << exponent) - 1] {
                let Some(when) = deadline(Duration::from_nanos(time), now) else { continue };
                let late = when - nanoseconds(now) - time;
                assert!(late <= time / 100, "{late} after {time}");
            }
        }
        assert_eq!(deadline(Duration::MAX, now), None);
        assert_eq!(deadline(Duration::from_nanos(u64::MAX), now), None);
        assert_eq!(deadline(Duration::ZERO, now), Some(nanoseconds(now)));
    }
}
