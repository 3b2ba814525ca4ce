//! Linked requests: each begins when the one before it has ended.

use std::ffi::CString;
use std::io::{Read, Write};
use std::mem;
use std::num::{NonZeroU32, NonZeroUsize};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use rummelplatz::request::CWD;
use rummelplatz::{ControlFlow, InvalidEntry, Request, SubmitError, request};
use rummelplatz_tests::{
    Bench, BenchSubmitter, Job, Ledger, Log, Script, Tracked, addressable, forge, in_child, nameless_file,
    open_descriptors, outcome, pipe, tcp_pair, watched,
};

/// `IORING_CQE_F_MORE`.
const F_MORE: u32 = 1 << 1;
/// In the name of a request's timer.
const TIMER: u64 = 1 << 39;
const SOON: Duration = Duration::from_millis(5);
const LATE: Duration = Duration::from_secs(100_000);
const CANCELLED: Result<u32, i32> = Err(libc::ECANCELED);
const TOO_LONG: SubmitError = SubmitError::Invalid(InvalidEntry::ChainTooLong);

/// Where bytes are moved to that nobody looks at.
static SINK: OnceLock<OwnedFd> = OnceLock::new();

/// A part of a chain.
struct Part {
    name: &'static str,
    file: Arc<OwnedFd>,
    bytes: [u8; 4],
}

type Data = Tracked<Part>;

fn write(part: &mut Data) -> Request<'_> {
    let Part { file, bytes, .. } = &part.value;
    request::write(&**file, bytes)
}

fn read(part: &mut Data) -> Request<'_> {
    let Part { file, bytes, .. } = &mut part.value;
    request::read(&**file, bytes)
}

/// On something that is not a socket, this fails.
fn receive(part: &mut Data) -> Request<'_> {
    let Part { file, bytes, .. } = &mut part.value;
    request::recv(&**file, bytes)
}

