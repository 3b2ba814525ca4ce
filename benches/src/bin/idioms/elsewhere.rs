//! NOPs whose operation is in a different module from their ring.

macro_rules! apart {
    ($module:ident, $operation:ident $(, $attribute:meta)?) => {
        pub(crate) mod $module {
            use super::$operation::Nops;
            use kit::{Args, Outcome, Report, Window};

            #[rummelplatz::ring]
            pub(super) struct Bench {
                nops: Nops,
            }

            pub(crate) fn nop(args: &Args) -> Outcome {
                let (n, depth, entries) = crate::sizes(args)?;
                let mut bench = Bench::builder(Nops { depth, left: n, total: 0 }).entries(entries).build()?;
                let window = Window::open();
                bench.run()?;
                Ok(Report { check: bench.nops.total, ..window.close(n, 0) })
            }
        }

        mod $operation {
            use super::$module::Bench;
            use rummelplatz::{Completion, RingOperation, Submitter, request};

            #[derive(RingOperation)]
            #[ring_operation(ring = Bench, data = u64, error = kit::Error, setup, on_completion)]
            pub(crate) struct Nops {
                pub(crate) depth: u32,
                pub(crate) left: u64,
                pub(crate) total: u64,
            }

            impl Nops {
                fn setup(&mut self, mut submitter: Submitter<'_, Bench, Self>) -> Result<(), kit::Error> {
                    for _ in 0..self.depth {
                        self.left -= 1;
                        submitter.submit(0, |_| request::nop())?;
                    }
                    Ok(())
                }

                $(#[$attribute])?
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
        }
    };
}

apart!(plain, of_plain);
apart!(inline, of_inline, inline);
