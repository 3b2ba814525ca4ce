//! What several tests need: a watchdog, children, drop counting, and a ring whose handlers are
//! closures.
//!
//! Every test runs its body in [`watched`] or [`in_child`]: a hang is a failure, and where the kernel offers no
//! io_uring, the test says "skipped" and passes.
//!
//! ```
//! use rummelplatz::{ControlFlow, request};
//! use rummelplatz_tests::{Bench, Ledger, Log, Script, watched};
//!
//! watched(|| {
//!     let ledger = Ledger::new();
//!     let seen = Log::new();
//!     let (data, log) = (ledger.issue(7), seen.clone());
//!     let mut ring = Bench::with(8, Script::new()
//!         .on_setup_once(move |mut submitter| {
//!             submitter.submit(data, |_| request::nop())?;
//!             Ok(())
//!         })
//!         .on_completion(move |completion, data, _| {
//!             log.push((completion.raw().result, *data));
//!             (ControlFlow::Continue, None)
//!         }));
//!     ring.run().unwrap();
//!     assert_eq!(seen.take(), [(0, 7)]);
//!     ledger.assert_all_dropped_once();
//! });
//! ```

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::num::NonZeroU32;
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::process::{Command, Stdio};
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rummelplatz::io_uring::{Builder, opcode, register, squeue, types};
use rummelplatz::{Completion, ControlFlow, RawRing, Request, RingOperation, Submitter, request, ring};

pub mod anywhere;
mod bare;
pub mod direct;
mod files;
pub mod messages;
pub mod options;
pub mod pipes;
mod streams;
mod surroundings;

pub use bare::*;
pub use files::*;
pub use streams::*;
pub use surroundings::*;

// ---- watchdogs ----------------------------------------------------------------------------------

/// After this time, a test counts as hung. None takes a tenth of it, but a machine may be busy with other things.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// Runs `body` in a thread, and fails if it panics or does not end within [`PATIENCE`].
pub fn watched(body: impl FnOnce() + Send + 'static) {
    if !ring_or_skip() {
        return;
    }
    let (done, ended) = mpsc::channel();
    let worker = thread::spawn(move || {
        let result = catch_unwind(AssertUnwindSafe(body));
        done.send(()).ok();
        if let Err(panic) = result {
            resume_unwind(panic);
        }
    });
    if ended.recv_timeout(PATIENCE).is_err() {
        panic!("hung: not done after {PATIENCE:?}");
    }
    if let Err(panic) = worker.join() {
        resume_unwind(panic);
    }
}

const CHILD: &str = "RUMMELPLATZ_TEST_CHILD";

/// Runs `body` in a process of its own, and fails if it panics, is killed by a signal, or does not end
/// within [`PATIENCE`].
///
/// For tests that concern a whole process: its descriptors, limits, signals, memory. `body` must be written inside the
/// test function itself: the child is this executable again, told to run only that test.
pub fn in_child<F: FnOnce()>(body: F) {
    if !ring_or_skip() {
        return;
    }
    in_child_anywhere(body);
}

/// As [`in_child`], also where there is no io_uring.
pub fn in_child_anywhere<F: FnOnce()>(body: F) {
    let name = std::any::type_name::<F>();
    let name = name.split_once("::").map_or(name, |(_, path)| path);
    let name = name.split("::{{closure}}").next().unwrap_or(name);
    if std::env::var(CHILD).is_ok_and(|child| child == name) {
        return body();
    }
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture", "--include-ignored", "--test-threads=1"])
        .env(CHILD, name)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let output = drain(child.stdout.take());
    let errors = drain(child.stderr.take());
    let began = Instant::now();
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break Some(status),
            None if began.elapsed() > PATIENCE => {
                child.kill().unwrap();
                child.wait().unwrap();
                break None;
            }
            None => thread::sleep(Duration::from_millis(2)),
        }
    };
    let (output, errors) = (output.join().unwrap(), errors.join().unwrap());
    let passed = status.is_some_and(|status| status.success()) && output.contains("1 passed");
    if !passed {
        let how = status.map_or(format!("hung: not done after {PATIENCE:?}"), |it| it.to_string());
        panic!("child `{name}`: {how}\n--- stdout\n{output}\n--- stderr\n{errors}");
    }
}

