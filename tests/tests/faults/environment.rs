//! What surrounds a ring: limits, sandboxes, forks, threads. Each test runs in a process of its own, because none of it
//! can be undone.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::num::NonZeroU32;
use std::os::fd::{AsRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::thread;
use std::time::Duration;

use rummelplatz::io_uring::{IoUring, opcode, squeue};
use rummelplatz::request::{CWD, OpenOptions};
use rummelplatz::{
    BufferPool, BuildErrorKind, ControlFlow, RawRing, Refused, RingError, SendError, SubmitError, request,
};
use rummelplatz_tests::{
    Bench, Job, Ledger, Log, Script, Tracked, become_nobody, forbid, in_child, in_fork, leaves_nothing,
    open_descriptors, outcome, panic_of, pipe, set_limit, tcp_pair,
};

const FOR_EVER: Duration = Duration::from_secs(100_000);
const CANCELLED: Result<u32, i32> = Err(libc::ECANCELED);

fn shared_pipe() -> (Arc<OwnedFd>, Arc<OwnedFd>) {
    let (reader, writer) = pipe();
    (Arc::new(reader), Arc::new(writer))
}

/// Opens as many files as this process may.
fn use_up_descriptors() -> Vec<File> {
    set_limit(libc::RLIMIT_NOFILE, 100);
    std::iter::from_fn(|| File::open("/dev/null").ok()).collect()
}

fn entries(entries: u32) -> NonZeroU32 {
    NonZeroU32::new(entries).unwrap()
}

// ---- building -----------------------------------------------------------------------------------------

/// The error of building a ring if `io_uring_setup` fails with this.
fn build_where_setup_fails(errno: i32) -> BuildErrorKind {
    thread::scope(|scope| {
        let kinds = scope.spawn(|| {
            forbid(libc::SYS_io_uring_setup, errno);
            let before = open_descriptors();
            let raw = RawRing::new(entries(8)).unwrap_err();
            let built = Bench::<()>::builder(Script::new(), Script::new()).build().unwrap_err();
            assert_eq!(open_descriptors(), before);
            assert_eq!(raw.kind(), built.kind());
            (raw.kind(), raw.to_string(), io::Error::from(raw).kind())
        });
        let (kind, text, io_kind) = kinds.join().unwrap();
        assert!(text.starts_with("could not create an io_uring with 8 entries: "), "{text}");
        if kind == BuildErrorKind::Forbidden {
            assert!(text.contains("kernel.io_uring_disabled"), "{text}");
            assert_eq!(io_kind, io::ErrorKind::PermissionDenied);
        }
        kind
    })
}

#[test]
fn e01_a_filter_that_forbids_io_uring_is_a_typed_error() {
    in_child(|| {
        assert_eq!(build_where_setup_fails(libc::EPERM), BuildErrorKind::Forbidden);
        assert_eq!(build_where_setup_fails(libc::EACCES), BuildErrorKind::Forbidden);
        // The filter is only for those threads.
        Bench::<()>::with(8, Script::new()).run().unwrap();
    });
}

#[test]
fn e02_a_kernel_without_io_uring_is_another() {
    in_child(|| {
        assert_eq!(build_where_setup_fails(libc::ENOSYS), BuildErrorKind::Missing);
        assert_eq!(build_where_setup_fails(libc::EFAULT), BuildErrorKind::Other);
    });
}

#[test]
fn e03_without_a_descriptor_left_building_fails_and_loses_none() {
    in_child(|| {
        let mut files = use_up_descriptors();
        let mut failures = 0;
        // Each time one more descriptor is available, until there are enough.
        let mut ring = loop {
            match Bench::<()>::builder(Script::new(), Script::new()).build() {
                Ok(ring) => break ring,
                Err(error) => {
                    assert_eq!(error.kind(), BuildErrorKind::Limit);
                    assert!(error.to_string().contains("ulimit -n"), "{error}");
                }
            }
            failures += 1;
            drop(files.pop());
        };
        assert!((2..=5).contains(&failures), "{failures}");
        ring.run().unwrap();
        drop(ring);
        // No failure has lost a descriptor.
        let mut all = use_up_descriptors();
        assert_eq!(all.len(), failures);
        all.clear();
    });
}

#[test]
fn e03_without_a_descriptor_left_opening_fails_and_the_ring_goes_on() {
    in_child(|| {
        let seen = Log::new();
        let log = seen.clone();
        let ledger = Ledger::new();
        let script = Script::new().on_completion(move |completion, _, _| {
            log.push(outcome(&completion));
            (ControlFlow::Continue, None)
        });
        let mut ring = Bench::with(8, script);
        let _files = use_up_descriptors();
        for _ in 0..3 {
            let data = ledger.issue(c"/dev/null");
            ring.submitter(Bench::FIRST)
                .submit(data, |it| request::openat(&CWD, it.value, &OpenOptions::new()))
                .unwrap();
        }
        ring.run().unwrap();
        assert_eq!(seen.take(), [Err(libc::EMFILE); 3]);
        ledger.assert_all_dropped_once();
    });
}

#[test]
fn e04_without_memory_to_lock_building_fails_for_the_unprivileged() {
    in_child(|| {
        become_nobody();
        set_limit(libc::RLIMIT_MEMLOCK, 0);
        let before = open_descriptors();
        match RawRing::new(entries(256)) {
            Ok(_) => eprintln!("skipped: this kernel does not charge rings to RLIMIT_MEMLOCK"),
            Err(error) => {
                assert_eq!(error.kind(), BuildErrorKind::Limit);
                assert!(error.to_string().contains("ulimit -l"), "{error}");
            }
        }
        assert_eq!(open_descriptors(), before);
    });
}

#[test]
fn e05_a_ring_without_any_of_the_newer_setup_flags_does_all_the_same() {
    in_child(|| {
        // The setup fails like this whatever its flags are.
        assert_eq!(build_where_setup_fails(libc::EINVAL), BuildErrorKind::Unsupported);
        leaves_nothing(|ledger| {
            // SAFETY: nothing is queued or in flight in it.
            let raw = unsafe { RawRing::from_io_uring(IoUring::new(4).unwrap()) }.unwrap();
            let pool = BufferPool::new(4, 8).unwrap();
            let (mut client, server) = tcp_pair();
            let (reader, writer) = shared_pipe();
            let (seen, ended) = (Log::new(), Log::new());
            let (log, teardown) = (seen.clone(), ended.clone());
            let jobs = Script::new()
                .on_completion(move |completion, job: Tracked<Job>, mut submitter| {
                    log.push((job.number, completion.is_message(), outcome(&completion)));
                    if job.number == 1 {
                        submitter.post(ledger.issue(Job::new(2, &job.file, 0))).unwrap();
                    }
                    let exit = job.number == 99;
                    (if exit { ControlFlow::Exit } else { ControlFlow::Continue }, None)
                })
                .on_teardown(move |completion, job, _| {
                    teardown.push((job.number, outcome(&completion)));
                    Ok(())
                });
            let received = Log::new();
            let bytes = received.clone();
            let socket = ledger.issue(Job::new(50, &Arc::new(server.into()), 0));
            let of_stream = pool.clone();
            // The function of a stream captures nothing.
            static POOL: std::sync::OnceLock<BufferPool> = std::sync::OnceLock::new();
            POOL.set(of_stream).unwrap();
            let stream = Script::new()
                .on_setup_once(move |mut submitter| {
                    submitter.stream(socket, |it| request::recv_multi(&*it.file, POOL.get().unwrap()))?;
                    Ok(())
                })
                .on_completion(move |completion, job: Tracked<Job>, _| {
                    if !completion.more() {
                        return (ControlFlow::Continue, None);
                    }
                    bytes.push(completion.into_buffer().unwrap().to_vec());
                    (ControlFlow::Continue, Some(job))
                });
            let mut ring = Bench::builder(jobs, stream).raw_ring(raw).build().unwrap();
            // More than fit the queue: reads, timers, a message, and what another thread sends.
            for number in 0..20 {
                let job = ledger.issue(Job::new(number, &reader, 1));
                if number == 0 {
                    ring.submitter(Bench::FIRST).submit(job, |job| job.read()).unwrap();
                } else {
                    let time = Duration::from_millis(number % 3);
                    ring.submitter(Bench::FIRST).submit(job, move |_| request::timeout(time)).unwrap();
                }
            }
            let never = ledger.issue(Job::new(60, &reader, 1));
            ring.submitter(Bench::FIRST).submit(never, |_| request::timeout(FOR_EVER)).unwrap();
            let handle = ring.handle();
            let last = ledger.issue(Job::new(99, &reader, 0));
            drop(reader);
            let (log, all) = (seen.clone(), received.clone());
            let other = thread::spawn(move || {
                client.write_all(b"stream").unwrap();
                File::from(writer.try_clone().unwrap()).write_all(b"x").unwrap();
                while log.len() < 21 || all.is_empty() {
                    thread::sleep(Duration::from_millis(1));
                }
                handle.send(Bench::FIRST, last).ok().unwrap();
            });
            ring.run().unwrap();
            other.join().unwrap();
            let mut seen = seen.take();
            seen.sort();
            let mut expected: Vec<_> = (1..20).map(|number| (number, false, Ok(0))).collect();
            expected.extend([(0, false, Ok(1)), (2, true, Ok(0)), (99, true, Ok(0))]);
            expected.sort();
            assert_eq!(seen, expected);
            assert_eq!(received.take().concat(), b"stream");
            assert_eq!(ended.take(), [(60, CANCELLED)]);
            assert_eq!(pool.available(), 4);
        });
    });
}

// ---- here and there -----------------------------------------------------------------------------------

#[test]
fn e06_a_ring_that_is_built_here_is_run_there() {
    in_child(|| {
        leaves_nothing(|ledger| {
            let seen = Log::new();
            let log = seen.clone();
            // The thread that builds the ring and feeds it is gone when the ring runs.
            let build = thread::spawn(move || {
                let script = Script::new().on_completion(move |completion, data: Tracked<u32>, _| {
                    log.push((*data, outcome(&completion)));
                    (ControlFlow::Continue, None)
                });
                let mut ring = Bench::with(4, script);
                for number in 0..20 {
                    ring.submitter(Bench::FIRST).submit(ledger.issue(number), |_| request::nop()).unwrap();
                }
                ring
            });
            let mut ring = build.join().unwrap();
            assert_eq!(ring.stats().in_flight, 20);
            let mut ring = thread::spawn(move || {
                ring.run().unwrap();
                ring
            })
            .join()
            .unwrap();
            assert_eq!(seen.take(), (0..20).map(|number| (number, Ok(0))).collect::<Vec<_>>());
            // From then on it belongs to that thread.
            assert!(matches!(ring.run(), Err(RingError::WrongThread)));
        });
    });
}

#[test]
fn e07_a_forked_child_gets_errors_and_its_parent_goes_on() {
    in_child(|| {
        let ledger = Ledger::new();
        let (reader, writer) = shared_pipe();
        let seen = Log::new();
        let log = seen.clone();
        let script = Script::new().on_completion(move |completion, data: Tracked<Job>, _| {
            log.push((data.number, outcome(&completion)));
            (ControlFlow::Continue, None)
        });
        let mut ring = Bench::with(8, script);
        let submit = |ring: &mut Bench<_>, number| {
            let data = ledger.issue(Job::new(number, &reader, 1));
            ring.submitter(Bench::FIRST).submit(data, |it| it.read()).unwrap()
        };
        let key = submit(&mut ring, 0);
        ring.turn().unwrap();
        // One is with the kernel, one in the queue.
        submit(&mut ring, 1);
        let mut ring = Some(ring);
        in_fork(|| {
            let mut ring = ring.take().unwrap();
            let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
            assert!(!maps.contains("io_uring"), "its memory is not there: {maps}");
            assert!(matches!(ring.run(), Err(RingError::Forked)));
            assert!(matches!(ring.turn(), Err(RingError::Forked)));
            assert!(matches!(ring.finish(), Err(RingError::Forked)));
            let mut submitter = ring.submitter(Bench::FIRST);
            let data = ledger.issue(Job::new(9, &reader, 1));
            let Refused { data, error } = submitter.try_submit(data, |_| unreachable!()).unwrap_err();
            assert_eq!(error, SubmitError::Forked);
            let Refused { data, error } = submitter.try_post(data).unwrap_err();
            assert_eq!(error, SubmitError::Forked);
            // SAFETY: a NOP points to nothing.
            let refused = unsafe { submitter.push(opcode::Nop::new().build(), data) }.unwrap_err();
            assert_eq!(refused.error, SubmitError::Forked);
            // SAFETY: a NOP points to nothing.
            let refused = unsafe { submitter.push_raw(opcode::Nop::new().build()) };
            assert_eq!(refused, Err(SubmitError::Forked));
            assert_eq!(
                submitter.detach(ledger.issue(Job::new(9, &reader, 1)), |_| unreachable!()),
                Err(SubmitError::Forked)
            );
            assert!(!submitter.cancel(key));
            assert_eq!(submitter.cancel_all(), 0);
            drop(submitter.handle());
            assert_eq!(ring.stats().in_flight, 2);
            assert!(format!("{ring:?}").contains("in_flight"));
            drop(ring.handle());
            let alive = ledger.alive();
            drop(ring);
            assert_eq!(ledger.alive(), alive, "all of it is the parent's");
        });
        let mut ring = ring.unwrap();
        submit(&mut ring, 2);
        File::from(writer.try_clone().unwrap()).write_all(b"abc").unwrap();
        ring.run().unwrap();
        let mut seen = seen.take();
        seen.sort();
        assert_eq!(seen, [(0, Ok(1)), (1, Ok(1)), (2, Ok(1))]);
        ledger.assert_all_dropped_once();
    });
}

#[test]
fn e07_a_fork_before_the_ring_ran_leaves_it_to_the_parent() {
    in_child(|| {
        let ledger = Ledger::new();
        let mut ring = Bench::with(2, Script::new());
        for number in 0..6 {
            ring.submitter(Bench::FIRST).submit(ledger.issue(number), |_| request::nop()).unwrap();
        }
        let mut ring = Some(ring);
        in_fork(|| drop(ring.take()));
        ring.unwrap().run().unwrap();
        ledger.assert_all_dropped_once();
        let mut raw = Some(RawRing::new(entries(8)).unwrap());
        in_fork(|| drop(raw.take()));
        let script = Script::<()>::new();
        let mut ring = Bench::builder(script, Script::new()).raw_ring(raw.unwrap()).build().unwrap();
        ring.run().unwrap();
    });
}

#[test]
fn e07_a_ring_that_a_forked_child_builds_from_its_parents_is_of_no_use_to_it() {
    in_child(|| {
        let mut raw = Some(RawRing::new(entries(8)).unwrap());
        in_fork(|| {
            let script = Script::<()>::new();
            let ring = Bench::builder(script, Script::new()).raw_ring(raw.take().unwrap()).build();
            // Built or not: nothing is touched, nothing crashes.
            if let Ok(mut ring) = ring {
                assert!(matches!(ring.run(), Err(RingError::Forked)));
                let refused = ring.submitter(Bench::FIRST).submit((), |()| request::nop());
                assert_eq!(refused, Err(SubmitError::Forked));
            }
        });
    });
}

#[test]
fn e07_a_fork_in_a_handler_whose_child_does_something_else_changes_nothing() {
    in_child(|| {
        let ledger = Ledger::new();
        let (reader, writer) = shared_pipe();
        let mut writer = File::from(writer.try_clone().unwrap());
        let script = Script::new()
            .on_setup_once(move |mut submitter| {
                submitter.submit(ledger.issue(Job::new(0, &reader, 1)), |it| it.read())?;
                submitter.submit(ledger.issue(Job::new(1, &reader, 1)), |_| request::nop())?;
                Ok(())
            })
            .on_completion(move |completion, data, _| {
                assert!(completion.result().is_ok());
                if data.number == 1 {
                    in_fork(|| ());
                    writer.write_all(b"x").unwrap();
                }
                (ControlFlow::Continue, None)
            });
        Bench::with(8, script).run().unwrap();
        ledger.assert_all_dropped_once();
    });
}

#[test]
fn e07_a_submitter_that_was_there_before_the_fork_does_no_harm_in_the_child() {
    in_child(|| {
        let ledger = Ledger::new();
        let issue = move |number| ledger.issue(number);
        let script = Script::new().on_completion(move |completion, number: Tracked<u32>, mut submitter| {
            assert!(completion.result().is_ok());
            if *number == 0 {
                in_fork(|| {
                    submitter.submit(issue(9), |_| request::nop()).ok();
                    submitter.to(Bench::SECOND).submit(issue(9), |_| request::nop()).ok();
                });
            }
            (ControlFlow::Continue, None)
        });
        let mut ring = Bench::with(4, script);
        let mut submitter = ring.submitter(Bench::FIRST);
        in_fork(|| {
            // More than there is room for.
            for _ in 0..20 {
                submitter.submit(issue(9), |_| request::nop()).ok();
            }
        });
        let mut chain = Some(submitter.chain());
        in_fork(|| {
            let mut chain = chain.take().unwrap();
            chain.link(issue(9), |_| request::nop()).unwrap();
            chain.submit(issue(9), |_| request::nop()).ok();
        });
        drop(chain);
        submitter.submit(issue(0), |_| request::nop()).unwrap();
        ring.run().unwrap();
        ledger.assert_all_dropped_once();
    });
}

#[test]
fn e07_a_handle_reaches_nothing_from_a_forked_child() {
    in_child(|| {
        let seen = Log::new();
        let log = seen.clone();
        let script = Script::new().on_completion(move |_, number: u32, _| {
            log.push(number);
            (ControlFlow::Exit, None)
        });
        let mut ring = Bench::with(8, script);
        let mut handle = Some(ring.handle());
        in_fork(|| {
            let handle = handle.take().unwrap();
            let SendError(number) = handle.send(Bench::FIRST, 1).unwrap_err();
            assert_eq!(number, 1);
            handle.stop();
            drop((handle.clone(), handle.downgrade(), handle));
        });
        handle.unwrap().send(Bench::FIRST, 2).unwrap();
        ring.run().unwrap();
        assert_eq!(seen.take(), [2], "it was not stopped");
    });
}

/// A handler forks, and the child goes on as if it had not forked.
#[test]
fn e07_a_child_that_returns_from_the_handler_is_told_that_the_ring_is_not_its() {
    let own = || RawRing::new(entries(8)).unwrap();
    // The kernel lets any process enter this ring.
    let for_all = || {
        let uring = IoUring::new(8).unwrap();
        // SAFETY: it is new.
        unsafe { RawRing::from_io_uring(uring) }.unwrap()
    };
    in_child(|| {
        for end in ["continue", "exit", "error", "panic"] {
            for turns in [false, true] {
                goes_on_in_a_child(own(), end, turns);
                goes_on_in_a_child(for_all(), end, turns);
            }
        }
    });
}

fn goes_on_in_a_child(raw: RawRing, end: &'static str, turns: bool) {
    const NOPS: usize = 300;
    let ledger = Ledger::new();
    let (reader, writer) = shared_pipe();
    let mut writer = File::from(writer.try_clone().unwrap());
    let child = Arc::new(AtomicI32::new(-1));
    let is_child = Arc::clone(&child);
    let mut count = 0;
    let told = Log::new();
    let (log, at_the_end) = (told.clone(), told.clone());
    let script = Script::new()
        .on_setup_once(move |mut submitter| {
            for number in 1..=60 {
                submitter.submit(ledger.issue(Job::new(number, &reader, 1)), |it| it.read())?;
            }
            submitter.submit(ledger.issue(Job::new(0, &reader, 0)), |_| request::nop())?;
            Ok(())
        })
        .on_completion(move |completion, data: Tracked<Job>, mut submitter| {
            log.push(data.number);
            if data.number > 0 {
                assert_eq!(outcome(&completion), Ok(1));
                return (ControlFlow::Continue, None);
            }
            count += 1;
            if count < NOPS {
                // The queues wrap around.
                submitter.submit(data, |_| request::nop()).unwrap();
                return (ControlFlow::Continue, None);
            }
            // SAFETY: the child goes on with what it has.
            let pid = unsafe { libc::fork() };
            is_child.store(pid, Ordering::Relaxed);
            if pid > 0 {
                writer.write_all(&[1; 60]).unwrap();
                return (ControlFlow::Continue, None);
            }
            log.take();
            // What is submitted goes nowhere.
            submitter.submit(data, |_| request::nop()).ok();
            match end {
                "exit" => (ControlFlow::Exit, None),
                "error" => (ControlFlow::Error("the end".into()), None),
                "panic" => panic!("the end"),
                _ => (ControlFlow::Continue, None),
            }
        })
        .on_teardown(move |_, data, _| {
            at_the_end.push(data.number);
            Ok(())
        });
    let mut ring = Bench::builder(script, Script::new()).raw_ring(raw).build().unwrap();
    let result = catch_unwind(AssertUnwindSafe(|| match turns {
        false => ring.run(),
        true => loop {
            match ring.turn() {
                Ok(progress) if progress.is_finished() || progress.is_idle() => break Ok(()),
                Ok(_) => {}
                Err(error) => break Err(error),
            }
        },
    }));
    let pid = child.load(Ordering::Relaxed);
    assert!(pid >= 0, "it was not forked");
    if pid == 0 {
        let is_right = match end {
            "panic" => result.is_err(),
            _ => matches!(result, Ok(Err(RingError::Forked))),
        };
        let names = std::fs::read_dir("/proc/self/fd").unwrap();
        let names = names.filter_map(|it| std::fs::read_link(it.unwrap().path()).ok());
        let has_ring = names.into_iter().any(|it| it.to_string_lossy().contains("io_uring"));
        let is_left_alone = matches!(ring.run(), Err(RingError::Forked)) && told.is_empty() && !has_ring;
        drop(ring);
        // SAFETY: it ends the process.
        unsafe { libc::_exit(i32::from(!(is_right && is_left_alone))) };
    }
    assert!(matches!(result, Ok(Ok(()))));
    let mut told = told.take();
    told.sort();
    assert_eq!(told, [vec![0; NOPS], (1..=60).collect()].concat());
    ledger.assert_all_dropped_once();
    let mut status = 0;
    // SAFETY: the status outlives the call.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    assert_eq!(status, 0, "{end}, {turns}");
}

#[test]
fn e08_nothing_of_a_ring_is_inherited() {
    in_child(|| {
        let inherited = || {
            let fds = std::fs::read_dir("/proc/self/fd").unwrap();
            let fds = fds.map(|fd| fd.unwrap().file_name().to_str().unwrap().parse().unwrap());
            // SAFETY: a plain call.
            let flags = |fd: &i32| unsafe { libc::fcntl(*fd, libc::F_GETFD) };
            fds.filter(|fd| flags(fd) & libc::FD_CLOEXEC == 0).collect::<Vec<i32>>()
        };
        let (before, count) = (inherited(), open_descriptors());
        let mut ring = Bench::<()>::with(8, Script::new());
        let _handle = ring.handle();
        ring.turn().unwrap();
        assert!(open_descriptors() > count);
        assert_eq!(inherited(), before);
    });
}

/// A program that lists the descriptors that are open in it.
const LIST: [&str; 3] = ["/bin/ls", "-l", "/proc/self/fd/"];

fn assert_nothing_of_a_ring(list: &str) {
    assert!(list.contains("/proc/"), "nothing was listed: {list}");
    for of_a_ring in ["io_uring", "eventfd", "socket:"] {
        assert!(!list.contains(of_a_ring), "inherited: {list}");
    }
}

#[test]
fn e08_no_descriptor_of_a_ring_survives_an_exec() {
    in_child(|| {
        leaves_nothing(|ledger| {
            let (reader, _writer) = shared_pipe();
            let started = Log::new();
            let log = started.clone();
            let (output, of_exec) = pipe();
            // The child inherits only its end of the pipe, as its standard output.
            let of_exec = File::from(of_exec);
            let stdout = of_exec.as_raw_fd();
            let script = Script::new()
                .on_setup_once(move |mut submitter| {
                    drop(submitter.handle());
                    submitter.submit(ledger.issue(Job::new(0, &reader, 1)), |job| job.read())?;
                    submitter.submit(ledger.issue(Job::new(1, &reader, 1)), |_| request::nop())?;
                    Ok(())
                })
                .on_completion(move |_, _, _| {
                    // A program started by the handler.
                    let list = Command::new(LIST[0]).args(&LIST[1..]).output().unwrap();
                    log.push(String::from_utf8(list.stdout).unwrap());
                    // The process itself becomes another program: a fork of this one, that is.
                    in_fork(|| {
                        // SAFETY: plain calls with descriptors that are open.
                        assert_eq!(unsafe { libc::dup2(stdout, 1) }, 1);
                        let error =
                            std::os::unix::process::CommandExt::exec(Command::new(LIST[0]).args(&LIST[1..]));
                        panic!("{error}");
                    });
                    (ControlFlow::Exit, None)
                });
            let mut ring = Bench::with(8, script);
            let _handle = ring.handle();
            ring.run().unwrap();
            drop(of_exec);
            assert_nothing_of_a_ring(&started.take().concat());
            let mut list = String::new();
            File::from(output).read_to_string(&mut list).unwrap();
            assert_nothing_of_a_ring(&list);
        });
    });
}

#[test]
fn e08_an_exec_in_the_middle_of_a_run_takes_the_ring_with_it() {
    in_child(|| {
        let (output, of_exec) = pipe();
        in_fork(|| {
            // SAFETY: a plain call with descriptors that are open.
            assert_eq!(unsafe { libc::dup2(of_exec.as_raw_fd(), 1) }, 1);
            let (reader, _writer) = shared_pipe();
            let script = Script::new()
                .on_setup_once(move |mut submitter| {
                    submitter.submit(Job::new(0, &reader, 1), |job| job.read())?;
                    submitter.submit(Job::new(1, &reader, 1), |_| request::nop())?;
                    Ok(())
                })
                .on_completion(|_, _, _| {
                    let mut list = Command::new(LIST[0]);
                    panic!("{}", std::os::unix::process::CommandExt::exec(list.args(&LIST[1..])))
                });
            Bench::with(8, script).run().unwrap();
        });
        drop(of_exec);
        let mut list = String::new();
        File::from(output).read_to_string(&mut list).unwrap();
        assert_nothing_of_a_ring(&list);
    });
}

#[test]
fn e09_a_ring_whose_thread_is_gone_is_no_use_and_no_danger() {
    in_child(|| {
        let ledger = Ledger::new();
        let (reader, writer) = shared_pipe();
        let mut ring = Bench::with(8, Script::new());
        let ring = thread::spawn(move || {
            ring.submitter(Bench::FIRST)
                .submit(ledger.issue(Job::new(0, &reader, 1)), |it| it.read())
                .unwrap();
            ring.turn().unwrap();
            ring
        });
        let mut ring = ring.join().unwrap();
        assert!(matches!(ring.run(), Err(RingError::WrongThread)));
        drop(ring);
        assert_eq!(ledger.alive(), 1, "leaked, not freed");
        File::from(writer.try_clone().unwrap()).write_all(b"x").ok();
    });
}

// ---- running --------------------------------------------------------------------------------------------

#[test]
fn e10_a_ring_that_may_not_enter_the_kernel_any_more_is_abandoned() {
    in_child(|| {
        let ledger = Ledger::new();
        let (reader, writer) = shared_pipe();
        let ended = Log::new();
        let log = ended.clone();
        let script = Script::new()
            .on_setup_once(move |mut submitter| {
                for number in 0..3 {
                    submitter.submit(ledger.issue(Job::new(number, &reader, 8)), |it| it.read())?;
                }
                submitter.submit(ledger.issue(Job::new(3, &reader, 8)), |_| request::nop())?;
                Ok(())
            })
            .on_completion(|_, _, _| {
                forbid(libc::SYS_io_uring_enter, libc::EPERM);
                (ControlFlow::Exit, None)
            })
            .on_teardown(move |_, data, _| {
                log.push(data.number);
                Ok(())
            });
        let mut ring = Bench::with(8, script);
        let error = ring.run().unwrap_err();
        let RingError::Abandoned { stuck } = &error else { panic!("{error}") };
        assert_eq!(stuck.errno, Some(libc::EPERM));
        assert_eq!(stuck.requests.len(), 3);
        for request in &stuck.requests {
            assert_eq!((request.operation, request.opcode_name()), ("first", "READ"));
        }
        assert!(error.to_string().contains("unusable"), "{error}");
        assert!(matches!(ring.run(), Err(RingError::Abandoned { .. })));
        assert!(ended.is_empty());
        drop(ring);
        drop(writer);
        assert_eq!(ledger.alive(), 3, "leaked, not freed");
        ledger.assert_none_dropped_twice();
    });
}

#[test]
fn e10_a_panic_in_a_ring_that_may_not_enter_the_kernel_any_more_leaks_and_goes_on() {
    in_child(|| {
        let ledger = Ledger::new();
        let (reader, _writer) = shared_pipe();
        let script = Script::new()
            .on_setup_once(move |mut submitter| {
                submitter.submit(ledger.issue(Job::new(0, &reader, 8)), |it| it.read())?;
                submitter.submit(ledger.issue(Job::new(1, &reader, 8)), |_| request::nop())?;
                Ok(())
            })
            .on_completion(|_, _, _| {
                forbid(libc::SYS_io_uring_enter, libc::EPERM);
                panic!("in the handler")
            });
        let mut ring = Bench::with(8, script);
        assert_eq!(panic_of(|| ring.run()), "in the handler");
        assert!(matches!(ring.run(), Err(RingError::Abandoned { .. })));
        drop(ring);
        assert_eq!(ledger.alive(), 1);
        ledger.assert_none_dropped_twice();
    });
}

#[test]
fn e10_a_ring_that_is_dropped_where_it_may_not_enter_the_kernel_leaks() {
    in_child(|| {
        let ledger = Ledger::new();
        let (reader, _writer) = shared_pipe();
        let mut ring = Bench::with(8, Script::new());
        ring.submitter(Bench::FIRST).submit(ledger.issue(Job::new(0, &reader, 8)), |it| it.read()).unwrap();
        ring.turn().unwrap();
        forbid(libc::SYS_io_uring_enter, libc::EPERM);
        drop(ring);
        assert_eq!(ledger.alive(), 1);
    });
}

#[test]
fn e10_what_the_kernel_never_had_is_handed_back_even_when_the_rest_is_abandoned() {
    in_child(|| {
        let ledger = Ledger::new();
        let ended = Log::new();
        let log = ended.clone();
        let script = Script::new()
            .on_setup_once(move |mut submitter| {
                submitter.submit(ledger.issue(0), |_| request::timeout(FOR_EVER))?;
                submitter.submit(ledger.issue(1), |_| request::nop())?;
                Ok(())
            })
            .on_completion(move |_, _, mut submitter| {
                submitter.post(ledger.issue(2)).unwrap();
                forbid(libc::SYS_io_uring_enter, libc::EPERM);
                (ControlFlow::Exit, None)
            })
            .on_teardown(move |completion, data, _| {
                log.push((*data, completion.is_message()));
                Ok(())
            });
        let mut ring = Bench::with(8, script);
        let Err(RingError::Abandoned { stuck }) = ring.run() else { panic!("not abandoned") };
        assert_eq!(stuck.requests.len(), 1, "{stuck}");
        assert_eq!(stuck.requests[0].opcode_name(), "TIMEOUT");
        assert_eq!(ended.take(), [(2, true)]);
        drop(ring);
        assert_eq!(ledger.alive(), 1);
        ledger.assert_none_dropped_twice();
    });
}

#[test]
fn e10_a_ring_with_nothing_in_flight_that_may_not_wait_ends_with_an_error_and_leaks_nothing() {
    in_child(|| {
        let ledger = Ledger::new();
        let mut ring = Bench::with(
            8,
            Script::new().on_completion(|_, _, _| {
                forbid(libc::SYS_io_uring_enter, libc::EPERM);
                (ControlFlow::Continue, None)
            }),
        );
        ring.submitter(Bench::FIRST).submit(ledger.issue(0), |_| request::nop()).unwrap();
        // Somebody might send something, so it waits.
        let handle = ring.handle();
        let RingError::Api(cause) = ring.run().unwrap_err() else { panic!("no call failed") };
        assert_eq!(cause.error.raw_os_error(), Some(libc::EPERM));
        assert!(cause.abandoned.is_none());
        drop((handle, ring));
        ledger.assert_all_dropped_once();
    });
}

#[test]
fn e11_work_that_no_thread_can_be_had_for_is_cancelled_and_the_ring_goes_on() {
    in_child(|| {
        become_nobody();
        set_limit(libc::RLIMIT_NPROC, 0);
        let ledger = Ledger::new();
        let seen = Log::new();
        let log = seen.clone();
        let Ok(raw) = RawRing::new(entries(8)) else {
            return eprintln!("skipped: no ring for the unprivileged");
        };
        let script = Script::new().on_completion(move |completion, data: Tracked<u32>, _| {
            log.push((*data, outcome(&completion)));
            (ControlFlow::Continue, None)
        });
        let mut ring = Bench::builder(script, Script::new()).raw_ring(raw).build().unwrap();
        let mut submitter = ring.submitter(Bench::FIRST);
        let punted = opcode::Nop::new().build().flags(squeue::Flags::ASYNC);
        // SAFETY: a NOP points to nothing.
        unsafe { submitter.push(punted, ledger.issue(0)) }.unwrap();
        submitter.submit(ledger.issue(1), |_| request::timeout(Duration::from_millis(5))).unwrap();
        ring.run().unwrap();
        let mut seen = seen.take();
        seen.sort();
        assert!(seen == [(0, CANCELLED), (1, Ok(0))] || seen == [(0, Ok(0)), (1, Ok(0))], "{seen:?}");
        ledger.assert_all_dropped_once();
    });
}

#[test]
fn e12_a_port_can_be_bound_again_right_after_the_run() {
    in_child(|| {
        leaves_nothing(|ledger| {
            // Where nobody else asks for a port.
            let mut address = "127.0.0.12:0".parse().unwrap();
            for round in 0..20 {
                // There would be EADDRINUSE as long as anybody still has the previous listener.
                let listener =
                    TcpListener::bind(address).unwrap_or_else(|error| panic!("{error}, round {round}"));
                address = listener.local_addr().unwrap();
                let client = TcpStream::connect(address).unwrap();
                let script = Script::new()
                    .on_setup_once(move |mut submitter| {
                        submitter.stream(ledger.issue(listener), |it| request::accept_multi(&it.value))?;
                        Ok(())
                    })
                    .on_completion(move |completion, listener, _| {
                        completion.into_fd().unwrap();
                        (ControlFlow::Exit, Some(listener))
                    });
                let mut ring = Bench::with(8, script);
                ring.run().unwrap();
                drop(client);
                // The ring need not even be dropped first.
                TcpListener::bind(address).unwrap();
            }
        });
    });
}
