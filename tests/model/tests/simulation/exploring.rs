//! Seeds, logs, limits, hooks, and what a simulation says of itself.

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
