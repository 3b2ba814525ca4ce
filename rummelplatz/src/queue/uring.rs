//! The real ring.
//!
//! # How the unsafe code stays right
//!
//! * What a queued entry points to is good until the final completion of its `user_data`: that is
//!   what a [`Placed`] proves, and only `request` makes one.
//! * What the kernel reads only while it takes an entry in (a time, an address) lies in `asides`, one
//!   place per entry of the submission queue, at the entry's own index. It is overwritten only when
//!   the entry at that index is, which is when the kernel has taken that in.
//! * Which parts of the queues are ours is for [`Entries`] and [`Completions`] to know.

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{opcode, squeue};
use rustix::io::Errno;
use rustix::io_uring::{IoringEnterFlags, IoringRegisterOp, io_uring_enter, io_uring_register};

use super::completions::Completions;
use super::entries::{self, Entries};
use super::{Cqe, Entered, Kernel, Mapped, Patience};
use crate::buffers::{BufferPool, PoolError};
use crate::eventfd::Eventfd;
use crate::request::{Address, Placed, Prepared};
use crate::waker::Waker;

/// `struct io_uring_rsrc_update`, in which a ring is registered.
#[repr(C)]
struct Files {
    offset: u32,
    reserved: u32,
    data: u64,
}

/// A real ring.
pub(crate) struct Uring {
    ring: Mapped,
    /// Beside each entry of the submission queue, what it points to.
    asides: Box<[Aside]>,
    /// The kernel learns of new entries when it is entered.
    entries: Entries,
    /// Whether entries need no further thought but for room.
    is_open: bool,
    /// It is open, and no thread of the kernel looks for entries.
    is_usual: bool,
    /// Where the kernel was in the submission queue when that was last looked at.
    taken_in: u32,
    /// The kernel learns of what was seen when it is entered.
    completions: Completions,
    /// What to enter: the ring's descriptor or, with a flag, its place in the table of the thread that
    /// runs it.
    entrance: BorrowedFd<'static>,
    entrance_flags: IoringEnterFlags,
    /// What an enter failed with that did not say so.
    failed: Option<io::Error>,
    /// An eventfd is registered.
    notifies: bool,
    /// A thread of the kernel looks for entries (`IORING_SETUP_SQPOLL`).
    has_poller: bool,
    /// The pools that are registered, by group. One that could not be unregistered is never dropped.
    pools: Vec<BufferPool>,
    /// Tells this ring from all others of this process.
    serial: u64,
}

/// Whether an error of `io_uring_enter` is one.
#[cold]
fn judge(error: io::Error) -> io::Result<Entered> {
    match error.raw_os_error() {
        Some(libc::EINTR | libc::ETIME) => Ok(Entered::Done),
        Some(libc::EAGAIN | libc::EBUSY) => Ok(Entered::Busy),
        _ => Err(error),
    }
}

