//! Fields of a submission queue entry that the `io-uring` crate keeps to itself.
//!
//! `squeue::Entry` is `repr(C)` over `struct io_uring_sqe`, whose layout is the kernel's ABI
//! (`include/uapi/linux/io_uring.h`) and can't change: 64 bytes, of which these are read here.

use std::mem::offset_of;
use std::os::fd::RawFd;
use std::ptr::NonNull;

use io_uring::{opcode, squeue};

const FLAGS: usize = 1;
const OP_FLAGS: usize = 28;
const LEN: usize = 24;
/// `file_index`, or `optlen`.
const FILE_INDEX: usize = 44;
/// `optval`, or `addr3`.
const VALUE: usize = 48;

const _: () = assert!(size_of::<squeue::Entry>() == 64 && align_of::<squeue::Entry>() == 8);

fn byte_at<const OFFSET: usize>(entry: &squeue::Entry) -> u8 {
    const { assert!(OFFSET < 64) };
    // SAFETY: the offset is inside the 64 bytes of the entry, all of which its constructors
    // initialise (they start from a zeroed one).
    unsafe { (&raw const *entry).cast::<u8>().add(OFFSET).read() }
}

fn word_at<const OFFSET: usize>(entry: &squeue::Entry) -> u32 {
    const { assert!(OFFSET <= 60 && OFFSET.is_multiple_of(4)) };
    // SAFETY: the four bytes are inside the 64 bytes of the entry, all of which its constructors initialise
    // (they start from a zeroed one); the entry is aligned to 4 bytes and so is the offset.
    unsafe { (&raw const *entry).cast::<u8>().add(OFFSET).cast::<u32>().read() }
}

/// All of an entry.
#[cfg(test)]
pub(crate) fn bytes(entry: &squeue::Entry) -> [u8; 64] {
    // SAFETY: an entry has 64 bytes, all of which its constructors initialise (they start from a zeroed one).
    unsafe { (&raw const *entry).cast::<[u8; 64]>().read() }
}

/// An entry of the usual kind: all of its fields that are not zero, except for the `user_data`. They are laid
/// out as in `struct io_uring_sqe`, so that the compiler sees the same numbers in it as in a whole entry,
/// which may be used instead of it.
///
/// The `io-uring` crate builds entries field by field, and each opcode leaves out other fields; where a
/// program has two kinds of entries for one place, the compiler makes little of that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Usual {
    /// The opcode; above it `flags`, such as [`FIXED_FILE`], and from bit [`PRIORITY`] on `ioprio`. As one
    /// number, they are written at once.
    pub(crate) opcode: u32,
    pub(crate) descriptor: RawFd,
    pub(crate) offset: u64,
    pub(crate) address: u64,
    pub(crate) length: u32,
    pub(crate) op_flags: u32,
}

/// Where the `flags` are in the number with which an entry begins.
const FLAGS_SHIFT: u32 = 8;

/// `IOSQE_FIXED_FILE`, the first of the `flags`: the descriptor is an index into the ring's table of files.
pub(crate) const FIXED_FILE: u32 = 1 << FLAGS_SHIFT;

/// Flags of a receive, in `ioprio`.
pub(crate) const IORING_RECV_MULTISHOT: u32 = 1 << 1;
pub(crate) const IORING_RECVSEND_BUNDLE: u32 = 1 << 4;

/// `IOSQE_BUFFER_SELECT`: the request is given buffers of the group whose number comes first behind the
/// `user_data`.
pub(crate) const BUFFER_SELECT: u32 = 1 << FLAGS_SHIFT << 5;

/// Where the `ioprio` is in the number with which an entry begins.
pub(crate) const PRIORITY: u32 = 16;

/// The most bytes that one request moves (`MAX_RW_COUNT`): of more, the kernel moves a part, and takes that
/// for all.
pub(crate) const MOST_BYTES: u32 = 0x7fff_f000;

