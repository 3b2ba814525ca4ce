//! The tags, and the methods that users call.

use proc_macro2::{Ident, Literal, Span, TokenStream};
use quote::quote;

use super::Printer;
use crate::ring::model::{Operation, Ring, Shape};

impl Printer<'_> {
    /// The tags and the methods that users call.
    pub(super) fn methods(&self, hollow: bool) -> TokenStream {
        let Ring { vis, ident, generics, krate, .. } = self.ring;
        let (impl_generics, arguments, where_clause) = generics.split_for_impl();
        let named = matches!(self.ring.shape, Shape::Named);
        let tags = named.then(|| {
            self.each(|operation, ty| {
                let taken = |earlier: &&Operation| {
                    earlier.position < operation.position && earlier.clash(operation).is_some()
                };
                let taken = self.operations.iter().any(taken);
                if taken {
                    self.check(operation, ty).unwrap_or_default()
                } else {
                    self.tag(operation, ty, hollow)
                }
            })
        });
        let parameters = self.each(|operation, _| {
            let (name, ty) = (&operation.ident, &operation.field.ty);
            quote!(#name: #ty,)
        });
        let operations = self.operations_value();
        let body = |body: TokenStream| if hollow { quote!(loop {}) } else { body };
        // The names of these parameters are for the reader; an operation may have the same name.
        let [raw, backlog_limit] = ["raw", "backlog_limit"].map(|name| Ident::new(name, Span::mixed_site()));
        let new = body(quote!(__rt::new(#raw, #backlog_limit, #operations)));
        let builder = body(quote!(__rt::builder(#operations)));
        let [new_raw_ring, run, turn, finish, submitter, handle, stats] = [
            quote!(__rt::new_raw_ring::<Self>(entries)),
            quote!(__rt::run(self)),
            quote!(__rt::turn(self)),
            quote!(__rt::finish(self)),
            quote!(__rt::submitter(self, tag)),
            quote!(__rt::handle(self)),
            quote!(__rt::stats(self)),
        ]
        .map(body);
        let op = self.fresh("Op");
        // A hollow method uses none of its parameters.
        let unused = hollow.then(|| quote!(#[allow(unused_variables)]));
        let new_doc =
            " Makes the ring of its kernel side and its operations, these in the order of the fields.";
        let aliases: TokenStream = self
            .operations
            .iter()
            .zip(&self.types)
            .filter_map(|(operation, ty)| self.alias(operation, ty))
            .collect();
        let aliases = named.then_some(aliases);
        quote! {
            #aliases
            #unused
            #[automatically_derived]
            impl #impl_generics #ident #arguments #where_clause {
                #tags
                /// Creates the kernel's side of the ring, with `entries` rounded up to a power of two.
                ///
                /// # Errors
                /// When the kernel cannot, or may not, create it; the error says why.
                #vis fn new_raw_ring(
                    entries: ::core::num::NonZeroU32,
                ) -> ::core::result::Result<#krate::RawRing, #krate::BuildError> {
                    #new_raw_ring
                }
                #[doc = #new_doc]
                ///
                /// At most `backlog_limit` requests wait for room in the submission queue; `None` is the default.
                #vis fn new(
                    #raw: #krate::RawRing,
                    #backlog_limit: ::core::option::Option<::core::num::NonZeroUsize>,
                    #parameters
                ) -> Self {
                    #new
                }
                /// Begins to build a ring: everything that can be set, and then `build`.
                #vis fn builder(#parameters) -> #krate::Builder<Self> {
                    #builder
                }
                /// Sets all operations up and runs the ring until it exits, fails, or has nothing left to wait for;
                /// then cancels and drains whatever is in flight.
                ///
                /// # Errors
                /// The first cause of the end, with every error of the teardown.
                #vis fn run(&mut self) -> ::core::result::Result<(), #krate::RingError<Self>> {
                    #run
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
                #vis fn turn(&mut self) -> ::core::result::Result<#krate::Progress, #krate::RingError<Self>> {
                    #turn
                }
                /// Cancels and drains everything in flight. If nothing is, and no run has begun, does nothing.
                ///
                /// # Errors
                /// As for `run`.
                #vis fn finish(&mut self) -> ::core::result::Result<(), #krate::RingError<Self>> {
                    #finish
                }
                /// Submits to an operation from outside a handler: before `run`, or between `turn`s.
                #vis fn submitter<#op: #krate::RingOperation<Self>>(
                    &mut self,
                    tag: #krate::Tag<Self, #op>,
                ) -> #krate::Submitter<'_, Self, #op> {
                    #submitter
                }
                /// Returns a strong handle, for other threads: as long as it lives, `run` waits for what it may send.
                #vis fn handle(&mut self) -> #krate::RingHandle<Self> {
                    #handle
                }
                /// Returns what the ring has counted so far.
                #vis fn stats(&self) -> #krate::Stats {
                    #stats
                }
            }
        }
    }

    pub(super) fn tag(&self, operation: &Operation, ty: &TokenStream, hollow: bool) -> TokenStream {
        let krate = &self.ring.krate;
        let Operation { constant, ident, name, .. } = operation;
        let (vis, tag) = (&operation.field.vis, Literal::u8_suffixed(operation.tag()));
        let doc = format!(" The tag of operation `{name}`.");
        let check = self.check(operation, ty);
        let slab = if hollow { quote!(loop {}) } else { quote!(&__slabs.#ident) };
        let (checked, short) = (self.checked(operation, ty), self.short(operation, ty));
        quote! {
            #[doc = #doc]
            #vis const #constant: #krate::Tag<Self, #checked> = #krate::Tag::<Self, #short>::__new(#tag, |__slabs| #slab);
            #check
        }
    }
}
