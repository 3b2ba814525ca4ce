//! When things happen, above all in a teardown, by a clock that only the simulated kernel moves.

use std::num::NonZeroU32;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use rummelplatz::sim::{Answer, Event, Faults, Simulation};
use rummelplatz::{
    Completion, CompletionResult, ControlFlow, RingError, RingOperation, Submitter, request, ring,
};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// Exits when it is over.
    Exits,
    /// Posts a message and exits.
    PostsAndExits,
    /// Posts the one above.
    Relays,
    /// Never ends by itself.
    Stays,
    /// A zero-copy send whose notification never comes: no cancel finds it.
    Sticks,
    /// In the teardown, submits one of those that stay, and panics.
    Panics,
    /// Submits one of those that stay, posts the next, and exits.
    PostsLate,
    /// Submits one of those that stay, sends a message by a handle, and exits.
    Sends,
    /// In the teardown, posts a message.
    Late,
}

struct Data {
    kind: Kind,
    bytes: [u8; 8],
    file: Arc<OwnedFd>,
}

struct Does {
    first: Vec<Kind>,
    file: Arc<OwnedFd>,
    /// What was told in the teardown, and why a request was refused there.
    told: Vec<Kind>,
    submits: bool,
    refused: Vec<String>,
}

#[ring]
struct Small {
    does: Does,
}

type Submits<'a> = Submitter<'a, Small, Does>;

impl Does {
    fn new(first: &[Kind]) -> Does {
        let (file, _) = std::io::pipe().unwrap();
        let file = Arc::new(file.into());
        Does { first: first.to_vec(), file, told: Vec::new(), submits: false, refused: Vec::new() }
    }

    fn data(&self, kind: Kind) -> Data {
        Data { kind, bytes: [0; 8], file: Arc::clone(&self.file) }
    }
}

fn build(data: &mut Data) -> request::Request<'_> {
    match data.kind {
        Kind::Stays | Kind::Panics => request::recv(&*data.file, &mut data.bytes),
        Kind::Sticks => request::send_zc(&*data.file, &data.bytes),
        _ => request::nop(),
    }
}

impl RingOperation<Small> for Does {
    type RingData = Data;
    type SetupError = std::io::Error;
    type TeardownError = std::io::Error;
    type ControlFlowWarn = std::io::Error;
    type ControlFlowError = std::io::Error;

    fn setup(&mut self, mut submitter: Submits<'_>) -> std::io::Result<()> {
        for kind in self.first.clone() {
            submitter.submit(self.data(kind), build)?;
        }
        Ok(())
    }

    fn on_completion(
        &mut self,
        _: Completion,
        data: Data,
        mut submitter: Submits<'_>,
    ) -> CompletionResult<Small, Self> {
        if data.kind == Kind::PostsAndExits {
            submitter.post(self.data(Kind::Exits)).unwrap();
        }
        if data.kind == Kind::Relays {
            submitter.post(self.data(Kind::PostsAndExits)).unwrap();
            return (ControlFlow::Continue, None);
        }
        if matches!(data.kind, Kind::PostsLate | Kind::Sends) {
            submitter.submit(self.data(Kind::Stays), build).unwrap();
        }
        if data.kind == Kind::PostsLate {
            submitter.post(self.data(Kind::Late)).unwrap();
        }
        if data.kind == Kind::Sends {
            submitter.handle().send(Small::DOES, self.data(Kind::Exits)).unwrap();
        }
        (ControlFlow::Exit, None)
    }

    fn on_teardown_completion(
        &mut self,
        _: Completion,
        data: Data,
        mut submitter: Submits<'_>,
    ) -> std::io::Result<()> {
        self.told.push(data.kind);
        if data.kind == Kind::Panics {
            submitter.submit(self.data(Kind::Stays), build)?;
            panic!("as planned");
        }
        if data.kind == Kind::Late {
            submitter.post(self.data(Kind::Exits))?;
        }
        if self.submits
            && let Err(error) = submitter.submit(self.data(Kind::Exits), build)
        {
            self.refused.push(format!("{error:?}"));
        }
        Ok(())
    }
}

