//! Several buffers that one completion is about.

use std::fmt;
use std::sync::Arc;

use super::{Buffer, BufferPool, Shared};

/// Bytes that were received, in one buffer or more of a [`BufferPool`](crate::BufferPool): an iterator over these.
///
/// In order: all but the last are full. Those that are not taken out go back to the pool when it is dropped. At the end
/// of a stream there is none.
pub struct Buffers {
    /// The next one to come, and how many bytes are in it and those after it.
    rest: Option<(Arc<Shared>, u16)>,
    bytes: u32,
}

impl BufferPool {
    /// Holds the buffers that a completion of a bundle is about, for [`Buffers`] to be made of them: the `first`, and
    /// as many as have room for so many bytes.
    ///
    /// `None` if the pool has no such buffer, or the kernel can't have had it. Fewer, if that is so of one that would
    /// have to come next. Says how many bytes can be in them.
    ///
    /// # Safety
    ///
    /// As of [`hold`](Self::hold).
    pub(crate) unsafe fn hold_bundle(&self, first: u16, bytes: u32) -> Option<(Arc<Shared>, u32)> {
        let shared = &self.shared;
        let state = shared.state.lock();
        let mut last = shared.whereabouts.get(usize::from(first))?;
        let begin = last.offered()?;
        last.hold();
        let mut count = 1;
        while count < bytes.div_ceil(shared.size) {
            let position = begin.wrapping_add(count as u16);
            let id = shared.offered_id(&state, position);
            let Some(next) = shared.whereabouts.get(usize::from(id)) else { break };
            if next.offered() != Some(position) {
                break;
            }
            next.hold();
            last.follow_by(id);
            (last, count) = (next, count + 1);
        }
        shared.count_taken(count);
        Some((Arc::clone(shared), bytes.min(count.saturating_mul(shared.size))))
    }
}

impl Buffers {
    /// No buffer.
    pub const fn empty() -> Buffers {
        Buffers { rest: None, bytes: 0 }
    }

    /// The buffers that begin with this one, with so many bytes in them.
    ///
    /// # Safety
    ///
    /// [`BufferPool::hold_bundle`] has returned this pool and so many bytes for it, and this is done once.
    pub(crate) unsafe fn of(pool: Arc<Shared>, first: u16, bytes: u32) -> Buffers {
        Buffers { rest: Some((pool, first)), bytes }
    }

    /// How many bytes are in those that were not taken out.
    pub fn byte_count(&self) -> usize {
        self.bytes as usize
    }
}

impl From<Buffer> for Buffers {
    fn from(mut buffer: Buffer) -> Buffers {
        let bytes = buffer.length;
        let first = buffer.id();
        // It stays held, and none comes after it.
        Buffers { rest: buffer.pool.take().map(|pool| (pool, first)), bytes }
    }
}

impl Iterator for Buffers {
    type Item = Buffer;

    fn next(&mut self) -> Option<Buffer> {
        let (pool, id) = self.rest.take()?;
        let length = self.bytes.min(pool.size);
        self.bytes -= length;
        if let Some(this) = pool.whereabouts.get(usize::from(id))
            && let Some(next) = this.next()
        {
            self.rest = Some((Arc::clone(&pool), next));
            // It is alone from here on, also if it is made `Buffers` again.
            this.hold();
        }
        // SAFETY: it was held for this, which has moved on to the next.
        Some(unsafe { Buffer::of(pool, id, length) })
    }
}

impl std::iter::FusedIterator for Buffers {}

impl Drop for Buffers {
    fn drop(&mut self) {
        self.for_each(drop);
    }
}

impl fmt::Debug for Buffers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffers").field("byte_count", &self.byte_count()).finish_non_exhaustive()
    }
}
