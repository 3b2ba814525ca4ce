//! Pools whose buffers are used up piece by piece (`IOU_PBUF_RING_INC`).
//!
//! The kernel keeps the next buffer after it has put bytes into it, and goes on behind them: for whatever request
//! comes next. It does not say where the bytes of a completion are. They come to lie one after the other, so that is
//! known from those before them, of all requests that receive from the pool.
//!
//! ```text
//!   pieces that were told of            what is taken  what is free
//!  ├───────┼─────────────┼──────┤······················├──────────────────┤
//!  0      (lengths add up)     told ≤ where the kernel is, in the ring's entry  size
//! ```
//!
//! # Why the sum is right
//!
//! * Completions come in the order in which the bytes were taken. Both are done under one lock of the kernel
//!   (`uring_lock`): what was put off is posted before the lock is left, and before the next completion of a stream
//!   (since 6.15). Once a completion did not fit into the queue, all later ones line up behind it. Hence pools of this
//!   kind are for 6.18 and later, and they are asked for each completion in the order of the queue.
//! * The result is what was taken. For a single request it need not be: in a worker, the kernel takes what the request
//!   has asked for *before* it receives, and that may be more than comes. So there are only streams
//!   (`Usual::takes_pieces`), which no worker receives for; or if one does (from a terminal that had to be polled too
//!   often), it takes all the rest.
//! * A completion that the kernel has lost (`EBADR`) takes its length with it. It is counted before the next one is
//!   posted, and from then on nothing is found in the pool any more.
//!
//! Whatever may be wrong about this in a kernel to come, no byte is shared: nothing is given out twice, nothing beyond
//! where the kernel is, and a buffer is offered again only when the kernel says that it is used up, both in the
//! completion and in the ring's entry. What does not fit together is left to the kernel until the ring has finished.
//!
//! # Who has what
//!
//! A piece is a [`Buffer`] like any other. It is lent by a [`Shared`] of its own kind: a [`Stretch`] of the memory,
//! whose buffers have one byte and begin at each byte. So to find its bytes takes the same instructions as for any
//! buffer, and only what is seldom done is different: the lock of a stretch is never free, so what comes back goes the
//! slow way.

use std::io;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use super::{Buffer, BufferPool, Kind, Lender, Locked, Losses, Shared, State};
use crate::block::room_for;
use crate::fixed::Registered;
use crate::mutant;

/// `IORING_CQE_F_BUF_MORE`.
pub(crate) const F_BUF_MORE: u32 = 1 << 4;

/// What a pool of this kind has besides.
pub(super) struct Increments {
    /// The same as the `place` of others, which is nowhere here: so each request is looked at before it is bound.
    pub(super) place: Registered,
    stretches: Box<[Shared]>,
}

/// As many bytes of a pool's memory as the number of a buffer can tell apart.
pub(super) struct Stretch {
    whole: Lender,
    /// Where it begins, in the pool's memory.
    start: usize,
}

impl Stretch {
    const BYTES: usize = 1 << 16;
}

/// A buffer that is used up piece by piece.
#[derive(Clone, Copy)]
pub(super) struct Progress {
    /// Where in the ring it was offered.
    position: u16,
    /// How many of its bytes the pieces have that were told of.
    told: u32,
    /// How many pieces are held.
    held: u32,
    /// The kernel does not have it any more.
    is_over: bool,
    /// It is not known any more what is where.
    is_lost: bool,
}

impl Progress {
    const NONE: Progress = Progress { position: 0, told: 0, held: 0, is_over: false, is_lost: false };
}

/// What a completion is about.
pub(crate) struct Piece {
    /// Who lends its bytes, and by which number, if there are any.
    pub(crate) lent: Option<(Lender, u16)>,
    /// The result of the completion, or an error if it is not known where the bytes are.
    pub(crate) result: i32,
}

/// It can't be told where the bytes of a completion are.
struct Unknown;

impl Shared {
    /// A pool of this kind, made of one whose buffers are used whole.
    ///
    /// # Errors
    ///
    /// `ENOMEM` if there is no memory for that.
    pub(super) fn incremental(mut self) -> io::Result<Arc<Shared>> {
        let mut progress = room_for(self.count.into())?;
        progress.resize(self.count.into(), Progress::NONE);
        self.state.get_mut().progress = progress.into();
        let starts = (0..self.memory.bytes()).step_by(Stretch::BYTES);
        let mut stretches = room_for(starts.len())?;
        // No buffer has a number by which it could be found: what asks for one is told to look here.
        self.whereabouts = Box::default();
        Ok(Arc::new_cyclic(|this: &Weak<Shared>| {
            // SAFETY: a pointer to what is in an `Arc` is not null, not even before it is there.
            let whole = Lender(unsafe { std::ptr::NonNull::new_unchecked(this.as_ptr().cast_mut()) });
            stretches.extend(starts.map(|start| self.stretch(Stretch { whole, start })));
            let stretches = stretches.into();
            self.kind = Kind::Incremental(Increments { place: Registered::nowhere(), stretches });
            self
        }))
    }

