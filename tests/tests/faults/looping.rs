//! What the loop must cope with: signals, overflow, streams that are cut.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::num::NonZeroU32;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rummelplatz::io_uring::{IoUring, opcode, squeue, types};
use rummelplatz::request::Events;
use rummelplatz::{Buffer, BufferPool, Completion, ControlFlow, RawRing, Status, Stream, request};
use rummelplatz_tests::{
    Acceptor, Bench, Job, Ledger, Log, NO_OPCODE, OPCODE, ProvidedBuffers, Script, SignalStorm, Tracked,
    addressable, connect, cramped, forge, in_child, is_cut, leaves_nothing, listener, open_descriptors,
    outcome, pipe, queued_user_data, receive_all, tcp_pair, turn_until, with_byte,
};

const CANCELLED: Result<u32, i32> = Err(libc::ECANCELED);
const F_BUFFER: u32 = 1;
const F_MORE: u32 = 1 << 1;
const F_BUF_MORE: u32 = 1 << 4;

fn shared_pipe() -> (Arc<OwnedFd>, Arc<OwnedFd>) {
    let (reader, writer) = pipe();
    (Arc::new(reader), Arc::new(writer))
}

fn nop() -> squeue::Entry {
    opcode::Nop::new().build()
}

fn link(entry: squeue::Entry) -> squeue::Entry {
    entry.flags(squeue::Flags::IO_LINK)
}

fn write(to: &OwnedFd, bytes: &[u8]) {
    File::from(to.try_clone().unwrap()).write_all(bytes).unwrap();
}

#[test]
fn l01_an_enter_that_succeeds_without_a_completion_is_followed_by_another() {
    const TIMERS: u32 = 40;
    const TIME: Duration = Duration::from_millis(3);
    in_child(|| {
        // If an enter is interrupted while it waits after it has submitted something, it returns `Ok(1)`.
        leaves_nothing(|ledger| {
            let storm = SignalStorm::begin(false);
            let began = Instant::now();
            let seen = Log::new();
            let log = seen.clone();
            let script =
                Script::new().on_completion(move |completion, number: Tracked<u32>, mut submitter| {
                    log.push((*number, outcome(&completion)));
                    if *number + 1 < TIMERS {
                        let next = ledger.issue(*number + 1);
                        submitter.submit(next, |_| request::timeout(TIME)).unwrap();
                    }
                    (ControlFlow::Continue, None)
                });
            let mut ring = Bench::with(8, script);
            ring.submitter(Bench::FIRST).submit(ledger.issue(0), |_| request::timeout(TIME)).unwrap();
            ring.run().unwrap();
            assert!(began.elapsed() >= TIMERS * TIME);
            assert_eq!(seen.take(), (0..TIMERS).map(|number| (number, Ok(0))).collect::<Vec<_>>());
            assert!(SignalStorm::signals() > TIMERS as usize / 2, "{}", SignalStorm::signals());
            drop(storm);
        });
        // So does an enter that meets a bad entry, without `IORING_SETUP_SUBMIT_ALL`: it does not even wait.
        leaves_nothing(|ledger| {
            // SAFETY: nothing is queued or in flight in it.
            let raw = unsafe { RawRing::from_io_uring(IoUring::new(8).unwrap()) }.unwrap();
            let seen = Log::new();
            let log = seen.clone();
            let script = Script::new().on_completion(move |completion, number: Tracked<u32>, _| {
                log.push((*number, outcome(&completion)));
                (ControlFlow::Continue, None)
            });
            let mut ring = Bench::builder(script, Script::new()).raw_ring(raw).build().unwrap();
            let mut submitter = ring.submitter(Bench::FIRST);
            submitter.submit(ledger.issue(0), |_| request::timeout(TIME)).unwrap();
            // SAFETY: it points to nothing.
            unsafe { submitter.push(with_byte(nop(), OPCODE, NO_OPCODE), ledger.issue(1)) }.unwrap();
            submitter.submit(ledger.issue(2), |_| request::timeout(2 * TIME)).unwrap();
            ring.run().unwrap();
            assert_eq!(seen.take(), [(1, Err(libc::EINVAL)), (0, Ok(0)), (2, Ok(0))]);
        });
    });
}

