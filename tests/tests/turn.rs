//! A ring inside another event loop: `turn` does not wait, and the ring's descriptor says when there is
//! something to do.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::num::NonZeroU32;
use std::os::fd::{AsFd, AsRawFd, IntoRawFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Interest, Token};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use rummelplatz::io_uring::types::Fd;
use rummelplatz::io_uring::{IoUring, opcode};
use rummelplatz::request::Request;
use rummelplatz::{Buffer, BufferPool, Completion, ControlFlow, RawRing, RingError, Status, Stream, request};
use rummelplatz_tests::{
    Bench, BenchSubmitter, Ledger, Log, Outcome, Script, Tracked, forbid, in_child, outcome, pipe, tcp_pair,
    watched,
};

const RING: u64 = 1;
const OTHER: u64 = 2;

/// Another event loop.
struct Loop {
    epoll: Epoll,
}

impl Loop {
    fn new(ring: &impl AsFd) -> Loop {
        let this = Loop { epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap() };
        this.watch(ring, RING);
        this
    }

    fn watch(&self, descriptor: &impl AsFd, name: u64) {
        self.epoll.add(descriptor, EpollEvent::new(EpollFlags::EPOLLIN, name)).unwrap();
    }

    /// Waits until a descriptor is readable, or this time is over. Returns which ones are.
    fn wait(&self, time: Option<Duration>) -> Vec<u64> {
        let timeout = match time {
            None => EpollTimeout::NONE,
            Some(time) => EpollTimeout::try_from(time.as_micros().div_ceil(1000) as u32).unwrap(),
        };
        let mut events = [EpollEvent::empty(); 4];
        loop {
            match self.epoll.wait(&mut events, timeout) {
                Ok(count) => return events[..count].iter().map(EpollEvent::data).collect(),
                // Task work interrupts system calls, for example that of a ring that was just closed.
                Err(Errno::EINTR) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn is_readable(&self) -> bool {
        !self.wait(Some(Duration::ZERO)).is_empty()
    }

    /// Turns the ring whenever it asks for it, until `done`. Returns the number of turns.
    fn drive<D: Send>(&self, ring: &mut Bench<D>, mut done: impl FnMut(&Bench<D>) -> bool) -> usize {
        let mut turns = 0;
        while !done(ring) {
            let progress = ring.turn().unwrap();
            turns += 1;
            if !done(ring) && progress.call_again_in != Some(Duration::ZERO) {
                assert!(!progress.is_finished(), "finished too early");
                self.wait(progress.call_again_in);
            }
        }
        turns
    }

    /// Turns the ring until it asks for no more turns, which must be soon. Returns its last answer.
    fn calm<D: Send>(&self, ring: &mut Bench<D>) -> Status {
        for _ in 0..4 {
            let progress = ring.turn().unwrap();
            if progress.call_again_in.is_none() && !self.is_readable() {
                return progress.status;
            }
        }
        panic!("nothing is left to do, and yet the loop would spin");
    }

    /// Turns the ring until it has finished. Returns the number of turns.
    fn drive_to_the_end<D: Send>(&self, ring: &mut Bench<D>) -> usize {
        for turns in 1.. {
            let progress = ring.turn().unwrap();
            if progress.is_finished() {
                return turns;
            }
            if progress.call_again_in != Some(Duration::ZERO) {
                self.wait(progress.call_again_in);
            }
        }
        unreachable!("that is a lot of turns");
    }
}

struct Pipe {
    reader: OwnedFd,
    bytes: [u8; 16],
}

impl Pipe {
    fn read(&mut self) -> Request<'_> {
        request::read(&self.reader, &mut self.bytes)
    }
}

/// A ring that reads from a pipe until its end and logs what it reads, and the pipe's other end.
fn reading(log: &Log<String>) -> (Script<Pipe>, std::fs::File) {
    let (reader, writer) = pipe();
    let log = log.clone();
    let script = Script::new()
        .on_setup_once(|mut submitter| {
            submitter.submit(Pipe { reader, bytes: [0; 16] }, Pipe::read)?;
            Ok(())
        })
        .on_completion(move |completion, pipe, mut submitter| {
            let length = completion.result().unwrap() as usize;
            log.push(String::from_utf8_lossy(&pipe.bytes[..length]).into_owned());
            if length > 0 {
                submitter.submit(pipe, Pipe::read).unwrap();
            }
            (ControlFlow::Continue, None)
        });
    (script, writer.into())
}

// ---- the descriptor ---------------------------------------------------------------------------

#[test]
fn the_descriptor_is_readable_exactly_when_a_turn_can_progress() {
    watched(|| {
        let log = Log::new();
        let (script, mut writer) = reading(&log);
        let mut ring = Bench::with(8, script);
        let outside = Loop::new(&ring);
        assert!(!outside.is_readable());
        let progress = ring.turn().unwrap();
        assert_eq!((progress.status, progress.call_again_in), (Status::Waiting, None));
        for round in 0..20 {
            assert!(!outside.is_readable(), "in round {round}");
            write!(writer, "{round}").unwrap();
            assert_eq!(outside.wait(None), [RING]);
            assert_eq!(ring.turn().unwrap().status, Status::Progressed);
            assert_eq!(log.take(), [round.to_string()]);
            outside.calm(&mut ring);
        }
        drop(writer);
        outside.drive(&mut ring, |_| log.len() == 1);
        assert_eq!(outside.calm(&mut ring), Status::Idle);
    });
}

/// More NOPs than the queue has room for, each of which is submitted again: so handlers enter the kernel, and then
/// there are more completions.
fn endless(counted: Arc<AtomicUsize>) -> Script<()> {
    let again = |submitter: &mut BenchSubmitter<'_, ()>| submitter.submit((), |()| request::nop()).map(drop);
    let late = counted.clone();
    Script::new()
        .on_setup(move |mut submitter| Ok((0..8).try_for_each(|_| again(&mut submitter))?))
        .on_completion(move |completion, (), mut submitter| {
            completion.result().unwrap();
            counted.fetch_add(1, Ordering::Relaxed);
            again(&mut submitter).unwrap();
            (ControlFlow::Continue, None)
        })
        .on_teardown(move |_, (), mut submitter| {
            late.fetch_add(1, Ordering::Relaxed);
            again(&mut submitter).ok();
            Ok(())
        })
}

#[test]
fn a_turn_and_a_teardown_end_though_there_are_always_more_completions() {
    watched(|| {
        for defer in [true, false] {
            let counted = Arc::new(AtomicUsize::new(0));
            let mut ring = Bench::builder(endless(counted.clone()), Script::new())
                .entries(NonZeroU32::new(4).unwrap())
                .defer_taskrun(defer)
                .grace(Duration::from_millis(20))
                .build()
                .unwrap();
            for _ in 0..3 {
                let before = counted.load(Ordering::Relaxed);
                let progress = ring.turn().unwrap();
                assert_eq!(progress.status, Status::Progressed);
                assert_eq!(progress.call_again_in, Some(Duration::ZERO));
                assert!(counted.load(Ordering::Relaxed) > before);
            }
            let before = counted.load(Ordering::Relaxed);
            ring.finish().unwrap();
            assert!(counted.load(Ordering::Relaxed) >= before + 8, "all of them have ended");
        }
    });
}

/// Streams that wait for a buffer go on, although the loop never has to wait.
#[test]
fn what_else_is_to_be_done_is_done_though_there_are_always_more_completions() {
    watched(|| {
        let pool = BufferPool::new(1, 8).unwrap();
        let (ours, mut theirs) = tcp_pair();
        theirs.write_all(b"12345678 and more").unwrap();
        theirs.shutdown(Shutdown::Write).unwrap();
        let received = Log::new();
        let log = received.clone();
        let mut kept: Option<Buffer> = None;
        let receiving = Script::new()
            .on_setup_once(move |mut submitter| {
                submitter.stream(Some((ours, pool)), |it| {
                    let Some((socket, pool)) = it else { unreachable!("only this one is a stream") };
                    request::recv_multi(&*socket, pool)
                })?;
                (0..8).try_for_each(|_| submitter.submit(None, |_| request::nop()).map(drop))?;
                Ok(())
            })
            .on_completion(move |completion, data, mut submitter| {
                let Some(receiver) = data else {
                    // One buffer is kept until the stream has missed it.
                    drop(kept.take());
                    submitter.submit(None, |_| request::nop()).unwrap();
                    return (ControlFlow::Continue, None);
                };
                if !completion.more() {
                    return (ControlFlow::Exit, None);
                }
                if let Ok(buffer) = completion.into_buffer() {
                    log.push(buffer.len());
                    kept = Some(buffer);
                }
                (ControlFlow::Continue, Some(Some(receiver)))
            });
        let entries = NonZeroU32::new(4).unwrap();
        let mut ring = Bench::builder(receiving, Script::new()).entries(entries).build().unwrap();
        ring.run().unwrap();
        assert_eq!(received.take().into_iter().sum::<usize>(), 17);
    });
}

#[test]
fn a_ring_lies_elsewhere_at_each_turn() {
    watched(|| {
        let log = Log::new();
        let (script, mut writer) = reading(&log);
        let mut ring = Bench::with(8, script);
        let outside = Loop::new(&ring);
        ring.turn().unwrap();
        for round in 0..20 {
            // The kernel has not taken the entry in: it reads the time at the address that the time had while the ring
            // lay there.
            let (reader, _writer) = pipe();
            let timed = Pipe { reader, bytes: [0; 16] };
            let time = Duration::from_millis(1);
            ring.submitter(Bench::FIRST).submit(timed, |_| request::timeout(time)).unwrap();
            let mut elsewhere = Box::new(ring);
            write!(writer, "{round}").unwrap();
            outside.drive(&mut elsewhere, |_| log.len() == 2);
            let mut told = log.take();
            told.sort();
            assert_eq!(told, [String::new(), round.to_string()]);
            ring = *elsewhere;
        }
        assert_eq!(ring.stats().in_flight, 1);
    });
}

#[test]
fn what_a_handler_submits_in_a_turn_reaches_the_kernel_without_another_reason_to_turn() {
    watched(|| {
        let log = Log::new();
        let ticks = log.clone();
        let script = Script::new()
            .on_setup_once(|mut submitter| {
                submitter.submit(1, |_| request::timeout(Duration::from_millis(1)))?;
                Ok(())
            })
            .on_completion(move |_, tick, mut submitter| {
                ticks.push(tick);
                if tick < 20 {
                    let submitted =
                        submitter.submit(tick + 1, |_| request::timeout(Duration::from_millis(1)));
                    submitted.unwrap();
                }
                (ControlFlow::Continue, None)
            });
        let mut ring = Bench::with(8, script);
        let outside = Loop::new(&ring);
        let turns = outside.drive(&mut ring, |_| log.len() == 20);
        assert!(turns <= 100, "{turns} turns for twenty ticks");
    });
}

#[test]
fn a_backlog_is_worked_off_by_turns() {
    watched(|| {
        let log = Log::new();
        let done = log.clone();
        let script = Script::new()
            .on_setup_once(|mut submitter| {
                for number in 0..1000 {
                    submitter.submit(number, |_| request::nop())?;
                }
                Ok(())
            })
            .on_completion(move |_, number, _| {
                done.push(number);
                (ControlFlow::Continue, None)
            });
        let four = NonZeroU32::new(4).unwrap();
        let mut ring =
            Bench::builder(script, Script::new()).entries(four).completion_entries(four).build().unwrap();
        let outside = Loop::new(&ring);
        outside.drive(&mut ring, |_| log.len() == 1000);
        assert_eq!(log.take(), (0..1000).collect::<Vec<_>>());
    });
}

#[test]
fn a_stream_that_is_cut_goes_on_in_turns() {
    watched(|| {
        let listener = Arc::new(TcpListener::bind("127.0.0.1:0").unwrap());
        let address = listener.local_addr().unwrap();
        let clients: Vec<_> = (0..60).map(|_| TcpStream::connect(address).unwrap()).collect();
        let log = Log::new();
        let accepted = log.clone();
        let script = Script::new()
            .on_setup_once(|mut submitter| {
                submitter.stream(listener, |listener| request::accept_multi(listener))?;
                Ok(())
            })
            .on_completion(move |completion, listener, _| {
                accepted.push(completion.into_fd().unwrap());
                (ControlFlow::Continue, Some(listener))
            });
        let four = NonZeroU32::new(4).unwrap();
        let mut ring =
            Bench::builder(script, Script::new()).entries(four).completion_entries(four).build().unwrap();
        let outside = Loop::new(&ring);
        outside.drive(&mut ring, |_| log.len() == 60);
        // And none of them was the last: the acceptor still listens.
        let last = TcpStream::connect(address).unwrap();
        outside.drive(&mut ring, |_| log.len() == 61);
        ring.finish().unwrap();
        drop((clients, last));
    });
}

struct Receiver {
    socket: TcpStream,
    pool: BufferPool,
}

#[test]
fn a_buffer_that_comes_back_between_two_turns_makes_the_descriptor_readable() {
    watched(|| {
        for from_another_thread in [false, true] {
            let (mut client, socket) = tcp_pair();
            client.write_all(b"12345678").unwrap();
            let pool = BufferPool::new(1, 1).unwrap();
            let receiver = Receiver { socket, pool: pool.clone() };
            let (buffers, starved) = (Log::<Buffer>::new(), Log::new());
            let (held, told) = (buffers.clone(), starved.clone());
            let script = Script::new()
                .on_setup_once(|mut submitter| {
                    submitter.stream(receiver, |it| request::recv_multi(&it.socket, &it.pool))?;
                    Ok(())
                })
                .on_completion(move |completion, receiver, _| {
                    match completion.into_buffer() {
                        Ok(buffer) => held.push(buffer),
                        Err(_) => told.push(()),
                    }
                    (ControlFlow::Continue, Some(receiver))
                });
            let mut ring = Bench::with(8, script);
            let outside = Loop::new(&ring);
            for expected in b"1234567" {
                let mut again = Some(Duration::ZERO);
                while buffers.is_empty() || starved.is_empty() || again == Some(Duration::ZERO) {
                    if again != Some(Duration::ZERO) {
                        outside.wait(again);
                    }
                    again = ring.turn().unwrap().call_again_in;
                }
                starved.take();
                let buffer = buffers.take().pop().unwrap();
                assert_eq!(*buffer, [*expected]);
                // The loop is about to wait, with no turn in between.
                match from_another_thread {
                    true => thread::spawn(move || drop(buffer)).join().unwrap(),
                    false => drop(buffer),
                }
                assert_eq!(outside.wait(None), [RING]);
            }
            ring.finish().unwrap();
            assert_eq!(pool.available(), 1);
        }
    });
}

// ---- a whole echo -----------------------------------------------------------------------------

struct Peer {
    socket: TcpStream,
    bytes: Box<[u8]>,
    /// What is to be sent; empty while receiving.
    sending: std::ops::Range<usize>,
}

impl Peer {
    fn request(&mut self) -> Request<'_> {
        match self.sending.is_empty() {
            true => request::recv(&self.socket, &mut self.bytes),
            false => request::send(&self.socket, &self.bytes[self.sending.clone()]),
        }
    }

    fn on_completion(
        completion: Completion,
        mut peer: Peer,
        mut submitter: BenchSubmitter<'_, Peer>,
    ) -> Outcome<Peer> {
        let count = completion.result().unwrap() as usize;
        match peer.sending.is_empty() {
            true if count == 0 => return (ControlFlow::Continue, None),
            true => peer.sending = 0..count,
            false => peer.sending.start += count,
        }
        submitter.submit(peer, Peer::request).unwrap();
        (ControlFlow::Continue, None)
    }
}

/// A ring that echoes to `count` clients. They are served when `served` has that many messages.
fn echo(count: usize) -> (Bench<Peer>, mpsc::Receiver<()>) {
    let (clients, sockets): (Vec<_>, Vec<_>) = (0..count).map(|_| tcp_pair()).unzip();
    let (tell, served) = mpsc::channel();
    sockets.iter().for_each(|socket: &TcpStream| socket.set_nodelay(true).unwrap());
    for (number, mut client) in clients.into_iter().enumerate() {
        client.set_nodelay(true).unwrap();
        let tell = tell.clone();
        thread::spawn(move || {
            for round in 0..50 {
                let sent = vec![(number + round) as u8; 1 + 37 * round];
                client.write_all(&sent).unwrap();
                let mut back = vec![0; sent.len()];
                client.read_exact(&mut back).unwrap();
                assert!(back == sent);
            }
            client.shutdown(Shutdown::Write).unwrap();
            assert_eq!(client.read(&mut [0]).unwrap(), 0);
            tell.send(()).unwrap();
        });
    }
    let script = Script::new()
        .on_setup_once(|mut submitter| {
            for socket in sockets {
                let peer = Peer { socket, bytes: vec![0; 512].into(), sending: 0..0 };
                submitter.submit(peer, Peer::request)?;
            }
            Ok(())
        })
        .on_completion(Peer::on_completion);
    (Bench::with(8, script), served)
}

#[test]
fn an_echo_is_served_inside_epoll_next_to_another_descriptor() {
    watched(|| {
        const CLIENTS: usize = 10;
        let (mut ring, served) = echo(CLIENTS);
        let (reader, writer) = pipe();
        let (mut reader, mut writer) = (std::fs::File::from(reader), std::fs::File::from(writer));
        let outside = Loop::new(&ring);
        outside.watch(&reader, OTHER);
        let others = thread::spawn(move || {
            for _ in 0..CLIENTS {
                served.recv().unwrap();
                writer.write_all(b".").unwrap();
            }
        });
        let (mut dots, mut again) = (0, Some(Duration::ZERO));
        while dots < CLIENTS {
            let ready = outside.wait(again);
            if ready.contains(&OTHER) {
                dots += reader.read(&mut [0; 16]).unwrap();
            }
            if ready.contains(&RING) || again.is_some() {
                let progress = ring.turn().unwrap();
                assert!(!progress.is_finished());
                again = progress.call_again_in;
            }
        }
        others.join().unwrap();
        outside.drive(&mut ring, |ring| ring.stats().in_flight == 0);
        assert_eq!(ring.turn().unwrap().status, Status::Idle);
        ring.finish().unwrap();
    });
}

#[test]
fn an_echo_is_served_inside_mio_whose_epoll_tells_of_changes_only() {
    watched(|| {
        const CLIENTS: usize = 10;
        let (mut ring, served) = echo(CLIENTS);
        let mut poll = mio::Poll::new().unwrap();
        let descriptor = ring.as_raw_fd();
        poll.registry().register(&mut SourceFd(&descriptor), Token(0), Interest::READABLE).unwrap();
        let waker = mio::Waker::new(poll.registry(), Token(1)).unwrap();
        let others = thread::spawn(move || {
            for _ in 0..CLIENTS {
                served.recv().unwrap();
            }
            waker.wake().unwrap();
            // If it were closed before the loop has looked, its event would be gone, too.
            waker
        });
        let (mut events, mut done) = (mio::Events::with_capacity(8), false);
        let mut again = Some(Duration::ZERO);
        while !done {
            match poll.poll(&mut events, again) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                polled => polled.unwrap(),
            }
            done = events.iter().any(|event| event.token() == Token(1));
            again = ring.turn().unwrap().call_again_in;
        }
        drop(others.join().unwrap());
        ring.finish().unwrap();
        assert_eq!(ring.stats().in_flight, 0);
    });
}

