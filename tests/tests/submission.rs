//! Submitting: room and refusals, order, keys, posting and detaching, raw entries, and each kind of request on a real
//! kernel.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::num::{NonZeroU32, NonZeroUsize};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rummelplatz::io_uring::{IoUring, cqueue, opcode, squeue, types};
use rummelplatz::request::{CWD, Events, OpenOptions};
use rummelplatz::{Completion, ControlFlow, Refused, Request, RingError, SubmitError, request};
use rummelplatz_tests::{
    Bench, BenchSubmitter, Job, Ledger, Log, Script, Tracked, addressable, complete, deaf, forge, in_child,
    once, open_descriptors, outcome, pipe, tcp_pair, watched,
};

const FOR_EVER: Duration = Duration::from_secs(100_000);
const CANCELLED: Result<u32, i32> = Err(libc::ECANCELED);

type Outcomes = Log<(u32, Result<u32, i32>)>;

fn shared_pipe() -> (Arc<OwnedFd>, Arc<OwnedFd>) {
    let (reader, writer) = pipe();
    (Arc::new(reader), Arc::new(writer))
}

fn read_all(reader: Arc<OwnedFd>) -> Vec<u8> {
    let mut bytes = Vec::new();
    File::from(Arc::into_inner(reader).unwrap()).read_to_end(&mut bytes).unwrap();
    bytes
}

fn nop() -> squeue::Entry {
    opcode::Nop::new().build()
}

fn link(entry: squeue::Entry) -> squeue::Entry {
    entry.flags(squeue::Flags::IO_LINK)
}

/// Logs each completion with its number.
fn logging(log: &Outcomes) -> Script<Tracked<u32>> {
    let log = log.clone();
    Script::new().on_completion(move |completion, data: Tracked<u32>, _| {
        log.push((*data, outcome(&completion)));
        (ControlFlow::Continue, None)
    })
}

fn small<D: Send + 'static>(first: Script<D>, second: Script<D>, entries: u32, backlog: usize) -> Bench<D> {
    Bench::builder(first, second)
        .entries(entries.try_into().unwrap())
        .backlog_limit(backlog.try_into().unwrap())
        .build()
        .unwrap()
}

// ---- room ---------------------------------------------------------------------------------------------

#[test]
fn figures_tell_how_large_batches_are() {
    watched(|| {
        const BATCHES: u32 = 10;
        let script = Script::new().on_completion(|_, left: u32, mut submitter| {
            if left > 1 {
                submitter.submit(left - 1, |_| request::nop()).unwrap();
            }
            (ControlFlow::Continue, None)
        });
        let mut ring = Bench::with(16, script);
        assert_eq!((ring.stats().enters, ring.stats().completions), (0, 0));
        for _ in 0..10 {
            ring.submitter(Bench::FIRST).submit(BATCHES, |_| request::nop()).unwrap();
        }
        ring.run().unwrap();
        let stats = ring.stats();
        assert_eq!(stats.completions, u64::from(10 * BATCHES));
        // And a few more before the ring knows that nothing is in flight, or calls that are interrupted.
        let few = u64::from(BATCHES)..2 * u64::from(BATCHES);
        assert!(few.contains(&stats.enters), "{stats:?}");
    });
}

#[test]
fn a_full_queue_is_flushed_so_a_handler_can_submit_more_than_fits() {
    watched(|| {
        let ledger = Ledger::new();
        let seen = Log::new();
        let log = seen.clone();
        let script = Script::new()
            .on_setup_once(move |mut submitter| {
                for number in 0..50 {
                    submitter.submit(ledger.issue(number), |_| request::nop())?;
                }
                Ok(())
            })
            .on_completion(move |_, data: Tracked<u32>, mut submitter| {
                log.push(*data);
                if *data == 0 {
                    for number in 50..100 {
                        submitter.submit(ledger.issue(number), |_| request::nop()).unwrap();
                    }
                }
                (ControlFlow::Continue, None)
            });
        // A backlog of one would not be enough if the queue were not flushed.
        let mut ring = small(script, Script::new(), 4, 1);
        ring.run().unwrap();
        assert_eq!(seen.take(), (0..100).collect::<Vec<_>>());
        ledger.assert_all_dropped_once();
    });
}

#[test]
fn what_waits_for_room_reaches_the_kernel_in_order() {
    watched(|| {
        let ledger = Ledger::new();
        let (reader, writer) = shared_pipe();
        let mut ring = Bench::with(2, Script::new());
        for number in 0..100 {
            let mut data = ledger.issue(Job::new(number, &writer, 1));
            data.buffer[0] = number as u8;
            let mut submitter = ring.submitter(Bench::FIRST);
            match number % 3 {
                0 => drop(submitter.submit(data, |it| it.write()).unwrap()),
                1 => submitter.detach(data, |it| it.write()).unwrap(),
                _ => {
                    let entry = data.write_entry();
                    // SAFETY: the entry points to the buffer on the heap that `data` owns.
                    unsafe { submitter.push(entry, data) }.unwrap();
                }
            }
        }
        drop(writer);
        assert_eq!(ring.stats().backlog, 98);
        ring.run().unwrap();
        drop(ring);
        assert_eq!(read_all(reader), (0..100).collect::<Vec<u8>>());
        ledger.assert_all_dropped_once();
    });
}

#[test]
fn a_request_that_is_refused_leaves_no_trace_and_comes_back_as_it_was() {
    watched(|| {
        let ledger = Ledger::new();
        let seen = Log::new();
        let mut ring = small(logging(&seen), Script::new(), 2, 2);
        let mut submitter = ring.submitter(Bench::FIRST);
        for number in 0..4 {
            submitter.submit(ledger.issue(number), |_| request::nop()).unwrap();
        }
        let full = |refused: Refused<_>| {
            assert_eq!(refused.error, SubmitError::Full);
            refused.data
        };
        let mut data: Tracked<u32> = ledger.issue(9);
        for _ in 0..3 {
            data = full(submitter.try_submit(data, |_| unreachable!()).unwrap_err());
            data = full(submitter.try_stream(data, |_| unreachable!()).unwrap_err());
            // SAFETY: a NOP points to nothing.
            data = full(unsafe { submitter.push(nop(), data) }.unwrap_err());
        }
        assert_eq!(*data, 9);
        assert_eq!(submitter.submit(data, |_| unreachable!()).unwrap_err(), SubmitError::Full);
        assert_eq!(submitter.detach(ledger.issue(9), |_| unreachable!()), Err(SubmitError::Full));
        // SAFETY: a NOP points to nothing.
        assert_eq!(unsafe { submitter.push_raw(nop()) }, Err(SubmitError::Full));
        assert_eq!(ledger.alive(), 4);
        // What needs no room in the queue is still accepted.
        submitter.post(ledger.issue(4)).unwrap();
        assert_eq!((ring.stats().in_flight, ring.stats().backlog), (5, 2));
        ring.run().unwrap();
        let mut seen: Vec<_> = seen.take().into_iter().map(|(number, _)| number).collect();
        seen.sort();
        assert_eq!(seen, [0, 1, 2, 3, 4]);
        ledger.assert_all_dropped_once();
    });
}

