//! What is known of one request. Only data: who judges by it is elsewhere.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::connections::Connection;
use crate::program::{Kind, Limit};

/// See the [module documentation](self).
#[derive(Default)]
pub(super) struct Request {
    // ---- how it was made ----
    pub(super) kind: Kind,
    pub(super) limit: Limit,
    /// When that was set, which is when it is submitted.
    pub(super) since: Duration,
    /// It is in a chain made with the safe call.
    pub(super) linked: bool,
    /// It is of the second operation.
    pub(super) second: bool,
    /// It is in a chain, or was submitted raw.
    pub(super) raw: bool,
    pub(super) name: Option<u64>,
    pub(super) place: u64,
    pub(super) accepted: bool,
    pub(super) is_message: bool,
    /// It is delivered when there is nothing else to deliver.
    pub(super) is_last: bool,
    /// It is a message that was sent by a handle.
    pub(super) is_sent: bool,
    /// It receives into the pool of this ring, and has done so since it was submitted.
    pub(super) has_pool: bool,
    /// It was to be submitted with the pool of the neighbour.
    pub(super) borrows: bool,
    /// Nobody is told of its end.
    pub(super) silent: bool,
    /// It was submitted in a teardown.
    pub(super) is_late: bool,
    /// Does not keep the ring running.
    pub(super) is_background: bool,
    /// What it is on, if that is in the ring's table.
    pub(super) connection: Option<Arc<Connection>>,
    /// How many descriptors there are in the message that waits for it.
    pub(super) passed: usize,

    // ---- what the kernel has done with it ----
    pub(super) taken_in: bool,
    /// A cancel of this request was taken in before the request.
    pub(super) overtaken: bool,
    /// The other side is holding it up.
    pub(super) blocked: bool,
    /// The word for which it waits was changed.
    pub(super) woken: bool,
    /// How often a stream was answered.
    pub(super) told: u32,
    /// The kernel says each time that there are no buffers.
    pub(super) starves: bool,
    /// What the kernel has written last.
    pub(super) written: u64,
    /// What it has received into buffers and has not told yet.
    pub(super) received: VecDeque<Vec<u8>>,
    /// How often it went on although it was to end, so that it was cancelled once more.
    pub(super) insisted: u64,
    pub(super) pauses: Pauses,

    // ---- what handlers were told of it ----
    /// Of a stream: when it was submitted, told the last time, or became another.
    pub(super) told_at: Duration,
    /// The longest time between two of these, and from the last one to its end.
    pub(super) longest: Duration,
    /// A cancel has found it.
    pub(super) cancelled: bool,
    /// How many ticks it has told, or how many bytes, if they are limited.
    pub(super) counted: u32,
    /// How often in a row it was told that there are no buffers, while nobody held one and nobody had taken one since
    /// the last time.
    pub(super) starved: u32,
    /// How many buffers had been taken at the last time.
    pub(super) taken: u64,
    pub(super) finals: u32,
    pub(super) drops: u32,
}

/// What is known of the pauses of a request.
#[derive(Clone, Copy, Default)]
pub(super) struct Pauses {
    /// It was paused, and was not resumed since.
    pub(super) is_paused: bool,
    /// It is being resumed, and may be armed by that.
    pub(super) is_resuming: bool,
    /// It was paused at some time.
    pub(super) was_paused: bool,
}

impl Request {
    /// Whether it has a timer, which must be taken in right behind it.
    pub(super) fn has_linked_timer(&self) -> bool {
        self.limit != Limit::None && self.linked
    }

    /// Whether a handler is still to be told of its end.
    pub(super) fn is_open(&self) -> bool {
        self.finals == 0 && !self.silent
    }
}
