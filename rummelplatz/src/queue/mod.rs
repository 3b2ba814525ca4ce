//! The two queues: the only module that talks to io_uring. Entries go in, completions come out.
//!
//! [`Uring`] is our end: it fills entries, sees completions, and knows when to enter. At the other end is a
//! [`Kernel`]: the real one ([`Real`]), or a simulated one (feature `sim`). The line between the two ends is
//! the system call. So all that ships runs under the simulation, including the shared memory, and nothing on
//! the way of a request asks which kernel there is.

use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::time::Duration;

use crate::cpus::Cpus;
use crate::eventfd::Eventfd;

mod completions;
mod entries;
mod mapped;
mod memory;
mod real;
mod table;
mod uring;

#[cfg(feature = "sim")]
pub(crate) use memory::{Own, Queues};
pub(crate) use real::{Real, is_ring};
pub(crate) use table::Change;
pub(crate) use uring::Uring;

/// A completion as the kernel posted it (`struct io_uring_cqe`).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cqe {
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
    /// Submits, and waits for a completion, or as [`set_min_wait`](Kernel::set_min_wait) says.
    Wait,
    /// Submits, and waits for a completion, but not longer than this.
    WaitFor(Duration),
    /// As `WaitFor`, but submits nothing: for when the kernel takes no more. With no time at all, it need not wait.
    ReapFor(Duration),
}

/// What came of an enter that did not fail. It says nothing about completions: look at the queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entered {
    /// The call went through, or was interrupted.
    Done,
    /// The kernel is short of something (`EAGAIN`, `EBUSY`): reap, and try again later.
    Busy,
}

/// A ring of provided buffers.
pub(crate) struct BufferRing {
    pub(crate) address: u64,
    pub(crate) entries: u16,
    /// Its buffers are used piece by piece (`IOU_PBUF_RING_INC`).
    pub(crate) is_incremental: bool,
}

/// The loop waits for several completions, but not for long; then, for one
/// ([`set_min_wait`](Kernel::set_min_wait)).
#[derive(Clone, Copy, Debug)]
pub(crate) struct MinWait {
    /// At least 1: with 0, the kernel would wait for all of them, however long that took.
    pub(crate) microseconds: u32,
    pub(crate) completions: u32,
}

/// A wait begins with looking at the network devices ([`busy_poll`](Kernel::busy_poll)).
#[derive(Clone, Copy, Debug)]
pub(crate) struct BusyPoll {
    pub(crate) microseconds: u32,
    /// Whether interrupts of the devices are put off meanwhile.
    pub(crate) prefer: bool,
}

