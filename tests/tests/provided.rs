//! Single requests that get a buffer of a pool: what arrives in it, what happens when there is none, and that it always
//! goes back.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rummelplatz::{Buffer, BufferPool, ControlFlow, FixedFile, Refused, Request, SubmitError, request};
use rummelplatz_tests::{
    Bench, Directory, Ledger, Log, Script, Tracked, complete, in_child, open_descriptors, outcome, panic_of,
    pipe, tcp_pair, watched,
};

/// Receives once, from any kind of file, into a pool.
struct Receiver {
    from: OwnedFd,
    pool: BufferPool,
    offset: u64,
    time: Duration,
}

impl Receiver {
    fn new(from: impl Into<OwnedFd>, pool: &BufferPool) -> Receiver {
        Receiver { from: from.into(), pool: pool.clone(), offset: 0, time: LONG }
    }

    fn recv(&mut self) -> Request<'_> {
        request::recv_provided(&self.from, &self.pool)
    }

    fn recv_in_time(&mut self) -> Request<'_> {
        let time = self.time;
        self.recv().deadline(time)
    }

    fn read(&mut self) -> Request<'_> {
        request::read_provided(&self.from, &self.pool)
    }

    fn read_at(&mut self) -> Request<'_> {
        request::read_provided_at(&self.from, &self.pool, self.offset)
    }
}

/// Longer than anything takes here.
const LONG: Duration = Duration::from_secs(1000);

fn pool(count: u16, size: u32) -> BufferPool {
    BufferPool::new(count, size).unwrap()
}

/// The next bytes that come, and the receiver.
fn next(receiver: Receiver, build: fn(&mut Receiver) -> Request<'_>) -> (Result<Vec<u8>, i32>, Receiver) {
    let (completion, receiver) = complete(receiver, build);
    let result = outcome(&completion);
    let buffer = completion.into_buffer().map_err(|error| error.raw_os_error().unwrap());
    assert_eq!(buffer.as_ref().map(|it| it.len() as u32).map_err(|errno| *errno), result);
    (buffer.map(|buffer| buffer.to_vec()), receiver)
}

#[test]
fn what_arrives_comes_in_a_buffer_of_the_pool() {
    watched(|| {
        let pool = pool(2, 8);
        let (mut client, server) = tcp_pair();
        client.write_all(b"more than fits").unwrap();
        let receiver = Receiver::new(server, &pool);
        let (bytes, receiver) = next(receiver, Receiver::recv);
        assert_eq!(bytes, Ok(b"more tha".to_vec()));
        let (bytes, receiver) = next(receiver, Receiver::recv);
        assert_eq!(bytes, Ok(b"n fits".to_vec()));
        client.shutdown(Shutdown::Write).unwrap();
        let (end, _) = next(receiver, Receiver::recv);
        assert_eq!((end, pool.available()), (Ok(Vec::new()), 2));

        let (reader, writer) = pipe();
        File::from(writer).write_all(b"through a pipe").unwrap();
        let (bytes, receiver) = next(Receiver::new(reader, &pool), Receiver::read);
        assert_eq!(bytes, Ok(b"through ".to_vec()));
        assert_eq!(next(receiver, Receiver::recv).0, Err(libc::ENOTSOCK));
        let (_client, server) = tcp_pair();
        let wrong = complete(Receiver::new(server, &pool), |it| it.recv().deadline(Duration::ZERO)).0;
        assert!(wrong.timed_out() && wrong.into_datagram().is_err());
        assert_eq!(pool.available(), 2);
    });
}

