//! Requests on files, names and sockets, as the simulated kernel does them, compared with what std says of the same.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use rummelplatz::request::{Advice, Allocate, CWD, Peer, Rename, RwFlags, Statx};
use rummelplatz::sim::{Answer, Faults, Simulation};
use rummelplatz::{Completion, ControlFlow, RawRing, Request, request};
use rummelplatz_tests::{
    Bench, Directory, Log, PATIENCE, Script, anywhere, complete_on, direct, options, outcome, pipe, pipes,
    soon, tcp_pair, watched,
};

/// Runs one request under a kernel in which requests on files take some time.
fn complete<D: Send + 'static>(
    data: D,
    build: impl for<'d> FnOnce(&'d mut D) -> Request<'d>,
) -> (Completion, D) {
    complete_on(slow(), data, build)
}

/// A ring on a kernel in which requests on files take some time.
fn slow() -> RawRing {
    let simulation = Simulation::new(1);
    simulation.set_faults(Faults { running: 0.5, delay: 0.5, ..Faults::none() });
    // What it waits for may be up to another thread or a child.
    simulation.set_patience(PATIENCE);
    simulation.raw_ring(NonZeroU32::new(4).unwrap()).unwrap()
}

fn once<D: Send + 'static>(
    data: D,
    build: impl for<'d> FnOnce(&'d mut D) -> Request<'d>,
) -> (Result<u32, i32>, D) {
    let (completion, data) = complete(data, build);
    (outcome(&completion), data)
}

#[test]
fn names_come_and_go() {
    watched(|| {
        let there = Directory::new("sim-names");
        there.file("one", b"first");
        let names =
            |one: &str, other: &str| (there.open(), CString::new(one).unwrap(), CString::new(other).unwrap());
        let (done, there) = (Ok(0), &there);
        let linked = once(names("one", "two"), |(at, from, to)| request::linkat(at, from, at, to)).0;
        assert_eq!((linked, there.read("two")), (done, Some(b"first".to_vec())));
        let linked = once(names("one", "three"), |(at, from, to)| request::symlinkat(from, at, to)).0;
        assert_eq!((linked, fs::read_link(there.path("three")).unwrap()), (done, "one".into()));
        there.file("other", b"second");
        let rename = |how| {
            once(names("other", "two"), move |(at, from, to)| request::renameat(at, from, at, to, how)).0
        };
        assert_eq!(rename(Rename::NoReplace), Err(libc::EEXIST));
        assert_eq!((rename(Rename::Exchange), there.read("two")), (done, Some(b"second".to_vec())));
        assert_eq!((rename(Rename::Replace), there.read("other")), (done, None));
        let removed = once((CWD, there.c_path("two")), |(at, path)| request::unlinkat(at, path)).0;
        assert_eq!((removed, there.read("two")), (done, None));
        let made = once((CWD, there.c_path("below")), |(at, path)| request::mkdirat(at, path, 0o500)).0;
        let mode = fs::metadata(there.path("below")).unwrap().permissions().mode();
        assert_eq!((made, mode & 0o777), (done, 0o500));
        let statx = (CWD, there.c_path("below"), Statx::new());
        let (known, (.., statx)) = once(statx, |(at, path, statx)| request::statx(at, path, statx));
        assert_eq!((known, statx.is_dir(), statx.mode()), (done, true, mode));
        assert_eq!(once((CWD, there.c_path("below")), |(at, path)| request::rmdirat(at, path)).0, done);
        let gone = (CWD, there.c_path("below"), Statx::new());
        assert_eq!(once(gone, |(at, path, statx)| request::statx(at, path, statx)).0, Err(libc::ENOENT));
    });
}

#[test]
fn a_path_leads_only_where_it_may() {
    watched(|| anywhere::a_path_leads_only_where_it_may(slow));
}

