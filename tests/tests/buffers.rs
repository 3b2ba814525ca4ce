//! Buffer pools: what is received into them, who holds a buffer, and what happens when all are held.

use std::collections::{HashMap, VecDeque};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::num::NonZeroU32;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use rummelplatz::io_uring::types::Fd;
use rummelplatz::io_uring::{IoUring, opcode, squeue};
use rummelplatz::{
    Buffer, BufferPool, ControlFlow, Key, RawRing, Refused, Ring, Stream, SubmitError, request,
};
use rummelplatz_tests::{
    Bench, IORING_REGISTER_EVENTFD, Ledger, Log, Script, Tracked, in_child, open_descriptors, outcome,
    restricted, tcp_pair, turn_until, watched,
};

struct Receiver {
    number: usize,
    socket: Arc<TcpStream>,
    pool: BufferPool,
    arms: u32,
}

impl Receiver {
    fn new(socket: TcpStream, pool: &BufferPool) -> Receiver {
        Receiver { number: 0, socket: Arc::new(socket), pool: pool.clone(), arms: 0 }
    }

    fn receive(&mut self) -> Stream<'_> {
        self.arms += 1;
        request::recv_multi(&self.socket, &self.pool)
    }
}

/// What a handler of a receiving stream is told, as the test sees it.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Bytes(usize),
    /// No buffer is left; this says whether the stream goes on.
    Starved(bool),
    End(Result<u32, i32>),
}

/// Receives everything from `receiver` and keeps the buffers in `held`.
fn holding(receiver: Receiver, held: &Log<Buffer>, seen: &Log<Seen>) -> Script<Receiver> {
    let (held, seen, teardown) = (held.clone(), seen.clone(), seen.clone());
    Script::new()
        .on_setup_once(|mut submitter| {
            submitter.stream(receiver, Receiver::receive)?;
            Ok(())
        })
        .on_completion(move |completion, receiver, _| {
            match (completion.more(), outcome(&completion)) {
                (more, Err(libc::ENOBUFS)) => seen.push(Seen::Starved(more)),
                (true, _) => {
                    let buffer = completion.into_buffer().unwrap();
                    seen.push(Seen::Bytes(buffer.len()));
                    held.push(buffer);
                }
                (false, outcome) => {
                    seen.push(Seen::End(outcome));
                    return (ControlFlow::Continue, None);
                }
            }
            (ControlFlow::Continue, Some(receiver))
        })
        .on_teardown(move |completion, _, _| {
            teardown.push(Seen::End(outcome(&completion)));
            Ok(())
        })
}

/// A ring whose stream waits for one of the two buffers of its pool, both held; one byte is left.
fn starved() -> (Bench<Receiver>, TcpStream, BufferPool, Log<Buffer>, Log<Seen>) {
    let (mut client, server) = tcp_pair();
    let pool = BufferPool::new(2, 4).unwrap();
    client.write_all(b"12345678.").unwrap();
    let (held, seen) = (Log::new(), Log::new());
    let mut ring = Bench::with(8, holding(Receiver::new(server, &pool), &held, &seen));
    turn_until!(ring, seen.len() == 3);
    assert_eq!(seen.take(), [Seen::Bytes(4), Seen::Bytes(4), Seen::Starved(true)]);
    assert_eq!((held.len(), pool.available()), (2, 0));
    (ring, client, pool, held, seen)
}

// ---- an echo ----------------------------------------------------------------------------------

enum Echo {
    Receive(Receiver),
    Send { number: usize, socket: Arc<TcpStream>, buffer: Buffer, start: usize, address: usize },
}

impl Echo {
    fn receive(&mut self) -> Stream<'_> {
        match self {
            Echo::Receive(receiver) => receiver.receive(),
            Echo::Send { .. } => unreachable!("only receivers are streams"),
        }
    }

    fn send(&mut self) -> rummelplatz::Request<'_> {
        match self {
            Echo::Receive(_) => unreachable!("receivers are streams"),
            Echo::Send { socket, buffer, start, .. } => request::send(socket, &buffer[*start..]),
        }
    }
}

/// Buffers that wait until the ones before them have been sent, for each connection.
type Queues = Arc<Mutex<HashMap<usize, VecDeque<Buffer>>>>;

/// A ring that echoes what `sockets` send, in order, until the last of them is closed.
fn echo(sockets: Vec<TcpStream>, pool: &BufferPool, starved: &Log<usize>) -> Bench<Echo> {
    let (pool, starved, queues) = (pool.clone(), starved.clone(), Queues::default());
    let sending = Arc::clone(&queues);
    let receiving = Script::new()
        .on_setup_once(move |mut submitter| {
            for (number, socket) in sockets.into_iter().enumerate() {
                let receiver = Receiver { number, ..Receiver::new(socket, &pool) };
                submitter.stream(Echo::Receive(receiver), Echo::receive)?;
            }
            Ok(())
        })
        .on_completion(move |completion, data, mut submitter| {
            let Echo::Receive(Receiver { number, socket, .. }) = &data else {
                unreachable!("only receivers are submitted here");
            };
            if outcome(&completion) == Err(libc::ENOBUFS) {
                starved.push(*number);
                return (ControlFlow::Continue, Some(data));
            }
            if !completion.more() {
                assert_eq!(outcome(&completion), Ok(0));
                return (ControlFlow::Continue, None);
            }
            let mut buffer = completion.into_buffer().unwrap();
            buffer.make_ascii_uppercase();
            let (number, socket) = (*number, Arc::clone(socket));
            let mut queues = queues.lock().unwrap();
            if let Some(queue) = queues.get_mut(&number) {
                queue.push_back(buffer);
            } else {
                queues.insert(number, VecDeque::new());
                let address = buffer.as_ptr().addr();
                let send = Echo::Send { number, socket, buffer, start: 0, address };
                submitter.to(Bench::SECOND).submit(send, Echo::send).unwrap();
            }
            (ControlFlow::Continue, Some(data))
        });
    let sender = Script::new().on_completion(move |completion, mut data, mut submitter| {
        let sent = completion.result().unwrap() as usize;
        let Echo::Send { number, buffer, start, address, .. } = &mut data else {
            unreachable!("only senders are submitted here");
        };
        assert_eq!(buffer.as_ptr().addr(), *address, "the bytes were never moved");
        *start += sent;
        if *start == buffer.len() {
            let mut queues = sending.lock().unwrap();
            let Some(next) = queues.get_mut(number).and_then(VecDeque::pop_front) else {
                queues.remove(number);
                return (ControlFlow::Continue, None);
            };
            (*address, *buffer, *start) = (next.as_ptr().addr(), next, 0);
        }
        submitter.submit(data, Echo::send).unwrap();
        (ControlFlow::Continue, None)
    });
    Bench::builder(receiving, sender).build().unwrap()
}

