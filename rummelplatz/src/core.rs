//! What all operations of a ring share, whatever their types: the queue, what waits for room in it,
//! and the accounts.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use io_uring::opcode;

use crate::alarms::Alarms;
use crate::asked_again::AskedAgain;
use crate::backlog::Backlog;
use crate::buffers::BufferPool;
use crate::clock::{Clock, Watch, nanoseconds};
use crate::config::{Options, RawRing};
use crate::deadlines::Deadlines;
use crate::error::{InvalidEntry, SubmitError};
use crate::eventfd::Eventfd;
use crate::facts::{Bound, Flags};
use crate::failures::Refused;
use crate::fixed::{FixedBuffers, FixedFile};
use crate::idle::IdleLimit;
use crate::inbox::{Overdue, Shared};
use crate::insistent::Insistent;
use crate::lifecycle::Phase;
use crate::mutant;
use crate::own::Own;
use crate::parked::Parked;
use crate::queue::{Cqe, Entered, Kernel as _, Patience, Uring};
use crate::request::{Placed, Terms};
use crate::resting::Resting;
use crate::slab::{Identity, Lent};
use crate::thread::this_thread;
use crate::user_data::{Control, UserData};
use crate::wake_poll::WakePoll;

/// The outcome of a completion that no operation claims.
pub(crate) enum OwnTraffic {
    /// Nothing more.
    Settled,
    /// Another thread has woken the ring.
    Woken,
    /// The alarm has gone off, with this result.
    Alarm(i32),
    /// The kernel refuses what the ring can't do without, for this reason (an `errno`).
    Refused(i32),
}

/// See the [module documentation](self).
pub(crate) struct Core {
    pub(crate) queue: Uring,
    backlog: Backlog,
    own: Own,
    /// Memory for a chain while it is linked.
    pub(crate) links: Vec<Placed>,
    /// Streams that wait for a buffer to come back.
    parked: Parked,
    /// Streams that rest after an error.
    pub(crate) resting: Resting,
    /// Streams whose end or pause was asked for, and that may have gone on since.
    insistent: Insistent,
    /// Requests that were cancelled, but that no cancel has found yet.
    pub(crate) asked_again: AskedAgain,
    pub(crate) deadlines: Deadlines<()>,
    /// Streams that may not be idle for too long: when each is looked after.
    pub(crate) idle_limits: Deadlines<IdleLimit>,
    /// Those of them that are in a pause, by `user_data`: they are not looked after.
    paused_limits: BTreeMap<u64, (Identity, IdleLimit)>,
    pub(crate) alarms: Alarms,
    /// What was sent to operations that have no room for it.
    pub(crate) overdue: Overdue,
    pub(crate) phase: Phase,
    /// Why nothing is accepted; `None` if requests are accepted.
    closed: Option<SubmitError>,
    /// How many requests in flight keep the ring running.
    pub(crate) foreground: usize,
    /// How many requests in flight do not keep the ring running.
    pub(crate) background: usize,
    /// How many requests in flight have ended themselves, and wait only for the timer that is linked to them.
    pub(crate) half_ended: usize,
    /// How many of those in flight were submitted during teardown.
    pub(crate) late: usize,
    /// The slot of the stream that was delivered last, until what its handler returned is dealt with.
    pub(crate) lent: Option<Lent>,
    /// How many completions no operation has claimed, outside of teardowns.
    unclaimed: u32,
    /// Whether a request in flight has got a completion since this was last reset by the teardown, which uses
    /// it.
    pub(crate) settled: bool,
    /// How many cancels were not answered yet.
    pub(crate) cancels: usize,
    /// Whether the kernel has lost a completion in this run (`EBADR`, which it says only once): then nothing is
    /// worth waiting for.
    pub(crate) is_void: bool,
    /// Whether nothing kept the ring running when the last pass began.
    pub(crate) was_alone: bool,
    /// How much had been [delivered](Self::delivered) when this round of deliveries began.
    round_began: u32,
    pub(crate) counters: Counters,
    /// A request that is accepted is born at the time that this shows.
    pub(crate) watch: Watch,
    pub(crate) clock: Clock,
    /// Distinguishes this ring from all others of the process.
    pub(crate) serial: u64,
    /// The thread that the kernel considers the owner, once there is one.
    owner: Option<u64>,
    /// Whether the kernel takes entries.
    enabled: bool,
    pub(crate) shared: Arc<Shared>,
    /// Readable when there is something for a turn to do. (The ring's own descriptor is not enough: whoever
    /// sleeps on it is not woken when work for a `DEFER_TASKRUN` ring comes.)
    pub(crate) ready: Eventfd,
    wake_poll: WakePoll,
    pub(crate) options: Options,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counters {
    pub(crate) foreign: u64,
    pub(crate) warnings: u64,
    pub(crate) returned_late: u64,
    pub(crate) detached_failed: u64,
}

/// How long to wait before the kernel is asked again to take what it was too short of something to take.
pub(crate) const SHORTAGE: Duration = Duration::from_millis(10);

static NEXT_SERIAL: AtomicU64 = AtomicU64::new(1);

impl Core {
    pub(crate) fn new(raw: RawRing, options: Options) -> Core {
        let serial = NEXT_SERIAL.fetch_add(1, Ordering::Relaxed);
        let closed = raw.kernel.is_forked().then_some(SubmitError::Forked);
        let mut core = Core {
            queue: Uring::new(raw.kernel, raw.asides, serial),
            backlog: Backlog::new(options.backlog_limit),
            own: Own::new(),
            links: Vec::new(),
            parked: Parked::default(),
            resting: Resting::new(),
            insistent: Insistent::new(),
            asked_again: AskedAgain::new(),
            deadlines: Deadlines::new(),
            idle_limits: Deadlines::new(),
            paused_limits: BTreeMap::new(),
            alarms: Alarms::new(),
            overdue: Overdue::default(),
            phase: Phase::Idle,
            closed,
            foreground: 0,
            background: 0,
            half_ended: 0,
            late: 0,
            lent: None,
            unclaimed: 0,
            settled: false,
            cancels: 0,
            is_void: false,
            was_alone: false,
            round_began: 0,
            counters: Counters::default(),
            watch: Watch::new(),
            clock: Clock::new(),
            serial,
            owner: None,
            enabled: !raw.disabled,
            shared: Shared::new(raw.waker),
            ready: raw.ready,
            wake_poll: WakePoll::new(),
            options,
        };
        if let Some(count) = core.options.direct_descriptors {
            core.queue.leave_files_to_kernel(count, &core.shared.waker);
        }
        core.refresh();
        core
    }

