#[allow(deprecated)]
#[automatically_derived]
impl<__AnyRing: ::rummelplatz::Ring> ::rummelplatz::RingOperation<__AnyRing>
for Nothing {
    type RingData = ();
    type SetupError = ::core::convert::Infallible;
    type TeardownError = ::core::convert::Infallible;
    type ControlFlowWarn = ::core::convert::Infallible;
    type ControlFlowError = ::core::convert::Infallible;
    #[inline]
    fn on_completion(
        &mut self,
        _: ::rummelplatz::Completion,
        _: Self::RingData,
        _: ::rummelplatz::Submitter<'_, __AnyRing, Self>,
    ) -> ::rummelplatz::CompletionResult<__AnyRing, Self> {
        (::rummelplatz::ControlFlow::Continue, ::core::option::Option::None)
    }
}
