//! The contestant `monoio`: a task for each read, or for each connection.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::process::ExitCode;
use std::rc::Rc;

use io_uring_06::IoUring;
use kit::echo::{self, Over, Server, Shape, echoed, spare};
use kit::file::{self, BLOCK, Block, Offsets};
use kit::{Args, Error, Outcome, Pace, skip};
use monoio::buf::{IoBuf, IoBufMut};
use monoio::fs::File;
use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use monoio::net::{TcpListener, TcpStream};
use monoio::{IoUringDriver, RuntimeBuilder};

fn start<F: Future>(entries: usize, future: F) -> io::Result<F::Output> {
    let mut uring = IoUring::builder();
    uring.setup_coop_taskrun().setup_single_issuer().setup_defer_taskrun();
    let builder = RuntimeBuilder::<IoUringDriver>::new().with_entries(entries as u32).uring_builder(uring);
    Ok(builder.build()?.block_on(future))
}

/// An aligned block.
struct Aligned(Box<Block>);

// SAFETY: the box keeps the block, all of which is initialised, at its place.
unsafe impl IoBufMut for Aligned {
    fn write_ptr(&mut self) -> *mut u8 {
        self.0.0.as_mut_ptr()
    }

    fn bytes_total(&mut self) -> usize {
        BLOCK
    }

    unsafe fn set_init(&mut self, _: usize) {}
}

/// What the reads share.
struct Reads {
    file: File,
    offsets: RefCell<Offsets>,
    pace: Pace,
}

impl Reads {
    async fn read(self: Rc<Self>) -> io::Result<u64> {
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
}

fn read(args: &Args) -> Outcome {
    let depth = args.number("depth", 32)?;
    if !matches!(args.text("mode", "plain"), "plain" | "direct") {
        return Err(skip("registers neither files nor buffers"));
    }
    let pace = Pace::from_args(args, depth, 250_000)?;
    let file = file::open(args)?;
    start(4 * depth, async {
        let reads = Rc::new(Reads { file: File::from_std(file)?, offsets: RefCell::default(), pace });
        let tasks: Vec<_> = (0..depth).map(|_| monoio::spawn(reads.clone().read())).collect();
        let mut total = 0;
        for task in tasks {
            total += task.await?;
        }
        reads.pace.finish(total)
    })?
}

struct Monoio;

impl Server for Monoio {
    const NAME: &'static str = "monoio";
    const SHAPES: &'static [&'static str] = &["oneshot"];

    fn run(listener: std::net::TcpListener, shape: Shape) -> Result<(), Error> {
        start((4 * shape.conns).next_power_of_two().clamp(256, 4096), async {
            let listener = TcpListener::from_std(listener)?;
            let over = Rc::new(Over::default());
            let accepting = async {
                loop {
                    let (socket, _) = listener.accept().await?;
                    monoio::spawn(serve(socket, spare::take(shape.buffer), over.clone()));
                }
            };
            let told = async {
                over.wait().await;
                Ok(())
            };
            futures_lite::future::or(told, accepting).await
        })?
    }
}

async fn serve(mut socket: TcpStream, mut buffer: Vec<u8>, over: Rc<Over>) {
    let buffer = loop {
        let (length, read) = socket.read(buffer).await;
        let Ok(length @ 1..) = length else { break read };
        let (sent, slice) = socket.write_all(read.slice(..length)).await;
        buffer = slice.into_inner();
        if sent.is_err() {
            break buffer;
        }
        if echoed(length) {
            over.tell();
        }
    };
    spare::keep(buffer);
}

fn main() -> ExitCode {
    kit::contest(
        Monoio::NAME,
        &[("read", read), ("echo", echo::alone::<Monoio>), ("serve", echo::loaded::<Monoio>)],
    )
}
