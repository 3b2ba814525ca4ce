//! Tests of requests that are the same under every kernel. Each is given a function that makes a ring on the kernel to
//! test.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use rummelplatz::request::{CWD, ChildStatus, Resolve, RwFlags, SetAttribute, SyncRange};
use rummelplatz::{ControlFlow, FixedBuffer, FixedBuffers, FixedFile, RawRing, Request, request};

use crate::{Bench, Directory, Log, Script, complete_on, nameless_file, once_on, outcome, pipe};

pub fn a_child_is_waited_for_and_says_how_it_has_ended(raw: impl Fn() -> RawRing) {
    /// A shell that runs this, and a descriptor of it.
    fn child(command: &str) -> (Child, OwnedFd) {
        let child = Command::new("sh").args(["-c", command]).stdin(Stdio::piped()).spawn().unwrap();
        // SAFETY: a plain call.
        let pidfd = unsafe { libc::syscall(libc::SYS_pidfd_open, child.id(), 0) };
        assert!(pidfd >= 0);
        // SAFETY: it was just opened.
        (child, unsafe { OwnedFd::from_raw_fd(pidfd as i32) })
    }
    let wait = |command: &str| {
        let (child, pidfd) = child(command);
        let data = (child, pidfd, ChildStatus::new());
        let (result, (mut child, pidfd, status)) =
            once_on(raw(), data, |(_, pidfd, status)| request::waitid(pidfd, status));
        assert!(child.wait().is_err(), "it is not there any more");
        (result, status, pidfd)
    };
    let (result, status, pidfd) = wait("exit 7");
    assert_eq!((result, status.exit_code(), status.signal()), (Ok(0), Some(7), None));
    let (result, killed, _) = wait("kill -KILL $$");
    assert_eq!((result, killed.exit_code(), killed.signal()), (Ok(0), None, Some(libc::SIGKILL)));
    assert!(!killed.core_dumped());
    // Nothing is left over from the one before.
    let (again, (_, status)) =
        once_on(raw(), (pidfd, status), |(pidfd, status)| request::waitid(pidfd, status));
    assert_eq!((again, status.exit_code(), status.signal()), (Err(libc::ECHILD), None, None));
    let (wrong, _) = once_on(raw(), (pipe(), status), |(pipe, status)| request::waitid(&pipe.0, status));
    assert_eq!(wrong, Err(libc::EBADF));
    // One that goes on until its standard input is closed.
    let (mut waits, pidfd) = child("read line");
    let (completion, (pidfd, status)) = complete_on(raw(), (pidfd, ChildStatus::new()), |(pidfd, status)| {
        request::waitid(pidfd, status).deadline(Duration::from_millis(2))
    });
    assert_eq!((outcome(&completion), completion.timed_out()), (Err(libc::ECANCELED), true));
    assert_eq!((status.exit_code(), status.signal()), (None, None));
    drop(waits.stdin.take());
    let (result, (_, status)) =
        once_on(raw(), (pidfd, status), |(pidfd, status)| request::waitid(pidfd, status));
    assert_eq!((result, status.exit_code()), (Ok(0), Some(1)));
}

pub fn attributes_are_set_and_read(raw: impl Fn() -> RawRing) {
    let there = Directory::new("attributes");
    there.file("file", b"");
    let name = || CString::new("user.colour").unwrap();
    let open = || File::open(there.path("file")).unwrap();
    let set = |value: &'static [u8], how| {
        once_on(raw(), (there.c_path("file"), name()), move |(path, name)| {
            request::setxattr(path, name, value, how)
        })
        .0
    };
    let made = set(b"red", SetAttribute::Create);
    // Not every file system supports this.
    if made == Err(libc::EOPNOTSUPP) {
        return eprintln!("skipped: there are no attributes here");
    }
    assert_eq!(made, Ok(0));
    assert_eq!(set(b"blue", SetAttribute::Create), Err(libc::EEXIST));
    assert_eq!(set(b"green", SetAttribute::Any), Ok(0));
    let data = (there.c_path("file"), name(), [0; 8]);
    let (read, (path, _, value)) =
        once_on(raw(), data, |(path, name, value)| request::getxattr(path, name, value));
    assert_eq!((read, &value[..5]), (Ok(5), &b"green"[..]));
    let (read, _) =
        once_on(raw(), (path, name(), [0; 2]), |(path, name, value)| request::getxattr(path, name, value));
    assert_eq!(read, Err(libc::ERANGE));
    // The same for an open file.
    let (set, _) = once_on(raw(), (open(), name()), |(file, name)| {
        request::fsetxattr(file, name, b"no", SetAttribute::Replace)
    });
    assert_eq!(set, Ok(0));
    let (read, (.., value)) =
        once_on(raw(), (open(), name(), [0; 4]), |(file, name, value)| request::fgetxattr(file, name, value));
    assert_eq!((read, &value), (Ok(2), b"no\0\0"));
    let other = (open(), CString::new("user.size").unwrap());
    let (length, other) = once_on(raw(), other, |(file, name)| request::fgetxattr(file, name, &mut []));
    assert_eq!(length, Err(libc::ENODATA));
    let (missing, _) =
        once_on(raw(), other, |(file, name)| request::fsetxattr(file, name, b"1", SetAttribute::Replace));
    assert_eq!(missing, Err(libc::ENODATA));
}

