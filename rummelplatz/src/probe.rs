//! What an error type offers, found out without a bound on it.
//!
//! The error enums of a ring are errors whatever the operations' error types are: `io::Error`, `()`, `eyre::Report`,
//! a type that implements nothing. So generated code asks each value, where its type is known, for its `Display`,
//! its `Debug` and its source, by autoref specialisation: each rung of a ladder is an implementation for one reference
//! less than the rung above it, and method lookup takes the first rung whose bounds hold.
//!
//! No rung asks for `'static`: method lookup does not look at lifetimes, so such a rung would be chosen for
//! an error type that borrows, too, and would then not compile. The *source* of an error is `'static` in any
//! case.

use std::error::Error;
use std::fmt;

/// A value whose abilities are to be found out.
pub struct Probe<'e, T>(pub &'e T);

/// What a value was found to offer.
#[derive(Clone, Copy)]
pub struct Shown<'e> {
    /// Its text for whoever runs the program.
    pub display: Option<&'e dyn fmt::Display>,
    /// Its text for whoever wrote the program.
    pub debug: Option<&'e dyn fmt::Debug>,
    /// What caused it; not the value itself, whose text is shown already.
    pub source: Option<&'e (dyn Error + 'static)>,
}

impl Shown<'_> {
    fn is_nothing(&self) -> bool {
        self.display.is_none() && self.debug.is_none()
    }
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.display, self.debug) {
            (Some(display), _) => display.fmt(f),
            (None, Some(debug)) => debug.fmt(f),
            (None, None) => f.write_str(".."),
        }
    }
}

impl fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.debug, self.display) {
            (Some(debug), _) => debug.fmt(f),
            (None, Some(display)) => display.fmt(f),
            (None, None) => f.write_str(".."),
        }
    }
}

/// Finds out what the value behind a reference offers, as a [`Shown`].
#[doc(hidden)]
#[macro_export]
macro_rules! __rummelplatz_shown {
    ($value:expr) => {{
        // Without names, so that no name of the user's is shadowed.
        use $crate::__private::probe::{OfDebug as _, OfDisplay as _, OfError as _};
        let probe = $crate::__private::probe::Probe($value);
        // One reference more than the highest rung has; the `&self` of its method takes it off.
        $crate::__private::probe::Shown {
            display: (&&&&probe).__rummelplatz_display(),
            debug: (&&&&&probe).__rummelplatz_debug(),
            source: (&&&&probe).__rummelplatz_source(),
        }
    }};
}

/// A function that shows a value of the given type to whoever runs the program.
#[doc(hidden)]
#[macro_export]
macro_rules! __rummelplatz_show {
    ($type:ty) => {
        |value: &$type, formatter: &mut ::core::fmt::Formatter<'_>| {
            ::core::fmt::Display::fmt(&$crate::__rummelplatz_shown!(value), formatter)
        }
    };
}

/// Makes an error of an enum that has one variant per operation, whatever is in them.
#[doc(hidden)]
#[macro_export]
macro_rules! __rummelplatz_operation_error {
    (
        impl [$($parameters:tt)*] for [$($enum:tt)*] [$($where:tt)*]
        $($(#[$cfg:meta])* $variant:ident = $operation:literal,)*
    ) => {
        #[automatically_derived]
        impl $($parameters)* $crate::__private::probe::OperationError for $($enum)* $($where)* {
            fn failure(&self) -> $crate::__private::probe::Failure<'_> {
                match *self {
                    $($(#[$cfg])* Self::$variant(ref error) => $crate::__private::probe::Failure {
                        variant: ::core::stringify!($variant),
                        operation: $operation,
                        error: $crate::__rummelplatz_shown!(error),
                    },)*
                }
            }
        }
        #[automatically_derived]
        impl $($parameters)* ::core::fmt::Display for $($enum)* $($where)* {
            fn fmt(&self, formatter: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                ::core::fmt::Display::fmt(&$crate::__private::probe::OperationError::failure(self), formatter)
            }
        }
        #[automatically_derived]
        impl $($parameters)* ::core::fmt::Debug for $($enum)* $($where)* {
            fn fmt(&self, formatter: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                ::core::fmt::Debug::fmt(&$crate::__private::probe::OperationError::failure(self), formatter)
            }
        }
        #[automatically_derived]
        impl $($parameters)* ::core::error::Error for $($enum)* $($where)* {
            fn source(&self) -> ::core::option::Option<&(dyn ::core::error::Error + 'static)> {
                $crate::__private::probe::OperationError::failure(self).error.source
            }
        }
    };
}

type SendError = dyn Error + Send + Sync + 'static;
type LocalError = dyn Error + 'static;

/// `Display`; or else the text of the error inside (`eyre::Report`, `anyhow::Error`, boxed errors); or else
/// nothing.
pub trait OfDisplay<'e> {
    /// The answer.
    fn __rummelplatz_display(&self) -> Option<&'e dyn fmt::Display>;
}