/// What was told: by which operation, about which part, how it ended, and whether its time was up.
type Told = Log<(u8, &'static str, Result<u32, i32>, bool)>;

fn ring(entries: u32, backlog: Option<usize>) -> (Bench<Data>, Told, Ledger) {
    let told = Told::new();
    let script = |operation| {
        let (running, ending) = (told.clone(), told.clone());
        Script::new()
            .on_completion(move |completion, part: Data, _| {
                running.push((operation, part.name, outcome(&completion), completion.timed_out()));
                (ControlFlow::Continue, None)
            })
            .on_teardown(move |completion, part, _| {
                ending.push((operation, part.name, outcome(&completion), completion.timed_out()));
                Ok(())
            })
    };
    let mut builder = Bench::builder(script(1), script(2)).entries(NonZeroU32::new(entries).unwrap());
    if let Some(limit) = backlog.and_then(NonZeroUsize::new) {
        builder = builder.backlog_limit(limit);
    }
    (builder.build().unwrap(), told, Ledger::new())
}

fn part(ledger: Ledger, name: &'static str, file: &Arc<OwnedFd>) -> Data {
    let mut bytes = [b'.'; 4];
    bytes[..name.len().min(4)].copy_from_slice(&name.as_bytes()[..name.len().min(4)]);
    ledger.issue(Part { name, file: Arc::clone(file), bytes })
}

#[test]
fn each_begins_when_the_one_before_it_has_ended() {
    watched(|| {
        let (mut ring, told, ledger) = ring(8, None);
        let file = Arc::new(OwnedFd::from(nameless_file()));
        let (reader, writer) = pipe();
        let (reader, writer) = (Arc::new(reader), Arc::new(writer));
        let mut submitter = ring.submitter(Bench::FIRST);
        let mut chain = submitter.chain();
        // The read would be first if it did not wait for the request before it.
        chain.link(part(ledger, "pause", &file), |_| request::timeout(SOON)).unwrap();
        chain.link(part(ledger, "one", &writer), write).unwrap();
        let mut chain = chain.to(Bench::SECOND);
        chain.link(part(ledger, "read", &reader), read).unwrap();
        chain.submit(part(ledger, "sync", &file), |part| request::fsync(&*part.value.file)).unwrap();
        assert_eq!(ring.stats().in_flight, 4);
        ring.run().unwrap();
        let expected = [
            (1, "pause", Ok(0), false),
            (1, "one", Ok(4), false),
            (2, "read", Ok(4), false),
            (2, "sync", Ok(0), false),
        ];
        assert_eq!(told.take(), expected);
        ledger.assert_all_dropped_once();
    });
}

#[test]
fn a_chain_of_one_is_a_request() {
    watched(|| {
        let (mut ring, told, ledger) = ring(1, None);
        let writer = Arc::new(OwnedFd::from(nameless_file()));
        ring.submitter(Bench::FIRST).chain().submit(part(ledger, "only", &writer), write).unwrap();
        ring.run().unwrap();
        assert_eq!(told.take(), [(1, "only", Ok(4), false)]);
        ledger.assert_all_dropped_once();
    });
}

#[test]
fn what_was_linked_is_a_chain_without_one_more() {
    watched(|| {
        let (mut ring, told, ledger) = ring(4, None);
        let file = Arc::new(OwnedFd::from(nameless_file()));
        let (reader, writer) = pipe();
        let (reader, writer) = (Arc::new(reader), Arc::new(writer));
        let receivers: [fn(&mut Data) -> Request<'_>; 3] = [
            read,
            |part| read(part).deadline(LATE),
            // Its entry is not one of the usual ones.
            |part| {
                request::splice(&part.value.file, None, SINK.get_or_init(|| nameless_file().into()), None, 4)
            },
        ];
        for receive in receivers {
            for is_hard in [false, true] {
                let mut submitter = ring.submitter(Bench::FIRST);
                let mut chain = submitter.chain();
                chain.link(part(ledger, "one", &file), write).unwrap();
                let last = part(ledger, "two", &reader);
                let linked = if is_hard { chain.hard_link(last, receive) } else { chain.link(last, receive) };
                linked.unwrap();
                chain.submit_linked().unwrap();
                // The last one waits for this. So if it were linked to it, they would wait for each other.
                submitter.submit(part(ledger, "write", &writer), write).unwrap();
                ring.run().unwrap();
                let mut ended = told.take();
                ended.sort();
                assert_eq!(ended, ["one", "two", "write"].map(|name| (1, name, Ok(4), false)));
            }
        }
        ring.submitter(Bench::FIRST).chain().submit_linked().unwrap();
        assert_eq!((ring.stats().in_flight, ring.stats().foreign), (0, 0));
        ledger.assert_all_dropped_once();
    });
}

#[test]
fn what_fails_ends_those_behind_it_unless_they_are_linked_hard() {
    watched(|| {
        let (mut ring, told, ledger) = ring(8, None);
        let (reader, writer) = pipe();
        let (reader, writer) = (Arc::new(reader), Arc::new(writer));
        let mut submitter = ring.submitter(Bench::FIRST);
        let mut chain = submitter.chain();
        chain.link(part(ledger, "fails", &reader), receive).unwrap();
        chain.link(part(ledger, "two", &writer), write).unwrap();
        chain.submit(part(ledger, "last", &writer), write).unwrap();
        ring.run().unwrap();
        let mut ended = told.take();
        ended.sort();
        let failed = Err(libc::ENOTSOCK);
        let expected =
            [(1, "fails", failed, false), (1, "last", CANCELLED, false), (1, "two", CANCELLED, false)];
        assert_eq!(ended, expected);

        let mut submitter = ring.submitter(Bench::FIRST);
        let mut chain = submitter.chain();
        chain.hard_link(part(ledger, "fails", &reader), receive).unwrap();
        chain.submit(part(ledger, "two", &writer), write).unwrap();
        ring.run().unwrap();
        assert_eq!(told.take(), [(1, "fails", failed, false), (1, "two", Ok(4), false)]);
        // A short read counts as a failure.
        let mut submitter = ring.submitter(Bench::FIRST);
        let mut chain = submitter.chain();
        chain.hard_link(part(ledger, "2", &writer), |part| request::write(&*part.value.file, b"xy")).unwrap();
        chain.link(part(ledger, "whole", &reader), read).unwrap();
        chain.link(part(ledger, "short", &reader), read).unwrap();
        chain.submit(part(ledger, "last", &writer), write).unwrap();
        ring.run().unwrap();
        let results = told.take().into_iter().map(|(_, name, result, _)| (name, result));
        assert!(results.eq([("2", Ok(2)), ("whole", Ok(4)), ("short", Ok(2)), ("last", CANCELLED)]));
        ledger.assert_all_dropped_once();
    });
}

#[test]
fn what_the_kernel_cannot_prepare_ends_the_whole_chain() {
    watched(|| {
        for hard in [false, true] {
            let seen = Log::new();
            let log = seen.clone();
            let script = Script::new().on_completion(move |completion, (number, _): (u32, CString), _| {
                log.push((number, outcome(&completion)));
                (ControlFlow::Continue, None)
            });
            let mut ring = Bench::with(8, script);
            let mut submitter = ring.submitter(Bench::FIRST);
            let mut chain = submitter.chain();
            fn nop(_: &mut (u32, CString)) -> Request<'_> {
                request::nop()
            }
            let path = CString::new(vec![b'x'; 5000]).unwrap();
            match hard {
                true => chain.hard_link((1, CString::default()), nop),
                false => chain.link((1, CString::default()), nop),
            }
            .unwrap();
            chain.link((2, path), |data| request::unlinkat(&CWD, &data.1)).unwrap();
            chain.submit((3, CString::default()), nop).unwrap();
            ring.run().unwrap();
            let mut seen = seen.take();
            seen.sort();
            assert_eq!(seen, [(1, CANCELLED), (2, Err(libc::ENAMETOOLONG)), (3, CANCELLED)]);
        }
    });
}

