//! The short form for CI: figures that are counted, and so are the same on every machine and in every run.

use super::arena::{Arena, Built, CONTEST, CONTESTANTS};
use super::{Error, load};

/// What is counted: instructions per completion as a ratio to `raw`, and allocations.
struct Shape {
    goal: &'static str,
    work: &'static str,
    args: &'static [&'static str],
    contestants: &'static [&'static str],
    /// The argument that says how much is done, and its value for the shorter of two runs.
    size: (&'static str, u64),
    /// The goal, in multiples of `raw`.
    aim: f64,
    /// The figure that is held: more than this is a regression.
    held: f64,
    /// The same in cargo's own release profile, in which most programs are built.
    held_in_release: f64,
}

/// Cargo's own release profile.
const RELEASE: &str = "release";

const BOTH: &[&str] = &["rummelplatz", "derived"];
const BY_HAND: &[&str] = &["rummelplatz"];

/// The figures that are held are what was reached when the gates were set, plus a tenth.
const SHAPES: &[Shape] = &[
    Shape {
        goal: "G1",
        work: "nop",
        args: &["depth=128"],
        contestants: BOTH,
        size: ("n", 20_000),
        aim: 1.15,
        held: 1.44,
        held_in_release: 1.10,
    },
    Shape {
        goal: "G1",
        work: "nop",
        args: &["depth=32"],
        contestants: BOTH,
        size: ("n", 20_000),
        aim: 1.15,
        held: 1.40,
        held_in_release: 1.09,
    },
    Shape {
        goal: "G1",
        work: "nop",
        args: &["depth=1"],
        contestants: BOTH,
        size: ("n", 20_000),
        aim: 1.15,
        held: 1.00,
        held_in_release: 0.93,
    },
    Shape {
        goal: "G2",
        work: "echo",
        args: &["shape=multishot"],
        contestants: BY_HAND,
        size: ("batches", 20),
        aim: 1.05,
        held: 1.61,
        held_in_release: 1.42,
    },
    Shape {
        goal: "G2",
        work: "echo",
        args: &["shape=oneshot"],
        contestants: BY_HAND,
        size: ("batches", 20),
        aim: 1.05,
        held: 1.36,
        held_in_release: 1.13,
    },
    Shape {
        goal: "G3",
        work: "read",
        args: &["depth=32"],
        contestants: BY_HAND,
        size: ("n", 5_000),
        aim: 1.10,
        held: 1.39,
        held_in_release: 1.28,
    },
    Shape {
        goal: "G3",
        work: "read",
        args: &["mode=fixed", "depth=32"],
        contestants: BY_HAND,
        size: ("n", 5_000),
        aim: 1.10,
        held: 1.92,
        held_in_release: 1.70,
    },
    // To timers that are linked by hand.
    Shape {
        goal: "-",
        work: "deadline",
        args: &["depth=32"],
        contestants: &["rummelplatz"],
        size: ("n", 20_000),
        aim: 2.10,
        held: 2.10,
        held_in_release: 2.10,
    },
];

/// The works in which nothing may be allocated for each accepted connection, once they are warm.
const CHURN: &[&[&str]] = &[&["shape=multishot", "churn=1"], &["shape=oneshot", "churn=1"]];

/// System calls for each request of 64 loaded connections.
const SYSTEM_CALLS: f64 = 0.15;

/// Quiet connections, and the heap bytes for each. The goal is this many bytes plus the user's data: here the data is
/// included.
const IDLE: (usize, &[&str]) = (10_000, &["shape=multishot", "buffers=64"]);
const IDLE_BYTES: f64 = 256.0;

/// How many instructions a completion may gain when its data grows from 8 to 256 bytes: two moves of the data, sixteen
/// bytes at a time; and what is held.
const TWO_MOVES: f64 = 2.0 * 2.0 * 256.0 / 16.0;
const GROWTH_HELD: f64 = 75.0;

/// Prints the verdicts, and remembers whether all gates hold.
struct Judge {
    all_hold: bool,
}

impl Judge {
    fn say(&mut self, goal: &str, what: &str, who: &str, figure: &str, holds: bool) {
        let verdict = if holds { "ok" } else { "MISSED" };
        println!("{goal:3} {what:24} {who:11} {figure}  {verdict}");
        self.all_hold &= holds;
    }

    /// Reports what can't be counted here, which is not a failure.
    fn pass(goal: &str, what: &str, who: &str, error: &Error) {
        println!("{goal:3} {what:24} {who:11} not counted: {error}");
    }
}

