//! What the surroundings can do to a ring, apart from the catalogue of faults: sizes, filters, duplicated descriptors,
//! threads.

use std::fs::File;
use std::io::{Read, Write};
use std::num::{NonZeroU32, NonZeroUsize};
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_getaffinity};
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
use nix::unistd::{Pid, gettid};
use rummelplatz::io_uring::{IoUring, opcode, types};
use rummelplatz::{BuildErrorKind, ControlFlow, RawRing, RingError, SqPoller, Status, SubmitError, request};
use rummelplatz_tests::{
    Bench, Job, Ledger, Log, Script, Tracked, addressable, forbid, in_child, in_child_anywhere, in_fork,
    outcome, pipe, restricted, watched,
};

fn shared_pipe() -> (Arc<OwnedFd>, Arc<OwnedFd>) {
    let (reader, writer) = pipe();
    (Arc::new(reader), Arc::new(writer))
}

fn entries(entries: u32) -> NonZeroU32 {
    NonZeroU32::new(entries).unwrap()
}

// ---- building -----------------------------------------------------------------------------------------

/// Wherever the memory ends, that is an error.
#[test]
fn a_ring_for_which_there_is_no_memory_is_an_error() {
    in_child(|| {
        let refused_or_built = (0..64_u64).map(|step| {
            let (mut reader, writer) = std::io::pipe().unwrap();
            in_fork(|| {
                let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
                let pages: u64 = pages.split(' ').next().unwrap().parse().unwrap();
                let limit_to = |bytes: u64| setrlimit(Resource::RLIMIT_AS, bytes, RLIM_INFINITY).unwrap();
                limit_to(pages * 4096);
                // What the allocator has at hand is not what there is.
                for size in (12..20).rev() {
                    let mut taken = Vec::<u8>::new();
                    while taken.try_reserve_exact(1 << size).is_ok() {
                        std::mem::forget(std::mem::take(&mut taken));
                    }
                }
                limit_to(pages * 4096 + step * (1 << 18));
                let error = RawRing::new(entries(32768)).err();
                assert!(
                    error.as_ref().is_none_or(|error| error.kind() == BuildErrorKind::Limit),
                    "{error:?}"
                );
                (&writer).write_all(&[u8::from(error.is_none())]).unwrap();
            });
            let mut is_built = [0];
            reader.read_exact(&mut is_built).unwrap();
            is_built == [1]
        });
        let mut refused_or_built: Vec<_> = refused_or_built.collect();
        refused_or_built.dedup();
        assert_eq!(refused_or_built, [false, true], "the last ones had enough");
    });
}

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

/// What the kernel says about the rings of this process: their thread, and the CPU on which it is to be.
fn pollers() -> Vec<(i32, i32)> {
    let number =
        |info: &str, name| info.lines().find_map(|line| line.strip_prefix(name))?.trim().parse().ok();
    let descriptors = std::fs::read_dir("/proc/self/fdinfo").unwrap();
    let infos = descriptors.filter_map(|it| std::fs::read_to_string(it.ok()?.path()).ok());
    infos.filter_map(|info| Some((number(&info, "SqThread:")?, number(&info, "SqThreadCpu:")?))).collect()
}

#[test]
fn a_ring_has_a_thread_of_the_kernel_where_it_is_told_to() {
    in_child(|| {
        let ring = |cpu| {
            let script = Script::new().on_setup_once(|mut submitter| {
                submitter.submit((), |()| request::nop())?;
                Ok(())
            });
            let builder = Bench::<()>::builder(script, Script::new());
            builder.sqpoll(Duration::from_millis(1), cpu).build()
        };
        let cpus =
            (0..64).filter(|cpu| CpuSet::is_set(&sched_getaffinity(Pid::this()).unwrap(), *cpu).unwrap());
        for cpu in std::iter::once(None).chain(cpus.map(Some)) {
            let mut ring = ring(cpu.map(|cpu| cpu as u32)).unwrap();
            let [(thread, its_cpu)] = pollers()[..] else { panic!("{:?}", pollers()) };
            assert!(thread > 0, "the kernel has one");
            // If a thread may be anywhere, the kernel says where it is.
            assert!(cpu.is_none_or(|cpu| its_cpu == cpu as i32), "{its_cpu}, not {cpu:?}");
            ring.run().unwrap();
        }
        let error = ring(Some(1 << 20)).unwrap_err();
        assert_eq!(error.kind(), BuildErrorKind::NoSuchCpu);
        assert!(error.to_string().contains("no such CPU"), "{error}");
    });
}