impl<'e, T: fmt::Display> OfDisplay<'e> for &&&Probe<'e, T> {
    fn __rummelplatz_display(&self) -> Option<&'e dyn fmt::Display> {
        Some(self.0)
    }
}

impl<'e, T: AsRef<SendError>> OfDisplay<'e> for &&Probe<'e, T> {
    fn __rummelplatz_display(&self) -> Option<&'e dyn fmt::Display> {
        Some(self.0.as_ref())
    }
}

impl<'e, T: AsRef<LocalError>> OfDisplay<'e> for &Probe<'e, T> {
    fn __rummelplatz_display(&self) -> Option<&'e dyn fmt::Display> {
        Some(self.0.as_ref())
    }
}

impl<'e, T> OfDisplay<'e> for Probe<'e, T> {
    fn __rummelplatz_display(&self) -> Option<&'e dyn fmt::Display> {
        None
    }
}

/// `Debug`; or else that of the error inside; or else nothing. `()` shows nothing: it stands for "no error
/// type of mine".
pub trait OfDebug<'e> {
    /// The answer.
    fn __rummelplatz_debug(&self) -> Option<&'e dyn fmt::Debug>;
}

impl<'e> OfDebug<'e> for &&&&Probe<'e, ()> {
    fn __rummelplatz_debug(&self) -> Option<&'e dyn fmt::Debug> {
        None
    }
}

impl<'e, T: fmt::Debug> OfDebug<'e> for &&&Probe<'e, T> {
    fn __rummelplatz_debug(&self) -> Option<&'e dyn fmt::Debug> {
        Some(self.0)
    }
}

impl<'e, T: AsRef<SendError>> OfDebug<'e> for &&Probe<'e, T> {
    fn __rummelplatz_debug(&self) -> Option<&'e dyn fmt::Debug> {
        Some(self.0.as_ref())
    }
}

impl<'e, T: AsRef<LocalError>> OfDebug<'e> for &Probe<'e, T> {
    fn __rummelplatz_debug(&self) -> Option<&'e dyn fmt::Debug> {
        Some(self.0.as_ref())
    }
}

impl<'e, T> OfDebug<'e> for Probe<'e, T> {
    fn __rummelplatz_debug(&self) -> Option<&'e dyn fmt::Debug> {
        None
    }
}

/// The source of an error; or else that of the error inside; or else nothing.
pub trait OfError<'e> {
    /// The answer.
    fn __rummelplatz_source(&self) -> Option<&'e LocalError>;
}

impl<'e, T: Error> OfError<'e> for &&&Probe<'e, T> {
    fn __rummelplatz_source(&self) -> Option<&'e LocalError> {
        self.0.source()
    }
}

impl<'e, T: AsRef<SendError>> OfError<'e> for &&Probe<'e, T> {
    fn __rummelplatz_source(&self) -> Option<&'e LocalError> {
        self.0.as_ref().source()
    }
}

impl<'e, T: AsRef<LocalError>> OfError<'e> for &Probe<'e, T> {
    fn __rummelplatz_source(&self) -> Option<&'e LocalError> {
        self.0.as_ref().source()
    }
}

impl<'e, T> OfError<'e> for Probe<'e, T> {
    fn __rummelplatz_source(&self) -> Option<&'e LocalError> {
        None
    }
}

/// What a value of a generated error enum says: which operation failed, and what its error shows.
#[derive(Clone, Copy)]
pub struct Failure<'e> {
    /// The variant of the enum.
    pub variant: &'static str,
    /// The field of the ring.
    pub operation: &'static str,
    /// The error inside.
    pub error: Shown<'e>,
}

/// A generated error enum.
pub trait OperationError {
    /// Says which variant it is, and probes the error in it.
    fn failure(&self) -> Failure<'_>;
}

