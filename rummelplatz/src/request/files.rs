//! Requests on open files: on their contents, and on the space that they have on disk.

use std::mem::MaybeUninit;
use std::ops::BitOr;
use std::os::fd::AsFd;

use io_uring::opcode;
use io_uring::types::{Fd, FsyncFlags};

use super::aside::{Aside, Piece, Pieces};
use super::entry::{bare, fd, length, on_memory};
use super::sqe::{self, Usual};
use super::{Parts, Request, Stream, Target};
use crate::buffers::BufferPool;
use crate::fixed::{FixedSlice, FixedSliceMut, Registered};

/// The current file position, for `offset` (`-1`, as in `IORING_OP_READ`).
const CURRENT_POSITION: u64 = u64::MAX;

/// An entry on a file. The file may be a registered one, and so may its memory.
#[inline(always)]
fn on_file<'d>(file: &'d impl Target, entry: Usual, memory: Option<&'d Registered>) -> Request<'d> {
    Parts::about(file, entry, memory).request()
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

/// Reads into `buffer` from the current position (`IORING_OP_READ`, since 5.6), as `read(2)`: the call for pipes,
/// terminals and other streams. The result is the number of bytes; 0 is the end.
#[inline]
pub fn read<'d>(file: &'d impl Target, buffer: &'d mut [u8]) -> Request<'d> {
    read_at(file, buffer, CURRENT_POSITION)
}

/// Reads into `buffer` from `offset`, in bytes, as `pread(2)`. Here, and in all other reads
/// and writes, `u64::MAX` means the current position, and any other value above `i64::MAX` is `EINVAL`.
#[doc(alias = "pread")]
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

/// Writes `buffer` at the current position (`IORING_OP_WRITE`, since 5.6), as `write(2)`. The result is the number of
/// bytes, possibly less than asked for.
#[inline]
pub fn write<'d>(file: &'d impl Target, buffer: &'d [u8]) -> Request<'d> {
    write_at(file, buffer, CURRENT_POSITION)
}

/// Writes `buffer` at `offset`, in bytes, as `pwrite(2)`.
#[doc(alias = "pwrite")]
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

/// How a read or a write is done, for [`rw_flags`](Request::rw_flags) (`preadv2(2)`). What a file does not support is
/// `EOPNOTSUPP`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RwFlags(u32);

impl RwFlags {
    /// When the write is over, the data is on the disk, with the metadata needed to find it (`RWF_DSYNC`, since 4.7).
    pub const DSYNC: RwFlags = RwFlags(libc::RWF_DSYNC as u32);
    /// As [`DSYNC`](Self::DSYNC), with all metadata (`RWF_SYNC`, since 4.7).
    pub const SYNC: RwFlags = RwFlags(libc::RWF_SYNC as u32);
    /// Ends with `EAGAIN` instead of waiting, for the disk or for something to read (`RWF_NOWAIT`, since 4.14).
    pub const NOWAIT: RwFlags = RwFlags(libc::RWF_NOWAIT as u32);
    /// Writes to the end of the file, whatever the offset (`RWF_APPEND`, since 4.16).
    pub const APPEND: RwFlags = RwFlags(libc::RWF_APPEND as u32);
    /// Writes all or nothing, also if the power fails: needs `O_DIRECT`, and a size and an offset for which the disk
    /// can do so (`RWF_ATOMIC`, since 6.11).
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
#[doc(alias = "sync_all")]
#[inline]
pub fn fsync<'d>(file: &'d impl Target) -> Request<'d> {
    synchronise(file, FsyncFlags::empty())
}

/// Brings a file's data to the disk, with the metadata needed to find it (`IORING_FSYNC_DATASYNC`, since 5.1).
///
/// If it is for one write only, [`RwFlags::DSYNC`] does both in one request.
#[doc(alias = "sync_data")]
#[inline]
pub fn fdatasync<'d>(file: &'d impl Target) -> Request<'d> {
    synchronise(file, FsyncFlags::DATASYNC)
}

