//! NOPs: each carries its counter.

use std::convert::Infallible;
use std::num::NonZeroU32;

use kit::by_hand::no_such_size;
use kit::{Args, Outcome, Pace, Report};
use rummelplatz::{
    Completion, CompletionResult, ControlFlow, RingOperation, SubmitError, Submitter, request, ring,
};

/// The state of one NOP, whose first word counts.
struct State<const WORDS: usize>([u64; WORDS]);

/// Keeps `depth` NOPs in flight.
struct Nops<const WORDS: usize> {
    depth: usize,
    pace: Pace,
    total: u64,
}

#[ring]
struct Bench<const WORDS: usize> {
    nops: Nops<WORDS>,
}

impl<const WORDS: usize> RingOperation<Bench<WORDS>> for Nops<WORDS> {
    type RingData = State<WORDS>;
    type SetupError = SubmitError;
    type TeardownError = Infallible;
    type ControlFlowWarn = Infallible;
    type ControlFlowError = kit::Error;

    fn setup(&mut self, mut submitter: Submitter<'_, Bench<WORDS>, Self>) -> Result<(), SubmitError> {
        for _ in 0..self.depth {
            submitter.submit(State([0; WORDS]), |_| request::nop())?;
        }
        Ok(())
    }

    fn on_completion(
        &mut self,
        completion: Completion,
        mut state: State<WORDS>,
        mut submitter: Submitter<'_, Bench<WORDS>, Self>,
    ) -> CompletionResult<Bench<WORDS>, Self> {
        if let Err(error) = completion.result() {
            return (ControlFlow::Error(error.into()), None);
        }
        state.0[0] += 1;
        if !self.pace.again() {
            self.total += state.0[0];
            return (ControlFlow::Continue, None);
        }
        match submitter.submit(state, |_| request::nop()) {
            Ok(_) => (ControlFlow::Continue, None),
            Err(error) => (ControlFlow::Error(error.into()), None),
        }
    }
}

/// Keeps `depth` NOPs in flight.
pub(crate) fn nop(args: &Args) -> Outcome {
    let depth = args.number("depth", 128)?;
    nops::<1>(depth, Pace::from_args(args, depth, 1_500_000)?)
}

/// Keeps `depth` NOPs in flight, each with a state of `size` bytes.
pub(crate) fn data(args: &Args) -> Outcome {
    let depth = args.number("depth", 32)?;
    let pace = Pace::from_args(args, depth, 1_000_000)?;
    match args.number("size", 64)? {
        8 => nops::<1>(depth, pace),
        64 => nops::<8>(depth, pace),
        256 => nops::<32>(depth, pace),
        4096 => nops::<512>(depth, pace),
        other => Err(no_such_size(other)),
    }
}

fn nops<const WORDS: usize>(depth: usize, pace: Pace) -> Outcome {
    let entries = NonZeroU32::new(4 * depth as u32).ok_or("depth=0")?;
    let mut bench = Bench::builder(Nops::<WORDS> { depth, pace, total: 0 }).entries(entries).build()?;
    bench.run()?;
    let Nops { pace, total, .. } = bench.nops;
    pace.finish(total)
}

/// Two operations that submit for each other, or each for itself.
struct Pair {
    depth: usize,
    pace: Pace,
    total: u64,
    to_other: bool,
}

struct Other;

#[ring]
struct Neighbours {
    pair: Pair,
    other: Other,
}

impl RingOperation<Neighbours> for Pair {
    type RingData = State<1>;
    type SetupError = SubmitError;
    type TeardownError = Infallible;
    type ControlFlowWarn = Infallible;
    type ControlFlowError = kit::Error;

    fn setup(&mut self, mut submitter: Submitter<'_, Neighbours, Self>) -> Result<(), SubmitError> {
        for _ in 0..self.depth {
            submitter.submit(State([0]), |_| request::nop())?;
        }
        Ok(())
    }

    fn on_completion(
        &mut self,
        completion: Completion,
        mut state: State<1>,
        mut submitter: Submitter<'_, Neighbours, Self>,
    ) -> CompletionResult<Neighbours, Self> {
        if let Err(error) = completion.result() {
            return (ControlFlow::Error(error.into()), None);
        }
        state.0[0] += 1;
        if !self.pace.again() {
            self.total += state.0[0];
            return (ControlFlow::Continue, None);
        }
        let submitted = match self.to_other {
            true => submitter.to(Neighbours::OTHER).submit(state, |_| request::nop()).map(drop),
            false => submitter.submit(state, |_| request::nop()).map(drop),
        };
        match submitted {
            Ok(()) => (ControlFlow::Continue, None),
            Err(error) => (ControlFlow::Error(error.into()), None),
        }
    }
}

impl RingOperation<Neighbours> for Other {
    type RingData = State<1>;
    type SetupError = Infallible;
    type TeardownError = Infallible;
    type ControlFlowWarn = Infallible;
    type ControlFlowError = kit::Error;

    fn on_completion(
        &mut self,
        completion: Completion,
        state: State<1>,
        mut submitter: Submitter<'_, Neighbours, Self>,
    ) -> CompletionResult<Neighbours, Self> {
        if let Err(error) = completion.result() {
            return (ControlFlow::Error(error.into()), None);
        }
        match submitter.to(Neighbours::PAIR).submit(state, |_| request::nop()) {
            Ok(_) => (ControlFlow::Continue, None),
            Err(error) => (ControlFlow::Error(error.into()), None),
        }
    }
}

/// NOPs that go to the other operation and come back, or that stay with their own. The first operation has `n`
/// completions, and the other has as many, or none.
pub(crate) fn neighbour(args: &Args) -> Outcome {
    let depth: usize = args.number("depth", 32)?;
    let to_other = match args.text("to", "self") {
        "self" => false,
        "other" => true,
        other => return Err(format!("`to={other}` is neither self nor other").into()),
    };
    let pace = Pace::from_args(args, depth, 1_000_000)?;
    let entries = NonZeroU32::new(4 * depth as u32).ok_or("depth=0")?;
    let pair = Pair { depth, pace, total: 0, to_other };
    let mut ring = Neighbours::builder(pair, Other).entries(entries).build()?;
    ring.run()?;
    let Pair { pace, total, .. } = ring.pair;
    let report = pace.finish(total)?;
    let completions = if to_other { 2 } else { 1 };
    Ok(Report { n: completions * report.n, check: completions * report.check, ..report })
}
