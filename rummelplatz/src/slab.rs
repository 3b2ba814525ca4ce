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
//! * Dropping a slab that still holds a slot frees nothing of it: the chunks are leaked. Freeing
//!   memory is earned by an empty slab.
//!
//! It knows nothing of io_uring: `M` is whatever the owner wants to remember about a request.
//!
//! # Names
//!
//! Nearly all requests are *plain*: live from beginning to end, with nothing to be remembered that
//! their completion would have to look at. So a slot has a `name`, which is the `user_data` of its
//! request if that is plain, and the complement of a `user_data` otherwise: of its request, or, while
//! the slot is free, of the next one. Then one comparison, in [`Slab::find_plain`], checks tag,
//! generation, slot, state and metadata; and plain requests come and go without a look at the state.
//!
//! A complement is never taken for a name: its tag is another, and its slot bits are those of another slot.
//!
//! # How the unsafe code stays right
//!
//! Everything hangs on one invariant: **the value of a slot is initialised exactly when its name is
//! plain or its state is [`State::Live`] or [`State::Calm`]**. When a value leaves, this is changed
//! before it can be used (so that a panic cannot see it twice), and when one arrives, after it was
//! written.
//!
//! There is one exception, for the sake of the next request in the same slot: [`Plain::take`] leaves
//! the name as it is. Whoever has the [`Warm`] slot that it returns answers for it that nobody looks at
//! the slab before that is vacated, and filled or released.

use std::alloc::{self, Layout};
use std::cell::UnsafeCell;
use std::fmt;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ptr::NonNull;

use crate::user_data::UserData;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum State {
    /// In memory that is zero, too.
    Free = 0,
    Live,
    /// As Live; and [`Meta::is_calm`].
    Calm,
    Lent,
    Abandoned,
}

/// What the owner of a slab remembers about a request.
pub(crate) trait Meta: Copy {
    /// As much of it as is remembered of a plain one.
    type Brief: Copy;

    /// All that there is to be known of a plain request.
    fn of_plain(brief: Self::Brief) -> Self;

    /// Whether completions of a request that goes on need not look at what may change here.
    fn is_calm(&self) -> bool;
}

/// What to remember of a request that is being made.
pub(crate) enum Remember<M: Meta> {
    Plain(M::Brief),
    All(M),
}

/// A slot's own account of itself; never overlaps the value.
#[repr(C)]
struct Header<D, M: Meta> {
    /// See the [module documentation](self). The first thing in a slot, so that one can be compared whatever it
    /// is the slot of.
    name: u64,
    /// Of a slot whose name is not plain; Free if it is.
    state: State,
    /// How often the generation has come round.
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
    /// [`UserData::STEP`]. Out of sight of the compiler, which would make four instructions of an addition
    /// and a question for its carry.
    step: u64,
    /// The first of the free slots, which are linked through their headers: the one that was freed
    /// last, whose memory is still warm.
    free: Option<NonNull<Slot<D, M>>>,
    limit: u32,
    /// How many slots were made so far, whatever state they are in. There is memory for more.
    made: u32,
    /// There is one at least.
    chunks: Vec<NonNull<Slot<D, M>>>,
    /// The first chunk: most slabs never need another, and here is it found at once.
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
    /// So many slots are made at a time.
    const BATCH: u32 = if Self::CHUNK < 64 { Self::CHUNK } else { 64 };
    const CHUNK_LAYOUT: Layout = match Layout::array::<Slot<D, M>>(Self::CHUNK as usize) {
        Ok(layout) => layout,
        Err(_) => panic!("`RingData` is larger than an address space: put it behind a pointer"),
    };

    /// An empty slab whose requests carry `tag`. It has no room before [`set_limit`](Self::set_limit).
    // A ring has many, and makes all of them in one function.
    #[inline(never)]
    pub(crate) fn new(tag: u8) -> Self {
        let first = Self::chunk();
        Slab { tag, step: UserData::STEP, free: None, limit: 0, made: 0, chunks: vec![first], first }
    }

    /// The tag that the requests carry.
    pub(crate) fn tag(&self) -> u8 {
        self.tag
    }

    /// Bounds the number of slots, before the first is used.
    pub(crate) fn set_limit(&mut self, limit: u32) {
        self.limit = limit.min(UserData::SLOTS);
    }

