//! The end of a ring with much in flight.

use std::io;
use std::os::fd::AsRawFd;

use io_uring::squeue::Flags;
use io_uring::{opcode, types};

use super::{Completion, Queue, Ring};
use crate::{Args, Outcome, Window, skip};

/// The `user_data` of the cancels.
const CANCEL: u64 = u64::MAX;

/// How many cancels are on their way at a time. With as many as the queue takes, it all takes longer.
const BATCH: usize = 128;

/// Arms requests on a pipe that stays empty, then cancels each of them and takes the completions. With `cancel=newest`,
/// the newest comes first; with `cancel=any`, one cancel is for all.
pub(super) fn teardown<R: Ring>(args: &Args) -> Outcome {
    let requests: usize = args.number("requests", 10_000)?;
    let (any, newest) = match args.text("cancel", "each") {
        "each" => (false, false),
        "newest" => (false, true),
        "any" => (true, false),
        other => return Err(format!("`cancel={other}` is neither each nor newest nor any").into()),
    };
    let (reader, _writer) = io::pipe()?;
    let fd = types::Fd(reader.as_raw_fd());
    let mut bytes = vec![0u8; requests];
    let memory = bytes.as_mut_ptr();
    let entry = |slot: usize| match args.text("kind", "read") {
        "read" => Ok(opcode::Read::new(fd, memory.wrapping_add(slot), 1).offset(u64::MAX).build()),
        "poll" => Ok(opcode::PollAdd::new(fd, libc::POLLIN as u32).build()),
        other => Err(skip(format!("no requests of kind `{other}`"))),
    };
    let entries = (0..requests).map(|slot| Ok(entry(slot)?.user_data(slot as u64)));
    let entries = entries.collect::<Result<Vec<_>, crate::Error>>()?;
    let mut ring = R::build(args, 4096)?;
    // The NOP is the last: when it has completed, everything before it is armed.
    let all = entries.into_iter().chain([opcode::Nop::new().build().user_data(CANCEL)]);
    // SAFETY: each read has a byte of its own, which outlives the ring, as does the pipe.
    unsafe { ring.run(all, |_, completion| Ok(completion.user_data == CANCEL)) }?;
    let window = Window::open();
    let cancel = move |number: usize| {
        let slot = if newest { requests - 1 - number } else { number };
        let cancel = match any {
            true => opcode::AsyncCancel2::new(types::CancelBuilder::any()).build(),
            false => opcode::AsyncCancel::new(slot as u64).build(),
        };
        // What it has found completes, and that is enough.
        cancel.user_data(CANCEL).flags(Flags::SKIP_SUCCESS)
    };
    let cancels = if any { 1 } else { requests };
    let mut later = (BATCH..cancels).map(cancel);
    let mut check = 0;
    let complete = |queue: &mut R::Queue<'_>, completion: Completion| {
        check += u64::from(completion.result == -libc::ECANCELED);
        if let Some(cancel) = later.next() {
            // SAFETY: a cancel points to nothing.
            unsafe { queue.push(cancel) };
        }
        Ok(check == requests as u64)
    };
    // SAFETY: as above.
    unsafe { ring.run((0..cancels.min(BATCH)).map(cancel), complete) }?;
    Ok(window.close(requests as u64, check))
}
