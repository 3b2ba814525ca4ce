//! Requests that the simulation really carries out: where a real ring is asked for the same, it must give the same
//! result.

use super::*;

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
        let (ours, theirs) = UnixStream::pair().unwrap();
        theirs.shutdown(Shutdown::Both).unwrap();
        Asking::<UnixStream> { data: ours, request: |ours| request::send(ours, b"hello") }
    });
    assert_eq!(outcome, Err(libc::EPIPE));
}

#[test]
fn what_is_there_comes_in_a_buffer_of_a_pool() {
    let pool = BufferPool::new(1, 4).unwrap();
    for (sent, outcome) in [(&b"hello"[..], Ok(4)), (b"hi", Ok(2)), (b"", Ok(0))] {
        let (received, _) = ask(|| {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            theirs.write_all(sent).unwrap();
            Asking::<(UnixStream, BufferPool)> {
                data: (ours, pool.clone()),
                request: |(ours, pool)| request::recv_provided(ours, pool),
            }
        });
        assert_eq!((received, pool.available()), (outcome, 1));
    }
    for (offset, outcome) in [(0, Ok(4)), (8, Ok(2)), (10, Ok(0))] {
        let (read, _) = ask(|| Asking::<(File, BufferPool, u64)> {
            data: (temporary_file(b"0123456789"), pool.clone(), offset),
            request: |(file, pool, offset)| request::read_provided_at(file, pool, *offset),
        });
        assert_eq!((read, pool.available()), (outcome, 1));
    }
}

#[test]
fn a_read_that_does_not_fill_its_buffer_breaks_its_chain() {
    type Data = (File, BufferPool, u64);
    fn read((file, pool, offset): &mut Data) -> Request<'_> {
        request::read_provided_at(file, pool, *offset)
    }
    let told = |raw: RawRing, offset| {
        let (pool, log) = (BufferPool::new(1, 4).unwrap(), Log::new());
        let seen = log.clone();
        let mut ring = bench(
            raw,
            Script::new().on_completion(move |completion, _, _| {
                seen.push(outcome(&completion));
                (GO_ON, None)
            }),
        );
        let data = || (temporary_file(b"0123456789"), pool.clone(), offset);
        let mut submitter = ring.submitter(Bench::FIRST);
        let mut chain = submitter.chain();
        chain.link(data(), read).unwrap();
        chain.submit(data(), |_| request::nop()).unwrap();
        ring.run().unwrap();
        log.take()
    };
    for (offset, expected) in
        [(0, [Ok(4), Ok(0)]), (8, [Ok(2), Err(libc::ECANCELED)]), (10, [Ok(0), Err(libc::ECANCELED)])]
    {
        assert_eq!(told(calm().raw_ring(size(8)).unwrap(), offset), expected, "at {offset}");
        if let Ok(raw) = RawRing::new(size(8)) {
            assert_eq!(told(raw, offset), expected, "at {offset}, by the real kernel");
        }
    }
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
    let (_deaf, refused) = deaf();
    let (outcome, _) = ask(|| {
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

    let there = Directory::new("simulation");
    let path = there.path("listener");
    let listener = UnixListener::bind(&path).unwrap();
    let mut client = UnixStream::connect(&path).unwrap();
    drop(there);
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
fn a_path_that_is_not_known_yet_is_not_waited_for() {
    let (outcome, ()) = ask(|| Asking::<()> {
        data: (),
        request: |()| {
            let options = request::OpenOptions::new().write(true).create(true);
            let options = options.resolve(request::Resolve::CACHED);
            request::openat(&request::CWD, c"/tmp/rummelplatz-never-there", &options)
        },
    });
    assert_eq!(outcome, Err(libc::EAGAIN));
}

#[test]
fn a_descriptor_is_closed_whoever_answers_for_the_close() {
    let close = |answer: fn() -> Answer| {
        let simulation = calm();
        simulation.on_request(move |asked| if asked.name() == "CLOSE" { answer() } else { Answer::Perform });
        let (reader, writer) = pipe();
        let asking = Asking::<Option<OwnedFd>> {
            data: Some(writer),
            request: |writer| request::close(writer.take().unwrap()),
        };
        let told = ask_on(simulation.raw_ring(size(8)).unwrap(), asking).0;
        assert!(soon(|| has_hung_up(&reader)), "{told:?}");
        told
    };
    assert_eq!(close(|| Answer::Finish(0)), Ok(0));
    assert_eq!(close(|| Answer::More(0)), Ok(0));
    assert_eq!(close(|| Answer::Finish(-libc::EIO)), Err(libc::EIO));
    assert_eq!(close(|| Answer::Finish(-libc::EAGAIN)), Err(libc::EAGAIN));
    // Here the ring closes it.
    assert_eq!(close(|| Answer::Finish(-libc::ECANCELED)), Err(libc::ECANCELED));
    let said = panic_of(|| {
        close(|| Answer::Finish(-libc::EBADF)).ok();
    });
    assert!(said.contains("`EBADF` is no answer to that"), "{said}");
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
    let entry = opcode::Splice::new(types::Fd(0), -1, types::Fd(0), -1, 1).build();
    assert_eq!(push_one(&calm(), entry, data), [RawCompletion { result: -libc::EINVAL, flags: 0 }]);
    let simulation = calm();
    simulation.on_request(|asked| match asked.name() {
        "SPLICE" => Answer::Finish(0),
        _ => Answer::Perform,
    });
    let entry = opcode::Splice::new(types::Fd(0), -1, types::Fd(0), -1, 1).build();
    assert_eq!(push_one(&simulation, entry, Box::new([0; 16])), [RawCompletion { result: 0, flags: 0 }]);
}

#[test]
fn the_numbers_of_registered_files_are_no_descriptors() {
    let (_reader, writer) = pipe();
    let mut data = Box::new([0_u8; 16]);
    // If this were taken for a descriptor, it would write to the pipe.
    let slot = types::Fixed(writer.as_raw_fd() as u32);
    let entry = opcode::Write::new(slot, data.as_mut_ptr(), 16).offset(u64::MAX).build();
    assert_eq!(push_one(&calm(), entry, data), [RawCompletion { result: -libc::EBADF, flags: 0 }]);
    // Nor is the descriptor 0 closed.
    let entry = opcode::Close::new(types::Fixed(3)).build();
    let told = push_one(&calm(), entry, Box::new([0; 16]));
    assert_eq!(told, [RawCompletion { result: -libc::ENXIO, flags: 0 }]);
    // SAFETY: a plain call.
    assert!(unsafe { libc::fcntl(0, libc::F_GETFD) } >= 0);
}
