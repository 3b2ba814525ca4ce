//! What a ring reports beside its results: warnings of handlers, and what it had to abandon.

use std::fmt;

use crate::error::Stuck;

/// A warning of an operation, as [`Builder::on_warn`](crate::Builder::on_warn) gets it.
pub struct Warning<'a> {
    /// The name of the operation: its field in the ring.
    pub operation: &'static str,
    /// What it says, as far as its type can be shown.
    pub message: &'a dyn fmt::Display,
}

impl fmt::Display for Warning<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "operation `{}`: {}", self.operation, self.message)
    }
}

impl fmt::Debug for Warning<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Warning({self})")
    }
}

type OnWarn = Box<dyn FnMut(Warning<'_>) + Send>;
type OnAbandoned = Box<dyn FnOnce(&Stuck) + Send>;

/// The hooks that the user has set.
#[derive(Default)]
pub(crate) struct Hooks {
    /// Called with each warning.
    pub(crate) on_warn: Option<OnWarn>,
    /// Called with what is abandoned, where no result says so.
    pub(crate) on_abandoned: Option<OnAbandoned>,
}
