//! The queues, mapped a second time.

use std::io;
use std::os::fd::AsRawFd;
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};

use io_uring::squeue::Entry;
use io_uring::{IoUring, Parameters, Submitter};
use kit::by_hand::{Completion, Queue, Ring};
use kit::{Args, Error};

/// `struct io_uring_params`, of which `Parameters` is a transparent wrapper.
#[repr(C)]
#[derive(Clone, Copy)]
struct Params {
    sq_entries: u32,
    cq_entries: u32,
    other: [u32; 8],
    /// head, tail, mask, entries, flags, dropped, array, …
    sq: [u32; 10],
    /// head, tail, mask, entries, overflow, cqes, flags, …
    cq: [u32; 10],
}

const _: () = assert!(size_of::<Params>() == size_of::<Parameters>());

/// A ring whose queues are ours.
pub(crate) struct Own {
    ring: IoUring,
    queue: Entries,
    completions: *const Posted,
    completion_mask: u32,
    seen: *const AtomicU32,
    posted: *const AtomicU32,
    /// The ring's place in the table of this thread.
    registered: u32,
}

/// The submission queue.
pub(crate) struct Entries {
    start: *mut Entry,
    mask: u32,
    tail: u32,
    /// How far the kernel had taken entries in when we last looked.
    head: u32,
    taken_in: *const AtomicU32,
    shown: *const AtomicU32,
    backlog: Vec<Entry>,
}

/// `struct io_uring_cqe`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Posted {
    user_data: u64,
    result: i32,
    flags: u32,
}

impl Queue for Entries {
    #[inline(always)]
    unsafe fn push(&mut self, entry: Entry) {
        if self.tail.wrapping_sub(self.head) > self.mask {
            self.backlog.push(entry);
            return;
        }
        // SAFETY: the index is below the number of entries, and the kernel has taken in what was there.
        unsafe { self.start.add((self.tail & self.mask) as usize).write(entry) };
        self.tail = self.tail.wrapping_add(1);
    }
}

impl Entries {
    /// Looks how far the kernel is, and moves entries from the backlog to the queue.
    #[inline]
    fn sync(&mut self) {
        // SAFETY: the place is in the map, which is there as long as the ring.
        self.head = unsafe { &*self.taken_in }.load(Ordering::Acquire);
        if !self.backlog.is_empty() {
            self.catch_up();
        }
    }

    #[cold]
    fn catch_up(&mut self) {
        for entry in std::mem::take(&mut self.backlog) {
            // SAFETY: as promised when it was pushed.
            unsafe { self.push(entry) };
        }
    }
}

/// Maps a part of the ring's memory. It is never unmapped: it lives as long as the contestant.
fn map(ring: &IoUring, offset: i64, length: usize) -> io::Result<*mut u8> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
    // SAFETY: a new map at a place of the kernel's choice.
    let start = unsafe { libc::mmap(ptr::null_mut(), length, protection, flags, ring.as_raw_fd(), offset) };
    if start == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(start.cast()) }
}

/// Puts the ring into this thread's table of rings.
fn register(ring: &IoUring) -> io::Result<u32> {
    const IORING_REGISTER_RING_FDS: u32 = 20;
    let mut update = [u32::MAX, 0, ring.as_raw_fd() as u32, 0];
    // SAFETY: the argument is a `struct io_uring_rsrc_update`, there is one, and it may be written to.
    let result = unsafe {
        let (call, ring) = (libc::SYS_io_uring_register, ring.as_raw_fd());
        libc::syscall(call, ring, IORING_REGISTER_RING_FDS, update.as_mut_ptr(), 1)
    };
    if result == 1 { Ok(update[0]) } else { Err(io::Error::last_os_error()) }
}

