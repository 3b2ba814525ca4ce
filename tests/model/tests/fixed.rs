//! A file copied through registered memory and registered files: the result is the same under the real kernel and the
//! simulated one, whatever goes wrong in the simulation.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use rummelplatz::sim::{Answer, Faults, Simulation};
use rummelplatz::{BufferPool, ControlFlow, FixedBuffer, FixedBuffers, FixedFile, RawRing, Request, request};
use rummelplatz_tests::{
    Bench, BenchSubmitter, Log, Script, anywhere, nameless_file, outcome, tcp_pair, watched,
};

const BLOCK: usize = 1000;

/// A block on its way.
struct Block {
    from: FixedFile,
    to: FixedFile,
    buffer: FixedBuffer,
    offset: u64,
    /// How many bytes were read, and how many of these were written.
    read: usize,
    written: usize,
}

impl Block {
    fn request(&mut self) -> Request<'_> {
        match self.read == BLOCK {
            false => {
                let offset = self.offset + self.read as u64;
                request::read_fixed_at(&self.from, self.buffer.part_mut(self.read..), offset)
            }
            true => {
                let offset = self.offset + self.written as u64;
                request::write_fixed_at(&self.to, self.buffer.part(self.written..), offset)
            }
        }
    }
}

/// Copies this many blocks, unless a request fails for the expected reason.
fn copy(raw: RawRing, blocks: u64, expected: Option<i32>) {
    let (mut from, to) = (nameless_file(), nameless_file());
    let bytes: Vec<u8> = (0..blocks * BLOCK as u64).map(|number| (number * number / 7) as u8).collect();
    from.write_all(&bytes).unwrap();
    // The first set does not get in anybody's way.
    let [first, second] = [(); 2].map(|()| FixedBuffers::new(4, BLOCK as u32).unwrap());
    let (copied, buffers) = (to.try_clone().unwrap(), second.clone());
    let failed = Log::new();
    let failures = failed.clone();
    let setup = move |mut submitter: BenchSubmitter<'_, Block>| {
        submitter.register_buffers(&first)?;
        submitter.register_buffers(&second)?;
        let (from, to) = (submitter.register_file(from)?, submitter.register_file(to)?);
        let offsets = (0..blocks).map(|number| number * BLOCK as u64);
        for (offset, buffer) in offsets.zip(std::iter::from_fn(|| second.take())) {
            let (from, to) = (from.clone(), to.clone());
            let block = Block { from, to, buffer, offset, read: 0, written: 0 };
            submitter.submit(block, Block::request)?;
        }
        Ok(())
    };
    let script = Script::new().on_setup_once(setup).on_completion(
        move |completion, mut block: Block, mut submitter| {
            match outcome(&completion) {
                Ok(bytes) if block.read < BLOCK => block.read += bytes as usize,
                Ok(bytes) => block.written += bytes as usize,
                Err(errno) => {
                    failures.push(errno);
                    return (ControlFlow::Exit, None);
                }
            }
            if block.written == BLOCK {
                block = Block { offset: block.offset + 4 * BLOCK as u64, read: 0, written: 0, ..block };
            }
            if block.offset < blocks * BLOCK as u64 {
                submitter.submit(block, Block::request).unwrap();
            }
            (ControlFlow::Continue, None)
        },
    );
    let mut ring = Bench::builder(script, Script::new()).raw_ring(raw).build().unwrap();
    ring.run().unwrap();
    assert_eq!(buffers.available(), 4);
    let failed = failed.take();
    assert!(failed.iter().all(|errno| Some(*errno) == expected), "{failed:?}");
    if failed.is_empty() {
        let mut copy = vec![0; bytes.len()];
        copied.read_exact_at(&mut copy, 0).unwrap();
        assert!(copy == bytes);
    }
}

#[test]
fn a_file_is_copied_by_the_real_kernel() {
    watched(|| copy(RawRing::new(NonZeroU32::new(2).unwrap()).unwrap(), 50, None));
}

#[test]
fn a_file_is_copied_by_a_kernel_in_which_much_goes_wrong() {
    watched(|| {
        for seed in 0..200 {
            let simulation = Simulation::new(seed);
            let faults =
                Faults { short: 0.5, running: 0.5, delay: 0.3, partial: 0.3, busy: 0.2, ..Faults::none() };
            simulation.set_faults(match seed % 2 {
                0 => faults,
                _ => Faults { cancelled: 0.02, ..faults },
            });
            let raw = simulation.raw_ring(NonZeroU32::new(2).unwrap()).unwrap();
            copy(raw, 10, Some(libc::ECANCELED));
        }
    });
}

