//! The contestant `glommio`: a task for each read, or for each connection, on one executor.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::os::fd::{FromRawFd, IntoRawFd};
use std::process::ExitCode;
use std::rc::Rc;

use futures_lite::{AsyncReadExt, AsyncWriteExt};
use glommio::io::{BufferedFile, DmaFile, ReadResult};
use glommio::net::{TcpListener, TcpStream};
use glommio::{LocalExecutorBuilder, Placement, spawn_local};
use kit::echo::{self, Over, Server, Shape, echoed, spare};
use kit::file::{self, BLOCK, Offsets};
use kit::{Args, Error, Outcome, Pace, skip};

/// On this thread, which is pinned, with as many entries as it has by default, or more.
fn start<F: Future>(entries: usize, future: F) -> Result<F::Output, Error> {
    let executor = LocalExecutorBuilder::new(Placement::Unbound).ring_depth(entries.max(128)).make();
    Ok(executor.map_err(|error| error.to_string())?.run(future))
}

/// Through the page cache, or with `O_DIRECT`.
enum File {
    Buffered(BufferedFile),
    Dma(DmaFile),
}

impl File {
    async fn read(&self, offset: u64) -> glommio::Result<ReadResult, ()> {
        match self {
            File::Buffered(file) => file.read_at(offset, BLOCK).await,
            File::Dma(file) => file.read_at_aligned(offset, BLOCK).await,
        }
    }
}

/// What the reads share.
struct Reads {
    file: File,
    offsets: RefCell<Offsets>,
    pace: Pace,
}

impl Reads {
    async fn read(self: Rc<Self>) -> io::Result<u64> {
        let mut counter = 0;
        loop {
            let offset = self.offsets.borrow_mut().draw();
            let read = self.file.read(offset).await?;
            if read.len() != BLOCK || !file::is_from(&read, offset) {
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
    let direct = match args.text("mode", "plain") {
        "plain" => false,
        "direct" => true,
        _ => return Err(skip("registers buffers for O_DIRECT only, by itself")),
    };
    let pace = Pace::from_args(args, depth, 250_000)?;
    // This brings the file into the page cache, or finds out that there is no O_DIRECT.
    drop(file::open(args)?);
    let path = args.text("file", "");
    start(4 * depth, async {
        let file = match direct {
            true => DmaFile::open(path).await.map(File::Dma),
            false => BufferedFile::open(path).await.map(File::Buffered),
        };
        let file = file.map_err(|error| error.to_string())?;
        let reads = Rc::new(Reads { file, offsets: RefCell::default(), pace });
        let tasks: Vec<_> = (0..depth).map(|_| spawn_local(reads.clone().read())).collect();
        let mut total = 0;
        for task in tasks {
            total += task.await?;
        }
        let outcome = reads.pace.finish(total);
        match Rc::into_inner(reads).ok_or("a task is left over")?.file {
            File::Buffered(file) => file.close().await,
            File::Dma(file) => file.close().await,
        }
        .map_err(|error| error.to_string())?;
        outcome
    })?
}

struct Glommio;

impl Server for Glommio {
    const NAME: &'static str = "glommio";
    const SHAPES: &'static [&'static str] = &["oneshot"];

    fn run(listener: std::net::TcpListener, shape: Shape) -> Result<(), Error> {
        start(shape.entries(), async {
            // SAFETY: the descriptor is handed over.
            let listener = unsafe { TcpListener::from_raw_fd(listener.into_raw_fd()) };
            let over = Rc::new(Over::default());
            let accepting = async {
                loop {
                    let socket = listener.accept().await.map_err(|error| error.to_string())?;
                    spawn_local(serve(socket, spare::take(shape.buffer), over.clone())).detach();
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
    while let Ok(length @ 1..) = socket.read(&mut buffer).await {
        if socket.write_all(&buffer[..length]).await.is_err() {
            break;
        }
        if echoed(length) {
            over.tell();
        }
    }
    spare::keep(buffer);
}

fn main() -> ExitCode {
    kit::contest(
        Glommio::NAME,
        &[("read", read), ("echo", echo::alone::<Glommio>), ("serve", echo::loaded::<Glommio>)],
    )
}