/// Where the `user_data` is in an entry: behind the fields of a usual one.
const USER_DATA: usize = size_of::<Usual>();
/// Where the fields begin that a usual entry does not have: 24 bytes, aligned to 8.
const REST: usize = USER_DATA + size_of::<u64>();

const _: () = assert!(offset_of!(Usual, length) == LEN && offset_of!(Usual, op_flags) == OP_FLAGS);
const _: () = assert!(USER_DATA == 32 && REST == 40);

impl Usual {
    /// Writes the entry to a place whose rest is [zero](clear_rest).
    ///
    /// # Safety
    ///
    /// The place is valid for writes, and is not written to by anybody else.
    #[inline(always)]
    pub(crate) unsafe fn write(self, place: NonNull<squeue::Entry>, user_data: u64) {
        let usual = Usual { opcode: u32::from_le(self.opcode), ..self };
        // SAFETY: an entry is `repr(C)` over the system's structure, which is aligned to 8 bytes and begins
        // with these numbers; the caller promises that the place is valid for writes, and that nobody else
        // writes to it.
        unsafe { place.cast::<Usual>().write(usual) };
        // SAFETY: the next number in the entry, which is aligned to 8 bytes as well; the caller promises that
        // the place is valid for writes, and that nobody else writes to it.
        unsafe { place.cast::<u8>().add(USER_DATA).cast::<u64>().write(user_data) };
    }

    /// Makes the entry lead to what is kept beside it.
    #[inline(always)]
    pub(crate) fn lead_to(&mut self, place: u64) {
        // In an entry with this opcode, the address is that of a path.
        match self.opcode as u8 {
            opcode::OpenAt2::CODE => self.offset = place,
            _ => self.address = place,
        }
    }

    /// Adds flags of the entry (`IOSQE_*`).
    #[inline(always)]
    pub(crate) fn add_flags(&mut self, flags: squeue::Flags) {
        self.opcode |= u32::from(flags.bits()) << FLAGS_SHIFT;
    }

    /// Takes flags of the entry away.
    pub(crate) fn remove_flags(&mut self, flags: squeue::Flags) {
        self.opcode &= !(u32::from(flags.bits()) << FLAGS_SHIFT);
    }

    /// Adds flags that say how a read or a write is done (`RWF_*`). Entries of other opcodes stay as they
    /// are.
    #[inline(always)]
    pub(crate) fn add_rw_flags(&mut self, flags: u32) {
        let reads =
            [opcode::Read::CODE, opcode::Readv::CODE, opcode::ReadFixed::CODE, opcode::ReadvFixed::CODE];
        let writes =
            [opcode::Write::CODE, opcode::Writev::CODE, opcode::WriteFixed::CODE, opcode::WritevFixed::CODE];
        let opcode = self.opcode as u8;
        if reads.contains(&opcode) || writes.contains(&opcode) {
            self.op_flags |= flags;
        }
    }

    /// Makes a transfer or an accept wait until its socket says that it is ready. Entries of other opcodes
    /// stay as they are.
    #[inline(always)]
    pub(crate) fn poll_first(&mut self) {
        const IORING_RECVSEND_POLL_FIRST: u32 = 1;
        const IORING_ACCEPT_POLL_FIRST: u32 = 1 << 2;
        let flag = match self.opcode as u8 {
            opcode::Recv::CODE
            | opcode::RecvMsg::CODE
            | opcode::Send::CODE
            | opcode::SendMsg::CODE
            | opcode::SendZc::CODE
            | opcode::SendMsgZc::CODE => IORING_RECVSEND_POLL_FIRST,
            opcode::Accept::CODE => IORING_ACCEPT_POLL_FIRST,
            _ => return,
        };
        self.opcode |= flag << PRIORITY;
    }

    /// Whether it receives bytes again and again: the kernel says of such requests how much of a buffer they have
    /// taken.
    pub(crate) fn takes_pieces(&self) -> bool {
        match self.opcode as u8 {
            opcode::Recv::CODE => self.opcode & IORING_RECV_MULTISHOT << PRIORITY != 0,
            opcode::ReadMulti::CODE => true,
            _ => false,
        }
    }

