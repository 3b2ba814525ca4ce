//! One test for each fault of the earlier library that can be expressed here, named by its number.
//!
//! Faults that the type system prevents are compile-fail cases under `tests/compile/ui/types`: 17 is
//! `raw_entry_without_unsafe.rs`, 18 is `fewer_data_than_entries.rs`. Of 30 (data made from `user_data`) nothing is
//! left that could be called. 24 to 26 (hygiene, names and shapes of fields, hidden bounds) are programs that must
//! compile, under `tests/compile/pass` and `tests/renamed`.
//!
//! Some are in the catalogue of `faults/teardown.rs`, and only there: 6 is `t14`, 8 is `t11`, 10 is `t13`, 20 is `t10`,
//! 31 (a hard link that hung the teardown) is `t07`.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use rummelplatz::io_uring::{IoUring, opcode, squeue, types};
use rummelplatz::request::Events;
use rummelplatz::{
    Completion, ControlFlow, Refused, Ring, RingError, RingOperation, SubmitError, Submitter, request, ring,
};
use rummelplatz_tests::{
    Bench, IORING_REGISTER_EVENTFD, Job, Ledger, Log, Script, SignalStorm, Tracked, addressable, in_child,
    outcome, panic_of, pipe, restricted, tcp_pair, watched,
};

const FOR_EVER: Duration = Duration::from_secs(100_000);

fn nop() -> squeue::Entry {
    opcode::Nop::new().build()
}

fn linked(entry: squeue::Entry) -> squeue::Entry {
    entry.flags(squeue::Flags::IO_LINK)
}

fn shared_pipe() -> (Arc<OwnedFd>, Arc<OwnedFd>) {
    let (reader, writer) = pipe();
    (Arc::new(reader), Arc::new(writer))
}

#[test]
fn b01_a_multishot_with_several_completions_at_teardown_is_freed_once() {
    watched(|| {
        let ledger = Ledger::new();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let ended = Log::new();
        let log = ended.clone();
        let acceptor = Script::new()
            .on_setup_once(move |mut submitter| {
                let data = ledger.issue(Some(listener));
                submitter.stream(data, |data| request::accept_multi(data.as_ref().unwrap()))?;
                Ok(())
            })
            .on_completion(|_, _, _| panic!("the ring was to end first"))
            .on_teardown(move |completion, _, _| {
                log.push(completion.more());
                Ok(())
            });
        let mut clients = Vec::new();
        let other = Script::new()
            .on_setup_once(move |mut submitter| {
                submitter.submit(ledger.issue(None), |_| request::nop())?;
                Ok(())
            })
            .on_completion(move |_, _, _| {
                clients.extend((0..5).map(|_| TcpStream::connect(address).unwrap()));
                (ControlFlow::Exit, None)
            });
        Bench::builder(acceptor, other).build().unwrap().run().unwrap();
        assert_eq!(ended.take(), [false]);
        ledger.assert_all_dropped_once();
    });
}

#[test]
fn b01_a_zero_copy_send_at_teardown_is_freed_once() {
    watched(|| {
        let ledger = Ledger::new();
        let (client, mut server) = tcp_pair();
        let reader = thread::spawn(move || {
            let mut bytes = Vec::new();
            server.read_to_end(&mut bytes).unwrap();
            bytes.len()
        });
        let file = Arc::new(OwnedFd::from(client));
        let results = Log::new();
        let log = results.clone();
        let mut ring = Bench::with(
            8,
            Script::new()
                .on_setup_once(move |mut submitter| {
                    let data = ledger.issue(Job::new(0, &file, 1 << 20));
                    submitter.submit(data, |data| data.send_zc())?;
                    submitter.submit(ledger.issue(Job::new(1, &file, 0)), |_| request::nop())?;
                    Ok(())
                })
                .on_completion(|_, _, _| (ControlFlow::Exit, None))
                .on_teardown(move |completion, data, _| {
                    log.push((data.number, completion.raw().result > 0));
                    Ok(())
                }),
        );
        ring.run().unwrap();
        drop(ring);
        assert_eq!(results.take(), [(0, true)]);
        assert!(reader.join().unwrap() > 0);
        ledger.assert_all_dropped_once();
    });
}

