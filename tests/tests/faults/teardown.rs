//! The end of a ring, whatever is in flight.

use std::cell::RefCell;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{self, Command};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use rummelplatz::io_uring::{IoUring, opcode, squeue, types};
use rummelplatz::request::{Events, Request};
use rummelplatz::{
    BufferPool, ControlFlow, InvalidEntry, Refused, RingError, Status, Stream, SubmitError, request,
};
use rummelplatz_tests::{
    Bench, BenchSubmitter, Enters, Failure, Job, Ledger, Log, PATIENCE, Script, SignalStorm, Tracked,
    addressable, count_enters, exit, in_child, in_fork, leaves_nothing, open_descriptors, outcome, panic_of,
    pipe, tcp_pair,
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

fn nop() -> squeue::Entry {
    opcode::Nop::new().build()
}

fn linked(entry: squeue::Entry) -> squeue::Entry {
    entry.flags(squeue::Flags::IO_LINK)
}

// ---- what is in flight ----------------------------------------------------------------------------

#[test]
fn t01_nothing_in_flight() {
    in_child(|| {
        let enters = count_enters(|| leaves_nothing(|_| Bench::<()>::with(8, Script::new()).run().unwrap()));
        assert_eq!(enters.calls, 0);
        let enters = count_enters(|| {
            leaves_nothing(|ledger| Bench::with(8, exit(ledger.issue(()))).run().unwrap());
        });
        assert_eq!(enters.calls, 1, "that which completes the NOP; the teardown needs none");
    });
}

/// This many polls in flight, in a ring of this many entries.
fn polls(count: usize, entries: u32) {
    waiting(count, entries, |it| request::poll(&*it.value, Events::READABLE));
}

/// This many requests in flight that wait for ever, in a ring of this many entries.
fn waiting(
    count: usize,
    entries: u32,
    build: impl for<'d> Fn(&'d mut Tracked<Arc<OwnedFd>>) -> Request<'d> + Copy + Send + 'static,
) {
    let Enters { calls, entries: taken_in, .. } = count_enters(|| {
        leaves_nothing(|ledger| {
            let (reader, _writer) = shared_pipe();
            let ended = Log::new();
            let log = ended.clone();
            let data = ledger.issue(Arc::clone(&reader));
            let all = Script::new()
                .on_setup_once(move |mut submitter| {
                    for _ in 0..count {
                        let data = ledger.issue(Arc::clone(&reader));
                        submitter.submit(data, build)?;
                    }
                    Ok(())
                })
                .on_teardown(move |completion, _, _| {
                    log.push(outcome(&completion));
                    Ok(())
                });
            let mut ring =
                Bench::builder(all, exit(data)).entries(entries.try_into().unwrap()).build().unwrap();
            ring.run().unwrap();
            let ended = ended.take();
            assert_eq!(ended.len(), count);
            assert!(ended.iter().all(|result| *result == CANCELLED));
        });
    });
    // Each is submitted, and cancelled once, and there is one NOP. Linux 6.18 posts 20 completions per call.
    assert_eq!(taken_in, 2 * count + 1, "entries");
    assert!(calls <= count / 10 + 10, "{calls} calls");
}

#[test]
fn t02_one_poll() {
    in_child(|| polls(1, 8));
}

#[test]
fn t02_a_thousand_polls() {
    in_child(|| polls(1_000, 64));
}

#[test]
fn t02_ten_thousand_polls() {
    in_child(|| polls(10_000, 256));
}

#[test]
fn t02_thirty_two_thousand_polls() {
    in_child(|| polls(32_000, 4096));
}

/// So many that a teardown whose work is quadratic would not end.
#[test]
fn t02_a_hundred_and_fifty_thousand_polls() {
    in_child(|| polls(150_000, 4096));
}

/// The same for what the kernel looks for in another order.
#[test]
fn t02_a_hundred_and_fifty_thousand_timers() {
    in_child(|| waiting(150_000, 4096, |_| request::timeout(FOR_EVER)));
}

/// The same when the order of slots says nothing about the order in which timers were set.
#[test]
fn t02_a_hundred_thousand_timers_in_slots_that_had_others() {
    const COUNT: usize = 100_000;
    in_child(|| {
        let ended = Log::new();
        let log = ended.clone();
        let mut set_again = 0;
        let script = Script::new()
            .on_setup_once(|mut submitter| {
                for number in 0..COUNT {
                    let mixed = number * 7919 % COUNT;
                    let time = Duration::from_millis(100) + 10 * Duration::from_micros(mixed as u64);
                    submitter.submit((), |()| request::timeout(time))?;
                }
                Ok(())
            })
            .on_completion(move |completion, (), mut submitter| {
                completion.result().unwrap();
                submitter.submit((), |()| request::timeout(FOR_EVER)).unwrap();
                set_again += 1;
                (if set_again == COUNT { ControlFlow::Exit } else { ControlFlow::Continue }, None)
            })
            .on_teardown(move |completion, (), _| {
                log.push(outcome(&completion));
                Ok(())
            });
        let mut ring =
            Bench::builder(script, Script::new()).entries(4096.try_into().unwrap()).build().unwrap();
        ring.run().unwrap();
        assert_eq!(ended.take(), vec![CANCELLED; COUNT]);
    });
}

/// What one of five streams reads from. The last is a raw entry.
enum Source {
    Listener(TcpListener),
    Timer,
    Descriptor(OwnedFd),
    Socket(TcpStream, BufferPool),
    Raw { _keep: OwnedFd },
    Nothing,
}

impl Source {
    fn stream(source: &mut Tracked<Source>) -> Stream<'_> {
        match &source.value {
            Source::Listener(listener) => request::accept_multi(listener),
            Source::Timer => request::timeout_multi(Duration::from_millis(1)),
            Source::Descriptor(descriptor) => request::poll_multi(descriptor, Events::READABLE),
            Source::Socket(socket, pool) => request::recv_multi(socket, pool),
            Source::Raw { .. } | Source::Nothing => unreachable!(),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Source::Listener(_) => "accept",
            Source::Timer => "timeout",
            Source::Descriptor(_) => "poll",
            Source::Socket(..) => "recv",
            Source::Raw { .. } => "read",
            Source::Nothing => "nothing",
        }
    }
}

