//! Streams of datagrams into a pool, which say where each came from.

use std::io::{self, Write};
use std::net::{Shutdown, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rummelplatz::request::Datagram;
use rummelplatz::{BufferPool, ControlFlow, Request, Stream, request};
use rummelplatz_tests::{
    Bench, Log, Script, address, cramped, deaf_to_datagrams, outcome, tcp_pair, watched,
};

/// A pool of this many buffers, each with room for this many bytes of a datagram.
fn pool(count: u16, room: u32) -> BufferPool {
    BufferPool::new(count, Datagram::OVERHEAD + room).unwrap()
}

struct Receiver {
    socket: Arc<OwnedFd>,
    pool: BufferPool,
}

impl Receiver {
    fn new(socket: impl Into<OwnedFd>, pool: &BufferPool) -> Receiver {
        Receiver { socket: Arc::new(socket.into()), pool: pool.clone() }
    }

    fn receive(&mut self) -> Stream<'_> {
        request::recv_from_multi(&self.socket, &self.pool)
    }
}

/// What a handler is told, as the test sees it.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    /// What the datagram says, who sent it, and whether it was longer.
    Datagram(Vec<u8>, Option<SocketAddr>, bool),
    Starved,
    End(Result<u32, i32>),
}

/// The word that ends everything.
const BYE: &[u8] = b"bye";

/// Receives from `receiver`, up to the last word; keeps the datagrams in `held`, if there is one.
fn listening(receiver: Receiver, held: Option<&Log<Datagram>>, seen: &Log<Seen>) -> Script<Receiver> {
    let (held, seen) = (held.cloned(), seen.clone());
    Script::new()
        .on_setup_once(|mut submitter| {
            submitter.stream(receiver, Receiver::receive)?;
            Ok(())
        })
        .on_completion(move |completion, receiver, _| {
            match (completion.more(), outcome(&completion)) {
                (true, Err(libc::ENOBUFS)) => seen.push(Seen::Starved),
                (true, outcome) => {
                    let datagram = completion.into_datagram().unwrap();
                    assert_eq!(outcome, Ok(datagram.len() as u32));
                    if *datagram == *BYE {
                        return (ControlFlow::Continue, None);
                    }
                    seen.push(Seen::Datagram(datagram.to_vec(), datagram.peer(), datagram.is_truncated()));
                    if let Some(held) = &held {
                        held.push(datagram);
                    }
                }
                (false, outcome) => {
                    seen.push(Seen::End(outcome));
                    assert!(completion.into_datagram().is_ok_and(|it| it.is_empty()) || outcome.is_err());
                    return (ControlFlow::Continue, None);
                }
            }
            (ControlFlow::Continue, Some(receiver))
        })
}

/// Runs a ring that listens, and returns what it has seen; no buffer may be lost.
fn heard(receiver: Receiver) -> Vec<Seen> {
    let (seen, pool) = (Log::new(), receiver.pool.clone());
    let mut ring = Bench::with(8, listening(receiver, None, &seen));
    ring.run().unwrap();
    assert_eq!((ring.stats().in_flight, ring.stats().foreign), (0, 0));
    drop(ring);
    assert_eq!(pool.available(), pool.capacity());
    seen.take()
}

/// Sockets of both kinds of addresses that talk to each other, and the address of the second.
fn udp_pairs() -> Vec<(UdpSocket, UdpSocket, SocketAddr)> {
    let pair = |address: &str| {
        let Ok(ours) = UdpSocket::bind(address) else {
            eprintln!("skipped: nothing can be bound to {address}");
            return None;
        };
        let theirs = UdpSocket::bind(address).unwrap();
        theirs.connect(ours.local_addr().unwrap()).unwrap();
        theirs.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let there = theirs.local_addr().unwrap();
        Some((ours, theirs, there))
    };
    ["127.0.0.1:0", "[::1]:0"].into_iter().filter_map(pair).collect()
}

/// Sends these with `send` of a socket.
fn send_by(send: impl Fn(&[u8]) -> io::Result<usize>, datagrams: &[&[u8]]) {
    for datagram in datagrams {
        assert_eq!(send(datagram).unwrap(), datagram.len());
    }
}

