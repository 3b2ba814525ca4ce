//! Reads; knows no rules but the grammar.

use proc_macro2::{Ident, TokenStream};
use quote::{ToTokens, quote};
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream};
use syn::{Attribute, Data, DeriveInput, Fields, Meta, Token, Type};

use super::model::{HANDLERS, Handler, Handlers, Operation, TYPES, Types};
use crate::args::{self, Once};
use crate::diag::Errors;

const ATTRIBUTE: &str = "ring_operation";

/// Reads the item and its attribute. `None`, and a mistake reported, where nothing is left to build on.
pub(super) fn operation(item: TokenStream, errors: &mut Errors) -> Option<Operation> {
    let item = match args::item::<DeriveInput>(item) {
        Ok(item) => item,
        Err(error) => {
            errors.push(error);
            return None;
        }
    };
    args::named([], &item.generics, errors)?;
    let mut attributes = item.attrs.iter().filter(|attribute| attribute.path().is_ident(ATTRIBUTE));
    let (mut krate, mut types, mut handlers) = (Once::default(), Types::default(), Handlers::default());
    if let Some(attribute) = attributes.next() {
        args::each(arguments(attribute, errors), errors, |word, input| {
            if word == "crate" {
                let path = args::krate(&word, input)?;
                krate.give(word, path);
            } else if let Some(place) = TYPES.iter().position(|(name, _)| word == name) {
                let expected = format!("a type, like `{word} = {}`", TYPES[place].1);
                let ty = args::value(&word, input, &expected, Type::parse)?;
                types.all()[place].give(word, ty);
            } else if let Some(place) = HANDLERS.iter().position(|name| word == name) {
                let handler = handler(&word, input)?;
                handlers.all()[place].give(word, handler);
            } else {
                return Err(syn::Error::new(word.span(), unknown(&word)));
            }
            Ok(())
        });
    }
    let more_attributes = attributes.cloned().collect();
    let (union, misplaced) = inside(&item);
    Some(Operation {
        ident: item.ident,
        generics: item.generics,
        union,
        more_attributes,
        misplaced,
        krate,
        types,
        handlers,
    })
}

/// The tokens between the parentheses.
fn arguments(attribute: &Attribute, errors: &mut Errors) -> TokenStream {
    match &attribute.meta {
        Meta::Path(_) => TokenStream::new(),
        Meta::List(list) => list.tokens.clone(),
        Meta::NameValue(pair) => {
            let message = "`ring_operation` takes its arguments in parentheses, \
                           like `#[ring_operation(data = Connection, on_completion)]`";
            errors.at(pair, message);
            TokenStream::new()
        }
    }
}

fn handler(word: &Ident, input: ParseStream<'_>) -> syn::Result<Handler> {
    if !input.peek(Token![=]) {
        return Ok(Handler { word: word.clone(), method: word.clone() });
    }
    let expected = format!("the name of a method, like `{word} = handle`, or nothing at all");
    let method = args::value(word, input, &expected, |input| input.parse::<Ident>())?;
    Ok(Handler { word: word.clone(), method })
}

fn unknown(word: &Ident) -> String {
    let types = TYPES.iter().map(|(name, _)| *name);
    let all: Vec<_> = types.chain(HANDLERS).map(|name| format!("`{name}`")).collect();
    format!("unknown argument `{}`; `#[ring_operation]` takes {} and `crate`", word.unraw(), all.join(", "))
}

/// What is inside the item: the word `union`, and attributes that belong outside.
fn inside(item: &DeriveInput) -> (Option<proc_macro2::Span>, Vec<(Attribute, String)>) {
    let mut misplaced = Vec::new();
    let mut look = |attributes: &[Attribute], what: String| {
        let found = attributes.iter().filter(|attribute| attribute.path().is_ident(ATTRIBUTE));
        misplaced.extend(found.map(|attribute| (attribute.clone(), what.clone())));
    };
    let mut look_at = |fields: &Fields| {
        for field in fields {
            let name = field.ident.as_ref().map_or_else(|| field.ty.to_token_stream(), |name| quote!(#name));
            look(&field.attrs, format!("field `{name}`"));
        }
    };
    let mut union = None;
    match &item.data {
        Data::Struct(data) => look_at(&data.fields),
        Data::Enum(data) => {
            data.variants.iter().for_each(|variant| look_at(&variant.fields));
            for variant in &data.variants {
                look(&variant.attrs, format!("variant `{}`", variant.ident));
            }
        }
        Data::Union(data) => union = Some(data.union_token.span),
    }
    (union, misplaced)
}
