//! Tests of the options of sockets, the same under every kernel. Each is given a function that makes a ring on the
//! kernel to test.

use std::ffi::CStr;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream, UdpSocket};
use std::num::NonZeroU32;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use rummelplatz::request::{OptionLevel, SocketOption, SocketQuery};
use rummelplatz::{ControlFlow, FixedFile, RawRing, Request, request};

use crate::{Bench, Log, Script, complete_on, deaf_to_datagrams, once_on, outcome, pipe, tcp_pair};

/// `libc` has no name for it.
pub(crate) const SO_PASSPIDFD: i32 = 76;

/// Whether this kernel knows of options; says "skipped" if it does not.
pub fn has_options(raw: RawRing) -> bool {
    let (client, _) = tcp_pair();
    let has = once_on(raw, client, |client| request::bytes_to_receive(client)).0 == Ok(0);
    if !has {
        eprintln!("skipped: needs Linux 6.7");
    }
    has
}

/// What the system call says of an option, as bytes.
fn option(socket: &impl AsRawFd, level: i32, name: i32) -> Vec<u8> {
    let mut value = [0_u8; 32];
    let mut length = value.len() as libc::socklen_t;
    let (number, place) = (socket.as_raw_fd(), value.as_mut_ptr().cast());
    // SAFETY: there is a place for the answer, of this length.
    let known = unsafe { libc::getsockopt(number, level, name, place, &raw mut length) };
    assert_eq!(known, 0, "{}", io::Error::last_os_error());
    value[..length as usize].to_vec()
}

/// What the system call says of an option that is a number.
fn number(socket: &impl AsRawFd, level: i32, name: i32) -> i32 {
    let value = option(socket, level, name);
    match value[..] {
        // Options about IPv4 may be so short.
        [byte] => byte.into(),
        _ => i32::from_ne_bytes(value.try_into().unwrap()),
    }
}

