//! The ring of a program, whose handlers do what the program says.

use std::cell::RefCell;
use std::error::Error;
use std::fmt;
use std::io;
use std::os::fd::AsRawFd;
use std::panic::resume_unwind;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rummelplatz::io_uring::types::{Fd, TimeoutFlags, Timespec};
use rummelplatz::io_uring::{opcode, squeue};
use rummelplatz::request::{self, CWD, Events, OpenOptions};
use rummelplatz::{
    Completion, CompletionResult, ControlFlow, FixedFile, Key, Refused, RingHandle, RingOperation, SendError,
    Stream, Submitter, Tag, ring,
};

use crate::program::{Action, End, Kind, LIMIT, Limit, Link, Member, Mode};
use crate::world::{Caller, Data, Heap, Piece, World};

/// The ring of a program.
#[ring]
pub(crate) struct Model {
    pub(crate) first: Operation,
    pub(crate) second: Operation,
}

/// An operation of this ring; both are of the same type.
#[derive(Clone)]
pub(crate) struct Operation {
    pub(crate) world: Arc<World>,
    pub(crate) is_first: bool,
    pub(crate) handle: Option<RingHandle<Model>>,
    /// The keys of all requests that were ever accepted, each with its number; of both operations.
    keys: Rc<RefCell<Vec<SomeKey>>>,
}

/// The key of a request of the second operation, or of the first, and the request's number.
type SomeKey = (bool, usize, Key<Operation>);

/// After how many calls a program ends on the real kernel.
const MOST_CALLS: u8 = 40;

/// What a handler panics with when the program says so.
pub(crate) struct Planned;

/// What a handler fails with when the program says so: the first failure, the second, and so on.
#[derive(Debug)]
pub(crate) struct Failed(u32);

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "failure {}", self.0)
    }
}

impl Error for Failed {}

type Submits<'a> = Submitter<'a, Model, Operation>;

impl RingOperation<Model> for Operation {
    type RingData = Data;
    type SetupError = Failed;
    type TeardownError = Failed;
    type ControlFlowWarn = Failed;
    type ControlFlowError = Failed;

    fn setup(&mut self, mut submitter: Submits<'_>) -> Result<(), Failed> {
        if !self.is_first {
            return Ok(());
        }
        // Of an earlier run, it was given back.
        if let Err(error) = submitter.register_buffers(&self.world.registered) {
            self.world.violation(format!("memory can't be registered: {error}"));
        }
        self.act(&mut submitter, Caller::Handler);
        let end = self.world.lock().program.end;
        match end {
            End::SetupError => Err(self.fail(false)),
            End::SetupPanic => self.panic(),
            _ => Ok(()),
        }
    }

    fn on_completion(
        &mut self,
        completion: Completion,
        mut data: Data,
        mut submitter: Submits<'_>,
    ) -> CompletionResult<Model, Self> {
        self.world.delivered(&data, &completion, false);
        let more = completion.more();
        let is_stream = data.kind.is_stream();
        let is_served = completion.result().is_ok() && data.kind != Kind::Install;
        self.take(completion, &mut data);
        self.world.lend((more && is_stream).then_some((!self.is_first, data.id)));
        let (end, calls, mode) = {
            let mut inner = self.world.lock();
            inner.calls = inner.calls.saturating_add(1);
            (inner.program.end, inner.calls, inner.program.mode)
        };
        if mode == Mode::Run {
            self.act(&mut submitter, Caller::Handler);
        }
        self.world.lend(None);
        if is_served && let Some(what) = self.world.some_service(data.kind) {
            self.submit(&mut submitter, what, !self.is_first, Caller::Handler);
        }
        let (keeps, warns) = {
            let mut inner = self.world.lock();
            let keeps = if more { !inner.chance.one_in(6) } else { inner.chance.one_in(16) };
            (keeps, inner.chance.one_in(16))
        };
        let flow = match end {
            End::Exit(at) if calls == at + 1 => {
                self.world.may_end();
                ControlFlow::Exit
            }
            End::Error(at) if calls == at + 1 => ControlFlow::Error(self.fail(false)),
            End::Panic(at) if calls == at + 1 => self.panic(),
            End::Stop(at) if calls == at + 1 => {
                if let Some(handle) = &self.handle {
                    handle.stop();
                    self.world.may_end();
                }
                ControlFlow::Continue
            }
            // On the real kernel, streams have no end, and waiting for what never comes takes half an hour.
            _ if calls == MOST_CALLS && self.world.simulation.is_none() => ControlFlow::Exit,
            _ if warns => {
                self.world.warned();
                ControlFlow::Warn(Failed(0))
            }
            _ => ControlFlow::Continue,
        };
        if keeps && !more {
            self.world.returned_late();
        }
        if more && !keeps && is_stream {
            self.world.forgotten(data.id);
        }
        if more && keeps && is_stream {
            self.world.goes_on(data.id, data.pool.as_ref());
            data.becomes = self.world.some_change(data.kind);
        }
        (flow, keeps.then_some(data))
    }

