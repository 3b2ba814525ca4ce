//! Handles: how other threads send to a ring, keep it waiting, and stop it.

use std::collections::HashSet;
use std::fs;
use std::io::{PipeReader, PipeWriter, Write};
use std::num::NonZeroU32;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rummelplatz::{ControlFlow, Request, RingError, RingHandle, SendError, request};
use rummelplatz_tests::{
    Bench, BenchSubmitter, Ledger, Log, Script, Tracked, in_child, open_descriptors, outcome, watched,
};

const LONG: Duration = Duration::from_secs(1000);

/// Long enough for a ring to fall asleep.
fn pause() {
    thread::sleep(Duration::from_millis(20));
}

/// Logs what arrives.
fn logging<D: Send + Clone>(log: &Log<(bool, D)>) -> Script<D> {
    let log = log.clone();
    Script::new().on_completion(move |completion, data, _| {
        assert!(!completion.more());
        assert_eq!(outcome(&completion), Ok(0));
        log.push((completion.is_message(), data));
        (ControlFlow::Continue, None)
    })
}

// ---- sending ----------------------------------------------------------------------------------

#[test]
fn a_ring_that_waits_is_woken_by_what_another_thread_sends() {
    watched(|| {
        let log = Log::new();
        let mut ring = Bench::with(8, logging(&log));
        let handle = ring.handle();
        let other = thread::spawn(move || {
            for word in ["one", "two", "three"] {
                pause();
                handle.send(Bench::FIRST, word.to_owned()).unwrap();
            }
        });
        ring.run().unwrap();
        other.join().unwrap();
        let expected = ["one", "two", "three"].map(|word| (true, word.to_owned()));
        assert_eq!(log.take(), expected);
        assert_eq!((ring.stats().in_flight, ring.stats().foreign), (0, 0));
    });
}

#[test]
fn no_wake_up_is_lost_between_two_threads_that_take_turns() {
    watched(|| {
        let (answer, answers) = mpsc::channel();
        let script = Script::new().on_completion(move |_, data: u32, _| {
            answer.send(data).unwrap();
            (ControlFlow::Continue, None)
        });
        let mut ring = Bench::with(8, script);
        let handle = ring.handle();
        let other = thread::spawn(move || {
            for round in 0..5_000 {
                handle.send(Bench::FIRST, round).unwrap();
                assert_eq!(answers.recv().unwrap(), round);
            }
        });
        ring.run().unwrap();
        other.join().unwrap();
    });
}

#[test]
fn a_wake_up_that_finds_the_completion_queue_full_is_not_the_last() {
    watched(|| {
        let (answer, answers) = mpsc::channel();
        let log = Log::new();
        let (messages, counted) = (log.clone(), log.clone());
        let first = Script::new().on_completion(move |_, data: u32, _| {
            messages.push(());
            answer.send(data).unwrap();
            (ControlFlow::Continue, None)
        });
        // Keeps the queue full for the first half of the messages.
        let second = Script::new()
            .on_setup(|mut submitter| {
                for _ in 0..8 {
                    submitter.submit(0, |_| request::nop())?;
                }
                Ok(())
            })
            .on_completion(move |_, data, mut submitter| {
                if counted.len() < 100 {
                    submitter.submit(data, |_| request::nop()).unwrap();
                }
                (ControlFlow::Continue, None)
            });
        let four = NonZeroU32::new(4).unwrap();
        let mut ring = Bench::builder(first, second).entries(four).completion_entries(four).build().unwrap();
        let handle = ring.handle();
        let other = thread::spawn(move || {
            for number in 0..200 {
                handle.send(Bench::FIRST, number).unwrap();
                assert_eq!(answers.recv().unwrap(), number);
            }
        });
        ring.run().unwrap();
        other.join().unwrap();
        assert_eq!(ring.stats().foreign, 0);
    });
}

