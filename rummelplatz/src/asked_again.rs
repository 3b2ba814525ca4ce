//! Requests that were not over but that their cancel has not found: when to cancel them again.
//!
//! The kernel does not find a request that is on its way from one of its tables to the next. For example, if
//! a socket seems ready but is not, task work tries the request again and again, until it is left to a
//! worker. Nor does the kernel find a request that waits for those before it in a chain, or that a disk is at
//! work on. All but the last can be found after a while. So each cancel is repeated, after a pause that is
//! short at first.

use std::collections::BTreeSet;
use std::time::Duration;

/// See the [module documentation](self).
pub(crate) struct AskedAgain {
    /// Those that wait for the end of a pause.
    waiting: BTreeSet<u64>,
    /// Those that were cancelled again at the end of the last pause.
    last: BTreeSet<u64>,
    /// How long the next pause is.
    pause: Duration,
    /// When the pauses end for which a timer is running. A pause is added only if it ends before all others,
    /// so the last one in the list is the first to end.
    ends: Vec<Duration>,
}

impl AskedAgain {
    const SHORTEST: Duration = Duration::from_millis(1);
    /// So long that what can't be cancelled costs only a few system calls a second.
    const LONGEST: Duration = Duration::from_millis(512);

    pub(crate) fn new() -> AskedAgain {
        AskedAgain {
            waiting: BTreeSet::new(),
            last: BTreeSet::new(),
            pause: Self::SHORTEST,
            ends: Vec::new(),
        }
    }

    /// A cancel has not found this request. Returns the length of the pause that begins with it; `None` if
    /// another pause ends by then.
    pub(crate) fn not_found(&mut self, user_data: u64, now: Duration) -> Option<Duration> {
        self.waiting.insert(user_data);
        if !self.last.contains(&user_data) {
            // A new one need not wait as long as others that are never found.
            self.pause = Self::SHORTEST;
        }
        self.ends.retain(|end| *end > now);
        let end = now + self.pause;
        let begins = self.ends.last().is_none_or(|next| *next > end);
        begins.then(|| {
            self.ends.push(end);
            self.pause
        })
    }

    /// A pause is over. Returns the requests to cancel now.
    pub(crate) fn end_of_pause(&mut self) -> Vec<u64> {
        if self.waiting.is_empty() {
            // Another pause, which ended just before, was for all of them.
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
    }

    /// Forgets the pauses: nobody attends to their end any more.
    pub(crate) fn forget_pauses(&mut self) {
        self.ends.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn pauses_grow_for_what_is_never_found() {
        let (mut again, mut now) = (AskedAgain::new(), ms(3));
        for pause in [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 512].map(ms) {
            assert_eq!(again.not_found(7, now), Some(pause));
            assert_eq!(again.not_found(7, now), None, "once");
            now += pause;
            assert_eq!(again.end_of_pause(), [7]);
        }
        assert!(again.end_of_pause().is_empty());
    }

    #[test]
    fn who_is_new_does_not_wait_for_the_end_of_a_long_pause() {
        let mut again = AskedAgain::new();
        let mut now = ms(0);
        for pause in [1, 2, 4, 8, 16].map(ms) {
            assert_eq!(again.not_found(7, now), Some(pause));
            now += pause;
            again.end_of_pause();
        }
        assert_eq!(again.not_found(7, now), Some(ms(32)));
        // The same pause serves both from here on, until it would end after that one.
        for pause in [1, 2, 4, 8].map(ms) {
            assert_eq!(again.not_found(8, now), Some(pause));
            assert_eq!([7, 9].map(|number| again.not_found(number, now)), [None; 2], "it ends with that");
            now += pause;
            assert_eq!(again.end_of_pause(), [7, 8, 9]);
        }
        assert_eq!(now, ms(31 + 15));
        assert_eq!([8, 7, 9].map(|number| again.not_found(number, now)), [Some(ms(16)), None, None]);
        now += ms(16);
        again.end_of_pause();
        assert_eq!(again.not_found(8, now), None, "that which began first ends before");
    }

    #[test]
    fn pauses_stay_short_while_there_are_less_and_less() {
        let (mut again, mut now) = (AskedAgain::new(), ms(0));
        for left in (0..100).rev() {
            let pauses: Vec<_> = (0..=left).filter_map(|number| again.not_found(number, now)).collect();
            assert!(matches!(pauses[..], [pause] if pause <= ms(2)), "{pauses:?} for {left}");
            now += pauses[0];
            assert_eq!(again.end_of_pause().len() as u64, left + 1);
        }
    }

    #[test]
    fn what_is_forgotten_is_not_asked_for() {
        let mut again = AskedAgain::new();
        assert!(again.not_found(7, ms(0)).is_some());
        again.forget();
        assert_eq!(again.not_found(8, ms(0)), None, "the pause goes on");
        assert_eq!(again.end_of_pause(), [8]);
        assert!(again.not_found(8, ms(1)).is_some());
        again.forget_pauses();
        assert!(again.not_found(8, ms(1)).is_some(), "nobody would see to it");
    }
}
