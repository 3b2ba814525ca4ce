//! The pools that requests receive into, and the buffers that are held for a while. Knows whose pool one is, and what is
//! in each buffer that is held; not who has received it.

use rummelplatz::BufferPool;

use crate::neighbour::Neighbour;
use crate::program::{Chance, Kind};

/// A buffer with what was received, or with a datagram.
pub(crate) type Piece = Box<dyn AsRef<[u8]> + Send>;

/// A buffer that is held for a while.
pub(super) struct Kept {
    buffer: Piece,
    content: Vec<u8>,
    whose: Whose,
}

/// How large the buffers are that are used up piece by piece.
pub(super) const PIECES: usize = 100;

/// Which pool one is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    /// This ring's, or it is no pool.
    Own,
    /// The neighbour's.
    Theirs,
    /// This ring's, whose buffers are used up piece by piece.
    Piecewise,
}

pub(super) fn whose(pool: Option<&BufferPool>) -> Whose {
    match pool.map(BufferPool::buffer_size) {
        Some(Neighbour::SIZE) => Whose::Theirs,
        Some(PIECES) => Whose::Piecewise,
        _ => Whose::Own,
    }
}

/// See the [module documentation](self).
#[derive(Default)]
pub(super) struct Pools {
    own: Option<BufferPool>,
    pieces: Option<BufferPool>,
    pub(super) neighbour: Option<Neighbour>,
    kept: Vec<Kept>,
    /// How many buffers were ever taken, from each of the pools.
    taken: [u64; 3],
}

impl Pools {
    /// The pool of this ring.
    pub(super) fn own(&mut self) -> BufferPool {
        self.own.get_or_insert_with(|| BufferPool::new(2, 64).expect("there is memory for it")).clone()
    }

    /// A pool for a request of this kind to receive from, if it does: from time to time, that of the neighbour.
    pub(super) fn for_kind(&mut self, kind: Kind, chance: &mut Chance) -> Option<BufferPool> {
        if !kind.has_pool() {
            return None;
        }
        if kind == Kind::ReceivePieces {
            let new = || BufferPool::incremental(2, PIECES as u32).expect("there is memory for it");
            return Some(self.pieces.get_or_insert_with(new).clone());
        }
        match &self.neighbour {
            Some(neighbour) if chance.one_in(3) => Some(neighbour.pool.clone()),
            _ => Some(self.own()),
        }
    }

    /// Whether a pool is registered with the neighbour.
    pub(super) fn neighbour_has_one(&self) -> bool {
        self.neighbour.as_ref().is_some_and(Neighbour::has_pool)
    }

    /// Counts buffers that were taken from one of the pools.
    pub(super) fn count(&mut self, whose: Whose, taken: usize) {
        self.taken[whose as usize] += taken as u64;
    }

    /// How many buffers were ever taken from one of the pools.
    pub(super) fn taken(&self, whose: Whose) -> u64 {
        self.taken[whose as usize]
    }

    pub(super) fn keeps_any(&self) -> bool {
        !self.kept.is_empty()
    }

    /// Whether a buffer of this pool is held.
    pub(super) fn keeps_one_of(&self, whose: Whose) -> bool {
        self.kept.iter().any(|kept| kept.whose == whose)
    }

    /// Holds a buffer.
    pub(super) fn keep(&mut self, buffer: Piece, whose: Whose) {
        let content = (*buffer).as_ref().to_vec();
        self.kept.push(Kept { buffer, content, whose });
    }

    /// The buffers that are held. They must be dropped only when the accounts are no longer locked.
    pub(super) fn take_kept(&mut self, wrong: &mut Vec<String>) -> Vec<Kept> {
        let kept = std::mem::take(&mut self.kept);
        if kept.iter().any(|Kept { buffer, content, .. }| (**buffer).as_ref() != content) {
            wrong.push("a buffer was written to while it was held".to_owned());
        }
        kept
    }

    /// In the end, all buffers of this ring's pools have come back.
    pub(super) fn check_end(&self, wrong: &mut Vec<String>) {
        for pool in [&self.own, &self.pieces].into_iter().flatten() {
            let (available, capacity) = (pool.available(), pool.capacity());
            if available != capacity {
                wrong.push(format!("{} of {capacity} buffers are lost", capacity - available));
            }
        }
    }
}
