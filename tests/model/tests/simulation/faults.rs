//! What goes wrong, each fault by itself.

use std::collections::BTreeSet;

use rummelplatz::FixedBuffers;
use rummelplatz_tests::direct::{connections, is_closed};
use rummelplatz_tests::{NO_OPCODE, OPCODE, with_byte};

use super::*;

/// Reads a message of eight bytes over a stream, under the kernels of a hundred seeds. Returns how many bytes came in
/// the first completion, or which error.
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

/// The order in which requests end that can all end at once, and the time that they have taken.
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
fn a_wait_that_has_failed_ends_the_run_before_anything_else_is_told() {
    let simulation = calm();
    let (told, kernel) = (Log::new(), simulation.clone());
    let seen = told.clone();
    let script = Script::new()
        .on_setup_once(|mut submitter: BenchSubmitter<'_, u32>| {
            submitter.submit(0, |_| request::nop())?;
            submitter.submit(1, |_| request::timeout(Duration::from_secs(1)))?;
            Ok(())
        })
        .on_completion(move |completion, number, mut submitter| {
            seen.push((number, outcome(&completion)));
            if number == 0 {
                // The second has no room in the queue before the kernel has taken in, and done, the first.
                submitter.submit(2, |_| request::nop()).unwrap();
                submitter.submit(3, |_| request::nop()).unwrap();
            }
            let lost = if number == 0 { 1.0 } else { 0.0 };
            kernel.set_faults(Faults { lost, ..Faults::none() });
            (GO_ON, None)
        })
        .on_teardown(|_, _, _| Ok(()));
    let mut ring = bench(simulation.raw_ring_with(size(1), size(8)).unwrap(), script);
    let error = ring.run().unwrap_err();
    assert_eq!(error.abandoned().unwrap().errno, Some(libc::EBADR));
    assert_eq!(told.take(), [(0, Ok(0))], "the rest is for the teardown");
}

/// A loop delivers some thousand completions before it does other things. Here the kernel has lost one by then.
#[test]
fn all_that_has_completed_is_told_before_a_ring_is_given_up() {
    const COUNT: usize = 4000;
    let simulation = calm();
    let (told, kernel) = (Log::new(), simulation.clone());
    let (seen, seen_late) = (told.clone(), told.clone());
    let (ours, _theirs) = unix_pair();
    let script = Script::new()
        .on_setup_once(move |mut submitter: BenchSubmitter<'_, (usize, Arc<OwnedFd>, [u8; 1])>| {
            submitter
                .submit((usize::MAX, ours.clone(), [0]), |(_, ours, buffer)| request::recv(ours, buffer))?;
            for number in 0..COUNT {
                submitter.submit((number, ours.clone(), [0]), |_| request::nop())?;
                submitter.post((COUNT + number, ours.clone(), [0]))?;
            }
            Ok(())
        })
        .on_completion(move |completion, (number, ..), _| {
            kernel.set_faults(Faults { lost: 1.0, ..Faults::none() });
            seen.push((number, outcome(&completion), false));
            (GO_ON, None)
        })
        .on_teardown(move |completion, (number, ..), _| {
            seen_late.push((number, outcome(&completion), true));
            Ok(())
        });
    let mut ring = bench(simulation.raw_ring(size(4096)).unwrap(), script);
    let error = ring.run().unwrap_err();
    let stuck = error.abandoned().unwrap();
    assert_eq!((stuck.errno, stuck.requests.len()), (Some(libc::EBADR), 1));
    assert_eq!(stuck.requests[0].opcode_name(), "RECV");

    let told = told.take();
    let late = told.iter().filter(|(.., is_late)| *is_late).count();
    assert!(late > 3 * 1024, "more than what some rounds deliver: {late}");
    let mut numbers: Vec<_> = told.iter().map(|(number, outcome, _)| (*number, *outcome)).collect();
    numbers.sort_unstable_by_key(|(number, _)| *number);
    assert!(numbers.into_iter().eq((0..2 * COUNT).map(|number| (number, Ok(0)))), "each once");
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

/// Leaves a direct descriptor, a socket, while the kernel is mostly short of memory. The ring has nothing else to do
/// for a second. Returns whether the socket is closed then.
fn is_closed_in_time(seed: u64) -> bool {
    enum Work {
        Accept(Arc<UnixListener>),
        Pause,
    }
    impl Work {
        fn request(&mut self) -> Request<'_> {
            match self {
                Work::Accept(listener) => request::accept_direct(listener),
                Work::Pause => request::timeout(Duration::from_secs(1)),
            }
        }
    }
    let simulation = simulation(seed, Faults { uncleared: 0.9, ..Faults::none() });
    let (listener, clients) = connections(1);
    let log = Log::new();
    let seen = log.clone();
    let script = Script::new()
        .on_setup_once(move |mut submitter| {
            submitter.submit(Work::Accept(listener), Work::request)?;
            submitter.submit(Work::Pause, Work::request)?;
            Ok(())
        })
        .on_completion(move |completion, work, _| {
            match work {
                Work::Accept(_) => drop(completion.into_fixed_file().unwrap()),
                Work::Pause => seen.push(is_closed(&clients[0])),
            }
            (GO_ON, None)
        });
    let builder = Bench::builder(script, Script::new()).raw_ring(simulation.raw_ring(size(8)).unwrap());
    let mut ring = builder.direct_descriptors(NonZeroU32::MIN).build().unwrap();
    ring.run().unwrap();
    assert_eq!(ring.stats().uncleared, 0);
    assert!(simulation.figures().enters < 110, "it does not spin: {:?}", simulation.figures());
    log.take() == [true]
}

