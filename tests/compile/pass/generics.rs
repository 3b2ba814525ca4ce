//! Types with defaults, lifetimes, constants, where clauses, `Self` in a field, behaviour as a parameter.

#![forbid(unsafe_code)]
#![deny(warnings)]

use std::fmt::Debug;
use std::marker::PhantomData;
use std::num::NonZeroU32;

use rummelplatz::{Completion, CompletionResult, ControlFlow, Ring, RingOperation, Submitter, ring};

#[ring]
struct Server<'a, T: Clone = u32, const N: usize = 4>
where
    T: Debug + 'a,
{
    holder: Holder<'a, T, N>,
    array: Array<N>,
    me: ForRing<Self>,
    here: Array<7>,
}

#[derive(Debug, RingOperation)]
#[ring_operation(ring = Server<'a, T, N>)]
struct Holder<'a, T: Clone + Debug, const N: usize>(&'a T);

#[derive(RingOperation)]
struct Array<const N: usize>([u8; N]);

#[derive(RingOperation)]
#[ring_operation(ring = R, data = [u8; 3])]
struct ForRing<R: Ring>(PhantomData<R>);

/// What an operation does is a parameter. (That `Work<J>` is an operation must not be a where clause of the ring: it
/// would be needed to tell that the ring is one, and the other way round.)
#[ring]
struct Around<J: Job> {
    work: Work<J>,
}

trait Job {
    fn done(&mut self);
}

struct Work<J>(J);

impl Job for u8 {
    fn done(&mut self) {
        *self += 1;
    }
}

impl<R: Ring, J: Job> RingOperation<R> for Work<J> {
    type RingData = Box<dyn Debug>;
    type SetupError = NotEvenDebug;
    type TeardownError = ();
    type ControlFlowWarn = NotEvenDebug;
    type ControlFlowError = NotEvenDebug;

    fn on_completion(
        &mut self,
        _: Completion,
        _: Self::RingData,
        _: Submitter<'_, R, Self>,
    ) -> CompletionResult<R, Self> {
        self.0.done();
        (ControlFlow::Exit, None)
    }
}

struct NotEvenDebug;

/// Rings are as generic as any struct.
fn run<'a, T: Clone + Debug + 'a, const N: usize>(value: &'a T) -> Option<&'a T> {
    let raw = Server::<'a, T, N>::new_raw_ring(NonZeroU32::MIN).ok()?;
    let mut server =
        Server::<'a, T, N>::new(raw, None, Holder(value), Array([0; N]), ForRing(PhantomData), Array([1; 7]));
    server.run().ok()?;
    drop(server.submitter(Server::ARRAY));
    let Server { holder, array, here, .. } = server;
    assert_eq!(array.0.len() + here.0.len(), N + 7);
    Some(holder.0)
}

fn main() {
    let text = String::from("text");
    assert_eq!(run::<_, 3>(&text).unwrap_or(&text), "text");
    let default: Option<Server<'static>> = None;
    assert!(default.is_none());
    if let Ok(raw) = Around::<u8>::new_raw_ring(NonZeroU32::MIN) {
        let mut around = Around::new(raw, None, Work(0_u8));
        around.submitter(Around::WORK).post(Box::new("data")).unwrap();
        around.run().unwrap();
        assert_eq!(around.work.0, 1);
    }
}