    /// Makes a stream of bundles one of single buffers.
    pub(crate) fn take_no_bundles(&mut self) {
        if self.opcode as u8 == opcode::Recv::CODE {
            self.opcode &= !(IORING_RECVSEND_BUNDLE << PRIORITY);
        }
    }

    /// The same as a whole entry, which is given buffers of this group until this many bytes are in them
    /// (`optlen`, since 6.17).
    pub(crate) fn limited(self, group: u16, bytes: u32) -> squeue::Entry {
        let mut entry = self.with_word(bytes);
        // SAFETY: the place is this function's own entry.
        unsafe { write_index(NonNull::from(&mut entry), group) };
        entry
    }

    /// The same as a whole entry, which opens something in a place of the ring's table that the kernel chooses
    /// (`IORING_FILE_INDEX_ALLOC`, since 5.19).
    pub(crate) fn direct(self) -> squeue::Entry {
        self.with_word(u32::MAX)
    }

    /// The same as a whole entry, about an option whose value is at this address, and has this many bytes.
    pub(crate) fn with_option(self, value: u64, length: u32) -> squeue::Entry {
        let mut entry = self.with_word(length);
        let place = NonNull::from(&mut entry);
        // SAFETY: the place is this function's own entry; the field is within it, and aligned.
        unsafe { place.cast::<u8>().add(VALUE).cast::<u64>().write(value) };
        entry
    }

    /// The same as a whole entry, with this number in the field that is a file's index or an option's length.
    fn with_word(self, word: u32) -> squeue::Entry {
        let mut entry = opcode::Nop::new().build();
        let place = NonNull::from(&mut entry);
        // SAFETY: the place is this function's own entry.
        unsafe { self.write(place, 0) };
        // SAFETY: the place is this function's own entry; the field is within it, and aligned.
        unsafe { place.cast::<u8>().add(FILE_INDEX).cast::<u32>().write(word) };
        entry
    }

    /// Makes a send go out whole or fail (`MSG_WAITALL`, since 5.19; for zero-copy sends since 6.0). Entries
    /// of other opcodes stay as they are.
    #[inline]
    pub(crate) fn send_whole(&mut self) {
        let sends =
            [opcode::Send::CODE, opcode::SendMsg::CODE, opcode::SendZc::CODE, opcode::SendMsgZc::CODE];
        if sends.contains(&(self.opcode as u8)) {
            self.op_flags |= libc::MSG_WAITALL as u32;
        }
    }

    /// As [`send_whole`](Self::send_whole); also makes a receive wait until its buffer is full, unless that
    /// is a buffer of a pool. [More](MOST_BYTES) than can be moved at once is refused.
    #[inline(always)]
    pub(crate) fn move_whole(&mut self) {
        self.send_whole();
        if self.opcode as u8 == opcode::Recv::CODE && self.opcode & BUFFER_SELECT == 0 {
            self.op_flags |= libc::MSG_WAITALL as u32;
        }
        if matches!(self.opcode as u8, opcode::Recv::CODE | opcode::Send::CODE | opcode::SendZc::CODE) {
            self.refuse_part();
        }
    }

    /// Makes the kernel refuse the entry (`EINVAL`), if it is to move [more](MOST_BYTES) between memory and
    /// something else than one request moves.
    // Changes nothing but one number, and that in place: the compiler still knows what entry this is, and goes on
    // inlining what depends on it.
    #[inline(always)]
    pub(crate) fn refuse_part(&mut self) {
        /// For a read or a write, a class of priorities that does not exist (`ioprio_set(2)`); for a send or
        /// a receive, flags that don't.
        const NOTHING: u32 = 7 << 13;
        let moves_bytes = matches!(
            self.opcode as u8,
            opcode::Read::CODE
                | opcode::ReadFixed::CODE
                | opcode::Write::CODE
                | opcode::WriteFixed::CODE
                | opcode::Recv::CODE
                | opcode::Send::CODE
                | opcode::SendZc::CODE
        );
        if self.length > MOST_BYTES && moves_bytes {
            self.opcode |= NOTHING << PRIORITY;
        }
    }

