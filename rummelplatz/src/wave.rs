//! The order in which many requests are cancelled: that in which the kernel finds each of them soon.
//!
//! The kernel looks for a request in lists. What waits in a poll is in lists of which there are at most 256, and the
//! newest is looked for first (`io_uring/poll.c`): so these requests come last, and the newest of them first. All
//! others come before them, the oldest first: timers and what waits for a worker are in one list each, with the oldest
//! at the front (`timeout.c`, `io-wq.c`). In this order, cancelling takes linear time; in the wrong one, quadratic
//! time.

use std::ops::Range;

use crate::any_slab::AnySlab;
use crate::clock::Stamp;
use crate::facts::{Facts, Flags};
use crate::request::sqe;
use crate::user_data::UserData;

/// How many requests are cancelled at a time, so that what their cancels are about is still in the caches when it
/// ends. Of these, the oldest comes first in any case: of a chain of hard links, a cancel finds only the first.
pub(crate) const PART: usize = 128;

/// Whether the kernel keeps the request in its table of polls while it waits.
fn waits_in_poll(facts: &Facts) -> bool {
    sqe::is_polled(facts.opcode) && !facts.flags.intersects(Flags::IN_WORKER)
}

/// A request that may be cancelled.
#[derive(Clone, Copy)]
pub(crate) struct Candidate {
    pub(crate) user_data: u64,
    waits_in_poll: bool,
    born: Stamp,
}

impl Candidate {
    pub(crate) fn new(user_data: u64, facts: &Facts) -> Candidate {
        Candidate { user_data, waits_in_poll: waits_in_poll(facts), born: facts.born }
    }

    /// The older, the less, as far as stamps can tell. Of the same age is the lower slot the older: slots are taken in
    /// the order of their numbers at first.
    fn age(&self) -> (Stamp, u32) {
        (self.born, UserData::slot(self.user_data))
    }
}

/// Puts requests into the order of this module.
pub(crate) fn arrange(candidates: &mut [Candidate]) {
    candidates.sort_unstable_by(|one, other| {
        one.waits_in_poll.cmp(&other.waits_in_poll).then_with(|| match one.waits_in_poll {
            true => other.age().cmp(&one.age()),
            false => one.age().cmp(&other.age()),
        })
    });
    for part in candidates.chunks_mut(PART) {
        part.sort_unstable_by_key(Candidate::age);
    }
}

/// The slabs of a ring, by their tags.
type Look<'l, 's> = &'l dyn Fn(u8) -> Option<&'s dyn AnySlab>;

/// Goes over all requests of a ring, in parts.
///
/// Nothing is allocated if their slots are in the right order already, as in a ring that has used none of them twice.
pub(crate) struct Wave {
    operations: &'static [(u8, &'static str)],
    order: Order,
}

enum Order {
    BySlot(Slots),
    /// All of them, in order, and how many of them there were already.
    ByAge(usize, Vec<Candidate>),
}

impl Wave {
    /// With this many requests, the order hardly matters.
    const FEW: usize = 2 * PART;

    pub(crate) fn new(operations: &'static [(u8, &'static str)], look: Look<'_, '_>) -> Wave {
        let mut candidates = Vec::new();
        let order = match Self::needs_order(operations, look) {
            Some(count) if candidates.try_reserve_exact(count).is_ok() => {
                visit_all(operations, look, &mut |user_data, facts| {
                    candidates.push(Candidate::new(user_data, facts))
                });
                arrange(&mut candidates);
                Order::ByAge(0, candidates)
            }
            _ => Order::BySlot(Slots::pass(operations, false)),
        };
        Wave { operations, order }
    }

    /// If the order of slots is not that of ages, returns how many requests there are.
    fn needs_order(operations: &[(u8, &str)], look: Look<'_, '_>) -> Option<usize> {
        let (mut count, mut last, mut in_order) = (0, [Stamp::ZERO; 2], true);
        visit_all(operations, look, &mut |user_data, facts| {
            let Candidate { waits_in_poll, born, .. } = Candidate::new(user_data, facts);
            let last = &mut last[usize::from(waits_in_poll)];
            in_order &= *last <= born;
            *last = born;
            count += 1;
        });
        (count > Self::FEW && !in_order).then_some(count)
    }

    /// Calls `visit` with the `user_data` and facts of the next requests, at most `most`. Returns whether there may
    /// be more.
    pub(crate) fn part(
        &mut self,
        look: Look<'_, '_>,
        most: usize,
        visit: &mut dyn FnMut(u64, &Facts),
    ) -> bool {
        match &mut self.order {
            Order::BySlot(slots) => {
                let Some((slab, range, is_for_polls)) = slots.next(self.operations, look, most) else {
                    return false;
                };
                for (user_data, facts) in range.filter_map(|slot| slab.request_in(slot)) {
                    if waits_in_poll(&facts) == is_for_polls {
                        visit(user_data, &facts);
                    }
                }
            }
            Order::ByAge(done, candidates) => {
                let part = candidates[*done..].iter().take(most);
                for Candidate { user_data, .. } in part {
                    *done += 1;
                    let slab = look(UserData::tag(*user_data));
                    let present = slab.and_then(|slab| slab.request_in(UserData::slot(*user_data)));
                    // It may have ended since, and there may be another request in its slot.
                    if let Some((present, facts)) = present
                        && present == *user_data
                    {
                        visit(present, &facts);
                    }
                }
                return *done < candidates.len();
            }
        }
        true
    }
}

