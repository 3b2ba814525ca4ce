//! The real kernel: system calls.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::ptr;
use std::time::Duration;

use io_uring::types::{Napi, SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring};
use syscalls::{Errno, Sysno};

use super::mapped::Mapped;
use super::memory::Queues;
use super::{BufferRing, BusyPoll, Change, Kernel, MinWait, Patience};
use crate::clock;
use crate::cpus::Cpus;
use crate::eventfd::Eventfd;

/// An io_uring of the kernel.
pub(crate) struct Real {
    ring: Mapped,
    /// What to enter: the ring's descriptor or, with a flag, the ring's place in the table of the thread that
    /// runs it.
    entrance: RawFd,
    entrance_flags: EnterFlags,
    /// A thread of the kernel looks for entries (`IORING_SETUP_SQPOLL`).
    has_poller: bool,
    /// What a wait of the loop is for, if it is not for one completion.
    min_wait: Option<MinWait>,
    /// One of these two makes an enter more than a call.
    is_special: bool,
}

/// Of `io_uring_register`, since 5.14.
const IORING_REGISTER_IOWQ_AFF: u32 = 17;

/// Of `io_uring_register`, since 5.18.
const IORING_REGISTER_RING_FDS: u32 = 20;
const IORING_UNREGISTER_RING_FDS: u32 = 21;

/// Of `io_uring_register`, since 6.0.
const IORING_REGISTER_FILE_ALLOC_RANGE: u32 = 25;

/// Of `io_uring_register`, since 6.18.
const IORING_REGISTER_QUERY: u32 = 35;

/// A wait without any limit would end with the time of a [`MinWait`], although nothing has completed.
const VERY_LONG: Duration = Duration::from_secs(1 << 16);

/// `struct io_uring_rsrc_update`, in which a thread registers its ring.
#[repr(C)]
struct RingUpdate {
    offset: u32,
    reserved: u32,
    data: u64,
}

/// `struct io_uring_file_index_range`: which places of the table of files the kernel fills.
#[repr(C)]
struct Range {
    offset: u32,
    length: u32,
    reserved: u64,
}

/// Whether this is the number of a ring's descriptor, whoever owns that.
pub(crate) fn is_ring(descriptor: RawFd) -> bool {
    // SAFETY: nothing is submitted, waited for or looked at, and there is no argument: whatever this is the
    // number of, nothing happens to it.
    let entered = unsafe { syscalls::syscall!(Sysno::io_uring_enter, descriptor, 0, 0, 0, 0, 0) };
    // The errors are those of a ring that is disabled, and of one whose poller is gone.
    matches!(entered, Ok(_) | Err(Errno::EBADFD | Errno::EOWNERDEAD))
}

/// Finds out whether the kernel is one that posts completions in the order in which it uses up buffers: it must have a
/// call that came later.
///
/// # Errors
///
/// `EOPNOTSUPP` if it is an older one.
fn posts_in_order() -> io::Result<()> {
    /// The call is not about a ring.
    const NONE: RawFd = -1;
    // SAFETY: nothing is asked, and there is no argument.
    let asked = unsafe { syscalls::syscall!(Sysno::io_uring_register, NONE, IORING_REGISTER_QUERY, 0, 0) };
    asked.map(drop).map_err(|_| io::Error::from_raw_os_error(libc::EOPNOTSUPP))
}

impl Real {
    /// Takes over a ring whose submission queue is empty.
    ///
    /// # Errors
    ///
    /// If there is no memory to map its queues, or the kernel is older than 5.4.
    pub(crate) fn new(ring: IoUring) -> io::Result<Real> {
        let ring = Mapped::new(ring)?;
        let has_poller = ring.params().is_setup_sqpoll();
        Ok(Real {
            entrance: ring.as_raw_fd(),
            entrance_flags: EnterFlags::empty(),
            has_poller,
            min_wait: None,
            is_special: has_poller,
            ring,
        })
    }

    #[inline(always)]
    fn enter_now(&mut self, queued: u32, want: u32, flags: EnterFlags) -> io::Result<()> {
        match self.is_special {
            true => self.enter_specially(queued, want, flags),
            false => self.call(queued, want, flags),
        }
    }

    #[cold]
    #[inline(never)]
    fn enter_specially(&mut self, queued: u32, want: u32, mut flags: EnterFlags) -> io::Result<()> {
        if want > 0
            && let Some(min_wait) = self.min_wait
        {
            return self.enter_for(VERY_LONG, queued, Some(min_wait));
        }
        if self.has_poller {
            flags |= self.wake_poller(queued, flags.is_empty());
        }
        self.call(queued, want, flags)
    }

