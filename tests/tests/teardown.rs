//! How rings end: every request ends exactly once, however the ring ends. The catalogue of faults has its part of this
//! in `faults/teardown.rs`; this is the rest.

use std::fs::File;
use std::io::Write;
use std::mem;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rummelplatz::io_uring::{IoUring, opcode, squeue, types};
use rummelplatz::request::Events;
use rummelplatz::{BufferPool, ControlFlow, Key, RawRing, RingError, Status, SubmitError, request};
use rummelplatz_tests::{
    Bench, BenchSubmitter, IORING_REGISTER_EVENTFD, Job, Ledger, Log, PATIENCE, Script, Tracked,
    count_enters, exit, in_child, open_descriptors, outcome, panic_of, pipe, restricted, tcp_pair, watched,
};

const FOR_EVER: Duration = Duration::from_secs(100_000);
const CANCELLED: Result<u32, i32> = Err(libc::ECANCELED);

fn shared_pipe() -> (Arc<OwnedFd>, Arc<OwnedFd>) {
    let (reader, writer) = pipe();
    (Arc::new(reader), Arc::new(writer))
}

// ---- what is in flight ----------------------------------------------------------------------------

#[test]
fn ten_thousand_reads_in_flight_end() {
    watched(|| {
        let ledger = Ledger::new();
        let (reader, _writer) = shared_pipe();
        let ended = Log::new();
        let log = ended.clone();
        let data = ledger.issue(Job::new(0, &reader, 0));
        let reads = Script::new()
            .on_setup_once(move |mut submitter| {
                for number in 0..10_000 {
                    submitter.submit(ledger.issue(Job::new(number, &reader, 16)), |it| it.read())?;
                }
                Ok(())
            })
            .on_teardown(move |completion, _, _| {
                log.push(outcome(&completion));
                Ok(())
            });
        Bench::builder(reads, exit(data)).build().unwrap().run().unwrap();
        assert_eq!(ended.take(), vec![CANCELLED; 10_000]);
        ledger.assert_all_dropped_once();
    });
}

/// The kernel finds the newest of what waits in a poll first, so that is what a teardown begins with. Within a part, the
/// oldest comes first.
#[test]
fn the_newest_requests_are_cancelled_first_part_by_part() {
    watched(|| {
        for (entries, part) in [(1024, 128), (64, 64), (1, 1)] {
            // Slots are made 64 at a time, and free ones count as well.
            const COUNT: u64 = 5 * 64;
            let (reader, _writer) = shared_pipe();
            let ended = Log::new();
            let log = ended.clone();
            let reads = Script::new()
                .on_setup_once(move |mut submitter| {
                    for number in 0..COUNT {
                        submitter.submit(Job::new(number, &reader, 16), |it| it.read())?;
                    }
                    submitter.handle().stop();
                    Ok(())
                })
                .on_teardown(move |_, job: Job, _| {
                    log.push(job.number);
                    Ok(())
                });
            Bench::with(entries, reads).run().unwrap();
            let oldest_first: Vec<u64> = (0..COUNT).collect();
            let expected: Vec<u64> = oldest_first.rchunks(part).flatten().copied().collect();
            assert_eq!(ended.take(), expected, "{entries} entries");
        }
    });
}

#[test]
fn timers_that_fire_faster_than_they_can_be_looked_at_end() {
    watched(|| {
        for is_dropped in [false, true] {
            let ledger = Ledger::new();
            let mut ticks = 0;
            let script = Script::new().on_completion(move |_, data: Tracked<u32>, _| {
                ticks += 1;
                (
                    if ticks == 600 && !is_dropped { ControlFlow::Exit } else { ControlFlow::Continue },
                    Some(data),
                )
            });
            let mut ring = Bench::with(64, script);
            for number in 0..300 {
                // As short as an interval may be.
                let mut submitter = ring.submitter(Bench::FIRST);
                submitter.stream(ledger.issue(number), |_| request::timeout_multi(Duration::ZERO)).unwrap();
            }
            match is_dropped {
                false => ring.run().unwrap(),
                true => drop((ring.turn().unwrap(), ring)),
            }
            ledger.assert_all_dropped_once();
        }
    });
}

// ---- zero-copy sends ------------------------------------------------------------------------------

#[test]
fn a_zero_copy_send_that_fails_at_once_ends_with_its_error_when_the_memory_is_free() {
    watched(|| {
        for (in_teardown, send) in [
            (false, Job::send_zc as for<'d> fn(&'d mut Job) -> rummelplatz::Request<'d>),
            (true, Job::send_zc),
            (false, Job::send_vectored_zc),
            (true, Job::send_vectored_zc),
        ] {
            let ledger = Ledger::new();
            let (client, server) = tcp_pair();
            client.shutdown(std::net::Shutdown::Write).unwrap();
            let file = Arc::new(OwnedFd::from(client));
            let ended = Log::new();
            let (log, late_log) = (ended.clone(), ended.clone());
            let nothing = ledger.issue(Job::new(9, &file, 0));
            let sender = Script::new()
                .on_setup_once(move |mut submitter| {
                    for _ in 0..3 {
                        let data = ledger.issue(Job::new(0, &file, 4096));
                        submitter.submit(data, |data| send(data))?;
                    }
                    Ok(())
                })
                .on_completion(move |completion, _, _| {
                    log.push(outcome(&completion));
                    (ControlFlow::Continue, None)
                })
                .on_teardown(move |completion, _, _| {
                    late_log.push(outcome(&completion));
                    Ok(())
                });
            let other = if in_teardown {
                exit(nothing)
            } else {
                drop(nothing);
                Script::new()
            };
            let mut ring = Bench::builder(sender, other).build().unwrap();
            ring.run().unwrap();
            // The error comes first and announces another completion; the notification is the end.
            assert_eq!(ended.take(), [Err(libc::EPIPE); 3]);
            assert_eq!(ring.stats().foreign, 0);
            drop((ring, server));
            ledger.assert_all_dropped_once();
        }
    });
}