fn streams(defer: bool, ledger: Ledger) {
    const GROUP: u16 = 77;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut clients = vec![TcpStream::connect(address).unwrap()];
    let (polled, poke) = pipe();
    let (raw, raw_writer) = pipe();
    let [mut poke, mut raw_writer] = [poke, raw_writer].map(File::from);
    let (mut near, far) = tcp_pair();
    let pool = BufferPool::new(4, 64).unwrap();
    let memory: &'static mut [u8; 4 * 64] = Box::leak(Box::new([0; 4 * 64]));

    let (seen, ended) = (Log::new(), Log::new());
    let (running, tearing_down) = (seen.clone(), ended.clone());
    let sources = [
        Source::Listener(listener),
        Source::Timer,
        Source::Descriptor(polled),
        Source::Socket(far, pool.clone()),
    ];
    let first = Script::new()
        .on_setup_once(move |mut submitter| {
            for source in sources {
                submitter.stream(ledger.issue(source), Source::stream)?;
            }
            let provide = opcode::ProvideBuffers::new(memory.as_mut_ptr(), 64, 4, GROUP, 0).build();
            // SAFETY: the memory was leaked.
            unsafe { submitter.push_raw(provide) }?;
            let read = opcode::ReadMulti::new(types::Fd(raw.as_raw_fd()), 0, GROUP).build();
            // SAFETY: its memory was leaked, and the data owns the descriptor.
            unsafe { submitter.push(read, ledger.issue(Source::Raw { _keep: raw })) }?;
            Ok(())
        })
        .on_completion({
            let (mut poke, mut near) = (poke.try_clone().unwrap(), near.try_clone().unwrap());
            let mut raw_writer = raw_writer.try_clone().unwrap();
            let mut names = Vec::new();
            move |completion, data, mut submitter| {
                if names.is_empty() {
                    raw_writer.write_all(b"first").unwrap();
                    poke.write_all(b"x").unwrap();
                    near.write_all(b"hello").unwrap();
                }
                assert!(completion.more());
                running.push(data.name());
                names.push(data.name());
                if ["accept", "timeout", "poll", "recv"].iter().all(|name| names.contains(name)) {
                    submitter.to(Bench::SECOND).post(ledger.issue(Source::Nothing)).unwrap();
                }
                (ControlFlow::Continue, Some(data))
            }
        })
        .on_teardown(move |completion, data, _| {
            tearing_down.push((data.name(), completion.more(), outcome(&completion)));
            Ok(())
        });
    let second = Script::new().on_completion(move |_, _, _| {
        // Something more is ready for each of them, and nobody has looked at it yet.
        clients.extend((0..3).map(|_| TcpStream::connect(address).unwrap()));
        poke.write_all(b"x").unwrap();
        near.write_all(b"again").unwrap();
        raw_writer.write_all(b"second").unwrap();
        thread::sleep(Duration::from_millis(2));
        (ControlFlow::Exit, None)
    });
    let mut ring = Bench::builder(first, second).defer_taskrun(defer).build().unwrap();
    ring.run().unwrap();

    let mut seen = seen.take();
    seen.retain(|name| *name != "timeout");
    seen.sort_unstable();
    assert_eq!(seen, ["accept", "poll", "recv"], "what came before the end");
    let mut ended = ended.take();
    ended.sort_unstable();
    let names = ["accept", "poll", "read", "recv", "timeout"];
    // The first result of a raw entry is kept for its end.
    let expected = names.map(|name| (name, false, if name == "read" { Ok(5) } else { CANCELLED }));
    assert_eq!(ended, expected, "one end each");
    assert_eq!(ring.stats().foreign, 0);
    drop(ring);
    assert_eq!(pool.available(), pool.capacity());
}

#[test]
fn t03_streams_of_each_kind() {
    in_child(|| {
        for defer in [true, false] {
            leaves_nothing(|ledger| streams(defer, ledger));
        }
    });
}

#[test]
fn t04_descriptors_that_arrive_in_teardown() {
    in_child(|| {
        for (raw, defer) in [(false, true), (true, true), (false, false), (true, false)] {
            leaves_nothing(|ledger| {
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
                let other = exit(ledger.issue(None)).on_completion(move |_, _, mut submitter| {
                    if kept.is_empty() {
                        (0..20).for_each(|_| kept.push(TcpStream::connect(address).unwrap()));
                        if defer {
                            // The next enter accepts them, but before that it ends this request.
                            submitter.submit(ledger.issue(None), |_| request::nop()).unwrap();
                            return (ControlFlow::Continue, None);
                        }
                    }
                    (ControlFlow::Exit, None)
                });
                Bench::builder(acceptor, other).defer_taskrun(defer).build().unwrap().run().unwrap();
                // A connection that was not accepted is reset.
                let ends = clients.take().into_iter().map(|mut client| client.read(&mut [0]));
                assert_eq!(ends.filter(|end| matches!(end, Ok(0))).count(), 20, "{raw} {defer}");
            });
        }
    });
}

#[test]
fn t05_a_file_read_that_has_begun() {
    in_child(|| {
        const SIZE: usize = 256 << 20;
        static BUFFER: AtomicPtr<u8> = AtomicPtr::new(ptr::null_mut());
        /// A byte of the buffer.
        fn peek(index: usize) -> u8 {
            // SAFETY: the data is in its slot, and the buffer with it, until the ring is torn down; nobody
            // but the kernel has access to it.
            unsafe { BUFFER.load(Ordering::Relaxed).add(index).read_volatile() }
        }
        leaves_nothing(|ledger| {
            let path = format!("{}/t05-{}", env!("CARGO_TARGET_TMPDIR"), std::process::id());
            let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
            std::fs::remove_file(&path).unwrap();
            file.set_len(SIZE as u64).unwrap();
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
                while peek(0) == 7 {
                    thread::yield_now();
                }
                assert_eq!(peek(SIZE - 1), 7, "the read is over already");
                (ControlFlow::Exit, None)
            });
            Bench::builder(reader, other).build().unwrap().run().unwrap();
            assert_eq!(ended.take(), [(Ok(SIZE as u32), true)]);
        });
    });
}

#[test]
fn t06_a_blocked_splice() {
    in_child(|| {
        leaves_nothing(|ledger| {
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
                    log.push((outcome(&completion), completion.raw().result));
                    Ok(())
                });
            let other = exit(ledger.issue(None)).on_completion(|_, _, _| {
                thread::sleep(Duration::from_millis(5));
                (ControlFlow::Exit, None)
            });
            Bench::builder(splicer, other).build().unwrap().run().unwrap();
            let ended = ended.take();
            let [(told, raw)] = ended[..] else { panic!("{ended:?}") };
            let expected = if raw <= -512 { CANCELLED } else { Err(-raw) };
            assert_eq!(told, expected, "{raw}");
        });
    });
}

#[test]
fn t07_hard_chain_of_five() {
    in_child(|| {
        let enters = count_enters(|| {
            leaves_nothing(|ledger| {
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
            });
        });
        // One call takes in the chain, and one call takes in the cancels of each wave.
        assert!(enters.submitting <= 1 + 7, "{enters:?}");
    });
}

#[test]
fn t08_a_late_link() {
    static SHORT: types::Timespec = types::Timespec::new().nsec(1_000_000);
    in_child(|| {
        leaves_nothing(|ledger| {
            let (reader, _writer) = shared_pipe();
            let ended = Log::new();
            let log = ended.clone();
            let nothing = ledger.issue(Job::new(9, &reader, 0));
            let late = Script::new()
                .on_setup_once(move |mut submitter| {
                    let mut data = [0, 1].map(|it| ledger.issue(Job::new(it, &reader, 8)));
                    let timeout = opcode::Timeout::new(&raw const SHORT)
                        .flags(types::TimeoutFlags::ETIME_SUCCESS)
                        .build();
                    let entries = [linked(timeout), data[1].read_entry()];
                    // SAFETY: the time lives for ever, and the read points to the buffer on the heap that
                    // its data owns.
                    unsafe { submitter.push_multiple(entries, data) }.map_err(SubmitError::from)?;
                    Ok(())
                })
                .on_teardown(move |completion, data, _| {
                    log.push((data.number, outcome(&completion)));
                    Ok(())
                });
            let other = exit(nothing).on_completion(|_, _, _| {
                // The timer expires now, and its task work waits for the next enter: the one with the cancels.
                thread::sleep(Duration::from_millis(5));
                (ControlFlow::Exit, None)
            });
            // The end of the grace period would be the reason for another wave.
            let grace = Duration::from_secs(1000);
            Bench::builder(late, other).grace(grace).build().unwrap().run().unwrap();
            let mut ended = ended.take();
            ended.sort();
            assert_eq!(ended, [(0, Err(libc::ETIME)), (1, CANCELLED)]);
        });
    });
}

