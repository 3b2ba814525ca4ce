//! The ring as a whole: what the methods that `#[ring]` generates do.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use crate::any_slab::AnySlab;
use crate::core::SHORTAGE;
use crate::error::SubmitError;
use crate::handle::RingHandle;
use crate::lifecycle::Phase;
use crate::operation::RingOperation;
use crate::parcels;
use crate::parts::{RingParts, Round};
use crate::queue::{Entered, Patience};
use crate::ring_error::{Cause, RingError};
use crate::shape::{Ring, look_at_slab, slab_of};
use crate::state::{Ending, FirstCause, Inner};
use crate::stats::{OperationStats, Stats};
use crate::submitter::Submitter;
use crate::tag::Tag;
use crate::teardown::{self, Audience};
use crate::user_data::UserData;

/// What a [`turn`] of the ring has done, and when the next one is due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress {
    /// What was done.
    pub status: Status,
    /// When the next turn is due at the latest; it is due earlier if the ring's descriptor becomes readable.
    /// `None` if the descriptor is all there is to wait for.
    pub call_again_in: Option<Duration>,
}

/// What a turn of a ring has done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Status {
    /// Completions were delivered. If nothing that keeps the ring running is in flight afterwards, another
    /// turn is wanted at once, which will report [`Idle`](Self::Idle).
    Progressed,
    /// Requests are in flight; none has completed.
    Waiting,
    /// Nothing is in flight, except [in the background](crate::Submitter::submit_in_background) and
    /// [paused](crate::Submitter::pause) streams. More can be submitted, by `submitter` or a handle.
    Idle,
    /// The ring was torn down and has ended.
    Finished,
}

impl Progress {
    /// Whether the ring has ended.
    pub fn is_finished(&self) -> bool {
        self.status == Status::Finished
    }

    /// Whether nothing is in flight that keeps the ring running.
    pub fn is_idle(&self) -> bool {
        self.status == Status::Idle
    }
}

/// The outcome of one pass of the loop.
enum Pass<R: Ring> {
    Went(Progress),
    Ended(Result<(), RingError<R>>),
}

const PROGRESSED: Progress = Progress { status: Status::Progressed, call_again_in: Some(Duration::ZERO) };

// ---- running ----------------------------------------------------------------------------------

/// `run()`: sets the operations up, dispatches completions until the ring ends, and tears it down.
///
/// # Errors
///
/// See [`RingError`].
pub fn run<R: RingParts>(ring: &mut R) -> Result<(), RingError<R>> {
    check(ring)?;
    notify(ring, false)?;
    guarded(ring, |ring| {
        begin(ring)?;
        inner(ring).core.queue.register();
        let result = loop {
            if let Pass::Ended(result) = pass(ring, true) {
                break result;
            }
        };
        inner(ring).core.queue.unregister();
        result
    })
}

/// `turn()`: does what can be done without waiting.
///
/// # Errors
///
/// See [`RingError`]. The ring has ended then, unless nothing was done: because this is another thread or
/// process, or because something that a turn needs was missing.
pub fn turn<R: RingParts>(ring: &mut R) -> Result<Progress, RingError<R>> {
    check(ring)?;
    notify(ring, true)?;
    guarded(ring, |ring| {
        match inner(ring).core.phase {
            Phase::Idle => begin(ring)?,
            Phase::Finished => {
                // Something of the last run may have signalled, and would for ever.
                inner(ring).core.ready.reset();
                return Ok(FINISHED);
            }
            _ => {}
        }
        match pass(ring, false) {
            Pass::Went(progress) => Ok(before_waiting(ring, progress)),
            Pass::Ended(result) => result.map(|()| FINISHED),
        }
    })
}

/// By when something that is on its way from another thread should have arrived.
const SOON: Duration = Duration::from_millis(1);

const FINISHED: Progress = Progress { status: Status::Finished, call_again_in: None };

