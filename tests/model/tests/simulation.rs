//! The simulated kernel itself, with rings on it. Where it does what was asked, a real ring is asked for the
//! same, and must say the same.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroU32;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rummelplatz::io_uring::{opcode, squeue, types};
use rummelplatz::request::{self, Events};
use rummelplatz::sim::{Answer, Event, Faults, Simulation};
use rummelplatz::{BufferPool, ControlFlow, RawCompletion, RawRing, Request, RingError, Stream};
use rummelplatz_tests::{Bench, Job, Ledger, Log, Script, outcome, panic_of, pipe};

const GO_ON: ControlFlow<&str, rummelplatz_tests::Failure> = ControlFlow::Continue;

const F_MORE: u32 = 1 << 1;
const F_NOTIF: u32 = 1 << 3;

/// No test here has a ring that enters the kernel more often.
const MOST_ENTERS: u64 = 20_000;

// ---- rings ----------------------------------------------------------------------------------------

fn simulation(seed: u64, faults: Faults) -> Simulation {
    let simulation = Simulation::new(seed);
    simulation.set_faults(faults);
    simulation.limit_enters(MOST_ENTERS);
    simulation
}

/// A kernel in which nothing goes wrong.
fn calm() -> Simulation {
    simulation(1, Faults::none())
}

fn size(entries: u32) -> NonZeroU32 {
    NonZeroU32::new(entries).unwrap()
}

fn bench<D: Send>(raw: RawRing, script: Script<D>) -> Bench<D> {
    let builder = Bench::builder(script, Script::new()).raw_ring(raw);
    builder.grace(Duration::from_millis(20)).build().unwrap()
}

fn on<D: Send>(simulation: &Simulation, script: Script<D>) -> Bench<D> {
    bench(simulation.raw_ring(size(8)).unwrap(), script)
}

/// What a request came to.
type Outcome = Result<u32, i32>;

/// What a test of one request asks of its kernel.
struct Asking<D: Send + 'static> {
    data: D,
    request: for<'d> fn(&'d mut D) -> Request<'d>,
}

/// Runs one request. Its outcome, what it opened, and its data.
fn ask_on<D: Send + 'static>(raw: RawRing, asking: Asking<D>) -> (Outcome, Option<OwnedFd>, D) {
    let log = Log::new();
    let seen = log.clone();
    let Asking { data, request } = asking;
    let script = Script::new()
        .on_setup_once(move |mut submitter| {
            submitter.submit(data, request)?;
            Ok(())
        })
        .on_completion(move |completion, data, _| {
            let outcome = outcome(&completion);
            seen.push((outcome, completion.into_fd().ok(), data));
            (GO_ON, None)
        });
    bench(raw, script).run().unwrap();
    let mut log = log.take();
    assert_eq!(log.len(), 1);
    log.remove(0)
}

/// Asks the simulated kernel, and the real one if there is one, and has both say the same.
#[track_caller]
fn ask<D: Send + 'static>(mut asking: impl FnMut() -> Asking<D>) -> (Outcome, D) {
    let (simulated, _, data) = ask_on(calm().raw_ring(size(8)).unwrap(), asking());
    if let Ok(raw) = RawRing::new(size(8)) {
        let (real, _, _) = ask_on(raw, asking());
        assert_eq!(simulated, real, "what the simulated kernel says, and the real one");
    }
    (simulated, data)
}

fn temporary_file(content: &[u8]) -> File {
    // SAFETY: the name is a string with an end.
    let fd = unsafe { libc::memfd_create(c"simulation".as_ptr(), libc::MFD_CLOEXEC) };
    // SAFETY: it was just opened.
    let mut file = unsafe { File::from_raw_fd(fd) };
    file.write_all(content).unwrap();
    io::Seek::rewind(&mut file).unwrap();
    file
}

fn unix_pair() -> (Arc<OwnedFd>, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (Arc::new(ours.into()), theirs)
}

// ---- what is performed ----------------------------------------------------------------------------

#[test]
fn nothing_is_done() {
    assert_eq!(ask(|| Asking { data: (), request: |()| request::nop() }).0, Ok(0));
}