#[test]
fn a_file_has_room_and_several_buffers_are_written_and_read() {
    watched(|| {
        let there = Directory::new("sim-room");
        there.file("file", b"");
        let mut file = OpenOptions::new().read(true).write(true).open(there.path("file")).unwrap();
        let open = || file.try_clone().unwrap();
        assert_eq!(once(open(), |file| request::fallocate(file, Allocate::Extend, 0, 100)).0, Ok(0));
        assert_eq!(there.read("file").unwrap().len(), 100);
        assert_eq!(once(open(), |file| request::ftruncate(file, 5)).0, Ok(0));
        assert_eq!(once(open(), |file| request::fadvise(file, Advice::DontNeed, 0, 0)).0, Ok(0));
        let data = (open(), *b"head ", vec![b'x'; 3]);
        let (wrote, _) = once(data, |(file, head, body)| request::writev_at(file, [&*head, body], 2));
        assert_eq!((wrote, there.read("file").unwrap()), (Ok(8), b"\0\0head xxx".to_vec()));
        let (read, (_, parts)) = once((open(), [[0; 3]; 6]), |(file, parts)| {
            request::readv_at(file, parts.each_mut().map(|part| &mut part[..]), 1)
        });
        assert_eq!((read, &parts.concat()[..9]), (Ok(9), &b"\0head xxx"[..]));
        file.rewind().unwrap();
        let (read, (_, bytes)) = once((file, [1; 4]), |(file, bytes)| request::readv(file, [bytes]));
        assert_eq!((read, bytes), (Ok(4), *b"\0\0he"));

        // More pieces than the kernel takes.
        let bytes: Vec<u8> = (0..2500_u16).map(|number| number as u8).collect();
        let kept: Vec<u8> = bytes.iter().copied().step_by(2).take(1024).collect();
        let file = there.path("file");
        let data = (OpenOptions::new().write(true).open(&file).unwrap(), bytes);
        let (wrote, _) = once(data, |(file, bytes)| {
            request::write_vectored_at(file, bytes.chunks(2).map(|two| &two[..1]), 0)
        });
        assert_eq!((wrote, fs::read(file).unwrap()), (Ok(1024), kept));

        // More than a pipe takes at once, and nobody reads meanwhile.
        let (reader, writer) = pipe();
        let (wrote, _) =
            once((writer, vec![7; 3000]), |(pipe, bytes)| request::writev(pipe, [bytes.as_slice(), bytes]));
        assert_eq!(wrote, Ok(4096));
        let mut bytes = Vec::new();
        File::from(reader).read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, [7; 4096]);
    });
}

#[test]
fn reads_and_writes_are_done_as_their_flags_say() {
    watched(|| {
        let there = Directory::new("sim-rw-flags");
        there.file("file", b"0123");
        let file = || OpenOptions::new().read(true).write(true).open(there.path("file")).unwrap();
        let (wrote, _) = once((file(), *b"ab"), |(file, bytes)| {
            request::write_at(file, bytes, 0).rw_flags(RwFlags::APPEND | RwFlags::DSYNC)
        });
        assert_eq!((wrote, there.read("file").unwrap()), (Ok(2), b"0123ab".to_vec()));
        let (wrote, _) = once((file(), *b"c", *b"d"), |(file, one, other)| {
            request::writev_at(file, [one, other], 0).rw_flags(RwFlags::APPEND)
        });
        assert_eq!((wrote, there.read("file").unwrap()), (Ok(2), b"0123abcd".to_vec()));
        let (read, (_, bytes)) = once((file(), [0; 3]), |(file, bytes)| {
            request::read_at(file, bytes, 4).rw_flags(RwFlags::NOWAIT).in_worker()
        });
        assert!(matches!((read, &bytes), (Ok(3), b"abc") | (Err(libc::EAGAIN), _)), "{read:?}");
        let (reader, writer) = pipe();
        let nothing = once((reader, writer, [0; 3]), |(reader, _, bytes)| {
            request::read(reader, bytes).rw_flags(RwFlags::NOWAIT)
        });
        assert_eq!(nothing.0, Err(libc::EAGAIN));
        let nothing = once((pipe(), [0; 3]), |(pipe, bytes)| {
            request::readv(&pipe.0, [bytes]).rw_flags(RwFlags::NOWAIT)
        });
        assert_eq!(nothing.0, Err(libc::EAGAIN));
    });
}

#[test]
fn a_child_is_waited_for_and_says_how_it_has_ended() {
    watched(|| anywhere::a_child_is_waited_for_and_says_how_it_has_ended(slow));
}

