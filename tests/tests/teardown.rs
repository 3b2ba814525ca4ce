//! How rings end: every request exactly once, whatever it is, and whatever happens meanwhile.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::mem;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rummelplatz::io_uring::{IoUring, opcode, squeue, types};
use rummelplatz::request::Events;
use rummelplatz::{
    BufferPool, ControlFlow, Key, RawRing, Refused, RingError, Status, Stream, SubmitError, request,
};
use rummelplatz_tests::{
    Bench, BenchSubmitter, Job, Ledger, Log, Script, SignalStorm, Tracked, addressable, in_child,
    open_descriptors, outcome, pipe, tcp_pair, watched,
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

/// So many that a teardown whose work is quadratic does not end.
#[test]
fn a_hundred_and_fifty_thousand_polls_in_flight_end() {
    watched(|| poll_many(150_000, 4096));
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
        static BUFFER: AtomicPtr<u8> = AtomicPtr::new(std::ptr::null_mut());
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
                BUFFER.store(data.buffer.as_mut_ptr(), Ordering::Relaxed);
                let entry = data.read_entry().flags(squeue::Flags::ASYNC);
                // SAFETY: the entry points to the buffer on the heap that `data` owns.
                unsafe { submitter.push(entry, data) }?;
                Ok(())
            })
            .on_teardown(move |completion, data, _| {
                log.push((outcome(&completion), *data.buffer == *vec![0; SIZE]));
                Ok(())
            });
        let other = exit(nothing).on_completion(|_, _, _| {
            // SAFETY: the data is in its slot, and the buffer with it, until the ring is torn down; nobody
            // but the kernel has access to it.
            while unsafe { BUFFER.load(Ordering::Relaxed).read_volatile() } == 7 {
                thread::yield_now();
            }
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
    static SHORT: types::Timespec = types::Timespec::new().nsec(1_000_000);
    watched(|| {
        let ledger = Ledger::new();
        let (reader, _writer) = shared_pipe();
        let ended = Log::new();
        let log = ended.clone();
        let nothing = ledger.issue(Job::new(9, &reader, 0));
        let late = Script::new()
            .on_setup_once(move |mut submitter| {
                let mut data = [0, 1].map(|it| ledger.issue(Job::new(it, &reader, 8)));
                let timeout = opcode::Timeout::new(&raw const SHORT)
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
            // The timer expires now, and its task work waits for the next enter: that of the cancels.
            thread::sleep(Duration::from_millis(5));
            (ControlFlow::Exit, None)
        });
        // The end of the grace period would be the reason for another wave.
        let grace = Duration::from_secs(1000);
        Bench::builder(late, other).grace(grace).build().unwrap().run().unwrap();
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
        // Cancelled half-way, most likely.
        assert!(sent > 0);
        assert_eq!(ended.take(), [Ok(sent)]);
        ledger.assert_all_dropped_once();
    });
}

#[test]
fn a_zero_copy_send_that_fails_at_once_ends_with_its_error_when_the_memory_is_free() {
    watched(|| {
        for in_teardown in [false, true] {
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
                        let mut data = ledger.issue(Job::new(0, &file, 4096));
                        let entry = data.send_zc_entry();
                        // SAFETY: the entry points to the buffer on the heap that `data` owns.
                        unsafe { submitter.push(entry, data) }?;
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
            // The error comes first and announces more; the notification is the end.
            assert_eq!(ended.take(), [Err(libc::EPIPE); 3]);
            assert_eq!(ring.stats().foreign, 0);
            drop((ring, server));
            ledger.assert_all_dropped_once();
        }
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
        let other = Arc::new(pipe().0);
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
                        submitter.submit(quick, |_| request::timeout(Duration::from_millis(10)))?;
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
        let mut ring = Bench::builder(script, Script::new()).grace(Duration::from_secs(1)).build().unwrap();
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
    mut submit: impl FnMut(BenchSubmitter<'_, Tracked<u32>>, u32) + Send + 'static,
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
    let mut ring = Bench::builder(script, Script::new()).grace(Duration::from_millis(10)).build().unwrap();
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
    assert!(SignalStorm::signals() > 0, "there was no storm");
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
        let grace = Duration::from_secs(10);
        let mut ring = Bench::builder(script, Script::new()).grace(grace).build().unwrap();
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
        let (raw, target) = addressable(64);
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
        let mut ring = Bench::builder(reads, exit(nothing)).raw_ring(raw).build().unwrap();
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
        assert!(read_all(reader).is_empty());
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
                // So that the reads don't see the end of the file.
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
        // For the next run it is open again.
        ring.submitter(Bench::FIRST).submit(ledger.issue(3), |_| request::nop()).unwrap();
        ring.run().unwrap();
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
    // The first numbers of neighbouring seeds are much alike.
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
                    // Streams and reads of a pipe that nobody writes to never end by themselves.
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
    // Something that always comes, so that it ends.
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

/// `RUMMEL_SEED=n` repeats one program; `RUMMEL_PROGRAMS=n` runs as many.
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
