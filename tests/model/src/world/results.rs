//! Which results a request may have, whatever the kernel: knows what each kind of request does, and nothing of any
//! particular one.

use rummelplatz::request::Datagram;

use crate::program::Kind;
use crate::world::pools::PIECES;

/// Whether this result is an error after which accepting may succeed again.
pub(super) fn passes(result: i32) -> bool {
    let errors = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ECONNRESET, libc::EINTR];
    errors.contains(&-result)
}

/// Whether a request of this kind can have this result, under the real kernel and the simulated one.
pub(super) fn is_possible(kind: Kind, result: i32) -> bool {
    let errno = -result;
    // Closing can't be interrupted, once it has begun.
    let interrupted =
        matches!(errno, libc::ECANCELED) || kind != Kind::Close && matches!(errno, libc::EINTR | 512);
    interrupted || is_own_result(kind, result, errno)
}

/// The same, of one that nothing has interrupted.
fn is_own_result(kind: Kind, result: i32, errno: i32) -> bool {
    let is_lost = matches!(errno, libc::ECONNRESET | libc::EPIPE);
    let receives_nothing = matches!(errno, libc::ECONNRESET | libc::ENOBUFS);
    match kind {
        Kind::Nop => result == 0,
        // A full queue that cuts a timer in a teardown ends it with 0.
        Kind::Timeout | Kind::Never | Kind::TimeoutMulti | Kind::TimeoutThrice => {
            matches!(errno, 0 | libc::ETIME)
        }
        Kind::Read | Kind::ReadFixed | Kind::Receive | Kind::Send => (0..=16).contains(&result) || is_lost,
        Kind::SendZeroCopy | Kind::SendVectoredZeroCopy => {
            (0..=16).contains(&result) || is_lost || matches!(errno, libc::EOPNOTSUPP | libc::ENOMEM)
        }
        Kind::ReceiveProvided | Kind::ReceiveMulti | Kind::ReceiveLimited => {
            (0..=64).contains(&result) || receives_nothing
        }
        Kind::ReceivePieces => {
            (0..=PIECES as i32).contains(&result) || receives_nothing || errno == libc::EBADR
        }
        Kind::ReceiveBundles => (0..=128).contains(&result) || receives_nothing,
        // The end is an empty datagram, too.
        Kind::ReceiveDatagrams => (Datagram::OVERHEAD as i32..=64).contains(&result) || receives_nothing,
        Kind::Poll | Kind::PollMulti => result > 0 || errno == libc::ECONNRESET,
        Kind::Accept | Kind::AcceptMulti => {
            result >= 0 || [libc::EMFILE, libc::ENOBUFS, libc::ECONNRESET, libc::EINVAL].contains(&errno)
        }
        Kind::AcceptDirect | Kind::AcceptMultiDirect | Kind::OpenDirect | Kind::SocketDirect => {
            result >= 0 || [libc::ENFILE, libc::ENOBUFS, libc::ECONNRESET, libc::EINVAL].contains(&errno)
        }
        Kind::WordWait => matches!(errno, 0 | libc::EAGAIN),
        Kind::WordWake | Kind::Install => result >= 0,
        Kind::Pipe => matches!(errno, 0 | libc::EMFILE),
        Kind::ReceiveOnFile | Kind::SendOnFile | Kind::SendZeroCopyOnFile => {
            // It may be a file, or a socket that is not connected, or one that can't send without copies.
            let others = [libc::ENOTSOCK, libc::ENOTCONN, libc::EINVAL, libc::EOPNOTSUPP];
            (0..=16).contains(&result) || is_lost || others.contains(&errno)
        }
        Kind::ReceiveMessage => matches!(errno, 0 | libc::ECONNRESET),
        Kind::Close => result == 0,
        // In the real kernel's file, there may be nothing to sync.
        Kind::Sync => matches!(errno, 0 | libc::EINVAL),
    }
}
