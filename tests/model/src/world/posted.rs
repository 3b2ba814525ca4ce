//! Whether what a handler is told is what the simulated kernel has posted for that very request, in that order, and of
//! the time that it may take. Knows what a completion says, and not what is done with it.

use std::time::Duration;

use rummelplatz::RawCompletion;
use rummelplatz::request::Datagram;

use crate::names::timer_of;
use crate::program::{Kind, Limit};
use crate::world::accounts::Accounts;
use crate::world::log::F_MORE;
use crate::world::pools::Whose;
use crate::world::request::Request;
use crate::world::results::passes;

/// How often in a row a stream must have been told that there are no buffers before it ends by itself.
const HOPELESS: u32 = 4;

/// What a handler is told of a request.
#[derive(Clone, Copy)]
pub(super) struct Told {
    pub(super) id: usize,
    /// Of a stream, unless it is a raw entry.
    pub(super) is_stream: bool,
    pub(super) raw: RawCompletion,
    pub(super) more: bool,
    pub(super) timed_out: bool,
    /// The kernel has posted something of the request that nobody was told of yet.
    pub(super) from_kernel: bool,
    /// By the teardown handler.
    pub(super) teardown: bool,
    /// What it receives into.
    pub(super) whose: Whose,
}

type Judgement = Result<(), String>;

impl Accounts {
    /// Compares what a handler is told with what the simulated kernel has done.
    pub(super) fn compare_with_kernel(&mut self, told: Told, now: Duration) {
        let Told { id, raw, is_stream, .. } = told;
        let is_timed = if is_stream { self.was_idle(told, now) } else { self.is_timed(told) };
        if let Err(why) = is_timed {
            self.wrong(id, raw, &why);
        }
        self.check_messages(told);
        self.count(told);
        if let Err(why) = self.skip_untold(told).and_then(|()| self.compare(told)) {
            self.wrong(id, raw, &why);
        }
    }

    // ---- whether its time is up -----------------------------------------------------------------------

    /// Whether a completion says the right thing of the deadline of its request.
    fn is_timed(&self, Told { id, timed_out, teardown, .. }: Told) -> Judgement {
        let Request { limit, since, name, is_message, .. } = self.requests[id];
        let Some(name) = name.filter(|_| limit != Limit::None && !is_message) else {
            return if timed_out { Err("it has no deadline".to_owned()) } else { Ok(()) };
        };
        if self.requests[id].has_linked_timer() {
            return self.is_timed_by_kernel(limit, name, timed_out);
        }
        let passes = since + limit.time().unwrap_or_default();
        let ended_by = self.kernel.ended_by.get(&name).copied();
        if timed_out && ended_by.is_some_and(|ended_by| ended_by < passes) {
            return Err(format!("its time is said to be up at {passes:?}, but it had ended by {ended_by:?}"));
        }
        // The time that it may take until the ring hears of the alarm, and the kernel of the cancel.
        const AT_MOST: Duration = Duration::from_millis(50);
        let is_late = !teardown && ended_by.is_some_and(|ended_by| ended_by > passes + AT_MOST);
        match is_late && !timed_out {
            true => Err(format!("its time was up at {passes:?}, and it ended at {ended_by:?}")),
            false => Ok(()),
        }
    }

    /// The same, of one that is in a chain.
    fn is_timed_by_kernel(&self, limit: Limit, name: u64, timed_out: bool) -> Judgement {
        let timer = timer_of(name);
        if self.kernel.owned.contains(&timer) {
            return Err("the kernel has its timer".to_owned());
        }
        let ended = self.kernel.timers.get(&timer).copied();
        let is_up =
            ended.is_some_and(|result| [-libc::ETIME, -libc::EALREADY, -libc::ENOENT].contains(&result));
        match (timed_out, is_up) {
            (_, true) if limit == Limit::Long => Err("its timer was not ended".to_owned()),
            (true, false) => {
                Err(format!("its time is said to be up, but its timer has ended with {ended:?}"))
            }
            (false, true) => Err("its time was up".to_owned()),
            _ => Ok(()),
        }
    }

    /// Whether a completion of a stream says the right thing of the time for which that may be idle.
    fn was_idle(&mut self, Told { id, timed_out, more, .. }: Told, now: Duration) -> Judgement {
        let Request { kind, told_at, longest, cancelled, .. } = &mut self.requests[id];
        *longest = (now - *told_at).max(*longest);
        *told_at = now;
        if !timed_out {
            return Ok(());
        }
        // For that reason, the ring has cancelled it.
        *cancelled = true;
        match kind.idle_limit(id) {
            None => Err("it may be idle".to_owned()),
            Some(_) if more => Err("its time is said to be up, but it goes on".to_owned()),
            Some(limit) if *longest < limit => {
                Err(format!("its time is said to be up, but it was never idle for longer than {longest:?}"))
            }
            Some(_) => Ok(()),
        }
    }

    // ---- whether it is its turn, and may end -----------------------------------------------------------

    /// What the ring has made itself by the end of a handler is delivered before the kernel's next completion.
    fn check_messages(&mut self, Told { id, from_kernel, .. }: Told) {
        let is_dropped = |message: usize| self.requests[message].drops > 0;
        if let Some(late) = self.messages.overtaken_by(id, from_kernel, is_dropped) {
            self.violation(format!("#{id} has overtaken message #{late}"));
        }
    }