#[test]
fn l02_signals_while_it_waits_end_no_run() {
    in_child(|| {
        for restart in [false, true] {
            leaves_nothing(|ledger| {
                let (reader, writer) = shared_pipe();
                let storm = SignalStorm::begin(restart);
                let before = SignalStorm::signals();
                let other = thread::spawn(move || {
                    while SignalStorm::signals() < before + 50 {
                        thread::sleep(Duration::from_millis(1));
                    }
                    write(&writer, b"x");
                });
                let seen = Log::new();
                let log = seen.clone();
                let script = Script::new().on_completion(move |completion, _, _| {
                    log.push(outcome(&completion));
                    (ControlFlow::Continue, None)
                });
                let mut ring = Bench::with(8, script);
                let data = ledger.issue(Job::new(0, &reader, 8));
                ring.submitter(Bench::FIRST).submit(data, |job| job.read()).unwrap();
                ring.run().unwrap();
                other.join().unwrap();
                assert_eq!(seen.take(), [Ok(1)]);
                drop(storm);
            });
        }
    });
}

#[test]
fn l03_overflow_with_and_without_new_events() {
    const READS: u64 = 64;
    in_child(|| {
        for defers in [true, false] {
            for new_events in [false, true] {
                leaves_nothing(|ledger| {
                    let (reader, writer) = shared_pipe();
                    let (seen, others) = (Log::new(), Log::new());
                    let (log, counted) = (seen.clone(), others.clone());
                    let first =
                        Script::new().on_completion(move |completion, job: Tracked<Job>, mut submitter| {
                            log.push((job.number, outcome(&completion)));
                            if new_events {
                                submitter.to(Bench::SECOND).submit(job, |_| request::nop()).unwrap();
                            }
                            (ControlFlow::Continue, None)
                        });
                    let second = Script::new().on_completion(move |_, _, _| {
                        counted.push(());
                        (ControlFlow::Continue, None)
                    });
                    let four = NonZeroU32::new(4).unwrap();
                    let builder = Bench::builder(first, second).entries(four).completion_entries(four);
                    let mut ring = builder.defer_taskrun(defers).build().unwrap();
                    for number in 0..READS {
                        let job = ledger.issue(Job::new(number, &reader, 1));
                        ring.submitter(Bench::FIRST).submit(job, |job| job.read()).unwrap();
                    }
                    while ring.turn().unwrap().status != Status::Waiting || ring.stats().backlog > 0 {}
                    assert_eq!(ring.stats().in_flight, READS as usize);
                    // All at once into a queue of four, and nothing after that.
                    write(&writer, &[7; READS as usize]);
                    ring.run().unwrap();
                    let mut seen = seen.take();
                    seen.sort();
                    assert_eq!(seen, (0..READS).map(|number| (number, Ok(1))).collect::<Vec<_>>());
                    assert_eq!(others.len(), if new_events { READS as usize } else { 0 });
                });
            }
        }
    });
}

// ---- streams that are cut ---------------------------------------------------------------------

#[test]
fn l04_multishot_accept_ended_by_overflow_with_a_socket() {
    in_child(|| {
        const FIRST: usize = 100;
        const LATER: usize = 200;
        leaves_nothing(|ledger| {
            let ended = Log::new();
            let listener = listener();
            let acceptor = ledger.issue(Acceptor::new(&listener));
            let waiting = connect(&listener, FIRST);
            let (half_way, go_on) = mpsc::channel();
            let others = thread::spawn(move || {
                go_on.recv().unwrap();
                let clients = (0..LATER / 4).flat_map(|_| connect(&listener, 4));
                clients.collect::<Vec<_>>()
            });

            let accepted = Log::<TcpStream>::new();
            let (sockets, end) = (accepted.clone(), ended.clone());
            let mut cuts = 0;
            let first = Script::new()
                .on_setup_once(|mut submitter| {
                    submitter.stream(acceptor, |acceptor| acceptor.accept())?;
                    Ok(())
                })
                .on_completion(move |completion, acceptor: Tracked<Acceptor>, _| {
                    assert!(completion.more());
                    cuts += u32::from(is_cut(&completion));
                    assert!(acceptor.arms == cuts || acceptor.arms == cuts + 1, "armed once per cut");
                    sockets.push(completion.into_fd().unwrap().into());
                    if sockets.len() == FIRST {
                        half_way.send(()).unwrap();
                    }
                    let flow = match sockets.len() {
                        n if n == FIRST + LATER => ControlFlow::Exit,
                        _ => ControlFlow::Continue,
                    };
                    (flow, Some(acceptor))
                })
                .on_teardown(move |completion, acceptor, _| {
                    end.push((outcome(&completion), acceptor.arms));
                    Ok(())
                });
            let mut ring = cramped(first, Script::new());
            ring.run().unwrap();

            let mut clients = waiting;
            clients.extend(others.join().unwrap());
            let mut theirs: Vec<SocketAddr> =
                clients.iter().map(|client| client.local_addr().unwrap()).collect();
            let sockets = accepted.take();
            let mut ours: Vec<SocketAddr> =
                sockets.iter().map(|socket| socket.peer_addr().unwrap()).collect();
            theirs.sort();
            ours.sort();
            assert_eq!(ours, theirs, "each connection was accepted once");
            let [(Err(libc::ECANCELED), arms)] = ended.take()[..] else { panic!("ended otherwise") };
            assert!(arms > 10, "armed only {arms} times: the queue was not small enough to matter");
            assert_eq!(ring.stats().in_flight, 0);
        });
    });
}

