//! Incremental pools: large buffers that are used up piece by piece, by all streams together.

use std::io::{PipeReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use rummelplatz::{
    Buffer, BufferPool, Builder, Completion, ControlFlow, InvalidEntry, Request, Stream, SubmitError, request,
};
use rummelplatz_tests::{Bench, Log, Script, cramped, nameless_file, outcome, tcp_pair, turn_until, watched};

#[derive(Clone)]
struct Receiver {
    number: usize,
    file: Arc<OwnedFd>,
    pool: BufferPool,
    kind: Kind,
    /// How many bytes have come.
    received: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Single,
    Bundles,
    Read,
    Limited(u32),
}

impl Receiver {
    fn new(file: impl Into<OwnedFd>, pool: &BufferPool) -> Receiver {
        Receiver::of(Kind::Single, 0, file, pool)
    }

    fn of(kind: Kind, number: usize, file: impl Into<OwnedFd>, pool: &BufferPool) -> Receiver {
        Receiver { number, file: Arc::new(file.into()), pool: pool.clone(), kind, received: 0 }
    }

    fn receive(&mut self) -> Stream<'_> {
        match self.kind {
            Kind::Single => request::recv_multi(&self.file, &self.pool),
            Kind::Bundles => request::recv_multi_bundle(&self.file, &self.pool),
            Kind::Read => request::read_multi(&self.file, &self.pool),
            Kind::Limited(left) => {
                request::recv_multi(&self.file, &self.pool).limit(NonZeroU32::new(left).unwrap())
            }
        }
    }
}

/// The one buffer of a completion.
fn taken_out(completion: Completion, kind: Kind) -> Buffer {
    let length = outcome(&completion).unwrap() as usize;
    let buffer = match kind {
        Kind::Bundles => {
            let mut buffers = completion.into_buffers().unwrap();
            let buffer = buffers.next().unwrap_or_default();
            assert!(buffers.next().is_none());
            buffer
        }
        _ => completion.into_buffer().unwrap(),
    };
    assert_eq!(buffer.len(), length);
    buffer
}

/// What a handler of a receiving stream is told, as the test sees it.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Bytes(usize),
    Starved,
    End(Result<u32, i32>),
}

