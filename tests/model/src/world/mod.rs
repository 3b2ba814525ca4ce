//! What surrounds the ring of a program: the accounts of what was accepted, delivered and dropped, the answers of the
//! kernel, and what must hold of the two. Handlers and whoever drives the ring say here what they do and what they are
//! told; whatever is wrong is noted, and returned in the end.
//!
//! Modules import only those above them in this table, and none imports the ring:
//!
//! | Module | What it is |
//! |---|---|
//! | `request`, `pools`, `files` | what is known of a request; pools and buffers that are held; files in the ring's table |
//! | `entries`, `messages`, `results` | what must hold of their order, and of results, whoever asks |
//! | `accounts` | all of that together, behind a lock: [`World`] |
//! | `log`, `kernel` | what the simulated kernel has done, and its answers |
//! | `data` | the data of a request |
//! | `posted` | compares a delivery with what was posted |
//! | `submissions`, `held`, `pauses`, `deliveries` | judge what is accepted and refused, what handlers hold, what is paused, what they are told |
//! | `figures`, `end` | judge what the ring says of itself, and what is left over |
//! | `choices`, `outside` | what handlers do beyond the program, and what comes from outside |

mod accounts;
mod choices;
mod data;
mod deliveries;
mod end;
mod entries;
mod figures;
mod files;
mod held;
mod kernel;
mod log;
mod messages;
mod outside;
mod pauses;
mod pools;
mod posted;
mod request;
mod results;
mod submissions;

pub(crate) use accounts::World;
pub(crate) use data::{Data, Heap};
pub(crate) use pools::Piece;
pub(crate) use submissions::Caller;