#[test]
fn files_are_read_at_offsets_and_at_their_position() {
    let read = |offset: Option<u64>| {
        let mut file = temporary_file(b"0123456789");
        file.read_exact(&mut [0; 3]).unwrap();
        Asking::<(File, Option<u64>, [u8; 4])> {
            data: (file, offset, [0; 4]),
            request: |(file, offset, buffer)| match offset {
                Some(offset) => request::read_at(file, buffer, *offset),
                None => request::read(file, buffer),
            },
        }
    };
    for (offset, expected, bytes) in [
        (Some(2), Ok(4), b"2345"),
        (Some(8), Ok(2), b"89\0\0"),
        (Some(10), Ok(0), b"\0\0\0\0"),
        (None, Ok(4), b"3456"),
    ] {
        let (outcome, (_, _, buffer)) = ask(|| read(offset));
        assert_eq!((outcome, &buffer), (expected, bytes), "at {offset:?}");
    }
}

#[test]
fn files_are_written_whole_at_offsets_and_at_their_position() {
    for (offset, expected) in [(Some(2), 100_002), (None, 100_001)] {
        let (outcome, (file, ..)) = ask(|| {
            let mut file = temporary_file(b"abcd");
            file.read_exact(&mut [0; 1]).unwrap();
            Asking::<(File, Option<u64>, Vec<u8>)> {
                data: (file, offset, vec![7; 100_000]),
                request: |(file, offset, buffer)| match offset {
                    Some(offset) => request::write_at(file, buffer, *offset),
                    None => request::write(file, buffer),
                },
            }
        });
        assert_eq!(outcome, Ok(100_000));
        assert_eq!(file.metadata().unwrap().len(), expected);
    }
}

#[test]
fn streams_have_no_offsets() {
    let (outcome, (_, _, buffer)) = ask(|| {
        let (reader, writer) = pipe();
        File::from(writer.try_clone().unwrap()).write_all(b"hello").unwrap();
        Asking::<(OwnedFd, OwnedFd, [u8; 8])> {
            data: (reader, writer, [0; 8]),
            request: |(reader, _, buffer)| request::read_at(reader, buffer, 3),
        }
    });
    assert_eq!((outcome, &buffer), (Ok(5), b"hello\0\0\0"));
}

#[test]
fn what_is_not_open_for_it_is_refused() {
    let wrong_way = |reads: bool| {
        let (reader, writer) = pipe();
        Asking::<(OwnedFd, OwnedFd, bool, [u8; 8])> {
            data: (reader, writer, reads, [0; 8]),
            request: |(reader, writer, reads, buffer)| match reads {
                true => request::read(writer, buffer),
                false => request::write(reader, buffer),
            },
        }
    };
    assert_eq!(ask(|| wrong_way(true)).0, Err(libc::EBADF));
    assert_eq!(ask(|| wrong_way(false)).0, Err(libc::EBADF));
}

#[test]
fn what_does_not_block_is_waited_for_all_the_same() {
    let simulation = calm();
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let mut theirs = Some(theirs);
    simulation.on_idle(move || theirs.take().is_some_and(|mut it| it.write_all(b"hello").is_ok()));
    let asking = Asking::<(UnixStream, [u8; 8])> {
        data: (ours, [0; 8]),
        request: |(ours, buffer)| request::read(ours, buffer),
    };
    assert_eq!(ask_on(simulation.raw_ring(size(8)).unwrap(), asking).0, Ok(5));
}

#[test]
fn bytes_are_received_and_sent() {
    let (outcome, (_, _, buffer)) = ask(|| {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"hello").unwrap();
        Asking::<(UnixStream, UnixStream, [u8; 8])> {
            data: (ours, theirs, [0; 8]),
            request: |(ours, _, buffer)| request::recv(ours, buffer),
        }
    });
    assert_eq!((outcome, &buffer), (Ok(5), b"hello\0\0\0"));
    let (outcome, (_, mut theirs)) = ask(|| Asking::<(UnixStream, UnixStream)> {
        data: UnixStream::pair().unwrap(),
        request: |(ours, _)| request::send(ours, b"hello"),
    });
    let mut received = [0; 5];
    theirs.read_exact(&mut received).unwrap();
    assert_eq!((outcome, &received), (Ok(5), b"hello"));
    let (outcome, _) = ask(|| {
        let (ours, _) = UnixStream::pair().unwrap();
        Asking::<UnixStream> { data: ours, request: |ours| request::send(ours, b"hello") }
    });
    assert_eq!(outcome, Err(libc::EPIPE));
}