/// A read with a linked timeout. Returns what became of both, by number, while running and in the teardown.
#[expect(clippy::type_complexity, reason = "two logs")]
fn read_with_linked_timeout(
    time: &'static types::Timespec,
    ready: bool,
    stop_after: Option<Duration>,
) -> (Vec<(u64, Result<u32, i32>)>, Vec<(u64, Result<u32, i32>)>) {
    let (ran, torn_down) = (Log::new(), Log::new());
    let (running, tearing_down) = (ran.clone(), torn_down.clone());
    leaves_nothing(|ledger| {
        let (reader, writer) = shared_pipe();
        if ready {
            File::from(writer.try_clone().unwrap()).write_all(b"x").unwrap();
        }
        let nothing = ledger.issue(Job::new(9, &reader, 0));
        let read = Script::new()
            .on_setup_once(move |mut submitter| {
                let mut data = [0, 1].map(|it| ledger.issue(Job::new(it, &reader, 8)));
                let read = linked(data[0].read_entry());
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
        Bench::builder(read, stopper).build().unwrap().run().unwrap();
    });
    let (mut ran, mut torn_down) = (ran.take(), torn_down.take());
    ran.sort();
    torn_down.sort();
    (ran, torn_down)
}

#[test]
fn t09_a_link_timeout_and_its_request_in_both_orders() {
    static SHORT: types::Timespec = types::Timespec::new().nsec(5_000_000);
    static LONG: types::Timespec = types::Timespec::new().sec(100_000);
    in_child(|| {
        let (ran, torn_down) = read_with_linked_timeout(&SHORT, false, None);
        assert_eq!((ran, torn_down), (vec![(0, CANCELLED), (1, Err(libc::ETIME))], vec![]));
        let (ran, torn_down) = read_with_linked_timeout(&LONG, true, None);
        assert_eq!((ran, torn_down), (vec![(0, Ok(1)), (1, CANCELLED)], vec![]));
        let time = Some(Duration::from_millis(5));
        let (ran, torn_down) = read_with_linked_timeout(&LONG, false, time);
        assert_eq!((ran, torn_down), (vec![], vec![(0, CANCELLED), (1, CANCELLED)]));
    });
}

// ---- what is queued -------------------------------------------------------------------------------

const LINKS_ON: SubmitError = SubmitError::Invalid(InvalidEntry::LinksOn);
const CHAIN_TOO_LONG: SubmitError = SubmitError::Invalid(InvalidEntry::ChainTooLong);

#[test]
fn t10_a_dangling_link() {
    in_child(|| {
        leaves_nothing(|ledger| {
            let ended = Log::new();
            let log = ended.clone();
            let second = Script::new()
                .on_completion(|_, _, _| panic!("the ring was to end first"))
                .on_teardown(move |completion, data: Tracked<u32>, _| {
                    log.push((*data, outcome(&completion)));
                    Ok(())
                });
            let first = Script::new().on_teardown(|_, _, _| panic!("nothing was accepted"));
            let mut ring = Bench::builder(first, second).build().unwrap();
            for flags in [squeue::Flags::IO_LINK, squeue::Flags::IO_HARDLINK] {
                let mut submitter = ring.submitter(Bench::FIRST);
                // If the head of a link failed, it would cancel what follows, even if that is of another operation.
                let failing = || opcode::Fsync::new(types::Fd(-1)).build().flags(flags);
                // SAFETY: it points to nothing.
                let refused = unsafe { submitter.push(failing(), ledger.issue(1)) }.unwrap_err();
                assert_eq!((*refused.data, refused.error), (1, LINKS_ON));
                let data = [2, 3].map(|number| ledger.issue(number));
                // SAFETY: they point to nothing.
                let refused = unsafe { submitter.push_multiple([failing(), failing()], data) }.unwrap_err();
                assert_eq!((refused.data.map(|it| *it), refused.error), ([2, 3], LINKS_ON));
                // SAFETY: it points to nothing.
                assert_eq!(unsafe { submitter.push_raw(failing()) }, Err(LINKS_ON));
                let timer = ledger.issue(4);
                submitter.to(Bench::SECOND).submit(timer, |_| request::timeout(FOR_EVER)).unwrap();
            }
            assert_eq!(ring.stats().in_flight, 2);
            // The cancels are not the tail of a chain.
            ring.finish().unwrap();
            assert_eq!(ended.take(), [(4, CANCELLED); 2]);
        });
    });
}

#[test]
fn t11_a_chain_longer_than_the_queue() {
    in_child(|| {
        leaves_nothing(|ledger| {
            let done = Log::new();
            let log = done.clone();
            let script = Script::new().on_completion(move |_, data: Tracked<i32>, _| {
                log.push(*data);
                (ControlFlow::Continue, None)
            });
            let mut ring = Bench::with(4, script);
            let mut submitter = ring.submitter(Bench::FIRST);
            let data = [0, 1, 2, 3, 4].map(|number| ledger.issue(number));
            let chain = [linked(nop()), linked(nop()), linked(nop()), linked(nop()), nop()];
            // SAFETY: a NOP points to nothing.
            let refused = unsafe { submitter.push_multiple(chain, data) }.unwrap_err();
            assert_eq!((refused.data.map(|it| *it), refused.error), ([0, 1, 2, 3, 4], CHAIN_TOO_LONG));
            assert_eq!(ring.stats().in_flight, 0);

            // A chain that just fits blocks nobody, and what is not linked need not have room all at once.
            let mut submitter = ring.submitter(Bench::FIRST);
            let data = [5, 6, 7, 8].map(|number| ledger.issue(number));
            let chain = [linked(nop()), linked(nop()), linked(nop()), nop()];
            // SAFETY: a NOP points to nothing.
            unsafe { submitter.push_multiple(chain, data) }.unwrap();
            let group = [10, 11, 12, 13, 14, 15].map(|number| ledger.issue(number));
            // SAFETY: a NOP points to nothing.
            unsafe { submitter.push_multiple([(); 6].map(|()| nop()), group) }.unwrap();
            submitter.submit(ledger.issue(99), |_| request::nop()).unwrap();
            ring.run().unwrap();
            // The kernel begins the rest of a chain when it chooses to.
            let (chain, others): (Vec<_>, Vec<_>) = done.take().into_iter().partition(|it| *it < 10);
            assert_eq!((&chain[..], &others[..]), (&[5, 6, 7, 8][..], &[10, 11, 12, 13, 14, 15, 99][..]));
        });
    });
}

/// A chain of a blocking read and two writes, pushed behind `before` others into a queue of four, in a handler or
/// before the run. Then the ring ends, or the read does.
fn chain_behind(before: usize, in_handler: bool, end: bool, ledger: Ledger) {
    let (blocked, trigger) = shared_pipe();
    let (reader, writer) = shared_pipe();
    let (ran, ended) = (Log::new(), Log::new());
    let (running, tearing_down) = (ran.clone(), ended.clone());
    let nothing = ledger.issue(Job::new(100, &blocked, 0));
    let push = move |mut submitter: BenchSubmitter<'_, Tracked<Job>>| {
        for _ in 0..before {
            let timer = ledger.issue(Job::new(0, &blocked, 0));
            submitter.submit(timer, |_| request::timeout(FOR_EVER)).unwrap();
        }
        let mut data = [(1, &blocked), (2, &writer), (3, &writer)]
            .map(|(number, file)| ledger.issue(Job::new(number, file, 1)));
        let [read, write, last] = data.each_mut();
        (write.buffer[0], last.buffer[0]) = (b'a', b'b');
        let chain = [linked(read.read_entry()), linked(write.write_entry()), last.write_entry()];
        // SAFETY: each entry points to the buffer on the heap that its data owns.
        unsafe { submitter.push_multiple(chain, data) }.unwrap();
        if !end {
            let timer = ledger.issue(Job::new(101, &blocked, 0));
            submitter.submit(timer, |_| request::timeout(Duration::from_millis(5))).unwrap();
        }
    };
    let mut push = Some(push);
    let mut push_later = if in_handler { push.take() } else { None };
    let mut trigger = File::from(trigger.try_clone().unwrap());
    let script = Script::new()
        .on_completion(move |completion, data: Tracked<Job>, submitter| {
            if let Some(push) = push_later.take() {
                push(submitter);
            } else {
                running.push((data.number, outcome(&completion)));
            }
            match data.number {
                100 if end => return (ControlFlow::Exit, None),
                101 => trigger.write_all(b"x").unwrap(),
                3 => return (ControlFlow::Exit, None),
                _ => {}
            }
            (ControlFlow::Continue, None)
        })
        .on_teardown(move |completion, data, _| {
            tearing_down.push((data.number, outcome(&completion)));
            Ok(())
        });
    let mut ring = Bench::with(4, script);
    match push {
        Some(push) => {
            drop(nothing);
            push(ring.submitter(Bench::FIRST));
        }
        None => drop(ring.submitter(Bench::FIRST).submit(nothing, |_| request::nop()).unwrap()),
    }
    if end && !in_handler {
        ring.finish().unwrap();
    } else {
        ring.run().unwrap();
    }
    drop(ring);
    let mut ended = ended.take();
    ended.sort();
    let timers = std::iter::repeat_n((0, CANCELLED), before);
    if end {
        assert_eq!(ran.take(), []);
        let expected = timers.chain([1, 2, 3].map(|number| (number, CANCELLED)));
        assert_eq!(ended, expected.collect::<Vec<_>>());
        assert!(read_all(reader).is_empty(), "a tail ran without its head");
    } else {
        assert_eq!(ran.take(), [(101, Ok(0)), (1, Ok(1)), (2, Ok(1)), (3, Ok(1))]);
        assert_eq!(ended, timers.collect::<Vec<_>>());
        assert_eq!(read_all(reader), b"ab");
    }
}

#[test]
fn t12_a_chain_into_an_almost_full_queue() {
    in_child(|| {
        for before in 0..=4 {
            for (in_handler, end) in [(false, false), (false, true), (true, false), (true, true)] {
                eprintln!("behind {before}, in a handler: {in_handler}, then the end: {end}");
                leaves_nothing(|ledger| chain_behind(before, in_handler, end, ledger));
            }
        }
    });
}

/// How to end a ring that has never entered the kernel.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Unentered {
    SetupError,
    SetupPanic,
    Finish,
    Drop,
}

