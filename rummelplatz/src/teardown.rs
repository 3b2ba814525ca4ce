//! Tearing a ring down: what [`lifecycle`](crate::lifecycle) decides is done here.
//!
//! The same steps serve a run that ends, whose completions go to the operations, and a ring that is
//! dropped or whose handler panicked, whose completions go to nobody ([`Audience`]).

use std::io;
use std::time::Duration;

use crate::any_slab::AnySlab;
use crate::core::{Core, SHORTAGE};
use crate::error::{Stuck, StuckRequest, SubmitError};
use crate::facts::{Facts, Flags};
use crate::lifecycle::{Event, Limits, Phase, Step, Teardown, View};
use crate::mutant;
use crate::panics::FirstPanic;
use crate::parcels;
use crate::queue::{Cqe, Entered, Patience};
use crate::shape::{Ring, look_at_slab, operation_name, slab_of};
use crate::state::{Ending, FirstCause, Inner};
use crate::user_data::UserData;
use crate::wave::{self, Wave};

/// Who gets the completions.
pub(crate) trait Audience<R: Ring> {
    fn inner(&mut self) -> &mut Inner<R>;
    /// Delivers all completions that have arrived. Returns whether there were any.
    fn reap(&mut self) -> bool;
}

/// Nobody: no handler is called, and data is dropped.
struct Nobody<'i, R: Ring> {
    inner: &'i mut Inner<R>,
    panic: FirstPanic,
}

impl<R: Ring> Audience<R> for Nobody<'_, R> {
    fn inner(&mut self) -> &mut Inner<R> {
        self.inner
    }

    fn reap(&mut self) -> bool {
        let mut any = false;
        while let Some(cqe) = self.inner.core.next() {
            any = true;
            self.discard(cqe);
        }
        any
    }
}

impl<R: Ring> Nobody<'_, R> {
    fn discard(&mut self, cqe: Cqe) {
        let Inner { core, slabs, .. } = &mut *self.inner;
        let tag = UserData::tag(cqe.user_data);
        let Some(slab) = slab_of::<R>(slabs, tag) else {
            self.inner.settle_unclaimed(cqe);
            return;
        };
        // The slot is settled before the data is dropped, so a panic leaves nothing half done.
        self.panic.catch(|| slab.discard(core, cqe));
    }
}

/// How far a teardown has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Progress {
    /// A step was made.
    Moved,
    /// There is nothing to do until this time has passed or a completion comes.
    Waiting(Duration),
    /// Nothing is in flight.
    Finished,
    /// What is in flight will never end.
    Abandoned,
}

/// Begins to end the present run. Dropping data that can't be given to anybody any more may panic, but only
/// after the end has begun.
pub(crate) fn begin<R: Ring>(inner: &mut Inner<R>, cause: FirstCause<R>) {
    let limits = inner.core.options.limits;
    begin_within(inner, cause, limits).go_on();
}

fn begin_within<R: Ring>(inner: &mut Inner<R>, cause: FirstCause<R>, limits: Limits) -> FirstPanic {
    let core = &mut inner.core;
    core.phase = Phase::Cancelling;
    core.refresh();
    // Teardown handlers are called on the path that looks at more than results: plain and calm requests do
    // not take it.
    for_each_slab::<R>(&mut inner.slabs, |slab| slab.demote_all());
    let core = &mut inner.core;
    // In this order, so that nothing can be sent in between and get lost.
    core.shared.set_open(false);
    let (_, panic) = parcels::collect(inner);
    let core = &mut inner.core;
    // Requests that the kernel does not have end here, as if they had been cancelled.
    core.forget_plans();
    core.hasten_last();
    let ending = core.ending();
    let Inner { core, slabs, .. } = inner;
    visit_all::<R>(slabs, |user_data, facts| {
        if facts.flags.intersects(Flags::PARKED) && !ending.contains(&user_data) {
            core.end_without_kernel(user_data, -libc::ECANCELED);
        }
    });
    core.empty_backlog();
    inner.ending = Some(Ending {
        cause,
        errors: Default::default(),
        teardown: Teardown::new(limits),
        began: core.queue.now(),
        wait_ends: None,
        wave: None,
    });
    panic
}

