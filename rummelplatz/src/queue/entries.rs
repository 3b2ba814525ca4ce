//! Our end of the submission queue: where the next entry goes, and up to where entries may go without any
//! further check.
//!
//! Both are pointers into the queue, so that the common case is one comparison, the entry itself, and one
//! addition. An open place lies before the end of the memory; going round takes a further check.
//!
//! Wherever a place is open, the part that a [usual](Usual) entry does not write is zero. That is so by
//! itself as long as all entries are usual ones; after others, places are cleared before they are opened.
//!
//! # How the unsafe code stays right
//!
//! `start ≤ next ≤ open_until ≤ start + capacity`, and the places from `next` to `open_until` are ours:
//! the kernel has taken in what was there, and has not been told of what will be.

use std::ptr::NonNull;

use io_uring::squeue::Entry;

use crate::request::sqe::{self, Usual};

/// See the [module documentation](self).
pub(crate) struct Entries {
    next: NonNull<Entry>,
    open_until: NonNull<Entry>,
    start: NonNull<Entry>,
    capacity: u32,
    /// The tail when `next` was `start`.
    lap: u32,
    /// Up to this index, the part that a usual entry does not write is zero in places that were not written
    /// to since.
    clear_until: u32,
    /// Entries other than usual ones were written in this lap, or may have been.
    is_unclear: bool,
}

// SAFETY: the memory is that of one ring, whose owner has this as well, and sends both.
unsafe impl Send for Entries {}

impl Entries {
    /// The queue at `start`, of `capacity` entries, a power of two, whose tail is `tail`.
    ///
    /// # Safety
    ///
    /// The memory stays there, and nobody else in this process writes to it, for as long as this is used.
    pub(crate) unsafe fn new(start: NonNull<Entry>, capacity: u32, tail: u32) -> Entries {
        let index = tail & (capacity - 1);
        // SAFETY: the index is below the capacity.
        let next = unsafe { start.add(index as usize) };
        let lap = tail.wrapping_sub(index);
        // Nothing is known of what is in the memory.
        Entries { next, open_until: next, start, capacity, lap, clear_until: index, is_unclear: true }
    }

    /// Where the next entry goes: from 0 up to the capacity, which is behind the last place.
    #[inline]
    fn index(&self) -> u32 {
        // SAFETY: both lie in the queue.
        unsafe { self.next.offset_from_unsigned(self.start) as u32 }
    }

    /// The end of the entries, as the kernel counts.
    #[inline]
    pub(crate) fn tail(&self) -> u32 {
        self.lap.wrapping_add(self.index())
    }

    /// How many entries can be written when the kernel has taken in all up to `taken_in`. Zero if it can't
    /// have: in a [forked](crate::forked) child, nothing is what it was.
    #[inline]
    pub(crate) fn room(&self, taken_in: u32) -> u32 {
        self.capacity.saturating_sub(self.tail().wrapping_sub(taken_in))
    }

    /// Opens as many places in a row as there are, now that the kernel has taken in all up to `taken_in`.
    ///
    /// # Safety
    ///
    /// The kernel has taken in all entries up to `taken_in`.
    #[inline]
    pub(crate) unsafe fn open(&mut self, taken_in: u32) {
        let mut index = self.index();
        if index == self.capacity {
            self.next = self.start;
            self.lap = self.lap.wrapping_add(self.capacity);
            self.clear_until = if self.is_unclear { 0 } else { self.capacity };
            self.is_unclear = false;
            index = 0;
        }
        let places = self.room(taken_in).min(self.capacity - index);
        let end = index + places;
        if end > self.clear_until {
            // SAFETY: there is room for this many entries, so all of these places are ours.
            unsafe { self.clear(end) };
        }
        // SAFETY: the end lies in the queue, or right after it.
        self.open_until = unsafe { self.next.add(places as usize) };
    }

    /// Clears the places that are not clear yet, up to an index.
    ///
    /// # Safety
    ///
    /// The places from `clear_until` to `until` lie in the queue, and the kernel does not read them.
    #[cold]
    unsafe fn clear(&mut self, until: u32) {
        for index in self.clear_until..until {
            // SAFETY: it is one of the places from `clear_until` to `until`, for which the caller answers.
            unsafe { sqe::clear_rest(self.start.add(index as usize)) };
        }
        self.clear_until = until;
    }

