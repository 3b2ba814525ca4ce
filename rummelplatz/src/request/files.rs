//! Requests on open files: what is in them, and what room they have on disk.

use std::mem::MaybeUninit;
use std::ops::BitOr;
use std::os::fd::AsFd;

use io_uring::opcode;
use io_uring::types::{Fd, FsyncFlags};

use super::aside::{Aside, Piece, Pieces};
use super::entry::{bare, fd, length, on_memory};
use super::sqe::{self, Usual};
use super::target::Named;
use super::{Fixed, Parts, Request, Stream, Target};
use crate::buffers::BufferPool;
use crate::fixed::{FixedSlice, FixedSliceMut, Registered};

/// The current file position, for `offset` (`-1`, as in `IORING_OP_READ`).
const CURRENT_POSITION: u64 = u64::MAX;

/// An entry on a file, which may be a registered one, as its memory may be.
#[inline(always)]
fn on_file<'d>(file: &'d impl Target, entry: Usual, memory: Option<&'d Registered>) -> Request<'d> {
    let Named { descriptor, place } = file.named();
    let entry = Usual { descriptor, ..entry };
    match (place, memory) {
        (None, None) => Parts::usual(entry).request(),
        (file, memory) => Parts::fixed(Fixed { entry, file, memory }).request(),
    }
}

/// An entry that moves bytes between a file and memory.
#[inline(always)]
fn on_bytes<'d, T>(
    opcode: u8,
    file: &'d impl Target,
    (memory, bytes): (*const T, usize),
    offset: u64,
    place: Option<&'d Registered>,
) -> Request<'d> {
    on_file(file, Usual { offset, ..on_memory(opcode.into(), memory, bytes) }, place)
}

/// Reads into `buffer` from the current position (`IORING_OP_READ`, since 5.6), as `read(2)`: the
/// call for pipes, terminals and other streams. The result is a number of bytes; 0 is the end.
#[inline]
pub fn read<'d>(file: &'d impl Target, buffer: &'d mut [u8]) -> Request<'d> {
    read_at(file, buffer, CURRENT_POSITION)
}

/// Reads into `buffer` from `offset`, in bytes, as `pread(2)`. Here and in all that takes an offset, `u64::MAX` is the
/// current position, and another beyond `i64::MAX` is `EINVAL`.
#[inline]
pub fn read_at<'d>(file: &'d impl Target, buffer: &'d mut [u8], offset: u64) -> Request<'d> {
    on_bytes(opcode::Read::CODE, file, (buffer.as_mut_ptr(), buffer.len()), offset, None)
}

/// As [`read`], into memory that need not be initialised.
#[inline]
pub fn read_uninit<'d>(file: &'d impl Target, buffer: &'d mut [MaybeUninit<u8>]) -> Request<'d> {
    read_at_uninit(file, buffer, CURRENT_POSITION)
}

/// As [`read_at`], into memory that need not be initialised.
#[inline]
pub fn read_at_uninit<'d>(
    file: &'d impl Target,
    buffer: &'d mut [MaybeUninit<u8>],
    offset: u64,
) -> Request<'d> {
    on_bytes(opcode::Read::CODE, file, (buffer.as_mut_ptr(), buffer.len()), offset, None)
}

/// As [`read`], into memory that the ring has registered (`IORING_OP_READ_FIXED`, since 5.1): a
/// [`FixedBuffer`](crate::FixedBuffer), or a part of one.
///
/// If its [`FixedBuffers`](crate::FixedBuffers) are not registered with the ring, this ends with `EFAULT`.
#[inline]
pub fn read_fixed<'d>(file: &'d impl Target, buffer: impl Into<FixedSliceMut<'d>>) -> Request<'d> {
    read_fixed_at(file, buffer, CURRENT_POSITION)
}

/// As [`read_at`], into memory that the ring has registered: see [`read_fixed`].
///
/// ```
/// # use rummelplatz::{request, request::Request, FixedBuffer, FixedFile};
/// struct Block { file: FixedFile, buffer: FixedBuffer, offset: u64 }
///
/// impl Block {
///     fn read(&mut self) -> Request<'_> {
///         request::read_fixed_at(&self.file, &mut self.buffer, self.offset)
///     }
///     fn write_head(&mut self) -> Request<'_> {
///         request::write_fixed_at(&self.file, self.buffer.part(..512), self.offset)
///     }
/// }
/// ```
#[inline]
pub fn read_fixed_at<'d>(
    file: &'d impl Target,
    buffer: impl Into<FixedSliceMut<'d>>,
    offset: u64,
) -> Request<'d> {
    let FixedSliceMut { bytes, place } = buffer.into();
    let memory = (bytes.as_mut_ptr().cast_const(), bytes.len());
    on_bytes(opcode::ReadFixed::CODE, file, memory, offset, Some(place))
}