#[test]
fn a_ring_without_any_setup_flags_turns_as_well() {
    watched(|| {
        let ring = IoUring::new(8).unwrap();
        // SAFETY: it was just made, so nothing is in flight in it, and nobody else has it.
        let raw = unsafe { RawRing::from_io_uring(ring) }.unwrap();
        let log = Log::new();
        let (script, mut writer) = reading(&log);
        let mut ring = Bench::new(raw, None, script, Script::new());
        let outside = Loop::new(&ring);
        for round in 0..10 {
            writer.write_all(b"hello").unwrap();
            outside.drive(&mut ring, |_| log.len() == round + 1);
        }
        drop(writer);
        outside.drive(&mut ring, |_| log.len() == 11);
        assert_eq!(ring.turn().unwrap().status, Status::Idle);
        ring.finish().unwrap();
    });
}

// ---- what a turn says -------------------------------------------------------------------------

#[test]
fn setup_runs_at_the_first_turn_and_only_then() {
    watched(|| {
        let log = Log::new();
        let setups = log.clone();
        let script = Script::<()>::new().on_setup(move |_| {
            setups.push(());
            Ok(())
        });
        let mut ring = Bench::with(8, script);
        assert_eq!(log.len(), 0);
        for _ in 0..5 {
            assert_eq!(ring.turn().unwrap().status, Status::Idle);
            assert_eq!(log.len(), 1);
        }
    });
}

