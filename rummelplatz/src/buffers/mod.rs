//! Provided buffers: memory that the kernel picks from when there is something to receive.
//!
//! A [`BufferPool`] owns one block of memory, cut into buffers of one size, and the small ring
//! (`IORING_REGISTER_PBUF_RING`, since 5.19) through which they are offered to the kernel. Each buffer
//! is in one of two hands at any time: offered to the kernel, or held as a [`Buffer`].
//!
//! # How the unsafe code stays right
//!
//! * The memory belongs to the `Arc`s of the pool and, from registration until `Finished`, of the ring's
//!   runtime; a ring that is abandoned keeps its share for ever. A [`Buffer`] has no share while a ring has
//!   one. If buffers are held when the ring gives the pool back, or are made without a ring, then all that
//!   are held have one share together, until the last of them is given back ([`State::kept`]). So memory that
//!   somebody holds is there, and no share is counted twice.
//! * A buffer's bytes are touched by Rust only through the one [`Buffer`] that holds it. Its [`Whereabouts`]
//!   say who has it: a number from a completion becomes a `Buffer` only if the buffer was with the kernel,
//!   and a buffer goes back to the kernel only from a `Buffer` that is dropped. The former is done only by
//!   the ring that has the pool registered, the latter only by whoever has the `Buffer`. So for each change
//!   there is one thread that can make it.
//! * That is so for buffers that are used whole. [`increments`] says how it is with those that are used up piece by
//!   piece.
//! * The entries of the ring and its tail are written under the lock, by whoever drops a buffer. The kernel
//!   reads them, and writes nothing to them except a shorter length, to an entry that it takes (and the address
//!   of what is left, if it takes a piece).
//! * A completion for several buffers names only the first. The kernel takes them in the order in which they
//!   were offered, so those after it are those that were offered after it. Each buffer remembers at which
//!   position of the ring it was offered last. So an entry that another lap has overwritten is not taken for
//!   one of them, and they are found all the same.

use std::fmt;
use std::io;
use std::mem::offset_of;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};

use crate::block::{Block, room_for};
use crate::fixed::Registered;
use crate::lock::Locked;
use crate::waker::Waker;

mod buffer;
mod bundle;
mod increments;
mod losses;
#[cfg(test)]
mod tests;

use increments::{Increments, Progress, Stretch};

pub use buffer::Buffer;
pub(crate) use buffer::Lender;
pub use bundle::Buffers;
#[cfg(feature = "sim")]
pub(crate) use increments::F_BUF_MORE;
pub(crate) use increments::Piece;
pub(crate) use losses::Losses;

/// One entry of the ring that the kernel reads (`struct io_uring_buf`).
#[repr(C)]
struct Offer {
    address: u64,
    length: u32,
    id: u16,
    /// In the first entry, this is the ring's tail.
    tail: AtomicU16,
}

const _: () = assert!(size_of::<Offer>() == 16 && offset_of!(Offer, tail) == 14);

/// A pool of equal buffers that a ring receives into.
///
/// A cheap value, made before the ring, cloned into the data or the operations that use it, and registered by
/// the first ring that uses it. A second ring gets an error until the first has finished.
///
/// A pool is for many connections: it stays registered until its ring has finished, even when nobody else has
/// it any more, and a ring has at most 65536 of them (`ENOSPC`).
///
/// ```
/// # use rummelplatz::BufferPool;
/// // 256 buffers of 2 KiB. Make them as large as a typical message, which then comes in one piece.
/// let pool = BufferPool::new(256, 2048)?;
/// assert_eq!(pool.available(), 256);
/// # std::io::Result::Ok(())
/// ```
///
/// Received bytes come as a [`Buffer`], from [`Completion::into_buffer`](crate::Completion::into_buffer).
/// Hold on to buffers for as long as you like: a stream that finds the pool empty waits, and goes on
/// when one is dropped. A buffer that is never dropped (`mem::forget`) is lost to the pool.
///
/// Where messages are of all sizes, make a pool whose buffers are [cut to what has come](Self::incremental).
#[derive(Clone)]
pub struct BufferPool {
    shared: Arc<Shared>,
}

/// What the holders of a pool and of its buffers share.
pub(crate) struct Shared {
    count: u16,
    /// The number of entries of the ring, a power of two, less one.
    mask: u16,
    /// How many bytes lie between where two buffers begin.
    stride: u32,
    size: u32,
    memory: Block,
    /// The entries of the ring that the kernel reads.
    ring: Block,
    /// Where each buffer is.
    whereabouts: Box<[Whereabouts]>,
    /// How many were ever taken; wraps. Written by the ring that has the pool registered.
    taken: AtomicU32,
    /// The ring that has the pool registered, and the pool's group there. Changed only under the lock.
    place: Registered,
    kind: Kind,
    state: Locked<State>,
}