/// Writes `buffer` at the current position (`IORING_OP_WRITE`, since 5.6), as `write(2)`. The result
/// is a number of bytes, possibly less than asked for.
#[inline]
pub fn write<'d>(file: &'d impl Target, buffer: &'d [u8]) -> Request<'d> {
    write_at(file, buffer, CURRENT_POSITION)
}

/// Writes `buffer` at `offset`, in bytes, as `pwrite(2)`.
#[inline]
pub fn write_at<'d>(file: &'d impl Target, buffer: &'d [u8], offset: u64) -> Request<'d> {
    on_bytes(opcode::Write::CODE, file, (buffer.as_ptr(), buffer.len()), offset, None)
}

/// As [`write()`], from memory that the ring has registered (`IORING_OP_WRITE_FIXED`, since 5.1): a
/// [`FixedBuffer`](crate::FixedBuffer), or a part of one.
///
/// If its [`FixedBuffers`](crate::FixedBuffers) are not registered with the ring, this ends with `EFAULT`.
#[inline]
pub fn write_fixed<'d>(file: &'d impl Target, buffer: impl Into<FixedSlice<'d>>) -> Request<'d> {
    write_fixed_at(file, buffer, CURRENT_POSITION)
}

/// As [`write_at`], from memory that the ring has registered: see [`write_fixed`].
#[inline]
pub fn write_fixed_at<'d>(
    file: &'d impl Target,
    buffer: impl Into<FixedSlice<'d>>,
    offset: u64,
) -> Request<'d> {
    let FixedSlice { bytes, place } = buffer.into();
    on_bytes(opcode::WriteFixed::CODE, file, (bytes.as_ptr(), bytes.len()), offset, Some(place))
}

/// How a read or a write is done, for [`rw_flags`](Request::rw_flags) (`preadv2(2)`). What a file can't do is
/// `EOPNOTSUPP`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RwFlags(u32);

impl RwFlags {
    /// What is written is on the disk when this is over, and what it takes to find it (`RWF_DSYNC`, since 4.7).
    pub const DSYNC: RwFlags = RwFlags(libc::RWF_DSYNC as u32);
    /// As [`DSYNC`](Self::DSYNC), with all metadata (`RWF_SYNC`, since 4.7).
    pub const SYNC: RwFlags = RwFlags(libc::RWF_SYNC as u32);
    /// Ends with `EAGAIN` rather than to wait, for the disk or for something to read (`RWF_NOWAIT`, since 4.14).
    pub const NOWAIT: RwFlags = RwFlags(libc::RWF_NOWAIT as u32);
    /// Writes to the end of the file, whatever the offset (`RWF_APPEND`, since 4.16).
    pub const APPEND: RwFlags = RwFlags(libc::RWF_APPEND as u32);
    /// Writes all or nothing, also if the power fails: with `O_DIRECT`, of a size and at an offset that the disk can do so
    /// (`RWF_ATOMIC`, since 6.11).
    pub const ATOMIC: RwFlags = RwFlags(0x40);
    /// Leaves nothing in the page cache (`RWF_DONTCACHE`, since 6.14).
    pub const DONTCACHE: RwFlags = RwFlags(0x80);

    pub(super) const fn bits(self) -> u32 {
        self.0
    }
}

impl BitOr for RwFlags {
    type Output = RwFlags;
    fn bitor(self, other: RwFlags) -> RwFlags {
        RwFlags(self.0 | other.0)
    }
}

/// Brings a file's data and metadata to the disk (`IORING_OP_FSYNC`, since 5.1).
#[inline]
pub fn fsync<'d>(file: &'d impl Target) -> Request<'d> {
    synchronise(file, FsyncFlags::empty())
}

/// Brings a file's data to the disk, and what it takes to find it (`IORING_FSYNC_DATASYNC`, since
/// 5.1).
#[inline]
pub fn fdatasync<'d>(file: &'d impl Target) -> Request<'d> {
    synchronise(file, FsyncFlags::DATASYNC)
}