#[test]
fn files_are_read_at_their_position_and_at_offsets() {
    watched(|| {
        let (there, pool) = (Directory::new("provided"), pool(1, 4));
        there.file("file", b"0123456789");
        let open = || File::open(there.path("file")).unwrap();
        let mut file = open();
        file.seek(SeekFrom::Start(3)).unwrap();
        let (bytes, receiver) = next(Receiver::new(file, &pool), Receiver::read);
        assert_eq!(bytes, Ok(b"3456".to_vec()));
        let at = |receiver, offset| next(Receiver { offset, ..receiver }, Receiver::read_at);
        let (bytes, receiver) = at(receiver, 8);
        assert_eq!(bytes, Ok(b"89".to_vec()));
        let (end, receiver) = at(receiver, 10);
        assert_eq!((end, pool.available()), (Ok(Vec::new()), 1));
        assert_eq!(at(receiver, 0).0, Ok(b"0123".to_vec()));

        // A registered file; and one of another ring.
        let seen = Log::new();
        let log = seen.clone();
        fn read((file, pool): &mut (FixedFile, BufferPool)) -> Request<'_> {
            request::read_provided_at(file, pool, 1)
        }
        let mut owner: Bench<()> = Bench::with(2, Script::new());
        let strange = owner.submitter(Bench::FIRST).register_file(open()).unwrap();
        let (data, path) = (pool.clone(), open());
        let script = Script::new()
            .on_setup_once(move |mut submitter| {
                let file = submitter.register_file(path)?;
                submitter.submit((file, data.clone()), read)?;
                submitter.submit((strange, data), read)?;
                Ok(())
            })
            .on_completion(move |completion, _, _| {
                log.push(completion.into_buffer().map(|it| it.to_vec()).map_err(|it| it.raw_os_error()));
                (ControlFlow::Continue, None)
            });
        Bench::with(4, script).run().unwrap();
        let mut seen = seen.take();
        seen.sort();
        assert_eq!(seen, [Ok(b"1234".to_vec()), Err(Some(libc::EBADF))]);
        assert_eq!(pool.available(), 1);
    });
}

#[test]
fn connections_on_which_nothing_happens_need_no_buffer() {
    watched(|| {
        const COUNT: usize = 50;
        let pool = pool(1, 8);
        let (clients, servers): (Vec<_>, Vec<_>) = (0..COUNT).map(|_| tcp_pair()).unzip();
        let receivers: Vec<_> = servers.into_iter().map(|server| Receiver::new(server, &pool)).collect();
        let (seen, total) = (Log::new(), pool.clone());
        let log = seen.clone();
        let script = Script::new()
            .on_setup_once(move |mut submitter| {
                for receiver in receivers {
                    submitter.submit(receiver, Receiver::recv)?;
                }
                Ok(())
            })
            .on_completion(move |completion, mut receiver: Receiver, mut submitter| {
                match completion.into_buffer() {
                    Ok(buffer) if buffer.is_empty() => return (ControlFlow::Continue, None),
                    Ok(buffer) => log.push(buffer.to_vec()),
                    // The only buffer may be on its way with another request.
                    Err(error) => assert_eq!(error.raw_os_error(), Some(libc::ENOBUFS)),
                }
                receiver.pool = receiver.pool.clone();
                submitter.submit(receiver, Receiver::recv).unwrap();
                (ControlFlow::Continue, None)
            });
        let mut ring = Bench::with(16, script);
        ring.turn().unwrap();
        assert_eq!((ring.stats().in_flight, total.available()), (COUNT, 1));
        for (number, mut client) in clients.into_iter().enumerate() {
            client.write_all(&[number as u8]).unwrap();
        }
        ring.run().unwrap();
        let mut seen = seen.take();
        seen.sort();
        assert!(seen.into_iter().eq((0..COUNT).map(|number| vec![number as u8])));
        assert_eq!(total.available(), 1);
    });
}

#[test]
fn two_pools_in_one_ring_are_kept_apart() {
    watched(|| {
        let pools = [pool(1, 4), pool(1, 8)];
        let mut ring = Bench::with(
            4,
            Script::new().on_completion(|completion, receiver: Receiver, _| {
                let buffer = completion.into_buffer().unwrap();
                assert_eq!((buffer.len(), receiver.pool.available()), (receiver.pool.buffer_size(), 0));
                assert!(buffer.iter().all(|byte| *byte == buffer.len() as u8));
                (ControlFlow::Continue, None)
            }),
        );
        // When they are registered, and how.
        for build in [Receiver::recv, Receiver::recv_in_time, Receiver::recv] {
            for pool in &pools {
                let (mut client, server) = tcp_pair();
                client.write_all(&vec![pool.buffer_size() as u8; pool.buffer_size()]).unwrap();
                ring.submitter(Bench::FIRST).submit(Receiver::new(server, pool), build).unwrap();
            }
            ring.turn().unwrap();
        }
        ring.run().unwrap();
        assert_eq!(pools.map(|pool| pool.available()), [1, 1]);
    });
}