/// How buffers are used.
enum Kind {
    Whole,
    /// Piece by piece. There are no [`whereabouts`](Shared::whereabouts), and the place is elsewhere.
    Incremental(Increments),
    /// This is not a pool, but what lends pieces of one.
    Stretch(Stretch),
}

#[derive(Default)]
struct State {
    /// How many buffers were ever given back; wraps.
    returned: u32,
    tail: u16,
    /// A stream of the ring waits for a buffer.
    awaited: bool,
    /// The buffers that are held have a share of the `Arc`.
    kept: bool,
    /// Wakes the ring that has the pool registered, if there is one.
    waker: Option<Waker>,
    /// How far each buffer is used, if they are used piece by piece.
    progress: Box<[Progress]>,
    /// How many pieces are held, including those that were forgotten: so many that nobody gets it to wrap.
    pieces: u64,
    /// How many pieces there ever were; wraps.
    told: u32,
    /// What the ring that has the pool registered was not told of.
    losses: Option<Losses>,
}

/// Where a buffer is. Below [`HELD`](Self::HELD), the position of the ring at which it was offered to the
/// kernel. From there on, it is held as a [`Buffer`], and this says which one comes after it in the same
/// [`Buffers`].
struct Whereabouts(AtomicU32);

impl Whereabouts {
    const HELD: u32 = 1 << 31;
    /// Held, and none comes after it.
    const HELD_LAST: u32 = u32::MAX;

    fn offered_at(position: u16) -> Whereabouts {
        Whereabouts(AtomicU32::new(position.into()))
    }

    /// The position at which it was offered, if it is not held.
    #[inline(always)]
    fn offered(&self) -> Option<u16> {
        let whereabouts = self.0.load(Ordering::Acquire);
        (whereabouts < Self::HELD).then_some(whereabouts as u16)
    }

    /// Whoever sees this also sees that the one who gave it back has done with it.
    #[inline(always)]
    fn offer(&self, position: u16) {
        self.0.store(position.into(), Ordering::Release);
    }

    /// Whoever holds it from now on, in whatever thread, has got it from here.
    #[inline(always)]
    fn hold(&self) {
        self.0.store(Self::HELD_LAST, Ordering::Relaxed);
    }

    /// Notes that `next`, which is held, comes after it.
    fn follow_by(&self, next: u16) {
        self.0.store(Self::HELD | u32::from(next), Ordering::Relaxed);
    }

    /// The buffer that comes after it, if it is held and there is one.
    fn next(&self) -> Option<u16> {
        let whereabouts = self.0.load(Ordering::Relaxed);
        (whereabouts >= Self::HELD && whereabouts != Self::HELD_LAST).then_some(whereabouts as u16)
    }
}

/// Why a pool can't be used by a ring.
#[derive(Debug)]
pub(crate) enum PoolError {
    /// Another ring has it.
    Taken,
    /// The kernel refused to register it.
    Refused(io::Error),
}

impl BufferPool {
    /// A pool of `count` buffers of `size` bytes each: `count` from 1 to 32768, the kernel's limit
    /// for one group.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a count or size of zero or above the limit, `OutOfMemory` if there is not
    /// that much memory.
    pub fn new(count: u16, size: u32) -> io::Result<BufferPool> {
        Ok(BufferPool::of(Arc::new(Shared::new(count, size)?)))
    }