#[test]
fn a_direct_descriptor_that_was_not_closed_is_closed_soon() {
    let in_time: Vec<_> = (0..10).map(is_closed_in_time).collect();
    assert_eq!(in_time, [true; 10]);
}

#[test]
fn what_was_not_cleared_is_counted_and_tried_again_at_the_end_of_a_run() {
    let simulation = simulation(1, Faults { uncleared: 1.0, ..Faults::none() });
    let buffers = FixedBuffers::new(2, 64).unwrap();
    let memory = buffers.clone();
    let (near, far) = unix_pair();
    let script = Script::<()>::new().on_setup(move |mut submitter| {
        submitter.register_buffers(&memory)?;
        drop(submitter.register_file(&near)?);
        submitter.submit((), |()| request::nop())?;
        Ok(())
    });
    let mut ring = on(&simulation, script);
    ring.run().unwrap();
    assert_eq!(ring.stats().uncleared, 2);
    simulation.set_faults(Faults::none());
    ring.run().unwrap();
    assert_eq!(ring.stats().uncleared, 0);
    drop(ring);
    assert!(is_closed(&far));
}

// ---- cancels ----------------------------------------------------------------------------------------

/// A connection on which something is received, and its other end.
type Receiving = (UnixStream, UnixStream, [u8; 8]);

fn receiving() -> Receiving {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (ours, theirs, [0; 8])
}

fn receive((ours, _, buffer): &mut Receiving) -> Request<'_> {
    request::recv(ours, buffer)
}

fn tick_every_millisecond(_: &mut ()) -> Stream<'_> {
    request::timeout_multi(Duration::from_millis(1))
}

#[test]
fn a_cancel_that_loses_its_race_says_that_it_is_too_late() {
    for (lost_race, answer) in [(0.0, "ASYNC_CANCEL 0"), (1.0, "ASYNC_CANCEL -114")] {
        let simulation = simulation(1, Faults { lost_race, ..Faults::none() });
        let mut turned = Turned::of(&simulation, receiving(), receive);
        turned.cancel();
        assert_eq!(turned.rest(), [(Err(libc::ECANCELED), false)]);
        let expected = ["take RECV", "take ASYNC_CANCEL", "RECV -125", answer];
        assert_eq!(without_enters(history(&simulation)), expected);
    }
}

#[test]
fn a_timer_that_is_about_to_fire_outruns_its_cancel() {
    let simulation = simulation(1, Faults { lost_race: 1.0, ..Faults::none() });
    simulation.take_log();
    let told = Log::new();
    let seen = told.clone();
    // Entries of a handler are taken in after it, without a check of what is due. So this timer is due in the next
    // turn, with the cancel.
    let key = Arc::new(Mutex::new(None));
    let made = Arc::clone(&key);
    let script = Script::new().on_completion(move |completion, is_first, mut submitter| {
        seen.push(outcome(&completion));
        if is_first {
            let key = submitter.submit(false, |_| request::timeout(Duration::from_nanos(100))).unwrap();
            *made.lock().unwrap() = Some(key);
        }
        (GO_ON, None)
    });
    let mut ring = on(&simulation, script);
    ring.submitter(Bench::FIRST).submit(true, |_| request::nop()).unwrap();
    ring.turn().unwrap();
    assert!(ring.submitter(Bench::FIRST).cancel(key.lock().unwrap().take().unwrap()));
    while !ring.turn().unwrap().is_idle() {}
    assert_eq!(told.take(), [Ok(0), Ok(0)]);
    let expected =
        ["take NOP", "NOP 0", "take TIMEOUT", "take ASYNC_CANCEL", "ASYNC_CANCEL -114", "TIMEOUT -62"];
    assert_eq!(without_enters(history(&simulation)), expected);
}

#[test]
fn a_timer_that_goes_on_outruns_its_cancel_until_one_comes_in_time() {
    let simulation = simulation(1, Faults { lost_race: 1.0, ..Faults::none() });
    let mut turned = Turned::of_stream(&simulation, (), tick_every_millisecond);
    turned.cancel();
    turned.ring.turn().unwrap();
    assert_eq!(
        without_enters(history(&simulation)),
        ["take TIMEOUT", "take ASYNC_CANCEL", "ASYNC_CANCEL -2"]
    );
    // The ring asks again, after each tick, and after a millisecond.
    simulation.pass(Duration::from_micros(1000));
    turned.ring.turn().unwrap();
    turned.ring.turn().unwrap();
    assert_eq!(turned.told.take(), [(Ok(0), true)]);
    simulation.set_faults(Faults::none());
    simulation.pass(Duration::from_micros(1000));
    assert_eq!(turned.rest(), [(Ok(0), true), (Err(libc::ECANCELED), false)]);
    let expected = [
        "? -62 more",
        "take ASYNC_CANCEL",
        "ASYNC_CANCEL -2",
        "take ASYNC_CANCEL",
        "ASYNC_CANCEL -2",
        "? -62 more",
        "take ASYNC_CANCEL",
        "? -125",
        "ASYNC_CANCEL 0",
    ];
    assert_eq!(without_enters(history(&simulation)), expected);
}

