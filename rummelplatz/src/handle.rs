//! How other threads talk to a ring.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use crate::inbox::{Parcel, Shared};
use crate::operation::RingOperation;
use crate::shape::Ring;
use crate::tag::Tag;

/// Reaches a ring from other threads: sends data to its operations, and stops it.
///
/// Cheap to clone, `Send` and `Sync`. A *strong* handle, from the ring's `handle()`, keeps a ring waiting
/// that has nothing in flight, because something may still be sent to it; when all strong handles are
/// dropped, the ring ends. A *weak* one, from [`Submitter::handle`](crate::Submitter::handle) or
/// [`downgrade`](Self::downgrade), does not keep it waiting.
///
/// Here a thread hands work to an operation, and the ring ends when there is no more:
///
/// ```
/// # use rummelplatz::{Completion, RingOperation, Submitter, ring};
/// # use std::{error::Error, thread};
/// # #[ring]
/// # struct Counter { sum: Sum }
/// # #[derive(RingOperation)]
/// # #[ring_operation(ring = Counter, data = u32, on_completion)]
/// # struct Sum { total: u32 }
/// # impl Sum {
/// fn on_completion(&mut self, completion: Completion, number: u32, _: Submitter<'_, Counter, Self>) {
///     assert!(completion.is_message()); // The number was sent: no request has ended.
///     self.total += number;
/// }
/// # }
/// # fn main() -> Result<(), Box<dyn Error>> {
///
/// let mut ring = Counter::builder(Sum { total: 0 }).build()?;
/// let handle = ring.handle();
/// let worker = thread::spawn(move || {
///     // Each of them wakes the ring, if it waits.
///     (1..=4).try_for_each(|number| handle.send(Counter::SUM, number))
/// }); // The only handle is dropped here.
/// ring.run()?;
/// # worker.join().unwrap()?;
/// assert_eq!(ring.sum.total, 10);
/// # Ok(()) }
/// ```
pub struct RingHandle<R: Ring> {
    shared: Arc<Shared>,
    strong: bool,
    invariant: PhantomData<fn(R) -> R>,
}

/// Data that a ring did not take, because it has ended.
pub struct SendError<D>(pub D);

impl<D> fmt::Debug for SendError<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SendError")
    }
}

impl<D> fmt::Display for SendError<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the ring has ended and takes no more data")
    }
}

impl<D> std::error::Error for SendError<D> {}

impl<R: Ring> RingHandle<R> {
    pub(crate) fn new(shared: &Arc<Shared>, strong: bool) -> Self {
        if strong {
            shared.hold();
        }
        RingHandle { shared: Arc::clone(shared), strong, invariant: PhantomData }
    }

    /// Gives data to an operation, as [`post`](crate::Submitter::post) does from within the ring: the
    /// operation's handler is called with it, and [`is_message`](crate::Completion::is_message) is true. Each
    /// message is boxed.
    ///
    /// Wakes the ring if it waits. What one thread sends to one operation arrives in the order in which it was
    /// sent. Data sent before the ring first runs is kept until then. There is no limit on how much may be on
    /// its way: a sender that may be faster than the ring must keep count of what it has sent.
    ///
    /// While its operation has as many requests in flight as the
    /// [`request_limit`](crate::Builder::request_limit) allows, the data waits, in order, and is counted in
    /// [`undelivered`](crate::Stats::undelivered). If the ring is torn down meanwhile, the data goes to
    /// [`on_teardown_completion`](crate::RingOperation::on_teardown_completion).
    ///
    /// # Errors
    ///
    /// Hands the data back if the ring is being torn down, has finished, or is gone; also in a process that
    /// was forked off the ring's, from which no handle reaches the ring.
    pub fn send<Op>(&self, tag: Tag<R, Op>, data: Op::RingData) -> Result<(), SendError<Op::RingData>>
    where
        Op: RingOperation<R>,
        Op::RingData: Send,
    {
        let mut data = Some(data);
        let parcel = || data.take().map(|data| Parcel { tag: tag.number(), data: Box::new(data) });
        self.shared.send(parcel);
        data.map_or(Ok(()), |data| Err(SendError(data)))
    }

    /// Makes the ring stop as if a handler had returned [`ControlFlow::Exit`](crate::ControlFlow::Exit). A
    /// ring that is not running stops when it next runs.
    ///
    /// ```
    /// # use rummelplatz::{RingOperation, ring};
    /// # use std::{error::Error, thread, time::Duration};
    /// # #[ring]
    /// # struct Server { connections: Connections }
    /// # #[derive(RingOperation)]
    /// # struct Connections;
    /// # fn main() -> Result<(), Box<dyn Error>> {
    /// # let mut server = Server::builder(Connections).build()?;
    /// let handle = server.handle();
    /// thread::spawn(move || {
    ///     thread::sleep(Duration::from_millis(20));
    ///     handle.stop();
    /// });
    /// server.run()?; // Until then, whatever it does.
    /// # Ok(()) }
    /// ```
    pub fn stop(&self) {
        self.shared.stop();
    }

    /// A handle that does not keep the ring waiting.
    pub fn downgrade(&self) -> Self {
        RingHandle::new(&self.shared, false)
    }
}

impl<R: Ring> Clone for RingHandle<R> {
    fn clone(&self) -> Self {
        RingHandle::new(&self.shared, self.strong)
    }
}

impl<R: Ring> Drop for RingHandle<R> {
    fn drop(&mut self) {
        if self.strong {
            self.shared.release();
        }
    }
}

impl<R: Ring> fmt::Debug for RingHandle<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RingHandle").field("ring", &R::NAME).field("strong", &self.strong).finish()
    }
}