#[test]
fn each_operation_has_its_own_limit_of_requests() {
    watched(|| {
        let ledger = Ledger::new();
        let seen = Log::new();
        let mut ring = Bench::builder(logging(&seen), logging(&seen))
            .request_limit(3.try_into().unwrap())
            .build()
            .unwrap();
        for tag in [Bench::FIRST, Bench::SECOND] {
            let mut submitter = ring.submitter(tag);
            // SAFETY: a NOP points to nothing.
            let group = unsafe {
                submitter.push_multiple([(); 4].map(|()| nop()), [6, 7, 8, 9].map(|it| ledger.issue(it)))
            };
            assert_eq!(group.unwrap_err().error, SubmitError::TooManyRequests);
            submitter.submit(ledger.issue(0), |_| request::nop()).unwrap();
            submitter.detach(ledger.issue(1), |_| request::nop()).unwrap();
            submitter.post(ledger.issue(2)).unwrap();
            let refused = submitter.try_submit(ledger.issue(9), |_| unreachable!()).unwrap_err();
            assert_eq!(refused.error, SubmitError::TooManyRequests);
            let refused = submitter.try_post(refused.data).unwrap_err();
            assert_eq!(refused.error, SubmitError::TooManyRequests);
            // SAFETY: a NOP points to nothing.
            let refused = unsafe { submitter.push(nop(), refused.data) }.unwrap_err();
            assert_eq!((*refused.data, refused.error), (9, SubmitError::TooManyRequests));
        }
        for _ in 0..2 {
            ring.run().unwrap();
            ring.submitter(Bench::FIRST).submit(ledger.issue(0), |_| request::nop()).unwrap();
        }
        ring.run().unwrap();
        ledger.assert_all_dropped_once();
    });
}

#[test]
fn refusals_become_errors_of_the_kind_that_says_what_to_do() {
    let kind = |error: SubmitError| std::io::Error::from(error).kind();
    assert_eq!(kind(SubmitError::Full), ErrorKind::WouldBlock);
    assert_eq!(kind(SubmitError::TooManyRequests), ErrorKind::WouldBlock);
    assert_eq!(kind(SubmitError::Closed), ErrorKind::BrokenPipe);
    assert_eq!(kind(SubmitError::Invalid(rummelplatz::InvalidEntry::Drains)), ErrorKind::InvalidInput);
}

#[test]
fn cancels_are_accepted_when_nothing_else_is() {
    watched(|| {
        let ledger = Ledger::new();
        let seen = Log::new();
        let mut ring = small(logging(&seen), Script::new(), 2, 1);
        let mut submitter = ring.submitter(Bench::FIRST);
        let keys = [0, 1, 2]
            .map(|number| submitter.submit(ledger.issue(number), |_| request::timeout(FOR_EVER)).unwrap());
        assert_eq!(submitter.submit(ledger.issue(9), |_| unreachable!()), Err(SubmitError::Full));
        for key in keys {
            assert!(submitter.cancel(key));
        }
        assert_eq!(submitter.submit(ledger.issue(9), |_| unreachable!()), Err(SubmitError::Full));
        assert_eq!(ring.stats().backlog, 1, "cancels are not counted");
        ring.run().unwrap();
        assert_eq!(seen.take(), [(0, CANCELLED), (1, CANCELLED), (2, CANCELLED)]);
        ledger.assert_all_dropped_once();
    });
}

// ---- keys -----------------------------------------------------------------------------------------------

#[test]
fn a_key_is_good_for_one_request_of_one_ring_alone() {
    watched(|| {
        let ledger = Ledger::new();
        let (seen, other_seen) = (Log::new(), Log::new());
        let mut ring = Bench::builder(logging(&seen), logging(&seen)).build().unwrap();
        let mut other = Bench::builder(logging(&other_seen), logging(&other_seen)).build().unwrap();
        let timer = |ring: &mut Bench<_>, tag, number, time| {
            ring.submitter(tag).submit(ledger.issue(number), move |_| request::timeout(time)).unwrap()
        };
        let short = Duration::from_millis(20);
        let key = timer(&mut ring, Bench::FIRST, 0, FOR_EVER);
        // The same slot and generation, in another operation and in another ring.
        let second = timer(&mut ring, Bench::SECOND, 1, short);
        let foreign = timer(&mut other, Bench::FIRST, 2, short);
        assert!(key != second && key != foreign);
        assert!(!other.submitter(Bench::FIRST).cancel(key));
        assert!(!ring.submitter(Bench::SECOND).cancel(key));
        assert!(!ring.submitter(Bench::FIRST).cancel(second));
        assert!(!ring.submitter(Bench::FIRST).cancel(foreign));
        assert!(ring.submitter(Bench::FIRST).cancel(key));
        assert!(ring.submitter(Bench::FIRST).cancel(key), "it is not over yet");
        ring.run().unwrap();
        other.run().unwrap();
        assert_eq!(seen.take(), [(0, CANCELLED), (1, Ok(0))]);
        assert_eq!(other_seen.take(), [(2, Ok(0))]);
        assert!(!ring.submitter(Bench::FIRST).cancel(key));
        ledger.assert_all_dropped_once();
    });
}

#[test]
fn cancel_all_means_the_requests_of_this_operation() {
    watched(|| {
        let ledger = Ledger::new();
        let seen = Log::new();
        let mut ring =
            Bench::builder(logging(&seen), logging(&seen)).entries(4.try_into().unwrap()).build().unwrap();
        let short = Duration::from_millis(30);
        for number in 0..20 {
            let mut submitter = ring.submitter(Bench::FIRST);
            submitter.submit(ledger.issue(number), |_| request::timeout(FOR_EVER)).unwrap();
            let mut second = submitter.to(Bench::SECOND);
            second.submit(ledger.issue(100 + number), move |_| request::timeout(short)).unwrap();
        }
        let mut submitter = ring.submitter(Bench::FIRST);
        submitter.post(ledger.issue(50)).unwrap();
        assert_eq!(submitter.cancel_all(), 20, "a message is none of the kernel's");
        ring.run().unwrap();
        let mut seen = seen.take();
        seen.sort();
        let mut expected: Vec<_> = (0..20).map(|number| (number, CANCELLED)).collect();
        expected.push((50, Ok(0)));
        expected.extend((100..120).map(|number| (number, Ok(0))));
        assert_eq!(seen, expected);
        ledger.assert_all_dropped_once();
    });
}

