//! Messages with control messages: descriptors that are passed, and what is said of datagrams.

use std::collections::HashSet;
use std::fs::File;
use std::io::{PipeReader, Read, Write};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rummelplatz::request::{RecvControl, SendControl};
use rummelplatz::{ControlFlow, request};
use rummelplatz_tests::messages::{self, Listening, Passing, Receiving, are_closed, watched_fds};
use rummelplatz_tests::{
    Bench, Script, address, addressable, in_child, once, open_descriptors, outcome, pipe, soon, watched,
};

#[test]
fn files_are_passed_and_read_from() {
    watched(|| messages::files_are_passed_and_read_from(|| addressable(8).0));
}

#[test]
fn descriptors_that_nobody_takes_are_closed() {
    watched(|| messages::descriptors_that_nobody_takes_are_closed(|| addressable(8).0));
}

#[test]
fn what_is_used_again_closes_what_it_has() {
    watched(|| messages::what_is_used_again_closes_what_it_has(|| addressable(8).0));
}

#[test]
fn what_can_not_be_passed_is_refused() {
    watched(|| messages::what_can_not_be_passed_is_refused(|| addressable(8).0));
}

#[test]
fn a_datagram_says_where_it_was_sent_to_and_how() {
    watched(|| messages::a_datagram_says_where_it_was_sent_to_and_how(|| addressable(8).0));
}

#[test]
fn a_message_says_who_has_sent_it() {
    watched(|| messages::a_message_says_who_has_sent_it(|| addressable(8).0));
}

#[test]
fn datagrams_are_split_and_joined() {
    watched(|| messages::datagrams_are_split_and_joined(|| addressable(8).0));
}

#[test]
fn a_stream_of_datagrams_says_what_comes_with_them() {
    watched(|| messages::a_stream_of_datagrams_says_what_comes_with_them(|| addressable(8).0));
}

#[test]
fn a_stream_closes_the_descriptors_that_come() {
    watched(|| messages::a_stream_closes_the_descriptors_that_come(|| addressable(8).0));
}

/// How a ring ends that has such requests.
type End<D> = fn(D);

/// Sockets for which a message with two descriptors has arrived each, and what says that all of these are closed.
fn arrived(count: usize) -> (Vec<Receiving>, Vec<PipeReader>) {
    let one = || {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        let (fds, watches) = watched_fds(2);
        assert_eq!(once(Passing::new(ours, b"x", fds), Passing::request).0, Ok(1));
        (Receiving::new(theirs, RecvControl::new()), watches)
    };
    let (receiving, watches): (_, Vec<_>) = (0..count).map(|_| one()).unzip();
    (receiving, watches.into_iter().flatten().collect())
}

#[test]
fn descriptors_that_arrive_as_a_ring_ends_are_closed() {
    /// Submits all of them.
    fn submit(ring: &mut Bench<Receiving>, receiving: Vec<Receiving>) {
        for data in receiving {
            ring.submitter(Bench::FIRST).submit(data, Receiving::request).unwrap();
        }
    }
    fn idle() -> Bench<Receiving> {
        Bench::with(8, Script::new())
    }
    let ends: [(&str, End<Vec<Receiving>>); 9] = [
        ("nobody takes them", |receiving| {
            let mut ring = idle();
            submit(&mut ring, receiving);
            ring.run().unwrap();
            assert_eq!(ring.stats().in_flight, 0);
        }),
        ("the ring never runs", |receiving| submit(&mut idle(), receiving)),
        ("it is dropped between turns", |receiving| {
            let mut ring = idle();
            ring.turn().unwrap();
            submit(&mut ring, receiving);
        }),
        ("it exits", |receiving| {
            let script = Script::new().on_completion(|_, _, _| (ControlFlow::Exit, None));
            let mut ring = Bench::with(8, script);
            submit(&mut ring, receiving);
            ring.run().unwrap();
        }),
        ("it fails", |receiving| {
            let script =
                Script::new().on_completion(|_, data, _| (ControlFlow::Error("no".into()), Some(data)));
            let mut ring = Bench::with(8, script);
            submit(&mut ring, receiving);
            ring.run().unwrap_err();
        }),
        ("it panics", |receiving| {
            let script = Script::new().on_completion(|_, _, _| panic!("on purpose"));
            let mut ring = Bench::with(8, script);
            submit(&mut ring, receiving);
            catch_unwind(AssertUnwindSafe(|| ring.run())).unwrap_err();
        }),
        ("they are detached", |receiving| {
            let mut ring = idle();
            for data in receiving {
                ring.submitter(Bench::FIRST).detach(data, Receiving::request).unwrap();
            }
            ring.run().unwrap();
        }),
        ("they are cancelled", |receiving| {
            let mut ring = idle();
            submit(&mut ring, receiving);
            ring.submitter(Bench::FIRST).cancel_all();
            ring.run().unwrap();
        }),
        ("a worker receives them", |receiving| {
            let mut ring = idle();
            for data in receiving {
                ring.submitter(Bench::FIRST).submit(data, |it| it.request().in_worker()).unwrap();
            }
            ring.run().unwrap();
        }),
    ];
    in_child(|| {
        for (how, end) in ends {
            let before = open_descriptors();
            let (receiving, watches) = arrived(20);
            end(receiving);
            assert!(soon(|| are_closed(&watches)), "{how}");
            drop(watches);
            assert_eq!(open_descriptors(), before, "{how}");
        }
    });
}

