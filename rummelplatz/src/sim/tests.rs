//! What no ring lets its user queue: a link that leads to nothing, and drains. If one is queued all the same,
//! as the deliberate faults of `--cfg mutant` do, the simulated kernel does what the real one does.

use std::io::Write;
use std::num::NonZeroU32;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use io_uring::squeue::{Entry, Flags};
use io_uring::{opcode, types::Fd};

use super::{Faults, Simulation};
use crate::queue::{Patience, Uring};
use crate::request::Placed;

/// Queues on a kernel in which nothing goes wrong, without a ring that checks what is queued.
fn queues() -> (Simulation, Uring) {
    let simulation = Simulation::new(1);
    simulation.set_faults(Faults::none());
    let raw = simulation.raw_ring(NonZeroU32::new(8).unwrap()).unwrap();
    (simulation, Uring::new(raw.kernel, 0))
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
