//! What the simulated kernel has done, as its log tells: what it has taken in, and what it has posted. Everybody who
//! judges by that reads it first ([`World::look`]). Knows nothing of what handlers are told.

use std::sync::MutexGuard;
use std::time::Duration;

use rummelplatz::RawCompletion;
use rummelplatz::io_uring::opcode;
use rummelplatz::sim::{Asked, Event};

use crate::names::{is_control, is_of_ring, is_timer, timer_of};
use crate::program::{End, GRACE, Limit};
use crate::world::accounts::{Accounts, World};
use crate::world::request::Request;

pub(super) const F_MORE: u32 = 1 << 1;
const F_NOTIF: u32 = 1 << 3;

impl World {
    /// Reads what the kernel has done since the last time.
    pub(super) fn look(&self) -> MutexGuard<'_, Accounts> {
        let Some(simulation) = &self.simulation else { return self.lock() };
        let (log, now) = (simulation.take_log(), simulation.now());
        let mut accounts = self.lock();
        for event in log {
            accounts.note(event, now);
        }
        accounts
    }
}

impl Accounts {
    /// What has happened, by now.
    fn note(&mut self, event: Event, now: Duration) {
        match event {
            Event::Entered { shown } => self.entries.show(shown, &mut self.violations),
            Event::TakenIn(asked) => {
                if !self.entries.take(&asked, &mut self.violations) {
                    return;
                }
                if !is_of_ring(asked.user_data) {
                    self.taken_in(&asked);
                } else if asked.opcode == opcode::AsyncCancel::CODE {
                    self.cancel_taken_in(asked.address, now);
                }
            }
            Event::Posted { user_data, result, flags } => {
                self.files.opened(user_data, result);
                let raw = RawCompletion { result, flags };
                match self.kernel.owned.contains(&user_data) {
                    true if is_timer(user_data) => {
                        self.kernel.owned.remove(&user_data);
                        self.kernel.timers.insert(user_data, result);
                    }
                    true => self.posted(user_data, raw, now),
                    false => self.posted_by_others(user_data, raw),
                }
            }
            _ => {}
        }
    }

    /// The kernel has taken in an entry that is not the ring's own.
    fn taken_in(&mut self, asked: &Asked) {
        if !self.kernel.owned.insert(asked.user_data) {
            self.violation(format!("{asked:?} has the name of a request that the kernel has"));
        }
        let Some(id) = self.find(asked) else { return };
        if self.requests[id].overtaken {
            self.violation(format!("#{id} was overtaken by a cancel of it"));
        }
        if std::mem::replace(&mut self.requests[id].taken_in, true) {
            // A stream that is armed again, and that no cancel was meant for.
            self.kernel.asked_for.remove(&asked.user_data);
            return;
        }
        let timer = self.requests[id].has_linked_timer().then(|| timer_of(asked.user_data));
        self.entries.begin(id, timer, &mut self.violations);
    }

    /// A cancel that comes before the request that it cancels is in vain.
    fn cancel_taken_in(&mut self, name: u64, now: Duration) {
        let Some(id) = self.by_name.get(&name).copied() else { return };
        self.kernel.asked_for.insert(name);
        let Request { taken_in, overtaken, is_late, cancelled, .. } = &mut self.requests[id];
        *overtaken |= !*taken_in;
        // The teardown began later than `ran_at`, and looked at the clock earlier than `now`.
        let is_spared = *is_late && !*cancelled && now.saturating_sub(self.ending.ran_at) < GRACE;
        // A request whose time is up is cancelled for that reason.
        let Request { limit, since, kind, told_at, .. } = self.requests[id];
        let is_up = self.kernel.timers.contains_key(&timer_of(name))
            || limit == Limit::Short && now >= since + Limit::SHORT
            || kind.idle_limit(id).is_some_and(|limit| now >= told_at + limit);
        if is_spared && !is_up && !self.silenced && self.program.end != End::Drop {
            self.violation(format!("#{id} was cancelled within the grace period"));
        }
    }

    /// The kernel has posted something of a request that it has.
    fn posted(&mut self, name: u64, raw: RawCompletion, now: Duration) {
        let id = self.by_name.get(&name).copied();
        if raw.flags & F_MORE == 0 {
            self.kernel.owned.remove(&name);
            self.kernel.ended_by.insert(name, now);
            self.expected.detached_well += u64::from(id.is_none() && raw.result >= 0);
            self.expected.strangers_before.insert(name, self.expected.strangers);
        } else if let Some(id) = id.filter(|_| !self.ending.is_due) {
            let Request { silent, cancelled, insisted, pauses, .. } = &mut self.requests[id];
            *insisted += u64::from(*silent || *cancelled || pauses.was_paused);
        }
        self.kernel.posted.entry(name).or_default().push_back(raw);
    }

    /// Something was posted that is of no request: the ring's own, or a stranger's.
    fn posted_by_others(&mut self, name: u64, raw: RawCompletion) {
        // From a zero-copy send that its chain has ended; a stranger's looks the same.
        let is_notification = raw.flags & (F_MORE | F_NOTIF) == F_NOTIF && raw.result & i32::MAX == 0;
        if !is_control(name) && !is_notification {
            self.expected.strangers += 1;
        }
    }
}
