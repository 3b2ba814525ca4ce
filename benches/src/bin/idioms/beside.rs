//! NOPs beside something else: another kind of request that is never made, a second request, a message.

use std::time::Duration;

use kit::{Args, Outcome, Report, Window};
use rummelplatz::{Completion, Request, RingOperation, SubmitError, Submitter, request, ring};

/// What a handler submits after each NOP.
#[derive(Clone, Copy, PartialEq)]
enum Next {
    /// A NOP, made by a function that may also make timers.
    Rare,
    /// A NOP, and another one of which nobody is told.
    Detach,
    /// A chain of two NOPs, of which the second goes on.
    Chain,
    /// A message, which goes on.
    Post,
}

#[ring]
struct Bench<const NEXT: u8> {
    nops: Nops<NEXT>,
}

#[derive(RingOperation)]
#[ring_operation(ring = Bench<NEXT>, data = Nop, error = kit::Error, on_completion)]
struct Nops<const NEXT: u8> {
    left: u64,
    total: u64,
}

struct Nop {
    /// How many there were, including this one; 0 if it does not go on.
    count: u64,
    rest: Option<Duration>,
}

impl Nop {
    fn new(count: u64) -> Nop {
        Nop { count, rest: None }
    }

    fn request(&mut self) -> Request<'_> {
        match self.rest {
            Some(time) => request::timeout(time),
            None => request::nop(),
        }
    }
}

impl<const NEXT: u8> Nops<NEXT> {
    const NEXT: Next = match NEXT {
        0 => Next::Rare,
        1 => Next::Detach,
        2 => Next::Chain,
        _ => Next::Post,
    };

    fn on_completion(
        &mut self,
        completion: Completion,
        nop: Nop,
        mut submitter: Submitter<'_, Bench<NEXT>, Self>,
    ) -> Result<(), kit::Error> {
        completion.result()?;
        if nop.count == 0 {
            return Ok(());
        }
        if self.left == 0 {
            self.total += nop.count;
            return Ok(());
        }
        self.left -= 1;
        let nop = Nop { count: nop.count + 1, ..nop };
        Self::go_on(nop, &mut submitter)?;
        Ok(())
    }

    #[inline(always)]
    fn go_on(nop: Nop, submitter: &mut Submitter<'_, Bench<NEXT>, Self>) -> Result<(), SubmitError> {
        match Self::NEXT {
            Next::Rare => submitter.submit(nop, Nop::request).map(drop),
            Next::Detach => {
                submitter.submit(nop, |_| request::nop())?;
                submitter.detach(Nop::new(0), |_| request::nop())
            }
            Next::Chain => {
                let mut chain = submitter.chain();
                chain.link(Nop::new(0), |_| request::nop())?;
                chain.submit(nop, |_| request::nop()).map(drop)
            }
            Next::Post => submitter.post(nop),
        }
    }
}

fn count<const NEXT: u8>(args: &Args) -> Outcome {
    let (n, depth, entries) = super::sizes(args)?;
    let mut bench = Bench::<NEXT>::builder(Nops { left: n, total: 0 }).entries(entries).build()?;
    for _ in 0..depth {
        bench.nops.left -= 1;
        bench.submitter(Bench::NOPS).submit(Nop::new(1), |_| request::nop())?;
    }
    let window = Window::open();
    bench.run()?;
    Ok(Report { check: bench.nops.total, ..window.close(n, 0) })
}

pub(crate) const WORKS: [(&str, kit::Work); 4] =
    [("rare", count::<0>), ("detach", count::<1>), ("chain", count::<2>), ("post", count::<3>)];
