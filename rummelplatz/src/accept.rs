//! How a request is accepted: room is made for it, it gets a slot, and its entry is queued.
//!
//! The path that nearly all requests take is short, and compiled into the handlers that submit. All else is
//! out of line.

use std::time::Duration;

use crate::core::Core;
use crate::error::{Refused, SubmitError};
use crate::facts::{Bound, Flags};
use crate::operation::RingOperation;
use crate::request::{self, More, Placed, Request, Slab, Terms};
use crate::shape::Ring;
use crate::slab::{Identity, Warm};
use crate::state::Inner;
use crate::submitter::SubmissionQueueSubmitter;
use crate::tag::{Key, Tag};

impl<R: Ring, Op: RingOperation<R>> SubmissionQueueSubmitter<'_, R, Op> {
    /// Accepts a request. The path that nearly all requests take, where there is room for all of it, is kept
    /// apart from the others so that it can be short.
    #[inline(always)]
    pub(crate) fn accept(
        &mut self,
        data: Op::RingData,
        flags: Flags,
        build: impl for<'d> FnOnce(&'d mut Op::RingData) -> Request<'d>,
    ) -> Result<Key<Op>, Refused<Op::RingData>> {
        /// Stops counting a request if building it unwinds.
        struct Counted<'c>(&'c mut usize);
        impl Drop for Counted<'_> {
            #[inline(always)]
            fn drop(&mut self) {
                *self.0 -= 1;
            }
        }

        let tag = self.tag();
        let (inner, warm) = self.open();
        let Inner { core, slabs, .. } = inner;
        let slab: &mut Slab<Op::RingData> = tag.slab(slabs);
        // While the queue is open, requests are not late.
        let terms = Terms { ring: core.serial, flags, born: core.watch.shown() };
        let Some(place) = core.queue.place() else {
            let warm = warm.map_or(Warm::NONE, Warm::take);
            // SAFETY: the warm slot, if there is one, is of the slab of `tag`, as whoever made this submitter
            // has promised.
            return unsafe { accept_slowly(inner, tag, warm, (data,), flags, build) };
        };
        // SAFETY: the warm slot, if there is one, is of the slab of `tag`, as whoever made this submitter has
        // promised.
        let vacancy = match warm.and_then(|warm| unsafe { slab.vacate(warm.take()) }) {
            // The request that the slot had is still counted; from here on, that counts this one.
            Some(vacancy) => vacancy,
            None => {
                let Some(vacancy) = slab.vacancy() else {
                    // SAFETY: there is no warm slot here, so it need not be of any slab.
                    return unsafe { accept_slowly(inner, tag, Warm::NONE, (data,), flags, build) };
                };
                core.foreground += 1;
                vacancy
            }
        };
        let counted = Counted(&mut core.foreground);
        // SAFETY: the vacancy was just taken from this slab, and writing an entry does not unwind.
        let placed = unsafe { request::place_into(vacancy, slab, data, terms, build, place) };
        let (identity, more) = placed;
        std::mem::forget(counted);
        // Nearly always, and apart from the rest, so that the compiler forgets nothing that it knows here.
        let Some(More { is_queued, deadline }) = more else {
            count_again(core, flags);
            return Ok(Key::new(core.serial, identity));
        };
        let accepted = match is_queued {
            true => Ok(Key::new(core.serial, identity)),
            // In parts: as a whole, it would share a place in memory with what is returned otherwise, which would
            // then be kept there as well.
            false => match push_set_aside(core, slab) {
                Ok(()) => Ok(Key::new(core.serial, identity)),
                Err(refused) => Err(refused),
            },
        };
        if accepted.is_ok() {
            count_again(core, flags);
            if let Some(time) = deadline {
                inner.keep_deadline(identity, time);
            }
        }
        accepted
    }

    /// Accepts a request that is not of the usual kind: out of line.
    #[inline(always)]
    pub(crate) fn accept_apart(
        &mut self,
        data: Op::RingData,
        flags: Flags,
        build: impl for<'d> FnOnce(&'d mut Op::RingData) -> Request<'d>,
    ) -> Result<Key<Op>, SubmitError> {
        let (inner, tag, warm) = self.apart();
        // SAFETY: the warm slot, if there is one, is of the slab of `tag`: see `apart`.
        unsafe { accept_apart(inner, tag, warm, (data,), flags, build) }
    }
}

/// Accepts a request that is not of the usual kind. The warm slot is released.
///
/// # Safety
///
/// The same as for [`release`].
#[inline(never)]
unsafe fn accept_apart<R: Ring, Op: RingOperation<R>>(
    inner: &mut Inner<R>,
    tag: Tag<R, Op>,
    warm: Warm,
    (data,): (Op::RingData,),
    flags: Flags,
    build: impl for<'d> FnOnce(&'d mut Op::RingData) -> Request<'d>,
) -> Result<Key<Op>, SubmitError> {
    // SAFETY: the caller promises that the slot, if there is one, is of the slab of `tag`.
    unsafe { release(inner, tag, warm) };
    SubmissionQueueSubmitter::new(inner, tag).accept(data, flags, build).map_err(SubmitError::from)
}

/// Counts a request where it belongs, if that is not where it was counted first.
#[inline(always)]
fn count_again(core: &mut Core, flags: Flags) {
    if flags.intersects(Flags::BACKGROUND) {
        core.foreground -= 1;
        core.background += 1;
    }
}