#[test]
fn a_transfer_that_is_to_be_whole_is() {
    // More than the socket takes at once, so the other side reads when there is no more room.
    let simulation = calm();
    let (ours, mut theirs) = unix_pair();
    let mut job = Job::new(0, &ours, 3_000_000);
    let received = Arc::new(Mutex::new(0));
    let count = Arc::clone(&received);
    simulation.on_idle(move || {
        theirs.set_nonblocking(true).unwrap();
        let read = theirs.read(&mut [0; 100_000]).unwrap_or(0);
        *count.lock().unwrap() += read;
        read > 0
    });
    let log = Log::new();
    let seen = log.clone();
    let mut ring = on(
        &simulation,
        Script::new()
            .on_setup_once(move |mut submitter| {
                let entry = opcode::Send::new(job.raw(), job.buffer.as_mut_ptr(), 3_000_000);
                // SAFETY: the buffer is on the heap, and owned by the job.
                unsafe { submitter.push(entry.flags(libc::MSG_WAITALL).build(), job)? };
                Ok(())
            })
            .on_completion(move |completion, _, _| {
                seen.push(outcome(&completion));
                (GO_ON, None)
            }),
    );
    ring.run().unwrap();
    assert_eq!(log.take(), [Ok(3_000_000)]);
    assert!(*received.lock().unwrap() > 2_000_000);
}

#[test]
fn a_cancelled_transfer_says_what_it_has_moved() {
    let simulation = calm();
    let (ours, mut theirs) = unix_pair();
    theirs.write_all(b"hello").unwrap();
    let mut job = Job::new(0, &ours, 8);
    let log = Log::new();
    let seen = log.clone();
    let mut ring = on(
        &simulation,
        Script::new()
            .on_setup_once(move |mut submitter| {
                let entry = opcode::Recv::new(job.raw(), job.buffer.as_mut_ptr(), 8);
                // SAFETY: the buffer is on the heap, and owned by the job.
                unsafe { submitter.push(entry.flags(libc::MSG_WAITALL).build(), job)? };
                Ok(())
            })
            .on_completion(move |completion, job, _| {
                seen.push((outcome(&completion), job.buffer));
                (GO_ON, None)
            }),
    );
    ring.turn().unwrap();
    ring.submitter(Bench::FIRST).cancel_all();
    while !ring.turn().unwrap().is_idle() {}
    assert_eq!(log.take(), [(Ok(5), Box::from(*b"hello\0\0\0"))]);
}