#[test]
fn an_idle_ring_can_be_fed_through_a_submitter() {
    watched(|| {
        let log = Log::new();
        let done = log.clone();
        let script = Script::new().on_completion(move |completion, data, _| {
            done.push((completion.is_message(), data));
            (ControlFlow::Continue, None)
        });
        let mut ring = Bench::with(8, script);
        let outside = Loop::new(&ring);
        for round in 0..5 {
            let progress = ring.turn().unwrap();
            assert!(progress.is_idle() && !progress.is_finished());
            assert_eq!(progress.call_again_in, None);
            ring.submitter(Bench::FIRST).submit(round, |_| request::nop()).unwrap();
            assert_eq!(ring.stats().in_flight, 1);
            // The one who submits from outside already knows it: the next turn is up to him.
            assert_eq!(ring.turn().unwrap().status, Status::Progressed);
            assert_eq!(log.take(), [(false, round)]);
            ring.submitter(Bench::FIRST).post(round).unwrap();
            assert_eq!(ring.turn().unwrap().status, Status::Progressed);
            assert_eq!(log.take(), [(true, round)]);
        }
        assert_eq!(outside.calm(&mut ring), Status::Idle);
    });
}

/// Logs the data of what completes.
fn logging(log: &Log<i32>) -> Script<i32> {
    let log = log.clone();
    Script::new().on_completion(move |_, data, _| {
        log.push(data);
        (ControlFlow::Continue, None)
    })
}

