//! Does what was asked, without waiting: system calls on descriptors of this process.

use std::mem;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};

use io_uring::opcode;

use super::asked::{Asked, SAID};
use super::pool::Offered;
use crate::request::{
    SOCKET_URING_OP_GETSOCKOPT, SOCKET_URING_OP_SETSOCKOPT, SOCKET_URING_OP_SIOCINQ, SOCKET_URING_OP_SIOCOUTQ,
};

/// Where the bytes of a transfer are, or are to go.
#[derive(Clone, Copy)]
pub(super) struct Work {
    pub(super) address: u64,
    pub(super) length: u32,
}

/// `sqe->off` of a read or write at the file's own position.
const CURRENT_POSITION: u64 = u64::MAX;

/// The result of a call in the kernel's form; `None` if the call would have to wait, and the kernel waits for
/// what was asked.
fn result(asked: &Asked, returned: libc::c_long) -> Option<i32> {
    if returned >= 0 {
        return Some(i32::try_from(returned).unwrap_or(i32::MAX));
    }
    let errno = std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
    failed(asked, errno)
}

/// As [`result`], of a call that has failed. What the kernel does not wait for has ended: above all a `close`,
/// whose descriptor is gone by then.
pub(super) fn failed(asked: &Asked, errno: i32) -> Option<i32> {
    let would_wait = matches!(errno, libc::EAGAIN | libc::EINPROGRESS | libc::EALREADY);
    (!would_wait || asked.waits_for().is_none()).then_some(-errno)
}

/// Opens what is behind this number once more.
///
/// # Errors
///
/// With the `errno`.
pub(super) fn duplicate(number: RawFd) -> Result<OwnedFd, i32> {
    // SAFETY: a plain call.
    let duplicate = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 0) };
    if duplicate < 0 {
        return Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO));
    }
    // SAFETY: it was just made, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(duplicate) })
}

/// Whether reads and writes can wait, because there is something other than a file behind this number.
pub(super) fn is_connection(number: RawFd) -> bool {
    File::of(number).is_ok_and(|file| !file.is_on_disk)
}

/// The events of `wanted` that are there, and those that are always reported: errors, and that the peer is
/// gone.
pub(super) fn poll(descriptor: RawFd, wanted: i16) -> i32 {
    let mut poll = libc::pollfd { fd: descriptor, events: wanted | libc::POLLRDHUP, revents: 0 };
    // SAFETY: the pointer is that of one `pollfd`, as the count says.
    let ready = unsafe { libc::poll(&raw mut poll, 1, 0) };
    if ready < 0 || poll.revents & libc::POLLNVAL != 0 {
        return -libc::EBADF;
    }
    i32::from(poll.revents)
}

pub(super) fn is_readable(descriptor: RawFd) -> bool {
    poll(descriptor, libc::POLLIN) != 0
}

/// Breaks a connection, so that both of its ends see it.
pub(super) fn reset(socket: RawFd) {
    // SAFETY: a plain call, which does nothing to what is no socket.
    unsafe { libc::shutdown(socket, libc::SHUT_RDWR) };
}

/// Whether the word that a request waits for has the value that it expects.
///
/// # Safety
///
/// The word is there, and aligned; and others use it only atomically as long as the kernel may read it.
pub(super) unsafe fn is_as_expected(asked: &Asked) -> bool {
    let place = ptr::with_exposed_provenance_mut::<u32>(asked.address as usize);
    // SAFETY: the caller's promise.
    let word = unsafe { AtomicU32::from_ptr(place) };
    word.load(Ordering::SeqCst) == asked.offset as u32
}

/// Closes a descriptor that was given away for this. Whatever the result, it is gone.
pub(super) fn close(number: RawFd) {
    // SAFETY: the descriptor was given away for this.
    unsafe { libc::close(number) };
}

/// Signals an eventfd.
pub(super) fn signal(eventfd: RawFd) {
    let one = 1_u64;
    // SAFETY: eight bytes are read, which are there; a full counter is as good as a signal.
    unsafe { libc::write(eventfd, (&raw const one).cast(), size_of_val(&one)) };
}

