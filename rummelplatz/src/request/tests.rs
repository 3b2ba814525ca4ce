//! What each constructor asks for.

use std::fs::File;
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::num::NonZeroU32;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant, SystemTime};

use io_uring::opcode;
use io_uring::types::{DestinationSlot, Fd, Fixed, TimeoutFlags};

use super::entry::length;
use super::sqe::Usual;
use super::*;
use crate::buffers::BufferPool;
use crate::clock::Stamp;
use crate::facts::Facts;
use crate::fixed::{FixedBuffers, FixedFile, FixedSlice};

/// The ring that asks.
const RING: u64 = 7;
const TERMS: Terms = Terms { ring: RING, flags: Flags::EMPTY, born: Stamp::ZERO };

/// What the kernel is asked for: opcode, priority (where multishot flags are), offset, address, length and
/// flags of the operation.
type Asked = (u8, u16, u64, u64, u32, u32);

/// What becomes of a request in the ring.
fn placed(parts: Parts<'_>) -> (Facts, Usual, Besides) {
    let (facts, Prepared { entry, besides }, _) = parts.place(TERMS);
    (facts, entry, besides)
}

/// What an entry asks for; on which descriptor, and what it yields.
fn parts(parts: Parts<'_>) -> (Asked, i32, Yields) {
    let (facts, entry, Besides::Nothing) = placed(parts) else { panic!("nothing is kept for it") };
    let Usual { opcode, descriptor, offset, address, length, op_flags } = entry;
    assert_eq!(opcode >> 8 & 0xFF, 0, "no flags");
    let asked = (opcode as u8, (opcode >> 16) as u16, offset, address, length, op_flags);
    (asked, descriptor, facts.yields)
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
    for whole in [0, libc::MSG_WAITALL as u32] {
        fn asked(request: Request<'_>, whole: bool) -> Request<'_> {
            if whole { request.all_or_nothing() } else { request }
        }
        for (request, code) in [(send(&file, &buffer), opcode::Send::CODE), (send_zc(&file, &buffer), code)] {
            let (asked, ..) = parts(asked(request, whole != 0).parts);
            assert_eq!(asked, (code, 0, 0, at, 8, no_signal | whole));
        }
        let buffers = FixedBuffers::new(1, 8).unwrap();
        let buffer = buffers.take().unwrap();
        let request = asked(send_zc_fixed(&file, &buffer), whole != 0);
        let (_, entry, Besides::Index(_)) = placed(request.parts) else { panic!("it has an index") };
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
        match placed(request.parts) {
            (_, usual, Besides::Nothing) => (usual, 0),
            (_, usual, Besides::Index(index)) => (usual, index),
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

    assert!(buffers.shared.place.take(RING, 0) && file.place.at.take(RING, 5));
    assert_eq!(named(read_fixed_at(&null, &mut buffer, 3)), (read, 0, number, 3, at, 64, 0));
    assert_eq!(named(read_fixed(&file, buffer.part_mut(8..))), (read, 1, 5, u64::MAX, at + 8, 56, 0));
    assert_eq!(named(read_at(&file, &mut buffer, 3)), (opcode::Read::CODE, 1, 5, 3, at, 64, 0));
    assert_eq!(named(super::write(&file, &buffer)), (opcode::Write::CODE, 1, 5, u64::MAX, at, 64, 0));
    assert_eq!(named(fsync(&file)), (opcode::Fsync::CODE, 1, 5, 0, 0, 0, 0));
    let sent = Usual { op_flags: 0, ..usual(send_zc_fixed(&null, buffer.part(4..))).0 };
    let opcode = u32::from(opcode::SendZc::CODE) | 4 << 16;
    let expected = Usual { opcode, descriptor: number, offset: 0, address: at + 4, length: 60, op_flags: 0 };
    assert_eq!(sent, expected);

    buffers.shared.place.leave();
    assert!(buffers.shared.place.take(RING, 300));
    assert_eq!(named(write_fixed(&file, &buffer)), (write, 1, 5, u64::MAX, at, 64, 300));
    let elsewhere = (FixedFile::new(), FixedBuffers::new(1, 8).unwrap());
    assert!(elsewhere.0.place.at.take(RING + 1, 5) && elsewhere.1.shared.place.take(RING + 1, 0));
    let other = elsewhere.1.take().unwrap();
    let at = other.as_ptr().addr() as u64;
    assert_eq!(named(write_fixed_at(&elsewhere.0, &other, 3)), (write, 0, -1, 3, at, 8, nothing));
}

#[test]
fn what_is_registered_is_asked_for_the_same_as_what_is_not() {
    let (file, registered, pool) = (null(), FixedFile::new(), BufferPool::new(1, 64).unwrap());
    assert!(registered.place.at.take(RING, 5));
    let buffers = FixedBuffers::new(1, 8).unwrap();
    let (mut fixed, mut peer) = (buffers.take().unwrap(), Peer::new());
    let (mut received, mut sent) = (RecvControl::new(), SendControl::new());
    let (mut bytes, mut uninit) = ([0; 8], [MaybeUninit::uninit(); 8]);
    let (option, mut number, mut events) = (SocketOption::nodelay(true), 0, [EpollEvent::new(); 2]);
    let address: std::net::SocketAddr = ([127, 0, 0, 1], 7).into();
    fn entry_of(parts: Parts<'_>) -> Usual {
        let (_, entry, besides) = placed(parts);
        assert!(!matches!(besides, Besides::Whole(_)), "it is a usual one");
        entry
    }
    macro_rules! same {
        ($($target:ident => $request:expr),* $(,)?) => {$(
            let $target = &file;
            let expected = entry_of($request.parts);
            assert_eq!(expected.descriptor, file.as_raw_fd());
            let $target = &registered;
            let opcode = expected.opcode | sqe::FIXED_FILE;
            assert_eq!(entry_of($request.parts), Usual { opcode, descriptor: 5, ..expected });
        )*};
    }
    same! {
        it => accept(it),
        it => accept_from(it, &mut peer),
        it => accept_multi(it),
        it => bind(it, address),
        it => listen(it, 3),
        it => connect(it, address),
        it => recv(it, &mut bytes),
        it => recv(it, &mut bytes).whole(),
        it => recv_uninit(it, &mut uninit),
        it => recv_provided(it, &pool),
        it => recv_multi(it, &pool),
        it => recv_multi_bundle(it, &pool),
        it => recv_from_multi(it, &pool),
        it => recv_from(it, &mut bytes, &mut peer),
        it => recv_message_multi(it, &pool),
        it => recv_message(it, &mut bytes, &mut received),
        it => send_message(it, bytes.chunks(3), sent.start().segment_size(3)),
        it => send_message_zc(it, bytes.chunks(3), sent.start()),
        it => send(it, &bytes),
        it => send_vectored(it, bytes.chunks(3)),
        it => send_vectored(it, bytes.chunks(3)).whole(),
        it => send_to(it, &bytes, address),
        it => send_zc(it, &bytes),
        it => send_zc_fixed(it, &fixed),
        it => send_vectored_zc(it, bytes.chunks(3)),
        it => send_vectored_zc(it, bytes.chunks(3)).whole(),
        it => send_to_zc(it, &bytes, address),
        it => shutdown(it, Shutdown::Write),
        it => poll(it, Events::READABLE),
        it => poll_multi(it, Events::READABLE),
        it => read_multi(it, &pool),
        it => read_provided(it, &pool),
        it => readv(it, [&mut bytes[..]]),
        it => writev(it, [&bytes[..]]),
        it => read_vectored_fixed_at(it, [&mut fixed], 3),
        it => write_vectored_fixed(it, [&fixed]),
        it => fallocate(it, Allocate::Extend, 1, 2),
        it => ftruncate(it, 3),
        it => fadvise(it, Advice::Normal, 1, 2),
        it => set_option(it, &option),
        it => get_option(it, SocketQuery::Error, &mut number),
        it => bytes_to_receive(it),
        it => bytes_to_acknowledge(it),
        it => epoll_wait(it, &mut events),
    }
    let whole = libc::MSG_WAITALL as u32;
    let flags = |request: Request<'_>| entry_of(request.parts).op_flags & whole;
    assert_eq!(flags(send_vectored(&registered, [&bytes[..]]).whole()), whole);
    assert_eq!(flags(send_to(&registered, &bytes, address)), 0);
    assert_eq!(flags(recv_provided(&registered, &pool).whole()), 0, "the buffer is not known");
}

#[test]
fn what_is_said_of_how_is_said_of_those_whom_it_concerns() {
    let (file, registered, pool) = (null(), FixedFile::new(), BufferPool::new(1, 64).unwrap());
    let buffers = FixedBuffers::new(1, 8).unwrap();
    let (mut fixed, mut bytes, mut peer) = (buffers.take().unwrap(), [0; 8], Peer::new());
    let address: std::net::SocketAddr = ([127, 0, 0, 1], 7).into();
    let how = |request: Request<'_>| {
        let request = request.rw_flags(RwFlags::SYNC).rw_flags(RwFlags::APPEND).poll_first().in_worker();
        let (facts, it, _) = placed(request.parts);
        assert!(facts.flags.intersects(Flags::IN_WORKER));
        (it.op_flags & 0x14, it.opcode >> 16 & 5, it.opcode >> 8 & 0x10)
    };
    let (reads_or_writes, transfers, accepts) = ((0x14, 0, 0x10), (0, 1, 0x10), (0, 4, 0x10));
    for request in [read(&file, &mut [0]), super::write(&file, b"x"), read_provided(&registered, &pool)] {
        assert_eq!(how(request), reads_or_writes);
    }
    assert_eq!(how(readv(&registered, [&mut bytes])), reads_or_writes);
    assert_eq!(how(writev(&file, [&bytes])), reads_or_writes);
    assert_eq!(how(read_fixed(&registered, &mut fixed)), reads_or_writes);
    assert_eq!(how(write_fixed(&file, &fixed)), reads_or_writes);
    assert_eq!(how(read_vectored_fixed(&registered, [&mut fixed])), reads_or_writes);
    assert_eq!(how(write_vectored_fixed(&file, [&fixed])), reads_or_writes);
    assert_eq!(how(recv(&file, &mut bytes)), transfers);
    assert_eq!(how(recv_provided(&registered, &pool)), transfers);
    assert_eq!(how(recv_from(&file, &mut bytes, &mut peer)), transfers);
    let mut received = RecvControl::new();
    let (_, flags, priority) = how(recv_message(&file, &mut bytes, &mut received));
    assert_eq!((0, flags, priority), transfers, "besides MSG_CMSG_CLOEXEC");
    assert_eq!(how(send(&registered, &bytes)), transfers);
    assert_eq!(how(send_vectored(&registered, [&bytes[..]])), transfers);
    assert_eq!(how(send_to(&file, &bytes, address)), transfers);
    assert_eq!(how(send_zc(&file, &bytes)), transfers);
    assert_eq!(how(send_vectored_zc(&registered, [&bytes[..]])), transfers);
    assert_eq!(how(send_to_zc(&file, &bytes, address)), transfers);
    // Registered memory is named in the same place.
    assert_eq!(how(send_zc_fixed(&file, &fixed)), (0, 5, 0x10));
    assert_eq!(how(accept(&file)), accepts);
    assert_eq!(how(accept_from(&registered, &mut peer)), accepts);
    for request in [
        nop(),
        fsync(&file),
        connect(&file, address),
        timeout(Duration::ZERO),
        shutdown(&file, Shutdown::Both),
    ] {
        assert_eq!(how(request), (0, 0, 0x10));
    }
    let raw = splice(&file, None, &file, None, 1).in_worker().parts;
    let (_, _, Besides::Whole(entry)) = placed(raw) else { panic!("its fields are its own") };
    assert_eq!(sqe::flags(&entry), squeue::Flags::ASYNC);
}

#[test]
fn a_deadline_is_kept_by_the_ring_and_in_a_chain_by_the_kernel() {
    let file = null();
    for (flags, is_timed) in [(Flags::EMPTY, false), (Flags::DETACHED, false), (Flags::IN_CHAIN, true)] {
        let mut bytes = [0];
        let request = read(&file, &mut bytes).deadline(Duration::from_secs(3));
        let (facts, _, deadline) = request.parts.place(Terms { flags, ..TERMS });
        assert_eq!(deadline, Some(Duration::from_secs(3)));
        assert_eq!(facts.flags.intersects(Flags::TIMED), is_timed);
        assert_eq!(facts.brief().is_some(), flags == Flags::EMPTY, "plain, as if it had none");
    }
}

#[test]
fn ranges_are_written_back_as_is_said() {
    let file = null();
    let all = SyncRange::WAIT_BEFORE | SyncRange::WRITE | SyncRange::WAIT_AFTER;
    let number = file.as_raw_fd();
    asks(sync_file_range(&file, 7, 9, all), (opcode::SyncFileRange::CODE, 0, 7, 0, 9, 7), number);
}

#[test]
fn what_has_no_memory_says_all_the_same() {
    let file = null();
    let number = file.as_raw_fd();
    asks(nop(), (opcode::Nop::CODE, 0, 0, 0, 0, 0), -1);
    for (how, what) in
        [(Shutdown::Read, libc::SHUT_RD), (Shutdown::Write, libc::SHUT_WR), (Shutdown::Both, libc::SHUT_RDWR)]
    {
        asks(shutdown(&file, how), (opcode::Shutdown::CODE, 0, 0, 0, what as u32, 0), number);
    }
    const IORING_FSYNC_DATASYNC: u32 = 1;
    asks(fsync(&file), (opcode::Fsync::CODE, 0, 0, 0, 0, 0), number);
    asks(fdatasync(&file), (opcode::Fsync::CODE, 0, 0, 0, 0, IORING_FSYNC_DATASYNC), number);
    let file: OwnedFd = file.into();
    let (facts, entry, Besides::Nothing) = placed(close(file).parts) else {
        panic!("nothing is kept for it")
    };
    assert_eq!(entry, entry::bare(opcode::Close::CODE.into(), number));
    assert_eq!(facts.owned_descriptor(), Some(number));
    // SAFETY: the slot that would own it now does not exist, and nobody else has the descriptor.
    drop(unsafe { OwnedFd::from_raw_fd(number) });
}

/// What is queued for this entry, in a ring where a pool was given this group.
fn queued(usual: Usual, group: u16) -> [u8; 64] {
    let mut place = opcode::Nop::new().build();
    let at = NonNull::from(&mut place);
    // SAFETY: the place is this function's own.
    unsafe { sqe::clear_rest(at) };
    // SAFETY: the place is this function's own.
    unsafe { usual.write(at, 8) };
    // SAFETY: the place is this function's own.
    unsafe { sqe::write_index(at, group) };
    sqe::bytes(&place)
}

#[test]
#[cfg_attr(miri, ignore = "the crate copies unions, whose rest is nothing to Miri")]
fn streams_out_of_pools_ask_for_what_the_crate_would() {
    let file = null();
    let number = Fd(file.as_raw_fd());
    let pool = BufferPool::new(1, 64).unwrap();
    let asks = |stream: Stream<'_>, entry: squeue::Entry, yields: Yields, flags: Flags| {
        let (facts, usual, Besides::Pool { .. }) = placed(stream.parts) else { panic!("it takes buffers") };
        assert_eq!(queued(usual, 3), sqe::bytes(&entry.user_data(8)));
        assert_eq!((facts.yields, facts.flags), (yields, flags));
    };
    let involved = Flags::STREAM | Flags::INVOLVED;
    let one = opcode::RecvMulti::new(number, 3).build();
    asks(recv_multi(&file, &pool), one, Yields::Buffer, Flags::STREAM);
    let bundle = opcode::RecvMultiBundle::new(number, 3).build();
    asks(recv_multi_bundle(&file, &pool), bundle, Yields::Bundle, involved);
    let header = (&raw const datagram::ASKED).cast();
    let datagrams = opcode::RecvMsgMulti::new(number, header, 3).build();
    asks(recv_from_multi(&file, &pool), datagrams, Yields::Datagram, involved);
    // SAFETY: a header is laid out like a `msghdr`, as is asserted where it is defined.
    let libc::msghdr { msg_namelen, msg_controllen, .. } = unsafe { header.read() };
    assert_eq!((msg_namelen, msg_controllen), (Datagram::OVERHEAD - 16, 0));

    let header = (&raw const datagram::ASKED_WITH_CONTROL).cast();
    let flags = libc::MSG_CMSG_CLOEXEC as u32;
    let datagrams = opcode::RecvMsgMulti::new(number, header, 3).flags(flags).build();
    asks(recv_message_multi(&file, &pool), datagrams, Yields::Message, involved);
    // SAFETY: this header is laid out so, too.
    let libc::msghdr { msg_namelen, msg_controllen, .. } = unsafe { header.read() };
    assert_eq!(msg_namelen + msg_controllen as u32, Datagram::OVERHEAD_WITH_CONTROL - 16);
}

#[test]
#[cfg_attr(miri, ignore = "the crate copies unions, whose rest is nothing to Miri")]
fn what_is_opened_in_the_rings_table_is_asked_for_as_the_crate_would() {
    let (file, registered, mut peer) = (null(), FixedFile::new(), Peer::new());
    assert!(registered.place.at.take(RING, 5));
    let (number, fixed, auto) = (Fd(file.as_raw_fd()), Fixed(5), Some(DestinationSlot::auto_target()));
    let asks = |parts: Parts<'_>, entry: squeue::Entry| {
        let (facts, asked, Besides::Aside(Aside::Direct)) = placed(parts) else { panic!("it says so") };
        assert_eq!(sqe::bytes(&asked.direct()), sqe::bytes(&entry));
        assert!(facts.yields == Yields::Direct && facts.flags.intersects(Flags::INVOLVED));
    };
    let accept = opcode::Accept::new(number, ptr::null_mut(), ptr::null_mut()).file_index(auto);
    asks(accept_direct(&file).parts, accept.build());
    let accept = opcode::Accept::new(fixed, ptr::null_mut(), ptr::null_mut()).file_index(auto);
    asks(accept_direct(&registered).parts, accept.build());
    let [address, length] = peer.accept().map(|place| ptr::with_exposed_provenance_mut::<u8>(place as usize));
    let accept = opcode::Accept::new(number, address.cast(), length.cast()).file_index(auto);
    asks(accept_from_direct(&file, &mut peer).parts, accept.build());
    let accept = opcode::AcceptMulti::new(number).allocate_file_index(true);
    asks(accept_multi_direct(&file).parts, accept.build());
    let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK;
    let socket = opcode::Socket::new(libc::AF_INET, kind, 6).file_index(auto);
    asks(socket_direct(libc::AF_INET, kind | libc::SOCK_CLOEXEC, 6).parts, socket.build());
    let custom_flags = libc::O_CLOEXEC | libc::O_DIRECT;
    let options = OpenOptions::new().write(true).create(true).custom_flags(custom_flags);
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_DIRECT;
    let opened = opcode::OpenAt::new(Fd(libc::AT_FDCWD), c"x".as_ptr()).flags(flags).mode(0o666);
    asks(openat_direct(&CWD, c"x", &options).parts, opened.file_index(auto).build());

    let resolved = openat_direct(&CWD, c"x", &options.resolve(Resolve::BENEATH));
    let (facts, _, Besides::Aside(Aside::HowDirect(how))) = placed(resolved.parts) else {
        panic!("beside it")
    };
    assert_eq!((how.flags, facts.yields), (flags as u64, Yields::Direct));

    let (facts, entry, _) = placed(install(&registered).parts);
    assert_eq!(queued(entry, 0), sqe::bytes(&opcode::FixedFdInstall::new(fixed, 0).build().user_data(8)));
    assert_eq!(facts.yields, Yields::Descriptor);
}

