//! A simulated kernel, for tests of one's own operations: the feature `sim`.
//!
//! Not written yet.

use std::fmt;
use std::io;
use std::num::NonZeroU32;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use crate::clock;
use crate::config::RawRing;
use crate::eventfd::Eventfd;
use crate::queue::{Host, Kernel, Own, Patience, Queues};

mod asked;
mod descriptors;
mod machine;
mod pool;
mod rng;

pub use asked::Asked;
use machine::{Machine, Start, Step};

/// How the simulation answers for the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Does what was asked, on the descriptors of this process.
    Perform,
    /// Not yet: the request waits, and is asked about again.
    Wait,
    /// The request ends with this result: what the operation returns, or a negative `errno`.
    Finish(i32),
    /// A stream goes on after this result; other requests end with it.
    More(i32),
}

/// What goes wrong, and how often: probabilities from 0 to 1, each time that it could happen.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Faults {
    /// A transfer moves fewer bytes than it was to.
    pub short: f64,
    /// A connection is reset, when something is received or sent.
    pub reset: f64,
    /// A request ends with `ECANCELED` or `EINTR` though nobody has cancelled it.
    pub cancelled: f64,
    /// A completion is held back for up to three milliseconds, and is overtaken by others.
    pub delay: f64,
    /// Requests that could go on do so in any order.
    pub reorder: bool,
    /// A request is issued up to three milliseconds after it was taken in; no cancel finds it before.
    pub late: f64,
    /// A cancel comes too late: the request goes on.
    pub lost_race: f64,
    /// A cancelled request ends with `EINTR`, with `ERESTARTSYS` (512), with success after all, with more
    /// of a stream before the end, or with a buffer.
    pub odd_ends: f64,
    /// Work on a file has begun, and is ended by no cancel.
    pub running: f64,
    /// A stream ends by itself, with its payload, as if the completion queue were full.
    pub cut: f64,
    /// A pool seems to be empty (`ENOBUFS`).
    pub no_buffers: f64,
    /// A zero-copy send is never notified of: its memory is in use for ever.
    pub never: f64,
    /// A signal interrupts the ring (`EINTR`).
    pub interrupt: f64,
    /// The kernel is short of something (`EAGAIN`, `EBUSY`); never more than three times in a row.
    pub busy: f64,
    /// Only a part of the submission queue is taken in.
    pub partial: f64,
    /// A wait ends without a completion.
    pub silent: f64,
    /// Another ring posts a completion that names no request.
    pub foreign: f64,
    /// The kernel loses a completion (`EBADR`), and with it all accounts: the ring is abandoned.
    pub lost: f64,
}

impl Faults {
    /// Nothing goes wrong.
    pub const fn none() -> Faults {
        Faults {
            short: 0.0,
            reset: 0.0,
            cancelled: 0.0,
            delay: 0.0,
            reorder: false,
            late: 0.0,
            lost_race: 0.0,
            odd_ends: 0.0,
            running: 0.0,
            cut: 0.0,
            no_buffers: 0.0,
            never: 0.0,
            interrupt: 0.0,
            busy: 0.0,
            partial: 0.0,
            silent: 0.0,
            foreign: 0.0,
            lost: 0.0,
        }
    }

    /// All that a program must live with, rather often; but no connection is reset, no request is cancelled
    /// that was not to be, and nothing is lost for ever.
    pub const fn usual() -> Faults {
        Faults {
            short: 0.3,
            delay: 0.2,
            reorder: true,
            late: 0.1,
            lost_race: 0.2,
            odd_ends: 0.3,
            running: 0.3,
            cut: 0.1,
            no_buffers: 0.1,
            interrupt: 0.1,
            busy: 0.05,
            partial: 0.1,
            silent: 0.1,
            foreign: 0.05,
            ..Faults::none()
        }
    }

    /// As [`usual`](Self::usual), and connections are reset, and requests cancelled.
    pub const fn many() -> Faults {
        Faults { reset: 0.02, cancelled: 0.02, ..Faults::usual() }
    }
}

impl Default for Faults {
    fn default() -> Self {
        Faults::usual()
    }
}

/// What has happened in a simulation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Figures {
    /// How often the ring has entered the kernel.
    pub enters: u64,
    /// Entries that were taken in.
    pub taken_in: u64,
    /// Cancels among them.
    pub cancels: u64,
    /// Requests that have ended, other than cancels.
    pub ended: u64,
    /// Completions that were posted.
    pub posted: u64,
    /// The most cancels of one request that were ever sent without the answer to one having been seen,
    /// because it waited for room in the completion queue.
    pub most_unanswered: u64,
}