/// What client `number` sends: `length` lower-case letters.
fn letters(number: usize, length: usize) -> Vec<u8> {
    (0..length).map(|index| b'a' + ((index * 7 + index / 26 + number) % 26) as u8).collect()
}

/// Sends through each of `count` connections at once, and checks what comes back.
fn echo_to_many(count: usize, length: usize, pool: &BufferPool) -> usize {
    let (clients, servers): (Vec<_>, Vec<_>) = (0..count).map(|_| tcp_pair()).unzip();
    let clients: Vec<_> = clients
        .into_iter()
        .enumerate()
        .map(|(number, client)| {
            thread::spawn(move || {
                let sent = letters(number, length);
                let mut writer = client.try_clone().unwrap();
                let bytes = sent.clone();
                let writing = thread::spawn(move || {
                    for chunk in bytes.chunks(1000) {
                        writer.write_all(chunk).unwrap();
                    }
                });
                let mut received = vec![0; length];
                (&client).read_exact(&mut received).unwrap();
                writing.join().unwrap();
                client.shutdown(Shutdown::Write).unwrap();
                received.make_ascii_lowercase();
                assert!(received == sent, "client {number} got other bytes back");
            })
        })
        .collect();
    let starved = Log::new();
    let mut ring = echo(servers, pool, &starved);
    ring.run().unwrap();
    clients.into_iter().for_each(|client| client.join().unwrap());
    let stats = ring.stats();
    assert_eq!((stats.in_flight, stats.foreign, stats.returned_late), (0, 0, 0));
    assert_eq!(pool.available(), pool.capacity());
    starved.len()
}

#[test]
fn an_echo_copies_nothing() {
    watched(|| {
        echo_to_many(1, 100_000, &BufferPool::new(16, 1024).unwrap());
    });
}

#[test]
fn many_streams_that_share_too_small_a_pool_get_every_byte_in_order() {
    watched(|| {
        let starved = echo_to_many(40, 20_000, &BufferPool::new(3, 256).unwrap());
        assert!(starved > 0, "there were enough buffers after all");
    });
}

#[test]
fn one_buffer_is_enough_for_all() {
    watched(|| {
        echo_to_many(5, 5_000, &BufferPool::new(1, 100).unwrap());
    });
}

#[test]
fn two_pools_in_one_ring_are_kept_apart() {
    watched(|| {
        let pools = [BufferPool::new(4, 16).unwrap(), BufferPool::new(4, 64).unwrap()];
        let ((mut one, first), (mut two, second)) = (tcp_pair(), tcp_pair());
        one.write_all(&[1; 64]).unwrap();
        two.write_all(&[2; 64]).unwrap();
        drop((one, two));
        let receivers = [
            Receiver { number: 0, ..Receiver::new(first, &pools[0]) },
            Receiver { number: 1, ..Receiver::new(second, &pools[1]) },
        ];
        let seen = Log::new();
        let log = seen.clone();
        let script = Script::new()
            .on_setup_once(|mut submitter| {
                for receiver in receivers {
                    submitter.stream(receiver, Receiver::receive)?;
                }
                Ok(())
            })
            .on_completion(move |completion, receiver, _| {
                if !completion.more() {
                    return (ControlFlow::Continue, None);
                }
                if let Ok(buffer) = completion.into_buffer() {
                    assert!(buffer.iter().all(|byte| usize::from(*byte) == receiver.number + 1));
                    log.push((receiver.number, buffer.len()));
                }
                (ControlFlow::Continue, Some(receiver))
            });
        Bench::with(8, script).run().unwrap();
        let mut seen = seen.take();
        seen.sort_unstable();
        assert_eq!(seen, [(0, 16), (0, 16), (0, 16), (0, 16), (1, 64)]);
        assert!(pools.iter().all(|pool| pool.available() == 4));
    });
}

// ---- no buffer left ---------------------------------------------------------------------------

#[test]
fn a_buffer_that_another_thread_drops_wakes_the_ring() {
    watched(|| {
        let (mut ring, client, pool, held, seen) = starved();
        let other = thread::spawn(move || {
            // Long enough for the ring to fall asleep.
            thread::sleep(Duration::from_millis(20));
            drop(held.take());
            drop(client);
        });
        ring.run().unwrap();
        other.join().unwrap();
        assert_eq!(seen.take(), [Seen::Bytes(1), Seen::End(Ok(0))]);
        drop(ring);
        assert_eq!(pool.available(), 2);
    });
}

#[test]
fn buffers_that_another_thread_drops_at_any_moment_lose_no_wake_up() {
    watched(|| {
        let (mut client, server) = tcp_pair();
        let pool = BufferPool::new(2, 16).unwrap();
        let sent: Vec<u8> = (0..100_000_u32).map(|number| (number % 249) as u8).collect();
        let bytes = sent.clone();
        let writing = thread::spawn(move || {
            for chunk in bytes.chunks(97) {
                client.write_all(chunk).unwrap();
            }
        });
        let (give, given) = mpsc::channel::<Buffer>();
        let dropping = thread::spawn(move || {
            given.into_iter().fold(Vec::new(), |mut all, buffer| {
                all.extend_from_slice(&buffer);
                if all.len() % 5 == 0 {
                    thread::yield_now();
                }
                all
            })
        });
        let receiver = Receiver::new(server, &pool);
        let starved = Log::new();
        let log = starved.clone();
        let script = Script::new()
            .on_setup_once(|mut submitter| {
                submitter.stream(receiver, Receiver::receive)?;
                Ok(())
            })
            .on_completion(move |completion, receiver, _| {
                if !completion.more() {
                    return (ControlFlow::Continue, None);
                }
                match completion.into_buffer() {
                    Ok(buffer) => give.send(buffer).unwrap(),
                    Err(_) => log.push(()),
                }
                (ControlFlow::Continue, Some(receiver))
            });
        let mut ring = Bench::with(8, script);
        ring.run().unwrap();
        writing.join().unwrap();
        drop(ring);
        assert!(dropping.join().unwrap() == sent);
        assert!(starved.len() > 10, "the pool was hardly ever empty");
        assert_eq!(pool.available(), 2);
    });
}

