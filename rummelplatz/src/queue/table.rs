//! What is registered in one of a ring's tables: memory, or files.

use std::io;
use std::mem;
use std::sync::Arc;

use crate::block::room_for;
use crate::buffers::PoolError;
use crate::fixed::Registered;
use crate::mutant;

/// The most places that the kernel allows a table of files (`IORING_MAX_FIXED_FILES`).
const MAX_FIXED_FILES: usize = 1 << 20;

/// A change of a table that the kernel has. `V` is what the kernel has in a place of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change<V> {
    /// Make the table, with this many empty places. The kernel itself may fill the first of them.
    Make {
        places: u32,
        for_kernel: u32,
    },
    Set {
        index: u32,
        to: V,
    },
    Clear {
        index: u32,
    },
}

/// Our side of a table: who is in which place.
///
/// The kernel itself fills the first places, if some are [left to it](Self::leave_to_kernel); the others are
/// ours to fill.
pub(super) struct Table<T> {
    places: Vec<Option<Arc<T>>>,
    /// Those of our places that are empty.
    vacant: Vec<u32>,
    /// How many of the places the kernel fills.
    for_kernel: usize,
    /// How many places the kernel's table has; 0 before there is a table.
    limit: u32,
    /// How many places of ours it is to have.
    wanted: u32,
    /// Of places that the kernel had filled and that are empty now: to be used again.
    spare: Vec<Arc<T>>,
    /// Places that the kernel has failed to clear, with the item that it keeps there; none if that was never
    /// ours. They are tried again.
    uncleared: Vec<(u32, Option<Arc<T>>)>,
    /// Whether the kernel was short of something when it last failed, so that it may clear them soon.
    is_short: bool,
    /// Whether the kernel may have filled places without our knowledge.
    has_unknown: bool,
}

impl<T: AsRef<Registered>> Table<T> {
    /// A table of at most `wanted` places, which is made when it is first needed.
    pub(super) const fn new(wanted: u32) -> Table<T> {
        Table {
            places: Vec::new(),
            vacant: Vec::new(),
            for_kernel: 0,
            limit: 0,
            wanted,
            spare: Vec::new(),
            uncleared: Vec::new(),
            is_short: false,
            has_unknown: false,
        }
    }

    /// Registers an item with a ring, if it is not registered there already; `change` lets the kernel do it.
    ///
    /// # Errors
    ///
    /// If it is registered with another ring, or the kernel refuses; `EMFILE` if all places are taken.
    pub(super) fn adopt<V>(
        &mut self,
        ring: u64,
        item: &Arc<T>,
        to: V,
        mut change: impl FnMut(Change<V>) -> io::Result<()>,
    ) -> Result<(), PoolError> {
        let place = item.as_ref().as_ref();
        if place.in_ring(ring).is_some() {
            return Ok(());
        }
        let index = self.vacancy(&mut change).map_err(PoolError::Refused)?;
        let adopted = match place.take(ring, index) {
            true => change(Change::Set { index, to }).map_err(|error| {
                place.leave();
                PoolError::Refused(error)
            }),
            false => Err(PoolError::Taken),
        };
        match adopted {
            Ok(()) => self.places[index as usize] = Some(item.clone()),
            Err(_) => self.vacant.push(index),
        }
        adopted
    }

    /// Finds an empty place.
    fn vacancy<V>(&mut self, change: &mut impl FnMut(Change<V>) -> io::Result<()>) -> io::Result<u32> {
        self.make(change)?;
        if self.vacant.is_empty() {
            self.sweep(change);
        }
        if self.vacant.is_empty() {
            // Twice as many places each time, so that sweeps are rare.
            let taken = self.places.len();
            let ours = taken - self.for_kernel;
            let more = ours.max(8).min(self.limit as usize - taken);
            self.places.resize_with(taken + more, || None);
            self.vacant.extend((taken as u32..(taken + more) as u32).rev());
        }
        self.vacant.pop().ok_or_else(|| io::Error::from_raw_os_error(libc::EMFILE))
    }