#[test]
fn rings_share_a_thread_of_the_kernel() {
    in_child(|| {
        let ring = |poller: &SqPoller| {
            let script = Script::new().on_setup_once(|mut submitter| {
                for _ in 0..100 {
                    submitter.submit((), |()| request::nop())?;
                }
                Ok(())
            });
            let builder = Bench::<()>::builder(script, Script::new()).entries(entries(16));
            builder.sqpoll_with(poller).build().unwrap()
        };
        let cpu = (0..64).find(|cpu| CpuSet::is_set(&sched_getaffinity(Pid::this()).unwrap(), *cpu).unwrap());
        for cpu in [None, cpu] {
            let poller = SqPoller::new(Duration::from_millis(1), cpu.map(|cpu| cpu as u32)).unwrap();
            // Before the thread has begun, the kernel names the one that has made it.
            while pollers().iter().any(|(thread, _)| *thread == gettid().as_raw()) {
                thread::yield_now();
            }
            let [(thread, its_cpu)] = pollers()[..] else { panic!("{:?}", pollers()) };
            assert!(thread > 0 && cpu.is_none_or(|cpu| its_cpu == cpu as i32), "{its_cpu}, not {cpu:?}");
            let rings = [ring(&poller), ring(&poller.clone())];
            let threads = pollers();
            assert_eq!(threads.len(), 3);
            assert!(threads.iter().all(|(it, _)| *it == thread), "{threads:?}");
            // The rings have the thread as long as they need it, in whatever thread they run.
            drop(poller);
            assert_eq!(pollers().len(), 2);
            let [first, second] = rings.map(|mut ring| thread::spawn(move || (ring.run(), ring.stats()).1));
            for stats in [first, second].map(|it| it.join().unwrap()) {
                assert_eq!((stats.in_flight, stats.completions), (0, 100));
            }
            assert_eq!(pollers(), []);
        }
        let error = SqPoller::new(Duration::from_millis(1), Some(1 << 20)).unwrap_err();
        assert_eq!(error.kind(), BuildErrorKind::NoSuchCpu);
    });
}

/// Fails unless each run says that the kernel has refused something.
fn assert_runs_are_refused(ring: &mut Bench<()>, expected: &str) {
    for _ in 0..2 {
        let error = ring.run().unwrap_err();
        assert!(matches!(error, RingError::Api(_)), "{error:?}");
        let text = error.to_string();
        assert!(text.contains(expected), "{text}");
    }
}

/// How many workers this thread may have: bounded ones, and unbounded ones.
fn worker_limits() -> [u32; 2] {
    let mut limits = [0; 2];
    IoUring::new(1).unwrap().submitter().register_iowq_max_workers(&mut limits).unwrap();
    limits
}

