//! Building a ring with other than the usual sizes and limits.

use std::collections::BTreeSet;
use std::fmt;
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use crate::config::{Options, Poller, RawRing, SqPoller, Whose};
use crate::cpus::Cpus;
use crate::error::{BuildError, Stuck};
use crate::parts::RingParts;
use crate::queue::{BusyPoll, MinWait};
use crate::runtime::Runtime;
use crate::warning::{Hooks, Warning};

/// Builds a ring with other than the usual sizes and limits.
///
/// Every `#[ring]` has a `builder(operations…)`; the arguments of the attribute are its defaults.
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
pub struct Builder<R: RingParts> {
    operations: R::Operations,
    options: Options,
    hooks: Hooks,
    worker_cpus: Option<BTreeSet<u32>>,
    raw: Option<RawRing>,
}

impl<R: RingParts> Builder<R> {
    fn new(operations: R::Operations) -> Self {
        Builder { operations, options: R::OPTIONS, hooks: Hooks::default(), worker_cpus: None, raw: None }
    }

    /// The size of the submission queue, rounded up to a power of two: 256 by default, at most 32768.
    pub fn entries(mut self, entries: NonZeroU32) -> Self {
        self.options.entries = entries.get();
        self
    }

    /// The size of the completion queue (`IORING_SETUP_CQSIZE`, since 5.5): by default four times that of the
    /// submission queue. It is rounded up to a power of two, and is never less than the size of the submission
    /// queue and never more than 65536.
    pub fn completion_entries(mut self, entries: NonZeroU32) -> Self {
        self.options.completions = Some(entries.get());
        self
    }

    /// How many requests may wait for room in the submission queue before submitting fails: unlimited by
    /// default. Streams that are armed again wait there too, however many they are, because they were
    /// accepted before. Memory is taken for those that wait, not for the limit.
    pub fn backlog_limit(mut self, limit: NonZeroUsize) -> Self {
        self.options.backlog_limit = Some(limit.get());
        self
    }

    /// How many requests each operation may have in flight before submitting fails: unlimited by default.
    /// Data that is [posted](crate::Submitter::post) counts as a request. So does data that other threads
    /// [send](crate::RingHandle::send); if there is no room for it when it arrives, it waits until there is.
    pub fn request_limit(mut self, limit: NonZeroU32) -> Self {
        self.options.request_limit = Some(limit.get());
        self
    }

