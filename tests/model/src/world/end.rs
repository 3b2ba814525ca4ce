//! Whether a run ends for a reason and says why, and whether anything is left over after the last one. Everything that is
//! known is judged here for the last time.

use rummelplatz::Stuck;

use crate::world::accounts::{Accounts, World};
use crate::world::request::Request;

impl World {
    // ---- of a run -------------------------------------------------------------------------------------

    /// A run begins.
    pub(crate) fn begins(&self) {
        let ran_at = self.now();
        let mut accounts = self.lock();
        (accounts.ending.is_due, accounts.ending.ran_at) = (false, ran_at);
    }

    /// There is a reason for the run to end.
    pub(crate) fn may_end(&self) {
        self.lock().ending.is_due = true;
    }

    /// A handler fails: returns with what.
    pub(crate) fn fails(&self, is_first: bool, in_teardown: bool) -> u32 {
        let ending = &mut self.lock().ending;
        ending.is_due = true;
        ending.failures += 1;
        let name = if is_first { "first" } else { "second" };
        let text = format!("operation `{name}`: failure {}", ending.failures);
        match in_teardown {
            true => ending.teardown.push(text),
            false => ending.cause = Some(text),
        }
        ending.failures
    }

    /// A run has panicked, and reports nothing else.
    pub(crate) fn forget_result(&self) {
        let ending = &mut self.lock().ending;
        ending.cause = None;
        ending.teardown.clear();
    }

    /// A run has ended like this: the kind of its error, what the error says, and the errors of teardown handlers
    /// beside it.
    pub(crate) fn check_result(&self, is_cause: bool, first: Option<String>, others: Vec<String>) {
        let mut accounts = self.lock();
        let cause = accounts.ending.cause.take();
        let teardown = std::mem::take(&mut accounts.ending.teardown);
        let told = match is_cause {
            true => (first, others),
            false => (None, first.into_iter().chain(others).collect()),
        };
        let expected = (cause, teardown);
        if told != expected {
            accounts.violation(format!("the run is to say {expected:?}, and says {told:?}"));
        }
    }

    /// How often a request went on although it was to end: the maximum over all requests.
    pub(crate) fn most_insisted(&self) -> u64 {
        self.lock().requests.iter().map(|request| request.insisted).max().unwrap_or_default()
    }

    /// How many requests were accepted.
    pub(crate) fn accepted_requests(&self) -> usize {
        self.lock().requests.iter().filter(|request| request.accepted).count()
    }

    // ---- of the ring ----------------------------------------------------------------------------------

    /// How much data was never dropped.
    pub(crate) fn missing(&self) -> usize {
        self.lock().missing()
    }

    /// Everything that was abandoned is named: requests whose data was never dropped, and streams that no longer have
    /// data.
    pub(crate) fn check_stuck(&self, stuck: &Stuck) {
        let mut accounts = self.lock();
        let mut named: Vec<_> = stuck.requests.iter().map(|it| (it.operation, it.opcode_name())).collect();
        let missing = |it: &&Request| it.drops == 0 && it.accepted;
        let mut wrong = Vec::new();
        for request in accounts.requests.iter().filter(missing) {
            let name = if request.second { "second" } else { "first" };
            let is = |it: &(&str, &str)| *it == (name, request.kind.opcode_name());
            match named.iter().position(is) {
                Some(index) => drop(named.swap_remove(index)),
                None => wrong.push(request.kind),
            }
        }
        if !wrong.is_empty() {
            accounts.violation(format!("{wrong:?} are stuck, but not in {stuck:?}"));
        }
    }

    /// After the ring is gone: `leaked` is how many requests were abandoned, if the ring was not able to end all.
    /// Returns everything that was ever wrong.
    pub(crate) fn check_end(&self, leaked: Option<usize>) -> Vec<String> {
        self.check_held(leaked.is_none());
        let mut locked = self.lock();
        let accounts = &mut *locked;
        accounts.check_all_ended(leaked.is_none());
        match leaked {
            Some(leaked) => accounts.check_leaked(leaked),
            None => {
                if !accounts.kernel.owned.is_empty() {
                    let names = format!("{:x?}", accounts.kernel.owned);
                    accounts.violation(format!("the kernel still has {names}"));
                }
                accounts.pools.check_end(&mut accounts.violations);
                accounts.descriptors.check_end(&mut accounts.violations);
            }
        }
        std::mem::take(&mut accounts.violations)
    }

    /// Gives back what handlers and the other ring held; if nothing was leaked, nobody has it now.
    fn check_held(&self, is_all: bool) {
        let mut locked = self.look();
        let accounts = &mut *locked;
        let kept = accounts.pools.take_kept(&mut accounts.violations);
        let neighbour = accounts.pools.neighbour.take();
        let (connections, files) = accounts.files.end();
        // Not under the lock.
        drop(locked);
        drop(kept);
        drop(files);
        for connection in connections {
            if is_all {
                connection.check_end();
            }
            connection.wrong().into_iter().for_each(|what| self.violation(what));
        }
        if is_all && neighbour.as_ref().is_some_and(|it| it.pool.available() != it.pool.capacity()) {
            self.violation("a buffer of the neighbour's is lost".to_owned());
        }
        drop(neighbour);
        if is_all && self.registered.available() != self.registered.capacity() {
            self.violation("a registered buffer is lost".to_owned());
        }
    }
}

impl Accounts {
    fn missing(&self) -> usize {
        self.requests.iter().filter(|request| request.drops == 0).count()
    }

    /// Each request has ended once, and its data was dropped once; or never, if not `all` have ended.
    fn check_all_ended(&mut self, all: bool) {
        for (id, request) in self.requests.iter().enumerate() {
            let Request { kind, accepted, silent, is_sent, finals, drops, .. } = request;
            if *drops != 1 && (all || *drops > 1) {
                self.violations.push(format!("#{id} ({kind:?}) was dropped {drops} times"));
            }
            // Whether sent data may be dropped was checked when it was dropped.
            let is_over = *finals == 1 || *is_sent && *finals == 0;
            if *accepted && !is_over && !silent && !self.silenced && all {
                self.violations.push(format!("#{id} ({kind:?}) has ended {finals} times"));
            }
        }
    }

    /// This many requests were said to be abandoned.
    fn check_leaked(&mut self, leaked: usize) {
        let missing = self.missing();
        // A stream that was given up, or whose handler panicked, no longer has data.
        let gone = |it: &&Request| it.kind.is_stream() && it.finals == 0 && it.drops == 1;
        let given_up = self.requests.iter().filter(gone).count();
        if !(missing..=missing + given_up).contains(&leaked) {
            self.violation(format!("{leaked} requests were said to be abandoned, and {missing} were"));
        }
    }
}