#[test]
fn b02_no_data_for_a_stream_that_goes_on_ends_it_and_frees_nothing_twice() {
    watched(|| {
        let ledger = Ledger::new();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        // All wait to be accepted before the stream begins, so several completions come at once.
        let clients: Vec<_> = (0..5).map(|_| TcpStream::connect(address).unwrap()).collect();
        let calls = Log::new();
        let log = calls.clone();
        let mut ring = Bench::with(
            8,
            Script::new()
                .on_setup_once(move |mut submitter| {
                    submitter.stream(ledger.issue(listener), |it| request::accept_multi(&it.value))?;
                    Ok(())
                })
                .on_completion(move |completion, _, _| {
                    log.push(completion.more());
                    (ControlFlow::Continue, None)
                })
                .on_teardown(|_, _, _| panic!("it was abandoned, so nobody is to know")),
        );
        ring.run().unwrap();
        assert_eq!(calls.take(), [true]);
        assert_eq!(ring.stats().in_flight, 0);
        ledger.assert_all_dropped_once();
        // The sockets that were accepted without a receiver are closed.
        for mut client in clients.into_iter().take(1) {
            assert_eq!(client.read(&mut [0]).unwrap(), 0);
        }
    });
}

#[test]
fn b03_data_returned_for_a_request_that_is_over_is_dropped_and_counted() {
    watched(|| {
        let ledger = Ledger::new();
        let mut ring = Bench::with(
            8,
            Script::new()
                .on_setup_once(move |mut submitter| {
                    for number in 0..3 {
                        submitter.submit(ledger.issue(number), |_| request::nop())?;
                    }
                    Ok(())
                })
                .on_completion(|_, data, _| (ControlFlow::Continue, Some(data))),
        );
        ring.run().unwrap();
        assert_eq!(ring.stats().returned_late, 3);
        ledger.assert_all_dropped_once();
    });
}

/// Runs a ring with twenty timers, one after the other, and one timer that never ends.
fn run_timers_under_signals(restart: bool) {
    let ledger = Ledger::new();
    let torn_down = Log::new();
    let log = torn_down.clone();
    let storm = SignalStorm::begin(restart);
    let mut ring = Bench::with(
        8,
        Script::new()
            .on_setup(move |mut submitter| {
                submitter.submit(ledger.issue(1000), |_| request::timeout(FOR_EVER))?;
                submitter.submit(ledger.issue(0), |_| request::timeout(Duration::from_millis(5)))?;
                Ok(())
            })
            .on_completion(move |completion, data, mut submitter| {
                assert_eq!(outcome(&completion), Ok(0));
                if *data == 20 {
                    return (ControlFlow::Exit, None);
                }
                let next = ledger.issue(*data + 1);
                submitter.submit(next, |_| request::timeout(Duration::from_millis(5))).unwrap();
                (ControlFlow::Continue, None)
            })
            .on_teardown(move |completion, data, _| {
                log.push((*data, outcome(&completion)));
                Ok(())
            }),
    );
    ring.run().unwrap();
    assert_eq!(torn_down.take(), [(1000, Err(libc::ECANCELED))]);
    ring.run().unwrap();
    assert_eq!(torn_down.take(), [(1000, Err(libc::ECANCELED))]);
    assert!(SignalStorm::signals() > 0);
    drop((ring, storm));
    ledger.assert_all_dropped_once();
}

#[test]
fn b04_signals_end_no_run() {
    in_child(|| run_timers_under_signals(false));
}

