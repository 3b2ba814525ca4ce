//! Pipes and epoll sets, on this kernel.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use rummelplatz::request::Pipe;
use rummelplatz::{ControlFlow, RawRing, Request, request};
use rummelplatz_tests::{
    Bench, Log, Script, addressable, in_child, open_descriptors, outcome, pipes, set_limit, watched,
};

fn raw() -> RawRing {
    addressable(8).0
}

#[test]
fn a_pipe_has_two_ends_until_they_are_taken() {
    watched(|| pipes::a_pipe_has_two_ends_until_they_are_taken(raw));
}

#[test]
fn a_pipe_that_was_never_begun_has_no_ends() {
    watched(|| pipes::a_pipe_that_was_never_begun_has_no_ends(raw));
}

#[test]
fn a_set_tells_what_has_happened_to_its_files() {
    watched(|| pipes::a_set_tells_what_has_happened_to_its_files(raw));
}

/// A pipe, and how many are to be made after it.
struct Making(Pipe, u32);

impl Making {
    fn request(&mut self) -> Request<'_> {
        match self.1 {
            0 => request::timeout(Duration::from_millis(1)),
            _ => request::pipe(&mut self.0),
        }
    }
}

#[test]
fn pipes_that_nobody_takes_are_closed_however_the_ring_ends() {
    in_child(|| {
        if !pipes::has_pipes(raw()) {
            return;
        }
        let before = open_descriptors();
        for end in ["detached", "returned", "exit", "panic", "dropped"] {
            let script = Script::new()
                .on_setup_once(move |mut submitter| {
                    for count in [1, 2, 5] {
                        match end {
                            "detached" => submitter.detach(Making(Pipe::new(), 1), Making::request)?,
                            _ => _ = submitter.submit(Making(Pipe::new(), count), Making::request)?,
                        }
                    }
                    Ok(())
                })
                .on_completion(move |completion, mut making: Making, mut submitter| {
                    completion.result().unwrap();
                    making.1 = making.1.saturating_sub(1);
                    match (end, making.1) {
                        ("returned", _) => return (ControlFlow::Continue, Some(making)),
                        ("exit", 0) => return (ControlFlow::Exit, None),
                        ("panic", 0) => resume_unwind(Box::new("on purpose")),
                        (_, 0) => {}
                        // In the same place, or in another while the first one is still there.
                        (_, left) => {
                            let next = if left % 2 == 0 { making } else { Making(Pipe::new(), left) };
                            submitter.submit(next, Making::request).unwrap();
                        }
                    }
                    (ControlFlow::Continue, None)
                });
            let mut ring = Bench::with(8, script);
            match end {
                "panic" => drop(catch_unwind(AssertUnwindSafe(|| ring.run())).unwrap_err()),
                "dropped" => drop(ring.turn().unwrap()),
                _ => ring.run().unwrap(),
            }
            drop(ring);
            assert_eq!(open_descriptors(), before, "{end}");
        }
    });
}

#[test]
fn without_room_for_both_ends_there_is_none() {
    in_child(|| {
        if !pipes::has_pipes(raw()) {
            return;
        }
        let seen = Log::new();
        let log = seen.clone();
        let script = Script::new()
            .on_setup_once(move |mut submitter| {
                submitter.submit(Making(Pipe::new(), 0), Making::request)?;
                Ok(())
            })
            .on_completion(move |completion, mut making: Making, mut submitter| {
                if making.1 == 0 {
                    // Of all that are left, one is allowed.
                    let free = io::stdout().as_fd().try_clone_to_owned().unwrap();
                    set_limit(libc::RLIMIT_NOFILE, free.as_raw_fd() as u64 + 1);
                    drop(free);
                    submitter.submit(Making(Pipe::new(), 1), Making::request).unwrap();
                } else {
                    log.push((outcome(&completion), making.0.take().is_none()));
                }
                (ControlFlow::Continue, None)
            });
        Bench::with(8, script).run().unwrap();
        assert_eq!(seen.take(), [(Err(libc::EMFILE), true)]);
    });
}
