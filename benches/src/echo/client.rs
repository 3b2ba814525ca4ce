//! The client of the deterministic mode.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{LEFT, Pattern, Shape, listen};
use crate::{Args, Error, Outcome, Report, Window, clock};

/// Batches before the window opens: they make the server accept all connections and touch all memory.
const WARM: usize = 8;

static CLIENT: Mutex<Option<Client>> = Mutex::new(None);

struct Client {
    server: SocketAddr,
    /// Whether each message gets a connection of its own.
    churn: bool,
    sockets: Vec<TcpStream>,
    size: usize,
    /// How many batches there will be, without those for warming up.
    batches: usize,
    /// How many batches came back.
    done: usize,
    /// Messages that came back as they were sent, in the window.
    verified: u64,
    pattern: Pattern,
    received: Vec<u8>,
    window: Option<Window>,
    /// When the batch was handed to the server.
    handed_over: u64,
    /// For each batch, how long the server took, and how long server and client took.
    server_ns: Vec<u64>,
    total_ns: Vec<u64>,
    /// Kept as text, because it is in a static, which must be `Send`.
    end: Option<Result<Report, String>>,
}

/// Listens, connects the clients and sends the first batch. With `churn=1`, each batch is sent on new connections,
/// after those of the last batch were closed.
///
/// # Errors
///
/// If the arguments make no sense, or the system refuses.
pub fn start(args: &Args) -> Result<(TcpListener, Shape), Error> {
    let shape = Shape::from_args(args)?;
    let batches = args.number("batches", 250)?;
    let listener = listen()?;
    let mut client = Client {
        server: listener.local_addr()?,
        churn: args.flag("churn"),
        sockets: Vec::with_capacity(shape.conns),
        size: shape.size,
        batches,
        done: 0,
        verified: 0,
        pattern: Pattern::new(shape.size),
        received: vec![0; shape.size],
        window: None,
        handed_over: 0,
        server_ns: Vec::with_capacity(batches + WARM),
        total_ns: Vec::with_capacity(batches + WARM),
        end: None,
    };
    client.connect(shape.conns)?;
    client.send()?;
    *lock() = Some(client);
    Ok((listener, shape))
}

/// What the server cost. Wall and CPU time are those of client and server together, `batch_ns_*` that of the server
/// alone.
///
/// # Errors
///
/// If bytes came back changed, or not all of them.
pub fn finish() -> Outcome {
    let client = lock().take().ok_or("no client was started")?;
    let early = || Err(format!("the server ended after {} batches", client.done));
    Ok(client.end.unwrap_or_else(early)?)
}

/// The next batch. It has a name of its own so that callgrind can leave it out:
/// `--toggle-collect=bench_client_batch --collect-atstart=yes`.
#[inline(never)]
#[unsafe(no_mangle)]
pub(super) extern "C" fn bench_client_batch() -> bool {
    lock().as_mut().is_none_or(Client::batch)
}

fn lock() -> MutexGuard<'static, Option<Client>> {
    CLIENT.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Client {
    /// Takes what was echoed, and sends the next batch. True when there is none.
    fn batch(&mut self) -> bool {
        let came_back = clock::wall();
        self.server_ns.push(came_back - self.handed_over);
        let before = self.handed_over;
        if let Err(error) = self.receive() {
            return self.end(Err(error.to_string()));
        }
        self.done += 1;
        if self.done == WARM {
            self.window = Some(Window::open());
            self.verified = 0;
        }
        if self.done == WARM + self.batches {
            return self.close();
        }
        let count = self.sockets.len();
        let reconnected = if self.churn { self.connect(count) } else { Ok(()) };
        if let Err(error) = reconnected.and_then(|()| self.send()) {
            return self.end(Err(error.to_string()));
        }
        self.total_ns.push(self.handed_over - before);
        false
    }

    fn connect(&mut self, count: usize) -> Result<(), Error> {
        self.sockets.clear();
        for _ in 0..count {
            let socket = TcpStream::connect(self.server)?;
            socket.set_nodelay(true)?;
            self.sockets.push(socket);
        }
        Ok(())
    }

    fn receive(&mut self) -> Result<(), Error> {
        for (connection, socket) in self.sockets.iter_mut().enumerate() {
            read_all(socket, &mut self.received)?;
            if self.received != self.pattern.message(self.done, connection) {
                return Err(format!("connection {connection}: batch {} came back changed", self.done).into());
            }
            self.verified += 1;
        }
        Ok(())
    }

    fn send(&mut self) -> Result<(), Error> {
        for (connection, socket) in self.sockets.iter_mut().enumerate() {
            write_all(socket, self.pattern.message(self.done, connection))?;
        }
        LEFT.store((self.sockets.len() * self.size) as u64, Relaxed);
        self.handed_over = clock::wall();
        Ok(())
    }

    fn close(&mut self) -> bool {
        let n = (self.sockets.len() * self.batches) as u64;
        let report = self.window.take().map(|window| window.close(n, self.verified));
        let (server, total) = (&mut self.server_ns[WARM..], &mut self.total_ns[WARM..]);
        let spread = |report: Report| {
            report
                .with("batch_ns_p10", quantile(server, 10))
                .with("batch_ns_p50", quantile(server, 50))
                .with("total_ns_p10", quantile(total, 10))
                .with("total_ns_p50", quantile(total, 50))
        };
        let end = report.map(spread).ok_or_else(|| "there was no batch".to_owned());
        self.end(end)
    }

    /// Closes the connections, which makes the server end.
    fn end(&mut self, end: Result<Report, String>) -> bool {
        self.end = Some(end);
        self.sockets.clear();
        LEFT.store(u64::MAX, Relaxed);
        true
    }
}

/// This and the calls below use `readv(2)` and `writev(2)`, which no server uses, so that the client's calls can be
/// told apart when they are counted.
fn read_all(socket: &mut TcpStream, mut bytes: &mut [u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match socket.read_vectored(&mut [IoSliceMut::new(bytes)])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            length => bytes = &mut bytes[length..],
        }
    }
    Ok(())
}

fn write_all(socket: &mut TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let length = socket.write_vectored(&[IoSlice::new(bytes)])?;
        bytes = &bytes[length..];
    }
    Ok(())
}

/// The time at this percentile.
fn quantile(times: &mut [u64], percent: usize) -> f64 {
    times.sort_unstable();
    times.get(times.len() * percent / 100).map_or(0.0, |time| *time as f64)
}
