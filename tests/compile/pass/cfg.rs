//! A field that is configured out takes everything of it along, but leaves a gap in the tags.

#![forbid(unsafe_code)]
#![deny(warnings)]

use rummelplatz::{RingOperation, ring};

#[ring]
struct Server {
    #[cfg(any())]
    gone: NoSuchType,
    #[cfg(not(any()))]
    first: Operation,
    #[cfg_attr(all(), cfg(any()), doc = "documented")]
    gone_too: NoSuchType,
    #[cfg_attr(all(), doc = "documented", cfg(all()))]
    #[cfg_attr(any(), no_such_attribute)]
    second: Operation,
    // One or the other, under one name.
    #[cfg(any())]
    platform: NoSuchType,
    #[cfg(not(any()))]
    platform: Operation,
}

#[derive(RingOperation)]
struct Operation;

fn main() {
    let numbers: Vec<_> = <Server as rummelplatz::__private::RingShape>::OPERATIONS.to_vec();
    assert_eq!(numbers, [(2, "first"), (4, "second"), (6, "platform")]);
    let _: fn(_, _, Operation, Operation, Operation) -> Server = Server::new;
    let errors = |error: ServerCompletionError| match error {
        ServerCompletionError::First(never)
        | ServerCompletionError::Second(never)
        | ServerCompletionError::Platform(never) => match never {},
    };
    let _ = (Server::FIRST, Server::SECOND, Server::PLATFORM, errors);
}
