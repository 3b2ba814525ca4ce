//! Files that the kernel puts into the ring's table, who holds them, and what is at their other ends.

use std::io::{ErrorKind, Read, Write};
use std::mem;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rummelplatz::FixedFile;

use crate::descriptors::is_hung_up;
use crate::surroundings::Heard;

/// What becomes of a file in the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
enum State {
    /// The run that has accepted it goes on.
    Running,
    /// That run has ended: no request reaches the file any more.
    Over,
    /// That run has not ended as runs do.
    Unknown,
}

/// A file in the table; mostly one end of a connection.
pub(crate) struct Connection {
    /// What each byte is that goes over it, whichever way; 0 if that is not known yet.
    tag: AtomicU8,
    state: AtomicU8,
    /// How many clones of the [`FixedFile`] there are.
    holders: AtomicU32,
    /// Since when there are none any more, in microseconds of the simulation, and whether somebody else than the
    /// ring's thread has dropped the last; `NOT_LEFT` as long as there are some, or were none yet.
    left: AtomicU64,
    /// In the simulation: the other end, and by which number and inode the file is known.
    ends: Option<Ends>,
    /// With the real kernel: what the other side has seen.
    heard: Option<Arc<Heard>>,
    wrong: Mutex<Vec<String>>,
}

struct Ends {
    number: RawFd,
    inode: u64,
    peer: UnixStream,
}

const NOT_LEFT: u64 = u64::MAX;

/// How long the ring may take to close what another thread has left: until it hears of that.
const UNHEARD: Duration = Duration::from_millis(20);

impl Connection {
    /// A connection for the simulated kernel, and the file for the table.
    pub(crate) fn pair(tag: u8) -> (Arc<Connection>, OwnedFd) {
        let (ours, peer) = UnixStream::pair().expect("there are descriptors for it");
        peer.set_nonblocking(true).expect("it is a socket");
        let ours = OwnedFd::from(ours);
        let number = ours.as_raw_fd();
        let inode = inode_of(number).expect("it is open");
        (Connection::new(tag, Some(Ends { number, inode, peer }), None), ours)
    }

    /// What the real kernel has put into the table.
    pub(crate) fn unknown(heard: Option<Arc<Heard>>) -> Arc<Connection> {
        Connection::new(0, None, heard)
    }

    fn new(tag: u8, ends: Option<Ends>, heard: Option<Arc<Heard>>) -> Arc<Connection> {
        Arc::new(Connection {
            tag: AtomicU8::new(tag),
            state: AtomicU8::new(State::Running as u8),
            holders: AtomicU32::new(0),
            left: AtomicU64::new(NOT_LEFT),
            ends,
            heard,
            wrong: Mutex::default(),
        })
    }

    pub(crate) fn tag(&self) -> u8 {
        self.tag.load(Ordering::Relaxed)
    }

    fn is(&self, state: State) -> bool {
        self.state.load(Ordering::Relaxed) == state as u8
    }

    /// Whether no request reaches it any more, if that is known.
    pub(crate) fn is_void(&self) -> Option<bool> {
        (!self.is(State::Unknown)).then(|| self.is(State::Over))
    }

    fn violation(&self, what: &str) {
        let tag = self.tag();
        self.wrong.lock().unwrap_or_else(PoisonError::into_inner).push(format!("connection {tag}: {what}"));
    }