/// What is at the other end of the queues.
pub(crate) trait Kernel {
    /// Where the queues are. Good for as long as this lives, wherever it is moved.
    fn queues(&self) -> memory::Queues;
    /// The ring's own descriptor.
    fn descriptor(&self) -> RawFd;
    /// Whether this process was forked off the one that made the ring.
    fn is_forked(&self) -> bool;
    /// Lets a ring that was created disabled begin, with this thread as its owner
    /// (`IORING_REGISTER_ENABLE_RINGS`, since 5.10).
    fn enable(&mut self) -> io::Result<()>;
    /// Whether a thread of the kernel takes entries in (`IORING_SETUP_SQPOLL`).
    fn has_poller(&self) -> bool {
        false
    }
    /// Gives the kernel a turn: it takes entries in, `queued` of them if it can, and posts completions
    /// (`io_uring_enter(2)`).
    ///
    /// # Errors
    ///
    /// Those of the system call, as they are.
    fn enter(&mut self, queued: u32, patience: Patience) -> io::Result<()>;
    /// Lets this thread enter the ring without a look into its table of descriptors
    /// (`IORING_REGISTER_RING_FDS`, since 5.18), until [`unregister`](Self::unregister) by the same thread.
    /// It does not matter if the kernel can't.
    fn register(&mut self);
    /// Undoes [`register`](Self::register).
    fn unregister(&mut self);
    /// Makes the kernel signal an eventfd for each completion (`IORING_REGISTER_EVENTFD`, since 5.2), or
    /// none.
    fn notify(&mut self, eventfd: Option<&Eventfd>) -> io::Result<()>;
    /// Registers a ring of provided buffers (`IORING_REGISTER_PBUF_RING`, since 5.19). Those that are used piece by
    /// piece only if completions come in the order in which that is done, and say what was (since 6.18; before,
    /// `EOPNOTSUPP`).
    ///
    /// # Safety
    ///
    /// The ring and its buffers stay there until they are unregistered, or for ever.
    unsafe fn register_buffers(&mut self, buffers: BufferRing, group: u16) -> io::Result<()>;
    /// Undoes [`register_buffers`](Self::register_buffers).
    fn unregister_buffers(&mut self, group: u16) -> io::Result<()>;
    /// Limits how many workers there may be for requests that end by themselves, and for those that may wait
    /// for ever (`IORING_REGISTER_IOWQ_MAX_WORKERS`, since 5.15); 0 leaves a limit as it is.
    fn limit_workers(&mut self, limits: [u32; 2]) -> io::Result<()>;
    /// On which CPUs the workers run that are this thread's or, if a thread of the kernel takes entries in, that
    /// thread's (`IORING_REGISTER_IOWQ_AFF`, since 5.14).
    fn place_workers(&mut self, cpus: &Cpus) -> io::Result<()>;
    /// Lets waits begin with a look at the devices of the sockets that requests wait for (`IORING_REGISTER_NAPI`,
    /// since 6.9), until the ring is closed.
    fn busy_poll(&mut self, busy_poll: BusyPoll) -> io::Result<()>;
    /// Lets [`Patience::Wait`] wait for several completions, but only for some time; after that, for one
    /// (`min_wait_usec` of `IORING_ENTER_EXT_ARG`, since 6.12).
    fn set_min_wait(&mut self, min_wait: MinWait) -> io::Result<()>;
    /// Changes the table of registered files (`IORING_REGISTER_FILES2`, `IORING_REGISTER_FILES_UPDATE2`; with
    /// empty places since 5.19).
    fn change_files(&mut self, change: Change<BorrowedFd<'_>>) -> io::Result<()>;
    /// Changes the table of registered memory, given as the address of the first byte and the number of bytes
    /// (`IORING_REGISTER_BUFFERS2`, `IORING_REGISTER_BUFFERS_UPDATE`; with empty places since 5.19).
    ///
    /// # Safety
    ///
    /// The memory stays there until it is cleared and no request that names it is in flight, or for ever.
    unsafe fn change_memory(&mut self, change: Change<(u64, usize)>) -> io::Result<()>;
    /// The time, as timeouts count it.
    fn now(&self) -> Duration;
}

/// The kernel of a ring.
#[cfg_attr(feature = "sim", expect(clippy::large_enum_variant, reason = "the real one is in place"))]
pub(crate) enum Host {
    Real(Real),
    #[cfg(feature = "sim")]
    Simulated(Box<dyn Kernel + Send>),
}

/// Calls a method of whichever kernel it is.
macro_rules! on {
    ($host:expr, $kernel:ident => $call:expr) => {
        match $host {
            Host::Real($kernel) => $call,
            #[cfg(feature = "sim")]
            Host::Simulated($kernel) => $call,
        }
    };
}

impl Kernel for Host {
    fn queues(&self) -> memory::Queues {
        on!(self, kernel => kernel.queues())
    }

    fn descriptor(&self) -> RawFd {
        on!(self, kernel => kernel.descriptor())
    }

    fn is_forked(&self) -> bool {
        on!(self, kernel => kernel.is_forked())
    }

    fn enable(&mut self) -> io::Result<()> {
        on!(self, kernel => kernel.enable())
    }

    fn has_poller(&self) -> bool {
        on!(self, kernel => kernel.has_poller())
    }

    #[inline(always)]
    fn enter(&mut self, queued: u32, patience: Patience) -> io::Result<()> {
        on!(self, kernel => kernel.enter(queued, patience))
    }

    fn register(&mut self) {
        on!(self, kernel => kernel.register());
    }

    fn unregister(&mut self) {
        on!(self, kernel => kernel.unregister());
    }

    fn notify(&mut self, eventfd: Option<&Eventfd>) -> io::Result<()> {
        on!(self, kernel => kernel.notify(eventfd))
    }

    unsafe fn register_buffers(&mut self, buffers: BufferRing, group: u16) -> io::Result<()> {
        // SAFETY: the contract is the same, and the caller keeps it.
        on!(self, kernel => unsafe { kernel.register_buffers(buffers, group) })
    }

    fn unregister_buffers(&mut self, group: u16) -> io::Result<()> {
        on!(self, kernel => kernel.unregister_buffers(group))
    }

    fn limit_workers(&mut self, limits: [u32; 2]) -> io::Result<()> {
        on!(self, kernel => kernel.limit_workers(limits))
    }

    fn place_workers(&mut self, cpus: &Cpus) -> io::Result<()> {
        on!(self, kernel => kernel.place_workers(cpus))
    }

    fn busy_poll(&mut self, busy_poll: BusyPoll) -> io::Result<()> {
        on!(self, kernel => kernel.busy_poll(busy_poll))
    }

    fn set_min_wait(&mut self, min_wait: MinWait) -> io::Result<()> {
        on!(self, kernel => kernel.set_min_wait(min_wait))
    }

    fn change_files(&mut self, change: Change<BorrowedFd<'_>>) -> io::Result<()> {
        on!(self, kernel => kernel.change_files(change))
    }

    unsafe fn change_memory(&mut self, change: Change<(u64, usize)>) -> io::Result<()> {
        // SAFETY: the contract is the same, and the caller keeps it.
        on!(self, kernel => unsafe { kernel.change_memory(change) })
    }

    fn now(&self) -> Duration {
        on!(self, kernel => kernel.now())
    }
}
