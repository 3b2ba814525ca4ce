//! How rings end: every request exactly once, whatever it is, and whatever happens meanwhile.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::mem;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rummelplatz::io_uring::{IoUring, opcode, squeue, types};
use rummelplatz::request::Events;
use rummelplatz::{BufferPool, ControlFlow, Refused, RingError, Status, Stream, SubmitError, request};
use rummelplatz_tests::{
    Bench, Job, Ledger, Log, Script, SignalStorm, Tracked, in_child, open_descriptors, outcome, pipe,
    tcp_pair, watched,
};

const FOR_EVER: Duration = Duration::from_secs(100_000);
const CANCELLED: Result<u32, i32> = Err(libc::ECANCELED);

fn shared_pipe() -> (Arc<OwnedFd>, Arc<OwnedFd>) {
    let (reader, writer) = pipe();
    (Arc::new(reader), Arc::new(writer))
}

fn read_all(reader: Arc<OwnedFd>) -> Vec<u8> {
    let mut bytes = Vec::new();
    File::from(Arc::into_inner(reader).unwrap()).read_to_end(&mut bytes).unwrap();
    bytes
}

/// An operation that ends the ring as soon as it runs.
fn exit<D: Send + 'static>(data: D) -> Script<D> {
    Script::new()
        .on_setup_once(move |mut submitter| {
            submitter.submit(data, |_| request::nop())?;
            Ok(())
        })
        .on_completion(|_, _, _| (ControlFlow::Exit, None))
}

// ---- what is in flight ----------------------------------------------------------------------------

fn poll_many(count: usize, entries: u32) {
    let ledger = Ledger::new();
    let (reader, _writer) = shared_pipe();
    let ended = Log::new();
    let log = ended.clone();
    let data = ledger.issue(Arc::clone(&reader));
    let polls = Script::new()
        .on_setup_once(move |mut submitter| {
            for _ in 0..count {
                let data = ledger.issue(Arc::clone(&reader));
                submitter.submit(data, |it| request::poll(&*it.value, Events::READABLE))?;
            }
            Ok(())
        })
        .on_teardown(move |completion, _, _| {
            log.push(outcome(&completion));
            Ok(())
        });
    let mut ring = Bench::builder(polls, exit(data)).entries(entries.try_into().unwrap()).build().unwrap();
    ring.run().unwrap();
    let ended = ended.take();
    assert_eq!(ended.len(), count);
    assert!(ended.iter().all(|result| *result == CANCELLED));
    ledger.assert_all_dropped_once();
}

#[test]
fn ten_thousand_polls_in_flight_end() {
    watched(|| poll_many(10_000, 256));
}

#[test]
fn thirty_two_thousand_polls_in_flight_end() {
    watched(|| poll_many(32_000, 4096));
}

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

enum Source {
    Listener(TcpListener),
    Timer,
    Descriptor(OwnedFd),
    Socket(TcpStream, BufferPool),
    Nothing,
}

impl Source {
    fn stream(source: &mut Tracked<Source>) -> Stream<'_> {
        match &source.value {
            Source::Listener(listener) => request::accept_multi(listener),
            Source::Timer => request::timeout_multi(FOR_EVER),
            Source::Descriptor(descriptor) => request::poll_multi(descriptor, Events::READABLE),
            Source::Socket(socket, pool) => request::recv_multi(socket, pool),
            Source::Nothing => unreachable!(),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Source::Listener(_) => "accept",
            Source::Timer => "timeout",
            Source::Descriptor(_) => "poll",
            Source::Socket(..) => "recv",
            Source::Nothing => "nothing",
        }
    }
}

