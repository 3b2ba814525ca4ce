//! Names that the macro, the runtime or the language use themselves; and two fields of one type.

#![forbid(unsafe_code)]
#![deny(warnings)]

use rummelplatz::{RingOperation, ring};

#[ring]
struct r#Match {
    ring: Op,
    backlog: Op,
    backlog_limit: Op,
    slabs: Op,
    slab: Op,
    new: Op,
    new_raw_ring: Op,
    builder: Op,
    run: Op,
    turn: Op,
    finish: Op,
    stats: Op,
    handle: Op,
    submitter: Op,
    self_: Op,
    runtime: Op,
    runtime_mut: Op,
    operations: Op,
    options: Op,
    name: Op,
    assemble: Op,
    dispatch: Op,
    delivery: Op,
    setup: Op,
    raw: Op,
    tag: Op,
    entries: Op,
    error: Op,
    source: Op,
    failure: Op,
    ok: Op,
    err: Op,
    some: Op,
    none: Op,
    cancel: Op,
    debug: Op,
    _1: Op,
    _underscored: Op,
    a1: Op,
    a_1: Op,
    r#type: Op,
    r#async: Op,
    r#fn: Op,
    über: Op,
    字: Op,
}

#[derive(RingOperation)]
struct Op;

/// An operation of one name with the ring's, and one with the generated parameter's.
mod again {
    use rummelplatz::{RingOperation, ring};

    #[ring]
    pub struct Ring<R> {
        op: Op<R>,
        runtime: Runtime,
    }

    #[derive(RingOperation)]
    pub struct Op<R>(pub R);

    #[derive(RingOperation)]
    pub struct Runtime;

    pub fn check() {
        if let Ok(raw) = Ring::<u8>::new_raw_ring(std::num::NonZeroU32::MIN) {
            let mut ring = Ring::new(raw, None, Op(5_u8), Runtime);
            ring.run().unwrap();
            drop(ring.submitter(Ring::OP));
            assert_eq!(ring.op.0, 5);
        }
    }
}

fn main() {
    again::check();
    let _ =
        (Match::SELF_, Match::TYPE, Match::ASYNC, Match::_1, Match::A1, Match::A_1, Match::ÜBER, Match::字);
    let name = |error: MatchSetupError| match error {
        MatchSetupError::Self_(never) | MatchSetupError::Type(never) => match never {},
        _ => "another",
    };
    let _ = name;
}
