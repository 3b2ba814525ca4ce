//! Tests of pipes and epoll sets, the same under every kernel. Each is given a function that makes a ring on the
//! kernel to test.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use rummelplatz::request::{EpollEvent, Events, Pipe};
use rummelplatz::{ControlFlow, RawRing, Request, request};

use crate::{Bench, Log, Script, complete_on, is_inherited, once_on, outcome, pipe, soon};

/// Whether this kernel makes pipes; says "skipped" if it does not.
pub fn has_pipes(raw: RawRing) -> bool {
    let has = once_on(raw, Pipe::new(), request::pipe).0 == Ok(0);
    if !has {
        eprintln!("skipped: needs Linux 6.16");
    }
    has
}

/// Whether the other end of a pipe is closed.
fn is_alone(writer: &OwnedFd) -> bool {
    let mut poll = libc::pollfd { fd: writer.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
    // SAFETY: there is one of it.
    assert_eq!(unsafe { libc::poll(&raw mut poll, 1, 0) }, 1);
    poll.revents & libc::POLLERR != 0
}

pub fn a_pipe_has_two_ends_until_they_are_taken(raw: impl Fn() -> RawRing) {
    if !has_pipes(raw()) {
        return;
    }
    let (made, mut place) = once_on(raw(), Pipe::new(), request::pipe);
    let (reader, writer) = place.take().unwrap();
    assert_eq!((made, is_inherited(&reader), is_inherited(&writer)), (Ok(0), false, false));
    assert!(place.take().is_none());
    File::from(writer).write_all(b"hello").unwrap();
    let mut bytes = Vec::new();
    File::from(reader).read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, b"hello");

    // Of one pipe after another in the same place, each end is closed, or somebody's.
    let (made, mut place) = once_on(raw(), place, |place| request::pipe(place).in_worker());
    let (reader, writer) = place.take().unwrap();
    assert_eq!((made, is_alone(&writer)), (Ok(0), false));
    drop(reader);
    assert!(soon(|| is_alone(&writer)));
    let (made, place) = once_on(raw(), place, request::pipe);
    assert_eq!(made, Ok(0));
    let (made, place) = once_on(raw(), place, request::pipe);
    assert_eq!(made, Ok(0));
    drop(place);
}

/// What a chain is made of: the read waits, and what comes after it is never begun.
enum Link {
    Read(OwnedFd, [u8; 1]),
    Make(Pipe),
}

impl Link {
    fn request(&mut self) -> Request<'_> {
        match self {
            Link::Read(reader, byte) => request::read(reader, byte).deadline(Duration::from_millis(2)),
            Link::Make(place) => request::pipe(place),
        }
    }
}

pub fn a_pipe_that_was_never_begun_has_no_ends(raw: impl Fn() -> RawRing) {
    if !has_pipes(raw()) {
        return;
    }
    let (reader, _writer) = pipe();
    let seen = Log::new();
    let log = seen.clone();
    let script = Script::new()
        .on_setup_once(move |mut submitter| {
            let mut chain = submitter.chain();
            chain.link(Link::Read(reader, [0]), Link::request)?;
            chain.submit(Link::Make(Pipe::new()), Link::request)?;
            Ok(())
        })
        .on_completion(move |completion, link, _| {
            if let Link::Make(mut place) = link {
                log.push((outcome(&completion), place.take().is_none()));
            }
            (ControlFlow::Continue, None)
        });
    Bench::builder(script, Script::new()).raw_ring(raw()).build().unwrap().run().unwrap();
    assert_eq!(seen.take(), [(Err(libc::ECANCELED), true)]);
}

/// An epoll set, and what is waited for.
type Set = (OwnedFd, Vec<EpollEvent>);

/// A set that watches a descriptor for what can be read, under this number.
fn watch(watched: &[(&OwnedFd, u64)]) -> OwnedFd {
    // SAFETY: a plain call.
    let number = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
    assert!(number >= 0);
    // SAFETY: it was just made.
    let set = unsafe { OwnedFd::from_raw_fd(number) };
    for (descriptor, data) in watched {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: *data };
        let descriptor = descriptor.as_raw_fd();
        // SAFETY: the event is there.
        let added = unsafe { libc::epoll_ctl(number, libc::EPOLL_CTL_ADD, descriptor, &raw mut event) };
        assert_eq!(added, 0, "{}", io::Error::last_os_error());
    }
    set
}