#[test]
fn what_would_write_only_a_part_of_its_pieces_ends_the_whole_chain() {
    /// Its number; what is written, and how many pieces of it.
    type Vector = (u32, Arc<OwnedFd>, [u8; 2050], usize);
    fn write((_, file, bytes, count): &mut Vector) -> Request<'_> {
        request::write_vectored(&**file, bytes.chunks(2).map(|two| &two[..1]).take(*count))
    }
    watched(|| {
        let (seen, bytes) = (Log::new(), [7; 2050]);
        let log = seen.clone();
        let script = Script::new().on_completion(move |completion, (number, ..): Vector, _| {
            log.push((number, outcome(&completion)));
            (ControlFlow::Continue, None)
        });
        let (reader, writer) = pipe();
        let writer = Arc::new(writer);
        let mut ring = Bench::with(8, script);
        // One piece more than the kernel takes, and as many as it takes.
        for count in [1025, 1024] {
            let part = |number: u32| (number, Arc::clone(&writer), bytes, count);
            let mut submitter = ring.submitter(Bench::FIRST);
            let mut chain = submitter.chain();
            chain.link(part(1), |_| request::nop()).unwrap();
            chain.link(part(2), write).unwrap();
            chain.submit(part(3), |(_, file, ..)| request::write(&**file, b".")).unwrap();
            ring.run().unwrap();
            let mut seen = seen.take();
            seen.sort();
            let expected = match count {
                1025 => [(1, CANCELLED), (2, Err(libc::EINVAL)), (3, CANCELLED)],
                _ => [(1, Ok(0)), (2, Ok(1024)), (3, Ok(1))],
            };
            assert_eq!(seen, expected);
        }
        drop((ring, writer));
        let mut written = Vec::new();
        std::fs::File::from(reader).read_to_end(&mut written).unwrap();
        assert_eq!(written, [&[7; 1024][..], b"."].concat());
    });
}

