//! Streams over a completion queue that is too small for them.

use std::net::{TcpListener, TcpStream};
use std::num::NonZeroU32;
use std::sync::Arc;

use rummelplatz::io_uring::cqueue;
use rummelplatz::{BufferPool, Completion, ControlFlow, Stream, request};

use crate::{Bench, Log, Script, outcome};

/// A ring whose completion queue has room for four, so that it cuts every stream that is a little busy.
pub fn cramped<D: Send>(first: Script<D>, second: Script<D>) -> Bench<D> {
    let four = NonZeroU32::new(4).unwrap();
    Bench::builder(first, second).entries(four).completion_entries(four).build().unwrap()
}

/// Whether the kernel has ended the stream with this completion, whatever `more()` says.
pub fn is_cut(completion: &Completion) -> bool {
    !cqueue::more(completion.raw().flags)
}

/// The data of a stream of connections.
pub struct Acceptor {
    pub listener: Arc<TcpListener>,
    /// How often the stream was armed.
    pub arms: u32,
}

impl Acceptor {
    pub fn new(listener: &Arc<TcpListener>) -> Acceptor {
        Acceptor { listener: Arc::clone(listener), arms: 0 }
    }

    pub fn accept(&mut self) -> Stream<'_> {
        self.arms += 1;
        request::accept_multi(&self.listener)
    }
}

/// A listener on a port of its own.
pub fn listener() -> Arc<TcpListener> {
    Arc::new(TcpListener::bind("127.0.0.1:0").unwrap())
}

/// This many connections that wait to be accepted.
pub fn connect(listener: &TcpListener, count: usize) -> Vec<TcpStream> {
    let address = listener.local_addr().unwrap();
    (0..count).map(|_| TcpStream::connect(address).unwrap()).collect()
}

/// The data of a stream of bytes.
pub struct Receiver {
    pub socket: TcpStream,
    pub pool: BufferPool,
    /// How often the stream was armed.
    pub arms: u32,
}

impl Receiver {
    pub fn receive(&mut self) -> Stream<'_> {
        self.arms += 1;
        request::recv_multi(&self.socket, &self.pool)
    }
}

/// A ring with a completion queue of four receives everything from a connection. Returns the bytes, how the stream
/// ended, and how often it was armed.
pub fn receive_all(socket: TcpStream, pool: &BufferPool) -> (Vec<u8>, Result<u32, i32>, u32) {
    let receiver = Receiver { socket, pool: pool.clone(), arms: 0 };
    let (bytes, ends) = (Log::new(), Log::new());
    let (received, end) = (bytes.clone(), ends.clone());
    let first = Script::new()
        .on_setup_once(|mut submitter| {
            submitter.stream(receiver, Receiver::receive)?;
            Ok(())
        })
        .on_completion(move |completion, receiver, _| {
            if !completion.more() {
                end.push((outcome(&completion), receiver.arms));
                return (ControlFlow::Continue, None);
            }
            match completion.into_buffer() {
                Ok(buffer) => received.push(buffer.to_vec()),
                Err(error) => assert_eq!(error.raw_os_error(), Some(libc::ENOBUFS)),
            }
            (ControlFlow::Continue, Some(receiver))
        });
    cramped(first, Script::new()).run().unwrap();
    assert_eq!(pool.available(), pool.capacity());
    let [(end, arms)] = ends.take()[..] else { panic!("a stream has one end") };
    (bytes.take().concat(), end, arms)
}
