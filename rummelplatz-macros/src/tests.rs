//! Expansions as snapshots, and what may be thrown at the macros.
//!
//! `UPDATE_SNAPSHOTS=1 cargo test -p rummelplatz-macros` writes the snapshots anew; read the difference.

use std::env;
use std::fs;
use std::path::Path;

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};
use quote::quote;

use crate::mutations::{Choices, Input, find_errors};
use crate::operation::operation;
use crate::ring::ring;

/// Compares an expansion with `snapshots/{name}.rs`.
fn assert_snapshot(name: &str, tokens: TokenStream) {
    let file = match syn::parse2::<syn::File>(tokens.clone()) {
        Ok(file) => file,
        Err(error) => panic!("the expansion does not parse: {error}\n{tokens}"),
    };
    let printed = prettyplease::unparse(&file);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/snapshots").join(name).with_extension("rs");
    if env::var_os("UPDATE_SNAPSHOTS").is_some() {
        assert!(fs::write(&path, &printed).is_ok(), "cannot write {}", path.display());
        return;
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        printed == expected,
        "{} differs; UPDATE_SNAPSHOTS=1 writes it anew. Now it is:\n{printed}",
        path.display()
    );
}

/// The messages of the errors in an expansion, in their order.
fn messages(tokens: TokenStream) -> Vec<String> {
    let mut errors = Vec::new();
    find_errors(tokens, &mut errors);
    errors.into_iter().map(|(message, _)| message).collect()
}

#[test]
fn ring_of_two_operations() {
    assert_snapshot(
        "ring_of_two_operations",
        ring(
            quote!(),
            quote! {
                /// Echoes.
                pub struct EchoServer {
                    /// Accepts.
                    pub acceptor: Acceptor,
                    connections: Connections,
                }
            },
        ),
    );
}

#[test]
fn ring_with_generics_is_printed_without_checks() {
    assert_snapshot(
        "ring_with_generics",
        ring(
            quote!(),
            quote! {
                pub(crate) struct Server<'a, T: Clone = u32, const N: usize = 4> where T: 'a {
                    holder: Holder<'a, T>,
                    me: ForRing<Self, [Self::Item; N]>,
                }
            },
        ),
    );
}

#[test]
fn ring_with_cfg_on_its_fields() {
    assert_snapshot(
        "ring_with_cfg",
        ring(
            quote!(),
            quote! {
                struct Server {
                    #[cfg(unix)]
                    #[allow(unused)]
                    unix: Op,
                    #[cfg_attr(feature = "x", doc = "documented", cfg(windows))]
                    windows: Op,
                    #[cfg_attr(feature = "x", serde(skip))]
                    both: Op,
                }
            },
        ),
    );
}

#[test]
fn ring_with_arguments_and_awkward_names() {
    assert_snapshot(
        "ring_with_arguments",
        ring(
            quote!(
                crate = crate::reexported,
                entries = 64,
                grace_ms = GRACE,
                deadline_ms = 5 * 60,
                backlog_limit = 9,
            ),
            quote! {
                struct r#Match {
                    r#type: Op,
                    self_: Op,
                    raw: Op,
                    _1: Op,
                }
            },
        ),
    );
}

#[test]
fn ring_with_a_mistake_is_printed_hollow() {
    assert_snapshot(
        "ring_hollow",
        ring(
            quote!(sqpoll),
            quote!(
                struct Server<'a> {
                    acceptor: &'a mut Acceptor,
                    timer: Timer,
                    TIMER: Timer,
                }
            ),
        ),
    );
}

#[test]
fn operation_with_defaults_only() {
    assert_snapshot(
        "operation_defaults",
        operation(quote!(
            pub struct Nothing;
        )),
    );
}

#[test]
fn operation_with_everything_named() {
    assert_snapshot(
        "operation_whole",
        operation(quote! {
            #[ring_operation(
                ring = Server, data = Vec<(u8, HashMap<u8, u8>)>, warn = io::Error, error = Fatal,
                setup_error = (), teardown_error = !, setup, on_completion = handle, on_teardown_completion,
            )]
            struct Acceptor<T: Clone>(T) where T: 'static;
        }),
    );
}

#[test]
fn operation_with_split_handlers() {
    assert_snapshot(
        "operation_split",
        operation(quote! {
            #[ring_operation(data = Peer, warn = io::Error, on_more, on_final = last)]
            enum Peers<const N: usize> { None }
        }),
    );
}

#[test]
fn operation_with_a_mistake_is_printed_hollow() {
    assert_snapshot(
        "operation_hollow",
        operation(quote! {
            #[ring_operation(ring = Server, data = Peer, on_more)]
            struct Peers;
        }),
    );
}

#[test]
fn the_same_ring_is_printed_the_same() {
    let print = || {
        ring(
            quote!(),
            quote!(
                struct S {
                    a: A,
                    b: B<C, D>,
                    c: [E; 3],
                }
            ),
        )
        .to_string()
    };
    assert_eq!(print(), print());
}

