//! The two queues: the only module that talks to io_uring. Entries go in, completions come out.
//!
//! [`Kernel`] is all that the rest of the runtime knows of it, so that it can be simulated; [`Uring`]
//! is the real thing.
//!
//! # How the unsafe code stays right
//!
//! * What a queued entry points to is good until the final completion of its `user_data`: that is
//!   what a [`Placed`] proves, and only `request` makes one.
//! * What the kernel reads only while it takes an entry in (a time, an address) lies in `asides`, one
//!   place per entry of the submission queue, at the entry's own index. It is overwritten only when
//!   the entry at that index is, which is when the kernel has taken that in.
//! * The mapped queues are touched from `&mut self` alone.

use std::io;
use std::mem::{self, ManuallyDrop};
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, cqueue, opcode, squeue};

use crate::buffers::{BufferPool, PoolError};
use crate::request::{Address, Placed, Prepared};
use crate::wake::Waker;

/// A completion as the kernel posted it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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

/// What the runtime needs of an io_uring.
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
    /// The next completion that is visible.
    fn pop(&mut self) -> Option<Cqe>;
    /// Whether [`pop`](Self::pop) has something, without asking the kernel.
    fn has_completions(&mut self) -> bool;
    /// Whether the kernel holds back completions for want of space, which the next enter brings.
    fn overflowing(&mut self) -> bool;
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

/// An io_uring that is not touched by a process that was forked off the one that made it: there, its
/// memory is not mapped (`MADV_DONTFORK`), and something else may be.
pub(crate) struct Mapped {
    ring: ManuallyDrop<IoUring>,
    process: u32,
}

impl Mapped {
    pub(crate) fn new(ring: IoUring) -> Mapped {
        Mapped { ring: ManuallyDrop::new(ring), process: std::process::id() }
    }

    /// Whether this process was forked off the one that made the ring.
    pub(crate) fn is_forked(&self) -> bool {
        self.process != std::process::id()
    }
}

impl Deref for Mapped {
    type Target = IoUring;
    #[inline]
    fn deref(&self) -> &IoUring {
        &self.ring
    }
}

impl DerefMut for Mapped {
    #[inline]
    fn deref_mut(&mut self) -> &mut IoUring {
        &mut self.ring
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        if !self.is_forked() {
            // SAFETY: dropped here, once, and not used again.
            unsafe { ManuallyDrop::drop(&mut self.ring) };
        }
    }
}

/// A real ring.
pub(crate) struct Uring {
    ring: Mapped,
    /// Beside each entry of the submission queue, what it points to.
    asides: Box<[Aside]>,
    /// Entries pushed so far, which is the tail of the submission queue.
    tail: u32,
    /// Completions that were copied out of the queue, and how far they are used up.
    batch: [Cqe; Self::BATCH],
    next: usize,
    filled: usize,
    /// The pools that are registered, by group. One that could not be unregistered is never dropped.
    pools: Vec<BufferPool>,
    /// Tells this ring from all others of this process.
    serial: u64,
}

/// What the kernel reads only while it takes an entry in.
enum Aside {
    Nothing,
    Time(Timespec),
    Address(Address),
}

impl Uring {
    /// Enough to make the price of publishing the queue's head small, and 1 KiB in all.
    const BATCH: usize = 64;

    /// Takes over a ring whose submission queue is empty.
    pub(crate) fn new(ring: Mapped, serial: u64) -> Uring {
        let entries = ring.params().sq_entries();
        Uring {
            ring,
            asides: (0..entries).map(|_| Aside::Nothing).collect(),
            tail: 0,
            batch: [Cqe::default(); Self::BATCH],
            next: 0,
            filled: 0,
            pools: Vec::new(),
            serial,
        }
    }

    /// Lets a ring that was created disabled begin, with this thread as its owner
    /// (`IORING_REGISTER_ENABLE_RINGS`, since 5.10).
    pub(crate) fn enable(&self) -> io::Result<()> {
        self.ring.submitter().register_enable_rings()
    }

    /// Whether this process was forked off the one that made the ring.
    pub(crate) fn is_forked(&self) -> bool {
        self.ring.is_forked()
    }

    /// Keeps for ever what the kernel may still use: the pools and the asides.
    pub(crate) fn leak(&mut self) {
        mem::forget(mem::take(&mut self.pools));
        mem::forget(mem::take(&mut self.asides));
    }

    /// Fills the batch anew. False if nothing has completed.
    #[inline]
    fn refill(&mut self) -> bool {
        self.next = 0;
        self.filled = 0;
        let completions = self.ring.completion();
        for (place, cqe) in self.batch.iter_mut().zip(completions) {
            let (user_data, result, flags) = (cqe.user_data(), cqe.result(), cqe.flags());
            *place = Cqe { user_data, result, flags };
            self.filled += 1;
        }
        self.filled > 0
    }
}

/// Builds the entry, with pointers to `aside` where it needs one.
#[inline(never)]
fn build(prepared: Prepared, aside: &mut Aside) -> squeue::Entry {
    match prepared {
        Prepared::Entry(entry) => entry,
        Prepared::Timeout { spec, count, flags } => {
            *aside = Aside::Time(spec);
            let Aside::Time(spec) = aside else { unreachable!("written above") };
            opcode::Timeout::new(&raw const *spec).count(count).flags(flags).build()
        }
        Prepared::Connect { socket, address } => {
            *aside = Aside::Address(address);
            let Aside::Address(address) = aside else { unreachable!("written above") };
            let (address, length) = address.raw();
            opcode::Connect::new(Fd(socket), address, length).build()
        }
        Prepared::ReceiveMulti { socket, group, .. } => {
            opcode::RecvMulti::new(Fd(socket), group).build()
        }
    }
}

