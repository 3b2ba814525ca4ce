//! Registered memory and files: what is read and written through them, whose they are, and when they are given back.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Mutex};
use std::thread;

use rummelplatz::request::{Events, Peer};
use rummelplatz::{
    BufferPool, ControlFlow, FixedBuffer, FixedBuffers, FixedFile, RawRing, Request, SubmitError, request,
};
use rummelplatz_tests::{
    Bench, BenchSubmitter, Log, Script, addressable, anywhere, become_nobody, complete, in_child,
    in_child_anywhere, in_fork, nameless_file, open_descriptors, outcome, pipe, set_limit, tcp_pair, watched,
};

const SIZE: usize = 4096;

/// What requests use.
struct Block {
    plain: Arc<File>,
    file: FixedFile,
    buffer: FixedBuffer,
    step: usize,
}

type Step = for<'d> fn(&'d mut Block) -> Request<'d>;

/// Submits one step after the other, each on the block of the step before. Returns the results.
fn run_steps(
    block: impl FnOnce(&mut BenchSubmitter<'_, Block>) -> Block + Send + 'static,
    steps: &'static [Step],
) -> Vec<Result<u32, i32>> {
    let seen = Log::new();
    let log = seen.clone();
    let script = Script::new()
        .on_setup_once(move |mut submitter| {
            let block = block(&mut submitter);
            submitter.submit(block, steps[0])?;
            Ok(())
        })
        .on_completion(move |completion, mut block: Block, mut submitter| {
            log.push(outcome(&completion));
            block.step += 1;
            if let Some(step) = steps.get(block.step) {
                submitter.submit(block, step).unwrap();
            }
            (ControlFlow::Continue, None)
        });
    Bench::with(4, script).run().unwrap();
    seen.take()
}

#[test]
fn bytes_go_through_registered_memory_and_a_registered_file() {
    watched(|| {
        let plain = Arc::new(nameless_file());
        // The set that is registered second has an index other than 0, which usual entries don't have.
        for other_first in [false, true] {
            let [other, buffers] = [2, 3].map(|count| FixedBuffers::new(count, SIZE as u32).unwrap());
            let (set, file) = (buffers.clone(), plain.clone());
            let block = move |submitter: &mut BenchSubmitter<'_, Block>| {
                if other_first {
                    submitter.register_buffers(&other).unwrap();
                }
                submitter.register_buffers(&set).unwrap();
                submitter.register_buffers(&set).expect("it is registered already");
                // The ring no longer needs the descriptor.
                let registered = submitter.register_file(file.try_clone().unwrap()).unwrap();
                let buffer = set.take().unwrap();
                Block { plain: file, file: registered, buffer, step: 0 }
            };
            const STEPS: &[Step] = &[
                |block| {
                    block.buffer.fill(1);
                    request::write_fixed_at(&block.file, &block.buffer, 0)
                },
                |block| {
                    block.buffer[..8].copy_from_slice(b"12345678");
                    request::write_fixed_at(&block.plain, block.buffer.part(..8), SIZE as u64)
                },
                // At a place of the queue that had an index before.
                |block| request::fsync(&block.file),
                |block| request::fdatasync(&block.plain),
                |_| request::nop(),
                |block| request::fsync(&block.file),
                |block| {
                    block.buffer.fill(0);
                    request::read_fixed_at(&block.plain, block.buffer.part_mut(100..104), SIZE as u64 + 2)
                },
                |block| {
                    assert_eq!(block.buffer[99..105], [0, b'3', b'4', b'5', b'6', 0]);
                    request::read_fixed_at(&block.file, block.buffer.part_mut(..10), SIZE as u64)
                },
                |block| {
                    assert_eq!(block.buffer[..12], *b"12345678\0\0\0\0");
                    // Everything that a plain read works on, too.
                    request::read_at(&block.file, &mut block.buffer, SIZE as u64 - 1)
                },
                |block| {
                    assert_eq!(block.buffer[..9], *b"\x0112345678");
                    request::write_at(&block.file, &block.buffer[1..3], 0)
                },
                |block| {
                    let (head, tail) = block.buffer.split_at_mut(3);
                    request::readv_at(&block.file, [tail, head], SIZE as u64)
                },
                |block| {
                    assert_eq!(block.buffer[3..11], *b"12345678");
                    request::writev_at(&block.file, [&block.buffer[3..4], &block.buffer[4..5]], 0)
                },
                // At the file's own position.
                |block| request::read_fixed(&block.file, block.buffer.part_mut(4..7)),
                |block| {
                    assert_eq!(block.buffer[4..7], *b"12\x01");
                    request::write_fixed(&block.plain, block.buffer.part(4..5))
                },
            ];
            let seen = run_steps(block, STEPS);
            let expected = [SIZE as u32, 8, 0, 0, 0, 0, 4, 8, 9, 2, 8, 2, 3, 1].map(Ok);
            assert_eq!(seen, expected, "the other set first: {other_first}");
            let mut head = [0; 5];
            std::os::unix::fs::FileExt::read_exact_at(&*plain, &mut head, 0).unwrap();
            assert_eq!(head, *b"12\x011\x01");
            plain.set_len(0).unwrap();
            std::io::Seek::rewind(&mut &*plain).unwrap();
            assert_eq!(buffers.available(), 3, "the ring has finished, and its data is gone");
        }
    });
}

