//! A tag is as visible as its field, the rest as the ring. Private operations in a public ring are nobody's business.

#![forbid(unsafe_code)]
#![deny(warnings, unreachable_pub, private_interfaces, private_bounds)]

pub mod outer {
    pub mod inner {
        use rummelplatz::{Completion, RingOperation, Submitter, ring};

        #[ring]
        pub struct Public {
            pub shown: Shown,
            pub(crate) for_crate: Shown,
            pub(super) for_outer: Shown,
            pub(in crate::outer) for_path: Shown,
            pub(self) for_module: Shown,
            hidden: Hidden,
        }

        #[derive(RingOperation)]
        pub struct Shown;

        #[derive(RingOperation)]
        #[ring_operation(ring = Public, data = Secret, warn = Secret, error = Secret, on_completion)]
        struct Hidden;

        struct Secret;

        impl Hidden {
            fn on_completion(
                &mut self,
                _: Completion,
                data: Secret,
                mut submitter: Submitter<'_, Public, Self>,
            ) -> Option<Secret> {
                let _ = submitter.to(Public::HIDDEN).post(Secret);
                let _ = submitter.to(Public::FOR_MODULE).post(());
                Some(data)
            }
        }

        pub fn new() -> Option<Public> {
            let raw = Public::new_raw_ring(std::num::NonZeroU32::MIN).ok()?;
            Some(Public::new(raw, None, Shown, Shown, Shown, Shown, Shown, Hidden))
        }
    }

    pub fn use_it(ring: &mut inner::Public) {
        drop(ring.submitter(inner::Public::FOR_OUTER));
        drop(ring.submitter(inner::Public::FOR_PATH));
    }
}

mod private {
    use rummelplatz::{RingOperation, ring};

    #[ring]
    pub(super) struct ForSuper {
        pub(super) operation: Operation,
    }

    #[derive(RingOperation)]
    pub(super) struct Operation;
}

fn main() {
    if let Some(mut ring) = outer::inner::new() {
        outer::use_it(&mut ring);
        ring.run().unwrap();
        drop(ring.submitter(outer::inner::Public::SHOWN));
        drop(ring.submitter(outer::inner::Public::FOR_CRATE));
    }
    if let Ok(raw) = private::ForSuper::new_raw_ring(std::num::NonZeroU32::MIN) {
        let mut ring = private::ForSuper::new(raw, None, private::Operation);
        ring.run().unwrap();
        drop(ring.submitter(private::ForSuper::OPERATION));
    }

    // A ring may also live in a function.
    #[rummelplatz::ring]
    struct Local {
        operation: LocalOperation,
    }

    #[derive(rummelplatz::RingOperation)]
    struct LocalOperation;

    if let Ok(raw) = Local::new_raw_ring(std::num::NonZeroU32::MIN) {
        Local::new(raw, None, LocalOperation).run().unwrap();
    }
}
