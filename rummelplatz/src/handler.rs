//! What a handler named in `#[ring_operation(…)]` may return, and how `?` in it chooses between warning and ending.
//!
//! The trait method has one return type, but a handler returns what reads best. The derive passes what comes
//! back through one of the traits here. What the error of a plain `?` means is decided by what the operation
//! declared ([`Warns`], [`Ends`], [`Chooses`], [`Neither`]), never by the types:
//! `warn = io::Error, error = io::Error` must remain a choice.
//!
//! A [`ControlFlow`] without parameters fits any operation: `io::Result<ControlFlow>` is what a handler returns
//! that may end the ring, or fail by `?`. Its implementations would overlap with those for the `ControlFlow` of
//! the operation if that had no parameters either; so each has a form, [`Full`] or [`Bare`], which the compiler
//! infers, and the second is there only if something is declared.

use crate::operation::ControlFlow;

/// Only `warn = …` was declared: an error that `?` returns is a warning.
pub enum Warns {}
/// Only `error = …` was declared: an error that `?` returns ends the ring.
pub enum Ends {}
/// Both were declared: an error says itself what it is, as a [`ControlFlow`].
pub enum Chooses {}
/// Neither was declared: there is no error to return, except a `ControlFlow`, which then is none.
pub enum Neither {}

/// Something was declared, so a `ControlFlow` without parameters is not that of the operation.
pub trait Declares {}
impl Declares for Warns {}
impl Declares for Ends {}
impl Declares for Chooses {}

/// The form of what a handler returns if a `ControlFlow` in it is that of the operation.
pub enum Full {}
/// The form of what a handler returns with a `ControlFlow` that can neither warn nor fail.
pub enum Bare {}

/// The same flow for an operation that declares something.
#[inline(always)]
fn full<W, E>(flow: ControlFlow) -> ControlFlow<W, E> {
    if let ControlFlow::Continue = flow { ControlFlow::Continue } else { ControlFlow::Exit }
}

/// An error that a handler may return by `?`.
#[diagnostic::on_unimplemented(
    message = "a handler cannot return the error `{Self}` here",
    label = "this handler returns `Result<_, {Self}>`",
    note = "with `warn = W` alone a handler may return `Result<_, W>`, with `error = E` alone `Result<_, E>`"
)]
pub trait HandlerError<Mode, W, E> {
    /// What the loop is to do about the error.
    fn into_flow(self) -> ControlFlow<W, E>;
}

impl<W, E> HandlerError<Warns, W, E> for ControlFlow<W, E> {
    fn into_flow(self) -> ControlFlow<W, E> {
        self
    }
}

impl<W, E> HandlerError<Warns, W, E> for W {
    fn into_flow(self) -> ControlFlow<W, E> {
        ControlFlow::Warn(self)
    }
}

impl<W, E> HandlerError<Ends, W, E> for ControlFlow<W, E> {
    fn into_flow(self) -> ControlFlow<W, E> {
        self
    }
}

impl<W, E> HandlerError<Ends, W, E> for E {
    fn into_flow(self) -> ControlFlow<W, E> {
        ControlFlow::Error(self)
    }
}

impl<X: Chosen<W, E>, W, E> HandlerError<Chooses, W, E> for X {
    fn into_flow(self) -> ControlFlow<W, E> {
        self.into_chosen()
    }
}

impl<X: Declared<W, E>, W, E> HandlerError<Neither, W, E> for X {
    fn into_flow(self) -> ControlFlow<W, E> {
        self.into_declared()
    }
}

/// An error that says itself what it is.
#[diagnostic::on_unimplemented(
    message = "the error `{Self}` does not say whether it is a warning or the end of the ring",
    label = "this handler returns `Result<_, {Self}>`",
    note = "both `warn = …` and `error = …` are declared: return `Result<_, ControlFlow<{W}, {E}>>`, \
            where `.or_warn()?` and `.or_end()?` choose"
)]
pub trait Chosen<W, E> {
    /// What the loop is to do about it.
    fn into_chosen(self) -> ControlFlow<W, E>;
}

impl<W, E> Chosen<W, E> for ControlFlow<W, E> {
    fn into_chosen(self) -> ControlFlow<W, E> {
        self
    }
}

/// An error of an operation that has declared no errors.
#[diagnostic::on_unimplemented(
    message = "a handler of this operation cannot return the error `{Self}`",
    label = "this handler returns `Result<_, {Self}>`",
    note = "declare `error = …`, for errors that end the ring, or `warn = …`, for errors after which it goes on"
)]
pub trait Declared<W, E> {
    /// What the loop is to do about it.
    fn into_declared(self) -> ControlFlow<W, E>;
}