/// The outcomes that handlers were told, and whether more was to come.
type Told = Vec<(Outcome, bool)>;

/// How a request ends that is cancelled after `prepare`, under the kernels of this many seeds: what is told of its end,
/// and what was posted from the cancel on.
fn ends<D: Send + 'static>(
    faults: Faults,
    submit: impl Fn(&Simulation) -> Turned<D>,
    prepare: impl Fn(&mut Turned<D>),
) -> BTreeSet<(Told, Vec<String>)> {
    let run = |seed| {
        let simulation = simulation(seed, Faults::none());
        let mut turned = submit(&simulation);
        prepare(&mut turned);
        simulation.set_faults(faults);
        turned.cancel();
        // Only one of the cancels is to behave oddly.
        turned.ring.turn().unwrap();
        simulation.set_faults(Faults::none());
        let told = turned.rest();
        let posted = history(&simulation).into_iter();
        let begins = |line: &String| line == "take ASYNC_CANCEL";
        let posted = posted.skip_while(|line| !begins(line)).filter(|line| !begins(line));
        (told, without_enters(posted.collect()))
    };
    (0..40).map(run).collect()
}

const ODD: Faults = Faults { odd_ends: 1.0, ..Faults::none() };

#[test]
fn a_cancelled_request_ends_with_whatever_such_a_request_may() {
    let text = |told: Outcome, posted: &str| {
        (vec![(told, false)], vec![format!("RECV {posted}"), "ASYNC_CANCEL 0".to_owned()])
    };
    let submit = |simulation: &Simulation| {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        ours.write_all(b"x").unwrap();
        Turned::of(simulation, (ours, theirs, [0; 8]), receive)
    };
    // Nothing can be received: the request was not done after all.
    let expected = [
        text(Err(libc::EINTR), "-4"),
        // What no program should see is not shown to it.
        text(Err(libc::ECANCELED), "-512"),
        text(Err(libc::ECANCELED), "-125"),
    ];
    assert_eq!(ends(ODD, submit, |_| ()), expected.into_iter().collect());
    // Now something can be received that could not be when it was last tried.
    let came = Log::new();
    let given = came.clone();
    let submit = move |simulation: &Simulation| {
        let (ours, theirs) = UnixStream::pair().unwrap();
        given.push(theirs.try_clone().unwrap());
        Turned::of(simulation, (ours, theirs, [0; 8]), receive)
    };
    let prepare = move |_: &mut Turned<_>| came.take().remove(0).write_all(b"hello").unwrap();
    let expected = [text(Err(libc::EINTR), "-4"), text(Err(libc::ECANCELED), "-512"), text(Ok(5), "5")];
    assert_eq!(ends(ODD, submit, prepare), expected.into_iter().collect());
    let always = ends(Faults::none(), |simulation| Turned::of(simulation, receiving(), receive), |_| ());
    assert_eq!(always, [text(Err(libc::ECANCELED), "-125")].into_iter().collect());
}

#[test]
fn a_cancelled_stream_ends_with_more_before_the_end_or_with_a_buffer() {
    let came = Log::new();
    let given = came.clone();
    let pools = Log::new();
    let made = pools.clone();
    fn receive((socket, pool): &mut (UnixStream, BufferPool)) -> Stream<'_> {
        request::recv_multi(socket, pool)
    }
    let submit = move |simulation: &Simulation| {
        let (ours, theirs) = UnixStream::pair().unwrap();
        given.push(theirs);
        let pool = BufferPool::new(4, 8).unwrap();
        made.push(pool.clone());
        Turned::of_stream(simulation, (ours, pool), receive)
    };
    let prepare = move |_: &mut Turned<_>| came.take().remove(0).write_all(b"hello").unwrap();
    let end = |told: &[(Outcome, bool)], posted: &[&str]| {
        (told.to_vec(), posted.iter().map(ToString::to_string).collect())
    };
    let cancelled = (Err(libc::ECANCELED), false);
    let expected = [
        end(&[(Err(libc::EINTR), false)], &["RECV -4", "ASYNC_CANCEL 0"]),
        end(&[cancelled], &["RECV -512", "ASYNC_CANCEL 0"]),
        end(&[cancelled], &["RECV -125 buffer", "ASYNC_CANCEL 0"]),
        // A stream that goes on is cancelled again, before the ring has seen that it did not go far.
        end(
            &[(Ok(5), true), cancelled],
            &["RECV 5 more buffer", "RECV -125", "ASYNC_CANCEL 0", "ASYNC_CANCEL -2"],
        ),
    ];
    assert_eq!(ends(ODD, submit, prepare), expected.into_iter().collect());
    // Also the buffer that came with an error.
    assert!(pools.take().iter().all(|pool| pool.available() == 4));
}

#[test]
fn a_cancelled_close_closes_once_whatever_it_says() {
    let readers = Log::new();
    let made = readers.clone();
    let submit = move |simulation: &Simulation| {
        simulation.on_request(|_| Answer::Wait);
        let (reader, writer) = pipe();
        made.push(reader);
        Turned::of(simulation, Some(writer), |writer| request::close(writer.take().unwrap()))
    };
    let expected = (vec![(Err(libc::ECANCELED), false)], vec!["CLOSE -125".into(), "ASYNC_CANCEL 0".into()]);
    assert_eq!(ends(ODD, submit, |_| ()), [expected].into_iter().collect());
    // The request was not interrupted, or the descriptor would be closed already; so the ring has closed it.
    let readers = readers.take();
    assert!(soon(|| readers.iter().all(has_hung_up)));
}

