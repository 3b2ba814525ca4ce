//! The Rust framework for programs that live on io_uring without an async runtime.

#[doc(hidden)]
#[allow(missing_docs)]
pub mod __private;

mod backlog;
mod buffers;
mod checked;
mod clock;
mod completion;
mod config;
mod core;
mod dispatch;
mod error;
mod handle;
mod handler;
mod lifecycle;
mod operation;
mod probe;
mod queue;
mod record;
pub mod request;
mod ring;
mod runtime;
mod settle;
mod slab;
mod stats;
mod submission;
mod tag;
mod teardown;
mod user_data;
mod wake;

pub use io_uring;
pub use rummelplatz_macros::{RingOperation, ring};

pub use crate::buffers::{Buffer, BufferPool};
pub use crate::completion::{Completion, RawCompletion};
pub use crate::config::{Builder, RawRing, Warning};
pub use crate::error::{
    BuildError, BuildErrorKind, Cause, Refused, RingError, Stuck, StuckRequest, SubmitError,
};
pub use crate::handle::{RingHandle, SendError};
pub use crate::handler::ResultExt;
pub use crate::operation::{CompletionResult, ControlFlow, RingOperation};
pub use crate::request::{Request, Stream};
pub use crate::ring::{Progress, Ring, Status};
pub use crate::stats::{OperationStats, Stats};
pub use crate::submission::{SubmissionQueueSubmitter, Submitter};
pub use crate::tag::{Key, Tag};