#[test]
fn thousands_from_several_threads_arrive_in_the_order_of_each() {
    watched(|| {
        const SENDERS: usize = 8;
        const EACH: usize = 4_000;
        let log = Log::new();
        let mut ring = Bench::with(8, logging(&log));
        let senders: Vec<_> = (0..SENDERS)
            .map(|sender| {
                let handle = ring.handle();
                thread::spawn(move || {
                    for number in 0..EACH {
                        handle.send(Bench::FIRST, (sender, number)).unwrap();
                        if number % 500 == sender {
                            thread::yield_now();
                        }
                    }
                })
            })
            .collect();
        ring.run().unwrap();
        senders.into_iter().for_each(|sender| sender.join().unwrap());
        let mut next = [0; SENDERS];
        for (is_message, (sender, number)) in log.take() {
            assert!(is_message);
            assert_eq!(number, next[sender], "from sender {sender}");
            next[sender] += 1;
        }
        assert_eq!(next, [EACH; SENDERS]);
        assert_eq!((ring.stats().in_flight, ring.stats().undelivered), (0, 0));
    });
}

#[test]
fn each_operation_gets_what_is_sent_to_it() {
    watched(|| {
        let (first, second) = (Log::new(), Log::new());
        let mut ring = Bench::builder(logging(&first), logging(&second)).build().unwrap();
        let handle = ring.handle();
        for number in 0..10 {
            let tag = if number % 3 == 0 { Bench::FIRST } else { Bench::SECOND };
            handle.send(tag, number).unwrap();
        }
        drop(handle);
        ring.run().unwrap();
        assert_eq!(first.take(), [0, 3, 6, 9].map(|number| (true, number)));
        assert_eq!(second.take(), [1, 2, 4, 5, 7, 8].map(|number| (true, number)));
    });
}

#[test]
fn what_is_sent_before_a_ring_runs_is_kept_until_it_does() {
    watched(|| {
        let (ledger, log) = (Ledger::new(), Log::new());
        let seen = log.clone();
        let script = Script::new().on_completion(move |completion, data: Tracked<u32>, _| {
            seen.push((completion.is_message(), *data));
            (ControlFlow::Continue, None)
        });
        let mut ring = Bench::with(8, script);
        let handle = ring.handle().downgrade();
        for number in 0..3 {
            handle.send(Bench::FIRST, ledger.issue(number)).unwrap();
        }
        assert_eq!((log.len(), ledger.alive()), (0, 3));
        thread::spawn(move || {
            ring.run().unwrap();
        })
        .join()
        .unwrap();
        assert_eq!(log.take(), [(true, 0), (true, 1), (true, 2)]);
        ledger.assert_all_dropped_once();
    });
}

#[test]
fn what_is_sent_to_a_ring_that_has_ended_comes_back() {
    watched(|| {
        let log = Log::new();
        let mut ring = Bench::with(8, logging(&log));
        let handle = ring.handle().downgrade();
        ring.run().unwrap();
        let SendError(data) = handle.send(Bench::FIRST, vec![1, 2, 3]).unwrap_err();
        assert_eq!(data, [1, 2, 3]);
        ring.finish().unwrap();
        assert!(handle.send(Bench::FIRST, vec![]).is_err());
        drop(ring);
        let SendError(data) = handle.send(Bench::FIRST, vec![4]).unwrap_err();
        assert_eq!(data, [4]);
        handle.stop();
        drop(handle.clone());
        assert_eq!(log.take(), []);
    });
}

#[test]
fn a_handle_is_good_for_the_next_run() {
    watched(|| {
        let log = Log::new();
        let mut ring = Bench::with(8, logging(&log));
        let handle = ring.handle();
        for round in 0..5 {
            let (sender, seen) = (handle.clone(), log.clone());
            let other = thread::spawn(move || {
                // The run may not have begun.
                while sender.send(Bench::FIRST, round).is_err() {
                    thread::yield_now();
                }
                while seen.is_empty() {
                    thread::yield_now();
                }
                sender.stop();
            });
            ring.run().unwrap();
            other.join().unwrap();
            assert_eq!(log.take(), [(true, round)]);
        }
    });
}