#[test]
fn each_kind_of_stream_ends_with_one_final_completion() {
    watched(|| {
        let ledger = Ledger::new();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (reader, writer) = pipe();
        let (mut near, far) = tcp_pair();
        let pool = BufferPool::new(4, 64).unwrap();
        let ended = Log::new();
        let log = ended.clone();
        let streams = Script::new()
            .on_setup_once({
                let pool = pool.clone();
                move |mut submitter| {
                    for source in [
                        Source::Listener(listener),
                        Source::Timer,
                        Source::Descriptor(reader),
                        Source::Socket(far, pool),
                    ] {
                        submitter.stream(ledger.issue(source), Source::stream)?;
                    }
                    Ok(())
                }
            })
            .on_completion(|_, _, _| panic!("the ring was to end first"))
            .on_teardown(move |completion, data, _| {
                log.push((data.name(), completion.more()));
                Ok(())
            });
        let mut clients = Vec::new();
        let mut pipe = File::from(writer);
        let other = exit(ledger.issue(Source::Nothing)).on_completion(move |_, _, _| {
            // Something is ready for each of them, and nobody has looked yet.
            clients.extend((0..3).map(|_| TcpStream::connect(address).unwrap()));
            pipe.write_all(b"x").unwrap();
            near.write_all(b"hello").unwrap();
            (ControlFlow::Exit, None)
        });
        let mut ring = Bench::builder(streams, other).build().unwrap();
        ring.run().unwrap();
        let mut ended = ended.take();
        ended.sort();
        assert_eq!(ended, ["accept", "poll", "recv", "timeout"].map(|name| (name, false)));
        assert_eq!(pool.available(), pool.capacity());
        drop(ring);
        ledger.assert_all_dropped_once();
    });
}

#[test]
fn descriptors_that_arrive_in_teardown_are_closed() {
    in_child(|| {
        let before = open_descriptors();
        for raw in [false, true] {
            let ledger = Ledger::new();
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let acceptor = Script::new()
                .on_setup_once(move |mut submitter| {
                    let data = ledger.issue(Some(listener));
                    if raw {
                        let fd = types::Fd(data.as_ref().unwrap().as_raw_fd());
                        // SAFETY: it points to nothing, and the data owns the descriptor.
                        unsafe { submitter.push(opcode::AcceptMulti::new(fd).build(), data) }?;
                    } else {
                        submitter.stream(data, |it| request::accept_multi(it.as_ref().unwrap()))?;
                    }
                    Ok(())
                })
                .on_completion(|_, _, _| panic!("the ring was to end first"));
            let clients = Log::new();
            let kept = clients.clone();
            let other = exit(ledger.issue(None)).on_completion(move |_, _, _| {
                (0..20).for_each(|_| kept.push(TcpStream::connect(address).unwrap()));
                (ControlFlow::Exit, None)
            });
            let mut ring = Bench::builder(acceptor, other).build().unwrap();
            ring.run().unwrap();
            drop(ring);
            drop(clients.take());
            assert_eq!(open_descriptors(), before, "raw: {raw}");
            ledger.assert_all_dropped_once();
        }
    });
}

#[test]
fn a_port_can_be_bound_again_right_after_the_run() {
    watched(|| {
        let ledger = Ledger::new();
        let mut address = "127.0.0.1:0".parse().unwrap();
        for _ in 0..20 {
            let listener = TcpListener::bind(address).unwrap();
            address = listener.local_addr().unwrap();
            let acceptor = Script::new().on_setup_once(move |mut submitter| {
                submitter
                    .stream(ledger.issue(Some(listener)), |it| request::accept_multi(it.as_ref().unwrap()))?;
                Ok(())
            });
            Bench::builder(acceptor, exit(ledger.issue(None))).build().unwrap().run().unwrap();
        }
        ledger.assert_all_dropped_once();
    });
}

#[test]
fn a_file_read_that_has_begun_is_waited_for() {
    in_child(|| {
        const SIZE: usize = 192 << 20;
        let path = format!("/dev/shm/rummelplatz-{}", std::process::id());
        let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        file.set_len(SIZE as u64).unwrap();
        let ledger = Ledger::new();
        let file = Arc::new(OwnedFd::from(file));
        let ended = Log::new();
        let log = ended.clone();
        let nothing = ledger.issue(Job::new(1, &file, 0));
        let reader = Script::new()
            .on_setup_once(move |mut submitter| {
                let mut data = ledger.issue(Job::new(0, &file, SIZE));
                data.buffer.fill(7);
                let entry = data.read_entry().flags(squeue::Flags::ASYNC);
                // SAFETY: the entry points to the buffer on the heap that `data` owns.
                unsafe { submitter.push(entry, data) }?;
                Ok(())
            })
            .on_teardown(move |completion, data, _| {
                log.push((outcome(&completion), data.buffer.iter().all(|byte| *byte == 0)));
                Ok(())
            });
        let other = exit(nothing).on_completion(|_, _, _| {
            // The worker has begun by then.
            thread::sleep(Duration::from_millis(5));
            (ControlFlow::Exit, None)
        });
        let mut ring = Bench::builder(reader, other).build().unwrap();
        ring.run().unwrap();
        assert_eq!(ended.take(), [(Ok(SIZE as u32), true)]);
        ledger.assert_all_dropped_once();
    });
}

