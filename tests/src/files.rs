//! Files for tests.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A file without a name, in memory.
pub fn nameless_file() -> File {
    // SAFETY: a plain call; the name is a C string, for people only.
    let descriptor = unsafe { libc::memfd_create(c"nameless".as_ptr(), libc::MFD_CLOEXEC) };
    assert!(descriptor >= 0);
    // SAFETY: it is new, and nobody else's.
    unsafe { File::from_raw_fd(descriptor) }
}

/// Whether a descriptor stays open in programs that this process becomes (`exec`).
pub fn is_inherited(fd: &impl AsRawFd) -> bool {
    // SAFETY: a plain call.
    let flags = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFD) };
    assert!(flags >= 0, "it is open");
    flags & libc::FD_CLOEXEC == 0
}

/// A name that nothing else of this process has or had. What a socket was bound to may be taken for a while after it was
/// closed: a child that another test starts has the descriptor, too, until it is the other program.
fn name(what: &str) -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    format!("rummelplatz-{what}-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))
}

/// An address for a socket, in no directory.
pub fn address(what: &str) -> SocketAddr {
    SocketAddr::from_abstract_name(name(what)).unwrap()
}

/// The directory of one test, which is removed in the end.
pub struct Directory(PathBuf);

impl Directory {
    pub fn new(what: &str) -> Directory {
        loop {
            let path = std::env::temp_dir().join(name(what));
            match fs::create_dir(&path) {
                Ok(()) => return Directory(path),
                // A process with this number was killed, and has left it behind.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => panic!("{}: {error}", path.display()),
            }
        }
    }

    /// The directory's own path.
    pub fn root(&self) -> &Path {
        &self.0
    }

    /// The path of the file with this name.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// [`path`](Self::path), as requests take it.
    pub fn c_path(&self, name: &str) -> CString {
        CString::new(self.path(name).as_os_str().as_bytes()).unwrap()
    }

    /// Creates a file. Returns its path.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        fs::write(self.path(name), content).unwrap();
        self.path(name)
    }

    /// The contents of a file, if it exists.
    pub fn read(&self, name: &str) -> Option<Vec<u8>> {
        fs::read(self.path(name)).ok()
    }

    /// The directory itself.
    pub fn open(&self) -> File {
        File::open(&self.0).unwrap()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}