#[test]
fn workers_are_limited_when_the_ring_is_first_run_and_not_when_it_is_built() {
    watched(|| {
        let before = worker_limits();
        let ring = || {
            let builder = Bench::<()>::builder(Script::new(), Script::new());
            builder.worker_limits(2, 0).entries(entries(4))
        };
        let mut built = ring().build().unwrap();
        assert_eq!(worker_limits(), before);
        let by_turns = ring().worker_limits(3, 5).build().unwrap();
        let there = thread::spawn(move || {
            let [_, unbounded] = worker_limits();
            built.run().unwrap();
            assert_eq!(worker_limits(), [2, unbounded]);
            let mut by_turns = by_turns;
            by_turns.turn().unwrap();
            let limits = worker_limits();
            // Another run leaves alone what somebody sets afterwards.
            built.run().unwrap();
            (limits, worker_limits())
        });
        assert_eq!(there.join().unwrap(), ([3, 5], [3, 5]));
        // The kernel sets it for all threads that have used the ring.
        assert_eq!(worker_limits(), [3, 5]);
    });
}

#[test]
fn limits_of_workers_that_the_kernel_refuses_are_an_error_and_nothing_has_been_done() {
    watched(|| {
        let raw = restricted(&mut IoUring::builder(), 4, &[opcode::Nop::CODE], &[]);
        let ended = Log::new();
        let log = ended.clone();
        let script =
            Script::new().on_setup(|_| panic!("it was set up")).on_teardown(move |completion, (), _| {
                log.push(outcome(&completion));
                Ok(())
            });
        let builder = Bench::builder(script, Script::new()).worker_limits(1, 1).raw_ring(raw);
        let mut ring = builder.build().unwrap();
        ring.submitter(Bench::FIRST).submit((), |()| request::nop()).unwrap();
        assert_runs_are_refused(&mut ring, "did not limit the workers");
        assert_eq!((ring.stats().in_flight, ended.len()), (1, 0));
        ring.finish().unwrap();
        assert_eq!(ended.take(), [Ok(0)]);
    });
}

/// Where the workers of this thread may run, or those of the thread that looks for entries for it.
fn places_of_workers() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let statuses = tasks.filter_map(|it| std::fs::read_to_string(it.ok()?.path().join("status")).ok());
    let workers = statuses.filter(|it| it.starts_with("Name:\tiou-wrk"));
    let place = |status: String| {
        let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
        Some(list.trim().to_owned())
    };
    workers.filter_map(place).collect()
}

#[test]
fn workers_run_on_the_cpus_that_they_are_given_whoever_has_them() {
    in_child(|| {
        let allowed = sched_getaffinity(Pid::this()).unwrap();
        let cpus: Vec<_> = (0..64).filter(|cpu| CpuSet::is_set(&allowed, *cpu).unwrap()).collect();
        let run = |cpus: &[usize], polled: bool| {
            let script = Script::new().on_setup_once(|mut submitter| {
                submitter.submit((), |()| request::nop().in_worker())?;
                Ok(())
            });
            let builder = Bench::<()>::builder(script, Script::new());
            let builder = builder.worker_cpus(cpus.iter().map(|cpu| *cpu as u32));
            let builder = if polled { builder.sqpoll(Duration::from_millis(1), None) } else { builder };
            let mut ring = builder.build().unwrap();
            // It belongs to the thread that runs it, which has used no ring before. Its workers end with it.
            let there = thread::spawn(move || {
                ring.run().unwrap();
                (places_of_workers(), drop(ring)).0
            });
            there.join().unwrap()
        };
        for cpu in &cpus {
            for polled in [false, true] {
                assert_eq!(run(&[*cpu], polled), [cpu.to_string()], "{polled}");
                // Those of the thread end a little after it.
                let ended = || places_of_workers().is_empty();
                assert!((0..1000).any(|_| ended() || (thread::sleep(Duration::from_millis(5)), false).1));
            }
        }
        if let [first, .., last] = cpus[..] {
            let [place] = &run(&[last, first], false)[..] else { panic!("one request, one worker") };
            assert!(place.starts_with(&first.to_string()) && place.ends_with(&last.to_string()), "{place}");
        } else {
            eprintln!("skipped: with one CPU, workers run there anyway");
        }
    });
}

