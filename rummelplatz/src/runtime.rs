//! The one field that `#[ring]` adds: everything that must not be separated, or freed too early.

use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use crate::config::{Options, RawRing};
use crate::core::Core;
use crate::lifecycle::Phase;
use crate::mutant;
use crate::shape::{Ring, slab_of};
use crate::state::Inner;
use crate::teardown;
use crate::user_data::UserData;
use crate::warning::Hooks;

/// The runtime of a ring. Dropping it is the only thing that ends a ring that was not run to its end.
///
/// The contents are leaked by default; the slabs and pools are freed only when nothing is in flight.
pub struct Runtime<R: Ring> {
    inner: ManuallyDrop<Inner<R>>,
    /// Whether the loop is running, and perhaps a handler, which has what its slot says is there.
    pub(crate) is_looping: bool,
}

impl<R: Ring> Runtime<R> {
    pub(crate) fn new(raw: RawRing, options: Options, hooks: Hooks) -> Self {
        let limit = options.request_limit.unwrap_or(u32::MAX);
        let core = Core::new(raw, options);
        let mut slabs = R::slabs();
        let mut last = 0;
        for (tag, _) in R::OPERATIONS {
            // Tags ascend: each has one slab, and those of the ring's own traffic have none.
            if *tag > last
                && *tag <= UserData::LAST_OPERATION
                && let Some(slab) = slab_of::<R>(&mut slabs, *tag)
            {
                let one_more = u32::from(mutant::is("one request more than may be"));
                slab.adopt(*tag, limit.saturating_add(one_more));
                last = *tag;
            }
        }
        let inner =
            Inner { core, slabs: ManuallyDrop::new(slabs), hooks, cause: None, ending: None, stuck: None };
        Runtime { inner: ManuallyDrop::new(inner), is_looping: false }
    }

    #[inline]
    pub(crate) fn inner(&self) -> &Inner<R> {
        &self.inner
    }

    #[inline]
    pub(crate) fn inner_mut(&mut self) -> &mut Inner<R> {
        &mut self.inner
    }
}

impl<R: Ring> Drop for Runtime<R> {
    fn drop(&mut self) {
        if self.is_looping {
            // A handler has called `exit(3)`, which drops the thread's locals, and this ring is in one. The handler
            // will not return, so what it has will not end, and all else is the process's to clean up.
            return;
        }
        let inner = self.inner_mut();
        if inner.core.is_forked() {
            // All of it belongs to another process.
            return;
        }
        let mut panic = teardown::end_for_good(inner);
        if inner.core.phase == Phase::Finished {
            // SAFETY: nothing is in flight, so nobody else uses the slabs; they are not used again,
            // because `inner` is dropped below.
            unsafe { ManuallyDrop::drop(&mut inner.slabs) };
        } else {
            inner.core.queue.leak();
        }
        // `inner` holds the user's hooks, whose `Drop` may panic as well.
        panic.catch(|| {
            // SAFETY: this is the only place that drops `inner`, and it runs once. What the kernel may still
            // write to (slabs, pools) is not freed by it: slabs are dropped only above, and `leak` has taken
            // out the pools.
            unsafe { ManuallyDrop::drop(&mut self.inner) };
        });
        panic.go_on_from_drop();
    }
}

/// Readable when there is something for a turn to do.
impl<R: Ring> AsFd for Runtime<R> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.core.ready.as_fd()
    }
}

impl<R: Ring> AsRawFd for Runtime<R> {
    fn as_raw_fd(&self) -> RawFd {
        self.inner.core.ready.as_raw_fd()
    }
}