#[test]
#[cfg_attr(miri, ignore = "the crate copies unions, whose rest is nothing to Miri")]
fn a_limit_is_what_the_crate_has_no_field_for() {
    const OPTLEN: usize = 44;
    let file = null();
    let number = Fd(file.as_raw_fd());
    let pool = BufferPool::new(1, 64).unwrap();
    let bound = |stream: Stream<'_>| {
        let (facts, prepared, _) = stream.parts.place(TERMS);
        let mut placed = Placed::unbound(prepared, 8);
        placed.bind(3);
        let Besides::Whole(entry) = placed.into_prepared().besides else { panic!("it has no limit") };
        (sqe::bytes(&entry), facts.left())
    };
    let asked = |entry: squeue::Entry, limit: u32| {
        let mut bytes = sqe::bytes(&entry);
        bytes[OPTLEN..][..4].copy_from_slice(&limit.to_ne_bytes());
        (bytes, limit)
    };
    let limit = |limit| NonZeroU32::new(limit).unwrap();
    let one = opcode::RecvMulti::new(number, 3).build();
    assert_eq!(bound(recv_multi(&file, &pool).limit(limit(70_000))), asked(one, 70_000));
    let bundle = opcode::RecvMultiBundle::new(number, 3).build();
    let stream = recv_multi_bundle(&file, &pool).limit(limit(5)).limit(limit(u32::MAX));
    assert_eq!(bound(stream), asked(bundle, u32::MAX));

    let registered = FixedFile::new();
    let (facts, _, besides) = placed(recv_multi(&registered, &pool).limit(limit(9)).parts);
    assert!(matches!(besides, Besides::Pool { limit: 9, .. }));
    assert_eq!(facts.left(), 9);
}

