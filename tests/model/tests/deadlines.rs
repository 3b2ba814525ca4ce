//! When deadlines pass.

use std::num::NonZeroU32;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rummelplatz::sim::{self, Answer, Faults, Simulation};
use rummelplatz::{Completion, ControlFlow, RingOperation, SubmitError, Submitter, request, ring};
use rummelplatz_tests::{Bench, Log, Script};

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
fn a_send_whose_memory_is_in_use_when_its_deadline_passes_was_in_time() {
    const SHORT: Duration = Duration::from_micros(5);
    sim::explore(0..20, |simulation| {
        simulation.set_faults(Faults::none());
        simulation.on_request(|asked| match asked.name() {
            "SEND_ZC" => Answer::Finish(8),
            _ => Answer::Perform,
        });
        let raw = simulation.raw_ring(NonZeroU32::new(8).unwrap()).unwrap();
        let over = Log::new();
        let (log, kernel) = (over.clone(), simulation.clone());
        let script = Script::new().on_completion(move |completion, _: (UnixStream, [u8; 8]), _| {
            log.push((completion.result().unwrap(), completion.timed_out(), kernel.now()));
            (ControlFlow::Continue, None)
        });
        let mut ring = Bench::builder(script, Script::new()).raw_ring(raw).build().unwrap();
        let begun = simulation.now();
        let data = (UnixStream::pair().unwrap().0, [7; 8]);
        ring.submitter(Bench::FIRST)
            .submit(data, |(socket, bytes)| request::send_zc(socket, bytes).deadline(SHORT))
            .unwrap();
        ring.run().unwrap();
        let [(sent, is_up, when)] = over.take()[..] else { panic!("told once") };
        assert!(when - begun > 2 * SHORT, "the kernel was done with the memory before the deadline");
        assert_eq!((sent, is_up), (8, false));
        assert_eq!(simulation.figures().cancels, 0, "there was nothing to end");
    });
}

#[test]
fn what_is_forged_of_a_request_that_only_waits_for_its_timer_is_nobodys() {
    /// `IORING_CQE_F_MORE`.
    const F_MORE: u32 = 1 << 1;
    let simulation = Simulation::new(1);
    simulation.set_faults(Faults::none());
    simulation.on_request(|_| Answer::Wait);
    let raw = simulation.raw_ring(NonZeroU32::new(8).unwrap()).unwrap();
    let over = Log::new();
    let log = over.clone();
    let script = Script::new().on_completion(move |completion, _: OwnedFd, _| {
        log.push((completion.result().unwrap(), completion.timed_out()));
        (ControlFlow::Continue, None)
    });
    let mut ring = Bench::builder(script, Script::new()).raw_ring(raw).build().unwrap();
    let mut submitter = ring.submitter(Bench::FIRST);
    let file = std::io::pipe().unwrap().0.into();
    let key = submitter.chain().submit(file, |file| request::fsync(file).deadline(HOUR)).unwrap();
    ring.turn().unwrap();
    let (request, timer) = (key.user_data(), timer_of(key.user_data()));
    let ends = [(request, 5, 0), (request, 6, 0), (request, 7, F_MORE), (timer, -libc::ECANCELED, 0)];
    for (name, result, flags) in ends {
        // SAFETY: the kernel does nothing by itself, and the request has no memory and yields no descriptor.
        unsafe { simulation.post(name, result, flags) };
    }
    while ring.stats().in_flight > 0 {
        ring.turn().unwrap();
    }
    assert_eq!(over.take(), [(5, false)]);
    assert_eq!(ring.stats().foreign, 2);
}

/// The name of the timer of a request in a chain.
fn timer_of(name: u64) -> u64 {
    name | 1 << 39
}

#[test]
fn the_next_run_does_not_count_on_an_alarm_that_the_kernel_never_heard_of() {
    let simulation = Simulation::new(1);
    simulation.set_faults(Faults::none());
    let raw = simulation.raw_ring(NonZeroU32::MIN).unwrap();
    let over = Log::new();
    let log = over.clone();
    let script = Script::new().on_completion(move |completion, exits: bool, mut submitter| {
        if !exits {
            log.push(completion.timed_out());
            return (ControlFlow::Continue, None);
        }
        // It takes the only place, so its alarm must wait for another.
        submitter.submit(false, |_| request::timeout(1000 * HOUR).deadline(HOUR)).unwrap();
        (ControlFlow::Exit, None)
    });
    let mut ring = Bench::builder(script, Script::new()).raw_ring(raw).build().unwrap();
    ring.submitter(Bench::FIRST).submit(true, |_| request::nop()).unwrap();
    ring.run().unwrap();
    let begun = simulation.now();
    ring.submitter(Bench::FIRST).submit(false, |_| request::timeout(1000 * HOUR).deadline(2 * HOUR)).unwrap();
    ring.run().unwrap();
    assert_eq!(over.take(), [true]);
    let passed = simulation.now() - begun;
    assert!(passed >= 2 * HOUR && passed < 3 * HOUR, "{passed:?}");
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
