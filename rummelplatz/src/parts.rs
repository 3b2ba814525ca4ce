//! What `#[ring]` generates beside types and constants: how the ring is put together, and the one
//! `match` from a tag to its operation.

use crate::runtime::Runtime;
use crate::shape::Ring;

/// One round of deliveries. Only code that has checked that this process and thread may drive the ring can
/// make one.
pub struct Round {
    pub(crate) may_wait: bool,
}

/// How a ring is put together and driven.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a ring",
    note = "a ring is a struct with `#[ring]` on it"
)]
pub trait RingParts: Ring {
    /// All operations, in the order of the fields.
    type Operations;

    /// Puts the ring together.
    fn assemble(runtime: Runtime<Self>, operations: Self::Operations) -> Self;
    /// The hidden field.
    fn runtime(&self) -> &Runtime<Self>;
    /// The hidden field.
    fn runtime_mut(&mut self) -> &mut Runtime<Self>;
    /// Sets all operations up, in the order of the fields.
    ///
    /// # Errors
    ///
    /// The first error that an operation returns.
    fn setup(&mut self) -> Result<(), Self::SetupError>;
    /// Delivers the next completion, if there is one, to the operation of its tag.
    fn dispatch(&mut self, round: &Round);
    /// [`deliver_all`](crate::ring::deliver_all), as a function in the ring's own crate and module: where its
    /// handlers are there, too, the compiler can make one function of it all.
    fn deliver_all(&mut self, round: &Round) -> bool;
}
