//! The contestant `tokio`: a runtime on this thread, with a task for each connection.

use std::process::ExitCode;
use std::sync::Arc;

use kit::Error;
use kit::echo::{self, Server, Shape, echoed, spare};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::Notify;

struct Tokio;

impl Server for Tokio {
    const NAME: &'static str = "tokio";
    const SHAPES: &'static [&'static str] = &["oneshot"];

    fn run(listener: std::net::TcpListener, shape: Shape) -> Result<(), Error> {
        listener.set_nonblocking(true)?;
        Builder::new_current_thread().enable_io().build()?.block_on(async {
            let listener = TcpListener::from_std(listener)?;
            let over = Arc::new(Notify::new());
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        let (socket, _) = accepted?;
                        tokio::spawn(serve(socket, spare::take(shape.buffer), over.clone()));
                    }
                    () = over.notified() => return Ok(()),
                }
            }
        })
    }
}

async fn serve(mut socket: TcpStream, mut buffer: Vec<u8>, over: Arc<Notify>) {
    while let Ok(length @ 1..) = socket.read(&mut buffer).await {
        if socket.write_all(&buffer[..length]).await.is_err() {
            break;
        }
        if echoed(length) {
            over.notify_one();
        }
    }
    spare::keep(buffer);
}

fn main() -> ExitCode {
    kit::contest(Tokio::NAME, &[("echo", echo::alone::<Tokio>), ("serve", echo::loaded::<Tokio>)])
}
