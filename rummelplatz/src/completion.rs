//! What a handler is told, as a value that owns what it carries.

use std::fmt;
use std::io;
use std::mem::{self, ManuallyDrop};
use std::os::fd::{FromRawFd, OwnedFd};

use io_uring::cqueue;

use crate::buffers::{Buffer, BufferPool};
use crate::facts::{Facts, Yields};

/// The end of a request, or one more result of a stream.
///
/// It owns what it carries: an accepted or opened descriptor that nobody takes out is closed when the
/// completion is dropped, a buffer goes back to its pool.
#[must_use = "a completion releases what it carries when it is dropped"]
pub struct Completion {
    raw: RawCompletion,
    yields: Yields,
    more: bool,
    message: bool,
    cargo: Cargo,
}

/// `res` and `flags` of the completion queue entry, as the kernel posted them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RawCompletion {
    /// `cqe->res`: what the operation returned, or a negative `errno`.
    pub result: i32,
    /// `cqe->flags`: `IORING_CQE_F_*`.
    pub flags: u32,
}

enum Carried {
    Nothing,
    Descriptor(OwnedFd),
    Buffer(Buffer),
}

/// Something carried, or nothing; released by its own `Drop`, out of line, so that to drop a completion
/// is so short that the compiler does it in place, and keeps completions in registers.
struct Cargo(ManuallyDrop<Carried>);

impl Cargo {
    #[inline(always)]
    const fn new(carried: Carried) -> Cargo {
        Cargo(ManuallyDrop::new(carried))
    }

    #[inline(always)]
    fn unload(&mut self) -> Carried {
        mem::replace(&mut *self.0, Carried::Nothing)
    }
}

impl Drop for Cargo {
    #[inline(always)]
    fn drop(&mut self) {
        #[cold]
        #[inline(never)]
        fn release(carried: Carried) {
            drop(carried);
        }
        match self.unload() {
            Carried::Nothing => {}
            carried => release(carried),
        }
    }
}

impl Completion {
    /// The completion of a request that yields its result and nothing else.
    #[inline(always)]
    pub(crate) fn plain(result: i32, flags: u32) -> Completion {
        Completion {
            raw: RawCompletion { result, flags },
            yields: Yields::Result,
            more: false,
            message: false,
            cargo: Cargo::new(Carried::Nothing),
        }
    }

    /// Takes over what a completion of such a request carries.
    ///
    /// # Safety
    ///
    /// If the request yields descriptors and `result` is not negative, `result` is a descriptor that
    /// nobody else owns.
    #[inline]
    pub(crate) unsafe fn new(
        facts: &Facts,
        pool: Option<&BufferPool>,
        result: i32,
        flags: u32,
    ) -> Completion {
        let carried = match facts.yields {
            Yields::Descriptor if result >= 0 => {
                // SAFETY: the caller's promise.
                Carried::Descriptor(unsafe { OwnedFd::from_raw_fd(result) })
            }
            // Errors can carry a buffer, too.
            Yields::Buffer => cqueue::buffer_select(flags)
                .and_then(|id| pool?.take(id, result.max(0).unsigned_abs()))
                .map_or(Carried::Nothing, Carried::Buffer),
            _ => Carried::Nothing,
        };
        Completion { yields: facts.yields, cargo: Cargo::new(carried), ..Completion::plain(result, flags) }
    }

    /// Marks a completion after which the request goes on.
    #[inline(always)]
    pub(crate) fn announcing_more(mut self) -> Self {
        self.more = true;
        self
    }

    pub(crate) fn into_message(mut self) -> Self {
        self.message = true;
        self
    }

    /// Whether it carries a descriptor, a buffer, events or a tick: more than the news that a
    /// stream has ended.
    pub(crate) fn has_payload(&self) -> bool {
        match self.yields {
            Yields::Result => false,
            Yields::Descriptor => matches!(*self.cargo.0, Carried::Descriptor(_)),
            // No bytes are the end of the file.
            Yields::Buffer => matches!(*self.cargo.0, Carried::Buffer(_)) && self.raw.result > 0,
            Yields::Events => self.raw.result > 0,
            Yields::Tick => self.raw.result == -libc::ETIME,
        }
    }

    /// A completion with this result, for tests of one's own operations.
    ///
    /// An error should be one of the system's ([`io::Error::from_raw_os_error`]); any other becomes
    /// `EIO`.
    pub fn from_result(result: io::Result<u32>) -> Completion {
        let result = match result {
            Ok(result) => i32::try_from(result).unwrap_or(i32::MAX),
            Err(error) => -error.raw_os_error().unwrap_or(libc::EIO),
        };
        Completion::plain(result, 0)
    }

    /// A completion that carries a descriptor, for tests of one's own operations.
    pub fn from_fd(descriptor: OwnedFd) -> Completion {
        Completion {
            yields: Yields::Descriptor,
            cargo: Cargo::new(Carried::Descriptor(descriptor)),
            ..Completion::from_result(Ok(0))
        }
    }

    /// What arrives with the data given to [`post`](crate::Submitter::post) or
    /// [`send`](crate::RingHandle::send), for tests of one's own operations.
    pub fn message() -> Completion {
        Completion { message: true, ..Completion::from_result(Ok(0)) }
    }

    /// The same completion with [`more`](Self::more) true, as of a stream that goes on, for tests of
    /// one's own operations.
    pub fn with_more(self) -> Completion {
        self.announcing_more()
    }

