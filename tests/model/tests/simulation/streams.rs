//! Timers and streams.

use super::*;
use rummelplatz_tests::{turn_until, with_byte};

#[test]
fn time_costs_no_time() {
    let simulation = calm();
    let began = Instant::now();
    let day = Duration::from_secs(86_400);
    let before = Arc::new(Mutex::new(Duration::ZERO));
    let (time, kernel) = (Arc::clone(&before), simulation.clone());
    simulation.on_request(move |asked| {
        // The hook may ask what time it is.
        if asked.name() == "NOP" {
            *time.lock().unwrap() = kernel.now();
        }
        Answer::Perform
    });
    let order = Log::new();
    let seen = order.clone();
    let mut ring = on(
        &simulation,
        Script::<u64>::new()
            .on_setup(|mut submitter| {
                submitter.submit(0, |_| request::nop())?;
                for days in [3, 1, 2] {
                    let time = Duration::from_secs(86_400 * days);
                    submitter.submit(days, move |_| request::timeout(time))?;
                }
                Ok(())
            })
            .on_completion(move |completion, days, _| {
                seen.push((days, outcome(&completion)));
                (GO_ON, None)
            }),
    );
    ring.run().unwrap();
    assert_eq!(order.take(), [(0, Ok(0)), (1, Ok(0)), (2, Ok(0)), (3, Ok(0))]);
    let took = simulation.now() - *before.lock().unwrap();
    assert!((3 * day..3 * day + Duration::from_secs(1)).contains(&took), "{took:?}");
    assert!(began.elapsed() < Duration::from_secs(60));
}

#[test]
fn absolute_times_are_those_of_the_real_clocks() {
    let simulation = calm();
    let asking = Asking::<()> {
        data: (),
        request: |()| request::timeout_at(Instant::now() + Duration::from_secs(3600)),
    };
    assert_eq!(ask_on(simulation.raw_ring(size(8)).unwrap(), asking).0, Ok(0));
    let asking = Asking::<()> {
        data: (),
        request: |()| request::timeout_at_time(std::time::SystemTime::now() + Duration::from_secs(3600)),
    };
    assert_eq!(ask_on(simulation.raw_ring(size(8)).unwrap(), asking).0, Ok(0));
}

#[test]
fn a_patient_stream_goes_on_though_the_kernel_cuts_it_with_a_place_of_the_table_that_is_not_its_own() {
    let simulation = simulation(1, Faults { cut: 1.0, ..Faults::none() });
    let there = Directory::new("patient");
    let path = there.path("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let connect = || UnixStream::connect(&path).unwrap();
    let (_first, second) = (connect(), connect());
    let other = second.try_clone().unwrap();
    let told = Log::new();
    let (log, mut kept) = (told.clone(), None);
    let script = Script::new().on_completion(move |completion, listener, mut submitter| {
        log.push((completion.more(), outcome(&completion)));
        let goes_on = completion.more().then_some(listener);
        if let Ok(file) = completion.into_fixed_file() {
            kept = Some(file);
            // Their places are empty again, and the kernel has seen them last: it takes one of them next.
            let mut register = || submitter.register_file(&other).unwrap();
            for file in [register(), register()] {
                submitter.unregister_file(file).unwrap();
            }
        }
        assert!(kept.is_some());
        (GO_ON, goes_on)
    });
    let builder = Bench::builder(script, Script::new()).raw_ring(simulation.raw_ring(size(8)).unwrap());
    let mut ring = builder.direct_descriptors(NonZeroU32::MIN).build().unwrap();
    let mut submitter = ring.submitter(Bench::FIRST);
    submitter
        .stream(listener, |it| request::accept_multi_direct(it).retry_after(Duration::from_millis(1)))
        .unwrap();
    turn_until!(ring, told.len() == 2);
    assert_eq!(told.take(), [(true, Ok(0)), (true, Err(libc::ENFILE))]);
    let _third = connect();
    turn_until!(ring, told.len() == 1);
    ring.finish().unwrap();
}

#[test]
fn timers_go_on_as_often_as_they_are_to() {
    fn thrice(_: &mut ()) -> Stream<'_> {
        request::timeout_multi_times(Duration::from_millis(1), size(3))
    }
    let expected = [(Ok(0), true), (Ok(0), true), (Ok(0), false)];
    assert_eq!(stream_on(calm().raw_ring(size(8)).unwrap(), (), thrice, 9).0, expected);
    if let Ok(raw) = RawRing::new(size(8)) {
        assert_eq!(stream_on(raw, (), thrice, 9).0, expected);
    }
    fn for_ever(_: &mut ()) -> Stream<'_> {
        request::timeout_multi(Duration::from_secs(3600))
    }
    let (told, _) = stream_on(calm().raw_ring(size(8)).unwrap(), (), for_ever, 100);
    assert_eq!(told, [(Ok(0), true); 100]);
}