impl<W, E> Declared<W, E> for ControlFlow<W, E> {
    fn into_declared(self) -> ControlFlow<W, E> {
        self
    }
}

/// What `on_completion` may return; `D` is the request's data.
#[diagnostic::on_unimplemented(
    message = "an `on_completion` handler cannot return `{Self}`",
    label = "this handler returns `{Self}`",
    note = "it may return `()`, `ControlFlow`, `ControlFlow<{W}, {E}>`, `Option<{D}>`, the pair of a flow and \
            an option, or a `Result` of one of them"
)]
pub trait CompletionReturn<Mode, W, E, D, Form> {
    /// The one form that the loop knows.
    fn into_completion(self) -> (ControlFlow<W, E>, Option<D>);
}

impl<Mode, W, E, D> CompletionReturn<Mode, W, E, D, Full> for () {
    fn into_completion(self) -> (ControlFlow<W, E>, Option<D>) {
        (ControlFlow::Continue, None)
    }
}

impl<Mode, W, E, D> CompletionReturn<Mode, W, E, D, Full> for ControlFlow<W, E> {
    fn into_completion(self) -> (ControlFlow<W, E>, Option<D>) {
        (self, None)
    }
}

impl<Mode, W, E, D> CompletionReturn<Mode, W, E, D, Full> for Option<D> {
    fn into_completion(self) -> (ControlFlow<W, E>, Option<D>) {
        (ControlFlow::Continue, self)
    }
}

impl<Mode, W, E, D> CompletionReturn<Mode, W, E, D, Full> for (ControlFlow<W, E>, Option<D>) {
    fn into_completion(self) -> (ControlFlow<W, E>, Option<D>) {
        self
    }
}

#[diagnostic::do_not_recommend]
impl<Mode: Declares, W, E, D> CompletionReturn<Mode, W, E, D, Bare> for ControlFlow {
    fn into_completion(self) -> (ControlFlow<W, E>, Option<D>) {
        (full(self), None)
    }
}

#[diagnostic::do_not_recommend]
impl<Mode: Declares, W, E, D> CompletionReturn<Mode, W, E, D, Bare> for (ControlFlow, Option<D>) {
    fn into_completion(self) -> (ControlFlow<W, E>, Option<D>) {
        (full(self.0), self.1)
    }
}

impl<Mode, W, E, D, Form, T, X> CompletionReturn<Mode, W, E, D, Form> for Result<T, X>
where
    T: CompletionReturn<Mode, W, E, D, Form>,
    X: HandlerError<Mode, W, E>,
{
    /// The data moved into the handler and was dropped by its `?`, so none goes back.
    fn into_completion(self) -> (ControlFlow<W, E>, Option<D>) {
        match self {
            Ok(value) => value.into_completion(),
            Err(error) => (error.into_flow(), None),
        }
    }
}

/// What `on_more` and `on_final` may return. Where the data goes is not for them to say.
#[diagnostic::on_unimplemented(
    message = "an `on_more` or `on_final` handler cannot return `{Self}`",
    label = "this handler returns `{Self}`",
    note = "it may return `()`, `ControlFlow`, `ControlFlow<{W}, {E}>`, or a `Result` of one of them"
)]
pub trait FlowReturn<Mode, W, E, Form> {
    /// What the loop is to do.
    fn into_flow(self) -> ControlFlow<W, E>;
}

impl<Mode, W, E> FlowReturn<Mode, W, E, Full> for () {
    fn into_flow(self) -> ControlFlow<W, E> {
        ControlFlow::Continue
    }
}

impl<Mode, W, E> FlowReturn<Mode, W, E, Full> for ControlFlow<W, E> {
    fn into_flow(self) -> ControlFlow<W, E> {
        self
    }
}

#[diagnostic::do_not_recommend]
impl<Mode: Declares, W, E> FlowReturn<Mode, W, E, Bare> for ControlFlow {
    fn into_flow(self) -> ControlFlow<W, E> {
        full(self)
    }
}

impl<Mode, W, E, Form, T, X> FlowReturn<Mode, W, E, Form> for Result<T, X>
where
    T: FlowReturn<Mode, W, E, Form>,
    X: HandlerError<Mode, W, E>,
{
    fn into_flow(self) -> ControlFlow<W, E> {
        match self {
            Ok(value) => value.into_flow(),
            Err(error) => error.into_flow(),
        }
    }
}

/// What `setup` and `on_teardown_completion` may return.
#[diagnostic::on_unimplemented(
    message = "a `setup` or `on_teardown_completion` handler cannot return `{Self}`",
    label = "this handler returns `{Self}`",
    note = "it may return `()` or `Result<(), {E}>`; \
            declare another error type with `setup_error = …` or `teardown_error = …`"
)]
pub trait PhaseReturn<E> {
    /// The one form that the loop knows.
    fn into_result(self) -> Result<(), E>;
}