#[test]
fn a_server_answers_each_to_whom_it_is_from() {
    enum Work {
        Listen(Receiver),
        Answer(Arc<OwnedFd>, Datagram),
    }
    impl Work {
        fn listen(&mut self) -> Stream<'_> {
            match self {
                Work::Listen(receiver) => receiver.receive(),
                Work::Answer(..) => unreachable!("that is no stream"),
            }
        }
        fn answer(&mut self) -> Request<'_> {
            let Work::Answer(socket, datagram) = self else { unreachable!("that is a stream") };
            request::send_to(socket, datagram, datagram.peer().unwrap())
        }
    }
    watched(|| {
        for (ours, theirs, there) in udp_pairs() {
            let here = ours.local_addr().unwrap();
            let pool = pool(4, 1200);
            let receiver = Receiver::new(ours, &pool);
            let clients: Vec<_> = (0..3_u8)
                .map(|number| {
                    let socket = UdpSocket::bind((there.ip(), 0)).unwrap();
                    socket.connect(here).unwrap();
                    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
                    thread::spawn(move || {
                        for length in (0..1200).step_by(7).chain([0, 0, 1200, 1]) {
                            let (sent, mut answer) = (vec![number; length], [0; 2000]);
                            socket.send(&sent).unwrap();
                            let length = socket.recv(&mut answer).unwrap();
                            assert!(answer[..length] == sent, "another datagram came back");
                        }
                    })
                })
                .collect();
            let script = Script::new()
                .on_setup_once(|mut submitter| {
                    submitter.stream(Work::Listen(receiver), Work::listen)?;
                    Ok(())
                })
                .on_completion(|completion, data, mut submitter| {
                    let Work::Listen(Receiver { socket, .. }) = &data else { unreachable!("only these") };
                    assert!(completion.more(), "{completion:?}");
                    if outcome(&completion) == Err(libc::ENOBUFS) {
                        return (ControlFlow::Continue, Some(data));
                    }
                    let datagram = completion.into_datagram().unwrap();
                    assert!(!datagram.is_truncated());
                    if *datagram == *BYE {
                        return (ControlFlow::Continue, None);
                    }
                    submitter.detach(Work::Answer(Arc::clone(socket), datagram), Work::answer).unwrap();
                    (ControlFlow::Continue, Some(data))
                });
            let ends = thread::spawn(move || {
                clients.into_iter().for_each(|client| client.join().unwrap());
                theirs.send(BYE).unwrap();
            });
            let mut ring = Bench::with(8, script);
            ring.run().unwrap();
            ends.join().unwrap();
            assert_eq!((ring.stats().in_flight, ring.stats().detached_failed), (0, 0));
            assert_eq!(pool.available(), 4);
        }
    });
}

#[test]
fn datagrams_are_told_one_by_one_and_an_empty_one_ends_nothing() {
    watched(|| {
        for (ours, theirs, there) in udp_pairs() {
            let sent: [&[u8]; 7] = [b"one", b"", b"", b"12345678", b"123456789", b"", b"last"];
            send_by(|bytes| theirs.send(bytes), &sent);
            send_by(|bytes| theirs.send(bytes), &[BYE]);
            let told = |bytes: &[u8]| {
                Seen::Datagram(bytes[..bytes.len().min(8)].into(), Some(there), bytes.len() > 8)
            };
            assert_eq!(heard(Receiver::new(ours, &pool(16, 8))), sent.map(told));
        }
    });
}

#[test]
fn a_full_completion_queue_loses_no_datagram() {
    watched(|| {
        for (ours, theirs, there) in udp_pairs() {
            let pool = pool(64, 8);
            for number in 0..50_u8 {
                send_by(|bytes| theirs.send(bytes), &[&vec![number; usize::from(number % 4)]]);
            }
            send_by(|bytes| theirs.send(bytes), &[BYE]);
            let seen = Log::new();
            cramped(listening(Receiver::new(ours, &pool), None, &seen), Script::new()).run().unwrap();
            let told = |number: u8| Seen::Datagram(vec![number; usize::from(number % 4)], Some(there), false);
            assert_eq!(seen.take(), (0..50).map(told).collect::<Vec<_>>());
            assert_eq!(pool.available(), 64);
        }
    });
}

