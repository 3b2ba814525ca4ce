//! The constructors, in the order: general, time, sockets, files, polling. What has to do with names of files is in
//! [`paths`](super::paths).

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::num::NonZeroU32;
use std::ops::BitOr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::{Duration, Instant, SystemTime};

use io_uring::opcode;
use io_uring::types::{Fd, FsyncFlags, TimeoutFlags, Timespec};

use super::aside::{Header, Piece, Pieces};
use super::sqe::{self, Usual};
use super::target::Named;
use super::{Address, Aside, Fixed, Parts, Peer, Request, Stream, Target};
use crate::buffers::BufferPool;
use crate::clock;
use crate::facts::Yields;
use crate::fixed::{FixedSlice, FixedSliceMut, Registered};

/// The current file position, for `offset` (`-1`, as in `IORING_OP_READ`).
const CURRENT_POSITION: u64 = u64::MAX;

#[inline]
pub(super) fn fd(descriptor: &impl AsFd) -> RawFd {
    descriptor.as_fd().as_raw_fd()
}

#[inline]
fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// An entry that says nothing but its opcode, which may have more above it, and its descriptor.
#[inline(always)]
pub(super) const fn bare(opcode: u32, descriptor: RawFd) -> Usual {
    Usual { opcode, descriptor, offset: 0, address: 0, length: 0, op_flags: 0 }
}

/// An opcode with what is to stand in `ioprio`.
#[inline(always)]
const fn with_priority(opcode: u8, priority: u32) -> u32 {
    opcode as u32 | priority << sqe::PRIORITY
}

/// An entry that moves bytes between a socket and memory.
#[inline(always)]
fn transfer<'d, T>(
    opcode: u8,
    socket: &'d impl AsFd,
    memory: *const T,
    bytes: usize,
    op_flags: u32,
) -> Request<'d> {
    let address = memory.expose_provenance() as u64;
    let (opcode, descriptor, length) = (opcode.into(), fd(socket), length(bytes));
    Parts::usual(Usual { opcode, descriptor, offset: 0, address, length, op_flags }).request()
}

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
    let address = memory.expose_provenance() as u64;
    let (opcode, length) = (opcode.into(), length(bytes));
    on_file(file, Usual { opcode, descriptor: -1, offset, address, length, op_flags: 0 }, place)
}

/// Does nothing, and completes (`IORING_OP_NOP`, since 5.1).
#[inline]
pub fn nop<'d>() -> Request<'d> {
    Parts::usual(bare(opcode::Nop::CODE.into(), -1)).request()
}

/// Closes a descriptor (`IORING_OP_CLOSE`, since 5.6).
///
/// The descriptor is owned by the request's slot from here on: it is closed exactly once, by the
/// kernel, or by the slot if the request is cancelled before the kernel begins. Errors of `close(2)`
/// are reported as it does; the descriptor is gone even then.
pub fn close<'d>(descriptor: OwnedFd) -> Request<'d> {
    let mut parts = Parts::usual(bare(opcode::Close::CODE.into(), fd(&descriptor)));
    parts.closes = Some(descriptor);
    parts.request()
}

fn timer(time: Duration, count: u32, flags: TimeoutFlags) -> Parts<'static> {
    // The kernel's seconds are signed: more of them would be refused, rather than take for ever.
    let seconds = time.as_secs().min(i64::MAX as u64);
    let spec = Timespec::new().sec(seconds).nsec(time.subsec_nanos());
    let entry = Usual {
        offset: count.into(),
        // As many times as there are.
        length: 1,
        op_flags: flags.bits(),
        ..bare(opcode::Timeout::CODE.into(), -1)
    };
    let mut parts = Parts::beside(entry, Aside::Time(spec)).yielding(Yields::Tick);
    parts.facts.ticks = count;
    parts
}

/// Completes once `duration` has passed (`IORING_OP_TIMEOUT`, since 5.4).
///
/// A timer that ran its time has the result `Ok(0)`; one that was cancelled, `ECANCELED`.
pub fn timeout<'d>(duration: Duration) -> Request<'d> {
    timer(duration, 0, TimeoutFlags::empty()).request()
}

/// Completes at `instant`, on the monotonic clock (`IORING_TIMEOUT_ABS`, since 5.4).
///
/// An instant in the past completes at once.
pub fn timeout_at<'d>(instant: Instant) -> Request<'d> {
    let at = clock::monotonic() + instant.saturating_duration_since(Instant::now());
    timer(at, 0, TimeoutFlags::ABS).request()
}

/// Completes when the system's clock shows `time` (`IORING_TIMEOUT_REALTIME`, since 5.15).
///
/// Unlike [`timeout_at`], this follows changes of the clock.
pub fn timeout_at_time<'d>(time: SystemTime) -> Request<'d> {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    timer(since, 0, TimeoutFlags::ABS | TimeoutFlags::REALTIME).request()
}

