//! The server under a simulated kernel, which cuts what clients send where it likes; and its parts.
//!
//! `cargo test -p rummelplatz-examples --features sim --example pixelflut`

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use rummelplatz::RingError;
use rummelplatz::sim::{self, Faults, Simulation};

use crate::canvas::Canvas;
use crate::protocol::{self, Command};
use crate::server::{Acceptor, BUFFER_SIZE, Client, Clients, Server};
use crate::signals::Signals;

const WIDTH: u32 = 40;
const HEIGHT: u32 = 30;

/// A server whose only clients have these sockets. It ends by itself when they have gone.
fn server(simulation: &Simulation, sockets: Vec<UnixStream>) -> Server {
    let raw = simulation.raw_ring(NonZeroU32::new(16).unwrap()).unwrap();
    let clients = Clients { canvas: Canvas::new(WIDTH, HEIGHT) };
    let mut server = Server::builder(Signals, Acceptor, clients).raw_ring(raw).build().unwrap();
    for socket in sockets {
        let client = Client::new(TcpStream::from(OwnedFd::from(socket)));
        server.submitter(Server::CLIENTS).submit(client, |client| client.request()).unwrap();
    }
    server
}

/// The color that the painters of these tests give to a pixel.
fn color(x: u32, y: u32) -> [u8; 3] {
    [x as u8, y as u8, (x * y) as u8]
}

/// What a client sends that paints these rows and asks for each pixel, and what it is answered.
fn questions(rows: impl Iterator<Item = u32>) -> (Vec<u8>, Vec<u8>) {
    let (mut sent, mut answers) = (b"SIZE\n".to_vec(), format!("SIZE {WIDTH} {HEIGHT}\n").into_bytes());
    for (x, y) in rows.flat_map(|y| (0..WIDTH).map(move |x| (x, y))) {
        protocol::paint(&mut sent, x, y, color(x, y));
        sent.extend_from_slice(format!("PX {x} {y}\n").as_bytes());
        protocol::paint(&mut answers, x, y, color(x, y));
    }
    (sent, answers)
}

struct Peer {
    socket: UnixStream,
    unsent: Vec<u8>,
    answers: Vec<u8>,
    is_open: bool,
}

impl Peer {
    /// Does something, and returns whether there was something to do.
    fn act(&mut self) -> bool {
        let part = self.unsent.len().min(1000);
        if part > 0
            && let Ok(sent) = self.socket.write(&self.unsent[..part])
        {
            self.unsent.drain(..sent);
            if self.unsent.is_empty() {
                self.socket.shutdown(Shutdown::Write).unwrap();
            }
            return true;
        }
        let mut bytes = [0; 300];
        match self.socket.read(&mut bytes) {
            Ok(read) => {
                self.answers.extend_from_slice(&bytes[..read]);
                self.is_open &= read > 0;
                read > 0
            }
            Err(_) => false,
        }
    }
}

#[test]
fn all_commands_are_obeyed_and_all_questions_answered_wherever_they_are_cut() {
    sim::explore(0..60, |simulation| {
        simulation.set_faults(Faults::usual());
        simulation.limit_enters(1_000_000);
        let (mut peers, mut sockets, mut expected) = (Vec::new(), Vec::new(), Vec::new());
        for first in 0..3 {
            let (socket, theirs) = UnixStream::pair().unwrap();
            socket.set_nonblocking(true).unwrap();
            let (unsent, answers) = questions((first..HEIGHT).step_by(3));
            peers.push(Peer { socket, unsent, answers: Vec::new(), is_open: true });
            sockets.push(theirs);
            expected.push(answers);
        }
        let peers = Arc::new(Mutex::new(peers));
        let act = {
            let peers = Arc::clone(&peers);
            move || peers.lock().unwrap().iter_mut().fold(false, |acts, peer| peer.act() || acts)
        };
        simulation.on_idle(act.clone());
        let mut server = server(&simulation, sockets);
        server.run().unwrap();
        while act() {}
        for (peer, expected) in peers.lock().unwrap().iter().zip(&expected) {
            assert!(peer.answers == *expected, "{} of {} bytes", peer.answers.len(), expected.len());
            assert!(!peer.is_open, "the connection of a client that has gone is closed");
        }
        assert!(server.clients.canvas.pixels().all(|(x, y, painted)| painted == color(x, y)));
    });
}

