//! Direct descriptors: files and sockets that the kernel puts into the ring's own table.

use std::io::{Read, Write};
use std::num::NonZeroU32;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use rummelplatz::{
    Buffer, BufferPool, ControlFlow, FixedFile, RawRing, RingError, SqPoller, Stream, request,
};
use rummelplatz_tests::direct::{self, Work, bench, connections, is_closed};
use rummelplatz_tests::{
    Bench, Directory, Log, PATIENCE, Script, addressable, in_child, in_fork, is_cut, open_descriptors,
    outcome, set_limit, watched,
};

fn raw() -> RawRing {
    addressable(8).0
}

#[test]
fn connections_are_served_and_closed_when_they_are_left() {
    watched(|| direct::connections_are_served_and_closed_when_they_are_left(raw));
}

#[test]
fn a_full_table_closes_the_connection_and_has_room_again_when_one_is_left() {
    watched(|| direct::a_full_table_closes_the_connection_and_has_room_again_when_one_is_left(raw));
}

#[test]
fn a_full_table_takes_no_place_that_is_for_registered_files() {
    watched(|| direct::a_full_table_takes_no_place_that_is_for_registered_files(raw));
}

#[test]
fn files_are_opened_in_the_table_and_may_get_a_descriptor() {
    watched(|| direct::files_are_opened_in_the_table_and_may_get_a_descriptor(raw));
}

#[test]
fn without_places_there_are_no_direct_descriptors() {
    watched(|| direct::without_places_there_are_no_direct_descriptors(raw));
}

#[test]
fn what_is_held_beyond_the_run_names_nothing() {
    watched(|| direct::what_is_held_beyond_the_run_names_nothing(raw));
}

/// Accepts all connections and hands the sockets to `taken`.
fn accepting(listener: Arc<UnixListener>, mut taken: impl FnMut(FixedFile) + Send + 'static) -> Script<Work> {
    Script::new()
        .on_setup_once(move |mut submitter| {
            submitter.stream(Work::Accept(listener), Work::accept)?;
            Ok(())
        })
        .on_completion(move |completion, work, _| {
            taken(completion.into_fixed_file().unwrap());
            (ControlFlow::Continue, Some(work))
        })
}

#[test]
fn another_thread_that_leaves_a_socket_wakes_the_ring() {
    watched(|| {
        let (listener, clients) = connections(1);
        let (give, take) = mpsc::channel::<FixedFile>();
        let mut ring = bench(raw(), 2, accepting(listener, move |socket| give.send(socket).unwrap()));
        let handle = ring.handle();
        let other = thread::spawn(move || {
            let socket = take.recv().unwrap();
            let clone = socket.clone();
            drop(socket);
            assert!(!is_closed(&clients[0]), "there is a clone");
            thread::sleep(Duration::from_millis(20));
            drop(clone);
            // Blocks until the ring, which has nothing else to do, has closed it.
            assert_eq!((&clients[0]).read(&mut [0]).unwrap(), 0);
            handle.stop();
        });
        ring.run().unwrap();
        other.join().unwrap();
    });
}

#[test]
fn what_the_function_of_a_stream_leaves_is_closed_before_the_ring_waits() {
    enum Link {
        Accept(Arc<UnixListener>),
        /// Keeps the socket that was accepted until it is armed again.
        Receive(UnixStream, BufferPool, Vec<FixedFile>, bool),
    }
    impl Link {
        fn receive(&mut self) -> Stream<'_> {
            let Link::Receive(socket, pool, kept, was_armed) = self else { panic!("it receives nothing") };
            if std::mem::replace(was_armed, true) {
                kept.clear();
            }
            request::recv_multi(socket, pool)
        }
    }
    watched(|| {
        let (listener, clients) = connections(1);
        let (near, mut far) = UnixStream::pair().unwrap();
        let also_near = near.try_clone().unwrap();
        let mut near = Some(near);
        far.write_all(b"1").unwrap();
        let pool = BufferPool::new(1, 1).unwrap();
        let (give, take) = mpsc::channel::<Option<Buffer>>();
        let script = Script::new()
            .on_setup_once(move |mut submitter| {
                submitter.submit(Link::Accept(listener), |link| match link {
                    Link::Accept(listener) => request::accept_direct(listener),
                    Link::Receive(..) => request::nop(),
                })?;
                Ok(())
            })
            .on_completion(move |completion, link, mut submitter| match link {
                Link::Accept(_) => {
                    let kept = vec![completion.into_fixed_file().unwrap()];
                    let link = Link::Receive(near.take().unwrap(), pool.clone(), kept, false);
                    submitter.stream(link, Link::receive).unwrap();
                    (ControlFlow::Continue, None)
                }
                _ if completion.more() => {
                    give.send(completion.into_buffer().ok()).unwrap();
                    (ControlFlow::Continue, Some(link))
                }
                _ => (ControlFlow::Continue, None),
            });
        let builder = Bench::builder(script, Script::new());
        let mut ring = builder.direct_descriptors(NonZeroU32::MIN).build().unwrap();
        let handle = ring.handle();
        let other = thread::spawn(move || {
            let buffer = take.recv().unwrap();
            assert!(buffer.is_some());
            far.write_all(b"2").unwrap();
            assert!(take.recv().unwrap().is_none(), "the only buffer is held");
            (&also_near).read_exact(&mut [0]).unwrap();
            // The stream goes on, and nothing comes.
            drop(buffer);
            assert_eq!((&clients[0]).read(&mut [0]).unwrap(), 0);
            handle.stop();
        });
        ring.run().unwrap();
        other.join().unwrap();
    });
}

