//! What comes from outside while the ring waits, or when a program says so: the other side lets go on what it was holding
//! up, buffers and files come back, and another ring sends what nobody asked for. Judges nothing.

use std::sync::atomic::Ordering;

use crate::names::timer_of;
use crate::program::Kind;
use crate::world::accounts::{Accounts, World};
use crate::world::log::F_MORE;
use crate::world::request::Request;

impl World {
    /// From time to time, another ring names a request that is over. (The strangers of [`Faults::foreign`] don't:
    /// only who knows the ring's slots can tell that none has that name again.)
    ///
    /// [`Faults::foreign`]: rummelplatz::sim::Faults::foreign
    pub(crate) fn name_what_is_over(&self) {
        let Some(simulation) = &self.simulation else { return };
        let mut accounts = self.look();
        if accounts.program.faults.foreign <= 0.0 || !accounts.kernel_chance.one_in(4) {
            return;
        }
        let names = accounts.names_of_the_past();
        if names.is_empty() {
            return;
        }
        let chance = &mut accounts.kernel_chance;
        let name = chance.pick(&names);
        let result = chance.pick(&[0, 1, i32::MAX, -libc::ECANCELED]);
        let flags = chance.pick(&[0, F_MORE]);
        drop(accounts);
        // SAFETY: the request is over: its end was told, and its data was dropped. No slot is used so often in a
        // program that it has a name again.
        unsafe { simulation.post(name, result, flags) };
    }

    /// Lets what was held up go on, except for what was to be cancelled: that ends when the kernel finds it. Returns
    /// whether anything was held up.
    pub(crate) fn release(&self) -> bool {
        let mut locked = self.look();
        let accounts = &mut *locked;
        let kept = accounts.pools.take_kept(&mut accounts.violations);
        let unblocked = self.unblock(accounts);
        let left = accounts.files.leave_elsewhere(&mut accounts.kernel_chance, self.now());
        let any = unblocked || !kept.is_empty() || left.is_some();
        // Not under the lock: this may wake the ring.
        drop(locked);
        drop(kept);
        if let Some(left) = left {
            std::thread::scope(|scope| drop(scope.spawn(|| drop(left))));
        }
        any
    }

    /// The same, of requests.
    fn unblock(&self, accounts: &mut Accounts) -> bool {
        let mut any = false;
        let words = &self.surroundings.words;
        let Accounts { requests, kernel, .. } = accounts;
        for (id, request) in requests.iter_mut().enumerate().filter(|(_, request)| request.drops == 0) {
            let is_to_end = request.name.is_some_and(|name| kernel.asked_for.contains(&name));
            // Cancels have no influence on the memory of a zero-copy send.
            if is_to_end && !request.kind.is_zero_copy() {
                continue;
            }
            let was_blocked = std::mem::take(&mut request.blocked);
            let waits = request.kind == Kind::WordWait && request.taken_in && request.finals == 0;
            if waits && !was_blocked && !std::mem::replace(&mut request.woken, true) {
                words[id % 2].fetch_add(1, Ordering::SeqCst);
                any = true;
            }
            any |= was_blocked;
        }
        any
    }
}

impl Accounts {
    /// The names of requests that are over, in the kernel as well.
    fn names_of_the_past(&self) -> Vec<u64> {
        let owned = &self.kernel.owned;
        let is_owned = |name: u64| owned.contains(&name) || owned.contains(&timer_of(name));
        let is_over = |request: &&Request| {
            let is_told = request.finals == 1 && request.drops == 1;
            is_told && !request.kind.is_stream() && !request.kind.is_zero_copy()
        };
        let names = self.requests.iter().filter(is_over).filter_map(|request| request.name);
        names.filter(|name| !is_owned(*name)).collect()
    }
}