/// Puts bytes where a transfer would have put them, as far as there is room.
///
/// # Safety
///
/// The memory of `work` is there, and may be written to.
pub(super) unsafe fn fill(work: Work, bytes: &[u8]) {
    let length = bytes.len().min(work.length as usize);
    let place = ptr::with_exposed_provenance_mut::<u8>(work.address as usize);
    // SAFETY: the caller's promise; what the kernel writes to is no Rust value of this crate.
    unsafe { place.copy_from(bytes.as_ptr(), length) };
}

/// As [`fill`], one place after the other.
///
/// # Safety
///
/// The same as for [`fill`], for each place.
pub(super) unsafe fn fill_all(works: impl IntoIterator<Item = Work>, bytes: &[u8]) {
    let mut rest = bytes;
    for work in works {
        let (here, after) = rest.split_at(rest.len().min(work.length as usize));
        // SAFETY: the caller's promise, for this place.
        unsafe { fill(work, here) };
        rest = after;
    }
}

/// Reports that nothing is known but the result, if more was asked for: the peer's address of an accepted connection,
/// or that and the control messages of what was received.
///
/// # Safety
///
/// What the request points to is there.
pub(super) unsafe fn forget_peer(asked: &Asked) {
    if asked.opcode == opcode::Accept::CODE && asked.offset != 0 {
        let length = ptr::with_exposed_provenance_mut::<libc::socklen_t>(asked.offset as usize);
        // SAFETY: it points to the length of the address.
        unsafe { length.write_unaligned(0) };
    }
    if asked.opcode == opcode::RecvMsg::CODE && !asked.takes_buffers() {
        let header = ptr::with_exposed_provenance_mut::<libc::msghdr>(asked.address as usize);
        // SAFETY: it points to the message.
        unsafe { (&raw mut (*header).msg_namelen).write_unaligned(0) };
        // SAFETY: it points to the message.
        unsafe { (&raw mut (*header).msg_controllen).write_unaligned(0) };
    }
}

/// Whether this is an end of a connection, in which bytes have no boundaries.
pub(super) fn is_stream(socket: RawFd) -> bool {
    let mut kind: libc::c_int = 0;
    let mut length = size_of_val(&kind) as libc::socklen_t;
    let place = (&raw mut kind).cast();
    // SAFETY: there is a place for the answer.
    let known = unsafe { libc::getsockopt(socket, libc::SOL_SOCKET, libc::SO_TYPE, place, &raw mut length) };
    known == 0 && kind == libc::SOCK_STREAM
}

/// Receives into several buffers, one after the other; `None` if it would have to wait.
///
/// # Safety
///
/// The buffers are there, and the kernel may use them.
pub(super) unsafe fn receive_into(asked: &Asked, buffers: &[Offered]) -> Option<i32> {
    let mut pieces: Vec<_> =
        buffers.iter().map(|buffer| piece(buffer.address, buffer.length as usize)).collect();
    // SAFETY: all zeroes is a `struct msghdr`.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    (header.msg_iov, header.msg_iovlen) = (pieces.as_mut_ptr(), pieces.len() as _);
    let flags = asked.op_flags() as libc::c_int | libc::MSG_DONTWAIT;
    // SAFETY: the caller's promise.
    result(asked, unsafe { libc::recvmsg(asked.number(), &raw mut header, flags) as libc::c_long })
}

fn piece(address: u64, length: usize) -> libc::iovec {
    libc::iovec { iov_base: ptr::with_exposed_provenance_mut(address as usize), iov_len: length }
}

