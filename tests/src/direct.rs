//! Tests of files in the ring's own table, the same under every kernel. Each is given a function that makes a ring on
//! the kernel to test.

use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZeroU32;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::time::Duration;

use rummelplatz::request::{CWD, OpenOptions, Peer, Resolve};
use rummelplatz::{Completion, ControlFlow, FixedFile, RawRing, Request, Stream, request};

use crate::{Bench, BenchSubmitter, Directory, Log, Script, is_inherited, outcome, soon};

/// What requests on direct descriptors use.
pub enum Work {
    /// The stream of connections.
    Accept(Arc<UnixListener>),
    AcceptOne(Arc<UnixListener>, Peer),
    Receive(FixedFile, Vec<u8>),
    Send(FixedFile, Vec<u8>),
    Open(CString, Option<Resolve>),
    Install(FixedFile),
    Socket,
    /// A little time, with something that is kept until then.
    Pause(Vec<FixedFile>),
}

impl Work {
    pub fn accept(&mut self) -> Stream<'_> {
        let Work::Accept(listener) = self else { panic!("this is a request") };
        request::accept_multi_direct(listener)
    }

    pub fn request(&mut self) -> Request<'_> {
        match self {
            Work::Accept(listener) => request::accept_direct(listener),
            Work::AcceptOne(listener, peer) => request::accept_from_direct(listener, peer),
            Work::Receive(file, buffer) => request::recv(file, buffer),
            Work::Send(file, bytes) => request::send(file, bytes),
            Work::Open(path, None) => request::openat_direct(&CWD, path, &OpenOptions::new()),
            Work::Open(path, Some(how)) => {
                request::openat_direct(&CWD, path, &OpenOptions::new().resolve(*how))
            }
            Work::Install(file) => request::install(file),
            Work::Socket => request::socket_direct(libc::AF_INET, libc::SOCK_STREAM, 0),
            Work::Pause(_) => request::timeout(Duration::from_millis(1)),
        }
    }
}

/// A ring with this many places for direct descriptors.
pub fn bench(raw: RawRing, places: u32, script: Script<Work>) -> Bench<Work> {
    let places = NonZeroU32::new(places).unwrap();
    Bench::builder(script, Script::new()).raw_ring(raw).direct_descriptors(places).build().unwrap()
}

/// A listener, and this many connections to it that wait to be accepted.
pub fn connections(count: usize) -> (Arc<UnixListener>, Vec<UnixStream>) {
    let there = Directory::new("direct");
    let path = there.path("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let clients = (0..count).map(|_| UnixStream::connect(&path).unwrap()).collect();
    (Arc::new(listener), clients)
}

/// Whether the other side has closed the connection.
pub fn is_closed(client: &UnixStream) -> bool {
    client.set_nonblocking(true).unwrap();
    let closed = match { client }.read(&mut [0]) {
        Ok(0) => true,
        Err(error) => error.raw_os_error() == Some(libc::ECONNRESET),
        Ok(_) => false,
    };
    client.set_nonblocking(false).unwrap();
    closed
}

fn again(submitter: &mut BenchSubmitter<'_, Work>, work: Work) {
    submitter.submit(work, Work::request).unwrap();
}

fn errno(completion: Completion) -> Option<i32> {
    completion.into_fixed_file().unwrap_err().raw_os_error()
}

pub fn connections_are_served_and_closed_when_they_are_left(raw: impl Fn() -> RawRing) {
    const COUNT: usize = 5;
    let (listener, clients) = connections(COUNT);
    for (number, mut client) in clients.iter().enumerate() {
        client.write_all(&[number as u8]).unwrap();
    }
    let others = clients.iter().map(|client| client.try_clone().unwrap()).collect::<Vec<_>>();
    let mut served = 0;
    let script = Script::new()
        .on_setup_once(move |mut submitter| {
            submitter.stream(Work::Accept(listener), Work::accept)?;
            Ok(())
        })
        .on_completion(move |completion, work, mut submitter| {
            match work {
                Work::Accept(_) => {
                    assert!(completion.more());
                    let socket = completion.into_fixed_file().unwrap();
                    again(&mut submitter, Work::Receive(socket, vec![0; 8]));
                    return (ControlFlow::Continue, Some(work));
                }
                Work::Receive(socket, mut bytes) => {
                    bytes.truncate(completion.result().unwrap() as usize);
                    again(&mut submitter, Work::Send(socket, bytes));
                }
                Work::Send(socket, bytes) => {
                    assert_eq!(completion.result().unwrap() as usize, bytes.len());
                    served += 1;
                    drop(socket);
                    if served == COUNT {
                        again(&mut submitter, Work::Pause(Vec::new()));
                    }
                }
                _ => {
                    let closed = soon(|| others.iter().all(is_at_end));
                    assert!(closed, "the ring has closed them although it goes on");
                    return (ControlFlow::Exit, None);
                }
            }
            (ControlFlow::Continue, None)
        });
    let mut ring = bench(raw(), 8, script);
    ring.run().unwrap();
    for (number, mut client) in clients.iter().enumerate() {
        let mut bytes = Vec::new();
        client.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, [number as u8]);
    }
}

