//! Memory and files that a ring has registered, so that the kernel need not look them up for each request.
//!
//! Both sides know what is in which place of the ring's tables: the ring keeps the thing, and the thing says
//! in its [`Registered`] which ring has it, and where. A request looks that up in the moment it is made. So
//! one that names what its ring does not have is refused by the kernel, and never reaches anything else.
//!
//! # How the unsafe code stays right
//!
//! Nobody else touches the bytes of a [`FixedBuffer`]: there is one for each number, and the number comes
//! back when it is dropped. The memory is freed when the last `Arc` on it is gone: that of the set, of a
//! buffer, or of the ring that has it registered. A ring whose requests may still be in the kernel keeps its
//! own for ever.

use std::fmt;
use std::io;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::slice::SliceIndex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::block::{Block, room_for};
use crate::lock::Locked;

mod file;

pub use file::FixedFile;
pub(crate) use file::{FilePlace, Left};

/// In which ring's table something is registered, and at which place.
#[derive(Debug)]
pub(crate) struct Registered {
    /// The instance of a ring; 0 is none.
    ring: AtomicU64,
    index: AtomicU32,
}

impl Registered {
    pub(crate) const fn nowhere() -> Registered {
        Registered { ring: AtomicU64::new(0), index: AtomicU32::new(0) }
    }

    /// The index in the table of this ring, if it is registered there.
    ///
    /// Only for the ring's own thread, which is the one that registers.
    #[inline(always)]
    pub(crate) fn in_ring(&self, ring: u64) -> Option<u32> {
        (self.ring.load(Ordering::Relaxed) == ring).then(|| self.index.load(Ordering::Relaxed))
    }

