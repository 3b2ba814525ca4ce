//! The submitter itself; what can be done with one is in [`submission`](crate::submission).

use std::fmt;
use std::marker::PhantomData;

use crate::shape::Ring;
use crate::slab::Warm;
use crate::state::Inner;
use crate::tag::Tag;

/// Submits requests of one operation; [`to`](Self::to) gives the submitter of another.
///
/// Handlers get one, and `ring.submitter(TAG)` gives one for use from outside. It can't be kept: a submitter
/// is good for one call of a handler, and stays in its thread.
pub struct SubmissionQueueSubmitter<'a, R: Ring, Op> {
    inner: &'a mut Inner<R>,
    tag: Tag<R, Op>,
    /// In the handler of a plain request: its slot, still warm, for the next request of the operation.
    warm: Option<&'a mut Warm>,
    not_send: PhantomData<*mut ()>,
}

/// [`SubmissionQueueSubmitter`], for short.
pub type Submitter<'a, R, Op> = SubmissionQueueSubmitter<'a, R, Op>;

impl<'a, R: Ring, Op> SubmissionQueueSubmitter<'a, R, Op> {
    #[inline]
    pub(crate) fn new(inner: &'a mut Inner<R>, tag: Tag<R, Op>) -> Self {
        SubmissionQueueSubmitter { inner, tag, warm: None, not_send: PhantomData }
    }

    /// A submitter whose first request goes into the warm slot.
    ///
    /// # Safety
    ///
    /// The slot, if there is one, is of the slab of `tag` in `inner`, and its request still counts as in
    /// flight.
    #[inline(always)]
    pub(crate) unsafe fn with_slot(inner: &'a mut Inner<R>, tag: Tag<R, Op>, warm: &'a mut Warm) -> Self {
        SubmissionQueueSubmitter { inner, tag, warm: Some(warm), not_send: PhantomData }
    }

    /// The same submitter, for a shorter time: pass that to a helper, and keep this one.
    #[inline]
    pub fn reborrow(&mut self) -> SubmissionQueueSubmitter<'_, R, Op> {
        let (tag, not_send) = (self.tag, self.not_send);
        let (inner, warm) = self.open();
        SubmissionQueueSubmitter { inner, tag, warm, not_send }
    }

    /// The tag of the operation that is submitted to.
    #[inline]
    pub fn tag(&self) -> Tag<R, Op> {
        self.tag
    }

    /// The ring behind the submitter, and the warm slot, which nobody else knows of: to them, the slab looks
    /// as if the slot's request were still in flight.
    #[inline(always)]
    pub(crate) fn open(&mut self) -> (&mut Inner<R>, Option<&mut Warm>) {
        (self.inner, self.warm.as_deref_mut())
    }
}

impl<R: Ring, Op> SubmissionQueueSubmitter<'_, R, Op> {
    /// What the submitter consists of, for functions out of line. With a reference to it, a handler that may call
    /// one of them now and then would keep its submitter in memory.
    ///
    /// The warm slot, if there is one, is of the slab of the tag, as whoever made this submitter has promised.
    #[inline(always)]
    pub(crate) fn apart(&mut self) -> (&mut Inner<R>, Tag<R, Op>, Warm) {
        let tag = self.tag;
        let (inner, warm) = self.open();
        (inner, tag, warm.map_or(Warm::NONE, Warm::take))
    }
}

impl<R: Ring, Op> fmt::Debug for SubmissionQueueSubmitter<'_, R, Op> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Submitter").field("tag", &self.tag).finish_non_exhaustive()
    }
}
