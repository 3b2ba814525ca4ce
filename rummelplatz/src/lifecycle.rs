//! Where a ring is in its life, and how it is torn down: pure, no kernel, no clock.
//!
//! ```text
//!  Idle ──begin──▶ SettingUp ──ok──▶ Running ──Exit──▶ Cancelling ──▶ Draining ──in flight = 0──▶ Finished
//!                     │ setup error     │ error,              │ ▲                                    │
//!                     └─────────────────┴────────────────────▶┘ └ a new wave of cancels      begin ◀─┘
//!  deadline passed, or the ring is unusable ─────────────────────────────────────────────────▶ Abandoned
//! ```
//!
//! # How a ring is emptied
//!
//! One cancel is not enough, and the answers to cancels prove nothing: only each request's own final
//! completion counts. So:
//!
//! 1. The submission queue is emptied first: an entry in it can't be cancelled, and a link at its end
//!    would swallow the cancel.
//! 2. A *wave* sends a cancel for each live request, by its own `user_data`. (`ANY` is quadratic.) It goes out
//!    in parts, each of which waits for what the one before it has ended, and in the order in which the kernel
//!    looks for requests, so that what it looks for is near the front ([`wave`](crate::wave)).
//! 3. The ring waits for completions, a few milliseconds at a time.
//! 4. A new wave goes out only under three conditions: the answers to the last one are all in; **and**
//!    something moved since (a tracked request had a completion, final or not, or a wait was quiet); **and**
//!    no request has ended since the last look. Without the first, cancels pile up faster than they are
//!    answered. Without the second, the ring spins on its own cancels. Without the third, the teardown of
//!    many requests is quadratic: their ends come a few at a time (20 per enter on Linux 6.18), and all the
//!    others would be cancelled again each time.
//! 5. When nothing is in flight, the ring still waits for the answers to its own cancels.
//!
//! Requests submitted by teardown handlers are *late*. They are left alone until the grace period is over, or
//! half of the time until the deadline.
//! From then on waves include them, and nothing more is accepted, so a handler that always submits can't keep
//! the ring alive.
//!
//! A deadline, if there is one, ends all this: what is still in flight is abandoned, which means that
//! its memory is leaked.

use std::time::Duration;

use crate::mutant;

/// See the [module documentation](self).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    /// Built, never run.
    Idle,
    /// `setup` of the operations is being called.
    SettingUp,
    /// Completions are dispatched to `on_completion`.
    Running,
    /// Being torn down, and cancels are going out.
    Cancelling,
    /// Being torn down; everything that can be cancelled for now has been.
    Draining,
    /// Nothing is in flight.
    Finished,
    /// Something stays in flight for ever.
    Abandoned,
}

impl Phase {
    /// Whether completions go to `on_teardown_completion`.
    #[inline]
    pub(crate) fn is_teardown(self) -> bool {
        matches!(self, Phase::Cancelling | Phase::Draining)
    }

    /// Whether a run may begin.
    pub(crate) fn may_begin(self) -> bool {
        matches!(self, Phase::Idle | Phase::Finished)
    }
}

/// How long a teardown may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Limits {
    /// How long requests submitted by teardown handlers may go on before they are cancelled.
    pub(crate) grace: Duration,
    /// How long the teardown may take before the rest is abandoned.
    pub(crate) deadline: Option<Duration>,
}

/// What the ring looks like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct View {
    /// Since the teardown began.
    pub(crate) elapsed: Duration,
    /// Entries that the kernel has not taken in yet, in the submission queue or in the backlog.
    pub(crate) queued: usize,
    pub(crate) in_flight: usize,
    /// How many of those in flight have ended except for a timer.
    pub(crate) half_ended: usize,
    /// How many of those in flight were submitted since the teardown began.
    pub(crate) late: usize,
    /// Cancels that were sent and not answered.
    pub(crate) cancels: usize,
    /// Some of the last wave was not sent yet.
    pub(crate) is_wave_left: bool,
}

/// What to do next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// Enter until the kernel has taken in all entries.
    Flush,
    /// Send the next part of a wave and flush it. A wave has a cancel for each live request; for late ones only if
    /// `late` is set.
    Wave { late: bool },
    /// See what has completed, without waiting: more may be on the way.
    Look,
    /// Wait for completions, but not longer than this.
    Wait(Duration),
    /// Nothing is in flight.
    Finish,
    /// Leak what is in flight.
    Abandon,
}

