//! A lock of our own: most of what std's does is about panics, and none happens under this one.

use std::cell::UnsafeCell;
use std::ops::{Deref, DerefMut};
use std::panic::RefUnwindSafe;
use std::sync::atomic::{AtomicU32, Ordering};

/// A value under a lock that is not poisoned: three states, as in "Futexes Are Tricky" (Drepper).
pub(super) struct Locked<T> {
    lock: AtomicU32,
    value: UnsafeCell<T>,
}

const FREE: u32 = 0;
const TAKEN: u32 = 1;
/// Taken, and somebody may be asleep until it is free.
const AWAITED: u32 = 2;

// SAFETY: there is one guard at a time; that may be in any thread, or be shared by several.
unsafe impl<T: Send + Sync> Sync for Locked<T> {}

// No user's code runs under the lock, so no panic leaves anything half done.
impl<T> RefUnwindSafe for Locked<T> {}

/// The one way to the value of a [`Locked`].
pub(super) struct Guard<'l, T>(&'l Locked<T>);

impl<T> Locked<T> {
    pub(super) fn new(value: T) -> Locked<T> {
        Locked { lock: AtomicU32::new(FREE), value: UnsafeCell::new(value) }
    }

    /// The value, for whoever has all of this.
    pub(super) fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }

    /// One that nobody ever gets: [`try_lock`](Self::try_lock) fails.
    pub(super) fn taken(value: T) -> Locked<T> {
        Locked { lock: AtomicU32::new(TAKEN), value: UnsafeCell::new(value) }
    }

    #[inline(always)]
    pub(super) fn try_lock(&self) -> Option<Guard<'_, T>> {
        let taken = self.lock.compare_exchange(FREE, TAKEN, Ordering::Acquire, Ordering::Relaxed);
        // A guard is made only if the lock was taken, because its drop gives the lock back.
        taken.is_ok().then(|| Guard(self))
    }

    pub(super) fn lock(&self) -> Guard<'_, T> {
        if let Some(guard) = self.try_lock() {
            return guard;
        }
        while self.lock.swap(AWAITED, Ordering::Acquire) != FREE {
            futex(self.lock.as_ptr(), libc::FUTEX_WAIT, AWAITED);
        }
        Guard(self)
    }

    /// Whether somebody may be asleep until it is free.
    #[cfg(test)]
    pub(super) fn is_awaited(&self) -> bool {
        self.lock.load(Ordering::Relaxed) == AWAITED
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

/// Gives the lock back, and wakes one of those who are asleep until then.
///
/// After that, nothing of it is touched: whoever has it next may be the last to need it. (Waking takes only
/// an address. If something else is there by now, that wakes nobody, or somebody who looks again.)
impl<T> Drop for Guard<'_, T> {
    #[inline(always)]
    fn drop(&mut self) {
        let lock = &self.0.lock;
        let address = lock.as_ptr();
        if lock.swap(FREE, Ordering::Release) == AWAITED {
            futex(address, libc::FUTEX_WAKE, 1);
        }
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
mod tests {
    use super::*;

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
}
