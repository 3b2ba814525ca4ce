//! The catalogue of faults to survive. There is one test for each, named by its number: `t` for teardown, `s` for
//! submission, `l` for the loop, `i` for identity, `e` for the environment, `m` for memory.
//! `docs/faults.md` has the table.

mod environment;
mod identity;
mod looping;
mod memory;
mod submission;
mod teardown;
