//! The errors of building a ring and of submitting to it, and what is stuck when one is abandoned.

use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

use crate::buffers::PoolError;
use crate::request::sqe;

/// Why a ring could not be built.
#[derive(Debug)]
pub struct BuildError {
    kind: BuildErrorKind,
    what: What,
    source: io::Error,
}

/// What could not be had.
#[derive(Debug)]
enum What {
    /// A ring with this many entries.
    Entries(u32),
    /// This option of the builder.
    Option(&'static str),
}

/// The kinds of [`BuildError`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum BuildErrorKind {
    /// More entries than the kernel allows (32768).
    TooLarge,
    /// The kernel is too old for what was asked (`EINVAL`), or was built without it (`EOPNOTSUPP`).
    Unsupported,
    /// io_uring is switched off: by the `kernel.io_uring_disabled` sysctl or a seccomp filter
    /// (`EPERM`, `EACCES`). Or [`sqpoll`](crate::Builder::sqpoll) needs a privilege, before 5.13.
    Forbidden,
    /// The kernel has no io_uring at all, or hides it (`ENOSYS`).
    Missing,
    /// The CPU that [`sqpoll`](crate::Builder::sqpoll) names is not online, or may not be used (`EINVAL`). Or
    /// [`worker_cpus`](crate::Builder::worker_cpus) names none, or one that is not online.
    NoSuchCpu,
    /// A limit was reached: descriptors (`EMFILE`, `ENFILE`) or memory (`ENOMEM`).
    Limit,
    /// Anything else.
    Other,
}

impl BuildError {
    pub(crate) fn new(entries: u32, source: io::Error) -> BuildError {
        let kind = match source.raw_os_error() {
            Some(libc::EINVAL | libc::EOPNOTSUPP) => BuildErrorKind::Unsupported,
            Some(libc::EPERM | libc::EACCES) => BuildErrorKind::Forbidden,
            Some(libc::ENOSYS) => BuildErrorKind::Missing,
            Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM) => BuildErrorKind::Limit,
            _ => BuildErrorKind::Other,
        };
        BuildError { kind, what: What::Entries(entries), source }
    }

    /// The kernel refuses an option of the builder.
    pub(crate) fn of(option: &'static str, source: io::Error) -> BuildError {
        BuildError { what: What::Option(option), ..BuildError::new(0, source) }
    }

    /// An option of the builder names no CPU that there is.
    pub(crate) fn no_such_cpu(option: &'static str, source: io::Error) -> BuildError {
        BuildError { kind: BuildErrorKind::NoSuchCpu, what: What::Option(option), source }
    }

    pub(crate) fn too_large(entries: u32) -> BuildError {
        let source = io::Error::from_raw_os_error(libc::EINVAL);
        BuildError { kind: BuildErrorKind::TooLarge, what: What::Entries(entries), source }
    }

    /// The same, where a CPU was named. The CPU is to blame, because all else that could be too new was done
    /// without.
    pub(crate) fn naming_a_cpu(mut self) -> BuildError {
        if self.kind == BuildErrorKind::Unsupported {
            self.kind = BuildErrorKind::NoSuchCpu;
        }
        self
    }

    /// What kind of failure it was.
    pub fn kind(&self) -> BuildErrorKind {
        self.kind
    }
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let BuildError { kind, what, source } = self;
        match what {
            What::Entries(entries) => write!(f, "could not create an io_uring with {entries} entries: ")?,
            What::Option(option) => {
                write!(f, "`{option}` can't be had: ")?;
                return match kind {
                    BuildErrorKind::Unsupported => {
                        write!(f, "this kernel is too old, or was built without it ({source})")
                    }
                    _ => write!(f, "{source}"),
                };
            }
        }
        match kind {
            BuildErrorKind::TooLarge => write!(f, "the kernel allows at most 32768"),
            BuildErrorKind::Unsupported => write!(f, "this kernel is too old ({source})"),
            BuildErrorKind::Forbidden => write!(
                f,
                "io_uring is switched off here, by the sysctl kernel.io_uring_disabled or a seccomp \
                 filter ({source})"
            ),
            BuildErrorKind::Missing => write!(f, "this kernel has no io_uring ({source})"),
            BuildErrorKind::NoSuchCpu => write!(f, "there is no such CPU for its thread ({source})"),
            BuildErrorKind::Limit => {
                write!(f, "a resource limit was reached, see `ulimit -n` and `ulimit -l` ({source})")
            }
            BuildErrorKind::Other => write!(f, "{source}"),
        }
    }
}

impl Error for BuildError {}

impl From<BuildError> for io::Error {
    fn from(error: BuildError) -> Self {
        io::Error::new(error.source.kind(), error)
    }
}

