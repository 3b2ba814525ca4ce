//! Reads; knows no rules but the grammar.

use proc_macro2::TokenStream;
use quote::{ToTokens, format_ident};
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{Attribute, Expr, Field, Fields, Item, Meta, Path, Token, parse_quote};

use super::model::{Derive, OPTIONS, Operation, Ring, Shape};
use crate::args::{self, Once};
use crate::diag::Errors;

/// Reads the item and the arguments. `None`, and a mistake reported, where nothing is left to build on.
pub(super) fn ring(args: TokenStream, item: TokenStream, errors: &mut Errors) -> Option<Ring> {
    let (krate, options) = arguments(args, errors);
    let item = match args::item::<Item>(item) {
        Ok(item) => item,
        Err(error) => {
            errors.push(error);
            return None;
        }
    };
    let written = item.clone();
    let (shape, attrs, vis, ident, generics, fields) = match item {
        Item::Struct(item) => {
            let (shape, fields) = match item.fields {
                Fields::Named(fields) => (Shape::Named, fields.named),
                Fields::Unnamed(fields) => (Shape::Tuple(fields.paren_token.span.join()), fields.unnamed),
                Fields::Unit => (Shape::Unit, Punctuated::new()),
            };
            (shape, item.attrs, item.vis, item.ident, item.generics, fields)
        }
        Item::Enum(item) => {
            // Whoever wrote an enum meant each variant as one operation.
            let fields = item.variants.into_iter().filter_map(|variant| variant.fields.into_iter().next());
            (
                Shape::Enum(item.enum_token.span),
                item.attrs,
                item.vis,
                item.ident,
                item.generics,
                fields.collect(),
            )
        }
        Item::Union(item) => {
            let shape = Shape::Union(item.union_token.span);
            (shape, item.attrs, item.vis, item.ident, item.generics, item.fields.named)
        }
        other => {
            let (word, what) = kind(&other);
            errors.at(word, format!("`#[ring]` goes on a struct whose fields are operations, not on {what}"));
            return None;
        }
    };
    args::named(&fields, &generics, errors)?;
    let operations = fields.into_iter().enumerate().map(|(index, field)| operation(field, index + 1));
    Some(Ring {
        krate: krate.first.unwrap_or_else(|| parse_quote!(::rummelplatz)),
        krate_again: krate.again,
        options,
        shape,
        item: written,
        derives: derives(&attrs),
        attrs,
        vis,
        ident,
        generics,
        operations: operations.collect(),
    })
}

fn arguments(args: TokenStream, errors: &mut Errors) -> (Once<Path>, [Once<Expr>; OPTIONS.len()]) {
    let mut krate = Once::default();
    let mut options = std::array::from_fn(|_| Once::default());
    args::each(args, errors, |word, input| {
        if word == "crate" {
            let path = args::krate(&word, input)?;
            krate.give(word, path);
        } else if let Some(place) = OPTIONS.iter().position(|option| word == option) {
            let expected = format!("a number, like `{word} = 256`");
            let number = args::value(&word, input, &expected, Expr::parse)?;
            options[place].give(word, number);
        } else {
            let all = OPTIONS.map(|option| format!("`{option}`")).join(", ");
            let message = format!(
                "unknown argument `{word}`; `#[ring]` takes `crate`, {all}; all else belongs to the builder"
            );
            return Err(syn::Error::new(word.span(), message));
        }
        Ok(())
    });
    (krate, options)
}

fn operation(field: Field, position: usize) -> Operation {
    let ident = field.ident.clone().unwrap_or_else(|| format_ident!("operation_{position}"));
    let cfg = field.attrs.iter().filter_map(cfg).collect();
    Operation::new(field, ident, cfg, position)
}

/// The part of an attribute that decides whether the field exists: a `cfg`, or the `cfg`s in a `cfg_attr`.
/// The rest of a `cfg_attr` may be of use to the field alone.
fn cfg(attribute: &Attribute) -> Option<Attribute> {
    if attribute.path().is_ident("cfg") {
        return Some(attribute.clone());
    }
    if !attribute.path().is_ident("cfg_attr") {
        return None;
    }
    let condition_and_attributes = |input: ParseStream<'_>| {
        let condition = input.parse::<Meta>()?;
        input.parse::<Token![,]>()?;
        Ok((condition, Punctuated::<Meta, Token![,]>::parse_terminated(input)?))
    };
    let (condition, attributes) = attribute.parse_args_with(condition_and_attributes).ok()?;
    let cfgs: Vec<_> = attributes.into_iter().filter(|meta| meta.path().is_ident("cfg")).collect();
    (!cfgs.is_empty()).then(|| parse_quote!(#[cfg_attr(#condition, #(#cfgs),*)]))
}

/// The keyword that says what an item is, and what to call that.
fn kind(item: &Item) -> (TokenStream, &'static str) {
    match item {
        Item::Fn(item) => (item.sig.fn_token.to_token_stream(), "a function"),
        Item::Trait(item) => (item.trait_token.to_token_stream(), "a trait"),
        Item::Impl(item) => (item.impl_token.to_token_stream(), "an implementation"),
        Item::Mod(item) => (item.mod_token.to_token_stream(), "a module"),
        Item::Type(item) => (item.type_token.to_token_stream(), "a type alias"),
        Item::Const(item) => (item.const_token.to_token_stream(), "a constant"),
        Item::Static(item) => (item.static_token.to_token_stream(), "a static"),
        other => (other.to_token_stream(), "this"),
    }
}

/// The words of `#[derive(…)]`s.
fn derives(attrs: &[Attribute]) -> Vec<Derive> {
    let mut derives = Vec::new();
    for (place, attribute) in
        attrs.iter().enumerate().filter(|(_, attribute)| attribute.path().is_ident("derive"))
    {
        let words = attribute.parse_args_with(Punctuated::<Path, Token![,]>::parse_terminated);
        derives.extend(words.into_iter().flatten().map(|path| Derive { attribute: place, path }));
    }
    derives
}
