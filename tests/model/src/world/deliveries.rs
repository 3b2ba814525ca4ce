//! Whether each call of a handler is one that may be: of a request that was accepted and is not over, with its own data
//! and with a result that a kernel can give. Under the simulated kernel, what it says is compared with what was posted,
//! too. What handlers then do with it, others note.

use std::time::Duration;

use rummelplatz::{Completion, RawCompletion};

use crate::program::Kind;
use crate::world::accounts::{Accounts, World};
use crate::world::data::Data;
use crate::world::messages::Way;
use crate::world::pools::whose;
use crate::world::posted::Told;
use crate::world::request::Request;
use crate::world::results::is_possible;

impl World {
    /// A handler is called.
    pub(crate) fn delivered(&self, data: &Data, completion: &Completion, teardown: bool) {
        let now = self.now();
        let is_simulated = self.simulation.is_some();
        let mut accounts = self.look();
        let (id, raw, more) = (data.id, completion.raw(), completion.more());
        let Request { kind, raw: is_raw, name, .. } = accounts.requests[id];
        let is_stream = kind.is_stream() && !is_raw;
        accounts.check_files(now, false);
        accounts.check_phase(id, teardown, now, is_simulated);
        accounts.check_call(id, completion, teardown);
        if !may_end_so(kind, data, raw.result, more) {
            accounts.wrong(id, raw, "no kernel ends it so");
        }
        if kind == Kind::ReceiveOnFile
            && raw.result > 0
            && let Some(held) = &data.file
        {
            held.connection.received(&data.heap[..raw.result as usize]);
        }
        // The real kernel writes whatever it has, and what it has posted is not known.
        if is_simulated {
            accounts.check_memory(data, raw);
            let (timed_out, whose) = (completion.timed_out(), whose(data.pool.as_ref()));
            let from_kernel = accounts.is_from_kernel(id, &raw, more, teardown || timed_out);
            let told = Told { id, is_stream, raw, more, timed_out, from_kernel, teardown, whose };
            accounts.compare_with_kernel(told, now);
        }
        accounts.check_way(id);
        if !more {
            accounts.requests[id].finals += 1;
            if let Some(before) = name.and_then(|name| accounts.expected.strangers_before.get(&name)) {
                accounts.expected.strangers_seen = accounts.expected.strangers_seen.max(*before);
            }
        }
    }
}

/// Whether a kernel may end or continue a request of this kind so, on what its data has.
fn may_end_so(kind: Kind, data: &Data, result: i32, more: bool) -> bool {
    // Its pool is another ring's.
    if kind.has_pool() && result == -libc::EBUSY && !more {
        return true;
    }
    let is_missing = result == -libc::EBADF;
    // What was in the table of an earlier run is nowhere now.
    match data.file.as_ref().map_or(Some(false), |held| held.connection.is_void()) {
        // The simulated kernel resets whatever it is to send on, without looking whether there is something.
        Some(true) => {
            let others = [libc::ECANCELED, libc::EINTR, 512, libc::ECONNRESET];
            is_missing || others.contains(&-result)
        }
        Some(false) => is_possible(kind, result),
        None => is_missing || is_possible(kind, result),
    }
}

impl Accounts {
    /// A teardown needs a reason.
    fn check_phase(&mut self, id: usize, teardown: bool, now: Duration, is_simulated: bool) {
        if !teardown {
            self.ending.ran_at = now;
            return;
        }
        self.ending.is_due |= !self.requests.iter().any(|it| self.keeps_running(it));
        if !self.ending.is_due && !self.may_leak() && is_simulated {
            self.violation(format!("#{id} ends in a teardown, for which there is no reason"));
        }
    }

    /// Whether there may be such a call at all, whatever the kernel.
    fn check_call(&mut self, id: usize, completion: &Completion, teardown: bool) {
        let (raw, more, message) = (completion.raw(), completion.more(), completion.is_message());
        let Request { kind, raw: is_raw, accepted, finals, is_message, silent, .. } = self.requests[id];
        let mut check = |is_wrong: bool, what: &str| {
            if is_wrong {
                self.wrong(id, raw, what);
            }
        };
        check(!accepted, "delivered, but it was refused");
        check(finals > 0, "delivered after its end");
        check(silent, "delivered, though nobody was to be told");
        check(message != is_message, "a message is no completion");
        check(more && teardown, "a stream does not go on in a teardown");
        check(message && (raw.result, raw.flags) != (0, 0), "a message has no result");
        check(more && (is_raw || !kind.is_stream()), "more is announced, but it is no stream");
    }

    /// Whether the memory of a request is still its own, with what the simulated kernel has written.
    fn check_memory(&mut self, data: &Data, raw: RawCompletion) {
        let Request { kind, raw: is_raw, written, .. } = self.requests[data.id];
        let in_place = kind != Kind::ReadFixed && (!is_raw || kind.is_stream());
        let place = if in_place { &data.place } else { &*data.heap };
        let number = |bytes: &[u8]| u64::from_ne_bytes(bytes.try_into().unwrap_or_default());
        if number(&place[..8]) != data.id as u64 {
            self.wrong(data.id, raw, "its memory is that of another request");
        }
        if number(&place[8..]) != written {
            self.wrong(data.id, raw, "what the kernel has written is not there");
        }
    }

    /// Messages on the same way do not overtake each other.
    fn check_way(&mut self, id: usize) {
        let way = match self.requests[id] {
            Request { is_message: false, .. } => return,
            Request { is_last: true, .. } => Way::Last,
            Request { is_sent: false, .. } => Way::Posted,
            Request { second, .. } => Way::Sent { second },
        };
        if self.messages.deliver(id, way) {
            self.violation(format!("message #{id} was overtaken"));
        }
    }
}
