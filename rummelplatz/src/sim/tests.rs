//! What no ring lets its user queue: a link that leads to nothing, and drains. If one is queued all the same,
//! as the deliberate faults of `--cfg mutant` do, the simulated kernel does what the real one does.

use std::io::Write;
use std::num::NonZeroU32;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::ptr;

use io_uring::squeue::{Entry, Flags};
use io_uring::{opcode, types::Fd};

use super::asked::Asked;
use super::{Faults, Simulation, descriptors};
use crate::queue::{Patience, Uring};
use crate::request::Placed;

/// Queues on a kernel in which nothing goes wrong, without a ring that checks what is queued.
fn queues() -> (Simulation, Uring) {
    let simulation = Simulation::new(1);
    simulation.set_faults(Faults::none());
    let raw = simulation.raw_ring(NonZeroU32::new(8).unwrap()).unwrap();
    (simulation, Uring::new(raw.kernel, raw.asides, 0))
}

/// Submits entries, named by these numbers, all at once. Returns what has completed by then, in order.
fn submit(queues: &mut Uring, entries: &[(u64, Entry)]) -> Vec<(u64, i32)> {
    for (name, entry) in entries {
        // SAFETY: they point to nothing, and their descriptors are open as long as the test goes on.
        queues.push(unsafe { Placed::vouched(entry.clone(), *name) });
    }
    queues.enter(Patience::Poll).unwrap();
    let mut completed = Vec::new();
    while queues.look(u32::MAX) {
        while let Some(cqe) = queues.pop_known() {
            completed.push((cqe.user_data, cqe.result));
        }
    }
    completed
}

fn nop() -> Entry {
    opcode::Nop::new().build()
}

fn poll(socket: &UnixStream) -> Entry {
    opcode::PollAdd::new(Fd(socket.as_raw_fd()), libc::POLLIN as u32).build()
}

fn cancel(name: u64) -> Entry {
    opcode::AsyncCancel::new(name).build()
}

#[test]
fn a_link_at_the_end_of_a_chain_leads_to_whatever_is_queued_next() {
    let (_simulation, mut queues) = queues();
    let (ours, _theirs) = UnixStream::pair().unwrap();
    assert_eq!(submit(&mut queues, &[(1, poll(&ours))]), []);
    // The cancel becomes a part of the chain, and so cancels nothing.
    let dangling = poll(&ours).flags(Flags::IO_LINK);
    assert_eq!(submit(&mut queues, &[(2, dangling.clone()), (3, cancel(1))]), []);
    let ends = [(2, -libc::ECANCELED), (3, -libc::ECANCELED), (4, 0)];
    assert_eq!(submit(&mut queues, &[(4, cancel(2))]), ends);
    // The end of a submit is the end of the chain.
    assert_eq!(submit(&mut queues, &[(5, dangling)]), []);
    assert_eq!(submit(&mut queues, &[(6, cancel(1))]), [(1, -libc::ECANCELED), (6, 0)]);
    assert_eq!(submit(&mut queues, &[(7, cancel(5))]), [(5, -libc::ECANCELED), (7, 0)]);
}

#[test]
fn a_drain_waits_for_all_that_came_before_and_all_that_come_later_wait_for_it() {
    let (simulation, mut queues) = queues();
    let drain = || nop().flags(Flags::IO_DRAIN);
    // There is nothing to wait for.
    assert_eq!(submit(&mut queues, &[(1, drain()), (2, nop())]), [(1, 0), (2, 0)]);
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    assert_eq!(submit(&mut queues, &[(3, poll(&ours)), (4, drain()), (5, nop())]), []);
    // So no cancel comes through.
    assert_eq!(submit(&mut queues, &[(6, cancel(3))]), []);
    assert!(simulation.has(4) && simulation.has(6) && simulation.in_kernel() == 4);
    theirs.write_all(b"x").unwrap();
    let ends = [(3, i32::from(libc::POLLIN)), (4, 0), (5, 0), (6, -libc::ENOENT)];
    assert_eq!(submit(&mut queues, &[]), ends);
    assert_eq!(simulation.in_kernel(), 0);
}

/// What an entry asks for.
fn asked(entry: Entry) -> Asked {
    // SAFETY: an entry is that many bytes, all of them initialised.
    let words = unsafe { std::mem::transmute::<Entry, [u64; 8]>(entry) };
    // SAFETY: the entries of these tests point to nothing.
    unsafe { Asked::parse(words) }
}

#[test]
fn a_failed_close_has_ended_and_a_failed_transfer_may_have_to_wait() {
    let (close, send) = (opcode::Close::new(Fd(0)).build(), opcode::Send::new(Fd(0), ptr::null(), 0).build());
    let (close, send) = (asked(close), asked(send));
    for errno in [libc::EAGAIN, libc::EINPROGRESS, libc::EALREADY] {
        assert_eq!(descriptors::failed(&close, errno), Some(-errno), "or it would be closed twice");
        assert_eq!(descriptors::failed(&send, errno), None);
    }
    assert_eq!(descriptors::failed(&send, libc::EPIPE), Some(-libc::EPIPE));
}

#[test]
fn only_streams_have_descriptors_of_their_own_and_they_fail_without_one() {
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let mut single = asked(poll(&ours));
    assert!(single.keep_open().is_none() && single.number() == ours.as_raw_fd());
    let stream = |number| asked(opcode::PollAdd::new(Fd(number), libc::POLLIN as u32).multi(true).build());
    let mut open = stream(ours.as_raw_fd());
    let kept = open.keep_open().unwrap();
    assert_eq!((open.number(), open.descriptor, open.misses()), (kept.as_raw_fd(), ours.as_raw_fd(), None));
    assert_ne!(kept.as_raw_fd(), ours.as_raw_fd());
    // Even if somebody has that number by the time that it is tried.
    let mut closed = stream(i32::MAX);
    assert!(closed.keep_open().is_none());
    assert_eq!(closed.misses(), Some(-libc::EBADF));
}