#[test]
fn b05_signals_in_teardown_leave_nothing_for_the_next_run() {
    in_child(|| run_timers_under_signals(true));
}

#[test]
fn b07_backlog_never_stalls() {
    watched(|| {
        let ledger = Ledger::new();
        let (reader, writer) = shared_pipe();
        let done = Log::new();
        let log = done.clone();
        let mut ring = Bench::with(
            2,
            Script::new().on_completion(move |completion, data: Tracked<Job>, _| {
                log.push((data.number, outcome(&completion)));
                (ControlFlow::Continue, None)
            }),
        );
        // The queue takes two of the reads. They can't end before the writes, which wait behind them.
        let mut submitter = ring.submitter(Bench::FIRST);
        for number in 0..6 {
            submitter.submit(ledger.issue(Job::new(number, &reader, 1)), |it| it.read()).unwrap();
        }
        for number in 6..12 {
            submitter.submit(ledger.issue(Job::new(number, &writer, 1)), |it| it.write()).unwrap();
        }
        assert_eq!(ring.stats().backlog, 10);
        ring.run().unwrap();
        let mut done = done.take();
        done.sort();
        assert_eq!(done, (0..12).map(|number| (number, Ok(1))).collect::<Vec<_>>());
        ledger.assert_all_dropped_once();
    });
}

#[test]
fn b09_nothing_overtakes_the_backlog() {
    watched(|| {
        let ledger = Ledger::new();
        let done = Log::new();
        let log = done.clone();
        let mut later = Some(());
        let mut ring = Bench::with(
            2,
            Script::new().on_completion(move |_, data: Tracked<i32>, mut submitter| {
                log.push(*data);
                if later.take().is_some() {
                    submitter.submit(ledger.issue(99), |_| request::nop()).unwrap();
                }
                (ControlFlow::Continue, None)
            }),
        );
        let mut submitter = ring.submitter(Bench::FIRST);
        for number in 0..12 {
            submitter.submit(ledger.issue(number), |_| request::nop()).unwrap();
        }
        ring.run().unwrap();
        let expected: Vec<_> = (0..12).chain([99]).collect();
        assert_eq!(done.take(), expected);
        ledger.assert_all_dropped_once();
    });
}

#[test]
fn b11_what_a_teardown_handler_submits_is_awaited() {
    watched(|| {
        let ledger = Ledger::new();
        let (reader, writer) = shared_pipe();
        let ended = Log::new();
        let log = ended.clone();
        let job = Arc::clone(&writer);
        let mut ring = Bench::with(
            4,
            Script::new()
                .on_setup_once(move |mut submitter| {
                    submitter.submit(ledger.issue(Job::new(0, &job, 0)), |_| request::timeout(FOR_EVER))?;
                    submitter.submit(ledger.issue(Job::new(1, &job, 0)), |_| request::nop())?;
                    Ok(())
                })
                .on_completion(|_, _, _| (ControlFlow::Exit, None))
                .on_teardown(move |completion, data, mut submitter| {
                    log.push((data.number, outcome(&completion)));
                    if data.number == 0 {
                        submitter.submit(ledger.issue(Job::new(2, &writer, 3)), |it| it.write())?;
                        let timer = ledger.issue(Job::new(3, &writer, 0));
                        submitter.submit(timer, |_| request::timeout(Duration::from_millis(50)))?;
                    }
                    Ok(())
                }),
        );
        ring.run().unwrap();
        assert_eq!(ended.take(), [(0, Err(libc::ECANCELED)), (2, Ok(3)), (3, Ok(0))]);
        drop(ring);
        let mut written = Vec::new();
        std::fs::File::from(Arc::into_inner(reader).unwrap()).read_to_end(&mut written).unwrap();
        assert_eq!(written, [0; 3]);
        ledger.assert_all_dropped_once();
    });
}