#[test]
fn only_what_receives_from_a_socket_has_a_limit() {
    let file = null();
    let pool = BufferPool::new(1, 64).unwrap();
    let (few, times) = (NonZeroU32::MIN, NonZeroU32::new(7).unwrap());
    let second = Duration::from_secs(1);
    let streams = [
        accept_multi(&file),
        poll_multi(&file, Events::READABLE),
        read_multi(&file, &pool),
        recv_from_multi(&file, &pool),
        timeout_multi(second),
    ];
    for stream in streams {
        let (facts, entry, besides) = placed(stream.limit(few).parts);
        assert_eq!(facts.left(), 0);
        match besides {
            Besides::Nothing => {}
            Besides::Pool { limit, .. } => assert_eq!(limit, 0),
            Besides::Aside(_) => assert_eq!(entry.offset, 0),
            _ => panic!("there is no stream that is more"),
        }
    }
    let (facts, timer, Besides::Aside(_)) = placed(timeout_multi_times(second, times).limit(few).parts)
    else {
        panic!("no timer")
    };
    assert_eq!((facts.left(), timer.offset), (7, 7));
}

#[test]
#[cfg_attr(miri, ignore = "the crate copies unions, whose rest is nothing to Miri")]
fn single_requests_out_of_pools_ask_for_what_the_crate_would() {
    let file = null();
    let (number, nobody) = (Fd(file.as_raw_fd()), std::ptr::null_mut());
    let pool = BufferPool::new(1, 64).unwrap();
    let asks = |request: Request<'_>, entry: squeue::Entry| {
        let (facts, usual, besides) = placed(request.whole().parts);
        assert!(matches!(besides, Besides::Pool { .. }));
        let entry = entry.flags(squeue::Flags::BUFFER_SELECT).user_data(8);
        assert_eq!(queued(usual, 3), sqe::bytes(&entry));
        assert_eq!((facts.yields, facts.flags), (Yields::Buffer, Flags::EMPTY));
    };
    asks(recv_provided(&file, &pool), opcode::Recv::new(number, nobody, 0).buf_group(3).build());
    let read = |offset| opcode::Read::new(number, nobody, 0).buf_group(3).offset(offset).build();
    asks(read_provided(&file, &pool), read(u64::MAX));
    asks(read_provided_at(&file, &pool, 77), read(77));
    let registered = FixedFile::new();
    assert!(registered.place.at.take(RING, 5));
    let entry = opcode::Read::new(io_uring::types::Fixed(5), nobody, 0).buf_group(3).offset(77).build();
    asks(read_provided_at(&registered, &pool, 77), entry);
}

