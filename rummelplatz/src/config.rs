//! How a ring is set up: flags, sizes, limits.

use std::fmt;
use std::io;
use std::num::NonZeroU32;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use io_uring::IoUring;

use crate::cpus::Cpus;
use crate::error::BuildError;
use crate::eventfd::Eventfd;
use crate::lifecycle::Limits;
use crate::queue::{BusyPoll, Host, Kernel, MinWait, Real, Uring};
use crate::request::Aside;
use crate::waker::Waker;

/// The kernel's largest submission queue (`IORING_MAX_ENTRIES`).
const MAX_ENTRIES: u32 = 32768;

/// The kernel's largest completion queue (`IORING_MAX_CQ_ENTRIES`).
const MAX_COMPLETIONS: u32 = 2 * MAX_ENTRIES;

/// Completions may pile up while the program is busy: their queue is this many times as long as the
/// submission queue, which also gives the kernel's hash of cancellable requests more buckets.
const COMPLETIONS_PER_ENTRY: u32 = 4;

/// What `#[ring(…)]` and the [`Builder`](crate::Builder) can choose.
#[derive(Clone, Debug)]
pub struct Options {
    pub(crate) entries: u32,
    pub(crate) completions: Option<u32>,
    pub(crate) backlog_limit: Option<usize>,
    pub(crate) request_limit: Option<u32>,
    pub(crate) defer_taskrun: bool,
    pub(crate) poller: Option<Poller>,
    pub(crate) limits: Limits,
    pub(crate) worker_limits: Option<[u32; 2]>,
    pub(crate) direct_descriptors: Option<u32>,
    pub(crate) worker_cpus: Option<Cpus>,
    pub(crate) busy_poll: Option<BusyPoll>,
    pub(crate) min_wait: Option<MinWait>,
}

/// A thread of the kernel that looks for entries (`IORING_SETUP_SQPOLL`).
#[derive(Clone, Debug)]
pub(crate) struct Poller {
    pub(crate) idle: Duration,
    /// Whose thread it is.
    pub(crate) whose: Whose,
}

#[derive(Clone, Debug)]
pub(crate) enum Whose {
    /// The ring's own, on this CPU, if one is named.
    Own(Option<u32>),
    /// That of another ring, given by its descriptor (`IORING_SETUP_ATTACH_WQ`).
    Other(Arc<OwnedFd>),
}

/// A thread of the kernel that looks for what several rings submit (`IORING_SETUP_SQPOLL`, and
/// `IORING_SETUP_ATTACH_WQ` to share it): for rings on several threads that are to take only one more CPU.
///
/// Clones are the same thread. The rings are built [with it](crate::Builder::sqpoll_with), in any thread of this
/// process. It ends when the last of the rings and clones is gone. With more than one ring, it takes at most
/// eight entries of each in turn. The rings' workers are then those of this thread, and so they share
/// [`worker_limits`](crate::Builder::worker_limits) and [`worker_cpus`](crate::Builder::worker_cpus).
///
/// ```
/// # use rummelplatz::{RingOperation, SqPoller, ring};
/// # use std::{error::Error, thread, time::Duration};
/// # #[derive(RingOperation)] struct Jobs;
/// # #[ring] struct Shard { jobs: Jobs }
/// let poller = SqPoller::new(Duration::from_millis(1), None)?;
/// let shards: Vec<_> = (0..4)
///     .map(|_| {
///         let poller = poller.clone();
///         thread::spawn(move || -> Result<(), Box<dyn Error + Send + Sync>> {
///             Ok(Shard::builder(Jobs).sqpoll_with(&poller).build()?.run()?)
///         })
///     })
///     .collect();
/// # for shard in shards { shard.join().unwrap().unwrap(); }
/// # Ok::<(), Box<dyn Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct SqPoller {
    /// A ring that nobody uses. A thread that looks for entries is always some ring's.
    ring: Arc<OwnedFd>,
    idle: Duration,
}