#[test]
fn a_splice_that_blocks_ends_as_cancelled_whatever_the_kernel_says() {
    watched(|| {
        let ledger = Ledger::new();
        let (reader, _keep_writer) = pipe();
        let (_keep_reader, writer) = pipe();
        let ended = Log::new();
        let log = ended.clone();
        let splicer = Script::new()
            .on_setup_once(move |mut submitter| {
                let from = types::Fd(reader.as_raw_fd());
                let to = types::Fd(writer.as_raw_fd());
                let entry = opcode::Splice::new(from, -1, to, -1, 64).build();
                // SAFETY: it points to nothing, and the data owns both descriptors.
                unsafe { submitter.push(entry, ledger.issue(Some((reader, writer)))) }?;
                Ok(())
            })
            .on_teardown(move |completion, _, _| {
                log.push(outcome(&completion));
                Ok(())
            });
        let other = exit(ledger.issue(None)).on_completion(|_, _, _| {
            thread::sleep(Duration::from_millis(5));
            (ControlFlow::Exit, None)
        });
        Bench::builder(splicer, other).build().unwrap().run().unwrap();
        let ended = ended.take();
        assert!(matches!(ended[..], [Err(libc::ECANCELED | libc::EINTR)]), "{ended:?}");
        ledger.assert_all_dropped_once();
    });
}

#[test]
fn a_hard_chain_of_five_blocked_reads_ends_member_by_member() {
    watched(|| {
        let ledger = Ledger::new();
        let (reader, _writer) = shared_pipe();
        let ended = Log::new();
        let log = ended.clone();
        let nothing = ledger.issue(Job::new(9, &reader, 0));
        let chain = Script::new()
            .on_setup_once(move |mut submitter| {
                let mut data = [0, 1, 2, 3, 4].map(|it| ledger.issue(Job::new(it, &reader, 8)));
                let mut entries = data.each_mut().map(|it| it.read_entry());
                for entry in &mut entries[..4] {
                    *entry = entry.clone().flags(squeue::Flags::IO_HARDLINK);
                }
                // SAFETY: each entry points to the buffer on the heap that its data owns.
                unsafe { submitter.push_multiple(entries, data) }.map_err(SubmitError::from)?;
                Ok(())
            })
            .on_teardown(move |completion, data, _| {
                log.push((data.number, completion.result().is_err()));
                Ok(())
            });
        Bench::builder(chain, exit(nothing)).build().unwrap().run().unwrap();
        assert_eq!(ended.take(), [0, 1, 2, 3, 4].map(|number| (number, true)));
        ledger.assert_all_dropped_once();
    });
}

#[test]
fn a_request_that_is_armed_after_the_first_cancel_is_cancelled_too() {
    static EXPIRED: types::Timespec = types::Timespec::new().nsec(1);
    watched(|| {
        let ledger = Ledger::new();
        let (reader, _writer) = shared_pipe();
        let ended = Log::new();
        let log = ended.clone();
        let nothing = ledger.issue(Job::new(9, &reader, 0));
        let late = Script::new()
            .on_setup_once(move |mut submitter| {
                let mut data = [0, 1].map(|it| ledger.issue(Job::new(it, &reader, 8)));
                let timeout = opcode::Timeout::new(&raw const EXPIRED)
                    .flags(types::TimeoutFlags::ETIME_SUCCESS)
                    .build()
                    .flags(squeue::Flags::IO_LINK);
                let entries = [timeout, data[1].read_entry()];
                // SAFETY: the time lives for ever, and the read points to the buffer on the heap that
                // its data owns.
                unsafe { submitter.push_multiple(entries, data) }.map_err(SubmitError::from)?;
                Ok(())
            })
            .on_teardown(move |_, data, _| {
                log.push(data.number);
                Ok(())
            });
        let other = exit(nothing).on_completion(|_, _, _| {
            // By now the timer has expired, and its task work waits for the next enter.
            thread::sleep(Duration::from_millis(5));
            (ControlFlow::Exit, None)
        });
        Bench::builder(late, other).build().unwrap().run().unwrap();
        let mut ended = ended.take();
        ended.sort();
        assert_eq!(ended, [0, 1]);
        ledger.assert_all_dropped_once();
    });
}

