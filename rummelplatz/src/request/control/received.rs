//! Control messages that were received, and the descriptors among them.

use std::fmt;
use std::iter;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{FromRawFd, OwnedFd};
use std::slice;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::super::Peer;
use super::super::aside::Piece;
use super::{ALIGNMENT, ControlMessage, Credentials, Found, HEADER, PacketInfo, SCM_PIDFD, has_descriptors};

/// What came with a message, besides its bytes, as found out by [`recv_message`](super::super::recv_message): kept in
/// the data of the request.
///
/// Descriptors that nobody [takes](Self::take_fds) are closed when this is dropped, or used for another request.
///
/// ```
/// # use rummelplatz::{request, request::{RecvControl, Request, SendControl}, Completion, RingOperation, Submitter, ring};
/// # use std::{error::Error, fs::File, io::{self, Read, Write}, os::unix::net::UnixStream};
/// struct Receiving { socket: UnixStream, bytes: [u8; 64], control: RecvControl }
///
/// impl Receiving {
///     fn request(&mut self) -> Request<'_> {
///         request::recv_message(&self.socket, &mut self.bytes, &mut self.control)
///     }
/// }
/// # #[ring]
/// # struct Server { receivers: Receivers }
/// # #[derive(RingOperation)]
/// # #[ring_operation(ring = Server, data = Receiving, error = io::Error, on_completion)]
/// # struct Receivers { said: String }
///
/// impl Receivers {
///     fn on_completion(&mut self, completion: Completion, mut received: Receiving, _: Submitter<'_, Server, Self>)
///         -> io::Result<()>
///     {
///         let length = completion.result()? as usize;
///         println!("{:?}", &received.bytes[..length]);
///         for fd in received.control.take_fds() {
///             let mut file = File::from(fd);
///             file.read_to_string(&mut self.said)?;
///         }
///         Ok(())
///     }
/// }
/// # fn main() -> Result<(), Box<dyn Error>> {
/// # let (socket, other) = UnixStream::pair()?;
/// # struct Passing { socket: UnixStream, file: io::PipeReader, control: SendControl }
/// # impl Passing {
/// #     fn request(&mut self) -> Request<'_> {
/// #         request::send_message(&self.socket, [&b"a file"[..]], self.control.start().fds([&self.file]))
/// #     }
/// # }
/// # #[ring]
/// # struct Client { senders: Senders }
/// # #[derive(RingOperation)]
/// # #[ring_operation(ring = Client, data = Passing)]
/// # struct Senders;
/// # let (file, mut writer) = io::pipe()?;
/// # writer.write_all(b"hello")?;
/// # drop(writer);
/// # let mut client = Client::builder(Senders).build()?;
/// # let passing = Passing { socket: other, file, control: SendControl::new() };
/// # client.submitter(Client::SENDERS).submit(passing, Passing::request)?;
/// # client.run()?;
/// # let mut server = Server::builder(Receivers { said: String::new() }).build()?;
///
/// let received = Receiving { socket, bytes: [0; 64], control: RecvControl::new() };
/// server.submitter(Server::RECEIVERS).submit(received, Receiving::request)?;
/// # server.run()?;
/// # assert_eq!(server.receivers.said, "hello");
/// # Ok(()) }
/// ```
pub struct RecvControl {
    peer: Peer,
    /// Where the kernel writes messages. It has written as many bytes as the header says, once the request has
    /// succeeded; before, and otherwise, there are only zeroes, and so there is no message. What has descriptors owns
    /// them; one that was taken is -1.
    area: Box<[usize]>,
}

impl Default for RecvControl {
    fn default() -> Self {
        Self::new()
    }
}

impl RecvControl {
    /// Nothing yet, with room for 256 bytes of control messages: for all those together that this type has a function
    /// for, and some twenty descriptors, or for 60 descriptors.
    pub fn new() -> RecvControl {
        RecvControl::with_room(256)
    }

    /// Nothing yet, with room for so many bytes of control messages. See [`room_for`](Self::room_for).
    ///
    /// 253 descriptors are the most that can be in one message.
    pub fn with_room(bytes: usize) -> RecvControl {
        RecvControl { peer: Peer::new(), area: vec![0; bytes.div_ceil(ALIGNMENT)].into() }
    }

    /// How much room a control message of so many bytes takes (`CMSG_SPACE`). Each descriptor has four bytes.
    ///
    /// ```
    /// # use rummelplatz::request::RecvControl;
    /// let hundred_descriptors = RecvControl::with_room(RecvControl::room_for(100 * 4));
    /// ```
    pub const fn room_for(bytes: usize) -> usize {
        bytes.saturating_add(HEADER + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT
    }

    /// Arranges that a message is received into this piece, and what comes with it here. Returns where the kernel finds
    /// these instructions.
    pub(in super::super) fn receive(&mut self, piece: Piece) -> u64 {
        self.close();
        self.area.fill(0);
        self.peer.receive_with(piece, &mut self.area)
    }

    /// The Internet address that the message came from, if it came from one.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.peer.address()
    }

    /// Whether the message was longer than there was room for (`MSG_TRUNC`): the rest is lost.
    pub fn is_truncated(&self) -> bool {
        self.peer.header().flags() & libc::MSG_TRUNC != 0
    }

    /// Whether there was more control data than there was room for (`MSG_CTRUNC`), or more descriptors than this process
    /// may have open: the rest is lost. The kernel closes descriptors that are lost.
    pub fn is_control_truncated(&self) -> bool {
        self.peer.header().flags() & libc::MSG_CTRUNC != 0
    }

