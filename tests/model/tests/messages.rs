//! Messages with control messages, as the simulated kernel sends and receives them.

use std::num::NonZeroU32;

use rummelplatz::RawRing;
use rummelplatz::sim::{Faults, Simulation};
use rummelplatz_tests::{PATIENCE, messages, watched};

/// A ring on a kernel that takes its time.
fn slow() -> RawRing {
    let simulation = Simulation::new(1);
    simulation.set_faults(Faults { running: 0.5, delay: 0.5, ..Faults::none() });
    // What it waits for may be up to another thread or a child.
    simulation.set_patience(PATIENCE);
    simulation.raw_ring(NonZeroU32::new(4).unwrap()).unwrap()
}

#[test]
fn files_are_passed_and_read_from() {
    watched(|| messages::files_are_passed_and_read_from(slow));
}

#[test]
fn descriptors_that_nobody_takes_are_closed() {
    watched(|| messages::descriptors_that_nobody_takes_are_closed(slow));
}

#[test]
fn what_is_used_again_closes_what_it_has() {
    watched(|| messages::what_is_used_again_closes_what_it_has(slow));
}

#[test]
fn what_can_not_be_passed_is_refused() {
    watched(|| messages::what_can_not_be_passed_is_refused(slow));
}

#[test]
fn a_datagram_says_where_it_was_sent_to_and_how() {
    watched(|| messages::a_datagram_says_where_it_was_sent_to_and_how(slow));
}

#[test]
fn a_message_says_who_has_sent_it() {
    watched(|| messages::a_message_says_who_has_sent_it(slow));
}

#[test]
fn datagrams_are_split_and_joined() {
    watched(|| messages::datagrams_are_split_and_joined(slow));
}

#[test]
fn a_stream_of_datagrams_says_what_comes_with_them() {
    watched(|| messages::a_stream_of_datagrams_says_what_comes_with_them(slow));
}

#[test]
fn a_stream_closes_the_descriptors_that_come() {
    watched(|| messages::a_stream_closes_the_descriptors_that_come(slow));
}

#[test]
fn a_message_that_waits_for_room_goes_out_with_its_descriptors_once() {
    watched(|| messages::a_message_that_waits_for_room_goes_out_with_its_descriptors_once(slow));
}