    // ---- who may use the ring -----------------------------------------------------------------

    /// Whether this process was forked off the one that made the ring.
    pub(crate) fn is_forked(&self) -> bool {
        self.queue.is_forked()
    }

    /// Whether the kernel considers this thread the owner, or there is no owner yet.
    pub(crate) fn is_owner(&self) -> bool {
        self.owner.is_none_or(|owner| owner == this_thread())
    }

    /// Whether the kernel may have seen entries of this ring.
    pub(crate) fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// Makes this thread the owner and lets the kernel take entries.
    pub(crate) fn enable(&mut self) -> io::Result<()> {
        if !self.enabled {
            self.queue.enable()?;
            self.enabled = true;
        }
        self.owner = Some(this_thread());
        self.watch.look();
        Ok(())
    }

    /// Sets up what is asked of the kernel for the owner, as far as that was not done yet.
    pub(crate) fn set_up_owner(&mut self) -> io::Result<()> {
        self.options.set_up_owner(&mut self.queue)
    }

    /// Closes the direct descriptors whose last clone is gone; `looks_again` if that is done again before
    /// anybody waits. Returns whether it must be tried again soon.
    #[inline]
    pub(crate) fn close_left(&mut self, looks_again: bool) -> bool {
        self.queue.direct() > 0 && self.queue.close_left(if looks_again { this_thread() } else { 0 })
    }

    /// Sets whether the kernel signals [`ready`](Self::ready) for each completion.
    pub(crate) fn notify(&mut self, on: bool) -> io::Result<()> {
        self.queue.notify(on.then_some(&self.ready))
    }

    // ---- whether requests are accepted --------------------------------------------------------

    /// Accepts requests again.
    pub(crate) fn open(&mut self) {
        self.closed = None;
        self.refresh();
    }

    /// Refuses requests from now on.
    pub(crate) fn close(&mut self, why: SubmitError) {
        self.closed = Some(why);
        self.refresh();
    }

    /// Whether requests are accepted at all.
    pub(crate) fn accepts(&self) -> Result<(), SubmitError> {
        self.closed.map_or(Ok(()), Err)
    }

    /// The terms of a request that is accepted now: it is remembered with these `flags`, and as late in a teardown.
    pub(crate) fn terms(&self, flags: Flags) -> Terms {
        let late = if self.phase.is_teardown() { Flags::LATE } else { Flags::EMPTY };
        Terms { ring: self.serial, flags: flags | late, born: self.watch.shown() }
    }