/// Receives a message, and writes what the kernel says of it: where that is asked for, or before the message
/// in a buffer.
///
/// # Safety
///
/// The same as for [`perform`].
unsafe fn receive_message(asked: &Asked, work: Work) -> Option<i32> {
    let (overhead, takes_buffer) = (asked.overhead(), asked.takes_buffers());
    let Some(room) = (work.length as usize).checked_sub(overhead) else { return Some(-libc::EFAULT) };
    let mut pieces = match takes_buffer {
        true => vec![piece(work.address + overhead as u64, room)],
        false => asked.pieces(),
    };
    let mut header = asked.header(&mut pieces, takes_buffer.then_some(work.address));
    let flags = asked.op_flags() as libc::c_int | libc::MSG_DONTWAIT;
    // SAFETY: the caller's promise, for the pieces and for the places in the buffer.
    let received = unsafe { libc::recvmsg(asked.number(), &raw mut header, flags) };
    let length = result(asked, received as libc::c_long)?;
    if length < 0 {
        return Some(length);
    }
    if takes_buffer {
        let said = said(header.msg_namelen, header.msg_controllen as u32, length as u32, header.msg_flags);
        // SAFETY: the caller's promise; this is the beginning of the buffer, and there is room.
        unsafe { fill(Work { length: said.len() as u32, ..work }, &said) };
        return Some(length + overhead as i32);
    }
    let place = ptr::with_exposed_provenance_mut::<libc::msghdr>(asked.address as usize);
    // SAFETY: the message is there until the request is over; what is written is what the kernel writes.
    unsafe {
        (&raw mut (*place).msg_namelen).write_unaligned(header.msg_namelen);
        (&raw mut (*place).msg_controllen).write_unaligned(header.msg_controllen);
        (&raw mut (*place).msg_flags).write_unaligned(header.msg_flags);
    }
    Some(length)
}

/// What is said of a message in a buffer (`struct io_uring_recvmsg_out`).
pub(super) fn said(name: u32, control: u32, payload: u32, flags: libc::c_int) -> [u8; SAID] {
    let mut said = [0; SAID];
    for (place, number) in said.as_chunks_mut().0.iter_mut().zip([name, control, payload, flags as u32]) {
        *place = number.to_ne_bytes();
    }
    said
}

/// Sends a part of a message: the address of `work` says after how many bytes, and its length up to how many.
///
/// # Safety
///
/// The same as for [`perform`].
unsafe fn send_message(asked: &Asked, work: Work) -> Option<i32> {
    let mut pieces = asked.pieces();
    let mut skipped = work.address.wrapping_sub(asked.address) as usize;
    let mut left = work.length as usize;
    for part in &mut pieces {
        let before = skipped.min(part.iov_len);
        skipped -= before;
        let length = (part.iov_len - before).min(left);
        left -= length;
        *part = piece(part.iov_base.expose_provenance() as u64 + before as u64, length);
    }
    let mut header = asked.header(&mut pieces, None);
    if work.address != asked.address {
        // Control messages go with the first byte.
        (header.msg_control, header.msg_controllen) = (ptr::null_mut(), 0);
    }
    let flags = asked.op_flags() as libc::c_int & !libc::MSG_WAITALL;
    let flags = flags | libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the caller's promise.
    result(asked, unsafe { libc::sendmsg(asked.number(), &raw const header, flags) as libc::c_long })
}

/// How the kernel treats what is behind a descriptor.
struct File {
    /// Its bytes have positions, and are there at once: a regular file, or a block device.
    is_on_disk: bool,
    is_socket: bool,
    can_read: bool,
    can_write: bool,
}

impl File {
    /// What is behind a descriptor; `Err` with the `errno` if there is nothing.
    fn of(descriptor: RawFd) -> Result<File, i32> {
        // SAFETY: a plain call.
        let flags = unsafe { libc::fcntl(descriptor, libc::F_GETFL) };
        // SAFETY: all zeroes is a `struct stat`.
        let mut stat: libc::stat = unsafe { mem::zeroed() };
        // SAFETY: there is a place for the answer.
        let known = unsafe { libc::fstat(descriptor, &raw mut stat) };
        if flags < 0 || known < 0 || flags & libc::O_PATH != 0 {
            return Err(libc::EBADF);
        }
        let (access, kind) = (flags & libc::O_ACCMODE, stat.st_mode & libc::S_IFMT);
        Ok(File {
            is_on_disk: matches!(kind, libc::S_IFREG | libc::S_IFBLK | libc::S_IFDIR),
            is_socket: kind == libc::S_IFSOCK,
            can_read: access != libc::O_WRONLY,
            can_write: access != libc::O_RDONLY,
        })
    }
}

