#[allow(deprecated)]
#[automatically_derived]
impl ::rummelplatz::RingOperation<Server> for Peers {
    type RingData = Peer;
    type SetupError = ::core::convert::Infallible;
    type TeardownError = ::core::convert::Infallible;
    type ControlFlowWarn = ::core::convert::Infallible;
    type ControlFlowError = ::core::convert::Infallible;
    fn on_completion(
        &mut self,
        _: ::rummelplatz::Completion,
        _: Self::RingData,
        _: ::rummelplatz::Submitter<'_, Server, Self>,
    ) -> ::rummelplatz::CompletionResult<Server, Self> {
        loop {}
    }
}
::core::compile_error! {
    "`on_more` gets every completion but the last; name `on_final` for that one, too"
}