#[test]
fn t13_the_backlog() {
    in_child(|| {
        use Unentered::*;
        for end in [SetupError, SetupPanic, Finish, Drop] {
            leaves_nothing(|ledger| {
                let (reader, writer) = shared_pipe();
                let ended = Log::new();
                let log = ended.clone();
                let script = Script::new()
                    .on_setup(move |_| match end {
                        SetupPanic => panic!("no such luck"),
                        _ => Err("no such luck".into()),
                    })
                    .on_completion(|_, _, _| panic!("nothing ran"))
                    .on_teardown(move |completion, data: Tracked<Job>, _| {
                        log.push((data.number, outcome(&completion)));
                        Ok(())
                    });
                let mut ring = Bench::with(2, script);
                for number in 0..6 {
                    let data = ledger.issue(Job::new(number, &writer, 1));
                    ring.submitter(Bench::FIRST).submit(data, |it| it.write()).unwrap();
                }
                drop(writer);
                assert_eq!((ring.stats().in_flight, ring.stats().backlog), (6, 4));
                match end {
                    SetupError => assert!(matches!(ring.run(), Err(RingError::Setup(_)))),
                    SetupPanic => assert_eq!(panic_of(|| ring.run()), "no such luck"),
                    Finish => ring.finish().unwrap(),
                    Drop => {}
                }
                drop(ring);
                let mut ended = ended.take();
                ended.sort();
                let queued = [(0, Ok(1)), (1, Ok(1))];
                let handed_back = [2, 3, 4, 5].map(|number| (number, CANCELLED));
                match end {
                    SetupError | Finish => assert_eq!(ended, [&queued[..], &handed_back[..]].concat()),
                    SetupPanic | Drop => assert_eq!(ended, [], "nobody is told"),
                }
                let written = if end == Drop { 0 } else { 2 };
                assert_eq!(read_all(reader).len(), written, "the queue is with the kernel: {end:?}");
            });
        }
    });
}

#[test]
fn t14_a_full_queue_at_the_exit() {
    in_child(|| {
        for pushed in 1..=9 {
            leaves_nothing(|ledger| {
                let ended = Log::new();
                let log = ended.clone();
                let script = Script::new()
                    .on_setup_once(move |mut submitter| {
                        submitter.submit(ledger.issue(0), |_| request::nop())?;
                        Ok(())
                    })
                    .on_completion(move |_, _, mut submitter| {
                        for number in 1..=pushed {
                            submitter.submit(ledger.issue(number), |_| request::timeout(FOR_EVER)).unwrap();
                        }
                        (ControlFlow::Exit, None)
                    })
                    .on_teardown(move |completion, data, _| {
                        log.push((*data, outcome(&completion)));
                        Ok(())
                    });
                Bench::with(4, script).run().unwrap();
                let mut ended = ended.take();
                ended.sort();
                assert_eq!(ended, (1..=pushed).map(|number| (number, CANCELLED)).collect::<Vec<_>>());
            });
        }
    });
}

#[test]
fn t15_a_completion_queue_of_four_with_sixty_four_requests() {
    in_child(|| {
        leaves_nothing(|ledger| {
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
        });
    });
}

// ---- zero-copy sends ------------------------------------------------------------------------------

/// More than fits into the buffers of a connection whose peer does not read.
const SENT: usize = 8 << 20;

/// A connection whose buffers don't grow. The peer's buffer is smaller, so that not everything that was sent is copied
/// into it.
fn narrow_pair() -> (TcpStream, TcpStream) {
    let (client, server) = tcp_pair();
    setsockopt(&client, sockopt::SndBuf, &(1 << 20)).unwrap();
    setsockopt(&server, sockopt::RcvBuf, &(64 << 10)).unwrap();
    (client, server)
}

type BuildSend = for<'d> fn(&'d mut Job) -> Request<'d>;

/// An operation that sends so much with zero-copy that it blocks, and logs how that ends.
fn blocked_send(
    ledger: Ledger,
    file: Arc<OwnedFd>,
    send: BuildSend,
    log: &Log<Result<u32, i32>>,
) -> Script<Tracked<Job>> {
    let log = log.clone();
    Script::new()
        .on_setup_once(move |mut submitter| {
            let mut data = ledger.issue(Job::new(0, &file, SENT));
            data.buffer.fill(0xAB);
            submitter.submit(data, |data| send(data))?;
            Ok(())
        })
        .on_completion(|_, _, _| panic!("it was to block"))
        .on_teardown(move |completion, _, _| {
            log.push(outcome(&completion));
            Ok(())
        })
}

/// Turns a ring until it has done everything that it can do for now, without being finished.
fn turn_until_stuck<D: Send + 'static>(ring: &mut Bench<D>) {
    // A wave of cancels follows each wait.
    for _ in 0..3 {
        while ring.turn().unwrap().status != Status::Waiting {}
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(ring.stats().in_flight, 1);
}