#[test]
fn without_a_buffer_it_ends_and_the_bytes_stay() {
    watched(|| {
        let pool = pool(1, 4);
        let (mut client, server) = tcp_pair();
        client.write_all(b"firstnext").unwrap();
        let (held, seen) = (Log::<Buffer>::new(), Log::new());
        let (hold, log) = (held.clone(), seen.clone());
        let receiver = Receiver::new(server, &pool);
        let script = Script::new()
            .on_setup_once(move |mut submitter| {
                submitter.submit(receiver, Receiver::recv)?;
                Ok(())
            })
            .on_completion(move |completion, receiver: Receiver, mut submitter| {
                assert!(!completion.more());
                match completion.into_buffer() {
                    Ok(buffer) => {
                        log.push(Ok(buffer.to_vec()));
                        if log.len() == 3 {
                            return (ControlFlow::Continue, None);
                        }
                        hold.push(buffer);
                    }
                    Err(error) => {
                        log.push(Err(error.raw_os_error().unwrap()));
                        drop(hold.take());
                    }
                }
                submitter.submit(receiver, Receiver::recv).unwrap();
                (ControlFlow::Continue, None)
            });
        let mut ring = Bench::with(4, script);
        ring.run().unwrap();
        let expected = [Ok(b"firs".to_vec()), Err(libc::ENOBUFS), Ok(b"tnex".to_vec())];
        assert_eq!(seen.take(), expected);
        assert_eq!((pool.available(), ring.stats().in_flight), (1, 0));
    });
}

/// The function that makes a request of counted data.
type Build = fn(&mut Tracked<Receiver>) -> Request<'_>;

const PLAIN: Build = |it| it.recv();
const IN_TIME: Build = |it| it.recv_in_time();

#[test]
fn a_pool_of_another_ring_is_refused_by_every_call() {
    watched(|| {
        let (ledger, pool) = (Ledger::new(), pool(2, 8));
        let (_client, server) = tcp_pair();
        let data = || ledger.issue(Receiver::new(server.try_clone().unwrap(), &pool));
        let mut owner: Bench<Tracked<Receiver>> = Bench::with(4, Script::new());
        owner.submitter(Bench::FIRST).submit(data(), PLAIN).unwrap();
        assert_eq!((owner.stats().in_flight, ledger.alive()), (1, 1));

        let mut other: Bench<Tracked<Receiver>> = Bench::with(2, Script::new());
        let mut submitter = other.submitter(Bench::FIRST);
        // With room in the queue, and without.
        for _ in 0..2 {
            let alive = ledger.alive();
            for build in [PLAIN, IN_TIME] {
                let refused = submitter.try_submit(data(), build);
                let Err(Refused { data: back, error: SubmitError::PoolInUse }) = refused else {
                    panic!("{refused:?}")
                };
                assert_eq!(ledger.alive(), alive + 1, "the data is back");
                assert_eq!(submitter.submit(back, build), Err(SubmitError::PoolInUse));
                assert_eq!(submitter.detach(data(), build), Err(SubmitError::PoolInUse));
                assert_eq!(submitter.chain().submit(data(), build), Err(SubmitError::PoolInUse));
                assert_eq!(ledger.alive(), alive);
            }
            submitter.submit(data(), |_| request::nop()).unwrap();
            submitter.submit(data(), |_| request::nop()).unwrap();
        }
        assert_eq!((other.stats().in_flight, ledger.alive()), (4, 5));
        other.run().unwrap();
        assert_eq!((other.stats().in_flight, ledger.alive()), (0, 1));
        owner.finish().unwrap();
        // Now the buffer is free.
        other.submitter(Bench::FIRST).submit(data(), PLAIN).unwrap();
        other.finish().unwrap();
        ledger.assert_all_dropped_once();
        assert_eq!(pool.available(), 2);
    });
}

