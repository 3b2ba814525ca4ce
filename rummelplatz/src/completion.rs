//! What a handler gets, as a value that owns what it carries.

use std::fmt;
use std::io;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::ptr;

use io_uring::cqueue;

use crate::buffers::{Buffer, BufferPool, Buffers, Lender, Piece};
use crate::facts::{Facts, KERNELS_OWN, Yields};
use crate::fixed::FixedFile;
use crate::request::{Datagram, Layout};

#[cfg(test)]
mod tests;

/// The end of a request, or one more result of a stream.
///
/// A completion owns what it carries. An accepted or opened descriptor that nobody takes out is closed when the
/// completion is dropped. A buffer goes back to its pool.
///
/// A handler takes from it what the request yields: a [`result`](Self::result), as here, a [descriptor](Self::into_fd),
/// or a [buffer](Self::into_buffer).
///
/// ```
/// # use rummelplatz::{Completion, ResultExt, RingOperation, SubmitError, Submitter, request, ring};
/// # use rummelplatz::ControlFlow;
/// # use std::{error::Error, io, os::unix::net::UnixStream, time::Duration};
/// # struct Connection { socket: UnixStream, buffer: Vec<u8> }
/// # #[ring]
/// # struct Server { connections: Connections }
/// # #[derive(RingOperation)]
/// # #[ring_operation(ring = Server, data = Connection, warn = io::Error, error = SubmitError, on_completion)]
/// # struct Connections { received: usize }
/// # impl Connections {
/// fn on_completion(&mut self, completion: Completion, connection: Connection, mut submitter: Submitter<'_, Server, Self>)
///     -> Result<(), ControlFlow<io::Error, SubmitError>>
/// {
///     // For example ECONNRESET; or ECANCELED, if somebody has cancelled it.
///     let bytes = completion.result().or_warn()? as usize;
///     self.received += bytes;
///     if bytes > 0 {
///         submitter.submit(connection, |it| request::recv(&it.socket, &mut it.buffer)).or_end()?;
///     }
///     Ok(()) // No bytes: this is the end, and the connection is dropped.
/// }
/// # }
/// # fn main() -> Result<(), Box<dyn Error>> {
/// # let (socket, _) = UnixStream::pair()?;
/// # let connection = Connection { socket, buffer: vec![0; 64] };
/// # let mut server = Server::builder(Connections { received: 0 }).build()?;
/// # let submitter = server.submitter(Server::CONNECTIONS);
/// # let mut connections = Connections { received: 0 };
/// # connections.on_completion(Completion::from_result(Ok(5)), connection, submitter).unwrap();
/// # assert_eq!((connections.received, server.stats().in_flight), (5, 1));
/// # Ok(()) }
/// ```
///
/// In a test, make a completion by hand and call the handler with it:
///
/// ```
/// # use rummelplatz::{Completion, RingOperation, Submitter, ring};
/// # use std::{error::Error, io};
/// # #[ring]
/// # struct Server { connections: Connections }
/// # #[derive(RingOperation)]
/// # #[ring_operation(ring = Server, data = &'static str, warn = io::Error, on_completion)]
/// # struct Connections { received: u32 }
/// # impl Connections {
/// #     fn on_completion(&mut self, completion: Completion, _: &'static str, _: Submitter<'_, Server, Self>)
/// #         -> io::Result<()>
/// #     {
/// #         self.received += completion.result()?;
/// #         Ok(())
/// #     }
/// # }
/// # fn main() -> Result<(), Box<dyn Error>> {
/// let mut server = Server::builder(Connections { received: 0 }).build()?;
/// let mut connections = Connections { received: 0 };
/// # let connection = "";
///
/// let five_bytes = Completion::from_result(Ok(5));
/// connections.on_completion(five_bytes, connection, server.submitter(Server::CONNECTIONS))?;
/// assert_eq!(connections.received, 5);
///
/// let reset = Completion::from_result(Err(io::Error::from_raw_os_error(libc::ECONNRESET)));
/// let told = connections.on_completion(reset, connection, server.submitter(Server::CONNECTIONS));
/// assert!(told.is_err());
/// # Ok(()) }
/// ```
#[must_use = "a completion releases what it carries when it is dropped"]
pub struct Completion {
    /// 0 if a descriptor is carried: its number is for its owner only.
    result: i32,
    kind: Kind,
    /// Initialised exactly if the kind has [`Kind::CARRIES`]: the two are set together. What the request yields, as the
    /// kind has it, says which field it is; and what is there is the completion's own.
    carried: MaybeUninit<Carried>,
}