#[test]
fn who_waits_for_a_word_is_woken_or_finds_another_value() {
    watched(|| anywhere::who_waits_for_a_word_is_woken_or_finds_another_value(slow));
}

#[test]
fn the_chain_of_a_wait_for_a_word_goes_on_if_it_is_cancelled_but_not_if_there_is_nothing_to_wait_for() {
    watched(|| {
        for (expected, ends) in
            [(5, (Err(libc::ECANCELED), Ok(0))), (4, (Err(libc::EAGAIN), Err(libc::ECANCELED)))]
        {
            let seen = Log::new();
            let log = seen.clone();
            let script = Script::new()
                .on_setup_once(move |mut submitter| {
                    let mut chain = submitter.chain();
                    chain
                        .link((1, AtomicU32::new(5)), move |(_, word)| request::futex_wait(word, expected))?;
                    chain.submit((2, AtomicU32::new(0)), |_| request::nop())?;
                    Ok(())
                })
                .on_completion(move |completion, (number, _), _| {
                    log.push((number, outcome(&completion)));
                    (ControlFlow::Continue, None)
                });
            let simulation = Simulation::new(1);
            let raw = simulation.raw_ring(NonZeroU32::new(4).unwrap()).unwrap();
            let mut ring = Bench::builder(script, Script::new()).raw_ring(raw).build().unwrap();
            ring.turn().unwrap();
            ring.submitter(Bench::FIRST).cancel_all();
            ring.run().unwrap();
            let mut seen = seen.take();
            seen.sort();
            assert_eq!(seen, [(1, ends.0), (2, ends.1)]);
        }
    });
}

#[test]
fn each_wait_for_a_word_ends_once_whatever_goes_wrong() {
    watched(|| {
        let wait: fn(&mut Arc<AtomicU32>) -> Request<'_> = |word| request::futex_wait(word, 0);
        for seed in 0..200 {
            let word = Arc::new(AtomicU32::new(0));
            let ended = Log::new();
            let log = ended.clone();
            let script = Script::new()
                .on_setup_once(move |mut submitter| {
                    for _ in 0..5 {
                        submitter.submit(word.clone(), wait)?;
                    }
                    // When nothing goes on any more, these are cancelled; and others are woken, or come too late.
                    submitter.submit(word, |_| request::timeout(Duration::from_millis(20)))?;
                    Ok(())
                })
                .on_completion(move |completion, word: Arc<AtomicU32>, mut submitter| {
                    log.push(outcome(&completion));
                    if log.len() == 1 {
                        submitter.cancel_all();
                        submitter.submit(word.clone(), wait).unwrap();
                        submitter.submit(word.clone(), wait).unwrap();
                        word.store(1, Ordering::Release);
                        submitter.submit(word, |word| request::futex_wake(word, u32::MAX)).unwrap();
                    }
                    (ControlFlow::Continue, None)
                });
            let raw = Simulation::new(seed).raw_ring(NonZeroU32::new(4).unwrap()).unwrap();
            let mut ring = Bench::builder(script, Script::new()).raw_ring(raw).build().unwrap();
            ring.run().unwrap();
            let ended = ended.take();
            assert_eq!((ended.len(), ended[0]), (9, Ok(0)), "{seed}: {ended:?}");
            let is_an_end = |result: &Result<u32, i32>| match result {
                Ok(woken) => *woken <= 2,
                Err(errno) => [libc::EAGAIN, libc::ECANCELED, libc::EINTR].contains(errno),
            };
            assert!(ended.iter().all(is_an_end), "{seed}: {ended:?}");
            assert_eq!(ring.stats().in_flight, 0);
        }
    });
}