#[test]
fn an_idle_ring_is_woken_by_a_handle_and_does_not_keep_its_loop_busy() {
    watched(|| {
        let log = Log::new();
        let mut ring = Bench::with(8, logging(&log));
        let outside = Loop::new(&ring);
        let handle = ring.handle();
        ring.turn().unwrap();
        for round in 0..50 {
            let sender = handle.clone();
            let other = thread::spawn(move || sender.send(Bench::FIRST, round).unwrap());
            let turns = outside.drive(&mut ring, |_| log.len() == 1);
            assert!(turns < 20, "{turns} turns for one message");
            assert_eq!(log.take(), [round]);
            other.join().unwrap();
        }
        drop(handle);
        // The wake-up of the last message or of the drop may come after its message.
        assert_eq!(outside.calm(&mut ring), Status::Idle);
        ring.finish().unwrap();
    });
}

#[test]
fn a_handle_that_is_taken_between_two_turns_wakes_the_ring() {
    watched(|| {
        let log = Log::new();
        let mut ring = Bench::with(8, logging(&log));
        let outside = Loop::new(&ring);
        ring.turn().unwrap();
        let handle = ring.handle();
        thread::spawn(move || handle.send(Bench::FIRST, 7).unwrap()).join().unwrap();
        outside.drive(&mut ring, |_| log.len() == 1);
        assert_eq!(log.take(), [7]);
        ring.finish().unwrap();
    });
}