union Carried {
    descriptor: RawFd,
    /// A file in the ring's table.
    file: ManuallyDrop<FixedFile>,
    /// The pool of the buffer whose number is in the flags, and of the buffers that follow it in a bundle.
    pool: Lender,
}

/// `res` and `flags` of the completion queue entry, as the kernel posted them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RawCompletion {
    /// `cqe->res`: what the operation returned, or a negative `errno`.
    pub result: i32,
    /// `cqe->flags`: `IORING_CQE_F_*`, and in the upper half the number of a buffer. Bits 8 to 14, to which no kernel
    /// up to 6.18 gives a meaning, are 0.
    pub flags: u32,
}

/// The flags of a completion. Bits to which the kernel gives no meaning hold what else is known of the completion. So
/// the kind of a plain completion is just its flags, and nothing needs to be kept beside them.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Kind(u32);

impl Kind {
    /// The bits that are ours: up to 6.18, the kernel has given a meaning to bits 0 to 5 and 15, and to the upper half
    /// as a whole.
    const OURS: u32 = 0b111_1111 << 8;
    /// [`Yields`], in four bits, or the mark of a message, which yields nothing.
    const YIELDS: u32 = 0b1111 << 8;
    const MESSAGE: u32 = Kind::bits(Yields::LAST) + (1 << 8);
    const MORE: Kind = Kind(1 << 12);
    const TIMED_OUT: Kind = Kind(1 << 13);
    const CARRIES: Kind = Kind(1 << 14);
    /// Bits that are set only in completions that are more than a result.
    const MORE_THAN_RESULT: Kind = Self::MORE.with(Self::CARRIES);
    /// Bits that no plain completion has: ours, and `IORING_CQE_F_MORE`.
    const UNUSUAL: u32 = Self::OURS | 1 << 1;

    #[inline(always)]
    const fn of(yields: Yields, flags: u32) -> Kind {
        Kind(flags & !Self::OURS | Self::bits(yields))
    }

    const fn bits(yields: Yields) -> u32 {
        (yields as u32) << Self::YIELDS.trailing_zeros()
    }

    #[inline(always)]
    const fn yields(self, yields: Yields) -> bool {
        self.0 & Self::YIELDS == Self::bits(yields)
    }

    #[inline(always)]
    const fn carries(self, yields: Yields) -> bool {
        self.0 & (Self::YIELDS | Self::CARRIES.0) == Self::bits(yields) | Self::CARRIES.0
    }

    /// The number of the buffer, if one is carried.
    #[inline(always)]
    const fn buffer(self) -> u16 {
        (self.0 >> 16) as u16
    }

    #[inline(always)]
    const fn with(self, other: Kind) -> Kind {
        Kind(self.0 | other.0)
    }

    #[inline(always)]
    const fn has(self, other: Kind) -> bool {
        self.0 & other.0 != 0
    }
}

const _: () = assert!(Yields::Result as u32 == 0 && Kind::MESSAGE <= Kind::YIELDS);

// What may have to be dropped when a handler panics is kept in memory, unless its `Drop` is so short that the compiler
// inlines it even there. And this `Drop` asks the same question as `is_only_result`, so the loop has its answer from
// here.
impl Drop for Completion {
    #[inline(always)]
    fn drop(&mut self) {
        if !self.is_only_result() {
            // SAFETY: `self` is not used again.
            unsafe { release(self.kind, ptr::read(&self.carried)) };
        }
    }
}

/// How much of a buffer is for what is said of a datagram, if this is one.
#[inline(always)]
const fn layout(yields: Yields) -> Option<Layout> {
    match yields {
        Yields::Datagram => Some(Layout::Addressed),
        Yields::Message => Some(Layout::Controlled),
        _ => None,
    }
}

