//! Whether the figures that a ring gives of itself are those of the accounts. Knows when each of them is certain, and
//! when only its limits are.

use rummelplatz::Stats;

use crate::world::accounts::{Accounts, Expected, World};
use crate::world::request::Request;

impl World {
    /// A handler has returned data for a request that is over.
    pub(crate) fn returned_late(&self) {
        self.lock().expected.returned_late += 1;
    }

    /// A handler warns.
    pub(crate) fn warned(&self) {
        self.lock().expected.warnings += 1;
    }

    /// Compares the figures of the ring with the accounts, between two calls of it.
    pub(crate) fn check_figures(&self, stats: &Stats) {
        let mut accounts = self.look();
        let mut wrong = Vec::new();
        accounts.check_counters(stats, self.simulation.is_some(), &mut wrong);
        accounts.check_requests(stats, &mut wrong);
        for what in wrong {
            accounts.violation(format!("{what}, but {stats:?}"));
        }
    }
}

impl Accounts {
    /// What is counted up only.
    fn check_counters(&self, stats: &Stats, is_simulated: bool, wrong: &mut Vec<String>) {
        let Expected { warnings, returned_late, strangers, strangers_seen, detached, detached_well, .. } =
            self.expected;
        if (stats.warnings, stats.returned_late) != (warnings, returned_late) {
            wrong.push(format!("{warnings} warnings and {returned_late} late returns"));
        }
        let is_on_its_way = |it: &&Request| it.is_sent && it.finals == 0 && it.drops == 0;
        let on_their_way = self.requests.iter().filter(is_on_its_way).count();
        // Other requests may keep it waiting.
        let may_wait = self.program.request_limit.is_some() && stats.in_flight > 0;
        if stats.undelivered > if may_wait { on_their_way as u64 } else { 0 } && self.knows_slots() {
            wrong.push(format!("{on_their_way} were sent and not delivered"));
        }
        if !(strangers_seen..=strangers).contains(&stats.foreign) {
            wrong.push(format!("{strangers_seen} to {strangers} strangers"));
        }
        let failed = detached - detached_well;
        // Only for the simulated kernel is it known how a request has ended that nobody is told of.
        let is_over = stats.in_flight == 0 && !self.silenced && is_simulated;
        if stats.detached_failed > failed || is_over && stats.detached_failed != failed {
            wrong.push(format!("{failed} failed unnoticed"));
        }
    }

    /// How many requests there are now.
    fn check_requests(&self, stats: &Stats, wrong: &mut Vec<String>) {
        if stats.operations().iter().map(|operation| operation.in_flight).sum::<usize>() != stats.in_flight {
            wrong.push("the operations have others in flight".to_owned());
        }
        // Streams that are armed again were accepted once and for all.
        let streams = self.requests.iter().filter(|it| it.accepted && it.drops == 0 && it.kind.is_stream());
        let again = streams.count();
        if self.program.backlog_limit.is_some_and(|limit| stats.backlog > limit + again) {
            wrong.push("more wait than may".to_owned());
        }
        let [(first, most_of_first), (second, most_of_second)] =
            [false, true].map(|second| self.occupied(second));
        let (open, at_most) = (first + second, most_of_first + most_of_second);
        if !self.silenced && !(open..=at_most).contains(&stats.in_flight) {
            wrong.push(format!("{open} to {at_most} requests have not ended"));
        }
    }
}
