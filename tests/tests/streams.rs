//! Multishot requests: what keeps them going, and every way in which they end.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::num::NonZeroU32;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{setsockopt, sockopt};
use rummelplatz::io_uring::{IoUring, opcode};
use rummelplatz::request::Events;
use rummelplatz::{BufferPool, Completion, ControlFlow, Key, RingError, Status, Stream, request};
use rummelplatz_tests::{
    Acceptor, Bench, BenchSubmitter, IORING_REGISTER_EVENTFD, Ledger, Log, Outcome, Receiver, Script,
    Tracked, connect, cramped, in_child, is_cut, listener, open_descriptors, outcome, pipe, receive_all,
    restricted, tcp_pair, watched,
};

/// Submits a stream, and tells its handler the stream's key.
fn script_with_key<D: Send + 'static>(
    data: D,
    arm: for<'d> fn(&'d mut D) -> Stream<'d>,
    mut handler: impl FnMut(Key<Script<D>>, Completion, D, BenchSubmitter<'_, D>) -> Outcome<D> + Send + 'static,
) -> Script<D> {
    let (tell, told) = mpsc::channel();
    let mut key = None;
    Script::new()
        .on_setup_once(move |mut submitter| Ok(tell.send(submitter.stream(data, arm)?)?))
        .on_completion(move |completion, data, submitter| {
            let key = *key.get_or_insert_with(|| told.recv().unwrap());
            handler(key, completion, data, submitter)
        })
}

/// Fails unless the other end is closed and has sent nothing.
fn assert_closed_by_peer(client: &mut TcpStream) {
    match client.read(&mut [0; 1]) {
        Ok(0) => {}
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
        other => panic!("the socket is open: {other:?}"),
    }
}

// ---- accepting --------------------------------------------------------------------------------

#[test]
fn an_acceptor_hands_its_sockets_to_another_operation_by_tag() {
    watched(|| {
        enum Work {
            Accept(Acceptor),
            Greet(TcpStream),
        }
        let listener = listener();
        let mut clients = connect(&listener, 20);
        let acceptor = Work::Accept(Acceptor::new(&listener));
        let mut accepted = 0;
        let first = Script::new()
            .on_setup_once(|mut submitter| {
                submitter.stream(acceptor, |work| match work {
                    Work::Accept(acceptor) => acceptor.accept(),
                    Work::Greet(_) => unreachable!("only acceptors are streams"),
                })?;
                Ok(())
            })
            .on_completion(move |completion, acceptor, mut submitter| {
                let socket = completion.into_fd().unwrap();
                let submitted = submitter.to(Bench::SECOND).submit(Work::Greet(socket.into()), |work| {
                    let Work::Greet(socket) = work else { unreachable!("submitted as such") };
                    request::send(socket, b"hello")
                });
                submitted.unwrap();
                accepted += 1;
                (ControlFlow::Continue, (accepted < 20).then_some(acceptor))
            });
        let second = Script::new().on_completion(|completion, _, submitter| {
            assert_eq!(completion.result().unwrap(), 5);
            assert_eq!(submitter.tag().name(), "second");
            (ControlFlow::Continue, None)
        });
        let mut ring = cramped(first, second);
        ring.run().unwrap();
        for client in &mut clients {
            let mut greeting = String::new();
            client.read_to_string(&mut greeting).unwrap();
            assert_eq!(greeting, "hello");
        }
        assert_eq!(ring.stats().operations()[1].in_flight, 0);
    });
}

#[test]
fn a_socket_that_does_not_listen_ends_its_acceptor_with_an_error() {
    watched(|| {
        let (client, _server) = tcp_pair();
        let seen = Log::new();
        let log = seen.clone();
        let first = Script::new()
            .on_setup_once(move |mut submitter| {
                submitter.stream(client, |client| request::accept_multi(client))?;
                Ok(())
            })
            .on_completion(move |completion, client, _| {
                log.push((completion.more(), outcome(&completion)));
                (ControlFlow::Continue, Some(client))
            });
        let mut ring = Bench::with(8, first);
        ring.run().unwrap();
        assert_eq!(seen.take(), [(false, Err(libc::EINVAL))]);
        assert_eq!(ring.stats().returned_late, 1);
    });
}

fn patient(listener: &mut Arc<TcpListener>) -> Stream<'_> {
    request::accept_multi(&**listener).retry_after(Duration::from_millis(1))
}

#[test]
fn nothing_is_left_of_an_acceptor_that_is_cancelled_while_it_rests() {
    in_child(|| {
        let listener = listener();
        let _client = connect(&listener, 1);
        let seen = Log::new();
        let log = seen.clone();
        let first = Script::new().on_completion(move |completion, listener, _| {
            log.push(outcome(&completion));
            (ControlFlow::Continue, completion.more().then_some(listener))
        });
        let mut ring = Bench::with(8, first);
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, 0, hard).unwrap();
        let mut rest_and_cancel = || {
            let mut submitter = ring.submitter(Bench::FIRST);
            let key = submitter.stream(listener.clone(), |listener: &mut Arc<TcpListener>| {
                request::accept_multi(&**listener).retry_after(Duration::from_secs(3600))
            });
            while ring.turn().unwrap().status == Status::Progressed {}
            assert!(ring.submitter(Bench::FIRST).cancel(key.unwrap()));
            while ring.turn().unwrap().status == Status::Progressed {}
            assert_eq!(seen.take(), [Err(libc::EMFILE), Err(libc::ECANCELED)]);
        };
        (0..100).for_each(|_| rest_and_cancel());
        // SAFETY: a plain call.
        let used = || unsafe { libc::mallinfo2() }.uordblks;
        let before = used();
        (0..5000).for_each(|_| rest_and_cancel());
        assert!(used() < before + 5000, "a byte for each of them is too much");
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
    });
}