/// Whether there is one byte to be received, and nothing after it.
fn is_at_end(client: &UnixStream) -> bool {
    let mut bytes = [0; 2];
    // SAFETY: the memory is there.
    let peeked = unsafe {
        let descriptor = client.as_raw_fd();
        libc::recv(descriptor, bytes.as_mut_ptr().cast(), 2, libc::MSG_PEEK | libc::MSG_DONTWAIT)
    };
    let mut poll = libc::pollfd { fd: client.as_raw_fd(), events: libc::POLLRDHUP, revents: 0 };
    // SAFETY: there is one of it.
    let ready = unsafe { libc::poll(&raw mut poll, 1, 0) };
    peeked == 1 && ready == 1 && poll.revents & libc::POLLRDHUP != 0
}

/// Accepts a connection.
fn accepting_one(listener: Arc<UnixListener>) -> Script<Work> {
    Script::new().on_setup_once(move |mut submitter| {
        again(&mut submitter, Work::AcceptOne(listener, Peer::new()));
        Ok(())
    })
}

pub fn a_full_table_closes_the_connection_and_has_room_again_when_one_is_left(raw: impl Fn() -> RawRing) {
    let (listener, clients) = connections(4);
    let others = clients.iter().map(|client| client.try_clone().unwrap()).collect::<Vec<_>>();
    let mut kept = Vec::new();
    let mut accepts = 0;
    let script = accepting_one(listener).on_completion(move |completion, work, mut submitter| {
        match work {
            Work::AcceptOne(listener, peer) => {
                accepts += 1;
                match accepts {
                    1 | 2 => kept.push(completion.into_fixed_file().unwrap()),
                    3 => {
                        assert_eq!(errno(completion), Some(libc::ENFILE));
                        assert!(soon(|| is_closed(&others[2])) && !is_closed(&others[0]));
                        // A completion that nobody looks into owns what it carries, too.
                        drop(kept.remove(0));
                    }
                    4 => drop(completion),
                    _ => panic!("there are four"),
                }
                let next =
                    if accepts < 4 { Work::AcceptOne(listener, peer) } else { Work::Pause(Vec::new()) };
                again(&mut submitter, next);
            }
            _ => {
                assert!(soon(|| [0, 2, 3].iter().all(|number| is_closed(&others[*number]))));
                assert!(!is_closed(&others[1]));
                return (ControlFlow::Exit, None);
            }
        }
        (ControlFlow::Continue, None)
    });
    bench(raw(), 2, script).run().unwrap();
    assert!(soon(|| clients.iter().all(is_closed)), "the ring has ended");
}

pub fn a_full_table_takes_no_place_that_is_for_registered_files(raw: impl Fn() -> RawRing) {
    let (listener, clients) = connections(3);
    let others = clients.iter().map(|client| client.try_clone().unwrap()).collect::<Vec<_>>();
    let mut kept = Vec::new();
    let mut accepts = 0;
    let script = accepting_one(listener).on_completion(move |completion, work, mut submitter| {
        accepts += 1;
        if accepts == 1 {
            kept.push(completion.into_fixed_file().unwrap());
            // Their places are empty again, and the kernel has seen them last.
            let mut register = || submitter.register_file(&others[0]).unwrap();
            for file in [register(), register()] {
                submitter.unregister_file(file).unwrap();
            }
        } else {
            assert_eq!(errno(completion), Some(libc::ENFILE));
            assert!(soon(|| is_closed(&others[accepts - 1])) && !is_closed(&others[0]));
            kept.push(submitter.register_file(&others[0]).unwrap());
        }
        if accepts < 3 {
            again(&mut submitter, work);
        }
        (ControlFlow::Continue, None)
    });
    bench(raw(), 1, script).run().unwrap();
    assert!(soon(|| clients.iter().all(is_closed)), "the ring has ended");
}