// ---- teardown handlers ------------------------------------------------------------------------------

#[test]
fn messages_that_were_posted_before_the_exit_are_handed_to_the_teardown_handler() {
    watched(|| {
        let ledger = Ledger::new();
        let ended = Log::new();
        let log = ended.clone();
        let script = Script::new()
            .on_setup_once(move |mut submitter| {
                submitter.submit(ledger.issue(0), |_| request::nop())?;
                Ok(())
            })
            .on_completion(move |_, _, mut submitter| {
                for number in 1..=3 {
                    submitter.post(ledger.issue(number)).unwrap();
                }
                (ControlFlow::Exit, None)
            })
            .on_teardown(move |completion, data, _| {
                log.push((*data, completion.is_message()));
                Ok(())
            });
        Bench::with(8, script).run().unwrap();
        assert_eq!(ended.take(), [(1, true), (2, true), (3, true)]);
        ledger.assert_all_dropped_once();
    });
}

/// How a ring ends that has a stuck request.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Stopped {
    Dropped,
    DroppedElsewhere,
    Panicked,
    Run,
}

#[test]
fn what_is_abandoned_where_no_result_says_so_is_told_to_a_hook() {
    for how in [Stopped::Dropped, Stopped::DroppedElsewhere, Stopped::Panicked, Stopped::Run] {
        watched(move || {
            let (client, server) = tcp_pair();
            let file = Arc::new(OwnedFd::from(client));
            let script = Script::new()
                .on_setup_once(move |mut submitter| {
                    submitter.submit(Job::new(0, &file, 4 << 20), |data| data.send_zc())?;
                    submitter.submit(Job::new(1, &file, 0), |_| request::nop())?;
                    Ok(())
                })
                .on_completion(move |_, _, _| match how {
                    Stopped::Panicked => resume_unwind(Box::new("the end")),
                    Stopped::Run => (ControlFlow::Exit, None),
                    Stopped::Dropped | Stopped::DroppedElsewhere => (ControlFlow::Continue, None),
                });
            let told = Log::new();
            let log = told.clone();
            let builder = Bench::builder(script, Script::new()).deadline(Duration::from_millis(50));
            let mut ring = builder.on_abandoned(move |stuck| log.push(stuck.clone())).build().unwrap();
            match how {
                Stopped::Dropped => drop(ring.turn().unwrap()),
                Stopped::DroppedElsewhere => {
                    ring.turn().unwrap();
                    thread::spawn(move || drop(ring)).join().unwrap();
                    assert_eq!(told.len(), 1);
                    return drop(server);
                }
                Stopped::Panicked => assert_eq!(panic_of(|| ring.run()), "the end"),
                Stopped::Run => assert!(ring.run().unwrap_err().abandoned().is_some()),
            }
            drop((ring, server));
            let opcodes: Vec<_> = told.take().iter().map(|stuck| stuck.requests[0].opcode).collect();
            let expected = if how == Stopped::Run { &[][..] } else { &[opcode::SendZc::CODE] };
            assert_eq!(opcodes, expected, "{how:?}");
        });
    }
}

#[test]
fn cancelling_from_a_teardown_handler_is_harmless() {
    watched(|| {
        let ledger = Ledger::new();
        let (reader, _writer) = shared_pipe();
        let nothing = ledger.issue(Job::new(9, &reader, 0));
        let reads = Script::new()
            .on_setup_once(move |mut submitter| {
                for number in 0..20 {
                    submitter.submit(ledger.issue(Job::new(number, &reader, 8)), |it| it.read())?;
                }
                Ok(())
            })
            .on_teardown(|_, _, mut submitter| {
                submitter.cancel_all();
                Ok(())
            });
        let mut ring = Bench::builder(reads, exit(nothing)).entries(4.try_into().unwrap()).build().unwrap();
        ring.run().unwrap();
        ledger.assert_all_dropped_once();
    });
}

