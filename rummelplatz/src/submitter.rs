//! The submitter itself; what can be done with one is in [`submission`](crate::submission).

use std::fmt;
use std::marker::PhantomData;

use crate::shape::Ring;
use crate::slab::Vacancy;
use crate::state::Inner;
use crate::tag::Tag;

/// Submits requests of one operation; [`to`](Self::to) gives that of another.
///
/// Handlers get one, and `ring.submitter(TAG)` is one for use from outside. It can't be kept: a
/// submitter is good for one call of a handler, and stays in its thread.
pub struct SubmissionQueueSubmitter<'a, R: Ring, Op> {
    pub(crate) inner: &'a mut Inner<R>,
    pub(crate) tag: Tag<R, Op>,
    /// In the handler of a plain request: its slot, still warm, for the next request of the operation.
    pub(crate) vacancy: Option<&'a mut Option<Vacancy>>,
    not_send: PhantomData<*mut ()>,
}

/// [`SubmissionQueueSubmitter`], for short.
pub type Submitter<'a, R, Op> = SubmissionQueueSubmitter<'a, R, Op>;

impl<'a, R: Ring, Op> SubmissionQueueSubmitter<'a, R, Op> {
    #[inline]
    pub(crate) fn new(inner: &'a mut Inner<R>, tag: Tag<R, Op>) -> Self {
        SubmissionQueueSubmitter { inner, tag, vacancy: None, not_send: PhantomData }
    }

    /// A submitter whose first request goes into the vacancy.
    ///
    /// # Safety
    ///
    /// The vacancy is of the slab of `tag` in `inner`.
    #[inline(always)]
    pub(crate) unsafe fn with_vacancy(
        inner: &'a mut Inner<R>,
        tag: Tag<R, Op>,
        vacancy: &'a mut Option<Vacancy>,
    ) -> Self {
        SubmissionQueueSubmitter { inner, tag, vacancy: Some(vacancy), not_send: PhantomData }
    }
}

impl<R: Ring, Op> fmt::Debug for SubmissionQueueSubmitter<'_, R, Op> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Submitter").field("tag", &self.tag).finish_non_exhaustive()
    }
}
