//! What the requests of a program work on: descriptors, with somebody at the other end of each.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::program::Kind;

/// Descriptors to make requests on.
#[derive(Clone)]
pub(crate) struct Surroundings {
    file: Arc<OwnedFd>,
    socket: Arc<OwnedFd>,
    datagrams: Arc<OwnedFd>,
    tcp: Arc<OwnedFd>,
    listener: Arc<OwnedFd>,
    /// As `listener`, for connections on which something is sent both ways.
    door: Arc<OwnedFd>,
    pipe: Arc<OwnedFd>,
    /// What requests wait for.
    pub(crate) words: [Arc<AtomicU32>; 2],
    /// With the real kernel: what the other side has seen of the connections.
    pub(crate) heard: Option<Arc<Heard>>,
}

/// What the other side has seen of its connections through the `door`.
pub(crate) struct Heard {
    /// Which connections have ended, by their tags, until others have those.
    ended: [AtomicBool; 256],
    wrong: Mutex<Vec<String>>,
}

impl Heard {
    /// Whether the connection with this tag has ended; 0 is none.
    pub(crate) fn has_ended(&self, tag: u8) -> bool {
        tag != 0 && self.ended[usize::from(tag)].load(Ordering::Acquire)
    }

    /// What is wrong, since the last time.
    pub(crate) fn wrong(&self) -> Vec<String> {
        std::mem::take(&mut *self.wrong.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Surroundings {
    /// One descriptor, on which nothing ever happens: for a kernel that makes up its answers.
    pub(crate) fn nothing() -> Surroundings {
        thread_local! {
            static NOTHING: Arc<OwnedFd> = Arc::new({
                // SAFETY: a plain call.
                let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
                assert!(fd >= 0);
                // SAFETY: just made, and nobody else's.
                unsafe { OwnedFd::from_raw_fd(fd) }
            });
        }
        let nothing = || NOTHING.with(Arc::clone);
        Surroundings {
            file: nothing(),
            socket: nothing(),
            datagrams: nothing(),
            tcp: nothing(),
            listener: nothing(),
            door: nothing(),
            pipe: nothing(),
            words: Default::default(),
            heard: None,
        }
    }

    /// The descriptor for a request of this kind.
    pub(crate) fn descriptor(&self, kind: Kind) -> Arc<OwnedFd> {
        Arc::clone(match kind {
            Kind::Receive
            | Kind::ReceiveProvided
            | Kind::Send
            | Kind::ReceiveMulti
            | Kind::ReceiveLimited
            | Kind::ReceiveBundles
            | Kind::ReceivePieces => &self.socket,
            Kind::AcceptDirect | Kind::AcceptMultiDirect => &self.door,
            Kind::ReceiveDatagrams => &self.datagrams,
            Kind::SendZeroCopy | Kind::SendVectoredZeroCopy => &self.tcp,
            Kind::Accept | Kind::AcceptMulti => &self.listener,
            Kind::Poll | Kind::PollMulti => &self.pipe,
            _ => &self.file,
        })
    }
}

/// Somebody at the other ends, who sends, receives, and connects from time to time.
pub(crate) struct OtherSide {
    pub(crate) surroundings: Surroundings,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl OtherSide {
    pub(crate) fn begin() -> io::Result<OtherSide> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("rummelplatz-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let address = SocketAddr::from_abstract_name(&name)?;
        let listener = UnixListener::bind_addr(&address)?;
        let door_address = SocketAddr::from_abstract_name(name + "-door")?;
        let door = UnixListener::bind_addr(&door_address)?;
        let (socket, mut others) = UnixStream::pair()?;
        let (mut reader, mut writer) = UnixStream::pair()?;
        reader.set_nonblocking(true)?;
        let (datagrams, sender_of_them) = UnixDatagram::pair()?;
        sender_of_them.set_nonblocking(true)?;
        let tcp = TcpListener::bind("127.0.0.1:0")?;
        let sender = TcpStream::connect(tcp.local_addr()?)?;
        let (mut receiver, _) = tcp.accept()?;
        others.set_nonblocking(true)?;
        writer.set_nonblocking(true)?;
        receiver.set_nonblocking(true)?;
        let heard =
            Arc::new(Heard { ended: [const { AtomicBool::new(false) }; 256], wrong: Mutex::default() });
        let surroundings = Surroundings {
            file: Arc::new(File::open("/proc/self/exe")?.into()),
            socket: Arc::new(socket.into()),
            datagrams: Arc::new(datagrams.into()),
            tcp: Arc::new(sender.into()),
            listener: Arc::new(listener.into()),
            door: Arc::new(door.into()),
            pipe: Arc::new(reader.try_clone()?.into()),
            words: Default::default(),
            heard: Some(Arc::clone(&heard)),
        };
        let words = surroundings.words.clone();
        let end = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&end);
        let thread = thread::spawn(move || {
            // There may be nothing to do, or no room.
            let maybe = |_: io::Result<usize>| {};
            let mut bytes = [0; 4096];
            let mut turn = 0_u32;
            let mut visitors = Visitors { address: door_address, heard, open: Vec::new(), last: 0 };
            while !ended.load(Ordering::Relaxed) {
                maybe(others.write(&bytes[..40]));
                maybe(sender_of_them.send(&bytes[..20]));
                maybe(others.read(&mut bytes));
                maybe(receiver.read(&mut bytes));
                maybe(writer.write(&[1]));
                if turn.is_multiple_of(2) {
                    maybe(reader.read(&mut bytes));
                }
                drop(connect(&address));
                visitors.come_and_go();
                words.iter().for_each(wake);
                turn = turn.wrapping_add(1);
                thread::sleep(Duration::from_micros(300));
            }
        });
        Ok(OtherSide { surroundings, end, thread: Some(thread) })
    }
}

/// Those who come through the door, and stay until they are sent away.
struct Visitors {
    address: SocketAddr,
    heard: Arc<Heard>,
    /// With what each of their bytes is.
    open: Vec<(u8, UnixStream)>,
    last: u8,
}

impl Visitors {
    /// More than any table has places for, so that there is always one who waits at the door.
    const MOST: usize = 24;

    fn come_and_go(&mut self) {
        if self.open.len() < Self::MOST
            && let Some(socket) = connect(&self.address)
        {
            self.last = if self.last == u8::MAX { 1 } else { self.last + 1 };
            while self.open.iter().any(|(tag, _)| *tag == self.last) {
                self.last = if self.last == u8::MAX { 1 } else { self.last + 1 };
            }
            self.heard.ended[usize::from(self.last)].store(false, Ordering::Release);
            self.open.push((self.last, socket));
        }
        let heard = &self.heard;
        self.open.retain_mut(|(tag, socket)| {
            let goes_on = Self::talk(*tag, socket, heard);
            if !goes_on {
                heard.ended[usize::from(*tag)].store(true, Ordering::Release);
            }
            goes_on
        });
    }

    /// Sends, and receives what there is. Returns whether the connection goes on.
    fn talk(tag: u8, socket: &mut UnixStream, heard: &Heard) -> bool {
        // Those who are not accepted yet can send as well. There may be no room.
        socket.write_all(&[tag; 20]).ok();
        let mut bytes = [0; 256];
        match socket.read(&mut bytes) {
            Ok(count) if bytes[..count].iter().any(|byte| *byte != tag) => {
                let what = format!("visitor {tag} has received {:?}", &bytes[..count]);
                heard.wrong.lock().unwrap_or_else(PoisonError::into_inner).push(what);
                false
            }
            Ok(count) => count > 0,
            Err(error) => matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted),
        }
    }
}

/// Changes a word, and wakes those who wait for it.
fn wake(word: &Arc<AtomicU32>) {
    word.fetch_add(1, Ordering::SeqCst);
    let operation = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: the word is there.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), operation, i32::MAX) };
}

/// Connects to a listener, unless its queue of waiting connections is full.
fn connect(address: &SocketAddr) -> Option<UnixStream> {
    // SAFETY: a plain call.
    let socket = unsafe {
        libc::socket(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, 0)
    };
    if socket < 0 {
        return None;
    }
    // SAFETY: just made, and nobody else's.
    let socket = UnixStream::from(unsafe { OwnedFd::from_raw_fd(socket) });
    let name = address.as_abstract_name().unwrap_or_default();
    // SAFETY: all zeroes is an address.
    let mut raw: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    raw.sun_family = libc::AF_UNIX as libc::sa_family_t;
    for (to, from) in raw.sun_path[1..].iter_mut().zip(name) {
        *to = *from as libc::c_char;
    }
    let length = std::mem::offset_of!(libc::sockaddr_un, sun_path) + 1 + name.len();
    let fd = std::os::fd::AsRawFd::as_raw_fd(&socket);
    // SAFETY: the address is there, and as long as is said.
    let connected = unsafe { libc::connect(fd, (&raw const raw).cast(), length as libc::socklen_t) };
    (connected == 0).then_some(socket)
}

impl Drop for OtherSide {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}
