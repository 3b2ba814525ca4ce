//! Our end of the completion queue: which completion is next, of those that are known of.
//!
//! A completion is first *posted*: the kernel has moved its tail past it. Then it is *known* of: that tail
//! was read ([`learn`](Completions::learn)), and the completion is one of the known ones that are left. Then
//! it was *seen*: it was [popped](Completions::pop). The kernel is told how many were seen when it is entered
//! next.
//!
//! # How the unsafe code stays right
//!
//! `next ≤ end`, and the completions from one to the other are there: either the kernel has posted them and
//! has not been told that they were seen, or they are `own`. If they are the kernel's, `end ≤ limit`. Until
//! the kernel is told, nobody else writes to the places of those that were seen.

use std::ptr::{self, NonNull};

use super::Cqe;
use crate::user_data::UserData;

/// See the [module documentation](self).
pub(crate) struct Completions {
    next: NonNull<Cqe>,
    end: NonNull<Cqe>,
    start: NonNull<Cqe>,
    capacity: u32,
    /// The end of the memory, if `end` lies in it; null if `end` is that of `own`, or if it is not known yet
    /// where the next completions are.
    limit: *const Cqe,
    /// The kernel's count up to `end`.
    known: u32,
    /// `known` when completions were last [learnt in parts](Self::learn_in_parts), which happens in each lap,
    /// and how many were seen in all by then.
    counted: (u32, u64),
    /// The kernel posts only when it is entered.
    posts_when_entered: bool,
    /// There may be more completions than are known of, although the kernel was not entered since.
    may_be_more: bool,
    /// A completion that the kernel did not post. (A pointer, because `Completions` may be moved.)
    own: NonNull<Cqe>,
}

// SAFETY: the memory is that of one ring, whose owner has this as well, and sends both; `own` is owned.
unsafe impl Send for Completions {}

impl Completions {
    /// The queue at `start`, of `capacity` completions, a power of two, which were seen up to `seen`.
    ///
    /// # Safety
    ///
    /// The memory is there for as long as this is used.
    pub(crate) unsafe fn new(
        start: NonNull<Cqe>,
        capacity: u32,
        seen: u32,
        posts_when_entered: bool,
    ) -> Completions {
        Completions {
            next: start,
            end: start,
            start,
            capacity,
            limit: ptr::null(),
            known: seen,
            counted: (seen, 0),
            posts_when_entered,
            may_be_more: !posts_when_entered,
            own: NonNull::from(Box::leak(Box::new(Cqe { user_data: 0, result: 0, flags: 0 }))),
        }
    }

    /// Whether no completion is known of.
    #[inline(always)]
    pub(crate) fn is_empty(&self) -> bool {
        self.next == self.end
    }

    /// Whether there may be more completions than are known of, although the kernel was not entered since.
    #[inline(always)]
    pub(crate) fn may_be_more(&self) -> bool {
        self.may_be_more
    }

    /// The tag of the next completion that is known of.
    #[inline(always)]
    pub(crate) fn next_tag(&self) -> Option<u8> {
        if self.is_empty() {
            return None;
        }
        // SAFETY: it is there, because it lies before `end`.
        let Cqe { user_data, .. } = unsafe { self.next.as_ref() };
        Some(UserData::tag(*user_data))
    }

    /// The next completion that is known of.
    #[inline(always)]
    pub(crate) fn pop(&mut self) -> Option<Cqe> {
        if self.is_empty() {
            return None;
        }
        // SAFETY: it is there, because it lies before `end`.
        let Cqe { user_data, result, flags } = unsafe { self.next.as_ref() };
        // Field by field, so that it is never put together in memory.
        let cqe = Cqe { user_data: *user_data, result: *result, flags: *flags };
        // SAFETY: the completion lies before `end`, so this is `end` at most.
        self.next = unsafe { self.next.add(1) };
        Some(cqe)
    }

    /// Up to where completions were seen, as the kernel counts.
    #[inline]
    pub(crate) fn seen(&self) -> u32 {
        if self.is_empty() { self.known } else { self.seen_of_known() }
    }

    /// How many of the kernel's completions were seen.
    pub(crate) fn total(&self) -> u64 {
        let (known, total) = self.counted;
        total + u64::from(self.seen().wrapping_sub(known))
    }

    #[cold]
    fn seen_of_known(&self) -> u32 {
        if self.end == self.own_end() {
            return self.known;
        }
        // SAFETY: both lie in the queue, in this order.
        self.known.wrapping_sub(unsafe { self.end.offset_from_unsigned(self.next) } as u32)
    }

    fn own_end(&self) -> NonNull<Cqe> {
        // SAFETY: this is the end of the completion that `own` points to.
        unsafe { self.own.add(1) }
    }

    /// Up to where completions were seen, when none is known of any more.
    #[inline]
    pub(crate) fn all_seen(&self) -> u32 {
        debug_assert!(self.is_empty());
        self.known
    }

    /// Learns of the next completions that lie in a row, at most `most` of them. All up to `posted` are
    /// there, and none is known of any more. Returns false if there are none. Returns true, although none is
    /// learnt, if there seem to be more than the queue can hold.
    ///
    /// # Safety
    ///
    /// The kernel has posted all completions up to `posted`, and has not been told that more than
    /// [`all_seen`](Self::all_seen) were seen.
    #[inline(always)]
    pub(crate) unsafe fn learn(&mut self, posted: u32, most: u32) -> bool {
        let count = posted.wrapping_sub(self.all_seen());
        if count == 0 {
            return false;
        }
        let end = self.next.as_ptr().wrapping_add(count as usize);
        if end.cast_const() <= self.limit && count <= most {
            self.known = posted;
            // SAFETY: `end` is not beyond the limit, so the limit is not null: the completions lie where the
            // last ones ended, and not beyond the memory.
            self.end = unsafe { NonNull::new_unchecked(end) };
        } else {
            self.learn_in_parts(count, most);
        }
        true
    }