#[test]
fn what_waits_for_its_pool_is_given_the_group_of_that() {
    let (file, pool) = (null(), BufferPool::new(1, 64).unwrap());
    let (_, prepared, _) = recv_provided(&file, &pool).parts.place(TERMS);
    let mut placed = Placed::unbound(prepared, 9);
    assert!(placed.pool().is_some());
    placed.bind(300);
    assert!(placed.pool().is_none());
    let Prepared { entry, besides } = placed.into_prepared();
    assert!(matches!(besides, Besides::Index(300)));
    assert_eq!(entry.descriptor, file.as_raw_fd());
}

#[test]
#[cfg_attr(miri, ignore = "the crate copies unions, whose rest is nothing to Miri")]
fn what_is_sent_in_pieces_is_a_message_to_the_peer() {
    let file = null();
    let number = Fd(file.as_raw_fd());
    let bytes = [7; 4000];
    // They are no neighbours, which would become one piece.
    let pieces = bytes.chunks(2).map(|two| &two[..1]);
    for (count, kept) in [(0, 0), (1, 1), (4, 4), (5, 5), (1024, 1024), (1025, 1024)] {
        for (whole, copies) in [(0, true), (libc::MSG_WAITALL, true), (0, false), (libc::MSG_WAITALL, false)]
        {
            let pieces = pieces.clone().take(count);
            let request = if copies { send_vectored(&file, pieces) } else { send_vectored_zc(&file, pieces) };
            let request = if whole == 0 { request } else { request.all_or_nothing() };
            let (facts, entry, Besides::Aside(mut aside)) = placed(request.parts) else {
                panic!("it has pieces")
            };
            assert_eq!(facts.yields, Yields::Result);
            let address = aside.settle();
            let header = std::ptr::with_exposed_provenance::<libc::msghdr>(address as usize);
            let flags = (libc::MSG_NOSIGNAL | whole) as u32;
            let message = match copies {
                true => opcode::SendMsg::new(number, header).flags(flags).build(),
                false => opcode::SendMsgZc::new(number, header).flags(flags).build(),
            };
            assert_eq!(queued(Usual { address, ..entry }, 0), sqe::bytes(&message.user_data(8)));
            // SAFETY: it is the header of the message that was just settled.
            let header = unsafe { header.read() };
            // If the rest would go unnoticed, nothing is cut: the kernel refuses the whole.
            let kept = if whole == 0 { kept } else { count };
            assert_eq!((header.msg_iovlen, header.msg_name.addr(), header.msg_namelen), (kept, 0, 0));
            for index in 0..kept {
                // SAFETY: there are this many pieces, as was just asserted.
                let piece = unsafe { header.msg_iov.add(index).read() };
                assert_eq!((piece.iov_base.addr(), piece.iov_len), (bytes.as_ptr().addr() + 2 * index, 1));
            }
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "the crate copies unions, whose rest is nothing to Miri")]
fn a_datagram_is_a_message_of_one_piece_to_an_address() {
    let (file, bytes) = (null(), [7; 8]);
    let number = Fd(file.as_raw_fd());
    let address: std::net::SocketAddr = ([127, 0, 0, 1], 7).into();
    let flags = libc::MSG_NOSIGNAL as u32;
    for copies in [true, false] {
        let request =
            if copies { send_to(&file, &bytes, address) } else { send_to_zc(&file, &bytes, address) };
        let (_, entry, Besides::Aside(mut aside)) = placed(request.parts) else { panic!("it has a message") };
        let place = aside.settle();
        let header = std::ptr::with_exposed_provenance::<libc::msghdr>(place as usize);
        let message = match copies {
            true => opcode::SendMsg::new(number, header).flags(flags).build(),
            false => opcode::SendMsgZc::new(number, header).flags(flags).build(),
        };
        assert_eq!(queued(Usual { address: place, ..entry }, 0), sqe::bytes(&message.user_data(8)));
        // SAFETY: it is the header of the message that was just settled, which leads to its piece and its address.
        let (header, piece, name) = unsafe {
            let header = header.read();
            (header, header.msg_iov.read(), header.msg_name.cast::<libc::sockaddr_in>().read())
        };
        assert_eq!((header.msg_iovlen, piece.iov_len, piece.iov_base.addr()), (1, 8, bytes.as_ptr().addr()));
        assert_eq!((header.msg_namelen, name.sin_port), (16, 7_u16.to_be()));
    }
}

#[test]
fn of_a_vector_there_are_as_many_pieces_as_the_kernel_takes_or_all_where_nobody_looks() {
    let file = null();
    let mut bytes = [7; 4000];
    for (count, kept) in [(0, 0), (4, 4), (5, 5), (1024, 1024), (1025, 1024), (2000, 1024)] {
        for (looks, length) in [(true, kept), (false, count)] {
            let length_of = |request: Request<'_>| {
                let request = if looks { request } else { request.all_or_nothing() };
                let (_, entry, besides) = placed(request.parts);
                assert!(matches!(besides, Besides::Aside(Aside::Pieces(_))));
                entry.length as usize
            };
            let pieces = bytes.chunks(2).map(|two| &two[..1]).take(count);
            assert_eq!(length_of(write_vectored(&file, pieces)), length, "{count}, {looks}");
            let pieces = bytes.chunks_mut(2).map(|two| &mut two[..1]).take(count);
            assert_eq!(length_of(read_vectored_at(&file, pieces, 3)), length, "{count}, {looks}");
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "the crate copies unions, whose rest is nothing to Miri")]
fn parts_of_registered_buffers_are_a_vector_that_names_their_set() {
    let (file, registered) = (null(), FixedFile::new());
    assert!(registered.place.at.take(RING, 5));
    let buffers = FixedBuffers::new(3, 8).unwrap();
    let [mut one, between, mut other] = [(); 3].map(|()| buffers.take().unwrap());
    let [one_at, other_at] = [&one, &other].map(|buffer| buffer.as_ptr().addr());
    let number = Fd(file.as_raw_fd());
    let asked = |request: Request<'_>, kept: usize| {
        let (facts, entry, Besides::Aside(Aside::FixedPieces(pieces, index))) = placed(request.parts) else {
            panic!("no parts")
        };
        assert_eq!(facts.yields, Yields::Result);
        let mut aside = Aside::Pieces(pieces);
        let address = aside.settle();
        let pieces = std::ptr::with_exposed_provenance::<libc::iovec>(address as usize);
        let piece = |place| {
            // SAFETY: the caller says that there are this many.
            let piece = unsafe { pieces.add(place).read() };
            (piece.iov_base.addr(), piece.iov_len)
        };
        let list: Vec<_> = (0..kept).map(piece).collect();
        (queued(Usual { address, ..entry }, index), pieces, index, list)
    };
    for expected in [u16::MAX, 0, 300] {
        if expected != u16::MAX {
            buffers.shared.place.leave();
            assert!(buffers.shared.place.take(RING, expected.into()));
        }
        // Empty ones are left out, and neighbours are one.
        let parts = [one.part(3..3), one.part(1..4), other.part(..), one.part(..), between.part(..2)];
        let (bytes, pieces, index, list) = asked(write_vectored_fixed_at(&file, parts, 77), 3);
        let entry = opcode::WritevFixed::new(number, pieces, 3, index).offset(77).build();
        assert_eq!((bytes, index), (sqe::bytes(&entry.user_data(8)), expected));
        assert_eq!(list, [(one_at + 1, 3), (other_at, 8), (one_at, 10)]);
        let (bytes, pieces, index, list) = asked(read_vectored_fixed(&registered, [&mut other, &mut one]), 2);
        let entry =
            opcode::ReadvFixed::new(io_uring::types::Fixed(5), pieces, 2, index).offset(u64::MAX).build();
        assert_eq!((bytes, index), (sqe::bytes(&entry.user_data(8)), expected));
        assert_eq!(list, [(other_at, 8), (one_at, 8)]);
    }
    // Where nobody sees to the rest, there is none.
    for (count, kept) in [(4, 4), (5, 5), (1024, 1024), (1025, 1024)] {
        for (looks, length) in [(true, kept), (false, count)] {
            let request = write_vectored_fixed(&file, std::iter::repeat_n(one.part(..1), count));
            let request = if looks { request } else { request.all_or_nothing() };
            let (_, entry, Besides::Aside(Aside::FixedPieces(..))) = placed(request.parts) else {
                panic!("no parts")
            };
            assert_eq!(entry.length as usize, length, "{count}, {looks}");
        }
    }
    // Nothing to be moved is not looked up.
    let nothing: [FixedSlice<'_>; 1] = [one.part(..0)];
    let (_, entry, Besides::Aside(Aside::Pieces(pieces))) =
        placed(write_vectored_fixed(&file, nothing).parts)
    else {
        panic!("it is a plain vector")
    };
    assert_eq!((entry.opcode, entry.length, pieces.len()), (opcode::Writev::CODE.into(), 0, 0));
}

#[test]
#[cfg_attr(miri, ignore = "the crate copies unions, whose rest is nothing to Miri")]
fn words_are_private_and_waited_for_whatever_the_reason() {
    let word = AtomicU32::new(7);
    let at = word.as_ptr().cast_const();
    let (any, private) = (u64::from(u32::MAX), 0x82);
    let asks = |request: Request<'_>, entry: squeue::Entry| {
        let (facts, _, Besides::Whole(whole)) = placed(request.parts) else {
            panic!("its fields are its own")
        };
        assert_eq!(sqe::bytes(&whole), sqe::bytes(&entry));
        assert_eq!((facts.yields, u32::from(facts.opcode)), (Yields::Result, entry.get_opcode()));
    };
    for value in [0, 7, u32::MAX] {
        asks(futex_wait(&word, value), opcode::FutexWait::new(at, value.into(), any, private).build());
    }
    for (count, said) in [(0, 0), (1, 1), (1 << 31, i32::MAX), (u32::MAX, i32::MAX)] {
        asks(futex_wake(&word, count), opcode::FutexWake::new(at, said as u64, any, private).build());
    }
}

