//! The echo server with multishot accept and receive: what is received is sent back from the buffer of the pool in
//! which it arrived.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::num::NonZeroU32;
use std::rc::Rc;

use kit::Error;
use kit::echo::{Shape, echoed};
use rummelplatz::{
    Buffer, BufferPool, Completion, ControlFlow, Request, RingOperation, Submitter, request, ring,
};

/// What receiving and sending share.
struct Connection {
    socket: TcpStream,
    pool: BufferPool,
    /// What waits behind the bytes that are being sent.
    waiting: RefCell<VecDeque<Buffer>>,
    sending: Cell<bool>,
}

struct Sending {
    connection: Rc<Connection>,
    buffer: Buffer,
    sent: usize,
}

impl Sending {
    fn request(&mut self) -> Request<'_> {
        request::send(&self.connection.socket, &self.buffer[self.sent..])
    }
}

#[derive(RingOperation)]
#[ring_operation(ring = Server, data = TcpListener, error = Error, on_more, on_final)]
struct Acceptor {
    pool: BufferPool,
}

#[derive(RingOperation)]
#[ring_operation(ring = Server, data = Rc<Connection>, error = io::Error, on_more, on_final)]
struct Receiver;

#[derive(RingOperation)]
#[ring_operation(ring = Server, data = Sending, error = io::Error, on_completion)]
struct Sender;

#[ring]
struct Server {
    acceptor: Acceptor,
    receiver: Receiver,
    sender: Sender,
}

impl Acceptor {
    fn on_more(
        &mut self,
        completion: Completion,
        _: &mut TcpListener,
        mut submitter: Submitter<'_, Server, Self>,
    ) -> Result<(), Error> {
        let connection = Connection {
            socket: completion.into_fd()?.into(),
            pool: self.pool.clone(),
            waiting: RefCell::default(),
            sending: Cell::new(false),
        };
        let mut receiver = submitter.to(Server::RECEIVER);
        receiver.stream(Rc::new(connection), |it| request::recv_multi(&it.socket, &it.pool))?;
        Ok(())
    }

    fn on_final(
        &mut self,
        completion: Completion,
        _: TcpListener,
        _: Submitter<'_, Server, Self>,
    ) -> Result<(), Error> {
        completion.result()?;
        Ok(())
    }
}

impl Receiver {
    fn on_more(
        &mut self,
        completion: Completion,
        connection: &mut Rc<Connection>,
        mut submitter: Submitter<'_, Server, Self>,
    ) -> io::Result<()> {
        // An error is that there is no buffer just now: the stream waits for one.
        let Ok(buffer) = completion.into_buffer() else { return Ok(()) };
        if connection.sending.replace(true) {
            connection.waiting.borrow_mut().push_back(buffer);
        } else {
            let sending = Sending { connection: connection.clone(), buffer, sent: 0 };
            submitter.to(Server::SENDER).submit(sending, Sending::request)?;
        }
        Ok(())
    }

    /// The stream has ended: the connection is closed when nothing is being sent any more.
    fn on_final(&mut self, _: Completion, _: Rc<Connection>, _: Submitter<'_, Server, Self>) {}
}

impl Sender {
    fn on_completion(
        &mut self,
        completion: Completion,
        mut sending: Sending,
        mut submitter: Submitter<'_, Server, Self>,
    ) -> io::Result<ControlFlow> {
        // If the client takes nothing any more, receiving ends with an error, too.
        let Ok(sent) = completion.result() else { return Ok(ControlFlow::Continue) };
        sending.sent += sent as usize;
        if sending.sent < sending.buffer.len() {
            submitter.submit(sending, Sending::request)?;
            return Ok(ControlFlow::Continue);
        }
        let next = sending.connection.waiting.borrow_mut().pop_front();
        let is_over = echoed(sending.sent);
        match next {
            Some(buffer) => {
                (sending.buffer, sending.sent) = (buffer, 0);
                submitter.submit(sending, Sending::request)?;
            }
            None => sending.connection.sending.set(false),
        }
        Ok(if is_over { ControlFlow::Exit } else { ControlFlow::Continue })
    }
}

/// Serves until everything is over.
pub(crate) fn run(listener: TcpListener, shape: Shape) -> Result<(), Error> {
    let entries = NonZeroU32::new(shape.entries() as u32).ok_or("no entries")?;
    let pool = BufferPool::new(shape.buffers as u16, shape.buffer as u32)?;
    let mut server = Server::builder(Acceptor { pool }, Receiver, Sender).entries(entries).build()?;
    server.submitter(Server::ACCEPTOR).stream(listener, |listener| request::accept_multi(listener))?;
    Ok(server.run()?)
}
