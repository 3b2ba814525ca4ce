//! What a handler is told, as a value that owns what it carries.

use std::fmt;
use std::io;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::Arc;

use io_uring::cqueue;

use crate::buffers::{Buffer, BufferPool, Shared};
use crate::facts::{Facts, Yields};

/// The end of a request, or one more result of a stream.
///
/// It owns what it carries: an accepted or opened descriptor that nobody takes out is closed when the
/// completion is dropped, a buffer goes back to its pool.
#[must_use = "a completion releases what it carries when it is dropped"]
pub struct Completion {
    /// 0 if a descriptor is carried, whose number is for its owner.
    result: i32,
    flags: u32,
    kind: Kind,
    /// Initialised if a buffer is carried: the pool that it is of.
    pool: MaybeUninit<Arc<Shared>>,
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
    Descriptor(OwnedFd),
    Buffer(Buffer),
}

/// What there is to a completion beside its result, in one word: 0 if nothing. The upper half is the number
/// of what is carried.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Kind(u64);

impl Kind {
    const PLAIN: Kind = Kind(0);
    /// The low bits are [`Yields`].
    const YIELDS: u64 = 7;
    const MORE: Kind = Kind(1 << 3);
    const MESSAGE: Kind = Kind(1 << 4);
    const CARRIES: Kind = Kind(1 << 5);

    #[inline(always)]
    const fn of(yields: Yields) -> Kind {
        Kind(yields as u64)
    }

    /// Of a completion that carries a descriptor or a buffer, with this number.
    #[inline(always)]
    const fn carrying(yields: Yields, number: u32) -> Kind {
        Kind((number as u64) << 32 | yields as u64 | Self::CARRIES.0)
    }

    /// The number of what is carried.
    #[inline(always)]
    const fn number(self) -> u32 {
        (self.0 >> 32) as u32
    }

    #[inline(always)]
    const fn yields(self, yields: Yields) -> bool {
        self.0 & Self::YIELDS == yields as u64
    }

    #[inline(always)]
    const fn with(self, other: Kind) -> Kind {
        Kind(self.0 | other.0)
    }

    #[inline(always)]
    const fn without(self, other: Kind) -> Kind {
        Kind(self.0 & !other.0)
    }

    #[inline(always)]
    const fn has(self, other: Kind) -> bool {
        self.0 & other.0 != 0
    }
}

const _: () = assert!(Yields::Result as u64 == 0 && Yields::LAST as u64 <= Kind::YIELDS);

// What may have to be dropped when a handler panics is kept in memory, unless its `Drop` is so short that
// even there the compiler does it in place.
impl Drop for Completion {
    #[inline(always)]
    fn drop(&mut self) {
        if self.kind.has(Kind::CARRIES) {
            // SAFETY: moved, with what it says of it; `self` is not used again.
            release(self.kind, unsafe { ptr::read(&self.pool) });
        }
    }
}

/// Drops what a completion carries.
#[cold]
#[inline(never)]
fn release(kind: Kind, pool: MaybeUninit<Arc<Shared>>) {
    ManuallyDrop::new(Completion { result: 0, flags: 0, kind, pool }).unload();
}

impl Completion {
    /// The completion of a request that yields its result and nothing else.
    #[inline(always)]
    pub(crate) fn plain(result: i32, flags: u32) -> Completion {
        Completion { result, flags, kind: Kind::PLAIN, pool: MaybeUninit::uninit() }
    }

    /// What is carried, which is not from here on.
    #[inline(always)]
    fn unload(&mut self) -> Option<Carried> {
        if !self.kind.has(Kind::CARRIES) {
            return None;
        }
        self.kind = self.kind.without(Kind::CARRIES);
        let number = self.kind.number();
        Some(match self.kind.yields(Yields::Descriptor) {
            // SAFETY: the kind said that it is a descriptor of ours; it does not any more.
            true => Carried::Descriptor(unsafe { OwnedFd::from_raw_fd(number as RawFd) }),
            false => {
                // SAFETY: the kind said that there is a pool; it does not any more.
                let pool = unsafe { self.pool.assume_init_read() };
                let length = self.result.max(0).unsigned_abs();
                // SAFETY: the buffer was held for this completion.
                Carried::Buffer(unsafe { Buffer::of(pool, number as u16, length) })
            }
        })
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
        let mut completion = Completion::plain(result, flags);
        completion.kind = Kind::of(facts.yields);
        match facts.yields {
            // That it is ours is the caller's promise.
            Yields::Descriptor if result >= 0 => {
                completion.kind = Kind::carrying(Yields::Descriptor, result.unsigned_abs());
                completion.result = 0;
            }
            // Errors can carry a buffer, too.
            Yields::Buffer => {
                if let Some(id) = cqueue::buffer_select(flags)
                    && let Some(pool) = pool.and_then(|pool| pool.hold(id))
                {
                    completion.kind = Kind::carrying(Yields::Buffer, id.into());
                    completion.pool = MaybeUninit::new(pool);
                }
            }
            _ => {}
        }
        completion
    }

    /// Marks a completion after which the request goes on.
    #[inline(always)]
    pub(crate) fn announcing_more(mut self) -> Self {
        self.kind = self.kind.with(Kind::MORE);
        self
    }

    pub(crate) fn into_message(mut self) -> Self {
        self.kind = self.kind.with(Kind::MESSAGE);
        self
    }