    /// A pool of large buffers that are used up piece by piece (`IOU_PBUF_RING_INC`, since 6.18 in the way that is
    /// needed here): each time, as much as there is to receive goes right behind what was received before, of whatever
    /// stream. So the size of the buffers need not be that of the messages: a short message takes little memory, and a
    /// long one comes in one piece, unless it has to begin in the rest of a buffer.
    ///
    /// ```
    /// # use rummelplatz::BufferPool;
    /// // 16 buffers of 256 KiB. Each holds two messages of 128 KiB, or 8192 of 32 bytes.
    /// let pool = BufferPool::incremental(16, 256 * 1024)?;
    /// assert_eq!((pool.capacity(), pool.buffer_size()), (16, 256 * 1024));
    /// # std::io::Result::Ok(())
    /// ```
    ///
    /// A [`Buffer`] is a piece of one of these, and behaves like any other. The large buffer goes back to the kernel
    /// when it is used up and all its pieces are dropped: so one small piece that is kept for long keeps all of it.
    ///
    /// It is for streams of bytes: [`recv_multi`], [`recv_multi_bundle`] (which gets one buffer each time) and
    /// [`read_multi`]. All other requests are refused ([`InvalidEntry::TakesWholeBuffers`]), because the kernel does
    /// not say how much of a buffer they have taken. For datagrams, use a pool that is not incremental: at the end of a
    /// buffer, one that does not fit into the rest would be cut.
    ///
    /// If the kernel has lost a completion for want of memory, it can't be told any more where the bytes of later ones
    /// are: these have the error `EBADR`, and their bytes are lost.
    ///
    /// On older kernels, the first request is refused, with `EOPNOTSUPP` or `EINVAL`
    /// ([`PoolRefused`](crate::SubmitError::PoolRefused)).
    ///
    /// [`recv_multi`]: crate::request::recv_multi
    /// [`recv_multi_bundle`]: crate::request::recv_multi_bundle
    /// [`read_multi`]: crate::request::read_multi
    /// [`InvalidEntry::TakesWholeBuffers`]: crate::InvalidEntry::TakesWholeBuffers
    ///
    /// # Errors
    ///
    /// As for [`new`](Self::new).
    #[doc(alias = "IOU_PBUF_RING_INC")]
    pub fn incremental(count: u16, size: u32) -> io::Result<BufferPool> {
        Ok(BufferPool::of(Shared::new(count, size)?.incremental()?))
    }

    fn of(shared: Arc<Shared>) -> BufferPool {
        // SAFETY: it is in an `Arc`, which drops it before its memory is used for anything else.
        unsafe { shared.state.enroll() };
        BufferPool { shared }
    }

    /// A buffer with these bytes in it, as if they had been received: for tests of your own operations (see
    /// [`Completion::from_buffer`](crate::Completion::from_buffer)).
    ///
    /// `None` if a ring has the pool, if all buffers are held, or if the bytes do not fit into one.
    pub fn fill(&self, bytes: &[u8]) -> Option<Buffer> {
        if self.is_incremental() {
            return self.fill_piece(bytes);
        }
        let Shared { count, size, whereabouts, .. } = &*self.shared;
        let length = u32::try_from(bytes.len()).ok().filter(|length| length <= size)?;
        let mut state = self.shared.state.lock();
        if state.waker.is_some() {
            return None;
        }
        let id = (0..*count).find(|id| whereabouts[usize::from(*id)].offered().is_some())?;
        // SAFETY: no ring has the pool registered, and none can while it is locked, so nobody else does this.
        let lender = unsafe { self.hold(id) }?;
        self.keep(&mut state);
        drop(state);
        // SAFETY: the buffer was just held, and this is done once.
        let mut buffer = unsafe { Buffer::of(lender, id, length) };
        buffer.copy_from_slice(bytes);
        Some(buffer)
    }

    /// How many bytes each buffer has.
    pub fn buffer_size(&self) -> usize {
        self.shared.size as usize
    }

    /// How many buffers the pool has.
    pub fn capacity(&self) -> usize {
        self.shared.count.into()
    }

    /// How many buffers are not held as a [`Buffer`] now. Of an [incremental](Self::incremental) pool, how many are not
    /// used up, or all their pieces are dropped.
    pub fn available(&self) -> usize {
        self.shared.available(&self.shared.state.lock())
    }

    /// The group of this pool in the instance `ring`, if it is registered there. Only for the ring's own thread.
    #[inline(always)]
    pub(crate) fn group(&self, ring: u64) -> Option<u16> {
        self.shared.place.in_ring(ring).map(|group| group as u16)
    }

    /// The same for all kinds of pools.
    pub(crate) fn any_group(&self, ring: u64) -> Option<u16> {
        self.shared.any_place().in_ring(ring).map(|group| group as u16)
    }

    /// Offers all buffers that are not held, and lets `register` tell the kernel.
    ///
    /// `register` gets the address of the buffer ring and its number of entries, good until
    /// [`unregister`](Self::unregister).
    pub(crate) fn register(
        &self,
        ring: u64,
        group: u16,
        waker: Waker,
        losses: Losses,
        register: impl FnOnce(u64, u16) -> io::Result<()>,
    ) -> Result<(), PoolError> {
        let mut state = self.shared.state.lock();
        if state.waker.is_some() {
            return Err(PoolError::Taken);
        }
        self.shared.start(&mut state);
        match self.is_incremental() {
            true => self.shared.offer_all_anew(&mut state),
            false => self.shared.offer_all(&mut state),
        }
        let address = self.shared.ring.address();
        register(address, self.shared.mask + 1).map_err(PoolError::Refused)?;
        self.shared.any_place().take(ring, group.into());
        state.waker = Some(waker);
        state.losses = Some(losses);
        Ok(())
    }