#[test]
fn a_setup_error_a_teardown_error_and_what_is_stuck_are_all_told_of() {
    watched(|| {
        let ledger = Ledger::new();
        let (client, server) = tcp_pair();
        let file = Arc::new(OwnedFd::from(client));
        let first = Script::new()
            .on_setup_once(move |mut submitter| {
                let data = ledger.issue(Job::new(0, &file, 4 << 20));
                submitter.submit(data, |data| data.send_zc())?;
                let timer = ledger.issue(Job::new(1, &file, 0));
                submitter.submit(timer, |_| request::timeout(FOR_EVER))?;
                Ok(())
            })
            .on_teardown(|_, _, _| Err("not even that".into()));
        let second = Script::new().on_setup(|_| Err("no such luck".into()));
        let mut ring = Bench::builder(first, second).deadline(Duration::from_secs(2)).build().unwrap();
        let error = ring.run().unwrap_err();
        let RingError::Setup(cause) = &error else { panic!("{error}") };
        assert_eq!(cause.error.to_string(), "operation `second`: no such luck");
        assert_eq!(error.teardown_errors().len(), 1);
        assert_eq!(error.abandoned().unwrap().requests.len(), 1);
        assert!(matches!(ring.run(), Err(RingError::Abandoned { .. })));
        drop((ring, server));
        assert_eq!(ledger.alive(), 1);
    });
}

// ---- rings that are not run to their end ------------------------------------------------------------

#[test]
fn a_ring_that_is_dropped_in_mid_run_cancels_and_waits_without_calling_handlers() {
    watched(|| {
        let ledger = Ledger::new();
        let (reader, writer) = shared_pipe();
        let script = Script::new()
            .on_setup_once(move |mut submitter| {
                for number in 0..100 {
                    submitter.submit(ledger.issue(Job::new(number, &reader, 8)), |it| it.read())?;
                }
                submitter.post(ledger.issue(Job::new(100, &reader, 8)))?;
                Ok(())
            })
            .on_completion(move |completion, data: Tracked<Job>, mut submitter| {
                assert!(completion.is_message());
                submitter.post(data).unwrap();
                (ControlFlow::Continue, None)
            })
            .on_teardown(|_, _, _| panic!("the ring was dropped"));
        let mut ring = Bench::with(16, script);
        for _ in 0..3 {
            assert_eq!(ring.turn().unwrap().status, Status::Progressed);
        }
        assert_eq!(ring.stats().in_flight, 101);
        drop(ring);
        ledger.assert_all_dropped_once();
        drop(writer);
    });
}

#[test]
fn an_idle_ring_may_be_dropped_in_another_thread() {
    in_child(|| {
        let before = open_descriptors();
        let ledger = Ledger::new();
        let mut ring = Bench::with(8, exit(ledger.issue(0)));
        ring.run().unwrap();
        thread::spawn(move || drop(ring)).join().unwrap();
        ledger.assert_all_dropped_once();
        let began = Instant::now();
        while open_descriptors() != before {
            assert!(began.elapsed() < PATIENCE);
            thread::yield_now();
        }
    });
}

#[test]
fn a_forgotten_ring_frees_nothing() {
    in_child(|| {
        let ledger = Ledger::new();
        let (reader, writer) = shared_pipe();
        let script = Script::new().on_setup_once(move |mut submitter| {
            submitter.submit(ledger.issue(Job::new(0, &reader, 8)), |it| it.read())?;
            Ok(())
        });
        let mut ring = Bench::with(8, script);
        assert!(!ring.turn().unwrap().is_finished());
        mem::forget(ring);
        File::from(Arc::into_inner(writer).unwrap()).write_all(b"x").unwrap();
        assert_eq!(ledger.alive(), 1);
    });
}

#[test]
fn what_was_submitted_between_two_runs_is_part_of_the_second() {
    watched(|| {
        let ledger = Ledger::new();
        let seen = Log::new();
        let log = seen.clone();
        let script = Script::new().on_completion(move |_, data: Tracked<u32>, _| {
            log.push(*data);
            (ControlFlow::Continue, None)
        });
        let mut ring = Bench::with(8, script);
        for number in 0..4 {
            ring.submitter(Bench::FIRST).submit(ledger.issue(number), |_| request::nop()).unwrap();
            ring.run().unwrap();
            assert_eq!(seen.take(), [number]);
        }
        // Nobody runs this ring.
        ring.submitter(Bench::FIRST).submit(ledger.issue(9), |_| request::timeout(FOR_EVER)).unwrap();
        drop(ring);
        ledger.assert_all_dropped_once();
    });
}

#[test]
fn a_ring_that_was_to_listen_to_its_handles_when_there_was_no_room_listens_in_the_next_run() {
    watched(|| {
        let ledger = Ledger::new();
        let mut runs = 0;
        let script = Script::new().on_setup(move |mut submitter| {
            runs += 1;
            if runs == 1 {
                return Err("so that the backlog is handed back".into());
            }
            submitter.submit(ledger.issue(9), |_| request::timeout(FOR_EVER))?;
            Ok(())
        });
        let mut ring = Bench::with(2, script);
        for number in 0..6 {
            ring.submitter(Bench::FIRST)
                .submit(ledger.issue(number), |_| request::timeout(FOR_EVER))
                .unwrap();
        }
        let handle = ring.handle();
        assert!(matches!(ring.run(), Err(RingError::Setup(_))));
        let stopper = thread::spawn(move || {
            thread::sleep(Duration::from_millis(50));
            handle.stop();
        });
        ring.run().unwrap();
        stopper.join().unwrap();
        ledger.assert_all_dropped_once();
    });
}