fn drain(stream: Option<impl io::Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            stream.read_to_end(&mut bytes).ok();
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Whether the kernel offers an io_uring. If not, this says "skipped", unless that is forbidden, as in CI
/// (`RUMMELPLATZ_NO_SKIP`).
pub fn ring_or_skip() -> bool {
    match RawRing::new(NonZeroU32::MIN) {
        Ok(_) => true,
        Err(error) => {
            // A child may have been deprived of it.
            let set = |variable| std::env::var_os(variable).is_some();
            let may_skip = !set("RUMMELPLATZ_NO_SKIP") || set(CHILD);
            assert!(may_skip, "not to be skipped: {error}");
            eprintln!("skipped: {error}");
            false
        }
    }
}

// ---- counting system calls ----------------------------------------------------------------------

/// The calls of `io_uring_enter` that a process has made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Enters {
    pub calls: usize,
    /// The calls that took entries in.
    pub submitting: usize,
    /// How many entries those were.
    pub entries: usize,
}

/// Runs `body` in a fork of this process, and counts its calls of `io_uring_enter`. `body` must not panic. For a test
/// in a child.
pub fn count_enters(body: impl FnOnce()) -> Enters {
    // SAFETY: the only other thread of a test in a child is the harness's, which waits and holds no lock.
    let child = unsafe { libc::fork() };
    assert!(child >= 0);
    if child == 0 {
        // SAFETY: a plain call.
        unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) };
        // SAFETY: a plain call: this process stops until its parent is ready.
        unsafe { libc::raise(libc::SIGSTOP) };
        let failed = catch_unwind(AssertUnwindSafe(body)).is_err();
        // SAFETY: ends the process without running what belongs to the parent.
        unsafe { libc::_exit(i32::from(failed)) };
    }
    let wait = || {
        let mut status = 0;
        // SAFETY: the status outlives the call.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        status
    };
    assert!(libc::WIFSTOPPED(wait()));
    let options = libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_EXITKILL;
    // SAFETY: a plain call.
    let result = unsafe { libc::ptrace(libc::PTRACE_SETOPTIONS, child, 0, options) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());

    let mut enters = Enters::default();
    let (mut entering, mut signal) = (false, 0);
    loop {
        // SAFETY: a plain call.
        assert_eq!(unsafe { libc::ptrace(libc::PTRACE_SYSCALL, child, 0, signal) }, 0);
        let status = wait();
        if !libc::WIFSTOPPED(status) {
            assert!(libc::WIFEXITED(status), "killed by signal {}", libc::WTERMSIG(status));
            assert_eq!(libc::WEXITSTATUS(status), 0, "see above");
            return enters;
        }
        if libc::WSTOPSIG(status) != libc::SIGTRAP | 0x80 {
            signal = libc::WSTOPSIG(status);
            continue;
        }
        signal = 0;
        // SAFETY: all zeroes is a valid value.
        let mut info: libc::ptrace_syscall_info = unsafe { std::mem::zeroed() };
        let request = libc::PTRACE_GET_SYSCALL_INFO;
        // SAFETY: it writes at most as many bytes as there are.
        let size = unsafe { libc::ptrace(request, child, size_of_val(&info), &raw mut info) };
        assert!(size > 0);
        if info.op == libc::PTRACE_SYSCALL_INFO_ENTRY {
            // SAFETY: it is that variant.
            entering = unsafe { info.u.entry.nr } == libc::SYS_io_uring_enter as u64;
            enters.calls += usize::from(entering);
        } else if std::mem::take(&mut entering) {
            // SAFETY: it is the other variant.
            let result = unsafe { info.u.exit.sval };
            enters.submitting += usize::from(result > 0);
            enters.entries += result.max(0) as usize;
        }
    }
}

// ---- counting drops -----------------------------------------------------------------------------

/// Issues [`Tracked`] values, and counts how often each was dropped.
#[derive(Clone, Copy)]
pub struct Ledger {
    /// Leaked, so that even a value that is dropped twice finds it.
    drops: &'static Mutex<Vec<u32>>,
}

/// A value whose drops its [`Ledger`] counts; otherwise it behaves like the value.
pub struct Tracked<T> {
    pub value: T,
    id: usize,
    ledger: Ledger,
}

impl Ledger {
    #[expect(clippy::new_without_default, reason = "each is a leaked allocation of its own")]
    pub fn new() -> Ledger {
        // Kept reachable, so that leak checkers don't report it.
        static ALL: Mutex<Vec<&'static Mutex<Vec<u32>>>> = Mutex::new(Vec::new());
        let drops: &'static _ = Box::leak(Box::default());
        ALL.lock().unwrap_or_else(PoisonError::into_inner).push(drops);
        Ledger { drops }
    }