/// The shortest interval of a multishot timer. The kernel can cancel one only between the moment that
/// its task work has armed it again and the next time that it fires: with a shorter interval, a cancel
/// does not get there in between, and the timer could never be ended.
const SHORTEST_INTERVAL: Duration = Duration::from_micros(50);

/// Completes again and again, each time `interval` has passed (`IORING_TIMEOUT_MULTISHOT`, since
/// 6.4).
///
/// An interval of less than 50 microseconds counts as that: the kernel could not cancel a faster timer.
pub fn timeout_multi<'d>(interval: Duration) -> Stream<'d> {
    timer(interval.max(SHORTEST_INTERVAL), 0, TimeoutFlags::MULTISHOT).stream()
}

/// Completes `times` times, each time `interval` has passed (`IORING_TIMEOUT_MULTISHOT`, since
/// 6.4).
///
/// The last completion is final: [`more`](crate::Completion::more) is false. The shortest interval is
/// that of [`timeout_multi`].
pub fn timeout_multi_times<'d>(interval: Duration, times: NonZeroU32) -> Stream<'d> {
    timer(interval.max(SHORTEST_INTERVAL), times.get(), TimeoutFlags::MULTISHOT).stream()
}

/// Accepts one connection (`IORING_OP_ACCEPT`, since 5.5).
///
/// The socket comes out of [`into_fd`](crate::Completion::into_fd), close-on-exec.
pub fn accept<'d>(listener: &'d impl AsFd) -> Request<'d> {
    accepting(listener, 0).request()
}

/// Accepts connections until it is cancelled (`IORING_ACCEPT_MULTISHOT`, since 5.19).
///
/// Each completion has a socket in [`into_fd`](crate::Completion::into_fd), close-on-exec. The
/// peer's address is to be had from `getpeername(2)`, as `TcpStream::peer_addr` does.
pub fn accept_multi<'d>(listener: &'d impl AsFd) -> Stream<'d> {
    const IORING_ACCEPT_MULTISHOT: u32 = 1;
    accepting(listener, IORING_ACCEPT_MULTISHOT).stream()
}

fn accepting(listener: &impl AsFd, priority: u32) -> Parts<'_> {
    let entry = bare(with_priority(opcode::Accept::CODE, priority), fd(listener));
    let entry = Usual { op_flags: libc::SOCK_CLOEXEC as u32, ..entry };
    Parts::usual(entry).yielding(Yields::Descriptor)
}

/// Makes a socket, as `socket(2)`: `domain` is one of libc's `AF_*`, `kind` of `SOCK_*`, `protocol` 0 or of `IPPROTO_*`
/// (`IORING_OP_SOCKET`, since 5.19).
///
/// The socket comes out of [`into_fd`](crate::Completion::into_fd), close-on-exec.
pub fn socket<'d>(domain: i32, kind: i32, protocol: i32) -> Request<'d> {
    let offset = (kind | libc::SOCK_CLOEXEC) as u32;
    let entry = bare(opcode::Socket::CODE.into(), domain);
    Parts::usual(Usual { offset: offset.into(), length: protocol as u32, ..entry })
        .yielding(Yields::Descriptor)
        .request()
}

/// Gives a socket an address, as `bind(2)` (`IORING_OP_BIND`, since 6.11).
pub fn bind<'d>(socket: &'d impl AsFd, address: impl Into<Address>) -> Request<'d> {
    addressed(opcode::Bind::CODE, socket, address.into())
}

/// Has a socket be connected to, as `listen(2)` (`IORING_OP_LISTEN`, since 6.11).
pub fn listen<'d>(socket: &'d impl AsFd, backlog: u32) -> Request<'d> {
    Parts::usual(Usual { length: backlog, ..bare(opcode::Listen::CODE.into(), fd(socket)) }).request()
}

/// Connects a socket (`IORING_OP_CONNECT`, since 5.5).
///
/// When this was cancelled, the socket may yet connect: close it, don't use it again.
pub fn connect<'d>(socket: &'d impl AsFd, address: impl Into<Address>) -> Request<'d> {
    addressed(opcode::Connect::CODE, socket, address.into())
}

fn addressed(opcode: u8, socket: &impl AsFd, address: Address) -> Request<'_> {
    let offset = address.raw().1.into();
    Parts::beside(Usual { offset, ..bare(opcode.into(), fd(socket)) }, Aside::Address(address)).request()
}

/// Receives into `buffer` what has arrived, waiting for something to arrive (`IORING_OP_RECV`, since
/// 5.6). The result is a number of bytes; 0 is the end of the stream.
#[inline]
pub fn recv<'d>(socket: &'d impl AsFd, buffer: &'d mut [u8]) -> Request<'d> {
    transfer(opcode::Recv::CODE, socket, buffer.as_mut_ptr(), buffer.len(), 0)
}

