//! The contestant `raw`: loops written by hand on the `io-uring` crate. The bar.
//!
//! With `fast=1`, on a ring with a registered descriptor and `NO_SQARRAY`; with `wait=`, waiting otherwise
//! than all others do.

mod pread;

use std::io;
use std::marker::PhantomData;
use std::process::ExitCode;

use io_uring::squeue::Entry;
use io_uring::types::SubmitArgs;
use io_uring::{Builder, IoUring, SubmissionQueue, Submitter};
use kit::by_hand::{self, Completion, Queue, Ring};
use kit::{Args, Error, Outcome};

/// How it is set up, and how it waits.
trait Wait {
    fn setup(builder: &mut Builder) {
        builder.setup_coop_taskrun().setup_single_issuer().setup_defer_taskrun();
    }

    fn submit_and_wait(submitter: &Submitter<'_>, want: usize) -> io::Result<usize> {
        submitter.submit_and_wait(want)
    }
}

struct Plain;
/// A thread of the kernel's looks for entries, on the same CPU, as there may be no other.
struct SqPoll;
/// A wait is for eight completions, or for what has come after 50 µs.
struct MinWait;

impl Wait for Plain {}

impl Wait for SqPoll {
    fn setup(builder: &mut Builder) {
        builder.setup_sqpoll(1000).setup_sqpoll_cpu(0);
    }
}

impl Wait for MinWait {
    fn submit_and_wait(submitter: &Submitter<'_>, want: usize) -> io::Result<usize> {
        submitter.submit_with_args(8 * want, &SubmitArgs::new().min_wait_usec(50))
    }
}

/// A ring of the `io-uring` crate.
struct Crate<W = Plain> {
    wait: PhantomData<W>,
    ring: IoUring,
    /// Whether its descriptor shall be registered.
    fast: bool,
    /// Entries for which there was no room in the submission queue.
    backlog: Vec<Entry>,
}

struct Entries<'a> {
    queue: SubmissionQueue<'a>,
    backlog: &'a mut Vec<Entry>,
}

impl Queue for Entries<'_> {
    #[inline]
    unsafe fn push(&mut self, entry: Entry) {
        // SAFETY: the caller's promise is the same.
        if unsafe { self.queue.push(&entry) }.is_err() {
            self.backlog.push(entry);
        }
    }
}

impl Entries<'_> {
    /// Moves as much of the backlog to the queue as there is room for.
    #[cold]
    fn catch_up(&mut self) {
        let room = self.queue.capacity() - self.queue.len();
        for entry in self.backlog.drain(..room.min(self.backlog.len())) {
            // SAFETY: as promised when it was pushed.
            if unsafe { self.queue.push(&entry) }.is_err() {
                unreachable!("there is room");
            }
        }
        self.queue.sync();
    }
}

impl<W: Wait> Ring for Crate<W> {
    type Queue<'a> = Entries<'a>;

    fn build(args: &Args, entries: u32) -> Result<Crate<W>, Error> {
        let fast = args.flag("fast");
        let mut builder = IoUring::builder();
        W::setup(&mut builder);
        if fast {
            builder.setup_no_sqarray();
        }
        Ok(Crate { wait: PhantomData, ring: builder.build(entries)?, fast, backlog: Vec::new() })
    }

    fn submitter(&self) -> Submitter<'_> {
        self.ring.submitter()
    }

    unsafe fn run(
        &mut self,
        first: impl IntoIterator<Item = Entry>,
        mut complete: impl FnMut(&mut Entries<'_>, Completion) -> io::Result<bool>,
    ) -> io::Result<()> {
        let (mut submitter, queue, mut completions) = self.ring.split();
        if self.fast {
            submitter.register_ring_fd()?;
        }
        let mut queue = Entries { queue, backlog: &mut self.backlog };
        for entry in first {
            // SAFETY: the caller's promise is the same.
            unsafe { queue.push(entry) };
        }
        loop {
            queue.queue.sync();
            // What waits for room in the queue does not wait for a completion.
            match W::submit_and_wait(&submitter, usize::from(queue.backlog.is_empty())) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            // The kernel has made room: who looks at this only before submitting sees a full queue.
            queue.queue.sync();
            if !queue.backlog.is_empty() {
                queue.catch_up();
            }
            completions.sync();
            for entry in &mut completions {
                let (user_data, result, flags) = (entry.user_data(), entry.result(), entry.flags());
                if complete(&mut queue, Completion { user_data, result, flags })? {
                    return Ok(());
                }
            }
        }
    }
}

fn nop(args: &Args) -> Outcome {
    match args.text("wait", "plain") {
        "sqpoll" => by_hand::nop::<Crate<SqPoll>>(args),
        _ => by_hand::nop::<Crate>(args),
    }
}

fn echo(args: &Args) -> Outcome {
    match args.text("wait", "plain") {
        "sqpoll" => by_hand::echo::<Crate<SqPoll>>(args),
        "min-wait" => by_hand::echo::<Crate<MinWait>>(args),
        _ => by_hand::echo::<Crate>(args),
    }
}

fn serve(args: &Args) -> Outcome {
    by_hand::serve::<Crate>("raw", args)
}

fn main() -> ExitCode {
    let mut works = by_hand::works::<Crate>();
    works.retain(|(name, _)| !["nop", "read", "echo"].contains(name));
    works.extend([("nop", nop as kit::Work), ("read", pread::read), ("echo", echo), ("serve", serve)]);
    kit::contest("raw", &works)
}