fn synchronise(file: &impl Target, flags: FsyncFlags) -> Request<'_> {
    on_file(file, Usual { op_flags: flags.bits(), ..bare(opcode::Fsync::CODE.into(), -1) }, None)
}

/// Which parts of writing back a range [`sync_file_range`] does, in this order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SyncRange(u32);

impl SyncRange {
    /// Waits for what is being written (`SYNC_FILE_RANGE_WAIT_BEFORE`).
    pub const WAIT_BEFORE: SyncRange = SyncRange(libc::SYNC_FILE_RANGE_WAIT_BEFORE);
    /// Begins to write what is not being written (`SYNC_FILE_RANGE_WRITE`).
    pub const WRITE: SyncRange = SyncRange(libc::SYNC_FILE_RANGE_WRITE);
    /// Waits for that (`SYNC_FILE_RANGE_WAIT_AFTER`).
    pub const WAIT_AFTER: SyncRange = SyncRange(libc::SYNC_FILE_RANGE_WAIT_AFTER);
}

impl BitOr for SyncRange {
    type Output = SyncRange;
    fn bitor(self, other: SyncRange) -> SyncRange {
        SyncRange(self.0 | other.0)
    }
}

/// Writes back what is in the page cache of `length` bytes from `offset` on; 0 is up to the end
/// (`IORING_OP_SYNC_FILE_RANGE`, since 5.2), as `sync_file_range(2)`.
///
/// It is no [`fdatasync`]: what it takes to find the bytes may not be on the disk, nor may the disk have them for good. It
/// evens out what a later one has to do.
pub fn sync_file_range<'d>(
    file: &'d impl Target,
    offset: u64,
    length: u32,
    SyncRange(op_flags): SyncRange,
) -> Request<'d> {
    let entry = bare(opcode::SyncFileRange::CODE.into(), -1);
    on_file(file, Usual { offset, length, op_flags, ..entry }, None)
}

/// Reads into several buffers, one after the other, from `offset`, in bytes (`IORING_OP_READV`, since 5.1), as
/// `preadv(2)`. The result is a number of bytes in all.
///
/// Where the buffers are is kept by the ring: neighbours in memory as one, up to four in place, more in an allocation. Of
/// those that are no neighbours, the kernel takes 1024 (`UIO_MAXIOV`), so the others are left out: that is a short read,
/// or a short write, as the result says. [Detached](crate::Submitter::detach), and in a [chain](crate::Submitter::chain),
/// which would go on behind it, more than that are refused (`EINVAL`).
pub fn readv_at<'d, const N: usize>(
    file: &'d impl Target,
    buffers: [&'d mut [u8]; N],
    offset: u64,
) -> Request<'d> {
    read_vectored_at(file, buffers, offset)
}

/// As [`readv_at`], from the current position: for pipes, sockets and other streams.
pub fn readv<'d, const N: usize>(file: &'d impl Target, buffers: [&'d mut [u8]; N]) -> Request<'d> {
    read_vectored_at(file, buffers, CURRENT_POSITION)
}

/// As [`readv_at`], into any number of buffers.
pub fn read_vectored_at<'d>(
    file: &'d impl Target,
    buffers: impl IntoIterator<Item = &'d mut [u8]>,
    offset: u64,
) -> Request<'d> {
    let pieces = buffers.into_iter().map(|buffer| Piece::new(buffer.as_mut_ptr(), buffer.len()));
    vectored(opcode::Readv::CODE, file, pieces.collect(), offset)
}

/// As [`readv`], into any number of buffers.
pub fn read_vectored<'d>(
    file: &'d impl Target,
    buffers: impl IntoIterator<Item = &'d mut [u8]>,
) -> Request<'d> {
    read_vectored_at(file, buffers, CURRENT_POSITION)
}

/// Writes several buffers, one after the other, at `offset`, in bytes (`IORING_OP_WRITEV`, since 5.1), as `pwritev(2)`.
/// The result is a number of bytes in all, possibly less than asked for.
///
/// ```
/// # use rummelplatz::{request, request::Request};
/// # use std::fs::File;
/// struct Record { file: File, head: [u8; 16], body: Vec<u8>, offset: u64 }
///
/// impl Record {
///     fn write(&mut self) -> Request<'_> {
///         request::writev_at(&self.file, [&self.head, &self.body], self.offset)
///     }
/// }
/// ```
pub fn writev_at<'d, const N: usize>(
    file: &'d impl Target,
    buffers: [&'d [u8]; N],
    offset: u64,
) -> Request<'d> {
    write_vectored_at(file, buffers, offset)
}

