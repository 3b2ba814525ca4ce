//! Descriptors whose leak is noticed: each is an end of a pipe, and its other end sees when nobody has it any more.
//! Knows nothing of the requests that they go through.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;

/// See the [module documentation](self).
#[derive(Default)]
pub(crate) struct Descriptors {
    /// A pipe; every descriptor that the kernel makes is its writing end.
    pipe: Option<(OwnedFd, OwnedFd)>,
    /// One end of each pipe that was dropped with its data. The other end must be closed.
    ends: Vec<OwnedFd>,
}

impl Descriptors {
    /// One more.
    pub(crate) fn some(&mut self) -> OwnedFd {
        let pipe = || std::io::pipe().map(|(reader, writer)| (reader.into(), writer.into()));
        let (_, writer) = self.pipe.get_or_insert_with(|| pipe().expect("there are descriptors for it"));
        writer.try_clone().expect("there are descriptors for it")
    }

    /// Sends a message with this many.
    pub(crate) fn pass(&mut self, sender: &UnixDatagram, count: usize) {
        let fds: Vec<_> = (0..count).map(|_| self.some()).collect();
        let numbers = fds.iter().flat_map(|fd| fd.as_raw_fd().to_ne_bytes());
        let length = size_of::<libc::cmsghdr>() + size_of::<RawFd>() * fds.len();
        let head = [libc::SOL_SOCKET, libc::SCM_RIGHTS].map(i32::to_ne_bytes);
        let control: Vec<u8> = length.to_ne_bytes().into_iter().chain(head.concat()).chain(numbers).collect();
        // SAFETY: all zeroes is a message.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        (message.msg_control, message.msg_controllen) =
            (control.as_ptr().cast_mut().cast(), control.len() as _);
        // SAFETY: the message leads to what is there.
        let sent = unsafe { libc::sendmsg(sender.as_raw_fd(), &raw const message, 0) };
        assert_eq!(sent, 0, "there is room for it");
    }

    /// One end of a pipe that is dropped with its data, whose other end must be closed.
    pub(crate) fn await_end(&mut self, end: OwnedFd) {
        self.ends.push(end);
    }

    /// In the end, nobody has any of them.
    pub(crate) fn check_end(&mut self, wrong: &mut Vec<String>) {
        if !self.ends.iter().all(is_hung_up) {
            wrong.push("an end of a pipe was not closed".to_owned());
        }
        if let Some((reader, writer)) = self.pipe.take() {
            drop(writer);
            if !cfg!(miri) && !is_hung_up(&reader) {
                wrong.push("a descriptor was not closed".to_owned());
            }
        }
    }
}

/// Whether nobody has the other end of a pipe or a connection any more. Whoever looks by its number whether a file is
/// open ([`Connection`]) may keep another thread's from being closed for a moment.
///
/// [`Connection`]: crate::connections::Connection
pub(crate) fn is_hung_up(reader: &impl AsRawFd) -> bool {
    const A_MOMENT: libc::c_int = 1_000;
    let mut poll = libc::pollfd { fd: reader.as_raw_fd(), events: 0, revents: 0 };
    // SAFETY: there is one of it.
    unsafe { libc::poll(&raw mut poll, 1, A_MOMENT) };
    poll.revents & (libc::POLLHUP | libc::POLLERR) != 0
}
