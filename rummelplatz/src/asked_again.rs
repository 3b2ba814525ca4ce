//! When to repeat the cancels of requests that are not over, but were not found by their last cancel.
//!
//! The kernel does not find a request that is on its way from one of its tables to the next. For example, if
//! a socket seems ready but is not, task work tries the request again and again, until it is left to a
//! worker. Nor does the kernel find a request that waits for those before it in a chain, or that a disk is at
//! work on. All but the last can be found after a while. So each cancel is repeated, after a pause that is
//! short at first.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::clock::nanoseconds;

/// See the [module documentation](self).
pub(crate) struct AskedAgain {
    /// Those that wait for the end of the pause.
    waiting: BTreeSet<u64>,
    /// Those that were cancelled again at the end of the last pause.
    last: BTreeSet<u64>,
    /// How long the next pause is.
    pause: Duration,
    /// When the pause ends, in nanoseconds of the kernel's clock, if any wait for that.
    end: Option<u64>,
}

impl AskedAgain {
    const SHORTEST: Duration = Duration::from_millis(1);
    /// So long that what can't be cancelled costs only a few system calls a second.
    const LONGEST: Duration = Duration::from_millis(512);

    pub(crate) fn new() -> AskedAgain {
        AskedAgain { waiting: BTreeSet::new(), last: BTreeSet::new(), pause: Self::SHORTEST, end: None }
    }

    /// A cancel has not found this request. Returns when the pause ends that begins with it; `None` if another
    /// pause ends by then.
    pub(crate) fn not_found(&mut self, user_data: u64, now: Duration) -> Option<u64> {
        self.waiting.insert(user_data);
        if !self.last.contains(&user_data) {
            // A new one need not wait as long as others that are never found.
            self.pause = Self::SHORTEST;
        }
        let end = nanoseconds(now + self.pause);
        let is_earlier = self.end.is_none_or(|next| next > end);
        is_earlier.then(|| *self.end.insert(end))
    }

    /// When the pause ends, if any wait for that.
    pub(crate) fn next(&self) -> Option<u64> {
        self.end
    }

    /// The requests to cancel now, if the pause has ended by this time.
    pub(crate) fn due(&mut self, until: u64) -> Vec<u64> {
        if self.end.take_if(|end| *end <= until).is_none() {
            return Vec::new();
        }
        // Some were found or have ended since: those of a chain do so one after the other.
        let any_less = !self.last.is_subset(&self.waiting);
        self.pause = if any_less { Self::SHORTEST } else { (self.pause * 2).min(Self::LONGEST) };
        self.last = std::mem::take(&mut self.waiting);
        self.last.iter().copied().collect()
    }

    /// Forgets the requests: none will be cancelled again.
    pub(crate) fn forget(&mut self) {
        self.waiting.clear();
        self.end = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    /// Notes that a request was not found. If a pause begins with it, returns how long that is.
    fn not_found(again: &mut AskedAgain, user_data: u64, now: Duration) -> Option<Duration> {
        again.not_found(user_data, now).map(|end| Duration::from_nanos(end) - now)
    }

    fn due(again: &mut AskedAgain, now: Duration) -> Vec<u64> {
        again.due(nanoseconds(now))
    }

    #[test]
    fn pauses_grow_for_what_is_never_found() {
        let (mut again, mut now) = (AskedAgain::new(), ms(3));
        for pause in [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 512].map(ms) {
            assert_eq!(not_found(&mut again, 7, now), Some(pause));
            assert_eq!(not_found(&mut again, 7, now), None, "once");
            now += pause;
            assert_eq!(due(&mut again, now - ms(1) / 2), [0; 0], "too early");
            assert_eq!(due(&mut again, now), [7]);
        }
        assert_eq!((due(&mut again, now), again.next()), (Vec::new(), None));
    }

    #[test]
    fn who_is_new_does_not_wait_for_the_end_of_a_long_pause() {
        let mut again = AskedAgain::new();
        let mut now = ms(0);
        for pause in [1, 2, 4, 8, 16].map(ms) {
            assert_eq!(not_found(&mut again, 7, now), Some(pause));
            now += pause;
            due(&mut again, now);
        }
        assert_eq!(not_found(&mut again, 7, now), Some(ms(32)));
        // A shorter pause serves both from here on.
        for pause in [1, 2, 4, 8, 16, 32].map(ms) {
            assert_eq!(not_found(&mut again, 8, now), Some(pause));
            assert_eq!(
                [7, 9].map(|number| not_found(&mut again, number, now)),
                [None; 2],
                "it ends with that"
            );
            now += pause;
            assert_eq!(due(&mut again, now), [7, 8, 9]);
        }
    }

    #[test]
    fn pauses_stay_short_while_there_are_less_and_less() {
        let (mut again, mut now) = (AskedAgain::new(), ms(0));
        for left in (0..100).rev() {
            let pauses: Vec<_> = (0..=left).filter_map(|number| not_found(&mut again, number, now)).collect();
            assert!(matches!(pauses[..], [pause] if pause <= ms(2)), "{pauses:?} for {left}");
            now += pauses[0];
            assert_eq!(due(&mut again, now).len() as u64, left + 1);
        }
    }

    #[test]
    fn what_is_forgotten_is_not_asked_for() {
        let mut again = AskedAgain::new();
        assert!(again.not_found(7, ms(0)).is_some());
        again.forget();
        assert_eq!(again.next(), None);
        assert!(again.not_found(8, ms(0)).is_some());
        assert_eq!(due(&mut again, ms(1)), [8]);
    }
}