    #[inline(always)]
    fn call(&mut self, queued: u32, want: u32, flags: EnterFlags) -> io::Result<()> {
        let (ring, flags) = (self.entrance, (flags | self.entrance_flags).bits());
        // SAFETY: the number is that of the ring, or of its place in the table of this thread, as the flags
        // say; what queued entries point to is good, see `uring`; there is no argument that could be wrong.
        let entered = unsafe { syscalls::syscall!(Sysno::io_uring_enter, ring, queued, want, flags, 0, 0) };
        match entered {
            Ok(_) => Ok(()),
            Err(error) => fail(error),
        }
    }

    #[cold]
    fn enter_for(&mut self, time: Duration, queued: u32, min_wait: Option<MinWait>) -> io::Result<()> {
        let mut flags = EnterFlags::GETEVENTS | EnterFlags::EXT_ARG;
        if self.has_poller {
            flags |= self.wake_poller(queued, false);
        }
        let time = Timespec::from(time);
        let (want, microseconds) = min_wait.map_or((1, 0), |it| (it.completions, it.microseconds));
        let arguments = SubmitArgs::new().timespec(&time).min_wait_usec(microseconds);
        // SAFETY: the argument is of the kind that EXT_ARG announces, and lives until the call returns.
        let entered = unsafe { self.ring.submitter().enter(queued, want, flags.bits(), Some(&arguments)) };
        entered.map(|_| ())
    }

    /// Changes one place of the thread's table of rings. Returns whether it was done.
    fn update(&self, operation: u32, update: &mut RingUpdate) -> bool {
        let (ring, update) = (self.ring.as_raw_fd(), &raw mut *update);
        // SAFETY: the argument is what both of these operations read and write, and there is one of it.
        unsafe { syscalls::syscall!(Sysno::io_uring_register, ring, operation, update, 1) == Ok(1) }
    }

    /// Makes the table of files, of which the kernel fills the first `for_kernel` places.
    fn make_files(&self, places: u32, for_kernel: u32) -> io::Result<()> {
        let submitter = self.ring.submitter();
        submitter.register_files_sparse(places)?;
        let range = Range { offset: 0, length: for_kernel, reserved: 0 };
        let (ring, range) = (self.ring.as_raw_fd(), &raw const range);
        // SAFETY: the argument is what this operation reads; it is counted as none.
        let ranged = unsafe {
            syscalls::syscall!(Sysno::io_uring_register, ring, IORING_REGISTER_FILE_ALLOC_RANGE, range, 0)
        };
        // Before 6.0, the kernel may fill all places. If it is to fill none, that does no harm: what it opens there is
        // refused.
        if ranged.is_ok() || for_kernel == 0 {
            return Ok(());
        }
        submitter.unregister_files()?;
        Err(io::Error::from_raw_os_error(libc::EINVAL))
    }

    /// Flags that an enter also needs when a thread of the kernel looks for entries (`IORING_SETUP_SQPOLL`):
    /// to wake that thread and, if the enter is only to submit, to wait for room.
    #[cold]
    fn wake_poller(&self, queued: u32, submits_only: bool) -> EnterFlags {
        let queues = self.ring.places();
        let mut flags = EnterFlags::empty();
        if queues.needs_wakeup() {
            flags |= EnterFlags::SQ_WAKEUP;
        }
        if submits_only && queued == queues.capacity() {
            flags |= EnterFlags::SQ_WAIT;
        }
        flags
    }
}

#[cold]
#[inline(never)]
fn fail(error: Errno) -> io::Result<()> {
    Err(io::Error::from_raw_os_error(error.into_raw()))
}

impl Kernel for Real {
    fn queues(&self) -> Queues {
        self.ring.places()
    }

    fn descriptor(&self) -> RawFd {
        self.ring.as_raw_fd()
    }

    fn is_forked(&self) -> bool {
        self.ring.is_forked()
    }

    fn enable(&mut self) -> io::Result<()> {
        self.ring.submitter().register_enable_rings()
    }

    fn has_poller(&self) -> bool {
        self.has_poller
    }

    #[inline(always)]
    fn enter(&mut self, queued: u32, patience: Patience) -> io::Result<()> {
        match patience {
            Patience::Submit => self.enter_now(queued, 0, EnterFlags::empty()),
            Patience::Poll => self.enter_now(queued, 0, EnterFlags::GETEVENTS),
            Patience::Wait => self.enter_now(queued, 1, EnterFlags::GETEVENTS),
            Patience::WaitFor(time) => self.enter_for(time, queued, None),
            // A wait of no time at all would still set a timer, and sleep until that has fired. (But if a thread has
            // to take entries in, that sleep may be what lets it run.)
            Patience::ReapFor(Duration::ZERO) if !self.has_poller => {
                self.enter_now(0, 0, EnterFlags::GETEVENTS)
            }
            Patience::ReapFor(time) => self.enter_for(time, 0, None),
        }
    }

