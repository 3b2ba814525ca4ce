//! What the `user_data` of an entry or a completion says to somebody who is not the ring: whose it is, and whether it is
//! that of a timer. Knows the layout of the name, and nothing of who has which.

/// The bit that the name of a timer has and the name of its request does not have.
const TIMER: u64 = 1 << 39;

/// The name of the timer of a request.
pub(crate) fn timer_of(name: u64) -> u64 {
    name | TIMER
}

pub(crate) fn is_timer(name: u64) -> bool {
    name & TIMER != 0
}

/// Whether this is the name of something that the ring made for itself, such as a cancel.
pub(crate) fn is_of_ring(name: u64) -> bool {
    matches!(name as u8, 0 | 254)
}

/// Whether it is one of the ring's entries by which the ring knows what has come: everything else with the tag 0 is a
/// stranger's.
pub(crate) fn is_control(name: u64) -> bool {
    is_of_ring(name) && (name as u8 != 0 || name >> 8 <= 4)
}
