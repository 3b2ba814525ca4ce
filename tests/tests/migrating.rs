//! The program of the earlier library's README, in the form that `docs/migrating.md` shows.

use rummelplatz_tests::watched;

include!("migrating/program.rs");

#[test]
fn the_earlier_readmes_program_runs_and_ends() {
    watched(|| main().unwrap());
}

#[test]
fn the_document_shows_the_program_that_is_tested() {
    let document = include_str!("../../docs/migrating.md");
    let (_, block) = document.split_once("```rust\n").unwrap();
    let (block, _) = block.split_once("```\n").unwrap();
    assert_eq!(block, include_str!("migrating/program.rs"));
}

#[test]
fn the_derive_makes_the_same_operation() {
    #[derive(rummelplatz::RingOperation)]
    #[ring_operation(warn = (), error = (), setup)]
    struct Derived;

    impl Derived {
        fn setup<R: Ring>(&mut self, _: rummelplatz::Submitter<'_, R, Self>) {}
    }

    fn is_like<R: Ring, Op>(_: &Op)
    where
        Op: RingOperation<
                R,
                RingData = (),
                SetupError = (),
                TeardownError = (),
                ControlFlowWarn = (),
                ControlFlowError = (),
            >,
    {
    }
    is_like::<MyRing, _>(&MyRingOp);
    is_like::<MyRing, _>(&Derived);
}