#[test]
fn what_would_send_only_a_part_of_its_pieces_is_not_sent_where_nobody_would_know() {
    type Pieces = (u32, Arc<OwnedFd>, Vec<u8>);
    type Build = fn(&mut Pieces) -> Request<'_>;
    fn copied((_, socket, bytes): &mut Pieces) -> Request<'_> {
        request::send_vectored(&**socket, bytes.chunks(2).map(|two| &two[..1]))
    }
    fn not_copied((_, socket, bytes): &mut Pieces) -> Request<'_> {
        request::send_vectored_zc(&**socket, bytes.chunks(2).map(|two| &two[..1]))
    }
    fn sends(ours: OwnedFd, theirs: impl Read + Send + 'static, send: Build, copies: bool) {
        let seen = Log::new();
        let log = seen.clone();
        let script = Script::new().on_completion(move |completion, (number, ..): Pieces, _| {
            log.push((number, outcome(&completion)));
            (ControlFlow::Continue, None)
        });
        let ours = Arc::new(ours);
        // A peer that does not read would make what is not copied wait.
        let reading = thread::spawn(move || {
            let (mut theirs, mut received) = (theirs, Vec::new());
            theirs.read_to_end(&mut received).unwrap();
            received.len()
        });
        let mut ring = Bench::with(8, script);
        let part = |number: u32, count: usize| (number, Arc::clone(&ours), vec![7; 2 * count]);
        let mut submitter = ring.submitter(Bench::FIRST);
        let mut chain = submitter.chain();
        chain.link(part(1, 0), |_| request::nop()).unwrap();
        chain.link(part(2, 1025), send).unwrap();
        chain.submit(part(3, 1), send).unwrap();
        submitter.detach(part(4, 1025), send).unwrap();
        // As many as the kernel takes; and more, as the result says.
        submitter.detach(part(5, 1024), send).unwrap();
        submitter.submit(part(6, 1025), send).unwrap();
        ring.run().unwrap();
        let mut seen = seen.take();
        seen.sort();
        let told = [(1, CANCELLED), (2, Err(libc::EMSGSIZE)), (3, CANCELLED)];
        assert_eq!((&seen[..3], ring.stats().detached_failed), (&told[..], 1));
        let [(6, Ok(short @ 1..=1024))] = seen[3..] else { panic!("{seen:?}") };
        // Pieces that are not copied soon fill the socket.
        assert!(short == 1024 || !copies, "{short}");
        assert_eq!(ring.stats().foreign, 0);
        drop((ring, ours));
        assert_eq!(reading.join().unwrap(), 1024 + short as usize);
    }
    watched(|| {
        let (ours, theirs) = UnixStream::pair().unwrap();
        sends(ours.into(), theirs, copied, true);
        let (ours, theirs) = tcp_pair();
        sends(ours.into(), theirs, not_copied, false);
    });
}

#[test]
fn the_notification_of_a_zero_copy_send_that_has_not_begun_is_nobodys() {
    watched(|| {
        fn in_time(job: &mut Job) -> Request<'_> {
            job.send_zc().deadline(LATE)
        }
        for send in [Job::send_zc, in_time, Job::send_vectored_zc] {
            let seen = Log::new();
            let log = seen.clone();
            let script = Script::new().on_completion(move |completion, job: Job, mut submitter| {
                log.push((job.number, outcome(&completion)));
                // The slot is used again at once.
                if job.number == 2 {
                    submitter.submit(Job { number: 3, ..job }, Job::send_zc).unwrap();
                }
                (ControlFlow::Continue, None)
            });
            let mut ring = Bench::with(8, script);
            let (reader, _writer) = pipe();
            let (client, _server) = tcp_pair();
            let (reader, client) = (Arc::new(reader), Arc::new(OwnedFd::from(client)));
            for _ in 0..3 {
                let mut submitter = ring.submitter(Bench::FIRST);
                let mut chain = submitter.chain();
                // On something that is not a socket, this fails.
                chain.link(Job::new(1, &reader, 8), Job::recv).unwrap();
                chain.submit(Job::new(2, &client, 8), send).unwrap();
                ring.run().unwrap();
                let mut seen = seen.take();
                seen.sort();
                assert_eq!(seen, [(1, Err(libc::ENOTSOCK)), (2, CANCELLED), (3, Ok(8))]);
                assert_eq!((ring.stats().foreign, ring.stats().in_flight), (0, 0));
            }
        }
    });
}

