//! Streams that end when they have told of nothing for too long.

use std::io::Write;
use std::mem;
use std::net::TcpListener;
use std::num::NonZeroU32;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rummelplatz::request::{self, Events};
use rummelplatz::sim::{Answer, Faults, Simulation};
use rummelplatz::{
    Buffer, BufferPool, Completion, CompletionResult, ControlFlow, Key, RingOperation, Stream, Submitter,
    ring,
};

const HOUR: Duration = Duration::from_secs(3600);

/// What is waited for.
enum Data {
    Events(UnixStream),
    /// Ticks that are this far apart, and how many there are.
    Ticks(Duration, NonZeroU32),
    Bytes(UnixStream, BufferPool),
    Connections(TcpListener),
}

impl Data {
    fn stream(&mut self) -> Stream<'_> {
        match self {
            Data::Events(socket) => request::poll_multi(socket, Events::READABLE),
            Data::Ticks(interval, times) => request::timeout_multi_times(*interval, *times),
            Data::Bytes(socket, pool) => request::recv_multi(socket, pool),
            Data::Connections(listener) => request::accept_multi(listener).retry_after(19 * HOUR),
        }
    }

    fn limited(&mut self) -> Stream<'_> {
        self.stream().idle_limit(8 * HOUR)
    }

    fn limited_longer(&mut self) -> Stream<'_> {
        self.limited().idle_limit(40 * HOUR)
    }
}

/// What was told: whether there is more, the result, whether the time was up, and after how many hours.
type Told = (bool, i32, bool, u64);

#[derive(RingOperation)]
#[ring_operation(ring = Waiting, data = Data, on_completion)]
struct Waits {
    simulation: Simulation,
    begun: Duration,
    told: Vec<Told>,
    /// Given back at each tick.
    held: Vec<Buffer>,
    exits: bool,
    /// A stream that is resumed at each tick.
    paused: Option<Key<Waits>>,
}

#[ring]
struct Waiting {
    waits: Waits,
}

impl Waits {
    fn on_completion(
        &mut self,
        completion: Completion,
        data: Data,
        mut submitter: Submitter<'_, Waiting, Self>,
    ) -> CompletionResult<Waiting, Self> {
        let (more, result, timed_out) = (completion.more(), completion.raw().result, completion.timed_out());
        let hours = (self.simulation.now() - self.begun).as_secs() / HOUR.as_secs();
        self.told.push((more, result, timed_out, hours));
        self.held.extend(completion.into_buffer().ok().filter(|buffer| !buffer.is_empty()));
        if let Data::Ticks(..) = data {
            self.held.clear();
            if let Some(key) = self.paused {
                assert!(submitter.resume(key));
            }
        }
        let flow = if self.exits { ControlFlow::Exit } else { ControlFlow::Continue };
        (flow, more.then_some(data))
    }
}

/// A ring whose kernel has no descriptor for the first connection, no second connection, and no events.
fn waiting() -> Waiting {
    let simulation = Simulation::new(1);
    simulation.set_faults(Faults::none());
    simulation.limit_enters(1000);
    let mut refused = false;
    simulation.on_request(move |asked| match asked.name() {
        "ACCEPT" if !mem::replace(&mut refused, true) => Answer::Finish(-libc::EMFILE),
        "ACCEPT" => Answer::Wait,
        "POLL_ADD" if asked.user_data as u8 != 0 => Answer::Wait,
        _ => Answer::Perform,
    });
    let raw = simulation.raw_ring(NonZeroU32::new(8).unwrap()).unwrap();
    let begun = simulation.now();
    Waiting::new(
        raw,
        None,
        Waits { simulation, begun, told: Vec::new(), held: Vec::new(), exits: false, paused: None },
    )
}

fn socket() -> UnixStream {
    UnixStream::pair().unwrap().0
}

const TIMED_OUT: (bool, i32, bool) = (false, -libc::ECANCELED, true);

/// Checks what was told, with the least and the greatest number of hours.
fn assert_told(told: &[Told], expected: &[((bool, i32, bool), u64, u64)]) {
    assert_eq!(told.len(), expected.len(), "{told:?}");
    for (&(more, result, timed_out, hours), &(what, least, most)) in told.iter().zip(expected) {
        assert_eq!((more, result, timed_out), what, "{told:?}");
        assert!((least..=most).contains(&hours), "{told:?}");
    }
}

#[test]
fn a_stream_that_tells_of_nothing_ends_when_its_time_is_up() {
    let mut ring = waiting();
    ring.submitter(Waiting::WAITS).stream(Data::Events(socket()), Data::limited).unwrap();
    ring.run().unwrap();
    assert_told(&ring.waits.told, &[(TIMED_OUT, 8, 8)]);
}