#[test]
fn finish_ends_what_turns_have_begun_and_what_never_began() {
    watched(|| {
        let ledger = Ledger::new();
        let ended = Log::new();
        let script = |log: Log<_>| {
            Script::new()
                .on_setup_once(move |mut submitter| {
                    submitter.submit(ledger.issue(1), |_| request::timeout(FOR_EVER))?;
                    Ok(())
                })
                .on_teardown(move |completion, data: Tracked<u32>, _| {
                    log.push((*data, outcome(&completion)));
                    Ok(())
                })
        };
        let mut ring = Bench::with(8, script(ended.clone()));
        assert!(!ring.turn().unwrap().is_finished());
        ring.finish().unwrap();
        assert_eq!(ended.take(), [(1, CANCELLED)]);
        ring.finish().unwrap();

        let mut ring = Bench::with(2, script(ended.clone()));
        let mut submitter = ring.submitter(Bench::FIRST);
        for number in 10..16 {
            submitter.submit(ledger.issue(number), |_| request::timeout(FOR_EVER)).unwrap();
        }
        ring.finish().unwrap();
        let mut ended = ended.take();
        ended.sort();
        assert_eq!(ended, (10..16).map(|number| (number, CANCELLED)).collect::<Vec<_>>());
        drop(ring);
        ledger.assert_all_dropped_once();
    });
}

#[test]
fn a_weak_handle_taken_by_the_last_handler_does_not_keep_the_ring_waiting() {
    watched(|| {
        let ledger = Ledger::new();
        let handles = Log::new();
        let log = handles.clone();
        let script = exit(ledger.issue(0)).on_completion(move |_, _, mut submitter| {
            log.push(submitter.handle());
            (ControlFlow::Continue, None)
        });
        Bench::with(8, script).run().unwrap();
        assert_eq!(handles.len(), 1);
        ledger.assert_all_dropped_once();
    });
}

#[test]
fn an_untracked_entry_of_the_last_handler_does_not_keep_the_ring_waiting() {
    watched(|| {
        let ledger = Ledger::new();
        let (reader, writer) = pipe();
        let fd = types::Fd(reader.as_raw_fd());
        let script = exit(ledger.issue(0)).on_completion(move |_, _, mut submitter| {
            let poll = opcode::PollAdd::new(fd, Events::READABLE.bits()).build();
            // SAFETY: it points to nothing, and the descriptor is open until the end of the test.
            unsafe { submitter.push_raw(poll) }.unwrap();
            (ControlFlow::Continue, None)
        });
        let mut ring = Bench::with(8, script);
        ring.run().unwrap();
        drop(ring);
        drop((reader, writer));
        ledger.assert_all_dropped_once();
    });
}

// ---- rings of other kinds ---------------------------------------------------------------------------

#[test]
fn a_ring_of_any_kind_runs_and_is_torn_down() {
    watched(|| {
        for kind in 0..6 {
            let mut builder = IoUring::builder();
            match kind {
                0 => &mut builder,
                1 => builder.setup_coop_taskrun(),
                2 => builder.setup_single_issuer(),
                3 => builder.setup_single_issuer().setup_defer_taskrun(),
                4 => builder.setup_sqpoll(1),
                _ => builder.setup_sqpoll(1000).setup_single_issuer(),
            };
            for end in [ControlFlow::<(), ()>::Exit, ControlFlow::Error(()), ControlFlow::Continue] {
                let uring = builder.build(4).unwrap();
                // SAFETY: it is new.
                let raw = unsafe { RawRing::from_io_uring(uring) }.unwrap();
                let ledger = Ledger::new();
                let (reader, writer) = shared_pipe();
                // So the reads don't see the end of the file.
                let _keep = Arc::clone(&writer);
                let ended = Log::new();
                let log = ended.clone();
                let script = Script::new()
                    .on_setup_once(move |mut submitter| {
                        for number in 0..20 {
                            submitter.submit(ledger.issue(Job::new(number, &reader, 1)), |it| it.read())?;
                            let timer = ledger.issue(Job::new(50, &reader, 0));
                            submitter.submit(timer, |_| request::timeout(Duration::ZERO))?;
                        }
                        let mut writer = ledger.issue(Job::new(60, &writer, 3));
                        writer.buffer.fill(1);
                        submitter.submit(writer, |it| it.write())?;
                        let timer = ledger.issue(Job::new(99, &reader, 0));
                        submitter.submit(timer, |_| request::timeout(Duration::from_millis(20)))?;
                        Ok(())
                    })
                    .on_completion(move |completion, data, mut submitter| {
                        assert!(completion.result().is_ok() || data.number < 20);
                        if data.number != 99 {
                            return (ControlFlow::Continue, None);
                        }
                        if end == ControlFlow::Continue {
                            assert_eq!(submitter.cancel_all(), 17);
                        }
                        let end = match end {
                            ControlFlow::Error(()) => ControlFlow::Error("the end".into()),
                            ControlFlow::Exit => ControlFlow::Exit,
                            _ => ControlFlow::Continue,
                        };
                        (end, None)
                    })
                    .on_teardown(move |completion, _, _| {
                        log.push(outcome(&completion));
                        Ok(())
                    });
                let mut ring = Bench::builder(script, Script::new()).raw_ring(raw).build().unwrap();
                assert_eq!(ring.run().is_err(), end == ControlFlow::Error(()));
                let expected = if end == ControlFlow::Continue { 0 } else { 17 };
                assert_eq!(ended.take(), vec![CANCELLED; expected], "kind {kind}");
                ledger.assert_all_dropped_once();
            }
        }
    });
}