/// `finish()`: cancels what is in flight and waits for it, now.
///
/// # Errors
///
/// See [`RingError`].
pub fn finish<R: RingParts>(ring: &mut R) -> Result<(), RingError<R>> {
    check(ring)?;
    guarded(ring, |ring| {
        let inner = inner(ring);
        if inner.core.phase.may_begin() && inner.core.in_flight() == 0 {
            return Ok(());
        }
        if inner.ending.is_none() {
            enable(inner)?;
            teardown::begin(inner, FirstCause::Exit);
        }
        loop {
            if let Pass::Ended(result) = pass(ring, true) {
                return result;
            }
        }
    })
}

/// Checks that this process and thread may use the ring, and that it was not abandoned.
fn check<R: RingParts>(ring: &mut R) -> Result<(), RingError<R>> {
    let inner = inner(ring);
    if inner.core.is_forked() {
        return Err(RingError::Forked);
    }
    if !inner.core.is_owner() {
        return Err(RingError::WrongThread);
    }
    match &inner.stuck {
        Some(stuck) => Err(RingError::Abandoned { stuck: stuck.clone() }),
        None => Ok(()),
    }
}

/// Runs `work`; if it panics, ends the ring before the panic goes on.
fn guarded<R: RingParts, T>(ring: &mut R, work: impl FnOnce(&mut R) -> T) -> T {
    ring.runtime_mut().is_looping = true;
    let worked = match catch_unwind(AssertUnwindSafe(|| work(ring))) {
        Err(panic) => {
            end_by_panic(inner(ring));
            Err(panic)
        }
        worked => worked,
    };
    ring.runtime_mut().is_looping = false;
    worked.unwrap_or_else(|panic| resume_unwind(panic))
}

/// Ends a ring in which something has panicked, unless it is that of another process.
fn end_by_panic<R: Ring>(inner: &mut Inner<R>) {
    if inner.core.is_forked() {
        return;
    }
    inner.core.queue.unregister();
    // If a handler has panicked, what was lent to it is gone.
    inner.core.lent = None;
    // A second panic, from a `Drop`, is less of a cause than the first.
    drop(teardown::end_silently(inner));
}

fn inner<R: RingParts>(ring: &mut R) -> &mut Inner<R> {
    ring.runtime_mut().inner_mut()
}

/// Sets whether completions signal the descriptor that the ring shows, which costs something for each.
fn notify<R: RingParts>(ring: &mut R, on: bool) -> Result<(), RingError<R>> {
    inner(ring).core.notify(on).map_err(api_error)
}

fn api_error<R: Ring>(error: std::io::Error) -> RingError<R> {
    RingError::Api(Cause { error, teardown: Vec::new(), abandoned: None })
}

/// Lets the kernel take entries from this thread.
fn enable<R: Ring>(inner: &mut Inner<R>) -> Result<(), RingError<R>> {
    inner.core.enable().map_err(api_error)
}

/// Begins a run.
fn begin<R: RingParts>(ring: &mut R) -> Result<(), RingError<R>> {
    let this = inner(ring);
    if !this.core.phase.may_begin() {
        // An earlier turn has begun the run.
        return Ok(());
    }
    enable(this)?;
    this.core.set_up_owner().map_err(api_error)?;
    this.core.phase = Phase::SettingUp;
    this.core.was_alone = false;
    this.core.shared.set_open(true);
    this.core.open();
    let set_up = ring.setup();
    let this = inner(ring);
    this.core.phase = Phase::Running;
    if set_up.is_err() && this.core.is_forked() {
        return Err(RingError::Forked);
    }
    this.set_next_alarm();
    if this.core.shared.may_be_woken() || this.core.queue.direct() > 0 {
        // An earlier run may have given up.
        this.core.arm_wake();
    }
    // Collects what was sent before this run: an earlier run may have used up its wake-up.
    let (stop, panic) = parcels::collect(this);
    match set_up {
        Err(error) => teardown::begin(this, FirstCause::Setup(error)),
        Ok(()) if stop => teardown::begin(this, FirstCause::Exit),
        Ok(()) => {}
    }
    panic.go_on();
    Ok(())
}