    /// Counts a request with these flags that was accepted.
    #[inline]
    pub(crate) fn count(&mut self, flags: Flags) {
        *self.counter(flags) += 1;
        self.late += usize::from(self.phase.is_teardown());
    }

    /// Takes a request with these flags out of the counts.
    pub(crate) fn count_off(&mut self, flags: Flags) {
        *self.counter(flags) -= 1;
        if flags.intersects(Flags::LATE) {
            self.late -= 1;
        }
    }

    fn counter(&mut self, flags: Flags) -> &mut usize {
        let keeps_running = !flags.intersects(Flags::BACKGROUND) && !flags.are_halted();
        if keeps_running { &mut self.foreground } else { &mut self.background }
    }

    /// Changes these flags of a stream in flight, and counts it where it belongs then.
    pub(crate) fn recount(&mut self, flags: &mut Flags, change: impl FnOnce(&mut Flags)) {
        *self.counter(*flags) -= 1;
        change(flags);
        *self.counter(*flags) += 1;
    }

    /// Notes that the kernel does not have a stream any more, which may go on later.
    pub(crate) fn set_parked(&mut self, user_data: u64, flags: &mut Flags) {
        // What is armed under this name later must not be cancelled for a pause that is over.
        if flags.intersects(Flags::STOPPING) && !mutant::is("a pause is insisted on") {
            self.insistent.remove(user_data);
        }
        self.recount(flags, |flags| {
            flags.insert(Flags::PARKED);
            flags.remove(Flags::STOPPING);
        });
    }

    /// How many requests are in flight.
    #[inline]
    pub(crate) fn in_flight(&self) -> usize {
        self.foreground + self.background
    }

    /// Makes room for `count` requests, or says why not.
    #[inline]
    pub(crate) fn admit(&mut self, count: usize) -> Result<(), SubmitError> {
        if self.queue.open_places() >= count { Ok(()) } else { self.admit_slowly(count) }
    }

    #[cold]
    #[inline(never)]
    fn admit_slowly(&mut self, count: usize) -> Result<(), SubmitError> {
        self.admit_chain(count, count)
    }

    /// Makes room for this many requests, which have this many entries, timers included; or says why not. If
    /// the queue has no room for all of them, the backlog must have.
    pub(crate) fn admit_chain(&mut self, requests: usize, entries: usize) -> Result<(), SubmitError> {
        self.accepts()?;
        self.flush(entries);
        if self.has_room(entries) || self.backlog.admits(requests) {
            return Ok(());
        }
        Err(SubmitError::Full)
    }

    // ---- entries on their way to the kernel ---------------------------------------------------

    /// Whether `count` entries can be queued now, behind those that came before.
    fn has_room(&mut self, count: usize) -> bool {
        self.backlog.is_empty() && self.queue.room() >= count
    }

    /// Queues an admitted request, behind those that came before. One that receives from a pool must be
    /// [bound](Self::bind).
    pub(crate) fn push(&mut self, placed: Placed) {
        match self.has_room(1) {
            true => self.queue.push(placed),
            false => {
                self.backlog.push(placed, false);
                self.refresh();
            }
        }
    }

    /// Keeps the deadline of a request that was just accepted and has this much time. Returns whether most
    /// deadlines that are kept are those of requests that are over.
    #[inline]
    pub(crate) fn keep_deadline(&mut self, identity: Identity, time: Duration) -> bool {
        let now = self.queue.now();
        let when = self.deadlines.keep(identity, time, now);
        self.wake_by(when, now);
        self.deadlines.is_crowded(self.in_flight())
    }

    /// Keeps the limit of a stream that was just accepted. Returns whether most limits that are kept are those of
    /// streams that are over.
    pub(crate) fn keep_idle_limit(&mut self, identity: Identity, limit: IdleLimit) -> bool {
        let now = self.queue.now();
        let when = self.idle_limits.keep_with(identity, limit, limit.step(), now);
        self.wake_by(when, now);
        self.idle_limits.is_crowded(self.in_flight())
    }

    /// Puts the limit of a stream aside until [`end_pause`](Self::end_pause), so that it does not wake the ring.
    pub(crate) fn put_limit_aside(&mut self, identity: Identity, limit: IdleLimit) {
        self.paused_limits.insert(identity.user_data, (identity, limit));
    }

    /// Notes that a stream is not paused any more; `goes_on` unless it ends.
    pub(crate) fn end_pause(&mut self, user_data: u64, flags: &mut Flags, goes_on: bool) {
        self.recount(flags, |flags| flags.remove(Flags::PAUSED));
        if let Some((identity, limit)) = self.paused_limits.remove(&user_data)
            && goes_on
        {
            // There are not more of them than before the pause.
            self.keep_idle_limit(identity, limit);
        }
    }

