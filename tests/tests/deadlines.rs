//! Requests with a deadline: the ring keeps it, and ends what is not over by then.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::num::{NonZeroU32, NonZeroUsize};
use std::os::fd::{AsFd, IntoRawFd, OwnedFd};
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rummelplatz::io_uring::{IoUring, opcode};
use rummelplatz::request::{CWD, Events, OpenOptions, Resolve};
use rummelplatz::{
    Completion, ControlFlow, FixedBuffer, FixedBuffers, Request, RingError, SubmitError, request,
};
use rummelplatz_tests::{
    Bench, BenchSubmitter, Directory, IORING_REGISTER_EVENTFD, Ledger, Log, Script, Tracked, address,
    addressable, complete, count_enters, forge, in_child, nameless_file, open_descriptors, outcome, pipe,
    restricted, tcp_pair, watched,
};

/// `IORING_CQE_F_MORE`.
const F_MORE: u32 = 1 << 1;
const SOON: Duration = Duration::from_millis(5);
/// For what is over in no time: on a busy machine, only the last may be enough.
const ENOUGH: [Duration; 3] =
    [Duration::from_millis(20), Duration::from_millis(200), Duration::from_millis(2000)];
const LATE: Duration = Duration::from_secs(100_000);
const CANCELLED: Result<u32, i32> = Err(libc::ECANCELED);

/// What a handler is told.
fn told(completion: &Completion) -> (Result<u32, i32>, bool) {
    (outcome(completion), completion.timed_out())
}

/// How a request on its own ended.
fn told_of<D: Send + 'static>(
    data: D,
    build: impl for<'d> FnOnce(&'d mut D) -> Request<'d>,
) -> (Result<u32, i32>, bool) {
    told(&complete(data, build).0)
}

struct Receive {
    socket: OwnedFd,
    buffer: [u8; 8],
}

impl Receive {
    fn new(socket: impl Into<OwnedFd>) -> Receive {
        Receive { socket: socket.into(), buffer: [0; 8] }
    }

    fn at_last(&mut self) -> Request<'_> {
        request::recv(&self.socket, &mut self.buffer)
    }

    fn soon(&mut self) -> Request<'_> {
        self.at_last().deadline(SOON)
    }

    fn late(&mut self) -> Request<'_> {
        self.at_last().deadline(LATE)
    }
}

#[test]
fn a_request_ends_when_its_time_is_up() {
    watched(|| {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        assert_eq!(told_of(Receive::new(ours), Receive::soon), (CANCELLED, true));
        let (ours, _theirs) = UnixStream::pair().unwrap();
        assert_eq!(
            told_of(Receive::new(ours), |it| request::recv(&it.socket, &mut it.buffer)
                .deadline(Duration::ZERO)),
            (CANCELLED, true)
        );
    });
}

#[test]
fn a_request_that_is_quicker_is_not_disturbed() {
    watched(|| {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"here").unwrap();
        let (completion, data) = complete(Receive::new(ours), Receive::late);
        assert_eq!((told(&completion), &data.buffer[..4]), ((Ok(4), false), &b"here"[..]));
        // Not at once, but in time.
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let writer = thread::spawn(move || {
            thread::sleep(SOON);
            theirs.write_all(b"now").unwrap();
        });
        assert_eq!(told_of(Receive::new(ours), Receive::late), (Ok(3), false));
        writer.join().unwrap();
        // The longest time that there is.
        assert_eq!(told_of((), |()| request::nop().deadline(Duration::MAX)), (Ok(0), false));
        // Of several deadlines, the last counts.
        let (ours, _theirs) = UnixStream::pair().unwrap();
        assert_eq!(
            told_of(Receive::new(ours), |it| request::recv(&it.socket, &mut it.buffer)
                .deadline(LATE)
                .deadline(SOON)),
            (CANCELLED, true)
        );
        assert_eq!(
            told_of((pipe().0, [0; 8]), |it| request::recv(&it.0, &mut it.1).deadline(LATE)),
            (Err(libc::ENOTSOCK), false)
        );
    });
}