#[test]
fn a_handler_may_ask_how_many_are_left() {
    watched(|| {
        let log = Log::new();
        let (first, second) = (log.clone(), log.clone());
        let counting = Script::new().on_completion(move |_, times: u64, mut submitter| {
            first.push((1, submitter.in_flight(), submitter.to(Bench::SECOND).in_flight()));
            if times > 0 {
                let time = Duration::from_millis(times);
                submitter.submit(times - 1, move |_| request::timeout(time)).unwrap();
                submitter.post(0).unwrap();
            }
            if submitter.in_flight() == 0 {
                submitter.to(Bench::SECOND).cancel_all();
            }
            (ControlFlow::Continue, None)
        });
        let ticking = Script::new().on_completion(move |completion, data, mut submitter| {
            let left = submitter.in_flight();
            if !completion.more() {
                second.push((2, left, submitter.to(Bench::FIRST).in_flight()));
                return (ControlFlow::Continue, None);
            }
            assert_eq!(left, 1, "it goes on");
            (ControlFlow::Continue, Some(data))
        });
        let mut ring = Bench::builder(counting, ticking).build().unwrap();
        ring.submitter(Bench::FIRST).submit(2, |_| request::nop()).unwrap();
        let mut submitter = ring.submitter(Bench::SECOND);
        submitter.stream(0, |_| request::timeout_multi(Duration::from_micros(500))).unwrap();
        assert_eq!((submitter.in_flight(), submitter.to(Bench::FIRST).in_flight()), (1, 1));
        ring.run().unwrap();
        let log = log.take();
        let expected = [(1, 0, 1), (1, 1, 1), (1, 0, 1), (1, 1, 1), (1, 0, 1), (2, 0, 0)];
        assert_eq!(log, expected);
    });
}

#[test]
fn a_stream_that_cancels_itself_when_the_kernel_has_just_cut_it_ends_as_cancelled() {
    watched(|| {
        let ledger = Ledger::new();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let clients: Vec<_> = (0..12).map(|_| TcpStream::connect(address).unwrap()).collect();
        let seen = Log::new();
        let log = seen.clone();
        let script = Script::new()
            .on_setup_once(move |mut submitter| {
                submitter.stream(ledger.issue(listener), |it| request::accept_multi(&it.value))?;
                Ok(())
            })
            .on_completion(move |completion, listener, mut submitter| {
                log.push((outcome(&completion), completion.more()));
                let cut = completion.more() && !cqueue::more(completion.raw().flags);
                if cut {
                    assert_eq!(submitter.cancel_all(), 1);
                }
                (ControlFlow::Continue, completion.more().then_some(listener))
            });
        let mut ring = Bench::builder(script, Script::new())
            .entries(4.try_into().unwrap())
            .completion_entries(4.try_into().unwrap())
            .build()
            .unwrap();
        ring.run().unwrap();
        let mut seen = seen.take();
        assert_eq!(seen.pop(), Some((CANCELLED, false)));
        assert!(!seen.is_empty() && seen.iter().all(|it| *it == (Ok(0), true)), "{seen:?}");
        drop(clients);
        ledger.assert_all_dropped_once();
    });
}

// ---- fire and forget ----------------------------------------------------------------------------------------

#[test]
fn detached_requests_call_nobody_and_count_their_errors() {
    watched(|| {
        let ledger = Ledger::new();
        let (reader, writer) = shared_pipe();
        let script = Script::new().on_completion(|_, _, _| panic!("nobody is to know"));
        let mut ring = Bench::with(8, script);
        let mut submitter = ring.submitter(Bench::FIRST);
        let job = || ledger.issue(Job::new(0, &writer, 5));
        submitter.detach(job(), |it| it.write()).unwrap();
        submitter.detach(job(), |_| request::nop()).unwrap();
        // That its time is up is not an error.
        submitter.detach(job(), |_| request::timeout(Duration::from_millis(1))).unwrap();
        ring.run().unwrap();
        assert_eq!(ring.stats().detached_failed, 0);
        let mut submitter = ring.submitter(Bench::FIRST);
        // A pipe has nothing to bring to the disk, and its writing end can't be read.
        submitter.detach(job(), |it| request::fsync(&*it.file)).unwrap();
        submitter.detach(job(), |it| it.read()).unwrap();
        ring.run().unwrap();
        assert_eq!(ring.stats().detached_failed, 2);
        ledger.assert_all_dropped_once();
        drop((ring, writer));
        assert_eq!(read_all(reader), [0; 5]);
    });
}

#[test]
fn a_detached_send_goes_out_whole_through_the_smallest_of_buffers() {
    watched(|| {
        const SIZE: usize = 2 << 20;
        let ledger = Ledger::new();
        let (client, mut server) = tcp_pair();
        let size: libc::c_int = 4096;
        // SAFETY: the option is an int, and lives through the call.
        let set = unsafe {
            libc::setsockopt(
                client.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_SNDBUF,
                (&raw const size).cast(),
                size_of::<libc::c_int>() as u32,
            )
        };
        assert_eq!(set, 0);
        let reader = thread::spawn(move || {
            let mut bytes = Vec::new();
            server.read_to_end(&mut bytes).unwrap();
            bytes
        });
        let mut ring = Bench::with(8, Script::new());
        let mut data = ledger.issue(Job::new(0, &Arc::new(client.into()), SIZE));
        let pattern: Vec<_> = (0..SIZE).map(|index| (index / 7) as u8).collect();
        data.buffer.copy_from_slice(&pattern);
        ring.submitter(Bench::FIRST).detach(data, |it| it.send()).unwrap();
        ring.run().unwrap();
        drop(ring);
        assert!(reader.join().unwrap() == pattern);
        ledger.assert_all_dropped_once();
    });
}

#[test]
fn a_send_to_a_peer_that_is_gone_is_an_error_and_no_signal() {
    in_child(|| {
        // SAFETY: a plain call: what the Rust runtime ignores shall kill this process.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
        let ledger = Ledger::new();
        let (client, server) = UnixStream::pair().unwrap();
        drop(server);
        let file = Arc::new(OwnedFd::from(client));
        let seen = Log::new();
        let log = seen.clone();
        let script = Script::new().on_completion(move |completion, _, _| {
            log.push(outcome(&completion));
            (ControlFlow::Continue, None)
        });
        let mut ring = Bench::with(8, script);
        let mut submitter = ring.submitter(Bench::FIRST);
        submitter.submit(ledger.issue(Job::new(0, &file, 8)), |it| it.send()).unwrap();
        submitter.detach(ledger.issue(Job::new(0, &file, 8)), |it| it.send()).unwrap();
        ring.run().unwrap();
        assert_eq!(seen.take(), [Err(libc::EPIPE)]);
        assert_eq!(ring.stats().detached_failed, 1);
        ledger.assert_all_dropped_once();
    });
}

