//! Streams that end while the kernel does not have them: they end once, and with the right result.

use std::num::NonZeroU32;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use rummelplatz::io_uring::opcode;
use rummelplatz::request::{self, Events};
use rummelplatz::sim::{Answer, Event, Faults, Simulation};
use rummelplatz::{
    Buffer, BufferPool, Completion, CompletionResult, ControlFlow, Key, RingError, RingOperation, Stream,
    Submitter, ring,
};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Polls,
    Receives,
    /// A message that cancels the stream.
    Cancels,
    /// A message that ends the ring.
    Exits,
    Closes,
    Waits,
    Accepts,
    Ticks,
}

struct Data {
    kind: Kind,
    file: Arc<OwnedFd>,
    pool: BufferPool,
    closes: Option<OwnedFd>,
}

/// What was told: about what, whether there is more, what the kernel or the ring says, and whether in a teardown.
type Told = (Kind, bool, i32, bool);

struct Streams {
    told: Vec<Told>,
    /// What the first handler of a stream posts.
    posts: Option<Kind>,
    /// What a stream becomes when it is armed again.
    becomes: Option<(Kind, BufferPool)>,
    key: Option<Key<Streams>>,
    held: Vec<Buffer>,
    accepted: Option<RawFd>,
}

#[ring]
struct Small {
    streams: Streams,
}

type Submits<'a> = Submitter<'a, Small, Streams>;

fn arm(data: &mut Data) -> Stream<'_> {
    match data.kind {
        Kind::Receives => request::recv_multi(&*data.file, &data.pool),
        Kind::Ticks => request::timeout_multi(Duration::from_secs(1)),
        _ => request::poll_multi(&*data.file, Events::READABLE),
    }
}

fn build(data: &mut Data) -> request::Request<'_> {
    match data.closes.take() {
        Some(descriptor) => request::close(descriptor),
        None if data.kind == Kind::Accepts => request::accept(&*data.file),
        None => request::timeout(Duration::from_secs(1)),
    }
}

impl RingOperation<Small> for Streams {
    type RingData = Data;
    type SetupError = std::convert::Infallible;
    type TeardownError = std::convert::Infallible;
    type ControlFlowWarn = std::convert::Infallible;
    type ControlFlowError = std::convert::Infallible;

    fn on_completion(
        &mut self,
        completion: Completion,
        mut data: Data,
        mut submitter: Submits<'_>,
    ) -> CompletionResult<Small, Self> {
        self.told.push((data.kind, completion.more(), completion.raw().result, false));
        match data.kind {
            Kind::Exits => return (ControlFlow::Exit, None),
            Kind::Cancels => assert!(submitter.cancel(self.key.unwrap()), "it is not over"),
            Kind::Accepts => {
                self.accepted = completion.into_fd().ok().map(IntoRawFd::into_raw_fd);
                return (ControlFlow::Continue, None);
            }
            Kind::Polls | Kind::Receives | Kind::Closes | Kind::Waits | Kind::Ticks => {}
        }
        self.held.extend(completion.into_buffer().ok().filter(|buffer| !buffer.is_empty()));
        if let Some(kind) = self.posts.take() {
            submitter.post(self.data(kind, &data.pool)).unwrap();
        }
        if let Some((kind, pool)) = self.becomes.take() {
            (data.kind, data.pool) = (kind, pool);
        }
        let goes_on = matches!(data.kind, Kind::Polls | Kind::Receives | Kind::Ticks).then_some(data);
        (ControlFlow::Continue, goes_on)
    }

    fn on_teardown_completion(
        &mut self,
        completion: Completion,
        data: Data,
        _: Submits<'_>,
    ) -> Result<(), Self::TeardownError> {
        self.told.push((data.kind, completion.more(), completion.raw().result, true));
        Ok(())
    }
}

impl Streams {
    fn new() -> Streams {
        Streams { told: Vec::new(), posts: None, becomes: None, key: None, held: Vec::new(), accepted: None }
    }

