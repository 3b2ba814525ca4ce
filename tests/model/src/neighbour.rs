//! Another ring, on another kernel, which has a pool of its own.

use std::convert::Infallible;
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rummelplatz::sim::{Answer, Faults, Simulation};
use rummelplatz::{
    BufferPool, Completion, CompletionResult, ControlFlow, Refused, RingOperation, Stream, SubmitError,
    Submitter, request, ring,
};

#[ring]
struct Other {
    receiver: Receiver,
}

struct Receiver;

type Data = (Arc<OwnedFd>, BufferPool);

impl RingOperation<Other> for Receiver {
    type RingData = Data;
    type SetupError = Infallible;
    type TeardownError = Infallible;
    type ControlFlowWarn = Infallible;
    type ControlFlowError = Infallible;

    fn on_completion(
        &mut self,
        _: Completion,
        _: Data,
        _: Submitter<'_, Other, Self>,
    ) -> CompletionResult<Other, Self> {
        (ControlFlow::Continue, None)
    }
}

fn receive((socket, pool): &mut Data) -> Stream<'_> {
    request::recv_multi(&**socket, pool)
}

/// A ring that receives into a pool, on a socket to which nothing ever comes.
pub(crate) struct Neighbour {
    ring: Other,
    socket: Arc<OwnedFd>,
    pub(crate) pool: BufferPool,
    /// A pool is registered with this ring.
    has_pool: bool,
}

impl Neighbour {
    /// The size of its buffers, which tells them from others.
    pub(crate) const SIZE: usize = 56;

    pub(crate) fn new(socket: Arc<OwnedFd>) -> Neighbour {
        let simulation = Simulation::new(0);
        simulation.set_faults(Faults::none());
        simulation.on_request(|_| Answer::Wait);
        let raw = simulation.raw_ring(NonZeroU32::MIN).expect("a simulation has a ring");
        let ring = Other::new(raw, None, Receiver);
        let pool = BufferPool::new(1, Self::SIZE as u32).expect("there is memory for it");
        let mut neighbour = Neighbour { ring, socket, pool: pool.clone(), has_pool: false };
        neighbour.has_pool = neighbour.receive_into(&pool).is_ok();
        neighbour
    }

    pub(crate) fn has_pool(&self) -> bool {
        self.has_pool
    }

    /// Wants to use a pool. If it may, it gives that pool back at once, with all others that it has.
    pub(crate) fn borrow(&mut self, pool: &BufferPool) -> Result<(), SubmitError> {
        self.receive_into(pool)?;
        self.give_up();
        Ok(())
    }

    fn receive_into(&mut self, pool: &BufferPool) -> Result<(), SubmitError> {
        let data = (Arc::clone(&self.socket), pool.clone());
        let received = self.ring.submitter(Other::RECEIVER).try_stream(data, receive);
        received.map(drop).map_err(|Refused { data: (_, same), error }| {
            assert_eq!(same.buffer_size(), pool.buffer_size(), "the data comes back");
            error
        })
    }

    /// Is done with all pools that it uses.
    pub(crate) fn give_up(&mut self) {
        self.ring.finish().expect("all that it does can be cancelled");
        self.has_pool = false;
    }
}
