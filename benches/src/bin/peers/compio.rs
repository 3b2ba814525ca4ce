//! The contestant `compio`: a task for each request, or for each connection.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::mem::MaybeUninit;
use std::num::NonZero;
use std::pin::pin;
use std::process::ExitCode;
use std::rc::Rc;

use compio::buf::{BufResult, IntoInner, IoBuf, IoBufMut, SetLen};
use compio::driver::{OpCode, OpEntry, ProactorBuilder};
use compio::fs::{File, OpenOptions};
use compio::io::{AsyncRead, AsyncReadAt, AsyncReadMulti, AsyncWriteExt};
use compio::net::{TcpListener, TcpStream};
use compio::runtime::{JoinHandle, RuntimeBuilder};
use futures_lite::StreamExt;
use kit::echo::{self, Over, Server, Shape, echoed, spare};
use kit::file::{self, BLOCK, Block, Offsets};
use kit::{Args, Error, Outcome, Pace, skip};

fn builder(entries: usize) -> ProactorBuilder {
    let mut proactor = ProactorBuilder::new();
    proactor.capacity(entries as u32).coop_taskrun(true).single_issuer(true).defer_taskrun(true);
    proactor
}

fn start<F: Future>(proactor: ProactorBuilder, future: F) -> io::Result<F::Output> {
    Ok(RuntimeBuilder::new().with_proactor(proactor).build()?.block_on(future))
}

/// compio has no NOP, but accepts operations of one's own.
struct Nop;

// SAFETY: the entry points to nothing.
unsafe impl OpCode for Nop {
    type Control = ();

    fn create_entry(&mut self, (): &mut ()) -> OpEntry {
        io_uring::opcode::Nop::new().build().into()
    }
}

fn nop(args: &Args) -> Outcome {
    let depth = args.number("depth", 128)?;
    let pace = Rc::new(Pace::from_args(args, depth, 1_500_000)?);
    start(builder(4 * depth), async {
        let nops = async |pace: Rc<Pace>| {
            let mut counter = 0;
            loop {
                compio::runtime::submit(Nop).await.0?;
                counter += 1;
                if !pace.again() {
                    return io::Result::Ok(counter);
                }
            }
        };
        let tasks = (0..depth).map(|_| compio::runtime::spawn(nops(pace.clone()))).collect();
        pace.finish(total(tasks).await?)
    })?
}

async fn total(tasks: Vec<JoinHandle<io::Result<u64>>>) -> Result<u64, Error> {
    let mut total = 0;
    for task in tasks {
        total += task.await.map_err(|_| "a task has panicked")??;
    }
    Ok(total)
}

/// An aligned block.
struct Aligned(Box<Block>);

impl IoBuf for Aligned {
    fn as_init(&self) -> &[u8] {
        &self.0.0
    }
}

impl SetLen for Aligned {
    unsafe fn set_len(&mut self, _: usize) {}
}

impl IoBufMut for Aligned {
    fn as_uninit(&mut self) -> &mut [MaybeUninit<u8>] {
        self.0.0.as_uninit()
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
        let mut buffer = Aligned(Box::default());
        let mut counter = 0;
        loop {
            let offset = self.offsets.borrow_mut().draw();
            let BufResult(length, read) = self.file.read_at(buffer, offset).await;
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
        return Err(skip("has no reads into registered buffers"));
    }
    let pace = Pace::from_args(args, depth, 250_000)?;
    // This brings the file into the page cache, or finds out that there is no O_DIRECT.
    drop(file::open(args)?);
    let (path, direct) = (args.text("file", ""), args.text("mode", "plain") == "direct");
    start(builder(4 * depth), async {
        let flags = if direct { libc::O_DIRECT } else { 0 };
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path).await?;
        let reads = Rc::new(Reads { file, offsets: RefCell::default(), pace });
        let tasks = (0..depth).map(|_| compio::runtime::spawn(reads.clone().read())).collect();
        reads.pace.finish(total(tasks).await?)
    })?
}

struct Compio;

impl Server for Compio {
    const NAME: &'static str = "compio";
    const SHAPES: &'static [&'static str] = &["multishot", "oneshot"];

    fn run(listener: std::net::TcpListener, shape: Shape) -> Result<(), Error> {
        let mut proactor = builder(shape.entries());
        if let Some(buffers) = NonZero::new(shape.buffers as u16) {
            proactor.buffer_pool_size(buffers).buffer_pool_buffer_len(shape.buffer);
        }
        start(proactor, async {
            let listener = TcpListener::from_std(listener)?;
            let over = Rc::new(Over::default());
            let accepting = async {
                if !shape.multishot {
                    loop {
                        let (socket, _) = listener.accept().await?;
                        compio::runtime::spawn(serve(socket, spare::take(shape.buffer), over.clone()))
                            .detach();
                    }
                }
                let mut incoming = listener.incoming();
                while let Some(socket) = incoming.next().await {
                    compio::runtime::spawn(serve_multishot(socket?, over.clone())).detach();
                }
                Err("nothing is accepted any more".into())
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
        let BufResult(length, read) = socket.read(buffer).await;
        let Ok(length @ 1..) = length else { break read };
        let BufResult(sent, slice) = socket.write_all(read.slice(..length)).await;
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

async fn serve_multishot(socket: TcpStream, over: Rc<Over>) {
    let (mut reader, mut writer) = socket.into_split();
    let mut stream = pin!(reader.read_multi(0));
    while let Some(Ok(buffer)) = stream.next().await {
        let length = buffer.buf_len();
        if length == 0 || writer.write_all(buffer).await.0.is_err() {
            return;
        }
        if echoed(length) {
            over.tell();
        }
    }
}

fn main() -> ExitCode {
    kit::contest(
        Compio::NAME,
        &[("nop", nop), ("read", read), ("echo", echo::alone::<Compio>), ("serve", echo::loaded::<Compio>)],
    )
}
