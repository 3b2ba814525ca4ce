//! The simulated kernel: what becomes of an entry between the queues.
//!
//! It follows the rules that the real one was seen to follow: entries are taken in one after the other,
//! and perhaps not all; a request is issued at once, or late, and a cancel sees only what was issued; a
//! chain goes on, or breaks; a full completion queue ends streams; and so on. Where the real kernel has a
//! choice, or where it is a race, chance decides, in proportion to [`Faults`].

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::mem;
use std::num::NonZeroU32;
use std::os::fd::{BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use io_uring::opcode;

use super::asked::{Asked, MayEnd};
use super::descriptors::{self, Work};
use super::pool::{Offered, Pool};
use super::rng::Rng;
use super::settings::Settings;
use super::tables::{Files, Memory};
use super::{Answer, Event, Faults, Figures};
use crate::queue::{BufferRing, Change, Cqe, Own, Patience};
use crate::user_data::{Control, UserData};

/// `IORING_CQE_F_BUFFER`; the number of the buffer begins at the bit `BUFFER_SHIFT`.
const F_BUFFER: u32 = 1;
const BUFFER_SHIFT: u32 = 16;
/// `IORING_CQE_F_MORE`.
const F_MORE: u32 = 1 << 1;
/// `IORING_CQE_F_NOTIF`.
const F_NOTIF: u32 = 1 << 3;
/// `ERESTARTSYS`, which a cancelled splice ends with.
const ERESTARTSYS: i32 = 512;

/// The bits of a tag that no operation has.
const NOBODYS_TAG: u64 = u8::MAX as u64;
const _: () = assert!(u8::MAX > UserData::LAST_OPERATION);

/// How soon a poll that goes on reports again what was not dealt with.
const REMINDER: Duration = Duration::from_millis(1);
/// How often a request may be cancelled with nothing else going on: whoever does it more often spins.
const MOST_CANCELS: u32 = 64;
/// How long the ring may wait with nothing going on.
const LONGEST: Duration = Duration::from_secs(3600);
/// How often in a row the kernel may be short of something.
const MOST_BUSY: u32 = 3;
/// The least that a turn of the kernel takes; chance adds to it.
const TURN: Duration = Duration::from_nanos(500);
/// The least by which time goes on.
const MOMENT: Duration = Duration::from_nanos(1);

/// A request that the kernel has.
struct Pending {
    id: u64,
    asked: Asked,
    /// The descriptor that a stream has for itself.
    kept_open: Option<OwnedFd>,
    stage: Stage,
    /// What is linked to it, in order.
    chain: VecDeque<Asked>,
    /// How often it has announced more.
    told: u32,
    /// What a poll has reported, and when it reports that again.
    seen: i32,
    reminder: Duration,
    /// How often it was cancelled since anything else went on.
    cancels: u32,
    /// What a transfer that is to be whole has moved so far.
    moved: u32,
    /// How many bytes a limited stream may still receive.
    left: Option<u32>,
    /// How many bytes the buffer has that was picked for it.
    picked: Option<u32>,
    /// Of a zero-copy send that has ended, except that its memory is in use: whether its chain goes on.
    succeeded: Option<bool>,
    /// Whoever wakes those who wait for its word finds it.
    is_queued: bool,
    /// What it waits for depends on a descriptor, and not on the hook that answers for the kernel.
    waits_for_real: bool,
}

impl Pending {
    /// Whether what is linked to it goes on after this result.
    fn succeeds_with(&self, result: i32) -> bool {
        let Pending { asked, picked, is_queued, .. } = self;
        let length = picked.unwrap_or_else(|| asked.whole());
        let whole = !asked.must_be_whole() || i64::from(result) == i64::from(length);
        let time_is_up = result == -libc::ETIME && asked.etime_is_success();
        // Nobody sees that a wait for a word was cancelled.
        result >= 0 && whole || time_is_up || *is_queued
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// Taken in; no cancel finds it before it is issued, at this time.
    Late(Duration),
    /// Issued, and waiting for what it is about.
    Armed,
    /// Worked on until this time: no cancel ends it.
    Running(Duration),
    /// Done, but reported only at this time.
    Done {
        at: Duration,
        result: i32,
        flags: u32,
    },
    /// All of it was taken from its memory, but it is still being sent from there; nothing ends that.
    Notify(Duration),
    Timer(Duration),
    /// Ends the request with this number if that is not done by then.
    LinkTimeout {
        at: Duration,
        of: u64,
    },
}

/// The outcome of trying a request.
enum Tried {
    NotYet,
    Ends { result: i32, flags: u32 },
    GoesOn { result: i32, flags: u32 },
}

/// What an enter comes to next.
pub(super) enum Step {
    /// The enter is over.
    Return(io::Result<()>),
    /// Nothing goes on by itself: ask whether the other side does something.
    Idle,
    /// Nor does the other side do anything. Only what another thread does to these descriptors could end
    /// this.
    Stuck(Vec<libc::pollfd>),
}

/// An enter that is under way.
pub(super) struct Entering {
    took: u32,
    waits: bool,
    /// When it stops waiting.
    until: Option<Duration>,
}

pub(super) struct Machine {
    memory: Own,
    rng: Rng,
    faults: Faults,
    now: Duration,
    /// How long after 1970 the clock was at 0.
    epoch: Duration,
    pending: Vec<Pending>,
    next_id: u64,
    /// Chains that wait for what came before a drain, or for the drain.
    held_up: VecDeque<VecDeque<Asked>>,
    overflow: VecDeque<Cqe>,
    /// The cancels whose answers wait for room, in order: each with the request that it was for.
    unanswered: VecDeque<(u64, u64)>,
    pools: BTreeMap<u16, Pool>,
    files: Files,
    /// Registered memory, by the index of fixed buffers.
    registered: Memory,
    eventfd: Option<RawFd>,
    busy: u32,
    /// When anything last went on.
    moved: Duration,
    settings: Arc<Settings>,
    figures: Figures,
    log: Vec<Event>,
}

impl Machine {
    pub(super) fn new(memory: Own, seed: u64, settings: Arc<Settings>, start: Start) -> Machine {
        Machine {
            memory,
            rng: Rng::new(seed),
            faults: settings.faults(),
            now: start.now,
            epoch: start.since_1970.saturating_sub(start.now),
            pending: Vec::new(),
            next_id: 0,
            held_up: VecDeque::new(),
            overflow: VecDeque::new(),
            unanswered: VecDeque::new(),
            pools: BTreeMap::new(),
            files: Files::new(),
            registered: Memory::new(),
            eventfd: None,
            busy: 0,
            moved: start.now,
            settings,
            figures: Figures::default(),
            log: Vec::new(),
        }
    }

    pub(super) fn now(&self) -> Duration {
        self.now
    }

    /// This much later than now, up to the end of time.
    fn after(&self, time: Duration) -> Duration {
        self.now.saturating_add(time)
    }

    pub(super) fn figures(&self) -> Figures {
        self.figures
    }

    pub(super) fn take_log(&mut self) -> Vec<Event> {
        mem::take(&mut self.log)
    }

    fn record(&mut self, event: impl FnOnce() -> Event) {
        if self.settings.keeps_log() {
            self.log.push(event());
        }
    }

    pub(super) fn set_eventfd(&mut self, eventfd: Option<RawFd>) {
        self.eventfd = eventfd;
    }

    /// # Safety
    ///
    /// The same as for [`Pool::new`], until the group is unregistered.
    pub(super) unsafe fn register_buffers(&mut self, buffers: BufferRing, group: u16) -> io::Result<()> {
        if self.pools.contains_key(&group) {
            return Err(io::Error::from_raw_os_error(libc::EEXIST));
        }
        // SAFETY: the contract is the same, and the caller keeps it.
        self.pools.insert(group, unsafe { Pool::new(buffers) });
        Ok(())
    }

    pub(super) fn unregister_buffers(&mut self, group: u16) -> io::Result<()> {
        match self.pools.remove(&group) {
            Some(_) => Ok(()),
            None => Err(io::Error::from_raw_os_error(libc::ENOENT)),
        }
    }

    pub(super) fn change_files(&mut self, change: Change<BorrowedFd<'_>>) -> io::Result<()> {
        self.clears(&change)?;
        self.files.change_files(change)
    }

    /// Whether this change of a table is done, if it is to clear a place.
    fn clears<V>(&mut self, change: &Change<V>) -> io::Result<()> {
        let refuses =
            matches!(change, Change::Clear { .. }) && self.rng.roll(self.settings.faults().uncleared);
        if refuses { Err(io::Error::from_raw_os_error(libc::ENOMEM)) } else { Ok(()) }
    }

    /// # Safety
    ///
    /// The same as for [`Kernel::change_memory`](crate::queue::Kernel::change_memory).
    pub(super) unsafe fn change_memory(&mut self, change: Change<(u64, usize)>) -> io::Result<()> {
        self.clears(&change)?;
        self.registered.change_memory(change)
    }

    /// How many requests the kernel has, those in chains included.
    pub(super) fn owned(&self) -> usize {
        self.all().count()
    }

    /// All that the kernel was asked for and has not done.
    fn all(&self) -> impl Iterator<Item = &Asked> {
        let issued =
            self.pending.iter().flat_map(|pending| std::iter::once(&pending.asked).chain(&pending.chain));
        issued.chain(self.held_up.iter().flatten())
    }

    /// Whether the kernel has a request with this name.
    pub(super) fn has(&self, user_data: u64) -> bool {
        let named = |asked: &Asked| asked.user_data == user_data;
        self.all().any(named)
    }

    /// Whether a request that the kernel has uses the byte at this address.
    pub(super) fn uses(&self, address: u64) -> bool {
        self.all().any(|asked| asked.uses(address))
    }

    // ---- entering ---------------------------------------------------------------------------------

    /// Begins an enter. `Err`, with its result, if it is over already.
    pub(super) fn begin(&mut self, queued: u32, patience: Patience) -> Result<Entering, io::Result<()>> {
        self.faults = self.settings.faults();
        self.figures.enters += 1;
        let (enters, most) = (self.figures.enters, self.settings.most_enters());
        if enters > most {
            // A ring that is torn down by the panic enters again, and must not panic in that.
            assert!(enters > most + 1, "the ring has entered the kernel {enters} times: see `limit_enters`");
            return Err(Err(deadlock()));
        }
        let shown = self.memory.shown();
        self.record(|| Event::Entered { shown });
        let turn = TURN + Duration::from_nanos(self.rng.below(1_000));
        self.now = self.after(turn);
        // The kernel reports this once, and only to those who look for completions.
        if patience != Patience::Submit && self.rng.roll(self.faults.lost) {
            self.lose();
            return Err(Err(io::Error::from_raw_os_error(libc::EBADR)));
        }
        let queued = match patience {
            Patience::ReapFor(_) => 0,
            _ => queued.min(self.memory.shown()),
        };
        // An enter that submits nothing needs none of what the kernel may be short of.
        if queued > 0 {
            if self.busy < MOST_BUSY && self.rng.roll(self.faults.busy) {
                self.busy += 1;
                return Err(Err(io::Error::from_raw_os_error(self.rng.pick(&[libc::EAGAIN, libc::EBUSY]))));
            }
            self.busy = 0;
        }
        let partly = queued > 1 && self.rng.roll(self.faults.partial);
        let wanted = if partly { 1 + self.rng.below(u64::from(queued) - 1) as u32 } else { queued };
        let took = self.take_in(wanted, queued);
        if patience == Patience::Submit {
            return Err(Ok(()));
        }
        if self.rng.roll(self.faults.foreign) {
            self.post_a_strangers();
        }
        self.flush_overflow();
        self.progress();
        // What stops the submission also skips the wait.
        if took < queued {
            return Err(Ok(()));
        }
        // A call that has submitted something returns that, rather than that a signal came.
        if self.rng.roll(self.faults.interrupt) {
            let interrupted = io::Error::from_raw_os_error(libc::EINTR);
            return Err(if took > 0 { Ok(()) } else { Err(interrupted) });
        }
        let (waits, time) = match patience {
            Patience::Submit | Patience::Poll => (false, None),
            Patience::Wait => (true, None),
            Patience::WaitFor(time) | Patience::ReapFor(time) => (!time.is_zero(), Some(time)),
        };
        if waits && self.rng.roll(self.faults.silent) {
            return Err(Ok(()));
        }
        Ok(Entering { took, waits, until: time.map(|time| self.now.saturating_add(time)) })
    }

    /// Goes on with an enter. `said` is the answer of the other side, if it was asked whether it does
    /// something.
    pub(super) fn go_on(&mut self, entering: &Entering, said: Option<bool>) -> Step {
        let mut nobody_else = match said {
            Some(true) => {
                self.moved = self.now;
                self.progress();
                false
            }
            Some(false) => true,
            None => false,
        };
        loop {
            self.flush_overflow();
            if self.memory.unseen() > 0 {
                return Step::Return(Ok(()));
            }
            if self.progress() {
                continue;
            }
            if !mem::take(&mut nobody_else) {
                return Step::Idle;
            }
            if !entering.waits {
                // Polling takes a little time each time, so that things do happen in the end.
                let soon = self.after(Duration::from_micros(50));
                self.now = self.next_event().map_or(soon, |next| next.clamp(self.now, soon));
                self.progress();
                return Step::Return(Ok(()));
            }
            let next = match (self.next_event(), entering.until) {
                (Some(next), Some(until)) => next.min(until),
                (Some(one), None) | (None, Some(one)) => one,
                (None, None) => return Step::Stuck(self.waited_for()),
            };
            self.now = next.max(self.after(MOMENT));
            if !self.progress() && entering.until.is_some_and(|until| self.now >= until) {
                return Step::Return(self.time_out(entering));
            }
        }
    }

    /// Lets this much time go by outside of an enter.
    pub(super) fn pass(&mut self, time: Duration) {
        self.faults = self.settings.faults();
        let until = self.now.saturating_add(time);
        loop {
            while self.progress() {}
            match self.next_event() {
                Some(next) if next <= until => self.now = next.max(self.after(MOMENT)),
                _ => break,
            }
        }
        self.now = self.now.max(until);
    }

    /// What pending requests wait for that only descriptors can tell.
    fn waited_for(&self) -> Vec<libc::pollfd> {
        let armed = self.pending.iter().filter(|it| it.stage == Stage::Armed && it.waits_for_real);
        let polls = armed.filter_map(|pending| pending.asked.waits_for());
        polls.map(|(fd, events)| libc::pollfd { fd, events, revents: 0 }).collect()
    }

    /// Ends a wait in which nothing happened.
    fn time_out(&mut self, entering: &Entering) -> io::Result<()> {
        self.forgive_cancels();
        if self.now.saturating_sub(self.moved) > LONGEST {
            return Err(deadlock());
        }
        match entering.took {
            0 => Err(io::Error::from_raw_os_error(libc::ETIME)),
            _ => Ok(()),
        }
    }

    /// When the next thing happens by itself.
    fn next_event(&self) -> Option<Duration> {
        let times = self.pending.iter().filter_map(|pending| match pending.stage {
            Stage::Notify(Duration::MAX) => None,
            Stage::Late(at)
            | Stage::Running(at)
            | Stage::Done { at, .. }
            | Stage::Notify(at)
            | Stage::Timer(at)
            | Stage::LinkTimeout { at, .. } => Some(at),
            Stage::Armed => (pending.seen != 0 && pending.waits_for_real).then_some(pending.reminder),
        });
        times.min()
    }

    // ---- taking in --------------------------------------------------------------------------------

    /// Takes in up to `wanted` of the `submitted` entries, and the rest of a chain that has begun. Returns
    /// how many.
    fn take_in(&mut self, wanted: u32, submitted: u32) -> u32 {
        let mut took = 0;
        let mut chain: VecDeque<Asked> = VecDeque::new();
        while (took < wanted || took < submitted && !chain.is_empty())
            && let Some(entry) = self.memory.take_in()
        {
            took += 1;
            self.figures.taken_in += 1;
            // SAFETY: `Uring` queues only what is vouched for, and what an entry points to is there.
            let mut asked = unsafe { Asked::parse(entry) };
            asked.look_up(&self.files, &self.registered);
            if !asked.is_cancel() {
                self.moved = self.now;
            }
            self.record(|| Event::TakenIn(asked.clone()));
            let (linked, refused) = (asked.is_linked(), asked.refusal(chain.back()).is_some());
            chain.push_back(asked);
            if !linked {
                self.issue_chain(mem::take(&mut chain));
            }
            // Without IORING_SETUP_SUBMIT_ALL, an entry that is refused is the last of its submit; but not within a
            // chain.
            if refused && !linked && self.rng.roll(self.faults.partial) {
                break;
            }
        }
        // The end of a submit is the end of a chain, even if its last entry has a link.
        self.issue_chain(chain);
        took
    }

    /// Issues the first of a chain, unless a drain holds it up.
    fn issue_chain(&mut self, chain: VecDeque<Asked>) {
        let waits = |asked: &Asked| asked.drains() && !self.pending.is_empty();
        if !self.held_up.is_empty() || chain.iter().any(waits) {
            self.held_up.push_back(chain);
        } else {
            self.issue_now(chain);
        }
    }

    /// Issues what a drain has held up, if all that came before has ended.
    fn let_go(&mut self) -> bool {
        let mut any = false;
        while let Some(chain) = self.held_up.front()
            && (self.pending.is_empty() || !chain.iter().any(Asked::drains))
            && let Some(chain) = self.held_up.pop_front()
        {
            any = true;
            self.issue_now(chain);
        }
        any
    }

    /// Issues the first of a chain. If one of them is refused, all of them fail.
    fn issue_now(&mut self, mut chain: VecDeque<Asked>) {
        let before = std::iter::once(None).chain(chain.iter().map(Some));
        let refusals: Vec<_> =
            chain.iter().zip(before).map(|(asked, before)| asked.refusal(before)).collect();
        if refusals.iter().any(Option::is_some) {
            let mut notified = Vec::new();
            for (asked, refusal) in chain.into_iter().zip(refusals) {
                match refusal {
                    // It was prepared as far as its notification.
                    Some(errno @ libc::EMSGSIZE) if asked.is_zero_copy() => {
                        self.post(asked.user_data, -errno, F_MORE);
                        notified.push(asked);
                    }
                    Some(errno) => self.post_final(&asked, -errno, 0),
                    None => self.end_unbegun(&asked),
                }
            }
            for asked in notified {
                self.post_final(&asked, 0, F_NOTIF);
            }
        } else if let Some(head) = chain.pop_front() {
            self.issue(head, chain, false);
        }
    }

    /// Issues a request, with what is linked to it.
    fn issue(&mut self, mut asked: Asked, mut chain: VecDeque<Asked>, in_chain: bool) {
        if asked.is_cancel() {
            let same = self.unanswered.iter().filter(|(_, target)| *target == asked.address).count();
            self.figures.most_unanswered = self.figures.most_unanswered.max(same as u64 + 1);
            let result = self.cancel(&asked);
            let waiting = self.overflow.len();
            self.post_final(&asked, result, 0);
            if self.overflow.len() > waiting {
                self.unanswered.push_back((asked.user_data, asked.address));
            }
            return self.follow(&asked, result >= 0, chain);
        }
        self.next_id += 1;
        let id = self.next_id;
        // A timeout that is linked to it runs from now on.
        if chain.front().is_some_and(Asked::is_link_timeout)
            && let Some(timeout) = chain.pop_front()
        {
            let at = timeout.due(self.now, self.epoch);
            self.next_id += 1;
            self.add(self.next_id, timeout, Stage::LinkTimeout { at, of: id }, VecDeque::new());
        }
        let for_a_worker = asked.is_for_a_worker();
        // A stream that stands alone is issued as it is taken in, and so is a timer.
        let is_prompt = asked.is_multishot() || asked.opcode == opcode::Timeout::CODE;
        let may_be_late = for_a_worker || in_chain || !is_prompt;
        let late = may_be_late && self.rng.roll(self.faults.late);
        let stage = if late { Stage::Late(self.soon()) } else { self.first_stage(&asked) };
        let kept_open = asked.keep_open();
        let index = self.add(id, asked, stage, chain);
        self.pending[index].kept_open = kept_open;
        // The kernel tries at once, unless it is to leave that to a worker.
        if !late && !for_a_worker {
            self.advance(index);
        }
    }

    fn add(&mut self, id: u64, asked: Asked, stage: Stage, chain: VecDeque<Asked>) -> usize {
        let (reminder, left) = (Duration::ZERO, asked.limit().map(NonZeroU32::get));
        self.pending.push(Pending {
            id,
            asked,
            kept_open: None,
            stage,
            chain,
            told: 0,
            seen: 0,
            reminder,
            cancels: 0,
            moved: 0,
            left,
            picked: None,
            succeeded: None,
            is_queued: false,
            waits_for_real: false,
        });
        self.pending.len() - 1
    }

    fn first_stage(&mut self, asked: &Asked) -> Stage {
        if asked.may_end() == MayEnd::BeforeItBegins && self.rng.roll(self.faults.cancelled) {
            return Stage::Done { at: self.now, result: -libc::ECANCELED, flags: 0 };
        }
        match asked.opcode {
            opcode::Timeout::CODE => Stage::Timer(asked.due(self.now, self.epoch)),
            _ if asked.works_on_files() && self.rng.roll(self.faults.running) => Stage::Running(self.soon()),
            _ => Stage::Armed,
        }
    }

    /// Some time, up to a few milliseconds from now.
    fn soon(&mut self) -> Duration {
        let time = Duration::from_micros(1 + self.rng.below(3_000));
        self.after(time)
    }

    // ---- going on ---------------------------------------------------------------------------------

    fn position(&self, id: u64) -> Option<usize> {
        self.pending.iter().position(|pending| pending.id == id)
    }

    /// Goes on with all requests that can. Returns whether anything has happened.
    fn progress(&mut self) -> bool {
        let mut order: Vec<u64> = self.pending.iter().map(|pending| pending.id).collect();
        if self.faults.reorder {
            for index in (1..order.len()).rev() {
                order.swap(index, self.rng.below(index as u64 + 1) as usize);
            }
        }
        let mut any = false;
        for id in order {
            if let Some(index) = self.position(id) {
                any |= self.advance(index);
            }
        }
        any | self.let_go()
    }

    /// Goes on with a request, if it can. Returns whether anything has happened.
    fn advance(&mut self, index: usize) -> bool {
        let now = self.now;
        match self.pending[index].stage {
            Stage::Late(at) if now >= at => {
                let asked = self.pending[index].asked.clone();
                self.pending[index].stage = self.first_stage(&asked);
                self.advance(index);
            }
            Stage::Armed => match self.attempt(index) {
                Tried::NotYet => return false,
                Tried::Ends { result, flags } => self.conclude(index, result, flags),
                Tried::GoesOn { result, flags } => self.tell_more(index, result, flags),
            },
            Stage::Running(at) if now >= at => {
                self.pending[index].stage = Stage::Armed;
                self.advance(index);
            }
            Stage::Done { at, result, flags } if now >= at => self.end(index, result, flags),
            Stage::Notify(at) if now >= at => self.finish(index, 0, F_NOTIF),
            Stage::Timer(at) if now >= at => self.tick(index, at),
            Stage::LinkTimeout { at, of } if now >= at => self.time_up(index, of),
            _ => return false,
        }
        true
    }

    /// The time of a request is up.
    fn time_up(&mut self, timer: usize, of: u64) {
        let stage = self.position(of).map(|index| self.pending[index].stage);
        let result = match stage {
            // The time begins when the request is issued.
            Some(Stage::Late(at)) => {
                let at = at.max(self.now).saturating_add(MOMENT);
                self.pending[timer].stage = Stage::LinkTimeout { at, of };
                return;
            }
            Some(Stage::Notify(_)) => -libc::ENOENT,
            Some(Stage::Running(_) | Stage::Done { .. }) => -libc::EALREADY,
            // This one reports how many it has cancelled, where others report that the time was up.
            Some(_) if self.position(of).is_some_and(|index| self.pending[index].asked.is_counted()) => 1,
            _ => -libc::ETIME,
        };
        self.finish(timer, result, 0);
        if let Some(index) = self.position(of) {
            self.cancel_one(index).ok();
        }
    }

    /// A timer is due.
    fn tick(&mut self, index: usize, at: Duration) {
        let Pending { asked, told, stage, .. } = &mut self.pending[index];
        // `offset` is the number of ticks, 0 for no end.
        let last = asked.offset == u64::from(*told) + 1;
        if asked.is_multishot() && !last {
            *stage = Stage::Timer(at.saturating_add(asked.interval()).max(self.now));
            self.tell_more(index, -libc::ETIME, 0);
        } else {
            self.finish(index, -libc::ETIME, 0);
        }
    }

    /// Tries to do what was asked.
    fn attempt(&mut self, index: usize) -> Tried {
        let asked = &self.pending[index].asked;
        if self.rng.roll(self.faults.cancelled) && asked.may_end() == MayEnd::Anytime {
            let result = match (self.pending[index].moved, asked.is_interruptible()) {
                (0, false) => -libc::ECANCELED,
                (0, true) => -self.rng.pick(&[libc::ECANCELED, libc::EINTR]),
                (moved, _) => moved as i32,
            };
            return Tried::Ends { result, flags: 0 };
        }
        let is_multishot = asked.is_multishot();
        let (answer, is_vouched_for) = self.settings.answer(asked, self.now);
        self.pending[index].waits_for_real = matches!(answer, Answer::Perform);
        let tried = match answer {
            Answer::Perform => self.perform(index),
            Answer::Wait => Tried::NotYet,
            Answer::Finish(result) | Answer::More(result) => {
                let ends = !(is_multishot && matches!(answer, Answer::More(_)));
                let kept = match is_vouched_for {
                    true => None,
                    false => self.pending[index].asked.check(result),
                };
                if !is_vouched_for && self.pending[index].asked.says_closed(result) {
                    descriptors::close(self.pending[index].asked.descriptor);
                }
                let zeroes = kept.map(|length| vec![0; length]);
                self.carry(index, result, ends, zeroes.as_deref())
            }
            Answer::Bytes(bytes) => {
                let asked = &self.pending[index].asked;
                assert!(asked.reads_bytes(), "{asked:?} reads nothing: `Answer::Bytes` is no answer to that");
                let length = bytes.len().min(asked.room());
                let ends = !is_multishot || length == 0;
                // SAFETY: the entry was vouched for.
                unsafe { descriptors::forget_peer(asked) };
                match asked.overhead() {
                    0 => self.carry(index, length as i32, ends, Some(&bytes[..length])),
                    _ => self.carry_message(index, &bytes),
                }
            }
            Answer::Descriptor(descriptor) => {
                let asked = &self.pending[index].asked;
                let is_asked_for = asked.yields_descriptor() && !asked.uses_file_table();
                assert!(is_asked_for, "{asked:?} opens nothing: `Answer::Descriptor` is no answer to that");
                // SAFETY: the entry was vouched for.
                unsafe { descriptors::forget_peer(asked) };
                let result = match asked.is_direct() {
                    true => self.install(descriptor),
                    false => descriptor.into_raw_fd(),
                };
                match is_multishot && result >= 0 {
                    true => Tried::GoesOn { result, flags: 0 },
                    false => Tried::Ends { result, flags: 0 },
                }
            }
        };
        match tried {
            Tried::GoesOn { result, flags }
                if self.reaches_limit(index, result) || self.rng.roll(self.faults.cut) =>
            {
                Tried::Ends { result, flags }
            }
            tried => tried,
        }
    }

    /// Counts what a stream has received. Returns whether that is all that it was to receive.
    fn reaches_limit(&mut self, index: usize, received: i32) -> bool {
        let Some(left) = &mut self.pending[index].left else { return false };
        *left = left.saturating_sub(received.unsigned_abs());
        *left == 0
    }

    /// Gives a result for which no work was done the buffer that it needs, and its bytes.
    fn carry(&mut self, index: usize, result: i32, ends: bool, bytes: Option<&[u8]>) -> Tried {
        let asked = &self.pending[index].asked;
        let mut flags = 0;
        let mut result = result;
        if asked.takes_bundles() && result > 0 {
            let offered = self.offered(index);
            let room = offered.iter().map(|buffer| buffer.length).sum::<u32>().min(i32::MAX as u32);
            result = result.min(room as i32);
            if result == 0 {
                return Tried::Ends { result: -libc::ENOBUFS, flags: 0 };
            }
            let works = offered.iter().map(|buffer| Work { address: buffer.address, length: buffer.length });
            // SAFETY: what the pool offers is there.
            unsafe { descriptors::fill_all(works, bytes.unwrap_or_default()) };
            return self.take_bundle(index, &offered, result, ends);
        }
        let mut work = Work { address: asked.address, length: asked.length };
        if asked.is_of_messages() && !asked.takes_buffers() {
            // SAFETY: the entry was vouched for.
            unsafe { descriptors::fill_all(asked.works(), bytes.unwrap_or_default()) };
            return if ends { Tried::Ends { result, flags } } else { Tried::GoesOn { result, flags } };
        }
        if asked.takes_buffers() && result > 0 {
            let pool = self.pools.get_mut(&asked.group);
            match pool.and_then(|pool| Some((pool.next()?, pool))) {
                Some((offered, pool)) => {
                    result = result.min(offered.length as i32);
                    self.pending[index].picked = Some(offered.length);
                    flags = F_BUFFER | u32::from(offered.id) << BUFFER_SHIFT | pool.use_up(result as u32);
                    work = Work { address: offered.address, length: offered.length };
                }
                None => return Tried::Ends { result: -libc::ENOBUFS, flags: 0 },
            }
        }
        if let Some(bytes) = bytes {
            // SAFETY: the entry was vouched for, and what the pool offers is there.
            unsafe { descriptors::fill(work, bytes) };
        }
        if ends { Tried::Ends { result, flags } } else { Tried::GoesOn { result, flags } }
    }

    /// Puts a message from nobody into a buffer of the pool, after what is said of it.
    fn carry_message(&mut self, index: usize, bytes: &[u8]) -> Tried {
        let asked = &self.pending[index].asked;
        let (overhead, is_multishot) = (asked.overhead(), asked.is_multishot());
        let offered = self.pools.get(&asked.group).and_then(Pool::next);
        let Some(offered) = offered else { return Tried::Ends { result: -libc::ENOBUFS, flags: 0 } };
        let Some(room) = (offered.length as usize).checked_sub(overhead) else {
            return Tried::Ends { result: -libc::EFAULT, flags: 0 };
        };
        let length = bytes.len().min(room);
        let flags = if bytes.len() > room { libc::MSG_TRUNC } else { 0 };
        let mut message = descriptors::said(0, 0, length as u32, flags).to_vec();
        message.resize(overhead, 0);
        message.extend_from_slice(&bytes[..length]);
        let ends = !is_multishot || length == 0;
        self.carry(index, message.len() as i32, ends, Some(&message))
    }

    /// Puts a file into the ring's table. Returns its index, as a result.
    fn install(&mut self, file: OwnedFd) -> i32 {
        self.files.install(file).map_or(-libc::ENFILE, |index| index as i32)
    }

    /// Does what was asked, on the descriptors of this process.
    fn perform(&mut self, index: usize) -> Tried {
        let Pending { asked, moved, .. } = &self.pending[index];
        let moved = *moved;
        match asked.opcode {
            opcode::FutexWait::CODE => return self.wait_for_word(index),
            opcode::FutexWake::CODE => return self.wake(index),
            _ => {}
        }
        if let Some(result) = asked.misses() {
            return Tried::Ends { result, flags: 0 };
        }
        let mut work = Work {
            address: asked.address.wrapping_add(u64::from(moved)),
            length: asked.whole().saturating_sub(moved),
        };
        let mut offered = None;
        if asked.takes_buffers() {
            offered = self.pools.get(&asked.group).and_then(Pool::next);
            let starved = offered.is_none() || self.rng.roll(self.faults.no_buffers);
            if starved {
                return match descriptors::is_readable(asked.number()) {
                    true => Tried::Ends { result: -libc::ENOBUFS, flags: 0 },
                    false => Tried::NotYet,
                };
            }
        }
        if let Some(offered) = offered {
            work = Work { address: offered.address, length: offered.length };
        }
        // Messages that are not part of a stream come and go whole.
        let is_stream = !asked.is_of_messages() || descriptors::is_stream(asked.number());
        if work.length > 1
            && !asked.waits_for_all()
            && asked.moves_bytes()
            && !asked.takes_bundles()
            && asked.opcode != opcode::RecvMsg::CODE
            && is_stream
            && self.rng.roll(self.faults.short)
        {
            work.length = 1 + self.rng.below(u64::from(work.length) - 1) as u32;
        }
        if asked.is_transfer() && is_stream && self.rng.roll(self.faults.reset) {
            descriptors::reset(asked.number());
            return Tried::Ends { result: -libc::ECONNRESET, flags: 0 };
        }
        if asked.opcode == opcode::PollAdd::CODE {
            return self.poll(index);
        }
        if asked.takes_bundles() {
            return self.receive_bundle(index);
        }
        // SAFETY: the entry was vouched for, so what it points to is there; a buffer that is offered is
        // as well, and is nobody else's.
        let Some(mut result) = (unsafe { descriptors::perform(asked, work) }) else { return Tried::NotYet };
        if asked.is_direct() && result >= 0 {
            // SAFETY: it was opened just now, and nobody else knows of it.
            result = self.install(unsafe { OwnedFd::from_raw_fd(result) });
        }
        let Pending { asked, .. } = &self.pending[index];
        if asked.waits_for_all() && offered.is_none() {
            return self.move_on(index, result);
        }
        let overhead = asked.overhead() as i32;
        let goes_on =
            asked.is_multishot() && if asked.takes_buffers() { result > overhead } else { result >= 0 };
        let mut flags = 0;
        let group = asked.group;
        self.pending[index].picked = offered.map(|offered| offered.length);
        if let Some(offered) = offered
            && result > 0
        {
            flags = F_BUFFER | u32::from(offered.id) << BUFFER_SHIFT;
            if let Some(pool) = self.pools.get_mut(&group) {
                flags |= pool.use_up(result as u32);
            }
        }
        if goes_on { Tried::GoesOn { result, flags } } else { Tried::Ends { result, flags } }
    }

    /// Waits until those who wait for a word are woken. Nobody here sees who wakes them by a system call; but if the
    /// word was changed, that is what comes next.
    fn wait_for_word(&mut self, index: usize) -> Tried {
        let Pending { asked, is_queued, .. } = &mut self.pending[index];
        if asked.word().is_none() {
            return Tried::Ends { result: -libc::EINVAL, flags: 0 };
        }
        // SAFETY: the entry was vouched for, so its word is there; it is aligned, or it would be none.
        let waits = unsafe { descriptors::is_as_expected(asked) };
        match (waits, *is_queued) {
            (true, _) => {
                *is_queued = true;
                Tried::NotYet
            }
            (false, true) => Tried::Ends { result: 0, flags: 0 },
            (false, false) => Tried::Ends { result: -libc::EAGAIN, flags: 0 },
        }
    }

    /// Wakes those who wait for a word, those first who have waited longest.
    fn wake(&mut self, index: usize) -> Tried {
        let asked = &self.pending[index].asked;
        let (reasons, most) = (asked.reasons(), asked.to_wake());
        let Some(word) = asked.word() else { return Tried::Ends { result: -libc::EINVAL, flags: 0 } };
        let waits = |pending: &Pending| {
            let asked = &pending.asked;
            let is_meant = asked.word() == Some(word) && asked.reasons() & reasons != 0;
            pending.is_queued && pending.stage == Stage::Armed && is_meant
        };
        let waiting: Vec<usize> =
            (0..self.pending.len()).filter(|index| waits(&self.pending[*index])).take(most).collect();
        for index in &waiting {
            // From now on, no cancel finds it.
            let at = if self.rng.roll(self.faults.delay) { self.soon() } else { self.now };
            self.pending[*index].stage = Stage::Done { at, result: 0, flags: 0 };
        }
        Tried::Ends { result: waiting.len() as i32, flags: 0 }
    }

    /// The buffers of its pool that a bundle may take: all that are offered, or fewer; but no more than there
    /// may be bytes for.
    fn offered(&mut self, index: usize) -> Vec<Offered> {
        let Pending { asked, left, .. } = &self.pending[index];
        let (limit, mut left) = (*left, left.unwrap_or(u32::MAX));
        let mut offered = self.pools.get(&asked.group).map(Pool::all).unwrap_or_default();
        if offered.len() > 1 && self.rng.roll(self.faults.short) {
            offered.truncate(1 + self.rng.below(offered.len() as u64 - 1) as usize);
        }
        // Only the first is offered in part.
        let fit = offered.iter().take_while(|buffer| {
            let fits = buffer.length <= left;
            left = left.saturating_sub(buffer.length);
            fits
        });
        let count = fit.count().max(1);
        offered.truncate(count);
        if let (Some(limit), Some(first)) = (limit, offered.first_mut()) {
            first.length = first.length.min(limit);
        }
        offered
    }

    /// Receives into as many buffers as there are bytes for.
    fn receive_bundle(&mut self, index: usize) -> Tried {
        let offered = self.offered(index);
        let asked = &self.pending[index].asked;
        // SAFETY: what is offered is there, and is nobody else's.
        let Some(result) = (unsafe { descriptors::receive_into(asked, &offered) }) else {
            return Tried::NotYet;
        };
        let ends = result <= 0 || !asked.is_multishot();
        self.take_bundle(index, &offered, result, ends)
    }

    /// Takes those of the buffers in which these bytes are.
    fn take_bundle(&mut self, index: usize, offered: &[Offered], result: i32, ends: bool) -> Tried {
        let group = self.pending[index].asked.group;
        let (mut flags, mut ends) = (0, ends);
        if result > 0
            && let Some(first) = offered.first()
            && let Some(pool) = self.pools.get_mut(&group)
        {
            let mut left = result.unsigned_abs();
            let is_used = |buffer: &&Offered| {
                let is_used = left > 0;
                left = left.saturating_sub(buffer.length);
                is_used
            };
            pool.take(offered.iter().take_while(is_used).count() as u16);
            flags = F_BUFFER | u32::from(first.id) << BUFFER_SHIFT;
            // With the last buffer that is offered, the kernel may leave it at that.
            ends |= pool.next().is_none() && self.rng.below(2) == 0;
        }
        if ends { Tried::Ends { result, flags } } else { Tried::GoesOn { result, flags } }
    }

    /// A transfer that is to be whole has moved this much, or has ended.
    fn move_on(&mut self, index: usize, result: i32) -> Tried {
        let Pending { asked, moved, .. } = &mut self.pending[index];
        *moved += result.max(0).unsigned_abs();
        if result > 0 && *moved < asked.whole() {
            return self.perform(index);
        }
        let result = if *moved > 0 { *moved as i32 } else { result };
        Tried::Ends { result, flags: 0 }
    }

    fn poll(&mut self, index: usize) -> Tried {
        let (now, next) = (self.now, self.after(REMINDER));
        let Pending { asked, seen, reminder, .. } = &mut self.pending[index];
        let result = descriptors::poll(asked.number(), asked.poll_events());
        let news = result != *seen || now >= *reminder;
        *seen = result;
        if result == 0 || !news {
            return Tried::NotYet;
        }
        *reminder = next;
        match asked.is_multishot() && result > 0 {
            true => Tried::GoesOn { result, flags: 0 },
            false => Tried::Ends { result, flags: 0 },
        }
    }

    // ---- ending -----------------------------------------------------------------------------------

    /// A request is done, but that may be reported only later.
    fn conclude(&mut self, index: usize, result: i32, flags: u32) {
        // What a stream has taken of a buffer, it reports before anybody else takes more.
        let is_piece = flags & F_BUFFER != 0
            && self.pools.get(&self.pending[index].asked.group).is_some_and(Pool::is_incremental);
        if self.rng.roll(self.faults.delay) && !is_piece {
            let at = self.soon();
            self.pending[index].stage = Stage::Done { at, result, flags };
        } else {
            self.end(index, result, flags);
        }
    }

    /// A request is done, and that is reported. If it was a zero-copy send, its memory is still in use.
    fn end(&mut self, index: usize, result: i32, flags: u32) {
        let asked = &self.pending[index].asked;
        if asked.is_zero_copy() {
            let user_data = asked.user_data;
            let at = if self.rng.roll(self.faults.never) { Duration::MAX } else { self.soon() };
            let pending = &mut self.pending[index];
            pending.stage = Stage::Notify(at);
            pending.succeeded = Some(pending.succeeds_with(result));
            self.post(user_data, result, flags | F_MORE);
        } else {
            self.finish(index, result, flags);
        }
    }

    /// Reports a part of a stream. If there is no room for that, the stream ends with it.
    fn tell_more(&mut self, index: usize, result: i32, flags: u32) {
        if self.memory.room() == 0 || !self.overflow.is_empty() {
            return self.finish(index, result, flags);
        }
        let Pending { asked, told, .. } = &mut self.pending[index];
        *told += 1;
        let user_data = asked.user_data;
        self.went_on();
        self.post(user_data, result, flags | F_MORE);
    }

    /// Something went on: whoever cancels again now does not spin.
    fn went_on(&mut self) {
        self.moved = self.now;
        self.forgive_cancels();
    }

    fn forgive_cancels(&mut self) {
        for pending in &mut self.pending {
            pending.cancels = 0;
        }
    }

    /// A request is over; what is linked to it is next.
    fn finish(&mut self, index: usize, result: i32, flags: u32) {
        let pending = self.pending.remove(index);
        let succeeded = pending.succeeded.unwrap_or_else(|| pending.succeeds_with(result));
        let Pending { id, asked, chain, kept_open, .. } = pending;
        self.post_final(&asked, result, flags);
        drop(kept_open);
        let watches = |pending: &Pending| matches!(pending.stage, Stage::LinkTimeout { of, .. } if of == id);
        if let Some(index) = self.pending.iter().position(watches) {
            self.finish(index, -libc::ECANCELED, 0);
        }
        self.follow(&asked, succeeded, chain);
    }

    /// Goes on with what was linked to a request that is over.
    fn follow(&mut self, before: &Asked, succeeded: bool, mut chain: VecDeque<Asked>) {
        if succeeded || before.is_hard_linked() {
            if let Some(next) = chain.pop_front() {
                self.issue(next, chain, true);
            }
        } else {
            for asked in chain {
                self.end_unbegun(&asked);
            }
        }
    }

    /// Ends a member of a chain that was prepared but not begun. There is a notification of each zero-copy
    /// send, even of one that ends like this.
    fn end_unbegun(&mut self, asked: &Asked) {
        self.post_final(asked, -libc::ECANCELED, 0);
        if asked.is_zero_copy() {
            self.post(asked.user_data, 0, F_NOTIF);
        }
    }

    // ---- cancelling -------------------------------------------------------------------------------

    /// Does what a cancel asks for. Returns its result: how many it has found, or one of the usual errors.
    fn cancel(&mut self, cancel: &Asked) -> i32 {
        const ALL: u32 = 1;
        const FD: u32 = 1 << 1;
        const ANY: u32 = 1 << 2;
        self.figures.cancels += 1;
        let flags = cancel.cancel_flags();
        let meant = |pending: &&Pending| {
            let asked = &pending.asked;
            let is_meant = match flags {
                flags if flags & ANY != 0 => true,
                flags if flags & FD != 0 => asked.descriptor == cancel.descriptor,
                _ => asked.user_data == cancel.address,
            };
            // What was not issued yet is not found; nor is the timeout of another request.
            is_meant && !matches!(pending.stage, Stage::Late(_) | Stage::LinkTimeout { .. })
        };
        let mut found: Vec<u64> = self.pending.iter().filter(meant).map(|pending| pending.id).collect();
        let several = flags & (ALL | ANY) != 0;
        if !several {
            found.truncate(1);
        }
        let mut result = Err(libc::ENOENT);
        let mut count = 0;
        for id in found {
            if let Some(index) = self.position(id) {
                let is_counted = self.pending[index].asked.is_counted();
                result = self.cancel_one(index).map(|()| i32::from(is_counted));
                count += i32::from(result.is_ok());
            }
        }
        match result {
            // What such a cancel counts is not what has ended.
            _ if several => self.rng.pick(&[count, 0, count + 1]),
            Ok(counted) => counted,
            Err(errno) => -errno,
        }
    }

    /// Cancels a request, if that is possible; or says why not.
    fn cancel_one(&mut self, index: usize) -> Result<(), i32> {
        let pending = &mut self.pending[index];
        pending.cancels += 1;
        assert!(
            pending.cancels <= MOST_CANCELS,
            "{:?} was cancelled {MOST_CANCELS} times with nothing else going on: the loop spins",
            pending.asked
        );
        match pending.stage {
            Stage::Armed | Stage::Timer(_) => {}
            Stage::Notify(_) => return Err(libc::ENOENT),
            _ => return Err(libc::EALREADY),
        }
        if self.rng.roll(self.faults.lost_race) {
            return Err(self.outrun(index));
        }
        self.end_cancelled(index);
        Ok(())
    }

    /// A cancel finds that its request is being worked on. Returns what it reports then.
    fn outrun(&mut self, index: usize) -> i32 {
        let Pending { asked, stage, .. } = &self.pending[index];
        if let Stage::Timer(at) = *stage {
            // A timer that has just fired is not found before it is set again.
            if asked.is_multishot() {
                return libc::ENOENT;
            }
            if at <= self.now {
                return libc::EALREADY;
            }
        }
        self.end_cancelled(index);
        libc::EALREADY
    }

    /// Ends a request that was cancelled, with whatever such a request may end with.
    fn end_cancelled(&mut self, index: usize) {
        let moved = self.pending[index].moved;
        if moved > 0 {
            return self.conclude(index, moved as i32, 0);
        }
        if !self.rng.roll(self.faults.odd_ends) {
            return self.conclude(index, -libc::ECANCELED, 0);
        }
        let scripted = self.settings.is_vouched_for();
        let Pending { id, asked, stage, .. } = &self.pending[index];
        let (id, armed) = (*id, *stage == Stage::Armed);
        // The buffers of a bundle are not picked beforehand.
        let takes_one = asked.takes_buffers() && !asked.takes_bundles();
        let some_bytes = asked.moves_bytes() && !asked.takes_buffers() && asked.length > 1;
        let (result, flags) = match self.rng.below(4) {
            // A close that is interrupted has closed its descriptor, and this one has not.
            0 | 1 if asked.opcode == opcode::Close::CODE => (-libc::ECANCELED, 0),
            0 => (-libc::EINTR, 0),
            1 => (-ERESTARTSYS, 0),
            // A part of it was done: only a script can say so when it was not.
            2 if scripted && some_bytes => {
                let most = u64::from(self.pending[index].asked.length) - 1;
                (1 + self.rng.below(most) as i32, 0)
            }
            // A buffer that was picked beforehand comes with the error.
            2 if takes_one => match self.carry(index, i32::MAX, true, None) {
                Tried::Ends { flags, .. } => (-libc::ECANCELED, flags),
                _ => (-libc::ECANCELED, 0),
            },
            // It was done after all.
            _ if armed => match self.attempt(index) {
                Tried::Ends { result, flags } => (result, flags),
                Tried::GoesOn { result, flags } => {
                    self.tell_more(index, result, flags);
                    (-libc::ECANCELED, 0)
                }
                Tried::NotYet => (-libc::ECANCELED, 0),
            },
            _ => (-libc::ECANCELED, 0),
        };
        // What was reported may have been the end of it.
        if let Some(index) = self.position(id) {
            self.conclude(index, result, flags);
        }
    }

    // ---- posting ----------------------------------------------------------------------------------

    fn post_final(&mut self, asked: &Asked, result: i32, flags: u32) {
        if !asked.is_cancel() {
            self.figures.ended += 1;
            self.went_on();
        }
        if asked.skips_success() && result >= 0 {
            return;
        }
        self.post(asked.user_data, result, flags);
    }

    pub(super) fn post(&mut self, user_data: u64, result: i32, flags: u32) {
        self.record(|| Event::Posted { user_data, result, flags });
        let cqe = Cqe { user_data, result, flags };
        if self.overflow.is_empty() && self.memory.room() > 0 {
            self.post_now(cqe);
        } else {
            self.overflow.push_back(cqe);
            self.memory.set_overflow(true);
        }
    }

    fn post_now(&mut self, cqe: Cqe) {
        self.memory.post(cqe);
        self.figures.posted += 1;
        if let Some(eventfd) = self.eventfd {
            descriptors::signal(eventfd);
        }
    }

    /// Posts what waits for room.
    fn flush_overflow(&mut self) {
        while self.memory.room() > 0
            && let Some(cqe) = self.overflow.pop_front()
        {
            if self.unanswered.front().is_some_and(|(user_data, _)| *user_data == cqe.user_data) {
                self.unanswered.pop_front();
            }
            self.post_now(cqe);
        }
        self.memory.set_overflow(!self.overflow.is_empty());
    }

    /// Another ring sends a message with a `user_data` of its own invention.
    ///
    /// It is never one that a request of an operation can have, not even one that such a request has had: what
    /// names a request is believed, and between now and when the message is seen, handlers may use a slot so
    /// often that it has that name again.
    fn post_a_strangers(&mut self) {
        const UNTRACKED: u64 = Control::Untracked as u64;
        const CANCEL: u64 = Control::Cancel as u64;
        const WAKE: u64 = Control::Wake as u64;
        const ALARM: u64 = Control::Alarm as u64;
        /// A ring that believes that its poll or its alarm is over makes another; and if it believes that they
        /// fail again and again, it ends its run.
        const MOST: usize = 3;
        let nobodys = self.rng.next() | NOBODYS_TAG;
        let of_ring = |name: u64| {
            let has_name = |pending: &&Pending| pending.asked.user_data == name;
            if self.pending.iter().filter(has_name).count() < MOST { name } else { UNTRACKED }
        };
        let names = [UNTRACKED, CANCEL, of_ring(WAKE), of_ring(ALARM), u64::MAX, nobodys];
        let user_data = self.rng.pick(&names);
        let result = self.rng.pick(&[0, 1, -1, i32::MIN, i32::MAX, -libc::ECANCELED]);
        let flags = self.rng.pick(&[0, F_MORE, F_NOTIF, F_BUFFER, F_BUFFER | F_MORE | 5 << BUFFER_SHIFT]);
        self.post(user_data, result, flags);
    }

    /// Loses a completion, for want of memory.
    fn lose(&mut self) {
        let first = |is_lost: fn(&Stage) -> bool| self.pending.iter().position(|it| is_lost(&it.stage));
        let lost =
            first(|stage| *stage == Stage::Armed).or_else(|| first(|it| matches!(it, Stage::Timer(_))));
        if let Some(index) = lost {
            self.pending.remove(index);
        }
        self.memory.lose();
    }
}

/// When a simulation begins.
#[derive(Clone, Copy)]
pub(super) struct Start {
    /// By the clock of timeouts.
    pub(super) now: Duration,
    pub(super) since_1970: Duration,
}

/// The ring waits for what never comes.
pub(super) fn deadlock() -> io::Error {
    io::Error::from_raw_os_error(libc::EDEADLK)
}