#[test]
fn work_on_files_that_has_begun_is_ended_by_no_cancel() {
    let simulation = simulation(1, Faults { running: 1.0, ..Faults::none() });
    let data = (temporary_file(b"0123"), [0; 8]);
    let mut turned = Turned::of(&simulation, data, |(file, buffer)| request::read(file, buffer));
    turned.cancel();
    let began = simulation.now();
    assert_eq!(turned.rest(), [(Ok(4), false)]);
    // The ring asks again after a millisecond.
    let cancel = ["take ASYNC_CANCEL", "ASYNC_CANCEL -114"];
    let expected = [&["take READ"][..], &cancel, &cancel, &["READ 4"]].concat();
    assert_eq!(without_enters(history(&simulation)), expected);
    assert!(simulation.now() - began <= Duration::from_millis(4));
    drop(turned);
    // No worker does requests on anything that is not a file.
    let mut turned = Turned::of(&simulation, receiving(), receive);
    turned.cancel();
    assert_eq!(turned.rest(), [(Err(libc::ECANCELED), false)]);
}

#[test]
fn no_cancel_finds_what_is_issued_late() {
    let simulation = simulation(1, Faults { late: 1.0, ..Faults::none() });
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    theirs.write_all(b"hello").unwrap();
    let mut turned = Turned::of(&simulation, (ours, theirs, [0; 8]), receive);
    turned.cancel();
    assert_eq!(turned.rest(), [(Ok(5), false)]);
    let cancel = ["take ASYNC_CANCEL", "ASYNC_CANCEL -2"];
    let expected = [&["take RECV"][..], &cancel, &cancel, &["RECV 5"]].concat();
    assert_eq!(without_enters(history(&simulation)), expected);
    drop(turned);
    // A stream that is not linked is never late.
    let mut turned = Turned::of_stream(&simulation, (), tick_every_millisecond);
    turned.cancel();
    assert_eq!(turned.rest(), [(Err(libc::ECANCELED), false)]);
}

#[test]
fn who_is_cancelled_by_nobody_is_no_file_and_a_close_has_not_closed() {
    let faults = Faults { cancelled: 1.0, ..Faults::none() };
    for seed in 0..20 {
        let raw = || simulation(seed, faults).raw_ring(size(8)).unwrap();
        let (reader, writer) = pipe();
        let closing = Asking::<Option<OwnedFd>> {
            data: Some(writer),
            request: |writer| request::close(writer.take().unwrap()),
        };
        assert_eq!(ask_on(raw(), closing).0, Err(libc::ECANCELED));
        assert!(soon(|| has_hung_up(&reader)), "closed by the ring");
        let polling = Asking::<Receiving> {
            data: receiving(),
            request: |(ours, ..)| request::poll(ours, Events::READABLE),
        };
        assert_eq!(ask_on(raw(), polling).0, Err(libc::ECANCELED));
        let reading = Asking::<(File, [u8; 8])> {
            data: (temporary_file(b"0123"), [0; 8]),
            request: |(file, buffer)| request::read(file, buffer),
        };
        assert_eq!(ask_on(raw(), reading).0, Ok(4));
        let writing = Asking::<File> {
            data: temporary_file(b""),
            request: |file| request::writev(file, [&b"01"[..], b"23"]),
        };
        assert_eq!(ask_on(raw(), writing).0, Ok(4));
    }
}

/// What one kind of request comes to under the kernels of a hundred seeds.
fn cancelled_by_nobody<D: Send + 'static>(
    mut asking: impl FnMut() -> Asking<D>,
    mut check: impl FnMut(Outcome, D),
) -> BTreeSet<Outcome> {
    let run = |seed| {
        let faults = Faults { cancelled: 0.5, ..Faults::none() };
        let (told, _, data) = ask_on(simulation(seed, faults).raw_ring(size(8)).unwrap(), asking());
        check(told, data);
        told
    };
    (0..100).map(run).collect()
}

#[test]
fn who_is_cancelled_by_nobody_has_done_nothing() {
    let cancelled = Err(libc::ECANCELED);
    let (only_cancelled, interrupted) =
        (BTreeSet::from([Ok(0), cancelled]), BTreeSet::from([Ok(5), cancelled, Err(libc::EINTR)]));
    let requests: [for<'d> fn(&'d mut File) -> Request<'d>; 6] = [
        |file| request::fsync(file),
        |file| request::fdatasync(file),
        |file| request::sync_file_range(file, 0, 1, request::SyncRange::WRITE),
        |file| request::fallocate(file, request::Allocate::Extend, 0, 8),
        |file| request::ftruncate(file, 8),
        |_| request::timeout(Duration::from_millis(1)),
    ];
    for (number, request) in requests.into_iter().enumerate() {
        let asking = || Asking::<File> { data: temporary_file(b""), request };
        let told = cancelled_by_nobody(asking, |told, file| {
            let changes = matches!(number, 3 | 4) && told.is_ok();
            assert_eq!(file.metadata().unwrap().len(), if changes { 8 } else { 0 });
        });
        assert_eq!(told, only_cancelled, "{number}");
    }
    let connected = || {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"hello").unwrap();
        (ours, theirs, [0; 8])
    };
    let requests: [for<'d> fn(&'d mut Receiving) -> Request<'d>; 3] = [
        receive,
        |(ours, _, buffer)| request::read(ours, buffer),
        |(ours, _, buffer)| request::readv(ours, [&mut buffer[..]]),
    ];
    for request in requests {
        let asking = || Asking::<Receiving> { data: connected(), request };
        let told = cancelled_by_nobody(asking, |told, (mut ours, ..)| {
            ours.set_nonblocking(true).unwrap();
            assert_eq!(ours.read(&mut [0; 8]).is_ok(), told.is_err(), "the bytes are still there");
        });
        assert_eq!(told, interrupted);
    }
}

