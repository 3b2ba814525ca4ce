//! Requests, one by one, compared with what std says of the same: names of files, room on disk, vectors, datagrams,
//! sockets.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rummelplatz::request::{Advice, Allocate, CWD, Peer, Rename, RwFlags, Statx};
use rummelplatz::{BufferPool, ControlFlow, Request, Stream, request};
use rummelplatz_tests::{
    Bench, Directory, Log, Script, addressable, anywhere, complete, is_inherited, once, outcome, pipe,
    tcp_pair, watched,
};

#[test]
fn names_come_and_go() {
    watched(|| {
        let there = Directory::new("names");
        there.file("one", b"first");
        let name = |name: &str| CString::new(name).unwrap();
        let paths = |from: &str, to: &str| (there.open(), name(from), name(to));
        let done = Ok(0);

        let link = paths("one", "two");
        assert_eq!(once(link, |(at, from, to)| request::linkat(at, from, at, to)).0, done);
        assert_eq!(there.read("two").unwrap(), b"first");
        let symlink = paths("one", "three");
        assert_eq!(once(symlink, |(at, from, to)| request::symlinkat(from, at, to)).0, done);
        assert_eq!(fs::read_link(there.path("three")).unwrap(), Path::new("one"));

        there.file("other", b"second");
        let rename = || paths("other", "two");
        let kept = once(rename(), |(at, from, to)| request::renameat(at, from, at, to, Rename::NoReplace)).0;
        assert_eq!(kept, Err(libc::EEXIST));
        let swapped =
            once(rename(), |(at, from, to)| request::renameat(at, from, at, to, Rename::Exchange)).0;
        assert_eq!((swapped, there.read("two").unwrap()), (done, b"second".to_vec()));
        let moved = once(rename(), |(at, from, to)| request::renameat(at, from, at, to, Rename::Replace)).0;
        assert_eq!((moved, there.read("other")), (done, None));
        assert_eq!(there.read("two").unwrap(), b"first");

        let absolute = (CWD, there.c_path("two"));
        assert_eq!(once(absolute, |(at, path)| request::unlinkat(at, path)).0, done);
        assert_eq!(there.read("two"), None);
        assert_eq!(
            once((CWD, there.c_path("two")), |(at, path)| request::unlinkat(at, path)).0,
            Err(libc::ENOENT)
        );

        let made = once((there.open(), name("below")), |(at, path)| request::mkdirat(at, path, 0o700)).0;
        let mode = fs::metadata(there.path("below")).unwrap().permissions().mode();
        assert_eq!((made, mode & 0o777), (done, 0o700));
        let not_a_file = once((there.open(), name("below")), |(at, path)| request::unlinkat(at, path)).0;
        assert_eq!(not_a_file, Err(libc::EISDIR));
        assert_eq!(once((there.open(), name("below")), |(at, path)| request::rmdirat(at, path)).0, done);
        assert!(!there.path("below").exists());
    });
}

#[test]
fn a_path_leads_only_where_it_may() {
    watched(|| anywhere::a_path_leads_only_where_it_may(|| addressable(8).0));
}

#[test]
fn what_is_known_of_a_file_is_what_std_knows() {
    watched(|| {
        let there = Directory::new("stat");
        there.file("file", [7; 12345]);
        let path = there.c_path("file");
        let known = fs::metadata(there.path("file")).unwrap();
        let is_it = |statx: &Statx| {
            assert_eq!((statx.len(), statx.mode(), statx.is_file()), (12345, known.mode(), true));
            assert_eq!((statx.modified(), statx.is_dir()), (known.modified().ok(), false));
            assert_eq!(statx.as_raw().stx_ino, known.ino());
        };
        let (result, (_, _, statx)) =
            once((CWD, path, Statx::new()), |(at, path, statx)| request::statx(at, path, statx));
        assert_eq!(result, Ok(0));
        is_it(&statx);
        let open = (File::open(there.path("file")).unwrap(), Statx::new());
        let (result, (_, statx)) = once(open, |(file, statx)| request::fstat(file, statx));
        assert_eq!(result, Ok(0));
        is_it(&statx);
        let (result, (_, statx)) =
            once((there.open(), Statx::new()), |(file, statx)| request::fstat(file, statx));
        assert!(result == Ok(0) && statx.is_dir());
        let nobody = (CWD, there.c_path("nobody"), statx);
        let (result, (_, _, statx)) = once(nobody, |(at, path, statx)| request::statx(at, path, statx));
        assert_eq!(
            (result, statx.len(), statx.modified()),
            (Err(libc::ENOENT), 0, Some(std::time::UNIX_EPOCH))
        );
    });
}

