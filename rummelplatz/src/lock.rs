//! A lock of our own: most of what std's does is about panics, and none happens under this one.
//!
//! What a user has may be locked by another thread in the moment of a fork, which the child does not have. So a lock can
//! be [enrolled](Locked::enroll): then the thread that forks takes it before the fork and gives it back after it, in both
//! processes, and the child finds it free, and nothing half done.

use std::cell::{Cell, UnsafeCell};
use std::collections::BTreeSet;
use std::ops::{Deref, DerefMut};
use std::panic::RefUnwindSafe;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

/// A value under a lock that is not poisoned: three states, as in "Futexes Are Tricky" (Drepper).
pub(crate) struct Locked<T> {
    word: Word,
    is_enrolled: AtomicBool,
    value: UnsafeCell<T>,
}

/// Who has a lock.
struct Word(AtomicU32);

const FREE: u32 = 0;
const TAKEN: u32 = 1;
/// Taken, and somebody may be asleep until it is free.
const AWAITED: u32 = 2;

// SAFETY: there is one guard at a time; that may be in any thread, or be shared by several.
unsafe impl<T: Send + Sync> Sync for Locked<T> {}

// No user's code runs under the lock, so no panic leaves anything half done.
impl<T> RefUnwindSafe for Locked<T> {}

/// The one way to the value of a [`Locked`].
pub(crate) struct Guard<'l, T>(&'l Locked<T>);

impl Word {
    #[inline(always)]
    fn try_take(&self) -> bool {
        self.0.compare_exchange(FREE, TAKEN, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    #[inline(always)]
    fn take(&self) {
        if self.try_take() {
            return;
        }
        while self.0.swap(AWAITED, Ordering::Acquire) != FREE {
            futex(self.0.as_ptr(), libc::FUTEX_WAIT, AWAITED);
        }
    }

    /// Gives the lock back, and wakes one of those who are asleep until then. Only for whoever has it.
    ///
    /// After that, nothing of it is touched: whoever has it next may be the last to need it. (Waking takes only
    /// an address. If something else is there by now, that wakes nobody, or somebody who looks again.)
    #[inline(always)]
    fn give_back(&self) {
        let address = self.0.as_ptr();
        if self.0.swap(FREE, Ordering::Release) == AWAITED {
            futex(address, libc::FUTEX_WAKE, 1);
        }
    }
}

impl<T> Locked<T> {
    pub(crate) fn new(value: T) -> Locked<T> {
        Locked {
            word: Word(AtomicU32::new(FREE)),
            is_enrolled: AtomicBool::new(false),
            value: UnsafeCell::new(value),
        }
    }

    /// The value, for whoever has all of this.
    pub(crate) fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }

    /// One that nobody ever gets: [`try_lock`](Self::try_lock) fails.
    pub(crate) fn taken(value: T) -> Locked<T> {
        let locked = Locked::new(value);
        locked.word.take();
        locked
    }

    #[inline(always)]
    pub(crate) fn try_lock(&self) -> Option<Guard<'_, T>> {
        // A guard is made only if the lock was taken, because its drop gives the lock back.
        self.word.try_take().then(|| Guard(self))
    }

    pub(crate) fn lock(&self) -> Guard<'_, T> {
        self.word.take();
        Guard(self)
    }

    /// Has nobody but the thread that forks take this lock while it forks.
    ///
    /// # Safety
    ///
    /// From here on, this stays where it is, until it is dropped.
    pub(crate) unsafe fn enroll(&self) {
        if cfg!(miri) {
            // It knows no forks.
            return;
        }
        static PREPARED: Once = Once::new();
        // SAFETY: these functions may be called at any time, and only forks call them.
        PREPARED.call_once(|| unsafe {
            libc::pthread_atfork(Some(before_fork), Some(after_fork), Some(after_fork));
        });
        self.is_enrolled.store(true, Ordering::Relaxed);
        enrolled().insert(Enrolled(NonNull::from(&self.word)));
    }

    /// Whether somebody may be asleep until it is free.
    #[cfg(test)]
    pub(crate) fn is_awaited(&self) -> bool {
        self.word.0.load(Ordering::Relaxed) == AWAITED
    }
}

impl<T> Drop for Locked<T> {
    fn drop(&mut self) {
        if *self.is_enrolled.get_mut() {
            enrolled().remove(&Enrolled(NonNull::from(&self.word)));
        }
    }
}

/// A lock that is there, and stays where it is, for as long as it is in [`ENROLLED`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Enrolled(NonNull<Word>);

// SAFETY: it is a reference to a `Word`, which may be used in any thread.
unsafe impl Send for Enrolled {}

/// Whoever has one of these locks does not touch the list.
static ENROLLED: Mutex<BTreeSet<Enrolled>> = Mutex::new(BTreeSet::new());

