//! Streams of bundles: one completion for several buffers of a pool, and how these are sent on.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use rummelplatz::{Buffer, BufferPool, Completion, ControlFlow, Request, Stream, request};
use rummelplatz_tests::{Bench, Log, Script, cramped, outcome, tcp_pair, watched};

/// A stream of bundles, or of single buffers.
struct Receiver {
    socket: Arc<TcpStream>,
    pool: BufferPool,
    is_of_bundles: bool,
    /// It becomes the other kind whenever it is armed.
    alternates: bool,
    arms: u32,
}

impl Receiver {
    fn new(socket: TcpStream, pool: &BufferPool) -> Receiver {
        let (socket, pool) = (Arc::new(socket), pool.clone());
        Receiver { socket, pool, is_of_bundles: true, alternates: false, arms: 0 }
    }

    fn receive(&mut self) -> Stream<'_> {
        self.arms += 1;
        self.is_of_bundles ^= self.alternates;
        match self.is_of_bundles {
            true => request::recv_multi_bundle(&self.socket, &self.pool),
            false => request::recv_multi(&self.socket, &self.pool),
        }
    }
}

/// The buffers of a completion; all but the last must be full.
fn taken_out(completion: Completion, pool: &BufferPool) -> Vec<Buffer> {
    let length = outcome(&completion).unwrap() as usize;
    let buffers = completion.into_buffers().unwrap();
    assert_eq!(buffers.byte_count(), length);
    let buffers: Vec<_> = buffers.collect();
    let size = pool.buffer_size();
    assert_eq!(buffers.len(), length.div_ceil(size));
    assert!(buffers.iter().rev().skip(1).all(|buffer| buffer.len() == size), "{buffers:?}");
    assert_eq!(buffers.iter().map(|buffer| buffer.len()).sum::<usize>(), length);
    buffers
}

/// What a handler of a receiving stream is told, as the test sees it.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    /// How many bytes are in each of the buffers.
    Bundle(Vec<usize>),
    Starved,
    End(Result<u32, i32>),
}

/// Receives everything from `receiver` and keeps the buffers in `held`, one by one.
fn holding(receiver: Receiver, held: &Log<Buffer>, seen: &Log<Seen>) -> Script<Receiver> {
    let (held, seen) = (held.clone(), seen.clone());
    Script::new()
        .on_setup_once(|mut submitter| {
            submitter.stream(receiver, Receiver::receive)?;
            Ok(())
        })
        .on_completion(move |completion, receiver, _| {
            match (completion.more(), outcome(&completion)) {
                (true, Err(libc::ENOBUFS)) => seen.push(Seen::Starved),
                (true, _) => {
                    let buffers = taken_out(completion, &receiver.pool);
                    seen.push(Seen::Bundle(buffers.iter().map(|buffer| buffer.len()).collect()));
                    buffers.into_iter().for_each(|buffer| held.push(buffer));
                }
                (false, outcome) => {
                    seen.push(Seen::End(outcome));
                    assert_eq!(completion.into_buffers().map_or(0, Iterator::count), 0);
                    return (ControlFlow::Continue, None);
                }
            }
            (ControlFlow::Continue, Some(receiver))
        })
}

/// Turns the ring until its handler has seen something like this. Returns what it has seen, except for how the kernel
/// has cut the bytes into bundles, which is the kernel's own decision.
fn turn_until(ring: &mut Bench<Receiver>, seen: &Log<Seen>, what: impl Fn(&Seen) -> bool) -> Vec<Seen> {
    let mut all: Vec<Seen> = Vec::new();
    while !all.iter().any(&what) {
        assert!(!ring.turn().unwrap().is_finished(), "finished, with {all:?}");
        thread::sleep(Duration::from_micros(100));
        all.extend(seen.take());
    }
    together(all)
}

/// Bundles that follow each other, joined into one.
fn together(seen: Vec<Seen>) -> Vec<Seen> {
    let mut all: Vec<Seen> = Vec::new();
    for seen in seen {
        match (all.last_mut(), seen) {
            (Some(Seen::Bundle(last)), Seen::Bundle(next)) => last.extend(next),
            (_, seen) => all.push(seen),
        }
    }
    all
}

// ---- an echo ----------------------------------------------------------------------------------

enum Echo {
    Receive(Receiver, Queue),
    Send { socket: Arc<TcpStream>, queue: Queue, buffers: Vec<Buffer>, sent: usize },
}

/// What waits until the current send is done, if there is one.
type Queue = Arc<Mutex<Option<Vec<Buffer>>>>;

