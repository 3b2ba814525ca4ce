//! A panic anywhere is memory-safe: what is in flight is cancelled and awaited before its data is
//! dropped, each data is dropped exactly once, and the panic goes on to whoever called the ring.
//!
//! For a panic in each handler see `t19` of the catalogue in `faults/teardown.rs`.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::num::NonZeroU32;
use std::os::fd::{AsRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rummelplatz::io_uring::{cqueue, opcode, squeue, types};
use rummelplatz::request::Events;
use rummelplatz::{BufferPool, Completion, ControlFlow, Key, Request, Stream, SubmitError, request};
use rummelplatz_tests::{
    Bench, BenchSubmitter, Failure, Ledger, Log, Outcome, Script, Tracked, in_child, leaves_nothing, outcome,
    panic_of, pipe, tcp_pair, watched,
};

const FOR_EVER: Duration = Duration::from_secs(100_000);
const SOON: Duration = Duration::from_millis(5);

fn shared_pipe() -> (Arc<OwnedFd>, Arc<OwnedFd>) {
    let (reader, writer) = pipe();
    (Arc::new(reader), Arc::new(writer))
}

/// Data that panics when it is dropped, if it is armed.
struct Bomb {
    armed: bool,
    data: Tracked<u32>,
    file: Option<Arc<OwnedFd>>,
}

impl Drop for Bomb {
    fn drop(&mut self) {
        if self.armed && !thread::panicking() {
            panic!("bomb {}", *self.data);
        }
    }
}

fn dud(ledger: Ledger, number: u32) -> Bomb {
    Bomb { armed: false, data: ledger.issue(number), file: None }
}

fn bomb(ledger: Ledger, number: u32) -> Bomb {
    Bomb { armed: true, data: ledger.issue(number), file: None }
}

fn sleep(_: &mut Bomb) -> Request<'_> {
    request::timeout(FOR_EVER)
}

/// Ten requests that never end by themselves, and a NOP with `nop`.
fn ten_and_a_nop(mut submitter: BenchSubmitter<'_, Bomb>, ledger: Ledger, nop: Bomb) -> Result<(), Failure> {
    for number in 0..10 {
        submitter.submit(dud(ledger, number), sleep)?;
    }
    submitter.submit(nop, |_| request::nop())?;
    Ok(())
}

/// Runs the ring, which must panic with `text`. Then everything must be over, and the ring must work like a new one.
#[track_caller]
fn panics_and_is_over<D: Send + 'static>(ring: &mut Bench<D>, ledger: Ledger, text: &str) {
    assert_eq!(panic_of(|| ring.run()), text);
    assert_eq!((ring.stats().in_flight, ring.stats().backlog), (0, 0));
    ledger.assert_all_dropped_once();
}

// ---- handlers -------------------------------------------------------------------------------------

#[test]
fn in_on_completion_of_a_message() {
    watched(|| {
        let ledger = Ledger::new();
        let script = Script::new()
            .on_setup(move |mut submitter| {
                submitter.post(dud(ledger, 1))?;
                submitter.post(dud(ledger, 2))?;
                ten_and_a_nop(submitter, ledger, dud(ledger, 99))
            })
            .on_completion(|_, _, _| panic!("on_completion"));
        let mut ring = Bench::with(8, script);
        panics_and_is_over(&mut ring, ledger, "on_completion");
    });
}

#[test]
fn in_on_completion_of_a_stream_that_goes_on() {
    watched(|| {
        let ledger = Ledger::new();
        let script = Script::new()
            .on_setup(move |mut submitter| {
                submitter.stream(dud(ledger, 1), |_| request::timeout_multi(Duration::from_millis(1)))?;
                Ok(())
            })
            .on_completion(|completion, _, _| {
                assert!(completion.more());
                panic!("on_completion")
            });
        let mut ring = Bench::with(8, script);
        panics_and_is_over(&mut ring, ledger, "on_completion");
    });
}

#[test]
fn in_on_teardown_completion_of_one_of_several_that_were_never_submitted() {
    watched(|| {
        let ledger = Ledger::new();
        let script = Script::new()
            .on_setup(|_| Err("so the backlog is handed back".into()))
            .on_teardown(|_, _, _| panic!("on_teardown_completion"));
        let mut ring = Bench::with(2, script);
        let mut submitter = ring.submitter(Bench::FIRST);
        for number in 0..10 {
            submitter.submit(dud(ledger, number), sleep).unwrap();
        }
        submitter.post(dud(ledger, 10)).unwrap();
        panics_and_is_over(&mut ring, ledger, "on_teardown_completion");
    });
}

#[test]
fn in_a_teardown_that_finish_has_begun() {
    watched(|| {
        let ledger = Ledger::new();
        let script = Script::new()
            .on_setup(move |submitter| ten_and_a_nop(submitter, ledger, dud(ledger, 99)))
            .on_teardown(|_, _, _| panic!("on_teardown_completion"));
        let mut ring = Bench::with(8, script);
        ring.turn().unwrap();
        assert_eq!(panic_of(|| ring.finish()), "on_teardown_completion");
        assert_eq!(ring.stats().in_flight, 0);
        ledger.assert_all_dropped_once();
    });
}

