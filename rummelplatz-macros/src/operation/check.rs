//! Judges: the rules of `#[derive(RingOperation)]`, and what to write instead.

use syn::ext::IdentExt;

use super::model::{Handler, Operation};
use crate::diag::Errors;

pub(super) fn operation(operation: &Operation, errors: &mut Errors) {
    let name = operation.ident.unraw();
    if let Some(union) = operation.union {
        let message = format!("`#[derive(RingOperation)]` goes on a struct or an enum; `{name}` is a union");
        errors.push(syn::Error::new(union, message));
    }
    for attribute in &operation.more_attributes {
        errors.at(attribute, format!("duplicate `#[ring_operation]` on `{name}`; merge both into one"));
    }
    for (attribute, what) in &operation.misplaced {
        errors.at(attribute, format!("`#[ring_operation]` says nothing about {what}; put it on `{name}`"));
    }
    for word in repeated(operation) {
        errors.at(word, format!("duplicate argument `{word}`; keep one of them"));
    }
    handlers(operation, errors);
    if operation.handlers.are_none() {
        idle_errors(operation, errors);
    }
}

/// Errors that nothing can return: most likely a handler was written but not named, so that it would never be
/// called.
fn idle_errors(operation: &Operation, errors: &mut Errors) {
    let types = &operation.types;
    let given = [("warn", &types.warn), ("error", &types.error)];
    for (word, ty) in given.into_iter().filter_map(|(word, once)| Some((word, once.get()?))) {
        let message = format!(
            "`{word}` is what handlers return, and none is named here; name those that `{}` has, \
             like `on_completion`, or remove `{word}`",
            operation.ident.unraw()
        );
        errors.at(ty, message);
    }
}

fn repeated(operation: &Operation) -> impl Iterator<Item = &proc_macro2::Ident> {
    let Operation { krate, types, handlers, .. } = operation;
    let types =
        [&types.ring, &types.data, &types.warn, &types.error, &types.setup_error, &types.teardown_error];
    let handlers = [
        &handlers.setup,
        &handlers.on_completion,
        &handlers.on_more,
        &handlers.on_final,
        &handlers.on_teardown_completion,
    ];
    let types = types.into_iter().flat_map(|once| &once.again);
    krate.again.iter().chain(types).chain(handlers.into_iter().flat_map(|once| &once.again))
}

/// Handlers are of one form or the other, and the split form is whole.
fn handlers(operation: &Operation, errors: &mut Errors) {
    let handlers = &operation.handlers;
    let [whole, more, last] =
        [&handlers.on_completion, &handlers.on_more, &handlers.on_final].map(|once| once.get());
    match (whole, more, last) {
        (Some(Handler { word, .. }), Some(split), _) | (Some(Handler { word, .. }), None, Some(split)) => {
            let message = format!(
                "`on_completion` gets every completion, so nothing is left for `{}`; \
                 write either `on_completion` or `on_more` and `on_final`",
                split.word
            );
            errors.at(word, message);
        }
        (None, Some(Handler { word, .. }), None) => {
            errors
                .at(word, "`on_more` gets every completion but the last; name `on_final` for that one, too");
        }
        (None, None, Some(Handler { word, .. })) => {
            errors.at(
                word,
                "`on_final` gets only the last completion; name `on_more` for those before it, too, \
                 or write `on_completion`",
            );
        }
        _ => {}
    }
}
