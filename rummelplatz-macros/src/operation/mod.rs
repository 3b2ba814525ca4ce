//! `#[derive(RingOperation)]`.

mod check;
mod expand;
mod model;
mod parse;

use proc_macro2::TokenStream;
use quote::quote;

use crate::diag::Errors;

/// Expands `#[derive(RingOperation)] item`.
pub(crate) fn operation(item: TokenStream) -> TokenStream {
    let mut errors = Errors::default();
    let Some(operation) = parse::operation(item, &mut errors) else {
        return errors.into_tokens();
    };
    check::operation(&operation, &mut errors);
    if errors.is_empty() {
        return expand::operation(&operation);
    }
    let hollow = expand::hollow(&operation);
    let errors = errors.into_tokens();
    quote!(#hollow #errors)
}
