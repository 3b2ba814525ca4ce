//! The data of a request: everything that a request of any kind needs, where it is found later whether it is still
//! itself. It is made here, and here it is noted when it is dropped. Knows what it is for; not whether it was accepted.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rummelplatz::request::{Pipe, RecvControl};
use rummelplatz::{BufferPool, FixedBuffer};

use crate::connections::Held;
use crate::program::{End, Kind, Limit};
use crate::world::accounts::{Accounts, World};
use crate::world::pools::{Whose, whose};
use crate::world::request::Request;

/// The data of a request.
pub(crate) struct Data {
    pub(crate) id: usize,
    pub(crate) kind: Kind,
    pub(crate) limit: Limit,
    /// In the slot, where the kernel reads and writes: the id, and what was written last.
    pub(crate) place: [u8; 16],
    /// As `place`, at an address of its own.
    pub(crate) heap: Heap,
    pub(crate) fd: Arc<OwnedFd>,
    pub(crate) closes: Option<OwnedFd>,
    /// What is in the ring's table, if it is about that.
    pub(crate) file: Option<Held>,
    /// What is waited for, and the value that it is expected to have.
    pub(crate) word: Arc<AtomicU32>,
    pub(crate) expected: u32,
    pub(crate) pipe: Pipe,
    pub(crate) pool: Option<BufferPool>,
    /// What comes with a message.
    pub(crate) receives: Option<RefCell<RecvControl>>,
    /// What kind of stream it becomes when it is armed again, and with which pool.
    pub(crate) becomes: Option<(Kind, Option<BufferPool>)>,
    pub(crate) world: Arc<World>,
}

impl Data {
    /// Sets how long the request may take.
    pub(crate) fn limit(&mut self, limit: Limit) {
        self.limit = limit;
        let now = self.world.now();
        let request = &mut self.world.lock().requests[self.id];
        (request.limit, request.since) = (limit, now);
    }

    /// Becomes the kind that was chosen for it meanwhile, if one was.
    pub(crate) fn change(&mut self) {
        if let Some((kind, pool)) = self.becomes.take() {
            self.world.changed(self.id, kind);
            self.fd = self.world.surroundings.descriptor(kind);
            (self.kind, self.pool) = (kind, pool);
        }
    }

    /// Notes the address that the kernel is given for the bytes.
    pub(crate) fn note_place(&self) {
        let place = match &self.heap {
            _ if self.kind.is_on_words() => self.word.as_ptr().cast_const().cast(),
            _ if self.kind == Kind::Pipe => (&raw const self.pipe).cast(),
            heap if self.kind.is_on_file() => heap.as_ptr(),
            Heap::Own(_) => self.place.as_ptr(),
            Heap::Registered(buffer) => buffer.as_ptr(),
        };
        self.world.lock().requests[self.id].place = place.expose_provenance() as u64;
    }

    /// Another descriptor of one end of the pipe, if there is one. Which end, the id says.
    pub(crate) fn end_of_pipe(&self) -> Option<OwnedFd> {
        // No other function shows the numbers and leaves them where they are.
        let shown = format!("{:?}", self.pipe);
        let is_digit = |byte: char| byte.is_ascii_digit();
        let mut numbers = shown.split(|byte| !is_digit(byte)).filter_map(|number| number.parse().ok());
        let number: RawFd = numbers.nth(self.id % 4 / 2)?;
        if shown.contains('-') {
            return None;
        }
        // SAFETY: the pipe is borrowed, so its ends stay open.
        let end = unsafe { BorrowedFd::borrow_raw(number) };
        Some(end.try_clone_to_owned().expect("there are descriptors for it"))
    }
}

impl Drop for Data {
    fn drop(&mut self) {
        if self.kind == Kind::Pipe
            && let Some(end) = self.end_of_pipe()
        {
            self.world.lock().descriptors.await_end(end);
        }
        self.world.dropped(self.id);
    }
}

/// Memory of a request outside its slot.
pub(crate) enum Heap {
    /// For raw entries.
    Own(Box<[u8; 16]>),
    /// A buffer of the set that the ring has registered.
    Registered(FixedBuffer),
}

impl Deref for Heap {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Heap::Own(own) => &**own,
            Heap::Registered(buffer) => buffer,
        }
    }
}

impl DerefMut for Heap {
    fn deref_mut(&mut self) -> &mut [u8] {
        match self {
            Heap::Own(own) => &mut **own,
            Heap::Registered(buffer) => buffer,
        }
    }
}

