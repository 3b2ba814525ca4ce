//! What the runtime sees of a ring: the hidden structs and the implementation of its traits.

use proc_macro2::{Ident, Literal, Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;

use super::{ERRORS, Printer};
use crate::ring::model::{OPTIONS, Operation, Ring};

impl Printer<'_> {
    /// The hidden structs and the one impl that the runtime works with.
    pub(super) fn parts(&self) -> TokenStream {
        let Ring { vis, ident, generics, .. } = self.ring;
        let (impl_generics, arguments, where_clause) = generics.split_for_impl();
        let (this, runtime) = (&self.this, &self.runtime);
        let [setup_error, completion_error, teardown_error] = ERRORS.map(|(end, ..)| self.error(end));
        let name = ident.unraw().to_string();
        let options = OPTIONS.iter().zip(&self.ring.options).filter_map(|(option, value)| {
            let (option, value) = (format_ident!("{option}"), value.get()?);
            Some(quote!(.#option(#value)))
        });
        let slab_fields = self.each(|operation, ty| {
            let field = &operation.ident;
            let data = self.associated(&self.short(operation, ty), "RingData");
            quote!(#field: __rt::SlabCell<#data>,)
        });
        let operation_fields = self.each(|Operation { ident, .. }, ty| quote!(#ident: #ty,));
        let names = self.each(|operation, _| {
            let (tag, name) = (Literal::u8_suffixed(operation.tag()), &operation.name);
            quote!((#tag, #name),)
        });
        let assembled = self.each(|Operation { ident, .. }, _| quote!(#ident: __operations.#ident,));
        let slabs = self.each(|operation, _| {
            let (field, tag) = (&operation.ident, Literal::u8_suffixed(operation.tag()));
            quote!(#field: __rt::SlabCell::new(#tag),)
        });
        let slab_arms = self.each(|operation, _| {
            let (field, tag) = (&operation.ident, Literal::u8_suffixed(operation.tag()));
            quote!(#tag => ::core::option::Option::Some(__slabs.#field.any()),)
        });
        let setups = self.each(|operation, ty| {
            let Operation { ident, constant, variant, .. } = operation;
            let ty = self.short(operation, ty);
            quote_spanned! {at(operation)=>
                __rt::setup::<Self, #ty>(&mut self.#runtime, &mut self.#ident, Self::#constant)
                    .map_err(#setup_error::#variant)?;
            }
        });
        let dispatch_arms = self.each(|operation, _| {
            let (tag, deliver) = (Literal::u8_suffixed(operation.tag()), deliver(operation));
            quote!(::core::option::Option::Some(#tag) => self.#deliver(__round),)
        });
        let inline = if self.operations.len() <= MOST_IN_LOOP { quote!(always) } else { quote!(never) };
        let deliveries = self.each(|operation, ty| {
            let Operation { ident, constant, variant, .. } = operation;
            let ty = self.short(operation, ty);
            let warning = self.associated(&ty, "ControlFlowWarn");
            let deliver = deliver(operation);
            quote_spanned! {at(operation)=>
                #[inline(#inline)]
                fn #deliver(&mut self, __round: &__rt::Round) {
                    __rt::deliver::<Self, #ty>(
                        &mut self.#runtime,
                        &mut self.#ident,
                        Self::#constant,
                        __rt::Glue::<Self, #ty> {
                            warn: __rt::probe::show!(#warning),
                            completion_error: #completion_error::#variant,
                            teardown_error: #teardown_error::#variant,
                        },
                        __round,
                    )
                }
            }
        });
        quote! {
            #[doc(hidden)]
            #vis struct __Slabs #impl_generics #where_clause {
                #slab_fields
                __rummelplatz_ring: ::core::marker::PhantomData<fn() -> #this>,
            }
            #[doc(hidden)]
            #vis struct __Operations #impl_generics #where_clause {
                #operation_fields
                __rummelplatz_ring: ::core::marker::PhantomData<fn() -> #this>,
            }
            #[automatically_derived]
            impl #impl_generics __rt::RingShape for #ident #arguments #where_clause {
                type Slabs = __Slabs #arguments;
                type SetupError = #setup_error #arguments;
                type CompletionError = #completion_error #arguments;
                type TeardownError = #teardown_error #arguments;
                const NAME: &'static ::core::primitive::str = #name;
                const OPERATIONS: &'static [(::core::primitive::u8, &'static ::core::primitive::str)] = &[#names];
                const OPTIONS: __rt::Options = __rt::Options::new() #(#options)*;
                fn slabs() -> Self::Slabs {
                    __Slabs { #slabs __rummelplatz_ring: ::core::marker::PhantomData }
                }
                fn slab(
                    __slabs: &Self::Slabs,
                    __tag: ::core::primitive::u8,
                ) -> ::core::option::Option<__rt::SlabRef<'_>> {
                    match __tag {
                        #slab_arms
                        _ => ::core::option::Option::None,
                    }
                }
            }
            #[automatically_derived]
            impl #impl_generics __rt::RingParts for #ident #arguments #where_clause {
                type Operations = __Operations #arguments;
                fn assemble(__runtime: __rt::Runtime<Self>, __operations: Self::Operations) -> Self {
                    Self { #runtime: __runtime, #assembled }
                }
                fn runtime(&self) -> &__rt::Runtime<Self> {
                    &self.#runtime
                }
                #[inline]
                fn runtime_mut(&mut self) -> &mut __rt::Runtime<Self> {
                    &mut self.#runtime
                }
                fn setup(&mut self) -> ::core::result::Result<(), Self::SetupError> {
                    #setups
                    ::core::result::Result::Ok(())
                }
                fn deliver_all(&mut self, __round: &__rt::Round) -> ::core::primitive::bool {
                    __rt::deliver_all(self, __round)
                }
                #[inline]
                fn dispatch(&mut self, __round: &__rt::Round) {
                    match __rt::next_tag(&self.#runtime) {
                        #dispatch_arms
                        _ => __rt::unclaimed(&mut self.#runtime, __round),
                    }
                }
            }
            #[automatically_derived]
            impl #impl_generics #ident #arguments #where_clause {
                #deliveries
            }
        }
    }

    pub(super) fn hollow_parts(&self) -> TokenStream {
        let Ring { ident, generics, .. } = self.ring;
        let (impl_generics, arguments, where_clause) = generics.split_for_impl();
        let name = ident.unraw().to_string();
        quote! {
            #[automatically_derived]
            impl #impl_generics __rt::RingShape for #ident #arguments #where_clause {
                type Slabs = ();
                type SetupError = ::core::convert::Infallible;
                type CompletionError = ::core::convert::Infallible;
                type TeardownError = ::core::convert::Infallible;
                const NAME: &'static ::core::primitive::str = #name;
                const OPERATIONS: &'static [(::core::primitive::u8, &'static ::core::primitive::str)] = &[];
                const OPTIONS: __rt::Options = __rt::Options::new();
                fn slabs() {}
                fn slab(_: &(), _: ::core::primitive::u8) -> ::core::option::Option<__rt::SlabRef<'_>> {
                    loop {}
                }
            }
            #[automatically_derived]
            impl #impl_generics __rt::RingParts for #ident #arguments #where_clause {
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
        }
    }

    /// All operations as one value.
    pub(super) fn operations_value(&self) -> TokenStream {
        let fields = self.each(|Operation { ident, .. }, _| quote!(#ident,));
        quote!(__Operations { #fields __rummelplatz_ring: ::core::marker::PhantomData })
    }
}

/// How many operations are compiled into the loop. In a larger ring, each has a function of its own, with its handler in
/// it: the compiler would inline no handler at all (a NOP in a ring of 32 took 160 instructions, and so it takes 80).
const MOST_IN_LOOP: usize = 8;

/// The method that delivers to an operation.
fn deliver(operation: &Operation) -> Ident {
    format_ident!("__deliver_{}", operation.position)
}

/// The place of the operation's type, but resolved as the macro's own code: complaints point there, and lints
/// for hand-written code do not apply.
fn at(operation: &Operation) -> Span {
    Span::call_site().located_at(operation.ty.span())
}