#[test]
fn b12_a_refused_request_gives_its_data_back_and_the_limit_counts_requests() {
    watched(|| {
        let ledger = Ledger::new();
        let mut ring = Bench::builder(Script::new(), Script::new())
            .entries(4.try_into().unwrap())
            .backlog_limit(3.try_into().unwrap())
            .build()
            .unwrap();
        let mut submitter = ring.submitter(Bench::FIRST);
        for number in 0..7 {
            submitter.submit(ledger.issue(number), |_| request::nop()).unwrap();
        }
        let Refused { data, error } =
            submitter.try_submit(ledger.issue(7), |_| panic!("refused before it is built")).unwrap_err();
        assert_eq!((*data, error), (7, SubmitError::Full));
        // SAFETY: a NOP points to nothing.
        let refused = unsafe { submitter.push(nop(), data) }.unwrap_err();
        assert_eq!((*refused.data, refused.error), (7, SubmitError::Full));
        let alive = ledger.alive();
        assert_eq!(submitter.submit(refused.data, |_| request::nop()), Err(SubmitError::Full));
        assert_eq!(ledger.alive(), alive - 1);
        assert_eq!(ring.stats().in_flight, 7);
        assert_eq!(ring.stats().backlog, 3);
        ring.run().unwrap();
        ledger.assert_all_dropped_once();
    });
}

#[test]
fn b13_a_teardown_has_a_deadline() {
    watched(|| {
        let ledger = Ledger::new();
        let (client, server) = tcp_pair();
        let file = Arc::new(OwnedFd::from(client));
        let script = Script::new()
            .on_setup_once(move |mut submitter| {
                let data = ledger.issue(Job::new(0, &file, 1 << 22));
                submitter.submit(data, |data| data.send_zc())?;
                submitter.submit(ledger.issue(Job::new(1, &file, 0)), |_| request::nop())?;
                Ok(())
            })
            .on_completion(|_, _, _| (ControlFlow::Exit, None));
        let mut ring =
            Bench::builder(script, Script::new()).deadline(Duration::from_millis(200)).build().unwrap();
        // The peer reads nothing, so the kernel does not give the memory back.
        let error = ring.run().unwrap_err();
        let RingError::Abandoned { stuck } = &error else { panic!("{error}") };
        assert_eq!(stuck.requests.len(), 1);
        assert_eq!(stuck.requests[0].opcode_name(), "SEND_ZC");
        drop(ring);
        assert_eq!(ledger.alive(), 1, "leaked, not freed");
        ledger.assert_none_dropped_twice();
        drop(server);
    });
}

#[test]
fn b14_a_ring_with_nothing_to_do_ends() {
    watched(|| {
        let mut ring = Bench::<()>::with(8, Script::new());
        ring.run().unwrap();
        ring.run().unwrap();
    });
}

#[test]
fn b15_a_setup_error_tears_down_what_earlier_operations_have_submitted() {
    watched(|| {
        let ledger = Ledger::new();
        let setups = Arc::new(AtomicUsize::new(0));
        let ended = Log::new();
        let log = ended.clone();
        let first = Script::new()
            .on_setup(move |mut submitter| {
                submitter.submit(ledger.issue("first"), |_| request::timeout(FOR_EVER))?;
                Ok(())
            })
            .on_completion(|_, _, _| panic!("nothing ran"))
            .on_teardown(move |completion, data, _| {
                log.push((*data, outcome(&completion)));
                Ok(())
            });
        let count = Arc::clone(&setups);
        let second = Script::new().on_setup(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
            Err("no such luck".into())
        });
        let mut ring = Bench::builder(first, second).build().unwrap();
        for round in 1..=2 {
            let error = ring.run().unwrap_err();
            assert!(matches!(error, RingError::Setup(_)));
            assert_eq!(ended.take(), [("first", Err(libc::ECANCELED))]);
            assert_eq!(setups.load(Ordering::Relaxed), round);
            assert_eq!(ring.stats().in_flight, 0);
        }
        ledger.assert_all_dropped_once();
    });
}

