//! Which request a completion belongs to.

use std::os::fd::OwnedFd;
use std::thread;
use std::time::Duration;

use rummelplatz::io_uring::{IoUring, opcode};
use rummelplatz::request::Events;
use rummelplatz::{BufferPool, ControlFlow, Key, request};
use rummelplatz_tests::{
    Bench, Log, Script, Tracked, addressable, forge, forge_without_a_ring, in_child, leaves_nothing, outcome,
    pipe, queued_user_data, tcp_pair,
};

const FOR_EVER: Duration = Duration::from_secs(100_000);
const CANCELLED: Result<u32, i32> = Err(libc::ECANCELED);
const F_BUFFER: u32 = 1;
const F_MORE: u32 = 1 << 1;
const F_NOTIF: u32 = 1 << 3;
const ENTRIES: usize = 8;

type Outcomes = Log<(u32, Result<u32, i32>)>;

/// Logs each completion with its number.
fn logging(log: &Outcomes) -> Script<Tracked<u32>> {
    let log = log.clone();
    Script::new().on_completion(move |completion, data: Tracked<u32>, _| {
        log.push((*data, outcome(&completion)));
        (ControlFlow::Continue, None)
    })
}

#[test]
fn i01_a_slot_that_is_used_again_and_again_is_never_taken_for_what_it_was() {
    // The slab's own tests also check that the 24 bits wrap around; here that takes an optimised build.
    const TIMES: u32 = if cfg!(debug_assertions) { 1 << 16 } else { (1 << 24) + 10 };
    in_child(|| {
        leaves_nothing(|ledger| {
            let (raw, target) = addressable(ENTRIES as u32);
            let keys = Log::<Key<Script<u32>>>::new();
            let (kept, names) = (keys.clone(), Log::new());
            let name = names.clone();
            let (seen, _data) = (Log::new(), ledger.issue(()));
            let log = seen.clone();
            let script = Script::new()
                .on_setup_once(move |mut submitter| {
                    kept.push(submitter.submit(0, |_| request::nop())?);
                    // This is as much as anybody else can know of it.
                    name.push(queued_user_data(target, ENTRIES, opcode::Nop::CODE));
                    Ok(())
                })
                .on_completion(move |completion, times: u32, mut submitter| {
                    assert_eq!(outcome(&completion), Ok(0));
                    if times == TIMES {
                        log.push(times);
                        return (ControlFlow::Continue, None);
                    }
                    let key = submitter.submit(times + 1, |_| request::nop()).unwrap();
                    // Around the place where the bits wrap around, and from time to time.
                    if times % 4096 == 1 || times > (1 << 24) - 10 {
                        let first = keys.take().pop().unwrap();
                        assert!(key != first && !submitter.cancel(first), "after {times} times");
                        keys.push(first);
                    }
                    (ControlFlow::Continue, None)
                });
            let mut ring = Bench::builder(script, Script::new())
                .raw_ring(raw)
                .request_limit(1.try_into().unwrap())
                .build()
                .unwrap();
            assert!(!ring.turn().unwrap().is_finished());
            forge(target, names.take()[0], 1, None);
            ring.run().unwrap();
            assert_eq!(seen.take(), [TIMES]);
            assert_eq!((ring.stats().in_flight, ring.stats().foreign), (0, 1));
        });
    });
}

#[test]
fn i02_a_cancel_of_what_has_finished_hits_nothing() {
    in_child(|| {
        leaves_nothing(|ledger| {
            let seen = Log::new();
            let log = seen.clone();
            let keys = Log::<Key<Script<Tracked<u32>>>>::new();
            let script = Script::new()
                .on_setup_once({
                    let keys = keys.clone();
                    move |mut submitter| {
                        keys.push(submitter.submit(ledger.issue(0), |_| request::nop())?);
                        Ok(())
                    }
                })
                .on_completion(move |completion, data: Tracked<u32>, mut submitter| {
                    log.push((*data, outcome(&completion)));
                    let old = keys.take();
                    for key in &old {
                        assert!(!submitter.cancel(*key), "its request is over");
                        keys.push(*key);
                    }
                    if *data < 100 {
                        let next = ledger.issue(*data + 1);
                        let key = submitter.submit(next, |_| request::timeout(Duration::ZERO)).unwrap();
                        assert!(old.iter().all(|old| *old != key && !submitter.cancel(*old)));
                        keys.push(key);
                    }
                    (ControlFlow::Continue, None)
                });
            Bench::with(8, script).run().unwrap();
            assert_eq!(seen.take(), (0..=100).map(|number| (number, Ok(0))).collect::<Vec<_>>());
        });
    });
}