    fn on_teardown_completion(
        &mut self,
        completion: Completion,
        mut data: Data,
        mut submitter: Submits<'_>,
    ) -> Result<(), Failed> {
        self.world.delivered(&data, &completion, true);
        self.take(completion, &mut data);
        let (submits, what, panics, fails) = {
            let mut inner = self.world.lock();
            let late = u64::from(inner.program.late);
            let submits = late > 0 && inner.late_left > 0 && inner.chance.one_in(late);
            inner.late_left -= u32::from(submits);
            let kind = inner.some_kind();
            let limit = if kind.is_stream() { Limit::None } else { Limit::some(&mut inner.chance) };
            (submits, (kind, limit), inner.chance.one_in(60), inner.chance.one_in(10))
        };
        if submits {
            self.submit(&mut submitter, what, !self.is_first, Caller::TeardownHandler);
        }
        if panics {
            self.panic();
        }
        if fails { Err(self.fail(true)) } else { Ok(()) }
    }
}

impl Operation {
    /// Both operations of a ring.
    pub(crate) fn both(world: &Arc<World>) -> (Operation, Operation) {
        let first = Operation { world: Arc::clone(world), is_first: true, handle: None, keys: Rc::default() };
        let second = Operation { is_first: false, ..first.clone() };
        (first, second)
    }

    /// A request was accepted, and this is its key.
    fn accepted(&self, second: bool, id: usize, key: Key<Operation>) {
        self.world.accepted(id, key.user_data());
        self.keys.borrow_mut().push((second, id, key));
    }

    /// One of the requests that were ever accepted, if there is one.
    fn some_key(&self, which: u8) -> Option<SomeKey> {
        let keys = self.keys.borrow();
        (!keys.is_empty()).then(|| keys[usize::from(which) % keys.len()])
    }

    /// One of the requests that were ever accepted, mostly one that can be paused or, if `resumes`, resumed.
    fn key_for_pause(&self, which: u8, resumes: bool) -> Option<SomeKey> {
        let keys = self.keys.borrow();
        let fits = |(_, id, _): &&SomeKey| which % 8 == 7 || self.world.may_be_paused(*id, resumes);
        let fitting: Vec<_> = keys.iter().filter(fits).collect();
        (!fitting.is_empty()).then(|| *fitting[usize::from(which) % fitting.len()])
    }

    fn panic(&self) -> ! {
        self.world.lock().silenced = true;
        self.world.may_end();
        // Unlike `panic!`, this prints nothing.
        resume_unwind(Box::new(Planned))
    }

    fn fail(&self, in_teardown: bool) -> Failed {
        Failed(self.world.fails(self.is_first, in_teardown))
    }