    /// A thread has 16 places for rings.
    fn register(&mut self) {
        let mut update = RingUpdate { offset: u32::MAX, reserved: 0, data: self.ring.as_raw_fd() as u64 };
        if self.update(IORING_REGISTER_RING_FDS, &mut update) {
            self.entrance = update.offset as RawFd;
            self.entrance_flags = EnterFlags::REGISTERED_RING;
        }
    }

    fn unregister(&mut self) {
        if self.entrance_flags.is_empty() {
            return;
        }
        self.entrance_flags = EnterFlags::empty();
        let offset = mem::replace(&mut self.entrance, self.ring.as_raw_fd()) as u32;
        // A ring whose restrictions (IORING_REGISTER_RESTRICTIONS) don't allow this keeps its place until the
        // thread ends.
        self.update(IORING_UNREGISTER_RING_FDS, &mut RingUpdate { offset, reserved: 0, data: 0 });
    }

    fn notify(&mut self, eventfd: Option<&Eventfd>) -> io::Result<()> {
        match eventfd {
            Some(eventfd) => self.ring.submitter().register_eventfd(eventfd.as_raw_fd()),
            None => self.ring.submitter().unregister_eventfd(),
        }
    }

    unsafe fn register_buffers(&mut self, buffers: BufferRing, group: u16) -> io::Result<()> {
        const IOU_PBUF_RING_INC: u16 = 2;
        let BufferRing { address, entries, is_incremental } = buffers;
        if is_incremental {
            posts_in_order()?;
        }
        let flags = if is_incremental { IOU_PBUF_RING_INC } else { 0 };
        // SAFETY: the contract is the same, and the caller keeps it.
        unsafe { self.ring.submitter().register_buf_ring_with_flags(address, entries, group, flags) }
    }

    fn unregister_buffers(&mut self, group: u16) -> io::Result<()> {
        self.ring.submitter().unregister_buf_ring(group)
    }

    fn limit_workers(&mut self, mut limits: [u32; 2]) -> io::Result<()> {
        self.ring.submitter().register_iowq_max_workers(&mut limits)
    }

    fn place_workers(&mut self, cpus: &Cpus) -> io::Result<()> {
        if !self.has_poller {
            // A thread that has submitted nothing has no workers yet that could be placed (EINVAL; the first
            // kernels with this call did not even check that). This submits nothing: when a ring is first run, no
            // entry was shown to the kernel.
            self.enter_now(1, 0, EnterFlags::empty())?;
        }
        let (ring, mask) = (self.ring.as_raw_fd(), cpus.mask());
        // SAFETY: the kernel reads this many bytes, which are there, during the call.
        let placed = unsafe {
            let (start, bytes) = (mask.as_ptr(), mem::size_of_val(mask));
            syscalls::syscall!(Sysno::io_uring_register, ring, IORING_REGISTER_IOWQ_AFF, start, bytes)
        };
        placed.map(drop).or_else(fail)
    }

    fn busy_poll(&mut self, BusyPoll { microseconds, prefer }: BusyPoll) -> io::Result<()> {
        let mut napi = Napi::new().set_busy_poll_timeout(microseconds).set_prefer_busy_poll(prefer);
        self.ring.submitter().register_napi(&mut napi)
    }

    fn set_min_wait(&mut self, min_wait: MinWait) -> io::Result<()> {
        if !self.ring.params().is_feature_min_timeout() {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        self.min_wait = Some(min_wait);
        self.is_special = true;
        Ok(())
    }

    fn change_files(&mut self, change: Change<BorrowedFd<'_>>) -> io::Result<()> {
        let submitter = self.ring.submitter();
        let (index, file) = match change {
            Change::Make { places, for_kernel } => return self.make_files(places, for_kernel),
            Change::Set { index, to } => (index, to.as_raw_fd()),
            Change::Clear { index } => (index, -1),
        };
        submitter.register_files_update(index, &[file]).map(drop)
    }

    unsafe fn change_memory(&mut self, change: Change<(u64, usize)>) -> io::Result<()> {
        let submitter = self.ring.submitter();
        let (index, (address, bytes)) = match change {
            Change::Make { places, .. } => return submitter.register_buffers_sparse(places),
            Change::Set { index, to } => (index, to),
            Change::Clear { index } => (index, (0, 0)),
        };
        let start = ptr::with_exposed_provenance_mut(address as usize);
        let memory = libc::iovec { iov_base: start, iov_len: bytes };
        // SAFETY: the caller promises that the memory is there.
        unsafe { submitter.register_buffers_update(index, &[memory], None) }
    }

    fn now(&self) -> Duration {
        clock::monotonic()
    }
}
