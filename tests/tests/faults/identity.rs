//! Which request a completion belongs to.
