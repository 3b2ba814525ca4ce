//! Several buffers that one completion is about.

use std::fmt;
use std::ptr::NonNull;

use super::{Buffer, BufferPool, Lender};

/// Bytes that were received, in one or more buffers of a [`BufferPool`](crate::BufferPool): an iterator over
/// the buffers.
///
/// The buffers come in order, and all but the last are full. Those that are not taken out go back to the pool
/// when this is dropped. At the end of a stream there are none.
pub struct Buffers {
    /// The next one to come; and how many bytes are in it and in those after it.
    rest: Option<(Lender, u16)>,
    bytes: u32,
}

impl BufferPool {
    /// Holds the buffers that a completion of a bundle is about, so that [`Buffers`] can be made of them: the
    /// `first`, and as many after it as it takes to have room for `bytes`. Also returns how many bytes can be
    /// in them.
    ///
    /// `None` if the pool has no such buffer, or the kernel can't have had it. If that is so of one that
    /// would have to come next, fewer are held.
    ///
    /// # Safety
    ///
    /// The same as for [`hold`](Self::hold).
    pub(crate) unsafe fn hold_bundle(&self, first: u16, bytes: u32) -> Option<(Lender, u32)> {
        let shared = &self.shared;
        let state = shared.state.lock();
        let mut last = shared.whereabouts.get(usize::from(first))?;
        let begin = last.offered()?;
        last.hold();
        let in_first = shared.offered_length(&state, begin, first);
        let wanted = 1 + bytes.saturating_sub(in_first).div_ceil(shared.size);
        let mut count = 1;
        while count < wanted {
            let position = begin.wrapping_add(count as u16);
            let Some((id, next)) = shared.offered_at(&state, position) else { break };
            next.hold();
            last.follow_by(id);
            (last, count) = (next, count + 1);
        }
        drop(state);
        shared.count_taken(count);
        let bytes = bytes.min((count - 1).saturating_mul(shared.size).saturating_add(in_first));
        if count > 1 && in_first < shared.size {
            // SAFETY: they were held above, and nobody has them yet.
            unsafe { pack(self.lender(), first, in_first, bytes) };
        }
        Some((self.lender(), bytes))
    }
}

/// Moves the bytes in these buffers together, so that all but the last are full although only a part of the
/// first was filled. Gives back a last one in which nothing is left.
///
/// When the kernel knows that fewer bytes are there than a buffer has room for, it shortens what is offered.
/// If somebody else has read those from the socket by then, the buffer stays offered like this, and more
/// bytes come to lie behind it (6.18, `io_ring_buffers_peek`).
///
/// # Safety
///
/// They are held as the buffers of one bundle with this many bytes, and belong to the caller.
#[cold]
unsafe fn pack(shared: Lender, first: u16, in_first: u32, bytes: u32) {
    let whereabouts = |id: u16| shared.whereabouts.get(usize::from(id));
    let ids: Vec<u16> = std::iter::successors(Some(first), |id| whereabouts(*id)?.next()).collect();
    let memory = |id: u16, length: u32| {
        // SAFETY: the buffer is held, so it is one of the pool, and the caller's; there is one reference to it
        // at a time.
        unsafe { NonNull::slice_from_raw_parts(shared.address(id), length as usize).as_mut() }
    };
    let mut all = Vec::with_capacity(bytes as usize);
    for id in &ids {
        let length = if *id == first { in_first } else { shared.size };
        all.extend_from_slice(memory(*id, length));
    }
    all.truncate(bytes as usize);
    let parts = all.chunks(shared.size as usize);
    if let [.., before, last] = ids[..]
        && parts.len() < ids.len()
    {
        if let Some(before) = whereabouts(before) {
            before.hold();
        }
        // SAFETY: it is held, and a part of nothing else any more.
        drop(unsafe { Buffer::of(shared, last, 0) });
    }
    for (id, part) in ids.iter().zip(parts) {
        memory(*id, part.len() as u32).copy_from_slice(part);
    }
}