    /// Closes all places.
    #[inline]
    pub(crate) fn close(&mut self) {
        self.open_until = self.next;
    }

    /// Whether no place is open.
    #[inline(always)]
    pub(crate) fn is_closed(&self) -> bool {
        self.next == self.open_until
    }

    /// How many places are open.
    #[inline]
    pub(crate) fn open_places(&self) -> usize {
        // SAFETY: both lie in the queue, in this order.
        unsafe { self.open_until.offset_from_unsigned(self.next) }
    }

    /// An open place, and its index.
    #[inline(always)]
    pub(crate) fn place(&mut self) -> Option<Place<'_>> {
        (!self.is_closed()).then_some(Place { next: self.next, entries: self })
    }
}

/// An open place for one entry.
pub(crate) struct Place<'e> {
    next: NonNull<Entry>,
    entries: &'e mut Entries,
}

impl Place<'_> {
    /// Which of the queue's places it is.
    pub(crate) fn index(&self) -> usize {
        self.entries.index() as usize
    }

    /// Writes the entry, which the kernel will see when it is told of the new tail.
    ///
    /// # Safety
    ///
    /// What the entry points to stays good until its final completion; or, if the kernel reads it only when
    /// it takes the entry in, until then.
    #[inline(always)]
    pub(crate) unsafe fn fill(self, entry: Entry) {
        // SAFETY: `Entries::place` made this because the place is open: it is in the queue, and ours.
        unsafe { self.next.write(entry) };
        self.entries.is_unclear = true;
        self.end();
    }

    /// As [`fill`](Self::fill), for a usual entry.
    ///
    /// # Safety
    ///
    /// The same as for [`fill`](Self::fill).
    #[inline(always)]
    pub(crate) unsafe fn fill_as_usual(self, entry: Usual, user_data: u64) {
        // SAFETY: `Entries::place` made this because the place is open: it is in the queue, it is ours, and
        // its rest is zero.
        unsafe { entry.write(self.next, user_data) };
        self.end();
    }

    /// As [`fill_as_usual`](Self::fill_as_usual), for an entry with the index of registered memory, or the
    /// group of buffers.
    ///
    /// # Safety
    ///
    /// The same as for [`fill`](Self::fill).
    #[inline(always)]
    pub(crate) unsafe fn fill_with_index(self, entry: Usual, user_data: u64, index: u16) {
        // For what was registered first the index is zero, which is there already.
        if index != 0 {
            // SAFETY: `Entries::place` made this because the place is open: it is in the queue, and ours.
            unsafe { sqe::write_index(self.next, index) };
            self.entries.is_unclear = true;
        }
        // SAFETY: the contract is the same, and the caller keeps it.
        unsafe { self.fill_as_usual(entry, user_data) };
    }

    #[inline(always)]
    fn end(self) {
        // SAFETY: the place was open, so it is not the end of the queue.
        self.entries.next = unsafe { self.next.add(1) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::sqe::bytes;
    use io_uring::opcode;
    use io_uring::types::Fd;

    /// Fills all open places with numbered entries.
    fn fill(entries: &mut Entries, number: &mut u64) -> usize {
        let mut filled = 0;
        while let Some(place) = entries.place() {
            // SAFETY: it points to nothing.
            unsafe { place.fill(opcode::Nop::new().build().user_data(*number)) };
            *number += 1;
            filled += 1;
        }
        filled
    }

    #[test]
    fn places_are_used_in_order_and_round_and_round() {
        for first in [0, 3, u32::MAX - 2] {
            let mut memory: Vec<Entry> = vec![opcode::Nop::new().build(); 4];
            // SAFETY: the memory outlives it, and is only read when it does not write.
            let mut entries = unsafe { Entries::new(NonNull::new(memory.as_mut_ptr()).unwrap(), 4, first) };
            assert!(entries.place().is_none(), "closed at first");
            let (mut taken_in, mut number) = (first, 0);
            for taken in [4, 1, 2, 3, 4, 4, 1, 1, 1, 1, 2] {
                // At most two rows of places: up to the end of the memory, and from its beginning.
                for _ in 0..2 {
                    // SAFETY: the one who takes them in is this test.
                    unsafe { entries.open(taken_in) };
                    fill(&mut entries, &mut number);
                }
                assert_eq!((entries.room(taken_in), entries.open_places()), (0, 0));
                assert_eq!(entries.tail(), taken_in.wrapping_add(4));
                let mut present: Vec<_> = memory.iter().map(Entry::get_user_data).collect();
                present.sort_unstable();
                assert!(present.into_iter().eq(number - 4..number), "none is overwritten before its time");
                taken_in = taken_in.wrapping_add(taken);
            }
        }
    }

    #[test]
    fn a_closed_queue_has_no_place() {
        let mut memory: Vec<Entry> = vec![opcode::Nop::new().build(); 8];
        // SAFETY: the memory outlives it, and is only read when it does not write.
        let mut entries = unsafe { Entries::new(NonNull::new(memory.as_mut_ptr()).unwrap(), 8, 6) };
        // SAFETY: the one who takes them in is this test.
        unsafe { entries.open(6) };
        assert_eq!((entries.room(6), entries.open_places()), (8, 2), "up to the end of the memory");
        entries.close();
        assert!(entries.place().is_none());
        assert_eq!(entries.room(6), 8);
    }

    #[test]
    #[cfg_attr(miri, ignore = "the crate copies unions, whose rest is nothing to Miri")]
    fn nothing_is_left_of_entries_that_were_there_before() {
        // They have fields behind the `user_data`, which usual ones don't have.
        let whole = opcode::Splice::new(Fd(1), 2, Fd(3), 4, 5).build().personality(6);
        let indexed = opcode::ReadFixed::new(Fd(-1), std::ptr::null_mut(), 0, 7).build();
        let nop = Usual { opcode: 0, descriptor: -1, offset: 0, address: 0, length: 0, op_flags: 0 };
        let read = Usual { opcode: opcode::ReadFixed::CODE.into(), ..nop };
        // Which entries of each lap are unusual: none in some, at each place in others.
        for laps in
            [[0, 0, 0b0101, 0, 0b1010, 0b1111, 0b1000, 0], [0b0100, 0, 0b0001, 0b0001, 0, 0, 0b0010, 0]]
        {
            // How many of the places are not taken in yet when the next entry is written.
            for (first, behind, is_whole) in (0..32).map(|case| (case % 4, case / 4 % 4, case / 16 == 0)) {
                let unusual = if is_whole { &whole } else { &indexed };
                let mut memory: Vec<Entry> = vec![whole.clone(); 4];
                let start = NonNull::new(memory.as_mut_ptr()).unwrap();
                // SAFETY: the memory outlives it, and is only read when it does not write.
                let mut entries = unsafe { Entries::new(start, 4, first) };
                for number in first..32 {
                    // SAFETY: the one who takes them in is this test.
                    unsafe { entries.open(number.saturating_sub(behind).max(first)) };
                    let place = entries.place().unwrap();
                    let is_unusual = laps[number as usize / 4] >> place.index() & 1 == 1;
                    match (is_unusual, is_whole) {
                        // SAFETY: it points to nothing.
                        (true, true) => unsafe { place.fill(unusual.clone().user_data(number.into())) },
                        // SAFETY: it points to nothing.
                        (true, false) => unsafe { place.fill_with_index(read, number.into(), 7) },
                        // SAFETY: it points to nothing.
                        (false, _) => unsafe { place.fill_as_usual(nop, number.into()) },
                    }
                    let expected = if is_unusual { unusual.clone() } else { opcode::Nop::new().build() };
                    let expected = bytes(&expected.user_data(number.into()));
                    assert_eq!(bytes(&memory[number as usize % 4]), expected, "number {number}");
                    if number % 3 == 0 {
                        entries.close();
                    }
                }
            }
        }
    }
}
