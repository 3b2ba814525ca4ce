//! What an entry asks for.

use std::fmt;
use std::mem;
use std::num::NonZeroU32;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use io_uring::opcode;

use super::descriptors::{self, Work};
use super::tables::{File, Files, Memory};
use crate::request::{SOCKET_URING_OP_GETSOCKOPT, sqe};
use crate::user_data::Control;

/// What the kernel was asked to do: an entry of the submission queue (`struct io_uring_sqe`).
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Asked {
    /// `IORING_OP_*`.
    pub opcode: u8,
    /// The descriptor that it is about, or whatever else `sqe->fd` means.
    pub descriptor: RawFd,
    /// Where its memory is, as a number; 0 if it has none.
    pub address: u64,
    /// How many bytes that is, or whatever else `sqe->len` means.
    pub length: u32,
    /// `sqe->off`: the offset in a file, or whatever else it means.
    pub offset: u64,
    /// What names its completions.
    pub user_data: u64,
    pub(super) flags: u8,
    pub(super) ioprio: u16,
    pub(super) op_flags: u32,
    pub(super) group: u16,
    /// A slot of the file table; or the limit of a stream, if the operation may have one there; or another
    /// descriptor; or options; or how long the value of an option is.
    file_index: u32,
    /// The path of the file whose attribute is meant; or for what is waited or woken; or where the value of an option
    /// is.
    path: u64,
    /// The registered file that it is on; then its number is in `descriptor`.
    file: Option<File>,
    /// Of a stream that was issued: the number of its own descriptor, which whoever has the request keeps open;
    /// or the `errno` with which it got none.
    duplicate: Option<Result<RawFd, i32>>,
    /// Its memory is not within what is registered under the index that it names.
    is_out_of_bounds: bool,
    /// What the kernel reads while it takes the entry in, and never again.
    kept: Kept,
}

#[derive(Clone, PartialEq, Eq)]
enum Kept {
    Nothing,
    Time(Duration),
    Address(Arc<[u8]>),
    /// For a vector: where each piece begins, and how long it is.
    Pieces(Arc<[(u64, usize)]>),
    Message(Arc<Message>),
    /// The flags of an `openat2`, its mode, and how the path is resolved.
    How([u64; 3]),
}

/// What a message consists of (`struct msghdr`).
#[derive(PartialEq, Eq)]
struct Message {
    /// For a message to be sent: where to. For one to be received: where the sender's name is to be written.
    name: Box<[u8]>,
    name_at: u64,
    /// How much room there is for a name.
    name_length: u32,
    control_at: u64,
    control_length: usize,
    pieces: Box<[(u64, usize)]>,
}

/// When a request may end though nobody has cancelled it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum MayEnd {
    Never,
    /// Once it has begun, it goes on to its end.
    BeforeItBegins,
    Anytime,
}

const IOSQE_FIXED_FILE: u8 = 1;
const IOSQE_IO_DRAIN: u8 = 1 << 1;
const IOSQE_IO_LINK: u8 = 1 << 2;
const IOSQE_IO_HARDLINK: u8 = 1 << 3;
const IOSQE_ASYNC: u8 = 1 << 4;
const IOSQE_BUFFER_SELECT: u8 = 1 << 5;
const IOSQE_CQE_SKIP_SUCCESS: u8 = 1 << 6;

const IORING_POLL_ADD_MULTI: u32 = 1;
const IORING_ACCEPT_MULTISHOT: u16 = 1;
const IORING_RECV_MULTISHOT: u16 = 1 << 1;
const IORING_RECVSEND_FIXED_BUF: u16 = 1 << 2;
const IORING_RECVSEND_BUNDLE: u16 = 1 << 4;
const IORING_TIMEOUT_ABS: u32 = 1;
const IORING_TIMEOUT_REALTIME: u32 = 1 << 3;
const IORING_TIMEOUT_MULTISHOT: u32 = 1 << 6;
const IORING_TIMEOUT_ETIME_SUCCESS: u32 = 1 << 5;