/// Holds the buffers of a completion whose request yields a datagram or a bundle; the completion names the first of
/// them. Returns the result that this makes: for a datagram, without the bytes that the kernel
/// writes before it. Descriptors that came with a datagram are closed.
///
/// # Safety
///
/// The pool is registered with the ring that calls this, and the kernel has posted this result.
unsafe fn hold(yields: Yields, pool: &BufferPool, id: u16, result: i32) -> Option<(Lender, i32)> {
    if let Some(layout) = layout(yields) {
        let overhead = layout.overhead() as i32;
        let bytes = if result < 0 { result } else { (result - overhead).max(0) };
        // SAFETY: the caller promises that its ring has the pool registered.
        let pool = unsafe { pool.hold(id) }?;
        if layout == Layout::Controlled && result >= overhead {
            // SAFETY: the buffer was just held, and is not given back here.
            let datagram = unsafe { Buffer::of(pool, id, overhead as u32) };
            let mut datagram = ManuallyDrop::new(Datagram::in_buffer(datagram, layout));
            if datagram.is_controlled() {
                // SAFETY: the kernel has received the datagram into this buffer, as the result says, and nobody has had
                // it before.
                unsafe { datagram.close_descriptors() };
            }
        }
        return Some((pool, bytes));
    }
    // The kernel takes as many buffers as it has filled: none if there is no byte, or an error.
    let bytes @ 1.. = u32::try_from(result).ok()? else { return None };
    // SAFETY: the caller promises that its ring has the pool registered.
    unsafe { pool.hold_bundle(id, bytes) }.map(|(pool, bytes)| (pool, bytes as i32))
}

/// Drops what a completion of this kind carries, if it carries anything.
///
/// # Safety
///
/// `carried` is that of a completion, which is not used again.
#[cold]
#[inline(never)]
unsafe fn release(kind: Kind, carried: MaybeUninit<Carried>) {
    if !kind.has(Kind::CARRIES) {
        return;
    }
    // SAFETY: it is initialised, because the kind has `CARRIES`.
    let carried = unsafe { carried.assume_init() };
    if kind.yields(Yields::Descriptor) {
        // SAFETY: the field is the descriptor, because the request yields one. The completion owned it, and is not used
        // again, as the caller promises.
        drop(unsafe { OwnedFd::from_raw_fd(carried.descriptor) });
    } else if kind.yields(Yields::Direct) {
        // SAFETY: the field is the file, because the request yields one. The completion owned it, and is not used
        // again, as the caller promises.
        drop(ManuallyDrop::into_inner(unsafe { carried.file }));
    } else {
        // SAFETY: the field is the pool, because nothing else is left. The buffer, or several of them, were held for
        // the completion, which is not used again.
        drop(unsafe { Buffers::of(carried.pool, kind.buffer(), 0) });
    }
}

impl Completion {
    /// Whether a completion with these flags can be [`plain`](Self::plain).
    #[inline(always)]
    pub(crate) fn can_be_plain(flags: u32) -> bool {
        flags & Kind::UNUSUAL == 0
    }

    /// Whether a completion with these flags, which can't be [`plain`](Self::plain), can be that of a stream which just
    /// goes on. (Then it has `F_MORE`. Asked like this, the compiler knows that none of our bits is set.)
    #[inline(always)]
    pub(crate) fn can_be_calm(flags: u32) -> bool {
        debug_assert!(!Self::can_be_plain(flags));
        flags & Kind::OURS == 0
    }

    /// The completion of a request that yields its result and nothing else. The caller has checked that it [can be
    /// plain](Self::can_be_plain).
    #[inline(always)]
    pub(crate) fn plain(result: i32, flags: u32) -> Completion {
        debug_assert!(Self::can_be_plain(flags));
        Completion { result, kind: Kind(flags), carried: MaybeUninit::uninit() }
    }

    /// Whether the completion carries nothing, and nothing follows it.
    #[inline(always)]
    pub(crate) fn is_only_result(&self) -> bool {
        !self.kind.has(Kind::MORE_THAN_RESULT)
    }

