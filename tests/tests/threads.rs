//! Rings and threads: built here, run there; one thread to a ring; many rings at once.

use std::collections::HashSet;
use std::convert::Infallible;
use std::io::{self, Write};
use std::net::TcpStream;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use std::time::Duration;

use rummelplatz::io_uring::IoUring;
use rummelplatz::{
    Buffer, BufferPool, Completion, CompletionResult, ControlFlow, RawRing, Ring, RingError, RingOperation,
    Stream, Submitter, request, ring,
};
use rummelplatz_tests::{
    Bench, BenchSubmitter, Ledger, Log, Script, Tracked, in_child, open_descriptors, panic_of, tcp_pair,
    watched,
};

const LONG: Duration = Duration::from_secs(1000);

fn elsewhere<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> T {
    thread::spawn(body).join().unwrap()
}

#[test]
fn a_ring_is_built_in_one_thread_fed_in_another_and_run_in_a_third() {
    watched(|| {
        let (ledger, log) = (Ledger::new(), Log::new());
        let seen = log.clone();
        let ring = elsewhere(move || {
            let script = Script::new()
                .on_setup_once(move |mut submitter| {
                    submitter.submit(ledger.issue(2), |_| request::nop())?;
                    Ok(())
                })
                .on_completion(move |_, data: Tracked<u32>, _| {
                    seen.push((*data, thread::current().id()));
                    (ControlFlow::Continue, None)
                });
            Bench::with(8, script)
        });
        let mut ring = elsewhere(move || {
            let mut ring = ring;
            ring.submitter(Bench::FIRST).submit(ledger.issue(1), |_| request::nop()).unwrap();
            ring
        });
        ring.run().unwrap();
        let here = thread::current().id();
        assert_eq!(log.take(), [(1, here), (2, here)]);
        ledger.assert_all_dropped_once();
    });
}

#[test]
fn a_pool_may_be_registered_in_another_thread_than_the_ring_runs_in() {
    watched(|| {
        let pool = BufferPool::new(2, 16).unwrap();
        let (mut client, server) = tcp_pair();
        client.write_all(b"hello").unwrap();
        drop(client);
        let (log, in_ring) = (Log::new(), pool.clone());
        let seen = log.clone();
        let script = Script::new().on_completion(move |completion, data, _| {
            let more = completion.more();
            seen.push(completion.into_buffer().unwrap().to_vec());
            (ControlFlow::Continue, more.then_some(data))
        });
        let mut ring = Bench::with(8, script);
        ring.submitter(Bench::FIRST)
            .stream((server, in_ring), |(socket, pool)| request::recv_multi(socket, pool))
            .unwrap();
        elsewhere(move || ring.run().unwrap());
        assert_eq!(log.take(), [&b"hello"[..], b""]);
        assert_eq!(pool.available(), 2);
    });
}

#[test]
fn a_run_that_failed_can_be_followed_by_one_that_does_not() {
    watched(|| {
        let mut fails = true;
        let script = Script::new()
            .on_setup(|mut submitter| {
                submitter.submit((), |_| request::nop())?;
                Ok(())
            })
            .on_completion(move |_, (), _| match std::mem::take(&mut fails) {
                true => (ControlFlow::Error("once".into()), None),
                false => (ControlFlow::Exit, None),
            });
        let mut ring = Bench::with(8, script);
        assert!(matches!(ring.run(), Err(RingError::Completion(_))));
        ring.run().unwrap();
    });
}