/// A read with a linked timeout. Returns what became of both, by number, while running and in teardown.
#[expect(clippy::type_complexity, reason = "two logs")]
fn read_with_linked_timeout(
    time: &'static types::Timespec,
    ready: bool,
    stop_after: Option<Duration>,
) -> (Vec<(u64, Result<u32, i32>)>, Vec<(u64, Result<u32, i32>)>) {
    let ledger = Ledger::new();
    let (reader, writer) = shared_pipe();
    if ready {
        File::from(writer.try_clone().unwrap()).write_all(b"x").unwrap();
    }
    let (ran, torn_down) = (Log::new(), Log::new());
    let (running, tearing_down) = (ran.clone(), torn_down.clone());
    let nothing = ledger.issue(Job::new(9, &reader, 0));
    let linked = Script::new()
        .on_setup_once(move |mut submitter| {
            let mut data = [0, 1].map(|it| ledger.issue(Job::new(it, &reader, 8)));
            let read = data[0].read_entry().flags(squeue::Flags::IO_LINK);
            let entries = [read, opcode::LinkTimeout::new(&raw const *time).build()];
            // SAFETY: the time lives for ever, and the read points to the buffer on the heap that its
            // data owns.
            unsafe { submitter.push_multiple(entries, data) }.map_err(SubmitError::from)?;
            Ok(())
        })
        .on_completion(move |completion, data, _| {
            running.push((data.number, outcome(&completion)));
            (ControlFlow::Continue, None)
        })
        .on_teardown(move |completion, data, _| {
            tearing_down.push((data.number, outcome(&completion)));
            Ok(())
        });
    let stopper = match stop_after {
        Some(time) => Script::new()
            .on_setup_once(move |mut submitter| {
                submitter.submit(nothing, move |_| request::timeout(time))?;
                Ok(())
            })
            .on_completion(|_, _, _| (ControlFlow::Exit, None)),
        None => {
            drop(nothing);
            Script::new()
        }
    };
    Bench::builder(linked, stopper).build().unwrap().run().unwrap();
    ledger.assert_all_dropped_once();
    let (mut ran, mut torn_down) = (ran.take(), torn_down.take());
    ran.sort();
    torn_down.sort();
    (ran, torn_down)
}

#[test]
fn a_linked_timeout_and_its_request_both_end_in_either_order() {
    static SHORT: types::Timespec = types::Timespec::new().nsec(5_000_000);
    static LONG: types::Timespec = types::Timespec::new().sec(100_000);
    watched(|| {
        let (ran, torn_down) = read_with_linked_timeout(&SHORT, false, None);
        assert_eq!((ran, torn_down), (vec![(0, CANCELLED), (1, Err(libc::ETIME))], vec![]));
        let (ran, torn_down) = read_with_linked_timeout(&LONG, true, None);
        assert_eq!((ran, torn_down), (vec![(0, Ok(1)), (1, CANCELLED)], vec![]));
        let time = Some(Duration::from_millis(5));
        let (ran, torn_down) = read_with_linked_timeout(&LONG, false, time);
        assert_eq!((ran, torn_down), (vec![], vec![(0, CANCELLED), (1, CANCELLED)]));
    });
}

#[test]
fn a_completion_queue_of_four_serves_sixty_four_requests() {
    watched(|| {
        let ledger = Ledger::new();
        let (ran, ended) = (Log::new(), Log::new());
        let (running, log) = (ran.clone(), ended.clone());
        let script = Script::new()
            .on_setup_once(move |mut submitter| {
                for number in 0..64 {
                    submitter.submit(ledger.issue(number), |_| request::nop())?;
                    submitter.submit(ledger.issue(number), |_| request::timeout(FOR_EVER))?;
                }
                Ok(())
            })
            .on_completion(move |_, data, _| {
                running.push(*data);
                let flow = if *data == 63 { ControlFlow::Exit } else { ControlFlow::Continue };
                (flow, None)
            })
            .on_teardown(move |completion, data, _| {
                log.push((*data, outcome(&completion)));
                Ok(())
            });
        let mut ring = Bench::builder(script, Script::new())
            .entries(4.try_into().unwrap())
            .completion_entries(4.try_into().unwrap())
            .build()
            .unwrap();
        ring.run().unwrap();
        assert_eq!(ran.take(), (0..64).collect::<Vec<_>>());
        let mut ended = ended.take();
        ended.sort();
        assert_eq!(ended, (0..64).map(|number| (number, CANCELLED)).collect::<Vec<_>>());
        assert_eq!(ring.stats().foreign, 0);
        ledger.assert_all_dropped_once();
    });
}

