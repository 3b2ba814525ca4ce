//! Panics of a user's code where the ring must go on first: caught, and handed on when it is done.

use std::any::Any;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// The first of several panics. All later ones are dropped, and so is this one if nobody goes on with it. A
/// payload whose own `Drop` panics does no harm.
#[must_use]
pub(crate) struct FirstPanic(Option<Box<dyn Any + Send>>);

impl FirstPanic {
    pub(crate) const fn none() -> FirstPanic {
        FirstPanic(None)
    }

    /// Runs what may panic. Returns `None` if it has.
    pub(crate) fn catch<T>(&mut self, work: impl FnOnce() -> T) -> Option<T> {
        match catch_unwind(AssertUnwindSafe(work)) {
            Ok(result) => Some(result),
            Err(panic) if self.0.is_none() => {
                self.0 = Some(panic);
                None
            }
            Err(panic) => {
                discard(panic);
                None
            }
        }
    }

    /// Notes a panic that came later.
    pub(crate) fn then(&mut self, mut later: FirstPanic) {
        if self.0.is_none() {
            self.0 = later.0.take();
        }
    }

    /// Goes on with the panic, if there was one.
    pub(crate) fn go_on(mut self) {
        if let Some(panic) = self.0.take() {
            resume_unwind(panic);
        }
    }

    /// Goes on with the panic from within a `Drop`, unless the thread is already panicking.
    pub(crate) fn go_on_from_drop(self) {
        if !std::thread::panicking() {
            self.go_on();
        }
    }
}

impl Drop for FirstPanic {
    fn drop(&mut self) {
        if let Some(panic) = self.0.take() {
            discard(panic);
        }
    }
}

/// Drops a payload. A payload that its `Drop` panics with is forgotten, or there would be no end to it.
fn discard(panic: Box<dyn Any + Send>) {
    if let Err(another) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        mem::forget(another);
    }
}