impl Buffers {
    /// No buffer.
    pub const fn empty() -> Buffers {
        Buffers { rest: None, bytes: 0 }
    }

    /// The buffers that begin with `first`, with `bytes` bytes in them.
    ///
    /// # Safety
    ///
    /// [`BufferPool::hold_bundle`] has returned this pool and this number of bytes for it, and this is called
    /// once for that.
    pub(crate) unsafe fn of(pool: Lender, first: u16, bytes: u32) -> Buffers {
        Buffers { rest: Some((pool, first)), bytes }
    }

    /// How many bytes are in the buffers that were not taken out.
    pub fn byte_count(&self) -> usize {
        self.bytes as usize
    }
}

impl From<Buffer> for Buffers {
    fn from(buffer: Buffer) -> Buffers {
        let bytes = buffer.len() as u32;
        // The buffer stays held, and none comes after it.
        Buffers { rest: buffer.into_parts(), bytes }
    }
}

impl Default for Buffers {
    fn default() -> Buffers {
        Buffers::empty()
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
            self.rest = Some((pool, next));
            // It stands alone from here on, even if it is made `Buffers` again.
            this.hold();
        }
        // SAFETY: it was held for this iterator, which has moved on to the next.
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

#[cfg(test)]
mod tests {
    use super::super::tests::workers;
    use super::*;
    use std::panic::{RefUnwindSafe, UnwindSafe};
    use std::sync::atomic::Ordering;
    use std::sync::mpsc::Receiver;

    const SIZE: u32 = 4;

    /// Its buffers are offered in the order of their numbers.
    fn pool(count: u16) -> BufferPool {
        BufferPool::registered(count, SIZE)
    }

    fn one(pool: &BufferPool, id: u16) -> Buffer {
        // SAFETY: in each of these tests, one thread does this.
        let shared = unsafe { pool.hold(id) }.unwrap();
        // SAFETY: `hold` has just returned this pool for it, and this is done once.
        unsafe { Buffer::of(shared, id, SIZE) }
    }

    fn bundle(pool: &BufferPool, first: u16, bytes: u32) -> Option<Buffers> {
        // SAFETY: in each of these tests, one thread does this.
        let held = unsafe { pool.hold_bundle(first, bytes) };
        // SAFETY: `hold_bundle` has just returned these, and this is done once.
        held.map(|(shared, bytes)| unsafe { Buffers::of(shared, first, bytes) })
    }

    /// Offers all buffers anew, in this order.
    fn offer(pool: &BufferPool, order: &[u16]) {
        let held: Vec<_> = order.iter().map(|id| one(pool, *id)).collect();
        held.into_iter().for_each(drop);
    }

    /// The number of each, and how many bytes are in it.
    fn parts(buffers: &[Buffer]) -> Vec<(u16, usize)> {
        buffers.iter().map(|buffer| (buffer.id(), buffer.len())).collect()
    }

    fn parts_of(buffers: Buffers) -> Vec<(u16, usize)> {
        parts(&buffers.collect::<Vec<_>>())
    }

    #[test]
    fn they_come_in_the_order_in_which_they_were_offered() {
        // The positions in the ring wrap every 65536.
        const ROUNDS: u16 = if cfg!(miri) { 20 } else { 16_000 };
        // Their number is no power of two, so that they are elsewhere in the ring each time.
        let pool = pool(5);
        for round in 0..ROUNDS {
            let order = [3, 0, 4, 1, 2].map(|id| (id + round) % 5);
            offer(&pool, &order);
            let buffers = bundle(&pool, order[1], 3 * SIZE - 1).unwrap();
            assert_eq!((buffers.byte_count(), pool.available()), (11, 2));
            let buffers: Vec<_> = buffers.collect();
            assert_eq!(parts(&buffers), [(order[1], 4), (order[2], 4), (order[3], 3)]);
            drop(buffers);
            assert_eq!(pool.available(), 5);
        }
    }