    /// Makes sure that the ring wakes by this time, if it is one.
    #[inline]
    fn wake_by(&mut self, when: Option<u64>, now: Duration) {
        if let Some(when) = when
            && self.alarms.is_first(when)
        {
            self.set_first_alarm(when, now);
        }
    }

    #[cold]
    fn set_first_alarm(&mut self, when: u64, now: Duration) {
        // The time of an alarm begins when the kernel takes it in. For what is submitted before a run, the
        // alarm is set when the run begins.
        if !self.phase.may_begin() {
            self.set_alarm(when, now);
        }
    }

    /// Lets the kernel wake the ring at this time, unless there is an alarm by then.
    pub(crate) fn set_alarm(&mut self, when: u64, now: Duration) {
        if let Some(time) = self.alarms.set(when, now) {
            self.push_control(Placed::alarm(time, Control::Alarm as u64));
        }
    }

    /// Queues admitted requests and their timers, so that no other entry comes between them, and no submit
    /// ends between them.
    pub(crate) fn push_chain(&mut self, chain: impl ExactSizeIterator<Item = Placed>) {
        let fits = self.has_room(chain.len());
        if mutant::is("chains are torn") {
            return chain.for_each(|placed| self.push(placed));
        }
        let last = chain.len().saturating_sub(1);
        for (index, placed) in chain.enumerate() {
            let is_timer = UserData::timed(placed.user_data()).is_some();
            match (fits, is_timer) {
                (true, _) => self.queue.push(placed),
                (false, true) => self.backlog.push_control(placed, index < last),
                (false, false) => self.backlog.push(placed, index < last),
            }
        }
        self.refresh();
    }

    /// Queues an entry of the ring's own, which needs no admission.
    fn push_control(&mut self, placed: Placed) {
        if self.has_room(1) || mutant::is("a cancel overtakes") && self.queue.room() > 0 {
            self.queue.push(placed);
        } else if !mutant::is("a cancel needs room") {
            self.backlog.push_control(placed, false);
            self.refresh();
        }
    }

    /// Moves what waits into the submission queue, and submits to the kernel, as far as possible or until
    /// there is room for `count` more.
    fn flush(&mut self, count: usize) {
        if self.queue.open_places() < count {
            self.flush_slowly(count);
        }
    }

    /// Moves on what waits for room in the submission queue, if anything does.
    #[inline]
    pub(crate) fn move_backlog_on(&mut self) {
        if !self.backlog.is_empty() {
            self.flush_slowly(1);
        }
    }

    #[cold]
    fn flush_slowly(&mut self, count: usize) {
        let count = count.min(self.queue.capacity());
        loop {
            self.move_backlog();
            // Only the owner enters the ring: for the kernel, a request belongs to the thread that submits
            // it.
            if self.has_room(count) || !self.enabled || !self.is_owner() {
                break;
            }
            let queued = self.queue.queued();
            // The loop meets an error again, and deals with it.
            let entered = self.queue.enter(Patience::Submit);
            if !matches!(entered, Ok(Entered::Done)) || self.queue.queued() >= queued {
                break;
            }
        }
        self.refresh();
    }

    /// Moves what waits into the submission queue, as far as there is room.
    #[inline]
    pub(crate) fn move_backlog(&mut self) {
        if !self.backlog.is_empty() {
            self.move_chains();
        }
        self.refresh();
    }

    #[cold]
    fn move_chains(&mut self) {
        while let Some(chain) = self.backlog.first_chain()
            && self.queue.room() >= chain
        {
            for _ in 0..chain {
                if let Some(placed) = self.backlog.pop() {
                    self.queue.push(placed);
                }
            }
        }
    }

    /// Opens the queue if requests can be queued without a further check, and the loop needs none after they
    /// have ended: nothing waits, and requests are neither refused nor late. Closes it otherwise.
    #[inline]
    pub(crate) fn refresh(&mut self) {
        let nothing_waits = self.backlog.is_empty() && self.overdue.operations() == 0;
        self.queue.set_open(self.closed.is_none() && nothing_waits && !self.phase.is_teardown());
    }

    /// How many entries the kernel has not taken in.
    pub(crate) fn queued(&mut self) -> usize {
        self.queue.queued() + self.backlog.len()
    }

    /// How many requests wait for room in the submission queue.
    pub(crate) fn backlogged(&self) -> usize {
        self.backlog.requests()
    }

