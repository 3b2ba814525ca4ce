//! What `#[derive(RingOperation)]` was put on, and what `#[ring_operation(…)]` says about it.

use proc_macro2::{Ident, Span};
use syn::{Attribute, Generics, Path, Type};

use crate::args::Once;

pub(super) struct Operation {
    pub(super) ident: Ident,
    pub(super) generics: Generics,
    /// Where `union` stands, if it is one.
    pub(super) union: Option<Span>,
    /// Every `#[ring_operation(…)]` after the first.
    pub(super) more_attributes: Vec<Attribute>,
    /// Every `#[ring_operation(…)]` inside the item, with what it stands on.
    pub(super) misplaced: Vec<(Attribute, String)>,
    pub(super) krate: Once<Path>,
    pub(super) types: Types,
    pub(super) handlers: Handlers,
}

#[derive(Default)]
pub(super) struct Types {
    pub(super) ring: Once<Type>,
    pub(super) data: Once<Type>,
    pub(super) warn: Once<Type>,
    pub(super) error: Once<Type>,
    pub(super) setup_error: Once<Type>,
    pub(super) teardown_error: Once<Type>,
}

/// The words that take a type, with an example for each.
pub(super) const TYPES: [(&str, &str); 6] = [
    ("ring", "Server"),
    ("data", "Connection"),
    ("warn", "std::io::Error"),
    ("error", "std::io::Error"),
    ("setup_error", "std::io::Error"),
    ("teardown_error", "std::io::Error"),
];

impl Types {
    /// In the order of [`TYPES`].
    pub(super) fn all(&mut self) -> [&mut Once<Type>; TYPES.len()] {
        [
            &mut self.ring,
            &mut self.data,
            &mut self.warn,
            &mut self.error,
            &mut self.setup_error,
            &mut self.teardown_error,
        ]
    }
}

#[derive(Default)]
pub(super) struct Handlers {
    pub(super) setup: Once<Handler>,
    pub(super) on_completion: Once<Handler>,
    pub(super) on_more: Once<Handler>,
    pub(super) on_final: Once<Handler>,
    pub(super) on_teardown_completion: Once<Handler>,
}

/// The words that name a handler.
pub(super) const HANDLERS: [&str; 5] =
    ["setup", "on_completion", "on_more", "on_final", "on_teardown_completion"];

impl Handlers {
    pub(super) fn are_none(&self) -> bool {
        let Handlers { setup, on_completion, on_more, on_final, on_teardown_completion } = self;
        [setup, on_completion, on_more, on_final, on_teardown_completion]
            .iter()
            .all(|once| once.get().is_none())
    }

    /// In the order of [`HANDLERS`].
    pub(super) fn all(&mut self) -> [&mut Once<Handler>; HANDLERS.len()] {
        [
            &mut self.setup,
            &mut self.on_completion,
            &mut self.on_more,
            &mut self.on_final,
            &mut self.on_teardown_completion,
        ]
    }
}

/// `word`, or `word = method`.
pub(super) struct Handler {
    pub(super) word: Ident,
    pub(super) method: Ident,
}
