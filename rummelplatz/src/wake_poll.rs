//! The poll by which a ring notices that another thread wakes it: whether the kernel has it, and what its
//! completions say.

use io_uring::cqueue;

use crate::failures::{Failures, Refused};
use crate::queue::Cqe;

/// See the [module documentation](self).
pub(crate) struct WakePoll {
    /// While the poll is armed: how often the ring had entered the kernel when that was done.
    armed: Option<u64>,
    /// It is a multishot poll (since 5.13), which need not be armed again after each wake-up.
    is_multishot: bool,
    /// Those that came soon after it was armed.
    failures: Failures,
}

impl WakePoll {
    /// A failure is soon if it comes within this many enters.
    const SOON: u64 = 16;

    pub(crate) fn new() -> WakePoll {
        WakePoll { armed: None, is_multishot: true, failures: Failures::new() }
    }

    /// Notes that the poll is armed from now on. Returns whether it is to be a multishot poll; `None` if it
    /// was armed already.
    pub(crate) fn arm(&mut self, enters: u64) -> Option<bool> {
        if self.armed.is_some() {
            return None;
        }
        self.armed = Some(enters);
        Some(self.is_multishot)
    }

    /// Notes that completions of the poll may be lost. Returns whether it was armed, so that it must be armed
    /// again.
    pub(crate) fn forget(&mut self) -> bool {
        self.armed.take().is_some()
    }

    /// Notes a completion of the poll. Returns whether it must be armed again.
    ///
    /// # Errors
    ///
    /// If arming it again would be of no use.
    pub(crate) fn complete(&mut self, cqe: &Cqe, enters: u64) -> Result<bool, Refused> {
        if cqueue::more(cqe.flags) {
            self.failures.forget();
            return Ok(false);
        }
        let armed = self.armed.take().unwrap_or(enters);
        match cqe.result.wrapping_neg() {
            // A raw entry has cancelled everything.
            libc::ECANCELED => {}
            errno @ 1.. => {
                if enters.wrapping_sub(armed) > Self::SOON {
                    self.failures.forget();
                }
                self.is_multishot &= errno != libc::EINVAL;
                self.failures.add(errno)?;
            }
            _ => self.failures.forget(),
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const F_MORE: u32 = 1 << 1;

    fn posted(result: i32, flags: u32) -> Cqe {
        Cqe { user_data: 0, result, flags }
    }

    #[test]
    fn a_poll_is_armed_once_until_it_is_over() {
        let mut poll = WakePoll::new();
        assert_eq!((poll.arm(1), poll.arm(2)), (Some(true), None));
        assert_eq!(poll.complete(&posted(1, F_MORE), 3), Ok(false));
        assert_eq!(poll.arm(3), None);
        assert_eq!(poll.complete(&posted(1, 0), 4), Ok(true), "the queue was full");
        assert_eq!(poll.arm(4), Some(true));
        assert_eq!(poll.complete(&posted(-libc::ECANCELED, 0), 5), Ok(true));
    }

    #[test]
    fn a_kernel_without_multishot_polls_gets_others() {
        let mut poll = WakePoll::new();
        poll.arm(1);
        assert_eq!(poll.complete(&posted(-libc::EINVAL, 0), 2), Ok(true));
        for enters in 2..100 {
            assert_eq!(poll.arm(enters), Some(false));
            assert_eq!(poll.complete(&posted(1, 0), enters + 1), Ok(true));
        }
    }

    #[test]
    fn a_poll_that_fails_again_and_again_is_given_up() {
        let fails = posted(-libc::EBADF, 0);
        let mut poll = WakePoll::new();
        for _ in 0..3 {
            for enters in 1..8 {
                poll.arm(enters);
                assert_eq!(poll.complete(&fails, enters + 1), Ok(true));
            }
            poll.arm(9);
            assert_eq!(poll.complete(&posted(1, F_MORE), 10), Ok(false), "it is well again");
        }
        for run in 1..4 {
            for enters in run * 100..run * 100 + 7 {
                poll.arm(enters);
                assert_eq!(poll.complete(&fails, enters + 1), Ok(true));
            }
            assert_eq!(poll.complete(&fails, run * 100 + 8), Err(Refused(libc::EBADF)), "in run {run}");
        }
    }

    #[test]
    fn failures_long_after_a_poll_was_armed_are_somebodys_invention() {
        let mut poll = WakePoll::new();
        for round in 0..100 {
            poll.arm(round * 100);
            assert_eq!(poll.complete(&posted(-1, 0), round * 100 + 50), Ok(true));
        }
    }
}