#[test]
fn b16_a_panic_in_a_handler_ends_the_requests_before_their_data() {
    watched(|| {
        let ledger = Ledger::new();
        let (reader, _writer) = shared_pipe();
        let mut ring = Bench::with(
            8,
            Script::new()
                .on_setup(move |mut submitter| {
                    for number in 0..5 {
                        submitter.submit(ledger.issue(Job::new(number, &reader, 64)), |it| it.read())?;
                    }
                    submitter.submit(ledger.issue(Job::new(9, &reader, 0)), |_| request::nop())?;
                    Ok(())
                })
                .on_completion(|_, _, _| panic!("out of luck"))
                .on_teardown(|_, _, _| panic!("no handler is called after a panic")),
        );
        for _ in 0..2 {
            assert_eq!(panic_of(|| ring.run()), "out of luck");
            assert_eq!(ring.stats().in_flight, 0);
        }
        ledger.assert_all_dropped_once();
    });
}

#[test]
fn b19_an_entry_that_hides_its_success_is_refused() {
    watched(|| {
        let ledger = Ledger::new();
        let mut ring = Bench::with(8, Script::new());
        let mut submitter = ring.submitter(Bench::FIRST);
        let hidden = nop().flags(squeue::Flags::SKIP_SUCCESS);
        // SAFETY: a NOP points to nothing.
        let refused = unsafe { submitter.push(hidden.clone(), ledger.issue(1)) }.unwrap_err();
        assert!(matches!(refused.error, SubmitError::Invalid(_)));
        drop(refused);
        // If one member of a chain failed, it would hide the ends of all others.
        let chain = [linked(hidden), linked(nop()), nop()];
        let data = [2, 3, 4].map(|number| ledger.issue(number));
        // SAFETY: a NOP points to nothing.
        let refused = unsafe { submitter.push_multiple(chain, data) }.unwrap_err();
        assert!(matches!(refused.error, SubmitError::Invalid(_)));
        drop(refused);
        ring.run().unwrap();
        ledger.assert_all_dropped_once();
    });
}

#[test]
fn b21_a_ring_is_built_here_and_run_there() {
    watched(|| {
        let ledger = Ledger::new();
        let mut ring = Bench::with(
            8,
            Script::new().on_completion(|completion, _, _| {
                assert_eq!(outcome(&completion), Ok(0));
                (ControlFlow::Continue, None)
            }),
        );
        let data = ledger.issue(1);
        ring.submitter(Bench::FIRST).submit(data, |_| request::timeout(Duration::ZERO)).unwrap();
        thread::spawn(move || ring.run().unwrap()).join().unwrap();
        ledger.assert_all_dropped_once();
    });
}

#[test]
fn b22_errors_say_what_went_wrong() {
    watched(|| {
        let mut ring = Bench::<()>::with(8, Script::new().on_setup(|_| Err("the moon is full".into())));
        let error = ring.run().unwrap_err();
        assert_eq!(error.to_string(), "Bench: setup failed: operation `first`: the moon is full");
    });
}

