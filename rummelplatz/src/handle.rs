//! How other threads talk to a ring.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::operation::RingOperation;
use crate::ring::Ring;
use crate::tag::Tag;
use crate::wake::Waker;

/// Reaches a ring from other threads: sends data to its operations, and stops it.
///
/// Cheap to clone, `Send` and `Sync`. A *strong* handle, from the ring's `handle()`, keeps a ring that
/// has nothing in flight waiting, since it may still be sent to; drop all of them, and it ends. A
/// *weak* one, from [`Submitter::handle`](crate::Submitter::handle) or [`downgrade`](Self::downgrade),
/// does not.
pub struct RingHandle<R: Ring> {
    shared: Arc<Shared>,
    strong: bool,
    invariant: PhantomData<fn(R) -> R>,
}

/// What a ring and its handles share.
pub(crate) struct Shared {
    pub(crate) waker: Waker,
    inbox: Mutex<Inbox>,
}

#[derive(Default)]
struct Inbox {
    parcels: VecDeque<Parcel>,
    /// The ring takes no more.
    closed: bool,
    stop: bool,
    strong: usize,
    /// The ring was woken and has not looked yet.
    woken: bool,
}

/// Data on its way to an operation.
pub(crate) struct Parcel {
    pub(crate) tag: u8,
    pub(crate) data: Box<dyn Any + Send>,
}

impl Shared {
    pub(crate) fn new(waker: Waker) -> Arc<Shared> {
        Arc::new(Shared { waker, inbox: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, Inbox> {
        // Nothing under the lock can panic half-way.
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self, mut inbox: MutexGuard<'_, Inbox>) {
        let woken = std::mem::replace(&mut inbox.woken, true);
        drop(inbox);
        if !woken {
            self.waker.wake();
        }
    }

    pub(crate) fn set_open(&self, open: bool) {
        self.lock().closed = !open;
    }

    /// The parcels that have arrived, and whether the ring is to stop.
    pub(crate) fn collect(&self) -> (VecDeque<Parcel>, bool) {
        let mut inbox = self.lock();
        inbox.woken = false;
        (std::mem::take(&mut inbox.parcels), std::mem::take(&mut inbox.stop))
    }

    /// Whether somebody outside may still wake the ring, or has done so.
    pub(crate) fn may_be_woken(&self) -> bool {
        let inbox = self.lock();
        inbox.strong > 0 || inbox.stop || !inbox.parcels.is_empty()
    }
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
            shared.lock().strong += 1;
        }
        RingHandle { shared: Arc::clone(shared), strong, invariant: PhantomData }
    }

    /// Gives data to an operation, as [`post`](crate::Submitter::post) does from within: its handler
    /// is called with it, and [`is_message`](crate::Completion::is_message) is true.
    ///
    /// Wakes the ring if it waits. Data sent before the ring runs is kept until it does.
    ///
    /// # Errors
    ///
    /// Hands the data back if the ring is being torn down, has finished, or is gone.
    pub fn send<Op>(&self, tag: Tag<R, Op>, data: Op::RingData) -> Result<(), SendError<Op::RingData>>
    where
        Op: RingOperation<R>,
        Op::RingData: Send,
    {
        let mut inbox = self.shared.lock();
        if inbox.closed {
            return Err(SendError(data));
        }
        inbox.parcels.push_back(Parcel { tag: tag.number(), data: Box::new(data) });
        self.shared.wake(inbox);
        Ok(())
    }

    /// Makes the ring stop as if a handler had returned
    /// [`ControlFlow::Exit`](crate::ControlFlow::Exit); a ring that does not run yet stops when it
    /// does.
    pub fn stop(&self) {
        let mut inbox = self.shared.lock();
        inbox.stop = true;
        self.shared.wake(inbox);
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
            let mut inbox = self.shared.lock();
            inbox.strong -= 1;
            if inbox.strong == 0 {
                self.shared.wake(inbox);
            }
        }
    }
}

impl<R: Ring> fmt::Debug for RingHandle<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RingHandle").field("ring", &R::NAME).field("strong", &self.strong).finish()
    }
}
