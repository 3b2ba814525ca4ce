//! A server that reports its figures, and ends, when its standard input says so.
//!
//! It uses no thread (a second thread would make every descriptor table and heap a shared one) and no request of the
//! server's own: the kernel sends `SIGIO` when there is something to read. The handler answers a line with a line of
//! JSON, and the end of the input with a last one. So a server must handle interrupted system calls (`EINTR`).

use std::io::{self, Cursor, Write};
use std::net::TcpListener;
use std::sync::OnceLock;
use std::sync::atomic::Ordering::Relaxed;

use serde::{Deserialize, Serialize};

use super::{LEFT, Shape, listen};
use crate::contest::check;
use crate::{Args, Error, Heap, clock};

static SERVING: OnceLock<Serving> = OnceLock::new();

/// Who serves, and since when.
struct Serving {
    name: &'static str,
    size: usize,
    since: u64,
}

/// What a server has cost so far, all figures since its start.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Served {
    /// The contestant.
    pub name: String,
    /// Always `serve`.
    pub work: String,
    /// Requests that were answered: the bytes sent, divided by the size of a message.
    pub n: u64,
    /// `CLOCK_MONOTONIC` since it began to listen.
    pub wall_ns: u64,
    /// `CLOCK_PROCESS_CPUTIME_ID`.
    pub cpu_ns: u64,
    /// Allocations.
    pub allocs: u64,
    /// Bytes allocated.
    pub bytes: u64,
    /// The same as `n`: the client does the verifying.
    pub check: u64,
    /// Bytes that are allocated and not yet freed.
    pub heap_bytes: u64,
    /// Resident memory.
    pub rss_kib: u64,
}

/// Listens for the runner, and prints `port N`. The server is never told that everything is over.
///
/// # Errors
///
/// If the arguments make no sense, or standard input can't send signals (a pipe can).
pub fn serve(name: &'static str, args: &Args) -> Result<(TcpListener, Shape), Error> {
    let shape = Shape::from_args(args)?;
    let listener = listen()?;
    if SERVING.set(Serving { name, size: shape.size, since: clock::wall() }).is_err() {
        return Err("this process is a server already".into());
    }
    signal_input()?;
    writeln!(io::stdout(), "port {}", listener.local_addr()?.port())?;
    Ok((listener, shape))
}

/// Makes the kernel send `SIGIO` when there is something to read on standard input.
fn signal_input() -> io::Result<()> {
    // SAFETY: a `sigaction` is made of numbers, for which zeroes are values: no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = answer as extern "C" fn(libc::c_int) as libc::sighandler_t;
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: `action` is initialised; the handler has the signature of one without SA_SIGINFO and does
    // only what is safe in a handler (see there).
    check(unsafe { libc::sigaction(libc::SIGIO, &action, std::ptr::null_mut()) })?;
    // SAFETY: standard input is no memory; the process id is our own.
    check(unsafe { libc::fcntl(libc::STDIN_FILENO, libc::F_SETOWN, libc::getpid()) })?;
    let flags = libc::O_ASYNC | libc::O_NONBLOCK;
    // SAFETY: as above; flags are set that the file may have.
    check(unsafe { libc::fcntl(libc::STDIN_FILENO, libc::F_SETFL, flags) })?;
    // Input that came before that was not signalled.
    // SAFETY: raising a signal that has a handler involves no memory of ours.
    check(unsafe { libc::raise(libc::SIGIO) })?;
    Ok(())
}

/// Answers what is on standard input. It allocates nothing, takes no lock, and leaves `errno` as it was, because it may
/// have interrupted anything.
extern "C" fn answer(_: libc::c_int) {
    // SAFETY: the address of this thread's `errno` is valid for as long as the thread runs.
    let errno = unsafe { &mut *libc::__errno_location() };
    let before = *errno;
    loop {
        let mut byte = 0u8;
        // SAFETY: `byte` is one byte to write to.
        match unsafe { libc::read(libc::STDIN_FILENO, (&raw mut byte).cast(), 1) } {
            1 if byte == b'\n' => print(),
            1 => {}
            0 => {
                print();
                // SAFETY: ends the process at once, and runs no exit handlers.
                unsafe { libc::_exit(0) }
            }
            _ => break,
        }
    }
    *errno = before;
}

fn print() {
    let Some(Serving { name, size, since }) = SERVING.get() else { return };
    let heap = Heap::now();
    let n = (u64::MAX - LEFT.load(Relaxed)) / *size as u64;
    let mut line = Cursor::new([0u8; 512]);
    let written = writeln!(
        line,
        r#"{{"name":"{name}","work":"serve","n":{n},"wall_ns":{},"cpu_ns":{},"allocs":{},"bytes":{},"check":{n},"heap_bytes":{},"rss_kib":{}}}"#,
        clock::wall() - since,
        clock::cpu(),
        heap.allocations,
        heap.bytes,
        heap.live(),
        resident_kib(),
    );
    let length = line.position() as usize;
    if written.is_ok() {
        // SAFETY: the first `length` bytes of the array are there to be read.
        unsafe { libc::write(libc::STDOUT_FILENO, line.get_ref().as_ptr().cast(), length) };
    }
}

/// The second number of `/proc/self/statm`, which is in pages; 0 if it can't be read.
fn resident_kib() -> u64 {
    let mut text = [0u8; 128];
    // SAFETY: the path is a C string.
    let file = unsafe { libc::open(c"/proc/self/statm".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
    // SAFETY: `text` is as long as is said; a descriptor that is -1 is refused.
    let length = unsafe { libc::read(file, text.as_mut_ptr().cast(), text.len()) };
    // SAFETY: the descriptor is ours alone, or -1, which is refused.
    unsafe { libc::close(file) };
    let text = text.get(..length.max(0).unsigned_abs()).unwrap_or_default();
    let pages = str::from_utf8(text).ok().and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok());
    // SAFETY: asks for a number.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    pages.unwrap_or(0) * page.unsigned_abs() / 1024
}
