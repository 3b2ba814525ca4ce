//! A datagram in a buffer of a pool, after what the kernel says about it.

use std::fmt;
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut, Range};

use super::address::{self, Address};
use super::aside::Header;
use super::control::{self, ControlMessages, FillControl};
use crate::buffers::{Buffer, BufferPool};

/// A datagram that was received, in a buffer of a [`BufferPool`](crate::BufferPool).
///
/// It dereferences to its bytes, and says [whom it is from](Self::peer), and perhaps [more](Self::messages). When it is
/// dropped, the buffer goes back to the pool.
pub struct Datagram {
    buffer: Buffer,
    layout: Layout,
}

/// How much of a buffer is for what is said of the datagram.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// The kernel's description, and an address.
    Addressed,
    /// These, and control messages.
    Controlled,
}

impl Layout {
    /// How many bytes that is.
    pub(crate) const fn overhead(self) -> u32 {
        (SAID + NAME + self.control()) as u32
    }

    /// How many of them are for control messages.
    const fn control(self) -> usize {
        match self {
            Layout::Addressed => 0,
            Layout::Controlled => CONTROL,
        }
    }
}

impl Datagram {
    /// What the kernel writes before the bytes: a description of the datagram (`struct io_uring_recvmsg_out`), and this
    /// much of its sender's address.
    pub const OVERHEAD: u32 = Layout::Addressed.overhead();

    /// The same, if there is also room for control messages ([`recv_message_multi`](super::recv_message_multi)):
    /// for all together that [`ControlMessages`] has a function for, and that come with datagrams.
    pub const OVERHEAD_WITH_CONTROL: u32 = Layout::Controlled.overhead();

    /// A datagram in a buffer of `pool`, as if it had been received: for tests of your own operations (see
    /// [`Completion::from_datagram`](crate::Completion::from_datagram)).
    ///
    /// `None` if [`BufferPool::fill`] has no buffer, which needs room for the bytes and the
    /// [overhead](Self::OVERHEAD).
    pub fn fill(pool: &BufferPool, peer: SocketAddr, bytes: &[u8]) -> Option<Datagram> {
        Datagram::filled(Layout::Addressed, pool, peer, (&[], 0), bytes)
    }

    /// The same, with [control messages](Self::messages), as from [`recv_message_multi`](super::recv_message_multi). As
    /// there, there is room only for so many, and descriptors are closed.
    ///
    /// ```
    /// # use rummelplatz::{BufferPool, Completion, Datagram, request::FillControl};
    /// let pool = BufferPool::new(1, 2048)?;
    /// let joined = FillControl::new().segment_size(2);
    /// let datagram = Datagram::fill_with(&pool, "127.0.0.1:7777".parse()?, joined, b"aabbc").expect("there is room");
    /// let completion = Completion::from_datagram(datagram);
    ///
    /// // What a handler of `recv_message_multi` does with it.
    /// let datagram = completion.into_datagram()?;
    /// let parts: Vec<_> = datagram.messages().datagrams(&datagram).collect();
    /// assert_eq!(parts, [&b"aa"[..], b"bb", b"c"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// `None` if [`BufferPool::fill`] has no buffer, which needs room for the bytes and the
    /// [overhead](Self::OVERHEAD_WITH_CONTROL).
    pub fn fill_with(
        pool: &BufferPool,
        peer: SocketAddr,
        control: FillControl,
        bytes: &[u8],
    ) -> Option<Datagram> {
        let (control, flags) = control.into_plain(CONTROL);
        Datagram::filled(Layout::Controlled, pool, peer, (&control, flags), bytes)
    }

    fn filled(
        layout: Layout,
        pool: &BufferPool,
        peer: SocketAddr,
        (control, flags): (&[u8], libc::c_int),
        bytes: &[u8],
    ) -> Option<Datagram> {
        let address = Address::from(peer);
        let lengths = [address.bytes().len(), control.len(), bytes.len()].map(|length| length as u32);
        let [name, controlled, payload] = lengths;
        let said = [name, controlled, payload, flags as u32].map(u32::to_ne_bytes);
        let mut all = [said.as_flattened(), address.bytes()].concat();
        all.resize(SAID + NAME, 0);
        all.extend_from_slice(control);
        all.resize(layout.overhead() as usize, 0);
        all.extend_from_slice(bytes);
        Some(Datagram::in_buffer(pool.fill(&all)?, layout))
    }

    /// The datagram in a buffer that holds as many bytes as the kernel says.
    pub(crate) fn in_buffer(buffer: Buffer, layout: Layout) -> Datagram {
        Datagram { buffer, layout }
    }

    pub(crate) fn into_parts(self) -> (Buffer, Layout) {
        (self.buffer, self.layout)
    }

