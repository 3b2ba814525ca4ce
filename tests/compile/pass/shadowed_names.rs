//! Nothing of the prelude is what it was, and neither is `core`, `std` or `rummelplatz`.

#![forbid(unsafe_code)]
#![deny(warnings)]
#![allow(dead_code, unused_macros, non_camel_case_types)]

mod core {}
mod std {}
mod rummelplatz {}
mod __private {}
struct Result;
struct Option;
struct Some;
struct None;
struct Ok;
struct Err;
struct Box;
struct Vec;
struct String;
struct Ring;
struct AnyRing;
struct Tag;
struct Submitter;
struct Completion;
struct ControlFlow;
struct PhantomData;
struct Infallible;
struct bool;
struct str;
struct u8;
struct usize;
trait Debug {}
trait Display {}
trait Error {}
trait From {}
trait Into {}
trait Iterator {}
trait AsFd {}
trait Send {}
trait Sized {}
macro_rules! panic {
    () => {
        compile_error!("shadowed")
    };
}

#[::rummelplatz::ring(entries = 8)]
struct Server {
    operation: Operation,
    other: Other,
}

#[derive(::rummelplatz::RingOperation)]
#[ring_operation(ring = Server, data = (), warn = (), setup, on_completion, on_teardown_completion)]
struct Operation;

impl Operation {
    fn setup(&mut self, _: ::rummelplatz::Submitter<'_, Server, Self>) {}

    fn on_completion(
        &mut self,
        _: ::rummelplatz::Completion,
        _: (),
        _: ::rummelplatz::Submitter<'_, Server, Self>,
    ) {
    }

    fn on_teardown_completion(
        &mut self,
        _: ::rummelplatz::Completion,
        _: (),
        _: ::rummelplatz::Submitter<'_, Server, Self>,
    ) {
    }
}

#[derive(::rummelplatz::RingOperation)]
#[ring_operation(data = AnyRing, on_more, on_final)]
struct Other;

impl Other {
    fn on_more<R: ::rummelplatz::Ring>(
        &mut self,
        _: ::rummelplatz::Completion,
        _: &mut AnyRing,
        _: ::rummelplatz::Submitter<'_, R, Self>,
    ) {
    }

    fn on_final<R: ::rummelplatz::Ring>(
        &mut self,
        _: ::rummelplatz::Completion,
        _: AnyRing,
        _: ::rummelplatz::Submitter<'_, R, Self>,
    ) {
    }
}

fn main() {
    if let ::core::result::Result::Ok(raw) = Server::new_raw_ring(::core::num::NonZeroU32::MIN) {
        let mut server = Server::new(raw, ::core::option::Option::None, Operation, Other);
        ::core::assert!(server.run().is_ok());
    }
}
