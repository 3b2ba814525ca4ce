//! NOPs, and what their requests carry.

use io_uring::opcode;

use super::{Completion, Queue, Ring};
use crate::{Args, Error, Outcome, Pace, skip};

/// Keeps `depth` NOPs in flight.
///
/// # Errors
///
/// If the arguments make no sense, or the system refuses.
pub fn nop<R: Ring>(args: &Args) -> Outcome {
    let depth = args.number("depth", 128)?;
    nops::<R, 1>(args, depth, Pace::from_args(args, depth, 1_500_000)?)
}

/// Keeps `depth` NOPs in flight, each with a state of `size` bytes.
pub(super) fn data<R: Ring>(args: &Args) -> Outcome {
    let depth = args.number("depth", 32)?;
    let pace = Pace::from_args(args, depth, 1_000_000)?;
    match args.number("size", 64)? {
        8 => nops::<R, 1>(args, depth, pace),
        64 => nops::<R, 8>(args, depth, pace),
        256 => nops::<R, 32>(args, depth, pace),
        4096 => nops::<R, 512>(args, depth, pace),
        other => Err(no_such_size(other)),
    }
}

/// The error of a `size` that is not among those of `data`.
pub fn no_such_size(size: usize) -> Error {
    skip(format!("no data of {size} bytes"))
}

/// The states are in a table, and stay there: `user_data` says where. Their first word counts.
fn nops<R: Ring, const WORDS: usize>(args: &Args, depth: usize, pace: Pace) -> Outcome {
    let mut ring = R::build(args, (4 * depth) as u32)?;
    let mut states = vec![[0u64; WORDS]; depth];
    let nop = |slot: u64| opcode::Nop::new().build().user_data(slot);
    let first = (0..depth as u64).map(nop);
    let complete = |queue: &mut R::Queue<'_>, completion: Completion| {
        completion.ok()?;
        states[completion.user_data as usize][0] += 1;
        if pace.again() {
            // SAFETY: a NOP points to nothing.
            unsafe { queue.push(nop(completion.user_data)) };
            return Ok(false);
        }
        Ok(pace.is_over())
    };
    // SAFETY: as above.
    unsafe { ring.run(first, complete) }?;
    pace.finish(states.iter().map(|state| state[0]).sum())
}