#[test]
fn connections_come_as_a_stream() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let clients: Vec<_> = (0..3).map(|_| TcpStream::connect(address).unwrap()).collect();
    fn accept(listener: &mut TcpListener) -> Stream<'_> {
        request::accept_multi(listener)
    }
    let (told, _) = stream_on(calm().raw_ring(size(8)).unwrap(), listener, accept, 3);
    assert_eq!(told, [(Ok(0), true); 3]);
    drop(clients);
}

#[test]
fn a_stream_that_its_handler_ends_is_cancelled_once_whatever_it_has_told_by_then() {
    type Ends = fn(&mut BenchSubmitter<'_, TcpListener>) -> bool;
    let ways: [Ends; 3] =
        [|submitter| submitter.end_stream(), |submitter| submitter.cancel_all() == 1, |_| false];
    for ends in ways {
        let simulation = calm();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let clients: Vec<_> = (0..4).map(|_| TcpStream::connect(address).unwrap()).collect();
        let log = Log::new();
        let seen = log.clone();
        let mut is_ended = false;
        let script = Script::new()
            .on_setup_once(move |mut submitter| {
                submitter.stream(listener, |listener| request::accept_multi(listener))?;
                Ok(())
            })
            .on_completion(move |completion, listener, mut submitter| {
                seen.push(completion.more());
                let returns_data = std::mem::replace(&mut is_ended, true) || ends(&mut submitter);
                (GO_ON, (completion.more() && returns_data).then_some(listener))
            });
        let mut ring = on(&simulation, script);
        simulation.take_log();
        ring.run().unwrap();
        let is_cancel = |event: &Event| matches!(event, Event::TakenIn(it) if it.name() == "ASYNC_CANCEL");
        let cancels = simulation.take_log().iter().filter(|event| is_cancel(event)).count();
        let told = log.take();
        assert_eq!(cancels, 1, "{told:?}");
        // If anybody is told of it, more than one came at once.
        assert!(told == [true] || told.ends_with(&[true, true, false]), "{told:?}");
        drop(clients);
    }
}

/// A socket whose number becomes that of another file.
/// What is received from a socket by a stream that is paused whenever it brings something, and resumed after a while;
/// how often that was, and which entries were taken in, by name and `user_data`.
fn receive_with_pauses(simulation: &Simulation, socket: UnixStream) -> (Vec<u8>, u32, Vec<(String, u64)>) {
    type Data = (UnixStream, BufferPool);
    let (bytes, pauses) = (Log::new(), Arc::new(Mutex::new(0)));
    let (received, count) = (bytes.clone(), Arc::clone(&pauses));
    let first = Script::<Data>::new().on_completion(move |completion, data, mut submitter| {
        if !completion.more() {
            assert_eq!(outcome(&completion), Ok(0), "only the peer ends it");
            return (GO_ON, None);
        }
        let Ok(buffer) = completion.into_buffer() else { return (GO_ON, Some(data)) };
        received.push(buffer.to_vec());
        if submitter.pause_stream() {
            *count.lock().unwrap() += 1;
            let wakes = (data.0.try_clone().unwrap(), data.1.clone());
            submitter
                .to(Bench::SECOND)
                .submit(wakes, |_| request::timeout(Duration::from_millis(1)))
                .unwrap();
        }
        (GO_ON, Some(data))
    });
    let key = Log::new();
    let keys = key.clone();
    let second = Script::<Data>::new().on_completion(move |_, _, mut submitter| {
        let key: Key<Script<Data>> = keys.take()[0];
        keys.push(key);
        submitter.to(Bench::FIRST).resume(key);
        (GO_ON, None)
    });
    let raw = simulation.raw_ring(size(8)).unwrap();
    let mut ring = Bench::builder(first, second).raw_ring(raw).build().unwrap();
    let data = (socket, BufferPool::new(4, 8).unwrap());
    key.push(
        ring.submitter(Bench::FIRST)
            .stream(data, |(socket, pool)| request::recv_multi(socket, pool))
            .unwrap(),
    );
    simulation.take_log();
    ring.run().unwrap();
    let taken_in = simulation.take_log().into_iter().filter_map(|event| match event {
        Event::TakenIn(asked) => Some((asked.name().to_owned(), asked.user_data)),
        _ => None,
    });
    let pauses = *pauses.lock().unwrap();
    (bytes.take().concat(), pauses, taken_in.collect())
}

#[test]
fn a_stream_loses_nothing_by_being_paused_whatever_the_kernel_does() {
    let sent: Vec<u8> = (0..200).collect();
    for seed in 0..300 {
        let (mut peer, socket) = UnixStream::pair().unwrap();
        peer.write_all(&sent).unwrap();
        peer.shutdown(Shutdown::Write).unwrap();
        // A stream that never finds a buffer ends.
        let faults = Faults { no_buffers: 0.0, ..Faults::usual() };
        let (received, pauses, _) = receive_with_pauses(&simulation(seed, faults), socket);
        assert_eq!(received, sent, "seed {seed}");
        assert!(pauses > 0);
    }
}

#[test]
fn a_paused_stream_is_cancelled_once_and_armed_again_by_the_same_name() {
    let (mut peer, socket) = UnixStream::pair().unwrap();
    peer.write_all(&[7; 20]).unwrap();
    let simulation = calm();
    // So that there is something to cancel.
    let mut peer = Some(peer);
    simulation.on_idle(move || peer.take().is_some());
    let (received, pauses, taken_in) = receive_with_pauses(&simulation, socket);
    assert_eq!(received, [7; 20]);
    let named = |wanted: &str| taken_in.iter().filter(|(name, _)| name == wanted).collect::<Vec<_>>();
    let of_stream = named("RECV");
    assert!(of_stream.len() > 1 && of_stream.iter().all(|it| *it == of_stream[0]), "{taken_in:?}");
    assert_eq!(named("ASYNC_CANCEL").len(), pauses as usize, "{taken_in:?}");
}

struct Renamed {
    socket: Option<UnixStream>,
    theirs: UnixStream,
    secret: OwnedFd,
    pool: BufferPool,
}

#[test]
fn a_stream_stays_on_its_file_whatever_its_number_is_by_then() {
    for raw in [calm().raw_ring(size(8)).ok(), RawRing::new(size(8)).ok()] {
        let Some(raw) = raw else { continue };
        let (socket, mut theirs) = UnixStream::pair().unwrap();
        let (secret, writer) = pipe();
        File::from(writer).write_all(b"secret").unwrap();
        theirs.write_all(b"hello").unwrap();
        let pool = BufferPool::new(4, 8).unwrap();
        let data = Renamed { socket: Some(socket), theirs, secret, pool };
        let log = Log::new();
        let seen = log.clone();
        let script = Script::new()
            .on_setup_once(move |mut submitter| {
                submitter
                    .stream(data, |data| request::read_multi(data.socket.as_ref().unwrap(), &data.pool))?;
                Ok(())
            })
            .on_completion(move |completion, mut data: Renamed, _| {
                let more = completion.more();
                seen.push((completion.into_buffer().map(|buffer| buffer.to_vec()).ok(), more));
                match data.socket.take() {
                    Some(socket) => {
                        let number = std::os::fd::IntoRawFd::into_raw_fd(socket);
                        // SAFETY: the socket was given up, and its number is nobody's.
                        assert_eq!(unsafe { libc::dup2(data.secret.as_raw_fd(), number) }, number);
                        // SAFETY: it was just made.
                        data.secret = unsafe { OwnedFd::from_raw_fd(number) };
                        data.theirs.write_all(b"more").unwrap();
                    }
                    None => data.theirs.shutdown(Shutdown::Write).unwrap(),
                }
                (GO_ON, more.then_some(data))
            });
        bench(raw, script).run().unwrap();
        let expected =
            [(Some(b"hello".to_vec()), true), (Some(b"more".to_vec()), true), (Some(Vec::new()), false)];
        assert_eq!(log.take(), expected);
    }
}

#[test]
fn a_file_is_closed_when_the_stream_on_it_has_ended_whoever_remembers_the_entry() {
    let simulation = calm();
    simulation.take_log();
    let entries = Log::new();
    let seen = entries.clone();
    simulation.on_request(move |asked| {
        seen.push(asked.clone());
        Answer::Perform
    });
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    ours.write_all(b"hello").unwrap();
    let script = Script::new()
        .on_setup_once(move |mut submitter| {
            let data = (theirs, BufferPool::new(4, 8).unwrap());
            submitter.stream(data, |(socket, pool)| request::recv_multi(socket, pool))?;
            Ok(())
        })
        .on_completion(|_, _, _| (GO_ON, None));
    let mut ring = on(&simulation, script);
    ring.run().unwrap();
    ours.set_nonblocking(true).unwrap();
    assert_eq!(ours.read(&mut [0; 8]).unwrap(), 0, "nobody has the other end");
    assert!(!entries.is_empty() && simulation.take_log().len() > 2);
}

#[test]
fn bytes_come_as_a_stream_in_buffers_of_a_pool() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    theirs.write_all(b"hello, world").unwrap();
    drop(theirs);
    let pool = BufferPool::new(4, 5).unwrap();
    fn receive((socket, pool): &mut (UnixStream, BufferPool)) -> Stream<'_> {
        request::recv_multi(socket, pool)
    }
    let (told, bytes) = stream_on(calm().raw_ring(size(8)).unwrap(), (ours, pool.clone()), receive, 9);
    assert_eq!(told, [(Ok(5), true), (Ok(5), true), (Ok(2), true), (Ok(0), false)]);
    assert_eq!(bytes.concat(), b"hello, world");
    assert_eq!(pool.available(), 4);
}

