//! Mutated items and token soup into both macros.

#![no_main]
#![forbid(unsafe_code)]

#[path = "../../rummelplatz-macros/src/args.rs"]
mod args;
#[path = "../../rummelplatz-macros/src/diag.rs"]
mod diag;
#[path = "../../rummelplatz-macros/src/mutations.rs"]
mod mutations;
#[path = "../../rummelplatz-macros/src/operation/mod.rs"]
mod operation;
#[path = "../../rummelplatz-macros/src/ring/mod.rs"]
mod ring;

use libfuzzer_sys::fuzz_target;

use crate::mutations::{Choices, Input};

/// Each byte is a choice; after the last one, the first is always chosen.
struct Bytes<'a>(std::slice::Iter<'a, u8>);

impl Choices for Bytes<'_> {
    fn below(&mut self, bound: usize) -> usize {
        self.0.next().map_or(0, |byte| usize::from(*byte) % bound)
    }
}

fuzz_target!(|bytes: &[u8]| {
    Input::choose(&mut Bytes(bytes.iter())).judge();
});
