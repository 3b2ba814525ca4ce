//! A ring of the `io-uring` crate, and the loop around it.

use std::io;
use std::marker::PhantomData;

use io_uring::squeue::Entry;
use io_uring::{Builder, IoUring, SubmissionQueue, Submitter};
use kit::by_hand::{Completion, Queue, Ring};
use kit::{Args, Error};

/// How the ring is set up, and how it waits.
pub(crate) trait Wait {
    fn setup(builder: &mut Builder) {
        builder.setup_coop_taskrun().setup_single_issuer().setup_defer_taskrun();
    }

    fn submit_and_wait(submitter: &Submitter<'_>, want: usize) -> io::Result<usize> {
        submitter.submit_and_wait(want)
    }
}

/// The usual setup.
pub(crate) struct Plain;

impl Wait for Plain {}

/// A ring of the `io-uring` crate.
pub(crate) struct Crate<W = Plain> {
    wait: PhantomData<W>,
    ring: IoUring,
    /// Whether the ring's descriptor is to be registered.
    fast: bool,
    /// Entries for which there was no room in the submission queue.
    backlog: Vec<Entry>,
}

pub(crate) struct Entries<'a> {
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
    /// Moves as much of the backlog to the queue as it has room for.
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
            // What waits for room in the queue must not wait for a completion.
            match W::submit_and_wait(&submitter, usize::from(queue.backlog.is_empty())) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            // The kernel has made room. Code that looks at this only before submitting would see a full queue.
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