#[test]
fn an_acceptor_rests_while_there_are_no_descriptors_and_accepts_everybody_when_there_are() {
    in_child(|| {
        let listener = listener();
        let clients = connect(&listener, 5);
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        let seen = Log::new();
        let log = seen.clone();
        let (mut sockets, mut failures) = (Vec::new(), 0);
        let first = Script::new()
            .on_setup_once(move |mut submitter| {
                submitter.stream(listener, patient)?;
                // Room for two of the five.
                setrlimit(Resource::RLIMIT_NOFILE, open_descriptors() as u64 + 1, hard)?;
                Ok(())
            })
            .on_completion(move |completion, listener, _| {
                assert!(completion.more());
                log.push(outcome(&completion));
                match completion.into_fd() {
                    Ok(socket) => sockets.push(socket),
                    Err(_) => failures += 1,
                }
                if failures == 3 {
                    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
                }
                (ControlFlow::Continue, (sockets.len() < 5).then_some(listener))
            });
        let mut ring = Bench::with(8, first);
        ring.run().unwrap();
        let accepted = seen.take();
        assert_eq!(accepted.iter().filter(|told| **told == Ok(0)).count(), 5);
        assert_eq!(accepted.iter().filter(|told| **told == Err(libc::EMFILE)).count(), 3, "{accepted:?}");
        assert_eq!(ring.stats().in_flight, 0);
        drop(clients);
    });
}

#[test]
fn a_ring_that_can_set_no_alarm_says_so_instead_of_resting_for_ever() {
    in_child(|| {
        let opcodes = [opcode::Accept::CODE, opcode::PollAdd::CODE, opcode::AsyncCancel::CODE];
        let raw = restricted(&mut IoUring::builder(), 8, &opcodes, &[IORING_REGISTER_EVENTFD]);
        let listener = listener();
        let _client = connect(&listener, 1);
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        let ended = Log::new();
        let log = ended.clone();
        let first = Script::new()
            .on_completion(|completion, listener, _| {
                assert_eq!((completion.more(), outcome(&completion)), (true, Err(libc::EMFILE)));
                (ControlFlow::Continue, Some(listener))
            })
            .on_teardown(move |completion, _, _| {
                log.push(outcome(&completion));
                Ok(())
            });
        let mut ring = Bench::builder(first, Script::new()).raw_ring(raw).build().unwrap();
        ring.submitter(Bench::FIRST).stream(listener, patient).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, 3, hard).unwrap();
        let error = ring.run().unwrap_err();
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
        let RingError::Api(cause) = &error else { panic!("{error}") };
        assert_eq!(cause.error.raw_os_error(), Some(libc::EACCES));
        assert_eq!(ended.take(), [Err(libc::ECANCELED)]);
    });
}

struct Idle {
    socket: TcpStream,
    pool: BufferPool,
    limit: Duration,
}

impl Idle {
    fn receive(&mut self) -> Stream<'_> {
        request::recv_multi(&self.socket, &self.pool).idle_limit(self.limit)
    }
}

#[test]
fn a_client_that_says_nothing_is_disconnected_and_others_are_not() {
    watched(|| {
        let pool = BufferPool::new(8, 64).unwrap();
        let (mut idle, socket) = tcp_pair();
        let first = Idle { socket, pool: pool.clone(), limit: Duration::from_millis(40) };
        let (other, socket) = tcp_pair();
        let second = Idle { socket, pool, limit: Duration::from_secs(3600) };
        let mut other = Some(other);
        let seen = Log::new();
        let log = seen.clone();
        let script = Script::new()
            .on_setup_once(move |mut submitter| {
                submitter.stream(first, Idle::receive)?;
                submitter.stream(second, Idle::receive)?;
                Ok(())
            })
            .on_completion(move |completion, data: Idle, _| {
                log.push((completion.more(), outcome(&completion), completion.timed_out()));
                // When the first has ended, so does the other, as its client wants.
                drop(other.take());
                (ControlFlow::Continue, completion.more().then_some(data))
            });
        Bench::with(8, script).run().unwrap();
        assert_eq!(seen.take(), [(false, Err(libc::ECANCELED), true), (false, Ok(0), false)]);
        assert_closed_by_peer(&mut idle);
    });
}

#[test]
fn a_ring_that_can_set_no_alarm_says_so_instead_of_waiting_for_an_idle_client() {
    watched(|| {
        let opcodes = [opcode::PollAdd::CODE, opcode::AsyncCancel::CODE];
        let raw = restricted(&mut IoUring::builder(), 8, &opcodes, &[IORING_REGISTER_EVENTFD]);
        let (_client, socket) = tcp_pair();
        let ended = Log::new();
        let log = ended.clone();
        let script = Script::new().on_teardown(move |completion, _, _| {
            log.push((outcome(&completion), completion.timed_out()));
            Ok(())
        });
        let mut ring = Bench::builder(script, Script::new()).raw_ring(raw).build().unwrap();
        let mut submitter = ring.submitter(Bench::FIRST);
        submitter
            .stream(socket, |it| {
                request::poll_multi(it, Events::READABLE).idle_limit(Duration::from_millis(40))
            })
            .unwrap();
        let error = ring.run().unwrap_err();
        let RingError::Api(cause) = &error else { panic!("{error}") };
        assert_eq!(cause.error.raw_os_error(), Some(libc::EACCES));
        assert_eq!(ended.take(), [(Err(libc::ECANCELED), false)]);
    });
}

#[test]
fn a_socket_that_nobody_takes_out_of_its_completion_is_closed() {
    in_child(|| {
        let listener = listener();
        let mut clients = connect(&listener, 10);
        let before = open_descriptors();
        let acceptor = Acceptor::new(&listener);
        let mut count = 0;
        let first = Script::new()
            .on_setup_once(|mut submitter| {
                submitter.stream(acceptor, Acceptor::accept)?;
                Ok(())
            })
            .on_completion(move |_, acceptor, _| {
                count += 1;
                (ControlFlow::Continue, (count < 10).then_some(acceptor))
            });
        let mut ring = cramped(first, Script::new());
        ring.run().unwrap();
        drop(ring);
        clients.iter_mut().for_each(assert_closed_by_peer);
        assert_eq!(open_descriptors(), before);
    });
}

// ---- data -------------------------------------------------------------------------------------