impl<E> PhaseReturn<E> for () {
    fn into_result(self) -> Result<(), E> {
        Ok(())
    }
}

impl<E> PhaseReturn<E> for Result<(), E> {
    fn into_result(self) -> Result<(), E> {
        self
    }
}

/// A handler that the user wrote, or the trait's own method of the same name. The derive compares the two
/// function items: if they are equal, the user's handler is missing, and the forwarder would call itself for
/// ever.
pub struct Pair<F, G>(pub F, pub G);

/// The answer "the user wrote it".
pub struct Written;
/// The answer "it is the trait's own".
pub struct TraitsOwn;

/// Tells the two apart, by autoref specialisation as in `probe`.
pub trait Origin {
    /// [`Written`] or [`TraitsOwn`].
    type Answer;
    /// The answer.
    fn __rummelplatz_origin(&self) -> Self::Answer;
}

impl<F> Origin for &Pair<F, F> {
    type Answer = TraitsOwn;
    fn __rummelplatz_origin(&self) -> TraitsOwn {
        TraitsOwn
    }
}

impl<F, G> Origin for Pair<F, G> {
    type Answer = Written;
    fn __rummelplatz_origin(&self) -> Written {
        Written
    }
}

/// A trait whose absence tells which handler was named but not written.
#[rustfmt::skip] // rustfmt would indent the attribute further each time.
macro_rules! must_be_written {
    ($Name:ident, $message:literal, $note:literal) => {
        #[diagnostic::on_unimplemented(
            message = $message,
            label = "named here, but written nowhere in sight",
            note = $note,
            note = "or remove the word: an operation need not handle everything"
        )]
        /// Implemented for what the user wrote.
        pub trait $Name<Op> {
            /// Does nothing; where it cannot be called, the handler is missing.
            fn confirm(self);
        }
        #[diagnostic::do_not_recommend]
        impl<Op> $Name<Op> for Written {
            fn confirm(self) {}
        }
    };
}

must_be_written!(
    Setup,
    "`{Op}` has no method `setup`",
    "write `fn setup(&mut self, submitter: Submitter<'_, Ring, Self>)` in an `impl {Op}`"
);
must_be_written!(
    OnCompletion,
    "`{Op}` has no method `on_completion`",
    "write `fn on_completion(&mut self, completion: Completion, data: RingData, \
     submitter: Submitter<'_, Ring, Self>)` in an `impl {Op}`"
);
must_be_written!(
    OnTeardownCompletion,
    "`{Op}` has no method `on_teardown_completion`",
    "write `fn on_teardown_completion(&mut self, completion: Completion, data: RingData, \
     submitter: Submitter<'_, Ring, Self>)` in an `impl {Op}`"
);

/// Says what the error of a [`Result`] means to the loop, so that `?` can return it from a handler that may
/// both warn and end.
///
/// Such a handler returns `Result<_, ControlFlow<W, E>>`; `.or_warn()?` returns [`ControlFlow::Warn`] from it,
/// `.or_end()?` returns [`ControlFlow::Error`]. The error is turned into `W` or `E` by `From`, as `?` always does.
pub trait ResultExt<T, X>: Sized {
    /// Makes `?` return the error as a warning: it is counted and reported, and the ring goes on.
    #[allow(clippy::missing_errors_doc, reason = "the result is the one it is called on")]
    fn or_warn(self) -> Result<T, Warned<X>>;
    /// Makes `?` return the error as the end of the ring.
    #[allow(clippy::missing_errors_doc, reason = "the result is the one it is called on")]
    fn or_end(self) -> Result<T, Ended<X>>;
}

impl<T, X> ResultExt<T, X> for Result<T, X> {
    fn or_warn(self) -> Result<T, Warned<X>> {
        self.map_err(Warned)
    }

    fn or_end(self) -> Result<T, Ended<X>> {
        self.map_err(Ended)
    }
}

/// An error on its way to [`ControlFlow::Warn`]; made by [`ResultExt::or_warn`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Warned<X>(X);

/// An error on its way to [`ControlFlow::Error`]; made by [`ResultExt::or_end`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended<X>(X);

impl<X: Into<W>, W, E> From<Warned<X>> for ControlFlow<W, E> {
    fn from(Warned(error): Warned<X>) -> Self {
        Self::Warn(error.into())
    }
}

