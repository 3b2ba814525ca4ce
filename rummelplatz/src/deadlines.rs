//! The deadlines of requests, which the ring keeps itself.
//!
//! A timer of the kernel for each request costs several times as much as a short request itself, and is nearly
//! always in vain. So one [alarm](crate::alarms) serves all requests. A request that is over in time leaves its
//! deadline behind; such deadlines are sorted out when they are most of those that are kept.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::time::Duration;

use crate::clock::nanoseconds;
use crate::mutant;
use crate::slab::Identity;

/// See the [module documentation](self). Times are those of the kernel's clock, in nanoseconds. `T` is what is kept
/// with each deadline.
pub(crate) struct Deadlines<T> {
    /// The earliest comes first.
    kept: BinaryHeap<Deadline<T>>,
}

struct Deadline<T> {
    when: u64,
    identity: Identity,
    with: T,
}

impl<T> Deadlines<T> {
    pub(crate) fn new() -> Self {
        Deadlines { kept: BinaryHeap::new() }
    }

    /// Keeps the deadline of a request that has this much time from now on, and something with it. Returns when it
    /// passes; `None` if that is never.
    pub(crate) fn keep_with(
        &mut self,
        identity: Identity,
        with: T,
        time: Duration,
        now: Duration,
    ) -> Option<u64> {
        let when = deadline(time, now)?;
        self.kept.push(Deadline { when, identity, with });
        Some(when)
    }

    /// The next request whose deadline has passed by this time.
    pub(crate) fn due(&mut self, until: u64) -> Option<(Identity, T)> {
        let is_due = self.kept.peek()?.when <= until;
        if is_due { self.kept.pop().map(|it| (it.identity, it.with)) } else { None }
    }

    /// When the next deadline passes. `is_there` says of a request whether it is not over.
    pub(crate) fn next(&mut self, mut is_there: impl FnMut(Identity) -> bool) -> Option<u64> {
        while let Some(Deadline { when, identity, .. }) = self.kept.peek() {
            if is_there(*identity) && !mutant::is("an alarm is the last") {
                return Some(*when);
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
}

impl Deadlines<()> {
    /// As [`keep_with`](Self::keep_with), with nothing.
    // Not generic, so it is compiled in this crate: a submit with a deadline is shorter if this is not a part of it.
    pub(crate) fn keep(&mut self, identity: Identity, time: Duration, now: Duration) -> Option<u64> {
        self.keep_with(identity, (), time, now)
    }
}

/// When this much time will have passed, or up to 1/128 of it later, so that the deadlines of many requests pass at
/// once. `None` if that is never.
fn deadline(time: Duration, now: Duration) -> Option<u64> {
    let time = u64::try_from(time.as_nanos()).ok()?;
    let when = nanoseconds(now).checked_add(time)?;
    let step = 1 << (time >> 7).checked_ilog2().unwrap_or(0);
    when.checked_next_multiple_of(step)
}

impl<T> Ord for Deadline<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        Reverse(self.when).cmp(&Reverse(other.when))
    }
}

impl<T> PartialOrd for Deadline<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Deadline<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<T> Eq for Deadline<T> {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alarms::Alarms;
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

    /// Deadlines, with the alarms that are set for them.
    struct Kept {
        deadlines: Deadlines<()>,
        alarms: Alarms,
    }

    impl Kept {
        fn new() -> Kept {
            Kept { deadlines: Deadlines::new(), alarms: Alarms::new() }
        }

        /// Keeps a deadline. If an alarm is set for it, returns the time until then.
        fn keep(&mut self, identity: Identity, time: Duration, now: Duration) -> Option<Duration> {
            let when = self.deadlines.keep(identity, time, now)?;
            self.alarms.set(when, now)
        }

        /// The requests whose time is up when an alarm goes off.
        fn due(&mut self, now: Duration) -> Vec<Identity> {
            let until = self.alarms.gone_off(-libc::ETIME, now).unwrap();
            std::iter::from_fn(|| self.deadlines.due(until)).map(|(identity, ())| identity).collect()
        }

        /// If another alarm must be set, returns the time until then.
        fn next_alarm(&mut self, now: Duration, is_there: impl FnMut(Identity) -> bool) -> Option<Duration> {
            let when = self.deadlines.next(is_there)?;
            self.alarms.set(when, now)
        }
    }