    /// Whether it is a send of pieces that goes out whole.
    pub(crate) fn is_message_whole(&self) -> bool {
        let is_message = matches!(self.opcode as u8, opcode::SendMsg::CODE | opcode::SendMsgZc::CODE);
        is_message && self.op_flags & libc::MSG_WAITALL as u32 != 0
    }
}

/// Writes which of the ring's registered memory, or which of its groups of buffers, the entry is about. This
/// number comes first behind the `user_data`.
///
/// # Safety
///
/// The same as for [`Usual::write`].
#[inline(always)]
pub(crate) unsafe fn write_index(place: NonNull<squeue::Entry>, index: u16) {
    // SAFETY: the field is within the entry, and aligned; the caller promises that the place is valid for
    // writes, and that nobody else writes to it.
    unsafe { place.cast::<u8>().add(REST).cast::<u16>().write(index) };
}

/// Zeroes what a [`Usual`] entry does not write.
///
/// # Safety
///
/// The same as for [`Usual::write`].
pub(crate) unsafe fn clear_rest(place: NonNull<squeue::Entry>) {
    // SAFETY: the rest is within the entry; the caller promises that the place is valid for writes, and that
    // nobody else writes to it.
    unsafe { place.cast::<u8>().add(REST).write_bytes(0, size_of::<squeue::Entry>() - REST) };
}

/// `sqe->flags`.
pub(crate) fn flags(entry: &squeue::Entry) -> squeue::Flags {
    squeue::Flags::from_bits_retain(byte_at::<FLAGS>(entry))
}

/// Whether the entry asks for its result in a slot of the ring's file table.
fn has_direct_slot(entry: &squeue::Entry) -> bool {
    word_at::<FILE_INDEX>(entry) != 0
}

/// Whether a successful result of this entry is a new descriptor of this process.
pub(crate) fn yields_descriptor(entry: &squeue::Entry) -> bool {
    let opens = [
        opcode::Accept::CODE,
        opcode::OpenAt::CODE,
        opcode::OpenAt2::CODE,
        opcode::Socket::CODE,
        opcode::FixedFdInstall::CODE,
    ];
    let opcode = entry.get_opcode() as u8;
    // The "slot" field of FIXED_FD_INSTALL is not a destination: it always makes a descriptor.
    opens.contains(&opcode) && (opcode == opcode::FixedFdInstall::CODE || !has_direct_slot(entry))
}

/// Whether a request with this opcode completes twice: when it is over, and when its memory is free.
pub(crate) const fn is_zero_copy(opcode: u8) -> bool {
    matches!(opcode, opcode::SendZc::CODE | opcode::SendMsgZc::CODE)
}

/// Whether the kernel polls the file of a request with this opcode, if that would have to wait.
pub(crate) const fn is_polled(opcode: u8) -> bool {
    matches!(
        opcode,
        opcode::PollAdd::CODE
            | opcode::Read::CODE
            | opcode::Readv::CODE
            | opcode::ReadFixed::CODE
            | opcode::ReadvFixed::CODE
            | opcode::ReadMulti::CODE
            | opcode::Write::CODE
            | opcode::Writev::CODE
            | opcode::WriteFixed::CODE
            | opcode::WritevFixed::CODE
            | opcode::Recv::CODE
            | opcode::RecvMsg::CODE
            | opcode::Send::CODE
            | opcode::SendMsg::CODE
            | opcode::SendZc::CODE
            | opcode::SendMsgZc::CODE
            | opcode::Accept::CODE
            | opcode::Connect::CODE
            | opcode::EpollWait::CODE
    )
}

