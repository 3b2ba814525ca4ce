//! Words that rings and threads wait for: who is woken, by whom, and how a wait ends that nobody ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use rummelplatz::{ControlFlow, Request, Status, request};
use rummelplatz_tests::{Bench, Ledger, Log, Script, Tracked, addressable, anywhere, once, outcome, watched};

const CANCELLED: Result<u32, i32> = Err(libc::ECANCELED);
/// How long to wait for what will come.
static LONG: libc::timespec = libc::timespec { tv_sec: 10, tv_nsec: 0 };

/// Whether this kernel knows futexes; says "skipped" if it does not.
fn has_futexes() -> bool {
    let has = once(AtomicU32::new(0), |word| request::futex_wake(word, 1)).0 != Err(libc::EINVAL);
    if !has {
        eprintln!("skipped: needs Linux 6.7");
    }
    has
}

/// Wakes up to this many of those who wait for the word. Returns how many there were.
fn wake(word: &AtomicU32, count: i32) -> usize {
    // SAFETY: a plain call.
    let woken = unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), FUTEX_WAKE_PRIVATE, count) };
    usize::try_from(woken).unwrap()
}

const FUTEX_WAKE_PRIVATE: libc::c_int = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;

/// Waits until the word is no longer as expected, or somebody wakes. Returns whether that was so.
fn wait(word: &AtomicU32, expected: u32) -> bool {
    let how = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: the word and the time are there.
    let waited = unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), how, expected, &raw const LONG) };
    waited == 0 || word.load(Ordering::Acquire) != expected
}

#[test]
fn who_waits_for_a_word_is_woken_or_finds_another_value() {
    watched(|| anywhere::who_waits_for_a_word_is_woken_or_finds_another_value(|| addressable(8).0));
}

/// What a thread has in common with a ring.
struct Doorbell {
    rung: Arc<AtomicU32>,
    seen: u32,
}

impl Doorbell {
    fn wait(&mut self) -> Request<'_> {
        request::futex_wait(&self.rung, self.seen)
    }
}

#[test]
fn threads_ring_and_a_ring_hears_all_of_it() {
    const THREADS: u32 = 3;
    const TIMES: u32 = 2000;
    watched(|| {
        if !has_futexes() {
            return;
        }
        let rung = Arc::new(AtomicU32::new(0));
        let ended = Log::new();
        let (word, log) = (rung.clone(), ended.clone());
        let script = Script::new()
            .on_setup_once(move |mut submitter| {
                submitter.submit(Doorbell { rung: word, seen: 0 }, Doorbell::wait)?;
                Ok(())
            })
            .on_completion(move |completion, mut bell: Doorbell, mut submitter| {
                let outcome = outcome(&completion);
                log.push(outcome);
                assert!(matches!(outcome, Ok(0) | Err(libc::EAGAIN)), "{outcome:?}");
                bell.seen = bell.rung.load(Ordering::Acquire);
                if bell.seen < THREADS * TIMES {
                    submitter.submit(bell, Doorbell::wait).unwrap();
                }
                (ControlFlow::Continue, None)
            });
        let mut ring = Bench::with(8, script);
        while ring.turn().unwrap().status != Status::Waiting {}
        let threads = [(); THREADS as usize].map(|()| {
            let rung = rung.clone();
            thread::spawn(move || {
                for _ in 0..TIMES {
                    rung.fetch_add(1, Ordering::Release);
                    wake(&rung, 1);
                }
            })
        });
        ring.run().unwrap();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(ended.take()[0], Ok(0), "the first waited before there was a thread");
        assert_eq!(ring.stats().foreign, 0);
    });
}

#[test]
fn a_ring_wakes_threads_and_another_ring() {
    watched(|| {
        if !has_futexes() {
            return;
        }
        let word = Arc::new(AtomicU32::new(0));
        let sleepers = [(); 2].map(|()| {
            let word = word.clone();
            thread::spawn(move || wait(&word, 0))
        });
        let (ended, theirs) = (Log::new(), word.clone());
        let log = ended.clone();
        let script = Script::new().on_completion(move |completion, _, _| {
            log.push(outcome(&completion));
            (ControlFlow::Continue, None)
        });
        let mut ring = Bench::with(8, script);
        ring.submitter(Bench::FIRST).submit(theirs, |word| request::futex_wait(word, 0)).unwrap();
        while ring.turn().unwrap().status != Status::Waiting {}
        // One after the other, until all three were there.
        let mut woken = 0;
        while woken < 3 {
            let (result, _) = once(word.clone(), |word| request::futex_wake(word, 1));
            woken += result.unwrap();
            thread::sleep(Duration::from_millis(1));
        }
        for sleeper in sleepers {
            assert!(sleeper.join().unwrap());
        }
        ring.run().unwrap();
        assert_eq!(ended.take(), [Ok(0)]);
    });
}

/// Data whose word is in itself.
type Own = Tracked<(AtomicU32, u32)>;

fn waits(data: &mut Own) -> Request<'_> {
    request::futex_wait(&data.value.0, 7)
}