#[test]
fn in_the_hook_for_warnings() {
    watched(|| {
        let ledger = Ledger::new();
        let script = Script::new()
            .on_setup(move |submitter| ten_and_a_nop(submitter, ledger, dud(ledger, 99)))
            .on_completion(|_, _, _| (ControlFlow::Warn("careful"), None));
        let mut ring =
            Bench::builder(script, Script::new()).on_warn(|warning| panic!("{warning}")).build().unwrap();
        panics_and_is_over(&mut ring, ledger, "operation `first`: careful");
    });
}

#[test]
fn while_the_ring_is_dropped() {
    watched(|| {
        let ledger = Ledger::new();
        let script = Script::new()
            .on_setup(move |submitter| ten_and_a_nop(submitter, ledger, dud(ledger, 99)))
            .on_teardown(|_, _, _| panic!("not to be called"));
        let text = panic_of(|| {
            let mut ring = Bench::with(8, script);
            ring.turn().unwrap();
            panic!("of the caller, with {} in flight", ring.stats().in_flight);
        });
        assert_eq!(text, "of the caller, with 10 in flight");
        ledger.assert_all_dropped_once();
    });
}

// ---- what a handler has done before it panics ---------------------------------------------------------

/// How many requests the operation may have in flight.
const LIMIT: u32 = 8;

/// What leads to the completion in whose handler there is a panic.
const TRIGGERS: [Trigger; 4] = [
    // The handler may use the slot of the request again.
    |submitter, data| submitter.submit(data, |_| request::nop()).map(|_| ()),
    // What is remembered of the request must be looked at.
    |submitter, data| submitter.submit(data, |_| request::timeout(Duration::from_millis(1))).map(|_| ()),
    // Its data is lent, and the stream goes on.
    |submitter, data| {
        submitter.stream(data, |_| request::timeout_multi(Duration::from_millis(1))).map(|_| ())
    },
    // The kernel does not know of it.
    |submitter, data| submitter.post(data),
];

