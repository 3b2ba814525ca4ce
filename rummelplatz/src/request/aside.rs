//! What the kernel reads only while it takes an entry in: it is passed by value, and kept beside the entry until then.

use std::mem::offset_of;

use io_uring::types::Timespec;

use super::Address;
use super::sqe::MOST_BYTES;

/// What an entry's address leads to.
pub(crate) enum Aside {
    Nothing,
    Time(Timespec),
    Address(Address),
    Pieces(Pieces),
    /// The same, of the registered memory with this index.
    FixedPieces(Pieces, u16),
    /// A message of one piece, to this address.
    Datagram(Header, Piece, Address),
    /// A message of several pieces. Its address and its control messages, if it has any, are in the request's data.
    Message(Header, Pieces),
    How(How),
    /// The same, for a file that is opened in the ring's table.
    HowDirect(How),
    /// Nothing; but what the entry opens goes into the ring's table.
    Direct,
    /// Nothing; but the entry is about an option of a socket, whose value is in the data, and has this many bytes.
    Option {
        value: u64,
        length: u32,
    },
}

impl Aside {
    /// Where it is, as the kernel is told: valid while `self` is neither moved nor dropped. 0 if there is nothing.
    pub(crate) fn settle(&mut self) -> u64 {
        match self {
            Aside::Nothing | Aside::Direct | Aside::Option { .. } => 0,
            Aside::Time(time) => (&raw const *time).expose_provenance() as u64,
            Aside::Address(address) => address.raw().0.expose_provenance() as u64,
            Aside::Pieces(pieces) | Aside::FixedPieces(pieces, _) => {
                pieces.as_slice().as_ptr().expose_provenance() as u64
            }
            Aside::Datagram(header, piece, address) => {
                header.name(address);
                header.lead_to(std::slice::from_ref(piece))
            }
            Aside::Message(header, pieces) => header.lead_to(pieces.as_slice()),
            Aside::How(how) | Aside::HowDirect(how) => (&raw const *how).expose_provenance() as u64,
        }
    }
}

/// What a message consists of (`struct msghdr`).
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(crate) struct Header {
    name: usize,
    pub(crate) name_length: libc::socklen_t,
    pieces: usize,
    piece_count: usize,
    control: usize,
    control_length: usize,
    flags: libc::c_int,
}

const _: () = assert!(size_of::<Header>() == size_of::<libc::msghdr>());
const _: () = assert!(offset_of!(Header, name_length) == offset_of!(libc::msghdr, msg_namelen));
const _: () = assert!(offset_of!(Header, pieces) == offset_of!(libc::msghdr, msg_iov));
const _: () = assert!(offset_of!(Header, control) == offset_of!(libc::msghdr, msg_control));
const _: () = assert!(offset_of!(Header, flags) == offset_of!(libc::msghdr, msg_flags));

impl Header {
    /// A header whose pieces are buffers of a pool, behind room for a name of this many bytes.
    pub(crate) const fn with_room_for_name(name_length: libc::socklen_t) -> Header {
        Header { name: 0, name_length, pieces: 0, piece_count: 0, control: 0, control_length: 0, flags: 0 }
    }

    /// The same, also behind room for this many bytes of control messages.
    pub(crate) const fn with_room_for_control(self, control_length: usize) -> Header {
        Header { control_length, ..self }
    }

    /// Makes the header say where the pieces are. Returns the header's own address.
    pub(crate) fn lead_to(&mut self, pieces: &[Piece]) -> u64 {
        (self.pieces, self.piece_count) = (pieces.as_ptr().expose_provenance(), pieces.len());
        (&raw mut *self).expose_provenance() as u64
    }

    /// Makes the header say where an address is: as long as that is neither moved nor dropped.
    pub(crate) fn name(&mut self, address: &Address) {
        let (name, length) = address.raw();
        (self.name, self.name_length) = (name.expose_provenance(), length);
    }

    /// Makes the header say where there is room for an address.
    pub(crate) fn ask_for_name(&mut self, room: &mut [u8]) {
        (self.name, self.name_length) =
            (room.as_mut_ptr().expose_provenance(), room.len() as libc::socklen_t);
    }

    /// Makes the header say where control messages are, or room for them.
    pub(crate) fn control<T>(&mut self, start: *const T, bytes: usize) {
        (self.control, self.control_length) = (start.expose_provenance(), bytes);
    }

    /// How many bytes of control messages the kernel has written; before, how many there is room for.
    pub(crate) fn control_length(&self) -> usize {
        self.control_length
    }

    /// As if the kernel had written so many bytes of control messages, and said this of the message.
    pub(crate) fn receive(&mut self, control_length: usize, flags: libc::c_int) {
        (self.control_length, self.flags) = (control_length, flags);
    }

    /// What the kernel says of a message that was received (`MSG_*`).
    pub(crate) fn flags(&self) -> libc::c_int {
        self.flags
    }
}