    /// A value that is expected to be dropped exactly once.
    pub fn issue<T>(self, value: T) -> Tracked<T> {
        let mut drops = self.lock();
        drops.push(0);
        Tracked { value, id: drops.len() - 1, ledger: self }
    }

    /// How many values have been issued.
    pub fn issued(self) -> usize {
        self.lock().len()
    }

    /// How many values have not been dropped yet.
    pub fn alive(self) -> usize {
        self.lock().iter().filter(|drops| **drops == 0).count()
    }

    /// Fails if a value was dropped more than once.
    #[track_caller]
    pub fn assert_none_dropped_twice(self) {
        let drops = self.lock().clone();
        assert!(drops.iter().all(|drops| *drops < 2), "dropped twice: {drops:?}");
    }

    /// Fails unless each value was dropped exactly once.
    #[track_caller]
    pub fn assert_all_dropped_once(self) {
        let drops = self.lock().clone();
        let wrong: Vec<_> = drops.iter().enumerate().filter(|(_, drops)| **drops != 1).collect();
        assert!(wrong.is_empty(), "(id, drops) of {}: {wrong:?}", drops.len());
    }

    fn lock(&self) -> MutexGuard<'_, Vec<u32>> {
        self.drops.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Drop for Tracked<T> {
    fn drop(&mut self) {
        self.ledger.lock()[self.id] += 1;
    }
}

impl<T> Deref for Tracked<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for Tracked<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T: fmt::Debug> fmt::Debug for Tracked<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tracked#{}({:?})", self.id, self.value)
    }
}

/// What handlers have seen, shared with the test.
pub struct Log<T>(Arc<Mutex<Vec<T>>>);

impl<T> Log<T> {
    pub fn new() -> Log<T> {
        Log(Arc::default())
    }

    pub fn push(&self, entry: T) {
        self.lock().push(entry);
    }

    pub fn len(&self) -> usize {
        self.lock().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes all entries out of the log.
    pub fn take(&self) -> Vec<T> {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Clone for Log<T> {
    fn clone(&self) -> Self {
        Log(Arc::clone(&self.0))
    }
}

impl<T> Default for Log<T> {
    fn default() -> Self {
        Log::new()
    }
}

// ---- a ring whose handlers are closures -----------------------------------------------------------

/// A ring of two operations whose handlers are closures, with requests whose data is `D`.
#[ring]
pub struct Bench<D: Send + 'static> {
    pub first: Script<D>,
    pub second: Script<D>,
}

impl<D: Send + 'static> Bench<D> {
    /// With `entries` in the submission queue, an unlimited backlog, and nothing to do for the second
    /// operation.
    pub fn with(entries: u32, first: Script<D>) -> Self {
        // What teardown handlers submit is given the time that it takes, even on a machine that is busy with other
        // things. Tests of the grace period itself choose a short one.
        let builder = Bench::builder(first, Script::new()).grace(PATIENCE);
        builder.entries(entries.try_into().unwrap()).build().unwrap()
    }
}

/// An operation that ends the ring as soon as it runs.
pub fn exit<D: Send + 'static>(data: D) -> Script<D> {
    Script::new()
        .on_setup_once(move |mut submitter| {
            submitter.submit(data, |_| request::nop())?;
            Ok(())
        })
        .on_completion(|_, _, _| (ControlFlow::Exit, None))
}

/// The error of the operations of a [`Bench`].
pub type Failure = Box<dyn Error + Send + Sync>;

/// Submits to an operation of a [`Bench`].
pub type BenchSubmitter<'a, D> = Submitter<'a, Bench<D>, Script<D>>;

