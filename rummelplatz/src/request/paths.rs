//! Requests on names of files: they are relative to a directory, or to [`CWD`](super::CWD).

use std::ffi::CStr;
use std::fmt;
use std::ops::BitOr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, SystemTime};

use io_uring::opcode;

use super::aside::{Aside, How};
use super::entry::{bare, fd};
use super::sqe::Usual;
use super::{Parts, Request};
use crate::facts::Yields;

/// The current directory of the process, for [`openat`] (`AT_FDCWD`).
pub const CWD: BorrowedFd<'static> = current_directory();

const fn current_directory() -> BorrowedFd<'static> {
    // SAFETY: AT_FDCWD is not a descriptor that could be closed, it is not -1, and every call that takes a directory
    // takes it; elsewhere the kernel refuses it with EBADF.
    unsafe { BorrowedFd::borrow_raw(libc::AT_FDCWD) }
}

/// Opens a file (`IORING_OP_OPENAT`, since 5.6); `path` is relative to `directory`, or to
/// [`CWD`](crate::request::CWD).
///
/// The file comes out of [`into_fd`](crate::Completion::into_fd), close-on-exec. If the options say how the path is to be
/// [resolved](OpenOptions::resolve), this is `IORING_OP_OPENAT2` (since 5.6).
#[doc(alias = "open")]
#[doc(alias = "openat2")]
pub fn openat<'d>(directory: &'d impl AsFd, path: &'d CStr, options: &OpenOptions) -> Request<'d> {
    let flags = options.flags();
    let parts = match options.resolve {
        None => Parts::usual(opening(directory, path, flags, options.mode)),
        Some(resolve) => opening_as(directory, path, Aside::How(options.how(flags, resolve))),
    };
    parts.yielding(Yields::Descriptor).request()
}

/// As [`openat`], except that the kernel puts the file into the ring's table (since 5.19): it comes out of
/// [`into_fixed_file`](crate::Completion::into_fixed_file).
///
/// Ends with `ENFILE` if there is no room in the table: see
/// [`Builder::direct_descriptors`](crate::Builder::direct_descriptors).
///
/// ```
/// # use rummelplatz::{Completion, ControlFlow, FixedFile, RingOperation, SubmitError, Submitter, request, ring};
/// # use rummelplatz::request::{OpenOptions, Request};
/// # use std::{error::Error, ffi::CString, io, num::NonZeroU32};
/// # #[ring]
/// # struct Program { files: Files }
/// # #[derive(RingOperation)]
/// # #[ring_operation(ring = Program, data = Job, error = io::Error, on_completion)]
/// # struct Files;
/// enum Job {
///     Open(CString),
///     Read { file: FixedFile, buffer: Vec<u8> },
/// }
///
/// impl Job {
///     fn request(&mut self) -> Request<'_> {
///         match self {
///             Job::Open(path) => request::openat_direct(&request::CWD, path, &OpenOptions::new()),
///             Job::Read { file, buffer } => request::read_at(file, buffer, 0),
///         }
///     }
/// }
///
/// # impl Files {
/// fn on_completion(&mut self, completion: Completion, job: Job, mut submitter: Submitter<'_, Program, Self>)
///     -> io::Result<()>
/// {
///     match job {
///         Job::Open(_) => {
///             let file = completion.into_fixed_file()?;
///             submitter.submit(Job::Read { file, buffer: vec![0; 64] }, Job::request)?;
///         }
///         Job::Read { buffer, .. } => {
///             let bytes = completion.result()? as usize;
///             println!("{}", String::from_utf8_lossy(&buffer[..bytes]));
/// #           assert!(bytes > 0);
///         }
///     }
///     Ok(()) // When the last clone of the file is gone, it is closed.
/// }
/// # }
/// # fn main() -> Result<(), Box<dyn Error>> {
/// # let places = NonZeroU32::MIN;
/// let mut program = Program::builder(Files).direct_descriptors(places).build()?;
/// # let path = CString::new("/proc/version")?;
/// program.submitter(Program::FILES).submit(Job::Open(path), Job::request)?;
/// program.run()?;
/// # Ok(()) }
/// ```
pub fn openat_direct<'d>(directory: &'d impl AsFd, path: &'d CStr, options: &OpenOptions) -> Request<'d> {
    // The kernel refuses `O_CLOEXEC` here: no program that is executed has the table.
    let flags = options.flags() & !libc::O_CLOEXEC;
    let parts = match options.resolve {
        None => Parts::direct(opening(directory, path, flags, options.mode)),
        Some(resolve) => {
            let how = Aside::HowDirect(options.how(flags, resolve));
            opening_as(directory, path, how).yielding(Yields::Direct)
        }
    };
    parts.request()
}

