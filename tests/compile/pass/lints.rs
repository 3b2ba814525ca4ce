//! The strictest users: everything documented, every warning an error.

#![forbid(unsafe_code)]
#![deny(warnings, missing_docs, missing_debug_implementations, unreachable_pub, unused, rust_2018_idioms)]
#![deny(
    let_underscore_drop,
    non_local_definitions,
    single_use_lifetimes,
    trivial_casts,
    unused_qualifications
)]
#![deny(unused_lifetimes, unused_results, variant_size_differences, elided_lifetimes_in_paths)]

use std::io;

use rummelplatz::{Completion, Ring, RingOperation, Submitter, ring};

/// A ring.
#[ring]
#[must_use]
pub struct Documented {
    /// An operation.
    pub operation: Operation,
    private: Operation,
}

/// An operation.
#[derive(Debug, Clone, RingOperation)]
#[ring_operation(data = u8, warn = io::Error, setup, on_more, on_final = on_last, on_teardown_completion)]
pub struct Operation;

impl Operation {
    fn setup<R: Ring>(&mut self, _: Submitter<'_, R, Self>) {}

    fn on_more<R: Ring>(&mut self, _: Completion, data: &mut u8, _: Submitter<'_, R, Self>) {
        *data = data.wrapping_add(1);
    }

    fn on_last<R: Ring>(
        &mut self,
        completion: Completion,
        _: u8,
        _: Submitter<'_, R, Self>,
    ) -> io::Result<()> {
        let _result = completion.result()?;
        Ok(())
    }

    fn on_teardown_completion<R: Ring>(&mut self, _: Completion, _: u8, _: Submitter<'_, R, Self>) {}
}

fn main() {}