#[test]
fn a_word_that_the_other_side_changes_ends_the_wait_for_it() {
    watched(|| {
        let simulation = Simulation::new(1);
        let word = Arc::new(AtomicU32::new(0));
        let changed = word.clone();
        simulation.on_idle(move || changed.swap(1, Ordering::Release) == 0);
        let raw = simulation.raw_ring(NonZeroU32::MIN).unwrap();
        let (completion, _) = complete_on(raw, word.clone(), |word| request::futex_wait(word, 0));
        assert_eq!(outcome(&completion), Ok(0));
        // Nobody changes it any more.
        let script = Script::new().on_setup_once(move |mut submitter| {
            submitter.submit(word, |word| request::futex_wait(word, 1))?;
            Ok(())
        });
        let raw = Simulation::new(1).raw_ring(NonZeroU32::MIN).unwrap();
        let mut ring = Bench::builder(script, Script::new()).raw_ring(raw).build().unwrap();
        let error = ring.run().unwrap_err().to_string();
        assert!(error.contains("deadlock"), "{error}");
    });
}

#[test]
fn attributes_are_set_and_read() {
    watched(|| anywhere::attributes_are_set_and_read(slow));
}

#[test]
fn pipes_are_copied_and_ranges_written_back() {
    watched(|| anywhere::pipes_are_copied_and_ranges_written_back(slow));
}

#[test]
fn a_datagram_says_where_it_came_from_and_goes_where_it_is_sent() {
    watched(|| {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(ours) = UdpSocket::bind(address) else { continue };
            let theirs = UdpSocket::bind(address).unwrap();
            let (here, there) = (ours.local_addr().unwrap(), theirs.local_addr().unwrap());
            theirs.send_to(b"longer than the buffer", here).unwrap();
            let (result, (ours, bytes, peer)) = once((ours, [0; 6], Peer::new()), |(socket, bytes, peer)| {
                request::recv_from(socket, bytes, peer)
            });
            assert_eq!((result, bytes, peer.address()), (Ok(6), *b"longer", Some(there)));
            let (result, _) = once((ours, bytes, peer), |(socket, bytes, peer)| {
                request::send_to(socket, &bytes[..4], peer.address().unwrap())
            });
            let mut answer = [0; 10];
            let (length, sender) = theirs.recv_from(&mut answer).unwrap();
            assert_eq!((result, &answer[..length], sender), (Ok(4), &b"long"[..], here));
        }
        let file = File::open("/dev/null").unwrap();
        let (result, _) =
            once((file, [0; 1], Peer::new()), |(file, bytes, peer)| request::recv_from(file, bytes, peer));
        assert_eq!(result, Err(libc::ENOTSOCK));
    });
}

#[test]
fn a_connection_says_where_it_comes_from() {
    watched(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let accept = |(listener, peer): (TcpListener, Peer)| {
            complete((listener, peer), |(listener, peer)| request::accept_from(listener, peer))
        };
        let (completion, (_, peer)) = accept((listener, Peer::new()));
        assert_eq!((outcome(&completion), peer.address()), (Ok(0), client.local_addr().ok()));

        // If the connection is made up by the test, it is from nobody.
        let simulation = Simulation::new(0);
        simulation.on_request(|_| Answer::Descriptor(File::open("/dev/null").unwrap().into()));
        let raw = simulation.raw_ring(NonZeroU32::MIN).unwrap();
        let data = (TcpListener::bind("127.0.0.1:0").unwrap(), peer);
        let (completion, (_, peer)) =
            complete_on(raw, data, |(listener, peer)| request::accept_from(listener, peer));
        assert!(completion.into_fd().is_ok() && peer.address().is_none());
    });
}

