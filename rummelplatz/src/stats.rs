//! Figures about a ring.

use crate::operation::RingOperation;
use crate::shape::Ring;
use crate::tag::Tag;

/// Figures about a ring, from its `stats()`.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Stats {
    /// Requests that have not ended, including messages, and those that wait for room or a buffer or are paused.
    pub in_flight: usize,
    /// Requests that wait for room in the submission queue.
    pub backlog: usize,
    /// How often the ring has entered the kernel (`io_uring_enter`).
    pub enters: u64,
    /// How many completions of the kernel were seen: those of requests (several for a stream), and those of
    /// the ring's own cancels, wake-ups and alarms, and of [`push_raw`](crate::Submitter::push_raw). Together
    /// with [`enters`](Self::enters), this tells how large batches are.
    pub completions: u64,
    /// Completions that named no request in flight and were dropped, such as those of a message from another
    /// ring (`IORING_OP_MSG_RING`) that has invented a `user_data`.
    pub foreign: u64,
    /// How often a handler returned [`ControlFlow::Warn`](crate::ControlFlow::Warn).
    pub warnings: u64,
    /// How often a handler returned data for a request that was over; it was dropped.
    pub returned_late: u64,
    /// Detached requests that ended with an error.
    pub detached_failed: u64,
    /// How much of what was [sent](crate::RingHandle::send) still waits, because its operation has as many
    /// requests in flight as the [`request_limit`](crate::Builder::request_limit) allows.
    pub undelivered: u64,
    /// Files and memory that the ring has told the kernel to take out of its tables, without success: older kernels
    /// need memory for that (`ENOMEM`). They stay open, or pinned, until it succeeds. What direct descriptors have
    /// left is tried again within 10 ms, all the rest when a table is full and at the end of each run. What remains
    /// when the ring is dropped, the kernel closes with it; the memory of [`FixedBuffers`](crate::FixedBuffers) is
    /// leaked then.
    pub uncleared: u64,
    pub(crate) operations: Vec<OperationStats>,
}

/// Figures about one operation of a ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct OperationStats {
    /// The name of the operation: its field in the ring.
    pub name: &'static str,
    /// Its requests that have not ended.
    pub in_flight: usize,
    pub(crate) tag: u8,
}

impl Stats {
    /// The figures about one operation.
    pub fn operation<R: Ring, Op: RingOperation<R>>(&self, tag: Tag<R, Op>) -> OperationStats {
        let found = self.operations.iter().find(|operation| operation.tag == tag.number());
        let unknown = OperationStats { name: "unknown", in_flight: 0, tag: tag.number() };
        found.copied().unwrap_or(unknown)
    }

    /// The figures about each operation, in the order of the fields.
    pub fn operations(&self) -> &[OperationStats] {
        &self.operations
    }
}