    /// Takes over what a completion of a request with these facts carries, if that is not a [file in the ring's
    /// table](Self::with_file).
    ///
    /// # Safety
    ///
    /// If the request yields descriptors and `result` is not negative, `result` is a descriptor that nobody else owns.
    /// If the request receives from a pool, that pool is registered with the ring that calls this, the kernel has posted
    /// this result, and this is called for all results that name buffers of the pool, in the order in which they were
    /// posted.
    pub(crate) unsafe fn new(
        facts: &Facts,
        pool: Option<&BufferPool>,
        result: i32,
        flags: u32,
    ) -> Completion {
        if !facts.yields.is_involved() {
            // SAFETY: the caller's promise is the same.
            return unsafe { Completion::simple(facts, pool, result, flags) };
        }
        if facts.yields == Yields::Piece {
            // SAFETY: the caller's promise is the same.
            return unsafe { Completion::of_piece(pool, result, flags) };
        }
        let mut completion = Completion::carrying_nothing(facts.yields, result, flags);
        if let Some(id) = cqueue::buffer_select(flags)
            && let Some(pool) = pool
            // SAFETY: the caller promises that its ring has the pool registered, and that this is the posted result.
            && let Some((pool, bytes)) = unsafe { hold(facts.yields, pool, id, result) }
        {
            completion.result = bytes;
            completion.carry_buffer(pool);
        }
        completion
    }

    /// As [`new`](Self::new), if the request yields a piece of a buffer.
    ///
    /// # Safety
    ///
    /// As for `new`.
    unsafe fn of_piece(pool: Option<&BufferPool>, result: i32, flags: u32) -> Completion {
        let mut completion = Completion::carrying_nothing(Yields::Buffer, result, flags);
        if let Some(id) = cqueue::buffer_select(flags)
            && let Some(pool) = pool
        {
            // SAFETY: the caller promises that its ring has the pool registered, and calls this in the order of the
            // completions.
            let Piece { lent, result } = unsafe { pool.hold_piece(id, result, flags) };
            completion.result = result;
            if let Some((lender, number)) = lent {
                completion.kind =
                    Kind::of(Yields::Buffer, flags & u32::from(u16::MAX) | u32::from(number) << 16);
                completion.carry_buffer(lender);
            }
        }
        completion
    }

    /// The completion of a request that yields a file in the ring's table: this one, if its result was no error.
    pub(crate) fn with_file(result: i32, flags: u32, file: Option<FixedFile>) -> Completion {
        let mut completion = Completion::carrying_nothing(Yields::Direct, result.min(0), flags);
        if let Some(file) = file {
            completion.kind = completion.kind.with(Kind::CARRIES);
            completion.carried = MaybeUninit::new(Carried { file: ManuallyDrop::new(file) });
        }
        completion
    }

    /// As [`new`](Self::new), if what the request yields is not [involved](Yields::is_involved).
    ///
    /// # Safety
    ///
    /// As for `new`.
    #[inline(always)]
    pub(crate) unsafe fn simple(
        facts: &Facts,
        pool: Option<&BufferPool>,
        result: i32,
        flags: u32,
    ) -> Completion {
        debug_assert!(!facts.yields.is_involved());
        let mut completion = Completion::carrying_nothing(facts.yields, result, flags);
        match facts.yields {
            // The caller promises that the descriptor is ours.
            Yields::Descriptor if result >= 0 => completion.carry_descriptor(result),
            // Errors can carry a buffer, too.
            Yields::Buffer => {
                if let Some(id) = cqueue::buffer_select(flags)
                    && let Some(pool) = pool
                    // SAFETY: the caller promises that its ring has the pool registered.
                    && let Some(pool) = unsafe { pool.hold(id) }
                {
                    completion.carry_buffer(pool);
                }
            }
            _ => {}
        }
        completion
    }

    #[inline(always)]
    fn carrying_nothing(yields: Yields, result: i32, flags: u32) -> Completion {
        Completion { result, kind: Kind::of(yields, flags), carried: MaybeUninit::uninit() }
    }

    /// From here on the completion owns the buffer of this pool that its flags name, and those that follow it.
    #[inline(always)]
    fn carry_buffer(&mut self, pool: Lender) {
        self.kind = self.kind.with(Kind::CARRIES);
        self.carried = MaybeUninit::new(Carried { pool });
    }

    /// From here on the completion, which yields a descriptor, owns it.
    fn carry_descriptor(&mut self, descriptor: RawFd) {
        self.result = 0;
        self.kind = self.kind.with(Kind::CARRIES);
        self.carried = MaybeUninit::new(Carried { descriptor });
    }

