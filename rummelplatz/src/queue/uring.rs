//! The real ring.
//!
//! # How the unsafe code stays right
//!
//! * What a queued entry points to is good until the final completion of its `user_data`: that is
//!   what a [`Placed`] proves, and only `request` makes one.
//! * What the kernel reads only while it takes an entry in (a time, an address) lies in `asides`, one
//!   place per entry of the submission queue, at the entry's own index. It is overwritten only when
//!   the entry at that index is, which is when the kernel has taken that in.
//! * `taken_in ≤ tail ≤ taken_in + capacity` and `next ≤ end`, with wrap-around: all entries are
//!   written in the part of the queue that is ours, all completions read in the part that is posted.

use std::io;
use std::mem;

use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{EnterFlags, opcode, squeue};

use super::{Cqe, Entered, Kernel, Mapped, Patience};
use crate::buffers::{BufferPool, PoolError};
use crate::request::{Address, Placed, Prepared};
use crate::waker::Waker;

/// A real ring.
pub(crate) struct Uring {
    ring: Mapped,
    /// Beside each entry of the submission queue, what it points to.
    asides: Box<[Aside]>,
    /// Where the next entry goes. The kernel learns of it when it is entered.
    tail: u32,
    /// Where the kernel was in the submission queue when that was last looked at.
    taken_in: u32,
    /// The completion to be looked at next. The kernel learns of it when there are no more, and when
    /// it is entered.
    next: u32,
    /// The end of the completions that are known of.
    end: u32,
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
    /// Takes over a ring whose submission queue is empty.
    pub(crate) fn new(ring: Mapped, serial: u64) -> Uring {
        // Its memory is not there in a forked child, which finds out before it uses the ring.
        let (tail, next) = match ring.is_forked() {
            true => (0, 0),
            false => (ring.entries_taken_in(), ring.completions_seen()),
        };
        Uring {
            asides: (0..ring.capacity()).map(|_| Aside::Nothing).collect(),
            tail,
            taken_in: tail,
            next,
            end: next,
            ring,
            pools: Vec::new(),
            serial,
        }
    }

    /// Lets a ring that was created disabled begin, with this thread as its owner
    /// (`IORING_REGISTER_ENABLE_RINGS`, since 5.10).
    pub(crate) fn enable(&self) -> io::Result<()> {
        self.ring.submitter().register_enable_rings()
    }

    /// Whether the registered eventfd tells of completions.
    pub(crate) fn notify(&self, on: bool) {
        self.ring.notify(on);
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

    /// Looks for more completions. False if there are none.
    #[inline]
    fn look(&mut self) -> bool {
        self.ring.set_completions_seen(self.next);
        self.end = self.ring.completions_posted();
        self.next != self.end
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
        Prepared::ReceiveMulti { socket, group, .. } => opcode::RecvMulti::new(Fd(socket), group).build(),
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
        self.taken_in = self.ring.entries_taken_in();
        self.tail.wrapping_sub(self.taken_in) as usize
    }

    #[inline(always)]
    fn push(&mut self, placed: Placed) {
        let user_data = placed.user_data();
        // What was at this index has been taken in, and so its aside is free.
        let waiting = self.tail.wrapping_sub(self.taken_in) as usize;
        assert!(waiting < self.asides.len(), "room() comes before push()");
        let entry = match placed.into_prepared() {
            Prepared::Entry(entry) => entry,
            prepared => {
                let index = self.tail as usize & (self.asides.len() - 1);
                build(prepared, &mut self.asides[index])
            }
        };
        // SAFETY: there is room, so the kernel does not read at this index before the new tail is
        // published. A `Placed` proves that what it points to is good until its final completion, and
        // the aside stays as it is until the entry is taken in.
        unsafe { self.ring.write(self.tail, entry.user_data(user_data)) };
        self.tail = self.tail.wrapping_add(1);
    }

    fn enter(&mut self, patience: Patience) -> io::Result<Entered> {
        let (want, mut flags) = match patience {
            Patience::Submit => (0, EnterFlags::empty()),
            Patience::Poll => (0, EnterFlags::GETEVENTS),
            Patience::Wait | Patience::WaitFor(_) | Patience::ReapFor(_) => (1, EnterFlags::GETEVENTS),
        };
        self.ring.publish_entries(self.tail);
        self.ring.set_completions_seen(self.next);
        if flags.contains(EnterFlags::GETEVENTS) {
            self.ring.forget_work();
        }
        let queued = match patience {
            Patience::ReapFor(_) => 0,
            _ => self.queued() as u32,
        };
        if self.ring.params().is_setup_sqpoll() {
            if self.ring.needs_wakeup() {
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

    #[inline(always)]
    fn pop(&mut self) -> Option<Cqe> {
        if self.next == self.end && !self.look() {
            return None;
        }
        // SAFETY: it lies between what was seen and what was posted.
        let cqe = unsafe { self.ring.read(self.next) };
        self.next = self.next.wrapping_add(1);
        Some(cqe)
    }

    fn has_completions(&mut self) -> bool {
        self.next != self.end || self.ring.completions_posted() != self.next
    }

    fn holds_back(&mut self) -> bool {
        self.ring.holds_back()
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
