//! Requests whose cancel has found nothing though they were not over: when they are to be asked for again.
//!
//! The kernel does not find a request that is on its way from one of its tables to the next: as that of a socket that
//! seems ready but is not, which is tried again and again by task work until it is left to a worker; nor one that waits
//! for those before it in a chain, or that a disk is at work on. All but the last can be found after a while. So each
//! cancel is repeated, after a pause that is short at first.

use std::collections::BTreeSet;
use std::time::Duration;

/// See the [module documentation](self).
pub(crate) struct AskedAgain {
    /// Those that wait for the end of the pause.
    waiting: BTreeSet<u64>,
    /// Those that were asked for at the end of the last pause.
    last: BTreeSet<u64>,
    pause: Duration,
    /// Somebody sees to it that the pause ends.
    is_pausing: bool,
}

impl AskedAgain {
    const SHORTEST: Duration = Duration::from_millis(1);
    /// What can't be cancelled costs a few system calls a second.
    const LONGEST: Duration = Duration::from_millis(512);

    pub(crate) fn new() -> AskedAgain {
        AskedAgain {
            waiting: BTreeSet::new(),
            last: BTreeSet::new(),
            pause: Self::SHORTEST,
            is_pausing: false,
        }
    }

    /// A cancel has not found this request. Returns how long the pause is that begins with it, if one does.
    pub(crate) fn not_found(&mut self, user_data: u64) -> Option<Duration> {
        self.waiting.insert(user_data);
        if !self.last.contains(&user_data) {
            self.pause = Self::SHORTEST;
        }
        (!std::mem::replace(&mut self.is_pausing, true)).then_some(self.pause)
    }

    /// The pause is over: what is to be asked for now.
    pub(crate) fn end_of_pause(&mut self) -> Vec<u64> {
        self.is_pausing = false;
        self.pause = (self.pause * 2).min(Self::LONGEST);
        self.last = std::mem::take(&mut self.waiting);
        self.last.iter().copied().collect()
    }

    /// Nobody is asked for any more; a pause ends as it would.
    pub(crate) fn forget(&mut self) {
        self.waiting.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn milliseconds(pause: Option<Duration>) -> Option<u128> {
        pause.map(|pause| pause.as_millis())
    }

    #[test]
    fn pauses_grow_for_what_is_never_found() {
        let mut again = AskedAgain::new();
        for pause in [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 512] {
            assert_eq!(milliseconds(again.not_found(7)), Some(pause));
            assert_eq!(again.not_found(7), None, "once");
            assert_eq!(again.end_of_pause(), [7]);
        }
        assert_eq!(milliseconds(again.not_found(8)), Some(1), "that is another one");
        assert_eq!(again.not_found(7), None);
        assert_eq!(again.end_of_pause(), [7, 8]);
        assert!(again.end_of_pause().is_empty());
    }

    #[test]
    fn what_is_forgotten_is_not_asked_for() {
        let mut again = AskedAgain::new();
        assert!(again.not_found(7).is_some());
        again.forget();
        assert_eq!(again.not_found(8), None, "the pause goes on");
        assert_eq!(again.end_of_pause(), [8]);
    }
}
