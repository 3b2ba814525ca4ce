//! Streams of connections that go on after an error, when they have rested.

use std::cell::Cell;
use std::net::TcpListener;
use std::num::NonZeroU32;
use std::os::fd::{AsRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use rummelplatz::request::{self, Stream};
use rummelplatz::sim::{Answer, Faults, Simulation};
use rummelplatz::{Completion, CompletionResult, ControlFlow, Key, RingOperation, Status, Submitter, ring};

const REST: Duration = Duration::from_millis(100);

/// What was told: whether there is more, the result (0 for a connection), whether in a teardown, and when.
type Told = (bool, i32, bool, Duration);

#[derive(RingOperation)]
#[ring_operation(ring = Server, data = TcpListener, on_completion, on_teardown_completion)]
struct Acceptor {
    told: Vec<Told>,
    simulation: Simulation,
    /// What the handler does after so many completions.
    acts: Option<(usize, Act)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Act {
    Exit,
    KeepData,
    Pause,
}

#[ring]
struct Server {
    acceptor: Acceptor,
}

impl Acceptor {
    fn on_completion(
        &mut self,
        completion: Completion,
        listener: TcpListener,
        mut submitter: Submitter<'_, Server, Self>,
    ) -> CompletionResult<Server, Self> {
        self.note(completion, false);
        match self.acts {
            Some((count, Act::Pause)) if count == self.told.len() => {
                assert!(submitter.pause_stream());
                (ControlFlow::Continue, Some(listener))
            }
            Some((count, Act::Exit)) if count == self.told.len() => (ControlFlow::Exit, Some(listener)),
            Some((count, Act::KeepData)) if count == self.told.len() => (ControlFlow::Continue, None),
            _ => (ControlFlow::Continue, Some(listener)),
        }
    }

    fn on_teardown_completion(
        &mut self,
        completion: Completion,
        _: TcpListener,
        _: Submitter<'_, Server, Self>,
    ) {
        self.note(completion, true);
    }

    fn note(&mut self, completion: Completion, teardown: bool) {
        let more = completion.more();
        let result = completion.into_fd().map_or_else(|error| -error.raw_os_error().unwrap_or(1), |_| 0);
        self.told.push((more, result, teardown, self.simulation.now()));
    }

    /// What was told, without the times.
    fn results(&self) -> Vec<(bool, i32, bool)> {
        self.told.iter().map(|(more, result, teardown, _)| (*more, *result, *teardown)).collect()
    }
}

#[derive(Clone, Copy)]
enum Says {
    Connection,
    Error(i32),
}

/// A ring whose kernel says this to the accepts and polls, one after the other, and then nothing any more. Its stream is not
/// submitted yet.
fn idle(says: impl IntoIterator<Item = Says, IntoIter: Send + 'static>) -> Server {
    let simulation = Simulation::new(1);
    simulation.set_faults(Faults::none());
    simulation.limit_enters(1000);
    let mut says = says.into_iter();
    simulation.on_request(move |asked| match asked.user_data as u8 {
        0 => Answer::Perform,
        _ => match says.next() {
            Some(Says::Connection) => Answer::Descriptor(OwnedFd::from(std::io::pipe().unwrap().1)),
            Some(Says::Error(errno)) => Answer::Finish(-errno),
            None => Answer::Wait,
        },
    });
    let raw = simulation.raw_ring(NonZeroU32::new(8).unwrap()).unwrap();
    Server::new(raw, None, Acceptor { told: Vec::new(), simulation, acts: None })
}

fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

/// The same, with its stream.
fn server(
    says: impl IntoIterator<Item = Says, IntoIter: Send + 'static>,
    arm: fn(&mut TcpListener) -> Stream<'_>,
) -> Server {
    let mut server = idle(says);
    server.submitter(Server::ACCEPTOR).stream(listener(), arm).unwrap();
    server
}

fn patient(listener: &mut TcpListener) -> Stream<'_> {
    request::accept_multi(listener).retry_after(REST)
}

#[test]
fn a_stream_goes_on_after_each_error_that_passes_when_it_has_rested() {
    let errors = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM, libc::ECONNABORTED, libc::EPROTO];
    let says = errors.into_iter().flat_map(|errno| [Says::Error(errno), Says::Connection]);
    let mut server = server(says.chain([Says::Error(libc::EINVAL)]), patient);
    let enters = server.acceptor.simulation.figures().enters;
    server.run().unwrap();
    let mut expected = Vec::new();
    for errno in errors {
        expected.extend([(true, -errno, false), (true, 0, false)]);
    }
    // A listener that can't accept never will.
    expected.push((false, -libc::EINVAL, false));
    assert_eq!(server.acceptor.results(), expected);
    for rest in server.acceptor.told.windows(2).filter(|pair| pair[0].1 < 0) {
        let time = rest[1].3 - rest[0].3;
        assert!((REST..2 * REST).contains(&time), "rested for {time:?}");
    }
    let enters = server.acceptor.simulation.figures().enters - enters;
    assert!(enters < 10 * errors.len() as u64, "{enters} enters: the ring does not keep asking");
    assert_eq!(server.stats().in_flight, 0);
}

