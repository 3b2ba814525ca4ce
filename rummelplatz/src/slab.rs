//! A generational slab whose values never move: where the data of each request lives.
//!
//! # What it promises
//!
//! * A value stays at its address from [`Slab::insert_with`] until it is taken out. Slots live in
//!   chunks that are allocated once and never moved; growing makes slots of the memory that is left, or
//!   adds a chunk.
//! * A slot is in one of four states: *free*; *live* (the value is here, the kernel may be using
//!   it); *lent* (the value is with a handler); *abandoned* (no value, and the kernel is not done).
//!   A live slot is *calm* if what is remembered of its request need not be looked at.
//! * No Rust reference ever covers the value of a live slot, except while the closure of
//!   [`Slab::insert_with`] or [`Occupied::with_value`] runs, and these run only when the kernel does
//!   not have the request. Slots are reached by raw pointers, and the headers are separate places.
//! * Dropping a slab that still holds a slot frees nothing of it: the chunks are leaked. Only an empty slab
//!   frees its memory.
//!
//! It knows nothing of io_uring: `M` is whatever the owner wants to remember about a request.
//!
//! # Names
//!
//! Nearly all requests are *plain*: live from beginning to end, with nothing to be remembered that their
//! completion would have to look at. So a slot has a `name`. If its request is plain, the name is the
//! `user_data` of that request; otherwise it is the complement of a `user_data`: that of its request or,
//! while the slot is free, that of the last one. Then one comparison, in [`Slab::find_plain`], checks tag,
//! generation, slot, state and metadata, and plain requests come and go without a look at the state.
//!
//! A complement is never mistaken for a name: its tag is a different one, and so is the slot that its slot
//! bits name.
//!
//! # How the unsafe code stays right
//!
//! Everything hangs on one invariant: **the value of a slot is initialised exactly when its name is plain or
//! its state is [`State::Live`] or [`State::Calm`]**. When a value leaves, name or state is changed before
//! the value can be used (so that a panic cannot see it twice); when a value arrives, they are changed after
//! it was written.
//!
//! There is one exception, for the sake of the next request in the same slot: [`Plain::take`] leaves the name
//! as it is. Whoever holds the [`Warm`] slot that it returns must make sure that nobody looks at the slab
//! before that slot is vacated and filled, or released.

use std::alloc::{self, Layout};
use std::cell::UnsafeCell;
use std::fmt;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ptr::NonNull;

use crate::user_data::UserData;

#[cfg(test)]
mod tests;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum State {
    /// Zero, so that it is also the state in zeroed memory.
    Free = 0,
    Live,
    /// As Live, when [`Meta::is_calm`].
    Calm,
    Lent,
    Abandoned,
}

/// What the owner of a slab remembers about a request.
pub(crate) trait Meta: Copy {
    /// The part of it that is remembered of a plain one.
    type Brief: Copy;

    /// All that there is to be known of a plain request.
    fn of_plain(brief: Self::Brief) -> Self;

    /// Whether completions of a request that goes on need not look at anything here that may change.
    fn is_calm(&self) -> bool;
}

/// What to remember of a request that is being made.
pub(crate) enum Remember<M: Meta> {
    Plain(M::Brief),
    All(M),
}

/// What makes a request of its value, where that lies: mostly a closure.
pub(crate) trait Build<D, M: Meta, T> {
    fn build(self, value: &mut D) -> (Remember<M>, T);
}

impl<D, M: Meta, T, F: FnOnce(&mut D) -> (Remember<M>, T)> Build<D, M, T> for F {
    #[inline(always)]
    fn build(self, value: &mut D) -> (Remember<M>, T) {
        self(value)
    }
}

/// A slot's own account of itself; never overlaps the value.
#[repr(C)]
struct Header<D, M: Meta> {
    /// See the [module documentation](self). The first thing in a slot, so that a name can be compared
    /// without knowing the type of the slot.
    name: u64,
    /// The state, if the name is not plain; Free if it is.
    state: State,
    /// How often the generation has wrapped.
    rounds: u32,
    kept: Kept<D, M>,
}

/// What a slot keeps beside the value.
union Kept<D, M: Meta> {
    /// While the slot is in the list of free ones.
    next_free: Option<NonNull<Slot<D, M>>>,
    /// While the name is plain.
    brief: M::Brief,
    /// While the name is not plain and the state is not Free.
    meta: M,
}