#[test]
fn a_send_in_a_chain_goes_out_whole() {
    const MUCH: usize = 4 << 20;
    watched(|| {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let much = Arc::new((OwnedFd::from(ours), vec![7; MUCH]));
        let sent = Log::new();
        let log = sent.clone();
        let script = Script::new().on_completion(move |completion, _: Arc<(OwnedFd, Vec<u8>)>, _| {
            log.push(outcome(&completion));
            (ControlFlow::Continue, None)
        });
        let mut ring = Bench::with(8, script);
        let mut submitter = ring.submitter(Bench::FIRST);
        let mut chain = submitter.chain();
        chain.link(Arc::clone(&much), |much| request::send(&much.0, &much.1)).unwrap();
        chain.submit(much, |much| request::send(&much.0, b"end")).unwrap();
        let reader = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            theirs.read_to_end(&mut bytes).unwrap();
            bytes
        });
        ring.run().unwrap();
        assert_eq!(sent.take(), [Ok(MUCH as u32), Ok(3)]);
        drop(ring);
        let bytes = reader.join().unwrap();
        assert_eq!((bytes.len(), &bytes[MUCH..]), (MUCH + 3, &b"end"[..]));
    });
}

#[test]
fn a_deadline_in_a_chain_begins_with_its_request() {
    watched(|| {
        let (mut ring, told, ledger) = ring(8, None);
        let (reader, writer) = pipe();
        let (reader, writer) = (Arc::new(reader), Arc::new(writer));
        let mut submitter = ring.submitter(Bench::FIRST);
        let mut chain = submitter.chain();
        chain.link(part(ledger, "pause", &reader), |_| request::timeout(4 * SOON)).unwrap();
        chain.hard_link(part(ledger, "quiet", &reader), |part| read(part).deadline(SOON)).unwrap();
        chain.link(part(ledger, "one", &writer), |part| write(part).deadline(SOON)).unwrap();
        chain.submit(part(ledger, "last", &reader), |part| read(part).deadline(LATE)).unwrap();
        ring.run().unwrap();
        let expected = [
            (1, "pause", Ok(0), false),
            (1, "quiet", CANCELLED, true),
            (1, "one", Ok(4), false),
            (1, "last", Ok(4), false),
        ];
        let mut ended = told.take();
        // The first three end in order; one that waits for its timer may be told a little later.
        ended.sort_by_key(|(_, name, ..)| expected.iter().position(|(_, it, ..)| it == name));
        assert_eq!(ended, expected);
        assert_eq!((ring.stats().in_flight, ring.stats().foreign), (0, 0));
        // If the time of one is up, the next ends without having begun, and so does its timer.
        let mut submitter = ring.submitter(Bench::FIRST);
        let mut chain = submitter.chain();
        chain.link(part(ledger, "quiet", &reader), |part| read(part).deadline(SOON)).unwrap();
        chain.submit(part(ledger, "last", &writer), |part| write(part).deadline(LATE)).unwrap();
        ring.run().unwrap();
        let mut ended = told.take();
        ended.sort();
        assert_eq!(ended, [(1, "last", CANCELLED, false), (1, "quiet", CANCELLED, true)]);
        ledger.assert_all_dropped_once();
    });
}

#[test]
fn a_chain_that_is_too_long_is_refused() {
    watched(|| {
        let (mut ring, told, ledger) = ring(4, None);
        let file = Arc::new(OwnedFd::from(nameless_file()));
        let mut submitter = ring.submitter(Bench::FIRST);
        let mut chain = submitter.chain();
        chain.link(part(ledger, "one", &file), write).unwrap();
        chain.link(part(ledger, "two", &file), |part| write(part).deadline(LATE)).unwrap();
        // A request and its timer are two entries.
        let refused = chain.link(part(ledger, "many", &file), |part| write(part).deadline(LATE));
        assert_eq!(refused.unwrap_err(), TOO_LONG);
        assert_eq!(ledger.alive(), 2);
        // What there is room for can still be submitted.
        chain.submit(part(ledger, "last", &file), write).unwrap();
        ring.run().unwrap();
        assert_eq!(told.take().len(), 3);

        let mut submitter = ring.submitter(Bench::FIRST);
        let mut chain = submitter.chain();
        for name in ["1", "2", "3", "4"] {
            chain.link(part(ledger, name, &file), write).unwrap();
        }
        assert_eq!(chain.link(part(ledger, "5", &file), write).unwrap_err(), TOO_LONG);
        assert_eq!(chain.submit(part(ledger, "last", &file), write).unwrap_err(), TOO_LONG);
        assert_eq!(ledger.alive(), 0, "nothing is submitted");
        assert_eq!(ring.stats().in_flight, 0);
        ring.run().unwrap();
        assert!(told.is_empty());
        ledger.assert_all_dropped_once();
    });
}