/// Does what was asked, with `work` for its bytes; `None` if it would have to wait.
///
/// # Safety
///
/// What the request points to is there, and so is the memory of `work`; the kernel may use both.
pub(super) unsafe fn perform(asked: &Asked, work: Work) -> Option<i32> {
    if asked.opcode == opcode::Nop::CODE {
        return Some(0);
    }
    let fd = asked.number();
    let file = match asked.opcode {
        // The number is not that of a descriptor.
        opcode::Socket::CODE | opcode::WaitId::CODE | opcode::Pipe::CODE => None,
        _ if asked.is_on_names() || asked.is_on_attribute_of_path() => None,
        _ => match File::of(fd) {
            Ok(file) => Some(file),
            Err(errno) => return Some(-errno),
        },
    };
    // SAFETY: the caller's promise.
    unsafe { call(asked, work, file.as_ref()) }
}

/// # Safety
///
/// The same as for [`perform`].
unsafe fn call(asked: &Asked, work: Work, file: Option<&File>) -> Option<i32> {
    let fd = asked.number();
    let length = work.length as usize;
    let flags = asked.op_flags() as libc::c_int;
    let bytes = ptr::with_exposed_provenance_mut::<u8>(work.address as usize);
    let is_on_disk = file.is_some_and(|file| file.is_on_disk);
    let returned = match asked.opcode {
        opcode::Read::CODE | opcode::ReadFixed::CODE | opcode::ReadMulti::CODE => {
            if file.is_some_and(|file| !file.can_read) {
                return Some(-libc::EBADF);
            }
            if asked.opcode == opcode::ReadMulti::CODE && is_on_disk {
                return Some(-libc::EBADFD);
            }
            if poll(fd, libc::POLLIN) == 0 {
                return waits(flags);
            }
            if flags != 0 {
                // SAFETY: the caller's promise.
                return unsafe { move_with_flags(asked, work, is_on_disk) };
            }
            match asked.offset {
                offset if is_on_disk && offset != CURRENT_POSITION => {
                    // SAFETY: the caller's promise.
                    unsafe { libc::pread(fd, bytes.cast(), length, offset as libc::off_t) as libc::c_long }
                }
                // SAFETY: the caller's promise; there is something to be read, so this does not wait.
                _ => unsafe { libc::read(fd, bytes.cast(), length) as libc::c_long },
            }
        }
        opcode::Write::CODE | opcode::WriteFixed::CODE => {
            if file.is_some_and(|file| !file.can_write) {
                return Some(-libc::EBADF);
            }
            if poll(fd, libc::POLLOUT) & !i32::from(libc::POLLRDHUP) == 0 {
                return waits(flags);
            }
            if flags != 0 {
                // SAFETY: the caller's promise.
                return unsafe { move_with_flags(asked, work, is_on_disk) };
            }
            match asked.offset {
                offset if is_on_disk && offset != CURRENT_POSITION => {
                    let offset = offset as libc::off_t;
                    // SAFETY: the caller's promise.
                    unsafe { libc::pwrite(fd, bytes.cast_const().cast(), length, offset) as libc::c_long }
                }
                _ => {
                    // A pipe that can be written to takes this much.
                    let length = if is_on_disk { length } else { length.min(libc::PIPE_BUF) };
                    // SAFETY: the caller's promise.
                    unsafe { libc::write(fd, bytes.cast_const().cast(), length) as libc::c_long }
                }
            }
        }
        opcode::Readv::CODE | opcode::ReadvFixed::CODE => {
            if poll(fd, libc::POLLIN) == 0 {
                return waits(flags);
            }
            let (pieces, count, offset) = vector(asked, is_on_disk);
            // SAFETY: the caller's promise, for each piece.
            unsafe { libc::preadv2(fd, pieces.as_ptr(), count, offset, flags) as libc::c_long }
        }
        opcode::Writev::CODE | opcode::WritevFixed::CODE => {
            if poll(fd, libc::POLLOUT) & !i32::from(libc::POLLRDHUP) == 0 {
                return waits(flags);
            }
            let (pieces, count, offset) = vector(asked, is_on_disk);
            // SAFETY: the caller's promise, for each piece.
            unsafe { libc::pwritev2(fd, pieces.as_ptr(), count, offset, flags) as libc::c_long }
        }
        opcode::Recv::CODE => {
            let flags = flags & !libc::MSG_WAITALL | libc::MSG_DONTWAIT;
            // SAFETY: the caller's promise.
            unsafe { libc::recv(fd, bytes.cast(), length, flags) as libc::c_long }
        }
        opcode::Send::CODE | opcode::SendZc::CODE => {
            let flags = flags & !libc::MSG_WAITALL | libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
            // SAFETY: the caller's promise.
            unsafe { libc::send(fd, bytes.cast_const().cast(), length, flags) as libc::c_long }
        }
        // SAFETY: the caller's promise.
        opcode::RecvMsg::CODE => return unsafe { receive_message(asked, work) },
        // SAFETY: the caller's promise.
        opcode::SendMsg::CODE | opcode::SendMsgZc::CODE => return unsafe { send_message(asked, work) },
        opcode::Accept::CODE => {
            if poll(fd, libc::POLLIN) == 0 {
                return None;
            }
            let (address, size) = (bytes.cast(), asked.offset);
            let size = ptr::with_exposed_provenance_mut(size as usize);
            // SAFETY: the caller's promise; there is a connection, so this does not wait.
            unsafe { libc::accept4(fd, address, size, flags).into() }
        }
        opcode::Connect::CODE => return connect(asked),
        opcode::Bind::CODE => {
            let address = asked.peer();
            // SAFETY: the address is there.
            unsafe { libc::bind(fd, address.as_ptr().cast(), address.len() as libc::socklen_t).into() }
        }
        // SAFETY: a plain call.
        opcode::Listen::CODE => unsafe { libc::listen(fd, asked.length as libc::c_int).into() },
        opcode::Socket::CODE => {
            let (kind, protocol) = (asked.offset as libc::c_int, asked.length as libc::c_int);
            // SAFETY: a plain call.
            unsafe { libc::socket(fd, kind, protocol).into() }
        }
        // SAFETY: the caller's promise.
        opcode::OpenAt::CODE => unsafe {
            libc::openat(fd, bytes.cast_const().cast(), flags, asked.length).into()
        },
        opcode::OpenAt2::CODE => {
            let Some(how) = asked.how() else { return Some(-libc::EINVAL) };
            let path = bytes.cast_const();
            // SAFETY: the caller's promise; `how` is there, and its size is passed along.
            unsafe { libc::syscall(libc::SYS_openat2, fd, path, &raw const how, size_of_val(&how)) }
        }
        _ if asked.is_on_names() => {
            let (path, mode) = (bytes.cast_const().cast(), asked.length);
            let to_path = ptr::with_exposed_provenance_mut::<libc::c_char>(asked.offset as usize);
            let to = asked.length as RawFd;
            // SAFETY: the caller's promise, for both names, and for the place of what is found out.
            unsafe {
                match asked.opcode {
                    opcode::Statx::CODE => libc::statx(fd, path, flags, mode, to_path.cast()).into(),
                    opcode::UnlinkAt::CODE => libc::unlinkat(fd, path, flags).into(),
                    opcode::RenameAt::CODE => libc::renameat2(fd, path, to, to_path, flags as u32).into(),
                    opcode::MkDirAt::CODE => libc::mkdirat(fd, path, mode).into(),
                    opcode::LinkAt::CODE => libc::linkat(fd, path, to, to_path, flags).into(),
                    _ => libc::symlinkat(path, fd, to_path).into(),
                }
            }
        }
        opcode::Fallocate::CODE => {
            let (mode, offset, length) = (asked.length as libc::c_int, asked.offset, asked.address);
            // SAFETY: a plain call.
            unsafe { libc::fallocate(fd, mode, offset as libc::off_t, length as libc::off_t).into() }
        }
        opcode::SyncFileRange::CODE => {
            let (offset, length) = (asked.offset as libc::off_t, asked.length.into());
            // SAFETY: a plain call.
            unsafe { libc::sync_file_range(fd, offset, length, asked.op_flags()).into() }
        }
        // SAFETY: a plain call.
        opcode::Tee::CODE => unsafe {
            libc::tee(asked.other(), fd, length, libc::SPLICE_F_NONBLOCK) as libc::c_long
        },
        opcode::GetXattr::CODE
        | opcode::SetXattr::CODE
        | opcode::FGetXattr::CODE
        | opcode::FSetXattr::CODE => {
            let (path, name) = (asked.path(), bytes.cast_const().cast());
            let value = ptr::with_exposed_provenance_mut::<libc::c_void>(asked.offset as usize);
            // SAFETY: the caller's promise, for the path, the name and the value.
            unsafe {
                match asked.opcode {
                    opcode::GetXattr::CODE => libc::getxattr(path, name, value, length) as libc::c_long,
                    opcode::FGetXattr::CODE => libc::fgetxattr(fd, name, value, length) as libc::c_long,
                    opcode::SetXattr::CODE => libc::setxattr(path, name, value, length, flags).into(),
                    _ => libc::fsetxattr(fd, name, value, length, flags).into(),
                }
            }
        }
        // SAFETY: the caller's promise, for the place of what is found out.
        opcode::WaitId::CODE => return unsafe { wait_for_child(asked) },
        opcode::SetSockOpt::CODE if file.is_none_or(|file| !file.is_socket) => {
            return Some(-libc::EOPNOTSUPP);
        }
        // SAFETY: the caller's promise, for the value of an option.
        opcode::SetSockOpt::CODE => return unsafe { command(asked) },
        opcode::Pipe::CODE => {
            // The number of its descriptor has to be 0.
            if fd != 0 {
                return Some(-libc::EINVAL);
            }
            // SAFETY: the caller's promise, for the place of both ends.
            unsafe { libc::pipe2(bytes.cast(), flags).into() }
        }
        opcode::EpollWait::CODE => {
            // SAFETY: the caller's promise, for the places of the events; this does not wait.
            let count = unsafe { libc::epoll_wait(fd, bytes.cast(), asked.length as libc::c_int, 0) };
            if count == 0 {
                return None;
            }
            count.into()
        }
        // SAFETY: a plain call.
        opcode::Ftruncate::CODE => unsafe { libc::ftruncate(fd, asked.offset as libc::off_t).into() },
        opcode::Fadvise::CODE => {
            let (offset, length) = (asked.offset as libc::off_t, asked.length.into());
            // SAFETY: a plain call, which returns its error.
            return Some(-unsafe { libc::posix_fadvise(fd, offset, length, flags) });
        }
        // SAFETY: the descriptor was given away for this.
        opcode::Close::CODE => unsafe { libc::close(fd).into() },
        // SAFETY: a plain call.
        opcode::FixedFdInstall::CODE => unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 0).into() },
        // SAFETY: a plain call.
        opcode::Shutdown::CODE => unsafe { libc::shutdown(fd, asked.length as libc::c_int).into() },
        // SAFETY: a plain call.
        opcode::Fsync::CODE if asked.syncs_data_only() => unsafe { libc::fdatasync(fd).into() },
        // SAFETY: a plain call.
        opcode::Fsync::CODE => unsafe { libc::fsync(fd).into() },
        _ => return Some(-libc::EINVAL),
    };
    result(asked, returned)
}