#[test]
fn b23_completions_that_nobody_asked_for_are_counted_and_dropped() {
    watched(|| {
        let ledger = Ledger::new();
        let (reader, writer) = shared_pipe();
        let names = Log::new();
        let log = names.clone();
        let script = Script::new()
            .on_setup_once(move |mut submitter| {
                let key = submitter.submit(ledger.issue(Job::new(0, &reader, 8)), |it| it.read())?;
                log.push(key.user_data());
                Ok(())
            })
            .on_completion(|completion, _, _| {
                assert_eq!(outcome(&completion), Ok(1));
                (ControlFlow::Continue, None)
            });
        let (raw, target) = addressable(8);
        let mut ring = Bench::builder(script, Script::new()).raw_ring(raw).build().unwrap();
        assert!(!ring.turn().unwrap().is_finished());
        let mut sender = IoUring::new(8).unwrap();
        let [live] = names.take()[..] else { panic!("one request was submitted") };
        let (slot, generation) = (1 << 8, 1 << 40);
        // A generation, a slot, an operation without slots, and an operation that don't exist, and what used to be a
        // pointer.
        let strays =
            [live ^ generation, live + 7 * slot, live + 1, live + 199, u64::MAX, 0x5555_5555_5551, slot * 9];
        for user_data in strays {
            let message = opcode::MsgRingData::new(target, 42, user_data, None).build();
            // SAFETY: it points to nothing.
            unsafe { sender.submission().push(&message) }.unwrap();
            sender.submit_and_wait(1).unwrap();
            assert_eq!(sender.completion().next().unwrap().result(), 0);
        }
        assert!(!ring.turn().unwrap().is_finished());
        assert_eq!(ring.stats().foreign, strays.len() as u64);
        assert_eq!(ring.stats().in_flight, 1);
        std::fs::File::from(Arc::into_inner(writer).unwrap()).write_all(b"x").unwrap();
        ring.run().unwrap();
        ledger.assert_all_dropped_once();
    });
}

#[test]
fn b27_operations_are_read_and_moved_out_after_the_run_and_the_ring_is_stopped_from_outside() {
    /// Counts ticks.
    struct Counter {
        ticks: u32,
        ticked: mpsc::Sender<()>,
    }

    impl<R: Ring> RingOperation<R> for Counter {
        type RingData = ();
        type SetupError = SubmitError;
        type TeardownError = ();
        type ControlFlowWarn = ();
        type ControlFlowError = ();

        fn setup(&mut self, mut submitter: Submitter<'_, R, Self>) -> Result<(), SubmitError> {
            submitter.stream((), |()| request::timeout_multi(Duration::from_millis(1))).map(drop)
        }

        fn on_completion(
            &mut self,
            _: Completion,
            (): (),
            _: Submitter<'_, R, Self>,
        ) -> rummelplatz::CompletionResult<R, Self> {
            self.ticks += 1;
            self.ticked.send(()).ok();
            (ControlFlow::Continue, Some(()))
        }
    }

    #[ring]
    struct Counters {
        counter: Counter,
    }

    watched(|| {
        let (ticked, ticks) = mpsc::channel();
        let mut ring = Counters::builder(Counter { ticks: 0, ticked }).build().unwrap();
        let handle = ring.handle();
        let stopper = thread::spawn(move || {
            ticks.recv().unwrap();
            handle.stop();
        });
        ring.run().unwrap();
        stopper.join().unwrap();
        assert!(ring.counter.ticks > 0);
        let counter: Counter = ring.counter;
        assert!(counter.ticks > 0);
    });
}

#[test]
fn b28_all_teardown_errors_are_kept_beside_the_first_cause() {
    watched(|| {
        let ledger = Ledger::new();
        let mut ring = Bench::with(
            8,
            Script::new()
                .on_setup(move |mut submitter| {
                    for number in 0..3 {
                        submitter.submit(ledger.issue(number), |_| request::timeout(FOR_EVER))?;
                    }
                    submitter.submit(ledger.issue(9), |_| request::nop())?;
                    Ok(())
                })
                .on_completion(|_, _, _| (ControlFlow::Error("the first".into()), None))
                .on_teardown(|_, data, _| Err(format!("teardown {}", *data).into())),
        );
        for _ in 0..2 {
            let error = ring.run().unwrap_err();
            let RingError::Completion(cause) = &error else { panic!("{error}") };
            assert_eq!(cause.error.to_string(), "operation `first`: the first");
            let mut errors: Vec<_> = error.teardown_errors().iter().map(ToString::to_string).collect();
            errors.sort();
            assert_eq!(errors, [0, 1, 2].map(|it| format!("operation `first`: teardown {it}")));
        }
        ledger.assert_all_dropped_once();
    });
}

