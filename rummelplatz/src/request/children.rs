//! Requests that wait for processes.

use std::fmt;
use std::os::fd::AsFd;

use io_uring::opcode;

use super::entry::fd;
use super::{Parts, Request};

/// How a child process has ended, as found out by [`waitid`]: kept in the data of the request. Until that has
/// completed, it says that the child has not ended.
#[derive(Clone, Copy)]
pub struct ChildStatus(Info);

/// The numbers of a `siginfo_t`. That type also has pointers, for signals that are not about a child.
type Info = [u64; 16];

const _: () = assert!(size_of::<Info>() == size_of::<libc::siginfo_t>());
const _: () = assert!(align_of::<Info>() >= align_of::<libc::siginfo_t>());

impl Default for ChildStatus {
    fn default() -> Self {
        Self::new()
    }
}

impl ChildStatus {
    /// The child has not ended, as far as is known.
    pub const fn new() -> ChildStatus {
        ChildStatus([0; 16])
    }

    /// The child's exit code, if it has exited.
    pub fn exit_code(&self) -> Option<i32> {
        let info = self.info();
        // SAFETY: all of it is initialised, and any bits make a valid number.
        (info.si_code == libc::CLD_EXITED).then(|| unsafe { info.si_status() })
    }

    /// The signal that has ended the child, if one has.
    pub fn signal(&self) -> Option<i32> {
        let info = self.info();
        let is_ended = matches!(info.si_code, libc::CLD_KILLED | libc::CLD_DUMPED);
        // SAFETY: all of it is initialised, and any bits make a valid number.
        is_ended.then(|| unsafe { info.si_status() })
    }

    /// Whether the child's memory was dumped to a file when it was ended (`core(5)`).
    pub fn core_dumped(&self) -> bool {
        self.info().si_code == libc::CLD_DUMPED
    }

    fn info(&self) -> libc::siginfo_t {
        // SAFETY: it has the size and the alignment of one, and consists of numbers, for which any bits are valid.
        unsafe { (&raw const self.0).cast::<libc::siginfo_t>().read() }
    }
}

impl fmt::Debug for ChildStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChildStatus")
            .field("exit_code", &self.exit_code())
            .field("signal", &self.signal())
            .finish()
    }
}

/// Waits until a child process has ended, and finds out how, as `waitid(2)` (`IORING_OP_WAITID`, since 6.7). `child` is
/// a descriptor of the process (`pidfd_open(2)`).
///
/// The process is gone afterwards: whoever else waits for it, such as `std::process::Child`, gets `ECHILD`.
///
/// ```
/// # use rummelplatz::{request, request::{ChildStatus, Request}};
/// # use std::os::fd::OwnedFd;
/// struct Job { child: OwnedFd, status: ChildStatus }
///
/// impl Job {
///     fn wait(&mut self) -> Request<'_> {
///         request::waitid(&self.child, &mut self.status)
///     }
/// }
/// ```
pub fn waitid<'d>(child: &'d impl AsFd, status: &'d mut ChildStatus) -> Request<'d> {
    *status = ChildStatus::new();
    let place = (&raw mut status.0).cast::<libc::siginfo_t>();
    let entry = opcode::WaitId::new(libc::P_PIDFD, fd(child) as libc::id_t, libc::WEXITED);
    Parts::whole(entry.infop(place).build()).request()
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::*;
    use crate::request::CWD;

    #[test]
    fn an_end_is_told_of_until_another_is_waited_for() {
        let mut status = ChildStatus::new();
        assert_eq!((status.exit_code(), status.signal(), status.core_dumped()), (None, None, false));
        let code = (&raw mut status.0).cast::<u8>().wrapping_add(offset_of!(libc::siginfo_t, si_code));
        // SAFETY: there is a number at that place, and nobody else has the status.
        unsafe { code.cast::<i32>().write(libc::CLD_DUMPED) };
        assert_eq!((status.exit_code(), status.signal(), status.core_dumped()), (None, Some(0), true));
        assert_eq!(format!("{status:?}"), "ChildStatus { exit_code: None, signal: Some(0) }");
        drop(waitid(&CWD, &mut status));
        assert_eq!((status.exit_code(), status.signal()), (None, None));
    }
}