impl Kernel for Uring {
    fn capacity(&self) -> usize {
        self.asides.len()
    }

    #[inline]
    fn room(&mut self) -> usize {
        self.capacity() - self.queued()
    }

    #[inline]
    fn queued(&mut self) -> usize {
        self.ring.submission().len()
    }

    #[inline(always)]
    fn push(&mut self, placed: Placed) {
        let user_data = placed.user_data();
        let mut queue = self.ring.submission();
        assert!(!queue.is_full(), "room() comes before push()");
        let entry = match placed.into_prepared() {
            Prepared::Entry(entry) => entry,
            prepared => {
                // There is room, so the entry that was at this index has been taken in, and its
                // aside is free.
                let index = self.tail as usize & (self.asides.len() - 1);
                build(prepared, &mut self.asides[index])
            }
        };
        // SAFETY: a `Placed` proves that what it points to is good until its final completion, and
        // the aside stays as it is until the entry is taken in.
        let pushed = unsafe { queue.push(&entry.user_data(user_data)) };
        debug_assert!(pushed.is_ok());
        self.tail = self.tail.wrapping_add(1);
    }

    fn enter(&mut self, patience: Patience) -> io::Result<Entered> {
        let (want, mut flags) = match patience {
            Patience::Submit => (0, EnterFlags::empty()),
            Patience::Poll => (0, EnterFlags::GETEVENTS),
            Patience::Wait | Patience::WaitFor(_) | Patience::ReapFor(_) => (1, EnterFlags::GETEVENTS),
        };
        let queued = match patience {
            Patience::ReapFor(_) => 0,
            _ => self.queued() as u32,
        };
        if self.ring.params().is_setup_sqpoll() {
            if self.ring.submission().need_wakeup() {
                flags |= EnterFlags::SQ_WAKEUP;
            }
            if patience == Patience::Submit && queued as usize == self.capacity() {
                flags |= EnterFlags::SQ_WAIT;
            }
        }
        let submitter = self.ring.submitter();
        let entered = match patience {
            Patience::WaitFor(time) | Patience::ReapFor(time) => {
                let time = Timespec::from(time);
                let arguments = SubmitArgs::new().timespec(&time);
                let flags = (flags | EnterFlags::EXT_ARG).bits();
                // SAFETY: the argument is of the kind that EXT_ARG announces, and good for the call.
                unsafe { submitter.enter(queued, want, flags, Some(&arguments)) }
            }
            // SAFETY: without an argument there is nothing to be wrong about.
            _ => unsafe { submitter.enter::<libc::sigset_t>(queued, want, flags.bits(), None) },
        };
        match entered {
            Ok(_) => Ok(Entered::Done),
            Err(error) => match error.raw_os_error() {
                Some(libc::EINTR | libc::ETIME) => Ok(Entered::Done),
                Some(libc::EAGAIN | libc::EBUSY) => Ok(Entered::Busy),
                _ => Err(error),
            },
        }
    }

    #[inline]
    fn pop(&mut self) -> Option<Cqe> {
        if self.next == self.filled && !self.refill() {
            return None;
        }
        let cqe = self.batch[self.next];
        self.next += 1;
        Some(cqe)
    }

    fn has_completions(&mut self) -> bool {
        self.next < self.filled || !self.ring.completion().is_empty()
    }

    fn overflowing(&mut self) -> bool {
        self.ring.submission().cq_overflow()
    }

    fn adopt(&mut self, pool: &BufferPool, waker: &Waker) -> Result<u16, PoolError> {
        if let Some(group) = pool.group(self.serial) {
            return Ok(group);
        }
        let group = u16::try_from(self.pools.len())
            .map_err(|_| PoolError::Refused(io::Error::from_raw_os_error(libc::ENOSPC)))?;
        pool.register(self.serial, group, waker.clone(), |address, entries| {
            let submitter = self.ring.submitter();
            // SAFETY: the pool says where its ring of buffers is, and that stays there for as long as
            // the pool is in `pools`: until the kernel has forgotten it, or for ever.
            unsafe { submitter.register_buf_ring_with_flags(address, entries, group, 0) }
        })?;
        self.pools.push(pool.clone());
        Ok(group)
    }

    #[inline]
    fn pool(&self, group: u16) -> Option<&BufferPool> {
        self.pools.get(usize::from(group))
    }

    fn release_pools(&mut self) {
        for (group, pool) in self.pools.drain(..).enumerate() {
            match self.ring.submitter().unregister_buf_ring(group as u16) {
                Ok(()) => pool.unregister(),
                // The kernel keeps it, so it is kept.
                Err(_) => mem::forget(pool),
            }
        }
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        self.release_pools();
    }
}

impl AsFd for Uring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is open as long as the ring that owns it is borrowed.
        unsafe { BorrowedFd::borrow_raw(self.as_raw_fd()) }
    }
}

impl AsRawFd for Uring {
    fn as_raw_fd(&self) -> RawFd {
        self.ring.as_raw_fd()
    }
}

const _: () = assert!(size_of::<cqueue::Entry>() == size_of::<Cqe>());