fn opening(directory: &impl AsFd, path: &CStr, flags: i32, mode: u32) -> Usual {
    Usual { length: mode, op_flags: flags as u32, ..named(opcode::OpenAt::CODE, directory, path) }
}

fn opening_as<'d>(directory: &'d impl AsFd, path: &'d CStr, how: Aside) -> Parts<'d> {
    let entry = named(opcode::OpenAt2::CODE, directory, path);
    Parts::beside(Usual { length: size_of::<How>() as u32, ..entry }, how)
}

/// How the path to a file may be resolved, for [`OpenOptions::resolve`] (`openat2(2)`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Resolve(u64);

impl Resolve {
    /// The path must not leave the directory, neither by `..`, nor by a symbolic link, nor by being absolute: `EXDEV`
    /// (`RESOLVE_BENEATH`).
    pub const BENEATH: Resolve = Resolve(libc::RESOLVE_BENEATH);
    /// The directory is treated as the root: `..` and absolute paths lead no further up (`RESOLVE_IN_ROOT`).
    pub const IN_ROOT: Resolve = Resolve(libc::RESOLVE_IN_ROOT);
    /// Symbolic links are refused: `ELOOP` (`RESOLVE_NO_SYMLINKS`).
    pub const NO_SYMLINKS: Resolve = Resolve(libc::RESOLVE_NO_SYMLINKS);
    /// The path must not cross to another mount: `EXDEV` (`RESOLVE_NO_XDEV`).
    pub const NO_XDEV: Resolve = Resolve(libc::RESOLVE_NO_XDEV);
    /// Links such as those in `/proc/self/fd` are refused: `ELOOP` (`RESOLVE_NO_MAGICLINKS`).
    pub const NO_MAGICLINKS: Resolve = Resolve(libc::RESOLVE_NO_MAGICLINKS);
    /// Only what the cache has is used: `EAGAIN` if that is not enough (`RESOLVE_CACHED`, since 5.12).
    pub const CACHED: Resolve = Resolve(0x20);
}

impl BitOr for Resolve {
    type Output = Resolve;
    fn bitor(self, other: Resolve) -> Resolve {
        Resolve(self.0 | other.0)
    }
}

/// How [`openat`] opens a file; the methods are named as in [`std::fs::OpenOptions`].
#[derive(Clone, Debug)]
pub struct OpenOptions {
    read: bool,
    write: bool,
    append: bool,
    truncate: bool,
    create: bool,
    create_new: bool,
    custom_flags: i32,
    mode: u32,
    resolve: Option<Resolve>,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl OpenOptions {
    /// Nothing chosen yet: opens for reading.
    pub const fn new() -> Self {
        OpenOptions {
            read: false,
            write: false,
            append: false,
            truncate: false,
            create: false,
            create_new: false,
            custom_flags: 0,
            mode: 0o666,
            resolve: None,
        }
    }

    /// Opens for reading.
    pub const fn read(mut self, read: bool) -> Self {
        self.read = read;
        self
    }

    /// Opens for writing.
    pub const fn write(mut self, write: bool) -> Self {
        self.write = write;
        self
    }

    /// Writes always go to the end (`O_APPEND`).
    pub const fn append(mut self, append: bool) -> Self {
        self.append = append;
        self
    }

    /// Truncates the file to length 0 (`O_TRUNC`).
    pub const fn truncate(mut self, truncate: bool) -> Self {
        self.truncate = truncate;
        self
    }

    /// Creates the file if it does not exist (`O_CREAT`).
    pub const fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// Creates the file, and fails with `EEXIST` if it exists (`O_EXCL`).
    pub const fn create_new(mut self, create_new: bool) -> Self {
        self.create_new = create_new;
        self
    }

    /// Other `O_*` flags, such as `O_DIRECT`. Access modes among them are ignored.
    pub const fn custom_flags(mut self, flags: i32) -> Self {
        self.custom_flags = flags;
        self
    }

    /// The permissions of a file that is created, before the umask is applied: `0o666` by default.
    pub const fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    /// How the path may be resolved: for paths that come from somebody you do not trust.
    ///
    /// The kernel is then strict: it refuses with `EINVAL` what it otherwise ignores, such as unknown
    /// [`custom_flags`](Self::custom_flags).
    ///
    /// ```
    /// # use rummelplatz::{request, request::{OpenOptions, Request, Resolve}};
    /// # use std::{ffi::CString, fs::File, sync::Arc};
    /// struct Get { root: Arc<File>, path: CString }
    ///
    /// impl Get {
    ///     fn open(&mut self) -> Request<'_> {
    ///         let options = OpenOptions::new().resolve(Resolve::BENEATH | Resolve::NO_SYMLINKS);
    ///         request::openat(&self.root, &self.path, &options)
    ///     }
    /// }
    /// ```
    pub const fn resolve(mut self, resolve: Resolve) -> Self {
        self.resolve = Some(resolve);
        self
    }

    /// The options as `openat2` takes them: it accepts no mode for a file that is not created.
    fn how(&self, flags: i32, Resolve(resolve): Resolve) -> How {
        let creates = flags & libc::O_CREAT != 0 || flags & libc::O_TMPFILE == libc::O_TMPFILE;
        let mode = if creates { self.mode } else { 0 };
        How { flags: (flags as u32).into(), mode: mode.into(), resolve }
    }

    fn flags(&self) -> i32 {
        let writes = self.write || self.append;
        let access = match (self.read, writes) {
            (_, false) => libc::O_RDONLY,
            (false, true) => libc::O_WRONLY,
            (true, true) => libc::O_RDWR,
        };
        let chosen = [
            (self.append, libc::O_APPEND),
            (self.truncate, libc::O_TRUNC),
            (self.create, libc::O_CREAT),
            (self.create_new, libc::O_CREAT | libc::O_EXCL),
        ];
        let flags = chosen.iter().filter(|(on, _)| *on).map(|(_, flag)| flag);
        flags.fold(access | libc::O_CLOEXEC, |flags, flag| flags | flag)
            | (self.custom_flags & !libc::O_ACCMODE)
    }
}

/// An entry on a name in a directory.
fn named<'d>(opcode: u8, directory: &'d impl AsFd, path: &'d CStr) -> Usual {
    Usual { address: address_of(path), ..bare(opcode.into(), fd(directory)) }
}