impl Uring {
    /// Takes over a ring whose submission queue is empty.
    pub(crate) fn new(ring: Mapped, serial: u64) -> Uring {
        // Its memory is not there in a forked child, which finds out before it uses the ring.
        let (tail, next) = match ring.is_forked() {
            true => (0, 0),
            false => (ring.entries_taken_in(), ring.completions_seen()),
        };
        // SAFETY: the ring's memory lives as long as the ring, which is in the same struct; and nobody
        // uses it in a process that was forked off.
        let entries = unsafe { Entries::new(ring.entries(), ring.capacity(), tail) };
        let (start, capacity) = ring.completions();
        // SAFETY: as above.
        let completions = unsafe { Completions::new(start, capacity, next) };
        Uring {
            asides: (0..ring.capacity()).map(|_| Aside::Nothing).collect(),
            entries,
            is_open: false,
            is_usual: false,
            taken_in: tail,
            completions,
            // SAFETY: the descriptor is open as long as the ring, which is in the same struct.
            entrance: unsafe { BorrowedFd::borrow_raw(ring.as_raw_fd()) },
            entrance_flags: IoringEnterFlags::empty(),
            failed: None,
            notifies: false,
            has_poller: ring.params().is_setup_sqpoll(),
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

    #[inline]
    fn enter_now(&mut self, queued: u32, want: u32, mut flags: IoringEnterFlags) -> io::Result<u32> {
        if want > 0 || flags.contains(IoringEnterFlags::GETEVENTS) {
            self.ring.forget_work();
        }
        if self.has_poller {
            flags |= self.wake_poller(queued, flags.is_empty());
        }
        // SAFETY: what queued entries point to is good, see the module documentation; there is no argument
        // to be wrong about.
        let entered = unsafe { io_uring_enter(self.entrance, queued, want, flags | self.entrance_flags) };
        entered.map_err(io::Error::from)
    }

    #[cold]
    fn enter_for(&mut self, time: Duration, queued: u32) -> io::Result<u32> {
        self.ring.forget_work();
        let mut flags = IoringEnterFlags::GETEVENTS | IoringEnterFlags::EXT_ARG;
        if self.has_poller {
            flags |= self.wake_poller(queued, false);
        }
        let time = Timespec::from(time);
        let arguments = SubmitArgs::new().timespec(&time);
        // SAFETY: the argument is of the kind that EXT_ARG announces, and good for the call.
        let entered = unsafe { self.ring.submitter().enter(queued, 1, flags.bits(), Some(&arguments)) };
        entered.map(|count| count as u32)
    }

    /// What an enter must also say when a thread of the kernel looks for entries
    /// (`IORING_SETUP_SQPOLL`): to wake it and, if that is all the enter is for, to wait for room.
    #[cold]
    fn wake_poller(&self, queued: u32, submits_only: bool) -> IoringEnterFlags {
        let mut flags = IoringEnterFlags::empty();
        if self.ring.needs_wakeup() {
            flags |= IoringEnterFlags::SQ_WAKEUP;
        }
        if submits_only && queued as usize == self.capacity() {
            flags |= IoringEnterFlags::SQ_WAIT;
        }
        flags
    }

    /// Has this thread enter the ring without a look into its table of descriptors
    /// (`IORING_REGISTER_RING_FDS`, since 5.18), until [`unregister`](Self::unregister) by the same
    /// thread. It is no matter if the kernel can't: a thread has 16 places for rings.
    pub(crate) fn register(&mut self) {
        let mut update = Files { offset: u32::MAX, reserved: 0, data: self.ring.as_raw_fd() as u64 };
        // SAFETY: the argument is what this operation reads and writes, and there is one of it.
        let registered = unsafe {
            let update = (&raw mut update).cast();
            io_uring_register(self.ring.as_fd(), IoringRegisterOp::RegisterRingFds, update, 1)
        };
        if registered == Ok(1) {
            // SAFETY: no descriptor, but what the flag makes of it: a place in the table of this thread. It is not
            // -1, and used with this flag alone.
            self.entrance = unsafe { BorrowedFd::borrow_raw(update.offset as RawFd) };
            self.entrance_flags = IoringEnterFlags::REGISTERED_RING;
        }
    }

    /// Undoes [`register`](Self::register).
    pub(crate) fn unregister(&mut self) {
        if self.entrance_flags.is_empty() {
            return;
        }
        self.entrance_flags = IoringEnterFlags::empty();
        // SAFETY: as in `new`.
        let entrance = unsafe { BorrowedFd::borrow_raw(self.ring.as_raw_fd()) };
        let offset = mem::replace(&mut self.entrance, entrance).as_raw_fd() as u32;
        let mut update = Files { offset, reserved: 0, data: 0 };
        // SAFETY: as in `register`.
        let unregistered = unsafe {
            let update = (&raw mut update).cast();
            io_uring_register(self.ring.as_fd(), IoringRegisterOp::UnregisterRingFds, update, 1)
        };
        debug_assert_eq!(unregistered, Ok(1));
    }

    /// Has an eventfd be signalled for each completion (`IORING_REGISTER_EVENTFD`, since 5.2), or none.
    pub(crate) fn notify(&mut self, eventfd: Option<&Eventfd>) -> io::Result<()> {
        if self.notifies == eventfd.is_some() {
            return Ok(());
        }
        match eventfd {
            Some(eventfd) => self.ring.submitter().register_eventfd(eventfd.as_raw_fd())?,
            None => self.ring.submitter().unregister_eventfd()?,
        }
        self.notifies = eventfd.is_some();
        Ok(())
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

    /// Lets entries be queued without a further thought, as long as there is room; or not.
    #[inline]
    pub(crate) fn set_open(&mut self, open: bool) {
        self.is_open = open;
        self.is_usual = open && !self.has_poller;
        self.reopen();
    }

    /// Whether it may [`wait_as_usual`](Self::wait_as_usual).
    #[inline(always)]
    pub(crate) fn is_usual(&self) -> bool {
        self.is_usual
    }

    /// As [`enter`](Kernel::enter) with [`Patience::Wait`], when all is usual and no completion is known of.
    /// False if it failed, in whatever way: the next enter will say what came of this one.
    #[inline(always)]
    pub(crate) fn wait_as_usual(&mut self) -> bool {
        let tail = self.entries.tail();
        self.ring.publish_entries(tail);
        self.ring.set_completions_seen(self.completions.all_seen());
        // At most as many as the kernel finds.
        let queued = tail.wrapping_sub(self.taken_in);
        self.ring.forget_work();
        let flags = IoringEnterFlags::GETEVENTS | self.entrance_flags;
        // SAFETY: what queued entries point to is good, see the module documentation; there is no argument
        // to be wrong about.
        if let Err(error) = unsafe { io_uring_enter(self.entrance, queued, 1, flags) } {
            return self.fail(error);
        }
        self.taken_in = self.ring.entries_taken_in();
        if self.taken_in == tail {
            // SAFETY: the kernel says so.
            unsafe { self.entries.open_all() };
        } else {
            self.reopen();
        }
        true
    }

    #[cold]
    #[inline(never)]
    fn fail(&mut self, error: Errno) -> bool {
        self.failed = Some(error.into());
        self.reopen();
        false
    }

    /// Opens what has become room, if it is to be.
    #[inline]
    pub(crate) fn reopen(&mut self) {
        if self.is_open {
            self.taken_in = self.ring.entries_taken_in();
            // SAFETY: the kernel says so.
            unsafe { self.entries.open(self.taken_in) };
        } else {
            self.entries.close();
        }
    }

    /// How many entries may be queued by [`place`](Self::place).
    #[inline]
    pub(crate) fn open_places(&self) -> usize {
        self.entries.open_places()
    }

    /// A place for an entry, if one may be queued without a further thought.
    #[inline(always)]
    pub(crate) fn place(&mut self) -> Option<Place<'_>> {
        let place = self.entries.place()?;
        Some(Place { place, asides: &mut self.asides })
    }

    /// Whether no completion is known of.
    #[inline(always)]
    pub(crate) fn knows_none(&self) -> bool {
        self.completions.is_empty()
    }

    /// The next completion of those that are known of.
    #[inline(always)]
    pub(crate) fn pop_known(&mut self) -> Option<Cqe> {
        self.completions.pop()
    }

    /// Forgets which completions are known of, so that the next look is for others as well.
    pub(crate) fn look_again(&mut self) {
        self.completions.forget();
    }

    /// Puts a completion before those that are known of.
    pub(crate) fn put_first(&mut self, cqe: Cqe) {
        self.completions.put(cqe);
    }

    /// Looks for more completions, at most so many, when none is known of. False if there are none.
    #[inline(always)]
    pub(crate) fn look(&mut self, most: u32) -> bool {
        // SAFETY: the kernel says what was posted; it is told of what was seen when it is entered.
        unsafe { self.completions.learn(self.ring.completions_posted(), most) }
    }
}

/// A place for one entry.
pub(crate) struct Place<'q> {
    place: entries::Place<'q>,
    asides: &'q mut [Aside],
}

impl Place<'_> {
    /// Queues an entry.
    #[inline(always)]
    pub(crate) fn fill(self, placed: Placed) {
        let user_data = placed.user_data();
        let entry = match placed.into_prepared() {
            Prepared::Entry(entry) => entry,
            // What was at this index has been taken in, and so its aside is free.
            prepared => build(prepared, &mut self.asides[self.place.index()]),
        };
        // SAFETY: a `Placed` proves that what it points to is good until its final completion, and the
        // aside stays as it is until the entry is taken in.
        unsafe { self.place.fill(entry.user_data(user_data)) };
    }
}