    /// Lets the kernel fill this many places of the table, which was not made yet.
    pub(super) fn leave_to_kernel(&mut self, places: u32) {
        debug_assert_eq!(self.limit, 0);
        self.for_kernel = places as usize;
    }

    /// How many places the kernel fills.
    #[inline(always)]
    pub(super) fn for_kernel(&self) -> usize {
        self.for_kernel
    }

    /// Lets the kernel make the table, if there is none yet. One of files can't have more places than the process
    /// may have descriptors: then there are fewer of ours.
    pub(super) fn make<V>(&mut self, change: &mut impl FnMut(Change<V>) -> io::Result<()>) -> io::Result<()> {
        if self.limit > 0 {
            return Ok(());
        }
        // The kernel refuses more than that, so no memory is needed for them.
        if self.for_kernel <= MAX_FIXED_FILES {
            self.places = room_for(self.for_kernel)?;
        }
        let (for_kernel, mut ours) = (self.for_kernel as u32, self.wanted);
        let fewest = u32::from(for_kernel == 0);
        while let Err(error) = change(Change::Make { places: for_kernel.saturating_add(ours), for_kernel }) {
            if error.raw_os_error() != Some(libc::EMFILE) || ours == fewest {
                return Err(error);
            }
            ours /= 2;
        }
        self.places.resize_with(self.for_kernel, || None);
        self.limit = for_kernel + ours;
        Ok(())
    }

    /// Notes that the kernel has filled this place. `new` makes an item, if there is no spare one. `None` if it
    /// is not one of the kernel's places.
    pub(super) fn receive(
        &mut self,
        ring: u64,
        index: u32,
        new: impl FnOnce() -> Option<Arc<T>>,
    ) -> Option<Arc<T>> {
        let place = self.places.get_mut(..self.for_kernel)?.get_mut(index as usize)?;
        let item = self.spare.pop().or_else(new)?;
        item.as_ref().as_ref().take(ring, index);
        if let Some(old) = place.replace(item.clone()) {
            // Somebody has emptied the place in the kernel: a raw entry may do so.
            old.as_ref().as_ref().leave();
        }
        Some(item)
    }

    /// Empties a place that the kernel has filled although it is none of its own, unless it was given to somebody
    /// since, who is there now instead.
    ///
    /// Many kernels do this when their own places are all taken, and one of ours was the last to be changed: they
    /// look for room up to there. (6.18.44 does not.)
    pub(super) fn refuse<V>(&mut self, index: u32, mut change: impl FnMut(Change<V>) -> io::Result<()>) {
        if !self.is_taken(index) {
            self.empty(index, None, &mut change);
        }
    }

    /// Whether somebody has this place.
    fn is_taken(&self, index: u32) -> bool {
        self.places.get(index as usize).is_some_and(Option::is_some)
    }

    /// Empties the places of items that the kernel had put there, and that nobody else has.
    pub(super) fn vacate<V>(
        &mut self,
        ring: u64,
        items: impl IntoIterator<Item = Arc<T>>,
        mut change: impl FnMut(Change<V>) -> io::Result<()>,
    ) {
        if self.is_short {
            self.retry(&mut change);
        }
        for item in items {
            // It may have been taken out of the table in the meantime.
            if let Some(index) = item.as_ref().as_ref().in_ring(ring) {
                self.clear(index, &mut change);
            }
            if Arc::strong_count(&item) == 1 {
                self.spare.push(item);
            }
        }
    }

    /// Empties those of our places whose items nobody else has. No request can name them any more, and none that
    /// is in flight does, because it would have the item in its data.
    fn sweep<V>(&mut self, change: &mut impl FnMut(Change<V>) -> io::Result<()>) {
        self.retry(change);
        for index in self.for_kernel..self.places.len() {
            if self.places[index].as_ref().is_some_and(|item| Arc::strong_count(item) == 1) {
                self.clear(index as u32, change);
            }
        }
    }