#[test]
#[ignore = "takes minutes"]
fn a_file_with_more_clones_than_fit_into_32_bits_has_others() {
    let mut ring = bench(raw(), 1, Script::new());
    let mut submitter = ring.submitter(Bench::FIRST);
    let file = submitter.register_file(std::fs::File::open("/dev/null").unwrap()).unwrap();
    (0..u32::MAX).for_each(|_| std::mem::forget(file.clone()));
    assert!(submitter.unregister_file(file.clone()).is_err());
}

#[test]
fn a_socket_that_is_left_between_turns_is_closed_in_the_next() {
    watched(|| {
        let (listener, clients) = connections(2);
        let sockets = Log::new();
        let log = sockets.clone();
        let mut ring = bench(raw(), 2, accepting(listener, move |socket| log.push(socket)));
        while sockets.len() < 2 {
            ring.turn().unwrap();
        }
        while ring.turn().unwrap().call_again_in == Some(Duration::ZERO) {}
        let mut poll = libc::pollfd { fd: ring.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: there is one of it.
        let mut wait = |time| unsafe { libc::poll(&raw mut poll, 1, time) };
        assert_eq!(wait(10), 0, "there is nothing to do");
        let socket = sockets.take().pop();
        assert_eq!(wait(10_000), 1, "the other one was dropped, and whoever waits for the ring learns of it");
        while !is_closed(&clients[0]) {
            ring.turn().unwrap();
        }
        assert!(!is_closed(&clients[1]));
        ring.submitter(Bench::FIRST).unregister_file(socket.unwrap()).unwrap();
        assert!(is_closed(&clients[1]), "at once");
        ring.finish().unwrap();
    });
}

#[test]
fn a_table_of_four_serves_any_number_of_connections() {
    watched(|| {
        in_child(|| {
            const COUNT: usize = 300;
            let there = Directory::new("direct-churn");
            let path = there.path("socket");
            let listener = Arc::new(UnixListener::bind(&path).unwrap());
            let mut served = 0;
            let before = Log::new();
            let script = accepting(listener, move |socket| {
                // No number of the process is used for it.
                before.push(open_descriptors());
                drop(socket);
                served += 1;
                if served == COUNT {
                    let counts = before.take();
                    let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
                    assert!(most - least <= 2, "{least} to {most}");
                }
            });
            let mut ring = bench(raw(), 4, script);
            let handle = ring.handle();
            let other = thread::spawn(move || {
                for _ in 0..COUNT {
                    let mut client = UnixStream::connect(&path).unwrap();
                    assert_eq!(client.read(&mut [0]).unwrap(), 0);
                }
                handle.stop();
            });
            ring.run().unwrap();
            other.join().unwrap();
        });
    });
}

/// Many connections in a table of three places, a queue of four entries and a backlog; each sends its number, and must
/// get that back or nothing.
fn nobody_hears_what_is_for_another(name: &str, poller: Option<SqPoller>) {
    const THREADS: u64 = 3;
    const TIMES: u64 = 200;
    let there = Directory::new(name);
    let path = there.path("socket");
    let listener = Arc::new(UnixListener::bind(&path).unwrap());
    let (give, take) = mpsc::channel::<FixedFile>();
    let other = thread::spawn(move || take.into_iter().for_each(drop));
    let mut told = 0;
    let script = Script::new().on_setup_once(move |mut submitter| {
        submitter.stream(Work::Accept(listener), Work::accept)?;
        Ok(())
    });
    let script = script.on_completion(move |completion, work, mut submitter| {
        told += 1;
        match work {
            Work::Accept(_) => {
                let more = completion.more();
                if let Ok(socket) = completion.into_fixed_file() {
                    give.send(socket.clone()).unwrap();
                    submitter.submit(Work::Receive(socket, vec![0; 8]), Work::request).unwrap();
                }
                if more {
                    return (ControlFlow::Continue, Some(work));
                }
                // There was no room.
                submitter.stream(work, Work::accept).unwrap();
            }
            Work::Receive(socket, mut bytes) => {
                bytes.truncate(completion.result().unwrap_or(0) as usize);
                let send = Work::Send(socket.clone(), bytes);
                let pause = Work::Pause(vec![socket]);
                // The answer is the last in the backlog, or behind something.
                for _ in 0..5 {
                    submitter.submit(Work::Pause(Vec::new()), Work::request).unwrap();
                }
                match told % 4 {
                    0 => submitter.detach(send, Work::request).unwrap(),
                    1 => {
                        let mut chain = submitter.chain();
                        chain.link(pause, Work::request).unwrap();
                        chain.submit(send, Work::request).unwrap();
                    }
                    2 => {
                        submitter.submit(send, |it| it.request().in_worker()).unwrap();
                    }
                    _ => {
                        submitter.submit(send, |it| it.request().deadline(PATIENCE)).unwrap();
                    }
                }
            }
            _ => {}
        }
        (ControlFlow::Continue, None)
    });
    let [four, three] = [4, 3].map(|count| NonZeroU32::new(count).unwrap());
    let mut builder = Bench::builder(script, Script::new()).entries(four).direct_descriptors(three);
    if let Some(poller) = &poller {
        builder = builder.sqpoll_with(poller);
    }
    let mut ring = builder.build().unwrap();
    let handle = ring.handle();
    let clients = thread::spawn(move || {
        let answered = |number: u64| {
            let Ok(mut client) = UnixStream::connect(&path) else { return false };
            let (mut bytes, number) = (Vec::new(), number.to_le_bytes());
            // Without room, the connection is closed at some time.
            let is_heard = client.write_all(&number).is_ok() && client.read_to_end(&mut bytes).is_ok();
            assert!(bytes.is_empty() || bytes == number, "{bytes:?} instead of {number:?}");
            is_heard && !bytes.is_empty()
        };
        let count = |thread| (0..TIMES).filter(|time| answered(thread * TIMES + time)).count();
        let answered: usize = thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || count(thread))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        handle.stop();
        answered
    });
    ring.run().unwrap();
    assert!(clients.join().unwrap() > 10);
    drop(ring);
    other.join().unwrap();
}