impl Asked {
    /// Reads an entry, and those things it points to that are there only now.
    ///
    /// # Safety
    ///
    /// The entry was queued by whoever vouches for it: what it points to is there.
    pub(super) unsafe fn parse(entry: [u64; 8]) -> Asked {
        let [head, offset, address, sizes, user_data, group, path, _] = entry;
        let [opcode, flags, ioprio_low, ioprio_high, fd @ ..] = head.to_ne_bytes();
        let mut asked = Asked {
            opcode,
            flags,
            ioprio: u16::from_ne_bytes([ioprio_low, ioprio_high]),
            descriptor: i32::from_ne_bytes(fd),
            offset,
            address,
            length: sizes as u32,
            op_flags: (sizes >> 32) as u32,
            user_data,
            group: group as u16,
            file_index: (group >> 32) as u32,
            path,
            file: None,
            duplicate: None,
            is_out_of_bounds: false,
            kept: Kept::Nothing,
        };
        let place = ptr::with_exposed_provenance::<u8>(address as usize);
        match opcode {
            opcode::Timeout::CODE | opcode::LinkTimeout::CODE => {
                // SAFETY: it points to a `struct __kernel_timespec`, two numbers of 64 bits.
                let [seconds, nanoseconds] = unsafe { place.cast::<[i64; 2]>().read_unaligned() };
                let seconds = seconds.max(0).unsigned_abs();
                asked.kept = Kept::Time(Duration::new(seconds, nanoseconds.clamp(0, 999_999_999) as u32));
            }
            // Without pieces, a raw entry may point to nothing.
            _ if asked.is_vector() && asked.length > 0 => {
                // SAFETY: it points to this many pieces.
                asked.kept = Kept::Pieces(unsafe { pieces_at(place.cast(), asked.length as usize) }.into());
            }
            opcode::SendMsg::CODE | opcode::SendMsgZc::CODE | opcode::RecvMsg::CODE => {
                // SAFETY: it points to a message, and that to its parts.
                asked.kept = Kept::Message(Arc::new(unsafe { Message::read(place.cast(), opcode) }));
            }
            // If it is shorter, it is refused.
            opcode::OpenAt2::CODE if asked.length as usize >= size_of::<[u64; 3]>() => {
                let how = ptr::with_exposed_provenance::<[u64; 3]>(offset as usize);
                // SAFETY: it points to a `struct open_how`, three numbers of 64 bits.
                asked.kept = Kept::How(unsafe { how.read_unaligned() });
            }
            opcode::Connect::CODE | opcode::Bind::CODE => {
                let length = offset.min(size_of::<libc::sockaddr_storage>() as u64) as usize;
                // SAFETY: it points to an address of this length.
                asked.kept = Kept::Address(unsafe { std::slice::from_raw_parts(place, length) }.into());
            }
            _ => {}
        }
        asked
    }

