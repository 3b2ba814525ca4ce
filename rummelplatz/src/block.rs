//! Memory whose address the kernel is given: zeroed, aligned to pages, and never moved.

use std::alloc::{self, Layout};
use std::io;
use std::ptr::NonNull;

/// An empty vector with room for this many. It is for counts that somebody else chooses: a vector that grows ends the
/// process if there is not enough memory.
///
/// # Errors
///
/// `ENOMEM` if there is not that much.
pub(crate) fn room_for<T>(count: usize) -> io::Result<Vec<T>> {
    let mut room = Vec::new();
    room.try_reserve_exact(count).map_err(|_| io::Error::from_raw_os_error(libc::ENOMEM))?;
    Ok(room)
}

/// A block of memory, freed when it is dropped.
pub(crate) struct Block {
    start: NonNull<u8>,
    bytes: usize,
    /// The allocation in which it lies. If it is a part of another block, its layout is empty.
    memory: NonNull<u8>,
    layout: Layout,
}

// SAFETY: it owns its memory, or is a part of what does, and touches it only to free it.
unsafe impl Send for Block {}
// SAFETY: shared, it only says where its memory is, and touches none of it.
unsafe impl Sync for Block {}

impl Block {
    /// A block of `parts` times `size` bytes.
    ///
    /// # Errors
    ///
    /// `OutOfMemory` if there is not that much; `InvalidInput` if the block would be empty.
    pub(crate) fn zeroed(parts: usize, size: usize) -> io::Result<Block> {
        let bytes = parts.checked_mul(size).ok_or(io::ErrorKind::OutOfMemory)?;
        if bytes == 0 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // Aligned by hand: allocators that are asked for page alignment write all the zeros, though most
        // large, new memory is zero already, and is not backed before it is touched.
        let page = page_size();
        let layout = bytes.checked_add(page - 1).and_then(|size| Layout::from_size_align(size, 1).ok());
        let layout = layout.ok_or(io::ErrorKind::OutOfMemory)?;
        // SAFETY: the size is not zero.
        let memory =
            NonNull::new(unsafe { alloc::alloc_zeroed(layout) }).ok_or(io::ErrorKind::OutOfMemory)?;
        let unaligned = memory.addr().get() % page;
        // SAFETY: the offset is at most a page less one, and that much was added to the layout.
        let start = unsafe { memory.add((page - unaligned) % page) };
        Ok(Block { start, bytes, memory, layout })
    }

    /// A part of this block, from `offset` on, which frees nothing when it is dropped.
    ///
    /// # Safety
    ///
    /// The part is used no longer than this block is there, and `offset` is at most its number of bytes.
    pub(crate) unsafe fn part(&self, offset: usize) -> Block {
        // SAFETY: the caller says that this is inside the block.
        let start = unsafe { self.start.add(offset) };
        Block { start, bytes: self.bytes - offset, memory: self.memory, layout: Layout::new::<()>() }
    }

    #[inline(always)]
    pub(crate) fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Where it starts, as the kernel is told.
    pub(crate) fn address(&self) -> u64 {
        self.start.as_ptr().expose_provenance() as u64
    }

    /// How many bytes it has.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if self.layout.size() > 0 {
            // SAFETY: allocated in `zeroed` with this layout, which says so, because that of a part is empty.
            unsafe { alloc::dealloc(self.memory.as_ptr(), self.layout) };
        }
    }
}

fn page_size() -> usize {
    // SAFETY: a plain query.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).unwrap_or(4096)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::lock::tests::in_fork;

    /// Checks that `check` holds in a child that has this many bytes more than there are, and not many others.
    pub(crate) fn with_little_memory(bytes: u64, check: impl FnOnce() -> bool) {
        in_fork(|| {
            let numbers = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
            let pages = numbers.split(' ').next().and_then(|pages| pages.parse::<u64>().ok());
            let Some(pages) = pages else { return false };
            let most = pages * page_size() as u64 + bytes;
            let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
            // SAFETY: there is one of it.
            unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) == 0 && check() }
        });
    }

    #[test]
    #[cfg_attr(miri, ignore = "it knows no forks")]
    fn room_that_can_not_be_had_is_refused() {
        // More than what the allocator may have at hand.
        with_little_memory(1 << 20, || {
            room_for::<u8>(1 << 27).is_err_and(|error| error.kind() == io::ErrorKind::OutOfMemory)
        });
        assert!(room_for::<u64>(usize::MAX).is_err(), "not even a number");
    }

    #[test]
    fn what_can_not_be_had_is_refused() {
        let kind = |parts, size| Block::zeroed(parts, size).err().map(|error| error.kind());
        assert_eq!(kind(usize::MAX, 2), Some(io::ErrorKind::OutOfMemory), "not even a number");
        assert_eq!(kind(usize::MAX, 1), Some(io::ErrorKind::OutOfMemory), "no layout");
        assert_eq!(kind(0, 1), Some(io::ErrorKind::InvalidInput));
    }

    #[test]
    fn it_begins_with_a_page() {
        let block = Block::zeroed(3, 1000).unwrap();
        assert_eq!((block.bytes(), block.start().addr().get() % page_size()), (3000, 0));
    }
}