#[test]
fn a_buffer_that_a_handler_of_another_operation_drops_lets_the_stream_go_on() {
    watched(|| {
        enum Work {
            Receive(Receiver),
            Drop,
        }
        let (mut client, server) = tcp_pair();
        let pool = BufferPool::new(2, 4).unwrap();
        client.write_all(b"1234567890123456").unwrap();
        drop(client);
        let receiver = Work::Receive(Receiver::new(server, &pool));
        let (held, bytes) = (Log::<Buffer>::new(), Log::new());
        let (hold, log) = (held.clone(), bytes.clone());
        let first = Script::new()
            .on_setup_once(|mut submitter| {
                submitter.stream(receiver, |work| match work {
                    Work::Receive(receiver) => receiver.receive(),
                    Work::Drop => unreachable!("only receivers are streams"),
                })?;
                Ok(())
            })
            .on_completion(move |completion, receiver, mut submitter| {
                if !completion.more() {
                    drop(hold.take());
                    return (ControlFlow::Continue, None);
                }
                match completion.into_buffer() {
                    Ok(buffer) => {
                        log.push(buffer.to_vec());
                        hold.push(buffer);
                    }
                    Err(_) => {
                        let submitted = submitter
                            .to(Bench::SECOND)
                            .submit(Work::Drop, |_| request::timeout(Duration::from_millis(1)));
                        submitted.unwrap();
                    }
                }
                (ControlFlow::Continue, Some(receiver))
            });
        let second = Script::new().on_completion(move |_, _, _| {
            drop(held.take());
            (ControlFlow::Continue, None)
        });
        Bench::builder(first, second).build().unwrap().run().unwrap();
        assert_eq!(bytes.take().concat(), b"1234567890123456");
        assert_eq!(pool.available(), 2);
    });
}

#[test]
fn a_buffer_that_comes_back_in_the_very_handler_that_was_told_is_not_missed() {
    watched(|| {
        let (mut client, server) = tcp_pair();
        let pool = BufferPool::new(2, 4).unwrap();
        client.write_all(&[7; 400]).unwrap();
        drop(client);
        let receiver = Receiver::new(server, &pool);
        let (mut held, mut count, total) = (Vec::new(), 0, Log::new());
        let log = total.clone();
        let script = Script::new()
            .on_setup_once(|mut submitter| {
                submitter.stream(receiver, Receiver::receive)?;
                Ok(())
            })
            .on_completion(move |completion, receiver, _| {
                if !completion.more() {
                    assert_eq!(outcome(&completion), Ok(0));
                    log.push(count);
                    held.clear();
                    return (ControlFlow::Continue, None);
                }
                match completion.into_buffer() {
                    Ok(buffer) => {
                        count += buffer.len();
                        held.push(buffer);
                    }
                    Err(_) => held.clear(),
                }
                (ControlFlow::Continue, Some(receiver))
            });
        Bench::with(8, script).run().unwrap();
        assert_eq!(total.take(), [400]);
        assert_eq!(pool.available(), 2);
    });
}

#[test]
fn streams_whose_buffers_are_dropped_at_once_are_never_taken_for_hopeless() {
    watched(|| {
        const STREAMS: usize = 50;
        let pool = BufferPool::new(2, 16).unwrap();
        let (clients, servers): (Vec<_>, Vec<_>) = (0..STREAMS).map(|_| tcp_pair()).unzip();
        for mut client in clients {
            client.write_all(&[3; 1000]).unwrap();
        }
        let (counts, starved) = (Log::new(), Log::new());
        let (log, of_setup, told) = (counts.clone(), pool.clone(), starved.clone());
        let mut received = vec![0; STREAMS];
        let script = Script::new()
            .on_setup_once(move |mut submitter| {
                for (number, server) in servers.into_iter().enumerate() {
                    let receiver = Receiver { number, ..Receiver::new(server, &of_setup) };
                    submitter.stream(receiver, Receiver::receive)?;
                }
                Ok(())
            })
            .on_completion(move |completion, receiver, _| {
                if !completion.more() {
                    log.push((outcome(&completion), received[receiver.number]));
                    return (ControlFlow::Continue, None);
                }
                match completion.into_buffer() {
                    Ok(buffer) => received[receiver.number] += buffer.len(),
                    Err(_) => told.push(()),
                }
                (ControlFlow::Continue, Some(receiver))
            });
        Bench::with(64, script).run().unwrap();
        let counts = counts.take();
        assert_eq!(counts.len(), STREAMS);
        assert!(counts.iter().all(|it| *it == (Ok(0), 1000)), "{counts:?}");
        assert!(starved.len() > STREAMS, "there were enough buffers after all");
        assert_eq!(pool.available(), 2);
    });
}

/// A stream that has waited and takes what comes back; or a timer that holds a buffer until it is over.
enum Turn {
    Stream(Receiver),
    Timer { _held: Buffer },
}

