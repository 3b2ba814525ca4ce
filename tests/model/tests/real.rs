//! The same programs on the real kernel: the promises hold there, too, and requests end only as the simulated kernel
//! lets them end.

use std::num::NonZeroU32;

use rummelplatz::RawRing;
use rummelplatz_model::{explore_for_real, programs};
use rummelplatz_tests::soon;

#[test]
fn the_real_kernel_does_nothing_else() {
    if let Err(error) = RawRing::new(NonZeroU32::MIN) {
        assert!(std::env::var_os("RUMMELPLATZ_NO_SKIP").is_none(), "not to be skipped: {error}");
        return eprintln!("skipped: {error}");
    }
    let open = || -> Vec<_> {
        let descriptors = std::fs::read_dir("/proc/self/fd").unwrap();
        descriptors.filter_map(|it| std::fs::read_link(it.ok()?.path()).ok()).collect()
    };
    let before = open();
    let figures = explore_for_real(0, programs(500)).unwrap_or_else(|report| panic!("{report}"));
    println!("{figures:?}");
    // A thread that is about to sleep or to end may have one for a moment: the C library looks up how many CPUs there
    // are when it needs memory.
    assert!(soon(|| open().len() == before.len()), "{before:?} and {:?}", open());
}
