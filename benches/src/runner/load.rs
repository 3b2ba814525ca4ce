//! The client on the other core, for servers that do the work `serve`.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use kit::echo::{Pattern, Served};

use super::Error;
use super::arena::{Arena, Built, words};

/// The CPU of the client. The CPU of the servers is 0.
const CPU: usize = 1;

/// The limit of all latencies: the client waits no longer than this.
const LONGEST_NS: u64 = 10_000_000_000;

/// The load on a server.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    pub(crate) conns: usize,
    pub(crate) size: usize,
    pub(crate) warm: Duration,
    pub(crate) window: Duration,
}

/// What was measured in the window.
pub(crate) struct Loaded {
    /// By the client: messages that came back as they were sent, and how long that took.
    pub(crate) requests: u64,
    pub(crate) wall_ns: u64,
    pub(crate) latencies: Histogram<u64>,
    /// By the server.
    pub(crate) cpu_ns: u64,
    pub(crate) allocs: u64,
    pub(crate) bytes: u64,
}

/// What connections cost that do nothing.
#[derive(Clone, Copy)]
pub(crate) struct Idle {
    pub(crate) heap_bytes: f64,
    pub(crate) resident_bytes: f64,
}

/// A server that runs.
struct Server {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    port: u16,
}

impl Server {
    fn start(arena: &Arena, built: &Built, args: &[&str]) -> Result<Server, Error> {
        let mut command = arena.command(built, "serve", args);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().ok_or("the server has no output")?);
        let mut server = Server { child, stdin, stdout, port: 0 };
        let line = server.line()?;
        server.port = match line.trim().strip_prefix("port ") {
            Some(port) => port.parse()?,
            // What it prints instead: that it is skipped.
            None => return Err(super::arena::report(line.as_bytes()).err().ok_or("no port")?),
        };
        Ok(server)
    }

    fn line(&mut self) -> Result<String, Error> {
        let mut line = String::new();
        if self.stdout.read_line(&mut line)? > 0 {
            return Ok(line);
        }
        let mut text = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            stderr.read_to_string(&mut text)?;
        }
        let why = match words(&text) {
            Some(words) => words.to_owned(),
            None => self.child.wait()?.to_string(),
        };
        Err(format!("the server has ended: {why}").into())
    }

    /// What it has cost so far.
    fn ask(&mut self) -> Result<Served, Error> {
        self.stdin.as_mut().ok_or("the server has no input")?.write_all(b"\n")?;
        Ok(serde_json::from_str(&self.line()?)?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// One connection, with one message on its way.
struct Client {
    socket: TcpStream,
    index: usize,
    number: usize,
    sent: usize,
    received: usize,
    begun: Instant,
}

impl Client {
    fn connect(port: u16, index: usize) -> io::Result<Client> {
        let socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        socket.set_nodelay(true)?;
        Ok(Client { socket, index, number: 0, sent: 0, received: 0, begun: Instant::now() })
    }

    /// Sends as much of its message as there is room for.
    fn send(&mut self, pattern: &Pattern) -> io::Result<()> {
        let message = pattern.message(self.number, self.index);
        if self.sent == 0 {
            self.begun = Instant::now();
        }
        while self.sent < message.len() {
            match self.socket.write(&message[self.sent..]) {
                Ok(length) => self.sent += length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Receives and verifies what is there. Returns whether its whole message has come back.
    fn receive(&mut self, pattern: &Pattern, scratch: &mut [u8]) -> io::Result<bool> {
        let message = pattern.message(self.number, self.index);
        while self.received < message.len() {
            let length = match self.socket.read(scratch) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            };
            let expected = message.get(self.received..self.received + length);
            if expected != Some(&scratch[..length]) {
                return Err(io::Error::other(format!("connection {}: bytes came back changed", self.index)));
            }
            self.received += length;
        }
        (self.sent, self.received, self.number) = (0, 0, self.number + 1);
        Ok(true)
    }
}

/// Loads a server, with one message on its way on each connection.
///
/// # Errors
///
/// If the server can't do this work, or bytes come back changed.
pub(crate) fn load(arena: &Arena, built: &Built, args: &[&str], load: Load) -> Result<Loaded, Error> {
    if std::thread::available_parallelism()?.get() <= CPU {
        return Err("needs two CPUs".into());
    }
    let mut server = Server::start(arena, built, args)?;
    // In a thread of its own, so that nobody else is pinned.
    let measured = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            kit::pin(CPU).map_err(|error| error.to_string())?;
            measure(&mut server, load).map_err(|error| error.to_string())
        });
        thread.join().unwrap_or_else(|_| Err("the client has panicked".to_owned()))
    });
    Ok(measured?)
}

