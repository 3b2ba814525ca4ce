//! What handlers choose to do beyond what the program says. Each choice is a number from the program's seed, so the same
//! program makes the same choices. Knows what there is to choose from, and nothing of what comes of it.

use rummelplatz::BufferPool;

use crate::program::{Kind, Limit};
use crate::world::accounts::{Accounts, World};

impl World {
    /// What a stream may become: another kind of stream, or one with another pool.
    pub(crate) fn some_change(&self, kind: Kind) -> Option<(Kind, Option<BufferPool>)> {
        let mut locked = self.lock();
        let accounts = &mut *locked;
        // The rest of a limit would become that of the new kind.
        let may_change = self.simulation.is_some() && kind.limit().is_none() && accounts.chance.one_in(6);
        may_change.then(|| {
            let has_places = accounts.program.places.is_some() && !accounts.may_leak();
            let kind = match has_places && accounts.chance.one_in(3) {
                true => Kind::AcceptMultiDirect,
                false => accounts.chance.pick(&Kind::STREAMS),
            };
            (kind, accounts.pools.for_kind(kind, &mut accounts.chance))
        })
    }

    /// What else is to be done with a file when a request of this kind has succeeded.
    pub(crate) fn some_service(&self, kind: Kind) -> Option<(Kind, Limit)> {
        let mut accounts = self.lock();
        let often = if kind.opens() { 2 } else { 3 };
        let is_done = (kind.opens() || kind.is_on_file()) && accounts.files.holds_any();
        (is_done && accounts.chance.one_in(often))
            .then(|| (accounts.chance.pick(&Kind::ON_FILES), Limit::some(&mut accounts.chance)))
    }
}

impl Accounts {
    /// Any kind of request that the program may have.
    pub(crate) fn some_kind(&mut self) -> Kind {
        let is_direct = self.program.places.is_some() && self.chance.one_in(2);
        match is_direct.then(|| self.chance.one_in(2)) {
            None => self.chance.pick(&Kind::ALL),
            Some(true) => self.chance.pick(&Kind::OPENING),
            Some(false) => self.chance.pick(&Kind::ON_FILES),
        }
    }
}