#[test]
fn a_ring_within_the_data_of_another_ends_with_it() {
    watched(|| {
        let ledger = Ledger::new();
        let (reader, _writer) = shared_pipe();
        let mut inner = Bench::with(8, Script::new());
        for number in 0..10 {
            let data = ledger.issue(Job::new(number, &reader, 1));
            inner.submitter(Bench::FIRST).submit(data, |it| it.read()).unwrap();
        }
        inner.turn().unwrap();
        let outer = Script::new().on_setup_once(move |mut submitter| {
            submitter.submit(Some(inner), |_| request::timeout(FOR_EVER))?;
            Ok(())
        });
        Bench::builder(outer, exit(None)).build().unwrap().run().unwrap();
        ledger.assert_all_dropped_once();
    });
}

// ---- the end of a batch -----------------------------------------------------------------------------

#[test]
fn what_completed_in_the_same_batch_as_the_last_word_is_handed_to_the_teardown_handler() {
    in_child(|| {
        let before = open_descriptors();
        let ledger = Ledger::new();
        let ended = Log::new();
        let log = ended.clone();
        let listener = Arc::new(TcpListener::bind("127.0.0.1:0").unwrap());
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let script = Script::new()
            .on_setup_once(move |mut submitter| {
                for number in 0..5 {
                    let data = ledger.issue((number, Arc::clone(&listener)));
                    submitter.submit(data, |_| request::nop())?;
                }
                submitter.submit(ledger.issue((5, listener)), |it| request::accept(&*it.value.1))?;
                Ok(())
            })
            .on_completion(|_, _, _| (ControlFlow::Exit, None))
            .on_teardown(move |completion, data, _| {
                let number = data.value.0;
                let result = outcome(&completion);
                if number == 5 {
                    assert!(completion.into_fd().unwrap().as_raw_fd() > 2);
                }
                log.push((number, result));
                Ok(())
            });
        let mut ring = Bench::with(8, script);
        ring.run().unwrap();
        assert_eq!(ended.take(), [1, 2, 3, 4, 5].map(|number| (number, Ok(0))));
        drop((ring, client));
        assert_eq!(open_descriptors(), before);
        ledger.assert_all_dropped_once();
    });
}

#[test]
fn without_a_grace_period_teardown_handlers_can_submit_nothing() {
    watched(|| {
        let ledger = Ledger::new();
        let script = Script::new()
            .on_setup_once(move |mut submitter| {
                submitter.submit(ledger.issue(0), |_| request::timeout(FOR_EVER))?;
                Ok(())
            })
            .on_teardown(move |_, _, mut submitter| {
                let refused = submitter.submit(ledger.issue(1), |_| request::nop());
                assert_eq!(refused, Err(SubmitError::Closed));
                Ok(())
            });
        let mut ring = Bench::builder(script, exit(ledger.issue(2))).grace(Duration::ZERO).build().unwrap();
        ring.run().unwrap();
        // It is open again for the next run.
        ring.submitter(Bench::FIRST).submit(ledger.issue(3), |_| request::nop()).unwrap();
        ring.run().unwrap();
        ledger.assert_all_dropped_once();
    });
}

#[test]
fn what_is_late_is_cancelled_before_the_deadline() {
    watched(|| {
        let ledger = Ledger::new();
        let ended = Log::new();
        let log = ended.clone();
        let script = Script::new()
            .on_setup_once(move |mut submitter| {
                let data = ledger.issue(0);
                submitter.submit(data, |_| request::timeout(Duration::from_millis(1)))?;
                submitter.submit(ledger.issue(1), |_| request::timeout(Duration::MAX))?;
                Ok(())
            })
            .on_completion(|_, _: Tracked<u32>, _| (ControlFlow::Exit, None))
            .on_teardown(move |completion, data, mut submitter| {
                log.push((*data, outcome(&completion)));
                if *data == 1 {
                    submitter.submit(ledger.issue(2), |_| request::timeout(Duration::MAX))?;
                }
                Ok(())
            });
        let mut ring = Bench::builder(script, Script::new())
            .grace(Duration::MAX)
            .deadline(Duration::from_millis(500))
            .build()
            .unwrap();
        ring.run().unwrap();
        assert_eq!(ended.take(), [1, 2].map(|number| (number, CANCELLED)));
        ledger.assert_all_dropped_once();
    });
}

#[test]
fn the_longest_of_times_are_no_trouble() {
    watched(|| {
        let ledger = Ledger::new();
        let ended = Log::new();
        let log = ended.clone();
        let script = Script::new()
            .on_setup_once(move |mut submitter| {
                submitter.submit(ledger.issue(0), |_| request::timeout(Duration::MAX))?;
                submitter.stream(ledger.issue(1), |_| request::timeout_multi(Duration::MAX))?;
                let far = Instant::now() + Duration::from_secs(1 << 40);
                submitter.submit(ledger.issue(2), move |_| request::timeout_at(far))?;
                let far = std::time::SystemTime::now() + Duration::from_secs(1 << 40);
                submitter.submit(ledger.issue(3), move |_| request::timeout_at_time(far))?;
                let data = ledger.issue(99);
                submitter.submit(data, |_| request::timeout(Duration::from_millis(20)))?;
                Ok(())
            })
            .on_completion(|_, data: Tracked<u32>, _| {
                assert_eq!(*data, 99);
                (ControlFlow::Exit, None)
            })
            .on_teardown(move |completion, data, _| {
                log.push((*data, outcome(&completion)));
                Ok(())
            });
        let mut ring = Bench::builder(script, Script::new())
            .grace(Duration::MAX)
            .deadline(Duration::MAX)
            .build()
            .unwrap();
        ring.run().unwrap();
        let mut ended = ended.take();
        ended.sort();
        assert_eq!(ended, [0, 1, 2, 3].map(|number| (number, CANCELLED)));
        ledger.assert_all_dropped_once();
    });
}