/// What has happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Event {
    /// A completion of a tracked request, final or not.
    Tracked,
    /// A wait ended without any completion.
    Quiet,
}

/// The progress of one teardown.
#[derive(Clone, Debug)]
pub(crate) struct Teardown {
    limits: Limits,
    /// Something moved since the last wave; at the beginning, everything has.
    moved: bool,
    /// How many requests had not ended at the last step; one that waits only for its timer counts as ended.
    left: usize,
    /// Late requests have been included in a wave.
    grace_over: bool,
    /// How long the next wait may be: grows while nothing moves.
    patience: Duration,
}

impl Teardown {
    /// The first wait: long enough for task work, short enough not to be felt.
    const SHORT: Duration = Duration::from_millis(10);
    /// The longest wait: a wave after a quiet wait costs a system call and a cancel per request, so a request
    /// that can't be cancelled costs some 25 calls a second.
    const LONG: Duration = Duration::from_millis(80);

    pub(crate) fn new(mut limits: Limits) -> Teardown {
        if let Some(deadline) = limits.deadline {
            // Time is left to cancel what is late.
            limits.grace = limits.grace.min(deadline / 2);
        }
        Teardown { limits, moved: true, left: 0, grace_over: false, patience: Self::SHORT }
    }

    /// Whether handlers may still submit.
    pub(crate) fn accepts(&self) -> bool {
        !self.grace_over
    }

    pub(crate) fn observe(&mut self, event: Event) {
        self.moved = !mutant::is("one wave");
        self.patience = match event {
            Event::Tracked => Self::SHORT,
            Event::Quiet => (self.patience * 2).min(Self::LONG),
        };
    }