#[test]
fn a_handler_may_send_to_its_own_ring() {
    watched(|| {
        let log = Log::new();
        let seen = log.clone();
        let script = Script::new()
            .on_setup(|mut submitter: BenchSubmitter<'_, u32>| {
                submitter.handle().send(Bench::FIRST, 0)?;
                Ok(())
            })
            .on_completion(move |completion, number, mut submitter| {
                assert!(completion.is_message());
                seen.push(number);
                if number < 100 {
                    let tag = submitter.tag();
                    submitter.handle().send(tag, number + 1).unwrap();
                }
                (ControlFlow::Continue, None)
            });
        Bench::with(8, script).run().unwrap();
        assert_eq!(log.take(), (0..=100).collect::<Vec<_>>());
    });
}

/// A ring whose operations may have this many requests. It logs the numbers of its data, as its handlers and its
/// teardown handlers see them.
fn limited(limit: u32, told: &Log<u32>, torn_down: &Log<u32>) -> Bench<Blocked> {
    let (first, second) = (told.clone(), told.clone());
    let script = |told: Log<u32>| {
        let torn_down = torn_down.clone();
        Script::new()
            .on_completion(move |_, data: Blocked, _| {
                told.push(*data.number);
                (ControlFlow::Continue, None)
            })
            .on_teardown(move |_, data: Blocked, _| {
                torn_down.push(*data.number);
                Ok(())
            })
    };
    let builder = Bench::builder(script(first), script(second));
    builder.request_limit(NonZeroU32::new(limit).unwrap()).build().unwrap()
}

/// A number, and, for a request that waits, what it waits for.
struct Blocked {
    number: Tracked<u32>,
    reader: Option<PipeReader>,
    byte: [u8; 1],
}

impl Blocked {
    fn message(ledger: &Ledger, number: u32) -> Blocked {
        Blocked { number: ledger.issue(number), reader: None, byte: [0] }
    }

    fn read(&mut self) -> Request<'_> {
        match &self.reader {
            Some(reader) => request::read(reader, &mut self.byte),
            None => request::nop(),
        }
    }
}

/// The first operation is busy until something is written.
fn occupy(ring: &mut Bench<Blocked>, ledger: &Ledger, number: u32) -> PipeWriter {
    let (reader, writer) = std::io::pipe().unwrap();
    let data = Blocked { reader: Some(reader), ..Blocked::message(ledger, number) };
    ring.submitter(Bench::FIRST).submit(data, Blocked::read).unwrap();
    writer
}

/// Sends messages 1 to 3 to an operation that is busy, until all of them wait.
fn three_that_wait(ring: &mut Bench<Blocked>, ledger: &Ledger) -> RingHandle<Bench<Blocked>> {
    let handle = ring.handle();
    for number in 1..4 {
        handle.send(Bench::FIRST, Blocked::message(ledger, number)).unwrap();
    }
    while ring.stats().undelivered < 3 {
        ring.turn().unwrap();
    }
    handle
}

#[test]
fn what_does_not_fit_the_limit_waits_for_room() {
    watched(|| {
        let (ledger, told) = (Ledger::new(), Log::new());
        let mut ring = limited(2, &told, &Log::new());
        let handle = ring.handle();
        for number in 0..5 {
            handle.send(Bench::FIRST, Blocked::message(&ledger, number)).unwrap();
        }
        drop(handle);
        ring.run().unwrap();
        assert_eq!(told.take(), [0, 1, 2, 3, 4]);
        assert_eq!((ring.stats().undelivered, ring.stats().in_flight), (0, 0));
        ledger.assert_all_dropped_once();
    });
}