#[test]
fn a_file_grows_and_shrinks_and_gets_holes() {
    watched(|| {
        let there = Directory::new("room");
        there.file("file", [7; 16384]);
        let path = there.path("file");
        let file = || OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let length = || fs::metadata(&path).unwrap().len();

        assert_eq!(once(file(), |file| request::ftruncate(file, 12288)).0, Ok(0));
        assert_eq!(length(), 12288);
        assert_eq!(once(file(), |file| request::fallocate(file, Allocate::Extend, 12288, 4096)).0, Ok(0));
        assert_eq!(length(), 16384);
        assert_eq!(once(file(), |file| request::fallocate(file, Allocate::KeepSize, 16384, 4096)).0, Ok(0));
        assert_eq!(length(), 16384, "though there is room for more");
        let holed = once(file(), |file| request::fallocate(file, Allocate::PunchHole, 4096, 4096)).0;
        // Not every file system supports this.
        if holed != Err(libc::EOPNOTSUPP) {
            assert_eq!(holed, Ok(0));
            let mut bytes = [1; 12288];
            file().read_exact_at(&mut bytes, 0).unwrap();
            assert!(bytes[..4096] == [7; 4096] && bytes[4096..8192] == [0; 4096]);
        }
        for advice in [
            Advice::Normal,
            Advice::Random,
            Advice::Sequential,
            Advice::WillNeed,
            Advice::DontNeed,
            Advice::NoReuse,
        ] {
            let (result, _) = once((file(), advice), |(file, advice)| request::fadvise(file, *advice, 0, 0));
            assert_eq!(result, Ok(0), "{advice:?}");
        }
        let (pipe, _) = pipe();
        assert_eq!(once(pipe, |pipe| request::ftruncate(pipe, 0)).0, Err(libc::EINVAL), "it has no length");
    });
}

#[test]
fn several_buffers_are_written_and_read_in_their_order() {
    watched(|| {
        let there = Directory::new("vectors");
        there.file("file", b"");
        let path = there.path("file");
        let mut file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let data = (file.try_clone().unwrap(), *b"head ", vec![b'x'; 3], String::from(" tail"));
        let (result, _) = once(data, |(file, head, body, tail)| {
            request::writev_at(file, [&*head, body, tail.as_bytes()], 2)
        });
        assert_eq!((result, there.read("file").unwrap()), (Ok(13), b"\0\0head xxx tail".to_vec()));

        // As many as are kept in place, and more.
        let data = (file.try_clone().unwrap(), [[0; 2]; 7]);
        let (result, (_, read)) = once(data, |(file, parts)| {
            request::readv_at(file, parts.each_mut().map(|part| &mut part[..]), 1)
        });
        assert_eq!((result, read.concat()), (Ok(14), b"\0head xxx tail".to_vec()));
        let data = (file.try_clone().unwrap(), [0; 1], [0; 2], [0; 3], [0; 4]);
        let (result, (_, a, b, c, d)) =
            once(data, |(file, a, b, c, d)| request::readv_at(file, [a, b, c, d], 2));
        assert_eq!((result, a, b, c, d), (Ok(10), *b"h", *b"ea", *b"d x", *b"xx t"));

        // At the file's own position, and with no bytes to move.
        file.seek(std::io::SeekFrom::Start(2)).unwrap();
        let (result, _) = once((file.try_clone().unwrap(), *b"HE"), |(file, bytes)| {
            let (first, second) = bytes.split_at(1);
            request::writev(file, [first, &[], second])
        });
        assert_eq!((result, &there.read("file").unwrap()[..6]), (Ok(2), &b"\0\0HEad"[..]));
        let (result, (_, bytes)) =
            once((file.try_clone().unwrap(), [0; 3]), |(file, bytes)| request::readv(file, [bytes]));
        assert_eq!((result, bytes), (Ok(3), *b"ad "));
        assert_eq!(once(file, |file| request::writev(file, [])).0, Ok(0));
    });
}

#[test]
fn reads_and_writes_are_done_as_their_flags_say() {
    watched(|| {
        let there = Directory::new("rw-flags");
        there.file("file", b"0123");
        let file = || OpenOptions::new().read(true).write(true).open(there.path("file")).unwrap();
        for (flags, offset, content) in [
            (RwFlags::DSYNC, 4, &b"0123ab"[..]),
            (RwFlags::APPEND | RwFlags::SYNC, 0, b"0123abab"),
            (RwFlags::DSYNC | RwFlags::SYNC, 0, b"ab23abab"),
        ] {
            let (wrote, _) = once((file(), *b"ab"), move |(file, bytes)| {
                request::write_at(file, bytes, offset).rw_flags(flags)
            });
            assert_eq!((wrote, &there.read("file").unwrap()[..]), (Ok(2), content));
        }
        let (wrote, _) = once((file(), *b"c", *b"d"), |(file, one, other)| {
            request::writev_at(file, [one, other], 0).rw_flags(RwFlags::APPEND)
        });
        assert_eq!((wrote, there.read("file").unwrap()), (Ok(2), b"ab23ababcd".to_vec()));
        // Not every file system supports this.
        let (read, _) = once((file(), [0; 4]), |(file, bytes)| {
            request::read_at(file, bytes, 0).rw_flags(RwFlags::DONTCACHE)
        });
        assert!(matches!(read, Ok(4) | Err(libc::EOPNOTSUPP)), "{read:?}");
        // A request that would wait, and one that does not.
        let (reader, writer) = pipe();
        let nowait = |(result, (reader, _)): (_, (OwnedFd, [u8; 4]))| (result, reader);
        let read = |reader| {
            nowait(once((reader, [0; 4]), |(pipe, bytes)| {
                request::read(pipe, bytes).rw_flags(RwFlags::NOWAIT)
            }))
        };
        let (nothing, reader) = read(reader);
        assert_eq!(nothing, Err(libc::EAGAIN));
        File::from(writer).write_all(b"here").unwrap();
        assert_eq!(read(reader).0, Ok(4));
    });
}