impl Echo {
    fn receive(&mut self) -> Stream<'_> {
        match self {
            Echo::Receive(receiver, _) => receiver.receive(),
            Echo::Send { .. } => unreachable!("only receivers are streams"),
        }
    }

    /// What has not been sent.
    fn send(&mut self) -> Request<'_> {
        let Echo::Send { socket, buffers, sent, .. } = self else { unreachable!("receivers are streams") };
        let mut sent = *sent;
        let pieces = buffers.iter().map(|buffer| {
            let skipped = sent.min(buffer.len());
            sent -= skipped;
            &buffer[skipped..]
        });
        request::send_vectored(socket, pieces)
    }
}

/// What an echo has seen.
#[derive(Clone)]
struct Echoed {
    /// How many buffers there were in each completion of a bundle.
    bundles: Log<usize>,
    starved: Log<()>,
}

/// A ring that echoes what `sockets` send, in order, until the last of them is closed. `is_of_bundles` says by their
/// number which of them receive bundles.
fn echo(
    sockets: Vec<TcpStream>,
    pool: &BufferPool,
    is_of_bundles: fn(usize) -> bool,
    echoed: &Echoed,
) -> Bench<Echo> {
    let (pool, echoed) = (pool.clone(), echoed.clone());
    let receiving = Script::new()
        .on_setup_once(move |mut submitter| {
            for (number, socket) in sockets.into_iter().enumerate() {
                let receiver =
                    Receiver { is_of_bundles: is_of_bundles(number), ..Receiver::new(socket, &pool) };
                submitter.stream(Echo::Receive(receiver, Queue::default()), Echo::receive)?;
            }
            Ok(())
        })
        .on_completion(move |completion, data, mut submitter| {
            let Echo::Receive(receiver, queue) = &data else { unreachable!("only receivers are here") };
            if outcome(&completion) == Err(libc::ENOBUFS) {
                echoed.starved.push(());
                return (ControlFlow::Continue, Some(data));
            }
            if !completion.more() {
                assert_eq!(outcome(&completion), Ok(0));
                return (ControlFlow::Continue, None);
            }
            let mut buffers = taken_out(completion, &receiver.pool);
            if receiver.is_of_bundles {
                echoed.bundles.push(buffers.len());
            } else {
                assert_eq!(buffers.len(), 1);
            }
            buffers.iter_mut().for_each(|buffer| buffer.make_ascii_uppercase());
            let mut waiting = queue.lock().unwrap();
            if let Some(waiting) = &mut *waiting {
                waiting.append(&mut buffers);
            } else {
                *waiting = Some(Vec::new());
                let (socket, queue) = (Arc::clone(&receiver.socket), Arc::clone(queue));
                let send = Echo::Send { socket, queue, buffers, sent: 0 };
                submitter.to(Bench::SECOND).submit(send, Echo::send).unwrap();
            }
            drop(waiting);
            (ControlFlow::Continue, Some(data))
        });
    let sender = Script::new().on_completion(|completion, mut data, mut submitter| {
        let Echo::Send { queue, buffers, sent, .. } = &mut data else {
            unreachable!("only senders are here")
        };
        *sent += outcome(&completion).unwrap() as usize;
        if *sent == buffers.iter().map(|buffer| buffer.len()).sum() {
            let mut waiting = queue.lock().unwrap();
            let next = waiting.take().unwrap_or_default();
            if next.is_empty() {
                drop(waiting);
                return (ControlFlow::Continue, None);
            }
            *waiting = Some(Vec::new());
            (*buffers, *sent) = (next, 0);
        }
        submitter.submit(data, Echo::send).unwrap();
        (ControlFlow::Continue, None)
    });
    Bench::builder(receiving, sender).build().unwrap()
}

/// Makes an echo talk to clients, one for each connection. Returns what it has seen.
fn echo_to(
    count: usize,
    pool: &BufferPool,
    is_of_bundles: fn(usize) -> bool,
    client: fn(usize, TcpStream),
) -> Echoed {
    let (clients, servers): (Vec<_>, Vec<_>) = (0..count).map(|_| tcp_pair()).unzip();
    clients.iter().chain(&servers).for_each(|socket| socket.set_nodelay(true).unwrap());
    let clients = clients.into_iter().enumerate();
    let clients: Vec<_> =
        clients.map(|(number, socket)| thread::spawn(move || client(number, socket))).collect();
    let echoed = Echoed { bundles: Log::new(), starved: Log::new() };
    let mut ring = echo(servers, pool, is_of_bundles, &echoed);
    ring.run().unwrap();
    clients.into_iter().for_each(|client| client.join().unwrap());
    let stats = ring.stats();
    assert_eq!((stats.in_flight, stats.foreign, stats.returned_late), (0, 0, 0));
    assert_eq!(pool.available(), pool.capacity());
    echoed
}