#[test]
fn connections_are_made_and_accepted() {
    let (outcome, (_listener, socket)) = ask(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        // SAFETY: a plain call.
        let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0) };
        // SAFETY: it was just opened.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        Asking::<(TcpListener, OwnedFd)> {
            data: (listener, socket),
            request: |(listener, socket)| request::connect(socket, listener.local_addr().unwrap()),
        }
    });
    assert_eq!(outcome, Ok(0));
    assert!(TcpStream::from(socket).peer_addr().is_ok());
    let (outcome, _) = ask(|| {
        let refused: SocketAddr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        // SAFETY: a plain call.
        let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0) };
        // SAFETY: it was just opened.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        Asking::<(SocketAddr, OwnedFd)> {
            data: (refused, socket),
            request: |(address, socket)| request::connect(socket, *address),
        }
    });
    assert_eq!(outcome, Err(libc::ECONNREFUSED));

    let directory = std::env::temp_dir().join(format!("rummelplatz-simulation-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join("listener");
    let listener = UnixListener::bind(&path).unwrap();
    let mut client = UnixStream::connect(&path).unwrap();
    std::fs::remove_dir_all(&directory).unwrap();
    let asking = Asking::<UnixListener> { data: listener, request: |listener| request::accept(listener) };
    let (outcome, accepted, _) = ask_on(calm().raw_ring(size(8)).unwrap(), asking);
    client.write_all(b"hello").unwrap();
    let mut received = [0; 5];
    UnixStream::from(accepted.unwrap()).read_exact(&mut received).unwrap();
    assert_eq!((outcome, &received), (Ok(0), b"hello"));
}

#[test]
fn files_are_opened_synchronised_and_closed() {
    let asking = || Asking::<()> {
        data: (),
        request: |()| request::openat(&request::CWD, c"/proc/self/status", &request::OpenOptions::new()),
    };
    let (outcome, opened, ()) = ask_on(calm().raw_ring(size(8)).unwrap(), asking());
    let mut text = String::new();
    File::from(opened.unwrap()).read_to_string(&mut text).unwrap();
    assert!(outcome == Ok(0) && text.starts_with("Name:"));
    let (outcome, ()) = ask(|| Asking::<()> {
        data: (),
        request: |()| request::openat(&request::CWD, c"/proc/none", &request::OpenOptions::new()),
    });
    assert_eq!(outcome, Err(libc::ENOENT));
    let file = || temporary_file(b"");
    assert_eq!(ask(|| Asking::<File> { data: file(), request: |file| request::fsync(file) }).0, Ok(0));
    assert_eq!(ask(|| Asking::<File> { data: file(), request: |file| request::fdatasync(file) }).0, Ok(0));

    let (reader, writer) = pipe();
    let asking = Asking::<Option<OwnedFd>> {
        data: Some(writer),
        request: |writer| request::close(writer.take().unwrap()),
    };
    assert_eq!(ask_on(calm().raw_ring(size(8)).unwrap(), asking).0, Ok(0));
    assert_eq!(File::from(reader).read(&mut [0]).unwrap(), 0, "nobody can write any more");
}

#[test]
fn sockets_are_shut_down() {
    let (outcome, (_, mut theirs)) = ask(|| Asking::<(UnixStream, UnixStream)> {
        data: UnixStream::pair().unwrap(),
        request: |(ours, _)| request::shutdown(ours, Shutdown::Write),
    });
    assert_eq!((outcome, theirs.read(&mut [0]).unwrap()), (Ok(0), 0));
}

#[test]
fn events_are_told_of() {
    let (outcome, _) = ask(|| Asking::<(UnixStream, UnixStream)> {
        data: UnixStream::pair().unwrap(),
        request: |(ours, _)| request::poll(ours, Events::READABLE | Events::WRITABLE),
    });
    assert_eq!(outcome, Ok(Events::WRITABLE.bits()));
    let (outcome, _) = ask(|| {
        let (ours, _) = UnixStream::pair().unwrap();
        Asking::<UnixStream> { data: ours, request: |ours| request::poll(ours, Events::READABLE) }
    });
    let expected = Events::READABLE | Events::HANG_UP | Events::READ_CLOSED;
    assert_eq!(outcome, Ok(expected.bits()));
}

#[test]
fn what_is_not_known_is_refused_as_by_an_old_kernel() {
    let data = Box::new([0_u8; 16]);
    let entry = opcode::Fallocate::new(types::Fd(0), 1).build();
    assert_eq!(push_one(&calm(), entry, data), [RawCompletion { result: -libc::EINVAL, flags: 0 }]);
    let simulation = calm();
    simulation.on_request(|asked| match asked.name() {
        "FALLOCATE" => Answer::Finish(0),
        _ => Answer::Perform,
    });
    let entry = opcode::Fallocate::new(types::Fd(0), 1).build();
    assert_eq!(push_one(&simulation, entry, Box::new([0; 16])), [RawCompletion { result: 0, flags: 0 }]);
}

/// Pushes a raw entry whose memory, if any, is `data`.
fn push_one(simulation: &Simulation, entry: squeue::Entry, data: Box<[u8; 16]>) -> Vec<RawCompletion> {
    let log = Log::new();
    let seen = log.clone();
    let mut ring = on(
        simulation,
        Script::new()
            .on_setup_once(move |mut submitter| {
                // SAFETY: its memory is on the heap, and owned by the data.
                unsafe { submitter.push(entry, data)? };
                Ok(())
            })
            .on_completion(move |completion, _, _| {
                seen.push(completion.raw());
                (GO_ON, None)
            }),
    );
    ring.run().unwrap();
    log.take()
}

#[test]
fn the_numbers_of_registered_files_are_no_descriptors() {
    let (_reader, writer) = pipe();
    let mut data = Box::new([0_u8; 16]);
    // Were it taken for a descriptor, this would write to the pipe.
    let slot = types::Fixed(writer.as_raw_fd() as u32);
    let entry = opcode::Write::new(slot, data.as_mut_ptr(), 16).offset(u64::MAX).build();
    assert_eq!(push_one(&calm(), entry, data), [RawCompletion { result: -libc::EBADF, flags: 0 }]);
    // Nor is what is to be closed the descriptor 0.
    let entry = opcode::Close::new(types::Fixed(3)).build();
    let told = push_one(&calm(), entry, Box::new([0; 16]));
    assert_eq!(told, [RawCompletion { result: -libc::ENXIO, flags: 0 }]);
    // SAFETY: a plain call.
    assert!(unsafe { libc::fcntl(0, libc::F_GETFD) } >= 0);
}

// ---- time -----------------------------------------------------------------------------------------

#[test]
fn time_costs_no_time() {
    let simulation = calm();
    let began = Instant::now();
    let day = Duration::from_secs(86_400);
    let before = Arc::new(Mutex::new(Duration::ZERO));
    let (time, kernel) = (Arc::clone(&before), simulation.clone());
    simulation.on_request(move |asked| {
        // The hook may ask what time it is.
        if asked.name() == "NOP" {
            *time.lock().unwrap() = kernel.now();
        }
        Answer::Perform
    });
    let order = Log::new();
    let seen = order.clone();
    let mut ring = on(
        &simulation,
        Script::<u64>::new()
            .on_setup(|mut submitter| {
                submitter.submit(0, |_| request::nop())?;
                for days in [3, 1, 2] {
                    let time = Duration::from_secs(86_400 * days);
                    submitter.submit(days, move |_| request::timeout(time))?;
                }
                Ok(())
            })
            .on_completion(move |completion, days, _| {
                seen.push((days, outcome(&completion)));
                (GO_ON, None)
            }),
    );
    ring.run().unwrap();
    assert_eq!(order.take(), [(0, Ok(0)), (1, Ok(0)), (2, Ok(0)), (3, Ok(0))]);
    let took = simulation.now() - *before.lock().unwrap();
    assert!((3 * day..3 * day + Duration::from_secs(1)).contains(&took), "{took:?}");
    assert!(began.elapsed() < Duration::from_secs(60));
}

#[test]
fn absolute_times_are_those_of_the_real_clocks() {
    let simulation = calm();
    let asking = Asking::<()> {
        data: (),
        request: |()| request::timeout_at(Instant::now() + Duration::from_secs(3600)),
    };
    assert_eq!(ask_on(simulation.raw_ring(size(8)).unwrap(), asking).0, Ok(0));
    let asking = Asking::<()> {
        data: (),
        request: |()| request::timeout_at_time(std::time::SystemTime::now() + Duration::from_secs(3600)),
    };
    assert_eq!(ask_on(simulation.raw_ring(size(8)).unwrap(), asking).0, Ok(0));
}

/// Runs a stream until it ends, or has told so often. What it has told.
fn stream_on<D: Send + 'static>(
    raw: RawRing,
    data: D,
    arm: for<'d> fn(&'d mut D) -> Stream<'d>,
    most: usize,
) -> (Vec<(Outcome, bool)>, Vec<Vec<u8>>) {
    let log = Log::new();
    let seen = log.clone();
    let bytes = Log::new();
    let read = bytes.clone();
    let script = Script::new()
        .on_setup_once(move |mut submitter| {
            submitter.stream(data, arm)?;
            Ok(())
        })
        .on_completion(move |completion, data, _| {
            seen.push((outcome(&completion), completion.more()));
            if let Ok(buffer) = completion.into_buffer() {
                read.push(buffer.to_vec());
            }
            (if seen.len() < most { GO_ON } else { ControlFlow::Exit }, Some(data))
        });
    bench(raw, script).run().unwrap();
    (log.take(), bytes.take())
}

