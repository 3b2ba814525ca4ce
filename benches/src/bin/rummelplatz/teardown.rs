//! The end of a ring with much in flight.

use std::convert::Infallible;
use std::io::{self, PipeReader};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use kit::by_hand::Order;
use kit::{Args, Error, Outcome, Window, skip};
use rummelplatz::{
    Completion, CompletionResult, ControlFlow, Request, RingOperation, SubmitError, Submitter, request, ring,
};

const FOR_EVER: Duration = Duration::from_secs(100_000);

#[derive(Clone, Copy)]
enum Kind {
    Read,
    Timer,
}

/// What does not end by itself.
struct Wait {
    kind: Kind,
    /// It stays empty.
    pipe: Arc<PipeReader>,
    byte: [u8; 1],
}

impl Wait {
    fn request(&mut self) -> Request<'_> {
        match self.kind {
            Kind::Read => request::read(&self.pipe, &mut self.byte),
            Kind::Timer => request::timeout(FOR_EVER),
        }
    }
}

struct Waits {
    kind: Kind,
    order: Order,
    pipe: Arc<PipeReader>,
    requests: usize,
    armed: usize,
    cancelled: u64,
}

/// Reports that everything is armed, and ends the ring.
struct End {
    window: Option<Window>,
}

#[ring]
struct Armed {
    waits: Waits,
    end: End,
}

impl RingOperation<Armed> for Waits {
    type RingData = Wait;
    type SetupError = SubmitError;
    type TeardownError = Infallible;
    type ControlFlowWarn = Infallible;
    type ControlFlowError = SubmitError;

    fn setup(&mut self, mut submitter: Submitter<'_, Armed, Self>) -> Result<(), SubmitError> {
        for number in 0..self.requests {
            let wait = Wait { kind: self.kind, pipe: self.pipe.clone(), byte: [0] };
            match self.order {
                Order::Slots => submitter.submit(wait, Wait::request)?,
                // Its slot is taken again in this order.
                Order::Mixed => {
                    let turn = self.order.turn(number, self.requests) as u64;
                    let time = Duration::from_millis(50) + 10 * Duration::from_micros(turn);
                    submitter.submit(wait, |_| request::timeout(time))?
                }
            };
        }
        if let Order::Mixed = self.order {
            return Ok(());
        }
        submitter.to(Armed::END).submit((), |()| request::nop()).map(drop)
    }

    fn on_completion(
        &mut self,
        _: Completion,
        wait: Wait,
        mut submitter: Submitter<'_, Armed, Self>,
    ) -> CompletionResult<Armed, Self> {
        let armed = submitter.submit(wait, Wait::request).and_then(|_| {
            self.armed += 1;
            if self.armed == self.requests {
                submitter.to(Armed::END).submit((), |()| request::nop())?;
            }
            Ok(())
        });
        (armed.map_or_else(ControlFlow::Error, |()| ControlFlow::Continue), None)
    }

    fn on_teardown_completion(
        &mut self,
        completion: Completion,
        _: Wait,
        _: Submitter<'_, Armed, Self>,
    ) -> Result<(), Infallible> {
        self.cancelled += u64::from(completion.is_cancelled());
        Ok(())
    }
}

impl RingOperation<Armed> for End {
    type RingData = ();
    type SetupError = Infallible;
    type TeardownError = Infallible;
    type ControlFlowWarn = Infallible;
    type ControlFlowError = Infallible;

    fn on_completion(
        &mut self,
        _: Completion,
        (): (),
        _: Submitter<'_, Armed, Self>,
    ) -> CompletionResult<Armed, Self> {
        self.window = Some(Window::open());
        (ControlFlow::Exit, None)
    }
}

/// Arms requests that wait for ever, then ends the ring.
pub(crate) fn teardown(args: &Args) -> Outcome {
    let requests: usize = args.number("requests", 10_000)?;
    let kind = match args.text("kind", "read") {
        "read" => Kind::Read,
        "timer" => Kind::Timer,
        other => return Err(skip(format!("no requests of kind `{other}`"))),
    };
    let order = Order::from_args(args)?;
    let (reader, _writer) = io::pipe()?;
    let waits = Waits { kind, order, pipe: Arc::new(reader), requests, armed: 0, cancelled: 0 };
    let entries = NonZeroU32::new(4096).ok_or("no entries")?;
    let mut ring = Armed::builder(waits, End { window: None }).entries(entries).build()?;
    ring.run()?;
    let window = ring.end.window.ok_or_else(|| Error::from("it ended before all was armed"))?;
    Ok(window.close(requests as u64, ring.waits.cancelled))
}