// ---- messages -------------------------------------------------------------------------------------------------

#[test]
fn posted_data_is_delivered_in_order_after_the_running_handler() {
    watched(|| {
        let ledger = Ledger::new();
        let seen = Log::new();
        let (log, other_log) = (seen.clone(), seen.clone());
        let first = Script::new()
            .on_setup_once(move |mut submitter| {
                submitter.post(ledger.issue(0))?;
                Ok(())
            })
            .on_completion(move |completion, data: Tracked<u32>, mut submitter| {
                assert!(completion.is_message() && !completion.more());
                assert_eq!(outcome(&completion), Ok(0));
                if *data == 0 {
                    for number in 1..=3 {
                        submitter.to(Bench::SECOND).post(ledger.issue(10 + number)).unwrap();
                        submitter.post(ledger.issue(number)).unwrap();
                    }
                }
                log.push(*data);
                (ControlFlow::Continue, None)
            });
        let second = Script::new().on_completion(move |completion, data: Tracked<u32>, _| {
            assert!(completion.is_message());
            other_log.push(*data);
            (ControlFlow::Continue, None)
        });
        let mut ring = Bench::builder(first, second).build().unwrap();
        ring.run().unwrap();
        assert_eq!(seen.take(), [0, 11, 1, 12, 2, 13, 3]);
        ledger.assert_all_dropped_once();
    });
}

#[test]
fn operations_that_post_to_each_other_do_not_keep_the_kernel_waiting() {
    watched(|| {
        let ledger = Ledger::new();
        let player = |to, serve: bool| {
            Script::new()
                .on_setup_once(move |mut submitter: BenchSubmitter<'_, Tracked<u32>>| {
                    if serve {
                        submitter.post(ledger.issue(0))?;
                        let timer = ledger.issue(u32::MAX);
                        submitter.submit(timer, |_| request::timeout(Duration::from_millis(30)))?;
                    }
                    Ok(())
                })
                .on_completion(move |completion, mut data: Tracked<u32>, mut submitter| {
                    if !completion.is_message() {
                        return (ControlFlow::Exit, None);
                    }
                    *data += 1;
                    submitter.to(to).post(data).unwrap();
                    (ControlFlow::Continue, None)
                })
        };
        let mut ring =
            Bench::builder(player(Bench::SECOND, true), player(Bench::FIRST, false)).build().unwrap();
        ring.run().unwrap();
        ledger.assert_all_dropped_once();
    });
}

// ---- raw entries ------------------------------------------------------------------------------------------------

#[test]
fn what_is_posted_last_comes_behind_all_that_is_there_and_once_for_each_enter() {
    watched(|| {
        let log = Log::new();
        let script = || {
            let told = log.clone();
            Script::new().on_completion(move |completion, name: &'static str, mut submitter| {
                told.push((name, completion.is_message()));
                match name {
                    "first" => {
                        submitter.post_last("all").unwrap();
                        submitter.post("at once").unwrap();
                        submitter.submit("after", |_| request::nop()).unwrap();
                    }
                    "all" => {
                        submitter.post_last("again").unwrap();
                        submitter.to(Bench::SECOND).post_last("the other's").unwrap();
                    }
                    _ => {}
                }
                (ControlFlow::Continue, None)
            })
        };
        let order = [
            ("first", false),
            ("at once", true),
            ("other", false),
            ("other", false),
            ("all", true),
            ("after", false),
            ("again", true),
            ("the other's", true),
        ];
        for by_turns in [false, true] {
            let mut ring = Bench::builder(script(), script()).build().unwrap();
            for name in ["first", "other", "other"] {
                ring.submitter(Bench::FIRST).submit(name, |_| request::nop()).unwrap();
            }
            match by_turns {
                true => while !ring.turn().unwrap().is_idle() {},
                false => ring.run().unwrap(),
            }
            assert_eq!(log.take(), order, "{by_turns}");
        }
    });
}

#[test]
fn what_is_posted_last_keeps_nothing_from_the_kernel_and_ends_with_the_ring() {
    watched(|| {
        let ledger = Ledger::new();
        let (log, ended) = (Log::new(), Log::new());
        let (told, at_the_end) = (log.clone(), ended.clone());
        let script = Script::new()
            .on_completion(move |completion, data: Tracked<u32>, mut submitter| {
                told.push(());
                if completion.is_message() {
                    // Again and again.
                    submitter.post_last(data).unwrap();
                    return (ControlFlow::Continue, None);
                }
                submitter.post_last(ledger.issue(1)).unwrap();
                (ControlFlow::Exit, None)
            })
            .on_teardown(move |completion, data, mut submitter| {
                at_the_end.push((*data, completion.is_message(), outcome(&completion)));
                if *data == 1 {
                    submitter.post_last(ledger.issue(2)).unwrap();
                }
                Ok(())
            });
        let mut ring = Bench::with(8, script);
        let mut submitter = ring.submitter(Bench::FIRST);
        // Before it runs, as well.
        submitter.post_last(ledger.issue(0)).unwrap();
        submitter.submit(ledger.issue(9), |_| request::timeout(Duration::from_millis(5))).unwrap();
        ring.run().unwrap();
        assert_eq!(ended.take(), [0, 1, 2].map(|number| (number, true, Ok(0))));
        assert!(log.len() > 2, "it went on and on");
        ring.submitter(Bench::FIRST).post_last(ledger.issue(3)).unwrap();
        drop(ring);
        ledger.assert_all_dropped_once();
    });
}

#[test]
fn the_user_data_of_a_raw_entry_is_replaced() {
    watched(|| {
        let ledger = Ledger::new();
        let seen = Log::new();
        let mut ring = Bench::with(8, logging(&seen));
        let mut submitter = ring.submitter(Bench::FIRST);
        for number in 0..3 {
            // SAFETY: a NOP points to nothing.
            unsafe { submitter.push(nop().user_data(u64::MAX), ledger.issue(number)) }.unwrap();
            // SAFETY: a NOP points to nothing.
            unsafe { submitter.push_raw(nop().user_data(1 << 56)) }.unwrap();
        }
        assert_eq!(ring.stats().in_flight, 3, "what is untracked is not counted");
        ring.run().unwrap();
        assert_eq!(seen.take(), [(0, Ok(0)), (1, Ok(0)), (2, Ok(0))]);
        assert_eq!(ring.stats().foreign, 0);
        ledger.assert_all_dropped_once();
    });
}

