//! How often something is done again: first until it is warm, then as often as the arguments ask for.

use std::cell::{Cell, RefCell};

use crate::{Args, Error, Outcome, Report, Window};

/// Completions before the window opens, for each request in flight.
const WARM: u64 = 16;

/// The pace of a work that keeps `depth` requests in flight until `n` were completed in the window.
///
/// Each request counts its completions itself, in its own data. All counts are added up at the end, so that a missing
/// or doubled completion shows:
///
/// ```text
/// for each of the first `depth` requests: submit it with its counter at 0
/// for each completion: add 1 to the counter of its request;
///                      if pace.again() submit it again, else total += counter
/// pace.finish(total)
/// ```
#[derive(Debug)]
pub struct Pace {
    /// How many requests are to be submitted before something else is to be done.
    left: Cell<u64>,
    depth: u64,
    n: u64,
    /// How many requests are in flight at the end.
    draining: Cell<u64>,
    window: Cell<Option<Window>>,
    report: RefCell<Option<Report>>,
}

impl Pace {
    /// Reads `n`.
    ///
    /// # Errors
    ///
    /// If `n` is less than `depth`.
    pub fn from_args(args: &Args, depth: usize, n: u64) -> Result<Pace, Error> {
        let (depth, n) = (depth as u64, args.number("n", n)?);
        if n < depth || depth == 0 {
            return Err(format!("n={n} must be at least the depth, {depth}, and that at least 1").into());
        }
        let left = Cell::new(WARM * depth);
        let (window, report) = (Cell::new(None), RefCell::new(None));
        Ok(Pace { left, depth, n, draining: Cell::new(depth), window, report })
    }

    /// To be called once for each completion. Returns whether its request is to be submitted again.
    #[inline(always)]
    pub fn again(&self) -> bool {
        match self.left.get().checked_sub(1) {
            Some(left) => {
                self.left.set(left);
                true
            }
            None => self.turn(),
        }
    }

    /// What is left, for a contestant in C: it counts this down itself, and calls `turn` when it is 0.
    pub fn left(&self) -> *mut u64 {
        self.left.as_ptr()
    }

    /// What `again` does when nothing is left: opens the window, and finally closes it.
    #[cold]
    #[inline(never)]
    pub fn turn(&self) -> bool {
        let Some(window) = self.window.get() else {
            self.window.set(Some(Window::open()));
            self.left.set(self.n - self.depth);
            return self.again();
        };
        let draining = self.draining.get() - 1;
        self.draining.set(draining);
        if draining == 0 {
            *self.report.borrow_mut() = Some(window.close(self.n, 0));
        }
        false
    }

    /// Whether all requests have ended.
    pub fn is_over(&self) -> bool {
        self.draining.get() == 0
    }

    /// What the work cost; `total` is the sum of all counters.
    ///
    /// # Errors
    ///
    /// If requests are still in flight.
    pub fn finish(&self, total: u64) -> Outcome {
        let report = self.report.take().ok_or("it ended before all was done")?;
        Ok(Report { check: total.wrapping_sub(WARM * self.depth), ..report })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    #[test]
    fn as_many_as_were_asked_for_and_the_warm_ones_before() {
        let args = Args::parse(["n=5".to_owned()]).unwrap();
        let pace = Pace::from_args(&args, 3, 0).unwrap();
        let (mut in_flight, mut total) = (VecDeque::from([0; 3]), 0);
        while let Some(counter) = in_flight.pop_front() {
            match pace.again() {
                true => in_flight.push_back(counter + 1),
                false => total += counter + 1,
            }
        }
        assert!(pace.is_over());
        let report = pace.finish(total).unwrap();
        assert_eq!((report.n, report.check), (5, 5));
    }
}
