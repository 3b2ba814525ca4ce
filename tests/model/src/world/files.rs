//! The files in the ring's table: what the kernel has put there, and the clones that are held. What must hold of each
//! file, its [`Connection`] knows; which requests are on it, nobody here.

use std::collections::{HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use crate::connections::{Connection, Held};
use crate::program::Chance;

/// See the [module documentation](self).
#[derive(Default)]
pub(super) struct Files {
    /// What the kernel has put into the ring's table.
    connections: Vec<Arc<Connection>>,
    /// Those of them that were not reported yet, by the name of their requests.
    arriving: HashMap<u64, VecDeque<Arc<Connection>>>,
    /// Who was reported last for each place of the table.
    places: HashMap<i32, Arc<Connection>>,
    /// Files in the table that are held for a while, if need be beyond the end of the ring.
    held: Vec<Held>,
}

impl Files {
    /// Something for the table, opened for the request with this name.
    pub(super) fn connect(&mut self, name: u64) -> OwnedFd {
        let tag = (self.connections.len() % 255) as u8 + 1;
        let (connection, file) = Connection::pair(tag);
        self.connections.push(Arc::clone(&connection));
        self.arriving.entry(name).or_default().push_back(connection);
        file
    }

    /// What the kernel says of the file that was last opened for the request with this name.
    pub(super) fn opened(&mut self, name: u64, result: i32) {
        if result < 0 && result != -libc::ENFILE {
            return;
        }
        let Some(connection) = self.arriving.get_mut(&name).and_then(VecDeque::pop_front) else { return };
        match result {
            0.. => drop(self.places.insert(result, connection)),
            _ => connection.is_refused(),
        }
    }

    /// What was reported last for this place.
    pub(super) fn at(&self, place: i32) -> Option<Arc<Connection>> {
        self.places.get(&place).cloned()
    }

    /// The real kernel has put this into the table.
    pub(super) fn add(&mut self, connection: Arc<Connection>) {
        self.connections.push(connection);
    }

    pub(super) fn hold(&mut self, held: Held) {
        self.held.push(held);
    }

    pub(super) fn holds_any(&self) -> bool {
        !self.held.is_empty()
    }

    /// A clone of one of the files that are held.
    pub(super) fn some_clone(&self, chance: &mut Chance) -> Option<Held> {
        let count = self.held.len() as u64;
        (count > 0).then(|| self.held[chance.below(count) as usize].clone())
    }

    /// One of the files that are held. It must be dropped only when the accounts are no longer locked.
    pub(super) fn leave(&mut self, which: u8) -> Option<Held> {
        let count = self.held.len();
        (count > 0).then(|| self.held.swap_remove(usize::from(which) % count))
    }

    /// A file that another thread is to drop at this time.
    pub(super) fn leave_elsewhere(&mut self, chance: &mut Chance, now: Duration) -> Option<Held> {
        let is_one = self.holds_any() && !cfg!(miri) && chance.one_in(4);
        let left = is_one.then(|| self.held.swap_remove(0));
        if let Some(left) = &left {
            left.connection.is_left_elsewhere(now);
        }
        left
    }

    /// Those files are open that somebody holds; and if the ring is about to wait, the others are not.
    pub(super) fn check(&self, now: Duration, waits: bool, wrong: &mut Vec<String>) {
        for connection in &self.connections {
            connection.check_held();
            connection.check_left(now, waits);
            wrong.append(&mut connection.wrong());
        }
    }

    /// A run is over, and has ended as runs do if `is_known`.
    pub(super) fn end_run(&self, is_known: bool) {
        self.connections.iter().for_each(|connection| connection.ends(is_known));
    }

    /// All that was ever in the table, and the clones that are held. These must be dropped only when the accounts are
    /// no longer locked.
    pub(super) fn end(&mut self) -> (Vec<Arc<Connection>>, Vec<Held>) {
        (self.connections.clone(), std::mem::take(&mut self.held))
    }
}
