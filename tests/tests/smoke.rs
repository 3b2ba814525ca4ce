use rummelplatz::*;
use std::num::NonZeroU32;
use std::{convert::Infallible, io, time::Duration};
struct Ticker;
impl<R: Ring> RingOperation<R> for Ticker {
    type RingData = u32;
    type SetupError = io::Error;
    type TeardownError = Infallible;
    type ControlFlowWarn = Infallible;
    type ControlFlowError = io::Error;
    fn setup(&mut self, mut s: Submitter<'_, R, Self>) -> io::Result<()> {
        s.submit(0, |_| request::timeout(Duration::from_millis(10)))?;
        Ok(())
    }
    fn on_completion(
        &mut self,
        c: Completion,
        n: u32,
        mut s: Submitter<'_, R, Self>,
    ) -> CompletionResult<R, Self> {
        println!("{c:?} {n}");
        if let Err(e) = c.result() {
            return (ControlFlow::Error(e), None);
        }
        if n == 3 {
            s.submit(4, |_| request::timeout(Duration::from_secs(100))).unwrap();
            return (ControlFlow::Exit, None);
        }
        s.submit(n + 1, |_| request::timeout(Duration::from_millis(10))).unwrap();
        (ControlFlow::Continue, None)
    }
    fn on_teardown_completion(
        &mut self,
        c: Completion,
        n: u32,
        _: Submitter<'_, R, Self>,
    ) -> Result<(), Infallible> {
        println!("teardown {c:?} {n}");
        Ok(())
    }
}
#[ring]
struct Clock {
    ticker: Ticker,
}

#[test]
fn ticks() {
    let raw = Clock::new_raw_ring(NonZeroU32::new(8).unwrap()).unwrap();
    let mut clock = Clock::new(raw, None, Ticker);
    clock.run().unwrap();
    println!("{clock:?} {:?}", clock.stats());
}