/// Something that has happened between a ring and its simulated kernel.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Event {
    /// The ring has entered the kernel, with so many entries to be taken in.
    Entered {
        /// How many entries there are.
        shown: u32,
    },
    /// An entry was taken in.
    TakenIn(Asked),
    /// A completion was posted, if only to wait for room.
    Posted {
        /// What it names.
        user_data: u64,
        /// `cqe->res`.
        result: i32,
        /// `cqe->flags`.
        flags: u32,
    },
}

type IdleHook = Box<dyn FnMut() -> bool + Send>;

/// A simulated kernel.
#[derive(Clone)]
pub struct Simulation {
    shared: Arc<Shared>,
}

struct Shared {
    seed: u64,
    machine: Mutex<Option<Machine>>,
    /// What the ring has left when it was closed.
    left: Mutex<(Figures, Vec<Event>)>,
    setup: Mutex<Setup>,
    idle: Mutex<Option<IdleHook>>,
}

struct Setup {
    most_enters: u64,
    faults: Faults,
    answer: Option<machine::AnswerHook>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Simulation {
    /// A kernel that does what the seed says.
    pub fn new(seed: u64) -> Simulation {
        let setup = Setup { most_enters: u64::MAX, faults: Faults::usual(), answer: None };
        let shared = Shared {
            seed,
            machine: Mutex::default(),
            left: Mutex::default(),
            setup: Mutex::new(setup),
            idle: Mutex::default(),
        };
        Simulation { shared: Arc::new(shared) }
    }

    /// The seed.
    pub fn seed(&self) -> u64 {
        self.shared.seed
    }

    /// What goes wrong from here on.
    pub fn set_faults(&self, faults: Faults) {
        lock(&self.shared.setup).faults = faults;
        if let Some(machine) = &mut *lock(&self.shared.machine) {
            machine.set_faults(faults);
        }
    }

    /// Panics when the ring has entered the kernel more often than this: for programs that must have an
    /// end.
    pub fn limit_enters(&self, most: u64) {
        lock(&self.shared.setup).most_enters = most;
        if let Some(machine) = &mut *lock(&self.shared.machine) {
            machine.limit_enters(most);
        }
    }

    /// Answers in place of the kernel.
    pub fn on_request(&self, answer: impl FnMut(&Asked) -> Answer + Send + 'static) {
        lock(&self.shared.setup).answer = Some(Box::new(answer));
    }

    /// Does what the other side does, when the ring has nothing to do but wait.
    pub fn on_idle(&self, idle: impl FnMut() -> bool + Send + 'static) {
        *lock(&self.shared.idle) = Some(Box::new(idle));
    }

    /// A ring of this kernel.
    pub fn raw_ring(&self, entries: NonZeroU32) -> io::Result<RawRing> {
        self.raw_ring_with(entries, entries.saturating_mul(NonZeroU32::MIN.saturating_add(3)))
    }

    /// A ring of this kernel with these sizes.
    pub fn raw_ring_with(&self, entries: NonZeroU32, completions: NonZeroU32) -> io::Result<RawRing> {
        let entries = entries.get().next_power_of_two();
        let completions = completions.get().next_power_of_two().max(entries);
        let memory = Own::new(entries, completions);
        let queues = memory.queues();
        let mut ring = lock(&self.shared.machine);
        if ring.is_some() {
            // Its memory is that of the ring that there is.
            return Err(io::Error::from_raw_os_error(libc::EBUSY));
        }
        let mut setup = lock(&self.shared.setup);
        let start = Start {
            now: clock::monotonic(),
            since_1970: SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default(),
        };
        let mut machine = Machine::new(memory, self.shared.seed, setup.faults, setup.answer.take(), start);
        machine.limit_enters(setup.most_enters);
        *ring = Some(machine);
        drop(ring);
        let kernel = Simulated { shared: Arc::clone(&self.shared), queues, process: std::process::id() };
        RawRing::assemble(Host::Simulated(Box::new(kernel)), true)
    }

    fn with<T>(&self, look: impl FnOnce(&Machine) -> T) -> Option<T> {
        lock(&self.shared.machine).as_ref().map(look)
    }

    /// How many requests the kernel has.
    pub fn in_kernel(&self) -> usize {
        self.with(Machine::owned).unwrap_or(0)
    }

    /// Posts a completion, as another ring can by a message (`IORING_OP_MSG_RING`).
    ///
    /// # Safety
    ///
    /// A completion that names a request in flight is believed: the memory of that is given back while the
    /// kernel still uses it, and a result is taken for a descriptor that nobody owns. So nothing may come
    /// of the request any more, and if it yields a descriptor, the result is an error or such a one.
    pub unsafe fn post(&self, user_data: u64, result: i32, flags: u32) {
        if let Some(machine) = &mut *lock(&self.shared.machine) {
            machine.post(user_data, result, flags);
        }
    }

    /// Whether the kernel has a request of this name.
    pub fn has(&self, user_data: u64) -> bool {
        self.with(|machine| machine.has(user_data)).unwrap_or(false)
    }

    /// What has happened since this was last called, the first time nothing: it begins the log.
    pub fn take_log(&self) -> Vec<Event> {
        let mut log = std::mem::take(&mut lock(&self.shared.left).1);
        if let Some(machine) = &mut *lock(&self.shared.machine) {
            log.append(&mut machine.take_log());
        }
        log
    }

    /// Whether a request that the kernel has uses the memory at this place.
    pub fn uses<T>(&self, place: *const T) -> bool {
        self.with(|machine| machine.uses(place.addr() as u64)).unwrap_or(false)
    }

    /// What has happened.
    pub fn figures(&self) -> Figures {
        self.with(Machine::figures).unwrap_or_else(|| lock(&self.shared.left).0)
    }

    /// The time in the simulation.
    pub fn now(&self) -> Duration {
        self.with(Machine::now).unwrap_or_default()
    }
}

impl fmt::Debug for Simulation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Simulation").field("seed", &self.shared.seed).finish_non_exhaustive()
    }
}

