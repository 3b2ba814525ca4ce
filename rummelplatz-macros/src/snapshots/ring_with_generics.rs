pub(crate) struct Server<'a, T: Clone = u32, const N: usize = 4>
where
    T: 'a,
{
    __rummelplatz_runtime: ::rummelplatz::__private::Runtime<Server<'a, T, N>>,
    holder: Holder<'a, T>,
    me: ForRing<Self, [Self::Item; N]>,
}
/// Which operation of [`Server`] failed: one variant for each.
#[allow(
    dead_code,
    private_interfaces,
    non_camel_case_types,
    deprecated,
    clippy::too_many_arguments
)]
pub(crate) enum ServerSetupError<'a, T: Clone = u32, const N: usize = 4>
where
    T: 'a,
{
    /// Operation `holder`: its `setup` returned this.
    Holder(
        <Holder<'a, T> as ::rummelplatz::RingOperation<Server<'a, T, N>>>::SetupError,
    ),
    /// Operation `me`: its `setup` returned this.
    Me(
        <ForRing<
            Server<'a, T, N>,
            [<Server<'a, T, N>>::Item; N],
        > as ::rummelplatz::RingOperation<Server<'a, T, N>>>::SetupError,
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
pub(crate) enum ServerCompletionError<'a, T: Clone = u32, const N: usize = 4>
where
    T: 'a,
{
    /// Operation `holder`: its `on_completion` ended the ring with this.
    Holder(
        <Holder<
            'a,
            T,
        > as ::rummelplatz::RingOperation<Server<'a, T, N>>>::ControlFlowError,
    ),
    /// Operation `me`: its `on_completion` ended the ring with this.
    Me(
        <ForRing<
            Server<'a, T, N>,
            [<Server<'a, T, N>>::Item; N],
        > as ::rummelplatz::RingOperation<Server<'a, T, N>>>::ControlFlowError,
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
pub(crate) enum ServerTeardownError<'a, T: Clone = u32, const N: usize = 4>
where
    T: 'a,
{
    /// Operation `holder`: its `on_teardown_completion` returned this.
    Holder(
        <Holder<'a, T> as ::rummelplatz::RingOperation<Server<'a, T, N>>>::TeardownError,
    ),
    /// Operation `me`: its `on_teardown_completion` returned this.
    Me(
        <ForRing<
            Server<'a, T, N>,
            [<Server<'a, T, N>>::Item; N],
        > as ::rummelplatz::RingOperation<Server<'a, T, N>>>::TeardownError,
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
    #[automatically_derived]
    impl<'a, T: Clone, const N: usize> Server<'a, T, N>
    where
        T: 'a,
    {
        /// The tag of operation `holder`.
        const HOLDER: ::rummelplatz::Tag<Self, Holder<'a, T>> = ::rummelplatz::Tag::<
            Self,
            Holder<'a, T>,
        >::__new(1u8, |__slabs| &__slabs.holder);
        /// The tag of operation `me`.
        const ME: ::rummelplatz::Tag<
            Self,
            ForRing<Server<'a, T, N>, [<Server<'a, T, N>>::Item; N]>,
        > = ::rummelplatz::Tag::<
            Self,
            ForRing<Server<'a, T, N>, [<Server<'a, T, N>>::Item; N]>,
        >::__new(2u8, |__slabs| &__slabs.me);
        /// Creates the kernel's side of the ring, with `entries` rounded up to a power of two.
        ///
        /// # Errors
        /// When the kernel cannot, or may not, create it; the error says why.
        pub(crate) fn new_raw_ring(
            entries: ::core::num::NonZeroU32,
        ) -> ::core::result::Result<::rummelplatz::RawRing, ::rummelplatz::BuildError> {
            __rt::new_raw_ring::<Self>(entries)
        }
        /// Makes the ring of its kernel side and its operations, these in the order of the fields.
        ///
        /// At most `backlog_limit` requests wait for room in the submission queue; `None` is the default.
        pub(crate) fn new(
            raw: ::rummelplatz::RawRing,
            backlog_limit: ::core::option::Option<::core::num::NonZeroUsize>,
            holder: Holder<'a, T>,
            me: ForRing<Self, [Self::Item; N]>,
        ) -> Self {
            __rt::new(
                raw,
                backlog_limit,
                __Operations {
                    holder,
                    me,
                    __rummelplatz_ring: ::core::marker::PhantomData,
                },
            )
        }
        /// Begins to build a ring: everything that can be set, and then `build`.
        pub(crate) fn builder(
            holder: Holder<'a, T>,
            me: ForRing<Self, [Self::Item; N]>,
        ) -> ::rummelplatz::Builder<Self> {
            __rt::builder(__Operations {
                holder,
                me,
                __rummelplatz_ring: ::core::marker::PhantomData,
            })
        }
        /// Sets all operations up and runs the ring until it exits, fails, or has nothing left to wait for;
        /// then cancels and drains whatever is in flight.
        ///
        /// # Errors
        /// The first cause of the end, with every error of the teardown.
        pub(crate) fn run(
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
        pub(crate) fn turn(
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
        pub(crate) fn finish(
            &mut self,
        ) -> ::core::result::Result<(), ::rummelplatz::RingError<Self>> {
            __rt::finish(self)
        }
        /// Submits to an operation from outside a handler: before `run`, or between `turn`s.
        pub(crate) fn submitter<Op: ::rummelplatz::RingOperation<Self>>(
            &mut self,
            tag: ::rummelplatz::Tag<Self, Op>,
        ) -> ::rummelplatz::Submitter<'_, Self, Op> {
            __rt::submitter(self, tag)
        }
        /// Returns a strong handle, for other threads: as long as it lives, `run` waits for what it may send.
        pub(crate) fn handle(&mut self) -> ::rummelplatz::RingHandle<Self> {
            __rt::handle(self)
        }
        /// Returns what the ring has counted so far.
        pub(crate) fn stats(&self) -> ::rummelplatz::Stats {
            __rt::stats(self)
        }
    }
    #[doc(hidden)]
    pub(crate) struct __Slabs<'a, T: Clone, const N: usize>
    where
        T: 'a,
    {
        holder: __rt::SlabCell<
            <Holder<'a, T> as ::rummelplatz::RingOperation<Server<'a, T, N>>>::RingData,
        >,
        me: __rt::SlabCell<
            <ForRing<
                Server<'a, T, N>,
                [<Server<'a, T, N>>::Item; N],
            > as ::rummelplatz::RingOperation<Server<'a, T, N>>>::RingData,
        >,
        __rummelplatz_ring: ::core::marker::PhantomData<fn() -> Server<'a, T, N>>,
    }
    #[doc(hidden)]
    pub(crate) struct __Operations<'a, T: Clone, const N: usize>
    where
        T: 'a,
    {
        holder: Holder<'a, T>,
        me: ForRing<Server<'a, T, N>, [<Server<'a, T, N>>::Item; N]>,
        __rummelplatz_ring: ::core::marker::PhantomData<fn() -> Server<'a, T, N>>,
    }
    #[automatically_derived]
    impl<'a, T: Clone, const N: usize> __rt::RingShape for Server<'a, T, N>
    where
        T: 'a,
    {
        type Slabs = __Slabs<'a, T, N>;
        type SetupError = ServerSetupError<'a, T, N>;
        type CompletionError = ServerCompletionError<'a, T, N>;
        type TeardownError = ServerTeardownError<'a, T, N>;
        const NAME: &'static ::core::primitive::str = "Server";
        const OPERATIONS: &'static [(
            ::core::primitive::u8,
            &'static ::core::primitive::str,
        )] = &[(1u8, "holder"), (2u8, "me")];
        const OPTIONS: __rt::Options = __rt::Options::new();
        fn slabs() -> Self::Slabs {
            __Slabs {
                holder: __rt::SlabCell::new(1u8),
                me: __rt::SlabCell::new(2u8),
                __rummelplatz_ring: ::core::marker::PhantomData,
            }
        }
        fn slab(
            __slabs: &Self::Slabs,
            __tag: ::core::primitive::u8,
        ) -> ::core::option::Option<__rt::SlabRef<'_>> {
            match __tag {
                1u8 => ::core::option::Option::Some(__slabs.holder.any()),
                2u8 => ::core::option::Option::Some(__slabs.me.any()),
                _ => ::core::option::Option::None,
            }
        }
    }
    #[automatically_derived]
    impl<'a, T: Clone, const N: usize> __rt::RingParts for Server<'a, T, N>
    where
        T: 'a,
    {
        type Operations = __Operations<'a, T, N>;
        fn assemble(
            __runtime: __rt::Runtime<Self>,
            __operations: Self::Operations,
        ) -> Self {
            Self {
                __rummelplatz_runtime: __runtime,
                holder: __operations.holder,
                me: __operations.me,
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
                Holder<'a, T>,
            >(&mut self.__rummelplatz_runtime, &mut self.holder, Self::HOLDER)
                .map_err(ServerSetupError::Holder)?;
            __rt::setup::<
                Self,
                ForRing<Server<'a, T, N>, [<Server<'a, T, N>>::Item; N]>,
            >(&mut self.__rummelplatz_runtime, &mut self.me, Self::ME)
                .map_err(ServerSetupError::Me)?;
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
    impl<'a, T: Clone, const N: usize> Server<'a, T, N>
    where
        T: 'a,
    {
        #[inline(always)]
        fn __deliver_1(&mut self, __round: &__rt::Round) {
            __rt::deliver::<
                Self,
                Holder<'a, T>,
            >(
                &mut self.__rummelplatz_runtime,
                &mut self.holder,
                Self::HOLDER,
                __rt::Glue::<Self, Holder<'a, T>> {
                    warn: __rt::probe::show!(
                        < Holder < 'a, T > as ::rummelplatz::RingOperation < Server < 'a,
                        T, N > >> ::ControlFlowWarn
                    ),
                    completion_error: ServerCompletionError::Holder,
                    teardown_error: ServerTeardownError::Holder,
                },
                __round,
            )
        }
        #[inline(always)]
        fn __deliver_2(&mut self, __round: &__rt::Round) {
            __rt::deliver::<
                Self,
                ForRing<Server<'a, T, N>, [<Server<'a, T, N>>::Item; N]>,
            >(
                &mut self.__rummelplatz_runtime,
                &mut self.me,
                Self::ME,
                __rt::Glue::<
                    Self,
                    ForRing<Server<'a, T, N>, [<Server<'a, T, N>>::Item; N]>,
                > {
                    warn: __rt::probe::show!(
                        < ForRing < Server:: < 'a, T, N >, [< Server:: < 'a, T, N > >
                        ::Item; N] > as ::rummelplatz::RingOperation < Server < 'a, T, N
                        > >> ::ControlFlowWarn
                    ),
                    completion_error: ServerCompletionError::Me,
                    teardown_error: ServerTeardownError::Me,
                },
                __round,
            )
        }
    }
    #[automatically_derived]
    impl<'a, T: Clone, const N: usize> ::core::fmt::Debug for Server<'a, T, N>
    where
        T: 'a,
    {
        fn fmt(
            &self,
            __formatter: &mut ::core::fmt::Formatter<'_>,
        ) -> ::core::fmt::Result {
            __rt::fmt(self, __formatter)
        }
    }
    #[automatically_derived]
    impl<'a, T: Clone, const N: usize> __rt::AsFd for Server<'a, T, N>
    where
        T: 'a,
    {
        fn as_fd(&self) -> __rt::BorrowedFd<'_> {
            __rt::AsFd::as_fd(&self.__rummelplatz_runtime)
        }
    }
    #[automatically_derived]
    impl<'a, T: Clone, const N: usize> __rt::AsRawFd for Server<'a, T, N>
    where
        T: 'a,
    {
        fn as_raw_fd(&self) -> __rt::RawFd {
            __rt::AsRawFd::as_raw_fd(&self.__rummelplatz_runtime)
        }
    }
    __rt::probe::operation_error! {
        impl [< 'a, T : Clone, const N : usize >] for [ServerSetupError < 'a, T, N >]
        [where T : 'a] Holder = "holder", Me = "me",
    }
    __rt::probe::operation_error! {
        impl [< 'a, T : Clone, const N : usize >] for [ServerCompletionError < 'a, T, N
        >] [where T : 'a] Holder = "holder", Me = "me",
    }
    __rt::probe::operation_error! {
        impl [< 'a, T : Clone, const N : usize >] for [ServerTeardownError < 'a, T, N >]
        [where T : 'a] Holder = "holder", Me = "me",
    }
};
