//! Runs the rings of this package.

#![forbid(unsafe_code)]

use std::num::NonZeroU32;

use rummelplatz_tests_renamed::{Counter, Nothing, Reexported, Renamed, ring_of_one};

ring_of_one!(ByMacro);

macro_rules! counts {
    ($ring:ident, $($operation:expr),*) => {{
        let raw = match $ring::new_raw_ring(NonZeroU32::MIN) {
            Ok(raw) => raw,
            Err(error) => panic!("no ring to be had: {error}"),
        };
        let mut ring = $ring::new(raw, None, $($operation),*);
        assert!(ring.submitter($ring::COUNTER).post(5).is_ok());
        assert!(ring.run().is_ok());
        assert_eq!(ring.counter.0, 5);
    }};
}

#[test]
fn a_ring_of_a_renamed_crate_runs() {
    counts!(Renamed, Counter::default());
}

#[test]
fn a_ring_of_a_reexported_crate_runs() {
    counts!(Reexported, Counter::default(), Nothing);
}

#[test]
fn a_ring_of_a_crate_named_by_a_macro_runs() {
    counts!(ByMacro, Counter::default());
}
