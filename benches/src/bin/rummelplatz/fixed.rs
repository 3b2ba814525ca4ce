//! Reads of a registered file into registered buffers, which have no safe constructor yet: the one contestant with
//! `unsafe` of its own.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};

use io_uring::{opcode, types};
use kit::Error;
use kit::file::BLOCK;
use rummelplatz::{SubmitError, Submitter};

use super::read::{Bench, Read, Reads, Way};

/// From the file that is registered first, into the block, which is the registered buffer of this number.
pub(crate) struct Fixed;

impl Way for Fixed {
    type Target = u16;

    #[inline(always)]
    fn submit(
        mut read: Read<Fixed>,
        submitter: &mut Submitter<'_, Bench<Fixed>, Reads<Fixed>>,
    ) -> Result<(), SubmitError> {
        let memory = read.block.0.as_mut_ptr();
        let entry = opcode::ReadFixed::new(types::Fixed(0), memory, BLOCK as u32, read.target);
        // SAFETY: the block is on the heap, and owned by the data.
        unsafe { submitter.push(entry.offset(read.offset).build(), read) }?;
        Ok(())
    }
}

/// `IORING_REGISTER_BUFFERS` and `IORING_REGISTER_FILES`, of `io_uring_register(2)`.
const BUFFERS: libc::c_uint = 0;
const FILES: libc::c_uint = 2;

/// Registers the file, and each block as the buffer of its number.
pub(crate) fn register(ring: RawFd, file: &File, reads: &mut [Read<Fixed>]) -> Result<(), Error> {
    let buffer =
        |read: &mut Read<Fixed>| libc::iovec { iov_base: read.block.0.as_mut_ptr().cast(), iov_len: BLOCK };
    let buffers: Vec<libc::iovec> = reads.iter_mut().map(buffer).collect();
    let (call, count) = (libc::SYS_io_uring_register, buffers.len());
    let files = [file.as_raw_fd()];
    // SAFETY: as many buffers as are said; the kernel keeps their pages until the ring is closed.
    if unsafe { libc::syscall(call, ring, BUFFERS, buffers.as_ptr(), count) } != 0 {
        return Err(io::Error::last_os_error().into());
    }
    // SAFETY: as many descriptors as are said.
    if unsafe { libc::syscall(call, ring, FILES, files.as_ptr(), files.len()) } != 0 {
        return Err(io::Error::last_os_error().into());
    }
    Ok(())
}
