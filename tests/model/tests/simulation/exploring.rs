//! Seeds, logs, limits, hooks, and what a simulation reports about itself.

use std::process::Command;

use super::*;

#[test]
fn there_is_one_ring_at_a_time() {
    let simulation = calm();
    let first = simulation.raw_ring(size(8)).unwrap();
    assert_eq!(first.as_raw_fd(), -1);
    assert_eq!(simulation.raw_ring(size(8)).unwrap_err().raw_os_error(), Some(libc::EBUSY));
    drop(first);
    assert_eq!(simulation.raw_ring(size(32_769)).unwrap_err().raw_os_error(), Some(libc::EINVAL));
    simulation.raw_ring(size(8)).unwrap();
}

#[test]
fn what_is_only_about_how_the_kernel_works_makes_no_difference() {
    let ring = |options: bool| {
        let simulation = calm();
        let script = Script::new().on_setup_once(|mut submitter| {
            for milliseconds in 1..=3 {
                submitter.submit((), |()| request::timeout(Duration::from_millis(milliseconds)))?;
            }
            submitter.submit((), |()| request::nop().in_worker())?;
            Ok(())
        });
        let builder =
            Bench::<()>::builder(script, Script::new()).raw_ring(simulation.raw_ring(size(8)).unwrap());
        let builder = match options {
            true => builder
                .worker_limits(1, 1)
                .worker_cpus([0])
                .busy_poll(Duration::from_micros(50), true)
                .min_wait(Duration::from_secs(1), size(8)),
            false => builder,
        };
        let mut ring = builder.build().unwrap();
        ring.run().unwrap();
        (ring.stats().enters, format!("{:?}", simulation.take_log()))
    };
    assert_eq!(ring(true), ring(false));
}

#[test]
fn hooks_that_panic_or_look_into_the_kernel_end_the_ring_and_not_the_process() {
    let ledger = Ledger::new();
    let simulation = calm();
    let kernel = simulation.clone();
    simulation.on_request(move |_| if kernel.has(1) { Answer::Wait } else { Answer::Perform });
    let said = panic_of(|| waiting(&simulation, ledger, true));
    assert!(said.contains("from within `on_request`"), "{said}");
    simulation.on_idle(|| panic!("the other side panics"));
    assert_eq!(panic_of(|| waiting(&simulation, ledger, true)), "the other side panics");
    simulation.on_request(|asked| match asked.name() {
        "RECV" => Answer::Finish(2),
        _ => Answer::Perform,
    });
    let said = panic_of(|| waiting(&simulation, ledger, true));
    assert!(said.contains("can't move 2 bytes"), "{said}");
    simulation.limit_enters(1);
    ledger.assert_none_dropped_twice();
}

#[test]
fn the_same_seed_is_the_same_run() {
    let run = |seed| {
        let simulation = simulation(seed, Faults { lost: 0.0, ..Faults::many() });
        simulation.take_log();
        waiting(&simulation, Ledger::new(), true).ok();
        let events = simulation.take_log().into_iter().map(|event| match event {
            Event::TakenIn(asked) => format!("{} {} {}", asked.name(), asked.length, asked.user_data),
            other => format!("{other:?}"),
        });
        events.collect::<Vec<_>>()
    };
    assert!((0..20).all(|seed| run(seed) == run(seed) && !run(seed).is_empty()));
}

#[test]
fn another_thread_wakes_a_ring_that_nothing_else_can() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let simulation = calm();
    simulation.set_patience(Duration::from_secs(60));
    let writer = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(20));
        theirs.write_all(b"x").unwrap();
        theirs
    });
    let asking = Asking::<(UnixStream, [u8; 1])> {
        data: (ours, [0]),
        request: |(ours, buffer)| request::recv(ours, buffer),
    };
    assert_eq!(ask_on(simulation.raw_ring(size(8)).unwrap(), asking).0, Ok(1));
    writer.join().unwrap();
}

// ---- exploring ----------------------------------------------------------------------------------------

/// Set in a process that is to call `explore`.
const EXPLORES: &str = "SIMULATION_TEST_EXPLORES";