thread_local! {
    /// The list, while this thread forks: all that are in it are taken.
    static FORKING: Cell<Option<MutexGuard<'static, BTreeSet<Enrolled>>>> = const { Cell::new(None) };
}

fn enrolled() -> MutexGuard<'static, BTreeSet<Enrolled>> {
    // Nothing under the lock can panic half-way.
    ENROLLED.lock().unwrap_or_else(PoisonError::into_inner)
}

unsafe extern "C" fn before_fork() {
    let list = enrolled();
    // A thread that is ending has no such place any more. Its child may find locks taken.
    FORKING
        .try_with(|forking| {
            list.iter().for_each(|lock| lock.word().take());
            forking.set(Some(list));
        })
        .ok();
}

unsafe extern "C" fn after_fork() {
    if let Ok(Some(list)) = FORKING.try_with(Cell::take) {
        list.iter().for_each(|lock| lock.word().give_back());
    }
}

impl Enrolled {
    fn word(&self) -> &Word {
        // SAFETY: it is there for as long as it is in the list (`Locked::enroll`, and the drop of a `Locked`).
        unsafe { self.0.as_ref() }
    }
}

/// `futex(2)`. What it returns does not matter: a waiter looks again, and there may be nobody to wake.
#[cold]
#[inline(never)]
fn futex(lock: *mut u32, operation: libc::c_int, value: u32) {
    let (operation, forever) = (operation | libc::FUTEX_PRIVATE_FLAG, std::ptr::null::<libc::timespec>());
    // SAFETY: the kernel only looks at the word, and says so if it is not there; no other memory is involved.
    unsafe { libc::syscall(libc::SYS_futex, lock, operation, value, forever) };
}

impl<T> Drop for Guard<'_, T> {
    #[inline(always)]
    fn drop(&mut self) {
        self.0.word.give_back();
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: there is one guard at a time, and this borrows it.
        unsafe { &*self.0.value.get() }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: there is one guard at a time, and this borrows it exclusively.
        unsafe { &mut *self.0.value.get() }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Forks, and checks that `check` holds in the child within ten seconds.
    pub(crate) fn in_fork(check: impl FnOnce() -> bool) {
        // SAFETY: the child does nothing that needs the locks of other threads, except for those that are enrolled.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: a plain call; the signal ends the process.
            unsafe { libc::alarm(10) };
            let failed = !check();
            // SAFETY: ends the process without running what belongs to the parent.
            unsafe { libc::_exit(i32::from(failed)) };
        }
        let mut status = 0;
        // SAFETY: a plain call with a valid argument.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert_eq!(status, 0, "it did not hold, or it took too long (14)");
    }

    /// Forks while another thread has this lock, which it gives back when somebody waits for it. Checks that `check`
    /// holds in the child.
    pub(crate) fn in_fork_while_taken<T: Send + Sync>(locked: &Locked<T>, check: impl FnOnce() -> bool) {
        let (is_taken, is_over) = (AtomicBool::new(false), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let guard = locked.lock();
                is_taken.store(true, Ordering::Relaxed);
                while !locked.is_awaited() && !is_over.load(Ordering::Relaxed) {
                    std::thread::yield_now();
                }
                drop(guard);
            });
            while !is_taken.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| in_fork(check)));
            is_over.store(true, Ordering::Relaxed);
            checked.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        });
    }

    #[test]
    fn a_lock_is_waited_for() {
        const ROUNDS: u64 = if cfg!(miri) { 30 } else { 500 };
        let count = Locked::new(0);
        let add = || (0..ROUNDS).for_each(|_| *count.lock() += 1);
        let guard = count.lock();
        assert!(count.try_lock().is_none());
        std::thread::scope(|scope| {
            (0..4).for_each(|_| drop(scope.spawn(add)));
            while !count.is_awaited() {
                std::thread::yield_now();
            }
            drop(guard);
        });
        assert_eq!(*count.lock(), 4 * ROUNDS);
    }

    #[test]
    #[cfg_attr(miri, ignore = "it knows no forks")]
    fn a_fork_waits_for_the_lock_and_the_child_finds_it_free() {
        let count = Box::new(Locked::new(0));
        // SAFETY: it stays in its box until it is dropped.
        unsafe { count.enroll() };
        in_fork_while_taken(&count, || count.try_lock().is_some());
        // In the parent, too; but another test may be forking just now.
        assert!((0..10_000).any(|_| {
            let is_free = count.try_lock().is_some();
            if !is_free {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            is_free
        }));
        // In a child, no other thread enrolls what has the same address.
        in_fork(|| {
            let word = Enrolled(NonNull::from(&count.word));
            let was_there = enrolled().contains(&word);
            drop(count);
            was_there && !enrolled().contains(&word)
        });
    }
}
