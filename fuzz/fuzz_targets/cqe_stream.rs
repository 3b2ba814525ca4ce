//! Completions of somebody's invention into a ring whose kernel does nothing else.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rummelplatz_model::forge(bytes));
