//! What a work costs, and the line of JSON that says so.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Heap, clock};

/// The steady state of a work: from when it is warm to its last completion.
#[derive(Clone, Copy, Debug)]
#[must_use = "a window that is not closed measures nothing"]
pub struct Window {
    heap: Heap,
    cpu: u64,
    wall: u64,
}

impl Window {
    /// Begins to measure.
    pub fn open() -> Window {
        Window { heap: Heap::now(), cpu: clock::cpu(), wall: clock::wall() }
    }

    /// Ends: `n` completions were asked for, `check` were done and found correct.
    pub fn close(self, n: u64, check: u64) -> Report {
        let (wall, cpu, heap) = (clock::wall(), clock::cpu(), Heap::now());
        Report {
            n,
            wall_ns: wall - self.wall,
            cpu_ns: cpu - self.cpu,
            allocs: heap.allocations - self.heap.allocations,
            bytes: heap.bytes - self.heap.bytes,
            check,
            extra: BTreeMap::new(),
        }
    }
}

/// What a work cost.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Report {
    /// How many completions or requests were asked for.
    pub n: u64,
    /// `CLOCK_MONOTONIC` over the window.
    pub wall_ns: u64,
    /// `CLOCK_PROCESS_CPUTIME_ID` over the window.
    pub cpu_ns: u64,
    /// Allocations in the window.
    pub allocs: u64,
    /// Bytes allocated in the window.
    pub bytes: u64,
    /// How many were really done, and verified.
    pub check: u64,
    /// Other figures, by name.
    #[serde(flatten)]
    pub extra: BTreeMap<String, f64>,
}

impl Report {
    /// Adds a figure.
    #[must_use]
    pub fn with(mut self, name: &str, figure: f64) -> Report {
        self.extra.insert(name.to_owned(), figure);
        self
    }
}

/// What a contestant prints.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Line {
    /// The contestant.
    pub name: String,
    /// The work.
    pub work: String,
    /// How it went.
    #[serde(flatten)]
    pub result: Result,
}

/// How a work went.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Result {
    /// Not at all.
    Skipped {
        /// Why.
        skipped: String,
    },
    /// To its end.
    Done(Report),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_can_be_read_again() {
        let report = Window::open().close(3, 3).with("batch_ns_p10", 1.5);
        for result in [Result::Done(report), Result::Skipped { skipped: "no ring".to_owned() }] {
            let line = Line { name: "raw".to_owned(), work: "nop".to_owned(), result };
            let text = serde_json::to_string(&line).unwrap();
            assert_eq!(serde_json::from_str::<Line>(&text).unwrap(), line, "{text}");
        }
    }
}
