//! The log under a simulated kernel.
//!
//! `cargo test -p rummelplatz-examples --features sim --example wal`

use std::fs;
use std::io::{Read, Seek};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};

use rummelplatz::io_uring::opcode;
use rummelplatz::sim::{self, Answer, Faults, Simulation};

use super::*;

const LINES: usize = 1000;

/// Appends [`LINES`] lines, in several reads. Each write and each sync gets these answers. Returns what the file has in
/// the end, and how many lines were called safe.
fn append_under(
    simulation: &Simulation,
    mut write: impl FnMut() -> Answer + Send + 'static,
    mut sync: impl FnMut() -> Answer + Send + 'static,
) -> (String, Result<usize, String>) {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("wal-{}-{number}", std::process::id()));
    let file = OpenOptions::new().read(true).append(true).create_new(true).open(&path).unwrap();
    let mut written = file.try_clone().unwrap();
    fs::remove_file(&path).unwrap();

    let mut input = expected().into_bytes();
    simulation.limit_enters(100_000);
    simulation.on_request(move |asked| match asked.opcode {
        opcode::Read::CODE => Answer::Bytes(input.drain(..input.len().min(2000)).collect()),
        opcode::Write::CODE => write(),
        opcode::Fsync::CODE => sync(),
        _ => Answer::Perform,
    });
    let raw = simulation.raw_ring(NonZeroU32::new(16).unwrap()).unwrap();
    let mut wal = Wal::builder(Log::new(file, Duration::ZERO)).raw_ring(raw).build().unwrap();
    let result = wal.run().map_err(|error| error.to_string());
    written.rewind().unwrap(); // Both descriptors share their position.
    let mut text = String::new();
    written.read_to_string(&mut text).unwrap();
    (text, result.map(|()| wal.log.safe))
}

fn expected() -> String {
    (0..LINES).map(|line| format!("line {line}\n")).collect()
}

#[test]
fn all_lines_are_written_once_and_called_safe() {
    sim::explore(0..200, |simulation| {
        simulation.set_faults(Faults::usual());
        let perform = || Answer::Perform;
        assert!(append_under(&simulation, perform, perform) == (expected(), Ok(LINES)));
    });
}

#[test]
fn a_sync_that_was_cancelled_though_all_is_written_is_done_again() {
    sim::explore(0..100, |simulation| {
        simulation.set_faults(Faults::usual());
        let mut turn = 0;
        let every_third = move || {
            turn += 1;
            if turn % 3 == 0 { Answer::Perform } else { Answer::Finish(-nix::libc::ECANCELED) }
        };
        assert!(append_under(&simulation, || Answer::Perform, every_third) == (expected(), Ok(LINES)));
    });
}

#[test]
fn a_write_of_nothing_is_an_error() {
    sim::explore(0..20, |simulation| {
        let (text, result) = append_under(&simulation, || Answer::Finish(0), || Answer::Perform);
        assert_eq!(text, "");
        assert!(result.unwrap_err().contains("can't write"));
    });
}
