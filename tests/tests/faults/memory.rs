//! Canaries: the kernel writes where no sanitizer sees it.
//!
//! Each test lets a ring end while the kernel uses memory of its requests. If that memory were freed too early, the
//! next allocation would be changed while its owner has it, or would be sent.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use rummelplatz::io_uring::{opcode, types};
use rummelplatz::{ControlFlow, RingError, request};
use rummelplatz_tests::{
    Bench, Job, Ledger, Log, Outcome, PATIENCE, Script, Tracked, in_child, leaves_nothing, open_descriptors,
    outcome, panic_of, pipe, tcp_pair,
};

/// How a ring ends.
#[derive(Clone, Copy, PartialEq, Debug)]
enum End {
    Exit,
    Error,
    Panic,
    Drop,
}

const ENDS: [End; 4] = [End::Exit, End::Error, End::Panic, End::Drop];

impl End {
    /// The last word of a handler.
    fn say<D>(self) -> Outcome<D> {
        match self {
            End::Exit => (ControlFlow::Exit, None),
            End::Error => (ControlFlow::Error("the end".into()), None),
            // Prints nothing on the terminal: that would take so long that the disk would be done.
            End::Panic => resume_unwind(Box::new("the end")),
            End::Drop => (ControlFlow::Continue, None),
        }
    }

    /// Runs a ring to its end, until it is dropped.
    fn run<D: Send + 'static>(self, mut ring: Bench<D>) {
        match self {
            End::Exit => {
                if let Err(error) = ring.run() {
                    assert!(matches!(error, RingError::Abandoned { .. }), "{error}");
                }
            }
            End::Error => assert!(matches!(ring.run(), Err(RingError::Completion(_)))),
            End::Panic => assert_eq!(panic_of(|| ring.run()), "the end"),
            End::Drop => drop(ring.turn().unwrap()),
        }
    }
}

/// From here on, freed memory stays with the process, and is allocated next.
fn keep_freed_memory() {
    for (option, value) in [(libc::M_MMAP_MAX, 0), (libc::M_TRIM_THRESHOLD, i32::MAX)] {
        // SAFETY: a plain call; no other thread is in the allocator's set-up.
        assert_eq!(unsafe { libc::mallopt(option, value) }, 1);
    }
}

/// Fails if one of these blocks of zeroes changes within 50 ms.
fn assert_nobody_writes(memory: &[Vec<u8>], end: End) {
    thread::sleep(Duration::from_millis(50));
    let changed = memory.iter().filter(|bytes| bytes.iter().any(|byte| *byte != 0)).count();
    assert_eq!(changed, 0, "blocks written to after {end:?}");
}

/// Two hundred reads past the page cache are at the disk when the ring ends.
fn direct_reads(end: End) {
    const READS: usize = 200;
    const SIZE: usize = 64 << 10;
    const ALIGNMENT: usize = 4096;
    const BALLAST: usize = 1 << 20;
    // Other reads keep the disk busy first, into memory that is never freed.
    let ballast: &'static mut [u8] = Box::leak(vec![0; BALLAST + ALIGNMENT].into());
    keep_freed_memory();
    let path = format!("{}/canary-{}", env!("CARGO_TARGET_TMPDIR"), std::process::id());
    File::create_new(&path).unwrap().write_all(&vec![0xCC; READS * SIZE]).unwrap();
    let file = File::options().read(true).custom_flags(libc::O_DIRECT).open(&path);
    std::fs::remove_file(&path).unwrap();
    let Ok(file) = file else {
        eprintln!("skipped: no O_DIRECT in {}", env!("CARGO_TARGET_TMPDIR"));
        return;
    };
    file.sync_all().unwrap();

    let in_flight = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&in_flight);
    leaves_nothing(|ledger| {
        let file = Arc::new(OwnedFd::from(file.try_clone().unwrap()));
        let nothing = ledger.issue(Job::new(0, &file, 0));
        let reads = Script::new().on_setup_once(move |mut submitter| {
            let start = ballast.as_ptr().align_offset(ALIGNMENT);
            for _ in 0..100 {
                let target = ballast[start..].as_mut_ptr();
                let fd = types::Fd(file.as_raw_fd());
                let entry = opcode::Read::new(fd, target, BALLAST as u32).build();
                // SAFETY: the memory was leaked, and the kernel has the file from when it takes this in.
                unsafe { submitter.push_raw(entry) }?;
            }
            for number in 0..READS {
                let job = ledger.issue(Job::new(number as u64, &file, SIZE + ALIGNMENT));
                submitter.submit(job, |job| {
                    let job = &mut job.value;
                    let start = job.buffer.as_ptr().align_offset(ALIGNMENT);
                    let offset = job.number * SIZE as u64;
                    request::read_at(&*job.file, &mut job.buffer[start..start + SIZE], offset)
                })?;
            }
            Ok(())
        });
        let other = Script::new()
            .on_setup_once(move |mut submitter| {
                submitter.submit(nothing, |_| request::nop())?;
                Ok(())
            })
            .on_completion(move |_, _, _| {
                count.store(ledger.alive(), Ordering::Relaxed);
                end.say()
            });
        // This memory itself is not a place for the kernel to write to.
        let mut memory = Vec::with_capacity(READS);
        end.run(Bench::builder(reads, other).entries(512.try_into().unwrap()).build().unwrap());
        memory.extend((0..READS).map(|_| vec![0; SIZE + ALIGNMENT]));
        ledger.assert_all_dropped_once();
        assert_nobody_writes(&memory, end);
    });
    assert!(in_flight.load(Ordering::Relaxed) > 100, "the disk was too fast for this test");
}

