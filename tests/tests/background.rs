//! Requests that do not keep the ring running.

use std::net::TcpStream;
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
        let mut ring = Bench::with(
            8,
            script.on_setup(|mut submitter| {
                submitter.submit_in_background("watcher", |_| request::timeout(SHORT))?;
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
        let mut left = 100;
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
        submitter.submit("work", |_| request::timeout(10 * SHORT)).unwrap();
        assert!(submitter.cancel(cancelled));
        assert_eq!(ring.stats().in_flight, 4);
        ring.run().unwrap();
        let mut told = told.take();
        assert_eq!(told.pop(), Some(("work", Ok(0))));
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
