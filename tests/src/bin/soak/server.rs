//! The server: a ring in a thread of its own, interrupted by signals, which ends in the way that it is told.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

use rummelplatz::{
    Buffer, BufferPool, Completion, ControlFlow, Key, Request, RingError, RingHandle, RingOperation,
    SubmitError, Submitter, request, ring,
};
use rummelplatz_tests::SignalStorm;

use crate::Shared;

#[ring(entries = 128)]
pub(crate) struct Echo {
    saboteur: Saboteur,
    acceptor: Acceptor,
    receivers: Receivers,
    senders: Senders,
}

// ---- the ways to end --------------------------------------------------------------------------------

/// How a ring is made to end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ending {
    /// By its handle.
    Stop,
    /// A handler says so.
    Exit,
    /// A handler fails.
    Error,
    /// A handler panics.
    Panic,
    /// Driven by turns instead of `run`, and dropped.
    Drop,
    /// Driven by turns instead of `run`, and finished.
    Finish,
}

impl Ending {
    pub(crate) const ALL: [Ending; 6] =
        [Ending::Stop, Ending::Panic, Ending::Drop, Ending::Error, Ending::Finish, Ending::Exit];

    pub(crate) fn order(self, handle: &RingHandle<Echo>) {
        match self {
            Ending::Stop => handle.stop(),
            // A ring that has ended refuses this; its end is reported anyway.
            other => drop(handle.send(Echo::SABOTEUR, other)),
        }
    }

    fn is_turned(self) -> bool {
        matches!(self, Ending::Drop | Ending::Finish)
    }
}

/// The error, or the panic, of a ring that was told to end in this way.
#[derive(Debug)]
pub(crate) struct Planned;

/// Ends the ring when it is told to.
#[derive(RingOperation)]
#[ring_operation(ring = Echo, data = Ending, error = Planned, on_completion)]
struct Saboteur {
    /// The loop around the ring is to be left.
    leave: bool,
}

impl Saboteur {
    fn on_completion(
        &mut self,
        _: Completion,
        ending: Ending,
        _: Submitter<'_, Echo, Self>,
    ) -> ControlFlow<Infallible, Planned> {
        match ending {
            Ending::Stop | Ending::Exit => ControlFlow::Exit,
            Ending::Error => ControlFlow::Error(Planned),
            Ending::Panic => panic_any(Planned),
            Ending::Drop | Ending::Finish => {
                self.leave = true;
                ControlFlow::Continue
            }
        }
    }
}

// ---- echoing ----------------------------------------------------------------------------------------

#[derive(RingOperation)]
#[ring_operation(
    ring = Echo, data = Arc<TcpListener>, warn = io::Error, setup_error = SubmitError,
    setup, on_more = on_connection, on_final = on_end,
)]
struct Acceptor {
    listener: Arc<TcpListener>,
    pool: BufferPool,
    shared: Arc<Shared>,
}

impl Acceptor {
    fn setup(&mut self, mut submitter: Submitter<'_, Echo, Self>) -> Result<(), SubmitError> {
        submitter.stream(self.listener.clone(), |listener| request::accept_multi(listener)).map(drop)
    }

    fn on_connection(
        &mut self,
        completion: Completion,
        _: &mut Arc<TcpListener>,
        mut submitter: Submitter<'_, Echo, Self>,
    ) -> io::Result<()> {
        let connection = Connection::new(completion.into_fd()?, &self.pool);
        let again = connection.clone();
        let mut receivers = submitter.to(Echo::RECEIVERS);
        let stream = receivers.stream(again, |it| request::recv_multi(&it.socket, &it.pool))?;
        connection.stream.set(Some(stream));
        Ok(())
    }

    /// Only the end of the ring ends it.
    fn on_end(&mut self, completion: Completion, _: Arc<TcpListener>, _: Submitter<'_, Echo, Self>) {
        self.shared.fail(format!("accepting has ended: {:?}", completion.result()));
    }
}

/// Connections that exist.
static CONNECTIONS: AtomicUsize = AtomicUsize::new(0);