    /// Empties the backlog. Requests in it end as never submitted.
    pub(crate) fn empty_backlog(&mut self) {
        let mut wake = None;
        while let Some(placed) = self.backlog.pop() {
            let user_data = placed.user_data();
            if UserData::cancelled_tag(user_data).is_some() {
                self.count_answer();
                continue;
            }
            if UserData::tag(user_data) != 0 && !mutant::is("the backlog is forgotten") {
                let ends_well = mutant::is("what was never submitted ends well");
                self.end_without_kernel(user_data, if ends_well { 0 } else { -libc::ECANCELED });
                continue;
            }
            match Control::from_bits(user_data) {
                Some(Control::Cancel) => self.count_answer(),
                // The next run needs it.
                Some(Control::Wake) => wake = Some(placed),
                Some(Control::Alarm) => self.alarms.forget_last(),
                Some(Control::Untracked) | None => {}
            }
        }
        if let Some(placed) = wake {
            self.push_control(placed);
        }
        self.refresh();
    }

    // ---- whether there is something to do -----------------------------------------------------
    //
    // There are four places to look at: what the ring has made itself, what waits for room in the submission queue,
    // what is in that queue, and what the kernel has posted.

    /// Whether the ring has something to deliver that it has made itself, or streams to arm.
    #[inline]
    fn has_own_work(&self) -> bool {
        self.own.waiting() > 0 || self.parked.may_go_on()
    }

    /// Whether a wait might last although there is something to do: that is what the kernel knows nothing of, the ring's
    /// own work and what finds no room. (What has been posted ends a wait at once, so nobody looks for it; and what is
    /// queued, the enter takes along.)
    #[inline]
    pub(crate) fn must_not_wait(&self) -> bool {
        !self.backlog.is_empty() || self.has_own_work()
    }

    /// Whether there is something to do even if the kernel takes in nothing: the ring's own work, and what the kernel
    /// has posted or holds back.
    pub(crate) fn has_deliveries(&mut self) -> bool {
        self.has_own_work() || self.queue.has_completions() || self.queue.holds_back()
    }

    /// Whether there is nothing to do in any of the four places, so that a ring which nothing keeps running is over.
    /// Requests in the background might see to it that this is never so. Where there are any, it is enough that the last
    /// pass began with nothing else: whatever came of the other requests has been delivered.
    pub(crate) fn has_nothing_left(&mut self) -> bool {
        self.background > 0 && self.was_alone || self.queued() == 0 && !self.has_deliveries()
    }

    // ---- rounds and waits ---------------------------------------------------------------------

    /// Finds out which completion is next, when none is known of. Waits for one if it may and there is
    /// nothing else to do. Returns false if there is none, if the round of deliveries is over, or if the wait has
    /// failed, which the loop must deal with.
    #[inline(always)]
    pub(crate) fn find_next(&mut self, may_wait: bool) -> bool {
        // Without `may_be_more`, a look before the wait would mostly be in vain. If there is a completion all
        // the same, an enter does not wait.
        let looks_first = self.queue.may_be_more();
        if looks_first {
            if self.is_round_over() {
                return false;
            }
            if self.look() {
                return true;
            }
        }
        // What a pass looks after before it waits; `must_not_wait` asks only for what is left then. Whoever has direct
        // descriptors may have left some. (In a function of its own, this costs an instruction for each wait.)
        let others = self.parked.pools() | self.insistent.len() | self.own.waiting() | self.queue.direct();
        if may_wait && self.queue.is_open() && others == 0 && self.foreground > 0 {
            return self.wait_as_usual();
        }
        !looks_first && !self.is_round_over() && self.look()
    }

    /// Begins a round of deliveries, which ends even if handlers submit again and again what completes at once.
    pub(crate) fn begin_round(&mut self) {
        self.round_began = self.delivered();
    }

    /// Whether so much was delivered in this round that it is time for other things.
    fn is_round_over(&self) -> bool {
        const MOST: u32 = 1024;
        self.delivered().wrapping_sub(self.round_began) >= MOST
    }

    /// Makes the messages due that are to be delivered last, when there is nothing else to deliver. Returns
    /// false if there are none, or if this was done since the kernel was last entered, or if the round is over.
    pub(crate) fn find_last(&mut self) -> bool {
        if self.is_round_over() {
            return false;
        }
        let (enters, _) = self.figures();
        let any = self.own.hasten_last(enters);
        if any {
            self.own_is_due();
        }
        any
    }