    /// Takes what a completion carries.
    fn take(&self, completion: Completion, data: &mut Data) {
        match data.kind {
            Kind::Accept | Kind::AcceptMulti => drop(completion.into_fd()),
            Kind::ReceiveMessage => self.world.receives(completion.result().is_ok(), data),
            Kind::Install => {
                if let (Ok(descriptor), Some(held)) = (completion.into_fd(), &data.file) {
                    held.connection.is_installed_as(&descriptor);
                }
            }
            Kind::Pipe => {
                // Some are dropped with their data.
                let has_pipe = match data.id.is_multiple_of(2) {
                    true => data.end_of_pipe().is_some(),
                    false => data.pipe.take().is_some(),
                };
                if completion.result().is_ok() != has_pipe {
                    self.world.violation(format!("#{} says one thing, and its pipe another", data.id));
                }
            }
            kind if kind.opens() => {
                let index = completion.raw().result;
                if let Ok(file) = completion.into_fixed_file() {
                    self.world.hold(index, file);
                }
            }
            kind if kind.has_pool() => {
                let length = completion.result().unwrap_or_default() as usize;
                let pieces: io::Result<Vec<Piece>> = match kind {
                    Kind::ReceiveBundles => {
                        let buffers = completion.into_buffers();
                        buffers.map(|all| all.map(|buffer| -> Piece { Box::new(buffer) }).collect())
                    }
                    Kind::ReceiveDatagrams => {
                        completion.into_datagram().map(|it| vec![Box::new(it) as Piece])
                    }
                    _ => completion.into_buffer().map(|it| vec![Box::new(it) as Piece]),
                };
                if let Ok(pieces) = pieces {
                    self.world.received(data.id, data.pool.as_ref(), pieces, length);
                }
            }
            _ => drop(completion),
        }
    }

    /// Does what the program says up to the next step.
    pub(crate) fn act(&self, submitter: &mut Submits<'_>, from: Caller) {
        loop {
            let action = self.world.lock().actions.pop_front();
            match action {
                None | Some(Action::Step) => return,
                Some(action) => self.perform(action, submitter, from),
            }
        }
    }

    fn perform(&self, action: Action, submitter: &mut Submits<'_>, from: Caller) {
        match action {
            Action::Submit { second, kind, limit } => {
                self.submit(&mut submitter.to(tag(second)), (kind, limit), second, from);
            }
            Action::Detach { second, kind, limit } => {
                self.detach(&mut submitter.to(tag(second)), (kind, limit), second, from);
            }
            Action::Chain { second, links } => {
                self.chain(&mut submitter.to(tag(second)), &links, second, from);
            }
            Action::Link { members, dropped } => self.link(submitter, &members, dropped, from),
            Action::Post { second, last } => {
                let data = self.world.issue(Kind::Nop, second, false);
                let id = data.id;
                let mut submitter = submitter.to(tag(second));
                match if last { submitter.try_post_last(data) } else { submitter.try_post(data) } {
                    Ok(()) => {
                        self.world.admitted(second, 1);
                        self.world.accepted_message(id, last);
                    }
                    Err(Refused { data, error }) => self.world.refused(&[id], &[data], error, from),
                }
            }
            Action::Send { second } => {
                let data = self.world.issue(Kind::Nop, second, false);
                let id = data.id;
                let sent = submitter.handle().send(tag(second), data);
                self.world.sent(id, sent.err().map(|SendError(data)| data).as_ref(), from);
            }
            Action::Borrow => self.world.borrow(false),
            Action::Yield => self.world.yield_pool(),
            Action::Cancel { which } => {
                if let Some((second, id, key)) = self.some_key(which) {
                    let found = submitter.to(tag(second)).cancel(key);
                    self.world.cancelled(id, found);
                }
            }
            Action::CancelAll { second } => {
                let found = submitter.to(tag(second)).cancel_all();
                self.world.cancelled_all(second, found);
            }
            Action::EndStream { second } => {
                let found = submitter.to(tag(second)).end_stream();
                self.world.ended(second, found);
            }
            Action::Pause { which } => {
                if let Some((second, id, key)) = self.key_for_pause(which, false) {
                    let found = submitter.to(tag(second)).pause(key);
                    self.world.paused(id, found, from);
                }
            }
            Action::PauseStream { second } => {
                let found = submitter.to(tag(second)).pause_stream();
                self.world.paused_lent(second, found, from);
            }
            Action::Resume { which } => {
                if let Some((second, id, key)) = self.key_for_pause(which, true) {
                    self.world.resumes(id);
                    let found = submitter.to(tag(second)).resume(key);
                    self.world.resumed(id, found, from);
                }
            }
            Action::External => {
                self.world.release();
            }
            Action::Leave { which } => self.world.leave(which),
            Action::Step => {}
        }
    }