/// Counts, prints a line for each gate, and says whether all hold.
pub(crate) fn gate(arena: &Arena) -> Result<bool, Error> {
    let find = |profile: &str, name: &str| -> Result<Built, Error> {
        let contestant = CONTESTANTS.iter().find(|it| it.name == name).ok_or("no such contestant")?;
        arena.build_in(profile, contestant)
    };
    let (raw, rummelplatz, derived) =
        (find(CONTEST, "raw")?, find(CONTEST, "rummelplatz")?, find(CONTEST, "derived")?);
    let ours = [&rummelplatz, &derived];
    let mut judge = Judge { all_hold: true };
    for shape in SHAPES {
        let ours: Vec<_> = ours.into_iter().filter(|one| shape.contestants.contains(&one.name)).collect();
        instructions(arena, shape, &raw, &ours, "", shape.held, &mut judge)?;
    }
    let (raw, ours_in_release) = (find(RELEASE, "raw")?, find(RELEASE, "rummelplatz")?);
    for shape in SHAPES {
        let held = shape.held_in_release;
        instructions(arena, shape, &raw, &[&ours_in_release], " (release)", held, &mut judge)?;
    }
    for Shape { work, args, contestants, size: (key, n), .. } in SHAPES {
        for one in ours.iter().filter(|one| contestants.contains(&one.name)) {
            allocations(arena, one, work, args, &format!("{key}={}", 10 * n), &mut judge)?;
        }
    }
    for args in CHURN {
        allocations(arena, &rummelplatz, "echo", args, "batches=50", &mut judge)?;
    }
    for args in [&["shape=multishot"], &["shape=oneshot"]] {
        let what = format!("echo {}", args.join(" "));
        match arena.system_calls(&rummelplatz, "echo", args, ("batches", 20)) {
            Ok(calls) => {
                let figure = format!("{calls:.3} system calls for each request, bar {SYSTEM_CALLS}");
                judge.say("G8", &what, rummelplatz.name, &figure, calls <= SYSTEM_CALLS);
            }
            Err(error) => Judge::pass("G8", &what, rummelplatz.name, &error),
        }
    }
    let (conns, args) = IDLE;
    let what = format!("{conns} quiet connections");
    match load::idle(arena, &rummelplatz, args, conns) {
        Ok(idle) => {
            let bytes = idle.heap_bytes;
            let figure =
                format!("{bytes:.0} bytes of the heap for each, its data included, bar {IDLE_BYTES}");
            judge.say("G9", &what, rummelplatz.name, &figure, bytes <= IDLE_BYTES);
        }
        Err(error) => Judge::pass("G9", &what, rummelplatz.name, &error),
    }
    let data = |size| arena.instructions(&rummelplatz, "data", &[size, "depth=32"], ("n", 20_000));
    let growth = data("size=256")? - data("size=8")?;
    let figure = format!("{growth:6.1} instructions more, two moves are {TWO_MOVES}, held at {GROWTH_HELD}");
    judge.say("G11", "data from 8 to 256 bytes", rummelplatz.name, &figure, growth <= GROWTH_HELD);
    Ok(judge.all_hold)
}

/// G1 to G3: instructions for each completion.
fn instructions(
    arena: &Arena,
    shape: &Shape,
    raw: &Built,
    ours: &[&Built],
    profile: &str,
    held: f64,
    judge: &mut Judge,
) -> Result<(), Error> {
    let Shape { goal, work, args, size, aim, .. } = *shape;
    let bar = arena.instructions(raw, work, args, size)?;
    let what = format!("{work} {}{profile}", args.join(" "));
    for one in ours {
        let figure = arena.instructions(one, work, args, size)?;
        let ratio = figure / bar;
        let aim = if ratio <= aim { String::new() } else { format!(", goal {aim:.2} not reached") };
        let figure =
            format!("{figure:6.1} instructions, raw {bar:6.1}: {ratio:.2} x, held at {held:.2}{aim}");
        judge.say(goal, &what, one.name, &figure, ratio <= held);
    }
    Ok(())
}

/// G4: in the steady state, nothing is allocated.
fn allocations(
    arena: &Arena,
    one: &Built,
    work: &str,
    args: &[&str],
    size: &str,
    judge: &mut Judge,
) -> Result<(), Error> {
    let what = format!("{work} {}", args.join(" "));
    let args: Vec<&str> = args.iter().copied().chain([size]).collect();
    let report = arena.run(one, work, &args)?;
    let figure = format!("{} allocations, {} bytes in the steady state, bar 0", report.allocs, report.bytes);
    judge.say("G4", &what, one.name, &figure, report.allocs == 0);
    Ok(())
}