/// `count` streams, each with a message, on a pool of this many buffers, each of which is held for a while. Returns how
/// often a stream was told that there is no buffer.
fn one_after_the_other(count: usize, buffers: u16, arm: for<'d> fn(&'d mut Turn) -> Stream<'d>) -> usize {
    let pool = BufferPool::new(buffers, 64).unwrap();
    let (starved, received) = (Log::new(), Log::new());
    let (told, log) = (starved.clone(), received.clone());
    let script = Script::new().on_completion(move |completion, data, mut submitter| {
        let Turn::Stream(receiver) = data else { return (ControlFlow::Continue, None) };
        match outcome(&completion) {
            Ok(64) => {
                let held = Turn::Timer { _held: completion.into_buffer().unwrap() };
                submitter.submit(held, |_| request::timeout(Duration::from_micros(50))).unwrap();
                log.push(receiver.number);
                (ControlFlow::Continue, None)
            }
            Err(libc::ENOBUFS) if completion.more() => {
                told.push(());
                (ControlFlow::Continue, Some(Turn::Stream(receiver)))
            }
            // The last stream finds nobody who holds a buffer, until the timer of the last but one is over.
            Err(libc::ENOBUFS) => {
                submitter.stream(Turn::Stream(receiver), arm).unwrap();
                (ControlFlow::Continue, None)
            }
            other => panic!("{other:?}"),
        }
    });
    let mut ring = Bench::with(64, script);
    let _theirs: Vec<TcpStream> = (0..count)
        .map(|number| {
            let (mut theirs, ours) = tcp_pair();
            theirs.write_all(&[number as u8; 64]).unwrap();
            let data = Turn::Stream(Receiver { number, ..Receiver::new(ours, &pool) });
            ring.submitter(Bench::FIRST).stream(data, arm).unwrap();
            theirs
        })
        .collect();
    ring.run().unwrap();
    let mut received = received.take();
    received.sort();
    assert_eq!(received, (0..count).collect::<Vec<_>>());
    assert_eq!(pool.available(), buffers.into());
    starved.len()
}

#[test]
fn a_buffer_that_comes_back_is_for_one_of_those_that_wait() {
    fn arm(turn: &mut Turn) -> Stream<'_> {
        let Turn::Stream(receiver) = turn else { unreachable!("only streams are armed") };
        receiver.receive()
    }
    watched(|| {
        const STREAMS: usize = 200;
        for buffers in [1, 2, 16] {
            let starved = one_after_the_other(STREAMS, buffers, arm);
            assert!(starved < 4 * STREAMS, "{starved} times told of {buffers} buffers");
        }
    });
}

#[test]
fn who_does_not_take_the_buffer_keeps_it_from_nobody() {
    /// Its number, its socket, and another socket on which nothing comes; how often it was armed.
    type Waiting = (usize, TcpStream, Arc<TcpStream>, BufferPool, u32);
    fn arm((number, socket, quiet, pool, arms): &mut Waiting) -> Stream<'_> {
        *arms += 1;
        // When those that wait first have their turn, there is nothing for them to receive.
        match *number < 3 && *arms > 1 {
            true => request::recv_multi(quiet, pool),
            false => request::recv_multi(socket, pool),
        }
    }
    watched(|| {
        let pool = BufferPool::new(1, 8).unwrap();
        let mut held = Vec::new();
        let mut waiting = 0;
        let seen = Log::new();
        let log = seen.clone();
        let script = Script::new().on_completion(move |completion, data: Waiting, _| {
            match outcome(&completion) {
                // The very first takes the only buffer, and keeps it until all others wait.
                Ok(8) if held.is_empty() && log.is_empty() => held.push(completion.into_buffer().unwrap()),
                Err(libc::ENOBUFS) => {
                    waiting += 1;
                    if waiting == 4 {
                        held.clear();
                    }
                    return (ControlFlow::Continue, Some(data));
                }
                Ok(8) => {
                    log.push(data.0);
                    return (ControlFlow::Exit, None);
                }
                other => panic!("{other:?}"),
            }
            log.push(data.0);
            (ControlFlow::Continue, None)
        });
        let mut ring = Bench::with(16, script);
        let (_keep, quiet) = tcp_pair();
        let quiet = Arc::new(quiet);
        let _theirs: Vec<TcpStream> = [9, 0, 1, 2, 3]
            .map(|number| {
                let (mut theirs, ours) = tcp_pair();
                theirs.write_all(&[7; 8]).unwrap();
                let data = (number, ours, Arc::clone(&quiet), pool.clone(), 0);
                ring.submitter(Bench::FIRST).stream(data, arm).unwrap();
                theirs
            })
            .into();
        ring.run().unwrap();
        assert_eq!(seen.take(), [9, 3], "the only one for whom there is something");
    });
}

#[test]
fn a_stream_ends_when_no_buffer_can_ever_come_back() {
    watched(|| {
        let ((mut client, server), (mut thief, stolen)) = (tcp_pair(), tcp_pair());
        thief.write_all(b"loot").unwrap();
        let pool = BufferPool::new(1, 16).unwrap();
        let (receiver, second) = (Receiver::new(server, &pool), Receiver::new(stolen, &pool));
        let seen = Log::new();
        let log = seen.clone();
        let first = Script::new()
            .on_setup_once(|mut submitter| {
                submitter.stream(receiver, Receiver::receive)?;
                let descriptor = Fd(second.socket.as_raw_fd());
                let entry = opcode::Recv::new(descriptor, std::ptr::null_mut(), 16).buf_group(0).build();
                let entry = entry.flags(squeue::Flags::BUFFER_SELECT);
                // SAFETY: the socket is owned by the data; the memory is that of the pool, which belongs
                // to the ring until it has finished. Nobody looks at it: the buffer is lost.
                unsafe { submitter.to(Bench::SECOND).push(entry, second) }.map_err(|it| it.error)?;
                Ok(())
            })
            .on_completion(move |completion, receiver, _| match completion.more() {
                true => {
                    log.push(outcome(&completion));
                    (ControlFlow::Continue, Some(receiver))
                }
                false => {
                    assert!(log.len() < 10, "it was told too often");
                    log.push(outcome(&completion));
                    (ControlFlow::Continue, None)
                }
            });
        let second = Script::new().on_completion(move |completion, _, _| {
            assert_eq!(outcome(&completion), Ok(4));
            client.write_all(b"nowhere to put this").unwrap();
            (ControlFlow::Continue, None)
        });
        let mut ring = Bench::builder(first, second).build().unwrap();
        ring.run().unwrap();
        let seen = seen.take();
        assert!(!seen.is_empty() && seen.iter().all(|outcome| *outcome == Err(libc::ENOBUFS)), "{seen:?}");
        assert_eq!((ring.stats().in_flight, ring.stats().foreign), (0, 0));
    });
}

