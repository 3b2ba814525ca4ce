//! What the surroundings can do to a ring: limits, filters, forks and threads. Each of these in a
//! process of its own, since none of it can be undone.

use std::fs::File;
use std::io::{self, Write};
use std::num::NonZeroU32;
use std::os::fd::{FromRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rummelplatz::io_uring::{opcode, squeue};
use rummelplatz::request::{CWD, OpenOptions};
use rummelplatz::{BuildErrorKind, ControlFlow, RawRing, Refused, RingError, Status, SubmitError, request};
use rummelplatz_tests::{
    Bench, Job, Ledger, Log, Script, Tracked, addressable, in_child, in_child_anywhere, open_descriptors,
    outcome, panic_of, pipe, watched,
};

const FOR_EVER: Duration = Duration::from_secs(100_000);
const CANCELLED: Result<u32, i32> = Err(libc::ECANCELED);

fn shared_pipe() -> (Arc<OwnedFd>, Arc<OwnedFd>) {
    let (reader, writer) = pipe();
    (Arc::new(reader), Arc::new(writer))
}

fn set_limit(resource: libc::__rlimit_resource_t, limit: u64) {
    let limit = libc::rlimit { rlim_cur: limit, rlim_max: limit };
    // SAFETY: a plain call with a valid argument.
    assert_eq!(unsafe { libc::setrlimit(resource, &raw const limit) }, 0);
}

/// Opens as many files as this process may.
fn use_up_descriptors() -> Vec<File> {
    set_limit(libc::RLIMIT_NOFILE, 100);
    std::iter::from_fn(|| File::open("/dev/null").ok()).collect()
}

/// Gives up all privileges for good, if there are any.
fn become_nobody() {
    const NOBODY: u32 = 65534;
    // SAFETY: a plain call.
    if unsafe { libc::geteuid() } != 0 {
        return;
    }
    // SAFETY: a plain call.
    assert_eq!(unsafe { libc::setgid(NOBODY) }, 0);
    // SAFETY: a plain call.
    assert_eq!(unsafe { libc::setuid(NOBODY) }, 0);
}

/// Makes a system call fail with `errno` in this thread from now on (`SECCOMP_MODE_FILTER`).
fn forbid(call: libc::c_long, errno: i32) {
    // SAFETY: plain arithmetic.
    let statement = |code, k| unsafe { libc::BPF_STMT(code as u16, k) };
    // SAFETY: plain arithmetic.
    let jump = |code, k, yes, no| unsafe { libc::BPF_JUMP(code as u16, k, yes, no) };
    let mut filter = [
        // The number of the system call is the first field of `seccomp_data`.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0),
        jump(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, call as u32, 0, 1),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | errno as u32),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: a plain call.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
    let mode = libc::SECCOMP_MODE_FILTER;
    // SAFETY: the program and its filter live through the call.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program) }, 0);
}

fn entries(entries: u32) -> NonZeroU32 {
    NonZeroU32::new(entries).unwrap()
}

// ---- building -----------------------------------------------------------------------------------------

#[test]
fn a_ring_that_is_too_large_is_an_error_and_the_largest_is_none() {
    watched(|| {
        for size in [32769, 40000, u32::MAX] {
            let error = RawRing::new(entries(size)).unwrap_err();
            assert_eq!(error.kind(), BuildErrorKind::TooLarge);
            assert!(error.to_string().contains("at most 32768"), "{error}");
            let error = Bench::<()>::builder(Script::new(), Script::new()).entries(entries(size)).build();
            assert_eq!(error.unwrap_err().kind(), BuildErrorKind::TooLarge);
        }
        let mut ring = Bench::<()>::builder(Script::new(), Script::new())
            .entries(entries(32768))
            .completion_entries(entries(u32::MAX))
            .build()
            .unwrap();
        ring.run().unwrap();
        let mut smallest = Bench::<()>::builder(Script::new(), Script::new())
            .entries(entries(1))
            .completion_entries(entries(1))
            .build()
            .unwrap();
        let mut submitter = smallest.submitter(Bench::FIRST);
        for _ in 0..10 {
            submitter.submit((), |()| request::timeout(Duration::from_millis(1))).unwrap();
        }
        smallest.run().unwrap();
    });
}

#[test]
fn without_a_descriptor_left_building_fails_and_loses_none() {
    in_child(|| {
        let mut files = use_up_descriptors();
        let mut failures = 0;
        // One more can be had each time, until there are enough.
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
        // None was lost in a failure.
        let mut all = use_up_descriptors();
        assert_eq!(all.len(), failures);
        all.clear();
    });
}

#[test]
fn without_a_descriptor_left_opening_fails_and_the_ring_goes_on() {
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
fn without_memory_to_lock_building_fails_for_the_unprivileged() {
    in_child(|| {
        become_nobody();
        set_limit(libc::RLIMIT_MEMLOCK, 0);
        match RawRing::new(entries(256)) {
            // Since 5.12 rings are charged to the memory control group; the limit is for others.
            Ok(_) => {}
            Err(error) => {
                assert_eq!(error.kind(), BuildErrorKind::Limit);
                assert!(error.to_string().contains("ulimit -l"), "{error}");
            }
        }
    });
}

#[test]
fn a_filter_that_forbids_io_uring_is_told_from_a_kernel_without_it() {
    in_child(|| {
        thread::scope(|scope| {
            scope.spawn(|| {
                forbid(libc::SYS_io_uring_setup, libc::EPERM);
                let error = RawRing::new(entries(8)).unwrap_err();
                assert_eq!(error.kind(), BuildErrorKind::Forbidden);
                assert!(error.to_string().contains("kernel.io_uring_disabled"), "{error}");
                assert_eq!(io::Error::from(error).kind(), io::ErrorKind::PermissionDenied);
            });
            scope.spawn(|| {
                forbid(libc::SYS_io_uring_setup, libc::ENOSYS);
                let error = Bench::<()>::builder(Script::new(), Script::new()).build().unwrap_err();
                assert_eq!(error.kind(), BuildErrorKind::Missing);
            });
            scope.spawn(|| {
                forbid(libc::SYS_io_uring_setup, libc::EINVAL);
                let error = RawRing::new(entries(8)).unwrap_err();
                assert_eq!(error.kind(), BuildErrorKind::Unsupported);
            });
            scope.spawn(|| {
                forbid(libc::SYS_io_uring_setup, libc::EFAULT);
                assert_eq!(RawRing::new(entries(8)).unwrap_err().kind(), BuildErrorKind::Other);
            });
        });
    });
}

#[test]
fn where_there_is_no_io_uring_the_tests_say_so_and_pass() {
    in_child_anywhere(|| {
        forbid(libc::SYS_io_uring_setup, libc::ENOSYS);
        watched(|| panic!("not to be run"));
        in_child(|| panic!("not to be run"));
    });
}

#[test]
fn a_thread_that_may_not_enable_the_ring_gets_an_error_and_nothing_is_lost() {
    in_child(|| {
        let ledger = Ledger::new();
        let mut ring = Bench::with(8, Script::new().on_setup(|_| panic!("it does not run")));
        ring.submitter(Bench::FIRST).submit(ledger.issue(1), |_| request::nop()).unwrap();
        thread::scope(|scope| {
            let ring = &mut ring;
            scope.spawn(|| {
                forbid(libc::SYS_io_uring_register, libc::EPERM);
                let error = ring.run().unwrap_err();
                assert!(matches!(error, RingError::Api(_)), "{error}");
            });
        });
        assert_eq!((ring.stats().in_flight, ledger.alive()), (1, 1));
        drop(ring);
        ledger.assert_all_dropped_once();
    });
}

// ---- running --------------------------------------------------------------------------------------------

#[test]
fn a_ring_that_may_not_enter_the_kernel_any_more_is_abandoned() {
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
fn a_panic_in_a_ring_that_may_not_enter_the_kernel_any_more_leaks_and_goes_on() {
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
fn a_ring_that_is_dropped_where_it_may_not_enter_the_kernel_leaks() {
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
fn what_the_kernel_never_had_is_handed_back_even_when_the_rest_is_abandoned() {
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
fn a_ring_with_nothing_in_flight_that_may_not_wait_ends_with_an_error_and_leaks_nothing() {
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
fn work_that_no_thread_can_be_had_for_is_cancelled_and_the_ring_goes_on() {
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

// ---- forks ----------------------------------------------------------------------------------------------

/// Runs `body` in a forked child of this process, which shares all its memory until one of them writes.
/// It must not panic.
fn in_fork(body: impl FnOnce()) {
    // SAFETY: this is the only thread of a test in a child, so the fork finds no lock held.
    let child = unsafe { libc::fork() };
    assert!(child >= 0);
    if child == 0 {
        let failed = catch_unwind(AssertUnwindSafe(body)).is_err();
        // SAFETY: ends the process without running what belongs to the parent.
        unsafe { libc::_exit(if failed { 1 } else { 0 }) };
    }
    let mut status = 0;
    // SAFETY: a plain call with a valid argument.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert!(libc::WIFEXITED(status), "killed by signal {}", libc::WTERMSIG(status));
    assert_eq!(libc::WEXITSTATUS(status), 0);
}

#[test]
fn a_forked_child_gets_errors_and_its_parent_goes_on() {
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
fn a_fork_before_the_ring_ran_leaves_it_to_the_parent() {
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
fn a_ring_that_a_forked_child_builds_from_its_parents_is_of_no_use_to_it() {
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
fn a_fork_in_a_handler_whose_child_does_something_else_changes_nothing() {
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
fn a_program_that_is_started_inherits_nothing_of_a_ring() {
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

#[test]
fn a_descriptor_that_is_duplicated_keeps_no_request_alive() {
    in_child(|| {
        let ledger = Ledger::new();
        let (reader, writer) = shared_pipe();
        let (raw, fd) = addressable(8);
        let mut ring = Bench::builder(Script::new(), Script::new()).raw_ring(raw).build().unwrap();
        ring.submitter(Bench::FIRST).submit(ledger.issue(Job::new(0, &reader, 1)), |it| it.read()).unwrap();
        ring.turn().unwrap();
        // SAFETY: a plain call; the result is checked before it is owned.
        let copy = unsafe { libc::dup(fd.0) };
        assert!(copy >= 0);
        // SAFETY: a descriptor that was just made.
        let copy = unsafe { OwnedFd::from_raw_fd(copy) };
        drop(ring);
        ledger.assert_all_dropped_once();
        File::from(writer.try_clone().unwrap()).write_all(b"x").unwrap();
        drop(copy);
    });
}

// ---- threads ----------------------------------------------------------------------------------------------

#[test]
fn the_wrong_thread_changes_nothing_and_the_right_one_goes_on() {
    watched(|| {
        let ledger = Ledger::new();
        let seen = Log::new();
        let log = seen.clone();
        let script = Script::new()
            .on_setup(move |mut submitter| {
                submitter.submit(ledger.issue(0), |_| request::timeout(Duration::from_millis(20)))?;
                Ok(())
            })
            .on_completion(move |completion, data: Tracked<u32>, _| {
                log.push((*data, outcome(&completion)));
                (ControlFlow::Continue, None)
            });
        let mut ring = Bench::with(2, script);
        assert_ne!(ring.turn().unwrap().status, Status::Finished);
        for _ in 0..2 {
            thread::scope(|scope| {
                let ring = &mut ring;
                scope.spawn(move || {
                    let before = ring.stats();
                    assert!(matches!(ring.run(), Err(RingError::WrongThread)));
                    assert!(matches!(ring.turn(), Err(RingError::WrongThread)));
                    assert!(matches!(ring.finish(), Err(RingError::WrongThread)));
                    assert_eq!(ring.stats(), before);
                    // What is submitted here waits for the owner; more of it than the queue takes, too.
                    for number in 1..=5 {
                        ring.submitter(Bench::FIRST)
                            .submit(ledger.issue(number), |_| request::nop())
                            .unwrap();
                    }
                    ring.submitter(Bench::FIRST).post(ledger.issue(6)).unwrap();
                });
            });
            ring.run().unwrap();
            let mut seen = seen.take();
            seen.sort();
            assert_eq!(seen, (0..=6).map(|number| (number, Ok(0))).collect::<Vec<_>>());
        }
        ledger.assert_all_dropped_once();
    });
}

#[test]
fn a_ring_whose_thread_is_gone_is_no_use_and_no_danger() {
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
