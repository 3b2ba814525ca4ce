//! Datagrams that a socket sends to itself: each that comes is sent on, out of the buffer in which it came.

use std::net::UdpSocket;
use std::rc::Rc;

use kit::{Args, Error, Outcome, Report, Window};
use rummelplatz::request::{Datagram, Stream};
use rummelplatz::{BufferPool, Completion, ControlFlow, Request, RingOperation, Submitter, request, ring};

const SIZE: usize = 64;

#[ring]
struct Bench {
    receivers: Receivers,
    senders: Senders,
}

struct Receiver {
    socket: Rc<UdpSocket>,
    pool: BufferPool,
}

impl Receiver {
    fn receive(&mut self) -> Stream<'_> {
        request::recv_from_multi(&*self.socket, &self.pool)
    }
}

struct Sending {
    socket: Rc<UdpSocket>,
    datagram: Datagram,
}

impl Sending {
    fn request(&mut self) -> Request<'_> {
        match self.datagram.peer() {
            Some(peer) => request::send_to(&*self.socket, &self.datagram, peer),
            None => request::nop(),
        }
    }
}

#[derive(RingOperation)]
#[ring_operation(ring = Bench, data = Receiver, error = Error, on_more, on_final)]
struct Receivers {
    left: u64,
    total: u64,
}

impl Receivers {
    fn on_more(
        &mut self,
        completion: Completion,
        receiver: &mut Receiver,
        mut submitter: Submitter<'_, Bench, Self>,
    ) -> Result<ControlFlow, Error> {
        let datagram = completion.into_datagram()?;
        if datagram.len() != SIZE {
            return Err("short".into());
        }
        self.total += 1;
        if self.total == self.left {
            return Ok(ControlFlow::Exit);
        }
        let sending = Sending { socket: receiver.socket.clone(), datagram };
        submitter.to(Bench::SENDERS).submit(sending, Sending::request)?;
        Ok(ControlFlow::Continue)
    }

    fn on_final(
        &mut self,
        completion: Completion,
        _: Receiver,
        _: Submitter<'_, Bench, Self>,
    ) -> Result<(), Error> {
        completion.result()?;
        Err("the stream has ended".into())
    }
}

#[derive(RingOperation)]
#[ring_operation(ring = Bench, data = Sending, error = Error, on_completion)]
struct Senders;

impl Senders {
    fn on_completion(
        &mut self,
        completion: Completion,
        _: Sending,
        _: Submitter<'_, Bench, Self>,
    ) -> Result<(), Error> {
        completion.result()?;
        Ok(())
    }
}

pub(crate) fn datagrams(args: &Args) -> Outcome {
    let (n, depth, entries) = crate::sizes(args)?;
    let socket = Rc::new(UdpSocket::bind("127.0.0.1:0")?);
    let address = socket.local_addr()?;
    for _ in 0..depth {
        socket.send_to(&[7; SIZE], address)?;
    }
    let pool = BufferPool::new(u16::try_from(4 * depth)?, SIZE as u32 + Datagram::OVERHEAD)?;
    let mut bench = Bench::builder(Receivers { left: n, total: 0 }, Senders).entries(entries).build()?;
    bench.submitter(Bench::RECEIVERS).stream(Receiver { socket, pool }, Receiver::receive)?;
    let window = Window::open();
    bench.run()?;
    Ok(Report { check: bench.receivers.total, ..window.close(n, 0) })
}
