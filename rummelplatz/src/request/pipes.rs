//! Requests that make pipes.

use std::fmt;
use std::mem;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use io_uring::opcode;

use super::entry::bare;
use super::sqe::Usual;
use super::{Parts, Request};
use crate::mutant;

/// The two ends of a pipe that [`pipe`] has made: kept in the data of the request. Until that has completed, and if it
/// has failed, there are none.
///
/// It owns the ends, until they are [taken](Self::take): if the data is dropped, they are closed.
// The alignment is that of both numbers together, so that they are on one page: no fault comes between them.
#[repr(align(8))]
pub struct Pipe {
    /// The descriptors of the reading end and the writing end, or [`NONE`].
    ends: [RawFd; 2],
}

/// No descriptors.
const NONE: [RawFd; 2] = [-1; 2];

const _: () = assert!(align_of::<Pipe>() == size_of::<[RawFd; 2]>() && size_of::<Pipe>() == 8);

impl Default for Pipe {
    fn default() -> Self {
        Self::new()
    }
}

impl Pipe {
    /// No pipe.
    pub const fn new() -> Pipe {
        Pipe { ends: NONE }
    }

    /// The end to read from, and the end to write to; nothing if there is no pipe, or if they were taken before.
    pub fn take(&mut self) -> Option<(OwnedFd, OwnedFd)> {
        let ends = mem::replace(&mut self.ends, NONE);
        // SAFETY: if these are not none, the kernel has written two new descriptors here, which it does only for the
        // request that has borrowed the pipe; that is over, because the pipe is borrowed now. They are forgotten here,
        // so they are given away only once.
        let end = |number| unsafe { OwnedFd::from_raw_fd(number) };
        (ends != NONE).then(|| (end(ends[0]), end(ends[1])))
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        if mutant::is("a pipe stays open") {
            return;
        }
        drop(self.take());
    }
}

impl fmt::Debug for Pipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [reader, writer] = self.ends;
        f.debug_struct("Pipe").field("reader", &reader).field("writer", &writer).finish()
    }
}

/// Makes a pipe, as `pipe2(2)` (`IORING_OP_PIPE`, since 6.16; `EINVAL` before). The result is 0.
///
/// The ends are in `pipe`, close-on-exec. What was in there before is closed.
///
/// ```
/// # use rummelplatz::{request, request::{Pipe, Request}, Completion};
/// # use std::{io, os::fd::OwnedFd};
/// struct Relay { pipe: Pipe, from: OwnedFd, to: OwnedFd }
///
/// impl Relay {
///     fn begin(&mut self) -> Request<'_> {
///         request::pipe(&mut self.pipe)
///     }
///     /// For the handler.
///     fn ends(&mut self, completion: Completion) -> io::Result<(OwnedFd, OwnedFd)> {
///         completion.result()?;
///         self.pipe.take().ok_or(io::ErrorKind::NotFound.into())
///     }
/// }
/// ```
pub fn pipe<'d>(pipe: &'d mut Pipe) -> Request<'d> {
    drop(pipe.take());
    let address = (&raw mut pipe.ends).expose_provenance() as u64;
    // The kernel refuses any other descriptor.
    let entry = bare(opcode::Pipe::CODE.into(), 0);
    Parts::usual(Usual { address, op_flags: libc::O_CLOEXEC as u32, ..entry }).request()
}

#[cfg(test)]
mod tests {
    use std::io::{self, Read, Write, pipe};
    use std::os::fd::IntoRawFd;

    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "there are no pipes")]
    fn the_ends_are_closed_or_given_away_once() {
        let made = || {
            let (reader, writer) = pipe().unwrap();
            Pipe { ends: [reader.into_raw_fd(), writer.into_raw_fd()] }
        };
        let mut pipe = made();
        let (mut reader, writer) = pipe.take().map(|(one, two)| (io::PipeReader::from(one), two)).unwrap();
        assert!(pipe.take().is_none());
        drop(pipe);
        io::PipeWriter::from(writer).write_all(b"x").unwrap();
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, b"x");

        // The end that stays sees that the other one is closed.
        let mut pipe = made();
        // SAFETY: the pipe has this descriptor, and is not told of it.
        let writer = unsafe { OwnedFd::from_raw_fd(libc::fcntl(pipe.ends[1], libc::F_DUPFD_CLOEXEC, 0)) };
        drop(super::pipe(&mut pipe));
        assert_eq!(pipe.ends, NONE);
        let written = io::PipeWriter::from(writer).write(b"x");
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(format!("{:?}", Pipe::new()), "Pipe { reader: -1, writer: -1 }");
    }
}
