//! Streams that are paused and resumed.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::num::NonZeroU32;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use rummelplatz::request::Events;
use rummelplatz::{BufferPool, ControlFlow, Key, Status, Stream, request};
use rummelplatz_tests::{
    Bench, BenchSubmitter, Ledger, Log, Script, Tracked, connect, in_child, in_fork, listener, outcome,
    tcp_pair, turn_until, watched,
};

const CANCELLED: Result<u32, i32> = Err(libc::ECANCELED);
const NO_BUFFERS: Result<u32, i32> = Err(libc::ENOBUFS);
const SHORT: Duration = Duration::from_millis(1);

/// The data of a stream, and how often that was armed.
struct Source {
    what: What,
    arms: Arc<AtomicU32>,
}

enum What {
    Connections(Arc<TcpListener>),
    Bytes(TcpStream, BufferPool),
    FiveBytes(TcpStream, BufferPool),
    /// From the second pool as soon as that is wanted.
    BytesOfEither(TcpStream, [BufferPool; 2], Arc<AtomicBool>),
    Ticks(Duration, u32),
    Events(TcpStream),
    /// Not a stream.
    Else,
}

impl What {
    fn source(self) -> (Source, Arc<AtomicU32>) {
        let arms = Arc::default();
        (Source { what: self, arms: Arc::clone(&arms) }, arms)
    }
}

impl Source {
    fn stream(&mut self) -> Stream<'_> {
        self.arms.fetch_add(1, Ordering::Relaxed);
        match &self.what {
            What::Connections(listener) => request::accept_multi(&**listener),
            What::Bytes(socket, pool) => request::recv_multi(socket, pool),
            What::FiveBytes(socket, pool) => {
                request::recv_multi(socket, pool).limit(NonZeroU32::new(5).unwrap())
            }
            What::BytesOfEither(socket, pools, is_second) => {
                request::recv_multi(socket, &pools[usize::from(is_second.load(Ordering::Relaxed))])
            }
            What::Ticks(interval, times) => {
                request::timeout_multi_times(*interval, NonZeroU32::new(*times).unwrap())
            }
            What::Events(socket) => request::poll_multi(socket, Events::READABLE),
            What::Else => unreachable!("only streams are armed"),
        }
    }

    fn is_stream(&self) -> bool {
        !matches!(self.what, What::Else)
    }
}

type SourceSubmitter<'a> = BenchSubmitter<'a, Source>;
type SourceKey = Key<Script<Source>>;
/// Whether there was more, and the result.
type Told = Log<(bool, Result<u32, i32>)>;

/// Tells of all streams. Everything that they bring is dropped, which gives buffers back.
fn telling() -> (Script<Source>, Told, Told) {
    let (running, ending) = (Told::new(), Told::new());
    let (to_running, to_ending) = (running.clone(), ending.clone());
    let script = Script::new()
        .on_completion(move |completion, source: Source, _| {
            to_running.push((completion.more(), outcome(&completion)));
            (ControlFlow::Continue, completion.more().then_some(source))
        })
        .on_teardown(move |completion, _, _| {
            to_ending.push((completion.more(), outcome(&completion)));
            Ok(())
        });
    (script, running, ending)
}

fn stream(ring: &mut Bench<Source>, source: Source) -> SourceKey {
    ring.submitter(Bench::FIRST).stream(source, Source::stream).unwrap()
}

fn pause(ring: &mut Bench<Source>, key: SourceKey) -> bool {
    ring.submitter(Bench::FIRST).pause(key)
}

fn resume(ring: &mut Bench<Source>, key: SourceKey) -> bool {
    ring.submitter(Bench::FIRST).resume(key)
}

/// Turns the ring until only paused streams are left in it.
fn turn_until_idle(ring: &mut Bench<Source>) {
    turn_until!(ring, ring.turn().unwrap().status == Status::Idle);
}

fn armed(arms: &AtomicU32) -> u32 {
    arms.load(Ordering::Relaxed)
}