fn receive_bundles((socket, pool): &mut (UnixStream, BufferPool)) -> Stream<'_> {
    request::recv_multi_bundle(socket, pool)
}

#[test]
fn bytes_come_as_bundles_of_buffers() {
    let bytes: Vec<u8> = (0..100).collect();
    let pool = BufferPool::new(12, 10).unwrap();
    let received = |raw: RawRing| {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(&bytes).unwrap();
        drop(theirs);
        let (told, received) = stream_on(raw, (ours, pool.clone()), receive_bundles, 99);
        assert_eq!((received.concat(), pool.available()), (bytes.clone(), 12));
        told
    };
    let in_one = [(Ok(100), true), (Ok(0), false)];
    assert_eq!(received(calm().raw_ring(size(8)).unwrap()), in_one);
    if let Ok(raw) = RawRing::new(size(8)) {
        assert_eq!(received(raw).last(), in_one.last(), "it may cut them differently");
    }
    // In fewer buffers each time, on one ring, mixed with single buffers.
    for seed in 0..20 {
        let simulation = simulation(seed, Faults { short: 0.5, cut: 0.3, no_buffers: 0.1, ..Faults::none() });
        let told = received(simulation.raw_ring(size(8)).unwrap());
        let whole = |it: &(Outcome, bool)| it.0.is_err() || it.0.is_ok_and(|length| length % 10 == 0);
        assert!(told.iter().all(whole), "all but the last are full: {told:?}");
    }
}