    /// Whether the request goes on: more completions will come, if the handler returns the data.
    #[inline]
    pub fn more(&self) -> bool {
        self.more
    }

    /// Whether this is no completion of the kernel's, but data from
    /// [`post`](crate::Submitter::post) or [`send`](crate::RingHandle::send).
    pub fn is_message(&self) -> bool {
        self.message
    }

    /// What the operation returned: for reads and writes a number of bytes, for polls the events.
    ///
    /// For requests that yield a descriptor this is `Ok(0)`: the number only comes out owned, by
    /// [`into_fd`](Self::into_fd). A timer that ran its time is `Ok(0)`.
    ///
    /// # Errors
    ///
    /// What the operation failed with. `ECANCELED` if it was cancelled; the kernel's internal codes
    /// (512 to 531, `ERESTARTSYS` and its kin), which some operations end with when they are
    /// cancelled, read as `ECANCELED` too.
    #[inline]
    pub fn result(&self) -> io::Result<u32> {
        match self.raw.result {
            result if result >= 0 => match self.yields {
                Yields::Descriptor => Ok(0),
                _ => Ok(result.unsigned_abs()),
            },
            ETIME if self.yields == Yields::Tick => Ok(0),
            RESTART_FIRST..=RESTART_LAST => Err(io::Error::from_raw_os_error(libc::ECANCELED)),
            errno => Err(io::Error::from_raw_os_error(errno.wrapping_neg())),
        }
    }

    /// Whether the request was cancelled before it could do anything: [`result`](Self::result) is
    /// `ECANCELED`.
    ///
    /// A request that was asked to end may also have succeeded, or failed, or done a part.
    pub fn is_cancelled(&self) -> bool {
        matches!(self.raw.result, CANCELLED | RESTART_FIRST..=RESTART_LAST)
    }

    /// The descriptor that was accepted or opened.
    ///
    /// # Errors
    ///
    /// What the operation failed with, or `InvalidInput` if it is not one that yields a descriptor.
    pub fn into_fd(self) -> io::Result<OwnedFd> {
        self.result()?;
        let Completion { mut cargo, .. } = self;
        match cargo.unload() {
            Carried::Descriptor(descriptor) => Ok(descriptor),
            _ => Err(carries_no("descriptor")),
        }
    }

    /// The bytes that were received, in their buffer of the pool; empty at the end of a stream.
    ///
    /// # Errors
    ///
    /// What the operation failed with, or `InvalidInput` if it is not one that receives from a pool.
    pub fn into_buffer(self) -> io::Result<Buffer> {
        self.result()?;
        let Completion { mut cargo, yields, .. } = self;
        match (cargo.unload(), yields) {
            (Carried::Buffer(buffer), _) => Ok(buffer),
            (_, Yields::Buffer) => Ok(Buffer::empty()),
            _ => Err(carries_no("buffer")),
        }
    }

    /// What the kernel posted, for what this type does not say.
    pub fn raw(&self) -> RawCompletion {
        self.raw
    }
}

const ETIME: i32 = -libc::ETIME;
const CANCELLED: i32 = -libc::ECANCELED;
/// `ERESTARTSYS`, the first of the codes that are the kernel's own (`include/linux/errno.h`).
const RESTART_LAST: i32 = -512;
const RESTART_FIRST: i32 = -531;

#[cold]
fn carries_no(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("the completion carries no {what}"))
}

impl fmt::Debug for Completion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Completion");
        debug.field("result", &self.result()).field("more", &self.more);
        if self.message {
            debug.field("message", &true);
        }
        match &*self.cargo.0 {
            Carried::Nothing => debug.finish(),
            Carried::Descriptor(descriptor) => debug.field("carries", descriptor).finish(),
            Carried::Buffer(buffer) => debug.field("carries", buffer).finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result_of(yields: Yields, result: i32) -> Result<u32, i32> {
        let facts = Facts { yields, ..Facts::new(0) };
        // SAFETY: no test here has a descriptor in a result.
        let completion = unsafe { Completion::new(&facts, None, result, 0) };
        completion.result().map_err(|error| error.raw_os_error().unwrap())
    }

    #[test]
    fn a_timer_that_ran_its_time_succeeded() {
        assert_eq!(result_of(Yields::Tick, -libc::ETIME), Ok(0));
        assert_eq!(result_of(Yields::Tick, -libc::ECANCELED), Err(libc::ECANCELED));
        assert_eq!(result_of(Yields::Result, -libc::ETIME), Err(libc::ETIME));
    }

    #[test]
    fn codes_of_the_kernels_own_read_as_cancelled() {
        for (code, read) in [(511, 511), (512, 125), (531, 125), (532, 532)] {
            assert_eq!(result_of(Yields::Result, -code), Err(read));
        }
        let was_cancelled = |code: i32| Completion::plain(-code, 0).is_cancelled();
        assert!(was_cancelled(125) && was_cancelled(512) && !was_cancelled(4) && !was_cancelled(0));
        assert_eq!(result_of(Yields::Result, i32::MIN), Err(i32::MIN), "and nothing panics");
    }

    #[test]
    fn a_descriptor_comes_out_owned_or_is_closed() {
        let (reader, writer) = io::pipe().unwrap();
        let completion = Completion::from_fd(writer.into());
        assert_eq!(completion.result().unwrap(), 0);
        drop(completion);
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut &reader, &mut bytes).unwrap();

        let completion = Completion::from_fd(reader.into());
        assert!(completion.into_fd().is_ok());
        let error = Completion::from_result(Ok(1)).into_fd().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
