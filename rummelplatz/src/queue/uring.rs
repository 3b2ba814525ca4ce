//! Our end of a ring.
//!
//! # How the unsafe code stays right
//!
//! * What a queued entry points to is good until the final completion of its `user_data`: that is
//!   what a [`Placed`] proves, and only `request` makes one.
//! * What the kernel reads only while it takes an entry in (a time, an address) lies in `asides`, one place
//!   per entry of the submission queue, at the entry's own index. It is overwritten only when the entry at
//!   that index is overwritten, and by then the kernel has taken that entry in.
//! * [`Entries`] and [`Completions`] know which parts of the queues are ours.

use std::io;
use std::mem;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::Duration;

use super::completions::Completions;
use super::entries::{self, Entries};
use super::memory::Queues;
use super::table::Table;
use super::{BufferRing, Cqe, Entered, Host, Kernel, Patience};
use crate::block::room_for;
use crate::buffers::{BufferPool, PoolError};
use crate::cpus::Cpus;
use crate::eventfd::Eventfd;
use crate::fixed::{FilePlace, FixedBuffers, FixedFile, Left, Memory};
use crate::mutant;
use crate::request::sqe::Usual;
use crate::request::{Aside, Bare, Besides, Placed, Prepared, Queue};
use crate::waker::Waker;

/// How many files a ring may have registered; the kernel would allow 2²⁰, at eight bytes each.
const MOST_FILES: u32 = 1 << 12;
/// How many sets of buffers it may have registered; the kernel would allow 2¹⁴.
const MOST_MEMORY: u32 = 1 << 8;

/// Our end of a ring.
pub(crate) struct Uring {
    queues: Queues,
    kernel: Host,
    /// For each entry of the submission queue, what it points to while the kernel has not taken it in.
    asides: Box<[Aside]>,
    /// A request that could not be queued, because the group of its pool is not known yet.
    set_aside: Option<Placed>,
    /// The kernel learns of new entries when it is entered.
    entries: Entries,
    /// Whether entries may be queued without any check except for room.
    is_open: bool,
    /// Up to where the kernel had taken entries in when that was last looked at.
    taken_in: u32,
    /// The kernel learns of what was seen when it is entered.
    completions: Completions,
    /// What a wait failed with, for the next enter to report.
    failed: Option<io::Error>,
    /// An eventfd is registered.
    notifies: bool,
    /// The pools that are registered, by group.
    pools: Vec<BufferPool>,
    /// Memory that is registered.
    memory: Table<Memory>,
    /// Files that are registered.
    files: Table<FilePlace>,
    /// If the kernel fills places of it: those of their files that are to be closed.
    left: Option<Arc<Left>>,
    /// Memory for those that are closed together.
    closing: Vec<Arc<FilePlace>>,
    /// Distinguishes this ring from all others of this process.
    serial: u64,
    /// How often the kernel was [entered](Self::enter).
    enters: u64,
}

/// Decides whether an error of `io_uring_enter` really is one.
#[cold]
fn judge(error: io::Error) -> io::Result<Entered> {
    match error.raw_os_error() {
        Some(libc::EINTR) if mutant::is("a signal ends it") => Err(error),
        Some(libc::EINTR | libc::ETIME) => Ok(Entered::Done),
        Some(libc::EAGAIN | libc::EBUSY) => Ok(Entered::Busy),
        _ => Err(error),
    }
}

impl Uring {
    /// What the entries of a ring need beside them.
    ///
    /// # Errors
    ///
    /// `ENOMEM` if there is no memory for that.
    pub(crate) fn asides(kernel: &Host) -> io::Result<Box<[Aside]>> {
        let count = kernel.queues().capacity() as usize;
        let mut asides = room_for(count)?;
        asides.resize_with(count, || Aside::Nothing);
        Ok(asides.into())
    }