/// Buffers are given back, and offered again, before a completion about other buffers comes.
#[test]
fn bundles_that_others_have_overtaken_are_whole() {
    type Receiver = (usize, UnixStream, BufferPool);
    fn receive((_, socket, pool): &mut Receiver) -> Stream<'_> {
        request::recv_multi_bundle(socket, pool)
    }
    let bytes: Vec<u8> = (0..=255).cycle().take(1500).collect();
    for seed in 0..100 {
        let simulation = simulation(seed, Faults { delay: 0.3, cut: 0.3, ..Faults::none() });
        let pool = BufferPool::new(16, 16).unwrap();
        let received = Arc::new(Mutex::new([const { Vec::new() }; 3]));
        let taken = Arc::clone(&received);
        let script = Script::new().on_completion(move |completion, data: Receiver, mut submitter| {
            let (more, is_over) = (completion.more(), outcome(&completion) == Ok(0));
            let buffers = completion.into_buffers().unwrap_or_default();
            buffers.for_each(|buffer| taken.lock().unwrap()[data.0].extend_from_slice(&buffer));
            if more {
                return (GO_ON, Some(data));
            }
            if !is_over {
                // All buffers were with completions that had not come yet.
                submitter.stream(data, receive).unwrap();
            }
            (GO_ON, None)
        });
        let mut ring = on(&simulation, script);
        for number in 0..3 {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            theirs.write_all(&bytes).unwrap();
            theirs.shutdown(Shutdown::Write).unwrap();
            let data = (number, ours, pool.clone());
            ring.submitter(Bench::FIRST).stream(data, receive).unwrap();
        }
        ring.run().unwrap();
        for received in &*received.lock().unwrap() {
            assert!(*received == bytes, "{} of {} bytes, seed {seed}", received.len(), bytes.len());
        }
        assert_eq!(pool.available(), 16);
    }
}