/// Calls `visit` with the `user_data` and facts of each request.
pub(crate) fn visit_all(operations: &[(u8, &str)], look: Look<'_, '_>, visit: &mut dyn FnMut(u64, &Facts)) {
    for slab in operations.iter().filter_map(|(tag, _)| look(*tag)) {
        slab.visit(visit);
    }
}

/// Passes twice over all slots: from the first to the last, and then backwards, for requests that wait in a poll.
struct Slots {
    is_second: bool,
    /// How many operations are left in this pass, including the present one.
    operations: usize,
    /// Of the present operation: the slot that comes next or, backwards, the one that came last. `None` at its
    /// beginning.
    slot: Option<u32>,
}

impl Slots {
    fn pass(operations: &[(u8, &str)], is_second: bool) -> Slots {
        Slots { is_second, operations: operations.len(), slot: None }
    }

    /// The next slots, at most `most` of them, the slab that has them, and whether this is the second pass.
    fn next<'s>(
        &mut self,
        operations: &[(u8, &str)],
        look: Look<'_, 's>,
        most: usize,
    ) -> Option<(&'s dyn AnySlab, Range<u32>, bool)> {
        let most = u32::try_from(most).unwrap_or(u32::MAX);
        loop {
            let Some(others) = self.operations.checked_sub(1) else {
                if self.is_second {
                    return None;
                }
                *self = Slots::pass(operations, true);
                continue;
            };
            let index = if self.is_second { others } else { operations.len() - self.operations };
            let slab = look(operations[index].0);
            let all = slab.map_or(0, AnySlab::slots);
            let slots = match self.is_second {
                true => {
                    let end = self.slot.unwrap_or(all);
                    end.saturating_sub(most)..end
                }
                false => {
                    let start = self.slot.unwrap_or(0);
                    start..start.saturating_add(most).min(all)
                }
            };
            if let Some(slab) = slab
                && !slots.is_empty()
            {
                self.slot = Some(if self.is_second { slots.start } else { slots.end });
                return Some((slab, slots, self.is_second));
            }
            (self.operations, self.slot) = (others, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use io_uring::opcode;

    use super::*;
    use crate::request::{Record, Slab};
    use crate::slab::Remember;

    const OPERATIONS: &[(u8, &str)] = &[(1, "first"), (2, "second")];

    /// A slab whose requests were submitted at these times, and whether they wait in a poll.
    fn filled(tag: u8, requests: impl Iterator<Item = (u32, bool)>) -> Slab<()> {
        let mut slab = Slab::new(tag);
        slab.set_limit(u32::MAX);
        for (born, waits) in requests {
            let (born, _) = Stamp::apart(u64::from(born) << 16);
            let opcode = if waits { opcode::PollAdd::CODE } else { opcode::Timeout::CODE };
            slab.reserve().unwrap();
            slab.insert_with((), |()| {
                (Remember::All(Record { facts: Facts { born, ..Facts::new(opcode) }, arm: None }), ())
            });
        }
        slab
    }

    /// What a wave goes over, in parts of this size: times, and whether they wait in a poll. After the first part, the
    /// requests in slot 0 end.
    fn gone_over(mut slabs: [Slab<()>; 2], most: usize) -> (bool, Vec<Vec<(u32, bool)>>) {
        let (mut wave, mut parts, mut is_over) = (None, Vec::new(), false);
        while !is_over {
            let look = |tag| slabs.iter().find(|slab| slab.tag() == tag).map(|slab| slab as &dyn AnySlab);
            let wave = wave.get_or_insert_with(|| Wave::new(OPERATIONS, &look));
            let mut part = Vec::new();
            is_over = !wave.part(&look, most, &mut |_, facts| {
                part.push(((facts.born.with(0) >> 16) as u32, waits_in_poll(facts)))
            });
            parts.push(part);
            for slab in &mut slabs {
                if let Some((user_data, _)) = slab.request_in(0) {
                    slab.withdraw(user_data);
                }
            }
        }
        for slab in &mut slabs {
            for (user_data, _) in
                (0..slab.slots()).filter_map(|slot| slab.request_in(slot)).collect::<Vec<_>>()
            {
                slab.withdraw(user_data);
            }
        }
        (wave.is_some_and(|wave| matches!(wave.order, Order::ByAge(..))), parts)
    }

    #[test]
    fn slots_that_are_in_order_are_gone_over_as_they_are() {
        let slabs = || {
            [(1, 0..200), (2, 200..400)]
                .map(|(tag, born)| filled(tag, born.map(|born| (born, born % 2 == 0))))
        };
        let (is_by_age, parts) = gone_over(slabs(), PART);
        assert!(!is_by_age);
        let all = parts.concat();
        let timers: Vec<_> = (0..400).filter(|born| born % 2 == 1).map(|born| (born, false)).collect();
        assert_eq!(all[..200], timers);
        let oldest = parts.iter().filter_map(|part| part.iter().filter(|(_, waits)| *waits).min());
        assert!(oldest.is_sorted_by(|one, next| one > next), "the newest part first");
        // The first has ended by then: it was the oldest.
        assert_eq!(all.len(), 200 + 198);
    }

    #[test]
    fn other_slots_are_gone_over_by_the_age_of_their_requests() {
        let mixed = |from: u32| (0..200).map(move |number| (from + 3 * (number * 77 % 200), number % 2 == 0));
        let (is_by_age, parts) = gone_over([filled(1, mixed(0)), filled(2, mixed(1))], 50);
        assert!(is_by_age);
        let timers: Vec<_> = parts.iter().flatten().filter(|(_, waits)| !waits).collect();
        assert!(timers.len() == 200 && timers.is_sorted());
        let last = parts.concat().iter().rposition(|(_, waits)| !waits);
        let first = parts.concat().iter().position(|(_, waits)| *waits);
        assert!(last.is_some_and(|last| last < 200 + PART), "{last:?}: the timers come first");
        assert!(first.is_some_and(|first| first > 200 - PART), "{first:?}");
        let polls =
            parts.concat().into_iter().filter(|(_, waits)| *waits).map(|(born, _)| born).collect::<Vec<_>>();
        assert_eq!(polls.len(), 198, "the first slots were left meanwhile");
        let (newer, older) = polls.split_at(2 * PART - 200);
        assert!(newer.iter().min() > older.iter().max(), "the newest come first");
    }

    #[test]
    fn a_few_need_no_order() {
        let backwards = (0..Wave::FEW as u32).rev().map(|born| (born, false));
        let (is_by_age, parts) = gone_over([filled(1, backwards), filled(2, std::iter::empty())], PART);
        assert!(!is_by_age);
        assert_eq!(parts.concat().len(), Wave::FEW);
    }

    #[test]
    fn of_each_part_the_oldest_comes_first() {
        let polls = (0..2 * PART as u64).map(|slot| {
            let user_data = UserData::pack(1, 0, slot as u32);
            Candidate::new(user_data, &Facts::new(opcode::PollAdd::CODE))
        });
        let mut candidates: Vec<_> = polls.collect();
        arrange(&mut candidates);
        let slots: Vec<_> =
            candidates.iter().map(|candidate| UserData::slot(candidate.user_data) as usize).collect();
        assert!(slots.iter().copied().eq((PART..2 * PART).chain(0..PART)), "{slots:?}");
    }
}