// ---- zero-copy sends ------------------------------------------------------------------------------

#[test]
fn a_zero_copy_send_ends_when_the_peer_has_read_and_keeps_its_first_result() {
    watched(|| {
        let ledger = Ledger::new();
        let (client, mut server) = tcp_pair();
        let file = Arc::new(OwnedFd::from(client));
        let ended = Log::new();
        let log = ended.clone();
        let nothing = ledger.issue(Job::new(9, &file, 0));
        let sender = Script::new()
            .on_setup_once(move |mut submitter| {
                let mut data = ledger.issue(Job::new(0, &file, 8 << 20));
                let entry = data.send_zc_entry();
                // SAFETY: the entry points to the buffer on the heap that `data` owns.
                unsafe { submitter.push(entry, data) }?;
                Ok(())
            })
            .on_teardown(move |completion, _, _| {
                log.push(outcome(&completion));
                Ok(())
            });
        let mut ring = Bench::builder(sender, exit(nothing)).build().unwrap();
        let reader = thread::spawn(move || {
            thread::sleep(Duration::from_millis(100));
            let mut bytes = Vec::new();
            server.read_to_end(&mut bytes).unwrap();
            bytes.len()
        });
        ring.run().unwrap();
        drop(ring);
        let sent = reader.join().unwrap() as u32;
        assert!(sent > 0 && sent < 8 << 20, "it was cancelled half-way: {sent}");
        assert_eq!(ended.take(), [Ok(sent)]);
        ledger.assert_all_dropped_once();
    });
}