#[test]
fn who_is_cancelled_by_nobody_has_opened_nothing() {
    let there = Directory::new("cancelled");
    let path = there.path("file");
    let asking = || Asking::<std::ffi::CString> {
        data: std::ffi::CString::new(path.to_str().unwrap()).unwrap(),
        request: |path| {
            request::openat(&request::CWD, path, &request::OpenOptions::new().write(true).create(true))
        },
    };
    let opens = |faults| {
        let run = |seed| {
            let (told, opened, _) = ask_on(simulation(seed, faults).raw_ring(size(8)).unwrap(), asking());
            assert_eq!((opened.is_some(), std::fs::remove_file(&path).is_ok()), (told.is_ok(), told.is_ok()));
            told
        };
        (0..100).map(run).collect::<BTreeSet<_>>()
    };
    let told = opens(Faults { cancelled: 0.5, late: 0.2, running: 0.2, ..Faults::none() });
    std::fs::remove_dir(there.root()).unwrap();
    assert_eq!(told, BTreeSet::from([Ok(0), Err(libc::ECANCELED)]));
}

#[test]
fn who_has_moved_something_says_so_even_if_nobody_has_cancelled_it() {
    let simulation = calm();
    let (ours, mut theirs) = unix_pair();
    theirs.write_all(b"hello").unwrap();
    let mut job = Job::new(0, &ours, 8);
    let entry = opcode::Recv::new(job.raw(), job.buffer.as_mut_ptr(), 8).flags(libc::MSG_WAITALL).build();
    let told = Log::new();
    let seen = told.clone();
    let script = Script::new().on_completion(move |completion, _, _| {
        seen.push(outcome(&completion));
        (GO_ON, None)
    });
    let mut ring = on(&simulation, script);
    // SAFETY: the buffer is on the heap, and owned by the job.
    unsafe { ring.submitter(Bench::FIRST).push(entry, job).unwrap() };
    ring.turn().unwrap();
    simulation.set_faults(Faults { cancelled: 1.0, ..Faults::none() });
    while !ring.turn().unwrap().is_idle() {}
    assert_eq!(told.take(), [Ok(5)]);
}

#[test]
fn nobody_cancels_what_wakes_the_ring() {
    let simulation = simulation(1, Faults { cancelled: 1.0, ..Faults::none() });
    simulation.take_log();
    let script = Script::new().on_completion(|_, (), _| (GO_ON, None));
    let mut ring = on(&simulation, script);
    let handle = ring.handle();
    // Waits for what the hook does not let it do; so the ring waits, with a poll and an alarm.
    simulation.on_request(|asked| if asked.name() == "NOP" { Answer::Wait } else { Answer::Perform });
    simulation.set_faults(Faults { late: 1.0, ..Faults::none() });
    ring.submitter(Bench::FIRST).submit((), |()| request::nop().deadline(Duration::from_secs(1))).unwrap();
    ring.turn().unwrap();
    simulation.set_faults(Faults { cancelled: 1.0, ..Faults::none() });
    drop(handle);
    ring.run().unwrap();
    let taken = history(&simulation);
    assert_eq!(taken.iter().filter(|line| *line == "take POLL_ADD").count(), 1, "{taken:?}");
}

// ---- transfers --------------------------------------------------------------------------------------

#[test]
fn each_short_transfer_moves_at_least_a_byte_and_none_that_is_to_be_whole_is_short() {
    let faults = Faults { short: 1.0, ..Faults::none() };
    for (length, expected) in [(8, 1..8), (2, 1..2), (1, 1..2)] {
        for seed in 0..20 {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            theirs.write_all(&vec![7; length]).unwrap();
            let asking = Asking::<(UnixStream, UnixStream, Vec<u8>)> {
                data: (ours, theirs, vec![0; length]),
                request: |(ours, _, buffer)| request::recv(ours, buffer),
            };
            let (told, _, (.., buffer)) = ask_on(simulation(seed, faults).raw_ring(size(8)).unwrap(), asking);
            let moved = told.unwrap();
            assert!(expected.contains(&moved), "{moved} of {length}");
            assert!(
                buffer.iter().enumerate().all(|(at, byte)| *byte == if at < moved as usize { 7 } else { 0 })
            );
        }
    }
    let (ours, mut theirs) = unix_pair();
    theirs.write_all(&[7; 8]).unwrap();
    let mut buffer = Box::new([0_u8; 16]);
    let entry = opcode::Recv::new(types::Fd(ours.as_raw_fd()), buffer.as_mut_ptr(), 8);
    let entry = entry.flags(libc::MSG_WAITALL).build();
    assert_eq!(push_one(&simulation(1, faults), entry, buffer), [RawCompletion { result: 8, flags: 0 }]);
}

