//! Judges: the rules of `#[ring]`, and what to write instead.

use syn::ext::IdentExt;
use syn::{Expr, Lit};

use super::model::{BadDerive, Clash, MAX_OPERATIONS, OPTIONS, Operation, Ring, Shape};
use crate::diag::Errors;

pub(super) fn ring(ring: &Ring, errors: &mut Errors) {
    arguments(ring, errors);
    if shape(ring, errors) {
        derives(ring, errors);
        number(ring, errors);
        names(ring, errors);
        for operation in &ring.operations {
            owned(operation, errors);
        }
    }
}

fn arguments(ring: &Ring, errors: &mut Errors) {
    let again = ring.krate_again.iter().chain(ring.options.iter().flat_map(|option| &option.again));
    for word in again {
        errors.at(word, format!("duplicate argument `{word}`; keep one of them"));
    }
    for (name, option) in OPTIONS.iter().zip(&ring.options) {
        let Some(Expr::Lit(literal)) = option.get() else { continue };
        match &literal.lit {
            Lit::Int(number) if *name == "entries" && number.base10_digits() == "0" => {
                errors.at(number, "a ring needs at least one entry; write `entries = 256`");
            }
            Lit::Int(_) => {}
            other => errors.at(other, format!("`{name}` needs a number, like `{name} = 256`")),
        }
    }
}

fn shape(ring: &Ring, errors: &mut Errors) -> bool {
    let name = ring.ident.unraw();
    let (span, what) = match ring.shape {
        Shape::Named => return true,
        // The mistake is that there are no fields, not how that was written.
        Shape::Unit => {
            number(ring, errors);
            return false;
        }
        Shape::Tuple(span) => {
            let message = format!(
                "the operations of ring `{name}` need names; write `struct {name} {{ accept: Accept }}`"
            );
            errors.push(syn::Error::new(span, message));
            return false;
        }
        Shape::Enum(span) => (span, "an enum"),
        Shape::Union(span) => (span, "a union"),
    };
    let message = format!("`#[ring]` goes on a struct whose fields are operations; `{name}` is {what}");
    errors.push(syn::Error::new(span, message));
    false
}

fn number(ring: &Ring, errors: &mut Errors) {
    let name = ring.ident.unraw();
    if ring.operations.is_empty() {
        let message = format!("ring `{name}` has no operations; add a field for each, like `accept: Accept`");
        errors.at(&ring.ident, message);
    }
    if let Some(operation) = ring.operations.get(MAX_OPERATIONS) {
        let message = format!(
            "ring `{name}` has {} operations; the tag in `user_data` has room for {MAX_OPERATIONS}; \
             split it into several rings",
            ring.operations.len()
        );
        errors.at(&operation.ident, message);
    }
}

/// What must differ between two operations: constants and variants are named after them.
fn names(ring: &Ring, errors: &mut Errors) {
    for (index, operation) in ring.operations.iter().enumerate() {
        let Some((earlier, clash)) =
            ring.operations[..index].iter().find_map(|earlier| Some((earlier, earlier.clash(operation)?)))
        else {
            continue;
        };
        let (one, other, ring) = (&earlier.name, &operation.name, ring.ident.unraw());
        let message = match clash {
            Clash::Field => format!("ring `{ring}` has two operations `{one}`; rename one of them"),
            Clash::Tag => format!(
                "operations `{one}` and `{other}` would both have the tag `{ring}::{}`; rename one of them",
                operation.constant
            ),
            Clash::Variant => format!(
                "operations `{one}` and `{other}` would both have the error variant `{}`; rename one of them",
                operation.variant
            ),
        };
        errors.at(&operation.ident, message);
    }
}

fn owned(operation: &Operation, errors: &mut Errors) {
    let name = &operation.name;
    if operation.borrowed().is_some() {
        let message =
            format!("operation `{name}` must be owned by the ring, not borrowed; store the value itself");
        errors.at(&operation.ty, message);
    }
}

fn derives(ring: &Ring, errors: &mut Errors) {
    let name = ring.ident.unraw();
    for derive in &ring.derives {
        let (Some(bad), Some(word)) = (derive.bad(), derive.word()) else { continue };
        let message = match bad {
            BadDerive::Written => format!("`#[ring]` writes `{word}` for `{name}` itself; remove it here"),
            BadDerive::Impossible => format!(
                "ring `{name}` cannot be `{word}`, for it owns a kernel object; \
                 derive it on the operations that need it"
            ),
        };
        errors.at(&derive.path, message);
    }
}
