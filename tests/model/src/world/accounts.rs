//! The accounts of a program: what is known of its requests, of the kernel, and of what its ring is to say. They are
//! shared by the handlers, the simulated kernel and whoever drives the ring, and so are behind a lock. Here they are
//! only kept: what is written into them, and what must hold of them, is said in the modules above (see
//! [`world`](super)).

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rummelplatz::sim::{Asked, Simulation};
use rummelplatz::{BufferPool, FixedBuffers, RawCompletion};

use crate::descriptors::Descriptors;
use crate::program::{Action, Chance, Program};
use crate::surroundings::Surroundings;
use crate::world::entries::Entries;
use crate::world::files::Files;
use crate::world::messages::Messages;
use crate::world::pools::Pools;
use crate::world::request::Request;

/// How many buffers are registered; what would need one more becomes a NOP.
const REGISTERED: u32 = 8;

/// What is around a ring.
pub(crate) struct World {
    /// `None` on the real kernel: there only what the ring says is known.
    pub(crate) simulation: Option<Simulation>,
    pub(super) surroundings: Surroundings,
    /// Memory that the ring registers.
    pub(crate) registered: FixedBuffers,
    accounts: Mutex<Accounts>,
}

/// See the [module documentation](self).
pub(crate) struct Accounts {
    // ---- the program ----
    pub(crate) program: Program,
    pub(crate) actions: VecDeque<Action>,
    /// Calls of `on_completion` so far.
    pub(crate) calls: u8,
    /// How many requests teardown handlers may still submit.
    pub(crate) late_left: u32,
    /// The source of what handlers choose.
    pub(crate) chance: Chance,
    /// The source of what the kernel chooses.
    pub(super) kernel_chance: Chance,

    // ---- its requests ----
    pub(super) requests: Vec<Request>,
    pub(super) by_name: HashMap<u64, usize>,
    pub(super) entries: Entries,
    pub(super) messages: Messages,
    /// The stream whose handler is running, and its operation.
    pub(super) lent: Option<(bool, usize)>,

    // ---- what they work on ----
    pub(super) kernel: KernelSide,
    pub(super) pools: Pools,
    pub(super) files: Files,
    pub(super) descriptors: Descriptors,

    // ---- what is to come of it, and what has ----
    pub(super) expected: Expected,
    pub(super) ending: Ending,
    /// How many files handlers were given.
    pub(super) given: u64,
    /// What is wrong.
    pub(super) violations: Vec<String>,
    /// The kernel has lost a completion, or will never give one: leaks are to be expected.
    pub(crate) silenced: bool,
}

/// What the simulated kernel has, and what it has said.
#[derive(Default)]
pub(super) struct KernelSide {
    /// The requests that it has: taken in, with no final completion posted.
    pub(super) owned: HashSet<u64>,
    /// Completions that were posted and not delivered, by name.
    pub(super) posted: HashMap<u64, VecDeque<RawCompletion>>,
    /// What linked timers have ended with, by name.
    pub(super) timers: HashMap<u64, i32>,
    /// When requests ended, at the latest, by name.
    pub(super) ended_by: HashMap<u64, Duration>,
    /// Requests for which a cancel was taken in.
    pub(super) asked_for: HashSet<u64>,
}

/// What the figures of a ring must be.
#[derive(Default)]
pub(super) struct Expected {
    pub(super) warnings: u64,
    pub(super) returned_late: u64,
    /// Completions that name no request: how many were posted, and how many of them before one that was delivered.
    pub(super) strangers: u64,
    pub(super) strangers_seen: u64,
    /// How many of them there were when the end of a request was posted, by the request's name.
    pub(super) strangers_before: HashMap<u64, u64>,
    /// Requests whose end nobody is told, and those of them that the kernel has ended well.
    pub(super) detached: u64,
    pub(super) detached_well: u64,
}