#[test]
fn what_waits_for_room_is_counted_and_holds_up_nobody_else() {
    watched(|| {
        let (ledger, told) = (Ledger::new(), Log::new());
        let mut ring = limited(1, &told, &Log::new());
        let mut writer = occupy(&mut ring, &ledger, 0);
        ring.turn().unwrap();
        let handle = ring.handle();
        for number in 1..4 {
            handle.send(Bench::FIRST, Blocked::message(&ledger, number)).unwrap();
        }
        handle.send(Bench::SECOND, Blocked::message(&ledger, 10)).unwrap();
        while told.is_empty() {
            ring.turn().unwrap();
        }
        assert_eq!(told.take(), [10], "the other operation has room");
        assert_eq!((ring.stats().undelivered, ring.stats().in_flight), (3, 1));
        handle.send(Bench::FIRST, Blocked::message(&ledger, 4)).unwrap();
        writer.write_all(b"x").unwrap();
        drop(handle);
        ring.run().unwrap();
        assert_eq!(told.take(), [0, 1, 2, 3, 4], "what was sent later comes behind them");
        assert_eq!((ring.stats().undelivered, ring.stats().in_flight), (0, 0));
        ledger.assert_all_dropped_once();
    });
}

#[test]
fn what_is_sent_when_there_is_room_again_comes_behind_what_has_waited_for_it() {
    watched(|| {
        let (ledger, told) = (Ledger::new(), Log::new());
        let mut ring = limited(1, &told, &Log::new());
        let mut writer = occupy(&mut ring, &ledger, 0);
        let handle = three_that_wait(&mut ring, &ledger);
        // The ring hears of both at once, and of the end first.
        writer.write_all(b"x").unwrap();
        handle.send(Bench::FIRST, Blocked::message(&ledger, 4)).unwrap();
        drop(handle);
        ring.run().unwrap();
        assert_eq!(told.take(), [0, 1, 2, 3, 4]);
        ledger.assert_all_dropped_once();
    });
}

#[test]
fn what_waits_for_room_when_the_ring_ends_is_told_of_in_its_teardown() {
    watched(|| {
        let (ledger, told, torn_down) = (Ledger::new(), Log::new(), Log::new());
        let mut ring = limited(1, &told, &torn_down);
        let writer = occupy(&mut ring, &ledger, 0);
        let handle = three_that_wait(&mut ring, &ledger);
        handle.stop();
        ring.run().unwrap();
        assert!(told.is_empty());
        assert_eq!(torn_down.take(), [0, 1, 2, 3]);
        assert_eq!((ring.stats().undelivered, ring.stats().in_flight), (0, 0));
        ledger.assert_all_dropped_once();
        drop(writer);
    });
}

#[test]
fn what_waits_for_room_is_dropped_with_its_ring() {
    watched(|| {
        let ledger = Ledger::new();
        let mut ring = limited(1, &Log::new(), &Log::new());
        let writer = occupy(&mut ring, &ledger, 0);
        let _handle = three_that_wait(&mut ring, &ledger);
        drop(ring);
        ledger.assert_all_dropped_once();
        drop(writer);
    });
}

// ---- keeping a ring waiting -------------------------------------------------------------------

#[test]
fn a_strong_handle_keeps_a_ring_waiting_until_the_last_is_dropped() {
    watched(|| {
        let log = Log::new();
        let mut ring = Bench::with(8, logging(&log));
        let (first, second) = (ring.handle(), ring.handle());
        let third = second.clone();
        let order = Log::new();
        let dropped = order.clone();
        let other = thread::spawn(move || {
            for (number, handle) in [first, third, second].into_iter().enumerate() {
                pause();
                handle.send(Bench::FIRST, number).expect("the ring still runs");
                dropped.push(number);
            }
        });
        ring.run().unwrap();
        assert_eq!(order.take(), [0, 1, 2], "not one of them was too many");
        other.join().unwrap();
        assert_eq!(log.take(), [(true, 0), (true, 1), (true, 2)]);
    });
}

#[test]
fn a_weak_handle_does_not_keep_a_ring_waiting() {
    watched(|| {
        let kept = Log::<RingHandle<Bench<u32>>>::new();
        let keep = kept.clone();
        let script = Script::new().on_setup(move |mut submitter| {
            keep.push(submitter.handle());
            Ok(())
        });
        let mut ring = Bench::with(8, script);
        let weak = ring.handle().downgrade();
        let also_weak = weak.clone();
        ring.run().unwrap();
        for handle in [weak, also_weak, kept.take().pop().unwrap()] {
            assert!(handle.send(Bench::FIRST, 1).is_err());
        }
    });
}

