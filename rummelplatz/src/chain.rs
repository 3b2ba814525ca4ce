//! Requests that are linked to each other.

use std::fmt;
use std::marker::PhantomData;

use io_uring::squeue;

use crate::accept::bind;
use crate::error::{InvalidEntry, SubmitError};
use crate::facts::Flags;
use crate::operation::RingOperation;
use crate::panics::FirstPanic;
use crate::request::{self, Placed, Request, Slab};
use crate::settle::withdraw;
use crate::shape::{Ring, slab_of};
use crate::state::Inner;
use crate::tag::{Key, Tag};
use crate::user_data::UserData;

/// Requests that are done one after the other: see [`chain`](crate::Submitter::chain).
#[must_use = "a chain does nothing until `submit` or `submit_linked` is called"]
pub struct Chain<'s, R: Ring, Op> {
    links: Links<'s, R>,
    tag: Tag<R, Op>,
    not_send: PhantomData<*mut ()>,
}

/// The requests that are linked so far: each is in its slot, and not counted. They are taken back if they are
/// not submitted.
struct Links<'s, R: Ring> {
    inner: &'s mut Inner<R>,
    /// Requests and their timers, in order.
    placed: Vec<Placed>,
    requests: usize,
}

impl<'s, R: Ring, Op: RingOperation<R>> Chain<'s, R, Op> {
    pub(crate) fn new(inner: &'s mut Inner<R>, tag: Tag<R, Op>) -> Self {
        let placed = std::mem::take(&mut inner.core.links);
        Chain { links: Links { inner, placed, requests: 0 }, tag, not_send: PhantomData }
    }

    /// Adds a request; what is added next begins when this one has succeeded.
    ///
    /// The kernel links them (`IOSQE_IO_LINK`, since 5.3). If this request fails, is cancelled, or reads or
    /// writes fewer bytes than it was to, all that comes after it ends with `ECANCELED`. A
    /// [`send`](request::send), of whichever kind, goes out whole or fails, as with
    /// [`detach`](crate::Submitter::detach); a [`recv`](request::recv) has succeeded with any number of bytes,
    /// and a timer when it has run its time (`IORING_TIMEOUT_ETIME_SUCCESS`, since 5.16).
    ///
    /// A request that the kernel cannot even prepare ends those *before* it, too: see
    /// [`chain`](crate::Submitter::chain).
    ///
    /// # Errors
    ///
    /// [`Invalid`](SubmitError::Invalid) if the chain would become longer than the submission queue, where a
    /// [deadline](Request::deadline) counts as well; otherwise see [`SubmitError`]. The data is dropped. The
    /// chain stays as it was.
    pub fn link(
        &mut self,
        data: Op::RingData,
        build: impl for<'d> FnOnce(&'d mut Op::RingData) -> Request<'d>,
    ) -> Result<Key<Op>, SubmitError> {
        self.links.add(self.tag, data, squeue::Flags::IO_LINK, build)
    }

    /// Adds a request; what is added next begins when this one has ended, in whatever way
    /// (`IOSQE_IO_HARDLINK`, since 5.5).
    ///
    /// But if the kernel cannot prepare this request, or another of the chain, none begins: see
    /// [`chain`](crate::Submitter::chain).
    ///
    /// # Errors
    ///
    /// As [`link`](Self::link).
    pub fn hard_link(
        &mut self,
        data: Op::RingData,
        build: impl for<'d> FnOnce(&'d mut Op::RingData) -> Request<'d>,
    ) -> Result<Key<Op>, SubmitError> {
        self.links.add(self.tag, data, squeue::Flags::IO_HARDLINK, build)
    }

    /// Adds the last request, and submits them all.
    ///
    /// # Errors
    ///
    /// As [`link`](Self::link); also [`Full`](SubmitError::Full). Nothing is submitted then, and all data is dropped.
    pub fn submit(
        mut self,
        data: Op::RingData,
        build: impl for<'d> FnOnce(&'d mut Op::RingData) -> Request<'d>,
    ) -> Result<Key<Op>, SubmitError> {
        let key = self.links.add(self.tag, data, squeue::Flags::empty(), build)?;
        self.links.submit()?;
        Ok(key)
    }

    /// Submits what was linked, with nothing behind it: for chains of which it only turns out at the end which request is
    /// the last one, as in a loop. Without requests, nothing happens.
    ///
    /// # Errors
    ///
    /// As [`submit`](Self::submit).
    pub fn submit_linked(mut self) -> Result<(), SubmitError> {
        let Some(last) = self.links.placed.last_mut() else { return Ok(()) };
        last.end_chain();
        self.links.submit()
    }

    /// The same chain, to which requests of another operation of this ring are added next.
    pub fn to<Other: RingOperation<R>>(self, tag: Tag<R, Other>) -> Chain<'s, R, Other> {
        Chain { links: self.links, tag, not_send: PhantomData }
    }
}