#[test]
fn a_chain_goes_on_after_a_member_that_was_refused() {
    watched(|| {
        let (ledger, own, taken) = (Ledger::new(), pool(1, 8), pool(1, 8));
        let (mut client, server) = tcp_pair();
        client.write_all(b"hello").unwrap();
        let data = |pool| ledger.issue(Receiver::new(server.try_clone().unwrap(), pool));
        let mut owner: Bench<Tracked<Receiver>> = Bench::with(4, Script::new());
        let idle = ledger.issue(Receiver::new(tcp_pair().1, &taken));
        owner.submitter(Bench::FIRST).submit(idle, PLAIN).unwrap();

        let seen = Log::new();
        let log = seen.clone();
        let script = Script::new().on_completion(move |completion, _, _| {
            log.push((outcome(&completion), completion.into_buffer().map_or(0, |it| it.len())));
            (ControlFlow::Continue, None)
        });
        let mut ring = Bench::with(4, script);
        let mut submitter = ring.submitter(Bench::FIRST);
        let mut chain = submitter.chain();
        chain.link(data(&own), |_| request::nop()).unwrap();
        assert_eq!(chain.link(data(&taken), IN_TIME), Err(SubmitError::PoolInUse));
        chain.link(data(&own), IN_TIME).unwrap();
        chain.submit(data(&own), |_| request::nop()).unwrap();
        ring.run().unwrap();
        assert_eq!(seen.take(), [(Ok(0), 0), (Ok(5), 5), (Ok(0), 0)]);
        drop((ring, owner));
        ledger.assert_all_dropped_once();
        assert_eq!((own.available(), taken.available()), (1, 1));
    });
}

#[test]
fn in_a_chain_a_receive_succeeds_with_any_bytes_and_a_read_with_a_full_buffer() {
    watched(|| {
        let there = Directory::new("provided-chain");
        there.file("file", b"0123456");
        let pool = pool(2, 4);
        let outcomes = |first: Receiver, build: fn(&mut Receiver) -> Request<'_>| {
            let seen = Log::new();
            let log = seen.clone();
            let script = Script::new().on_completion(move |completion, _, _| {
                log.push(outcome(&completion));
                (ControlFlow::Continue, None)
            });
            let mut ring = Bench::with(4, script);
            let mut submitter = ring.submitter(Bench::FIRST);
            let second = Receiver::new(first.from.try_clone().unwrap(), &first.pool);
            let mut chain = submitter.chain();
            chain.link(first, build).unwrap();
            chain.submit(second, |_| request::nop()).unwrap();
            ring.run().unwrap();
            seen.take()
        };
        let (mut client, server) = tcp_pair();
        client.write_all(b"xy").unwrap();
        assert_eq!(outcomes(Receiver::new(server, &pool), Receiver::recv), [Ok(2), Ok(0)]);
        let file =
            |offset| Receiver { offset, ..Receiver::new(File::open(there.path("file")).unwrap(), &pool) };
        assert_eq!(outcomes(file(0), Receiver::read_at), [Ok(4), Ok(0)]);
        assert_eq!(outcomes(file(4), Receiver::read_at), [Ok(3), Err(libc::ECANCELED)]);
        assert_eq!(pool.available(), 2);
    });
}

