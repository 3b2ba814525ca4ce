//! Deprecation is for the users of a ring, not for what is generated around it.

#![forbid(unsafe_code)]
#![deny(warnings)]

pub mod library {
    #![allow(deprecated)]

    use rummelplatz::{RingOperation, ring};

    #[ring]
    pub struct Server {
        pub accept: Accept,
    }

    #[deprecated]
    #[derive(RingOperation)]
    pub struct Accept;
}

/// Here nothing is allowed.
pub mod strict {
    use rummelplatz::{Completion, Ring, RingOperation, Submitter, ring};

    #[ring]
    #[deprecated = "use another"]
    pub struct Old {
        #[deprecated = "use the other"]
        pub accept: Accept,
        pub other: Accept,
    }

    #[derive(RingOperation)]
    #[ring_operation(on_completion)]
    pub struct Accept;

    impl Accept {
        #[deprecated]
        fn on_completion<R: Ring>(&mut self, _: Completion, _: (), _: Submitter<'_, R, Self>) {}
    }
}

fn main() {}