    /// Makes the messages due that are to be delivered last, like all others.
    pub(crate) fn hasten_last(&mut self) {
        self.own.hasten_all();
        self.own_is_due();
    }

    /// Queues a message, for delivery when there is nothing else to deliver.
    pub(crate) fn deliver_last(&mut self, user_data: u64) {
        self.own.push_last(user_data);
    }

    /// Enters the kernel and waits for a completion, when there is nothing else to do; then looks which is
    /// next. Returns false if the enter has failed: nothing is delivered then until the next enter reports
    /// that.
    #[inline(always)]
    fn wait_as_usual(&mut self) -> bool {
        if !self.queue.wait_as_usual() {
            return false;
        }
        self.watch.pass();
        // The ring has made no completion itself.
        self.own.pass_to_kernel();
        self.queue.look(u32::MAX);
        true
    }

    /// Enters the kernel, and submits all that can be submitted.
    #[inline]
    pub(crate) fn enter(&mut self, patience: Patience) -> io::Result<Entered> {
        let entered = self.queue.enter(patience);
        if let Err(error) = &entered {
            self.is_void |= error.raw_os_error() == Some(libc::EBADR);
        }
        self.watch.look();
        match self.backlog.is_empty() {
            true => self.queue.reopen(),
            false => self.move_backlog(),
        }
        entered
    }

    /// As [`enter`](Self::enter). If the kernel is short of something and there is nothing to deliver, waits a
    /// little for completions, which make room; but only if it may.
    #[inline]
    pub(crate) fn enter_or_make_room(&mut self, patience: Patience, may_wait: bool) -> io::Result<Entered> {
        match self.enter(patience) {
            Ok(Entered::Busy) if may_wait && !self.has_deliveries() => {
                self.enter(Patience::ReapFor(SHORTAGE))
            }
            entered => entered,
        }
    }

    // ---- pools --------------------------------------------------------------------------------

    /// Fills in the group of the pool that a request receives from, if there is one, and registers the pool
    /// if that is not done yet. Returns the group; 0 if there is no pool.
    #[inline]
    pub(crate) fn bind(&mut self, placed: &mut Placed) -> Result<Bound, SubmitError> {
        let Some(pool) = placed.pool() else { return Ok(Bound::default()) };
        let is_incremental = pool.is_incremental();
        if is_incremental && !placed.takes_pieces() {
            return Err(SubmitError::Invalid(InvalidEntry::TakesWholeBuffers));
        }
        let group = self.queue.adopt(pool, &self.shared.waker)?;
        placed.bind(group);
        Ok(Bound { group, is_incremental })
    }

    /// As [`bind`](Self::bind), for a stream. If it receives from a pool, also makes sure that the ring is
    /// woken when a buffer comes back.
    pub(crate) fn bind_stream(&mut self, placed: &mut Placed) -> Result<Bound, SubmitError> {
        let receives = placed.pool().is_some();
        let bound = self.bind(placed)?;
        if receives {
            self.arm_wake();
        }
        Ok(bound)
    }

    /// Registers memory, unless it is registered already.
    pub(crate) fn adopt_memory(&mut self, buffers: &FixedBuffers) -> Result<(), SubmitError> {
        self.accepts()?;
        Ok(self.queue.adopt_memory(buffers)?)
    }

    /// Registers a file.
    pub(crate) fn adopt_file(&mut self, file: BorrowedFd<'_>) -> Result<FixedFile, SubmitError> {
        self.accepts()?;
        Ok(self.queue.adopt_file(file)?)
    }

    /// Takes a file out of the ring, if it is registered there, nobody else has it, and this thread may tell
    /// the kernel. Otherwise the file comes back.
    pub(crate) fn expel_file(&mut self, file: FixedFile) -> Result<(), FixedFile> {
        match self.is_owner() && !self.is_forked() {
            true => self.queue.expel_file(file),
            false => Err(file),
        }
    }

    /// Lets a stream wait for a buffer of its pool, behind those that wait already.
    pub(crate) fn park(&mut self, user_data: u64, group: u16) {
        self.parked.add(user_data, group);
    }

    /// Lets a stream rest for this time.
    pub(crate) fn rest(&mut self, user_data: u64, time: Duration) {
        let now = self.queue.now();
        let when = nanoseconds(now.saturating_add(time));
        self.resting.add(user_data, when);
        self.set_alarm(when, now);
    }

    /// If nobody holds a buffer of this pool, so that none will come back: returns how many were ever taken.
    pub(crate) fn untouched(&self, group: u16) -> Option<u16> {
        let untouched = self.queue.pool(group).map_or(Some(0), BufferPool::untouched);
        if mutant::is("hopeless though a buffer is held") { untouched.or(Some(0)) } else { untouched }
    }