    /// Decides the next step.
    pub(crate) fn step(&mut self, view: View) -> Step {
        let View { elapsed, queued, in_flight, half_ended, late, cancels, is_wave_left } = view;
        let left = in_flight - half_ended.min(in_flight);
        let ended = left < std::mem::replace(&mut self.left, left);
        if self.limits.deadline.is_some_and(|deadline| elapsed >= deadline) {
            // Cancels own no memory: they alone are no reason to leak.
            return if in_flight == 0 { Step::Finish } else { Step::Abandon };
        }
        // The mutants below take a request for over once its cancel is answered.
        let all_answered = cancels == 0 && queued == 0;
        let is_no_barrier = mutant::is("the answers count") || mutant::is("a drain is a barrier");
        if all_answered && (in_flight == 0 || is_no_barrier && !self.moved) {
            return Step::Finish;
        }
        if !self.grace_over && elapsed >= self.limits.grace {
            self.grace_over = true;
            self.moved |= late > 0;
        }
        if queued > 0 {
            return Step::Flush;
        }
        let targets = if self.grace_over { in_flight } else { in_flight - late.min(in_flight) };
        let answered = cancels == 0 || mutant::is("waves without bound");
        if targets > 0 && answered && (is_wave_left || self.moved) {
            if ended && !mutant::is("waves without bound") {
                return Step::Look;
            }
            self.moved &= is_wave_left;
            return Step::Wave { late: self.grace_over };
        }
        let mut wait = self.patience;
        if !self.grace_over && late > 0 {
            wait = wait.min(self.limits.grace - elapsed);
        }
        if let Some(deadline) = self.limits.deadline {
            wait = wait.min(deadline - elapsed);
        }
        Step::Wait(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { grace: Duration::from_secs(1), deadline: Some(Duration::from_secs(5)) };

    const QUIET: View = View {
        elapsed: Duration::ZERO,
        queued: 0,
        in_flight: 0,
        half_ended: 0,
        late: 0,
        cancels: 0,
        is_wave_left: false,
    };

    fn wait(milliseconds: u64) -> Step {
        Step::Wait(Duration::from_millis(milliseconds))
    }

    #[test]
    fn nothing_in_flight_finishes_at_once() {
        assert_eq!(Teardown::new(LIMITS).step(QUIET), Step::Finish);
    }

    #[test]
    fn the_queue_is_emptied_before_anything_is_cancelled() {
        let mut teardown = Teardown::new(LIMITS);
        let view = View { queued: 1, in_flight: 1, ..QUIET };
        assert_eq!(teardown.step(view), Step::Flush);
        assert_eq!(teardown.step(View { queued: 0, ..view }), Step::Wave { late: false });
    }

    #[test]
    fn a_wave_waits_for_the_answers_to_the_last_one() {
        let mut teardown = Teardown::new(LIMITS);
        let view = View { in_flight: 2, ..QUIET };
        assert_eq!(teardown.step(view), Step::Wave { late: false });
        let answers_missing = View { cancels: 1, ..view };
        teardown.observe(Event::Tracked);
        assert_eq!(teardown.step(answers_missing), wait(10));
        assert_eq!(teardown.step(view), Step::Wave { late: false });
    }

    #[test]
    fn no_wave_goes_out_while_requests_keep_ending() {
        let mut teardown = Teardown::new(LIMITS);
        let view = |in_flight| View { in_flight, ..QUIET };
        assert_eq!(teardown.step(view(100)), Step::Wave { late: false });
        for left in [80, 60, 40] {
            teardown.observe(Event::Tracked);
            assert_eq!(teardown.step(view(left)), Step::Look);
        }
        assert_eq!(teardown.step(view(40)), Step::Wave { late: false }, "the rest was missed");
        teardown.observe(Event::Tracked);
        assert_eq!(teardown.step(view(40)), Step::Wave { late: false }, "a stream does not end by ticking");
        assert_eq!(teardown.step(view(0)), Step::Finish);
    }

    #[test]
    fn a_wave_goes_on_when_what_it_has_ended_is_in() {
        let mut teardown = Teardown::new(LIMITS);
        let view = |in_flight| View { in_flight, is_wave_left: true, ..QUIET };
        assert_eq!(teardown.step(View { is_wave_left: false, ..view(9) }), Step::Wave { late: false });
        assert_eq!(teardown.step(View { cancels: 1, ..view(9) }), wait(10), "an answer is missing");
        assert_eq!(teardown.step(view(9)), Step::Wave { late: false }, "though nothing has moved");
        teardown.observe(Event::Tracked);
        assert_eq!(teardown.step(view(7)), Step::Look);
        assert_eq!(teardown.step(view(7)), Step::Wave { late: false });
        let all_sent = View { is_wave_left: false, ..view(7) };
        assert_eq!(teardown.step(all_sent), Step::Wave { late: false }, "what has moved meanwhile counts");
        assert_eq!(teardown.step(all_sent), wait(10));
    }

    #[test]
    fn a_wave_needs_something_to_have_moved() {
        let mut teardown = Teardown::new(LIMITS);
        let view = View { in_flight: 1, ..QUIET };
        assert_eq!(teardown.step(view), Step::Wave { late: false });
        assert_eq!(teardown.step(view), wait(10), "the answer to one's own cancel moves nothing");
        teardown.observe(Event::Quiet);
        assert_eq!(teardown.step(view), Step::Wave { late: false });
        teardown.observe(Event::Tracked);
        assert_eq!(teardown.step(view), Step::Wave { late: false });
    }

    #[test]
    fn waits_grow_while_nothing_moves() {
        let mut teardown = Teardown::new(LIMITS);
        let view = View { in_flight: 1, ..QUIET };
        let mut waits = Vec::new();
        for _ in 0..5 {
            assert_eq!(teardown.step(view), Step::Wave { late: false });
            waits.push(teardown.step(view));
            teardown.observe(Event::Quiet);
        }
        assert_eq!(waits, [10, 20, 40, 80, 80].map(wait));
    }

    #[test]
    fn a_wait_is_short_again_when_something_has_moved() {
        let mut teardown = Teardown::new(LIMITS);
        let view = View { in_flight: 1, ..QUIET };
        for event in [Event::Quiet, Event::Quiet, Event::Tracked] {
            assert_eq!(teardown.step(view), Step::Wave { late: false });
            teardown.observe(event);
        }
        assert_eq!(teardown.step(view), Step::Wave { late: false });
        assert_eq!(teardown.step(view), wait(10));
    }

    #[test]
    fn what_is_queued_is_flushed_though_nothing_is_in_flight() {
        assert_eq!(Teardown::new(LIMITS).step(View { queued: 1, ..QUIET }), Step::Flush);
    }

    #[test]
    fn the_end_of_the_grace_period_is_a_reason_for_a_wave() {
        let mut teardown = Teardown::new(LIMITS);
        let view = View { in_flight: 2, late: 1, ..QUIET };
        assert_eq!(teardown.step(view), Step::Wave { late: false });
        assert_eq!(teardown.step(view), wait(10));
        let over = View { elapsed: LIMITS.grace, ..view };
        assert_eq!(teardown.step(over), Step::Wave { late: true }, "though nothing has moved");
        assert_eq!(teardown.step(over), wait(10), "once");

        let mut teardown = Teardown::new(LIMITS);
        let view = View { in_flight: 1, ..QUIET };
        assert_eq!(teardown.step(view), Step::Wave { late: false });
        assert_eq!(teardown.step(View { elapsed: LIMITS.grace, ..view }), wait(10), "nothing is late");
        assert!(!teardown.accepts());
    }

    #[test]
    fn no_wait_is_longer_than_there_is_time() {
        let mut teardown = Teardown::new(LIMITS);
        let view = View { elapsed: Duration::from_millis(4997), in_flight: 1, ..QUIET };
        assert_eq!(teardown.step(view), Step::Wave { late: true });
        assert_eq!(teardown.step(view), wait(3));
    }

    #[test]
    fn answers_to_cancels_are_waited_for_at_the_end() {
        let mut teardown = Teardown::new(LIMITS);
        assert_eq!(teardown.step(View { cancels: 1, ..QUIET }), wait(10));
        assert_eq!(teardown.step(QUIET), Step::Finish);
    }

    #[test]
    fn late_requests_are_left_alone_for_the_grace_period() {
        let mut teardown = Teardown::new(LIMITS);
        let view = View { in_flight: 1, late: 1, ..QUIET };
        assert_eq!(teardown.step(view), wait(10));
        assert!(teardown.accepts());
        let almost = View { elapsed: Duration::from_millis(996), ..view };
        assert_eq!(teardown.step(almost), wait(4), "no longer than the grace period lasts");
        let over = View { elapsed: Duration::from_secs(1), ..view };
        assert_eq!(teardown.step(over), Step::Wave { late: true });
        assert!(!teardown.accepts());
        assert_eq!(teardown.step(over), wait(10));
    }

    #[test]
    fn late_requests_are_cancelled_before_the_deadline() {
        let mut teardown = Teardown::new(Limits { deadline: Some(Duration::from_millis(100)), ..LIMITS });
        let view = View { in_flight: 1, late: 1, ..QUIET };
        let almost = View { elapsed: Duration::from_millis(46), ..view };
        assert_eq!(teardown.step(almost), wait(4));
        let half = View { elapsed: Duration::from_millis(50), ..view };
        assert_eq!(teardown.step(half), Step::Wave { late: true });
    }

    #[test]
    fn the_deadline_abandons_what_is_in_flight() {
        let mut teardown = Teardown::new(LIMITS);
        let late = View { elapsed: Duration::from_secs(5), ..QUIET };
        assert_eq!(teardown.step(View { in_flight: 1, ..late }), Step::Abandon);
        assert_eq!(teardown.step(View { cancels: 1, ..late }), Step::Finish);
    }

    #[test]
    fn without_a_deadline_nothing_is_abandoned() {
        let mut teardown = Teardown::new(Limits { deadline: None, ..LIMITS });
        let view = View { elapsed: Duration::from_secs(1 << 40), in_flight: 1, ..QUIET };
        assert_eq!(teardown.step(view), Step::Wave { late: true });
        assert_eq!(teardown.step(view), wait(10));
    }

    #[test]
    fn only_the_ends_of_life_allow_a_run_to_begin() {
        let begins = [Phase::Idle, Phase::Finished];
        let others = [Phase::SettingUp, Phase::Running, Phase::Cancelling, Phase::Draining];
        assert!(begins.iter().all(|phase| phase.may_begin() && !phase.is_teardown()));
        assert!(others.iter().all(|phase| !phase.may_begin()));
        assert!(!Phase::Abandoned.may_begin());
        assert!(Phase::Cancelling.is_teardown() && Phase::Draining.is_teardown());
    }
}
