//! What must hold for streams that are paused and resumed.

use rummelplatz::RawCompletion;

use crate::world::accounts::{Accounts, World};
use crate::world::log::F_MORE;
use crate::world::request::{Pauses, Request};
use crate::world::submissions::Caller;

impl Request {
    fn is_over(&self) -> bool {
        self.finals > 0 || self.silent || self.cancelled
    }

    /// Whether a pause should find something.
    fn may_be_paused(&self) -> bool {
        self.kind.is_stream() && !self.raw && !self.is_over() && !self.pauses.is_paused
    }

    fn may_be_resumed(&self) -> bool {
        self.pauses.is_paused && !self.is_over()
    }
}

impl World {
    /// Whether this request can be paused or, if `resumes`, resumed.
    pub(crate) fn may_be_paused(&self, id: usize, resumes: bool) -> bool {
        let request = &self.lock().requests[id];
        if resumes { request.may_be_resumed() } else { request.may_be_paused() }
    }

    /// Whether a pause of this request has found something.
    pub(crate) fn paused(&self, id: usize, found: bool, from: Caller) {
        let mut accounts = self.lock();
        let request = &accounts.requests[id];
        // The ring itself may be ending it.
        let may_be_ending = request.kind.has_pool() || request.kind.idle_limit(id).is_some();
        let is_certain = from == Caller::Handler && !may_be_ending;
        let may = request.may_be_paused();
        accounts.compare_found(id, "pause", found, may, is_certain);
        if found {
            accounts.requests[id].pauses = Pauses { is_paused: true, is_resuming: false, was_paused: true };
        }
    }

    /// Whether the submitter of an operation has paused the stream whose handler is running.
    pub(crate) fn paused_lent(&self, second: bool, found: bool, from: Caller) {
        let lent = self.lock().lent.filter(|(of_second, _)| *of_second == second);
        match lent {
            Some((_, id)) => self.paused(id, found, from),
            None if found => self.violation("a stream was paused, but there was none".to_owned()),
            None => {}
        }
    }

    /// This request is to be resumed.
    pub(crate) fn resumes(&self, id: usize) {
        self.lock().requests[id].pauses.is_resuming = true;
    }

    /// Whether this request was found to be paused, and is resumed.
    pub(crate) fn resumed(&self, id: usize, found: bool, from: Caller) {
        let mut accounts = self.lock();
        let may = accounts.requests[id].may_be_resumed();
        accounts.requests[id].pauses.is_resuming = false;
        accounts.compare_found(id, "resume", found, may, from == Caller::Handler);
        if found {
            accounts.requests[id].pauses.is_paused = false;
        }
    }

    /// A stream is armed, for the first time or again.
    pub(crate) fn armed(&self, id: usize) {
        let now = self.now();
        let mut accounts = self.lock();
        // From here on, it may be idle.
        accounts.requests[id].told_at = now;
        let Pauses { is_paused, is_resuming, .. } = accounts.requests[id].pauses;
        if is_paused && !is_resuming {
            accounts.violation(format!("#{id} is armed, though it is paused"));
        }
    }
}

impl Accounts {
    /// Whether a run does not end before this request has.
    pub(super) fn keeps_running(&self, it: &Request) -> bool {
        let is_here = it.accepted && it.drops == 0 && !it.is_background && !it.pauses.is_paused;
        is_here && !(it.is_sent && self.has_room_only_for_paused(it.second))
    }

    /// Whether only paused streams take the room of this operation.
    fn has_room_only_for_paused(&self, second: bool) -> bool {
        let is_here = |it: &&Request| it.second == second && it.accepted && it.drops == 0 && !it.is_sent;
        self.program.request_limit.is_some()
            && self.requests.iter().filter(is_here).all(|it| it.pauses.is_paused)
    }

    fn compare_found(&mut self, id: usize, what: &str, found: bool, may: bool, is_certain: bool) {
        if found && !may || !found && may && is_certain && !self.silenced {
            self.violation(format!("a {what} of #{id}, which may be: {may}, has found something: {found}"));
        }
    }

    /// Whether the kernel has posted what is told of this request. Forgets what it has posted before that because of a
    /// pause, and nobody is told. `may_end` says whether there is another reason for the end of a stream.
    pub(super) fn is_from_kernel(
        &mut self,
        id: usize,
        told: &RawCompletion,
        more: bool,
        may_end: bool,
    ) -> bool {
        let Request { name, pauses, cancelled, .. } = self.requests[id];
        let Some(posted) = name.and_then(|name| self.kernel.posted.get_mut(&name)) else { return false };
        let is_interrupted = |result: i32| [libc::ECANCELED, libc::EINTR, 512].contains(&-result);
        if !pauses.was_paused {
            return !posted.is_empty();
        }
        while let Some(first) = posted.front()
            && first.flags & F_MORE == 0
            && is_interrupted(first.result)
        {
            let is_told = (first.result, first.flags) == (told.result, told.flags & !F_MORE);
            // What comes after an end is told after it.
            if is_told && (more || posted.len() == 1) {
                break;
            }
            posted.pop_front();
        }
        if more || !is_interrupted(told.result) {
            return !posted.is_empty();
        }
        // It may also be the ring's, and the one of the kernel that of a pause.
        if self.program.faults.cancelled > 0.0 {
            self.requests[id].cancelled = true;
        } else if !cancelled && !may_end {
            self.violation(format!("#{id} was only paused, and ends"));
        }
        false
    }
}
