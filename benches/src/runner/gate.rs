//! The short form for CI: figures that are counted, and so the same on every machine and in every run.

use super::Error;
use super::arena::{Arena, Built, CONTESTANTS};

/// What is counted: instructions per completion as a ratio to `raw`, and allocations.
struct Shape {
    goal: &'static str,
    work: &'static str,
    args: &'static [&'static str],
    contestants: &'static [&'static str],
    /// What says how much is done, and how much for the shorter of two runs.
    size: (&'static str, u64),
    /// The goal, in multiples of `raw`.
    aim: f64,
    /// What has been reached: more than this is a regression.
    held: f64,
}

const BOTH: &[&str] = &["rummelplatz", "derived"];
const BY_HAND: &[&str] = &["rummelplatz"];

/// What was reached when the gates were set, and a tenth more, is `held`.
const SHAPES: &[Shape] = &[
    Shape {
        goal: "G1",
        work: "nop",
        args: &["depth=128"],
        contestants: BOTH,
        size: ("n", 20_000),
        aim: 1.15,
        held: 2.07,
    },
    Shape {
        goal: "G1",
        work: "nop",
        args: &["depth=32"],
        contestants: BOTH,
        size: ("n", 20_000),
        aim: 1.15,
        held: 2.02,
    },
    Shape {
        goal: "G1",
        work: "nop",
        args: &["depth=1"],
        contestants: BOTH,
        size: ("n", 20_000),
        aim: 1.15,
        held: 1.40,
    },
    Shape {
        goal: "G2",
        work: "echo",
        args: &["shape=multishot"],
        contestants: BY_HAND,
        size: ("batches", 20),
        aim: 1.05,
        held: 1.85,
    },
    Shape {
        goal: "G2",
        work: "echo",
        args: &["shape=oneshot"],
        contestants: BY_HAND,
        size: ("batches", 20),
        aim: 1.05,
        held: 1.83,
    },
    Shape {
        goal: "G3",
        work: "read",
        args: &["depth=32"],
        contestants: BY_HAND,
        size: ("n", 5_000),
        aim: 1.10,
        held: 1.92,
    },
];

/// Counts, prints a line for each gate, and says whether all hold.
pub(crate) fn gate(arena: &Arena) -> Result<bool, Error> {
    let find = |name: &str| -> Result<Built, Error> {
        let contestant = CONTESTANTS.iter().find(|it| it.name == name).ok_or("no such contestant")?;
        arena.build(contestant)
    };
    let raw = find("raw")?;
    let ours = [("rummelplatz", find("rummelplatz")?), ("derived", find("derived")?)];
    let mut all_hold = true;
    let mut judge = |line: String, holds: bool| {
        println!("{line}  {}", if holds { "ok" } else { "MISSED" });
        all_hold &= holds;
    };
    for Shape { goal, work, args, contestants, size, aim, held } in SHAPES {
        let bar = arena.instructions(&raw, work, args, *size)?;
        let what = format!("{work} {}", args.join(" "));
        for (name, built) in ours.iter().filter(|(name, _)| contestants.contains(name)) {
            let figure = arena.instructions(built, work, args, *size)?;
            let ratio = figure / bar;
            let aim = if ratio <= *aim { String::new() } else { format!(", goal {aim:.2} not reached") };
            judge(
                format!(
                    "{goal} {what:22} {name:11} {figure:6.1} instructions, raw {bar:6.1}: {ratio:.2} x, held at {held:.2}{aim}"
                ),
                ratio <= *held,
            );
        }
    }
    for Shape { work, args, contestants, size: (key, n), .. } in SHAPES {
        let what = format!("{work} {}", args.join(" "));
        for (name, built) in ours.iter().filter(|(name, _)| contestants.contains(name)) {
            let size = format!("{key}={}", 10 * n);
            let mut args = args.to_vec();
            args.push(&size);
            let report = arena.run(built, work, &args)?;
            let (count, bytes) = (report.allocs, report.bytes);
            judge(
                format!(
                    "G4 {what:22} {name:11} {count} allocations, {bytes} bytes in the steady state, bar 0"
                ),
                count == 0,
            );
        }
    }
    Ok(all_hold)
}
