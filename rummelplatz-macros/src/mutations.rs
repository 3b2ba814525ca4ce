//! Inputs that nobody writes, and what must hold of their expansions. For the tests, and for a fuzzer, which
//! includes this file.
//!
//! An input is a valid one in which tokens were deleted, doubled, swapped, inserted and put into groups; or
//! it is a soup of tokens.

use std::fmt::{self, Display};

use proc_macro2::{Delimiter, Group, Span, TokenStream, TokenTree};
use quote::quote;
use syn::ext::IdentExt;
use syn::parse::{ParseStream, Parser};
use syn::punctuated::Punctuated;
use syn::{DeriveInput, Expr, File, Ident, Item, Meta, Path, Token, Type};

use crate::operation::operation;
use crate::ring::ring;

/// Where the decisions come from.
pub(crate) trait Choices {
    /// A number from 0 up to `bound`, but less than that.
    fn below(&mut self, bound: usize) -> usize;
}

/// Arguments of `#[ring]`, and what it may stand on.
const RINGS: &[(&str, &str)] = &[
    ("", "pub struct Server { /** Accepts. */ pub acceptor: Acceptor, connections: Connections }"),
    (
        "crate = a::b, entries = 64, grace_ms = G, deadline_ms = 5 * 60, backlog_limit = 9,",
        "struct r#M { r#type: Op, self_: Op, _1: Op }",
    ),
    (
        "entries = 256",
        "pub(crate) struct S<'a, T: Clone = u32, const N: usize = 4> where T: 'a { holder: Holder<'a, T>, me: For<Self, [Self::Item; N]> }",
    ),
    (
        "",
        "struct S { #[cfg(unix)] #[allow(unused)] unix: Op, #[cfg_attr(a, doc = \"x\", cfg(windows))] windows: Op }",
    ),
    (
        "",
        "#[derive(Debug, std::clone::Clone)] #[repr(C)] pub(in crate::x) struct S { a: &'static mut A, b: <Self as X>::Y }",
    ),
    (
        "",
        "struct S { timer: fn(u8) -> u8, TIMER: Box<dyn Fn(&Self) -> T + Send>, f: impl_!(), g: [u8; { 1 + 1 }] }",
    ),
    ("", "enum E<T> { A(T), #[cfg(x)] B { b: B }, C = 5 }"),
    ("", "union U { a: A, b: B }"),
    ("", "struct Tuple(pub A, #[cfg(x)] B);"),
    ("", "struct Unit;"),
    ("", "impl<T> S<T> where T: X { fn f(&self) -> u8 { 1 } }"),
    ("", "pub const fn f<T>(a: T) -> impl Copy { loop {} }"),
    ("", "type T<'a> = &'a dyn U<u8, V = W>;"),
    ("", "mod m { struct S { a: A } }"),
];

/// What `#[derive(RingOperation)]` may stand on.
const OPERATIONS: &[&str] = &[
    "pub struct Nothing;",
    "#[ring_operation(ring = Server, data = Vec<(u8, HashMap<u8, u8>)>, warn = io::Error, error = Fatal, setup_error = (), \
     teardown_error = !, setup, on_completion = handle, on_teardown_completion,)] struct A<T: Clone>(T) where T: 'static;",
    "#[ring_operation(data = Peer, warn = io::Error, on_more, on_final = last)] enum Peers<const N: usize> { None }",
    "#[ring_operation(ring = S, data = Peer, on_more)] struct Peers { a: A, b: <A as B>::C }",
    "#[ring_operation(crate = a::b, ring = S<'a, T>, data = (A, fn(&u8) -> B), on_more = f, on_final, setup)] \
     pub enum E<'a, T: Clone = u8, const N: usize = 3> where T: 'a { #[ring_operation] A { #[ring_operation(x)] x: T }, B(u8), C }",
    "#[ring_operation(error = E, on_completion = setup, setup = on_completion)] #[derive(Clone)] struct r#Op;",
    "#[ring_operation = 5] union U { a: A }",
    "#[ring_operation(setup)] #[ring_operation(ring = S)] struct Twice<T>([T; 2]);",
];

const INGREDIENTS: &str = "struct enum union fn pub crate self Self super r#type _ a B 'a 'static , ; : :: = => -> < > & # ! . .. + * \
                           ? | @ ~ cfg cfg_attr derive ring_operation ring data entries warn error setup on_completion on_more \
                           on_final Debug Clone 0 5u8 1.5 \"x\" b\"x\" 'x' r#\"y\"# where const impl dyn for mut ref async \
                           unsafe extern macro_rules mod use type static trait let loop move in as über";

/// What the macros are given.
pub(crate) enum Input {
    Ring(TokenStream, TokenStream),
    Operation(TokenStream),
}

