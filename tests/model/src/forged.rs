//! Forged completions: whatever they say, a ring's accounts stay in order.

use std::cell::Cell;
use std::convert::Infallible;
use std::num::NonZeroU32;
use std::rc::Rc;
use std::time::Duration;

use rummelplatz::request::{self, Events};
use rummelplatz::sim::{Answer, Faults, Simulation};
use rummelplatz::{BufferPool, Completion, CompletionResult, ControlFlow, RingOperation, Submitter, ring};

use crate::names::timer_of;
use crate::program::Chance;

#[ring]
struct Forged {
    first: Operation,
    second: Operation,
}

/// Submits again from time to time, as its bytes say.
struct Operation {
    chance: Chance,
}

/// Counts how often it is dropped.
struct Data {
    drops: Rc<Cell<u32>>,
    dropped: bool,
    bytes: [u8; 8],
    pool: Option<BufferPool>,
    stream: u64,
}

impl Drop for Data {
    fn drop(&mut self) {
        assert!(!std::mem::replace(&mut self.dropped, true), "dropped twice");
        self.drops.set(self.drops.get() + 1);
    }
}

impl RingOperation<Forged> for Operation {
    type RingData = Data;
    type SetupError = Infallible;
    type TeardownError = Infallible;
    type ControlFlowWarn = Infallible;
    type ControlFlowError = Infallible;

    fn on_completion(
        &mut self,
        completion: Completion,
        data: Data,
        _: Submitter<'_, Forged, Self>,
    ) -> CompletionResult<Forged, Self> {
        let goes_on = completion.more() && !self.chance.one_in(4);
        match self.chance.below(4) {
            0 => drop(completion),
            1 => drop(completion.into_buffer()),
            // A part of it.
            2 => drop(completion.into_buffers().map(|mut buffers| buffers.next())),
            _ => drop(completion.into_datagram().map(|datagram| (datagram.peer(), datagram.is_truncated()))),
        }
        (ControlFlow::Continue, goes_on.then_some(data))
    }
}

/// A valid descriptor that is not used for anything.
const ANY: std::os::fd::BorrowedFd<'static> = request::CWD;

fn receive_once(data: &mut Data) -> request::Request<'_> {
    match &data.pool {
        Some(pool) => request::recv_provided(&ANY, pool),
        None => request::recv(&ANY, &mut data.bytes),
    }
}

fn receive(data: &mut Data) -> request::Stream<'_> {
    match &data.pool {
        Some(pool) => match data.stream {
            0 => request::recv_multi(&ANY, pool),
            1 => request::recv_multi_bundle(&ANY, pool),
            _ => request::recv_from_multi(&ANY, pool),
        },
        None => request::poll_multi(&ANY, Events::READABLE),
    }
}

/// Runs a ring whose kernel does nothing, and forges completions out of `bytes`.
///
/// # Panics
///
/// If the ring's accounts are out of order.
pub fn forge(bytes: &[u8]) {
    let mut chance = Chance::of_bytes(bytes);
    let simulation = Simulation::new(chance.next());
    simulation.set_faults(Faults::none());
    simulation.on_request(|_| Answer::Wait);
    let entries = NonZeroU32::new(1 << chance.below(4)).unwrap_or(NonZeroU32::MIN);
    let raw = simulation.raw_ring(entries).expect("a simulation has a ring");
    let drops = Rc::new(Cell::new(0));
    let operation = || Operation { chance: Chance::of_bytes(bytes) };
    let builder = Forged::builder(operation(), operation()).raw_ring(raw).deadline(Duration::from_millis(20));
    let mut ring = builder.build().expect("a raw ring is all that it takes");
    let pool = BufferPool::new(4, 8).expect("there is memory for it");
    let mut names = vec![0, 1 << 8, 2 << 8, u64::MAX];
    let mut issued = 0;
    for _ in 0..bytes.len().min(200) {
        match chance.below(8) {
            0 | 1 => {
                let second = chance.one_in(2);
                let mut submitter = ring.submitter(if second { Forged::SECOND } else { Forged::FIRST });
                let pool = chance.one_in(2).then(|| pool.clone());
                let (drops, stream) = (Rc::clone(&drops), chance.below(3));
                let data = Data { drops, dropped: false, bytes: [0; 8], pool, stream };
                issued += 1;
                // In a chain, the kernel has a timer for it. There is nothing behind it, because no cancel finds what
                // is behind a request that is forged to be over.
                const LONG: Duration = Duration::from_secs(100_000);
                let key = match chance.below(6) {
                    0 => submitter.submit(data, |_| request::nop()),
                    1 => submitter.submit(data, receive_once),
                    2 => submitter.chain().submit(data, |data| receive_once(data).deadline(LONG)),
                    3 => submitter.chain().submit(data, |_| request::fsync(&ANY).deadline(LONG)),
                    _ => submitter.stream(data, receive),
                };
                names.extend(
                    key.ok().into_iter().flat_map(|key| [key.user_data(), timer_of(key.user_data())]),
                );
            }
            2 => {
                ring.turn().expect("nothing fails");
            }
            _ => {
                let mut name = chance.pick(&names);
                // From time to time, one part of the name is another.
                match chance.below(6) {
                    0 => name ^= chance.next() << 40,
                    1 => name ^= chance.next() << 8,
                    2 => name ^= chance.next(),
                    _ => {}
                }
                let result =
                    chance.pick(&[0, 1, 8, 9, 20, 48, 50, -125, -105, -62, i32::MIN, i32::MAX, -512]);
                let flags = chance.next() as u32 & 0xf | (chance.below(6) as u32) << 16;
                // SAFETY: nothing ever comes of a request here, and none yields a descriptor.
                unsafe { simulation.post(name, result, flags) };
            }
        }
        let stats = ring.stats();
        let sum: usize = stats.operations().iter().map(|operation| operation.in_flight).sum();
        assert_eq!(stats.in_flight, sum, "the accounts of the operations are those of the ring");
        assert!(pool.available() <= pool.capacity());
    }
    let ended = ring.finish();
    let stuck = ended.err().and_then(|error| error.abandoned().map(|stuck| stuck.requests.len()));
    assert_eq!(stuck, None, "nothing but a forged completion keeps a request from being cancelled");
    assert_eq!(ring.stats().in_flight, 0);
    drop(ring);
    assert_eq!(drops.get(), issued, "all data is dropped");
    assert_eq!(pool.available(), pool.capacity());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_forged_the_accounts_are_in_order() {
        let mut chance = Chance::new(1);
        for _ in 0..2_000 {
            let length = chance.below(120);
            let bytes: Vec<u8> = (0..length).map(|_| chance.next() as u8).collect();
            forge(&bytes);
        }
    }
}
