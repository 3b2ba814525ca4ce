//! Whether requests are accepted, refused and cancelled as they must be: limits hold exactly, and nothing is refused
//! without a reason, or comes back changed. Here it is noted what the ring owes to whom; whether that comes, is judged
//! elsewhere.

use rummelplatz::{BufferPool, InvalidEntry, SubmitError};

use crate::program::Kind;
use crate::world::accounts::{Accounts, World};
use crate::world::data::{Data, place_of};
use crate::world::pools::{Whose, whose};
use crate::world::request::Request;

/// Where requests are made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Caller {
    /// `setup`, or a handler while the ring runs.
    Handler,
    TeardownHandler,
    /// Between two turns; it is not known whether those are of a teardown.
    Outside,
}

impl World {
    // ---- accepted -------------------------------------------------------------------------------------

    /// This many requests of an operation were accepted, but are not known as such yet.
    pub(crate) fn admitted(&self, second: bool, count: usize) {
        let mut accounts = self.look();
        let (certain, _) = accounts.occupied(second);
        let limit = accounts.program.request_limit.filter(|_| accounts.knows_slots());
        if limit.is_some_and(|limit| certain + count > limit as usize) {
            accounts
                .violation(format!("{count} more were accepted, though {certain} requests had not ended"));
        }
    }

    /// A request was accepted, whose entry has this name.
    pub(crate) fn accepted(&self, id: usize, name: u64) {
        let now = self.now();
        let mut accounts = self.lock();
        if accounts.kernel.owned.contains(&name) {
            accounts.violation(format!("#{id} is named {name:#x}, as a request is that the kernel has"));
        }
        let request = &mut accounts.requests[id];
        (request.accepted, request.told_at, request.name) = (true, now, Some(name));
        accounts.by_name.insert(name, id);
        accounts.kernel.posted.remove(&name);
    }

    /// A request was accepted of whose end nobody is told.
    pub(crate) fn accepted_silently(&self, id: usize) {
        let mut accounts = self.lock();
        let request = &mut accounts.requests[id];
        (request.accepted, request.silent) = (true, true);
        accounts.expected.detached += 1;
    }

    /// A message was accepted, which is delivered when there is nothing else to deliver if it `is_last`.
    pub(crate) fn accepted_message(&self, id: usize, is_last: bool) {
        let mut accounts = self.lock();
        let request = &mut accounts.requests[id];
        (request.accepted, request.is_message, request.is_last) = (true, true, is_last);
        if !is_last {
            accounts.messages.post(id);
        }
    }

    /// Requests were accepted that belong together.
    pub(crate) fn accepted_chain(&self, first: usize, length: usize) {
        self.lock().entries.chain(first, length);
    }

    /// A request was accepted that receives into this pool, or that receives into none.
    pub(crate) fn bound(&self, id: usize, pool: Option<&BufferPool>) {
        let mut accounts = self.lock();
        let whose = whose(pool);
        accounts.requests[id].has_pool = pool.is_some() && whose == Whose::Own;
        if whose == Whose::Theirs && accounts.pools.neighbour_has_one() {
            accounts.violation(format!("#{id} was accepted, though its pool is another ring's"));
        }
    }

    /// A request does not keep the ring running.
    pub(crate) fn is_background(&self, id: usize) {
        self.lock().requests[id].is_background = true;
    }

    /// A request was submitted during the teardown.
    pub(crate) fn is_late(&self, id: usize) {
        self.lock().requests[id].is_late = true;
    }

    // ---- refused --------------------------------------------------------------------------------------

    /// Data comes back because a request was refused, or several that belong together.
    pub(crate) fn refused(&self, ids: &[usize], data: &[Data], error: SubmitError, from: Caller) {
        let mut accounts = self.look();
        for (id, data) in ids.iter().zip(data) {
            if !is_unchanged(*id, data) {
                accounts.violation(format!("#{id} was refused, and came back other than it was"));
            }
        }
        if self.simulation.is_some() && !accounts.may_refuse(ids, error, from) {
            let (first, count) = (ids[0], ids.len());
            accounts.violation(format!("#{first} (of {count}) was refused in vain: {error:?}, {from:?}"));
        }
    }

    /// Data was sent, or comes back.
    pub(crate) fn sent(&self, id: usize, refused: Option<&Data>, from: Caller) {
        let mut accounts = self.lock();
        if refused.is_none() {
            let request = &mut accounts.requests[id];
            (request.accepted, request.is_message, request.is_sent) = (true, true, true);
        }
        let is_right = match from {
            Caller::Handler => refused.is_none(),
            Caller::TeardownHandler => refused.is_some(),
            Caller::Outside => true,
        };
        if !is_right || refused.is_some_and(|data| data.id != id || data.place[8..] != [0; 8]) {
            accounts.violation(format!("#{id} was sent, refused: {}, {from:?}", refused.is_some()));
        }
    }