#[test]
fn a_bundle_of_all_that_is_offered_may_be_the_last() {
    let mut goes_on = Vec::new();
    for seed in 0..20 {
        let simulation = simulation(seed, Faults::none());
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"123456789").unwrap();
        drop(theirs);
        let pool = BufferPool::new(2, 4).unwrap();
        let raw = simulation.raw_ring(size(8)).unwrap();
        simulation.take_log();
        let (told, received) = stream_on(raw, (ours, pool), receive_bundles, 99);
        assert_eq!(received.concat(), b"123456789");
        assert_eq!(told[0], (Ok(8), true), "it is armed again");
        let first = posted(&simulation).into_iter().find(|(result, _)| *result == 8).unwrap();
        assert_eq!(first.1 & !F_MORE, F_BUFFER);
        goes_on.push(first.1 & F_MORE != 0);
    }
    assert!(goes_on.contains(&true) && goes_on.contains(&false));
}

/// A socket, a pool, and what a stream with a limit is armed as: a bundle, or not.
type Limited = (UnixStream, BufferPool, bool);

fn receive_seven((socket, pool, is_of_bundles): &mut Limited) -> Stream<'_> {
    let stream = match is_of_bundles {
        true => request::recv_multi_bundle(socket, pool),
        false => request::recv_multi(socket, pool),
    };
    stream.limit(size(7))
}

#[test]
fn a_stream_with_a_limit_ends_with_the_bytes_that_reach_it() {
    let received = |raw: RawRing, is_of_bundles: bool| {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"0123456789abcdef").unwrap();
        let pool = BufferPool::new(4, 5).unwrap();
        let (told, bytes) = stream_on(raw, (ours, pool.clone(), is_of_bundles), receive_seven, 99);
        assert_eq!(pool.available(), 4);
        (told, bytes.concat())
    };
    for is_of_bundles in [false, true] {
        let end = if is_of_bundles { 2 } else { 5 };
        let expected = (vec![(Ok(5), true), (Ok(end), false)], b"0123456789"[..5 + end as usize].to_vec());
        assert_eq!(received(calm().raw_ring(size(8)).unwrap(), is_of_bundles), expected);
        if let Ok(raw) = RawRing::new(size(8)) {
            let (told, bytes) = received(raw, is_of_bundles);
            assert_eq!((told.last().map(|it| it.1), bytes), (Some(false), expected.1), "{told:?}");
        }
    }
    for seed in 0..50 {
        let faults = Faults { short: 0.5, cut: 0.3, no_buffers: 0.1, ..Faults::none() };
        let simulation = simulation(seed, faults);
        let is_of_bundles = seed % 2 == 0;
        let (told, bytes) = received(simulation.raw_ring(size(8)).unwrap(), is_of_bundles);
        let most = if is_of_bundles { 7 } else { 11 };
        assert!((7..=most).contains(&bytes.len()), "{} bytes: {told:?}", bytes.len());
        let before: u32 = told.iter().rev().skip(1).filter_map(|it| it.0.ok()).sum();
        assert!(before < 7, "it goes on behind its limit: {told:?}");
    }
}

#[test]
fn only_a_multishot_receive_has_a_limit() {
    const OPTLEN: usize = 44;
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let mut data = Box::new([0; 16]);
    let receive = opcode::Recv::new(types::Fd(ours.as_raw_fd()), data.as_mut_ptr(), 16).build();
    let told = push_one(&calm(), with_byte(receive, OPTLEN, 1), data);
    assert_eq!(told.iter().map(|it| it.result).collect::<Vec<_>>(), [-libc::EINVAL]);
}

