//! How to write the fields of entries.

use std::os::fd::{AsFd, AsRawFd, RawFd};

use super::sqe::{self, Usual};

#[inline]
pub(super) fn fd(descriptor: &impl AsFd) -> RawFd {
    descriptor.as_fd().as_raw_fd()
}

/// A length as an entry holds it. If it is too large for that, all that is kept is that it is more than [the kernel
/// moves](sqe::MOST_BYTES).
#[inline]
pub(super) fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// An entry that says nothing but its opcode, which may have more bits above it, and its descriptor.
#[inline(always)]
pub(super) const fn bare(opcode: u32, descriptor: RawFd) -> Usual {
    Usual { opcode, descriptor, offset: 0, address: 0, length: 0, op_flags: 0 }
}

/// An entry that moves bytes from or to memory; what is on the other side is not set yet.
#[inline(always)]
pub(super) fn on_memory<T>(opcode: u32, memory: *const T, bytes: usize) -> Usual {
    let address = memory.expose_provenance() as u64;
    Usual { address, length: length(bytes), ..bare(opcode, -1) }
}

/// An opcode, with what goes into `ioprio`.
#[inline(always)]
pub(super) const fn with_priority(opcode: u8, priority: u32) -> u32 {
    opcode as u32 | priority << sqe::PRIORITY
}