    /// The kernel's name of the operation, without its `IORING_OP_`.
    pub fn name(&self) -> &'static str {
        sqe::name(self.opcode)
    }

    /// Whether it may take several of the offered buffers at once.
    pub(super) fn takes_bundles(&self) -> bool {
        let may = self.opcode == opcode::Recv::CODE && self.takes_buffers();
        may && self.ioprio & IORING_RECVSEND_BUNDLE != 0
    }

    /// After how many bytes a stream ends, if it has a limit (`sqe->optlen`).
    pub(super) fn limit(&self) -> Option<NonZeroU32> {
        let may = self.opcode == opcode::Recv::CODE && self.is_multishot();
        NonZeroU32::new(self.file_index).filter(|_| may)
    }

    /// How many bytes of a pool's buffer are for what is said of the received bytes
    /// (`struct io_uring_recvmsg_out`, a name, and control messages).
    pub(super) fn overhead(&self) -> usize {
        match &self.kept {
            Kept::Message(message) if self.takes_buffers() => {
                SAID + message.name_length as usize + message.control_length
            }
            _ => 0,
        }
    }

    /// Whether it announces more completions after the first (`IORING_CQE_F_MORE`).
    pub fn is_multishot(&self) -> bool {
        match self.opcode {
            opcode::PollAdd::CODE => self.length & IORING_POLL_ADD_MULTI != 0,
            opcode::Accept::CODE => self.ioprio & IORING_ACCEPT_MULTISHOT != 0,
            opcode::Recv::CODE | opcode::RecvMsg::CODE => self.ioprio & IORING_RECV_MULTISHOT != 0,
            opcode::Timeout::CODE => self.op_flags & IORING_TIMEOUT_MULTISHOT != 0,
            opcode::ReadMulti::CODE => true,
            _ => false,
        }
    }

    /// Whether its memory is in use until a second completion says so (`IORING_CQE_F_NOTIF`).
    pub fn is_zero_copy(&self) -> bool {
        matches!(self.opcode, opcode::SendZc::CODE | opcode::SendMsgZc::CODE)
    }

    /// Whether the kernel picks a buffer of a pool for it.
    pub fn takes_buffers(&self) -> bool {
        self.flags & IOSQE_BUFFER_SELECT != 0
    }

    /// Whether it uses the byte at this address.
    pub(super) fn uses(&self, address: u64) -> bool {
        let within = |start: u64, length: u64| {
            start != 0 && (start..start.saturating_add(length.max(1))).contains(&address)
        };
        // What a message to be sent consists of was read while it was taken in, as the list of a vector was.
        let is_read = matches!(self.kept, Kept::Pieces(_)) || self.sends_message();
        if let Some((start, length)) = self.written() {
            return within(start, length);
        }
        let in_pieces = self.places().iter().any(|(start, length)| within(*start, *length as u64));
        let in_control = match &self.kept {
            Kept::Message(message) if message.control_length > 0 => {
                within(message.control_at, message.control_length as u64)
            }
            _ => false,
        };
        in_pieces || in_control || !is_read && within(self.address, self.length.into())
    }

    /// Where the kernel writes something that is not bytes, or reads the value of an option; and how long that is.
    fn written(&self) -> Option<(u64, u64)> {
        match self.opcode {
            opcode::SetSockOpt::CODE => Some((self.path, self.file_index.into())),
            opcode::Pipe::CODE => Some((self.address, size_of::<[RawFd; 2]>() as u64)),
            opcode::EpollWait::CODE => {
                let events = u64::from(self.length);
                Some((self.address, events * size_of::<libc::epoll_event>() as u64))
            }
            _ => None,
        }
    }

    /// Whether a result that is no error is a new descriptor.
    pub fn yields_descriptor(&self) -> bool {
        let opens = [
            opcode::Accept::CODE,
            opcode::OpenAt::CODE,
            opcode::OpenAt2::CODE,
            opcode::Socket::CODE,
            opcode::FixedFdInstall::CODE,
        ];
        opens.contains(&self.opcode)
    }

    /// Looks up what it names by an index.
    pub(super) fn look_up(&mut self, files: &Files, memory: &Memory) {
        if self.flags & IOSQE_FIXED_FILE != 0
            && let Some(file) = files.file(self.descriptor)
        {
            self.descriptor = file.as_raw_fd();
            self.file = Some(file);
        }
        let is_fixed = match self.opcode {
            opcode::ReadFixed::CODE
            | opcode::WriteFixed::CODE
            | opcode::ReadvFixed::CODE
            | opcode::WritevFixed::CODE => true,
            _ => self.is_zero_copy() && self.ioprio & IORING_RECVSEND_FIXED_BUF != 0,
        };
        let is_there = |address: u64, length: u64| memory.has(self.group, address, length);
        let is_within = match self.is_vector() || self.sends_message() {
            // The kernel takes no empty ones.
            true => {
                self.places().iter().all(|(start, length)| *length > 0 && is_there(*start, *length as u64))
            }
            false => is_there(self.address, self.length.into()),
        };
        self.is_out_of_bounds = is_fixed && !is_within;
    }

    /// Gives a stream a descriptor of its own, because it stays on its file when its handler has dropped the
    /// one that it names. Returns what is to be kept until the stream has ended.
    pub(super) fn keep_open(&mut self) -> Option<OwnedFd> {
        let has_descriptor = self.opcode != opcode::Timeout::CODE && self.flags & IOSQE_FIXED_FILE == 0;
        // The ring keeps its own as long as it is there.
        if !self.is_multishot() || !has_descriptor || self.is_of_ring() {
            return None;
        }
        let duplicate = descriptors::duplicate(self.descriptor);
        self.duplicate = Some(duplicate.as_ref().map(AsRawFd::as_raw_fd).map_err(|errno| *errno));
        duplicate.ok()
    }

    /// The number of the descriptor to be worked on, if it is on one.
    pub(super) fn number(&self) -> RawFd {
        match self.duplicate {
            Some(Ok(number)) => number,
            _ => self.descriptor,
        }
    }

    /// Whether it is the poll by which other threads wake the ring, or its alarm.
    pub(super) fn is_of_ring(&self) -> bool {
        [Control::Wake as u64, Control::Alarm as u64].contains(&self.user_data)
    }

    /// The result, if it got no descriptor, or names something that is not registered: a file, a place for
    /// one, or memory.
    pub(super) fn misses(&self) -> Option<i32> {
        if let Some(Err(errno)) = self.duplicate {
            return Some(-errno);
        }
        let misses_file = self.flags & IOSQE_FIXED_FILE != 0 && self.file.is_none();
        match misses_file || self.has_file_index() {
            true => Some(self.no_such_file()),
            false => self.is_out_of_bounds.then_some(-libc::EFAULT),
        }
    }

    /// Whether what it opens gets a place in the ring's table that the kernel chooses.
    pub fn is_direct(&self) -> bool {
        const IORING_FILE_INDEX_ALLOC: u32 = u32::MAX;
        let opens = self.yields_descriptor() && self.opcode != opcode::FixedFdInstall::CODE;
        opens && self.file_index == IORING_FILE_INDEX_ALLOC
    }

    /// Whether it can't be answered with a descriptor of this process.
    pub(super) fn uses_file_table(&self) -> bool {
        // A listener may be a registered file, and what is installed is one.
        let may_be_fixed = [opcode::Accept::CODE, opcode::FixedFdInstall::CODE].contains(&self.opcode);
        self.flags & IOSQE_FIXED_FILE != 0 && !may_be_fixed || self.has_file_index()
    }

    /// Whether it names a place in the ring's table for something that is opened or closed.
    fn has_file_index(&self) -> bool {
        let may = self.yields_descriptor() || self.opcode == opcode::Close::CODE;
        may && self.file_index != 0 && !self.is_direct()
    }

    fn no_such_file(&self) -> i32 {
        if self.has_file_index() { -libc::ENXIO } else { -libc::EBADF }
    }

    fn reads_once(&self) -> bool {
        matches!(self.opcode, opcode::Read::CODE | opcode::ReadFixed::CODE)
    }

    fn writes(&self) -> bool {
        matches!(self.opcode, opcode::Write::CODE | opcode::WriteFixed::CODE)
    }

    fn is_vector(&self) -> bool {
        self.reads_vector() || self.writes_vector()
    }

    fn reads_vector(&self) -> bool {
        matches!(self.opcode, opcode::Readv::CODE | opcode::ReadvFixed::CODE)
    }

    fn writes_vector(&self) -> bool {
        matches!(self.opcode, opcode::Writev::CODE | opcode::WritevFixed::CODE)
    }

    /// Whether the bytes that it moves come from the kernel.
    pub(super) fn reads_bytes(&self) -> bool {
        let receives = [opcode::Recv::CODE, opcode::RecvMsg::CODE, opcode::ReadMulti::CODE];
        receives.contains(&self.opcode) || self.reads_once()
    }

    /// Whether its address is that of a message rather than of bytes.
    pub(super) fn is_of_messages(&self) -> bool {
        self.opcode == opcode::RecvMsg::CODE || self.sends_message()
    }

    fn sends_message(&self) -> bool {
        sends_message(self.opcode)
    }

    /// Whether it sends, and a peer that takes no more would make it wait.
    fn sends(&self) -> bool {
        matches!(self.opcode, opcode::Send::CODE | opcode::SendZc::CODE) || self.sends_message()
    }

    /// How many bytes it reads at most, as far as that is known before a buffer is picked.
    pub(super) fn room(&self) -> usize {
        if self.takes_buffers() { i32::MAX as usize } else { self.whole().min(i32::MAX as u32) as usize }
    }

    /// How many bytes it is about.
    pub(super) fn whole(&self) -> u32 {
        match &self.kept {
            Kept::Pieces(_) | Kept::Message(_) => {
                let lengths = self.places().iter().map(|(_, length)| u32::try_from(*length));
                lengths.fold(0, |sum, length| sum.saturating_add(length.unwrap_or(u32::MAX)))
            }
            _ => self.length,
        }
    }

    /// How many of the bytes that it reads must have been written for this result to be true, if it reads
    /// any.
    ///
    /// # Panics
    ///
    /// If the result can't be made true.
    pub(super) fn check(&self, result: i32) -> Option<usize> {
        if result < 0 {
            let is_closed = self.opcode == opcode::Close::CODE && result == -libc::EBADF;
            assert!(!is_closed, "{self:?} has a descriptor to close: `EBADF` is no answer to that");
            return None;
        }
        assert!(
            !self.yields_descriptor(),
            "the result of {self:?} is a descriptor: it is given by `Answer::Descriptor`"
        );
        assert!(!self.fills_memory(), "the simulation can't say what {self:?} leaves in memory");
        let length = result.unsigned_abs() as usize;
        assert!(!self.moves_bytes() || length <= self.room(), "{self:?} can't move {result} bytes");
        self.reads_bytes().then_some(length)
    }

    /// Whether this result says that it has closed its descriptor. So do nearly all errors.
    pub(super) fn says_closed(&self, result: i32) -> bool {
        self.opcode == opcode::Close::CODE && !self.uses_file_table() && result != -libc::ECANCELED
    }

    /// Whether the kernel would leave something in memory that only raw entries ask for.
    fn fills_memory(&self) -> bool {
        let known = [
            opcode::Nop::CODE,
            opcode::Fsync::CODE,
            opcode::SyncFileRange::CODE,
            opcode::PollAdd::CODE,
            opcode::PollRemove::CODE,
            opcode::SendMsg::CODE,
            opcode::Timeout::CODE,
            opcode::TimeoutRemove::CODE,
            opcode::Connect::CODE,
            opcode::Fallocate::CODE,
            opcode::Close::CODE,
            opcode::Write::CODE,
            opcode::Writev::CODE,
            opcode::WriteFixed::CODE,
            opcode::WritevFixed::CODE,
            opcode::Fadvise::CODE,
            opcode::Splice::CODE,
            opcode::Tee::CODE,
            opcode::Send::CODE,
            opcode::SendZc::CODE,
            opcode::SendMsgZc::CODE,
            opcode::Shutdown::CODE,
            opcode::RenameAt::CODE,
            opcode::UnlinkAt::CODE,
            opcode::MkDirAt::CODE,
            opcode::SymlinkAt::CODE,
            opcode::LinkAt::CODE,
            opcode::MsgRingData::CODE,
            opcode::SetXattr::CODE,
            opcode::FSetXattr::CODE,
            opcode::FutexWait::CODE,
            opcode::FutexWake::CODE,
            opcode::FutexWaitV::CODE,
            opcode::Ftruncate::CODE,
            opcode::Bind::CODE,
            opcode::Listen::CODE,
        ];
        if self.opcode == opcode::SetSockOpt::CODE {
            return self.command() == SOCKET_URING_OP_GETSOCKOPT;
        }
        !self.reads_bytes() && !known.contains(&self.opcode)
    }

    /// The descriptor that it waits for, and the events that it waits for (`poll(2)`).
    pub(super) fn waits_for(&self) -> Option<(RawFd, i16)> {
        let events = match self.opcode {
            opcode::Accept::CODE => libc::POLLIN,
            opcode::Connect::CODE => libc::POLLOUT,
            _ if self.sends() => libc::POLLOUT,
            _ if self.reads_vector() => libc::POLLIN,
            _ if self.writes_vector() => libc::POLLOUT,
            _ if self.reads_bytes() => libc::POLLIN,
            _ if self.writes() => libc::POLLOUT,
            opcode::PollAdd::CODE => self.poll_events(),
            opcode::Tee::CODE => return Some((self.file_index as RawFd, libc::POLLIN)),
            opcode::EpollWait::CODE => libc::POLLIN,
            // The descriptor of a process is readable when the process has ended.
            opcode::WaitId::CODE if self.length == libc::P_PIDFD => libc::POLLIN,
            _ => return None,
        };
        Some((self.number(), events))
    }

    /// Whether it is left to a worker (`IOSQE_ASYNC`).
    pub(super) fn is_for_a_worker(&self) -> bool {
        self.flags & IOSQE_ASYNC != 0
    }

    /// Whether there is no completion if it succeeds (`IOSQE_CQE_SKIP_SUCCESS`).
    pub(super) fn skips_success(&self) -> bool {
        self.flags & IOSQE_CQE_SKIP_SUCCESS != 0
    }

    /// The `errno` with which the kernel refuses to take it in, if it does, after the member `before` of its
    /// chain.
    pub(super) fn refusal(&self, before: Option<&Asked>) -> Option<i32> {
        // The simulation knows nothing of what comes after this opcode.
        let unknown = self.opcode > opcode::Pipe::CODE;
        let belongs_to_nothing =
            self.is_link_timeout() && before.is_none_or(|before| before.is_link_timeout());
        let receives = matches!(self.opcode, opcode::Recv::CODE | opcode::RecvMsg::CODE);
        let limits_nothing = receives && self.file_index != 0 && self.limit().is_none();
        let has_too_many = self.is_vector() && self.length > libc::UIO_MAXIOV as u32;
        let is_unclear = limits_nothing || has_too_many || self.flags & 1 << 7 != 0;
        if let Kept::Message(message) = &self.kept
            && message.pieces.len() > libc::UIO_MAXIOV as usize
        {
            return Some(libc::EMSGSIZE);
        }
        (unknown || belongs_to_nothing || is_unclear).then_some(libc::EINVAL)
    }

    /// Whether it is the timeout of the member of its chain that comes before it.
    pub(super) fn is_link_timeout(&self) -> bool {
        self.opcode == opcode::LinkTimeout::CODE
    }

    /// Whether it waits for all that came before it, and all that comes later waits for it
    /// (`IOSQE_IO_DRAIN`).
    pub(super) fn drains(&self) -> bool {
        self.flags & IOSQE_IO_DRAIN != 0
    }

    pub(super) fn is_cancel(&self) -> bool {
        self.opcode == opcode::AsyncCancel::CODE
    }

    /// `IORING_FSYNC_DATASYNC`.
    pub(super) fn syncs_data_only(&self) -> bool {
        self.op_flags & 1 != 0
    }

    /// What a poll is for.
    pub(super) fn poll_events(&self) -> i16 {
        self.op_flags as i16
    }

    fn reads_or_writes(&self) -> bool {
        self.reads_once() || self.writes() || self.is_vector()
    }

    /// When it may end though nobody has cancelled it.
    pub(super) fn may_end(&self) -> MayEnd {
        if self.is_of_ring() {
            return MayEnd::Never;
        }
        if self.reads_or_writes() {
            return if descriptors::is_connection(self.number()) { MayEnd::Anytime } else { MayEnd::Never };
        }
        match self.works_on_files() || self.opcode == opcode::Timeout::CODE {
            true => MayEnd::BeforeItBegins,
            false => MayEnd::Anytime,
        }
    }

    /// Whether it waits for something, and a signal can end that.
    pub(super) fn is_interruptible(&self) -> bool {
        let waits = self.waits_for().is_some() || self.is_of_child();
        waits && ![opcode::PollAdd::CODE, opcode::EpollWait::CODE].contains(&self.opcode)
    }

    /// Whether it goes on once it has begun, even if somebody cancels it: work on files.
    pub(super) fn works_on_files(&self) -> bool {
        let others = [
            opcode::Fsync::CODE,
            opcode::SyncFileRange::CODE,
            opcode::Fallocate::CODE,
            opcode::Ftruncate::CODE,
            opcode::Fadvise::CODE,
            opcode::FGetXattr::CODE,
            opcode::FSetXattr::CODE,
        ];
        let is_of_path = self.is_on_names() || self.is_on_attribute_of_path();
        self.reads_or_writes() || is_of_path || others.contains(&self.opcode)
    }

    /// Whether it is on names in directories, one of which may be `AT_FDCWD`.
    pub(super) fn is_on_names(&self) -> bool {
        let those = [
            opcode::OpenAt::CODE,
            opcode::OpenAt2::CODE,
            opcode::Statx::CODE,
            opcode::UnlinkAt::CODE,
            opcode::RenameAt::CODE,
            opcode::MkDirAt::CODE,
            opcode::LinkAt::CODE,
            opcode::SymlinkAt::CODE,
        ];
        those.contains(&self.opcode)
    }

    /// Whether it is on an attribute of a file that is named only by its path.
    pub(super) fn is_on_attribute_of_path(&self) -> bool {
        matches!(self.opcode, opcode::GetXattr::CODE | opcode::SetXattr::CODE)
    }

    /// Whether it waits for a child.
    fn is_of_child(&self) -> bool {
        self.opcode == opcode::WaitId::CODE
    }

    /// Whether what cancels it reports that it was one.
    pub(super) fn is_counted(&self) -> bool {
        self.is_of_child() || self.opcode == opcode::FutexWait::CODE
    }

    /// Of those who wait for a word, and of those who wake them: which word that is, and of what kind; `None` if
    /// the kernel knows none of this kind.
    pub(super) fn word(&self) -> Option<(u64, bool)> {
        const FUTEX2_SIZE_U32: RawFd = 2;
        const FUTEX2_PRIVATE: RawFd = 1 << 7;
        let is_private = self.descriptor & FUTEX2_PRIVATE != 0;
        let is_valid = self.descriptor & !FUTEX2_PRIVATE == FUTEX2_SIZE_U32 && self.reasons() != 0;
        (is_valid && self.address.is_multiple_of(4)).then_some((self.address, is_private))
    }

    /// What is waited for, or woken for (`FUTEX_BITSET_MATCH_ANY`, and others).
    pub(super) fn reasons(&self) -> u32 {
        self.path as u32
    }

    /// How many are to be woken.
    pub(super) fn to_wake(&self) -> usize {
        // A negative number is as good as 1.
        let count = self.offset as i32;
        if count < 0 { 1 } else { count as usize }
    }

    /// What a socket is asked for (`SOCKET_URING_OP_*`).
    pub(super) fn command(&self) -> u32 {
        self.offset as u32
    }

    /// The level and the name of an option, where its value is, and how long that is.
    pub(super) fn option(&self) -> (i32, i32, *mut libc::c_void, libc::socklen_t) {
        let value = ptr::with_exposed_provenance_mut(self.path as usize);
        (self.address as i32, (self.address >> 32) as i32, value, self.file_index)
    }

    /// The path of the file whose attribute is meant.
    pub(super) fn path(&self) -> *const libc::c_char {
        ptr::with_exposed_provenance(self.path as usize)
    }

    /// The other descriptor, for entries that have two; or options.
    pub(super) fn other(&self) -> i32 {
        self.file_index as i32
    }

    /// Whether it moves bytes over a connection, or messages.
    pub(super) fn is_transfer(&self) -> bool {
        self.opcode == opcode::Recv::CODE || self.sends() || self.is_of_messages()
    }

    /// Flags of a transfer, of an accept or of an open.
    pub(super) fn op_flags(&self) -> u32 {
        self.op_flags
    }

    /// Whether a result that is positive is a number of bytes out of `length`.
    pub(super) fn moves_bytes(&self) -> bool {
        self.reads_bytes() || self.writes() || self.sends()
    }

    /// Whether less than all breaks the chain that it is a part of: reads and writes, and transfers that
    /// are to be whole.
    pub(super) fn must_be_whole(&self) -> bool {
        self.waits_for_all() || self.reads_or_writes()
    }

    /// `MSG_WAITALL`.
    pub(super) fn waits_for_all(&self) -> bool {
        let may = self.opcode == opcode::Recv::CODE || self.sends();
        may && self.op_flags & libc::MSG_WAITALL as u32 != 0
    }

    /// `IORING_ASYNC_CANCEL_*`, of a cancel.
    pub(super) fn cancel_flags(&self) -> u32 {
        self.op_flags
    }

    pub(super) fn is_linked(&self) -> bool {
        self.flags & (IOSQE_IO_LINK | IOSQE_IO_HARDLINK) != 0
    }

    pub(super) fn is_hard_linked(&self) -> bool {
        self.flags & IOSQE_IO_HARDLINK != 0
    }

    /// When a timer that is set at `now` is due; the clock was at 0 when `epoch` had passed since 1970.
    pub(super) fn due(&self, now: Duration, epoch: Duration) -> Duration {
        let Kept::Time(time) = self.kept else { return now };
        match (self.op_flags & IORING_TIMEOUT_ABS != 0, self.op_flags & IORING_TIMEOUT_REALTIME != 0) {
            (false, _) => now.saturating_add(time),
            (true, false) => time,
            (true, true) => time.saturating_sub(epoch),
        }
    }

    /// How much time there is between two ticks of a timer that goes on.
    pub(super) fn interval(&self) -> Duration {
        match self.kept {
            Kept::Time(time) => time.max(Duration::from_nanos(1)),
            _ => Duration::MAX,
        }
    }

    /// The pieces of a vector or a message.
    pub(super) fn pieces(&self) -> Vec<libc::iovec> {
        let piece = |(address, iov_len): &(u64, usize)| libc::iovec {
            iov_base: ptr::with_exposed_provenance_mut(*address as usize),
            iov_len: *iov_len,
        };
        self.places().iter().map(piece).collect()
    }

    /// Where its pieces begin, and how long they are.
    fn places(&self) -> &[(u64, usize)] {
        match &self.kept {
            Kept::Pieces(pieces) => pieces,
            Kept::Message(message) => &message.pieces,
            _ => &[],
        }
    }

    /// The address to connect to, or to be bound to (`struct sockaddr`).
    pub(super) fn peer(&self) -> &[u8] {
        match &self.kept {
            Kept::Address(address) => address,
            _ => &[],
        }
    }

    /// How `openat2` is to open a file, if that was said.
    pub(super) fn how(&self) -> Option<[u64; 3]> {
        match self.kept {
            Kept::How(how) => Some(how),
            _ => None,
        }
    }

    /// The pieces of a message, as places to be filled.
    pub(super) fn works(&self) -> impl Iterator<Item = Work> {
        let pieces = self.pieces().into_iter();
        pieces.map(|piece| Work {
            address: piece.iov_base.expose_provenance() as u64,
            length: piece.iov_len as u32,
        })
    }

    /// The message that it is about, with these pieces. If it takes a buffer, with the places in that buffer
    /// for a name and for control messages.
    pub(super) fn header(&self, pieces: &mut [libc::iovec], buffer: Option<u64>) -> libc::msghdr {
        // SAFETY: all zeroes is a `struct msghdr`.
        let mut header: libc::msghdr = unsafe { mem::zeroed() };
        let Kept::Message(message) = &self.kept else { return header };
        let name = match self.sends_message() {
            true => message.name.as_ptr().expose_provenance() as u64,
            false => buffer.map_or(message.name_at, |buffer| buffer + SAID as u64),
        };
        let control =
            buffer.map_or(message.control_at, |_| name.wrapping_add(u64::from(message.name_length)));
        let at = |place: u64| ptr::with_exposed_provenance_mut::<libc::c_void>(place as usize);
        if message.name_length > 0 {
            (header.msg_name, header.msg_namelen) = (at(name), message.name_length);
        }
        if message.control_length > 0 {
            (header.msg_control, header.msg_controllen) = (at(control), message.control_length as _);
        }
        (header.msg_iov, header.msg_iovlen) = (pieces.as_mut_ptr(), pieces.len() as _);
        header
    }

    /// Whether the end of its time counts as a success for those that are linked to it.
    pub(super) fn etime_is_success(&self) -> bool {
        self.op_flags & IORING_TIMEOUT_ETIME_SUCCESS != 0
    }
}