#[repr(C)]
struct Slot<D, M: Meta> {
    header: Header<D, M>,
    value: UnsafeCell<MaybeUninit<D>>,
}

/// See the [module documentation](self).
pub(crate) struct Slab<D, M: Meta> {
    tag: u8,
    /// [`UserData::STEP`], kept out of sight of the compiler, which would make four instructions of an
    /// addition and a test of its carry.
    step: u64,
    /// [`UserData::STEP_LESS_ONE`], for the same reason.
    step_less_one: u64,
    /// The first of the free slots, which are linked through their headers: the one that was freed
    /// last, whose memory is still warm.
    free: Option<NonNull<Slot<D, M>>>,
    limit: u32,
    /// How many slots were made so far, whatever state they are in. There is memory for more.
    made: u32,
    /// There is at least one.
    chunks: Vec<NonNull<Slot<D, M>>>,
    /// The first chunk: most slabs never need another, and a slot in it is found at once.
    first: NonNull<Slot<D, M>>,
}

// SAFETY: the slab owns its slots through the raw pointers, as a `Vec<Slot>` would; moving it to
// another thread moves the values, hence `D: Send`, and the metadata.
unsafe impl<D: Send, M: Meta<Brief: Send> + Send> Send for Slab<D, M> {}

/// The slab holds as many requests as it was allowed to.
#[derive(Debug)]
pub(crate) struct Full;

/// What identifies a request for ever: never used twice by one slab.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Identity {
    pub(crate) user_data: u64,
    rounds: u32,
}

impl<D, M: Meta> Slab<D, M> {
    /// Aims at chunks of 64 KiB: so large that the first is enough for hundreds of requests. Memory is not touched
    /// before slots are made of it.
    const CHUNK: u32 = {
        let slots = 64 * 1024 / size_of::<Slot<D, M>>();
        let slots = if slots < 8 { 8 } else { slots };
        // A power of two, so that finding the chunk is a shift.
        1 << slots.ilog2()
    };
    const CHUNK_SHIFT: u32 = Self::CHUNK.trailing_zeros();
    /// How many slots are made at a time.
    const BATCH: u32 = if Self::CHUNK < 64 { Self::CHUNK } else { 64 };
    const CHUNK_LAYOUT: Layout = match Layout::array::<Slot<D, M>>(Self::CHUNK as usize) {
        Ok(layout) => layout,
        Err(_) => panic!("`RingData` is larger than an address space: put it behind a pointer"),
    };

    /// An empty slab whose requests carry `tag`. It has no room before [`set_limit`](Self::set_limit).
    // A ring has many slabs, and makes all of them in one function.
    #[inline(never)]
    pub(crate) fn new(tag: u8) -> Self {
        let first = Self::chunk();
        Slab {
            tag,
            step: UserData::STEP,
            step_less_one: UserData::STEP_LESS_ONE,
            free: None,
            limit: 0,
            made: 0,
            chunks: vec![first],
            first,
        }
    }

    /// The tag that the requests carry.
    pub(crate) fn tag(&self) -> u8 {
        self.tag
    }

    /// Bounds the number of slots, before the first is used.
    pub(crate) fn set_limit(&mut self, limit: u32) {
        self.limit = limit.min(UserData::SLOTS);
    }

    /// How many slots there are, from 0 on, whether free or not.
    pub(crate) fn made(&self) -> u32 {
        self.made
    }

    /// How many slots are not free. They are counted at each call.
    pub(crate) fn occupied_slots(&self) -> usize {
        let mut count = 0;
        self.for_each(|_, _| count += 1);
        count
    }

    /// Whether the next [`insert_with`](Self::insert_with) finds a slot.
    #[inline]
    fn has_free(&self) -> bool {
        self.free.is_some()
    }

    /// Makes sure that the next [`insert_with`](Self::insert_with) finds a slot.
    #[inline]
    pub(crate) fn reserve(&mut self) -> Result<(), Full> {
        if self.has_free() { Ok(()) } else { self.grow() }
    }

    /// Whether `count` more slots may be occupied.
    pub(crate) fn has_room(&self, count: usize) -> bool {
        let mut room = self.limit.saturating_sub(self.made) as usize;
        let mut free = self.free;
        while let Some(slot) = free
            && room < count
        {
            room += 1;
            // SAFETY: all headers of a chunk are initialised, and are only changed through `&mut self`; the
            // slot is in the list of free ones, so `next_free` is what it keeps.
            free = unsafe { (*slot.as_ptr()).header.kept.next_free };
        }
        room >= count
    }

