//! Not a contestant, but `raw` with one thing done differently. It is a binary of its own, so that the bar has no code
//! in it that it does not run.

#[path = "../raw/ring.rs"]
mod ring;

use std::io;
use std::process::ExitCode;

use io_uring::types::SubmitArgs;
use io_uring::{Builder, Submitter};
use kit::by_hand;
use kit::{Args, Outcome};
use ring::{Crate, Plain, Wait};

/// A kernel thread looks for entries, on the same CPU, because there may be no other.
struct SqPoll;

impl Wait for SqPoll {
    fn setup(builder: &mut Builder) {
        builder.setup_sqpoll(1000).setup_sqpoll_cpu(0);
    }
}

/// A wait is for eight completions, or for whatever has come after 50 µs.
struct MinWait;

impl Wait for MinWait {
    fn submit_and_wait(submitter: &Submitter<'_>, want: usize) -> io::Result<usize> {
        submitter.submit_with_args(8 * want, &SubmitArgs::new().min_wait_usec(50))
    }
}

fn nop(args: &Args) -> Outcome {
    match args.text("wait", "plain") {
        "sqpoll" => by_hand::nop::<Crate<SqPoll>>(args),
        _ => by_hand::nop::<Crate<Plain>>(args),
    }
}

fn echo(args: &Args) -> Outcome {
    match args.text("wait", "plain") {
        "sqpoll" => by_hand::echo::<Crate<SqPoll>>(args),
        "min-wait" => by_hand::echo::<Crate<MinWait>>(args),
        _ => by_hand::trade::<Crate<Plain>>(args),
    }
}

fn main() -> ExitCode {
    kit::contest("trades", &[("nop", nop), ("echo", echo)])
}