#[test]
fn all_kinds_of_requests_can_have_one() {
    watched(|| {
        assert_eq!(told_of((), |()| request::timeout(LATE).deadline(SOON)), (CANCELLED, true));
        let listener = || TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(told_of(listener(), |it| request::accept(it).deadline(SOON)), (CANCELLED, true));
        assert_eq!(
            told_of(pipe(), |it| request::poll(&it.0, Events::READABLE).deadline(SOON)),
            (CANCELLED, true)
        );
        assert_eq!(
            told_of((pipe(), [0; 4], [0; 4]), |(pipe, one, other)| {
                request::readv(&pipe.0, [&mut one[..], &mut other[..]]).deadline(SOON)
            }),
            (CANCELLED, true)
        );
        let there = listener();
        let address = there.local_addr().unwrap();
        let made = complete((), |()| request::socket(libc::AF_INET, libc::SOCK_STREAM, 0).deadline(LATE)).0;
        assert_eq!(told(&made), (Ok(0), false));
        let socket = made.into_fd().unwrap();
        assert_eq!(
            told_of(socket, move |socket| request::connect(socket, address).deadline(LATE)),
            (Ok(0), false)
        );
    });
}

#[test]
fn what_is_left_to_a_worker_ends_in_time() {
    watched(|| {
        assert_eq!(
            told_of((pipe(), pipe()), |((from, _), (_, to))| {
                request::splice(from, None, to, None, 8).deadline(SOON)
            }),
            (CANCELLED, true)
        );
        // The file can only be opened when somebody writes to it, and nobody does.
        let there = Directory::new("deadlines");
        nix::unistd::mkfifo(&there.path("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        for resolve in [false, true] {
            let told = told_of(there.c_path("fifo"), move |path| {
                // A worker opens what may have to be created.
                let options = OpenOptions::new().read(true).create(true);
                let options = if resolve { options.resolve(Resolve::NO_SYMLINKS) } else { options };
                request::openat(&CWD, path, &options).deadline(SOON)
            });
            assert!(matches!(told, (Err(libc::ECANCELED | libc::EINTR), true)), "{told:?}");
        }
        // What is over in time is not disturbed.
        there.file("file", b"content");
        let opened = complete(there.c_path("file"), |path| {
            request::openat(&CWD, path, &OpenOptions::new().read(true)).deadline(LATE)
        });
        assert_eq!(told(&opened.0), (Ok(0), false));
        let mut content = String::new();
        std::fs::File::from(opened.0.into_fd().unwrap()).read_to_string(&mut content).unwrap();
        assert_eq!(content, "content");
        let synced = complete(nameless_file(), |file| request::fsync(file).deadline(LATE)).0;
        assert_eq!(told(&synced), (Ok(0), false));
    });
}

#[test]
fn what_has_to_wait_for_room_ends_in_time_as_well() {
    watched(|| {
        for entries in [1, 2, 8] {
            let (ended, ledger) = (Log::new(), Ledger::new());
            let log = ended.clone();
            let script = Script::new().on_completion(move |completion, _: Tracked<_>, _| {
                log.push(told(&completion));
                (ControlFlow::Continue, None)
            });
            let mut ring = Bench::with(entries, script);
            for time in [SOON, LATE, SOON, LATE] {
                let ((from, writer), to) = (pipe(), pipe());
                if time == LATE {
                    std::fs::File::from(writer.try_clone().unwrap()).write_all(b"12345678").unwrap();
                }
                let data = ledger.issue((from, writer, to));
                ring.submitter(Bench::FIRST)
                    .submit(data, move |data| {
                        let (from, _, (_, to)) = &data.value;
                        request::splice(from, None, to, None, 8).deadline(time)
                    })
                    .unwrap();
            }
            ring.run().unwrap();
            let mut ended = ended.take();
            ended.sort();
            assert_eq!(ended, [(Ok(8), false), (Ok(8), false), (CANCELLED, true), (CANCELLED, true)]);
            assert_eq!((ring.stats().foreign, ring.stats().in_flight), (0, 0));
            ledger.assert_all_dropped_once();
        }
    });
}

#[test]
fn what_is_registered_can_be_used_in_time() {
    watched(|| {
        let (reader, writer) = pipe();
        let buffers = FixedBuffers::new(3, 8).unwrap();
        let ended = Log::new();
        let log = ended.clone();
        let script = Script::new().on_completion(move |completion, data: (OwnedFd, FixedBuffer), _| {
            log.push((told(&completion), data.1[..4].to_vec()));
            (ControlFlow::Continue, None)
        });
        let mut ring = Bench::builder(script, Script::new()).build().unwrap();
        let mut submitter = ring.submitter(Bench::FIRST);
        submitter.register_buffers(&buffers).unwrap();
        let read = |submitter: &mut BenchSubmitter<'_, _>, time| {
            let data = (reader.try_clone().unwrap(), buffers.take().unwrap());
            submitter
                .submit(data, move |(file, buffer)| request::read_fixed(file, buffer).deadline(time))
                .unwrap();
        };
        read(&mut submitter, SOON);
        ring.run().unwrap();
        assert_eq!(ended.take(), [((CANCELLED, true), vec![0; 4])]);
        std::fs::File::from(writer).write_all(b"here").unwrap();
        let mut submitter = ring.submitter(Bench::FIRST);
        submitter.register_buffers(&buffers).unwrap();
        read(&mut submitter, LATE);
        ring.run().unwrap();
        assert_eq!(ended.take(), [((Ok(4), false), b"here".to_vec())]);
    });
}