    /// Makes some more slots, which are free.
    #[cold]
    #[inline(never)]
    fn grow(&mut self) -> Result<(), Full> {
        if self.made >= self.limit {
            return Err(Full);
        }
        let (chunk, offset) = ((self.made >> Self::CHUNK_SHIFT) as usize, self.made & (Self::CHUNK - 1));
        if chunk == self.chunks.len() {
            self.chunks.push(Self::chunk());
        }
        let chunk = self.chunks[chunk];
        let count = Self::BATCH.min(Self::CHUNK - offset).min(self.limit - self.made);
        // Backwards, so that the first slot is the first to be used.
        for number in (0..count).rev() {
            let name = !UserData::pack(self.tag, 0, self.made + number);
            let header = Header { name, state: State::Free, rounds: 0, kept: Kept { next_free: None } };
            // SAFETY: the sum is below the number of slots that the chunk has.
            let slot = unsafe { chunk.add((offset + number) as usize) };
            // SAFETY: the header is memory of the chunk, and the slab is borrowed exclusively.
            unsafe { (&raw mut (*slot.as_ptr()).header).write(header) };
            self.link(slot);
        }
        self.made += count;
        Ok(())
    }

    /// Memory for slots. Zeroed as it is, it reads as a row of slots that hold no request, because no request
    /// has the name 0.
    fn chunk() -> NonNull<Slot<D, M>> {
        // SAFETY: the layout's size is not zero, because a header's is not.
        let chunk = unsafe { alloc::alloc_zeroed(Self::CHUNK_LAYOUT) };
        match NonNull::new(chunk.cast::<Slot<D, M>>()) {
            Some(chunk) => chunk,
            None => alloc::handle_alloc_error(Self::CHUNK_LAYOUT),
        }
    }

    /// The place of the slot that a `user_data` names, if that is in the first chunk; otherwise, of some
    /// other slot in it. There is no check: callers compare names anyway.
    #[inline(always)]
    fn in_first(&self, user_data: u64) -> NonNull<Slot<D, M>> {
        let offset = UserData::slot(user_data) & (Self::CHUNK - 1);
        // SAFETY: the offset is below the number of slots that the chunk has.
        unsafe { self.first.add(offset as usize) }
    }

    /// The place of a slot that was made.
    fn slot(&self, index: u32) -> Option<NonNull<Slot<D, M>>> {
        if index >= self.made {
            return None;
        }
        let chunk = match index < Self::CHUNK {
            true => self.first,
            false => *self.chunks.get((index >> Self::CHUNK_SHIFT) as usize)?,
        };
        // SAFETY: the offset is below `CHUNK`, so it stays inside the allocation.
        Some(unsafe { chunk.add((index & (Self::CHUNK - 1)) as usize) })
    }

    /// The place of the slot that has this name; `user_data` is that of its request.
    #[inline(always)]
    fn named(&self, name: u64, user_data: u64) -> Option<NonNull<Slot<D, M>>> {
        let slot = self.in_first(user_data);
        if Self::name(slot) == name {
            return Some(slot);
        }
        self.named_beyond(name, user_data)
    }

    #[cold]
    #[inline(never)]
    fn named_beyond(&self, name: u64, user_data: u64) -> Option<NonNull<Slot<D, M>>> {
        if UserData::slot(user_data) < Self::CHUNK {
            return None;
        }
        self.slot(UserData::slot(user_data)).filter(|slot| Self::name(*slot) == name)
    }

    /// The name of a slot.
    #[inline(always)]
    fn name(slot: NonNull<Slot<D, M>>) -> u64 {
        // SAFETY: all headers of a chunk are initialised, and are only changed through `&mut self`.
        unsafe { (*slot.as_ptr()).header.name }
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
        build: impl FnOnce(&mut D) -> (Remember<M>, T),
    ) -> (Identity, T) {
        let Some(vacancy) = self.vacancy() else {
            panic!("reserve() comes before insert_with()");
        };
        // SAFETY: the vacancy was just taken from this slab.
        unsafe { self.fill(vacancy, value, build) }
    }