    /// Takes a place in a ring's table. Returns false if it already has one.
    pub(crate) fn take(&self, ring: u64, index: u32) -> bool {
        let taken = self.ring.compare_exchange(0, ring, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if taken {
            self.index.store(index, Ordering::Relaxed);
        }
        taken
    }

    /// Gives the place back that [`take`](Self::take) took.
    pub(crate) fn leave(&self) {
        self.ring.store(0, Ordering::Relaxed);
    }
}

/// Buffers of one size that a ring registers (`IORING_REGISTER_BUFFERS_UPDATE`, in a table with empty places
/// since 5.19), for [`read_fixed`] and [`write_fixed`]: the kernel pins their memory once instead of for each
/// request, which matters for `O_DIRECT`.
///
/// A cheap value, made anywhere, and given to [`register_buffers`] by the first ring that uses it, mostly in
/// [`setup`](crate::RingOperation::setup). A second ring gets an error until the first has finished.
///
/// ```
/// # use rummelplatz::FixedBuffers;
/// let buffers = FixedBuffers::new(64, 4096)?;
/// let buffer = buffers.take().expect("there are 64");
/// assert_eq!((buffer.len(), buffers.available()), (4096, 63));
/// drop(buffer);
/// assert_eq!(buffers.available(), 64);
/// # std::io::Result::Ok(())
/// ```
///
/// Its memory counts towards `RLIMIT_MEMLOCK` (`ulimit -l`), unless the process has `CAP_IPC_LOCK`.
///
/// [`read_fixed`]: crate::request::read_fixed
/// [`write_fixed`]: crate::request::write_fixed
/// [`register_buffers`]: crate::Submitter::register_buffers
#[derive(Clone)]
pub struct FixedBuffers {
    pub(crate) shared: Arc<Memory>,
}

/// What the holders of a set and of its buffers share.
pub(crate) struct Memory {
    pub(crate) place: Registered,
    block: Block,
    size: u32,
    /// Numbers of the buffers that nobody has.
    free: Locked<Vec<u32>>,
}

impl FixedBuffers {
    /// Makes `count` buffers of `size` bytes each, all zero. They lie one after the other, and the first
    /// begins at the beginning of a page. All together have at most a gibibyte, the kernel's limit for what
    /// is registered in one piece.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a count or size of zero or beyond the limit, `OutOfMemory` if there is not that much memory.
    pub fn new(count: u32, size: u32) -> io::Result<FixedBuffers> {
        const MOST: u64 = 1 << 30;
        if u64::from(count) * u64::from(size) > MOST || count == 0 || size == 0 {
            let message = format!("fixed buffers have one byte to a gibibyte, not {count} times {size}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let block = Block::zeroed(count as usize, size as usize)?;
        let mut free = room_for(count as usize)?;
        free.extend((0..count).rev());
        let memory = Memory { place: Registered::nowhere(), block, size, free: Locked::new(free) };
        let shared = Arc::new(memory);
        // SAFETY: it is in an `Arc`, which drops it before its memory is used for anything else.
        unsafe { shared.free.enroll() };
        Ok(FixedBuffers { shared })
    }

    /// Takes a buffer that nobody has, with whatever it has in it; `None` if there is no such buffer.
    pub fn take(&self) -> Option<FixedBuffer> {
        let number = self.shared.free.lock().pop()?;
        let Memory { block, size, .. } = &*self.shared;
        // SAFETY: the block has more buffers than `number`, of `size` bytes each.
        let start = unsafe { block.start().add(number as usize * *size as usize) };
        Some(FixedBuffer { start, set: ManuallyDrop::new(self.shared.clone()) })
    }

    /// How many bytes each buffer has.
    pub fn buffer_size(&self) -> usize {
        self.shared.size as usize
    }

    /// How many buffers there are.
    pub fn capacity(&self) -> usize {
        self.shared.block.bytes() / self.buffer_size()
    }

    /// How many buffers nobody has.
    pub fn available(&self) -> usize {
        self.shared.free.lock().len()
    }
}

impl AsRef<Registered> for Memory {
    fn as_ref(&self) -> &Registered {
        &self.place
    }
}

impl AsRef<Registered> for Registered {
    fn as_ref(&self) -> &Registered {
        self
    }
}

impl Memory {
    /// The address of its first byte, and how many there are.
    pub(crate) fn range(&self) -> (u64, usize) {
        (self.block.address(), self.block.bytes())
    }

    /// The number of the buffer that starts at `start`.
    fn number(&self, start: NonNull<u8>) -> u32 {
        ((start.addr().get() - self.block.start().addr().get()) / self.size as usize) as u32
    }

    /// Takes back the buffer that starts at `start`, and its share of the memory.
    #[cold]
    #[inline(never)]
    fn take_back(self: Arc<Self>, start: NonNull<u8>) {
        self.free.lock().push(self.number(start));
    }
}

/// A buffer of [`FixedBuffers`], to which it goes back when it is dropped.
///
/// Its bytes are its own: it is read and written as a slice, and kept in the data of a request. The kernel is
/// given all of it, or a [`part`](Self::part).
pub struct FixedBuffer {
    start: NonNull<u8>,
    set: ManuallyDrop<Arc<Memory>>,
}

// SAFETY: its bytes are its own, and the set may be used in any thread.
unsafe impl Send for FixedBuffer {}
// SAFETY: its set may be used in any thread; shared, it only shows its bytes.
unsafe impl Sync for FixedBuffer {}

impl FixedBuffer {
    #[inline(always)]
    fn bytes(&self) -> NonNull<[u8]> {
        NonNull::slice_from_raw_parts(self.start, self.set.size as usize)
    }

    /// A part of it, for [`write_fixed`](crate::request::write_fixed).
    ///
    /// # Panics
    ///
    /// If the buffer is shorter than the range, as with a slice.
    #[inline]
    #[track_caller]
    pub fn part(&self, range: impl SliceIndex<[u8], Output = [u8]>) -> FixedSlice<'_> {
        FixedSlice { bytes: &self[range], place: &self.set.place }
    }

    /// A part of it, for [`read_fixed`](crate::request::read_fixed).
    ///
    /// # Panics
    ///
    /// If the buffer is shorter than the range, as with a slice.
    #[inline]
    #[track_caller]
    pub fn part_mut(&mut self, range: impl SliceIndex<[u8], Output = [u8]>) -> FixedSliceMut<'_> {
        // SAFETY: the memory is initialised, this buffer's alone, and there as long as the set is; `self` is
        // borrowed exclusively for as long as the bytes are, and `place`, borrowed beside them, has none of
        // them.
        let bytes = unsafe { self.bytes().as_mut() };
        FixedSliceMut { bytes: &mut bytes[range], place: &self.set.place }
    }
}

impl Deref for FixedBuffer {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: the memory is initialised (it was zeroed), this buffer's alone, and there as long as the set is.
        unsafe { self.bytes().as_ref() }
    }
}

impl DerefMut for FixedBuffer {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: the memory is initialised (it was zeroed), this buffer's alone, and there as long as the
        // set is; `self` is borrowed exclusively.
        unsafe { self.bytes().as_mut() }
    }
}

impl AsRef<[u8]> for FixedBuffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl AsMut<[u8]> for FixedBuffer {
    fn as_mut(&mut self) -> &mut [u8] {
        self
    }
}

impl Drop for FixedBuffer {
    // One call, which gets values, so that what contains a buffer need not lie in memory to be dropped.
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the buffer is being dropped, so `set` is not used again.
        let set = unsafe { ManuallyDrop::take(&mut self.set) };
        set.take_back(self.start);
    }
}

/// Bytes of a [`FixedBuffer`] that are to be written somewhere.
#[derive(Clone, Copy)]
pub struct FixedSlice<'b> {
    pub(crate) bytes: &'b [u8],
    pub(crate) place: &'b Registered,
}

/// Bytes of a [`FixedBuffer`] that are to be read into.
pub struct FixedSliceMut<'b> {
    pub(crate) bytes: &'b mut [u8],
    pub(crate) place: &'b Registered,
}

impl<'b> From<&'b FixedBuffer> for FixedSlice<'b> {
    #[inline]
    fn from(buffer: &'b FixedBuffer) -> Self {
        buffer.part(..)
    }
}