#[test]
fn a_second_thread_is_told_that_it_is_the_wrong_one_and_nothing_changes() {
    watched(|| {
        let (ledger, log) = (Ledger::new(), Log::new());
        let (setups, seen) = (log.clone(), log.clone());
        let script = Script::new()
            .on_setup(move |_| {
                setups.push("setup");
                Ok(())
            })
            .on_completion(move |_, data: Tracked<&'static str>, _| {
                seen.push(*data);
                (ControlFlow::Continue, None)
            });
        let mut ring = Bench::with(8, script);
        ring.run().unwrap();
        assert_eq!(log.take(), ["setup"]);
        ring.submitter(Bench::FIRST).submit(ledger.issue("nop"), |_| request::nop()).unwrap();
        let before = ring.stats();

        let mut ring = elsewhere(move || {
            assert!(matches!(ring.run(), Err(RingError::WrongThread)));
            assert!(matches!(ring.turn(), Err(RingError::WrongThread)));
            assert!(matches!(ring.finish(), Err(RingError::WrongThread)));
            let text = ring.run().unwrap_err().to_string();
            assert!(text.contains("thread"), "{text}");
            ring
        });
        assert_eq!((log.len(), ledger.alive()), (0, 1));
        assert_eq!(ring.stats(), before);
        ring.run().unwrap();
        assert_eq!(log.take(), ["setup", "nop"]);
        ledger.assert_all_dropped_once();
    });
}

#[test]
fn a_ring_in_the_middle_of_turns_survives_a_visit_to_another_thread() {
    // The kernel lets any thread enter it.
    let for_all = || {
        let uring = IoUring::new(4).unwrap();
        // SAFETY: it is new.
        unsafe { RawRing::from_io_uring(uring) }.unwrap()
    };
    for raw in [|| RawRing::new(NonZeroU32::new(4).unwrap()).unwrap(), for_all] {
        visits_another_thread(raw);
    }
}

fn visits_another_thread(raw: impl FnOnce() -> RawRing + Send + 'static) {
    watched(|| {
        let (ledger, log) = (Ledger::new(), Log::new());
        let (seen, ended) = (log.clone(), log.clone());
        let script = Script::new()
            .on_setup_once(move |mut submitter| {
                submitter.submit(ledger.issue(0), |_| request::timeout(LONG))?;
                Ok(())
            })
            .on_completion(move |_, data: Tracked<u32>, _| {
                seen.push(*data);
                (ControlFlow::Continue, None)
            })
            .on_teardown(move |_, data, _| {
                ended.push(*data + 1000);
                Ok(())
            });
        let mut ring = Bench::builder(script, Script::new()).raw_ring(raw()).build().unwrap();
        ring.turn().unwrap();
        let enters = ring.stats().enters;
        let mut ring = elsewhere(move || {
            assert!(matches!(ring.turn(), Err(RingError::WrongThread)));
            // More than the submission queue holds, and it can't be flushed from here.
            for number in 1..20 {
                let data = ledger.issue(number);
                ring.submitter(Bench::FIRST).submit(data, |_| request::nop()).unwrap();
            }
            assert!(matches!(ring.finish(), Err(RingError::WrongThread)));
            ring
        });
        assert_eq!((ring.stats().in_flight, ring.stats().enters), (20, enters));
        while ring.stats().in_flight > 1 {
            ring.turn().unwrap();
        }
        assert_eq!(log.take(), (1..20).collect::<Vec<_>>());
        ring.finish().unwrap();
        assert_eq!(log.take(), [1000]);
        ledger.assert_all_dropped_once();
    });
}

#[test]
fn what_the_kernel_never_had_is_dropped_with_its_ring_in_any_thread() {
    watched(|| {
        let ledger = Ledger::new();
        let mut ring = Bench::with(8, Script::<Tracked<u32>>::new());
        ring.turn().unwrap();
        ring.submitter(Bench::FIRST).post(ledger.issue(1)).unwrap();
        let handle = ring.handle();
        handle.send(Bench::FIRST, ledger.issue(2)).unwrap();
        elsewhere(move || drop(ring));
        ledger.assert_all_dropped_once();
    });
}

