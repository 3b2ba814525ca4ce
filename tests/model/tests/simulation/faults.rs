//! What goes wrong, each fault by itself.

use super::*;

/// Reads a message of eight bytes over a stream, under the kernels of a hundred seeds. How many bytes came in
/// the first completion, or what error.
fn first_results(faults: Faults) -> Vec<Outcome> {
    let run = |seed| {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"12345678").unwrap();
        let asking = Asking::<(UnixStream, UnixStream, [u8; 8])> {
            data: (ours, theirs, [0; 8]),
            request: |(ours, _, buffer)| request::recv(ours, buffer),
        };
        ask_on(simulation(seed, faults).raw_ring(size(8)).unwrap(), asking).0
    };
    (0..100).map(run).collect()
}

#[test]
fn transfers_are_short() {
    let results = first_results(Faults { short: 0.5, ..Faults::none() });
    let short = results.iter().filter(|it| matches!(it, Ok(1..8))).count();
    let whole = results.iter().filter(|it| **it == Ok(8)).count();
    assert!(short > 20 && whole > 20 && short + whole == 100, "{results:?}");
}

#[test]
fn connections_are_reset() {
    let results = first_results(Faults { reset: 0.5, ..Faults::none() });
    let reset = results.iter().filter(|it| **it == Err(libc::ECONNRESET)).count();
    assert!((20..80).contains(&reset), "{results:?}");
}

#[test]
fn requests_end_that_nobody_has_cancelled() {
    let results = first_results(Faults { cancelled: 0.6, ..Faults::none() });
    for error in [libc::ECANCELED, libc::EINTR] {
        assert!(results.contains(&Err(error)), "{results:?}");
    }
}

/// In which order requests end that can all do so at once, with the time that they have taken.
fn order(seed: u64, faults: Faults) -> Vec<(u64, Duration)> {
    let simulation = simulation(seed, faults);
    let began = Arc::new(Mutex::new(Duration::ZERO));
    let log = Log::new();
    let (seen, kernel, start) = (log.clone(), simulation.clone(), Arc::clone(&began));
    let mut ring = on(
        &simulation,
        Script::<(u64, UnixStream, UnixStream, [u8; 1])>::new()
            .on_setup(move |mut submitter| {
                *start.lock().unwrap() = kernel.now();
                for number in 0..6 {
                    let (ours, mut theirs) = UnixStream::pair()?;
                    theirs.write_all(b"x")?;
                    let data = (number, ours, theirs, [0]);
                    submitter.submit(data, |(_, ours, _, buffer)| request::recv(ours, buffer))?;
                }
                Ok(())
            })
            .on_completion({
                let kernel = simulation.clone();
                move |completion, (number, ..), _| {
                    assert_eq!(outcome(&completion), Ok(1));
                    seen.push((number, kernel.now()));
                    (GO_ON, None)
                }
            }),
    );
    ring.run().unwrap();
    let began = *began.lock().unwrap();
    log.take().into_iter().map(|(number, at)| (number, at - began)).collect()
}

#[test]
fn completions_are_held_back_and_requests_begin_late() {
    let soon = Duration::from_micros(100);
    let in_order = |order: &[(u64, Duration)]| order.iter().map(|(number, _)| *number).eq(0..6);
    let calm = order(1, Faults::none());
    assert!(in_order(&calm) && calm.iter().all(|(_, at)| *at < soon), "{calm:?}");
    for faults in [Faults { delay: 1.0, ..Faults::none() }, Faults { late: 1.0, ..Faults::none() }] {
        let orders: Vec<_> = (0..9).map(|seed| order(seed, faults)).collect();
        assert!(orders.iter().any(|it| !in_order(it)), "{orders:?}");
        assert!(orders.iter().all(|it| it.last().is_some_and(|(_, at)| *at > soon)), "{orders:?}");
        assert!(orders.iter().flatten().all(|(_, at)| *at < Duration::from_millis(10)), "{orders:?}");
    }
}

#[test]
fn what_can_go_on_does_so_in_any_order() {
    let numbers = |reorder| {
        let simulation = simulation(3, Faults { reorder, ..Faults::none() });
        let pairs: Vec<_> = (0..6).map(|_| UnixStream::pair().unwrap()).collect();
        let (ours, mut theirs): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
        simulation.on_idle(move || theirs.drain(..).map(|mut it| it.write_all(b"x")).count() > 0);
        let log = Log::new();
        let seen = log.clone();
        let mut ring = on(
            &simulation,
            Script::<(usize, UnixStream, [u8; 1])>::new()
                .on_setup_once(move |mut submitter| {
                    for (number, ours) in ours.into_iter().enumerate() {
                        let data = (number, ours, [0]);
                        submitter.submit(data, |(_, ours, buffer)| request::recv(ours, buffer))?;
                    }
                    Ok(())
                })
                .on_completion(move |_, (number, ..), _| {
                    seen.push(number);
                    (GO_ON, None)
                }),
        );
        ring.run().unwrap();
        log.take()
    };
    assert_eq!(numbers(false), [0, 1, 2, 3, 4, 5]);
    assert_ne!(numbers(true), [0, 1, 2, 3, 4, 5]);
}

#[test]
fn s07_busy_is_retried_and_a_lost_completion_abandons() {
    for seed in 0..50 {
        let ledger = Ledger::new();
        let busy = simulation(seed, Faults { busy: 0.9, ..Faults::none() });
        waiting(&busy, ledger, true).unwrap();
        ledger.assert_all_dropped_once();
    }
    let ledger = Ledger::new();
    let lost = simulation(1, Faults { lost: 1.0, ..Faults::none() });
    let error = waiting(&lost, ledger, true).unwrap_err();
    let stuck = error.abandoned().unwrap();
    assert_eq!(stuck.errno, Some(libc::EBADR));
    let mut names: Vec<_> = stuck.requests.iter().map(|it| (it.operation, it.opcode_name())).collect();
    names.sort_unstable();
    assert_eq!(names, [("first", "RECV"), ("first", "TIMEOUT")]);
    assert_eq!(ledger.alive(), 2, "leaked, not freed");
}

#[test]
fn a_ring_that_waits_for_ever_is_told_so() {
    let ledger = Ledger::new();
    let simulation = calm();
    simulation.set_patience(Duration::from_millis(1));
    match waiting(&simulation, ledger, false) {
        Err(RingError::Api(cause)) => assert_eq!(cause.error.raw_os_error(), Some(libc::EDEADLK)),
        other => panic!("{other:?}"),
    }
}