// ---- random programs ----------------------------------------------------------------------------------

struct XorShift(u64);

impl XorShift {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// What the handlers of a random program share.
struct Chaos {
    random: XorShift,
    ledger: Ledger,
    reader: Arc<OwnedFd>,
    writer: Arc<OwnedFd>,
    keys: Vec<Key<Script<Tracked<Job>>>>,
    /// How many more requests may be submitted.
    budget: u32,
}

impl Chaos {
    fn act(&mut self, mut submitter: BenchSubmitter<'_, Tracked<Job>>) {
        self.budget -= 1;
        let tag = if self.random.below(2) == 0 { Bench::FIRST } else { Bench::SECOND };
        let mut submitter = submitter.to(tag);
        let read = self.ledger.issue(Job::new(0, &self.reader, 2));
        let write = self.ledger.issue(Job::new(0, &self.writer, 1));
        let short = Duration::from_micros(self.random.below(300));
        let every = |_: &mut Tracked<Job>| request::timeout_multi(Duration::from_micros(300));
        let key = match self.random.below(16) {
            0 => submitter.submit(read, |_| request::nop()).ok(),
            1 => submitter.submit(read, move |_| request::timeout(short)).ok(),
            2 => submitter.submit(read, |_| request::timeout(FOR_EVER)).ok(),
            3 => submitter.submit(write, |it| it.write()).ok(),
            4 | 5 => submitter.submit(read, |it| it.read()).ok(),
            6 => submitter.submit(read, |it| request::poll(&*it.file, Events::READABLE)).ok(),
            7 => submitter.stream(read, every).ok(),
            8 => submitter.stream(read, |it| request::poll_multi(&*it.file, Events::READABLE)).ok(),
            9 => submitter.detach(read, |it| it.read()).ok().and(None),
            10 => submitter.detach(write, |it| it.write()).ok().and(None),
            11 => submitter.post(read).ok().and(None),
            12 => {
                let index = self.random.below(self.keys.len() as u64 + 1) as usize;
                if let Some(key) = self.keys.get(index) {
                    submitter.cancel(*key);
                }
                None
            }
            13 if self.random.below(4) == 0 => {
                submitter.cancel_all();
                None
            }
            kind => {
                let flags = if kind == 14 { squeue::Flags::IO_HARDLINK } else { squeue::Flags::IO_LINK };
                let mut data = [read, write, self.ledger.issue(Job::new(0, &self.reader, 2))];
                let nop = opcode::Nop::new().build();
                let entries = match self.random.below(3) {
                    0 => [data[0].read_entry(), data[1].write_entry(), data[2].read_entry()],
                    1 => [nop.clone(), data[1].write_entry(), nop],
                    _ => [data[0].read_entry(), nop, data[2].read_entry()],
                };
                let [first, second, third] = entries;
                let entries = [first.flags(flags), second.flags(flags), third];
                // SAFETY: each entry points to the buffer on the heap that its data owns.
                unsafe { submitter.push_multiple(entries, data) }.ok().map(|keys| keys[0])
            }
        };
        self.keys.extend(key);
    }
}

fn random_program(seed: u64) {
    let ledger = Ledger::new();
    let (reader, writer) = shared_pipe();
    let mut random = XorShift(seed);
    // The first numbers of neighbouring seeds are very similar.
    for _ in 0..8 {
        random.below(2);
    }
    let entries = 1 << random.below(5);
    let completions = entries << random.below(3);
    let last_word = random.below(5);
    let turns = if last_word == 4 { Some(random.below(8)) } else { None };
    let budget = 5 + random.below(60) as u32;
    let chaos = Chaos { random, ledger, reader, writer, keys: Vec::new(), budget };
    let chaos = Arc::new(Mutex::new(chaos));
    let script = || {
        let [in_setup, in_handler, in_teardown] = [(); 3].map(|()| Arc::clone(&chaos));
        Script::new()
            .on_setup(move |mut submitter| {
                let mut chaos = in_setup.lock().unwrap();
                for _ in 0..chaos.random.below(12) {
                    if chaos.budget > 0 {
                        chaos.act(submitter.reborrow());
                    }
                }
                match chaos.random.below(20) {
                    0 => Err("setup".into()),
                    _ => Ok(()),
                }
            })
            .on_completion(move |_, data: Tracked<Job>, mut submitter| {
                let mut chaos = in_handler.lock().unwrap();
                for _ in 0..chaos.random.below(3) {
                    if chaos.budget > 0 {
                        chaos.act(submitter.reborrow());
                    }
                }
                let flow = match chaos.random.below(40) {
                    0 => ControlFlow::Exit,
                    1 => ControlFlow::Error("handler".into()),
                    2 if last_word == 0 => {
                        drop(chaos);
                        panic!("handler")
                    }
                    3..8 => ControlFlow::Warn("handler"),
                    // Streams and reads of a pipe to which nobody writes never end by themselves.
                    _ if chaos.budget == 0 => ControlFlow::Exit,
                    _ => ControlFlow::Continue,
                };
                (flow, (chaos.random.below(3) > 0).then_some(data))
            })
            .on_teardown(move |_, _, mut submitter| {
                let mut chaos = in_teardown.lock().unwrap();
                if chaos.budget > 0 && chaos.random.below(3) == 0 {
                    chaos.act(submitter.reborrow());
                }
                match chaos.random.below(20) {
                    0 => Err("teardown".into()),
                    1 if last_word == 1 => {
                        drop(chaos);
                        panic!("teardown")
                    }
                    _ => Ok(()),
                }
            })
    };
    // Something that always completes, so that the program ends.
    let tick = Arc::clone(&chaos);
    let first = script();
    let mut ring = Bench::builder(first, script())
        .entries(entries.try_into().unwrap())
        .completion_entries(completions.try_into().unwrap())
        .backlog_limit(20.try_into().unwrap())
        .grace(Duration::from_millis(3))
        .build()
        .unwrap();
    let ran = catch_unwind(AssertUnwindSafe(|| match turns {
        Some(turns) => (0..turns).for_each(|_| drop(ring.turn())),
        None => {
            let data = ledger.issue(Job::new(0, &tick.lock().unwrap().reader, 0));
            let every = |_: &mut Tracked<Job>| request::timeout_multi(Duration::from_micros(500));
            ring.submitter(Bench::SECOND).stream(data, every).unwrap();
            let handle = ring.handle().downgrade();
            let stopper = thread::spawn(move || {
                thread::sleep(Duration::from_millis(30));
                handle.stop();
            });
            drop(ring.run());
            drop(stopper);
        }
    }));
    if ran.is_ok() && turns.is_none() {
        assert_eq!(ring.stats().in_flight, 0, "seed {seed}");
    }
    assert_eq!(ring.stats().foreign, 0, "seed {seed}");
    drop(ring);
    let drops = catch_unwind(|| ledger.assert_all_dropped_once());
    assert!(drops.is_ok(), "seed {seed}");
}

/// `RUMMEL_SEED=n` repeats one program; `RUMMEL_PROGRAMS=n` runs that many.
#[test]
fn random_programs_leave_nothing_behind() {
    in_child(|| {
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let payload = info.payload().downcast_ref::<&str>();
            if !payload.is_some_and(|text| ["handler", "teardown"].contains(text)) {
                report(info);
            }
        }));
        if let Ok(seed) = std::env::var("RUMMEL_SEED") {
            return random_program(seed.parse().unwrap());
        }
        let count = std::env::var("RUMMEL_PROGRAMS").map_or(200, |count| count.parse().unwrap());
        let base = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
        for number in 0..count {
            eprintln!("seed {}", base + number);
            random_program(base + number);
        }
    });
}

