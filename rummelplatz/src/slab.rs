//! A generational slab whose values never move: where the data of each request lives.
//!
//! # What it promises
//!
//! * A value stays at its address from [`Slab::insert_with`] until it is taken out. Slots live in
//!   chunks that are allocated once and never moved; growing adds a chunk.
//! * A slot is in one of four states: *free*; *live* (the value is here, the kernel may be using
//!   it); *lent* (the value is with a handler); *abandoned* (no value, and the kernel is not done).
//! * No Rust reference ever covers the value of a live slot, except while the closure of
//!   [`Slab::insert_with`] or [`Occupied::with_value`] runs, and these run only when the kernel does
//!   not have the request. Slots are reached by raw pointers, and the headers are separate places.
//! * Dropping a slab that still holds a slot frees nothing of it: the chunks are leaked. Freeing
//!   memory is earned by an empty slab.
//!
//! It knows nothing of io_uring: `M` is whatever the owner wants to remember about a request.
//!
//! # How the unsafe code stays right
//!
//! Everything hangs on one invariant, kept by this module alone: **the value of a slot is
//! initialised exactly when its state is [`State::Live`]**. State and value always change together,
//! the state first when a value leaves (so that a panic cannot see it twice) and last when one
//! arrives.

use std::alloc::{self, Layout};
use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::ptr::NonNull;

use crate::user_data::UserData;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    Free,
    Live,
    Lent,
    Abandoned,
}

/// A slot's own account of itself; never overlaps the value.
struct Header<M> {
    /// The `user_data` of the present request, or [`vacant`] while free. So one comparison checks
    /// tag, generation, slot and state.
    user_data: u64,
    generation: u64,
    next_free: u32,
    state: State,
    meta: MaybeUninit<M>,
}

struct Slot<D, M> {
    header: Header<M>,
    value: UnsafeCell<MaybeUninit<D>>,
}

/// "No slot", as an index.
const NONE: u32 = u32::MAX;

/// What a free slot has for a `user_data`: one that names another slot, so that no look-up that
/// arrives here can be equal to it.
const fn vacant(index: u32) -> u64 {
    !(index as u64)
}

/// See the [module documentation](self).
pub struct Slab<D, M: Copy> {
    tag: u8,
    /// First of the free slots, linked through their headers.
    free: u32,
    /// Slots that were ever handed out; those from here on are uninitialised memory.
    fresh: u32,
    occupied: u32,
    limit: u32,
    chunks: Vec<NonNull<Slot<D, M>>>,
}

// SAFETY: the slab owns its slots through the raw pointers, as a `Vec<Slot>` would; moving it to
// another thread moves the values, hence `D: Send`, and the metadata.
unsafe impl<D: Send, M: Copy + Send> Send for Slab<D, M> {}

/// The slab holds as many requests as it was allowed to.
#[derive(Debug)]
pub(crate) struct Full;

/// What identifies a request for ever: never used twice by one slab.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Identity {
    pub(crate) generation: u64,
    pub(crate) slot: u32,
}

impl<D, M: Copy> Slab<D, M> {
    /// Aims at chunks of 16 KiB: small enough for one big value, large enough to be rare.
    const CHUNK: u32 = {
        let slots = 16 * 1024 / size_of::<Slot<D, M>>();
        let slots = if slots < 8 { 8 } else { slots };
        // A power of two, so that finding the chunk is a shift.
        1 << slots.ilog2()
    };
    const CHUNK_SHIFT: u32 = Self::CHUNK.trailing_zeros();
    const CHUNK_LAYOUT: Layout = match Layout::array::<Slot<D, M>>(Self::CHUNK as usize) {
        Ok(layout) => layout,
        Err(_) => panic!("`RingData` is larger than an address space: put it behind a pointer"),
    };

    /// An empty slab whose requests carry `tag`. Allocates nothing.
    pub const fn new(tag: u8) -> Self {
        Slab { tag, free: NONE, fresh: 0, occupied: 0, limit: NONE, chunks: Vec::new() }
    }

    /// Bounds the number of slots.
    pub(crate) fn set_limit(&mut self, limit: u32) {
        self.limit = limit;
    }

    /// How many slots are not free.
    #[inline]
    pub(crate) fn occupied_slots(&self) -> usize {
        self.occupied as usize
    }

    /// Makes sure that the next [`insert_with`](Self::insert_with) finds a slot.
    #[inline]
    pub(crate) fn reserve(&mut self) -> Result<(), Full> {
        if self.free != NONE { Ok(()) } else { self.grow() }
    }

    /// Whether `count` more slots may be occupied.
    pub(crate) fn has_room(&self, count: usize) -> bool {
        self.occupied as usize + count <= self.limit as usize
    }