// A closure that is given the data has a `&mut FixedBuffer` at hand.
impl<'b> From<&'b mut FixedBuffer> for FixedSlice<'b> {
    #[inline]
    fn from(buffer: &'b mut FixedBuffer) -> Self {
        buffer.part(..)
    }
}

impl<'b> From<&'b mut FixedBuffer> for FixedSliceMut<'b> {
    #[inline]
    fn from(buffer: &'b mut FixedBuffer) -> Self {
        buffer.part_mut(..)
    }
}

impl fmt::Debug for FixedBuffers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FixedBuffers")
            .field("capacity", &self.capacity())
            .field("buffer_size", &self.buffer_size())
            .field("available", &self.available())
            .finish()
    }
}

impl fmt::Debug for FixedBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.set.number(self.start);
        f.debug_struct("FixedBuffer").field("number", &number).field("length", &self.len()).finish()
    }
}

impl fmt::Debug for FixedSlice<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FixedSlice").field("length", &self.bytes.len()).finish_non_exhaustive()
    }
}

impl fmt::Debug for FixedSliceMut<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FixedSliceMut").field("length", &self.bytes.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::tests::in_fork_while_taken;

    #[test]
    fn sizes_that_can_not_be_registered_are_refused() {
        let kind = |count, size| FixedBuffers::new(count, size).map(drop).map_err(|error| error.kind());
        for (count, size) in [(0, 1), (1, 0), (1 << 15, 1 << 16), (u32::MAX, u32::MAX)] {
            assert_eq!(kind(count, size), Err(io::ErrorKind::InvalidInput), "{count} times {size}");
        }
        assert_eq!(kind(1 << 15, 1 << 15), Ok(()), "a gibibyte");
    }

    #[test]
    fn each_buffer_has_bytes_of_its_own_and_comes_back() {
        let buffers = FixedBuffers::new(3, 1000).unwrap();
        assert_eq!((buffers.capacity(), buffers.buffer_size(), buffers.available()), (3, 1000, 3));
        let mut taken: Vec<FixedBuffer> = std::iter::from_fn(|| buffers.take()).collect();
        assert_eq!((taken.len(), buffers.available()), (3, 0));
        for (number, buffer) in taken.iter_mut().enumerate() {
            assert_eq!(**buffer, [0; 1000]);
            buffer.fill(number as u8 + 1);
        }
        for (number, buffer) in taken.iter().enumerate() {
            assert_eq!(**buffer, [number as u8 + 1; 1000]);
        }
        let second = taken.remove(1);
        std::thread::spawn(move || drop(second)).join().unwrap();
        assert_eq!(buffers.available(), 1);
        assert_eq!(buffers.take().map(|buffer| buffer[999]), Some(2), "as it was left");
        let mut last = taken.remove(0);
        drop((buffers, taken));
        last[0] = 9;
        assert_eq!((last[0], last[999]), (9, 1), "it outlives its set");
    }

    #[test]
    fn a_part_is_the_bytes_that_were_named() {
        let buffers = FixedBuffers::new(1, 8).unwrap();
        let mut buffer = buffers.take().unwrap();
        buffer.part_mut(2..5).bytes.fill(7);
        assert_eq!(*buffer, [0, 0, 7, 7, 7, 0, 0, 0]);
        assert_eq!(buffer.part(4..).bytes, [7, 0, 0, 0]);
        assert_eq!(FixedSlice::from(&buffer).bytes.len(), 8);
        let beyond = std::panic::catch_unwind(|| buffer.part(..9).bytes.len());
        assert!(beyond.is_err());
    }

    #[test]
    fn a_place_is_in_one_ring() {
        let place = Registered::nowhere();
        assert_eq!((place.in_ring(1), place.in_ring(2)), (None, None));
        assert!(place.take(1, 7) && !place.take(2, 9), "the second is too late");
        assert_eq!((place.in_ring(1), place.in_ring(2)), (Some(7), None));
        place.leave();
        assert!(place.in_ring(1).is_none() && place.take(2, 9));
        assert_eq!(place.in_ring(2), Some(9));
    }

    #[test]
    fn what_is_registered_may_go_anywhere() {
        fn goes_anywhere<T: Send + Sync + std::panic::UnwindSafe + std::panic::RefUnwindSafe>() {}
        goes_anywhere::<FixedBuffers>();
        goes_anywhere::<FixedBuffer>();
        goes_anywhere::<FixedFile>();
    }

    #[test]
    #[cfg_attr(miri, ignore = "it knows no forks")]
    fn a_child_takes_and_gives_back_though_another_thread_had_the_lock_at_the_fork() {
        let buffers = FixedBuffers::new(2, 8).unwrap();
        let mut buffer = buffers.take();
        in_fork_while_taken(&buffers.shared.free, || {
            drop(buffer.take());
            buffers.available() == 2
        });
        assert_eq!((buffer.is_some(), buffers.available()), (true, 1), "the parent's is its own");
    }
}
