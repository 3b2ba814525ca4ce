//! NOPs, each with a counter.

use std::num::NonZeroU32;

use kit::{Args, Error, Outcome, Pace};
use rummelplatz::{Completion, RingOperation, Submitter, request, ring};

/// Keeps `depth` NOPs in flight.
#[derive(RingOperation)]
#[ring_operation(ring = Bench, data = u64, error = Error, setup, on_completion)]
struct Nops {
    depth: usize,
    pace: Pace,
    total: u64,
}

#[ring]
struct Bench {
    nops: Nops,
}

impl Nops {
    fn setup(&mut self, mut submitter: Submitter<'_, Bench, Self>) -> Result<(), Error> {
        for _ in 0..self.depth {
            submitter.submit(0, |_| request::nop())?;
        }
        Ok(())
    }

    fn on_completion(
        &mut self,
        completion: Completion,
        counter: u64,
        mut submitter: Submitter<'_, Bench, Self>,
    ) -> Result<(), Error> {
        completion.result()?;
        match self.pace.again() {
            true => drop(submitter.submit(counter + 1, |_| request::nop())?),
            false => self.total += counter + 1,
        }
        Ok(())
    }
}

pub(crate) fn nop(args: &Args) -> Outcome {
    let depth = args.number("depth", 128)?;
    let pace = Pace::from_args(args, depth, 1_500_000)?;
    let entries = NonZeroU32::new(4 * depth as u32).ok_or("depth=0")?;
    let mut bench = Bench::builder(Nops { depth, pace, total: 0 }).entries(entries).build()?;
    bench.run()?;
    let Nops { pace, total, .. } = bench.nops;
    pace.finish(total)
}