#[test]
fn a_ring_whose_workers_would_have_no_cpu_is_not_built() {
    watched(|| {
        let build = |cpus: &[u32]| {
            let builder = Bench::<()>::builder(Script::new(), Script::new());
            builder.worker_cpus(cpus.iter().copied()).build()
        };
        for (cpus, text) in [
            (&[][..], "it names no CPU"),
            (&[0, 60_000], "CPU 60000 is not online"),
            (&[u32::MAX], "CPU 4294967295 is not online"),
        ] {
            let error = build(cpus).unwrap_err();
            assert_eq!(error.kind(), BuildErrorKind::NoSuchCpu);
            let said = error.to_string();
            assert!(said.starts_with("`worker_cpus` can't be had: ") && said.contains(text), "{said}");
        }
    });
}

#[test]
fn places_of_workers_that_the_kernel_refuses_are_an_error_and_nothing_has_been_done() {
    watched(|| {
        let raw = restricted(&mut IoUring::builder(), 4, &[opcode::Nop::CODE], &[]);
        let script = Script::new().on_setup(|_| panic!("it was set up"));
        let builder = Bench::builder(script, Script::new()).worker_cpus([0]).raw_ring(raw);
        let mut ring = builder.build().unwrap();
        ring.submitter(Bench::FIRST).submit((), |()| request::nop()).unwrap();
        assert_runs_are_refused(&mut ring, "did not place the workers on the CPUs {0}");
        assert_eq!(ring.stats().in_flight, 1);
        ring.finish().unwrap();
    });
}

/// What the kernel says of the rings of this process, by this name.
fn said_of_rings(name: &str) -> Vec<String> {
    let descriptors = std::fs::read_dir("/proc/self/fdinfo").unwrap();
    let infos = descriptors.filter_map(|it| std::fs::read_to_string(it.ok()?.path()).ok());
    let said = infos
        .filter_map(|info| Some(info.lines().find_map(|line| line.strip_prefix(name))?.trim().to_owned()));
    said.collect()
}

/// Whether the kernel can look at network devices before it waits. If not, this says "skipped".
fn busy_polls() -> bool {
    let registered = IoUring::new(1).unwrap().submitter().register_napi(&mut types::Napi::new());
    registered.inspect_err(|error| eprintln!("skipped: no busy polling: {error}")).is_ok()
}

#[test]
fn a_ring_looks_at_devices_before_it_waits_if_it_is_told_to() {
    in_child(|| {
        if !busy_polls() {
            return;
        }
        let ring = |time, prefer, sqpoll: bool, raw| {
            let script = Script::new().on_setup_once(|mut submitter| {
                submitter.submit((), |()| request::timeout(Duration::from_millis(5)))?;
                Ok(())
            });
            let builder = Bench::<()>::builder(script, Script::new()).busy_poll(time, prefer);
            let builder = if sqpoll { builder.sqpoll(Duration::from_millis(1), None) } else { builder };
            let builder = if let Some(raw) = raw { builder.raw_ring(raw) } else { builder };
            builder.build().unwrap()
        };
        for (time, nanoseconds) in [
            (Duration::from_micros(50), 50_000..=50_000),
            (Duration::ZERO, 1000..=1000),
            // Newer kernels look for ten milliseconds at most.
            (Duration::MAX, 10_000_000..=u64::from(u32::MAX) * 1000),
        ] {
            for (prefer, sqpoll, has_raw) in [(true, false, false), (false, false, true), (true, true, false)]
            {
                let raw = has_raw.then(|| RawRing::new(entries(4)).unwrap());
                let (ring, nanoseconds) = (ring(time, prefer, sqpoll, raw), nanoseconds.clone());
                // It may be built in one thread and run in another.
                let there = thread::spawn(move || {
                    let mut ring = ring;
                    ring.run().unwrap();
                    assert_eq!(said_of_rings("NAPI:"), ["enabled"]);
                    let [time] = &said_of_rings("napi_busy_poll_dt:")[..] else {
                        panic!("there is one ring")
                    };
                    assert!(nanoseconds.contains(&time.parse().unwrap()), "{time}");
                    assert_eq!(said_of_rings("napi_prefer_busy_poll:"), [prefer.to_string()]);
                });
                there.join().unwrap();
            }
        }
        let without = Bench::<()>::builder(Script::new(), Script::new()).build().unwrap();
        assert_eq!(said_of_rings("NAPI:"), ["disabled"]);
        drop(without);
    });
}

