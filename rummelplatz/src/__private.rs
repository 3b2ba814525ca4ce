//! The only names that generated code may use, besides the public ones. No promise is made to
//! anybody else.

pub use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

pub use crate::builder::{builder, new, new_raw_ring};
pub use crate::config::Options;
pub use crate::dispatch::{Glue, deliver, next_tag, setup, unclaimed};
pub use crate::parts::{RingParts, Round};
pub use crate::ring::{deliver_all, finish, fmt, handle, run, stats, submitter, turn};
pub use crate::runtime::Runtime;
pub use crate::shape::RingShape;
pub use crate::slab_cell::{SlabCell, SlabRef};

pub mod probe {
    pub use crate::__rummelplatz_operation_error as operation_error;
    pub use crate::__rummelplatz_show as show;
    pub use crate::probe::*;
}

pub mod handler {
    pub use crate::handler::*;
}

pub mod checked {
    pub use crate::checked::*;
}