/// What `on_completion` of a [`Script`] returns.
pub type Outcome<D> = (ControlFlow<&'static str, Failure>, Option<D>);

type OnSetup<D> = dyn FnMut(BenchSubmitter<'_, D>) -> Result<(), Failure> + Send;
type OnCompletion<D> = dyn FnMut(Completion, D, BenchSubmitter<'_, D>) -> Outcome<D> + Send;
type OnTeardown<D> = dyn FnMut(Completion, D, BenchSubmitter<'_, D>) -> Result<(), Failure> + Send;

/// An operation whose handlers are closures; those that are not set do nothing.
pub struct Script<D: Send + 'static> {
    setup: Box<OnSetup<D>>,
    completion: Box<OnCompletion<D>>,
    teardown: Box<OnTeardown<D>>,
}

impl<D: Send + 'static> Script<D> {
    #[expect(clippy::new_without_default, reason = "the beginning of a chain of calls")]
    pub fn new() -> Self {
        Script {
            setup: Box::new(|_| Ok(())),
            completion: Box::new(|_, _, _| (ControlFlow::Continue, None)),
            teardown: Box::new(|_, _, _| Ok(())),
        }
    }

    /// `setup`, of every run.
    pub fn on_setup(
        mut self,
        setup: impl FnMut(BenchSubmitter<'_, D>) -> Result<(), Failure> + Send + 'static,
    ) -> Self {
        self.setup = Box::new(setup);
        self
    }

    /// `setup` of the first run only; it may use up what it has captured.
    pub fn on_setup_once(
        self,
        setup: impl FnOnce(BenchSubmitter<'_, D>) -> Result<(), Failure> + Send + 'static,
    ) -> Self {
        let mut setup = Some(setup);
        self.on_setup(move |submitter| match setup.take() {
            Some(setup) => setup(submitter),
            None => Ok(()),
        })
    }

    /// `on_completion`.
    pub fn on_completion(
        mut self,
        handler: impl FnMut(Completion, D, BenchSubmitter<'_, D>) -> Outcome<D> + Send + 'static,
    ) -> Self {
        self.completion = Box::new(handler);
        self
    }

    /// `on_teardown_completion`.
    pub fn on_teardown(
        mut self,
        handler: impl FnMut(Completion, D, BenchSubmitter<'_, D>) -> Result<(), Failure> + Send + 'static,
    ) -> Self {
        self.teardown = Box::new(handler);
        self
    }
}

impl<D: Send + 'static> RingOperation<Bench<D>> for Script<D> {
    type RingData = D;
    type SetupError = Failure;
    type TeardownError = Failure;
    type ControlFlowWarn = &'static str;
    type ControlFlowError = Failure;

    fn setup(&mut self, submitter: BenchSubmitter<'_, D>) -> Result<(), Failure> {
        (self.setup)(submitter)
    }

    fn on_completion(
        &mut self,
        completion: Completion,
        data: D,
        submitter: BenchSubmitter<'_, D>,
    ) -> Outcome<D> {
        (self.completion)(completion, data, submitter)
    }

    fn on_teardown_completion(
        &mut self,
        completion: Completion,
        data: D,
        submitter: BenchSubmitter<'_, D>,
    ) -> Result<(), Failure> {
        (self.teardown)(completion, data, submitter)
    }
}

/// Runs one request in a ring of its own. Returns its completion and its data.
pub fn complete<D: Send + 'static>(
    data: D,
    build: impl for<'d> FnOnce(&'d mut D) -> Request<'d>,
) -> (Completion, D) {
    complete_on(addressable(8).0, data, build)
}

/// As [`complete`], but returns its result and its data.
pub fn once<D: Send + 'static>(
    data: D,
    build: impl for<'d> FnOnce(&'d mut D) -> Request<'d>,
) -> (Result<u32, i32>, D) {
    let (completion, data) = complete(data, build);
    (outcome(&completion), data)
}

/// As [`once`], in this ring.
pub fn once_on<D: Send + 'static>(
    raw: RawRing,
    data: D,
    build: impl for<'d> FnOnce(&'d mut D) -> Request<'d>,
) -> (Result<u32, i32>, D) {
    let (completion, data) = complete_on(raw, data, build);
    (outcome(&completion), data)
}

/// As [`complete`], in this ring.
pub fn complete_on<D: Send + 'static>(
    raw: RawRing,
    data: D,
    build: impl for<'d> FnOnce(&'d mut D) -> Request<'d>,
) -> (Completion, D) {
    let seen = Log::new();
    let log = seen.clone();
    let script = Script::new().on_completion(move |completion, data, _| {
        assert!(!completion.more() && !completion.is_message());
        log.push((completion, data));
        (ControlFlow::Continue, None)
    });
    let mut ring = Bench::builder(script, Script::new()).raw_ring(raw).build().unwrap();
    ring.submitter(Bench::FIRST).submit(data, build).unwrap();
    ring.run().unwrap();
    seen.take().pop().unwrap()
}

// ---- data of requests -------------------------------------------------------------------------------

/// The data of a request that reads or writes: a descriptor, a buffer on the heap, and a number.
pub struct Job {
    pub number: u64,
    pub file: Arc<OwnedFd>,
    pub buffer: Box<[u8]>,
}