    /// Counts ticks and `ENOBUFS`, and checks when a stream must end, and when it may.
    fn count(&mut self, Told { id, raw: told, more, from_kernel, teardown, whose, .. }: Told) {
        let result = told.result;
        let now_taken = self.pools.taken(whose);
        let Request { kind, raw, cancelled, counted, starved, taken, is_message, .. } =
            &mut self.requests[id];
        // A limit is reached once, and nothing comes after it.
        let too_often = kind.limit().is_some_and(|limit| {
            let was_reached = *counted >= limit;
            *counted += match kind {
                Kind::ReceiveLimited => result.max(0).unsigned_abs(),
                _ => u32::from(result == -libc::ETIME),
            };
            was_reached || *counted >= limit && more
        });
        let gave_up = !from_kernel && !more && result == -libc::ENOBUFS;
        // A buffer of which pieces are held may be one that the kernel has: it does not come back with them.
        let too_early = gave_up && *starved < HOPELESS && whose != Whose::Piecewise;
        let others_took = std::mem::replace(taken, now_taken) != now_taken;
        *starved = match result == -libc::ENOBUFS {
            true if others_took => 1,
            true => *starved + 1,
            false => 0,
        };
        let uncalled = !from_kernel && result == -libc::ECANCELED && !*cancelled && !teardown;
        let (kind, uncalled) = (*kind, uncalled && !*raw && !*is_message);
        if too_often {
            self.violation(format!("#{id} ({kind:?}) goes on behind its limit"));
        }
        if too_early {
            self.violation(format!("#{id} ({kind:?}) was given up too early"));
        }
        if uncalled {
            self.violation(format!("#{id} ({kind:?}) was cancelled, but by nobody"));
        }
    }

    // ---- whether it was posted -------------------------------------------------------------------------

    /// Removes from what was posted what nobody is told, so that the next one is what is delivered.
    fn skip_untold(&mut self, Told { id, is_stream, more, teardown, .. }: Told) -> Judgement {
        let name = self.requests[id].name;
        let Some(posted) = name.and_then(|name| self.kernel.posted.get_mut(&name)) else { return Ok(()) };
        if !is_stream && posted.len() > 1 {
            // The first one is told, when the last has come.
            let last = posted.len() - 1;
            if posted.iter().enumerate().any(|(index, it)| (it.flags & F_MORE == 0) != (index == last)) {
                return Err(format!("the kernel has posted {posted:?}"));
            }
            posted.truncate(1);
            posted[0].flags &= !F_MORE;
        } else if teardown && !more {
            // Parts of a stream are not told in a teardown.
            while posted.len() > 1 {
                posted.pop_front();
            }
        }
        Ok(())
    }

    /// Compares what a handler is told with what the kernel has posted.
    fn compare(&mut self, told: Told) -> Judgement {
        let name = self.requests[told.id].name;
        match name.and_then(|name| self.kernel.posted.get_mut(&name)?.pop_front()) {
            Some(posted) => self.compare_with(posted, told),
            None if self.may_be_unposted(told) => Ok(()),
            None => Err("the kernel has posted nothing".to_owned()),
        }
    }

    /// Compares what a handler is told with this, which the kernel has posted.
    fn compare_with(&self, posted: RawCompletion, told: Told) -> Judgement {
        let Told { id, raw, more, teardown, .. } = told;
        let Request { kind, counted, .. } = self.requests[id];
        // After the kernel has lost a completion, it is not known where the bytes of others are.
        let is_unknown = kind == Kind::ReceivePieces && raw.result == -libc::EBADR && posted.result > 0;
        let is_same_result = raw.result == posted.result || is_unknown;
        if !is_same_result || raw.flags & !F_MORE != posted.flags & !F_MORE {
            return Err(format!("the kernel has posted {posted:?}"));
        }
        let announced = posted.flags & F_MORE != 0;
        if announced && !more {
            return Err("it ends, but the kernel goes on".to_owned());
        }
        let is_cut = self.is_only_cut(told);
        if more && !announced && !is_cut {
            return Err("it goes on, but the kernel has ended it".to_owned());
        }
        let has_run_out = kind.limit().is_some_and(|limit| counted >= limit);
        if !more && !announced && is_cut && !teardown && !has_run_out {
            return Err("it ends, but was only cut".to_owned());
        }
        Ok(())
    }

    /// Whether a stream goes on after such a completion, although it is the kernel's last. What it carries is told
    /// before its end, even if it was cancelled.
    fn is_only_cut(&self, Told { id, is_stream, raw: RawCompletion { result, .. }, .. }: Told) -> bool {
        let Request { kind, cancelled, .. } = self.requests[id];
        let least = if kind == Kind::ReceiveDatagrams { Datagram::OVERHEAD as i32 } else { 0 };
        let has_begun = match kind {
            Kind::AcceptMulti => result == 0,
            Kind::AcceptMultiDirect => result >= 0,
            _ => false,
        };
        let is_passing = kind.has_pool() && result == -libc::ENOBUFS || kind.is_patient(id) && passes(result);
        is_stream && (result > least || has_begun || result == -libc::ETIME || is_passing && !cancelled)
    }

    /// Whether a handler may be told this though the kernel has posted nothing.
    fn may_be_unposted(&self, Told { id, is_stream, raw, more, teardown, .. }: Told) -> bool {
        let Request { kind, cancelled, is_message, .. } = self.requests[id];
        match raw.result {
            _ if more => false,
            0 if is_message => true,
            // The ring itself ends it.
            result if result == -libc::ECANCELED => cancelled || teardown,
            // Whether it was given up too early is checked elsewhere.
            result if is_stream && kind.has_pool() => {
                result == -libc::ENOBUFS || result == -libc::EBUSY && self.pools.neighbour.is_some()
            }
            _ => false,
        }
    }
}