#[test]
fn what_comes_in_time_is_owned_by_who_is_told() {
    in_child(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let before = open_descriptors();
        let (completion, listener) = complete(listener, |it| request::accept(it).deadline(LATE));
        assert_eq!(told(&completion), (Ok(0), false));
        let mut server = TcpStream::from(completion.into_fd().unwrap());
        client.write_all(b"x").unwrap();
        server.read_exact(&mut [0]).unwrap();
        assert_eq!(open_descriptors(), before + 1);
        drop(server);
        // One that nobody takes.
        let _again = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (completion, _) = complete(listener, |it| request::accept(it).deadline(LATE));
        drop(completion);
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
        assert_eq!(open_descriptors(), before, "one more peer, and one listener less");
    });
}

#[test]
fn a_part_that_was_done_in_time_is_told_of() {
    watched(|| {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let much = (OwnedFd::from(ours), vec![7_u8; 8 << 20]);
        let whole = Log::new();
        let log = whole.clone();
        let script = Script::new().on_completion(move |completion, _: (OwnedFd, Vec<u8>), _| {
            log.push(told(&completion));
            (ControlFlow::Continue, None)
        });
        let mut ring = Bench::with(8, script);
        ring.submitter(Bench::FIRST)
            .submit(much, |(socket, bytes)| request::write(socket, bytes).deadline(SOON))
            .unwrap();
        ring.run().unwrap();
        let [(result, timed_out)] = whole.take()[..] else { panic!("told once") };
        // It may have ended before, with a part of it.
        let sent = result.unwrap_or(0);
        assert!(sent < 8 << 20 && (timed_out || sent > 0), "{result:?}");
        drop(theirs);
    });
}

#[test]
fn a_zero_copy_send_is_told_of_when_its_memory_is_free() {
    type Sent = Tracked<(OwnedFd, Vec<u8>)>;
    fn sends(send: for<'d> fn(&'d mut Sent) -> Request<'d>) {
        let (ours, mut theirs) = tcp_pair();
        let ledger = Ledger::new();
        let told_of = Log::new();
        let log = told_of.clone();
        let script = Script::new().on_completion(move |completion, data: Sent, _| {
            log.push((told(&completion), data.1.len()));
            (ControlFlow::Continue, None)
        });
        let mut ring = Bench::with(8, script);
        let data = ledger.issue((OwnedFd::from(ours), vec![7_u8; 64 << 20]));
        ring.submitter(Bench::FIRST).submit(data, |data| send(data).deadline(SOON)).unwrap();
        // The peer reads only after the deadline; until then the memory is in use.
        let reader = thread::spawn(move || {
            thread::sleep(4 * SOON);
            std::io::copy(&mut theirs, &mut std::io::sink()).unwrap()
        });
        ring.run().unwrap();
        let [((result, _), length)] = told_of.take()[..] else { panic!("told once") };
        assert_eq!(length, 64 << 20);
        ledger.assert_all_dropped_once();
        assert_eq!(u64::from(result.unwrap_or(0)), reader.join().unwrap(), "{result:?}");
    }
    watched(|| {
        sends(|data| request::send_zc(&data.value.0, &data.value.1));
        sends(|data| {
            let (socket, bytes) = &data.value;
            request::send_vectored_zc(socket, bytes.rchunks(1 << 20))
        });
    });
}

#[test]
fn nobody_is_told_of_detached_requests() {
    watched(|| {
        let ledger = Ledger::new();
        let script = Script::new().on_completion(|_, _: Tracked<Receive>, _| panic!("it is detached"));
        let mut ring = Bench::with(8, script);
        let peers = [0; 2].map(|_| UnixStream::pair().unwrap());
        let peers = peers.map(|(ours, theirs)| {
            let data = ledger.issue(Receive::new(ours));
            ring.submitter(Bench::FIRST).detach(data, |data| data.value.soon()).unwrap();
            theirs
        });
        (&peers[0]).write_all(b"x").unwrap();
        ring.run().unwrap();
        assert_eq!((ring.stats().detached_failed, ring.stats().in_flight), (1, 0));
        ledger.assert_all_dropped_once();
    });
}