#[test]
fn several_streams_rest_side_by_side() {
    let mut server = idle([libc::EMFILE, libc::ENFILE, libc::EBADF, libc::EINVAL].map(Says::Error));
    server.submitter(Server::ACCEPTOR).stream(listener(), patient).unwrap();
    let mut submitter = server.submitter(Server::ACCEPTOR);
    submitter.stream(listener(), |it| request::accept_multi(it).retry_after(2 * REST)).unwrap();
    server.run().unwrap();
    let results = server.acceptor.results();
    let errors = [libc::EMFILE, libc::ENFILE, libc::EBADF, libc::EINVAL];
    assert_eq!(results.iter().map(|told| -told.1).collect::<Vec<_>>(), errors);
    let times: Vec<_> = server.acceptor.told.iter().map(|told| told.3 - server.acceptor.told[0].3).collect();
    assert!((REST..2 * REST).contains(&times[2]) && (2 * REST..3 * REST).contains(&times[3]), "{times:?}");
}

#[test]
fn errors_that_stay_end_a_stream_and_without_being_told_all_do() {
    let permanent = [
        libc::ECANCELED,
        libc::EBADF,
        libc::EFAULT,
        libc::EINVAL,
        libc::ENOTSOCK,
        libc::EOPNOTSUPP,
        libc::EACCES,
        libc::ENOSYS,
    ];
    for errno in permanent {
        let mut server = server([Says::Error(errno)], patient);
        server.run().unwrap();
        assert_eq!(server.acceptor.results(), [(false, -errno, false)]);
    }
    let mut server = server([Says::Error(libc::EMFILE)], |listener| request::accept_multi(listener));
    server.run().unwrap();
    assert_eq!(server.acceptor.results(), [(false, -libc::EMFILE, false)]);
}

#[test]
fn a_rest_is_at_least_a_millisecond_and_other_streams_have_none() {
    let mut at_once = server([Says::Error(libc::EMFILE), Says::Error(libc::EBADF)], |listener| {
        request::accept_multi(listener).retry_after(Duration::MAX).retry_after(Duration::ZERO)
    });
    at_once.run().unwrap();
    let time = at_once.acceptor.told[1].3 - at_once.acceptor.told[0].3;
    assert!((Duration::from_millis(1)..Duration::from_millis(2)).contains(&time), "{time:?}");

    let mut polls = server([Says::Error(libc::EMFILE)], |listener| {
        request::poll_multi(listener, request::Events::READABLE).retry_after(REST)
    });
    polls.run().unwrap();
    assert_eq!(polls.acceptor.results(), [(false, -libc::EMFILE, false)]);
}

#[test]
fn a_stream_whose_data_is_kept_does_not_go_on() {
    let mut server = server([Says::Error(libc::EMFILE), Says::Connection], patient);
    server.acceptor.acts = Some((1, Act::KeepData));
    server.run().unwrap();
    assert_eq!(server.acceptor.results(), [(true, -libc::EMFILE, false)]);
    assert_eq!(server.stats().in_flight, 0);
}

/// A ring whose stream rests, again and again.
fn resting() -> (Server, Key<Acceptor>) {
    let mut server = idle(std::iter::repeat(Says::Error(libc::EMFILE)));
    let key = server.submitter(Server::ACCEPTOR).stream(listener(), patient).unwrap();
    while server.acceptor.told.is_empty() {
        server.turn().unwrap();
    }
    (server, key)
}