#[test]
fn both_ends_of_a_connection_see_its_reset() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let other = ours.try_clone().unwrap();
    theirs.set_nonblocking(true).unwrap();
    other.set_nonblocking(true).unwrap();
    let asking = Asking::<UnixStream> { data: ours, request: |ours| request::send(ours, b"hello") };
    let raw = simulation(1, Faults { reset: 1.0, ..Faults::none() }).raw_ring(size(8)).unwrap();
    assert_eq!(ask_on(raw, asking).0, Err(libc::ECONNRESET));
    assert_eq!(theirs.read(&mut [0; 8]).unwrap(), 0, "nothing was sent");
    assert_eq!(theirs.write(b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    assert_eq!((&other).read(&mut [0]).unwrap(), 0);
}

// ---- streams ----------------------------------------------------------------------------------------

/// A stream of what was written before, five bytes at a time.
fn five_at_a_time(text: &[u8]) -> (UnixStream, BufferPool) {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    theirs.write_all(text).unwrap();
    (ours, BufferPool::new(4, 5).unwrap())
}

fn receive_all((socket, pool): &mut (UnixStream, BufferPool)) -> Stream<'_> {
    request::recv_multi(socket, pool)
}

#[test]
fn a_stream_that_is_cut_is_armed_again_by_the_ring() {
    let simulation = simulation(1, Faults { cut: 1.0, ..Faults::none() });
    simulation.take_log();
    let (ours, pool) = five_at_a_time(b"hello, world");
    let raw = simulation.raw_ring(size(8)).unwrap();
    let (told, bytes) = stream_on(raw, (ours, pool.clone()), receive_all, 9);
    // As if nothing had happened.
    assert_eq!(told, [(Ok(5), true), (Ok(5), true), (Ok(2), true), (Ok(0), false)]);
    assert_eq!((bytes.concat(), pool.available()), (b"hello, world".to_vec(), 4));
    let take = "take RECV";
    // With the poll, another thread that gives a buffer back wakes the ring.
    let expected = [
        "take POLL_ADD",
        take,
        "RECV 5 buffer",
        take,
        "RECV 5 buffer",
        take,
        "RECV 2 buffer",
        take,
        "RECV 0",
    ];
    assert_eq!(without_enters(history(&simulation)), expected);
}

#[test]
fn a_stream_that_finds_no_buffers_goes_on_when_there_are_some() {
    let simulation = simulation(1, Faults { no_buffers: 1.0, ..Faults::none() });
    let (ours, pool) = five_at_a_time(b"hello");
    let mut turned = Turned::of_stream(&simulation, (ours, pool.clone()), receive_all);
    // By now it was armed again, after the first time.
    simulation.set_faults(Faults::none());
    let starved = (Err(libc::ENOBUFS), true);
    assert_eq!(turned.rest(), [starved, starved, (Ok(5), true), (Ok(0), false)]);
    let take = "take RECV";
    let expected = [take, "RECV -105", take, "RECV -105", take, "RECV 5 more buffer", "RECV 0"];
    assert_eq!(without_enters(history(&simulation))[1..], expected);
    assert_eq!(pool.available(), 4);
}

#[test]
fn a_stream_that_never_finds_a_buffer_ends_though_nobody_holds_one() {
    let simulation = simulation(1, Faults { no_buffers: 1.0, ..Faults::none() });
    let (ours, pool) = five_at_a_time(b"hello");
    let (told, _) = stream_on(simulation.raw_ring(size(8)).unwrap(), (ours, pool), receive_all, 99);
    let starved = (Err(libc::ENOBUFS), true);
    assert_eq!(told, [starved, starved, starved, starved, (Err(libc::ENOBUFS), false)]);
}

#[test]
fn a_send_that_is_never_notified_of_is_abandoned_at_the_deadline() {
    is_abandoned_at_the_deadline(Job::send_zc, "SEND_ZC");
    is_abandoned_at_the_deadline(Job::send_vectored_zc, "SENDMSG_ZC");
}

fn is_abandoned_at_the_deadline(send: for<'d> fn(&'d mut Job) -> Request<'d>, name: &str) {
    let simulation = simulation(1, Faults { never: 1.0, ..Faults::none() });
    simulation.take_log();
    let (ours, mut theirs) = rummelplatz_tests::tcp_pair();
    let ledger = Ledger::new();
    let job = Job::new(0, &Arc::new(ours.into()), 5);
    let place = job.buffer.as_ptr();
    let data = ledger.issue(job);
    let builder = Bench::builder(Script::new(), Script::new()).deadline(Duration::from_secs(60));
    let mut ring = builder.raw_ring(simulation.raw_ring(size(8)).unwrap()).build().unwrap();
    ring.submitter(Bench::FIRST).submit(data, |job| send(job)).unwrap();
    ring.turn().unwrap();
    let began = simulation.now();
    let error = ring.finish().unwrap_err();
    let stuck = error.abandoned().unwrap();
    let names: Vec<_> = stuck.requests.iter().map(|it| (it.operation, it.opcode_name())).collect();
    assert_eq!((names, stuck.errno), (vec![("first", name)], None));
    let took = simulation.now() - began;
    assert!((60..61).contains(&took.as_secs()), "{took:?}");
    theirs.read_exact(&mut [0; 5]).unwrap();
    assert!(simulation.uses(place), "its memory is in use");
    assert_eq!((simulation.in_kernel(), ledger.alive()), (1, 1));
    let history = without_enters(history(&simulation));
    assert_eq!(history[..2], [format!("take {name}"), format!("{name} 5 more")]);
    assert!(history[2..].chunks(2).all(|it| *it == ["take ASYNC_CANCEL", "ASYNC_CANCEL -2"]), "{history:?}");
    drop(ring);
    assert_eq!(ledger.alive(), 1, "leaked, not freed");
}

