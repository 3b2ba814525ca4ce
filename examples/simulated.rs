//! A server of length-prefixed messages, tested under a simulated kernel.
//!
//! Each message is one byte, its length, followed by that many bytes. The answer is the message in capitals. With
//! `--naive`, the server forgets that a `recv` may return less than a message. After a few seeds the test finds that,
//! and `RUMMEL_SEED=N` runs that seed again, with a log of what the ring and the kernel did.

#![forbid(unsafe_code)]

use std::io::{self, Read, Write};
use std::mem;
use std::net::Shutdown;
use std::num::NonZeroU32;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use clap::Parser;
use rummelplatz::sim::{self, Faults, Simulation};
use rummelplatz::{Completion, Request, RingOperation, Submitter, request, ring};

/// Tests a server under simulated kernels.
#[derive(Parser)]
#[command(name = "simulated", version)]
struct Arguments {
    /// How many seeds to try. `RUMMEL_SEED` in the environment runs one alone.
    #[arg(long, value_name = "NUMBER", default_value_t = 1000)]
    seeds: u64,
    /// Tests the server that takes what it receives for whole messages.
    #[arg(long)]
    naive: bool,
}

#[ring]
struct Server {
    connections: Connections,
}

#[derive(RingOperation)]
#[ring_operation(ring = Server, data = Connection, error = io::Error, on_completion)]
struct Connections {
    naive: bool,
}

struct Connection {
    socket: UnixStream,
    received: Vec<u8>,
    buffer: Box<[u8]>,
    /// What is to be sent, and how much of it was sent.
    answer: Vec<u8>,
    sent: usize,
}

impl Connection {
    fn new(socket: UnixStream) -> Connection {
        Connection { socket, received: Vec::new(), buffer: vec![0; 64].into(), answer: Vec::new(), sent: 0 }
    }

    fn request(&mut self) -> Request<'_> {
        match self.sent < self.answer.len() {
            true => request::send(&self.socket, &self.answer[self.sent..]),
            false => request::recv(&self.socket, &mut self.buffer),
        }
    }

    /// Takes the first message out of what was received, if the message is complete.
    fn next_message(&mut self, naive: bool) -> Option<Vec<u8>> {
        let (length, rest) = self.received.split_first()?;
        let length = usize::from(*length);
        // The bug: the rest of the message may not be there yet.
        let length = if naive { length.min(rest.len()) } else { length };
        let message = rest.get(..length)?.to_vec();
        self.received.drain(..=length);
        Some(message)
    }
}

impl Connections {
    fn on_completion(
        &mut self,
        completion: Completion,
        mut connection: Connection,
        mut submitter: Submitter<'_, Server, Self>,
    ) -> io::Result<()> {
        let moved = completion.result()? as usize;
        if connection.sent < connection.answer.len() {
            connection.sent += moved;
        } else if moved == 0 {
            return Ok(()); // The client has gone, and nothing else is in flight.
        } else {
            connection.received.extend_from_slice(&connection.buffer[..moved]);
        }
        if connection.sent == connection.answer.len() {
            connection.answer.clear();
            connection.sent = 0;
            while let Some(message) = connection.next_message(self.naive) {
                connection.answer.push(message.len() as u8);
                connection.answer.extend(message.to_ascii_uppercase());
            }
        }
        submitter.submit(connection, Connection::request)?;
        Ok(())
    }
}

/// What a client of the server sends and expects, in all simulations.
const QUESTION: &[u8] = b"\x05hello\x00\x0dlive from sim";
const ANSWER: &[u8] = b"\x05HELLO\x00\x0dLIVE FROM SIM";

/// Runs the server under a simulated kernel, with a client that writes a little whenever nothing else happens.
fn test(simulation: &Simulation, naive: bool) -> io::Result<()> {
    simulation.set_faults(Faults::usual());
    simulation.limit_enters(10_000);
    let (ours, mut theirs) = UnixStream::pair()?;
    let client = theirs.try_clone()?;
    let (mut parts, mut is_open) = (QUESTION.chunks(7), true);
    simulation.on_idle(move || match parts.next() {
        Some(part) => theirs.write_all(part).is_ok(),
        // The client has no more to write: this tells the server so, once.
        None => mem::take(&mut is_open) && theirs.shutdown(Shutdown::Write).is_ok(),
    });
    let raw = simulation.raw_ring(NonZeroU32::MIN.saturating_add(7))?;
    let mut server = Server::new(raw, None, Connections { naive });
    let connection = Connection::new(ours);
    server.submitter(Server::CONNECTIONS).submit(connection, Connection::request)?;
    server.run()?;
    let mut answer = Vec::new();
    (&client).read_to_end(&mut answer)?;
    assert_eq!(answer.escape_ascii().to_string(), ANSWER.escape_ascii().to_string());
    assert_eq!(server.stats().in_flight, 0, "nothing is left over");
    Ok(())
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    sim::explore(0..arguments.seeds, |simulation| {
        if let Err(error) = test(&simulation, arguments.naive) {
            panic!("{error}");
        }
    });
    println!("the server is right under all kernels that were tried");
    ExitCode::SUCCESS
}
