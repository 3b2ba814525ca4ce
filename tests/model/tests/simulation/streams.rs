//! Timers and streams.

use super::*;

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
    let job = Job::new(0, &Arc::new(ours.into()), 100);
    let place = job.buffer.as_ptr().addr();
    let log = Log::new();
    let (seen, kernel) = (log.clone(), simulation.clone());
    let mut ring = on(
        &simulation,
        Script::new()
            .on_setup_once(move |mut submitter| {
                submitter.submit(job, |job| job.send_zc())?;
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