#[test]
fn what_a_handler_does_to_the_data_of_a_stream_is_there_the_next_time() {
    watched(|| {
        let ledger = Ledger::new();
        let (data, seen) = (ledger.issue(vec![0_u32]), Log::new());
        let log = seen.clone();
        let first = Script::new()
            .on_setup_once(|mut submitter| {
                submitter.stream(data, |_| request::timeout_multi(Duration::from_micros(200)))?;
                Ok(())
            })
            .on_completion(move |_, mut data: Tracked<Vec<u32>>, _| {
                log.push((data.clone(), data.as_ptr().addr()));
                let last = *data.last().unwrap();
                data.push(last + 1);
                (ControlFlow::Continue, (last < 4).then_some(data))
            });
        Bench::with(8, first).run().unwrap();
        let seen: Vec<_> = seen.take().into_iter().map(|(data, _)| data).collect();
        assert_eq!(seen, [vec![0], vec![0, 1], vec![0, 1, 2], vec![0, 1, 2, 3], vec![0, 1, 2, 3, 4]]);
        ledger.assert_all_dropped_once();
    });
}

#[test]
fn a_stream_is_armed_again_on_the_data_that_it_has_by_then() {
    in_child(|| {
        let before = open_descriptors();
        {
            let (old, new) = (listener(), listener());
            let (waiting, mut newcomers) = (connect(&old, 30), connect(&new, 30));
            let ours = new.local_addr().unwrap();
            let (acceptor, mut count) = (Acceptor::new(&old), 0);
            drop(old);
            let first = Script::new()
                .on_setup_once(|mut submitter| {
                    submitter.stream(acceptor, Acceptor::accept)?;
                    Ok(())
                })
                .on_completion(move |completion, mut acceptor, _| {
                    let socket = TcpStream::from(completion.into_fd().unwrap());
                    // The kernel may go on with the listener that it has, until it cuts the stream.
                    acceptor.listener = Arc::clone(&new);
                    let is_new = socket.local_addr().unwrap() == ours;
                    assert!(is_new || acceptor.arms == 1, "armed again on the old listener");
                    count += u32::from(is_new);
                    (ControlFlow::Continue, (count < 30).then_some(acceptor))
                });
            let mut ring = cramped(first, Script::new());
            ring.run().unwrap();
            newcomers.iter_mut().for_each(assert_closed_by_peer);
            drop(waiting);
        }
        assert_eq!(open_descriptors(), before);
    });
}

#[test]
fn other_data_may_be_returned_than_was_handed_over() {
    watched(|| {
        let ledger = Ledger::new();
        let data = ledger.issue(0);
        let mut ticks = 0;
        let first = Script::new()
            .on_setup_once(|mut submitter| {
                submitter.stream(data, |_| request::timeout_multi(Duration::from_micros(200)))?;
                Ok(())
            })
            .on_completion(move |_, data: Tracked<u32>, _| {
                assert_eq!(*data, ticks);
                ticks += 1;
                drop(data);
                (ControlFlow::Continue, (ticks < 5).then(|| ledger.issue(ticks)))
            });
        Bench::with(8, first).run().unwrap();
        assert_eq!(ledger.issued(), 5);
        ledger.assert_all_dropped_once();
    });
}

// ---- receiving --------------------------------------------------------------------------------

#[test]
fn the_end_of_the_file_is_final_and_carries_an_empty_buffer() {
    watched(|| {
        let (client, server) = tcp_pair();
        let pool = BufferPool::new(4, 32).unwrap();
        let receiver = Receiver { socket: server, pool: pool.clone(), arms: 0 };
        drop(client);
        let seen = Log::new();
        let log = seen.clone();
        let first = Script::new()
            .on_setup_once(|mut submitter| {
                submitter.stream(receiver, Receiver::receive)?;
                Ok(())
            })
            .on_completion(move |completion, receiver, _| {
                let more = completion.more();
                log.push((more, completion.into_buffer().unwrap().to_vec()));
                (ControlFlow::Continue, Some(receiver))
            });
        let mut ring = Bench::with(8, first);
        ring.run().unwrap();
        assert_eq!(seen.take(), [(false, vec![])]);
        assert_eq!(ring.stats().returned_late, 1, "data has no use after the end");
        assert_eq!(pool.available(), 4);
    });
}

#[test]
fn a_reset_is_final() {
    watched(|| {
        let (client, server) = tcp_pair();
        let linger = libc::linger { l_onoff: 1, l_linger: 0 };
        setsockopt(&client, sockopt::Linger, &linger).unwrap();
        drop(client);
        let pool = BufferPool::new(4, 32).unwrap();
        let (received, end, arms) = receive_all(server, &pool);
        assert_eq!((received, end, arms), (vec![], Err(libc::ECONNRESET), 1));
    });
}

// ---- a limit ----------------------------------------------------------------------------------

/// A stream that receives this many bytes, in single buffers or in bundles.
struct Limited {
    socket: TcpStream,
    pool: BufferPool,
    is_of_bundles: bool,
    limit: NonZeroU32,
    /// How often it was armed.
    arms: u32,
}

impl Limited {
    fn receive(&mut self) -> Stream<'_> {
        self.arms += 1;
        let stream = match self.is_of_bundles {
            true => request::recv_multi_bundle(&self.socket, &self.pool),
            false => request::recv_multi(&self.socket, &self.pool),
        };
        stream.limit(self.limit)
    }
}

