//! The way in: how requests get from a handler, or from outside, to the submission queue.

use std::os::fd::AsFd;

use io_uring::squeue;

use crate::accept::{make_room, note_bound, release};
use crate::any_slab::AnySlab;
use crate::chain::Chain;
use crate::core::Core;
use crate::error::{InvalidEntry, Refused, SubmitError};
use crate::facts::{Facts, Flags};
use crate::fixed::{FixedBuffers, FixedFile};
use crate::handle::RingHandle;
use crate::mutant;
use crate::operation::RingOperation;
use crate::request::{self, Placed, Record, Request, Stream, sqe};
use crate::shape::Ring;
use crate::slab::{Occupied, State, Warm};
use crate::state::Inner;
use crate::streams::{end_pause, pause};
use crate::submitter::SubmissionQueueSubmitter;
use crate::tag::{Key, Tag};
use crate::user_data::UserData;
use crate::wave::{self, Candidate};

impl<R: Ring, Op: RingOperation<R>> SubmissionQueueSubmitter<'_, R, Op> {
    /// Submits a request: puts `data` into a slot, where it stays until the request is over, and
    /// builds the request from it there.
    ///
    /// The kernel gets the request when the ring next enters it. If the submission queue is full, the
    /// queue is flushed first; what still finds no room waits in the backlog, in order.
    ///
    /// For speed, call this directly in the handler, and let the data say what to request:
    /// `submitter.submit(connection, Connection::request)`, or `|it| it.request()` if the data is a
    /// `Box<Connection>`. A helper that takes the submitter and is called from two places, such as `setup`
    /// and `on_completion`, is usually not inlined, which doubles the instructions of a NOP. Let the helper
    /// return the data instead.
    ///
    /// # Errors
    ///
    /// See [`SubmitError`]. The data is dropped then; [`try_submit`](Self::try_submit) hands it back.
    ///
    /// # When the compiler says "borrowed data escapes" or "must outlive `'static`"
    ///
    /// The kernel uses what a request borrows for as long as it likes, so all of it must come from
    /// the request's data, or live for ever. A buffer or a descriptor that the *function* or the
    /// *operation* owns does not compile:
    ///
    /// ```compile_fail
    /// # use rummelplatz::{request, Ring, RingOperation, Submitter};
    /// # use std::os::fd::OwnedFd;
    /// # fn f<R: Ring, Op: RingOperation<R, RingData = OwnedFd>>(
    /// #     mut submitter: Submitter<'_, R, Op>, socket: OwnedFd) {
    /// let mut buffer = [0; 64];
    /// submitter.submit(socket, |socket| request::recv(socket, &mut buffer));
    /// // error[E0597]: `buffer` does not live long enough
    /// //     argument requires that `buffer` is borrowed for `'static`
    /// # }
    /// ```
    ///
    /// Move it into the data. If several requests use a descriptor, share it in an `Arc`:
    ///
    /// ```
    /// # use rummelplatz::{request, Ring, RingOperation, Submitter, SubmitError};
    /// # use std::os::fd::OwnedFd;
    /// struct Receive { socket: OwnedFd, buffer: Box<[u8]> }
    /// # fn f<R: Ring, Op: RingOperation<R, RingData = Receive>>(
    /// #     mut submitter: Submitter<'_, R, Op>, socket: OwnedFd) -> Result<(), SubmitError> {
    /// let data = Receive { socket, buffer: vec![0; 1024].into() };
    /// submitter.submit(data, |data| request::recv(&data.socket, &mut data.buffer))?;
    /// # Ok(()) }
    /// ```
    #[inline]
    pub fn submit(
        &mut self,
        data: Op::RingData,
        build: impl for<'d> FnOnce(&'d mut Op::RingData) -> Request<'d>,
    ) -> Result<Key<Op>, SubmitError> {
        self.accept(data, Flags::EMPTY, build).map_err(SubmitError::from)
    }

    /// As [`submit`](Self::submit), but the data of a request that is not accepted comes back.
    ///
    /// # Errors
    ///
    /// See [`SubmitError`].
    #[inline]
    pub fn try_submit(
        &mut self,
        data: Op::RingData,
        build: impl for<'d> FnOnce(&'d mut Op::RingData) -> Request<'d>,
    ) -> Result<Key<Op>, Refused<Op::RingData>> {
        self.accept(data, Flags::EMPTY, build)
    }

    /// Submits a request that nobody waits for.
    ///
    /// Its data is kept until the kernel is done, and then dropped; no handler is called. An error is counted
    /// in [`detached_failed`](crate::Stats::detached_failed). This is for what is rare: it takes several times as many
    /// instructions as `submit` with a handler that does nothing (`docs/performance.md`, "Trades").
    ///
    /// A [`send`](request::send), of whichever kind, goes out whole or fails (`MSG_WAITALL`, since 5.19). At
    /// teardown, detached requests are cancelled like all others.
    ///
    /// # Errors
    ///
    /// See [`SubmitError`].
    #[inline(always)]
    pub fn detach(
        &mut self,
        data: Op::RingData,
        build: impl for<'d> FnOnce(&'d mut Op::RingData) -> Request<'d>,
    ) -> Result<(), SubmitError> {
        self.accept_apart(data, Flags::DETACHED, |data| build(data).all_or_nothing())?;
        Ok(())
    }

    /// Submits a multishot request.
    ///
    /// `arm` is run on the data now, and again whenever the kernel has cut the stream and the handler has
    /// given the data back.
    ///
    /// ```
    /// # use rummelplatz::{request, Ring, RingOperation, Submitter};
    /// # use std::{io, net::TcpListener};
    /// # fn f<R: Ring, Op: RingOperation<R, RingData = TcpListener>>(
    /// #     mut submitter: Submitter<'_, R, Op>, listener: TcpListener) -> io::Result<()> {
    /// submitter.stream(listener, |listener| request::accept_multi(listener))?;
    /// # Ok(()) }
    /// ```
    ///
    /// `arm` can't capture anything: what it needs is in the data.
    ///
    /// # Errors
    ///
    /// See [`SubmitError`]. The data is dropped then; [`try_stream`](Self::try_stream) hands it back.
    #[inline(always)]
    pub fn stream(
        &mut self,
        data: Op::RingData,
        arm: for<'d> fn(&'d mut Op::RingData) -> Stream<'d>,
    ) -> Result<Key<Op>, SubmitError> {
        self.try_stream(data, arm).map_err(SubmitError::from)
    }

    /// As [`stream`](Self::stream), but the data of a stream that is not accepted comes back.
    ///
    /// # Errors
    ///
    /// See [`SubmitError`].
    #[inline(always)]
    pub fn try_stream(
        &mut self,
        data: Op::RingData,
        arm: for<'d> fn(&'d mut Op::RingData) -> Stream<'d>,
    ) -> Result<Key<Op>, Refused<Op::RingData>> {
        self.accept_stream(data, Flags::EMPTY, arm)
    }

    #[inline(always)]
    fn accept_stream(
        &mut self,
        data: Op::RingData,
        flags: Flags,
        arm: for<'d> fn(&'d mut Op::RingData) -> Stream<'d>,
    ) -> Result<Key<Op>, Refused<Op::RingData>> {
        let (inner, tag, warm) = self.apart();
        // SAFETY: the warm slot, if there is one, is of the slab of `tag`: see `apart`.
        unsafe { accept_stream(inner, tag, warm, (data,), flags, arm) }
    }

    /// Submits a request that does not keep the ring running: when only such requests are left, the ring ends as if
    /// nothing were in flight, and cancels them.
    ///
    /// For requests that wait for something which may never come, such as a signal, or that are only of use
    /// beside others, such as a timer for statistics. In a turned ring, such requests do not count for
    /// [`Status::Idle`](crate::Status::Idle).
    ///
    /// ```
    /// # use rummelplatz::{Completion, ControlFlow, RingOperation, Submitter, SubmitError, request, ring};
    /// # use std::time::Duration;
    /// # #[ring]
    /// # struct Server { work: Work, limit: Limit }
    /// # #[derive(RingOperation)]
    /// # #[ring_operation(error = SubmitError, setup)]
    /// # struct Work;
    /// # impl Work {
    /// #     fn setup<R: rummelplatz::Ring>(&mut self, mut submitter: Submitter<'_, R, Self>) -> Result<(), SubmitError> {
    /// #         submitter.submit((), |()| request::nop()).map(drop)
    /// #     }
    /// # }
    /// # #[derive(RingOperation)]
    /// # #[ring_operation(ring = Server, error = SubmitError, setup, on_completion)]
    /// # struct Limit;
    /// impl Limit {
    ///     fn setup(&mut self, mut submitter: Submitter<'_, Server, Self>) -> Result<(), SubmitError> {
    ///         // Ends with the work, however early that is done.
    ///         submitter.submit_in_background((), |()| request::timeout(Duration::from_secs(60)))?;
    ///         Ok(())
    ///     }
    ///
    ///     fn on_completion(&mut self, _: Completion, (): (), _: Submitter<'_, Server, Self>) -> ControlFlow {
    ///         ControlFlow::Exit
    ///     }
    /// }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # Server::builder(Work, Limit).build()?.run()?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// See [`SubmitError`]. The data is dropped then.
    #[inline(always)]
    pub fn submit_in_background(
        &mut self,
        data: Op::RingData,
        build: impl for<'d> FnOnce(&'d mut Op::RingData) -> Request<'d>,
    ) -> Result<Key<Op>, SubmitError> {
        self.accept_apart(data, Flags::BACKGROUND, build)
    }

    /// As [`submit_in_background`](Self::submit_in_background), for a [`stream`](Self::stream).
    ///
    /// # Errors
    ///
    /// See [`SubmitError`]. The data is dropped then.
    #[inline(always)]
    pub fn stream_in_background(
        &mut self,
        data: Op::RingData,
        arm: for<'d> fn(&'d mut Op::RingData) -> Stream<'d>,
    ) -> Result<Key<Op>, SubmitError> {
        self.accept_stream(data, Flags::BACKGROUND, arm).map_err(SubmitError::from)
    }

    /// Begins a chain: requests that are done one after the other.
    ///
    /// Each request begins when the one before it has ended. The chain reaches the kernel whole, when its
    /// last request [is submitted](Chain::submit), and takes as many entries of the submission queue as it has
    /// requests and deadlines.
    ///
    /// Each request has its own data and its own completion; with [`to`](Chain::to), they can be of several
    /// operations. If a [linked](Chain::link) request fails, those after it end with `ECANCELED`. A cancel of
    /// a request that has not begun waits until it has: cancel the one before it instead. Of a chain that is
    /// dropped before it is submitted, nothing is done.
    ///
    /// The kernel prepares the whole chain when it is submitted, before it begins with the first request. A
    /// request that it cannot prepare ends with the reason, and all others end with `ECANCELED`, including
    /// those before it, however they are linked. This applies to what is wrong with the request itself: an
    /// opcode that the kernel does not know, a path that is too long or empty (`ENAMETOOLONG`, `ENOENT`).
    /// What turns out only when the request is done, such as a file that does not exist, ends only the
    /// requests after it.
    ///
    /// If the last request has ended with `ECANCELED`, one before it has failed or did less than all, or the
    /// last one itself was cancelled: the completions of the others tell which. Nothing should depend on the
    /// order of the completions.
    ///
    /// ```
    /// # use rummelplatz::{request, Request, Ring, RingOperation, Submitter, SubmitError, Tag};
    /// # use std::{fs::File, sync::Arc};
    /// struct Record { log: Arc<File>, line: Vec<u8> }
    ///
    /// impl Record {
    ///     fn write(&mut self) -> Request<'_> {
    ///         request::write(&*self.log, &self.line)
    ///     }
    /// }
    /// # fn f<R: Ring, A: RingOperation<R, RingData = Record>, B: RingOperation<R, RingData = Arc<File>>>(
    /// #     mut submitter: Submitter<'_, R, A>, SYNCS: Tag<R, B>, log: Arc<File>) -> Result<(), SubmitError> {
    ///
    /// let mut chain = submitter.chain();
    /// for line in ["one\n", "two\n"] {
    ///     chain.link(Record { log: log.clone(), line: line.into() }, Record::write)?;
    /// }
    /// // Not before both are written.
    /// chain.to(SYNCS).submit(log, |log| request::fdatasync(log))?;
    /// # Ok(()) }
    /// ```
    #[doc(alias = "IOSQE_IO_LINK")]
    pub fn chain(&mut self) -> Chain<'_, R, Op> {
        let tag = self.tag();
        Chain::new(self.inner(), tag)
    }

    /// Gives data to the operation, without the kernel.
    ///
    /// The operation's handler is called with the data after the running handler, and
    /// [`is_message`](crate::Completion::is_message) is true.
    ///
    /// ```
    /// # use rummelplatz::{Ring, RingOperation, Submitter, SubmitError, Tag};
    /// # fn f<R: Ring, A: RingOperation<R>, B: RingOperation<R, RingData = String>>(
    /// #     mut submitter: Submitter<'_, R, A>, LOG: Tag<R, B>) -> Result<(), SubmitError> {
    /// submitter.to(LOG).post("a client came".to_owned())?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// See [`SubmitError`]; never [`Full`](SubmitError::Full).
    pub fn post(&mut self, data: Op::RingData) -> Result<(), SubmitError> {
        self.try_post(data).map_err(SubmitError::from)
    }

    /// As [`post`](Self::post), but data that is not accepted comes back.
    ///
    /// # Errors
    ///
    /// See [`SubmitError`]; never [`Full`](SubmitError::Full).
    pub fn try_post(&mut self, data: Op::RingData) -> Result<(), Refused<Op::RingData>> {
        let user_data = self.place_message(data)?;
        self.inner().core.end_without_kernel(user_data, 0);
        Ok(())
    }

    /// As [`post`](Self::post), but after everything else.
    ///
    /// The handler is called when all completions and messages that are there have been delivered, before the
    /// kernel is entered again. Use this to do something once for all of them.
    ///
    /// ```
    /// # use rummelplatz::{Ring, RingOperation, Submitter, SubmitError};
    /// # struct Log { lines: Vec<String>, is_due: bool }
    /// # impl Log {
    /// # fn f<R: Ring, Op: RingOperation<R, RingData = ()>>(&mut self, mut submitter: Submitter<'_, R, Op>, line: String)
    /// #     -> Result<(), SubmitError> {
    /// self.lines.push(line);
    /// // The first of a batch has all be written together.
    /// if !std::mem::replace(&mut self.is_due, true) {
    ///     submitter.post_last(())?;
    /// }
    /// # Ok(()) } }
    /// ```
    ///
    /// If a handler that is called for such a message calls `post_last` again, that message is delivered
    /// after the ring has entered the kernel once more. In a teardown, this is the same as `post`.
    ///
    /// # Errors
    ///
    /// See [`SubmitError`]; never [`Full`](SubmitError::Full).
    pub fn post_last(&mut self, data: Op::RingData) -> Result<(), SubmitError> {
        self.try_post_last(data).map_err(SubmitError::from)
    }

    /// As [`post_last`](Self::post_last), but data that is not accepted comes back.
    ///
    /// # Errors
    ///
    /// See [`SubmitError`]; never [`Full`](SubmitError::Full).
    pub fn try_post_last(&mut self, data: Op::RingData) -> Result<(), Refused<Op::RingData>> {
        let user_data = self.place_message(data)?;
        let core = &mut self.inner().core;
        match core.phase.is_teardown() {
            true => core.end_without_kernel(user_data, 0),
            false => core.deliver_last(user_data),
        }
        Ok(())
    }

    /// Accepts a message that is still to be queued for delivery. Returns its `user_data`.
    fn place_message(&mut self, data: Op::RingData) -> Result<u64, Refused<Op::RingData>> {
        let tag = self.tag();
        let Inner { core, slabs, .. } = self.inner();
        let slab = tag.slab(slabs);
        let reserve = |()| slab.reserve().map_err(|_| SubmitError::TooManyRequests);
        if let Err(error) = core.accepts().and_then(reserve) {
            return Err(Refused { data, error });
        }
        let user_data = request::place_message(slab, data, core.terms(Flags::EMPTY));
        core.count(Flags::EMPTY);
        Ok(user_data)
    }

    /// Submits a raw entry, tracked like any other request.
    ///
    /// The entry's `user_data` is replaced, its data comes with the completion, and it is cancelled and
    /// awaited at teardown.
    ///
    /// Completions that are not final (`IORING_CQE_F_MORE`) are held back: the handler is called once, with
    /// the first result, when the kernel is done. A descriptor in the result is owned by the completion,
    /// unless the entry asked for a direct one.
    ///
    /// # Errors
    ///
    /// See [`SubmitError`]. [`Invalid`](SubmitError::Invalid) for an entry that would break the
    /// accounts: `IOSQE_CQE_SKIP_SUCCESS`, `IOSQE_IO_DRAIN`, a link to what follows, a change of
    /// another request's `user_data`.
    ///
    /// # Safety
    ///
    /// Memory that the entry points to must be owned by `data`, at an address that survives a move of
    /// `data` (on the heap; not inline, not borrowed), or live for ever; and nobody may touch it until
    /// the final completion. The same holds for its descriptors.
    ///
    /// The entry must not do what no safe request could do to others. Above all, no message to a ring of this
    /// crate (`IORING_OP_MSG_RING`) may carry the `user_data` of a request that is in flight there: that ring
    /// would take it for the completion of the request, and free memory that the kernel still uses. Nor may
    /// an entry close a descriptor that others own, or put another in its place.
    // Inlined, so that for an entry that is made in place, the compiler knows the answers to these checks.
    #[inline(always)]
    pub unsafe fn push(
        &mut self,
        entry: squeue::Entry,
        data: Op::RingData,
    ) -> Result<Key<Op>, Refused<Op::RingData>> {
        if let Err(error) = check_tracked(&entry).and_then(|()| check_last(&entry)) {
            return Err(Refused { data, error });
        }
        // SAFETY: the caller promises that what the entry names is owned by the data, at an address that
        // survives a move, or lives for ever, and that nobody touches it until the final completion; and that
        // the entry does nothing to others that a safe request could not do.
        self.accept(data, Flags::EMPTY, |_| unsafe { Request::vouched(entry) })
    }

    /// Submits raw entries, all or none. If they are linked (`IOSQE_IO_LINK`, `IOSQE_IO_HARDLINK`),
    /// the chain reaches the kernel whole.
    ///
    /// # Errors
    ///
    /// As [`push`](Self::push); also [`Invalid`](SubmitError::Invalid) for a chain that is longer than
    /// the submission queue, or whose last entry has a link.
    ///
    /// # Safety
    ///
    /// As [`push`](Self::push), for each entry and the data at the same index.
    pub unsafe fn push_multiple<const N: usize>(
        &mut self,
        entries: [squeue::Entry; N],
        data: [Op::RingData; N],
    ) -> Result<[Key<Op>; N], Refused<[Op::RingData; N]>> {
        let tag = self.tag();
        let Inner { core, slabs, .. } = self.inner();
        let slab = tag.slab(slabs);
        let linked = entries.iter().any(|entry| sqe::flags(entry).intersects(LINKS));
        let checked = entries.iter().try_for_each(check_tracked);
        let admitted = checked
            .and_then(|()| entries.last().map_or(Ok(()), check_last))
            .and_then(|()| match linked && N > core.queue.capacity() {
                true => Err(SubmitError::Invalid(InvalidEntry::ChainTooLong)),
                false => core.admit(N),
            })
            .and_then(|()| match slab.has_room(N) {
                true => Ok(()),
                false => Err(SubmitError::TooManyRequests),
            });
        if let Err(error) = admitted {
            return Err(Refused { data, error });
        }

        let mut entries = entries.into_iter();
        let mut chain = Vec::with_capacity(if linked { N } else { 0 });
        let keys = data.map(|data| {
            let (Some(entry), Ok(())) = (entries.next(), slab.reserve()) else {
                unreachable!("as many entries as data, and room was made for all");
            };
            let (identity, placed, _) = request::place(slab, data, core.terms(Flags::EMPTY), |_| {
                // SAFETY: the caller promises that what the entry names is owned by the data at the same
                // index, at an address that survives a move, or lives for ever, and that nobody touches it
                // until the final completion; and that the entry does nothing to others that a safe request
                // could not do.
                unsafe { Request::vouched(entry) }
            });
            core.count(Flags::EMPTY);
            if linked {
                chain.push(placed)
            } else {
                core.push(placed)
            }
            Key::new(core.serial, identity)
        });
        core.push_chain(chain.into_iter());
        Ok(keys)
    }

    /// Submits a raw entry that is not tracked at all.
    ///
    /// Its `user_data` becomes 0, and its completion is ignored.
    ///
    /// # Errors
    ///
    /// See [`SubmitError`]; [`Invalid`](SubmitError::Invalid) for `IOSQE_IO_DRAIN`, a link to what
    /// follows, and a change of another request's `user_data`.
    ///
    /// # Safety
    ///
    /// Memory and descriptors that the entry names must live for ever, untouched: nothing says when
    /// the kernel is done, and a teardown does not wait for it.
    ///
    /// As for [`push`](Self::push), the entry must not do what no safe request could do to others.
    pub unsafe fn push_raw(&mut self, entry: squeue::Entry) -> Result<(), SubmitError> {
        check_raw(&entry)?;
        check_last(&entry)?;
        let core = &mut self.inner().core;
        core.admit(1)?;
        // SAFETY: the caller promises that what the entry names lives for ever, untouched, and that the entry
        // does nothing to others that a safe request could not do.
        core.push(unsafe { Placed::vouched(entry, 0) });
        Ok(())
    }

    /// Registers buffers with this ring, so that its requests can use them: see [`FixedBuffers`].
    ///
    /// Nothing happens if they are registered with it already. A ring can have at most 256 sets; they are
    /// given back when the ring has finished.
    ///
    /// ```
    /// # use rummelplatz::{FixedBuffer, FixedBuffers, FixedFile, request, Ring, RingOperation, Submitter};
    /// # use std::{fs::File, io};
    /// struct Block { file: FixedFile, buffer: FixedBuffer }
    /// # fn f<R: Ring, Op: RingOperation<R, RingData = Block>>(
    /// #     mut submitter: Submitter<'_, R, Op>, file: File, buffers: FixedBuffers) -> io::Result<()> {
    /// submitter.register_buffers(&buffers)?;
    /// let file = submitter.register_file(&file)?;
    /// while let Some(buffer) = buffers.take() {
    ///     let block = Block { file: file.clone(), buffer };
    ///     submitter.submit(block, |block| request::read_fixed(&block.file, &mut block.buffer))?;
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`PoolInUse`](SubmitError::PoolInUse) if another ring has them;
    /// [`PoolRefused`](SubmitError::PoolRefused) if the kernel refuses: `ENOMEM` beyond `RLIMIT_MEMLOCK`,
    /// `EMFILE` beyond 256 sets, `EEXIST` in another thread than the ring's, `EINVAL` before Linux 5.19.
    pub fn register_buffers(&mut self, buffers: &FixedBuffers) -> Result<(), SubmitError> {
        self.inner().core.adopt_memory(buffers)
    }

    /// Registers a file with this ring: see [`FixedFile`].
    ///
    /// `file` may be closed afterwards. A ring can have at most 4096 files, and no more than `RLIMIT_NOFILE`;
    /// those that are left are given back when the ring has finished.
    ///
    /// # Errors
    ///
    /// [`PoolRefused`](SubmitError::PoolRefused) if the kernel refuses: `EMFILE` beyond that number, `EEXIST`
    /// in another thread than the ring's, `EINVAL` before Linux 5.19.
    pub fn register_file(&mut self, file: impl AsFd) -> Result<FixedFile, SubmitError> {
        self.inner().core.adopt_file(file.as_fd())
    }

    /// Closes a registered file.
    ///
    /// # Errors
    ///
    /// Hands the file back if it is not registered with this ring (any more), if this is another thread than
    /// the ring's, or if there is another clone of it, such as one in the data of a request in flight.
    pub fn unregister_file(&mut self, file: FixedFile) -> Result<(), FixedFile> {
        self.inner().core.expel_file(file)
    }

    /// Asks the kernel to cancel a request (`IORING_OP_ASYNC_CANCEL`, since 5.5).
    ///
    /// If the kernel does not find the request, it is asked again and again (unless it allows the ring no
    /// timers). The request's completion comes as always: with `ECANCELED`; with `EINTR` if a worker of the
    /// kernel was interrupted in it; or, if the kernel was faster, with its result, which may also be that of a
    /// part of it. A stream first delivers what it still carries.
    ///
    /// Returns false if the request is over. A key never matches another request.
    #[doc(alias = "async_cancel")]
    #[inline(always)]
    pub fn cancel(&mut self, key: Key<Op>) -> bool {
        let (inner, tag, warm) = self.apart();
        // SAFETY: the warm slot, if there is one, is of the slab of `tag`: see `apart`.
        unsafe { act_on(inner, tag, warm, key, cancel) }
    }

    /// In the handler of a stream, asks the kernel to end that stream, as [`cancel`](Self::cancel) does with
    /// its key.
    ///
    /// If the handler gives the data back, the final completion comes with it, as always; if not, nobody is
    /// told of it.
    ///
    /// ```
    /// # use rummelplatz::{Buffer, Ring, RingOperation, Submitter};
    /// # fn f<R: Ring, Op: RingOperation<R>>(mut submitter: Submitter<'_, R, Op>, buffer: &Buffer) {
    /// if buffer.ends_with(b"\n") {
    ///     // What comes next is received by somebody else, when the stream has ended.
    ///     submitter.end_stream();
    /// }
    /// # }
    /// ```
    ///
    /// Returns false if somebody has asked for the stream's end before, if the handler is called with
    /// something that has ended, or with something that is no stream; outside of handlers; and on the
    /// submitter of [another operation](Self::to).
    pub fn end_stream(&mut self) -> bool {
        self.act_on_lent(|core, mut slot| {
            !slot.peek().facts.flags.intersects(Flags::CANCELLED) && cancel(core, slot)
        })
    }

    /// Pauses a stream: until it is [resumed](Self::resume), the kernel does not have it, and receives or accepts
    /// nothing for it. What comes meanwhile waits where it would without a stream: bytes and connections in the
    /// socket, so that a peer that sends too much has to wait.
    ///
    /// The kernel is asked to cancel the stream when the ring next enters it. What it has received by then is still
    /// delivered, which may be as much as the pool had buffers for, or as many connections as were waiting. Nobody is
    /// told of the answer to the cancel. Pausing and resuming cost two entries: for what lasts only until the handler
    /// returns, hold the data back yourself.
    ///
    /// Here a server has at most two clients. Others wait until one of them has gone:
    ///
    /// ```
    /// use rummelplatz::{Completion, Key, RingOperation, Submitter, request, ring};
    /// use std::{error::Error, io, net::{TcpListener, TcpStream}};
    /// # use std::{io::{Read, Write}, thread};
    ///
    /// #[ring]
    /// struct Server { acceptor: Acceptor, clients: Clients }
    ///
    /// #[derive(RingOperation)]
    /// #[ring_operation(ring = Server, data = TcpListener, error = io::Error, on_more, on_final)]
    /// struct Acceptor;
    ///
    /// impl Acceptor {
    ///     fn on_more(&mut self, completion: Completion, _: &mut TcpListener, mut submitter: Submitter<'_, Server, Self>)
    ///         -> io::Result<()>
    ///     {
    ///         let client = completion.into_fd()?.into();
    ///         let mut clients = submitter.to(Server::CLIENTS);
    ///         clients.submit((client, [0; 64]), |(client, buffer)| request::recv(client, buffer))?;
    ///         // Clients that the kernel has accepted already are still to come, and are served, too.
    ///         if clients.in_flight() >= 2 {
    ///             submitter.pause_stream();
    ///         }
    ///         Ok(())
    ///     }
    ///
    ///     fn on_final(&mut self, completion: Completion, _: TcpListener, _: Submitter<'_, Server, Self>) -> io::Result<()> {
    ///         completion.result().map(drop)
    ///     }
    /// }
    ///
    /// #[derive(RingOperation)]
    /// #[ring_operation(ring = Server, data = (TcpStream, [u8; 64]), on_completion)]
    /// struct Clients { accepted: Option<Key<Acceptor>> }
    ///
    /// impl Clients {
    ///     fn on_completion(
    ///         &mut self,
    ///         completion: Completion,
    ///         (client, buffer): (TcpStream, [u8; 64]),
    ///         mut submitter: Submitter<'_, Server, Self>,
    ///     ) {
    ///         // … what the client wanted.
    ///         # let said = buffer[..completion.result().unwrap_or(0) as usize].to_owned();
    ///         drop(client);
    ///         if let Some(accepted) = self.accepted && submitter.in_flight() < 2 {
    ///             submitter.to(Server::ACCEPTOR).resume(accepted);
    ///         }
    ///         # if said == b"end" { submitter.handle().stop(); }
    ///     }
    /// }
    ///
    /// fn main() -> Result<(), Box<dyn Error>> {
    ///     let mut server = Server::builder(Acceptor, Clients { accepted: None }).build()?;
    ///     # let listener = TcpListener::bind("127.0.0.1:0")?;
    ///     # let address = listener.local_addr()?;
    ///     # let peers = thread::spawn(move || -> io::Result<()> {
    ///     #     let mut clients = Vec::new();
    ///     #     for _ in 0..6 { clients.push(TcpStream::connect(address)?); }
    ///     #     for mut client in clients { client.write_all(b"hello")?; while client.read(&mut [0])? > 0 {} }
    ///     #     TcpStream::connect(address)?.write_all(b"end")
    ///     # });
    ///     # /*
    ///     let listener = TcpListener::bind("[::1]:7777")?;
    ///     # */
    ///     let accepted =
    ///         server.submitter(Server::ACCEPTOR).stream(listener, |listener| request::accept_multi(listener))?;
    ///     server.clients.accepted = Some(accepted);
    ///     server.run()?;
    ///     # peers.join().unwrap()?;
    ///     Ok(())
    /// }
    /// ```
    ///
    /// While the kernel has not answered yet, the stream goes on like any other: it may be cut, end by itself, or even
    /// be resumed. Then:
    ///
    /// * One that waits for a buffer or [rests](Stream::retry_after) can be paused, too, and has no more to wait for if
    ///   that is over when it is resumed.
    /// * One that [is cancelled](Self::cancel), or whose data its handler keeps, ends, as always. So do those that are
    ///   left when the ring is torn down, with `ECANCELED`.
    /// * The pause does not count for its [limit for being idle](Stream::idle_limit).
    /// * As soon as the kernel does not have it any more, it does not keep the ring running, like a request
    ///   [in the background](Self::submit_in_background): only something else could resume it.
    ///
    /// Returns false, without any effect, if the request is over, or its end was asked for; if it is no stream; if it is
    /// paused already; in a teardown.
    #[doc(alias = "backpressure")]
    #[inline(always)]
    pub fn pause(&mut self, key: Key<Op>) -> bool {
        let (inner, tag, warm) = self.apart();
        // SAFETY: the warm slot, if there is one, is of the slab of `tag`: see `apart`.
        unsafe { act_on(inner, tag, warm, key, pause) }
    }

    /// In the handler of a stream, pauses that stream, as [`pause`](Self::pause) does with its key.
    ///
    /// Here a proxy does not receive more from one side while the other side is slow:
    ///
    /// ```
    /// # use rummelplatz::{Buffer, Key, Ring, RingOperation, Submitter};
    /// # use std::collections::VecDeque;
    /// const MOST: usize = 16;
    /// # struct Proxy<Op> { to_send: VecDeque<Buffer>, received: Key<Op> }
    /// # impl<Op> Proxy<Op> {
    /// # fn f<R: Ring>(&mut self, mut submitter: Submitter<'_, R, Op>, buffer: Buffer) where Op: RingOperation<R> {
    ///
    /// // When something was received:
    /// self.to_send.push_back(buffer);
    /// if self.to_send.len() >= MOST {
    ///     submitter.pause_stream();
    /// }
    /// # }
    /// # fn g<R: Ring>(&mut self, mut submitter: Submitter<'_, R, Op>) where Op: RingOperation<R> {
    ///
    /// // When something was sent:
    /// if self.to_send.len() < MOST / 2 {
    ///     submitter.resume(self.received);
    /// }
    /// # } }
    /// ```
    ///
    /// Returns false, without any effect, where `pause` does; also if the handler is called with something that has
    /// ended, or with something that is no stream; outside of handlers; and on the submitter of
    /// [another operation](Self::to).
    pub fn pause_stream(&mut self) -> bool {
        self.act_on_lent(pause)
    }

    /// Lets a stream go on that was [paused](Self::pause).
    ///
    /// It is armed again by its function, on the data as it is now, as after a cut; if the kernel has not answered to the
    /// pause yet, when it has. A limit of ticks or [bytes](Stream::limit) goes on with what was left; the interval of a
    /// timer begins anew. If it can't be armed, the stream ends with the error.
    ///
    /// Returns false, without any effect, if the request is over, or its end was asked for; if it is not paused; in a
    /// teardown.
    #[inline(always)]
    pub fn resume(&mut self, key: Key<Op>) -> bool {
        let (inner, tag, warm) = self.apart();
        // SAFETY: the warm slot, if there is one, is of the slab of `tag`: see `apart`.
        unsafe { act_on(inner, tag, warm, key, end_pause) }
    }

    /// Does something with the stream whose handler is running, if that is a stream of this operation; otherwise
    /// returns false.
    fn act_on_lent(&mut self, act: impl FnOnce(&mut Core, Occupant<'_, Op::RingData>) -> bool) -> bool {
        let tag = self.tag();
        let Inner { core, slabs, .. } = self.inner();
        let Some(lent) = &core.lent else { return false };
        // SAFETY: the value was lent by one of this ring's slabs, which exist as long as the core does. Core
        // and slabs are borrowed exclusively, so nobody writes to them now.
        let user_data = unsafe { lent.user_data() };
        // The tag is a part of the `user_data`: in the slab of another operation, no slot has that name.
        tag.slab(slabs).find(user_data).is_some_and(|slot| act(core, slot))
    }

    /// Asks the kernel to cancel all requests of this operation, which does not include messages. Returns how
    /// many those are.
    pub fn cancel_all(&mut self) -> usize {
        let tag = self.tag();
        let Inner { core, slabs, .. } = self.inner();
        let slab = tag.slab(slabs);
        let mut candidates = Vec::with_capacity(slab.occupied_slots());
        slab.for_each(|user_data, record| candidates.push(Candidate::new(user_data, &record.facts)));
        wave::arrange(&mut candidates);
        candidates.retain(|it| slab.find(it.user_data).is_some_and(|slot| cancel(core, slot)));
        candidates.len()
    }

    /// How many requests of this operation have not ended, including messages and those that wait.
    ///
    /// This visits every slot that was ever used: if you need the number at each completion, keep a count of
    /// your own. In a handler, the request that it is called for does not count any more, unless it [goes
    /// on](crate::Completion::more).
    ///
    /// ```
    /// # use rummelplatz::{Ring, RingOperation, Submitter};
    /// # fn f<R: Ring, Op: RingOperation<R>>(mut submitter: Submitter<'_, R, Op>) {
    /// if submitter.in_flight() == 0 {
    ///     println!("the last connection has ended");
    /// }
    /// # }
    /// ```
    pub fn in_flight(&mut self) -> usize {
        let tag = self.tag();
        AnySlab::in_flight(tag.slab(&mut self.inner().slabs))
    }

    /// The submitter of another operation of this ring.
    #[inline]
    pub fn to<Other: RingOperation<R>>(
        &mut self,
        tag: Tag<R, Other>,
    ) -> SubmissionQueueSubmitter<'_, R, Other> {
        SubmissionQueueSubmitter::new(self.inner(), tag)
    }

    /// A weak handle to the ring, for other threads.
    pub fn handle(&mut self) -> RingHandle<R> {
        let core = &mut self.inner().core;
        if !core.is_forked() {
            core.arm_wake();
        }
        RingHandle::new(&core.shared, false)
    }

    /// The ring behind the submitter, after the warm slot was released, so that the slab is as it looks. For
    /// everything but the short path of a request.
    #[inline(always)]
    fn inner(&mut self) -> &mut Inner<R> {
        let tag = self.tag();
        let (inner, warm) = self.open();
        if let Some(warm) = warm {
            // SAFETY: the slot, if there is one, is of the slab of `tag`, as whoever made this submitter has
            // promised.
            unsafe { release(inner, tag, warm.take()) };
        }
        inner
    }
}