/// What client `number` sends: `length` lower-case letters.
fn letters(number: usize, length: usize) -> Vec<u8> {
    (0..length).map(|index| b'a' + ((index * 7 + index / 26 + number) % 26) as u8).collect()
}

fn assert_echoed(client: &mut TcpStream, sent: &[u8]) {
    let mut received = vec![0; sent.len()];
    client.read_exact(&mut received).unwrap();
    received.make_ascii_lowercase();
    assert!(received == sent, "other bytes came back");
}

/// Sends messages of all lengths, and waits for each to come back.
fn one_by_one(number: usize, mut client: TcpStream) {
    for length in (1..300).chain([1000, 5000]) {
        let sent = letters(number + length, length);
        client.write_all(&sent).unwrap();
        assert_echoed(&mut client, &sent);
    }
}

/// Sends very much in pieces of many lengths, without waiting in between.
fn all_at_once(number: usize, mut client: TcpStream) {
    let sent = letters(number, 30_000);
    let (mut writer, bytes) = (client.try_clone().unwrap(), sent.clone());
    let writing = thread::spawn(move || {
        let mut rest = &bytes[..];
        for length in (1..).map(|round| round * 37 % 1000) {
            let (chunk, after) = rest.split_at(length.min(rest.len()));
            writer.write_all(chunk).unwrap();
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
    });
    assert_echoed(&mut client, &sent);
    writing.join().unwrap();
    client.shutdown(Shutdown::Write).unwrap();
}

#[test]
fn messages_of_all_lengths_are_echoed() {
    watched(|| {
        let echoed = echo_to(1, &BufferPool::new(20, 16).unwrap(), |_| true, one_by_one);
        let bundles = echoed.bundles.take();
        assert!(bundles.iter().any(|count| *count >= 10), "{bundles:?}");
    });
}

#[test]
fn streams_that_share_too_small_a_pool_get_every_byte_in_order() {
    watched(|| {
        let echoed = echo_to(20, &BufferPool::new(5, 64).unwrap(), |_| true, all_at_once);
        assert!(!echoed.starved.is_empty(), "there were enough buffers after all");
        assert!(echoed.bundles.take().iter().any(|count| *count > 1));
    });
}

#[test]
fn bundles_and_single_buffers_come_out_of_one_pool() {
    watched(|| {
        let every_other = |number: usize| number.is_multiple_of(2);
        let echoed = echo_to(12, &BufferPool::new(13, 64).unwrap(), every_other, all_at_once);
        assert!(echoed.bundles.take().iter().any(|count| *count > 1));
    });
}

#[test]
fn one_buffer_is_enough_for_bundles() {
    watched(|| {
        let echoed = echo_to(3, &BufferPool::new(1, 1000).unwrap(), |_| true, all_at_once);
        assert!(echoed.bundles.take().iter().all(|count| *count == 1));
    });
}

// ---- how they end -----------------------------------------------------------------------------

#[test]
fn a_stream_of_bundles_ends_with_its_file_or_with_an_error() {
    watched(|| {
        for (resets, end) in [(false, Ok(0)), (true, Err(libc::ECONNRESET))] {
            let (mut client, server) = tcp_pair();
            let pool = BufferPool::new(8, 4).unwrap();
            client.write_all(b"123456789").unwrap();
            let (held, seen) = (Log::new(), Log::new());
            let mut ring = Bench::with(8, holding(Receiver::new(server, &pool), &held, &seen));
            let mut told =
                turn_until(&mut ring, &seen, |seen| matches!(seen, Seen::Bundle(all) if all.contains(&1)));
            if resets {
                setsockopt(&client, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 }).unwrap();
            }
            drop(client);
            ring.run().unwrap();
            told.extend(seen.take());
            assert_eq!(told, [Seen::Bundle(vec![4, 4, 1]), Seen::End(end)]);
            assert_eq!(
                held.take().iter().flat_map(|buffer| buffer.to_vec()).collect::<Vec<_>>(),
                b"123456789"
            );
            assert_eq!(pool.available(), 8);
        }
    });
}