/// Makes one step of a teardown that has begun.
pub(crate) fn advance<R: Ring>(audience: &mut impl Audience<R>, may_wait: bool) -> Progress {
    let inner = audience.inner();
    parcels::deliver_overdue(inner);
    let Inner { core, ending: Some(ending), .. } = inner else { return Progress::Finished };
    let view = View {
        elapsed: core.queue.now().saturating_sub(ending.began),
        queued: core.queued(),
        in_flight: core.in_flight(),
        half_ended: core.half_ended,
        late: core.late,
        cancels: core.cancels,
        is_wave_left: ending.wave.is_some(),
    };
    let step = ending.teardown.step(view);
    if !ending.teardown.accepts() {
        core.close(SubmitError::Closed);
    }
    let entered = match step {
        Step::Finish => {
            finish(inner);
            return Progress::Finished;
        }
        Step::Abandon => return give_up(audience, None),
        Step::Wave { late } => {
            core.phase = Phase::Cancelling;
            ending.wait_ends = None;
            send_wave(inner, late);
            if inner.core.queued() == 0 {
                return Progress::Moved;
            }
            flush(&mut inner.core, may_wait)
        }
        Step::Flush => flush(core, may_wait),
        Step::Look => core.enter(Patience::Poll),
        Step::Wait(time) => {
            core.phase = Phase::Draining;
            if mutant::is("the grace begins anew with each wait") {
                ending.began = core.queue.now();
            }
            let ends = *ending.wait_ends.get_or_insert(view.elapsed.saturating_add(time));
            // Nothing is queued, or the step would be another.
            let patience = match may_wait && !core.has_deliveries() {
                true => Patience::WaitFor(ends.saturating_sub(view.elapsed)),
                false => Patience::Poll,
            };
            core.enter(patience)
        }
    };
    if mutant::is("all but EINTR ends it") && matches!(entered, Ok(Entered::Busy)) {
        finish(inner);
        return Progress::Finished;
    }
    match entered {
        Ok(entered) => look_back(audience, step, entered),
        // What the kernel has can be neither cancelled nor awaited.
        Err(error) => give_up(audience, Some(error)),
    }
}

/// Delivers what has arrived after this step, and says what has come of that.
fn look_back<R: Ring>(audience: &mut impl Audience<R>, step: Step, entered: Entered) -> Progress {
    let Reaped { tracked, any } = reap(audience);
    let Inner { core, ending: Some(ending), .. } = audience.inner() else { return Progress::Finished };
    let tracked = tracked || mutant::is("a cancel's answer moves") && any;
    if tracked {
        ending.wait_ends = None;
        ending.teardown.observe(Event::Tracked);
    } else if let (Step::Wait(_), Some(wait_ends)) = (step, ending.wait_ends) {
        let elapsed = core.queue.now().saturating_sub(ending.began);
        let left = wait_ends.saturating_sub(elapsed);
        if left.is_zero() {
            ending.wait_ends = None;
            ending.teardown.observe(Event::Quiet);
        } else if !any {
            return Progress::Waiting(left);
        }
    } else if entered == Entered::Busy && !any {
        return Progress::Waiting(SHORTAGE);
    }
    Progress::Moved
}

/// Lets the kernel take in what is queued.
///
/// A cancel does not find a timer that has fired until task work has armed it again, which an enter does after it has
/// submitted. So one enter does that first, and the cancels go out before the timers fire once more.
fn flush(core: &mut Core, may_wait: bool) -> io::Result<Entered> {
    let armed = core.enter(Patience::ReapFor(Duration::ZERO));
    core.move_backlog();
    armed.and_then(|_| core.enter_or_make_room(Patience::Poll, may_wait))
}