/// As [`recv`], into memory that need not be initialised.
#[inline]
pub fn recv_uninit<'d>(socket: &'d impl AsFd, buffer: &'d mut [MaybeUninit<u8>]) -> Request<'d> {
    transfer(opcode::Recv::CODE, socket, buffer.as_mut_ptr(), buffer.len(), 0)
}

/// Receives again and again, each time into a buffer of `pool` (`IORING_RECV_MULTISHOT`, since 6.0).
///
/// A completion's bytes come out of [`into_buffer`](crate::Completion::into_buffer). The stream ends
/// with an empty buffer at the end of file, or with an error. When the pool has run out, the handler
/// sees `ENOBUFS` with [`more`](crate::Completion::more) true; if it gives the data back, the stream
/// goes on as soon as a [`Buffer`](crate::Buffer) is dropped.
pub fn recv_multi<'d>(socket: &'d impl AsFd, pool: &BufferPool) -> Stream<'d> {
    const IORING_RECV_MULTISHOT: u32 = 1 << 1;
    let opcode = with_priority(opcode::Recv::CODE, IORING_RECV_MULTISHOT) | sqe::BUFFER_SELECT;
    Parts::from_pool(bare(opcode, fd(socket)), pool).stream()
}

/// Sends what the socket takes of `buffer` (`IORING_OP_SEND`, since 5.6). The result is a number of
/// bytes.
///
/// A peer that is gone is the error `EPIPE`, never a signal (`MSG_NOSIGNAL`). Given to
/// [`detach`](crate::Submitter::detach), a send of any kind goes out whole (`MSG_WAITALL`).
#[inline]
pub fn send<'d>(socket: &'d impl AsFd, buffer: &'d [u8]) -> Request<'d> {
    transfer(opcode::Send::CODE, socket, buffer.as_ptr(), buffer.len(), libc::MSG_NOSIGNAL as u32)
}

/// Receives a datagram into `buffer`, and from whom into `peer` (`IORING_OP_RECVMSG`, since 5.3), as `recvfrom(2)`. The
/// result is a number of bytes; of a longer datagram, the rest is lost.
pub fn recv_from<'d>(socket: &'d impl AsFd, buffer: &'d mut [u8], peer: &'d mut Peer) -> Request<'d> {
    let address = peer.receive(Piece::new(buffer.as_mut_ptr(), buffer.len()));
    Parts::usual(Usual { address, length: 1, ..bare(opcode::RecvMsg::CODE.into(), fd(socket)) }).request()
}

/// Sends a datagram to `address` (`IORING_OP_SENDMSG`, since 5.3), as `sendto(2)`. The result is a number of bytes.
///
/// No signal is raised (`MSG_NOSIGNAL`).
pub fn send_to<'d>(socket: &'d impl AsFd, buffer: &'d [u8], address: impl Into<Address>) -> Request<'d> {
    let op_flags = libc::MSG_NOSIGNAL as u32;
    let entry = Usual { length: 1, op_flags, ..bare(opcode::SendMsg::CODE.into(), fd(socket)) };
    let piece = Piece::new(buffer.as_ptr(), buffer.len());
    Parts::beside(entry, Aside::Datagram(Header::default(), piece, address.into())).request()
}

/// As [`send`], but the bytes are not copied: the network takes them from where they are (`IORING_OP_SEND_ZC`, since
/// 6.0). Worth it from some ten KiB on; the loopback interface copies all the same.
///
/// The buffer is in use until the peer has taken all in, so only then is the handler called, with what `send` would
/// have said: the kernel's two completions are one here. As long as the socket is open, nothing on our side hurries
/// that, neither a cancel nor a [`shutdown`]. So a peer that does not read keeps a teardown waiting, for which the
/// builder has a [`deadline`](crate::Builder::deadline).
///
/// Sockets that can't do it end with `EOPNOTSUPP`, as those of `AF_UNIX` do. Memory in flight counts towards
/// `RLIMIT_MEMLOCK` (`ENOMEM`).
#[inline]
pub fn send_zc<'d>(socket: &'d impl AsFd, buffer: &'d [u8]) -> Request<'d> {
    transfer(opcode::SendZc::CODE, socket, buffer.as_ptr(), buffer.len(), libc::MSG_NOSIGNAL as u32)
}

