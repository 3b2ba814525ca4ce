//! What the running kernel does: the rules that rummelplatz relies on, each on bare rings of the `io-uring` crate. A
//! kernel that does otherwise is reported here as "rule A11 differs", instead of in a test that hangs.
//!
//! The letters are those of the experiments that found the rules. W marks the rules of which `docs/design.md` says that
//! they are not in the manual. Nothing here waits longer than [`LONG`] for what does not come. Where the kernel may do
//! one thing or another, it may do so here, too.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::Command;
use std::sync::atomic::AtomicU32;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{setsockopt, sockopt};
use rummelplatz::io_uring::types::{CancelBuilder, Fd, OpenHow, SubmitArgs, TimeoutFlags, Timespec};
use rummelplatz::io_uring::{Builder, IoUring, opcode, register, squeue};
use rummelplatz_tests::{
    NO_OPCODE, OPCODE, ProvidedBuffers, SignalStorm, address, become_nobody, connect, forge_without_a_ring,
    in_child, is_inherited, listener, open_descriptors, pipe, set_limit, tcp_pair, watched, with_byte,
};

/// How long to wait for what a rule says will come.
const LONG: Duration = Duration::from_secs(60);
/// How long to wait for what a rule says will not come.
const SHORT: Duration = Duration::from_millis(40);

const ECANCELED: i32 = -libc::ECANCELED;
const F_BUFFER: u32 = 1;
const F_MORE: u32 = 1 << 1;
const F_NOTIF: u32 = 1 << 3;
const F_BUF_MORE: u32 = 1 << 4;
const LINK: squeue::Flags = squeue::Flags::IO_LINK;

/// Fails unless the kernel does what the rule says.
macro_rules! rule {
    ($rule:literal, $holds:expr, $($seen:tt)+) => {
        assert!($holds, "rule {} differs: {}", $rule, format_args!($($seen)+))
    };
}

/// Whether the kernel is at least this new; prints "skipped" if it is not.
fn is_linux(major: u32, minor: u32) -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(|it: char| !it.is_ascii_digit()).map(|it| it.parse().unwrap_or(0));
    let is = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if is < (major, minor) {
        eprintln!("skipped: needs Linux {major}.{minor}, this is {}", release.trim());
    }
    is >= (major, minor)
}

/// Tests a rule that can be checked from this version on: mostly 6.1, the first with rings that defer task work.
fn on_linux(major: u32, minor: u32, test: impl FnOnce() + Send + 'static) {
    if is_linux(major, minor) {
        watched(test);
    }
}

/// A completion: `user_data`, `res`, `flags`.
type Cqe = (u64, i32, u32);

/// A ring with nothing around it; the test chooses the `user_data` of its requests.
struct Bare(IoUring);

impl Bare {
    fn new(entries: u32, set_up: impl FnOnce(&mut Builder)) -> Bare {
        let mut builder = IoUring::builder();
        set_up(&mut builder);
        Bare(builder.build(entries).unwrap())
    }

    /// Without any flags.
    fn plain(entries: u32) -> Bare {
        Bare::new(entries, |_| ())
    }

    /// With the flags that the ring of a `#[ring]` has.
    fn defer(entries: u32) -> Bare {
        Bare::new(entries, |builder| {
            builder.setup_single_issuer().setup_defer_taskrun().setup_coop_taskrun().setup_submit_all();
        })
    }

    fn push(&mut self, user_data: u64, entry: squeue::Entry) {
        // SAFETY: all memory that entries point to is leaked, or outlives its request.
        unsafe { self.0.submission().push(&entry.user_data(user_data)) }.expect("the queue is full");
    }

    fn enter(&mut self, want: u32, flags: u32) -> io::Result<usize> {
        let queued = self.0.submission().len() as u32;
        // SAFETY: there is no argument.
        unsafe { self.0.submitter().enter::<libc::sigset_t>(queued, want, flags, None) }
    }

    /// Enters without looking for completions.
    fn submit(&mut self) -> io::Result<usize> {
        self.enter(0, 0)
    }

    /// Enters and looks for completions, without waiting (`IORING_ENTER_GETEVENTS`).
    fn look(&mut self) -> io::Result<usize> {
        self.enter(0, 1)
    }

    /// The completions that are visible.
    fn reap(&mut self) -> Vec<Cqe> {
        self.0.completion().map(|cqe| (cqe.user_data(), cqe.result(), cqe.flags())).collect()
    }

    /// Enters until there are this many completions, or it has taken too long. Returns what there is.
    fn wait(&mut self, count: usize) -> Vec<Cqe> {
        self.wait_for(count, LONG)
    }

    fn wait_for(&mut self, count: usize, time: Duration) -> Vec<Cqe> {
        let end = Instant::now() + time;
        let mut seen = self.reap();
        while seen.len() < count && Instant::now() < end {
            let time = Timespec::from((end - Instant::now()).min(Duration::from_millis(20)));
            // Its return value says nothing: see G1.
            self.0.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&time)).ok();
            seen.extend(self.reap());
        }
        seen
    }

    /// Waits until this many completions have been seen, or it has taken too long.
    fn complete(&mut self, seen: &mut Vec<Cqe>, count: usize) {
        let more = self.wait(count.saturating_sub(seen.len()));
        seen.extend(more);
    }

    /// As [`complete`](Self::complete), and also looks for more completions than there should be.
    fn complete_only(&mut self, seen: &mut Vec<Cqe>, count: usize) {
        self.complete(seen, count);
        let more = self.strays();
        seen.extend(more);
    }

    /// Completions that come although none should.
    fn strays(&mut self) -> Vec<Cqe> {
        self.wait_for(usize::MAX, SHORT)
    }

    /// Submits one entry alone. Returns its completion and what came with it.
    fn one(&mut self, entry: squeue::Entry) -> (i32, Vec<Cqe>) {
        self.push(ALONE, entry);
        let mut seen = self.wait(1);
        let end = Instant::now() + LONG;
        while !seen.iter().any(|it| it.0 == ALONE) && Instant::now() < end {
            seen.extend(self.wait_for(1, SHORT));
        }
        let at = seen.iter().position(|it| it.0 == ALONE).expect("no completion");
        let result = seen.remove(at).1;
        (result, seen)
    }

    /// Cancels by `user_data`. Returns the cancel's own result, and what came with it.
    fn cancel(&mut self, user_data: u64) -> (i32, Vec<Cqe>) {
        self.one(opcode::AsyncCancel::new(user_data).build())
    }
}

/// The `user_data` of entries that are submitted alone.
const ALONE: u64 = 1000;

