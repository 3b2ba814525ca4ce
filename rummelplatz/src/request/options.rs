//! Requests about the options of sockets, and about their queues.

use std::ffi::CStr;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use io_uring::opcode;

use super::entry::bare;
use super::sqe::Usual;
use super::{Aside, Parts, Request, Target};

/// What is asked of a socket (`enum io_uring_socket_op`).
pub(crate) const SOCKET_URING_OP_SIOCINQ: u32 = 0;
pub(crate) const SOCKET_URING_OP_SIOCOUTQ: u32 = 1;
pub(crate) const SOCKET_URING_OP_GETSOCKOPT: u32 = 2;
pub(crate) const SOCKET_URING_OP_SETSOCKOPT: u32 = 3;

/// An option of a socket and the value that it is to have, for [`set_option`] (`setsockopt(2)`).
///
/// The numbers behind these names are the system's, and so is what they mean: `socket(7)`, `tcp(7)`, `udp(7)`, `ip(7)`,
/// `ipv6(7)`. Times are rounded up, and those that are too long are as long as can be said.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SocketOption {
    level: i32,
    name: i32,
    length: u32,
    value: [u8; SocketOption::MOST],
}

/// What an [option](SocketOption::number) is an option of.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum OptionLevel {
    /// Sockets of any kind (`SOL_SOCKET`).
    Socket = libc::SOL_SOCKET as isize,
    /// TCP (`IPPROTO_TCP`).
    Tcp = libc::IPPROTO_TCP as isize,
    /// UDP (`IPPROTO_UDP`).
    Udp = libc::IPPROTO_UDP as isize,
    /// IPv4 (`IPPROTO_IP`).
    Ip = libc::IPPROTO_IP as isize,
    /// IPv6 (`IPPROTO_IPV6`).
    Ipv6 = libc::IPPROTO_IPV6 as isize,
}

/// Whether a number is all that there is to this option, so that no number can do harm.
///
/// The value of some options is the number of a descriptor, and that could be anybody's. And the options of netfilter,
/// which begin at 64, are for structures with addresses that the kernel *writes to*; it did not always look at how long
/// the value is.
const fn is_plain(level: OptionLevel, name: i32) -> bool {
    match level {
        OptionLevel::Socket => !matches!(name, libc::SO_ATTACH_BPF | libc::SO_ATTACH_REUSEPORT_EBPF),
        OptionLevel::Ip => name < 64,
        OptionLevel::Ipv6 => name < 64 || name > 65 && name < 80,
        OptionLevel::Tcp | OptionLevel::Udp => true,
    }
}

/// An option that `libc` has no name for.
const SO_PASSPIDFD: i32 = 76;