#[test]
fn what_is_left_of_a_limit_goes_on_when_a_stream_is_armed_again_and_not_with_one_of_another_kind() {
    fn receive((socket, pool, arms): &mut (UnixStream, BufferPool, u32)) -> Stream<'_> {
        *arms += 1;
        match arms {
            1 => request::recv_multi(socket, pool).limit(size(7)),
            2 => request::recv_multi(socket, pool),
            3 => request::read_multi(socket, pool),
            4 => request::recv_multi_bundle(socket, pool).limit(size(3)),
            _ => request::recv_multi(socket, pool).limit(size(300)),
        }
    }
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    theirs.write_all(b"0123456789abcdef").unwrap();
    let simulation = simulation(1, Faults { cut: 1.0, ..Faults::none() });
    let raw = simulation.raw_ring(size(8)).unwrap();
    simulation.take_log();
    let (told, bytes) = stream_on(raw, (ours, BufferPool::new(4, 2).unwrap(), 0), receive, 99);
    let expected = [(Ok(2), true), (Ok(2), true), (Ok(2), true), (Ok(2), true), (Ok(2), false)];
    assert_eq!((&told[..], &bytes.concat()[..]), (&expected[..], &b"0123456789"[..]));
}

/// What is told of a datagram: what it says, who sent it, whether it was longer; and whether more datagrams come.
type Heard = (Vec<u8>, Option<SocketAddr>, bool, bool);

fn hear(raw: RawRing, socket: impl Into<OwnedFd>, pool: &BufferPool, most: usize) -> Vec<Heard> {
    fn receive((socket, pool): &mut (OwnedFd, BufferPool)) -> Stream<'_> {
        request::recv_from_multi(socket, pool)
    }
    let (log, data) = (Log::new(), (socket.into(), pool.clone()));
    let heard = log.clone();
    let script = Script::new()
        .on_setup_once(move |mut submitter| {
            submitter.stream(data, receive)?;
            Ok(())
        })
        .on_completion(move |completion, data, _| {
            let more = completion.more();
            let datagram = completion.into_datagram().unwrap();
            heard.push((datagram.to_vec(), datagram.peer(), datagram.is_truncated(), more));
            (if heard.len() < most { GO_ON } else { ControlFlow::Exit }, Some(data))
        });
    bench(raw, script).run().unwrap();
    log.take()
}

#[test]
fn datagrams_come_as_a_stream_and_say_whom_they_are_from() {
    let sent: [&[u8]; 6] = [b"one", b"", b"", b"12345678", b"123456789", b"last"];
    let pool = BufferPool::new(16, request::Datagram::OVERHEAD + 8).unwrap();
    let exchange = |raw: RawRing| {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(ours) = UdpSocket::bind(address) else { continue };
            let theirs = UdpSocket::bind(address).unwrap();
            theirs.connect(ours.local_addr().unwrap()).unwrap();
            for bytes in sent {
                theirs.send(bytes).unwrap();
            }
            let there = theirs.local_addr().ok();
            let told = |bytes: &[u8]| {
                let is_cut = bytes.len() > 8;
                (bytes[..bytes.len().min(8)].to_vec(), there, is_cut, true)
            };
            assert_eq!(hear(raw, ours, &pool, sent.len()), sent.map(told));
            assert_eq!(pool.available(), 16);
            return;
        }
    };
    exchange(calm().raw_ring(size(8)).unwrap());
    for seed in 0..10 {
        let simulation = simulation(seed, Faults { short: 1.0, cut: 0.5, reset: 1.0, ..Faults::none() });
        exchange(simulation.raw_ring(size(8)).unwrap());
    }
    if let Ok(raw) = RawRing::new(size(8)) {
        exchange(raw);
    }
}

#[test]
fn a_connection_and_too_small_a_buffer_end_a_stream_of_datagrams() {
    let hears = |raw: RawRing| {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"bytes").unwrap();
        drop(theirs);
        let pool = BufferPool::new(4, request::Datagram::OVERHEAD + 3).unwrap();
        let told = |bytes: &[u8], more| (bytes.to_vec(), None, false, more);
        assert_eq!(hear(raw, ours, &pool, 9), [told(b"byt", true), told(b"es", true), told(b"", false)]);
        assert_eq!(pool.available(), 4);
    };
    hears(calm().raw_ring(size(8)).unwrap());
    if let Ok(raw) = RawRing::new(size(8)) {
        hears(raw);
    }
    fn receive((socket, pool): &mut (UnixStream, BufferPool)) -> Stream<'_> {
        request::recv_from_multi(socket, pool)
    }
    let small = |raw: RawRing| {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"bytes").unwrap();
        let pool = BufferPool::new(4, request::Datagram::OVERHEAD - 1).unwrap();
        let (told, _) = stream_on(raw, (ours, pool.clone()), receive, 9);
        assert_eq!((told, pool.available()), (vec![(Err(libc::EFAULT), false)], 4));
    };
    small(calm().raw_ring(size(8)).unwrap());
    if let Ok(raw) = RawRing::new(size(8)) {
        small(raw);
    }
}