#[test]
fn timers_go_on_as_often_as_they_are_to() {
    fn thrice(_: &mut ()) -> Stream<'_> {
        request::timeout_multi_times(Duration::from_millis(1), size(3))
    }
    let expected = [(Ok(0), true), (Ok(0), true), (Ok(0), false)];
    assert_eq!(stream_on(calm().raw_ring(size(8)).unwrap(), (), thrice, 9).0, expected);
    if let Ok(raw) = RawRing::new(size(8)) {
        assert_eq!(stream_on(raw, (), thrice, 9).0, expected);
    }
    fn for_ever(_: &mut ()) -> Stream<'_> {
        request::timeout_multi(Duration::from_secs(3600))
    }
    let (told, _) = stream_on(calm().raw_ring(size(8)).unwrap(), (), for_ever, 100);
    assert_eq!(told, [(Ok(0), true); 100]);
}

// ---- streams --------------------------------------------------------------------------------------

#[test]
fn connections_come_as_a_stream() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let clients: Vec<_> = (0..3).map(|_| TcpStream::connect(address).unwrap()).collect();
    fn accept(listener: &mut TcpListener) -> Stream<'_> {
        request::accept_multi(listener)
    }
    let (told, _) = stream_on(calm().raw_ring(size(8)).unwrap(), listener, accept, 3);
    assert_eq!(told, [(Ok(0), true); 3]);
    drop(clients);
}

