/// Echoes.
pub struct EchoServer {
    __rummelplatz_runtime: ::rummelplatz::__private::Runtime<EchoServer>,
    /// Accepts.
    pub acceptor: Acceptor,
    connections: Connections,
}
/// Which operation of [`EchoServer`] failed: one variant for each.
#[allow(
    dead_code,
    private_interfaces,
    non_camel_case_types,
    deprecated,
    clippy::too_many_arguments
)]
pub enum EchoServerSetupError {
    /// Operation `acceptor`: its `setup` returned this.
    Acceptor(
        <::rummelplatz::__private::checked::Operation<
            Acceptor,
            { EchoServer::__CHECK_1 },
        > as ::rummelplatz::RingOperation<EchoServer>>::SetupError,
    ),
    /// Operation `connections`: its `setup` returned this.
    Connections(
        <::rummelplatz::__private::checked::Operation<
            Connections,
            { EchoServer::__CHECK_2 },
        > as ::rummelplatz::RingOperation<EchoServer>>::SetupError,
    ),
}
/// Which operation of [`EchoServer`] failed: one variant for each.
#[allow(
    dead_code,
    private_interfaces,
    non_camel_case_types,
    deprecated,
    clippy::too_many_arguments
)]
pub enum EchoServerCompletionError {
    /// Operation `acceptor`: its `on_completion` ended the ring with this.
    Acceptor(
        <::rummelplatz::__private::checked::Operation<
            Acceptor,
            { EchoServer::__CHECK_1 },
        > as ::rummelplatz::RingOperation<EchoServer>>::ControlFlowError,
    ),
    /// Operation `connections`: its `on_completion` ended the ring with this.
    Connections(
        <::rummelplatz::__private::checked::Operation<
            Connections,
            { EchoServer::__CHECK_2 },
        > as ::rummelplatz::RingOperation<EchoServer>>::ControlFlowError,
    ),
}
/// Which operation of [`EchoServer`] failed: one variant for each.
#[allow(
    dead_code,
    private_interfaces,
    non_camel_case_types,
    deprecated,
    clippy::too_many_arguments
)]
pub enum EchoServerTeardownError {
    /// Operation `acceptor`: its `on_teardown_completion` returned this.
    Acceptor(
        <::rummelplatz::__private::checked::Operation<
            Acceptor,
            { EchoServer::__CHECK_1 },
        > as ::rummelplatz::RingOperation<EchoServer>>::TeardownError,
    ),
    /// Operation `connections`: its `on_teardown_completion` returned this.
    Connections(
        <::rummelplatz::__private::checked::Operation<
            Connections,
            { EchoServer::__CHECK_2 },
        > as ::rummelplatz::RingOperation<EchoServer>>::TeardownError,
    ),
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
    type __Operation1 = ::rummelplatz::__private::checked::Operation<
        Acceptor,
        { EchoServer::__CHECK_1 },
    >;
    type __Operation2 = ::rummelplatz::__private::checked::Operation<
        Connections,
        { EchoServer::__CHECK_2 },
    >;
    #[automatically_derived]
    impl EchoServer {
        /// The tag of operation `acceptor`.
        pub const ACCEPTOR: ::rummelplatz::Tag<
            Self,
            ::rummelplatz::__private::checked::Operation<
                Acceptor,
                { EchoServer::__CHECK_1 },
            >,
        > = ::rummelplatz::Tag::<
            Self,
            __Operation1,
        >::__new(1u8, |__slabs| &__slabs.acceptor);
        #[doc(hidden)]
        const __CHECK_1: ::core::primitive::bool = {
            let _: ::core::marker::PhantomData<
                <Acceptor as ::rummelplatz::RingOperation<EchoServer>>::RingData,
            >;
            true
        };
        /// The tag of operation `connections`.
        const CONNECTIONS: ::rummelplatz::Tag<
            Self,
            ::rummelplatz::__private::checked::Operation<
                Connections,
                { EchoServer::__CHECK_2 },
            >,
        > = ::rummelplatz::Tag::<
            Self,
            __Operation2,
        >::__new(2u8, |__slabs| &__slabs.connections);
        #[doc(hidden)]
        const __CHECK_2: ::core::primitive::bool = {
            let _: ::core::marker::PhantomData<
                <Connections as ::rummelplatz::RingOperation<EchoServer>>::RingData,
            >;
            true
        };
        /// Creates the kernel's side of the ring, with `entries` rounded up to a power of two.
        ///
        /// # Errors
        /// When the kernel cannot, or may not, create it; the error says why.
        pub fn new_raw_ring(
            entries: ::core::num::NonZeroU32,
        ) -> ::core::result::Result<::rummelplatz::RawRing, ::rummelplatz::BuildError> {
            __rt::new_raw_ring::<Self>(entries)
        }
        /// Makes the ring of its kernel side and its operations, these in the order of the fields.
        ///
        /// At most `backlog_limit` requests wait for room in the submission queue; `None` is the default.
        pub fn new(
            raw: ::rummelplatz::RawRing,
            backlog_limit: ::core::option::Option<::core::num::NonZeroUsize>,
            acceptor: Acceptor,
            connections: Connections,
        ) -> Self {
            __rt::new(
                raw,
                backlog_limit,
                __Operations {
                    acceptor,
                    connections,
                    __rummelplatz_ring: ::core::marker::PhantomData,
                },
            )
        }
        /// Begins to build a ring: everything that can be set, and then `build`.
        pub fn builder(
            acceptor: Acceptor,
            connections: Connections,
        ) -> ::rummelplatz::Builder<Self> {
            __rt::builder(__Operations {
                acceptor,
                connections,
                __rummelplatz_ring: ::core::marker::PhantomData,
            })
        }
        /// Sets all operations up and runs the ring until it exits, fails, or has nothing left to wait for;
        /// then cancels and drains whatever is in flight.
        ///
        /// # Errors
        /// The first cause of the end, with every error of the teardown.
        pub fn run(
            &mut self,
        ) -> ::core::result::Result<(), ::rummelplatz::RingError<Self>> {
            __rt::run(self)
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
        pub fn turn(
            &mut self,
        ) -> ::core::result::Result<
            ::rummelplatz::Progress,
            ::rummelplatz::RingError<Self>,
        > {
            __rt::turn(self)
        }
        /// Cancels and drains everything in flight. If nothing is, and no run has begun, does nothing.
        ///
        /// # Errors
        /// As for `run`.
        pub fn finish(
            &mut self,
        ) -> ::core::result::Result<(), ::rummelplatz::RingError<Self>> {
            __rt::finish(self)
        }
        /// Submits to an operation from outside a handler: before `run`, or between `turn`s.
        pub fn submitter<Op: ::rummelplatz::RingOperation<Self>>(
            &mut self,
            tag: ::rummelplatz::Tag<Self, Op>,
        ) -> ::rummelplatz::Submitter<'_, Self, Op> {
            __rt::submitter(self, tag)
        }
        /// Returns a strong handle, for other threads: as long as it lives, `run` waits for what it may send.
        pub fn handle(&mut self) -> ::rummelplatz::RingHandle<Self> {
            __rt::handle(self)
        }
        /// Returns what the ring has counted so far.
        pub fn stats(&self) -> ::rummelplatz::Stats {
            __rt::stats(self)
        }
    }
    #[doc(hidden)]
    pub struct __Slabs {
        acceptor: __rt::SlabCell<
            <__Operation1 as ::rummelplatz::RingOperation<EchoServer>>::RingData,
        >,
        connections: __rt::SlabCell<
            <__Operation2 as ::rummelplatz::RingOperation<EchoServer>>::RingData,
        >,
        __rummelplatz_ring: ::core::marker::PhantomData<fn() -> EchoServer>,
    }
    #[doc(hidden)]
    pub struct __Operations {
        acceptor: Acceptor,
        connections: Connections,
        __rummelplatz_ring: ::core::marker::PhantomData<fn() -> EchoServer>,
    }
    #[automatically_derived]
    impl __rt::RingShape for EchoServer {
        type Slabs = __Slabs;
        type SetupError = EchoServerSetupError;
        type CompletionError = EchoServerCompletionError;
        type TeardownError = EchoServerTeardownError;
        const NAME: &'static ::core::primitive::str = "EchoServer";
        const OPERATIONS: &'static [(
            ::core::primitive::u8,
            &'static ::core::primitive::str,
        )] = &[(1u8, "acceptor"), (2u8, "connections")];
        const OPTIONS: __rt::Options = __rt::Options::new();
        fn slabs() -> Self::Slabs {
            __Slabs {
                acceptor: __rt::SlabCell::new(1u8),
                connections: __rt::SlabCell::new(2u8),
                __rummelplatz_ring: ::core::marker::PhantomData,
            }
        }
        fn slab(
            __slabs: &Self::Slabs,
            __tag: ::core::primitive::u8,
        ) -> ::core::option::Option<__rt::SlabRef<'_>> {
            match __tag {
                1u8 => ::core::option::Option::Some(__slabs.acceptor.any()),
                2u8 => ::core::option::Option::Some(__slabs.connections.any()),
                _ => ::core::option::Option::None,
            }
        }
    }
    #[automatically_derived]
    impl __rt::RingParts for EchoServer {
        type Operations = __Operations;
        fn assemble(
            __runtime: __rt::Runtime<Self>,
            __operations: Self::Operations,
        ) -> Self {
            Self {
                __rummelplatz_runtime: __runtime,
                acceptor: __operations.acceptor,
                connections: __operations.connections,
            }
        }
        fn runtime(&self) -> &__rt::Runtime<Self> {
            &self.__rummelplatz_runtime
        }
        #[inline]
        fn runtime_mut(&mut self) -> &mut __rt::Runtime<Self> {
            &mut self.__rummelplatz_runtime
        }
        fn setup(&mut self) -> ::core::result::Result<(), Self::SetupError> {
            __rt::setup::<
                Self,
                __Operation1,
            >(&mut self.__rummelplatz_runtime, &mut self.acceptor, Self::ACCEPTOR)
                .map_err(EchoServerSetupError::Acceptor)?;
            __rt::setup::<
                Self,
                __Operation2,
            >(&mut self.__rummelplatz_runtime, &mut self.connections, Self::CONNECTIONS)
                .map_err(EchoServerSetupError::Connections)?;
            ::core::result::Result::Ok(())
        }
        fn deliver_all(&mut self, __round: &__rt::Round) -> ::core::primitive::bool {
            __rt::deliver_all(self, __round)
        }
        #[inline]
        fn dispatch(&mut self, __round: &__rt::Round) {
            match __rt::next_tag(&self.__rummelplatz_runtime) {
                ::core::option::Option::Some(1u8) => self.__deliver_1(__round),
                ::core::option::Option::Some(2u8) => self.__deliver_2(__round),
                _ => __rt::unclaimed(&mut self.__rummelplatz_runtime, __round),
            }
        }
    }
    #[automatically_derived]
    impl EchoServer {
        #[inline(always)]
        fn __deliver_1(&mut self, __round: &__rt::Round) {
            __rt::deliver::<
                Self,
                __Operation1,
            >(
                &mut self.__rummelplatz_runtime,
                &mut self.acceptor,
                Self::ACCEPTOR,
                __rt::Glue::<Self, __Operation1> {
                    warn: __rt::probe::show!(
                        < __Operation1 as ::rummelplatz::RingOperation < EchoServer >>
                        ::ControlFlowWarn
                    ),
                    completion_error: EchoServerCompletionError::Acceptor,
                    teardown_error: EchoServerTeardownError::Acceptor,
                },
                __round,
            )
        }
        #[inline(always)]
        fn __deliver_2(&mut self, __round: &__rt::Round) {
            __rt::deliver::<
                Self,
                __Operation2,
            >(
                &mut self.__rummelplatz_runtime,
                &mut self.connections,
                Self::CONNECTIONS,
                __rt::Glue::<Self, __Operation2> {
                    warn: __rt::probe::show!(
                        < __Operation2 as ::rummelplatz::RingOperation < EchoServer >>
                        ::ControlFlowWarn
                    ),
                    completion_error: EchoServerCompletionError::Connections,
                    teardown_error: EchoServerTeardownError::Connections,
                },
                __round,
            )
        }
    }
    #[automatically_derived]
    impl ::core::fmt::Debug for EchoServer {
        fn fmt(
            &self,
            __formatter: &mut ::core::fmt::Formatter<'_>,
        ) -> ::core::fmt::Result {
            __rt::fmt(self, __formatter)
        }
    }
    #[automatically_derived]
    impl __rt::AsFd for EchoServer {
        fn as_fd(&self) -> __rt::BorrowedFd<'_> {
            __rt::AsFd::as_fd(&self.__rummelplatz_runtime)
        }
    }
    #[automatically_derived]
    impl __rt::AsRawFd for EchoServer {
        fn as_raw_fd(&self) -> __rt::RawFd {
            __rt::AsRawFd::as_raw_fd(&self.__rummelplatz_runtime)
        }
    }
    __rt::probe::operation_error! {
        impl [] for [EchoServerSetupError] [] Acceptor = "acceptor", Connections =
        "connections",
    }
    __rt::probe::operation_error! {
        impl [] for [EchoServerCompletionError] [] Acceptor = "acceptor", Connections =
        "connections",
    }
    __rt::probe::operation_error! {
        impl [] for [EchoServerTeardownError] [] Acceptor = "acceptor", Connections =
        "connections",
    }
};
