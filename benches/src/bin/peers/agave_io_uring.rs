//! The contestant `agave-io-uring`: operations in a slab, each of which completes itself.
//!
//! Operations do not get the flags of a completion, so there is no multishot receive.

// The crate's deprecation notice only tells its new name.
#![allow(deprecated)]

use std::fs::File;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::process::ExitCode;
use std::ptr;

use agave_io_uring::{Completion, Ring, RingOp};
use io_uring::squeue::Entry;
use io_uring::{IoUring, opcode, types};
use kit::echo::{self, Server, Shape, echoed};
use kit::file::{self, BLOCK, Block, Offsets};
use kit::{Args, Error, Outcome, Pace, skip};

fn ring<T, E: RingOp<T>>(entries: usize, context: T) -> Result<Ring<T, E>, Error> {
    let mut builder = IoUring::builder();
    // There is no way to register the ring's descriptor: the crate makes a new `Submitter` for each call.
    builder.setup_coop_taskrun().setup_single_issuer().setup_defer_taskrun().setup_no_sqarray();
    Ok(Ring::new(builder.build(entries as u32)?, context))
}

/// Turns the ring until its context says that everything is over.
fn run<T, E: RingOp<T>>(ring: &mut Ring<T, E>, is_over: impl Fn(&T) -> bool) -> io::Result<()> {
    while !is_over(ring.context()) {
        ring.submit_and_wait(1, None)?;
        ring.process_completions()?;
    }
    Ok(())
}

/// What the requests share.
struct Shared {
    pace: Pace,
    offsets: Offsets,
    total: u64,
}

struct Nop {
    counter: u64,
}

impl RingOp<Shared> for Nop {
    fn entry(&mut self) -> Entry {
        opcode::Nop::new().build()
    }

    fn complete(&mut self, ctx: &mut Completion<'_, Shared, Nop>, result: io::Result<i32>) -> io::Result<()> {
        result?;
        let counter = self.counter + 1;
        match ctx.context().pace.again() {
            true => ctx.push(Nop { counter }),
            false => ctx.context_mut().total += counter,
        }
        Ok(())
    }
}

fn nop(args: &Args) -> Outcome {
    let depth = args.number("depth", 128)?;
    let pace = Pace::from_args(args, depth, 1_500_000)?;
    let mut ring = ring(4 * depth, Shared { pace, offsets: Offsets::default(), total: 0 })?;
    for _ in 0..depth {
        ring.push(Nop { counter: 0 })?;
    }
    finish(ring)
}

fn finish<E: RingOp<Shared>>(mut ring: Ring<Shared, E>) -> Outcome {
    run(&mut ring, |shared| shared.pace.is_over())?;
    ring.context().pace.finish(ring.context().total)
}

/// A read. It owns its buffer until the next read gets it.
struct Read {
    fd: RawFd,
    /// The index of the buffer, if the buffer and the file are registered.
    fixed: Option<u16>,
    block: Option<Box<Block>>,
    offset: u64,
    counter: u64,
}

impl RingOp<Shared> for Read {
    fn entry(&mut self) -> Entry {
        let memory = self.block.as_mut().map_or(ptr::null_mut(), |block| block.0.as_mut_ptr());
        let length = BLOCK as u32;
        match self.fixed {
            Some(index) => {
                opcode::ReadFixed::new(types::Fixed(0), memory, length, index).offset(self.offset).build()
            }
            None => opcode::Read::new(types::Fd(self.fd), memory, length).offset(self.offset).build(),
        }
    }

    fn complete(
        &mut self,
        ctx: &mut Completion<'_, Shared, Read>,
        result: io::Result<i32>,
    ) -> io::Result<()> {
        let Read { fd, fixed, ref mut block, offset, counter } = *self;
        let block = block.take();
        if result? as usize != BLOCK || !block.as_ref().is_some_and(|block| block.is_from(offset)) {
            return Err(io::Error::other(format!("wrong bytes at {offset}")));
        }
        let counter = counter + 1;
        if ctx.context().pace.again() {
            let offset = ctx.context_mut().offsets.draw();
            ctx.push(Read { fd, fixed, block, offset, counter });
        } else {
            ctx.context_mut().total += counter;
        }
        Ok(())
    }
}