#[test]
fn bytes_come_as_a_stream_in_buffers_of_a_pool() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    theirs.write_all(b"hello, world").unwrap();
    drop(theirs);
    let pool = BufferPool::new(4, 5).unwrap();
    fn receive((socket, pool): &mut (UnixStream, BufferPool)) -> Stream<'_> {
        request::recv_multi(socket, pool)
    }
    let (told, bytes) = stream_on(calm().raw_ring(size(8)).unwrap(), (ours, pool.clone()), receive, 9);
    assert_eq!(told, [(Ok(5), true), (Ok(5), true), (Ok(2), true), (Ok(0), false)]);
    assert_eq!(bytes.concat(), b"hello, world");
    assert_eq!(pool.available(), 4);
}

#[test]
fn events_come_as_a_stream() {
    let simulation = calm();
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let mut left = 3;
    simulation.on_idle(move || {
        left -= 1;
        left >= 0 && theirs.write_all(b"x").is_ok()
    });
    let log = Log::new();
    let seen = log.clone();
    let data = ours;
    let mut ring = on(
        &simulation,
        Script::new()
            .on_setup_once(move |mut submitter| {
                submitter
                    .stream(data, |socket: &mut UnixStream| request::poll_multi(socket, Events::READABLE))?;
                Ok(())
            })
            .on_completion(move |completion, mut socket, _| {
                seen.push((outcome(&completion), completion.more()));
                assert_eq!(socket.read(&mut [0; 9]).unwrap(), 1);
                (if seen.len() < 3 { GO_ON } else { ControlFlow::Exit }, Some(socket))
            }),
    );
    ring.run().unwrap();
    assert_eq!(log.take(), [(Ok(Events::READABLE.bits()), true); 3]);
}

#[test]
fn a_zero_copy_send_is_over_when_its_memory_is_free() {
    let simulation = calm();
    simulation.take_log();
    let (ours, _theirs) = rummelplatz_tests::tcp_pair();
    let mut job = Job::new(0, &Arc::new(ours.into()), 100);
    let place = job.buffer.as_ptr().addr();
    let log = Log::new();
    let (seen, kernel) = (log.clone(), simulation.clone());
    let mut ring = on(
        &simulation,
        Script::new()
            .on_setup_once(move |mut submitter| {
                let entry = job.send_zc_entry();
                // SAFETY: the buffer is on the heap, and owned by the job.
                unsafe { submitter.push(entry, job)? };
                Ok(())
            })
            .on_completion(move |completion, _, _| {
                seen.push((outcome(&completion), kernel.uses(std::ptr::without_provenance::<u8>(place))));
                (GO_ON, None)
            }),
    );
    ring.run().unwrap();
    assert_eq!(log.take(), [(Ok(100), false)]);
    let flags: Vec<_> = posted(&simulation).into_iter().map(|(_, flags)| flags).collect();
    assert_eq!(flags, [F_MORE, F_NOTIF]);
}

/// The results and flags that were posted.
fn posted(simulation: &Simulation) -> Vec<(i32, u32)> {
    let posted = simulation.take_log().into_iter().filter_map(|event| match event {
        Event::Posted { result, flags, .. } => Some((result, flags)),
        _ => None,
    });
    posted.collect()
}

// ---- what goes wrong --------------------------------------------------------------------------------

/// Reads a message of eight bytes over a stream, under the kernels of a hundred seeds. How many bytes came in
/// the first completion, or what error.
fn first_results(faults: Faults) -> Vec<Outcome> {
    let run = |seed| {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"12345678").unwrap();
        let asking = Asking::<(UnixStream, UnixStream, [u8; 8])> {
            data: (ours, theirs, [0; 8]),
            request: |(ours, _, buffer)| request::recv(ours, buffer),
        };
        ask_on(simulation(seed, faults).raw_ring(size(8)).unwrap(), asking).0
    };
    (0..100).map(run).collect()
}

#[test]
fn transfers_are_short() {
    let results = first_results(Faults { short: 0.5, ..Faults::none() });
    let short = results.iter().filter(|it| matches!(it, Ok(1..8))).count();
    let whole = results.iter().filter(|it| **it == Ok(8)).count();
    assert!(short > 20 && whole > 20 && short + whole == 100, "{results:?}");
}

#[test]
fn connections_are_reset() {
    let results = first_results(Faults { reset: 0.5, ..Faults::none() });
    let reset = results.iter().filter(|it| **it == Err(libc::ECONNRESET)).count();
    assert!((20..80).contains(&reset), "{results:?}");
}