#[test]
fn a_turn_that_has_emptied_a_full_queue_leaves_room_for_what_comes_next() {
    watched(|| {
        for defer in [false, true] {
            let log = Log::new();
            let seen = log.clone();
            let script = Script::new().on_completion(move |completion, _, _| {
                seen.push(outcome(&completion));
                (ControlFlow::Continue, None)
            });
            // Of 16 completions.
            let builder = Bench::builder(script, Script::new()).entries(NonZeroU32::new(4).unwrap());
            let mut ring = builder.defer_taskrun(defer).build().unwrap();
            let mut writers = Vec::new();
            for _ in 0..17 {
                let (reader, writer) = pipe();
                ring.submitter(Bench::FIRST).submit(Pipe { reader, bytes: [0; 16] }, Pipe::read).unwrap();
                writers.push(std::fs::File::from(writer));
            }
            let outside = Loop::new(&ring);
            outside.calm(&mut ring);
            for writer in &mut writers[..16] {
                writer.write_all(b"x").unwrap();
            }
            outside.drive(&mut ring, |_| log.len() == 16);
            outside.calm(&mut ring);
            writers[16].write_all(b"x").unwrap();
            outside.drive(&mut ring, |_| log.len() == 17);
            ring.finish().unwrap();
        }
    });
}

#[test]
fn a_raw_entry_that_nobody_tracks_leaves_the_descriptor_quiet() {
    watched(|| {
        let mut ring = Bench::<()>::with(8, Script::new());
        let outside = Loop::new(&ring);
        let (reader, writer) = pipe();
        let descriptor = Fd(reader.into_raw_fd());
        let entry = opcode::PollAdd::new(descriptor, libc::POLLIN as u32).build();
        // SAFETY: it points to nothing, and its descriptor is never closed.
        unsafe { ring.submitter(Bench::FIRST).push_raw(entry) }.unwrap();
        outside.calm(&mut ring);
        std::fs::File::from(writer).write_all(b"x").unwrap();
        assert_eq!(outside.wait(None), [RING]);
        assert_eq!(outside.calm(&mut ring), Status::Idle);
        assert_eq!(ring.stats().foreign, 0);
    });
}

