//! What is told through `tracing`. A process has only one subscriber for all threads, so there is one test.

#![cfg(all(feature = "tracing", feature = "sim"))]

use std::convert::Infallible;
use std::fmt::Debug;
use std::io::{self, PipeReader};
use std::num::NonZeroU32;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use rummelplatz::sim::{Answer, Faults, Simulation};
use rummelplatz::{Completion, CompletionResult, ControlFlow, RingOperation, Submitter, request, ring};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

type Fields = Vec<(&'static str, String)>;

/// Passes on the level and the fields of each event of this crate.
struct PassesOn(Sender<(Level, Fields)>);

impl Subscriber for PassesOn {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("rummelplatz::")
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        unreachable!("there are no spans")
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut fields = Shown(Fields::new());
        event.record(&mut fields);
        self.0.send((*event.metadata().level(), fields.0)).ok();
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

struct Shown(Fields);

impl Visit for Shown {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.push((field.name(), format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.push((field.name(), value.to_owned()));
    }
}

#[ring]
struct Told {
    tells: Tells,
}

struct Tells;

/// What a request reads from, or sends to, and its memory.
type Data = (PipeReader, [u8; 8]);

impl RingOperation<Told> for Tells {
    type RingData = Data;
    type SetupError = Infallible;
    type TeardownError = Infallible;
    type ControlFlowWarn = &'static str;
    type ControlFlowError = Infallible;

    fn on_completion(
        &mut self,
        _: Completion,
        data: Data,
        _: Submitter<'_, Told, Self>,
    ) -> CompletionResult<Told, Self> {
        (ControlFlow::Warn("it rains"), Some(data))
    }
}

#[test]
fn warnings_what_is_returned_late_and_what_is_abandoned_are_told_of() {
    let (events, told) = channel();
    tracing::subscriber::set_global_default(PassesOn(events)).unwrap();
    let simulation = Simulation::new(1);
    simulation.set_faults(Faults { never: 1.0, ..Faults::none() });
    simulation.on_request(|asked| match asked.name() {
        "SEND_ZC" => Answer::Finish(8),
        _ => Answer::Perform,
    });
    let raw = simulation.raw_ring(NonZeroU32::MIN).unwrap();
    let builder = Told::builder(Tells).raw_ring(raw).deadline(Duration::from_millis(50));
    let mut ring = builder.build().unwrap();
    let data = || (io::pipe().unwrap().0, [0; 8]);
    let mut submitter = ring.submitter(Told::TELLS);
    submitter.submit(data(), |_| request::nop()).unwrap();
    // The kernel never lets go of its memory.
    submitter.submit(data(), |(socket, bytes)| request::send_zc(socket, bytes)).unwrap();
    while ring.stats().in_flight > 1 {
        ring.turn().unwrap();
    }
    drop(ring);

    let told: Vec<_> = told.try_iter().collect();
    let of_operation = |message: &str| {
        [("message", message), ("ring", "Told"), ("operation", "tells")]
            .map(|(name, value)| (name, value.into()))
    };
    let [warning, late, (level, abandoned)] = &told[..] else { panic!("{told:?}") };
    assert_eq!(*warning, (Level::WARN, of_operation("it rains").to_vec()));
    let message = "data was returned for a request that is over";
    assert_eq!(*late, (Level::WARN, of_operation(message).to_vec()));
    let [("message", stuck), ("ring", ring)] = &abandoned[..] else { panic!("{abandoned:?}") };
    assert_eq!((*level, ring.as_str()), (Level::ERROR, "Told"));
    assert!(stuck.contains("SEND_ZC of `tells`"), "{stuck}");
}