fn blocks(send: BuildSend) {
    leaves_nothing(|ledger| {
        let (client, mut server) = narrow_pair();
        let file = Arc::new(OwnedFd::from(client));
        let ended = Log::new();
        let nothing = ledger.issue(Job::new(9, &file, 0));
        let sender = blocked_send(ledger, file, send, &ended);
        let mut ring = Bench::builder(sender, exit(nothing)).build().unwrap();
        turn_until_stuck(&mut ring);
        assert!(ended.is_empty(), "the kernel still has the memory");
        let reader = thread::spawn(move || {
            let mut bytes = Vec::new();
            server.read_to_end(&mut bytes).unwrap();
            bytes
        });
        ring.run().unwrap();
        let [Ok(sent)] = ended.take()[..] else { panic!("it was cancelled half-way") };
        assert!(0 < sent && (sent as usize) < SENT, "{sent}");
        drop(ring);
        assert_eq!(reader.join().unwrap(), vec![0xAB; sent as usize]);
    });
}

#[test]
fn t16_a_blocked_zero_copy_send() {
    in_child(|| blocks(Job::send_zc));
}

#[test]
fn t16_a_blocked_zero_copy_send_of_pieces() {
    in_child(|| blocks(Job::send_vectored_zc));
}

fn is_never_over(send: BuildSend, name: &str) {
    let before = open_descriptors();
    let ledger = Ledger::new();
    let (client, mut server) = narrow_pair();
    let file = Arc::new(OwnedFd::from(client));
    let nothing = ledger.issue(Job::new(9, &file, 0));
    let ended = Log::new();
    let sender = blocked_send(ledger, file, send, &ended);
    let mut ring =
        Bench::builder(sender, exit(nothing)).deadline(Duration::from_millis(100)).build().unwrap();
    let error = ring.run().unwrap_err();
    let RingError::Abandoned { stuck } = &error else { panic!("{error}") };
    assert_eq!(stuck.errno, None);
    let [request] = &stuck.requests[..] else { panic!("{stuck}") };
    assert_eq!((request.operation, request.opcode_name()), ("first", name));
    assert!(error.to_string().contains(&format!("{name} of `first`")), "{error}");

    // This is final: every later call returns the same, and nothing is accepted.
    assert!(matches!(ring.run(), Err(RingError::Abandoned { stuck: again }) if again == *stuck));
    assert!(matches!(ring.turn(), Err(RingError::Abandoned { .. })));
    assert!(matches!(ring.finish(), Err(RingError::Abandoned { .. })));
    let data = ledger.issue(Job::new(1, &Arc::new(pipe().0), 0));
    let refused = ring.submitter(Bench::FIRST).try_submit(data, |_| request::nop());
    assert!(matches!(refused, Err(Refused { error: SubmitError::Closed, .. })));
    drop((refused, error, ring));
    assert_eq!((ended.len(), ledger.alive()), (0, 1), "leaked, and no handler told");
    ledger.assert_none_dropped_twice();

    // If the buffer were freed, this would be put into it, and be sent.
    let garbage: Vec<_> = (0..8).map(|_| vec![0xCD_u8; SENT]).collect();
    let sent = all_that_is_sent(&mut server);
    assert!(!sent.is_empty() && sent.iter().all(|byte| *byte == 0xAB), "{}", sent.len());
    drop((garbage, server));
    // The socket's descriptor is owned by the data, and leaked with it.
    assert_eq!(open_descriptors(), before + 1);
}

#[test]
fn t17_a_zero_copy_send_that_is_never_over() {
    in_child(|| is_never_over(Job::send_zc, "SEND_ZC"));
}

#[test]
fn t17_a_zero_copy_send_of_pieces_that_is_never_over() {
    in_child(|| is_never_over(Job::send_vectored_zc, "SENDMSG_ZC"));
}

/// What a peer has sent that has stopped sending while the connection is still open.
fn all_that_is_sent(socket: &mut TcpStream) -> Vec<u8> {
    socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut bytes = Vec::new();
    let end = socket.read_to_end(&mut bytes);
    assert_eq!(end.unwrap_err().kind(), ErrorKind::WouldBlock);
    bytes
}

/// The only thing that this end can do about a peer that does not read.
#[test]
fn t18_a_reset_gives_the_memory_of_a_zero_copy_send_back() {
    in_child(|| {
        leaves_nothing(|ledger| {
            let (client, mut server) = narrow_pair();
            let fd = types::Fd(client.as_raw_fd());
            let other = Arc::new(pipe().0);
            let ended = Log::new();
            let (log, told) = (ended.clone(), ended.clone());
            let sender = Script::new()
                .on_setup_once({
                    let other = Arc::clone(&other);
                    move |mut submitter| {
                        let data = ledger.issue(Job::new(0, &other, SENT));
                        let entry = opcode::SendZc::new(fd, data.buffer.as_ptr(), SENT as u32).build();
                        // SAFETY: the entry points to the buffer on the heap that `data` owns. The
                        // descriptor is closed only when the ring is torn down, with the entry long taken in:
                        // the kernel has the file then.
                        unsafe { submitter.push(entry, data) }?;
                        Ok(())
                    }
                })
                .on_teardown(move |completion, _, _| {
                    log.push((0, outcome(&completion)));
                    Ok(())
                });
            let mut client = Some(client);
            let resetter = Script::new()
                .on_setup_once(move |mut submitter| {
                    let timer = ledger.issue(Job::new(1, &other, 0));
                    submitter.submit(timer, |_| request::timeout(FOR_EVER))?;
                    submitter.submit(ledger.issue(Job::new(2, &other, 0)), |_| request::nop())?;
                    Ok(())
                })
                .on_completion(|_, _, _| (ControlFlow::Exit, None))
                .on_teardown(move |completion, data, _| {
                    told.push((data.number, outcome(&completion)));
                    let socket = client.take().unwrap();
                    let reset = libc::linger { l_onoff: 1, l_linger: 0 };
                    setsockopt(&socket, sockopt::Linger, &reset)?;
                    Ok(())
                });
            let mut ring = Bench::builder(sender, resetter).build().unwrap();
            ring.run().unwrap();
            let ended = ended.take();
            let [(1, CANCELLED), (0, Ok(sent))] = ended[..] else { panic!("{ended:?}") };
            assert!(0 < sent && (sent as usize) < SENT, "{sent}");
            // The peer has received what came before.
            let end = std::io::copy(&mut server, &mut std::io::sink());
            assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
        });
    });
}

// ---- what handlers do -----------------------------------------------------------------------------

/// The handler that ends the ring.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Place {
    Setup,
    Completion,
    Teardown,
}

/// How that handler ends it.
#[derive(Clone, Copy, PartialEq, Debug)]
enum End {
    Exit,
    Error,
    Panic,
}

