//! What control messages say.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{ControlMessage, Credentials, Found, PacketInfo, has_descriptors};

/// The control messages of a message that was received: what is said of it, besides its bytes and its sender.
///
/// See [`RecvControl::messages`](super::RecvControl::messages) and
/// [`Datagram::messages`](crate::Datagram::messages). Most of them come only if an option of the socket is set: by
/// `setsockopt(2)`, or by a [`SocketOption`](super::super::SocketOption), whose constructors of this kind begin with
/// `tell`.
#[derive(Clone, Copy)]
pub struct ControlMessages<'a> {
    area: &'a [u8],
}

impl<'a> ControlMessages<'a> {
    /// What the kernel has written.
    pub(in super::super) fn new(area: &'a [u8]) -> Self {
        ControlMessages { area }
    }

    /// The size of the datagrams that were joined (`UDP_GRO`), if several were, and if the socket's option of that name
    /// is [set](super::super::SocketOption::udp_gro) (since 5.0). The last of them may be shorter. It is not 0.
    pub fn segment_size(&self) -> Option<u16> {
        let size = self.find(libc::SOL_UDP, libc::UDP_GRO).map(i32::from_ne_bytes)?;
        u16::try_from(size).ok().filter(|size| *size > 0)
    }

    /// The datagrams that were [joined](Self::segment_size), given all their bytes: one, if none were joined.
    pub fn datagrams<'b>(&self, bytes: &'b [u8]) -> impl Iterator<Item = &'b [u8]> + use<'b> {
        let size = self.segment_size().map_or(bytes.len().max(1), usize::from);
        // An empty one is one, too.
        let empty = bytes.is_empty().then_some(bytes);
        empty.into_iter().chain(bytes.chunks(size))
    }

    /// Where a datagram was sent to, and where it came in, if the socket's option `IP_PKTINFO` or
    /// `IPV6_RECVPKTINFO` is set.
    pub fn packet_info(&self) -> Option<PacketInfo> {
        if let Some(info) = self.find::<12>(libc::IPPROTO_IP, libc::IP_PKTINFO) {
            let [interface, local, destination] = *info.as_chunks().0 else { return None };
            let [local, destination] = [local, destination].map(|octets| IpAddr::V4(Ipv4Addr::from(octets)));
            return Some(PacketInfo { destination, local, interface: u32::from_ne_bytes(interface) });
        }
        let info = self.find::<20>(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO)?;
        let (octets, rest) = info.split_first_chunk()?;
        let destination = Ipv6Addr::from(*octets).into();
        let interface = u32::from_ne_bytes(*rest.first_chunk()?);
        Some(PacketInfo { destination, local: destination, interface })
    }

    /// The traffic class of a datagram, if the socket's option `IP_RECVTOS` or `IPV6_RECVTCLASS` is set: the two
    /// lowest bits are those of ECN.
    pub fn traffic_class(&self) -> Option<u8> {
        let class = self.find(libc::IPPROTO_IP, libc::IP_TOS).map(u8::from_ne_bytes);
        class.or_else(|| {
            let class = i32::from_ne_bytes(self.find(libc::IPPROTO_IPV6, libc::IPV6_TCLASS)?);
            u8::try_from(class).ok()
        })
    }

    /// When the message was received, by the system's clock, if the socket's option `SO_TIMESTAMPNS` is set.
    pub fn timestamp(&self) -> Option<SystemTime> {
        let time: [u8; 16] = self.find(libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS)?;
        let [seconds, nanoseconds] = *time.as_chunks().0 else { return None };
        let [seconds, nanoseconds] = [seconds, nanoseconds].map(u64::from_ne_bytes);
        let nanoseconds = u32::try_from(nanoseconds).ok().filter(|it| *it < 1_000_000_000)?;
        UNIX_EPOCH.checked_add(Duration::new(seconds, nanoseconds))
    }

    /// Who has sent the message (`SCM_CREDENTIALS`), if the socket's option `SO_PASSCRED` is set.
    pub fn credentials(&self) -> Option<Credentials> {
        let numbers: [u8; 12] = self.find(libc::SOL_SOCKET, libc::SCM_CREDENTIALS)?;
        let [pid, uid, gid] = *numbers.as_chunks().0 else { return None };
        let [pid, uid, gid] = [pid, uid, gid].map(u32::from_ne_bytes);
        Some(Credentials { pid, uid, gid })
    }

    /// All of them, as they were received, except those that are about descriptors:
    /// [`take_fds`](super::RecvControl::take_fds) and [`take_pidfd`](super::RecvControl::take_pidfd) are for
    /// those.
    pub fn iter(&self) -> impl Iterator<Item = ControlMessage<'a>> + use<'a> {
        let area = self.area;
        let plain = Found::all(area).filter(|it| !has_descriptors(it.level, it.kind));
        plain.filter_map(|Found { level, kind, bytes }| {
            Some(ControlMessage { level, kind, bytes: area.get(bytes)? })
        })
    }

    /// The bytes of the first message of this kind, if there are at least so many.
    fn find<const N: usize>(&self, level: i32, kind: i32) -> Option<[u8; N]> {
        let found = self.iter().find(|it| (it.level, it.kind) == (level, kind))?;
        found.bytes.first_chunk().copied()
    }
}

impl fmt::Debug for ControlMessages<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
