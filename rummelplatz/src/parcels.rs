//! What other threads have sent, on its way from the inbox to the operations.
//!
//! An operation that already has as many requests in flight as it may has no room for a parcel. The parcel
//! then waits in [`Core::overdue`](crate::core::Core::overdue), in order, until one of those requests has ended.
//! Parcels wait nowhere else, so nothing that was sent is lost.

use crate::mutant;
use crate::panics::FirstPanic;
use crate::shape::{Ring, slab_of};
use crate::state::Inner;

/// Delivers what other threads have sent, as far as the operations have room. Returns whether those threads
/// want the ring to stop, and the first panic from parcels that no operation can take: the caller goes on
/// with it when all else is in order.
pub(crate) fn collect<R: Ring>(inner: &mut Inner<R>) -> (bool, FirstPanic) {
    let (parcels, stop) = inner.core.shared.collect();
    let mut panic = FirstPanic::none();
    for parcel in parcels {
        let Inner { core, slabs, .. } = &mut *inner;
        let Some(slab) = slab_of::<R>(slabs, parcel.tag) else {
            panic.catch(|| drop(parcel));
            continue;
        };
        if !core.overdue.has(parcel.tag) && slab.make_room() {
            panic.catch(|| slab.receive(core, parcel.data));
        } else if !mutant::is("what finds no room is lost") {
            core.overdue.push(parcel);
        }
    }
    inner.core.refresh();
    (stop, panic)
}

/// Delivers parcels that found no room before, as far as the operations have room now.
#[inline]
pub(crate) fn deliver_overdue<R: Ring>(inner: &mut Inner<R>) {
    if inner.core.overdue.operations() > 0 {
        deliver_some(inner);
    }
}

#[cold]
fn deliver_some<R: Ring>(inner: &mut Inner<R>) {
    let Inner { core, slabs, .. } = inner;
    for tag in core.overdue.tags() {
        let Some(slab) = slab_of::<R>(slabs, tag) else { continue };
        while slab.make_room()
            && let Some(parcel) = core.overdue.pop(tag)
        {
            slab.receive(core, parcel.data);
        }
    }
    core.refresh();
}
