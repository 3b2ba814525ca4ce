//! What handlers are given with a completion, and hold for a while: buffers, descriptors, and files in the ring's table;
//! and the other ring that wants to use the pool of this one. Knows what each of them must hold; whether the completion
//! was right, is judged elsewhere.

use std::sync::Arc;
use std::time::Duration;

use rummelplatz::{BufferPool, FixedFile, SubmitError};

use crate::connections::{Connection, Held};
use crate::neighbour::Neighbour;
use crate::program::Kind;
use crate::world::accounts::{Accounts, World};
use crate::world::data::Data;
use crate::world::pools::{Piece, whose};
use crate::world::request::Request;

impl World {
    // ---- buffers --------------------------------------------------------------------------------------

    /// A stream has received this many bytes, in one buffer or more, which may be kept.
    pub(crate) fn received(&self, id: usize, pool: Option<&BufferPool>, pieces: Vec<Piece>, length: usize) {
        let mut locked = self.lock();
        let accounts = &mut *locked;
        let whose = whose(pool);
        let content: Vec<u8> = pieces.iter().flat_map(|piece| (**piece).as_ref()).copied().collect();
        let taken = pieces.iter().filter(|piece| !(***piece).as_ref().is_empty()).count();
        accounts.pools.count(whose, taken);
        if content.len() != length {
            accounts.violation(format!("#{id} is told of {length} bytes, and given {}", content.len()));
        }
        if self.simulation.is_some() && !content.is_empty() {
            accounts.check_content(id, &content);
        }
        let mut given_back = Vec::new();
        for buffer in pieces {
            // On the real kernel there is no idle moment in which the last buffer would be given back.
            let may_keep = self.simulation.is_some() || !accounts.pools.keeps_any();
            let is_empty = (*buffer).as_ref().is_empty();
            if !is_empty && may_keep && accounts.chance.one_in(3) {
                accounts.pools.keep(buffer, whose);
            } else {
                given_back.push(buffer);
            }
        }
        // Not under the lock: this may wake the ring.
        drop(locked);
        drop(given_back);
    }

    /// A handler returns the data of a stream: if a buffer of its pool is held, what was counted is void.
    pub(crate) fn goes_on(&self, id: usize, pool: Option<&BufferPool>) {
        let mut accounts = self.lock();
        if accounts.pools.keeps_one_of(whose(pool)) {
            accounts.requests[id].starved = 0;
        }
    }

    // ---- the pool of another ring ---------------------------------------------------------------------

    /// Another ring comes, which has a pool.
    pub(crate) fn new_neighbour(&self) {
        let neighbour = Neighbour::new(self.surroundings.descriptor(Kind::ReceiveMulti));
        self.lock().pools.neighbour = Some(neighbour);
    }

    /// Another ring wants to use the pool of this one.
    pub(crate) fn borrow(&self, is_over: bool) {
        if self.simulation.is_none() {
            return;
        }
        if self.lock().pools.neighbour.is_none() {
            self.new_neighbour();
        }
        let mut accounts = self.lock();
        let uses_it = |it: &Request| it.has_pool && it.accepted && it.is_open() && it.drops == 0;
        let is_used = accounts.requests.iter().any(uses_it);
        let pool = accounts.pool();
        let Some(mut neighbour) = accounts.pools.neighbour.take() else { return };
        drop(accounts);
        let borrowed = neighbour.borrow(&pool);
        let mut accounts = self.lock();
        accounts.pools.neighbour = Some(neighbour);
        let is_right = match borrowed {
            Ok(()) => is_over || !is_used,
            Err(SubmitError::PoolInUse) => !is_over,
            Err(_) => false,
        };
        if !is_right {
            accounts.violation(format!("a pool that is in use ({is_used}): {borrowed:?}"));
        }
    }

    /// Another ring is done with its pool.
    pub(crate) fn yield_pool(&self) {
        let neighbour = self.lock().pools.neighbour.take();
        if let Some(mut neighbour) = neighbour {
            neighbour.give_up();
            self.lock().pools.neighbour = Some(neighbour);
        }
    }

    // ---- descriptors ----------------------------------------------------------------------------------

    /// A message was received, or not. Whatever has come with it is taken, or some of it, or it is left.
    pub(crate) fn receives(&self, is_received: bool, data: &Data) {
        let Some(receives) = &data.receives else { return };
        let mut accounts = self.lock();
        let passed = if is_received { accounts.requests[data.id].passed } else { 0 };
        let taken = accounts.chance.below(passed as u64 + 2) as usize;
        let mut receives = receives.borrow_mut();
        let count = receives.take_fds().take(taken).count();
        let is_cut = receives.is_control_truncated();
        if count != taken.min(passed) || is_cut {
            accounts
                .violation(format!("of {passed} descriptors for #{}, {count} came, cut: {is_cut}", data.id));
        }
    }

    // ---- files in the ring's table --------------------------------------------------------------------

    /// The kernel has put a file into this place of the table, and a handler has it.
    pub(crate) fn hold(&self, place: i32, file: FixedFile) {
        let mut accounts = self.look();
        let connection = match (accounts.files.at(place), &self.simulation) {
            (Some(connection), Some(_)) => connection,
            (None, Some(_)) => return accounts.violation(format!("nothing was put into place {place}")),
            (_, None) => {
                let connection = Connection::unknown(self.surroundings.heard.clone());
                accounts.files.add(Arc::clone(&connection));
                connection
            }
        };
        let held = Held::first(file, connection);
        accounts.given += 1;
        if accounts.chance.one_in(3) {
            drop(accounts);
            drop(held);
        } else {
            accounts.files.hold(held);
        }
    }

    /// Drops a clone of a file.
    pub(crate) fn leave(&self, which: u8) {
        let left = self.lock().files.leave(which);
        // Not under the lock.
        drop(left);
    }

    /// Checks that those files are open that somebody holds; and before the ring waits, that the others are not.
    pub(crate) fn check_files(&self, waits: bool) {
        let now = self.now();
        self.look().check_files(now, waits);
    }

    /// A run is over, and has ended as runs do if `is_known`.
    pub(crate) fn files_end(&self, is_known: bool) {
        let mut accounts = self.look();
        accounts.files.end_run(is_known);
        accounts.check_files(Duration::ZERO, false);
    }

    /// How many files handlers were given.
    pub(crate) fn files(&self) -> u64 {
        self.lock().given
    }
}

impl Accounts {
    /// What a stream is told that it has received is what it has received next, or later: nobody is told what a stream
    /// that was to end has received.
    fn check_content(&mut self, id: usize, content: &[u8]) {
        let received = &mut self.requests[id].received;
        match received.iter().position(|bytes| bytes.starts_with(content)) {
            Some(index) => drop(received.drain(..=index)),
            None => self.violation(format!("#{id} is told of {content:?}, which it has not received")),
        }
    }

    pub(super) fn check_files(&mut self, now: Duration, waits: bool) {
        self.files.check(now, waits, &mut self.violations);
    }
}
