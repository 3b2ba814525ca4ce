//! Messages with control messages: descriptors that are passed, and what is said of datagrams.

use rummelplatz_tests::{addressable, messages, watched};

#[test]
fn files_are_passed_and_read_from() {
    watched(|| messages::files_are_passed_and_read_from(|| addressable(8).0));
}

#[test]
fn descriptors_that_nobody_takes_are_closed() {
    watched(|| messages::descriptors_that_nobody_takes_are_closed(|| addressable(8).0));
}

#[test]
fn what_is_used_again_closes_what_it_has() {
    watched(|| messages::what_is_used_again_closes_what_it_has(|| addressable(8).0));
}

#[test]
fn what_can_not_be_passed_is_refused() {
    watched(|| messages::what_can_not_be_passed_is_refused(|| addressable(8).0));
}

#[test]
fn a_datagram_says_where_it_was_sent_to_and_how() {
    watched(|| messages::a_datagram_says_where_it_was_sent_to_and_how(|| addressable(8).0));
}

#[test]
fn a_message_says_who_has_sent_it() {
    watched(|| messages::a_message_says_who_has_sent_it(|| addressable(8).0));
}

#[test]
fn datagrams_are_split_and_joined() {
    watched(|| messages::datagrams_are_split_and_joined(|| addressable(8).0));
}