#[test]
fn nobody_is_accepted_in_a_pause_and_everybody_after_it() {
    watched(|| {
        let (script, told, _) = telling();
        let mut ring = Bench::with(8, script);
        let listener = listener();
        let (source, arms) = What::Connections(Arc::clone(&listener)).source();
        let key = stream(&mut ring, source);
        let _first = connect(&listener, 2);
        turn_until!(ring, told.len() == 2);
        assert!(pause(&mut ring, key));
        turn_until_idle(&mut ring);
        let _second = connect(&listener, 3);
        turn_until_idle(&mut ring);
        assert_eq!((told.len(), armed(&arms), ring.stats().in_flight), (2, 1, 1));
        assert!(resume(&mut ring, key));
        turn_until!(ring, told.len() == 5);
        assert_eq!(told.take(), [(true, Ok(0)); 5]);
        assert_eq!(armed(&arms), 2);
        assert!(ring.submitter(Bench::FIRST).cancel(key));
        turn_until!(ring, !told.is_empty());
        assert_eq!(told.take(), [(false, CANCELLED)]);
    });
}

#[test]
fn a_stream_that_pauses_itself_is_resumed_by_another_operation_and_loses_nothing() {
    watched(|| {
        let (mut peer, socket) = tcp_pair();
        let pool = BufferPool::new(4, 4).unwrap();
        let bytes = Log::new();
        let received = bytes.clone();
        let mut rounds = 0;
        let first = Script::new().on_completion(move |completion, source: Source, mut submitter| {
            if !completion.more() {
                assert_eq!(outcome(&completion), Ok(0));
                return (ControlFlow::Continue, None);
            }
            let Ok(buffer) = completion.into_buffer() else { return (ControlFlow::Continue, Some(source)) };
            received.push(buffer.to_vec());
            // What was received before it stopped is still told, and finds it paused.
            if submitter.pause_stream() {
                assert!(!submitter.pause_stream());
                assert!(!submitter.to(Bench::SECOND).pause_stream(), "it is not its stream");
                let (other, _) = What::Else.source();
                submitter.to(Bench::SECOND).submit(other, |_| request::timeout(SHORT)).unwrap();
            }
            (ControlFlow::Continue, Some(source))
        });
        let (source, arms) = What::Bytes(socket, pool.clone()).source();
        let resumes = Log::new();
        let keys = resumes.clone();
        let second = Script::new().on_completion(move |_, _, mut submitter: SourceSubmitter<'_>| {
            assert!(!submitter.pause_stream(), "it is no stream");
            rounds += 1;
            let key: SourceKey = keys.take()[0];
            keys.push(key);
            // It is not paused any more if it was paused twice before the kernel has answered.
            submitter.to(Bench::FIRST).resume(key);
            if rounds == 20 {
                peer.shutdown(Shutdown::Write).unwrap();
            } else if rounds < 20 {
                peer.write_all(&[rounds; 23]).unwrap();
            }
            (ControlFlow::Continue, None)
        });
        let mut ring = Bench::builder(first, second).build().unwrap();
        let key = stream(&mut ring, source);
        resumes.push(key);
        let (other, _) = What::Else.source();
        assert!(pause(&mut ring, key));
        ring.submitter(Bench::SECOND).submit(other, |_| request::timeout(SHORT)).unwrap();
        ring.run().unwrap();
        let bytes = bytes.take().concat();
        assert_eq!(bytes, (1..20).flat_map(|round| [round; 23]).collect::<Vec<u8>>());
        assert!(armed(&arms) >= 20, "{arms:?}");
        assert_eq!((pool.available(), ring.stats().in_flight), (4, 0));
    });
}

#[test]
fn what_is_counted_goes_on_after_each_pause() {
    watched(|| {
        let log = Told::new();
        let told = log.clone();
        // It is paused at each completion, and resumed at once.
        let script = Script::new().on_completion(move |completion, source: Source, mut submitter| {
            told.push((completion.more(), outcome(&completion)));
            let more = completion.more();
            assert_eq!(submitter.pause_stream(), more);
            let keys = submitter.to(Bench::SECOND).post(What::Else.source().0);
            keys.unwrap();
            (ControlFlow::Continue, more.then_some(source))
        });
        let key = Log::new();
        let keys = key.clone();
        let second = Script::new().on_completion(move |_, _, mut submitter: SourceSubmitter<'_>| {
            let key: SourceKey = keys.take()[0];
            keys.push(key);
            submitter.to(Bench::FIRST).resume(key);
            (ControlFlow::Continue, None)
        });
        let mut ring = Bench::builder(script, second).build().unwrap();
        let (source, arms) = What::Ticks(SHORT, 5).source();
        key.push(stream(&mut ring, source));
        ring.run().unwrap();
        assert_eq!(log.take(), [(true, Ok(0)), (true, Ok(0)), (true, Ok(0)), (true, Ok(0)), (false, Ok(0))]);
        assert!(armed(&arms) > 1);

        let (mut peer, socket) = tcp_pair();
        peer.write_all(b"hello, world").unwrap();
        let (source, _) = What::FiveBytes(socket, BufferPool::new(8, 1).unwrap()).source();
        key.take();
        key.push(stream(&mut ring, source));
        ring.run().unwrap();
        let bytes = log.take().into_iter().map(|(_, result)| result.unwrap());
        assert_eq!(bytes.sum::<u32>(), 5);
    });
}