    /// What is wrong with it, since the last time.
    pub(crate) fn wrong(&self) -> Vec<String> {
        mem::take(&mut *self.wrong.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether the file is open in the table, or in a request of the simulated kernel.
    fn is_open(&self) -> bool {
        self.ends.as_ref().is_some_and(|ends| inode_of(ends.number) == Some(ends.inode))
    }

    /// The kernel found no room for it.
    pub(crate) fn is_refused(&self) {
        if self.is_open() {
            self.violation("there was no room for it, but it is open");
        }
    }

    /// The kernel is to work on the file behind this number for a request on this one.
    pub(crate) fn is_at(&self, number: RawFd) {
        let is_it = self.ends.as_ref().is_some_and(|ends| inode_of(number) == Some(ends.inode));
        match self.is_void() {
            Some(false) if !is_it => self.violation("a request on it reaches something else"),
            Some(true) if number != -1 => self.violation("a request of a later run reaches something"),
            _ => {}
        }
    }

    /// A descriptor of the process was made of it.
    pub(crate) fn is_installed_as(&self, descriptor: &OwnedFd) {
        if self.ends.is_some() {
            self.is_at(descriptor.as_raw_fd());
        }
    }

    /// The other end sends some bytes.
    pub(crate) fn feed(&self) {
        if let Some(mut peer) = self.ends.as_ref().map(|ends| &ends.peer) {
            // It may have been reset.
            peer.write_all(&[self.tag(); 16]).ok();
        }
    }

    /// These bytes were received.
    pub(crate) fn received(&self, bytes: &[u8]) {
        let Some(first) = bytes.first() else { return };
        let known = self.tag.compare_exchange(0, *first, Ordering::Relaxed, Ordering::Relaxed);
        let tag = known.map_or_else(|tag| tag, |_| *first);
        if bytes.iter().any(|byte| *byte != tag) {
            self.violation(&format!("it has received {bytes:?}"));
        }
    }

    /// What has a clone is open, until the end of the run.
    pub(crate) fn check_held(&self) {
        if self.holders.load(Ordering::Relaxed) == 0 || !self.is(State::Running) {
            return;
        }
        let has_ended = self.heard.as_ref().is_some_and(|heard| heard.has_ended(self.tag()));
        if has_ended || self.ends.is_some() && !self.is_open() {
            self.violation("it was closed while somebody held it");
        }
    }

    /// What has no clone any more is closed before the ring waits. If another thread has dropped the last clone, the
    /// ring is woken for that.
    pub(crate) fn check_left(&self, now: Duration, waits: bool) {
        let left = self.left.load(Ordering::Relaxed);
        let (elsewhere, since) = (left & 1 == 1, Duration::from_micros(left >> 1));
        let is_due = left != NOT_LEFT && if elsewhere { now >= since + UNHEARD } else { waits };
        if is_due && self.is(State::Running) && self.is_open() {
            self.violation("nobody holds it, but it is open");
        }
    }

    /// Another thread is about to drop a clone, at this time.
    pub(crate) fn is_left_elsewhere(&self, now: Duration) {
        if self.holders.load(Ordering::Relaxed) == 1 {
            self.left.store((now.as_micros() as u64) << 1 | 1, Ordering::Relaxed);
        }
    }

    /// The run is over, and has ended as runs do if `is_known`.
    pub(crate) fn ends(&self, is_known: bool) {
        if !self.is(State::Running) {
            return;
        }
        if is_known && self.is_open() {
            self.violation("it is left over in the table");
        }
        let state = if is_known { State::Over } else { State::Unknown };
        self.state.store(state as u8, Ordering::Relaxed);
    }

    /// The ring is gone: nobody has the file, and its other end has received what was meant for it.
    pub(crate) fn check_end(&self) {
        let Some(Ends { peer, .. }) = &self.ends else { return };
        if !is_hung_up(peer) {
            self.violation("it was not closed");
        }
        let mut bytes = [0; 256];
        loop {
            match { peer }.read(&mut bytes) {
                Ok(0) => break,
                Ok(count) if bytes[..count].iter().all(|byte| *byte == self.tag()) => {}
                Ok(count) => self.violation(&format!("its other end has received {:?}", &bytes[..count])),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Something that was sent to the file was not read.
                Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
                // It was said above that it sees no end.
                Err(_) => break,
            }
        }
    }
}

/// A clone of a file in the table.
pub(crate) struct Held {
    pub(crate) file: FixedFile,
    pub(crate) connection: Arc<Connection>,
}

impl Held {
    /// The first clone.
    pub(crate) fn first(file: FixedFile, connection: Arc<Connection>) -> Held {
        connection.holders.store(1, Ordering::Relaxed);
        Held { file, connection }
    }
}

impl Clone for Held {
    fn clone(&self) -> Held {
        self.connection.holders.fetch_add(1, Ordering::Relaxed);
        Held { file: self.file.clone(), connection: Arc::clone(&self.connection) }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.connection.check_held();
        if self.connection.holders.fetch_sub(1, Ordering::Relaxed) == 1 {
            let left = &self.connection.left;
            // It may be known already that this is another thread.
            left.compare_exchange(NOT_LEFT, 0, Ordering::Relaxed, Ordering::Relaxed).ok();
        }
    }
}

/// The inode of what is behind a number, if there is something.
fn inode_of(number: RawFd) -> Option<u64> {
    // SAFETY: all zeroes is a `struct stat`.
    let mut stat: libc::stat = unsafe { mem::zeroed() };
    // SAFETY: there is a place for the answer.
    let known = unsafe { libc::fstat(number, &raw mut stat) };
    (known == 0).then_some(stat.st_ino)
}
