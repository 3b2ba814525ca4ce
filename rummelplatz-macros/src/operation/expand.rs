//! Prints. Every path is absolute; the calls to the user's handlers have the places of the words that named
//! them.

use proc_macro2::{Ident, Span, TokenStream, TokenTree};
use quote::{ToTokens, quote, quote_spanned};
use syn::{Type, parse_quote};

use super::model::{Handler, Operation};

/// Prints an operation.
pub(super) fn operation(operation: &Operation) -> TokenStream {
    let printer = Printer::new(operation);
    let methods = [printer.setup(), Some(printer.on_completion()), printer.on_teardown_completion()];
    printer.implementation(quote!(#(#methods)*))
}

/// Prints an operation that never does anything, for the code around one that cannot be printed.
pub(super) fn hollow(operation: &Operation) -> TokenStream {
    let printer = Printer::new(operation);
    let (krate, ring) = (&printer.krate, &printer.ring);
    printer.implementation(quote! {
        fn on_completion(
            &mut self,
            _: #krate::Completion,
            _: Self::RingData,
            _: #krate::Submitter<'_, #ring, Self>,
        ) -> #krate::CompletionResult<#ring, Self> {
            loop {}
        }
    })
}

/// The methods that a missing handler would resolve to, each with the trait that says so.
const TRAITS_OWN: [(&str, &str); 3] = [
    ("setup", "Setup"),
    ("on_completion", "OnCompletion"),
    ("on_teardown_completion", "OnTeardownCompletion"),
];

/// What the value that a handler returns must become.
#[derive(Clone, Copy)]
enum Form {
    Setup,
    Completion,
    Flow,
    Teardown,
}

struct Printer<'o> {
    operation: &'o Operation,
    krate: TokenStream,
    ring: TokenStream,
}

impl<'o> Printer<'o> {
    fn new(operation: &'o Operation) -> Self {
        let krate = operation.krate.get().map_or_else(|| quote!(::rummelplatz), ToTokens::to_token_stream);
        let ring = operation.types.ring.get().map_or_else(|| quote!(__AnyRing), ToTokens::to_token_stream);
        Self { operation, krate, ring }
    }