impl SqPoller {
    /// Starts the thread. `idle` and `cpu` are as for [`Builder::sqpoll`](crate::Builder::sqpoll).
    ///
    /// # Errors
    ///
    /// As for [`Builder::sqpoll`](crate::Builder::sqpoll).
    pub fn new(idle: Duration, cpu: Option<u32>) -> Result<SqPoller, BuildError> {
        let poller = Poller { idle, whose: Whose::Own(cpu) };
        let made = make(1, 1, false, Some(&poller), |ring| {
            // SAFETY: the ring has this descriptor, and outlives the borrow.
            unsafe { BorrowedFd::borrow_raw(ring.as_raw_fd()) }.try_clone_to_owned()
        });
        Ok(SqPoller { ring: Arc::new(made?), idle })
    }

    pub(crate) fn poller(&self) -> Poller {
        Poller { idle: self.idle, whose: Whose::Other(Arc::clone(&self.ring)) }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self::new()
    }
}

impl Options {
    /// 256 entries, and no limits except a grace period of a second.
    pub const fn new() -> Options {
        Options {
            entries: 256,
            completions: None,
            backlog_limit: None,
            request_limit: None,
            defer_taskrun: true,
            poller: None,
            limits: Limits { grace: Duration::from_secs(1), deadline: None },
            worker_limits: None,
            direct_descriptors: None,
            worker_cpus: None,
            busy_poll: None,
            min_wait: None,
        }
    }

    /// Sets the size of the submission queue.
    pub const fn entries(mut self, entries: u32) -> Options {
        assert!(entries > 0, "a ring has at least one entry");
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

    /// Sets up what is asked of the kernel for the ring's owner, as far as that was not done yet.
    ///
    /// # Errors
    ///
    /// What the kernel refuses.
    pub(crate) fn set_up_owner(&mut self, queue: &mut Uring) -> io::Result<()> {
        let explain =
            |what: String, error: io::Error| io::Error::new(error.kind(), format!("{what}: {error}"));
        if let Some(limits) = self.worker_limits {
            queue
                .limit_workers(limits)
                .map_err(|error| explain("the kernel did not limit the workers".to_owned(), error))?;
            self.worker_limits = None;
        }
        if let Some(count) = self.direct_descriptors {
            queue
                .make_files()
                .map_err(|error| explain(format!("no room for {count} direct descriptors"), error))?;
        }
        if let Some(cpus) = &self.worker_cpus {
            queue.place_workers(cpus).map_err(|error| {
                explain(format!("the kernel did not place the workers on the CPUs {cpus:?}"), error)
            })?;
            self.worker_cpus = None;
        }
        Ok(())
    }
}

/// An io_uring that belongs to no `#[ring]` yet.
///
/// Made by `new_raw_ring(entries)`, which every `#[ring]` has, and given to its `new`. It is created disabled
/// (`IORING_SETUP_R_DISABLED`, since 5.10) and enabled by the thread that runs it, so it can be built in any
/// thread and sent.
pub struct RawRing {
    pub(crate) kernel: Host,
    pub(crate) asides: Box<[Aside]>,
    /// Whether it must be enabled before it can be used.
    pub(crate) disabled: bool,
    pub(crate) waker: Waker,
    /// Signalled when something completes, while the ring is driven by turns.
    pub(crate) ready: Eventfd,
}

impl RawRing {
    /// A ring with `entries` in its submission queue, rounded up to a power of two, and four times as
    /// many in its completion queue, up to 65536.
    ///
    /// Asks for `COOP_TASKRUN`, `TASKRUN_FLAG` (5.19), `SINGLE_ISSUER` (6.0), `DEFER_TASKRUN` (6.1),
    /// `NO_SQARRAY` (6.6) and `SUBMIT_ALL` (5.18), and does without those that the kernel is too old
    /// for.
    ///
    /// # Errors
    ///
    /// See [`BuildErrorKind`](crate::BuildErrorKind).
    pub fn new(entries: NonZeroU32) -> Result<RawRing, BuildError> {
        Self::with_options(&Options::new().entries(entries.get()))
    }

