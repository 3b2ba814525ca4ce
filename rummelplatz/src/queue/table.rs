//! What is registered in one of a ring's tables: memory, or files.

use std::io;
use std::mem;
use std::sync::Arc;

use crate::buffers::PoolError;
use crate::fixed::Registered;

/// A change of a table that the kernel has. `V` is what the kernel has in a place of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change<V> {
    /// Make the table, with this many empty places.
    Make {
        places: u32,
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
pub(super) struct Table<T> {
    places: Vec<Option<Arc<T>>>,
    /// The places that are empty.
    vacant: Vec<u32>,
    /// How many places the kernel's table has; 0 before there is a table.
    limit: u32,
    /// How many places it is to have.
    wanted: u32,
}

impl<T: AsRef<Registered>> Table<T> {
    /// A table of at most `wanted` places, which is made when it is first needed.
    pub(super) const fn new(wanted: u32) -> Table<T> {
        Table { places: Vec::new(), vacant: Vec::new(), limit: 0, wanted }
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
        if self.limit == 0 {
            self.make(change)?;
        }
        if self.vacant.is_empty() {
            self.sweep(change);
        }
        if self.vacant.is_empty() {
            // Twice as many places each time, so that sweeps are rare.
            let taken = self.places.len();
            let more = taken.max(8).min(self.limit as usize - taken);
            self.places.resize_with(taken + more, || None);
            self.vacant.extend((taken as u32..(taken + more) as u32).rev());
        }
        self.vacant.pop().ok_or_else(|| io::Error::from_raw_os_error(libc::EMFILE))
    }

    /// Lets the kernel make the table. One of files can't have more places than the process may have
    /// descriptors.
    fn make<V>(&mut self, change: &mut impl FnMut(Change<V>) -> io::Result<()>) -> io::Result<()> {
        let mut places = self.wanted;
        while let Err(error) = change(Change::Make { places }) {
            if error.raw_os_error() != Some(libc::EMFILE) || places == 1 {
                return Err(error);
            }
            places /= 2;
        }
        self.limit = places;
        Ok(())
    }

    /// Empties the places of items that nobody else has. No request can name them any more, and none that is
    /// in flight does, because it would have the item in its data.
    fn sweep<V>(&mut self, change: &mut impl FnMut(Change<V>) -> io::Result<()>) {
        for index in 0..self.places.len() {
            if self.places[index].as_ref().is_some_and(|item| Arc::strong_count(item) == 1) {
                self.clear(index as u32, change);
            }
        }
    }

    /// Takes an item out of the ring with this number, if nobody but the caller has it. Returns whether it
    /// did.
    pub(super) fn expel<V>(
        &mut self,
        ring: u64,
        item: &Arc<T>,
        mut change: impl FnMut(Change<V>) -> io::Result<()>,
    ) -> bool {
        match item.as_ref().as_ref().in_ring(ring) {
            // One share is the table's own, the other the caller's.
            Some(index) if Arc::strong_count(item) == 2 => self.clear(index, &mut change),
            _ => return false,
        }
        true
    }

    /// Empties a place. If the kernel fails to do so, the place is not used again.
    fn clear<V>(&mut self, index: u32, change: &mut impl FnMut(Change<V>) -> io::Result<()>) {
        let Some(item) = self.places.get_mut(index as usize).and_then(Option::take) else { return };
        item.as_ref().as_ref().leave();
        match change(Change::Clear { index }) {
            Ok(()) => self.vacant.push(index),
            // The kernel keeps what it has, so the item is kept, too.
            Err(_) => mem::forget(item),
        }
    }

    /// Takes all items out of the ring, when no request is in flight.
    pub(super) fn release<V>(&mut self, mut change: impl FnMut(Change<V>) -> io::Result<()>) {
        for index in 0..self.places.len() {
            self.clear(index as u32, &mut change);
        }
    }

    /// Keeps for ever what the kernel may still use.
    pub(super) fn leak(&mut self) {
        mem::forget(mem::take(&mut self.places));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixed::FixedFile;

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
                    Change::Make { places } if places > self.most => {
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

    fn file() -> Arc<Registered> {
        Arc::clone(&FixedFile::new().place)
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
    fn what_others_have_is_not_expelled() {
        let (mut table, mut kernel) = (Table::new(8), Kernel::new(8));
        let (one, other) = (file(), file());
        table.adopt(1, &one, 7, kernel.change()).unwrap();
        assert!(matches!(table.adopt(2, &one, 7, kernel.change()), Err(PoolError::Taken)));
        let request = one.clone();
        assert!(!table.expel(1, &one, kernel.change()), "a request has it");
        assert!(!table.expel(1, &other, kernel.change()), "it is not there");
        drop(request);
        assert!(!table.expel(2, &one, kernel.change()), "it is in another ring");
        assert!(table.expel(1, &one, kernel.change()));
        assert_eq!(kernel.changes.last(), Some(&Change::Clear { index: 0 }));
        let next = file();
        table.adopt(1, &next, 7, kernel.change()).unwrap();
        assert_eq!(next.in_ring(1), Some(0), "the place is used again");
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
}