/// Runs what the test `name` passes to [`is_process`] in a process of its own, with `RUMMEL_SEED` set to this, or not
/// at all. Returns whether it passed, and what it wrote to standard output and standard error.
fn in_process(name: &str, seed: Option<&str>) -> (bool, String, String) {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args([name, "--exact", "--nocapture", "--test-threads=1"]);
    child.env(EXPLORES, "").env("RUST_BACKTRACE", "0").env_remove("RUMMEL_SEED");
    if let Some(seed) = seed {
        child.env("RUMMEL_SEED", seed);
    }
    let output = child.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

/// Runs `explore` if this is such a process. Returns whether it is.
fn is_process(explore: impl FnOnce()) -> bool {
    let is_one = std::env::var_os(EXPLORES).is_some();
    if is_one {
        explore();
    }
    is_one
}

/// A test that fails on a short read.
fn fails_by_a_short_read(simulation: Simulation) {
    println!("seed {} begins", simulation.seed());
    simulation.set_faults(Faults { short: 0.1, ..Faults::none() });
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    theirs.write_all(b"12345678").unwrap();
    let asking = Asking::<(UnixStream, UnixStream, [u8; 8])> {
        data: (ours, theirs, [0; 8]),
        request: |(ours, _, buffer)| request::recv(ours, buffer),
    };
    let raw = simulation.raw_ring(size(8)).unwrap();
    assert_eq!(ask_on(raw, asking).0, Ok(8), "what was received");
}

/// Which seeds have begun.
fn begun(output: &str) -> Vec<u64> {
    let words = output.split_whitespace().collect::<Vec<_>>();
    let begins = words.windows(3).filter(|it| it[0].ends_with("seed") && it[2] == "begins");
    begins.map(|it| it[1].parse().unwrap()).collect()
}

#[test]
fn the_first_seed_that_fails_is_reported_and_fails_again_in_the_same_way() {
    if is_process(|| rummelplatz::sim::explore(0..1000, fails_by_a_short_read)) {
        return;
    }
    let name = "exploring::the_first_seed_that_fails_is_reported_and_fails_again_in_the_same_way";
    let (passed, output, errors) = in_process(name, None);
    let seeds = begun(&output);
    let failed = *seeds.last().unwrap();
    // All seeds in order, up to that one: with these odds it is not the first, and by far not the last.
    assert!(!passed && seeds.iter().copied().eq(0..=failed) && (1..500).contains(&failed), "{output}");
    let report = format!("the simulation of seed {failed} fails: RUMMEL_SEED={failed} runs it alone");
    let said = |errors: &str| {
        assert_eq!(errors.matches(&report).count(), 1, "{errors}");
        assert_eq!(errors.matches(" fails: ").count(), 1, "{errors}");
        let left = errors.lines().find(|line| line.trim_start().starts_with("left: ")).unwrap();
        left.to_owned()
    };
    let first = said(&errors);
    assert!(!errors.contains("Entered"), "no log of a thousand runs");

    // Alone, the seed fails in the same way, and its log tells how that came about.
    let (passed, output, errors) = in_process(name, Some(&format!(" {failed}\n")));
    assert!(!passed);
    assert_eq!((begun(&output), said(&errors)), (vec![failed], first));
    // Both name it in the same way.
    let (_, rest) = errors.split_once("8 bytes, user_data ").unwrap();
    let (user_data, _) = rest.split_once(')').unwrap();
    assert!(user_data.starts_with("0x"), "{errors}");
    let posted = format!("Posted(user_data {user_data}, result ");
    for line in ["Entered { shown: 1 }", "TakenIn(RECV(fd ", &posted] {
        assert!(errors.contains(line), "{errors}");
    }
    // A seed outside the range may be run, too; and a seed that does not fail passes.
    let (passed, output, errors) = in_process(name, Some("0"));
    assert!(passed && begun(&output) == [0] && !errors.contains("Entered"), "{output}\n{errors}");
    let (_, output, _) = in_process(name, Some("5000"));
    assert_eq!(begun(&output), [5000]);
    let (passed, output, errors) = in_process(name, Some("seven"));
    assert!(!passed && begun(&output).is_empty());
    assert!(errors.contains("RUMMEL_SEED is to be a number, and is \"seven\""), "{errors}");
}

#[test]
fn all_seeds_are_tried_when_none_fails() {
    let tries = || {
        let mut seeds = Vec::new();
        rummelplatz::sim::explore([3, 1, 4, 1, 5], |simulation| seeds.push(simulation.seed()));
        assert_eq!(seeds, [3, 1, 4, 1, 5]);
        rummelplatz::sim::explore(0..1000, |simulation| seeds.push(simulation.seed()));
        assert!(seeds[5..].iter().copied().eq(0..1000));
        // Each is a kernel of its own.
        let mut rings = Vec::new();
        let ring = |simulation: Simulation| rings.push(simulation.raw_ring(size(1)).unwrap());
        rummelplatz::sim::explore(0..3, ring);
    };
    if !is_process(tries) {
        let (passed, output, errors) = in_process("exploring::all_seeds_are_tried_when_none_fails", None);
        assert!(passed && !errors.contains("fails"), "{output}\n{errors}");
    }
}

#[test]
fn what_the_test_has_taken_of_the_log_is_not_printed() {
    fn fails(simulation: Simulation) {
        simulation.set_faults(Faults::none());
        let asking = Asking::<()> { data: (), request: |()| request::nop() };
        ask_on(simulation.raw_ring(size(8)).unwrap(), asking).0.unwrap();
        assert_eq!(simulation.take_log().len(), 3);
        panic!("at the end");
    }
    if is_process(|| rummelplatz::sim::explore(0..1000, fails)) {
        return;
    }
    let name = "exploring::what_the_test_has_taken_of_the_log_is_not_printed";
    let (_, _, errors) = in_process(name, Some("0"));
    assert!(errors.contains("at the end") && !errors.contains("Entered"), "{errors}");
}

#[test]
fn a_failure_is_told_of_though_the_end_of_its_ring_would_be_another() {
    fn fails(simulation: Simulation) {
        let mut ring = on(&simulation, Script::new());
        ring.submitter(Bench::FIRST).submit((), |()| request::timeout(Duration::from_secs(1))).unwrap();
        ring.turn().unwrap();
        // The ring has a request in flight, which it must cancel now.
        simulation.limit_enters(1);
        panic!("the first failure");
    }
    if is_process(|| rummelplatz::sim::explore(0..1000, fails)) {
        return;
    }
    let name = "exploring::a_failure_is_told_of_though_the_end_of_its_ring_would_be_another";
    let (passed, output, errors) = in_process(name, None);
    assert!(!passed && output.contains("test result: FAILED"), "{output}\n{errors}");
    assert!(errors.contains("the first failure") && errors.contains("the simulation of seed 0 fails"));
}

// ---- limits -------------------------------------------------------------------------------------------

#[test]
fn a_ring_that_enters_more_often_than_it_may_panics_and_is_abandoned() {
    let simulation = calm();
    simulation.limit_enters(1);
    let ledger = Ledger::new();
    let turns = Log::new();
    let told = turns.clone();
    // Each completion leads to one more enter.
    let data = ledger.issue(());
    let script = Script::new()
        .on_setup_once(move |mut submitter| {
            submitter.submit(data, |_| request::nop())?;
            Ok(())
        })
        .on_completion(move |completion, data, mut submitter| {
            told.push(outcome(&completion));
            submitter.submit(data, |_| request::nop()).unwrap();
            (GO_ON, None)
        });
    let mut ring = on(&simulation, script);
    let said = panic_of(|| ring.run());
    assert_eq!(said, "the ring has entered the kernel 2 times: see `limit_enters`");
    assert_eq!(turns.take(), [Ok(0)]);
    // The teardown after the panic is told that no more enters are allowed.
    let stuck = ring.run().unwrap_err();
    let stuck = stuck.abandoned().unwrap();
    let names: Vec<_> = stuck.requests.iter().map(|it| it.opcode_name()).collect();
    assert_eq!((names, stuck.errno), (vec!["NOP"], Some(libc::EDEADLK)));
    assert_eq!(ledger.alive(), 1, "leaked, not freed");
    assert_eq!(simulation.figures().enters, 3);
    drop(ring);
    // A ring that keeps to the limit is not affected.
    simulation.limit_enters(1);
    let asking = Asking::<()> { data: (), request: |()| request::nop() };
    assert_eq!(ask_on(simulation.raw_ring(size(8)).unwrap(), asking).0, Ok(0));
    assert_eq!(simulation.figures().enters, 1);
}

#[test]
fn the_other_side_can_not_promise_for_ever() {
    let simulation = calm();
    simulation.on_idle(|| true);
    let said = panic_of(|| waiting(&simulation, Ledger::new(), false));
    assert!(
        said.starts_with("the other side says that it does something, but nothing comes of it"),
        "{said}"
    );
}

// ---- logs and figures -----------------------------------------------------------------------------------

#[test]
fn the_log_begins_when_it_is_first_taken_and_outlives_its_ring() {
    let simulation = calm();
    let asking = || Asking::<()> { data: (), request: |()| request::nop() };
    let run = || ask_on(simulation.raw_ring(size(8)).unwrap(), asking()).0;
    run().unwrap();
    assert_eq!(simulation.take_log(), [], "what was before is not in it");
    run().unwrap();
    run().unwrap();
    let log = simulation.take_log();
    // The rings do exactly the same.
    assert_eq!((log.len(), &log[..3]), (6, &log[3..]));
    assert_eq!(log[0], Event::Entered { shown: 1 });
    let Event::TakenIn(asked) = &log[1] else { panic!("{log:?}") };
    assert_eq!((asked.name(), asked.descriptor, asked.length), ("NOP", -1, 0));
    assert_eq!(log[2], Event::Posted { user_data: asked.user_data, result: 0, flags: 0 });
    assert_eq!(simulation.take_log(), []);
}

#[test]
fn figures_count_what_the_log_tells() {
    let simulation = calm();
    assert_eq!(simulation.figures(), Default::default());
    simulation.take_log();
    waiting(&simulation, Ledger::new(), true).unwrap();
    // A read and a timer; the read is cancelled at the exit.
    let figures = simulation.figures();
    let log = simulation.take_log();
    let count = |is: fn(&Event) -> bool| log.iter().filter(|event| is(event)).count() as u64;
    assert_eq!((figures.taken_in, figures.cancels, figures.ended, figures.posted), (3, 1, 2, 3));
    assert_eq!(figures.enters, count(|event| matches!(event, Event::Entered { .. })));
    assert_eq!(figures.taken_in, count(|event| matches!(event, Event::TakenIn(_))));
    assert_eq!(figures.posted, count(|event| matches!(event, Event::Posted { .. })));
    assert_eq!(figures.most_unanswered, 1);
    // The figures are those of the last ring, until there is another.
    let raw = simulation.raw_ring(size(8)).unwrap();
    assert_eq!(simulation.figures(), Default::default());
    drop(raw);
}

#[test]
fn time_has_an_end_and_stays_there() {
    for faults in [Faults::none(), Faults { late: 1.0, delay: 1.0, running: 1.0, ..Faults::none() }] {
        let simulation = simulation(1, faults);
        let script = Script::new().on_completion(|_, _: (UnixStream, UnixStream, File), _| (GO_ON, None));
        let mut ring = on(&simulation, script);
        simulation.pass(Duration::MAX);
        assert_eq!(simulation.now(), Duration::MAX);
        let kernel = simulation.clone();
        simulation.on_request(move |_| {
            // In a hook, time ends a little earlier.
            assert_eq!(kernel.now(), Duration::from_nanos(u64::MAX));
            Answer::Perform
        });
        for _ in 0..3 {
            let data = || {
                let (ours, mut theirs) = UnixStream::pair().unwrap();
                theirs.write_all(b"x").unwrap();
                (ours, theirs, temporary_file(b""))
            };
            let mut submitter = ring.submitter(Bench::FIRST);
            submitter.submit(data(), |_| request::timeout(Duration::MAX)).unwrap();
            submitter.submit(data(), |(.., file)| request::fsync(file)).unwrap();
            submitter.submit(data(), |(ours, ..)| request::poll(ours, Events::READABLE)).unwrap();
            submitter.submit(data(), |_| request::nop().deadline(Duration::from_secs(1))).unwrap();
            let mut chain = submitter.chain();
            chain.link(data(), |_| request::nop().deadline(Duration::from_secs(1))).unwrap();
            chain.submit(data(), |_| request::nop()).unwrap();
            ring.run().unwrap();
        }
    }
}

#[test]
fn time_passes_though_a_poll_that_has_told_something_is_held_up() {
    let simulation = calm();
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    theirs.write_all(b"x").unwrap();
    let turned = Turned::of_stream(&simulation, ours, |ours| request::poll_multi(ours, Events::READABLE));
    assert_eq!(turned.told.take(), [(Ok(1), true)]);
    simulation.on_request(|_| Answer::Wait);
    let before = simulation.now();
    simulation.pass(Duration::from_secs(100_000_000));
    assert_eq!((simulation.now() - before).as_secs(), 100_000_000);
}

#[test]
fn a_simulation_says_what_the_kernel_has() {
    let simulation = calm();
    assert_eq!((simulation.in_kernel(), simulation.now()), (0, Duration::ZERO));
    let (ours, theirs) = unix_pair();
    let job = Job::new(0, &ours, 8);
    let (place, end) = (job.buffer.as_ptr(), job.buffer.as_ptr_range().end);
    let mut turned = Turned::of(&simulation, (job, theirs), |(job, _)| job.recv());
    let name = turned.key.user_data();
    assert!(simulation.has(name) && !simulation.has(name + 1));
    assert!(simulation.uses(place) && simulation.uses(place.wrapping_add(7)) && !simulation.uses(end));
    assert_eq!(simulation.in_kernel(), 1);
    turned.cancel();
    assert_eq!(turned.rest(), [(Err(libc::ECANCELED), false)]);
    assert!(!simulation.has(name) && !simulation.uses(place) && simulation.in_kernel() == 0);
    drop(turned);
    assert_eq!(simulation.now(), Duration::ZERO, "there is no ring");
}

#[test]
fn what_is_posted_by_another_ring_is_told_to_whom_it_names() {
    let simulation = calm();
    let mut turned = Turned::of(&simulation, (), |()| request::timeout(Duration::from_secs(1000)));
    let name = turned.key.user_data();
    // SAFETY: they name nothing that is in flight.
    unsafe { simulation.post(name + (1 << 40), 7, 0) };
    // SAFETY: as above.
    unsafe { simulation.post(u64::MAX, 7, F_MORE) };
    turned.ring.turn().unwrap();
    assert_eq!((turned.told.len(), turned.ring.stats().foreign), (0, 2));
    turned.cancel();
    turned.rest();
    // SAFETY: as above.
    unsafe { simulation.post(name, 7, 0) };
    turned.ring.turn().unwrap();
    assert_eq!((turned.told.len(), turned.ring.stats().foreign), (0, 3));
}

/// A run that can go in many ways, as its log tells it, except for addresses and numbers of descriptors.
fn tale(simulation: &Simulation) -> Vec<String> {
    simulation.set_faults(Faults::many());
    // At its end the ring waits for what nobody sends.
    simulation.set_patience(Duration::ZERO);
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    theirs.write_all(&[7; 100]).unwrap();
    let mut left = 5;
    simulation.on_idle(move || {
        left -= 1;
        left >= 0 && theirs.write_all(&[7; 10]).is_ok()
    });
    fn receive(data: &mut (UnixStream, [u8; 16])) -> Request<'_> {
        request::recv(&data.0, &mut data.1)
    }
    let script = Script::new()
        .on_setup_once(move |mut submitter| {
            for _ in 0..3 {
                submitter.submit((ours.try_clone()?, [0; 16]), receive)?;
                submitter
                    .submit((ours.try_clone()?, [0; 16]), |_| request::timeout(Duration::from_millis(1)))?;
            }
            Ok(())
        })
        .on_completion(|completion, data, mut submitter| {
            if outcome(&completion).is_ok_and(|moved| moved > 0) {
                submitter.submit(data, receive).unwrap();
            }
            (GO_ON, None)
        });
    on(simulation, script).run().ok();
    let told = simulation.take_log().into_iter().map(|event| match event {
        Event::TakenIn(asked) => format!("{} {} {}", asked.name(), asked.length, asked.user_data),
        other => format!("{other:?}"),
    });
    told.collect()
}