    /// Takes a free slot out of the list.
    #[inline(always)]
    pub(crate) fn vacancy(&mut self) -> Option<Vacancy> {
        let free = self.free?;
        // SAFETY: all headers of a chunk are initialised, do not overlap a value, and the slab is borrowed
        // exclusively.
        let header = unsafe { &mut (*free.as_ptr()).header };
        // SAFETY: it is in the list of free ones, so `next_free` is what it keeps.
        self.free = unsafe { header.kept.next_free };
        let (user_data, comes_round) = UserData::step_from_complement(header.name, self.step_less_one);
        if comes_round {
            header.count_round();
        }
        Some(Vacancy { slot: free.cast(), user_data })
    }

    /// Turns a slot whose value was taken into a vacancy, to be filled at once. `None` if there is no slot.
    ///
    /// # Safety
    ///
    /// The slot is of this slab, or [none](Warm::NONE).
    #[inline(always)]
    pub(crate) unsafe fn vacate(&mut self, warm: Warm) -> Option<Vacancy> {
        // SAFETY: `warm` points to a name that is initialised and that nobody writes to now: that of a slot,
        // which begins with its header, or `NO_NAME`.
        let name = unsafe { warm.slot.cast::<u64>().read() };
        let (user_data, comes_round) = UserData::step(name, self.step);
        // The name of no slot comes round as well, so usually this is the only question.
        if comes_round {
            if warm.is_none() {
                return None;
            }
            let slot = warm.slot.cast::<Slot<D, M>>();
            // SAFETY: all headers of a chunk are initialised and do not overlap a value, and the slab is
            // borrowed exclusively; the caller promises that the slot is of this slab.
            unsafe { &mut (*slot.as_ptr()).header }.count_round();
        }
        Some(Vacancy { slot: warm.slot, user_data })
    }