/// One pass of the loop. Waits for completions only if `may_wait` is set.
fn pass<R: RingParts>(ring: &mut R, may_wait: bool) -> Pass<R> {
    let this = inner(ring);
    if this.ending.is_some() {
        this.core.close_left(true);
        return teardown_pass(ring, may_wait);
    }
    this.core.move_backlog_on();
    unpark(this);
    parcels::deliver_overdue(this);
    // The functions of streams that were resumed may have left some, too.
    let is_short = this.core.close_left(true);
    let goes_on = keeps_running(this);
    let core = &mut this.core;
    if may_wait && !goes_on && core.has_nothing_left() && !core.shared.may_be_woken() {
        return end(ring, FirstCause::Exit);
    }
    core.was_alone = !goes_on;
    // An entry of the ring's own, or an untracked one, is no reason to wait.
    let wakes = goes_on || core.shared.may_be_woken();
    // Completions that are visible, or that the kernel holds back, end a wait at once.
    let waits = may_wait && wakes && !core.must_not_wait();
    let patience = match waits {
        true if is_short => Patience::WaitFor(SHORTAGE),
        true => Patience::Wait,
        false => Patience::Poll,
    };
    if let Err(error) = core.enter_or_make_room(patience, may_wait) {
        return fail(ring, error);
    }
    let core = &mut inner(ring).core;
    core.insist();
    core.begin_round();
    let mut delivered = ring.deliver_all(&Round { may_wait });
    while inner(ring).cause.is_none() && inner(ring).core.find_last() {
        delivered |= ring.deliver_all(&Round { may_wait });
    }
    if let Some(cause) = inner(ring).cause.take() {
        return end(ring, cause);
    }
    let status = if delivered { Status::Progressed } else { Status::Waiting };
    Pass::Went(Progress { status, call_again_in: None })
}

/// Whether there is something that the ring is to wait for.
fn keeps_running<R: Ring>(inner: &Inner<R>) -> bool {
    let Inner { core, slabs, .. } = inner;
    // What was sent to an operation that has no room for it waits for a request of that operation to end, which no
    // paused stream does.
    let may_make_room = |tag| look_at_slab::<R>(slabs, tag).is_some_and(AnySlab::may_make_room);
    core.foreground > 0 || core.background > 0 && core.overdue.tags().into_iter().any(may_make_room)
}

/// The end of a turn: submits to the kernel what handlers have queued, and makes sure that whoever waits for
/// the ring's descriptor misses nothing that happens from here on.
fn before_waiting<R: RingParts>(ring: &mut R, progress: Progress) -> Progress {
    let inner = inner(ring);
    let closes_again = inner.core.close_left(false);
    unpark(inner);
    parcels::deliver_overdue(inner);
    let goes_on = keeps_running(inner);
    let core = &mut inner.core;
    // The next turn will meet the same error.
    let entered = if core.queued() > 0 { core.enter(Patience::Submit) } else { Ok(Entered::Done) };
    let was_full = core.queue.show_seen();
    // In this order: what comes after the reset signals again, what came before it is seen below.
    core.ready.reset();
    let is_idle = !goes_on && core.has_nothing_left() && !core.phase.is_teardown();
    let status = match progress.status {
        Status::Waiting if is_idle => Status::Idle,
        // What has made progress was in the background.
        Status::Progressed if is_idle && core.was_alone && core.background > 0 => Status::Idle,
        status => status,
    };
    // Without this, nobody would learn that a ring which has made progress is now idle.
    let is_news = is_idle && status == Status::Progressed;
    let is_busy = matches!(entered, Ok(Entered::Busy));
    // A kernel that is short of something is asked again later, unless there is something to deliver.
    let has_work = core.has_deliveries() || !is_busy && core.queued() > 0;
    let more = has_work || entered.is_err() || is_news;
    let at_most = |most| Some(progress.call_again_in.map_or(most, |time| time.min(most)));
    let call_again_in = match (more, was_full, is_busy || closes_again) {
        (true, ..) => Some(Duration::ZERO),
        (_, true, _) => at_most(SOON),
        (.., true) => at_most(SHORTAGE),
        _ => progress.call_again_in,
    };
    Progress { status, call_again_in }
}