    fn stretch(&self, stretch: Stretch) -> Shared {
        Shared {
            count: 0,
            mask: 0,
            stride: 1,
            size: u32::MAX,
            // SAFETY: the stretch is owned by the pool, as is the memory, and so is not used for longer; its start is
            // below the number of bytes.
            memory: unsafe { self.memory.part(stretch.start) },
            // SAFETY: the stretch is owned by the pool, as is the ring; and it does not use it at all.
            ring: unsafe { self.ring.part(0) },
            whereabouts: Box::default(),
            taken: AtomicU32::new(0),
            place: Registered::nowhere(),
            kind: Kind::Stretch(stretch),
            state: Locked::taken(State::default()),
        }
    }

    /// Who lends what begins at this byte of the memory, and by which number.
    fn lend(&self, at: usize) -> Option<(Lender, u16)> {
        let Kind::Incremental(increments) = &self.kind else { return None };
        let stretch = increments.stretches.get(at / Stretch::BYTES)?;
        Some((Lender(stretch.into()), (at % Stretch::BYTES) as u16))
    }

    /// Where the kernel is in the buffer `id`, as far as the ring shows that, and whether it has used the buffer up.
    /// `None` if its entry is gone.
    fn reached(&self, state: &State, position: u16, id: u16) -> Option<(u64, bool)> {
        if self.offered_id(state, position) != id {
            return None;
        }
        let entry = self.entry(position);
        // SAFETY: the entry is there, and aligned; the kernel may write to it at any time, and so this is atomic. We
        // write to it only under the lock, which the caller has.
        let length = unsafe { AtomicU32::from_ptr(&raw mut (*entry).length) }.load(Ordering::Acquire);
        // SAFETY: the same holds for this field: it is aligned to eight bytes, as the entry is.
        let address = unsafe { AtomicU64::from_ptr(&raw mut (*entry).address) }.load(Ordering::Relaxed);
        match length {
            // The address is left where the last piece begins.
            0 => Some((self.size.into(), true)),
            _ => Some((address.wrapping_sub(self.address(id).as_ptr().addr() as u64), false)),
        }
    }

    /// Offers a buffer of which nothing is used.
    fn offer_anew(&self, state: &mut State, id: u16) {
        let position = state.tail;
        self.offer(state, id);
        if let Some(progress) = state.progress.get_mut(usize::from(id)) {
            *progress = Progress { position, ..Progress::NONE };
        }
    }

    /// Offers all buffers of which no piece is held.
    pub(super) fn offer_all_anew(&self, state: &mut State) {
        self.end_pieces(state);
        for id in 0..self.count {
            if !state.progress[usize::from(id)].is_over {
                self.offer_anew(state, id);
            }
        }
    }

    /// Takes in a buffer that was over, and of which no piece is held any more.
    fn take_in_anew(&self, state: &mut State, id: u16) {
        state.returned = state.returned.wrapping_add(1);
        self.offer_anew(state, id);
    }

    /// Begins a piece of the buffer `id`, and returns where in the memory.
    fn begin_piece(&self, state: &mut State, id: u16, length: u32) -> usize {
        let progress = &mut state.progress[usize::from(id)];
        let at = usize::from(id) * self.size as usize + progress.told as usize;
        if !mutant::is("a piece begins where the last one did") {
            progress.told += length;
        }
        progress.held += 1;
        state.pieces += 1;
        state.told = state.told.wrapping_add(1);
        at
    }

    /// Gives up all that the kernel had: what was not told of does not count any more, and buffers of which pieces are
    /// held come back with the last of these.
    pub(super) fn end_pieces(&self, state: &mut State) {
        let mut ended = 0;
        for progress in &mut state.progress {
            if progress.held == 0 {
                progress.told = 0;
            } else if !std::mem::replace(&mut progress.is_over, true) {
                ended += 1;
            }
        }
        // There is no ring whose thread could do the same now.
        self.count_taken(ended);
    }