#[test]
fn a_worker_does_what_it_is_left_and_ends_in_time() {
    watched(|| {
        let there = Directory::new("in-worker");
        there.file("file", b"0123");
        let data = (File::open(there.path("file")).unwrap(), [0; 4]);
        let (read, (_, bytes)) = once(data, |(file, bytes)| request::read_at(file, bytes, 0).in_worker());
        assert_eq!((read, &bytes), (Ok(4), b"0123"));
        assert_eq!(once((), |()| request::nop().in_worker()).0, Ok(0));
        // With nothing to read.
        let data = (pipe(), [0; 4]);
        let (completion, _) = complete(data, |(pipe, bytes)| {
            request::read(&pipe.0, bytes).in_worker().deadline(Duration::from_millis(2))
        });
        assert!(completion.timed_out());
        assert!(matches!(outcome(&completion), Err(libc::ECANCELED | libc::EINTR)), "{completion:?}");
        // With a buffer of a pool, which is available from the beginning.
        let pool = BufferPool::new(4, 8).unwrap();
        for _ in 0..20 {
            let mut ring = Bench::with(8, Script::new());
            for deadline in [Duration::from_millis(1), Duration::from_secs(100)] {
                let data = (pipe(), pool.clone());
                ring.submitter(Bench::FIRST)
                    .submit(data, move |(pipe, pool)| {
                        request::read_provided(&pipe.0, pool).in_worker().deadline(deadline)
                    })
                    .unwrap();
            }
            for _ in 0..3 {
                ring.turn().unwrap();
                thread::sleep(Duration::from_micros(500));
            }
            ring.finish().unwrap();
            assert_eq!((pool.available(), ring.stats().in_flight), (4, 0));
        }
    });
}

#[test]
fn what_waits_for_its_socket_is_done_when_that_is_ready() {
    watched(|| {
        let (mut theirs, ours) = tcp_pair();
        let writer = thread::spawn(move || {
            thread::sleep(Duration::from_millis(2));
            theirs.write_all(b"hello").unwrap();
            theirs
        });
        let (received, (ours, bytes)) =
            once((ours, [0; 8]), |(socket, bytes)| request::recv(socket, bytes).poll_first());
        assert_eq!((received, &bytes[..5]), (Ok(5), &b"hello"[..]));
        let mut theirs = writer.join().unwrap();
        let (sent, _) = once((ours, *b"back"), |(socket, bytes)| request::send(socket, bytes).poll_first());
        let mut back = [0; 4];
        theirs.read_exact(&mut back).unwrap();
        assert_eq!((sent, &back), (Ok(4), b"back"));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (completion, _) = complete(listener, |listener| request::accept(listener).poll_first());
        // Linux 6.10 supports this.
        match outcome(&completion) {
            Err(libc::EINVAL) => eprintln!("skipped: this kernel polls for no accept"),
            accepted => assert_eq!(accepted, Ok(0)),
        }
    });
}

#[test]
fn of_any_number_of_buffers_as_many_are_written_and_read_as_the_kernel_takes() {
    watched(|| {
        let there = Directory::new("many-pieces");
        there.file("file", b"");
        let open = || OpenOptions::new().read(true).write(true).open(there.path("file")).unwrap();
        let lines: Vec<String> = (0..20).map(|number| format!("line {number}\n")).collect();
        let whole = lines.concat().into_bytes();
        let data = (open(), lines);
        let (result, _) =
            once(data, |(file, lines)| request::write_vectored(file, lines.iter().map(String::as_bytes)));
        assert_eq!((result, there.read("file")), (Ok(whole.len() as u32), Some(whole.clone())));
        let (result, (_, read)) = once((open(), vec![vec![0; 7]; 40]), |(file, parts)| {
            request::read_vectored(file, parts.iter_mut().map(Vec::as_mut_slice).collect::<Vec<_>>())
        });
        assert_eq!((result, &read.concat()[..whole.len()]), (Ok(whole.len() as u32), &whole[..]));

        // Every second byte: no two are neighbours.
        let bytes: Vec<u8> = (0..3000_u16).map(|number| number as u8).collect();
        let seconds: Vec<u8> = bytes.iter().copied().step_by(2).collect();
        for count in [1024, 1025, 1500] {
            let (result, _) = once((open(), bytes.clone(), count), |(file, bytes, count)| {
                request::write_vectored_at(file, bytes.chunks(2).map(|two| &two[..1]).take(*count), 0)
            });
            assert_eq!((result, &there.read("file").unwrap()[..]), (Ok(1024), &seconds[..1024]), "{count}");
        }
        let (result, (_, read)) = once((open(), vec![0; 3000]), |(file, bytes)| {
            request::read_vectored_at(file, bytes.chunks_mut(2).map(|two| &mut two[..1]), 0)
        });
        let read: Vec<u8> = read.into_iter().step_by(2).collect();
        assert_eq!((result, &read[..1024], &read[1024..]), (Ok(1024), &seconds[..1024], &[0; 476][..]));
        // All of them together are one piece.
        let (result, _) = once((open(), bytes.clone()), |(file, bytes)| {
            request::write_vectored_at(file, bytes.chunks(1), 0)
        });
        assert_eq!((result, there.read("file")), (Ok(3000), Some(bytes)));
    });
}

