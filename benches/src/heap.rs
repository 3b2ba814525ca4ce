//! An allocator that counts.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicU64 = AtomicU64::new(0);
static FREED: AtomicU64 = AtomicU64::new(0);

/// What was asked of the allocator since the start of the process.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Heap {
    /// How often memory was asked for; a reallocation counts as one.
    pub allocations: u64,
    /// How many bytes were asked for.
    pub bytes: u64,
    /// How many bytes were given back.
    pub freed: u64,
}

impl Heap {
    /// The numbers as they are now.
    pub fn now() -> Heap {
        Heap {
            allocations: ALLOCATIONS.load(Relaxed),
            bytes: BYTES.load(Relaxed),
            freed: FREED.load(Relaxed),
        }
    }

    /// Bytes that are allocated and not freed.
    pub fn live(&self) -> u64 {
        self.bytes.wrapping_sub(self.freed)
    }
}

/// The system's allocator, counted in three plain numbers.
///
/// Contestants are single-threaded, so an addition is a load and a store, which is cheaper than an atomic addition.
/// With several threads, the worst that happens is that additions get lost.
#[derive(Debug)]
pub struct Counting;

#[inline(always)]
fn add(counter: &AtomicU64, amount: usize) {
    counter.store(counter.load(Relaxed).wrapping_add(amount as u64), Relaxed);
}

#[inline(always)]
fn count_allocation(bytes: usize) {
    add(&ALLOCATIONS, 1);
    add(&BYTES, bytes);
}

// SAFETY: all four hand over to `System`, which fulfils the contract, with the arguments they were given.
unsafe impl GlobalAlloc for Counting {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count_allocation(layout.size());
        // SAFETY: the caller's promise is the same.
        unsafe { System.alloc(layout) }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count_allocation(layout.size());
        // SAFETY: the caller's promise is the same.
        unsafe { System.alloc_zeroed(layout) }
    }

    #[inline]
    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count_allocation(size);
        add(&FREED, layout.size());
        // SAFETY: the caller's promise is the same.
        unsafe { System.realloc(memory, layout, size) }
    }

    #[inline]
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        add(&FREED, layout.size());
        // SAFETY: the caller's promise is the same.
        unsafe { System.dealloc(memory, layout) }
    }
}