    #[cold]
    fn grow(&mut self) -> Result<(), Full> {
        if self.fresh >= self.limit {
            return Err(Full);
        }
        let index = self.fresh;
        if index >> Self::CHUNK_SHIFT == self.chunks.len() as u32 {
            // SAFETY: the layout's size is not zero, because a header's is not.
            let chunk = unsafe { alloc::alloc(Self::CHUNK_LAYOUT) };
            let Some(chunk) = NonNull::new(chunk.cast::<Slot<D, M>>()) else {
                alloc::handle_alloc_error(Self::CHUNK_LAYOUT);
            };
            self.chunks.push(chunk);
        }
        self.fresh += 1;
        let header = Header {
            user_data: vacant(index),
            generation: 0,
            next_free: NONE,
            state: State::Free,
            meta: MaybeUninit::uninit(),
        };
        let slot = self.slot(index);
        // SAFETY: `slot` points into a chunk that was just made sure to exist; its header is
        // uninitialised memory that nothing else refers to.
        unsafe { (&raw mut (*slot.as_ptr()).header).write(header) };
        self.free = index;
        Ok(())
    }

    /// The place of a slot below `fresh`.
    #[inline]
    fn slot(&self, index: u32) -> NonNull<Slot<D, M>> {
        let chunk = self.chunks[(index >> Self::CHUNK_SHIFT) as usize];
        // SAFETY: the offset is below `CHUNK`, so it stays inside the allocation.
        unsafe { chunk.add((index & (Self::CHUNK - 1)) as usize) }
    }

    /// The header of a slot below `fresh`.
    #[inline]
    fn header(&self, index: u32) -> &Header<M> {
        let slot = self.slot(index);
        // SAFETY: headers below `fresh` are initialised, are only changed through `&mut self`, and
        // do not overlap a value.
        unsafe { &(*slot.as_ptr()).header }
    }

    /// Puts `value` into a slot and runs `build` on it there, at the address that it keeps.
    ///
    /// If `build` panics, the value is dropped and the slot is free again.
    ///
    /// # Panics
    ///
    /// If no slot is free: [`reserve`](Self::reserve) first.
    #[inline]
    pub(crate) fn insert_with<T>(
        &mut self,
        value: D,
        build: impl FnOnce(&mut D) -> (M, T),
    ) -> (Identity, u64, T) {
        /// Gives the slot back if `build` unwinds.
        struct Undo<'s, D, M: Copy>(&'s mut Slab<D, M>, u32);
        impl<D, M: Copy> Drop for Undo<'_, D, M> {
            fn drop(&mut self) {
                if let Some(occupied) = self.0.at(self.1) {
                    drop(occupied.take());
                }
            }
        }

        let index = self.free;
        assert!(index != NONE, "reserve() comes before insert_with()");
        let slot = self.slot(index).as_ptr();
        // SAFETY: the slot is free, so its header is initialised and its value is not in use.
        let header = unsafe { &mut (*slot).header };
        self.free = header.next_free;
        self.occupied += 1;
        let user_data = UserData::pack(self.tag, header.generation, index);
        let generation = header.generation;
        header.user_data = user_data;
        // SAFETY: as above; writing does not drop what was there, which is nothing.
        unsafe { (*slot).value.get().write(MaybeUninit::new(value)) };
        // SAFETY: as above; the reference made for `header` is not used any more.
        unsafe { (*slot).header.state = State::Live };

        let undo = Undo(self, index);
        // SAFETY: the value was written above; the request does not exist yet, so nobody else can
        // reach the value while `build` runs.
        let value = unsafe { (*(*slot).value.get()).assume_init_mut() };
        let (meta, built) = build(value);
        std::mem::forget(undo);
        // SAFETY: the header is initialised and no reference to it is alive.
        unsafe { (*slot).header.meta = MaybeUninit::new(meta) };
        (Identity { generation, slot: index }, user_data, built)
    }

    /// The slot of the request with this `user_data`, if there is one.
    #[inline]
    pub(crate) fn find(&mut self, user_data: u64) -> Option<Occupied<'_, D, M>> {
        let index = UserData::slot(user_data);
        if index >= self.fresh || self.header(index).user_data != user_data {
            return None;
        }
        Some(Occupied { slot: self.slot(index), index, slab: self })
    }

    /// The slot of the request with this identity, if it is still there.
    pub(crate) fn find_identity(&mut self, identity: Identity) -> Option<Occupied<'_, D, M>> {
        let index = identity.slot;
        if index >= self.fresh || self.header(index).generation != identity.generation {
            return None;
        }
        self.at(index)
    }

    /// The occupied slot with this index.
    fn at(&mut self, index: u32) -> Option<Occupied<'_, D, M>> {
        if index >= self.fresh || self.header(index).state == State::Free {
            return None;
        }
        Some(Occupied { slot: self.slot(index), index, slab: self })
    }

    /// Calls `visit` with the `user_data` and metadata of each occupied slot.
    pub(crate) fn for_each(&self, mut visit: impl FnMut(u64, &M)) {
        for index in 0..self.fresh {
            let header = self.header(index);
            if header.state != State::Free {
                // SAFETY: the metadata is written before a slot becomes visible as occupied to
                // anybody but `insert_with`, which holds the slab exclusively.
                visit(header.user_data, unsafe { header.meta.assume_init_ref() });
            }
        }
    }
}

