//! The catalogue of faults to survive, one test each, named by its number: `t` for teardown, `s` for
//! submission, `l` for the loop, `i` for identity, `e` for the environment, `m` for memory.
//! `docs/reliability.md` has the table.

mod environment;
mod identity;
mod looping;
mod memory;
mod submission;
mod teardown;
