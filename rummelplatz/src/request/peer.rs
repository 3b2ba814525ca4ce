//! Where a datagram came from, or a connection.

use std::fmt;
use std::net::SocketAddr;
use std::slice;

use super::address::{self, Address};
use super::aside::{Header, Piece};

/// Where a datagram came from, as found out by [`recv_from`](super::recv_from), or a connection, by
/// [`accept_from`](super::accept_from): kept in the data of the request.
///
/// ```
/// # use rummelplatz::{request, request::{Peer, Request}, Completion, RingOperation, Submitter, ring};
/// # use std::{io, net::{SocketAddr, UdpSocket}};
/// struct Datagram { socket: UdpSocket, bytes: Box<[u8]>, peer: Peer, answer: Option<(SocketAddr, usize)> }
///
/// impl Datagram {
///     fn request(&mut self) -> Request<'_> {
///         match self.answer {
///             None => request::recv_from(&self.socket, &mut self.bytes, &mut self.peer),
///             Some((address, length)) => request::send_to(&self.socket, &self.bytes[..length], address),
///         }
///     }
/// }
/// # #[ring]
/// # struct Server { datagrams: Datagrams }
/// # #[derive(RingOperation)]
/// # #[ring_operation(ring = Server, data = Datagram, error = io::Error, on_completion)]
/// # struct Datagrams { answered: u32 }
///
/// impl Datagrams {
///     fn on_completion(
///         &mut self,
///         completion: Completion,
///         mut datagram: Datagram,
///         mut submitter: Submitter<'_, Server, Self>,
///     ) -> io::Result<()> {
///         let length = completion.result()? as usize;
///         datagram.answer = match datagram.answer {
///             None => datagram.peer.address().map(|address| (address, length)),
///             Some(_) => None, // The answer is sent: receive the next datagram.
///         };
/// #       if datagram.answer.is_none() { self.answered += 1; return Ok(()) }
///         submitter.submit(datagram, Datagram::request)?;
///         Ok(())
///     }
/// }
/// # let (socket, client) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
/// # client.send_to(b"ahoy", socket.local_addr()?)?;
/// # let mut server = Server::builder(Datagrams { answered: 0 }).build()?;
/// # let datagram = Datagram { socket, bytes: vec![0; 1500].into(), peer: Peer::new(), answer: None };
/// # server.submitter(Server::DATAGRAMS).submit(datagram, Datagram::request)?;
/// # server.run()?;
/// # let mut bytes = [0; 8];
/// # assert_eq!((client.recv(&mut bytes)?, &bytes[..4], server.datagrams.answered), (4, &b"ahoy"[..], 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
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

    /// Arranges that a message is received into this piece, and its sender's address written here. Returns where the
    /// kernel finds these instructions.
    pub(crate) fn receive(&mut self, piece: Piece) -> u64 {
        self.receive_with(piece, &mut [])
    }

    /// The same, with room for control messages.
    pub(super) fn receive_with(&mut self, piece: Piece, control: &mut [usize]) -> u64 {
        self.forget();
        let Peer { header, piece: place, name } = self;
        *place = piece;
        *header = Header::default();
        header.ask_for_name(name);
        if !control.is_empty() {
            header.control(control.as_mut_ptr(), size_of_val(control));
        }
        header.lead_to(slice::from_ref(place))
    }

    pub(super) fn header_mut(&mut self) -> &mut Header {
        &mut self.header
    }

    /// What is known of the message that was received.
    pub(super) fn header(&self) -> &Header {
        &self.header
    }

    /// Arranges that an address is written here. Returns where that is, and where its length is: before, the room for
    /// it; afterwards, its size.
    pub(crate) fn accept(&mut self) -> [u64; 2] {
        self.forget();
        let Peer { header, name, .. } = self;
        header.name_length = name.len() as libc::socklen_t;
        let length = (&raw mut header.name_length).expose_provenance();
        [name.as_mut_ptr().expose_provenance(), length].map(|address| address as u64)
    }

    /// Until the kernel says more, this is nobody (`AF_UNSPEC`).
    fn forget(&mut self) {
        self.name[..size_of::<libc::sa_family_t>()].fill(0);
    }

    /// The Internet address, if there is an address and it is of that kind.
    pub fn address(&self) -> Option<SocketAddr> {
        address::of_internet(self.name.get(..self.header.name_length as usize)?)
    }
}

/// As if something had come from there: for tests of your own operations.
impl From<SocketAddr> for Peer {
    fn from(address: SocketAddr) -> Peer {
        let (address, mut peer) = (Address::from(address), Peer::new());
        let bytes = address.bytes();
        peer.header.name_length = bytes.len() as libc::socklen_t;
        peer.name.iter_mut().zip(bytes).for_each(|(place, byte)| *place = *byte);
        peer
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Peer").field(&self.address()).finish()
    }
}
