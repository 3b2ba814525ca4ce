//! Completions that the ring makes itself and the kernel does not post: messages, and requests that end
//! without the kernel.

use std::collections::{HashSet, VecDeque};

use crate::mutant;
use crate::queue::Cqe;

/// See the [module documentation](self).
///
/// They are delivered in batches. A batch is what was due when it began, and after each batch comes one
/// completion of the kernel's, if there is one. So operations that post to each other do not keep the
/// kernel's completions waiting.
pub(crate) struct Own {
    due: VecDeque<Cqe>,
    /// Messages that are due when there is nothing else to deliver.
    last: VecDeque<u64>,
    /// How often the kernel had been entered when messages of `last` were last made due. That is done once
    /// per enter at most, so that such messages do not keep the kernel waiting.
    hastened_at: u64,
    /// How many there are in `due` and `last`: counted separately, because the loop asks for it before each
    /// wait.
    waiting: usize,
    /// How many of the present batch are still to be delivered.
    batch_left: usize,
    /// One was delivered, and the kernel's next completion was not asked for since: no batch begins before it
    /// is.
    kernel_is_next: bool,
    /// How many were delivered; wraps.
    seen: u32,
}

impl Own {
    pub(crate) fn new() -> Own {
        Own {
            due: VecDeque::new(),
            last: VecDeque::new(),
            hastened_at: u64::MAX,
            waiting: 0,
            batch_left: 0,
            kernel_is_next: false,
            seen: 0,
        }
    }

    /// Queues a completion for delivery.
    pub(crate) fn push(&mut self, user_data: u64, result: i32) {
        self.due.push_back(Cqe { user_data, result, flags: 0 });
        self.waiting += 1;
    }

    /// Queues a message, for delivery when there is nothing else to deliver.
    pub(crate) fn push_last(&mut self, user_data: u64) {
        self.last.push_back(user_data);
        self.waiting += 1;
    }

    /// Makes the messages of `last` due, if there are any and the kernel was entered since this was last
    /// done; `enters` says how often it has been entered. Returns whether it did so.
    pub(crate) fn hasten_last(&mut self, enters: u64) -> bool {
        if self.last.is_empty() || self.hastened_at == enters {
            return false;
        }
        self.hastened_at = enters;
        self.hasten_all();
        true
    }

    /// Makes the messages of `last` due, like all others.
    pub(crate) fn hasten_all(&mut self) {
        self.due.extend(self.last.drain(..).map(|user_data| Cqe { user_data, result: 0, flags: 0 }));
    }

    /// The next one; `None` if the kernel's next completion comes first, or there is none.
    pub(crate) fn next(&mut self) -> Option<Cqe> {
        if self.batch_left == 0 && !self.kernel_is_next {
            self.batch_left = if mutant::is("one of what is due") { 1 } else { self.due.len() };
        }
        let next = match self.batch_left.checked_sub(1) {
            Some(rest) => self.due.pop_front().inspect(|_| self.batch_left = rest),
            None => None,
        };
        self.kernel_is_next = next.is_some();
        if next.is_some() {
            self.waiting -= 1;
            self.seen = self.seen.wrapping_add(1);
        }
        next
    }

    /// Notes that the kernel's next completion is being asked for.
    #[inline(always)]
    pub(crate) fn pass_to_kernel(&mut self) {
        self.kernel_is_next = false;
    }

    /// Whether any is to be delivered, other than those that come last.
    #[inline(always)]
    pub(crate) fn is_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// How many are to be delivered, other than those that come last.
    pub(crate) fn due(&self) -> usize {
        self.due.len()
    }

    /// The requests that these completions end, by `user_data`.
    pub(crate) fn ending(&self) -> HashSet<u64> {
        self.due.iter().map(|cqe| cqe.user_data).collect()
    }

    /// How many wait, in all.
    #[inline(always)]
    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    /// How many were delivered; wraps.
    #[inline(always)]
    pub(crate) fn seen(&self) -> u32 {
        self.seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(own: &mut Own) -> Option<u64> {
        own.next().map(|cqe| cqe.user_data)
    }

    #[test]
    fn after_each_batch_comes_one_of_the_kernels() {
        let mut own = Own::new();
        (1..=2).for_each(|number| own.push(number, 0));
        assert_eq!((next(&mut own), own.waiting(), own.seen()), (Some(1), 1, 1));
        own.push(3, 0);
        assert_eq!(next(&mut own), Some(2), "which is of the batch still");
        assert_eq!(next(&mut own), None, "the batch is over: now it is the kernel's turn");
        assert_eq!((next(&mut own), next(&mut own)), (Some(3), None));
        assert_eq!((own.waiting(), own.seen(), own.is_due()), (0, 3, false));
    }

    #[test]
    fn what_comes_last_is_due_once_for_each_enter() {
        let mut own = Own::new();
        assert!(!own.hasten_last(1), "there is none");
        own.push_last(1);
        assert_eq!((own.waiting(), own.due(), next(&mut own)), (1, 0, None));
        assert!(own.hasten_last(1));
        assert_eq!((own.waiting(), own.due(), next(&mut own)), (1, 1, Some(1)));
        own.push_last(2);
        assert!(!own.hasten_last(1) && own.hasten_last(2));
        own.push_last(3);
        own.hasten_all();
        assert_eq!(own.ending(), HashSet::from([2, 3]));
        assert_eq!((own.waiting(), own.due()), (2, 2));
    }
}