pub fn options_are_set_as_the_system_call_sets_them(raw: impl Fn() -> RawRing) {
    if !has_options(raw()) {
        return;
    }
    const TCP: i32 = libc::IPPROTO_TCP;
    const SOCKET: i32 = libc::SOL_SOCKET;
    const UDP: i32 = libc::IPPROTO_UDP;
    let set = |socket: OwnedFd, option: SocketOption| {
        let (result, (socket, _)) =
            once_on(raw(), (socket, option), |(socket, option)| request::set_option(socket, option));
        (result, socket)
    };
    let second = Duration::from_secs(1);
    for (option, level, name, value) in [
        (SocketOption::nodelay(true), TCP, libc::TCP_NODELAY, 1),
        (SocketOption::nodelay(false), TCP, libc::TCP_NODELAY, 0),
        (SocketOption::cork(true), TCP, libc::TCP_CORK, 1),
        (SocketOption::quick_ack(false), TCP, libc::TCP_QUICKACK, 0),
        (SocketOption::keepalive(true), SOCKET, libc::SO_KEEPALIVE, 1),
        (SocketOption::keepalive_idle(77 * second), TCP, libc::TCP_KEEPIDLE, 77),
        (SocketOption::keepalive_interval(second / 2), TCP, libc::TCP_KEEPINTVL, 1),
        (SocketOption::keepalive_count(5), TCP, libc::TCP_KEEPCNT, 5),
        (SocketOption::user_timeout(3 * second), TCP, libc::TCP_USER_TIMEOUT, 3000),
        (SocketOption::not_sent_low_water(4096), TCP, libc::TCP_NOTSENT_LOWAT, 4096),
        (SocketOption::receive_buffer(10_000), SOCKET, libc::SO_RCVBUF, 20_000),
        (SocketOption::send_buffer(10_000), SOCKET, libc::SO_SNDBUF, 20_000),
        (SocketOption::receive_low_water(100), SOCKET, libc::SO_RCVLOWAT, 100),
        (SocketOption::reuse_address(true), SOCKET, libc::SO_REUSEADDR, 1),
        (SocketOption::reuse_port(true), SOCKET, libc::SO_REUSEPORT, 1),
        (SocketOption::broadcast(true), SOCKET, libc::SO_BROADCAST, 1),
        (SocketOption::priority(6), SOCKET, libc::SO_PRIORITY, 6),
        (SocketOption::type_of_service(0xB8), libc::IPPROTO_IP, libc::IP_TOS, 0xB8),
        (SocketOption::time_to_live(9), libc::IPPROTO_IP, libc::IP_TTL, 9),
        (SocketOption::bind_address_no_port(true), libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1),
        (SocketOption::tell_packet_info(true), libc::IPPROTO_IP, libc::IP_PKTINFO, 1),
        (SocketOption::tell_type_of_service(true), libc::IPPROTO_IP, libc::IP_RECVTOS, 1),
        (SocketOption::tell_timestamp(true), SOCKET, libc::SO_TIMESTAMPNS, 1),
        (SocketOption::number(OptionLevel::Ip, libc::IP_FREEBIND, 1), libc::IPPROTO_IP, libc::IP_FREEBIND, 1),
    ] {
        let (result, socket) = set(tcp_pair().0.into(), option);
        assert_eq!((result, number(&socket, level, name)), (Ok(0), value), "{option:?}");
    }
    let of_udp = [
        (SocketOption::udp_gro(true), libc::UDP_GRO, 1),
        (SocketOption::udp_segment(1200), libc::UDP_SEGMENT, 1200),
    ];
    for (option, name, value) in of_udp {
        let (result, socket) = set(UdpSocket::bind("127.0.0.1:0").unwrap().into(), option);
        assert_eq!((result, number(&socket, UDP, name)), (Ok(0), value), "{option:?}");
    }
    for (option, name) in [
        (SocketOption::tell_credentials(true), libc::SO_PASSCRED),
        (SocketOption::tell_pidfd(true), SO_PASSPIDFD),
    ] {
        let (result, socket) = set(UnixDatagram::unbound().unwrap().into(), option);
        assert_eq!((result, number(&socket, SOCKET, name)), (Ok(0), 1), "{option:?}");
    }
    let unconnected = |domain| {
        let made = tcp_socket(&raw, domain);
        made.unwrap_or_else(|errno| panic!("no socket: {errno}"))
    };
    // Of a connection, this is what came in last.
    let before_it_connects = [
        (SocketOption::incoming_cpu(0), SOCKET, libc::SO_INCOMING_CPU, 0),
        (SocketOption::fast_open(5), TCP, libc::TCP_FASTOPEN, 5),
        (SocketOption::fast_open_connect(true), TCP, libc::TCP_FASTOPEN_CONNECT, 1),
    ];
    for (option, level, name, value) in before_it_connects {
        let (result, socket) = set(unconnected(libc::AF_INET), option);
        assert_eq!((result, number(&socket, level, name)), (Ok(0), value), "{option:?}");
    }
    // The kernel counts in tries.
    let (result, listener) = set(unconnected(libc::AF_INET), SocketOption::defer_accept(5 * second));
    assert_eq!(result, Ok(0));
    assert!(number(&listener, TCP, libc::TCP_DEFER_ACCEPT) > 0);

    let (result, socket) = set(tcp_pair().0.into(), SocketOption::linger(Some(7 * second)));
    let linger = [1_i32.to_ne_bytes(), 7_i32.to_ne_bytes()].concat();
    assert_eq!((result, option(&socket, SOCKET, libc::SO_LINGER)), (Ok(0), linger));
    let (result, socket) = set(socket, SocketOption::congestion(c"reno"));
    let algorithm = option(&socket, TCP, libc::TCP_CONGESTION);
    assert_eq!((result, CStr::from_bytes_until_nul(&algorithm).unwrap()), (Ok(0), c"reno"));
    for rate in [12_345, u64::MAX] {
        assert_eq!(set(tcp_pair().0.into(), SocketOption::pacing_rate(rate)).0, Ok(0), "{rate}");
    }
    match set(tcp_pair().0.into(), SocketOption::busy_poll(second)) {
        (Ok(0), socket) => assert_eq!(number(&socket, SOCKET, libc::SO_BUSY_POLL), 1_000_000),
        (result, _) => assert_eq!(result, Err(libc::EPERM)),
    }
    assert!(matches!(
        set(tcp_pair().0.into(), SocketOption::prefer_busy_poll(true)).0,
        Ok(0) | Err(libc::EPERM)
    ));
    let (result, socket) = set(unconnected(libc::AF_INET), SocketOption::device(c"lo"));
    if result == Ok(0) {
        assert_eq!(option(&socket, SOCKET, libc::SO_BINDTODEVICE)[..3], *b"lo\0");
    } else {
        assert!(matches!(result, Err(libc::EPERM | libc::ENODEV)), "{result:?}");
    }

    // A group, which is left only if it was joined. (There may be no IPv6.)
    let group = Ipv4Addr::new(224, 0, 0, 99);
    let (joined, udp) = set(UdpSocket::bind("0.0.0.0:0").unwrap().into(), SocketOption::join_v4(group, 1));
    let (left, udp) = set(udp, SocketOption::leave_v4(group, 1));
    let (again, _) = set(udp, SocketOption::leave_v4(group, 1));
    assert_eq!((joined, left, again), (Ok(0), Ok(0), Err(libc::EADDRNOTAVAIL)));
    if let Ok(six) = tcp_socket(&raw, libc::AF_INET6) {
        for (option, name, value) in [
            (SocketOption::only_v6(true), libc::IPV6_V6ONLY, 1),
            (SocketOption::traffic_class(0xB8), libc::IPV6_TCLASS, 0xB8),
            (SocketOption::hop_limit(9), libc::IPV6_UNICAST_HOPS, 9),
            (SocketOption::tell_packet_info_v6(true), libc::IPV6_RECVPKTINFO, 1),
            (SocketOption::tell_traffic_class(true), libc::IPV6_RECVTCLASS, 1),
        ] {
            let (result, socket) = set(six.try_clone().unwrap(), option);
            assert_eq!((result, number(&socket, libc::IPPROTO_IPV6, name)), (Ok(0), value), "{option:?}");
        }
    }
    if let Ok(six) = UdpSocket::bind("[::]:0") {
        let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x99);
        let (joined, six) = set(six.into(), SocketOption::join_v6(group, 1));
        let (left, six) = set(six, SocketOption::leave_v6(group, 1));
        let (again, _) = set(six, SocketOption::leave_v6(group, 1));
        assert_eq!((joined, left, again), (Ok(0), Ok(0), Err(libc::EADDRNOTAVAIL)));
    }

    // What can't be set.
    for (option, errno) in [
        (SocketOption::number(OptionLevel::Ip, 64, 0), libc::ENOPROTOOPT),
        (SocketOption::number(OptionLevel::Socket, libc::SO_ATTACH_BPF, 0), libc::ENOPROTOOPT),
        (SocketOption::number(OptionLevel::Socket, libc::SO_TYPE, 0), libc::ENOPROTOOPT),
        (SocketOption::congestion(c"a name that nothing has"), libc::ENOPROTOOPT),
        (SocketOption::congestion(c"nobody"), libc::ENOENT),
        (SocketOption::keepalive_idle(Duration::ZERO), libc::EINVAL),
    ] {
        assert_eq!(set(tcp_pair().0.into(), option).0, Err(errno), "{option:?}");
    }
    assert_eq!(set(pipe().0, SocketOption::keepalive(true)).0, Err(libc::EOPNOTSUPP));
}