    #[inline]
    pub(crate) fn has_parked(&self) -> bool {
        self.parked.pools() > 0
    }

    /// Resumes as many streams as there are buffers for in each pool. `arm` resumes one, and returns whether it did.
    pub(crate) fn unpark(&mut self, arm: impl FnMut(&mut Core, u64) -> bool) {
        let mut parked = std::mem::take(&mut self.parked);
        let buffers = |core: &Core, group| core.queue.pool(group).map_or(usize::MAX, BufferPool::wait);
        parked.resume(self, buffers, arm);
        self.parked = parked;
    }

    /// Forgets which requests were to go on or to end, and when: a teardown sees to that itself.
    pub(crate) fn forget_plans(&mut self) {
        self.parked.forget();
        self.resting.forget();
        self.insistent.forget();
        self.asked_again.forget();
        self.deadlines.forget();
        self.idle_limits.forget();
        self.paused_limits.clear();
    }

    // ---- completions --------------------------------------------------------------------------

    /// Ends a request that the kernel does not have, as if it had posted this result.
    pub(crate) fn end_without_kernel(&mut self, user_data: u64, result: i32) {
        self.own.push(user_data, result);
        self.own_is_due();
    }

    /// Notes that a completion of the ring's own is due, so those that are known of no longer tell which is
    /// next.
    fn own_is_due(&mut self) {
        if !mutant::is("what is known stays known") {
            self.queue.look_again();
        }
    }

    /// The requests whose end was given to [`end_without_kernel`](Self::end_without_kernel) and not
    /// delivered yet.
    pub(crate) fn ending(&self) -> HashSet<u64> {
        self.own.ending()
    }

    /// The next completion, if one is visible: one of the kernel's and, after each of those, all that the
    /// ring had made itself by then. `None` may also just mean the end of a round: operations that post to
    /// each other don't keep the kernel waiting.
    #[inline(always)]
    pub(crate) fn next(&mut self) -> Option<Cqe> {
        loop {
            if let Some(cqe) = self.queue.pop_known() {
                return Some(cqe);
            }
            if !self.look() {
                return None;
            }
        }
    }

    /// Finds out which completion is next. False if there is none.
    #[inline(always)]
    pub(crate) fn look(&mut self) -> bool {
        if self.own.is_due() {
            return self.look_at_both();
        }
        self.own.pass_to_kernel();
        self.queue.look(u32::MAX)
    }

    #[cold]
    #[inline(never)]
    fn look_at_both(&mut self) -> bool {
        match self.own.next() {
            Some(cqe) => {
                self.queue.put_first(cqe);
                true
            }
            // After that one come those that the ring has made meanwhile.
            None => self.queue.look(1),
        }
    }

    /// How often the kernel was entered, and how many of its completions were seen.
    pub(crate) fn figures(&self) -> (u64, u64) {
        let (enters, completions) = self.queue.figures();
        (enters + self.watch.passes(), completions)
    }

    /// How many completions were seen, except those that no operation has claimed outside of teardowns. The
    /// count starts at an arbitrary number, and wraps.
    pub(crate) fn claimed(&self) -> u32 {
        self.delivered().wrapping_sub(self.unclaimed)
    }

    /// How many completions were delivered, those of the kernel and the ring's own; wraps.
    fn delivered(&self) -> u32 {
        self.queue.seen().wrapping_add(self.own.seen())
    }

    /// How many completions that the ring has made itself are to be delivered, other than those that come
    /// last.
    pub(crate) fn own_due(&self) -> usize {
        self.own.due()
    }

    /// Counts a completion that no operation claims.
    pub(crate) fn count_unclaimed(&mut self) {
        self.unclaimed = self.unclaimed.wrapping_add(u32::from(!self.phase.is_teardown()));
    }

    /// Settles a completion of the ring's own traffic, or a foreign one.
    pub(crate) fn settle_control(&mut self, cqe: Cqe) -> OwnTraffic {
        match Control::from_bits(cqe.user_data) {
            Some(Control::Wake) => return self.settle_wake(cqe),
            Some(Control::Alarm) => return OwnTraffic::Alarm(cqe.result),
            Some(Control::Cancel) => self.count_answer(),
            Some(Control::Untracked) => {}
            None => self.count_foreign(&cqe),
        }
        OwnTraffic::Settled
    }

