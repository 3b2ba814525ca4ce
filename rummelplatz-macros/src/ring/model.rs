//! What `#[ring]` was put on.

use proc_macro2::{Ident, Span};
use syn::ext::IdentExt;
use syn::{Attribute, Expr, Generics, Path, Type, Visibility};

use crate::args::Once;

/// The tag is eight bits; 0 and the last five are the ring's own.
pub(super) const MAX_OPERATIONS: usize = 250;

/// The words that `#[ring(…)]` takes beside `crate`; each is a method of the runtime's `Options`.
pub(super) const OPTIONS: [&str; 4] = ["entries", "backlog_limit", "grace_ms", "deadline_ms"];

pub(super) struct Ring {
    pub(super) krate: Path,
    pub(super) krate_again: Vec<Ident>,
    /// Values by their place in [`OPTIONS`].
    pub(super) options: [Once<Expr>; OPTIONS.len()],
    pub(super) shape: Shape,
    /// As written; printed again where the shape is wrong.
    pub(super) item: syn::Item,
    pub(super) attrs: Vec<Attribute>,
    pub(super) derives: Vec<Derive>,
    pub(super) vis: Visibility,
    pub(super) ident: Ident,
    pub(super) generics: Generics,
    pub(super) operations: Vec<Operation>,
}

/// A word of a `#[derive(…)]` on the ring.
pub(super) struct Derive {
    /// The index of the attribute that it stands in.
    pub(super) attribute: usize,
    pub(super) path: Path,
}

/// Why something cannot be derived for a ring.
#[derive(Clone, Copy)]
pub(super) enum BadDerive {
    /// The macro writes it.
    Written,
    /// No ring can be that, even if each of its operations can.
    Impossible,
}

impl Derive {
    /// The last word of its path, as in `std::fmt::Debug`.
    pub(super) fn word(&self) -> Option<&Ident> {
        self.path.segments.last().map(|segment| &segment.ident)
    }

    pub(super) fn bad(&self) -> Option<BadDerive> {
        const IMPOSSIBLE: [&str; 8] =
            ["Clone", "Copy", "Default", "PartialEq", "Eq", "PartialOrd", "Ord", "Hash"];
        let word = self.word()?;
        if word == "Debug" {
            Some(BadDerive::Written)
        } else {
            IMPOSSIBLE.iter().any(|impossible| word == impossible).then_some(BadDerive::Impossible)
        }
    }
}

/// What kind of item it is, with the place to blame if it is the wrong kind.
pub(super) enum Shape {
    Named,
    Tuple(Span),
    Unit,
    Enum(Span),
    Union(Span),
}

/// A field of the ring.
pub(super) struct Operation {
    pub(super) field: syn::Field,
    /// The attributes that decide whether the field exists, for everything generated beside it.
    pub(super) cfg: Vec<Attribute>,
    pub(super) ident: Ident,
    /// The name without `r#`.
    pub(super) name: String,
    pub(super) ty: Type,
    /// From 1, counted before `cfg`.
    pub(super) position: usize,
    /// The name of the tag constant.
    pub(super) constant: Ident,
    /// The name of the variant in the error enums.
    pub(super) variant: Ident,
}

impl Operation {
    pub(super) fn new(field: syn::Field, ident: Ident, cfg: Vec<Attribute>, position: usize) -> Self {
        let name = ident.unraw().to_string();
        let constant = named(&name.to_uppercase(), &ident);
        let variant = named(&camel_case(&name), &ident);
        let ty = match &field.ty {
            // `Trait + Other`, for the compiler to complain about: without parentheses it could not be
            // followed by `as`.
            bare @ Type::TraitObject(_) => syn::parse_quote!((#bare)),
            ty => ty.clone(),
        };
        Self { field, cfg, ident, name, ty, position, constant, variant }
    }

    pub(super) fn tag(&self) -> u8 {
        u8::try_from(self.position).unwrap_or(u8::MAX)
    }

    /// The type behind the reference, if the field is one. A type that came through a `macro_rules!` is in a
    /// group.
    pub(super) fn borrowed(&self) -> Option<&Type> {
        let mut ty = &self.ty;
        while let Type::Group(group) = ty {
            ty = &group.elem;
        }
        match ty {
            Type::Reference(reference) => Some(&reference.elem),
            _ => None,
        }
    }

    /// Which name two operations share. If a `cfg` may remove one of them, that is left to the compiler,
    /// which knows.
    pub(super) fn clash(&self, other: &Operation) -> Option<Clash> {
        if !self.cfg.is_empty() || !other.cfg.is_empty() {
            None
        } else if self.ident == other.ident {
            Some(Clash::Field)
        } else if self.constant == other.constant {
            Some(Clash::Tag)
        } else if self.variant == other.variant {
            Some(Clash::Variant)
        } else {
            None
        }
    }
}

/// A name that two operations would share.
pub(super) enum Clash {
    Field,
    Tag,
    Variant,
}

/// `name` as an identifier where `ident` stands; or `ident` itself, because some letters change case into
/// what is no letter.
fn named(name: &str, ident: &Ident) -> Ident {
    match syn::parse_str::<Ident>(name) {
        Ok(_) => Ident::new(name, ident.span()),
        Err(_) => ident.clone(),
    }
}

/// `tcp_in` as `TcpIn`. An underscore that separates nothing is kept, so that `self_` does not become `Self`,
/// nor `a_1` the same as `a1`.
fn camel_case(name: &str) -> String {
    let mut camel = String::with_capacity(name.len());
    let mut start = true;
    let mut letters = name.chars().peekable();
    while let Some(letter) = letters.next() {
        if letter == '_' && letters.peek().is_some_and(|next| next.is_alphabetic()) && !camel.is_empty() {
            start = true;
        } else if start && letter != '_' {
            camel.extend(letter.to_uppercase());
            start = false;
        } else {
            camel.push(letter);
        }
    }
    camel
}

#[cfg(test)]
mod tests {
    use super::camel_case;

    #[test]
    fn variants_are_camel_case_and_never_keywords() {
        for (field, variant) in [
            ("acceptor", "Acceptor"),
            ("tcp_in", "TcpIn"),
            ("self_", "Self_"),
            ("_1", "_1"),
            ("_tcp", "_Tcp"),
            ("a_1", "A_1"),
            ("a1", "A1"),
            ("a__b", "A_B"),
            ("tcpIn", "TcpIn"),
            ("TCP", "TCP"),
            ("über", "Über"),
            ("__", "__"),
            ("日本", "日本"),
        ] {
            assert_eq!(camel_case(field), variant, "{field}");
        }
    }
}