#[test]
fn vectors_that_wait_for_room_are_kept_as_they_were() {
    watched(|| {
        const COUNT: usize = 40;
        let (reader, writer) = pipe();
        let writer = std::sync::Arc::new(writer);
        let script = Script::new()
            .on_setup_once(move |mut submitter| {
                for number in 0..COUNT as u8 {
                    let data = (writer.clone(), [number; 3]);
                    submitter.submit(data, |(pipe, bytes)| {
                        let (first, rest) = bytes.split_at(1);
                        match first[0] % 2 {
                            0 => request::writev(pipe, [rest, first]),
                            _ => request::writev(pipe, [&rest[1..], first, &[], &[], &[], &rest[..1]]),
                        }
                    })?;
                }
                Ok(())
            })
            .on_completion(|completion, _, _| {
                assert_eq!(outcome(&completion), Ok(3));
                (ControlFlow::Continue, None)
            });
        // More than fit, so most are in the backlog for some time.
        Bench::builder(script, Script::new()).entries(2.try_into().unwrap()).build().unwrap().run().unwrap();
        let mut bytes = Vec::new();
        File::from(reader).read_to_end(&mut bytes).unwrap();
        let mut threes: Vec<&[u8]> = bytes.chunks(3).collect();
        threes.sort();
        let expected: Vec<[u8; 3]> = (0..COUNT as u8).map(|number| [number; 3]).collect();
        assert_eq!(threes, expected);
    });
}

#[test]
fn bytes_are_spliced_through_a_pipe() {
    watched(|| {
        let there = Directory::new("splice");
        there.file("from", b"0123456789");
        let (reader, writer) = pipe();
        let from = File::open(there.path("from")).unwrap();
        let moved = once((from, writer), |(from, pipe)| request::splice(from, Some(3), pipe, None, 5)).0;
        assert_eq!(moved, Ok(5));
        let to = File::create(there.path("to")).unwrap();
        let (moved, (reader, _)) =
            once((reader, to), |(pipe, to)| request::splice(pipe, None, to, Some(1), 100));
        assert_eq!((moved, there.read("to").unwrap()), (Ok(5), b"\x0034567".to_vec()));
        let (ended, _) = once((reader, File::create(there.path("to")).unwrap()), |(pipe, to)| {
            request::splice(pipe, None, to, None, 1)
        });
        assert_eq!(ended, Ok(0), "nobody has the other end");
    });
}

#[test]
fn a_child_is_waited_for_and_says_how_it_has_ended() {
    watched(|| anywhere::a_child_is_waited_for_and_says_how_it_has_ended(|| addressable(8).0));
}

#[test]
fn attributes_are_set_and_read() {
    watched(|| anywhere::attributes_are_set_and_read(|| addressable(8).0));
}

#[test]
fn pipes_are_copied_and_ranges_written_back() {
    watched(|| anywhere::pipes_are_copied_and_ranges_written_back(|| addressable(8).0));
}

#[test]
fn what_is_to_be_whole_takes_its_time() {
    watched(|| {
        const MANY: usize = 8 << 20;
        // In pieces, as it comes.
        let (mut theirs, ours) = tcp_pair();
        let writer = thread::spawn(move || {
            for piece in [&b"in"[..], b" pie", b"ces, and the end"] {
                theirs.write_all(piece).unwrap();
                thread::sleep(Duration::from_millis(2));
            }
        });
        let receive = |data: &'static str| {
            let ours = OwnedFd::from(ours.try_clone().unwrap());
            let (result, (_, bytes)) =
                once((ours, vec![0; data.len()]), |(socket, bytes)| request::recv(socket, bytes).whole());
            let received = result.unwrap() as usize;
            assert_eq!(&bytes[..received], &data.as_bytes()[..received]);
            received
        };
        assert_eq!(receive("in pieces"), 9);
        assert_eq!(receive(", and the end, and no more"), ", and the end".len(), "all that there was");
        writer.join().unwrap();

        // As much as does not fit into the buffers between the two.
        let (mut theirs, ours) = tcp_pair();
        let reader = thread::spawn(move || std::io::copy(&mut theirs, &mut std::io::sink()).unwrap());
        let sent = |(result, data): (_, (OwnedFd, Vec<u8>))| {
            drop(data);
            result
        };
        let data = (OwnedFd::from(ours.try_clone().unwrap()), vec![7; MANY]);
        assert_eq!(sent(once(data, |(socket, bytes)| request::send(socket, bytes).whole())), Ok(MANY as u32));
        let data = (OwnedFd::from(ours), vec![7; MANY]);
        let pieces =
            once(data, |(socket, bytes)| request::send_vectored(socket, bytes.chunks(MANY / 8)).whole());
        assert_eq!(sent(pieces), Ok(MANY as u32));
        assert_eq!(reader.join().unwrap(), 2 * MANY as u64);
    });
}