#[test]
fn l04_multishot_receive_ended_by_overflow_with_bytes() {
    in_child(|| {
        leaves_nothing(|_| {
            let (mut client, server) = tcp_pair();
            let sent: Vec<u8> = (0..20_000_u32).map(|number| (number % 251) as u8).collect();
            client.write_all(&sent).unwrap();
            drop(client);
            let pool = BufferPool::new(64, 32).unwrap();
            let (received, end, arms) = receive_all(server, &pool);
            assert!(received == sent, "{} bytes of {}", received.len(), sent.len());
            assert_eq!(end, Ok(0), "the end of the file is the end of the stream");
            assert!(arms > 10, "armed only {arms} times: the queue was not small enough to matter");
        });
    });
}

/// Two operations: the first has the stream under test, the second keeps the completion queue of a
/// [`cramped`] ring full by submitting no-ops, until the first has had half of its completions.
mod crowded {
    use super::*;

    pub(crate) struct Data<S> {
        /// `None` for a no-op.
        pub(crate) stream: Option<S>,
        pub(crate) arms: u32,
        _counted: Tracked<()>,
    }

    pub(crate) fn run<S: Send + 'static>(
        ledger: Ledger,
        stream: S,
        completions: usize,
        arm: for<'d> fn(&'d mut Data<S>) -> Stream<'d>,
        mut handler: impl FnMut(&Completion, &mut S) -> bool + Send + 'static,
    ) -> u32 {
        let (ended, seen) = (Log::new(), Log::new());
        let (over, count, counted) = (ended.clone(), seen.clone(), seen);
        let first = Script::new()
            .on_setup_once(move |mut submitter| {
                submitter.stream(Data { stream: Some(stream), arms: 0, _counted: ledger.issue(()) }, arm)?;
                for _ in 0..8 {
                    let nothing = Data { stream: None, arms: 0, _counted: ledger.issue(()) };
                    submitter.to(Bench::SECOND).submit(nothing, |_| request::nop())?;
                }
                Ok(())
            })
            .on_completion(move |completion, mut data: Data<S>, _| {
                count.push(());
                let goes_on = handler(&completion, data.stream.as_mut().unwrap()) && completion.more();
                if !goes_on {
                    over.push(data.arms);
                    return (ControlFlow::Continue, None);
                }
                (ControlFlow::Continue, Some(data))
            });
        let second = Script::new().on_completion(move |_, data, mut submitter| {
            if counted.len() < completions / 2 {
                submitter.submit(data, |_| request::nop()).unwrap();
            }
            (ControlFlow::Continue, None)
        });
        let mut ring = cramped(first, second);
        ring.run().unwrap();
        assert_eq!((ring.stats().in_flight, ring.stats().foreign), (0, 0));
        let [arms] = ended.take()[..] else { panic!("the stream has one end") };
        arms
    }
}