#[test]
fn what_can_not_be_paused_or_resumed_is_told_to_be_so_and_stays_as_it_is() {
    watched(|| {
        let (script, told, _) = telling();
        let mut ring = Bench::with(8, script);
        let (other, _) = What::Else.source();
        let timer = ring.submitter(Bench::FIRST).submit(other, |_| request::timeout(SHORT)).unwrap();
        let (ticks, _) = What::Ticks(SHORT, 1).source();
        let ticks = stream(&mut ring, ticks);
        let (_peer, socket) = tcp_pair();
        let (events, arms) = What::Events(socket).source();
        let events = stream(&mut ring, events);

        let mut submitter = ring.submitter(Bench::FIRST);
        assert!(!submitter.pause_stream(), "there is no handler");
        assert!(!submitter.pause(timer) && !submitter.resume(timer), "it is no stream");
        assert!(!submitter.resume(events), "it is not paused");
        assert!(!submitter.to(Bench::SECOND).pause(events), "it is of another operation");
        let mut another: Bench<Source> = Bench::with(8, Script::new());
        assert!(!pause(&mut another, events) && !resume(&mut another, events), "it is of another ring");
        turn_until!(ring, told.len() == 2);
        assert_eq!(told.take(), [(false, Ok(0)); 2]);
        assert!(!pause(&mut ring, ticks) && !resume(&mut ring, ticks), "it is over");

        assert!(pause(&mut ring, events) && !pause(&mut ring, events));
        turn_until_idle(&mut ring);
        assert!(!pause(&mut ring, events));
        assert!(resume(&mut ring, events) && !resume(&mut ring, events));
        assert_eq!(armed(&arms), 2);
        assert!(ring.submitter(Bench::FIRST).cancel(events));
        assert!(!pause(&mut ring, events) && !resume(&mut ring, events), "it ends");
        turn_until!(ring, told.len() == 1);
        assert_eq!(told.take(), [(false, CANCELLED)]);
        assert!(!pause(&mut ring, events) && !resume(&mut ring, events), "it is over");
    });
}

#[test]
fn a_forked_child_pauses_and_resumes_nothing() {
    in_child(|| {
        let (script, told, _) = telling();
        let mut ring = Bench::with(8, script);
        let (mut peer, socket) = tcp_pair();
        let (source, arms) = What::Events(socket).source();
        let key = stream(&mut ring, source);
        in_fork(|| assert!(!pause(&mut ring, key)));
        assert!(pause(&mut ring, key));
        turn_until_idle(&mut ring);
        in_fork(|| {
            assert!(!resume(&mut ring, key));
            assert_eq!(armed(&arms), 1, "its function is not called");
        });
        assert!(resume(&mut ring, key));
        peer.write_all(b"hello").unwrap();
        turn_until!(ring, told.len() == 1);
        assert_eq!((told.take(), armed(&arms)), (vec![(true, Ok(1))], 2));
    });
}

#[test]
fn a_stream_may_be_resumed_and_paused_before_the_kernel_has_answered() {
    watched(|| {
        let (script, told, _) = telling();
        let mut ring = Bench::with(8, script);
        let (mut peer, socket) = tcp_pair();
        let (source, arms) = What::Bytes(socket, BufferPool::new(4, 16).unwrap()).source();
        let key = stream(&mut ring, source);
        // Before the kernel has even seen it.
        assert!(pause(&mut ring, key) && resume(&mut ring, key));
        turn_until!(ring, armed(&arms) == 2);
        for round in 1..20 {
            peer.write_all(b"hello").unwrap();
            turn_until!(ring, told.len() == round);
            // The answer comes when it is resumed, or paused once more.
            let stays = round % 2 == 0;
            assert!(pause(&mut ring, key) && resume(&mut ring, key));
            if stays {
                assert!(pause(&mut ring, key));
                turn_until_idle(&mut ring);
                assert!(resume(&mut ring, key));
            }
            turn_until!(ring, armed(&arms) == round as u32 + 2);
        }
        drop(peer);
        turn_until!(ring, told.len() == 20);
        let told = told.take();
        assert_eq!(told[..19], [(true, Ok(5)); 19]);
        assert_eq!(told[19], (false, Ok(0)));
    });
}

