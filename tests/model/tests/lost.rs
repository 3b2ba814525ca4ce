//! What happens after the kernel has lost a completion of the ring's own traffic.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rummelplatz::sim::{Faults, Simulation};
use rummelplatz::{Completion, RingError, RingHandle, RingOperation, SubmitError, Submitter, request, ring};

#[ring]
struct Woken {
    nothing: Nothing,
}

#[derive(RingOperation)]
#[ring_operation(ring = Woken, data = bool, error = SubmitError, on_completion)]
struct Nothing {
    simulation: Arc<Simulation>,
    handle: Arc<Mutex<Option<RingHandle<Woken>>>>,
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
