//! The echo server around which the library was designed: a state machine in the data, two operations, and not a line
//! of `unsafe`.

#![forbid(unsafe_code)]

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rummelplatz::{
    Completion, CompletionResult, ControlFlow, Request, RingOperation, Submitter, request, ring,
};
use rummelplatz_tests::watched;

#[ring]
struct EchoServer {
    acceptor: Acceptor,
    connections: Connections,
}

struct Acceptor {
    listener: Arc<TcpListener>,
}

struct Connections;

struct Connection {
    socket: OwnedFd,
    buffer: Box<[u8]>,
    state: State,
}

enum State {
    Receiving,
    Sending { start: usize, end: usize },
}

impl Connection {
    fn new(socket: OwnedFd) -> Connection {
        Connection { socket, buffer: vec![0; 512].into(), state: State::Receiving }
    }

    fn request(&mut self) -> Request<'_> {
        match self.state {
            State::Receiving => request::recv(&self.socket, &mut self.buffer),
            State::Sending { start, end } => request::send(&self.socket, &self.buffer[start..end]),
        }
    }
}

impl RingOperation<EchoServer> for Acceptor {
    type RingData = Arc<TcpListener>;
    type SetupError = io::Error;
    type TeardownError = io::Error;
    type ControlFlowWarn = io::Error;
    type ControlFlowError = io::Error;

    fn setup(&mut self, mut submitter: Submitter<'_, EchoServer, Self>) -> io::Result<()> {
        submitter.stream(self.listener.clone(), |listener| request::accept_multi(listener))?;
        Ok(())
    }

    fn on_completion(
        &mut self,
        completion: Completion,
        listener: Arc<TcpListener>,
        mut submitter: Submitter<'_, EchoServer, Self>,
    ) -> CompletionResult<EchoServer, Self> {
        let handed_over = completion.into_fd().and_then(|socket| {
            submitter.to(EchoServer::CONNECTIONS).submit(Connection::new(socket), Connection::request)?;
            Ok(())
        });
        (handed_over.map_or_else(ControlFlow::Warn, |()| ControlFlow::Continue), Some(listener))
    }
}

impl RingOperation<EchoServer> for Connections {
    type RingData = Connection;
    type SetupError = ();
    type TeardownError = ();
    type ControlFlowWarn = io::Error;
    type ControlFlowError = io::Error;

    fn on_completion(
        &mut self,
        completion: Completion,
        mut connection: Connection,
        mut submitter: Submitter<'_, EchoServer, Self>,
    ) -> CompletionResult<EchoServer, Self> {
        let done = match completion.result() {
            Ok(done) => done as usize,
            Err(error) => return (ControlFlow::Warn(error), None),
        };
        connection.state = match connection.state {
            State::Receiving if done == 0 => return (ControlFlow::Exit, None),
            State::Receiving => State::Sending { start: 0, end: done },
            State::Sending { start, end } if start + done < end => {
                State::Sending { start: start + done, end }
            }
            State::Sending { .. } => State::Receiving,
        };
        match submitter.submit(connection, Connection::request) {
            Ok(_) => (ControlFlow::Continue, None),
            Err(error) => (ControlFlow::Warn(error.into()), None),
        }
    }
}

#[test]
fn the_server_by_which_the_library_was_designed_echoes() {
    watched(|| {
        let listener = Arc::new(TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap());
        let address = listener.local_addr().unwrap();
        let client = std::thread::spawn(move || {
            let mut client = TcpStream::connect(address).unwrap();
            let sent: Vec<u8> = (0..10_000u32).map(|number| number as u8).collect();
            client.write_all(&sent).unwrap();
            let mut echoed = vec![0; sent.len()];
            client.read_exact(&mut echoed).unwrap();
            assert_eq!(echoed, sent);
            client.shutdown(Shutdown::Write).unwrap();
        });
        let raw = EchoServer::new_raw_ring(NonZeroU32::new(256).unwrap()).unwrap();
        let mut server = EchoServer::new(raw, None, Acceptor { listener }, Connections);
        server.run().unwrap();
        client.join().unwrap();
        assert_eq!(server.stats().in_flight, 0);
    });
}