/// Ten requests that never end by themselves and two NOPs, in a queue of two; then `end` at `place`, after that handler
/// has submitted and posted something more. All of this happens twice.
fn end_in_a_handler(place: Place, end: End, ledger: Ledger) {
    type Numbers = Log<(u32, bool)>;
    fn more(mut submitter: BenchSubmitter<'_, Tracked<u32>>, ledger: Ledger) {
        submitter.submit(ledger.issue(20), |_| request::timeout(FOR_EVER)).unwrap();
        submitter.post(ledger.issue(21)).unwrap();
    }
    fn say(end: End) -> Result<(), Failure> {
        match end {
            End::Exit => Ok(()),
            End::Error => Err("the end".into()),
            End::Panic => panic!("the end"),
        }
    }
    let (ran, ended) = (Numbers::new(), Numbers::new());
    let (running, tearing_down) = (ran.clone(), ended.clone());
    let first = Script::new()
        .on_setup(move |mut submitter| {
            for number in 0..10 {
                submitter.submit(ledger.issue(number), |_| request::timeout(FOR_EVER))?;
            }
            submitter.submit(ledger.issue(10), |_| request::nop())?;
            submitter.submit(ledger.issue(11), |_| request::nop())?;
            Ok(())
        })
        .on_completion(move |completion, data, submitter| {
            running.push((*data, completion.result().is_ok()));
            if place == Place::Completion {
                more(submitter, ledger);
                if let Err(error) = say(end) {
                    return (ControlFlow::Error(error), None);
                }
            }
            (ControlFlow::Exit, None)
        })
        .on_teardown(move |completion, data, submitter| {
            tearing_down.push((*data, completion.result().is_ok()));
            if place == Place::Teardown && *data == 0 {
                more(submitter, ledger);
                return say(end);
            }
            Ok(())
        });
    let second = Script::new().on_setup(move |mut submitter| {
        if place != Place::Setup {
            return Ok(());
        }
        more(submitter.to(Bench::FIRST), ledger);
        match end {
            End::Exit => submitter.handle().stop(),
            _ => return say(end),
        }
        Ok(())
    });
    let mut ring = Bench::builder(first, second)
        .entries(2.try_into().unwrap())
        .grace(Duration::from_millis(20))
        .build()
        .unwrap();
    for _ in 0..2 {
        match end {
            End::Exit => ring.run().unwrap(),
            End::Panic => assert_eq!(panic_of(|| ring.run()), "the end"),
            End::Error => {
                let error = ring.run().unwrap_err();
                assert_eq!(error.to_string().matches("the end").count(), 1, "{error}");
                match place {
                    Place::Setup => assert!(matches!(error, RingError::Setup(_))),
                    Place::Completion => assert!(matches!(error, RingError::Completion(_))),
                    Place::Teardown => assert!(matches!(error, RingError::Teardown(_))),
                }
            }
        }
        assert_eq!((ring.stats().in_flight, ring.stats().backlog), (0, 0));
        let ran = ran.take();
        let expected = if place == Place::Setup { vec![] } else { vec![(10, true)] };
        assert_eq!(ran, expected, "{place:?} {end:?}");
        let mut ended = ended.take();
        let last = ended.last().copied();
        ended.sort();
        let cancelled = (0..10).map(|number| (number, false));
        let all = cancelled.chain([(10, true), (11, true), (20, false), (21, true)]);
        let expected = match (end, place) {
            // Nobody is told what becomes of the rest.
            (End::Panic, Place::Teardown) => {
                assert_eq!(last, Some((0, false)));
                vec![(0, false), (11, true)]
            }
            (End::Panic, _) => vec![],
            _ => all.filter(|it| !ran.contains(it)).collect(),
        };
        assert_eq!(ended, expected, "{place:?} {end:?}");
    }
}

#[test]
fn t19_each_end_in_each_handler() {
    in_child(|| {
        for place in [Place::Setup, Place::Completion, Place::Teardown] {
            for end in [End::Exit, End::Error, End::Panic] {
                leaves_nothing(|ledger| end_in_a_handler(place, end, ledger));
            }
        }
    });
}

/// Pushes timers that are linked in such a way that each must be cancelled by itself.
fn push_hard_chain(
    submitter: &mut BenchSubmitter<'_, Tracked<&'static str>>,
    ledger: Ledger,
) -> Result<(), SubmitError> {
    static LONG: types::Timespec = types::Timespec::new().sec(100_000);
    let timer = opcode::Timeout::new(&raw const LONG).build();
    let hard = timer.clone().flags(squeue::Flags::IO_HARDLINK);
    let data = [(); 5].map(|()| ledger.issue("chain"));
    // SAFETY: the time lives for ever.
    unsafe { submitter.push_multiple([hard.clone(), hard.clone(), hard.clone(), hard, timer], data) }?;
    Ok(())
}

#[test]
fn t20_requests_of_teardown_handlers() {
    in_child(|| {
        leaves_nothing(|ledger| {
            let ended = Log::new();
            let log = ended.clone();
            let script = Script::new()
                .on_setup(move |mut submitter| {
                    submitter.submit(ledger.issue("first"), |_| request::timeout(FOR_EVER))?;
                    // So cancels are sent while the late ones are awaited.
                    push_hard_chain(&mut submitter, ledger)?;
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
                            // SAFETY: a NOP points to nothing.
                            let refused = unsafe { submitter.push(nop(), refused.data) }.unwrap_err();
                            assert_eq!((*refused.data, refused.error), ("refused", SubmitError::Closed));
                        }
                        _ => {}
                    }
                    Ok(())
                });
            let grace = Duration::from_millis(300);
            let mut ring = Bench::builder(script, Script::new()).grace(grace).build().unwrap();
            for _ in 0..2 {
                ring.run().unwrap();
                let (chain, others): (Vec<_>, Vec<_>) =
                    ended.take().into_iter().partition(|it| it.0 == "chain");
                assert_eq!(chain, [("chain", CANCELLED); 5]);
                assert_eq!(others, [("first", CANCELLED), ("quick", Ok(0)), ("slow", CANCELLED)]);
            }
        });
    });
}

#[test]
fn t20_late_requests_that_are_over() {
    in_child(|| {
        leaves_nothing(|ledger| {
            let ended = Log::new();
            let log = ended.clone();
            let script = Script::new()
                .on_setup_once(move |mut submitter| {
                    push_hard_chain(&mut submitter, ledger)?;
                    submitter.submit(ledger.issue("exit"), |_| request::nop())?;
                    Ok(())
                })
                .on_completion(|_, _, _| (ControlFlow::Exit, None))
                .on_teardown(move |completion, data, mut submitter| {
                    log.push((*data, outcome(&completion)));
                    if *data == "chain" {
                        submitter.submit(ledger.issue("late"), |_| request::nop())?;
                    }
                    Ok(())
                });
            // If they were counted for longer than they last, the rest of the chain would have to wait for this.
            let grace = Duration::from_secs(1000);
            Bench::builder(script, Script::new()).grace(grace).build().unwrap().run().unwrap();
            let mut ended = ended.take();
            ended.sort();
            assert_eq!(ended, [[("chain", CANCELLED); 5], [("late", Ok(0)); 5]].concat());
        });
    });
}

