//! Tests of messages with control messages that are the same under every kernel. Each is given a function that makes a
//! ring on the kernel to test.

use std::fs::File;
use std::io::{self, PipeReader, Read, Write};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::thread;
use std::time::{Duration, SystemTime};

use rummelplatz::request::{Credentials, PacketInfo, RecvControl, SendControl};
use rummelplatz::{BufferPool, ControlFlow, Datagram, RawRing, Request, Stream, request};

use crate::options::SO_PASSPIDFD;
use crate::{Bench, Log, Script, complete_on, is_inherited, nameless_file, once_on, outcome, soon};

/// A message to be sent, with descriptors.
pub struct Passing {
    pub socket: OwnedFd,
    pub bytes: Vec<u8>,
    pub fds: Vec<OwnedFd>,
    pub control: SendControl,
}

impl Passing {
    pub fn new(socket: impl Into<OwnedFd>, bytes: &[u8], fds: Vec<OwnedFd>) -> Passing {
        Passing { socket: socket.into(), bytes: bytes.into(), fds, control: SendControl::new() }
    }

    pub fn request(&mut self) -> Request<'_> {
        request::send_message(&self.socket, [&self.bytes[..]], self.control.start().fds(&self.fds))
    }
}

/// A message to be received.
#[derive(Debug)]
pub struct Receiving {
    pub socket: OwnedFd,
    pub bytes: Vec<u8>,
    pub control: RecvControl,
}

impl Receiving {
    /// With room for 16 bytes.
    pub fn new(socket: impl Into<OwnedFd>, control: RecvControl) -> Receiving {
        Receiving { socket: socket.into(), bytes: vec![0; 16], control }
    }

    pub fn request(&mut self) -> Request<'_> {
        request::recv_message(&self.socket, &mut self.bytes, &mut self.control)
    }

    /// Receives one, in a ring of its own.
    pub fn on(self, raw: RawRing) -> (Result<u32, i32>, Receiving) {
        once_on(raw, self, Receiving::request)
    }
}

/// So many descriptors to be passed, and what says that all copies of one are closed.
pub fn watched_fds(count: usize) -> (Vec<OwnedFd>, Vec<PipeReader>) {
    let pipes = (0..count).map(|_| io::pipe().unwrap());
    pipes.map(|(reader, writer)| (OwnedFd::from(writer), reader)).unzip()
}

