//! NOPs that are submitted in the handler, or by a helper that `setup` also calls.

use kit::{Args, Outcome, Report, Window};
use rummelplatz::{Completion, RingOperation, Submitter, request, ring};

macro_rules! nops {
    ($work:ident, $setup:item $on_completion:item $($helper:item)?) => {
        pub(crate) fn $work(args: &Args) -> Outcome {
            #[derive(RingOperation)]
            #[ring_operation(ring = Bench, data = u64, error = kit::Error, setup, on_completion)]
            struct Nops {
                depth: u32,
                left: u64,
                total: u64,
            }

            #[ring]
            struct Bench {
                nops: Nops,
            }

            impl Nops {
                $setup
                $on_completion
                $($helper)?
            }

            let (n, depth, entries) = super::sizes(args)?;
            let mut bench = Bench::builder(Nops { depth, left: n, total: 0 }).entries(entries).build()?;
            let window = Window::open();
            bench.run()?;
            Ok(Report { check: bench.nops.total, ..window.close(n, 0) })
        }
    };
}

nops! {
    handler,
    fn setup(&mut self, mut submitter: Submitter<'_, Bench, Self>) -> Result<(), kit::Error> {
        for _ in 0..self.depth {
            self.left -= 1;
            submitter.submit(0, |_| request::nop())?;
        }
        Ok(())
    }
    fn on_completion(
        &mut self,
        completion: Completion,
        count: u64,
        mut submitter: Submitter<'_, Bench, Self>,
    ) -> Result<(), kit::Error> {
        completion.result()?;
        if self.left == 0 {
            self.total += count + 1;
        } else {
            self.left -= 1;
            submitter.submit(count + 1, |_| request::nop())?;
        }
        Ok(())
    }
}

nops! {
    data,
    fn setup(&mut self, mut submitter: Submitter<'_, Bench, Self>) -> Result<(), kit::Error> {
        for _ in 0..self.depth {
            if let Some(count) = self.next(0) {
                submitter.submit(count, |_| request::nop())?;
            }
        }
        Ok(())
    }
    fn on_completion(
        &mut self,
        completion: Completion,
        count: u64,
        mut submitter: Submitter<'_, Bench, Self>,
    ) -> Result<(), kit::Error> {
        completion.result()?;
        if let Some(count) = self.next(count + 1) {
            submitter.submit(count, |_| request::nop())?;
        }
        Ok(())
    }
    fn next(&mut self, count: u64) -> Option<u64> {
        if self.left == 0 {
            self.total += count;
            return None;
        }
        self.left -= 1;
        Some(count)
    }
}

/// With a helper that has these attributes.
macro_rules! helped {
    ($work:ident $(, $attribute:meta)?) => {
        nops! {
            $work,
            fn setup(&mut self, mut submitter: Submitter<'_, Bench, Self>) -> Result<(), kit::Error> {
                for _ in 0..self.depth {
                    self.next(0, submitter.reborrow())?;
                }
                Ok(())
            }
            fn on_completion(
                &mut self,
                completion: Completion,
                count: u64,
                submitter: Submitter<'_, Bench, Self>,
            ) -> Result<(), kit::Error> {
                completion.result()?;
                self.next(count + 1, submitter)
            }
            $(#[$attribute])?
            fn next(
                &mut self,
                count: u64,
                mut submitter: Submitter<'_, Bench, Self>,
            ) -> Result<(), kit::Error> {
                if self.left == 0 {
                    self.total += count;
                    return Ok(());
                }
                self.left -= 1;
                submitter.submit(count, |_| request::nop())?;
                Ok(())
            }
        }
    };
}

helped!(helper);
helped!(inline, inline);
helped!(always, inline(always));

nops! {
    by_reference,
    fn setup(&mut self, mut submitter: Submitter<'_, Bench, Self>) -> Result<(), kit::Error> {
        for _ in 0..self.depth {
            self.next(0, &mut submitter)?;
        }
        Ok(())
    }
    fn on_completion(
        &mut self,
        completion: Completion,
        count: u64,
        mut submitter: Submitter<'_, Bench, Self>,
    ) -> Result<(), kit::Error> {
        completion.result()?;
        self.next(count + 1, &mut submitter)
    }
    fn next(&mut self, count: u64, submitter: &mut Submitter<'_, Bench, Self>) -> Result<(), kit::Error> {
        if self.left == 0 {
            self.total += count;
            return Ok(());
        }
        self.left -= 1;
        submitter.submit(count, |_| request::nop())?;
        Ok(())
    }
}