    /// Takes over a ring whose submission queue is empty. The asides are those of this ring.
    pub(crate) fn new(kernel: Host, asides: Box<[Aside]>, serial: u64) -> Uring {
        let queues = kernel.queues();
        // In a forked child, the ring's memory is not there; the child finds that out before it uses the
        // ring.
        let (tail, next) = match kernel.is_forked() {
            true => (0, 0),
            false => (queues.entries_taken_in(), queues.completions_seen()),
        };
        // SAFETY: the queues live as long as the kernel, which is in the same struct; and nobody uses
        // them in a process that was forked off.
        let entries = unsafe { Entries::new(queues.entries(), queues.capacity(), tail) };
        let (start, capacity) = queues.completions();
        // SAFETY: the queues live as long as the kernel, which is in the same struct.
        let completions = unsafe { Completions::new(start, capacity, next, queues.posts_when_entered()) };
        Uring {
            asides,
            set_aside: None,
            entries,
            is_open: false,
            taken_in: tail,
            completions,
            failed: None,
            notifies: false,
            queues,
            kernel,
            pools: Vec::new(),
            memory: Table::new(MOST_MEMORY),
            files: Table::new(MOST_FILES),
            left: None,
            closing: Vec::new(),
            serial,
            enters: 0,
        }
    }

    /// See [`Kernel::enable`].
    pub(crate) fn enable(&mut self) -> io::Result<()> {
        self.kernel.enable()
    }

    /// See [`Kernel::limit_workers`].
    pub(crate) fn limit_workers(&mut self, limits: [u32; 2]) -> io::Result<()> {
        self.kernel.limit_workers(limits)
    }

    /// See [`Kernel::place_workers`].
    pub(crate) fn place_workers(&mut self, cpus: &Cpus) -> io::Result<()> {
        self.kernel.place_workers(cpus)
    }

    /// See [`Kernel::register`].
    pub(crate) fn register(&mut self) {
        self.kernel.register();
    }

    /// See [`Kernel::unregister`].
    pub(crate) fn unregister(&mut self) {
        self.kernel.unregister();
    }

    /// See [`Kernel::now`].
    pub(crate) fn now(&self) -> Duration {
        self.kernel.now()
    }

    /// See [`Kernel::notify`].
    pub(crate) fn notify(&mut self, eventfd: Option<&Eventfd>) -> io::Result<()> {
        if self.notifies != eventfd.is_some() {
            self.kernel.notify(eventfd)?;
            self.notifies = eventfd.is_some();
        }
        Ok(())
    }

    /// See [`Kernel::has_poller`].
    pub(crate) fn has_poller(&self) -> bool {
        self.kernel.has_poller()
    }

    /// Whether this process was forked off the one that made the ring.
    pub(crate) fn is_forked(&self) -> bool {
        self.kernel.is_forked()
    }

    /// Keeps for ever what the kernel may still use: the pools, registered memory and the asides.
    pub(crate) fn leak(&mut self) {
        mem::forget(mem::take(&mut self.pools));
        self.memory.leak();
        mem::forget(mem::take(&mut self.asides));
    }

    // ---- entries ------------------------------------------------------------------------------

    /// Sets whether entries may be queued without a further check, as long as there is room.
    #[inline]
    pub(crate) fn set_open(&mut self, open: bool) {
        self.is_open = open;
        self.reopen();
    }

    /// Whether the queue is open: then the loop may [`wait_as_usual`](Self::wait_as_usual).
    #[inline(always)]
    pub(crate) fn is_open(&self) -> bool {
        self.is_open
    }

    /// As [`enter`](Self::enter) with [`Patience::Wait`], when the queue is open and no completion is known
    /// of. Returns false if it failed, in whatever way: the next enter reports that. Other than `enter`, this
    /// does not forget that the kernel has work to do; whoever looks for that enters once more.
    #[inline(always)]
    pub(crate) fn wait_as_usual(&mut self) -> bool {
        let tail = self.entries.tail();
        self.queues.publish_entries(tail);
        self.queues.set_completions_seen(self.completions.all_seen());
        let queued = tail.wrapping_sub(self.queues.entries_taken_in());
        if let Err(error) = self.kernel.enter(queued, Patience::Wait) {
            return self.fail(error);
        }
        // Places that are open stay open, whatever the kernel has taken in.
        if self.entries.is_closed() {
            self.reopen();
        }
        true
    }

