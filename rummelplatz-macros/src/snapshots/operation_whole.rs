#[allow(deprecated)]
#[automatically_derived]
impl<T: Clone> ::rummelplatz::RingOperation<Server> for Acceptor<T>
where
    T: 'static,
{
    type RingData = Vec<(u8, HashMap<u8, u8>)>;
    type SetupError = ();
    type TeardownError = !;
    type ControlFlowWarn = io::Error;
    type ControlFlowError = Fatal;
    fn setup(
        &mut self,
        __submitter: ::rummelplatz::Submitter<'_, Server, Self>,
    ) -> ::core::result::Result<(), Self::SetupError> {
        {
            #[allow(unused_imports)]
            use ::rummelplatz::{RingOperation as _, __private::handler::Origin as _};
            let __handler = Self::setup;
            let __returned = __handler(self, __submitter);
            let __origin = (&&::rummelplatz::__private::handler::Pair(
                __handler,
                <Self as ::rummelplatz::RingOperation<Server>>::setup,
            ))
                .__rummelplatz_origin();
            ::rummelplatz::__private::handler::Setup::<Self>::confirm(__origin);
            ::rummelplatz::__private::handler::PhaseReturn::<
                Self::SetupError,
            >::into_result(__returned)
        }
    }
    #[inline]
    fn on_completion(
        &mut self,
        __completion: ::rummelplatz::Completion,
        __data: Self::RingData,
        __submitter: ::rummelplatz::Submitter<'_, Server, Self>,
    ) -> ::rummelplatz::CompletionResult<Server, Self> {
        {
            let __handler = Self::handle;
            let __returned = __handler(self, __completion, __data, __submitter);
            ::rummelplatz::__private::handler::CompletionReturn::<
                ::rummelplatz::__private::handler::Chooses,
                Self::ControlFlowWarn,
                Self::ControlFlowError,
                Self::RingData,
                _,
            >::into_completion(__returned)
        }
    }
    fn on_teardown_completion(
        &mut self,
        __completion: ::rummelplatz::Completion,
        __data: Self::RingData,
        __submitter: ::rummelplatz::Submitter<'_, Server, Self>,
    ) -> ::core::result::Result<(), Self::TeardownError> {
        {
            #[allow(unused_imports)]
            use ::rummelplatz::{RingOperation as _, __private::handler::Origin as _};
            let __handler = Self::on_teardown_completion;
            let __returned = __handler(self, __completion, __data, __submitter);
            let __origin = (&&::rummelplatz::__private::handler::Pair(
                __handler,
                <Self as ::rummelplatz::RingOperation<Server>>::on_teardown_completion,
            ))
                .__rummelplatz_origin();
            ::rummelplatz::__private::handler::OnTeardownCompletion::<
                Self,
            >::confirm(__origin);
            ::rummelplatz::__private::handler::PhaseReturn::<
                Self::TeardownError,
            >::into_result(__returned)
        }
    }
}
