//! All that a ring consists of, besides its operations.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::mem::ManuallyDrop;
use std::time::Duration;

use crate::core::{Core, OwnTraffic};
use crate::error::Stuck;
use crate::failures::Refused;
use crate::idle::IdleLimit;
use crate::lifecycle::Teardown;
use crate::mutant;
use crate::panics::FirstPanic;
use crate::queue::Cqe;
use crate::shape::{Ring, operation_name, slab_of};
use crate::slab::Identity;
use crate::user_data::UserData;
use crate::warning::{Hooks, Warning};
use crate::wave::Wave;

/// What a submitter and the loop work on.
pub(crate) struct Inner<R: Ring> {
    pub(crate) core: Core,
    pub(crate) slabs: ManuallyDrop<R::Slabs>,
    pub(crate) hooks: Hooks,
    /// Why the present run is to end: left here for the loop by the handler that says so.
    pub(crate) cause: Option<FirstCause<R>>,
    /// How the present run is ending; set once there is a first cause.
    pub(crate) ending: Option<Ending<R>>,
    /// What was abandoned, for good.
    pub(crate) stuck: Option<Stuck>,
}

/// A run that is ending.
pub(crate) struct Ending<R: Ring> {
    pub(crate) cause: FirstCause<R>,
    /// What went wrong in teardown handlers, in order.
    pub(crate) errors: VecDeque<R::TeardownError>,
    pub(crate) teardown: Teardown,
    /// When the teardown began, by the kernel's clock.
    pub(crate) began: Duration,
    /// When the present wait ends, counted from `began`.
    pub(crate) wait_ends: Option<Duration>,
    /// The wave of cancels that is being sent.
    pub(crate) wave: Option<Wave>,
}

/// Why a run is ending.
pub(crate) enum FirstCause<R: Ring> {
    /// It was asked to, or nothing was left to do.
    Exit,
    Setup(R::SetupError),
    Completion(R::CompletionError),
    Api(io::Error),
}

impl<R: Ring> Inner<R> {
    /// Makes the present run end. The loop looks for a cause only when it knows of no completions, so it
    /// forgets those that it knows.
    pub(crate) fn end(&mut self, cause: FirstCause<R>) {
        self.cause = Some(cause);
        self.core.queue.look_again();
    }

    /// Settles a completion that no operation claims.
    pub(crate) fn settle_unclaimed(&mut self, cqe: Cqe) -> OwnTraffic {
        let Inner { core, slabs, .. } = self;
        core.count_unclaimed();
        let Some(tag) = UserData::cancelled_tag(cqe.user_data) else {
            return match core.settle_control(cqe) {
                OwnTraffic::Alarm(result) => self.do_what_is_due(result),
                outcome => outcome,
            };
        };
        core.count_answer();
        let was_not_found = matches!(cqe.result.wrapping_neg(), libc::ENOENT | libc::EALREADY);
        if was_not_found
            && let Some(slab) = slab_of::<R>(slabs, tag)
            && let Some(user_data) = slab.is_not_over(cqe.user_data)
        {
            core.cancel_later(user_data);
        }
        OwnTraffic::Settled
    }

    /// An alarm has gone off: does what is due, and sets the next one.
    #[cold]
    fn do_what_is_due(&mut self, result: i32) -> OwnTraffic {
        let Inner { core, slabs, .. } = self;
        let now = core.queue.now();
        let until = match core.alarms.gone_off(result, now) {
            Ok(until) => until,
            Err(Refused(errno)) => {
                // Without alarms, no cancel is repeated.
                core.asked_again.forget();
                return match next_promised::<R>(core, slabs) {
                    Some(_) => OwnTraffic::Refused(errno),
                    None => OwnTraffic::Settled,
                };
            }
        };
        while let Some((identity, ())) = core.deadlines.due(until) {
            if let Some(slab) = slab_of::<R>(slabs, UserData::tag(identity.user_data)) {
                slab.time_is_up(core, identity);
            }
        }
        while let Some((identity, limit)) = core.idle_limits.due(until) {
            if let Some(slab) = slab_of::<R>(slabs, UserData::tag(identity.user_data))
                && let Some(limit) = slab.look_after(core, identity, limit)
            {
                core.idle_limits.keep_with(identity, limit, limit.step(), now);
            }
        }
        for user_data in core.asked_again.due(until) {
            // It may have ended since, or be a stream that was paused and goes on.
            let is_to_end = slab_of::<R>(slabs, UserData::tag(user_data))
                .is_some_and(|slab| slab.is_not_over(UserData::of_cancel(user_data)).is_some());
            if is_to_end || mutant::is("a cancel is repeated in vain") {
                core.cancel(user_data);
            }
        }
        while let Some(user_data) = core.resting.due(until) {
            if let Some(slab) = slab_of::<R>(slabs, UserData::tag(user_data)) {
                slab.unpark(core, user_data);
            }
        }
        self.set_next_alarm();
        OwnTraffic::Settled
    }

    /// Sets an alarm for what is due next, unless there is one by then.
    #[cold]
    pub(crate) fn set_next_alarm(&mut self) {
        let Inner { core, slabs, .. } = self;
        let now = core.queue.now();
        let promised = next_promised::<R>(core, slabs);
        if let Some(when) = [promised, core.asked_again.next()].into_iter().flatten().min() {
            core.set_alarm(when, now);
        }
    }