/// Receives everything from a connection with one limited stream after the other, on such a ring. Up to this many
/// buffers are kept. Returns the bytes of each stream, with how often it was armed.
fn receive_by_limits(
    bench: impl FnOnce(Script<Limited>) -> Bench<Limited>,
    limited: Limited,
    keeps: usize,
) -> Vec<(Vec<u8>, u32)> {
    let (streams, pool) = (Log::new(), limited.pool.clone());
    let (log, mut bytes, mut kept) = (streams.clone(), Vec::new(), VecDeque::new());
    let script = Script::new()
        .on_setup_once(|mut submitter| {
            submitter.stream(limited, Limited::receive)?;
            Ok(())
        })
        .on_completion(move |completion, mut limited: Limited, mut submitter| {
            let (more, result) = (completion.more(), outcome(&completion));
            match result {
                Err(libc::ENOBUFS) => kept.clear(),
                _ => {
                    for buffer in completion.into_buffers().unwrap() {
                        bytes.extend_from_slice(&buffer);
                        kept.push_back(buffer);
                    }
                    kept.drain(..kept.len().saturating_sub(keeps));
                }
            }
            if more {
                return (ControlFlow::Continue, Some(limited));
            }
            log.push((std::mem::take(&mut bytes), std::mem::take(&mut limited.arms)));
            match result {
                Ok(0) => kept.clear(),
                _ => drop(submitter.stream(limited, Limited::receive).unwrap()),
            }
            (ControlFlow::Continue, None)
        });
    let mut ring = bench(script);
    ring.run().unwrap();
    assert_eq!((ring.stats().in_flight, ring.stats().foreign, ring.stats().returned_late), (0, 0, 0));
    assert_eq!(pool.available(), pool.capacity());
    streams.take()
}

#[test]
fn a_limited_stream_ends_with_the_bytes_that_reach_its_limit_and_may_be_submitted_again() {
    limited_streams(64, |script| Bench::with(64, script), 0, |arms| arms == 1);
}

#[test]
fn a_limited_stream_that_was_cut_goes_on_with_what_is_left_of_its_limit() {
    // Cut by a full queue.
    limited_streams(64, |script| cramped(script, Script::new()), 0, |arms| arms > 1);
}

#[test]
fn a_limited_stream_without_a_buffer_goes_on_with_what_is_left_of_its_limit() {
    limited_streams(6, |script| Bench::with(64, script), 6, |arms| arms > 1);
}

/// Streams with a limit of 32 buffers receive four times as much, from a pool of this many. `is_armed` says how often
/// those with single buffers may have been armed.
fn limited_streams(
    pool: u16,
    bench: fn(Script<Limited>) -> Bench<Limited>,
    keeps: usize,
    is_armed: fn(u32) -> bool,
) {
    const SIZE: u32 = 16;
    const BUFFERS: u32 = 32;
    watched(move || {
        // In the last case, none of the limits is reached at the end of a buffer.
        for (is_of_bundles, beyond) in [(false, 0), (true, 0), (false, SIZE - 1), (true, 3)] {
            let (mut client, server) = tcp_pair();
            let sent: Vec<u8> = (0..4 * BUFFERS * SIZE).map(|number| (number * number / 7) as u8).collect();
            client.write_all(&sent).unwrap();
            drop(client);
            let pool = BufferPool::new(pool, SIZE).unwrap();
            let limit = NonZeroU32::new(BUFFERS * SIZE - beyond).unwrap();
            let limited = Limited { socket: server, pool, is_of_bundles, limit, arms: 0 };
            let mut streams = receive_by_limits(bench, limited, keeps);
            let (end, _) = streams.pop().unwrap();
            let case = format!("bundles: {is_of_bundles}, {beyond} beyond");
            let counts: Vec<_> = streams.iter().map(|(bytes, _)| bytes.len()).collect();
            let each = if is_of_bundles { BUFFERS * SIZE - beyond } else { BUFFERS * SIZE } as usize;
            assert_eq!(counts, [each; 4], "{case}");
            assert!(is_of_bundles || streams.iter().all(|(_, arms)| is_armed(*arms)), "{case}: {streams:?}");
            assert_eq!(end.len(), sent.len() - 4 * each, "{case}");
            let received: Vec<u8> = streams.into_iter().flat_map(|(bytes, _)| bytes).chain(end).collect();
            assert!(received == sent, "{case}");
        }
    });
}

#[test]
fn a_limited_stream_that_is_cancelled_or_whose_peer_ends_it_has_a_final_completion_before_its_limit() {
    watched(|| {
        for cancels in [true, false] {
            let (mut client, server) = tcp_pair();
            client.write_all(&[7; 8]).unwrap();
            let pool = BufferPool::new(6, 16).unwrap();
            let limit = NonZeroU32::new(64).unwrap();
            let limited = Limited { socket: server, pool, is_of_bundles: false, limit, arms: 0 };
            let (seen, mut client) = (Log::new(), Some(client));
            let log = seen.clone();
            let script = Script::new()
                .on_setup_once(|mut submitter| {
                    submitter.stream(limited, Limited::receive)?;
                    Ok(())
                })
                .on_completion(move |completion, limited, mut submitter| {
                    log.push((completion.more(), outcome(&completion)));
                    match (completion.more(), cancels) {
                        (false, _) => return (ControlFlow::Continue, None),
                        (true, true) => assert_eq!(submitter.cancel_all(), 1),
                        (true, false) => drop(client.take()),
                    }
                    (ControlFlow::Continue, Some(limited))
                });
            Bench::with(8, script).run().unwrap();
            let end = if cancels { Err(libc::ECANCELED) } else { Ok(0) };
            assert_eq!(seen.take(), [(true, Ok(8)), (false, end)]);
        }
    });
}

// ---- polling ----------------------------------------------------------------------------------

