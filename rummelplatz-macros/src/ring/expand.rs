//! Prints. Every path is absolute, and every binding begins with `__`, so that nothing in the user's scope
//! can interfere. Tokens that the compiler may have to complain about keep the user's spans.

mod checked;
mod methods;
mod parts;
mod types;

use proc_macro2::{Group, Ident, Span, TokenStream, TokenTree};
use quote::{ToTokens, format_ident, quote};
use syn::ext::IdentExt;

use super::model::{Clash, Operation, Ring, Shape};

/// The name of the one field that is not the user's.
const RUNTIME: &str = "__rummelplatz_runtime";

/// The three error enums: the end of their names, the type in `RingOperation`, what failed.
const ERRORS: [(&str, &str, &str); 3] = [
    ("SetupError", "SetupError", "its `setup` returned"),
    ("CompletionError", "ControlFlowError", "its `on_completion` ended the ring with"),
    ("TeardownError", "TeardownError", "its `on_teardown_completion` returned"),
];

/// Prints a ring.
pub(super) fn ring(ring: &Ring) -> TokenStream {
    let operations: Vec<_> = ring.operations.iter().collect();
    let printer = Printer::new(ring, operations);
    let structure = printer.structure(true);
    let errors = ERRORS.map(|error| printer.error_enum(error));
    let methods = printer.methods(false);
    let error_impls = ERRORS.map(|(end, ..)| printer.error_impls(end));
    let parts = printer.parts();
    let traits = printer.traits(false);
    let (krate, allow) = (&ring.krate, allow());
    quote! {
        #structure
        #(#errors)*
        #allow
        const _: () = {
            use #krate::__private as __rt;
            #methods
            #parts
            #traits
            #(#error_impls)*
        };
    }
}

/// Prints what code around a ring needs to see of it, where the ring itself cannot be printed.
pub(super) fn hollow(ring: &Ring) -> TokenStream {
    // A field that was written twice would be complained about again.
    let mut operations: Vec<&Operation> = Vec::new();
    for operation in &ring.operations {
        if !operations.iter().any(|earlier| matches!(earlier.clash(operation), Some(Clash::Field))) {
            operations.push(operation);
        }
    }
    let printer = Printer::new(ring, operations);
    let (krate, allow) = (&ring.krate, allow());
    let named = matches!(ring.shape, Shape::Named);
    let structure = if named { printer.structure(false) } else { ring.item.to_token_stream() };
    let methods = printer.methods(true);
    let parts = printer.hollow_parts();
    let traits = printer.traits(true);
    quote! {
        #structure
        #allow
        const _: () = {
            use #krate::__private as __rt;
            #methods
            #parts
            #traits
        };
    }
}

/// A ring, and what its parts are printed from.
struct Printer<'r> {
    ring: &'r Ring,
    operations: Vec<&'r Operation>,
    /// The types of the operations, without `Self`: in an enum or a hidden struct that would be another type.
    types: Vec<TokenStream>,
    /// The ring with its generic arguments.
    this: TokenStream,
    runtime: Ident,
}

impl<'r> Printer<'r> {
    fn new(ring: &'r Ring, operations: Vec<&'r Operation>) -> Self {
        let (ident, (_, arguments, _)) = (&ring.ident, ring.generics.split_for_impl());
        let this = quote!(#ident #arguments);
        // A type may contain expressions.
        let turbofish = arguments.as_turbofish();
        let itself = quote!(#ident #turbofish);
        let types = operations.iter().map(|operation| {
            // A borrowed type is reported; the type behind the reference is the operation that was meant.
            let ty = operation.borrowed().unwrap_or(&operation.ty);
            without_self(ty.to_token_stream(), ident, &itself)
        });
        let types = types.collect();
        Self { ring, operations, types, this, runtime: Ident::new(RUNTIME, Span::call_site()) }
    }

    fn error(&self, end: &str) -> Ident {
        let name = self.ring.ident.unraw();
        format_ident!("{name}{end}", span = self.ring.ident.span())
    }

    /// One piece for each operation, under the same `cfg` as the operation.
    fn each(&self, mut piece: impl FnMut(&Operation, &TokenStream) -> TokenStream) -> TokenStream {
        let mut all = TokenStream::new();
        for (operation, ty) in self.operations.iter().zip(&self.types) {
            let cfg = &operation.cfg;
            let piece = piece(operation, ty);
            all.extend(quote!(#(#cfg)* #piece));
        }
        all
    }

    /// `name`, or a variation of it if the ring has a generic parameter of that name.
    fn fresh(&self, name: &str) -> Ident {
        let mut name = name.to_owned();
        while self.ring.generics.type_params().any(|parameter| parameter.ident == name)
            || self.ring.generics.const_params().any(|parameter| parameter.ident == name)
        {
            name.push('_');
        }
        Ident::new(&name, Span::call_site())
    }
}

/// The lints that generated code would trigger, and that nobody could do anything about.
fn allow() -> TokenStream {
    quote! {
        #[allow(
            // No program uses all methods and tags.
            dead_code,
            // A public ring may have operations that are private.
            private_interfaces,
            // `self_` makes the variant `Self_`.
            non_camel_case_types,
            // A deprecated ring or operation is deprecated for its users, not here.
            deprecated,
            // `new` has a parameter for each operation.
            clippy::too_many_arguments
        )]
    }
}

/// The tokens of a type with `Self` replaced by the ring, whose path `this` may stand in an expression.
fn without_self(tokens: TokenStream, ring: &Ident, this: &TokenStream) -> TokenStream {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let sign = |token: &TokenTree| match token {
        TokenTree::Punct(punct) => punct.as_char(),
        _ => ' ',
    };
    let signs: Vec<char> = tokens.iter().map(sign).collect();
    let begins_bounds =
        |token: &TokenTree| matches!(token, TokenTree::Ident(ident) if ident == "impl" || ident == "dyn");
    // Whether this is among the bounds of an `impl` or a `dyn`: no type can stand there, only the path of a trait. (Nor
    // before a plus, where the `dyn` is missing. In an expression, the path is as good.)
    let mut in_bounds = false;
    let mut replaced = TokenStream::new();
    for (index, token) in tokens.iter().enumerate() {
        in_bounds = begins_bounds(token) || in_bounds && !matches!(sign(token), ',' | ';' | '=');
        match token {
            // After an apostrophe, it is a lifetime of that name.
            TokenTree::Ident(ident) if ident == "Self" && !signs[..index].ends_with(&['\'']) => {
                let (before, after) = (&signs[..index], &signs[index + 1..]);
                let has_arguments = after.starts_with(&['<']) || after.starts_with(&[':', ':', '<']);
                let is_macro = after.starts_with(&['!']);
                let mut behind = after;
                while let [':', ':', ' ', rest @ ..] = behind {
                    behind = rest;
                }
                let is_bound = (in_bounds || behind.starts_with(&['+'])) && !before.ends_with(&['-', '>']);
                replaced.extend(match after.starts_with(&[':', ':']) {
                    // There is nothing of that name, and the compiler says so of what was written.
                    _ if has_arguments || is_macro || is_bound || before.ends_with(&[':', ':']) => {
                        quote!(#ring)
                    }
                    true => quote!(<#this>),
                    false => this.clone(),
                });
            }
            TokenTree::Group(group) => {
                let mut inner = Group::new(group.delimiter(), without_self(group.stream(), ring, this));
                inner.set_span(group.span());
                replaced.extend([TokenTree::Group(inner)]);
            }
            other => replaced.extend([other.clone()]),
        }
    }
    replaced
}