/// Whether nobody has any of these descriptors any more. (That this is asked of an empty pipe is up to the caller.)
pub fn are_closed(watches: &[PipeReader]) -> bool {
    watches.iter().all(|watch| {
        let mut poll = libc::pollfd { fd: watch.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: there is one.
        assert!(unsafe { libc::poll(&raw mut poll, 1, 0) } >= 0);
        poll.revents & libc::POLLHUP != 0
    })
}

/// Sets an option of a socket that is a number.
#[track_caller]
pub fn set(socket: &impl AsRawFd, level: i32, option: i32, value: i32) {
    let length = size_of_val(&value) as libc::socklen_t;
    let place = (&raw const value).cast();
    // SAFETY: there is a number.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, place, length) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
}

/// Two sockets of each kind over which descriptors are passed.
fn pairs() -> [(OwnedFd, OwnedFd); 2] {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (others, its) = UnixDatagram::pair().unwrap();
    [(ours.into(), theirs.into()), (others.into(), its.into())]
}

pub fn files_are_passed_and_read_from(raw: impl Fn() -> RawRing) {
    for (ours, theirs) in pairs() {
        let files = ["one", "two", "three"].map(|text| {
            let mut file = nameless_file();
            file.write_all(text.as_bytes()).unwrap();
            file
        });
        let passing = Passing::new(ours, b"three files", files.map(OwnedFd::from).into());
        let (result, passing) = once_on(raw(), passing, Passing::request);
        assert_eq!(result, Ok(11));
        // Those that were sent are open as long as somebody has them.
        drop(passing.fds);
        let (result, mut received) = Receiving::new(theirs, RecvControl::new()).on(raw());
        assert_eq!((result, &received.bytes[..11]), (Ok(11), &b"three files"[..]));
        assert!(!received.control.is_truncated() && !received.control.is_control_truncated());
        assert_eq!(received.control.messages().iter().count(), 0, "no number is shown");
        let texts = received.control.take_fds().map(|fd| {
            assert!(!is_inherited(&fd));
            let mut text = String::new();
            let mut file = File::from(fd);
            io::Seek::rewind(&mut file).unwrap();
            file.read_to_string(&mut text).unwrap();
            text
        });
        assert_eq!(texts.collect::<Vec<_>>(), ["one", "two", "three"]);
        assert_eq!(received.control.take_fds().count(), 0);
        // The next message has nothing of the last, though the same memory is used.
        let socket = passing.socket;
        let (result, passing) = once_on(raw(), Passing { socket, fds: Vec::new(), ..passing }, |it| {
            request::send_message(&it.socket, [&it.bytes[..3], &it.bytes[3..]], it.control.start())
        });
        assert_eq!(result, Ok(11));
        let (result, mut received) = received.on(raw());
        assert_eq!((result, received.control.take_fds().count()), (Ok(11), 0));
        drop(passing);
    }
}

pub fn descriptors_that_nobody_takes_are_closed(raw: impl Fn() -> RawRing) {
    // How many are sent, for how many there is room, and how many are taken.
    for (sent, room, taken) in
        [(3, 3, 0), (3, 3, 2), (5, 2, 0), (5, 2, 1), (5, 0, 0), (253, 253, 0), (253, 252, 251)]
    {
        for (ours, theirs) in pairs() {
            let (fds, watches) = watched_fds(sent);
            let (result, passing) = once_on(raw(), Passing::new(ours, b"x", fds), Passing::request);
            assert_eq!(result, Ok(1));
            drop(passing.fds);
            assert!(!watches.iter().any(|watch| are_closed(std::slice::from_ref(watch))));
            let control = RecvControl::with_room(RecvControl::room_for(room * 4));
            let (result, mut received) = Receiving::new(theirs, control).on(raw());
            // There is room for one more where that for an even number would end.
            let arrived = sent.min(room.next_multiple_of(2));
            assert_eq!((result, received.control.is_control_truncated()), (Ok(1), arrived < sent));
            let held: Vec<_> = received.control.take_fds().take(taken).collect();
            assert_eq!(held.len(), taken);
            assert!(soon(|| are_closed(&watches[arrived..])));
            assert!(!watches[..arrived].iter().any(|watch| are_closed(std::slice::from_ref(watch))));
            drop(received);
            assert!(soon(|| are_closed(&watches[taken..])), "{sent} sent, room for {room}, {taken} taken");
            drop(held);
            assert!(soon(|| are_closed(&watches)));
        }
    }
}

pub fn what_is_used_again_closes_what_it_has(raw: impl Fn() -> RawRing) {
    for (ours, theirs) in pairs() {
        let (fds, watches) = watched_fds(2);
        let (_, passing) = once_on(raw(), Passing::new(ours, b"x", fds), Passing::request);
        drop(passing.fds);
        let (_, received) = Receiving::new(theirs, RecvControl::new()).on(raw());
        assert!(!are_closed(&watches));
        let (completion, mut received) =
            complete_on(raw(), received, |it| it.request().deadline(Duration::from_millis(2)));
        assert_eq!((outcome(&completion), completion.timed_out()), (Err(libc::ECANCELED), true));
        assert!(soon(|| are_closed(&watches)));
        let control = &mut received.control;
        assert_eq!(
            (control.take_fds().count(), control.messages().iter().count(), control.peer()),
            (0, 0, None)
        );
        assert!(!control.is_truncated() && !control.is_control_truncated());
        drop(passing.socket);
    }
}

pub fn what_can_not_be_passed_is_refused(raw: impl Fn() -> RawRing) {
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let file: OwnedFd = nameless_file().into();
    let copies = |count: usize| (0..count).map(|_| file.try_clone().unwrap()).collect();
    let (result, _) =
        once_on(raw(), Passing::new(ours.try_clone().unwrap(), b"x", copies(254)), Passing::request);
    assert_eq!(result, Err(libc::EINVAL));
    let no_socket = Passing::new(file.try_clone().unwrap(), b"x", copies(1));
    assert_eq!(once_on(raw(), no_socket, Passing::request).0, Err(libc::ENOTSOCK));
    let (result, received) = Receiving::new(file, RecvControl::new()).on(raw());
    assert_eq!((result, received.control.messages().iter().count()), (Err(libc::ENOTSOCK), 0));
}

/// Sends what comes with a message from one to the other, and returns what is received.
fn said(
    raw: &impl Fn() -> RawRing,
    from: &impl AsFd,
    to: &impl AsFd,
    send: impl for<'d> FnOnce(&'d mut Passing) -> Request<'d>,
) -> (Result<u32, i32>, Receiving) {
    let passing = Passing::new(from.as_fd().try_clone_to_owned().unwrap(), b"hello", Vec::new());
    assert_eq!(once_on(raw(), passing, send).0, Ok(5));
    Receiving::new(to.as_fd().try_clone_to_owned().unwrap(), RecvControl::new()).on(raw())
}