/// Constructors for options whose value is a number.
macro_rules! numbers {
    ($($(#[$doc:meta])* $option:ident($value:ident: $type:tt) = $level:ident, $name:expr;)*) => {
        impl SocketOption {
            $(
                $(#[$doc])*
                pub const fn $option($value: $type) -> SocketOption {
                    SocketOption::number(OptionLevel::$level, $name, numbers!($type, $value))
                }
            )*
        }
    };
    (u32, $value:ident) => { saturated($value as u64) };
    ($type:tt, $value:ident) => { $value as i32 };
}

numbers! {
    /// Whether small pieces are sent at once, without waiting for more (`TCP_NODELAY`).
    nodelay(on: bool) = Tcp, libc::TCP_NODELAY;
    /// Whether partial frames are held back, up to 200 ms (`TCP_CORK`).
    cork(on: bool) = Tcp, libc::TCP_CORK;
    /// Whether acknowledgements are sent at once, for now (`TCP_QUICKACK`).
    quick_ack(on: bool) = Tcp, libc::TCP_QUICKACK;
    /// Whether the peer of an idle connection is asked whether it is still there (`SO_KEEPALIVE`).
    keepalive(on: bool) = Socket, libc::SO_KEEPALIVE;
    /// After how many questions without an answer the connection is over (`TCP_KEEPCNT`).
    keepalive_count(questions: u32) = Tcp, libc::TCP_KEEPCNT;
    /// How many connections may be opened with data at a time (`TCP_FASTOPEN`, on a listener).
    fast_open(queued: u32) = Tcp, libc::TCP_FASTOPEN;
    /// Whether a connect waits until there is something to be sent along with it (`TCP_FASTOPEN_CONNECT`).
    fast_open_connect(on: bool) = Tcp, libc::TCP_FASTOPEN_CONNECT;
    /// Up to how many bytes that were not sent yet the socket can be written to (`TCP_NOTSENT_LOWAT`).
    not_sent_low_water(bytes: u32) = Tcp, libc::TCP_NOTSENT_LOWAT;
    /// The size of the receive buffer, in bytes, which the kernel doubles (`SO_RCVBUF`).
    receive_buffer(bytes: u32) = Socket, libc::SO_RCVBUF;
    /// The size of the send buffer, in bytes, which the kernel doubles (`SO_SNDBUF`).
    send_buffer(bytes: u32) = Socket, libc::SO_SNDBUF;
    /// From how many bytes on there is something to be received (`SO_RCVLOWAT`).
    receive_low_water(bytes: u32) = Socket, libc::SO_RCVLOWAT;
    /// Whether the address may be one that was in use a moment ago (`SO_REUSEADDR`).
    reuse_address(on: bool) = Socket, libc::SO_REUSEADDR;
    /// Whether other sockets may be bound to the same address, to share what comes in (`SO_REUSEPORT`).
    reuse_port(on: bool) = Socket, libc::SO_REUSEPORT;
    /// Whether datagrams may be sent to everybody (`SO_BROADCAST`).
    broadcast(on: bool) = Socket, libc::SO_BROADCAST;
    /// For which CPU's connections or packets this socket is, of those that share an address (`SO_INCOMING_CPU`).
    incoming_cpu(cpu: u32) = Socket, libc::SO_INCOMING_CPU;
    /// Whether the network device is looked at by those who wait rather than by interrupts (`SO_PREFER_BUSY_POLL`).
    prefer_busy_poll(on: bool) = Socket, libc::SO_PREFER_BUSY_POLL;
    /// The priority of what is sent; more than 6 needs `CAP_NET_ADMIN` (`SO_PRIORITY`).
    priority(priority: u32) = Socket, libc::SO_PRIORITY;
    /// The type of service of what is sent over IPv4 (`IP_TOS`).
    type_of_service(bits: u8) = Ip, libc::IP_TOS;
    /// How many routers what is sent may pass, over IPv4 (`IP_TTL`).
    time_to_live(routers: u8) = Ip, libc::IP_TTL;
    /// Whether an address without a port gets one only when it connects (`IP_BIND_ADDRESS_NO_PORT`).
    bind_address_no_port(on: bool) = Ip, libc::IP_BIND_ADDRESS_NO_PORT;
    /// The traffic class of what is sent over IPv6 (`IPV6_TCLASS`).
    traffic_class(bits: u8) = Ipv6, libc::IPV6_TCLASS;
    /// How many routers what is sent may pass, over IPv6 (`IPV6_UNICAST_HOPS`).
    hop_limit(routers: u8) = Ipv6, libc::IPV6_UNICAST_HOPS;
    /// Whether an IPv6 socket is for IPv6 only, and not for IPv4 as well (`IPV6_V6ONLY`).
    only_v6(on: bool) = Ipv6, libc::IPV6_V6ONLY;
    /// Whether datagrams of one peer may be received together, one behind the other (`UDP_GRO`).
    udp_gro(on: bool) = Udp, libc::UDP_GRO;
    /// Into datagrams of how many bytes what is sent is cut; 0 for none (`UDP_SEGMENT`).
    udp_segment(bytes: u16) = Udp, libc::UDP_SEGMENT;
    /// Whether [it is said](super::ControlMessages::packet_info) where datagrams were sent to, over IPv4
    /// (`IP_PKTINFO`).
    tell_packet_info(on: bool) = Ip, libc::IP_PKTINFO;
    /// Whether [it is said](super::ControlMessages::packet_info) where datagrams were sent to, over IPv6
    /// (`IPV6_RECVPKTINFO`).
    tell_packet_info_v6(on: bool) = Ipv6, libc::IPV6_RECVPKTINFO;
    /// Whether [it is said](super::ControlMessages::traffic_class) of which type of service datagrams are, over IPv4
    /// (`IP_RECVTOS`).
    tell_type_of_service(on: bool) = Ip, libc::IP_RECVTOS;
    /// Whether [it is said](super::ControlMessages::traffic_class) of which traffic class datagrams are, over IPv6
    /// (`IPV6_RECVTCLASS`).
    tell_traffic_class(on: bool) = Ipv6, libc::IPV6_RECVTCLASS;
    /// Whether [it is said](super::ControlMessages::timestamp) when messages were received (`SO_TIMESTAMPNS`).
    tell_timestamp(on: bool) = Socket, libc::SO_TIMESTAMPNS;
    /// Whether [it is said](super::ControlMessages::credentials) who has sent messages, over Unix sockets
    /// (`SO_PASSCRED`).
    tell_credentials(on: bool) = Socket, libc::SO_PASSCRED;
    /// Whether messages over Unix sockets bring a [descriptor](super::RecvControl::take_pidfd) of the process that has
    /// sent them (`SO_PASSPIDFD`, since 6.5; before, `ENOPROTOOPT`).
    tell_pidfd(on: bool) = Socket, SO_PASSPIDFD;
}

impl SocketOption {
    /// How many bytes the longest value has (`struct ipv6_mreq`).
    const MOST: usize = 20;

    /// An option that nothing has: `ENOPROTOOPT`.
    const NONE: SocketOption = SocketOption::of_bytes(libc::SOL_SOCKET, -1, &[0; 4]);

    /// How long nothing is sent before the first question whether the peer is still there, in seconds
    /// (`TCP_KEEPIDLE`). See [`keepalive`](Self::keepalive).
    pub const fn keepalive_idle(time: Duration) -> SocketOption {
        SocketOption::number(OptionLevel::Tcp, libc::TCP_KEEPIDLE, seconds(time))
    }

    /// How much time there is between two such questions, in seconds (`TCP_KEEPINTVL`).
    pub const fn keepalive_interval(time: Duration) -> SocketOption {
        SocketOption::number(OptionLevel::Tcp, libc::TCP_KEEPINTVL, seconds(time))
    }

    /// How long a listener waits for a connection's first bytes before it has the connection, in seconds
    /// (`TCP_DEFER_ACCEPT`).
    pub const fn defer_accept(time: Duration) -> SocketOption {
        SocketOption::number(OptionLevel::Tcp, libc::TCP_DEFER_ACCEPT, seconds(time))
    }

    /// How long something that was sent may be without an acknowledgement before the connection is over, in
    /// milliseconds; 0 for the system's default (`TCP_USER_TIMEOUT`).
    pub const fn user_timeout(time: Duration) -> SocketOption {
        SocketOption::number(OptionLevel::Tcp, libc::TCP_USER_TIMEOUT, in_units(time, 1_000_000))
    }

    /// For how long whoever waits for the socket looks at the network device first, in microseconds (`SO_BUSY_POLL`).
    /// A ring looks by itself: see [`Builder::busy_poll`](crate::Builder::busy_poll).
    pub const fn busy_poll(time: Duration) -> SocketOption {
        SocketOption::number(OptionLevel::Socket, libc::SO_BUSY_POLL, in_units(time, 1_000))
    }

    /// What becomes of what was not sent yet when the socket is closed: without a time, it is sent in the background;
    /// with one, in seconds, the close waits for it; with none at all, the connection is reset (`SO_LINGER`).
    pub const fn linger(time: Option<Duration>) -> SocketOption {
        let [on, time] = match time {
            None => [0, 0],
            Some(time) => [1, seconds(time)],
        };
        let value = two_words(on, time);
        SocketOption::of_bytes(libc::SOL_SOCKET, libc::SO_LINGER, &value.to_ne_bytes())
    }

    /// How many bytes are sent each second, at most (`SO_MAX_PACING_RATE`).
    pub const fn pacing_rate(bytes: u64) -> SocketOption {
        // Before 4.20, and for a number of 32 bits, there is no more than that.
        match bytes {
            bytes if bytes < u32::MAX as u64 => {
                let value = (bytes as u32).to_ne_bytes();
                SocketOption::of_bytes(libc::SOL_SOCKET, libc::SO_MAX_PACING_RATE, &value)
            }
            _ => SocketOption::of_bytes(libc::SOL_SOCKET, libc::SO_MAX_PACING_RATE, &bytes.to_ne_bytes()),
        }
    }

    /// Which algorithm decides how fast is sent, `c"bbr"` for example (`TCP_CONGESTION`); `ENOENT` if the system does
    /// not have it.
    pub const fn congestion(algorithm: &CStr) -> SocketOption {
        SocketOption::text(libc::IPPROTO_TCP, libc::TCP_CONGESTION, algorithm)
    }

    /// To which network device the socket is bound, `c"eth0"` for example; `c""` for none (`SO_BINDTODEVICE`).
    pub const fn device(name: &CStr) -> SocketOption {
        SocketOption::text(libc::SOL_SOCKET, libc::SO_BINDTODEVICE, name)
    }

    /// Also receives what is sent to this group, on the network device with this index, or 0 for the system's choice
    /// (`IP_ADD_MEMBERSHIP`).
    pub const fn join_v4(group: Ipv4Addr, device: u32) -> SocketOption {
        SocketOption::membership(libc::IP_ADD_MEMBERSHIP, group, device)
    }

    /// The opposite of [`join_v4`](Self::join_v4) (`IP_DROP_MEMBERSHIP`).
    pub const fn leave_v4(group: Ipv4Addr, device: u32) -> SocketOption {
        SocketOption::membership(libc::IP_DROP_MEMBERSHIP, group, device)
    }

    /// As [`join_v4`](Self::join_v4), for IPv6 (`IPV6_ADD_MEMBERSHIP`).
    pub const fn join_v6(group: Ipv6Addr, device: u32) -> SocketOption {
        SocketOption::membership_v6(libc::IPV6_ADD_MEMBERSHIP, group, device)
    }

    /// The opposite of [`join_v6`](Self::join_v6) (`IPV6_DROP_MEMBERSHIP`).
    pub const fn leave_v6(group: Ipv6Addr, device: u32) -> SocketOption {
        SocketOption::membership_v6(libc::IPV6_DROP_MEMBERSHIP, group, device)
    }

    /// Any other option whose value is a number: `number(OptionLevel::Ip, libc::IP_FREEBIND, 1)`.
    ///
    /// Some options are not for this: those that take the number of a descriptor (`SO_ATTACH_BPF`,
    /// `SO_ATTACH_REUSEPORT_EBPF`), and netfilter's, from 64 on in IPv4, and 64, 65, and from 80 on in IPv6. They end
    /// with `ENOPROTOOPT`. For these, and for values that are no numbers, there are
    /// [raw entries](crate::Submitter::push), or the system call on a descriptor (see [`install`](super::install)).
    pub const fn number(level: OptionLevel, name: i32, value: i32) -> SocketOption {
        match is_plain(level, name) {
            true => SocketOption::of_bytes(level as i32, name, &value.to_ne_bytes()),
            false => SocketOption::NONE,
        }
    }

    /// A text of up to 15 bytes: the kernel would cut a longer one, and nothing has such a name.
    const fn text(level: i32, name: i32, text: &CStr) -> SocketOption {
        match text.to_bytes().len() < 16 {
            true => SocketOption::of_bytes(level, name, text.to_bytes_with_nul()),
            false => SocketOption::NONE,
        }
    }

    /// The value is a `struct ip_mreqn`: the group, the address of a device, and its index.
    const fn membership(name: i32, group: Ipv4Addr, device: u32) -> SocketOption {
        let ([a, b, c, d], [i, j, k, l]) = (group.octets(), device.to_ne_bytes());
        SocketOption::of_bytes(libc::IPPROTO_IP, name, &[a, b, c, d, 0, 0, 0, 0, i, j, k, l])
    }

    /// The value is a `struct ipv6_mreq`: the group, and the index of a device.
    const fn membership_v6(name: i32, group: Ipv6Addr, device: u32) -> SocketOption {
        let mut option = SocketOption::of_bytes(libc::IPPROTO_IPV6, name, &group.octets());
        let [i, j, k, l] = device.to_ne_bytes();
        let [.., one, two, three, four] = &mut option.value;
        (*one, *two, *three, *four) = (i, j, k, l);
        option.length = SocketOption::MOST as u32;
        option
    }

    const fn of_bytes(level: i32, name: i32, bytes: &[u8]) -> SocketOption {
        let mut value = [0; SocketOption::MOST];
        let (place, _) = value.split_at_mut(bytes.len());
        place.copy_from_slice(bytes);
        SocketOption { level, name, length: bytes.len() as u32, value }
    }
}

/// As much of a number as a signed one holds.
const fn saturated(number: u64) -> i32 {
    if number > i32::MAX as u64 { i32::MAX } else { number as i32 }
}

/// A time in units of so many nanoseconds, rounded up.
const fn in_units(time: Duration, unit: u128) -> i32 {
    let units = time.as_nanos().div_ceil(unit);
    if units > i32::MAX as u128 { i32::MAX } else { units as i32 }
}

const fn seconds(time: Duration) -> i32 {
    in_units(time, 1_000_000_000)
}

/// What has these two numbers in memory, one behind the other.
const fn two_words(first: i32, second: i32) -> u64 {
    let (first, second) = (first as u32 as u64, second as u32 as u64);
    if cfg!(target_endian = "big") { first << 32 | second } else { second << 32 | first }
}

/// What [`get_option`] finds out about a socket, as a number (`getsockopt(2)`, `socket(7)`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum SocketQuery {
    /// The error that has come up since this was asked for the last time, an `errno`, or 0 (`SO_ERROR`).
    Error = libc::SO_ERROR as isize,
    /// `AF_*` (`SO_DOMAIN`).
    Domain = libc::SO_DOMAIN as isize,
    /// `SOCK_*` (`SO_TYPE`).
    Kind = libc::SO_TYPE as isize,
    /// `IPPROTO_*` (`SO_PROTOCOL`).
    Protocol = libc::SO_PROTOCOL as isize,
    /// 1 for a listener, otherwise 0 (`SO_ACCEPTCONN`).
    Listens = libc::SO_ACCEPTCONN as isize,
    /// How many bytes the receive buffer has, by the kernel's own count (`SO_RCVBUF`).
    ReceiveBuffer = libc::SO_RCVBUF as isize,
    /// How many bytes the send buffer has, by the kernel's own count (`SO_SNDBUF`).
    SendBuffer = libc::SO_SNDBUF as isize,
    /// On which CPU the last packet came in (`SO_INCOMING_CPU`).
    IncomingCpu = libc::SO_INCOMING_CPU as isize,
    /// The number of the device's queue that the last packet came in by, or 0 (`SO_INCOMING_NAPI_ID`).
    IncomingQueue = libc::SO_INCOMING_NAPI_ID as isize,
}

/// Sets an option of a socket (`SOCKET_URING_OP_SETSOCKOPT`, since 6.7; before, `EOPNOTSUPP` or `EINVAL`), as
/// `setsockopt(2)`. The result is 0.
///
/// With the system call, whoever has a descriptor does the same at once. A socket of the ring's own table has none
/// (see [`accept_direct`](super::accept_direct)), and this is how it gets its options. In a
/// [chain](crate::Submitter::chain), they are set before what follows. What is no socket has none: `EOPNOTSUPP`.
///
/// The kernel reads the option only when it carries out the request, so that stays in the data; or it is a constant:
///
/// ```
/// # use rummelplatz::{FixedFile, request, request::{Request, SocketOption}};
/// # use std::time::Duration;
/// struct Connection { socket: FixedFile, idle: SocketOption }
///
/// impl Connection {
///     fn send_at_once(&mut self) -> Request<'_> {
///         request::set_option(&self.socket, const { &SocketOption::nodelay(true) })
///     }
///     fn ask_when_idle(&mut self) -> Request<'_> {
///         request::set_option(&self.socket, &self.idle)
///     }
/// }
/// # fn new(socket: FixedFile) -> Connection {
/// Connection { socket, idle: SocketOption::keepalive_idle(Duration::from_secs(60)) }
/// # }
/// ```
#[doc(alias = "setsockopt")]
pub fn set_option<'d>(socket: &'d impl Target, option: &'d SocketOption) -> Request<'d> {
    let SocketOption { level, name, length, ref value } = *option;
    let entry = command(SOCKET_URING_OP_SETSOCKOPT, level, name);
    let value = value.as_ptr().expose_provenance() as u64;
    Parts::beside_on(socket, entry, Aside::Option { value, length }).request()
}

/// Finds out a number about a socket, and writes it to `number` (`SOCKET_URING_OP_GETSOCKOPT`, since 6.7; before,
/// `EOPNOTSUPP` or `EINVAL`), as `getsockopt(2)`. The result is how many bytes that number has, 4.
///
/// If the request fails, `number` is as before.
///
/// ```
/// # use rummelplatz::{FixedFile, request, request::{Request, SocketQuery}};
/// struct Connection { socket: FixedFile, errno: i32 }
///
/// impl Connection {
///     fn what_went_wrong(&mut self) -> Request<'_> {
///         request::get_option(&self.socket, SocketQuery::Error, &mut self.errno)
///     }
/// }
/// ```
#[doc(alias = "getsockopt")]
pub fn get_option<'d>(socket: &'d impl Target, query: SocketQuery, number: &'d mut i32) -> Request<'d> {
    let entry = command(SOCKET_URING_OP_GETSOCKOPT, libc::SOL_SOCKET, query as i32);
    let value = (&raw mut *number).expose_provenance() as u64;
    let length = size_of_val(number) as u32;
    Parts::beside_on(socket, entry, Aside::Option { value, length }).request()
}

/// How many bytes have come in that were not received yet (`SOCKET_URING_OP_SIOCINQ`, since 6.7; before, `EOPNOTSUPP`
/// or `EINVAL`), as `SIOCINQ` in `tcp(7)`; of a socket with datagrams, how many bytes the next one has. That is the
/// result.
///
/// A listener has none (`EINVAL`), and the kernel does not say of a Unix socket (`EOPNOTSUPP`, seen on 6.18).
#[doc(alias = "SIOCINQ")]
#[doc(alias = "FIONREAD")]
pub fn bytes_to_receive<'d>(socket: &'d impl Target) -> Request<'d> {
    Parts::usual_on(socket, command(SOCKET_URING_OP_SIOCINQ, 0, 0)).request()
}

