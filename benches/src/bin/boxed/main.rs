//! The contestant `boxed`: a box for each request, whose address is the `user_data`, as in the library that rummelplatz
//! was modelled on.

use std::io;
use std::process::ExitCode;

use io_uring::{IoUring, opcode};
use kit::by_hand::no_such_size;
use kit::{Args, Outcome, Pace};

/// The state of one NOP, whose first word counts, and what is done when it completes.
struct Request<const WORDS: usize> {
    complete: fn(&mut [u64; WORDS]),
    state: [u64; WORDS],
}

fn nop(args: &Args) -> Outcome {
    let depth = args.number("depth", 128)?;
    nops::<1>(depth, Pace::from_args(args, depth, 1_500_000)?)
}

fn data(args: &Args) -> Outcome {
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
    let mut builder = IoUring::builder();
    builder.setup_coop_taskrun().setup_single_issuer().setup_defer_taskrun();
    let mut ring: IoUring = builder.build(4 * depth as u32)?;
    let (submitter, mut queue, mut completions) = ring.split();
    let mut push = |state| {
        let request = Box::new(Request::<WORDS> { complete: |state| state[0] += 1, state });
        let user_data = Box::into_raw(request).expose_provenance() as u64;
        // SAFETY: a NOP points to nothing.
        let pushed = unsafe { queue.push(&opcode::Nop::new().build().user_data(user_data)) };
        queue.sync();
        pushed.map_err(io::Error::other)
    };
    for _ in 0..depth {
        push([0; WORDS])?;
    }
    let mut total = 0;
    while !pace.is_over() {
        match submitter.submit_and_wait(1) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        completions.sync();
        for completion in &mut completions {
            let address = completion.user_data() as usize;
            // SAFETY: the address is that of a box that `push` has leaked, and its one completion is this.
            let mut request =
                unsafe { Box::from_raw(std::ptr::with_exposed_provenance_mut::<Request<WORDS>>(address)) };
            if completion.result() < 0 {
                return Err(io::Error::from_raw_os_error(-completion.result()).into());
            }
            (request.complete)(&mut request.state);
            match pace.again() {
                true => push(request.state)?,
                false => total += request.state[0],
            }
        }
    }
    pace.finish(total)
}

fn main() -> ExitCode {
    kit::contest("boxed", &[("nop", nop), ("data", data)])
}
