//! What a handler warns of, for all to see.

use std::fmt;

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

/// What is called with each warning.
pub(crate) type OnWarn = Box<dyn FnMut(Warning<'_>) + Send>;