    #[cold]
    #[inline(never)]
    fn fail(&mut self, error: io::Error) -> bool {
        self.failed = Some(error);
        self.reopen();
        false
    }

    /// Opens the places that have become free, if the queue is open; closes all places otherwise.
    #[inline]
    pub(crate) fn reopen(&mut self) {
        if self.is_open {
            self.taken_in = self.queues.entries_taken_in();
            // SAFETY: the kernel says that it has taken in all entries up to there.
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

    /// A place for an entry, if one may be queued without a further check.
    #[inline(always)]
    pub(crate) fn place(&mut self) -> Option<Place<'_>> {
        let place = self.entries.place()?;
        Some(Place { place, asides: &mut self.asides, set_aside: &mut self.set_aside })
    }

    /// Takes the request that was set aside, if there is one.
    pub(crate) fn take_set_aside(&mut self) -> Option<Placed> {
        self.set_aside.take()
    }

    /// How many entries fit into the submission queue.
    pub(crate) fn capacity(&self) -> usize {
        self.asides.len()
    }

    /// How many entries can be pushed now.
    #[inline]
    pub(crate) fn room(&mut self) -> usize {
        self.queued();
        self.entries.room(self.taken_in) as usize
    }

    /// How many entries the kernel has not taken in.
    #[inline]
    pub(crate) fn queued(&mut self) -> usize {
        self.taken_in = self.queues.entries_taken_in();
        self.entries.tail().wrapping_sub(self.taken_in) as usize
    }

    /// Queues an entry.
    ///
    /// # Panics
    ///
    /// If there is no [`room`](Self::room), or the request is not [bound](Placed::bind) to its pool.
    pub(crate) fn push(&mut self, placed: Placed) {
        let is_open = self.is_open;
        if self.place().is_none() {
            self.set_open(true);
        }
        match self.place().map(|place| place.fill(placed)) {
            Some(is_queued) => assert!(is_queued, "bind() comes before push()"),
            None => panic!("room() comes before push()"),
        }
        if !is_open {
            self.set_open(false);
        }
    }

    /// Gives the kernel a turn: entries are taken in, completions posted.
    ///
    /// # Errors
    ///
    /// What neither waiting nor repeating would mend. `EINTR`, `ETIME`, `EAGAIN` and `EBUSY` are no
    /// errors.
    #[inline]
    pub(crate) fn enter(&mut self, patience: Patience) -> io::Result<Entered> {
        // Some errors are reported only once, and nobody listens to that of a mere submit.
        if patience != Patience::Submit
            && let Some(error) = self.failed.take()
        {
            return judge(error);
        }
        let tail = self.entries.tail();
        self.queues.publish_entries(tail);
        self.queues.set_completions_seen(self.completions.seen());
        let queued = tail.wrapping_sub(self.queues.entries_taken_in());
        if patience != Patience::Submit {
            self.queues.forget_work();
        }
        self.enters += 1;
        match self.kernel.enter(queued, patience) {
            Ok(()) => Ok(Entered::Done),
            Err(error) => judge(error),
        }
    }

    // ---- completions --------------------------------------------------------------------------

    /// Whether a completion is visible, without asking the kernel.
    pub(crate) fn has_completions(&mut self) -> bool {
        !self.knows_none() || self.queues.completions_posted() != self.completions.seen()
    }

    /// Whether the kernel holds back completions, which the next enter brings.
    pub(crate) fn holds_back(&mut self) -> bool {
        self.queues.holds_back()
    }

    /// How often the kernel was [entered](Self::enter), and how many of its completions were seen.
    pub(crate) fn figures(&self) -> (u64, u64) {
        (self.enters, self.completions.total())
    }

    /// Up to where the kernel's completions were seen, as it counts.
    pub(crate) fn seen(&self) -> u32 {
        self.completions.seen()
    }

    /// Shows the kernel which completions were seen, when no enter does so next. Then new completions find
    /// room. Those that don't are held back, and an eventfd is not signalled for them.
    ///
    /// Returns whether there was no room until now. If so, a completion may be on its way in another thread,
    /// a worker of the kernel's, which has found no room, but has not yet said that it holds the completion
    /// back.
    pub(crate) fn show_seen(&mut self) -> bool {
        let (_, places) = self.queues.completions();
        let taken = self.queues.completions_posted().wrapping_sub(self.queues.completions_seen());
        self.queues.set_completions_seen(self.completions.seen());
        // The kernel is told before anybody looks whether something is held back.
        fence(Ordering::SeqCst);
        taken >= places
    }

    /// Whether no completion is known of.
    #[inline(always)]
    pub(crate) fn knows_none(&self) -> bool {
        self.completions.is_empty()
    }

    /// The tag of the next completion of those that are known of.
    #[inline(always)]
    pub(crate) fn next_tag(&self) -> Option<u8> {
        self.completions.next_tag()
    }

    /// The next completion of those that are known of.
    #[inline(always)]
    pub(crate) fn pop_known(&mut self) -> Option<Cqe> {
        self.completions.pop()
    }

    /// Forgets which completions are known of, so that the next look also finds others.
    pub(crate) fn look_again(&mut self) {
        self.completions.forget();
    }

    /// Puts a completion before those that are known of.
    pub(crate) fn put_first(&mut self, cqe: Cqe) {
        self.completions.put(cqe);
    }

    /// Whether there may be more completions than are known of, although the ring was not entered since.
    #[inline(always)]
    pub(crate) fn may_be_more(&self) -> bool {
        self.completions.may_be_more()
    }

    /// Looks for more completions, at most `most`, when none is known of. Returns false if there are none.
    #[inline(always)]
    pub(crate) fn look(&mut self, most: u32) -> bool {
        // SAFETY: the kernel says up to where it has posted; and it is only ever told of completions that
        // were seen.
        unsafe { self.completions.learn(self.queues.completions_posted(), most) }
    }

    // ---- pools --------------------------------------------------------------------------------

    /// The group of a pool in this ring. Registers the pool with the ring if it is not registered yet.
    ///
    /// # Errors
    ///
    /// If it is registered elsewhere, or the kernel refuses.
    pub(crate) fn adopt(&mut self, pool: &BufferPool, waker: &Waker) -> Result<u16, PoolError> {
        if let Some(group) = pool.any_group(self.serial) {
            return Ok(group);
        }
        let group = u16::try_from(self.pools.len())
            .map_err(|_| PoolError::Refused(io::Error::from_raw_os_error(libc::ENOSPC)))?;
        let is_incremental = pool.is_incremental();
        // SAFETY: the pool asks for its losses only for completions of this ring, and not after it is unregistered.
        let losses = unsafe { self.queues.losses() };
        pool.register(self.serial, group, waker.clone(), losses, |address, entries| {
            let buffers = BufferRing { address, entries, is_incremental };
            // SAFETY: the pool says where its ring of buffers is, and that stays there for as long as
            // the pool is in `pools`: until the kernel has forgotten it, or for ever.
            unsafe { self.kernel.register_buffers(buffers, group) }
        })?;
        self.pools.push(pool.clone());
        Ok(group)
    }

    /// The pool of a group.
    #[inline]
    pub(crate) fn pool(&self, group: u16) -> Option<&BufferPool> {
        self.pools.get(usize::from(group))
    }

    /// Registers memory, unless it is registered already.
    ///
    /// # Errors
    ///
    /// If it is registered with another ring, or the kernel refuses.
    pub(crate) fn adopt_memory(&mut self, buffers: &FixedBuffers) -> Result<(), PoolError> {
        let Uring { memory, kernel, serial, .. } = self;
        let buffers = &buffers.shared;
        // SAFETY: the table keeps the memory until its place is cleared, which is when no request in flight
        // uses any of it, or for ever.
        memory.adopt(*serial, buffers, buffers.range(), |change| unsafe { kernel.change_memory(change) })
    }

    /// Registers a file.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub(crate) fn adopt_file(&mut self, file: BorrowedFd<'_>) -> Result<FixedFile, PoolError> {
        let Uring { files, kernel, serial, .. } = self;
        let fixed = FixedFile::new();
        files.adopt(*serial, &fixed.place, file, |change| kernel.change_files(change))?;
        Ok(fixed)
    }