#[test]
fn what_waits_for_a_message_gets_its_descriptors() {
    watched(|| {
        for in_worker in [false, true] {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let (fds, watches) = watched_fds(1);
            let sender = thread::spawn(move || {
                // Long enough for the ring to wait.
                thread::sleep(Duration::from_millis(20));
                once(Passing::new(ours, b"x", fds), Passing::request)
            });
            let receiving = Receiving::new(theirs, RecvControl::new());
            let (result, mut received) = once(receiving, |it| match in_worker {
                true => it.request().in_worker(),
                false => it.request(),
            });
            drop(sender.join().unwrap());
            assert_eq!((result, are_closed(&watches)), (Ok(1), false));
            let fd = received.control.take_fds().next().unwrap();
            File::from(fd).write_all(b"hello").unwrap();
            let mut said = String::new();
            watches.into_iter().next().unwrap().read_to_string(&mut said).unwrap();
            assert_eq!(said, "hello");
        }
    });
}

#[test]
fn a_message_that_waits_for_room_goes_out_with_its_descriptors_once() {
    watched(|| {
        messages::a_message_that_waits_for_room_goes_out_with_its_descriptors_once(|| addressable(8).0)
    });
}

#[test]
fn messages_in_the_backlog_are_kept_as_they_were() {
    struct Numbered {
        socket: Arc<UnixDatagram>,
        number: [u8; 1],
        file: OwnedFd,
        control: SendControl,
    }
    watched(|| {
        const COUNT: u8 = 60;
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        let socket = Arc::new(ours);
        let script = Script::new()
            .on_setup_once(move |mut submitter| {
                for number in 0..COUNT {
                    let (reader, writer) = pipe();
                    File::from(writer).write_all(&[number]).unwrap();
                    let (socket, control) = (socket.clone(), SendControl::new());
                    let data = Numbered { socket, number: [number], file: reader, control };
                    submitter.submit(data, move |it| {
                        // Some of these are longer than the others.
                        let copies = vec![&it.file; usize::from(number % 5) + 1];
                        let control = it.control.start().fds(copies);
                        request::send_message(&it.socket, [&it.number[..]], control)
                    })?;
                }
                Ok(())
            })
            .on_completion(|completion, _, _| {
                assert_eq!(outcome(&completion), Ok(1));
                (ControlFlow::Continue, None)
            });
        let mut ring = Bench::builder(script, Script::new()).entries(2.try_into().unwrap()).build().unwrap();
        let receiver = thread::spawn(move || {
            let mut receiving = Receiving::new(theirs, RecvControl::new());
            let mut seen = HashSet::new();
            for _ in 0..COUNT {
                let (result, mut received) = once(receiving, Receiving::request);
                assert_eq!(result, Ok(1));
                let number = received.bytes[0];
                let fds: Vec<_> = received.control.take_fds().collect();
                assert_eq!(fds.len(), usize::from(number % 5) + 1);
                let mut said = Vec::new();
                fds.into_iter().for_each(|fd| {
                    File::from(fd).read_to_end(&mut said).unwrap();
                });
                assert_eq!(said, [number]);
                assert!(seen.insert(number));
                receiving = received;
            }
        });
        ring.run().unwrap();
        receiver.join().unwrap();
    });
}

#[test]
fn an_io_uring_is_not_passed() {
    watched(|| {
        let (raw, fd) = addressable(8);
        // SAFETY: the ring lives until the end of this test.
        let fd = unsafe { BorrowedFd::borrow_raw(fd.0) };
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let passing = Passing::new(ours, b"x", vec![fd.try_clone_to_owned().unwrap()]);
        assert_eq!(once(passing, Passing::request).0, Err(libc::EINVAL));
        drop(raw);
    });
}

