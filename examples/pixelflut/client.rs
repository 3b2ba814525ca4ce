//! The client: connections that send their share of a picture, as fast as the server takes it.
//!
//! Two of the operations are in the background: they read signals and tell how it goes, as long as somebody paints. So
//! the ring ends by itself when the picture is drawn.

use std::cell::Cell;
use std::error::Error;
use std::io::{self, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::rc::Rc;
use std::time::Duration;

use nix::sys::socket::{self, AddressFamily, SockFlag, SockType};
use rummelplatz::{Completion, Request, RingOperation, Submitter, request, ring};

use crate::canvas::Canvas;
use crate::protocol;
use crate::signals::{SignalRead, Signals};
use crate::{DrawArguments, report};

/// How long a connect may take.
const PATIENCE: Duration = Duration::from_secs(10);

#[ring(entries = 1024)]
pub(crate) struct Drawing {
    signals: Signals,
    reporter: Reporter,
    painters: Painters,
}

// ---- painting -------------------------------------------------------------------------------------

/// Sends the shares of a picture.
#[derive(RingOperation)]
#[ring_operation(ring = Drawing, data = Painter, error = io::Error, on_completion)]
pub(crate) struct Painters {
    /// How many bytes of commands were sent.
    sent: Rc<Cell<u64>>,
    /// How many connections are not done.
    active: u32,
}

/// A connection, and its share of the picture.
pub(crate) struct Painter {
    socket: TcpStream,
    server: SocketAddr,
    step: Step,
    commands: Vec<u8>,
    sent: usize,
    /// How often all of it is still to be sent, including this time.
    times: u32,
    answer: [u8; 1],
}

#[derive(Clone, Copy, PartialEq)]
enum Step {
    Connect,
    Send,
    /// All is sent. The server closes the connection when it has read it.
    Wait,
}

impl Painter {
    pub(crate) fn new(server: SocketAddr, commands: Vec<u8>, times: u32) -> io::Result<Painter> {
        let family = if server.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let socket = socket::socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?.into();
        Ok(Painter { socket, server, step: Step::Connect, commands, sent: 0, times, answer: [0] })
    }

    #[inline]
    fn request(&mut self) -> Request<'_> {
        match self.step {
            Step::Connect => request::connect(&self.socket, self.server).deadline(PATIENCE),
            Step::Send => request::send(&self.socket, &self.commands[self.sent..]),
            Step::Wait => request::recv(&self.socket, &mut self.answer),
        }
    }
}

impl Painters {
    fn on_completion(
        &mut self,
        completion: Completion,
        mut painter: Painter,
        mut submitter: Submitter<'_, Drawing, Self>,
    ) -> io::Result<()> {
        let moved = completion.in_time()? as usize;
        match painter.step {
            Step::Connect => painter.step = Step::Send,
            Step::Send => {
                self.sent.update(|sent| sent + moved as u64);
                painter.sent += moved;
                if painter.sent == painter.commands.len() {
                    painter.sent = 0;
                    painter.times -= 1;
                }
                if painter.times == 0 {
                    painter.socket.shutdown(Shutdown::Write)?;
                    painter.step = Step::Wait;
                }
            }
            Step::Wait if moved > 0 => {} // Nothing was asked, so nothing is said.
            Step::Wait => {
                self.active -= 1;
                return Ok(());
            }
        }
        submitter.submit(painter, Painter::request)?;
        Ok(())
    }
}

// ---- telling how it goes --------------------------------------------------------------------------

/// Tells each second how much was sent.
#[derive(RingOperation)]
#[ring_operation(ring = Drawing, error = io::Error, on_completion)]
pub(crate) struct Reporter {
    sent: Rc<Cell<u64>>,
    told: u64,
}

impl Reporter {
    fn on_completion(
        &mut self,
        completion: Completion,
        (): (),
        _: Submitter<'_, Drawing, Self>,
    ) -> io::Result<Option<()>> {
        completion.result()?;
        let sent = self.sent.get();
        report(format_args!("{} KiB/s", (sent - self.told) / 1024));
        self.told = sent;
        Ok(Some(())) // The stream goes on.
    }
}

// ---- the program ----------------------------------------------------------------------------------

/// The commands that draw a picture, in so many shares.
fn shares(picture: &Canvas, (x, y): (u32, u32), count: u32) -> Vec<Vec<u8>> {
    let mut shares = vec![Vec::new(); count as usize];
    for (index, (column, row, color)) in picture.pixels().enumerate() {
        protocol::paint(
            &mut shares[index % count as usize],
            x.saturating_add(column),
            y.saturating_add(row),
            color,
        );
    }
    shares.retain(|share| !share.is_empty());
    shares
}

pub(crate) fn draw(arguments: &DrawArguments) -> Result<(), Box<dyn Error>> {
    let DrawArguments { server, connections, times, verbose, .. } = *arguments;
    let signal = SignalRead::new()?;
    let picture = Canvas::read(&arguments.image)
        .map_err(|error| format!("can't read {}: {error}", arguments.image.display()))?;
    let shares = shares(&picture, (arguments.x, arguments.y), connections);
    let sent = Rc::new(Cell::new(0));
    let painters = Painters { sent: sent.clone(), active: shares.len() as u32 };
    let mut drawing = Drawing::builder(Signals, Reporter { sent, told: 0 }, painters).build()?;
    for share in shares {
        let painter = Painter::new(server, share, times)?;
        drawing.submitter(Drawing::PAINTERS).submit(painter, Painter::request)?;
    }
    drawing.submitter(Drawing::SIGNALS).submit_in_background(signal, SignalRead::request)?;
    if verbose {
        let mut reporter = drawing.submitter(Drawing::REPORTER);
        reporter.stream_in_background((), |()| request::timeout_multi(Duration::from_secs(1)))?;
    }
    drawing.run()?;
    if drawing.painters.active > 0 {
        return Err("interrupted".into());
    }
    let (width, height) = picture.size();
    let pixels = u64::from(width) * u64::from(height) * u64::from(times);
    writeln!(io::stdout(), "{pixels} pixels are drawn")?;
    Ok(())
}