struct Connection {
    socket: OwnedFd,
    pool: BufferPool,
    /// The stream that receives.
    stream: Cell<Option<Key<Receivers>>>,
    sending: Cell<bool>,
    /// What was received, and is to be sent after what is being sent.
    waiting: RefCell<VecDeque<Buffer>>,
}

impl Connection {
    fn new(socket: OwnedFd, pool: &BufferPool) -> Rc<Connection> {
        CONNECTIONS.fetch_add(1, Relaxed);
        Rc::new(Connection {
            socket,
            pool: pool.clone(),
            stream: Cell::new(None),
            sending: Cell::new(false),
            waiting: RefCell::default(),
        })
    }

    fn send_next(self: Rc<Self>, mut submitter: Submitter<'_, Echo, Senders>) -> Result<(), SubmitError> {
        let next = self.waiting.borrow_mut().pop_front();
        self.sending.set(next.is_some());
        if let Some(buffer) = next {
            submitter.submit(Answer { connection: self, buffer, sent: 0 }, Answer::request)?;
        }
        Ok(())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        CONNECTIONS.fetch_sub(1, Relaxed);
    }
}

#[derive(RingOperation)]
#[ring_operation(
    ring = Echo, data = Rc<Connection>, warn = SubmitError, on_more = on_bytes, on_final = on_end,
)]
struct Receivers {
    shared: Arc<Shared>,
}

impl Receivers {
    fn on_bytes(
        &mut self,
        completion: Completion,
        connection: &mut Rc<Connection>,
        mut submitter: Submitter<'_, Echo, Self>,
    ) -> Result<(), SubmitError> {
        // When clients stall, the pool is empty, and the stream waits for a buffer.
        let Ok(buffer) = completion.into_buffer() else { return Ok(()) };
        connection.waiting.borrow_mut().push_back(buffer);
        match connection.sending.get() {
            true => Ok(()),
            false => connection.clone().send_next(submitter.to(Echo::SENDERS)),
        }
    }

    fn on_end(&mut self, completion: Completion, connection: Rc<Connection>, _: Submitter<'_, Echo, Self>) {
        // A stream that was given up ends with whatever came last.
        let given_up = connection.stream.take().is_none();
        if let Err(error) = completion.result()
            && !given_up
        {
            expect_a_lost_peer("receiving", &error, &self.shared);
        }
    }
}

#[derive(RingOperation)]
#[ring_operation(ring = Echo, data = Answer, warn = SubmitError, on_completion)]
struct Senders {
    shared: Arc<Shared>,
}

struct Answer {
    connection: Rc<Connection>,
    buffer: Buffer,
    sent: usize,
}

impl Answer {
    fn request(&mut self) -> Request<'_> {
        request::send(&self.connection.socket, &self.buffer[self.sent..])
    }
}

impl Senders {
    fn on_completion(
        &mut self,
        completion: Completion,
        mut answer: Answer,
        mut submitter: Submitter<'_, Echo, Self>,
    ) -> Result<(), SubmitError> {
        match completion.result() {
            Ok(sent) => answer.sent += sent as usize,
            Err(error) => {
                expect_a_lost_peer("sending", &error, &self.shared);
                answer.connection.waiting.borrow_mut().clear();
                if let Some(stream) = answer.connection.stream.take() {
                    submitter.to(Echo::RECEIVERS).cancel(stream);
                }
                return Ok(());
            }
        }
        match answer.sent == answer.buffer.len() {
            true => answer.connection.send_next(submitter),
            false => submitter.submit(answer, Answer::request).map(drop),
        }
    }
}

fn expect_a_lost_peer(what: &str, error: &io::Error, shared: &Shared) {
    if !matches!(error.raw_os_error(), Some(libc::ECONNRESET | libc::EPIPE)) {
        shared.fail(format!("{what}: {error}"));
    }
}

// ---- rounds -----------------------------------------------------------------------------------------

/// An order for one round.
pub(crate) struct Order {
    pub(crate) ending: Ending,
    /// With the same ring as before, if there is one.
    pub(crate) again: bool,
    /// With `DEFER_TASKRUN`.
    pub(crate) defer: bool,
}

