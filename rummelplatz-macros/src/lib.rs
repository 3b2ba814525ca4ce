//! The macros of `rummelplatz`. Use them through that crate: their documentation, with examples, stands there.
//!
//! Each macro reads, judges and prints: `parse` makes a model of what was written and knows no rules, `check`
//! knows the rules and reports every one that is broken, `expand` prints a model and cannot fail. A model
//! that broke a rule is printed hollow: all names, no bodies, so that nothing changes for the compiler in the
//! code around it.

#![forbid(unsafe_code)]

use proc_macro::TokenStream;

mod args;
mod diag;
#[cfg(test)]
mod mutations;
mod operation;
mod ring;
#[cfg(test)]
mod tests;

/// Makes a ring of a struct whose fields are operations.
#[proc_macro_attribute]
pub fn ring(args: TokenStream, item: TokenStream) -> TokenStream {
    ring::ring(args.into(), item.into()).into()
}

/// Derives `RingOperation`, forwarding to the handlers that `#[ring_operation(…)]` names.
#[proc_macro_derive(RingOperation, attributes(ring_operation))]
pub fn ring_operation(item: TokenStream) -> TokenStream {
    operation::operation(item.into()).into()
}