impl Job {
    pub fn new(number: u64, file: &Arc<OwnedFd>, size: usize) -> Job {
        Job { number, file: Arc::clone(file), buffer: vec![0; size].into() }
    }

    pub fn read(&mut self) -> Request<'_> {
        request::read(&*self.file, &mut self.buffer)
    }

    pub fn write(&mut self) -> Request<'_> {
        request::write(&*self.file, &self.buffer)
    }

    pub fn recv(&mut self) -> Request<'_> {
        request::recv(&*self.file, &mut self.buffer)
    }

    pub fn send(&mut self) -> Request<'_> {
        request::send(&*self.file, &self.buffer)
    }

    pub fn send_zc(&mut self) -> Request<'_> {
        request::send_zc(&*self.file, &self.buffer)
    }

    /// The second half, and then the first, so that these are two pieces.
    pub fn send_vectored_zc(&mut self) -> Request<'_> {
        let (first, second) = self.buffer.split_at(self.buffer.len() / 2);
        request::send_vectored_zc(&*self.file, [second, first])
    }

    /// [`read`](Self::read) as a raw entry, whose pointer is valid as long as the job lives.
    pub fn read_entry(&mut self) -> squeue::Entry {
        let length = self.buffer.len() as u32;
        opcode::Read::new(self.raw(), self.buffer.as_mut_ptr(), length).offset(u64::MAX).build()
    }

    /// [`write`](Self::write) as a raw entry, whose pointer is valid as long as the job lives.
    pub fn write_entry(&mut self) -> squeue::Entry {
        let length = self.buffer.len() as u32;
        opcode::Write::new(self.raw(), self.buffer.as_ptr(), length).offset(u64::MAX).build()
    }

    pub fn raw(&self) -> types::Fd {
        types::Fd(self.file.as_raw_fd())
    }
}

// ---- signals ------------------------------------------------------------------------------------

/// SIGALRM to this thread, a thousand times a second, until it is dropped. For a test in a child.
///
/// (`setitimer` would send the signals to the process, and the harness's thread would get them all.)
pub struct SignalStorm {
    timer: libc::timer_t,
}

static SIGNALS: AtomicUsize = AtomicUsize::new(0);

extern "C" fn count_signal(_: libc::c_int) {
    SIGNALS.fetch_add(1, Ordering::Relaxed);
}

impl SignalStorm {
    /// Begins, with system calls restarted after a signal (`SA_RESTART`) or not.
    pub fn begin(restart: bool) -> SignalStorm {
        // SAFETY: all zeroes is a valid `sigaction`.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = count_signal as extern "C" fn(libc::c_int) as usize;
        action.sa_flags = if restart { libc::SA_RESTART } else { 0 };
        // SAFETY: the handler does nothing but add to an atomic.
        let result = unsafe { libc::sigaction(libc::SIGALRM, &raw const action, ptr::null_mut()) };
        assert_eq!(result, 0);
        // SAFETY: all zeroes is a valid `sigevent`.
        let mut event: libc::sigevent = unsafe { std::mem::zeroed() };
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = libc::SIGALRM;
        // SAFETY: a plain call.
        event.sigev_notify_thread_id = unsafe { libc::gettid() };
        let mut timer = ptr::null_mut();
        // SAFETY: both arguments outlive the call.
        let result = unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut timer) };
        assert_eq!(result, 0);
        let every = libc::timespec { tv_sec: 0, tv_nsec: 1_000_000 };
        let times = libc::itimerspec { it_interval: every, it_value: every };
        // SAFETY: the timer was just made, and the times outlive the call.
        assert_eq!(unsafe { libc::timer_settime(timer, 0, &raw const times, ptr::null_mut()) }, 0);
        SignalStorm { timer }
    }

    /// How many signals have come so far.
    pub fn signals() -> usize {
        SIGNALS.load(Ordering::Relaxed)
    }
}

impl Drop for SignalStorm {
    fn drop(&mut self) {
        // SAFETY: it was made by `begin`.
        unsafe { libc::timer_delete(self.timer) };
    }
}

/// Turns the ring until the condition holds.
#[macro_export]
macro_rules! turn_until {
    ($ring:expr, $condition:expr) => {
        while !$condition {
            assert!(!$ring.turn().unwrap().is_finished(), "finished, but not {}", stringify!($condition));
            std::thread::sleep(std::time::Duration::from_micros(100));
        }
    };
}

// ---- small things ---------------------------------------------------------------------------------