fn synchronise(file: &impl Target, flags: FsyncFlags) -> Request<'_> {
    on_file(file, Usual { op_flags: flags.bits(), ..bare(opcode::Fsync::CODE.into(), -1) }, None)
}

/// Which steps of writing back a range [`sync_file_range`] takes, in this order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SyncRange(u32);

impl SyncRange {
    /// Waits for what is already being written (`SYNC_FILE_RANGE_WAIT_BEFORE`).
    pub const WAIT_BEFORE: SyncRange = SyncRange(libc::SYNC_FILE_RANGE_WAIT_BEFORE);
    /// Begins to write what is not yet being written (`SYNC_FILE_RANGE_WRITE`).
    pub const WRITE: SyncRange = SyncRange(libc::SYNC_FILE_RANGE_WRITE);
    /// Waits until that is written (`SYNC_FILE_RANGE_WAIT_AFTER`).
    pub const WAIT_AFTER: SyncRange = SyncRange(libc::SYNC_FILE_RANGE_WAIT_AFTER);
}

impl BitOr for SyncRange {
    type Output = SyncRange;
    fn bitor(self, other: SyncRange) -> SyncRange {
        SyncRange(self.0 | other.0)
    }
}

/// Writes back what the page cache has of `length` bytes from `offset` on; a length of 0 means up to the end
/// (`IORING_OP_SYNC_FILE_RANGE`, since 5.2), as `sync_file_range(2)`.
///
/// This does not replace [`fdatasync`]: the metadata needed to find the bytes may not be on the disk, and the disk may
/// not have stored the bytes for good. It gives a later `fdatasync` less to do at once.
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
/// `preadv(2)`. The result is the number of bytes in all.
///
/// The ring keeps the list of buffers: neighbours in memory count as one, up to four are kept in place, and more take
/// an allocation. The kernel takes at most 1024 that are not neighbours (`UIO_MAXIOV`). The others are left out, which
/// makes it a short read or a short write, as the result says. More than that are refused (`EINVAL`) if the request is
/// [detached](crate::Submitter::detach), or in a [chain](crate::Submitter::chain), which would go on after a short one.
#[doc(alias = "preadv")]
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
/// The result is the number of bytes in all, possibly less than asked for.
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
#[doc(alias = "pwritev")]
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
/// For how many there may be, see [`readv_at`].
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
    Parts::beside_on(file, on_pieces(opcode, &pieces, offset), Aside::Pieces(pieces)).request()
}

/// An entry that moves bytes from or to as many of these pieces as the kernel takes.
#[inline(always)]
fn on_pieces(opcode: u8, pieces: &Pieces, offset: u64) -> Usual {
    let most = pieces.len().min(Pieces::MOST);
    Usual { offset, length: length(most), ..bare(opcode.into(), -1) }
}

/// As [`read_vectored_at`], into memory that the ring has registered (`IORING_OP_READV_FIXED`, since 6.15): parts of
/// buffers that are all of one set, or whole buffers.
///
/// If their [`FixedBuffers`](crate::FixedBuffers) are not registered with the ring, or if they are of several sets,
/// this ends with `EFAULT`. For hundreds of megabytes at once, the kernel may lack the memory for its list of their pages
/// (`ENOMEM`).
///
/// ```
/// # use rummelplatz::{request, request::Request, FixedBuffer, FixedFile};
/// struct Blocks { file: FixedFile, head: FixedBuffer, blocks: Vec<FixedBuffer>, offset: u64 }
///
/// impl Blocks {
///     fn read(&mut self) -> Request<'_> {
///         request::read_vectored_fixed_at(&self.file, &mut self.blocks, self.offset)
///     }
///     fn write(&mut self) -> Request<'_> {
///         let blocks = self.blocks.iter().map(|block| block.part(..));
///         let all = [self.head.part(..512)].into_iter().chain(blocks);
///         request::write_vectored_fixed_at(&self.file, all, self.offset)
///     }
/// }
/// ```
pub fn read_vectored_fixed_at<'d>(
    file: &'d impl Target,
    buffers: impl IntoIterator<Item: Into<FixedSliceMut<'d>>>,
    offset: u64,
) -> Request<'d> {
    let parts = buffers.into_iter().map(|buffer| {
        let FixedSliceMut { bytes, place } = buffer.into();
        (Piece::new(bytes.as_mut_ptr(), bytes.len()), place)
    });
    vectored_fixed(opcode::Readv::CODE, opcode::ReadvFixed::CODE, file, parts, offset)
}

