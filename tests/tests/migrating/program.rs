use std::error::Error;
use std::num::NonZeroU32;

use rummelplatz::{
    Completion, CompletionResult, ControlFlow, Ring, RingOperation, SubmissionQueueSubmitter, ring,
};

pub struct MyRingOp;

// For any ring. An operation that submits to its neighbours names its ring instead.
impl<R: Ring> RingOperation<R> for MyRingOp {
    type RingData = ();
    type SetupError = ();
    type TeardownError = ();
    type ControlFlowWarn = ();
    type ControlFlowError = ();

    fn setup(&mut self, _submitter: SubmissionQueueSubmitter<'_, R, Self>) -> Result<(), ()> {
        Ok(())
    }

    fn on_completion(
        &mut self,
        _completion: Completion,
        _ring_data: (),
        _submitter: SubmissionQueueSubmitter<'_, R, Self>,
    ) -> CompletionResult<R, Self> {
        (ControlFlow::Continue, None)
    }

    fn on_teardown_completion(
        &mut self,
        _completion: Completion,
        _ring_data: (),
        _submitter: SubmissionQueueSubmitter<'_, R, Self>,
    ) -> Result<(), ()> {
        Ok(())
    }
}

#[ring]
pub struct MyRing {
    my_ring_op: MyRingOp,
}

fn main() -> Result<(), Box<dyn Error>> {
    let my_op = MyRingOp;
    let raw = MyRing::new_raw_ring(NonZeroU32::new(128).unwrap())?;
    let mut ring = MyRing::new(raw, None, my_op);
    ring.run()?;
    Ok(())
}