#[test]
fn l04_multishot_poll_ended_by_overflow_with_events() {
    in_child(|| {
        leaves_nothing(|ledger| {
            let (reader, writer) = pipe();
            let (mut reader, mut writer) = (std::fs::File::from(reader), std::fs::File::from(writer));
            writer.write_all(b"x").unwrap();
            let mut left = 50;
            let poll_reader = reader.try_clone().unwrap();
            let arms = crowded::run(
                ledger,
                poll_reader,
                50,
                |data| {
                    data.arms += 1;
                    request::poll_multi(data.stream.as_ref().unwrap(), Events::READABLE)
                },
                move |completion, _| {
                    assert!(Events::from_result(completion.result().unwrap()).contains(Events::READABLE));
                    reader.read_exact(&mut [0]).unwrap();
                    left -= 1;
                    writer.write_all(b"x").unwrap();
                    left > 0
                },
            );
            assert!(arms > 1, "the kernel never cut it");
        });
    });
}

#[test]
fn l04_multishot_timer_ended_by_overflow_with_a_tick() {
    in_child(|| {
        leaves_nothing(|ledger| {
            const TIMES: u32 = 40;
            let seen = Log::new();
            let log = seen.clone();
            let arms = crowded::run(
                ledger,
                (),
                TIMES as usize,
                |data| {
                    data.arms += 1;
                    let times = NonZeroU32::new(TIMES).unwrap();
                    request::timeout_multi_times(Duration::from_micros(200), times)
                },
                move |completion, ()| {
                    log.push((completion.more(), outcome(completion)));
                    true
                },
            );
            let seen = seen.take();
            assert_eq!(seen.len(), TIMES as usize, "neither less nor more");
            assert!(seen.iter().all(|(_, outcome)| *outcome == Ok(0)));
            let finals = seen.iter().filter(|(more, _)| !more).count();
            assert_eq!((finals, seen.last()), (1, Some(&(false, Ok(0)))));
            assert!(arms > 1, "the kernel never cut it");
            // Also where another process has the processor, and ticks pile up.
            assert!(arms < TIMES, "it went on cutting it");
        });
    });
}

// ---- buffers ----------------------------------------------------------------------------------

struct Receiver {
    socket: TcpStream,
    pool: BufferPool,
    arms: Arc<AtomicU32>,
}

fn receive(receiver: &mut Tracked<Receiver>) -> Stream<'_> {
    receiver.arms.fetch_add(1, Ordering::Relaxed);
    request::recv_multi(&receiver.socket, &receiver.pool)
}

/// What the handler of a stream of bytes was told: whether it goes on, and how many bytes there are, or why not.
type Told = (bool, Result<u32, i32>);

/// Keeps what arrives in `held`, and goes on as long as it can.
fn holding(told: &Log<Told>, held: &Log<Buffer>) -> Script<Tracked<Receiver>> {
    let (told, held) = (told.clone(), held.clone());
    Script::new().on_completion(move |completion, receiver, _| {
        let more = completion.more();
        told.push((more, outcome(&completion)));
        if let Ok(buffer) = completion.into_buffer() {
            held.push(buffer);
        }
        (ControlFlow::Continue, more.then_some(receiver))
    })
}

#[test]
fn l05_a_stream_without_buffers_neither_spins_nor_ends() {
    in_child(|| {
        leaves_nothing(|ledger| {
            let (mut client, server) = tcp_pair();
            let pool = BufferPool::new(2, 4).unwrap();
            client.write_all(b"12345678.").unwrap();
            let arms = Arc::new(AtomicU32::new(0));
            let receiver = Receiver { socket: server, pool: pool.clone(), arms: Arc::clone(&arms) };
            let (told, held) = (Log::new(), Log::new());
            let mut ring = Bench::with(8, holding(&told, &held));
            ring.submitter(Bench::FIRST).stream(ledger.issue(receiver), receive).unwrap();
            turn_until!(ring, told.len() == 3);
            assert_eq!(told.take(), [(true, Ok(4)), (true, Ok(4)), (true, Err(libc::ENOBUFS))]);
            assert_eq!((held.len(), pool.available()), (2, 0));
            for _ in 0..100 {
                ring.turn().unwrap();
                assert_eq!(ring.stats().in_flight, 1);
            }
            assert_eq!(told.take(), [], "it was told once");
            assert_eq!(arms.load(Ordering::Relaxed), 1, "not armed again in vain");

            drop(held.take().pop());
            turn_until!(ring, told.len() == 1);
            assert_eq!(told.take(), [(true, Ok(1))], "and it goes on where it was");
            assert_eq!(arms.load(Ordering::Relaxed), 2);
            drop(client);
            drop(held.take());
            ring.run().unwrap();
            assert_eq!(told.take(), [(false, Ok(0))]);
            drop(held.take());
            assert_eq!(pool.available(), 2);
        });
    });
}