#[test]
fn all_mistakes_of_a_ring_are_reported_at_once() {
    let item = quote! {
        #[derive(Debug, Clone)]
        struct S { a: &'static A, timer: T, TIMER: T }
    };
    let found = messages(ring(quote!(sqpoll, entries, entries = 0, entries = 1, grace_ms = "1"), item));
    assert_eq!(found.len(), 9, "{found:#?}");
}

#[test]
fn all_mistakes_of_an_operation_are_reported_at_once() {
    let item = quote! {
        #[ring_operation(rign = S, data, on_completion = 3, on_more, warn = A, warn = B)]
        #[ring_operation(ring = S)]
        struct Op { #[ring_operation(data = u8)] field: u8 }
    };
    let found = messages(operation(item));
    assert_eq!(found.len(), 7, "{found:#?}");
}

#[test]
fn a_mistake_in_one_argument_leaves_the_others_alone() {
    let found = messages(ring(
        quote!(foo = HashMap<A, B>, bar(1, 2), entries = 5),
        quote!(
            struct S {
                a: A,
            }
        ),
    ));
    assert_eq!(found.len(), 2, "{found:#?}");
}

#[test]
fn a_comma_in_an_invisible_group_is_a_comma() {
    let comma = Group::new(Delimiter::None, quote!(,));
    let found = messages(ring(
        quote!(entries = 5 #comma bogus),
        quote!(
            struct S {
                a: A,
            }
        ),
    ));
    assert_eq!(found.len(), 1, "{found:#?}");
}

#[test]
fn self_is_no_crate() {
    let item = quote!(
        struct S {
            a: A,
        }
    );
    assert_eq!(messages(ring(quote!(crate = Self), item)).len(), 1);
    assert_eq!(
        messages(operation(quote!(
            #[ring_operation(crate = a::Self)]
            struct Op;
        )))
        .len(),
        1
    );
}

#[test]
fn the_operation_after_the_last_possible_one_is_blamed() {
    let of = |number: usize| {
        let fields = (0..number).map(|index| {
            let name = quote::format_ident!("op_{index}");
            quote!(#name: Op)
        });
        messages(ring(quote!(), quote!(struct Big { #(#fields),* })))
    };
    assert_eq!(of(250), Vec::<String>::new());
    assert_eq!(
        of(251),
        [
            "ring `Big` has 251 operations; the tag in `user_data` has room for 250; split it into several rings"
        ]
    );
    assert_eq!(of(300).len(), 1);
}

/// All variants of an item that lack one token, at any depth.
fn with_one_token_less(tokens: &TokenStream) -> Vec<TokenStream> {
    let all: Vec<TokenTree> = tokens.clone().into_iter().collect();
    let mut variants = Vec::new();
    for (place, token) in all.iter().enumerate() {
        let rest = |middle: Option<TokenTree>| {
            let (before, after) = (&all[..place], &all[place + 1..]);
            before.iter().cloned().chain(middle).chain(after.iter().cloned()).collect::<TokenStream>()
        };
        variants.push(rest(None));
        if let TokenTree::Group(group) = token {
            for inner in with_one_token_less(&group.stream()) {
                variants.push(rest(Some(Group::new(group.delimiter(), inner).into())));
            }
        }
    }
    variants
}

#[test]
fn half_written_items_make_no_panic() {
    let arguments = quote!(crate = a::b, entries = 5, grace_ms = 1 + 1);
    let item = quote! {
        #[derive(Debug, std::clone::Clone)] #[repr(C)]
        pub(in crate::x) struct S<'a, T: Clone = u8, const N: usize = 3> where T: 'a {
            #[cfg(unix)] #[cfg_attr(a, cfg(b), doc = "c")] pub a: A<'a, T>, r#type: Self, b: <Self as X>::Y, c: [u8; N],
        }
    };
    for arguments in with_one_token_less(&arguments) {
        ring(arguments, item.clone());
    }
    for item in with_one_token_less(&item) {
        ring(arguments.clone(), item);
    }
    let derived = quote! {
        #[ring_operation(crate = a, ring = S<'a, T>, data = (A, B), warn = W, on_more = f, on_final, setup)]
        pub enum E<'a, T: Clone = u8, const N: usize = 3> where T: 'a { #[ring_operation] A { x: T }, B(u8), C }
    };
    for item in with_one_token_less(&derived) {
        operation(item);
    }
}

#[test]
fn self_among_bounds_is_a_path_and_elsewhere_a_type() {
    for (written, printed) in [
        ("impl Self::Item", "impl S :: Item"),
        ("dyn Send + Self::Item", "dyn Send + S :: Item"),
        ("[Self::Item + ; 4]", "[S :: Item + ; 4]"),
        ("dyn Fn() -> Self::Item", "-> < S :: < T > > :: Item"),
        ("dyn Fn() -> Self::Item + Send", "-> < S :: < T > > :: Item + Send"),
        ("(Box<dyn Send>, Self::Item)", ", < S :: < T > > :: Item"),
    ] {
        let ty: TokenStream = written.parse().unwrap();
        let made = ring(quote!(), quote!(struct S<T> { a: For<T>, b: A<#ty>, }));
        syn::parse2::<syn::File>(made.clone()).unwrap_or_else(|error| panic!("{written}: {error}"));
        assert!(made.to_string().contains(printed), "{written}: {made}");
    }
}

#[test]
fn a_macro_cannot_be_called_self_which_is_for_the_compiler_to_say() {
    let item = quote! { struct S<T> { me: Self![T], other: For<Self![Self; 1]> } };
    let expanded = ring(quote!(), item);
    syn::parse2::<syn::File>(expanded).unwrap();
}

/// A small generator, seeded: the same inputs on every run.
struct Seeded(u64);

impl Choices for Seeded {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % (bound as u64)).unwrap_or(0)
    }
}

#[test]
fn mutated_items_and_token_soup_are_expanded_or_blamed() {
    let mut choices = Seeded(0x2545_F491_4F6C_DD1D);
    for _ in 0..6_000 {
        Input::choose(&mut choices).judge();
    }
}