    /// As [`insert_with`](Self::insert_with), into a slot that is known to be free.
    ///
    /// # Safety
    ///
    /// The vacancy is of this slab.
    #[inline(always)]
    pub(crate) unsafe fn fill<T>(
        &mut self,
        vacancy: Vacancy,
        value: D,
        build: impl Build<D, M, T>,
    ) -> (Identity, T) {
        /// Gives the slot back if `build` unwinds, and drops the value.
        struct Undo<'s, D, M: Meta>(&'s mut Slab<D, M>, NonNull<()>, u64);
        impl<D, M: Meta> Drop for Undo<'_, D, M> {
            #[inline(always)]
            fn drop(&mut self) {
                let Undo(slab, slot, user_data) = self;
                // SAFETY: the vacancy is of this slab, as the caller of `fill` promises. The value was
                // written, and this runs at most once.
                unsafe { slab.undo(Vacancy { slot: *slot, user_data: *user_data }) };
            }
        }

        let Vacancy { slot: free, user_data } = vacancy;
        let slot = free.cast::<Slot<D, M>>().as_ptr();
        // SAFETY: a slot that is free has no value, and nobody else refers to its place.
        let place = unsafe { (*slot).value.get() }.cast::<D>();
        // SAFETY: the place is that of a free slot, so nobody else refers to it. Writing drops nothing, and
        // there is no value in it that would have to be dropped.
        unsafe { place.write(value) };
        let undo = Undo(self, free, user_data);
        // SAFETY: the value was written above; the request does not exist yet, so nobody else can
        // reach the value while `build` runs.
        let (meta, built) = build.build(unsafe { &mut *place });
        std::mem::forget(undo);

        // SAFETY: the header is initialised and does not overlap the value; the slab is borrowed
        // exclusively.
        let header = unsafe { &mut (*slot).header };
        match meta {
            Remember::Plain(brief) => {
                header.kept.brief = brief;
                header.name = user_data;
            }
            Remember::All(meta) => {
                header.kept.meta = meta;
                header.state = if meta.is_calm() { State::Calm } else { State::Live };
                header.name = !user_data;
            }
        }
        (Identity { user_data, rounds: header.rounds }, built)
    }

    /// Gives back a slot that has a value.
    ///
    /// # Safety
    ///
    /// The vacancy is of this slab, and the value is initialised.
    #[cold]
    #[inline(never)]
    unsafe fn undo(&mut self, vacancy: Vacancy) {
        let Vacancy { slot, user_data } = vacancy;
        let slot = slot.cast::<Slot<D, M>>();
        // SAFETY: all headers of a chunk are initialised and do not overlap a value, and the slab is borrowed
        // exclusively; the caller promises that the vacancy is of this slab.
        unsafe { (*slot.as_ptr()).header.name = !user_data };
        self.link(slot);
        // SAFETY: the value is initialised, as the caller promises; as far as the header says the slot is
        // free, so nobody drops the value again.
        unsafe { (*slot.as_ptr()).value.get().cast::<D>().drop_in_place() };
    }

    /// Puts a free slot, which is in no list, where the next insertion finds it.
    #[inline(always)]
    fn link(&mut self, slot: NonNull<Slot<D, M>>) {
        // SAFETY: all headers of a chunk are initialised, do not overlap a value, and the slab is borrowed
        // exclusively.
        unsafe { (*slot.as_ptr()).header.kept.next_free = self.free };
        self.free = Some(slot);
    }

    /// Gives back a slot whose value was taken, and that was not filled again.
    ///
    /// # Safety
    ///
    /// The slot is of this slab, and not [none](Warm::NONE).
    #[inline(always)]
    pub(crate) unsafe fn release(&mut self, warm: Warm) {
        let slot = warm.slot.cast::<Slot<D, M>>();
        // SAFETY: all headers of a chunk are initialised and do not overlap a value, and the slab is borrowed
        // exclusively; the caller promises that the slot is of this slab.
        let header = unsafe { &mut (*slot.as_ptr()).header };
        // It is still that of the plain request. The state of such a slot is Free already.
        header.name = !header.name;
        self.link(slot);
    }

    /// Builds the list of free slots anew, in ascending order.
    pub(crate) fn tidy(&mut self) {
        self.free = None;
        for index in (0..self.made).rev() {
            if let Some(slot) = self.slot(index) {
                // SAFETY: all headers of a chunk are initialised and do not overlap a value, and the slab is
                // borrowed exclusively.
                let header = unsafe { &(*slot.as_ptr()).header };
                if header.is_free(index) {
                    self.link(slot);
                }
            }
        }
    }

    /// The slot of the plain request with this `user_data`, if there is one.
    ///
    /// # Safety
    ///
    /// The `user_data` is not 0, which is the name in memory that no slot was made of yet.
    #[inline(always)]
    pub(crate) unsafe fn find_plain(&mut self, user_data: u64) -> Option<Plain<'_, D, M>> {
        let slot = self.named(user_data, user_data)?;
        Some(Plain { slab: PhantomData, slot })
    }

    /// The slot of the calm request with this `user_data`, if there is one.
    #[inline(always)]
    pub(crate) fn find_calm(&mut self, user_data: u64) -> Option<Calm<'_, D, M>> {
        let slot = self.named(!user_data, user_data)?;
        // SAFETY: all headers of a chunk are initialised, they do not overlap a value, and the slab is
        // borrowed exclusively.
        let is_calm = unsafe { (*slot.as_ptr()).header.state } == State::Calm;
        is_calm.then_some(Calm { slab: PhantomData, slot })
    }

    /// The slot of the request with this `user_data`, if there is one.
    #[inline]
    pub(crate) fn find(&mut self, user_data: u64) -> Option<Occupied<'_, D, M>> {
        let slot = self.slot(UserData::slot(user_data))?;
        // SAFETY: all headers of a chunk are initialised, and are only changed through `&mut self`.
        let Header { name, state, .. } = unsafe { &(*slot.as_ptr()).header };
        // A free slot has the complement of its last request's `user_data`.
        let is_there = *name == user_data || *name == !user_data && *state != State::Free;
        is_there.then_some(Occupied { slab: self, slot, user_data })
    }

    /// The slot with this index, if it is not free.
    #[inline]
    pub(crate) fn at(&mut self, index: u32) -> Option<Occupied<'_, D, M>> {
        let slot = self.slot(index)?;
        // SAFETY: all headers of a chunk are initialised, and are only changed through `&mut self`.
        let header = unsafe { &(*slot.as_ptr()).header };
        let user_data = if header.is_plain(index) { header.name } else { !header.name };
        (!header.is_free(index)).then_some(Occupied { slab: self, slot, user_data })
    }

    /// Takes a lent value back, at the same address. Returns whether the request is calm: then nothing else
    /// is to be done.
    ///
    /// # Safety
    ///
    /// The value was lent by this slab, and the slot is still lent.
    #[inline(always)]
    pub(crate) unsafe fn take_back(&mut self, lent: &Lent, value: D) -> bool {
        let slot = lent.slot.cast::<Slot<D, M>>().as_ptr();
        // SAFETY: chunks don't move, so the slot is where it was; the header is initialised, does not
        // overlap the value, and the slab is borrowed exclusively.
        let header = unsafe { &mut (*slot).header };
        // SAFETY: the slot is lent, so the place holds no value that would be overwritten.
        unsafe { (*slot).value.get().cast::<D>().write(value) };
        // SAFETY: the slot is lent, so its name is not plain and its state not Free: `meta` is what it keeps.
        let is_calm = unsafe { header.kept.meta }.is_calm();
        header.state = if is_calm { State::Calm } else { State::Live };
        is_calm
    }

    /// The slot of a lent value, or of one that was taken back.
    ///
    /// # Safety
    ///
    /// The value was lent by this slab, and the slot was not freed since.
    pub(crate) unsafe fn find_lent(&mut self, lent: Lent) -> Occupied<'_, D, M> {
        let slot = lent.slot.cast::<Slot<D, M>>();
        // SAFETY: chunks don't move, so the slot is where it was; all headers of a chunk are initialised and
        // do not overlap a value, and the slab is borrowed exclusively.
        let name = unsafe { (*slot.as_ptr()).header.name };
        Occupied { slab: self, slot, user_data: !name }
    }

    /// The slot of the request with this identity, if it is still there.
    pub(crate) fn find_identity(&mut self, identity: Identity) -> Option<Occupied<'_, D, M>> {
        let mut occupied = self.find(identity.user_data)?;
        (occupied.header().rounds == identity.rounds).then_some(occupied)
    }

    /// The `user_data` and metadata of the request in the slot with this index, if that is not free.
    pub(crate) fn look_at(&self, index: u32) -> Option<(u64, M)> {
        let slot = self.slot(index)?;
        // SAFETY: all headers of a chunk are initialised, are only changed through `&mut self`, and
        // do not overlap a value.
        let header = unsafe { &(*slot.as_ptr()).header };
        if header.is_free(index) {
            return None;
        }
        Some(match header.is_plain(index) {
            // SAFETY: the name is plain, so `brief` is what the header keeps.
            true => (header.name, M::of_plain(unsafe { header.kept.brief })),
            // SAFETY: the name is not plain and the state not Free, so `meta` is what the header keeps.
            false => (!header.name, unsafe { header.kept.meta }),
        })
    }

    /// Calls `visit` with the `user_data` and metadata of each occupied slot.
    pub(crate) fn for_each(&self, mut visit: impl FnMut(u64, &M)) {
        for (user_data, meta) in (0..self.made).filter_map(|index| self.look_at(index)) {
            visit(user_data, &meta);
        }
    }

    /// Makes all present requests neither plain nor calm: see [`Occupied::demote`].
    pub(crate) fn demote_all(&mut self) {
        for index in 0..self.made {
            if let Some(mut slot) = self.at(index) {
                slot.demote();
            }
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (tag, slot) = (UserData::tag(self.user_data), UserData::slot(self.user_data));
        let generation = u64::from(self.rounds) << 24 | UserData::generation(self.user_data);
        write!(f, "tag {tag}, slot {slot}, generation {generation}")
    }
}