/// Asks a socket for something.
///
/// # Safety
///
/// The same as for [`perform`].
unsafe fn command(asked: &Asked) -> Option<i32> {
    let fd = asked.number();
    let (level, name, value, mut length) = asked.option();
    let mut number: libc::c_int = 0;
    let returned = match asked.command() {
        // SAFETY: there is a place for the answer.
        SOCKET_URING_OP_SIOCINQ => unsafe { libc::ioctl(fd, libc::FIONREAD, &raw mut number) },
        // SAFETY: there is a place for the answer.
        SOCKET_URING_OP_SIOCOUTQ => unsafe { libc::ioctl(fd, libc::TIOCOUTQ, &raw mut number) },
        SOCKET_URING_OP_GETSOCKOPT if level == libc::SOL_SOCKET => {
            // SAFETY: the caller's promise; the length is a place of its own.
            let returned = unsafe { libc::getsockopt(fd, level, name, value, &raw mut length) };
            number = length as libc::c_int;
            returned
        }
        // SAFETY: the caller's promise.
        SOCKET_URING_OP_SETSOCKOPT => unsafe { libc::setsockopt(fd, level, name, value, length) },
        _ => return Some(-libc::EOPNOTSUPP),
    };
    match result(asked, returned.into()) {
        Some(0) => Some(number),
        other => other,
    }
}