    // ---- cancelled ------------------------------------------------------------------------------------

    /// A stream was given up: nobody is told the rest of it.
    pub(crate) fn forgotten(&self, id: usize) {
        self.lock().requests[id].silent = true;
    }

    /// Whether a cancel of this request found it.
    pub(crate) fn cancelled(&self, id: usize, found: bool) {
        let mut accounts = self.lock();
        let request = &mut accounts.requests[id];
        request.cancelled |= found;
        let (is_over, is_open) = (request.finals > 0, request.is_open());
        if found && is_over {
            accounts.violation(format!("a cancel of #{id} found something, though it is over"));
        }
        if !found && is_open && !accounts.silenced {
            accounts.violation(format!("a cancel of #{id} found nothing"));
        }
    }

    /// Cancels of all requests of an operation found this many.
    pub(crate) fn cancelled_all(&self, second: bool, found: usize) {
        let mut accounts = self.lock();
        let requests = &mut accounts.requests;
        let silent = requests.iter().filter(|request| request.silent && request.finals == 0).count();
        let mut open = 0;
        let has_key = |it: &&mut Request| it.name.is_some() && it.second == second;
        for request in requests.iter_mut().filter(has_key).filter(|it| it.is_open()) {
            request.cancelled = true;
            open += 1;
        }
        if !accounts.silenced && !(open..=open + silent).contains(&found) {
            accounts.violation(format!("cancels found {found} of {open} requests"));
        }
    }

    /// A handler has the data of this stream of an operation, or of no stream.
    pub(crate) fn lend(&self, lent: Option<(bool, usize)>) {
        self.lock().lent = lent;
    }

    /// Whether the submitter of an operation ought to be able to end the stream whose handler is running.
    pub(crate) fn ended(&self, second: bool, found: bool) {
        let mut accounts = self.lock();
        let lent = accounts.lent.filter(|(of_second, _)| *of_second == second).map(|(_, id)| id);
        // One that was idle may have been ended by the ring before.
        let may_be_ending = lent.is_some_and(|id| accounts.requests[id].kind.idle_limit(id).is_some());
        let is_open = lent.is_some_and(|id| !accounts.requests[id].cancelled);
        if is_open != found && (found || !may_be_ending) {
            accounts.violation(format!("the end of {lent:?} was asked for: {found}"));
        }
        if let Some(id) = lent {
            accounts.requests[id].cancelled = true;
        }
    }
}

/// Whether data that comes back is what it was when it was issued.
fn is_unchanged(id: usize, data: &Data) -> bool {
    let place = place_of(id);
    // The interval of a timer is written there when the entry is made.
    let is_tagged = data.kind.is_on_file() && data.heap.iter().all(|byte| *byte == data.heap[0]);
    let heap_is_whole = data.heap[..] == place || data.kind == Kind::TimeoutMulti || is_tagged;
    let has_files =
        data.closes.is_some() == (data.kind == Kind::Close) && data.file.is_some() == data.kind.is_on_file();
    data.id == id && data.place == place && heap_is_whole && has_files
}

impl Accounts {
    /// Whether there is this reason to refuse these requests, which belong together.
    fn may_refuse(&self, ids: &[usize], error: SubmitError, from: Caller) -> bool {
        let program = &self.program;
        let requests = || ids.iter().map(|id| &self.requests[*id]);
        match error {
            SubmitError::Full => {
                // A stream may wait to be armed again.
                let may_wait = |it: &&Request| !it.taken_in || it.kind.is_stream();
                let accepted = self.requests.iter().filter(|it| it.accepted && it.drops == 0);
                let waiting = accepted.filter(may_wait).count();
                program.backlog_limit.is_some_and(|limit| waiting + ids.len() > limit)
            }
            SubmitError::TooManyRequests => {
                // The requests of a chain may be of both operations, and the last one was refused.
                let second = requests().next_back().is_some_and(|last| last.second);
                let (_, possible) = self.occupied(second);
                let more = requests().filter(|it| it.second == second).count();
                let is_over = |limit: u32| !self.knows_slots() || possible + more > limit as usize;
                program.request_limit.is_some_and(is_over)
            }
            SubmitError::Closed => from != Caller::Handler,
            SubmitError::PoolInUse => self.pools.neighbour_has_one() && requests().any(|it| it.borrows),
            SubmitError::Invalid(InvalidEntry::ChainTooLong) => {
                let timers = requests().filter(|it| it.has_linked_timer()).count();
                ids.len() + timers > program.entries as usize
            }
            _ => false,
        }
    }
}