#[test]
fn a_pool_is_free_again_when_its_idle_ring_was_dropped_in_another_thread() {
    watched(|| {
        let pool = BufferPool::new(4, 64).unwrap();
        let bench = || Bench::with(8, Script::<(TcpStream, BufferPool)>::new());
        let receive = |ring: &mut Bench<(TcpStream, BufferPool)>| {
            let (ours, theirs) = tcp_pair();
            drop(theirs);
            let data = (ours, pool.clone());
            ring.submitter(Bench::FIRST).stream(data, |(socket, pool)| request::recv_multi(socket, pool))
        };
        let mut ring = bench();
        receive(&mut ring).unwrap();
        while !ring.turn().unwrap().is_idle() {}
        elsewhere(move || drop(ring));
        receive(&mut bench()).expect("no ring has it");
    });
}

#[test]
fn a_finished_ring_may_be_dropped_in_any_thread() {
    in_child(|| {
        let before = open_descriptors();
        let ledger = Ledger::new();
        let data = ledger.issue(1);
        let script = Script::new().on_setup_once(move |mut submitter| {
            submitter.submit(data, |_| request::nop())?;
            Ok(())
        });
        let mut ring = Bench::<Tracked<u32>>::with(8, script);
        ring.run().unwrap();
        ledger.assert_all_dropped_once();
        elsewhere(move || drop(ring));
        assert_eq!(open_descriptors(), before);
    });
}

#[test]
fn a_ring_that_never_ran_may_be_dropped_in_any_thread() {
    in_child(|| {
        let before = open_descriptors();
        let ledger = Ledger::new();
        let mut ring = Bench::<Tracked<u32>>::with(4, Script::new());
        for number in 0..20 {
            let data = ledger.issue(number);
            ring.submitter(Bench::FIRST).submit(data, |_| request::timeout(LONG)).unwrap();
        }
        ring.submitter(Bench::FIRST).post(ledger.issue(20)).unwrap();
        elsewhere(move || drop(ring));
        ledger.assert_all_dropped_once();
        assert_eq!(open_descriptors(), before);
    });
}