fn measure(server: &mut Server, Load { conns, size, warm, window }: Load) -> Result<Loaded, Error> {
    let pattern = Pattern::new(size);
    let mut scratch = vec![0; 65536];
    let mut latencies = Histogram::<u64>::new_with_max(LONGEST_NS, 3)?;
    let poll = Poll::new()?;
    let mut clients = Vec::with_capacity(conns);
    for index in 0..conns {
        let client = Client::connect(server.port, index)?;
        client.socket.set_nonblocking(true)?;
        poll.add(&client.socket, index)?;
        clients.push(client);
    }
    for client in &mut clients {
        client.send(&pattern)?;
    }
    let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; conns.min(1024)];
    let mut until = Instant::now() + warm;
    let mut opened = None;
    loop {
        let now = Instant::now();
        if now >= until {
            match opened.take() {
                None => {
                    opened = Some((server.ask()?, Instant::now()));
                    latencies.reset();
                    until = Instant::now() + window;
                }
                Some((before, since)) => {
                    let (wall, after) = (since.elapsed(), server.ask()?);
                    return Ok(Loaded {
                        requests: latencies.len(),
                        wall_ns: wall.as_nanos() as u64,
                        latencies,
                        cpu_ns: after.cpu_ns - before.cpu_ns,
                        allocs: after.allocs - before.allocs,
                        bytes: after.bytes - before.bytes,
                    });
                }
            }
        }
        let ready = poll.wait(&mut events)?;
        if ready.is_empty() {
            return Err("the server answers no more".into());
        }
        for event in ready {
            let client = &mut clients[event.u64 as usize];
            if client.sent < size {
                client.send(&pattern)?;
            }
            if client.receive(&pattern, &mut scratch)? {
                latencies.saturating_record(client.begun.elapsed().as_nanos() as u64);
                client.send(&pattern)?;
            }
        }
    }
}

/// What `conns` connections cost a server if each has sent one message and is quiet now.
///
/// # Errors
///
/// If the server can't do this work, or this many descriptors are not available.
pub(crate) fn idle(arena: &Arena, built: &Built, args: &[&str], conns: usize) -> Result<Idle, Error> {
    raise_descriptors(conns as u64 + 256)?;
    let conns_argument = format!("conns={}", conns + 1);
    let mut args = args.to_vec();
    args.push(&conns_argument);
    let mut server = Server::start(arena, built, &args)?;
    let pattern = Pattern::new(1024);
    let mut scratch = vec![0; 65536];
    let mut clients = Vec::with_capacity(conns);
    let port = server.port;
    let mut connect = |range: Range<usize>| -> Result<(), Error> {
        for index in range {
            let mut client = Client::connect(port, index)?;
            client.socket.set_read_timeout(Some(Duration::from_secs(5)))?;
            client.send(&pattern)?;
            if !client.receive(&pattern, &mut scratch)? {
                return Err(format!("connection {index} is not answered").into());
            }
            clients.push(client);
        }
        Ok(())
    };
    // When one connection is answered, the server has everything that it allocates once.
    connect(0..1)?;
    let before = server.ask()?;
    connect(1..conns + 1)?;
    let after = server.ask()?;
    let each = |before: u64, after: u64| (after as f64 - before as f64) / conns as f64;
    Ok(Idle {
        heap_bytes: each(before.heap_bytes, after.heap_bytes),
        resident_bytes: 1024.0 * each(before.rss_kib, after.rss_kib),
    })
}

/// Allows this process, and those that it starts, this many descriptors.
fn raise_descriptors(count: u64) -> Result<(), Error> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is there to be written to.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) };
    if limit.rlim_cur >= count {
        return Ok(());
    }
    let raised = libc::rlimit { rlim_cur: count, rlim_max: limit.rlim_max.max(count) };
    // SAFETY: `raised` is there to be read.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raised) } < 0 {
        return Err(format!("needs {count} descriptors: the hard limit is {}", limit.rlim_max).into());
    }
    Ok(())
}

/// An epoll, edge-triggered for both directions.
struct Poll(std::os::fd::OwnedFd);

impl Poll {
    fn new() -> io::Result<Poll> {
        // SAFETY: no memory is involved.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new, and nobody else owns it.
        Ok(Poll(unsafe { std::os::fd::FromRawFd::from_raw_fd(fd) }))
    }

    fn add(&self, socket: &TcpStream, index: usize) -> io::Result<()> {
        let events = (libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLET) as u32;
        let mut event = libc::epoll_event { events, u64: index as u64 };
        let (poll, socket) = (self.0.as_raw_fd(), socket.as_raw_fd());
        // SAFETY: both descriptors are open, and `event` is there to be read.
        match unsafe { libc::epoll_ctl(poll, libc::EPOLL_CTL_ADD, socket, &mut event) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// What is ready; waits for at most two seconds.
    fn wait<'a>(&self, events: &'a mut [libc::epoll_event]) -> io::Result<&'a [libc::epoll_event]> {
        loop {
            let (memory, length) = (events.as_mut_ptr(), events.len() as libc::c_int);
            // SAFETY: there are as many events to write to as is said.
            let ready = unsafe { libc::epoll_wait(self.0.as_raw_fd(), memory, length, 2000) };
            if ready >= 0 {
                return Ok(&events[..ready as usize]);
            }
            let error = io::Error::last_os_error();
            if error.kind() != ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// A message's round by a server that changes what `change` does.
    fn round(change: fn(&mut [u8])) -> io::Result<bool> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let pattern = Pattern::new(1024);
        let mut client = Client::connect(listener.local_addr().unwrap().port(), 3).unwrap();
        client.send(&pattern).unwrap();
        let (mut socket, _) = listener.accept().unwrap();
        let mut bytes = [0; 1024];
        socket.read_exact(&mut bytes).unwrap();
        change(&mut bytes);
        socket.write_all(&bytes).unwrap();
        client.receive(&pattern, &mut [0; 100])
    }

    #[test]
    fn every_byte_is_verified() {
        assert!(round(|_| {}).unwrap());
        assert!(round(|bytes| bytes[1023] ^= 1).is_err());
        assert!(round(|bytes| bytes[0] ^= 128).is_err());
    }
}