    #[test]
    fn there_are_as_many_as_the_bytes_take() {
        for (bytes, lengths) in [(1, &[1][..]), (4, &[4]), (5, &[4, 1]), (8, &[4, 4]), (9, &[4, 4, 1])] {
            let pool = pool(4);
            let buffers = bundle(&pool, 0, bytes).unwrap();
            assert_eq!(pool.available(), 4 - lengths.len(), "of {bytes} bytes");
            assert!(buffers.map(|buffer| buffer.len()).eq(lengths.iter().copied()));
            assert_eq!(pool.available(), 4);
        }
        assert_eq!((Buffers::empty().byte_count(), Buffers::empty().count()), (0, 0));
    }

    /// A completion that others have overtaken: buffers were given back and offered again since. Kernels
    /// before 6.15 posted the last completion of a stream later than those of other streams.
    #[test]
    fn others_may_be_offered_again_before_it_is_known_which_they_are() {
        for rounds in [0, 1, 2, 7, 1000] {
            let pool = pool(8);
            // The kernel has taken 0, 1, 2 and 3.
            for _ in 0..rounds {
                offer(&pool, &[4, 5, 6, 7]);
            }
            let buffers = bundle(&pool, 0, 4 * SIZE - 1).unwrap();
            assert_eq!(parts_of(buffers), [(0, 4), (1, 4), (2, 4), (3, 3)], "{rounds} rounds");
            assert_eq!(pool.available(), 8);
        }
    }

    #[test]
    fn one_that_is_held_ends_them_early() {
        let pool = pool(4);
        let held = one(&pool, 2);
        let buffers = bundle(&pool, 0, 4 * SIZE).unwrap();
        assert_eq!((buffers.byte_count(), pool.available()), (8, 1), "3 is no part of it");
        assert_eq!(parts_of(buffers), [(0, 4), (1, 4)]);
        assert!(bundle(&pool, 2, 1).is_none(), "the kernel can't have had it");
        assert!(bundle(&pool, 4, 1).is_none(), "there is no such buffer");
        drop(held);
        assert_eq!(pool.available(), 4);
    }

    #[test]
    fn there_are_no_more_of_them_than_were_offered() {
        let pool = pool(3);
        let buffers = bundle(&pool, 1, u32::MAX).unwrap();
        assert_eq!(buffers.byte_count(), 8, "behind the last there is what was never offered");
        drop(buffers);
        // Now 1 and 2 are offered after 0, and 0 is the last in the memory of the ring.
        offer(&pool, &[1, 2, 0]);
        assert_eq!(parts_of(bundle(&pool, 2, u32::MAX).unwrap()), [(2, 4), (0, 4)]);
    }

    #[test]
    fn an_entry_of_another_lap_is_not_taken_for_the_next() {
        let pool = pool(4);
        // Their new entries are where those of 0 and 1 were.
        offer(&pool, &[2]);
        offer(&pool, &[3]);
        assert_eq!(parts_of(bundle(&pool, 0, 4 * SIZE).unwrap()), [(0, 4), (1, 4)]);
    }

    #[test]
    fn what_was_offered_short_is_filled_up() {
        for in_first in 1..SIZE {
            for bytes in 1..=4 * SIZE - (SIZE - in_first) {
                let pool = pool(5);
                offer(&pool, &[2, 0, 4, 1, 3]);
                let begin = pool.shared.whereabouts[2].offered().unwrap();
                // As the kernel does it.
                let entry = pool.shared.entry(begin);
                // SAFETY: it is there, and nobody reads it meanwhile.
                unsafe { (&raw mut (*entry).length).write(in_first) };
                let mut number = 0;
                for (id, room) in [(2, in_first), (0, SIZE), (4, SIZE), (1, SIZE)] {
                    for at in 0..room as usize {
                        // SAFETY: nobody has the buffer.
                        unsafe { pool.shared.address(id).add(at).write(number) };
                        number += 1;
                    }
                }
                let buffers: Vec<_> = bundle(&pool, 2, bytes).unwrap().collect();
                let received: Vec<u8> = buffers.iter().flat_map(|buffer| buffer.to_vec()).collect();
                assert!(received.into_iter().eq(0..bytes as u8), "{bytes} of which {in_first}");
                let full = buffers.iter().rev().skip(1).all(|buffer| buffer.len() == SIZE as usize);
                assert!(full && buffers.last().is_some_and(|last| !last.is_empty()), "{buffers:?}");
                assert_eq!(pool.available(), 5 - buffers.len());
                drop(buffers);
                assert_eq!(pool.available(), 5);
            }
        }
    }

