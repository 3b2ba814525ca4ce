//! A buffer that is held, and how it goes back to its pool.

use std::fmt;
use std::num::NonZeroU32;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;

use super::{Shared, State};
use crate::lock::Guard;

/// The pool of a buffer that is held, for whoever holds it. Good until the buffer is given back.
#[derive(Clone, Copy)]
pub(crate) struct Lender(pub(super) NonNull<Shared>);

// SAFETY: it is a reference to a `Shared`, which may be shared between threads, as this asserts.
unsafe impl Send for Lender where Shared: Sync {}
// SAFETY: it is a reference to a `Shared`, which may be shared between threads, as this asserts.
unsafe impl Sync for Lender where Shared: Sync {}

impl Deref for Lender {
    type Target = Shared;

    #[inline(always)]
    fn deref(&self) -> &Shared {
        // SAFETY: the buffer is held, and what is held keeps its pool (see the module's documentation), and with it
        // the stretches by which it lends pieces.
        unsafe { self.0.as_ref() }
    }
}

impl Lender {
    /// Takes a buffer back from its holder.
    ///
    /// Nothing of the pool is touched once the lock is left: from then on, somebody else may give back the
    /// last buffer, and the ring its registration. What is unusual is done in another function, together with
    /// all that is left to do, so that nothing needs to be kept across a call.
    #[inline(never)]
    fn give_back(self, id: u16) {
        let Some(mut state) = self.state.try_lock() else { return self.give_back_slowly(id) };
        self.take_in(&mut state, id);
        match state.awaited | state.kept {
            false => drop(state),
            true => self.look_after(state),
        }
    }

    #[cold]
    #[inline(never)]
    fn give_back_slowly(self, id: u16) {
        if self.give_piece_back(id) {
            return;
        }
        let mut state = self.state.lock();
        self.take_in(&mut state, id);
        self.look_after(state);
    }

    /// Wakes the ring if one of its streams waits for a buffer, and gives up the share of what is held if
    /// nothing is held.
    #[cold]
    #[inline(never)]
    pub(super) fn look_after(self, mut state: Guard<'_, State>) {
        if std::mem::take(&mut state.awaited)
            && let Some(waker) = &state.waker
        {
            waker.wake();
        }
        let was_last = state.kept && self.held_count(&state) == 0 && state.pieces == 0;
        if was_last {
            state.kept = false;
        }
        drop(state);
        if was_last {
            // SAFETY: `keep` has forgotten this share, once, and nobody needs it any more. The pointer is that of
            // an `Arc` (`BufferPool::lender`, or for pieces `Shared::incremental`).
            unsafe { Arc::decrement_strong_count(self.0.as_ptr()) };
        }
    }
}

/// Bytes that were received, in a buffer of a [`BufferPool`](crate::BufferPool).
///
/// Owns its memory until it is dropped: it may be moved into the data of another request (an echo copies
/// nothing), kept, or sent to another thread. When it is dropped, in whatever thread, the buffer goes back to
/// the pool, and a stream that waits for one goes on.
///
/// At the end of a stream the buffer is empty.
pub struct Buffer {
    /// `None` for the empty buffer that takes no memory of a pool.
    pool: Option<Lender>,
    length: u32,
    /// The number in the upper half, as in the flags of a completion. The lower half is 1, so that zero is a
    /// spare value, in which an enum that has a buffer keeps its tag.
    place: NonZeroU32,
}

const _: () = assert!(size_of::<Buffer>() == 16 && size_of::<Result<Buffer, u32>>() == 16);

impl Buffer {
    /// A buffer without bytes and without a pool.
    pub const fn empty() -> Buffer {
        Buffer { pool: None, length: 0, place: NonZeroU32::MIN }
    }

    /// The buffer with the number `id`, with `length` bytes in it, or as many as there is room for.
    ///
    /// # Safety
    ///
    /// [`BufferPool::hold`](super::BufferPool::hold) has returned this pool for this number, and this is called once for that.
    #[inline(always)]
    pub(crate) unsafe fn of(pool: Lender, id: u16, length: u32) -> Buffer {
        let length = length.min(pool.size);
        Buffer { pool: Some(pool), length, place: NonZeroU32::MIN | u32::from(id) << 16 }
    }

    /// Its pool and its number, from which [`of`](Self::of) makes a buffer again; `None` if it has no
    /// memory of a pool.
    pub(crate) fn into_parts(mut self) -> Option<(Lender, u16)> {
        let id = self.id();
        self.pool.take().map(|pool| (pool, id))
    }

    #[inline(always)]
    pub(super) fn id(&self) -> u16 {
        (self.place.get() >> 16) as u16
    }

    #[inline]
    fn bytes(&self) -> NonNull<[u8]> {
        let start = match &self.pool {
            Some(pool) => pool.address(self.id()),
            None => NonNull::dangling(),
        };
        NonNull::slice_from_raw_parts(start, self.length as usize)
    }
}

impl Deref for Buffer {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: the memory is initialised (it was zeroed), held by this buffer alone, and there for as long
        // as the buffer is; an empty buffer has no bytes.
        unsafe { self.bytes().as_ref() }
    }
}

impl DerefMut for Buffer {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: the memory is initialised, held by this buffer alone, and there for as long as the buffer
        // is; `self` is borrowed exclusively.
        unsafe { self.bytes().as_mut() }
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl AsMut<[u8]> for Buffer {
    fn as_mut(&mut self) -> &mut [u8] {
        self
    }
}

impl Default for Buffer {
    fn default() -> Buffer {
        Buffer::empty()
    }
}

impl Drop for Buffer {
    #[inline]
    fn drop(&mut self) {
        let id = self.id();
        if let Some(pool) = self.pool.take() {
            pool.give_back(id);
        }
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer").field("id", &self.id()).field("length", &self.length).finish()
    }
}