pub(crate) enum Report {
    Up(RingHandle<Echo>),
    Ended(Result<(), String>),
}

pub(crate) struct Server {
    pub(crate) shared: Arc<Shared>,
    pub(crate) listener: Arc<TcpListener>,
    pub(crate) pool: BufferPool,
}

impl Server {
    /// Runs one ring for each order, until there are no more.
    pub(crate) fn serve(self, orders: &Receiver<Order>, reports: &Sender<Report>) {
        let mut kept = None;
        for (number, order) in orders.iter().enumerate() {
            let storm = SignalStorm::begin(number % 2 == 0);
            let ended = self.round(&order, &mut kept, reports);
            drop(storm);
            self.shared.epoch.fetch_add(1, Relaxed);
            if reports.send(Report::Ended(ended)).is_err() {
                return;
            }
        }
    }

    fn round(&self, order: &Order, kept: &mut Option<Echo>, reports: &Sender<Report>) -> Result<(), String> {
        // A ring that has finished can be run again, but not turned.
        let again = order.again && !order.ending.is_turned();
        let mut ring = match kept.take().filter(|_| again) {
            Some(ring) => ring,
            None => self.build(order.defer)?,
        };
        ring.saboteur.leave = false;
        reports.send(Report::Up(ring.handle())).map_err(|error| error.to_string())?;
        let ended = catch_unwind(AssertUnwindSafe(|| match order.ending.is_turned() {
            true => turn(&mut ring),
            false => ring.run(),
        }));
        match (order.ending, ended) {
            (Ending::Stop | Ending::Exit | Ending::Finish | Ending::Drop, Ok(Ok(()))) => {}
            (Ending::Error, Ok(Err(RingError::Completion(cause)))) if cause.abandoned.is_none() => {}
            (Ending::Panic, Err(panic)) if panic.is::<Planned>() => {}
            (_, Ok(Ok(()))) => return Err("ended without an error".into()),
            (_, Ok(Err(error))) => return Err(format!("ended with {error}")),
            (_, Err(_)) => return Err("panicked".into()),
        }
        if order.ending == Ending::Drop {
            drop(ring);
        } else {
            if order.ending == Ending::Finish {
                ring.finish().map_err(|error| error.to_string())?;
            }
            let stats = ring.stats();
            let odd = stats.foreign + stats.returned_late + stats.warnings + stats.undelivered;
            if stats.in_flight > 0 || stats.backlog > 0 || odd > 0 {
                return Err(format!("{stats:?}"));
            }
            *kept = Some(ring);
        }
        let (left, held) = (CONNECTIONS.load(Relaxed), self.pool.capacity() - self.pool.available());
        match (left, held) {
            (0, 0) => Ok(()),
            _ => Err(format!("{left} connections and {held} buffers are left")),
        }
    }

    fn build(&self, defer: bool) -> Result<Echo, String> {
        let Server { shared, listener, pool } = self;
        let acceptor = Acceptor { listener: listener.clone(), pool: pool.clone(), shared: shared.clone() };
        let (receivers, senders) = (Receivers { shared: shared.clone() }, Senders { shared: shared.clone() });
        let warned = shared.clone();
        Echo::builder(Saboteur { leave: false }, acceptor, receivers, senders)
            .defer_taskrun(defer)
            .on_warn(move |warning| warned.fail(warning.to_string()))
            .build()
            .map_err(|error| error.to_string())
    }
}

/// Turns the ring as another event loop would, until it is to be left.
fn turn(ring: &mut Echo) -> Result<(), RingError<Echo>> {
    while !ring.saboteur.leave {
        let progress = ring.turn()?;
        assert!(!progress.is_finished(), "it was not to finish yet");
        if progress.call_again_in != Some(Duration::ZERO) && !ring.saboteur.leave {
            let mut interest = libc::pollfd { fd: ring.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            let timeout = progress.call_again_in.map_or(1000, |time| time.as_millis().min(1000) as i32);
            // SAFETY: one `pollfd`, borrowed for the call. If a signal interrupts the call, that is fine, too.
            unsafe { libc::poll(&raw mut interest, 1, timeout) };
        }
    }
    Ok(())
}