    /// The number of the carried descriptor, if there is one.
    fn carried_descriptor(&self) -> Option<RawFd> {
        let is_carried = self.kind.carries(Yields::Descriptor);
        // SAFETY: it is initialised, and the field is the descriptor, because the kind says that one is carried.
        is_carried.then(|| unsafe { self.carried.assume_init_ref().descriptor })
    }

    /// The file in the ring's table that is carried, if there is one.
    fn carried_file(&self) -> Option<&ManuallyDrop<FixedFile>> {
        let is_carried = self.kind.carries(Yields::Direct);
        // SAFETY: it is initialised, and the field is the file, because the kind says that one is carried.
        is_carried.then(|| unsafe { &self.carried.assume_init_ref().file })
    }

    /// The pool and the number of the carried buffer, if there is one that is not one of several.
    fn carried_buffer(&self) -> Option<(Lender, u16)> {
        let is_carried = self.kind.carries(Yields::Buffer);
        // SAFETY: it is initialised, and the field is the pool, because the kind says that a buffer is carried.
        is_carried.then(|| (unsafe { self.carried.assume_init_ref().pool }, self.kind.buffer()))
    }

    /// Marks a completion after which the request goes on.
    #[inline(always)]
    pub(crate) fn announcing_more(mut self) -> Self {
        self.kind = self.kind.with(Kind::MORE);
        self
    }

    /// Marks the completion of a request whose deadline has passed.
    pub(crate) fn timing_out(mut self) -> Self {
        self.kind = self.kind.with(Kind::TIMED_OUT);
        self
    }

    /// Marks the completion of a message, which carries nothing.
    pub(crate) fn into_message(mut self) -> Self {
        debug_assert!(!self.kind.has(Kind::CARRIES));
        self.kind = Kind(self.kind.0 & !Kind::YIELDS | Kind::MESSAGE);
        self
    }

    /// Whether the completion carries a descriptor, a buffer, events or a tick: more than the news that a stream has
    /// ended.
    pub(crate) fn has_payload(&self) -> bool {
        // A result of no bytes is the end of the file.
        self.kind.carries(Yields::Descriptor)
            || self.kind.carries(Yields::Direct)
            || (self.kind.carries(Yields::Buffer) || self.kind.carries(Yields::Bundle)) && self.result > 0
            || self.carried_layout().is_some_and(|layout| self.result >= 0 && self.is_from_somebody(layout))
            || self.kind.yields(Yields::Events) && self.result > 0
            || self.kind.yields(Yields::Tick) && self.result == -libc::ETIME
    }

    /// A completion with this result, for tests of your own operations.
    ///
    /// An error should be one of the system's ([`io::Error::from_raw_os_error`]); any other becomes
    /// `EIO`.
    pub fn from_result(result: io::Result<u32>) -> Completion {
        let result = match result {
            Ok(result) => i32::try_from(result).unwrap_or(i32::MAX),
            Err(error) => -error.raw_os_error().filter(|errno| *errno > 0).unwrap_or(libc::EIO),
        };
        Completion::plain(result, 0)
    }

    /// A completion that carries a descriptor, for tests of your own operations.
    pub fn from_fd(descriptor: OwnedFd) -> Completion {
        let mut completion = Completion::plain(0, 0);
        completion.kind = Kind::of(Yields::Descriptor, 0);
        completion.carry_descriptor(descriptor.into_raw_fd());
        completion
    }

    /// A completion that carries a buffer, for tests of your own operations: see
    /// [`BufferPool::fill`](crate::BufferPool::fill).
    pub fn from_buffer(buffer: Buffer) -> Completion {
        let bytes = buffer.len();
        Completion::carrying(Yields::Buffer, bytes, buffer)
    }

    /// A completion that carries a datagram, for tests of your own operations: see
    /// [`Datagram::fill`](crate::request::Datagram::fill) and
    /// [`Datagram::fill_with`](crate::request::Datagram::fill_with).
    pub fn from_datagram(datagram: Datagram) -> Completion {
        let bytes = datagram.len();
        let (buffer, layout) = datagram.into_parts();
        let yields = match layout {
            Layout::Addressed => Yields::Datagram,
            Layout::Controlled => Yields::Message,
        };
        Completion::carrying(yields, bytes, buffer)
    }

