//! What both macros read alike: the item, and a list of `word` and `word = value`.

use proc_macro2::{Delimiter, Group, Ident, Span, TokenStream, TokenTree};
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream, Parser};
use syn::{Field, Generics, Path, Token, braced};

use crate::diag::Errors;

/// An argument that may be given once.
pub(crate) struct Once<T> {
    pub(crate) first: Option<T>,
    /// The words that gave it again.
    pub(crate) again: Vec<Ident>,
}

impl<T> Default for Once<T> {
    fn default() -> Self {
        Self { first: None, again: Vec::new() }
    }
}

impl<T> Once<T> {
    pub(crate) fn give(&mut self, word: Ident, value: T) {
        match self.first {
            Some(_) => self.again.push(word),
            None => self.first = Some(value),
        }
    }

    pub(crate) fn get(&self) -> Option<&T> {
        self.first.as_ref()
    }
}

/// Reads an item. If it ends too early, its last token is to blame: the parser alone would blame the whole
/// call of the macro.
pub(crate) fn item<T: Parse>(tokens: TokenStream) -> syn::Result<T> {
    let end = match tokens.clone().into_iter().last() {
        Some(TokenTree::Group(group)) => group.span_close(),
        Some(token) => token.span(),
        None => Span::call_site(),
    };
    // Inside of a group, what ends too early ends at the closing brace.
    let mut group = Group::new(Delimiter::Brace, tokens);
    group.set_span(end);
    let inside = |input: ParseStream<'_>| {
        let item;
        braced!(item in input);
        item.parse()
    };
    inside.parse2(TokenTree::from(group).into())
}

/// Refuses what the parser accepts as the name of a field or a parameter, but the language does not.
pub(crate) fn named<'n>(
    fields: impl IntoIterator<Item = &'n Field>,
    generics: &'n Generics,
    errors: &mut Errors,
) -> Option<()> {
    let fields = fields.into_iter().filter_map(|field| field.ident.as_ref());
    let mut names = fields.chain(generics.type_params().map(|parameter| &parameter.ident));
    match names.find(|name| *name == "_") {
        Some(name) => {
            errors.at(name, "`_` is no name; write one");
            None
        }
        None => Some(()),
    }
}

/// Reads a list of arguments. `one` is called after each word and reads the rest of that argument. If it
/// fails, reading goes on behind the next comma.
pub(crate) fn each(
    tokens: TokenStream,
    errors: &mut Errors,
    mut one: impl FnMut(Ident, ParseStream<'_>) -> syn::Result<()>,
) {
    let list = |input: ParseStream<'_>| {
        while !input.is_empty() {
            let word = Ident::parse_any(input).map_err(|error| {
                syn::Error::new(error.span(), "an argument begins with its name, like `name = value`")
            });
            let read = word.and_then(|word| {
                one(word, input)?;
                if input.is_empty() || input.peek(Token![,]) {
                    input.parse::<Option<Token![,]>>()
                } else {
                    Err(input.error("unexpected token; separate arguments by `,`"))
                }
            });
            if let Err(error) = read {
                errors.push(error);
                skip_argument(input);
            }
        }
        Ok(())
    };
    // The list itself cannot fail: it ends where the tokens end.
    if let Err(error) = list.parse2(tokens) {
        errors.push(error);
    }
}

/// Reads `= value`; `expected` says what belongs there, for whoever left it out.
pub(crate) fn value<T>(
    word: &Ident,
    input: ParseStream<'_>,
    expected: &str,
    parse: impl FnOnce(ParseStream<'_>) -> syn::Result<T>,
) -> syn::Result<T> {
    let left_out = || syn::Error::new(word.span(), format!("`{word}` needs {expected}"));
    if !input.peek(Token![=]) {
        return Err(left_out());
    }
    input.parse::<Token![=]>()?;
    if input.is_empty() || input.peek(Token![,]) {
        return Err(left_out());
    }
    let at = input.span();
    parse(input).map_err(|_| syn::Error::new(at, format!("`{word}` needs {expected}")))
}

/// Reads the value of `crate = path`.
pub(crate) fn krate(word: &Ident, input: ParseStream<'_>) -> syn::Result<Path> {
    const EXPECTED: &str = "the path of the crate, like `crate = my_crate::rummelplatz`";
    let path = value(word, input, EXPECTED, Path::parse_mod_style)?;
    match path.segments.iter().find(|segment| segment.ident == "Self") {
        Some(segment) => Err(syn::Error::new(segment.ident.span(), format!("`{word}` needs {EXPECTED}"))),
        None => Ok(path),
    }
}

/// Skips past the next comma that is not part of a type's arguments.
fn skip_argument(input: ParseStream<'_>) {
    let mut depth = 0_usize;
    let mut arrow = false;
    while let Ok(token) = input.parse::<TokenTree>() {
        if let TokenTree::Punct(punct) = token {
            match punct.as_char() {
                ',' if depth == 0 => return,
                '<' => depth += 1,
                '>' if !arrow => depth = depth.saturating_sub(1),
                _ => {}
            }
            arrow = matches!(punct.as_char(), '-' | '=');
        } else {
            arrow = false;
        }
    }
}