/// A ring whose teardown handler calls `submit` for each completion.
fn never_satisfied(submit: fn(BenchSubmitter<'_, Tracked<u32>>, u32, Ledger)) {
    leaves_nothing(|ledger| {
        let script = Script::new()
            .on_setup_once(move |mut submitter| {
                submitter.submit(ledger.issue(0), |_| request::timeout(FOR_EVER))?;
                submitter.submit(ledger.issue(0), |_| request::nop())?;
                Ok(())
            })
            .on_completion(|_, _, _| (ControlFlow::Exit, None))
            .on_teardown(move |_, data, submitter| {
                submit(submitter, *data + 1, ledger);
                Ok(())
            });
        let grace = Duration::from_millis(10);
        let mut ring = Bench::builder(script, Script::new()).grace(grace).build().unwrap();
        ring.run().unwrap();
        assert!(ledger.issued() > 3);
    });
}

#[test]
fn t20_a_teardown_handler_that_is_never_satisfied() {
    in_child(|| {
        never_satisfied(|mut submitter, number, ledger| {
            submitter.submit(ledger.issue(number), |_| request::nop()).ok();
        });
        never_satisfied(|mut submitter, number, ledger| {
            submitter.post(ledger.issue(number)).ok();
        });
        // More than fit.
        never_satisfied(|mut submitter, number, ledger| {
            if ledger.alive() < 2000 {
                for _ in 0..3 {
                    submitter.submit(ledger.issue(number), |_| request::timeout(FOR_EVER)).ok();
                    submitter.submit(ledger.issue(number), |_| request::nop()).ok();
                }
            }
        });
    });
}

// ---- what happens meanwhile -------------------------------------------------------------------------

/// The numbers of requests of [`storm`].
mod kind {
    pub(super) const BLOCKED: std::ops::Range<u64> = 0..1000;
    pub(super) const CHAIN: std::ops::Range<u64> = 1000..1003;
    pub(super) const IN_WORKER: u64 = 1003;
    pub(super) const STREAM: u64 = 1004;
    pub(super) const LATE: u64 = 1005;
    pub(super) const TIMER: u64 = 2000;
    pub(super) const SEND: u64 = 3000;
    pub(super) const RECV: u64 = 4000;
    pub(super) const FILE: u64 = 5000;
}

/// Requests of many kinds: some block for ever, and every few milliseconds others come and go.
fn storm(ledger: Ledger) {
    const TICKS: u64 = 20;
    let (reader, _writer) = shared_pipe();
    let [near, far] = <[_; 2]>::from(tcp_pair()).map(|socket| Arc::new(OwnedFd::from(socket)));
    let program = Arc::new(OwnedFd::from(File::open("/proc/self/exe").unwrap()));
    let (ran, ended) = (Log::new(), Log::new());
    let (running, tearing_down) = (ran.clone(), ended.clone());
    let short = || request::timeout(Duration::from_millis(5));
    let script = Script::new()
        .on_setup(move |mut submitter| {
            let read = |number| ledger.issue(Job::new(number, &reader, 8));
            for number in kind::BLOCKED {
                submitter.submit(read(number), |it| it.read())?;
            }
            let mut data = [0, 1, 2].map(|it| read(kind::CHAIN.start + it));
            let [first, second, third] = data.each_mut().map(|it| it.read_entry());
            let hard = squeue::Flags::IO_HARDLINK;
            // SAFETY: each entry points to the buffer on the heap that its data owns.
            unsafe { submitter.push_multiple([first.flags(hard), second.flags(hard), third], data) }
                .map_err(SubmitError::from)?;
            let mut data = read(kind::IN_WORKER);
            let entry = data.read_entry().flags(squeue::Flags::ASYNC);
            // SAFETY: the entry points to the buffer on the heap that `data` owns.
            unsafe { submitter.push(entry, data) }?;
            submitter.stream(read(kind::STREAM), |_| request::timeout_multi(Duration::from_millis(3)))?;
            submitter.submit(read(kind::TIMER), |_| short())?;
            Ok(())
        })
        .on_completion(move |completion, data, mut submitter| {
            let result = outcome(&completion);
            if data.number == kind::STREAM {
                assert_eq!(result, Ok(0));
                return (ControlFlow::Continue, Some(data));
            }
            running.push((data.number, result));
            let tick = data.number.wrapping_sub(kind::TIMER);
            if tick > TICKS {
                return (ControlFlow::Continue, None);
            }
            if tick == TICKS {
                return (ControlFlow::Exit, None);
            }
            let job = |kind, file| ledger.issue(Job::new(kind + tick, file, 64));
            submitter.submit(job(kind::RECV, &far), |it| it.recv()).unwrap();
            submitter.submit(job(kind::SEND, &near), |it| it.send()).unwrap();
            submitter.submit(job(kind::FILE, &program), |it| it.read()).unwrap();
            submitter.submit(job(kind::TIMER + 1, &data.file), |_| short()).unwrap();
            (ControlFlow::Continue, None)
        })
        .on_teardown(move |completion, data, mut submitter| {
            tearing_down.push((data.number, outcome(&completion)));
            if data.number == 5 {
                // This makes the teardown itself wait.
                let data = ledger.issue(Job::new(kind::LATE, &data.file, 0));
                submitter.submit(data, |_| request::timeout(Duration::from_millis(100)))?;
            }
            Ok(())
        });
    let mut ring = Bench::with(64, script);
    for _ in 0..2 {
        ring.run().unwrap();
        let mut ran = ran.take();
        ran.sort();
        // The kernel cancels what it finds no worker for (E11), and a signal can interrupt the making of one.
        let found_no_worker = (kind::IN_WORKER, CANCELLED);
        let has_worker = !ran.contains(&found_no_worker);
        ran.retain(|it| *it != found_no_worker);
        let kinds = [
            (kind::TIMER, TICKS + 1, Ok(0)),
            (kind::SEND, TICKS, Ok(64)),
            (kind::RECV, TICKS, Ok(64)),
            (kind::FILE, TICKS, Ok(64)),
        ];
        let expected = kinds.map(|(kind, count, result)| (0..count).map(move |it| (kind + it, result)));
        assert_eq!(ran, expected.into_iter().flatten().collect::<Vec<_>>());
        let mut ended = ended.take();
        ended.sort();
        let expected = (0..=kind::LATE).filter(|number| has_worker || *number != kind::IN_WORKER);
        assert!(ended.iter().map(|it| it.0).eq(expected), "one end each");
        ended.retain(|ended| match ended {
            (kind::LATE, result) => *result != Ok(0),
            (kind::IN_WORKER, Err(libc::EINTR)) => false,
            // All these completions fill the completion queue, which cuts a stream.
            (kind::STREAM, Ok(0)) => false,
            (_, result) => *result != CANCELLED,
        });
        assert_eq!(ended, [], "ended otherwise");
        assert_eq!(ring.stats().foreign, 0);
    }
}

#[test]
fn t21_a_storm_of_signals() {
    in_child(|| {
        for restart in [false, true] {
            let before = SignalStorm::signals();
            let signals = SignalStorm::begin(restart);
            leaves_nothing(storm);
            drop(signals);
            let signals = SignalStorm::signals() - before;
            assert!(signals > 100, "{signals} are no storm");
        }
    });
}

#[test]
fn t22_stopping_and_continuing_the_process() {
    in_child(|| {
        leaves_nothing(|ledger| {
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
        });
    });
}

// ---- rings that are not run to their end ------------------------------------------------------------

#[test]
fn t23_drop_without_a_run() {
    in_child(|| {
        leaves_nothing(|ledger| {
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
    });
}

#[test]
fn t23_drop_after_an_error_of_the_run() {
    in_child(|| {
        // An error that left nothing in flight.
        leaves_nothing(|ledger| {
            let script = Script::new()
                .on_setup(move |mut submitter| {
                    submitter.submit(ledger.issue(0), |_| request::timeout(FOR_EVER))?;
                    submitter.submit(ledger.issue(1), |_| request::nop())?;
                    Ok(())
                })
                .on_completion(|_, _, _| (ControlFlow::Error("the end".into()), None));
            let mut ring = Bench::with(8, script);
            assert!(matches!(ring.run(), Err(RingError::Completion(_))));
            ledger.assert_all_dropped_once();
        });

        // An error that left something in flight.
        let before = open_descriptors();
        let ledger = Ledger::new();
        let (client, mut server) = narrow_pair();
        let file = Arc::new(OwnedFd::from(client));
        let nothing = ledger.issue(Job::new(9, &file, 0));
        let other = exit(nothing).on_completion(|_, _, _| (ControlFlow::Error("the end".into()), None));
        let sender = blocked_send(ledger, file, Job::send_zc, &Log::new());
        let mut ring = Bench::builder(sender, other).deadline(Duration::from_millis(50)).build().unwrap();
        let error = ring.run().unwrap_err();
        assert!(matches!(error, RingError::Completion(_)));
        assert_eq!(error.abandoned().unwrap().requests.len(), 1);
        drop((error, ring));
        assert_eq!(ledger.alive(), 1, "leaked, not freed");
        assert!(all_that_is_sent(&mut server).iter().all(|byte| *byte == 0xAB));
        drop(server);
        assert_eq!(open_descriptors(), before + 1, "that of the socket is leaked with the data");
        ledger.assert_none_dropped_twice();
    });
}

#[test]
fn t23_drop_in_another_thread() {
    in_child(|| {
        let before = open_descriptors();
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
        let elsewhere = thread::spawn(move || {
            // To the kernel, this thread is a stranger: nothing is done, nothing is freed.
            assert!(matches!(ring.run(), Err(RingError::WrongThread)));
            assert!(matches!(ring.turn(), Err(RingError::WrongThread)));
            assert!(matches!(ring.finish(), Err(RingError::WrongThread)));
            assert_eq!(ring.stats().in_flight, 50);
            drop(ring);
        });
        elsewhere.join().unwrap();
        assert_eq!(ledger.alive(), 50);
        server.write_all(&[7; 4096]).ok();
        thread::sleep(Duration::from_millis(20));
        drop(server);
        assert_eq!(ledger.alive(), 50);
        ledger.assert_none_dropped_twice();
        assert_eq!(open_descriptors(), before + 1, "that of the socket is leaked with the data");
    });
}

#[test]
fn t24_messages_of_another_ring_during_the_teardown() {
    in_child(|| {
        leaves_nothing(|ledger| {
            let (reader, _writer) = shared_pipe();
            let nothing = ledger.issue(Job::new(9, &reader, 0));
            let (raw, target) = addressable(64);
            let mut sender = IoUring::new(64).unwrap();
            let mut ends = 0;
            let ended = Log::new();
            let log = ended.clone();
            let reads = Script::new()
                .on_setup_once(move |mut submitter| {
                    for number in 0..50 {
                        submitter.submit(ledger.issue(Job::new(number, &reader, 8)), |it| it.read())?;
                    }
                    Ok(())
                })
                .on_teardown(move |completion, data, mut submitter| {
                    log.push((data.number, outcome(&completion)));
                    if data.number == 100 {
                        return Ok(());
                    }
                    // A slot that does not exist and a tag that does not exist, twice each, and nothing of the ring's
                    // own.
                    for user_data in [1 << 56 | 0xFFFF, 77 << 56, u64::MAX, 9] {
                        let message = opcode::MsgRingData::new(target, 0, user_data, None).build();
                        // SAFETY: it points to nothing.
                        unsafe { sender.submission().push(&message) }.unwrap();
                    }
                    sender.submit_and_wait(4)?;
                    assert!(sender.completion().all(|cqe| cqe.result() == 0));
                    ends += 1;
                    if ends == 50 {
                        // All messages come before this completion.
                        let data = ledger.issue(Job::new(100, &data.file, 0));
                        submitter.submit(data, |_| request::timeout(Duration::from_millis(10)))?;
                    }
                    Ok(())
                });
            let mut ring =
                Bench::builder(reads, exit(nothing)).raw_ring(raw).grace(PATIENCE).build().unwrap();
            ring.run().unwrap();
            let mut ended = ended.take();
            ended.sort();
            let cancelled = (0..50).map(|number| (number, CANCELLED));
            assert_eq!(ended, cancelled.chain([(100, Ok(0))]).collect::<Vec<_>>());
            assert_eq!((ring.stats().foreign, ring.stats().in_flight), (200, 0));
            ring.run().unwrap();
        });
    });
}

#[test]
fn t25_a_run_after_a_run() {
    in_child(|| {
        leaves_nothing(|ledger| {
            let (ran, ended) = (Log::new(), Log::new());
            let (running, tearing_down) = (ran.clone(), ended.clone());
            let script = Script::new()
                .on_setup(move |mut submitter| {
                    submitter.submit(ledger.issue(0), |_| request::timeout(FOR_EVER))?;
                    submitter.submit(ledger.issue(1), |_| request::nop())?;
                    Ok(())
                })
                .on_completion(move |completion, data, _| {
                    running.push((*data, outcome(&completion)));
                    (ControlFlow::Exit, None)
                })
                .on_teardown(move |completion, data, mut submitter| {
                    tearing_down.push((*data, outcome(&completion)));
                    if *data == 0 {
                        submitter.submit(ledger.issue(2), |_| request::nop())?;
                    }
                    Ok(())
                });
            let mut ring = Bench::with(8, script);
            for _ in 0..10 {
                ring.run().unwrap();
                assert_eq!(ran.take(), [(1, Ok(0))]);
                assert_eq!(ended.take(), [(0, CANCELLED), (2, Ok(0))], "the same each time");
                assert_eq!((ring.stats().in_flight, ring.stats().foreign), (0, 0));
                ledger.assert_all_dropped_once();
            }
            let mut ring = thread::spawn(move || {
                assert!(matches!(ring.run(), Err(RingError::WrongThread)));
                ring
            })
            .join()
            .unwrap();
            assert!(ran.is_empty() && ended.is_empty());
            ring.run().unwrap();
            assert_eq!((ran.len(), ended.len()), (1, 2), "as if nothing had happened");
        });
    });
}

#[test]
fn t25_a_run_after_abandoned() {
    in_child(|| {
        let ledger = Ledger::new();
        let (client, _server) = narrow_pair();
        let file = Arc::new(OwnedFd::from(client));
        let nothing = ledger.issue(Job::new(9, &file, 0));
        let sender = blocked_send(ledger, file, Job::send_zc, &Log::new());
        let mut ring =
            Bench::builder(sender, exit(nothing)).deadline(Duration::from_millis(50)).build().unwrap();
        let Err(RingError::Abandoned { stuck }) = ring.run() else { panic!("it was to be stuck") };
        for _ in 0..3 {
            assert!(matches!(ring.run(), Err(RingError::Abandoned { stuck: again }) if again == stuck));
        }
        assert_eq!(ledger.alive(), 1);
    });
}

thread_local! {
    /// Dropped when the process exits, although it is borrowed by the loop then.
    static LOCAL: RefCell<Option<Bench<u32>>> = const { RefCell::new(None) };
}

#[test]
fn t26_an_exit_of_the_process_in_a_handler() {
    in_child(|| {
        type Handler = fn(u32, BenchSubmitter<'_, u32>) -> (ControlFlow<&'static str, Failure>, Option<u32>);
        let handlers: [Handler; 3] = [
            |_, _| process::exit(0),
            |data, mut submitter| {
                submitter.submit(data, |_| process::exit(0)).unwrap();
                (ControlFlow::Continue, None)
            },
            |_, _| {
                std::panic::set_hook(Box::new(|_| process::exit(0)));
                panic!("the end")
            },
        ];
        for handler in handlers {
            in_fork(|| {
                // SAFETY: a plain call; the signal ends a process that hangs.
                unsafe { libc::alarm(PATIENCE.as_secs() as u32 / 2) };
                let script = Script::new()
                    .on_setup(|mut submitter| {
                        submitter.submit(0, |_| request::timeout(FOR_EVER))?;
                        submitter.submit(1, |_| request::nop())?;
                        Ok(())
                    })
                    .on_completion(move |_, data, submitter| handler(data, submitter));
                LOCAL.with_borrow_mut(|local| local.insert(Bench::with(8, script)).run()).unwrap();
                panic!("the process was to exit");
            });
        }
    });
}