#[test]
fn a_stream_that_waits_for_a_buffer_can_be_cancelled() {
    watched(|| {
        let (mut client, server) = tcp_pair();
        let pool = BufferPool::new(2, 4).unwrap();
        client.write_all(b"12345678.").unwrap();
        let (held, seen) = (Log::new(), Log::new());
        let receiver = Receiver::new(server, &pool);
        let mut ring = Bench::with(8, holding(receiver, &held, &seen).on_setup(|_| Ok(())));
        // Again, as a stream whose key is known.
        let (mut client_2, server_2) = tcp_pair();
        client_2.write_all(b"12345678.").unwrap();
        let receiver = Receiver::new(server_2, &pool);
        let key: Key<_> = ring.submitter(Bench::FIRST).stream(receiver, Receiver::receive).unwrap();
        turn_until!(ring, seen.len() == 3);
        seen.take();
        assert!(ring.submitter(Bench::FIRST).cancel(key));
        assert!(ring.submitter(Bench::FIRST).cancel(key), "it has not been told yet");
        turn_until!(ring, seen.len() == 1);
        assert_eq!(seen.take(), [Seen::End(Err(libc::ECANCELED))]);
        assert!(!ring.submitter(Bench::FIRST).cancel(key));
        assert_eq!((ring.stats().in_flight, ring.stats().foreign), (0, 0));
        drop(held.take());
        ring.run().unwrap();
        assert_eq!((ring.stats().foreign, pool.available()), (0, 2));
    });
}

#[test]
fn a_stream_that_waits_for_a_buffer_is_handed_to_the_teardown_as_cancelled() {
    watched(|| {
        let (mut ring, _client, pool, held, seen) = starved();
        ring.finish().unwrap();
        assert_eq!(seen.take(), [Seen::End(Err(libc::ECANCELED))]);
        assert_eq!((ring.stats().in_flight, ring.stats().foreign), (0, 0));
        drop(held.take());
        assert_eq!(pool.available(), 2);
    });
}

#[test]
fn buffers_that_are_lost_for_good_do_not_hold_up_the_teardown() {
    watched(|| {
        let (mut ring, _client, pool, held, seen) = starved();
        // As good as forgotten, but still reachable for leak checkers.
        static LOST: Mutex<Vec<Buffer>> = Mutex::new(Vec::new());
        LOST.lock().unwrap().extend(held.take());
        ring.finish().unwrap();
        assert_eq!(seen.take(), [Seen::End(Err(libc::ECANCELED))]);
        assert_eq!(pool.available(), 0);
    });
}

#[test]
fn a_stream_that_waits_for_a_buffer_is_dropped_with_its_ring() {
    watched(|| {
        let ledger = Ledger::new();
        let (mut client, server) = tcp_pair();
        let pool = BufferPool::new(1, 4).unwrap();
        client.write_all(b"12345").unwrap();
        let receiver = ledger.issue(Receiver::new(server, &pool));
        let (held, starved) = (Log::new(), Log::new());
        let (hold, log) = (held.clone(), starved.clone());
        let script = Script::new()
            .on_setup_once(|mut submitter| {
                submitter.stream(receiver, |receiver: &mut Tracked<Receiver>| receiver.receive())?;
                Ok(())
            })
            .on_completion(move |completion, receiver, _| {
                match completion.into_buffer() {
                    Ok(buffer) => hold.push(buffer),
                    Err(_) => log.push(()),
                }
                (ControlFlow::Continue, Some(receiver))
            });
        let mut ring = Bench::with(8, script);
        turn_until!(ring, starved.len() == 1);
        assert_eq!(ledger.alive(), 1);
        drop(ring);
        ledger.assert_all_dropped_once();
        drop(held.take());
        assert_eq!(pool.available(), 1);
    });
}

#[test]
fn a_stream_that_is_not_returned_when_there_are_no_buffers_is_over() {
    watched(|| {
        let ledger = Ledger::new();
        let (mut client, server) = tcp_pair();
        let pool = BufferPool::new(1, 4).unwrap();
        client.write_all(b"12345").unwrap();
        let receiver = ledger.issue(Receiver::new(server, &pool));
        let mut held = Vec::new();
        let script = Script::new()
            .on_setup_once(|mut submitter| {
                submitter.stream(receiver, |receiver: &mut Tracked<Receiver>| receiver.receive())?;
                Ok(())
            })
            .on_completion(move |completion, receiver, _| {
                assert!(completion.more());
                let buffer = completion.into_buffer().ok();
                let goes_on = buffer.is_some();
                held.extend(buffer);
                (ControlFlow::Continue, goes_on.then_some(receiver))
            });
        let mut ring = Bench::with(8, script);
        ring.run().unwrap();
        let stats = ring.stats();
        assert_eq!((stats.in_flight, stats.foreign, stats.returned_late), (0, 0, 0));
        ledger.assert_all_dropped_once();
        drop(ring);
        assert_eq!(pool.available(), 1);
    });
}

// ---- who holds a buffer -----------------------------------------------------------------------

/// A ring that has received `message` into `pool`, and finished; the buffers are held.
fn received(message: &[u8], pool: &BufferPool) -> (Bench<Receiver>, Vec<Buffer>) {
    let (mut client, server) = tcp_pair();
    client.write_all(message).unwrap();
    drop(client);
    let (held, seen) = (Log::new(), Log::new());
    let mut ring = Bench::with(8, holding(Receiver::new(server, pool), &held, &seen));
    ring.run().unwrap();
    assert_eq!(seen.take().last(), Some(&Seen::End(Ok(0))));
    (ring, held.take())
}

#[test]
fn a_buffer_may_be_returned_after_its_ring_has_finished() {
    watched(|| {
        let pool = BufferPool::new(2, 8).unwrap();
        let (ring, held) = received(b"hello", &pool);
        assert_eq!((pool.available(), &*held[0]), (1, &b"hello"[..]));
        drop(held);
        assert_eq!(pool.available(), 2);
        drop(ring);
    });
}

#[test]
fn a_buffer_may_be_read_when_its_ring_and_its_pool_are_gone() {
    watched(|| {
        let pool = BufferPool::new(2, 8).unwrap();
        let (ring, mut held) = received(b"hello", &pool);
        drop(ring);
        drop(pool);
        let mut buffer = held.pop().unwrap();
        buffer[0] = b'H';
        let buffer = thread::spawn(move || buffer).join().unwrap();
        assert_eq!(*buffer, *b"Hello");
    });
}