/// A TCP socket for IPv4 or IPv6, as far as there is such a thing here.
fn tcp_socket(raw: &impl Fn() -> RawRing, domain: i32) -> Result<OwnedFd, i32> {
    let (completion, ()) = complete_on(raw(), (), move |()| request::socket(domain, libc::SOCK_STREAM, 0));
    outcome(&completion)?;
    Ok(completion.into_fd().unwrap())
}

pub fn a_socket_says_what_it_is_and_what_went_wrong(raw: impl Fn() -> RawRing) {
    if !has_options(raw()) {
        return;
    }
    let ask = |socket: OwnedFd, query| {
        let (result, (socket, number)) =
            once_on(raw(), (socket, -7), move |(socket, number)| request::get_option(socket, query, number));
        ((result, number), socket)
    };
    let listener: OwnedFd = TcpListener::bind("127.0.0.1:0").unwrap().into();
    let (client, _server) = tcp_pair();
    let client: OwnedFd = client.into();
    for (query, of_listener, of_client) in [
        (SocketQuery::Error, 0, 0),
        (SocketQuery::Domain, libc::AF_INET, libc::AF_INET),
        (SocketQuery::Kind, libc::SOCK_STREAM, libc::SOCK_STREAM),
        (SocketQuery::Protocol, libc::IPPROTO_TCP, libc::IPPROTO_TCP),
        (SocketQuery::Listens, 1, 0),
    ] {
        for (socket, expected) in [(&listener, of_listener), (&client, of_client)] {
            let (answer, _) = ask(socket.try_clone().unwrap(), query);
            assert_eq!(answer, (Ok(4), expected), "{query:?}");
        }
    }
    for (query, name) in [
        (SocketQuery::ReceiveBuffer, libc::SO_RCVBUF),
        (SocketQuery::SendBuffer, libc::SO_SNDBUF),
        (SocketQuery::IncomingCpu, libc::SO_INCOMING_CPU),
        (SocketQuery::IncomingQueue, libc::SO_INCOMING_NAPI_ID),
    ] {
        let ((result, answer), socket) = ask(listener.try_clone().unwrap(), query);
        assert_eq!((result, answer), (Ok(4), number(&socket, libc::SOL_SOCKET, name)), "{query:?}");
    }
    assert_eq!(ask(pipe().0, SocketQuery::Error).0, (Err(libc::EOPNOTSUPP), -7), "the number is as before");

    // The error is told once.
    let (_deaf, address) = deaf_to_datagrams();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    udp.connect(address).unwrap();
    udp.send(b"is there anybody?").unwrap();
    let (refused, udp) = ask(udp.into(), SocketQuery::Error);
    let (again, _) = ask(udp, SocketQuery::Error);
    assert_eq!((refused, again), ((Ok(4), libc::ECONNREFUSED), (Ok(4), 0)));
}

