//! What the user has set. Hooks may set it, too.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::asked::Asked;
use super::{Answer, Faults, lock};

/// Answers in place of the kernel.
pub(super) type AnswerHook = Box<dyn FnMut(&Asked) -> Answer + Send>;
/// Does something for the other side, if it can.
pub(super) type IdleHook = Box<dyn FnMut() -> bool + Send>;

/// How long another thread is waited for by default.
const PATIENCE: Duration = Duration::from_millis(100);

/// What the user has set. Nothing here stays locked while a hook runs. A hook that is running has been taken
/// out, and so it is gone once it has panicked.
pub(super) struct Settings {
    faults: Mutex<Faults>,
    most_enters: AtomicU64,
    patience: Mutex<Duration>,
    answer: Mutex<Option<Answering>>,
    idle: Mutex<Option<IdleHook>>,
    /// When an answer was last asked for, in nanoseconds.
    asked_at: AtomicU64,
    keeps_log: AtomicBool,
}

struct Answering {
    hook: AnswerHook,
    /// Whoever has set it vouches for its answers.
    is_vouched_for: bool,
}

impl Settings {
    pub(super) fn new() -> Settings {
        Settings {
            faults: Mutex::new(Faults::usual()),
            most_enters: AtomicU64::new(u64::MAX),
            patience: Mutex::new(PATIENCE),
            answer: Mutex::default(),
            idle: Mutex::default(),
            asked_at: AtomicU64::new(0),
            keeps_log: AtomicBool::new(false),
        }
    }

    pub(super) fn faults(&self) -> Faults {
        *lock(&self.faults)
    }

    pub(super) fn set_faults(&self, faults: Faults) {
        *lock(&self.faults) = faults;
    }

    pub(super) fn most_enters(&self) -> u64 {
        self.most_enters.load(Ordering::Relaxed)
    }

    pub(super) fn set_most_enters(&self, most: u64) {
        self.most_enters.store(most, Ordering::Relaxed);
    }

    pub(super) fn patience(&self) -> Duration {
        *lock(&self.patience)
    }

    pub(super) fn set_patience(&self, patience: Duration) {
        *lock(&self.patience) = patience;
    }

    pub(super) fn keeps_log(&self) -> bool {
        self.keeps_log.load(Ordering::Relaxed)
    }

    pub(super) fn begin_log(&self) {
        self.keeps_log.store(true, Ordering::Relaxed);
    }

    pub(super) fn set_answer(&self, hook: AnswerHook, is_vouched_for: bool) {
        let before = lock(&self.answer).replace(Answering { hook, is_vouched_for });
        drop(before);
    }

    pub(super) fn set_idle(&self, hook: IdleHook) {
        let before = lock(&self.idle).replace(hook);
        drop(before);
    }

    /// Whether there is a hook that may say what is not so, because whoever has set it vouches for it.
    pub(super) fn is_vouched_for(&self) -> bool {
        lock(&self.answer).as_ref().is_some_and(|answering| answering.is_vouched_for)
    }

    /// The answer to a request, and whether it is vouched for.
    pub(super) fn answer(&self, asked: &Asked, now: Duration) -> (Answer, bool) {
        let taken = lock(&self.answer).take();
        let Some(mut answering) = taken else { return (Answer::Perform, true) };
        self.asked_at.store(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        let answer = (answering.hook)(asked);
        let is_vouched_for = answering.is_vouched_for;
        put_back(&self.answer, answering);
        (answer, is_vouched_for)
    }

    /// When an answer was last asked for.
    pub(super) fn asked_at(&self) -> Duration {
        Duration::from_nanos(self.asked_at.load(Ordering::Relaxed))
    }

    /// What the other side answers when it is asked whether it does something.
    pub(super) fn ask_the_other_side(&self) -> bool {
        let taken = lock(&self.idle).take();
        let Some(mut idle) = taken else { return false };
        let does = idle();
        put_back(&self.idle, idle);
        does
    }
}

/// Puts a hook back where it was, unless it has set another.
fn put_back<T>(place: &Mutex<Option<T>>, hook: T) {
    let mut place = lock(place);
    let unused = match &*place {
        Some(_) => Some(hook),
        None => {
            *place = Some(hook);
            None
        }
    };
    drop(place);
    drop(unused);
}