pub fn pipes_are_copied_and_ranges_written_back(raw: impl Fn() -> RawRing) {
    let ((from, writer), (reader, to)) = (pipe(), pipe());
    File::from(writer).write_all(b"hello").unwrap();
    let (copied, (from, to)) = once_on(raw(), (from, to), |(from, to)| request::tee(from, to, 3));
    drop(to);
    let read = |reader: OwnedFd| {
        let mut bytes = Vec::new();
        File::from(reader).read_to_end(&mut bytes).unwrap();
        bytes
    };
    assert_eq!((copied, read(reader), read(from)), (Ok(3), b"hel".to_vec(), b"hello".to_vec()));

    let there = Directory::new("range");
    there.file("file", [7; 8192]);
    let file = OpenOptions::new().write(true).open(there.path("file")).unwrap();
    let all = SyncRange::WAIT_BEFORE | SyncRange::WRITE | SyncRange::WAIT_AFTER;
    let (written, _) = once_on(raw(), file, move |file| request::sync_file_range(file, 4096, 0, all));
    assert_eq!(written, Ok(0));
    let (wrong, _) = once_on(raw(), pipe(), |pipe| request::sync_file_range(&pipe.1, 0, 0, SyncRange::WRITE));
    assert_eq!(wrong, Err(libc::ESPIPE));
}

pub fn a_path_leads_only_where_it_may(raw: impl Fn() -> RawRing) {
    let there = Directory::new("resolve");
    there.file("file", b"inside");
    let root = there.path("root");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("file"), b"below").unwrap();
    std::os::unix::fs::symlink("../file", root.join("out")).unwrap();
    std::os::unix::fs::symlink("file", root.join("in")).unwrap();
    let read = |path: &str, resolve: Option<Resolve>| {
        let data = (File::open(&root).unwrap(), CString::new(path).unwrap());
        let (completion, _) = complete_on(raw(), data, move |(root, path)| {
            let options = request::OpenOptions::new();
            request::openat(root, path, &resolve.map_or(options.clone(), |how| options.resolve(how)))
        });
        let mut text = String::new();
        let file = completion.into_fd().map_err(|error| error.raw_os_error().unwrap())?;
        File::from(file).read_to_string(&mut text).unwrap();
        Ok::<_, i32>(text)
    };
    let (inside, below) = (Ok("inside".to_owned()), Ok("below".to_owned()));
    assert_eq!(read("out", None), inside);
    for (path, resolve, expected) in [
        ("file", Resolve::BENEATH, below.clone()),
        ("in", Resolve::BENEATH, below.clone()),
        ("out", Resolve::BENEATH, Err(libc::EXDEV)),
        ("../file", Resolve::BENEATH, Err(libc::EXDEV)),
        ("../file", Resolve::IN_ROOT, below.clone()),
        ("/file", Resolve::IN_ROOT, below.clone()),
        ("in", Resolve::NO_SYMLINKS, Err(libc::ELOOP)),
        ("out", Resolve::NO_SYMLINKS | Resolve::BENEATH, Err(libc::ELOOP)),
        ("/proc/self/exe", Resolve::NO_MAGICLINKS, Err(libc::ELOOP)),
        ("/proc/self/status", Resolve::NO_XDEV, Err(libc::EXDEV)),
    ] {
        assert_eq!(read(path, Some(resolve)), expected, "{path} with {resolve:?}");
    }
    let cached = read("file", Some(Resolve::CACHED));
    assert!(cached == below || cached == Err(libc::EAGAIN), "{cached:?}");
    let (completion, _) = complete_on(raw(), there.c_path("file"), |path| {
        request::openat(&CWD, path, &request::OpenOptions::new().resolve(Resolve::NO_MAGICLINKS))
    });
    assert_eq!(outcome(&completion), Ok(0));
    // A file that is created.
    let data = (File::open(&root).unwrap(), CString::new("new").unwrap());
    let (completion, _) = complete_on(raw(), data, |(root, path)| {
        let options = request::OpenOptions::new().write(true).create_new(true).mode(0o600);
        request::openat(root, path, &options.resolve(Resolve::BENEATH))
    });
    assert!(completion.into_fd().is_ok());
    assert_eq!(fs::metadata(root.join("new")).unwrap().permissions().mode() & 0o777, 0o600);
}