#[test]
fn a_pool_serves_a_second_ring_when_the_first_has_finished() {
    watched(|| {
        let pool = BufferPool::new(3, 4).unwrap();
        let (first, held) = received(b"1234567", &pool);
        assert_eq!(pool.available(), 1);
        // Two are still held: the second ring has one to receive into, and never gets the others.
        let (mut client, server) = tcp_pair();
        client.write_all(b"abcdefgh").unwrap();
        drop(client);
        let (kept, seen) = (Log::new(), Log::new());
        let mut second = Bench::with(8, holding(Receiver::new(server, &pool), &kept, &seen));
        turn_until!(second, seen.len() == 2);
        assert_eq!(seen.take(), [Seen::Bytes(4), Seen::Starved(true)]);
        assert_eq!([&*held[0], &*held[1]].concat(), b"1234567", "untouched");
        drop(held);
        second.run().unwrap();
        assert_eq!(seen.take(), [Seen::Bytes(4), Seen::End(Ok(0))]);
        assert_eq!(kept.take().iter().flat_map(|it| it.to_vec()).collect::<Vec<_>>(), b"abcdefgh");
        drop((first, second));
        assert_eq!(pool.available(), 3);
    });
}

#[test]
fn a_pool_serves_the_same_ring_again_in_its_next_run() {
    watched(|| {
        let pool = BufferPool::new(2, 8).unwrap();
        let seen = Log::new();
        let (log, of_setup) = (seen.clone(), pool.clone());
        let script = Script::new()
            .on_setup(move |mut submitter| {
                let (mut client, server) = tcp_pair();
                client.write_all(b"again")?;
                submitter.stream(Receiver::new(server, &of_setup), Receiver::receive)?;
                Ok(())
            })
            .on_completion(move |completion, receiver, _| {
                let more = completion.more();
                log.push(completion.into_buffer().unwrap().to_vec());
                (ControlFlow::Continue, more.then_some(receiver))
            });
        let mut ring = Bench::with(8, script);
        for _ in 0..3 {
            ring.run().unwrap();
            assert_eq!(seen.take(), [&b"again"[..], b""]);
            assert_eq!(pool.available(), 2);
        }
    });
}

#[test]
fn a_pool_in_use_is_refused_to_a_second_ring_and_the_data_comes_back() {
    watched(|| {
        let ledger = Ledger::new();
        let pool = BufferPool::new(2, 8).unwrap();
        let (mut client, server) = tcp_pair();
        let (other_client, other_server) = tcp_pair();
        let (other_server_2, own) = (other_server.try_clone().unwrap(), BufferPool::new(2, 8).unwrap());
        let receiver = ledger.issue(Receiver::new(server, &pool));
        let seen = Log::new();
        let log = seen.clone();
        let script = || {
            let log = log.clone();
            Script::new().on_completion(move |completion, receiver: Tracked<Receiver>, _| {
                let more = completion.more();
                log.push(completion.into_buffer().unwrap().to_vec());
                (ControlFlow::Continue, more.then_some(receiver))
            })
        };
        let (mut first, mut second) = (Bench::with(8, script()), Bench::with(8, script()));
        first.submitter(Bench::FIRST).stream(receiver, |it| it.receive()).unwrap();
        // Registered from here on, even before the first ring runs.
        let mut submitter = second.submitter(Bench::FIRST);
        let receiver = ledger.issue(Receiver::new(other_server, &pool));
        let refused = submitter.try_stream(receiver, |it| it.receive());
        let Err(Refused { data, error: SubmitError::PoolInUse }) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!((data.arms, ledger.alive()), (1, 2), "the function was run, the data is back");
        let refused = submitter.stream(data, |it| it.receive());
        assert_eq!(refused.unwrap_err(), SubmitError::PoolInUse);
        assert_eq!(ledger.alive(), 1, "here it was dropped");
        assert_eq!(second.stats().in_flight, 0);

        // The second ring still works, with a pool of its own; and so does the first.
        let receiver = ledger.issue(Receiver::new(other_server_2, &own));
        second.submitter(Bench::FIRST).stream(receiver, |it| it.receive()).unwrap();
        (&other_client).write_all(b"second").unwrap();
        drop(other_client);
        second.run().unwrap();
        client.write_all(b"first").unwrap();
        drop(client);
        first.run().unwrap();
        assert_eq!(seen.take(), [&b"second"[..], b"", b"first", b""]);
        assert_eq!((pool.available(), own.available()), (2, 2));
        ledger.assert_all_dropped_once();
    });
}

#[test]
fn a_pool_of_a_ring_that_never_ran_is_free_again() {
    in_child(|| {
        let before = open_descriptors();
        {
            let pool = BufferPool::new(2, 8).unwrap();
            for _ in 0..3 {
                let ledger = Ledger::new();
                let (_client, server) = tcp_pair();
                let receiver = ledger.issue(Receiver::new(server, &pool));
                let mut ring = Bench::with(8, Script::new());
                ring.submitter(Bench::FIRST).stream(receiver, |it| it.receive()).unwrap();
                assert_eq!((ring.stats().in_flight, ledger.alive()), (1, 1));
                drop(ring);
                ledger.assert_all_dropped_once();
            }
            let (_ring, held) = received(b"hello", &pool);
            assert_eq!(*held[0], *b"hello");
            drop(held);
            assert_eq!(pool.available(), 2);
        }
        assert_eq!(open_descriptors(), before);
    });
}

#[test]
fn a_pool_of_a_ring_that_was_dropped_in_the_middle_is_free_again() {
    watched(|| {
        let pool = BufferPool::new(2, 8).unwrap();
        for _ in 0..10 {
            let (mut client, server) = tcp_pair();
            client.write_all(b"hello").unwrap();
            let (held, seen) = (Log::new(), Log::new());
            let mut ring = Bench::with(8, holding(Receiver::new(server, &pool), &held, &seen));
            turn_until!(ring, seen.len() == 1);
            client.write_all(b"and more").unwrap();
            drop(ring);
            assert_eq!(pool.available(), 1, "what nobody took is back");
            drop(held.take());
            assert_eq!(pool.available(), 2);
        }
    });
}

