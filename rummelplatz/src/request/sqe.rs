//! Fields of a submission queue entry that the `io-uring` crate keeps to itself.
//!
//! `squeue::Entry` is `repr(C)` over `struct io_uring_sqe`, whose layout is the kernel's ABI
//! (`include/uapi/linux/io_uring.h`) and can't change: 64 bytes, of which these are read here.

use std::mem::{self, offset_of};
use std::os::fd::RawFd;

use io_uring::{opcode, squeue};

const FLAGS: usize = 1;
const OP_FLAGS: usize = 28;
const LEN: usize = 24;
const FILE_INDEX: usize = 44;

const _: () = assert!(size_of::<squeue::Entry>() == 64 && align_of::<squeue::Entry>() >= 4);

fn byte_at<const OFFSET: usize>(entry: &squeue::Entry) -> u8 {
    const { assert!(OFFSET < 64) };
    // SAFETY: the offset is inside the 64 bytes of the entry, all of which its constructors
    // initialise (they start from a zeroed one).
    unsafe { (&raw const *entry).cast::<u8>().add(OFFSET).read() }
}

fn word_at<const OFFSET: usize>(entry: &squeue::Entry) -> u32 {
    const { assert!(OFFSET <= 60 && OFFSET.is_multiple_of(4)) };
    // SAFETY: as in `byte_at`; the entry is aligned to 4 bytes and so is the offset.
    unsafe { (&raw const *entry).cast::<u8>().add(OFFSET).cast::<u32>().read() }
}

/// An entry of the usual kind. What the `io-uring` crate builds is put together field by field, and differs in
/// each opcode's way of leaving fields out; where a program has two kinds of entries for one place, the
/// compiler makes little of that.
#[inline(always)]
pub(crate) fn entry(
    opcode: u8,
    descriptor: RawFd,
    address: u64,
    length: u32,
    offset: u64,
    op_flags: u32,
) -> squeue::Entry {
    /// The same in `struct io_uring_sqe`.
    #[repr(C)]
    struct Sqe {
        /// And `flags` and `ioprio`, which are 0: one number is written at once.
        opcode: u32,
        descriptor: RawFd,
        offset: u64,
        address: u64,
        length: u32,
        op_flags: u32,
        rest: [u64; 4],
    }
    const _: () = assert!(offset_of!(Sqe, length) == LEN && offset_of!(Sqe, op_flags) == OP_FLAGS);

    let sqe = Sqe {
        opcode: u32::from_le(u32::from(opcode)),
        descriptor,
        offset,
        address,
        length,
        op_flags,
        rest: [0; 4],
    };
    // SAFETY: an entry is `repr(C)` over the system's structure, 64 bytes of numbers, which these are.
    unsafe { mem::transmute::<Sqe, squeue::Entry>(sqe) }
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

/// Whether the entry changes the `user_data` of another request (`IORING_POLL_UPDATE_USER_DATA`).
pub(crate) fn updates_user_data(entry: &squeue::Entry) -> bool {
    const IORING_POLL_UPDATE_USER_DATA: u32 = 1 << 2;
    entry.get_opcode() as u8 == opcode::PollRemove::CODE
        && word_at::<LEN>(entry) & IORING_POLL_UPDATE_USER_DATA != 0
}

/// Makes a send go out whole or fail (`MSG_WAITALL`, since 5.19); entries of other opcodes stay as they are.
pub(crate) fn send_whole(opcode: u8, entry: &mut squeue::Entry) {
    if opcode == opcode::Send::CODE {
        let flags = word_at::<OP_FLAGS>(entry) | libc::MSG_WAITALL as u32;
        // SAFETY: `msg_flags` of a send lies at this offset, aligned; the entry is borrowed
        // exclusively.
        unsafe { (&raw mut *entry).cast::<u8>().add(OP_FLAGS).cast::<u32>().write(flags) };
    }
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
        let bytes = |entry: &squeue::Entry| -> [u8; 64] {
            // SAFETY: 64 bytes, all of which are initialised.
            unsafe { (&raw const *entry).cast::<[u8; 64]>().read() }
        };
        let (at, length) = (0x1234_5678_9abc as *mut u8, 77);
        let read = opcode::Read::new(Fd(9), at, length).offset(u64::MAX - 1).build();
        assert_eq!(bytes(&entry(opcode::Read::CODE, 9, at as u64, length, u64::MAX - 1, 0)), bytes(&read));
        let write = opcode::Write::new(Fd(9), at, length).offset(3).build();
        assert_eq!(bytes(&entry(opcode::Write::CODE, 9, at as u64, length, 3, 0)), bytes(&write));
        let receive = opcode::Recv::new(Fd(9), at, length).build();
        assert_eq!(bytes(&entry(opcode::Recv::CODE, 9, at as u64, length, 0, 0)), bytes(&receive));
        let send = opcode::Send::new(Fd(9), at, length).flags(libc::MSG_NOSIGNAL).build();
        let flags = libc::MSG_NOSIGNAL as u32;
        assert_eq!(bytes(&entry(opcode::Send::CODE, 9, at as u64, length, 0, flags)), bytes(&send));
        assert_eq!(bytes(&entry(opcode::Nop::CODE, -1, 0, 0, 0, 0)), bytes(&opcode::Nop::new().build()));
    }

    #[test]
    fn only_sends_are_made_whole() {
        let mut send = opcode::Send::new(Fd(0), std::ptr::null(), 0).flags(libc::MSG_NOSIGNAL).build();
        send_whole(opcode::Send::CODE, &mut send);
        let flags = (libc::MSG_NOSIGNAL | libc::MSG_WAITALL) as u32;
        assert_eq!(word_at::<OP_FLAGS>(&send), flags);

        let mut nop = opcode::Nop::new().build();
        send_whole(opcode::Nop::CODE, &mut nop);
        assert_eq!(word_at::<OP_FLAGS>(&nop), 0);
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
