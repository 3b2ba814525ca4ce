//! The two queues: the only module that talks to io_uring. Entries go in, completions come out.
//!
//! [`Uring`] is a real ring. The short way of plain requests is inherent to it, so that it can be a part of
//! the loop; all else that the runtime asks of it is in [`Kernel`].

use std::io;
use std::time::Duration;

use crate::buffers::{BufferPool, PoolError};
use crate::request::Placed;
use crate::waker::Waker;

mod completions;
mod entries;
mod mapped;
mod uring;

pub(crate) use mapped::Mapped;
pub(crate) use uring::Uring;

/// A completion as the kernel posted it (`struct io_uring_cqe`).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cqe {
    pub(crate) user_data: u64,
    pub(crate) result: i32,
    pub(crate) flags: u32,
}

/// How long an [`enter`](Kernel::enter) may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Submits, and does not look for completions.
    Submit,
    /// Submits, and makes what has completed visible.
    Poll,
    /// Submits, and waits for a completion.
    Wait,
    /// As `Wait`, but not longer than this.
    WaitFor(Duration),
    /// As `WaitFor`, but submits nothing: for when the kernel would not take more.
    ReapFor(Duration),
}

/// What came of an [`enter`](Kernel::enter) that did not fail. It says nothing about completions:
/// look at the queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entered {
    /// The call went through, or was interrupted.
    Done,
    /// The kernel is short of something (`EAGAIN`, `EBUSY`): reap, and try again later.
    Busy,
}

/// What the runtime needs of an io_uring, beside the short way of plain requests, which is inherent to
/// [`Uring`].
pub(crate) trait Kernel {
    /// How many entries fit the submission queue.
    fn capacity(&self) -> usize;
    /// How many entries can be pushed now.
    fn room(&mut self) -> usize;
    /// How many entries the kernel has not taken in.
    fn queued(&mut self) -> usize;
    /// Queues an entry.
    ///
    /// # Panics
    ///
    /// If there is no [`room`](Self::room).
    fn push(&mut self, placed: Placed);
    /// Gives the kernel a turn: entries are taken in, completions posted.
    ///
    /// # Errors
    ///
    /// What neither waiting nor repeating would mend. `EINTR`, `ETIME`, `EAGAIN` and `EBUSY` are no
    /// errors.
    fn enter(&mut self, patience: Patience) -> io::Result<Entered>;
    /// Whether a completion is visible, without asking the kernel.
    fn has_completions(&mut self) -> bool;
    /// Whether the kernel holds back completions, which the next enter brings.
    fn holds_back(&mut self) -> bool;
    /// The group of a pool in this ring, which it is registered with if it was not.
    ///
    /// # Errors
    ///
    /// If it is registered elsewhere, or the kernel refuses.
    fn adopt(&mut self, pool: &BufferPool, waker: &Waker) -> Result<u16, PoolError>;
    /// The pool of a group.
    fn pool(&self, group: u16) -> Option<&BufferPool>;
    /// Gives all pools back, when no request is in flight.
    fn release_pools(&mut self);
}