#[test]
fn a_poll_tells_of_each_change_and_a_hang_up_does_not_end_it() {
    watched(|| {
        let (reader, writer) = pipe();
        let mut writer = Some(std::fs::File::from(writer));
        writer.as_mut().unwrap().write_all(b"first").unwrap();
        let seen = Log::new();
        let log = seen.clone();
        let mut key = None::<Key<Script<std::fs::File>>>;
        let keys = Arc::new(std::sync::Mutex::new(None));
        let kept = Arc::clone(&keys);
        let first = Script::new()
            .on_setup_once(move |mut submitter| {
                let reader = std::fs::File::from(reader);
                let key = submitter.stream(reader, |it| request::poll_multi(it, Events::READABLE))?;
                *kept.lock().unwrap() = Some(key);
                Ok(())
            })
            .on_completion(move |completion, mut reader, mut submitter| {
                let key = *key.get_or_insert_with(|| keys.lock().unwrap().take().unwrap());
                let Ok(result) = completion.result() else {
                    log.push((completion.more(), None));
                    assert_eq!(outcome(&completion), Err(libc::ECANCELED));
                    return (ControlFlow::Continue, None);
                };
                let events = Events::from_result(result);
                log.push((completion.more(), Some(events)));
                if events.contains(Events::HANG_UP) {
                    assert!(submitter.cancel(key), "it is still in flight");
                    return (ControlFlow::Continue, Some(reader));
                }
                assert!(events.contains(Events::READABLE));
                let mut bytes = [0; 16];
                match reader.read(&mut bytes).unwrap() {
                    5 => writer.as_mut().unwrap().write_all(b"second").unwrap(),
                    6 => writer = None,
                    other => panic!("{other} bytes"),
                }
                (ControlFlow::Continue, Some(reader))
            });
        let mut ring = Bench::with(8, first);
        ring.run().unwrap();
        let seen = seen.take();
        let hang_up = seen.iter().position(|(_, it)| it.is_some_and(|it| it.contains(Events::HANG_UP)));
        assert!(hang_up.is_some_and(|at| at >= 2), "{seen:?}");
        assert!(seen.iter().rev().skip(1).all(|(more, _)| *more), "{seen:?}");
        assert_eq!(seen.last(), Some(&(false, None)), "and the cancel ends it");
        assert_eq!(ring.stats().in_flight, 0);
    });
}

#[test]
fn a_poll_of_what_is_always_ready_says_so_until_it_is_ended_and_starves_nobody() {
    watched(|| {
        // Each time, the kernel ends such a poll with its events, as if it had been cut.
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        let ended = Log::new();
        let (over, other) = (ended.clone(), ended.clone());
        let first = Script::new()
            .on_setup_once(|mut submitter| {
                submitter.stream(Some(file), |file| {
                    request::poll_multi(file.as_ref().unwrap(), Events::READABLE)
                })?;
                submitter.to(Bench::SECOND).submit(None, |_| request::timeout(Duration::from_millis(1)))?;
                Ok(())
            })
            .on_completion(move |completion, file, _| {
                assert!(completion.more());
                assert!(Events::from_result(completion.result().unwrap()).contains(Events::READABLE));
                (ControlFlow::Continue, if over.is_empty() { Some(file) } else { None })
            });
        let second = Script::new().on_completion(move |completion, _, _| {
            other.push(outcome(&completion));
            (ControlFlow::Continue, None)
        });
        Bench::builder(first, second).build().unwrap().run().unwrap();
        assert_eq!(ended.take(), [Ok(0)]);
    });
}

// ---- ticking ----------------------------------------------------------------------------------

#[test]
fn a_timer_ticks_until_the_ring_ends_and_is_then_cancelled() {
    watched(|| {
        let (ledger, seen) = (Ledger::new(), Log::new());
        let (data, log, end) = (ledger.issue(0), seen.clone(), seen.clone());
        let first = Script::new()
            .on_setup_once(|mut submitter| {
                submitter.stream(data, |_| request::timeout_multi(Duration::from_micros(300)))?;
                Ok(())
            })
            .on_completion(move |completion, mut ticks: Tracked<u32>, _| {
                *ticks += 1;
                log.push((completion.more(), outcome(&completion)));
                let flow = if *ticks == 4 { ControlFlow::Exit } else { ControlFlow::Continue };
                (flow, Some(ticks))
            })
            .on_teardown(move |completion, ticks, _| {
                assert_eq!(*ticks, 4);
                end.push((completion.more(), outcome(&completion)));
                Ok(())
            });
        Bench::with(8, first).run().unwrap();
        let tick = (true, Ok(0));
        assert_eq!(seen.take(), [tick, tick, tick, tick, (false, Err(libc::ECANCELED))]);
        ledger.assert_all_dropped_once();
    });
}

#[test]
fn a_counted_timer_ticks_that_often_and_its_last_tick_is_final() {
    watched(|| {
        for times in [1, 2, 7] {
            let seen = Log::new();
            let log = seen.clone();
            let first = Script::new()
                .on_setup_once(move |mut submitter| {
                    submitter.stream(times, |times| {
                        let times = NonZeroU32::new(*times).unwrap();
                        request::timeout_multi_times(Duration::from_micros(200), times)
                    })?;
                    Ok(())
                })
                .on_completion(move |completion, times, _| {
                    log.push((completion.more(), outcome(&completion)));
                    let data = completion.more().then_some(times);
                    (ControlFlow::Continue, data)
                });
            let mut ring = Bench::with(8, first);
            ring.run().unwrap();
            let seen = seen.take();
            assert_eq!(seen.len(), times as usize);
            for (index, tick) in seen.into_iter().enumerate() {
                assert_eq!(tick, (index + 1 < times as usize, Ok(0)), "tick {index} of {times}");
            }
            assert_eq!((ring.stats().returned_late, ring.stats().foreign), (0, 0));
        }
    });
}

// ---- ending a stream --------------------------------------------------------------------------

#[test]
fn a_stream_without_its_data_is_cancelled_and_what_it_still_accepts_is_closed() {
    in_child(|| {
        let before = open_descriptors();
        {
            let (ledger, listener) = (Ledger::new(), listener());
            let mut clients = connect(&listener, 50);
            let acceptor = ledger.issue(Acceptor::new(&listener));
            let calls = Log::new();
            let log = calls.clone();
            let first = Script::new()
                .on_setup_once(|mut submitter| {
                    submitter.stream(acceptor, |acceptor| acceptor.accept())?;
                    Ok(())
                })
                .on_completion(move |completion, acceptor: Tracked<Acceptor>, _| {
                    log.push(completion.into_fd().unwrap());
                    drop(acceptor);
                    assert_eq!(ledger.alive(), 0);
                    (ControlFlow::Continue, None)
                });
            let mut ring = Bench::with(8, first);
            // Nothing else is in flight: the run can return only if the stream has ended.
            ring.run().unwrap();
            assert_eq!(calls.take().len(), 1, "no handler is called after that");
            assert_eq!((ring.stats().in_flight, ring.stats().foreign), (0, 0));
            assert_eq!(ring.stats().operations()[0].in_flight, 0);
            // Nobody accepts any more.
            drop(listener);
            clients.iter_mut().for_each(assert_closed_by_peer);
            ledger.assert_all_dropped_once();
        }
        assert_eq!(open_descriptors(), before);
    });
}