    /// Forgets the registration, once the kernel has.
    pub(crate) fn unregister(&self) {
        let mut state = self.shared.state.lock();
        self.shared.any_place().leave();
        self.shared.end_pieces(&mut state);
        state.waker = None;
        state.losses = None;
        state.awaited = false;
        if self.shared.held_count(&state) > 0 {
            self.keep(&mut state);
        }
    }

    /// Gives the buffers that are held a share of their own, if they have none.
    fn keep(&self, state: &mut State) {
        if !std::mem::replace(&mut state.kept, true) {
            std::mem::forget(Arc::clone(&self.shared));
        }
    }

    /// Holds the buffer that a completion names, so that a [`Buffer`] can be made of it.
    ///
    /// `None` if the pool has no such buffer, or the kernel can't have had it.
    ///
    /// # Safety
    ///
    /// The pool is registered with the caller's ring, which keeps its share for as long as that is so. Hence
    /// nobody else does this at the same time.
    #[inline(always)]
    pub(crate) unsafe fn hold(&self, id: u16) -> Option<Lender> {
        let whereabouts = self.shared.whereabouts.get(usize::from(id))?;
        whereabouts.offered()?;
        whereabouts.hold();
        self.shared.count_taken(1);
        Some(self.lender())
    }

    /// The pool, for a buffer that is held now.
    fn lender(&self) -> Lender {
        // Not from a reference to the pool, which would not reach the count that the last buffer takes back.
        let shared = Arc::as_ptr(&self.shared).cast_mut();
        // SAFETY: the pointer of an `Arc` is not null.
        Lender(unsafe { NonNull::new_unchecked(shared) })
    }

    /// How many buffers, or pieces of them, were ever taken, if nobody holds one that will come back; wraps.
    pub(crate) fn untouched(&self) -> Option<u16> {
        let state = self.shared.state.lock();
        let taken = self.shared.taken.load(Ordering::Relaxed).wrapping_add(state.told);
        (self.shared.held_count(&state) == 0).then_some(taken as u16)
    }

    /// How many buffers are available; if there is none, the ring is woken when one comes back.
    pub(crate) fn wait(&self) -> usize {
        let mut state = self.shared.state.lock();
        let available = self.shared.available(&state);
        state.awaited = available == 0;
        available
    }
}

impl Shared {
    /// A pool whose buffers are used whole.
    fn new(count: u16, size: u32) -> io::Result<Shared> {
        const MOST: u16 = 1 << 15;
        if count == 0 || count > MOST {
            return Err(invalid(format!("a buffer pool has 1 to {MOST} buffers, not {count}")));
        }
        if size == 0 {
            return Err(invalid("the buffers of a pool have at least one byte".into()));
        }
        let ring_entries = count.next_power_of_two();
        let mut whereabouts = room_for(count.into())?;
        whereabouts.resize_with(count.into(), || Whereabouts::offered_at(0));
        let shared = Shared {
            count,
            stride: size,
            size,
            memory: Block::zeroed(count.into(), size as usize)?,
            ring: Block::zeroed(ring_entries.into(), size_of::<Offer>())?,
            mask: ring_entries - 1,
            whereabouts: whereabouts.into(),
            taken: AtomicU32::new(0),
            place: Registered::nowhere(),
            kind: Kind::Whole,
            state: Locked::new(State::default()),
        };
        Ok(shared)
    }

