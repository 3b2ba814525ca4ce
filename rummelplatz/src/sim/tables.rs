//! The kernel's end of what a ring has registered by index.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;

use crate::queue::Change;

/// A registered file, open for as long as it is registered or a request has it.
#[derive(Clone)]
pub(super) struct File(Arc<OwnedFd>);

impl PartialEq for File {
    fn eq(&self, other: &File) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for File {}

impl AsRawFd for File {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// What is registered, by index.
pub(super) struct Table<T> {
    /// `None` before the table is made.
    places: Option<u32>,
    /// How many of the first places the kernel itself fills.
    for_kernel: u32,
    /// Where the kernel begins to look for a free one: behind what was set last, or at what was cleared last.
    hint: u32,
    entries: BTreeMap<u32, T>,
}

pub(super) type Files = Table<File>;
/// Each item is the address of the first byte, and the number of bytes.
pub(super) type Memory = Table<(u64, usize)>;

impl<T> Table<T> {
    pub(super) const fn new() -> Table<T> {
        Table { places: None, for_kernel: 0, hint: 0, entries: BTreeMap::new() }
    }

    fn change<V>(&mut self, change: Change<V>, keep: impl FnOnce(V) -> io::Result<T>) -> io::Result<()> {
        let places = self.places;
        let is_there = |index: u32| match places {
            Some(places) if index < places => Ok(()),
            Some(_) => Err(io::Error::from_raw_os_error(libc::EINVAL)),
            None => Err(io::Error::from_raw_os_error(libc::ENXIO)),
        };
        match change {
            Change::Make { .. } if places.is_some() => {
                return Err(io::Error::from_raw_os_error(libc::EBUSY));
            }
            Change::Make { places, for_kernel } => {
                (self.places, self.for_kernel) = (Some(places), for_kernel);
            }
            Change::Set { index, to } => {
                is_there(index)?;
                self.entries.insert(index, keep(to)?);
                self.hint = index + 1;
            }
            Change::Clear { index } => {
                is_there(index)?;
                self.entries.remove(&index);
                self.hint = index;
            }
        }
        Ok(())
    }
}

impl Files {
    pub(super) fn change_files(&mut self, change: Change<BorrowedFd<'_>>) -> io::Result<()> {
        self.change(change, |file| Ok(File(Arc::new(file.try_clone_to_owned()?))))
    }

    /// Puts a file into a free one of the places that the kernel fills. If there is none, closes it; or, as older kernels
    /// do, takes a place before the one where it has begun to look, even if that is not one that it should fill.
    pub(super) fn install(&mut self, file: OwnedFd) -> Option<u32> {
        let mut places = (self.hint..self.for_kernel).chain(0..self.hint);
        let index = places.find(|index| !self.entries.contains_key(index))?;
        self.entries.insert(index, File(Arc::new(file)));
        self.hint = index + 1;
        Some(index)
    }

    pub(super) fn file(&self, index: RawFd) -> Option<File> {
        self.entries.get(&u32::try_from(index).ok()?).cloned()
    }
}

impl Memory {
    pub(super) fn change_memory(&mut self, change: Change<(u64, usize)>) -> io::Result<()> {
        self.change(change, Ok)
    }

    /// Whether these bytes are within what is registered under this index.
    pub(super) fn has(&self, index: u16, address: u64, length: u64) -> bool {
        let registered = self.entries.get(&index.into());
        registered.is_some_and(|(start, bytes)| {
            let end = start + *bytes as u64;
            address >= *start && address.checked_add(length).is_some_and(|last| last <= end)
        })
    }
}
