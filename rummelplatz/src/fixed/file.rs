//! Files in a ring's table, and what becomes of those that the kernel has put there.
//!
//! The table keeps the [`FilePlace`]; clones of the [`FixedFile`] share it. When the last clone is gone, in whatever
//! thread, it leaves word in the ring's [`Left`], and the ring closes the file.

use std::fmt;
use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::Registered;
use crate::forked::generation;
use crate::mutant;
use crate::thread::this_thread;
use crate::waker::Waker;

/// A file or a socket in the table of a ring (a *direct descriptor*): the kernel need not look it up for each
/// request in the table of the process, which other threads share, and it has no number there.
///
/// There are two ways to get one. [`register_file`](crate::Submitter::register_file) puts a descriptor of the
/// process into the table (`IORING_REGISTER_FILES_UPDATE`, in a table with empty places since 5.19). And the
/// kernel puts there what [`accept_direct`](crate::request::accept_direct),
/// [`accept_multi_direct`](crate::request::accept_multi_direct), [`openat_direct`](crate::request::openat_direct)
/// and [`socket_direct`](crate::request::socket_direct) open; it comes out of
/// [`into_fixed_file`](crate::Completion::into_fixed_file).
///
/// Requests of that ring name it in place of a descriptor: [`read_at`](crate::request::read_at),
/// [`write_at`](crate::request::write_at), [`recv`](crate::request::recv), [`send`](crate::request::send), and
/// all others that take a [`Target`](crate::request::Target). In another ring, and after that ring has
/// finished, such a request ends with `EBADF`. [`install`](crate::request::install) makes an ordinary
/// descriptor of it.
///
/// A cheap clone: each request keeps one in its data. The file stays open until the ring has finished, or
/// [`unregister_file`](crate::Submitter::unregister_file), or until its last clone is gone. In that case, the
/// ring closes what the kernel has put into the table before it waits the next time. What was registered, it
/// closes when the place is needed for another file; so `register_file` is for files that are used for long.
pub struct FixedFile {
    pub(crate) place: ManuallyDrop<Arc<FilePlace>>,
}

/// The place that a file has in a ring's table, as all clones of a [`FixedFile`] share it.
#[derive(Debug)]
pub(crate) struct FilePlace {
    pub(crate) at: Registered,
    /// How many clones there are, including those that were forgotten. As many as an `Arc` has: nobody gets it to wrap.
    holders: AtomicUsize,
    /// Where the last clone leaves word that it is gone, if somebody wants to know.
    left: Weak<Left>,
}

/// The files of one ring whose last clone is gone, and that are still open.
#[derive(Debug)]
pub(crate) struct Left {
    files: Mutex<Vec<Arc<FilePlace>>>,
    /// There are some.
    any: AtomicBool,
    /// The thread that looks here before it waits, while it is in the loop of the ring; 0 is none.
    looks: AtomicU64,
    waker: Waker,
    /// That of the process that has the ring.
    generation: u32,
}

impl FixedFile {
    /// A file that is registered nowhere yet.
    pub(crate) fn new() -> FixedFile {
        FixedFile::hold(Arc::new(FilePlace::new(Weak::new())))
    }

    /// Makes a file out of a place that nobody holds.
    pub(crate) fn hold(place: Arc<FilePlace>) -> FixedFile {
        let holders = place.holders.swap(1, Ordering::Relaxed);
        debug_assert_eq!(holders, 0, "somebody holds it");
        FixedFile { place: ManuallyDrop::new(place) }
    }

    /// Its index in the table of the ring that has it.
    pub(crate) fn index(&self) -> u32 {
        self.place.at.index.load(Ordering::Relaxed)
    }
}

impl FilePlace {
    /// A place for the ring that looks into `left`; nobody holds it.
    pub(crate) fn of(left: &Arc<Left>) -> Arc<FilePlace> {
        Arc::new(FilePlace::new(Arc::downgrade(left)))
    }

