//! How the fields of entries are found.

use std::os::fd::{AsFd, AsRawFd, RawFd};

use super::sqe::{self, Usual};

#[inline]
pub(super) fn fd(descriptor: &impl AsFd) -> RawFd {
    descriptor.as_fd().as_raw_fd()
}

/// A length as an entry says it. Of more than that, only that it is more than [the kernel moves](sqe::MOST_BYTES) is left.
#[inline]
pub(super) fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// An entry that says nothing but its opcode, which may have more above it, and its descriptor.
#[inline(always)]
pub(super) const fn bare(opcode: u32, descriptor: RawFd) -> Usual {
    Usual { opcode, descriptor, offset: 0, address: 0, length: 0, op_flags: 0 }
}

/// An entry that moves bytes from or to memory, before it is said where else.
#[inline(always)]
pub(super) fn on_memory<T>(opcode: u32, memory: *const T, bytes: usize) -> Usual {
    let address = memory.expose_provenance() as u64;
    Usual { address, length: length(bytes), ..bare(opcode, -1) }
}

/// An opcode with what is to stand in `ioprio`.
#[inline(always)]
pub(super) const fn with_priority(opcode: u8, priority: u32) -> u32 {
    opcode as u32 | priority << sqe::PRIORITY
}
