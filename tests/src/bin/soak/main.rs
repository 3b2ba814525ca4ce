//! An echo server under bad clients and signals, torn down and started again every second. At the end nothing may be
//! left over.
//!
//! ```text
//! cargo run --release -p rummelplatz-tests --bin soak -- --seconds 60 [--clients 256] [--seed N]
//! ```
//!
//! Prints one line. It fails if an answer is wrong or missing, if a connection breaks for no reason, if nothing happens
//! for [`PATIENCE`], if a ring ends in another way than it was told to or with something in flight, or if descriptors,
//! threads, mapped rings or memory are left over. Everything random comes from the seed; the kernel's timing does not.

mod clients;
mod server;

use std::collections::HashMap;
use std::error::Error;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::panic;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rummelplatz::BufferPool;
use rummelplatz_tests::{SignalStorm, open_descriptors};

use server::{Ending, Planned, Report, Server};

/// Without any progress for this long, the program counts as hung.
const PATIENCE: Duration = Duration::from_secs(60);

/// How much more memory may be resident at the end than after every way to end has had its first turn. A teardown that
/// leaks shows in other things than memory; this limit is for what grows without bound.
const MORE_MEMORY: u64 = 4 << 20;

/// What all threads share.
#[derive(Default)]
struct Shared {
    /// Clients must finish.
    stopping: AtomicBool,
    /// Odd while a ring is being torn down.
    epoch: AtomicU64,
    echoed: AtomicU64,
    connections: AtomicU64,
    /// Connections that a teardown has broken.
    broken: AtomicU64,
    clients: AtomicU64,
    failure: Mutex<Option<String>>,
}

impl Shared {
    fn fail(&self, failure: String) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
    }

    fn check(&self) -> Result<(), String> {
        match self.failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(failure) => Err(failure),
            None => Ok(()),
        }
    }
}

/// A small generator (`xorshift64*`).
struct Random(u64);

impl Random {
    fn new(seed: u64, stream: u64) -> Random {
        let mut random = Random((seed ^ stream.wrapping_mul(0x9E37_79B9_7F4A_7C15)).max(1));
        random.next();
        random
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 11) % bound
    }
}

struct Arguments {
    duration: Duration,
    clients: u64,
    seed: u64,
}

impl Arguments {
    fn parse() -> Result<Arguments, Box<dyn Error>> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let mut given = HashMap::from([
            ("--seconds".to_owned(), 60),
            ("--clients".to_owned(), 256),
            ("--seed".to_owned(), u64::from(now.subsec_nanos()) ^ now.as_secs()),
        ]);
        let mut arguments = std::env::args().skip(1);
        while let Some(name) = arguments.next() {
            let place = given.get_mut(&name).ok_or_else(|| format!("unknown argument {name}"))?;
            *place = arguments.next().ok_or_else(|| format!("{name} needs a number"))?.parse()?;
        }
        Ok(Arguments {
            duration: Duration::from_secs(given["--seconds"]),
            clients: given["--clients"],
            seed: given["--seed"],
        })
    }
}

/// The resources of a process that can be left over.
#[derive(PartialEq, Eq, Debug)]
struct Belongings {
    descriptors: usize,
    threads: usize,
    /// Mapped parts of rings.
    mapped: usize,
}

impl Belongings {
    fn now() -> Result<Belongings, Box<dyn Error>> {
        let maps = fs::read_to_string("/proc/self/maps")?;
        Ok(Belongings {
            descriptors: open_descriptors(),
            threads: fs::read_dir("/proc/self/task")?.count(),
            mapped: maps.lines().filter(|line| line.contains("io_uring")).count(),
        })
    }
}

fn resident() -> Result<u64, Box<dyn Error>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse::<u64>()? << 10)
}

/// Sets an option of a socket.
fn set<T>(socket: &impl AsRawFd, level: libc::c_int, name: libc::c_int, value: &T) -> io::Result<()> {
    let length = size_of::<T>() as libc::socklen_t;
    let value = std::ptr::from_ref(value).cast();
    // SAFETY: the value is borrowed, and as long as said; the kernel copies it.
    match unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, value, length) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Waits, and watches the other threads meanwhile.
struct Watch {
    shared: Arc<Shared>,
    echoed: u64,
    progressed: Instant,
}

impl Watch {
    fn look(&mut self) -> Result<(), String> {
        self.shared.check()?;
        let echoed = self.shared.echoed.load(Relaxed);
        if echoed != self.echoed {
            self.echoed = echoed;
            self.progressed = Instant::now();
        }
        match self.progressed.elapsed() > PATIENCE {
            true => Err(format!("no byte was echoed for {PATIENCE:?}")),
            false => Ok(()),
        }
    }

    fn sleep(&mut self, duration: Duration) -> Result<(), String> {
        let until = Instant::now() + duration;
        while Instant::now() < until {
            self.look()?;
            thread::sleep(Duration::from_millis(20).min(until.saturating_duration_since(Instant::now())));
        }
        Ok(())
    }

