//! What it costs to write the same operation in different ways, for `docs/performance.md`. It is only counted, and is
//! in no report.

mod bare;
mod beside;
mod datagrams;
mod elsewhere;
mod helper;
mod pair;
mod provided;

use std::num::NonZeroU32;
use std::process::ExitCode;

use kit::{Args, Error};

/// How many completions, and how many requests in flight.
fn sizes(args: &Args) -> Result<(u64, u32, NonZeroU32), Error> {
    let depth: u32 = args.number("depth", 128)?;
    let entries = NonZeroU32::new(4 * depth).ok_or("depth=0")?;
    Ok((args.number("n", 60_000)?, depth, entries))
}

fn main() -> ExitCode {
    let pairs: [(&str, kit::Work); 4] = [
        ("pair-small", pair::small),
        ("pair-half", pair::half),
        ("pair-large", pair::large),
        ("pair-boxed", pair::boxed),
    ];
    let nops: [(&str, kit::Work); 8] = [
        ("handler", helper::handler),
        ("data", helper::data),
        ("helper", helper::helper),
        ("by-reference", helper::by_reference),
        ("inline", helper::inline),
        ("always", helper::always),
        ("elsewhere", elsewhere::plain::nop),
        ("elsewhere-inline", elsewhere::inline::nop),
    ];
    let reads: [(&str, kit::Work); 2] =
        [("read-own", provided::read::<false>), ("read-provided", provided::read::<true>)];
    let others: [(&str, kit::Work); 2] = [("bare", bare::nop), ("datagrams", datagrams::datagrams)];
    kit::contest("idioms", &[&nops[..], &beside::WORKS, &pairs, &reads, &others].concat())
}