    /// How many slots are not free: counts them.
    pub(crate) fn occupied_slots(&self) -> usize {
        let mut count = 0;
        self.for_each(|_, _| count += 1);
        count
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
        let mut room = self.limit.saturating_sub(self.made) as usize;
        let mut free = self.free;
        while let Some(slot) = free
            && room < count
        {
            room += 1;
            // SAFETY: all headers of a chunk are initialised, and are only changed through `&mut self`; the slot is
            // in the list.
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
        // Backwards, so that the first is the first to be used.
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

    /// Memory for slots. As it is, it is a row of slots which nobody has, because no request has the name 0.
    fn chunk() -> NonNull<Slot<D, M>> {
        // SAFETY: the layout's size is not zero, because a header's is not.
        let chunk = unsafe { alloc::alloc_zeroed(Self::CHUNK_LAYOUT) };
        match NonNull::new(chunk.cast::<Slot<D, M>>()) {
            Some(chunk) => chunk,
            None => alloc::handle_alloc_error(Self::CHUNK_LAYOUT),
        }
    }

    /// The place of the slot that a `user_data` names, if that is in the first chunk, or of some other that is.
    /// There is no question in it: who asks compares names anyway.
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

    /// The place of the slot with this name, which a request with this `user_data` gives it.
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
        // SAFETY: it is of this slab.
        unsafe { self.fill(vacancy, value, build) }
    }

    /// A free slot, out of the list.
    #[inline(always)]
    pub(crate) fn vacancy(&mut self) -> Option<Vacancy> {
        let free = self.free?;
        // SAFETY: all headers of a chunk are initialised, do not overlap a value, and the slab is borrowed
        // exclusively.
        let header = unsafe { &(*free.as_ptr()).header };
        // SAFETY: it is in the list.
        self.free = unsafe { header.kept.next_free };
        Some(Vacancy { slot: free.cast(), user_data: !header.name })
    }

    /// Makes a vacancy of a slot whose value was taken, if it is one, to be filled or released at once.
    ///
    /// # Safety
    ///
    /// The slot is of this slab, or [none](Warm::NONE).
    #[inline(always)]
    pub(crate) unsafe fn vacate(&mut self, warm: Warm) -> Option<Vacancy> {
        // SAFETY: what `warm` points to begins with a name that is initialised, which nobody writes to now: a slot with
        // its header, and `NO_NAME` is nothing else.
        let name = unsafe { warm.slot.cast::<u64>().read() };
        let (user_data, comes_round) = UserData::step(name, self.step);
        // That of no slot does, too, so that this is the only question.
        if comes_round {
            if warm.is_none() {
                return None;
            }
            let slot = warm.slot.cast::<Slot<D, M>>();
            // SAFETY: as in `link`; the slot is of this slab.
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
        build: impl FnOnce(&mut D) -> (Remember<M>, T),
    ) -> (Identity, T) {
        /// Gives the slot back if `build` unwinds, and drops the value.
        struct Undo<'s, D, M: Meta>(&'s mut Slab<D, M>, NonNull<()>, u64);
        impl<D, M: Meta> Drop for Undo<'_, D, M> {
            #[inline(always)]
            fn drop(&mut self) {
                let Undo(slab, slot, user_data) = self;
                // SAFETY: the vacancy is of this slab: the caller's promise. The value was written, and this
                // runs at most once.
                unsafe { slab.undo(Vacancy { slot: *slot, user_data: *user_data }) };
            }
        }

        let Vacancy { slot: free, user_data } = vacancy;
        let slot = free.cast::<Slot<D, M>>().as_ptr();
        // SAFETY: a slot that is free has no value, and nobody else refers to its place.
        let place = unsafe { (*slot).value.get() }.cast::<D>();
        // SAFETY: as above; writing does not drop what was there, which is nothing.
        unsafe { place.write(value) };
        let undo = Undo(self, free, user_data);
        // SAFETY: the value was written above; the request does not exist yet, so nobody else can
        // reach the value while `build` runs.
        let (meta, built) = build(unsafe { &mut *place });
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
        let place = vacancy.slot.cast::<Slot<D, M>>().as_ptr();
        // SAFETY: the caller's promise.
        unsafe { self.release(vacancy) };
        // SAFETY: the value is initialised; the slot is free as far as its header knows, so nobody drops it
        // again.
        unsafe { (*place).value.get().cast::<D>().drop_in_place() };
    }