#[test]
#[cfg_attr(miri, ignore = "the crate copies unions, whose rest is nothing to Miri")]
fn options_are_those_of_the_crate() {
    let file = null();
    let number = Fd(file.as_raw_fd());
    let whole = |request: Request<'_>| {
        let (facts, entry, Besides::Aside(Aside::Option { value, length })) = placed(request.parts) else {
            panic!("it has a value")
        };
        assert_eq!(facts.yields, Yields::Result);
        (sqe::bytes(&entry.with_option(value, length)), value)
    };
    let (socket, tcp) = (libc::SOL_SOCKET as u32, libc::IPPROTO_TCP as u32);
    for (option, level, name, length) in [
        (SocketOption::nodelay(true), tcp, libc::TCP_NODELAY as u32, 4),
        (SocketOption::linger(None), socket, libc::SO_LINGER as u32, 8),
        (SocketOption::device(c"eth0"), socket, libc::SO_BINDTODEVICE as u32, 5),
    ] {
        let (bytes, value) = whole(set_option(&file, &option));
        let at = (&raw const option).addr() as u64;
        assert!((at..at + size_of::<SocketOption>() as u64).contains(&value), "in the option");
        let place = ptr::with_exposed_provenance(value as usize);
        assert_eq!(bytes, sqe::bytes(&opcode::SetSockOpt::new(number, level, name, place, length).build()));
    }
    let mut errno = 0;
    let place = (&raw const errno).cast();
    let error = libc::SO_ERROR as u32;
    let mut expected = sqe::bytes(&opcode::SetSockOpt::new(number, socket, error, place, 4).build());
    expected[8] = 2;
    assert_eq!(whole(get_option(&file, SocketQuery::Error, &mut errno)).0, expected);
    for (request, command) in [(bytes_to_receive(&file), 0), (bytes_to_acknowledge(&file), 1)] {
        asks(request, (opcode::SetSockOpt::CODE, 0, command, 0, 0, 0), number.0);
    }
}