    fn submit(&self, submitter: &mut Submits<'_>, (kind, limit): (Kind, Limit), second: bool, from: Caller) {
        let mut data = self.world.issue(kind, second, false);
        data.limit(limit);
        let id = data.id;
        let pool = data.pool.clone();
        // Some do not keep the ring running.
        let submitted = match (data.kind.is_stream(), id % 8 == 7) {
            (false, false) => submitter.try_submit(data, build),
            (true, false) => submitter.try_stream(data, arm),
            (is_stream, true) => {
                let submitted = match is_stream {
                    false => submitter.submit_in_background(data, build),
                    true => submitter.stream_in_background(data, arm),
                };
                match submitted {
                    Ok(key) => {
                        self.world.is_background(id);
                        Ok(key)
                    }
                    Err(error) => return self.world.refused(&[id], &[], error, from),
                }
            }
        };
        match submitted {
            Ok(key) => {
                self.world.admitted(second, 1);
                self.accepted(second, id, key);
                self.world.bound(id, pool.as_ref());
                if from == Caller::TeardownHandler {
                    self.world.is_late(id);
                }
            }
            Err(Refused { data, error }) => self.world.refused(&[id], &[data], error, from),
        }
    }

    fn detach(&self, submitter: &mut Submits<'_>, (kind, limit): (Kind, Limit), second: bool, from: Caller) {
        let mut data = self.world.issue(kind, second, false);
        data.limit(limit);
        let id = data.id;
        match submitter.detach(data, build) {
            Ok(()) => {
                self.world.admitted(second, 1);
                self.world.accepted_silently(id);
            }
            Err(error) => self.world.refused(&[id], &[], error, from),
        }
    }

    fn link(&self, submitter: &mut Submits<'_>, members: &[Member], dropped: bool, from: Caller) {
        let data: Vec<Data> = members
            .iter()
            .map(|member| self.world.issue_linked(member.kind, member.second, member.limit))
            .collect();
        let ids: Vec<usize> = data.iter().map(|data| data.id).collect();
        let pools: Vec<_> = data.iter().map(|data| data.pool.clone()).collect();
        let mut chain = submitter.chain();
        let mut keys = Vec::new();
        for (index, (data, member)) in data.into_iter().zip(members).enumerate() {
            chain = chain.to(tag(member.second));
            let so_far = &ids[..=index];
            if so_far.len() == ids.len() && !dropped {
                match chain.submit(data, build) {
                    Ok(key) => keys.push(key),
                    Err(error) => return self.world.refused(so_far, &[], error, from),
                }
                break;
            }
            match if member.hard { chain.hard_link(data, build) } else { chain.link(data, build) } {
                Ok(key) => keys.push(key),
                Err(error) => return self.world.refused(so_far, &[], error, from),
            }
        }
        if dropped {
            return;
        }
        for second in [false, true] {
            let of_it = members.iter().filter(|member| member.second == second);
            self.world.admitted(second, of_it.count());
        }
        for (((id, pool), key), member) in ids.iter().zip(pools).zip(keys).zip(members) {
            self.accepted(member.second, *id, key);
            self.world.bound(*id, pool.as_ref());
        }
        self.world.accepted_chain(ids[0], ids.len());
    }