#[test]
fn pieces_are_sent_in_their_order_whole_if_nobody_waits() {
    watched(|| {
        for count in [0, 1, 4, 5, 1024, 1025] {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            let bytes: Vec<u8> = (0..3 * count).map(|number| (number % 251) as u8).collect();
            let (result, (ours, bytes)) =
                once((ours, bytes), |(socket, bytes)| request::send_vectored(socket, bytes.rchunks(3)));
            let sent = 3 * count.min(1024);
            assert_eq!(result, Ok(sent as u32), "of {count} pieces");
            drop(ours);
            let mut received = Vec::new();
            theirs.read_to_end(&mut received).unwrap();
            let backwards: Vec<u8> = bytes.rchunks(3).flatten().copied().collect();
            assert!(received == backwards[..sent], "of {count} pieces");
        }
        let bytes: Vec<u8> = (0..1 << 20).map(|number: u32| (number % 251) as u8).collect();
        for seed in 0..20 {
            let simulation = Simulation::new(seed);
            simulation.set_faults(Faults { short: 0.9, delay: 0.5, ..Faults::none() });
            let (ours, theirs) = UnixStream::pair().unwrap();
            theirs.set_nonblocking(true).unwrap();
            let received = Log::new();
            let log = received.clone();
            // The other side reads when there is no room for more.
            simulation.on_idle(move || {
                let mut bytes = vec![0; 10_000];
                let Ok(length @ 1..) = (&theirs).read(&mut bytes) else { return false };
                bytes.truncate(length);
                log.push(bytes);
                true
            });
            let sent = bytes.clone();
            let script = Script::new().on_setup_once(move |mut submitter| {
                submitter.detach((ours, sent), |(socket, bytes)| {
                    request::send_vectored(socket, bytes.chunks(99_999))
                })?;
                Ok(())
            });
            let raw = simulation.raw_ring(NonZeroU32::new(4).unwrap()).unwrap();
            let mut ring = Bench::builder(script, Script::new()).raw_ring(raw).build().unwrap();
            ring.run().unwrap();
            assert_eq!((ring.stats().in_flight, ring.stats().detached_failed), (0, 0));
            let received = received.take().concat();
            assert!(received == bytes[..received.len()] && bytes.len() - received.len() < 300_000);
        }
    });
}

#[test]
fn pieces_that_are_not_copied_are_sent_in_their_order_and_have_one_completion() {
    watched(|| {
        for (count, whole, expected) in [
            (0, false, Ok(0)),
            (4, false, Ok(12)),
            (5, true, Ok(15)),
            (1025, false, Ok(3072)),
            // Refused, and notified of all the same.
            (1025, true, Err(libc::EMSGSIZE)),
        ] {
            let (mut theirs, ours) = tcp_pair();
            let bytes: Vec<u8> = (0..3 * count).map(|number| (number % 251) as u8).collect();
            let (result, (ours, bytes)) = once((ours, bytes), move |(socket, bytes)| {
                let request = request::send_vectored_zc(socket, bytes.rchunks(3));
                if whole { request.whole() } else { request }
            });
            assert_eq!(result, expected, "of {count} pieces");
            drop(ours);
            let mut received = Vec::new();
            theirs.read_to_end(&mut received).unwrap();
            let backwards: Vec<u8> = bytes.rchunks(3).flatten().copied().collect();
            assert!(received == backwards[..expected.unwrap_or(0) as usize], "of {count} pieces");
        }
        let (ours, theirs) =
            (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        let (here, there) = (ours.local_addr().unwrap(), theirs.local_addr().unwrap());
        let (result, _) =
            once((ours, *b"long"), move |(socket, bytes)| request::send_to_zc(socket, bytes, there));
        let mut received = [0; 10];
        let (length, sender) = theirs.recv_from(&mut received).unwrap();
        assert_eq!((result, &received[..length], sender), (Ok(4), &b"long"[..], here));
    });
}

#[test]
fn what_is_linked_to_a_send_goes_on_if_all_of_it_was_sent() {
    type Pair = (u32, Arc<(TcpStream, TcpStream)>);
    type Build = for<'d> fn(&'d mut Pair) -> Request<'d>;
    watched(|| {
        let sends: [Build; 4] = [
            |(_, pair)| request::send(&pair.0, b"hello"),
            |(_, pair)| request::send_vectored(&pair.0, [&b"hello"[..], b"there"]),
            |(_, pair)| request::send_zc(&pair.0, b"hello"),
            |(_, pair)| request::send_vectored_zc(&pair.0, [&b"hello"[..], b"there"]),
        ];
        for (is_simulated, send, fails) in (0..16).map(|case| (case < 8, sends[case % 4], case % 8 >= 4)) {
            let seen = Log::new();
            let log = seen.clone();
            let script = Script::new().on_completion(move |completion, (number, _): Pair, _| {
                log.push((number, outcome(&completion)));
                (ControlFlow::Continue, None)
            });
            let simulation = Simulation::new(1);
            simulation.set_faults(Faults { delay: 0.5, ..Faults::none() });
            let entries = NonZeroU32::new(4).unwrap();
            let raw = match is_simulated {
                true => simulation.raw_ring(entries).unwrap(),
                false => RawRing::new(entries).unwrap(),
            };
            let mut ring = Bench::builder(script, Script::new()).raw_ring(raw).build().unwrap();
            let pair = Arc::new(tcp_pair());
            if fails {
                pair.0.shutdown(Shutdown::Write).unwrap();
            }
            let mut submitter = ring.submitter(Bench::FIRST);
            let mut chain = submitter.chain();
            chain.link((1, pair.clone()), send).unwrap();
            chain.submit((2, pair), |_| request::nop()).unwrap();
            ring.run().unwrap();
            let mut seen = seen.take();
            seen.sort();
            let next = if fails { Err(libc::ECANCELED) } else { Ok(0) };
            assert_eq!((seen[0].1.is_err(), seen[1]), (fails, (2, next)), "{is_simulated}: {seen:?}");
        }
    });
}

