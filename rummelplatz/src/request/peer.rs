//! Where a datagram came from.

use std::fmt;
use std::net::SocketAddr;
use std::slice;

use super::address;
use super::aside::{Header, Piece};

/// Where a datagram came from, as [`recv_from`](super::recv_from) finds out: kept in the data of the request.
///
/// ```
/// # use rummelplatz::{request, request::{Peer, Request}};
/// # use std::net::UdpSocket;
/// struct Datagram { socket: UdpSocket, bytes: [u8; 1500], length: usize, peer: Peer }
///
/// impl Datagram {
///     fn receive(&mut self) -> Request<'_> {
///         request::recv_from(&self.socket, &mut self.bytes, &mut self.peer)
///     }
///     fn answer(&mut self) -> Option<Request<'_>> {
///         let address = self.peer.address()?;
///         Some(request::send_to(&self.socket, &self.bytes[..self.length], address))
///     }
/// }
/// ```
#[derive(Clone, Copy)]
pub struct Peer {
    header: Header,
    piece: Piece,
    name: [u8; size_of::<libc::sockaddr_storage>()],
}

impl Default for Peer {
    fn default() -> Self {
        Self::new()
    }
}

impl Peer {
    /// Nobody.
    pub fn new() -> Peer {
        let name = [0; size_of::<libc::sockaddr_storage>()];
        Peer { header: Header::default(), piece: Piece::default(), name }
    }

    /// Has a message be received into this piece, and from whom be written here. Returns where it says so.
    pub(crate) fn receive(&mut self, piece: Piece) -> u64 {
        let Peer { header, piece: place, name } = self;
        *place = piece;
        let length = name.len() as libc::socklen_t;
        header.lead_to(name.as_mut_ptr().expose_provenance(), length, slice::from_ref(place))
    }

    /// The Internet address, if there is one and it is of that kind.
    pub fn address(&self) -> Option<SocketAddr> {
        address::of_internet(self.name.get(..self.header.name_length as usize)?)
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Peer").field(&self.address()).finish()
    }
}