    fn implementation(&self, methods: TokenStream) -> TokenStream {
        let Operation { ident, generics, types, .. } = self.operation;
        let (krate, ring) = (&self.krate, &self.ring);
        let mut with_ring = generics.clone();
        if types.ring.get().is_none() {
            // Messages of the compiler show this name. On stable, no span hides a type parameter from the user's types.
            with_ring.params.push(parse_quote!(__AnyRing: #krate::Ring));
        }
        let (impl_generics, ..) = with_ring.split_for_impl();
        let (_, arguments, where_clause) = generics.split_for_impl();
        let data = types.data.get().map_or_else(|| quote!(()), ToTokens::to_token_stream);
        let error_type = |first: Option<&Type>, second: Option<&Type>| {
            let given = first.or(second).map(ToTokens::to_token_stream);
            given.unwrap_or_else(|| quote!(::core::convert::Infallible))
        };
        let error = types.error.get();
        let (warn, end) = (error_type(types.warn.get(), None), error_type(error, None));
        let setup_error = error_type(types.setup_error.get(), error);
        let teardown_error = error_type(types.teardown_error.get(), error);
        quote! {
            // A deprecated operation or handler is deprecated for its users, not here.
            #[allow(deprecated)]
            #[automatically_derived]
            impl #impl_generics #krate::RingOperation<#ring> for #ident #arguments #where_clause {
                type RingData = #data;
                type SetupError = #setup_error;
                type TeardownError = #teardown_error;
                type ControlFlowWarn = #warn;
                type ControlFlowError = #end;
                #methods
            }
        }
    }

    fn setup(&self) -> Option<TokenStream> {
        let (krate, ring) = (&self.krate, &self.ring);
        let handler = self.operation.handlers.setup.get()?;
        let call = self.call(handler, &[quote!(__submitter)]);
        let returned = self.convert(handler, Form::Setup, call);
        Some(quote! {
            fn setup(
                &mut self,
                __submitter: #krate::Submitter<'_, #ring, Self>,
            ) -> ::core::result::Result<(), Self::SetupError> {
                #returned
            }
        })
    }

    fn on_completion(&self) -> TokenStream {
        let (krate, ring) = (&self.krate, &self.ring);
        let handlers = &self.operation.handlers;
        let signature = |completion: TokenStream, data: TokenStream, submitter: TokenStream| {
            quote! {
                #[inline]
                fn on_completion(
                    &mut self,
                    #completion: #krate::Completion,
                    #data: Self::RingData,
                    #submitter: #krate::Submitter<'_, #ring, Self>,
                ) -> #krate::CompletionResult<#ring, Self>
            }
        };
        let arguments = [quote!(__completion), quote!(__data), quote!(__submitter)];
        let [completion, data, submitter] = arguments.clone();
        if let Some(handler) = handlers.on_completion.get() {
            let call = self.call(handler, &arguments);
            let returned = self.convert(handler, Form::Completion, call);
            let signature = signature(completion, data, submitter);
            return quote!(#signature { #returned });
        }
        let (Some(more), Some(last)) = (handlers.on_more.get(), handlers.on_final.get()) else {
            let signature = signature(quote!(_), quote!(_), quote!(_));
            return quote! {
                #signature { (#krate::ControlFlow::Continue, ::core::option::Option::None) }
            };
        };
        let more_call = self.call(more, &[quote!(__completion), quote!(&mut __data), quote!(__submitter)]);
        let more_flow = self.convert(more, Form::Flow, more_call);
        let last_call = self.call(last, &arguments);
        let last_flow = self.convert(last, Form::Flow, last_call);
        let signature = signature(completion, quote!(mut __data), submitter);
        quote! {
            #signature {
                if __completion.more() {
                    let __flow = #more_flow;
                    (__flow, ::core::option::Option::Some(__data))
                } else {
                    let __flow = #last_flow;
                    (__flow, ::core::option::Option::None)
                }
            }
        }
    }

    fn on_teardown_completion(&self) -> Option<TokenStream> {
        let (krate, ring) = (&self.krate, &self.ring);
        let handler = self.operation.handlers.on_teardown_completion.get()?;
        let call = self.call(handler, &[quote!(__completion), quote!(__data), quote!(__submitter)]);
        let returned = self.convert(handler, Form::Teardown, call);
        Some(quote! {
            fn on_teardown_completion(
                &mut self,
                __completion: #krate::Completion,
                __data: Self::RingData,
                __submitter: #krate::Submitter<'_, #ring, Self>,
            ) -> ::core::result::Result<(), Self::TeardownError> {
                #returned
            }
        })
    }

    /// Calls a handler.
    ///
    /// If the inherent method is missing, `Self::setup` is the trait's own `setup`, which would call itself
    /// for ever. So the trait is brought into scope, whether or not the user did that, to have one case
    /// instead of two; and the function called is compared with the trait's. If they are equal, that is a
    /// compile error.
    fn call(&self, Handler { word, method }: &Handler, arguments: &[TokenStream]) -> TokenStream {
        let span = located_at(method);
        let (krate, ring) = (located(self.krate.clone(), span), &self.ring);
        let arguments = arguments.iter().map(|argument| located(argument.clone(), span));
        let this = Ident::new("self", Span::call_site().located_at(word.span()));
        let call = quote_spanned! {span=>
            let __handler = Self::#method;
            let __returned = __handler(#this, #(#arguments),*);
        };
        let Some((_, must_be_written)) = TRAITS_OWN.iter().find(|(name, _)| method == name) else {
            return call;
        };
        let must_be_written = Ident::new(must_be_written, span);
        quote_spanned! {span=>
            // Redundant where the user imported the trait.
            #[allow(unused_imports)]
            use #krate::{RingOperation as _, __private::handler::Origin as _};
            #call
            let __origin = (&&#krate::__private::handler::Pair(
                __handler,
                <Self as #krate::RingOperation<#ring>>::#method,
            )).__rummelplatz_origin();
            #krate::__private::handler::#must_be_written::<Self>::confirm(__origin);
        }
    }

    /// Turns what a handler returned into what the trait's method returns.
    fn convert(&self, handler: &Handler, form: Form, call: TokenStream) -> TokenStream {
        let (types, span) = (&self.operation.types, located_at(&handler.method));
        let krate = located(self.krate.clone(), span);
        let mode = Ident::new(
            match [&types.warn, &types.error].map(|it| it.get().is_some_and(|given| !is_infallible(given))) {
                [true, false] => "Warns",
                [false, true] => "Ends",
                [true, true] => "Chooses",
                [false, false] => "Neither",
            },
            span,
        );
        let mode = quote_spanned!(span=> #krate::__private::handler::#mode);
        let flow = quote_spanned!(span=> Self::ControlFlowWarn, Self::ControlFlowError);
        let convert = match form {
            Form::Setup => quote_spanned!(span=> PhaseReturn::<Self::SetupError>::into_result),
            Form::Teardown => quote_spanned!(span=> PhaseReturn::<Self::TeardownError>::into_result),
            Form::Flow => quote_spanned!(span=> FlowReturn::<#mode, #flow, _>::into_flow),
            Form::Completion => {
                quote_spanned!(span=> CompletionReturn::<#mode, #flow, Self::RingData, _>::into_completion)
            }
        };
        quote_spanned! {span=> {
            #call
            #krate::__private::handler::#convert(__returned)
        }}
    }
}

/// Whether a type is `Infallible`, as far as its name says: to declare that is to declare nothing.
fn is_infallible(given: &Type) -> bool {
    matches!(given, Type::Path(path) if path.path.segments.last().is_some_and(|last| last.ident == "Infallible"))
}

/// Where the user named the handler, seen from the macro.
fn located_at(word: &Ident) -> Span {
    Span::call_site().located_at(word.span())
}

/// The same tokens, with the same meaning, in another place.
fn located(tokens: TokenStream, span: Span) -> TokenStream {
    let relocate = |mut token: TokenTree| {
        token.set_span(token.span().located_at(span));
        token
    };
    tokens.into_iter().map(relocate).collect()
}