fn kinds(entries: u32) -> [(&'static str, Bare); 2] {
    [("defer", Bare::defer(entries)), ("plain", Bare::plain(entries))]
}

/// As [`kinds`], with room for four completions.
fn cramped() -> [(&'static str, Bare); 2] {
    let four = |builder: &mut Builder| {
        builder.setup_cqsize(4);
    };
    let defer = |builder: &mut Builder| {
        builder.setup_cqsize(4).setup_single_issuer().setup_defer_taskrun();
    };
    [("defer", Bare::new(4, defer)), ("plain", Bare::new(4, four))]
}

/// Memory that the kernel may write to for ever: it is never freed.
fn memory(size: usize) -> *mut u8 {
    Box::leak(vec![0_u8; size].into_boxed_slice()).as_mut_ptr()
}

fn time(time: Duration) -> *const Timespec {
    Box::leak(Box::new(Timespec::from(time)))
}

fn raw(file: &impl AsRawFd) -> Fd {
    Fd(file.as_raw_fd())
}

fn nop() -> squeue::Entry {
    opcode::Nop::new().build()
}

fn unknown() -> squeue::Entry {
    with_byte(nop(), OPCODE, NO_OPCODE)
}

fn timeout(duration: Duration) -> squeue::Entry {
    opcode::Timeout::new(time(duration)).build()
}

fn never() -> squeue::Entry {
    timeout(Duration::from_secs(100_000))
}

/// Reads eight bytes.
fn read(file: &impl AsRawFd) -> squeue::Entry {
    opcode::Read::new(raw(file), memory(8), 8).build()
}

fn poll(file: &impl AsRawFd) -> squeue::Entry {
    opcode::PollAdd::new(raw(file), libc::POLLIN as u32).build()
}

fn poll_multi(file: &impl AsRawFd) -> squeue::Entry {
    opcode::PollAdd::new(raw(file), libc::POLLIN as u32).multi(true).build()
}

fn put(file: &OwnedFd, bytes: &[u8]) {
    File::from(file.try_clone().unwrap()).write_all(bytes).unwrap();
}

fn sorted(mut seen: Vec<Cqe>) -> Vec<Cqe> {
    seen.sort();
    seen
}

// ---- A: cancelling ------------------------------------------------------------------------------

#[test]
fn a2_a_multishot_that_is_cancelled_has_one_final_completion() {
    on_linux(6, 4, || {
        for (kind, mut ring) in kinds(16) {
            let (reader, _writer) = pipe();
            let listener = listener();
            let (_client, server) = tcp_pair();
            let _buffers = ProvidedBuffers::register(&ring.0.submitter(), 7, 1, 8, 0).unwrap();
            let tick = opcode::Timeout::new(time(Duration::from_secs(1000))).flags(TimeoutFlags::MULTISHOT);
            let requests = [
                poll_multi(&reader),
                opcode::AcceptMulti::new(raw(&*listener)).build(),
                opcode::RecvMulti::new(raw(&server), 7).build(),
                tick.build(),
            ];
            for (user_data, request) in (0..).zip(requests) {
                ring.push(user_data, request);
                ring.look().unwrap();
                let (cancel, mut seen) = ring.cancel(user_data);
                ring.complete_only(&mut seen, 1);
                rule!("A2", cancel == 0, "{kind}: the cancel of {user_data} says {cancel}");
                rule!("A2", seen == [(user_data, ECANCELED, 0)], "{kind}: {seen:?}");
            }
        }
    });
}

#[test]
fn a3_a_blocked_read_can_be_cancelled_also_in_a_worker() {
    on_linux(6, 1, || {
        for (kind, mut ring) in kinds(8) {
            let (reader, _writer) = pipe();
            for flags in [squeue::Flags::empty(), squeue::Flags::ASYNC] {
                ring.push(1, read(&reader).flags(flags));
                ring.look().unwrap();
                thread::sleep(Duration::from_millis(5));
                let (_, mut seen) = ring.cancel(1);
                ring.complete(&mut seen, 1);
                let ended = matches!(seen[..], [(1, ECANCELED, 0)]) || seen == [(1, -libc::EINTR, 0)];
                rule!("A3", ended, "{kind}, {flags:?}: {seen:?}");
            }
        }
    });
}

#[test]
fn a3b_an_error_can_carry_a_buffer() {
    on_linux(6, 1, || {
        for (kind, mut ring) in kinds(8) {
            let (reader, _writer) = pipe();
            let _buffers = ProvidedBuffers::register(&ring.0.submitter(), 7, 1, 8, 0).unwrap();
            let read = opcode::Read::new(raw(&reader), std::ptr::null_mut(), 8).buf_group(7).build();
            // How far the worker has come when the cancel arrives is a matter of luck.
            let with_buffer = (0..50).any(|_| {
                ring.push(1, read.clone().flags(squeue::Flags::ASYNC | squeue::Flags::BUFFER_SELECT));
                ring.submit().unwrap();
                thread::sleep(Duration::from_millis(2));
                let (_, mut seen) = ring.cancel(1);
                ring.complete(&mut seen, 1);
                rule!("A3b", seen.len() == 1 && seen[0].1 < 0, "{kind}: {seen:?}");
                seen[0].2 & F_BUFFER != 0
            });
            rule!("A3b", with_buffer, "{kind}: the error had no buffer");
        }
    });
}

#[test]
fn a5_file_io_that_runs_is_not_cancelled_and_succeeds() {
    const SIZE: usize = 96 << 20;
    on_linux(6, 1, || {
        let path = format!("/dev/shm/rummelplatz-kernel-{}", std::process::id());
        let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        file.set_len(SIZE as u64).unwrap();
        let mut buffer = vec![7_u8; SIZE];
        let mut ring = Bare::defer(8);
        let mut cancels = Vec::new();
        for _ in 0..5 {
            buffer[0] = 7;
            let read = opcode::Read::new(raw(&file), buffer.as_mut_ptr(), SIZE as u32).build();
            ring.push(1, read.flags(squeue::Flags::ASYNC));
            ring.submit().unwrap();
            let end = Instant::now() + LONG;
            // SAFETY: the buffer is there; nobody but the kernel writes to it.
            while unsafe { buffer.as_ptr().read_volatile() } == 7 && Instant::now() < end {
                thread::yield_now();
            }
            let (cancel, mut seen) = ring.cancel(1);
            ring.complete(&mut seen, 1);
            rule!("A5", seen == [(1, SIZE as i32, 0)], "the read ended with {seen:?}");
            cancels.push(cancel);
            if cancel == -libc::EALREADY {
                return;
            }
        }
        // It was over before.
        rule!("A5", cancels == [-libc::ENOENT; 5], "the cancels say {cancels:?}");
    });
}

#[test]
fn a7_a_splice_that_is_cancelled_ends_with_a_number_of_the_kernels_own() {
    on_linux(6, 1, || {
        for (kind, mut ring) in kinds(8) {
            let (from, _writer) = pipe();
            let (_reader, to) = pipe();
            ring.push(1, opcode::Splice::new(raw(&from), -1, raw(&to), -1, 8).build());
            ring.submit().unwrap();
            thread::sleep(Duration::from_millis(5));
            let (_, mut seen) = ring.cancel(1);
            ring.complete(&mut seen, 1);
            let [(1, result, 0)] = seen[..] else { panic!("rule A7 differs: {kind}: {seen:?}") };
            let is_cancelled = [ECANCELED, -libc::EINTR].contains(&result) || (-531..=-512).contains(&result);
            rule!("A7", is_cancelled, "{kind}: it ended with {result}");
        }
    });
}

#[test]
fn a8_a_cancel_sees_only_what_was_submitted_before_it() {
    on_linux(6, 1, || {
        for (kind, mut ring) in kinds(8) {
            ring.push(1, opcode::AsyncCancel::new(2).build());
            ring.push(2, never());
            let mut seen = Vec::new();
            ring.complete_only(&mut seen, 1);
            rule!("A8", seen == [(1, -libc::ENOENT, 0)], "{kind}: {seen:?}");
        }
    });
}

#[test]
fn a11_a_late_link_is_missed_by_the_first_cancel() {
    on_linux(6, 1, || {
        let mut ring = Bare::defer(8);
        let (reader, _writer) = pipe();
        let head = opcode::Timeout::new(time(Duration::from_millis(1))).flags(TimeoutFlags::ETIME_SUCCESS);
        ring.push(1, head.build().flags(LINK));
        ring.push(2, read(&reader));
        ring.submit().unwrap();
        // Its time is up, but nobody has looked.
        thread::sleep(Duration::from_millis(10));
        let (first, mut seen) = ring.cancel(2);
        rule!("A11", first == -libc::ENOENT, "the first cancel says {first}");
        ring.complete_only(&mut seen, 1);
        rule!("A11", seen == [(1, -libc::ETIME, 0)], "after the first cancel: {seen:?}");
        let (second, mut seen) = ring.cancel(2);
        ring.complete(&mut seen, 1);
        rule!("A11", second == 0 && seen == [(2, ECANCELED, 0)], "the second says {second}: {seen:?}");
    });
}

#[test]
fn a12_closing_a_descriptor_ends_no_request_on_it() {
    on_linux(6, 1, || {
        for (kind, mut ring) in kinds(8) {
            let (mut client, server) = tcp_pair();
            ring.push(1, opcode::Recv::new(raw(&server), memory(8), 8).build());
            ring.look().unwrap();
            drop(server);
            let early = ring.strays();
            rule!("A12", early.is_empty(), "{kind}: {early:?}");
            client.write_all(b"hi").unwrap();
            let seen = ring.wait(1);
            rule!("A12", seen == [(1, 2, 0)], "{kind}: {seen:?}");
        }
    });
}

#[test]
fn a13_a_cancel_by_user_data_hits_one_request() {
    on_linux(6, 1, || {
        for (kind, mut ring) in kinds(8) {
            for _ in 0..3 {
                ring.push(1, never());
            }
            ring.look().unwrap();
            let (cancel, mut seen) = ring.cancel(1);
            ring.complete_only(&mut seen, 1);
            rule!("A13", cancel == 0 && seen == [(1, ECANCELED, 0)], "{kind}: {cancel}, {seen:?}");
            let all = opcode::AsyncCancel2::new(CancelBuilder::user_data(1).all()).build();
            let (cancel, mut seen) = ring.one(all);
            ring.complete(&mut seen, 2);
            rule!("A13", cancel == 2 && seen == [(1, ECANCELED, 0); 2], "{kind}: {cancel}, {seen:?}");
            let (cancel, seen) = ring.cancel(1);
            rule!("A13", cancel == -libc::ENOENT && seen.is_empty(), "{kind}: {cancel}, {seen:?}");
        }
    });
}

#[test]
fn m1_what_a_cancelled_request_has_done_is_its_result() {
    on_linux(6, 1, || {
        for (kind, mut ring) in kinds(8) {
            let (mut client, server) = tcp_pair();
            client.write_all(b"12345").unwrap();
            ring.push(1, opcode::Recv::new(raw(&server), memory(8), 8).flags(libc::MSG_WAITALL).build());
            ring.look().unwrap();
            let (_, mut seen) = ring.cancel(1);
            ring.complete(&mut seen, 1);
            rule!("M1", seen == [(1, 5, 0)], "{kind}: {seen:?}");
        }
    });
}

#[test]
fn m4_what_is_read_at_submit_may_be_overwritten_after_it() {
    on_linux(6, 1, || {
        for (kind, mut ring) in kinds(8) {
            let (reader, writer) = pipe();
            let spec = Box::leak(Box::new(Timespec::from(Duration::from_millis(5))));
            let wrong = memory(8);
            let right = memory(8);
            let vector = Box::leak(Box::new(libc::iovec { iov_base: right.cast(), iov_len: 8 }));
            // Also behind a link.
            ring.push(
                1,
                opcode::Timeout::new(&raw const *spec).flags(TimeoutFlags::ETIME_SUCCESS).build().flags(LINK),
            );
            ring.push(2, opcode::Readv::new(raw(&reader), &raw const *vector, 1).build());
            ring.submit().unwrap();
            *spec = Timespec::new().sec(100_000);
            *vector = libc::iovec { iov_base: wrong.cast(), iov_len: 1 };
            put(&writer, b"12345678");
            let seen = sorted(ring.wait(2));
            rule!("M4", seen == [(1, -libc::ETIME, 0), (2, 8, 0)], "{kind}: {seen:?}");
            // SAFETY: the request is over, and the memory lives for ever.
            let bytes = unsafe { std::slice::from_raw_parts(right, 8) };
            rule!("M4", bytes == b"12345678", "{kind}: {bytes:?}");
            // A message that waits for its peer.
            let (client, mut server) = tcp_pair();
            let (entry, header) = send_message_zc(&client, 1);
            // SAFETY: the header leads to its pieces, and both live for ever.
            let piece = unsafe { &mut *(*header).msg_iov };
            const MUCH: usize = 16 << 20;
            *piece = libc::iovec { iov_base: memory(MUCH).cast(), iov_len: MUCH };
            ring.push(1, entry.flags(libc::MSG_WAITALL as u32).build());
            let seen = ring.strays();
            rule!("M4", seen.is_empty(), "{kind}: {seen:?}");
            *piece = libc::iovec { iov_base: wrong.cast(), iov_len: 1 };
            // SAFETY: as above.
            unsafe { (*header).msg_iovlen = 0 };
            let reader = thread::spawn(move || server.read_exact(&mut vec![0; MUCH]));
            let seen = ring.wait(2);
            let whole = (1, MUCH as i32, F_MORE);
            rule!("M4", seen.first() == Some(&whole) && is_notification(&seen[1]), "{kind}: {seen:?}");
            reader.join().unwrap().unwrap();
            // How a file is to be opened, also if a worker opens it.
            for flags in [squeue::Flags::empty(), squeue::Flags::ASYNC] {
                let how = Box::leak(Box::new(OpenHow::new()));
                let here = c"/".as_ptr();
                let entry = opcode::OpenAt2::new(Fd(libc::AT_FDCWD), here, &raw const *how).build();
                ring.push(1, entry.flags(flags));
                ring.submit().unwrap();
                *how = OpenHow::new().flags(u64::MAX).resolve(u64::MAX);
                let seen = ring.wait(1);
                rule!("M4", matches!(seen[..], [(1, 0.., 0)]), "{kind}, {flags:?}: {seen:?}");
                // SAFETY: it was opened for this test.
                drop(unsafe { OwnedFd::from_raw_fd(seen[0].1) });
            }
        }
    });
}

#[test]
fn m5_the_pieces_of_a_vector_of_registered_memory_lie_within_it_and_are_not_empty() {
    on_linux(6, 15, || {
        const SIZE: usize = 4096;
        for (kind, mut ring) in kinds(8) {
            let places = [(); 2].map(|()| memory(SIZE));
            let registered = places.map(|place| libc::iovec { iov_base: place.cast(), iov_len: SIZE });
            // SAFETY: the memory lives for ever.
            unsafe { ring.0.submitter().register_buffers(&registered) }.unwrap();
            let [one, other] = places;
            let (reader, writer) = pipe();
            let list = |pieces: &[(*mut u8, usize)]| {
                let piece = |(start, length): &(*mut u8, usize)| libc::iovec {
                    iov_base: start.cast(),
                    iov_len: *length,
                };
                Box::leak(pieces.iter().map(piece).collect::<Vec<_>>().into_boxed_slice())
            };
            let (tail, before) = (one.wrapping_add(SIZE - 8), one.wrapping_sub(1));
            let fault = -libc::EFAULT;
            for (pieces, index, result) in [
                (&[(tail, 8), (one, 3)][..], 0, 11),
                (&[(one, 8), (other, 8)], 0, fault),
                (&[(one, 8), (other, 8)], 1, fault),
                (&[(other, 8), (one, 8)], 1, fault),
                (&[(one, 8), (tail, 9)], 0, fault),
                (&[(before, 2)], 0, fault),
                (&[(one, 8), (one, 0)], 0, fault),
                (&[(one, 8)], 2, fault),
                (&[(one, 8)], u16::MAX, fault),
            ] {
                let count = pieces.len() as u32;
                let write = opcode::WritevFixed::new(raw(&writer), list(pieces).as_ptr(), count, index);
                let seen = ring.one(write.build());
                rule!("M5", seen == (result, vec![]), "{kind}, {pieces:?} in {index}: {seen:?}");
            }
            let mut bytes = [1; 16];
            let written = File::from(reader.try_clone().unwrap()).read(&mut bytes).unwrap();
            rule!("M5", written == 11, "{kind}: {written}");
            // The list is read when the request is taken in.
            let pieces = list(&[(one, 2), (tail, 6)]);
            ring.push(1, opcode::ReadvFixed::new(raw(&reader), pieces.as_ptr(), 2, 0).build());
            ring.submit().unwrap();
            pieces.fill(libc::iovec { iov_base: other.cast(), iov_len: 1 });
            put(&writer, b"12345678");
            let seen = ring.wait(1);
            rule!("M5", seen == [(1, 8, 0)], "{kind}: {seen:?}");
            // SAFETY: the request is over, and the memory lives for ever.
            let (head, rest) =
                unsafe { (std::slice::from_raw_parts(one, 2), std::slice::from_raw_parts(tail, 8)) };
            rule!("M5", head == b"12" && rest == b"345678\0\0", "{kind}: {head:?}, {rest:?}");
        }
    });
}

// ---- B, N: links ----------------------------------------------------------------------------------

#[test]
fn b1_what_a_chain_has_not_begun_is_reached_through_its_head_alone() {
    on_linux(6, 1, || {
        for (kind, mut ring) in kinds(8) {
            let (reader, _writer) = pipe();
            ring.push(1, read(&reader).flags(LINK));
            ring.push(2, nop().flags(LINK));
            ring.push(3, nop());
            ring.look().unwrap();
            let (tail, seen) = ring.cancel(3);
            rule!("B1", tail == -libc::ENOENT && seen.is_empty(), "{kind}: {tail}, {seen:?}");
            let (head, mut seen) = ring.cancel(1);
            ring.complete(&mut seen, 3);
            let expected = [1, 2, 3].map(|it| (it, ECANCELED, 0));
            rule!("B1", head == 0 && sorted(seen.clone()) == expected, "{kind}: {head}, {seen:?}");
        }
    });
}

#[test]
fn b2_each_cancel_peels_one_member_off_a_hard_chain() {
    on_linux(6, 1, || {
        for (kind, mut ring) in kinds(8) {
            let (reader, _writer) = pipe();
            let hard = squeue::Flags::IO_HARDLINK;
            ring.push(1, read(&reader).flags(hard));
            ring.push(2, read(&reader).flags(hard));
            ring.push(3, read(&reader));
            ring.look().unwrap();
            for member in 1..=3 {
                let (cancel, mut seen) = ring.cancel(member);
                ring.complete_only(&mut seen, 1);
                let expected = [(member, ECANCELED, 0)];
                rule!("B2", cancel == 0 && seen == expected, "{kind}, member {member}: {cancel}, {seen:?}");
            }
        }
    });
}

#[test]
fn b3_a_linked_timeout_has_a_completion_of_its_own_in_either_order() {
    on_linux(6, 1, || {
        for (kind, mut ring) in kinds(8) {
            let (reader, writer) = pipe();
            let chain = |ring: &mut Bare, duration| {
                ring.push(1, read(&reader).flags(LINK));
                ring.push(2, opcode::LinkTimeout::new(time(duration)).build());
                ring.look().unwrap();
            };
            // Its time is up.
            chain(&mut ring, Duration::from_millis(2));
            let seen = sorted(ring.wait(2));
            rule!("B3", seen == [(1, ECANCELED, 0), (2, -libc::ETIME, 0)], "{kind}: {seen:?}");
            // The request completes first.
            chain(&mut ring, LONG);
            put(&writer, b"x");
            let seen = sorted(ring.wait(2));
            rule!("B3", seen == [(1, 1, 0), (2, ECANCELED, 0)], "{kind}: {seen:?}");
            // It can't be cancelled, but it ends with its request.
            chain(&mut ring, LONG);
            let (cancel, seen) = ring.cancel(2);
            rule!("B3", cancel == -libc::ENOENT && seen.is_empty(), "{kind}: {cancel}, {seen:?}");
            let (cancel, mut seen) = ring.cancel(1);
            ring.complete(&mut seen, 2);
            let ended = sorted(seen) == [(1, ECANCELED, 0), (2, ECANCELED, 0)];
            rule!("B3", cancel == 0 && ended, "{kind}: {cancel}");
        }
    });
}

#[test]
fn b4_a_head_that_fails_or_falls_short_breaks_its_chain() {
    on_linux(6, 1, || {
        for (kind, mut ring) in kinds(8) {
            ring.push(1, opcode::Fsync::new(Fd(-1)).build().flags(LINK));
            ring.push(2, nop().flags(LINK));
            ring.push(3, nop());
            let seen = sorted(ring.wait(3));
            let expected = [(1, -libc::EBADF, 0), (2, ECANCELED, 0), (3, ECANCELED, 0)];
            rule!("B4", seen == expected, "{kind}: {seen:?}");
            let (reader, writer) = pipe();
            put(&writer, b"abc");
            ring.push(1, read(&reader).flags(LINK));
            ring.push(2, nop());
            let seen = sorted(ring.wait(2));
            rule!("B4", seen == [(1, 3, 0), (2, ECANCELED, 0)], "{kind}: {seen:?}");
        }
    });
}

#[test]
fn b5_an_entry_that_skips_its_success_hides_it_and_the_rest_of_its_chain() {
    let skip = squeue::Flags::SKIP_SUCCESS;
    on_linux(6, 1, move || {
        for (kind, mut ring) in kinds(8) {
            ring.push(1, nop().flags(skip));
            let seen = ring.strays();
            rule!("B5", seen.is_empty(), "{kind}: {seen:?}");
            ring.push(1, opcode::Fsync::new(Fd(-1)).build().flags(skip | LINK));
            ring.push(2, nop().flags(LINK));
            ring.push(3, nop());
            let mut seen = Vec::new();
            ring.complete_only(&mut seen, 1);
            rule!("B5c", seen == [(1, -libc::EBADF, 0)], "{kind}: {seen:?}");
            // From then on, a drain is of no more use.
            let (drain, _) = ring.one(nop().flags(squeue::Flags::IO_DRAIN));
            rule!("B5i", drain == -libc::EOPNOTSUPP, "{kind}: the drain ended with {drain}");
        }
    });
}

#[test]
fn b6_a_chain_ends_with_its_submit() {
    on_linux(6, 1, || {
        for (kind, mut ring) in kinds(8) {
            let (reader, _writer) = pipe();
            ring.push(1, read(&reader).flags(LINK));
            ring.submit().unwrap();
            ring.push(2, nop());
            // It does not wait for the read.
            let seen = ring.wait(1);
            rule!("B6", seen == [(2, 0, 0)], "{kind}: {seen:?}");
            let (_, mut seen) = ring.cancel(1);
            ring.complete(&mut seen, 1);
            let ended = seen == [(1, ECANCELED, 0)] || seen == [(1, -libc::EINTR, 0)];
            rule!("B6", ended, "{kind}: {seen:?}");
        }
    });
}

#[test]
fn n1_a_link_on_the_last_entry_swallows_the_cancel_behind_it() {
    on_linux(6, 1, || {
        for (kind, mut ring) in kinds(8) {
            let (reader, writer) = pipe();
            ring.push(1, never());
            ring.push(2, read(&reader).flags(LINK));
            ring.push(3, opcode::AsyncCancel::new(1).build());
            let seen = ring.strays();
            rule!("N1", seen.is_empty(), "{kind}: {seen:?}");
            put(&writer, b"12345678");
            let seen = sorted(ring.wait(3));
            rule!("N1", seen == [(1, ECANCELED, 0), (2, 8, 0), (3, 0, 0)], "{kind}: {seen:?}");
        }
    });
}

// ---- C: zero-copy sends ---------------------------------------------------------------------------

/// How much to send: more than the window of the peer takes. So the kernel usually keeps some of it where it is until
/// somebody reads, instead of copying it and being done.
const SENT: usize = 1 << 20;
/// How often to try what usually happens.
const ATTEMPTS: usize = 10;

fn send_zc(socket: &TcpStream, size: usize) -> squeue::Entry {
    opcode::SendZc::new(raw(socket), memory(size), size as u32).build()
}

/// A message of this many pieces of eight bytes. Returns its header, too.
fn send_message_zc(socket: &TcpStream, count: usize) -> (opcode::SendMsgZc, *mut libc::msghdr) {
    let pieces: Vec<_> = (0..count).map(|_| libc::iovec { iov_base: memory(8).cast(), iov_len: 8 }).collect();
    // SAFETY: it is a structure of the system's, made of numbers and pointers.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    (header.msg_iov, header.msg_iovlen) = (Box::leak(pieces.into_boxed_slice()).as_mut_ptr(), count as _);
    let header = Box::leak(Box::new(header));
    (opcode::SendMsgZc::new(raw(socket), &raw const *header), header)
}

fn is_notification(cqe: &Cqe) -> bool {
    matches!(cqe, (1, 0, flags) if flags & (F_MORE | F_NOTIF) == F_NOTIF)
}

/// Sends without a copy. Returns whether only the first completion has come, which is not final.
fn sends(ring: &mut Bare, socket: &TcpStream) -> bool {
    ring.push(1, send_zc(socket, SENT));
    let seen = ring.wait(1);
    let first = matches!(seen.first(), Some((1, 1.., F_MORE)));
    rule!("C1", first && seen.iter().skip(1).all(is_notification), "{seen:?}");
    seen.len() == 1
}

#[test]
fn c1_a_zero_copy_send_is_over_with_its_notification() {
    on_linux(6, 1, || {
        for (kind, mut ring) in kinds(8) {
            let (client, mut server) = tcp_pair();
            ring.push(1, send_zc(&client, SENT));
            let mut seen = ring.wait(1);
            let Some((1, sent @ 1.., F_MORE)) = seen.first() else {
                panic!("rule C1 differs: {kind}: {seen:?}")
            };
            server.read_exact(&mut vec![0; *sent as usize]).unwrap();
            ring.complete_only(&mut seen, 2);
            rule!("C1", seen.len() == 2 && is_notification(&seen[1]), "{kind}: {seen:?}");
        }
    });
}

#[test]
fn c6_an_error_of_a_zero_copy_send_is_not_final_if_it_announces_more() {
    on_linux(6, 1, || {
        for (kind, mut ring) in kinds(8) {
            let (client, _server) = tcp_pair();
            client.shutdown(Shutdown::Write).unwrap();
            for (entry, errno) in [
                (send_zc(&client, 64), libc::EPIPE),
                (opcode::SendZc::new(Fd(-1), memory(8), 8).build(), libc::EBADF),
                (send_message_zc(&client, 1).0.build(), libc::EPIPE),
                // This is found out before anything is begun.
                (send_message_zc(&client, 1025).0.build(), libc::EMSGSIZE),
            ] {
                ring.push(1, entry);
                let mut seen = Vec::new();
                ring.complete_only(&mut seen, 1);
                let first_is_it = seen.first().is_some_and(|it| it.1 == -errno);
                let finals = seen.iter().filter(|it| it.2 & F_MORE == 0).count();
                let last_is_final = seen.last().is_some_and(|it| it.2 & F_MORE == 0);
                rule!("C6", first_is_it && finals == 1 && last_is_final, "{kind}: {seen:?}");
            }
        }
    });
}

#[test]
fn c7_a_zero_copy_send_that_its_chain_has_ended_is_notified_of_after_its_end() {
    on_linux(6, 1, || {
        for (kind, mut ring) in kinds(8) {
            let (client, mut server) = tcp_pair();
            let (reader, _writer) = pipe();
            // On something that is not a socket, a receive fails. An opcode that the kernel does not know ends the
            // chain before it has begun.
            let receive = opcode::Recv::new(raw(&reader), memory(8), 8).build();
            for (first, errno) in [(receive, libc::ENOTSOCK), (unknown(), libc::EINVAL)] {
                ring.push(2, first.flags(LINK));
                ring.push(1, send_zc(&client, 64));
                let mut seen = Vec::new();
                ring.complete_only(&mut seen, 3);
                let (of_send, rest): (Vec<Cqe>, Vec<Cqe>) = seen.into_iter().partition(|it| it.0 == 1);
                rule!("C7", rest == [(2, -errno, 0)], "{kind}: the first: {rest:?}");
                let expected = [(1, ECANCELED, 0), (1, 0, F_NOTIF)];
                rule!("C7", of_send == expected, "{kind}, {errno}: {of_send:?}");
            }
            server.set_nonblocking(true).unwrap();
            let read = server.read(&mut [0; 8]).map_err(|error| error.kind());
            rule!("C7", read == Err(io::ErrorKind::WouldBlock), "{kind}: something was sent: {read:?}");
        }
    });
}

#[test]
fn c9_a_notification_can_be_neither_cancelled_nor_hurried() {
    on_linux(6, 1, || {
        for (kind, mut ring) in kinds(8) {
            let stays_away = (0..ATTEMPTS).any(|_| {
                let (client, server) = tcp_pair();
                if !sends(&mut ring, &client) {
                    return false;
                }
                let (cancel, mut seen) = ring.cancel(1);
                rule!("C9", cancel == -libc::ENOENT, "{kind}: the cancel says {cancel}");
                client.shutdown(Shutdown::Both).unwrap();
                drop(client);
                seen.extend(ring.strays());
                let stays_away = seen.is_empty();
                drop(server);
                ring.complete(&mut seen, 1);
                rule!("C9", seen.len() == 1 && is_notification(&seen[0]), "{kind}: {seen:?}");
                stays_away
            });
            rule!("C9", stays_away, "{kind}: it came before the peer had read or closed");
        }
    });
}

#[test]
fn c11_a_reset_brings_the_notification() {
    on_linux(6, 1, || {
        for (kind, mut ring) in kinds(8) {
            let brought = (0..ATTEMPTS).any(|_| {
                let (client, _server) = tcp_pair();
                if !sends(&mut ring, &client) {
                    return false;
                }
                let mut seen = ring.strays();
                let stays_away = seen.is_empty();
                let linger = libc::linger { l_onoff: 1, l_linger: 0 };
                setsockopt(&client, sockopt::Linger, &linger).unwrap();
                drop(client);
                ring.complete(&mut seen, 1);
                rule!("C11", seen.len() == 1 && is_notification(&seen[0]), "{kind}: {seen:?}");
                stays_away
            });
            rule!("C11", brought, "{kind}: it came before the reset");
        }
    });
}

// ---- D: messages from other rings -----------------------------------------------------------------

#[test]
fn d1_a_message_arrives_as_it_was_sent_flags_included() {
    on_linux(6, 3, || {
        for (kind, mut ring) in kinds(8) {
            let mut sender = Bare::plain(8);
            let flags = [None, Some(F_MORE), Some(F_NOTIF), Some(0x100), Some(F_BUFFER | 5 << 16)];
            for (number, flags) in (0..).zip(flags) {
                let user_data = u64::MAX - number;
                let message = opcode::MsgRingData::new(raw(&ring.0), -7, user_data, flags).build();
                let (sent, _) = sender.one(message);
                rule!("D1", sent == 0, "{kind}: the sender is told {sent}");
                let seen = ring.wait(1);
                rule!("D1", seen == [(user_data, -7, flags.unwrap_or(0))], "{kind}: {seen:?}");
            }
        }
    });
}

#[test]
fn d4_a_message_to_what_is_no_ring_or_is_not_enabled_is_refused() {
    on_linux(6, 1, || {
        let mut sender = Bare::plain(8);
        let mut message = |target: Fd| sender.one(opcode::MsgRingData::new(target, 0, 0, None).build()).0;
        let disabled = Bare::new(8, |builder| {
            builder.setup_r_disabled();
        });
        let results = [message(Fd(-1)), message(raw(&pipe().0)), message(raw(&disabled.0))];
        rule!("D4", results == [-libc::EBADF, -libc::EBADFD, -libc::EBADFD], "{results:?}");
    });
}

#[test]
fn d5_no_message_is_lost_on_a_full_queue() {
    on_linux(6, 1, || {
        for (kind, mut ring) in cramped() {
            let mut sender = Bare::plain(8);
            for number in 0..20 {
                let message = opcode::MsgRingData::new(raw(&ring.0), 0, number, None).build();
                let (sent, _) = sender.one(message);
                rule!("D5", sent == 0, "{kind}: the sender is told {sent}");
            }
            let seen = ring.wait(20);
            rule!("D5", seen == (0..20).map(|it| (it, 0, 0)).collect::<Vec<_>>(), "{kind}: {seen:?}");
        }
    });
}

#[test]
fn d9_a_message_needs_no_ring_to_be_sent_from() {
    on_linux(6, 13, || {
        for (kind, mut ring) in kinds(8) {
            let sent = forge_without_a_ring(raw(&ring.0), 5, 6, Some(F_MORE));
            rule!("D9", sent.is_ok(), "{kind}: {sent:?}");
            let seen = ring.wait(1);
            rule!("D9", seen == [(5, 6, F_MORE)], "{kind}: {seen:?}");
        }
    });
}

// ---- E: drains ------------------------------------------------------------------------------------

#[test]
fn e3_all_that_is_submitted_after_a_drain_waits_behind_it_cancels_included() {
    on_linux(6, 1, || {
        for (kind, mut ring) in kinds(8) {
            let (reader, _writer) = pipe();
            ring.push(1, poll_multi(&reader));
            ring.push(2, nop().flags(squeue::Flags::IO_DRAIN));
            ring.push(3, opcode::AsyncCancel::new(1).build());
            ring.push(4, nop());
            let seen = ring.strays();
            rule!("E3", seen.is_empty(), "{kind}: {seen:?}");
            // A cancel that does not go through the queue reaches it.
            let cancelled = ring.0.submitter().register_sync_cancel(None, CancelBuilder::user_data(1));
            rule!("A9", cancelled.is_ok(), "{kind}: {cancelled:?}");
            let seen = sorted(ring.wait(4));
            let expected = [(1, ECANCELED, 0), (2, 0, 0), (3, -libc::ENOENT, 0), (4, 0, 0)];
            rule!("E3", seen == expected, "{kind}: {seen:?}");
        }
    });
}

// ---- F: the completion queue ----------------------------------------------------------------------

#[test]
fn f1_what_does_not_fit_the_completion_queue_is_kept_in_order_and_comes_with_the_next_enter() {
    on_linux(6, 1, || {
        for (kind, mut ring) in cramped() {
            for number in 0..10 {
                ring.push(number, nop());
                ring.submit().unwrap();
            }
            let full = ring.look();
            let is_fine = match &full {
                Ok(entered) => *entered == 0,
                Err(error) => error.raw_os_error() == Some(libc::EBUSY),
            };
            rule!("F1", is_fine, "{kind}: {full:?}");
            rule!("F1", ring.0.submission().cq_overflow(), "{kind}: no flag says so");
            let mut seen = ring.reap();
            rule!("F1", seen.len() == 4, "{kind}: {seen:?}");
            rule!("F1", ring.reap().is_empty(), "{kind}: it came by itself");
            while seen.len() < 10 {
                ring.look().unwrap();
                let more = ring.reap();
                rule!("F1", !more.is_empty(), "{kind}: only {seen:?}");
                seen.extend(more);
            }
            rule!("F1", seen == (0..10).map(|it| (it, 0, 0)).collect::<Vec<_>>(), "{kind}: {seen:?}");
            rule!("F1", !ring.0.submission().cq_overflow(), "{kind}: the flag stays");
        }
    });
}

/// Fills the completion queue, makes `trigger` cause `times` completions of a multishot request, and returns the
/// completions of that request.
fn over_a_full_queue(
    ring: &mut Bare,
    request: squeue::Entry,
    trigger: impl FnOnce(),
    times: usize,
) -> Vec<Cqe> {
    const REQUEST: u64 = 1;
    ring.push(REQUEST, request);
    ring.look().unwrap();
    for number in 0..4 {
        ring.push(10 + number, nop());
    }
    ring.look().unwrap();
    trigger();
    ring.look().ok();
    let mut seen = ring.wait(4 + times);
    seen.retain(|it| it.0 == REQUEST);
    seen
}

#[test]
fn f2_a_full_queue_ends_a_multishot_poll_with_its_events() {
    on_linux(6, 1, || {
        for (kind, mut ring) in cramped() {
            let (reader, writer) = pipe();
            let seen = over_a_full_queue(&mut ring, poll_multi(&reader), || put(&writer, b"x"), 1);
            rule!("F2", matches!(seen[..], [(1, 1, 0)]), "{kind}: {seen:?}");
        }
    });
}

#[test]
fn f3_a_full_queue_ends_a_multishot_receive_with_its_bytes() {
    on_linux(6, 1, || {
        for (kind, mut ring) in cramped() {
            let (mut client, server) = tcp_pair();
            let _buffers = ProvidedBuffers::register(&ring.0.submitter(), 7, 2, 8, 0).unwrap();
            let receive = opcode::RecvMulti::new(raw(&server), 7).build();
            let seen = over_a_full_queue(&mut ring, receive, || client.write_all(b"abc").unwrap(), 1);
            let ended = matches!(seen[..], [(1, 3, flags)] if flags & (F_MORE | F_BUFFER) == F_BUFFER);
            rule!("F3", ended, "{kind}: {seen:?}");
        }
    });
}

#[test]
fn f4_a_full_queue_ends_a_multishot_accept_with_its_socket() {
    on_linux(6, 1, || {
        for (kind, mut ring) in cramped() {
            let listener = listener();
            let mut clients = Vec::new();
            let accept = opcode::AcceptMulti::new(raw(&*listener)).build();
            let seen = over_a_full_queue(&mut ring, accept, || clients = connect(&listener, 1), 1);
            let [(1, fd @ 0.., flags)] = seen[..] else { panic!("rule F4 differs: {kind}: {seen:?}") };
            // SAFETY: it was just accepted, and nobody else has it.
            let socket = TcpStream::from(unsafe { OwnedFd::from_raw_fd(fd) });
            rule!("F4", flags & F_MORE == 0, "{kind}: {seen:?}");
            assert_eq!(socket.peer_addr().unwrap(), clients[0].local_addr().unwrap());
        }
    });
}

#[test]
fn f5_a_full_queue_ends_a_multishot_timer_with_its_tick() {
    on_linux(6, 4, || {
        for (kind, mut ring) in cramped() {
            let tick = opcode::Timeout::new(time(Duration::from_millis(3))).flags(TimeoutFlags::MULTISHOT);
            let pause = || thread::sleep(Duration::from_millis(10));
            let seen = over_a_full_queue(&mut ring, tick.build(), pause, 1);
            let ended = seen.last().is_some_and(|it| (it.1, it.2 & F_MORE) == (-libc::ETIME, 0));
            let ticks = seen.iter().all(|it| it.1 == -libc::ETIME);
            rule!("F5", ended && ticks, "{kind}: {seen:?}");
        }
    });
}

#[test]
fn f6_a_small_queue_loses_nothing() {
    on_linux(6, 1, || {
        for (kind, mut ring) in cramped() {
            let mut seen = Vec::new();
            for number in 0..64 {
                ring.push(number, never());
                ring.look().unwrap();
            }
            for number in 0..64 {
                ring.push(100 + number, opcode::AsyncCancel::new(number).build());
                ring.look().ok();
            }
            seen.extend(ring.wait(128));
            let seen = sorted(seen);
            let mut expected: Vec<Cqe> = (0..64).map(|it| (it, ECANCELED, 0)).collect();
            expected.extend((100..164).map(|it| (it, 0, 0)));
            rule!("F6", seen == expected, "{kind}: {} completions: {seen:?}", seen.len());
        }
    });
}

#[test]
fn f7_a_ring_that_defers_shows_nothing_to_who_does_not_look() {
    on_linux(6, 1, || {
        let mut ring = Bare::defer(8);
        let (reader, writer) = pipe();
        ring.push(1, poll(&reader));
        ring.submit().unwrap();
        put(&writer, b"x");
        for _ in 0..10 {
            ring.submit().unwrap();
        }
        let early = ring.reap();
        rule!("F7", early.is_empty(), "without a look: {early:?}");
        ring.look().unwrap();
        let seen = ring.reap();
        rule!("F7", seen == [(1, 1, 0)], "with one: {seen:?}");
    });
}

// ---- G: waiting -----------------------------------------------------------------------------------

#[test]
fn g1_a_signal_ends_a_wait_and_says_nothing_if_something_was_submitted() {
    in_child(|| {
        if !is_linux(6, 1) {
            return;
        }
        for restart in [false, true] {
            for (kind, mut ring) in kinds(8) {
                let storm = SignalStorm::begin(restart);
                let waited = ring.enter(1, 1);
                let errno = waited.as_ref().err().and_then(io::Error::raw_os_error);
                rule!("G1", errno == Some(libc::EINTR), "{kind}, restart {restart}: {waited:?}");
                ring.push(1, never());
                let waited = ring.enter(1, 1);
                let seen = ring.reap();
                let says_nothing = waited.as_ref().is_ok_and(|it| *it == 1) && seen.is_empty();
                rule!("G1", says_nothing, "{kind}, restart {restart}: {waited:?}, {seen:?}");
                drop(storm);
            }
        }
    });
}

#[test]
fn g2_a_process_that_was_stopped_and_goes_on_has_its_wait_interrupted() {
    in_child(|| {
        if !is_linux(6, 1) {
            return;
        }
        for (kind, mut ring) in kinds(8) {
            let pid = std::process::id();
            // Until it waits.
            let stop = format!("sleep 0.05 && kill -STOP {pid} && sleep 0.05 && kill -CONT {pid}");
            let commands = format!("while {stop}; do :; done");
            let mut other = Command::new("/bin/sh").args(["-c", &commands]).spawn().unwrap();
            ring.push(1, timeout(LONG));
            ring.submit().unwrap();
            let waited = ring.enter(1, 1);
            let errno = waited.as_ref().err().and_then(io::Error::raw_os_error);
            other.kill().unwrap();
            other.wait().unwrap();
            rule!("G2", errno == Some(libc::EINTR), "{kind}: {waited:?}");
        }
    });
}

#[test]
fn g5_a_wait_with_a_limit_says_so_unless_something_was_submitted() {
    on_linux(6, 1, || {
        for (kind, mut ring) in kinds(8) {
            let limit = Timespec::from(Duration::from_millis(2));
            let arguments = SubmitArgs::new().timespec(&limit);
            let waited = ring.0.submitter().submit_with_args(1, &arguments);
            let errno = waited.as_ref().err().and_then(io::Error::raw_os_error);
            rule!("G5", errno == Some(libc::ETIME), "{kind}: {waited:?}");
            ring.push(1, never());
            let waited = ring.0.submitter().submit_with_args(1, &arguments);
            rule!("G5", waited.as_ref().is_ok_and(|it| *it == 1), "{kind}: {waited:?}");
        }
    });
}

// ---- H: submitting --------------------------------------------------------------------------------

#[test]
fn h1_a_bad_entry_ends_the_submit_and_the_wait_unless_all_are_to_be_submitted() {
    on_linux(6, 1, || {
        for all in [false, true] {
            let mut ring = Bare::new(8, |builder| {
                if all {
                    builder.setup_submit_all();
                }
            });
            ring.push(1, nop());
            ring.push(2, unknown());
            ring.push(3, nop());
            ring.push(4, nop());
            let entered = ring.enter(4, 1).unwrap();
            let left = ring.0.submission().len();
            let seen = sorted(ring.reap());
            let (taken, rest) = if all { (4, 0) } else { (2, 2) };
            rule!("H1", (entered, left) == (taken, rest), "all: {all}: {entered} taken, {left} left");
            let expected = [(1, 0, 0), (2, -libc::EINVAL, 0), (3, 0, 0), (4, 0, 0)];
            rule!("H1", seen == expected[..taken], "all: {all}: {seen:?}");
            let rest = sorted(ring.wait(4 - taken));
            rule!("H1", rest == expected[taken..], "all: {all}: the rest: {rest:?}");
        }
    });
}

#[test]
fn h2_what_fails_when_it_is_begun_does_not_end_the_submit() {
    on_linux(6, 1, || {
        let mut ring = Bare::plain(8);
        ring.push(1, opcode::Fsync::new(Fd(-1)).build());
        ring.push(
            2,
            opcode::Read::new(raw(&File::open("/dev/zero").unwrap()), std::ptr::null_mut(), 8).build(),
        );
        ring.push(3, nop());
        let entered = ring.submit().unwrap();
        rule!("H2", entered == 3, "{entered} taken");
        let seen = sorted(ring.wait(3));
        let failed = seen.len() == 3 && seen[0].1 == -libc::EBADF && seen[1].1 < 0 && seen[2].1 == 0;
        rule!("H2", failed, "{seen:?}");
    });
}

#[test]
fn h3_a_bad_entry_in_a_chain_ends_all_of_it_with_a_completion_each() {
    on_linux(6, 1, || {
        for bad in 0..3 {
            for (kind, mut ring) in kinds(8) {
                for place in 0..3 {
                    let entry = if place == bad { unknown() } else { nop() };
                    ring.push(place, if place < 2 { entry.flags(LINK) } else { entry });
                }
                ring.push(9, nop());
                let seen = sorted(ring.wait(4));
                let result = |place| if place == bad { -libc::EINVAL } else { ECANCELED };
                let mut expected: Vec<Cqe> = (0..3).map(|place| (place, result(place), 0)).collect();
                expected.push((9, 0, 0));
                rule!("H3", seen == expected, "{kind}, bad: {bad}: {seen:?}");
            }
        }
    });
}

#[test]
fn h4_what_cannot_be_prepared_ends_its_chain_before_anything_is_begun() {
    on_linux(6, 1, || {
        let long = Box::leak(Box::new([b'x'; 5000]));
        long[4999] = 0;
        for (kind, mut ring) in kinds(8) {
            for link in [LINK, squeue::Flags::IO_HARDLINK] {
                let (reader, writer) = pipe();
                let write = opcode::Write::new(raw(&writer), memory(8), 8).build();
                let unlink = opcode::UnlinkAt::new(Fd(libc::AT_FDCWD), long.as_ptr().cast()).build();
                ring.push(1, write.flags(link));
                ring.push(2, unlink.flags(link));
                ring.push(3, nop());
                let seen = sorted(ring.wait(3));
                let expected = [(1, ECANCELED, 0), (2, -libc::ENAMETOOLONG, 0), (3, ECANCELED, 0)];
                rule!("H4", seen == expected, "{kind}, {link:?}: {seen:?}");
                drop(writer);
                let mut bytes = Vec::new();
                File::from(reader).read_to_end(&mut bytes).unwrap();
                rule!("H4", bytes.is_empty(), "{kind}, {link:?}: the first was done");
            }
        }
    });
}

#[test]
fn h4b_a_vector_of_more_pieces_than_1024_cannot_be_prepared() {
    on_linux(6, 1, || {
        let pieces = Box::leak(vec![[0_u64; 2]; 1025].into_boxed_slice()).as_ptr();
        for (kind, mut ring) in kinds(8) {
            for (count, results) in [(1024, [0, 0]), (1025, [ECANCELED, -libc::EINVAL])] {
                let file = File::open("/dev/zero").unwrap();
                ring.push(1, nop().flags(LINK));
                ring.push(2, opcode::Readv::new(raw(&file), pieces.cast(), count).build());
                let seen = sorted(ring.wait(2));
                let expected = [(1, results[0], 0), (2, results[1], 0)];
                rule!("H4b", seen == expected, "{kind}, {count}: {seen:?}");
            }
        }
    });
}

#[test]
fn h5_flags_that_a_kernel_does_not_know_are_einval() {
    on_linux(6, 1, || {
        // SAFETY: zeroes are valid parameters, and large enough for any kernel's.
        let mut parameters = [0_u32; 64];
        parameters[2] = 1 << 31;
        // SAFETY: the parameters live through the call.
        let made = unsafe { libc::syscall(libc::SYS_io_uring_setup, 8, parameters.as_mut_ptr()) };
        let error = io::Error::last_os_error();
        rule!("H5", made == -1 && error.raw_os_error() == Some(libc::EINVAL), "{made}, {error}");
        let alone = errno::<IoUring>(IoUring::builder().setup_defer_taskrun().build(8));
        rule!("H5", alone == Some(libc::EINVAL), "DEFER_TASKRUN alone: {alone:?}");
        let mut ring = Bare::plain(8);
        let (result, _) = ring.one(unknown());
        rule!("H5", result == -libc::EINVAL, "an unknown opcode ends with {result}");
    });
}

#[test]
fn h6_what_a_restricted_ring_does_not_allow_is_eacces() {
    on_linux(6, 1, || {
        let mut ring = Bare::new(8, |builder| {
            builder.setup_r_disabled();
        });
        let mut allowed = [register::Restriction::sqe_op(opcode::Nop::CODE)];
        ring.0.submitter().register_restrictions(&mut allowed).unwrap();
        ring.0.submitter().register_enable_rings().unwrap();
        ring.push(1, nop());
        ring.push(2, never());
        ring.push(3, nop());
        let seen = sorted(ring.wait(3));
        rule!("H6", seen == [(1, 0, 0), (2, -libc::EACCES, 0), (3, 0, 0)], "{seen:?}");
    });
}

// ---- I, J: threads, copies, the end ----------------------------------------------------------------

fn errno<T>(result: io::Result<T>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}

#[test]
fn i1_a_ring_is_its_owners_and_what_another_thread_has_queued_waits_for_it() {
    on_linux(6, 1, || {
        let mut ring = Bare::defer(8);
        thread::scope(|scope| {
            let ring = &mut ring;
            scope.spawn(move || {
                ring.push(1, nop());
                let errors = [
                    errno(ring.submit()),
                    errno(ring.look()),
                    errno(ring.0.submitter().register_sync_cancel(None, CancelBuilder::user_data(1))),
                ];
                rule!("I1", errors == [Some(libc::EEXIST); 3], "{errors:?}");
            });
        });
        let queued = ring.0.submission().len();
        rule!("I1", queued == 1, "{queued} queued");
        let seen = ring.wait(1);
        rule!("I1", seen == [(1, 0, 0)], "{seen:?}");
    });
}

#[test]
fn i4_a_ring_that_was_made_disabled_belongs_to_the_thread_that_enables_it() {
    on_linux(6, 1, || {
        let mut ring = Bare::new(8, |builder| {
            builder.setup_r_disabled().setup_single_issuer().setup_defer_taskrun();
        });
        ring.push(1, nop());
        let early = errno(ring.submit());
        rule!("I4", early == Some(libc::EBADFD), "disabled, a submit says {early:?}");
        thread::scope(|scope| {
            let ring = &mut ring;
            scope.spawn(move || {
                ring.0.submitter().register_enable_rings().unwrap();
                let seen = ring.wait(1);
                rule!("I4", seen == [(1, 0, 0)], "the new owner sees {seen:?}");
                let again = errno(ring.0.submitter().register_enable_rings());
                rule!("I4", again == Some(libc::EBADFD), "enabled again, it says {again:?}");
            });
        });
        ring.push(2, nop());
        let late = errno(ring.submit());
        rule!("I4", late == Some(libc::EEXIST), "its maker is told {late:?}");
    });
}

#[test]
fn i5_a_deferring_ring_whose_thread_is_gone_ends_nothing() {
    on_linux(6, 1, || {
        let (reader, writer) = pipe();
        let ring = thread::spawn(move || {
            let mut ring = Bare::defer(8);
            ring.push(1, poll(&reader));
            ring.look().unwrap();
            (ring, reader)
        });
        let (mut ring, _reader) = ring.join().unwrap();
        put(&writer, b"x");
        let looked = errno(ring.look());
        rule!("I5", looked == Some(libc::EEXIST), "{looked:?}");
        let cancelled = errno(ring.0.submitter().register_sync_cancel(None, CancelBuilder::user_data(1)));
        rule!("I5", cancelled == Some(libc::EEXIST), "{cancelled:?}");
        let seen = ring.reap();
        rule!("I5", seen.is_empty(), "{seen:?}");
    });
}

/// Whether a byte of this memory, which lives for ever, changes from 0.
fn is_written(byte: *const u8, time: Duration) -> bool {
    let end = Instant::now() + time;
    loop {
        // SAFETY: the memory lives for ever, and nobody but the kernel writes to it.
        if unsafe { byte.read_volatile() } != 0 {
            return true;
        }
        if Instant::now() > end {
            return false;
        }
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn i6_a_copy_of_the_descriptor_keeps_requests_alive_when_the_ring_is_closed() {
    on_linux(6, 1, || {
        for copied in [true, false] {
            let mut ring = Bare::plain(8);
            let (reader, writer) = pipe();
            let byte = memory(1);
            ring.push(1, opcode::Read::new(raw(&reader), byte, 1).build());
            ring.look().unwrap();
            // SAFETY: a plain call; the result is looked at.
            let copy = unsafe { libc::dup(ring.0.as_raw_fd()) };
            assert!(copy >= 0);
            // SAFETY: a descriptor that was just made.
            let copy = unsafe { OwnedFd::from_raw_fd(copy) };
            let copy = copied.then_some(copy);
            drop(ring);
            if !copied {
                // Requests that are armed end some time after the ring is closed.
                thread::sleep(Duration::from_millis(100));
            }
            put(&writer, b"x");
            let written = is_written(byte, if copied { LONG } else { SHORT });
            rule!("I6", written == copied, "copied: {copied}, written to after the close: {written}");
            drop(copy);
        }
    });
}

#[test]
fn j1_closing_a_ring_waits_for_nothing_that_runs() {
    const SIZE: usize = 96 << 20;
    on_linux(6, 1, || {
        let path = format!("/dev/shm/rummelplatz-kernel-close-{}", std::process::id());
        let mut file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        file.set_len(SIZE as u64).unwrap();
        // The first and the last byte are not 0.
        file.write_all(b"x").unwrap();
        io::Seek::seek(&mut file, io::SeekFrom::End(-1)).unwrap();
        file.write_all(b"x").unwrap();
        let after_the_close = (0..50).any(|_| {
            // It is zeroed lazily, so it costs nothing before it is written to.
            let mut buffer = vec![0_u8; SIZE];
            let (first, last) = (buffer.as_mut_ptr(), &raw const buffer[SIZE - 1]);
            let mut ring = Bare::defer(8);
            let read = opcode::Read::new(raw(&file), first, SIZE as u32).offset(0).build();
            ring.push(1, read.flags(squeue::Flags::ASYNC));
            ring.submit().unwrap();
            assert!(is_written(first, LONG), "it never began");
            drop(ring);
            let before = is_written(last, Duration::ZERO);
            let after = is_written(last, LONG);
            if !after {
                // It may still be on its way.
                std::mem::forget(buffer);
                return false;
            }
            !before
        });
        rule!("J1", after_the_close, "no read went on after its ring was closed");
    });
}

// ---- K: streams -----------------------------------------------------------------------------------

#[test]
fn k1_a_lack_of_buffers_ends_a_multishot_receive() {
    on_linux(6, 1, || {
        for (kind, mut ring) in kinds(8) {
            let (mut client, server) = tcp_pair();
            let _buffers = ProvidedBuffers::register(&ring.0.submitter(), 7, 1, 4, 0).unwrap();
            client.write_all(b"12345678").unwrap();
            let receive = opcode::RecvMulti::new(raw(&server), 7).build();
            ring.push(1, receive.clone());
            let seen = ring.wait(2);
            let ended = matches!(seen[..], [(1, 4, flags), (1, enobufs, 0)]
                if flags & (F_MORE | F_BUFFER) == F_MORE | F_BUFFER && enobufs == -libc::ENOBUFS);
            rule!("K1", ended, "{kind}: {seen:?}");
            ring.push(1, receive);
            let seen = ring.wait(1);
            rule!("K1", seen == [(1, -libc::ENOBUFS, 0)], "{kind}, armed again: {seen:?}");
        }
    });
}

#[test]
fn k2_the_end_of_a_file_and_a_reset_end_a_multishot_receive() {
    on_linux(6, 1, || {
        for (kind, mut ring) in kinds(8) {
            for (reset, result) in [(false, 0), (true, -libc::ECONNRESET)] {
                let (client, server) = tcp_pair();
                let _buffers = ProvidedBuffers::register(&ring.0.submitter(), 7, 1, 4, 0).unwrap();
                ring.push(1, opcode::RecvMulti::new(raw(&server), 7).build());
                ring.look().unwrap();
                if reset {
                    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
                    setsockopt(&client, sockopt::Linger, &linger).unwrap();
                }
                drop(client);
                let mut seen = Vec::new();
                ring.complete_only(&mut seen, 1);
                let ended = matches!(seen[..], [(1, it, flags)] if it == result && flags & F_MORE == 0);
                rule!("K2", ended, "{kind}, reset: {reset}: {seen:?}");
                ring.0.submitter().unregister_buf_ring(7).unwrap();
            }
        }
    });
}

#[test]
fn k3c_a_lack_of_descriptors_ends_a_multishot_accept_and_loses_no_connection() {
    in_child(|| {
        if !is_linux(6, 1) {
            return;
        }
        let listener = listener();
        let clients = connect(&listener, 8);
        let mut ring = Bare::defer(16);
        let few = open_descriptors() as u64 + 3;
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, few, hard).unwrap();
        ring.push(1, opcode::AcceptMulti::new(raw(&*listener)).build());
        let end = Instant::now() + LONG;
        let mut seen = ring.wait(1);
        while seen.iter().all(|it| it.1 >= 0) && Instant::now() < end {
            seen.extend(ring.wait_for(1, SHORT));
        }
        let last = seen.pop();
        rule!("K3c", last == Some((1, -libc::EMFILE, 0)), "{seen:?}, {last:?}");
        let accepted = |it: &Cqe| it.1 >= 0 && it.2 & F_MORE != 0;
        rule!("K3c", !seen.is_empty() && seen.iter().all(accepted), "{seen:?}");
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
        ring.push(1, opcode::AcceptMulti::new(raw(&*listener)).build());
        let left = clients.len() - seen.len();
        let rest = ring.wait(left);
        rule!("K3c", rest.len() == left && rest.iter().all(accepted), "the rest: {rest:?}");
    });
}

#[test]
fn k3d_descriptors_arrive_before_the_end_of_a_multishot_accept_that_is_cancelled() {
    on_linux(6, 1, || {
        let listener = listener();
        let mut ring = Bare::defer(16);
        ring.push(1, opcode::AcceptMulti::new(raw(&*listener)).build());
        ring.submit().unwrap();
        let clients = connect(&listener, 3);
        let (cancel, mut seen) = ring.cancel(1);
        let end = Instant::now() + LONG;
        while seen.iter().all(|it| it.2 & F_MORE != 0) && Instant::now() < end {
            seen.extend(ring.wait_for(1, SHORT));
        }
        let sockets: Vec<_> = seen.iter().filter(|it| it.1 >= 0).copied().collect();
        for (_, fd, _) in &sockets {
            // SAFETY: it was just accepted, and nobody else has it.
            drop(unsafe { OwnedFd::from_raw_fd(*fd) });
        }
        rule!("K3d", cancel == 0 || cancel == -libc::EALREADY, "the cancel says {cancel}: {seen:?}");
        // All of them, or none; but whatever was accepted comes first, and the end comes last.
        rule!("K3d", sockets.iter().all(|it| it.2 & F_MORE != 0), "{seen:?}");
        rule!("K3d", seen.last() == Some(&(1, ECANCELED, 0)), "{seen:?}");
        drop(clients);
    });
}

/// Lets the kernel fill the places of the ring's table of files from `first` on, `count` of them.
fn allocate_within(ring: &Bare, first: u32, count: u32) -> libc::c_long {
    const IORING_REGISTER_FILE_ALLOC_RANGE: libc::c_uint = 25;
    let range: [u32; 4] = [first, count, 0, 0];
    let (descriptor, range) = (ring.0.as_raw_fd(), range.as_ptr());
    // SAFETY: the range, of two numbers and as much that is reserved, is there.
    unsafe {
        libc::syscall(libc::SYS_io_uring_register, descriptor, IORING_REGISTER_FILE_ALLOC_RANGE, range, 0)
    }
}

#[test]
fn k3e_a_full_table_ends_a_multishot_direct_accept_and_closes_the_connection() {
    on_linux(6, 1, || {
        let listener = listener();
        let mut clients = connect(&listener, 4);
        let mut ring = Bare::defer(16);
        ring.0.submitter().register_files_sparse(8).unwrap();
        let accept = || opcode::AcceptMulti::new(raw(&*listener)).allocate_file_index(true).build();
        rule!("K3e", allocate_within(&ring, 0, 0) == 0, "a range of no places is refused");
        ring.push(1, accept());
        // Other flags say whether more connections wait.
        let wait = |ring: &mut Bare, count| -> Vec<Cqe> {
            ring.wait(count).into_iter().map(|(tag, result, flags)| (tag, result, flags & F_MORE)).collect()
        };
        let none = wait(&mut ring, 1);
        rule!("K3e", none == [(1, -libc::ENFILE, 0)], "no place may be filled: {none:?}");
        rule!("K3e", matches!(clients[0].read(&mut [0]), Ok(0) | Err(_)), "the connection is open");

        rule!("K3e", allocate_within(&ring, 2, 2) == 0, "a range of two is refused");
        ring.push(1, accept());
        let seen = wait(&mut ring, 3);
        let expected = [(1, 2, F_MORE), (1, 3, F_MORE), (1, -libc::ENFILE, 0)];
        rule!("K3e", seen == expected, "places 2 and 3, and no more: {seen:?}");
        rule!("K3e", matches!(clients[3].read(&mut [0]), Ok(0) | Err(_)), "the connection is open");

        ring.0.submitter().register_files_update(3, &[-1]).unwrap();
        rule!(
            "K3e",
            matches!(clients[2].read(&mut [0]), Ok(0)),
            "clearing a place does not close what is there"
        );
        let _another = connect(&listener, 1);
        ring.push(1, accept());
        let again = wait(&mut ring, 1);
        rule!("K3e", again == [(1, 3, F_MORE)], "it is filled again: {again:?}");
    });
}

#[test]
fn k4_a_hang_up_does_not_end_a_multishot_poll() {
    on_linux(6, 1, || {
        for (kind, mut ring) in kinds(8) {
            let (reader, writer) = pipe();
            ring.push(1, poll_multi(&reader));
            ring.look().unwrap();
            drop(writer);
            let mut seen = Vec::new();
            ring.complete_only(&mut seen, 1);
            let goes_on = seen.iter().all(|it| it.1 & i32::from(libc::POLLHUP) != 0 && it.2 == F_MORE);
            rule!("K4", !seen.is_empty() && goes_on, "{kind}: {seen:?}");
            let (cancel, mut seen) = ring.cancel(1);
            ring.complete(&mut seen, 1);
            rule!("K4", cancel == 0 && seen == [(1, ECANCELED, 0)], "{kind}: {cancel}, {seen:?}");
        }
    });
}

#[test]
fn k8_an_update_of_a_poll_can_change_its_user_data() {
    const LEN: usize = 24;
    const OFF: usize = 8;
    const IORING_POLL_UPDATE_USER_DATA: u8 = 1 << 2;
    on_linux(6, 1, || {
        for (kind, mut ring) in kinds(8) {
            let (reader, writer) = pipe();
            ring.push(1, poll(&reader));
            ring.look().unwrap();
            let update = with_byte(opcode::PollRemove::new(1).build(), LEN, IORING_POLL_UPDATE_USER_DATA);
            let (result, _) = ring.one(with_byte(update, OFF, 77));
            rule!("K8", result == 0, "{kind}: the update says {result}");
            put(&writer, b"x");
            let seen = ring.wait(1);
            rule!("K8", seen == [(77, 1, 0)], "{kind}: {seen:?}");
        }
    });
}

#[test]
fn k9_buffers_can_be_unregistered_under_a_multishot_receive() {
    on_linux(6, 1, || {
        for (kind, mut ring) in kinds(8) {
            let (mut client, server) = tcp_pair();
            let buffers = ProvidedBuffers::register(&ring.0.submitter(), 7, 2, 4, 0).unwrap();
            ring.push(1, opcode::RecvMulti::new(raw(&server), 7).build());
            ring.look().unwrap();
            let result = ring.0.submitter().unregister_buf_ring(7);
            rule!("K9", result.is_ok(), "{kind}: {result:?}");
            client.write_all(b"x").unwrap();
            let seen = ring.wait(1);
            rule!("K9", seen == [(1, -libc::ENOBUFS, 0)], "{kind}: {seen:?}");
            assert_eq!(buffers.bytes(), [0; 8]);
        }
    });
}

#[test]
fn k10_a_buffer_that_is_used_up_bit_by_bit_says_whether_there_is_more_of_it() {
    on_linux(6, 12, || {
        for (kind, mut ring) in kinds(8) {
            let (mut client, server) = tcp_pair();
            let incremental = ProvidedBuffers::INCREMENTAL;
            let buffers = ProvidedBuffers::register(&ring.0.submitter(), 7, 1, 8, incremental).unwrap();
            ring.push(1, opcode::RecvMulti::new(raw(&server), 7).build());
            ring.look().unwrap();
            client.write_all(b"abc").unwrap();
            let seen = ring.wait(1);
            let more = F_BUFFER | F_MORE | F_BUF_MORE;
            rule!("K10", matches!(seen[..], [(1, 3, flags)] if flags & 0x1f == more), "{kind}: {seen:?}");
            client.write_all(b"defgh").unwrap();
            let seen = ring.wait(1);
            let used_up = matches!(seen[..], [(1, 5, flags)] if flags & (F_BUFFER | F_BUF_MORE) == F_BUFFER);
            rule!("K10", used_up, "{kind}: {seen:?}");
            rule!("K10", buffers.bytes() == b"abcdefgh", "{kind}: {:?}", buffers.bytes());
        }
    });
}

/// Receives this many bytes by bundles on a socket, in buffers of four bytes that are offered in this order. The
/// request is submitted again whenever it has ended. Returns in how many completions the bytes came.
fn receive_bundles(ring: &mut Bare, socket: &TcpStream, kind: &str, bytes: i32, order: &[u32]) -> usize {
    let (mut received, mut used, mut count) = (0, 0, 0);
    while received < bytes {
        let seen = ring.wait(1);
        rule!("K11", !seen.is_empty(), "{kind}: nothing after {received} of {bytes} bytes");
        for (_, result, flags) in seen {
            rule!("K11", result > 0 && flags & F_BUFFER != 0, "{kind}: {result}, {flags:#x}");
            rule!("K11", flags >> 16 == order[used], "{kind}: buffer {}, not {}", flags >> 16, order[used]);
            (received, count) = (received + result, count + 1);
            used += result as usize / 4 + usize::from(result % 4 != 0);
            if flags & F_MORE == 0 {
                ring.push(1, opcode::RecvMultiBundle::new(raw(socket), 7).build());
            }
        }
    }
    rule!("K11", received == bytes, "{kind}: {received} of {bytes} bytes");
    count
}

#[test]
fn k11_a_bundle_takes_the_buffers_that_are_offered_next_and_fills_all_but_the_last() {
    on_linux(6, 10, || {
        for (kind, mut ring) in kinds(8) {
            let (mut client, server) = tcp_pair();
            let mut buffers = ProvidedBuffers::register(&ring.0.submitter(), 7, 8, 4, 0).unwrap();
            ring.push(1, opcode::RecvMultiBundle::new(raw(&server), 7).build());
            ring.look().unwrap();
            client.write_all(b"0123456789ab").unwrap();
            let count = receive_bundles(&mut ring, &server, kind, 12, &[0, 1, 2]);
            rule!("K11", count < 3, "{kind}: one completion for each");
            rule!("K11", buffers.bytes().starts_with(b"0123456789ab"), "{kind}: {:?}", buffers.bytes());
            // After the others, and not in the order in which they lie in memory.
            [2, 0, 1].iter().for_each(|id| buffers.provide(*id));
            client.write_all(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ...").unwrap();
            receive_bundles(&mut ring, &server, kind, 29, &[3, 4, 5, 6, 7, 2, 0, 1]);
            let bytes = buffers.bytes();
            let is_in_order = bytes[12..] == *b"ABCDEFGHIJKLMNOPQRST" && bytes[8..12] == *b"UVWX";
            rule!("K11", is_in_order && bytes[..5] == *b"YZ...", "{kind}: {bytes:?}");
        }
    });
}

#[test]
fn k12_a_bundle_of_all_that_is_offered_is_the_last_or_followed_by_a_lack_of_buffers() {
    on_linux(6, 10, || {
        for (kind, mut ring) in kinds(8) {
            let (mut client, server) = tcp_pair();
            let _buffers = ProvidedBuffers::register(&ring.0.submitter(), 7, 2, 4, 0).unwrap();
            client.write_all(b"12345678.").unwrap();
            ring.push(1, opcode::RecvMultiBundle::new(raw(&server), 7).build());
            let (mut seen, end) = (Vec::new(), Instant::now() + LONG);
            while seen.last().is_none_or(|last: &Cqe| last.2 & F_MORE != 0) && Instant::now() < end {
                seen.extend(ring.wait(1));
            }
            let bytes: i32 = seen.iter().map(|it| it.1.max(0)).sum();
            let last = seen.last().copied().unwrap_or_default();
            rule!("K12", bytes == 8 && last.2 & F_MORE == 0, "{kind}: {seen:?}");
            let is_lack = last == (1, -libc::ENOBUFS, 0);
            rule!("K12", is_lack || last.1 > 0 && last.2 & F_BUFFER != 0, "{kind}: {seen:?}");
            let strays = ring.strays();
            rule!("K12", strays.is_empty(), "{kind}, after its end: {strays:?}");
        }
    });
}

#[test]
fn k13_the_end_of_a_file_and_a_reset_end_bundles_without_a_buffer() {
    on_linux(6, 10, || {
        for (kind, mut ring) in kinds(8) {
            for (reset, result) in [(false, 0), (true, -libc::ECONNRESET)] {
                let (client, server) = tcp_pair();
                let _buffers = ProvidedBuffers::register(&ring.0.submitter(), 7, 1, 4, 0).unwrap();
                ring.push(1, opcode::RecvMultiBundle::new(raw(&server), 7).build());
                ring.look().unwrap();
                if reset {
                    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
                    setsockopt(&client, sockopt::Linger, &linger).unwrap();
                }
                drop(client);
                let mut seen = Vec::new();
                ring.complete_only(&mut seen, 1);
                let ended =
                    matches!(seen[..], [(1, it, flags)] if it == result && flags & (F_MORE | F_BUFFER) == 0);
                rule!("K13", ended, "{kind}, reset: {reset}: {seen:?}");
                ring.0.submitter().unregister_buf_ring(7).unwrap();
            }
        }
    });
}

/// Room for a name in what a multishot `recvmsg` receives, and the number of bytes before a payload.
const NAME: usize = 32;
const BEFORE_PAYLOAD: usize = 16 + NAME;

fn receive_datagrams(socket: &impl AsRawFd) -> squeue::Entry {
    // SAFETY: all zeroes is a `struct msghdr`.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_namelen = NAME as u32;
    opcode::RecvMsgMulti::new(raw(socket), Box::leak(Box::new(header)), 7).build()
}

/// The lengths of the name, of control messages and of the payload, and the flags (`struct io_uring_recvmsg_out`).
fn said(buffer: &[u8]) -> [u32; 4] {
    let number = |index: usize| u32::from_ne_bytes(buffer[4 * index..][..4].try_into().unwrap());
    [0, 1, 2, 3].map(number)
}

#[test]
fn k14_a_multishot_recvmsg_puts_what_it_says_before_the_payload() {
    const SIZE: usize = BEFORE_PAYLOAD + 8;
    on_linux(6, 1, || {
        for (kind, mut ring) in kinds(8) {
            let [ours, theirs] = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
            theirs.connect(ours.local_addr().unwrap()).unwrap();
            let buffers = ProvidedBuffers::register(&ring.0.submitter(), 7, 4, SIZE, 0).unwrap();
            ring.push(1, receive_datagrams(&ours));
            ring.look().unwrap();
            for (id, sent) in [&b"short"[..], b"much too long"].into_iter().enumerate() {
                theirs.send(sent).unwrap();
                let seen = ring.wait(1);
                let received = sent.len().min(8);
                let flags = (id as u32) << 16 | F_MORE | F_BUFFER;
                let is_it = matches!(seen[..], [(1, result, it)] if it & !(1 << 2) == flags
                    && result as usize == BEFORE_PAYLOAD + received);
                rule!("K14", is_it, "{kind}: {seen:?}");
                let bytes = &buffers.bytes()[id * SIZE..][..SIZE];
                let [name, control, payload, flags] = said(bytes);
                rule!(
                    "K14",
                    (name, control) == (16, 0),
                    "{kind}: {name} bytes of a name, {control} of control"
                );
                rule!("K14", payload as usize == received, "{kind}: {payload} of {received} bytes");
                let is_cut = flags & libc::MSG_TRUNC as u32 != 0;
                rule!("K14", is_cut == (sent.len() > 8), "{kind}: flags {flags:#x} of {} bytes", sent.len());
                rule!("K14", bytes[BEFORE_PAYLOAD..][..received] == sent[..received], "{kind}: {bytes:?}");
                let port = u16::from_be_bytes([bytes[18], bytes[19]]);
                rule!("K14", port == theirs.local_addr().unwrap().port(), "{kind}: from port {port}");
            }
        }
    });
}

#[test]
fn k15_an_empty_datagram_and_the_end_of_a_connection_end_a_multishot_recvmsg_with_a_buffer() {
    on_linux(6, 1, || {
        for (kind, mut ring) in kinds(8) {
            let [ours, theirs] = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
            theirs.connect(ours.local_addr().unwrap()).unwrap();
            theirs.send(b"").unwrap();
            let (client, server) = tcp_pair();
            drop(client);
            for (socket, name) in [(OwnedFd::from(ours), 16), (server.into(), 0)] {
                let buffers = ProvidedBuffers::register(&ring.0.submitter(), 7, 1, 64, 0).unwrap();
                ring.push(1, receive_datagrams(&socket));
                let mut seen = Vec::new();
                ring.complete_only(&mut seen, 1);
                let ended = matches!(seen[..], [(1, result, flags)] if result as usize == BEFORE_PAYLOAD
                    && flags & (F_MORE | F_BUFFER) == F_BUFFER);
                rule!("K15", ended, "{kind}: {seen:?}");
                let [length, ..] = said(&buffers.bytes());
                rule!("K15", length == name, "{kind}: {length} bytes of a name, not {name}");
                ring.0.submitter().unregister_buf_ring(7).unwrap();
            }
        }
    });
}

#[test]
fn k16_a_buffer_without_room_for_what_a_multishot_recvmsg_says_is_efault_and_stays() {
    on_linux(6, 1, || {
        for (kind, mut ring) in kinds(8) {
            let [ours, theirs] = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
            theirs.connect(ours.local_addr().unwrap()).unwrap();
            theirs.send(b"x").unwrap();
            let _buffers =
                ProvidedBuffers::register(&ring.0.submitter(), 7, 1, BEFORE_PAYLOAD - 1, 0).unwrap();
            ring.push(1, receive_datagrams(&ours));
            let mut seen = Vec::new();
            ring.complete_only(&mut seen, 1);
            rule!("K16", seen == [(1, -libc::EFAULT, 0)], "{kind}: {seen:?}");
        }
    });
}

#[test]
fn k17_a_single_receive_or_read_takes_a_buffer_only_when_there_is_something_for_it() {
    on_linux(6, 1, || {
        for (kind, mut ring) in kinds(8) {
            let [(mut one, first), (mut two, second)] = [tcp_pair(), tcp_pair()];
            let mut buffers = ProvidedBuffers::register(&ring.0.submitter(), 7, 1, 4, 0).unwrap();
            let null = std::ptr::null_mut();
            let receive = |socket| opcode::Recv::new(raw(socket), null, 0).buf_group(7).build();
            for (name, socket) in [(1, &first), (2, &second)] {
                ring.push(name, receive(socket).flags(squeue::Flags::BUFFER_SELECT));
            }
            ring.submit().unwrap();
            rule!("K17", ring.strays().is_empty(), "{kind}: it ended before there was something");
            two.write_all(b"second").unwrap();
            let seen = ring.wait(1);
            let taken = matches!(seen[..], [(2, 4, flags)] if flags & (F_BUFFER | F_MORE) == F_BUFFER);
            rule!("K17", taken, "{kind}, the only buffer: {seen:?}");
            one.write_all(b"first").unwrap();
            let seen = ring.wait(1);
            rule!("K17", seen == [(1, -libc::ENOBUFS, 0)], "{kind}, none left: {seen:?}");
            buffers.provide(0);
            let read = opcode::Read::new(raw(&first), null, 0).buf_group(7).build();
            let (result, _) = ring.one(read.flags(squeue::Flags::BUFFER_SELECT));
            rule!("K17", (result, &buffers.bytes()[..]) == (4, b"firs"), "{kind}: {result}");
        }
    });
}

/// `IORING_RECV_MULTISHOT` with `sqe->optlen`: at most this many bytes in all, below 256.
fn limited(entry: squeue::Entry, bytes: u8) -> squeue::Entry {
    const OPTLEN: usize = 44;
    with_byte(entry, OPTLEN, bytes)
}

#[test]
fn k18_a_multishot_receive_with_a_limit_ends_with_the_bytes_that_reach_it() {
    on_linux(6, 17, || {
        for (kind, mut ring) in kinds(8) {
            for (is_bundle, limit, first) in
                [(false, 12, 12), (false, 10, 12), (true, 12, 12), (true, 10, 10)]
            {
                let (mut client, server) = tcp_pair();
                let _buffers = ProvidedBuffers::register(&ring.0.submitter(), 7, 8, 4, 0).unwrap();
                let receive = match is_bundle {
                    true => opcode::RecvMultiBundle::new(raw(&server), 7).build(),
                    false => opcode::RecvMulti::new(raw(&server), 7).build(),
                };
                client.write_all(&[1; 20]).unwrap();
                let case = format!("{kind}, bundle: {is_bundle}, limit {limit}");
                ring.push(1, limited(receive.clone(), limit));
                let mut seen = ring.wait(1);
                while seen.last().is_some_and(|last| last.2 & F_MORE != 0) {
                    let more = ring.wait(1);
                    rule!("K18", !more.is_empty(), "{case}, no end: {seen:?}");
                    seen.extend(more);
                }
                let bytes: i32 = seen.iter().map(|it| it.1).sum();
                rule!(
                    "K18",
                    bytes == first && seen.iter().all(|it| it.2 & F_BUFFER != 0),
                    "{case}: {seen:?}"
                );
                let strays = ring.strays();
                rule!("K18", strays.is_empty(), "{case}, after its end: {strays:?}");
                // What it has left is there for the next receive.
                ring.push(2, receive);
                let mut rest = Vec::new();
                while rest.iter().map(|it: &Cqe| it.1).sum::<i32>() < 20 - first {
                    let more = ring.wait(1);
                    rule!("K18", !more.is_empty(), "{case}, the rest: {rest:?}");
                    rest.extend(more);
                }
                ring.0.submitter().unregister_buf_ring(7).unwrap();
                ring.cancel(2);
                ring.strays();
            }
        }
    });
}

#[test]
fn k19_only_a_multishot_receive_has_a_limit() {
    on_linux(6, 1, || {
        for (kind, mut ring) in kinds(8) {
            let (_client, server) = tcp_pair();
            let (result, _) = ring.one(limited(opcode::Recv::new(raw(&server), memory(8), 8).build(), 8));
            rule!("K19", result == -libc::EINVAL, "{kind}, a single one: {result}");
            let (result, _) = ring.one(limited(receive_datagrams(&server), 8));
            rule!("K19", result == -libc::EINVAL, "{kind}, a message: {result}");
            if !is_linux(6, 17) {
                let receive = opcode::RecvMulti::new(raw(&server), 7).build();
                let (result, _) = ring.one(limited(receive, 8));
                rule!("K19", result == -libc::EINVAL, "{kind}, before there were any: {result}");
            }
        }
    });
}

// ---- L: limits ------------------------------------------------------------------------------------

#[test]
fn l1_a_lack_of_descriptors_is_emfile() {
    in_child(|| {
        if !is_linux(6, 1) {
            return;
        }
        set_limit(libc::RLIMIT_NOFILE, 0);
        let made = errno::<IoUring>(IoUring::new(8));
        rule!("L1", made == Some(libc::EMFILE), "{made:?}");
    });
}

#[test]
fn l5_work_that_no_thread_can_be_had_for_ends_as_cancelled_at_worst() {
    in_child(|| {
        if !is_linux(6, 1) {
            return;
        }
        become_nobody();
        set_limit(libc::RLIMIT_NPROC, 0);
        let Ok(ring) = IoUring::builder().build(8) else {
            return eprintln!("skipped: no ring for the unprivileged");
        };
        let mut ring = Bare(ring);
        ring.push(1, nop().flags(squeue::Flags::ASYNC));
        let seen = ring.wait(1);
        rule!("L5", seen == [(1, ECANCELED, 0)] || seen == [(1, 0, 0)], "{seen:?}");
    });
}

#[test]
fn l6_no_user_data_is_special() {
    on_linux(6, 1, || {
        for (kind, mut ring) in kinds(8) {
            for user_data in [0, u64::MAX] {
                ring.push(user_data, nop());
                let seen = ring.wait(1);
                rule!("L6", seen == [(user_data, 0, 0)], "{kind}: {seen:?}");
                ring.push(user_data, never());
                ring.look().unwrap();
                let (cancel, mut seen) = ring.cancel(user_data);
                ring.complete(&mut seen, 1);
                rule!("L6", cancel == 0 && seen == [(user_data, ECANCELED, 0)], "{kind}: {cancel}, {seen:?}");
            }
        }
    });
}

#[test]
fn l7_of_all_that_is_open_only_a_ring_is_not_closed() {
    in_child(|| {
        if !is_linux(6, 1) {
            return;
        }
        let is_open = |fd: RawFd| std::fs::symlink_metadata(format!("/proc/self/fd/{fd}")).is_ok();
        for (kind, mut ring) in kinds(8) {
            let other = IoUring::new(1).unwrap();
            // The descriptor of the ring itself, and that of another.
            for number in [ring.0.as_raw_fd(), other.as_raw_fd()] {
                let (closed, _) = ring.one(opcode::Close::new(Fd(number)).build());
                rule!("L7", closed == -libc::EBADF && is_open(number), "{kind}: a ring: {closed}");
            }
            let (_client, server) = tcp_pair();
            let files: [OwnedFd; 3] = [File::open("/dev/null").unwrap().into(), server.into(), eventfd()];
            for file in files {
                let number = file.into_raw_fd();
                let (closed, _) = ring.one(opcode::Close::new(Fd(number)).build());
                rule!("L7", closed == 0 && !is_open(number), "{kind}: {closed}");
                let (closed, _) = ring.one(opcode::Close::new(Fd(number)).build());
                rule!("L7", closed == -libc::EBADF, "{kind}: what is not open: {closed}");
            }
        }
    });
}

// ---- W: what is not in the manual -------------------------------------------------------------------

fn eventfd() -> OwnedFd {
    // SAFETY: a plain call; the result is checked before it is owned.
    let fd = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
    assert!(fd >= 0);
    // SAFETY: a descriptor that was just made.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Whether an eventfd is signalled within this time; the signal is taken away again.
fn is_signalled(eventfd: &OwnedFd, time: Duration) -> bool {
    let mut eventfd = File::from(eventfd.try_clone().unwrap());
    let end = Instant::now() + time;
    loop {
        match eventfd.read(&mut [0; 8]) {
            Ok(_) => return true,
            Err(_) if Instant::now() > end => return false,
            Err(_) => thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// Whether a descriptor becomes readable for somebody who sleeps in `epoll_wait` while `event` happens.
fn wakes_a_sleeper(fd: RawFd, event: impl FnOnce()) -> bool {
    // SAFETY: a plain call; the result is checked before it is owned.
    let epoll = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
    assert!(epoll >= 0);
    // SAFETY: a descriptor that was just made.
    let epoll = unsafe { OwnedFd::from_raw_fd(epoll) };
    let mut interest = libc::epoll_event { events: libc::EPOLLIN as u32, u64: 0 };
    // SAFETY: the argument lives through the call.
    let added = unsafe { libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &raw mut interest) };
    assert_eq!(added, 0);
    let sleeper = thread::spawn(move || {
        let mut event = libc::epoll_event { events: 0, u64: 0 };
        // SAFETY: there is room for one event.
        unsafe { libc::epoll_wait(epoll.as_raw_fd(), &raw mut event, 1, 300) == 1 }
    });
    thread::sleep(Duration::from_millis(60));
    event();
    sleeper.join().unwrap()
}

#[test]
fn w1_work_for_a_deferring_ring_wakes_no_sleeper_on_its_descriptor_but_signals_its_eventfd() {
    on_linux(6, 1, || {
        let mut ring = Bare::defer(8);
        let (reader, writer) = pipe();
        let signal = eventfd();
        ring.0.submitter().register_eventfd(signal.as_raw_fd()).unwrap();
        ring.push(1, poll(&reader));
        ring.look().unwrap();
        let woken = wakes_a_sleeper(ring.0.as_raw_fd(), || put(&writer, b"x"));
        rule!("W1", !woken, "the sleeper was woken");
        rule!("W1", is_signalled(&signal, LONG), "the eventfd was not signalled");
    });
}

#[test]
fn w2_an_eventfd_is_signalled_out_of_the_write_to_another_only_once() {
    on_linux(6, 1, || {
        let mut ring = Bare::defer(8);
        let (signal, source) = (eventfd(), eventfd());
        ring.0.submitter().register_eventfd(signal.as_raw_fd()).unwrap();
        let signalled = [LONG, 3 * SHORT, 3 * SHORT].map(|patience| {
            ring.push(1, poll(&source));
            ring.look().unwrap();
            // The completion of the last round signalled it.
            is_signalled(&signal, Duration::ZERO);
            put(&source, &1_u64.to_ne_bytes());
            let signalled = is_signalled(&signal, patience);
            let seen = ring.wait(1);
            assert_eq!(seen, [(1, 1, 0)]);
            assert!(is_signalled(&source, LONG));
            signalled
        });
        rule!("W2", signalled == [true, false, false], "it was signalled: {signalled:?}");
    });
}

#[test]
fn w3_an_enter_runs_twenty_pieces_of_task_work() {
    const POLLS: u64 = 100;
    on_linux(6, 13, || {
        let mut ring = Bare::defer(128);
        let (reader, writer) = pipe();
        for number in 0..POLLS {
            ring.push(number, poll(&reader));
        }
        ring.look().unwrap();
        put(&writer, b"x");
        ring.look().unwrap();
        let seen = ring.reap().len();
        rule!("W3", seen == 20, "{seen} completions of the first enter");
        let rest = ring.wait(POLLS as usize - seen).len();
        rule!("W3", seen + rest == POLLS as usize, "{rest} of the others");
    });
}

#[test]
fn w4_a_multishot_timer_that_has_fired_is_not_found_before_its_task_work_has_run() {
    on_linux(6, 4, || {
        // It must not have fired again before the second cancel, however busy the machine is.
        let found = [20, 200, 2000].into_iter().any(|milliseconds| {
            let mut ring = Bare::defer(8);
            let every = Duration::from_millis(milliseconds);
            ring.push(1, opcode::Timeout::new(time(every)).flags(TimeoutFlags::MULTISHOT).build());
            ring.submit().unwrap();
            thread::sleep(every * 5 / 4);
            let (first, mut seen) = ring.cancel(1);
            rule!("W4", first == -libc::ENOENT, "the first cancel says {first}");
            ring.complete(&mut seen, 1);
            rule!("W4", seen == [(1, -libc::ETIME, F_MORE)], "{seen:?}");
            // Right after an enter, a cancel finds it.
            let (second, mut seen) = ring.cancel(1);
            ring.complete(&mut seen, 1);
            second == 0 && seen == [(1, ECANCELED, 0)]
        });
        rule!("W4", found, "the second cancel does not find it either");
    });
}

#[test]
fn w5_the_seconds_of_a_timeout_are_signed() {
    on_linux(6, 1, || {
        let mut ring = Bare::plain(8);
        let spec = Box::leak(Box::new(Timespec::new().sec(u64::MAX)));
        let (result, _) = ring.one(opcode::Timeout::new(&raw const *spec).build());
        rule!("W5", result == -libc::EINVAL, "it ended with {result}");
        let spec = Box::leak(Box::new(Timespec::new().sec(i64::MAX as u64)));
        ring.push(1, opcode::Timeout::new(&raw const *spec).build());
        let seen = ring.strays();
        rule!("W5", seen.is_empty(), "{seen:?}");
    });
}

#[test]
fn w6_a_linked_timeout_does_not_run_while_a_worker_waits() {
    on_linux(6, 18, || {
        for (kind, mut ring) in kinds(8) {
            let ((reader, _writer), (_reader, writer)) = (pipe(), pipe());
            let splice = opcode::Splice::new(raw(&reader), -1, raw(&writer), -1, 8).build();
            ring.push(1, splice.flags(LINK));
            ring.push(2, opcode::LinkTimeout::new(time(Duration::from_millis(2))).build());
            ring.look().unwrap();
            let seen = ring.strays();
            rule!("W6", seen.is_empty(), "{kind}: {seen:?}");
            // A cancel interrupts it. Then the timeout runs until the request is over, which may take longer.
            let (cancel, mut seen) = ring.cancel(1);
            ring.complete(&mut seen, 2);
            let seen = sorted(seen);
            let ended = |timeout| seen == [(1, -512, 0), (2, timeout, 0)];
            let ended = cancel == -libc::EALREADY && (ended(ECANCELED) || ended(-libc::ENOENT));
            rule!("W6", ended, "{kind}: {cancel}, {seen:?}");
        }
    });
}

#[test]
fn w8_a_linked_timeout_that_cancels_a_wait_for_a_child_says_how_many_it_has_cancelled() {
    on_linux(6, 7, || {
        for (kind, mut ring) in kinds(8) {
            let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
            let waitid = opcode::WaitId::new(libc::P_PID, child.id(), libc::WEXITED).build();
            ring.push(1, waitid.flags(LINK));
            ring.push(2, opcode::LinkTimeout::new(time(Duration::from_millis(5))).build());
            let seen = sorted(ring.wait(2));
            rule!("W8", seen == [(1, ECANCELED, 0), (2, 1, 0)], "{kind}: {seen:?}");
            ring.push(1, opcode::WaitId::new(libc::P_PID, child.id(), libc::WEXITED).build());
            ring.look().unwrap();
            let (cancel, mut seen) = ring.cancel(1);
            ring.complete(&mut seen, 1);
            rule!("W8", (cancel, &seen[..]) == (1, &[(1, ECANCELED, 0)]), "{kind}: {cancel}, {seen:?}");
            child.kill().unwrap();
            child.wait().unwrap();
        }
    });
}

#[test]
fn w9_a_cancel_or_a_timeout_of_a_wait_for_a_word_says_how_many_and_the_number_of_the_woken_is_signed() {
    const ANY: u64 = u32::MAX as u64;
    const PRIVATE_U32: u32 = 0x82;
    on_linux(6, 7, || {
        for (kind, mut ring) in kinds(8) {
            let word = Box::leak(Box::new(AtomicU32::new(5))).as_ptr().cast_const();
            let wait = |value| opcode::FutexWait::new(word, value, ANY, PRIVATE_U32).build();
            let wake = |count| opcode::FutexWake::new(word, count, ANY, PRIVATE_U32).build();
            let (differs, seen) = ring.one(wait(4));
            rule!("W9", differs == -libc::EAGAIN && seen.is_empty(), "{kind}: {differs}, {seen:?}");
            for flags in [squeue::Flags::empty(), squeue::Flags::ASYNC] {
                ring.push(1, wait(5).flags(flags));
                let seen = ring.strays();
                rule!("W9", seen.is_empty(), "{kind}: {seen:?}");
                let (cancel, mut seen) = ring.cancel(1);
                ring.complete(&mut seen, 1);
                // Of what no worker has begun yet, a cancel says nothing.
                let said = cancel == 1 || cancel == 0 && !flags.is_empty();
                rule!("W9", said && seen == [(1, ECANCELED, 0)], "{kind}: {cancel}, {seen:?}");
            }
            ring.push(1, wait(5).flags(LINK));
            ring.push(2, opcode::LinkTimeout::new(time(Duration::from_millis(5))).build());
            let seen = sorted(ring.wait(2));
            rule!("W9", seen == [(1, ECANCELED, 0), (2, 1, 0)], "{kind}: {seen:?}");
            // What is linked to it does not see that it was cancelled.
            ring.push(1, wait(5).flags(LINK));
            ring.push(2, nop());
            ring.look().unwrap();
            let (cancel, mut seen) = ring.cancel(1);
            ring.complete(&mut seen, 2);
            let seen = sorted(seen);
            rule!(
                "W9",
                (cancel, &seen[..]) == (1, &[(1, ECANCELED, 0), (2, 0, 0)]),
                "{kind}: {cancel}, {seen:?}"
            );
            ring.push(1, wait(4).flags(LINK));
            ring.push(2, nop());
            let seen = sorted(ring.wait(2));
            rule!("W9", seen == [(1, -libc::EAGAIN, 0), (2, ECANCELED, 0)], "{kind}: {seen:?}");
            for (count, first, rest) in [(0, 0, 3), (2, 2, 1), (i32::MAX as u64, 3, 0), (ANY, 1, 2)] {
                for name in 1..4 {
                    ring.push(name, wait(5));
                }
                ring.look().unwrap();
                let (woken, mut seen) = ring.one(wake(count));
                rule!("W9", woken == first, "{kind}, {count}: {woken}");
                let (woken, more) = ring.one(wake(9));
                rule!("W9", woken == rest, "{kind}, {count}: {woken}");
                seen.extend(more);
                ring.complete(&mut seen, 3);
                let seen = sorted(seen);
                rule!("W9", seen == [(1, 0, 0), (2, 0, 0), (3, 0, 0)], "{kind}, {count}: {seen:?}");
            }
        }
    });
}

#[test]
fn w13_the_value_of_an_option_is_read_when_it_is_set_and_not_when_the_entry_is_taken_in() {
    on_linux(6, 7, || {
        for (kind, mut ring) in kinds(8) {
            let (socket, _peer) = tcp_pair();
            let set = |value: *const i32| {
                let (level, name) = (libc::IPPROTO_TCP as u32, libc::TCP_NODELAY as u32);
                opcode::SetSockOpt::new(Fd(socket.as_raw_fd()), level, name, value.cast(), 4).build()
            };
            let ((reader, writer), mut byte) = (pipe(), [0]);
            let value = Box::into_raw(Box::new(0));
            let read = opcode::Read::new(Fd(reader.as_raw_fd()), byte.as_mut_ptr(), 1).build();
            ring.push(1, read.flags(LINK));
            ring.push(2, set(value));
            let seen = ring.strays();
            rule!("W13", seen.is_empty(), "{kind}: {seen:?}");
            // SAFETY: the value is there, and the kernel reads it only after the read.
            unsafe { value.write(1) };
            File::from(writer).write_all(b"x").unwrap();
            let seen = sorted(ring.wait(2));
            rule!("W13", seen == [(1, 1, 0), (2, 0, 0)], "{kind}: {seen:?}");
            rule!("W13", socket.nodelay().unwrap(), "{kind}: the earlier value was set");
            // SAFETY: no request has the value any more.
            drop(unsafe { Box::from_raw(value) });
        }
    });
}

#[test]
fn w7_what_only_seems_ready_is_not_found_by_a_cancel_before_it_is_left_to_a_worker() {
    on_linux(6, 18, || {
        // A receiver that takes in no more: a poll says that one can send, but a send says that one can't.
        let there = address("w7");
        let _receiver = UnixDatagram::bind_addr(&there).unwrap();
        let socket = UnixDatagram::unbound().unwrap();
        socket.set_nonblocking(true).unwrap();
        while socket.send_to_addr(b"full", &there).is_ok() {}
        socket.set_nonblocking(false).unwrap();
        let mut ring = Bare::defer(8);
        ring.push(1, send_to(&socket, there.as_abstract_name().unwrap()));
        let (cancel, seen) = ring.cancel(1);
        rule!("W7", cancel == -libc::ENOENT && seen.is_empty(), "{cancel}, {seen:?}");
        // While nothing else happens, it is tried so often that it is given to a worker.
        let seen = ring.strays();
        rule!("W7", seen.is_empty(), "{seen:?}");
        let (cancel, mut seen) = ring.cancel(1);
        ring.complete(&mut seen, 1);
        let ended =
            cancel == -libc::EALREADY && matches!(seen[..], [(1, result, 0)] if result == -libc::EINTR);
        rule!("W7", ended, "{cancel}, {seen:?}");
    });
}

/// A datagram to an abstract name.
fn send_to(socket: &UnixDatagram, name: &[u8]) -> squeue::Entry {
    // SAFETY: these are structures of the system's, made of numbers.
    let (mut address, mut header): (libc::sockaddr_un, libc::msghdr) = unsafe { std::mem::zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    for (to, from) in address.sun_path[1..].iter_mut().zip(name) {
        *to = *from as libc::c_char;
    }
    header.msg_name = (&raw mut *Box::leak(Box::new(address))).cast();
    header.msg_namelen = (std::mem::offset_of!(libc::sockaddr_un, sun_path) + 1 + name.len()) as u32;
    opcode::SendMsg::new(raw(socket), &raw const *Box::leak(Box::new(header))).build()
}

#[test]
fn j6_the_descriptors_of_a_deferring_ring_are_let_go_when_its_requests_have_ended() {
    on_linux(6, 1, || {
        // Otherwise, the children of other tests would have the listeners, too.
        in_child(|| {
            // Where nobody else asks for a port.
            let mut address = "127.0.0.6:0".parse().unwrap();
            for _ in 0..10 {
                let listener = TcpListener::bind(address).unwrap();
                address = listener.local_addr().unwrap();
                let mut ring = Bare::defer(8);
                let nowhere = std::ptr::null_mut();
                ring.push(1, opcode::Accept::new(raw(&listener), nowhere, std::ptr::null_mut()).build());
                ring.look().unwrap();
                let (_, mut seen) = ring.cancel(1);
                ring.complete(&mut seen, 1);
                assert_eq!(seen, [(1, ECANCELED, 0)]);
                drop(listener);
                let again = TcpListener::bind(address);
                rule!("J6", again.is_ok(), "{again:?}");
            }
        });
    });
}

/// A message of one byte with room for control messages, or with control messages, and where these are.
fn with_control(control: &[u8]) -> (*mut libc::msghdr, *mut u8) {
    let piece = Box::leak(Box::new(libc::iovec { iov_base: memory(1).cast(), iov_len: 1 }));
    let area = memory(control.len());
    // SAFETY: there is room for as many bytes.
    unsafe { area.copy_from_nonoverlapping(control.as_ptr(), control.len()) };
    // SAFETY: it is a structure of the system's, made of numbers and pointers.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    (header.msg_iov, header.msg_iovlen) = (&raw mut *piece, 1);
    (header.msg_control, header.msg_controllen) = (area.cast(), control.len());
    (Box::leak(Box::new(header)), area)
}

/// A control message that passes these descriptors.
fn passing(descriptors: &[&OwnedFd]) -> Vec<u8> {
    let length = size_of::<libc::cmsghdr>() + descriptors.len() * size_of::<RawFd>();
    let mut message = length.to_ne_bytes().to_vec();
    message.extend([libc::SOL_SOCKET, libc::SCM_RIGHTS].map(i32::to_ne_bytes).concat());
    descriptors.iter().for_each(|it| message.extend(it.as_raw_fd().to_ne_bytes()));
    message
}

/// What the kernel has written of the control messages of a message: all bytes, and the numbers of descriptors in them.
fn passed(header: *const libc::msghdr, area: *const u8) -> (usize, Vec<RawFd>) {
    // SAFETY: both live for ever, and the kernel does not write to them any more.
    let (length, written) = unsafe {
        let length = (*header).msg_controllen;
        (length, std::slice::from_raw_parts(area, length))
    };
    let Some(length_of_first) = written.first_chunk().map(|bytes| usize::from_ne_bytes(*bytes)) else {
        return (length, Vec::new());
    };
    let numbers = written.get(size_of::<libc::cmsghdr>()..length_of_first).unwrap_or_default();
    (length, numbers.as_chunks().0.iter().map(|bytes| RawFd::from_ne_bytes(*bytes)).collect())
}

#[test]
fn w10_control_messages_are_read_whenever_the_message_is_tried_and_the_header_only_at_submit() {
    on_linux(6, 4, || {
        for (kind, mut ring) in kinds(8) {
            let (ours, theirs) = UnixStream::pair().unwrap();
            ours.set_nonblocking(true).unwrap();
            while (&ours).write(&[0; 4096]).is_ok() {}
            let ((_first, first), (second, second_writer)) = (pipe(), pipe());
            let (header, area) = with_control(&passing(&[&first]));
            ours.set_nonblocking(false).unwrap();
            ring.push(1, opcode::SendMsg::new(raw(&ours), header).build());
            ring.submit().unwrap();
            let seen = ring.strays();
            rule!("W10", seen.is_empty(), "{kind}: it does not wait: {seen:?}");
            // SAFETY: both live for ever.
            unsafe {
                area.copy_from_nonoverlapping(passing(&[&second_writer]).as_ptr(), 20);
                *header = std::mem::zeroed();
            }
            // Up to what brings the descriptor.
            let end = Instant::now() + LONG;
            let received = loop {
                assert!(Instant::now() < end, "nothing was sent");
                let (header, area) = with_control(&[0; 64]);
                // SAFETY: the header leads to what lives for ever.
                if unsafe { libc::recvmsg(theirs.as_raw_fd(), header, libc::MSG_DONTWAIT) } < 0 {
                    ring.look().unwrap();
                } else if let [number] = *passed(header, area).1 {
                    // SAFETY: it was received just now.
                    break unsafe { OwnedFd::from_raw_fd(number) };
                }
            };
            let seen = ring.wait(1);
            rule!("W10", seen == [(1, 1, 0)], "{kind}: {seen:?}");
            put(&received, b"which?");
            drop((received, second_writer));
            let mut said = String::new();
            File::from(second).read_to_string(&mut said).unwrap();
            rule!("W10", said == "which?", "{kind}: what was sent is what was there at submit");
        }
    });
}

#[test]
fn w11_what_a_receive_writes_of_control_messages_is_what_it_says_and_nothing_if_it_is_cancelled() {
    on_linux(6, 1, || {
        for (kind, mut ring) in kinds(8) {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let flags = libc::MSG_CMSG_CLOEXEC as u32;
            // The kernel takes the header for what it says at submit, and writes to it in the end.
            let (header, area) = with_control(&[0; 64]);
            ring.push(1, opcode::RecvMsg::new(raw(&theirs), header).flags(flags).build());
            ring.submit().unwrap();
            let (cancel, mut seen) = ring.cancel(1);
            ring.complete(&mut seen, 1);
            rule!("W11", (cancel, &seen[..]) == (0, &[(1, ECANCELED, 0)]), "{kind}: {cancel}, {seen:?}");
            let (length, numbers) = passed(header, area);
            rule!("W11", (length, &numbers[..]) == (64, &[]), "{kind}: {length} bytes, {numbers:?}");
            let (_reader, writer) = pipe();
            let three = passing(&[&writer, &writer, &writer]);
            let header_size = size_of::<libc::cmsghdr>();
            // With room for this many bytes come so many descriptors; the others are lost.
            for (room, count) in
                [(0, 0), (8, 0), (header_size, 0), (header_size + 3, 0), (20, 1), (27, 2), (64, 3)]
            {
                let send = with_control(&three).0;
                // SAFETY: the header leads to what lives for ever.
                assert_eq!(unsafe { libc::sendmsg(ours.as_raw_fd(), send, 0) }, 1);
                let (header, area) = with_control(&[0; 64]);
                // SAFETY: it lives for ever, and nobody uses it now.
                unsafe { (*header).msg_controllen = room };
                ring.push(1, opcode::RecvMsg::new(raw(&theirs), header).flags(flags).build());
                let seen = ring.wait(1);
                rule!("W11", seen == [(1, 1, 0)], "{kind}, room for {room}: {seen:?}");
                let (length, numbers) = passed(header, area);
                // SAFETY: it lives for ever, and the kernel does not write to it any more.
                let cut = unsafe { (*header).msg_flags } & libc::MSG_CTRUNC != 0;
                let found = (numbers.len(), cut, length <= room);
                rule!(
                    "W11",
                    found == (count, count < 3, true),
                    "{kind}, room for {room}: {numbers:?}, {length}, {cut}"
                );
                for number in numbers {
                    // SAFETY: it was received just now.
                    let fd = unsafe { OwnedFd::from_raw_fd(number) };
                    rule!("W11", !is_inherited(&fd), "{kind}: it is not close-on-exec");
                }
            }
            // A message without any says that there are none.
            (&ours).write_all(b"x").unwrap();
            let (header, area) = with_control(&[0; 64]);
            ring.push(1, opcode::RecvMsg::new(raw(&theirs), header).flags(flags).build());
            let seen = ring.wait(1);
            let found = passed(header, area);
            rule!("W11", seen == [(1, 1, 0)] && found == (0, Vec::new()), "{kind}: {seen:?}, {found:?}");
        }
    });
}

/// `sqe->ioprio`.
const IOPRIO: usize = 2;

#[test]
fn w12_a_datagram_that_waits_for_the_queue_of_its_receiver_may_arrive_without_its_bytes() {
    on_linux(6, 1, || {
        for (kind, mut ring) in kinds(8) {
            for poll_first in [false, true] {
                let there = address("w12");
                let theirs = UnixDatagram::bind_addr(&there).unwrap();
                let ours = UnixDatagram::unbound().unwrap();
                ours.connect_addr(&there).unwrap();
                ours.set_nonblocking(true).unwrap();
                while ours.send(b"full").is_ok() {}
                ours.set_nonblocking(false).unwrap();
                let mut entry = opcode::Send::new(raw(&ours), memory(3), 3).build();
                if poll_first {
                    // `IORING_RECVSEND_POLL_FIRST`.
                    entry = with_byte(entry, IOPRIO, 1);
                }
                ring.push(1, entry);
                ring.submit().unwrap();
                let seen = ring.strays();
                rule!("W12", seen.is_empty(), "{kind}: it does not wait: {seen:?}");
                let mut bytes = [0; 8];
                theirs.set_nonblocking(true).unwrap();
                let end = Instant::now() + LONG;
                let length = loop {
                    assert!(Instant::now() < end, "nothing was sent");
                    match theirs.recv(&mut bytes) {
                        Ok(4) => {}
                        Ok(length) => break length as i32,
                        Err(_) => drop(ring.look().unwrap()),
                    }
                };
                let seen = ring.wait(1);
                let result = seen.first().map(|it| it.1);
                // Newer kernels may send it as it is.
                let held = result == Some(length) && (length == 3 || length == 0 && !poll_first);
                rule!("W12", held, "{kind}: {length} bytes, and the result is {seen:?}");
            }
        }
    });
}
