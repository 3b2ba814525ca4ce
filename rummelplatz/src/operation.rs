//! What a user implements.

use std::convert::Infallible;

use crate::completion::Completion;
use crate::shape::Ring;
use crate::submitter::Submitter;

/// One kind of work on a ring: the state that all its requests share, and what is done when one of
/// them completes.
///
/// `R` is the ring that the operation is a field of. An operation that works in any ring is
/// `impl<R: Ring> RingOperation<R> for …`; one that talks to its neighbours names its ring.
/// `#[derive(RingOperation)]` writes the boilerplate.
///
/// ```
/// use rummelplatz::{Completion, CompletionResult, ControlFlow, Ring, RingOperation, Submitter, request};
/// use std::{convert::Infallible, io, time::Duration};
///
/// struct Ticker { interval: Duration }
///
/// impl<R: Ring> RingOperation<R> for Ticker {
///     type RingData = u32; // how many ticks are left
///     type SetupError = io::Error;
///     type TeardownError = Infallible;
///     type ControlFlowWarn = Infallible;
///     type ControlFlowError = io::Error;
///
///     fn setup(&mut self, mut submitter: Submitter<'_, R, Self>) -> io::Result<()> {
///         let interval = self.interval;
///         submitter.submit(3, move |_| request::timeout(interval))?;
///         Ok(())
///     }
///
///     fn on_completion(
///         &mut self,
///         completion: Completion,
///         left: u32,
///         mut submitter: Submitter<'_, R, Self>,
///     ) -> CompletionResult<R, Self> {
///         if let Err(error) = completion.result() {
///             return (ControlFlow::Error(error), None);
///         }
///         if left == 0 {
///             return (ControlFlow::Exit, None);
///         }
///         let interval = self.interval;
///         match submitter.submit(left - 1, move |_| request::timeout(interval)) {
///             Ok(_) => (ControlFlow::Continue, None),
///             Err(error) => (ControlFlow::Error(error.into()), None),
///         }
///     }
/// }
/// ```
///
/// # Testing an operation
///
/// The handlers are ordinary methods. Make the operation, a [`Completion`] by hand
/// ([`from_result`](Completion::from_result), [`from_fd`](Completion::from_fd),
/// [`from_buffer`](Completion::from_buffer), [`from_datagram`](Completion::from_datagram),
/// [`message`](Completion::message)) and a submitter
/// (`ring.submitter(TAG)`), and call them. What is received in the data, beside the bytes, is made by
/// [`RecvControl::fill`](crate::request::RecvControl::fill) and `Peer::from`. Nothing is run, and what was submitted is
/// taken back when the ring is dropped:
///
/// ```
/// # use rummelplatz::{ring, Completion, CompletionResult, ControlFlow, RingOperation, Submitter, request};
/// # use std::{convert::Infallible, num::NonZeroU32};
/// struct Countdown;
///
/// #[ring]
/// struct Launch { countdown: Countdown }
///
/// impl RingOperation<Launch> for Countdown {
///     type RingData = u32;
/// #   type SetupError = Infallible;
/// #   type TeardownError = Infallible;
/// #   type ControlFlowWarn = Infallible;
/// #   type ControlFlowError = Infallible;
///     // …
///     fn on_completion(&mut self, _: Completion, left: u32, mut submitter: Submitter<'_, Launch, Self>)
///         -> CompletionResult<Launch, Self>
///     {
///         if left == 0 {
///             return (ControlFlow::Exit, None);
///         }
///         submitter.submit(left - 1, |_| request::nop()).ok();
///         (ControlFlow::Continue, None)
///     }
/// }
///
/// let raw = Launch::new_raw_ring(NonZeroU32::new(8).unwrap())?;
/// let mut ring = Launch::new(raw, None, Countdown);
/// let mut operation = Countdown;
///
/// let completion = Completion::from_result(Ok(0));
/// let (flow, data) = operation.on_completion(completion, 1, ring.submitter(Launch::COUNTDOWN));
/// assert!(matches!(flow, ControlFlow::Continue) && data.is_none());
/// assert_eq!(ring.stats().in_flight, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be an operation of the ring `{R}`",
    label = "not an operation of `{R}`",
    note = "implement `RingOperation<{R}>` for `{Self}`, or derive it with `#[derive(RingOperation)]`"
)]
pub trait RingOperation<R: Ring>: Sized {
    /// The state of one request: lives in a slot of the ring's slab while the request is in flight.
    ///
    /// It is passed by value twice per request: keep big buffers behind a pointer or in a
    /// [`BufferPool`](crate::BufferPool). (`docs/performance.md` has figures.)
    type RingData: 'static;
    /// What can go wrong in [`setup`](Self::setup).
    type SetupError;
    /// What can go wrong in [`on_teardown_completion`](Self::on_teardown_completion).
    type TeardownError;
    /// What [`ControlFlow::Warn`] reports.
    type ControlFlowWarn;
    /// What [`ControlFlow::Error`] ends the ring with.
    type ControlFlowError;

