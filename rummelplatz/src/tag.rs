//! Typed names: of an operation of a ring, and of one request.

use std::fmt;
use std::marker::PhantomData;

use crate::shape::{Ring, operation_name};
use crate::slab::Identity;

/// Names one operation of a ring: `#[ring]` makes a constant of this type for each field.
///
/// A tag is how one operation submits to another ([`to`](crate::Submitter::to)), how another thread
/// sends to an operation ([`send`](crate::RingHandle::send)), and how its statistics are asked for
/// ([`operation`](crate::Stats::operation)). It is tied to the ring and the operation by its type: a
/// wrong pairing does not compile.
///
/// ```
/// # use rummelplatz::{RingOperation, request, ring};
/// # use std::{error::Error, time::Duration};
/// #[ring]
/// struct Server {
///     lookups: Lookups, // Server::LOOKUPS: Tag<Server, Lookups>
///     timers: Timers,   // Server::TIMERS: Tag<Server, Timers>
/// }
///
/// # #[derive(RingOperation)]
/// # #[ring_operation(data = String)]
/// # struct Lookups;
/// # #[derive(RingOperation)]
/// # #[ring_operation(data = u32)]
/// # struct Timers;
/// # fn main() -> Result<(), Box<dyn Error>> {
/// # let mut server = Server::builder(Lookups, Timers).build()?;
/// // From outside; in a handler of `Lookups`, it is `submitter.to(Server::TIMERS)`. The data of a timer is a `u32`.
/// server.submitter(Server::TIMERS).submit(3, |_| request::timeout(Duration::from_millis(1)))?;
/// server.handle().send(Server::LOOKUPS, String::from("localhost"))?;
/// assert_eq!(server.stats().operation(Server::TIMERS).in_flight, 1);
/// # server.run()?;
/// # Ok(()) }
/// ```
pub struct Tag<R, Op> {
    number: u8,
    /// From the slabs of `R` to that of `Op`: see [`route`](crate::route). Its type can be named only where
    /// `Op` is known to be an operation of `R`; and if a bound on this struct said so, the compiler would
    /// complain at every mention of a tag where it is not.
    route: fn(),
    /// A tag of a subtype is no tag of its supertype.
    invariant: Invariant<(R, Op)>,
}

/// Makes a type invariant in `T`, which it does not contain.
type Invariant<T> = PhantomData<fn(T) -> T>;

impl<R, Op> Tag<R, Op> {
    pub(crate) const fn from_route(number: u8, route: fn()) -> Self {
        Tag { number, route, invariant: PhantomData }
    }

    #[inline]
    pub(crate) const fn route(&self) -> fn() {
        self.route
    }

    #[inline]
    pub(crate) const fn number(&self) -> u8 {
        self.number
    }
}

impl<R: Ring, Op> Tag<R, Op> {
    /// The name of the field that this is the tag of.
    pub fn name(&self) -> &'static str {
        operation_name::<R>(self.number)
    }
}

impl<R, Op> Clone for Tag<R, Op> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R, Op> Copy for Tag<R, Op> {}

impl<R: Ring, Op> fmt::Debug for Tag<R, Op> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tag({}::{})", R::NAME, self.name())
    }
}

/// Names one request, for ever: to [`cancel`](crate::Submitter::cancel) it.
///
/// A key never matches a later request in the same slot, nor a request of another ring, even if that is
/// another instance of the same type.
pub struct Key<Op> {
    /// The instance of a ring, in this process.
    pub(crate) ring: u64,
    pub(crate) identity: Identity,
    /// As in [`Tag`].
    invariant: Invariant<Op>,
}

impl<Op> Key<Op> {
    #[inline]
    pub(crate) fn new(ring: u64, identity: Identity) -> Self {
        Key { ring, identity, invariant: PhantomData }
    }
}

impl<Op> Key<Op> {
    /// The name of the request and of its completions in the kernel, and in its tracepoints
    /// (`io_uring:io_uring_complete`): tag, slot and generation. It names one request at a time, not for
    /// ever.
    ///
    /// No other ring may send a message with this name: see the safety of [`push`](crate::Submitter::push).
    pub fn user_data(&self) -> u64 {
        self.identity.user_data
    }
}

impl<Op> Clone for Key<Op> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<Op> Copy for Key<Op> {}

impl<Op> PartialEq for Key<Op> {
    fn eq(&self, other: &Self) -> bool {
        (self.ring, self.identity) == (other.ring, other.identity)
    }
}

impl<Op> Eq for Key<Op> {}

impl<Op> std::hash::Hash for Key<Op> {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (self.ring, self.identity).hash(state);
    }
}

impl<Op> fmt::Debug for Key<Op> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Key { ring, identity, .. } = self;
        write!(f, "Key(ring {ring}, {identity})")
    }
}