impl World {
    /// Data for a new request.
    pub(crate) fn issue(self: &Arc<Self>, kind: Kind, second: bool, raw: bool) -> Data {
        let mut locked = self.lock();
        let accounts = &mut *locked;
        let kind = if accounts.allows(kind) { kind } else { Kind::Nop };
        let file = if kind.is_on_file() { accounts.files.some_clone(&mut accounts.chance) } else { None };
        let kind = match &file {
            None if kind.is_on_file() => Kind::Nop,
            // What comes over it tells with what may be answered.
            Some(held) if held.connection.tag() == 0 && kind != Kind::Install => Kind::ReceiveOnFile,
            _ => kind,
        };
        let registered = if kind == Kind::ReadFixed { self.registered.take() } else { None };
        let kind = if kind == Kind::ReadFixed && registered.is_none() { Kind::Nop } else { kind };
        let id = accounts.requests.len();
        let mut request = Request {
            kind,
            second,
            raw,
            blocked: accounts.chance.one_in(3),
            connection: file.as_ref().map(|held| Arc::clone(&held.connection)),
            ..Request::default()
        };
        let place = place_of(id);
        let heap = match registered {
            Some(mut buffer) => {
                buffer.copy_from_slice(&place);
                Heap::Registered(buffer)
            }
            None => Heap::Own(Box::new(file.as_ref().map_or(place, |held| [held.connection.tag(); 16]))),
        };
        if raw {
            request.place = heap.as_ptr().expose_provenance() as u64;
        }
        let pool = accounts.pools.for_kind(kind, &mut accounts.chance);
        request.borrows = whose(pool.as_ref()) == Whose::Theirs;
        let closes = (kind == Kind::Close).then(|| accounts.descriptors.some());
        let mut fd = self.surroundings.descriptor(kind);
        let receives = (kind == Kind::ReceiveMessage).then(|| {
            let (ours, theirs) = UnixDatagram::pair().expect("there are descriptors for it");
            request.passed = 1 + accounts.kernel_chance.below(3) as usize;
            accounts.descriptors.pass(&ours, request.passed);
            fd = Arc::new(theirs.into());
            RefCell::default()
        });
        let word = Arc::clone(&self.surroundings.words[id % 2]);
        let mut expected = word.load(Ordering::SeqCst);
        if kind == Kind::WordWait && accounts.chance.one_in(6) {
            expected = expected.wrapping_sub(1);
        }
        accounts.requests.push(request);
        Data {
            id,
            kind,
            limit: Limit::None,
            place,
            heap,
            fd,
            closes,
            file,
            word,
            expected,
            pipe: Pipe::new(),
            pool,
            receives,
            becomes: None,
            world: Arc::clone(self),
        }
    }

    /// Data for a part of a chain by the safe call.
    pub(crate) fn issue_linked(self: &Arc<Self>, kind: Kind, second: bool, limit: Limit) -> Data {
        let mut data = self.issue(kind, second, false);
        data.limit(limit);
        self.lock().requests[data.id].linked = true;
        data
    }

    /// A stream is armed again as one of another kind.
    fn changed(&self, id: usize, kind: Kind) {
        let now = self.now();
        let mut accounts = self.lock();
        let request = &mut accounts.requests[id];
        // Each `ENOBUFS` in a row still counts, whichever pool it is about.
        if !request.kind.has_pool() || !kind.has_pool() {
            request.starved = 0;
        }
        (request.kind, request.counted, request.told_at) = (kind, 0, now);
        (request.starves, request.has_pool) = (false, false);
    }

    fn dropped(&self, id: usize) {
        let mut accounts = self.look();
        let request = &mut accounts.requests[id];
        request.drops += 1;
        let Request { kind, name, accepted, is_sent, finals, drops, .. } = *request;
        if is_sent && finals == 0 && accounts.program.end != End::Drop && accounts.knows_slots() {
            accounts.violation(format!("#{id} was sent, and nobody was told"));
        }
        if drops > 1 {
            accounts.violation(format!("#{id} was dropped {drops} times"));
        }
        // What was delivered belongs to the handler; before that, the kernel must be done with it.
        if let Some(name) = name
            && finals == 0
            && accepted
            && accounts.by_name.get(&name) == Some(&id)
            && accounts.kernel.owned.contains(&name)
            && !kind.is_stream()
        {
            accounts.violation(format!("#{id} was dropped while the kernel has its request"));
        }
    }
}

/// What is at the place of a request at first.
pub(super) fn place_of(id: usize) -> [u8; 16] {
    let mut place = [0; 16];
    place[..8].copy_from_slice(&(id as u64).to_ne_bytes());
    place
}

impl Accounts {
    /// Whether the program, and whoever runs it, can have requests of this kind.
    fn allows(&self, kind: Kind) -> bool {
        let is_about_descriptors = matches!(kind, Kind::Pipe | Kind::ReceiveMessage);
        let has_descriptor = is_about_descriptors || kind == Kind::Close || kind.opens();
        // What may be leaked must hold no descriptor, or a million programs would run out of them.
        if has_descriptor && self.may_leak() {
            return false;
        }
        // Miri does not know which files are open.
        match kind.opens() {
            true => self.program.places.is_some() && !cfg!(miri),
            false => !is_about_descriptors || !cfg!(miri),
        }
    }
}