impl<D, M: Copy> Drop for Slab<D, M> {
    fn drop(&mut self) {
        if self.occupied > 0 {
            // Somebody may still write to a slot: the chunks are leaked.
            return;
        }
        for chunk in self.chunks.drain(..) {
            // SAFETY: allocated in `grow` with this layout, freed once, and no slot is occupied, so
            // no value in it is initialised.
            unsafe { alloc::dealloc(chunk.as_ptr().cast(), Self::CHUNK_LAYOUT) };
        }
    }
}

/// A slot that is not free, found once and then used without another look-up.
pub(crate) struct Occupied<'s, D, M: Copy> {
    slab: &'s mut Slab<D, M>,
    slot: NonNull<Slot<D, M>>,
    index: u32,
}

impl<D, M: Copy> Occupied<'_, D, M> {
    #[inline]
    fn header(&mut self) -> &mut Header<M> {
        // SAFETY: the header is initialised, does not overlap the value, and the slab is borrowed
        // exclusively.
        unsafe { &mut (*self.slot.as_ptr()).header }
    }

    /// Which state the slot is in: never [`State::Free`].
    #[inline]
    pub(crate) fn state(&mut self) -> State {
        self.header().state
    }

    /// The `user_data` of the request.
    #[inline]
    pub(crate) fn user_data(&mut self) -> u64 {
        self.header().user_data
    }

    /// What the owner noted about the request.
    #[inline]
    pub(crate) fn meta(&mut self) -> &mut M {
        // SAFETY: written by `insert_with` before it returned, and this borrow of the slab came
        // after that.
        unsafe { self.header().meta.assume_init_mut() }
    }

    /// Frees the slot and returns its value, if it was here.
    #[inline]
    pub(crate) fn take(mut self) -> Option<D> {
        let state = self.state();
        self.vacate();
        if state != State::Live {
            return None;
        }
        // SAFETY: the state was Live, so the value is initialised; it is Free now, so nobody reads
        // the value again.
        Some(unsafe { (*self.slot.as_ptr()).value.get().read().assume_init() })
    }

    /// Moves the value out to a handler; the slot stays occupied.
    #[inline]
    pub(crate) fn lend(&mut self) -> Option<D> {
        if self.state() != State::Live {
            return None;
        }
        self.header().state = State::Lent;
        // SAFETY: the state was Live, so the value is initialised; it is Lent now, so nobody reads
        // the value again.
        Some(unsafe { (*self.slot.as_ptr()).value.get().read().assume_init() })
    }

    /// Takes a lent value back, at the same address.
    ///
    /// # Panics
    ///
    /// If the value is not lent.
    #[inline]
    pub(crate) fn give_back(&mut self, value: D) {
        assert!(self.state() == State::Lent, "only what was lent can be given back");
        // SAFETY: the state is Lent, so the place holds no value that would be overwritten.
        unsafe { (*self.slot.as_ptr()).value.get().write(MaybeUninit::new(value)) };
        self.header().state = State::Live;
    }

    /// Gives up on a lent value: the slot stays until the kernel is done.
    #[inline]
    pub(crate) fn abandon(&mut self) {
        if self.state() == State::Lent {
            self.header().state = State::Abandoned;
        }
    }

    /// Runs `visit` on the value where it lies.
    ///
    /// # Safety
    ///
    /// The kernel must not have a pointer into the value: it is a stream, or was never submitted.
    pub(crate) unsafe fn with_value<T>(&mut self, visit: impl FnOnce(&mut D) -> T) -> Option<T> {
        if self.state() != State::Live {
            return None;
        }
        // SAFETY: the state is Live, so the value is initialised; the slab is borrowed exclusively, and
        // the caller answers for the kernel.
        let value = unsafe { (*(*self.slot.as_ptr()).value.get()).assume_init_mut() };
        Some(visit(value))
    }

    /// Frees the slot. Whatever value was here is gone without being dropped: [`take`](Self::take)
    /// it before.
    #[inline]
    fn vacate(&mut self) {
        let (index, next_free) = (self.index, self.slab.free);
        let header = self.header();
        header.user_data = vacant(index);
        header.generation = header.generation.wrapping_add(1);
        header.state = State::Free;
        header.next_free = next_free;
        self.slab.free = self.index;
        self.slab.occupied -= 1;
    }
}