/// More bytes than the kernel moves in one request; it takes a part of them for all.
struct TooMuch {
    name: &'static str,
    null: Arc<File>,
    socket: Arc<UnixStream>,
    bytes: Arc<Vec<u8>>,
    build: Build,
}

type Build = for<'d> fn(&'d mut TooMuch) -> Request<'d>;

#[test]
fn what_is_too_much_for_a_request_is_done_in_part_or_refused_where_nobody_would_know() {
    const MOST: u32 = 0x7fff_f000;
    const REFUSED: (Result<u32, i32>, Result<u32, i32>) = (Err(libc::EINVAL), Err(libc::ECANCELED));
    watched(|| {
        let write: [(_, Build); 2] = [
            ("write", |it| request::write(&it.null, &it.bytes)),
            ("writev", |it| request::write_vectored(&it.null, [&it.bytes[..], &it.bytes[..1]])),
        ];
        let send: [(_, Build); 2] = [
            ("send", |it| request::send(&*it.socket, &it.bytes)),
            ("send_vectored", |it| request::send_vectored(&*it.socket, [&it.bytes[..], &it.bytes[..1]])),
        ];
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let socket = Arc::new(ours);
        let null = Arc::new(OpenOptions::new().write(true).open("/dev/null").unwrap());
        // Nothing of this memory is touched.
        let bytes = Arc::new(vec![0; (1 << 31) + 1]);
        let too_much = |(name, build)| TooMuch {
            name,
            build,
            null: null.clone(),
            socket: socket.clone(),
            bytes: bytes.clone(),
        };

        for what in write {
            assert_eq!(once(too_much(what), |it| (it.build)(it)).0, Ok(MOST), "{}", what.0);
        }
        for (what, refused) in send.into_iter().zip([libc::EINVAL, libc::EMSGSIZE]) {
            let (whole, _) = once(too_much(what), |it| (it.build)(it).whole());
            assert_eq!(whole, Err(refused), "{}", what.0);
            let (sent, _) = once(too_much(what), |it| (it.build)(it));
            if what.0 == "send" {
                assert_eq!(sent, Err(libc::EINVAL), "to the kernel, its length is negative");
                continue;
            }
            assert!(sent.is_ok_and(|sent| 0 < sent && sent < MOST), "as much as there is room for: {sent:?}");
            let mut sent = vec![0; sent.unwrap() as usize];
            theirs.read_exact(&mut sent).unwrap();
        }
        let (_keep, tcp) = tcp_pair();
        let send_zc = once((tcp, bytes.clone()), |(tcp, bytes)| request::send_zc(tcp, bytes).whole());
        assert_eq!(send_zc.0, Err(libc::EINVAL));
        let (_keep, tcp) = tcp_pair();
        let vectored = once((tcp, bytes.clone()), |(tcp, bytes)| {
            request::send_vectored_zc(tcp, [&bytes[..], &bytes[..1]]).whole()
        });
        assert_eq!(vectored.0, Err(libc::EMSGSIZE));

        for what in write.into_iter().chain(send) {
            let seen = Log::new();
            let log = seen.clone();
            let script = Script::new().on_completion(move |completion, data: TooMuch, _| {
                log.push((data.name, outcome(&completion)));
                (ControlFlow::Continue, None)
            });
            let mut ring = Bench::with(8, script);
            let mut submitter = ring.submitter(Bench::FIRST);
            let mut chain = submitter.chain();
            chain.link(too_much(what), |it| (it.build)(it)).unwrap();
            chain.submit(too_much(("next", |_| request::nop())), |it| (it.build)(it)).unwrap();
            submitter.detach(too_much(what), |it| (it.build)(it)).unwrap();
            ring.run().unwrap();
            let mut seen = seen.take();
            seen.sort_by_key(|(name, _)| *name == "next");
            let (own, next) = REFUSED;
            let own = if what.0 == "send_vectored" { Err(libc::EMSGSIZE) } else { own };
            assert_eq!(seen, [(what.0, own), ("next", next)]);
            assert_eq!(ring.stats().detached_failed, 1, "{}", what.0);
        }
        drop(socket);
        assert_eq!(theirs.read(&mut [0; 8]).unwrap(), 0, "none of it was sent");
    });
}