#[test]
fn parts_of_registered_buffers_are_moved_in_their_order() {
    watched(|| anywhere::parts_of_registered_buffers_are_moved_in_their_order(|| addressable(8).0));
}

#[test]
fn lists_of_parts_that_wait_for_room_are_kept_as_they_were() {
    watched(|| {
        const COUNT: u8 = 40;
        let (reader, writer) = pipe();
        let writer = Arc::new(writer);
        let seen = Log::new();
        let log = seen.clone();
        let script = Script::new()
            .on_setup_once(move |mut submitter| {
                // The second has an index other than 0.
                let sets = [(); 2].map(|()| FixedBuffers::new(COUNT.into(), 3).unwrap());
                for set in &sets {
                    submitter.register_buffers(set)?;
                }
                for number in 0..COUNT {
                    let mut buffer = sets[usize::from(number) / 2 % 2].take().unwrap();
                    buffer.fill(number);
                    submitter.submit((writer.clone(), buffer), |(pipe, buffer)| match buffer[0] % 2 {
                        0 => request::write_vectored_fixed(&**pipe, [buffer.part(1..), buffer.part(..1)]),
                        _ => request::write_vectored(&**pipe, [&buffer[2..], &buffer[..2]]),
                    })?;
                }
                Ok(())
            })
            .on_completion(move |completion, _, _| {
                log.push(outcome(&completion));
                (ControlFlow::Continue, None)
            });
        // More than fit, so most are in the backlog for some time.
        Bench::builder(script, Script::new()).entries(2.try_into().unwrap()).build().unwrap().run().unwrap();
        let seen = seen.take();
        if seen.contains(&Err(libc::EINVAL)) {
            return eprintln!("skipped: needs Linux 6.15");
        }
        assert_eq!(seen, [Ok(3); COUNT as usize]);
        let mut bytes = Vec::new();
        File::from(reader).read_to_end(&mut bytes).unwrap();
        let mut threes: Vec<&[u8]> = bytes.chunks(3).collect();
        threes.sort();
        let expected: Vec<[u8; 3]> = (0..COUNT).map(|number| [number; 3]).collect();
        assert_eq!(threes, expected);
    });
}