#[test]
fn nothing_of_a_raw_entry_is_left_for_the_request_that_takes_its_place() {
    /// At each place of a queue of 4, there is a raw entry in some of its laps and not in others.
    fn is_raw(number: u32) -> bool {
        number % 13 < 5 && number % 4 == number / 16 % 4 || number / 20 % 3 == 2
    }
    fn submit(mut submitter: BenchSubmitter<'_, u32>, number: u32) {
        if is_raw(number) {
            // The kernel refuses an entry with an unregistered personality, whatever the entry asks for.
            // SAFETY: a NOP points to nothing.
            unsafe { submitter.push(nop().personality(7), number) }.unwrap();
        } else {
            submitter.submit(number, |_| request::nop()).unwrap();
        }
    }
    watched(|| {
        let seen = Log::new();
        let log = seen.clone();
        let script = Script::new()
            .on_setup_once(|submitter| {
                submit(submitter, 0);
                Ok(())
            })
            .on_completion(move |completion, number: u32, submitter| {
                log.push((number, outcome(&completion)));
                if number < 300 {
                    submit(submitter, number + 1);
                }
                (ControlFlow::Continue, None)
            });
        small(script, Script::new(), 4, 1).run().unwrap();
        let expected = |number| (number, if is_raw(number) { Err(libc::EINVAL) } else { Ok(0) });
        assert_eq!(seen.take(), (0..=300).map(expected).collect::<Vec<_>>());
    });
}

/// A chain of a read that blocks until `trigger` is written to, and two NOPs, submitted with `before` entries in a
/// queue of four. Returns the order of the completions.
fn chain_behind(before: u32, within_run: bool) -> Vec<u64> {
    let ledger = Ledger::new();
    let (reader, writer) = shared_pipe();
    let seen = Log::new();
    let log = seen.clone();
    let submit = move |mut submitter: BenchSubmitter<'_, Tracked<Job>>| {
        for _ in 0..before {
            let timer = ledger.issue(Job::new(100, &reader, 0));
            submitter.submit(timer, |_| request::timeout(Duration::from_millis(1))).unwrap();
        }
        let mut data = [1, 2, 3].map(|number| ledger.issue(Job::new(number, &reader, 1)));
        let chain = [link(data[0].read_entry()), link(nop()), nop()];
        // SAFETY: the read points to the buffer on the heap that its data owns.
        unsafe { submitter.push_multiple(chain, data) }.unwrap();
        let timer = ledger.issue(Job::new(101, &reader, 0));
        submitter.submit(timer, |_| request::timeout(Duration::from_millis(30))).unwrap();
    };
    let mut writer = File::from(writer.try_clone().unwrap());
    let script = Script::new().on_completion(move |completion, data: Tracked<Job>, _| {
        assert!(completion.result().is_ok());
        if data.number == 101 {
            writer.write_all(b"x").unwrap();
        }
        if data.number != 100 {
            log.push(data.number);
        }
        (ControlFlow::Continue, None)
    });
    let mut ring = if within_run {
        let mut submit = Some(submit);
        Bench::with(
            4,
            script.on_setup_once(move |submitter| {
                submit.take().unwrap()(submitter);
                Ok(())
            }),
        )
    } else {
        let mut ring = Bench::with(4, script);
        submit(ring.submitter(Bench::FIRST));
        ring
    };
    ring.run().unwrap();
    drop(ring);
    ledger.assert_all_dropped_once();
    seen.take()
}

#[test]
fn a_chain_keeps_its_order_and_is_never_split_by_a_full_queue() {
    watched(|| {
        for before in 0..=5 {
            for within_run in [false, true] {
                // If the chain were split, the NOPs would not wait for the read.
                assert_eq!(chain_behind(before, within_run), [101, 1, 2, 3], "{before} {within_run}");
            }
        }
    });
}

#[test]
fn a_single_request_does_not_overtake_a_chain_that_waits_for_room() {
    watched(|| {
        let ledger = Ledger::new();
        let seen = Log::new();
        let mut ring = Bench::with(4, logging(&seen));
        let mut submitter = ring.submitter(Bench::FIRST);
        for number in 0..2 {
            submitter.submit(ledger.issue(number), |_| request::nop()).unwrap();
        }
        let data = [2, 3, 4].map(|number| ledger.issue(number));
        // SAFETY: NOPs point to nothing.
        unsafe { submitter.push_multiple([link(nop()), link(nop()), nop()], data) }.unwrap();
        // There is room for two, but not in front of the chain.
        for number in 5..8 {
            submitter.submit(ledger.issue(number), |_| request::nop()).unwrap();
        }
        ring.run().unwrap();
        // The kernel begins the rest of a chain when it chooses to.
        let begun: Vec<_> =
            seen.take().into_iter().map(|it| it.0).filter(|it| ![3, 4].contains(it)).collect();
        assert_eq!(begun, [0, 1, 2, 5, 6, 7]);
        ledger.assert_all_dropped_once();
    });
}

#[test]
fn a_chain_finds_room_by_a_flush_where_the_backlog_would_not_take_it() {
    watched(|| {
        let ledger = Ledger::new();
        let seen = Log::new();
        let log = seen.clone();
        let script = Script::new()
            .on_setup_once(move |mut submitter| {
                for number in 0..3 {
                    submitter.submit(ledger.issue(number), |_| request::nop())?;
                }
                let data = [3, 4, 5].map(|number| ledger.issue(number));
                // SAFETY: NOPs point to nothing.
                unsafe { submitter.push_multiple([link(nop()), link(nop()), nop()], data) }
                    .map_err(SubmitError::from)?;
                Ok(())
            })
            .on_completion(move |_, data: Tracked<u32>, _| {
                log.push(*data);
                (ControlFlow::Continue, None)
            });
        small(script, Script::new(), 4, 1).run().unwrap();
        assert_eq!(seen.take(), [0, 1, 2, 3, 4, 5]);
        ledger.assert_all_dropped_once();
    });
}

#[test]
fn no_entries_at_all_are_accepted() {
    watched(|| {
        let mut ring = Bench::<u8>::with(8, Script::new());
        // SAFETY: there is nothing that could point anywhere.
        let keys = unsafe { ring.submitter(Bench::FIRST).push_multiple([], []) }.unwrap();
        assert_eq!(keys, []);
        ring.run().unwrap();
    });
}