#[test]
fn a_ring_that_may_not_look_at_devices_is_not_built() {
    watched(|| {
        if !busy_polls() {
            return;
        }
        let build = |raw| {
            let builder = Bench::<()>::builder(Script::new(), Script::new());
            builder.busy_poll(Duration::from_micros(50), true).raw_ring(raw).build().unwrap_err()
        };
        // A ring that polls for what devices have done refuses this, with the answer of a kernel that is too old.
        let iopoll = IoUring::builder().setup_iopoll().build(4).unwrap();
        // SAFETY: nothing is queued or in flight in it, and nobody else has it.
        let error = build(unsafe { RawRing::from_io_uring(iopoll) }.unwrap());
        assert_eq!(error.kind(), BuildErrorKind::Unsupported);
        let text = error.to_string();
        assert!(text.starts_with("`busy_poll` can't be had: this kernel is too old"), "{text}");
        let raw = restricted(&mut IoUring::builder(), 4, &[opcode::Nop::CODE], &[]);
        let error = build(raw);
        assert_eq!(error.kind(), BuildErrorKind::Forbidden);
        assert!(error.to_string().contains("`busy_poll` can't be had: Permission denied"), "{error}");
    });
}

/// Whether the kernel can wait for several completions, but not for long. If not, this says "skipped".
fn min_waits() -> bool {
    let can = IoUring::new(1).unwrap().params().is_feature_min_timeout();
    if !can {
        eprintln!("skipped: no min_wait before 6.12");
    }
    can
}

/// Reads this many bytes with a ring that waits like this, one in each request; one comes each few milliseconds. Returns
/// how long that took, and how often the kernel was entered.
fn min_waited(wait: (Duration, u32), bytes: u64, pause: Duration, how: &str) -> (Duration, u64) {
    let (reader, writer) = shared_pipe();
    let script = Script::new().on_setup_once(move |mut submitter| {
        for number in 0..bytes {
            submitter.submit(Job::new(number, &reader, 1), |job| job.read())?;
        }
        Ok(())
    });
    let builder = Bench::builder(script, Script::new()).min_wait(wait.0, entries(wait.1));
    let builder = match how {
        "sqpoll" => builder.sqpoll(Duration::from_millis(1), None),
        _ => builder.defer_taskrun(how == "deferred"),
    };
    let mut ring = builder.build().unwrap();
    let began = Instant::now();
    let other = thread::spawn(move || {
        let mut writer = File::from(writer.try_clone().unwrap());
        for _ in 0..bytes {
            thread::sleep(pause);
            writer.write_all(b"x").unwrap();
        }
    });
    ring.run().unwrap();
    other.join().unwrap();
    (began.elapsed(), ring.stats().enters)
}

#[test]
fn a_ring_waits_for_several_completions_for_as_long_as_it_is_told() {
    watched(|| {
        if !min_waits() {
            return;
        }
        let long = Duration::from_secs(8);
        for how in ["deferred", "at once", "sqpoll"] {
            let (elapsed, enters) = min_waited((long, 6), 6, Duration::from_millis(4), how);
            assert!(elapsed < long, "{how}: it ends with the last of them, not with the time: {elapsed:?}");
            assert!(enters < 6, "{how}: they come together: {enters}");
            let short = Duration::from_millis(40);
            let (elapsed, enters) = min_waited((short, 6), 2, Duration::from_millis(1), how);
            assert!(elapsed >= short, "{how}: others may still come: {elapsed:?}");
            assert!(enters < 4, "{how}: {enters}");
            // When the time is over, it sleeps until something comes, and does not look again and again.
            let (_, enters) = min_waited((Duration::ZERO, 6), 1, Duration::from_millis(100), how);
            assert!(enters < 4, "{how}: {enters}");
        }
    });
}