impl<D, M: Meta> Header<D, M> {
    /// Whether the slot with this index has a plain request.
    fn is_plain(&self, index: u32) -> bool {
        UserData::slot(self.name) == index
    }

    /// Whether the slot with this index is free.
    fn is_free(&self, index: u32) -> bool {
        !self.is_plain(index) && self.state == State::Free
    }

    #[cold]
    fn count_round(&mut self) {
        self.rounds = self.rounds.wrapping_add(1);
    }
}

impl<D, M: Meta> Drop for Slab<D, M> {
    // A ring has many slabs, and drops all of them in one function.
    #[inline(never)]
    fn drop(&mut self) {
        if self.occupied_slots() > 0 {
            // Somebody may still write to a slot: the chunks are leaked.
            return;
        }
        for chunk in self.chunks.drain(..) {
            // SAFETY: allocated in `chunk` with this layout, freed once, and no slot is occupied, so
            // no value in it is initialised.
            unsafe { alloc::dealloc(chunk.as_ptr().cast(), Self::CHUNK_LAYOUT) };
        }
    }
}

/// The slot of a plain request whose value was taken, which is to be [vacated](Slab::vacate); or no slot.
#[must_use]
pub(crate) struct Warm {
    slot: NonNull<()>,
}

/// Takes the place of a name where there is no slot: no request has this tag, and a step from here comes
/// round.
static NO_NAME: u64 = u64::MAX;
const NO_SLOT: NonNull<()> = match NonNull::new((&raw const NO_NAME).cast_mut()) {
    Some(name) => name.cast(),
    None => panic!("a static has an address"),
};

