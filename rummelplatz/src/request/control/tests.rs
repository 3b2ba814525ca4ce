use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd, IntoRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, UNIX_EPOCH};

use super::super::Peer;
use super::super::aside::Piece;
use super::*;

/// What is found in these bytes.
fn found(area: &[u8]) -> Vec<(i32, i32, Vec<u8>)> {
    Found::all(area).map(|it| (it.level, it.kind, area[it.bytes].to_vec())).collect()
}

/// Messages as they lie in memory.
fn messages(messages: &[(i32, i32, &[u8])]) -> Vec<u8> {
    let mut area = Vec::new();
    for (level, kind, bytes) in messages {
        append(&mut area, *level, *kind, [bytes]);
    }
    area
}

/// As if the kernel had received these.
fn received(area: &[u8]) -> RecvControl {
    let mut control = RecvControl::with_room(area.len());
    control.receive(Piece::default());
    // SAFETY: those of these tests are nobody else's, or there are none.
    unsafe { control.pretend(area, Peer::new(), 0) };
    control
}

/// These are in their memory now.
fn built(_: Control<'_>) {}

fn fd() -> OwnedFd {
    std::fs::File::open("/dev/null").unwrap().into()
}

/// A stream, and a descriptor of its other end: the stream has ended when nobody has that any more.
fn watched_fd() -> (UnixStream, OwnedFd) {
    let (watch, fd) = UnixStream::pair().unwrap();
    watch.set_nonblocking(true).unwrap();
    (watch, fd.into())
}

fn is_closed(mut watch: &UnixStream) -> bool {
    watch.read(&mut [0]).is_ok_and(|bytes| bytes == 0)
}

#[test]
fn messages_lie_as_libc_says() {
    for length in [0, 1, 4, 7, 8, 9, 100] {
        let bytes = vec![7; length];
        let area = messages(&[(1, 2, &bytes), (3, 4, &bytes)]);
        // SAFETY: this only computes.
        let (space, whole) = unsafe { (libc::CMSG_SPACE(length as u32), libc::CMSG_LEN(length as u32)) };
        assert_eq!((area.len(), RecvControl::room_for(length)), (2 * space as usize, space as usize));
        assert_eq!(found(&area), [(1, 2, bytes.clone()), (3, 4, bytes)], "{length} bytes");
        assert_eq!(usize::from_ne_bytes(*area.first_chunk().unwrap()), whole as usize);
    }
    assert_eq!(found(&[]), []);
    assert!(RecvControl::room_for(usize::MAX) > usize::MAX / 2, "it does not overflow");
}

#[test]
fn what_is_cut_is_found_as_far_as_the_kernel_wrote_it() {
    let area = messages(&[(1, 2, b"12345678"), (3, 4, b"123")]);
    let start = RecvControl::room_for(8);
    for end in 0..area.len() {
        let count = found(&area[..end]).len();
        // A message says how long it is; what is said to be longer than what was written is none.
        let expected = usize::from(end >= HEADER + 8) + usize::from(end >= start + HEADER + 3);
        assert_eq!(count, expected, "up to {end}");
    }
    // The kernel cuts the last one, and says so in its length.
    let mut area = messages(&[(1, 2, b"12345678")]);
    area[..size_of::<usize>()].copy_from_slice(&(HEADER + 5).to_ne_bytes());
    area.truncate(HEADER + 5);
    assert_eq!(found(&area), [(1, 2, b"12345".to_vec())]);
}

#[test]
fn wrong_lengths_end_the_messages() {
    for length in [0, 1, HEADER - 1, HEADER + 9, usize::MAX, usize::MAX / 2, usize::MAX - HEADER] {
        let mut area = messages(&[(1, 2, b"12345678"), (3, 4, b"12345678")]);
        let second = RecvControl::room_for(8);
        area[second..second + size_of::<usize>()].copy_from_slice(&length.to_ne_bytes());
        assert_eq!(found(&area), [(1, 2, b"12345678".to_vec())], "{length}");
    }
    // An empty one is one.
    assert_eq!(found(&messages(&[(1, 2, b""), (3, 4, b"")])).len(), 2);
}

#[test]
fn random_bytes_do_no_harm() {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for round in 0..20_000 {
        let length = (random() % 200) as usize;
        let mut area: Vec<u8> = std::iter::repeat_with(|| random() as u8).take(length).collect();
        // Lengths that are nearly right, and levels and kinds that mean something.
        let mut at = 0;
        while at + HEADER <= length && round % 4 != 0 {
            let said = random() as usize % 64;
            area[at..at + size_of::<usize>()].copy_from_slice(&said.to_ne_bytes());
            let known = [(0, 8), (0, 1), (41, 50), (41, 67), (17, 104), (1, 2), (1, 35), (1, 1), (1, 4)];
            let (level, kind): (i32, i32) = known[random() as usize % known.len()];
            area[at + size_of::<usize>()..at + size_of::<usize>() + 4].copy_from_slice(&level.to_ne_bytes());
            area[at + size_of::<usize>() + 4..at + HEADER].copy_from_slice(&kind.to_ne_bytes());
            at += said.max(HEADER).next_multiple_of(ALIGNMENT);
        }
        let mut last = 0;
        for message in Found::all(&area) {
            assert!(last <= message.bytes.start && message.bytes.end <= area.len());
            last = message.bytes.end;
        }
        // Numbers that nobody owns are not to be closed.
        for found in Found::all(&area.clone()).filter(|it| has_descriptors(it.level, it.kind)) {
            area[found.bytes].fill(0xFF);
        }
        let control = received(&area);
        let said = control.messages().iter().map(|it| it.bytes.len()).sum::<usize>();
        assert!(said <= area.len() && !format!("{control:?}").is_empty());
        assert!(control.messages().iter().all(|it| !has_descriptors(it.level, it.kind)));
        assert_ne!(control.messages().segment_size(), Some(0));
        let _ = (
            control.messages().packet_info(),
            control.messages().traffic_class(),
            control.messages().timestamp(),
            control.messages().credentials(),
        );
    }
}

#[test]
fn what_is_known_is_read() {
    let nothing = received(&[]);
    assert_eq!(
        (
            nothing.messages().segment_size(),
            nothing.messages().packet_info(),
            nothing.messages().traffic_class()
        ),
        (None, None, None)
    );
    assert_eq!(
        (nothing.messages().timestamp(), nothing.messages().credentials(), nothing.peer()),
        (None, None, None)
    );
    assert!(!nothing.is_truncated() && !nothing.is_control_truncated());

    let number = |number: i32| number.to_ne_bytes();
    let v4 = [number(3), [127, 0, 0, 1], [224, 0, 0, 5]].concat();
    let time = [5_i64.to_ne_bytes(), 7_i64.to_ne_bytes()].concat();
    let sender = [number(11), number(12), number(13)].concat();
    let control = received(&messages(&[
        (libc::IPPROTO_IP, libc::IP_PKTINFO, &v4),
        (libc::IPPROTO_IP, libc::IP_TOS, &[0xB9]),
        (libc::SOL_UDP, libc::UDP_GRO, &number(1200)),
        (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS, &time),
        (libc::SOL_SOCKET, libc::SCM_CREDENTIALS, &sender),
        (77, 88, b"unknown"),
    ]));
    let info = PacketInfo {
        destination: Ipv4Addr::new(224, 0, 0, 5).into(),
        local: Ipv4Addr::LOCALHOST.into(),
        interface: 3,
    };
    assert_eq!(
        (control.messages().packet_info(), control.messages().traffic_class()),
        (Some(info), Some(0xB9))
    );
    assert_eq!((control.messages().segment_size(), control.messages().iter().count()), (Some(1200), 6));
    assert_eq!(control.messages().timestamp(), Some(UNIX_EPOCH + Duration::new(5, 7)));
    assert_eq!(control.messages().credentials(), Some(Credentials { pid: 11, uid: 12, gid: 13 }));
    let unknown = ControlMessage { level: 77, kind: 88, bytes: b"unknown" };
    assert_eq!(control.messages().iter().last(), Some(unknown));

    let v6 = [&[0xFE; 16][..], &number(9)].concat();
    let control = received(&messages(&[
        (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &v6),
        (libc::IPPROTO_IPV6, libc::IPV6_TCLASS, &number(3)),
    ]));
    let destination = [0xFE; 16].into();
    assert_eq!(
        control.messages().packet_info(),
        Some(PacketInfo { destination, local: destination, interface: 9 })
    );
    assert_eq!(control.messages().traffic_class(), Some(3));
    // What is cut or makes no sense is not there.
    let impossible = [(-5_i64).to_ne_bytes(), 1_000_000_000_i64.to_ne_bytes()].concat();
    let control = received(&messages(&[
        (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &v6[..19]),
        (libc::IPPROTO_IPV6, libc::IPV6_TCLASS, &number(-1)),
        (libc::SOL_UDP, libc::UDP_GRO, &number(0)),
        (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS, &impossible),
        (libc::SOL_SOCKET, libc::SCM_CREDENTIALS, &sender[..11]),
    ]));
    assert_eq!(
        (
            control.messages().packet_info(),
            control.messages().traffic_class(),
            control.messages().segment_size()
        ),
        (None, None, None)
    );
    assert_eq!((control.messages().timestamp(), control.messages().credentials()), (None, None));
}

#[test]
fn joined_datagrams_are_told_apart() {
    for (size, bytes, expected) in [
        (Some(3), &b"abcdefgh"[..], &[&b"abc"[..], b"def", b"gh"][..]),
        (Some(4), b"abcdefgh", &[b"abcd", b"efgh"]),
        (Some(9), b"abcdefgh", &[b"abcdefgh"]),
        (None, b"abcdefgh", &[b"abcdefgh"]),
        (None, b"", &[b""]),
        (Some(3), b"", &[b""]),
    ] {
        let number: Option<[u8; 4]> = size.map(i32::to_ne_bytes);
        let told: Vec<_> = number.iter().map(|it| (libc::SOL_UDP, libc::UDP_GRO, &it[..])).collect();
        let control = received(&messages(&told));
        let datagrams: Vec<_> = control.messages().datagrams(bytes).collect();
        assert_eq!(datagrams, expected, "{size:?}");
    }
}

#[test]
fn what_is_sent_is_what_libc_wants() {
    let mut send = SendControl::new();
    let fds = [fd(), fd()];
    let numbers = fds.iter().map(|fd| fd.as_raw_fd().to_ne_bytes()).collect::<Vec<_>>().concat();
    let sent = |send: &SendControl| found(send.bytes());
    built(send.start().fds(&fds).segment_size(1200));
    let expected = [
        (libc::SOL_SOCKET, libc::SCM_RIGHTS, numbers),
        (libc::SOL_UDP, libc::UDP_SEGMENT, 1200_u16.to_ne_bytes().to_vec()),
    ];
    assert_eq!(sent(&send), expected);
    // Of the last message, nothing is left.
    built(send.start().source([127, 0, 0, 1], 2));
    let v4 = [2, 0, 0, 0, 127, 0, 0, 1, 0, 0, 0, 0].to_vec();
    assert_eq!(sent(&send), [(libc::IPPROTO_IP, libc::IP_PKTINFO, v4)]);
    built(send.start().source([0xFE; 16], 2).traffic_class(0xFF));
    let v6 = [&[0xFE; 16][..], &[2, 0, 0, 0]].concat();
    let class = vec![0xFF, 0, 0, 0];
    let expected = [
        (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, v6),
        (libc::IPPROTO_IP, libc::IP_TOS, class.clone()),
        (libc::IPPROTO_IPV6, libc::IPV6_TCLASS, class),
    ];
    assert_eq!(sent(&send), expected);
    // SAFETY: it names nothing.
    built(unsafe { send.start().message(5, 6, b"abc") });
    assert_eq!(sent(&send), [(5, 6, b"abc".to_vec())]);
    built(send.start());
    assert_eq!(sent(&send), []);
}

#[test]
fn descriptors_are_taken_once_and_the_others_are_closed() {
    let (watches, fds): (Vec<_>, Vec<_>) = (0..4).map(|_| watched_fd()).unzip();
    let mut numbers = fds.into_iter().map(|fd| fd.into_raw_fd().to_ne_bytes());
    let [first, second, third, pidfd] = std::array::from_fn(|_| numbers.next().unwrap());
    let none = (-1_i32).to_ne_bytes();
    let area = messages(&[
        (libc::SOL_SOCKET, libc::SCM_RIGHTS, &[first, none, second].concat()),
        (libc::SOL_SOCKET, SCM_PIDFD, &pidfd),
        (libc::SOL_SOCKET, libc::SCM_RIGHTS, &third),
        // Of another protocol, and so no descriptor.
        (libc::SOL_UDP, libc::SCM_RIGHTS, &first),
    ]);
    let mut control = received(&area);
    assert_eq!(control.messages().iter().count(), 1);
    let taken: Vec<_> = control.take_fds().take(2).collect();
    let numbers = taken.iter().map(|fd| fd.as_raw_fd().to_ne_bytes()).collect::<Vec<_>>();
    assert_eq!(numbers, [first, second]);
    let process = control.take_pidfd().unwrap();
    assert!(control.take_pidfd().is_none());
    drop(process);
    let closed = |expected: [bool; 4]| {
        assert_eq!(watches.iter().map(is_closed).collect::<Vec<_>>(), expected);
    };
    closed([false, false, false, true]);
    drop(control);
    closed([false, false, true, true]);
    drop(taken);
    closed([true; 4]);
}

#[test]
fn the_next_request_closes_what_the_last_one_brought() {
    let (watch, fd) = watched_fd();
    let area = messages(&[(libc::SOL_SOCKET, libc::SCM_RIGHTS, &fd.into_raw_fd().to_ne_bytes())]);
    let mut control = received(&area);
    assert!(!is_closed(&watch));
    control.receive(Piece::default());
    assert!(is_closed(&watch));
    // The header says now how much room there is: all of it is empty.
    assert_eq!((control.take_fds().count(), control.messages().iter().count()), (0, 0));
    // Even if a part of the area had been written without the kernel saying so, it would not be seen after this.
    control.receive(Piece::default());
    assert!(control.is_empty());
}

#[test]
fn descriptors_of_any_kind_are_lent() {
    let (file, mut stream) = (fd(), UnixStream::pair().unwrap().0);
    let mut send = SendControl::new();
    let both = [file.as_fd(), stream.as_fd()];
    built(send.start().fds(&both).fds([&file]).fds([&stream]));
    assert_eq!(found(send.bytes()).len(), 3);
    // Nothing is borrowed any more.
    stream.flush().unwrap();
    drop(file);
}

/// All that can be said by hand, except for descriptors.
fn all_by_hand() -> FillControl {
    let info = PacketInfo { destination: [10, 0, 0, 1].into(), local: [10, 0, 0, 2].into(), interface: 3 };
    FillControl::new()
        .segment_size(1200)
        .packet_info(info)
        .traffic_class(5)
        .timestamp(UNIX_EPOCH + Duration::new(7, 9))
        .credentials(Credentials { pid: 1, uid: 2, gid: 3 })
        .message(77, 78, b"else")
}

#[test]
fn what_is_made_by_hand_is_found() {
    let peer = "[::1]:80".parse().unwrap();
    let filled = RecvControl::fill(Some(peer), all_by_hand().truncated());
    let said = filled.messages();
    assert_eq!((said.segment_size(), said.traffic_class()), (Some(1200), Some(5)));
    assert_eq!(said.packet_info().unwrap().local, IpAddr::from([10, 0, 0, 2]));
    assert_eq!(said.packet_info().unwrap().destination, IpAddr::from([10, 0, 0, 1]));
    assert_eq!(said.packet_info().unwrap().interface, 3);
    assert_eq!(said.timestamp(), Some(UNIX_EPOCH + Duration::new(7, 9)));
    assert_eq!(said.credentials(), Some(Credentials { pid: 1, uid: 2, gid: 3 }));
    let last = said.iter().last().unwrap();
    assert_eq!((last.level, last.kind, last.bytes), (77, 78, &b"else"[..]));
    assert_eq!(
        (filled.peer(), filled.is_truncated(), filled.is_control_truncated()),
        (Some(peer), true, false)
    );

    let destination = Ipv6Addr::LOCALHOST.into();
    let info = PacketInfo { destination, local: destination, interface: 9 };
    let filled = RecvControl::fill(None, FillControl::new().packet_info(info).control_truncated());
    assert_eq!(filled.messages().packet_info(), Some(info));
    assert_eq!((filled.peer(), filled.is_truncated(), filled.is_control_truncated()), (None, false, true));
    assert!(RecvControl::fill(None, FillControl::new()).messages().iter().next().is_none());
}

#[test]
fn descriptors_that_are_given_by_hand_are_taken_or_closed_once() {
    let pipes: Vec<_> = (0..4).map(|_| std::io::pipe().unwrap()).collect();
    let (mut readers, writers): (Vec<_>, Vec<OwnedFd>) =
        pipes.into_iter().map(|(reader, writer)| (reader, OwnedFd::from(writer))).unzip();
    let mut is_closed = |number: usize| {
        let mut poll = libc::pollfd { fd: readers[number].as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: there is one of it.
        unsafe { libc::poll(&raw mut poll, 1, 0) };
        poll.revents & libc::POLLHUP != 0
    };
    let mut writers = writers.into_iter();
    let mut next = || writers.next().unwrap();
    let control = FillControl::new().fds([next(), next()]).traffic_class(1).pidfd(next());
    let mut filled = RecvControl::fill(None, control);
    let first = filled.take_fds().next().unwrap();
    let process = filled.take_pidfd().unwrap();
    assert!(filled.take_pidfd().is_none() && !is_closed(1));
    drop(filled);
    assert_eq!([0, 1, 2, 3].map(&mut is_closed), [false, true, false, false]);
    drop((first, process));
    let unused = FillControl::new().fds([next()]);
    drop(unused);
    assert_eq!([0, 1, 2, 3].map(&mut is_closed), [true; 4]);
    readers.clear();
}

#[test]
fn numbers_of_descriptors_are_refused() {
    for kind in [libc::SCM_RIGHTS, SCM_PIDFD] {
        let refused = std::panic::catch_unwind(|| {
            FillControl::new().message(libc::SOL_SOCKET, kind, &0_i32.to_ne_bytes())
        });
        assert!(refused.is_err());
    }
}

#[test]
fn a_datagram_by_hand_has_room_for_some_messages_and_for_no_descriptors() {
    let pool = crate::BufferPool::new(1, 1024).unwrap();
    let peer = "127.0.0.1:7".parse().unwrap();
    let (_reader, writer) = std::io::pipe().unwrap();
    for (control, is_cut, count) in
        [(all_by_hand(), true, 5), (FillControl::new().traffic_class(5), false, 1)]
    {
        let control = control.fds([writer.try_clone().unwrap().into()]);
        let datagram = crate::Datagram::fill_with(&pool, peer, control, b"abc").unwrap();
        assert_eq!((&*datagram, datagram.peer()), (&b"abc"[..], Some(peer)));
        assert_eq!(datagram.messages().traffic_class(), Some(5));
        assert_eq!((datagram.is_control_truncated(), datagram.is_truncated()), (is_cut, false));
        assert_eq!(datagram.messages().iter().count(), count);
    }
}