const LINKS: squeue::Flags = squeue::Flags::IO_LINK.union(squeue::Flags::IO_HARDLINK);

/// Refuses an entry that does what no entry may do to other requests.
fn check_raw(entry: &squeue::Entry) -> Result<(), SubmitError> {
    if sqe::flags(entry).contains(squeue::Flags::IO_DRAIN) {
        return Err(SubmitError::Invalid(InvalidEntry::Drains));
    }
    if sqe::updates_user_data(entry) {
        return Err(SubmitError::Invalid(InvalidEntry::ChangesUserData));
    }
    Ok(())
}

fn check_tracked(entry: &squeue::Entry) -> Result<(), SubmitError> {
    check_raw(entry)?;
    match sqe::flags(entry).contains(squeue::Flags::SKIP_SUCCESS) {
        true => Err(SubmitError::Invalid(InvalidEntry::SkipsSuccess)),
        false => Ok(()),
    }
}

fn check_last(entry: &squeue::Entry) -> Result<(), SubmitError> {
    match sqe::flags(entry).intersects(LINKS) {
        true => Err(SubmitError::Invalid(InvalidEntry::LinksOn)),
        false => Ok(()),
    }
}

/// Accepts a stream. The warm slot is released.
///
/// # Safety
///
/// The same as for [`release`].
#[inline(never)]
unsafe fn accept_stream<R: Ring, Op: RingOperation<R>>(
    inner: &mut Inner<R>,
    tag: Tag<R, Op>,
    warm: Warm,
    (data,): (Op::RingData,),
    flags: Flags,
    arm: for<'d> fn(&'d mut Op::RingData) -> Stream<'d>,
) -> Result<Key<Op>, Refused<Op::RingData>> {
    // SAFETY: the caller promises that the slot, if there is one, is of the slab of `tag`.
    unsafe { release(inner, tag, warm) };
    let Inner { core, slabs, .. } = inner;
    let slab = tag.slab(slabs);
    if let Err(error) = make_room(core, slab) {
        return Err(Refused { data, error });
    }
    let (identity, mut placed, idle_limit) = request::place_stream(slab, data, core.terms(flags), arm);
    let bound = core.bind_stream(&mut placed);
    note_bound(slab, placed.user_data(), bound)?;
    core.count(flags);
    core.push(placed);
    let key = Key::new(core.serial, identity);
    if let Some(limit) = idle_limit {
        inner.keep_idle_limit(identity, limit);
    }
    Ok(key)
}

