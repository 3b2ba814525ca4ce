//! The 64 bits that travel through the kernel with each request.
//!
//! ```text
//!  63      56 55                 32 31                       0
//! [   tag    |     generation      |           slot           ]
//! ```
//!
//! * **tag** names the operation. Tag 0 is the kernel's and the ring's own traffic: a plain
//!   `user_data(0)` is ignored, [`Control`] says what the others are. `#[ring]` gives out 1 to 250.
//! * **slot** is the index in the slab of that operation.
//! * **generation** is counted up whenever the slot is freed.
//!
//! # Why 24 bits are enough here, and not in a `Key`
//!
//! The generation in `user_data` has one job: to tell a completion of the present request from a
//! stray one. The kernel posts exactly one final completion per request and the slot is freed by
//! it, so a genuine completion can never be of an earlier generation; only a message from another
//! ring can carry an invented number. A counter that wraps is therefore no danger: an equal value
//! needs 2²⁴ requests through one slot *and* a forged message. A [`Key`](crate::Key), on the other
//! hand, may be kept by the user for ever, and a hot slot turns over 2²⁴ times within seconds: it
//! compares the whole 64-bit generation that the slot counts, which wraps after five thousand years
//! at a hundred million requests a second.

/// Names the layout; the packed value itself stays a `u64`, as the kernel knows it.
pub(crate) enum UserData {}

impl UserData {
    const GENERATION_BITS: u32 = 24;
    const GENERATION_MASK: u64 = (1 << Self::GENERATION_BITS) - 1;
    const GENERATION_SHIFT: u32 = 32;
    const TAG_SHIFT: u32 = 56;

    /// Packs the low 24 bits of a slot's generation with its tag and index.
    #[inline]
    pub(crate) const fn pack(tag: u8, generation: u64, slot: u32) -> u64 {
        (tag as u64) << Self::TAG_SHIFT
            | (generation & Self::GENERATION_MASK) << Self::GENERATION_SHIFT
            | slot as u64
    }

    /// The tag of a packed value.
    #[inline]
    pub(crate) const fn tag(bits: u64) -> u8 {
        (bits >> Self::TAG_SHIFT) as u8
    }

    /// The slot of a packed value.
    #[inline]
    pub(crate) const fn slot(bits: u64) -> u32 {
        bits as u32
    }
}

/// The ring's own entries: tag 0, and a number that no user can choose for a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub(crate) enum Control {
    /// `push_raw` and anybody's `user_data(0)`: ignored.
    Untracked = 0,
    /// An `IORING_OP_ASYNC_CANCEL` of ours.
    Cancel = 1,
    /// The poll on the socket by which other threads wake the ring.
    Wake = 2,
}

impl Control {
    /// What a `user_data` with tag 0 stands for.
    pub(crate) const fn from_bits(bits: u64) -> Option<Control> {
        match bits {
            0 => Some(Control::Untracked),
            1 => Some(Control::Cancel),
            2 => Some(Control::Wake),
            _ => None,
        }
    }
}

const _: () = assert!(
    UserData::pack(u8::MAX, u64::MAX, u32::MAX) == u64::MAX
        && UserData::GENERATION_SHIFT + UserData::GENERATION_BITS == UserData::TAG_SHIFT
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packs_and_unpacks_at_the_limits() {
        for tag in [0, 1, 250, u8::MAX] {
            for generation in [0, 1, UserData::GENERATION_MASK] {
                for slot in [0, 1, u32::MAX] {
                    let bits = UserData::pack(tag, generation, slot);
                    assert_eq!(UserData::tag(bits), tag);
                    assert_eq!(UserData::slot(bits), slot);
                    assert_eq!((bits >> 32) & UserData::GENERATION_MASK, generation);
                }
            }
        }
    }

    #[test]
    fn generation_wraps_within_its_field() {
        let last = UserData::pack(7, UserData::GENERATION_MASK, 9);
        let wrapped = UserData::pack(7, UserData::GENERATION_MASK + 1, 9);
        assert_ne!(last, wrapped);
        assert_eq!(wrapped, UserData::pack(7, 0, 9), "tag and slot are untouched by the wrap");
    }

    #[test]
    fn control_values_have_tag_zero() {
        for control in [Control::Untracked, Control::Cancel, Control::Wake] {
            assert_eq!(UserData::tag(control as u64), 0);
            assert_eq!(Control::from_bits(control as u64), Some(control));
        }
        assert_eq!(Control::from_bits(3), None);
    }
}
