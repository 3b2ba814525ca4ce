//! Control messages to be sent.

use std::fmt;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};

use super::super::address::Address;
use super::super::aside::Header;
use super::append;

/// Room for the control messages of a [message that is sent](super::super::send_message): kept in the data of the
/// request, because the kernel reads them when it sends the message, which may be long after it was asked to.
///
/// It can be used again and again, and then allocates nothing.
///
/// ```
/// # use rummelplatz::{request, request::{Request, SendControl}};
/// # use std::{fs::File, os::unix::net::UnixStream};
/// struct Passing { socket: UnixStream, file: File, control: SendControl }
///
/// impl Passing {
///     fn request(&mut self) -> Request<'_> {
///         let control = self.control.start().fds([&self.file]);
///         request::send_message(&self.socket, [&b"a file"[..]], control)
///     }
/// }
/// ```
#[derive(Default)]
pub struct SendControl {
    messages: Vec<u8>,
    address: Option<Address>,
}

impl SendControl {
    /// No messages.
    pub const fn new() -> SendControl {
        SendControl { messages: Vec::new(), address: None }
    }

    /// Begins a message that has no control messages yet: those of the last one are forgotten.
    pub fn start(&mut self) -> Control<'_> {
        self.messages.clear();
        self.address = None;
        Control { memory: self }
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> &[u8] {
        &self.messages
    }
}

impl fmt::Debug for SendControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendControl").field("bytes", &self.messages.len()).finish_non_exhaustive()
    }
}

/// The control messages of one [message that is sent](super::super::send_message), made by [`SendControl::start`].
///
/// What is said twice is sent twice: mostly, the last counts. What the socket knows nothing of is ignored, or
/// refused (`EINVAL`).
#[must_use = "nothing is sent before it is given to `send_message`"]
pub struct Control<'d> {
    /// Also borrows the descriptors that are sent: for as long as the request may need them.
    memory: &'d mut SendControl,
}

impl<'d> Control<'d> {
    /// Passes descriptors to whoever receives the message (`SCM_RIGHTS`), over a socket of `AF_UNIX`. There they
    /// are other descriptors of the same open files, and they are [owned](super::RecvControl::take_fds).
    ///
    /// Over a stream, at least one byte must go with them. The kernel refuses more than 253 descriptors
    /// (`EINVAL`), a descriptor of an io_uring (`EINVAL`), and more in flight than may be open (`ETOOMANYREFS`). A
    /// file in the ring's table ([`FixedFile`](crate::FixedFile)) has no descriptor to be passed before one is
    /// [installed](crate::request::install).
    pub fn fds<F: AsFd + 'd>(self, fds: impl IntoIterator<Item = &'d F>) -> Self {
        let numbers = fds.into_iter().map(|fd| fd.as_fd().as_raw_fd().to_ne_bytes());
        self.with(libc::SOL_SOCKET, libc::SCM_RIGHTS, numbers)
    }

    /// Splits the bytes into datagrams of this size, the last of which may be shorter (`UDP_SEGMENT`, since 4.18).
    /// All of them pass through the kernel's network at once, as if they were one (GSO).
    ///
    /// There may be at most 64 of them, or 128 since 6.9, and 65 507 bytes in all over IPv4 (`EINVAL`,
    /// `EMSGSIZE`).
    pub fn segment_size(self, bytes: u16) -> Self {
        self.with(libc::SOL_UDP, libc::UDP_SEGMENT, [bytes.to_ne_bytes()])
    }

    /// Sends a datagram from this address, instead of the one that the kernel would choose, and through the
    /// interface of this number, if that is not 0 (`IP_PKTINFO`, `IPV6_PKTINFO`).
    ///
    /// To answer a datagram from the address that it was sent to, this is what [`PacketInfo`](super::PacketInfo)
    /// says. An address that is not one of this machine is refused (`EINVAL`, `ENETUNREACH`).
    pub fn source(self, address: impl Into<IpAddr>, interface: u32) -> Self {
        let interface = interface.to_ne_bytes();
        match address.into() {
            // `struct in_pktinfo` has another address, which does not matter here.
            IpAddr::V4(address) => {
                self.with(libc::IPPROTO_IP, libc::IP_PKTINFO, [interface, address.octets(), [0; 4]])
            }
            IpAddr::V6(address) => {
                let parts = [&address.octets()[..], &interface];
                self.with(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, parts)
            }
        }
    }

    /// Sends a datagram with this traffic class (`IP_TOS`, `IPV6_TCLASS`): the two lowest bits are those of ECN.
    pub fn traffic_class(self, class: u8) -> Self {
        let class = [i32::from(class).to_ne_bytes()];
        // A socket takes what is for its own protocol, and ignores the other.
        self.with(libc::IPPROTO_IP, libc::IP_TOS, class).with(libc::IPPROTO_IPV6, libc::IPV6_TCLASS, class)
    }

    /// Sends the message to this address, as [`send_to`](crate::request::send_to) does.
    pub fn to(self, address: impl Into<Address>) -> Self {
        self.memory.address = Some(address.into());
        self
    }

    /// Adds any other control message, such as `SCM_TXTIME`. `level` is one of libc's `SOL_*` or `IPPROTO_*`.
    ///
    /// # Safety
    ///
    /// Some control messages name descriptors (`SCM_RIGHTS`), or memory that the kernel is to use
    /// (`RDS_CMSG_RDMA_ARGS`). These must be good until the request is over.
    pub unsafe fn message(self, level: i32, kind: i32, bytes: &[u8]) -> Self {
        self.with(level, kind, [bytes])
    }

    fn with(self, level: i32, kind: i32, parts: impl IntoIterator<Item: AsRef<[u8]>>) -> Self {
        append(&mut self.memory.messages, level, kind, parts);
        self
    }

    /// A header that leads to this, as long as the memory stays where it is. The pieces are still to be added.
    pub(in super::super) fn header(self) -> Header {
        let SendControl { messages, address } = self.memory;
        let mut header = Header::default();
        if let Some(address) = address {
            header.name(address);
        }
        if !messages.is_empty() {
            header.control(messages.as_ptr(), messages.len());
        }
        header
    }
}

impl fmt::Debug for Control<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").field("bytes", &self.memory.messages.len()).finish_non_exhaustive()
    }
}