/// A request and its data.
type Occupant<'s, D> = Occupied<'s, D, Record<D>>;

/// Does something with the request of this key, if there is one; otherwise returns false. The warm slot is released.
///
/// # Safety
///
/// The same as for [`release`].
#[cold]
#[inline(never)]
unsafe fn act_on<R: Ring, Op: RingOperation<R>>(
    inner: &mut Inner<R>,
    tag: Tag<R, Op>,
    warm: Warm,
    key: Key<Op>,
    act: fn(&mut Core, Occupant<'_, Op::RingData>) -> bool,
) -> bool {
    // SAFETY: the caller promises that the slot, if there is one, is of the slab of `tag`.
    unsafe { release(inner, tag, warm) };
    let Inner { core, slabs, .. } = inner;
    if key.ring != core.serial || UserData::tag(key.identity.user_data) != tag.number() {
        return false;
    }
    let slot = tag.slab(slabs).find_identity(key.identity);
    slot.is_some_and(|slot| act(core, slot))
}

/// Cancels the request in a slot. Returns false if there is nothing to cancel.
fn cancel<D>(core: &mut Core, mut slot: Occupant<'_, D>) -> bool {
    if core.shared.is_forked() {
        return false;
    }
    let user_data = slot.user_data();
    let state = slot.state();
    let Facts { flags, .. } = &mut slot.demote().facts;
    if flags.intersects(Flags::MESSAGE | Flags::IN_CHAIN) {
        return false;
    }
    let (already, is_stream) = (flags.intersects(Flags::CANCELLED), flags.intersects(Flags::STREAM));
    if !mutant::is("a cancel leaves no mark") {
        flags.insert(Flags::CANCELLED);
    }
    if flags.intersects(Flags::PAUSED) {
        core.end_pause(user_data, flags, false);
    }
    if !flags.intersects(Flags::PARKED) {
        if is_stream { core.cancel_stream(user_data) } else { core.cancel(user_data) }
    } else if state == State::Live && !already && !core.phase.is_teardown() {
        core.resting.remove(user_data);
        core.end_without_kernel(user_data, -libc::ECANCELED);
    }
    // Of the other parked streams, one whose data is lent ends when its handler returns, one that was
    // cancelled before is ending already, and a teardown has ended all the rest.
    true
}
