//! A datagram in a buffer of a pool, behind what the kernel says of it.

use std::fmt;
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};

use super::address;
use super::aside::Header;
use crate::buffers::Buffer;

/// A datagram that was received, in a buffer of a [`BufferPool`](crate::BufferPool).
///
/// It is its bytes, and says [whom it is from](Self::peer). When it is dropped, the buffer goes back to the pool.
pub struct Datagram {
    buffer: Buffer,
}

impl Datagram {
    /// What the kernel writes before the bytes: what is said of it (`struct io_uring_recvmsg_out`), and so much of its
    /// sender's address.
    pub const OVERHEAD: usize = SAID + NAME;

    /// One in a buffer, in which there are as many bytes as the kernel says.
    pub(crate) fn in_buffer(buffer: Buffer) -> Datagram {
        Datagram { buffer }
    }

    /// The Internet address that it came from, if it did come from one.
    pub fn peer(&self) -> Option<SocketAddr> {
        let length = self.said(0).min(NAME as u32) as usize;
        address::of_internet(self.buffer.get(SAID..SAID + length)?)
    }

    /// Whether it was longer than what there was room for: the rest is lost.
    pub fn is_truncated(&self) -> bool {
        self.said(2) & libc::MSG_TRUNC as u32 != 0
    }

    /// Whether there is an address of any kind that it came from.
    pub(crate) fn has_sender(&self) -> bool {
        self.said(0) > 0
    }

    /// One of the numbers of what is said of it, or 0 where nothing was received.
    fn said(&self, index: usize) -> u32 {
        let (numbers, _) = self.buffer.as_chunks();
        numbers.get(index).map_or(0, |bytes| u32::from_ne_bytes(*bytes))
    }
}

/// What the kernel is to receive: it copies this, and writes nothing to it.
pub(super) static ASKED: Header = Header::with_room_for_name(NAME as libc::socklen_t);

/// The number of bytes of a name, of control messages and of the payload, and the flags.
const SAID: usize = 4 * size_of::<u32>();
/// Room for the address of IPv6, which is the longest that can be told, and the bytes after it aligned.
const NAME: usize = 32;

impl Deref for Datagram {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.buffer.get(Self::OVERHEAD..).unwrap_or_default()
    }
}

impl DerefMut for Datagram {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.buffer.get_mut(Self::OVERHEAD..).unwrap_or_default()
    }
}

impl AsRef<[u8]> for Datagram {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Datagram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Datagram").field("length", &self.len()).field("peer", &self.peer()).finish()
    }
}