type Trigger = fn(&mut BenchSubmitter<'_, Bomb>, Bomb) -> Result<(), SubmitError>;

/// What a handler has done before it panics. Its return value is dropped by the panic.
type Deed = fn(Completion, Bomb, &mut BenchSubmitter<'_, Bomb>, Ledger, &Keys) -> Option<(Completion, Bomb)>;

/// The keys of what a handler has submitted.
type Keys = Log<Key<Script<Bomb>>>;

const DEEDS: [(&str, Deed); 16] = [
    ("nothing", |completion, data, _, _, _| Some((completion, data))),
    ("dropped the data", |completion, data, _, _, _| {
        drop((completion, data));
        None
    }),
    ("submitted the data again", |_, data, submitter, _, keys| {
        keys.push(submitter.submit(data, sleep).unwrap());
        None
    }),
    ("had a helper submit the data, by a submitter of its own", |_, data, submitter, _, keys| {
        let mut helpers = submitter.reborrow();
        keys.push(helpers.reborrow().submit(data, |_| request::nop()).unwrap());
        None
    }),
    ("submitted other data", |completion, data, submitter, ledger, keys| {
        keys.push(submitter.submit(dud(ledger, 1), |_| request::nop()).unwrap());
        Some((completion, data))
    }),
    ("submitted several", |completion, data, submitter, ledger, keys| {
        for number in 1..4 {
            keys.push(submitter.submit(dud(ledger, number), sleep).unwrap());
        }
        Some((completion, data))
    }),
    ("submitted as many as it may", |completion, data, submitter, ledger, keys| {
        loop {
            match submitter.try_submit(dud(ledger, 1), sleep) {
                Ok(key) => keys.push(key),
                Err(refused) => {
                    assert_eq!(refused.error, SubmitError::TooManyRequests);
                    return Some((completion, data));
                }
            }
        }
    }),
    ("detached the data", |_, data, submitter, _, _| {
        submitter.detach(data, sleep).unwrap();
        None
    }),
    ("begun a stream", |_, data, submitter, _, keys| {
        keys.push(submitter.stream(data, |_| request::timeout_multi(FOR_EVER)).unwrap());
        None
    }),
    ("posted the data", |_, data, submitter, _, _| {
        submitter.post(data).unwrap();
        None
    }),
    ("pushed a chain", |_, data, submitter, ledger, keys| {
        let nop = opcode::Nop::new().build();
        let entries = [nop.clone().flags(squeue::Flags::IO_LINK), nop];
        // SAFETY: they point to nothing.
        let pushed =
            unsafe { submitter.push_multiple(entries, [data, dud(ledger, 1)]) }.map_err(|it| it.error);
        pushed.unwrap().into_iter().for_each(|key| keys.push(key));
        None
    }),
    ("submitted to another operation", |_, data, submitter, _, _| {
        submitter.to(Bench::SECOND).submit(data, sleep).unwrap();
        None
    }),
    ("submitted to another operation and then to its own", |_, data, submitter, ledger, keys| {
        submitter.to(Bench::SECOND).submit(dud(ledger, 1), sleep).unwrap();
        keys.push(submitter.submit(data, sleep).unwrap());
        None
    }),
    ("cancelled all", |completion, data, submitter, _, _| {
        assert!(submitter.cancel_all() >= 3);
        Some((completion, data))
    }),
    ("survived a closure that panics", |completion, data, submitter, ledger, keys| {
        assert_eq!(panic_of(|| submitter.submit(dud(ledger, 1), |_| panic!("build"))), "build");
        keys.push(submitter.submit(dud(ledger, 2), sleep).unwrap());
        assert_eq!(panic_of(|| submitter.submit(dud(ledger, 3), |_| panic!("build"))), "build");
        Some((completion, data))
    }),
    ("been refused", |completion, data, submitter, ledger, _| {
        let entry = opcode::Nop::new().build().flags(squeue::Flags::IO_LINK);
        // SAFETY: it points to nothing.
        let refused = unsafe { submitter.push(entry, dud(ledger, 1)) }.unwrap_err();
        drop(refused);
        Some((completion, data))
    }),
];

/// Ends a ring by a panic in `on_completion`. Then nothing is in flight, all data was dropped once, and each slot is
/// free exactly once: as many requests fit as before, and no key is valid for another request.
fn panics_after(trigger: Trigger, deed: Deed, by_turns: bool) {
    let ledger = Ledger::new();
    let (keys, told) = (Keys::new(), Log::new());
    let (made, seen) = (keys.clone(), told.clone());
    let mut panics = true;
    let script = Script::new().on_completion(move |completion, data: Bomb, mut submitter| {
        if std::mem::take(&mut panics) {
            let _dropped = deed(completion, data, &mut submitter, ledger, &made);
            panic!("after that");
        }
        let number = *data.data;
        seen.push((number, outcome(&completion)));
        match number {
            // Data that is not a stream's: not even that of a stream in whose handler there was a panic.
            0 => (ControlFlow::Warn("late"), Some(data)),
            _ => (ControlFlow::Continue, None),
        }
    });
    let builder = Bench::builder(script, Script::new()).request_limit(NonZeroU32::new(LIMIT).unwrap());
    let mut ring = builder.build().unwrap();
    let mut submitter = ring.submitter(Bench::FIRST);
    for number in 10..13 {
        keys.push(submitter.submit(dud(ledger, number), sleep).unwrap());
    }
    trigger(&mut submitter, dud(ledger, 0)).unwrap();
    let text = panic_of(|| match by_turns {
        true => loop {
            ring.turn().unwrap();
        },
        false => ring.run().unwrap(),
    });
    assert_eq!(text, "after that");
    assert_eq!((ring.stats().in_flight, ring.stats().backlog, told.len()), (0, 0, 0));
    ledger.assert_all_dropped_once();

    let stale = keys.take();
    let mut submitter = ring.submitter(Bench::FIRST);
    let new = (0..LIMIT).map(|number| submitter.submit(dud(ledger, number), |_| request::nop()).unwrap());
    let places: HashSet<u64> = new.map(|key| key.user_data()).collect();
    assert_eq!(places.len(), LIMIT as usize);
    assert_eq!(submitter.submit(dud(ledger, 0), sleep).unwrap_err(), SubmitError::TooManyRequests);
    assert!(stale.into_iter().all(|key| !submitter.cancel(key)), "those of requests that are over");
    ring.run().unwrap();
    let mut told = told.take();
    told.sort_unstable();
    assert!(told.into_iter().eq((0..LIMIT).map(|number| (number, Ok(0)))));
    assert_eq!(ring.stats().returned_late, 1);
    ledger.assert_all_dropped_once();
}

#[test]
fn in_on_completion_after_anything_that_a_handler_can_do() {
    watched(|| {
        for (name, deed) in DEEDS {
            for trigger in TRIGGERS {
                for by_turns in [false, true] {
                    let panics = || panics_after(trigger, deed, by_turns);
                    if let Err(panic) = std::panic::catch_unwind(panics) {
                        eprintln!("when the handler has {name} before");
                        std::panic::resume_unwind(panic);
                    }
                }
            }
        }
    });
}

#[test]
fn in_on_teardown_completion_after_it_has_submitted() {
    watched(|| {
        for (name, deed) in DEEDS {
            let (ledger, keys) = (Ledger::new(), Keys::new());
            let script = Script::new()
                .on_setup(move |submitter| ten_and_a_nop(submitter, ledger, dud(ledger, 99)))
                .on_completion(|_, _, _| (ControlFlow::Exit, None))
                .on_teardown(move |completion, data, mut submitter| {
                    // These two assert limits and numbers in flight that hold only in the other test.
                    if !["submitted as many as it may", "cancelled all"].contains(&name) {
                        let _dropped = deed(completion, data, &mut submitter, ledger, &keys);
                    }
                    panic!("{name}");
                });
            let mut ring = Bench::with(8, script);
            panics_and_is_over(&mut ring, ledger, name);
            panics_and_is_over(&mut ring, ledger, name);
        }
    });
}

#[test]
fn in_a_handler_that_has_a_descriptor_or_a_buffer() {
    watched(|| {
        // For a request, and for a stream.
        for is_stream in [false, true] {
            let ledger = Ledger::new();
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let data = ledger.issue(listener);
            let script = Script::new()
                .on_setup_once(move |mut submitter| {
                    match is_stream {
                        true => submitter.stream(data, |it| request::accept_multi(&it.value))?,
                        false => submitter.submit(data, |it| request::accept(&it.value))?,
                    };
                    Ok(())
                })
                .on_completion(|completion, _data, _| panic!("with {:?}", outcome(&completion)));
            let mut ring = Bench::with(8, script);
            panics_and_is_over(&mut ring, ledger, "with Ok(0)");
            assert_eq!(client.read(&mut [0]).unwrap_or(0), 0, "nobody has its other end");
        }
        let ledger = Ledger::new();
        let (mut client, server) = tcp_pair();
        client.write_all(b"hello").unwrap();
        let pool = BufferPool::new(4, 8).unwrap();
        let data = ledger.issue((server, pool.clone()));
        let script = Script::new()
            .on_setup_once(move |mut submitter| {
                submitter.stream(data, |it| request::recv_multi(&it.value.0, &it.value.1))?;
                Ok(())
            })
            .on_completion(|completion, _data, _| {
                let buffer = completion.into_buffer().unwrap();
                panic!("with {} bytes", buffer.len());
            });
        let mut ring = Bench::with(8, script);
        panics_and_is_over(&mut ring, ledger, "with 5 bytes");
        assert_eq!(pool.available(), 4);
    });
}

// ---- streams that the kernel has cut ----------------------------------------------------------------

/// A listener with twelve clients waiting, and how often its stream was armed.
struct Listener {
    listener: TcpListener,
    armed: Tracked<u32>,
    _clients: Vec<TcpStream>,
}

impl Listener {
    fn new(ledger: Ledger) -> Listener {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let clients = (0..12).map(|_| TcpStream::connect(address).unwrap()).collect();
        Listener { listener, armed: ledger.issue(0), _clients: clients }
    }

    fn accept(&mut self) -> Stream<'_> {
        *self.armed += 1;
        request::accept_multi(&self.listener)
    }

    fn accept_once(&mut self) -> Stream<'_> {
        assert!(*self.armed == 0, "arm");
        self.accept()
    }
}