impl Warm {
    /// No slot. This is not an `Option`, so that [`Slab::vacate`] need not ask which it is.
    pub(crate) const NONE: Warm = Warm { slot: NO_SLOT };

    #[inline(always)]
    pub(crate) fn is_none(&self) -> bool {
        self.slot == Warm::NONE.slot
    }

    /// Leaves none.
    #[inline(always)]
    pub(crate) fn take(&mut self) -> Warm {
        std::mem::replace(self, Warm::NONE)
    }
}

// SAFETY: it only says where a slot is; whoever uses the slot in another thread answers for that.
unsafe impl Send for Warm {}

/// A slot without a value that is in no list, to be filled.
#[must_use]
pub(crate) struct Vacancy {
    slot: NonNull<()>,
    /// Of the next request.
    user_data: u64,
}

impl Vacancy {
    /// The `user_data` of the next request.
    #[inline(always)]
    pub(crate) fn user_data(&self) -> u64 {
        self.user_data
    }
}

// SAFETY: it only says where a slot is; whoever uses the slot in another thread answers for that.
unsafe impl Send for Vacancy {}

/// A slot whose value is with a handler.
#[must_use]
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Lent {
    slot: NonNull<()>,
}

// SAFETY: it only says where a slot is; whoever uses the slot in another thread answers for that.
unsafe impl Send for Lent {}

impl Lent {
    /// The `user_data` of its request, or of a later one in its slot.
    ///
    /// # Safety
    ///
    /// The slab that has lent the value is there, and nobody writes to it now.
    pub(crate) unsafe fn user_data(&self) -> u64 {
        // SAFETY: a slot begins with its name, which is initialised. Chunks don't move; the caller promises
        // that they are still there, and that nobody writes to them.
        !unsafe { self.slot.cast::<u64>().read() }
    }
}

/// The slot of a plain request.
pub(crate) struct Plain<'s, D, M: Meta> {
    slab: PhantomData<&'s mut Slab<D, M>>,
    slot: NonNull<Slot<D, M>>,
}

impl<D, M: Meta> Plain<'_, D, M> {
    /// Returns the value, and the slot, which counts as that of the request until it is filled or released.
    ///
    /// # Safety
    ///
    /// The slot is filled or released, whatever happens; until then, nothing is done with the slab except
    /// taking other vacancies.
    #[inline(always)]
    pub(crate) unsafe fn take(self) -> (D, Warm) {
        // SAFETY: the name is plain, so the value is initialised. It is not any more after this, and nobody
        // reads it again before the slot is filled or released, as the caller promises. The state of a plain
        // slot is Free already.
        let value = unsafe { (*self.slot.as_ptr()).value.get().cast::<D>().read() };
        (value, Warm { slot: self.slot.cast() })
    }
}

/// The slot of a calm request, with its value.
pub(crate) struct Calm<'s, D, M: Meta> {
    slab: PhantomData<&'s mut Slab<D, M>>,
    slot: NonNull<Slot<D, M>>,
}

impl<D, M: Meta> Calm<'_, D, M> {
    /// Moves the value out to a handler; the slot stays occupied. Also returns what is remembered of the
    /// request.
    #[inline(always)]
    pub(crate) fn lend(self) -> (D, M, Lent) {
        let slot = self.slot.as_ptr();
        // SAFETY: the header is initialised, does not overlap the value, and the slab is borrowed
        // exclusively.
        let header = unsafe { &mut (*slot).header };
        header.state = State::Lent;
        // SAFETY: the name is not plain, and the state was not Free, so `meta` is what the header keeps.
        let meta = unsafe { header.kept.meta };
        // SAFETY: the state was Calm, so the value is initialised; it is Lent now, so nobody reads the
        // value again.
        let value = unsafe { (*slot).value.get().cast::<D>().read() };
        (value, meta, Lent { slot: self.slot.cast() })
    }
}