/// How a file is opened (`struct open_how`).
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct How {
    pub(super) flags: u64,
    pub(super) mode: u64,
    pub(super) resolve: u64,
}

const _: () = assert!(size_of::<How>() == size_of::<libc::open_how>());
const _: () = assert!(offset_of!(How, mode) == offset_of!(libc::open_how, mode));
const _: () = assert!(offset_of!(How, resolve) == offset_of!(libc::open_how, resolve));

/// A piece of memory (`struct iovec`).
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(crate) struct Piece {
    address: usize,
    length: usize,
}

const _: () = assert!(size_of::<Piece>() == size_of::<libc::iovec>());
const _: () = assert!(offset_of!(Piece, length) == offset_of!(libc::iovec, iov_len));

impl Piece {
    #[inline]
    pub(crate) fn new<T>(start: *const T, length: usize) -> Piece {
        Piece { address: start.expose_provenance(), length }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.length == 0
    }

    fn end(&self) -> usize {
        self.address.wrapping_add(self.length)
    }
}

/// Pieces of memory, in order: a few in place, more behind a pointer.
pub(crate) enum Pieces {
    Few([Piece; Pieces::FEW], usize),
    Many(Box<[Piece]>),
}

impl Pieces {
    const FEW: usize = 4;

    pub(crate) fn len(&self) -> usize {
        self.as_slice().len()
    }

    /// The most pieces that the kernel takes (`UIO_MAXIOV`).
    pub(crate) const MOST: usize = libc::UIO_MAXIOV as usize;

    /// Keeps only as many of them as the kernel takes.
    pub(crate) fn truncate(&mut self) {
        if let Pieces::Many(many) = self
            && many.len() > Self::MOST
        {
            *many = many[..Self::MOST].into();
        }
    }

    /// If they have [more bytes](MOST_BYTES) than the kernel moves at once, replaces them by more pieces than
    /// it takes, so that it refuses them.
    pub(crate) fn refuse_part(&mut self) {
        let lengths = self.as_slice().iter().map(|piece| piece.length);
        if lengths.fold(0, usize::saturating_add) > MOST_BYTES as usize {
            *self = Pieces::Many([Piece::default(); Self::MOST + 1].into());
        }
    }

    fn as_slice(&self) -> &[Piece] {
        match self {
            Pieces::Few(few, count) => &few[..*count],
            Pieces::Many(many) => many,
        }
    }
}

impl FromIterator<Piece> for Pieces {
    /// Pieces that are neighbours in memory, in this order, become one piece, like the buffers of a pool that
    /// came in one bundle.
    fn from_iter<I: IntoIterator<Item = Piece>>(pieces: I) -> Pieces {
        let mut apart = pieces.into_iter().peekable();
        let mut pieces = std::iter::from_fn(|| {
            let mut piece = apart.next()?;
            while let Some(next) = apart.next_if(|next| next.address == piece.end()) {
                piece.length += next.length;
            }
            Some(piece)
        });
        let (mut few, mut count) = ([Piece::default(); Self::FEW], 0);
        for (place, piece) in few.iter_mut().zip(&mut pieces) {
            *place = piece;
            count += 1;
        }
        match pieces.next() {
            None => Pieces::Few(few, count),
            Some(next) => Pieces::Many(few.into_iter().chain([next]).chain(pieces).collect()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_where_they_are_said_to_be() {
        for count in [0, 1, Pieces::FEW, Pieces::FEW + 1, 100] {
            let pieces = (0..count).map(|number| Piece { address: 1000 * number, length: number }).collect();
            let mut aside = Aside::Pieces(pieces);
            let address = std::ptr::with_exposed_provenance::<libc::iovec>(aside.settle() as usize);
            for number in 0..count {
                // SAFETY: there are `count` pieces at this address.
                let piece = unsafe { address.add(number).read() };
                assert_eq!((piece.iov_base.addr(), piece.iov_len), (1000 * number, number), "of {count}");
            }
        }
    }

    #[test]
    fn neighbours_are_one_piece() {
        let joined = |pieces: &[(usize, usize)]| {
            let pieces = pieces.iter().map(|(address, length)| Piece { address: *address, length: *length });
            let joined: Pieces = pieces.collect();
            joined.as_slice().iter().map(|piece| (piece.address, piece.length)).collect::<Vec<_>>()
        };
        assert_eq!(joined(&[(8, 2), (10, 3), (13, 1), (15, 1), (16, 1)]), [(8, 6), (15, 2)]);
        assert_eq!(
            joined(&[(10, 3), (8, 2), (8, 2)]),
            [(10, 3), (8, 2), (8, 2)],
            "in another order they are none"
        );
        assert_eq!(joined(&[(8, 0), (8, 2)]), [(8, 2)]);
        let many: Vec<_> = (0..100).map(|number| (number, 1)).collect();
        assert_eq!(joined(&many), [(0, 100)]);
    }
}