    fn settle_wake(&mut self, cqe: Cqe) -> OwnTraffic {
        self.shared.waker.reset();
        let (enters, _) = self.figures();
        match self.wake_poll.complete(&cqe, enters) {
            Ok(false) => {}
            Ok(true) => self.arm_wake(),
            Err(Refused(errno)) => return OwnTraffic::Refused(errno),
        }
        OwnTraffic::Woken
    }

    /// Counts a completion that names no request in flight. Does not count the notification of a zero-copy
    /// send that was ended by its chain before it began: that comes after the end of the send.
    pub(crate) fn count_foreign(&mut self, cqe: &Cqe) {
        // With `IORING_SEND_ZC_REPORT_USAGE`, the sign bit of its result is set.
        let is_notification = io_uring::cqueue::notif(cqe.flags) && !io_uring::cqueue::more(cqe.flags);
        if !is_notification || cqe.result & i32::MAX != 0 {
            self.counters.foreign += 1;
        }
    }

    // ---- control entries ----------------------------------------------------------------------

    /// Asks the kernel to cancel a request, and asks again later if the kernel does not find it.
    pub(crate) fn cancel(&mut self, user_data: u64) {
        self.push_cancel(user_data, UserData::of_cancel(user_data));
    }

    /// As [`cancel`](Self::cancel), for a stream. If it goes on, its end is [asked for
    /// again](Self::insist_on); but not because of completions from before the kernel knew of the cancel.
    pub(crate) fn cancel_stream(&mut self, user_data: u64) {
        if !self.phase.is_teardown() {
            self.insistent.ask(user_data);
        }
        self.cancel(user_data);
    }

    /// Asks the kernel to cancel a request or a timer, without a look at the answer: the teardown asks again
    /// itself.
    pub(crate) fn cancel_once(&mut self, user_data: u64) {
        self.push_cancel(user_data, Control::Cancel as u64);
    }

    fn push_cancel(&mut self, target: u64, name: u64) {
        self.cancels += 1;
        self.push_control(Placed::control(opcode::AsyncCancel::new(target).build(), name));
    }

    /// If the kernel has lost a completion, that may have been one of the ring's own traffic: expects none of
    /// these any more.
    pub(crate) fn forget_lost(&mut self) {
        if std::mem::take(&mut self.is_void) {
            self.queue.suspect_lost_files();
            self.alarms.forget();
            self.cancels = 0;
            if self.wake_poll.forget() {
                self.arm_wake();
            }
        }
    }

    /// Notes that a cancel was answered, or will never be sent.
    pub(crate) fn count_answer(&mut self) {
        // A message from another ring can pretend to be an answer: never below zero.
        self.cancels = self.cancels.saturating_sub(1);
    }

    /// Cancels a request again after a pause, because the kernel has not found it.
    pub(crate) fn cancel_later(&mut self, user_data: u64) {
        if self.phase.is_teardown() || mutant::is("a cancel is not repeated") {
            return;
        }
        let now = self.queue.now();
        if let Some(when) = self.asked_again.not_found(user_data, now) {
            self.set_alarm(when, now);
        }
    }

    /// Queues an entry that waits for all that came before it, as if that were the end of it all.
    #[cfg(mutant)]
    pub(crate) fn drain(&mut self) {
        let drain = opcode::Nop::new().build().flags(io_uring::squeue::Flags::IO_DRAIN);
        self.cancels += 1;
        self.push_control(Placed::control(drain, Control::Cancel as u64));
    }

    /// Notes that a stream went on after its end was asked for, so that it is asked for again.
    #[cold]
    pub(crate) fn insist_on(&mut self, user_data: u64) {
        self.insistent.goes_on(user_data);
    }

    /// Asks again for the end of streams that went on, right after an enter.
    #[inline]
    pub(crate) fn insist(&mut self) {
        if self.insistent.len() > 0 {
            self.cancel_again();
        }
    }

    #[cold]
    fn cancel_again(&mut self) {
        let cancels = self.cancels;
        for user_data in self.insistent.due() {
            self.cancel(user_data);
        }
        if self.cancels > cancels {
            // The loop meets an error again, and deals with it.
            self.enter(Patience::Submit).ok();
        }
    }

    /// Makes sure that the ring notices when it is woken.
    pub(crate) fn arm_wake(&mut self) {
        let (enters, _) = self.figures();
        let Some(multishot) = self.wake_poll.arm(enters) else { return };
        let events = libc::POLLIN as u32;
        let waker = io_uring::types::Fd(self.shared.waker.as_raw_fd());
        let entry = opcode::PollAdd::new(waker, events).multi(multishot).build();
        self.push_control(Placed::control(entry, Control::Wake as u64));
    }
}
