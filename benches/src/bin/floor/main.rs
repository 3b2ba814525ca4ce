//! The contestant `floor`: the same loops as `raw`, on queues of its own. Entries are written in place, heads and tails
//! are published once for each batch, `io_uring_enter` is an instruction, and the ring's descriptor is registered.

mod queues;

use std::process::ExitCode;

use kit::by_hand;
use kit::{Args, Outcome};
use queues::Own;

fn serve(args: &Args) -> Outcome {
    by_hand::serve::<Own>("floor", args)
}

fn main() -> ExitCode {
    let mut works = by_hand::works::<Own>();
    works.push(("serve", serve));
    kit::contest("floor", &works)
}