/// Sockets bound to any address, for each kind of Internet address that there is, and the loopback address.
fn anywhere() -> impl Iterator<Item = (UdpSocket, UdpSocket, IpAddr, SocketAddr)> {
    ["127.0.0.1", "::1"].into_iter().filter_map(|loopback| {
        let loopback: IpAddr = loopback.parse().unwrap();
        let any = if loopback.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let Ok(theirs) = UdpSocket::bind((loopback, 0)).and_then(|_| UdpSocket::bind(any)) else {
            eprintln!("skipped: nothing can be bound to {loopback}");
            return None;
        };
        let there = SocketAddr::new(loopback, theirs.local_addr().unwrap().port());
        Some((UdpSocket::bind(any).unwrap(), theirs, loopback, there))
    })
}

/// Makes a socket say where each datagram was sent to, how, and when.
fn ask(socket: &UdpSocket, loopback: IpAddr) {
    let (level, options) = match loopback.is_ipv4() {
        true => (libc::IPPROTO_IP, [libc::IP_PKTINFO, libc::IP_RECVTOS]),
        false => (libc::IPPROTO_IPV6, [libc::IPV6_RECVPKTINFO, libc::IPV6_RECVTCLASS]),
    };
    options.into_iter().for_each(|option| set(socket, level, option, 1));
    set(socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1);
}