/// Whether the entry changes the `user_data` of another request (`IORING_POLL_UPDATE_USER_DATA`).
pub(crate) fn updates_user_data(entry: &squeue::Entry) -> bool {
    const IORING_POLL_UPDATE_USER_DATA: u32 = 1 << 2;
    entry.get_opcode() as u8 == opcode::PollRemove::CODE
        && word_at::<LEN>(entry) & IORING_POLL_UPDATE_USER_DATA != 0
}

/// The kernel's name of an opcode, without its `IORING_OP_`.
pub(crate) fn name(opcode: u8) -> &'static str {
    const NAMES: [&str; 63] = [
        "NOP",
        "READV",
        "WRITEV",
        "FSYNC",
        "READ_FIXED",
        "WRITE_FIXED",
        "POLL_ADD",
        "POLL_REMOVE",
        "SYNC_FILE_RANGE",
        "SENDMSG",
        "RECVMSG",
        "TIMEOUT",
        "TIMEOUT_REMOVE",
        "ACCEPT",
        "ASYNC_CANCEL",
        "LINK_TIMEOUT",
        "CONNECT",
        "FALLOCATE",
        "OPENAT",
        "CLOSE",
        "FILES_UPDATE",
        "STATX",
        "READ",
        "WRITE",
        "FADVISE",
        "MADVISE",
        "SEND",
        "RECV",
        "OPENAT2",
        "EPOLL_CTL",
        "SPLICE",
        "PROVIDE_BUFFERS",
        "REMOVE_BUFFERS",
        "TEE",
        "SHUTDOWN",
        "RENAMEAT",
        "UNLINKAT",
        "MKDIRAT",
        "SYMLINKAT",
        "LINKAT",
        "MSG_RING",
        "FSETXATTR",
        "SETXATTR",
        "FGETXATTR",
        "GETXATTR",
        "SOCKET",
        "URING_CMD",
        "SEND_ZC",
        "SENDMSG_ZC",
        "READ_MULTISHOT",
        "WAITID",
        "FUTEX_WAIT",
        "FUTEX_WAKE",
        "FUTEX_WAITV",
        "FIXED_FD_INSTALL",
        "FTRUNCATE",
        "BIND",
        "LISTEN",
        "RECV_ZC",
        "EPOLL_WAIT",
        "READV_FIXED",
        "WRITEV_FIXED",
        "PIPE",
    ];
    NAMES.get(opcode as usize).copied().unwrap_or("unknown")
}

#[cfg(test)]
mod tests {
    use super::*;
    use io_uring::types::Fd;

    #[test]
    fn reads_the_fields_of_the_abi() {
        let entry = opcode::Nop::new().build().flags(squeue::Flags::IO_LINK);
        assert_eq!(flags(&entry), squeue::Flags::IO_LINK);

        let null = std::ptr::null_mut();
        let accept = opcode::Accept::new(Fd(0), null, std::ptr::null_mut());
        assert!(yields_descriptor(&accept.build()));
        let slot = io_uring::types::DestinationSlot::auto_target;
        let direct = opcode::Accept::new(Fd(0), null, std::ptr::null_mut()).file_index(Some(slot()));
        assert!(!yields_descriptor(&direct.build()));
        let install = opcode::FixedFdInstall::new(io_uring::types::Fixed(7), 0).build();
        assert!(yields_descriptor(&install));
        let (name, how) = (c"x".as_ptr(), io_uring::types::OpenHow::new());
        assert!(yields_descriptor(&opcode::OpenAt::new(Fd(0), name).build()));
        assert!(yields_descriptor(&opcode::OpenAt2::new(Fd(0), name, &raw const how).build()));
        assert!(yields_descriptor(&opcode::Socket::new(libc::AF_UNIX, libc::SOCK_STREAM, 0).build()));
        let direct = opcode::Socket::new(libc::AF_UNIX, libc::SOCK_STREAM, 0).file_index(Some(slot()));
        assert!(!yields_descriptor(&direct.build()));
        assert!(!yields_descriptor(&entry));
    }

