//! Requests on extended attributes of files (`xattr(7)`).

use std::ffi::CStr;
use std::os::fd::AsFd;

use io_uring::opcode;
use io_uring::types::Fd;

use super::entry::{fd, length};
use super::{Parts, Request};

/// What [`setxattr`] and [`fsetxattr`] do if the attribute exists, or does not (`setxattr(2)`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum SetAttribute {
    /// Creates or changes it.
    Any = 0,
    /// Creates it, and fails with `EEXIST` if it exists (`XATTR_CREATE`).
    Create = libc::XATTR_CREATE as isize,
    /// Changes it, and fails with `ENODATA` if it does not exist (`XATTR_REPLACE`).
    Replace = libc::XATTR_REPLACE as isize,
}

/// Reads the attribute `name` of the file at `path`, as `getxattr(2)` (`IORING_OP_GETXATTR`, since 5.19). The result is
/// the number of bytes.
///
/// A buffer that is too small for the value is `ERANGE`; with an empty buffer, the result is the size that is needed.
/// If there is no such attribute, the error is `ENODATA`. A relative path is relative to the current directory.
pub fn getxattr<'d>(path: &'d CStr, name: &'d CStr, value: &'d mut [u8]) -> Request<'d> {
    let (place, length) = (value.as_mut_ptr().cast(), length(value.len()));
    Parts::whole(opcode::GetXattr::new(name.as_ptr(), place, path.as_ptr(), length).build()).request()
}

/// As [`getxattr`], of an open file (`IORING_OP_FGETXATTR`, since 5.19).
pub fn fgetxattr<'d>(file: &'d impl AsFd, name: &'d CStr, value: &'d mut [u8]) -> Request<'d> {
    let (place, length) = (value.as_mut_ptr().cast(), length(value.len()));
    Parts::whole(opcode::FGetXattr::new(Fd(fd(file)), name.as_ptr(), place, length).build()).request()
}

/// Sets the attribute `name` of the file at `path`, as `setxattr(2)` (`IORING_OP_SETXATTR`, since 5.19).
pub fn setxattr<'d>(path: &'d CStr, name: &'d CStr, value: &'d [u8], how: SetAttribute) -> Request<'d> {
    let (place, length) = (value.as_ptr().cast(), length(value.len()));
    let entry = opcode::SetXattr::new(name.as_ptr(), place, path.as_ptr(), length);
    Parts::whole(entry.flags(how as i32).build()).request()
}

/// As [`setxattr`], of an open file (`IORING_OP_FSETXATTR`, since 5.19).
pub fn fsetxattr<'d>(file: &'d impl AsFd, name: &'d CStr, value: &'d [u8], how: SetAttribute) -> Request<'d> {
    let (place, length) = (value.as_ptr().cast(), length(value.len()));
    let entry = opcode::FSetXattr::new(Fd(fd(file)), name.as_ptr(), place, length);
    Parts::whole(entry.flags(how as i32).build()).request()
}
