//! What happens after the kernel has lost a completion of the ring's own traffic.

use std::convert::Infallible;
use std::num::NonZeroU32;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rummelplatz::request::Events;
use rummelplatz::sim::{Faults, Simulation};
use rummelplatz::{
    Completion, ControlFlow, RingError, RingHandle, RingOperation, SubmitError, Submitter, request, ring,
};

type Handle<R> = Arc<Mutex<Option<RingHandle<R>>>>;

#[ring]
struct Woken {
    nothing: Nothing,
}

#[derive(RingOperation)]
#[ring_operation(ring = Woken, data = bool, error = SubmitError, on_completion)]
struct Nothing {
    simulation: Arc<Simulation>,
    handle: Handle<Woken>,
}

impl Nothing {
    fn on_completion(
        &mut self,
        _: Completion,
        is_first: bool,
        _: Submitter<'_, Woken, Self>,
    ) -> Result<(), SubmitError> {
        if is_first {
            self.simulation.set_faults(Faults { lost: 1.0, ..Faults::none() });
        } else if let Some(handle) = &*self.handle.lock().unwrap() {
            handle.stop();
        }
        Ok(())
    }
}

#[test]
fn who_wakes_the_ring_is_heard_in_the_next_run() {
    let simulation = Arc::new(Simulation::new(1));
    simulation.set_faults(Faults::none());
    let raw = simulation.raw_ring(NonZeroU32::new(8).unwrap()).unwrap();
    let handle = Arc::new(Mutex::new(None));
    let nothing = Nothing { simulation: simulation.clone(), handle: Arc::clone(&handle) };
    let mut ring = Woken::builder(nothing).raw_ring(raw).build().unwrap();
    *handle.lock().unwrap() = Some(ring.handle());
    ring.submitter(Woken::NOTHING).submit(true, |_| request::nop()).unwrap();
    assert!(matches!(ring.run(), Err(RingError::Api(_))));
    simulation.set_faults(Faults::none());
    ring.submitter(Woken::NOTHING).submit(false, |_| request::nop()).unwrap();
    ring.run().unwrap();
}

#[test]
fn a_deadline_passes_in_the_next_run() {
    const HOUR: Duration = Duration::from_secs(3600);
    let simulation = Arc::new(Simulation::new(1));
    simulation.set_faults(Faults::none());
    let raw = simulation.raw_ring(NonZeroU32::new(8).unwrap()).unwrap();
    let nothing = Nothing { simulation: simulation.clone(), handle: Arc::default() };
    let mut ring = Woken::builder(nothing).raw_ring(raw).build().unwrap();
    ring.turn().unwrap();
    // Its alarm is what is lost.
    ring.submitter(Woken::NOTHING).submit(true, |_| request::nop().deadline(HOUR)).unwrap();
    let error = (0..8).find_map(|_| ring.turn().err());
    assert!(matches!(error, Some(RingError::Api(_))), "{error:?}");
    assert_eq!((ring.stats().in_flight, simulation.in_kernel()), (0, 0));
    simulation.set_faults(Faults::none());
    let begun = simulation.now();
    ring.submitter(Woken::NOTHING)
        .submit(false, |_| request::timeout(1000 * HOUR).deadline(2 * HOUR))
        .unwrap();
    ring.run().unwrap();
    let passed = simulation.now() - begun;
    assert!(passed >= 2 * HOUR && passed < 3 * HOUR, "{passed:?}");
}

// ---- while the ring ends --------------------------------------------------------------------

#[ring]
struct Ended {
    step: Step,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    /// The ring ends when this is delivered, and the kernel loses what it posts from here on.
    Exit,
    /// Never ends.
    Wait,
    /// Is sent and never delivered, except by a teardown.
    Message,
    /// Stops the ring by its handle.
    Stop,
}

#[derive(RingOperation)]
#[ring_operation(ring = Ended, data = (What, UnixStream), error = SubmitError, on_completion, on_teardown_completion)]
struct Step {
    simulation: Arc<Simulation>,
    handle: Handle<Ended>,
    panics: bool,
}

impl Step {
    fn on_completion(
        &mut self,
        _: Completion,
        (what, socket): (What, UnixStream),
        mut submitter: Submitter<'_, Ended, Self>,
    ) -> Result<ControlFlow<Infallible, SubmitError>, SubmitError> {
        match what {
            What::Exit => {
                submitter.post((What::Message, socket))?;
                self.simulation.set_faults(Faults { lost: 1.0, ..Faults::none() });
            }
            What::Stop => self.handle.lock().unwrap().iter().for_each(RingHandle::stop),
            What::Wait | What::Message => {}
        }
        Ok(if what == What::Exit { ControlFlow::Exit } else { ControlFlow::Continue })
    }

    fn on_teardown_completion(
        &mut self,
        _: Completion,
        (what, _): (What, UnixStream),
        _: Submitter<'_, Ended, Self>,
    ) {
        self.simulation.set_faults(Faults::none());
        assert!(!self.panics || what != What::Message, "as it is meant to");
    }
}

fn ended(panics: bool) -> (Ended, Arc<Simulation>, Handle<Ended>) {
    let simulation = Arc::new(Simulation::new(1));
    simulation.set_faults(Faults::none());
    let raw = simulation.raw_ring(NonZeroU32::new(8).unwrap()).unwrap();
    let handle = Arc::new(Mutex::new(None));
    let step = Step { simulation: simulation.clone(), handle: Arc::clone(&handle), panics };
    (Ended::builder(step).raw_ring(raw).build().unwrap(), simulation, handle)
}

#[test]
fn who_wakes_the_ring_is_heard_after_a_teardown_with_a_loss() {
    let (mut ring, simulation, handle) = ended(false);
    *handle.lock().unwrap() = Some(ring.handle());
    let (socket, _other) = UnixStream::pair().unwrap();
    ring.submitter(Ended::STEP).submit((What::Exit, socket), |_| request::nop()).unwrap();
    ring.run().unwrap();
    simulation.set_faults(Faults::none());
    let (socket, _other) = UnixStream::pair().unwrap();
    ring.submitter(Ended::STEP).submit((What::Stop, socket), |_| request::nop()).unwrap();
    ring.run().unwrap();
}

#[test]
fn a_panic_after_a_loss_waits_for_nothing() {
    let (mut ring, _, _) = ended(true);
    let (socket, _other) = UnixStream::pair().unwrap();
    let (waiting, _silent) = UnixStream::pair().unwrap();
    let mut submitter = ring.submitter(Ended::STEP);
    submitter.submit((What::Wait, waiting), |(_, it)| request::poll(it, Events::READABLE)).unwrap();
    submitter.submit((What::Exit, socket), |_| request::nop()).unwrap();
    let panic = catch_unwind(AssertUnwindSafe(|| ring.run())).unwrap_err();
    assert_eq!(panic.downcast_ref::<&str>(), Some(&"as it is meant to"));
    // Had it waited, the simulation would have said that this is for ever.
    let error = ring.run().unwrap_err();
    assert_eq!(error.abandoned().unwrap().errno, Some(libc::EBADR), "{error}");
}
