//! Entries that found the submission queue full, in order.

use std::collections::VecDeque;

use crate::request::Placed;

/// Entries that wait for room; chains among them are never torn apart.
pub(crate) struct Backlog {
    waiting: VecDeque<Waiting>,
    /// How many of these are requests; the ring's own entries don't count against the limit.
    requests: usize,
    limit: Option<usize>,
}

struct Waiting {
    placed: Placed,
    /// The next entry belongs to the same chain.
    chained: bool,
    control: bool,
}

impl Backlog {
    pub(crate) fn new(limit: Option<usize>) -> Backlog {
        Backlog { waiting: VecDeque::new(), requests: 0, limit }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn requests(&self) -> usize {
        self.requests
    }

    /// Whether `count` more requests may wait.
    pub(crate) fn admits(&self, count: usize) -> bool {
        self.limit.is_none_or(|limit| self.requests + count <= limit)
    }

    pub(crate) fn push(&mut self, placed: Placed, chained: bool) {
        self.requests += 1;
        self.waiting.push_back(Waiting { placed, chained, control: false });
    }

    pub(crate) fn push_control(&mut self, placed: Placed, chained: bool) {
        self.waiting.push_back(Waiting { placed, chained, control: true });
    }

    /// How many entries must be queued together next.
    pub(crate) fn first_chain(&self) -> Option<usize> {
        let links = self.waiting.iter().take_while(|waiting| waiting.chained).count();
        (links < self.waiting.len()).then_some(links + 1)
    }

    pub(crate) fn pop(&mut self) -> Option<Placed> {
        let Waiting { placed, control, .. } = self.waiting.pop_front()?;
        self.requests -= usize::from(!control);
        Some(placed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use io_uring::opcode;

    fn entry(user_data: u64) -> Placed {
        Placed::control(opcode::Nop::new().build(), user_data)
    }

    #[test]
    fn keeps_the_order() {
        let mut backlog = Backlog::new(None);
        (1..=3).for_each(|number| backlog.push(entry(number), false));
        let order: Vec<_> = std::iter::from_fn(|| backlog.pop()).map(|it| it.user_data()).collect();
        assert_eq!(order, [1, 2, 3]);
        assert!(backlog.is_empty());
    }

    #[test]
    fn chains_are_counted_whole() {
        let mut backlog = Backlog::new(None);
        assert_eq!(backlog.first_chain(), None);
        for (number, chained) in [(1, true), (2, true), (3, false), (4, false)] {
            backlog.push(entry(number), chained);
        }
        assert_eq!(backlog.first_chain(), Some(3));
        (0..3).for_each(|_| drop(backlog.pop()));
        assert_eq!(backlog.first_chain(), Some(1));
    }

    #[test]
    fn the_limit_is_for_requests() {
        let mut backlog = Backlog::new(Some(2));
        assert!(backlog.admits(2) && !backlog.admits(3));
        backlog.push(entry(1), false);
        backlog.push_control(entry(2), false);
        assert!(backlog.admits(1) && !backlog.admits(2));
        assert_eq!((backlog.len(), backlog.requests()), (2, 1));
        drop(backlog.pop());
        drop(backlog.pop());
        assert_eq!(backlog.requests(), 0);
        assert!(!Backlog::new(Some(0)).admits(1));
    }
}
