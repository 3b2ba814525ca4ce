//! What the runtime does with the slab of an operation without knowing the type of its data.

use std::any::Any;

use crate::core::Core;
use crate::facts::{Facts, Flags};
use crate::idle::IdleLimit;
use crate::mutant;
use crate::queue::Cqe;
use crate::request::{self, Record, Slab};
use crate::settle::{Settled, is_not_over, settle, withdraw};
use crate::slab::Identity;
use crate::streams::{look_after, resume, unpark};

/// See the [module documentation](self).
pub(crate) trait AnySlab {
    /// How many requests are in flight.
    fn in_flight(&self) -> usize {
        let mut count = 0;
        self.visit(&mut |_, _| count += 1);
        count
    }
    /// Whether a request may end by itself, and so make room for another.
    fn may_make_room(&self) -> bool {
        let mut may = false;
        self.visit(&mut |_, facts| may |= !facts.flags.are_halted());
        may
    }
    /// Gives the slab room for `limit` requests, if its tag is `tag`. Until then it has no room, so a slab
    /// that the ring does not know of can't hold requests, whose `user_data` would be that of others.
    fn adopt(&mut self, tag: u8, limit: u32);
    /// Calls `visit` with the `user_data` and facts of each request.
    fn visit(&self, visit: &mut dyn FnMut(u64, &Facts)) {
        for (user_data, facts) in (0..self.slots()).filter_map(|slot| self.request_in(slot)) {
            visit(user_data, &facts);
        }
    }
    /// How many slots there are, from 0 on, whether free or not.
    fn slots(&self) -> u32;
    /// The `user_data` and facts of the request in this slot, if there is one.
    fn request_in(&self, slot: u32) -> Option<(u64, Facts)>;
    /// Makes sure that all completions from here on are looked at closely: no request is plain any more.
    fn demote_all(&mut self);
    /// Finds the slots that a panic has lost, when no request is in flight.
    fn tidy(&mut self);
    /// Settles a completion without telling anybody. The data is dropped here, which may panic.
    fn discard(&mut self, core: &mut Core, cqe: Cqe);
    /// Counts a request of a chain from here on: the chain was submitted.
    fn submitted(&mut self, user_data: u64);
    /// Takes back a request that was neither counted nor queued. The data is dropped here, which may panic.
    fn withdraw(&mut self, user_data: u64);
    /// The request that a cancel with this name was to end, if the kernel still has it.
    fn is_not_over(&mut self, cancel: u64) -> Option<u64>;
    /// Whether this request is not over.
    fn has(&mut self, identity: Identity) -> bool;
    /// Ends a request, if it is not over, because its deadline has passed.
    fn time_is_up(&mut self, core: &mut Core, identity: Identity);
    /// Looks after a stream that may not be idle for too long. Returns how to go on with that; `None` if there is
    /// nothing more to look after.
    fn look_after(&mut self, core: &mut Core, identity: Identity, limit: IdleLimit) -> Option<IdleLimit>;
    /// Resumes a stream that waited for a buffer, or rested. Returns false if it has ended since.
    fn unpark(&mut self, core: &mut Core, user_data: u64) -> bool;
    /// Makes room for one more request. Returns false if there are as many as there may be.
    fn make_room(&mut self) -> bool;
    /// Takes in data that another thread sent, for which there is room. (If it is not of the right type, it is dropped,
    /// which may panic.)
    fn receive(&mut self, core: &mut Core, data: Box<dyn Any + Send>);
}

impl<D: 'static> AnySlab for Slab<D> {
    fn adopt(&mut self, tag: u8, limit: u32) {
        if self.tag() == tag {
            self.set_limit(limit);
        }
    }

    fn slots(&self) -> u32 {
        self.made()
    }

    fn request_in(&self, slot: u32) -> Option<(u64, Facts)> {
        let (user_data, Record { facts, .. }) = self.look_at(slot)?;
        // A chain that was forgotten leaves such requests behind.
        (!facts.flags.intersects(Flags::IN_CHAIN)).then_some((user_data, facts))
    }

    fn demote_all(&mut self) {
        Slab::demote_all(self);
    }

    fn tidy(&mut self) {
        Slab::tidy(self);
    }

    fn discard(&mut self, core: &mut Core, cqe: Cqe) {
        match settle(core, self, cqe.user_data, cqe.result, cqe.flags) {
            Settled::Silent => {}
            // This does not happen while the ring is being torn down, which is when this function is called.
            Settled::Told(_completion, data, Some(lent)) => {
                // SAFETY: it was just lent, here.
                if !unsafe { self.take_back(&lent, data) } {
                    // SAFETY: it was lent above, and was just taken back.
                    unsafe { resume(core, self, lent) };
                }
            }
            Settled::Told(completion, data, None) => drop((completion, data)),
        }
    }

    fn submitted(&mut self, user_data: u64) {
        let Some(mut slot) = self.find(user_data) else { return };
        let facts = &mut slot.demote().facts;
        facts.flags.remove(Flags::IN_CHAIN);
        // From here on, it is like all others.
        if let Some(brief) = facts.brief() {
            slot.promote(brief);
        }
    }

    fn withdraw(&mut self, user_data: u64) {
        drop(withdraw(self, user_data));
    }

    fn is_not_over(&mut self, cancel: u64) -> Option<u64> {
        is_not_over(self, cancel)
    }

    fn has(&mut self, identity: Identity) -> bool {
        self.find_identity(identity).is_some()
    }

    fn time_is_up(&mut self, core: &mut Core, identity: Identity) {
        let Some(mut slot) = self.find_identity(identity) else { return };
        let flags = &mut slot.demote().facts.flags;
        // A zero-copy send that has told of itself has ended, but for its memory.
        if flags.intersects(Flags::HELD) || mutant::is("time is never up") {
            return;
        }
        let is_cancelled = flags.intersects(Flags::CANCELLED);
        flags.insert(Flags::TIMED_OUT);
        if !is_cancelled {
            core.cancel(identity.user_data);
        }
    }

    fn look_after(&mut self, core: &mut Core, identity: Identity, limit: IdleLimit) -> Option<IdleLimit> {
        look_after(core, self, identity, limit)
    }

    fn unpark(&mut self, core: &mut Core, user_data: u64) -> bool {
        unpark(core, self, user_data)
    }

    fn make_room(&mut self) -> bool {
        self.reserve().is_ok()
    }

    fn receive(&mut self, core: &mut Core, data: Box<dyn Any + Send>) {
        let Ok(data) = data.downcast::<D>() else { return };
        let user_data = request::place_message(self, *data, core.terms(Flags::EMPTY));
        core.count(Flags::EMPTY);
        core.end_without_kernel(user_data, 0);
    }
}