#[test]
fn a_datagram_says_where_it_came_from_and_goes_where_it_is_sent() {
    watched(|| {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(ours) = UdpSocket::bind(address) else {
                eprintln!("skipped: nothing can be bound to {address}");
                continue;
            };
            let theirs = UdpSocket::bind(address).unwrap();
            let (here, there) = (ours.local_addr().unwrap(), theirs.local_addr().unwrap());
            theirs.send_to(b"longer than the buffer", here).unwrap();
            let (result, (ours, bytes, peer)) = once((ours, [0; 6], Peer::new()), |(socket, bytes, peer)| {
                request::recv_from(socket, bytes, peer)
            });
            assert_eq!((result, bytes, peer.address()), (Ok(6), *b"longer", Some(there)));
            let (result, (ours, ..)) = once((ours, bytes, peer), |(socket, bytes, peer)| {
                request::send_to(socket, &bytes[..4], peer.address().unwrap())
            });
            assert_eq!(result, Ok(4));
            let mut answer = [0; 10];
            let (length, sender) = theirs.recv_from(&mut answer).unwrap();
            assert_eq!((&answer[..length], sender), (&b"long"[..], here));
            // The same without a copy.
            let (result, (ours, ..)) = once((ours, bytes, peer), |(socket, bytes, peer)| {
                request::send_to_zc(socket, &bytes[1..], peer.address().unwrap())
            });
            let (length, sender) = theirs.recv_from(&mut answer).unwrap();
            assert_eq!((result, &answer[..length], sender), (Ok(5), &b"onger"[..], here));
            let (result, (ours, _)) = once((ours, vec![7; 1 << 16]), move |(socket, bytes)| {
                request::send_to_zc(socket, bytes, there)
            });
            assert_eq!(result, Err(libc::EMSGSIZE), "more than a datagram has room for");
            // If there is none, there is no sender, either.
            let (result, (ours, _, peer)) = once((ours, bytes, peer), |(socket, bytes, peer)| {
                request::recv_from(socket, bytes, peer).deadline(Duration::from_millis(1))
            });
            assert_eq!((result, peer.address()), (Err(libc::ECANCELED), None));
            // Broadcasts must be allowed explicitly.
            let (result, _) = once(ours, |socket| {
                request::send_to(socket, b"x", SocketAddr::from(([255, 255, 255, 255], 1)))
            });
            let is_refused =
                matches!(result, Err(libc::EACCES | libc::EAFNOSUPPORT | libc::EINVAL | libc::ENETUNREACH));
            assert!(is_refused, "{result:?}");
        }
        // A peer without an Internet address.
        let (ours, theirs) = std::os::unix::net::UnixDatagram::pair().unwrap();
        theirs.send(b"x").unwrap();
        let (result, (.., peer)) = once((ours, [0; 1], Peer::new()), |(socket, bytes, peer)| {
            request::recv_from(socket, bytes, peer)
        });
        assert_eq!((result, peer.address()), (Ok(1), None));
    });
}

#[test]
fn a_connection_says_where_it_comes_from() {
    watched(|| {
        let accepted = |listener: OwnedFd, peer: Peer| {
            let (completion, (listener, peer)) =
                complete((listener, peer), |(listener, peer)| request::accept_from(listener, peer));
            (completion.into_fd().map_err(|error| error.raw_os_error().unwrap()), listener, peer)
        };
        let mut last = Peer::new();
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else {
                eprintln!("skipped: nothing can be bound to {address}");
                continue;
            };
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (socket, _, peer) = accepted(listener.into(), last);
            let socket = TcpStream::from(socket.unwrap());
            assert_eq!(peer.address(), Some(client.local_addr().unwrap()));
            assert_eq!(peer.address(), socket.peer_addr().ok());
            last = peer;
        }
        // Without an Internet address, and without a connection: nothing is left of the previous peer.
        let directory = Directory::new("accept-from");
        let listener = std::os::unix::net::UnixListener::bind(directory.path("listener")).unwrap();
        let _client = UnixStream::connect(directory.path("listener")).unwrap();
        let (socket, _, peer) = accepted(listener.into(), last);
        assert!(socket.is_ok() && peer.address().is_none());
        let (refused, _, peer) = accepted(UdpSocket::bind("127.0.0.1:0").unwrap().into(), last);
        assert_eq!((refused.unwrap_err(), peer.address()), (libc::EOPNOTSUPP, None));
        let failed = once((File::open("/dev/null").unwrap(), [0; 1], last), |(file, bytes, peer)| {
            request::recv_from(file, bytes, peer)
        });
        assert_eq!((failed.0, failed.1.2.address()), (Err(libc::ENOTSOCK), None));
    });
}

#[test]
fn pieces_are_sent_in_their_order_as_many_as_a_message_can_have() {
    watched(|| {
        for (count, sent) in [(0, 0), (1, 1), (4, 4), (5, 5), (1024, 1024), (1025, 1024)] {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            let bytes: Vec<u8> = (0..3 * count).map(|number| (number % 251) as u8).collect();
            // In reverse order, so that no two are neighbours.
            let (result, (ours, bytes)) =
                once((ours, bytes), |(socket, bytes)| request::send_vectored(socket, bytes.rchunks(3)));
            assert_eq!(result, Ok(3 * sent as u32), "of {count} pieces");
            drop(ours);
            let mut received = Vec::new();
            theirs.read_to_end(&mut received).unwrap();
            let backwards: Vec<u8> = bytes.rchunks(3).flatten().copied().collect();
            assert!(received == backwards[..3 * sent], "of {count} pieces");
        }
        // Empty pieces count as none, and a datagram that nobody receives raises no signal.
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (result, ours) = once(ours, |socket| request::send_vectored(socket, [&b""[..], b"x", b"", b"y"]));
        assert_eq!(result, Ok(2));
        theirs.shutdown(std::net::Shutdown::Both).unwrap();
        let (result, _) = once(ours, |socket| request::send_vectored(socket, [&b"x"[..]]));
        assert_eq!(result, Err(libc::EPIPE));
    });
}