    fn data(&self, kind: Kind, pool: &BufferPool) -> Data {
        let (file, _) = std::io::pipe().unwrap();
        Data { kind, file: Arc::new(file.into()), pool: pool.clone(), closes: None }
    }
}

/// A ring whose kernel gives these answers, and whose streams are cut each time that they go on, if they are to be.
fn small(cut: bool, mut answer: impl FnMut(u8) -> Answer + Send + 'static) -> (Simulation, Small) {
    let simulation = Simulation::new(1);
    simulation.set_faults(Faults { cut: f64::from(u8::from(cut)), ..Faults::none() });
    simulation.on_request(move |asked| match asked.user_data as u8 {
        // The poll that wakes the ring.
        0 => Answer::Perform,
        _ => answer(asked.opcode),
    });
    let raw = simulation.raw_ring(NonZeroU32::new(8).unwrap()).unwrap();
    (simulation, Small::new(raw, None, Streams::new()))
}

fn submit(ring: &mut Small, kind: Kind, pool: &BufferPool) {
    let data = ring.streams.data(kind, pool);
    ring.streams.key = Some(ring.submitter(Small::STREAMS).stream(data, arm).unwrap());
}

/// Another ring, which has this pool.
fn holder(pool: &BufferPool) -> Small {
    let (_, mut ring) = small(false, |_| Answer::Wait);
    submit(&mut ring, Kind::Receives, pool);
    ring
}

fn pool() -> BufferPool {
    BufferPool::new(1, 16).unwrap()
}

fn is_over(ring: &Small) {
    let stats = ring.stats();
    assert_eq!((stats.in_flight, stats.foreign), (0, 0), "each has ended once: {stats:?}");
}

const READABLE: i32 = libc::POLLIN as i32;

#[test]
fn a_stream_whose_next_pool_is_another_rings_ends_once() {
    for posts in [None, Some(Kind::Cancels)] {
        let theirs = pool();
        let _holder = holder(&theirs);
        let (_, mut ring) = small(true, |_| Answer::More(READABLE));
        submit(&mut ring, Kind::Polls, &pool());
        ring.streams.becomes = Some((Kind::Receives, theirs));
        ring.streams.posts = posts;
        ring.run().unwrap();
        let message = posts.map(|kind| (kind, false, 0, false));
        let mut expected = vec![(Kind::Polls, true, READABLE, false)];
        expected.extend(message);
        expected.push((Kind::Receives, false, -libc::EBUSY, false));
        assert_eq!(ring.streams.told, expected);
        is_over(&ring);
    }
}

#[test]
fn a_stream_that_becomes_another_carries_what_that_carries() {
    let own = pool();
    let mut received = 0;
    let (_, mut ring) = small(true, move |opcode| match opcode {
        opcode::Recv::CODE => {
            received += 1;
            if received == 1 { Answer::Bytes(b"bytes".to_vec()) } else { Answer::Finish(0) }
        }
        _ => Answer::More(READABLE),
    });
    submit(&mut ring, Kind::Polls, &own);
    ring.streams.becomes = Some((Kind::Receives, own.clone()));
    ring.run().unwrap();
    let told: Vec<_> =
        ring.streams.told.iter().map(|(kind, more, result, _)| (*kind, *more, *result)).collect();
    assert_eq!(told, [(Kind::Polls, true, READABLE), (Kind::Receives, true, 5), (Kind::Receives, false, 0)]);
    assert_eq!(*ring.streams.held[0], *b"bytes");
    is_over(&ring);
    ring.streams.held.clear();
    assert_eq!(own.available(), own.capacity());
}

/// A ring whose stream waits for the one buffer of its pool, which is held.
fn starving() -> Small {
    let (_, mut ring) = small(false, |opcode| match opcode {
        opcode::Recv::CODE => Answer::Bytes(vec![1; 4]),
        _ => Answer::Wait,
    });
    submit(&mut ring, Kind::Receives, &pool());
    while ring.streams.told.len() < 2 {
        ring.turn().unwrap();
    }
    assert_eq!(ring.streams.told[1], (Kind::Receives, true, -libc::ENOBUFS, false));
    ring.streams.told.clear();
    ring
}