    /// Takes an item, which nobody but the caller has, out of the ring with this number. Returns whether it was
    /// there.
    pub(super) fn expel<V>(
        &mut self,
        ring: u64,
        item: &Arc<T>,
        mut change: impl FnMut(Change<V>) -> io::Result<()>,
    ) -> bool {
        let index = item.as_ref().as_ref().in_ring(ring);
        if let Some(index) = index {
            self.clear(index, &mut change);
        }
        index.is_some()
    }

    /// Takes an item out of its place.
    fn clear<V>(&mut self, index: u32, change: &mut impl FnMut(Change<V>) -> io::Result<()>) {
        let Some(item) = self.places.get_mut(index as usize).and_then(Option::take) else { return };
        if !mutant::is("what was cleared is still found") {
            item.as_ref().as_ref().leave();
        }
        self.empty(index, Some(item), change);
    }

    /// Lets the kernel clear a place. If it fails to do so, it keeps what it has, so the item is kept, too, and
    /// the place is not used before it was cleared after all.
    fn empty<V>(
        &mut self,
        index: u32,
        item: Option<Arc<T>>,
        change: &mut impl FnMut(Change<V>) -> io::Result<()>,
    ) {
        match change(Change::Clear { index }) {
            Ok(()) if item.is_some() && index as usize >= self.for_kernel => self.vacant.push(index),
            Ok(()) => {}
            Err(error) => {
                let errno = error.raw_os_error();
                self.is_short |=
                    matches!(errno, Some(libc::ENOMEM | libc::EAGAIN | libc::EBUSY | libc::EINTR));
                self.uncleared.push((index, item));
            }
        }
    }

    /// Tries again to clear what the kernel has failed to clear.
    fn retry<V>(&mut self, change: &mut impl FnMut(Change<V>) -> io::Result<()>) {
        self.is_short = false;
        for (index, item) in mem::take(&mut self.uncleared) {
            // Whoever was put there has made the kernel forget what was there before.
            if !self.is_taken(index) {
                self.empty(index, item, change);
            }
        }
    }

    /// How many places the kernel has not cleared, although it was told to.
    pub(super) fn uncleared(&self) -> usize {
        self.uncleared.len()
    }

    /// Whether it may clear them if it is soon told to once more.
    pub(super) fn is_short(&self) -> bool {
        self.is_short
    }

    /// Notes that the kernel may have filled places and that nobody has been told. The next
    /// [`release`](Self::release) empties these, too.
    pub(super) fn suspect_unknown(&mut self) {
        self.has_unknown = true;
    }

    /// Takes all items out of the ring, when no request is in flight.
    pub(super) fn release<V>(&mut self, mut change: impl FnMut(Change<V>) -> io::Result<()>) {
        self.retry(&mut change);
        if mem::take(&mut self.has_unknown) && self.limit > 0 {
            for index in 0..self.for_kernel as u32 {
                self.refuse(index, &mut change);
            }
        }
        for index in 0..self.places.len() {
            self.clear(index as u32, &mut change);
        }
    }

    /// Keeps for ever what the kernel has not cleared.
    pub(super) fn leak_uncleared(&mut self) {
        mem::take(&mut self.uncleared).into_iter().for_each(mem::forget);
    }

