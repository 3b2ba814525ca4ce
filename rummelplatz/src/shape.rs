//! What the runtime must know of a ring in order to hold its requests: types, names, and slabs.

use std::error::Error;

use crate::any_slab::AnySlab;
use crate::config::Options;
use crate::slab_cell::SlabRef;

/// A struct that is a ring: implemented by [`#[ring]`](macro@crate::ring), and by nothing else.
///
/// Names the bound of operations that work in any ring: `impl<R: Ring> RingOperation<R> for …`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a ring",
    note = "a ring is a struct with `#[ring]` on it"
)]
pub trait Ring: RingShape {}

impl<R: RingShape> Ring for R {}

/// The types and constants that `#[ring]` generates.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a ring",
    note = "a ring is a struct with `#[ring]` on it"
)]
pub trait RingShape: Sized {
    /// A slab for each operation.
    type Slabs;
    /// A variant for each operation's `SetupError`.
    type SetupError: Error;
    /// A variant for each operation's `ControlFlowError`.
    type CompletionError: Error;
    /// A variant for each operation's `TeardownError`.
    type TeardownError: Error;
    /// The name of the struct.
    const NAME: &'static str;
    /// Tags and names of the fields, in ascending order.
    const OPERATIONS: &'static [(u8, &'static str)];
    /// The arguments of the attribute.
    const OPTIONS: Options;

    /// Makes empty slabs.
    fn slabs() -> Self::Slabs;
    /// The slab of a tag.
    fn slab(slabs: &Self::Slabs, tag: u8) -> Option<SlabRef<'_>>;
}

/// The slab of a tag.
pub(crate) fn slab_of<R: Ring>(slabs: &mut R::Slabs, tag: u8) -> Option<&mut dyn AnySlab> {
    SlabRef::open(slabs, |slabs| R::slab(slabs, tag))
}

/// The slab of a tag, to look at.
pub(crate) fn look_at_slab<R: Ring>(slabs: &R::Slabs, tag: u8) -> Option<&dyn AnySlab> {
    SlabRef::look(slabs, |slabs| R::slab(slabs, tag))
}

/// The name of an operation of `R`.
pub(crate) fn operation_name<R: Ring>(tag: u8) -> &'static str {
    let found = R::OPERATIONS.iter().find(|(number, _)| *number == tag);
    found.map_or("unknown", |(_, name)| name)
}