    fn chain(&self, submitter: &mut Submits<'_>, links: &[Link], second: bool, from: Caller) {
        match links.len() {
            1 => self.chain_of::<1>(submitter, links, second, from),
            2 => self.chain_of::<2>(submitter, links, second, from),
            3 => self.chain_of::<3>(submitter, links, second, from),
            4 => self.chain_of::<4>(submitter, links, second, from),
            _ => self.chain_of::<5>(submitter, &links[..links.len().min(5)], second, from),
        }
    }

    fn chain_of<const N: usize>(
        &self,
        submitter: &mut Submits<'_>,
        links: &[Link],
        second: bool,
        from: Caller,
    ) {
        let Ok(links): Result<&[Link; N], _> = links.try_into() else { return };
        let mut data = links.map(|link| self.world.issue(link.kind, second, true));
        let first = data[0].id;
        let ids = data.each_ref().map(|data| data.id);
        let mut index = 0;
        let entries = data.each_mut().map(|data| {
            let Link { hard, worker, .. } = links[index];
            index += 1;
            let mut flags = squeue::Flags::empty();
            flags.set(squeue::Flags::ASYNC, worker);
            if index < N {
                flags |= if hard { squeue::Flags::IO_HARDLINK } else { squeue::Flags::IO_LINK };
            }
            raw(data).flags(flags)
        });
        // SAFETY: what the entries point to is on the heap, owned by the data.
        match unsafe { submitter.push_multiple(entries, data) } {
            Ok(keys) => {
                self.world.admitted(second, N);
                for (id, key) in ids.into_iter().zip(keys) {
                    self.accepted(second, id, key);
                }
                self.world.accepted_chain(first, N);
            }
            Err(Refused { data, error }) => self.world.refused(&ids, &data, error, from),
        }
    }
}

fn tag(second: bool) -> Tag<Model, Operation> {
    if second { Model::SECOND } else { Model::FIRST }
}

/// A request of the data's kind.
fn build(data: &mut Data) -> request::Request<'_> {
    data.note_place();
    let (fd, limit) = (&*data.fd, data.limit.time());
    const FOR_READING: OpenOptions = OpenOptions::new();
    let request = match data.kind {
        Kind::WordWait => request::futex_wait(&data.word, data.expected),
        Kind::WordWake => request::futex_wake(&data.word, 1),
        Kind::Pipe => request::pipe(&mut data.pipe),
        Kind::SendVectoredZeroCopy => {
            let (one, other) = data.place.split_at(9);
            request::send_vectored_zc(fd, [one, other])
        }
        Kind::ReceiveMessage => match &mut data.receives {
            Some(receives) => request::recv_message(fd, &mut [], receives.get_mut()),
            None => request::nop(),
        },
        Kind::AcceptDirect => request::accept_direct(fd),
        Kind::OpenDirect => request::openat_direct(&CWD, c"/proc/self/exe", &FOR_READING),
        Kind::SocketDirect => request::socket_direct(libc::AF_UNIX, libc::SOCK_STREAM, 0),
        kind if kind.is_on_file() => match &data.file {
            Some(held) => on_file(kind, &held.file, &mut data.heap),
            None => request::nop(),
        },
        Kind::Timeout => request::timeout(Duration::from_millis(1)),
        Kind::Never if data.world.simulation.is_none() => request::timeout(Duration::from_millis(20)),
        Kind::Never => request::timeout(Duration::from_secs(1800)),
        Kind::Read => request::read_at(fd, &mut data.place, 0),
        Kind::ReadFixed => match &mut data.heap {
            Heap::Registered(buffer) => request::read_fixed_at(fd, buffer, 0),
            Heap::Own(_) => request::nop(),
        },
        Kind::Receive => request::recv(fd, &mut data.place),
        Kind::ReceiveProvided => match &data.pool {
            Some(pool) => request::recv_provided(fd, pool),
            None => request::nop(),
        },
        Kind::Send => request::send(fd, &data.place),
        Kind::SendZeroCopy => request::send_zc(fd, &data.place),
        Kind::Poll => request::poll(fd, Events::READABLE),
        Kind::Accept => request::accept(fd),
        Kind::Close => match data.closes.take() {
            Some(descriptor) => request::close(descriptor),
            None => request::nop(),
        },
        Kind::Sync => request::fsync(fd),
        _ => request::nop(),
    };
    match limit {
        Some(time) => request.deadline(time),
        None => request,
    }
}