#[test]
fn nobody_hears_what_is_for_another_whoever_had_the_place_before() {
    watched(|| nobody_hears_what_is_for_another("direct-others", None));
}

#[test]
fn nobody_hears_what_is_for_another_if_entries_are_taken_in_later() {
    watched(|| {
        let poller = SqPoller::new(Duration::from_millis(1), None).unwrap();
        nobody_hears_what_is_for_another("direct-polled", Some(poller));
    });
}

#[test]
fn no_socket_is_lost_when_the_kernel_cuts_the_stream() {
    watched(|| {
        const COUNT: usize = 20;
        let (listener, clients) = connections(COUNT);
        let sockets = Log::new();
        let (log, cuts) = (sockets.clone(), Log::new());
        let cut = cuts.clone();
        let script = Script::new()
            .on_setup_once(move |mut submitter| {
                submitter.stream(Work::Accept(listener), Work::accept)?;
                Ok(())
            })
            .on_completion(move |completion, work, _| {
                assert!(completion.more());
                if is_cut(&completion) {
                    cut.push(());
                }
                log.push(completion.into_fixed_file().unwrap());
                let flow = if log.len() == COUNT { ControlFlow::Exit } else { ControlFlow::Continue };
                (flow, Some(work))
            });
        let [four, places] = [4, COUNT as u32].map(|count| NonZeroU32::new(count).unwrap());
        let mut ring = Bench::builder(script, Script::new())
            .entries(four)
            .completion_entries(four)
            .direct_descriptors(places)
            .build()
            .unwrap();
        ring.run().unwrap();
        assert_eq!(sockets.len(), COUNT);
        assert!(!cuts.is_empty(), "four completions are not enough for twenty connections");
        assert!(clients.iter().all(is_closed));
    });
}