#[test]
fn requests_end_that_nobody_has_cancelled() {
    let results = first_results(Faults { cancelled: 0.6, ..Faults::none() });
    for error in [libc::ECANCELED, libc::EINTR] {
        assert!(results.contains(&Err(error)), "{results:?}");
    }
}

/// In which order requests end that can all do so at once, with the time that they have taken.
fn order(seed: u64, faults: Faults) -> Vec<(u64, Duration)> {
    let simulation = simulation(seed, faults);
    let began = Arc::new(Mutex::new(Duration::ZERO));
    let log = Log::new();
    let (seen, kernel, start) = (log.clone(), simulation.clone(), Arc::clone(&began));
    let mut ring = on(
        &simulation,
        Script::<(u64, UnixStream, UnixStream, [u8; 1])>::new()
            .on_setup(move |mut submitter| {
                *start.lock().unwrap() = kernel.now();
                for number in 0..6 {
                    let (ours, mut theirs) = UnixStream::pair()?;
                    theirs.write_all(b"x")?;
                    let data = (number, ours, theirs, [0]);
                    submitter.submit(data, |(_, ours, _, buffer)| request::recv(ours, buffer))?;
                }
                Ok(())
            })
            .on_completion({
                let kernel = simulation.clone();
                move |completion, (number, ..), _| {
                    assert_eq!(outcome(&completion), Ok(1));
                    seen.push((number, kernel.now()));
                    (GO_ON, None)
                }
            }),
    );
    ring.run().unwrap();
    let began = *began.lock().unwrap();
    log.take().into_iter().map(|(number, at)| (number, at - began)).collect()
}

#[test]
fn completions_are_held_back_and_requests_begin_late() {
    let soon = Duration::from_micros(100);
    let in_order = |order: &[(u64, Duration)]| order.iter().map(|(number, _)| *number).eq(0..6);
    let calm = order(1, Faults::none());
    assert!(in_order(&calm) && calm.iter().all(|(_, at)| *at < soon), "{calm:?}");
    for faults in [Faults { delay: 1.0, ..Faults::none() }, Faults { late: 1.0, ..Faults::none() }] {
        let orders: Vec<_> = (0..9).map(|seed| order(seed, faults)).collect();
        assert!(orders.iter().any(|it| !in_order(it)), "{orders:?}");
        assert!(orders.iter().all(|it| it.last().is_some_and(|(_, at)| *at > soon)), "{orders:?}");
        assert!(orders.iter().flatten().all(|(_, at)| *at < Duration::from_millis(10)), "{orders:?}");
    }
}

#[test]
fn what_can_go_on_does_so_in_any_order() {
    let numbers = |reorder| {
        let simulation = simulation(3, Faults { reorder, ..Faults::none() });
        let pairs: Vec<_> = (0..6).map(|_| UnixStream::pair().unwrap()).collect();
        let (ours, mut theirs): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
        simulation.on_idle(move || theirs.drain(..).map(|mut it| it.write_all(b"x")).count() > 0);
        let log = Log::new();
        let seen = log.clone();
        let mut ring = on(
            &simulation,
            Script::<(usize, UnixStream, [u8; 1])>::new()
                .on_setup_once(move |mut submitter| {
                    for (number, ours) in ours.into_iter().enumerate() {
                        let data = (number, ours, [0]);
                        submitter.submit(data, |(_, ours, buffer)| request::recv(ours, buffer))?;
                    }
                    Ok(())
                })
                .on_completion(move |_, (number, ..), _| {
                    seen.push(number);
                    (GO_ON, None)
                }),
        );
        ring.run().unwrap();
        log.take()
    };
    assert_eq!(numbers(false), [0, 1, 2, 3, 4, 5]);
    assert_ne!(numbers(true), [0, 1, 2, 3, 4, 5]);
}

/// A ring with a read that nothing ever comes for, and a timer, under such faults.
fn waiting(simulation: &Simulation, ledger: Ledger, timer: bool) -> Result<(), RingError<Bench<Waiting>>> {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let data: Waiting = (ledger.issue(ours), theirs, [0]);
    let ticks = UnixStream::pair().unwrap();
    let ticking: Waiting = (ledger.issue(ticks.0), ticks.1, [0]);
    let script = Script::new()
        .on_setup_once(move |mut submitter| {
            submitter.submit(data, |(ours, _, buffer): &mut Waiting| request::recv(&ours.value, buffer))?;
            if timer {
                submitter.submit(ticking, |_| request::timeout(Duration::from_secs(1)))?;
            }
            Ok(())
        })
        .on_completion(|_, _, _| (ControlFlow::Exit, None));
    on(simulation, script).run()
}