    #[test]
    fn one_alarm_is_set_for_all_and_another_for_what_is_earlier() {
        let [first, second, third] = identities();
        let mut kept = Kept::new();
        // Whole steps, which are not rounded.
        let time = |step: u64| Duration::from_nanos(step << 20);
        assert_eq!(kept.keep(first, time(64), time(0)), Some(time(64)));
        assert_eq!(kept.keep(second, time(64), time(16)), None);
        assert_eq!(kept.keep(third, time(32), time(16)), Some(time(32)));
        assert_eq!(kept.due(time(48)), [third]);
        assert_eq!(kept.next_alarm(time(48), |_| true), None, "it is set");
        assert_eq!(kept.due(time(64)), [first]);
        assert_eq!(kept.next_alarm(time(64), |_| true), Some(time(16)));
        assert_eq!(kept.due(time(80)), [second]);
        assert_eq!(kept.next_alarm(time(80), |_| true), None);
    }

    #[test]
    fn who_hears_late_of_an_alarm_ends_nothing_that_was_later_than_that() {
        let [first, second] = identities();
        let mut kept = Kept::new();
        assert!(kept.keep(first, ms(10), ms(0)).is_some());
        assert_eq!(kept.keep(second, ms(20), ms(0)), None);
        assert_eq!(kept.due(ms(100)), [first]);
        assert_eq!(kept.next_alarm(ms(100), |_| true), Some(ms(0)), "at once");
        assert_eq!(kept.due(ms(100)), [second]);
    }

    #[test]
    fn what_is_late_already_ends_at_once_and_all_together() {
        let all: [Identity; 10] = identities();
        let mut kept = Kept::new();
        for (identity, time) in std::iter::zip(all, (0..).map(|number| ms(10 + 10 * number))) {
            kept.keep(identity, time, ms(0));
        }
        // The ring was busy with other things for long.
        assert_eq!(kept.due(ms(1000)), all[..1]);
        assert_eq!(kept.next_alarm(ms(1000), |_| true), Some(ms(0)));
        assert_eq!(kept.due(ms(1001)), all[1..]);
        assert_eq!(kept.next_alarm(ms(1001), |_| true), None);
    }

    #[test]
    fn an_alarm_that_was_never_set_ends_nothing_early() {
        let [first] = identities();
        let mut kept = Kept::new();
        assert!(kept.keep(first, ms(10), ms(0)).is_some());
        assert_eq!(kept.due(ms(5)), []);
        assert!(kept.next_alarm(ms(5), |_| true).is_some(), "nobody knows whether there is another");
        assert_eq!(kept.due(ms(11)), [first]);
        assert_eq!(kept.due(ms(12)), []);
    }

    #[test]
    fn what_is_over_in_time_sets_no_alarm_and_is_forgotten() {
        let all: [Identity; 200] = identities();
        let mut kept = Kept::new();
        for identity in all {
            kept.keep(identity, ms(10), ms(0));
        }
        let is_there = |identity: Identity| identity == all[77];
        assert!(kept.deadlines.is_crowded(1) && !kept.deadlines.is_crowded(100));
        kept.deadlines.tidy(is_there);
        assert_eq!(kept.deadlines.kept.len(), 1);
        assert_eq!(kept.due(ms(11)), [all[77]]);
        kept.keep(all[3], ms(10), ms(20));
        assert_eq!(kept.due(ms(25)), []);
        assert_eq!(kept.next_alarm(ms(25), is_there), None);
        assert!(kept.deadlines.kept.is_empty());
    }

    #[test]
    fn a_deadline_is_at_most_a_128th_late_and_never_early() {
        let now = Duration::from_nanos(123_456_789_123_457);
        for exponent in 0..63 {
            for time in [1_u64 << exponent, (1 << exponent) + (1 << exponent >> 1), (2 << exponent) - 1] {
                let Some(when) = deadline(Duration::from_nanos(time), now) else { continue };
                let late = when - nanoseconds(now) - time;
                assert!(late <= time / 128, "{late} after {time}");
            }
        }
        assert_eq!(deadline(Duration::MAX, now), None);
        assert_eq!(deadline(Duration::from_nanos(u64::MAX), now), None);
        assert_eq!(deadline(Duration::ZERO, now), Some(nanoseconds(now)));
    }
}