#[test]
fn a_stream_that_waits_for_a_buffer_ends_once_if_it_is_cancelled_before_the_teardown_or_in_it() {
    let cancel = |ring: &mut Small| {
        let key = ring.streams.key.unwrap();
        assert!(ring.submitter(Small::STREAMS).cancel(key));
    };
    let told = [(Kind::Receives, false, -libc::ECANCELED, true)];
    let mut ring = starving();
    cancel(&mut ring);
    cancel(&mut ring);
    ring.finish().unwrap();
    assert_eq!(ring.streams.told, told);
    is_over(&ring);

    let mut ring = starving();
    let exit = ring.streams.data(Kind::Exits, &pool());
    ring.submitter(Small::STREAMS).post(exit).unwrap();
    // The teardown begins, but does nothing yet.
    ring.turn().unwrap();
    assert_eq!(ring.streams.told.pop(), Some((Kind::Exits, false, 0, false)));
    cancel(&mut ring);
    ring.finish().unwrap();
    assert_eq!(ring.streams.told, told);
    is_over(&ring);
}

#[test]
fn what_one_pool_lacks_is_not_held_against_the_next() {
    let (one, other) = (pool(), BufferPool::new(1, 32).unwrap());
    let (_, mut ring) = small(false, |_| Answer::Finish(-libc::ENOBUFS));
    submit(&mut ring, Kind::Receives, &one);
    ring.streams.becomes = Some((Kind::Receives, other));
    ring.run().unwrap();
    // Each is asked as often as for a pool of which nobody has a buffer.
    let lacks = |more| (Kind::Receives, more, -libc::ENOBUFS, false);
    assert_eq!(ring.streams.told, [true, true, true, true, true, false].map(lacks));
    is_over(&ring);
}

#[test]
fn a_close_that_fails_has_closed_and_is_not_repeated() {
    let (simulation, mut ring) = small(false, |_| Answer::Wait);
    // SAFETY: the answer is an error, which vouches for nothing.
    unsafe { simulation.on_request_unchecked(|_| Answer::Finish(-libc::EIO)) };
    let (_, writer) = std::io::pipe().unwrap();
    let mut data = ring.streams.data(Kind::Closes, &pool());
    // The simulated kernel closes nothing for whoever vouches for the answer.
    let (number, is_open) = (writer.as_raw_fd(), |number| {
        // SAFETY: a plain query.
        unsafe { libc::fcntl(number, libc::F_GETFD) >= 0 }
    });
    data.closes = Some(writer.into());
    ring.submitter(Small::STREAMS).submit(data, build).unwrap();
    ring.run().unwrap();
    assert_eq!(ring.streams.told, [(Kind::Closes, false, -libc::EIO, false)]);
    assert!(is_open(number), "another file could have had this number by then");
    // SAFETY: nobody else has it.
    unsafe { libc::close(number) };
}

#[test]
fn a_ring_that_can_not_be_woken_does_not_try_for_ever() {
    let simulation = Simulation::new(1);
    simulation.set_faults(Faults::none());
    simulation.on_request(|asked| match asked.user_data as u8 {
        0 => Answer::Finish(-libc::EINVAL),
        _ => Answer::Perform,
    });
    let raw = simulation.raw_ring(NonZeroU32::new(8).unwrap()).unwrap();
    let mut ring = Small::new(raw, None, Streams::new());
    let _weak = ring.handle().downgrade();
    let waits = ring.streams.data(Kind::Waits, &pool());
    ring.submitter(Small::STREAMS).submit(waits, build).unwrap();
    simulation.take_log();
    let error = ring.run().unwrap_err();
    let RingError::Api(cause) = &error else { panic!("{error}") };
    assert_eq!(cause.error.raw_os_error(), Some(libc::EINVAL));
    let log = simulation.take_log();
    let is_poll =
        |event: &&Event| matches!(event, Event::TakenIn(asked) if asked.opcode == opcode::PollAdd::CODE);
    assert_eq!(log.iter().filter(is_poll).count(), 8);
}