#[test]
fn l06_the_buffer_of_an_error_goes_back_to_its_pool() {
    in_child(|| {
        leaves_nothing(|ledger| {
            let (mut client, server) = tcp_pair();
            let (silent, _writer) = pipe();
            let pool = BufferPool::new(1, 16).unwrap();
            let receiver = Receiver { socket: server, pool: pool.clone(), arms: Arc::default() };
            let (told, held) = (Log::new(), Log::new());
            let thefts = Log::new();
            let log = thefts.clone();
            let thief = Script::new().on_completion(move |completion, _, _| {
                log.push(completion.raw());
                (ControlFlow::Continue, None)
            });
            let (raw, target) = addressable(8);
            let mut ring = Bench::builder(holding(&told, &held), thief).raw_ring(raw).build().unwrap();
            let silence =
                || Receiver { socket: client.try_clone().unwrap(), pool: pool.clone(), arms: Arc::default() };
            ring.submitter(Bench::FIRST).stream(ledger.issue(receiver), receive).unwrap();
            let stream = queued_user_data(target, 8, opcode::RecvMulti::CODE);

            // A read that is forced to a worker takes a buffer before it blocks, and its error keeps the buffer.
            let stolen = loop {
                let read = opcode::Read::new(types::Fd(silent.as_raw_fd()), std::ptr::null_mut(), 16);
                let flags = squeue::Flags::BUFFER_SELECT | squeue::Flags::ASYNC;
                let read = read.buf_group(0).build().flags(flags);
                // SAFETY: the memory is that of the pool, which belongs to the ring until it has finished.
                unsafe { ring.submitter(Bench::SECOND).push(read, ledger.issue(silence())) }.unwrap();
                ring.turn().unwrap();
                thread::sleep(Duration::from_millis(10));
                assert_eq!(ring.submitter(Bench::SECOND).cancel_all(), 1);
                turn_until!(ring, !thefts.is_empty());
                let theft = thefts.take().pop().unwrap();
                assert!([-libc::ECANCELED, -libc::EINTR].contains(&theft.result), "{theft:?}");
                if theft.flags & F_BUFFER != 0 {
                    break theft;
                }
            };
            assert_eq!(stolen.flags, F_BUFFER, "the only buffer, number 0");

            // The same completion, now for the stream.
            forge(target, stream, stolen.result, Some(stolen.flags | F_MORE));
            turn_until!(ring, told.len() == 1);
            assert!(matches!(told.take()[..], [(true, Err(_))]));
            assert_eq!((held.len(), pool.available()), (0, 1));
            client.write_all(b"hello").unwrap();
            turn_until!(ring, told.len() == 1);
            assert_eq!(told.take(), [(true, Ok(5))], "the kernel has the buffer again");
            assert_eq!(&*held.take()[0], b"hello");
            drop(client);
            ring.run().unwrap();
            assert_eq!(told.take(), [(false, Ok(0))]);
        });
    });
}

/// Runs a raw request that receives into the group 7 of `raw`, once `bytes` have been sent, and then again with what
/// comes after. Returns what the handler was told of each.
fn receive_raw(
    raw: RawRing,
    entry: impl Fn(types::Fd) -> squeue::Entry,
    ledger: Ledger,
    bytes: &[&[u8]],
) -> Vec<(i32, u32)> {
    let (mut client, server) = tcp_pair();
    let server = Arc::new(OwnedFd::from(server));
    let seen = Log::new();
    let log = seen.clone();
    let script = Script::new().on_completion(move |completion: Completion, _, _| {
        log.push((completion.raw().result, completion.raw().flags));
        (ControlFlow::Continue, None)
    });
    let mut ring = Bench::builder(script, Script::new()).raw_ring(raw).build().unwrap();
    for bytes in bytes {
        client.write_all(bytes).unwrap();
        let entry = entry(types::Fd(server.as_raw_fd()));
        // SAFETY: the buffers of the group outlive the ring, and the data has a share of the socket.
        unsafe { ring.submitter(Bench::FIRST).push(entry, ledger.issue(Arc::clone(&server))) }.unwrap();
        let told = seen.len();
        turn_until!(ring, seen.len() > told);
    }
    assert_eq!(ring.stats().in_flight, 0);
    seen.take()
}