#[test]
fn errors_of_a_teardown_that_nothing_else_has_begun_are_told_in_order() {
    watched(|| {
        let script = Script::new()
            .on_setup_once(|mut submitter| {
                for number in 0..3 {
                    submitter.post(number)?;
                }
                Ok(())
            })
            .on_completion(|_, _, _| (ControlFlow::Exit, None))
            .on_teardown(|_, number: u32, _| Err(format!("number {number}").into()));
        let RingError::Teardown(cause) = Bench::with(8, script).run().unwrap_err() else { panic!() };
        assert!(format!("{:?}", cause.error).contains("number 1"), "{:?}", cause.error);
        assert!(format!("{:?}", cause.teardown).contains("number 2"), "{:?}", cause.teardown);
    });
}

#[test]
fn the_age_of_what_is_abandoned_is_counted_from_when_it_was_submitted() {
    watched(|| {
        let script = Script::new()
            .on_setup_once(|mut submitter| {
                submitter.submit(0, |_| request::timeout(Duration::from_secs(1000)))?;
                submitter.submit(1, |_| request::nop())?;
                Ok(())
            })
            .on_completion(|_, number, mut submitter| {
                if number == 3 {
                    return (ControlFlow::Exit, None);
                }
                thread::sleep(Duration::from_millis(100));
                submitter.submit(3, |_| request::nop()).unwrap();
                (ControlFlow::Continue, None)
            });
        let builder = Bench::builder(script, Script::new()).deadline(Duration::ZERO);
        let mut ring = builder.build().unwrap();
        let long = Duration::from_secs(2);
        thread::sleep(long);
        let began = Instant::now();
        ring.submitter(Bench::FIRST).submit(2, |_| request::timeout(Duration::from_secs(1000))).unwrap();
        let error = ring.run().unwrap_err();
        let took = began.elapsed();
        let ages: Vec<_> = error.abandoned().unwrap().requests.iter().map(|request| request.age).collect();
        assert_eq!(ages.len(), 2);
        // Ages are measured in units of some milliseconds.
        assert!(ages.iter().all(|age| *age <= took + long / 4), "{ages:?} in {took:?}");
    });
}

