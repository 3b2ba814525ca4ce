//! Entries that the kernel, or the ring, refuses.