/// How many bytes were sent that the peer has not acknowledged yet (`SOCKET_URING_OP_SIOCOUTQ`, since 6.7; before,
/// `EOPNOTSUPP` or `EINVAL`), as `SIOCOUTQ` in `tcp(7)`. That is the result.
///
/// A listener has none (`EINVAL`), and the kernel does not say of a Unix socket (`EOPNOTSUPP`, seen on 6.18).
#[doc(alias = "SIOCOUTQ")]
pub fn bytes_to_acknowledge<'d>(socket: &'d impl Target) -> Request<'d> {
    Parts::usual_on(socket, command(SOCKET_URING_OP_SIOCOUTQ, 0, 0)).request()
}

/// An entry that asks this of a socket; the value of an option is not set yet.
fn command(command: u32, level: i32, name: i32) -> Usual {
    let entry = bare(opcode::SetSockOpt::CODE.into(), -1);
    Usual { offset: two_words(command as i32, 0), address: two_words(level, name), ..entry }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The level, the name and the value, if that is one number.
    fn number(option: SocketOption) -> (i32, i32, i32) {
        let SocketOption { level, name, length: 4, value: [a, b, c, d, ..] } = option else {
            panic!("{option:?}")
        };
        (level, name, i32::from_ne_bytes([a, b, c, d]))
    }

    #[test]
    fn values_are_those_of_the_system_call() {
        let (socket, tcp) = (libc::SOL_SOCKET, libc::IPPROTO_TCP);
        assert_eq!(number(SocketOption::nodelay(true)), (tcp, libc::TCP_NODELAY, 1));
        assert_eq!(number(SocketOption::cork(false)), (tcp, libc::TCP_CORK, 0));
        assert_eq!(number(SocketOption::receive_buffer(u32::MAX)), (socket, libc::SO_RCVBUF, i32::MAX));
        assert_eq!(number(SocketOption::udp_segment(u16::MAX)).2, 65535);
        assert_eq!(number(SocketOption::type_of_service(0xB8)).2, 0xB8);
        for (time, seconds, millis) in [
            (Duration::ZERO, 0, 0),
            (Duration::from_nanos(1), 1, 1),
            (Duration::from_secs(1), 1, 1000),
            (Duration::from_micros(1_000_001), 2, 1001),
            (Duration::MAX, i32::MAX, i32::MAX),
        ] {
            assert_eq!(number(SocketOption::keepalive_idle(time)), (tcp, libc::TCP_KEEPIDLE, seconds));
            assert_eq!(number(SocketOption::user_timeout(time)), (tcp, libc::TCP_USER_TIMEOUT, millis));
        }
        let linger = |time| {
            let SocketOption { length: 8, value, .. } = SocketOption::linger(time) else {
                panic!("two numbers")
            };
            value.as_chunks().0[..2].iter().map(|word| i32::from_ne_bytes(*word)).collect::<Vec<_>>()
        };
        assert_eq!(linger(None), [0, 0]);
        assert_eq!(linger(Some(Duration::ZERO)), [1, 0]);
        assert_eq!(linger(Some(Duration::from_millis(1500))), [1, 2]);
        for (rate, length) in [(0, 4), (u64::from(u32::MAX) - 1, 4), (u32::MAX.into(), 8), (u64::MAX, 8)] {
            assert_eq!(SocketOption::pacing_rate(rate).length, length);
        }
        let joins = SocketOption::join_v6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb), 7);
        let (group, device) = joins.value.split_at(16);
        assert_eq!((joins.length, group[..2].to_vec(), group[15]), (20, vec![0xff, 2], 0xfb));
        assert_eq!(device, 7_u32.to_ne_bytes());
        let joins = SocketOption::join_v4(Ipv4Addr::new(224, 0, 0, 251), 7);
        assert_eq!((joins.length, &joins.value[..8]), (12, &[224, 0, 0, 251, 0, 0, 0, 0][..]));
        assert_eq!(joins.value[8..12], 7_u32.to_ne_bytes());
    }

    #[test]
    fn no_number_names_a_descriptor_or_leads_to_netfilter() {
        let none = SocketOption::NONE;
        for name in [libc::SO_ATTACH_BPF, libc::SO_ATTACH_REUSEPORT_EBPF] {
            assert_eq!(SocketOption::number(OptionLevel::Socket, name, 3), none);
        }
        for name in [64, 65, 66, 96, 97, 128, 1024, i32::MAX] {
            assert_eq!(SocketOption::number(OptionLevel::Ip, name, 3), none, "{name}");
        }
        for name in [64, 65, 80, 96, 128, i32::MAX] {
            assert_eq!(SocketOption::number(OptionLevel::Ipv6, name, 3), none, "{name}");
        }
        let freebind = SocketOption::number(OptionLevel::Ip, libc::IP_FREEBIND, 1);
        assert_eq!(number(freebind), (libc::IPPROTO_IP, libc::IP_FREEBIND, 1));
        assert_eq!(number(SocketOption::traffic_class(3)).1, libc::IPV6_TCLASS);
    }

    #[test]
    fn a_text_that_the_kernel_would_cut_is_none() {
        let option = SocketOption::congestion(c"reno");
        assert_eq!((option.length, &option.value[..5]), (5, &b"reno\0"[..]));
        assert_eq!(SocketOption::device(c"fifteen letters").length, 16);
        assert_eq!(SocketOption::device(c"sixteen letters!"), SocketOption::NONE);
        assert_eq!(SocketOption::device(c"").length, 1);
    }
}
