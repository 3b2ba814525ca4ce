//! Errors of every kind in one ring: what a type offers is shown, what it does not is left out.

#![forbid(unsafe_code)]
#![deny(warnings)]

use std::error::Error;
use std::{fmt, io};

use rummelplatz::{Completion, ControlFlow, Ring, RingError, RingOperation, Submitter, ring};

/// Implements nothing at all.
struct Opaque;

#[derive(Debug)]
struct OnlyDebug;

struct OnlyDisplay;
impl fmt::Display for OnlyDisplay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("only display")
    }
}

macro_rules! operations {
    ($($name:ident: $type:ty = $value:expr;)*) => {$(
        #[derive(RingOperation)]
        #[ring_operation(data = bool, error = $type, warn = $type, on_completion)]
        struct $name;

        impl $name {
            fn on_completion<R: Ring>(
                &mut self,
                _: Completion,
                end: bool,
                _: Submitter<'_, R, Self>,
            ) -> ControlFlow<$type, $type> {
                if end { ControlFlow::Error($value) } else { ControlFlow::Warn($value) }
            }
        }
    )*};
}

operations! {
    Io: io::Error = io::Error::other(caused());
    Unit: () = ();
    Boxed: Box<dyn Error + Send + Sync> = caused().into();
    Local: Box<dyn Error> = caused().into();
    Report: eyre::Report = eyre::Report::from(caused()).wrap_err("reported");
    Nothing: Opaque = Opaque;
    Debugs: OnlyDebug = OnlyDebug;
    Displays: OnlyDisplay = OnlyDisplay;
    Text: String = "text".to_owned();
}

#[derive(Debug)]
struct Caused(fmt::Error);
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

fn caused() -> Caused {
    Caused(fmt::Error)
}

#[ring]
struct Server {
    io: Io,
    unit: Unit,
    boxed: Boxed,
    local: Local,
    report: Report,
    nothing: Nothing,
    debugs: Debugs,
    displays: Displays,
    text: Text,
}

fn server() -> Option<Server> {
    let raw = Server::new_raw_ring(std::num::NonZeroU32::MIN).ok()?;
    Some(Server::new(raw, None, Io, Unit, Boxed, Local, Report, Nothing, Debugs, Displays, Text))
}

/// What a ring says that an operation has ended, after a warning of the same type.
macro_rules! said {
    ($tag:ident) => {{
        let Some(mut server) = server() else { return };
        server.submitter(Server::$tag).post(false).unwrap();
        server.submitter(Server::$tag).post(true).unwrap();
        let Err(RingError::Completion(cause)) = server.run() else { panic!("no error") };
        let sources = std::iter::successors(cause.error.source(), |&error| error.source());
        (
            cause.error.to_string(),
            format!("{:?}", cause.error),
            sources.map(ToString::to_string).collect::<Vec<_>>(),
        )
    }};
}

fn expected(display: &str, debug: &str, sources: &[&str]) -> (String, String, Vec<String>) {
    (display.to_owned(), debug.to_owned(), sources.iter().map(ToString::to_string).collect())
}

fn main() {
    let cause = fmt::Error.to_string();
    let debug = "Custom { kind: Other, error: Caused(Error) }";
    assert_eq!(said!(IO), expected("operation `io`: caused", &format!("Io({debug})"), &[&cause]));
    assert_eq!(said!(UNIT), expected("operation `unit` failed", "Unit(..)", &[]));
    assert_eq!(said!(BOXED), expected("operation `boxed`: caused", "Boxed(Caused(Error))", &[&cause]));
    assert_eq!(said!(LOCAL), expected("operation `local`: caused", "Local(Caused(Error))", &[&cause]));
    let (display, _, sources) = said!(REPORT);
    assert_eq!(
        (display.as_str(), sources),
        ("operation `report`: reported", vec!["caused".to_owned(), cause])
    );
    assert_eq!(said!(NOTHING), expected("operation `nothing` failed", "Nothing(..)", &[]));
    assert_eq!(said!(DEBUGS), expected("operation `debugs`: OnlyDebug", "Debugs(OnlyDebug)", &[]));
    assert_eq!(
        said!(DISPLAYS),
        expected("operation `displays`: only display", "Displays(only display)", &[])
    );
    assert_eq!(said!(TEXT), expected("operation `text`: text", "Text(\"text\")", &[]));
}
