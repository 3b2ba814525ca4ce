//! The answers of the simulated kernel: what it does with each entry of a ring. It looks at the memory that it was told
//! of, and says if that is not what it should be. Knows nothing of what it has answered before, except where a request
//! says so, and nothing of what handlers are told.

use std::os::fd::IntoRawFd;

use rummelplatz::sim::{Answer, Asked};

use crate::names::is_of_ring;
use crate::program::Kind;
use crate::world::accounts::{Accounts, World};
use crate::world::request::Request;

/// How often a stream goes on before it ends by itself.
const LONGEST_STREAM: u32 = 5;

/// How often a stream is told that there are no buffers before there are some again.
const MOST_STARVED: u32 = 12;

impl World {
    /// Answers in place of the kernel.
    pub(crate) fn answer(&self, asked: &Asked) -> Answer {
        self.lock().answer(asked)
    }
}

impl Accounts {
    fn answer(&mut self, asked: &Asked) -> Answer {
        // The poll by which the ring is woken is a real one; Miri has none.
        if is_of_ring(asked.user_data) {
            return if cfg!(miri) { Answer::Wait } else { Answer::Perform };
        }
        let Some(id) = self.find(asked) else {
            // Detached, and without memory.
            return if asked.is_direct() { self.connect(asked.user_data) } else { Answer::Perform };
        };
        let Request { kind, drops, blocked, .. } = self.requests[id];
        if drops > 0 && !kind.is_stream() {
            self.violation(format!("the kernel works on #{id} ({kind:?}), whose data is gone"));
            return Answer::Finish(-libc::EFAULT);
        }
        if !self.reaches_memory(id, asked) {
            self.violation(format!("the kernel was told of a wrong place for #{id}"));
            return Answer::Finish(-libc::EFAULT);
        }
        if let Some(connection) = &self.requests[id].connection {
            connection.is_at(asked.descriptor);
            if connection.is_void() != Some(false) {
                return Answer::Perform;
            }
        }
        if blocked && !kind.never_waits() {
            return Answer::Wait;
        }
        let some = 1 + self.kernel_chance.below(u64::from(asked.length).max(1)) as i32;
        if kind.is_stream()
            && let Some(end) = self.end_of_stream(id)
        {
            return end;
        }
        let fails = self.kernel_chance.one_in(8);
        self.some_answer(id, asked.user_data, some, fails)
    }

    /// Whether a request is told to be at the place where its memory is, as far as it has any.
    fn reaches_memory(&mut self, id: usize, asked: &Asked) -> bool {
        let Request { kind, place, .. } = self.requests[id];
        let is_touched = [Kind::Read, Kind::ReadFixed, Kind::Receive, Kind::Send, Kind::SendZeroCopy];
        let is_touched = is_touched.contains(&kind);
        let is_in_slot =
            kind.is_on_words() || kind == Kind::Pipe || kind.is_on_file() && kind != Kind::Install;
        if (is_touched || is_in_slot) && asked.address != place {
            return false;
        }
        if is_touched {
            self.touch(id, asked);
        }
        true
    }

    /// The kernel looks at the memory of a request and, if it receives, writes to it.
    fn touch(&mut self, id: usize, asked: &Asked) {
        let place = std::ptr::with_exposed_provenance_mut::<[u64; 2]>(asked.address as usize);
        // SAFETY: it is where the data of the request is, which was not dropped. (That this holds is what
        // is tested here.)
        let [found, _] = unsafe { place.read_unaligned() };
        if found != id as u64 {
            return self.violation(format!("the memory of #{id} has become that of #{found}"));
        }
        if matches!(self.requests[id].kind, Kind::Read | Kind::ReadFixed | Kind::Receive) {
            let written = self.kernel_chance.next();
            self.requests[id].written = written;
            // SAFETY: as above.
            unsafe { place.write_unaligned([found, written]) };
        }
    }

    /// Counts an answer to a stream, and returns it if the stream is to end with it.
    fn end_of_stream(&mut self, id: usize) -> Option<Answer> {
        let Request { kind, told, starves, .. } = self.requests[id];
        self.requests[id].told += 1;
        if starves && told < MOST_STARVED {
            return Some(Answer::Finish(-libc::ENOBUFS));
        }
        if told >= LONGEST_STREAM {
            // A patient one would go on after a reset.
            let errno = if kind.is_patient(id) { libc::EINVAL } else { libc::ECONNRESET };
            return Some(Answer::Finish(-errno));
        }
        self.requests[id].blocked = self.kernel_chance.one_in(2);
        None
    }