#[test]
fn a_wait_that_nobody_ends_is_cancelled() {
    watched(|| {
        if !has_futexes() {
            return;
        }
        let ledger = Ledger::new();
        let ended = Log::new();
        let (log, late) = (ended.clone(), ended.clone());
        let script = Script::new()
            .on_completion(move |completion, data: Own, mut submitter| {
                log.push((data.value.1, outcome(&completion)));
                match data.value.1 {
                    // All others that wait, and the rest when the ring ends.
                    1 => assert_eq!(submitter.cancel_all(), 1),
                    2 => _ = submitter.submit(ledger.issue((AtomicU32::new(7), 3)), waits).unwrap(),
                    _ => {}
                }
                (if data.value.1 == 4 { ControlFlow::Exit } else { ControlFlow::Continue }, None)
            })
            .on_teardown(move |completion, data: Own, _| {
                late.push((data.value.1, outcome(&completion)));
                Ok(())
            });
        let mut ring = Bench::with(16, script);
        let mut submitter = ring.submitter(Bench::FIRST);
        let key = submitter.submit(ledger.issue((AtomicU32::new(7), 1)), waits).unwrap();
        submitter.submit(ledger.issue((AtomicU32::new(7), 2)), waits).unwrap();
        while ring.turn().unwrap().status != Status::Waiting {}
        assert!(ended.is_empty());
        ring.submitter(Bench::FIRST).cancel(key);
        while ring.stats().in_flight != 1 || ended.len() < 2 {
            ring.turn().unwrap();
        }
        assert_eq!(ended.take(), [(1, CANCELLED), (2, CANCELLED)]);
        ring.submitter(Bench::FIRST)
            .submit(ledger.issue((AtomicU32::new(7), 4)), |_| request::nop())
            .unwrap();
        for _ in 0..500 {
            ring.submitter(Bench::FIRST).submit(ledger.issue((AtomicU32::new(7), 5)), waits).unwrap();
            // Those that a worker has begun, too.
            ring.submitter(Bench::FIRST)
                .submit(ledger.issue((AtomicU32::new(7), 6)), |data| waits(data).in_worker())
                .unwrap();
        }
        ring.run().unwrap();
        let mut seen = ended.take();
        seen.sort();
        assert_eq!(seen.len(), 1002);
        assert_eq!((seen[0], seen[1]), ((3, CANCELLED), (4, Ok(0))));
        assert!(seen[2..].iter().all(|it| *it == (5, CANCELLED) || *it == (6, CANCELLED)), "{seen:?}");
        assert_eq!((ring.stats().foreign, ring.stats().in_flight), (0, 0));
        drop(ring);
        ledger.assert_all_dropped_once();
    });
}

#[test]
fn a_wait_ends_with_its_ring() {
    watched(|| {
        if !has_futexes() {
            return;
        }
        for panics in [false, true] {
            let ledger = Ledger::new();
            let script = Script::new().on_completion(move |_, _: Own, _| {
                assert!(!panics, "the end");
                (ControlFlow::Continue, None)
            });
            let mut ring = Bench::with(8, script);
            for number in 0..3 {
                let data = ledger.issue((AtomicU32::new(7), number));
                ring.submitter(Bench::FIRST).submit(data, waits).unwrap();
            }
            while ring.turn().unwrap().status != Status::Waiting {}
            if panics {
                let data = ledger.issue((AtomicU32::new(0), 9));
                ring.submitter(Bench::FIRST).submit(data, waits).unwrap();
                assert_eq!(rummelplatz_tests::panic_of(|| ring.run()), "the end");
            }
            assert_eq!(ledger.alive(), if panics { 0 } else { 3 });
            drop(ring);
            ledger.assert_all_dropped_once();
        }
    });
}

#[test]
fn a_chain_goes_on_when_it_is_woken_and_ends_when_there_is_nothing_to_wait_for() {
    watched(|| {
        if !has_futexes() {
            return;
        }
        type Link = (u32, Arc<AtomicU32>);
        let ended = Log::new();
        let log = ended.clone();
        let script = Script::new().on_completion(move |completion, (number, _): Link, _| {
            log.push((number, outcome(&completion), completion.timed_out()));
            (ControlFlow::Continue, None)
        });
        let mut ring = Bench::with(16, script);
        let word = Arc::new(AtomicU32::new(7));
        let mut submitter = ring.submitter(Bench::FIRST);
        let link = |number: u32| (number, word.clone());
        let mut chain = submitter.chain();
        chain.link(link(1), |(_, word)| request::futex_wait(word, 7)).unwrap();
        chain.submit(link(2), |(_, word)| request::futex_wake(word, 1)).unwrap();
        let mut chain = submitter.chain();
        chain.link(link(3), |(_, word)| request::futex_wait(word, 8)).unwrap();
        chain.submit(link(4), |_| request::nop()).unwrap();
        // Its linked timeout says how many it has cancelled.
        let mut chain = submitter.chain();
        let soon = Duration::from_millis(5);
        chain.link(link(5), move |(_, word)| request::futex_wait(word, 7).deadline(soon)).unwrap();
        chain.submit(link(6), |_| request::nop()).unwrap();
        while ring.stats().in_flight > 2 {
            ring.turn().unwrap();
            thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(wake(&word, 1), 1);
        ring.run().unwrap();
        let mut seen = ended.take();
        seen.sort();
        let differs = Err(libc::EAGAIN);
        let after_cancel = seen[5].1;
        assert!([Ok(0), CANCELLED].contains(&after_cancel), "{after_cancel:?}");
        assert_eq!(
            seen,
            [
                (1, Ok(0), false),
                (2, Ok(0), false),
                (3, differs, false),
                (4, CANCELLED, false),
                (5, CANCELLED, true),
                // A kernel that takes this for an error may come.
                (6, after_cancel, false),
            ]
        );
    });
}