/// Whether `condition` holds, maybe only soon: for what is closed, and what others see of that. A child that another test
/// starts has copies of all descriptors of this process, until it is the other program; and what a worker of the kernel
/// has used, that worker lets go. Nothing else happens meanwhile in this thread.
pub fn soon(mut condition: impl FnMut() -> bool) -> bool {
    let began = Instant::now();
    loop {
        let holds = condition();
        if holds || began.elapsed() > PATIENCE / 6 {
            return holds;
        }
        thread::sleep(Duration::from_micros(200));
    }
}

/// How many descriptors this process has open. Meaningful in a child, where no other test runs.
pub fn open_descriptors() -> usize {
    // What the C library opens for a moment when a thread needs memory.
    let cpus = Path::new("/sys/devices/system/cpu/online");
    let names = std::fs::read_dir("/proc/self/fd").unwrap();
    let files = names.filter_map(|it| std::fs::read_link(it.unwrap().path()).ok());
    // One of them is that of the directory being read.
    files.filter(|it| it != cpus).count() - 1
}

/// The reading and the writing end of a pipe.
pub fn pipe() -> (OwnedFd, OwnedFd) {
    let (reader, writer) = io::pipe().unwrap();
    (reader.into(), writer.into())
}

/// Two ends of a TCP connection over the loopback interface.
pub fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    (client, server)
}

/// A socket and its address, where nobody listens for connections. That a listener is gone would not say so: see [`soon`];
/// and its port might be another process's by then.
pub fn deaf() -> (OwnedFd, SocketAddr) {
    // SAFETY: a plain call; the result is checked before it is owned.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    assert!(fd >= 0);
    // SAFETY: a descriptor that was just made.
    let socket = unsafe { TcpListener::from_raw_fd(fd) };
    // SAFETY: all zeroes is an address.
    let mut address: libc::sockaddr_in = unsafe { std::mem::zeroed() };
    address.sin_family = libc::AF_INET as libc::sa_family_t;
    address.sin_addr.s_addr = u32::from(Ipv4Addr::LOCALHOST).to_be();
    let length = size_of_val(&address) as libc::socklen_t;
    // SAFETY: the address is there, and as long as is said.
    assert_eq!(unsafe { libc::bind(fd, (&raw const address).cast(), length) }, 0);
    let address = socket.local_addr().unwrap();
    (socket.into(), address)
}

/// As [`deaf`], for datagrams: of those, this socket gets only its own.
pub fn deaf_to_datagrams() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    socket.connect(address).unwrap();
    (socket, address)
}

/// An io_uring and its descriptor, to which other rings can send messages. The descriptor is valid as long as the ring
/// lives.
pub fn addressable(entries: u32) -> (RawRing, types::Fd) {
    let raw = RawRing::new(entries.try_into().unwrap()).unwrap();
    let fd = types::Fd(raw.as_raw_fd());
    (raw, fd)
}

/// Of what a [`restricted`] ring may register: the descriptor that it signals.
pub const IORING_REGISTER_EVENTFD: u8 = 4;

/// An io_uring that may do and register only this, link requests, and choose buffers of a pool.
pub fn restricted(builder: &mut Builder, entries: u32, opcodes: &[u8], registrations: &[u8]) -> RawRing {
    let uring = builder.setup_r_disabled().build(entries).unwrap();
    let opcodes = opcodes.iter().copied().map(register::Restriction::sqe_op);
    let registrations = registrations.iter().copied().map(register::Restriction::register_op);
    let flags = squeue::Flags::IO_LINK | squeue::Flags::BUFFER_SELECT;
    let flags = register::Restriction::sqe_flags_allowed(flags.bits());
    let mut allowed: Vec<_> = opcodes.chain(registrations).chain([flags]).collect();
    uring.submitter().register_restrictions(&mut allowed).unwrap();
    uring.submitter().register_enable_rings().unwrap();
    // SAFETY: nothing is queued or in flight in it, and nobody else has it.
    unsafe { RawRing::from_io_uring(uring) }.unwrap()
}

/// The result of a completion as a number or an `errno`.
pub fn outcome(completion: &Completion) -> Result<u32, i32> {
    completion.result().map_err(|error| error.raw_os_error().unwrap_or(0))
}

/// Runs `body` and returns what it panicked with, which must be text.
#[track_caller]
pub fn panic_of<T>(body: impl FnOnce() -> T) -> String {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(_) => panic!("no panic came through"),
        Err(panic) => text(&*panic),
    }
}

fn text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}