#[test]
fn what_is_answered_comes_in_bundles_and_datagrams_from_nobody() {
    /// A kernel that gives these answers to who receives.
    fn answering(answers: Vec<Vec<u8>>) -> Simulation {
        let (simulation, mut left) = (calm(), answers.into_iter());
        simulation.on_request(move |asked| match asked.name() {
            "RECV" | "RECVMSG" => Answer::Bytes(left.next().unwrap_or_default()),
            _ => Answer::Perform,
        });
        simulation
    }
    let nothing = || UnixStream::pair().unwrap().0;
    let simulation = answering(vec![vec![7; 25], vec![8; 5]]);
    let pool = BufferPool::new(4, 10).unwrap();
    let raw = simulation.raw_ring(size(8)).unwrap();
    let (told, bytes) = stream_on(raw, (nothing(), pool.clone()), receive_bundles, 9);
    assert_eq!(told, [(Ok(25), true), (Ok(5), true), (Ok(0), false)]);
    assert_eq!((bytes, pool.available()), (vec![vec![7; 25], vec![8; 5], vec![]], 4));

    let simulation = answering(vec![vec![7; 5], vec![8; 9]]);
    let pool = BufferPool::new(4, request::Datagram::OVERHEAD + 8).unwrap();
    let told = |bytes: &[u8], is_cut, more| (bytes.to_vec(), None, is_cut, more);
    let heard = hear(simulation.raw_ring(size(8)).unwrap(), nothing(), &pool, 9);
    assert_eq!(heard, [told(&[7; 5], false, true), told(&[8; 8], true, true), told(&[], false, false)]);
    assert_eq!(pool.available(), 4);

    let simulation = answering(vec![b"from nobody".into()]);
    let asking = Asking {
        data: (nothing(), [0; 4], request::Peer::new()),
        request: |(socket, bytes, peer)| request::recv_from(socket, bytes, peer),
    };
    let (told, _, (_, bytes, peer)) = ask_on(simulation.raw_ring(size(8)).unwrap(), asking);
    assert_eq!((told, &bytes, peer.address()), (Ok(4), b"from", None));
}

#[test]
fn events_come_as_a_stream() {
    let simulation = calm();
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let mut left = 3;
    simulation.on_idle(move || {
        left -= 1;
        left >= 0 && theirs.write_all(b"x").is_ok()
    });
    let log = Log::new();
    let seen = log.clone();
    let data = ours;
    let mut ring = on(
        &simulation,
        Script::new()
            .on_setup_once(move |mut submitter| {
                submitter
                    .stream(data, |socket: &mut UnixStream| request::poll_multi(socket, Events::READABLE))?;
                Ok(())
            })
            .on_completion(move |completion, mut socket, _| {
                seen.push((outcome(&completion), completion.more()));
                assert_eq!(socket.read(&mut [0; 9]).unwrap(), 1);
                (if seen.len() < 3 { GO_ON } else { ControlFlow::Exit }, Some(socket))
            }),
    );
    ring.run().unwrap();
    assert_eq!(log.take(), [(Ok(Events::READABLE.bits()), true); 3]);
}

#[test]
fn a_zero_copy_send_is_over_when_its_memory_is_free() {
    let simulation = calm();
    simulation.take_log();
    let (ours, _theirs) = rummelplatz_tests::tcp_pair();
    let job = Job::new(0, &Arc::new(ours.into()), 100);
    let place = job.buffer.as_ptr().addr();
    let log = Log::new();
    let (seen, kernel) = (log.clone(), simulation.clone());
    let mut ring = on(
        &simulation,
        Script::new()
            .on_setup_once(move |mut submitter| {
                submitter.submit(job, |job| job.send_zc())?;
                Ok(())
            })
            .on_completion(move |completion, _, _| {
                seen.push((outcome(&completion), kernel.uses(std::ptr::without_provenance::<u8>(place))));
                (GO_ON, None)
            }),
    );
    ring.run().unwrap();
    assert_eq!(log.take(), [(Ok(100), false)]);
    let flags: Vec<_> = posted(&simulation).into_iter().map(|(_, flags)| flags).collect();
    assert_eq!(flags, [F_MORE, F_NOTIF]);
}