/// What becomes of a read or a write that would have to wait, with these flags.
fn waits(flags: libc::c_int) -> Option<i32> {
    (flags & libc::RWF_NOWAIT != 0).then_some(-libc::EAGAIN)
}

/// Reads or writes as flags say (`RWF_*`). There is something to be read, or room.
///
/// # Safety
///
/// The same as for [`perform`].
unsafe fn move_with_flags(asked: &Asked, work: Work, is_on_disk: bool) -> Option<i32> {
    let fd = asked.number();
    let flags = asked.op_flags() as libc::c_int;
    // A pipe that can be written to takes this much.
    let length =
        if is_on_disk || asked.reads_bytes() { work.length } else { work.length.min(libc::PIPE_BUF as u32) };
    let piece = piece(work.address, length as usize);
    let offset = if is_on_disk { asked.offset as libc::off_t } else { -1 };
    let moved = match asked.reads_bytes() {
        // SAFETY: the caller's promise.
        true => unsafe { libc::preadv2(fd, &raw const piece, 1, offset, flags) },
        // SAFETY: the caller's promise.
        false => unsafe { libc::pwritev2(fd, &raw const piece, 1, offset, flags) },
    };
    result(asked, moved as libc::c_long).or_else(|| waits(flags))
}

/// Finds out how a child has ended, if it has.
///
/// # Safety
///
/// The same as for [`perform`].
unsafe fn wait_for_child(asked: &Asked) -> Option<i32> {
    // SAFETY: all zeroes is a `siginfo_t`.
    let mut info: libc::siginfo_t = unsafe { mem::zeroed() };
    let (kind, child) = (asked.length as libc::idtype_t, asked.descriptor as libc::id_t);
    // SAFETY: there is a place for the answer.
    let waited = unsafe { libc::waitid(kind, child, &raw mut info, asked.other() | libc::WNOHANG) };
    let result = result(asked, waited.into())?;
    // SAFETY: it was written, or is zero.
    if result == 0 && unsafe { info.si_pid() } == 0 {
        return None;
    }
    let place = ptr::with_exposed_provenance_mut::<libc::siginfo_t>(asked.offset as usize);
    if result == 0 && !place.is_null() {
        // SAFETY: the caller's promise.
        unsafe { place.write_unaligned(info) };
    }
    Some(result)
}

