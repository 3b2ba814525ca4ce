//! Where a datagram came from.

use std::fmt;
use std::mem;
use std::net::SocketAddr;

use super::address::{v4_of, v6_of};
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
    name: libc::sockaddr_storage,
}

impl Default for Peer {
    fn default() -> Self {
        Self::new()
    }
}

impl Peer {
    /// Nobody.
    pub fn new() -> Peer {
        // SAFETY: it is made of numbers.
        let name = unsafe { mem::zeroed() };
        Peer { header: Header::default(), piece: Piece::default(), name }
    }

    /// Has a message be received into this piece, and from whom be written here. Returns where it says so.
    pub(crate) fn receive(&mut self, piece: Piece) -> u64 {
        let Peer { header, piece: place, name } = self;
        *place = piece;
        header.lead_to((&raw mut *name).expose_provenance(), size_of_val(name) as libc::socklen_t, place)
    }

    /// The Internet address, if there is one and it is of that kind.
    pub fn address(&self) -> Option<SocketAddr> {
        let (name, length) = (&raw const self.name, self.header.name_length as usize);
        match i32::from(self.name.ss_family) {
            libc::AF_INET if length >= size_of::<libc::sockaddr_in>() => {
                // SAFETY: it is of this kind, and lies in larger memory that is aligned for all kinds.
                let v4 = unsafe { name.cast::<libc::sockaddr_in>().read() };
                Some(v4_of(&v4).into())
            }
            libc::AF_INET6 if length >= size_of::<libc::sockaddr_in6>() => {
                // SAFETY: as above.
                let v6 = unsafe { name.cast::<libc::sockaddr_in6>().read() };
                Some(v6_of(&v6).into())
            }
            _ => None,
        }
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Peer").field(&self.address()).finish()
    }
}
