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
struct Header<D, M> {
    /// The `user_data` of the present request, or [`vacant`] while free. So one comparison checks
    /// tag, generation, slot and state.
    user_data: u64,
    generation: u64,
    next_free: Option<NonNull<Slot<D, M>>>,
    state: State,
    meta: MaybeUninit<M>,
}

struct Slot<D, M> {
    header: Header<D, M>,
    value: UnsafeCell<MaybeUninit<D>>,
}

/// "No slot", as an index.
const NONE: u32 = u32::MAX;

/// What a free slot has for a `user_data`: one that names another slot, so that no look-up that
/// arrives here can be equal to it.
const fn vacant(index: u32) -> u64 {
    !(index as u64)
}

/// The index of the free slot that has this for a `user_data`.
const fn named_by(vacant: u64) -> u32 {
    !vacant as u32
}

/// See the [module documentation](self).
pub struct Slab<D, M: Copy> {
    tag: u8,
    /// The first of the free slots, which are linked through their headers: the one that was freed
    /// last, whose memory is still warm.
    free: Option<NonNull<Slot<D, M>>>,
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

    /// An empty slab whose requests carry `tag`. Allocates nothing, and has no room before
    /// [`set_limit`](Self::set_limit).
    pub const fn new(tag: u8) -> Self {
        Slab { tag, free: None, fresh: 0, occupied: 0, limit: 0, chunks: Vec::new() }
    }

    /// The tag that the requests carry.
    pub(crate) fn tag(&self) -> u8 {
        self.tag
    }

    /// Bounds the number of slots.
    pub(crate) fn set_limit(&mut self, limit: u32) {
        // One index is not a slot.
        self.limit = limit.min(NONE - 1);
    }

    /// How many slots are not free.
    #[inline]
    pub(crate) fn occupied_slots(&self) -> usize {
        self.occupied as usize
    }

    /// Whether the next [`insert_with`](Self::insert_with) finds a slot.
    #[inline]
    pub(crate) fn has_free(&self) -> bool {
        self.free.is_some()
    }

    /// Makes sure that the next [`insert_with`](Self::insert_with) finds a slot.
    #[inline]
    pub(crate) fn reserve(&mut self) -> Result<(), Full> {
        if self.has_free() { Ok(()) } else { self.grow() }
    }

    /// Whether `count` more slots may be occupied.
    pub(crate) fn has_room(&self, count: usize) -> bool {
        self.occupied as usize + count <= self.limit as usize
    }