pub fn files_are_opened_in_the_table_and_may_get_a_descriptor(raw: impl Fn() -> RawRing) {
    let there = Directory::new("direct-files");
    there.file("file", b"content");
    let path = there.c_path("file");
    let seen = Log::new();
    let log = seen.clone();
    let script = Script::new()
        .on_setup_once(move |mut submitter| {
            again(&mut submitter, Work::Open(path.clone(), None));
            again(&mut submitter, Work::Open(path, Some(Resolve::NO_MAGICLINKS)));
            again(&mut submitter, Work::Open(c"/no/such/file".to_owned(), Some(Resolve::CACHED)));
            again(&mut submitter, Work::Socket);
            Ok(())
        })
        .on_completion(move |completion, work, mut submitter| {
            match work {
                Work::Open(path, _) if path.as_c_str() == c"/no/such/file" => {
                    assert!(matches!(errno(completion), Some(libc::ENOENT | libc::EAGAIN)));
                }
                Work::Open(..) | Work::Socket => {
                    assert_eq!(outcome(&completion), Ok(0), "the index is nobody's business");
                    let file = completion.into_fixed_file().unwrap();
                    again(&mut submitter, Work::Install(file));
                }
                Work::Install(_) => log.push(completion.into_fd().unwrap()),
                _ => unreachable!(),
            }
            (ControlFlow::Continue, None)
        });
    bench(raw(), 4, script).run().unwrap();
    let mut texts = seen
        .take()
        .into_iter()
        .map(|file: OwnedFd| {
            assert!(!is_inherited(&file));
            let mut text = String::new();
            File::from(file).read_to_string(&mut text).map(|_| text).ok()
        })
        .collect::<Vec<_>>();
    texts.sort();
    let content = || Some("content".to_owned());
    assert_eq!(texts, [None, content(), content()], "a socket that is not connected can't be read");
}

pub fn without_places_there_are_no_direct_descriptors(raw: impl Fn() -> RawRing) {
    let (listener, clients) = connections(2);
    let seen = Log::new();
    let log = seen.clone();
    let script = Script::new()
        .on_setup_once(move |mut submitter| {
            // A table there is, but its places are for what is registered.
            let registered = submitter.register_file(&*listener)?;
            again(&mut submitter, Work::Accept(listener.clone()));
            again(&mut submitter, Work::Open(c"/dev/null".to_owned(), None));
            again(&mut submitter, Work::Pause(vec![registered]));
            Ok(())
        })
        .on_completion(move |completion, work, _| {
            if !matches!(work, Work::Pause(_)) {
                log.push(errno(completion));
            }
            (ControlFlow::Continue, None)
        });
    Bench::builder(script, Script::new()).raw_ring(raw()).build().unwrap().run().unwrap();
    assert_eq!(seen.take(), [Some(libc::ENFILE); 2]);
    drop(clients);
}

pub fn what_is_held_beyond_the_run_names_nothing(raw: impl Fn() -> RawRing) {
    let (listener, clients) = connections(2);
    let seen = Log::new();
    let (log, held) = (seen.clone(), Log::new());
    let holds = held.clone();
    let script = Script::new()
        .on_setup(move |mut submitter| {
            again(&mut submitter, Work::Accept(listener.clone()));
            if let Some(old) = holds.take().pop() {
                again(&mut submitter, Work::Send(old, b"x".to_vec()));
            }
            Ok(())
        })
        .on_completion(move |completion, work, _| {
            match work {
                Work::Accept(_) => log.push(Ok(completion.into_fixed_file().unwrap())),
                _ => log.push(Err(outcome(&completion))),
            }
            (ControlFlow::Continue, None)
        });
    let mut ring = bench(raw(), 1, script);
    ring.run().unwrap();
    assert!(soon(|| is_closed(&clients[0])), "although somebody holds it");
    let Some(Ok(old)) = seen.take().pop() else { panic!("one was accepted") };
    held.push(old);
    ring.run().unwrap();
    let told = seen.take();
    assert_eq!(told.iter().filter(|it| it.is_ok()).count(), 1, "its place was free");
    assert!(told.iter().any(|it| matches!(it, Err(Err(libc::EBADF)))), "and is another's");
    assert!(soon(|| is_closed(&clients[1])));
}