#[test]
fn a_deadline_leaves_the_buffer_where_it_belongs() {
    watched(|| {
        let pool = pool(1, 8);
        // On a ring of one entry, the deadline has a timer of its own.
        for entries in [1, 8] {
            for sends in [true, false] {
                let (mut client, server) = tcp_pair();
                if sends {
                    client.write_all(b"early").unwrap();
                }
                let seen = Log::new();
                let log = seen.clone();
                let script = Script::new().on_completion(move |completion, _, _| {
                    let timed_out = completion.timed_out();
                    let bytes = completion.into_buffer().map(|it| it.to_vec());
                    log.push((bytes.map_err(|it| it.raw_os_error()), timed_out));
                    (ControlFlow::Continue, None)
                });
                let mut ring = Bench::with(entries, script);
                let time = if sends { LONG } else { Duration::from_millis(2) };
                let receiver = Receiver { time, ..Receiver::new(server, &pool) };
                ring.submitter(Bench::FIRST).submit(receiver, Receiver::recv_in_time).unwrap();
                ring.run().unwrap();
                let expected = match sends {
                    true => (Ok(b"early".to_vec()), false),
                    false => (Err(Some(libc::ECANCELED)), true),
                };
                assert_eq!(seen.take(), [expected], "with {entries} entries");
                assert_eq!(pool.available(), 1);
            }
        }
    });
}

#[test]
fn what_nobody_takes_goes_back_to_the_pool() {
    watched(|| {
        let (ledger, pool) = (Ledger::new(), pool(4, 8));
        let (client, server) = tcp_pair();
        let data = || ledger.issue(Receiver::new(server.try_clone().unwrap(), &pool));
        let send = || (&client).write_all(b"12345678").unwrap();
        // Detached.
        send();
        let mut ring: Bench<Tracked<Receiver>> = Bench::with(4, Script::new());
        ring.submitter(Bench::FIRST).detach(data(), PLAIN).unwrap();
        ring.run().unwrap();
        assert_eq!((pool.available(), ring.stats().detached_failed), (4, 0));
        // A handler that does not look at the completion, and returns the data of a request that is over.
        send();
        let script = Script::new().on_completion(|_, data, _| (ControlFlow::Continue, Some(data)));
        let mut ring = Bench::with(4, script);
        ring.submitter(Bench::FIRST).submit(data(), PLAIN).unwrap();
        ring.run().unwrap();
        assert_eq!((pool.available(), ring.stats().returned_late), (4, 1));
        // A handler that panics, with another completion behind it.
        for _ in 0..3 {
            send();
        }
        let script = Script::new().on_completion(|_, _, _| panic!("on purpose"));
        let mut ring = Bench::with(4, script);
        for _ in 0..3 {
            ring.submitter(Bench::FIRST).submit(data(), PLAIN).unwrap();
        }
        assert_eq!(panic_of(|| ring.run()), "on purpose");
        assert_eq!((pool.available(), ring.stats().in_flight), (4, 0));
        // A request that is cancelled.
        let script = Script::new();
        let mut ring = Bench::with(4, script);
        let key = ring.submitter(Bench::FIRST).submit(data(), PLAIN).unwrap();
        ring.turn().unwrap();
        assert!(ring.submitter(Bench::FIRST).cancel(key));
        ring.run().unwrap();
        drop(ring);
        ledger.assert_all_dropped_once();
        assert_eq!(pool.available(), 4);
    });
}

#[test]
fn a_teardown_gives_all_buffers_back() {
    in_child(|| {
        let before = open_descriptors();
        for (end, timed) in (0..3).flat_map(|end| [(end, false), (end, true)]) {
            let (ledger, pool) = (Ledger::new(), pool(8, 8));
            let (clients, servers): (Vec<_>, Vec<_>) = (0..8).map(|_| tcp_pair()).unzip();
            let script = Script::new().on_completion(|_, _, _| (ControlFlow::Exit, None));
            let mut ring = Bench::with(8, script);
            for server in servers {
                let data = ledger.issue(Receiver::new(server, &pool));
                let build = if timed { IN_TIME } else { PLAIN };
                ring.submitter(Bench::FIRST).submit(data, build).unwrap();
            }
            ring.turn().unwrap();
            // Half of them have something to report when it ends.
            for mut client in clients.iter().step_by(2) {
                client.write_all(b"tell").unwrap();
            }
            match end {
                0 => ring.finish().unwrap(),
                1 => ring.run().unwrap(),
                _ => drop(ring),
            }
            ledger.assert_all_dropped_once();
            assert_eq!(pool.available(), 8, "end {end}, timed: {timed}");
        }
        assert_eq!(open_descriptors(), before);
    });
}
