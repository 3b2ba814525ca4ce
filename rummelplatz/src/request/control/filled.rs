//! Control messages as if they had been received.

use std::fmt;
use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{SystemTime, UNIX_EPOCH};

use super::super::Peer;
use super::{ControlMessages, Credentials, PacketInfo, RecvControl, SCM_PIDFD, append, has_descriptors};

/// Control messages as if they had been received: for tests of your own operations, which get them by
/// [`RecvControl::fill`] and [`Datagram::fill_with`](crate::Datagram::fill_with).
///
/// ```
/// # use rummelplatz::request::{FillControl, RecvControl};
/// # use std::{fs::File, io::{self, Read, Write}, os::fd::OwnedFd};
/// let (reader, mut writer) = io::pipe()?;
/// writer.write_all(b"hello")?;
/// drop(writer);
/// let mut control = RecvControl::fill(None, FillControl::new().fds([OwnedFd::from(reader)]));
///
/// // What a handler of `recv_message` does with it.
/// let mut said = String::new();
/// for fd in control.take_fds() {
///     File::from(fd).read_to_string(&mut said)?;
/// }
/// assert_eq!(said, "hello");
/// # io::Result::Ok(())
/// ```
#[derive(Default)]
pub struct FillControl {
    area: Vec<u8>,
    /// What the messages of the area name, in order.
    descriptors: Vec<OwnedFd>,
    flags: libc::c_int,
}

impl FillControl {
    /// Nothing.
    pub fn new() -> FillControl {
        FillControl::default()
    }

    /// Descriptors that were passed: see [`RecvControl::take_fds`].
    pub fn fds(self, fds: impl IntoIterator<Item = OwnedFd>) -> Self {
        self.with_descriptors(libc::SCM_RIGHTS, fds)
    }

    /// The descriptor of a process: see [`RecvControl::take_pidfd`].
    pub fn pidfd(self, fd: OwnedFd) -> Self {
        self.with_descriptors(SCM_PIDFD, [fd])
    }

    /// See [`ControlMessages::segment_size`](super::ControlMessages::segment_size).
    pub fn segment_size(self, bytes: u16) -> Self {
        self.with(libc::SOL_UDP, libc::UDP_GRO, &i32::from(bytes).to_ne_bytes())
    }

    /// See [`ControlMessages::packet_info`](super::ControlMessages::packet_info). With IPv6, there is no other local
    /// address than the destination.
    pub fn packet_info(self, info: PacketInfo) -> Self {
        let PacketInfo { destination, local, interface } = info;
        let interface = interface.to_ne_bytes();
        match (destination, local) {
            (IpAddr::V4(destination), IpAddr::V4(local)) => {
                let info = [interface, local.octets(), destination.octets()];
                self.with(libc::IPPROTO_IP, libc::IP_PKTINFO, info.as_flattened())
            }
            (destination, _) => {
                let destination = match destination {
                    IpAddr::V4(destination) => destination.to_ipv6_mapped(),
                    IpAddr::V6(destination) => destination,
                };
                let info = [&destination.octets()[..], &interface].concat();
                self.with(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info)
            }
        }
    }

    /// See [`ControlMessages::traffic_class`](super::ControlMessages::traffic_class).
    pub fn traffic_class(self, class: u8) -> Self {
        self.with(libc::IPPROTO_IP, libc::IP_TOS, &[class])
    }

    /// See [`ControlMessages::timestamp`](super::ControlMessages::timestamp). What comes before 1970 is 1970.
    pub fn timestamp(self, time: SystemTime) -> Self {
        let time = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let time = [time.as_secs(), time.subsec_nanos().into()].map(u64::to_ne_bytes);
        self.with(libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS, time.as_flattened())
    }

    /// See [`ControlMessages::credentials`](super::ControlMessages::credentials).
    pub fn credentials(self, credentials: Credentials) -> Self {
        let Credentials { pid, uid, gid } = credentials;
        let numbers = [pid, uid, gid].map(u32::to_ne_bytes);
        self.with(libc::SOL_SOCKET, libc::SCM_CREDENTIALS, numbers.as_flattened())
    }

    /// Any other message: see [`ControlMessages::iter`](super::ControlMessages::iter).
    ///
    /// # Panics
    ///
    /// If messages of this kind have descriptors, which are owned: see [`fds`](Self::fds) and [`pidfd`](Self::pidfd).
    pub fn message(self, level: i32, kind: i32, bytes: &[u8]) -> Self {
        assert!(!has_descriptors(level, kind), "descriptors are owned: `fds` and `pidfd` take them");
        self.with(level, kind, bytes)
    }

    /// The message was longer than there was room for: see [`RecvControl::is_truncated`].
    pub fn truncated(mut self) -> Self {
        self.flags |= libc::MSG_TRUNC;
        self
    }

    /// There were more control messages than there was room for: see [`RecvControl::is_control_truncated`].
    pub fn control_truncated(mut self) -> Self {
        self.flags |= libc::MSG_CTRUNC;
        self
    }

    fn with(mut self, level: i32, kind: i32, bytes: &[u8]) -> Self {
        append(&mut self.area, level, kind, [bytes]);
        self
    }

    fn with_descriptors(mut self, kind: i32, fds: impl IntoIterator<Item = OwnedFd>) -> Self {
        let before = self.descriptors.len();
        self.descriptors.extend(fds);
        let numbers = self.descriptors[before..].iter().map(|fd| fd.as_raw_fd().to_ne_bytes());
        append(&mut self.area, libc::SOL_SOCKET, kind, numbers);
        self
    }

    /// Those messages that have no descriptors, as many as there is room for, and what is said of them. The descriptors
    /// are closed.
    pub(in super::super) fn into_plain(self, room: usize) -> (Vec<u8>, libc::c_int) {
        let mut plain = Vec::new();
        let mut flags = self.flags;
        for message in ControlMessages::new(&self.area).iter() {
            let before = plain.len();
            append(&mut plain, message.level, message.kind, [message.bytes]);
            if plain.len() > room {
                plain.truncate(before);
                flags |= libc::MSG_CTRUNC;
                break;
            }
        }
        (plain, flags)
    }
}

impl RecvControl {
    /// What a message from `peer` with these control messages leaves here: for tests of your own operations.
    pub fn fill(peer: Option<SocketAddr>, control: FillControl) -> RecvControl {
        let FillControl { area, descriptors, flags } = control;
        let mut filled = RecvControl::with_room(area.len());
        // From here on, they belong to the messages that name them.
        descriptors.into_iter().for_each(mem::forget);
        // SAFETY: the descriptors that the messages name belonged to `control`, and do not any more.
        unsafe { filled.pretend(&area, peer.map_or_else(Peer::new, Peer::from), flags) };
        filled
    }
}

impl fmt::Debug for FillControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FillControl")
            .field("messages", &ControlMessages::new(&self.area))
            .field("descriptors", &self.descriptors)
            .finish_non_exhaustive()
    }
}