fn read(args: &Args) -> Outcome {
    let depth = args.number("depth", 32)?;
    let fixed = match args.text("mode", "plain") {
        "plain" | "direct" => false,
        "fixed" | "direct-fixed" => true,
        other => return Err(skip(format!("no mode `{other}`"))),
    };
    let file: File = file::open(args)?;
    let pace = Pace::from_args(args, depth, 250_000)?;
    let mut blocks: Vec<Box<Block>> = (0..depth).map(|_| Box::default()).collect();
    let mut ring = ring(4 * depth, Shared { pace, offsets: Offsets::default(), total: 0 })?;
    if fixed {
        let iovec =
            |block: &mut Box<Block>| libc::iovec { iov_base: block.0.as_mut_ptr().cast(), iov_len: BLOCK };
        let iovecs: Vec<libc::iovec> = blocks.iter_mut().map(iovec).collect();
        // SAFETY: the boxes are freed by the ring's operations, which end before the ring does.
        unsafe { ring.register_buffers(&iovecs) }?;
        ring.register_files(&[file.as_raw_fd()])?;
    }
    for (index, block) in blocks.into_iter().enumerate() {
        let (fixed, offset) = (fixed.then_some(index as u16), ring.context_mut().offsets.draw());
        ring.push(Read { fd: file.as_raw_fd(), fixed, block: Some(block), offset, counter: 0 })?;
    }
    finish(ring)
}

/// A connection, which goes from receive to send and back.
struct Connection {
    socket: OwnedFd,
    buffer: Box<[u8]>,
    length: usize,
    sent: usize,
}

enum Op {
    Accept(RawFd),
    Receive(Connection),
    Send(Connection),
    /// What stays behind when the connection has moved on.
    Done,
}

struct Serving {
    buffer: usize,
    /// Buffers of connections that have ended; new connections reuse them.
    spare: Vec<Box<[u8]>>,
    over: bool,
}

impl RingOp<Serving> for Op {
    fn entry(&mut self) -> Entry {
        match self {
            Op::Receive(connection) => {
                let fd = types::Fd(connection.socket.as_raw_fd());
                let buffer = &mut connection.buffer;
                opcode::Recv::new(fd, buffer.as_mut_ptr(), buffer.len() as u32).build()
            }
            Op::Send(connection) => {
                let fd = types::Fd(connection.socket.as_raw_fd());
                let rest = &connection.buffer[connection.sent..connection.length];
                opcode::Send::new(fd, rest.as_ptr(), rest.len() as u32).flags(libc::MSG_NOSIGNAL).build()
            }
            Op::Accept(listener) => {
                let none = ptr::null_mut();
                opcode::Accept::new(types::Fd(*listener), none, none.cast()).flags(libc::SOCK_CLOEXEC).build()
            }
            Op::Done => opcode::Nop::new().build(),
        }
    }

    fn complete(&mut self, ctx: &mut Completion<'_, Serving, Op>, result: io::Result<i32>) -> io::Result<()> {
        match (std::mem::replace(self, Op::Done), result) {
            (Op::Receive(mut connection), Ok(length @ 1..)) => {
                (connection.length, connection.sent) = (length as usize, 0);
                ctx.push(Op::Send(connection));
            }
            (Op::Send(mut connection), Ok(length)) => {
                connection.sent += length as usize;
                if connection.sent < connection.length {
                    ctx.push(Op::Send(connection));
                    return Ok(());
                }
                let length = connection.length;
                ctx.push(Op::Receive(connection));
                ctx.context_mut().over |= echoed(length);
            }
            (Op::Accept(listener), result) => {
                // SAFETY: an accept has made this descriptor, and nobody else owns it.
                let socket = unsafe { OwnedFd::from_raw_fd(result?) };
                let Serving { buffer, spare, .. } = ctx.context_mut();
                let buffer = spare.pop().unwrap_or_else(|| vec![0; *buffer].into());
                ctx.push(Op::Receive(Connection { socket, buffer, length: 0, sent: 0 }));
                ctx.push(Op::Accept(listener));
            }
            // The end of a connection, which is closed.
            (Op::Receive(Connection { buffer, .. }) | Op::Send(Connection { buffer, .. }), _) => {
                ctx.context_mut().spare.push(buffer);
            }
            (Op::Done, _) => {}
        }
        Ok(())
    }
}

struct Agave;

impl Server for Agave {
    const NAME: &'static str = "agave-io-uring";
    const SHAPES: &'static [&'static str] = &["oneshot"];

    fn run(listener: TcpListener, shape: Shape) -> Result<(), Error> {
        // The slab has room for twice as many operations as there are entries, and never more.
        let entries = (4 * shape.conns).next_power_of_two().clamp(64, 16384);
        let mut ring = ring(entries, Serving { buffer: shape.buffer, spare: Vec::new(), over: false })?;
        ring.push(Op::Accept(listener.as_raw_fd()))?;
        run(&mut ring, |serving| serving.over)?;
        // The buffers of what is in flight are in the ring: they are freed only when the process has ended.
        std::mem::forget(ring);
        Ok(())
    }
}

fn main() -> ExitCode {
    kit::contest(
        Agave::NAME,
        &[("nop", nop), ("read", read), ("echo", echo::alone::<Agave>), ("serve", echo::loaded::<Agave>)],
    )
}