    #[test]
    #[cfg_attr(miri, ignore = "the crate copies unions, whose rest is nothing to Miri")]
    fn entries_are_those_of_the_crate() {
        let is_that_of_the_crate = |usual: Usual, entry: squeue::Entry| {
            // Something else was there before, with a rest that is not zero.
            let mut place = opcode::Splice::new(Fd(1), 2, Fd(3), 4, 5).build().personality(6);
            let at = NonNull::from(&mut place);
            // SAFETY: the place is this test's own.
            unsafe { clear_rest(at) };
            // SAFETY: the place is this test's own.
            unsafe { usual.write(at, 8) };
            assert_eq!(bytes(&place), bytes(&entry.user_data(8)));
        };
        let (memory, length) = (0x1234_5678_9abc as *mut u8, 77);
        let address = memory as u64;
        let usual = Usual { opcode: 0, descriptor: 9, offset: 0, address, length, op_flags: 0 };
        let offset = u64::MAX - 1;
        let read = opcode::Read::new(Fd(9), memory, length).offset(offset).build();
        is_that_of_the_crate(Usual { opcode: opcode::Read::CODE.into(), offset, ..usual }, read);
        let write = opcode::Write::new(Fd(9), memory, length).offset(3).build();
        is_that_of_the_crate(Usual { opcode: opcode::Write::CODE.into(), offset: 3, ..usual }, write);
        let receive = opcode::Recv::new(Fd(9), memory, length).build();
        is_that_of_the_crate(Usual { opcode: opcode::Recv::CODE.into(), ..usual }, receive);
        let send = opcode::Send::new(Fd(9), memory, length).flags(libc::MSG_NOSIGNAL).build();
        let op_flags = libc::MSG_NOSIGNAL as u32;
        is_that_of_the_crate(Usual { opcode: opcode::Send::CODE.into(), op_flags, ..usual }, send);
        let accept = opcode::Accept::new(Fd(9), std::ptr::null_mut(), std::ptr::null_mut());
        let (opcode, op_flags) = (opcode::Accept::CODE.into(), libc::SOCK_CLOEXEC as u32);
        let usual_accept = Usual { opcode, address: 0, length: 0, op_flags, ..usual };
        is_that_of_the_crate(usual_accept, accept.flags(libc::SOCK_CLOEXEC).build());
        let nop = Usual { opcode: opcode::Nop::CODE.into(), descriptor: -1, address: 0, length: 0, ..usual };
        is_that_of_the_crate(nop, opcode::Nop::new().build());
    }

    #[test]
    fn only_sends_are_made_whole() {
        let op_flags = libc::MSG_NOSIGNAL as u32;
        let recv = Usual {
            opcode: opcode::Recv::CODE.into(),
            descriptor: 0,
            offset: 0,
            address: 0,
            length: 0,
            op_flags,
        };
        let whole = |mut usual: Usual| {
            usual.send_whole();
            usual.op_flags
        };
        assert_eq!(whole(recv), op_flags);
        for send in [opcode::Send::CODE, opcode::SendMsg::CODE, opcode::SendZc::CODE, opcode::SendMsgZc::CODE]
        {
            let send = Usual { opcode: send.into(), ..recv };
            assert_eq!(whole(send), op_flags | libc::MSG_WAITALL as u32);
        }
    }

    #[test]
    fn names_are_those_of_the_opcodes() {
        assert_eq!(name(opcode::Nop::CODE), "NOP");
        assert_eq!(name(opcode::AcceptMulti::CODE), "ACCEPT");
        assert_eq!(name(opcode::SendZc::CODE), "SEND_ZC");
        assert_eq!(name(opcode::ReadMulti::CODE), "READ_MULTISHOT");
        assert_eq!(name(opcode::Pipe::CODE), "PIPE");
        assert_eq!(name(255), "unknown");
    }
}
