struct r#Match {
    __rummelplatz_runtime: crate::reexported::__private::Runtime<r#Match>,
    r#type: Op,
    self_: Op,
    raw: Op,
    _1: Op,
}
/// Which operation of [`Match`] failed: one variant for each.
#[allow(
    dead_code,
    private_interfaces,
    non_camel_case_types,
    deprecated,
    clippy::too_many_arguments
)]
enum MatchSetupError {
    /// Operation `type`: its `setup` returned this.
    Type(
        <crate::reexported::__private::checked::Operation<
            Op,
            { r#Match::__CHECK_1 },
        > as crate::reexported::RingOperation<r#Match>>::SetupError,
    ),
    /// Operation `self_`: its `setup` returned this.
    Self_(
        <crate::reexported::__private::checked::Operation<
            Op,
            { r#Match::__CHECK_2 },
        > as crate::reexported::RingOperation<r#Match>>::SetupError,
    ),
    /// Operation `raw`: its `setup` returned this.
    Raw(
        <crate::reexported::__private::checked::Operation<
            Op,
            { r#Match::__CHECK_3 },
        > as crate::reexported::RingOperation<r#Match>>::SetupError,
    ),
    /// Operation `_1`: its `setup` returned this.
    _1(
        <crate::reexported::__private::checked::Operation<
            Op,
            { r#Match::__CHECK_4 },
        > as crate::reexported::RingOperation<r#Match>>::SetupError,
    ),
}
/// Which operation of [`Match`] failed: one variant for each.
#[allow(
    dead_code,
    private_interfaces,
    non_camel_case_types,
    deprecated,
    clippy::too_many_arguments
)]
enum MatchCompletionError {
    /// Operation `type`: its `on_completion` ended the ring with this.
    Type(
        <crate::reexported::__private::checked::Operation<
            Op,
            { r#Match::__CHECK_1 },
        > as crate::reexported::RingOperation<r#Match>>::ControlFlowError,
    ),
    /// Operation `self_`: its `on_completion` ended the ring with this.
    Self_(
        <crate::reexported::__private::checked::Operation<
            Op,
            { r#Match::__CHECK_2 },
        > as crate::reexported::RingOperation<r#Match>>::ControlFlowError,
    ),
    /// Operation `raw`: its `on_completion` ended the ring with this.
    Raw(
        <crate::reexported::__private::checked::Operation<
            Op,
            { r#Match::__CHECK_3 },
        > as crate::reexported::RingOperation<r#Match>>::ControlFlowError,
    ),
    /// Operation `_1`: its `on_completion` ended the ring with this.
    _1(
        <crate::reexported::__private::checked::Operation<
            Op,
            { r#Match::__CHECK_4 },
        > as crate::reexported::RingOperation<r#Match>>::ControlFlowError,
    ),
}
/// Which operation of [`Match`] failed: one variant for each.
#[allow(
    dead_code,
    private_interfaces,
    non_camel_case_types,
    deprecated,
    clippy::too_many_arguments
)]
enum MatchTeardownError {
    /// Operation `type`: its `on_teardown_completion` returned this.
    Type(
        <crate::reexported::__private::checked::Operation<
            Op,
            { r#Match::__CHECK_1 },
        > as crate::reexported::RingOperation<r#Match>>::TeardownError,
    ),
    /// Operation `self_`: its `on_teardown_completion` returned this.
    Self_(
        <crate::reexported::__private::checked::Operation<
            Op,
            { r#Match::__CHECK_2 },
        > as crate::reexported::RingOperation<r#Match>>::TeardownError,
    ),
    /// Operation `raw`: its `on_teardown_completion` returned this.
    Raw(
        <crate::reexported::__private::checked::Operation<
            Op,
            { r#Match::__CHECK_3 },
        > as crate::reexported::RingOperation<r#Match>>::TeardownError,
    ),
    /// Operation `_1`: its `on_teardown_completion` returned this.
    _1(
        <crate::reexported::__private::checked::Operation<
            Op,
            { r#Match::__CHECK_4 },
        > as crate::reexported::RingOperation<r#Match>>::TeardownError,
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
    use crate::reexported::__private as __rt;
    type __Operation1 = crate::reexported::__private::checked::Operation<
        Op,
        { r#Match::__CHECK_1 },
    >;
    type __Operation2 = crate::reexported::__private::checked::Operation<
        Op,
        { r#Match::__CHECK_2 },
    >;
    type __Operation3 = crate::reexported::__private::checked::Operation<
        Op,
        { r#Match::__CHECK_3 },
    >;
    type __Operation4 = crate::reexported::__private::checked::Operation<
        Op,
        { r#Match::__CHECK_4 },
    >;
    #[automatically_derived]
    impl r#Match {
        /// The tag of operation `type`.
        const TYPE: crate::reexported::Tag<
            Self,
            crate::reexported::__private::checked::Operation<Op, { r#Match::__CHECK_1 }>,
        > = crate::reexported::Tag::<
            Self,
            __Operation1,
        >::__new(1u8, |__slabs| &__slabs.r#type);
        #[doc(hidden)]
        const __CHECK_1: ::core::primitive::bool = {
            let _: ::core::marker::PhantomData<
                <Op as crate::reexported::RingOperation<r#Match>>::RingData,
            >;
            true
        };
        /// The tag of operation `self_`.
        const SELF_: crate::reexported::Tag<
            Self,
            crate::reexported::__private::checked::Operation<Op, { r#Match::__CHECK_2 }>,
        > = crate::reexported::Tag::<
            Self,
            __Operation2,
        >::__new(2u8, |__slabs| &__slabs.self_);
        #[doc(hidden)]
        const __CHECK_2: ::core::primitive::bool = {
            let _: ::core::marker::PhantomData<
                <Op as crate::reexported::RingOperation<r#Match>>::RingData,
            >;
            true
        };
        /// The tag of operation `raw`.
        const RAW: crate::reexported::Tag<
            Self,
            crate::reexported::__private::checked::Operation<Op, { r#Match::__CHECK_3 }>,
        > = crate::reexported::Tag::<
            Self,
            __Operation3,
        >::__new(3u8, |__slabs| &__slabs.raw);
        #[doc(hidden)]
        const __CHECK_3: ::core::primitive::bool = {
            let _: ::core::marker::PhantomData<
                <Op as crate::reexported::RingOperation<r#Match>>::RingData,
            >;
            true
        };
        /// The tag of operation `_1`.
        const _1: crate::reexported::Tag<
            Self,
            crate::reexported::__private::checked::Operation<Op, { r#Match::__CHECK_4 }>,
        > = crate::reexported::Tag::<
            Self,
            __Operation4,
        >::__new(4u8, |__slabs| &__slabs._1);
        #[doc(hidden)]
        const __CHECK_4: ::core::primitive::bool = {
            let _: ::core::marker::PhantomData<
                <Op as crate::reexported::RingOperation<r#Match>>::RingData,
            >;
            true
        };
        /// Creates the kernel's side of the ring, with `entries` rounded up to a power of two.
        ///
        /// # Errors
        /// When the kernel cannot, or may not, create it; the error says why.
        fn new_raw_ring(
            entries: ::core::num::NonZeroU32,
        ) -> ::core::result::Result<
            crate::reexported::RawRing,
            crate::reexported::BuildError,
        > {
            __rt::new_raw_ring::<Self>(entries)
        }
        /// Makes the ring of its kernel side and its operations, these in the order of the fields.
        ///
        /// At most `backlog_limit` requests wait for room in the submission queue; `None` is the default.
        fn new(
            raw: crate::reexported::RawRing,
            backlog_limit: ::core::option::Option<::core::num::NonZeroUsize>,
            r#type: Op,
            self_: Op,
            raw: Op,
            _1: Op,
        ) -> Self {
            __rt::new(
                raw,
                backlog_limit,
                __Operations {
                    r#type,
                    self_,
                    raw,
                    _1,
                    __rummelplatz_ring: ::core::marker::PhantomData,
                },
            )
        }
        /// Begins to build a ring: everything that can be set, and then `build`.
        fn builder(
            r#type: Op,
            self_: Op,
            raw: Op,
            _1: Op,
        ) -> crate::reexported::Builder<Self> {
            __rt::builder(__Operations {
                r#type,
                self_,
                raw,
                _1,
                __rummelplatz_ring: ::core::marker::PhantomData,
            })
        }
        /// Sets all operations up and runs the ring until it exits, fails, or has nothing left to wait for;
        /// then cancels and drains whatever is in flight.
        ///
        /// # Errors
        /// The first cause of the end, with every error of the teardown.
        fn run(
            &mut self,
        ) -> ::core::result::Result<(), crate::reexported::RingError<Self>> {
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
            crate::reexported::Progress,
            crate::reexported::RingError<Self>,
        > {
            __rt::turn(self)
        }
        /// Cancels and drains everything in flight. If nothing is, and no run has begun, does nothing.
        ///
        /// # Errors
        /// As for `run`.
        fn finish(
            &mut self,
        ) -> ::core::result::Result<(), crate::reexported::RingError<Self>> {
            __rt::finish(self)
        }
        /// Submits to an operation from outside a handler: before `run`, or between `turn`s.
        fn submitter<Op: crate::reexported::RingOperation<Self>>(
            &mut self,
            tag: crate::reexported::Tag<Self, Op>,
        ) -> crate::reexported::Submitter<'_, Self, Op> {
            __rt::submitter(self, tag)
        }
        /// Returns a strong handle, for other threads: as long as it lives, `run` waits for what it may send.
        fn handle(&mut self) -> crate::reexported::RingHandle<Self> {
            __rt::handle(self)
        }
        /// Returns what the ring has counted so far.
        fn stats(&self) -> crate::reexported::Stats {
            __rt::stats(self)
        }
    }
    #[doc(hidden)]
    struct __Slabs {
        r#type: __rt::SlabCell<
            <__Operation1 as crate::reexported::RingOperation<r#Match>>::RingData,
        >,
        self_: __rt::SlabCell<
            <__Operation2 as crate::reexported::RingOperation<r#Match>>::RingData,
        >,
        raw: __rt::SlabCell<
            <__Operation3 as crate::reexported::RingOperation<r#Match>>::RingData,
        >,
        _1: __rt::SlabCell<
            <__Operation4 as crate::reexported::RingOperation<r#Match>>::RingData,
        >,
        __rummelplatz_ring: ::core::marker::PhantomData<fn() -> r#Match>,
    }
    #[doc(hidden)]
    struct __Operations {
        r#type: Op,
        self_: Op,
        raw: Op,
        _1: Op,
        __rummelplatz_ring: ::core::marker::PhantomData<fn() -> r#Match>,
    }
    #[automatically_derived]
    impl __rt::RingShape for r#Match {
        type Slabs = __Slabs;
        type SetupError = MatchSetupError;
        type CompletionError = MatchCompletionError;
        type TeardownError = MatchTeardownError;
        const NAME: &'static ::core::primitive::str = "Match";
        const OPERATIONS: &'static [(
            ::core::primitive::u8,
            &'static ::core::primitive::str,
        )] = &[(1u8, "type"), (2u8, "self_"), (3u8, "raw"), (4u8, "_1")];
        const OPTIONS: __rt::Options = __rt::Options::new()
            .entries(64)
            .backlog_limit(9)
            .grace_ms(GRACE)
            .deadline_ms(5 * 60);
        fn slabs() -> Self::Slabs {
            __Slabs {
                r#type: __rt::SlabCell::new(1u8),
                self_: __rt::SlabCell::new(2u8),
                raw: __rt::SlabCell::new(3u8),
                _1: __rt::SlabCell::new(4u8),
                __rummelplatz_ring: ::core::marker::PhantomData,
            }
        }
        fn slab(
            __slabs: &Self::Slabs,
            __tag: ::core::primitive::u8,
        ) -> ::core::option::Option<__rt::SlabRef<'_>> {
            match __tag {
                1u8 => ::core::option::Option::Some(__slabs.r#type.any()),
                2u8 => ::core::option::Option::Some(__slabs.self_.any()),
                3u8 => ::core::option::Option::Some(__slabs.raw.any()),
                4u8 => ::core::option::Option::Some(__slabs._1.any()),
                _ => ::core::option::Option::None,
            }
        }
    }
    #[automatically_derived]
    impl __rt::RingParts for r#Match {
        type Operations = __Operations;
        fn assemble(
            __runtime: __rt::Runtime<Self>,
            __operations: Self::Operations,
        ) -> Self {
            Self {
                __rummelplatz_runtime: __runtime,
                r#type: __operations.r#type,
                self_: __operations.self_,
                raw: __operations.raw,
                _1: __operations._1,
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
            >(&mut self.__rummelplatz_runtime, &mut self.r#type, Self::TYPE)
                .map_err(MatchSetupError::Type)?;
            __rt::setup::<
                Self,
                __Operation2,
            >(&mut self.__rummelplatz_runtime, &mut self.self_, Self::SELF_)
                .map_err(MatchSetupError::Self_)?;
            __rt::setup::<
                Self,
                __Operation3,
            >(&mut self.__rummelplatz_runtime, &mut self.raw, Self::RAW)
                .map_err(MatchSetupError::Raw)?;
            __rt::setup::<
                Self,
                __Operation4,
            >(&mut self.__rummelplatz_runtime, &mut self._1, Self::_1)
                .map_err(MatchSetupError::_1)?;
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
                ::core::option::Option::Some(3u8) => self.__deliver_3(__round),
                ::core::option::Option::Some(4u8) => self.__deliver_4(__round),
                _ => __rt::unclaimed(&mut self.__rummelplatz_runtime, __round),
            }
        }
    }
    #[automatically_derived]
    impl r#Match {
        #[inline(always)]
        fn __deliver_1(&mut self, __round: &__rt::Round) {
            __rt::deliver::<
                Self,
                __Operation1,
            >(
                &mut self.__rummelplatz_runtime,
                &mut self.r#type,
                Self::TYPE,
                __rt::Glue::<Self, __Operation1> {
                    warn: __rt::probe::show!(
                        < __Operation1 as crate ::reexported::RingOperation < r#Match >>
                        ::ControlFlowWarn
                    ),
                    completion_error: MatchCompletionError::Type,
                    teardown_error: MatchTeardownError::Type,
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
                &mut self.self_,
                Self::SELF_,
                __rt::Glue::<Self, __Operation2> {
                    warn: __rt::probe::show!(
                        < __Operation2 as crate ::reexported::RingOperation < r#Match >>
                        ::ControlFlowWarn
                    ),
                    completion_error: MatchCompletionError::Self_,
                    teardown_error: MatchTeardownError::Self_,
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
                &mut self.raw,
                Self::RAW,
                __rt::Glue::<Self, __Operation3> {
                    warn: __rt::probe::show!(
                        < __Operation3 as crate ::reexported::RingOperation < r#Match >>
                        ::ControlFlowWarn
                    ),
                    completion_error: MatchCompletionError::Raw,
                    teardown_error: MatchTeardownError::Raw,
                },
                __round,
            )
        }
        #[inline(always)]
        fn __deliver_4(&mut self, __round: &__rt::Round) {
            __rt::deliver::<
                Self,
                __Operation4,
            >(
                &mut self.__rummelplatz_runtime,
                &mut self._1,
                Self::_1,
                __rt::Glue::<Self, __Operation4> {
                    warn: __rt::probe::show!(
                        < __Operation4 as crate ::reexported::RingOperation < r#Match >>
                        ::ControlFlowWarn
                    ),
                    completion_error: MatchCompletionError::_1,
                    teardown_error: MatchTeardownError::_1,
                },
                __round,
            )
        }
    }
    #[automatically_derived]
    impl ::core::fmt::Debug for r#Match {
        fn fmt(
            &self,
            __formatter: &mut ::core::fmt::Formatter<'_>,
        ) -> ::core::fmt::Result {
            __rt::fmt(self, __formatter)
        }
    }
    #[automatically_derived]
    impl __rt::AsFd for r#Match {
        fn as_fd(&self) -> __rt::BorrowedFd<'_> {
            __rt::AsFd::as_fd(&self.__rummelplatz_runtime)
        }
    }
    #[automatically_derived]
    impl __rt::AsRawFd for r#Match {
        fn as_raw_fd(&self) -> __rt::RawFd {
            __rt::AsRawFd::as_raw_fd(&self.__rummelplatz_runtime)
        }
    }
    __rt::probe::operation_error! {
        impl [] for [MatchSetupError] [] Type = "type", Self_ = "self_", Raw = "raw", _1
        = "_1",
    }
    __rt::probe::operation_error! {
        impl [] for [MatchCompletionError] [] Type = "type", Self_ = "self_", Raw =
        "raw", _1 = "_1",
    }
    __rt::probe::operation_error! {
        impl [] for [MatchTeardownError] [] Type = "type", Self_ = "self_", Raw = "raw",
        _1 = "_1",
    }
};