#[test]
fn turns_without_anything_to_do_call_nobody() {
    watched(|| {
        let log = Log::new();
        let (script, _writer) = reading(&log);
        let mut ring = Bench::with(8, script);
        for _ in 0..100 {
            let progress = ring.turn().unwrap();
            assert_eq!((progress.status, progress.call_again_in), (Status::Waiting, None));
            assert_eq!(ring.stats().in_flight, 1);
        }
        assert!(log.is_empty());
    });
}

/// Otherwise, whoever waits for the ring's descriptor would wait for ever.
#[test]
fn after_the_last_request_a_turn_says_that_the_ring_is_idle_or_asks_for_another() {
    watched(|| {
        let mut ring = Bench::with(8, Script::new());
        let outside = Loop::new(&ring);
        for number in 0..3 {
            ring.submitter(Bench::FIRST).submit(number, |_| request::nop()).unwrap();
            let progress = ring.turn().unwrap();
            assert_eq!((progress.status, ring.stats().in_flight), (Status::Progressed, 0));
            assert_eq!(progress.call_again_in, Some(Duration::ZERO));
            ring.submitter(Bench::FIRST)
                .submit(number, |_| request::timeout(Duration::from_millis(1)))
                .unwrap();
            outside.drive(&mut ring, |ring| ring.stats().in_flight == 0);
            assert_eq!(outside.calm(&mut ring), Status::Idle);
        }
    });
}

/// A kernel worker may have seen that there was no room, and report it only later.
#[test]
fn after_a_full_queue_of_completions_the_ring_is_looked_at_once_more() {
    watched(|| {
        for (count, again) in [(3, None), (4, Some(Duration::from_millis(1)))] {
            let entries = NonZeroU32::new(4).unwrap();
            let builder = Bench::<()>::builder(Script::new(), Script::new()).defer_taskrun(false);
            let mut ring = builder.entries(entries).completion_entries(entries).build().unwrap();
            ring.submitter(Bench::FIRST).submit((), |()| request::timeout(Duration::MAX)).unwrap();
            ring.turn().unwrap();
            for _ in 0..count {
                ring.submitter(Bench::FIRST).submit((), |()| request::nop()).unwrap();
            }
            let progress = ring.turn().unwrap();
            assert_eq!((progress.status, progress.call_again_in), (Status::Progressed, again), "{count}");
            assert_eq!(ring.turn().unwrap().call_again_in, None);
        }
    });
}

#[test]
fn a_turn_whose_last_submit_fails_is_followed_by_one_that_says_so() {
    in_child(|| {
        let ledger = Ledger::new();
        let script = Script::new().on_completion(move |_, _, mut submitter| {
            forbid(libc::SYS_io_uring_enter, libc::EPERM);
            submitter.submit(ledger.issue(()), |_| request::nop()).unwrap();
            (ControlFlow::Continue, None)
        });
        let mut ring = Bench::with(8, script);
        ring.submitter(Bench::FIRST).submit(ledger.issue(()), |_| request::nop()).unwrap();
        let progress = ring.turn().unwrap();
        assert_eq!(progress.status, Status::Progressed);
        assert!(progress.call_again_in.is_some(), "nothing else would tell");
        let error = loop {
            match ring.turn() {
                Ok(progress) => assert!(progress.call_again_in.is_some()),
                Err(error) => break error,
            }
        };
        let stuck = error.abandoned().expect("the entry was shown to the kernel");
        assert_eq!((stuck.errno, stuck.requests.len()), (Some(libc::EPERM), 1));
        drop(ring);
        assert_eq!(ledger.alive(), 1);
    });
}

// ---- the end ----------------------------------------------------------------------------------

#[test]
fn an_exit_is_followed_by_turns_that_do_not_wait_until_the_ring_has_finished() {
    watched(|| {
        let (ledger, log) = (Ledger::new(), Log::new());
        let ended = log.clone();
        let script = Script::new()
            .on_setup_once(move |mut submitter| {
                for number in 0..100 {
                    let data = ledger.issue(number);
                    submitter.submit(data, |_| request::timeout(Duration::from_secs(1000)))?;
                }
                submitter.submit(ledger.issue(100), |_| request::nop())?;
                Ok(())
            })
            .on_completion(|_, data, _| {
                assert_eq!(*data, 100);
                (ControlFlow::Exit, None)
            })
            .on_teardown(move |completion, data, _| {
                assert_eq!(outcome(&completion), Err(libc::ECANCELED));
                ended.push(*data);
                Ok(())
            });
        let mut ring = Bench::with(16, script);
        let outside = Loop::new(&ring);
        let turns = outside.drive_to_the_end(&mut ring);
        assert!(turns < 500, "{turns} turns");
        let mut ended = log.take();
        ended.sort_unstable();
        assert_eq!(ended, (0..100).collect::<Vec<_>>());
        ledger.assert_all_dropped_once();
        for _ in 0..5 {
            let progress = ring.turn().unwrap();
            assert_eq!((progress.status, progress.call_again_in), (Status::Finished, None));
        }
    });
}