/// The ages of two timers that are abandoned. The second is submitted half a second after the first, when a third one
/// has ended for which the ring waited, possibly with a stream that waits for a buffer.
fn ages_before_and_after_a_wait(with_parked: bool) -> Vec<Duration> {
    let (mut client, server) = tcp_pair();
    client.write_all(b"ab").unwrap();
    let (server, pool) = (Arc::new(OwnedFd::from(server)), BufferPool::new(1, 1).unwrap());
    let data = move |number: u32| (number, Arc::clone(&server), pool.clone());
    let new = data.clone();
    let mut held = Vec::new();
    let script = Script::new()
        .on_setup_once(move |mut submitter| {
            submitter.submit(data(0), |_| request::timeout(FOR_EVER))?;
            submitter.submit(data(1), |_| request::timeout(Duration::from_millis(500)))?;
            if with_parked {
                submitter.stream(data(3), |(_, socket, pool)| request::recv_multi(&**socket, pool))?;
            }
            Ok(())
        })
        .on_completion(move |completion, it, mut submitter| {
            if it.0 == 1 {
                submitter.submit(new(2), |_| request::timeout(FOR_EVER)).unwrap();
                return (ControlFlow::Exit, None);
            }
            held.extend(completion.into_buffer().ok());
            (ControlFlow::Continue, Some(it))
        });
    let mut ring = Bench::builder(script, Script::new()).deadline(Duration::ZERO).build().unwrap();
    let error = ring.run().unwrap_err();
    let timers = error.abandoned().unwrap().requests.iter().filter(|it| it.opcode == opcode::Timeout::CODE);
    timers.map(|it| it.age).collect()
}

#[test]
fn what_was_submitted_after_a_wait_is_younger_by_that() {
    watched(|| {
        for with_parked in [false, true] {
            let mut ages = ages_before_and_after_a_wait(with_parked);
            ages.sort();
            let is_right = ages.len() == 2 && ages[1] - ages[0] >= Duration::from_millis(250);
            assert!(is_right, "parked: {with_parked}, {ages:?}");
        }
    });
}

#[test]
fn the_pool_of_a_ring_that_was_abandoned_is_nobody_elses() {
    watched(|| {
        let pool = BufferPool::new(2, 64).unwrap();
        let (client, server) = tcp_pair();
        let server = Arc::new(OwnedFd::from(server));
        let data = |number| (number, Arc::clone(&server), pool.clone());
        type Receiver = (u32, Arc<OwnedFd>, BufferPool);
        let (stream, nop) = (data(0), data(1));
        let script = Script::new()
            .on_setup_once(move |mut submitter| {
                submitter.stream(stream, |(_, socket, pool)| request::recv_multi(&**socket, pool))?;
                submitter.submit(nop, |_| request::nop())?;
                Ok(())
            })
            .on_completion(|_, _, _| (ControlFlow::Exit, None));
        let mut ring = Bench::builder(script, Script::new()).deadline(Duration::ZERO).build().unwrap();
        assert!(ring.run().unwrap_err().abandoned().is_some());
        drop(ring);
        // The kernel may write to it for ever.
        let mut other = Bench::with(8, Script::<Receiver>::new());
        let refused = other
            .submitter(Bench::FIRST)
            .try_stream(data(2), |(_, socket, pool)| request::recv_multi(&**socket, pool))
            .unwrap_err();
        assert_eq!(refused.error, SubmitError::PoolInUse);
        drop(client);
    });
}

#[test]
fn a_thread_of_the_kernel_that_sleeps_is_woken() {
    watched(|| {
        let log = Log::new();
        let seen = log.clone();
        let script = Script::new()
            .on_setup_once(|mut submitter| {
                submitter.submit(0, |_| request::timeout(Duration::from_millis(100)))?;
                Ok(())
            })
            .on_completion(move |_, number, mut submitter| {
                seen.push(number);
                if number < 3 {
                    submitter.submit(number + 1, |_| request::timeout(Duration::from_millis(100))).unwrap();
                }
                (ControlFlow::Continue, None)
            });
        // The thread falls asleep after a millisecond, which is the shortest time.
        let builder = Bench::builder(script, Script::new()).sqpoll(Duration::ZERO, None);
        let mut ring = builder.build().unwrap();
        ring.run().unwrap();
        assert_eq!(log.take(), [0, 1, 2, 3]);
    });
}

/// A kernel that cancels nothing: the ring waits for what is in flight, and does not keep looking for it.
#[test]
fn a_teardown_that_can_only_wait_sleeps() {
    in_child(|| {
        let enters = count_enters(|| {
            let (opcodes, registrations) = ([opcode::Timeout::CODE], [IORING_REGISTER_EVENTFD]);
            let raw = restricted(&mut IoUring::builder(), 8, &opcodes, &registrations);
            let builder = Bench::builder(Script::new(), Script::new()).raw_ring(raw);
            let mut ring = builder.deadline(Duration::from_millis(100)).build().unwrap();
            ring.submitter(Bench::FIRST).submit((), |()| request::timeout(Duration::MAX)).unwrap();
            assert!(ring.finish().unwrap_err().abandoned().is_some());
        });
        assert!(enters.calls < 40, "{enters:?}");
    });
}