#[test]
fn a_stream_of_bundles_waits_for_a_buffer_that_another_thread_drops() {
    watched(|| {
        let (mut client, server) = tcp_pair();
        let pool = BufferPool::new(3, 4).unwrap();
        client.write_all(b"123456789abc.").unwrap();
        let (held, seen) = (Log::new(), Log::new());
        let mut ring = Bench::with(8, holding(Receiver::new(server, &pool), &held, &seen));
        let told = turn_until(&mut ring, &seen, |seen| *seen == Seen::Starved);
        assert_eq!(told, [Seen::Bundle(vec![4, 4, 4]), Seen::Starved]);
        assert_eq!(pool.available(), 0);
        let other = thread::spawn(move || {
            // Long enough for the ring to fall asleep.
            thread::sleep(Duration::from_millis(20));
            // All but the first: the end of the file takes one buffer, too.
            let mut all = held.take();
            let first = all.remove(0);
            drop((all, client));
            first
        });
        ring.run().unwrap();
        // The first of these buffers may be used up before the second is back.
        let told = seen.take().into_iter().filter(|seen| *seen != Seen::Starved);
        assert!(told.eq([Seen::Bundle(vec![1]), Seen::End(Ok(0))]));
        let first = other.join().unwrap();
        assert_eq!(*first, *b"1234", "nobody else has written there");
        drop((ring, first));
        assert_eq!(pool.available(), 3);
    });
}

/// Receives everything from a connection on a ring with room for four completions. Returns the bytes, and how often the
/// stream was armed.
fn receive_all(receiver: Receiver) -> (Vec<u8>, u32) {
    let (bytes, arms) = (Log::new(), Log::new());
    let (received, armed) = (bytes.clone(), arms.clone());
    let first = Script::new()
        .on_setup_once(|mut submitter| {
            submitter.stream(receiver, Receiver::receive)?;
            Ok(())
        })
        .on_completion(move |completion, receiver: Receiver, _| {
            if !completion.more() {
                assert_eq!(outcome(&completion), Ok(0));
                armed.push(receiver.arms);
                return (ControlFlow::Continue, None);
            }
            if outcome(&completion) != Err(libc::ENOBUFS) {
                taken_out(completion, &receiver.pool)
                    .iter()
                    .for_each(|buffer| received.push(buffer.to_vec()));
            }
            (ControlFlow::Continue, Some(receiver))
        });
    let mut ring = cramped(first, Script::new());
    ring.run().unwrap();
    assert_eq!((ring.stats().in_flight, ring.stats().foreign), (0, 0));
    (bytes.take().concat(), arms.take()[0])
}

#[test]
fn a_stream_of_bundles_that_the_kernel_cuts_is_armed_again_also_as_one_of_another_kind() {
    watched(|| {
        for alternates in [false, true] {
            let (mut client, server) = tcp_pair();
            let sent = letters(3, 50_000);
            let bytes = sent.clone();
            let writing =
                thread::spawn(move || bytes.chunks(700).for_each(|it| client.write_all(it).unwrap()));
            let pool = BufferPool::new(6, 100).unwrap();
            let (received, arms) = receive_all(Receiver { alternates, ..Receiver::new(server, &pool) });
            writing.join().unwrap();
            assert!(received == sent, "{} of {} bytes, or others", received.len(), sent.len());
            // To the kernel, a bundle that takes all buffers that are offered is the last one.
            assert!(arms > 2, "it was armed {arms} times");
            assert_eq!(pool.available(), 6);
        }
    });
}

#[test]
fn bundles_that_nobody_takes_out_go_back() {
    watched(|| {
        let pool = BufferPool::new(16, 16).unwrap();
        // It is given up, cancelled, or the ring exits.
        for round in 0..60 {
            let (client, server) = tcp_pair();
            let writing = thread::spawn(move || {
                for _ in 0..20 {
                    // The ring may be done with it.
                    if (&client).write_all(&[7; 90]).is_err() {
                        break;
                    }
                }
            });
            let receiver = Receiver::new(server, &pool);
            let mut count = 0;
            let script = Script::new()
                .on_setup_once(|mut submitter| {
                    submitter.stream(receiver, Receiver::receive)?;
                    Ok(())
                })
                .on_completion(move |completion, receiver, mut submitter| {
                    count += 1;
                    if count % 2 == 0 {
                        // A part of it.
                        completion.into_buffers().ok().and_then(|mut buffers| buffers.next());
                    }
                    if count > round % 5 {
                        match round % 3 {
                            0 => return (ControlFlow::Continue, None),
                            1 => return (ControlFlow::Exit, Some(receiver)),
                            _ => drop(submitter.cancel_all()),
                        }
                    }
                    (ControlFlow::Continue, Some(receiver))
                });
            let mut ring = Bench::with(8, script);
            ring.run().unwrap();
            assert_eq!((ring.stats().in_flight, ring.stats().foreign), (0, 0));
            assert_eq!(pool.available(), 16, "in round {round}");
            drop(ring);
            writing.join().unwrap();
        }
    });
}