#[test]
fn a_chain_finds_room_as_a_whole_or_not_at_all() {
    watched(|| {
        let (mut ring, told, ledger) = ring(4, Some(3));
        let file = Arc::new(OwnedFd::from(nameless_file()));
        let chain = |submitter: &mut BenchSubmitter<'_, Data>, names: [&'static str; 3]| {
            let mut chain = submitter.chain();
            let [one, two, last] = names.map(|name| part(ledger, name, &file));
            chain.link(one, write)?;
            chain.link(two, |_| request::timeout(SOON / 5).deadline(LATE))?;
            chain.submit(last, write)
        };
        let mut submitter = ring.submitter(Bench::FIRST);
        submitter.submit(part(ledger, "first", &file), write).unwrap();
        // The kernel takes in nothing before the ring runs.
        chain(&mut submitter, ["a", "b", "c"]).unwrap();
        assert_eq!(chain(&mut submitter, ["d", "e", "f"]).unwrap_err(), SubmitError::Full);
        assert_eq!((ring.stats().in_flight, ring.stats().backlog), (4, 3));
        assert_eq!(ledger.alive(), 4);
        ring.run().unwrap();
        let names: Vec<_> =
            told.take().into_iter().map(|(_, name, result, _)| (name, result.is_ok())).collect();
        assert_eq!(names, [("first", true), ("a", true), ("b", true), ("c", true)]);
        ledger.assert_all_dropped_once();
    });
}

#[test]
fn a_chain_with_deadlines_finds_room_as_a_whole_or_not_at_all() {
    fn in_time(part: &mut Data) -> Request<'_> {
        write(part).deadline(LATE)
    }
    watched(|| {
        let (mut ring, told, ledger) = ring(8, Some(1));
        let file = Arc::new(OwnedFd::from(nameless_file()));
        let chain = |submitter: &mut BenchSubmitter<'_, Data>, names: &[&'static str]| {
            let mut chain = submitter.chain();
            let [names @ .., last] = names else { unreachable!("a chain has a last request") };
            for name in names {
                chain.link(part(ledger, name, &file), in_time)?;
            }
            chain.submit(part(ledger, last, &file), in_time)
        };
        let mut submitter = ring.submitter(Bench::FIRST);
        for _ in 0..4 {
            submitter.submit(part(ledger, "first", &file), write).unwrap();
        }
        // With its deadlines, it has twice as many entries as there are places; the kernel takes in nothing yet.
        assert_eq!(chain(&mut submitter, &["a", "b", "c", "d"]).unwrap_err(), SubmitError::Full);
        assert_eq!((ring.stats().in_flight, ring.stats().backlog), (4, 0));
        let mut submitter = ring.submitter(Bench::FIRST);
        // This fits, and the next one may wait.
        chain(&mut submitter, &["e", "f"]).unwrap();
        chain(&mut submitter, &["g"]).unwrap();
        assert_eq!(chain(&mut submitter, &["h"]).unwrap_err(), SubmitError::Full);
        assert_eq!((ring.stats().in_flight, ring.stats().backlog), (7, 1));
        ring.run().unwrap();
        let mut names: Vec<_> = told.take().into_iter().map(|(_, name, ..)| name).collect();
        names.sort();
        assert_eq!(names, ["e", "f", "first", "first", "first", "first", "g"]);
        ledger.assert_all_dropped_once();
    });
}