/// What requests on parts of registered buffers use.
struct Parts {
    file: File,
    registered: FixedFile,
    pipe: (OwnedFd, OwnedFd),
    buffers: Vec<FixedBuffer>,
    other: FixedBuffer,
    unregistered: FixedBuffer,
}

pub fn parts_of_registered_buffers_are_moved_in_their_order(raw: impl Fn() -> RawRing) {
    type Step = (for<'d> fn(&'d mut Parts) -> Request<'d>, Result<u32, i32>);
    const STEPS: &[Step] = &[
        (
            |it| {
                for (buffer, bytes) in it.buffers.iter_mut().zip([b"01234567", b"abcdefgh", b"ABCDEFGH"]) {
                    buffer.copy_from_slice(bytes);
                }
                let [zero, one, two] = &it.buffers[..] else { panic!("there are three") };
                let parts = [two.part(1..4), zero.part(..0), zero.part(5..), one.part(..)];
                request::write_vectored_fixed_at(&it.file, parts, 3)
            },
            Ok(14),
        ),
        // At a place of the queue that had an index before.
        (|it| request::fsync(&it.file), Ok(0)),
        // More than the kernel takes.
        (
            |it| {
                let parts = std::iter::repeat_n(it.buffers[0].part(..1), 1025);
                request::write_vectored_fixed_at(&it.registered, parts, 100)
            },
            Ok(1024),
        ),
        (|it| request::fsync(&it.registered), Ok(0)),
        (|it| request::read_vectored_fixed_at(&it.file, it.buffers.iter_mut().rev(), 3), Ok(24)),
        (
            |it| {
                let [zero, one, two] = &it.buffers[..] else { panic!("there are three") };
                assert_eq!((&**two, &**one, &**zero), (&b"BCD567ab"[..], &b"cdefgh\0\0"[..], &[0; 8][..]));
                // Neighbours in memory, at the file's own position.
                request::write_vectored_fixed(&it.registered, &it.buffers)
            },
            Ok(24),
        ),
        (|it| request::read_vectored_fixed(&it.registered, [it.buffers[1].part_mut(..2)]), Ok(2)),
        (
            |it| {
                assert_eq!(it.buffers[1][..3], *b"\0\0e");
                let request = request::write_vectored_fixed_at(&it.file, [it.buffers[2].part(..2)], 0);
                request.rw_flags(RwFlags::APPEND)
            },
            Ok(2),
        ),
        // Nothing to be moved.
        (|it| request::read_vectored_fixed(&it.file, [it.unregistered.part_mut(..0)]), Ok(0)),
        (|it| request::write_vectored_fixed(&it.file, [] as [&FixedBuffer; 0]), Ok(0)),
        // What is not there, or not all in one set.
        (|it| request::write_vectored_fixed_at(&it.file, [&it.unregistered], 0), Err(libc::EFAULT)),
        (|it| request::write_vectored_fixed_at(&it.file, [&it.buffers[0], &it.other], 0), Err(libc::EFAULT)),
        (|it| request::read_vectored_fixed_at(&it.file, [&mut it.other, &mut it.buffers[0]], 0), {
            Err(libc::EFAULT)
        }),
        (|it| request::read_vectored_fixed_at(&it.file, [&mut it.other], 24), Ok(8)),
        // What has to wait.
        (
            |it| {
                assert_eq!(*it.other, [0; 8]);
                let request = request::read_vectored_fixed(&it.pipe.0, &mut it.buffers);
                request.deadline(Duration::from_millis(2))
            },
            Err(libc::ECANCELED),
        ),
        (
            |it| request::write_vectored_fixed(&it.pipe.1, [it.buffers[2].part(3..), it.other.part(..0)]),
            Ok(5),
        ),
        (|it| request::read_vectored_fixed(&it.pipe.0, &mut it.buffers), Ok(5)),
        (
            |it| {
                assert_eq!(it.buffers[0][..6], *b"567ab\0");
                request::nop()
            },
            Ok(0),
        ),
    ];
    // The set that is registered second has an index other than 0.
    for other_first in [false, true] {
        let sets = [3, 1, 1].map(|count| FixedBuffers::new(count, 8).unwrap());
        let file = nameless_file();
        let seen = Log::new();
        let (log, written) = (seen.clone(), file.try_clone().unwrap());
        let mut steps = STEPS.iter().map(|(step, _)| *step);
        let first = steps.next().unwrap();
        let script = Script::new()
            .on_setup_once(move |mut submitter| {
                let [set, other, unregistered] = &sets;
                for set in if other_first { [other, set] } else { [set, other] } {
                    submitter.register_buffers(set)?;
                }
                let data = Parts {
                    registered: submitter.register_file(&file)?,
                    file,
                    pipe: pipe(),
                    buffers: std::iter::from_fn(|| set.take()).collect(),
                    other: other.take().unwrap(),
                    unregistered: unregistered.take().unwrap(),
                };
                submitter.submit(data, first)?;
                Ok(())
            })
            .on_completion(move |completion, data, mut submitter| {
                log.push(outcome(&completion));
                if let Some(step) = steps.next() {
                    submitter.submit(data, step).unwrap();
                }
                (ControlFlow::Continue, None)
            });
        Bench::builder(script, Script::new()).raw_ring(raw()).build().unwrap().run().unwrap();
        let seen = seen.take();
        if seen[0] == Err(libc::EINVAL) {
            return eprintln!("skipped: needs Linux 6.15");
        }
        let expected: Vec<_> = STEPS.iter().map(|(_, expected)| *expected).collect();
        assert_eq!(seen, expected, "the other set first: {other_first}");
        let mut bytes = vec![0; 2000];
        let length = std::os::unix::fs::FileExt::read_at(&written, &mut bytes, 0).unwrap();
        assert_eq!((length, &bytes[1124..length]), (1126, &b"BC"[..]));
        assert_eq!(bytes[..24], *b"\0\0\0\0\0\0\0\0cdefgh\0\0BCD567ab");
    }
}