/// A kernel in which reads and receives never end by themselves.
fn kernel(faults: Faults) -> Simulation {
    let simulation = Simulation::new(1);
    simulation.set_faults(faults);
    simulation.on_request(|asked| match asked.name() {
        "RECV" => Answer::Wait,
        "SEND_ZC" => Answer::Finish(8),
        _ => Answer::Perform,
    });
    simulation
}

fn ring(simulation: &Simulation, entries: u32, completions: u32, does: Does) -> rummelplatz::Builder<Small> {
    let number = |number| NonZeroU32::new(number).unwrap();
    let raw = simulation.raw_ring_with(number(entries), number(completions)).unwrap();
    Small::builder(does).raw_ring(raw)
}

const MS: Duration = Duration::from_millis(1);

#[test]
fn a_teardown_by_turns_waits_longer_and_longer_between_waves_and_says_for_how_long() {
    let simulation = kernel(Faults { never: 1.0, ..Faults::none() });
    let does = Does::new(&[Kind::Sticks, Kind::Exits]);
    let mut ring = ring(&simulation, 4, 4, does).deadline(Duration::from_millis(400)).build().unwrap();
    let mut waves = Vec::new();
    // When the next wave was announced, at each turn that had nothing to do.
    let mut said = Vec::new();
    let (mut cancels, mut began) = (0, None);
    let error = loop {
        let progress = match ring.turn() {
            Ok(progress) => progress,
            Err(error) => break error,
        };
        assert!(!progress.is_finished());
        let now = simulation.now();
        let sent = simulation.figures().cancels;

        if sent > cancels {
            cancels = sent;
            waves.push(now - *began.get_or_insert(now));
        }
        if let (Some(began), Some(time)) = (began, progress.call_again_in.filter(|time| !time.is_zero())) {
            said.push((waves.len(), now + time - began));
        }
    };
    assert!(error.abandoned().is_some());
    let expected = [0, 10, 30, 70, 150, 230, 310, 390].map(|ms| ms * MS);
    let close = |one: Duration, other: Duration| one.abs_diff(other) < MS;
    assert_eq!(waves.len(), expected.len(), "{waves:?}");
    assert!(waves.iter().zip(expected).all(|(wave, at)| close(*wave, at)), "{waves:?}");
    assert!(said.len() > 100, "it was turned often: {}", said.len());
    let ends = |wave: usize| expected.get(wave).copied().unwrap_or(400 * MS);
    let wrong: Vec<_> = said.iter().filter(|(wave, at)| !close(*at, ends(*wave))).take(3).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn a_turn_that_has_something_to_wait_for_is_not_the_last_but_one() {
    let simulation = kernel(Faults::none());
    let stays = [Kind::Stays; 3];
    let does = Does::new(&[&stays[..], &[Kind::Exits]].concat());
    // With so little room, the ends and the answers to cancels come one by one.
    let mut ring = ring(&simulation, 1, 1, does).build().unwrap();
    let mut waited = false;
    loop {
        let progress = ring.turn().unwrap();
        assert!(!(waited && progress.is_finished()), "it could have ended at once");
        if progress.is_finished() {
            break;
        }
        waited = progress.call_again_in.is_some_and(|time| !time.is_zero());
    }
}

#[test]
fn a_teardown_with_nothing_left_but_messages_takes_no_time() {
    let simulation = kernel(Faults::none());
    let mut ring = ring(&simulation, 4, 4, Does::new(&[Kind::PostsAndExits])).build().unwrap();
    let began = simulation.now();
    ring.run().unwrap();
    assert_eq!(ring.does.told, [Kind::Exits]);
    assert!(simulation.now() - began < MS, "{:?}", simulation.now() - began);
}

#[test]
fn nobody_waits_for_late_requests_when_nobody_is_told_of_their_end() {
    let simulation = kernel(Faults::none());
    let does = Does::new(&[Kind::Panics, Kind::Exits]);
    let mut ring = ring(&simulation, 4, 4, does).grace(Duration::from_secs(1000)).build().unwrap();
    let began = simulation.now();
    catch_unwind(AssertUnwindSafe(|| ring.run())).unwrap_err();
    assert_eq!(ring.does.told, [Kind::Panics]);
    assert_eq!(ring.stats().in_flight, 0);
    assert!(simulation.now() - began < Duration::from_secs(1), "{:?}", simulation.now() - began);
}

#[test]
fn what_has_come_by_the_deadline_is_told_and_nothing_more_is_accepted() {
    let simulation = kernel(Faults::none());
    let mut does = Does::new(&[Kind::PostsAndExits, Kind::Exits]);
    does.submits = true;
    let mut ring = ring(&simulation, 4, 4, does).deadline(Duration::ZERO).build().unwrap();
    ring.run().unwrap();
    assert_eq!(ring.does.told.len(), 2, "the message, and what was completed already: {:?}", ring.does.told);
    assert_eq!(ring.does.refused, ["Closed", "Closed"]);
}

#[test]
fn a_turn_that_leaves_entries_behind_is_to_be_called_again_at_once() {
    // The kernel takes only a part of several entries.
    let simulation = kernel(Faults { partial: 1.0, ..Faults::none() });
    let mut ring = ring(&simulation, 8, 8, Does::new(&[Kind::Stays; 8])).build().unwrap();
    simulation.take_log();
    let mut left = 0_i64;
    let mut behind = 0;
    for _ in 0..20 {
        let progress = ring.turn().unwrap();
        for event in simulation.take_log() {
            match event {
                Event::Entered { shown } => left = shown.into(),
                Event::TakenIn(_) => left -= 1,
                _ => {}
            }
        }
        if left > 0 {
            behind += 1;
            assert_eq!(progress.call_again_in, Some(Duration::ZERO), "{left} entries are left");
        }
    }
    assert!(behind > 0 && left == 0);
}

#[test]
fn a_turn_that_could_submit_nothing_is_to_be_called_again() {
    // Three times in a row, the kernel takes nothing.
    let simulation = kernel(Faults { busy: 1.0, ..Faults::none() });
    let mut ring = ring(&simulation, 8, 8, Does::new(&[Kind::Stays; 8])).build().unwrap();
    let mut behind = 0;
    while ring.turn().unwrap().call_again_in.is_some() {
        behind += usize::from(simulation.figures().taken_in == 0);
    }
    assert!(behind > 0 && simulation.figures().taken_in == 8, "{behind}");
}

#[test]
fn a_teardown_gives_time_to_a_kernel_that_is_short_of_something() {
    let simulation = kernel(Faults::none());
    let mut ring = ring(&simulation, 4, 4, Does::new(&[Kind::Stays; 3])).build().unwrap();
    ring.turn().unwrap();
    // Three times in a row, the kernel takes nothing. Nothing happens meanwhile.
    simulation.set_faults(Faults { busy: 1.0, ..Faults::none() });
    let (began, enters) = (simulation.now(), simulation.figures().enters);
    ring.finish().unwrap();
    let (passed, enters) = (simulation.now() - began, simulation.figures().enters - enters);
    assert!(passed >= 30 * MS && passed < 100 * MS, "{passed:?}");
    assert!(enters < 20, "{enters}");
}

#[test]
fn a_ring_that_has_lost_a_completion_is_given_up_at_once() {
    let simulation = kernel(Faults { lost: 1.0, ..Faults::none() });
    let mut ring = ring(&simulation, 8, 8, Does::new(&[Kind::Stays; 3])).build().unwrap();
    let began = simulation.now();
    // Whether the kernel reports it again is its own decision.
    let error = ring.turn().unwrap_err();
    let RingError::Abandoned { stuck } = &error else { panic!("{error:?}") };
    assert_eq!(stuck.errno, Some(libc::EBADR));
    assert_eq!(stuck.requests.len(), 3);
    assert_eq!(simulation.figures().cancels, 0, "nothing is worth cancelling");
    assert!(simulation.now() - began < MS);
}

#[test]
fn what_has_come_by_the_deadline_is_told_whoever_it_comes_from() {
    // What the kernel has completed, and what the ring has made itself by the time that it is the kernel's turn.
    for first in [&[Kind::Exits; 2][..], &[Kind::Relays]] {
        let simulation = kernel(Faults::none());
        let mut ring = ring(&simulation, 4, 4, Does::new(first)).deadline(Duration::ZERO).build().unwrap();
        ring.run().unwrap();
        assert_eq!(ring.does.told, [Kind::Exits]);
    }
}

#[test]
fn what_ends_a_run_and_what_its_teardown_abandons_are_both_told_of() {
    // Nothing is left that could wake the ring, and what is in flight never ends.
    let simulation = kernel(Faults { never: 1.0, ..Faults::none() });
    let does = Does::new(&[Kind::Sticks]);
    let mut ring = ring(&simulation, 4, 4, does).deadline(Duration::from_millis(50)).build().unwrap();
    let error = ring.run().unwrap_err();
    let RingError::Api(cause) = &error else { panic!("{error:?}") };
    assert_eq!(cause.error.raw_os_error(), Some(libc::EDEADLK));
    let stuck = error.abandoned().unwrap();
    assert_eq!((stuck.requests.len(), stuck.errno), (1, None), "the deadline has passed");
    assert_eq!(stuck.requests[0].opcode_name(), "SEND_ZC");
    let kind = std::io::Error::from_raw_os_error(libc::EDEADLK).kind();
    assert_eq!(std::io::Error::from(error).kind(), kind);
}

#[test]
fn completions_of_strangers_neither_hurry_a_teardown_nor_hold_it_up() {
    let simulation = kernel(Faults { never: 1.0, ..Faults::none() });
    let does = Does::new(&[Kind::Sticks, Kind::Exits]);
    let mut ring = ring(&simulation, 4, 4, does).deadline(Duration::from_millis(440)).build().unwrap();
    // One every three milliseconds, in the middle of the waits; each names a slot as it was before or will be later.
    let kernel = simulation.clone();
    simulation.on_idle(move || {
        kernel.pass(3 * MS);
        // SAFETY: no request is so far on.
        unsafe { kernel.post(7 << 40 | 1, 0, 0) };
        true
    });
    assert!(ring.run().unwrap_err().abandoned().is_some());
    // The hook has the simulation, which has the hook.
    simulation.on_idle(|| false);
    assert!(ring.stats().foreign > 100);
    // At 0, 10, 30, 70, 150, 230, 310 and 390 ms, or a little later.
    assert_eq!(simulation.figures().cancels, 8, "{:?}", ring.stats());
}

#[test]
fn messages_in_a_teardown_do_not_keep_others_from_being_cancelled_again() {
    for (first, told) in [(Kind::PostsLate, vec![Kind::Late, Kind::Exits]), (Kind::Sends, vec![Kind::Exits])]
    {
        // A request begins so late that the first cancel misses it.
        let simulation = kernel(Faults { late: 1.0, ..Faults::none() });
        let does = Does::new(&[first]);
        let mut ring = ring(&simulation, 4, 4, does).grace(Duration::from_secs(1000)).build().unwrap();
        let began = simulation.now();
        ring.run().unwrap();
        assert_eq!(ring.does.told, [&told[..], &[Kind::Stays]].concat());
        assert!(simulation.now() - began < Duration::from_secs(1), "{:?}", simulation.now() - began);
    }
}