/// What handlers were told of requests, running or in a teardown.
type All = Log<(Result<u32, i32>, bool)>;

/// A ring of this many entries that notes what its handlers are told.
fn noting(entries: u32, backlog: Option<usize>) -> (Bench<Tracked<Receive>>, All) {
    let told_of = Log::new();
    let (log, torn_down) = (told_of.clone(), told_of.clone());
    let script = Script::new()
        .on_completion(move |completion, _, _| {
            log.push(told(&completion));
            (ControlFlow::Continue, None)
        })
        .on_teardown(move |completion, _, _| {
            torn_down.push(told(&completion));
            Ok(())
        });
    let mut builder = Bench::builder(script, Script::new()).entries(NonZeroU32::new(entries).unwrap());
    if let Some(limit) = backlog.and_then(NonZeroUsize::new) {
        builder = builder.backlog_limit(limit);
    }
    (builder.build().unwrap(), told_of)
}

#[test]
fn a_full_queue_keeps_no_request_from_its_end() {
    const COUNT: usize = 37;
    watched(|| {
        for entries in [1, 2, 4, 8] {
            let ledger = Ledger::new();
            let (mut ring, told_of) = noting(entries, None);
            let mut theirs = Vec::new();
            for number in 0..COUNT {
                let (ours, other) = UnixStream::pair().unwrap();
                theirs.push(other);
                let data = ledger.issue(Receive::new(ours));
                let mut submitter = ring.submitter(Bench::FIRST);
                match number % 3 {
                    0 => submitter.submit(data, |it| request::shutdown(&it.socket, Shutdown::Write)),
                    _ => submitter.submit(data, |it| it.value.soon()),
                }
                .unwrap();
            }
            ring.run().unwrap();
            let told_of = told_of.take();
            let late = told_of.iter().filter(|told| **told == (CANCELLED, true)).count();
            let others = told_of.iter().filter(|told| **told == (Ok(0), false)).count();
            assert_eq!((late, others), (COUNT * 2 / 3, COUNT - COUNT * 2 / 3), "{entries}");
            assert_eq!(ring.stats().foreign, 0);
            ledger.assert_all_dropped_once();
        }
    });
}

#[test]
fn a_deadline_takes_no_room_of_the_backlog() {
    watched(|| {
        let ledger = Ledger::new();
        let (mut ring, told_of) = noting(2, Some(3));
        let peers = [0; 6].map(|_| UnixStream::pair().unwrap());
        let mut submitter = ring.submitter(Bench::FIRST);
        let mut refused = 0;
        // The kernel takes in nothing before the ring runs.
        let peers = peers.map(|(ours, theirs)| {
            let data = ledger.issue(Receive::new(ours));
            match submitter.submit(data, |it| it.value.soon()) {
                Ok(_) => {}
                Err(error) => {
                    assert_eq!(error, SubmitError::Full);
                    refused += 1;
                }
            }
            theirs
        });
        assert_eq!((refused, ring.stats().backlog), (1, 3), "two are in the queue, and three wait");
        ring.run().unwrap();
        assert_eq!(told_of.take(), [(CANCELLED, true); 5]);
        ledger.assert_all_dropped_once();
        drop(peers);
    });
}

#[test]
fn one_that_is_cancelled_was_in_time() {
    watched(|| {
        let ledger = Ledger::new();
        let (mut ring, told_of) = noting(8, None);
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let mut submitter = ring.submitter(Bench::FIRST);
        let key = submitter.submit(ledger.issue(Receive::new(ours)), |it| it.value.late()).unwrap();
        assert!(submitter.cancel(key));
        ring.run().unwrap();
        assert_eq!(told_of.take(), [(CANCELLED, false)]);
        assert!(!ring.submitter(Bench::FIRST).cancel(key), "it is over");
        ledger.assert_all_dropped_once();
    });
}

