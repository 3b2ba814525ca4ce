//! What a request on a file works on.

use std::os::fd::{AsFd, AsRawFd, RawFd};

use crate::fixed::{FixedFile, Registered};

/// What a request on a file or a socket works on: anything with a descriptor ([`AsFd`]), or a [`FixedFile`].
///
/// It can't be implemented for anything else.
#[diagnostic::on_unimplemented(
    message = "`{Self}` owns no descriptor",
    note = "a request takes a reference to what does (`AsFd`), never a number; or to a `FixedFile`"
)]
pub trait Target: sealed::Target {}

mod sealed {
    pub trait Target {
        #[doc(hidden)]
        fn named(&self) -> super::Named<'_>;
    }
}

/// How an entry names a file.
pub struct Named<'d> {
    pub(super) descriptor: RawFd,
    pub(super) place: Option<&'d Registered>,
}

impl<T: AsFd + ?Sized> Target for T {}

impl<T: AsFd + ?Sized> sealed::Target for T {
    #[inline(always)]
    fn named(&self) -> Named<'_> {
        Named { descriptor: self.as_fd().as_raw_fd(), place: None }
    }
}

impl Target for FixedFile {}

impl sealed::Target for FixedFile {
    #[inline(always)]
    fn named(&self) -> Named<'_> {
        Named { descriptor: -1, place: Some(&self.place.at) }
    }
}