/// Lets a single client send this. Returns what it is answered, and the warnings of the server.
fn say(bytes: &[u8]) -> (Vec<u8>, usize) {
    let simulation = Simulation::new(0);
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    ours.write_all(bytes).unwrap();
    ours.shutdown(Shutdown::Write).unwrap();
    let mut server = server(&simulation, vec![theirs]);
    let result: Result<(), RingError<Server>> = server.run();
    result.unwrap();
    let mut answers = Vec::new();
    // A reset, if the server has left some of it unread.
    ours.read_to_end(&mut answers).ok();
    (answers, server.stats().warnings as usize)
}

#[test]
fn a_mistake_ends_the_connection_and_nothing_else() {
    for mistake in
        ["PX\n", "PX 1\n", "PX 1 2 3\n", "PX 1 2 gg0000\n", "px 1 2\n", "\n", "SIZE 1\n", "PX -1 2\n"]
    {
        let (answers, warnings) = say(format!("{mistake}SIZE\n").as_bytes());
        assert_eq!((answers, warnings), (Vec::new(), 1), "{mistake:?}");
    }
    let (answers, warnings) = say(&vec![b'x'; BUFFER_SIZE]);
    assert_eq!((answers, warnings), (Vec::new(), 1), "a line without end");
    assert_eq!(say(b"SIZE\nPX 1 2"), (b"SIZE 40 30\n".to_vec(), 0), "half a line at the end is nothing");
}

#[test]
fn offsets_move_and_what_is_beside_the_canvas_is_left_alone() {
    let said = b"OFFSET 30 20\nPX 9 9 0000ff\nPX 9 9\nPX 10 9 ffffff\nPX 10 9\nPX 4294967295 0 ffffff\n\
        PX 4294967295 0\nOFFSET 0 0\nPX 39 29\nPX 0 0\r\n";
    let expected = b"PX 9 9 0000ff\nPX 39 29 0000ff\nPX 0 0 000000\n";
    assert_eq!(say(said), (expected.to_vec(), 0));
}

#[test]
fn thin_colors_are_mixed_with_what_is_there() {
    let mut canvas = Canvas::new(1, 1);
    for line in ["PX 0 0 ffffff", "PX 0 0 00000080", "PX 0 0 ff000000"] {
        Command::parse(line.as_bytes()).unwrap().obey(&mut canvas, &mut (0, 0), &mut Vec::new());
    }
    assert_eq!(canvas.pixel(0, 0), Some(&mut [127; 3]));
}

#[test]
fn a_picture_is_read_as_it_was_written() {
    let directory = std::env::temp_dir();
    let path = directory.join(format!("rummelplatz-pixelflut-{}.ppm", std::process::id()));
    let mut canvas = Canvas::new(3, 2);
    // Bytes that look like spaces and comments.
    *canvas.pixel(0, 0).unwrap() = *b" \n#";
    canvas.write(&path).unwrap();
    let read = Canvas::read(&path);
    std::fs::write(&path, "P6 # a comment\n1 1 255\n123").unwrap();
    let commented = Canvas::read(&path);
    std::fs::write(&path, "P6\n2 1\n255\n12345").unwrap();
    let short = Canvas::read(&path);
    std::fs::remove_file(&path).unwrap();
    assert!(read.unwrap().pixels().eq(canvas.pixels()));
    assert!(commented.unwrap().pixels().eq([(0, 0, *b"123")]));
    assert!(short.is_err_and(|error| error.kind() == std::io::ErrorKind::InvalidData));
}
