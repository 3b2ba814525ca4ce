//! Queues that are full, and rings that are turned, woken, or closed.

use rummelplatz::{Status, io_uring::cqueue};

use super::*;

// ---- a full completion queue --------------------------------------------------------------------------

#[test]
fn completions_for_which_there_is_no_room_wait_and_come_in_order() {
    let simulation = calm();
    simulation.take_log();
    let told = Log::new();
    let (seen, kernel) = (told.clone(), simulation.clone());
    let script = Script::new()
        .on_setup(|mut submitter| {
            for number in 0..11 {
                submitter.submit(number, |_| request::nop())?;
            }
            Ok(())
        })
        .on_completion(move |completion, number, mut submitter| {
            seen.push((number, outcome(&completion), kernel.figures().posted));
            if number < 2 {
                // This is done when there is room, but so are others that wait for room.
                submitter.submit(number + 11, |_| request::nop()).unwrap();
            }
            (GO_ON, None)
        });
    bench(simulation.raw_ring_with(size(4), size(4)).unwrap(), script).run().unwrap();
    // This many were posted, each time that there was room for four.
    let expected: Vec<_> = (0..13).map(|number| (number, Ok(0), [4, 8, 12, 13][number / 4])).collect();
    assert_eq!(told.take(), expected);
    // The log also tells of those that wait.
    let history = history(&simulation);
    let nop = |count| ["take NOP", "NOP 0"].repeat(count);
    let expected =
        [vec!["enter 4"], nop(4), vec!["enter 4"], nop(4), vec!["enter 3"], nop(3), vec!["enter 2"], nop(2)];
    assert_eq!(history[..30], expected.concat());
    assert!(history[30..].iter().all(|line| line == "enter 0"), "{history:?}");
}

#[test]
fn a_stream_that_finds_no_room_ends_with_what_it_has_and_is_armed_again() {
    let simulation = calm();
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let pool = BufferPool::new(64, 1).unwrap();
    fn receive((socket, pool): &mut (UnixStream, BufferPool)) -> Stream<'_> {
        request::recv_multi(socket, pool)
    }
    // With a completion queue of 32.
    let mut turned = Turned::of_stream(&simulation, (ours, pool.clone()), receive);
    theirs.write_all(&[7; 40]).unwrap();
    drop(theirs);
    simulation.pass(Duration::ZERO);
    assert_eq!(simulation.in_kernel(), 1, "the stream has ended; the poll for handles is there");
    let mut expected = vec![(Ok(1), true); 40];
    expected.push((Ok(0), false));
    assert_eq!(turned.rest(), expected);
    assert_eq!(pool.available(), 64);
    let mut expected = vec!["take POLL_ADD", "take RECV"];
    expected.extend(["RECV 1 more buffer"; 32]);
    expected.extend(["RECV 1 buffer", "take RECV"]);
    expected.extend(["RECV 1 more buffer"; 7]);
    expected.push("RECV 0");
    assert_eq!(without_enters(history(&simulation)), expected);
}

#[test]
fn a_timer_that_finds_no_room_ticks_on_when_it_is_armed_again() {
    // A timer that ticks six times finds room for four ticks; the others come after it is armed again.
    let simulation = calm();
    simulation.take_log();
    fn tick(_: &mut ()) -> Stream<'_> {
        request::timeout_multi_times(Duration::from_millis(1), size(6))
    }
    let told = Log::new();
    let seen = told.clone();
    let script = Script::new().on_completion(move |completion, (), _| {
        seen.push((outcome(&completion), completion.more(), cqueue::more(completion.raw().flags)));
        (GO_ON, completion.more().then_some(()))
    });
    let mut ring = bench(simulation.raw_ring_with(size(4), size(4)).unwrap(), script);
    ring.submitter(Bench::FIRST).stream((), tick).unwrap();
    ring.turn().unwrap();
    simulation.pass(Duration::from_secs(1));
    while !ring.turn().unwrap().is_idle() {
        simulation.pass(Duration::from_secs(1));
    }
    let (goes_on, cut) = ((Ok(0), true, true), (Ok(0), true, false));
    assert_eq!(told.take(), [goes_on, goes_on, goes_on, goes_on, cut, (Ok(0), false, false)]);
    let expected =
        [&["take TIMEOUT"], &["TIMEOUT -62 more"; 4][..], &["TIMEOUT -62", "take TIMEOUT", "TIMEOUT -62"]];
    assert_eq!(without_enters(history(&simulation)), expected.concat());
}

// ---- turns --------------------------------------------------------------------------------------------

#[test]
fn time_passes_for_a_ring_that_is_turned_when_it_is_said_to() {
    let simulation = calm();
    let mut turned = Turned::of(&simulation, (), |()| request::timeout(Duration::from_secs(2)));
    assert!(!is_readable(&turned.ring));
    let before = simulation.now();
    simulation.pass(Duration::from_secs(1));
    assert_eq!(simulation.now(), before + Duration::from_secs(1));
    assert!(!is_readable(&turned.ring));
    assert_eq!(turned.ring.turn().unwrap().status, Status::Waiting);
    simulation.pass(Duration::from_secs(1));
    // What is due happens while time passes, and makes the descriptor readable.
    assert!(is_readable(&turned.ring));
    assert_eq!((simulation.in_kernel(), turned.told.len()), (0, 0));
    let progress = turned.ring.turn().unwrap();
    assert_eq!(progress.status, Status::Progressed);
    assert_eq!(turned.told.take(), [(Ok(0), false)]);
    assert!(!is_readable(&turned.ring));
    assert!(turned.ring.turn().unwrap().is_idle());
}

