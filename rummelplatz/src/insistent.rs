//! Streams whose end or pause was asked for, but that go on: their end is asked for again, right after an enter.
//!
//! A cancel does not find a timer that has fired until task work has armed it again, and an enter submits first and
//! runs task work afterwards. So if the interval is shorter than a pass of the loop, only a cancel that comes right
//! after an enter can find the timer.

use std::collections::BTreeMap;

/// See the [module documentation](self).
pub(crate) struct Insistent {
    /// Those that may have gone on since their end was asked for. The value says whether that was asked for after the
    /// last enter: completions that come before the next one don't mean that the stream has gone on.
    streams: BTreeMap<u64, bool>,
}

impl Insistent {
    pub(crate) fn new() -> Insistent {
        Insistent { streams: BTreeMap::new() }
    }

    #[inline(always)]
    pub(crate) fn len(&self) -> usize {
        self.streams.len()
    }

    /// The end of a stream is asked for.
    pub(crate) fn ask(&mut self, user_data: u64) {
        self.streams.insert(user_data, true);
    }

    /// A stream has gone on although its end was asked for.
    pub(crate) fn goes_on(&mut self, user_data: u64) {
        self.streams.entry(user_data).or_insert(false);
    }

    /// A stream does not go on any more: what is armed under its name later is not asked to end.
    pub(crate) fn remove(&mut self, user_data: u64) {
        self.streams.remove(&user_data);
    }

    /// The kernel was entered. Returns the streams that went on before, although their end had been asked for before an
    /// earlier enter.
    pub(crate) fn due(&mut self) -> Vec<u64> {
        let streams = std::mem::take(&mut self.streams).into_iter();
        streams.filter(|(_, is_new)| !is_new).map(|(user_data, _)| user_data).collect()
    }

    /// Forgets the streams: the end of none is asked for again.
    pub(crate) fn forget(&mut self) {
        self.streams.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_asked_for_again_after_each_enter_before_which_the_stream_went_on() {
        let mut insistent = Insistent::new();
        insistent.ask(7);
        assert_eq!(insistent.due(), [0; 0], "it has not gone on");
        for _ in 0..3 {
            insistent.goes_on(7);
            insistent.goes_on(7);
            assert_eq!((insistent.len(), insistent.due()), (1, vec![7]));
        }
        assert_eq!(insistent.due(), [0; 0], "it has ended");
        insistent.goes_on(7);
        insistent.remove(7);
        assert_eq!(insistent.due(), [0; 0], "it was armed anew");
    }

    #[test]
    fn what_comes_before_the_kernel_knows_that_it_is_to_end_does_not_count() {
        let mut insistent = Insistent::new();
        insistent.ask(7);
        insistent.goes_on(7);
        insistent.goes_on(8);
        assert_eq!(insistent.due(), [8]);
        insistent.goes_on(7);
        insistent.forget();
        assert_eq!((insistent.len(), insistent.due()), (0, Vec::new()));
    }
}
