//! When deadlines pass.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rummelplatz::sim::{Faults, Simulation};
use rummelplatz::{Completion, RingOperation, SubmitError, Submitter, request, ring};

const HOUR: Duration = Duration::from_secs(3600);

#[ring]
struct Waiting {
    waits: Waits,
}

/// Which request was over, whether its time was up, and when that was.
type Over = (&'static str, bool, Duration);

#[derive(RingOperation)]
#[ring_operation(ring = Waiting, data = &'static str, error = SubmitError, on_completion)]
struct Waits {
    simulation: Arc<Simulation>,
    log: Arc<Mutex<Vec<Over>>>,
}

impl Waits {
    fn on_completion(
        &mut self,
        completion: Completion,
        name: &'static str,
        _: Submitter<'_, Waiting, Self>,
    ) -> Result<(), SubmitError> {
        self.log.lock().unwrap().push((name, completion.timed_out(), self.simulation.now()));
        Ok(())
    }
}

#[test]
fn time_passes_before_a_run_as_well() {
    let simulation = Arc::new(Simulation::new(1));
    simulation.set_faults(Faults::none());
    let raw = simulation.raw_ring(NonZeroU32::new(8).unwrap()).unwrap();
    let log = Arc::default();
    let waits = Waits { simulation: simulation.clone(), log: Arc::clone(&log) };
    let mut ring = Waiting::builder(waits).raw_ring(raw).build().unwrap();
    for _ in 0..2 {
        let begun = simulation.now();
        let mut submitter = ring.submitter(Waiting::WAITS);
        submitter.submit("two", |_| request::timeout(1000 * HOUR).deadline(HOUR * 2)).unwrap();
        submitter.submit("six", |_| request::timeout(1000 * HOUR).deadline(HOUR * 6)).unwrap();
        simulation.pass(HOUR * 4);
        ring.run().unwrap();
        let log = std::mem::take(&mut *log.lock().unwrap());
        let hours = |when: Duration| (when - begun).as_secs() / HOUR.as_secs();
        let log: Vec<_> = log.into_iter().map(|(name, is_up, when)| (name, is_up, hours(when))).collect();
        assert_eq!(log, [("two", true, 4), ("six", true, 6)]);
    }
}