#[test]
fn a_ring_ends_before_their_time() {
    watched(|| {
        // Queued, waiting for room, or with the kernel; ended, dropped, or never begun.
        for (count, turns) in [(1, 0), (5, 0), (1, 1), (5, 1), (5, 3)] {
            for ends in [true, false] {
                let ledger = Ledger::new();
                let (mut ring, told_of) = noting(4, None);
                let peers = [0; 5].map(|_| UnixStream::pair().unwrap());
                let theirs: Vec<_> = peers
                    .into_iter()
                    .take(count)
                    .map(|(ours, theirs)| {
                        let data = ledger.issue(Receive::new(ours));
                        ring.submitter(Bench::FIRST).submit(data, |it| it.value.late()).unwrap();
                        theirs
                    })
                    .collect();
                for _ in 0..turns {
                    ring.turn().unwrap();
                }
                if ends {
                    ring.finish().unwrap();
                    assert_eq!(told_of.take(), vec![(CANCELLED, false); count]);
                    assert_eq!((ring.stats().in_flight, ring.stats().foreign), (0, 0));
                }
                drop(ring);
                assert!(told_of.is_empty(), "who drops a ring is told nothing");
                ledger.assert_all_dropped_once();
                drop(theirs);
            }
        }
    });
}

#[test]
fn a_handler_that_panics_leaves_none_behind() {
    watched(|| {
        let ledger = Ledger::new();
        let script = Script::new().on_completion(|_, _: Tracked<Receive>, _| panic!("as planned"));
        let mut ring = Bench::with(8, script);
        let peers = [0; 3].map(|_| UnixStream::pair().unwrap());
        let peers = peers.map(|(ours, theirs)| {
            let data = ledger.issue(Receive::new(ours));
            ring.submitter(Bench::FIRST).submit(data, |it| it.value.late()).unwrap();
            theirs
        });
        (&peers[1]).write_all(b"x").unwrap();
        catch_unwind(AssertUnwindSafe(|| ring.run())).unwrap_err();
        assert_eq!(ring.stats().in_flight, 0);
        ledger.assert_all_dropped_once();
    });
}

#[test]
fn the_slot_is_used_again_and_again() {
    const ROUNDS: usize = 500;
    watched(|| {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let ledger = Ledger::new();
        let rounds = Log::new();
        let log = rounds.clone();
        let script = Script::new().on_completion(move |completion, data: Tracked<Receive>, mut submitter| {
            assert_eq!(told(&completion), (Ok(1), false));
            log.push(());
            if log.len() < ROUNDS {
                (&theirs).write_all(b"x").unwrap();
                submitter.submit(data, |it| it.value.late()).unwrap();
            }
            (ControlFlow::Continue, None)
        });
        let mut ring = Bench::with(4, script);
        let data = ledger.issue(Receive::new(ours));
        ring.submitter(Bench::FIRST)
            .submit(data, |it| request::send(&it.value.socket, b"x").deadline(LATE))
            .unwrap();
        ring.run().unwrap();
        assert_eq!(rounds.len(), ROUNDS);
        ledger.assert_all_dropped_once();
    });
}

/// Datagrams to a receiver that takes in no more of them: its queue seems to have room, but has none. So the kernel
/// tries again and again, with the request in no table that a cancel looks at, until it leaves the request to a worker.
struct Stuck {
    socket: UnixDatagram,
    _receiver: UnixDatagram,
    to: SocketAddr,
}

impl Stuck {
    fn new(name: &str) -> Stuck {
        let to = address(name);
        let receiver = UnixDatagram::bind_addr(&to).unwrap();
        let socket = UnixDatagram::unbound().unwrap();
        socket.set_nonblocking(true).unwrap();
        while socket.send_to_addr(b"full", &to).is_ok() {}
        socket.set_nonblocking(false).unwrap();
        Stuck { socket, _receiver: receiver, to }
    }

    fn send(&mut self) -> Request<'_> {
        request::send_to(&self.socket, b"stuck", &self.to)
    }
}

/// A request that was cancelled or, since it is left to a worker by then, interrupted.
fn has_ended((result, timed_out): (Result<u32, i32>, bool)) -> bool {
    matches!(result, Err(libc::ECANCELED | libc::EINTR)) && timed_out
}

#[test]
fn what_no_cancel_finds_at_first_ends_in_time_all_the_same() {
    watched(|| {
        for microseconds in [0, 1, 10, 100, 1_000, 20_000] {
            let time = Duration::from_micros(microseconds);
            let told = told_of(Stuck::new("short"), move |it| it.send().deadline(time));
            assert!(has_ended(told), "{time:?}: {told:?}");
        }
        // One look at a time.
        let seen = Log::new();
        let log = seen.clone();
        let script = Script::new().on_completion(move |completion, _, _| {
            log.push(told(&completion));
            (ControlFlow::Continue, None)
        });
        let mut ring = Bench::with(8, script);
        ring.submitter(Bench::FIRST).submit(Stuck::new("turn"), |it| it.send().deadline(SOON)).unwrap();
        while seen.is_empty() {
            ring.turn().unwrap();
            thread::sleep(Duration::from_millis(1));
        }
        assert!(has_ended(seen.take()[0]));
    });
}