/// As [`send_zc`], out of memory that the ring has registered (`IORING_RECVSEND_FIXED_BUF`, since 6.0), which need not
/// be pinned for each send.
///
/// If its [`FixedBuffers`](crate::FixedBuffers) are not registered with the ring, this ends with `EFAULT`.
#[inline]
pub fn send_zc_fixed<'d>(socket: &'d impl AsFd, buffer: impl Into<FixedSlice<'d>>) -> Request<'d> {
    const IORING_RECVSEND_FIXED_BUF: u32 = 1 << 2;
    let FixedSlice { bytes, place } = buffer.into();
    let entry = Usual {
        address: bytes.as_ptr().expose_provenance() as u64,
        length: length(bytes.len()),
        op_flags: libc::MSG_NOSIGNAL as u32,
        ..bare(with_priority(opcode::SendZc::CODE, IORING_RECVSEND_FIXED_BUF), fd(socket))
    };
    Parts::fixed(Fixed { entry, file: None, memory: Some(place) }).request()
}

/// Shuts down one or both directions of a socket (`IORING_OP_SHUTDOWN`, since 5.11).
pub fn shutdown<'d>(socket: &'d impl AsFd, how: Shutdown) -> Request<'d> {
    let how = match how {
        Shutdown::Read => libc::SHUT_RD,
        Shutdown::Write => libc::SHUT_WR,
        Shutdown::Both => libc::SHUT_RDWR,
    };
    let entry = bare(opcode::Shutdown::CODE.into(), fd(socket));
    Parts::usual(Usual { length: how as u32, ..entry }).request()
}

/// Reads into `buffer` from the current position (`IORING_OP_READ`, since 5.6), as `read(2)`: the
/// call for pipes, terminals and other streams. The result is a number of bytes; 0 is the end.
#[inline]
pub fn read<'d>(file: &'d impl Target, buffer: &'d mut [u8]) -> Request<'d> {
    read_at(file, buffer, CURRENT_POSITION)
}

/// Reads into `buffer` from `offset`, in bytes, as `pread(2)`.
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

/// Reads into several buffers, one after the other, from `offset`, in bytes (`IORING_OP_READV`, since 5.1), as
/// `preadv(2)`. The result is a number of bytes in all.
///
/// Where the buffers are is kept by the ring: up to four in place, more in an allocation. The kernel takes at most 1024
/// (`EINVAL`).
pub fn readv_at<'d, const N: usize>(
    file: &'d impl Target,
    buffers: [&'d mut [u8]; N],
    offset: u64,
) -> Request<'d> {
    let pieces = buffers.map(|buffer| Piece::new(buffer.as_mut_ptr(), buffer.len()));
    vectored(opcode::Readv::CODE, file, &pieces, offset)
}

/// As [`readv_at`], from the current position: for pipes, sockets and other streams.
pub fn readv<'d, const N: usize>(file: &'d impl Target, buffers: [&'d mut [u8]; N]) -> Request<'d> {
    readv_at(file, buffers, CURRENT_POSITION)
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
///
/// Of how many there may be, see [`readv_at`].
pub fn writev_at<'d, const N: usize>(
    file: &'d impl Target,
    buffers: [&'d [u8]; N],
    offset: u64,
) -> Request<'d> {
    let pieces = buffers.map(|buffer| Piece::new(buffer.as_ptr(), buffer.len()));
    vectored(opcode::Writev::CODE, file, &pieces, offset)
}

/// As [`writev_at`], at the current position: for pipes, sockets and other streams.
pub fn writev<'d, const N: usize>(file: &'d impl Target, buffers: [&'d [u8]; N]) -> Request<'d> {
    writev_at(file, buffers, CURRENT_POSITION)
}

fn vectored<'d>(opcode: u8, file: &'d impl Target, pieces: &[Piece], offset: u64) -> Request<'d> {
    let Named { descriptor, place } = file.named();
    let entry = Usual { offset, length: length(pieces.len()), ..bare(opcode.into(), descriptor) };
    Parts::beside_on(entry, place, Aside::Pieces(Pieces::new(pieces))).request()
}

/// Reads again and again, each time into a buffer of `pool` (`IORING_OP_READ_MULTISHOT`, since 6.7): of pipes,
/// terminals, eventfds and whatever else can be waited for. A regular file ends it with `EBADFD`.
///
/// As [`recv_multi`] otherwise.
pub fn read_multi<'d>(file: &'d impl AsFd, pool: &BufferPool) -> Stream<'d> {
    let entry = bare(u32::from(opcode::ReadMulti::CODE) | sqe::BUFFER_SELECT, fd(file));
    Parts::from_pool(Usual { offset: CURRENT_POSITION, ..entry }, pool).stream()
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
/// An offset in bytes is of what is no pipe; `None` is its current position. The result is a number of bytes; 0 is the
/// end.
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

/// The current directory of the process, for [`openat`] (`AT_FDCWD`).
pub const CWD: BorrowedFd<'static> = current_directory();

const fn current_directory() -> BorrowedFd<'static> {
    // SAFETY: AT_FDCWD is no descriptor that could be closed, it is not -1, and every call that takes
    // a directory takes it; the kernel refuses it with EBADF elsewhere.
    unsafe { BorrowedFd::borrow_raw(libc::AT_FDCWD) }
}