    /// Keeps for ever what the kernel may still use.
    pub(super) fn leak(&mut self) {
        mem::forget((mem::take(&mut self.places), mem::take(&mut self.uncleared)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::tests::with_little_memory;

    /// A kernel that allows `most` places and fails on demand, and what a table has changed in it.
    struct Kernel {
        most: u32,
        fails: bool,
        changes: Vec<Change<i32>>,
    }

    impl Kernel {
        fn new(most: u32) -> Kernel {
            Kernel { most, fails: false, changes: Vec::new() }
        }

        fn change(&mut self) -> impl FnMut(Change<i32>) -> io::Result<()> {
            |change| {
                self.changes.push(change);
                match change {
                    Change::Make { places, .. } if places > self.most => {
                        Err(io::Error::from_raw_os_error(libc::EMFILE))
                    }
                    Change::Set { .. } | Change::Clear { .. } if self.fails => {
                        Err(io::Error::from_raw_os_error(libc::ENOMEM))
                    }
                    _ => Ok(()),
                }
            }
        }
    }

    /// How many places a table was made with, and how many of them are the kernel's.
    fn made(change: &Change<i32>) -> Option<(u32, u32)> {
        match *change {
            Change::Make { places, for_kernel } => Some((places, for_kernel)),
            _ => None,
        }
    }

    fn file() -> Arc<Registered> {
        Arc::new(Registered::nowhere())
    }

    #[test]
    fn a_table_is_as_large_as_may_be_and_full_at_some_time() {
        let (mut table, mut kernel) = (Table::new(100), Kernel::new(30));
        let files: Vec<_> = (0..25).map(|_| file()).collect();
        for (number, file) in files.iter().enumerate() {
            let adopted = table.adopt(1, file, 7, kernel.change());
            assert_eq!(adopted.is_ok(), number < 25, "{adopted:?}");
        }
        let made = kernel.changes.iter().filter(|change| matches!(change, Change::Make { .. })).count();
        assert_eq!((made, table.limit), (3, 25), "100, 50, 25");
        let mut places: Vec<_> = files.iter().map(|file| file.in_ring(1)).collect();
        places.sort();
        assert_eq!(places, (0..25).map(Some).collect::<Vec<_>>(), "each has its own");
        let full = table.adopt(1, &file(), 7, kernel.change());
        let Err(PoolError::Refused(error)) = full else { panic!("{full:?}") };
        assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
        table.adopt(1, &files[3], 7, kernel.change()).expect("it is there already");
    }

    #[test]
    fn places_of_what_nobody_has_are_used_again() {
        let (mut table, mut kernel) = (Table::new(8), Kernel::new(8));
        let kept: Vec<_> = (0..7).map(|_| file()).collect();
        kept.iter().for_each(|file| table.adopt(1, file, 7, kernel.change()).unwrap());
        for _ in 0..20 {
            table.adopt(1, &file(), 9, kernel.change()).expect("the one before is gone");
        }
        assert!(kept.iter().all(|file| file.in_ring(1).is_some()));
        let cleared = kernel.changes.iter().filter(|change| matches!(change, Change::Clear { .. })).count();
        assert_eq!(cleared, 19);
    }

    #[test]
    fn what_is_elsewhere_is_not_expelled() {
        let (mut table, mut kernel) = (Table::new(8), Kernel::new(8));
        let (one, other) = (file(), file());
        table.adopt(1, &one, 7, kernel.change()).unwrap();
        assert!(matches!(table.adopt(2, &one, 7, kernel.change()), Err(PoolError::Taken)));
        assert!(!table.expel(1, &other, kernel.change()), "it is not there");
        assert!(!table.expel(2, &one, kernel.change()), "it is in another ring");
        assert!(table.expel(1, &one, kernel.change()));
        assert_eq!(kernel.changes.last(), Some(&Change::Clear { index: 0 }));
        let next = file();
        table.adopt(1, &next, 7, kernel.change()).unwrap();
        assert_eq!(next.in_ring(1), Some(0), "the place is used again");
    }

    #[test]
    fn the_kernels_places_come_before_ours() {
        let (mut table, mut kernel) = (Table::new(8), Kernel::new(8));
        table.leave_to_kernel(3);
        let ours = file();
        table.adopt(1, &ours, 7, kernel.change()).unwrap();
        assert_eq!(kernel.changes[..2].iter().map(made).collect::<Vec<_>>(), [Some((11, 3)), Some((7, 3))]);
        assert_eq!(ours.in_ring(1), Some(3));
        table.make(&mut kernel.change()).expect("there is one already");
        for _ in 1..4 {
            table.adopt(1, &file(), 7, kernel.change()).unwrap();
        }
        let (none, first) = (table.receive(1, 3, || Some(file())), table.receive(1, 0, || Some(file())));
        assert!(none.is_none(), "that place is ours");
        let count = kernel.changes.len();
        table.refuse(3, kernel.change());
        assert_eq!((kernel.changes.len(), ours.in_ring(1)), (count, Some(3)), "that stays");
        table.refuse(9, kernel.change());
        assert_eq!(kernel.changes.last(), Some(&Change::Clear { index: 9 }), "nobody should be there");
        assert_eq!(first.and_then(|file| file.in_ring(1)), Some(0));
        let more = table.receive(1, 2, || Some(file())).unwrap();
        table
            .adopt(1, &file(), 7, kernel.change())
            .expect("a place of ours is swept, and none of the kernel's");
        assert_eq!(more.in_ring(1), Some(2));
    }

    #[test]
    fn a_table_may_have_no_places_but_the_kernels() {
        let mut table = Table::<Registered>::new(8);
        table.leave_to_kernel(30);
        assert!(table.make(&mut Kernel::new(29).change()).is_err());
        let mut kernel = Kernel::new(30);
        table.make(&mut kernel.change()).unwrap();
        assert_eq!(kernel.changes.last().and_then(made), Some((30, 30)));
        let full = table.adopt(1, &file(), 7, kernel.change());
        assert!(matches!(full, Err(PoolError::Refused(error)) if error.raw_os_error() == Some(libc::EMFILE)));
    }

    #[test]
    fn what_the_kernel_has_put_there_is_cleared_once_and_its_item_is_used_again() {
        let (mut table, mut kernel) = (Table::new(8), Kernel::new(20));
        table.leave_to_kernel(3);
        table.make(&mut kernel.change()).unwrap();
        let item = table.receive(1, 1, || Some(file())).unwrap();
        let address = Arc::as_ptr(&item);
        table.vacate(1, [item], kernel.change());
        assert_eq!(kernel.changes.last(), Some(&Change::Clear { index: 1 }));
        let again = table.receive(1, 1, || None).expect("there is a spare one");
        assert_eq!((Arc::as_ptr(&again), again.in_ring(1)), (address, Some(1)));

        let count = kernel.changes.len();
        let other = table.receive(1, 1, || Some(file())).unwrap();
        assert!(again.in_ring(1).is_none(), "the kernel has put something else there");
        table.vacate(1, [again], kernel.change());
        assert_eq!((kernel.changes.len(), other.in_ring(1)), (count, Some(1)), "that stays");
        table.release(kernel.change());
        assert_eq!(kernel.changes.last(), Some(&Change::Clear { index: 1 }));
        let count = kernel.changes.len();
        table.vacate(1, [other], kernel.change());
        assert_eq!(kernel.changes.len(), count, "it was cleared with all others");
    }

    #[test]
    fn what_the_kernel_refuses_leaves_no_trace() {
        let (mut table, mut kernel) = (Table::new(8), Kernel::new(8));
        let one = file();
        kernel.fails = true;
        assert!(matches!(table.adopt(1, &one, 7, kernel.change()), Err(PoolError::Refused(_))));
        assert!(one.in_ring(1).is_none() && Arc::strong_count(&one) == 1);
        kernel.fails = false;
        table.adopt(1, &one, 7, kernel.change()).unwrap();
        assert_eq!(one.in_ring(1), Some(0));
        kernel.fails = true;
        table.release(kernel.change());
        assert!(one.in_ring(1).is_none(), "no request finds it");
        assert_eq!(Arc::strong_count(&one), 2, "but it is kept, as the kernel keeps it");
        kernel.fails = false;
        table.adopt(1, &one, 7, kernel.change()).unwrap();
        assert_eq!(one.in_ring(1), Some(1), "and its place as well");
    }

    #[test]
    fn what_the_kernel_has_not_cleared_is_tried_again() {
        let (mut table, mut kernel) = (Table::new(2), Kernel::new(5));
        table.leave_to_kernel(3);
        let (one, other) = (file(), file());
        table.adopt(1, &one, 7, kernel.change()).unwrap();
        let received = table.receive(1, 2, || Some(file())).unwrap();
        kernel.fails = true;
        assert!(table.expel(1, &one, kernel.change()));
        table.vacate(1, [received], kernel.change());
        table.refuse(4, kernel.change());
        assert_eq!((table.uncleared(), table.is_short()), (3, true));

        // The place that was refused is given to somebody, who stays there.
        table.adopt(1, &other, 7, |_: Change<i32>| Ok(())).unwrap();
        assert_eq!(other.in_ring(1), Some(4));
        let count = kernel.changes.len();
        table.vacate(1, [], kernel.change());
        assert_eq!(kernel.changes[count..], [3, 2].map(|index| Change::Clear { index }));
        assert_eq!((table.uncleared(), table.is_short()), (2, true));
        kernel.fails = false;
        table.vacate(1, [], kernel.change());
        assert_eq!((table.uncleared(), table.is_short()), (0, false));
        assert_eq!((other.in_ring(1), Arc::strong_count(&one)), (Some(4), 1));
        table.adopt(1, &one, 7, kernel.change()).unwrap();
        assert_eq!(one.in_ring(1), Some(3), "the place is used again");
    }

    #[test]
    fn a_full_table_and_a_release_try_again_what_was_not_cleared() {
        for is_full in [true, false] {
            let (mut table, mut kernel) = (Table::new(1), Kernel::new(1));
            let one = file();
            table.adopt(1, &one, 7, kernel.change()).unwrap();
            kernel.fails = true;
            table.expel(1, &one, kernel.change());
            let full = table.adopt(1, &one, 7, kernel.change());
            assert!(matches!(full, Err(PoolError::Refused(_))) && table.uncleared() == 1);
            kernel.fails = false;
            match is_full {
                true => table.adopt(1, &one, 7, kernel.change()).unwrap(),
                false => table.release(kernel.change()),
            }
            assert_eq!((table.uncleared(), Arc::strong_count(&one)), (0, 1 + usize::from(is_full)));
        }
    }

    #[test]
    fn what_no_later_attempt_mends_is_not_tried_again_soon() {
        let (mut table, mut kernel) = (Table::new(1), Kernel::new(1));
        let one = file();
        table.adopt(1, &one, 7, kernel.change()).unwrap();
        table.expel(1, &one, |_: Change<i32>| Err(io::Error::from_raw_os_error(libc::EPERM)));
        assert_eq!((table.uncleared(), table.is_short()), (1, false));
        table.leak_uncleared();
        assert_eq!((table.uncleared(), Arc::strong_count(&one)), (0, 2), "it is kept for ever");
    }

    #[test]
    #[cfg_attr(miri, ignore = "it knows no forks")]
    fn a_table_that_finds_no_memory_is_not_made() {
        with_little_memory(1 << 20, || {
            // What the allocator has at hand.
            while let Ok(room) = room_for::<u8>(1 << 20) {
                mem::forget(room);
            }
            let (mut table, mut kernel) = (Table::<Registered>::new(8), Kernel::new(u32::MAX));
            table.leave_to_kernel(MAX_FIXED_FILES as u32);
            let refused = table.make(&mut kernel.change());
            refused.is_err_and(|error| error.kind() == io::ErrorKind::OutOfMemory)
                && kernel.changes.is_empty()
        });
    }

    #[test]
    fn what_the_kernel_has_put_there_untold_is_cleared_at_the_end() {
        let (mut table, mut kernel) = (Table::new(8), Kernel::new(20));
        table.leave_to_kernel(3);
        table.suspect_unknown();
        table.release(kernel.change());
        assert!(kernel.changes.is_empty(), "there is no table");
        table.make(&mut kernel.change()).unwrap();
        let known = table.receive(1, 1, || Some(file())).unwrap();
        let mut cleared = |table: &mut Table<Registered>| {
            kernel.changes.clear();
            table.release(kernel.change());
            let index = |change: &Change<i32>| match *change {
                Change::Clear { index } => index,
                _ => panic!("{change:?}"),
            };
            let mut cleared: Vec<_> = kernel.changes.iter().map(index).collect();
            cleared.sort_unstable();
            cleared
        };
        table.suspect_unknown();
        assert_eq!((cleared(&mut table), known.in_ring(1)), (vec![0, 1, 2], None));
        assert_eq!(cleared(&mut table), [], "only once");
    }
}
