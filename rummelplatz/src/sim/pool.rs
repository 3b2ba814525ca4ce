//! The kernel's end of a ring of provided buffers.

use std::ptr;
use std::sync::atomic::{AtomicU16, Ordering};

use crate::buffers::F_BUF_MORE;
use crate::queue::BufferRing;

/// A ring of provided buffers that was registered.
pub(super) struct Pool {
    ring: BufferRing,
    head: u16,
}

/// A buffer that is offered.
#[derive(Clone, Copy)]
pub(super) struct Offered {
    pub(super) address: u64,
    pub(super) length: u32,
    pub(super) id: u16,
}

/// The most buffers that one request takes.
const MOST: u16 = 256;

/// Where the tail is: in the first entry (`struct io_uring_buf_ring`).
const TAIL: usize = 14;

impl Pool {
    /// # Safety
    ///
    /// At the address there are this many entries, a power of two. They and what they offer are there for as
    /// long as this is used.
    pub(super) unsafe fn new(ring: BufferRing) -> Pool {
        Pool { ring, head: 0 }
    }

    /// Whether its buffers are used piece by piece.
    pub(super) fn is_incremental(&self) -> bool {
        self.ring.is_incremental
    }

    /// The next buffer, if one is offered. It stays the next one until it is [taken](Self::take).
    pub(super) fn next(&self) -> Option<Offered> {
        self.ahead(0)
    }

    /// As many buffers as one request can take, in order.
    pub(super) fn all(&self) -> Vec<Offered> {
        (0..MOST).map_while(|ahead| self.ahead(ahead)).collect()
    }

    /// The buffer that comes after `ahead` others, if it is offered.
    fn ahead(&self, ahead: u16) -> Option<Offered> {
        let ring = ptr::with_exposed_provenance::<u8>(self.ring.address as usize);
        // SAFETY: the tail is there, aligned, and the other end uses it as an atomic, too.
        let tail = unsafe { &*ring.add(TAIL).cast::<AtomicU16>() }.load(Ordering::Acquire);
        if tail.wrapping_sub(self.head) <= ahead {
            return None;
        }
        let entry = self.entry(ahead);
        // SAFETY: the entry is there, and was written; the fields are those of `struct io_uring_buf`.
        let (address, length) = unsafe { (entry.cast::<u64>().read(), entry.add(8).cast::<u32>().read()) };
        // SAFETY: the entry is there, and was written; the field is that of `struct io_uring_buf`.
        let id = unsafe { entry.add(12).cast::<u16>().read() };
        Some(Offered { address, length, id })
    }

    /// The entry that comes after `ahead` others.
    fn entry(&self, ahead: u16) -> *mut u8 {
        let ring = ptr::with_exposed_provenance_mut::<u8>(self.ring.address as usize);
        let index = usize::from(self.head.wrapping_add(ahead) & (self.ring.entries - 1));
        // SAFETY: the index is below the number of entries, of 16 bytes each.
        unsafe { ring.add(index * 16) }
    }

    /// Takes the next buffer, or as many bytes of it. Returns the flag of the completion that says that there are more
    /// left.
    pub(super) fn use_up(&mut self, bytes: u32) -> u32 {
        let Some(Offered { address, length, .. }) = self.next() else { return 0 };
        if !self.is_incremental() {
            self.take(1);
            return 0;
        }
        let left = length.saturating_sub(bytes);
        let entry = self.entry(0);
        // SAFETY: the entry is there, aligned, and was written; the field is that of `struct io_uring_buf`, and
        // changes only here until the buffer is used up.
        unsafe { entry.add(8).cast::<u32>().write(left) };
        if left == 0 {
            self.take(1);
            return 0;
        }
        // SAFETY: the same holds for this field.
        unsafe { entry.cast::<u64>().write(address + u64::from(bytes)) };
        F_BUF_MORE
    }

    /// Takes the next buffers, which are in the hands of a completion from then on.
    pub(super) fn take(&mut self, count: u16) {
        self.head = self.head.wrapping_add(count);
    }
}