// ---- descriptors ---------------------------------------------------------------------------------------------------

/// A descriptor to close, with a pipe that tells when it is closed.
struct Closing {
    descriptor: Option<OwnedFd>,
    _tracked: Tracked<()>,
}

impl Closing {
    fn new(ledger: Ledger, descriptor: OwnedFd) -> Closing {
        Closing { descriptor: Some(descriptor), _tracked: ledger.issue(()) }
    }

    fn close(&mut self) -> Request<'_> {
        request::close(self.descriptor.take().unwrap())
    }
}

#[test]
fn close_neither_loses_nor_doubles_a_descriptor() {
    in_child(|| {
        let before = open_descriptors();
        let ledger = Ledger::new();
        // Takes the numbers that become free, so that closing one twice is noticed here.
        let mut watch = Vec::new();
        let submit = |ring: &mut Bench<Closing>, count| {
            (0..count)
                .map(|_| {
                    let (reader, writer) = pipe();
                    let data = Closing::new(ledger, writer);
                    ring.submitter(Bench::FIRST).submit(data, Closing::close).map(drop).ok();
                    File::from(reader)
                })
                .collect::<Vec<_>>()
        };
        let mut closed = |readers: Vec<File>| {
            for mut reader in readers {
                assert_eq!(reader.read(&mut [0]).unwrap(), 0, "its other end is closed");
                watch.push(reader);
                watch.push(File::open("/dev/null").unwrap());
            }
        };
        // Closed by the kernel.
        let mut ring = Bench::with(4, Script::new());
        let readers = submit(&mut ring, 20);
        ring.run().unwrap();
        closed(readers);
        // Never submitted.
        let readers = submit(&mut ring, 20);
        drop(ring);
        closed(readers);
        let mut ring = Bench::with(4, Script::new());
        let readers = submit(&mut ring, 20);
        drop(ring);
        closed(readers);
        // In the backlog at the teardown.
        ring = Bench::with(4, Script::new().on_setup(|_| Err("no such luck".into())));
        let readers = submit(&mut ring, 20);
        assert!(matches!(ring.run(), Err(RingError::Setup(_))));
        closed(readers);
        drop(ring);
        // Cancelled.
        let mut ring = Bench::with(4, Script::new());
        let readers = submit(&mut ring, 20);
        assert_eq!(ring.submitter(Bench::FIRST).cancel_all(), 20);
        ring.run().unwrap();
        drop(ring);
        closed(readers);
        // Refused.
        let mut ring = small(Script::new(), Script::new(), 1, 1);
        let readers = submit(&mut ring, 20);
        drop(ring);
        closed(readers);
        // Detached.
        let mut ring = Bench::with(4, Script::new());
        let (reader, writer) = pipe();
        ring.submitter(Bench::FIRST).detach(Closing::new(ledger, writer), Closing::close).unwrap();
        ring.run().unwrap();
        assert_eq!(ring.stats().detached_failed, 0);
        drop(ring);
        closed(vec![reader.into()]);

        for file in watch.drain(..) {
            let fd = file.into_raw_fd();
            // SAFETY: a plain call, whose failure is looked at.
            assert_eq!(unsafe { libc::close(fd) }, 0, "somebody else has closed {fd}");
        }
        drop(watch);
        assert_eq!(open_descriptors(), before);
        ledger.assert_all_dropped_once();
    });
}

/// A duplicate of an io_uring's descriptor, the one kind of file that the kernel does not close.
fn uring() -> OwnedFd {
    let uring = IoUring::new(1).unwrap();
    // SAFETY: it is open as long as the ring is.
    unsafe { BorrowedFd::borrow_raw(uring.as_raw_fd()) }.try_clone_to_owned().unwrap()
}

#[test]
fn a_close_that_the_kernel_refuses_is_done_all_the_same() {
    in_child(|| {
        let before = open_descriptors();
        let ledger = Ledger::new();
        let seen = Log::new();
        let log = seen.clone();
        let script = Script::new().on_completion(move |completion, _: Closing, _| {
            log.push(outcome(&completion));
            (ControlFlow::Continue, None)
        });
        let mut ring = Bench::with(8, script);
        fn in_time(data: &mut Closing) -> Request<'_> {
            data.close().deadline(FOR_EVER)
        }
        for close in [Closing::close, in_time] {
            ring.submitter(Bench::FIRST).submit(Closing::new(ledger, uring()), close).unwrap();
            ring.submitter(Bench::FIRST).detach(Closing::new(ledger, uring()), close).unwrap();
        }
        ring.run().unwrap();
        assert_eq!(seen.take(), [Err(libc::EBADF); 2]);
        assert_eq!(ring.stats().detached_failed, 2);
        drop(ring);
        assert_eq!(open_descriptors(), before);
        ledger.assert_all_dropped_once();
    });
}

#[test]
fn a_close_that_fails_in_any_other_way_is_not_done_twice() {
    in_child(|| {
        let (raw, fd) = addressable(8);
        let seen = Log::new();
        let log = seen.clone();
        let script = Script::new().on_completion(move |completion, _: Closing, _| {
            log.push(outcome(&completion));
            (ControlFlow::Continue, None)
        });
        let mut ring = Bench::builder(script, Script::new()).raw_ring(raw).build().unwrap();
        let ledger = Ledger::new();
        // A file may return any error when it is closed, even the number of a refusal. Here somebody has forged it, for
        // a close that has not begun.
        for errno in [libc::EBADF, libc::EINTR, libc::EIO, libc::EINVAL] {
            let (reader, writer) = pipe();
            let number = writer.as_raw_fd();
            let mut submitter = ring.submitter(Bench::FIRST);
            let mut chain = submitter.chain();
            let sleep = chain
                .link(Closing::new(ledger, reader.try_clone().unwrap()), |_| request::timeout(FOR_EVER))
                .unwrap();
            let close = chain.submit(Closing::new(ledger, writer), Closing::close).unwrap();
            ring.turn().unwrap();
            forge(fd, close.user_data(), -errno, None);
            while seen.is_empty() {
                ring.turn().unwrap();
            }
            assert_eq!(seen.take(), [Err(errno)]);
            ring.submitter(Bench::FIRST).cancel(sleep);
            while ring.stats().in_flight > 0 {
                ring.turn().unwrap();
            }
            assert_eq!(seen.take(), [CANCELLED]);
            // SAFETY: a plain call, whose failure is looked at.
            assert_eq!(unsafe { libc::close(number) }, 0, "what was not begun was done for {errno}");
        }
        drop(ring);
        ledger.assert_all_dropped_once();
    });
}

