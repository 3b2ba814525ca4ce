//! The error of a run, whatever the errors of the operations are.

use std::error::Error;
use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut};

use crate::error::{Stuck, SubmitError};
use crate::shape::Ring;

/// Why a run of a ring ended early. The variant is the first cause.
///
/// Beside the first cause, each [`Cause`] has the errors of all teardown handlers, and what was abandoned if
/// the teardown did not come to an end.
///
/// It is an [`Error`] whatever the error types of the operations are: it shows what they offer (`Error`,
/// `AsRef<dyn Error>`, `Display`, `Debug`).
///
/// So `server.run()?` works in any `main`. To tell what has happened, match on it:
///
/// ```
/// # use rummelplatz::{Completion, RingError, RingOperation, Submitter, request, ring};
/// # use std::{error::Error, fs::File, io};
/// # #[ring]
/// # struct Server { reader: Reader }
/// # #[derive(RingOperation)]
/// # #[ring_operation(ring = Server, data = (File, Vec<u8>), error = io::Error, on_completion)]
/// # struct Reader;
/// # impl Reader {
/// #     fn on_completion(&mut self, completion: Completion, _: (File, Vec<u8>), _: Submitter<'_, Server, Self>)
/// #         -> io::Result<()>
/// #     {
/// #         completion.result().map(drop)
/// #     }
/// # }
/// # fn main() -> Result<(), Box<dyn Error>> {
/// # let mut server = Server::builder(Reader).build()?;
/// # let directory = (File::open("/")?, vec![0; 8]);
/// # server.submitter(Server::READER).submit(directory, |(file, bytes)| request::read(file, bytes))?;
/// # let mut matched = 0;
/// match server.run() {
///     Ok(()) => println!("the server was stopped"),
///     // A handler has ended it. `#[ring]` makes this enum, with a variant for each operation.
///     Err(RingError::Completion(cause)) => match cause.error {
///         ServerCompletionError::Reader(error) => {
///             eprintln!("can't read: {error}");
/// #           matched += error.raw_os_error().unwrap();
///         }
///     },
///     // Its teardown had a deadline, and that has passed.
///     Err(RingError::Abandoned { stuck }) => eprintln!("still with the kernel: {stuck}"),
///     Err(error) => return Err(error.into()),
/// }
/// # assert_eq!(matched, libc::EISDIR);
/// # Ok(()) }
/// ```
pub enum RingError<R: Ring> {
    /// An operation's `setup` failed.
    Setup(Cause<R::SetupError, R>),
    /// A handler returned [`ControlFlow::Error`](crate::ControlFlow::Error).
    Completion(Cause<R::CompletionError, R>),
    /// All went well until a teardown handler failed.
    Teardown(Cause<R::TeardownError, R>),
    /// A call into io_uring failed.
    Api(Cause<io::Error, R>),
    /// Never returned, because the ring's own entries always find room. It is here for programs that match on
    /// it, as they did with the earlier library.
    Push(Cause<SubmitError, R>),
    /// The ring was run in another thread before; nothing was done.
    WrongThread,
    /// The ring belongs to the process that this one was forked from; nothing was done.
    Forked,
    /// Requests are stuck in the kernel; their memory is leaked, and the ring is of no use any more.
    ///
    /// If the kernel has lost a completion for want of memory (`EBADR` in [`Stuck::errno`]), then what that carried is
    /// lost, too. A descriptor stays open until the process ends, because only the completion knew its number. A direct
    /// descriptor is closed with the ring, when that is dropped. A buffer is leaked with its pool. If the request of
    /// the lost completion has ended by another one, so that nothing is stuck, the run ends with
    /// [`Api`](Self::Api), direct descriptors are closed at its end, and the ring can be run again.
    Abandoned {
        /// What is stuck.
        stuck: Stuck,
    },
}

/// The first cause of a [`RingError`], and what came after it.
pub struct Cause<E, R: Ring> {
    /// What went wrong first.
    pub error: E,
    /// What went wrong in teardown handlers after that, in order.
    pub teardown: Vec<R::TeardownError>,
    /// What the teardown had to abandon, if it did not come to an end.
    pub abandoned: Option<Stuck>,
}