#[test]
fn what_no_cancel_finds_at_first_ends_when_it_is_cancelled() {
    watched(|| {
        for from_a_handler in [false, true] {
            let seen = Log::new();
            let log = seen.clone();
            let mut key = None;
            let script =
                Script::new().on_completion(move |completion, data: Option<Stuck>, mut submitter| {
                    match (data, key) {
                        (Some(_), _) => log.push(outcome(&completion)),
                        (None, Some(key)) => assert!(submitter.cancel(key)),
                        (None, None) => {
                            key = submitter.submit(Some(Stuck::new("key")), send_it).ok();
                            submitter.submit(None, |_| request::nop()).unwrap();
                        }
                    }
                    (ControlFlow::Continue, None)
                });
            let mut ring = Bench::with(8, script);
            let mut submitter = ring.submitter(Bench::FIRST);
            if from_a_handler {
                submitter.submit(None, |_| request::nop()).unwrap();
            } else {
                let key = submitter.submit(Some(Stuck::new("key")), send_it).unwrap();
                assert!(submitter.cancel(key));
            }
            ring.run().unwrap();
            let ended = seen.take();
            assert!(matches!(ended[..], [Err(libc::ECANCELED | libc::EINTR)]), "{ended:?}");
        }
    });
}

fn send_it(stuck: &mut Option<Stuck>) -> Request<'_> {
    match stuck {
        Some(stuck) => stuck.send(),
        None => request::nop(),
    }
}

#[test]
fn what_has_ended_in_time_was_in_time_however_late_that_is_seen() {
    watched(|| {
        // Of what is left to a worker; and on a ring of one entry.
        type Build = for<'d> fn(&'d mut (File, [u8; 4])) -> Request<'d>;
        let cases: [(u32, Result<u32, i32>, Build); 2] = [
            (8, Ok(0), |(file, _)| request::fsync(file)),
            (1, Ok(4), |(file, bytes)| request::read_at(file, bytes, 0)),
        ];
        let seen_late = |time: Duration, entries, build: Build| {
            let mut file = nameless_file();
            file.write_all(b"here").unwrap();
            let seen = Log::new();
            let log = seen.clone();
            let script = Script::new().on_completion(move |completion, data: Option<(File, [u8; 4])>, _| {
                match data {
                    Some(_) => log.push(told(&completion)),
                    // It takes longer than the other one may take.
                    None => thread::sleep(2 * time),
                }
                (ControlFlow::Continue, None)
            });
            let mut ring = Bench::with(entries, script);
            let mut submitter = ring.submitter(Bench::FIRST);
            submitter.submit(None, |_| request::nop()).unwrap();
            submitter
                .submit(Some((file, [0; 4])), |it| match it {
                    Some(it) => build(it).deadline(time),
                    None => request::nop(),
                })
                .unwrap();
            ring.run().unwrap();
            seen.take()
        };
        for (entries, result, build) in cases {
            let in_time = ENOUGH.into_iter().any(|time| seen_late(time, entries, build) == [(result, false)]);
            assert!(in_time, "with {entries} entries");
        }
    });
}

#[test]
fn thousands_of_deadlines_are_kept() {
    const COUNT: u32 = 4000;
    watched(|| {
        let seen = Log::new();
        let log = seen.clone();
        let script = Script::new().on_completion(move |completion, _: (), _| {
            log.push(told(&completion));
            (ControlFlow::Continue, None)
        });
        let mut ring = Bench::with(64, script);
        let mut submitter = ring.submitter(Bench::FIRST);
        for number in 0..COUNT {
            let time = Duration::from_micros((number * 7919 % COUNT).into());
            submitter.submit((), move |()| request::timeout(LATE).deadline(time)).unwrap();
            submitter.submit((), |()| request::nop().deadline(LATE)).unwrap();
        }
        ring.run().unwrap();
        let seen = seen.take();
        let count = |what| seen.iter().filter(|it| **it == what).count() as u32;
        assert_eq!((count((CANCELLED, true)), count((Ok(0), false))), (COUNT, COUNT));
    });
}