#[test]
fn a_teardown_closes_what_is_in_flight_and_what_arrives() {
    watched(|| {
        let (listener, clients) = connections(3);
        let kept = Log::new();
        let keep = kept.clone();
        let torn = Log::new();
        let log = torn.clone();
        let script = Script::new()
            .on_setup_once(move |mut submitter| {
                submitter.stream(Work::Accept(listener), Work::accept)?;
                Ok(())
            })
            .on_completion(move |completion, work, mut submitter| {
                // The first is kept, the second waits for bytes, and the third is a completion that nobody looks
                // into before everything ends.
                match keep.len() {
                    0 => keep.push(completion.into_fixed_file().unwrap()),
                    1 => {
                        let socket = completion.into_fixed_file().unwrap();
                        keep.push(socket.clone());
                        submitter.submit(Work::Receive(socket, vec![0; 8]), Work::request).unwrap();
                        return (ControlFlow::Exit, Some(work));
                    }
                    _ => unreachable!("the run has ended"),
                }
                (ControlFlow::Continue, Some(work))
            })
            .on_teardown(move |completion, work, _| {
                log.push((matches!(work, Work::Receive(..)), outcome(&completion)));
                Ok(())
            });
        let mut ring = bench(raw(), 4, script);
        ring.run().unwrap();
        assert!(clients.iter().all(is_closed), "although somebody holds two of them");
        let mut told = torn.take();
        told.sort_by_key(|(receives, _)| *receives);
        assert_eq!(told.last(), Some(&(true, Err(libc::ECANCELED))));
        assert_eq!(ring.stats().in_flight, 0);
        drop(kept.take());
        ring.run().unwrap();
    });
}

#[test]
fn a_table_larger_than_the_process_may_have_is_refused_before_anything_is_done() {
    watched(|| {
        in_child(|| {
            set_limit(libc::RLIMIT_NOFILE, 64);
            let (listener, clients) = connections(1);
            let Err(RingError::Api(cause)) = bench(raw(), 65, accepting(listener.clone(), drop)).run() else {
                panic!("65 are too many")
            };
            let told = cause.to_string();
            assert!(told.contains("65 direct descriptors"), "{told}");
            assert!(!is_closed(&clients[0]), "nobody has accepted it");
        });
    });
}

#[test]
fn a_table_larger_than_any_is_refused() {
    watched(|| {
        for places in [(1 << 20) + 1, u32::MAX - 1, u32::MAX] {
            let Err(RingError::Api(cause)) = bench(raw(), places, Script::new()).run() else {
                panic!("{places} are too many")
            };
            let told = cause.to_string();
            assert!(told.contains(&format!("{places} direct descriptors")), "{told}");
        }
    });
}

#[test]
fn a_forked_child_that_leaves_a_socket_closes_nothing() {
    watched(|| {
        in_child(|| {
            let (listener, clients) = connections(1);
            let sockets = Log::new();
            let log = sockets.clone();
            let mut ring = bench(raw(), 2, accepting(listener, move |socket| log.push(socket)));
            while sockets.is_empty() {
                ring.turn().unwrap();
            }
            let mut sockets = sockets.take();
            in_fork(|| {
                sockets.clear();
                assert!(matches!(ring.turn(), Err(RingError::Forked)));
            });
            ring.turn().unwrap();
            assert!(!is_closed(&clients[0]));
            drop(sockets);
            ring.turn().unwrap();
            assert!(is_closed(&clients[0]));
            ring.finish().unwrap();
        });
    });
}

#[test]
fn a_handler_that_forks_and_leaves_a_socket_in_the_child_closes_nothing() {
    watched(|| {
        in_child(|| {
            let (listener, clients) = connections(1);
            let client = clients[0].try_clone().unwrap();
            let kept = Log::new();
            let keep = kept.clone();
            let is_child = Arc::new(AtomicBool::new(false));
            let child = is_child.clone();
            let script = Script::new()
                .on_setup_once(move |mut submitter| {
                    submitter.stream(Work::Accept(listener), Work::accept)?;
                    Ok(())
                })
                .on_completion(move |completion, work, mut submitter| match work {
                    Work::Accept(_) => {
                        keep.push(completion.into_fixed_file().unwrap());
                        // SAFETY: this is the only thread of a test in a child.
                        let pid = unsafe { libc::fork() };
                        if pid == 0 {
                            child.store(true, Ordering::Relaxed);
                            keep.take();
                        } else {
                            // SAFETY: a plain call.
                            assert_eq!(unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) }, pid);
                            submitter.submit(Work::Pause(Vec::new()), Work::request).unwrap();
                        }
                        (ControlFlow::Continue, Some(work))
                    }
                    _ => {
                        assert!(!is_closed(&client), "the child has closed it");
                        (ControlFlow::Exit, None)
                    }
                });
            let result = bench(raw(), 2, script).run();
            if is_child.load(Ordering::Relaxed) {
                let is_told = matches!(result, Err(RingError::Forked));
                // SAFETY: ends the process without running what belongs to the parent.
                unsafe { libc::_exit(i32::from(!is_told)) };
            }
            result.unwrap();
            drop((clients, kept));
        });
    });
}