/// Leaks what the kernel does not give back; everything else ends as usual.
pub(crate) fn give_up<R: Ring>(audience: &mut impl Audience<R>, error: Option<io::Error>) -> Progress {
    audience.inner().core.close(SubmitError::Closed);
    // What has completed already, and what the kernel never had, is delivered first.
    while reap(audience).any || audience.inner().core.own_due() > 0 {}
    let inner = audience.inner();
    if inner.core.in_flight() == 0 {
        inner.core.forget_lost();
        finish(inner);
        return Progress::Finished;
    }
    abandon(inner, error);
    Progress::Abandoned
}

/// Which completions had arrived.
struct Reaped {
    /// At least one for a request in flight.
    tracked: bool,
    /// At least one.
    any: bool,
}

/// Delivers all completions that have arrived.
fn reap<R: Ring>(audience: &mut impl Audience<R>) -> Reaped {
    audience.inner().core.settled = false;
    let any = audience.reap();
    Reaped { tracked: audience.inner().core.settled, any }
}

/// Sends the next part of a wave: cancels requests that the kernel has in flight; late ones only if `late` is set.
fn send_wave<R: Ring>(inner: &mut Inner<R>, late: bool) {
    let Inner { core, slabs, ending: Some(ending), .. } = inner else { return };
    let look = |tag| look_at_slab::<R>(slabs, tag);
    let mut wave = ending.wave.take().unwrap_or_else(|| Wave::new(R::OPERATIONS, &look));
    let mut left = core.queue.room();
    // The thread that looks for entries may have to wait for this CPU, each time.
    if !core.queue.has_poller() {
        left = left.min(wave::PART);
    }
    let mut is_over = false;
    while left > 0 && !is_over {
        is_over = !wave.part(&look, left, &mut |user_data, facts| {
            let unknown_to_kernel = facts.flags.intersects(Flags::MESSAGE | Flags::PARKED);
            let spared = !late && facts.flags.intersects(Flags::LATE);
            if unknown_to_kernel || spared {
                return;
            }
            left -= 1;
            core.cancel_once(user_data);
            if facts.waits_for_timer() {
                core.cancel_once(UserData::of_timer(user_data));
            }
            if mutant::is("cancelled is over") {
                core.end_without_kernel(user_data, -libc::ECANCELED);
            }
        });
    }
    ending.wave = (!is_over).then_some(wave);
    #[cfg(mutant)]
    if mutant::is("a drain is a barrier") {
        core.drain();
    }
}

/// Calls `visit` with the `user_data` and facts of each request in flight.
fn visit_all<R: Ring>(slabs: &R::Slabs, mut visit: impl FnMut(u64, &Facts)) {
    wave::visit_all(R::OPERATIONS, &|tag| look_at_slab::<R>(slabs, tag), &mut visit);
}

/// Calls `visit` with the slab of each operation.
fn for_each_slab<R: Ring>(slabs: &mut R::Slabs, mut visit: impl FnMut(&mut dyn AnySlab)) {
    for (tag, _) in R::OPERATIONS {
        if let Some(slab) = slab_of::<R>(slabs, *tag) {
            visit(slab);
        }
    }
}

/// Ends a teardown when nothing is in flight: what is registered with the kernel is released.
fn finish<R: Ring>(inner: &mut Inner<R>) {
    let core = &mut inner.core;
    core.phase = Phase::Finished;
    core.late = 0;
    if !mutant::is("pools stay registered") {
        core.queue.release_registered();
    }
    core.open();
    for_each_slab::<R>(&mut inner.slabs, |slab| slab.tidy());
}

/// Gives up a ring in which something stays in flight for ever.
fn abandon<R: Ring>(inner: &mut Inner<R>, error: Option<io::Error>) {
    let core = &mut inner.core;
    core.phase = Phase::Abandoned;
    core.close(SubmitError::Closed);
    core.shared.set_open(false);
    let mut requests = Vec::with_capacity(core.in_flight());
    visit_all::<R>(&inner.slabs, |user_data, facts| {
        requests.push(StuckRequest {
            operation: operation_name::<R>(UserData::tag(user_data)),
            opcode: if mutant::is("the stuck have no opcode") { 0 } else { facts.opcode },
            age: core.clock.between(facts.born, core.watch.shown()),
        });
    });
    let errno = error.and_then(|error| error.raw_os_error());
    inner.stuck = Some(Stuck { requests, errno });
}

