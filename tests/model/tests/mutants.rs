//! A test harness is worth what it catches: the random programs must find each of these faults in the core.
//! `RUSTFLAGS="--cfg mutant" cargo test --release -p rummelplatz-model --test mutants`
#![cfg(mutant)]

use std::process::{Command, Stdio};

use rummelplatz_model::explore;

/// How many programs may be run before the fault is found. Most are found by a few hundred, "a cancel overtakes" by
/// 10 158; there is room, because every change of the simulation makes other programs.
const PROGRAMS: u64 = 100_000;

/// Each name is that of a place in the core where `mutant::is` asks for it.
const MUTANTS: &[&str] = &[
    "one wave",
    "a drain is a barrier",
    "errors are final",
    "F_MORE means nothing",
    "the answers count",
    "cancelled is over",
    "a cancel needs room",
    "the backlog is forgotten",
    "all but EINTR ends it",
    "a signal ends it",
    "no generation",
    "chains are torn",
    "waves without bound",
    "only ends move",
    "a cancel's answer moves",
    "one of what is due",
    "what is known stays known",
    "what was never submitted ends well",
    "a cancel overtakes",
    "a cancel leaves no mark",
    "hopeless though a buffer is held",
    "the grace begins anew with each wait",
    "what finds no room is lost",
    "pools stay registered",
    "the stuck have no opcode",
    "one request more than may be",
    "a timer is not awaited",
    "a cancel is not repeated",
    "time is never up",
    "an alarm is the last",
    "the last clone closes nothing",
    "any clone closes the file",
    "a ring is not told what was left elsewhere",
    "a panic keeps files open",
    "what was cleared is still found",
    "files stay in the table",
    "a piece begins where the last one did",
    "what came with a message stays open",
    "a pipe stays open",
    "quiet for ever",
    "a pause is an end",
    "a pause is insisted on",
    "a paused stream goes on",
    "a cancel is repeated in vain",
];

const CHOSEN: &str = "RUMMEL_MUTANT";

#[test]
fn the_programs_find_what_is_wrong() {
    if std::env::var_os(CHOSEN).is_some() {
        return;
    }
    let mut survivors = Vec::new();
    for mutant in MUTANTS {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["explores", "--exact", "--nocapture"])
            .env(CHOSEN, mutant)
            .env("RUMMEL_PATIENCE", "3")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text =
            String::from_utf8_lossy(&child.stdout).into_owned() + &String::from_utf8_lossy(&child.stderr);
        // It may be found by what is checked, by a hang, or by a memory fault.
        let caught = !child.status.success();
        let how = text.lines().find(|line| line.contains("RUMMEL_SEED="));
        let how = how.map_or(child.status.to_string(), str::to_owned);
        println!("{} {mutant}: {how}", if caught { "caught  " } else { "SURVIVED" });
        if !caught {
            survivors.push(mutant);
        }
    }
    assert!(survivors.is_empty(), "not found within {PROGRAMS} programs: {survivors:?}");
}

/// What a child does.
#[test]
fn explores() {
    if std::env::var_os(CHOSEN).is_some() {
        explore(0, PROGRAMS).unwrap_or_else(|report| panic!("{report}"));
    }
}
