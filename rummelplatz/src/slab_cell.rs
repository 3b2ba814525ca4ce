//! The slabs of a ring, in the structure that is generated for them.
//!
//! # How the unsafe code stays right
//!
//! Slabs lie in a structure that is generated in a user's crate. What finds a slab in it is generated as
//! well, or written by somebody who knows the hidden names. So outside of this crate a [`SlabCell`] can be
//! referred to and nothing else: nobody has a `&mut` to one, so nobody can move a slab away. A cell is opened
//! only in this crate, only for whoever has the structure exclusively, and only if it lies within that. So
//! two rings never share a slab, whatever a projection returns.
//!
//! What nothing checks: a ring that is written by hand ([`RingParts`](crate::parts::RingParts)) must not
//! [deliver](crate::dispatch::deliver) by a tag whose projection returns one of its slabs now and another one later.
//! Slots of one would get into the list of the other. (To ask each slot that is given back whether it is one of the
//! slab's takes 4 instructions of a multishot echo.)

use std::cell::UnsafeCell;

use crate::any_slab::AnySlab;
use crate::request::Slab;

/// A slab among those of a ring.
pub struct SlabCell<D: 'static>(UnsafeCell<Slab<D>>);

impl<D: 'static> SlabCell<D> {
    /// An empty slab whose requests carry `tag`. It has no room before a ring adopts it.
    pub fn new(tag: u8) -> Self {
        SlabCell(UnsafeCell::new(Slab::new(tag)))
    }

    /// The slab without its type.
    pub fn any(&self) -> SlabRef<'_> {
        SlabRef(&self.0)
    }

    /// The slab, if this is one of `slabs`.
    ///
    /// # Panics
    ///
    /// If it is not: then the projection was not made by `#[ring]`.
    #[inline(always)]
    pub(crate) fn open<'s, S>(
        slabs: &'s mut S,
        project: impl FnOnce(&'s S) -> &'s SlabCell<D>,
    ) -> &'s mut Slab<D> {
        let slabs: &'s S = slabs;
        let cell = project(slabs);
        if !lies_within(slabs, cell) {
            elsewhere();
        }
        // SAFETY: the pointer comes from a reference, so it is aligned, and what it points to is there for
        // `'s`. Nobody else uses the slab: it is a part of `slabs`, which is borrowed exclusively for `'s`;
        // and the projection, to which that was lent, could neither keep it nor open a cell in it.
        unsafe { &mut *cell.0.get() }
    }
}

/// A slab whose type is not known.
pub struct SlabRef<'s>(&'s UnsafeCell<dyn AnySlab>);

impl<'s> SlabRef<'s> {
    /// The slab, if this is one of `slabs`.
    pub(crate) fn open<S>(
        slabs: &'s mut S,
        project: impl FnOnce(&'s S) -> Option<SlabRef<'s>>,
    ) -> Option<&'s mut dyn AnySlab> {
        let slabs: &'s S = slabs;
        let SlabRef(cell) = project(slabs).filter(|slab| lies_within(slabs, slab.0))?;
        // SAFETY: as in `SlabCell::open`. The pointer comes from a reference, so it is aligned, and what it
        // points to is there for `'s`. Nobody else uses the slab: it is a part of `slabs`, which is borrowed
        // exclusively for `'s`, and the projection could neither keep it nor open a cell in it.
        Some(unsafe { &mut *cell.get() })
    }

    /// The slab, if this is one of `slabs`, to look at only.
    pub(crate) fn look<S>(
        slabs: &'s S,
        project: impl FnOnce(&'s S) -> Option<SlabRef<'s>>,
    ) -> Option<&'s dyn AnySlab> {
        let SlabRef(cell) = project(slabs).filter(|slab| lies_within(slabs, slab.0))?;
        // SAFETY: the pointer comes from a reference, so it is aligned, and what it points to is there for
        // `'s`. Nobody writes to the slab: it is a part of `slabs`, and whoever opens it would have to borrow
        // those exclusively.
        Some(unsafe { &*cell.get() })
    }
}

/// Whether `part` lies within `whole`. Where the compiler sees through a projection, it knows the answer.
#[inline(always)]
fn lies_within<S, T: ?Sized>(whole: &S, part: &T) -> bool {
    let offset = (&raw const *part).addr().wrapping_sub((&raw const *whole).addr());
    size_of::<S>().checked_sub(size_of_val(part)).is_some_and(|last| offset <= last)
}

#[cold]
#[inline(never)]
fn elsewhere() -> ! {
    panic!("a tag is of its ring, and so is its slab")
}