#[test]
fn a_paused_stream_can_be_cancelled() {
    watched(|| {
        let (script, told, _) = telling();
        let mut ring = Bench::with(8, script);
        let (_peer, socket) = tcp_pair();
        for stops_first in [true, false] {
            let (source, arms) = What::Events(socket.try_clone().unwrap()).source();
            let key = stream(&mut ring, source);
            turn_until!(ring, armed(&arms) == 1);
            assert!(pause(&mut ring, key));
            if stops_first {
                turn_until_idle(&mut ring);
            }
            assert!(ring.submitter(Bench::FIRST).cancel(key));
            assert!(!resume(&mut ring, key));
            ring.run().unwrap();
            assert_eq!(told.take(), [(false, CANCELLED)], "{stops_first}");
            assert_eq!((armed(&arms), ring.stats().in_flight), (1, 0));
        }
    });
}

#[test]
fn a_teardown_ends_paused_streams() {
    watched(|| {
        let (script, told, ending) = telling();
        let mut ring = Bench::with(8, script);
        let (_peer, socket) = tcp_pair();
        for stops_first in [true, false] {
            let keys = [(), (), ()].map(|()| {
                let (source, _) = What::Events(socket.try_clone().unwrap()).source();
                stream(&mut ring, source)
            });
            assert!(pause(&mut ring, keys[0]) && pause(&mut ring, keys[1]));
            if stops_first {
                turn_until!(ring, ring.turn().unwrap().status == Status::Waiting);
            }
            assert!(resume(&mut ring, keys[1]));
            ring.finish().unwrap();
            assert_eq!((told.take(), ending.take()), (vec![], vec![(false, CANCELLED); 3]), "{stops_first}");
            assert_eq!(ring.stats().in_flight, 0);
        }
    });
}

#[test]
fn a_dropped_ring_drops_the_data_of_paused_streams() {
    watched(|| {
        for turns in [false, true] {
            let ledger = Ledger::new();
            let mut ring: Bench<Tracked<TcpStream>> = Bench::with(8, Script::new());
            let (_peer, socket) = tcp_pair();
            let mut submitter = ring.submitter(Bench::FIRST);
            let key = submitter
                .stream(ledger.issue(socket), |socket| request::poll_multi(&socket.value, Events::READABLE))
                .unwrap();
            assert!(submitter.pause(key));
            if turns {
                turn_until!(ring, ring.turn().unwrap().status == Status::Idle);
            }
            drop(ring);
            ledger.assert_all_dropped_once();
        }
    });
}

#[test]
fn a_stream_that_has_ended_before_its_pause_ends_as_always() {
    watched(|| {
        let (mut peer, socket) = tcp_pair();
        peer.write_all(b"hello").unwrap();
        peer.shutdown(Shutdown::Write).unwrap();
        let log = Told::new();
        let told = log.clone();
        let script = Script::new().on_completion(move |completion, source: Source, mut submitter| {
            told.push((completion.more(), outcome(&completion)));
            // The end has been posted already.
            assert_eq!(submitter.pause_stream(), completion.more());
            (ControlFlow::Continue, completion.more().then_some(source))
        });
        let mut ring = Bench::with(8, script);
        let (source, arms) = What::Bytes(socket, BufferPool::new(4, 16).unwrap()).source();
        stream(&mut ring, source);
        ring.run().unwrap();
        assert_eq!(log.take(), [(true, Ok(5)), (false, Ok(0))]);
        assert_eq!((armed(&arms), ring.stats().in_flight), (1, 0));
    });
}

