//! In which order messages are delivered: none overtakes another that goes the same way, and none that was posted is
//! overtaken by what the kernel posts after the next completion. Knows messages by their numbers only.

/// On which way a message is: those on different ways may overtake each other.
#[derive(Clone, Copy)]
pub(super) enum Way {
    /// It was posted.
    Posted,
    /// It was sent to an operation: one may have room for it while the other has none.
    Sent { second: bool },
    /// It was posted to be delivered last.
    Last,
}

/// See the [module documentation](self).
#[derive(Default)]
pub(super) struct Messages {
    /// The last one that was delivered, for each way.
    last: [Option<usize>; 4],
    /// Those that were posted and not delivered, each with how many of the kernel's completions may be delivered before.
    posted: Vec<(usize, u64)>,
    /// How many completions of the kernel were delivered; one more while one of the ring's own is.
    round: u64,
    is_own: bool,
}

impl Messages {
    /// A message was posted.
    pub(super) fn post(&mut self, id: usize) {
        self.posted.push((id, self.round + u64::from(self.is_own)));
    }

    /// A completion of this request is delivered, which is the kernel's or the ring's own. Returns the message that
    /// should have come before, if there is one. What the ring has made itself by the end of a handler is delivered
    /// before the kernel's next completion.
    pub(super) fn overtaken_by(
        &mut self,
        id: usize,
        from_kernel: bool,
        is_dropped: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        self.posted.retain(|(message, _)| *message != id && !is_dropped(*message));
        let late = self.posted.iter().find(|(_, round)| *round <= self.round).map(|(message, _)| *message);
        self.is_own = !from_kernel;
        self.round += u64::from(from_kernel);
        late.filter(|_| from_kernel)
    }

    /// A message is delivered. Returns whether another on the same way has overtaken it.
    pub(super) fn deliver(&mut self, id: usize, way: Way) -> bool {
        let way = match way {
            Way::Posted => 0,
            Way::Sent { second } => 1 + usize::from(second),
            Way::Last => 3,
        };
        self.last[way].replace(id).is_some_and(|last| last > id)
    }
}