#[test]
fn a_message_leads_to_what_goes_with_it() {
    let (file, bytes) = (null(), [7; 4]);
    let mut control = SendControl::new();
    let header = |request: Request<'_>| {
        let (facts, entry, Besides::Aside(aside)) = placed(request.parts) else { panic!("it is beside it") };
        let mut aside = Box::new(aside);
        let place = std::ptr::with_exposed_provenance::<libc::msghdr>(aside.settle() as usize);
        // SAFETY: the aside is where it was settled.
        let header = unsafe { place.read() };
        assert_eq!(
            (entry.length, entry.op_flags, facts.yields),
            (1, libc::MSG_NOSIGNAL as u32, Yields::Result)
        );
        assert_eq!((header.msg_iovlen, header.msg_flags), (1, 0));
        (entry.opcode as u8, header)
    };
    let (opcode, bare) = header(send_message(&file, [&bytes[..]], control.start()));
    assert_eq!((opcode, bare.msg_namelen, bare.msg_controllen), (opcode::SendMsg::CODE, 0, 0));
    assert!(bare.msg_name.is_null() && bare.msg_control.is_null());
    let address: std::net::SocketAddr = ([127, 0, 0, 1], 7).into();
    let (opcode, full) =
        header(send_message_zc(&file, [&bytes[..]], control.start().to(address).segment_size(1200)));
    // SAFETY: they lie in `control`, which nobody has used since then.
    let (said, name) = unsafe {
        let said = std::slice::from_raw_parts(full.msg_control.cast::<u8>(), full.msg_controllen);
        (said, std::slice::from_raw_parts(full.msg_name.cast::<u8>(), full.msg_namelen as usize))
    };
    assert_eq!(
        (opcode, said.len(), said[16..18] == 1200_u16.to_ne_bytes()),
        (opcode::SendMsgZc::CODE, 24, true)
    );
    assert_eq!(super::address::of_internet(name), Some(address));
    // Nothing is left of it.
    let (_, bare) = header(send_message(&file, [&bytes[..]], control.start()));
    assert_eq!((bare.msg_namelen, bare.msg_controllen), (0, 0));
}