    /// An answer to a request: with the result `some`, if that is a length, or with an error if it can fail.
    fn some_answer(&mut self, id: usize, name: u64, some: i32, fails: bool) -> Answer {
        let kind = self.requests[id].kind;
        match kind {
            Kind::Nop | Kind::Timeout | Kind::Never | Kind::TimeoutMulti | Kind::TimeoutThrice => {
                Answer::Finish(0)
            }
            Kind::Sync => Answer::Finish(0),
            Kind::Poll => Answer::Finish(libc::POLLIN.into()),
            Kind::PollMulti => Answer::More(libc::POLLIN.into()),
            Kind::Read | Kind::ReadFixed => Answer::Finish(some),
            Kind::Pipe if fails => Answer::Finish(-libc::EMFILE),
            Kind::ReceiveMessage if fails => Answer::Finish(-libc::ECONNRESET),
            Kind::Close
            | Kind::WordWait
            | Kind::WordWake
            | Kind::Install
            | Kind::Pipe
            | Kind::ReceiveMessage => Answer::Perform,
            Kind::Receive
            | Kind::Send
            | Kind::SendZeroCopy
            | Kind::SendVectoredZeroCopy
            | Kind::ReceiveOnFile
            | Kind::SendOnFile
            | Kind::SendZeroCopyOnFile
                if fails =>
            {
                Answer::Finish(-libc::ECONNRESET)
            }
            Kind::Receive | Kind::Send | Kind::SendZeroCopy => Answer::Finish(some),
            Kind::SendVectoredZeroCopy => Answer::Finish(1 + self.kernel_chance.below(16) as i32),
            Kind::ReceiveOnFile | Kind::SendOnFile | Kind::SendZeroCopyOnFile => {
                if let Some(connection) = &self.requests[id].connection {
                    connection.feed();
                }
                Answer::Perform
            }
            Kind::AcceptDirect | Kind::AcceptMultiDirect | Kind::OpenDirect | Kind::SocketDirect => {
                match fails {
                    true => Answer::Finish(self.kernel_chance.pick(&[-libc::ECONNRESET, -libc::ENOBUFS])),
                    false => self.connect(name),
                }
            }
            Kind::Accept | Kind::AcceptMulti => match fails || self.may_leak() {
                true => Answer::Finish(self.kernel_chance.pick(&[-libc::EMFILE, -libc::ENOBUFS])),
                false => Answer::More(self.descriptors.some().into_raw_fd()),
            },
            Kind::ReceiveProvided
            | Kind::ReceiveMulti
            | Kind::ReceiveLimited
            | Kind::ReceiveBundles
            | Kind::ReceivePieces
            | Kind::ReceiveDatagrams => match fails {
                true => self.end_of_bytes(id),
                false => self.some_bytes(id),
            },
        }
    }

    /// What ends a request that receives into a pool.
    fn end_of_bytes(&mut self, id: usize) -> Answer {
        let result = self.kernel_chance.pick(&[0, -libc::ECONNRESET, -libc::ENOBUFS]);
        let request = &mut self.requests[id];
        request.starves = result == -libc::ENOBUFS;
        match (request.kind, result) {
            (Kind::ReceiveDatagrams, 0) => Answer::Bytes(Vec::new()),
            _ => Answer::Finish(result),
        }
    }

    /// Something to receive into a pool.
    fn some_bytes(&mut self, id: usize) -> Answer {
        let most = if self.requests[id].kind == Kind::ReceiveBundles { 150 } else { 64 };
        let length = 1 + self.kernel_chance.below(most);
        let bytes: Vec<u8> = (0..length).map(|_| self.kernel_chance.next() as u8).collect();
        self.requests[id].received.push_back(bytes.clone());
        Answer::Bytes(bytes)
    }

    /// Something for the ring's table, opened for the request with this name.
    fn connect(&mut self, name: u64) -> Answer {
        Answer::Descriptor(self.files.connect(name))
    }
}
