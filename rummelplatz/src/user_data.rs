//! The 64 bits that travel through the kernel with each request.
//!
//! ```text
//!  63                 40 39                        8 7       0
//! [     generation      |           slot            |   tag   ]
//! ```
//!
//! * **tag** names the operation. Tag 0 is the kernel's and the ring's own traffic: a plain `user_data(0)` is
//!   ignored; [`Control`] says what the others are. `#[ring]` gives out 1 to 250. One of the remaining tags
//!   is that of the [cancels](UserData::of_cancel) of requests.
//! * **slot** is the index in the slab of that operation. If its highest bit is set, not the request in that
//!   slot is meant, but the [timer](UserData::of_timer) that is linked to it.
//! * **generation** is counted up whenever the slot is used again. It lies on top, so that the carry of a
//!   count that wraps falls off the end, where one instruction sees it.
//!
//! # Why 24 bits are enough here, and not in a `Key`
//!
//! The generation in `user_data` has one job: to tell a completion of the present request from a stray one.
//! The kernel posts one final completion per request, and the slot is freed by it. There is one exception: a
//! zero-copy send that its chain has ended before it began has a notification after its end. That one is of
//! an earlier generation, by one or a few, because it is posted next. All other strays are messages from
//! another ring, with an invented number. So a counter that wraps is no danger: an equal value needs 2²⁴
//! requests through one slot *and* a forged message.
//!
//! A [`Key`](crate::Key), on the other hand, may be kept by the user for ever, and a hot slot turns over 2²⁴
//! times within seconds. So a key also compares how often the slot's generation has wrapped: 32 bits more,
//! which is enough for twenty years at a hundred million requests a second through one slot.

/// Names the layout; the packed value itself stays a `u64`, as the kernel knows it.
pub(crate) enum UserData {}

impl UserData {
    /// The highest tag that `#[ring]` gives out.
    pub(crate) const LAST_OPERATION: u8 = 250;

    const GENERATION_SHIFT: u32 = 40;
    const SLOT_SHIFT: u32 = 8;

    /// Packs the low 24 bits of a generation with a tag and a slot.
    #[inline]
    pub(crate) const fn pack(tag: u8, generation: u32, slot: u32) -> u64 {
        (generation as u64) << Self::GENERATION_SHIFT | (slot as u64) << Self::SLOT_SHIFT | tag as u64
    }

    /// The generation of a packed value.
    pub(crate) const fn generation(bits: u64) -> u64 {
        bits >> Self::GENERATION_SHIFT
    }

    /// From one generation to the next.
    pub(crate) const STEP: u64 = 1 << Self::GENERATION_SHIFT;

    /// The same tag and slot with the next generation, [`STEP`](Self::STEP) further on, and whether that has
    /// wrapped.
    #[inline(always)]
    pub(crate) fn step(bits: u64, step: u64) -> (u64, bool) {
        if crate::mutant::is("no generation") {
            return (bits, bits == u64::MAX);
        }
        bits.overflowing_add(step)
    }

    /// See [`step_from_complement`](Self::step_from_complement).
    pub(crate) const STEP_LESS_ONE: u64 = Self::STEP - 1;

    /// As [`step`](Self::step), from the complement of a `user_data`; one instruction less than taking the
    /// complement first.
    #[inline(always)]
    pub(crate) fn step_from_complement(complement: u64, step_less_one: u64) -> (u64, bool) {
        if crate::mutant::is("no generation") {
            return (!complement, false);
        }
        // `!complement + step`, because `!c` is `-1 - c`; it borrows where the sum has no carry.
        let (next, borrows) = step_less_one.overflowing_sub(complement);
        (next, !borrows)
    }

    /// How many slots there can be. (Twice as many would leave no bit for timers.)
    pub(crate) const SLOTS: u32 = 1 << 31;
    const TIMER: u64 = (Self::SLOTS as u64) << Self::SLOT_SHIFT;

    /// The name of the timer that is linked to a request. It completes before the slot is used again.
    #[inline(always)]
    pub(crate) const fn of_timer(bits: u64) -> u64 {
        bits | Self::TIMER
    }

    /// The request whose timer has this name, if it is the name of a timer.
    #[inline(always)]
    pub(crate) const fn timed(bits: u64) -> Option<u64> {
        match bits & Self::TIMER {
            0 => None,
            _ => Some(bits & !Self::TIMER),
        }
    }

    /// The tag of cancels.
    const CANCEL: u8 = u8::MAX - 1;
    const SHORT_GENERATION_SHIFT: u32 = Self::GENERATION_SHIFT + 8;

