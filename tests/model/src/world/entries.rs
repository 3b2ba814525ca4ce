//! In which order the kernel takes entries in: none overtakes another, and nothing comes between the parts of a chain or
//! between a request and its timer. Knows requests by their numbers only; whether they end, it does not ask.

use rummelplatz::sim::Asked;

/// See the [module documentation](self).
#[derive(Default)]
pub(super) struct Entries {
    /// Entries that the kernel has been shown but has not taken in.
    shown: u32,
    /// The request that was taken in last.
    last: Option<usize>,
    /// The timer that must be taken in next.
    next_timer: Option<u64>,
    chains: Vec<Chain>,
}

/// Requests that belong together.
struct Chain {
    first: usize,
    length: usize,
    /// How many of them were taken in.
    taken: usize,
}

impl Chain {
    /// Whether only a part of it was taken in.
    fn is_torn(&self) -> bool {
        (1..self.length).contains(&self.taken)
    }
}

impl Entries {
    /// A chain was accepted.
    pub(super) fn chain(&mut self, first: usize, length: usize) {
        self.chains.push(Chain { first, length, taken: 0 });
    }

    /// The kernel was entered, and shown this many entries.
    pub(super) fn show(&mut self, shown: u32, wrong: &mut Vec<String>) {
        // Whatever the kernel leaves in the queue is its own decision.
        let all_taken = std::mem::replace(&mut self.shown, shown) == 0;
        if all_taken && let Some(torn) = self.chains.iter_mut().find(|chain| chain.is_torn()) {
            torn.taken = torn.length;
            wrong.push(format!("the chain of #{} was torn apart", torn.first));
        }
        if all_taken && let Some(timer) = self.next_timer.take() {
            wrong.push(format!("the timer {timer:#x} comes too late"));
        }
    }

    /// The kernel has taken in an entry. Returns false if it was shown none.
    pub(super) fn take(&mut self, asked: &Asked, wrong: &mut Vec<String>) -> bool {
        if self.shown == 0 {
            wrong.push("more was taken in than was shown".to_owned());
            return false;
        }
        self.shown -= 1;
        if let Some(timer) = self.next_timer.take()
            && timer != asked.user_data
        {
            wrong.push(format!("{asked:?} comes before the timer {timer:#x}"));
        }
        true
    }

    /// That was the first entry of this request, behind which its timer must come, if it has one.
    pub(super) fn begin(&mut self, id: usize, timer: Option<u64>, wrong: &mut Vec<String>) {
        if let Some(last) = self.last.replace(id)
            && last > id
        {
            wrong.push(format!("#{id} was overtaken by #{last}"));
        }
        self.next_timer = timer;
        let mut torn = false;
        for chain in &mut self.chains {
            if (chain.first..chain.first + chain.length).contains(&id) {
                torn |= id != chain.first + chain.taken;
                chain.taken += 1;
            } else {
                torn |= chain.is_torn();
            }
        }
        if torn {
            wrong.push(format!("a chain was torn apart at #{id}"));
        }
    }
}