    /// Takes the descriptors that were passed with the message (`SCM_RIGHTS`), in order. They are close-on-exec.
    ///
    /// Those that the iterator has not come to when it is dropped stay here.
    pub fn take_fds(&mut self) -> impl Iterator<Item = OwnedFd> {
        iter::from_fn(|| self.take(|kind| kind == libc::SCM_RIGHTS))
    }

    /// Takes the descriptor of the process that has sent the message (`SCM_PIDFD`, since 6.5), if the socket's option
    /// `SO_PASSPIDFD` is set. It is close-on-exec.
    pub fn take_pidfd(&mut self) -> Option<OwnedFd> {
        self.take(|kind| kind == SCM_PIDFD)
    }

    /// The size of the datagrams that were joined (`UDP_GRO`), if the socket's option of that name is set (since 5.0),
    /// and several were. The last of them may be shorter. It is not 0.
    pub fn segment_size(&self) -> Option<u16> {
        let size = self.find(libc::SOL_UDP, libc::UDP_GRO).map(i32::from_ne_bytes)?;
        u16::try_from(size).ok().filter(|size| *size > 0)
    }

    /// Where a datagram was sent to, and where it came in, if the socket's option `IP_PKTINFO` or `IPV6_RECVPKTINFO` is
    /// set.
    pub fn packet_info(&self) -> Option<PacketInfo> {
        if let Some(info) = self.find::<12>(libc::IPPROTO_IP, libc::IP_PKTINFO) {
            let [interface, local, destination] = *info.as_chunks().0 else { return None };
            let [local, destination] =
                [local, destination].map(|octets| IpAddr::from(Ipv4Addr::from_octets(octets)));
            return Some(PacketInfo { destination, local, interface: u32::from_ne_bytes(interface) });
        }
        let info = self.find::<20>(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO)?;
        let (octets, rest) = info.split_first_chunk()?;
        let destination = Ipv6Addr::from_octets(*octets).into();
        let interface = u32::from_ne_bytes(*rest.first_chunk()?);
        Some(PacketInfo { destination, local: destination, interface })
    }

    /// The traffic class of a datagram, if the socket's option `IP_RECVTOS` or `IPV6_RECVTCLASS` is set: the two lowest
    /// bits are those of ECN.
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
        let [seconds, nanoseconds] = [seconds, nanoseconds].map(|bytes| u64::from_ne_bytes(bytes));
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

    /// All control messages, as they were received, except those that are about descriptors: there are
    /// [`take_fds`](Self::take_fds) and [`take_pidfd`](Self::take_pidfd) for those.
    pub fn messages(&self) -> impl Iterator<Item = ControlMessage<'_>> {
        let area = self.written();
        let plain = Found::all(area).filter(|it| !has_descriptors(it.level, it.kind));
        plain.filter_map(|Found { level, kind, bytes }| {
            Some(ControlMessage { level, kind, bytes: area.get(bytes)? })
        })
    }

    /// The bytes of the first message of this kind, if there are at least so many.
    fn find<const N: usize>(&self, level: i32, kind: i32) -> Option<[u8; N]> {
        let found = self.messages().find(|it| (it.level, it.kind) == (level, kind))?;
        found.bytes.first_chunk().copied()
    }

    /// How many bytes the kernel has written, at most.
    fn written_length(&self) -> usize {
        self.peer.header().control_length().min(size_of_val(&*self.area))
    }

    /// What the kernel has written.
    fn written(&self) -> &[u8] {
        // SAFETY: the area has at least as many bytes, and they are borrowed for as long as it is. Any bytes are valid.
        unsafe { slice::from_raw_parts(self.area.as_ptr().cast(), self.written_length()) }
    }

    fn written_mut(&mut self) -> &mut [u8] {
        let length = self.written_length();
        // SAFETY: the area has at least as many bytes, and they are borrowed for as long as it is. Any bytes are valid,
        // for these bytes and for the numbers that they are a part of.
        unsafe { slice::from_raw_parts_mut(self.area.as_mut_ptr().cast(), length) }
    }

    /// Takes the first descriptor that is still here, of messages of these kinds.
    fn take(&mut self, is_meant: impl Fn(i32) -> bool) -> Option<OwnedFd> {
        let area = self.written_mut();
        let mut at = 0;
        while let Some(found) = Found::at(at, area) {
            at = found.next();
            if !has_descriptors(found.level, found.kind) || !is_meant(found.kind) {
                continue;
            }
            for place in area.get_mut(found.bytes)?.as_chunks_mut().0 {
                let number = i32::from_ne_bytes(*place);
                // Where the kernel could open none, it has written an error.
                if number >= 0 {
                    *place = (-1_i32).to_ne_bytes();
                    // SAFETY: only the kernel writes numbers there, in a request that got the area full of zeroes, of
                    // descriptors that it has opened for whoever has made the request. Nobody else owns this one:
                    // no other function tells a number, and here it is forgotten.
                    return Some(unsafe { OwnedFd::from_raw_fd(number) });
                }
            }
        }
        None
    }

    /// As if the kernel had received these messages.
    #[cfg(test)]
    pub(super) fn pretend(&mut self, messages: &[u8]) {
        self.written_mut()[..messages.len()].copy_from_slice(messages);
        self.peer.header_mut().control(self.area.as_ptr(), messages.len());
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.area.iter().all(|number| *number == 0)
    }

    /// Closes the descriptors that nobody has taken.
    fn close(&mut self) {
        while self.take(|_| true).is_some() {}
    }
}

impl Drop for RecvControl {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for RecvControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("RecvControl");
        shown.field("peer", &self.peer()).field("messages", &Found::all(self.written()).count());
        shown.finish_non_exhaustive()
    }
}