#[test]
fn a_handle_that_is_dropped_while_requests_are_in_flight_ends_nothing() {
    watched(|| {
        let log = Log::new();
        let script = logging(&log).on_setup(|mut submitter| {
            submitter.submit(1, |_| request::timeout(Duration::from_millis(40)))?;
            Ok(())
        });
        let mut ring = Bench::with(8, script);
        let handle = ring.handle();
        let other = thread::spawn(move || {
            pause();
            drop(handle);
        });
        ring.run().unwrap();
        other.join().unwrap();
        assert_eq!(log.take(), [(false, 1)]);
    });
}

// ---- stopping ---------------------------------------------------------------------------------

#[test]
fn another_thread_can_stop_a_ring() {
    watched(|| {
        let ended = Log::new();
        let log = ended.clone();
        let script = Script::new()
            .on_setup(|mut submitter| {
                submitter.submit(7, |_| request::timeout(LONG))?;
                Ok(())
            })
            .on_teardown(move |completion, data, _| {
                log.push((data, outcome(&completion)));
                Ok(())
            });
        let mut ring = Bench::with(8, script);
        let handle = ring.handle();
        let other = thread::spawn(move || {
            pause();
            handle.stop();
            handle
        });
        ring.run().unwrap();
        assert_eq!(ended.take(), [(7, Err(libc::ECANCELED))]);
        let handle = other.join().unwrap();
        assert!(handle.send(Bench::FIRST, 1).is_err());
    });
}

#[test]
fn a_weak_handle_can_stop_a_ring_too() {
    watched(|| {
        let script = Script::new().on_setup(|mut submitter| {
            submitter.submit((), |_| request::timeout(LONG))?;
            Ok(())
        });
        let mut ring = Bench::with(8, script);
        let handle = ring.handle().downgrade();
        let other = thread::spawn(move || {
            pause();
            handle.stop();
        });
        ring.run().unwrap();
        other.join().unwrap();
    });
}

#[test]
fn a_ring_that_was_stopped_before_it_runs_stops_when_it_does() {
    watched(|| {
        let ended = Log::new();
        let log = ended.clone();
        let script = Script::new()
            .on_setup(|mut submitter| {
                submitter.submit((), |_| request::timeout(LONG))?;
                Ok(())
            })
            .on_teardown(move |_, (), _| {
                log.push(());
                Ok(())
            });
        let mut ring = Bench::with(8, script);
        ring.handle().stop();
        ring.run().unwrap();
        assert_eq!(ended.len(), 1, "it was set up, and torn down");
    });
}

#[test]
fn a_stop_in_the_middle_of_messages_hands_the_rest_to_the_teardown() {
    watched(|| {
        let (ledger, seen) = (Ledger::new(), Log::new());
        let (log, teardown) = (seen.clone(), seen.clone());
        let script = Script::new()
            .on_completion(move |completion, data: Tracked<u32>, mut submitter| {
                log.push((true, completion.is_message(), *data));
                if *data == 1 {
                    let handle = submitter.handle();
                    for number in 10..13 {
                        handle.send(Bench::FIRST, ledger.issue(number)).unwrap();
                    }
                    handle.stop();
                }
                (ControlFlow::Continue, None)
            })
            .on_teardown(move |completion, data, mut submitter| {
                teardown.push((false, completion.is_message(), *data));
                let refused = submitter.handle().send(Bench::FIRST, ledger.issue(99));
                assert!(refused.is_err(), "the ring takes no more");
                Ok(())
            });
        let mut ring = Bench::with(8, script);
        let handle = ring.handle();
        handle.send(Bench::FIRST, ledger.issue(1)).unwrap();
        ring.run().unwrap();
        let seen = seen.take();
        assert_eq!(seen[0], (true, true, 1));
        let late: Vec<_> = seen[1..].iter().map(|(_, is_message, data)| (*is_message, *data)).collect();
        assert_eq!(late, [(true, 10), (true, 11), (true, 12)], "each of them, one way or the other");
        assert_eq!(ring.stats().in_flight, 0);
        ledger.assert_all_dropped_once();
    });
}