    /// The name of a cancel of a request: the request's slot, its tag where a generation begins, and as many
    /// bits of its generation as there is room for. The kernel answers a cancel when it takes it in, so the
    /// slot's generation can't have wrapped by then.
    pub(crate) const fn of_cancel(bits: u64) -> u64 {
        let generation = Self::generation(bits) << Self::SHORT_GENERATION_SHIFT;
        let of_request = (Self::tag(bits) as u64) << Self::GENERATION_SHIFT;
        generation | of_request | (Self::slot(bits) as u64) << Self::SLOT_SHIFT | Self::CANCEL as u64
    }

    /// The tag of the request whose cancel has this name, if it is the name of a cancel.
    pub(crate) const fn cancelled_tag(bits: u64) -> Option<u8> {
        match Self::tag(bits) {
            Self::CANCEL => Some((bits >> Self::GENERATION_SHIFT) as u8),
            _ => None,
        }
    }

    /// The tag of a packed value.
    #[inline]
    pub(crate) const fn tag(bits: u64) -> u8 {
        bits as u8
    }

    /// The slot of a packed value.
    #[inline]
    pub(crate) const fn slot(bits: u64) -> u32 {
        (bits >> Self::SLOT_SHIFT) as u32
    }
}

/// The ring's own entries: tag 0, with a number that no user can choose for a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub(crate) enum Control {
    /// Ignored: the entries of `push_raw`, and anybody's `user_data(0)`.
    Untracked = 0,
    /// An `IORING_OP_ASYNC_CANCEL` of ours whose answer does not matter.
    Cancel = 1 << 8,
    /// The poll on the socket by which other threads wake the ring.
    Wake = 2 << 8,
    /// The timer after which something is [due](crate::alarms).
    Alarm = 3 << 8,
}

impl Control {
    /// What a `user_data` with tag 0 stands for.
    pub(crate) const fn from_bits(bits: u64) -> Option<Control> {
        const UNTRACKED: u64 = Control::Untracked as u64;
        const CANCEL: u64 = Control::Cancel as u64;
        const WAKE: u64 = Control::Wake as u64;
        const ALARM: u64 = Control::Alarm as u64;
        match bits {
            UNTRACKED => Some(Control::Untracked),
            CANCEL => Some(Control::Cancel),
            WAKE => Some(Control::Wake),
            ALARM => Some(Control::Alarm),
            _ => None,
        }
    }
}

const _: () = assert!(UserData::pack(u8::MAX, u32::MAX, u32::MAX) == u64::MAX);

#[cfg(test)]
mod tests {
    use super::*;

    const LAST: u32 = (1 << 24) - 1;

    #[test]
    fn packs_and_unpacks_at_the_limits() {
        for tag in [0, 1, 250, u8::MAX] {
            for generation in [0, 1, LAST] {
                for slot in [0, 1, u32::MAX] {
                    let bits = UserData::pack(tag, generation, slot);
                    assert_eq!(UserData::tag(bits), tag);
                    assert_eq!(UserData::slot(bits), slot);
                    assert_eq!(UserData::generation(bits), u64::from(generation));
                }
            }
        }
    }

    #[test]
    fn a_generation_that_comes_round_leaves_tag_and_slot_alone() {
        assert_eq!(UserData::step(UserData::pack(7, 1, 9), UserData::STEP), (UserData::pack(7, 2, 9), false));
        assert_eq!(
            UserData::step(UserData::pack(7, LAST, 9), UserData::STEP),
            (UserData::pack(7, 0, 9), true)
        );
    }

    #[test]
    fn timers_and_cancels_name_their_requests() {
        for tag in [1, 250] {
            for generation in [0, 1, 0xffff, LAST] {
                for slot in [0, 1, UserData::SLOTS - 1] {
                    let bits = UserData::pack(tag, generation, slot);
                    let timer = UserData::of_timer(bits);
                    assert_eq!(UserData::timed(timer), Some(bits));
                    assert_eq!(UserData::tag(timer), tag, "it is looked at by the same operation");
                    assert!(UserData::slot(timer) >= UserData::SLOTS, "and is that of no slot");
                    assert_eq!(UserData::timed(bits), None, "a request is none");
                    let cancel = UserData::of_cancel(bits);
                    assert_eq!(UserData::cancelled_tag(cancel), Some(tag));
                    assert_eq!(UserData::slot(cancel), slot);
                    assert_eq!([bits, timer].map(UserData::cancelled_tag), [None; 2]);
                    let (next, _) = UserData::step(bits, UserData::STEP);
                    assert_ne!(UserData::of_timer(next), timer, "nor is it that of the next");
                }
            }
        }
    }

    #[test]
    fn control_values_have_tag_zero() {
        for control in [Control::Untracked, Control::Cancel, Control::Wake, Control::Alarm] {
            assert_eq!(UserData::tag(control as u64), 0);
            assert_eq!(Control::from_bits(control as u64), Some(control));
        }
        assert_eq!(Control::from_bits(1), None);
        assert_eq!(Control::from_bits(5 << 8), None);
    }
}
