//! What a ring and its handles share: what was sent and not looked at yet.

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::forked::generation;
use crate::waker::Waker;

/// What a ring and its handles share.
pub(crate) struct Shared {
    pub(crate) waker: Waker,
    inbox: Mutex<Inbox>,
    /// The [`generation`] of the process that made it.
    generation: u32,
}

#[derive(Default)]
struct Inbox {
    parcels: VecDeque<Parcel>,
    /// The ring accepts nothing more.
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

/// Parcels that found no room, in order, by the tag of their operation. Each list has at least one.
#[derive(Default)]
pub(crate) struct Overdue(BTreeMap<u8, VecDeque<Parcel>>);

impl Overdue {
    /// How many operations there are parcels for.
    #[inline]
    pub(crate) fn operations(&self) -> usize {
        self.0.len()
    }

    /// How many parcels there are.
    pub(crate) fn len(&self) -> usize {
        self.0.values().map(VecDeque::len).sum()
    }

    pub(crate) fn tags(&self) -> Vec<u8> {
        self.0.keys().copied().collect()
    }

    pub(crate) fn has(&self, tag: u8) -> bool {
        self.0.contains_key(&tag)
    }

    pub(crate) fn push(&mut self, parcel: Parcel) {
        self.0.entry(parcel.tag).or_default().push_back(parcel);
    }

    pub(crate) fn pop(&mut self, tag: u8) -> Option<Parcel> {
        let parcels = self.0.get_mut(&tag)?;
        let parcel = parcels.pop_front();
        if parcels.is_empty() {
            self.0.remove(&tag);
        }
        parcel
    }

    pub(crate) fn into_parcels(self) -> impl Iterator<Item = Parcel> {
        self.0.into_values().flatten()
    }
}

impl Shared {
    pub(crate) fn new(waker: Waker) -> Arc<Shared> {
        Arc::new(Shared { waker, inbox: Mutex::default(), generation: generation() })
    }

    /// Whether this process was [forked](generation) off the ring's. If so, nobody looks at this inbox, and
    /// it may even be locked for ever, by a thread that the child does not have.
    pub(crate) fn is_forked(&self) -> bool {
        self.generation != generation()
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

    /// Counts a strong handle.
    pub(crate) fn hold(&self) {
        if !self.is_forked() {
            self.lock().strong += 1;
        }
    }

    /// Stops counting a strong handle; when the last one goes, an idle ring may end.
    pub(crate) fn release(&self) {
        if self.is_forked() {
            return;
        }
        let mut inbox = self.lock();
        inbox.strong -= 1;
        if inbox.strong == 0 {
            self.wake(inbox);
        }
    }

    /// Sends a parcel to the ring. It is packed only if the ring still accepts it.
    pub(crate) fn send(&self, parcel: impl FnOnce() -> Option<Parcel>) {
        if self.is_forked() {
            return;
        }
        let mut inbox = self.lock();
        if !inbox.closed {
            inbox.parcels.extend(parcel());
            self.wake(inbox);
        }
    }

    /// Asks the ring to stop.
    pub(crate) fn stop(&self) {
        if self.is_forked() {
            return;
        }
        let mut inbox = self.lock();
        inbox.stop = true;
        self.wake(inbox);
    }

    /// Whether somebody outside may still wake the ring, or has done so.
    pub(crate) fn may_be_woken(&self) -> bool {
        let inbox = self.lock();
        inbox.strong > 0 || inbox.stop || !inbox.parcels.is_empty()
    }
}