/// Opens a file (`IORING_OP_OPENAT`, since 5.6); `path` is relative to `directory`, or to
/// [`CWD`](crate::request::CWD).
///
/// The file comes out of [`into_fd`](crate::Completion::into_fd), close-on-exec.
pub fn openat<'d>(directory: &'d impl AsFd, path: &'d CStr, options: &OpenOptions) -> Request<'d> {
    let entry = Usual {
        address: path.as_ptr().expose_provenance() as u64,
        length: options.mode,
        op_flags: options.flags() as u32,
        ..bare(opcode::OpenAt::CODE.into(), fd(directory))
    };
    Parts::usual(entry).yielding(Yields::Descriptor).request()
}

/// How [`openat`] opens a file; named as in [`std::fs::OpenOptions`].
#[derive(Clone, Debug)]
pub struct OpenOptions {
    read: bool,
    write: bool,
    append: bool,
    truncate: bool,
    create: bool,
    create_new: bool,
    custom_flags: i32,
    mode: u32,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl OpenOptions {
    /// Nothing chosen yet: opens for reading.
    pub const fn new() -> Self {
        OpenOptions {
            read: false,
            write: false,
            append: false,
            truncate: false,
            create: false,
            create_new: false,
            custom_flags: 0,
            mode: 0o666,
        }
    }

    /// Opens for reading.
    pub const fn read(mut self, read: bool) -> Self {
        self.read = read;
        self
    }

    /// Opens for writing.
    pub const fn write(mut self, write: bool) -> Self {
        self.write = write;
        self
    }

    /// Writes always go to the end (`O_APPEND`).
    pub const fn append(mut self, append: bool) -> Self {
        self.append = append;
        self
    }

    /// Cuts the file to nothing (`O_TRUNC`).
    pub const fn truncate(mut self, truncate: bool) -> Self {
        self.truncate = truncate;
        self
    }

    /// Creates the file if there is none (`O_CREAT`).
    pub const fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// Creates the file, and fails with `EEXIST` if there is one (`O_EXCL`).
    pub const fn create_new(mut self, create_new: bool) -> Self {
        self.create_new = create_new;
        self
    }

    /// Other `O_*` flags, such as `O_DIRECT`. Access modes among them are ignored.
    pub const fn custom_flags(mut self, flags: i32) -> Self {
        self.custom_flags = flags;
        self
    }

    /// The permissions of a file that is created, before the umask: `0o666` by default.
    pub const fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    fn flags(&self) -> i32 {
        let writes = self.write || self.append;
        let access = match (self.read, writes) {
            (_, false) => libc::O_RDONLY,
            (false, true) => libc::O_WRONLY,
            (true, true) => libc::O_RDWR,
        };
        let chosen = [
            (self.append, libc::O_APPEND),
            (self.truncate, libc::O_TRUNC),
            (self.create, libc::O_CREAT),
            (self.create_new, libc::O_CREAT | libc::O_EXCL),
        ];
        let flags = chosen.iter().filter(|(on, _)| *on).map(|(_, flag)| flag);
        flags.fold(access | libc::O_CLOEXEC, |flags, flag| flags | flag)
            | (self.custom_flags & !libc::O_ACCMODE)
    }
}

/// What to wait for, and what has happened, in [`poll`] and [`poll_multi`] (`poll(2)`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Events(u32);

impl Events {
    /// There is something to read, or to accept (`POLLIN`).
    pub const READABLE: Events = Events(libc::POLLIN as u32);
    /// Writing would not block (`POLLOUT`).
    pub const WRITABLE: Events = Events(libc::POLLOUT as u32);
    /// Something out of the ordinary, such as urgent data (`POLLPRI`).
    pub const PRIORITY: Events = Events(libc::POLLPRI as u32);
    /// The peer will write no more (`POLLRDHUP`).
    pub const READ_CLOSED: Events = Events(libc::POLLRDHUP as u32);
    /// Hung up; reported always (`POLLHUP`). Does not end a [`poll_multi`].
    pub const HANG_UP: Events = Events(libc::POLLHUP as u32);
    /// An error is pending; reported always (`POLLERR`).
    pub const ERROR: Events = Events(libc::POLLERR as u32);

    /// The events in the result of a poll.
    pub const fn from_result(result: u32) -> Events {
        Events(result)
    }

    /// The `POLL*` bits.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Whether all of `other` is in here.
    pub const fn contains(self, other: Events) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for Events {
    type Output = Events;
    fn bitor(self, other: Events) -> Events {
        Events(self.0 | other.0)
    }
}

/// Waits until one of `events` happens (`IORING_OP_POLL_ADD`, since 5.1). The result is what
/// [`Events::from_result`] takes.
pub fn poll<'d>(descriptor: &'d impl AsFd, events: Events) -> Request<'d> {
    polling(descriptor, events, 0).request()
}

