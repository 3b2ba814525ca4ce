//! The end of a ring, whatever is in flight.