    pub(crate) fn with_options(options: &Options) -> Result<RawRing, BuildError> {
        let Options { entries, completions, defer_taskrun, ref poller, .. } = *options;
        if entries > MAX_ENTRIES {
            return Err(BuildError::too_large(entries));
        }
        let completions = completions.unwrap_or(entries * COMPLETIONS_PER_ENTRY);
        let completions = completions.clamp(entries, MAX_COMPLETIONS);
        make(entries, completions, defer_taskrun, poller.as_ref(), |ring| {
            RawRing::assemble(Host::Real(Real::new(ring)?), true)
        })
    }

    /// Takes over a ring that was built in another way, for setup flags that are not offered here.
    ///
    /// Unlike rings of [`new`](Self::new), it is not enabled when it runs. If it was built with
    /// `IORING_SETUP_R_DISABLED`, it must have been enabled before (`register_enable_rings`); with
    /// `IORING_SETUP_SINGLE_ISSUER`, by the thread that will run it. Otherwise the kernel takes nothing
    /// (`EBADFD`), and what was submitted is [abandoned](crate::RingError::Abandoned).
    ///
    /// # Safety
    ///
    /// Nothing is queued or in flight in it, and nobody else submits to it: a request with a `user_data` that
    /// rummelplatz also uses would be taken for one of its own.
    ///
    /// If its entries are restricted (`IORING_REGISTER_RESTRICTIONS`), handles, pools and
    /// [direct descriptors](crate::Builder::direct_descriptors) need `IORING_OP_POLL_ADD`, by which a ring is
    /// woken, cancels need `IORING_OP_ASYNC_CANCEL`, and deadlines both that and `IORING_OP_TIMEOUT`. Without
    /// `IORING_REGISTER_FILES_UPDATE`, direct descriptors stay open until the ring is dropped.
    ///
    /// # Errors
    ///
    /// If there is no memory to map its queues, or if descriptors are lacking for its wake-up and its
    /// notifications.
    pub unsafe fn from_io_uring(ring: IoUring) -> io::Result<RawRing> {
        RawRing::assemble(Host::Real(Real::new(ring)?), false)
    }

    /// Sets up what is asked of the kernel once there is a ring.
    pub(crate) fn set_up(&mut self, options: &Options) -> Result<(), BuildError> {
        // A forked child has no ring, which it learns when it uses this one.
        if self.kernel.is_forked() {
            return Ok(());
        }
        if let Some(busy_poll) = options.busy_poll {
            self.kernel.busy_poll(busy_poll).map_err(|error| BuildError::of("busy_poll", error))?;
        }
        if let Some(min_wait) = options.min_wait {
            self.kernel.set_min_wait(min_wait).map_err(|error| BuildError::of("min_wait", error))?;
        }
        Ok(())
    }

    pub(crate) fn assemble(kernel: Host, disabled: bool) -> io::Result<RawRing> {
        let asides = Uring::asides(&kernel)?;
        Ok(RawRing { kernel, asides, disabled, waker: Waker::new()?, ready: Eventfd::new()? })
    }
}

/// The ring's own descriptor, which `IORING_OP_MSG_RING` of another ring names. Such a message must not carry
/// the `user_data` of a request of this ring: see the safety of [`push`](crate::Submitter::push).
impl AsRawFd for RawRing {
    fn as_raw_fd(&self) -> RawFd {
        self.kernel.descriptor()
    }
}

impl fmt::Debug for RawRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let queues = self.kernel.queues();
        f.debug_struct("RawRing")
            .field("submission_entries", &queues.capacity())
            .field("completion_entries", &queues.completions().1)
            .finish()
    }
}

/// Setup flags that a kernel may be too old for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
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

/// Builds with all features, and then with one less each time that the kernel does not know one of them.
fn negotiate<T>(mut build: impl FnMut(&[Feature]) -> io::Result<T>) -> io::Result<T> {
    let mut features = &Feature::NEWEST_FIRST[..];
    loop {
        match (build(features), features) {
            // An unknown flag gives EINVAL: the newest feature is the one to do without.
            (Err(error), [_, older @ ..]) if error.raw_os_error() == Some(libc::EINVAL) => {
                features = older;
            }
            (built, _) => return built,
        }
    }
}

