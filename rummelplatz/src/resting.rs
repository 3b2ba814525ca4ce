//! Streams of connections that rest after an error: when each goes on.

use std::collections::BTreeSet;

/// See the [module documentation](self). Times are those of the kernel's clock, in nanoseconds.
pub(crate) struct Resting {
    /// The time, and the `user_data` of the stream.
    streams: BTreeSet<(u64, u64)>,
}

impl Resting {
    pub(crate) fn new() -> Resting {
        Resting { streams: BTreeSet::new() }
    }

    /// Notes that a stream goes on at this time.
    pub(crate) fn add(&mut self, user_data: u64, when: u64) {
        self.streams.insert((when, user_data));
    }

    /// Forgets a stream that was cancelled: otherwise, those of long rests would pile up. (All are looked at: there is
    /// hardly more than one for each port.)
    pub(crate) fn remove(&mut self, user_data: u64) {
        self.streams.retain(|(_, stream)| *stream != user_data);
    }

    /// When the next stream goes on, if any rests.
    pub(crate) fn next(&self) -> Option<u64> {
        self.streams.first().map(|(when, _)| *when)
    }

    /// Takes out one of the streams that go on by this time.
    pub(crate) fn due(&mut self, until: u64) -> Option<u64> {
        self.next().filter(|when| *when <= until)?;
        self.streams.pop_first().map(|(_, user_data)| user_data)
    }

    /// Forgets all: none will go on.
    pub(crate) fn forget(&mut self) {
        self.streams.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_go_on_in_the_order_of_their_times() {
        let mut resting = Resting::new();
        assert_eq!((resting.next(), resting.due(u64::MAX)), (None, None));
        for (user_data, when) in [(7, 30), (8, 10), (9, 20), (6, 10)] {
            resting.add(user_data, when);
        }
        assert_eq!(resting.next(), Some(10));
        assert_eq!(resting.due(9), None);
        let due: Vec<_> = std::iter::from_fn(|| resting.due(20)).collect();
        assert_eq!((due, resting.next()), (vec![6, 8, 9], Some(30)));
        resting.add(5, 25);
        resting.remove(5);
        assert_eq!(resting.next(), Some(30));
        resting.forget();
        assert_eq!(resting.next(), None);
    }
}
