//! Socket addresses as the kernel reads them.

use std::fmt;
use std::mem::offset_of;
use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net;

/// The address that [`connect`](super::connect), [`send_to`](super::send_to) or [`bind`](super::bind) uses: an IPv4,
/// IPv6 or Unix address, passed by value.
///
/// Made by `into()` from [`SocketAddr`], its two kinds, `(IpAddr, port)`, and [`std::os::unix::net::SocketAddr`].
/// Internet addresses are kept inline; a Unix address is boxed.
#[derive(Clone)]
pub struct Address(Kind);

#[derive(Clone)]
enum Kind {
    V4(libc::sockaddr_in),
    V6(libc::sockaddr_in6),
    Unix(Box<libc::sockaddr_un>, u32),
}

impl Address {
    /// The domain of sockets for this address, for [`socket`](super::socket): `AF_INET`, `AF_INET6` or `AF_UNIX`.
    pub fn domain(&self) -> i32 {
        match &self.0 {
            Kind::V4(_) => libc::AF_INET,
            Kind::V6(_) => libc::AF_INET6,
            Kind::Unix(..) => libc::AF_UNIX,
        }
    }

    /// The address as the kernel wants it: a pointer, good while `self` is neither moved nor
    /// dropped, and a length in bytes.
    pub(crate) fn raw(&self) -> (*const libc::sockaddr, libc::socklen_t) {
        match &self.0 {
            Kind::V4(v4) => ((&raw const *v4).cast(), size_of_val(v4) as u32),
            Kind::V6(v6) => ((&raw const *v6).cast(), size_of_val(v6) as u32),
            Kind::Unix(unix, length) => ((&raw const **unix).cast(), *length),
        }
    }

    /// The address as it lies in memory.
    pub(super) fn bytes(&self) -> &[u8] {
        let (start, length) = self.raw();
        // SAFETY: the pointer is good for that many bytes while `self` is not moved, and none of these structures has
        // gaps.
        unsafe { std::slice::from_raw_parts(start.cast(), length as usize) }
    }
}

impl From<SocketAddrV4> for Address {
    fn from(address: SocketAddrV4) -> Self {
        Address(Kind::V4(libc::sockaddr_in {
            sin_family: libc::AF_INET as libc::sa_family_t,
            sin_port: address.port().to_be(),
            sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address.ip().octets()) },
            sin_zero: [0; 8],
        }))
    }
}

impl From<SocketAddrV6> for Address {
    fn from(address: SocketAddrV6) -> Self {
        Address(Kind::V6(libc::sockaddr_in6 {
            sin6_family: libc::AF_INET6 as libc::sa_family_t,
            sin6_port: address.port().to_be(),
            sin6_flowinfo: address.flowinfo(),
            sin6_addr: libc::in6_addr { s6_addr: address.ip().octets() },
            sin6_scope_id: address.scope_id(),
        }))
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        match address {
            SocketAddr::V4(v4) => v4.into(),
            SocketAddr::V6(v6) => v6.into(),
        }
    }
}

impl From<(IpAddr, u16)> for Address {
    fn from(address: (IpAddr, u16)) -> Self {
        SocketAddr::from(address).into()
    }
}

impl From<&net::SocketAddr> for Address {
    fn from(address: &net::SocketAddr) -> Self {
        let mut unix = Box::new(libc::sockaddr_un {
            sun_family: libc::AF_UNIX as libc::sa_family_t,
            sun_path: [0; 108],
        });
        // A path ends with a zero byte. An abstract name starts with one, and only its length says where it ends. The
        // unnamed address is the family alone.
        let (start, name, end) = match (address.as_pathname(), address.as_abstract_name()) {
            (Some(path), _) => (0, path.as_os_str().as_bytes(), 1),
            (None, Some(name)) => (1, name, 0),
            (None, None) => (0, &[][..], 0),
        };
        for (to, from) in unix.sun_path[start..].iter_mut().zip(name) {
            *to = *from as libc::c_char;
        }
        let length = offset_of!(libc::sockaddr_un, sun_path) + start + name.len() + end;
        // A path that the kernel tells may take all the room, so that there is none for the zero, which it does not need
        // then.
        Address(Kind::Unix(unix, length.min(size_of::<libc::sockaddr_un>()) as u32))
    }
}

