//! Control messages, or ancillary data (`cmsg(3)`): what a message brings besides its bytes.

use std::net::IpAddr;
use std::ops::Range;

mod filled;
mod messages;
mod received;
mod sent;

pub(super) use received::close;

pub use filled::FillControl;
pub use messages::ControlMessages;
pub use received::RecvControl;
pub use sent::{Control, SendControl};

/// A control message as it was received: see [`ControlMessages::iter`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlMessage<'a> {
    /// Which protocol it belongs to: one of libc's `SOL_*` or `IPPROTO_*`.
    pub level: i32,
    /// What it is, within that protocol.
    pub kind: i32,
    /// What it says.
    pub bytes: &'a [u8],
}

/// Where a datagram was sent to, and where it came in: see [`ControlMessages::packet_info`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketInfo {
    /// The destination of the datagram: an address of this machine, or one of several machines (multicast,
    /// broadcast).
    pub destination: IpAddr,
    /// The local address to answer from. With IPv6, it is the destination.
    pub local: IpAddr,
    /// The number of the interface (`if_indextoname(3)`).
    pub interface: u32,
}

/// Who has sent a message: see [`ControlMessages::credentials`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// The process, or 0 if it can't be seen from here.
    pub pid: u32,
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

/// A descriptor of the process that has sent the message, whose number is all that `libc` has no name for.
const SCM_PIDFD: i32 = 4;

/// The size of a `struct cmsghdr`: the length of the message, with this, and its level and its kind.
const HEADER: usize = size_of::<usize>() + 2 * size_of::<i32>();

const _: () = assert!(HEADER == size_of::<libc::cmsghdr>() && HEADER.is_multiple_of(ALIGNMENT));

/// What each message begins at a multiple of.
const ALIGNMENT: usize = size_of::<usize>();

/// Whether these messages say numbers of descriptors, which the kernel has opened for whoever receives them.
const fn has_descriptors(level: i32, kind: i32) -> bool {
    level == libc::SOL_SOCKET && matches!(kind, libc::SCM_RIGHTS | SCM_PIDFD)
}

/// A control message among others.
struct Found {
    level: i32,
    kind: i32,
    /// Where its bytes are.
    bytes: Range<usize>,
}

impl Found {
    /// The message that begins at `at`, if there is one. What is shorter than its header is none: so nothing is
    /// found where there are only zeroes.
    fn at(at: usize, area: &[u8]) -> Option<Found> {
        let rest = area.get(at..)?;
        let (length, after) = rest.split_first_chunk()?;
        let (level, after) = after.split_first_chunk()?;
        let (kind, _) = after.split_first_chunk()?;
        let length = usize::from_ne_bytes(*length);
        let [level, kind] = [level, kind].map(|bytes| i32::from_ne_bytes(*bytes));
        (HEADER..=rest.len()).contains(&length).then(|| Found {
            level,
            kind,
            bytes: at + HEADER..at + length,
        })
    }

    /// Where the next one begins, if there is one.
    fn next(&self) -> usize {
        self.bytes.end.next_multiple_of(ALIGNMENT)
    }

    /// All of them.
    fn all(area: &[u8]) -> impl Iterator<Item = Found> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let found = Found::at(at, area)?;
            at = found.next();
            Some(found)
        })
    }
}

/// Appends a message whose bytes are these parts.
fn append(area: &mut Vec<u8>, level: i32, kind: i32, parts: impl IntoIterator<Item: AsRef<[u8]>>) {
    let start = area.len();
    area.extend_from_slice(&[0; HEADER]);
    for part in parts {
        area.extend_from_slice(part.as_ref());
    }
    let length = area.len() - start;
    let [level, kind] = [level, kind].map(i32::to_ne_bytes);
    let head = length.to_ne_bytes().into_iter().chain(level).chain(kind);
    area.iter_mut().skip(start).zip(head).for_each(|(place, byte)| *place = byte);
    area.resize(area.len().next_multiple_of(ALIGNMENT), 0);
}

#[cfg(test)]
mod tests;
