//! NOPs, each with a deadline that it meets.

use std::convert::Infallible;
use std::num::NonZeroU32;
use std::time::Duration;

use kit::{Args, Outcome, Pace};
use rummelplatz::{
    Completion, CompletionResult, ControlFlow, Request, RingOperation, SubmitError, Submitter, request, ring,
};

/// Keeps `depth` NOPs in flight; the data of each counts.
struct Timed {
    depth: usize,
    pace: Pace,
    total: u64,
}

#[ring]
struct Bench {
    timed: Timed,
}

fn nop(_: &mut u64) -> Request<'_> {
    request::nop().deadline(Duration::from_secs(100_000))
}

impl RingOperation<Bench> for Timed {
    type RingData = u64;
    type SetupError = SubmitError;
    type TeardownError = Infallible;
    type ControlFlowWarn = Infallible;
    type ControlFlowError = kit::Error;

    fn setup(&mut self, mut submitter: Submitter<'_, Bench, Self>) -> Result<(), SubmitError> {
        for _ in 0..self.depth {
            submitter.submit(0, nop)?;
        }
        Ok(())
    }

    fn on_completion(
        &mut self,
        completion: Completion,
        count: u64,
        mut submitter: Submitter<'_, Bench, Self>,
    ) -> CompletionResult<Bench, Self> {
        if let Err(error) = completion.result() {
            return (ControlFlow::Error(error.into()), None);
        }
        let count = count + 1;
        if !self.pace.again() {
            self.total += count;
            return (ControlFlow::Continue, None);
        }
        match submitter.submit(count, nop) {
            Ok(_) => (ControlFlow::Continue, None),
            Err(error) => (ControlFlow::Error(error.into()), None),
        }
    }
}

/// Keeps `depth` NOPs with a deadline in flight.
pub(crate) fn deadline(args: &Args) -> Outcome {
    let depth = args.number("depth", 32)?;
    let pace = Pace::from_args(args, depth, 500_000)?;
    let entries = NonZeroU32::new(4 * depth as u32).ok_or("depth=0")?;
    let mut bench = Bench::builder(Timed { depth, pace, total: 0 }).entries(entries).build()?;
    bench.run()?;
    let Timed { pace, total, .. } = bench.timed;
    pace.finish(total)
}
