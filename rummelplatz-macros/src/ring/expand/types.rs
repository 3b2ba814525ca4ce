//! The types that users see: the ring itself and its error enums.

use proc_macro2::TokenStream;
use quote::quote;
use syn::ext::IdentExt;

use super::{Printer, allow};
use crate::ring::model::{Operation, Ring};

impl Printer<'_> {
    pub(super) fn structure(&self, with_runtime: bool) -> TokenStream {
        let Ring { attrs, derives, vis, ident, generics, krate, .. } = self.ring;
        // Derives that were reported would be complained about again.
        let bad: Vec<usize> =
            derives.iter().filter(|derive| derive.bad().is_some()).map(|derive| derive.attribute).collect();
        let attrs = attrs.iter().enumerate();
        let attrs = attrs.filter(|(place, _)| !bad.contains(place)).map(|(_, attribute)| attribute);
        let fields = self.operations.iter().map(|operation| &operation.field);
        let (runtime, this) = (&self.runtime, &self.this);
        let runtime = with_runtime.then(|| quote!(#runtime: #krate::__private::Runtime<#this>,));
        let where_clause = &generics.where_clause;
        // The runtime is the first field, so it ends before the operations do.
        quote! {
            #(#attrs)*
            #vis struct #ident #generics #where_clause {
                #runtime
                #(#fields,)*
            }
        }
    }

    /// An error enum, with one variant per operation.
    pub(super) fn error_enum(&self, (end, associated, what): (&str, &str, &str)) -> TokenStream {
        let Ring { vis, generics, ident, .. } = self.ring;
        let name = self.error(end);
        let variants = self.each(|operation, ty| {
            let variant = &operation.variant;
            let doc = format!(" Operation `{}`: {what} this.", operation.name);
            let error = self.associated(&self.checked(operation, ty), associated);
            quote!(#[doc = #doc] #variant(#error),)
        });
        let doc = format!(" Which operation of [`{}`] failed: one variant for each.", ident.unraw());
        let allow = allow();
        let where_clause = &generics.where_clause;
        quote! {
            #[doc = #doc]
            #allow
            #vis enum #name #generics #where_clause { #variants }
        }
    }

    /// What every error enum implements, whatever is in it.
    pub(super) fn error_impls(&self, end: &str) -> TokenStream {
        let name = self.error(end);
        let (impl_generics, arguments, where_clause) = self.ring.generics.split_for_impl();
        let variants = self.each(|Operation { variant, name, .. }, _| quote!(#variant = #name,));
        quote! {
            __rt::probe::operation_error! {
                impl [#impl_generics] for [#name #arguments] [#where_clause]
                #variants
            }
        }
    }

    /// The traits of the standard library that a ring has.
    pub(super) fn traits(&self, hollow: bool) -> TokenStream {
        let Ring { ident, generics, .. } = self.ring;
        let (impl_generics, arguments, where_clause) = generics.split_for_impl();
        let runtime = &self.runtime;
        let [debug, as_fd, as_raw_fd] = [
            quote!(__rt::fmt(self, __formatter)),
            quote!(__rt::AsFd::as_fd(&self.#runtime)),
            quote!(__rt::AsRawFd::as_raw_fd(&self.#runtime)),
        ]
        .map(|body| if hollow { quote!(loop {}) } else { body });
        quote! {
            #[automatically_derived]
            impl #impl_generics ::core::fmt::Debug for #ident #arguments #where_clause {
                fn fmt(&self, __formatter: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                    #debug
                }
            }
            #[automatically_derived]
            impl #impl_generics __rt::AsFd for #ident #arguments #where_clause {
                fn as_fd(&self) -> __rt::BorrowedFd<'_> {
                    #as_fd
                }
            }
            #[automatically_derived]
            impl #impl_generics __rt::AsRawFd for #ident #arguments #where_clause {
                fn as_raw_fd(&self) -> __rt::RawFd {
                    #as_raw_fd
                }
            }
        }
    }
}
