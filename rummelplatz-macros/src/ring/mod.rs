//! `#[ring]`.

mod check;
mod expand;
mod model;
mod parse;

use proc_macro2::TokenStream;
use quote::quote;

use crate::diag::Errors;

/// Expands `#[ring(args)] item`.
pub(crate) fn ring(args: TokenStream, item: TokenStream) -> TokenStream {
    let mut errors = Errors::default();
    let Some(ring) = parse::ring(args, item.clone(), &mut errors) else {
        let errors = errors.into_tokens();
        return quote!(#item #errors);
    };
    check::ring(&ring, &mut errors);
    if errors.is_empty() {
        return expand::ring(&ring);
    }
    let hollow = expand::hollow(&ring);
    let errors = errors.into_tokens();
    quote!(#hollow #errors)
}
