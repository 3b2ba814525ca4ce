//! The end of a ring with much in flight.

use std::io;
use std::os::fd::AsRawFd;

use io_uring::squeue::Flags;
use io_uring::{opcode, types};

use super::{Completion, Queue, Ring};
use crate::{Args, Outcome, Window, skip};

/// The `user_data` of the cancels.
const CANCEL: u64 = u64::MAX;

const FOR_EVER: types::Timespec = types::Timespec::new().sec(100_000);

/// How many cancels are on their way at a time. With as many as the queue takes, it all takes longer.
const BATCH: usize = 128;

/// In which order requests are armed.
#[derive(Clone, Copy)]
pub enum Order {
    /// That of their slots.
    Slots,
    /// As if all slots had been used before, and had become free in any order.
    Mixed,
}

impl Order {
    /// The order that the argument `order` names.
    ///
    /// # Errors
    ///
    /// If there is no such order.
    pub fn from_args(args: &Args) -> Result<Order, crate::Error> {
        match args.text("order", "slots") {
            "slots" => Ok(Order::Slots),
            "mixed" => Ok(Order::Mixed),
            other => Err(format!("`order={other}` is neither slots nor mixed").into()),
        }
    }

    /// When it is a slot's turn, or whose turn it is, of this many.
    pub fn turn(self, number: usize, of: usize) -> usize {
        match self {
            Order::Slots => number,
            Order::Mixed => number * 7919 % of,
        }
    }
}

/// Arms requests that wait for ever (reads of a pipe, polls, timers), then cancels each of them and takes the
/// completions. With `cancel=newest`, the newest comes first; with `cancel=any`, one cancel is for all.
pub(super) fn teardown<R: Ring>(args: &Args) -> Outcome {
    let requests: usize = args.number("requests", 10_000)?;
    let (any, newest) = match args.text("cancel", "each") {
        "each" => (false, false),
        "newest" => (false, true),
        "any" => (true, false),
        other => return Err(format!("`cancel={other}` is neither each nor newest nor any").into()),
    };
    let order = Order::from_args(args)?;
    let (reader, _writer) = io::pipe()?;
    let fd = types::Fd(reader.as_raw_fd());
    let mut bytes = vec![0u8; requests];
    let memory = bytes.as_mut_ptr();
    let entry = |slot: usize| match args.text("kind", "read") {
        "read" => Ok(opcode::Read::new(fd, memory.wrapping_add(slot), 1).offset(u64::MAX).build()),
        "poll" => Ok(opcode::PollAdd::new(fd, libc::POLLIN as u32).build()),
        "timer" => Ok(opcode::Timeout::new(&FOR_EVER).build()),
        other => Err(skip(format!("no requests of kind `{other}`"))),
    };
    let slots = (0..requests).map(|number| order.turn(number, requests));
    let entries = slots.map(|slot| Ok(entry(slot)?.user_data(slot as u64)));
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