/// Why a request was not accepted. Nothing of it was queued.
///
/// Small; `?` turns it into an [`io::Error`] or any boxed error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum SubmitError {
    /// The submission queue is full, and so is the backlog. Wait for completions.
    Full,
    /// The operation has as many requests in flight as the builder's
    /// [`request_limit`](crate::Builder::request_limit) allows.
    TooManyRequests,
    /// The ring is being torn down and accepts nothing more, or was abandoned.
    Closed,
    /// This process was forked off the one that has the ring.
    Forked,
    /// The [`BufferPool`](crate::BufferPool) or [`FixedBuffers`](crate::FixedBuffers) are registered with another ring.
    PoolInUse,
    /// The kernel did not register the [`BufferPool`](crate::BufferPool), [`FixedBuffers`](crate::FixedBuffers) or
    /// [`FixedFile`](crate::FixedFile), with this `errno`.
    PoolRefused(i32),
    /// The raw entry, or the chain, would break the ring's accounts.
    Invalid(InvalidEntry),
}

/// What a raw entry or a chain may not do, because the ring could not keep its promises then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum InvalidEntry {
    /// `IOSQE_CQE_SKIP_SUCCESS` on a tracked request: its end would never be told.
    SkipsSuccess,
    /// `IOSQE_IO_DRAIN`: all later entries would wait behind it, cancels included.
    Drains,
    /// A link on the last entry: it would join whatever entry comes next.
    LinksOn,
    /// A chain that is longer than the submission queue, which could not be submitted whole.
    ChainTooLong,
    /// `IORING_POLL_UPDATE_USER_DATA`: it would change the `user_data` of another request.
    ChangesUserData,
    /// It receives from an [incremental](crate::BufferPool::incremental) pool, and is no stream of bytes: nothing
    /// would say how much of a buffer it has taken.
    TakesWholeBuffers,
}

impl fmt::Display for InvalidEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            InvalidEntry::SkipsSuccess => "CQE_SKIP_SUCCESS would hide its end",
            InvalidEntry::Drains => "IO_DRAIN holds up all later entries, cancels included",
            InvalidEntry::LinksOn => "its link would join whatever entry comes next",
            InvalidEntry::ChainTooLong => "the chain is longer than the submission queue",
            InvalidEntry::ChangesUserData => "it would change the user_data of another request",
            InvalidEntry::TakesWholeBuffers => "only streams of bytes can receive from an incremental pool",
        })
    }
}

const _: () = assert!(size_of::<SubmitError>() <= 8, "small: it is returned by every submit");

impl fmt::Display for SubmitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SubmitError::Full => f.write_str(
                "the submission queue and the backlog are full: wait for completions, or raise the builder's `backlog_limit`",
            ),
            SubmitError::TooManyRequests => {
                f.write_str("the operation has as many requests in flight as the builder's `request_limit` allows")
            }
            SubmitError::Closed => f.write_str("the ring is closing and accepts no more requests"),
            SubmitError::Forked => {
                f.write_str("the ring belongs to the process that this one was forked from")
            }
            SubmitError::PoolInUse => f.write_str(
                "the buffers are registered with another ring until that has finished: give each ring its own",
            ),
            SubmitError::PoolRefused(errno) => {
                let source = io::Error::from_raw_os_error(*errno);
                write!(f, "the kernel did not register the buffers or the file: {source}")?;
                match *errno {
                    libc::ENOMEM => f.write_str(" (they count towards `ulimit -l`)"),
                    _ => Ok(()),
                }
            }
            SubmitError::Invalid(why) => write!(f, "the request is invalid: {why}"),
        }
    }
}

impl Error for SubmitError {}

impl From<PoolError> for SubmitError {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Taken => SubmitError::PoolInUse,
            PoolError::Refused(error) => SubmitError::PoolRefused(error.raw_os_error().unwrap_or(libc::EIO)),
        }
    }
}

impl From<SubmitError> for io::Error {
    fn from(error: SubmitError) -> Self {
        let kind = match error {
            SubmitError::Full | SubmitError::TooManyRequests => io::ErrorKind::WouldBlock,
            SubmitError::Closed => io::ErrorKind::BrokenPipe,
            SubmitError::Forked | SubmitError::PoolInUse => io::ErrorKind::ResourceBusy,
            SubmitError::PoolRefused(errno) => io::Error::from_raw_os_error(errno).kind(),
            SubmitError::Invalid(_) => io::ErrorKind::InvalidInput,
        };
        io::Error::new(kind, error)
    }
}

/// A request that was not accepted, together with its data.
pub struct Refused<D> {
    /// The data, as it was handed in (or as the closure left it).
    pub data: D,
    /// Why.
    pub error: SubmitError,
}

impl<D> fmt::Debug for Refused<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refused").field("error", &self.error).finish_non_exhaustive()
    }
}

impl<D> fmt::Display for Refused<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl<D> Error for Refused<D> {}

impl<D> From<Refused<D>> for SubmitError {
    fn from(refused: Refused<D>) -> Self {
        refused.error
    }
}

