//! Reads without io_uring.

use std::os::unix::fs::FileExt;

use kit::file::{self, Block, Offsets};
use kit::{Args, Outcome, Pace};

/// Reads as all others do; with `mode=pread`, one `pread(2)` after the other.
pub(crate) fn read(args: &Args) -> Outcome {
    if args.text("mode", "plain") != "pread" {
        return kit::by_hand::read::<super::ring::Crate>(args);
    }
    let file = file::open(args)?;
    let pace = Pace::from_args(args, 1, 250_000)?;
    let (mut block, mut offsets, mut counter) = (Block::default(), Offsets::default(), 0);
    loop {
        let offset = offsets.draw();
        file.read_exact_at(&mut block.0, offset)?;
        if !block.is_from(offset) {
            return Err(format!("wrong bytes at {offset}").into());
        }
        counter += 1;
        if !pace.again() {
            return pace.finish(counter);
        }
    }
}
