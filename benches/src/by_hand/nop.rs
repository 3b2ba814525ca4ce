//! NOPs, and what their requests carry.

use io_uring::opcode;
use io_uring::squeue::Flags;
use io_uring::types::Timespec;

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

/// Keeps `depth` NOPs in flight, each with a timer that is linked to it and never expires. The next NOP begins when
/// both have completed, in whatever order.
pub(super) fn deadline<R: Ring>(args: &Args) -> Outcome {
    static LONG: Timespec = Timespec::new().sec(100_000);
    const TIMER: u64 = 1 << 32;
    let depth = args.number("depth", 32)?;
    let pace = Pace::from_args(args, depth, 500_000)?;
    let mut ring = R::build(args, (4 * depth) as u32)?;
    // How often each has completed, and whether one of the two has completed without the other.
    let mut states = vec![(0_u64, false); depth];
    let pair = |slot: u64| {
        let nop = opcode::Nop::new().build().flags(Flags::IO_LINK).user_data(slot);
        [nop, opcode::LinkTimeout::new(&raw const LONG).build().user_data(slot | TIMER)]
    };
    let first = (0..depth as u64).flat_map(pair);
    let complete = |queue: &mut R::Queue<'_>, completion: Completion| {
        let slot = completion.user_data & !TIMER;
        if slot == completion.user_data {
            completion.ok()?;
        }
        let (count, is_half_done) = &mut states[slot as usize];
        *is_half_done = !*is_half_done;
        if *is_half_done {
            return Ok(false);
        }
        *count += 1;
        if pace.again() {
            for entry in pair(slot) {
                // SAFETY: a NOP points to nothing, and the time lives for ever.
                unsafe { queue.push(entry) };
            }
            return Ok(false);
        }
        Ok(pace.is_over())
    };
    // SAFETY: as above.
    unsafe { ring.run(first, complete) }?;
    pace.finish(states.iter().map(|(count, _)| count).sum())
}

/// The states are in a table, and stay there; `user_data` says where. Their first word counts.
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