#[test]
fn whatever_arrives_while_a_stream_is_cancelled_no_buffer_is_lost() {
    watched(|| {
        let pool = BufferPool::new(8, 64).unwrap();
        for round in 0..100_u64 {
            let (client, server) = tcp_pair();
            let writing = thread::spawn(move || {
                for _ in 0..20 {
                    // The ring may be done with it.
                    if (&client).write_all(&[7; 50]).is_err() {
                        break;
                    }
                }
            });
            let receiver = Receiver::new(server, &pool);
            let (mut count, ends) = (0, Log::new());
            let (end, stop) = (ends.clone(), round % 10);
            let abandons = round % 3 == 0;
            let script = Script::new()
                .on_setup_once(|mut submitter| {
                    submitter.stream(receiver, Receiver::receive)?;
                    Ok(())
                })
                .on_completion(move |completion, receiver, mut submitter| {
                    if !completion.more() {
                        end.push(outcome(&completion));
                        return (ControlFlow::Continue, None);
                    }
                    count += 1;
                    if count > stop {
                        if abandons {
                            end.push(Err(0));
                            return (ControlFlow::Continue, None);
                        }
                        submitter.cancel_all();
                    }
                    (ControlFlow::Continue, Some(receiver))
                });
            let mut ring = Bench::with(8, script);
            ring.run().unwrap();
            assert_eq!(ends.len(), 1);
            assert_eq!((ring.stats().in_flight, ring.stats().foreign), (0, 0));
            assert_eq!(pool.available(), 8, "in round {round}");
            drop(ring);
            writing.join().unwrap();
        }
    });
}

#[test]
fn an_exit_in_the_middle_of_a_burst_loses_no_buffer() {
    watched(|| {
        let pool = BufferPool::new(32, 16).unwrap();
        for _ in 0..20 {
            let (mut client, server) = tcp_pair();
            client.write_all(&[1; 16 * 20]).unwrap();
            let receiver = Receiver::new(server, &pool);
            let script = Script::new()
                .on_setup_once(|mut submitter| {
                    submitter.stream(receiver, Receiver::receive)?;
                    Ok(())
                })
                .on_completion(|_, receiver, _| (ControlFlow::Exit, Some(receiver)));
            let mut ring = Bench::with(8, script);
            ring.run().unwrap();
            assert_eq!(pool.available(), 32);
        }
    });
}

/// A stream over a completion queue of four, which cuts it. Its data gets another pool on its way. Returns the lengths
/// of what was received, and how the stream ended.
fn moving(from: &BufferPool, to: &BufferPool) -> (Vec<usize>, Result<u32, i32>) {
    let (mut client, server) = tcp_pair();
    client.write_all(&[9; 16 * 40]).unwrap();
    drop(client);
    let (receiver, to) = (Receiver::new(server, from), to.clone());
    let (lengths, ends) = (Log::new(), Log::new());
    let (log, end) = (lengths.clone(), ends.clone());
    let script = Script::new()
        .on_setup_once(|mut submitter| {
            submitter.stream(receiver, Receiver::receive)?;
            Ok(())
        })
        .on_completion(move |completion, mut receiver, _| {
            if !completion.more() {
                end.push(outcome(&completion));
                return (ControlFlow::Continue, None);
            }
            if let Ok(buffer) = completion.into_buffer() {
                log.push(buffer.len());
            }
            receiver.pool = to.clone();
            (ControlFlow::Continue, Some(receiver))
        });
    let four = NonZeroU32::new(4).unwrap();
    let mut ring =
        Bench::builder(script, Script::new()).entries(four).completion_entries(four).build().unwrap();
    ring.run().unwrap();
    assert_eq!((ring.stats().in_flight, ring.stats().foreign), (0, 0));
    (lengths.take(), ends.take().pop().unwrap())
}

#[test]
fn a_stream_may_move_to_another_pool_when_it_is_armed_again() {
    watched(|| {
        let (small, large) = (BufferPool::new(16, 16).unwrap(), BufferPool::new(16, 32).unwrap());
        let (lengths, end) = moving(&small, &large);
        assert_eq!((lengths.iter().sum::<usize>(), end), (16 * 40, Ok(0)));
        let moved = lengths.iter().position(|length| *length > 16).expect("it never moved");
        assert!(moved > 0 && lengths[..moved].iter().all(|length| *length == 16), "{lengths:?}");
        assert_eq!((small.available(), large.available()), (16, 16));
    });
}

#[test]
fn a_stream_that_moves_to_the_pool_of_another_ring_ends() {
    watched(|| {
        let (free, taken) = (BufferPool::new(16, 16).unwrap(), BufferPool::new(16, 16).unwrap());
        let (client, server) = tcp_pair();
        let mut other = Bench::with(8, Script::new());
        other.submitter(Bench::FIRST).stream(Receiver::new(server, &taken), Receiver::receive).unwrap();
        let (lengths, end) = moving(&free, &taken);
        assert!(!lengths.is_empty() && lengths.len() < 40);
        assert_eq!(end, Err(libc::EBUSY));
        drop((other, client));
        assert_eq!((free.available(), taken.available()), (16, 16));
    });
}

#[test]
fn a_buffer_is_sent_by_a_request_that_nobody_waits_for() {
    watched(|| {
        enum Work {
            Receive(Receiver),
            Send(Arc<TcpStream>, Buffer),
        }
        let (mut client, server) = tcp_pair();
        let pool = BufferPool::new(4, 16).unwrap();
        client.write_all(b"and back").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let receiver = Work::Receive(Receiver::new(server, &pool));
        let script = Script::new()
            .on_setup_once(|mut submitter| {
                submitter.stream(receiver, |work| match work {
                    Work::Receive(receiver) => receiver.receive(),
                    Work::Send(..) => unreachable!("only receivers are streams"),
                })?;
                Ok(())
            })
            .on_completion(|completion, receiver, mut submitter| {
                let Work::Receive(Receiver { socket, .. }) = &receiver else {
                    unreachable!("nobody is told of the others");
                };
                if !completion.more() {
                    return (ControlFlow::Continue, None);
                }
                let send = Work::Send(Arc::clone(socket), completion.into_buffer().unwrap());
                submitter
                    .detach(send, |work| match work {
                        Work::Send(socket, buffer) => request::send(socket, buffer),
                        Work::Receive(_) => unreachable!("that is a stream"),
                    })
                    .unwrap();
                (ControlFlow::Continue, Some(receiver))
            });
        let mut ring = Bench::with(8, script);
        ring.run().unwrap();
        assert_eq!((ring.stats().detached_failed, pool.available()), (0, 4));
        drop(ring);
        let mut back = String::new();
        client.read_to_string(&mut back).unwrap();
        assert_eq!(back, "and back");
    });
}