/// Resumes streams that waited for a buffer.
#[inline]
fn unpark<R: Ring>(inner: &mut Inner<R>) {
    if inner.core.has_parked() {
        unpark_some(inner);
    }
}

#[cold]
fn unpark_some<R: Ring>(inner: &mut Inner<R>) {
    let Inner { core, slabs, .. } = inner;
    core.unpark(|core, user_data| {
        let slab = slab_of::<R>(slabs, UserData::tag(user_data));
        slab.is_some_and(|slab| slab.unpark(core, user_data))
    });
}

/// Begins to end the run, unless it is that of another process, from which a handler has forked this one.
fn end<R: RingParts>(ring: &mut R, cause: FirstCause<R>) -> Pass<R> {
    if inner(ring).core.is_forked() {
        return Pass::Ended(Err(RingError::Forked));
    }
    teardown::begin(inner(ring), cause);
    Pass::Went(PROGRESSED)
}

/// A call into the kernel failed for good.
#[cold]
fn fail<R: RingParts>(ring: &mut R, error: std::io::Error) -> Pass<R> {
    if !inner(ring).core.is_void {
        return end(ring, FirstCause::Api(error));
    }
    let again = std::io::Error::from_raw_os_error(libc::EBADR);
    teardown::begin(inner(ring), FirstCause::Api(error));
    teardown::give_up(&mut Operations(ring), Some(again));
    Pass::Ended(conclude(inner(ring)))
}

/// Delivers all visible completions and, after each, what its handler has posted. If it may wait, and nothing
/// else is left to do in this pass, it then waits for more and goes on. Stops when there is a cause to end
/// the run. Returns whether there was a completion; outside a teardown, only completions that an operation
/// claims count.
///
/// This is the only place from which operations are called, so that the compiler can make one function of it
/// all.
#[inline(always)]
pub fn deliver_all<R: RingParts>(ring: &mut R, round: &Round) -> bool {
    let Inner { core, .. } = inner(ring);
    let before = core.claimed();
    // The caller has entered the kernel before this.
    if core.queue.knows_none() {
        core.look();
    }
    loop {
        let Inner { core, cause, .. } = inner(ring);
        if !core.queue.knows_none() {
            ring.dispatch(round);
        } else if cause.is_some() || !core.find_next(round.may_wait) {
            break;
        }
    }
    inner(ring).core.claimed() != before
}

/// The operations of the ring.
struct Operations<'r, R: RingParts>(&'r mut R);

impl<R: RingParts> Audience<R> for Operations<'_, R> {
    fn inner(&mut self) -> &mut Inner<R> {
        self.0.runtime_mut().inner_mut()
    }

    fn reap(&mut self) -> bool {
        self.inner().core.begin_round();
        let moved = self.0.deliver_all(&Round { may_wait: false });
        // During a teardown, nothing is a cause to end the run any more.
        self.inner().cause = None;
        moved
    }
}

/// One step of the teardown, with completions going to the operations.
fn teardown_pass<R: RingParts>(ring: &mut R, may_wait: bool) -> Pass<R> {
    if inner(ring).core.is_forked() {
        return Pass::Ended(Err(RingError::Forked));
    }
    let progress = teardown::advance(&mut Operations(ring), may_wait);
    match progress {
        teardown::Progress::Moved => Pass::Went(PROGRESSED),
        teardown::Progress::Waiting(time) => {
            Pass::Went(Progress { status: Status::Waiting, call_again_in: Some(time) })
        }
        teardown::Progress::Finished | teardown::Progress::Abandoned => Pass::Ended(conclude(inner(ring))),
    }
}