    /// Closes the descriptors that came with the datagram: nobody could take them.
    ///
    /// # Safety
    ///
    /// The kernel has received the datagram into the buffer, and nobody else has had that since then. This is called
    /// once.
    #[cold]
    pub(crate) unsafe fn close_descriptors(&mut self) {
        let control = self.control();
        // SAFETY: the kernel has written as much as it says, and nobody has taken any of it.
        unsafe { control::close(self.buffer.get_mut(control).unwrap_or_default()) };
    }

    /// The Internet address that it came from, if it came from one.
    pub fn peer(&self) -> Option<SocketAddr> {
        let length = self.said(0).min(NAME as u32) as usize;
        address::of_internet(self.buffer.get(SAID..SAID + length)?)
    }

    /// All else that was said of the datagram, if it comes from [`recv_message_multi`](super::recv_message_multi);
    /// otherwise, nothing.
    pub fn messages(&self) -> ControlMessages<'_> {
        ControlMessages::new(self.buffer.get(self.control()).unwrap_or_default())
    }

    /// Whether there were more control messages than there was room for: the rest is lost.
    pub fn is_control_truncated(&self) -> bool {
        self.layout == Layout::Controlled && self.said(3) & libc::MSG_CTRUNC as u32 != 0
    }

    /// Whether it was longer than there was room for: the rest is lost.
    pub fn is_truncated(&self) -> bool {
        self.said(3) & libc::MSG_TRUNC as u32 != 0
    }

    /// Whether the kernel has told an address of any kind that it came from.
    pub(crate) fn has_sender(&self) -> bool {
        self.said(0) > 0
    }

    /// Whether the kernel has told anything by a control message.
    #[inline]
    pub(crate) fn is_controlled(&self) -> bool {
        self.layout == Layout::Controlled && self.said(1) > 0
    }

    /// Where the control messages are that the kernel has written.
    fn control(&self) -> Range<usize> {
        let start = SAID + NAME;
        start..start + (self.said(1) as usize).min(self.layout.control())
    }

    /// One of the numbers of the kernel's description, or 0 where nothing was received.
    #[inline]
    fn said(&self, index: usize) -> u32 {
        let (numbers, _) = self.buffer.as_chunks();
        numbers.get(index).map_or(0, |bytes| u32::from_ne_bytes(*bytes))
    }
}

/// What the kernel is asked to receive: it copies this, and writes nothing to it.
pub(super) static ASKED: Header = Header::with_room_for_name(NAME as libc::socklen_t);

/// The same, with control messages.
pub(super) static ASKED_WITH_CONTROL: Header =
    Header::with_room_for_name(NAME as libc::socklen_t).with_room_for_control(CONTROL);

/// The number of bytes of a name, of control messages and of the payload, and the flags.
const SAID: usize = 4 * size_of::<u32>();
/// Room for the address of IPv6, which is the longest that can be told, and for aligning the bytes after it.
const NAME: usize = 32;
/// Room for the control messages of `UDP_GRO` (24 bytes), `IPV6_PKTINFO` (40), `IPV6_TCLASS` (24),
/// `SO_TIMESTAMPNS` (32) and one like the first, and for aligning the bytes after them.
const CONTROL: usize = 144;

impl Deref for Datagram {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.buffer.get(self.layout.overhead() as usize..).unwrap_or_default()
    }
}

impl DerefMut for Datagram {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.buffer.get_mut(self.layout.overhead() as usize..).unwrap_or_default()
    }
}

impl AsRef<[u8]> for Datagram {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl AsMut<[u8]> for Datagram {
    fn as_mut(&mut self) -> &mut [u8] {
        self
    }
}

impl fmt::Debug for Datagram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Datagram").field("length", &self.len()).field("peer", &self.peer()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A buffer with what the kernel would say about a datagram, followed by this many bytes.
    fn received(pool: &BufferPool, said: [u32; 4], name: &[u8], bytes: &[u8]) -> Datagram {
        received_as(Layout::Addressed, pool, said, [name, &[], bytes])
    }

    /// The same, of a name, control messages and bytes.
    fn received_as(
        layout: Layout,
        pool: &BufferPool,
        said: [u32; 4],
        [name, control, bytes]: [&[u8]; 3],
    ) -> Datagram {
        // SAFETY: these tests have one thread each.
        let shared = unsafe { pool.hold(0) }.unwrap();
        let length = layout.overhead() + bytes.len() as u32;
        // SAFETY: as it asks for; once.
        let mut buffer = unsafe { Buffer::of(shared, 0, length) };
        let said = said.map(u32::to_ne_bytes).concat();
        let (named, controlled) = (name.len().min(NAME), control.len().min(layout.control()));
        let rest = [0xAA; NAME + CONTROL];
        let name = [&name[..named], &rest[..NAME - named]].concat();
        let control = [&control[..controlled], &rest[..layout.control() - controlled]].concat();
        buffer.copy_from_slice(&[&said, &name, &control, bytes].concat());
        Datagram::in_buffer(buffer, layout)
    }