#[test]
fn i03_completions_that_name_nothing_in_flight_are_counted_and_dropped() {
    in_child(|| {
        leaves_nothing(|ledger| {
            let seen = Log::new();
            let (raw, target) = addressable(ENTRIES as u32);
            let mut ring = Bench::builder(logging(&seen), logging(&seen)).raw_ring(raw).build().unwrap();
            for number in 0..3 {
                let timer = ledger.issue(number);
                ring.submitter(Bench::FIRST).submit(timer, |_| request::timeout(FOR_EVER)).unwrap();
            }
            let alive = queued_user_data(target, ENTRIES, opcode::Timeout::CODE);
            // One slot of the second operation was used, and is free.
            ring.submitter(Bench::SECOND).submit(ledger.issue(9), |_| request::nop()).unwrap();
            let gone = queued_user_data(target, ENTRIES, opcode::Nop::CODE);
            while seen.is_empty() {
                ring.turn().unwrap();
            }
            assert_eq!(seen.take(), [(9, Ok(0))]);

            let mut strays = vec![u64::MAX, u64::MAX - 2, 3, 4, 0xDEAD_BEEF, 0x5555_5555_5550];
            // What differs from a name in flight in one bit: another generation, another slot, another tag. (Two bits
            // of the slot would give the other requests in flight, and the last bit of the tag the ring's own.)
            strays.extend((0..64).filter(|bit| ![0, 8, 9].contains(bit)).map(|bit| alive ^ 1 << bit));
            // The free slot, in its past, present and future generations, and what stands in its place.
            let generation = 1 << 40;
            strays.extend([
                gone,
                gone.wrapping_add(generation),
                gone.wrapping_add(2 * generation),
                !gone,
                !alive,
            ]);
            // Any other.
            let mut random = 0x9E37_79B9_7F4A_7C15_u64;
            strays.extend((0..100).map(|_| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                // Not a tag of this ring.
                random | 0x80
            }));
            // What answers the ring's own cancels is not counted.
            strays.retain(|user_data| *user_data as u8 != 254);
            let mut sent = 0;
            let mut sender = IoUring::new(8).unwrap();
            for user_data in strays {
                for (result, flags) in [
                    (0, None),
                    (42, Some(F_MORE)),
                    (-libc::ECANCELED, Some(F_NOTIF)),
                    (i32::MAX, Some(F_BUFFER | 5 << 16)),
                    (i32::MIN, Some(F_MORE | F_NOTIF | F_BUFFER | 0x100)),
                ] {
                    let message = opcode::MsgRingData::new(target, result, user_data, flags).build();
                    // SAFETY: it points to nothing.
                    unsafe { sender.submission().push(&message) }.unwrap();
                    sender.submit_and_wait(1).unwrap();
                    assert_eq!(sender.completion().next().unwrap().result(), 0);
                    sent += 1;
                }
                ring.turn().unwrap();
            }
            ring.turn().unwrap();
            assert_eq!(ring.stats().foreign, sent);
            // A completion with `user_data` 0 is expected from anybody, and not even counted.
            forge(target, 0, 1, None);
            ring.turn().unwrap();
            assert_eq!((ring.stats().in_flight, ring.stats().foreign), (3, sent));
            assert_eq!(ring.submitter(Bench::FIRST).cancel_all(), 3);
            ring.run().unwrap();
            let mut seen = seen.take();
            seen.sort();
            assert_eq!(seen, [(0, CANCELLED), (1, CANCELLED), (2, CANCELLED)]);
        });
    });
}