/// The first completion of each request, in order; after it, streams are given up.
fn told<D: Send + 'static>(
    data: impl FnOnce(&mut BenchSubmitter<'_, D>) -> D + Send + 'static,
    submit: fn(&mut BenchSubmitter<'_, D>, D),
) -> Result<Vec<u8>, i32> {
    let seen = Log::new();
    let log = seen.clone();
    let script = Script::new()
        .on_setup_once(move |mut submitter| {
            let data = data(&mut submitter);
            submit(&mut submitter, data);
            Ok(())
        })
        .on_completion(move |completion, _, _| {
            let result = outcome(&completion);
            let bytes = match completion.raw().flags & 1 {
                0 => Vec::new(),
                _ => match completion.into_buffers() {
                    Ok(buffers) => buffers.flat_map(|buffer| buffer.to_vec()).collect(),
                    Err(_) => Vec::new(),
                },
            };
            log.push(result.map(|length| if bytes.is_empty() { length.to_be_bytes().into() } else { bytes }));
            (ControlFlow::Exit, None)
        });
    Bench::with(8, script).run().unwrap();
    seen.take().remove(0)
}

/// A socket that is registered, and what goes through it.
struct Registered {
    socket: FixedFile,
    bytes: [u8; 8],
    peer: Peer,
    pool: BufferPool,
    address: SocketAddr,
    _others: Vec<OwnedFd>,
}

impl Registered {
    /// As data for [`told`]; the others stay open.
    fn new(
        socket: impl Into<OwnedFd>,
        others: Vec<OwnedFd>,
    ) -> impl FnOnce(&mut BenchSubmitter<'_, Registered>) -> Registered + Send + 'static {
        let socket = socket.into();
        move |submitter| Registered {
            socket: submitter.register_file(&socket).unwrap(),
            bytes: *b"12345678",
            peer: Peer::new(),
            pool: BufferPool::new(2, 4).unwrap(),
            address: SocketAddr::from(([127, 0, 0, 1], 9)),
            _others: others,
        }
    }
}

#[test]
fn sockets_can_be_registered_for_all_that_is_done_with_them() {
    watched(|| {
        type Submit = fn(&mut BenchSubmitter<'_, Registered>, Registered);
        macro_rules! submit {
            ($request:expr) => {
                (|submitter, data| submitter.submit(data, $request).map(drop).unwrap()) as Submit
            };
        }
        macro_rules! stream {
            ($request:expr) => {
                (|submitter, data| submitter.stream(data, $request).map(drop).unwrap()) as Submit
            };
        }
        let done = |result: u32| Ok(result.to_be_bytes().to_vec());

        // What has arrived.
        let here = || {
            let (mut theirs, ours) = tcp_pair();
            theirs.write_all(b"hello").unwrap();
            Registered::new(ours, vec![theirs.into()])
        };
        assert_eq!(told(here(), submit!(|it| request::recv(&it.socket, &mut it.bytes))), done(5));
        let provided = submit!(|it| request::recv_provided(&it.socket, &it.pool));
        assert_eq!(told(here(), provided), Ok(b"hell".to_vec()));
        let whole = submit!(|it| request::recv(&it.socket, &mut it.bytes[..5]).whole());
        assert_eq!(told(here(), whole), done(5));
        let multi = stream!(|it| request::recv_multi(&it.socket, &it.pool));
        assert_eq!(told(here(), multi), Ok(b"hell".to_vec()));
        let bundle = stream!(|it| request::recv_multi_bundle(&it.socket, &it.pool));
        // All of it, or a part.
        assert!(told(here(), bundle).unwrap().starts_with(b"hell"));
        let read = stream!(|it| request::read_multi(&it.socket, &it.pool));
        assert_eq!(told(here(), read), Ok(b"hell".to_vec()));
        let poll = submit!(|it| request::poll(&it.socket, Events::READABLE));
        assert_eq!(told(here(), poll), done(libc::POLLIN as u32));
        let poll = stream!(|it| request::poll_multi(&it.socket, Events::READABLE));
        assert_eq!(told(here(), poll), done(libc::POLLIN as u32));

        // What is sent.
        for (send, expected) in [
            (submit!(|it| request::send(&it.socket, &it.bytes)), &b"12345678"[..]),
            (submit!(|it| request::send_vectored(&it.socket, it.bytes.rchunks(3))), b"67834512"),
            (submit!(|it| request::send_zc(&it.socket, &it.bytes)), b"12345678"),
            (submit!(|it| request::send_vectored_zc(&it.socket, it.bytes.rchunks(3))), b"67834512"),
            (submit!(|it| request::shutdown(&it.socket, Shutdown::Write)), b""),
        ] {
            let (mut theirs, ours) = tcp_pair();
            let sent = told(Registered::new(ours, Vec::new()), send);
            assert_eq!(sent, done(expected.len() as u32));
            let mut received = Vec::new();
            theirs.read_to_end(&mut received).unwrap();
            assert_eq!(received, expected);
        }

        // Datagrams.
        let sockets = || {
            let [ours, theirs] = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
            theirs.send_to(b"ahoy", ours.local_addr().unwrap()).unwrap();
            (Registered::new(ours, Vec::new()), theirs)
        };
        let receive = submit!(|it| request::recv_from(&it.socket, &mut it.bytes, &mut it.peer));
        assert_eq!(told(sockets().0, receive), done(4));
        let send = submit!(|it| request::send_to(&it.socket, &it.bytes[..3], it.address));
        let (ours, theirs) = sockets();
        let address = theirs.local_addr().unwrap();
        let to_them = move |submitter: &mut BenchSubmitter<'_, _>| Registered { address, ..ours(submitter) };
        assert_eq!(told(to_them, send), done(3));
        assert_eq!(theirs.recv(&mut [0; 8]).unwrap(), 3);
        let send = submit!(|it| request::send_to_zc(&it.socket, &it.bytes[..5], it.address));
        let (ours, _) = sockets();
        let to_them = move |submitter: &mut BenchSubmitter<'_, _>| Registered { address, ..ours(submitter) };
        assert_eq!(told(to_them, send), done(5));
        assert_eq!(theirs.recv(&mut [0; 8]).unwrap(), 5);

        // Connections.
        let listening = || {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            Registered::new(listener, vec![client.into()])
        };
        assert_eq!(told(listening(), submit!(|it| request::accept(&it.socket))), done(0));
        assert_eq!(told(listening(), submit!(|it| request::accept_from(&it.socket, &mut it.peer))), done(0));
        assert_eq!(told(listening(), stream!(|it| request::accept_multi(&it.socket))), done(0));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let made = complete((), |()| request::socket(libc::AF_INET, libc::SOCK_STREAM, 0)).0;
        let socket = Registered::new(made.into_fd().unwrap(), Vec::new());
        let to_it = move |submitter: &mut BenchSubmitter<'_, _>| Registered { address, ..socket(submitter) };
        assert_eq!(told(to_it, submit!(|it| request::connect(&it.socket, it.address))), done(0));
        listener.accept().unwrap();

        // Of another ring.
        let mut owner = Bench::with(4, Script::<()>::new());
        let strange = owner.submitter(Bench::FIRST).register_file(tcp_pair().0).unwrap();
        let data = move |submitter: &mut BenchSubmitter<'_, _>| {
            let own = here()(submitter);
            Registered { socket: strange, ..own }
        };
        let send = submit!(|it| request::send_vectored(&it.socket, [&it.bytes[..]]));
        assert_eq!(told(data, send), Err(libc::EBADF));
    });
}

#[test]
fn what_the_ring_does_not_have_is_an_error_and_nothing_else_is_touched() {
    watched(|| {
        let mut owner = Bench::with(4, Script::<()>::new());
        let strange = owner.submitter(Bench::FIRST).register_file(nameless_file()).unwrap();
        let (plain, unregistered) = (Arc::new(nameless_file()), FixedBuffers::new(1, 8).unwrap());
        let untouched = plain.clone();
        // What this ring has registered has the same index.
        let block = move |submitter: &mut BenchSubmitter<'_, Block>| {
            submitter.register_file(&*plain).unwrap();
            submitter.register_buffers(&FixedBuffers::new(1, 8).unwrap()).unwrap();
            Block { plain, file: strange, buffer: unregistered.take().unwrap(), step: 0 }
        };
        const STEPS: &[Step] = &[
            |block| request::read_fixed_at(&block.plain, &mut block.buffer, 0),
            |block| request::write_fixed_at(&block.plain, &block.buffer, 0),
            |block| request::write_at(&block.file, b"in the wrong file", 0),
            |block| request::writev_at(&block.file, [b"in the", b"wrong file"], 0),
            |block| request::fsync(&block.file),
            |block| request::read_at(&block.plain, &mut block.buffer, 0),
        ];
        let (fault, bad) = (Err(libc::EFAULT), Err(libc::EBADF));
        assert_eq!(run_steps(block, STEPS), [fault, fault, bad, bad, bad, Ok(0)]);
        assert_eq!(untouched.metadata().unwrap().len(), 0);
    });
}

#[test]
fn what_was_registered_in_an_earlier_run_is_not_taken_for_something_of_this_one() {
    watched(|| {
        let files = [(); 2].map(|()| Arc::new(nameless_file()));
        let sets = [(); 2].map(|()| FixedBuffers::new(1, 8).unwrap());
        let (seen, written, buffers) = (Log::new(), files.clone(), sets[0].clone());
        let log = seen.clone();
        let (mut runs, mut first) = (0, None);
        let script = Script::new()
            .on_setup(move |mut submitter| {
                // Each run has its own file and set, with the same index.
                submitter.register_buffers(&sets[runs])?;
                let file = submitter.register_file(&*files[runs])?;
                let file = first.get_or_insert(file).clone();
                let data =
                    Block { plain: files[1].clone(), file, buffer: buffers.take().unwrap(), step: runs };
                runs += 1;
                submitter.submit(data, |block| request::write_at(&block.file, b"xyz", 0))?;
                Ok(())
            })
            .on_completion(move |completion, mut block: Block, mut submitter| {
                log.push(outcome(&completion));
                if block.step < 2 {
                    block.step += 2;
                    submitter
                        .submit(block, |block| request::write_fixed_at(&block.plain, &block.buffer, 0))
                        .unwrap();
                }
                (ControlFlow::Continue, None)
            });
        let mut ring = Bench::with(8, script);
        ring.run().unwrap();
        assert_eq!(seen.take(), [Ok(3), Ok(8)]);
        written[1].set_len(0).unwrap();
        ring.run().unwrap();
        assert_eq!(seen.take(), [Err(libc::EBADF), Err(libc::EFAULT)]);
        assert_eq!(written[1].metadata().unwrap().len(), 0);
    });
}

#[test]
fn a_set_is_of_one_ring_until_that_has_finished() {
    watched(|| {
        let buffers = FixedBuffers::new(1, 64).unwrap();
        let mut one = Bench::with(4, Script::<()>::new());
        let mut other = Bench::with(4, Script::<()>::new());
        one.submitter(Bench::FIRST).register_buffers(&buffers).unwrap();
        let refused = other.submitter(Bench::SECOND).register_buffers(&buffers);
        assert_eq!(refused, Err(SubmitError::PoolInUse));
        one.run().unwrap();
        other.submitter(Bench::FIRST).register_buffers(&buffers).unwrap();
        assert_eq!(one.submitter(Bench::FIRST).register_buffers(&buffers), Err(SubmitError::PoolInUse));
        drop(other);
        one.submitter(Bench::FIRST).register_buffers(&buffers).expect("that one is gone");
    });
}

/// Whether nobody has the writing end of this pipe open.
fn is_at_its_end(reader: OwnedFd) -> bool {
    let mut poll = libc::pollfd { fd: std::os::fd::AsRawFd::as_raw_fd(&reader), events: 0, revents: 0 };
    // SAFETY: there is one of it.
    let ready = unsafe { libc::poll(&raw mut poll, 1, 1000) };
    ready == 1 && poll.revents & libc::POLLHUP != 0
}

#[test]
fn a_file_is_closed_when_it_is_unregistered_and_not_before_others_are_done_with_it() {
    watched(|| {
        let (reader, writer) = pipe();
        let mut ring = Bench::with(4, Script::<(FixedFile, [u8; 1])>::new());
        let file = ring.submitter(Bench::FIRST).register_file(writer).unwrap();
        let data = (file.clone(), *b"x");
        ring.submitter(Bench::FIRST).submit(data, |(file, byte)| request::write(file, byte)).unwrap();
        let file = ring.submitter(Bench::FIRST).unregister_file(file).expect_err("a request has it");
        while ring.stats().in_flight > 0 {
            ring.turn().unwrap();
        }
        let mut byte = [0];
        File::from(reader.try_clone().unwrap()).read_exact(&mut byte).unwrap();
        assert_eq!(byte, *b"x", "the request was not disturbed");

        let mut other = Bench::with(4, Script::<()>::new());
        other.submitter(Bench::FIRST).register_file(nameless_file()).unwrap();
        let file = other.submitter(Bench::FIRST).unregister_file(file).expect_err("it is not of this ring");
        ring.submitter(Bench::FIRST).unregister_file(file).unwrap();
        assert!(is_at_its_end(reader), "nobody else had it open");
    });
}

#[test]
fn files_that_nobody_has_make_room_and_what_is_left_is_closed_at_the_end() {
    watched(|| {
        in_child(|| {
            const MOST: u64 = 64;
            set_limit(libc::RLIMIT_NOFILE, MOST);
            let before = open_descriptors();
            let ends: Vec<OwnedFd> = {
                let mut ring = Bench::with(4, Script::<()>::new());
                let mut submitter = ring.submitter(Bench::FIRST);
                let kept: Vec<FixedFile> =
                    (0..MOST).map_while(|_| submitter.register_file(std::io::stdin()).ok()).collect();
                assert_eq!(kept.len(), MOST as usize, "a table of as many places as there may be files");
                let full = submitter.register_file(std::io::stdin()).unwrap_err();
                assert_eq!(full, SubmitError::PoolRefused(libc::EMFILE));
                let some = kept.into_iter().take(3).collect::<Vec<_>>();
                // Each of these finds a place, because the one before it is no longer in use.
                (0..5 * MOST).for_each(|_| drop(submitter.register_file(std::io::stdin()).unwrap()));
                drop(some);
                let (reader, writer) = pipe();
                submitter.register_file(writer).unwrap();
                ring.run().unwrap();
                vec![reader]
            };
            ends.into_iter().for_each(|reader| assert!(is_at_its_end(reader)));
            assert_eq!(open_descriptors(), before);
        });
    });
}

#[test]
fn memory_that_may_not_be_pinned_is_refused_with_a_reason() {
    watched(|| {
        in_child(|| {
            become_nobody();
            set_limit(libc::RLIMIT_MEMLOCK, 64 * 1024);
            let Ok(raw) = RawRing::new(1.try_into().unwrap()) else {
                return eprintln!("skipped: not even the ring may be");
            };
            let mut ring = Bench::builder(Script::<()>::new(), Script::new()).raw_ring(raw).build().unwrap();
            let large = FixedBuffers::new(1024, 1024).unwrap();
            let mut submitter = ring.submitter(Bench::FIRST);
            let refused = submitter.register_buffers(&large);
            assert_eq!(refused, Err(SubmitError::PoolRefused(libc::ENOMEM)));
            let why = std::io::Error::from(refused.unwrap_err()).to_string();
            assert!(why.contains("did not register the buffers"), "{why}");
            // That does not prevent others.
            submitter.register_buffers(&FixedBuffers::new(1, 64).unwrap()).unwrap();
        });
    });
}

#[test]
fn a_ring_that_is_dropped_under_way_gives_all_of_it_back() {
    watched(|| {
        in_child(|| {
            let before = open_descriptors();
            let buffers = FixedBuffers::new(2, 64).unwrap();
            let (reader, mut writer) = std::io::pipe().unwrap();
            let mut ring = Bench::with(4, Script::<(FixedFile, FixedBuffer)>::new());
            let mut submitter = ring.submitter(Bench::FIRST);
            submitter.register_buffers(&buffers).unwrap();
            let data = (submitter.register_file(&reader).unwrap(), buffers.take().unwrap());
            drop(reader);
            submitter.submit(data, |(file, buffer)| request::read_fixed(file, buffer)).unwrap();
            ring.turn().unwrap();
            drop(ring);
            assert_eq!(buffers.available(), 2);
            assert!(writer.write_all(b"x").is_err(), "nobody has the reading end any more");
            drop(writer);
            assert_eq!(open_descriptors(), before);
            let mut next = Bench::with(4, Script::<()>::new());
            next.submitter(Bench::FIRST).register_buffers(&buffers).expect("it was given back");
        });
    });
}

#[test]
fn memory_that_there_is_not_is_refused() {
    in_child(|| {
        set_limit(libc::RLIMIT_AS, 3 << 30);
        let error = FixedBuffers::new(1 << 30, 1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OutOfMemory);
    });
}

#[test]
fn only_the_thread_and_the_process_of_the_ring_change_what_it_has() {
    watched(|| {
        in_child(|| {
            let buffers = FixedBuffers::new(1, 8).unwrap();
            let (reader, writer) = pipe();
            let mut ring = Bench::with(4, Script::<(FixedFile, FixedBuffer)>::new());
            ring.submitter(Bench::FIRST).register_buffers(&buffers).unwrap();
            let file = ring.submitter(Bench::FIRST).register_file(writer).unwrap();
            in_fork(|| {
                let mut submitter = ring.submitter(Bench::FIRST);
                assert_eq!(submitter.register_buffers(&buffers), Err(SubmitError::Forked));
                assert!(submitter.unregister_file(file.clone()).is_err());
                // As if the child had ended without a fork.
                // SAFETY: the ring of this process is not used any more.
                drop(unsafe { std::ptr::read(&raw const ring) });
            });
            ring.turn().unwrap();
            let elsewhere = thread::scope(|scope| {
                let change = || {
                    let mut submitter = ring.submitter(Bench::FIRST);
                    let other = FixedBuffers::new(1, 8).unwrap();
                    let registered = submitter.register_buffers(&other);
                    (registered, submitter.unregister_file(file).unwrap_err())
                };
                scope.spawn(change).join().unwrap()
            });
            let (registered, file) = elsewhere;
            assert_eq!(registered, Err(SubmitError::PoolRefused(libc::EEXIST)));
            let data = (file, buffers.take().unwrap());
            ring.submitter(Bench::FIRST)
                .submit(data, |(file, buffer)| request::write_fixed(file, buffer))
                .unwrap();
            ring.run().unwrap();
            let mut bytes = Vec::new();
            File::from(reader).read_to_end(&mut bytes).unwrap();
            assert_eq!(bytes, [0; 8], "all was as before");
        });
    });
}

/// Sends this many bytes on one ring, in the way that is asked for, while a thread reads them. Returns the results.
fn send(
    ring: &mut Bench<(Arc<TcpStream>, FixedBuffer)>,
    submit: impl FnOnce(BenchSubmitter<'_, (Arc<TcpStream>, FixedBuffer)>, (Arc<TcpStream>, FixedBuffer)),
    buffer: FixedBuffer,
) -> Vec<u8> {
    let (client, mut server) = tcp_pair();
    let reader = thread::spawn(move || {
        let mut bytes = Vec::new();
        server.read_to_end(&mut bytes).unwrap();
        bytes
    });
    submit(ring.submitter(Bench::FIRST), (Arc::new(client), buffer));
    ring.run().unwrap();
    reader.join().unwrap()
}

#[test]
fn bytes_are_sent_without_a_copy() {
    const SENT: usize = 1 << 22;
    watched(|| {
        let (seen, buffers) = (Log::new(), FixedBuffers::new(1, SENT as u32).unwrap());
        let log = seen.clone();
        let script = Script::new().on_completion(move |completion, _, _| {
            log.push((outcome(&completion), completion.more()));
            (ControlFlow::Continue, None)
        });
        let mut ring = Bench::with(4, script);
        let filled = || {
            let mut buffer = buffers.take().unwrap();
            (0..).zip(&mut *buffer).for_each(|(number, byte): (usize, _)| *byte = (number / 5) as u8);
            buffer
        };
        let expected = filled().to_vec();

        for is_registered in [false, true] {
            let bytes = send(
                &mut ring,
                |mut submitter, data| {
                    let submitted = match is_registered {
                        false => submitter.submit(data, |(socket, buffer)| request::send_zc(socket, buffer)),
                        true => {
                            submitter.register_buffers(&buffers).unwrap();
                            submitter.submit(data, |(socket, buffer)| {
                                request::send_zc_fixed(socket, buffer.part(..SENT - 7))
                            })
                        }
                    };
                    submitted.unwrap();
                },
                filled(),
            );
            let told = seen.take();
            let [(Ok(sent), false)] = told[..] else { panic!("one completion, the last: {told:?}") };
            assert_eq!(bytes.len(), sent as usize, "which says how much the peer got");
            assert!(bytes == expected[..bytes.len()]);
        }

        // Nobody waits for these, so they go out whole.
        let whole = send(
            &mut ring,
            |mut submitter, data| {
                submitter.detach(data, |(socket, buffer)| request::send_zc(socket, buffer)).unwrap();
            },
            filled(),
        );
        assert!(whole == expected);
        let whole = send(
            &mut ring,
            |mut submitter, data| {
                submitter.register_buffers(&buffers).unwrap();
                submitter.detach(data, |(socket, buffer)| request::send_zc_fixed(socket, buffer)).unwrap();
            },
            filled(),
        );
        assert!(whole == expected);
        assert_eq!((seen.len(), ring.stats().detached_failed), (0, 0));

        what_can_not_be_sent_so_is_an_error(&buffers);
    });
}

/// A send that can't be done without a copy ends with an error, once.
fn what_can_not_be_sent_so_is_an_error(buffers: &FixedBuffers) {
    let seen = Log::new();
    let log = seen.clone();
    let script = Script::new().on_completion(move |completion, _: (OwnedFd, FixedBuffer), _| {
        log.push(outcome(&completion));
        (ControlFlow::Continue, None)
    });
    let mut ring = Bench::with(4, script);
    let (client, _server) = tcp_pair();
    let data = (client.into(), buffers.take().unwrap());
    let mut submitter = ring.submitter(Bench::FIRST);
    submitter.submit(data, |(socket, buffer)| request::send_zc_fixed(socket, buffer)).unwrap();
    ring.run().unwrap();
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let data = (ours.into(), buffers.take().unwrap());
    ring.submitter(Bench::FIRST)
        .submit(data, |(socket, buffer)| request::send_zc(socket, &buffer[..10]))
        .unwrap();
    ring.run().unwrap();
    assert_eq!(seen.take(), [Err(libc::EFAULT), Err(libc::EOPNOTSUPP)]);
}

#[test]
fn a_part_beyond_the_end_is_where_it_was_asked_for() {
    in_child_anywhere(|| {
        let places = Arc::new(Mutex::new(Vec::new()));
        let seen = places.clone();
        panic::set_hook(Box::new(move |info| {
            let place = info.location().map(|it| (it.file().to_owned(), it.line()));
            seen.lock().unwrap().push(place.unwrap());
        }));
        let mut buffer = FixedBuffers::new(1, 16).unwrap().take().unwrap();
        let first = line!() + 1;
        panic::catch_unwind(AssertUnwindSafe(|| _ = buffer.part(..17))).unwrap_err();
        panic::catch_unwind(AssertUnwindSafe(|| _ = buffer.part_mut(17..))).unwrap_err();
        let places = places.lock().unwrap().clone();
        assert_eq!(places, [first, first + 1].map(|line| (file!().to_owned(), line)));
    });
}