/// Whether the kernel no longer has the stream of this completion.
fn was_cut(completion: &Completion) -> bool {
    completion.more() && !cqueue::more(completion.raw().flags)
}

/// With a completion queue of four, so that a stream is cut after four connections.
fn cut(
    arm: for<'d> fn(&'d mut Listener) -> Stream<'d>,
    handler: impl FnMut(Completion, Listener, BenchSubmitter<'_, Listener>) -> Outcome<Listener> + Send + 'static,
    text: &str,
) {
    let ledger = Ledger::new();
    let script = Script::new()
        .on_setup(move |mut submitter| {
            submitter.stream(Listener::new(ledger), arm)?;
            Ok(())
        })
        .on_completion(handler);
    let mut ring = Bench::builder(script, Script::new())
        .entries(4.try_into().unwrap())
        .completion_entries(4.try_into().unwrap())
        .build()
        .unwrap();
    panics_and_is_over(&mut ring, ledger, text);
    panics_and_is_over(&mut ring, ledger, text);
}

#[test]
fn in_on_completion_of_a_stream_that_was_cut() {
    watched(|| {
        let handler = |completion, listener, _: BenchSubmitter<'_, Listener>| {
            assert!(!was_cut(&completion), "cut");
            (ControlFlow::Continue, Some(listener))
        };
        cut(Listener::accept, handler, "cut");
    });
}

#[test]
fn in_on_completion_of_a_stream_that_was_cut_and_has_cancelled_itself() {
    watched(|| {
        let handler = |completion, listener, mut submitter: BenchSubmitter<'_, Listener>| {
            if was_cut(&completion) {
                assert_eq!(submitter.cancel_all(), 1);
                panic!("cut and cancelled");
            }
            (ControlFlow::Continue, Some(listener))
        };
        cut(Listener::accept, handler, "cut and cancelled");
    });
}

#[test]
fn in_the_function_of_a_stream_when_it_is_armed_again() {
    watched(|| {
        let handler = |_, listener, _: BenchSubmitter<'_, Listener>| (ControlFlow::Continue, Some(listener));
        cut(Listener::accept_once, handler, "arm");
    });
}

#[test]
fn in_the_function_of_a_stream_when_it_is_submitted() {
    watched(|| {
        let ledger = Ledger::new();
        let script = Script::new()
            .on_setup(move |submitter| ten_and_a_nop(submitter, ledger, dud(ledger, 99)))
            .on_completion(move |_, _, mut submitter| {
                submitter.stream(dud(ledger, 1), |_| panic!("arm")).ok();
                unreachable!()
            });
        let mut ring = Bench::with(8, script);
        panics_and_is_over(&mut ring, ledger, "arm");
    });
}

// ---- closures that build requests -------------------------------------------------------------------