#[test]
fn a_ring_ends_when_only_paused_streams_are_left_unless_somebody_could_wake_it() {
    watched(|| {
        let (script, _, ending) = telling();
        let mut ring = Bench::with(8, script);
        let (mut peer, socket) = tcp_pair();
        peer.write_all(b"hello").unwrap();
        let events = || What::Events(socket.try_clone().unwrap()).source().0;
        let key = stream(&mut ring, events());
        assert!(pause(&mut ring, key));
        ring.run().unwrap();
        assert_eq!(ending.take(), [(false, CANCELLED)]);

        // One that is resumed keeps the ring running again, unless it is in the background.
        let (script, told, ending) = telling();
        let mut ring = Bench::with(8, script);
        let key = stream(&mut ring, events());
        let mut submitter = ring.submitter(Bench::FIRST);
        let behind = submitter.stream_in_background(events(), Source::stream).unwrap();
        for key in [key, behind] {
            assert!(pause(&mut ring, key));
        }
        turn_until_idle(&mut ring);
        told.take();
        assert!(resume(&mut ring, behind));
        turn_until!(ring, told.len() == 1);
        turn_until_idle(&mut ring);
        assert!(resume(&mut ring, key));
        turn_until!(ring, told.len() == 2);
        assert_eq!(ring.turn().unwrap().status, Status::Waiting);
        assert!(pause(&mut ring, key));

        let handle = ring.handle();
        let stops = std::thread::spawn(move || {
            std::thread::sleep(SHORT);
            handle.send(Bench::FIRST, What::Else.source().0).ok().unwrap();
        });
        ring.run().unwrap();
        stops.join().unwrap();
        assert_eq!(told.take()[2..], [(false, Ok(0))], "it has waited for the message");
        assert_eq!(ending.take(), [(false, CANCELLED); 2]);
    });
}

#[test]
fn what_waits_for_the_room_of_a_paused_stream_does_not_keep_the_ring_running() {
    watched(|| {
        let (script, told, ending) = telling();
        let builder = Bench::builder(script, Script::new()).request_limit(NonZeroU32::MIN);
        let mut ring = builder.build().unwrap();
        let (_peer, socket) = tcp_pair();
        let key = stream(&mut ring, What::Events(socket).source().0);
        assert!(pause(&mut ring, key));
        ring.handle().send(Bench::FIRST, What::Else.source().0).ok().unwrap();
        ring.run().unwrap();
        assert!(told.is_empty());
        assert_eq!(ending.take(), [(false, CANCELLED), (false, Ok(0))]);
    });
}

#[test]
fn a_stream_whose_handler_keeps_its_data_when_it_is_paused_is_over() {
    watched(|| {
        let (mut peer, socket) = tcp_pair();
        peer.write_all(b"hello").unwrap();
        let log = Told::new();
        let told = log.clone();
        let script = Script::new().on_completion(move |completion, _: Source, mut submitter| {
            told.push((completion.more(), outcome(&completion)));
            assert!(submitter.pause_stream());
            (ControlFlow::Continue, None)
        });
        let mut ring = Bench::with(8, script);
        let (source, _) = What::Events(socket).source();
        let key = stream(&mut ring, source);
        turn_until!(ring, ring.stats().in_flight == 0);
        assert_eq!(log.take(), [(true, Ok(1))]);
        assert!(!resume(&mut ring, key));
        // Its other end is closed.
        while peer.read(&mut [0; 8]).is_ok_and(|count| count > 0) {}
    });
}

#[test]
fn a_stream_that_waits_for_a_buffer_may_be_paused_until_one_is_back_or_longer() {
    watched(|| {
        for stays in [true, false] {
            let log = Told::new();
            let told = log.clone();
            let buffers = Log::new();
            let held = buffers.clone();
            let script = Script::new().on_completion(move |completion, source: Source, _| {
                told.push((completion.more(), outcome(&completion)));
                let more = completion.more();
                if let Ok(buffer) = completion.into_buffer() {
                    held.push(buffer);
                }
                (ControlFlow::Continue, more.then_some(source))
            });
            let mut ring = Bench::with(8, script);
            let (mut peer, socket) = tcp_pair();
            peer.write_all(b"hellohello").unwrap();
            let (source, arms) = What::Bytes(socket, BufferPool::new(1, 5).unwrap()).source();
            let key = stream(&mut ring, source);
            turn_until!(ring, log.len() == 2);
            assert_eq!(log.take(), [(true, Ok(5)), (true, NO_BUFFERS)]);
            assert!(pause(&mut ring, key));
            turn_until_idle(&mut ring);
            if !stays {
                assert!(resume(&mut ring, key));
                assert_eq!(ring.turn().unwrap().status, Status::Waiting);
            }
            assert_eq!(armed(&arms), 1, "there is no buffer");
            drop(buffers.take());
            if stays {
                turn_until_idle(&mut ring);
                assert_eq!((log.len(), armed(&arms)), (0, 1));
                assert!(resume(&mut ring, key));
            }
            peer.shutdown(Shutdown::Write).unwrap();
            let mut told = Vec::new();
            turn_until!(ring, {
                drop(buffers.take());
                told.extend(log.take());
                told.last() == Some(&(false, Ok(0)))
            });
            told.retain(|told| *told != (true, NO_BUFFERS));
            assert_eq!(told, [(true, Ok(5)), (false, Ok(0))]);
        }
    });
}

