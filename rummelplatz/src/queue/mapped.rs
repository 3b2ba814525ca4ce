//! The memory that is shared with the kernel.
//!
//! The `io-uring` crate maps it, too, but lends it only a queue at a time, and looks at both ends for
//! every entry. Here each end is looked at when the caller wants to know, and moved when the caller
//! says so.
//!
//! # How the unsafe code stays right
//!
//! * The pointers lead into the two maps, at offsets that the kernel gave (`struct io_uring_params`),
//!   and the maps live as long as [`Mapped`]; the heads, tails and flags are only used as atomics.
//! * The ends of the queues follow the kernel's rules (`io_uring(7)`): what is read is acquired, what
//!   is written is released.
//! * In a process that was forked off, nothing is mapped (`MADV_DONTFORK`), and something else may be
//!   in its place; so nothing is unmapped there.

use std::io;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, Ordering, fence};

use io_uring::{IoUring, Parameters, cqueue, squeue};

use super::Cqe;

/// An io_uring and its memory.
pub(crate) struct Mapped {
    ring: ManuallyDrop<IoUring>,
    process: u32,
    /// Heads, tails, flags, and the completions.
    queues: Map,
    /// The entries.
    entries: Map,
    /// Where in the maps things are.
    entry: NonNull<squeue::Entry>,
    entry_capacity: u32,
    cqe: NonNull<Cqe>,
    cqe_capacity: u32,
    entries_head: Shared,
    entries_tail: Shared,
    entries_flags: Shared,
    completions_head: Shared,
    completions_tail: Shared,
}

/// A number that the kernel reads or writes, too. Made by [`Mapped::new`] alone, and never taken out of
/// the `Mapped` whose maps it lies in.
struct Shared(NonNull<AtomicU32>);

impl Shared {
    #[inline(always)]
    fn get(&self) -> &AtomicU32 {
        // SAFETY: the place lies in a map, aligned, as the kernel says; and the map lives as long as the
        // `Mapped` that has this.
        unsafe { self.0.as_ref() }
    }
}

// SAFETY: the maps are owned, and used from one thread at a time (`&mut self`) or as atomics.
unsafe impl Send for Mapped {}

/// `struct io_uring_params`, whose layout is the kernel's ABI.
#[repr(C)]
#[derive(Clone, Copy)]
struct Params {
    sq_entries: u32,
    cq_entries: u32,
    flags: u32,
    sq_thread_cpu: u32,
    sq_thread_idle: u32,
    features: u32,
    wq_fd: u32,
    resv: [u32; 3],
    sq: SqOffsets,
    cq: CqOffsets,
}

/// `struct io_sqring_offsets`.
#[repr(C)]
#[derive(Clone, Copy)]
struct SqOffsets {
    head: u32,
    tail: u32,
    mask: u32,
    entries: u32,
    flags: u32,
    dropped: u32,
    array: u32,
    resv1: u32,
    user_addr: u64,
}

/// `struct io_cqring_offsets`.
#[repr(C)]
#[derive(Clone, Copy)]
struct CqOffsets {
    head: u32,
    tail: u32,
    mask: u32,
    entries: u32,
    overflow: u32,
    cqes: u32,
    flags: u32,
    resv1: u32,
    user_addr: u64,
}

const _: () = assert!(size_of::<Params>() == 120 && size_of::<Params>() == size_of::<Parameters>());
const _: () = assert!(size_of::<Cqe>() == size_of::<cqueue::Entry>());

const IORING_OFF_SQ_RING: i64 = 0;
const IORING_OFF_SQES: i64 = 0x1000_0000;
const IORING_SQ_NEED_WAKEUP: u32 = 1;
const IORING_SQ_CQ_OVERFLOW: u32 = 1 << 1;
const IORING_SQ_TASKRUN: u32 = 1 << 2;