#[test]
fn what_is_linked_to_a_vector_goes_on_if_it_was_moved_whole() {
    type Data = (u32, Arc<File>, [[u8; 3]; 2]);
    watched(|| {
        let there = Directory::new("sim-chain");
        there.file("file", b"01234567");
        for (is_simulated, offset) in [(true, 0), (false, 0), (true, 5), (false, 5)] {
            let seen = Log::new();
            let log = seen.clone();
            let script = Script::new().on_completion(move |completion, (number, ..): Data, _| {
                log.push((number, outcome(&completion)));
                (ControlFlow::Continue, None)
            });
            let raw = if is_simulated { slow() } else { RawRing::new(NonZeroU32::new(4).unwrap()).unwrap() };
            let mut ring = Bench::builder(script, Script::new()).raw_ring(raw).build().unwrap();
            let file = Arc::new(File::open(there.path("file")).unwrap());
            let mut submitter = ring.submitter(Bench::FIRST);
            let mut chain = submitter.chain();
            let data = (1, file.clone(), [[0; 3]; 2]);
            chain
                .link(data, move |(_, file, [one, other])| {
                    request::read_vectored_at(&**file, [&mut other[..], one], offset)
                })
                .unwrap();
            chain.submit((2, file, [[0; 3]; 2]), |_| request::nop()).unwrap();
            ring.run().unwrap();
            let mut seen = seen.take();
            seen.sort();
            let expected =
                if offset == 0 { [(1, Ok(6)), (2, Ok(0))] } else { [(1, Ok(3)), (2, Err(libc::ECANCELED))] };
            assert_eq!(seen, expected, "{is_simulated}");
        }
    });
}

#[test]
fn a_server_is_made_of_requests() {
    watched(|| {
        let (completion, ()) = complete((), |()| request::socket(libc::AF_INET, libc::SOCK_STREAM, 0));
        let socket: OwnedFd = completion.into_fd().unwrap();
        let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let (bound, socket) = once(socket, move |socket| request::bind(socket, anywhere));
        assert_eq!(bound, Ok(0));
        let (listens, socket) = once(socket, |socket| request::listen(socket, 5));
        assert_eq!(listens, Ok(0));
        let listener = TcpListener::from(socket);
        TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert_eq!(once(listener, move |socket| request::bind(socket, anywhere)).0, Err(libc::EINVAL));
        let refused = complete((), |()| request::socket(-1, libc::SOCK_STREAM, 0)).0;
        assert_eq!(outcome(&refused), Err(libc::EAFNOSUPPORT));
    });
}

#[test]
fn options_are_set_as_the_system_call_sets_them() {
    watched(|| options::options_are_set_as_the_system_call_sets_them(slow));
}

#[test]
fn a_socket_says_what_it_is_and_what_went_wrong() {
    watched(|| options::a_socket_says_what_it_is_and_what_went_wrong(slow));
}

#[test]
fn a_socket_says_how_much_is_in_its_queues() {
    watched(|| options::a_socket_says_how_much_is_in_its_queues(slow));
}

#[test]
fn a_direct_descriptor_has_options() {
    watched(|| options::a_direct_descriptor_has_options(slow));
}

#[test]
fn a_pipe_has_two_ends_until_they_are_taken() {
    watched(|| pipes::a_pipe_has_two_ends_until_they_are_taken(slow));
}

