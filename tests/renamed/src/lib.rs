//! `crate = path` in both macros: a renamed dependency, a re-export, and a macro that names the crate by `$crate`.

#![forbid(unsafe_code)]

use platz::{Completion, Ring, RingOperation, Submitter, ring};

/// A library that hands the framework on to its users.
pub mod reexported {
    pub use platz as framework;
}

/// By the name of the dependency.
#[ring(crate = platz, entries = 8)]
pub struct Renamed {
    /// Counts.
    pub counter: Counter,
}

/// By the path of a re-export.
#[ring(crate = crate::reexported::framework)]
pub struct Reexported {
    /// Counts.
    pub counter: Counter,
    /// Nothing but defaults.
    pub nothing: Nothing,
}

/// Counts the requests that it was given.
#[derive(Debug, Default, RingOperation)]
#[ring_operation(crate = ::platz, data = u32, setup, on_completion, on_teardown_completion)]
pub struct Counter(pub u32);

impl Counter {
    fn setup<R: Ring>(&mut self, _: Submitter<'_, R, Self>) {}

    fn on_completion<R: Ring>(&mut self, _: Completion, data: u32, _: Submitter<'_, R, Self>) {
        self.0 += data;
    }

    fn on_teardown_completion<R: Ring>(&mut self, _: Completion, _: u32, _: Submitter<'_, R, Self>) {}
}

/// Does nothing.
#[derive(Debug, Default, RingOperation)]
#[ring_operation(crate = crate::reexported::framework, on_more = more, on_final = more)]
pub struct Nothing;

impl Nothing {
    fn more<R: Ring, D>(&mut self, _: Completion, _: D, _: Submitter<'_, R, Self>) {}
}

/// Writes a ring of one counter.
#[macro_export]
macro_rules! ring_of_one {
    ($name:ident) => {
        #[$crate::reexported::framework::ring(crate = $crate::reexported::framework)]
        struct $name {
            counter: $crate::Counter,
        }
    };
}