    fn carrying(yields: Yields, bytes: usize, buffer: Buffer) -> Completion {
        let bytes = i32::try_from(bytes).unwrap_or(i32::MAX);
        let parts = buffer.into_parts();
        let flags = parts.as_ref().map_or(0, |(_, id)| F_BUFFER | u32::from(*id) << 16);
        let mut completion = Completion::carrying_nothing(yields, bytes, flags);
        if let Some((pool, _)) = parts {
            completion.carry_buffer(pool);
        }
        completion
    }

    /// What arrives with the data given to [`post`](crate::Submitter::post) or [`send`](crate::RingHandle::send), for
    /// tests of your own operations.
    pub fn message() -> Completion {
        Completion::from_result(Ok(0)).into_message()
    }

    /// The same completion with [`more`](Self::more) true, as for a stream that goes on, for tests of your own
    /// operations.
    pub fn with_more(self) -> Completion {
        self.announcing_more()
    }

    /// The same completion with [`timed_out`](Self::timed_out) true, for tests of your own operations.
    pub fn with_timed_out(self) -> Completion {
        self.timing_out()
    }

    /// Whether the request goes on: more completions will come, if the handler returns the data.
    #[inline]
    pub fn more(&self) -> bool {
        self.kind.has(Kind::MORE)
    }

    /// Whether this is not a completion of the kernel, but data from [`post`](crate::Submitter::post) or
    /// [`send`](crate::RingHandle::send).
    #[inline(always)]
    pub fn is_message(&self) -> bool {
        self.kind.0 & Kind::YIELDS == Kind::MESSAGE
    }

    /// Whether the request's [deadline](crate::Request::deadline) passed before the request was over, or the stream was
    /// [idle](crate::Stream::idle_limit) for too long, so that the kernel was told to cancel it.
    ///
    /// As after any cancel, [`result`](Self::result) may be `ECANCELED`, or say that a part was done, or all of it. See
    /// [`in_time`](Self::in_time) for a result that tells of the deadline.
    #[inline(always)]
    pub fn timed_out(&self) -> bool {
        self.kind.has(Kind::TIMED_OUT)
    }

    /// What the operation returned: for reads and writes the number of bytes, for polls the events.
    ///
    /// For a request that yields a descriptor, this is `Ok(0)`: only [`into_fd`](Self::into_fd) gives you the
    /// descriptor, as an owned value. ([`raw`](Self::raw) shows its number, but the completion still owns it.) For a
    /// timer that ran its time, this is `Ok(0)`, too.
    ///
    /// # Errors
    ///
    /// What the operation failed with. `ECANCELED` if it was cancelled. The kernel's internal codes (512 to 531,
    /// `ERESTARTSYS` and related ones), with which some operations end when they are cancelled, read as `ECANCELED`
    /// too.
    #[inline]
    pub fn result(&self) -> io::Result<u32> {
        match self.result {
            result if result >= 0 => Ok(result.unsigned_abs()),
            ETIME if self.kind.yields(Yields::Tick) => Ok(0),
            code if KERNELS_OWN.contains(&code) => Err(io::Error::from_raw_os_error(libc::ECANCELED)),
            errno => Err(io::Error::from_raw_os_error(errno.wrapping_neg())),
        }
    }

    /// The same [`result`](Self::result), except that an error is one of [`TimedOut`](io::ErrorKind::TimedOut) if the
    /// request has [timed out](Self::timed_out).
    ///
    /// A request that did a part of its work by then, or all of it, has its result all the same.
    ///
    /// # Errors
    ///
    /// Those of `result`, or `TimedOut`.
    #[inline]
    pub fn in_time(&self) -> io::Result<u32> {
        match self.result() {
            Err(_) if self.timed_out() => Err(io::ErrorKind::TimedOut.into()),
            result => result,
        }
    }

    /// Whether the request was cancelled before it could do anything: [`result`](Self::result) is
    /// `ECANCELED`.
    ///
    /// A request that was asked to end may still have succeeded, failed, or done a part of its work. One in which a
    /// worker of the kernel waited may have ended with `EINTR`; this is false for it.
    #[inline(always)]
    pub fn is_cancelled(&self) -> bool {
        self.result == CANCELLED || KERNELS_OWN.contains(&self.result)
    }