#[test]
fn a_message_is_received_with_what_comes_with_it() {
    let (file, mut bytes) = (null(), [0; 4]);
    for (room, rounded) in [(0, 0), (1, 8), (24, 24), (256, 256)] {
        let mut control = RecvControl::with_room(room);
        let ((opcode, priority, offset, address, length, flags), descriptor, yields) =
            parts(recv_message(&file, &mut bytes, &mut control).parts);
        assert_eq!((opcode, priority, offset, length), (opcode::RecvMsg::CODE, 0, 0, 1));
        assert_eq!((flags, descriptor), (libc::MSG_CMSG_CLOEXEC as u32, file.as_raw_fd()));
        assert_eq!(yields, Yields::Result);
        // SAFETY: the header lies in `control`, which nobody has used since then.
        let header = unsafe { std::ptr::with_exposed_provenance::<libc::msghdr>(address as usize).read() };
        assert_eq!((header.msg_controllen, header.msg_iovlen, header.msg_flags), (rounded, 1, 0));
        assert_eq!(header.msg_namelen as usize, size_of::<libc::sockaddr_storage>());
    }
}

#[test]
#[cfg_attr(miri, ignore = "the crate copies unions, whose rest is nothing to Miri")]
fn pipes_and_epoll_sets_are_asked_for_what_the_crate_would() {
    let is_that_of_the_crate = |request: Request<'_>, entry: squeue::Entry| {
        let (facts, usual, Besides::Nothing) = placed(request.parts) else { panic!("it is a usual one") };
        assert_eq!((queued(usual, 0), facts.yields), (sqe::bytes(&entry.user_data(8)), Yields::Result));
    };
    let mut ends = Pipe::new();
    let at = (&raw mut ends).cast();
    is_that_of_the_crate(super::pipe(&mut ends), opcode::Pipe::new(at).flags(libc::O_CLOEXEC as u32).build());
    let (file, mut events) = (null(), [EpollEvent::new(); 3]);
    let at = events.as_mut_ptr().cast();
    let expected = opcode::EpollWait::new(Fd(file.as_raw_fd()), at, 3).build();
    is_that_of_the_crate(epoll_wait(&file, &mut events), expected);
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

    let mut peer = Peer::new();
    let at = (&raw const peer).addr() as u64..(&raw const peer).addr() as u64 + size_of::<Peer>() as u64;
    let (asked, descriptor, yields) = parts(accept_from(&file, &mut peer).parts);
    let (length_at, name_at) = (asked.2, asked.3);
    assert!(at.contains(&length_at) && at.contains(&name_at), "in the peer");
    assert_eq!((asked.0, asked.1, asked.4, asked.5), (code, 0, 0, cloexec));
    assert_eq!((descriptor, yields), (number, Yields::Descriptor));
    let length = std::ptr::with_exposed_provenance::<libc::socklen_t>(length_at as usize);
    // SAFETY: the pointer leads to a field of the peer, as was asserted.
    assert_eq!(unsafe { length.read() } as usize, size_of::<libc::sockaddr_storage>());

    let opened = |options: OpenOptions| {
        let (asked, directory, yields) = parts(openat(&CWD, c"x", &options).parts);
        let (opcode, _, _, name, mode, flags) = asked;
        assert_eq!((opcode, directory, yields), (opcode::OpenAt::CODE, libc::AT_FDCWD, Yields::Descriptor));
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
#[cfg_attr(miri, ignore = "the crate copies unions, whose rest is nothing to Miri")]
fn a_path_that_is_to_be_resolved_in_a_certain_way_is_opened_by_openat2() {
    let resolve = Resolve::BENEATH | Resolve::NO_SYMLINKS;
    let bits = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_SYMLINKS;
    let new = OpenOptions::new;
    let cloexec = libc::O_CLOEXEC as u64;
    let create = (libc::O_WRONLY | libc::O_CREAT) as u64 | cloexec;
    let nameless = (libc::O_WRONLY | libc::O_TMPFILE) as u64 | cloexec;
    for (options, flags, mode) in [
        (new().mode(0o640), cloexec, 0),
        (new().write(true).create(true).mode(0o640), create, 0o640),
        (new().write(true).custom_flags(libc::O_TMPFILE), nameless, 0o666),
        (new().custom_flags(libc::O_DIRECTORY), libc::O_DIRECTORY as u64 | cloexec, 0),
    ] {
        let opens = openat(&CWD, c"x", &options.resolve(resolve));
        let (facts, mut entry, Besides::Aside(mut aside)) = placed(opens.parts) else {
            panic!("it has a how")
        };
        assert_eq!(facts.yields, Yields::Descriptor);
        let place = aside.settle();
        let name = std::ptr::with_exposed_provenance(entry.address as usize);
        entry.lead_to(place);
        let how = std::ptr::with_exposed_provenance(place as usize);
        let expected = opcode::OpenAt2::new(Fd(libc::AT_FDCWD), name, how).build();
        assert_eq!(queued(entry, 0), sqe::bytes(&expected.user_data(8)));
        // SAFETY: the pointer leads to the `struct open_how` that was just settled.
        let how = unsafe { how.cast::<[u64; 3]>().read() };
        assert_eq!(how, [flags, mode, bits]);
    }
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
        let (facts, entry, Besides::Aside(Aside::Time(spec))) = placed(parts) else { panic!("no timer") };
        let Usual { opcode, descriptor, offset, length, op_flags, .. } = entry;
        assert_eq!((opcode, descriptor, length), (opcode::Timeout::CODE.into(), -1, 1));
        let (count, flags) = (offset as u32, TimeoutFlags::from_bits_retain(op_flags));
        assert_eq!((facts.yields, facts.left()), (Yields::Tick, count));
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