impl<E, R: Ring> Deref for Cause<E, R> {
    type Target = E;
    fn deref(&self) -> &E {
        &self.error
    }
}

impl<E, R: Ring> DerefMut for Cause<E, R> {
    fn deref_mut(&mut self) -> &mut E {
        &mut self.error
    }
}

impl<R: Ring> RingError<R> {
    /// The errors of teardown handlers, beside the first cause.
    pub fn teardown_errors(&self) -> &[R::TeardownError] {
        match self {
            RingError::Setup(cause) => &cause.teardown,
            RingError::Completion(cause) => &cause.teardown,
            RingError::Teardown(cause) => &cause.teardown,
            RingError::Api(cause) => &cause.teardown,
            RingError::Push(cause) => &cause.teardown,
            RingError::WrongThread | RingError::Forked | RingError::Abandoned { .. } => &[],
        }
    }

    /// The requests that had to be abandoned.
    pub fn abandoned(&self) -> Option<&Stuck> {
        match self {
            RingError::Setup(cause) => cause.abandoned.as_ref(),
            RingError::Completion(cause) => cause.abandoned.as_ref(),
            RingError::Teardown(cause) => cause.abandoned.as_ref(),
            RingError::Api(cause) => cause.abandoned.as_ref(),
            RingError::Push(cause) => cause.abandoned.as_ref(),
            RingError::WrongThread | RingError::Forked => None,
            RingError::Abandoned { stuck } => Some(stuck),
        }
    }

    /// What the variant says, and the first cause if there is one.
    fn parts(&self) -> (&'static str, Option<&(dyn Error + '_)>) {
        match self {
            RingError::Setup(cause) => ("setup failed", Some(&cause.error)),
            RingError::Completion(cause) => ("ended by an error", Some(&cause.error)),
            RingError::Teardown(cause) => ("teardown failed", Some(&cause.error)),
            RingError::Api(cause) => ("a call into io_uring failed", Some(&cause.error)),
            RingError::Push(cause) => ("the ring could not queue an entry", Some(&cause.error)),
            RingError::WrongThread => (
                "the ring belongs to the thread that first ran it: call it there, or send to it by a `RingHandle`",
                None,
            ),
            RingError::Forked => ("the ring belongs to the process that this one was forked from", None),
            RingError::Abandoned { .. } => ("requests were abandoned", None),
        }
    }
}

impl<R: Ring> fmt::Display for RingError<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, cause) = self.parts();
        write!(f, "{}: {what}", R::NAME)?;
        if let Some(cause) = cause {
            write!(f, ": {cause}")?;
        }
        let others = self.teardown_errors();
        if !others.is_empty() {
            write!(f, " (and {} in teardown: ", others.len())?;
            for (index, error) in others.iter().enumerate() {
                write!(f, "{}{error}", if index == 0 { "" } else { "; " })?;
            }
            write!(f, ")")?;
        }
        if let Some(stuck) = self.abandoned() {
            write!(f, " ({stuck})")?;
        }
        Ok(())
    }
}

/// The name of the variant and what `Display` shows, because what a `main` that returns this error prints should be
/// readable.
impl<R: Ring> fmt::Debug for RingError<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let variant = match self {
            RingError::Setup(_) => "Setup",
            RingError::Completion(_) => "Completion",
            RingError::Teardown(_) => "Teardown",
            RingError::Api(_) => "Api",
            RingError::Push(_) => "Push",
            RingError::WrongThread => "WrongThread",
            RingError::Forked => "Forked",
            RingError::Abandoned { .. } => "Abandoned",
        };
        write!(f, "{variant}(\"{self}\")")
    }
}

/// The text has the first cause in it already, so what follows in the chain is the source of that cause.
impl<R: Ring> Error for RingError<R> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            RingError::Setup(cause) => cause.error.source(),
            RingError::Completion(cause) => cause.error.source(),
            RingError::Teardown(cause) => cause.error.source(),
            RingError::Api(cause) => cause.error.source(),
            _ => None,
        }
    }
}

impl<R: Ring> From<RingError<R>> for io::Error
where
    RingError<R>: Send + Sync + 'static,
{
    fn from(error: RingError<R>) -> Self {
        let kind = match &error {
            RingError::Api(cause) => cause.error.kind(),
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}