#[test]
fn what_is_abandoned_at_the_deadline_is_named_and_its_memory_stays_as_it_is() {
    in_child(|| {
        const SIZE: usize = 4 << 20;
        let ledger = Ledger::new();
        let (client, mut server) = tcp_pair();
        let file = Arc::new(OwnedFd::from(client));
        let nothing = ledger.issue(Job::new(9, &file, 0));
        let sender = Script::new()
            .on_setup_once(move |mut submitter| {
                let mut data = ledger.issue(Job::new(0, &file, SIZE));
                data.buffer.fill(0xAB);
                let entry = data.send_zc_entry();
                // SAFETY: the entry points to the buffer on the heap that `data` owns.
                unsafe { submitter.push(entry, data) }?;
                Ok(())
            })
            .on_completion(|_, _, _| panic!("it can't end"))
            .on_teardown(|_, _, _| panic!("it can't end"));
        let mut ring =
            Bench::builder(sender, exit(nothing)).deadline(Duration::from_millis(100)).build().unwrap();
        let error = ring.run().unwrap_err();
        let RingError::Abandoned { stuck } = &error else { panic!("{error}") };
        assert_eq!(stuck.errno, None);
        let [request] = &stuck.requests[..] else { panic!("{stuck}") };
        assert_eq!((request.operation, request.opcode_name()), ("first", "SEND_ZC"));
        assert!(error.to_string().contains("SEND_ZC of `first`"), "{error}");

        // For good: every later call says the same, and nothing is accepted.
        assert!(matches!(ring.run(), Err(RingError::Abandoned { stuck: again }) if again == *stuck));
        assert!(matches!(ring.turn(), Err(RingError::Abandoned { .. })));
        assert!(matches!(ring.finish(), Err(RingError::Abandoned { .. })));
        let other = Arc::new(OwnedFd::from(pipe().0));
        let data = ledger.issue(Job::new(1, &other, 0));
        let refused = ring.submitter(Bench::FIRST).try_submit(data, |_| request::nop());
        assert!(matches!(refused, Err(Refused { error: SubmitError::Closed, .. })));
        drop(refused);
        drop(ring);
        assert_eq!(ledger.alive(), 1);
        ledger.assert_none_dropped_twice();

        // Were the buffer freed, this would be put into it, and go out.
        let garbage: Vec<_> = (0..8).map(|_| vec![0xCD_u8; SIZE]).collect();
        server.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        let mut bytes = vec![0; SIZE];
        let mut received = 0;
        loop {
            match server.read(&mut bytes) {
                Ok(0) => break,
                Ok(count) => {
                    assert!(bytes[..count].iter().all(|byte| *byte == 0xAB), "at {received}");
                    received += count;
                }
                // The end of the ring that was dropped may interrupt.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
        assert!(received > 0);
        drop(garbage);
    });
}

// ---- teardown handlers ------------------------------------------------------------------------------

#[test]
fn late_requests_are_awaited_for_the_grace_then_cancelled_then_refused() {
    watched(|| {
        let ledger = Ledger::new();
        let ended = Log::new();
        let log = ended.clone();
        let script = Script::new()
            .on_setup_once(move |mut submitter| {
                submitter.submit(ledger.issue("first"), |_| request::timeout(FOR_EVER))?;
                submitter.submit(ledger.issue("exit"), |_| request::nop())?;
                Ok(())
            })
            .on_completion(|_, _, _| (ControlFlow::Exit, None))
            .on_teardown(move |completion, data, mut submitter| {
                log.push((*data, outcome(&completion)));
                match *data {
                    "first" => {
                        let quick = ledger.issue("quick");
                        submitter.submit(quick, |_| request::timeout(Duration::from_millis(50)))?;
                        submitter.submit(ledger.issue("slow"), |_| request::timeout(FOR_EVER))?;
                    }
                    "slow" => {
                        let data = ledger.issue("refused");
                        let refused = submitter.try_submit(data, |_| request::nop()).unwrap_err();
                        assert_eq!((*refused.data, refused.error), ("refused", SubmitError::Closed));
                        let refused = submitter.try_post(refused.data).unwrap_err();
                        assert_eq!((*refused.data, refused.error), ("refused", SubmitError::Closed));
                    }
                    _ => {}
                }
                Ok(())
            });
        let mut ring =
            Bench::builder(script, Script::new()).grace(Duration::from_millis(200)).build().unwrap();
        for _ in 0..2 {
            ring.run().unwrap();
        }
        assert_eq!(ended.take(), [("first", CANCELLED), ("quick", Ok(0)), ("slow", CANCELLED)]);
        ledger.assert_all_dropped_once();
    });
}

/// A ring whose teardown handler calls `submit` for each completion.
fn never_satisfied(
    ledger: Ledger,
    mut submit: impl FnMut(rummelplatz_tests::BenchSubmitter<'_, Tracked<u32>>, u32) + Send + 'static,
) {
    let script = Script::new()
        .on_setup_once(move |mut submitter| {
            submitter.submit(ledger.issue(0), |_| request::timeout(FOR_EVER))?;
            submitter.submit(ledger.issue(0), |_| request::nop())?;
            Ok(())
        })
        .on_completion(|_, _, _| (ControlFlow::Exit, None))
        .on_teardown(move |_, data, submitter| {
            submit(submitter, *data + 1);
            Ok(())
        });
    let mut ring = Bench::builder(script, Script::new()).grace(Duration::from_millis(50)).build().unwrap();
    ring.run().unwrap();
    assert!(ledger.issued() > 3);
    ledger.assert_all_dropped_once();
}

#[test]
fn a_teardown_handler_that_always_submits_does_not_keep_the_ring_alive() {
    watched(|| {
        let ledger = Ledger::new();
        never_satisfied(ledger, move |mut submitter, number| {
            submitter.submit(ledger.issue(number), |_| request::nop()).ok();
        });
    });
}

#[test]
fn a_teardown_handler_that_always_posts_does_not_keep_the_ring_alive() {
    watched(|| {
        let ledger = Ledger::new();
        never_satisfied(ledger, move |mut submitter, number| {
            submitter.post(ledger.issue(number)).ok();
        });
    });
}

#[test]
fn a_teardown_handler_that_always_submits_more_than_fits_does_not_keep_the_ring_alive() {
    watched(|| {
        let ledger = Ledger::new();
        never_satisfied(ledger, move |mut submitter, number| {
            if ledger.alive() < 2000 {
                for _ in 0..3 {
                    submitter.submit(ledger.issue(number), |_| request::timeout(FOR_EVER)).ok();
                    submitter.submit(ledger.issue(number), |_| request::nop()).ok();
                }
            }
        });
    });
}

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
                let mut data = ledger.issue(Job::new(0, &file, 4 << 20));
                let entry = data.send_zc_entry();
                // SAFETY: the entry points to the buffer on the heap that `data` owns.
                unsafe { submitter.push(entry, data) }?;
                let timer = ledger.issue(Job::new(1, &file, 0));
                submitter.submit(timer, |_| request::timeout(FOR_EVER))?;
                Ok(())
            })
            .on_teardown(|_, _, _| Err("not even that".into()));
        let second = Script::new().on_setup(|_| Err("no such luck".into()));
        let mut ring = Bench::builder(first, second).deadline(Duration::from_millis(100)).build().unwrap();
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

// ---- what happens meanwhile -------------------------------------------------------------------------

fn storm(restart: bool) {
    let ledger = Ledger::new();
    let (reader, _writer) = shared_pipe();
    let ended = Log::new();
    let log = ended.clone();
    let storm = SignalStorm::begin(restart);
    let script = Script::new()
        .on_setup(move |mut submitter| {
            for number in 0..3000 {
                submitter.submit(ledger.issue(Job::new(number, &reader, 8)), |it| it.read())?;
            }
            let timer = ledger.issue(Job::new(9999, &reader, 0));
            submitter.submit(timer, |_| request::timeout(Duration::from_millis(100)))?;
            Ok(())
        })
        .on_completion(|completion, data, _| {
            assert_eq!((data.number, outcome(&completion)), (9999, Ok(0)));
            (ControlFlow::Exit, None)
        })
        .on_teardown(move |completion, data, mut submitter| {
            log.push(data.number);
            if data.number == 5 {
                assert_eq!(outcome(&completion), CANCELLED);
                // A wait in the teardown itself.
                let data = ledger.issue(Job::new(7777, &data.file, 0));
                submitter.submit(data, |_| request::timeout(Duration::from_millis(100)))?;
            }
            Ok(())
        });
    let mut ring = Bench::with(64, script);
    for _ in 0..3 {
        ring.run().unwrap();
        assert_eq!(ended.take().len(), 3001);
    }
    assert!(SignalStorm::signals() > 50, "{}", SignalStorm::signals());
    drop((ring, storm));
    ledger.assert_all_dropped_once();
}

#[test]
fn a_storm_of_signals_changes_nothing() {
    in_child(|| storm(false));
}

#[test]
fn a_storm_of_signals_with_restarted_calls_changes_nothing() {
    in_child(|| storm(true));
}

#[test]
fn stopping_and_continuing_the_process_changes_nothing() {
    in_child(|| {
        let ledger = Ledger::new();
        let ended = Log::new();
        let log = ended.clone();
        let script = Script::new()
            .on_setup_once(move |mut submitter| {
                submitter.submit(ledger.issue(0), |_| request::timeout(FOR_EVER))?;
                submitter.submit(ledger.issue(1), |_| request::timeout(Duration::from_millis(200)))?;
                Ok(())
            })
            .on_completion(|completion, _, _| {
                assert_eq!(outcome(&completion), Ok(0));
                (ControlFlow::Exit, None)
            })
            .on_teardown(move |completion, data, mut submitter| {
                log.push((*data, outcome(&completion)));
                if *data == 0 {
                    let late = ledger.issue(2);
                    submitter.submit(late, |_| request::timeout(Duration::from_millis(200)))?;
                }
                Ok(())
            });
        let mut ring = Bench::with(8, script);
        let script =
            "for i in 1 2 3 4 5 6 7 8; do kill -STOP $0; sleep 0.02; kill -CONT $0; sleep 0.03; done";
        let mut stopper =
            Command::new("sh").args(["-c", script, &std::process::id().to_string()]).spawn().unwrap();
        ring.run().unwrap();
        assert!(stopper.wait().unwrap().success());
        assert_eq!(ended.take(), [(0, CANCELLED), (2, Ok(0))]);
        ledger.assert_all_dropped_once();
    });
}

#[test]
fn messages_of_other_rings_that_arrive_in_teardown_are_counted_and_dropped() {
    watched(|| {
        let ledger = Ledger::new();
        let (reader, _writer) = shared_pipe();
        let nothing = ledger.issue(Job::new(9, &reader, 0));
        let target = Log::new();
        let fd = target.clone();
        let mut sender = IoUring::new(64).unwrap();
        let mut sent = 0;
        let reads = Script::new()
            .on_setup_once(move |mut submitter| {
                for number in 0..50 {
                    submitter.submit(ledger.issue(Job::new(number, &reader, 8)), |it| it.read())?;
                }
                Ok(())
            })
            .on_teardown(move |_, _, _| {
                let target: types::Fd = fd.take()[0];
                fd.push(target);
                for user_data in [1 << 56 | 0xFFFF, 77 << 56, u64::MAX, 9] {
                    let message = opcode::MsgRingData::new(target, 0, user_data, None).build();
                    // SAFETY: it points to nothing.
                    unsafe { sender.submission().push(&message) }.unwrap();
                    sent += 1;
                }
                sender.submit_and_wait(4)?;
                sender.completion().for_each(drop);
                assert!(sent <= 200);
                Ok(())
            });
        let mut ring = Bench::builder(reads, exit(nothing)).build().unwrap();
        target.push(types::Fd(ring.as_raw_fd()));
        ring.run().unwrap();
        // What was sent by the handlers of the last round may come when nobody looks any more.
        assert!(ring.stats().foreign <= 200);
        assert_eq!(ring.stats().in_flight, 0);
        ring.run().unwrap();
        ledger.assert_all_dropped_once();
    });
}

// ---- rings that are not run to their end ------------------------------------------------------------

#[test]
fn a_ring_that_is_dropped_before_it_ran_does_nothing_and_frees_all() {
    watched(|| {
        let ledger = Ledger::new();
        let (reader, writer) = shared_pipe();
        let mut ring = Bench::with(2, Script::new().on_teardown(|_, _, _| panic!("it never ran")));
        let mut submitter = ring.submitter(Bench::FIRST);
        for number in 0..6 {
            submitter.submit(ledger.issue(Job::new(number, &writer, 1)), |it| it.write()).unwrap();
        }
        submitter.post(ledger.issue(Job::new(6, &writer, 0))).unwrap();
        submitter.detach(ledger.issue(Job::new(7, &writer, 1)), |it| it.write()).unwrap();
        drop(writer);
        drop(ring);
        ledger.assert_all_dropped_once();
        assert_eq!(read_all(reader), []);
    });
}

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
fn a_ring_that_is_dropped_in_another_thread_leaks_and_frees_nothing() {
    in_child(|| {
        let ledger = Ledger::new();
        let (client, mut server) = tcp_pair();
        let file = Arc::new(OwnedFd::from(client));
        let script = Script::new().on_setup_once(move |mut submitter| {
            for number in 0..50 {
                let data = ledger.issue(Job::new(number, &file, 4096));
                submitter.submit(data, |it| it.recv())?;
            }
            Ok(())
        });
        let mut ring = Bench::with(16, script);
        assert!(!ring.turn().unwrap().is_finished());
        let ring = thread::spawn(move || {
            // The kernel takes this thread for a stranger: nothing is done, nothing is freed.
            assert!(matches!(ring.run(), Err(RingError::WrongThread)));
            assert!(matches!(ring.turn(), Err(RingError::WrongThread)));
            assert!(matches!(ring.finish(), Err(RingError::WrongThread)));
            assert_eq!(ring.stats().in_flight, 50);
            drop(ring);
        })
        .join();
        ring.unwrap();
        assert_eq!(ledger.alive(), 50);
        server.write_all(&[7; 4096]).ok();
        thread::sleep(Duration::from_millis(20));
        assert_eq!(ledger.alive(), 50);
        ledger.assert_none_dropped_twice();
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
            assert!(began.elapsed() < Duration::from_secs(5));
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
fn a_run_after_a_run_starts_afresh() {
    watched(|| {
        let ledger = Ledger::new();
        let ended = Log::new();
        let log = ended.clone();
        let script = Script::new()
            .on_setup(move |mut submitter| {
                submitter.submit(ledger.issue("long"), |_| request::timeout(FOR_EVER))?;
                submitter.submit(ledger.issue("exit"), |_| request::nop())?;
                Ok(())
            })
            .on_completion(|_, data, _| {
                assert_eq!(*data, "exit");
                (ControlFlow::Exit, None)
            })
            .on_teardown(move |completion, data, _| {
                log.push((*data, outcome(&completion)));
                Ok(())
            });
        let mut ring = Bench::with(8, script);
        for _ in 0..10 {
            ring.run().unwrap();
            assert_eq!(ended.take(), [("long", CANCELLED)]);
        }
        assert_eq!(ring.stats().foreign, 0);
        ledger.assert_all_dropped_once();
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
        // Nobody runs this one.
        ring.submitter(Bench::FIRST).submit(ledger.issue(9), |_| request::timeout(FOR_EVER)).unwrap();
        drop(ring);
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
