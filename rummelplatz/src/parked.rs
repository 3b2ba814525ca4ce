//! Streams that wait for a buffer of their pool to come back. Those of each pool go on in the order in which they have
//! begun to wait.

use std::collections::{BTreeMap, VecDeque};

/// See the [module documentation](self).
#[derive(Default)]
pub(crate) struct Parked {
    /// By the group of their pool.
    streams: BTreeMap<u16, VecDeque<u64>>,
    /// Some may be able to go on, although nothing that the loop waits for will tell.
    may_go_on: bool,
}

impl Parked {
    /// How many pools are waited for.
    #[inline(always)]
    pub(crate) fn pools(&self) -> usize {
        self.streams.len()
    }

    /// Whether some may be able to go on, although nothing that the loop waits for will tell.
    #[inline(always)]
    pub(crate) fn may_go_on(&self) -> bool {
        self.may_go_on
    }

    /// Lets a stream wait for a buffer of its pool, behind those that wait already.
    pub(crate) fn add(&mut self, user_data: u64, group: u16) {
        self.streams.entry(group).or_default().push_back(user_data);
    }

    /// Resumes as many streams as there are buffers for in each pool of this `ring`. `buffers` says how many there are,
    /// and `arm` resumes one stream, and returns whether it did. If streams are left although there were buffers, the
    /// ring must look again without waiting, because those that were resumed may not take any.
    pub(crate) fn resume<Ring>(
        &mut self,
        ring: &mut Ring,
        buffers: impl Fn(&Ring, u16) -> usize,
        mut arm: impl FnMut(&mut Ring, u64) -> bool,
    ) {
        self.may_go_on = false;
        for (group, streams) in &mut self.streams {
            let mut buffers = buffers(ring, *group);
            let had_some = buffers > 0;
            while buffers > 0
                && let Some(user_data) = streams.pop_front()
            {
                buffers -= usize::from(arm(ring, user_data));
            }
            self.may_go_on |= had_some && !streams.is_empty();
        }
        self.streams.retain(|_, streams| !streams.is_empty());
    }

    /// Forgets the streams: none will go on.
    pub(crate) fn forget(&mut self) {
        *self = Parked::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Resumes streams with this many buffers in each pool; those with an odd name are over. Returns for which `arm`
    /// was called.
    fn resume(parked: &mut Parked, buffers: usize) -> Vec<u64> {
        let mut asked = Vec::new();
        parked.resume(
            &mut asked,
            |_, _| buffers,
            |asked, user_data| {
                asked.push(user_data);
                user_data % 2 == 0
            },
        );
        asked
    }

    #[test]
    fn as_many_go_on_as_there_are_buffers_in_each_pool() {
        let mut parked = Parked::default();
        for (user_data, group) in [(10, 1), (20, 2), (12, 1), (14, 1)] {
            parked.add(user_data, group);
        }
        assert_eq!((resume(&mut parked, 0), parked.may_go_on()), (Vec::new(), false), "a buffer will tell");
        assert_eq!((resume(&mut parked, 2), parked.may_go_on()), (vec![10, 12, 20], true));
        assert_eq!(parked.pools(), 1);
        assert_eq!((resume(&mut parked, 2), parked.may_go_on(), parked.pools()), (vec![14], false, 0));
    }

    #[test]
    fn what_is_over_takes_no_buffer() {
        let mut parked = Parked::default();
        [11, 13, 10, 12].into_iter().for_each(|user_data| parked.add(user_data, 1));
        assert_eq!((resume(&mut parked, 1), parked.may_go_on()), (vec![11, 13, 10], true));
        parked.forget();
        assert_eq!((parked.pools(), parked.may_go_on()), (0, false));
    }
}