// ---- entering ---------------------------------------------------------------------------------------

/// Runs a timer for which the ring must wait. Returns what has happened, and what was told.
fn awaited(faults: Faults) -> (Vec<String>, Outcome) {
    let simulation = simulation(1, faults);
    simulation.take_log();
    let asking = Asking::<()> { data: (), request: |()| request::timeout(Duration::from_micros(20)) };
    let (told, ..) = ask_on(simulation.raw_ring(size(8)).unwrap(), asking);
    (history(&simulation), told)
}

#[test]
fn a_ring_that_is_interrupted_or_told_of_nothing_enters_again() {
    let calm = (vec!["enter 1".into(), "take TIMEOUT".into(), "TIMEOUT -62".to_owned()], Ok(0));
    assert_eq!(awaited(Faults::none()), calm);
    for faults in [Faults { interrupt: 1.0, ..Faults::none() }, Faults { silent: 1.0, ..Faults::none() }] {
        let (mut history, told) = awaited(faults);
        assert_eq!(told, Ok(0));
        let enters = history.iter().filter(|line| *line == "enter 0").count();
        // A turn of the kernel takes a microsecond or so.
        assert!((10..50).contains(&enters), "{history:?}");
        history.retain(|line| line != "enter 0");
        assert_eq!(history, calm.0);
    }
    // A ring that does not wait is interrupted as well, but it knows without a wait that nothing came.
    for (faults, at_once) in [
        (Faults { interrupt: 1.0, ..Faults::none() }, false),
        (Faults { silent: 1.0, ..Faults::none() }, true),
    ] {
        let simulation = simulation(1, faults);
        let turned = Turned::of(&simulation, (), |()| request::timeout(Duration::from_micros(20)));
        assert_eq!(!turned.told.is_empty(), at_once);
    }
}

#[test]
fn a_kernel_that_is_short_of_something_takes_the_entry_in_the_fourth_time() {
    let simulation = simulation(1, Faults { busy: 1.0, ..Faults::none() });
    simulation.take_log();
    let raw = simulation.raw_ring(size(8)).unwrap();
    let asking = Asking::<()> { data: (), request: |()| request::nop() };
    assert_eq!(ask_on(raw, asking).0, Ok(0));
    // After each refusal, the ring only waits for what would make room; that is not refused.
    let mut expected = vec!["enter 1"; 7];
    expected.extend(["take NOP", "NOP 0"]);
    assert_eq!(history(&simulation), expected);
}

/// Runs eight NOPs. Returns what has happened, and in which order they were told.
fn eight(faults: Faults, seed: u64) -> (Vec<String>, Vec<u32>) {
    let simulation = simulation(seed, faults);
    simulation.take_log();
    let told = Log::new();
    let seen = told.clone();
    let script = Script::new()
        .on_setup(|mut submitter| {
            for number in 0..8 {
                submitter.submit(number, |_| request::nop())?;
            }
            Ok(())
        })
        .on_completion(move |completion, number, _| {
            assert_eq!(outcome(&completion), Ok(0));
            seen.push(number);
            (GO_ON, None)
        });
    on(&simulation, script).run().unwrap();
    (history(&simulation), told.take())
}

#[test]
fn what_is_taken_in_in_parts_is_taken_in_whole_and_in_order() {
    for seed in 0..20 {
        let (history, told) = eight(Faults { partial: 1.0, ..Faults::none() }, seed);
        assert!(told.into_iter().eq(0..8));
        let mut left = 8;
        for part in history.split(|line| line.starts_with("enter ")).skip(1) {
            assert!(part.chunks(2).all(|it| *it == ["take NOP", "NOP 0"]), "{history:?}");
            let taken = part.len() / 2;
            assert!((1..left.max(2)).contains(&taken), "{history:?}");
            left -= taken;
        }
        assert_eq!(left, 0);
        let mut shown = history.iter().filter_map(|line| line.strip_prefix("enter "));
        assert!(shown.clone().is_sorted_by(|one, other| one > other), "{history:?}");
        assert_eq!(shown.next_back(), Some("1"));
    }
}

#[test]
fn nothing_is_waited_for_before_all_is_taken_in() {
    let simulation = simulation(1, Faults { partial: 1.0, ..Faults::none() });
    simulation.take_log();
    let script = Script::new().on_setup(|mut submitter| {
        for _ in 0..8 {
            submitter.submit((), |()| request::timeout(Duration::from_secs(1)))?;
        }
        Ok(())
    });
    on(&simulation, script).run().unwrap();
    let expected = [["take TIMEOUT"; 8], ["TIMEOUT -62"; 8]].concat();
    assert_eq!(without_enters(history(&simulation)), expected);
}

