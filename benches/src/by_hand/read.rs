//! Reads of a file from the page cache, or past it with `O_DIRECT`.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use io_uring::squeue::Entry;
use io_uring::{opcode, types};

use super::{Completion, Queue, Ring};
use crate::file::{self, BLOCK, Block, Offsets};
use crate::{Args, Error, Outcome, Pace, skip};

/// A read, at its place in the table.
struct Slot {
    block: Block,
    offset: u64,
    counter: u64,
}

/// Keeps `depth` reads in flight.
pub fn read<R: Ring>(args: &Args) -> Outcome {
    let depth: usize = args.number("depth", 32)?;
    match args.text("mode", "plain") {
        "plain" | "direct" => {
            let file = file::open(args)?;
            let fd = types::Fd(file.as_raw_fd());
            let ring = R::build(args, (4 * depth) as u32)?;
            reads(args, ring, &mut slots(depth), |slot, memory, offset| {
                opcode::Read::new(fd, memory, BLOCK as u32).offset(offset).build().user_data(slot)
            })
        }
        "fixed" | "direct-fixed" => {
            let file = file::open(args)?;
            let ring = R::build(args, (4 * depth) as u32)?;
            let mut slots = slots(depth);
            register(&ring, &file, &mut slots)?;
            reads(args, ring, &mut slots, |slot, memory, offset| {
                let read = opcode::ReadFixed::new(types::Fixed(0), memory, BLOCK as u32, slot as u16);
                read.offset(offset).build().user_data(slot)
            })
        }
        other => Err(skip(format!("no mode `{other}`"))),
    }
}

fn slots(depth: usize) -> Vec<Slot> {
    let slot = || Slot { block: Block::default(), offset: 0, counter: 0 };
    std::iter::repeat_with(slot).take(depth).collect()
}

/// Registers the file, and each block as the buffer of its index.
fn register(ring: &impl Ring, file: &File, slots: &mut [Slot]) -> Result<(), Error> {
    let buffer = |slot: &mut Slot| libc::iovec { iov_base: slot.block.0.as_mut_ptr().cast(), iov_len: BLOCK };
    let buffers: Vec<libc::iovec> = slots.iter_mut().map(buffer).collect();
    let submitter = ring.submitter();
    // SAFETY: the blocks outlive the ring, which is dropped in `reads`, and are only used for its reads.
    unsafe { submitter.register_buffers(&buffers) }?;
    submitter.register_files(&[file.as_raw_fd()])?;
    Ok(())
}

fn reads<R: Ring>(
    args: &Args,
    mut ring: R,
    slots: &mut [Slot],
    entry: impl Fn(u64, *mut u8, u64) -> Entry,
) -> Outcome {
    let pace = Pace::from_args(args, slots.len(), 250_000)?;
    let mut offsets = Offsets::default();
    let mut next = |index: usize, slot: &mut Slot| {
        slot.offset = offsets.draw();
        entry(index as u64, slot.block.0.as_mut_ptr(), slot.offset)
    };
    let first: Vec<Entry> = slots.iter_mut().enumerate().map(|(index, slot)| next(index, slot)).collect();
    let complete = |queue: &mut R::Queue<'_>, completion: Completion| {
        let index = completion.user_data as usize;
        let slot = &mut slots[index];
        if completion.ok()? as usize != BLOCK || !slot.block.is_from(slot.offset) {
            return Err(io::Error::other(format!("wrong bytes at {}", slot.offset)));
        }
        slot.counter += 1;
        if pace.again() {
            // SAFETY: the block stays at its place in the table, which outlives the ring, and is looked
            // at only after the completion; the file is open until then.
            unsafe { queue.push(next(index, slot)) };
            return Ok(false);
        }
        Ok(pace.is_over())
    };
    // SAFETY: as above.
    unsafe { ring.run(first, complete) }?;
    pace.finish(slots.iter().map(|slot| slot.counter).sum())
}
