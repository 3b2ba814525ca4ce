//! The works as one writes them by hand, on entries and completions: tables of plain structs, and a `user_data` that
//! says which is which.
//!
//! All contestants that work by hand share them. They differ only in how entries get to the kernel and completions come
//! back: that is a [`Ring`].

mod buffers;
mod connections;
mod multishot;
mod nop;
mod oneshot;
mod read;
mod serve;
mod teardown;

use std::io;

use io_uring::squeue::Entry;

use crate::{Args, Error, Work};

pub use buffers::Buffers;
pub use nop::{no_such_size, nop};
pub use read::read;
pub use serve::{echo, serve, trade};
pub use teardown::Order;

/// A completion queue entry.
#[derive(Clone, Copy, Debug)]
pub struct Completion {
    /// The `user_data` of the entry.
    pub user_data: u64,
    /// What the operation returned, or a negative `errno`.
    pub result: i32,
    /// `IORING_CQE_F_*`.
    pub flags: u32,
}

impl Completion {
    /// What the operation returned.
    ///
    /// # Errors
    ///
    /// What it failed with.
    #[inline]
    pub fn ok(&self) -> io::Result<u32> {
        match u32::try_from(self.result) {
            Ok(result) => Ok(result),
            Err(_) => Err(io::Error::from_raw_os_error(-self.result)),
        }
    }
}

/// Where entries are put.
pub trait Queue {
    /// Puts an entry into the queue. If the queue is full, the entry waits until it isn't.
    ///
    /// # Safety
    ///
    /// What the entry points to is valid, and touched by nobody, until its final completion.
    unsafe fn push(&mut self, entry: Entry);
}

/// A ring, and the loop around it.
pub trait Ring: Sized {
    /// Its submission queue.
    type Queue<'a>: Queue;

    /// Sets a ring up, with twice as many completions as entries.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn build(args: &Args, entries: u32) -> Result<Self, Error>;

    /// To register files and buffers.
    fn submitter(&self) -> io_uring::Submitter<'_>;

    /// Pushes the entries of `first`, then hands over every completion, until `complete` returns true.
    ///
    /// # Errors
    ///
    /// Those of `complete`, and what the system says.
    ///
    /// # Safety
    ///
    /// As for [`Queue::push`], for each entry of `first`.
    unsafe fn run(
        &mut self,
        first: impl IntoIterator<Item = Entry>,
        complete: impl FnMut(&mut Self::Queue<'_>, Completion) -> io::Result<bool>,
    ) -> io::Result<()>;
}

/// All works but `serve`, which must know the contestant's name.
pub fn works<R: Ring>() -> Vec<(&'static str, Work)> {
    vec![
        ("nop", nop::<R>),
        ("read", read::<R>),
        ("echo", echo::<R>),
        ("teardown", teardown::teardown::<R>),
        ("data", nop::data::<R>),
        ("deadline", nop::deadline::<R>),
    ]
}