#[test]
fn a_stream_that_can_not_be_armed_when_it_is_resumed_ends() {
    watched(|| {
        let (script, told, _) = telling();
        let mut ring = Bench::with(8, script);
        let (_peer, socket) = tcp_pair();
        let pools = [(), ()].map(|()| BufferPool::new(1, 16).unwrap());
        let mut another: Bench<Source> = Bench::with(8, Script::new());
        stream(&mut another, What::Bytes(socket.try_clone().unwrap(), pools[1].clone()).source().0);
        let is_second = Arc::new(AtomicBool::new(false));
        let (source, arms) = What::BytesOfEither(socket, pools, Arc::clone(&is_second)).source();
        let key = stream(&mut ring, source);
        assert!(pause(&mut ring, key));
        turn_until_idle(&mut ring);
        is_second.store(true, Ordering::Relaxed);
        assert!(resume(&mut ring, key));
        assert!(!pause(&mut ring, key), "it ends");
        turn_until!(ring, !told.is_empty());
        assert_eq!((told.take(), armed(&arms)), (vec![(false, Err(libc::EBUSY))], 2));
    });
}

#[test]
fn a_stream_whose_function_panics_when_it_is_resumed_stays_paused() {
    watched(|| {
        let log = Told::new();
        let told = log.clone();
        let script = Script::new().on_completion(move |completion, data, _| {
            told.push((completion.more(), outcome(&completion)));
            (ControlFlow::Continue, completion.more().then_some(data))
        });
        let mut ring: Bench<(TcpStream, Arc<AtomicBool>)> = Bench::with(8, script);
        let (mut peer, socket) = tcp_pair();
        let panics = Arc::new(AtomicBool::new(false));
        let mut submitter = ring.submitter(Bench::FIRST);
        let key = submitter
            .stream((socket, Arc::clone(&panics)), |(socket, panics)| {
                assert!(!panics.load(Ordering::Relaxed), "as it is meant to");
                request::poll_multi(socket, Events::READABLE)
            })
            .unwrap();
        assert!(submitter.pause(key));
        turn_until!(ring, ring.turn().unwrap().status == Status::Idle);
        panics.store(true, Ordering::Relaxed);
        catch_unwind(AssertUnwindSafe(|| ring.submitter(Bench::FIRST).resume(key))).unwrap_err();
        assert_eq!(ring.turn().unwrap().status, Status::Idle);
        panics.store(false, Ordering::Relaxed);
        assert!(ring.submitter(Bench::FIRST).resume(key));
        peer.write_all(b"hello").unwrap();
        turn_until!(ring, log.len() == 1);
        assert_eq!(log.take(), [(true, Ok(1))]);
    });
}

#[test]
fn ticks_that_are_faster_than_the_ring_can_be_paused() {
    watched(|| {
        let (mut ticks, mut paused) = (0, false);
        let script = Script::new().on_completion(move |completion, source: Source, mut submitter| {
            assert!(completion.more() && source.is_stream());
            ticks += 1;
            assert!(ticks < 10_000, "it stops soon");
            paused |= submitter.pause_stream();
            assert!(paused);
            std::thread::sleep(SHORT / 10);
            (ControlFlow::Continue, Some(source))
        });
        let mut ring = Bench::with(8, script);
        stream(&mut ring, What::Ticks(Duration::from_micros(50), u32::MAX).source().0);
        turn_until_idle(&mut ring);
        assert_eq!(ring.stats().in_flight, 1);
    });
}