/// The simulated kernel, as a ring sees it.
struct Simulated {
    shared: Arc<Shared>,
    queues: Queues,
    process: u32,
}

impl Simulated {
    fn machine<T>(&self, work: impl FnOnce(&mut Machine) -> T) -> io::Result<T> {
        match &mut *lock(&self.shared.machine) {
            Some(machine) => Ok(work(machine)),
            None => Err(io::Error::from_raw_os_error(libc::EBADF)),
        }
    }

    /// What the other side says to the question whether it does something.
    fn ask_the_other_side(&self) -> bool {
        let mut idle = lock(&self.shared.idle);
        idle.as_mut().is_some_and(|idle| idle())
    }
}

/// How often in a row the other side may say that it does something, with nothing coming of it.
const MOST_PROMISES: u32 = 10_000;

impl Kernel for Simulated {
    fn queues(&self) -> Queues {
        self.queues
    }

    /// There is none.
    fn descriptor(&self) -> RawFd {
        -1
    }

    fn is_forked(&self) -> bool {
        self.process != std::process::id()
    }

    fn enable(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn enter(&mut self, queued: u32, patience: Patience) -> io::Result<()> {
        let entering = match self.machine(|machine| machine.begin(queued, patience))? {
            Ok(entering) => entering,
            Err(result) => return result,
        };
        let mut said = None;
        for _ in 0..MOST_PROMISES {
            match self.machine(|machine| machine.go_on(&entering, said))? {
                Step::Return(result) => return result,
                Step::Idle => said = Some(self.ask_the_other_side()),
            }
        }
        panic!("the other side says that it does something, but nothing comes of it: see `on_idle`");
    }

    fn register(&mut self) {}

    fn unregister(&mut self) {}

    fn notify(&mut self, eventfd: Option<&Eventfd>) -> io::Result<()> {
        self.machine(|machine| machine.set_eventfd(eventfd.map(AsRawFd::as_raw_fd)))
    }

    unsafe fn register_buffers(&mut self, address: u64, entries: u16, group: u16) -> io::Result<()> {
        // SAFETY: the caller's promise is the same.
        self.machine(|machine| unsafe { machine.register_buffers(address, entries, group) })?
    }

    fn unregister_buffers(&mut self, group: u16) -> io::Result<()> {
        self.machine(|machine| machine.unregister_buffers(group))?
    }

    fn now(&self) -> Duration {
        self.machine(|machine| machine.now()).unwrap_or_default()
    }
}

impl Drop for Simulated {
    /// Closes the ring; requests that it has left are forgotten with it.
    fn drop(&mut self) {
        if let Some(mut machine) = lock(&self.shared.machine).take() {
            *lock(&self.shared.left) = (machine.figures(), machine.take_log());
        }
    }
}
