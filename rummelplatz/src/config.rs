//! How a ring is set up: flags, sizes, limits.

use std::fmt;
use std::io;
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use io_uring::IoUring;

use crate::error::BuildError;
use crate::lifecycle::Limits;
use crate::queue::Mapped;
use crate::ring::{self, Ring};
use crate::wake::Waker;

/// The kernel's largest submission queue (`IORING_MAX_ENTRIES`).
const MAX_ENTRIES: u32 = 32768;

/// The kernel's largest completion queue (`IORING_MAX_CQ_ENTRIES`).
const MAX_COMPLETIONS: u32 = 2 * MAX_ENTRIES;

/// Completions may pile up while the program is busy: the queue is this much longer than the
/// submission queue, which also gives the kernel's hash of cancellable requests more buckets.
const COMPLETIONS_PER_ENTRY: u32 = 4;

/// What `#[ring(…)]` and the [`Builder`] can choose.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub(crate) entries: u32,
    pub(crate) completions: Option<u32>,
    pub(crate) backlog_limit: Option<usize>,
    pub(crate) request_limit: Option<u32>,
    pub(crate) limits: Limits,
}

impl Default for Options {
    fn default() -> Self {
        Self::new()
    }
}

impl Options {
    /// 256 entries, no limits but a grace period of a second.
    pub const fn new() -> Options {
        Options {
            entries: 256,
            completions: None,
            backlog_limit: None,
            request_limit: None,
            limits: Limits { grace: Duration::from_secs(1), deadline: None },
        }
    }

    /// Sets the size of the submission queue.
    pub const fn entries(mut self, entries: u32) -> Options {
        self.entries = entries;
        self
    }

    /// Sets how many entries may wait for room in the submission queue.
    pub const fn backlog_limit(mut self, limit: usize) -> Options {
        self.backlog_limit = Some(limit);
        self
    }

    /// Sets the grace period, in milliseconds.
    pub const fn grace_ms(mut self, milliseconds: u64) -> Options {
        self.limits.grace = Duration::from_millis(milliseconds);
        self
    }

    /// Sets the deadline of a teardown, in milliseconds.
    pub const fn deadline_ms(mut self, milliseconds: u64) -> Options {
        self.limits.deadline = Some(Duration::from_millis(milliseconds));
        self
    }
}

/// An io_uring that no `#[ring]` has yet.
///
/// Made by `new_raw_ring(entries)`, which every `#[ring]` has, and given to its `new`. It is created
/// disabled (`IORING_SETUP_R_DISABLED`, since 5.10) and enabled by the thread that runs it, so it can
/// be built anywhere and sent.
pub struct RawRing {
    pub(crate) ring: Mapped,
    /// Whether it must be enabled before it can be used.
    pub(crate) disabled: bool,
    pub(crate) waker: Waker,
}

impl RawRing {
    /// A ring with `entries` in its submission queue, rounded up to a power of two, and four times as
    /// many in its completion queue.
    ///
    /// Asks for `COOP_TASKRUN`, `TASKRUN_FLAG` (5.19), `SINGLE_ISSUER` (6.0), `DEFER_TASKRUN` (6.1),
    /// `NO_SQARRAY` (6.6) and `SUBMIT_ALL` (5.18), and does without those that the kernel is too old
    /// for.
    ///
    /// # Errors
    ///
    /// See [`BuildErrorKind`](crate::BuildErrorKind).
    pub fn new(entries: NonZeroU32) -> Result<RawRing, BuildError> {
        Self::with_sizes(entries.get(), None)
    }

    fn with_sizes(entries: u32, completions: Option<u32>) -> Result<RawRing, BuildError> {
        if entries == 0 || entries > MAX_ENTRIES {
            return Err(BuildError::too_large(entries));
        }
        let completions = completions.unwrap_or(entries * COMPLETIONS_PER_ENTRY);
        let completions = completions.clamp(entries, MAX_COMPLETIONS);
        let mut refused = io::Error::from_raw_os_error(libc::EINVAL);
        for features in (0..=Feature::NEWEST_FIRST.len()).map(|skip| &Feature::NEWEST_FIRST[skip..]) {
            match build(entries, completions, features) {
                Ok(ring) => {
                    return RawRing::assemble(ring, true)
                        .map_err(|error| BuildError::new(entries, error));
                }
                // An unknown flag is EINVAL: try without the newest one.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => refused = error,
                Err(error) => return Err(BuildError::new(entries, error)),
            }
        }
        Err(BuildError::new(entries, refused))
    }

    /// Takes over a ring that was built otherwise, for setup flags that are not offered here.
    ///
    /// # Safety
    ///
    /// Nothing is queued or in flight in it, and nobody else submits to it: a request with a
    /// `user_data` that rummelplatz also uses would be taken for one of its own.
    ///
    /// # Errors
    ///
    /// If there is no descriptor left for the eventfd that wakes the ring.
    pub unsafe fn from_io_uring(ring: IoUring) -> io::Result<RawRing> {
        RawRing::assemble(ring, false)
    }

    fn assemble(ring: IoUring, disabled: bool) -> io::Result<RawRing> {
        Ok(RawRing { ring: Mapped::new(ring), disabled, waker: Waker::new()? })
    }
}