/// Completions of a stream that are its end, although they look almost as if it were only cut.
#[test]
fn an_end_without_a_payload_is_no_cut() {
    for result in [0, -libc::ENOBUFS, -libc::ENOMEM] {
        let (_, mut ring) = small(false, move |_| Answer::Finish(result));
        submit(&mut ring, Kind::Polls, &pool());
        ring.run().unwrap();
        assert_eq!(ring.streams.told, [(Kind::Polls, false, result, false)]);
        is_over(&ring);
    }
    for result in [0, -libc::ENOMEM] {
        let (_, mut ring) = small(false, move |_| Answer::Finish(result));
        submit(&mut ring, Kind::Receives, &pool());
        ring.run().unwrap();
        assert_eq!(ring.streams.told, [(Kind::Receives, false, result, false)]);
        is_over(&ring);
    }
}

/// `IORING_CQE_F_BUFFER` and `IORING_CQE_F_MORE`.
const BUFFER: u32 = 1;
const MORE: u32 = 2;

#[test]
fn a_buffer_without_bytes_is_the_end() {
    let (simulation, mut ring) = small(false, |_| Answer::Wait);
    let own = pool();
    submit(&mut ring, Kind::Receives, &own);
    ring.turn().unwrap();
    // SAFETY: nothing ever comes of the request, and no bytes were received.
    unsafe { simulation.post(ring.streams.key.unwrap().user_data(), 0, BUFFER) };
    ring.turn().unwrap();
    assert_eq!(ring.streams.told, [(Kind::Receives, false, 0, false)]);
    assert_eq!((own.available(), ring.stats().in_flight), (1, 0));
}

#[test]
fn a_timer_that_ends_before_its_time_is_not_cut() {
    let (simulation, mut ring) = small(false, |_| Answer::Wait);
    submit(&mut ring, Kind::Ticks, &pool());
    ring.turn().unwrap();
    // SAFETY: a timer uses no memory once it is taken in.
    unsafe { simulation.post(ring.streams.key.unwrap().user_data(), 0, 0) };
    ring.turn().unwrap();
    assert_eq!(ring.streams.told, [(Kind::Ticks, false, 0, false)]);
    assert_eq!(ring.stats().in_flight, 0);
}

#[test]
fn a_descriptor_may_be_number_zero() {
    let simulation = Simulation::new(1);
    simulation.set_faults(Faults::none());
    // SAFETY: who takes the number here makes nothing of it.
    unsafe { simulation.on_request_unchecked(|_| Answer::Finish(0)) };
    let raw = simulation.raw_ring(NonZeroU32::new(8).unwrap()).unwrap();
    let mut ring = Small::new(raw, None, Streams::new());
    let accepts = ring.streams.data(Kind::Accepts, &pool());
    ring.submitter(Small::STREAMS).submit(accepts, build).unwrap();
    ring.run().unwrap();
    assert_eq!(ring.streams.accepted, Some(0));
}

#[test]
fn a_completion_of_another_generation_is_a_strangers_whatever_it_announces() {
    let (simulation, mut ring) = small(false, |_| Answer::Wait);
    submit(&mut ring, Kind::Polls, &pool());
    ring.turn().unwrap();
    let name = ring.streams.key.unwrap().user_data();
    for (number, flags) in [MORE, 0].into_iter().enumerate() {
        // SAFETY: it names no request.
        unsafe { simulation.post(name ^ 1 << 40, READABLE, flags) };
        ring.turn().unwrap();
        assert_eq!((ring.stats().foreign, ring.stats().in_flight), (number as u64 + 1, 1));
    }
    assert!(ring.streams.told.is_empty());
    // SAFETY: nothing ever comes of the request.
    unsafe { simulation.post(name, READABLE, MORE) };
    ring.turn().unwrap();
    assert_eq!(ring.streams.told, [(Kind::Polls, true, READABLE, false)]);
    ring.finish().unwrap();
}