    /// Notes how many bytes a completion says were taken of a buffer. Returns where they begin in the memory, if there
    /// are any.
    fn account(&self, id: u16, length: u32, flags: u32) -> Result<Option<usize>, Unknown> {
        let mut state = self.state.lock();
        let has_lost = state.losses.as_ref().is_some_and(Losses::are_more);
        let progress = *state.progress.get(usize::from(id)).ok_or(Unknown)?;
        if has_lost || progress.is_lost || progress.is_over {
            return Err(Unknown);
        }
        let told = u64::from(progress.told) + u64::from(length);
        let is_last = flags & F_BUF_MORE == 0;
        let (reached, is_used_up) = match self.reached(&state, progress.position, id) {
            Some(reached) => reached,
            // It has been used up for so long that its entry was used for others.
            None if is_last => (self.size.into(), true),
            None => (0, false),
        };
        if told > reached {
            state.progress[usize::from(id)].is_lost = true;
            return Err(Unknown);
        }
        let at = (length > 0).then(|| self.begin_piece(&mut state, id, length));
        if is_used_up && (is_last || told == u64::from(self.size)) {
            self.count_taken(1);
            let progress = &mut state.progress[usize::from(id)];
            progress.is_over = true;
            if progress.held == 0 {
                self.take_in_anew(&mut state, id);
            }
        }
        Ok(at)
    }

    /// Takes in a piece that somebody gives back, which begins at this byte of the memory. Returns whether the ring is
    /// to be told.
    fn take_in_piece(&self, state: &mut State, at: usize) -> bool {
        let id = (at / self.size as usize) as u16;
        let Some(progress) = state.progress.get_mut(usize::from(id)) else { return false };
        state.pieces -= 1;
        progress.held -= 1;
        let is_whole = progress.is_over && progress.held == 0;
        if is_whole {
            self.take_in_anew(state, id);
        }
        is_whole
    }
}

impl Lender {
    /// The number by which the kernel knows this buffer, or the buffer of which this is a piece.
    pub(crate) fn kernels_number(self, id: u16) -> u16 {
        match &self.kind {
            Kind::Stretch(Stretch { whole, start }) => {
                ((start + usize::from(id)) / whole.size as usize) as u16
            }
            _ => id,
        }
    }

    /// Takes a buffer back from its holder, if it is a piece of a larger one. Otherwise returns false.
    pub(super) fn give_piece_back(self, id: u16) -> bool {
        let Kind::Stretch(Stretch { whole, start }) = &self.kind else { return false };
        let (whole, at) = (*whole, start + usize::from(id));
        let mut state = whole.state.lock();
        match whole.take_in_piece(&mut state, at) || state.kept {
            // From here on, nothing is touched, as in `give_back`.
            false => drop(state),
            true => whole.look_after(state),
        }
        true
    }
}

impl BufferPool {
    /// As [`hold`](Self::hold), of a piece of the buffer `id`, given the result and the flags of the completion.
    ///
    /// # Safety
    ///
    /// The same as for `hold`; and this is called for all completions that name buffers of the pool, in the order in
    /// which they were posted.
    pub(crate) unsafe fn hold_piece(&self, id: u16, result: i32, flags: u32) -> Piece {
        let length = u32::try_from(result).unwrap_or(0);
        match self.shared.account(id, length, flags) {
            Ok(at) => Piece { lent: at.and_then(|at| self.shared.lend(at)), result },
            // Where no bytes are is not missed.
            Err(Unknown) if length == 0 => Piece { lent: None, result },
            Err(Unknown) => Piece { lent: None, result: -libc::EBADR },
        }
    }

    /// As [`fill`](Self::fill), with a piece of a buffer.
    pub(super) fn fill_piece(&self, bytes: &[u8]) -> Option<Buffer> {
        let shared = &*self.shared;
        let length = u32::try_from(bytes.len()).ok().filter(|length| *length <= shared.size)?;
        let mut state = shared.state.lock();
        if state.waker.is_some() {
            return None;
        }
        if length == 0 {
            return Some(Buffer::empty());
        }
        let free = |progress: &mut Progress| {
            if progress.held == 0 {
                progress.told = 0;
            }
            !progress.is_over && length <= shared.size - progress.told
        };
        let id = state.progress.iter_mut().position(free)? as u16;
        let at = shared.begin_piece(&mut state, id, length);
        self.keep(&mut state);
        drop(state);
        let (lender, number) = shared.lend(at)?;
        // SAFETY: the piece was just held, and this is done once.
        let mut buffer = unsafe { Buffer::of(lender, number, length) };
        buffer.copy_from_slice(bytes);
        Some(buffer)
    }

    /// Whether its buffers are used up piece by piece.
    pub(crate) fn is_incremental(&self) -> bool {
        matches!(self.shared.kind, Kind::Incremental(_))
    }
}

#[cfg(test)]
mod tests;