impl fmt::Display for Failure<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.error.is_nothing() {
            return write!(f, "operation `{}` failed", self.operation);
        }
        write!(f, "operation `{}`: {}", self.operation, self.error)
    }
}

impl fmt::Debug for Failure<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut tuple = f.debug_tuple(self.variant);
        if self.error.is_nothing() {
            return tuple.finish_non_exhaustive();
        }
        tuple.field(&self.error).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    /// Only text.
    struct OnlyDisplay;
    impl fmt::Display for OnlyDisplay {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("shown")
        }
    }

    #[derive(Debug)]
    struct OnlyDebug;

    struct Opaque;

    #[derive(Debug)]
    struct Caused(io::Error);
    impl fmt::Display for Caused {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("caused")
        }
    }
    impl Error for Caused {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.0)
        }
    }

    /// Borrows, so it is an error but never a `dyn Error + 'static`.
    #[derive(Debug)]
    struct Borrowing<'a>(&'a str);
    impl fmt::Display for Borrowing<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }
    impl Error for Borrowing<'_> {}

    /// Has an error inside and shows nothing itself, as a report type may.
    struct Report(Box<dyn Error + Send + Sync>);
    impl AsRef<dyn Error + Send + Sync> for Report {
        fn as_ref(&self) -> &(dyn Error + Send + Sync + 'static) {
            &*self.0
        }
    }

    struct LocalReport(Box<dyn Error>);
    impl AsRef<dyn Error> for LocalReport {
        fn as_ref(&self) -> &(dyn Error + 'static) {
            &*self.0
        }
    }

    fn caused() -> Caused {
        Caused(io::Error::other("the cause"))
    }

    fn failure(error: Shown<'_>) -> Failure<'_> {
        Failure { variant: "Ticker", operation: "ticker", error }
    }

    macro_rules! said {
        ($error:expr) => {{
            let error = $error;
            let failure = failure(crate::__rummelplatz_shown!(&error));
            (
                failure.to_string(),
                format!("{failure:?}"),
                failure.error.source.map(|source| source.to_string()),
            )
        }};
    }

    fn expected(display: &str, debug: &str, source: Option<&str>) -> (String, String, Option<String>) {
        (display.to_owned(), debug.to_owned(), source.map(str::to_owned))
    }

    #[test]
    fn an_error_shows_its_text_and_passes_on_its_source() {
        let debug = format!("Ticker({:?})", caused());
        assert_eq!(said!(caused()), expected("operation `ticker`: caused", &debug, Some("the cause")));
    }

    #[test]
    fn an_error_that_borrows_is_an_error_too() {
        let text = String::from("borrowed");
        assert_eq!(
            said!(Borrowing(&text)),
            expected("operation `ticker`: borrowed", "Ticker(Borrowing(\"borrowed\"))", None)
        );
    }

    #[test]
    fn a_boxed_error_shows_the_error_inside() {
        let debug = format!("Ticker({:?})", caused());
        let expected = expected("operation `ticker`: caused", &debug, Some("the cause"));
        assert_eq!(said!(Box::<dyn Error + Send + Sync>::from(caused())), expected);
        assert_eq!(said!(Box::<dyn Error>::from(caused())), expected);
        assert_eq!(said!(Report(caused().into())), expected);
        assert_eq!(said!(LocalReport(caused().into())), expected);
    }

    #[test]
    fn a_type_with_text_only_shows_it_in_both_forms() {
        assert_eq!(said!(OnlyDisplay), expected("operation `ticker`: shown", "Ticker(shown)", None));
        assert_eq!(said!(OnlyDebug), expected("operation `ticker`: OnlyDebug", "Ticker(OnlyDebug)", None));
    }

    #[test]
    fn a_type_that_offers_nothing_is_left_out() {
        let expected = expected("operation `ticker` failed", "Ticker(..)", None);
        assert_eq!(said!(Opaque), expected);
        assert_eq!(said!(()), expected);
    }

    #[test]
    fn a_type_parameter_shows_what_its_bounds_promise() {
        fn bare<T>(error: &T) -> String {
            failure(crate::__rummelplatz_shown!(error)).to_string()
        }
        fn bounded<T: fmt::Display>(error: &T) -> String {
            failure(crate::__rummelplatz_shown!(error)).to_string()
        }
        assert_eq!(bare(&OnlyDisplay), "operation `ticker` failed");
        assert_eq!(bounded(&OnlyDisplay), "operation `ticker`: shown");
    }
}
