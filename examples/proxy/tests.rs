//! The pumps under a simulated kernel: each peer gets everything that the other has sent, and after a failure it gets
//! the beginning of it.
//!
//! `cargo test -p rummelplatz-examples --features sim --example proxy`

use std::io::Read;
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use rummelplatz::sim::{self, Faults, Simulation};

use super::*;

/// How many bytes each peer sends: more than the sockets have room for.
const BYTES: usize = 50_000;

struct Peer {
    socket: UnixStream,
    sent: usize,
    /// Nothing can be sent any more: all is sent, or the connection has failed.
    has_sent: bool,
    received: Vec<u8>,
    has_received: bool,
}

impl Peer {
    /// One end of a connection with little room in it, and the other.
    fn new() -> (Peer, TcpStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        for socket in [&ours, &theirs] {
            setsockopt(socket, sockopt::SndBuf, &4096).unwrap();
        }
        theirs.set_nonblocking(true).unwrap();
        let received = Vec::new();
        let peer = Peer { socket: theirs, sent: 0, has_sent: false, received, has_received: false };
        (peer, OwnedFd::from(ours).into())
    }

    fn is_over(&self) -> bool {
        self.has_sent && self.has_received
    }

    /// Sends what it can; if it can send nothing, reads a little. Returns whether it has done something.
    fn act(&mut self, bytes: &[u8]) -> bool {
        if !self.has_sent {
            match self.socket.write(&bytes[self.sent..]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(written) if self.sent + written < bytes.len() => {
                    self.sent += written;
                    return true;
                }
                _ => {
                    self.has_sent = true;
                    self.socket.shutdown(Shutdown::Write).unwrap();
                    return true;
                }
            }
        }
        if self.has_received {
            return false;
        }
        let mut buffer = [0; 700];
        match self.socket.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
            Ok(read @ 1..) => self.received.extend_from_slice(&buffer[..read]),
            _ => self.has_received = true,
        }
        true
    }
}

/// What this peer sends: bytes that show when something is missing, doubled, out of order or from another peer.
fn pattern(peer: u32) -> Vec<u8> {
    (0..BYTES as u32 / 4)
        .flat_map(|number| (number ^ peer).wrapping_mul(2_654_435_761).to_le_bytes())
        .collect()
}

/// Runs three connections to their end. Returns what each peer has received, next to what the other one sends.
fn pump_three(simulation: &Simulation, faults: Faults) -> Vec<(Vec<u8>, Vec<u8>)> {
    simulation.set_faults(faults);
    simulation.limit_enters(1_000_000);
    let acceptor = Acceptor { upstream: ([127, 0, 0, 1], 1).into(), connect_time: Duration::ZERO };
    let raw = simulation.raw_ring(NonZeroU32::new(16).unwrap()).unwrap();
    let mut proxy = Proxy::builder(Signals, acceptor, Connector, Pumps).raw_ring(raw).build().unwrap();
    let mut peers = Vec::new();
    for _ in 0..3 {
        let ((client, ours), (upstream, ours_too)) = (Peer::new(), Peer::new());
        for pump in Pump::both_ways(ours, ours_too) {
            proxy.submitter(Proxy::PUMPS).submit(pump, Pump::request).unwrap();
        }
        peers.extend([client, upstream]);
    }
    let peers = Arc::new(Mutex::new(peers));
    let act = {
        let peers = Arc::clone(&peers);
        let sent: Vec<_> = (0..6).map(pattern).collect();
        move || {
            let mut acts = false;
            for (peer, bytes) in peers.lock().unwrap().iter_mut().zip(&sent) {
                acts |= peer.act(bytes);
            }
            acts
        }
    };
    simulation.on_idle(act.clone());
    // The ring ends by itself: when all connections are over, nothing is in flight.
    proxy.run().unwrap();
    assert_eq!(proxy.stats().in_flight, 0);
    while act() {}
    let peers = std::mem::take(&mut *peers.lock().unwrap());
    assert!(peers.iter().all(Peer::is_over), "the sockets of a connection are not closed");
    // The client gets what the upstream sends, and the other way round.
    peers.into_iter().zip(0..).map(|(peer, number)| (peer.received, pattern(number ^ 1))).collect()
}

#[test]
fn no_byte_is_lost() {
    for (faults, seeds) in [(Faults::none(), 0..20), (Faults::usual(), 0..100)] {
        sim::explore(seeds, |simulation| {
            for (received, sent) in pump_three(&simulation, faults) {
                assert!(received == sent, "{} of {BYTES} bytes", received.len());
            }
        });
    }
}

#[test]
fn a_connection_that_fails_ends_and_has_no_wrong_byte() {
    let mut parts = 0;
    sim::explore(0..100, |simulation| {
        for (received, sent) in pump_three(&simulation, Faults { reset: 0.002, ..Faults::usual() }) {
            assert!(sent.starts_with(&received), "what came is not what was sent");
            parts += u32::from(received.len() < sent.len());
        }
    });
    assert!(parts > 10, "hardly a connection was reset: {parts}");
}

#[test]
fn after_a_failure_nobody_is_told_of_an_end() {
    let ((_, ours), (mut upstream, ours_too)) = (Peer::new(), Peer::new());
    let [there, back] = Pump::both_ways(ours, ours_too);
    let kept = there.to.clone();
    assert!(back.fail(), "the first failure is news");
    // The end that this direction sees is that of its connection, not that of what the client sends.
    assert!(there.next(0).is_none());
    let told = upstream.socket.read(&mut [0]).unwrap_err();
    assert_eq!(told.kind(), io::ErrorKind::WouldBlock);
    drop(kept);
    assert_eq!(upstream.socket.read(&mut [0]).unwrap(), 0);
}