pub fn a_datagram_says_where_it_was_sent_to_and_how(raw: impl Fn() -> RawRing) {
    for (ours, theirs, loopback, there) in anywhere() {
        // Without the options, nothing is said.
        let (result, received) = said(&raw, &ours, &theirs, |it| {
            request::send_message(&it.socket, [&it.bytes[..]], it.control.start().to(there))
        });
        let here = SocketAddr::new(loopback, ours.local_addr().unwrap().port());
        assert_eq!((result, received.control.peer()), (Ok(5), Some(here)));
        assert_eq!(received.control.messages().iter().count(), 0);

        ask(&theirs, loopback);
        // Of the loopback network, another address is as good.
        let source: IpAddr = if loopback.is_ipv4() { [127, 0, 0, 2].into() } else { loopback };
        let before = SystemTime::now();
        let (result, received) = said(&raw, &ours, &theirs, |it| {
            let control = it.control.start().to(there).source(source, 0).traffic_class(0xB9);
            request::send_message(&it.socket, [&it.bytes[..]], control)
        });
        let control = &received.control;
        assert_eq!((result, control.peer()), (Ok(5), Some(SocketAddr::new(source, here.port()))));
        let info = control.messages().packet_info().unwrap();
        assert!(info.interface > 0);
        assert_eq!(info, PacketInfo { destination: loopback, local: loopback, interface: info.interface });
        assert_eq!(
            (control.messages().traffic_class(), control.messages().segment_size()),
            (Some(0xB9), None)
        );
        let time = control.messages().timestamp().unwrap();
        let early = Duration::from_secs(1);
        assert!(before - early <= time && time <= SystemTime::now() + early, "{time:?}");
        assert_eq!(control.messages().iter().count(), 3);
        assert!(!control.is_truncated() && !control.is_control_truncated());

        // The answer comes from there, through that interface, even if it is not copied.
        set(&theirs, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 0);
        let (result, answer) = said(&raw, &theirs, &ours, |it| {
            let control = it.control.start().to((source, here.port())).source(info.local, info.interface);
            request::send_message_zc(&it.socket, [&it.bytes[..]], control)
        });
        assert_eq!((result, answer.control.peer()), (Ok(5), Some(there)));
        // Nobody can send from where he is not.
        let stranger: IpAddr =
            if loopback.is_ipv4() { [192, 0, 2, 1].into() } else { "2001:db8::1".parse().unwrap() };
        let passing = Passing::new(ours, b"hello", Vec::new());
        let (result, _) = once_on(raw(), passing, |it| {
            request::send_message(
                &it.socket,
                [&it.bytes[..]],
                it.control.start().to(there).source(stranger, 0),
            )
        });
        assert!(result.is_err(), "{result:?}");
    }
}

pub fn a_message_says_who_has_sent_it(raw: impl Fn() -> RawRing) {
    for (ours, theirs) in pairs() {
        set(&theirs, libc::SOL_SOCKET, libc::SO_PASSCRED, 1);
        set(&theirs, libc::SOL_SOCKET, SO_PASSPIDFD, 1);
        let (fds, watches) = watched_fds(1);
        let passing = Passing::new(ours, b"x", fds);
        let (result, passing) = once_on(raw(), passing, Passing::request);
        assert_eq!(result, Ok(1));
        drop(passing.fds);
        let (result, mut received) = Receiving::new(theirs, RecvControl::new()).on(raw());
        // SAFETY: plain calls.
        let (uid, gid) = unsafe { (libc::getuid(), libc::getgid()) };
        let us = Credentials { pid: std::process::id(), uid, gid };
        assert_eq!((result, received.control.messages().credentials()), (Ok(1), Some(us)));
        let process = received.control.take_pidfd().unwrap();
        assert!(received.control.take_pidfd().is_none());
        // SAFETY: a plain call.
        let lives = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, process.as_raw_fd(), 0, 0, 0) };
        assert_eq!(lives, 0, "it is this process");
        assert!(!are_closed(&watches));
        drop(received);
        assert!(soon(|| are_closed(&watches)));
    }
}

pub fn datagrams_are_split_and_joined(raw: impl Fn() -> RawRing) {
    const SIZE: u16 = 1200;
    for (ours, theirs, _, there) in anywhere() {
        let sent: Vec<u8> = (0..10 * u32::from(SIZE) + 300).map(|number| (number / 7) as u8).collect();
        let burst = |socket: &UdpSocket| {
            let passing = Passing::new(socket.try_clone().unwrap(), &sent, Vec::new());
            let (result, _) = once_on(raw(), passing, |it| {
                let control = it.control.start().to(there).segment_size(SIZE);
                request::send_message(&it.socket, [&it.bytes[..]], control)
            });
            assert_eq!(result, Ok(sent.len() as u32));
        };
        let receive = || {
            let mut receiving = Receiving::new(theirs.try_clone().unwrap(), RecvControl::new());
            receiving.bytes = vec![0; 65536];
            let (result, received) = receiving.on(raw());
            (received.bytes[..result.unwrap() as usize].to_vec(), received.control)
        };
        // Whoever has not asked for more receives one at a time.
        burst(&ours);
        for expected in sent.chunks(SIZE.into()) {
            let (bytes, control) = receive();
            assert_eq!((&bytes[..], control.messages().segment_size()), (expected, None));
        }
        set(&theirs, libc::SOL_UDP, libc::UDP_GRO, 1);
        burst(&ours);
        let mut received = Vec::new();
        let mut joined = 0;
        while received.len() < sent.len() {
            let (bytes, control) = receive();
            if bytes.len() > SIZE.into() {
                assert_eq!(control.messages().segment_size(), Some(SIZE));
                let lengths = control.messages().datagrams(&bytes).map(<[u8]>::len);
                assert!(lengths.eq(bytes.chunks(SIZE.into()).map(<[u8]>::len)));
                joined += 1;
            }
            received.extend(bytes);
        }
        assert!(received == sent && joined > 0, "{joined}");
        // With room for less, a part of it is lost, and it says so.
        burst(&ours);
        let (result, received) =
            Receiving::new(theirs.try_clone().unwrap(), RecvControl::with_room(8)).on(raw());
        assert_eq!((result, received.control.messages().segment_size()), (Ok(16), None));
        assert!(received.control.is_truncated() && received.control.is_control_truncated());
    }
}