#[test]
fn a_chain_that_is_dropped_leaves_nothing() {
    in_child(|| {
        let (mut ring, told, ledger) = ring(8, None);
        let (reader, writer) = pipe();
        let (reader, mut other) = (Arc::new(reader), std::fs::File::from(writer.try_clone().unwrap()));
        let before = open_descriptors();
        let mut submitter = ring.submitter(Bench::FIRST);
        let mut chain = submitter.chain();
        let key = chain.link(part(ledger, "read", &reader), read).unwrap();
        let mut chain = chain.to(Bench::SECOND);
        // What the chain owns is closed.
        chain.link(part(ledger, "close", &reader), |_| request::close(writer)).unwrap();
        chain.link(part(ledger, "timed", &reader), |part| read(part).deadline(LATE)).unwrap();
        assert_eq!(format!("{chain:?}"), "Chain { tag: Tag(Bench::second), requests: 3, .. }");
        drop(chain);
        assert_eq!(open_descriptors(), before - 1);
        assert!(!submitter.cancel(key), "its slot is free");
        assert_eq!((ring.stats().in_flight, ledger.alive()), (0, 0));
        // The slots can be used as before.
        other.write_all(b"xyz").unwrap();
        ring.submitter(Bench::FIRST).submit(part(ledger, "again", &reader), read).unwrap();
        ring.run().unwrap();
        assert_eq!(told.take(), [(1, "again", Ok(3), false)]);
        ledger.assert_all_dropped_once();
    });
}

/// Panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("as planned");
    }
}

#[test]
fn a_drop_that_panics_keeps_no_other_from_being_dropped() {
    watched(|| {
        let ledger = Ledger::new();
        let script = Script::new().on_completion(|_, _: Tracked<Option<Bomb>>, _| panic!("nothing ends"));
        let mut ring = Bench::with(8, script);
        let dropped = catch_unwind(AssertUnwindSafe(|| {
            let mut submitter = ring.submitter(Bench::FIRST);
            let mut chain = submitter.chain();
            for bomb in [None, Some(Bomb), None] {
                chain.link(ledger.issue(bomb), |_| request::nop()).unwrap();
            }
        }));
        assert_eq!(*dropped.unwrap_err().downcast::<&str>().unwrap(), "as planned");
        ledger.assert_all_dropped_once();
        assert_eq!(ring.stats().in_flight, 0);
        ring.run().unwrap();
    });
}

#[test]
fn a_closure_that_panics_ends_its_chain() {
    watched(|| {
        let (mut ring, told, ledger) = ring(8, None);
        let file = Arc::new(OwnedFd::from(nameless_file()));
        catch_unwind(AssertUnwindSafe(|| {
            let mut submitter = ring.submitter(Bench::FIRST);
            let mut chain = submitter.chain();
            chain.link(part(ledger, "one", &file), write).unwrap();
            chain.submit(part(ledger, "two", &file), |_| panic!("as planned"))
        }))
        .unwrap_err();
        ledger.assert_all_dropped_once();
        ring.run().unwrap();
        assert!(told.is_empty());
    });
}

#[test]
fn a_chain_that_is_forgotten_keeps_its_data_and_nothing_else() {
    watched(|| {
        for runs in [true, false] {
            let (mut ring, told, ledger) = ring(8, None);
            let file = Arc::new(OwnedFd::from(nameless_file()));
            let mut submitter = ring.submitter(Bench::FIRST);
            let mut chain = submitter.chain();
            let key = chain.link(part(ledger, "lost", &file), |part| write(part).deadline(LATE)).unwrap();
            mem::forget(chain);
            assert!(!submitter.cancel(key));
            assert_eq!(submitter.cancel_all(), 0);
            assert_eq!(ring.stats().in_flight, 0);
            assert_eq!(ring.stats().operations()[0].in_flight, 0);
            if runs {
                ring.submitter(Bench::FIRST).submit(part(ledger, "other", &file), write).unwrap();
                ring.run().unwrap();
                assert_eq!(told.take(), [(1, "other", Ok(4), false)]);
                ring.finish().unwrap();
            }
            drop(ring);
            assert_eq!(ledger.alive(), 1);
        }
    });
}