#[test]
fn i03_forged_traffic_of_the_rings_own_kind_neither_wakes_the_dead_nor_deafens_the_living() {
    in_child(|| {
        leaves_nothing(|ledger| {
            let seen = Log::new();
            let (raw, target) = addressable(8);
            let mut ring = Bench::builder(logging(&seen), logging(&seen)).raw_ring(raw).build().unwrap();
            let handle = ring.handle();
            let timer = ledger.issue(0);
            ring.submitter(Bench::FIRST).submit(timer, |_| request::timeout(FOR_EVER)).unwrap();
            ring.turn().unwrap();
            // The last one would answer a cancel of the timer, if there were one.
            for user_data in [0, 1 << 8, 2 << 8, 3 << 8, 4 << 8, 1 << 40 | 254] {
                for flags in [None, Some(F_MORE)] {
                    for result in [0, 1, -libc::ENOENT] {
                        for _ in 0..5 {
                            forge(target, user_data, result, flags);
                        }
                        ring.turn().unwrap();
                    }
                }
            }
            assert_eq!(ring.stats().in_flight, 1);
            // The ring can still be woken.
            let heard = seen.clone();
            let sender = thread::spawn(move || {
                handle.send(Bench::SECOND, ledger.issue(7)).unwrap();
                while heard.is_empty() {
                    thread::sleep(Duration::from_millis(1));
                }
                handle.stop();
            });
            ring.run().unwrap();
            sender.join().unwrap();
            assert_eq!(seen.take(), [(7, Ok(0))]);
        });
    });
}

/// The data of a poll, or of no request.
type Polled = Tracked<Option<OwnedFd>>;

fn poll(data: &mut Polled) -> rummelplatz::Request<'_> {
    request::poll(data.as_ref().unwrap(), Events::READABLE)
}

#[test]
fn i04_a_message_with_flags_of_the_kernels_is_believed_and_does_no_harm() {
    in_child(|| {
        leaves_nothing(|ledger| {
            let (raw, target) = addressable(ENTRIES as u32);
            let seen = Log::new();
            let log = seen.clone();
            let script = Script::new().on_completion(move |completion, _: Polled, _| {
                let raw = completion.raw();
                assert!(!completion.more());
                log.push((raw.result, raw.flags));
                assert!(completion.into_buffer().is_err(), "it was asked for none");
                (ControlFlow::Continue, None)
            });
            let mut ring = Bench::builder(script, Script::new()).raw_ring(raw).build().unwrap();
            let mut writers = Vec::new();
            let mut armed = |ring: &mut Bench<Polled>| {
                let (reader, writer) = pipe();
                writers.push(writer);
                ring.submitter(Bench::FIRST).submit(ledger.issue(Some(reader)), poll).unwrap();
                ring.turn().unwrap();
                queued_user_data(target, ENTRIES, opcode::PollAdd::CODE)
            };

            // More is to come: this is held back until the end, which tells the first result.
            let first = armed(&mut ring);
            forge(target, first, 5, Some(F_MORE | 0x80));
            forge(target, first, 6, Some(F_MORE));
            ring.turn().unwrap();
            assert_eq!((seen.len(), ring.stats().in_flight), (0, 1));
            forge(target, first, 0, Some(F_NOTIF));
            ring.turn().unwrap();
            assert_eq!(seen.take(), [(5, F_MORE | 0x80)]);
            // A buffer where none was asked for.
            let second = armed(&mut ring);
            forge(target, second, 64, Some(F_BUFFER | 5 << 16));
            ring.turn().unwrap();
            assert_eq!(seen.take(), [(64, F_BUFFER | 5 << 16)]);
            // Without a ring to send from.
            let third = armed(&mut ring);
            if let Err(error) = forge_without_a_ring(target, third, -7, Some(F_NOTIF)) {
                eprintln!("skipped: needs IORING_REGISTER_SEND_MSG_RING (6.13): {error}");
                forge(target, third, -7, Some(F_NOTIF));
            }
            ring.turn().unwrap();
            assert_eq!(seen.take(), [(-7, F_NOTIF)]);
            // As far as the ring knows, that was all. The kernel's own completion comes too late.
            assert_eq!((ring.stats().in_flight, ring.stats().foreign), (0, 0));
            drop(writers);
            ring.turn().unwrap();
            assert_eq!((ring.stats().in_flight, ring.stats().foreign), (0, 3));
            ring.run().unwrap();
            assert!(seen.is_empty());
        });
        leaves_nothing(|ledger| {
            let (raw, target) = addressable(ENTRIES as u32);
            let (mut client, server) = tcp_pair();
            let pool = BufferPool::new(2, 4).unwrap();
            let (told, held) = (Log::new(), Log::new());
            let (log, hold) = (told.clone(), held.clone());
            let script = Script::new().on_completion(move |completion, receiver, _| {
                let more = completion.more();
                log.push((more, outcome(&completion)));
                let buffer = completion.into_buffer().unwrap();
                if !buffer.is_empty() {
                    hold.push(buffer);
                }
                (ControlFlow::Continue, more.then_some(receiver))
            });
            let mut ring = Bench::builder(script, Script::new()).raw_ring(raw).build().unwrap();
            let receiver = ledger.issue((server, pool.clone()));
            ring.submitter(Bench::FIRST).stream(receiver, |it| request::recv_multi(&it.0, &it.1)).unwrap();
            ring.turn().unwrap();
            let stream = queued_user_data(target, ENTRIES, opcode::RecvMulti::CODE);
            std::io::Write::write_all(&mut client, b"one").unwrap();
            while held.is_empty() {
                ring.turn().unwrap();
            }
            assert_eq!(told.take(), [(true, Ok(3))]);
            // A buffer that somebody has already, and numbers that the pool never had.
            for id in [0, 2, 77, u32::from(u16::MAX)] {
                forge(target, stream, 4, Some(F_MORE | F_BUFFER | id << 16));
                ring.turn().unwrap();
                assert_eq!(told.take(), [(true, Ok(4))]);
                assert_eq!(held.len(), 1, "of number {id} there is no second");
            }
            // More bytes than a buffer has.
            forge(target, stream, i32::MAX, Some(F_MORE | F_BUFFER | 1 << 16));
            ring.turn().unwrap();
            assert_eq!((told.take().len(), pool.available()), (1, 0));
            let lengths: Vec<_> = held.take().into_iter().map(|buffer| buffer.len()).collect();
            assert_eq!(lengths, [3, 4]);
            // An end, with a flag that no stream has.
            forge(target, stream, 0, Some(F_NOTIF));
            ring.turn().unwrap();
            assert_eq!(told.take(), [(false, Ok(0))]);
            assert_eq!((ring.stats().in_flight, pool.available()), (0, 2));
            ring.run().unwrap();
        });
    });
}