/// A stream of messages.
pub struct Listening {
    socket: OwnedFd,
    pool: BufferPool,
}

impl Listening {
    /// With room for so many bytes in each of four buffers.
    pub fn new(socket: impl Into<OwnedFd>, room: u32) -> Listening {
        let pool = BufferPool::new(4, Datagram::OVERHEAD_WITH_CONTROL + room).unwrap();
        Listening { socket: socket.into(), pool }
    }

    pub fn stream(&mut self) -> Stream<'_> {
        request::recv_message_multi(&self.socket, &self.pool)
    }

    /// Receives up to a message that says "bye".
    fn until_bye(self, raw: RawRing) -> Vec<Datagram> {
        let (seen, pool) = (Log::new(), self.pool.clone());
        let log = seen.clone();
        let script = Script::new().on_completion(move |completion, data, _| {
            assert!(completion.more(), "{completion:?}");
            let result = outcome(&completion);
            let datagram = completion.into_datagram().unwrap();
            assert_eq!(result, Ok(datagram.len() as u32));
            if *datagram == *b"bye" {
                return (ControlFlow::Continue, None);
            }
            log.push(datagram);
            (ControlFlow::Continue, Some(data))
        });
        let mut ring = Bench::builder(script, Script::new()).raw_ring(raw).build().unwrap();
        ring.submitter(Bench::FIRST).stream(self, Listening::stream).unwrap();
        ring.run().unwrap();
        assert_eq!((ring.stats().in_flight, ring.stats().foreign), (0, 0));
        let seen = seen.take();
        assert_eq!(pool.available() + seen.len(), pool.capacity());
        seen
    }
}

pub fn a_stream_of_datagrams_says_what_comes_with_them(raw: impl Fn() -> RawRing) {
    for (ours, theirs, loopback, there) in anywhere() {
        ask(&theirs, loopback);
        set(&theirs, libc::SOL_UDP, libc::UDP_GRO, 1);
        let here = SocketAddr::new(loopback, ours.local_addr().unwrap().port());
        let send = |bytes: &[u8], size: Option<u16>| {
            let passing = Passing::new(ours.try_clone().unwrap(), bytes, Vec::new());
            let (result, _) = once_on(raw(), passing, move |it| {
                let mut control = it.control.start().to(there).traffic_class(2);
                if let Some(size) = size {
                    control = control.segment_size(size);
                }
                request::send_message(&it.socket, [&it.bytes[..]], control)
            });
            assert_eq!(result, Ok(bytes.len() as u32));
        };
        send(b"one", None);
        send(b"", None);
        send(b"1234123412", Some(4));
        send(b"bye", None);
        let received = Listening::new(theirs, 100).until_bye(raw());
        let mut bytes = Vec::new();
        for datagram in &received {
            bytes.push(datagram.to_vec());
            let messages = datagram.messages();
            let info = messages.packet_info().unwrap();
            assert_eq!((info.destination, info.local), (loopback, loopback));
            assert_eq!((datagram.peer(), messages.traffic_class()), (Some(here), Some(2)));
            assert!(messages.timestamp().is_some() && messages.credentials().is_none());
            assert!(!datagram.is_truncated() && !datagram.is_control_truncated());
            let size = (datagram.len() > 4).then_some(4);
            assert_eq!(messages.segment_size(), size, "{datagram:?}");
        }
        assert_eq!(bytes, [&b"one"[..], b"", b"1234123412"]);
    }
}