#[test]
fn a_stream_that_was_cut_is_over_without_its_data() {
    in_child(|| {
        let before = open_descriptors();
        {
            let (ledger, listener) = (Ledger::new(), listener());
            let clients = connect(&listener, 50);
            let acceptor = ledger.issue(Acceptor::new(&listener));
            let (sockets, teardowns) = (Log::new(), Log::new());
            let (log, teardown) = (sockets.clone(), teardowns.clone());
            let first = Script::new()
                .on_setup_once(|mut submitter| {
                    submitter.stream(acceptor, |acceptor| acceptor.accept())?;
                    Ok(())
                })
                .on_completion(move |completion, acceptor: Tracked<Acceptor>, _| {
                    assert!(completion.more(), "it would be armed again");
                    let cut = is_cut(&completion);
                    log.push(completion.into_fd().unwrap());
                    (ControlFlow::Continue, (!cut).then_some(acceptor))
                })
                .on_teardown(move |_, _, _| {
                    teardown.push(());
                    Ok(())
                });
            let mut ring = cramped(first, Script::new());
            ring.run().unwrap();
            assert_eq!(teardowns.len(), 0);
            let stats = ring.stats();
            assert_eq!((stats.in_flight, stats.foreign, stats.returned_late), (0, 0, 0));
            let accepted = sockets.take().len();
            assert!((1..50).contains(&accepted), "{accepted} before the cut");
            ledger.assert_all_dropped_once();
            drop(clients);
        }
        assert_eq!(open_descriptors(), before);
    });
}

#[test]
fn data_returned_for_a_request_that_is_over_is_dropped_once_and_counted() {
    watched(|| {
        let ledger = Ledger::new();
        let data = [ledger.issue(1), ledger.issue(2), ledger.issue(3)];
        let first = Script::new()
            .on_setup_once(move |mut submitter| {
                for data in data {
                    submitter.submit(data, |_| request::nop())?;
                }
                Ok(())
            })
            .on_completion(|completion, data, _| {
                assert!(!completion.more());
                (ControlFlow::Continue, Some(data))
            });
        let mut ring = Bench::with(8, first);
        ring.run().unwrap();
        assert_eq!((ring.stats().returned_late, ring.stats().in_flight), (3, 0));
        ledger.assert_all_dropped_once();
    });
}

#[test]
fn a_stream_that_is_cancelled_has_one_final_completion() {
    watched(|| {
        let (ledger, listener) = (Ledger::new(), listener());
        let acceptor = ledger.issue(Acceptor::new(&listener));
        let clients = connect(&listener, 3);
        let seen = Log::new();
        let (log, mut count) = (seen.clone(), 0);
        let first = script_with_key(
            acceptor,
            |acceptor| acceptor.accept(),
            move |key, completion, acceptor, mut submitter| {
                if completion.more() {
                    count += 1;
                    if count == 3 {
                        assert!(submitter.cancel(key));
                        assert!(submitter.cancel(key), "it is not over before its final completion");
                    }
                    return (ControlFlow::Continue, Some(acceptor));
                }
                log.push(outcome(&completion));
                assert!(!submitter.cancel(key), "it is over");
                (ControlFlow::Continue, None)
            },
        );
        let mut ring = Bench::with(8, first);
        ring.run().unwrap();
        assert_eq!(seen.take(), [Err(libc::ECANCELED)]);
        assert_eq!((ring.stats().returned_late, ring.stats().foreign), (0, 0));
        ledger.assert_all_dropped_once();
        drop(clients);
    });
}

#[test]
fn the_key_of_a_stream_stays_good_however_often_it_is_armed() {
    watched(|| {
        let listener = listener();
        let clients = connect(&listener, 60);
        let acceptor = Acceptor::new(&listener);
        let seen = Log::new();
        let (log, mut count) = (seen.clone(), 0);
        let first =
            script_with_key(acceptor, Acceptor::accept, move |key, completion, acceptor, mut submitter| {
                if !completion.more() {
                    log.push((outcome(&completion), acceptor.arms));
                    return (ControlFlow::Continue, None);
                }
                count += 1;
                if count == 60 {
                    assert!(submitter.cancel(key), "after {} times", acceptor.arms);
                }
                (ControlFlow::Continue, Some(acceptor))
            });
        let mut ring = cramped(first, Script::new());
        ring.run().unwrap();
        let [(Err(libc::ECANCELED), arms)] = seen.take()[..] else { panic!("ended otherwise") };
        assert!(arms > 5, "armed only {arms} times");
        drop(clients);
    });
}

#[test]
fn a_stream_that_its_handler_cancels_at_the_moment_it_is_cut_is_not_armed_again() {
    in_child(|| a_cut_stream_stays_ended(|submitter, key| submitter.cancel(key)));
}

