struct Server<'a> {
    acceptor: &'a mut Acceptor,
    timer: Timer,
    TIMER: Timer,
}
#[allow(
    dead_code,
    private_interfaces,
    non_camel_case_types,
    deprecated,
    clippy::too_many_arguments
)]
const _: () = {
    use ::rummelplatz::__private as __rt;
    #[allow(unused_variables)]
    #[automatically_derived]
    impl<'a> Server<'a> {
        /// The tag of operation `acceptor`.
        const ACCEPTOR: ::rummelplatz::Tag<
            Self,
            ::rummelplatz::__private::checked::Operation<
                Acceptor,
                { Server::<'static>::__CHECK_1 },
            >,
        > = ::rummelplatz::Tag::<
            Self,
            ::rummelplatz::__private::checked::Operation<
                Acceptor,
                { Server::<'static>::__CHECK_1 },
            >,
        >::__new(1u8, |__slabs| loop {});
        #[doc(hidden)]
        const __CHECK_1: ::core::primitive::bool = {
            let _: ::core::marker::PhantomData<
                <Acceptor as ::rummelplatz::RingOperation<Server<'a>>>::RingData,
            >;
            true
        };
        /// The tag of operation `timer`.
        const TIMER: ::rummelplatz::Tag<
            Self,
            ::rummelplatz::__private::checked::Operation<
                Timer,
                { Server::<'static>::__CHECK_2 },
            >,
        > = ::rummelplatz::Tag::<
            Self,
            ::rummelplatz::__private::checked::Operation<
                Timer,
                { Server::<'static>::__CHECK_2 },
            >,
        >::__new(2u8, |__slabs| loop {});
        #[doc(hidden)]
        const __CHECK_2: ::core::primitive::bool = {
            let _: ::core::marker::PhantomData<
                <Timer as ::rummelplatz::RingOperation<Server<'a>>>::RingData,
            >;
            true
        };
        #[doc(hidden)]
        const __CHECK_3: ::core::primitive::bool = {
            let _: ::core::marker::PhantomData<
                <Timer as ::rummelplatz::RingOperation<Server<'a>>>::RingData,
            >;
            true
        };
        /// Creates the kernel's side of the ring, with `entries` rounded up to a power of two.
        ///
        /// # Errors
        /// When the kernel cannot, or may not, create it; the error says why.
        fn new_raw_ring(
            entries: ::core::num::NonZeroU32,
        ) -> ::core::result::Result<::rummelplatz::RawRing, ::rummelplatz::BuildError> {
            loop {}
        }
        /// Makes the ring of its kernel side and its operations, these in the order of the fields.
        ///
        /// At most `backlog_limit` requests wait for room in the submission queue; `None` is the default.
        fn new(
            raw: ::rummelplatz::RawRing,
            backlog_limit: ::core::option::Option<::core::num::NonZeroUsize>,
            acceptor: &'a mut Acceptor,
            timer: Timer,
            TIMER: Timer,
        ) -> Self {
            loop {}
        }
        /// Begins to build a ring: everything that can be set, and then `build`.
        fn builder(
            acceptor: &'a mut Acceptor,
            timer: Timer,
            TIMER: Timer,
        ) -> ::rummelplatz::Builder<Self> {
            loop {}
        }
        /// Sets all operations up and runs the ring until it exits, fails, or has nothing left to wait for;
        /// then cancels and drains whatever is in flight.
        ///
        /// # Errors
        /// The first cause of the end, with every error of the teardown.
        fn run(&mut self) -> ::core::result::Result<(), ::rummelplatz::RingError<Self>> {
            loop {}
        }
        /// Does what can be done without blocking, for a ring inside another event loop.
        ///
        /// Once it reports that the ring has finished, take the ring's descriptor out of that loop:
        /// it may stay readable, and further turns change nothing.
        ///
        /// # Errors
        /// As for `run`; the ring has ended then. The exceptions are `WrongThread`, `Forked`, and an
        /// `Api` error from before the first request (no descriptor, no memory): after these, nothing
        /// was done, and all is as it was.
        fn turn(
            &mut self,
        ) -> ::core::result::Result<
            ::rummelplatz::Progress,
            ::rummelplatz::RingError<Self>,
        > {
            loop {}
        }
        /// Cancels and drains everything in flight. If nothing is, and no run has begun, does nothing.
        ///
        /// # Errors
        /// As for `run`.
        fn finish(
            &mut self,
        ) -> ::core::result::Result<(), ::rummelplatz::RingError<Self>> {
            loop {}
        }
        /// Submits to an operation from outside a handler: before `run`, or between `turn`s.
        fn submitter<Op: ::rummelplatz::RingOperation<Self>>(
            &mut self,
            tag: ::rummelplatz::Tag<Self, Op>,
        ) -> ::rummelplatz::Submitter<'_, Self, Op> {
            loop {}
        }
        /// Returns a strong handle, for other threads: as long as it lives, `run` waits for what it may send.
        fn handle(&mut self) -> ::rummelplatz::RingHandle<Self> {
            loop {}
        }
        /// Returns what the ring has counted so far.
        fn stats(&self) -> ::rummelplatz::Stats {
            loop {}
        }
    }
    #[automatically_derived]
    impl<'a> __rt::RingShape for Server<'a> {
        type Slabs = ();
        type SetupError = ::core::convert::Infallible;
        type CompletionError = ::core::convert::Infallible;
        type TeardownError = ::core::convert::Infallible;
        const NAME: &'static ::core::primitive::str = "Server";
        const OPERATIONS: &'static [(
            ::core::primitive::u8,
            &'static ::core::primitive::str,
        )] = &[];
        const OPTIONS: __rt::Options = __rt::Options::new();
        fn slabs() {}
        fn slab(
            _: &(),
            _: ::core::primitive::u8,
        ) -> ::core::option::Option<__rt::SlabRef<'_>> {
            loop {}
        }
    }
    #[automatically_derived]
    impl<'a> __rt::RingParts for Server<'a> {
        type Operations = ();
        fn assemble(_: __rt::Runtime<Self>, _: ()) -> Self {
            loop {}
        }
        fn runtime(&self) -> &__rt::Runtime<Self> {
            loop {}
        }
        fn runtime_mut(&mut self) -> &mut __rt::Runtime<Self> {
            loop {}
        }
        fn setup(&mut self) -> ::core::result::Result<(), ::core::convert::Infallible> {
            loop {}
        }
        fn dispatch(&mut self, _: &__rt::Round) {
            loop {}
        }
        fn deliver_all(&mut self, _: &__rt::Round) -> ::core::primitive::bool {
            loop {}
        }
    }
    #[automatically_derived]
    impl<'a> ::core::fmt::Debug for Server<'a> {
        fn fmt(
            &self,
            __formatter: &mut ::core::fmt::Formatter<'_>,
        ) -> ::core::fmt::Result {
            loop {}
        }
    }
    #[automatically_derived]
    impl<'a> __rt::AsFd for Server<'a> {
        fn as_fd(&self) -> __rt::BorrowedFd<'_> {
            loop {}
        }
    }
    #[automatically_derived]
    impl<'a> __rt::AsRawFd for Server<'a> {
        fn as_raw_fd(&self) -> __rt::RawFd {
            loop {}
        }
    }
};
::core::compile_error! {
    "unknown argument `sqpoll`; `#[ring]` takes `crate`, `entries`, `backlog_limit`, `grace_ms`, `deadline_ms`; all else belongs to the builder"
}
::core::compile_error! {
    "operations `timer` and `TIMER` would both have the tag `Server::TIMER`; rename one of them"
}
::core::compile_error! {
    "operation `acceptor` must be owned by the ring, not borrowed; store the value itself"
}