    /// Called when the ring begins to run, once in each run, in the order of the fields: submit the first
    /// requests here.
    ///
    /// # Errors
    ///
    /// An error ends the ring with [`RingError::Setup`](crate::RingError::Setup). What was submitted is
    /// cancelled and handed to [`on_teardown_completion`](Self::on_teardown_completion).
    #[expect(unused_variables, reason = "named for those who write this method")]
    fn setup(&mut self, submitter: Submitter<'_, R, Self>) -> Result<(), Self::SetupError> {
        Ok(())
    }

    /// Called for each completion of a request of this operation, with the request's data; and for each
    /// [message](crate::Submitter::post) to this operation, with the data that was sent.
    ///
    /// Returns what the ring is to do, and the data of a stream that is to go on. A request that is over
    /// ([`more`](Completion::more) is false) has no more use for its data: data that is returned for it is
    /// dropped and counted in [`returned_late`](crate::Stats::returned_late). A stream whose data is not
    /// returned is cancelled, and its later completions are dropped.
    fn on_completion(
        &mut self,
        completion: Completion,
        data: Self::RingData,
        submitter: Submitter<'_, R, Self>,
    ) -> CompletionResult<R, Self>;

    /// Called once for each request that ends while the ring is torn down: those in flight when the teardown
    /// began, messages that were not delivered by then, and what is submitted from here. `completion` says
    /// how it has ended: cancelled, failed, or successful after all.
    ///
    /// Requests submitted from here are awaited for the ring's grace period, and then cancelled too.
    ///
    /// It is not called for detached requests or for streams that were given up, nor when the ring is dropped
    /// or a handler has panicked. In these cases the data is dropped.
    ///
    /// # Errors
    ///
    /// All errors are kept, beside the first cause: see [`RingError`](crate::RingError).
    #[expect(unused_variables, reason = "named for those who write this method")]
    fn on_teardown_completion(
        &mut self,
        completion: Completion,
        data: Self::RingData,
        submitter: Submitter<'_, R, Self>,
    ) -> Result<(), Self::TeardownError> {
        Ok(())
    }
}

/// What [`RingOperation::on_completion`] returns: what the ring is to do, and the data of a stream that is to
/// go on.
pub type CompletionResult<R, Op> = (
    ControlFlow<<Op as RingOperation<R>>::ControlFlowWarn, <Op as RingOperation<R>>::ControlFlowError>,
    Option<<Op as RingOperation<R>>::RingData>,
);

/// What a ring does after a handler.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
// So that `Continue` is recognised by one comparison, whatever the types of warning and error; and as large as a
// pointer, so that in a `Result` it does not share a part of the place of a boxed error, which costs 19 instructions
// without LTO.
#[repr(usize)]
pub enum ControlFlow<Warn = Infallible, Error = Infallible> {
    /// Goes on.
    Continue,
    /// Cancels what is in flight, waits for it, and ends without an error.
    Exit,
    /// Goes on; the warning is counted, given to the builder's
    /// [`on_warn`](crate::Builder::on_warn) and, with the feature `tracing`, logged.
    Warn(Warn),
    /// As `Exit`, but the run ends with this error.
    Error(Error),
}