#[test]
fn pieces_that_are_not_copied_arrive_in_their_order_and_have_one_completion() {
    watched(|| {
        for count in [0, 1, 4, 5, 1024] {
            let (ours, mut theirs) = tcp_pair();
            let bytes: Vec<u8> = (0..3 * count).map(|number| (number % 251) as u8).collect();
            let reading = thread::spawn(move || {
                let mut received = Vec::new();
                theirs.read_to_end(&mut received).unwrap();
                received
            });
            // In reverse order, so that no two are neighbours.
            let (result, (ours, bytes)) = once((ours, bytes), |(socket, bytes)| {
                request::send_vectored_zc(socket, bytes.rchunks(3)).whole()
            });
            assert_eq!(result, Ok(3 * count as u32), "of {count} pieces");
            drop(ours);
            let backwards: Vec<u8> = bytes.rchunks(3).flatten().copied().collect();
            assert!(reading.join().unwrap() == backwards, "of {count} pieces");
        }
        // What can't be sent without a copy is not sent with one.
        let data = (UnixStream::pair().unwrap(), *b"xy");
        let (result, ((ours, mut theirs), _)) =
            once(data, |(pair, bytes)| request::send_vectored_zc(&pair.0, bytes.rchunks(1)));
        drop(ours);
        assert_eq!((result, theirs.read(&mut [0; 8]).unwrap()), (Err(libc::EOPNOTSUPP), 0));
        // Nor is a part of it, where all is to be sent.
        let (result, (ours, _)) = once((tcp_pair(), [7; 2050]), |(pair, bytes)| {
            request::send_vectored_zc(&pair.0, bytes.rchunks(2).map(|two| &two[..1])).whole()
        });
        assert_eq!(result, Err(libc::EMSGSIZE));
        let mut theirs = ours.1;
        drop(ours.0);
        assert_eq!(theirs.read(&mut [0; 8]).unwrap(), 0);
        // A peer that is gone raises no signal.
        let (ours, _theirs) = tcp_pair();
        ours.shutdown(std::net::Shutdown::Write).unwrap();
        let (result, _) = once(ours, |socket| request::send_vectored_zc(socket, [&b"x"[..]]));
        assert_eq!(result, Err(libc::EPIPE));
    });
}

#[test]
fn messages_that_wait_for_room_are_kept_as_they_were() {
    watched(|| {
        const COUNT: u8 = 40;
        let (ours, theirs) = tcp_pair();
        let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
        let there = datagrams.local_addr().unwrap();
        let sockets = Arc::new((ours, UdpSocket::bind("127.0.0.1:0").unwrap()));
        let script = Script::new()
            .on_setup_once(move |mut submitter| {
                for number in 0..COUNT {
                    let data = (sockets.clone(), [number; 3]);
                    submitter.submit(data, move |(sockets, bytes)| {
                        let (first, rest) = bytes.split_at(1);
                        match first[0] % 2 {
                            0 => request::send_vectored_zc(&sockets.0, [rest, first]),
                            _ => request::send_to_zc(&sockets.1, bytes, there),
                        }
                    })?;
                }
                Ok(())
            })
            .on_completion(|completion, _, _| {
                assert_eq!(outcome(&completion), Ok(3));
                (ControlFlow::Continue, None)
            });
        // More than fit, so most are in the backlog for some time.
        let mut ring = Bench::builder(script, Script::new()).entries(2.try_into().unwrap()).build().unwrap();
        ring.run().unwrap();
        assert_eq!(ring.stats().foreign, 0);
        drop(ring);
        let mut received = Vec::new();
        (&theirs).read_to_end(&mut received).unwrap();
        for _ in 0..COUNT / 2 {
            let mut three = [0; 3];
            assert_eq!(datagrams.recv(&mut three).unwrap(), 3);
            received.extend(three);
        }
        let mut threes: Vec<&[u8]> = received.chunks(3).collect();
        threes.sort();
        let expected: Vec<[u8; 3]> = (0..COUNT).map(|number| [number; 3]).collect();
        assert_eq!(threes, expected);
    });
}