    /// Puts a free slot, which is in no list, where the next insertion finds it.
    #[inline(always)]
    fn link(&mut self, slot: NonNull<Slot<D, M>>) {
        // SAFETY: all headers of a chunk are initialised, do not overlap a value, and the slab is borrowed
        // exclusively.
        unsafe { (*slot.as_ptr()).header.kept.next_free = self.free };
        self.free = Some(slot);
    }

    /// Gives back a slot that was not filled again.
    ///
    /// # Safety
    ///
    /// The vacancy is of this slab.
    #[inline(always)]
    pub(crate) unsafe fn release(&mut self, vacancy: Vacancy) {
        let Vacancy { slot, user_data } = vacancy;
        let slot = slot.cast::<Slot<D, M>>();
        // SAFETY: as in `link`.
        unsafe { (*slot.as_ptr()).header.name = !user_data };
        self.link(slot);
    }

    /// Puts all free slots in order again, the first first.
    pub(crate) fn tidy(&mut self) {
        self.free = None;
        for index in (0..self.made).rev() {
            if let Some(slot) = self.slot(index) {
                // SAFETY: as in `link`.
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
    /// It is not 0, the name of what is not a slot yet.
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
        // A free slot has the name of its next request.
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

    /// Takes a lent value back, at the same address. Returns whether the request is calm, and nothing else is to
    /// be done.
    ///
    /// # Safety
    ///
    /// It was lent by this slab, and the slot is still lent.
    #[inline(always)]
    pub(crate) unsafe fn take_back(&mut self, lent: &Lent, value: D) -> bool {
        let slot = lent.slot.cast::<Slot<D, M>>().as_ptr();
        // SAFETY: chunks don't move, so the slot is where it was; the header is initialised, does not
        // overlap the value, and the slab is borrowed exclusively.
        let header = unsafe { &mut (*slot).header };
        // SAFETY: the slot is lent, so the place holds no value that would be overwritten.
        unsafe { (*slot).value.get().cast::<D>().write(value) };
        // SAFETY: the slot is lent: not plain, and not free.
        let is_calm = unsafe { header.kept.meta }.is_calm();
        header.state = if is_calm { State::Calm } else { State::Live };
        is_calm
    }

    /// The slot of a lent value, or of one that was taken back.
    ///
    /// # Safety
    ///
    /// It was lent by this slab, and the slot was not freed since.
    pub(crate) unsafe fn find_lent(&mut self, lent: Lent) -> Occupied<'_, D, M> {
        let slot = lent.slot.cast::<Slot<D, M>>();
        // SAFETY: as in `take_back`.
        let name = unsafe { (*slot.as_ptr()).header.name };
        Occupied { slab: self, slot, user_data: !name }
    }

    /// The slot of the request with this identity, if it is still there.
    pub(crate) fn find_identity(&mut self, identity: Identity) -> Option<Occupied<'_, D, M>> {
        let mut occupied = self.find(identity.user_data)?;
        (occupied.header().rounds == identity.rounds).then_some(occupied)
    }

    /// Calls `visit` with the `user_data` and metadata of each occupied slot.
    pub(crate) fn for_each(&self, mut visit: impl FnMut(u64, &M)) {
        for index in 0..self.made {
            let Some(slot) = self.slot(index) else { return };
            // SAFETY: all headers of a chunk are initialised, are only changed through `&mut self`, and
            // do not overlap a value.
            let header = unsafe { &(*slot.as_ptr()).header };
            if !header.is_free(index) {
                let is_plain = header.is_plain(index);
                let user_data = if is_plain { header.name } else { !header.name };
                if is_plain {
                    // SAFETY: it is, because the name is plain.
                    visit(user_data, &M::of_plain(unsafe { header.kept.brief }));
                } else {
                    // SAFETY: the name is not plain and the state not Free.
                    visit(user_data, unsafe { &header.kept.meta });
                }
            }
        }
    }

    /// Has no request be plain or calm from here on.
    pub(crate) fn look_at_all(&mut self) {
        let mut plain = Vec::new();
        self.for_each(|user_data, _| plain.push(user_data));
        for user_data in plain {
            if let Some(mut slot) = self.find(user_data) {
                slot.meta();
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
    /// The `user_data` of the next request.
    #[inline(always)]
    fn next(&mut self, user_data: u64, step: u64) -> u64 {
        let (next, round) = UserData::step(user_data, step);
        if round {
            self.count_round();
        }
        next
    }

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
    // A ring has many, and drops all of them in one function.
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

/// The slot of a plain request whose value was taken: to be [vacated](Slab::vacate). Or none.
#[must_use]
pub(crate) struct Warm {
    slot: NonNull<()>,
}

/// In the place of a name where there is no slot: no request has this tag, and a step from here comes round.
static NO_NAME: u64 = u64::MAX;
const NO_SLOT: NonNull<()> = match NonNull::new((&raw const NO_NAME).cast_mut()) {
    Some(name) => name.cast(),
    None => panic!("a static has an address"),
};

impl Warm {
    /// No slot. Not as an `Option`, because [`Slab::vacate`] need not ask then which it is.
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

// SAFETY: it only says where a slot is; who uses it there answers for that.
unsafe impl Send for Warm {}

/// A slot without a value that is in no list: to be filled again, or released.
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

// SAFETY: as of a warm slot.
unsafe impl Send for Vacancy {}

/// A slot whose value is with a handler.
#[must_use]
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Lent {
    slot: NonNull<()>,
}

// SAFETY: as of a warm slot.
unsafe impl Send for Lent {}

impl Lent {
    /// The `user_data` of its request; of the next one, if that is over.
    ///
    /// # Safety
    ///
    /// The slab that has lent the value is there, and nobody writes to it now.
    pub(crate) unsafe fn user_data(&self) -> u64 {
        // SAFETY: a slot begins with its name, which is initialised; chunks don't move, and that they are there, and that
        // nobody writes to them, is the caller's promise.
        !unsafe { self.slot.cast::<u64>().read() }
    }
}

/// The slot of a plain request.
pub(crate) struct Plain<'s, D, M: Meta> {
    slab: PhantomData<&'s mut Slab<D, M>>,
    slot: NonNull<Slot<D, M>>,
}

impl<D, M: Meta> Plain<'_, D, M> {
    /// Returns the value, and the slot, which is taken for that of the request until it is filled or
    /// released.
    ///
    /// # Safety
    ///
    /// It is filled or released, whatever happens, and until then nothing is done with the slab but to
    /// take other vacancies.
    #[inline(always)]
    pub(crate) unsafe fn take(self) -> (D, Warm) {
        // SAFETY: the name is plain, so the value is initialised; it is not any more, and nobody reads it
        // again, as the caller promises. The state of a plain slot is Free already.
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
    /// Moves the value out to a handler; the slot stays occupied. Also, what is remembered of the request.
    #[inline(always)]
    pub(crate) fn lend(self) -> (D, M, Lent) {
        let slot = self.slot.as_ptr();
        // SAFETY: the header is initialised, does not overlap the value, and the slab is borrowed
        // exclusively.
        let header = unsafe { &mut (*slot).header };
        header.state = State::Lent;
        // SAFETY: the name is not plain, and the state was not Free.
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

    /// Which state the slot is in: never [`State::Free`], and [`State::Live`] also if it is calm.
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

    /// The slot is in this state from here on, and neither plain nor calm.
    fn set_state(&mut self, state: State) {
        self.meta();
        self.header().state = state;
    }

    /// The `user_data` of the request.
    #[inline]
    pub(crate) fn user_data(&self) -> u64 {
        self.user_data
    }

    /// What the owner remembers about the request; which is neither plain nor calm from here on.
    pub(crate) fn meta(&mut self) -> &mut M {
        let user_data = self.user_data;
        let header = self.header();
        if header.name == user_data {
            // SAFETY: it is, because the name is plain.
            header.kept.meta = M::of_plain(unsafe { header.kept.brief });
            header.state = State::Live;
            header.name = !user_data;
        } else if header.state == State::Calm {
            header.state = State::Live;
        }
        // SAFETY: the slot is not free and, by now, its name not plain.
        unsafe { &mut header.kept.meta }
    }

    /// From here on, this is all that is remembered of the request: if its value is here.
    pub(crate) fn make_plain(mut self, brief: M::Brief) -> bool {
        let is_live = self.state() == State::Live;
        if is_live {
            let user_data = self.user_data;
            let header = self.header();
            header.kept.brief = brief;
            header.state = State::Free;
            header.name = user_data;
        }
        is_live
    }

    /// Frees the slot and returns its value, if it was here.
    #[inline]
    pub(crate) fn take(mut self) -> Option<D> {
        let (state, user_data, step) = (self.state(), self.user_data, self.slab.step);
        let header = self.header();
        header.state = State::Free;
        header.name = !header.next(user_data, step);
        self.slab.link(self.slot);
        // SAFETY: read if the state was Live, so the value is initialised; it is Free now, so nobody
        // reads the value again.
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

    fn find_plain<D, M: Meta>(slab: &mut Slab<D, M>, user_data: u64) -> Option<Plain<'_, D, M>> {
        assert_ne!(user_data, 0);
        // SAFETY: as it was just seen.
        unsafe { slab.find_plain(user_data) }
    }

    fn unlimited<D, M: Meta>(tag: u8) -> Slab<D, M> {
        let mut slab = Slab::new(tag);
        slab.set_limit(u32::MAX);
        slab
    }

    /// Reserves and inserts; the address is that which the closure sees.
    fn insert<D, M: Meta<Brief = M>>(slab: &mut Slab<D, M>, value: D, meta: M) -> (Identity, u64, *mut D) {
        // Plain and not, in turn.
        thread_local!(static PLAIN: Cell<bool> = const { Cell::new(false) });
        PLAIN.set(!PLAIN.get());
        slab.reserve().unwrap();
        let (identity, address) = slab.insert_with(value, |value| {
            let remember = if PLAIN.get() { Remember::Plain(meta) } else { Remember::All(meta) };
            (remember, &raw mut *value)
        });
        (identity, identity.user_data, address)
    }

    impl<M: Copy + Tested> Meta for M {
        type Brief = M;
        fn of_plain(brief: M) -> M {
            brief
        }
        fn is_calm(&self) -> bool {
            true
        }
    }

    trait Tested {}
    impl Tested for () {}
    impl Tested for u8 {}
    impl Tested for u32 {}
    impl Tested for usize {}

    /// Takes the value of a slot whose request is plain, and fills it again.
    fn refill<D, M: Meta<Brief = M>>(slab: &mut Slab<D, M>, user_data: u64, meta: M) -> Option<Identity> {
        // SAFETY: the slot is filled below, and the slab not looked at before.
        let (value, warm) = unsafe { find_plain(slab, user_data)?.take() };
        // SAFETY: it was found in this slab.
        let vacancy = unsafe { slab.vacate(warm)? };
        // SAFETY: as above.
        Some(unsafe { slab.fill(vacancy, value, |_| (Remember::Plain(meta), ())) }.0)
    }

    /// Takes the value of a slot whose request is plain, and releases it.
    fn take_plain<D, M: Meta>(slab: &mut Slab<D, M>, user_data: u64) -> Option<D> {
        // SAFETY: the slot is released below, and the slab not looked at before.
        let (value, warm) = unsafe { find_plain(slab, user_data)?.take() };
        // SAFETY: it was found in this slab.
        let vacancy = unsafe { slab.vacate(warm)? };
        // SAFETY: as above.
        unsafe { slab.release(vacancy) };
        Some(value)
    }

    fn address_of<D, M: Meta>(slab: &mut Slab<D, M>, user_data: u64) -> Option<*const D> {
        let mut slot = slab.find(user_data)?;
        // SAFETY: there is no kernel here.
        unsafe { slot.with_value(|value| &raw const *value) }
    }

    fn take<D, M: Meta>(slab: &mut Slab<D, M>, user_data: u64) -> Option<D> {
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
            assert_eq!(UserData::slot(identity.user_data), number as u32);
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
    fn a_busy_slot_needs_no_more_than_the_first_chunk() {
        let mut slab = unlimited::<u64, ()>(1);
        for _ in 0..steps(10_000) {
            let (_, user_data, _) = insert(&mut slab, 1, ());
            assert_eq!(take(&mut slab, user_data), Some(1));
        }
        assert_eq!(slab.chunks.len(), 1);
        let (identity, user_data, _) = insert(&mut slab, 1, ());
        assert_eq!(UserData::slot(identity.user_data), 0, "the slot that was freed is used again");
        take(&mut slab, user_data);
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
            let (value, lent) = slot.lend().unwrap();
            assert_eq!(slot.state(), State::Lent);
            assert!(slot.lend().is_none(), "lent twice");
            // SAFETY: there is no kernel here.
            assert!(unsafe { slot.with_value(|_| ()) }.is_none(), "seen while it is lent");
            assert_eq!(slab.occupied_slots(), 1);
            // SAFETY: it was lent above.
            assert!(unsafe { slab.take_back(&lent, value) });
            assert_eq!(address_of(&mut slab, user_data), Some(address.cast_const()));
        }
        assert_eq!(drops.of(0), 0);
        drop(take(&mut slab, user_data));
        assert!(drops.all_once());
    }

    #[test]
    fn another_value_may_be_taken_back() {
        let (drops, mut slab) = (Drops::default(), unlimited(1));
        let (_, user_data, _) = insert(&mut slab, drops.issue(), ());
        let (value, lent) = slab.find(user_data).unwrap().lend().unwrap();
        drop(value);
        assert_eq!(drops.of(0), 1);
        // SAFETY: it was lent above.
        assert!(unsafe { slab.take_back(&lent, drops.issue()) });
        assert_eq!(take(&mut slab, user_data).unwrap().number, 1);
        assert!(drops.all_once());
    }

    #[test]
    fn what_is_not_calm_is_taken_back_to_be_looked_at() {
        #[derive(Clone, Copy)]
        struct Restless;
        impl Meta for Restless {
            type Brief = ();
            fn of_plain((): ()) -> Restless {
                Restless
            }
            fn is_calm(&self) -> bool {
                false
            }
        }
        let (drops, mut slab) = (Drops::default(), unlimited(1));
        slab.reserve().unwrap();
        let (identity, ()) = slab.insert_with(drops.issue(), |_| (Remember::All(Restless), ()));
        let (value, lent) = slab.find(identity.user_data).unwrap().lend().unwrap();
        // SAFETY: it was lent above.
        assert!(!unsafe { slab.take_back(&lent, value) });
        assert!(slab.find_calm(identity.user_data).is_none());
        // SAFETY: it was taken back above.
        let mut slot = unsafe { slab.find_lent(lent) };
        assert_eq!((slot.user_data(), slot.state()), (identity.user_data, State::Live));
        drop(slot.take());
        assert!(drops.all_once());
    }

    #[test]
    fn a_request_becomes_plain_where_its_value_is() {
        let (drops, mut slab) = (Drops::default(), unlimited(1));
        slab.reserve().unwrap();
        let (identity, ()) = slab.insert_with(drops.issue(), |_| (Remember::All(7_u8), ()));
        let user_data = identity.user_data;
        let place = address_of(&mut slab, user_data);
        assert!(find_plain(&mut slab, user_data).is_none());
        // Not while a handler has it.
        let (value, lent) = slab.find(user_data).unwrap().lend().unwrap();
        slab.find(user_data).unwrap().make_plain(8);
        assert!(find_plain(&mut slab, user_data).is_none());
        // SAFETY: it was lent above.
        assert!(unsafe { slab.take_back(&lent, value) });
        slab.find(user_data).unwrap().make_plain(9);
        assert_eq!(slab.occupied_slots(), 1);
        slab.for_each(|_, meta| assert_eq!(*meta, 9));
        assert!(slab.find_identity(identity).is_some());
        assert_eq!(address_of(&mut slab, user_data), place);
        drop(take_plain(&mut slab, user_data));
        assert!(slab.find(user_data).is_none() && drops.all_once());
    }

    #[test]
    fn a_lent_slot_that_is_taken_has_no_value() {
        let (drops, mut slab) = (Drops::default(), unlimited(1));
        let (_, user_data, _) = insert(&mut slab, drops.issue(), ());
        let (value, _) = slab.find(user_data).unwrap().lend().unwrap();
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
        let slot = |identity: Identity| UserData::slot(identity.user_data);
        assert_eq!(slot(identity), slot(before.0), "the slot is used again");
        assert_ne!(identity, before.0, "but not its generation");
        assert!(slab.find(before.1).is_none());
        drop(take(&mut slab, user_data));
        drop(take(&mut slab, other));
        assert!(drops.all_once());
    }

    #[test]
    fn a_slab_that_holds_a_slot_drops_and_frees_nothing() {
        let drops = Drops::default();
        let mut slab = unlimited(1);
        let (_, user_data, _) = insert(&mut slab, drops.issue(), ());
        insert(&mut slab, drops.issue(), ());
        drop(take(&mut slab, user_data));
        let chunks = slab.chunks.clone();
        drop(slab);
        assert_eq!((drops.of(0), drops.of(1)), (1, 0));
        // SAFETY: the chunks were leaked, so the second value is still there, in the second slot.
        let second = unsafe { (*chunks[0].as_ptr().add(1)).value.get().cast::<Counted>().read() };
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
            assert_eq!(user_data, UserData::pack(3, number, 0));
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

    const WRAP: u32 = 1 << 24;

    #[test]
    fn a_slot_that_is_filled_again_at_once_counts_its_rounds_too() {
        let mut slab = unlimited::<u8, ()>(9);
        let first = insert(&mut slab, 0, ()).1;
        take(&mut slab, first).unwrap();
        slab.find_free(0).name = !UserData::pack(9, WRAP - 1, 0);
        let (last, ()) = slab.insert_with(1, |_| (Remember::Plain(()), ()));
        assert_eq!(last.user_data, UserData::pack(9, WRAP - 1, 0));
        let again = refill(&mut slab, last.user_data, ()).unwrap();
        assert_eq!(again.user_data, first, "the 24 bits have come round");
        assert_eq!(format!("{again}"), format!("tag 9, slot 0, generation {WRAP}"));
        assert_eq!(take_plain(&mut slab, again.user_data), Some(1));
    }

    #[test]
    fn an_identity_stays_the_only_one_when_user_data_wraps() {
        let mut slab = unlimited::<u8, ()>(9);
        let (first_identity, first, _) = insert(&mut slab, 0, ());
        take(&mut slab, first).unwrap();
        let far = WRAP - 1_000;
        for number in (1..1_000).chain(far..WRAP + 2) {
            if number == far {
                slab.find_free(0).name = !UserData::pack(9, far, 0);
            }
            let (identity, user_data, _) = insert(&mut slab, 1, ());
            assert_eq!(user_data, UserData::pack(9, number % WRAP, 0));
            if number == WRAP {
                assert_eq!(user_data, first, "the 24 bits have come round");
                assert_ne!(identity, first_identity);
                assert!(slab.find_identity(first_identity).is_none());
                assert!(slab.find_identity(identity).is_some());
            } else {
                assert!(slab.find(first).is_none());
            }
            assert_eq!(take(&mut slab, user_data), Some(1));
        }
        assert_eq!(format!("{first_identity}"), "tag 9, slot 0, generation 0");
        let (last, _, _) = insert(&mut slab, 0, ());
        assert_eq!(format!("{last}"), format!("tag 9, slot 0, generation {}", WRAP + 2));
        take(&mut slab, last.user_data);
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
            UserData::pack(5, u32::MAX, 0),
            UserData::pack(5, 0, 1),
            UserData::pack(5, 0, 2),
            // Of the last slot that was made, and of one in the same chunk that was not.
            UserData::pack(5, 0, 63),
            UserData::pack(5, 0, 64),
            UserData::pack(5, 0, u32::MAX),
            !used,
            !freed,
            !UserData::pack(5, 1, 1),
        ];
        for user_data in strange {
            assert!(slab.find(user_data).is_none(), "{user_data:#x}");
            assert!(slab.find_calm(user_data).is_none(), "{user_data:#x}");
            assert!(user_data == 0 || find_plain(&mut slab, user_data).is_none(), "{user_data:#x}");
        }
        for bit in 0..64 {
            assert!(slab.find(used ^ 1 << bit).is_none(), "bit {bit} makes a difference");
        }
        assert!(slab.find_identity(Identity { user_data: used, rounds: 1 }).is_none());
        assert!(find_plain(&mut slab, !used).is_none() && find_plain(&mut slab, freed).is_none());
        assert_eq!(take(&mut slab, used), Some(0));
    }

    #[test]
    fn a_vacancy_is_filled_or_released() {
        let (drops, mut slab) = (Drops::default(), unlimited::<_, ()>(1));
        let mut plain = || loop {
            let (_, user_data, address) = insert(&mut slab, drops.issue(), ());
            if find_plain(&mut slab, user_data).is_some() {
                return (user_data, address);
            }
            drop(take(&mut slab, user_data));
        };
        let (first, address) = plain();
        let again = refill(&mut slab, first, ()).unwrap().user_data;
        assert_eq!(UserData::slot(again), UserData::slot(first));
        assert!(slab.find(first).is_none() && slab.find(again).is_some());
        assert_eq!(address_of(&mut slab, again), Some(address.cast_const()));
        slab.find(again).unwrap().meta();
        assert!(refill(&mut slab, again, ()).is_none(), "not plain any more, since it was looked at");
        assert_eq!(slab.occupied_slots(), 1);
        drop(take(&mut slab, again));

        slab.tidy();
        slab.reserve().unwrap();
        let (identity, ()) = slab.insert_with(drops.issue(), |_| (Remember::Plain(()), ()));
        assert_eq!(UserData::slot(identity.user_data), 0, "the first slot is free again");
        drop(take_plain(&mut slab, identity.user_data).unwrap());
        assert!(slab.find(identity.user_data).is_none());
        assert_eq!(slab.occupied_slots(), 0);
        slab.reserve().unwrap();
        assert_eq!(UserData::slot(slab.vacancy().unwrap().user_data), 0);
        assert!(drops.all_once());
    }

    #[test]
    fn to_look_at_all_changes_nothing_else() {
        let mut slab = unlimited::<u8, u32>(1);
        let placed: Vec<_> = (0..10).map(|number| insert(&mut slab, number, u32::from(number)).1).collect();
        slab.look_at_all();
        for (number, user_data) in placed.into_iter().enumerate() {
            assert!(find_plain(&mut slab, user_data).is_none() && slab.find_calm(user_data).is_none());
            assert_eq!(*slab.find(user_data).unwrap().meta(), number as u32);
            assert_eq!(take(&mut slab, user_data), Some(number as u8));
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

        assert!(unlimited::<u8, ()>(1).has_room(1_000_000));
    }

    #[test]
    fn a_limit_may_lie_in_any_chunk() {
        let chunk = Slab::<u64, ()>::CHUNK;
        let batch = Slab::<u64, ()>::BATCH;
        assert!(1 < batch && batch < chunk);
        for limit in [1, batch - 1, batch, batch + 1, chunk - 1, chunk, chunk + 1, 2 * chunk + 3] {
            let mut slab = Slab::<u64, ()>::new(1);
            slab.set_limit(limit);
            assert!(slab.has_room(limit as usize) && !slab.has_room(limit as usize + 1));
            for number in 0..limit {
                insert(&mut slab, u64::from(number), ());
            }
            assert!(slab.reserve().is_err() && !slab.has_room(1), "{limit}");
            assert_eq!(slab.occupied_slots(), limit as usize);
        }
    }

    #[test]
    fn a_slab_that_was_not_told_how_much_it_may_hold_holds_nothing() {
        let mut slab = Slab::<u8, ()>::new(1);
        assert!(!slab.has_room(1) && slab.reserve().is_err());
    }

    #[test]
    fn an_insertion_without_a_reservation_is_refused_and_loses_nothing() {
        let (drops, mut slab) = (Drops::default(), Slab::<Counted, ()>::new(1));
        let value = drops.issue();
        let inserted =
            catch_unwind(AssertUnwindSafe(|| slab.insert_with(value, |_| (Remember::All(()), ())).1)).is_ok();
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
        let mut lent = BTreeMap::<u64, (Counted, Lent)>::new();
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
                    let taken = take_plain(&mut slab, key).or_else(|| take(&mut slab, key));
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
                    let loan = match slab.find_calm(key) {
                        Some(calm) => {
                            let (value, meta, loan) = calm.lend();
                            assert_eq!(meta, entry.number);
                            Some((value, loan))
                        }
                        None => slab.find(key).unwrap().lend(),
                    };
                    assert_eq!(loan.is_some(), entry.state == State::Live);
                    if let Some((value, loan)) = loan {
                        assert_eq!(value.number, entry.number);
                        entry.state = State::Lent;
                        lent.insert(key, (value, loan));
                    }
                }
                (8, Some(key)) if lent.contains_key(&key) => {
                    let (value, loan) = lent.remove(&key).unwrap();
                    // SAFETY: it was lent by this slab, and still is: the model says so.
                    assert_eq!(unsafe { slab.find_lent(Lent { ..loan }) }.user_data(), key);
                    // SAFETY: as above.
                    assert!(unsafe { slab.take_back(&loan, value) });
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
                assert_eq!(slot.state(), entry.state);
                if random.below(2) == 0 {
                    assert_eq!(*slab.find(key).unwrap().meta(), entry.number);
                }
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

    impl<D, M: Meta> Slab<D, M> {
        /// The header of a slot that is free.
        fn find_free(&mut self, index: u32) -> &mut Header<D, M> {
            let slot = self.slot(index).unwrap();
            // SAFETY: all headers of a chunk are initialised, and the slab is borrowed exclusively.
            let header = unsafe { &mut (*slot.as_ptr()).header };
            assert!(header.is_free(index));
            header
        }
    }
}