#[test]
fn all_that_was_accepted_is_delivered_however_the_end_and_the_sending_meet() {
    watched(|| {
        for round in 0..100_u32 {
            let (ledger, seen, late) = (Ledger::new(), Log::new(), Log::new());
            let (log, teardown) = (seen.clone(), late.clone());
            let script = Script::new()
                .on_completion(move |_, data: Tracked<u32>, _| {
                    log.push(*data);
                    let exit = log.len() > round as usize;
                    (if exit { ControlFlow::Exit } else { ControlFlow::Continue }, None)
                })
                .on_teardown(move |completion, data, _| {
                    assert!(completion.is_message());
                    teardown.push(*data);
                    Ok(())
                });
            let mut ring = Bench::with(8, script);
            let handle = ring.handle();
            let other = thread::spawn(move || {
                let accepted = |number: &u32| {
                    // If there are more threads than processors, this must not use up whole time slices.
                    thread::yield_now();
                    handle.send(Bench::FIRST, ledger.issue(*number)).is_ok()
                };
                (0..).take_while(accepted).count()
            });
            ring.run().unwrap();
            let accepted = other.join().unwrap();
            let delivered: Vec<_> = [seen.take(), late.take()].concat();
            assert_eq!(delivered.len(), accepted, "in round {round}");
            assert!(delivered.into_iter().eq(0..accepted as u32), "in order, too");
            ledger.assert_all_dropped_once();
        }
    });
}

#[test]
fn a_stop_during_a_teardown_is_for_the_next_run_and_no_wake_up_is_lost_over_it() {
    watched(|| {
        let (runs, log) = (Log::new(), Log::new());
        let (setups, seen) = (runs.clone(), log.clone());
        let script = Script::new()
            .on_setup(move |mut submitter| {
                setups.push(());
                if setups.len() == 1 {
                    submitter.submit(0, |_| request::timeout(LONG))?;
                    submitter.submit(1, |_| request::nop())?;
                }
                Ok(())
            })
            .on_completion(move |completion, data, _| {
                seen.push(data);
                let exit = !completion.is_message();
                (if exit { ControlFlow::Exit } else { ControlFlow::Continue }, None)
            })
            .on_teardown(|_, data, mut submitter| {
                if data == 0 {
                    submitter.handle().stop();
                    // Long enough for the wake-up to be seen by this teardown.
                    submitter.submit(2, |_| request::timeout(Duration::from_millis(5)))?;
                }
                Ok(())
            });
        let mut ring = Bench::with(8, script);
        let handle = ring.handle();
        ring.run().unwrap();
        assert_eq!(log.take(), [1]);
        ring.run().unwrap();
        assert_eq!((runs.len(), log.take()), (2, vec![]), "stopped at once");
        let other = thread::spawn(move || {
            while handle.send(Bench::FIRST, 7).is_err() {
                thread::yield_now();
            }
            pause();
            handle.send(Bench::FIRST, 8).unwrap();
        });
        ring.run().unwrap();
        other.join().unwrap();
        assert_eq!(log.take(), [7, 8]);
    });
}

// ---- the end of the ring itself ---------------------------------------------------------------

#[test]
fn parcels_are_dropped_once_with_a_ring_that_never_ran() {
    watched(|| {
        let ledger = Ledger::new();
        let mut ring = Bench::<Tracked<u32>>::with(8, Script::new());
        let handle = ring.handle();
        for number in 0..3 {
            handle.send(Bench::FIRST, ledger.issue(number)).unwrap();
        }
        drop(ring);
        ledger.assert_all_dropped_once();
        assert!(handle.send(Bench::FIRST, ledger.issue(3)).is_err());
    });
}