#[test]
fn pieces_that_nobody_waits_for_go_out_whole() {
    fn sends(send: fn(&mut (TcpStream, Vec<u8>)) -> Request<'_>) {
        const LENGTH: usize = 8 << 20;
        let (ours, mut theirs) = tcp_pair();
        let reading = thread::spawn(move || {
            let mut received = Vec::new();
            // So late that the socket has been full for a long time.
            thread::sleep(Duration::from_millis(20));
            theirs.read_to_end(&mut received).unwrap();
            received
        });
        let bytes: Vec<u8> = (0..LENGTH).map(|number| (number % 251) as u8).collect();
        let sent = bytes.clone();
        let script = Script::new().on_setup_once(move |mut submitter| {
            submitter.detach((ours, sent), send)?;
            Ok(())
        });
        let mut ring = Bench::with(4, script);
        ring.run().unwrap();
        assert_eq!((ring.stats().in_flight, ring.stats().detached_failed), (0, 0));
        drop(ring);
        assert!(reading.join().unwrap() == bytes, "not all of it came, or not in order");
    }
    watched(|| {
        sends(|(socket, bytes)| request::send_vectored(socket, bytes.chunks(bytes.len() / 100)));
        sends(|(socket, bytes)| request::send_vectored_zc(socket, bytes.chunks(bytes.len() / 100)));
        // In an order in which no two are neighbours.
        sends(|(socket, bytes)| {
            let pieces = bytes.chunks(bytes.len() / 100);
            request::send_vectored_zc(socket, pieces.flat_map(|piece| [&[][..], piece]))
        });
    });
}

#[test]
fn a_server_is_made_of_requests() {
    watched(|| {
        let (completion, ()) = complete((), |()| request::socket(libc::AF_INET, libc::SOCK_STREAM, 0));
        let socket: OwnedFd = completion.into_fd().unwrap();
        assert!(!is_inherited(&socket));
        let anywhere: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let (bound, (socket, _)) =
            once((socket, anywhere), |(socket, address)| request::bind(socket, *address));
        // Linux 6.11 has both.
        if bound == Err(libc::EINVAL) {
            return eprintln!("skipped: this kernel binds no sockets");
        }
        assert_eq!(bound, Ok(0));
        let (listens, socket) = once(socket, |socket| request::listen(socket, 5));
        assert_eq!(listens, Ok(0));
        let listener = TcpListener::from(socket);
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (completion, listener) = complete(listener, |listener| request::accept(listener));
        let accepted = TcpStream::from(completion.into_fd().unwrap());
        assert_eq!(accepted.peer_addr().unwrap(), client.local_addr().unwrap());
        let taken = (UdpSocket::bind("127.0.0.1:0").unwrap(), listener.local_addr().unwrap());
        assert_eq!(
            once(taken, |(socket, address)| request::bind(socket, *address)).0,
            Err(libc::EINVAL),
            "bound already"
        );
        let refused = complete((), |()| request::socket(-1, libc::SOCK_STREAM, 0)).0;
        assert_eq!(outcome(&refused), Err(libc::EAFNOSUPPORT));
    });
}

#[test]
fn a_pipe_is_read_again_and_again_into_a_pool() {
    watched(|| {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let pool = BufferPool::new(2, 4).unwrap();
        let seen = Log::new();
        let log = seen.clone();
        let data = (OwnedFd::from(reader), pool.clone());
        writer.write_all(b"abc").unwrap();
        let mut writer = Some(writer);
        fn read((pipe, pool): &mut (OwnedFd, BufferPool)) -> Stream<'_> {
            request::read_multi(pipe, pool)
        }
        let script = Script::new()
            .on_setup_once(move |mut submitter| {
                submitter.stream(data, read)?;
                Ok(())
            })
            .on_completion(move |completion, data, _| {
                let more = completion.more();
                // Both buffers may be full before the first of them is given back.
                if outcome(&completion) != Err(libc::ENOBUFS) {
                    log.push((completion.into_buffer().unwrap().to_vec(), more));
                }
                if let Some(mut writer) = writer.take() {
                    writer.write_all(b"more than one buffer").unwrap();
                }
                (ControlFlow::Continue, more.then_some(data))
            });
        Bench::with(4, script).run().unwrap();
        let seen = seen.take();
        assert_eq!(seen[0], (b"abc".to_vec(), true));
        let bytes: Vec<u8> = seen.iter().flat_map(|(bytes, _)| bytes.iter().copied()).collect();
        assert_eq!(bytes, b"abcmore than one buffer");
        assert!(seen.iter().all(|(bytes, _)| bytes.len() <= 4));
        assert_eq!(seen.last(), Some(&(Vec::new(), false)), "the end");
        assert_eq!(pool.available(), 2);

        let there = Directory::new("read-multi");
        there.file("file", b"on disk");
        let seen = Log::new();
        let log = seen.clone();
        let data = (OwnedFd::from(File::open(there.path("file")).unwrap()), pool);
        let script = Script::new()
            .on_setup_once(move |mut submitter| {
                submitter.stream(data, read)?;
                Ok(())
            })
            .on_completion(move |completion, _, _| {
                log.push((outcome(&completion), completion.more()));
                (ControlFlow::Continue, None)
            });
        Bench::with(4, script).run().unwrap();
        assert_eq!(seen.take(), [(Err(libc::EBADFD), false)]);
    });
}