    /// Takes a file out of the ring, if it is registered there and nobody else has it; otherwise, the file
    /// comes back.
    pub(crate) fn expel_file(&mut self, file: FixedFile) -> Result<(), FixedFile> {
        let Uring { files, kernel, serial, .. } = self;
        let is_last = file.place.holders() == 1;
        match is_last && files.expel(*serial, &file.place, |change| kernel.change_files(change)) {
            true => Ok(()),
            false => Err(file),
        }
    }

    /// Lets the kernel fill this many places of the table of files, when that is made. The ring is woken when one
    /// of these files is left.
    pub(crate) fn leave_files_to_kernel(&mut self, places: u32, waker: &Waker) {
        self.files.leave_to_kernel(places);
        self.left = Some(Left::new(waker.clone()));
    }

    /// Makes the table of files, if there is none yet.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub(crate) fn make_files(&mut self) -> io::Result<()> {
        let Uring { files, kernel, .. } = self;
        files.make(&mut |change| kernel.change_files(change))
    }

    /// The file that the kernel has put into this place of the table. `None` if that is none of the places that the
    /// kernel fills; then the file is closed.
    pub(crate) fn receive_file(&mut self, index: u32) -> Option<FixedFile> {
        let Uring { files, kernel, serial, left, .. } = self;
        let place = files.receive(*serial, index, || left.as_ref().map(FilePlace::of));
        if place.is_none() {
            files.refuse(index, |change| kernel.change_files(change));
        }
        place.map(FixedFile::hold)
    }

    /// How many places of the table of files the kernel fills.
    #[inline(always)]
    pub(crate) fn direct(&self) -> usize {
        self.files.for_kernel()
    }

    /// Closes the files that were left. From here on, `thread` does so before it waits; 0 is no thread. Returns
    /// whether the kernel is short of something for that, so that it must be tried again soon.
    pub(crate) fn close_left(&mut self, thread: u64) -> bool {
        let Uring { files, kernel, serial, left, closing, .. } = self;
        let Some(left) = left else { return false };
        left.looked_at_by(thread);
        if !left.is_any() {
            return false;
        }
        left.exchange(closing);
        files.vacate(*serial, closing.drain(..), |change| kernel.change_files(change));
        if files.is_short() {
            left.look_again();
        }
        files.is_short()
    }

    /// Notes that a completion was lost, which may have said that the kernel has put a file into the table: it is closed
    /// when [all is released](Self::release_registered).
    pub(crate) fn suspect_lost_files(&mut self) {
        self.files.suspect_unknown();
    }

    /// How much is in the tables of files and of memory although the kernel was told to clear its place.
    pub(crate) fn uncleared(&self) -> usize {
        self.files.uncleared() + self.memory.uncleared()
    }

    /// Unregisters all that is registered, when no request is in flight. A pool that the kernel does not give
    /// back stays registered, in its group, and those before it do, too.
    pub(crate) fn release_registered(&mut self) {
        let kernel = &mut self.kernel;
        if !mutant::is("files stay in the table") {
            self.files.release(|change| kernel.change_files(change));
        }
        // SAFETY: places of the table are only cleared here; no memory is registered.
        self.memory.release(|change| unsafe { kernel.change_memory(change) });
        while let Some(pool) = self.pools.pop() {
            if self.kernel.unregister_buffers(self.pools.len() as u16).is_err() {
                self.pools.push(pool);
                break;
            }
            pool.unregister();
        }
    }
}

