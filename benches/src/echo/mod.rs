//! The other end of an echo server: a client in the same thread, or one in another process.
//!
//! A server is written once for both. It takes the listener that [`start`] or [`serve`] returns, and calls [`echoed`]
//! after each send that has finished. When `echoed` returns true, the server ends.
//!
//! * [`start`]: the deterministic mode, for gates. When a whole batch (one message on each connection) has been echoed,
//!   `echoed` calls the client, which receives and verifies every byte, sends the next batch and returns. The kernel's
//!   and the client's parts are the same for everyone, so the difference is the server. [`finish`] says what the server
//!   cost.
//! * [`serve`]: the client is the runner, on the other core. Only the end of its standard input ends the server.

mod client;
mod pattern;
mod serving;
pub mod spare;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Poll, Waker};

use crate::contest::check;
use crate::{Args, Error, Outcome, skip};

pub use client::{finish, start};
pub use pattern::Pattern;
pub use serving::{Served, serve};

/// Bytes of the batch that are still to be echoed.
#[unsafe(export_name = "bench_left")]
static LEFT: AtomicU64 = AtomicU64::new(u64::MAX);

/// What is served, and how.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    /// Multishot accept and receive with provided buffers, instead of one request at a time with a buffer for each
    /// connection.
    pub multishot: bool,
    /// How many connections there will be (with `serve`, at most).
    pub conns: usize,
    /// The size of a message.
    pub size: usize,
    /// The size of a buffer: of each provided one with `multishot`, otherwise of that of each connection.
    pub buffer: usize,
    /// How many provided buffers there are; a power of two.
    pub buffers: usize,
}

impl Shape {
    /// Reads `shape`, `conns`, `size`, `buffer` and `buffers`.
    ///
    /// # Errors
    ///
    /// For values that make no sense.
    pub fn from_args(args: &Args) -> Result<Shape, Error> {
        let multishot = match args.text("shape", "multishot") {
            "multishot" => true,
            "oneshot" => false,
            other => return Err(format!("`shape={other}` is neither multishot nor oneshot").into()),
        };
        let conns: usize = args.number("conns", 64)?;
        let size: usize = args.number("size", 1024)?;
        let buffer: usize = args.number("buffer", if multishot { 2048 } else { 4096 })?;
        // One message of each connection is at the server at the same time, perhaps in pieces.
        let enough = (2 * conns * size.div_ceil(buffer)).next_power_of_two().clamp(64, 4096);
        let buffers: usize = args.number("buffers", enough)?;
        if conns == 0 || size == 0 || buffer == 0 || !buffers.is_power_of_two() || buffers > 32768 {
            return Err("conns, size and buffer are positive; buffers is a power of two up to 32768".into());
        }
        Ok(Shape { multishot, conns, size, buffer, buffers })
    }

    /// How many entries the queue of a ring has that serves all of them.
    pub fn entries(&self) -> usize {
        (4 * self.conns).next_power_of_two().clamp(64, 4096)
    }
}

/// An echo server, for both modes.
pub trait Server {
    /// The contestant.
    const NAME: &'static str;

    /// The shapes that it supports: with multishot receive and provided buffers, and with one receive at a time.
    const SHAPES: &'static [&'static str];

    /// Serves until [`echoed`] says that everything is over.
    ///
    /// # Errors
    ///
    /// If something fails that is not a connection's fault.
    fn run(listener: TcpListener, shape: Shape) -> Result<(), Error>;
}

/// The work `echo`: a server in the deterministic mode.
///
/// # Errors
///
/// Those of the server, and of [`start`] and [`finish`].
pub fn alone<S: Server>(args: &Args) -> Outcome {
    can_do::<S>(args)?;
    let (listener, shape) = start(args)?;
    S::run(listener, shape)?;
    finish()
}

/// The work `serve`: a server for a client on the other core.
///
/// # Errors
///
/// Those of the server; otherwise it does not end.
pub fn loaded<S: Server>(args: &Args) -> Outcome {
    can_do::<S>(args)?;
    let (listener, shape) = serve(S::NAME, args)?;
    S::run(listener, shape)?;
    Err("the server has ended by itself".into())
}

fn can_do<S: Server>(args: &Args) -> Result<(), Error> {
    let shape = args.text("shape", "multishot");
    match S::SHAPES.contains(&shape) {
        true => Ok(()),
        false => Err(skip(format!("does not receive in the shape `{shape}`"))),
    }
}

/// To be called when `bytes` were sent. Returns true when everything is over: then the server must end.
#[inline(always)]
pub fn echoed(bytes: usize) -> bool {
    let left = LEFT.load(Relaxed).wrapping_sub(bytes as u64);
    LEFT.store(left, Relaxed);
    left == 0 && client::bench_client_batch()
}

/// Listens on a free port of the loopback; accepted sockets have `TCP_NODELAY`.
fn listen() -> io::Result<TcpListener> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let (fd, yes): (_, libc::c_int) = (listener.as_raw_fd(), 1);
    // SAFETY: the socket is open; `yes` is an int to read, and its size is given.
    check(unsafe {
        libc::setsockopt(
            fd,
            libc::IPPROTO_TCP,
            libc::TCP_NODELAY,
            (&raw const yes).cast(),
            size_of_val(&yes) as libc::socklen_t,
        )
    })?;
    // More connections than std's 128 may wait to be accepted: in the deterministic mode, all of them do.
    // SAFETY: the socket is open, and no memory is involved.
    check(unsafe { libc::listen(fd, 4096) })?;
    Ok(listener)
}

/// With this, a task tells the accepting task that everything is over.
#[derive(Debug, Default)]
pub struct Over {
    told: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Over {
    /// Tells the accepting task.
    pub fn tell(&self) {
        self.told.set(true);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Waits until it is told.
    pub async fn wait(&self) {
        poll_fn(|context| {
            if self.told.get() {
                return Poll::Ready(());
            }
            self.waker.replace(Some(context.waker().clone()));
            Poll::Pending
        })
        .await;
    }
}
