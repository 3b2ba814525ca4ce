//! Rings and operations written by other macros.

#![forbid(unsafe_code)]
#![deny(warnings)]

use rummelplatz::{Completion, Ring, RingOperation, Submitter, Tag, ring};

macro_rules! ring_of {
    ($name:ident { $($field:ident: $type:ty),* $(,)? }) => {
        #[ring(entries = 4)]
        struct $name {
            $($field: $type,)*
            always: Always,
        }

        impl $name {
            fn always() -> Tag<Self, Always> {
                Self::ALWAYS
            }
        }
    };
}

macro_rules! operation {
    ($name:ident($data:ty)) => {
        #[derive(RingOperation)]
        #[ring_operation(data = $data, on_completion)]
        struct $name;

        impl $name {
            fn on_completion<R: Ring>(&mut self, _: Completion, data: $data, _: Submitter<'_, R, Self>) {
                drop(data);
            }
        }
    };
    ($name:ident, $handler:ident) => {
        #[derive(RingOperation)]
        #[ring_operation(on_completion = $handler)]
        struct $name;

        impl $name {
            fn $handler<R: Ring>(&mut self, _: Completion, _: (), _: Submitter<'_, R, Self>) {}
        }
    };
}

ring_of!(Server { first: Always, second: Other, ring: Renamed });
operation!(Always(Vec<u8>));
operation!(Other((u8, String)));
operation!(Renamed, on_completion);

fn main() {
    let Ok(raw) = Server::new_raw_ring(std::num::NonZeroU32::MIN) else { return };
    let mut server = Server::new(raw, None, Always, Other, Renamed, Always);
    server.submitter(Server::always()).post(vec![1]).unwrap();
    server.submitter(Server::SECOND).post((1, String::new())).unwrap();
    server.run().unwrap();
}
