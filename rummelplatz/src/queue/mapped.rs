//! The queues of a real ring, in memory that is shared with the kernel.
//!
//! The `io-uring` crate maps it, too, but lends out only one queue at a time, and looks at both ends for
//! every entry.
//!
//! # How the unsafe code stays right
//!
//! * The pointers lead into the two maps, at offsets that the kernel gave (`struct io_uring_params`),
//!   and the maps live as long as [`Mapped`].
//! * In a process that was forked off, [other memory](crate::forked) is in the place of the maps, and another
//!   descriptor in that of the ring; nothing is unmapped or closed there.

use std::io;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::ptr::{self, NonNull};

use io_uring::{IoUring, Parameters, cqueue, squeue};

use super::Cqe;
use super::memory::{Queues, Shared};
use crate::forked;

/// An io_uring and its memory.
pub(crate) struct Mapped {
    ring: ManuallyDrop<IoUring>,
    process: u32,
    /// Heads, tails, flags, and the completions.
    queues: Map,
    /// The entries.
    entries: Map,
    /// Where in the maps things are.
    places: Queues,
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

const IORING_SETUP_DEFER_TASKRUN: u32 = 1 << 13;
const IORING_OFF_SQ_RING: i64 = 0;
const IORING_OFF_SQES: i64 = 0x1000_0000;

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
        // SAFETY: the numbers lie where the kernel says, aligned; and the map lives as long as the `Mapped`
        // that is made here, which has the places.
        let shared = |offset: u32| unsafe { Shared::new(at(offset).cast()) };
        let places = Queues {
            entry: entries.start.cast(),
            entry_capacity: parameters.sq_entries,
            cqe: at(cq.cqes).cast(),
            cqe_capacity: parameters.cq_entries,
            posts_when_entered: parameters.flags & IORING_SETUP_DEFER_TASKRUN != 0,
            entries_head: shared(sq.head),
            entries_tail: shared(sq.tail),
            entries_flags: shared(sq.flags),
            completions_head: shared(cq.head),
            completions_tail: shared(cq.tail),
            completions_lost: shared(cq.overflow),
        };
        let process = std::process::id();
        Ok(Mapped { places, queues, entries, ring: ManuallyDrop::new(ring), process })
    }

    /// Where the queues are, for as long as this lives.
    pub(crate) fn places(&self) -> Queues {
        self.places
    }

    /// Whether this process was forked off the one that made the ring.
    pub(crate) fn is_forked(&self) -> bool {
        self.process != std::process::id()
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

/// A piece of shared memory. Dropping it does not unmap it.
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
        // SAFETY: the map was just made; it is forgotten before it is unmapped, and unmapped before the ring
        // is closed.
        let withheld = unsafe { forked::withhold(start, length, fd) };
        withheld.inspect_err(|_| map.unmap())?;
        Ok(map)
    }

    /// Unmaps it. To be called by its owner, once, in the process that mapped it.
    fn unmap(&self) {
        forked::forget(self.start);
        // SAFETY: the map is exactly this memory, and its owner does not use it any more.
        let result = unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
        debug_assert_eq!(result, 0);
    }
}
