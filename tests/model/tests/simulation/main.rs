//! The simulated kernel itself, with rings on it. Where the simulation really does what it is asked, a real ring is
//! asked for the same, and must give the same result.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::num::NonZeroU32;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rummelplatz::io_uring::{opcode, squeue, types};
use rummelplatz::request::{self, Events};
use rummelplatz::sim::{Answer, Event, Faults, Simulation};
use rummelplatz::{
    BufferPool, ControlFlow, Key, RawCompletion, RawRing, Request, RingError, Stream, SubmitError,
};
use rummelplatz_tests::{
    Bench, BenchSubmitter, Directory, Job, Ledger, Log, Script, deaf, outcome, panic_of, pipe, soon,
};

mod exploring;
mod faults;
mod links;
mod performed;
mod queues;
mod streams;

const GO_ON: ControlFlow<&str, rummelplatz_tests::Failure> = ControlFlow::Continue;

const F_BUFFER: u32 = 1;
const F_MORE: u32 = 1 << 1;
const F_NOTIF: u32 = 1 << 3;

/// No ring in these tests enters the kernel more often.
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

/// What a test of one request needs from its kernel.
struct Asking<D: Send + 'static> {
    data: D,
    request: for<'d> fn(&'d mut D) -> Request<'d>,
}

/// Runs one request. Returns its outcome, what it opened, and its data.
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

/// Asks the simulated kernel, and the real one if there is one. Both must give the same result.
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

/// What `poll(2)` says of a descriptor, now, to somebody who wants to read from it.
fn events_of(descriptor: &impl AsFd) -> libc::c_short {
    let mut poll = libc::pollfd { fd: descriptor.as_fd().as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: there is one of it.
    assert!(unsafe { libc::poll(&raw mut poll, 1, 0) } >= 0);
    poll.revents
}

fn is_readable(descriptor: &impl AsFd) -> bool {
    events_of(descriptor) & libc::POLLIN != 0
}

/// Whether nobody can write to the other end of a pipe any more.
fn has_hung_up(reader: &impl AsFd) -> bool {
    events_of(reader) & libc::POLLHUP != 0
}

/// Runs a stream until it ends, or has told this often. Returns what it has told.
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
            if let Ok(buffers) = completion.into_buffers() {
                read.push(buffers.flat_map(|buffer| buffer.to_vec()).collect());
            }
            (if seen.len() < most { GO_ON } else { ControlFlow::Exit }, Some(data))
        });
    bench(raw, script).run().unwrap();
    (log.take(), bytes.take())
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

/// The results and flags that were posted.
fn posted(simulation: &Simulation) -> Vec<(i32, u32)> {
    let posted = simulation.take_log().into_iter().filter_map(|event| match event {
        Event::Posted { result, flags, .. } => Some((result, flags)),
        _ => None,
    });
    posted.collect()
}

/// The log since it was last taken, in words: `enter 2`, with this many entries to be taken in; `take RECV`;
/// `RECV 5 more`, for a completion that was posted. `?` stands for a name that was not taken in. Alarms of the ring are
/// left out.
fn history(simulation: &Simulation) -> Vec<String> {
    const ALARM: u64 = 3 << 8;
    let is_told = |event: &Event| match event {
        Event::TakenIn(asked) => asked.user_data != ALARM,
        Event::Posted { user_data, .. } => *user_data != ALARM,
        _ => true,
    };
    let mut names = HashMap::new();
    let tell = |event| match event {
        Event::Entered { shown } => format!("enter {shown}"),
        Event::TakenIn(asked) => {
            names.insert(asked.user_data, asked.name());
            format!("take {}", asked.name())
        }
        Event::Posted { user_data, result, flags } => {
            let name = names.get(&user_data).copied().unwrap_or("?");
            let has = |flag, word| if flags & flag != 0 { word } else { "" };
            let (more, buffer, notif) =
                (has(F_MORE, " more"), has(F_BUFFER, " buffer"), has(F_NOTIF, " notif"));
            format!("{name} {result}{more}{buffer}{notif}")
        }
        other => panic!("{other:?}"),
    };
    simulation.take_log().into_iter().filter(is_told).map(tell).collect()
}

/// The part of a history that is not about how the ring entered the kernel.
fn without_enters(history: Vec<String>) -> Vec<String> {
    history.into_iter().filter(|line| !line.starts_with("enter ")).collect()
}

/// A ring that is turned, with one request. What its handlers are told goes to the log.
struct Turned<D: Send + 'static> {
    ring: Bench<D>,
    key: Key<Script<D>>,
    told: Log<(Outcome, bool)>,
}

impl<D: Send + 'static> Turned<D> {
    fn of(simulation: &Simulation, data: D, request: for<'d> fn(&'d mut D) -> Request<'d>) -> Self {
        Turned::submit(simulation, move |submitter| submitter.submit(data, request))
    }

    fn of_stream(simulation: &Simulation, data: D, arm: for<'d> fn(&'d mut D) -> Stream<'d>) -> Self {
        Turned::submit(simulation, move |submitter| submitter.stream(data, arm))
    }

    /// The log is begun, and the request is taken in.
    fn submit(
        simulation: &Simulation,
        submit: impl FnOnce(&mut BenchSubmitter<'_, D>) -> Result<Key<Script<D>>, SubmitError>,
    ) -> Self {
        simulation.take_log();
        let told = Log::new();
        let seen = told.clone();
        let script = Script::new().on_completion(move |completion, data, _| {
            seen.push((outcome(&completion), completion.more()));
            let more = completion.more();
            (GO_ON, more.then_some(data))
        });
        let mut ring = on(simulation, script);
        let key = submit(&mut ring.submitter(Bench::FIRST)).unwrap();
        ring.turn().unwrap();
        Turned { ring, key, told }
    }

    fn cancel(&mut self) {
        assert!(self.ring.submitter(Bench::FIRST).cancel(self.key));
    }

    /// Turns the ring until nothing is in flight. Returns what was told meanwhile.
    fn rest(&mut self) -> Vec<(Outcome, bool)> {
        while !self.ring.turn().unwrap().is_idle() {}
        self.told.take()
    }
}

/// A ring with a read for which nothing ever comes, and a timer, under these faults.
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