#[test]
fn m01_direct_reads_after_exit() {
    in_child(|| direct_reads(End::Exit));
}

#[test]
fn m01_direct_reads_after_an_error() {
    in_child(|| direct_reads(End::Error));
}

#[test]
fn m01_direct_reads_after_a_panic() {
    in_child(|| direct_reads(End::Panic));
}

#[test]
fn m01_direct_reads_after_a_drop() {
    in_child(|| direct_reads(End::Drop));
}

/// A zero-copy send that the kernel has taken in whole, but that its peer has not read, when the ring ends. It can't be
/// cancelled: if the peer is slow, it is abandoned at the deadline.
fn zero_copy_send(end: End, slow: bool) {
    const SIZE: usize = 256 << 10;
    let before = open_descriptors();
    let ledger = Ledger::new();
    let (client, mut server) = tcp_pair();
    // More than fits into the peer's buffer, into which everything else would be copied.
    setsockopt(&client, sockopt::SndBuf, &(1 << 20)).unwrap();
    setsockopt(&server, sockopt::RcvBuf, &(64 << 10)).unwrap();
    let file = Arc::new(OwnedFd::from(client));
    let ended = Log::new();
    let (ran, torn_down) = (ended.clone(), ended.clone());
    let nothing = ledger.issue(Job::new(0, &file, 0));
    let sender = Script::new()
        .on_setup_once(move |mut submitter| {
            let mut data: Tracked<Job> = ledger.issue(Job::new(1, &file, SIZE));
            data.buffer.fill(0xAB);
            submitter.submit(data, |data| data.send_zc())?;
            submitter.submit(nothing, |_| request::nop())?;
            Ok(())
        })
        .on_completion(move |completion, data, _| {
            if data.number == 0 {
                return end.say();
            }
            ran.push(outcome(&completion));
            (ControlFlow::Continue, None)
        })
        .on_teardown(move |completion, _, _| {
            torn_down.push(outcome(&completion));
            Ok(())
        });
    let mut builder = Bench::builder(sender, Script::new());
    if slow {
        builder = builder.deadline(Duration::from_millis(50));
    }
    let ring = builder.build().unwrap();
    let (begin, begins) = mpsc::channel();
    let delay = if slow { PATIENCE } else { Duration::from_millis(50) };
    let peer = thread::spawn(move || {
        begins.recv_timeout(delay).ok();
        let mut bytes = vec![0; SIZE];
        server.read_exact(&mut bytes).unwrap();
        bytes
    });
    end.run(ring);
    // If the buffer were freed too early, this would be put into it, and be sent.
    let garbage: Vec<_> = (0..8).map(|_| vec![0xCD_u8; SIZE]).collect();
    begin.send(()).ok();
    let sent = peer.join().unwrap();
    drop(garbage);
    assert_eq!(sent.iter().position(|byte| *byte != 0xAB), None, "other bytes were sent after {end:?}");
    ledger.assert_none_dropped_twice();
    assert_eq!(ledger.alive(), usize::from(slow), "leaked, if at all");
    let told = !slow && matches!(end, End::Exit | End::Error);
    assert_eq!(ended.take(), vec![Ok(SIZE as u32); usize::from(told)]);
    assert_eq!(open_descriptors(), before + usize::from(slow), "that of the socket is leaked with the data");
}