    #[test]
    fn those_that_are_not_taken_out_go_back() {
        let pool = pool(8);
        for taken_out in 0..=5 {
            let mut buffers = bundle(&pool, 0, 5 * SIZE).unwrap();
            let kept: Vec<_> = buffers.by_ref().take(taken_out).collect();
            assert_eq!((buffers.byte_count(), pool.available()), (4 * (5 - taken_out), 3));
            drop(buffers);
            assert_eq!(pool.available(), 8 - taken_out);
            drop(kept);
            // In the old order.
            offer(&pool, &[0, 1, 2, 3, 4, 5, 6, 7]);
        }
    }

    #[test]
    fn one_that_was_taken_out_is_alone() {
        for which in 0..3 {
            let pool = pool(4);
            let mut buffers = bundle(&pool, 0, 3 * SIZE).unwrap();
            let alone = Buffers::from(buffers.nth(which).unwrap());
            assert_eq!(alone.byte_count(), 4);
            drop(buffers);
            assert_eq!(pool.available(), 3);
            assert_eq!(parts_of(alone), [(which as u16, 4)]);
            assert_eq!(pool.available(), 4);
        }
        assert_eq!(Buffers::from(Buffer::empty()).count(), 0);
    }

    #[test]
    fn a_bundle_that_many_threads_hand_on_is_held_by_one() {
        const ROUNDS: usize = if cfg!(miri) { 100 } else { 10_000 };
        let pool = pool(7);
        let work = |bundles: Receiver<Buffers>| {
            for (round, buffers) in (0_u32..).zip(bundles) {
                let mut buffers: Vec<_> = buffers.collect();
                for buffer in &mut buffers {
                    buffer.copy_from_slice(&round.to_ne_bytes());
                }
                std::hint::spin_loop();
                assert!(buffers.iter().all(|buffer| **buffer == round.to_ne_bytes()), "nobody else has them");
            }
        };
        std::thread::scope(|scope| {
            let threads = workers(scope, 3, &work);
            let (mut head, mut round) = (0_u16, 0);
            while round < ROUNDS {
                // As the kernel does it: what is offered, in order.
                let offered = pool.shared.published_tail().load(Ordering::Acquire).wrapping_sub(head);
                let count = offered.min(1 + round as u16 % 4);
                if count == 0 {
                    std::thread::yield_now();
                    continue;
                }
                let first = pool.shared.offered_id(&pool.shared.state.lock(), head);
                let buffers = bundle(&pool, first, u32::from(count) * SIZE).unwrap();
                assert_eq!(buffers.byte_count(), usize::from(count) * SIZE as usize);
                head = head.wrapping_add(count);
                threads[round % 3].send(buffers).unwrap();
                round += 1;
            }
        });
        assert_eq!(pool.available(), 7);
    }

    #[test]
    fn they_may_go_anywhere() {
        fn goes_anywhere<T: Send + Sync + UnwindSafe + RefUnwindSafe>() {}
        goes_anywhere::<Buffers>();
        let pool = pool(2);
        let buffers = bundle(&pool, 0, 5).unwrap();
        assert_eq!(format!("{buffers:?}"), "Buffers { byte_count: 5, .. }");
        pool.unregister();
        drop(pool);
        assert_eq!(buffers.map(|buffer| buffer.len()).sum::<usize>(), 5, "they outlive their pool");
    }
}