/// A place for one entry.
pub(crate) struct Place<'q> {
    place: entries::Place<'q>,
    asides: &'q mut [Aside],
    set_aside: &'q mut Option<Placed>,
}

impl Queue for Place<'_> {
    /// A request that is not bound to its pool is set aside: then this returns false.
    #[inline(always)]
    fn fill(self, placed: Placed) -> bool {
        let user_data = placed.user_data();
        let Prepared { entry, besides } = placed.into_prepared();
        match besides {
            // SAFETY: a `Placed` proves that what it points to is good until its final completion.
            Besides::Nothing => unsafe { self.place.fill_as_usual(entry, user_data) },
            // SAFETY: a `Placed` proves that what it points to is good until its final completion.
            Besides::Index(index) => unsafe { self.place.fill_with_index(entry, user_data, index) },
            // SAFETY: a `Placed` proves that what it points to is good until its final completion.
            Besides::Aside(aside) => unsafe {
                fill_beside(self.place, self.asides, entry, (aside,), user_data);
            },
            // (Each arm moves out what has a drop; otherwise the compiler keeps all of it in memory.)
            Besides::Pool { pool, limit } => {
                return set_unbound_aside(self.set_aside, entry, (pool, limit), user_data);
            }
            Besides::Whole(whole) => {
                // SAFETY: a `Placed` proves that what it points to is good until its final completion.
                unsafe { self.place.fill(whole.user_data(user_data)) };
            }
        }
        true
    }

    #[inline(always)]
    fn fill_with_bare(self, bare: Bare) {
        let (entry, user_data) = bare.apart();
        // SAFETY: a `Bare` proves that what it points to is good until its final completion.
        unsafe { self.place.fill_as_usual(entry, user_data) };
    }
}