    /// Learns of as many of `all` completions as lie in a row, at most `most` of them.
    #[cold]
    #[inline(never)]
    fn learn_in_parts(&mut self, all: u32, most: u32) {
        if all > self.capacity {
            // In a forked child, nothing is what it was: none is there, and none is looked for again.
            self.known = self.known.wrapping_add(all);
            return;
        }
        self.counted = (self.known, self.total());
        let index = self.known & (self.capacity - 1);
        let count = all.min(self.capacity - index).min(most);
        self.may_be_more = count < all || !self.posts_when_entered;
        self.known = self.known.wrapping_add(count);
        // SAFETY: the index is below the capacity.
        self.next = unsafe { self.start.add(index as usize) };
        // SAFETY: the index and the count add up to the capacity at most.
        self.end = unsafe { self.next.add(count as usize) };
        // SAFETY: this is the end of the memory.
        self.limit = unsafe { self.start.add(self.capacity as usize) }.as_ptr();
    }

    /// Forgets the completions that are known of, so that they must be looked for again; but not one that was
    /// [put](Self::put).
    pub(crate) fn forget(&mut self) {
        if self.end != self.own_end() {
            self.known = self.seen();
            self.end = self.next;
            self.look_anew();
        }
    }

    /// Makes this completion, which is not the kernel's, the only one that is known of.
    pub(crate) fn put(&mut self, own: Cqe) {
        self.known = self.seen();
        // SAFETY: `own` is owned by this, and is only read through `next`, by this.
        unsafe { self.own.write(own) };
        self.next = self.own;
        self.end = self.own_end();
        self.look_anew();
    }

    /// Notes that what is known of no longer tells where the next completions are, or whether there are any.
    fn look_anew(&mut self) {
        self.limit = ptr::null();
        self.may_be_more = true;
    }
}

impl Drop for Completions {
    fn drop(&mut self) {
        // SAFETY: leaked by `new`, taken back once.
        drop(unsafe { Box::from_raw(self.own.as_ptr()) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(user_data: u64) -> Cqe {
        Cqe { user_data, result: 0, flags: 0 }
    }

    fn popped(completions: &mut Completions) -> Vec<u64> {
        std::iter::from_fn(|| completions.pop()).map(|cqe| cqe.user_data).collect()
    }

    #[test]
    fn one_of_its_own_is_not_forgotten() {
        let mut memory = vec![number(0); 2];
        // SAFETY: the memory outlives it.
        let mut completions =
            unsafe { Completions::new(NonNull::new(memory.as_mut_ptr()).unwrap(), 2, 0, true) };
        completions.put(number(77));
        completions.forget();
        assert_eq!((popped(&mut completions), completions.seen()), (vec![77], 0));
    }

    #[test]
    fn what_is_known_of_in_part_is_looked_for_before_a_wait() {
        for posts_when_entered in [false, true] {
            let mut memory = vec![number(0); 4];
            let start = NonNull::new(memory.as_mut_ptr()).unwrap();
            // SAFETY: the memory outlives it.
            let mut completions = unsafe { Completions::new(start, 4, 0, posts_when_entered) };
            let mut learn = |posted, most| {
                // SAFETY: what is posted is what lies there.
                assert!(unsafe { completions.learn(posted, most) });
                (popped(&mut completions).len(), completions.may_be_more())
            };
            let all = !posts_when_entered;
            assert_eq!(learn(1, u32::MAX), (1, all));
            assert_eq!(learn(2, u32::MAX), (1, all), "beyond the last, without a look at where it is");
            assert_eq!(learn(5, u32::MAX), (2, true), "up to the end of the memory");
            assert_eq!(learn(5, u32::MAX), (1, all));
            assert_eq!(learn(7, 1), (1, true));
        }
    }

    #[test]
    fn completions_come_in_order_and_own_ones_between_them() {
        for first in [0, 3, u32::MAX - 1] {
            let mut memory = vec![number(0); 4];
            let mut posted = first;
            let start = NonNull::new(memory.as_mut_ptr()).unwrap();
            // SAFETY: the memory outlives it.
            let mut completions = unsafe { Completions::new(start, 4, first, true) };
            assert!(completions.is_empty());
            let mut next = 0;
            for count in [1, 4, 2, 3, 4] {
                for user_data in next..next + count {
                    // SAFETY: the index is below four.
                    unsafe { start.add((posted & 3) as usize).write(number(user_data)) };
                    posted = posted.wrapping_add(1);
                }
                // SAFETY: all up to `posted` were written above.
                assert!(unsafe { completions.learn(posted, 1) });
                assert_eq!(popped(&mut completions), [next]);
                completions.put(number(77));
                assert!(completions.limit.is_null(), "what comes after it does not lie there");
                assert!(completions.may_be_more());
                assert_eq!(completions.seen(), posted.wrapping_sub(count as u32 - 1));
                assert_eq!(popped(&mut completions), [77]);
                let mut rest = Vec::new();
                while completions.seen() != posted {
                    // SAFETY: all up to `posted` were written above.
                    assert!(unsafe { completions.learn(posted, u32::MAX) });
                    rest.extend(completions.pop().map(|cqe| cqe.user_data));
                    completions.forget();
                    assert!(completions.is_empty(), "forgotten, but not seen");
                    assert!(completions.may_be_more());
                }
                assert!(rest.into_iter().eq(next + 1..next + count));
                next += count;
                assert_eq!(completions.total(), next, "its own are not counted");
            }
        }
    }
}