    /// Whether it carries a descriptor, a buffer, events or a tick: more than the news that a
    /// stream has ended.
    pub(crate) fn has_payload(&self) -> bool {
        let Kind(kind) = self.kind;
        match kind & Kind::YIELDS {
            DESCRIPTOR => self.kind.has(Kind::CARRIES),
            // No bytes are the end of the file.
            BUFFER => self.kind.has(Kind::CARRIES) && self.result > 0,
            EVENTS => self.result > 0,
            TICK => self.result == -libc::ETIME,
            _ => false,
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
        let mut completion = Completion::plain(0, 0);
        completion.kind = Kind::carrying(Yields::Descriptor, descriptor.into_raw_fd().unsigned_abs());
        completion
    }

    /// What arrives with the data given to [`post`](crate::Submitter::post) or
    /// [`send`](crate::RingHandle::send), for tests of one's own operations.
    pub fn message() -> Completion {
        Completion::from_result(Ok(0)).into_message()
    }

    /// The same completion with [`more`](Self::more) true, as of a stream that goes on, for tests of
    /// one's own operations.
    pub fn with_more(self) -> Completion {
        self.announcing_more()
    }

    /// Whether the request goes on: more completions will come, if the handler returns the data.
    #[inline]
    pub fn more(&self) -> bool {
        self.kind.has(Kind::MORE)
    }

    /// Whether this is no completion of the kernel's, but data from
    /// [`post`](crate::Submitter::post) or [`send`](crate::RingHandle::send).
    pub fn is_message(&self) -> bool {
        self.kind.has(Kind::MESSAGE)
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
        match self.result {
            result if result >= 0 => Ok(result.unsigned_abs()),
            ETIME if self.kind.yields(Yields::Tick) => Ok(0),
            RESTART_FIRST..=RESTART_LAST => Err(io::Error::from_raw_os_error(libc::ECANCELED)),
            errno => Err(io::Error::from_raw_os_error(errno.wrapping_neg())),
        }
    }

    /// Whether the request was cancelled before it could do anything: [`result`](Self::result) is
    /// `ECANCELED`.
    ///
    /// A request that was asked to end may also have succeeded, or failed, or done a part.
    pub fn is_cancelled(&self) -> bool {
        matches!(self.result, CANCELLED | RESTART_FIRST..=RESTART_LAST)
    }

    /// The descriptor that was accepted or opened.
    ///
    /// # Errors
    ///
    /// What the operation failed with, or `InvalidInput` if it is not one that yields a descriptor.
    pub fn into_fd(self) -> io::Result<OwnedFd> {
        self.result()?;
        let mut this = self;
        match this.unload() {
            Some(Carried::Descriptor(descriptor)) => Ok(descriptor),
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
        let mut this = self;
        match this.unload() {
            Some(Carried::Buffer(buffer)) => Ok(buffer),
            _ if this.kind.yields(Yields::Buffer) => Ok(Buffer::empty()),
            _ => Err(carries_no("buffer")),
        }
    }

    /// What the kernel posted, for what this type does not say.
    pub fn raw(&self) -> RawCompletion {
        let carries_descriptor = self.kind.has(Kind::CARRIES) && self.kind.yields(Yields::Descriptor);
        let result = if carries_descriptor { self.kind.number() as i32 } else { self.result };
        RawCompletion { result, flags: self.flags }
    }
}

const ETIME: i32 = -libc::ETIME;
const DESCRIPTOR: u64 = Yields::Descriptor as u64;
const BUFFER: u64 = Yields::Buffer as u64;
const EVENTS: u64 = Yields::Events as u64;
const TICK: u64 = Yields::Tick as u64;
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
        debug.field("result", &self.result()).field("more", &self.more());
        if self.is_message() {
            debug.field("message", &true);
        }
        if self.kind.has(Kind::CARRIES) {
            match self.kind.yields(Yields::Descriptor) {
                true => debug.field("carries", &format_args!("descriptor {}", self.kind.number())),
                false => debug.field("carries", &format_args!("buffer {}", self.kind.number())),
            };
        }
        debug.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

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
    fn a_buffer_comes_out_once_or_goes_back() {
        let pool = BufferPool::new(3, 8).unwrap();
        let facts = Facts { yields: Yields::Buffer, ..Facts::new(0) };
        // `IORING_CQE_F_BUFFER`, and the number.
        let flags = 2 << 16 | 1;
        // SAFETY: there are no descriptors here.
        let complete = |result| unsafe { Completion::new(&facts, Some(&pool), result, flags) };
        let completion = complete(5);
        assert_eq!((pool.available(), completion.result().unwrap()), (2, 5));
        assert!(format!("{completion:?}").contains("buffer 2"));
        assert!(!complete(5).has_payload(), "it can't be there twice");
        let buffer = completion.into_buffer().unwrap();
        assert_eq!((buffer.len(), pool.available()), (5, 2));
        drop(buffer);
        assert_eq!(pool.available(), 3);
        drop(complete(100).announcing_more());
        assert_eq!(pool.available(), 3);
        assert_eq!(complete(100).into_buffer().unwrap().len(), 8);
        assert_eq!(complete(-libc::EIO).into_buffer().unwrap_err().raw_os_error(), Some(libc::EIO));
        assert!(complete(5).into_fd().is_err());
        assert_eq!(pool.available(), 3);
    }

    #[test]
    fn a_descriptor_comes_out_owned_or_is_closed() {
        let (reader, writer) = io::pipe().unwrap();
        let number = writer.as_raw_fd();
        let completion = Completion::from_fd(writer.into());
        assert_eq!(completion.result().unwrap(), 0);
        assert_eq!(completion.raw(), RawCompletion { result: number, flags: 0 });
        assert!(completion.has_payload() && !completion.more() && !completion.is_message());
        let completion = completion.with_more().into_message();
        assert!(completion.more() && completion.is_message());
        drop(completion);
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut &reader, &mut bytes).unwrap();

        let completion = Completion::from_fd(reader.into());
        assert!(completion.into_fd().is_ok());
        let error = Completion::from_result(Ok(1)).into_fd().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