#[test]
fn of_several_limits_the_last_counts() {
    let mut ring = waiting();
    ring.submitter(Waiting::WAITS).stream(Data::Events(socket()), Data::limited_longer).unwrap();
    ring.run().unwrap();
    assert_told(&ring.waits.told, &[(TIMED_OUT, 40, 40)]);
}

const fn times(times: u32) -> NonZeroU32 {
    NonZeroU32::new(times).unwrap()
}

#[test]
fn each_completion_begins_the_time_anew() {
    let mut ring = waiting();
    ring.submitter(Waiting::WAITS).stream(Data::Ticks(5 * HOUR, times(3)), Data::limited).unwrap();
    ring.run().unwrap();
    const TICK: (bool, i32, bool) = (true, -libc::ETIME, false);
    assert_told(&ring.waits.told, &[(TICK, 5, 5), (TICK, 10, 10), ((false, -libc::ETIME, false), 15, 15)]);

    let mut ring = waiting();
    ring.submitter(Waiting::WAITS).stream(Data::Ticks(9 * HOUR, times(3)), Data::limited).unwrap();
    ring.run().unwrap();
    assert_told(&ring.waits.told, &[(TIMED_OUT, 8, 8)]);
}

const HELLO: (bool, i32, bool) = (true, 5, false);

#[test]
fn the_time_after_a_completion_may_be_a_quarter_longer() {
    let mut ring = waiting();
    let (mut peer, socket) = UnixStream::pair().unwrap();
    peer.write_all(b"hello").unwrap();
    let data = Data::Bytes(socket, BufferPool::new(4, 16).unwrap());
    ring.submitter(Waiting::WAITS).stream(data, Data::limited).unwrap();
    ring.run().unwrap();
    assert_told(&ring.waits.told, &[(HELLO, 0, 0), (TIMED_OUT, 8, 10)]);
}

#[test]
fn a_stream_that_waits_for_a_buffer_is_not_idle() {
    let mut ring = waiting();
    let (mut peer, socket) = UnixStream::pair().unwrap();
    peer.write_all(b"hellohello").unwrap();
    let data = Data::Bytes(socket, BufferPool::new(1, 5).unwrap());
    ring.submitter(Waiting::WAITS).stream(data, Data::limited).unwrap();
    ring.submitter(Waiting::WAITS).stream(Data::Ticks(40 * HOUR, times(1)), Data::stream).unwrap();
    ring.run().unwrap();
    let no_buffers = (true, -libc::ENOBUFS, false);
    let ticked = (false, -libc::ETIME, false);
    let told = [(HELLO, 0, 0), (no_buffers, 0, 0), (ticked, 40, 40), (HELLO, 40, 40), (TIMED_OUT, 48, 50)];
    assert_told(&ring.waits.told, &told);
}

#[test]
fn after_a_rest_the_time_begins_anew() {
    let mut ring = waiting();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    ring.submitter(Waiting::WAITS).stream(Data::Connections(listener), Data::limited).unwrap();
    ring.run().unwrap();
    assert_told(&ring.waits.told, &[((true, -libc::EMFILE, false), 0, 0), (TIMED_OUT, 27, 29)]);
}

#[test]
fn a_paused_stream_is_not_idle_and_does_not_wake_the_ring() {
    let mut ring = waiting();
    let mut submitter = ring.submitter(Waiting::WAITS);
    let key = submitter.stream(Data::Events(socket()), Data::limited).unwrap();
    let cancelled = submitter.stream(Data::Events(socket()), Data::limited).unwrap();
    submitter.stream(Data::Ticks(4000 * HOUR, times(1)), Data::stream).unwrap();
    assert!(submitter.pause(key) && submitter.pause(cancelled));
    ring.waits.paused = Some(key);
    // Looking after them for so long would enter the kernel more often than it allows.
    ring.run().unwrap();
    let ticked = (false, -libc::ETIME, false);
    assert_told(&ring.waits.told, &[(ticked, 4000, 4000), (TIMED_OUT, 4008, 4010)]);
}

#[test]
fn a_run_that_ends_early_waits_for_no_limit() {
    let mut ring = waiting();
    ring.waits.exits = true;
    for _ in 0..2 {
        ring.submitter(Waiting::WAITS).stream(Data::Events(socket()), Data::limited).unwrap();
        ring.submitter(Waiting::WAITS).stream(Data::Ticks(HOUR, times(1)), Data::limited).unwrap();
        ring.run().unwrap();
    }
    assert_told(
        &ring.waits.told,
        &[((false, -libc::ETIME, false), 1, 1), ((false, -libc::ETIME, false), 2, 2)],
    );
}
