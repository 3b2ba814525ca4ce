//! Provided buffers (`IORING_REGISTER_PBUF_RING`), group 0.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::Submitter;
use io_uring::types::BufRingEntry;

/// Buffers that the kernel picks from when something is received.
#[derive(Debug)]
pub struct Buffers {
    ring: NonNull<BufRingEntry>,
    memory: NonNull<u8>,
    tail: u16,
    count: u16,
    size: usize,
}

const PAGE: usize = 4096;

impl Buffers {
    /// Registers `count` buffers of `size` bytes, as the group 0, and gives all to the kernel.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn new(submitter: &Submitter<'_>, count: usize, size: usize) -> io::Result<Buffers> {
        let (ring, memory) = Buffers::layouts(count, size)?;
        let mut buffers =
            Buffers { ring: zeroed(ring).cast(), memory: zeroed(memory), tail: 0, count: count as u16, size };
        // SAFETY: the ring is zeroed memory of this size on a page of its own, and is freed only with
        // the buffers, which users keep until their io_uring is dropped.
        unsafe { submitter.register_buf_ring_with_flags(buffers.ring.as_ptr() as u64, buffers.count, 0, 0) }?;
        for buffer in 0..buffers.count {
            buffers.give(buffer);
        }
        Ok(buffers)
    }

    fn layouts(count: usize, size: usize) -> io::Result<(Layout, Layout)> {
        let layout = |bytes| Layout::from_size_align(bytes, PAGE).map_err(io::Error::other);
        Ok((layout(count * size_of::<BufRingEntry>())?, layout(count * size)?))
    }

    /// Where a buffer begins.
    #[inline]
    pub fn at(&self, buffer: u16) -> *mut u8 {
        self.memory.as_ptr().wrapping_add(usize::from(buffer) * self.size)
    }

    /// The size of each.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Gives a buffer to the kernel.
    #[inline]
    pub fn give(&mut self, buffer: u16) {
        let address = self.at(buffer) as u64;
        let place = usize::from(self.tail & (self.count - 1));
        // SAFETY: the place is below the number of entries; the kernel does not read there, because it
        // has at most `count` buffers, and this one it hasn't. No other reference exists.
        let entry = unsafe { self.ring.add(place).as_mut() };
        entry.set_addr(address);
        entry.set_len(self.size as u32);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: this is the address of the first entry.
        let tail = unsafe { BufRingEntry::tail(self.ring.as_ptr()) };
        // SAFETY: the tail is aligned, lives as long as the ring, and is shared only with the kernel.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        let Ok((ring, memory)) = Buffers::layouts(usize::from(self.count), self.size) else { return };
        // SAFETY: allocated in `new` with this layout, and not used again.
        unsafe { dealloc(self.ring.as_ptr().cast(), ring) };
        // SAFETY: as above.
        unsafe { dealloc(self.memory.as_ptr(), memory) };
    }
}

fn zeroed(layout: Layout) -> NonNull<u8> {
    // SAFETY: `Shape` refuses what would make the size zero.
    let memory = unsafe { alloc_zeroed(layout) };
    NonNull::new(memory).unwrap_or_else(|| handle_alloc_error(layout))
}