/// As [`read_vectored_fixed_at`], from the current position: for pipes, sockets and other streams.
pub fn read_vectored_fixed<'d>(
    file: &'d impl Target,
    buffers: impl IntoIterator<Item: Into<FixedSliceMut<'d>>>,
) -> Request<'d> {
    read_vectored_fixed_at(file, buffers, CURRENT_POSITION)
}

/// As [`write_vectored_at`], from memory that the ring has registered (`IORING_OP_WRITEV_FIXED`, since 6.15): see
/// [`read_vectored_fixed_at`].
pub fn write_vectored_fixed_at<'d>(
    file: &'d impl Target,
    buffers: impl IntoIterator<Item: Into<FixedSlice<'d>>>,
    offset: u64,
) -> Request<'d> {
    let parts = buffers.into_iter().map(|buffer| {
        let FixedSlice { bytes, place } = buffer.into();
        (Piece::new(bytes.as_ptr(), bytes.len()), place)
    });
    vectored_fixed(opcode::Writev::CODE, opcode::WritevFixed::CODE, file, parts, offset)
}

/// As [`write_vectored_fixed_at`], at the current position: for pipes, sockets and other streams.
pub fn write_vectored_fixed<'d>(
    file: &'d impl Target,
    buffers: impl IntoIterator<Item: Into<FixedSlice<'d>>>,
) -> Request<'d> {
    write_vectored_fixed_at(file, buffers, CURRENT_POSITION)
}

/// Without a byte to be moved, it is the same with memory that is not registered, `opcode`.
fn vectored_fixed<'d>(
    opcode: u8,
    fixed_opcode: u8,
    file: &'d impl Target,
    parts: impl Iterator<Item = (Piece, &'d Registered)>,
    offset: u64,
) -> Request<'d> {
    // The kernel refuses empty ones, and those that are outside of what is registered in the place of the first.
    let mut parts = parts.filter(|(piece, _)| !piece.is_empty()).peekable();
    let memory = parts.peek().map(|(_, place)| *place);
    let pieces: Pieces = parts.map(|(piece, _)| piece).collect();
    match memory {
        None => vectored(opcode, file, pieces, offset),
        Some(memory) => {
            let entry = on_pieces(fixed_opcode, &pieces, offset);
            Parts::pieces_on(file, entry, pieces, memory).request()
        }
    }
}

/// As [`read`], into a buffer of `pool`, which the kernel takes when there is something to read (`IOSQE_BUFFER_SELECT`,
/// with a [`BufferPool`] since 5.19).
///
/// The bytes come out of [`into_buffer`](crate::Completion::into_buffer): as many as there are, but no more than the
/// buffer has room for. Otherwise as [`recv_provided`](super::recv_provided). In a [chain](crate::Submitter::chain),
/// the request has succeeded if the buffer is full.
#[doc(alias = "buffer_select")]
pub fn read_provided<'d>(file: &'d impl Target, pool: &BufferPool) -> Request<'d> {
    read_provided_at(file, pool, CURRENT_POSITION)
}

/// As [`read_provided`], from `offset`, in bytes.
pub fn read_provided_at<'d>(file: &'d impl Target, pool: &BufferPool, offset: u64) -> Request<'d> {
    let entry = bare(u32::from(opcode::Read::CODE) | sqe::BUFFER_SELECT, -1);
    Parts::from_pool(file, Usual { offset, ..entry }, pool).request()
}