#[test]
fn i05_the_second_final_completion_of_a_slot_is_ignored() {
    in_child(|| {
        leaves_nothing(|ledger| {
            let (raw, target) = addressable(ENTRIES as u32);
            let seen = Log::new();
            let log = seen.clone();
            let script = Script::new().on_completion(move |completion, data: Polled, _| {
                log.push((data.is_some(), outcome(&completion)));
                (ControlFlow::Continue, None)
            });
            let mut ring = Bench::builder(script, Script::new()).raw_ring(raw).build().unwrap();
            let (reader, writer) = pipe();
            ring.submitter(Bench::FIRST).submit(ledger.issue(Some(reader)), poll).unwrap();
            ring.turn().unwrap();
            let name = queued_user_data(target, ENTRIES, opcode::PollAdd::CODE);
            // Two in one batch.
            forge(target, name, 1, None);
            forge(target, name, 2, None);
            ring.turn().unwrap();
            assert_eq!(seen.take(), [(true, Ok(1))], "the first is believed");
            assert_eq!((ring.stats().in_flight, ring.stats().foreign), (0, 1));

            // This does not touch the request that has the slot now.
            let timer = ledger.issue(None);
            let key = ring.submitter(Bench::FIRST).submit(timer, |_| request::timeout(FOR_EVER)).unwrap();
            ring.turn().unwrap();
            let next = queued_user_data(target, ENTRIES, opcode::Timeout::CODE);
            assert_ne!(next, name);
            forge(target, name, 3, None);
            // The kernel's own completion of the first request.
            drop(writer);
            ring.turn().unwrap();
            assert!(seen.is_empty());
            assert_eq!((ring.stats().in_flight, ring.stats().foreign), (1, 3));
            assert!(ring.submitter(Bench::FIRST).cancel(key));
            ring.run().unwrap();
            assert_eq!(seen.take(), [(false, CANCELLED)]);
        });
        // A genuine end, and another one for the same request.
        leaves_nothing(|ledger| {
            let (raw, target) = addressable(ENTRIES as u32);
            let seen = Log::new();
            let mut ring = Bench::builder(logging(&seen), Script::new()).raw_ring(raw).build().unwrap();
            ring.submitter(Bench::FIRST).submit(ledger.issue(1), |_| request::nop()).unwrap();
            let name = queued_user_data(target, ENTRIES, opcode::Nop::CODE);
            ring.turn().unwrap();
            forge(target, name, 0, None);
            ring.turn().unwrap();
            ring.run().unwrap();
            assert_eq!(seen.take(), [(1, Ok(0))]);
            assert_eq!((ring.stats().in_flight, ring.stats().foreign), (0, 1));
        });
    });
}