// Takes the parts of the request, which is put together here and not on the path of those that are queued.
#[cold]
#[inline(never)]
fn set_unbound_aside(
    place: &mut Option<Placed>,
    entry: Usual,
    (pool, limit): (BufferPool, u32),
    user_data: u64,
) -> bool {
    let prepared = Prepared { entry, besides: Besides::Pool { pool, limit } };
    *place = Some(Placed::unbound(prepared, user_data));
    false
}

/// Writes an entry, and keeps the aside that it leads to. The aside comes in a tuple, which is a copy: otherwise the
/// compiler would keep what other requests have besides in memory, too.
///
/// # Safety
///
/// What the entry points to stays good until its final completion.
#[inline(never)]
unsafe fn fill_beside(
    place: entries::Place<'_>,
    asides: &mut [Aside],
    mut entry: Usual,
    (aside,): (Aside,),
    user_data: u64,
) {
    // The entry that was at this index has been taken in, so its aside is free.
    let kept = &mut asides[place.index()];
    *kept = aside;
    match kept.settle() {
        0 => {}
        address => entry.lead_to(address),
    }
    match *kept {
        // SAFETY: the caller's promise; and what is kept stays as it is until the entry is taken in.
        Aside::Direct | Aside::HowDirect(_) => unsafe { place.fill(entry.direct().user_data(user_data)) },
        // SAFETY: the caller's promise, for the value as well.
        Aside::Option { value, length } => unsafe {
            place.fill(entry.with_option(value, length).user_data(user_data));
        },
        // SAFETY: the caller's promise; and the pieces stay as they are until the entry is taken in.
        Aside::FixedPieces(_, index) => unsafe { place.fill_with_index(entry, user_data, index) },
        // SAFETY: the caller's promise; and what is kept stays as it is until the entry is taken in.
        _ => unsafe { place.fill_as_usual(entry, user_data) },
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        self.release_registered();
        // The kernel has what it has not cleared until the ring is closed.
        self.memory.leak_uncleared();
        for pool in self.pools.drain(..) {
            // Nothing is received any more, so another ring may have the pool. But the kernel knows of its
            // memory until the ring is closed, and nobody can tell when that is done.
            pool.unregister();
            mem::forget(pool);
        }
    }
}
