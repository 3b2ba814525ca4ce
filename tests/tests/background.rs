//! Requests that do not keep the ring running.

use std::mem;
use std::net::TcpStream;
use std::num::NonZeroU32;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::Duration;

use rummelplatz::{BufferPool, ControlFlow, Request, Status, SubmitError, request};
use rummelplatz_tests::{Bench, Log, Script, outcome, tcp_pair, watched};

const SHORT: Duration = Duration::from_millis(2);
const FOR_EVER: Duration = Duration::from_secs(100_000);
const CANCELLED: Result<u32, i32> = Err(libc::ECANCELED);

/// What was told of which request: while the ring ran, and when it ended.
type Told = Log<(&'static str, Result<u32, i32>)>;

fn told() -> (Script<&'static str>, Told, Told) {
    let (running, ending) = (Told::new(), Told::new());
    let (to_running, to_ending) = (running.clone(), ending.clone());
    let script = Script::new()
        .on_completion(move |completion, name, _| {
            to_running.push((name, outcome(&completion)));
            (ControlFlow::Continue, completion.more().then_some(name))
        })
        .on_teardown(move |completion, name, _| {
            to_ending.push((name, outcome(&completion)));
            Ok(())
        });
    (script, running, ending)
}

#[test]
fn a_ring_ends_when_only_what_is_in_the_background_is_left() {
    watched(|| {
        let (script, running, ending) = told();
        let mut ring = Bench::with(
            8,
            script.on_setup(|mut submitter| {
                submitter.submit_in_background("watcher", |_| request::timeout(FOR_EVER))?;
                submitter.stream_in_background("ticks", |_| request::timeout_multi(FOR_EVER))?;
                submitter.submit("work", |_| request::timeout(SHORT))?;
                Ok(())
            }),
        );
        for _ in 0..2 {
            ring.run().unwrap();
            assert_eq!(running.take(), [("work", Ok(0))]);
            let mut ended = ending.take();
            ended.sort_unstable();
            assert_eq!(ended, [("ticks", CANCELLED), ("watcher", CANCELLED)]);
            assert_eq!(ring.stats().in_flight, 0);
        }
    });
}

#[test]
fn a_ring_with_nothing_else_ends_at_once_but_not_if_somebody_could_wake_it() {
    watched(|| {
        let (script, running, ending) = told();
        let mut times = vec![SHORT, FOR_EVER];
        let mut ring = Bench::with(
            8,
            script.on_setup(move |mut submitter| {
                submitter.submit_in_background("watcher", |_| request::timeout(times.pop().unwrap()))?;
                Ok(())
            }),
        );
        ring.run().unwrap();
        assert_eq!((running.take(), ending.take()), (vec![], vec![("watcher", CANCELLED)]));
        let handle = ring.handle();
        let log = running.clone();
        let stopper = thread::spawn(move || {
            while log.is_empty() {
                thread::sleep(SHORT);
            }
            handle.stop();
        });
        ring.run().unwrap();
        stopper.join().unwrap();
        assert_eq!((running.take(), ending.take()), (vec![("watcher", Ok(0))], vec![]));
    });
}

#[test]
fn each_end_of_a_request_in_the_background_is_counted() {
    watched(|| {
        let told = Log::new();
        let log = told.clone();
        let (mut left, mut ended) = (100, 0);
        let script = Script::new().on_completion(move |completion, name: &'static str, mut submitter| {
            log.push((name, outcome(&completion)));
            if name == "again" && left > 0 {
                left -= 1;
                // In the slot that has just become free: from the foreground to the background, and back.
                let submitted = match left % 2 {
                    0 => submitter.submit("again", |_| request::nop()),
                    _ => submitter.submit_in_background("again", |_| request::nop()),
                };
                submitted.unwrap();
            } else {
                ended += 1;
                if ended == 3 {
                    submitter.cancel_all();
                }
            }
            (ControlFlow::Continue, None)
        });
        let mut ring = Bench::with(4, script);
        let mut submitter = ring.submitter(Bench::FIRST);
        let panic = catch_unwind(AssertUnwindSafe(|| {
            submitter.submit_in_background("never", |_| panic!("as it is meant to")).map(drop)
        }));
        assert!(panic.is_err());
        let cancelled = submitter.submit_in_background("cancelled", |_| request::timeout(FOR_EVER)).unwrap();
        submitter.submit_in_background("late", |_| request::timeout(FOR_EVER).deadline(SHORT)).unwrap();
        submitter.submit("again", |_| request::nop()).unwrap();
        submitter.submit("work", |_| request::timeout(FOR_EVER)).unwrap();
        assert!(submitter.cancel(cancelled));
        assert_eq!(ring.stats().in_flight, 4);
        ring.run().unwrap();
        let mut told = told.take();
        assert_eq!(told.pop(), Some(("work", CANCELLED)));
        told.retain(|it| *it != ("again", Ok(0)));
        told.sort_unstable();
        assert_eq!(told, [("cancelled", CANCELLED), ("late", CANCELLED)]);
        assert_eq!(ring.stats().in_flight, 0);
    });
}