    /// Counts buffers that became held, in the one thread that does this.
    #[inline(always)]
    fn count_taken(&self, count: u32) {
        self.taken.store(self.taken.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
    }

    /// How many buffers are held.
    fn held_count(&self, state: &State) -> u32 {
        self.taken.load(Ordering::Relaxed).wrapping_sub(state.returned)
    }

    /// How many buffers are not held.
    fn available(&self, state: &State) -> usize {
        usize::from(self.count).saturating_sub(self.held_count(state) as usize)
    }

    /// Where the buffer `id` begins; `id` is that of a buffer.
    fn address(&self, id: u16) -> NonNull<u8> {
        // SAFETY: the offset is inside the block: that of a pool has `count * stride` bytes, and a stretch lends only
        // what begins inside.
        unsafe { self.memory.start().add(usize::from(id) * self.stride as usize) }
    }

    /// Where it is registered.
    fn any_place(&self) -> &Registered {
        match &self.kind {
            Kind::Incremental(increments) => &increments.place,
            _ => &self.place,
        }
    }

    /// Offers all buffers that are not held.
    fn offer_all(&self, state: &mut State) {
        for id in 0..self.count {
            if self.whereabouts[usize::from(id)].offered().is_some() {
                self.offer(state, id);
            }
        }
    }

    /// Begins anew, with an empty ring.
    fn start(&self, state: &mut State) {
        state.tail = 0;
        self.published_tail().store(0, Ordering::Release);
    }

    /// The tail, as the kernel reads it.
    fn published_tail(&self) -> &AtomicU16 {
        // SAFETY: the first entry exists; its tail is only ever accessed as an atomic.
        unsafe { &(*self.ring.start().cast::<Offer>().as_ptr()).tail }
    }

    /// The entry at a position of the ring.
    #[inline(always)]
    fn entry(&self, position: u16) -> *mut Offer {
        // SAFETY: the index is below the number of entries; each of them is zeroed memory or was
        // written before, both of which are valid.
        unsafe { self.ring.start().cast::<Offer>().add(usize::from(position & self.mask)) }.as_ptr()
    }

    /// The buffer that was offered at a position of the ring, and has been neither held nor offered again since.
    fn offered_at(&self, state: &State, position: u16) -> Option<(u16, &Whereabouts)> {
        let find =
            |id: u16| self.whereabouts.get(usize::from(id)).filter(|it| it.offered() == Some(position));
        let id = self.offered_id(state, position);
        if let Some(it) = find(id) {
            return Some((id, it));
        }
        // Another lap of the ring has overwritten the entry, or there is no such buffer.
        (0..self.count).find_map(|id| Some((id, find(id)?)))
    }

    /// Which buffer was offered last at a position of the ring, or 0.
    fn offered_id(&self, _: &State, position: u16) -> u16 {
        // SAFETY: the entry is valid, and written only under the lock, which the caller has (that is what the
        // state shows).
        unsafe { (&raw const (*self.entry(position)).id).read() }
    }

    /// How much room was offered with the buffer `id` at a position of the ring; the kernel may have
    /// shortened it. If that is not known any more, all the room that a buffer has.
    fn offered_length(&self, state: &State, position: u16, id: u16) -> u32 {
        if self.offered_id(state, position) != id {
            return self.size;
        }
        // SAFETY: the entry is valid, and we write it only under the lock; the kernel writes to it only
        // before it posts the completion for which this is asked.
        unsafe { (&raw const (*self.entry(position)).length).read() }.min(self.size)
    }

    /// Puts one buffer into the ring and shows it to the kernel.
    fn offer(&self, state: &mut State, id: u16) {
        let position = state.tail;
        if let Some(whereabouts) = self.whereabouts.get(usize::from(id)) {
            whereabouts.offer(position);
        }
        let entry = self.entry(position);
        // Not `address`, which would read one number more.
        // SAFETY: the offset is inside the block of `count * size` bytes.
        let start = unsafe { self.memory.start().add(usize::from(id) * self.size as usize) };
        let address = start.as_ptr().expose_provenance() as u64;
        // Both are read before anything is written: the compiler can't know that they lie elsewhere.
        let (length, tail) = (self.size, self.published_tail());
        // SAFETY: the place is valid and written by one thread at a time, under the lock (that is
        // what `state` shows); the kernel reads it after the tail was published. The tail, which
        // lies in the first entry, is not touched here.
        unsafe { (&raw mut (*entry).address).write(address) };
        // SAFETY: the same entry, under the same lock.
        unsafe { (&raw mut (*entry).length).write(length) };
        // SAFETY: the same entry, under the same lock.
        unsafe { (&raw mut (*entry).id).write(id) };
        state.tail = position.wrapping_add(1);
        tail.store(state.tail, Ordering::Release);
    }

    #[inline(always)]
    fn take_in(&self, state: &mut State, id: u16) {
        state.returned = state.returned.wrapping_add(1);
        // Also if no ring has registered the pool: nobody reads the entries then, and a ring that registers
        // it begins anew.
        self.offer(state, id);
    }
}

impl fmt::Debug for BufferPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufferPool")
            .field("capacity", &self.capacity())
            .field("buffer_size", &self.buffer_size())
            .field("available", &self.available())
            .finish()
    }
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message)
}

#[cfg(test)]
impl BufferPool {
    /// A pool that the ring with the number 1 has registered.
    pub(crate) fn registered(count: u16, size: u32) -> BufferPool {
        let pool = BufferPool::new(count, size).unwrap();
        pool.register(1, 0, Waker::new().unwrap(), Losses::none(), |_, _| Ok(())).unwrap();
        pool
    }
}
