//! The contestant `tokio-uring`: a task for each request, or for each connection.

use std::future::Future;
use std::io;
use std::process::ExitCode;
use std::rc::Rc;

use kit::echo::{self, Server, Shape, echoed, spare};
use kit::file::{self, BLOCK, Block, Offsets};
use kit::{Args, Error, Outcome, Pace, skip};
use tokio::sync::Notify;
use tokio_uring::buf::fixed::{FixedBuf, FixedBufRegistry};
use tokio_uring::buf::{BoundedBuf, IoBuf, IoBufMut};
use tokio_uring::fs::File;
use tokio_uring::net::{TcpListener, TcpStream};

/// Without `DEFER_TASKRUN`: this runtime sleeps in epoll, which such a ring does not wake.
fn start<F: Future>(entries: usize, future: F) -> F::Output {
    let mut uring = tokio_uring::uring_builder();
    uring.setup_coop_taskrun().setup_single_issuer();
    tokio_uring::builder().entries(entries as u32).uring_builder(&uring).start(future)
}

fn nop(args: &Args) -> Outcome {
    let depth = args.number("depth", 128)?;
    let pace = Rc::new(Pace::from_args(args, depth, 1_500_000)?);
    let total = start(4 * depth, async {
        let nops = async |pace: Rc<Pace>| {
            let mut counter = 0;
            loop {
                tokio_uring::no_op().await?;
                counter += 1;
                if !pace.again() {
                    return io::Result::Ok(counter);
                }
            }
        };
        let tasks = (0..depth).map(|_| tokio_uring::spawn(nops(pace.clone()))).collect::<Vec<_>>();
        total(tasks).await
    })?;
    pace.finish(total)
}

async fn total(tasks: Vec<tokio::task::JoinHandle<io::Result<u64>>>) -> Result<u64, Error> {
    let mut total = 0;
    for task in tasks {
        total += task.await??;
    }
    Ok(total)
}

/// An aligned block.
struct Aligned(Box<Block>);

// SAFETY: the box keeps the block, all of which is initialised, at its place.
unsafe impl IoBuf for Aligned {
    fn stable_ptr(&self) -> *const u8 {
        self.0.0.as_ptr()
    }

    fn bytes_init(&self) -> usize {
        BLOCK
    }

    fn bytes_total(&self) -> usize {
        BLOCK
    }
}

// SAFETY: as above.
unsafe impl IoBufMut for Aligned {
    fn stable_mut_ptr(&mut self) -> *mut u8 {
        self.0.0.as_mut_ptr()
    }

    unsafe fn set_init(&mut self, _: usize) {}
}

/// What the reads share.
struct Reads {
    file: File,
    offsets: std::cell::RefCell<Offsets>,
    pace: Pace,
}

impl Reads {
    async fn plain(self: Rc<Self>) -> io::Result<u64> {
        let mut buffer = Aligned(Box::default());
        let mut counter = 0;
        loop {
            let offset = self.offsets.borrow_mut().draw();
            let (length, read) = self.file.read_at(buffer, offset).await;
            buffer = read;
            if length? != BLOCK || !buffer.0.is_from(offset) {
                return Err(io::Error::other(format!("wrong bytes at {offset}")));
            }
            counter += 1;
            if !self.pace.again() {
                return Ok(counter);
            }
        }
    }

    async fn fixed(self: Rc<Self>, mut buffer: FixedBuf) -> io::Result<u64> {
        let mut counter = 0;
        loop {
            let offset = self.offsets.borrow_mut().draw();
            let (length, read) = self.file.read_fixed_at(buffer.slice(..BLOCK), offset).await;
            buffer = read.into_inner();
            if length? != BLOCK || !file::is_from(&buffer, offset) {
                return Err(io::Error::other(format!("wrong bytes at {offset}")));
            }
            counter += 1;
            if !self.pace.again() {
                return Ok(counter);
            }
        }
    }
}

fn read(args: &Args) -> Outcome {
    let depth = args.number("depth", 32)?;
    let fixed = match args.text("mode", "plain") {
        "plain" | "direct" => false,
        "fixed" => true,
        other => return Err(skip(format!("no mode `{other}`"))),
    };
    let pace = Pace::from_args(args, depth, 250_000)?;
    let file = file::open(args)?;
    let (reads, total) = start(4 * depth, async {
        let offsets = std::cell::RefCell::default();
        let reads = Rc::new(Reads { file: File::from_std(file), offsets, pace });
        let registry = FixedBufRegistry::new(std::iter::repeat_with(|| vec![0; BLOCK]).take(depth));
        if fixed {
            registry.register()?;
        }
        let mut tasks = Vec::new();
        for index in 0..depth {
            let reads = reads.clone();
            tasks.push(match fixed {
                true => {
                    let buffer = registry.check_out(index).ok_or("a buffer is missing")?;
                    tokio_uring::spawn(reads.fixed(buffer))
                }
                false => tokio_uring::spawn(reads.plain()),
            });
        }
        Ok::<_, Error>((reads, total(tasks).await?))
    })?;
    reads.pace.finish(total)
}

struct TokioUring;

impl Server for TokioUring {
    const NAME: &'static str = "tokio-uring";
    const SHAPES: &'static [&'static str] = &["oneshot"];

    fn run(listener: std::net::TcpListener, shape: Shape) -> Result<(), Error> {
        start(shape.entries(), async {
            let listener = TcpListener::from_std(listener);
            let over = Rc::new(Notify::new());
            let accepting = async {
                loop {
                    let (socket, _) = listener.accept().await?;
                    tokio_uring::spawn(serve(socket, spare::take(shape.buffer), over.clone()));
                }
            };
            tokio::select! {
                error = accepting => error,
                () = over.notified() => Ok(()),
            }
        })
    }
}

async fn serve(socket: TcpStream, mut buffer: Vec<u8>, over: Rc<Notify>) {
    let buffer = loop {
        let (length, read) = socket.read(buffer).await;
        let Ok(length @ 1..) = length else { break read };
        let (sent, slice) = socket.write_all(read.slice(..length)).await;
        buffer = slice.into_inner();
        if sent.is_err() {
            break buffer;
        }
        if echoed(length) {
            over.notify_one();
        }
    };
    spare::keep(buffer);
}

fn main() -> ExitCode {
    kit::contest(
        TokioUring::NAME,
        &[
            ("nop", nop),
            ("read", read),
            ("echo", echo::alone::<TokioUring>),
            ("serve", echo::loaded::<TokioUring>),
        ],
    )
}