/// An entry on two names in two directories.
fn from_to<'d>(
    opcode: u8,
    (directory, path): (&'d impl AsFd, &'d CStr),
    (to_directory, to_path): (&'d impl AsFd, &'d CStr),
) -> Usual {
    let (offset, length) = (address_of(to_path), fd(to_directory) as u32);
    Usual { offset, length, ..named(opcode, directory, path) }
}

fn address_of(path: &CStr) -> u64 {
    path.as_ptr().expose_provenance() as u64
}

/// Removes a name, and the file if that was its last name, as `unlink(2)` (`IORING_OP_UNLINKAT`, since 5.11).
#[doc(alias = "unlink")]
#[doc(alias = "remove_file")]
pub fn unlinkat<'d>(directory: &'d impl AsFd, path: &'d CStr) -> Request<'d> {
    Parts::usual(named(opcode::UnlinkAt::CODE, directory, path)).request()
}

/// Removes an empty directory, as `rmdir(2)` (`AT_REMOVEDIR`, since 5.11).
#[doc(alias = "rmdir")]
#[doc(alias = "remove_dir")]
pub fn rmdirat<'d>(directory: &'d impl AsFd, path: &'d CStr) -> Request<'d> {
    let entry = named(opcode::UnlinkAt::CODE, directory, path);
    Parts::usual(Usual { op_flags: libc::AT_REMOVEDIR as u32, ..entry }).request()
}

/// Makes a directory with the permissions `mode`, before the umask is applied, as `mkdir(2)` (`IORING_OP_MKDIRAT`,
/// since 5.15).
#[doc(alias = "mkdir")]
#[doc(alias = "create_dir")]
pub fn mkdirat<'d>(directory: &'d impl AsFd, path: &'d CStr, mode: u32) -> Request<'d> {
    Parts::usual(Usual { length: mode, ..named(opcode::MkDirAt::CODE, directory, path) }).request()
}

/// What [`renameat`] does if the new name is taken (`renameat2(2)`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Rename {
    /// Replaces what was there.
    Replace,
    /// Fails with `EEXIST` (`RENAME_NOREPLACE`).
    NoReplace,
    /// Exchanges the two files (`RENAME_EXCHANGE`).
    Exchange,
}

/// Gives a file another name, as `renameat2(2)` (`IORING_OP_RENAMEAT`, since 5.11).
#[doc(alias = "rename")]
pub fn renameat<'d>(
    directory: &'d impl AsFd,
    path: &'d CStr,
    new_directory: &'d impl AsFd,
    new_path: &'d CStr,
    how: Rename,
) -> Request<'d> {
    let op_flags = match how {
        Rename::Replace => 0,
        Rename::NoReplace => libc::RENAME_NOREPLACE,
        Rename::Exchange => libc::RENAME_EXCHANGE,
    };
    let entry = from_to(opcode::RenameAt::CODE, (directory, path), (new_directory, new_path));
    Parts::usual(Usual { op_flags, ..entry }).request()
}