#[test]
fn a_ring_after_another_begins_with_the_same_seed_and_other_seeds_are_other_runs() {
    let twice = |seed| {
        let simulation = simulation(seed, Faults::none());
        simulation.take_log();
        let first = tale(&simulation);
        assert_eq!(first, tale(&simulation));
        first
    };
    let tales: std::collections::HashSet<_> = (0..20).map(twice).collect();
    assert_eq!(tales.len(), 20);
}

#[test]
fn control_messages_are_memory_of_their_request_and_what_is_made_up_comes_without() {
    let simulation = calm();
    let area: &'static mut [u64; 8] = Box::leak(Box::new([0; 8]));
    let places = area.as_ptr_range();
    // SAFETY: it is a structure of the system's, made of numbers and pointers.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    (header.msg_control, header.msg_controllen) = (area.as_mut_ptr().cast(), size_of_val(area));
    let header: *mut libc::msghdr = Box::leak(Box::new(header));
    let (ours, _theirs) = unix_pair();
    let mut ring = on(&simulation, Script::new());
    let entry = opcode::RecvMsg::new(types::Fd(ours.as_raw_fd()), header).build();
    simulation.on_request(|_| Answer::Wait);
    // SAFETY: what the entry points to lives for ever.
    unsafe { ring.submitter(Bench::FIRST).push(entry, ours) }.unwrap();
    ring.turn().unwrap();
    assert!(simulation.uses(places.start) && !simulation.uses(places.end));
    simulation.on_request(|asked| match asked.name() {
        "RECVMSG" => Answer::Bytes(Vec::new()),
        _ => Answer::Perform,
    });
    ring.run().unwrap();
    assert!(!simulation.uses(places.start));
    // SAFETY: it lives for ever, and its request is over.
    assert_eq!(unsafe { (*header).msg_controllen }, 0);
}
