//! What waits for room keeps its order.

use std::convert::Infallible;
use std::num::NonZeroU32;
use std::time::Duration;

use rummelplatz::io_uring::{opcode, squeue};
use rummelplatz::request::CWD;
use rummelplatz::sim::{Answer, Asked, Event, Faults, Simulation};
use rummelplatz::{
    Completion, CompletionResult, ControlFlow, Key, Progress, RingOperation, Status, Submitter, request, ring,
};

#[ring]
struct Small {
    nothing: Nothing,
}

struct Nothing;

impl RingOperation<Small> for Nothing {
    type RingData = ();
    type SetupError = Infallible;
    type TeardownError = Infallible;
    type ControlFlowWarn = Infallible;
    type ControlFlowError = Infallible;

    fn on_completion(
        &mut self,
        _: Completion,
        (): (),
        _: Submitter<'_, Small, Self>,
    ) -> CompletionResult<Small, Self> {
        (ControlFlow::Continue, None)
    }
}

/// NOPs that are linked.
fn chain<const N: usize>() -> [squeue::Entry; N] {
    std::array::from_fn(|index| {
        let flags = if index + 1 < N { squeue::Flags::IO_LINK } else { squeue::Flags::empty() };
        opcode::Nop::new().build().flags(flags)
    })
}

/// A ring with room for four entries that was not turned yet, and its kernel, which takes in nothing at first.
fn busy_and_new() -> (Simulation, Small) {
    let simulation = Simulation::new(1);
    simulation.set_faults(Faults { busy: 1.0, ..Faults::none() });
    let raw = simulation.raw_ring(NonZeroU32::new(4).unwrap()).unwrap();
    (simulation, Small::new(raw, None, Nothing))
}

/// The same, turned.
fn busy() -> (Simulation, Small) {
    let (simulation, mut ring) = busy_and_new();
    simulation.take_log();
    ring.turn().unwrap();
    (simulation, ring)
}

/// The entries that the kernel has taken in, in order.
fn taken_in(simulation: &Simulation) -> Vec<Asked> {
    let taken_in = |event| match event {
        Event::TakenIn(asked) => Some(asked),
        _ => None,
    };
    simulation.take_log().into_iter().filter_map(taken_in).collect()
}

#[test]
fn a_chain_that_would_fit_does_not_overtake_one_that_does_not() {
    let (simulation, mut ring) = busy();
    let mut submitter = ring.submitter(Small::NOTHING);
    let mut keys: Vec<Key<Nothing>> = Vec::new();
    for _ in 0..2 {
        keys.push(submitter.submit((), |()| request::nop()).unwrap());
    }
    // SAFETY: the entries point to nothing, here and below.
    keys.extend(unsafe { submitter.push_multiple(chain::<3>(), [(); 3]) }.unwrap());
    // SAFETY: as above.
    keys.extend(unsafe { submitter.push_multiple(chain::<2>(), [(); 2]) }.unwrap());
    assert_eq!(ring.stats().backlog, 5, "there is room for the second chain, but not yet for it");
    simulation.set_faults(Faults::none());
    ring.run().unwrap();
    assert!(taken_in(&simulation).iter().map(|asked| asked.user_data).eq(keys.iter().map(Key::user_data)));
}

#[test]
fn a_cancel_does_not_overtake_what_it_is_to_cancel() {
    let (simulation, mut ring) = busy();
    let mut submitter = ring.submitter(Small::NOTHING);
    for _ in 0..2 {
        submitter.submit((), |()| request::nop()).unwrap();
    }
    // SAFETY: the entries point to nothing.
    let keys = unsafe { submitter.push_multiple(chain::<3>(), [(); 3]) }.unwrap();
    // There would be room for this one.
    assert!(submitter.cancel(keys[0]));
    assert_eq!(ring.stats().backlog, 3);
    simulation.set_faults(Faults::none());
    ring.run().unwrap();
    let taken_in = taken_in(&simulation);
    let position = |wanted: &dyn Fn(&Asked) -> bool| taken_in.iter().position(wanted).unwrap();
    let cancel = position(&|asked| asked.opcode == opcode::AsyncCancel::CODE);
    for key in keys {
        assert!(position(&|asked| asked.user_data == key.user_data()) < cancel);
    }
}

#[test]
fn a_turned_ring_waits_when_the_kernel_is_short_of_something() {
    let waits = |progress: &Progress| progress.call_again_in.is_some_and(|time| !time.is_zero());
    // Four find room, and the others wait for it.
    for count in [4, 5] {
        let (simulation, mut ring) = busy_and_new();
        for _ in 0..count {
            ring.submitter(Small::NOTHING).submit((), |()| request::nop()).unwrap();
        }
        let progress = ring.turn().unwrap();
        assert!(waits(&progress), "{count}: {progress:?}");
        simulation.set_faults(Faults::none());
        while ring.turn().unwrap().status == Status::Progressed {}
        assert_eq!(ring.stats().in_flight, 0);

        // While it ends, too.
        ring.submitter(Small::NOTHING).submit((), |()| request::timeout(Duration::from_secs(1))).unwrap();
        ring.handle().stop();
        while ring.turn().unwrap().call_again_in != Some(Duration::ZERO) {}
        simulation.set_faults(Faults { busy: 1.0, ..Faults::none() });
        let turns = [(); 3].map(|()| ring.turn().unwrap());
        assert!(turns.iter().any(waits), "{turns:?}");
    }
}

#[test]
fn a_ring_that_is_run_waits_when_the_kernel_is_short_of_something() {
    let (simulation, mut ring) = busy();
    for _ in 0..5 {
        ring.submitter(Small::NOTHING).submit((), |()| request::nop()).unwrap();
    }
    let (begun, enters) = (simulation.now(), ring.stats().enters);
    ring.run().unwrap();
    // The simulated kernel is short of something three times in a row.
    assert!(simulation.now() - begun >= Duration::from_millis(30));
    assert!(ring.stats().enters - enters < 30);
}

#[test]
fn a_ring_that_ends_is_not_idle_before_that() {
    let simulation = Simulation::new(1);
    simulation.set_faults(Faults { running: 1.0, ..Faults::none() });
    simulation.on_request(|asked| if asked.name() == "FSYNC" { Answer::Wait } else { Answer::Perform });
    let raw = simulation.raw_ring(NonZeroU32::new(4).unwrap()).unwrap();
    let mut ring = Small::new(raw, None, Nothing);
    ring.submitter(Small::NOTHING).submit_in_background((), |()| request::fsync(&CWD)).unwrap();
    while ring.turn().unwrap().status != Status::Idle {}
    ring.handle().stop();
    let statuses: Vec<_> = (0..20).map(|_| ring.turn().unwrap().status).collect();
    let ends = statuses.iter().skip_while(|status| **status == Status::Idle);
    assert!(ends.clone().all(|status| *status != Status::Idle), "{statuses:?}");
    assert_eq!(ring.stats().in_flight, 1, "it can't be cancelled");
}