#[test]
fn l07_incremental_and_bundled_buffers() {
    in_child(|| {
        leaves_nothing(|ledger| {
            // One buffer, used up piece by piece; a flag that the handler gets to see says so.
            let uring = IoUring::new(8).unwrap();
            let flags = ProvidedBuffers::INCREMENTAL;
            let Ok(buffers) = ProvidedBuffers::register(&uring.submitter(), 7, 1, 64, flags) else {
                return eprintln!("skipped: needs IOU_PBUF_RING_INC (6.12)");
            };
            // SAFETY: nothing is queued or in flight in it.
            let raw = unsafe { RawRing::from_io_uring(uring) }.unwrap();
            let recv = |socket| {
                let entry = opcode::Recv::new(socket, std::ptr::null_mut(), 0).buf_group(7).build();
                entry.flags(squeue::Flags::BUFFER_SELECT)
            };
            let seen = receive_raw(raw, recv, ledger, &[b"hello ", b"wor", b"ld"]);
            let flags = F_BUFFER | F_BUF_MORE;
            assert_eq!(seen, [(6, flags), (3, flags), (2, flags)]);
            assert_eq!(&buffers.bytes()[..12], b"hello world\0");
        });
        leaves_nothing(|ledger| {
            // One completion for several buffers, which names the first.
            let uring = IoUring::new(8).unwrap();
            let buffers = ProvidedBuffers::register(&uring.submitter(), 7, 4, 4, 0).unwrap();
            // SAFETY: nothing is queued or in flight in it.
            let raw = unsafe { RawRing::from_io_uring(uring) }.unwrap();
            let recv = |socket| opcode::RecvBundle::new(socket, 7).build();
            let seen = receive_raw(raw, recv, ledger, &[b"0123456789"]);
            let [(received, flags)] = seen[..] else { panic!("one request has one end") };
            // The kernel decides how many buffers are in a bundle.
            let received = usize::try_from(received).unwrap();
            assert!((5..=10).contains(&received), "{received} is no bundle");
            assert_eq!((flags >> 16, flags & (F_BUFFER | F_MORE)), (0, F_BUFFER));
            assert_eq!(buffers.bytes()[..received], b"0123456789"[..received]);
        });
    });
}

// ---- errors that are none of the ring's --------------------------------------------------------

#[test]
fn l08_no_descriptor_left_ends_the_acceptor_and_loses_no_connection() {
    in_child(|| {
        leaves_nothing(|ledger| {
            const CLIENTS: usize = 20;
            let listener = listener();
            let clients = connect(&listener, CLIENTS);
            let accepted = Log::<OwnedFd>::new();
            let errors = Log::new();
            let (sockets, ends, again) = (accepted.clone(), errors.clone(), Arc::clone(&listener));
            let first = Script::new()
                .on_setup(move |mut submitter| {
                    submitter.stream(ledger.issue(Acceptor::new(&again)), |it| it.accept())?;
                    Ok(())
                })
                .on_completion(move |completion, acceptor: Tracked<Acceptor>, _| {
                    if !completion.more() {
                        assert_eq!(acceptor.arms, 1);
                        ends.push(outcome(&completion));
                        return (ControlFlow::Continue, None);
                    }
                    sockets.push(completion.into_fd().unwrap());
                    (ControlFlow::Continue, (sockets.len() < CLIENTS).then_some(acceptor))
                });
            let mut ring = Bench::with(8, first);

            let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
            setrlimit(Resource::RLIMIT_NOFILE, open_descriptors() as u64 + 6, hard).unwrap();
            ring.run().unwrap();
            setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
            let some = accepted.len();
            assert!(some > 0 && some < CLIENTS, "{some} of {CLIENTS} before the limit");
            assert_eq!(errors.take(), [Err(libc::EMFILE)]);

            ring.run().unwrap();
            assert_eq!((accepted.len(), clients.len()), (CLIENTS, CLIENTS), "the others had to wait");
            assert_eq!(errors.take(), []);
        });
    });
}