#[test]
fn what_a_completion_carries_is_closed_when_nobody_takes_it() {
    in_child(|| {
        let before = open_descriptors();
        let ledger = Ledger::new();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut clients: Vec<_> = (0..3).map(|_| TcpStream::connect(address).unwrap()).collect();
        let path = CString::new("/dev/null").unwrap();
        let listener = Arc::new(listener);
        let script = Script::new().on_completion(|completion, _, _| {
            assert_eq!(outcome(&completion), Ok(0), "the number comes out owned, or not at all");
            (ControlFlow::Continue, None)
        });
        let mut ring = Bench::with(8, script);
        let mut submitter = ring.submitter(Bench::FIRST);
        let data = ledger.issue((Arc::clone(&listener), path.clone()));
        submitter.submit(data, |it| request::accept(&*it.0)).unwrap();
        let data = ledger.issue((Arc::clone(&listener), path.clone()));
        submitter.detach(data, |it| request::accept(&*it.0)).unwrap();
        let entry =
            opcode::Accept::new(types::Fd(listener.as_raw_fd()), std::ptr::null_mut(), std::ptr::null_mut());
        let data = ledger.issue((Arc::clone(&listener), path.clone()));
        // SAFETY: it points to nothing, and the data has a share of the listener.
        unsafe { submitter.push(entry.build(), data) }.unwrap();
        let data = ledger.issue((Arc::clone(&listener), path));
        submitter.submit(data, |it| request::openat(&CWD, &it.1, &OpenOptions::new())).unwrap();
        ring.run().unwrap();
        for client in &mut clients {
            assert_eq!(client.read(&mut [0]).unwrap(), 0, "closed by the other side");
        }
        drop((ring, clients, listener));
        assert_eq!(open_descriptors(), before);
        ledger.assert_all_dropped_once();
    });
}

// ---- each kind of request ----------------------------------------------------------------------------------------------

/// As [`once`], for a request that yields a descriptor.
fn one_descriptor<D: Send + 'static>(
    data: D,
    build: impl for<'d> FnOnce(&'d mut D) -> Request<'d>,
) -> std::io::Result<OwnedFd> {
    complete(data, build).0.into_fd()
}

/// A path that no other test uses, in a directory for this purpose.
fn fresh_path(name: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
    std::fs::remove_file(&path).ok();
    path
}

#[test]
fn files_are_opened_written_synced_and_read() {
    watched(|| {
        let path = fresh_path("file");
        let c_path = CString::new(path.to_str().unwrap()).unwrap();
        let open = |options: OpenOptions| {
            one_descriptor(c_path.clone(), move |path| request::openat(&CWD, path, &options))
        };
        let error = open(OpenOptions::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        let options = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600);
        let file = Arc::new(open(options.clone()).unwrap());
        assert_eq!(open(options).unwrap_err().kind(), ErrorKind::AlreadyExists);

        let mut job = Job::new(0, &file, 11);
        job.buffer.copy_from_slice(b"hello world");
        let (result, _) = once(job, |job| job.write());
        assert_eq!(result, Ok(11));
        let (result, _) = once(Job::new(0, &file, 1), |job| request::write_at(&*job.file, &job.buffer, 0));
        assert_eq!(result, Ok(1));
        assert_eq!(once(Arc::clone(&file), |it| request::fsync(&**it)).0, Ok(0));
        assert_eq!(once(Arc::clone(&file), |it| request::fdatasync(&**it)).0, Ok(0));
        let (result, job) =
            once(Job::new(0, &file, 64), |job| request::read_at(&*job.file, &mut job.buffer, 6));
        assert_eq!((result, &job.buffer[..5]), (Ok(5), &b"world"[..]));
        // The position is where the first write left it: at the end.
        assert_eq!(once(Job::new(0, &file, 64), |job| job.read()).0, Ok(0));
        assert_eq!(std::fs::read(&path).unwrap(), b"\0ello world");

        let appending = Arc::new(open(OpenOptions::new().append(true)).unwrap());
        assert_eq!(once(Job::new(0, &appending, 2), |job| job.write()).0, Ok(2));
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 13);
        drop(open(OpenOptions::new().write(true).truncate(true)).unwrap());
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
        std::fs::remove_file(&path).unwrap();
    });
}

#[test]
fn a_full_disk_is_an_error() {
    watched(|| {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let (result, _) = once(Job::new(0, &Arc::new(full.into()), 8), |job| job.write());
        assert_eq!(result, Err(libc::ENOSPC));
    });
}

#[test]
fn sockets_connect_send_receive_and_shut_down() {
    watched(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let socket = |domain| {
            // SAFETY: a plain call; the result is checked before it is owned.
            let fd = unsafe { libc::socket(domain, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
            assert!(fd >= 0);
            // SAFETY: a descriptor that was just made.
            Arc::new(unsafe { OwnedFd::from_raw_fd(fd) })
        };
        let client = socket(libc::AF_INET);
        assert_eq!(once(Arc::clone(&client), move |it| request::connect(&**it, address)).0, Ok(0));
        let mut server = TcpStream::from(one_descriptor(listener, |it| request::accept(it)).unwrap());
        let mut job = Job::new(0, &client, 5);
        job.buffer.copy_from_slice(b"hello");
        assert_eq!(once(job, |job| job.send()).0, Ok(5));
        let mut bytes = [0; 5];
        server.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"hello");
        server.write_all(b"bye").unwrap();
        let (result, job) = once(Job::new(0, &client, 8), |job| job.recv());
        assert_eq!((result, &job.buffer[..3]), (Ok(3), &b"bye"[..]));
        assert_eq!(once(Arc::clone(&client), |it| request::shutdown(&**it, Shutdown::Write)).0, Ok(0));
        assert_eq!(server.read(&mut bytes).unwrap(), 0);
        drop(server);
        assert_eq!(once(Job::new(0, &client, 8), |job| job.recv()).0, Ok(0));

        let (_deaf, address) = deaf();
        let refused = once(socket(libc::AF_INET), move |it| request::connect(&**it, address)).0;
        assert_eq!(refused, Err(libc::ECONNREFUSED));

        let listener = TcpListener::bind("[::1]:0").unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        assert_eq!(once(socket(libc::AF_INET6), move |it| request::connect(&**it, address)).0, Ok(0));

        let path = fresh_path("socket");
        let _listener = UnixListener::bind(&path).unwrap();
        let address = std::os::unix::net::SocketAddr::from_pathname(&path).unwrap();
        assert_eq!(once(socket(libc::AF_UNIX), move |it| request::connect(&**it, &address)).0, Ok(0));
        std::fs::remove_file(&path).unwrap();
    });
}