/// As [`writev_at`], at the current position: for pipes, sockets and other streams.
pub fn writev<'d, const N: usize>(file: &'d impl Target, buffers: [&'d [u8]; N]) -> Request<'d> {
    write_vectored_at(file, buffers, CURRENT_POSITION)
}

/// As [`writev_at`], of any number of buffers.
///
/// ```
/// # use rummelplatz::{request, request::Request};
/// # use std::fs::File;
/// # struct Log { file: File, lines: Vec<String>, end: u64 }
/// # impl Log {
/// fn write_all(&mut self) -> Request<'_> {
///     request::write_vectored_at(&self.file, self.lines.iter().map(String::as_bytes), self.end)
/// }
/// # }
/// ```
///
/// Of how many there may be, see [`readv_at`].
pub fn write_vectored_at<'d>(
    file: &'d impl Target,
    buffers: impl IntoIterator<Item = &'d [u8]>,
    offset: u64,
) -> Request<'d> {
    let pieces = buffers.into_iter().map(|buffer| Piece::new(buffer.as_ptr(), buffer.len()));
    vectored(opcode::Writev::CODE, file, pieces.collect(), offset)
}

/// As [`write_vectored_at`], at the current position: for pipes, sockets and other streams.
pub fn write_vectored<'d>(file: &'d impl Target, buffers: impl IntoIterator<Item = &'d [u8]>) -> Request<'d> {
    write_vectored_at(file, buffers, CURRENT_POSITION)
}

fn vectored<'d>(opcode: u8, file: &'d impl Target, pieces: Pieces, offset: u64) -> Request<'d> {
    let most = pieces.len().min(Pieces::MOST);
    let entry = Usual { offset, length: length(most), ..bare(opcode.into(), -1) };
    Parts::beside_on(file, entry, Aside::Pieces(pieces)).request()
}

/// As [`read`], into a buffer of `pool`, which the kernel takes when there is something to read (`IOSQE_BUFFER_SELECT`,
/// with a [`BufferPool`] since 5.19).
///
/// The bytes come out of [`into_buffer`](crate::Completion::into_buffer): as many as the buffer has room for, or as there
/// are. Otherwise as [`recv_provided`](super::recv_provided). In a [chain](crate::Submitter::chain), it has succeeded if
/// the buffer is full.
pub fn read_provided<'d>(file: &'d impl Target, pool: &BufferPool) -> Request<'d> {
    read_provided_at(file, pool, CURRENT_POSITION)
}

/// As [`read_provided`], from `offset`, in bytes.
pub fn read_provided_at<'d>(file: &'d impl Target, pool: &BufferPool, offset: u64) -> Request<'d> {
    let entry = bare(u32::from(opcode::Read::CODE) | sqe::BUFFER_SELECT, -1);
    Parts::from_pool(file, Usual { offset, ..entry }, pool).request()
}

/// Reads again and again, each time into a buffer of `pool` (`IORING_OP_READ_MULTISHOT`, since 6.7): of pipes,
/// terminals, eventfds and whatever else can be waited for. A regular file ends it with `EBADFD`.
///
/// As [`recv_multi`](super::recv_multi) otherwise.
pub fn read_multi<'d>(file: &'d impl Target, pool: &BufferPool) -> Stream<'d> {
    let entry = bare(u32::from(opcode::ReadMulti::CODE) | sqe::BUFFER_SELECT, -1);
    Parts::from_pool(file, Usual { offset: CURRENT_POSITION, ..entry }, pool).stream()
}

/// What [`fallocate`] does with a range of a file (`fallocate(2)`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Allocate {
    /// Has the disk hold it, and lets the file grow to it.
    Extend,
    /// Has the disk hold it; the file says the same size (`FALLOC_FL_KEEP_SIZE`).
    KeepSize,
    /// Gives it back to the disk: it reads as zeroes (`FALLOC_FL_PUNCH_HOLE`).
    PunchHole,
    /// Has it read as zeroes, and the disk hold it (`FALLOC_FL_ZERO_RANGE`).
    ZeroRange,
    /// Takes it out of the file, whose rest moves up (`FALLOC_FL_COLLAPSE_RANGE`).
    Collapse,
    /// Makes a hole before what is there, which moves down (`FALLOC_FL_INSERT_RANGE`).
    Insert,
}