/// How many bytes a `struct io_uring_recvmsg_out` has.
pub(super) const SAID: usize = 16;

fn sends_message(opcode: u8) -> bool {
    matches!(opcode, opcode::SendMsg::CODE | opcode::SendMsgZc::CODE)
}

impl Message {
    /// # Safety
    ///
    /// At `place` there is a `struct msghdr` of an entry with this opcode, and what that points to is there.
    unsafe fn read(place: *const libc::msghdr, opcode: u8) -> Message {
        // SAFETY: the caller promises that it is there.
        let header = unsafe { place.read_unaligned() };
        // For a multishot one, the pieces are buffers of a pool.
        let count = if header.msg_iov.is_null() { 0 } else { header.msg_iovlen };
        // SAFETY: the caller promises that what the message points to is there.
        let pieces = unsafe { pieces_at(header.msg_iov, count) };
        let name_length = if sends_message(opcode) && header.msg_name.is_null() {
            0
        } else {
            header.msg_namelen.min(size_of::<libc::sockaddr_storage>() as u32)
        };
        let name = match sends_message(opcode) && name_length > 0 {
            // SAFETY: the caller promises that what the message points to is there.
            true => unsafe {
                std::slice::from_raw_parts(header.msg_name.cast::<u8>(), name_length as usize).into()
            },
            false => Box::default(),
        };
        Message {
            name,
            name_at: header.msg_name.expose_provenance() as u64,
            name_length,
            control_at: header.msg_control.expose_provenance() as u64,
            control_length: header.msg_controllen,
            pieces,
        }
    }
}

/// Where each of these pieces begins, and how long it is.
///
/// # Safety
///
/// There are `count` of them.
unsafe fn pieces_at(place: *const libc::iovec, count: usize) -> Box<[(u64, usize)]> {
    if count == 0 {
        return Box::default();
    }
    // SAFETY: the caller promises that there are this many.
    let pieces = unsafe { std::slice::from_raw_parts(place, count) };
    let piece = |piece: &libc::iovec| (piece.iov_base.expose_provenance() as u64, piece.iov_len);
    pieces.iter().map(piece).collect()
}

impl fmt::Debug for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Asked { descriptor, length, user_data, .. } = self;
        write!(f, "{}(fd {descriptor}, {length} bytes, user_data {user_data:#x})", self.name())
    }
}