    /// Keeps the deadline of a request that was just accepted and has this much time.
    #[inline]
    pub(crate) fn keep_deadline(&mut self, identity: Identity, time: Duration) {
        let Inner { core, slabs, .. } = self;
        if core.keep_deadline(identity, time) {
            core.deadlines.tidy(|identity| is_there::<R>(slabs, identity));
        }
    }

    /// Keeps the limit of a stream that was just accepted and may be idle for this long.
    pub(crate) fn keep_idle_limit(&mut self, identity: Identity, limit: Duration) {
        let Inner { core, slabs, .. } = self;
        if core.keep_idle_limit(identity, IdleLimit::new(limit)) {
            core.idle_limits.tidy(|identity| is_there::<R>(slabs, identity));
        }
    }

    /// Counts a warning and reports it.
    #[cold]
    pub(crate) fn warn(&mut self, tag: u8, message: &dyn fmt::Display) {
        self.core.counters.warnings += 1;
        let warning = Warning { operation: operation_name::<R>(tag), message };
        #[cfg(feature = "tracing")]
        tracing::warn!(ring = R::NAME, operation = warning.operation, "{message}");
        if let Some(hook) = &mut self.hooks.on_warn {
            hook(warning);
        }
    }

    /// Reports what was abandoned, if anything was, where no result of a run does.
    pub(crate) fn tell_of_abandoned(&mut self, panic: &mut FirstPanic) {
        let Some(stuck) = &self.stuck else { return };
        #[cfg(feature = "tracing")]
        tracing::error!(ring = R::NAME, "{stuck}");
        if let Some(hook) = self.hooks.on_abandoned.take() {
            panic.catch(|| hook(stuck));
        }
    }

    /// Counts data that a handler returned for a request that was over.
    #[cold]
    pub(crate) fn returned_late(&mut self, tag: u8) {
        self.core.counters.returned_late += 1;
        #[cfg(feature = "tracing")]
        tracing::warn!(
            ring = R::NAME,
            operation = operation_name::<R>(tag),
            "data was returned for a request that is over"
        );
        #[cfg(not(feature = "tracing"))]
        let _ = tag;
    }
}

/// When the next thing is due that was promised: that a deadline passes, a stream with a limit for being idle is looked
/// after, or a rest is over.
fn next_promised<R: Ring>(core: &mut Core, slabs: &mut R::Slabs) -> Option<u64> {
    let deadline = core.deadlines.next(|identity| is_there::<R>(slabs, identity));
    let look = core.idle_limits.next(|identity| is_there::<R>(slabs, identity));
    [deadline, look, core.resting.next()].into_iter().flatten().min()
}

/// Whether a request is not over.
fn is_there<R: Ring>(slabs: &mut R::Slabs, identity: Identity) -> bool {
    slab_of::<R>(slabs, UserData::tag(identity.user_data)).is_some_and(|slab| slab.has(identity))
}

#[cfg(test)]
#[cfg(feature = "sim")]
mod tests {
    use std::convert::Infallible;
    use std::num::NonZeroU32;

    use super::*;
    use crate::config::Options;
    use crate::queue::Patience;
    use crate::runtime::Runtime;
    use crate::shape::RingShape;
    use crate::sim::{Faults, Simulation};
    use crate::slab_cell::SlabRef;
    use crate::teardown;
    use crate::user_data::Control;

    /// A ring without operations.
    struct Empty;

    impl RingShape for Empty {
        type Slabs = ();
        type SetupError = Infallible;
        type CompletionError = Infallible;
        type TeardownError = Infallible;
        const NAME: &'static str = "Empty";
        const OPERATIONS: &'static [(u8, &'static str)] = &[];
        const OPTIONS: Options = Options::new();

        fn slabs() {}

        fn slab((): &(), _: u8) -> Option<SlabRef<'_>> {
            None
        }
    }

    fn empty() -> (Simulation, Runtime<Empty>) {
        let simulation = Simulation::new(1);
        simulation.set_faults(Faults::none());
        let raw = simulation.raw_ring(NonZeroU32::new(32).unwrap()).unwrap();
        (simulation, Runtime::new(raw, Empty::OPTIONS, Hooks::default()))
    }

    const NAME: u64 = UserData::pack(7, 1, 0);

    #[test]
    fn a_cancel_is_repeated_when_alarms_are_allowed_that_were_refused_before() {
        let (_simulation, mut runtime) = empty();
        let inner = runtime.inner_mut();
        inner.core.cancel_later(NAME);
        for _ in 0..8 {
            let alarm = Cqe { user_data: Control::Alarm as u64, result: -libc::EACCES, flags: 0 };
            assert!(matches!(inner.settle_unclaimed(alarm), OwnTraffic::Settled));
        }
        let queued = inner.core.queued();
        inner.core.cancel_later(NAME);
        assert_eq!(inner.core.queued(), queued + 1, "an alarm is set");
    }

    #[test]
    fn nobody_waits_for_the_answer_to_a_cancel_that_the_kernel_has_lost() {
        let (simulation, mut runtime) = empty();
        let inner = runtime.inner_mut();
        inner.core.enable().unwrap();
        inner.core.cancel(NAME);
        inner.core.enter(Patience::Poll).unwrap();
        assert!(inner.core.next().is_some(), "the answer, which is lost here");
        inner.core.is_void = true;
        inner.core.forget_lost();
        let enters = simulation.figures().enters;
        teardown::end_silently(inner).go_on();
        assert_eq!(simulation.figures().enters, enters);
    }
}