#[test]
fn what_has_passed_while_the_ring_was_busy_ends_all_at_once() {
    const COUNT: u32 = 50;
    watched(|| {
        let script = Script::new().on_completion(move |completion: Completion, _: (), _| {
            if !completion.timed_out() {
                thread::sleep(2 * COUNT * Duration::from_millis(1));
            }
            (ControlFlow::Continue, None)
        });
        let mut ring = Bench::with(64, script);
        let mut submitter = ring.submitter(Bench::FIRST);
        for number in 1..=COUNT {
            let time = number * Duration::from_millis(1);
            submitter.submit((), move |()| request::timeout(LATE).deadline(time)).unwrap();
        }
        submitter.submit((), |()| request::nop()).unwrap();
        ring.run().unwrap();
        assert!(ring.stats().enters < COUNT.into(), "{:?}", ring.stats());
    });
}

/// A kernel that sets no timers.
#[test]
fn a_ring_whose_alarms_are_refused_says_so() {
    in_child(|| {
        let enters = count_enters(|| {
            let opcodes = [opcode::PollAdd::CODE, opcode::AsyncCancel::CODE];
            let raw = restricted(&mut IoUring::builder(), 8, &opcodes, &[IORING_REGISTER_EVENTFD]);
            let told_of = Log::new();
            let log = told_of.clone();
            let script = Script::new().on_teardown(move |completion, _: OwnedFd, _| {
                log.push(told(&completion));
                Ok(())
            });
            let mut ring = Bench::builder(script, Script::new()).raw_ring(raw).build().unwrap();
            for _ in 0..3 {
                ring.submitter(Bench::FIRST)
                    .submit(UnixDatagram::unbound().unwrap().into(), |it: &mut OwnedFd| {
                        request::poll(it, Events::READABLE).deadline(LATE)
                    })
                    .unwrap();
                let error = ring.run().unwrap_err();
                let RingError::Api(cause) = &error else { panic!("{error}") };
                assert_eq!(cause.error.raw_os_error(), Some(libc::EACCES));
                assert_eq!(told_of.take(), [(CANCELLED, false)]);
            }
        });
        assert!(enters.calls < 100, "{enters:?}");
    });
}

/// A cancel does not find what waits in a chain, and is repeated after a pause; for which there are no timers here.
#[test]
fn a_ring_whose_alarms_are_refused_can_do_without_if_it_has_no_deadlines() {
    in_child(|| {
        let enters = count_enters(|| {
            let opcodes = [opcode::Recv::CODE, opcode::AsyncCancel::CODE];
            let raw = restricted(&mut IoUring::builder(), 8, &opcodes, &[]);
            let seen = Log::new();
            let log = seen.clone();
            let script = Script::new().on_completion(move |completion, _, _| {
                log.push(told(&completion));
                (ControlFlow::Continue, None)
            });
            let mut ring = Bench::builder(script, Script::new()).raw_ring(raw).build().unwrap();
            let ((first, first_peer), (second, second_peer)) =
                (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
            let mut submitter = ring.submitter(Bench::FIRST);
            let mut chain = submitter.chain();
            chain.link(Receive::new(first), |it| it.at_last()).unwrap();
            let waits = chain.submit(Receive::new(second), |it| it.at_last()).unwrap();
            assert!(submitter.cancel(waits));
            thread::spawn(move || {
                thread::sleep(20 * SOON);
                for mut peer in [first_peer, second_peer] {
                    peer.write_all(b"x").unwrap();
                }
            });
            ring.run().unwrap();
            assert_eq!(seen.take(), [(Ok(1), false), (Ok(1), false)]);
        });
        assert!(enters.calls < 100, "{enters:?}");
    });
}

#[test]
fn the_deadline_of_what_is_over_ends_nothing_that_comes_after_it() {
    let seen_with = |time: Duration| {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let seen = Log::new();
        let log = seen.clone();
        let mut waits = false;
        let script = Script::new().on_completion(move |completion, data, mut submitter| {
            log.push(told(&completion));
            if !std::mem::replace(&mut waits, true) {
                // In the same slot. The deadline of the one before passes, and this one goes on.
                submitter.submit(data, |it: &mut Receive| it.late()).unwrap();
                let theirs = theirs.try_clone().unwrap();
                thread::spawn(move || {
                    thread::sleep(2 * time);
                    (&theirs).write_all(b"x").unwrap();
                });
            }
            (ControlFlow::Continue, None)
        });
        let mut ring = Bench::with(8, script);
        ring.submitter(Bench::FIRST)
            .submit(Receive::new(ours), move |it| {
                request::shutdown(&it.socket, Shutdown::Write).deadline(time)
            })
            .unwrap();
        ring.run().unwrap();
        let seen = seen.take();
        assert_eq!(seen[1..], [(Ok(1), false)]);
        seen[0] == (Ok(0), false)
    };
    watched(move || assert!(ENOUGH.into_iter().any(seen_with), "it was never in time"));
}

#[test]
fn what_was_to_pass_in_one_run_ends_nothing_in_the_next() {
    watched(|| {
        let (mut ring, told_of) = noting(8, None);
        let ledger = Ledger::new();
        for time in [4 * SOON, LATE, SOON] {
            let (ours, _theirs) = UnixStream::pair().unwrap();
            let data = ledger.issue(Receive::new(ours));
            ring.submitter(Bench::FIRST).submit(data, |it| it.value.late()).unwrap();
            ring.turn().unwrap();
            // Its alarms stay with the kernel.
            ring.submitter(Bench::FIRST)
                .submit(ledger.issue(Receive::new(nobody())), move |_| request::timeout(LATE).deadline(time))
                .unwrap();
            ring.finish().unwrap();
            // The time of the second may have been up before the end.
            let results = told_of.take().into_iter().map(|(result, _)| result);
            assert!(results.eq([CANCELLED; 2]));
        }
        let data = ledger.issue(Receive::new(nobody()));
        ring.submitter(Bench::FIRST).submit(data, |_| request::timeout(10 * SOON).deadline(LATE)).unwrap();
        ring.run().unwrap();
        assert_eq!(told_of.take(), [(Ok(0), false)]);
        ledger.assert_all_dropped_once();
    });
}

fn nobody() -> UnixStream {
    UnixStream::pair().unwrap().0
}

#[test]
fn what_teardown_handlers_submit_has_deadlines_too() {
    watched(|| {
        let seen = Log::new();
        let log = seen.clone();
        let mut submitted = false;
        let script = Script::new()
            .on_setup(|mut submitter: BenchSubmitter<'_, ()>| {
                submitter.submit((), |()| request::timeout(LATE).deadline(LATE))?;
                submitter.submit((), |()| request::nop())?;
                Ok(())
            })
            .on_completion(|_, (), _| (ControlFlow::Exit, None))
            .on_teardown(move |completion, (), mut submitter| {
                log.push(told(&completion));
                if !std::mem::replace(&mut submitted, true) {
                    submitter.submit((), |()| request::timeout(LATE).deadline(SOON))?;
                }
                Ok(())
            });
        // Nothing else would end it.
        let builder = Bench::builder(script, Script::new()).grace(LATE);
        builder.build().unwrap().run().unwrap();
        assert_eq!(seen.take(), [(CANCELLED, false), (CANCELLED, true)]);
    });
}