impl<X: Into<E>, W, E> From<Ended<X>> for ControlFlow<W, E> {
    fn from(Ended(error): Ended<X>) -> Self {
        Self::Error(error.into())
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::io;

    use super::*;

    type Flow = ControlFlow<&'static str, io::ErrorKind>;

    fn completion<Mode, Form>(
        returned: impl CompletionReturn<Mode, &'static str, io::ErrorKind, u8, Form>,
    ) -> String {
        format!("{:?}", returned.into_completion())
    }

    fn flow<Mode, Form>(returned: impl FlowReturn<Mode, &'static str, io::ErrorKind, Form>) -> String {
        format!("{:?}", returned.into_flow())
    }

    #[test]
    fn on_completion_returns_what_reads_best() {
        assert_eq!(completion::<Chooses, _>(()), "(Continue, None)");
        assert_eq!(completion::<Chooses, _>(Flow::Exit), "(Exit, None)");
        assert_eq!(completion::<Chooses, _>(Some(7)), "(Continue, Some(7))");
        assert_eq!(completion::<Chooses, _>((Flow::Warn("late"), Some(7))), "(Warn(\"late\"), Some(7))");
        assert_eq!(completion::<Chooses, _>(Ok::<_, Flow>(Some(7))), "(Continue, Some(7))");
    }

    #[test]
    fn a_flow_without_parameters_fits_any_operation() {
        let (goes_on, exits) =
            (ControlFlow::<Infallible, Infallible>::Continue, ControlFlow::<Infallible, Infallible>::Exit);
        assert_eq!(completion::<Warns, _>(exits), "(Exit, None)");
        assert_eq!(completion::<Ends, _>((goes_on, Some(7))), "(Continue, Some(7))");
        assert_eq!(completion::<Ends, _>(Ok::<_, io::ErrorKind>(exits)), "(Exit, None)");
        assert_eq!(flow::<Chooses, _>(goes_on), "Continue");
        assert_eq!(flow::<Warns, _>(Ok::<_, &str>(exits)), "Exit");
    }

    #[test]
    fn on_more_and_on_final_say_nothing_about_the_data() {
        assert_eq!(flow::<Chooses, _>(()), "Continue");
        assert_eq!(flow::<Chooses, _>(Flow::Exit), "Exit");
        assert_eq!(flow::<Chooses, _>(Ok::<_, Flow>(Flow::Warn("late"))), "Warn(\"late\")");
    }

    #[test]
    fn a_plain_error_means_what_alone_was_declared() {
        assert_eq!(completion::<Warns, _>(Err::<(), _>("late")), "(Warn(\"late\"), None)");
        assert_eq!(completion::<Ends, _>(Err::<(), _>(io::ErrorKind::Other)), "(Error(Other), None)");
        assert_eq!(flow::<Warns, _>(Err::<(), _>("late")), "Warn(\"late\")");
        assert_eq!(flow::<Ends, _>(Err::<(), _>(io::ErrorKind::Other)), "Error(Other)");
    }

    #[test]
    fn a_control_flow_as_error_says_itself_what_it_means() {
        assert_eq!(
            completion::<Warns, _>(Err::<(), _>(Flow::Error(io::ErrorKind::Other))),
            "(Error(Other), None)"
        );
        assert_eq!(completion::<Ends, _>(Err::<(), _>(Flow::Warn("late"))), "(Warn(\"late\"), None)");
        assert_eq!(completion::<Chooses, _>(Err::<(), _>(Flow::Exit)), "(Exit, None)");
    }

    #[test]
    fn or_warn_and_or_end_choose_and_convert() {
        fn handler(warn: bool) -> Result<(), ControlFlow<String, io::Error>> {
            let failed = || Err::<(), _>("failed");
            if warn {
                failed().or_warn()?;
            }
            failed().map_err(|_| io::ErrorKind::Other).or_end()?;
            Ok(())
        }
        assert!(matches!(handler(true), Err(ControlFlow::Warn(text)) if text == "failed"));
        assert!(
            matches!(handler(false), Err(ControlFlow::Error(error)) if error.kind() == io::ErrorKind::Other)
        );
    }

    #[test]
    fn setup_and_teardown_may_fail_or_not() {
        assert_eq!(PhaseReturn::<()>::into_result(()), Ok(()));
        assert_eq!(PhaseReturn::<u8>::into_result(Err(7)), Err(7));
    }

    #[test]
    #[allow(clippy::needless_borrow, reason = "the number of references is what chooses")]
    fn a_function_is_told_from_the_one_of_the_trait() {
        trait Handles {
            fn handle(&self) {}
        }
        struct Without;
        impl Handles for Without {}
        struct With;
        impl Handles for With {}
        impl With {
            fn handle(&self) {}
        }
        let _: TraitsOwn = (&&Pair(Without::handle, <Without as Handles>::handle)).__rummelplatz_origin();
        let _: Written = (&&Pair(With::handle, <With as Handles>::handle)).__rummelplatz_origin();
    }
}
