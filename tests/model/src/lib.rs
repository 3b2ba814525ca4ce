//! Random programs on a ring, and what must hold for every one of them, whatever the kernel does.
//!
//! A [`Program`] is made from a seed: sizes of the queues, faults, what is submitted and cancelled when, how handlers
//! react, and how it ends. [`simulate`] runs one under the simulated kernel. It fails if
//!
//! * an accepted request does not end exactly once, or a handler hears of a request that is over;
//! * a handler is told anything but what the kernel has posted for that very request, in that order;
//! * data is not dropped exactly once, or is dropped while the kernel has its request, or is not where the kernel was
//!   told that it is;
//! * the kernel is given a request whose data is gone;
//! * a chain is torn apart, or one of its requests is separated from its timer, or overtaken by what came later; or a
//!   cancel comes before what it cancels;
//! * a handler is told that the time of a request was up when it was not, or the other way round; or it is told of a
//!   request of a chain while the kernel has the request's timer;
//! * what is refused comes back changed, or is refused without a valid reason: limits hold exactly;
//! * a buffer holds anything but what was received, or is written to while it is held;
//! * a file in the ring's table is closed while somebody holds it, or is open when nobody does and the ring waits; a
//!   request on it reaches another file, or any file after the end of the run; or a byte of one connection arrives at
//!   another;
//! * a stream goes on that has ended, or a stream ends that was only cut;
//! * a paused stream is armed, or a pause ends a stream, or is told;
//! * a run ends for no reason, or reports anything but what has failed, or leaves out what it abandons;
//! * after the end, something is left over in the ring's accounts, the backlog or a pool, or a descriptor is;
//! * the ring waits for what never comes, or spins.
//!
//! Which of that is checked where, the head of `world` says.
//!
//! [`explore`] runs many programs. One that fails is made smaller, as long as it still fails, and printed with its
//! seed. `RUMMEL_SEED=N` runs that one alone.

mod connections;
mod descriptors;
mod forged;
mod names;
mod neighbour;
mod program;
mod ring;
mod run;
mod surroundings;
mod world;

pub use forged::forge;
pub use program::{Action, End, Kind, Mode, Program};
pub use run::{Figures, explore, explore_for_real, programs, simulate};
