use std::io;
use std::os::unix::net::UnixStream;

use rummelplatz::request::SendControl;
use rummelplatz::{RingOperation, Submitter, request, ring};

#[ring]
struct Client {
    passer: Passer,
}

struct Passing {
    socket: UnixStream,
    control: SendControl,
}

#[derive(RingOperation)]
#[ring_operation(ring = Client, data = Passing, setup_error = io::Error, setup)]
struct Passer {
    socket: UnixStream,
}

impl Passer {
    fn setup(&mut self, mut submitter: Submitter<'_, Client, Self>) -> io::Result<()> {
        let local = std::fs::File::open("/dev/zero")?;
        let passing = Passing { socket: self.socket.try_clone()?, control: SendControl::new() };
        submitter.submit(passing, |data| {
            request::send_message(&data.socket, [&b"x"[..]], data.control.start().fds([&local]))
        })?;
        Ok(())
    }
}

fn main() {
    let (socket, _other) = UnixStream::pair().unwrap();
    Client::builder(Passer { socket }).build().unwrap().run().unwrap();
}
