//! What a server does when it can't accept connections; two of the examples use this module.

use std::io;
use std::net::TcpListener;
use std::time::Duration;

use rummelplatz::{Completion, ControlFlow, ResultExt, Ring, RingOperation, Submitter, request};

/// How long to wait after accepting has failed, usually for lack of descriptors.
const PAUSE: Duration = Duration::from_millis(500);

/// Goes on after the end of a stream of connections: with a pause if the stream has failed, and with a new stream if
/// this was the end of the pause.
pub(crate) fn go_on_accepting<R: Ring, Op: RingOperation<R, RingData = TcpListener>>(
    completion: &Completion,
    listener: TcpListener,
    mut submitter: Submitter<'_, R, Op>,
) -> Result<(), ControlFlow<io::Error, io::Error>> {
    let Err(error) = completion.result() else {
        submitter.stream(listener, |listener| request::accept_multi(listener)).or_end()?;
        return Ok(());
    };
    // EINVAL is permanent: this kernel has no multishot accept. All other errors pass.
    if error.kind() == io::ErrorKind::InvalidInput {
        return Err(ControlFlow::Error(error));
    }
    submitter.submit(listener, |_| request::timeout(PAUSE)).or_end()?;
    Err(ControlFlow::Warn(error))
}