/// Builds a ring with all features that the kernel knows, and makes something of it.
fn make<T>(
    entries: u32,
    completions: u32,
    defer_taskrun: bool,
    poller: Option<&Poller>,
    finish: impl FnOnce(IoUring) -> io::Result<T>,
) -> Result<T, BuildError> {
    let wanted = |feature: &Feature| match feature {
        Feature::DeferTaskrun => defer_taskrun && poller.is_none(),
        // Where a thread of the kernel does the work, the kernel refuses flags that are about interrupting
        // this thread.
        Feature::CoopTaskrun => poller.is_none(),
        _ => true,
    };
    let ring =
        negotiate(|features| build(entries, completions, poller, features.iter().copied().filter(wanted)));
    ring.and_then(finish).map_err(|error| {
        let error = BuildError::new(entries, error);
        match poller {
            Some(Poller { whose: Whose::Own(Some(_)), .. }) => error.naming_a_cpu(),
            _ => error,
        }
    })
}

fn build(
    entries: u32,
    completions: u32,
    poller: Option<&Poller>,
    features: impl Iterator<Item = Feature>,
) -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    builder.setup_r_disabled().setup_cqsize(completions).dontfork();
    if let Some(Poller { idle, whose }) = poller {
        // Zero would be the kernel's own choice, a second. If rings share a thread, the longest time counts.
        let milliseconds = u32::try_from(idle.as_millis()).unwrap_or(u32::MAX).max(1);
        builder.setup_sqpoll(milliseconds);
        match whose {
            Whose::Own(None) => {}
            Whose::Own(Some(cpu)) => {
                builder.setup_sqpoll_cpu(*cpu);
            }
            Whose::Other(ring) => {
                builder.setup_attach_wq(ring.as_raw_fd());
            }
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A kernel that does not know the newest features.
    fn old_kernel(unknown: usize) -> impl FnMut(&[Feature]) -> io::Result<Vec<Feature>> {
        move |features| match features.iter().any(|it| Feature::NEWEST_FIRST[..unknown].contains(it)) {
            true => Err(io::Error::from_raw_os_error(libc::EINVAL)),
            false => Ok(features.to_vec()),
        }
    }

    /// In a program this does not compile: `#[ring(entries = …)]` makes a constant of it.
    #[test]
    #[should_panic(expected = "at least one entry")]
    fn a_ring_of_no_entries_is_none() {
        let _options = Options::new().entries(0);
    }

    #[test]
    fn a_kernel_gets_all_the_features_that_it_knows() {
        for unknown in 0..=Feature::NEWEST_FIRST.len() {
            let built = negotiate(old_kernel(unknown)).unwrap();
            assert_eq!(built, Feature::NEWEST_FIRST[unknown..]);
        }
    }

    #[test]
    fn only_an_unknown_flag_is_a_reason_to_try_again() {
        for errno in [libc::EPERM, libc::ENOSYS, libc::ENOMEM, libc::EMFILE] {
            let mut tries = 0;
            let error = negotiate::<()>(|_| {
                tries += 1;
                Err(io::Error::from_raw_os_error(errno))
            });
            assert_eq!(error.unwrap_err().raw_os_error(), Some(errno));
            assert_eq!(tries, 1);
        }
        let mut tries = 0;
        let error = negotiate::<()>(|_| {
            tries += 1;
            Err(io::Error::from_raw_os_error(libc::EINVAL))
        });
        assert_eq!(error.unwrap_err().raw_os_error(), Some(libc::EINVAL));
        assert_eq!(tries, Feature::NEWEST_FIRST.len() + 1, "it ends, without any feature");
    }

    #[test]
    fn sizes_are_checked_before_the_kernel_is_asked() {
        let kind = |entries| RawRing::new(NonZeroU32::new(entries).unwrap()).unwrap_err().kind();
        assert_eq!(kind(32769), crate::error::BuildErrorKind::TooLarge);
        assert_eq!(kind(u32::MAX), crate::error::BuildErrorKind::TooLarge);
    }
}