type Waiting = (rummelplatz_tests::Tracked<UnixStream>, UnixStream, [u8; 1]);

#[test]
fn s07_busy_is_retried_and_a_lost_completion_abandons() {
    for seed in 0..50 {
        let ledger = Ledger::new();
        let busy = simulation(seed, Faults { busy: 0.9, ..Faults::none() });
        waiting(&busy, ledger, true).unwrap();
        ledger.assert_all_dropped_once();
    }
    let ledger = Ledger::new();
    let lost = simulation(1, Faults { lost: 1.0, ..Faults::none() });
    let error = waiting(&lost, ledger, true).unwrap_err();
    let stuck = error.abandoned().unwrap();
    assert_eq!(stuck.errno, Some(libc::EBADR));
    let mut names: Vec<_> = stuck.requests.iter().map(|it| (it.operation, it.opcode_name())).collect();
    names.sort_unstable();
    assert_eq!(names, [("first", "RECV"), ("first", "TIMEOUT")]);
    assert_eq!(ledger.alive(), 2, "leaked, not freed");
}

#[test]
fn a_ring_that_waits_for_ever_is_told_so() {
    let ledger = Ledger::new();
    let simulation = calm();
    simulation.set_patience(Duration::from_millis(1));
    match waiting(&simulation, ledger, false) {
        Err(RingError::Api(cause)) => assert_eq!(cause.error.raw_os_error(), Some(libc::EDEADLK)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn there_is_one_ring_at_a_time() {
    let simulation = calm();
    let first = simulation.raw_ring(size(8)).unwrap();
    assert_eq!(first.as_raw_fd(), -1);
    assert_eq!(simulation.raw_ring(size(8)).unwrap_err().raw_os_error(), Some(libc::EBUSY));
    drop(first);
    assert_eq!(simulation.raw_ring(size(32_769)).unwrap_err().raw_os_error(), Some(libc::EINVAL));
    simulation.raw_ring(size(8)).unwrap();
}

#[test]
fn hooks_that_panic_or_look_into_the_kernel_end_the_ring_and_not_the_process() {
    let ledger = Ledger::new();
    let simulation = calm();
    let kernel = simulation.clone();
    simulation.on_request(move |_| if kernel.has(1) { Answer::Wait } else { Answer::Perform });
    let said = panic_of(|| waiting(&simulation, ledger, true));
    assert!(said.contains("from within `on_request`"), "{said}");
    simulation.on_idle(|| panic!("the other side panics"));
    assert_eq!(panic_of(|| waiting(&simulation, ledger, true)), "the other side panics");
    simulation.on_request(|asked| match asked.name() {
        "RECV" => Answer::Finish(2),
        _ => Answer::Perform,
    });
    let said = panic_of(|| waiting(&simulation, ledger, true));
    assert!(said.contains("can't move 2 bytes"), "{said}");
    simulation.limit_enters(1);
    ledger.assert_none_dropped_twice();
}

#[test]
fn the_same_seed_is_the_same_run() {
    let run = |seed| {
        let simulation = simulation(seed, Faults { lost: 0.0, ..Faults::many() });
        simulation.take_log();
        waiting(&simulation, Ledger::new(), true).ok();
        let events = simulation.take_log().into_iter().map(|event| match event {
            Event::TakenIn(asked) => format!("{} {} {}", asked.name(), asked.length, asked.user_data),
            other => format!("{other:?}"),
        });
        events.collect::<Vec<_>>()
    };
    assert!((0..20).all(|seed| run(seed) == run(seed) && !run(seed).is_empty()));
}

#[test]
fn another_thread_wakes_a_ring_that_nothing_else_can() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let simulation = calm();
    simulation.set_patience(Duration::from_secs(60));
    let writer = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(20));
        theirs.write_all(b"x").unwrap();
        theirs
    });
    let asking = Asking::<(UnixStream, [u8; 1])> {
        data: (ours, [0]),
        request: |(ours, buffer)| request::recv(ours, buffer),
    };
    assert_eq!(ask_on(simulation.raw_ring(size(8)).unwrap(), asking).0, Ok(1));
    writer.join().unwrap();
}
