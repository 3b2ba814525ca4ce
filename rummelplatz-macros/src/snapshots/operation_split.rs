#[allow(deprecated)]
#[automatically_derived]
impl<
    const N: usize,
    __AnyRing: ::rummelplatz::Ring,
> ::rummelplatz::RingOperation<__AnyRing> for Peers<N> {
    type RingData = Peer;
    type SetupError = ::core::convert::Infallible;
    type TeardownError = ::core::convert::Infallible;
    type ControlFlowWarn = io::Error;
    type ControlFlowError = ::core::convert::Infallible;
    #[inline]
    fn on_completion(
        &mut self,
        __completion: ::rummelplatz::Completion,
        mut __data: Self::RingData,
        __submitter: ::rummelplatz::Submitter<'_, __AnyRing, Self>,
    ) -> ::rummelplatz::CompletionResult<__AnyRing, Self> {
        if __completion.more() {
            let __flow = {
                let __handler = Self::on_more;
                let __returned = __handler(self, __completion, &mut __data, __submitter);
                ::rummelplatz::__private::handler::FlowReturn::<
                    ::rummelplatz::__private::handler::Warns,
                    Self::ControlFlowWarn,
                    Self::ControlFlowError,
                    _,
                >::into_flow(__returned)
            };
            (__flow, ::core::option::Option::Some(__data))
        } else {
            let __flow = {
                let __handler = Self::last;
                let __returned = __handler(self, __completion, __data, __submitter);
                ::rummelplatz::__private::handler::FlowReturn::<
                    ::rummelplatz::__private::handler::Warns,
                    Self::ControlFlowWarn,
                    Self::ControlFlowError,
                    _,
                >::into_flow(__returned)
            };
            (__flow, ::core::option::Option::None)
        }
    }
}
