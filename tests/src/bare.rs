//! Things done to the io_uring of a ring behind its back, and what rings without a `#[ring]` need.

use std::alloc::{self, Layout};
use std::io;
use std::ptr::{self, NonNull};

use rummelplatz::io_uring::types::BufRingEntry;
use rummelplatz::io_uring::{IoUring, Submitter, opcode, squeue, types};

/// Makes a completion with these contents appear in the ring with the descriptor `target`, as anybody who has that
/// descriptor can: it is a message of another ring (`IORING_OP_MSG_RING`), with flags if there are any
/// (`IORING_MSG_RING_FLAGS_PASS`, since 6.3).
#[track_caller]
pub fn forge(target: types::Fd, user_data: u64, result: i32, flags: Option<u32>) {
    let mut sender = IoUring::new(1).unwrap();
    let message = opcode::MsgRingData::new(target, result, user_data, flags).build();
    // SAFETY: it points to nothing.
    unsafe { sender.submission().push(&message) }.unwrap();
    sender.submit_and_wait(1).unwrap();
    assert_eq!(sender.completion().next().unwrap().result(), 0, "the message was not delivered");
}

/// As [`forge`], without a ring to send from (`IORING_REGISTER_SEND_MSG_RING`, since 6.13).
///
/// # Errors
///
/// Those of the system call.
pub fn forge_without_a_ring(
    target: types::Fd,
    user_data: u64,
    result: i32,
    flags: Option<u32>,
) -> io::Result<()> {
    const IORING_REGISTER_SEND_MSG_RING: libc::c_uint = 31;
    let message = opcode::MsgRingData::new(target, result, user_data, flags).build();
    let number = libc::SYS_io_uring_register;
    // SAFETY: the operation reads one entry, which lives through the call.
    match unsafe { libc::syscall(number, -1, IORING_REGISTER_SEND_MSG_RING, &raw const message, 1) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The `user_data` of an entry with this opcode. It is looked up in the submission queue of a ring with this descriptor
/// and this many entries, whether or not the kernel has taken the entry in. If there are several, it is the one that
/// was queued last, as long as the queue has not wrapped around.
pub fn queued_user_data(fd: types::Fd, entries: usize, opcode: u8) -> u64 {
    const IORING_OFF_SQES: i64 = 0x1000_0000;
    const ENTRY: usize = size_of::<squeue::Entry>();
    const USER_DATA: usize = 32;
    let length = entries * ENTRY;
    // SAFETY: a new mapping, at an address of the kernel's choice.
    let queue = unsafe {
        libc::mmap(ptr::null_mut(), length, libc::PROT_READ, libc::MAP_SHARED, fd.0, IORING_OFF_SQES)
    };
    assert_ne!(queue, libc::MAP_FAILED, "{}", io::Error::last_os_error());
    let queue = queue.cast::<u8>();
    let found = (0..entries).rev().find_map(|index| {
        // SAFETY: within the mapping; the ring is not used meanwhile.
        let entry = unsafe { queue.add(index * ENTRY) };
        // SAFETY: as above.
        let is_it = unsafe { entry.read() } == opcode;
        // SAFETY: as above; a field of eight bytes, aligned.
        let user_data = unsafe { entry.add(USER_DATA).cast::<u64>().read() };
        // A place that was never used looks like a NOP.
        (is_it && user_data != 0).then_some(user_data)
    });
    // SAFETY: the mapping was made above, and nothing refers to it any more.
    assert_eq!(unsafe { libc::munmap(queue.cast(), length) }, 0);
    found.expect("no such entry was queued")
}

/// The same entry with `value` in the one-byte field at this offset, for entries that can't be built otherwise.
pub fn with_byte(mut entry: squeue::Entry, offset: usize, value: u8) -> squeue::Entry {
    assert!(offset < size_of::<squeue::Entry>());
    // SAFETY: within the entry, which is bytes to the kernel.
    unsafe { (&raw mut entry).cast::<u8>().add(offset).write(value) };
    entry
}

/// `sqe->opcode`.
pub const OPCODE: usize = 0;

/// An opcode that no kernel knows.
pub const NO_OPCODE: u8 = 0xF0;

/// Buffers for the kernel to choose from, as [`BufferPool`](rummelplatz::BufferPool) does not offer them.
pub struct ProvidedBuffers {
    ring: NonNull<BufRingEntry>,
    memory: NonNull<u8>,
    count: u16,
    size: usize,
    tail: u16,
}

impl ProvidedBuffers {
    /// The flag of `IORING_REGISTER_PBUF_RING` with which a buffer is used up piece by piece (since 6.12).
    pub const INCREMENTAL: u16 = 2;
    const PAGE: usize = 4096;

    /// Registers a group of `count` buffers, each of `size` bytes, which lie one after the other. They must be kept for
    /// as long as a request of the ring may use them.
    ///
    /// # Errors
    ///
    /// Those of `IORING_REGISTER_PBUF_RING`.
    pub fn register(
        submitter: &Submitter<'_>,
        group: u16,
        count: u16,
        size: usize,
        flags: u16,
    ) -> io::Result<ProvidedBuffers> {
        assert!(count.is_power_of_two() && usize::from(count) * size_of::<BufRingEntry>() <= Self::PAGE);
        // SAFETY: the size is not zero.
        let ring = NonNull::new(unsafe { alloc::alloc_zeroed(Self::ring_layout()) }).unwrap().cast();
        // SAFETY: as above, unless a caller asks for no bytes, which none does.
        let memory = unsafe { alloc::alloc_zeroed(Self::memory_layout(count, size)) };
        let memory = NonNull::new(memory).unwrap();
        let mut buffers = ProvidedBuffers { ring, memory, count, size, tail: 0 };
        let address = ring.as_ptr().expose_provenance() as u64;
        // SAFETY: the ring is a page, and kept until it is unregistered or the io_uring is gone.
        unsafe { submitter.register_buf_ring_with_flags(address, count, group, flags) }?;
        for id in 0..count {
            buffers.provide(id);
        }
        Ok(buffers)
    }

    fn ring_layout() -> Layout {
        Layout::from_size_align(Self::PAGE, Self::PAGE).unwrap()
    }

    fn memory_layout(count: u16, size: usize) -> Layout {
        Layout::array::<u8>(usize::from(count) * size).unwrap()
    }

    /// Gives the kernel one of the buffers.
    pub fn provide(&mut self, id: u16) {
        assert!(id < self.count);
        // SAFETY: within the page; the kernel does not read what is behind the tail.
        let entry = unsafe { self.ring.add(usize::from(self.tail & (self.count - 1))).as_mut() };
        entry.set_addr(self.memory.as_ptr().expose_provenance() as u64 + u64::from(id) * self.size as u64);
        entry.set_len(self.size as u32);
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the first entry of the ring, which is initialised.
        let tail = unsafe { BufRingEntry::tail(self.ring.as_ptr()) }.cast_mut();
        // SAFETY: the tail is two bytes, aligned, which the kernel only reads.
        unsafe { std::sync::atomic::AtomicU16::from_ptr(tail) }
            .store(self.tail, std::sync::atomic::Ordering::Release);
    }

    /// The present contents of all buffers.
    pub fn bytes(&self) -> Vec<u8> {
        // SAFETY: zeroed once, and so initialised; nothing is received meanwhile.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), usize::from(self.count) * self.size) }
            .to_vec()
    }
}

impl Drop for ProvidedBuffers {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, and freed once.
        unsafe { alloc::dealloc(self.ring.as_ptr().cast(), Self::ring_layout()) };
        // SAFETY: as above.
        unsafe { alloc::dealloc(self.memory.as_ptr(), Self::memory_layout(self.count, self.size)) };
    }
}