#[test]
fn a_teardown_that_must_wait_says_for_how_long_and_does_not_spin() {
    watched(|| {
        let log = Log::new();
        let ended = log.clone();
        let script = Script::new()
            .on_setup_once(|mut submitter| {
                submitter.submit(0, |_| request::timeout(Duration::from_secs(1000)))?;
                submitter.submit(1, |_| request::nop())?;
                Ok(())
            })
            .on_completion(|_, _, _| (ControlFlow::Exit, None))
            .on_teardown(move |completion, data, mut submitter| {
                ended.push((data, outcome(&completion)));
                if data == 0 {
                    // One that ends in time by itself, and one that has to be cancelled.
                    submitter.submit(2, |_| request::timeout(Duration::from_millis(5)))?;
                    submitter.submit(3, |_| request::timeout(Duration::from_secs(1000)))?;
                }
                Ok(())
            });
        let mut ring = Bench::builder(script, Script::new())
            .entries(NonZeroU32::new(8).unwrap())
            .grace(Duration::from_millis(100))
            .build()
            .unwrap();
        let outside = Loop::new(&ring);
        let turns = outside.drive_to_the_end(&mut ring);
        assert!(turns < 300, "{turns} turns in a tenth of a second: it spins");
        let cancelled = Err(libc::ECANCELED);
        assert_eq!(log.take(), [(0, cancelled), (2, Ok(0)), (3, cancelled)]);
    });
}

#[test]
fn finish_ends_a_ring_that_was_turned() {
    watched(|| {
        let log = Log::new();
        let ended = log.clone();
        let (script, _writer) = reading(&Log::new());
        let script = script.on_teardown(move |completion, _, _| {
            ended.push(outcome(&completion));
            Ok(())
        });
        let mut ring = Bench::with(8, script);
        ring.turn().unwrap();
        ring.finish().unwrap();
        assert_eq!(log.take(), [Err(libc::ECANCELED)]);
        assert_eq!(ring.stats().in_flight, 0);
        ring.finish().unwrap();
        assert!(ring.turn().unwrap().is_finished());
        assert!(log.is_empty());
    });
}

#[test]
fn finish_of_a_ring_with_nothing_to_do_does_nothing() {
    watched(|| {
        let log = Log::new();
        let setups = log.clone();
        let script = Script::<()>::new().on_setup(move |_| {
            setups.push(());
            Ok(())
        });
        let mut ring = Bench::with(8, script);
        ring.finish().unwrap();
        assert_eq!(log.len(), 0, "never run, so never set up");
        ring.turn().unwrap();
        ring.finish().unwrap();
        ring.finish().unwrap();
        assert_eq!(log.len(), 1);
    });
}

#[test]
fn finish_before_a_run_hands_what_was_submitted_to_the_teardown() {
    watched(|| {
        let (ledger, log) = (Ledger::new(), Log::new());
        let ended = log.clone();
        let script = Script::new().on_teardown(move |completion, data: Tracked<u32>, _| {
            ended.push((*data, completion.is_message()));
            Ok(())
        });
        let mut ring = Bench::with(8, script);
        let mut submitter = ring.submitter(Bench::FIRST);
        submitter.submit(ledger.issue(1), |_| request::timeout(Duration::from_secs(1000))).unwrap();
        submitter.post(ledger.issue(2)).unwrap();
        ring.finish().unwrap();
        let mut ended = log.take();
        ended.sort_unstable();
        assert_eq!(ended, [(1, false), (2, true)]);
        assert_eq!(ring.stats().in_flight, 0);
        ledger.assert_all_dropped_once();
    });
}

#[test]
fn finish_during_a_teardown_by_turns_waits_for_the_rest() {
    watched(|| {
        let log = Log::new();
        let ended = log.clone();
        let script = Script::new()
            .on_setup_once(|mut submitter| {
                for number in 0..20 {
                    submitter.submit(number, |_| request::timeout(Duration::from_secs(1000)))?;
                }
                submitter.submit(20, |_| request::nop())?;
                Ok(())
            })
            .on_completion(|_, _, _| (ControlFlow::Exit, None))
            .on_teardown(move |_, data, _| {
                ended.push(data);
                Ok(())
            });
        let mut ring = Bench::with(64, script);
        assert_eq!(ring.turn().unwrap().status, Status::Progressed);
        assert!(log.len() < 20);
        ring.finish().unwrap();
        assert_eq!(log.len(), 20);
    });
}

#[test]
fn a_run_after_turns_goes_on_where_they_were() {
    watched(|| {
        let (log, setups) = (Log::new(), Log::new());
        let (script, mut writer) = reading(&log);
        let count = setups.clone();
        let second = Script::new().on_setup(move |_| {
            count.push(());
            Ok(())
        });
        let mut ring = Bench::builder(script, second).build().unwrap();
        ring.turn().unwrap();
        assert_eq!(setups.len(), 1);
        writer.write_all(b"hello").unwrap();
        drop(writer);
        ring.run().unwrap();
        assert_eq!(log.take(), ["hello", ""]);
        assert_eq!(setups.len(), 1, "it is the same run");
        ring.run().unwrap();
        assert_eq!(setups.len(), 2, "this is another");
        assert!(ring.turn().unwrap().is_finished(), "and turns don't begin a third");
        assert_eq!(setups.len(), 2);
    });
}