/// Tells of `events` whenever they happen, until it is cancelled (`IORING_POLL_ADD_MULTI`, since
/// 5.13). Edge-triggered: it tells of changes.
///
/// A file that is always ready, such as a regular file, is told of again and again for as long as the
/// handler gives the data back.
pub fn poll_multi<'d>(descriptor: &'d impl AsFd, events: Events) -> Stream<'d> {
    const IORING_POLL_ADD_MULTI: u32 = 1;
    polling(descriptor, events, IORING_POLL_ADD_MULTI).stream()
}

fn polling(descriptor: &impl AsFd, Events(events): Events, length: u32) -> Parts<'_> {
    // Two halves of a word, of which the first has the events that there have always been.
    let op_flags = if cfg!(target_endian = "big") { events.rotate_left(16) } else { events };
    let entry = bare(opcode::PollAdd::CODE.into(), fd(descriptor));
    Parts::usual(Usual { length, op_flags, ..entry }).yielding(Yields::Events)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Stamp;
    use crate::facts::Flags;
    use crate::fixed::{FixedBuffers, FixedFile};
    use crate::request::{Prepared, Terms};
    use std::fs::File;

    /// The ring that asks.
    const RING: u64 = 7;

    /// What the kernel is asked for: opcode, priority (where multishot flags are), offset, address, length and
    /// flags of the operation.
    type Asked = (u8, u16, u64, u64, u32, u32);

    /// What an entry asks for; on which descriptor, and what it yields.
    fn parts(parts: Parts<'_>) -> (Asked, i32, Yields) {
        let Prepared::Usual(usual) = parts.draft.prepare(RING) else { panic!("nothing is kept for it") };
        let Usual { opcode, descriptor, offset, address, length, op_flags } = usual;
        assert_eq!(opcode >> 8 & 0xFF, 0, "no flags");
        let asked = (opcode as u8, (opcode >> 16) as u16, offset, address, length, op_flags);
        (asked, descriptor, parts.facts.yields)
    }

    fn asks(request: Request<'_>, expected: Asked, descriptor: i32) {
        assert_eq!(parts(request.parts), (expected, descriptor, Yields::Result));
    }

    fn null() -> File {
        File::open("/dev/null").unwrap()
    }

    #[test]
    fn transfers_are_those_of_the_system_calls() {
        let file = null();
        let number = file.as_raw_fd();
        let mut buffer = [0; 8];
        let mut uninit = [MaybeUninit::uninit(); 8];
        let (at, uninit_at) = (buffer.as_ptr().addr() as u64, uninit.as_ptr().addr() as u64);
        let (read, write) = (opcode::Read::CODE, opcode::Write::CODE);
        let (receive, here) = (opcode::Recv::CODE, u64::MAX);
        asks(super::read(&file, &mut buffer), (read, 0, here, at, 8, 0), number);
        asks(read_at(&file, &mut buffer, 77), (read, 0, 77, at, 8, 0), number);
        asks(read_uninit(&file, &mut uninit), (read, 0, here, uninit_at, 8, 0), number);
        asks(read_at_uninit(&file, &mut uninit, 77), (read, 0, 77, uninit_at, 8, 0), number);
        asks(super::write(&file, &buffer), (write, 0, here, at, 8, 0), number);
        asks(write_at(&file, &buffer, 77), (write, 0, 77, at, 8, 0), number);
        asks(recv(&file, &mut buffer), (receive, 0, 0, at, 8, 0), number);
        asks(recv_uninit(&file, &mut uninit), (receive, 0, 0, uninit_at, 8, 0), number);
        let no_signal = libc::MSG_NOSIGNAL as u32;
        asks(send(&file, &buffer), (opcode::Send::CODE, 0, 0, at, 8, no_signal), number);
        assert_eq!(length(u32::MAX as usize + 2), u32::MAX, "cut, as the kernel cuts it");
        let code = opcode::SendZc::CODE;
        asks(send_zc(&file, &buffer), (code, 0, 0, at, 8, no_signal), number);
        for (flags, whole) in [(Flags::EMPTY, 0), (Flags::DETACHED, libc::MSG_WAITALL as u32)] {
            let terms = Terms { ring: RING, flags, born: Stamp::ZERO };
            for (request, code) in
                [(send(&file, &buffer), opcode::Send::CODE), (send_zc(&file, &buffer), code)]
            {
                let (facts, prepared) = request.parts.place(terms);
                let (asked, ..) = parts(Parts::prepared(prepared, facts));
                assert_eq!(asked, (code, 0, 0, at, 8, no_signal | whole));
            }
            let buffers = FixedBuffers::new(1, 8).unwrap();
            let buffer = buffers.take().unwrap();
            let (_, prepared) = send_zc_fixed(&file, &buffer).parts.place(terms);
            let Prepared::Indexed(entry, _) = prepared else { panic!("it has an index") };
            assert_eq!(entry.op_flags, no_signal | whole);
        }
    }

    #[test]
    fn what_is_registered_is_named_by_its_index_in_the_ring() {
        let (file, buffers) = (FixedFile::new(), FixedBuffers::new(2, 64).unwrap());
        let mut buffer = buffers.take().unwrap();
        let at = buffer.as_ptr().addr() as u64;
        /// All of an entry but its `user_data`, by fields: opcode, flags, descriptor, offset, address, length, index.
        type Named = (u8, u8, i32, u64, u64, u32, u16);
        fn usual(request: Request<'_>) -> (Usual, u16) {
            match request.parts.draft.prepare(RING) {
                Prepared::Usual(usual) => (usual, 0),
                Prepared::Indexed(usual, index) => (usual, index),
                _ => panic!("it is a usual entry"),
            }
        }
        fn named(request: Request<'_>) -> Named {
            let (Usual { opcode, descriptor, offset, address, length, op_flags }, index) = usual(request);
            assert_eq!((opcode >> 16, op_flags), (0, 0));
            (opcode as u8, (opcode >> 8) as u8, descriptor, offset, address, length, index)
        }
        let (read, write) = (opcode::ReadFixed::CODE, opcode::WriteFixed::CODE);
        let null = null();
        let number = null.as_raw_fd();
        let nothing = u16::MAX;
        assert_eq!(named(read_fixed_at(&null, &mut buffer, 3)), (read, 0, number, 3, at, 64, nothing));
        assert_eq!(named(write_fixed_at(&file, buffer.part(1..9), 3)), (write, 0, -1, 3, at + 1, 8, nothing));

        assert!(buffers.shared.place.take(RING, 0) && file.place.take(RING, 5));
        assert_eq!(named(read_fixed_at(&null, &mut buffer, 3)), (read, 0, number, 3, at, 64, 0));
        assert_eq!(named(read_fixed(&file, buffer.part_mut(8..))), (read, 1, 5, u64::MAX, at + 8, 56, 0));
        assert_eq!(named(read_at(&file, &mut buffer, 3)), (opcode::Read::CODE, 1, 5, 3, at, 64, 0));
        assert_eq!(named(super::write(&file, &buffer)), (opcode::Write::CODE, 1, 5, u64::MAX, at, 64, 0));
        assert_eq!(named(fsync(&file)), (opcode::Fsync::CODE, 1, 5, 0, 0, 0, 0));
        let sent = Usual { op_flags: 0, ..usual(send_zc_fixed(&null, buffer.part(4..))).0 };
        let opcode = u32::from(opcode::SendZc::CODE) | 4 << 16;
        let expected =
            Usual { opcode, descriptor: number, offset: 0, address: at + 4, length: 60, op_flags: 0 };
        assert_eq!(sent, expected);

        buffers.shared.place.leave();
        assert!(buffers.shared.place.take(RING, 300));
        assert_eq!(named(write_fixed(&file, &buffer)), (write, 1, 5, u64::MAX, at, 64, 300));
        let elsewhere = (FixedFile::new(), FixedBuffers::new(1, 8).unwrap());
        assert!(elsewhere.0.place.take(RING + 1, 5) && elsewhere.1.shared.place.take(RING + 1, 0));
        let other = elsewhere.1.take().unwrap();
        let at = other.as_ptr().addr() as u64;
        assert_eq!(named(write_fixed_at(&elsewhere.0, &other, 3)), (write, 0, -1, 3, at, 8, nothing));
    }

    #[test]
    fn what_has_no_memory_says_all_the_same() {
        let file = null();
        let number = file.as_raw_fd();
        asks(nop(), (opcode::Nop::CODE, 0, 0, 0, 0, 0), -1);
        for (how, what) in [
            (Shutdown::Read, libc::SHUT_RD),
            (Shutdown::Write, libc::SHUT_WR),
            (Shutdown::Both, libc::SHUT_RDWR),
        ] {
            asks(shutdown(&file, how), (opcode::Shutdown::CODE, 0, 0, 0, what as u32, 0), number);
        }
        const IORING_FSYNC_DATASYNC: u32 = 1;
        asks(fsync(&file), (opcode::Fsync::CODE, 0, 0, 0, 0, 0), number);
        asks(fdatasync(&file), (opcode::Fsync::CODE, 0, 0, 0, 0, IORING_FSYNC_DATASYNC), number);
        let closes = close(null().into()).parts;
        let owned = closes.closes.as_ref().map(AsRawFd::as_raw_fd);
        let (asked, descriptor, _) = parts(Parts { closes: None, ..closes });
        assert_eq!((asked.0, Some(descriptor)), (opcode::Close::CODE, owned));
    }

    #[test]
    fn new_descriptors_are_not_inherited() {
        let file = null();
        let number = file.as_raw_fd();
        const IORING_ACCEPT_MULTISHOT: u16 = 1;
        let cloexec = libc::SOCK_CLOEXEC as u32;
        let code = opcode::Accept::CODE;
        assert_eq!(parts(accept(&file).parts), ((code, 0, 0, 0, 0, cloexec), number, Yields::Descriptor));
        let asked = (code, IORING_ACCEPT_MULTISHOT, 0, 0, 0, cloexec);
        assert_eq!(parts(accept_multi(&file).parts), (asked, number, Yields::Descriptor));

        let opened = |options: OpenOptions| {
            let (asked, directory, yields) = parts(openat(&CWD, c"x", &options).parts);
            let (opcode, _, _, name, mode, flags) = asked;
            assert_eq!(
                (opcode, directory, yields),
                (opcode::OpenAt::CODE, libc::AT_FDCWD, Yields::Descriptor)
            );
            assert_ne!(name, 0);
            (mode, flags as i32)
        };
        let new = OpenOptions::new;
        let append = libc::O_WRONLY | libc::O_APPEND;
        for (options, flags) in [
            (new(), libc::O_RDONLY),
            (new().read(true).write(true), libc::O_RDWR),
            (new().write(true).truncate(true), libc::O_WRONLY | libc::O_TRUNC),
            (new().append(true), append),
            (new().append(true).create(true), append | libc::O_CREAT),
            (new().write(true).create_new(true), libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL),
            (new().custom_flags(libc::O_DIRECT | libc::O_RDWR), libc::O_RDONLY | libc::O_DIRECT),
        ] {
            assert_eq!(opened(options.clone()), (0o666, flags | libc::O_CLOEXEC), "{options:?}");
        }
        assert_eq!(opened(new().mode(0o640)).0, 0o640);
    }

    #[test]
    fn polls_are_for_the_events_that_were_named() {
        const IORING_POLL_ADD_MULTI: u32 = 1;
        let file = null();
        let number = file.as_raw_fd();
        let events = Events::WRITABLE | Events::PRIORITY;
        let (code, bits) = (opcode::PollAdd::CODE, (libc::POLLOUT | libc::POLLPRI) as u32);
        assert_eq!(parts(poll(&file, events).parts), ((code, 0, 0, 0, 0, bits), number, Yields::Events));
        let asked = (code, 0, 0, 0, IORING_POLL_ADD_MULTI, bits);
        assert_eq!(parts(poll_multi(&file, events).parts), (asked, number, Yields::Events));
        assert!(events.contains(Events::PRIORITY) && !events.contains(events | Events::READABLE));
    }

    #[test]
    fn timers_are_of_the_clock_that_was_meant() {
        let timer = |parts: Parts<'_>| {
            let (prepared, facts) = (parts.draft.prepare(RING), parts.facts);
            let Prepared::Beside(entry, Aside::Time(spec)) = prepared else { panic!("no timer") };
            let Usual { opcode, descriptor, offset, length, op_flags, .. } = entry;
            assert_eq!((opcode, descriptor, length), (opcode::Timeout::CODE.into(), -1, 1));
            let (count, flags) = (offset as u32, TimeoutFlags::from_bits_retain(op_flags));
            assert_eq!((facts.yields, facts.ticks), (Yields::Tick, count));
            // SAFETY: a `struct __kernel_timespec` is two such numbers.
            let spec = unsafe { (&raw const spec).cast::<[i64; 2]>().read() };
            (spec, count, flags)
        };
        let spec = |seconds, nanoseconds| [seconds, nanoseconds];
        let (none, multi) = (TimeoutFlags::empty(), TimeoutFlags::MULTISHOT);
        assert_eq!(timer(timeout(Duration::new(3, 5)).parts), (spec(3, 5), 0, none));
        let longest = spec(i64::MAX, 999_999_999);
        assert_eq!(timer(timeout(Duration::MAX).parts), (longest, 0, none), "it takes for ever");
        let (_, count, flags) = timer(timeout_at(Instant::now()).parts);
        assert_eq!((count, flags), (0, TimeoutFlags::ABS));
        let time = SystemTime::UNIX_EPOCH + Duration::new(7, 9);
        let real = TimeoutFlags::ABS | TimeoutFlags::REALTIME;
        assert_eq!(timer(timeout_at_time(time).parts), (spec(7, 9), 0, real));
        assert_eq!(timer(timeout_multi(Duration::new(3, 5)).parts), (spec(3, 5), 0, multi));
        assert_eq!(timer(timeout_multi(Duration::ZERO).parts), (spec(0, 50_000), 0, multi));
        let times = NonZeroU32::new(4).unwrap();
        assert_eq!(timer(timeout_multi_times(Duration::ZERO, times).parts), (spec(0, 50_000), 4, multi));
    }
}