impl fmt::Debug for RawRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let params = self.ring.params();
        f.debug_struct("RawRing")
            .field("submission_entries", &params.sq_entries())
            .field("completion_entries", &params.cq_entries())
            .finish()
    }
}

/// Setup flags that a kernel may be too old for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Feature {
    NoSqarray,
    DeferTaskrun,
    SingleIssuer,
    CoopTaskrun,
    SubmitAll,
}

impl Feature {
    const NEWEST_FIRST: [Feature; 5] = [
        Feature::NoSqarray,
        Feature::DeferTaskrun,
        Feature::SingleIssuer,
        Feature::CoopTaskrun,
        Feature::SubmitAll,
    ];
}

fn build(entries: u32, completions: u32, features: &[Feature]) -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    builder.setup_r_disabled().setup_cqsize(completions).dontfork();
    for feature in features {
        match feature {
            Feature::NoSqarray => builder.setup_no_sqarray(),
            Feature::DeferTaskrun => builder.setup_defer_taskrun(),
            Feature::SingleIssuer => builder.setup_single_issuer(),
            Feature::CoopTaskrun => builder.setup_coop_taskrun().setup_taskrun_flag(),
            Feature::SubmitAll => builder.setup_submit_all(),
        };
    }
    builder.build(entries)
}

/// A warning of an operation, as [`Builder::on_warn`] gets it.
pub struct Warning<'a> {
    /// The name of the operation: its field in the ring.
    pub operation: &'static str,
    /// What it says, as far as its type can be shown.
    pub message: &'a dyn fmt::Display,
}

impl fmt::Display for Warning<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "operation `{}`: {}", self.operation, self.message)
    }
}

impl fmt::Debug for Warning<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Warning({self})")
    }
}

/// What is called with each warning.
pub(crate) type OnWarn = Box<dyn FnMut(Warning<'_>) + Send>;

/// Builds a ring with other than the usual sizes and limits.
///
/// Every `#[ring]` has a `builder(operations…)`; arguments of the attribute are its defaults.
///
/// ```
/// # use rummelplatz::{ring, RingOperation};
/// # use std::{num::NonZeroU32, time::Duration};
/// # #[derive(RingOperation)] struct Jobs;
/// # #[ring] struct Worker { jobs: Jobs }
/// let worker = Worker::builder(Jobs)
///     .entries(NonZeroU32::new(64).unwrap())
///     .deadline(Duration::from_secs(10))
///     .on_warn(|warning| eprintln!("{warning}"))
///     .build()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a builder builds nothing until `build` is called"]
pub struct Builder<R: Ring> {
    operations: R::Operations,
    options: Options,
    on_warn: Option<OnWarn>,
    raw: Option<RawRing>,
}

impl<R: Ring> Builder<R> {
    pub(crate) fn new(operations: R::Operations) -> Self {
        Builder { operations, options: R::OPTIONS, on_warn: None, raw: None }
    }

    /// The size of the submission queue, rounded up to a power of two: 256 by default, at most 32768.
    pub fn entries(mut self, entries: NonZeroU32) -> Self {
        self.options.entries = entries.get();
        self
    }

    /// The size of the completion queue (`IORING_SETUP_CQSIZE`, since 5.5): by default, and at least,
    /// four times and once that of the submission queue.
    pub fn completion_entries(mut self, entries: NonZeroU32) -> Self {
        self.options.completions = Some(entries.get());
        self
    }

    /// How many requests may wait for room in the submission queue before submitting fails:
    /// unlimited by default.
    pub fn backlog_limit(mut self, limit: NonZeroUsize) -> Self {
        self.options.backlog_limit = Some(limit.get());
        self
    }

    /// How many requests each operation may have in flight before submitting fails: unlimited by
    /// default.
    pub fn request_limit(mut self, limit: NonZeroU32) -> Self {
        self.options.request_limit = Some(limit.get());
        self
    }

    /// How long requests that are submitted by teardown handlers are awaited before they are
    /// cancelled, and no more are accepted: one second by default.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.options.limits.grace = grace;
        self
    }

    /// How long a teardown may take before what is still in flight is abandoned, which leaks its
    /// memory: without limit by default.
    ///
    /// The kernel can't cancel everything: file I/O that has begun ends when it ends, and a zero-copy
    /// send when the peer has read it.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.options.limits.deadline = Some(deadline);
        self
    }

    /// Calls `hook` with each [`ControlFlow::Warn`](crate::ControlFlow::Warn).
    pub fn on_warn(mut self, hook: impl FnMut(Warning<'_>) + Send + 'static) -> Self {
        self.on_warn = Some(Box::new(hook));
        self
    }

    /// Uses this ring rather than a new one; its sizes are as they are.
    pub fn raw_ring(mut self, raw: RawRing) -> Self {
        self.raw = Some(raw);
        self
    }

    /// Builds the ring.
    ///
    /// # Errors
    ///
    /// See [`BuildErrorKind`](crate::BuildErrorKind).
    pub fn build(self) -> Result<R, BuildError> {
        let raw = match self.raw {
            Some(raw) => raw,
            None => RawRing::with_sizes(self.options.entries, self.options.completions)?,
        };
        Ok(ring::assemble(raw, self.options, self.on_warn, self.operations))
    }
}

impl<R: Ring> fmt::Debug for Builder<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("ring", &R::NAME)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