#[test]
fn what_is_submitted_to_a_finished_ring_waits_for_its_next_run() {
    watched(|| {
        let (ledger, log) = (Ledger::new(), Log::new());
        let done = log.clone();
        let script = Script::new().on_completion(move |_, data: Tracked<u32>, _| {
            done.push(*data);
            (ControlFlow::Continue, None)
        });
        let mut ring = Bench::with(8, script);
        ring.run().unwrap();
        ring.submitter(Bench::FIRST).submit(ledger.issue(7), |_| request::nop()).unwrap();
        assert!(ring.turn().unwrap().is_finished());
        assert_eq!((log.len(), ring.stats().in_flight), (0, 1));
        ring.run().unwrap();
        assert_eq!(log.take(), [7]);
        ledger.assert_all_dropped_once();
    });
}

#[test]
fn an_alarm_that_goes_off_after_the_end_does_not_keep_the_loop_busy() {
    watched(|| {
        let script = Script::new().on_completion(|_, (), _| (ControlFlow::Exit, None));
        let mut ring = Bench::with(8, script);
        let outside = Loop::new(&ring);
        ring.submitter(Bench::FIRST)
            .submit((), |()| request::nop().deadline(Duration::from_millis(50)))
            .unwrap();
        outside.drive_to_the_end(&mut ring);
        assert_eq!(outside.wait(None), [RING]);
        assert!(ring.turn().unwrap().is_finished());
        assert!(!outside.is_readable());
    });
}

#[test]
fn a_turn_returns_the_error_of_a_handler_when_the_ring_has_finished() {
    watched(|| {
        let log = Log::new();
        let ended = log.clone();
        let script = Script::new()
            .on_setup_once(|mut submitter| {
                submitter.submit(0, |_| request::timeout(Duration::from_secs(1000)))?;
                submitter.submit(1, |_| request::nop())?;
                Ok(())
            })
            .on_completion(|_, _, _| (ControlFlow::Error("broken".into()), None))
            .on_teardown(move |_, data, _| {
                ended.push(data);
                Err("also broken".into())
            });
        let mut ring = Bench::with(8, script);
        let outside = Loop::new(&ring);
        let error = loop {
            match ring.turn() {
                Ok(progress) if progress.call_again_in == Some(Duration::ZERO) => {}
                Ok(progress) => drop(outside.wait(progress.call_again_in)),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, RingError::Completion(_)), "{error}");
        assert_eq!(error.teardown_errors().len(), 1);
        let text = error.to_string();
        assert!(text.contains("broken") && text.contains("also broken"), "{text}");
        assert_eq!(log.take(), [0]);
        assert!(ring.turn().unwrap().is_finished(), "the error is told once");
    });
}

#[test]
fn a_turn_returns_the_error_of_a_setup() {
    watched(|| {
        let log = Log::new();
        let ended = log.clone();
        let script = Script::new()
            .on_setup(|mut submitter: BenchSubmitter<'_, Box<[u8]>>| {
                submitter.submit(Box::default(), |_| request::timeout(Duration::from_secs(1000)))?;
                Err("not today".into())
            })
            .on_teardown(move |completion, _, _| {
                ended.push(outcome(&completion));
                Ok(())
            });
        let mut ring = Bench::with(8, script);
        let error = loop {
            match ring.turn() {
                Ok(progress) => assert!(!progress.is_finished()),
                Err(error) => break error,
            }
        };
        assert!(matches!(&error, RingError::Setup(_)), "{error}");
        assert!(error.to_string().contains("not today"), "{error}");
        assert_eq!(log.take(), [Err(libc::ECANCELED)]);
    });
}

/// Only streams are missing in the tests above.
#[test]
fn a_stream_ticks_in_turns() {
    watched(|| {
        fn tick(_: &mut u32) -> Stream<'_> {
            request::timeout_multi(Duration::from_millis(1))
        }
        let log = Log::new();
        let ticks = log.clone();
        let script = Script::new()
            .on_setup_once(|mut submitter| {
                submitter.stream(0, tick)?;
                Ok(())
            })
            .on_completion(move |_, count, _| {
                ticks.push(count);
                (ControlFlow::Continue, Some(count + 1))
            });
        let mut ring = Bench::with(8, script);
        let outside = Loop::new(&ring);
        outside.drive(&mut ring, |_| log.len() >= 5);
        assert!(log.take().starts_with(&[0, 1, 2, 3, 4]));
        ring.finish().unwrap();
    });
}

#[test]
fn finish_during_a_teardown_tells_of_what_has_begun_it() {
    watched(|| {
        let script = Script::new()
            .on_setup_once(|mut submitter| {
                submitter.submit(0, |_| request::timeout(Duration::from_secs(1000)))?;
                submitter.submit(1, |_| request::nop())?;
                Ok(())
            })
            .on_completion(|_, _, _| (ControlFlow::Error("the first".into()), None))
            .on_teardown(|_, data: u32, _| Err(format!("{data}").into()));
        let mut ring = Bench::with(8, script);
        while !ring.turn().unwrap().call_again_in.is_some_and(|time| time.is_zero()) {}
        let error = ring.finish().unwrap_err();
        let RingError::Completion(cause) = &error else { panic!("{error}") };
        assert_eq!(cause.teardown.len(), 1);
    });
}