/// Why a run may end, and what it is to say.
#[derive(Default)]
pub(super) struct Ending {
    /// There is a reason for a run to end.
    pub(super) is_due: bool,
    /// The last time at which no teardown had begun.
    pub(super) ran_at: Duration,
    /// What a handler has failed with, in this run.
    pub(super) cause: Option<String>,
    /// What teardown handlers have failed with, in this run.
    pub(super) teardown: Vec<String>,
    /// How many failures there were.
    pub(super) failures: u32,
}

impl World {
    pub(crate) fn new(
        program: &Program,
        simulation: Option<Simulation>,
        surroundings: Surroundings,
    ) -> Arc<World> {
        Arc::new(World {
            simulation,
            surroundings,
            registered: FixedBuffers::new(REGISTERED, 16).expect("there is so much memory"),
            accounts: Mutex::new(Accounts::new(program)),
        })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Accounts> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something is wrong.
    pub(crate) fn violation(&self, what: String) {
        self.lock().violation(what);
    }

    /// Nothing is wrong so far.
    pub(crate) fn is_sound(&self) -> bool {
        self.lock().violations.is_empty()
    }

    /// The time in the simulation.
    pub(crate) fn now(&self) -> Duration {
        self.simulation.as_ref().map(Simulation::now).unwrap_or_default()
    }
}

impl Accounts {
    fn new(program: &Program) -> Accounts {
        Accounts {
            program: program.clone(),
            actions: program.actions.clone().into(),
            calls: 0,
            late_left: 20,
            chance: Chance::new(program.seed ^ 0x1111),
            kernel_chance: Chance::new(program.seed ^ 0x2222),
            requests: Vec::new(),
            by_name: HashMap::new(),
            entries: Entries::default(),
            messages: Messages::default(),
            lent: None,
            kernel: KernelSide::default(),
            pools: Pools::default(),
            files: Files::default(),
            descriptors: Descriptors::default(),
            expected: Expected::default(),
            ending: Ending::default(),
            given: 0,
            violations: Vec::new(),
            silenced: false,
        }
    }

    pub(super) fn violation(&mut self, what: String) {
        self.violations.push(what);
    }

    /// The end of a request, or a part of it, is wrong.
    pub(super) fn wrong(&mut self, id: usize, raw: RawCompletion, what: &str) {
        let kind = self.requests[id].kind;
        self.violation(format!("#{id} ({kind:?}): {what}; {raw:?}"));
    }

    /// Whether the kernel may lose a completion, or may never give one.
    pub(super) fn may_leak(&self) -> bool {
        self.program.faults.lost > 0.0 || self.program.faults.never > 0.0
    }

    /// Whether it is known which slots are free: it is not when a panic has lost some.
    pub(super) fn knows_slots(&self) -> bool {
        !self.silenced && !self.may_leak()
    }

    /// How many requests an operation has in its slots: the minimum and the maximum.
    pub(super) fn occupied(&self, second: bool) -> (usize, usize) {
        let (mut certain, mut possible) = (0, 0);
        let of_operation = |it: &&Request| it.second == second && it.accepted;
        for request in self.requests.iter().filter(of_operation) {
            let is_owned = || request.name.is_some_and(|name| self.kernel.owned.contains(&name));
            let (is_here, may_be_here) = match request {
                // It may not have been looked at yet, and may have been dropped.
                Request { is_sent: true, finals, drops, .. } => (false, *finals == 0 && *drops == 0),
                Request { silent: false, finals, .. } => (*finals == 0, *finals == 0),
                // A stream that was given up, or one whose end is not to be told.
                Request { name: Some(_), .. } => (is_owned(), true),
                Request { drops, .. } => (*drops == 0, *drops == 0),
            };
            certain += usize::from(is_here);
            possible += usize::from(may_be_here);
        }
        (certain, possible)
    }

    /// Which request an entry is.
    pub(super) fn find(&self, asked: &Asked) -> Option<usize> {
        let named = self.by_name.get(&asked.user_data).copied();
        named.or_else(|| {
            let at = |request: &Request| request.accepted && request.place == asked.address;
            self.requests.iter().rposition(|request| asked.address != 0 && at(request))
        })
    }

    /// The pool of this ring.
    pub(crate) fn pool(&mut self) -> BufferPool {
        self.pools.own()
    }
}