#[test]
fn what_nobody_knows_is_sent_and_received_raw() {
    watched(|| {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        messages::set(&theirs, libc::SOL_SOCKET, libc::SO_PASSCRED, 1);
        let process = std::process::id();
        let passing = Passing::new(ours, b"x", Vec::new());
        let (result, _) = once(passing, |it| {
            // SAFETY: plain calls.
            let (uid, gid) = unsafe { (libc::getuid(), libc::getgid()) };
            let sender = [process, uid, gid].map(u32::to_ne_bytes).concat();
            // SAFETY: it names neither descriptors nor memory.
            let control =
                unsafe { it.control.start().message(libc::SOL_SOCKET, libc::SCM_CREDENTIALS, &sender) };
            request::send_message(&it.socket, [&it.bytes[..]], control)
        });
        assert_eq!(result, Ok(1));
        let (result, received) = once(Receiving::new(theirs, RecvControl::new()), Receiving::request);
        assert_eq!((result, received.control.messages().credentials().unwrap().pid), (Ok(1), process));
        let message = received.control.messages().iter().next().unwrap();
        assert_eq!((message.level, message.kind), (libc::SOL_SOCKET, libc::SCM_CREDENTIALS));
        assert_eq!(message.bytes[..4], process.to_ne_bytes());
    });
}

#[test]
fn descriptors_are_passed_to_an_address() {
    watched(|| {
        let there = address("messages");
        let theirs = UnixDatagram::bind_addr(&there).unwrap();
        let (fds, watches) = watched_fds(1);
        let passing = Passing::new(UnixDatagram::unbound().unwrap(), b"hello", fds);
        let (result, passing) = once(passing, |it| {
            let control = it.control.start().to(&there).fds(&it.fds);
            request::send_message(&it.socket, [&it.bytes[..]], control)
        });
        assert_eq!(result, Ok(5));
        drop(passing);
        let (result, mut received) = once(Receiving::new(theirs, RecvControl::new()), Receiving::request);
        assert_eq!((result, &received.bytes[..5], received.control.peer()), (Ok(5), &b"hello"[..], None));
        assert_eq!((received.control.take_fds().count(), soon(|| are_closed(&watches))), (1, true));
    });
}

#[test]
fn descriptors_that_come_to_a_stream_as_its_ring_ends_are_closed() {
    /// A socket for which three messages with descriptors have arrived.
    fn arrived() -> (Listening, Vec<PipeReader>) {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        let mut all = Vec::new();
        for _ in 0..3 {
            let (fds, watches) = watched_fds(2);
            let passing = Passing::new(ours.try_clone().unwrap(), b"x", fds);
            assert_eq!(once(passing, Passing::request).0, Ok(1));
            all.extend(watches);
        }
        (Listening::new(theirs, 8), all)
    }
    let ends: [(&str, End<Listening>); 4] = [
        ("the data is dropped at the first", |listening| {
            let mut ring = Bench::with(8, Script::new());
            ring.submitter(Bench::FIRST).stream(listening, Listening::stream).unwrap();
            ring.run().unwrap();
        }),
        ("it exits", |listening| {
            let script = Script::new().on_completion(|_, data, _| (ControlFlow::Exit, Some(data)));
            let mut ring = Bench::with(8, script);
            ring.submitter(Bench::FIRST).stream(listening, Listening::stream).unwrap();
            ring.run().unwrap();
        }),
        ("it panics", |listening| {
            let script = Script::new().on_completion(|_, _, _| panic!("on purpose"));
            let mut ring = Bench::with(8, script);
            ring.submitter(Bench::FIRST).stream(listening, Listening::stream).unwrap();
            catch_unwind(AssertUnwindSafe(|| ring.run())).unwrap_err();
        }),
        ("it is dropped", |listening| {
            let mut ring = Bench::with(8, Script::new());
            ring.turn().unwrap();
            ring.submitter(Bench::FIRST).stream(listening, Listening::stream).unwrap();
        }),
    ];
    in_child(|| {
        for (how, end) in ends {
            let before = open_descriptors();
            let (listening, watches) = arrived();
            end(listening);
            assert!(soon(|| are_closed(&watches)), "{how}");
            drop(watches);
            assert_eq!(open_descriptors(), before, "{how}");
        }
    });
}