/// What the kernel reads only while it takes an entry in.
enum Aside {
    Nothing,
    Time(Timespec),
    Address(Address),
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
        self.queued();
        self.entries.room(self.taken_in) as usize
    }

    #[inline]
    fn queued(&mut self) -> usize {
        self.taken_in = self.ring.entries_taken_in();
        self.entries.tail().wrapping_sub(self.taken_in) as usize
    }

    fn push(&mut self, placed: Placed) {
        let is_open = self.is_open;
        self.set_open(true);
        match self.place() {
            Some(place) => place.fill(placed),
            None => panic!("room() comes before push()"),
        }
        self.set_open(is_open);
    }

    #[inline]
    fn enter(&mut self, patience: Patience) -> io::Result<Entered> {
        if let Some(error) = self.failed.take() {
            return judge(error);
        }
        let tail = self.entries.tail();
        self.ring.publish_entries(tail);
        self.ring.set_completions_seen(self.completions.seen());
        let queued = tail.wrapping_sub(self.ring.entries_taken_in());
        let entered = match patience {
            Patience::Submit => self.enter_now(queued, 0, IoringEnterFlags::empty()),
            Patience::Poll => self.enter_now(queued, 0, IoringEnterFlags::GETEVENTS),
            Patience::Wait => self.enter_now(queued, 1, IoringEnterFlags::GETEVENTS),
            Patience::WaitFor(time) => self.enter_for(time, queued),
            Patience::ReapFor(time) => self.enter_for(time, 0),
        };
        match entered {
            Ok(_) => Ok(Entered::Done),
            Err(error) => judge(error),
        }
    }

    fn has_completions(&mut self) -> bool {
        !self.knows_none() || self.ring.completions_posted() != self.completions.seen()
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