    #[test]
    fn control_messages_are_between_the_name_and_the_bytes() {
        assert_eq!((Datagram::OVERHEAD, Datagram::OVERHEAD_WITH_CONTROL), (48, 192));
        let pool = BufferPool::registered(1, 256);
        let mut control = (16 + size_of::<i32>()).to_ne_bytes().to_vec();
        control.extend([libc::SOL_UDP, libc::UDP_GRO, 1200, 0].map(i32::to_ne_bytes).concat());
        let name = Address::from(std::net::SocketAddr::from(([127, 0, 0, 1], 7)));
        let name = name.bytes();
        for (length, size) in
            [(control.len() as u32, Some(1200)), (19, None), (0, None), (u32::MAX, Some(1200))]
        {
            let said = [16, length, 3, libc::MSG_CTRUNC as u32];
            let datagram = received_as(Layout::Controlled, &pool, said, [name, &control, b"abc"]);
            assert_eq!((&*datagram, datagram.messages().segment_size()), (&b"abc"[..], size));
            assert_eq!(datagram.peer().unwrap().port(), 7);
            assert!(datagram.is_control_truncated() && datagram.is_controlled() == (length > 0));
        }
        // Where there is no room for any, nothing is taken for one.
        let said = [16, control.len() as u32, 100, libc::MSG_CTRUNC as u32];
        let datagram = received(&pool, said, name, &[&control[..], &[0; 80]].concat());
        assert_eq!((datagram.len(), datagram.messages().iter().count()), (104, 0));
        assert!(!datagram.is_control_truncated() && !datagram.is_controlled());
        // What comes out of a completion is what went into it.
        drop(datagram);
        let said = [16, control.len() as u32, 3, 0];
        let datagram = received_as(Layout::Controlled, &pool, said, [name, &control, b"abc"]);
        let completion = crate::Completion::from_datagram(datagram);
        assert_eq!((completion.result().unwrap(), completion.raw().result), (3, 195));
        let datagram = completion.into_datagram().unwrap();
        assert_eq!((&*datagram, datagram.messages().segment_size()), (&b"abc"[..], Some(1200)));
    }

    #[test]
    fn it_is_its_bytes_and_says_whom_it_is_from() {
        let pool = BufferPool::registered(1, 64);
        for address in ["127.0.0.1:7777", "[fe80::1%3]:80"] {
            let address: SocketAddr = address.parse().unwrap();
            let name = Address::from(address);
            let name = name.bytes();
            let mut datagram = received(&pool, [name.len() as u32, 0, 5, 0], name, b"ahoy!");
            assert_eq!((&*datagram, datagram.as_ref()), (&b"ahoy!"[..], &b"ahoy!"[..]));
            assert_eq!((datagram.peer(), datagram.has_sender()), (Some(address), true));
            assert!(!datagram.is_truncated());
            assert_eq!(format!("{datagram:?}"), format!("Datagram {{ length: 5, peer: Some({address}) }}"));
            datagram.make_ascii_uppercase();
            assert_eq!(*datagram, *b"AHOY!");
            assert_eq!(pool.available(), 0);
            drop(datagram);
            assert_eq!(pool.available(), 1);
        }
    }

    #[test]
    fn what_is_from_nobody_or_elsewhere_has_no_peer() {
        let pool = BufferPool::registered(1, 64);
        let nobody = received(&pool, [0; 4], &[], b"");
        assert_eq!((nobody.peer(), nobody.has_sender(), nobody.len()), (None, false, 0));
        drop(nobody);
        // The kernel says how long the name is, even if there is less room for it.
        let mut unix = [b'x'; 110];
        unix[..2].copy_from_slice(&(libc::AF_UNIX as libc::sa_family_t).to_ne_bytes());
        for length in [2, 10, 110, u32::MAX] {
            let datagram = received(&pool, [length, 0, 1, 0], &unix, b"y");
            assert_eq!((datagram.peer(), datagram.has_sender(), &*datagram), (None, true, &b"y"[..]));
        }
        let empty = Datagram::in_buffer(Buffer::empty(), Layout::Addressed);
        assert_eq!((empty.len(), empty.peer(), empty.has_sender()), (0, None, false));
        assert!(!empty.is_truncated());
    }

    #[test]
    fn what_was_too_long_says_so() {
        let pool = BufferPool::registered(1, 50);
        let truncated = libc::MSG_TRUNC as u32;
        for (flags, is_truncated) in [(truncated, true), (truncated | 1, true), (1, false), (0, false)] {
            let datagram = received(&pool, [0, 0, 9, flags], &[], b"xy");
            assert_eq!((datagram.is_truncated(), datagram.len()), (is_truncated, 2));
        }
    }
}