/// A kernel that supports no cancel at all, in place of one that does not support the kind that was asked for.
#[test]
fn b29_a_teardown_whose_cancels_are_refused_waits_and_does_not_spin() {
    watched(|| {
        let ring = || {
            let opcodes = [opcode::Nop::CODE, opcode::Timeout::CODE];
            restricted(&mut IoUring::builder(), 8, &opcodes, &[IORING_REGISTER_EVENTFD])
        };
        let script = |ledger: Ledger, time: Duration, log: Log<Result<u32, i32>>| {
            Script::new()
                .on_setup_once(move |mut submitter| {
                    submitter.submit(ledger.issue(1), move |_| request::timeout(time))?;
                    submitter.submit(ledger.issue(2), |_| request::nop())?;
                    Ok(())
                })
                .on_completion(|_, _, _| (ControlFlow::Exit, None))
                .on_teardown(move |completion, _, _| {
                    log.push(outcome(&completion));
                    Ok(())
                })
        };

        let (ledger, log) = (Ledger::new(), Log::new());
        let first = script(ledger, Duration::from_millis(100), log.clone());
        let mut patient = Bench::builder(first, Script::new()).raw_ring(ring()).build().unwrap();
        patient.run().unwrap();
        assert_eq!(log.take(), [Ok(0)], "it ran its time");
        ledger.assert_all_dropped_once();

        let (ledger, log) = (Ledger::new(), Log::new());
        let first = script(ledger, FOR_EVER, log.clone());
        let mut hurried = Bench::builder(first, Script::new())
            .raw_ring(ring())
            .deadline(Duration::from_millis(100))
            .build()
            .unwrap();
        assert!(matches!(hurried.run(), Err(RingError::Abandoned { .. })));
        drop(hurried);
        assert_eq!((log.len(), ledger.alive()), (0, 1));
        ledger.assert_none_dropped_twice();
    });
}

// ---- what else was seen when the earlier library was run against the kernel's rules -----------------

#[test]
fn b32_a_request_that_goes_on_after_its_first_completion_is_delivered_once() {
    watched(|| {
        let ledger = Ledger::new();
        let (reader, writer) = shared_pipe();
        let delivered = Log::new();
        let log = delivered.clone();
        let mut ring = Bench::with(
            8,
            Script::new()
                .on_setup_once(move |mut submitter| {
                    // A multishot as a raw entry is not a stream, so all but the first completion are held back.
                    let data = ledger.issue(Some(reader));
                    let poll = opcode::PollAdd::new(
                        types::Fd(data.as_ref().unwrap().as_raw_fd()),
                        Events::READABLE.bits(),
                    );
                    // SAFETY: a poll points to nothing, and the data owns the descriptor.
                    let key = unsafe { submitter.push(poll.multi(true).build(), data) }?;
                    for _ in 0..3 {
                        submitter
                            .submit(ledger.issue(None), |_| request::timeout(Duration::from_millis(5)))?;
                    }
                    let _ = key;
                    Ok(())
                })
                .on_completion({
                    let mut ticks = 0;
                    move |completion, data: Tracked<Option<Arc<OwnedFd>>>, mut submitter| {
                        if data.is_some() {
                            log.push(completion.raw().result);
                            return (ControlFlow::Continue, Some(data));
                        }
                        ticks += 1;
                        let mut writer: &std::fs::File = &std::fs::File::from(writer.try_clone().unwrap());
                        writer.write_all(b"x").unwrap();
                        if ticks == 3 {
                            submitter.cancel_all();
                        }
                        (ControlFlow::Continue, None)
                    }
                }),
        );
        ring.run().unwrap();
        assert_eq!(delivered.take(), [i32::from(libc::POLLIN)]);
        assert_eq!(ring.stats().returned_late, 1);
        ledger.assert_all_dropped_once();
    });
}