#[test]
fn in_the_closure_of_submit_within_a_handler() {
    watched(|| {
        let ledger = Ledger::new();
        let script = Script::new()
            .on_setup(move |submitter| ten_and_a_nop(submitter, ledger, dud(ledger, 99)))
            .on_completion(move |_, _, mut submitter| {
                submitter.submit(dud(ledger, 1), |_| panic!("build")).ok();
                unreachable!()
            });
        let mut ring = Bench::with(8, script);
        panics_and_is_over(&mut ring, ledger, "build");
    });
}

#[test]
fn in_a_handler_that_has_the_only_slot_and_the_slot_is_there_again() {
    watched(|| {
        let ledger = Ledger::new();
        let script = Script::new()
            .on_setup(move |mut submitter| {
                submitter.submit(dud(ledger, 1), |_| request::nop())?;
                Ok(())
            })
            .on_completion(move |_, _, _| panic!("with the slot of its request"));
        let builder = Bench::builder(script, Script::new());
        let mut ring = builder.request_limit(NonZeroU32::new(1).unwrap()).build().unwrap();
        for _ in 0..3 {
            assert_eq!(panic_of(|| ring.run()), "with the slot of its request");
            assert_eq!((ring.stats().in_flight, ledger.alive()), (0, 0));
        }
        ledger.assert_all_dropped_once();
    });
}

#[test]
fn in_the_closure_of_submit_outside_of_a_run() {
    watched(|| {
        let ledger = Ledger::new();
        let seen = Log::new();
        let log = seen.clone();
        let script = Script::new().on_completion(move |completion, data: Bomb, _| {
            log.push((*data.data, outcome(&completion)));
            (ControlFlow::Continue, None)
        });
        let mut ring = Bench::with(8, script);
        ring.submitter(Bench::FIRST).submit(dud(ledger, 1), |_| request::nop()).unwrap();
        for _ in 0..3 {
            let mut submitter = ring.submitter(Bench::FIRST);
            assert_eq!(panic_of(|| submitter.submit(dud(ledger, 2), |_| panic!("build"))), "build");
            assert_eq!(panic_of(|| submitter.detach(dud(ledger, 2), |_| panic!("build"))), "build");
            assert_eq!(panic_of(|| submitter.stream(dud(ledger, 2), |_| panic!("arm"))), "arm");
            assert_eq!(ledger.alive(), 1, "only that which was submitted before");
            assert_eq!(ring.stats().in_flight, 1);
        }
        ring.submitter(Bench::FIRST).submit(dud(ledger, 3), |_| request::nop()).unwrap();
        ring.run().unwrap();
        assert_eq!(seen.take(), [(1, Ok(0)), (3, Ok(0))]);
        ledger.assert_all_dropped_once();
    });
}

#[test]
fn in_the_drop_of_data_whose_closure_panicked_is_no_second_panic() {
    watched(|| {
        let ledger = Ledger::new();
        let mut ring = Bench::with(8, Script::new());
        let mut submitter = ring.submitter(Bench::FIRST);
        assert_eq!(panic_of(|| submitter.submit(bomb(ledger, 1), |_| panic!("build"))), "build");
        ring.run().unwrap();
        ledger.assert_all_dropped_once();
    });
}

// ---- drops of data ------------------------------------------------------------------------------------

#[test]
fn in_the_drop_of_data_that_was_returned_late() {
    watched(|| {
        let ledger = Ledger::new();
        let script = Script::new()
            .on_setup(move |submitter| ten_and_a_nop(submitter, ledger, bomb(ledger, 99)))
            .on_completion(|_, data, _| (ControlFlow::Continue, Some(data)));
        let mut ring = Bench::with(8, script);
        panics_and_is_over(&mut ring, ledger, "bomb 99");
    });
}

#[test]
fn in_the_drop_of_detached_data() {
    watched(|| {
        let ledger = Ledger::new();
        let script = Script::new()
            .on_setup(move |mut submitter| {
                submitter.detach(bomb(ledger, 98), |_| request::nop())?;
                submitter.detach(bomb(ledger, 97), |_| request::nop())?;
                ten_and_a_nop(submitter, ledger, dud(ledger, 99))
            })
            .on_completion(|_, _, _| (ControlFlow::Continue, None));
        let mut ring = Bench::with(8, script);
        panics_and_is_over(&mut ring, ledger, "bomb 98");
    });
}

#[test]
fn in_the_drop_of_the_data_of_a_stream_that_was_not_given_back() {
    watched(|| {
        let ledger = Ledger::new();
        let script = Script::new()
            .on_setup(move |mut submitter| {
                let every = |_: &mut Bomb| request::timeout_multi(Duration::from_millis(1));
                submitter.stream(bomb(ledger, 7), every)?;
                ten_and_a_nop(submitter, ledger, dud(ledger, 99))
            })
            .on_completion(|_, _, _| (ControlFlow::Continue, None));
        let mut ring = Bench::with(8, script);
        panics_and_is_over(&mut ring, ledger, "bomb 7");
    });
}