const TOO_LONG: SubmitError = SubmitError::Invalid(InvalidEntry::ChainTooLong);

impl<R: Ring> Links<'_, R> {
    fn add<Op: RingOperation<R>>(
        &mut self,
        tag: Tag<R, Op>,
        data: Op::RingData,
        flags: squeue::Flags,
        build: impl for<'d> FnOnce(&'d mut Op::RingData) -> Request<'d>,
    ) -> Result<Key<Op>, SubmitError> {
        let Links { inner, placed, requests } = self;
        let Inner { core, slabs, .. } = &mut **inner;
        let slab: &mut Slab<Op::RingData> = tag.slab(slabs);
        core.accepts()?;
        let room = core.queue.capacity() - placed.len();
        if room == 0 {
            return Err(TOO_LONG);
        }
        slab.reserve().map_err(|_| SubmitError::TooManyRequests)?;
        let terms = core.terms(Flags::IN_CHAIN);
        let (identity, mut request, deadline) =
            request::place(slab, data, terms, |data| build(data).all_or_nothing());
        if deadline.is_some() && room == 1 {
            drop(withdraw(slab, request.user_data()));
            return Err(TOO_LONG);
        }
        bind(core, slab, &mut request)?;
        let timer = deadline.map(|time| request.add_timer(time));
        request.link(flags);
        placed.push(request);
        if let Some(mut timer) = timer {
            timer.link(flags);
            placed.push(timer);
        }
        *requests += 1;
        Ok(Key::new(core.serial, identity))
    }

    fn submit(&mut self) -> Result<(), SubmitError> {
        let Inner { core, slabs, .. } = &mut *self.inner;
        core.admit_chain(self.requests, self.placed.len())?;
        for placed in &self.placed {
            let user_data = placed.user_data();
            let is_timer = UserData::timed(user_data).is_some();
            if !is_timer && let Some(slab) = slab_of::<R>(slabs, UserData::tag(user_data)) {
                slab.submitted(user_data);
                core.count(Flags::EMPTY);
            }
        }
        core.push_chain(self.placed.drain(..));
        Ok(())
    }
}

impl<R: Ring> Drop for Links<'_, R> {
    fn drop(&mut self) {
        let Inner { core, slabs, .. } = &mut *self.inner;
        let mut panic = FirstPanic::none();
        for placed in self.placed.drain(..) {
            let user_data = placed.user_data();
            if let Some(slab) = slab_of::<R>(slabs, UserData::tag(user_data)) {
                // If one drop panics, the others are dropped all the same.
                panic.catch(|| slab.withdraw(user_data));
            }
        }
        // The next chain uses the same memory.
        core.links = std::mem::take(&mut self.placed);
        panic.go_on_from_drop();
    }
}

impl<R: Ring, Op> fmt::Debug for Chain<'_, R, Op> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Chain");
        debug.field("tag", &self.tag).field("requests", &self.links.requests).finish_non_exhaustive()
    }
}
