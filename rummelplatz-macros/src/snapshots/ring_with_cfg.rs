struct Server {
    __rummelplatz_runtime: ::rummelplatz::__private::Runtime<Server>,
    #[cfg(unix)]
    #[allow(unused)]
    unix: Op,
    #[cfg_attr(feature = "x", doc = "documented", cfg(windows))]
    windows: Op,
    #[cfg_attr(feature = "x", serde(skip))]
    both: Op,
}
/// Which operation of [`Server`] failed: one variant for each.
#[allow(
    dead_code,
    private_interfaces,
    non_camel_case_types,
    deprecated,
    clippy::too_many_arguments
)]
enum ServerSetupError {
    #[cfg(unix)]
    /// Operation `unix`: its `setup` returned this.
    Unix(
        <::rummelplatz::__private::checked::Operation<
            Op,
            { Server::__CHECK_1 },
        > as ::rummelplatz::RingOperation<Server>>::SetupError,
    ),
    #[cfg_attr(feature = "x", cfg(windows))]
    /// Operation `windows`: its `setup` returned this.
    Windows(
        <::rummelplatz::__private::checked::Operation<
            Op,
            { Server::__CHECK_2 },
        > as ::rummelplatz::RingOperation<Server>>::SetupError,
    ),
    /// Operation `both`: its `setup` returned this.
    Both(
        <::rummelplatz::__private::checked::Operation<
            Op,
            { Server::__CHECK_3 },
        > as ::rummelplatz::RingOperation<Server>>::SetupError,
    ),
}
/// Which operation of [`Server`] failed: one variant for each.
#[allow(
    dead_code,
    private_interfaces,
    non_camel_case_types,
    deprecated,
    clippy::too_many_arguments
)]
enum ServerCompletionError {
    #[cfg(unix)]
    /// Operation `unix`: its `on_completion` ended the ring with this.
    Unix(
        <::rummelplatz::__private::checked::Operation<
            Op,
            { Server::__CHECK_1 },
        > as ::rummelplatz::RingOperation<Server>>::ControlFlowError,
    ),
    #[cfg_attr(feature = "x", cfg(windows))]
    /// Operation `windows`: its `on_completion` ended the ring with this.
    Windows(
        <::rummelplatz::__private::checked::Operation<
            Op,
            { Server::__CHECK_2 },
        > as ::rummelplatz::RingOperation<Server>>::ControlFlowError,
    ),
    /// Operation `both`: its `on_completion` ended the ring with this.
    Both(
        <::rummelplatz::__private::checked::Operation<
            Op,
            { Server::__CHECK_3 },
        > as ::rummelplatz::RingOperation<Server>>::ControlFlowError,
    ),
}
/// Which operation of [`Server`] failed: one variant for each.
#[allow(
    dead_code,
    private_interfaces,
    non_camel_case_types,
    deprecated,
    clippy::too_many_arguments
)]
enum ServerTeardownError {
    #[cfg(unix)]
    /// Operation `unix`: its `on_teardown_completion` returned this.
    Unix(
        <::rummelplatz::__private::checked::Operation<
            Op,
            { Server::__CHECK_1 },
        > as ::rummelplatz::RingOperation<Server>>::TeardownError,
    ),
    #[cfg_attr(feature = "x", cfg(windows))]
    /// Operation `windows`: its `on_teardown_completion` returned this.
    Windows(
        <::rummelplatz::__private::checked::Operation<
            Op,
            { Server::__CHECK_2 },
        > as ::rummelplatz::RingOperation<Server>>::TeardownError,
    ),
    /// Operation `both`: its `on_teardown_completion` returned this.
    Both(
        <::rummelplatz::__private::checked::Operation<
            Op,
            { Server::__CHECK_3 },
        > as ::rummelplatz::RingOperation<Server>>::TeardownError,
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
    #[cfg(unix)]
    type __Operation1 = ::rummelplatz::__private::checked::Operation<
        Op,
        { Server::__CHECK_1 },
    >;
    #[cfg_attr(feature = "x", cfg(windows))]
    type __Operation2 = ::rummelplatz::__private::checked::Operation<
        Op,
        { Server::__CHECK_2 },
    >;
    type __Operation3 = ::rummelplatz::__private::checked::Operation<
        Op,
        { Server::__CHECK_3 },
    >;
    #[automatically_derived]
    impl Server {
        #[cfg(unix)]
        /// The tag of operation `unix`.
        const UNIX: ::rummelplatz::Tag<
            Self,
            ::rummelplatz::__private::checked::Operation<Op, { Server::__CHECK_1 }>,
        > = ::rummelplatz::Tag::<
            Self,
            __Operation1,
        >::__new(1u8, |__slabs| &__slabs.unix);
        #[cfg(unix)]
        #[doc(hidden)]
        const __CHECK_1: ::core::primitive::bool = {
            let _: ::core::marker::PhantomData<
                <Op as ::rummelplatz::RingOperation<Server>>::RingData,
            >;
            true
        };
        #[cfg_attr(feature = "x", cfg(windows))]
        /// The tag of operation `windows`.
        const WINDOWS: ::rummelplatz::Tag<
            Self,
            ::rummelplatz::__private::checked::Operation<Op, { Server::__CHECK_2 }>,
        > = ::rummelplatz::Tag::<
            Self,
            __Operation2,
        >::__new(2u8, |__slabs| &__slabs.windows);
        #[cfg_attr(feature = "x", cfg(windows))]
        #[doc(hidden)]
        const __CHECK_2: ::core::primitive::bool = {
            let _: ::core::marker::PhantomData<
                <Op as ::rummelplatz::RingOperation<Server>>::RingData,
            >;
            true
        };
        /// The tag of operation `both`.
        const BOTH: ::rummelplatz::Tag<
            Self,
            ::rummelplatz::__private::checked::Operation<Op, { Server::__CHECK_3 }>,
        > = ::rummelplatz::Tag::<
            Self,
            __Operation3,
        >::__new(3u8, |__slabs| &__slabs.both);
        #[doc(hidden)]
        const __CHECK_3: ::core::primitive::bool = {
            let _: ::core::marker::PhantomData<
                <Op as ::rummelplatz::RingOperation<Server>>::RingData,
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
            __rt::new_raw_ring::<Self>(entries)
        }
        /// Makes the ring of its kernel side and its operations, these in the order of the fields.
        ///
        /// At most `backlog_limit` requests wait for room in the submission queue; `None` is the default.
        fn new(
            raw: ::rummelplatz::RawRing,
            backlog_limit: ::core::option::Option<::core::num::NonZeroUsize>,
            #[cfg(unix)]
            unix: Op,
            #[cfg_attr(feature = "x", cfg(windows))]
            windows: Op,
            both: Op,
        ) -> Self {
            __rt::new(
                raw,
                backlog_limit,
                __Operations {
                    #[cfg(unix)]
                    unix,
                    #[cfg_attr(feature = "x", cfg(windows))]
                    windows,
                    both,
                    __rummelplatz_ring: ::core::marker::PhantomData,
                },
            )
        }
        /// Begins to build a ring: everything that can be set, and then `build`.
        fn builder(
            #[cfg(unix)]
            unix: Op,
            #[cfg_attr(feature = "x", cfg(windows))]
            windows: Op,
            both: Op,
        ) -> ::rummelplatz::Builder<Self> {
            __rt::builder(__Operations {
                #[cfg(unix)]
                unix,
                #[cfg_attr(feature = "x", cfg(windows))]
                windows,
                both,
                __rummelplatz_ring: ::core::marker::PhantomData,
            })
        }
        /// Sets all operations up and runs the ring until it exits, fails, or has nothing left to wait for;
        /// then cancels and drains whatever is in flight.
        ///
        /// # Errors
        /// The first cause of the end, with every error of the teardown.
        fn run(&mut self) -> ::core::result::Result<(), ::rummelplatz::RingError<Self>> {
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
        fn turn(
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
        fn finish(
            &mut self,
        ) -> ::core::result::Result<(), ::rummelplatz::RingError<Self>> {
            __rt::finish(self)
        }
        /// Submits to an operation from outside a handler: before `run`, or between `turn`s.
        fn submitter<Op: ::rummelplatz::RingOperation<Self>>(
            &mut self,
            tag: ::rummelplatz::Tag<Self, Op>,
        ) -> ::rummelplatz::Submitter<'_, Self, Op> {
            __rt::submitter(self, tag)
        }
        /// Returns a strong handle, for other threads: as long as it lives, `run` waits for what it may send.
        fn handle(&mut self) -> ::rummelplatz::RingHandle<Self> {
            __rt::handle(self)
        }
        /// Returns what the ring has counted so far.
        fn stats(&self) -> ::rummelplatz::Stats {
            __rt::stats(self)
        }
    }
    #[doc(hidden)]
    struct __Slabs {
        #[cfg(unix)]
        unix: __rt::SlabCell<
            <__Operation1 as ::rummelplatz::RingOperation<Server>>::RingData,
        >,
        #[cfg_attr(feature = "x", cfg(windows))]
        windows: __rt::SlabCell<
            <__Operation2 as ::rummelplatz::RingOperation<Server>>::RingData,
        >,
        both: __rt::SlabCell<
            <__Operation3 as ::rummelplatz::RingOperation<Server>>::RingData,
        >,
        __rummelplatz_ring: ::core::marker::PhantomData<fn() -> Server>,
    }
    #[doc(hidden)]
    struct __Operations {
        #[cfg(unix)]
        unix: Op,
        #[cfg_attr(feature = "x", cfg(windows))]
        windows: Op,
        both: Op,
        __rummelplatz_ring: ::core::marker::PhantomData<fn() -> Server>,
    }
    #[automatically_derived]
    impl __rt::RingShape for Server {
        type Slabs = __Slabs;
        type SetupError = ServerSetupError;
        type CompletionError = ServerCompletionError;
        type TeardownError = ServerTeardownError;
        const NAME: &'static ::core::primitive::str = "Server";
        const OPERATIONS: &'static [(
            ::core::primitive::u8,
            &'static ::core::primitive::str,
        )] = &[
            #[cfg(unix)]
            (1u8, "unix"),
            #[cfg_attr(feature = "x", cfg(windows))]
            (2u8, "windows"),
            (3u8, "both"),
        ];
        const OPTIONS: __rt::Options = __rt::Options::new();
        fn slabs() -> Self::Slabs {
            __Slabs {
                #[cfg(unix)]
                unix: __rt::SlabCell::new(1u8),
                #[cfg_attr(feature = "x", cfg(windows))]
                windows: __rt::SlabCell::new(2u8),
                both: __rt::SlabCell::new(3u8),
                __rummelplatz_ring: ::core::marker::PhantomData,
            }
        }
        fn slab(
            __slabs: &Self::Slabs,
            __tag: ::core::primitive::u8,
        ) -> ::core::option::Option<__rt::SlabRef<'_>> {
            match __tag {
                #[cfg(unix)]
                1u8 => ::core::option::Option::Some(__slabs.unix.any()),
                #[cfg_attr(feature = "x", cfg(windows))]
                2u8 => ::core::option::Option::Some(__slabs.windows.any()),
                3u8 => ::core::option::Option::Some(__slabs.both.any()),
                _ => ::core::option::Option::None,
            }
        }
    }
    #[automatically_derived]
    impl __rt::RingParts for Server {
        type Operations = __Operations;
        fn assemble(
            __runtime: __rt::Runtime<Self>,
            __operations: Self::Operations,
        ) -> Self {
            Self {
                __rummelplatz_runtime: __runtime,
                #[cfg(unix)]
                unix: __operations.unix,
                #[cfg_attr(feature = "x", cfg(windows))]
                windows: __operations.windows,
                both: __operations.both,
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
            #[cfg(unix)]
            __rt::setup::<
                Self,
                __Operation1,
            >(&mut self.__rummelplatz_runtime, &mut self.unix, Self::UNIX)
                .map_err(ServerSetupError::Unix)?;
            #[cfg_attr(feature = "x", cfg(windows))]
            __rt::setup::<
                Self,
                __Operation2,
            >(&mut self.__rummelplatz_runtime, &mut self.windows, Self::WINDOWS)
                .map_err(ServerSetupError::Windows)?;
            __rt::setup::<
                Self,
                __Operation3,
            >(&mut self.__rummelplatz_runtime, &mut self.both, Self::BOTH)
                .map_err(ServerSetupError::Both)?;
            ::core::result::Result::Ok(())
        }
        fn deliver_all(&mut self, __round: &__rt::Round) -> ::core::primitive::bool {
            __rt::deliver_all(self, __round)
        }
        #[inline]
        fn dispatch(&mut self, __round: &__rt::Round) {
            match __rt::next_tag(&self.__rummelplatz_runtime) {
                #[cfg(unix)]
                ::core::option::Option::Some(1u8) => self.__deliver_1(__round),
                #[cfg_attr(feature = "x", cfg(windows))]
                ::core::option::Option::Some(2u8) => self.__deliver_2(__round),
                ::core::option::Option::Some(3u8) => self.__deliver_3(__round),
                _ => __rt::unclaimed(&mut self.__rummelplatz_runtime, __round),
            }
        }
    }
    #[automatically_derived]
    impl Server {
        #[cfg(unix)]
        #[inline(always)]
        fn __deliver_1(&mut self, __round: &__rt::Round) {
            __rt::deliver::<
                Self,
                __Operation1,
            >(
                &mut self.__rummelplatz_runtime,
                &mut self.unix,
                Self::UNIX,
                __rt::Glue::<Self, __Operation1> {
                    warn: __rt::probe::show!(
                        < __Operation1 as ::rummelplatz::RingOperation < Server >>
                        ::ControlFlowWarn
                    ),
                    completion_error: ServerCompletionError::Unix,
                    teardown_error: ServerTeardownError::Unix,
                },
                __round,
            )
        }
        #[cfg_attr(feature = "x", cfg(windows))]
        #[inline(always)]
        fn __deliver_2(&mut self, __round: &__rt::Round) {
            __rt::deliver::<
                Self,
                __Operation2,
            >(
                &mut self.__rummelplatz_runtime,
                &mut self.windows,
                Self::WINDOWS,
                __rt::Glue::<Self, __Operation2> {
                    warn: __rt::probe::show!(
                        < __Operation2 as ::rummelplatz::RingOperation < Server >>
                        ::ControlFlowWarn
                    ),
                    completion_error: ServerCompletionError::Windows,
                    teardown_error: ServerTeardownError::Windows,
                },
                __round,
            )
        }
        #[inline(always)]
        fn __deliver_3(&mut self, __round: &__rt::Round) {
            __rt::deliver::<
                Self,
                __Operation3,
            >(
                &mut self.__rummelplatz_runtime,
                &mut self.both,
                Self::BOTH,
                __rt::Glue::<Self, __Operation3> {
                    warn: __rt::probe::show!(
                        < __Operation3 as ::rummelplatz::RingOperation < Server >>
                        ::ControlFlowWarn
                    ),
                    completion_error: ServerCompletionError::Both,
                    teardown_error: ServerTeardownError::Both,
                },
                __round,
            )
        }
    }
    #[automatically_derived]
    impl ::core::fmt::Debug for Server {
        fn fmt(
            &self,
            __formatter: &mut ::core::fmt::Formatter<'_>,
        ) -> ::core::fmt::Result {
            __rt::fmt(self, __formatter)
        }
    }
    #[automatically_derived]
    impl __rt::AsFd for Server {
        fn as_fd(&self) -> __rt::BorrowedFd<'_> {
            __rt::AsFd::as_fd(&self.__rummelplatz_runtime)
        }
    }
    #[automatically_derived]
    impl __rt::AsRawFd for Server {
        fn as_raw_fd(&self) -> __rt::RawFd {
            __rt::AsRawFd::as_raw_fd(&self.__rummelplatz_runtime)
        }
    }
    __rt::probe::operation_error! {
        impl [] for [ServerSetupError] [] #[cfg(unix)] Unix = "unix", #[cfg_attr(feature
        = "x", cfg(windows))] Windows = "windows", Both = "both",
    }
    __rt::probe::operation_error! {
        impl [] for [ServerCompletionError] [] #[cfg(unix)] Unix = "unix",
        #[cfg_attr(feature = "x", cfg(windows))] Windows = "windows", Both = "both",
    }
    __rt::probe::operation_error! {
        impl [] for [ServerTeardownError] [] #[cfg(unix)] Unix = "unix",
        #[cfg_attr(feature = "x", cfg(windows))] Windows = "windows", Both = "both",
    }
};