/// The pieces of a vector, how many there are, and where in a file they belong.
fn vector(asked: &Asked, is_on_disk: bool) -> (Vec<libc::iovec>, libc::c_int, libc::off_t) {
    let mut pieces = asked.pieces();
    let mut offset = asked.offset as libc::off_t;
    if !is_on_disk {
        // The only position is the next one; and a pipe that can be written to takes this much.
        offset = -1;
        let mut room = libc::PIPE_BUF;
        for piece in &mut pieces {
            piece.iov_len = piece.iov_len.min(room);
            room -= piece.iov_len;
        }
    }
    let count = pieces.len() as libc::c_int;
    (pieces, count, offset)
}

/// Connects, or finds out what has become of an earlier attempt.
fn connect(asked: &Asked) -> Option<i32> {
    let (socket, address) = (asked.number(), asked.peer());
    // SAFETY: a plain call.
    let flags = unsafe { libc::fcntl(socket, libc::F_GETFL) };
    if flags < 0 {
        return result(asked, -1);
    }
    // SAFETY: plain calls; the address is there for the one that reads it.
    let returned = unsafe {
        libc::fcntl(socket, libc::F_SETFL, flags | libc::O_NONBLOCK);
        let returned = libc::connect(socket, address.as_ptr().cast(), address.len() as libc::socklen_t);
        let errno = *libc::__errno_location();
        libc::fcntl(socket, libc::F_SETFL, flags);
        *libc::__errno_location() = errno;
        returned
    };
    match result(asked, returned.into()) {
        // An earlier attempt went through.
        Some(errno) if errno == -libc::EISCONN => Some(0),
        other => other,
    }
}

const _: () = assert!(mem::size_of::<libc::off_t>() == 8, "offsets are of 64 bits");