#[test]
fn in_the_drop_of_each_data_while_a_panic_ends_the_ring() {
    watched(|| {
        let ledger = Ledger::new();
        let script = Script::new()
            .on_setup(move |mut submitter| {
                for number in 0..10 {
                    submitter.submit(bomb(ledger, number), sleep)?;
                    submitter.detach(bomb(ledger, number), sleep)?;
                    submitter.post(bomb(ledger, number))?;
                }
                submitter.submit(dud(ledger, 99), |_| request::nop())?;
                Ok(())
            })
            .on_completion(|_, _, _| panic!("the first"));
        let mut ring = Bench::with(4, script);
        panics_and_is_over(&mut ring, ledger, "the first");
    });
}

#[test]
fn in_the_drop_of_each_data_in_teardown() {
    watched(|| {
        let ledger = Ledger::new();
        let script = Script::new()
            .on_setup(move |mut submitter| {
                for _ in 0..10 {
                    submitter.submit(bomb(ledger, 1), sleep)?;
                }
                submitter.submit(dud(ledger, 99), |_| request::nop())?;
                Ok(())
            })
            .on_completion(|_, _, _| (ControlFlow::Exit, None));
        let mut ring = Bench::with(4, script);
        panics_and_is_over(&mut ring, ledger, "bomb 1");
    });
}

#[test]
fn in_the_drop_of_each_data_while_the_ring_is_dropped() {
    watched(|| {
        for turns in [0, 2] {
            let ledger = Ledger::new();
            let mut ring = Bench::with(4, Script::new());
            for _ in 0..turns {
                ring.turn().unwrap();
            }
            let mut submitter = ring.submitter(Bench::FIRST);
            for _ in 0..10 {
                submitter.submit(bomb(ledger, 5), sleep).unwrap();
            }
            assert_eq!(panic_of(|| drop(ring)), "bomb 5");
            ledger.assert_all_dropped_once();
        }
    });
}

#[test]
fn in_the_drop_of_refused_data() {
    watched(|| {
        let ledger = Ledger::new();
        let mut ring = Bench::builder(Script::new(), Script::new())
            .request_limit(1.try_into().unwrap())
            .build()
            .unwrap();
        let mut submitter = ring.submitter(Bench::FIRST);
        submitter.submit(dud(ledger, 1), |_| request::nop()).unwrap();
        assert_eq!(panic_of(|| submitter.submit(bomb(ledger, 2), |_| request::nop())), "bomb 2");
        assert_eq!(panic_of(|| submitter.post(bomb(ledger, 3))), "bomb 3");
        ring.run().unwrap();
        ledger.assert_all_dropped_once();
    });
}

#[test]
fn in_the_drop_of_data_of_a_hard_chain_while_the_ring_ends() {
    watched(|| {
        let ledger = Ledger::new();
        let (reader, _writer) = shared_pipe();
        let script = Script::new()
            .on_setup(move |mut submitter| {
                let data = [0, 1, 2].map(|number| {
                    let mut data = bomb(ledger, number);
                    data.file = Some(Arc::clone(&reader));
                    data
                });
                let fd = types::Fd(reader.as_raw_fd());
                let poll = opcode::PollAdd::new(fd, Events::READABLE.bits()).build();
                let hard = poll.clone().flags(squeue::Flags::IO_HARDLINK);
                // SAFETY: polls point to nothing, and each data owns a share of the descriptor.
                unsafe { submitter.push_multiple([hard.clone(), hard, poll], data) }
                    .map_err(SubmitError::from)?;
                submitter.submit(dud(ledger, 99), |_| request::nop())?;
                Ok(())
            })
            .on_completion(|_, _, _| panic!("the first"));
        let mut ring = Bench::with(8, script);
        panics_and_is_over(&mut ring, ledger, "the first");
    });
}

// ---- threads ------------------------------------------------------------------------------------------

#[test]
fn a_panic_in_a_thread_that_owns_a_ring_is_reported_by_its_join() {
    watched(|| {
        let ledger = Ledger::new();
        let ended = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&ended);
        let worker = thread::spawn(move || {
            let script = Script::new()
                .on_setup(move |submitter| ten_and_a_nop(submitter, ledger, dud(ledger, 99)))
                .on_completion(|_, _, _| panic!("in the thread"));
            let mut ring = Bench::with(8, script);
            let result = ring.run();
            flag.store(true, Ordering::Relaxed);
            drop(result);
        });
        assert_eq!(
            panic_of(|| worker.join().unwrap_or_else(|it| std::panic::resume_unwind(it))),
            "in the thread"
        );
        assert!(!ended.load(Ordering::Relaxed));
        ledger.assert_all_dropped_once();
    });
}

#[test]
fn in_the_drop_of_each_data_the_first_is_told_of() {
    watched(|| {
        let ledger = Ledger::new();
        let mut ring = Bench::with(8, Script::new());
        for number in 1..4 {
            let mut submitter = ring.submitter(Bench::FIRST);
            submitter.submit(bomb(ledger, number), |_| request::nop()).unwrap();
        }
        assert_eq!(panic_of(|| drop(ring)), "bomb 1");
        ledger.assert_all_dropped_once();
    });
}