/// Receives everything from all of them, and keeps the pieces in `held`.
fn holding(receivers: Vec<Receiver>, held: &Log<Buffer>, seen: &Log<Seen>) -> Script<Receiver> {
    let (held, seen, teardown) = (held.clone(), seen.clone(), seen.clone());
    Script::new()
        .on_setup_once(|mut submitter| {
            for receiver in receivers {
                submitter.stream(receiver, Receiver::receive)?;
            }
            Ok(())
        })
        .on_completion(move |completion, receiver, _| {
            match (completion.more(), outcome(&completion)) {
                (true, Err(libc::ENOBUFS)) => seen.push(Seen::Starved),
                (more, Ok(bytes @ 1..)) => {
                    seen.push(Seen::Bytes(bytes as usize));
                    held.push(taken_out(completion, receiver.kind));
                    if !more {
                        return (ControlFlow::Continue, None);
                    }
                }
                (_, outcome) => {
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

/// The byte that this socket is sent at this place.
fn byte(number: usize, at: usize) -> u8 {
    ((at * (2 * number + 1) + 7 * number) % 251) as u8
}

fn bytes(number: usize, from: usize, length: usize) -> Vec<u8> {
    (from..from + length).map(|at| byte(number, at)).collect()
}

// ---- whose bytes are where --------------------------------------------------------------------

/// In which ring.
type In = fn(Script<Receiver>) -> Bench<Receiver>;

const USUAL: In = |receiving| Bench::with(64, receiving);
const CRAMPED: In = |receiving| cramped(receiving, Script::new());
const INTERRUPTED: In = |receiving| with(receiving).defer_taskrun(false).build().unwrap();
const INTERRUPTED_AND_CRAMPED: In = |receiving| narrow(receiving).defer_taskrun(false).build().unwrap();
const POLLED: In = |receiving| with(receiving).sqpoll(Duration::from_millis(5), None).build().unwrap();
const POLLED_AND_CRAMPED: In =
    |receiving| narrow(receiving).sqpoll(Duration::from_millis(5), None).build().unwrap();

fn with(receiving: Script<Receiver>) -> Builder<Bench<Receiver>> {
    Bench::builder(receiving, Script::new())
}

fn narrow(receiving: Script<Receiver>) -> Builder<Bench<Receiver>> {
    let two = NonZeroU32::new(2).unwrap();
    with(receiving).entries(two).completion_entries(two)
}

/// Many sockets send at the same time, in pieces of all lengths. The pieces go to other threads, which look at them
/// once more before they drop them.
fn everybody_hears_only_what_is_for_them(kind: Kind, ring: In, count: u16, size: u32) {
    const SOCKETS: usize = 24;
    const BYTES: usize = 400_000;
    let pool = BufferPool::incremental(count, size).unwrap();
    let (clients, servers): (Vec<_>, Vec<_>) = (0..SOCKETS).map(|_| tcp_pair()).unzip();
    let receivers: Vec<_> =
        (0..).zip(servers).map(|(number, server)| Receiver::of(kind, number, server, &pool)).collect();
    let keepers: Vec<Sender<(usize, usize, Buffer)>> = (0..3)
        .map(|keeper| {
            let (sender, pieces) = mpsc::channel();
            thread::spawn(move || {
                let mut kept = Vec::new();
                while let Ok((number, at, piece)) =
                    pieces.recv_timeout(Duration::from_millis(5)).or_else(|error| {
                        kept.clear();
                        match error {
                            mpsc::RecvTimeoutError::Timeout => Ok((0, 0, Buffer::empty())),
                            error => Err(error),
                        }
                    })
                {
                    let mut piece: Buffer = piece;
                    assert!(piece.iter().enumerate().all(|(index, it)| *it == byte(number, at + index)));
                    piece.fill(keeper);
                    kept.push(piece);
                    if kept.len() == 7 {
                        for piece in kept.drain(..) {
                            assert!(piece.iter().all(|byte| *byte == keeper), "somebody has written here");
                        }
                    }
                }
            });
            sender
        })
        .collect();
    let ended = Log::new();
    let told = ended.clone();
    let receiving = Script::new()
        .on_setup_once(|mut submitter| {
            for receiver in receivers {
                submitter.stream(receiver, Receiver::receive)?;
            }
            Ok(())
        })
        .on_completion(move |completion, mut receiver: Receiver, mut submitter| {
            let more = completion.more();
            match outcome(&completion) {
                Err(libc::ENOBUFS) if more => {}
                Ok(1..) => {
                    let piece = taken_out(completion, receiver.kind);
                    let (number, at) = (receiver.number, receiver.received);
                    for (index, it) in piece.iter().enumerate() {
                        assert_eq!(*it, byte(number, at + index), "socket {number}, byte {}", at + index);
                    }
                    receiver.received += piece.len();
                    keepers[(number + at) % 3].send((number, at, piece)).unwrap();
                    // Its limit is reached.
                    if !more {
                        submitter.stream(receiver, Receiver::receive).unwrap();
                        return (ControlFlow::Continue, None);
                    }
                }
                outcome => {
                    assert_eq!((outcome, receiver.received), (Ok(0), BYTES));
                    told.push(receiver.number);
                    return (ControlFlow::Continue, None);
                }
            }
            (ControlFlow::Continue, Some(receiver))
        });
    let writers: Vec<_> = (0..)
        .zip(clients)
        .map(|(number, mut client)| {
            thread::spawn(move || {
                let (mut sent, mut length) = (0, 1 + number);
                while sent < BYTES {
                    length = (length * 37 + 11) % 5000 + 1;
                    let length = length.min(BYTES - sent);
                    client.write_all(&bytes(number, sent, length)).unwrap();
                    sent += length;
                }
            })
        })
        .collect();
    let mut ring = ring(receiving);
    ring.run().unwrap();
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    assert_eq!(ended.len(), SOCKETS);
    drop(ring);
    while pool.available() < pool.capacity() {
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn everybody_hears_only_what_is_for_them_in_single_buffers() {
    watched(|| everybody_hears_only_what_is_for_them(Kind::Single, USUAL, 16, 65_536));
}

#[test]
fn everybody_hears_only_what_is_for_them_in_bundles() {
    watched(|| everybody_hears_only_what_is_for_them(Kind::Bundles, USUAL, 5, 100_000));
}

#[test]
fn everybody_hears_only_what_is_for_them_from_a_queue_that_is_too_small() {
    watched(|| everybody_hears_only_what_is_for_them(Kind::Single, CRAMPED, 64, 3000));
}

#[test]
fn everybody_hears_only_what_is_for_them_when_buffers_are_scarce() {
    watched(|| everybody_hears_only_what_is_for_them(Kind::Read, USUAL, 2, 4096));
}

#[test]
fn everybody_hears_only_what_is_for_them_in_limited_portions() {
    watched(|| everybody_hears_only_what_is_for_them(Kind::Limited(5000), CRAMPED, 8, 10_000));
}

#[test]
fn everybody_hears_only_what_is_for_them_in_rings_of_other_kinds() {
    watched(|| {
        everybody_hears_only_what_is_for_them(Kind::Single, INTERRUPTED, 3, 20_000);
        everybody_hears_only_what_is_for_them(Kind::Read, INTERRUPTED_AND_CRAMPED, 3, 20_000);
        everybody_hears_only_what_is_for_them(Kind::Single, POLLED, 3, 20_000);
        everybody_hears_only_what_is_for_them(Kind::Bundles, POLLED_AND_CRAMPED, 3, 20_000);
    });
}

// ---- what is used up, and comes back ----------------------------------------------------------

#[test]
fn pieces_of_several_sockets_share_a_buffer() {
    watched(|| {
        let (pairs, pool) = ([tcp_pair(), tcp_pair()], BufferPool::incremental(2, 16).unwrap());
        let [(one, first), (mut other, second)] = pairs;
        let (held, seen) = (Log::new(), Log::new());
        let receivers = vec![Receiver::new(first, &pool), Receiver::new(second, &pool)];
        let mut ring = Bench::with(8, holding(receivers, &held, &seen));
        for (socket, bytes) in [(&one, &b"aaa"[..]), (&other, b"bbbbb"), (&one, b"cccc")] {
            let (before, mut socket) = (held.len(), socket);
            socket.write_all(bytes).unwrap();
            turn_until!(ring, held.len() > before);
        }
        let mut pieces = held.take();
        assert_eq!((&*pieces[0], &*pieces[1], &*pieces[2]), (&b"aaa"[..], &b"bbbbb"[..], &b"cccc"[..]));
        let start = pieces[0].as_ptr();
        assert_eq!((pieces[1].as_ptr(), pieces[2].as_ptr()), (start.wrapping_add(3), start.wrapping_add(8)));
        assert_eq!(pool.available(), 2, "none is used up");
        pieces[1].fill(b'x');
        // The rest of the first, all of the second, and no more.
        other.write_all(&[b'd'; 21]).unwrap();
        turn_until!(ring, seen.take().contains(&Seen::Starved));
        assert_eq!(pool.available(), 0);
        let rest = held.take();
        assert_eq!(rest.iter().map(|piece| piece.len()).collect::<Vec<_>>(), [4, 16]);
        assert_eq!((&*pieces[0], &*pieces[1], &*pieces[2]), (&b"aaa"[..], &b"xxxxx"[..], &b"cccc"[..]));
        // Not before all pieces of one are dropped.
        let mut rest = rest.into_iter();
        drop((pieces.pop(), pieces.pop(), rest.next()));
        assert_eq!(pool.available(), 0);
        for _ in 0..20 {
            ring.turn().unwrap();
        }
        assert!(held.is_empty());
        thread::spawn(move || drop(pieces)).join().unwrap();
        turn_until!(ring, !held.is_empty());
        assert_eq!(*held.take()[0], [b'd']);
        drop(rest);
        turn_until!(ring, pool.available() == 2);
        ring.finish().unwrap();
    });
}

#[test]
fn a_limited_stream_and_a_pipe_take_pieces_too() {
    watched(|| {
        let pool = BufferPool::incremental(2, 1000).unwrap();
        let ((mut client, server), (reader, mut writer)) = (tcp_pair(), std::io::pipe().unwrap());
        let (held, seen) = (Log::new(), Log::new());
        let reader: PipeReader = reader;
        let receivers = vec![
            Receiver::of(Kind::Limited(10), 0, server, &pool),
            Receiver::of(Kind::Read, 1, reader, &pool),
        ];
        let mut ring = Bench::with(8, holding(receivers, &held, &seen));
        client.write_all(b"12345").unwrap();
        turn_until!(ring, held.len() == 1);
        writer.write_all(b"pipe").unwrap();
        turn_until!(ring, held.len() == 2);
        // A piece may be longer than what is left.
        client.write_all(b"67890 and no more").unwrap();
        turn_until!(ring, held.len() == 3);
        writer.write_all(b"line").unwrap();
        drop(writer);
        ring.run().unwrap();
        let pieces: Vec<_> = held.take().iter().map(|piece| piece.to_vec()).collect();
        assert_eq!(pieces, [&b"12345"[..], b"pipe", b"67890 and no more", b"line"]);
        assert_eq!(pool.available(), 2);
    });
}

#[test]
fn the_end_of_a_stream_uses_up_nothing() {
    watched(|| {
        let pool = BufferPool::incremental(1, 64).unwrap();
        let (held, seen) = (Log::new(), Log::new());
        let mut start: *const u8 = std::ptr::null();
        for round in 0..10 {
            // A new ring each time, and a socket that ends in the middle of the buffer, by itself or with an error.
            let (mut client, server) = tcp_pair();
            let mut ring = Bench::with(8, holding(vec![Receiver::new(server, &pool)], &held, &seen));
            client.write_all(b"hello").unwrap();
            turn_until!(ring, held.len() == 1);
            match round % 3 {
                0 => drop(client),
                1 => client.shutdown(Shutdown::Write).unwrap(),
                _ => {
                    setsockopt(&client, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 }).unwrap();
                    drop(client);
                }
            }
            ring.run().unwrap();
            let pieces = held.take();
            assert_eq!(*pieces[0], *b"hello");
            assert!(start.is_null() || pieces[0].as_ptr() == start, "it begins anew with each ring");
            start = pieces[0].as_ptr();
            assert_eq!(pool.available(), 0, "a piece is held, and no ring has it");
        }
    });
}

// ---- rings that end ---------------------------------------------------------------------------

#[test]
fn pieces_outlive_the_ring_and_the_pool() {
    watched(|| {
        let pool = BufferPool::incremental(3, 32).unwrap();
        let (held, seen) = (Log::new(), Log::new());
        let (mut client, server) = tcp_pair();
        let mut ring = Bench::with(8, holding(vec![Receiver::new(server, &pool)], &held, &seen));
        client.write_all(&[1; 40]).unwrap();
        turn_until!(ring, held.len() == 2);
        ring.finish().unwrap();
        assert_eq!(pool.available(), 1, "of two, pieces are held");
        let old = held.take();
        // Another ring has what is left, and then also what comes back.
        let (mut client, server) = tcp_pair();
        let mut ring = Bench::with(8, holding(vec![Receiver::new(server, &pool)], &held, &seen));
        client.write_all(&[2; 40]).unwrap();
        turn_until!(ring, seen.take().contains(&Seen::Starved));
        assert_eq!(held.len(), 1);
        let mut old = old.into_iter();
        drop(old.next());
        turn_until!(ring, held.len() == 2);
        drop(ring);
        let rest = old.next().unwrap();
        assert_eq!(*rest, [1; 8]);
        drop(pool);
        let new = held.take();
        assert!(new.iter().all(|piece| piece.iter().all(|byte| *byte == 2)));
        thread::spawn(move || drop((new, rest))).join().unwrap();
    });
}

#[test]
fn a_ring_that_is_run_again_goes_on() {
    watched(|| {
        let pool = BufferPool::incremental(2, 16).unwrap();
        for round in 0..20_u8 {
            let (held, seen) = (Log::new(), Log::new());
            let (mut client, server) = tcp_pair();
            let mut ring = Bench::with(8, holding(vec![Receiver::new(server, &pool)], &held, &seen));
            client.write_all(&[round; 7]).unwrap();
            turn_until!(ring, held.len() == 1);
            assert_eq!(*held.take()[0], [round; 7]);
            match round % 3 {
                0 => ring.finish().unwrap(),
                1 => drop(ring),
                _ => {
                    drop(client);
                    ring.run().unwrap();
                }
            }
            assert_eq!(pool.available(), 2);
        }
    });
}

// ---- what is refused --------------------------------------------------------------------------

enum Single {
    Receive(TcpStream, BufferPool),
    Read(PipeReader, BufferPool),
    Datagrams(UnixDatagram, BufferPool),
}

impl Single {
    fn request(&mut self) -> Request<'_> {
        match self {
            Single::Receive(socket, pool) => request::recv_provided(socket, pool),
            Single::Read(pipe, pool) => request::read_provided(pipe, pool),
            Single::Datagrams(..) => unreachable!("they are a stream"),
        }
    }

    fn stream(&mut self) -> Stream<'_> {
        match self {
            Single::Datagrams(socket, pool) => request::recv_from_multi(socket, pool),
            _ => unreachable!("they are single requests"),
        }
    }
}

#[test]
fn what_may_take_more_than_it_says_is_refused() {
    watched(|| {
        let pool = BufferPool::incremental(2, 256).unwrap();
        let refused = SubmitError::Invalid(InvalidEntry::TakesWholeBuffers);
        let script = Script::new().on_setup_once(move |mut submitter| {
            // Also after the pool has been registered.
            for _ in 0..2 {
                let (_client, server) = tcp_pair();
                let (reader, _writer) = std::io::pipe()?;
                let (_one, other) = UnixDatagram::pair()?;
                for data in [Single::Receive(server, pool.clone()), Single::Read(reader, pool.clone())] {
                    let back = submitter.try_submit(data, Single::request).unwrap_err();
                    assert_eq!(back.error, refused);
                }
                let datagrams = Single::Datagrams(other, pool.clone());
                let back = submitter.try_stream(datagrams, Single::stream).unwrap_err();
                assert_eq!(back.error, refused);
                assert!(matches!(back.data, Single::Datagrams(..)));
            }
            Ok(())
        });
        Bench::with(8, script).run().unwrap();
    });
}

#[test]
fn what_is_read_from_a_file_is_refused_by_the_kernel() {
    watched(|| {
        let pool = BufferPool::incremental(2, 256).unwrap();
        let (held, seen) = (Log::new(), Log::new());
        let receiver = Receiver::of(Kind::Read, 0, nameless_file(), &pool);
        Bench::with(8, holding(vec![receiver], &held, &seen)).run().unwrap();
        assert_eq!(seen.take(), [Seen::End(Err(libc::EBADFD))]);
        assert_eq!(pool.available(), 2);
    });
}

/// Somebody else's use of the same sockets takes nothing from the pool.
#[test]
fn what_was_read_elsewhere_is_not_missed() {
    watched(|| {
        let pool = BufferPool::incremental(2, 64).unwrap();
        let (held, seen) = (Log::new(), Log::new());
        let (mut client, server) = tcp_pair();
        let mut rival = server.try_clone().unwrap();
        rival.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        let mut ring = Bench::with(8, holding(vec![Receiver::new(server, &pool)], &held, &seen));
        let mut sum = 0;
        for round in 0..200_usize {
            client.write_all(&[7; 9]).unwrap();
            sum += 9;
            let mut some = [0; 4];
            if round % 2 == 0
                && let Ok(bytes) = rival.read(&mut some)
            {
                sum -= bytes;
            }
            ring.turn().unwrap();
            assert!(held.take().iter().all(|piece| {
                sum -= piece.len();
                piece.iter().all(|byte| *byte == 7)
            }));
        }
        drop((client, rival));
        ring.run().unwrap();
        sum -= held.take().iter().map(|piece| piece.len()).sum::<usize>();
        assert_eq!(sum, 0);
    });
}