#[test]
fn many_rings_run_at_once_each_in_its_thread() {
    watched(|| {
        let threads: Vec<_> = (0..16_u32)
            .map(|number| {
                thread::spawn(move || {
                    let (ledger, log) = (Ledger::new(), Log::new());
                    let seen = log.clone();
                    let script = Script::new()
                        .on_setup_once(move |mut submitter| {
                            for step in 0..50 {
                                let data = ledger.issue((number, step));
                                submitter.submit(data, |_| request::nop())?;
                            }
                            let data = ledger.issue((number, 1000));
                            submitter.submit(data, |_| request::timeout(LONG))?;
                            Ok(())
                        })
                        .on_completion(move |_, mut data: Tracked<(u32, u32)>, mut submitter| {
                            assert_eq!(data.0, number, "that of another ring");
                            seen.push(data.1);
                            data.1 += 100;
                            match data.1 {
                                900.. if seen.len() == 450 => return (ControlFlow::Exit, None),
                                900.. => {}
                                _ => {
                                    let short = Duration::from_micros(200);
                                    submitter.submit(data, move |_| request::timeout(short)).unwrap();
                                }
                            }
                            (ControlFlow::Continue, None)
                        });
                    let mut ring = Bench::with(16, script);
                    ring.run().unwrap();
                    assert_eq!(log.len(), 450);
                    assert_eq!((ring.stats().in_flight, ring.stats().foreign), (0, 0));
                    ledger.assert_all_dropped_once();
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

#[test]
fn two_rings_in_one_thread_do_not_disturb_each_other() {
    watched(|| {
        let log = Log::new();
        let make = |name: &'static str| {
            let log = log.clone();
            let script = Script::new().on_completion(move |_, data: u32, _| {
                log.push((name, data));
                (ControlFlow::Continue, None)
            });
            Bench::with(8, script)
        };
        let (mut one, mut two) = (make("one"), make("two"));
        let key = one.submitter(Bench::FIRST).submit(1, |_| request::timeout(LONG)).unwrap();
        let other_key = two.submitter(Bench::FIRST).submit(2, |_| request::timeout(LONG)).unwrap();
        assert_ne!(key, other_key, "the same slot, the same generation, and yet");
        one.turn().unwrap();
        two.turn().unwrap();
        assert!(!two.submitter(Bench::FIRST).cancel(key), "a key of another ring");
        assert!(one.submitter(Bench::FIRST).cancel(key));
        one.run().unwrap();
        assert_eq!(log.take(), [("one", 1)]);
        assert_eq!(two.stats().in_flight, 1);
        two.finish().unwrap();
    });
}

// ---- operations after the run -----------------------------------------------------------------

#[derive(Default)]
struct Counter {
    count: u32,
    names: Vec<String>,
}

struct Silent;

impl<R: Ring> RingOperation<R> for Counter {
    type RingData = String;
    type SetupError = rummelplatz::SubmitError;
    type TeardownError = Infallible;
    type ControlFlowWarn = Infallible;
    type ControlFlowError = Infallible;

    fn setup(&mut self, mut submitter: Submitter<'_, R, Self>) -> Result<(), Self::SetupError> {
        for name in ["one", "two"] {
            submitter.submit(name.to_owned(), |_| request::nop())?;
        }
        Ok(())
    }

    fn on_completion(
        &mut self,
        _: Completion,
        name: String,
        _: Submitter<'_, R, Self>,
    ) -> CompletionResult<R, Self> {
        self.count += 1;
        self.names.push(name);
        (ControlFlow::Continue, None)
    }
}

impl<R: Ring> RingOperation<R> for Silent {
    type RingData = ();
    type SetupError = Infallible;
    type TeardownError = Infallible;
    type ControlFlowWarn = Infallible;
    type ControlFlowError = Infallible;

    fn on_completion(
        &mut self,
        _: Completion,
        (): (),
        _: Submitter<'_, R, Self>,
    ) -> CompletionResult<R, Self> {
        (ControlFlow::Continue, None)
    }
}

#[ring]
struct Counting {
    counter: Counter,
    silent: Silent,
}

fn counting() -> Counting {
    let raw = Counting::new_raw_ring(NonZeroU32::new(8).unwrap()).unwrap();
    Counting::new(raw, None, Counter::default(), Silent)
}

#[test]
fn the_operations_can_be_read_after_the_run_and_between_runs() {
    watched(|| {
        let mut ring = counting();
        assert_eq!(ring.counter.count, 0);
        ring.run().unwrap();
        assert_eq!(ring.counter.names, ["one", "two"]);
        ring.counter.names.clear();
        ring.run().unwrap();
        assert_eq!((ring.counter.count, ring.counter.names.len()), (4, 2));
    });
}

/// What is not moved out of the ring is dropped here.
fn into_counter(ring: Counting) -> Counter {
    let Counting { counter, silent: Silent, .. } = ring;
    counter
}

#[test]
fn the_operations_can_be_moved_out_of_the_ring() {
    in_child(|| {
        let before = open_descriptors();
        let mut ring = counting();
        ring.run().unwrap();
        let counter = into_counter(ring);
        assert_eq!(counter.names, ["one", "two"]);
        assert_eq!(open_descriptors(), before, "what was left of the ring is gone");

        // Also with requests in flight: these end first.
        let mut ring = counting();
        ring.submitter(Counting::COUNTER).submit("late".into(), |_| request::timeout(LONG)).unwrap();
        ring.turn().unwrap();
        assert_eq!(ring.stats().operation(Counting::COUNTER).in_flight, 1);
        let counter = into_counter(ring);
        assert_eq!(counter.count, 2);
        assert_eq!(open_descriptors(), before);
    });
}

/// A thread has 16 places (`IO_RINGFD_REG_MAX`); a ring that finds none enters by its descriptor.
#[test]
fn a_run_leaves_no_place_taken_in_its_threads_table_of_rings() {
    watched(|| {
        let begin = |mut submitter: BenchSubmitter<'_, ()>| {
            submitter.submit((), |()| request::nop())?;
            Ok(())
        };
        for fails in [false, true] {
            for _ in 0..20 {
                let script = Script::new().on_setup(begin).on_completion(move |_, (), _| match fails {
                    true => panic!("in a run"),
                    false => (ControlFlow::Exit, None),
                });
                let mut ring = Bench::with(8, script);
                match fails {
                    true => assert_eq!(panic_of(|| ring.run()), "in a run"),
                    false => ring.run().unwrap(),
                }
            }
        }
        let others: Vec<_> = (0..16).map(|_| IoUring::new(2).unwrap()).collect();
        for other in &others {
            other.submitter().register_ring_fd().unwrap();
        }
        // Nor does it need a place.
        Bench::with(8, Script::new().on_setup(begin)).run().unwrap();
    });
}

// ---- pools ------------------------------------------------------------------------------------

/// What a connection receives into a pool, and how much of it so far.
struct Incoming {
    number: usize,
    offset: usize,
    socket: TcpStream,
    pool: BufferPool,
}

impl Incoming {
    fn receive(&mut self) -> Stream<'_> {
        request::recv_multi(&self.socket, &self.pool)
    }
}

/// What a connection has received, and from where on.
struct Part {
    number: usize,
    offset: usize,
    buffer: Buffer,
}

/// The byte that a connection receives there.
fn expected(number: usize, offset: usize) -> u8 {
    ((number + 1) * (offset + 7) % 251) as u8
}

impl Part {
    /// Checks every byte, and writes other bytes over them, which anybody else who had the buffer would find. Returns
    /// how many bytes there were.
    fn check_and_spoil(mut self) -> usize {
        for (index, byte) in self.buffer.iter_mut().enumerate() {
            let expected = expected(self.number, self.offset + index);
            assert_eq!(*byte, expected, "byte {} of connection {}", self.offset + index, self.number);
            *byte = !expected;
        }
        self.buffer.len()
    }
}

/// A connection that receives this many bytes and is closed.
fn incoming(
    number: usize,
    length: usize,
    pool: &BufferPool,
) -> (Incoming, thread::JoinHandle<io::Result<()>>) {
    let (mut client, socket) = tcp_pair();
    let writing = thread::spawn(move || {
        let bytes: Vec<u8> = (0..length).map(|offset| expected(number, offset)).collect();
        client.write_all(&bytes)
    });
    (Incoming { number, offset: 0, socket, pool: pool.clone() }, writing)
}

/// Gives what is received to `take`, until all connections are closed, or until the pool is empty if that counts as an
/// end.
fn receiving(
    incoming: Vec<Incoming>,
    ends_when_empty: bool,
    mut take: impl FnMut(Part) + Send + 'static,
) -> Script<Incoming> {
    Script::new()
        .on_setup_once(move |mut submitter| {
            for data in incoming {
                submitter.stream(data, Incoming::receive)?;
            }
            Ok(())
        })
        .on_completion(move |completion, mut data, _| match (completion.more(), completion.into_buffer()) {
            (true, Ok(buffer)) => {
                let Incoming { number, offset, .. } = data;
                data.offset += buffer.len();
                take(Part { number, offset, buffer });
                (ControlFlow::Continue, Some(data))
            }
            (true, Err(_)) if ends_when_empty => (ControlFlow::Exit, None),
            (true, Err(_)) => (ControlFlow::Continue, Some(data)),
            (false, _) => (ControlFlow::Continue, None),
        })
}

#[test]
fn threads_that_drop_buffers_at_once_while_the_ring_receives_lose_none_and_share_none() {
    const CONNECTIONS: usize = 4;
    const LENGTH: usize = 200_000;
    watched(|| {
        let pool = BufferPool::new(16, 61).unwrap();
        let (connections, writing): (Vec<_>, Vec<_>) =
            (0..CONNECTIONS).map(|number| incoming(number, LENGTH, &pool)).unzip();
        let (droppers, dropping): (Vec<_>, Vec<_>) = (0..8)
            .map(|_| {
                let (give, given) = mpsc::channel::<Part>();
                (give, thread::spawn(move || given.into_iter().map(Part::check_and_spoil).sum::<usize>()))
            })
            .unzip();
        // They compete for the lock of the pool, too.
        let done = Arc::new(AtomicBool::new(false));
        let asking: Vec<_> = (0..2)
            .map(|_| {
                let (pool, done) = (pool.clone(), Arc::clone(&done));
                thread::spawn(move || {
                    while !done.load(Ordering::Relaxed) {
                        assert!(pool.available() <= 16);
                    }
                })
            })
            .collect();
        let mut turns = 0;
        let script = receiving(connections, false, move |part| {
            turns += 1;
            droppers[turns % droppers.len()].send(part).unwrap();
        });
        let mut ring = Bench::with(8, script);
        ring.run().unwrap();
        assert_eq!(ring.stats().in_flight, 0);
        // With the channels, so that the threads end.
        drop(ring);
        writing.into_iter().for_each(|thread| thread.join().unwrap().unwrap());
        let checked: usize = dropping.into_iter().map(|thread| thread.join().unwrap()).sum();
        done.store(true, Ordering::Relaxed);
        asking.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!((checked, pool.available()), (CONNECTIONS * LENGTH, 16));
    });
}

/// A ring that registers a pool holds the lock for as long as it takes to offer 32 768 buffers.
#[test]
fn buffers_that_many_threads_drop_while_their_pool_is_being_registered_are_offered_once_each() {
    const BUFFERS: u16 = 32_768;
    const THREADS: usize = 16;
    watched(|| {
        let pool = BufferPool::new(BUFFERS, 8).unwrap();
        for round in 0..6 {
            // Buffers to be dropped.
            let held = Log::new();
            let (connection, writing) = incoming(round, 40_000, &pool);
            let keep = held.clone();
            let mut ring = Bench::with(8, receiving(vec![connection], false, move |part| keep.push(part)));
            ring.run().unwrap();
            writing.join().unwrap().unwrap();
            drop(ring);
            let mut parts = held.take();
            assert_eq!(pool.available() + parts.len(), BUFFERS.into());
            let share = parts.len().div_ceil(THREADS);
            let start = Arc::new(Barrier::new(THREADS + 1));
            let dropping: Vec<_> = (0..THREADS)
                .map(|_| {
                    let mine = parts.split_off(parts.len().saturating_sub(share));
                    let start = Arc::clone(&start);
                    thread::spawn(move || {
                        start.wait();
                        mine.into_iter().map(Part::check_and_spoil).sum::<usize>()
                    })
                })
                .collect();
            // Another ring registers the pool meanwhile, and receives into all of its buffers.
            let (connection, writing) = incoming(round + 1, 40_000, &pool);
            let script = receiving(vec![connection], false, |part| {
                part.check_and_spoil();
            });
            let mut ring = Bench::with(8, script);
            start.wait();
            ring.run().unwrap();
            writing.join().unwrap().unwrap();
            let checked: usize = dropping.into_iter().map(|thread| thread.join().unwrap()).sum();
            assert_eq!((parts.len(), checked, pool.available()), (0, 40_000, BUFFERS.into()));
        }
        // All buffers can be held at once, and no two are the same.
        let (connection, writing) = incoming(0, 8 * 2 * usize::from(BUFFERS), &pool);
        let held = Log::new();
        let keep = held.clone();
        let mut ring = Bench::with(8, receiving(vec![connection], true, move |part| keep.push(part)));
        ring.run().unwrap();
        drop(ring);
        // The connection is gone before all of that was received.
        writing.join().unwrap().ok();
        let parts = held.take();
        let places: HashSet<usize> = parts.iter().map(|part| part.buffer.as_ptr().addr()).collect();
        assert_eq!((parts.len(), places.len(), pool.available()), (BUFFERS.into(), BUFFERS.into(), 0));
        parts.into_iter().for_each(|part| {
            part.check_and_spoil();
        });
        assert_eq!(pool.available(), BUFFERS.into());
    });
}