impl<D> From<Refused<D>> for io::Error {
    fn from(refused: Refused<D>) -> Self {
        refused.error.into()
    }
}

/// Requests that the kernel did not give back: how many, and which.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stuck {
    /// One for each request.
    pub requests: Vec<StuckRequest>,
    /// The `errno` that made the ring unusable; `None` if its deadline has passed, or if it was dropped where
    /// it could not be torn down.
    pub errno: Option<i32>,
}

/// A request that the kernel did not give back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StuckRequest {
    /// The name of the operation: its field in the ring.
    pub operation: &'static str,
    /// `sqe->opcode`, an `IORING_OP_*`.
    pub opcode: u8,
    /// How long ago it was submitted, to within some ten milliseconds; on a busy ring, it may be too much by
    /// one wait.
    pub age: Duration,
}

impl StuckRequest {
    /// The kernel's name of the opcode, without its `IORING_OP_`.
    pub fn opcode_name(&self) -> &'static str {
        sqe::name(self.opcode)
    }
}

impl fmt::Display for Stuck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 4;
        write!(f, "{} stuck in the kernel", self.requests.len())?;
        for (index, request) in self.requests.iter().take(SHOWN).enumerate() {
            let StuckRequest { operation, age, .. } = request;
            let name = request.opcode_name();
            let between = if index == 0 { ": " } else { ", " };
            write!(f, "{between}{name} of `{operation}` since {age:?}")?;
        }
        if self.requests.len() > SHOWN {
            write!(f, ", …")?;
        }
        if let Some(errno) = self.errno {
            write!(f, "; the ring is unusable: {}", io::Error::from_raw_os_error(errno))?;
        }
        Ok(())
    }
}

impl Error for Stuck {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_says_becomes_a_kind() {
        let kind = |errno| BuildError::new(8, io::Error::from_raw_os_error(errno)).kind();
        assert_eq!(kind(libc::EINVAL), BuildErrorKind::Unsupported);
        assert_eq!(kind(libc::EOPNOTSUPP), BuildErrorKind::Unsupported);
        assert_eq!(kind(libc::EPERM), BuildErrorKind::Forbidden);
        assert_eq!(kind(libc::EACCES), BuildErrorKind::Forbidden);
        assert_eq!(kind(libc::ENOSYS), BuildErrorKind::Missing);
        assert_eq!(kind(libc::EMFILE), BuildErrorKind::Limit);
        assert_eq!(kind(libc::ENFILE), BuildErrorKind::Limit);
        assert_eq!(kind(libc::ENOMEM), BuildErrorKind::Limit);
        assert_eq!(kind(libc::EFAULT), BuildErrorKind::Other);
    }

    #[test]
    fn what_an_error_of_the_system_is_says_what_can_be_done() {
        use io::ErrorKind as Kind;
        let kind = |error: SubmitError| io::Error::from(error).kind();
        assert_eq!(kind(SubmitError::Full), Kind::WouldBlock);
        assert_eq!(kind(SubmitError::TooManyRequests), Kind::WouldBlock);
        assert_eq!(kind(SubmitError::Closed), Kind::BrokenPipe);
        assert_eq!(kind(SubmitError::Forked), Kind::ResourceBusy);
        assert_eq!(kind(SubmitError::PoolInUse), Kind::ResourceBusy);
        assert_eq!(kind(SubmitError::PoolRefused(libc::ENOMEM)), Kind::OutOfMemory);
        assert_eq!(kind(SubmitError::Invalid(InvalidEntry::LinksOn)), Kind::InvalidInput);
        let built = BuildError::new(8, io::Error::from_raw_os_error(libc::EPERM));
        assert_eq!(io::Error::from(built).kind(), Kind::PermissionDenied);
    }

    #[test]
    fn an_option_that_the_kernel_refuses_is_named() {
        let error = |errno| BuildError::of("min_wait", io::Error::from_raw_os_error(errno));
        assert_eq!(error(libc::EINVAL).kind(), BuildErrorKind::Unsupported);
        assert_eq!(
            error(libc::EINVAL).to_string(),
            "`min_wait` can't be had: this kernel is too old, or was built without it (Invalid argument (os error 22))"
        );
        assert_eq!(
            error(libc::EACCES).to_string(),
            "`min_wait` can't be had: Permission denied (os error 13)"
        );
    }

    #[test]
    fn the_stuck_are_named() {
        let request = StuckRequest { operation: "reader", opcode: 22, age: Duration::from_secs(7) };
        let stuck = Stuck { requests: vec![request; 5], errno: None };
        assert_eq!(
            stuck.to_string(),
            "5 stuck in the kernel: READ of `reader` since 7s, READ of `reader` since 7s, READ of \
             `reader` since 7s, READ of `reader` since 7s, …"
        );
    }
}
