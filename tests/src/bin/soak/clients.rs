//! Clients of all kinds: polite ones, and others.

use std::fmt::Display;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;

use crate::{PATIENCE, Random, Shared, set};

/// The sockets' buffers take this much: a client that sends no more need not read in between.
const TAKEN_AT_ONCE: u64 = 64 << 10;

/// Comes and goes until it is time to stop.
pub(crate) fn come_and_go(shared: &Shared, address: SocketAddr, mut random: Random) {
    while !shared.stopping.load(Relaxed) {
        let epoch = shared.epoch.load(Relaxed);
        match visit(shared, address, &mut random) {
            Ok(()) => {}
            // The ring was torn down meanwhile, and its connections with it.
            Err(Trouble::Broken(_)) if epoch % 2 == 1 || epoch != shared.epoch.load(Relaxed) => {
                shared.broken.fetch_add(1, Relaxed);
            }
            Err(Trouble::Broken(what) | Trouble::Wrong(what)) => {
                shared.fail(what);
                break;
            }
        }
        thread::sleep(Duration::from_millis(random.below(20)));
    }
    shared.clients.fetch_sub(1, Relaxed);
}

/// Why a visit went wrong.
enum Trouble {
    /// The connection is gone.
    Broken(String),
    /// This is wrong, whatever happens to the ring.
    Wrong(String),
}

/// A failure to do something; running out of time is always wrong.
fn failed<T>(what: impl Display, result: io::Result<T>) -> Result<T, Trouble> {
    result.map_err(|error| match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
            Trouble::Wrong(format!("{what}: not done after {PATIENCE:?}"))
        }
        _ => Trouble::Broken(format!("{what}: {error}")),
    })
}

fn visit(shared: &Shared, address: SocketAddr, random: &mut Random) -> Result<(), Trouble> {
    let socket = failed("connecting", TcpStream::connect(address))?;
    failed("read timeout", socket.set_read_timeout(Some(PATIENCE)))?;
    failed("write timeout", socket.set_write_timeout(Some(PATIENCE)))?;
    failed("no delay", socket.set_nodelay(true))?;
    shared.connections.fetch_add(1, Relaxed);
    let mut visit = Visit { shared, socket, key: random.next(), written: 0, read: 0 };
    match random.below(10) {
        0..=3 => visit.converse(random),
        4..=5 => visit.close_half(random),
        6 => visit.stall(random),
        7..=8 => visit.reset(random),
        _ => visit.vanish(random),
    }
}

struct Visit<'s> {
    shared: &'s Shared,
    socket: TcpStream,
    key: u64,
    written: u64,
    read: u64,
}

impl Visit<'_> {
    /// Some questions, each answered; then a proper end.
    fn converse(&mut self, random: &mut Random) -> Result<(), Trouble> {
        for _ in 0..random.below(20) {
            self.write(1 + random.below(16 << 10))?;
            self.read_all()?;
        }
        self.end()
    }

    /// Sends everything, and shuts down that direction, before it reads.
    fn close_half(&mut self, random: &mut Random) -> Result<(), Trouble> {
        self.write(1 + random.below(TAKEN_AT_ONCE))?;
        self.end()
    }

    /// Sends what can be sent, and does not read for a while; then it reads, or is gone.
    fn stall(&mut self, random: &mut Random) -> Result<(), Trouble> {
        failed("a small buffer", set(&self.socket, libc::SOL_SOCKET, libc::SO_RCVBUF, &4096))?;
        failed("no blocking", self.socket.set_nonblocking(true))?;
        let most = random.below(512 << 10);
        while self.written < most {
            let bytes = self.bytes(4096);
            match self.socket.write(&bytes) {
                Ok(written) => self.written += written as u64,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => failed("stalling", Err(error))?,
            }
        }
        failed("blocking", self.socket.set_nonblocking(false))?;
        thread::sleep(Duration::from_millis(random.below(300)));
        // Otherwise the rest would come in small pieces.
        let large = 512 << 10;
        failed("a large buffer", set(&self.socket, libc::SOL_SOCKET, libc::SO_RCVBUF, &large))?;
        match random.below(3) {
            0 => self.reset(random),
            1 => Ok(()),
            _ => self.end(),
        }
    }

    /// Ends with a reset, while answers are on their way.
    fn reset(&mut self, random: &mut Random) -> Result<(), Trouble> {
        self.write_some(random)?;
        let now = libc::linger { l_onoff: 1, l_linger: 0 };
        failed("no lingering", set(&self.socket, libc::SOL_SOCKET, libc::SO_LINGER, &now))
    }

    /// Ends without reading everything, which makes a reset when the next answer comes.
    fn vanish(&mut self, random: &mut Random) -> Result<(), Trouble> {
        self.write_some(random)
    }

    fn write_some(&mut self, random: &mut Random) -> Result<(), Trouble> {
        if self.written == 0 && random.below(4) != 0 {
            self.write(1 + random.below(TAKEN_AT_ONCE))?;
            if random.below(2) == 0 {
                self.read_some()?;
            }
        }
        Ok(())
    }

    /// The next bytes of this connection; other connections and other places have other bytes.
    fn bytes(&self, length: u64) -> Vec<u8> {
        (self.written..self.written + length).map(|place| byte(self.key, place)).collect()
    }

    fn write(&mut self, length: u64) -> Result<(), Trouble> {
        let bytes = self.bytes(length);
        failed("sending", self.socket.write_all(&bytes))?;
        self.written += length;
        Ok(())
    }

    fn read_all(&mut self) -> Result<(), Trouble> {
        while self.read < self.written {
            self.read_some()?;
        }
        Ok(())
    }

    fn read_some(&mut self) -> Result<(), Trouble> {
        let mut bytes = [0; 4096];
        let read = failed("receiving", self.socket.read(&mut bytes))?;
        if read == 0 {
            let missing = self.written - self.read;
            return Err(Trouble::Broken(format!("closed by the server, with {missing} bytes missing")));
        }
        for (place, found) in (self.read..).zip(&bytes[..read]) {
            if place >= self.written || *found != byte(self.key, place) {
                return Err(Trouble::Wrong(format!("byte {place} of {} is wrong", self.written)));
            }
        }
        self.read += read as u64;
        self.shared.echoed.fetch_add(read as u64, Relaxed);
        Ok(())
    }

    /// Everything is sent. The server answers what is left, closes as well, and adds nothing.
    fn end(&mut self) -> Result<(), Trouble> {
        failed("a shutdown", self.socket.shutdown(Shutdown::Write))?;
        self.read_all()?;
        let mut more = Vec::new();
        match failed("the end", self.socket.read_to_end(&mut more))? {
            0 => Ok(()),
            more => Err(Trouble::Wrong(format!("{more} bytes too many"))),
        }
    }
}

fn byte(key: u64, place: u64) -> u8 {
    ((key ^ place).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8
}