/// Releases a warm slot, if there is one, and stops counting its request, which is over.
///
/// # Safety
///
/// The slot, if there is one, is of the slab of `tag`.
#[inline(always)]
pub(crate) unsafe fn release<R: Ring, Op: RingOperation<R>>(
    inner: &mut Inner<R>,
    tag: Tag<R, Op>,
    warm: Warm,
) {
    if !warm.is_none() {
        // SAFETY: there is a slot, and the caller promises that it is of the slab of `tag`.
        unsafe { tag.slab(&mut inner.slabs).release(warm) };
        inner.core.foreground -= 1;
    }
}

/// As [`release`], where there seldom is a slot.
///
/// # Safety
///
/// The same as for [`release`].
#[inline(always)]
pub(crate) unsafe fn release_slowly<R: Ring, Op: RingOperation<R>>(
    inner: &mut Inner<R>,
    tag: Tag<R, Op>,
    warm: Warm,
) {
    #[cold]
    #[inline(never)]
    unsafe fn release_it<R: Ring, Op: RingOperation<R>>(inner: &mut Inner<R>, tag: Tag<R, Op>, warm: Warm) {
        // SAFETY: the caller promises that the slot, if there is one, is of the slab of `tag`.
        unsafe { release(inner, tag, warm) };
    }
    if !warm.is_none() {
        // SAFETY: the caller promises that the slot, if there is one, is of the slab of `tag`.
        unsafe { release_it(inner, tag, warm) };
    }
}

/// Accepts a request for which room must be made. The warm slot is released.
///
/// The data is passed in a tuple, which is a copy of it. Otherwise the short path would have to keep the data
/// in memory, to pass that on to here; with a copy, it may keep the data in registers.
///
/// # Safety
///
/// The same as for [`release`].
#[cold]
#[inline(never)]
unsafe fn accept_slowly<R: Ring, Op: RingOperation<R>>(
    inner: &mut Inner<R>,
    tag: Tag<R, Op>,
    warm: Warm,
    (data,): (Op::RingData,),
    flags: Flags,
    build: impl for<'d> FnOnce(&'d mut Op::RingData) -> Request<'d>,
) -> Result<Key<Op>, Refused<Op::RingData>> {
    // SAFETY: the caller promises that the slot, if there is one, is of the slab of `tag`.
    unsafe { release_slowly(inner, tag, warm) };
    let Inner { core, slabs, .. } = inner;
    let slab = tag.slab(slabs);
    if let Err(error) = make_room(core, slab) {
        // The `Drop` of what `build` has captured may panic. Later, the data would already be a part of what
        // is returned, and lost.
        drop(build);
        return Err(Refused { data, error });
    }
    let mut build = Some(build);
    let (identity, deadline) = accept_by(core, slab, data, flags, &mut |data| match build.take() {
        Some(build) => build(data),
        None => unreachable!("a request is built once"),
    })?;
    let key = Key::new(core.serial, identity);
    if let Some(time) = deadline {
        inner.keep_deadline(identity, time);
    }
    Ok(key)
}

/// Accepts a request for which there is room. This is the same for all operations with this data and all ways
/// to build a request, so it is compiled once.
fn accept_by<D>(
    core: &mut Core,
    slab: &mut Slab<D>,
    data: D,
    flags: Flags,
    build: &mut dyn for<'d> FnMut(&'d mut D) -> Request<'d>,
) -> Result<(Identity, Option<Duration>), Refused<D>> {
    let (identity, mut placed, deadline) = request::place(slab, data, core.terms(flags), build);
    bind(core, slab, &mut placed)?;
    core.count(flags);
    core.push(placed);
    Ok((identity, deadline))
}

/// Queues a request that is counted already, and that was set aside instead of being
/// [filled in](request::Queue::fill).
#[cold]
#[inline(never)]
fn push_set_aside<D>(core: &mut Core, slab: &mut Slab<D>) -> Result<(), Refused<D>> {
    if let Some(mut placed) = core.queue.take_set_aside() {
        bind(core, slab, &mut placed).inspect_err(|_| core.foreground -= 1)?;
        core.push(placed);
    }
    Ok(())
}

/// [Binds](Core::bind) a request to the pool that it receives from, if there is one. If the pool can't be
/// registered, the data comes back, and nothing is left of the request.
pub(crate) fn bind<D>(core: &mut Core, slab: &mut Slab<D>, placed: &mut Placed) -> Result<(), Refused<D>> {
    if placed.pool().is_none() {
        return Ok(());
    }
    let bound = core.bind(placed);
    note_bound(slab, placed.user_data(), bound)
}

/// Notes in the slot of a request which group it receives from. If there is an error instead, takes the data
/// out again.
pub(crate) fn note_bound<D>(
    slab: &mut Slab<D>,
    user_data: u64,
    bound: Result<Bound, SubmitError>,
) -> Result<(), Refused<D>> {
    let Some(mut slot) = slab.find(user_data) else {
        unreachable!("the request was put into a slot just now");
    };
    match bound {
        Ok(bound) => {
            slot.demote().facts.bind(bound);
            // Nothing has changed that its completions would have to look at.
            slot.calm();
            Ok(())
        }
        Err(error) => match slot.take() {
            Some(data) => Err(Refused { data, error }),
            None => unreachable!("the data was put into the slot just now"),
        },
    }
}

/// Makes room for one request, in the queue and in the slab.
pub(crate) fn make_room<D>(core: &mut Core, slab: &mut Slab<D>) -> Result<(), SubmitError> {
    core.admit(1)?;
    slab.reserve().map_err(|_| SubmitError::TooManyRequests)
}