impl Own {
    #[inline(always)]
    fn enter(&self, submit: u32, want: u32) -> io::Result<()> {
        const GETEVENTS_REGISTERED: u32 = 1 | 1 << 4;
        let result: isize;
        #[cfg(target_arch = "x86_64")]
        // SAFETY: what queued entries point to is valid, as promised by those who pushed them; the call changes rax,
        // rcx and r11, and the memory that entries point to.
        unsafe {
            std::arch::asm!(
                "syscall",
                inlateout("rax") libc::SYS_io_uring_enter as isize => result,
                in("rdi") self.registered,
                in("rsi") submit,
                in("rdx") want,
                in("r10") GETEVENTS_REGISTERED,
                in("r8") 0,
                in("r9") 0,
                lateout("rcx") _,
                lateout("r11") _,
                options(nostack),
            );
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            let none = ptr::null::<libc::sigset_t>();
            let call = libc::SYS_io_uring_enter;
            // SAFETY: as above.
            let returned = unsafe {
                libc::syscall(call, self.registered, submit, want, GETEVENTS_REGISTERED, none, 0usize)
            };
            let errno = io::Error::last_os_error().raw_os_error().unwrap_or(0);
            result = if returned < 0 { -errno as isize } else { returned as isize };
        }
        if result < 0 && result != -(libc::EINTR as isize) {
            return Err(io::Error::from_raw_os_error(-result as i32));
        }
        Ok(())
    }
}

impl Ring for Own {
    type Queue<'a> = Entries;

    fn build(_: &Args, entries: u32) -> Result<Own, Error> {
        let mut builder = IoUring::builder();
        builder.setup_coop_taskrun().setup_single_issuer().setup_defer_taskrun().setup_no_sqarray();
        let ring: IoUring = builder.build(entries)?;
        // SAFETY: `Parameters` is a transparent wrapper of the system's structure, as `Params` is; the
        // sizes are compared above.
        let params = unsafe { ptr::from_ref(ring.params()).cast::<Params>().read() };
        let Params { sq, cq, sq_entries, cq_entries, .. } = params;
        let queues = map(&ring, 0, cq[5] as usize + cq_entries as usize * size_of::<Posted>())?;
        let start = map(&ring, 0x1000_0000, sq_entries as usize * size_of::<Entry>())?;
        let at = |offset: u32| queues.wrapping_add(offset as usize).cast::<AtomicU32>().cast_const();
        let queue = Entries {
            start: start.cast(),
            mask: sq_entries - 1,
            tail: 0,
            head: 0,
            taken_in: at(sq[0]),
            shown: at(sq[1]),
            backlog: Vec::new(),
        };
        Ok(Own {
            queue,
            completions: at(cq[5]).cast(),
            completion_mask: cq_entries - 1,
            seen: at(cq[0]),
            posted: at(cq[1]),
            registered: register(&ring)?,
            ring,
        })
    }

    fn submitter(&self) -> Submitter<'_> {
        self.ring.submitter()
    }

    unsafe fn run(
        &mut self,
        first: impl IntoIterator<Item = Entry>,
        mut complete: impl FnMut(&mut Entries, Completion) -> io::Result<bool>,
    ) -> io::Result<()> {
        for entry in first {
            // SAFETY: the caller's promise is the same.
            unsafe { self.queue.push(entry) };
        }
        // SAFETY: the places are in the map, which is there as long as the ring.
        let (seen, posted, shown) = unsafe { (&*self.seen, &*self.posted, &*self.queue.shown) };
        let mut head = seen.load(Ordering::Relaxed);
        loop {
            shown.store(self.queue.tail, Ordering::Release);
            // What waits for room in the queue must not wait for a completion.
            let want = u32::from(self.queue.backlog.is_empty());
            self.enter(self.queue.tail.wrapping_sub(self.queue.head), want)?;
            self.queue.sync();
            let end = posted.load(Ordering::Acquire);
            while head != end {
                // SAFETY: the index is below the number of completions, and this one was posted.
                let cqe = unsafe { &*self.completions.add((head & self.completion_mask) as usize) };
                let Posted { user_data, result, flags } = *cqe;
                head = head.wrapping_add(1);
                if complete(&mut self.queue, Completion { user_data, result, flags })? {
                    seen.store(head, Ordering::Release);
                    return Ok(());
                }
            }
            seen.store(head, Ordering::Release);
        }
    }
}