pub fn a_set_tells_what_has_happened_to_its_files(raw: impl Fn() -> RawRing) {
    fn wait((set, events): &mut Set) -> Request<'_> {
        request::epoll_wait(set, events)
    }
    fn told(events: &[EpollEvent]) -> Vec<(u64, bool)> {
        events.iter().map(|event| (event.data(), event.events().contains(Events::READABLE))).collect()
    }
    let ((one, to_one), (other, to_other)) = (pipe(), pipe());
    let set = watch(&[(&one, u64::MAX), (&other, 7)]);
    let (to_one, to_other) = (File::from(to_one), File::from(to_other));
    { &to_one }.write_all(b"x").unwrap();
    let (count, (set, events)) = once_on(raw(), (set, vec![EpollEvent::new(); 3]), wait);
    if count == Err(libc::EINVAL) {
        return eprintln!("skipped: needs Linux 6.15");
    }
    assert_eq!((count, told(&events[..1])), (Ok(1), vec![(u64::MAX, true)]));
    assert_eq!(
        (events[1].data(), events[1].events()),
        (0, Events::from_result(0)),
        "nothing was written there"
    );
    { &to_other }.write_all(b"x").unwrap();
    let (count, (set, mut events)) =
        once_on(raw(), (set, events), |(set, events)| request::epoll_wait(set, events).in_worker());
    events[..2].sort_by_key(EpollEvent::data);
    assert_eq!((count, told(&events[..2])), (Ok(2), vec![(7, true), (u64::MAX, true)]));
    // What there is no room for is told the next time.
    let (count, (set, events)) = once_on(raw(), (set, vec![EpollEvent::new()]), wait);
    let (other_count, (set, others)) = once_on(raw(), (set, vec![EpollEvent::new()]), wait);
    assert_eq!((count, other_count, events[0].data() == others[0].data()), (Ok(1), Ok(1), false));
    assert!(format!("{others:?}").starts_with("[EpollEvent { events: Events(1), data: "), "{others:?}");
    let (none, (set, _)) = once_on(raw(), (set, Vec::new()), wait);
    assert_eq!(none, Err(libc::EINVAL), "there is no room for any");
    let no_set = once_on(raw(), (pipe().0, vec![EpollEvent::new()]), wait).0;
    assert_eq!(no_set, Err(libc::EINVAL));

    // Nothing happens; and then something does, while a ring waits for it.
    for end in [&one, &other] {
        File::from(end.try_clone().unwrap()).read_exact(&mut [0]).unwrap();
    }
    for in_worker in [false, true] {
        let (completion, _) = complete_on(
            raw(),
            (set.try_clone().unwrap(), vec![EpollEvent::new()]),
            move |(set, events): &mut Set| {
                let request = request::epoll_wait(set, events).deadline(Duration::from_millis(2));
                if in_worker { request.in_worker() } else { request }
            },
        );
        assert_eq!((outcome(&completion), completion.timed_out()), (Err(libc::ECANCELED), true));
    }
    let seen = Log::new();
    let log = seen.clone();
    let script = Script::new()
        .on_setup_once(move |mut submitter| {
            submitter.submit((Some(set), vec![EpollEvent::new(); 2]), |(set, events)| match set {
                Some(set) => request::epoll_wait(set, events),
                None => request::nop(),
            })?;
            submitter.submit((None, Vec::new()), |_| request::timeout(Duration::from_millis(2)))?;
            Ok(())
        })
        .on_completion(move |completion, (set, events): (Option<OwnedFd>, Vec<EpollEvent>), _| {
            match set {
                Some(_) => log.push((outcome(&completion), told(&events[..1]))),
                None => { &to_other }.write_all(b"x").unwrap(),
            }
            (ControlFlow::Continue, None)
        });
    Bench::builder(script, Script::new()).raw_ring(raw()).build().unwrap().run().unwrap();
    assert_eq!(seen.take(), [(Ok(1), vec![(7, true)])]);
}