    fn report(&mut self, reports: &Receiver<Report>, what: &str) -> Result<Report, String> {
        let since = Instant::now();
        loop {
            match reports.recv_timeout(Duration::from_millis(20)) {
                Ok(report) => return Ok(report),
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    return Err(format!("{what}: the server is gone"));
                }
                Err(mpsc::RecvTimeoutError::Timeout) => self.look()?,
            }
            if since.elapsed() > PATIENCE {
                return Err(format!("{what}: not done after {PATIENCE:?}"));
            }
        }
    }
}

fn soak(arguments: &Arguments) -> Result<String, Box<dyn Error>> {
    let before = Belongings::now()?;
    let began = Instant::now();
    let shared = Arc::new(Shared::default());
    let mut random = Random::new(arguments.seed, 0);
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    // SAFETY: a plain call. All clients may come at once when a ring has been started again.
    if unsafe { libc::listen(listener.as_raw_fd(), 4096) } != 0 {
        return Err(io::Error::last_os_error().into());
    }
    // The accepted sockets inherit this: no answer waits until the last one is acknowledged.
    set(&listener, libc::IPPROTO_TCP, libc::TCP_NODELAY, &1)?;
    let address = listener.local_addr()?;
    let pool = BufferPool::new(512, 2048)?;
    let (orders, taken) = mpsc::channel();
    let (reporter, reports) = mpsc::channel();
    let server = Server { shared: shared.clone(), listener: Arc::new(listener), pool };
    let server = thread::spawn(move || server.serve(&taken, &reporter));
    shared.clients.store(arguments.clients, Relaxed);
    let clients: Vec<_> = (1..=arguments.clients)
        .map(|number| {
            let (shared, random) = (shared.clone(), Random::new(arguments.seed, number));
            let thread = thread::Builder::new().stack_size(128 << 10);
            thread.spawn(move || clients::come_and_go(&shared, address, random))
        })
        .collect::<Result<_, _>>()?;

    let mut watch = Watch { shared: shared.clone(), echoed: 0, progressed: Instant::now() };
    let mut warm = None;
    let mut rounds = 0;
    let mut over = false;
    while !over {
        // Every way to end has its turn, whatever the seed is.
        let ending = Ending::ALL[rounds % Ending::ALL.len()];
        orders.send(server::Order { ending, again: random.below(2) == 0, defer: random.below(4) != 0 })?;
        let what = format!("round {rounds}, to end by {ending:?}");
        let Report::Up(handle) = watch.report(&reports, &what)? else {
            return Err(format!("{what}: ended too early").into());
        };
        watch.sleep(Duration::from_millis(500 + random.below(1000)))?;
        over = began.elapsed() >= arguments.duration;
        if over {
            shared.stopping.store(true, Relaxed);
            let since = Instant::now();
            while shared.clients.load(Relaxed) > 0 {
                shared.check()?;
                if since.elapsed() > 2 * PATIENCE {
                    return Err("clients don't come to an end".into());
                }
                thread::sleep(Duration::from_millis(20));
            }
            watch.progressed = Instant::now();
        }
        shared.epoch.fetch_add(1, Relaxed);
        ending.order(&handle);
        drop(handle);
        match watch.report(&reports, &what)? {
            Report::Ended(Ok(())) => {}
            Report::Ended(Err(error)) => return Err(format!("{what}: {error}").into()),
            Report::Up(_) => return Err(format!("{what}: began twice").into()),
        }
        rounds += 1;
        if rounds == Ending::ALL.len() {
            warm = Some(resident()?);
        }
    }
    drop(orders);
    for client in clients {
        client.join().map_err(|_| "a client panicked")?;
    }
    server.join().map_err(|_| "the server's thread panicked")?;
    shared.check()?;

    let now = resident()?;
    let warm = warm.unwrap_or(now);
    // The kernel's own threads for a ring, if there were any, go away some time after the ring.
    let since = Instant::now();
    while Belongings::now()? != before {
        if since.elapsed() > PATIENCE {
            return Err(format!("left over: {before:?} before, {:?} after", Belongings::now()?).into());
        }
        thread::sleep(Duration::from_millis(50));
    }
    if now > warm + MORE_MEMORY {
        return Err(format!("{} KiB resident when warm, {} KiB at the end", warm >> 10, now >> 10).into());
    }
    Ok(format!(
        "{rounds} rounds, {} connections ({} broken by a teardown), {} MiB echoed, {} signals, \
         {} -> {} KiB resident, {} descriptors and {} threads as before",
        shared.connections.load(Relaxed),
        shared.broken.load(Relaxed),
        shared.echoed.load(Relaxed) >> 20,
        SignalStorm::signals(),
        warm >> 10,
        now >> 10,
        before.descriptors,
        before.threads,
    ))
}

fn main() -> ExitCode {
    let arguments = match Arguments::parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("soak: {error}; usage: soak [--seconds N] [--clients N] [--seed N]");
            return ExitCode::FAILURE;
        }
    };
    let hook = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if !info.payload().is::<Planned>() {
            hook(info);
        }
    }));
    println!("soak: seed {}", arguments.seed);
    match soak(&arguments) {
        Ok(summary) => {
            println!("soak: {summary}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            eprintln!("soak: FAILED with seed {}: {failure}", arguments.seed);
            // Threads that hang are not waited for.
            ExitCode::FAILURE
        }
    }
}
