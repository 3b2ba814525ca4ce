//! What the contestants share: arguments, the line of JSON that they print, clocks, the counting allocator, and the
//! other end of their work: the file that they read, the client that they answer.
//!
//! A contestant is one binary with several works:
//!
//! ```no_run
//! use kit::{Args, Outcome, Pace};
//!
//! fn nop(args: &Args) -> Outcome {
//!     let pace = Pace::from_args(args, 1, 1_500_000)?;
//!     let mut counter = 0;
//!     loop {
//!         counter += 1; // a NOP, submitted and completed
//!         if !pace.again() {
//!             return pace.finish(counter);
//!         }
//!     }
//! }
//!
//! fn main() -> std::process::ExitCode {
//!     kit::contest("raw", &[("nop", nop)])
//! }
//! ```

mod args;
pub mod by_hand;
pub mod clock;
pub mod contest;
pub mod echo;
pub mod file;
pub mod heap;
mod pace;
mod report;

pub use args::Args;
pub use contest::{Error, Outcome, Work, contest, pin, skip};
pub use heap::Heap;
pub use pace::Pace;
pub use report::{Line, Report, Result, Window};

#[global_allocator]
static ALLOCATOR: heap::Counting = heap::Counting;