    /// Whether the request was cancelled, or interrupted while it waited: [`result`](Self::result) is `ECANCELED`
    /// or `EINTR`. A single request to receive, send, read, write or accept has done nothing then: submit it
    /// again, if that was not on purpose. (A `close` that is interrupted has closed, and a stream may have brought
    /// something before.)
    #[inline(always)]
    pub fn was_interrupted(&self) -> bool {
        self.is_cancelled() || self.result == -libc::EINTR
    }

    /// Whether the request, which receives into a buffer of a pool, has found none: [`result`](Self::result) is
    /// `ENOBUFS`. If there is [`more`](Self::more), the stream waits for one to come back.
    #[inline(always)]
    pub fn is_starved(&self) -> bool {
        self.result == -libc::ENOBUFS
    }

    /// The descriptor that was accepted or opened.
    ///
    /// # Errors
    ///
    /// What the operation failed with, or `InvalidInput` if the request does not yield a descriptor.
    #[inline]
    pub fn into_fd(self) -> io::Result<OwnedFd> {
        match self.carried_descriptor() {
            Some(descriptor) => {
                // The descriptor is moved out, and nothing else needs to be dropped.
                std::mem::forget(self);
                // SAFETY: this owned it, and has been forgotten.
                Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
            }
            None => self.into_no_fd(),
        }
    }

    #[cold]
    #[inline(never)]
    fn into_no_fd(self) -> io::Result<OwnedFd> {
        self.result().and(Err(carries_no("descriptor")))
    }

    /// The file or socket in the ring's table that was accepted or opened: see [`FixedFile`].
    ///
    /// # Errors
    ///
    /// What the operation failed with, or `InvalidInput` if the request does not yield such a file.
    pub fn into_fixed_file(self) -> io::Result<FixedFile> {
        let this = ManuallyDrop::new(self);
        match this.carried_file() {
            // SAFETY: `this` owned it, and is neither dropped nor used again.
            Some(file) => Ok(ManuallyDrop::into_inner(unsafe { ptr::read(file) })),
            None => ManuallyDrop::into_inner(this).into_no_file(),
        }
    }

    #[cold]
    fn into_no_file(self) -> io::Result<FixedFile> {
        self.result().and(Err(carries_no("file in the ring's table")))
    }

    /// The bytes that were received, in their buffer of the pool; empty at the end of a stream.
    ///
    /// # Errors
    ///
    /// What the operation failed with, or `InvalidInput` if the request does not receive from a pool.
    #[inline]
    pub fn into_buffer(self) -> io::Result<Buffer> {
        if self.result < 0 || !self.kind.carries(Yields::Buffer) {
            return self.into_no_buffer();
        }
        let bytes = self.result.unsigned_abs();
        // SAFETY: a buffer is carried.
        let (pool, id) = unsafe { self.into_carried_pool() };
        // SAFETY: the buffer was held for this completion.
        Ok(unsafe { Buffer::of(pool, id, bytes) })
    }

    /// The error for a completion that carries no buffer, or a buffer and an error.
    #[cold]
    #[inline(never)]
    fn into_no_buffer(self) -> io::Result<Buffer> {
        self.result()?;
        match self.kind.yields(Yields::Buffer) {
            true => Ok(Buffer::empty()),
            false => Err(carries_no("buffer")),
        }
    }

    /// The bytes that were received, in their buffers of the pool. There are several buffers if the stream is one of
    /// [bundles](crate::request::recv_multi_bundle), and one for any other request that receives from a pool. At the
    /// end of a stream there are no bytes.
    ///
    /// # Errors
    ///
    /// What the operation failed with, or `InvalidInput` if the request does not receive from a pool, or receives
    /// datagrams.
    pub fn into_buffers(self) -> io::Result<Buffers> {
        if !self.kind.yields(Yields::Bundle) {
            return self.into_buffer().map(Buffers::from);
        }
        let bytes = self.result()?;
        if !self.kind.carries(Yields::Bundle) {
            return Ok(Buffers::empty());
        }
        // SAFETY: buffers are carried.
        let (pool, first) = unsafe { self.into_carried_pool() };
        // SAFETY: they were held for this completion, for so many bytes.
        Ok(unsafe { Buffers::of(pool, first, bytes) })
    }