#[test]
fn a_stream_that_rests_can_be_cancelled_and_ends_once() {
    let (mut server, key) = resting();
    assert!(server.submitter(Server::ACCEPTOR).cancel(key));
    assert!(server.submitter(Server::ACCEPTOR).cancel(key), "it is still there");
    server.run().unwrap();
    assert_eq!(server.acceptor.results(), [(true, -libc::EMFILE, false), (false, -libc::ECANCELED, false)]);
    assert_eq!((server.stats().in_flight, server.stats().foreign), (0, 0));
    assert!(!server.submitter(Server::ACCEPTOR).cancel(key));
}

#[test]
fn a_teardown_ends_a_stream_that_rests() {
    let (mut server, _) = resting();
    server.finish().unwrap();
    assert_eq!(server.acceptor.results(), [(true, -libc::EMFILE, false), (false, -libc::ECANCELED, true)]);

    let mut server = idle([Says::Error(libc::EMFILE), Says::Connection]);
    server.acceptor.acts = Some((1, Act::Exit));
    server.submitter(Server::ACCEPTOR).stream(listener(), patient).unwrap();
    server.run().unwrap();
    assert_eq!(server.acceptor.results(), [(true, -libc::EMFILE, false), (false, -libc::ECANCELED, true)]);
    let times: Vec<_> = server.acceptor.told.iter().map(|told| told.3).collect();
    assert!(times[1] - times[0] < REST, "it does not wait for the end of the rest: {times:?}");
    // Nothing of it is left in the next run.
    server.acceptor.told.clear();
    server.run().unwrap();
    assert_eq!((server.acceptor.results(), server.stats().in_flight), (Vec::new(), 0));
}

#[test]
fn a_turned_ring_is_idle_meanwhile_and_readable_when_the_rest_is_over() {
    let (mut server, _) = resting();
    let simulation = server.acceptor.simulation.clone();
    let is_readable = |server: &Server| {
        let mut poll = libc::pollfd { fd: server.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one `pollfd`, which is borrowed for the call.
        unsafe { libc::poll(&mut poll, 1, 0) == 1 }
    };
    while server.turn().unwrap().status == Status::Progressed {}
    assert!(!is_readable(&server), "nothing is due");
    assert_eq!(server.acceptor.told.len(), 1);
    simulation.pass(REST);
    assert!(is_readable(&server), "the rest is over");
    while server.acceptor.told.len() < 2 {
        assert_ne!(server.turn().unwrap().status, Status::Finished);
    }
    assert_eq!(server.acceptor.results()[1], (true, -libc::EMFILE, false), "the kernel was asked again");
    server.finish().unwrap();
}

#[test]
fn a_stream_in_the_background_rests_no_longer_than_the_ring_runs() {
    let mut server = idle([Says::Error(libc::EMFILE)]);
    let began = server.acceptor.simulation.now();
    server.submitter(Server::ACCEPTOR).stream_in_background(listener(), patient).unwrap();
    server.run().unwrap();
    assert!(server.acceptor.simulation.now() - began < REST);
    assert_eq!(server.stats().in_flight, 0);
}

#[test]
fn a_function_that_panics_after_a_rest_ends_the_ring_and_nothing_is_left() {
    fn once(listener: &mut TcpListener) -> Stream<'_> {
        thread_local!(static WAS_CALLED: Cell<bool> = const { Cell::new(false) });
        assert!(!WAS_CALLED.replace(true), "called again");
        patient(listener)
    }
    let mut server = server([Says::Error(libc::EMFILE)], once);
    let panic = catch_unwind(AssertUnwindSafe(|| server.run())).unwrap_err();
    assert_eq!(panic.downcast_ref(), Some(&"called again"));
    assert_eq!(server.acceptor.results(), [(true, -libc::EMFILE, false)]);
    assert_eq!((server.stats().in_flight, server.stats().foreign), (0, 0));
}

#[test]
fn a_stream_that_rests_and_is_paused_does_not_keep_the_ring_running() {
    let mut server = server([Says::Error(libc::EMFILE), Says::Connection], patient);
    server.acceptor.acts = Some((1, Act::Pause));
    let began = server.acceptor.simulation.now();
    server.run().unwrap();
    assert_eq!(server.acceptor.results(), [(true, -libc::EMFILE, false), (false, -libc::ECANCELED, true)]);
    assert!(server.acceptor.simulation.now() - began < REST);
}
