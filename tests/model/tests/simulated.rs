//! Random programs under the simulated kernel.

use rummelplatz_model::{explore, programs};

#[test]
fn whatever_the_kernel_does_every_request_ends_once() {
    let figures = explore(0, programs(3_000)).unwrap_or_else(|report| panic!("{report}"));
    println!("{figures:?}");
}