#[test]
fn a_refused_entry_may_be_the_last_of_its_submit() {
    for seed in 0..20 {
        let simulation = simulation(seed, Faults { partial: 1.0, ..Faults::none() });
        simulation.take_log();
        let told = Log::new();
        let seen = told.clone();
        let script = Script::new()
            .on_setup(|mut submitter| {
                let nop = opcode::Nop::new().build();
                let bad = with_byte(nop.clone(), OPCODE, NO_OPCODE);
                for (number, entry) in [bad, nop.clone(), nop].into_iter().enumerate() {
                    // SAFETY: they point to nothing.
                    unsafe { submitter.push(entry, number)? };
                }
                Ok(())
            })
            .on_completion(move |completion, number, _| {
                seen.push((number, outcome(&completion)));
                (GO_ON, None)
            });
        on(&simulation, script).run().unwrap();
        assert_eq!(told.take(), [(0, Err(libc::EINVAL)), (1, Ok(0)), (2, Ok(0))]);
        let history = history(&simulation);
        let enters: Vec<_> = history.iter().filter(|line| line.starts_with("enter ")).collect();
        assert_eq!(enters[..2], ["enter 3", "enter 2"], "{history:?}");
    }
}

#[test]
fn no_stranger_ends_a_run_by_pretending_that_what_wakes_the_ring_has_failed() {
    for seed in 0..20 {
        let simulation = simulation(seed, Faults { foreign: 1.0, ..Faults::none() });
        let told = Log::new();
        let seen = told.clone();
        let script = Script::new().on_completion(move |completion, (), _| {
            seen.push(outcome(&completion));
            (GO_ON, None)
        });
        let mut ring = on(&simulation, script);
        // With it, the ring has a poll; with the deadline, an alarm.
        let handle = ring.handle().downgrade();
        let limited = ring
            .submitter(Bench::FIRST)
            .submit((), |()| request::timeout(Duration::from_millis(3)).deadline(Duration::from_secs(5)));
        limited.unwrap();
        ring.run().unwrap();
        assert_eq!(told.take(), [Ok(0)]);
        assert!(simulation.figures().enters > 1_000, "each time, a stranger has come");
        assert!(simulation.in_kernel() < 10, "strangers make the ring ask for ever more");
        drop(handle);
    }
}

#[test]
fn strangers_are_counted_and_nobody_is_told() {
    for seed in 0..50 {
        count_strangers(seed);
    }
}

fn count_strangers(seed: u64) {
    let simulation = simulation(seed, Faults { foreign: 1.0, interrupt: 1.0, ..Faults::none() });
    simulation.take_log();
    let told = Log::new();
    let seen = told.clone();
    let script = Script::new()
        .on_setup(|mut submitter| {
            for number in 0..7 {
                submitter.submit(number, |_| request::nop())?;
            }
            submitter.submit(7, |_| request::timeout(Duration::from_millis(1)))?;
            Ok(())
        })
        .on_completion(move |completion, number, _| {
            assert_eq!(outcome(&completion), Ok(0));
            seen.push(number);
            (GO_ON, None)
        });
    let mut ring = on(&simulation, script);
    ring.run().unwrap();
    assert!(told.take().into_iter().eq(0..8));
    let log = simulation.take_log();
    let enters = log.iter().filter(|it| matches!(it, Event::Entered { .. })).count();
    let posted = log.iter().filter_map(|event| match event {
        Event::Posted { user_data, result, flags } => Some((*user_data, *result, *flags)),
        _ => None,
    });
    assert_eq!(posted.clone().count(), enters + 8, "one stranger each time");
    // Tag 0 with a small number is the ring's own, and so is the tag of cancels: such completions are ignored. So is
    // what looks like the notification of a send that its chain has ended.
    let is_own = |name: u64| [0, 1 << 8, 2 << 8, 3 << 8].contains(&name) || name as u8 == 254;
    let is_late = |result: i32, flags: u32| flags == 1 << 3 && result & i32::MAX == 0;
    assert!(posted.clone().any(|(name, ..)| is_own(name)));
    // None names a request of an operation, whose tags are 1 to 250, or one that such a request has had.
    let names = posted.clone().map(|(name, ..)| name).filter(|name| (1..=250).contains(&(*name as u8)));
    assert_eq!(names.collect::<BTreeSet<_>>().len(), 8);
    assert_eq!(posted.clone().filter(|(name, ..)| (1..=250).contains(&(*name as u8))).count(), 8);
    let believed = posted.filter(|(name, result, flags)| is_own(*name) || is_late(*result, *flags)).count();
    assert_eq!(ring.stats().foreign as usize, enters - believed);
}

#[test]
fn a_message_of_too_many_pieces_is_refused_and_notified_of_all_the_same() {
    let simulation = simulation(1, Faults::none());
    simulation.take_log();
    let (ours, _theirs) = rummelplatz_tests::tcp_pair();
    let job = Job::new(0, &Arc::new(ours.into()), 2050);
    let (completion, _) = rummelplatz_tests::complete_on(simulation.raw_ring(size(8)).unwrap(), job, |job| {
        request::send_vectored_zc(&*job.file, job.buffer.chunks(2).map(|two| &two[..1])).whole()
    });
    assert_eq!(outcome(&completion), Err(libc::EMSGSIZE));
    let history = without_enters(history(&simulation));
    assert_eq!(history, ["take SENDMSG_ZC", "SENDMSG_ZC -90 more", "SENDMSG_ZC 0 notif"]);
}