/// The result of a run that has ended.
fn conclude<R: Ring>(inner: &mut Inner<R>) -> Result<(), RingError<R>> {
    let abandoned = inner.stuck.clone();
    let (cause, mut errors) = match inner.ending.take() {
        Some(Ending { cause, errors, .. }) => (cause, errors),
        None => (FirstCause::Exit, Default::default()),
    };
    let first = match cause {
        FirstCause::Exit => errors.pop_front(),
        _ => None,
    };
    let teardown = Vec::from(errors);
    let unusable = abandoned.as_ref().is_some_and(|stuck| stuck.errno.is_some());
    Err(match (cause, first, abandoned) {
        (FirstCause::Setup(error), _, abandoned) => RingError::Setup(Cause { error, teardown, abandoned }),
        (FirstCause::Completion(error), _, abandoned) => {
            RingError::Completion(Cause { error, teardown, abandoned })
        }
        // That the ring is unusable says the same and more.
        (FirstCause::Api(_), _, Some(stuck)) if unusable => RingError::Abandoned { stuck },
        (FirstCause::Api(error), _, abandoned) => RingError::Api(Cause { error, teardown, abandoned }),
        (FirstCause::Exit, Some(error), abandoned) => {
            RingError::Teardown(Cause { error, teardown, abandoned })
        }
        (FirstCause::Exit, None, Some(stuck)) => RingError::Abandoned { stuck },
        (FirstCause::Exit, None, None) => return Ok(()),
    })
}

// ---- the rest ---------------------------------------------------------------------------------

/// `submitter(TAG)`: submits from outside a handler.
pub fn submitter<R: RingParts, Op: RingOperation<R>>(ring: &mut R, tag: Tag<R, Op>) -> Submitter<'_, R, Op> {
    let inner = inner(ring);
    if inner.core.is_forked() {
        inner.core.close(SubmitError::Forked);
    }
    // The loop may have looked at the clock long ago.
    inner.core.watch.look();
    Submitter::new(inner, tag)
}

/// `handle()`: a strong handle.
pub fn handle<R: RingParts>(ring: &mut R) -> RingHandle<R> {
    let core = &mut inner(ring).core;
    if !core.is_forked() {
        core.arm_wake();
        if core.is_enabled() && core.is_owner() && core.queued() > 0 {
            // Between turns, there may be no other enter before somebody uses the handle. The next enter will
            // meet the same error.
            core.enter(Patience::Submit).ok();
        }
    }
    RingHandle::new(&core.shared, true)
}

/// `stats()`.
pub fn stats<R: RingParts>(ring: &R) -> Stats {
    let Inner { core, slabs, .. } = ring.runtime().inner();
    let operations = R::OPERATIONS.iter().map(|(tag, name)| {
        let in_flight = look_at_slab::<R>(slabs, *tag).map_or(0, AnySlab::in_flight);
        OperationStats { name, in_flight, tag: *tag }
    });
    let (enters, completions) = core.figures();
    Stats {
        in_flight: core.in_flight(),
        backlog: core.backlogged(),
        enters,
        completions,
        foreign: core.counters.foreign,
        warnings: core.counters.warnings,
        returned_late: core.counters.returned_late,
        detached_failed: core.counters.detached_failed,
        undelivered: core.overdue.len() as u64,
        uncleared: core.queue.uncleared() as u64,
        operations: operations.collect(),
    }
}

/// The body of the ring's `Debug`.
///
/// # Errors
///
/// Those of the formatter.
pub fn fmt<R: RingParts>(ring: &R, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let core = &ring.runtime().inner().core;
    let names: Vec<_> = R::OPERATIONS.iter().map(|(_, name)| name).collect();
    f.debug_struct(R::NAME)
        .field("phase", &core.phase)
        .field("in_flight", &core.in_flight())
        .field("backlog", &core.backlogged())
        .field("operations", &names)
        .finish()
}
