//! The server under a simulated kernel: clients that send everything before they read get all their bytes back.
//!
//! `cargo test -p rummelplatz-examples --features sim --example echo`

use std::io::Read;
use std::net::Shutdown;
use std::num::NonZeroU32;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use rummelplatz::RingHandle;
use rummelplatz::sim::{self, Faults, Simulation};

use super::*;

/// How many bytes each client sends: more than the sockets have room for.
const BYTES: usize = 10_000;

struct Client {
    socket: UnixStream,
    sent: usize,
    received: Vec<u8>,
    is_over: bool,
}

impl Client {
    /// One end of a connection with little room in it, and the other.
    fn new() -> (Client, OwnedFd) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        for socket in [&ours, &theirs] {
            setsockopt(socket, sockopt::SndBuf, &4096).unwrap();
        }
        theirs.set_nonblocking(true).unwrap();
        (Client { socket: theirs, sent: 0, received: Vec::new(), is_over: false }, ours.into())
    }

    /// Sends what it can; if it can send nothing, reads a little. Returns whether it has done something.
    fn act(&mut self, bytes: &[u8]) -> bool {
        let rest = &bytes[self.sent..];
        if !rest.is_empty()
            && let Ok(written) = self.socket.write(rest)
        {
            self.sent += written;
            if written == rest.len() {
                self.socket.shutdown(Shutdown::Write).unwrap();
            }
            return true;
        }
        let mut buffer = [0; 700];
        let Ok(read) = self.socket.read(&mut buffer) else { return false };
        self.received.extend_from_slice(&buffer[..read]);
        self.is_over = read == 0;
        true
    }
}

/// Bytes that show when something is missing, doubled or out of order.
fn pattern() -> Vec<u8> {
    (0..BYTES as u32 / 4).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}

/// What the clients do when the server has nothing to do. When all clients are done, the server is stopped.
fn act(clients: &mut [Client], bytes: &[u8], server: &RingHandle<EchoServer>) -> bool {
    let mut acts = false;
    for client in clients.iter_mut().filter(|client| !client.is_over) {
        acts |= client.act(bytes);
    }
    if clients.iter().all(|client| client.is_over) {
        server.stop();
    }
    acts
}

fn serve_three(simulation: &Simulation, faults: Faults) {
    simulation.set_faults(faults);
    simulation.limit_enters(1_000_000);
    let arguments = Arguments::parse_from(["echo", "127.0.0.1:0", "--buffers=8", "--buffer-size=64"]);
    let acceptor = Acceptor::bind(&arguments).unwrap();
    let pool = acceptor.pool.clone();
    let raw = simulation.raw_ring(NonZeroU32::new(16).unwrap()).unwrap();
    let warnings = Arc::new(Mutex::new(Vec::new()));
    let mut server = EchoServer::builder(Signals, acceptor, Receivers, Senders)
        .raw_ring(raw)
        .on_warn({
            let warnings = warnings.clone();
            move |warning| warnings.lock().unwrap().push(warning.to_string())
        })
        .build()
        .unwrap();
    let mut clients = Vec::new();
    for _ in 0..3 {
        let (client, socket) = Client::new();
        let connection = Connection::new(socket, pool.clone(), Duration::MAX);
        connection.receive(server.submitter(EchoServer::RECEIVERS)).unwrap();
        clients.push(client);
    }
    let (handle, bytes) = (server.handle(), pattern());
    let clients = Arc::new(Mutex::new(clients));
    simulation.on_idle({
        let (clients, bytes) = (clients.clone(), bytes.clone());
        move || act(&mut clients.lock().unwrap(), &bytes, &handle)
    });
    server.run().unwrap();
    for client in clients.lock().unwrap().iter() {
        let received = client.received.len();
        assert!(client.received == bytes, "{received} of {BYTES} bytes; {:?}", warnings.lock().unwrap());
    }
    assert!(simulation.figures().cancels > 10, "hardly a stream was stopped");
    assert_eq!(server.stats().in_flight, 0);
    assert_eq!(pool.available(), pool.capacity());
}

#[test]
fn no_byte_is_lost() {
    sim::explore(0..20, |simulation| serve_three(&simulation, Faults::none()));
    sim::explore(0..300, |simulation| serve_three(&simulation, Faults::usual()));
}

#[test]
fn no_byte_is_lost_though_the_pool_seems_to_be_empty() {
    let faults = Faults { no_buffers: 0.7, ..Faults::none() };
    sim::explore(0..100, |simulation| serve_three(&simulation, faults));
}