/// Ends a ring without calling a handler: its requests are cancelled and awaited, and their data is
/// dropped. Returns the first panic of a `Drop`, and never panics itself.
///
/// Afterwards the ring is finished or abandoned.
pub(crate) fn end_silently<R: Ring>(inner: &mut Inner<R>) -> FirstPanic {
    let mut panic = FirstPanic::none();
    // The run that ended this way will not return these errors, and the next run must not either.
    let (cause, ending) = (inner.cause.take(), inner.ending.take());
    // Nobody is told how late requests end, so there is no need to wait for them.
    let limits = Limits { grace: Duration::ZERO, ..inner.core.options.limits };
    panic.then(begin_within(inner, FirstCause::Exit, limits));
    let mut nobody = Nobody { inner, panic };
    if nobody.inner.core.is_void {
        give_up(&mut nobody, Some(io::Error::from_raw_os_error(libc::EBADR)));
    } else {
        // As in a pass of the loop: whoever is at the other end of a file that was in the data may wait for its end.
        let mut step = || {
            if !mutant::is("a panic keeps files open") {
                nobody.inner.core.close_left(true);
            }
            advance(&mut nobody, true)
        };
        while !matches!(step(), Progress::Finished | Progress::Abandoned) {}
    }
    let Nobody { inner, mut panic } = nobody;
    inner.ending = None;
    panic.catch(|| drop(cause));
    if let Some(Ending { cause, errors, .. }) = ending {
        panic.catch(|| drop(cause));
        for error in errors {
            panic.catch(|| drop(error));
        }
    }
    inner.tell_of_abandoned(&mut panic);
    panic
}

/// Ends a ring that is being dropped, whatever state it is in.
pub(crate) fn end_for_good<R: Ring>(inner: &mut Inner<R>) -> FirstPanic {
    let core = &mut inner.core;
    core.shared.set_open(false);
    let (parcels, _) = core.shared.collect();
    let mut panic = end_requests(inner);
    let overdue = std::mem::take(&mut inner.core.overdue).into_parcels();
    for parcel in overdue.chain(parcels) {
        panic.catch(|| drop(parcel));
    }
    panic
}

/// Ends what is in flight, as the state of the ring allows.
fn end_requests<R: Ring>(inner: &mut Inner<R>) -> FirstPanic {
    let core = &mut inner.core;
    match core.phase {
        Phase::Abandoned => {}
        _ if !core.is_enabled() => return discard_all(inner),
        _ if core.in_flight() == 0 => finish(inner),
        _ if core.is_owner() => return end_silently(inner),
        _ => return leave_to_kernel(inner),
    }
    FirstPanic::none()
}

/// Ends the requests of a ring from a thread whose cancels the kernel does not take; requests that the kernel
/// has are leaked.
fn leave_to_kernel<R: Ring>(inner: &mut Inner<R>) -> FirstPanic {
    let limits = inner.core.options.limits;
    let panic = begin_within(inner, FirstCause::Exit, limits);
    let mut nobody = Nobody { inner, panic };
    give_up(&mut nobody, None);
    let Nobody { inner, mut panic } = nobody;
    inner.ending = None;
    inner.tell_of_abandoned(&mut panic);
    panic
}

/// Ends the requests of a ring that was never enabled, so that the kernel was told of none.
fn discard_all<R: Ring>(inner: &mut Inner<R>) -> FirstPanic {
    let mut requests = Vec::with_capacity(inner.core.in_flight());
    visit_all::<R>(&inner.slabs, |user_data, facts| {
        // Its timer ends first, because the request would wait for that.
        requests.extend(facts.flags.intersects(Flags::TIMED).then(|| UserData::of_timer(user_data)));
        requests.push(user_data);
    });
    inner.core.phase = Phase::Draining;
    let mut nobody = Nobody { inner, panic: FirstPanic::none() };
    for user_data in requests {
        nobody.discard(Cqe { user_data, result: -libc::ECANCELED, flags: 0 });
    }
    let Nobody { inner, panic } = nobody;
    finish(inner);
    panic
}
