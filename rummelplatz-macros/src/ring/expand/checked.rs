//! How a field's type is named, so that a mistake in it is one error.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, format_ident, quote, quote_spanned};

use super::Printer;
use crate::ring::model::{Operation, Ring};

impl Printer<'_> {
    /// The associated type `name` of an operation of this ring.
    pub(super) fn associated(&self, ty: &TokenStream, name: &str) -> TokenStream {
        let (krate, this, name) = (&self.ring.krate, &self.this, format_ident!("{name}"));
        quote!(<#ty as #krate::RingOperation<#this>>::#name)
    }

    /// Whether mistakes in the types of the fields can be found by constants: such a constant stands in
    /// types, where it may not depend on a type parameter or a constant of the ring. Lifetimes are no
    /// hindrance: whether something is an operation for `'static` is asked of the same code as for any other
    /// lifetime.
    pub(super) fn has_checks(&self) -> bool {
        let generics = &self.ring.generics;
        generics.type_params().next().is_none() && generics.const_params().next().is_none()
    }

    /// The type of an operation, such that only its [check](Self::check) complains about it.
    pub(super) fn checked(&self, operation: &Operation, ty: &TokenStream) -> TokenStream {
        if !self.has_checks() {
            return ty.clone();
        }
        let Ring { krate, ident, generics, .. } = self.ring;
        let check = check_name(operation);
        let lifetimes = generics.lifetimes().map(|_| quote!('static));
        let this =
            if generics.params.is_empty() { quote!(#ident) } else { quote!(#ident::<#(#lifetimes),*>) };
        quote!(#krate::__private::checked::Operation<#ty, { #this::#check }>)
    }

    /// The same, by the short name that it has next to the implementation.
    pub(super) fn short(&self, operation: &Operation, ty: &TokenStream) -> TokenStream {
        match self.alias(operation, ty) {
            Some(_) => alias_name(operation).into_token_stream(),
            None => self.checked(operation, ty),
        }
    }

    /// The short name itself, as an alias. An alias must use all of its parameters, so there is none in a
    /// generic ring.
    pub(super) fn alias(&self, operation: &Operation, ty: &TokenStream) -> Option<TokenStream> {
        if !self.ring.generics.params.is_empty() {
            return None;
        }
        let (alias, checked, cfg) = (alias_name(operation), self.checked(operation, ty), &operation.cfg);
        Some(quote!(#(#cfg)* type #alias = #checked;))
    }

    /// The constant that compiles only if the type of the field is an operation of this ring.
    pub(super) fn check(&self, operation: &Operation, ty: &TokenStream) -> Option<TokenStream> {
        if !self.has_checks() {
            return None;
        }
        let check = check_name(operation);
        let (first, last) = ends(&operation.ty);
        let (krate, this) = (&self.ring.krate, &self.this);
        let (open, data) = (quote_spanned!(first=> <), Ident::new("RingData", last));
        let cfg = &operation.cfg;
        Some(quote! {
            #(#cfg)*
            #[doc(hidden)]
            const #check: ::core::primitive::bool = {
                let _: ::core::marker::PhantomData<#open #ty as #krate::RingOperation<#this>>::#data>;
                true
            };
        })
    }
}

/// Where the tokens of something begin and end. Spans can't be joined on stable; a pair of tokens does it.
fn ends(tokens: impl ToTokens) -> (Span, Span) {
    let mut tokens = tokens.into_token_stream().into_iter();
    let first = tokens.next().map_or_else(Span::call_site, |token| token.span());
    (first, tokens.last().map_or(first, |token| token.span()))
}

fn alias_name(operation: &Operation) -> Ident {
    format_ident!("__Operation{}", operation.position)
}

fn check_name(operation: &Operation) -> Ident {
    format_ident!("__CHECK_{}", operation.position)
}