#[test]
fn what_is_due_while_time_passes_happens_in_its_order() {
    let simulation = calm();
    simulation.take_log();
    let told = Log::new();
    let seen = told.clone();
    let script = Script::new().on_completion(move |_, seconds, _| {
        seen.push(seconds);
        (GO_ON, None)
    });
    let mut ring = on(&simulation, script);
    for seconds in [3, 1, 2, 9] {
        let time = Duration::from_secs(seconds);
        ring.submitter(Bench::FIRST).submit(seconds, move |_| request::timeout(time)).unwrap();
    }
    ring.turn().unwrap();
    simulation.pass(Duration::from_secs(5));
    ring.turn().unwrap();
    assert_eq!((told.take(), simulation.in_kernel()), (vec![1, 2, 3], 1));
    ring.finish().unwrap();
}

#[test]
fn what_others_have_done_meanwhile_is_seen_while_time_passes() {
    let simulation = calm();
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let mut turned = Turned::of(&simulation, (ours, [0; 8]), |(ours, buffer)| request::recv(ours, buffer));
    theirs.write_all(b"hello").unwrap();
    assert!(!is_readable(&turned.ring), "nothing happens in the kernel while the ring is outside");
    simulation.pass(Duration::ZERO);
    assert!(is_readable(&turned.ring));
    assert_eq!(turned.rest(), [(Ok(5), false)]);
}

#[test]
fn a_teardown_by_turns_takes_the_time_that_passes() {
    let simulation = simulation(1, Faults { running: 1.0, ..Faults::none() });
    let told = Log::new();
    let seen = told.clone();
    let script = Script::new()
        .on_setup_once(|mut submitter| {
            let data = (temporary_file(b"0123"), [0; 8]);
            submitter.submit(data, |(file, buffer)| request::read(file, buffer))?;
            submitter.handle().stop();
            Ok(())
        })
        .on_teardown(move |completion, _, _| {
            seen.push(outcome(&completion));
            Ok(())
        });
    let mut ring = on(&simulation, script);
    let mut turns = 0;
    loop {
        let progress = ring.turn().unwrap();
        turns += 1;
        match progress.status {
            Status::Finished => break,
            // The read has begun: it takes its time, and no turn waits for it.
            Status::Waiting => simulation.pass(progress.call_again_in.unwrap()),
            _ => {}
        }
        assert!(turns < 20, "{progress:?}");
    }
    assert_eq!(told.take(), [Ok(4)]);
}

// ---- handles ------------------------------------------------------------------------------------------

/// A ring that does nothing but take numbers until a zero stops it.
fn taking(simulation: &Simulation) -> (Bench<u32>, Log<(u32, bool)>) {
    let told = Log::new();
    let seen = told.clone();
    let script = Script::new().on_completion(move |completion, number, _| {
        seen.push((number, completion.is_message()));
        (if number == 0 { ControlFlow::Exit } else { GO_ON }, None)
    });
    (on(simulation, script), told)
}

#[test]
fn a_handle_wakes_a_ring_in_its_own_thread_when_it_only_waits() {
    let simulation = calm();
    simulation.take_log();
    let (mut ring, told) = taking(&simulation);
    let handle = ring.handle();
    let mut numbers = [2, 1, 0].into_iter();
    simulation
        .on_idle(move || numbers.next().is_some_and(|number| handle.send(Bench::FIRST, number).is_ok()));
    ring.run().unwrap();
    assert_eq!(told.take(), [(2, true), (1, true), (0, true)]);
    // A poll wakes the ring, and ends when the ring does.
    let history = without_enters(history(&simulation));
    assert_eq!(history[..4], ["take POLL_ADD", "POLL_ADD 1 more", "POLL_ADD 1 more", "POLL_ADD 1 more"]);
}

#[test]
fn a_handle_wakes_a_ring_from_another_thread() {
    let simulation = calm();
    simulation.set_patience(Duration::from_secs(60));
    let (mut ring, told) = taking(&simulation);
    let handle = ring.handle();
    let sender = std::thread::spawn(move || {
        for number in [2, 1, 0] {
            handle.send(Bench::FIRST, number).unwrap();
            std::thread::yield_now();
        }
        // What was sent last ends the ring, and not the fact that this handle is gone.
        handle
    });
    ring.run().unwrap();
    drop(sender.join().unwrap());
    assert_eq!(told.take(), [(2, true), (1, true), (0, true)]);
}

#[test]
fn a_handle_makes_a_ring_readable_that_is_turned() {
    let simulation = calm();
    let (mut ring, told) = taking(&simulation);
    let handle = ring.handle();
    ring.turn().unwrap();
    handle.send(Bench::FIRST, 1).unwrap();
    simulation.pass(Duration::ZERO);
    assert!(is_readable(&ring));
    ring.turn().unwrap();
    assert_eq!(told.take(), [(1, true)]);
    assert!(!is_readable(&ring));
    handle.stop();
    while !ring.turn().unwrap().is_finished() {}
    assert_eq!((told.len(), simulation.in_kernel()), (0, 1), "the poll stays for the next run");
}