/// The Internet address in a `struct sockaddr`, if there is one in it.
pub(super) fn of_internet(name: &[u8]) -> Option<SocketAddr> {
    let (family, rest) = name.split_first_chunk()?;
    let (port, rest) = rest.split_first_chunk()?;
    let port = u16::from_be_bytes(*port);
    match i32::from(libc::sa_family_t::from_ne_bytes(*family)) {
        libc::AF_INET if name.len() >= size_of::<libc::sockaddr_in>() => {
            let ip: [u8; 4] = *rest.first_chunk()?;
            Some((ip, port).into())
        }
        libc::AF_INET6 => {
            let (flow, rest) = rest.split_first_chunk()?;
            let (ip, rest) = rest.split_first_chunk::<16>()?;
            let (flow, scope) = (u32::from_ne_bytes(*flow), u32::from_ne_bytes(*rest.first_chunk()?));
            Some(SocketAddrV6::new((*ip).into(), port, flow, scope).into())
        }
        _ => None,
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::V4(v4) => {
                let ip = v4.sin_addr.s_addr.to_ne_bytes().into();
                write!(f, "Address({})", SocketAddrV4::new(ip, u16::from_be(v4.sin_port)))
            }
            Kind::V6(v6) => {
                let (ip, port) = (v6.sin6_addr.s6_addr.into(), u16::from_be(v6.sin6_port));
                let v6 = SocketAddrV6::new(ip, port, v6.sin6_flowinfo, v6.sin6_scope_id);
                write!(f, "Address({v6})")
            }
            Kind::Unix(_, length) => write!(f, "Address(unix, {length} bytes)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv6Addr;
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

    #[test]
    fn internet_addresses_survive() {
        let address: SocketAddr = "127.0.0.1:7777".parse().unwrap();
        assert_eq!(format!("{:?}", Address::from(address)), "Address(127.0.0.1:7777)");
        let address: SocketAddr = "[::1%3]:80".parse().unwrap();
        assert_eq!(format!("{:?}", Address::from(address)), "Address([::1%3]:80)");
        let Kind::V6(raw) = Address::from(SocketAddrV6::new(Ipv6Addr::LOCALHOST, 80, 5, 3)).0 else {
            panic!("it is one of IPv6");
        };
        assert_eq!((raw.sin6_flowinfo, raw.sin6_scope_id), (5, 3));
    }

    #[test]
    fn a_clone_is_the_same_address() {
        let unix = net::SocketAddr::from_pathname("/tmp/x").unwrap();
        let internet =
            ["127.0.0.1:7777", "[fe80::1%3]:80"].map(|it| Address::from(it.parse::<SocketAddr>().unwrap()));
        let [v4, v6] = internet;
        for (address, domain) in [(v4, libc::AF_INET), (v6, libc::AF_INET6), ((&unix).into(), libc::AF_UNIX)]
        {
            assert_eq!(address.clone().bytes(), address.bytes());
            let family = address.bytes().first_chunk().map(|it| libc::sa_family_t::from_ne_bytes(*it));
            assert_eq!((address.domain(), family), (domain, Some(domain as libc::sa_family_t)));
        }
    }

    #[test]
    fn what_the_kernel_wrote_is_read() {
        for address in ["127.0.0.1:7777", "[fe80::1%3]:80"] {
            let address: SocketAddr = address.parse().unwrap();
            let raw = Address::from(address);
            let (start, length) = raw.raw();
            // SAFETY: there are that many bytes, without gaps.
            let name = unsafe { std::slice::from_raw_parts(start.cast::<u8>(), length as usize) };
            assert_eq!(of_internet(name), Some(address));
            for length in 0..name.len() {
                assert_eq!(of_internet(&name[..length]), None, "no part of an address is one");
            }
        }
        assert_eq!(of_internet(&[0; 32]), None, "`AF_UNSPEC`");
    }

    /// A path as long as the address: only the kernel makes one.
    fn longest() -> net::SocketAddr {
        // SAFETY: a plain call; nobody else has the new descriptor.
        let socket = unsafe { OwnedFd::from_raw_fd(libc::socket(libc::AF_UNIX, libc::SOCK_DGRAM, 0)) };
        let start = format!("{}/rummelplatz-{}-", std::env::temp_dir().display(), std::process::id());
        let path = format!("{start:x<108}");
        let mut address =
            libc::sockaddr_un { sun_family: libc::AF_UNIX as libc::sa_family_t, sun_path: [0; 108] };
        for (to, from) in address.sun_path.iter_mut().zip(path.bytes()) {
            *to = from as libc::c_char;
        }
        // SAFETY: the kernel reads this many bytes, which are there.
        let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), 110) };
        assert_eq!(bound, 0);
        std::fs::remove_file(&path).unwrap();
        net::UnixDatagram::from(socket).local_addr().unwrap()
    }

    #[test]
    #[cfg_attr(miri, ignore = "there are no sockets")]
    fn a_path_that_fills_the_address_has_no_zero() {
        let longest = longest();
        assert_eq!(longest.as_pathname().map(|path| path.as_os_str().len()), Some(108));
        assert_eq!(Address::from(&longest).raw().1 as usize, size_of::<libc::sockaddr_un>());
    }

    #[test]
    fn unix_lengths_are_those_of_the_kernel() {
        let family = size_of::<libc::sa_family_t>() as u32;
        let path = net::SocketAddr::from_pathname("/tmp/x").unwrap();
        assert_eq!(Address::from(&path).raw().1, family + 7, "a path with its zero");
        let name = net::SocketAddr::from_abstract_name("x").unwrap();
        assert_eq!(Address::from(&name).raw().1, family + 2, "a zero and the name");
    }
}