#[test]
fn l09_what_ends_as_cancelled_though_nobody_cancelled_it_ends_nothing_else() {
    in_child(|| {
        leaves_nothing(|ledger| {
            let (reader, writer) = shared_pipe();
            write(&writer, b"xyz");
            let seen = Log::new();
            let log = seen.clone();
            let script = Script::new().on_completion(move |completion, job: Tracked<Job>, mut submitter| {
                log.push((job.number, outcome(&completion)));
                if outcome(&completion) == CANCELLED {
                    // The ring goes on.
                    let next = ledger.issue(Job::new(100 + job.number, &job.file, 0));
                    submitter.submit(next, |_| request::nop()).unwrap();
                }
                (ControlFlow::Continue, None)
            });
            let mut ring = Bench::with(16, script);
            let mut submitter = ring.submitter(Bench::FIRST);
            // A chain whose head fails.
            let data = [1, 2, 3].map(|number| ledger.issue(Job::new(number, &reader, 1)));
            let bad = opcode::Fsync::new(types::Fd(-1)).build();
            // SAFETY: nothing of it points to anything.
            unsafe { submitter.push_multiple([link(bad), link(nop()), nop()], data) }.unwrap();
            // A chain whose head does less than it was asked to.
            let mut data = [4, 5].map(|number| ledger.issue(Job::new(number, &reader, 8)));
            let short = data[0].read_entry();
            // SAFETY: the read points to the buffer on the heap that its data owns.
            unsafe { submitter.push_multiple([link(short), nop()], data) }.unwrap();
            // A read whose time is up.
            static TIME: types::Timespec = types::Timespec::new().nsec(5_000_000);
            let (silent, _writer) = shared_pipe();
            let mut data = [6, 7].map(|number| ledger.issue(Job::new(number, &silent, 8)));
            let blocked = data[0].read_entry();
            let timeout = opcode::LinkTimeout::new(&raw const TIME).build();
            // SAFETY: as above; the time lives for ever.
            unsafe { submitter.push_multiple([link(blocked), timeout], data) }.unwrap();
            ring.run().unwrap();
            let mut seen = seen.take();
            seen.sort();
            let mut expected = vec![
                (1, Err(libc::EBADF)),
                (2, CANCELLED),
                (3, CANCELLED),
                (4, Ok(3)),
                (5, CANCELLED),
                (6, CANCELLED),
                (7, Err(libc::ETIME)),
            ];
            expected.extend([102, 103, 105, 106].map(|number| (number, Ok(0))));
            assert_eq!(seen, expected);
        });
    });
}

#[test]
fn l10_a_turn_never_blocks_and_sees_what_has_completed() {
    in_child(|| {
        leaves_nothing(|ledger| {
            let defer = || {
                let mut builder = IoUring::builder();
                builder.setup_single_issuer().setup_defer_taskrun().setup_coop_taskrun();
                let uring = builder.build(8).unwrap();
                // SAFETY: nothing is queued or in flight in it.
                unsafe { RawRing::from_io_uring(uring) }.unwrap()
            };
            for raw in [defer(), addressable(8).0] {
                let (reader, writer) = shared_pipe();
                let seen = Log::new();
                let log = seen.clone();
                let script = Script::new().on_completion(move |completion, job: Tracked<Job>, _| {
                    log.push((job.number, outcome(&completion)));
                    (ControlFlow::Continue, None)
                });
                let mut ring = Bench::builder(script, Script::new()).raw_ring(raw).build().unwrap();
                let mut submitter = ring.submitter(Bench::FIRST);
                let data = [0, 1].map(|number| ledger.issue(Job::new(number, &reader, 1)));
                let [read, none] = data;
                submitter.submit(read, |job| job.read()).unwrap();
                submitter.submit(none, |_| request::nop()).unwrap();
                assert_eq!(ring.turn().unwrap().status, Status::Progressed);
                assert_eq!(seen.take(), [(1, Ok(0))], "in the first turn");
                for _ in 0..100 {
                    assert_eq!(ring.turn().unwrap().status, Status::Waiting);
                }
                write(&writer, b"x");
                assert_eq!(ring.turn().unwrap().status, Status::Progressed);
                assert_eq!(seen.take(), [(0, Ok(1))], "in the next turn");
                assert!(ring.turn().unwrap().is_idle());
            }
        });
    });
}