/// A number, a word to wait for, and another one.
type Words = (u32, Arc<AtomicU32>, Arc<AtomicU32>);

pub fn who_waits_for_a_word_is_woken_or_finds_another_value(raw: impl Fn() -> RawRing) {
    let (one, other) = (Arc::new(AtomicU32::new(5)), Arc::new(AtomicU32::new(5)));
    let data = {
        let (one, other) = (one.clone(), other.clone());
        move |number: u32| (number, one.clone(), other.clone())
    };
    type Build = for<'d> fn(&'d mut Words) -> Request<'d>;
    fn waits((_, word, _): &mut Words) -> Request<'_> {
        request::futex_wait(word, 5)
    }
    let seen = Log::new();
    let log = seen.clone();
    let again = data.clone();
    let mut last = None;
    let script = Script::new()
        .on_setup_once(move |mut submitter| {
            submitter.submit(data(1), |(_, word, _)| request::futex_wait(word, 4))?;
            for number in [2, 3] {
                submitter.submit(data(number), waits)?;
            }
            // These are not woken now.
            for number in [4, 12] {
                submitter.submit(data(number), waits)?;
            }
            submitter.submit(data(5), |(_, _, other)| request::futex_wait(other, 5))?;
            submitter.submit(data(6), |(_, word, _)| request::futex_wake(word, 2))?;
            Ok(())
        })
        .on_completion(move |completion, (number, ..): Words, mut submitter| {
            log.push((number, outcome(&completion), completion.timed_out()));
            let mut submit = |number, build: Build| submitter.submit(again(number), build).unwrap();
            match number {
                6 => {
                    last = Some(submit(7, waits));
                    submit(8, |(_, word, _)| request::futex_wake(word, 0));
                }
                8 => assert!(submitter.cancel(last.take().unwrap())),
                7 => _ = submit(9, |(_, word, _)| request::futex_wake(word, u32::MAX)),
                9 => _ = submit(10, |data| waits(data).deadline(Duration::from_millis(2))),
                10 => _ = submit(11, |(_, _, other)| request::futex_wake(other, 7)),
                _ => {}
            }
            (ControlFlow::Continue, None)
        });
    let mut ring = Bench::builder(script, Script::new()).raw_ring(raw()).build().unwrap();
    ring.run().unwrap();
    let mut seen = seen.take();
    if seen.contains(&(1, Err(libc::EINVAL), false)) {
        return eprintln!("skipped: needs Linux 6.7");
    }
    seen.sort();
    let results: Vec<_> = seen.iter().map(|(_, result, timed_out)| (*result, *timed_out)).collect();
    let (woken, cancelled) = ((Ok(0), false), Err(libc::ECANCELED));
    assert_eq!(
        results,
        [
            (Err(libc::EAGAIN), false),
            woken,
            woken,
            woken,
            woken,
            (Ok(2), false),
            (cancelled, false),
            (Ok(0), false),
            // Those that were left.
            (Ok(2), false),
            (cancelled, true),
            (Ok(1), false),
            woken,
        ]
    );
    assert_eq!((Arc::strong_count(&one), Arc::strong_count(&other)), (2, 2), "that of the handler");
}
