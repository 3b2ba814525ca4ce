//! A kernel that has no multishot polls (before 5.13), by which a ring is woken.

use std::num::NonZeroU32;
use std::thread;

use rummelplatz::io_uring::opcode;
use rummelplatz::sim::{Answer, Faults, Simulation};
use rummelplatz::{Completion, ControlFlow, RingOperation, Submitter, ring};
use rummelplatz_tests::{PATIENCE, watched};

#[ring]
struct Small {
    inbox: Inbox,
}

#[derive(RingOperation)]
#[ring_operation(ring = Small, data = u32, on_completion)]
struct Inbox {
    seen: Vec<u32>,
}

impl Inbox {
    fn on_completion(&mut self, _: Completion, number: u32, _: Submitter<'_, Small, Self>) -> ControlFlow {
        self.seen.push(number);
        ControlFlow::Continue
    }
}

#[test]
fn a_ring_is_woken_again_and_again_without_multishot_polls() {
    const IORING_POLL_ADD_MULTI: u32 = 1;
    watched(|| {
        let simulation = Simulation::new(1);
        simulation.set_faults(Faults::none());
        simulation.set_patience(PATIENCE);
        simulation.on_request(|asked| match asked.opcode {
            opcode::PollAdd::CODE if asked.length & IORING_POLL_ADD_MULTI != 0 => {
                Answer::Finish(-libc::EINVAL)
            }
            _ => Answer::Perform,
        });
        let raw = simulation.raw_ring(NonZeroU32::new(4).unwrap()).unwrap();
        let mut ring = Small::new(raw, None, Inbox { seen: Vec::new() });
        let handle = ring.handle();
        let sender = thread::spawn(move || {
            for number in 0..50 {
                handle.send(Small::INBOX, number).unwrap();
                thread::yield_now();
            }
        });
        ring.run().unwrap();
        sender.join().unwrap();
        assert!(ring.inbox.seen.iter().copied().eq(0..50));
    });
}