#[test]
fn a_turned_ring_is_idle_with_what_is_in_the_background() {
    watched(|| {
        let (script, _, ending) = told();
        let mut ring = Bench::with(8, script);
        ring.submitter(Bench::FIRST).submit_in_background("watcher", |_| request::timeout(FOR_EVER)).unwrap();
        let mut statuses = Vec::new();
        while statuses.last() != Some(&Status::Idle) {
            statuses.push(ring.turn().unwrap().status);
        }
        assert_eq!(ring.stats().in_flight, 1);
        ring.finish().unwrap();
        assert_eq!(ending.take(), [("watcher", CANCELLED)]);
    });
}

struct Receiver {
    socket: TcpStream,
    pool: BufferPool,
}

impl Receiver {
    fn receive(&mut self) -> Request<'_> {
        request::recv_provided(&self.socket, &self.pool)
    }
}

#[test]
fn what_is_refused_in_the_background_is_not_counted() {
    watched(|| {
        let pool = BufferPool::new(1, 64).unwrap();
        let mut owner: Bench<Receiver> = Bench::with(4, Script::new());
        let mut ring: Bench<Receiver> = Bench::with(4, Script::new());
        let (_client, server) = tcp_pair();
        let receiver = || Receiver { socket: server.try_clone().unwrap(), pool: pool.clone() };
        owner.submitter(Bench::FIRST).submit(receiver(), Receiver::receive).unwrap();
        let refused = ring.submitter(Bench::FIRST).submit_in_background(receiver(), Receiver::receive);
        assert_eq!(refused.unwrap_err(), SubmitError::PoolInUse);
        let refused = ring
            .submitter(Bench::FIRST)
            .stream_in_background(receiver(), |it| request::recv_multi(&it.socket, &it.pool));
        assert_eq!(refused.unwrap_err(), SubmitError::PoolInUse);
        ring.submitter(Bench::FIRST).submit(receiver(), |_| request::timeout(SHORT)).unwrap();
        assert_eq!(ring.stats().in_flight, 1);
        ring.run().unwrap();
        assert_eq!(ring.stats().in_flight, 0);
    });
}

#[test]
fn what_goes_on_in_the_background_does_not_keep_the_ring_running() {
    watched(|| {
        // Ticks that come faster than they are dealt with.
        let (script, _, ending) = told();
        let mut ticks = 0;
        let mut ring = Bench::with(
            8,
            script.on_completion(move |completion, name, _| {
                if name == "ticks" {
                    ticks += 1;
                    assert!(ticks < 10_000, "it is over when the work is done");
                    thread::sleep(SHORT / 10);
                }
                (ControlFlow::Continue, completion.more().then_some(name))
            }),
        );
        let mut submitter = ring.submitter(Bench::FIRST);
        submitter.stream_in_background("ticks", |_| request::timeout_multi(SHORT / 20)).unwrap();
        submitter.submit("work", |_| request::timeout(SHORT)).unwrap();
        ring.run().unwrap();
        assert_eq!(ending.take().len(), 1);

        // A request that is made again and again.
        let ring = || {
            let mut left = 100_000;
            let script = Script::new().on_completion(move |_, name: &'static str, mut submitter| {
                if name == "again" {
                    left -= 1;
                    assert!(left > 0, "it is over when the work is done");
                    submitter.submit_in_background("again", |_| request::nop()).unwrap();
                }
                (ControlFlow::Continue, None)
            });
            let mut ring = Bench::with(8, script);
            ring.submitter(Bench::FIRST).submit_in_background("again", |_| request::nop()).unwrap();
            ring.submitter(Bench::FIRST).submit("work", |_| request::nop()).unwrap();
            ring
        };
        ring().run().unwrap();
        let mut turned = ring();
        while turned.turn().unwrap().status != Status::Idle {}
        turned.finish().unwrap();
    });
}

#[test]
fn what_was_sent_and_waits_for_room_that_a_request_in_the_background_takes_keeps_the_ring_running() {
    watched(|| {
        let limited = |script| {
            let builder = Bench::builder(script, Script::new());
            builder.request_limit(NonZeroU32::MIN).build().unwrap()
        };
        let (script, running, ending) = told();
        let mut ring = limited(script);
        ring.submitter(Bench::FIRST).submit_in_background("watcher", |_| request::timeout(SHORT)).unwrap();
        ring.handle().downgrade().send(Bench::FIRST, "message").unwrap();
        ring.run().unwrap();
        assert_eq!((running.take(), ending.take()), (vec![("watcher", Ok(0)), ("message", Ok(0))], vec![]));

        // Not if nothing will ever make room.
        let (script, running, _) = told();
        let mut ring = limited(script);
        let mut submitter = ring.submitter(Bench::FIRST);
        let mut chain = submitter.chain();
        chain.link("lost", |_| request::nop()).unwrap();
        mem::forget(chain);
        ring.handle().downgrade().send(Bench::FIRST, "message").unwrap();
        let mut submitter = ring.submitter(Bench::SECOND);
        submitter.submit_in_background("watcher", |_| request::timeout(FOR_EVER)).unwrap();
        ring.run().unwrap();
        assert_eq!(running.take(), []);
    });
}
