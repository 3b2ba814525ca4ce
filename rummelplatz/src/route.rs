//! From a tag to the slab of its operation, typed.
//!
//! # How the unsafe code stays right
//!
//! The pointer in a tag is kept without its type, and turned back here. [`Tag::__new`] is the only way to
//! make a tag, and `Tag` is invariant in both of its parameters, so the type that the pointer is turned back
//! to is the one that it had.

use std::mem;

use crate::operation::RingOperation;
use crate::request::Slab;
use crate::shape::{Ring, RingShape};
use crate::slab_cell::SlabCell;
use crate::tag::Tag;

/// Finds the slab of an operation among those of its ring.
type SlabOf<R, Op> =
    for<'s> fn(&'s <R as RingShape>::Slabs) -> &'s SlabCell<<Op as RingOperation<R>>::RingData>;

impl<R: Ring, Op: RingOperation<R>> Tag<R, Op> {
    #[doc(hidden)]
    pub const fn __new(number: u8, slab: SlabOf<R, Op>) -> Self {
        // SAFETY: all function pointers have one size, and this one is called only by `slab`, which turns it
        // back first.
        Tag::from_route(number, unsafe { mem::transmute::<SlabOf<R, Op>, fn()>(slab) })
    }

    #[inline]
    pub(crate) fn slab<'s>(&self, slabs: &'s mut R::Slabs) -> &'s mut Slab<Op::RingData> {
        // SAFETY: the route was made by `__new` from a pointer of this very type.
        let slab = unsafe { mem::transmute::<fn(), SlabOf<R, Op>>(self.route()) };
        SlabCell::open(slabs, slab)
    }
}