/// A request on a file in the ring's table.
fn on_file<'d>(kind: Kind, file: &'d FixedFile, bytes: &'d mut [u8]) -> request::Request<'d> {
    match kind {
        Kind::ReceiveOnFile => request::recv(file, bytes),
        Kind::SendOnFile => request::send(file, bytes),
        Kind::SendZeroCopyOnFile => request::send_zc(file, bytes),
        _ => request::install(file),
    }
}

/// A stream of the data's kind.
fn arm(data: &mut Data) -> Stream<'_> {
    data.change();
    data.world.armed(data.id);
    let fd = &*data.fd;
    const THREE: std::num::NonZeroU32 = std::num::NonZeroU32::new(3).unwrap();
    let stream = match (data.kind, &data.pool) {
        (Kind::AcceptMulti, _) => patient(data.id, request::accept_multi(fd)),
        (Kind::AcceptMultiDirect, _) => patient(data.id, request::accept_multi_direct(fd)),
        (Kind::ReceiveMulti, Some(pool)) => request::recv_multi(fd, pool),
        (Kind::ReceiveLimited, Some(pool)) => request::recv_multi(fd, pool).limit(LIMIT),
        (Kind::ReceiveBundles, Some(pool)) => request::recv_multi_bundle(fd, pool),
        // The same, if the pool is incremental.
        (Kind::ReceivePieces, Some(pool)) if data.id.is_multiple_of(2) => {
            request::recv_multi_bundle(fd, pool)
        }
        (Kind::ReceivePieces, Some(pool)) => request::recv_multi(fd, pool),
        (Kind::ReceiveDatagrams, Some(pool)) => request::recv_from_multi(fd, pool),
        (Kind::TimeoutMulti, _) => request::timeout_multi(Duration::from_micros(300)),
        (Kind::TimeoutThrice, _) => request::timeout_multi_times(Duration::from_micros(300), THREE),
        _ => request::poll_multi(fd, Events::READABLE),
    };
    match data.kind.idle_limit(data.id) {
        Some(time) => stream.idle_limit(time),
        None => stream,
    }
}

/// A stream of connections that goes on after errors, if [this one](Kind::is_patient) does.
fn patient(id: usize, stream: Stream<'_>) -> Stream<'_> {
    if Kind::AcceptMulti.is_patient(id) { stream.retry_after(Duration::from_millis(1)) } else { stream }
}

/// A raw entry of the data's kind.
fn raw(data: &mut Data) -> squeue::Entry {
    let fd = Fd(data.fd.as_raw_fd());
    let length = data.heap.len() as u32;
    match data.kind {
        Kind::Read => opcode::Read::new(fd, data.heap.as_mut_ptr(), length).build(),
        Kind::Receive => opcode::Recv::new(fd, data.heap.as_mut_ptr(), length).build(),
        Kind::Send => opcode::Send::new(fd, data.heap.as_ptr(), length).build(),
        Kind::TimeoutMulti => {
            data.heap[..8].copy_from_slice(&0_i64.to_ne_bytes());
            data.heap[8..].copy_from_slice(&300_000_i64.to_ne_bytes());
            // A `struct __kernel_timespec` is two such numbers.
            let interval = data.heap.as_ptr().cast::<Timespec>();
            opcode::Timeout::new(interval).count(60).flags(TimeoutFlags::MULTISHOT).build()
        }
        _ => opcode::Nop::new().build(),
    }
}