/// Reads again and again, each time into a buffer of `pool` (`IORING_OP_READ_MULTISHOT`, since 6.7): from pipes,
/// terminals, eventfds and other files that can be polled. A regular file ends the stream with `EBADFD`.
///
/// Otherwise as [`recv_multi`](super::recv_multi).
#[doc(alias = "read_multishot")]
pub fn read_multi<'d>(file: &'d impl Target, pool: &BufferPool) -> Stream<'d> {
    let entry = bare(u32::from(opcode::ReadMulti::CODE) | sqe::BUFFER_SELECT, -1);
    Parts::from_pool(file, Usual { offset: CURRENT_POSITION, ..entry }, pool).stream()
}

/// What [`fallocate`] does with a range of a file (`fallocate(2)`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Allocate {
    /// Allocates the range on disk, and lets the file grow to it.
    Extend,
    /// Allocates the range on disk; the size that the file reports stays the same (`FALLOC_FL_KEEP_SIZE`).
    KeepSize,
    /// Gives the range back to the disk: it reads as zeroes (`FALLOC_FL_PUNCH_HOLE`).
    PunchHole,
    /// Makes the range read as zeroes, and allocates it on disk (`FALLOC_FL_ZERO_RANGE`).
    ZeroRange,
    /// Takes the range out of the file; what follows it moves up (`FALLOC_FL_COLLAPSE_RANGE`).
    Collapse,
    /// Inserts a hole; what was there moves back (`FALLOC_FL_INSERT_RANGE`).
    Insert,
}

/// Changes how `length` bytes from `offset` on are allocated on disk (`IORING_OP_FALLOCATE`, since 5.6).
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
#[doc(alias = "set_len")]
pub fn ftruncate<'d>(file: &'d impl Target, length: u64) -> Request<'d> {
    on_file(file, Usual { offset: length, ..bare(opcode::Ftruncate::CODE.into(), -1) }, None)
}

/// What [`fadvise`] says about how a range of a file will be used (`posix_fadvise(2)`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Advice {
    /// In no particular way.
    Normal = libc::POSIX_FADV_NORMAL as isize,
    /// In random order.
    Random = libc::POSIX_FADV_RANDOM as isize,
    /// In order, from the beginning to the end.
    Sequential = libc::POSIX_FADV_SEQUENTIAL as isize,
    /// Soon: the range is read into the page cache.
    WillNeed = libc::POSIX_FADV_WILLNEED as isize,
    /// Not soon: the range may leave the page cache.
    DontNeed = libc::POSIX_FADV_DONTNEED as isize,
    /// Only once.
    NoReuse = libc::POSIX_FADV_NOREUSE as isize,
}

/// Says how `length` bytes from `offset` on will be used; a length of 0 means up to the end (`IORING_OP_FADVISE`, since
/// 5.6).
#[doc(alias = "posix_fadvise")]
pub fn fadvise<'d>(file: &'d impl Target, advice: Advice, offset: u64, length: u32) -> Request<'d> {
    let entry = bare(opcode::Fadvise::CODE.into(), -1);
    on_file(file, Usual { offset, length, op_flags: advice as u32, ..entry }, None)
}

/// Moves up to `length` bytes from one file to another without copying them to the program, as `splice(2)`
/// (`IORING_OP_SPLICE`, since 5.7). One of the two is a pipe.
///
/// Give an offset, in bytes, only for the side that is not a pipe; `None` means its current position. The result is the
/// number of bytes; 0 is the end.
///
/// A worker thread of the kernel carries it out. Each splice that waits, for bytes or for room in a pipe, occupies one
/// worker. Where many may wait, [`poll`](super::poll) first.
#[doc(alias = "sendfile")]
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
    Parts::whole(opcode::Splice::new(from, from_offset, to, to_offset, length).build()).request()
}

/// Copies up to `length` bytes from one pipe to another; the bytes also stay in the first (`IORING_OP_TEE`, since 5.8),
/// as `tee(2)`. The result is the number of bytes; 0 is the end.
///
/// A worker thread of the kernel carries it out, as for [`splice`].
pub fn tee<'d>(from: &'d impl AsFd, to: &'d impl AsFd, length: u32) -> Request<'d> {
    Parts::whole(opcode::Tee::new(Fd(fd(from)), Fd(fd(to)), length).build()).request()
}