/// A slot that is not free, found once and then used without another look-up.
pub(crate) struct Occupied<'s, D, M: Meta> {
    slab: &'s mut Slab<D, M>,
    slot: NonNull<Slot<D, M>>,
    user_data: u64,
}

impl<D, M: Meta> Occupied<'_, D, M> {
    #[inline]
    fn header(&mut self) -> &mut Header<D, M> {
        // SAFETY: all headers of a chunk are initialised, they do not overlap a value, and the slab is
        // borrowed exclusively.
        unsafe { &mut (*self.slot.as_ptr()).header }
    }

    /// The state of the slot: never [`State::Free`], and [`State::Live`] for a calm one, too.
    #[inline]
    pub(crate) fn state(&mut self) -> State {
        let user_data = self.user_data;
        let header = self.header();
        match header.state {
            _ if header.name == user_data => State::Live,
            State::Calm => State::Live,
            state => state,
        }
    }

    /// Puts the slot into this state, neither plain nor calm.
    fn set_state(&mut self, state: State) {
        self.demote();
        self.header().state = state;
    }

    /// The `user_data` of the request.
    #[inline]
    pub(crate) fn user_data(&self) -> u64 {
        self.user_data
    }

    /// What the owner remembers about the request.
    pub(crate) fn peek(&mut self) -> M {
        let user_data = self.user_data;
        let header = self.header();
        match header.name == user_data {
            // SAFETY: the name is plain, so `brief` is what the header keeps.
            true => M::of_plain(unsafe { header.kept.brief }),
            // SAFETY: the slot is not free and its name not plain, so `meta` is what the header keeps.
            false => unsafe { header.kept.meta },
        }
    }

    /// Makes the request neither plain nor calm, so that its completions look at what is remembered of it.
    /// That may be changed from here on.
    pub(crate) fn demote(&mut self) -> &mut M {
        let user_data = self.user_data;
        let header = self.header();
        if header.name == user_data {
            // SAFETY: the name is plain, so `brief` is what the header keeps.
            header.kept.meta = M::of_plain(unsafe { header.kept.brief });
            header.state = State::Live;
            header.name = !user_data;
        } else if header.state == State::Calm {
            header.state = State::Live;
        }
        // SAFETY: the slot is not free and, by now, its name is not plain: `meta` is what the header keeps.
        unsafe { &mut header.kept.meta }
    }

    /// Makes the request calm, if its value is here, and what is remembered of it need not be looked at.
    pub(crate) fn calm(mut self) {
        if self.state() == State::Live && self.demote().is_calm() {
            self.header().state = State::Calm;
        }
    }

    /// Makes the request plain, if its value is here: from here on, nothing else is remembered of it.
    pub(crate) fn promote(mut self, brief: M::Brief) {
        let (state, user_data) = (self.state(), self.user_data);
        if state == State::Live {
            let header = self.header();
            header.kept.brief = brief;
            header.state = State::Free;
            header.name = user_data;
        }
    }

    /// Frees the slot and returns its value, if it was here.
    #[inline]
    pub(crate) fn take(mut self) -> Option<D> {
        let (state, user_data) = (self.state(), self.user_data);
        let header = self.header();
        header.state = State::Free;
        header.name = !user_data;
        self.slab.link(self.slot);
        // SAFETY: it is read only if the state was Live, so the value is initialised; the state is Free now,
        // so nobody reads the value again.
        (state == State::Live).then(|| unsafe { (*self.slot.as_ptr()).value.get().cast::<D>().read() })
    }

    /// Moves the value out to a handler; the slot stays occupied.
    #[inline]
    pub(crate) fn lend(&mut self) -> Option<(D, Lent)> {
        if self.state() != State::Live {
            return None;
        }
        self.set_state(State::Lent);
        // SAFETY: the state was Live, so the value is initialised; it is Lent now, so nobody reads
        // the value again.
        let value = unsafe { (*self.slot.as_ptr()).value.get().cast::<D>().read() };
        Some((value, Lent { slot: self.slot.cast() }))
    }

    /// Gives up on a lent value: the slot stays until the kernel is done.
    #[inline]
    pub(crate) fn abandon(&mut self) {
        if self.state() == State::Lent {
            self.set_state(State::Abandoned);
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
}