pub fn a_stream_closes_the_descriptors_that_come(raw: impl Fn() -> RawRing) {
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    set(&theirs, libc::SOL_SOCKET, libc::SO_PASSCRED, 1);
    let mut all = Vec::new();
    // The last does not fit.
    for count in [1, 3, 100] {
        let (fds, watches) = watched_fds(count);
        let passing = Passing::new(ours.try_clone().unwrap(), b"hello", fds);
        assert_eq!(once_on(raw(), passing, Passing::request).0, Ok(5));
        all.extend(watches);
    }
    assert!(!all.iter().any(|watch| are_closed(std::slice::from_ref(watch))));
    ours.send(b"bye").unwrap();
    let received = Listening::new(theirs, 16).until_bye(raw());
    assert!(soon(|| are_closed(&all)));
    let told = received.iter().map(|datagram| {
        let credentials = datagram.messages().credentials().unwrap();
        assert_eq!((credentials.pid, datagram.messages().iter().count()), (std::process::id(), 1));
        (&**datagram, datagram.is_control_truncated())
    });
    let hello = &b"hello"[..];
    assert_eq!(told.collect::<Vec<_>>(), [(hello, false), (hello, false), (hello, true)]);
}

pub fn a_message_that_waits_for_room_goes_out_with_its_descriptors_once(raw: impl Fn() -> RawRing + Sync) {
    const MUCH: usize = 1 << 20;
    for is_detached in [false, true] {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut full = 0;
        while let Ok(bytes) = (&ours).write(&[0; 4096]) {
            full += bytes;
        }
        ours.set_nonblocking(false).unwrap();
        let (fds, watches) = watched_fds(3);
        let passing = Passing::new(ours, &[7; MUCH], fds);
        let results = Log::new();
        let log = results.clone();
        let script = Script::new().on_completion(move |completion, _, _| {
            log.push(outcome(&completion));
            (ControlFlow::Continue, None)
        });
        let mut ring = Bench::builder(script, Script::new()).raw_ring(raw()).build().unwrap();
        let mut submitter = ring.submitter(Bench::FIRST);
        match is_detached {
            true => submitter.detach(passing, Passing::request).map(drop).unwrap(),
            false => submitter.submit(passing, |it| it.request().whole()).map(drop).unwrap(),
        }
        let receive = || {
            // Long enough for the message to wait.
            thread::sleep(Duration::from_millis(20));
            let mut receiving = Receiving::new(theirs, RecvControl::new());
            receiving.bytes = vec![0; 1 << 16];
            let (mut bytes, mut fds) = (0, Vec::new());
            loop {
                let (result, mut received) = receiving.on(raw());
                match result.unwrap() {
                    0 => return (bytes, fds),
                    more => bytes += more as usize,
                }
                fds.extend(received.control.take_fds());
                assert!(!received.control.is_control_truncated());
                receiving = received;
            }
        };
        let (bytes, fds) = thread::scope(|scope| {
            let receiver = scope.spawn(receive);
            ring.run().unwrap();
            receiver.join().unwrap()
        });
        let expected = if is_detached { vec![] } else { vec![Ok(MUCH as u32)] };
        assert_eq!((results.take(), ring.stats().detached_failed), (expected, 0));
        assert_eq!((bytes, fds.len()), (full + MUCH, 3));
        assert!(!are_closed(&watches[..1]));
        drop(fds);
        assert!(soon(|| are_closed(&watches)));
    }
}
