//! Programs under the simulated kernel.

#![no_main]

use rummelplatz_model::{Program, simulate};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let program = Program::from_bytes(bytes);
    if let Err(wrong) = simulate(&program) {
        panic!("{}\n{program}", wrong.join("\n"));
    }
});