#[test]
fn parcels_are_dropped_once_with_a_ring_that_was_idle_or_busy() {
    watched(|| {
        for busy in [false, true] {
            let (ledger, called) = (Ledger::new(), Log::new());
            let (log, teardown) = (called.clone(), called.clone());
            let script = Script::new()
                .on_completion(move |_, data: Tracked<u32>, _| {
                    log.push(*data);
                    (ControlFlow::Continue, None)
                })
                .on_teardown(move |_, data, _| {
                    teardown.push(*data);
                    Ok(())
                });
            let mut ring = Bench::with(8, script);
            let handle = ring.handle();
            ring.turn().unwrap();
            if busy {
                let data = ledger.issue(100);
                ring.submitter(Bench::FIRST).submit(data, |_| request::timeout(LONG)).unwrap();
                ring.turn().unwrap();
            }
            for number in 0..3 {
                handle.send(Bench::FIRST, ledger.issue(number)).unwrap();
            }
            drop(ring);
            assert_eq!(called.take(), [], "a drop calls nobody");
            ledger.assert_all_dropped_once();
            assert!(handle.send(Bench::FIRST, ledger.issue(3)).is_err());
        }
    });
}

#[test]
fn a_handle_holds_no_descriptor_of_the_ring_but_the_one_to_wake_it() {
    in_child(|| {
        let before = open_descriptors();
        let mut ring = Bench::<u32>::with(8, Script::new());
        let handle = ring.handle();
        ring.turn().unwrap();
        drop(ring);
        assert!(open_descriptors() <= before + 2, "the ring's own is closed");
        handle.stop();
        assert!(handle.send(Bench::FIRST, 1).is_err());
        drop(handle);
        assert_eq!(open_descriptors(), before);
    });
}

#[test]
fn a_handle_can_be_shared_and_shown() {
    fn is_shared<T: Send + Sync + Clone + 'static>(_: &T) {}
    watched(|| {
        let mut ring = Bench::<u32>::with(8, Script::new());
        let handle = ring.handle();
        is_shared(&handle);
        assert_eq!(format!("{handle:?}"), "RingHandle { ring: \"Bench\", strong: true }");
        assert!(format!("{:?}", handle.downgrade()).contains("strong: false"));
        let error = SendError(std::cell::Cell::new(1));
        assert_eq!(error.to_string(), "the ring has ended and takes no more data");
        let boxed: Box<dyn std::error::Error> = Box::new(error);
        assert!(boxed.source().is_none());
    });
}

#[test]
fn the_clone_of_a_strong_handle_keeps_a_ring_waiting_too() {
    watched(|| {
        let log = Log::new();
        let mut ring = Bench::with(8, logging(&log));
        let strong = ring.handle();
        let clone = strong.clone();
        drop(strong);
        let sender = thread::spawn(move || {
            pause();
            clone.send(Bench::FIRST, 7_u32).is_ok()
        });
        ring.run().unwrap();
        assert!(sender.join().unwrap(), "the ring has ended though a handle was there");
        assert_eq!(log.take().len(), 1);
    });
}

#[test]
fn a_ring_that_can_not_be_woken_any_more_says_so() {
    in_child(|| {
        let before: HashSet<_> = sockets().collect();
        let mut ring = Bench::with(8, Script::<()>::new());
        let handle = ring.handle();
        let nothing = fs::OpenOptions::new().read(true).custom_flags(libc::O_PATH).open("/").unwrap();
        for socket in sockets().filter(|socket| !before.contains(socket)) {
            // SAFETY: what the number was is closed; whoever has it closes what it is now.
            assert_eq!(unsafe { libc::dup2(nothing.as_raw_fd(), socket) }, socket);
        }
        for _ in 0..3 {
            let error = ring.run().unwrap_err();
            let RingError::Api(cause) = &error else { panic!("{error}") };
            assert_eq!(cause.error.raw_os_error(), Some(libc::EBADF));
        }
        drop(handle);
    });
}

fn sockets() -> impl Iterator<Item = RawFd> {
    let all = std::fs::read_dir("/proc/self/fd").unwrap().map(Result::unwrap);
    let sockets = all.filter(|it| {
        std::fs::read_link(it.path()).is_ok_and(|to| to.to_string_lossy().starts_with("socket:"))
    });
    sockets.map(|it| it.file_name().to_str().unwrap().parse().unwrap())
}