#[test]
fn m02_a_zero_copy_send_that_is_abandoned() {
    in_child(|| {
        keep_freed_memory();
        ENDS.into_iter().for_each(|end| zero_copy_send(end, true));
    });
}

#[test]
fn m02_a_zero_copy_send_that_ends_in_time() {
    in_child(|| {
        keep_freed_memory();
        ENDS.into_iter().for_each(|end| zero_copy_send(end, false));
    });
}

/// Forks a process that does nothing, but has all descriptors. Returns its id.
fn fork_a_sleeper() -> libc::pid_t {
    // SAFETY: the child calls nothing that could need a lock. It is not made by `fork(3)`, so that it keeps the ring.
    let child = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) } as libc::pid_t;
    assert!(child >= 0);
    if child == 0 {
        // SAFETY: a plain call: nobody survives the test.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        loop {
            // SAFETY: a plain call.
            unsafe { libc::pause() };
        }
    }
    child
}

/// Reads are in flight when the ring ends, and a child of this process has the ring open, so that closing it ends
/// nothing.
fn forked(end: End, defer: bool) {
    const READS: usize = 200;
    const SIZE: usize = 4096;
    static CHILD: AtomicI32 = AtomicI32::new(0);
    leaves_nothing(|ledger| {
        let (reader, writer) = pipe();
        // SAFETY: a plain call.
        assert!(unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_SETPIPE_SZ, 1 << 20) } >= 1 << 20);
        let reader = Arc::new(reader);
        let nothing = ledger.issue(Job::new(0, &reader, 0));
        let reads = Script::new().on_setup_once({
            let reader = Arc::clone(&reader);
            move |mut submitter| {
                for number in 0..READS {
                    let job = ledger.issue(Job::new(number as u64, &reader, SIZE));
                    submitter.submit(job, |it| it.read())?;
                }
                Ok(())
            }
        });
        let other = Script::new()
            .on_setup_once(move |mut submitter| {
                submitter.submit(nothing, |_| request::nop())?;
                Ok(())
            })
            .on_completion(move |_, _, _| {
                CHILD.store(fork_a_sleeper(), Ordering::Relaxed);
                end.say()
            });
        let mut memory = Vec::with_capacity(READS);
        end.run(Bench::builder(reads, other).defer_taskrun(defer).build().unwrap());
        let child = CHILD.load(Ordering::Relaxed);
        let held = std::fs::read_dir(format!("/proc/{child}/fd")).unwrap();
        let names = held.map(|it| std::fs::read_link(it.unwrap().path()).unwrap());
        assert!(names.into_iter().any(|it| it.to_string_lossy().contains("io_uring")));

        memory.extend((0..READS).map(|_| vec![0; SIZE]));
        ledger.assert_all_dropped_once();
        File::from(writer).write_all(&[0xCC; READS * SIZE]).unwrap();
        assert_nobody_writes(&memory, end);
        let mut left = 0;
        // SAFETY: the number outlives the call.
        assert_eq!(unsafe { libc::ioctl(reader.as_raw_fd(), libc::FIONREAD, &raw mut left) }, 0);
        assert_eq!(left as usize, READS * SIZE, "something was read");
        // SAFETY: a plain call; the child was not waited for yet, so its id is its own.
        assert_eq!(unsafe { libc::kill(child, libc::SIGKILL) }, 0);
        // SAFETY: a plain call with a valid argument.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut left, 0) }, child);
    });
}

#[test]
fn m03_a_ring_that_a_forked_child_has_open() {
    in_child(|| {
        keep_freed_memory();
        for (end, defer) in ENDS.into_iter().flat_map(|end| [(end, true), (end, false)]) {
            forked(end, defer);
        }
    });
}