    /// The datagram that was received, in its buffer of the pool.
    ///
    /// # Errors
    ///
    /// What the operation failed with, or `InvalidInput` if the request does not receive
    /// [datagrams](crate::request::recv_from_multi).
    #[inline]
    pub fn into_datagram(self) -> io::Result<Datagram> {
        let bytes = self.result()?;
        let Some(layout) = self.layout() else { return Err(carries_no("datagram")) };
        if !self.kind.has(Kind::CARRIES) {
            return Ok(Datagram::in_buffer(Buffer::empty(), layout));
        }
        // SAFETY: a buffer is carried.
        let (pool, id) = unsafe { self.into_carried_pool() };
        // SAFETY: it was held for this completion.
        let buffer = unsafe { Buffer::of(pool, id, bytes.saturating_add(layout.overhead())) };
        Ok(Datagram::in_buffer(buffer, layout))
    }

    /// The pool of what is carried, and the number of the buffer, or of the first of several.
    ///
    /// # Safety
    ///
    /// Something is carried, and it is not a descriptor.
    #[inline(always)]
    unsafe fn into_carried_pool(self) -> (Lender, u16) {
        // The pool is moved out, and nothing else needs to be dropped.
        let this = ManuallyDrop::new(self);
        // SAFETY: what is carried and is not a descriptor is in a pool; `this` is not used again.
        let pool = unsafe { this.carried.assume_init_ref().pool };
        (pool, this.kind.buffer())
    }

    /// The layout of the datagram that the request yields, if it yields one.
    fn layout(&self) -> Option<Layout> {
        [Yields::Datagram, Yields::Message].into_iter().find(|it| self.kind.yields(*it)).and_then(layout)
    }

    /// The layout of the datagram that is carried, if one is.
    fn carried_layout(&self) -> Option<Layout> {
        self.layout().filter(|_| self.kind.has(Kind::CARRIES))
    }

    /// For a completion that carries a datagram of this layout: whether there is a sender's address or a byte.
    fn is_from_somebody(&self, layout: Layout) -> bool {
        // SAFETY: a datagram is carried, so there is a pool; neither this copy of it nor what is made of it is dropped.
        let pool = unsafe { self.carried.assume_init_ref().pool };
        // SAFETY: the buffer was held for this completion, which keeps it.
        let buffer = unsafe { Buffer::of(pool, self.kind.buffer(), layout.overhead()) };
        let datagram = ManuallyDrop::new(Datagram::in_buffer(buffer, layout));
        self.result > 0 || datagram.has_sender()
    }

    /// The entry as the kernel posted it, for what this type does not offer.
    pub fn raw(&self) -> RawCompletion {
        let Kind(kind) = self.kind;
        let result = match (self.carried_descriptor(), self.carried_file(), self.carried_layout()) {
            (Some(descriptor), ..) => descriptor,
            (_, Some(file), _) => file.index() as i32,
            (.., Some(layout)) if self.result >= 0 => self.result + layout.overhead() as i32,
            _ => self.result,
        };
        let flags = match self.carried_buffer() {
            Some((pool, id)) => kind & u32::from(u16::MAX) | u32::from(pool.kernels_number(id)) << 16,
            None => kind,
        };
        RawCompletion { result, flags: flags & !Kind::OURS }
    }
}

/// `IORING_CQE_F_BUFFER`.
const F_BUFFER: u32 = 1;

const ETIME: i32 = -libc::ETIME;
const CANCELLED: i32 = -libc::ECANCELED;

#[cold]
fn carries_no(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("the completion carries no {what}"))
}

impl fmt::Debug for Completion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Completion");
        debug.field("result", &self.result()).field("more", &self.more());
        if self.is_message() {
            debug.field("message", &true);
        }
        if self.timed_out() {
            debug.field("timed_out", &true);
        }
        if self.kind.has(Kind::CARRIES) {
            match self.carried_descriptor() {
                Some(descriptor) => debug.field("carries", &format_args!("descriptor {descriptor}")),
                None if self.kind.yields(Yields::Direct) => debug.field("carries", &"a file of the ring"),
                None => debug.field("carries", &format_args!("buffer {}", self.kind.buffer())),
            };
        }
        debug.finish()
    }
}