    #[cold]
    #[inline(never)]
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
            next_free: None,
            state: State::Free,
            meta: MaybeUninit::uninit(),
        };
        let slot = self.slot(index);
        // SAFETY: `slot` points into a chunk that was just made sure to exist; its header is
        // uninitialised memory that nothing else refers to.
        unsafe { (&raw mut (*slot.as_ptr()).header).write(header) };
        self.free = Some(slot);
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
    fn header(&self, index: u32) -> &Header<D, M> {
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
    #[inline(always)]
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

        let Some(slot) = self.free else {
            panic!("reserve() comes before insert_with()");
        };
        let slot = slot.as_ptr();
        // SAFETY: the slot is free, so its header is initialised and its value is not in use.
        let header = unsafe { &mut (*slot).header };
        let index = named_by(header.user_data);
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
    fn header(&mut self) -> &mut Header<D, M> {
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
        self.slab.free = Some(self.slot);
        self.slab.occupied -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::{Cell, RefCell};
    use std::collections::BTreeMap;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::rc::Rc;

    /// Miri is a thousand times slower.
    const fn steps(natively: usize) -> usize {
        if cfg!(miri) { natively / 200 } else { natively }
    }

    /// How often each value was dropped, by its number.
    #[derive(Clone, Default)]
    struct Drops(Rc<RefCell<Vec<u32>>>);

    struct Counted {
        drops: Drops,
        number: usize,
    }

    impl Drops {
        fn issue(&self) -> Counted {
            let mut drops = self.0.borrow_mut();
            drops.push(0);
            Counted { drops: self.clone(), number: drops.len() - 1 }
        }

        fn of(&self, number: usize) -> u32 {
            self.0.borrow()[number]
        }

        fn all_once(&self) -> bool {
            self.0.borrow().iter().all(|drops| *drops == 1)
        }
    }

    impl Drop for Counted {
        fn drop(&mut self) {
            self.drops.0.borrow_mut()[self.number] += 1;
        }
    }

    fn unlimited<D, M: Copy>(tag: u8) -> Slab<D, M> {
        let mut slab = Slab::new(tag);
        slab.set_limit(u32::MAX);
        slab
    }

    /// Reserves and inserts; the address is that which the closure sees.
    fn insert<D, M: Copy>(slab: &mut Slab<D, M>, value: D, meta: M) -> (Identity, u64, *mut D) {
        slab.reserve().unwrap();
        slab.insert_with(value, |value| (meta, &raw mut *value))
    }

    fn address_of<D, M: Copy>(slab: &mut Slab<D, M>, user_data: u64) -> Option<*const D> {
        let mut slot = slab.find(user_data)?;
        // SAFETY: there is no kernel here.
        unsafe { slot.with_value(|value| &raw const *value) }
    }

    fn take<D, M: Copy>(slab: &mut Slab<D, M>, user_data: u64) -> Option<D> {
        slab.find(user_data)?.take()
    }

    struct XorShift(u64);

    impl XorShift {
        fn next(&mut self) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0
        }

        fn below(&mut self, bound: usize) -> usize {
            (self.next() % bound as u64) as usize
        }
    }

    // ---- places -------------------------------------------------------------------------------

    #[test]
    fn a_value_stays_where_it_is_while_the_slab_grows() {
        let mut slab = unlimited::<[u64; 8], u32>(1);
        let count = steps(100_000).max(3 * Slab::<[u64; 8], u32>::CHUNK as usize);
        let placed: Vec<_> =
            (0..count).map(|number| insert(&mut slab, [number as u64; 8], number as u32)).collect();
        assert!(slab.chunks.len() > 2, "grown over several chunks");
        let mut addresses: Vec<_> = placed.iter().map(|(_, _, address)| address.addr()).collect();
        addresses.sort_unstable();
        assert!(addresses.windows(2).all(|pair| pair[1] - pair[0] >= 64), "no two values overlap");
        for (number, (identity, user_data, address)) in placed.iter().enumerate() {
            assert_eq!(identity.slot, number as u32);
            // SAFETY: the value is live, at the address that it was given to the closure at, and no
            // reference to it exists.
            assert_eq!(unsafe { address.read() }, [number as u64; 8]);
            assert_eq!(address_of(&mut slab, *user_data), Some(address.cast_const()));
            assert_eq!(*slab.find(*user_data).unwrap().meta(), number as u32);
        }
        for (number, (_, user_data, _)) in placed.iter().enumerate() {
            assert_eq!(take(&mut slab, *user_data), Some([number as u64; 8]));
        }
        assert_eq!(slab.occupied_slots(), 0);
    }

    #[test]
    fn a_pointer_to_a_live_value_outlives_all_other_work_on_the_slab() {
        let mut slab = unlimited::<[u8; 16], ()>(1);
        let (_, user_data, address) = insert(&mut slab, [0; 16], ());
        let mut others = Vec::new();
        for step in 0..steps(20_000) {
            // SAFETY: as the kernel does: the value is live, and nobody else looks at it now.
            unsafe { address.cast::<u8>().add(step % 16).write(step as u8) };
            others.push(insert(&mut slab, [1; 16], ()).1);
            if step % 3 == 0 {
                take(&mut slab, others.swap_remove(step % others.len())).unwrap();
            }
            slab.for_each(|_, ()| {});
            assert_eq!(slab.find(user_data).unwrap().state(), State::Live);
        }
        let last = steps(20_000) - 1;
        assert_eq!(take(&mut slab, user_data).unwrap()[last % 16], last as u8);
        assert!(others.into_iter().all(|user_data| take(&mut slab, user_data).is_some()));
    }

    #[test]
    fn the_alignment_of_a_value_is_honoured() {
        #[repr(align(128))]
        #[derive(Debug, PartialEq)]
        struct Aligned(u8);

        #[repr(align(4096))]
        struct Page([u8; 4096]);

        let mut slab = unlimited::<Aligned, u8>(1);
        let placed: Vec<_> = (0..200_u8).map(|number| insert(&mut slab, Aligned(number), number)).collect();
        for (number, (_, user_data, address)) in placed.into_iter().enumerate() {
            assert!(address.addr().is_multiple_of(128));
            assert_eq!(*slab.find(user_data).unwrap().meta(), number as u8);
            assert_eq!(take(&mut slab, user_data), Some(Aligned(number as u8)));
        }

        let mut slab = unlimited::<Page, ()>(1);
        let placed: Vec<_> = (0..20).map(|_| insert(&mut slab, Page([7; 4096]), ())).collect();
        for (_, user_data, address) in placed {
            assert!(address.addr().is_multiple_of(4096));
            assert!(take(&mut slab, user_data).unwrap().0 == [7; 4096]);
        }
    }

    #[test]
    fn values_without_a_size_have_slots_too() {
        thread_local!(static DROPS: Cell<usize> = const { Cell::new(0) });
        struct Nothing;
        impl Drop for Nothing {
            fn drop(&mut self) {
                DROPS.set(DROPS.get() + 1);
            }
        }

        let mut slab = unlimited::<Nothing, ()>(1);
        let count = 2 * Slab::<Nothing, ()>::CHUNK as usize + 1;
        let mut user_data: Vec<_> = (0..count).map(|_| insert(&mut slab, Nothing, ()).1).collect();
        user_data.sort_unstable();
        user_data.dedup();
        assert_eq!((user_data.len(), slab.occupied_slots(), DROPS.get()), (count, count, 0));
        for (taken, user_data) in user_data.into_iter().enumerate() {
            assert!(take(&mut slab, user_data).is_some());
            assert_eq!(DROPS.get(), taken + 1);
        }
    }

    #[test]
    fn a_value_larger_than_a_chunk_is_no_trouble() {
        let mut slab = unlimited::<[u8; 100_000], ()>(1);
        assert_eq!(Slab::<[u8; 100_000], ()>::CHUNK, 8);
        let placed: Vec<_> = (0..20).map(|number| insert(&mut slab, [number; 100_000], ()).1).collect();
        for (number, user_data) in placed.into_iter().enumerate() {
            assert!(take(&mut slab, user_data).unwrap().iter().all(|byte| *byte == number as u8));
        }
    }

    #[test]
    fn an_empty_slab_allocates_nothing_and_a_busy_slot_no_more_than_one_chunk() {
        let mut slab = unlimited::<u64, ()>(1);
        assert_eq!(slab.chunks.capacity(), 0);
        for _ in 0..steps(10_000) {
            let (_, user_data, _) = insert(&mut slab, 1, ());
            assert_eq!(take(&mut slab, user_data), Some(1));
        }
        assert_eq!((slab.chunks.len(), slab.fresh), (1, 1), "the slot that was freed is used again");
    }

    // ---- states -------------------------------------------------------------------------------

    #[test]
    fn a_value_is_dropped_by_whoever_takes_it_and_only_then() {
        let (drops, mut slab) = (Drops::default(), unlimited(1));
        let (_, user_data, _) = insert(&mut slab, drops.issue(), ());
        assert_eq!((drops.of(0), slab.occupied_slots()), (0, 1));
        let value = take(&mut slab, user_data).unwrap();
        assert_eq!((drops.of(0), slab.occupied_slots()), (0, 0));
        assert!(slab.find(user_data).is_none(), "taken twice");
        drop(value);
        assert_eq!(drops.of(0), 1);
        drop(slab);
        assert!(drops.all_once());
    }

    #[test]
    fn a_lent_value_comes_back_to_the_same_address() {
        let (drops, mut slab) = (Drops::default(), unlimited(1));
        let (_, user_data, address) = insert(&mut slab, drops.issue(), ());
        for _ in 0..3 {
            let mut slot = slab.find(user_data).unwrap();
            let value = slot.lend().unwrap();
            assert_eq!(slot.state(), State::Lent);
            assert!(slot.lend().is_none(), "lent twice");
            // SAFETY: there is no kernel here.
            assert!(unsafe { slot.with_value(|_| ()) }.is_none(), "seen while it is lent");
            assert_eq!(slab.occupied_slots(), 1);
            slab.find(user_data).unwrap().give_back(value);
            assert_eq!(address_of(&mut slab, user_data), Some(address.cast_const()));
        }
        assert_eq!(drops.of(0), 0);
        drop(take(&mut slab, user_data));
        assert!(drops.all_once());
    }

    #[test]
    fn another_value_may_be_given_back() {
        let (drops, mut slab) = (Drops::default(), unlimited(1));
        let (_, user_data, _) = insert(&mut slab, drops.issue(), ());
        drop(slab.find(user_data).unwrap().lend());
        assert_eq!(drops.of(0), 1);
        slab.find(user_data).unwrap().give_back(drops.issue());
        assert_eq!(take(&mut slab, user_data).unwrap().number, 1);
        assert!(drops.all_once());
    }

    #[test]
    fn a_lent_slot_that_is_taken_has_no_value() {
        let (drops, mut slab) = (Drops::default(), unlimited(1));
        let (_, user_data, _) = insert(&mut slab, drops.issue(), ());
        let value = slab.find(user_data).unwrap().lend().unwrap();
        assert!(take(&mut slab, user_data).is_none());
        assert_eq!((slab.occupied_slots(), drops.of(0)), (0, 0));
        drop(value);
        assert!(drops.all_once());
    }

    #[test]
    fn an_abandoned_slot_stays_until_it_is_taken_without_a_value() {
        let (drops, mut slab) = (Drops::default(), unlimited(1));
        let (identity, user_data, _) = insert(&mut slab, drops.issue(), ());
        let mut slot = slab.find(user_data).unwrap();
        slot.abandon();
        assert_eq!(slot.state(), State::Live, "a value that is here is not abandoned");
        drop(slot.lend());
        slot.abandon();
        assert_eq!(slot.state(), State::Abandoned);
        assert!(slot.lend().is_none());
        // SAFETY: there is no kernel here.
        assert!(unsafe { slot.with_value(|_| ()) }.is_none());
        assert!(slab.find_identity(identity).is_some(), "it is still a request in flight");
        assert_eq!((slab.occupied_slots(), drops.of(0)), (1, 1));
        assert!(take(&mut slab, user_data).is_none());
        assert_eq!(slab.occupied_slots(), 0);
        assert!(drops.all_once());
    }

    #[test]
    fn nothing_is_given_back_to_a_slot_that_did_not_lend() {
        let (drops, mut slab) = (Drops::default(), unlimited(1));
        let (_, user_data, _) = insert(&mut slab, drops.issue(), ());
        let given = catch_unwind(AssertUnwindSafe(|| {
            slab.find(user_data).unwrap().give_back(drops.issue());
        }));
        assert!(given.is_err());
        drop(take(&mut slab, user_data));
        assert!(drops.all_once(), "neither value was lost or doubled");

        let (_, user_data, _) = insert(&mut slab, drops.issue(), ());
        let mut slot = slab.find(user_data).unwrap();
        drop(slot.lend());
        slot.abandon();
        assert!(catch_unwind(AssertUnwindSafe(|| slot.give_back(drops.issue()))).is_err());
        assert!(take(&mut slab, user_data).is_none());
        assert!(drops.all_once());
    }

    #[test]
    fn a_panic_while_the_request_is_built_drops_the_value_once_and_frees_the_slot() {
        let (drops, mut slab) = (Drops::default(), unlimited::<_, u8>(1));
        let (_, other, _) = insert(&mut slab, drops.issue(), 1);
        let before = insert(&mut slab, drops.issue(), 2);
        drop(take(&mut slab, before.1));
        let value = drops.issue();
        slab.reserve().unwrap();
        let built = catch_unwind(AssertUnwindSafe(|| {
            slab.insert_with::<()>(value, |_| panic!("while building"));
        }));
        assert!(built.is_err());
        assert_eq!((drops.of(2), slab.occupied_slots()), (1, 1));
        let mut seen = Vec::new();
        slab.for_each(|user_data, meta| seen.push((user_data, *meta)));
        assert_eq!(seen, [(other, 1)]);

        let (identity, user_data, _) = insert(&mut slab, drops.issue(), 3);
        assert_eq!(identity.slot, before.0.slot, "the slot is used again");
        assert_eq!(identity.generation, before.0.generation + 2, "but not its generation");
        assert!(slab.find(before.1).is_none());
        drop(take(&mut slab, user_data));
        drop(take(&mut slab, other));
        assert!(drops.all_once());
    }

    #[test]
    fn a_slab_that_holds_a_slot_drops_and_frees_nothing() {
        let drops = Drops::default();
        let mut slab = unlimited(1);
        let (_, user_data, address) = insert(&mut slab, drops.issue(), ());
        insert(&mut slab, drops.issue(), ());
        drop(take(&mut slab, user_data));
        let chunks = slab.chunks.clone();
        drop(slab);
        assert_eq!((drops.of(0), drops.of(1)), (1, 0));
        // SAFETY: the chunks were leaked, so the second value is still there, one slot on.
        let second = unsafe { address.byte_add(size_of::<Slot<Counted, ()>>()).read() };
        assert_eq!(second.number, 1);
        drop(second);
        assert!(drops.all_once());
        // What was leaked on purpose is given back, for the sake of those who look for leaks.
        for chunk in chunks {
            // SAFETY: allocated by `grow` with this layout, leaked by the slab, and not used any more.
            unsafe { alloc::dealloc(chunk.as_ptr().cast(), Slab::<Counted, ()>::CHUNK_LAYOUT) };
        }
    }

    #[test]
    fn even_an_abandoned_slot_keeps_the_memory_of_its_slab() {
        let mut slab = unlimited::<u64, ()>(1);
        let (_, user_data, address) = insert(&mut slab, 1, ());
        let mut slot = slab.find(user_data).unwrap();
        slot.lend();
        slot.abandon();
        let chunks = slab.chunks.clone();
        drop(slab);
        // SAFETY: as the kernel might: the chunk was leaked.
        unsafe { address.write(2) };
        for chunk in chunks {
            // SAFETY: allocated by `grow` with this layout, leaked by the slab, and not used any more.
            unsafe { alloc::dealloc(chunk.as_ptr().cast(), Slab::<u64, ()>::CHUNK_LAYOUT) };
        }
    }

    // ---- names --------------------------------------------------------------------------------

    #[test]
    fn an_old_name_never_matches_a_reused_slot() {
        let mut slab = unlimited::<u32, ()>(3);
        let mut old = Vec::new();
        for number in 0..100 {
            let (identity, user_data, _) = insert(&mut slab, number, ());
            assert_eq!(identity, Identity { generation: u64::from(number), slot: 0 });
            for (identity, user_data) in &old {
                assert!(slab.find(*user_data).is_none());
                assert!(slab.find_identity(*identity).is_none());
            }
            assert_eq!(slab.find_identity(identity).unwrap().user_data(), user_data);
            assert_eq!(take(&mut slab, user_data), Some(number));
            assert!(slab.find_identity(identity).is_none(), "free, and not used again yet");
            old.push((identity, user_data));
        }
    }

    #[test]
    fn an_identity_stays_the_only_one_when_user_data_wraps() {
        const WRAP: u64 = 1 << 24;
        let mut slab = unlimited::<u8, ()>(9);
        let (first_identity, first, _) = insert(&mut slab, 0, ());
        take(&mut slab, first).unwrap();
        if cfg!(miri) {
            slab.find_free(0).generation = WRAP - 2;
        }
        let (mut identity, mut user_data) = (first_identity, first);
        while identity.generation < WRAP + 1 {
            (identity, user_data, _) = insert(&mut slab, 1, ());
            if identity.generation == WRAP {
                assert_eq!(user_data, first, "the 24 bits have come round");
                assert_ne!(identity, first_identity);
                assert!(slab.find_identity(first_identity).is_none());
                assert!(slab.find_identity(identity).is_some());
            } else {
                assert!(slab.find(first).is_none());
            }
            assert_eq!(take(&mut slab, user_data), Some(1));
        }
        assert_eq!(user_data, UserData::pack(9, 1, 0));
        assert_eq!(slab.fresh, 1, "all of it went through one slot");
    }

    #[test]
    fn the_last_generation_of_all_is_followed_by_the_first() {
        let mut slab = unlimited::<u8, ()>(1);
        let (_, user_data, _) = insert(&mut slab, 0, ());
        take(&mut slab, user_data).unwrap();
        slab.find_free(0).generation = u64::MAX;
        let (last, user_data, _) = insert(&mut slab, 0, ());
        assert_eq!(last.generation, u64::MAX);
        take(&mut slab, user_data).unwrap();
        let (next, user_data, _) = insert(&mut slab, 0, ());
        assert_eq!(next.generation, 0);
        assert!(slab.find_identity(last).is_none());
        take(&mut slab, user_data).unwrap();
    }

    #[test]
    fn strange_user_data_finds_nothing() {
        let mut slab = unlimited::<u8, ()>(5);
        assert!(slab.find(0).is_none() && slab.find(u64::MAX).is_none(), "not even in an empty slab");
        let used = insert(&mut slab, 0, ()).1;
        let freed = insert(&mut slab, 1, ()).1;
        take(&mut slab, freed).unwrap();
        let strange = [
            0,
            1,
            2,
            u64::MAX,
            freed,
            UserData::pack(4, 0, 0),
            UserData::pack(6, 0, 0),
            UserData::pack(0, 0, 0),
            UserData::pack(5, 1, 0),
            UserData::pack(5, u64::MAX, 0),
            UserData::pack(5, 0, 1),
            UserData::pack(5, 0, 2),
            UserData::pack(5, 0, u32::MAX),
            vacant(0),
            vacant(1),
        ];
        for user_data in strange {
            assert!(slab.find(user_data).is_none(), "{user_data:#x}");
        }
        for bit in 0..64 {
            assert!(slab.find(used ^ 1 << bit).is_none(), "bit {bit} makes a difference");
        }
        for (generation, slot) in [(0, 2), (0, u32::MAX), (1, 0), (u64::MAX, 0), (1, 1), (0, 1)] {
            let found = slab.find_identity(Identity { generation, slot });
            assert!(found.is_none(), "generation {generation} of slot {slot}");
        }
        assert_eq!(take(&mut slab, used), Some(0));
    }

    #[test]
    fn what_a_vacant_slot_is_called_names_no_slot_at_all() {
        let tags = [0, 1, 250, u8::MAX];
        for index in [0, 1, 7, u32::MAX / 2, u32::MAX - 1] {
            for tag in tags {
                for generation in [0, 1, u64::MAX] {
                    assert_ne!(vacant(index), UserData::pack(tag, generation, index));
                }
            }
        }
    }

    // ---- limits -------------------------------------------------------------------------------

    #[test]
    fn a_limit_holds_and_a_slot_that_is_freed_makes_room() {
        let mut slab = unlimited::<u8, ()>(1);
        slab.set_limit(3);
        let placed: Vec<_> = (0..3).map(|number| insert(&mut slab, number, ()).1).collect();
        assert!(slab.reserve().is_err());
        assert!(slab.has_room(0) && !slab.has_room(1));
        take(&mut slab, placed[1]).unwrap();
        assert!(slab.has_room(1) && !slab.has_room(2));
        let (_, again, _) = insert(&mut slab, 9, ());
        assert!(slab.reserve().is_err());
        for user_data in [placed[0], placed[2], again] {
            take(&mut slab, user_data).unwrap();
        }

        slab.set_limit(0);
        assert!(!slab.has_room(1));
        assert!(unlimited::<u8, ()>(1).has_room(1_000_000));
    }

    #[test]
    fn a_slab_that_was_not_told_how_much_it_may_hold_holds_nothing() {
        let mut slab = Slab::<u8, ()>::new(1);
        assert!(!slab.has_room(1) && slab.reserve().is_err());
    }

    #[test]
    fn an_insertion_without_a_reservation_is_refused_and_loses_nothing() {
        let (drops, mut slab) = (Drops::default(), unlimited::<Counted, ()>(1));
        let value = drops.issue();
        let inserted = catch_unwind(AssertUnwindSafe(|| slab.insert_with(value, |_| ((), ())).1)).is_ok();
        assert!(!inserted && drops.all_once());
        assert_eq!(slab.occupied_slots(), 0);
    }

    // ---- all of it ----------------------------------------------------------------------------

    #[derive(Clone, Copy)]
    struct Model {
        identity: Identity,
        address: usize,
        number: usize,
        state: State,
    }

    /// Does the same at random to a slab and to a map, and compares them after each step.
    fn compare_with_a_map(seed: u64, steps: usize, limit: u32) {
        let (drops, mut random) = (Drops::default(), XorShift(seed));
        let mut slab = unlimited::<Counted, usize>(77);
        slab.set_limit(limit);
        let mut model = BTreeMap::<u64, Model>::new();
        let mut lent = BTreeMap::<u64, Counted>::new();
        let mut old = Vec::<(u64, Identity)>::new();
        for _ in 0..steps {
            let key = (!model.is_empty()).then(|| *model.keys().nth(random.below(model.len())).unwrap());
            match (random.below(10), key) {
                (0..4, _) => {
                    assert_eq!(slab.reserve().is_ok(), (model.len() as u32) < limit);
                    if (model.len() as u32) < limit {
                        let value = drops.issue();
                        let number = value.number;
                        let (identity, user_data, address) = insert(&mut slab, value, number);
                        let address = address.addr();
                        let entry = Model { identity, address, number, state: State::Live };
                        assert!(model.insert(user_data, entry).is_none(), "a name was given twice");
                    }
                }
                (4..6, Some(key)) => {
                    let entry = model.remove(&key).unwrap();
                    let taken = take(&mut slab, key);
                    assert_eq!(taken.is_some(), entry.state == State::Live);
                    assert!(taken.is_none_or(|value| value.number == entry.number));
                    if entry.state != State::Abandoned {
                        lent.remove(&key);
                    }
                    assert_eq!(drops.of(entry.number), 1);
                    old.push((key, entry.identity));
                }
                (6..8, Some(key)) => {
                    let entry = model.get_mut(&key).unwrap();
                    let value = slab.find(key).unwrap().lend();
                    assert_eq!(value.is_some(), entry.state == State::Live);
                    if let Some(value) = value {
                        assert_eq!(value.number, entry.number);
                        entry.state = State::Lent;
                        lent.insert(key, value);
                    }
                }
                (8, Some(key)) if lent.contains_key(&key) => {
                    slab.find(key).unwrap().give_back(lent.remove(&key).unwrap());
                    model.get_mut(&key).unwrap().state = State::Live;
                }
                (9, Some(key)) => {
                    let entry = model.get_mut(&key).unwrap();
                    slab.find(key).unwrap().abandon();
                    if entry.state == State::Lent {
                        entry.state = State::Abandoned;
                        lent.remove(&key);
                    }
                }
                _ => {}
            }

            assert_eq!(slab.occupied_slots(), model.len());
            if let Some(key) = key
                && let Some(entry) = model.get(&key)
            {
                let mut slot = slab.find(key).unwrap();
                assert_eq!((slot.state(), *slot.meta()), (entry.state, entry.number));
                assert_eq!(slab.find_identity(entry.identity).unwrap().user_data(), key);
                let address = address_of(&mut slab, key).map(|address| address.addr());
                assert_eq!(address, (entry.state == State::Live).then_some(entry.address));
            }
            if let Some((user_data, identity)) = old.get(random.below(old.len() + 1)) {
                assert!(slab.find(*user_data).is_none());
                assert!(slab.find_identity(*identity).is_none());
            }
        }
        let mut seen = BTreeMap::new();
        slab.for_each(|user_data, meta| assert!(seen.insert(user_data, *meta).is_none()));
        assert!(seen.into_iter().eq(model.iter().map(|(key, entry)| (*key, entry.number))));
        for key in model.into_keys() {
            drop(take(&mut slab, key));
        }
        drop(lent);
        assert!(drops.all_once());
    }

    #[test]
    fn it_behaves_as_a_map_would() {
        compare_with_a_map(0x9e37_79b9_7f4a_7c15, steps(40_000), u32::MAX);
    }

    #[test]
    fn it_behaves_as_a_map_would_that_is_small_and_busy() {
        for seed in 1..=steps(2000).clamp(2, 20) as u64 {
            compare_with_a_map(seed << 32 | 0xb5, steps(4_000), 6);
        }
    }

    impl<D, M: Copy> Slab<D, M> {
        /// The header of a slot that is free.
        fn find_free(&mut self, index: u32) -> &mut Header<D, M> {
            assert!(index < self.fresh && self.header(index).state == State::Free);
            // SAFETY: headers below `fresh` are initialised, and the slab is borrowed exclusively.
            unsafe { &mut (*self.slot(index).as_ptr()).header }
        }
    }
}