#[test]
fn in_the_drop_of_what_was_sent_to_a_ring_that_never_ran() {
    watched(|| {
        let ledger = Ledger::new();
        let mut ring = Bench::with(8, Script::new());
        let handle = ring.handle();
        handle.send(Bench::FIRST, bomb(ledger, 1)).unwrap();
        handle.send(Bench::FIRST, dud(ledger, 2)).unwrap();
        assert_eq!(panic_of(|| drop(ring)), "bomb 1");
        ledger.assert_all_dropped_once();
    });
}

/// Panics when it is dropped, even during another panic.
struct Ruthless;

impl Drop for Ruthless {
    fn drop(&mut self) {
        panic!("ruthless");
    }
}

#[test]
fn in_the_drop_of_data_while_a_panic_drops_the_ring() {
    watched(|| {
        let mut ring = Bench::with(8, Script::new());
        ring.submitter(Bench::FIRST).submit(Ruthless, |_| request::nop()).unwrap();
        let text = panic_of(move || {
            let _ring = ring;
            panic!("the first");
        });
        assert_eq!(text, "the first");
    });
}

// ---- data that was sent ---------------------------------------------------------------------------------

/// A ring with room for the ten requests and the NOP, but not for anything that is sent.
fn crowded(ledger: Ledger, script: Script<Bomb>) -> Bench<Bomb> {
    let script = script.on_setup_once(move |submitter| ten_and_a_nop(submitter, ledger, dud(ledger, 99)));
    let builder = Bench::builder(script, Script::new()).request_limit(11.try_into().unwrap());
    builder.entries(NonZeroU32::new(8).unwrap()).grace(Duration::ZERO).build().unwrap()
}

/// Sends data that panics if the ring has no room for it.
fn send_bombs(submitter: &mut BenchSubmitter<'_, Bomb>, ledger: Ledger) {
    let handle = submitter.handle();
    // The NOP for which this is called is over; its slot is the only free place.
    for data in [dud(ledger, 20), bomb(ledger, 21), dud(ledger, 22), bomb(ledger, 23), dud(ledger, 24)] {
        handle.send(Bench::FIRST, data).unwrap();
    }
}

/// Checks that the ring runs and can be stopped.
fn is_as_good_as_new(mut ring: Bench<Bomb>, ledger: Ledger) {
    let handle = ring.handle();
    ring.submitter(Bench::FIRST).submit(dud(ledger, 30), |_| request::timeout(FOR_EVER)).unwrap();
    handle.stop();
    ring.run().unwrap();
    drop((ring, handle));
    ledger.assert_all_dropped_once();
}

#[test]
fn in_the_drop_of_what_was_sent_in_vain_while_a_panic_ends_the_ring() {
    watched(|| {
        let ledger = Ledger::new();
        let script = Script::new().on_completion(move |_, _, mut submitter| {
            send_bombs(&mut submitter, ledger);
            panic!("the first")
        });
        let mut ring = crowded(ledger, script);
        panics_and_is_over(&mut ring, ledger, "the first");
        is_as_good_as_new(ring, ledger);
    });
}

#[test]
fn in_the_drop_of_what_was_sent_in_vain_while_the_ring_runs_or_ends() {
    watched(|| {
        for exits in [false, true] {
            let ledger = Ledger::new();
            let script = Script::new().on_completion(move |completion, _, mut submitter| {
                if completion.is_message() {
                    return (ControlFlow::Continue, None);
                }
                send_bombs(&mut submitter, ledger);
                (if exits { ControlFlow::Exit } else { ControlFlow::Continue }, None)
            });
            let mut ring = crowded(ledger, script);
            panics_and_is_over(&mut ring, ledger, "bomb 21");
            is_as_good_as_new(ring, ledger);
        }
    });
}

#[test]
fn in_the_drop_of_what_was_sent_before_a_setup_that_fails() {
    watched(|| {
        let ledger = Ledger::new();
        let script = Script::new().on_setup_once(|_| Err("no such luck".into()));
        let builder = Bench::builder(script, Script::new()).request_limit(1.try_into().unwrap());
        let mut ring = builder.build().unwrap();
        let handle = ring.handle();
        for data in [dud(ledger, 1), bomb(ledger, 2), bomb(ledger, 3), dud(ledger, 4)] {
            handle.send(Bench::FIRST, data).unwrap();
        }
        panics_and_is_over(&mut ring, ledger, "bomb 2");
        is_as_good_as_new(ring, ledger);
    });
}

#[test]
fn in_the_drop_of_data_of_a_handler_that_ends_the_run_and_the_next_one_does_not_end_by_it() {
    watched(|| {
        let ledger = Ledger::new();
        let told = Log::new();
        let (log, late) = (told.clone(), told.clone());
        let script = Script::new()
            .on_completion(move |_, data: Bomb, _| {
                log.push(*data.data);
                match data.armed {
                    true => (ControlFlow::Error("of the first run".into()), Some(data)),
                    false => (ControlFlow::Continue, None),
                }
            })
            .on_teardown(move |_, data, _| {
                late.push(100 + *data.data);
                Ok(())
            });
        let mut ring = Bench::with(8, script);
        ring.submitter(Bench::FIRST).submit(bomb(ledger, 1), |_| request::nop()).unwrap();
        panics_and_is_over(&mut ring, ledger, "bomb 1");
        ring.submitter(Bench::FIRST).submit(dud(ledger, 2), |_| request::nop()).unwrap();
        ring.submitter(Bench::FIRST).submit(dud(ledger, 3), |_| request::timeout(SOON)).unwrap();
        ring.run().unwrap();
        assert_eq!(told.take(), [1, 2, 3]);
        ledger.assert_all_dropped_once();
    });
}

