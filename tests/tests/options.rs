//! The options of sockets, on this kernel.

use std::io::Write;
use std::net::TcpStream;
use std::os::fd::OwnedFd;

use rummelplatz::request::SocketOption;
use rummelplatz::{ControlFlow, RawRing, Request, request};
use rummelplatz_tests::{Bench, Log, Script, addressable, once, options, outcome, pipe, tcp_pair, watched};

fn raw() -> RawRing {
    addressable(8).0
}

#[test]
fn options_are_set_as_the_system_call_sets_them() {
    watched(|| options::options_are_set_as_the_system_call_sets_them(raw));
}

#[test]
fn a_socket_says_what_it_is_and_what_went_wrong() {
    watched(|| options::a_socket_says_what_it_is_and_what_went_wrong(raw));
}

#[test]
fn a_socket_says_how_much_is_in_its_queues() {
    watched(|| options::a_socket_says_how_much_is_in_its_queues(raw));
}

#[test]
fn a_direct_descriptor_has_options() {
    watched(|| options::a_direct_descriptor_has_options(raw));
}

/// A part of a chain: the read waits, and the option is read after that.
enum Link {
    Read(OwnedFd, [u8; 1]),
    Set(TcpStream, SocketOption),
    Nop,
}

impl Link {
    fn request(&mut self) -> Request<'_> {
        match self {
            Link::Read(reader, byte) => request::read(reader, byte),
            Link::Set(socket, option) => request::set_option(socket, option),
            Link::Nop => request::nop(),
        }
    }
}

/// The kernel reads the option when it carries out the request, which may be much later than when it takes that in.
#[test]
fn an_option_is_there_when_the_kernel_reads_it() {
    watched(|| {
        if !options::has_options(raw()) {
            return;
        }
        let (socket, _peer) = tcp_pair();
        let (reader, writer) = pipe();
        let (seen, sets) = (Log::new(), socket.try_clone().unwrap());
        let log = seen.clone();
        let mut writer = Some(std::fs::File::from(writer));
        let script = Script::new()
            .on_setup_once(move |mut submitter| {
                let mut chain = submitter.chain();
                chain.link(Link::Read(reader, [0]), Link::request)?;
                chain.submit(Link::Set(sets, SocketOption::nodelay(true)), Link::request)?;
                // What was there when the kernel took the chain in is used again, for something else.
                for _ in 0..20 {
                    submitter.submit(Link::Nop, Link::request)?;
                }
                Ok(())
            })
            .on_completion(move |completion, link, _| {
                match link {
                    Link::Nop => drop(writer.take().map(|mut writer| writer.write_all(b"x").unwrap())),
                    Link::Read(..) | Link::Set(..) => log.push(outcome(&completion)),
                }
                (ControlFlow::Continue, None)
            });
        Bench::with(8, script).run().unwrap();
        assert_eq!((seen.take(), socket.nodelay().unwrap()), (vec![Ok(1), Ok(0)], true));
        let (set, socket) = once(socket, |socket| {
            request::set_option(socket, const { &SocketOption::nodelay(false) }).in_worker()
        });
        assert_eq!((set, socket.nodelay().unwrap()), (Ok(0), false));
    });
}