pub fn a_socket_says_how_much_is_in_its_queues(raw: impl Fn() -> RawRing) {
    if !has_options(raw()) {
        return;
    }
    let (client, mut server) = tcp_pair();
    server.write_all(b"hello").unwrap();
    client.peek(&mut [0]).unwrap();
    let (unread, client) = once_on(raw(), client, |client| request::bytes_to_receive(client));
    { &client }.read_exact(&mut [0; 3]).unwrap();
    let (less, client) = once_on(raw(), client, |client| request::bytes_to_receive(client));
    assert_eq!((unread, less), (Ok(5), Ok(2)));
    // It is all the same whether the peer receives it: its kernel says that it has come in.
    loop {
        let (unacknowledged, _) =
            once_on(raw(), server.try_clone().unwrap(), |server| request::bytes_to_acknowledge(server));
        match unacknowledged {
            Ok(0) => break,
            other => assert_eq!(other, Ok(5)),
        }
    }
    // The peer's window is shut: something has been left.
    client.set_nonblocking(true).unwrap();
    let mut sent = 0;
    while let Ok(more) = { &client }.write(&[0; 65536]) {
        sent += more as u32;
    }
    let (left, _) = once_on(raw(), client, |client| request::bytes_to_acknowledge(client));
    assert!(matches!(left, Ok(left) if left > 0 && left <= sent), "{left:?}");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (one, listener) = once_on(raw(), listener, |listener| request::bytes_to_receive(listener));
    let (other, _) = once_on(raw(), listener, |listener| request::bytes_to_acknowledge(listener));
    assert_eq!((one, other), (Err(libc::EINVAL), Err(libc::EINVAL)));
    let (of_pipe, _) = once_on(raw(), pipe().0, |pipe| request::bytes_to_receive(pipe));
    assert_eq!(of_pipe, Err(libc::EOPNOTSUPP));
}

/// What a connection in the ring's own table goes through.
enum Stage {
    Accept(TcpListener),
    Set { socket: FixedFile, option: SocketOption },
    Ask { socket: FixedFile, buffer: i32 },
    Count(FixedFile),
    Install(FixedFile),
}

impl Stage {
    fn request(&mut self) -> Request<'_> {
        match self {
            Stage::Accept(listener) => request::accept_direct(listener),
            Stage::Set { socket, option } => request::set_option(socket, option),
            Stage::Ask { socket, buffer } => request::get_option(socket, SocketQuery::SendBuffer, buffer),
            Stage::Count(socket) => request::bytes_to_receive(socket),
            Stage::Install(socket) => request::install(socket),
        }
    }
}

pub fn a_direct_descriptor_has_options(raw: impl Fn() -> RawRing) {
    if !has_options(raw()) {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    client.write_all(b"hello").unwrap();
    let seen = Log::new();
    let log = seen.clone();
    let script = Script::new()
        .on_setup_once(move |mut submitter| {
            submitter.submit(Stage::Accept(listener), Stage::request)?;
            Ok(())
        })
        .on_completion(move |completion, stage, mut submitter| {
            let next = match stage {
                Stage::Accept(_) => Stage::Set {
                    socket: completion.into_fixed_file().unwrap(),
                    option: SocketOption::send_buffer(10_000),
                },
                Stage::Set { socket, option } => {
                    assert_eq!(outcome(&completion), Ok(0));
                    match option == SocketOption::nodelay(true) {
                        true => Stage::Ask { socket, buffer: 0 },
                        false => Stage::Set { socket, option: SocketOption::nodelay(true) },
                    }
                }
                Stage::Ask { socket, buffer } => {
                    assert_eq!((outcome(&completion), buffer), (Ok(4), 20_000));
                    Stage::Count(socket)
                }
                Stage::Count(socket) => {
                    assert_eq!(outcome(&completion), Ok(5));
                    Stage::Install(socket)
                }
                Stage::Install(_) => {
                    log.push(TcpStream::from(completion.into_fd().unwrap()).nodelay().unwrap());
                    return (ControlFlow::Continue, None);
                }
            };
            submitter.submit(next, Stage::request).unwrap();
            (ControlFlow::Continue, None)
        });
    let builder = Bench::builder(script, Script::new()).raw_ring(raw());
    builder.direct_descriptors(NonZeroU32::MIN).build().unwrap().run().unwrap();
    assert_eq!(seen.take(), [true]);
}