/// How a handler ends its stream.
type Ending<D> = fn(&mut BenchSubmitter<'_, D>, Key<Script<D>>) -> bool;

/// A handler ends its stream while it is told a completion with which the kernel has cut the stream.
fn a_cut_stream_stays_ended(end: Ending<Tracked<Acceptor>>) {
    for returns_data in [true, false] {
        let ledger = Ledger::new();
        let listener = listener();
        let clients = connect(&listener, 50);
        let acceptor = ledger.issue(Acceptor::new(&listener));
        let seen = Log::new();
        let log = seen.clone();
        let first = script_with_key(
            acceptor,
            |acceptor| acceptor.accept(),
            move |key, completion, acceptor, mut submitter| {
                if !completion.more() {
                    log.push((outcome(&completion), acceptor.arms));
                    return (ControlFlow::Continue, None);
                }
                if is_cut(&completion) {
                    assert!(end(&mut submitter, key));
                    return (ControlFlow::Continue, returns_data.then_some(acceptor));
                }
                (ControlFlow::Continue, Some(acceptor))
            },
        );
        let mut ring = cramped(first, Script::new());
        ring.run().unwrap();
        let expected = if returns_data { vec![(Err(libc::ECANCELED), 1)] } else { vec![] };
        assert_eq!(seen.take(), expected);
        assert_eq!((ring.stats().in_flight, ring.stats().foreign), (0, 0));
        ledger.assert_all_dropped_once();
        drop(clients);
    }
}

#[test]
fn what_a_cancelled_stream_still_carries_comes_before_its_end() {
    in_child(|| {
        for returns_data in [true, false] {
            let ledger = Ledger::new();
            let listener = listener();
            let clients = connect(&listener, 50);
            let acceptor = ledger.issue(Acceptor::new(&listener));
            let seen = Log::new();
            let (log, mut cancelled) = (seen.clone(), false);
            let first = script_with_key(
                acceptor,
                |acceptor| acceptor.accept(),
                move |key, completion, acceptor, mut submitter| {
                    let was_cancelled = std::mem::replace(&mut cancelled, true);
                    if !was_cancelled {
                        // The completions that cut it are there already.
                        assert!(submitter.cancel(key));
                    }
                    let returned = if completion.more() { returns_data || !was_cancelled } else { false };
                    log.push((completion.more(), outcome(&completion), completion.into_fd().is_ok()));
                    (ControlFlow::Continue, returned.then_some(acceptor))
                },
            );
            let mut ring = cramped(first, Script::new());
            ring.run().unwrap();
            let mut seen = seen.take();
            if returns_data {
                assert_eq!(seen.pop(), Some((false, Err(libc::ECANCELED), false)));
            }
            assert!(seen.len() > 1 && seen.iter().all(|told| *told == (true, Ok(0), true)), "{seen:?}");
            assert_eq!((ring.stats().in_flight, ring.stats().foreign), (0, 0));
            ledger.assert_all_dropped_once();
            drop(clients);
        }
    });
}

#[test]
fn a_stream_is_ended_by_its_own_handler_and_its_final_completion_has_what_that_has_returned() {
    watched(|| {
        for returns_data in [true, false] {
            let (ledger, seen, listener) = (Ledger::new(), Log::new(), listener());
            let clients = connect(&listener, 3);
            let (data, log) = (ledger.issue((Acceptor::new(&listener), 0)), seen.clone());
            let first = Script::new()
                .on_setup_once(|mut submitter| {
                    submitter.stream(data, |data| data.0.accept())?;
                    assert!(!submitter.end_stream(), "no stream has told anything");
                    Ok(())
                })
                .on_completion(move |completion, mut data: Tracked<(Acceptor, u32)>, mut submitter| {
                    data.1 += 1;
                    log.push((completion.more(), outcome(&completion), data.1));
                    if !completion.more() {
                        assert!(!submitter.end_stream(), "it is over");
                        return (ControlFlow::Continue, None);
                    }
                    if data.1 < 3 {
                        return (ControlFlow::Continue, Some(data));
                    }
                    assert!(submitter.reborrow().end_stream());
                    assert!(!submitter.end_stream(), "it was asked for");
                    (ControlFlow::Continue, returns_data.then_some(data))
                });
            let mut ring = Bench::with(8, first);
            assert!(!ring.submitter(Bench::FIRST).end_stream());
            ring.run().unwrap();
            assert!(!ring.submitter(Bench::FIRST).end_stream());
            let mut expected = vec![(true, Ok(0), 1), (true, Ok(0), 2), (true, Ok(0), 3)];
            expected.extend(returns_data.then_some((false, Err(libc::ECANCELED), 4)));
            assert_eq!(seen.take(), expected);
            assert_eq!((ring.stats().in_flight, ring.stats().foreign, ring.stats().returned_late), (0, 0, 0));
            ledger.assert_all_dropped_once();
            drop(clients);
        }
    });
}

#[test]
fn a_stream_that_its_handler_ends_at_the_moment_it_is_cut_is_not_armed_again() {
    in_child(|| a_cut_stream_stays_ended(|submitter, _| submitter.end_stream()));
}

#[test]
fn only_the_submitter_of_its_operation_ends_a_stream_and_only_where_it_tells_something() {
    watched(|| {
        #[derive(Clone, Copy, PartialEq, Debug)]
        enum Data {
            Ticks,
            Message,
            Timer,
        }
        const TICK: Duration = Duration::from_millis(1);
        let seen = Log::new();
        let (log, teardown, mut is_ended) = (seen.clone(), seen.clone(), false);
        let first = Script::new()
            .on_setup_once(|mut submitter| {
                // The streams of the two operations are in slots of the same number.
                submitter.stream(Data::Ticks, |_| request::timeout_multi(TICK))?;
                submitter.to(Bench::SECOND).stream(Data::Ticks, |_| request::timeout_multi(TICK))?;
                Ok(())
            })
            .on_completion(move |completion, data, mut submitter| {
                if completion.more() {
                    if std::mem::replace(&mut is_ended, true) {
                        // One more tick was on its way.
                        return (ControlFlow::Continue, Some(data));
                    }
                    assert!(!submitter.to(Bench::SECOND).end_stream(), "that is another operation");
                    submitter.post(Data::Message).unwrap();
                    submitter.submit(Data::Timer, |_| request::timeout(TICK)).unwrap();
                    assert!(submitter.to(Bench::FIRST).end_stream(), "whatever came between");
                    return (ControlFlow::Continue, Some(data));
                }
                assert!(!submitter.end_stream(), "{data:?} has ended");
                assert!(!submitter.to(Bench::SECOND).end_stream());
                log.push(data);
                let flow = if log.len() == 3 { ControlFlow::Exit } else { ControlFlow::Continue };
                (flow, None)
            });
        let second = Script::new()
            .on_completion(move |completion, data, _| {
                assert!(completion.more(), "nobody ends this one");
                (ControlFlow::Continue, Some(data))
            })
            .on_teardown(move |_, data, mut submitter| {
                assert!(!submitter.end_stream() && !submitter.to(Bench::FIRST).end_stream());
                teardown.push(data);
                Ok(())
            });
        let mut ring = Bench::builder(first, second).build().unwrap();
        ring.run().unwrap();
        assert_eq!(seen.len(), 4, "{:?}", seen.take());
        assert_eq!(ring.stats().in_flight, 0);
    });
}

#[test]
fn what_a_handler_had_that_has_panicked_is_no_stream_to_be_ended() {
    watched(|| {
        let ledger = Ledger::new();
        let data = ledger.issue(0);
        let again = Arc::new(std::sync::Mutex::new(true));
        let panics = Arc::clone(&again);
        let first = Script::new()
            .on_setup(move |mut submitter| {
                if std::mem::replace(&mut *again.lock().unwrap(), false) {
                    return Ok(());
                }
                // A stream in the slot of the last one that was told.
                let key = submitter.stream(ledger.issue(1), |_| request::timeout_multi(Duration::MAX))?;
                assert!(!submitter.end_stream(), "it was told nothing");
                assert!(submitter.cancel(key));
                Ok(())
            })
            .on_completion(move |completion, _: Tracked<u32>, _| {
                assert!(!completion.more(), "the handler panics");
                (ControlFlow::Continue, None)
            });
        let mut ring = Bench::with(8, first);
        ring.submitter(Bench::FIRST)
            .stream(data, |_| request::timeout_multi(Duration::from_millis(1)))
            .unwrap();
        assert!(catch_unwind(AssertUnwindSafe(|| ring.run())).is_err());
        assert!(!*panics.lock().unwrap());
        assert_eq!(ring.stats().in_flight, 0);
        assert!(!ring.submitter(Bench::FIRST).end_stream());
        ring.run().unwrap();
        assert_eq!(ring.stats().in_flight, 0);
    });
}

/// How a stream is told to end.
#[derive(Clone, Copy, PartialEq, Debug)]
enum End {
    Abandon,
    Cancel,
    CancelAll,
    Own,
    Exit,
}

/// A timer whose handler takes longer than its interval: whenever a cancel reaches the kernel, the next tick is already
/// on its way, and the kernel does not find the timer.
fn end_a_timer_that_is_too_fast(interval: Duration, end: End) {
    let (ledger, seen) = (Ledger::new(), Log::new());
    let (data, log, teardown) = (ledger.issue(0), seen.clone(), seen.clone());
    let first = script_with_key(
        (data, interval),
        |(_, interval)| request::timeout_multi(*interval),
        move |key, completion, mut data, mut submitter| {
            if !completion.more() {
                log.push(outcome(&completion));
                return (ControlFlow::Continue, None);
            }
            thread::sleep(2 * interval);
            *data.0 += 1;
            if *data.0 != 3 {
                return (ControlFlow::Continue, Some(data));
            }
            match end {
                End::Abandon => return (ControlFlow::Continue, None),
                End::Cancel => assert!(submitter.cancel(key)),
                End::CancelAll => assert_eq!(submitter.cancel_all(), 1),
                End::Own => assert!(submitter.end_stream()),
                End::Exit => return (ControlFlow::Exit, Some(data)),
            }
            (ControlFlow::Continue, Some(data))
        },
    )
    .on_teardown(move |completion, _, _| {
        teardown.push(outcome(&completion));
        Ok(())
    });
    let mut ring = Bench::with(8, first);
    ring.run().unwrap();
    assert_eq!(seen.len(), usize::from(end != End::Abandon), "{end:?}");
    assert_eq!((ring.stats().in_flight, ring.stats().foreign), (0, 0));
    ledger.assert_all_dropped_once();
}

#[test]
fn a_timer_that_is_faster_than_its_handler_ends_when_it_is_abandoned() {
    watched(|| end_a_timer_that_is_too_fast(Duration::from_millis(1), End::Abandon));
}

#[test]
fn a_timer_that_is_faster_than_its_handler_ends_when_it_is_cancelled() {
    watched(|| {
        end_a_timer_that_is_too_fast(Duration::from_millis(1), End::Cancel);
        end_a_timer_that_is_too_fast(Duration::from_millis(1), End::CancelAll);
        end_a_timer_that_is_too_fast(Duration::from_millis(1), End::Own);
    });
}

#[test]
fn a_timer_that_is_faster_than_its_handler_ends_with_its_ring() {
    watched(|| end_a_timer_that_is_too_fast(Duration::from_millis(1), End::Exit));
}

#[test]
fn a_timer_that_is_as_fast_as_can_be_ends() {
    watched(|| {
        for microseconds in [100, 10, 1, 0] {
            end_a_timer_that_is_too_fast(Duration::from_micros(microseconds), End::Exit);
            end_a_timer_that_is_too_fast(Duration::from_micros(microseconds), End::Cancel);
        }
    });
}

#[test]
fn an_exit_in_the_middle_of_a_burst_closes_what_was_accepted_after_it() {
    in_child(|| {
        for entries in [4, 256] {
            let before = open_descriptors();
            {
                let (ledger, listener) = (Ledger::new(), listener());
                let mut clients = connect(&listener, 50);
                let acceptor = ledger.issue(Acceptor::new(&listener));
                let teardowns = Log::new();
                let log = teardowns.clone();
                let first = Script::new()
                    .on_setup_once(|mut submitter| {
                        submitter.stream(acceptor, |acceptor| acceptor.accept())?;
                        Ok(())
                    })
                    .on_completion(|completion, acceptor: Tracked<Acceptor>, _| {
                        drop(completion);
                        (ControlFlow::Exit, Some(acceptor))
                    })
                    .on_teardown(move |completion, _, _| {
                        log.push(completion.more());
                        Ok(())
                    });
                let entries = NonZeroU32::new(entries).unwrap();
                let mut ring = Bench::builder(first, Script::new())
                    .entries(entries)
                    .completion_entries(entries)
                    .build()
                    .unwrap();
                ring.run().unwrap();
                assert_eq!(teardowns.take(), [false], "one end, whatever came between");
                assert_eq!(ring.stats().in_flight, 0);
                drop(listener);
                clients.iter_mut().for_each(assert_closed_by_peer);
                ledger.assert_all_dropped_once();
            }
            assert_eq!(open_descriptors(), before);
        }
    });
}