    /// How long requests submitted by teardown handlers may go on before they are cancelled, and no more are
    /// accepted: one second by default, and no longer than half of the [`deadline`](Self::deadline). Those that
    /// were in flight before the teardown are cancelled at once.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.options.limits.grace = grace;
        self
    }

    /// How long a teardown may take before what is still in flight is abandoned, which leaks its
    /// memory: without limit by default, also when the ring is dropped. (For a limit to one request, see
    /// [`Request::deadline`](crate::Request::deadline).)
    ///
    /// The kernel can't cancel everything: file I/O that has begun ends when it ends, and a zero-copy
    /// send when the peer has read it.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.options.limits.deadline = Some(deadline);
        self
    }

    /// Calls `hook` with each [`ControlFlow::Warn`](crate::ControlFlow::Warn).
    pub fn on_warn(mut self, hook: impl FnMut(Warning<'_>) + Send + 'static) -> Self {
        self.hooks.on_warn = Some(Box::new(hook));
        self
    }

    /// Calls `hook` with the requests that the ring leaves to the kernel, leaking their memory, where no
    /// [`RingError`](crate::RingError) names them: when the ring is dropped, or a handler has panicked.
    ///
    /// A dropped ring cancels its requests and waits for them, as the end of `run` does, but calls no
    /// handlers. It gives up when the [`deadline`](Self::deadline) has passed, or at once if it is dropped in
    /// another thread than the one that has run it.
    pub fn on_abandoned(mut self, hook: impl FnOnce(&Stuck) + Send + 'static) -> Self {
        self.hooks.on_abandoned = Some(Box::new(hook));
        self
    }

    /// Whether the kernel works on completions only when the ring enters it (`IORING_SETUP_DEFER_TASKRUN`,
    /// since 6.1), which is cheaper: yes by default.
    ///
    /// Say no for a ring that is turned in another event loop *and* has requests that read or poll eventfds:
    /// Linux 6.18 tells that loop only of the first write to an eventfd.
    pub fn defer_taskrun(mut self, defer: bool) -> Self {
        self.options.defer_taskrun = defer;
        self
    }

    /// Lets a thread of the kernel look for what is submitted (`IORING_SETUP_SQPOLL`; since 5.13 without
    /// privileges), so that a ring that is always busy submits without a system call.
    ///
    /// If a `cpu` is named, the thread runs on that one (`IORING_SETUP_SQ_AFF`). When nothing was submitted
    /// for as long as `idle` (in whole milliseconds, at least one), it goes to sleep until the ring wakes it.
    ///
    /// Off by default: the thread takes a CPU for itself, and if there is none to spare, the thread and the
    /// ring take turns (`docs/performance.md` has figures). The ring still waits for completions by a system
    /// call, and does without `DEFER_TASKRUN`.
    ///
    /// # Errors
    ///
    /// [`build`](Self::build) fails with [`NoSuchCpu`](crate::BuildErrorKind::NoSuchCpu), or, before 5.13 and
    /// without `CAP_SYS_NICE`, with `EPERM`.
    pub fn sqpoll(mut self, idle: Duration, cpu: Option<u32>) -> Self {
        self.options.poller = Some(Poller { idle, whose: Whose::Own(cpu) });
        self
    }

    /// As [`sqpoll`](Self::sqpoll), with a thread of the kernel that several rings share
    /// (`IORING_SETUP_ATTACH_WQ`, since 5.6). In a forked child, the ring gets a thread of its own instead.
    pub fn sqpoll_with(mut self, poller: &SqPoller) -> Self {
        self.options.poller = Some(poller.poller());
        self
    }

    /// How many worker threads the kernel may have (`IORING_REGISTER_IOWQ_MAX_WORKERS`, since 5.15).
    ///
    /// `bounded` is for requests that end by themselves, such as reads and writes of files on disk, and
    /// `unbounded` for those that may wait for ever, such as those on sockets and pipes; 0 leaves a limit as
    /// it is. By default, `bounded` is four for each CPU, or the number of entries if that is less, and
    /// `unbounded` is `RLIMIT_NPROC`.
    ///
    /// A request that finds no worker waits for one. Only some requests need one: those that are always left
    /// to workers, such as [`splice`](crate::request::splice) and [`fsync`](crate::request::fsync); those
    /// that are to be done [in one](crate::Request::in_worker); and reads and writes that would have to wait
    /// for a disk.
    ///
    /// The limits belong to the thread that runs the ring, and to the one that has built it, for each NUMA
    /// node of the machine. Other rings of these threads share them, and what was set last counts. They are
    /// set when the ring is first run or turned. That fails with [`RingError::Api`](crate::RingError::Api) if
    /// the kernel refuses; nothing has been done then.
    pub fn worker_limits(mut self, bounded: u32, unbounded: u32) -> Self {
        self.options.worker_limits = Some([bounded, unbounded]);
        self
    }

    /// Makes room for this many files and sockets that the kernel puts into the ring's table, and not into that of
    /// the process (`IORING_REGISTER_FILES2` and `IORING_REGISTER_FILE_ALLOC_RANGE`, since 6.0): see
    /// [`FixedFile`](crate::FixedFile). Without it, such requests end with `ENFILE`.
    ///
    /// They don't count towards `RLIMIT_NOFILE`, but the table can't have more places than that allows, or than
    /// 2²⁰. Each takes 8 bytes in the kernel, and as much here. [`register_file`](crate::Submitter::register_file)
    /// has places of its own: 4096, or fewer if that limit leaves fewer.
    ///
    /// The table is made when the ring is first run or turned, or when a file is registered. That fails with
    /// [`RingError::Api`](crate::RingError::Api) if the kernel refuses: `EMFILE` beyond `RLIMIT_NOFILE`, `EINVAL`
    /// before Linux 6.0. Nothing has been submitted then.
    pub fn direct_descriptors(mut self, count: NonZeroU32) -> Self {
        self.options.direct_descriptors = Some(count.get());
        self
    }

    /// On which CPUs the kernel's worker threads run (`IORING_REGISTER_IOWQ_AFF`, since 5.14): by default, on
    /// all on which the process may run. So the CPU of a ring that is pinned to one can be kept free of them.
    ///
    /// ```
    /// # use rummelplatz::{ring, RingOperation};
    /// # #[derive(RingOperation)] struct Jobs;
    /// # #[ring] struct Worker { jobs: Jobs }
    /// let worker = Worker::builder(Jobs).worker_limits(8, 64).worker_cpus([0]).build()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// The workers belong to the thread that runs the ring; with [`sqpoll`](Self::sqpoll), to that thread of
    /// the kernel. Other rings of the thread share them, what was set last counts, and it counts as long as
    /// the thread lives. It is set when the ring is first run or turned. A worker that exists by then stays
    /// where it is until it has had nothing to do for some seconds.
    ///
    /// # Errors
    ///
    /// [`build`](Self::build) fails with [`NoSuchCpu`](crate::BuildErrorKind::NoSuchCpu) if there is no CPU in
    /// the set, or one that is not listed in `/sys/devices/system/cpu/online`. Running the ring fails with
    /// [`RingError::Api`](crate::RingError::Api) if the kernel refuses: because it is older than 5.14, or
    /// because a CPU may not be used here (`cpuset(7)`). Nothing has been done then.
    pub fn worker_cpus(mut self, cpus: impl IntoIterator<Item = u32>) -> Self {
        self.worker_cpus = Some(cpus.into_iter().collect());
        self
    }

    /// Lets a wait for completions begin with a look at the network devices (`IORING_REGISTER_NAPI`, since 6.9,
    /// where the kernel is built with `CONFIG_NET_RX_BUSY_POLL`), instead of with sleep until a device
    /// interrupts: off by default. For sockets whose peer answers within some microseconds, this saves the
    /// interrupt and the way back from sleep, and takes a CPU for as long as it looks.
    ///
    /// The devices are those of the sockets that requests of this ring have waited for lately, and `time` is how
    /// long a wait looks at them, in whole microseconds: at least one, and on newer kernels at most ten
    /// milliseconds. With `prefer`, their interrupts are put off for as long as the ring looks often enough (as
    /// by `SO_PREFER_BUSY_POLL`; the device needs `napi_defer_hard_irqs` and `gro_flush_timeout`). Loopback and
    /// Unix sockets have no device, and a ring that is turned does not wait, so it makes no difference for them.
    /// With [`sqpoll`](Self::sqpoll), that thread looks, not the ring.
    ///
    /// ```
    /// # use rummelplatz::{BuildErrorKind, ring, RingOperation};
    /// # use std::time::Duration;
    /// # #[derive(RingOperation)] struct Trades;
    /// # #[ring] struct Exchange { trades: Trades }
    /// match Exchange::builder(Trades).busy_poll(Duration::from_micros(50), false).build() {
    ///     Ok(mut exchange) => exchange.run()?,
    ///     // As fast as can be, here.
    ///     Err(error) if error.kind() == BuildErrorKind::Unsupported => Exchange::builder(Trades).build()?.run()?,
    ///     Err(error) => return Err(error.into()),
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`build`](Self::build) fails with [`Unsupported`](crate::BuildErrorKind::Unsupported) where the kernel
    /// can't do this, or not for a [`raw_ring`](Self::raw_ring) with `IORING_SETUP_IOPOLL`. A raw ring that was
    /// enabled by another thread, with `IORING_SETUP_SINGLE_ISSUER`, can't be built here (`EEXIST`).
    pub fn busy_poll(mut self, time: Duration, prefer: bool) -> Self {
        let microseconds = u32::try_from(time.as_micros()).unwrap_or(u32::MAX).max(1);
        self.options.busy_poll = Some(BusyPoll { microseconds, prefer });
        self
    }

    /// Lets the loop wait for this many completions rather than one, but no longer than for `time`; when that is
    /// over, for the first (`min_wait_usec` of `IORING_ENTER_EXT_ARG`, since 6.12). So a ring whose completions
    /// come one by one sleeps and wakes less often, and everything takes up to `time` longer: also deadlines,
    /// and what other threads send. Off by default; a ring that is busy has its completions in batches anyway
    /// (`docs/performance.md` has figures).
    ///
    /// `time` counts from the beginning of each wait, in whole microseconds, at least one. A ring that seldom
    /// has so many requests in flight that this many can complete waits in vain for the last of them, each time.
    /// Turns and teardowns are not affected, because they do not wait like this.
    ///
    /// # Errors
    ///
    /// [`build`](Self::build) fails with [`Unsupported`](crate::BuildErrorKind::Unsupported) before 6.12.
    pub fn min_wait(mut self, time: Duration, completions: NonZeroU32) -> Self {
        let microseconds = u32::try_from(time.as_micros()).unwrap_or(u32::MAX).max(1);
        self.options.min_wait = Some(MinWait { microseconds, completions: completions.get() });
        self
    }

    /// Uses this ring rather than a new one. Its sizes and flags stay as they are: [`entries`](Self::entries),
    /// [`completion_entries`](Self::completion_entries), [`defer_taskrun`](Self::defer_taskrun) and
    /// [`sqpoll`](Self::sqpoll) (or [`sqpoll_with`](Self::sqpoll_with)) have no effect.
    pub fn raw_ring(mut self, raw: RawRing) -> Self {
        self.raw = Some(raw);
        self
    }

    /// Builds the ring.
    ///
    /// # Errors
    ///
    /// See [`BuildErrorKind`](crate::BuildErrorKind).
    pub fn build(mut self) -> Result<R, BuildError> {
        if let Some(cpus) = &self.worker_cpus {
            let cpus = Cpus::new(cpus).map_err(|error| BuildError::no_such_cpu("worker_cpus", error))?;
            self.options.worker_cpus = Some(cpus);
        }
        let mut raw = match self.raw {
            Some(raw) => raw,
            None => RawRing::with_options(&self.options)?,
        };
        // The ring has the thread, and needs no descriptor of it.
        self.options.poller = None;
        raw.set_up(&self.options)?;
        Ok(R::assemble(Runtime::new(raw, self.options, self.hooks), self.operations))
    }
}

impl<R: RingParts> fmt::Debug for Builder<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("ring", &R::NAME)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// `new(raw, backlog_limit, operations…)`.
pub fn new<R: RingParts>(raw: RawRing, backlog_limit: Option<NonZeroUsize>, operations: R::Operations) -> R {
    let mut options = R::OPTIONS;
    if let Some(limit) = backlog_limit {
        options = options.backlog_limit(limit.get());
    }
    R::assemble(Runtime::new(raw, options, Hooks::default()), operations)
}

/// `builder(operations…)`.
pub fn builder<R: RingParts>(operations: R::Operations) -> Builder<R> {
    Builder::new(operations)
}

/// `new_raw_ring(entries)`.
///
/// # Errors
///
/// See [`RawRing::new`].
pub fn new_raw_ring<R: RingParts>(entries: NonZeroU32) -> Result<RawRing, BuildError> {
    RawRing::new(entries)
}