#[test]
fn a_pipe_that_was_never_begun_has_no_ends() {
    watched(|| pipes::a_pipe_that_was_never_begun_has_no_ends(slow));
}

#[test]
fn a_set_tells_what_has_happened_to_its_files() {
    watched(|| pipes::a_set_tells_what_has_happened_to_its_files(slow));
}

#[test]
fn direct_connections_are_served_and_closed_when_they_are_left() {
    watched(|| direct::connections_are_served_and_closed_when_they_are_left(slow));
}

#[test]
fn a_full_table_closes_the_connection_and_has_room_again_when_one_is_left() {
    watched(|| direct::a_full_table_closes_the_connection_and_has_room_again_when_one_is_left(slow));
}

#[test]
fn a_full_table_takes_no_place_that_is_for_registered_files() {
    watched(|| direct::a_full_table_takes_no_place_that_is_for_registered_files(slow));
}

#[test]
fn files_are_opened_in_the_table_and_may_get_a_descriptor() {
    watched(|| direct::files_are_opened_in_the_table_and_may_get_a_descriptor(slow));
}

#[test]
fn without_places_there_are_no_direct_descriptors() {
    watched(|| direct::without_places_there_are_no_direct_descriptors(slow));
}

#[test]
fn what_is_held_beyond_the_run_names_nothing() {
    watched(|| direct::what_is_held_beyond_the_run_names_nothing(slow));
}

#[test]
fn a_direct_descriptor_can_be_the_answer() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let simulation = Simulation::new(1);
    let mut answer = Some(OwnedFd::from(theirs));
    simulation.on_request(move |asked| match asked.is_direct() {
        true => answer.take().map_or(Answer::Perform, Answer::Descriptor),
        false => Answer::Perform,
    });
    let raw = simulation.raw_ring(NonZeroU32::new(4).unwrap()).unwrap();
    let script = Script::new()
        .on_setup_once(|mut submitter| {
            submitter.submit(direct::Work::Socket, direct::Work::request)?;
            Ok(())
        })
        .on_completion(|completion, work, mut submitter| {
            if let direct::Work::Socket = work {
                let file = completion.into_fixed_file().unwrap();
                submitter.submit(direct::Work::Send(file, b"x".to_vec()), direct::Work::request).unwrap();
            }
            (ControlFlow::Continue, None)
        });
    direct::bench(raw, 1, script).run().unwrap();
    let mut heard = Vec::new();
    { &ours }.read_to_end(&mut heard).unwrap();
    assert_eq!(heard, b"x");
}

#[test]
fn after_a_panic_what_nobody_holds_is_closed_before_the_ring_waits() {
    // No cancel finds the pause before it has begun.
    let simulation = Simulation::new(1);
    simulation.set_faults(Faults { late: 1.0, ..Faults::none() });
    let (listener, clients) = direct::connections(1);
    let (seen, has_panicked) = (Log::new(), Arc::new(AtomicBool::new(false)));
    let (log, panicked) = (seen.clone(), Arc::clone(&has_panicked));
    simulation.on_idle(move || {
        if panicked.load(Ordering::Relaxed) {
            log.push(soon(|| direct::is_closed(&clients[0])));
        }
        false
    });
    let script = Script::new()
        .on_setup_once(move |mut submitter| {
            submitter.submit(direct::Work::Accept(listener), direct::Work::request)?;
            Ok(())
        })
        .on_completion(move |completion, _: direct::Work, mut submitter| {
            let _socket = completion.into_fixed_file().unwrap();
            submitter.submit(direct::Work::Pause(Vec::new()), direct::Work::request).unwrap();
            has_panicked.store(true, Ordering::Relaxed);
            resume_unwind(Box::new("on purpose"))
        });
    let raw = simulation.raw_ring(NonZeroU32::new(8).unwrap()).unwrap();
    let mut ring = direct::bench(raw, 1, script);
    catch_unwind(AssertUnwindSafe(|| ring.run())).unwrap_err();
    let seen = seen.take();
    assert!(!seen.is_empty() && seen.iter().all(|is_closed| *is_closed), "{seen:?}");
}
