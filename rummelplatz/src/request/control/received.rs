//! Control messages that were received, and the descriptors among them.

use std::fmt;
use std::iter;
use std::net::SocketAddr;
use std::os::fd::{FromRawFd, OwnedFd};
use std::slice;

use super::super::Peer;
use super::super::aside::Piece;
use super::{ALIGNMENT, ControlMessages, Found, HEADER, SCM_PIDFD, has_descriptors};
use crate::mutant;

/// What came with a message, besides its bytes, as found out by [`recv_message`](super::super::recv_message): kept
/// in the data of the request.
///
/// Until that has completed, and if it has failed, nothing is known.
///
/// Descriptors that nobody [takes](Self::take_fds) are closed when this is dropped, or used for another request.
///
/// ```
/// # use rummelplatz::{request, request::{RecvControl, Request, SendControl}};
/// # use rummelplatz::{Completion, RingOperation, Submitter, ring};
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
    /// succeeded; before, and otherwise, there are only zeroes, and so there is no message. What has descriptors
    /// owns them; one that was taken is -1.
    area: Box<[usize]>,
}

impl Default for RecvControl {
    fn default() -> Self {
        Self::new()
    }
}

impl RecvControl {
    /// Nothing yet, with room for 256 bytes of control messages: for all those together that there is a function for,
    /// and 16 descriptors; or for 60 descriptors.
    pub fn new() -> RecvControl {
        RecvControl::with_room(256)
    }

    /// Nothing yet, with room for so many bytes of control messages. See [`room_for`](Self::room_for).
    ///
    /// 253 descriptors are the most that can be in one message.
    ///
    /// # Panics
    ///
    /// If that is more than `isize::MAX` bytes. As with a `Vec`, the process ends if there is not that much memory.
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

    /// Arranges that a message is received into this piece, and what comes with it here. Returns where the kernel
    /// finds these instructions.
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

    /// Whether there was more control data than there was room for (`MSG_CTRUNC`), or more descriptors than this
    /// process may have open: the rest is lost. The kernel closes descriptors that are lost.
    pub fn is_control_truncated(&self) -> bool {
        self.peer.header().flags() & libc::MSG_CTRUNC != 0
    }

    /// Takes the descriptors that were passed with the message (`SCM_RIGHTS`), in order. They are close-on-exec.
    ///
    /// Those that the iterator has not come to when it is dropped stay here.
    pub fn take_fds(&mut self) -> impl Iterator<Item = OwnedFd> {
        iter::from_fn(|| self.take(|kind| kind == libc::SCM_RIGHTS))
    }

    /// Takes the descriptor of the process that has sent the message (`SCM_PIDFD`, since 6.5), if the socket's
    /// option `SO_PASSPIDFD` is set. It is close-on-exec.
    pub fn take_pidfd(&mut self) -> Option<OwnedFd> {
        self.take(|kind| kind == SCM_PIDFD)
    }

    /// All that was said of the message, except for descriptors.
    pub fn messages(&self) -> ControlMessages<'_> {
        ControlMessages::new(self.written())
    }

    /// How many bytes the kernel has written, at most.
    fn written_length(&self) -> usize {
        self.peer.header().control_length().min(size_of_val(&*self.area))
    }

    /// What the kernel has written.
    fn written(&self) -> &[u8] {
        // SAFETY: the area has at least as many bytes, and they are borrowed for as long as it is. Any bytes are
        // valid.
        unsafe { slice::from_raw_parts(self.area.as_ptr().cast(), self.written_length()) }
    }

    fn written_mut(&mut self) -> &mut [u8] {
        let length = self.written_length();
        // SAFETY: the area has at least as many bytes, and they are borrowed for as long as it is. Any bytes are
        // valid, for these bytes and for the numbers that they are a part of.
        unsafe { slice::from_raw_parts_mut(self.area.as_mut_ptr().cast(), length) }
    }

    /// Takes the first descriptor that is still here, of messages of these kinds.
    fn take(&mut self, is_meant: impl Fn(i32) -> bool) -> Option<OwnedFd> {
        // SAFETY: only the kernel writes numbers there, in a request that got the area full of zeroes, and `pretend`,
        // whose caller promises the same. Nobody else owns what they name, because no other function tells a number.
        unsafe { take(self.written_mut(), is_meant) }
    }

    /// As if the kernel had received these messages from this peer, and said this of it; as many of them as there is
    /// room for.
    ///
    /// # Safety
    ///
    /// Nobody else has the descriptors that they name.
    pub(super) unsafe fn pretend(&mut self, messages: &[u8], peer: Peer, flags: i32) {
        self.peer = peer;
        self.peer.header_mut().receive(messages.len(), flags);
        self.written_mut().iter_mut().zip(messages).for_each(|(place, byte)| *place = *byte);
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.area.iter().all(|number| *number == 0)
    }

    /// Closes the descriptors that nobody has taken.
    fn close(&mut self) {
        // SAFETY: only the kernel and `pretend` write there, as for `take`; and what somebody has taken is not named there any more.
        unsafe { close(self.written_mut()) };
    }
}

/// Takes the first descriptor out of messages of these kinds; its place says then that there is none.
///
/// # Safety
///
/// The kernel has written the area, or it is zero, and nobody else owns the descriptors that are named there.
unsafe fn take(area: &mut [u8], is_meant: impl Fn(i32) -> bool) -> Option<OwnedFd> {
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
                // SAFETY: the kernel has opened it for whoever has made the request; the caller promises that
                // nobody else owns it, and its number is forgotten.
                return Some(unsafe { OwnedFd::from_raw_fd(number) });
            }
        }
    }
    None
}

/// Closes all descriptors in this area.
///
/// # Safety
///
/// The kernel has written the area, or it is zero, and nobody else owns the descriptors that are named there.
pub(in super::super) unsafe fn close(area: &mut [u8]) {
    // SAFETY: the caller's promise.
    while unsafe { take(area, |_| true) }.is_some() {}
}

impl Drop for RecvControl {
    fn drop(&mut self) {
        if !mutant::is("what came with a message stays open") {
            self.close();
        }
    }
}

impl fmt::Debug for RecvControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecvControl").field("peer", &self.peer()).field("messages", &self.messages()).finish()
    }
}