#[test]
fn datagrams_wait_for_a_buffer_that_another_thread_drops() {
    watched(|| {
        for (ours, theirs, there) in udp_pairs() {
            let pool = pool(2, 8);
            let told = |bytes: &[u8]| Seen::Datagram(bytes.into(), Some(there), false);
            send_by(|bytes| theirs.send(bytes), &[b"one", b"", b"three"]);
            let (held, seen) = (Log::new(), Log::new());
            let mut ring = Bench::with(8, listening(Receiver::new(ours, &pool), Some(&held), &seen));
            while seen.len() < 3 {
                assert!(!ring.turn().unwrap().is_finished());
                thread::sleep(Duration::from_micros(100));
            }
            assert_eq!(seen.take(), [told(b"one"), told(b""), Seen::Starved]);
            assert_eq!(pool.available(), 0);
            let other = thread::spawn(move || {
                // Long enough for the ring to fall asleep.
                thread::sleep(Duration::from_millis(20));
                let kept = held.take();
                assert_eq!((&*kept[0], kept[0].peer()), (&b"one"[..], Some(there)));
                drop(kept);
                theirs.send(BYE).unwrap();
                held
            });
            ring.run().unwrap();
            drop((ring, other.join().unwrap().take()));
            let mut seen = seen.take();
            // The second buffer may come back later than it is needed.
            seen.retain(|told| *told != Seen::Starved);
            assert_eq!((seen, pool.available()), (vec![told(b"three")], 2));
        }
    });
}

#[test]
fn buffers_without_room_for_what_is_said_end_the_stream() {
    watched(|| {
        for size in [1, 16, 47] {
            let (ours, theirs) = UnixDatagram::pair().unwrap();
            theirs.send(b"x").unwrap();
            let receiver = Receiver::new(ours, &BufferPool::new(2, size).unwrap());
            assert_eq!(heard(receiver), [Seen::End(Err(libc::EFAULT))], "{size} bytes");
        }
        // With room for the kernel's description, and for nothing else.
        for (ours, theirs, there) in udp_pairs() {
            send_by(|bytes| theirs.send(bytes), &[b"x", b"", b"yz"]);
            let (seen, pool) = (Log::new(), pool(4, 0));
            let mut ring = Bench::with(8, listening(Receiver::new(ours, &pool), None, &seen));
            while seen.len() < 3 {
                assert!(!ring.turn().unwrap().is_finished());
            }
            let told = |is_cut| Seen::Datagram(Vec::new(), Some(there), is_cut);
            assert_eq!(seen.take(), [told(true), told(false), told(true)]);
            drop(ring);
            assert_eq!(pool.available(), 4);
        }
    });
}

#[test]
fn the_end_of_a_connection_ends_the_stream() {
    watched(|| {
        let (mut client, server) = tcp_pair();
        client.write_all(b"no datagram").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let told = |bytes: &[u8]| Seen::Datagram(bytes.into(), None, false);
        let seen = heard(Receiver::new(server, &pool(4, 8)));
        assert_eq!(seen, [told(b"no datag"), told(b"ram"), Seen::End(Ok(0))]);
    });
}

#[test]
fn what_is_from_nobody_ends_the_stream_when_it_is_empty() {
    watched(|| {
        let told = |bytes: &[u8]| Seen::Datagram(bytes.into(), None, false);
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        send_by(|bytes| theirs.send(bytes), &[b"x", b"", b"too late"]);
        assert_eq!(heard(Receiver::new(ours, &pool(4, 8))), [told(b"x"), Seen::End(Ok(0))]);

        // From a sender without an Internet address; the sender's name is longer than the room for it.
        let named = UnixDatagram::bind_addr(&address(&"x".repeat(60))).unwrap();
        let receiving = address("datagrams");
        let ours = UnixDatagram::bind_addr(&receiving).unwrap();
        named.connect_addr(&receiving).unwrap();
        send_by(|bytes| named.send(bytes), &[b"x", b"", b"y", BYE]);
        assert_eq!(heard(Receiver::new(ours, &pool(4, 8))), [told(b"x"), told(b""), told(b"y")]);
    });
}

#[test]
fn what_receives_no_datagrams_says_so() {
    watched(|| {
        let file = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(heard(Receiver::new(file, &pool(1, 8))), [Seen::End(Err(libc::ENOTSOCK))]);
        // A socket that is connected to an address where nobody listens gets an error.
        let (_deaf, address) = deaf_to_datagrams();
        let ours = UdpSocket::bind("127.0.0.1:0").unwrap();
        ours.connect(address).unwrap();
        ours.send(b"x").unwrap();
        assert_eq!(heard(Receiver::new(ours, &pool(1, 8))), [Seen::End(Err(libc::ECONNREFUSED))]);
    });
}