/// Otherwise, deadlines would be late twice: when their time is up, and when their request has ended.
#[test]
fn a_timeout_ends_the_wait_for_several_completions() {
    watched(|| {
        if !min_waits() {
            return;
        }
        for defer in [true, false] {
            let script = Script::new().on_setup_once(|mut submitter| {
                submitter.submit((), |()| request::timeout(Duration::from_millis(10)))?;
                Ok(())
            });
            let long = Duration::from_secs(20);
            let builder = Bench::<()>::builder(script, Script::new()).min_wait(long, entries(8));
            let mut ring = builder.defer_taskrun(defer).build().unwrap();
            let began = Instant::now();
            ring.run().unwrap();
            assert!(began.elapsed() < long / 2, "{:?}", began.elapsed());
        }
    });
}

#[test]
fn a_ring_that_waits_for_several_completions_neither_turns_nor_ends_later() {
    watched(|| {
        if !min_waits() {
            return;
        }
        let long = Duration::from_secs(60);
        let (reader, _writer) = shared_pipe();
        let script = Script::new().on_setup_once(move |mut submitter| {
            submitter.submit(Job::new(0, &reader, 1), |job| job.read())?;
            submitter.submit(Job::new(1, &reader, 1), |_| request::nop())?;
            Ok(())
        });
        let builder = Bench::builder(script, Script::new()).min_wait(long, entries(8));
        let mut ring = builder.build().unwrap();
        let began = Instant::now();
        assert_eq!(ring.turn().unwrap().status, Status::Progressed);
        assert_eq!(ring.stats().in_flight, 1);
        ring.finish().unwrap();
        assert_eq!(ring.stats().in_flight, 0);
        assert!(began.elapsed() < long / 2);
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

// ---- descriptors ----------------------------------------------------------------------------------------------

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
                    // What is submitted here waits for the owner, even if it is more than the queue takes.
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
fn the_limits_and_sizes_that_were_not_chosen_are_those_that_are_documented() {
    watched(|| {
        let raw = RawRing::new(entries(8)).unwrap();
        assert_eq!(format!("{raw:?}"), "RawRing { submission_entries: 8, completion_entries: 32 }");
        let mut ring = Bench::new(raw, NonZeroUsize::new(2), Script::new(), Script::new());
        let mut submitter = ring.submitter(Bench::FIRST);
        for _ in 0..10 {
            submitter.submit((), |()| request::nop()).unwrap();
        }
        assert_eq!(submitter.submit((), |()| request::nop()).unwrap_err(), SubmitError::Full);
        ring.run().unwrap();
    });
}

/// A kernel thread looks for entries. It may be asleep, or slower than this thread.
#[test]
fn a_full_queue_of_a_ring_that_is_polled_is_waited_for() {
    watched(|| {
        let one = NonZeroUsize::new(1).unwrap();
        let count = Log::new();
        let log = count.clone();
        let script = Script::new().on_completion(move |_, (), _| {
            log.push(());
            (ControlFlow::Continue, None)
        });
        let builder = Bench::builder(script, Script::new()).entries(entries(4)).backlog_limit(one);
        let mut ring = builder.sqpoll(Duration::from_millis(1), None).build().unwrap();
        // Before that, the kernel takes in nothing.
        ring.turn().unwrap();
        for _ in 0..4 {
            thread::sleep(Duration::from_millis(20));
            let mut submitter = ring.submitter(Bench::FIRST);
            for _ in 0..200 {
                submitter.submit((), |()| request::nop()).unwrap();
            }
            ring.turn().unwrap();
        }
        ring.run().unwrap();
        assert_eq!(count.len(), 800);
    });
}