#[test]
fn parts_of_registered_buffers_are_moved_in_their_order() {
    watched(|| {
        anywhere::parts_of_registered_buffers_are_moved_in_their_order(|| {
            let simulation = Simulation::new(1);
            simulation.set_faults(Faults { running: 0.5, delay: 0.5, ..Faults::none() });
            simulation.raw_ring(NonZeroU32::new(4).unwrap()).unwrap()
        });
    });
}

#[test]
fn the_simulated_kernel_refuses_what_the_real_one_does() {
    watched(|| {
        let simulation = Simulation::new(1);
        simulation.set_faults(Faults::none());
        let entries = NonZeroU32::new(2).unwrap();
        for raw in [RawRing::new(entries).unwrap(), simulation.raw_ring(entries).unwrap()] {
            let mut owner = Bench::with(4, Script::<()>::new());
            let strange = owner.submitter(Bench::FIRST).register_file(nameless_file()).unwrap();
            let buffers = FixedBuffers::new(1, 8).unwrap();
            let seen = Log::new();
            let log = seen.clone();
            let script =
                Script::new().on_completion(move |completion, _: (FixedFile, FixedBuffer, OwnedFd), _| {
                    log.push(outcome(&completion));
                    (ControlFlow::Continue, None)
                });
            let mut ring = Bench::builder(script, Script::new()).raw_ring(raw).build().unwrap();
            let mut submitter = ring.submitter(Bench::FIRST);
            let socket = || OwnedFd::from(tcp_pair().0);
            let data = (strange, buffers.take().unwrap(), socket());
            submitter.submit(data, |(file, buffer, _)| request::read_at(file, buffer, 0)).unwrap();
            ring.run().unwrap();
            let mut submitter = ring.submitter(Bench::FIRST);
            let file = submitter.register_file(nameless_file()).unwrap();
            let data = (file.clone(), buffers.take().unwrap(), socket());
            submitter.submit(data, |(file, buffer, _)| request::read_fixed(file, buffer)).unwrap();
            ring.run().unwrap();
            let mut submitter = ring.submitter(Bench::FIRST);
            let data = (file, buffers.take().unwrap(), socket());
            submitter.submit(data, |(_, buffer, socket)| request::send_zc_fixed(socket, buffer)).unwrap();
            ring.run().unwrap();
            assert_eq!(seen.take(), [Err(libc::EBADF), Err(libc::EFAULT), Err(libc::EFAULT)]);
        }
    });
}

/// The result of a request on a registered socket under a simulated kernel, or the real one.
fn told_of<D: Send + 'static>(
    simulation: Option<&Simulation>,
    data: impl FnOnce(&mut BenchSubmitter<'_, D>) -> D + Send + 'static,
    build: for<'d> fn(&'d mut D) -> Request<'d>,
) -> Result<u32, i32> {
    let entries = NonZeroU32::new(4).unwrap();
    let raw = match simulation {
        Some(simulation) => simulation.raw_ring(entries).unwrap(),
        None => RawRing::new(entries).unwrap(),
    };
    let seen = Log::new();
    let log = seen.clone();
    let script = Script::new()
        .on_setup_once(move |mut submitter| {
            let data = data(&mut submitter);
            submitter.submit(data, build)?;
            Ok(())
        })
        .on_completion(move |completion, _, _| {
            log.push(outcome(&completion));
            (ControlFlow::Continue, None)
        });
    Bench::builder(script, Script::new()).raw_ring(raw).build().unwrap().run().unwrap();
    seen.take().remove(0)
}

#[test]
fn registered_sockets_are_received_from_and_accepted_on() {
    watched(|| {
        let simulation = Simulation::new(0);
        simulation.set_faults(Faults::none());
        for simulation in [Some(&simulation), None] {
            let (mut theirs, ours) = tcp_pair();
            theirs.write_all(b"hello").unwrap();
            let socket = move |submitter: &mut BenchSubmitter<'_, (FixedFile, BufferPool)>| {
                (submitter.register_file(ours).unwrap(), BufferPool::new(1, 4).unwrap())
            };
            let told = told_of(simulation, socket, |(socket, pool)| request::recv_provided(socket, pool));
            assert_eq!(told, Ok(4));
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let register = |listener: TcpListener| {
                move |submitter: &mut BenchSubmitter<'_, FixedFile>| {
                    submitter.register_file(listener).unwrap()
                }
            };
            assert_eq!(told_of(simulation, register(listener), |it| request::accept(it)), Ok(0));
        }
        // As somebody says that there is a connection.
        simulation.on_request(|_| Answer::Descriptor(nameless_file().into()));
        let register = |submitter: &mut BenchSubmitter<'_, FixedFile>| {
            submitter.register_file(TcpListener::bind("127.0.0.1:0").unwrap()).unwrap()
        };
        assert_eq!(told_of(Some(&simulation), register, |it| request::accept(it)), Ok(0));
    });
}