/// A pool can be used by any ring; this is how a library for them would be written.
#[test]
fn a_receiver_that_works_in_any_ring_compiles() {
    fn receive<R, Op>(
        submitter: &mut rummelplatz::Submitter<'_, R, Op>,
        socket: Op::RingData,
    ) -> Result<(), SubmitError>
    where
        R: Ring,
        Op: rummelplatz::RingOperation<R>,
        Op::RingData: AsFd + AsRef<BufferPool>,
    {
        submitter.stream(socket, |data| request::recv_multi(data, data.as_ref()))?;
        Ok(())
    }
    struct Socket(TcpStream, BufferPool);
    impl AsFd for Socket {
        fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
            self.0.as_fd()
        }
    }
    impl AsRef<BufferPool> for Socket {
        fn as_ref(&self) -> &BufferPool {
            &self.1
        }
    }
    watched(|| {
        let (client, server) = tcp_pair();
        drop(client);
        let pool = BufferPool::new(1, 1).unwrap();
        let mut ring = Bench::with(8, Script::new());
        receive(&mut ring.submitter(Bench::FIRST), Socket(server, pool)).unwrap();
        ring.run().unwrap();
    });
}

/// At first a stream of another kind; from then on one that receives.
struct Turncoat {
    socket: Arc<TcpStream>,
    pool: BufferPool,
    receives: bool,
}

impl Turncoat {
    fn arm(&mut self) -> Stream<'_> {
        match self.receives {
            true => request::recv_multi(&self.socket, &self.pool),
            false => request::timeout_multi(Duration::from_micros(50)),
        }
    }
}

/// A ring of four completions whose kernel registers no buffers, or never gives them back.
fn without(registers: bool) -> RawRing {
    const BUFFERS: u8 = 22;
    let opcodes =
        [opcode::Timeout::CODE, opcode::RecvMulti::CODE, opcode::AsyncCancel::CODE, opcode::PollAdd::CODE];
    let registrations = [IORING_REGISTER_EVENTFD, BUFFERS];
    let count = if registers { 2 } else { 1 };
    restricted(IoUring::builder().setup_cqsize(4), 4, &opcodes, &registrations[..count])
}

#[test]
fn a_pool_that_the_kernel_does_not_register_is_refused_with_its_errno() {
    watched(|| {
        let seen = Log::new();
        let log = seen.clone();
        let script = Script::new().on_completion(move |completion, mut stream: Turncoat, _| {
            // What has piled up meanwhile does not fit, and that cuts the stream.
            thread::sleep(Duration::from_millis(1));
            let more = completion.more();
            if !more {
                log.push(outcome(&completion));
            }
            stream.receives = true;
            (ControlFlow::Continue, more.then_some(stream))
        });
        let (_client, server) = tcp_pair();
        let pool = BufferPool::new(1, 8).unwrap();
        let stream = |receives| Turncoat {
            socket: Arc::new(server.try_clone().unwrap()),
            pool: pool.clone(),
            receives,
        };
        let mut ring = Bench::builder(script, Script::new()).raw_ring(without(false)).build().unwrap();
        let refused = ring.submitter(Bench::FIRST).try_stream(stream(true), Turncoat::arm);
        let Err(Refused { data: Turncoat { receives: true, .. }, error }) = refused else {
            panic!("accepted")
        };
        assert_eq!(error, SubmitError::PoolRefused(libc::EACCES));
        assert_eq!(ring.stats().in_flight, 0);
        ring.submitter(Bench::FIRST).stream(stream(false), Turncoat::arm).unwrap();
        ring.run().unwrap();
        assert_eq!(seen.take(), [Err(libc::EACCES)]);
        assert_eq!(pool.available(), 1);
    });
}

#[test]
fn a_pool_that_the_kernel_does_not_give_back_is_free_again_when_its_ring_is_gone() {
    watched(|| {
        let (_client, server) = tcp_pair();
        let pool = BufferPool::new(1, 8).unwrap();
        let receiver = || Receiver::new(server.try_clone().unwrap(), &pool);
        let mut ring = Bench::builder(Script::new(), Script::new()).raw_ring(without(true)).build().unwrap();
        ring.submitter(Bench::FIRST).stream(receiver(), Receiver::receive).unwrap();
        ring.finish().unwrap();
        let mut other: Bench<Receiver> = Bench::with(4, Script::new());
        let refused = other.submitter(Bench::FIRST).stream(receiver(), Receiver::receive);
        assert_eq!(refused.unwrap_err(), SubmitError::PoolInUse);
        drop(ring);
        other.submitter(Bench::FIRST).stream(receiver(), Receiver::receive).expect("no ring has it");
    });
}

#[test]
fn a_pool_that_the_kernel_does_not_give_back_serves_the_next_run_and_so_does_another() {
    watched(|| {
        let seen = Log::new();
        let log = seen.clone();
        let script = Script::new().on_completion(move |completion, receiver: Receiver, _| {
            let more = completion.more();
            let received = completion.into_buffer().map(|buffer| buffer.to_vec());
            log.push(received.map_err(|error| error.raw_os_error()));
            (ControlFlow::Continue, more.then_some(receiver))
        });
        let pools = [BufferPool::new(2, 8).unwrap(), BufferPool::new(2, 8).unwrap()];
        let mut ring = Bench::builder(script, Script::new()).raw_ring(without(true)).build().unwrap();
        for (pool, message) in
            [(&pools[0], "one"), (&pools[0], "two"), (&pools[1], "three"), (&pools[0], "four")]
        {
            let (mut client, server) = tcp_pair();
            client.write_all(message.as_bytes()).unwrap();
            drop(client);
            let receiver = Receiver::new(server, pool);
            ring.submitter(Bench::FIRST).stream(receiver, Receiver::receive).unwrap();
            ring.run().unwrap();
            assert_eq!(seen.take(), [Ok(message.into()), Ok(Vec::new())]);
            assert_eq!(pool.available(), 2);
        }
    });
}