/// Sees to the room on disk of `length` bytes from `offset` on (`IORING_OP_FALLOCATE`, since 5.6).
pub fn fallocate<'d>(file: &'d impl Target, how: Allocate, offset: u64, length: u64) -> Request<'d> {
    let mode = match how {
        Allocate::Extend => 0,
        Allocate::KeepSize => libc::FALLOC_FL_KEEP_SIZE,
        Allocate::PunchHole => libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE,
        Allocate::ZeroRange => libc::FALLOC_FL_ZERO_RANGE,
        Allocate::Collapse => libc::FALLOC_FL_COLLAPSE_RANGE,
        Allocate::Insert => libc::FALLOC_FL_INSERT_RANGE,
    };
    let entry = bare(opcode::Fallocate::CODE.into(), -1);
    on_file(file, Usual { offset, address: length, length: mode as u32, ..entry }, None)
}

/// Makes a file `length` bytes long, as `ftruncate(2)` (`IORING_OP_FTRUNCATE`, since 6.9).
pub fn ftruncate<'d>(file: &'d impl Target, length: u64) -> Request<'d> {
    on_file(file, Usual { offset: length, ..bare(opcode::Ftruncate::CODE.into(), -1) }, None)
}

/// What [`fadvise`] says of how a range of a file will be used (`posix_fadvise(2)`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Advice {
    /// Nothing in particular.
    Normal = libc::POSIX_FADV_NORMAL as isize,
    /// Here and there.
    Random = libc::POSIX_FADV_RANDOM as isize,
    /// From the beginning to the end.
    Sequential = libc::POSIX_FADV_SEQUENTIAL as isize,
    /// Soon: it is read into the page cache.
    WillNeed = libc::POSIX_FADV_WILLNEED as isize,
    /// Not soon: it may leave the page cache.
    DontNeed = libc::POSIX_FADV_DONTNEED as isize,
    /// Once.
    NoReuse = libc::POSIX_FADV_NOREUSE as isize,
}

/// Says how `length` bytes from `offset` on will be used; 0 is up to the end (`IORING_OP_FADVISE`, since 5.6).
pub fn fadvise<'d>(file: &'d impl Target, advice: Advice, offset: u64, length: u32) -> Request<'d> {
    let entry = bare(opcode::Fadvise::CODE.into(), -1);
    on_file(file, Usual { offset, length, op_flags: advice as u32, ..entry }, None)
}

/// Moves up to `length` bytes from one file to another without copying them to the program, as `splice(2)`
/// (`IORING_OP_SPLICE`, since 5.7). One of the two is a pipe.
///
/// Give an offset, in bytes, only for the side that is not a pipe; `None` means its current position. The result is a number
/// of bytes; 0 is the end.
///
/// A worker thread of the kernel carries it out, and each one that waits, for bytes or for room in a pipe, keeps one.
/// Where many may wait, [`poll`](super::poll) first.
pub fn splice<'d>(
    from: &'d impl AsFd,
    from_offset: Option<u64>,
    to: &'d impl AsFd,
    to_offset: Option<u64>,
    length: u32,
) -> Request<'d> {
    // No offset is -1 here.
    let [from_offset, to_offset] =
        [from_offset, to_offset].map(|offset| offset.map_or(-1, |offset| offset.min(i64::MAX as u64) as i64));
    let (from, to) = (Fd(fd(from)), Fd(fd(to)));
    Parts::new(opcode::Splice::new(from, from_offset, to, to_offset, length).build()).request()
}

/// Copies up to `length` bytes from one pipe to another, in which they stay as well, as `tee(2)` (`IORING_OP_TEE`, since
/// 5.8). The result is a number of bytes; 0 is the end.
///
/// A worker thread of the kernel carries it out, as [`splice`].
pub fn tee<'d>(from: &'d impl AsFd, to: &'d impl AsFd, length: u32) -> Request<'d> {
    Parts::new(opcode::Tee::new(Fd(fd(from)), Fd(fd(to)), length).build()).request()
}