#[test]
fn a_deadline_wakes_who_waits_for_the_descriptor_of_a_turned_ring() {
    watched(|| {
        let (mut ring, told_of) = noting(8, None);
        let ledger = Ledger::new();
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let data = ledger.issue(Receive::new(ours));
        ring.submitter(Bench::FIRST).submit(data, |it| it.value.soon()).unwrap();
        while told_of.is_empty() {
            let wait = ring.turn().unwrap().call_again_in;
            let wait = wait.map_or(PollTimeout::NONE, |wait| wait.try_into().unwrap());
            poll(&mut [PollFd::new(ring.as_fd(), PollFlags::POLLIN)], wait).unwrap();
        }
        assert_eq!(told_of.take(), [(CANCELLED, true)]);
        ledger.assert_all_dropped_once();
    });
}

#[test]
fn a_forged_part_of_a_timed_request_closes_nothing_twice() {
    in_child(|| {
        let before = open_descriptors();
        {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let (raw, target) = addressable(8);
            let seen = Log::new();
            let log = seen.clone();
            let script = Script::new().on_completion(move |completion: Completion, _: TcpListener, _| {
                log.push(completion.into_fd().unwrap());
                (ControlFlow::Continue, None)
            });
            let mut ring = Bench::builder(script, Script::new()).raw_ring(raw).build().unwrap();
            let mut submitter = ring.submitter(Bench::FIRST);
            // Only in a chain, the kernel has a timer for a deadline, and the request waits for its end.
            let key = submitter.chain().submit(listener, |it| request::accept(it).deadline(LATE)).unwrap();
            ring.turn().unwrap();
            // The ring believes this to be one more result, with a descriptor that the kernel gave away.
            let (given, _other) = pipe();
            forge(target, key.user_data(), given.into_raw_fd(), Some(F_MORE));
            ring.turn().unwrap();
            let client = TcpStream::connect(address).unwrap();
            ring.run().unwrap();
            let [told] = &seen.take()[..] else { panic!("told once") };
            assert!(told.try_clone().is_ok(), "nobody has closed it");
            drop(client);
        }
        assert_eq!(open_descriptors(), before);
    });
}