#[test]
fn polls_tell_which_events_have_come() {
    watched(|| {
        let (reader, writer) = pipe();
        let (result, writer) = once(writer, |it| request::poll(it, Events::WRITABLE));
        assert_eq!(Events::from_result(result.unwrap()), Events::WRITABLE);
        drop(writer);
        let (result, _) = once(reader, |it| request::poll(it, Events::READABLE));
        assert!(Events::from_result(result.unwrap()).contains(Events::HANG_UP));
    });
}

#[test]
fn timers_run_their_time_on_each_clock() {
    watched(|| {
        let time = Duration::from_millis(20);
        let took = |build: Box<dyn for<'d> FnOnce(&'d mut ()) -> Request<'d>>| {
            let began = Instant::now();
            assert_eq!(once((), build).0, Ok(0));
            began.elapsed()
        };
        assert!(took(Box::new(move |()| request::timeout(time))) >= time);
        let at = Instant::now() + time;
        took(Box::new(move |()| request::timeout_at(at)));
        assert!(Instant::now() >= at);
        took(Box::new(|()| request::timeout_at_time(SystemTime::now() + Duration::from_millis(20))));
        // A time that is already over ends at once.
        took(Box::new(|()| request::timeout(Duration::ZERO)));
        took(Box::new(|()| request::timeout_at(Instant::now() - Duration::from_millis(1))));
        took(Box::new(|()| request::timeout_at_time(SystemTime::UNIX_EPOCH)));
    });
}

#[test]
fn the_last_tick_of_a_counted_timer_is_final() {
    watched(|| {
        for (entries, completions) in [(8, 32), (1, 1)] {
            let once = Script::new()
                .on_setup_once(|mut submitter| {
                    let once = |_: &mut ()| request::timeout_multi_times(Duration::ZERO, NonZeroU32::MIN);
                    submitter.stream((), once)?;
                    Ok(())
                })
                .on_completion(|completion, (), _| {
                    assert!(!completion.more());
                    (ControlFlow::Continue, None)
                });
            let seen = Log::new();
            let log = seen.clone();
            let script = Script::new()
                .on_setup_once(|mut submitter| {
                    submitter.stream((), |()| {
                        request::timeout_multi_times(Duration::from_millis(1), NonZeroU32::new(5).unwrap())
                    })?;
                    Ok(())
                })
                .on_completion(move |completion, (), _| {
                    log.push((outcome(&completion), completion.more()));
                    (ControlFlow::Continue, completion.more().then_some(()))
                });
            let mut ring = Bench::builder(script, once)
                .entries(NonZeroU32::new(entries).unwrap())
                .completion_entries(NonZeroU32::new(completions).unwrap())
                .build()
                .unwrap();
            ring.run().unwrap();
            let ticks = [true, true, true, true, false].map(|more| (Ok(0), more));
            assert_eq!(seen.take(), ticks);
            assert_eq!(ring.stats().returned_late, 0);
        }
    });
}

#[test]
fn times_wait_in_the_backlog_unharmed() {
    watched(|| {
        let ledger = Ledger::new();
        let seen = Log::new();
        let mut ring = Bench::with(2, logging(&seen));
        // Each timer has a time of its own, beside its entry in the queue, and that place is reused all the time.
        for number in (0..60).rev() {
            let time = Duration::from_millis(10 + u64::from(number));
            let timer = ledger.issue(number);
            ring.submitter(Bench::FIRST).submit(timer, move |_| request::timeout(time)).unwrap();
        }
        ring.run().unwrap();
        let mut ended = seen.take();
        // A busy machine begins them over some milliseconds, so neighbours may change places.
        for (place, (number, _)) in ended.iter().enumerate() {
            assert!(place.abs_diff(*number as usize) < 30, "{number} ended in place {place}");
        }
        ended.sort();
        assert_eq!(ended, (0..60).map(|number| (number, Ok(0))).collect::<Vec<_>>());
        ledger.assert_all_dropped_once();
    });
}

#[test]
fn names_of_files_that_do_not_live_in_the_data_may_live_for_ever() {
    watched(|| {
        static NULL: &CStr = c"/dev/null";
        let file = one_descriptor((), |()| request::openat(&CWD, NULL, &OpenOptions::new()));
        assert!(file.is_ok());
    });
}

#[test]
fn a_slot_that_a_handler_does_not_fill_again_is_free() {
    watched(|| {
        let one = NonZeroU32::new(1).unwrap();
        let mut ring = Bench::builder(Script::new(), Script::new()).request_limit(one).build().unwrap();
        for number in 0..5 {
            ring.submitter(Bench::FIRST).submit(number, |_| request::nop()).unwrap();
            while !ring.turn().unwrap().is_idle() {}
        }
    });
}

#[test]
fn several_entries_are_admitted_all_or_none() {
    watched(|| {
        let ledger = Ledger::new();
        let limit = NonZeroUsize::new(1).unwrap();
        let builder = Bench::builder(Script::new(), Script::new()).backlog_limit(limit);
        let mut ring = builder.entries(NonZeroU32::new(2).unwrap()).build().unwrap();
        let data = || [1, 2, 3, 4].map(|number| ledger.issue(number));
        let entries = || [(); 4].map(|()| nop());
        // SAFETY: they point to nothing.
        let refused = unsafe { ring.submitter(Bench::FIRST).push_multiple(entries(), data()) }.unwrap_err();
        assert_eq!(refused.error, SubmitError::Full);
        assert_eq!(refused.data.map(|data| *data), [1, 2, 3, 4]);
        assert_eq!((ring.stats().in_flight, ring.stats().backlog), (0, 0));

        // A chain that just fits the queue does not go to the backlog.
        let [first, second, ..] = entries();
        let [one, two, ..] = data();
        // SAFETY: as above.
        unsafe { ring.submitter(Bench::FIRST).push_multiple([link(first), second], [one, two]) }.unwrap();
        assert_eq!((ring.stats().in_flight, ring.stats().backlog), (2, 0));
        ring.run().unwrap();
        ledger.assert_all_dropped_once();
    });
}

#[test]
fn completions_that_are_made_for_tests_say_what_they_were_made_of() {
    let result = |result| outcome(&Completion::from_result(result));
    assert_eq!(result(Ok(7)), Ok(7));
    assert_eq!(result(Ok(u32::MAX)), Ok(i32::MAX as u32), "as much as the kernel could say");
    assert_eq!(result(Err(io::Error::from_raw_os_error(libc::EPIPE))), Err(libc::EPIPE));
    assert_eq!(result(Err(io::Error::other("no errno"))), Err(libc::EIO));
}
