//! The loop and nothing else: no state of a request, no backlog, no `EINTR`, a fixed count.

use io_uring::{IoUring, opcode};
use kit::{Args, Outcome, Report, Window};

pub(crate) fn nop(args: &Args) -> Outcome {
    let (n, depth, entries) = super::sizes(args)?;
    let mut builder = IoUring::builder();
    builder.setup_coop_taskrun().setup_single_issuer().setup_defer_taskrun();
    let mut ring: IoUring = builder.build(entries.get())?;
    let (submitter, mut queue, mut completions) = ring.split();
    for _ in 0..depth {
        // SAFETY: it points to nothing.
        unsafe { queue.push(&opcode::Nop::new().build().user_data(7)) }?;
    }
    let window = Window::open();
    let mut done = 0;
    while done < n {
        queue.sync();
        submitter.submit_and_wait(1)?;
        completions.sync();
        for completion in &mut completions {
            assert_eq!(completion.result(), 0);
            done += 1;
            // SAFETY: it points to nothing.
            unsafe { queue.push(&opcode::Nop::new().build().user_data(completion.user_data())) }?;
        }
    }
    Ok(Report { check: done, ..window.close(done, 0) })
}