impl Mapped {
    /// Maps the queues of a ring.
    ///
    /// # Errors
    ///
    /// If there is no memory for it, or the kernel is older than 5.4 (`IORING_FEAT_SINGLE_MMAP`).
    pub(crate) fn new(ring: IoUring) -> io::Result<Mapped> {
        if !ring.params().is_feature_single_mmap() {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        // SAFETY: `Parameters` is, by its documentation, a transparent wrapper over the system's
        // structure, which `Params` is as well; the sizes were compared above.
        let parameters = unsafe { ptr::from_ref(ring.params()).cast::<Params>().read() };
        let completions = parameters.cq_entries as usize * size_of::<Cqe>();
        let queues = parameters.cq.cqes as usize + completions;
        let entries = parameters.sq_entries as usize * size_of::<squeue::Entry>();
        let fd = ring.as_raw_fd();
        let queues = Map::new(fd, IORING_OFF_SQ_RING, queues)?;
        let entries = Map::new(fd, IORING_OFF_SQES, entries).inspect_err(|_| queues.unmap())?;
        let Params { sq, cq, .. } = parameters;
        // SAFETY: the kernel's offsets lie in the map.
        let at = |offset: u32| unsafe { queues.start.byte_add(offset as usize) };
        Ok(Mapped {
            entry: entries.start.cast(),
            entry_capacity: parameters.sq_entries,
            cqe: at(cq.cqes).cast(),
            cqe_capacity: parameters.cq_entries,
            entries_head: Shared(at(sq.head).cast()),
            entries_tail: Shared(at(sq.tail).cast()),
            entries_flags: Shared(at(sq.flags).cast()),
            completions_head: Shared(at(cq.head).cast()),
            completions_tail: Shared(at(cq.tail).cast()),
            queues,
            entries,
            ring: ManuallyDrop::new(ring),
            process: std::process::id(),
        })
    }

    /// Whether this process was forked off the one that made the ring.
    pub(crate) fn is_forked(&self) -> bool {
        self.process != std::process::id()
    }

    /// How many entries the submission queue has: a power of two.
    #[inline]
    pub(crate) fn capacity(&self) -> u32 {
        self.entry_capacity
    }

    /// Up to where the kernel has taken entries in.
    #[inline]
    pub(crate) fn entries_taken_in(&self) -> u32 {
        self.entries_head.get().load(Ordering::Acquire)
    }

    /// Shows the kernel all entries before `tail`.
    #[inline]
    pub(crate) fn publish_entries(&self, tail: u32) {
        self.entries_tail.get().store(tail, Ordering::Release);
    }

    /// Where the entries are.
    pub(crate) fn entries(&self) -> NonNull<squeue::Entry> {
        self.entry
    }

    /// Whether the kernel's polling thread sleeps (`IORING_SETUP_SQPOLL`).
    pub(crate) fn needs_wakeup(&self) -> bool {
        // The tail must be visible before the flag is read: the thread sets the flag, then looks at
        // the tail a last time.
        fence(Ordering::SeqCst);
        self.entries_flags.get().load(Ordering::Relaxed) & IORING_SQ_NEED_WAKEUP != 0
    }

    /// Forgets that there is work for this thread to enter for, because it is about to.
    ///
    /// Who adds work from another CPU sets the flag after that: if the work was done in between, the
    /// flag stays for ever, because an enter that finds none does not look at it. The kernel sets it
    /// again for what it leaves undone.
    #[inline]
    pub(crate) fn forget_work(&self) {
        let flags = self.entries_flags.get();
        if flags.load(Ordering::Relaxed) & IORING_SQ_TASKRUN != 0 {
            flags.fetch_and(!IORING_SQ_TASKRUN, Ordering::AcqRel);
        }
    }

    /// Whether completions wait in the kernel, for room in the queue or for this thread to enter.
    #[inline]
    pub(crate) fn holds_back(&self) -> bool {
        let flags = self.entries_flags.get().load(Ordering::Acquire);
        flags & (IORING_SQ_CQ_OVERFLOW | IORING_SQ_TASKRUN) != 0
    }

    /// Up to where completions were posted.
    #[inline]
    pub(crate) fn completions_posted(&self) -> u32 {
        self.completions_tail.get().load(Ordering::Acquire)
    }

    /// Up to where the kernel thinks that completions were seen.
    pub(crate) fn completions_seen(&self) -> u32 {
        self.completions_head.get().load(Ordering::Acquire)
    }

    /// Gives the kernel back the places of all completions before `head`.
    #[inline]
    pub(crate) fn set_completions_seen(&self, head: u32) {
        self.completions_head.get().store(head, Ordering::Release);
    }

    /// Where the completions are, and how many places there are.
    pub(crate) fn completions(&self) -> (NonNull<Cqe>, u32) {
        (self.cqe, self.cqe_capacity)
    }
}

impl AsFd for Mapped {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the ring's descriptor is open as long as the ring is.
        unsafe { BorrowedFd::borrow_raw(self.ring.as_raw_fd()) }
    }
}

impl Deref for Mapped {
    type Target = IoUring;
    fn deref(&self) -> &IoUring {
        &self.ring
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        if self.is_forked() {
            return;
        }
        self.queues.unmap();
        self.entries.unmap();
        // SAFETY: dropped here, once, and not used again.
        unsafe { ManuallyDrop::drop(&mut self.ring) };
    }
}

/// A piece of shared memory, which is not unmapped by itself.
struct Map {
    start: NonNull<u8>,
    length: usize,
}

impl Map {
    fn new(fd: RawFd, offset: i64, length: usize) -> io::Result<Map> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
        // SAFETY: a new map, at a place of the kernel's choice.
        let start = unsafe { libc::mmap(ptr::null_mut(), length, protection, flags, fd, offset) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        let map = Map { start, length };
        // SAFETY: the map was just made.
        if unsafe { libc::madvise(start.as_ptr().cast(), length, libc::MADV_DONTFORK) } != 0 {
            let error = io::Error::last_os_error();
            map.unmap();
            return Err(error);
        }
        Ok(map)
    }

    /// Unmaps it: by its owner, once, in the process that mapped it.
    fn unmap(&self) {
        // SAFETY: the map is exactly this, and its owner does not use it any more.
        let result = unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
        debug_assert_eq!(result, 0);
    }
}