// ---- panics of panics ---------------------------------------------------------------------------------------

/// The payload of a panic, which panics itself when it is dropped.
struct Payload;

impl Drop for Payload {
    fn drop(&mut self) {
        std::panic::panic_any(Payload);
    }
}

/// Panics with a [`Payload`] when it is dropped.
struct Grenade(#[expect(dead_code, reason = "counted")] Tracked<()>);

impl Drop for Grenade {
    fn drop(&mut self) {
        std::panic::panic_any(Payload);
    }
}

/// Runs a body that must panic with a [`Payload`].
fn panics_with_payload<T>(body: impl FnOnce() -> T) {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(_) => panic!("no panic came through"),
        Err(panic) => {
            assert!(panic.is::<Payload>());
            std::mem::forget(panic);
        }
    }
}

#[test]
fn in_the_drop_of_what_drops_panicked_with_while_the_ring_is_dropped() {
    in_child(|| {
        for turns in [0, 2] {
            leaves_nothing(|ledger| {
                let mut ring = Bench::with(4, Script::new());
                let handle = ring.handle();
                for _ in 0..turns {
                    ring.turn().unwrap();
                }
                for _ in 0..4 {
                    let data = Grenade(ledger.issue(()));
                    ring.submitter(Bench::FIRST).submit(data, |_| request::timeout(FOR_EVER)).unwrap();
                    handle.send(Bench::FIRST, Grenade(ledger.issue(()))).unwrap();
                }
                drop(handle);
                panics_with_payload(|| drop(ring));
            });
        }
    });
}

#[test]
fn in_the_drop_of_what_drops_panicked_with_while_a_panic_ends_the_ring() {
    in_child(|| {
        leaves_nothing(|ledger| {
            let script = Script::new().on_completion(|_, data, _| {
                std::mem::forget(data);
                panic!("the first")
            });
            let mut ring = Bench::with(4, script);
            for _ in 0..4 {
                let data = Grenade(ledger.issue(()));
                ring.submitter(Bench::FIRST).submit(data, |_| request::timeout(FOR_EVER)).unwrap();
            }
            // It has a ledger of its own, because it is forgotten.
            let data = Grenade(Ledger::new().issue(()));
            ring.submitter(Bench::FIRST).submit(data, |_| request::nop()).unwrap();
            assert_eq!(panic_of(|| ring.run()), "the first");
            assert_eq!(ring.stats().in_flight, 0);
            ring.run().unwrap();
        });
    });
}

#[test]
fn in_the_drop_of_what_drops_panicked_with_while_a_chain_is_dropped() {
    in_child(|| {
        leaves_nothing(|ledger| {
            let mut ring = Bench::with(4, Script::new());
            let mut fill = |and: &mut dyn FnMut()| {
                let mut submitter = ring.submitter(Bench::FIRST);
                let mut chain = submitter.chain();
                for _ in 0..4 {
                    chain.link(Grenade(ledger.issue(())), |_| request::nop()).unwrap();
                }
                and();
            };
            panics_with_payload(|| fill(&mut || ()));
            assert_eq!(panic_of(|| fill(&mut || panic!("the first"))), "the first");
            assert_eq!(ring.stats().in_flight, 0);
        });
    });
}

// ---- closures ---------------------------------------------------------------------------------------------------

/// Builds a request, if it is asked to.
fn holding(ruthless: Ruthless) -> impl for<'d> FnOnce(&'d mut Tracked<()>) -> Request<'d> {
    move |_| {
        std::mem::forget(ruthless);
        request::nop()
    }
}

#[test]
fn in_the_drop_of_the_closure_of_what_is_refused() {
    watched(|| {
        let ledger = Ledger::new();
        let mut ring = Bench::builder(Script::new(), Script::new())
            .request_limit(1.try_into().unwrap())
            .build()
            .unwrap();
        let mut submitter = ring.submitter(Bench::FIRST);
        submitter.submit(ledger.issue(()), |_| request::nop()).unwrap();
        assert_eq!(panic_of(|| submitter.submit(ledger.issue(()), holding(Ruthless))), "ruthless");
        assert_eq!(panic_of(|| submitter.try_submit(ledger.issue(()), holding(Ruthless))), "ruthless");
        assert_eq!(panic_of(|| submitter.detach(ledger.issue(()), holding(Ruthless))), "ruthless");
        let mut chain = submitter.chain();
        assert_eq!(panic_of(|| chain.link(ledger.issue(()), holding(Ruthless))), "ruthless");
        assert_eq!(panic_of(|| chain.submit(ledger.issue(()), holding(Ruthless))), "ruthless");
        assert_eq!(ledger.alive(), 1);
        ring.run().unwrap();
        ledger.assert_all_dropped_once();
    });
}