impl Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Input::Ring(arguments, item) => write!(f, "#[ring({arguments})] {item}"),
            Input::Operation(item) => write!(f, "#[derive(RingOperation)] {item}"),
        }
    }
}

impl Input {
    pub(crate) fn choose(choices: &mut impl Choices) -> Input {
        // Spans would be kept for ever otherwise. No token of an earlier input is left by now.
        proc_macro2::extra::invalidate_current_thread_spans();
        let span = some_span();
        let input = match choices.below(8) {
            0..=2 => {
                let (arguments, item) = RINGS[choices.below(RINGS.len())];
                let mutations = choices.below(6);
                let item = mutated(parsed(item), mutations, choices);
                let mutations = choices.below(3);
                Input::Ring(mutated(parsed(arguments), mutations, choices), item)
            }
            3..=5 => {
                let item = OPERATIONS[choices.below(OPERATIONS.len())];
                let mutations = choices.below(6);
                Input::Operation(mutated(parsed(item), mutations, choices))
            }
            6 => {
                let (arguments, item) = (soup(6, 2, choices), soup(12, 3, choices));
                match choices.below(3) {
                    0 => Input::Ring(arguments, item),
                    1 => Input::Ring(arguments, quote!(struct S { #item })),
                    _ => Input::Ring(
                        item,
                        quote!(
                            struct S {
                                a: A,
                            }
                        ),
                    ),
                }
            }
            _ => {
                let (arguments, item) = (soup(6, 2, choices), soup(12, 3, choices));
                match choices.below(2) {
                    0 => Input::Operation(item),
                    _ => Input::Operation(quote!(#[ring_operation(#arguments)] struct S { #item })),
                }
            }
        };
        match input {
            Input::Ring(arguments, item) => Input::Ring(put_at(span, arguments), put_at(span, item)),
            Input::Operation(item) => Input::Operation(put_at(span, item)),
        }
    }

    /// Expands the input. Panics unless all holds that must hold of an expansion.
    pub(crate) fn judge(self) {
        let shown = self.to_string();
        let (valid, readable, empty, output, item) = match self {
            Input::Ring(arguments, item) => {
                let readable = syn::parse2::<Item>(item.clone()).is_ok();
                let valid = readable && ring_arguments.parse2(arguments.clone()).is_ok();
                (valid, readable, item.is_empty(), ring(arguments, item.clone()), item)
            }
            Input::Operation(item) => {
                let read = syn::parse2::<DeriveInput>(item.clone());
                let valid = read.as_ref().is_ok_and(|item| item.attrs.iter().all(operation_arguments));
                (valid, read.is_ok(), item.is_empty(), operation(item), TokenStream::new())
            }
        };
        // What can't be read is handed on as it is: the compiler may know better.
        let handed_on = if readable { 0 } else { item.into_iter().count() };
        let made: TokenStream = output.into_iter().skip(handed_on).collect();
        if let Err(error) = syn::parse2::<File>(made.clone()) {
            panic!("the expansion does not parse: {error}\n{shown}\n{made}");
        }
        let mut errors = Vec::new();
        find_errors(made, &mut errors);
        assert!(valid || !errors.is_empty(), "it can't be read, and no error says so:\n{shown}");
        let nowhere = |span: &Span| is_nowhere(*span) && !empty;
        if let Some((message, _)) = errors.iter().find(|(_, spans)| spans.iter().any(nowhere)) {
            panic!("an error that points nowhere: {message}\n{shown}");
        }
    }
}

// ---- making inputs ----------------------------------------------------------------------------------

fn parsed(tokens: &str) -> TokenStream {
    match tokens.parse() {
        Ok(tokens) => tokens,
        Err(error) => panic!("{error}: {tokens}"),
    }
}

fn ingredient(choices: &mut impl Choices) -> TokenStream {
    let choice = choices.below(INGREDIENTS.split_whitespace().count());
    INGREDIENTS.split_whitespace().nth(choice).map(parsed).unwrap_or_default()
}

fn delimiter(choices: &mut impl Choices) -> Delimiter {
    // `None`, without delimiters, is what comes out of a `macro_rules!`.
    [Delimiter::None, Delimiter::Parenthesis, Delimiter::Brace, Delimiter::Bracket][choices.below(4)]
}

fn soup(length: usize, depth: usize, choices: &mut impl Choices) -> TokenStream {
    let mut tokens = TokenStream::new();
    for _ in 0..choices.below(length + 1) {
        if depth > 0 && choices.below(8) == 0 {
            let delimiter = delimiter(choices);
            let inner = soup(length, depth - 1, choices);
            tokens.extend([TokenTree::from(Group::new(delimiter, inner))]);
        } else {
            tokens.extend(ingredient(choices));
        }
    }
    tokens
}

fn mutated(mut tokens: TokenStream, mutations: usize, choices: &mut impl Choices) -> TokenStream {
    for _ in 0..mutations {
        tokens = mutated_once(tokens, choices);
    }
    tokens
}

fn mutated_once(tokens: TokenStream, choices: &mut impl Choices) -> TokenStream {
    let mut tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let place = choices.below(tokens.len() + 1);
    let Some(token) = tokens.get(place).cloned() else {
        tokens.extend(ingredient(choices));
        return tokens.into_iter().collect();
    };
    if let TokenTree::Group(group) = &token
        && choices.below(4) != 0
    {
        tokens[place] = Group::new(group.delimiter(), mutated_once(group.stream(), choices)).into();
        return tokens.into_iter().collect();
    }
    let end = place + 1 + choices.below((tokens.len() - place).min(4));
    let run = place..end;
    match choices.below(7) {
        0 => drop(tokens.drain(run)),
        1 => {
            let again = tokens[run].to_vec();
            tokens.splice(end..end, again);
        }
        2 => {
            let other = choices.below(tokens.len());
            tokens.swap(place, other);
        }
        3 => drop(tokens.splice(place..place, ingredient(choices))),
        4 => drop(tokens.splice(run, ingredient(choices))),
        5 => {
            let inner = tokens[run.clone()].iter().cloned().collect();
            tokens.splice(run, [Group::new(delimiter(choices), inner).into()]);
        }
        _ => {
            if let TokenTree::Group(group) = token {
                tokens.splice(place..=place, group.stream());
            }
        }
    }
    tokens.into_iter().collect()
}

// ---- spans ------------------------------------------------------------------------------------------

/// A span that is not that of the macro's call.
fn some_span() -> Span {
    parsed("_").into_iter().next().map_or_else(Span::call_site, |token| token.span())
}

fn is_nowhere(span: Span) -> bool {
    // `byte_range` says nothing under a fuzzer (`cfg(fuzzing)`).
    format!("{span:?}") == format!("{:?}", Span::call_site())
}

/// The same tokens with `span`, so that nothing of the input has the span of the macro's call.
fn put_at(span: Span, tokens: TokenStream) -> TokenStream {
    let put = |mut token: TokenTree| {
        if let TokenTree::Group(group) = &token {
            token = Group::new(group.delimiter(), put_at(span, group.stream())).into();
        }
        token.set_span(span);
        token
    };
    tokens.into_iter().map(put).collect()
}

// ---- judging ----------------------------------------------------------------------------------------

/// The messages of all errors in an expansion, in their order, each with its spans.
pub(crate) fn find_errors(tokens: TokenStream, errors: &mut Vec<(String, [Span; 2])>) {
    let mut begin = None;
    for token in tokens {
        match (token, begin) {
            (TokenTree::Ident(ident), _) => begin = (ident == "compile_error").then(|| ident.span()),
            (TokenTree::Group(group), Some(span)) => {
                if let Ok(message) = syn::parse2::<syn::LitStr>(group.stream()) {
                    errors.push((message.value(), [span, message.span()]));
                }
                begin = None;
            }
            (TokenTree::Group(group), None) => find_errors(group.stream(), errors),
            _ => {}
        }
    }
}

/// The grammar of the arguments, once more, in short.
fn ring_arguments(input: ParseStream<'_>) -> syn::Result<()> {
    let one = |input: ParseStream<'_>| {
        let word = Ident::parse_any(input)?;
        input.parse::<Token![=]>()?;
        if word == "crate" { Path::parse_mod_style(input).map(drop) } else { input.parse::<Expr>().map(drop) }
    };
    Punctuated::<(), Token![,]>::parse_terminated_with(input, one).map(drop)
}

fn operation_arguments(attribute: &syn::Attribute) -> bool {
    const HANDLERS: [&str; 5] = ["setup", "on_completion", "on_more", "on_final", "on_teardown_completion"];
    let one = |input: ParseStream<'_>| {
        let word = Ident::parse_any(input)?;
        let is_handler = HANDLERS.iter().any(|name| word == name);
        if is_handler && !input.peek(Token![=]) {
            return Ok(());
        }
        input.parse::<Token![=]>()?;
        if word == "crate" {
            Path::parse_mod_style(input).map(drop)
        } else if is_handler {
            input.parse::<Ident>().map(drop)
        } else {
            input.parse::<Type>().map(drop)
        }
    };
    let all = |input: ParseStream<'_>| Punctuated::<(), Token![,]>::parse_terminated_with(input, one);
    !attribute.path().is_ident("ring_operation")
        || match &attribute.meta {
            Meta::Path(_) => true,
            Meta::List(list) => all.parse2(list.tokens.clone()).is_ok(),
            Meta::NameValue(_) => false,
        }
}
