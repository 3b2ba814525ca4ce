//! Requests on epoll sets.

use std::fmt;

use io_uring::opcode;

use super::entry::on_memory;
use super::{Events, Parts, Request, Target};

/// What has happened to one of the files of an epoll set, as found out by [`epoll_wait`]: kept in the data of the
/// request.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct EpollEvent(libc::epoll_event);

impl Default for EpollEvent {
    fn default() -> Self {
        Self::new()
    }
}

impl EpollEvent {
    /// Nothing has happened.
    pub const fn new() -> EpollEvent {
        EpollEvent(libc::epoll_event { events: 0, u64: 0 })
    }

    /// What has happened.
    pub const fn events(&self) -> Events {
        // The bits of `EPOLL*` are those of `POLL*`.
        Events::from_result(self.0.events)
    }

    /// The number that was given to the set along with the file (`epoll_data`).
    pub const fn data(&self) -> u64 {
        self.0.u64
    }
}

impl fmt::Debug for EpollEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EpollEvent").field("events", &self.events()).field("data", &self.data()).finish()
    }
}

/// Waits until something happens to the files of an epoll set, as `epoll_wait(2)` (`IORING_OP_EPOLL_WAIT`, since 6.15;
/// `EINVAL` before). The result says how many of `events` tell of it.
///
/// So a ring takes over the files of a program that has an epoll set, or of a library that hands one out. Without any
/// room for events, it is refused (`EINVAL`). The set is changed by `epoll_ctl(2)`, also while a request waits for it.
///
/// ```
/// # use rummelplatz::{request, request::{EpollEvent, Events, Request}};
/// # use std::os::fd::OwnedFd;
/// struct Watch { set: OwnedFd, events: [EpollEvent; 64] }
///
/// impl Watch {
///     fn wait(&mut self) -> Request<'_> {
///         request::epoll_wait(&self.set, &mut self.events)
///     }
///     /// For the handler: which files can be read, after a wait with this result.
///     fn readable(&self, result: u32) -> impl Iterator<Item = u64> {
///         let events = self.events[..result as usize].iter();
///         events.filter(|it| it.events().contains(Events::READABLE)).map(|it| it.data())
///     }
/// }
/// ```
pub fn epoll_wait<'d>(set: &'d impl Target, events: &'d mut [EpollEvent]) -> Request<'d> {
    let entry = on_memory(opcode::EpollWait::CODE.into(), events.as_mut_ptr().cast_const(), events.len());
    Parts::usual_on(set, entry).request()
}