/// Gives a file an additional name, as `linkat(2)` (`IORING_OP_LINKAT`, since 5.15).
#[doc(alias = "link")]
#[doc(alias = "hard_link")]
pub fn linkat<'d>(
    directory: &'d impl AsFd,
    path: &'d CStr,
    new_directory: &'d impl AsFd,
    new_path: &'d CStr,
) -> Request<'d> {
    Parts::usual(from_to(opcode::LinkAt::CODE, (directory, path), (new_directory, new_path))).request()
}

/// Makes a symbolic link at `path` that leads to `target`, as `symlinkat(2)` (`IORING_OP_SYMLINKAT`, since 5.15).
#[doc(alias = "symlink")]
pub fn symlinkat<'d>(target: &'d CStr, directory: &'d impl AsFd, path: &'d CStr) -> Request<'d> {
    let entry = named(opcode::SymlinkAt::CODE, directory, target);
    Parts::usual(Usual { offset: address_of(path), ..entry }).request()
}

/// What [`statx`] finds out about a file; all zero until the request has succeeded.
#[derive(Clone, Copy)]
pub struct Statx(libc::statx);

impl Default for Statx {
    fn default() -> Self {
        Self::new()
    }
}

impl Statx {
    /// Nothing is known yet.
    pub const fn new() -> Statx {
        // SAFETY: it consists of numbers.
        Statx(unsafe { std::mem::zeroed() })
    }

    /// The size in bytes.
    pub const fn len(&self) -> u64 {
        self.0.stx_size
    }

    /// Whether the size is zero.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The kind of file and its permissions (`st_mode`).
    pub const fn mode(&self) -> u32 {
        self.0.stx_mode as u32
    }

    /// Whether it is a directory.
    pub const fn is_dir(&self) -> bool {
        self.mode() & libc::S_IFMT == libc::S_IFDIR
    }

    /// Whether it is a regular file.
    pub const fn is_file(&self) -> bool {
        self.mode() & libc::S_IFMT == libc::S_IFREG
    }

    /// When the contents last changed; `None` for a time that can't be represented.
    pub fn modified(&self) -> Option<SystemTime> {
        let libc::statx_timestamp { tv_sec, tv_nsec, .. } = self.0.stx_mtime;
        let seconds = Duration::from_secs(tv_sec.unsigned_abs());
        let whole = match tv_sec >= 0 {
            true => SystemTime::UNIX_EPOCH.checked_add(seconds),
            false => SystemTime::UNIX_EPOCH.checked_sub(seconds),
        };
        whole?.checked_add(Duration::from_nanos(tv_nsec.into()))
    }

    /// Everything that the kernel has said (`struct statx`).
    pub const fn as_raw(&self) -> &libc::statx {
        &self.0
    }
}

impl fmt::Debug for Statx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Statx").field("mode", &self.mode()).field("len", &self.len()).finish_non_exhaustive()
    }
}

/// What is asked for: the basic fields and the time of birth.
const MASK: u32 = libc::STATX_BASIC_STATS | libc::STATX_BTIME;

/// Gets the attributes of a file by its name, as `statx(2)` (`IORING_OP_STATX`, since 5.6). Follows symbolic links.
///
/// Asks for the basic fields and the time of birth; `stx_mask` leaves out what the file system does not know.
#[doc(alias = "stat")]
#[doc(alias = "metadata")]
pub fn statx<'d>(directory: &'d impl AsFd, path: &'d CStr, statx: &'d mut Statx) -> Request<'d> {
    stat(directory, path, statx, 0)
}

/// Gets the attributes of an open file, as `fstat(2)` (`AT_EMPTY_PATH`, since 5.6).
pub fn fstat<'d>(file: &'d impl AsFd, statx: &'d mut Statx) -> Request<'d> {
    stat(file, c"", statx, libc::AT_EMPTY_PATH)
}

fn stat<'d>(directory: &'d impl AsFd, path: &'d CStr, statx: &'d mut Statx, flags: i32) -> Request<'d> {
    *statx = Statx::new();
    let offset = (&raw mut statx.0).expose_provenance() as u64;
    let entry = named(opcode::Statx::CODE, directory, path);
    Parts::usual(Usual { offset, length: MASK, op_flags: flags as u32, ..entry }).request()
}