#[test]
fn a_forged_end_of_what_was_never_submitted_is_nobodys() {
    watched(|| {
        let (raw, target) = addressable(8);
        let told = Log::new();
        let log = told.clone();
        let script = Script::new().on_completion(|_, _, _| panic!("nothing ends"));
        let other = Script::new().on_completion(move |completion, part: Data, _| {
            log.push((part.name, outcome(&completion)));
            (ControlFlow::Continue, None)
        });
        let mut ring = Bench::builder(script, other).raw_ring(raw).build().unwrap();
        // From here on, others can send to it.
        ring.turn().unwrap();
        let (ledger, file) = (Ledger::new(), Arc::new(OwnedFd::from(nameless_file())));
        let mut submitter = ring.submitter(Bench::FIRST);
        let mut chain = submitter.chain();
        let key = chain.link(part(ledger, "lost", &file), |part| write(part).deadline(LATE)).unwrap();
        let plain = chain.link(part(ledger, "lost, too", &file), write).unwrap();
        // No chain that could still be submitted lets the ring look at completions.
        mem::forget(chain);
        let timer = key.user_data() | TIMER;
        let names = [key.user_data(), timer, plain.user_data(), timer, key.user_data()];
        for name in names {
            for flags in [None, Some(F_MORE)] {
                forge(target, name, 1, flags);
            }
        }
        while ring.stats().foreign < 2 * names.len() as u64 {
            ring.turn().unwrap();
        }
        assert_eq!(ring.stats().in_flight, 0);
        assert!(!ring.submitter(Bench::FIRST).cancel(key), "it is not in flight");
        let mut submitter = ring.submitter(Bench::SECOND);
        let mut chain = submitter.chain();
        chain.link(part(ledger, "1", &file), |part| write(part).deadline(LATE)).unwrap();
        chain.submit(part(ledger, "2", &file), write).unwrap();
        ring.run().unwrap();
        assert_eq!(told.take(), [("1", Ok(4)), ("2", Ok(4))]);
        drop(ring);
        assert_eq!(ledger.alive(), 2, "what was forgotten stays so");
    });
}

#[test]
fn a_ring_that_ends_tells_of_all_that_was_submitted() {
    watched(|| {
        for (hard, turns) in [(false, 0), (false, 2), (true, 0), (true, 2)] {
            let (mut ring, told, ledger) = ring(8, None);
            let (reader, _writer) = pipe();
            let reader = Arc::new(reader);
            let mut submitter = ring.submitter(Bench::FIRST);
            let mut chain = submitter.chain();
            for name in ["1", "2", "3"] {
                match hard {
                    true => chain.hard_link(part(ledger, name, &reader), read),
                    false => chain.link(part(ledger, name, &reader), |part| read(part).deadline(LATE)),
                }
                .unwrap();
            }
            chain.submit(part(ledger, "4", &reader), read).unwrap();
            for _ in 0..turns {
                ring.turn().unwrap();
            }
            ring.finish().unwrap();
            let mut ended = told.take();
            ended.sort();
            assert_eq!(ended, ["1", "2", "3", "4"].map(|name| (1, name, CANCELLED, false)));
            assert_eq!(ring.stats().foreign, 0);
            ledger.assert_all_dropped_once();
        }
    });
}

#[test]
fn a_cancel_of_the_first_ends_all() {
    watched(|| {
        let (mut ring, told, ledger) = ring(8, None);
        let (reader, _writer) = pipe();
        let reader = Arc::new(reader);
        let mut submitter = ring.submitter(Bench::FIRST);
        let mut chain = submitter.chain();
        let key = chain.link(part(ledger, "1", &reader), read).unwrap();
        chain.link(part(ledger, "2", &reader), read).unwrap();
        chain.submit(part(ledger, "3", &reader), read).unwrap();
        assert!(submitter.cancel(key));
        ring.run().unwrap();
        let mut ended = told.take();
        ended.sort();
        assert_eq!(ended, ["1", "2", "3"].map(|name| (1, name, CANCELLED, false)));
        ledger.assert_all_dropped_once();
    });
}
