//! Echoes over socket pairs: one operation receives, and hands over to another, which sends and hands back. Both ends
//! of a pair echo, so a message goes back and forth.

use std::convert::Infallible;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use kit::{Args, Outcome, Report, Window};
use rummelplatz::{Completion, ControlFlow, Request, RingOperation, Submitter, request, ring};

/// How long a message is.
const MESSAGE: usize = 64;

macro_rules! pairs {
    ($work:ident, $Data:ty, $Buffer:ty, $buffer:expr, $wrap:expr) => {
        pub(crate) fn $work(args: &Args) -> Outcome {
            struct Connection {
                socket: OwnedFd,
                buffer: $Buffer,
                received: usize,
            }

            impl Connection {
                fn receive(&mut self) -> Request<'_> {
                    request::recv(&self.socket, &mut self.buffer)
                }

                fn send(&mut self) -> Request<'_> {
                    request::send(&self.socket, &self.buffer[..self.received])
                }
            }

            #[derive(RingOperation)]
            #[ring_operation(ring = Bench, data = $Data, error = kit::Error, on_completion)]
            struct Receivers;

            #[derive(RingOperation)]
            #[ring_operation(ring = Bench, data = $Data, error = kit::Error, on_completion)]
            struct Senders {
                left: u64,
            }

            #[ring]
            struct Bench {
                receivers: Receivers,
                senders: Senders,
            }

            impl Receivers {
                fn on_completion(
                    &mut self,
                    completion: Completion,
                    mut connection: $Data,
                    mut submitter: Submitter<'_, Bench, Self>,
                ) -> Result<(), kit::Error> {
                    connection.received = completion.result()? as usize;
                    if connection.received > 0 {
                        submitter.to(Bench::SENDERS).submit(connection, |it| it.send())?;
                    }
                    Ok(())
                }
            }

            impl Senders {
                fn on_completion(
                    &mut self,
                    completion: Completion,
                    connection: $Data,
                    mut submitter: Submitter<'_, Bench, Self>,
                ) -> Result<ControlFlow<Infallible, kit::Error>, kit::Error> {
                    completion.result()?;
                    if self.left == 0 {
                        return Ok(ControlFlow::Exit);
                    }
                    self.left -= 1;
                    submitter.to(Bench::RECEIVERS).submit(connection, |it| it.receive())?;
                    Ok(ControlFlow::Continue)
                }
            }

            let (n, depth, entries) = super::sizes(args)?;
            let mut bench = Bench::builder(Receivers, Senders { left: n }).entries(entries).build()?;
            for _ in 0..depth / 2 {
                let (ours, theirs) = UnixStream::pair()?;
                let connection = |socket: UnixStream| {
                    $wrap(Connection { socket: socket.into(), buffer: $buffer, received: MESSAGE })
                };
                bench.submitter(Bench::SENDERS).submit(connection(ours), |it| it.send())?;
                bench.submitter(Bench::RECEIVERS).submit(connection(theirs), |it| it.receive())?;
            }
            let window = Window::open();
            bench.run()?;
            Ok(Report { check: n - bench.senders.left, ..window.close(n, 0) })
        }
    };
}

pairs!(small, Connection, Box<[u8]>, vec![0; 1024].into(), std::convert::identity);
pairs!(half, Connection, [u8; 512], [0; 512], std::convert::identity);
pairs!(large, Connection, [u8; 1024], [0; 1024], std::convert::identity);
pairs!(boxed, Box<Connection>, [u8; 1024], [0; 1024], Box::new);