    fn new(left: Weak<Left>) -> FilePlace {
        FilePlace { at: Registered::nowhere(), holders: AtomicUsize::new(0), left }
    }

    /// How many clones of the file there are.
    pub(crate) fn holders(&self) -> usize {
        self.holders.load(Ordering::Acquire)
    }
}

impl AsRef<Registered> for FilePlace {
    fn as_ref(&self) -> &Registered {
        &self.at
    }
}

impl Left {
    pub(crate) fn new(waker: Waker) -> Arc<Left> {
        let (files, any, looks) = (Mutex::default(), AtomicBool::new(false), AtomicU64::new(0));
        Arc::new(Left { files, any, looks, waker, generation: generation() })
    }

    /// Whether there are any.
    pub(crate) fn is_any(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    /// Says that this thread looks here before it waits; 0 that none does.
    pub(crate) fn looked_at_by(&self, thread: u64) {
        self.looks.store(thread, Ordering::Relaxed);
    }

    /// Takes out all that there are, in exchange for memory for the next ones.
    pub(crate) fn exchange(&self, empty: &mut Vec<Arc<FilePlace>>) {
        debug_assert!(empty.is_empty());
        self.any.store(false, Ordering::Relaxed);
        std::mem::swap(&mut *self.files(), empty);
    }

    /// Makes the ring look here again, although nothing was left since.
    pub(crate) fn look_again(&self) {
        self.any.store(true, Ordering::Relaxed);
    }

    /// Makes the ring close a file. It is woken, unless this is the thread that looks here anyway.
    fn add(&self, place: Arc<FilePlace>) {
        // In a child, nobody looks here, and this may be locked for ever, by a thread that it does not have.
        if self.generation != generation() {
            return;
        }
        self.files().push(place);
        self.any.store(true, Ordering::Release);
        if self.looks.load(Ordering::Relaxed) != this_thread()
            && !mutant::is("a ring is not told what was left elsewhere")
        {
            self.waker.wake();
        }
    }

    fn files(&self) -> MutexGuard<'_, Vec<Arc<FilePlace>>> {
        // Nothing under the lock can panic half-way.
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clone for FixedFile {
    fn clone(&self) -> FixedFile {
        // In this order: an `Arc` ends the process before there are too many.
        let place = self.place.clone();
        place.holders.fetch_add(1, Ordering::Relaxed);
        FixedFile { place }
    }
}

impl Drop for FixedFile {
    // As for a buffer: one call, which gets a value.
    #[inline]
    fn drop(&mut self) {
        #[inline(never)]
        fn leave(place: Arc<FilePlace>) {
            // Whatever was done with a clone comes before the file is closed.
            let is_last = place.holders.fetch_sub(1, Ordering::AcqRel) == 1;
            let is_last = is_last && !mutant::is("the last clone closes nothing");
            if (is_last || mutant::is("any clone closes the file"))
                && let Some(left) = place.left.upgrade()
            {
                left.add(place);
            }
        }
        // SAFETY: the file is being dropped, so `place` is not used again.
        leave(unsafe { ManuallyDrop::take(&mut self.place) });
    }
}

impl fmt::Debug for FixedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FixedFile").field(&self.index()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::tests::in_fork;

    #[test]
    #[cfg_attr(miri, ignore = "it knows no forks")]
    fn a_child_leaves_a_file_though_the_list_was_locked_at_the_fork() {
        // Only where there is a ring is a fork noticed.
        let Ok(_ring) = crate::RawRing::new(std::num::NonZeroU32::MIN) else { return };
        let left = Left::new(Waker::new().unwrap());
        let mut file = Some(FixedFile::hold(FilePlace::of(&left)));
        let guard = left.files();
        in_fork(|| {
            drop(file.take());
            !left.is_any()
        });
        drop((guard, file));
        assert!(left.is_any());
    }
}
