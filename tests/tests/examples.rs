//! The programs in `examples/`, run as their users run them.
//!
//! Nothing is assumed about how long anything takes, except that it takes less than [`PATIENCE`].

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rummelplatz_tests::{Directory, deaf, ring_or_skip};

/// After this time, a program counts as hung, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(180);

// ---- running programs -----------------------------------------------------------------------------

/// The path of an example, built as this test was.
fn example(name: &str) -> PathBuf {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    DIRECTORY.get_or_init(build).join(name)
}

/// The examples that have tests of their own.
const TESTED: [&str; 4] = ["echo", "proxy", "wal", "pixelflut"];

/// Builds the examples and their tests. However long that takes, nothing waits for it with a limit.
fn build() -> PathBuf {
    let (mut examples, output) = cargo("build");
    let (mut tests, _) = cargo("test");
    tests.arg("--no-run").args(TESTED.iter().flat_map(|name| ["--example", name]));
    for cargo in [examples.arg("--examples"), &mut tests] {
        assert!(cargo.status().unwrap().success(), "the examples don't build");
    }
    output.join("examples")
}

/// Does something with the examples, in the target directory and with the profile of this very test. Returns the
/// command for `cargo`, and where the programs are.
fn cargo(command: &str) -> (Command, PathBuf) {
    // …/target/PROFILE/deps/examples-0123456789abcdef
    let test = std::env::current_exe().unwrap();
    let output = test.ancestors().nth(2).unwrap();
    let profile = match output.file_name().and_then(OsStr::to_str).unwrap() {
        "debug" => "dev",
        profile => profile,
    };
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .args([command, "--quiet", "--package", "rummelplatz-examples", "--features", "sim"])
        .args(["--profile", profile, "--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")])
        .arg("--target-dir")
        .arg(output.parent().unwrap());
    (cargo, output.to_owned())
}

/// What a program printed, and how it ended.
#[derive(Debug)]
struct Ran {
    status: ExitStatus,
    stdout: String,
    stderr: String,
}

impl Ran {
    #[track_caller]
    fn succeeded(self) -> Self {
        assert_eq!(self.status.code(), Some(0), "{self:?}");
        self
    }

    /// Fails unless the program has failed with one line on standard error that contains all these words.
    #[track_caller]
    fn failed_saying(self, words: &[&str]) -> Self {
        assert!(self.status.code().is_some_and(|code| code != 0), "{self:?}");
        assert_eq!(self.stderr.trim_end().lines().count(), 1, "{self:?}");
        for word in words {
            assert!(self.stderr.contains(word), "no `{word}` in {self:?}");
        }
        self
    }
}

/// Runs a program to its end, with nothing on standard input.
#[track_caller]
fn run(command: &mut Command) -> Ran {
    run_with(command, Stdio::null())
}

#[track_caller]
fn run_with(command: &mut Command, stdin: impl Into<Stdio>) -> Ran {
    let command = command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let stdout = drain(child.stdout.take().unwrap());
    let stderr = drain(child.stderr.take().unwrap());
    let status = wait(&mut child);
    Ran { status, stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap() }
}

fn drain(mut stream: impl Read + Send + 'static) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    })
}

#[track_caller]
fn wait(child: &mut Child) -> ExitStatus {
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if began.elapsed() > PATIENCE {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("hung: not done after {PATIENCE:?}");
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// Waits until `condition` holds.
#[track_caller]
fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < PATIENCE, "after {PATIENCE:?}, not yet: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn every_example_has_a_help() {
    for name in ["basic", "echo", "proxy", "shards", "cp", "wal", "pixelflut", "simulated"] {
        let help = run(Command::new(example(name)).arg("--help")).succeeded().stdout;
        assert!(help.contains(&format!("Usage: {name}")), "{help}");
        let nonsense = run(Command::new(example(name)).arg("--nonsense"));
        assert_eq!(nonsense.status.code(), Some(2));
        assert!(nonsense.stderr.contains("--nonsense"), "{nonsense:?}");
    }
}

// ---- basic ------------------------------------------------------------------------------------------

#[test]
fn basic_ticks_four_times_and_tears_down_the_fifth_tick() {
    if ring_or_skip() {
        let ran = run(Command::new(example("basic")).args(["--interval-ms", "5"])).succeeded();
        let expected = "tick 1\ntick 2\ntick 3\ntick 4\n\
                        tick 5 was in flight: Operation canceled (os error 125)\n";
        assert_eq!((&*ran.stdout, &*ran.stderr), (expected, ""));
    }
}

// ---- echo -------------------------------------------------------------------------------------------

/// A running server: the echo server, the proxy, or the counters.
struct Server {
    child: Child,
    address: SocketAddr,
    stderr: Option<JoinHandle<String>>,
}

impl Server {
    fn start(arguments: &[&str]) -> Server {
        Server::of(Command::new(example("echo")).args(arguments).arg("127.0.0.1:0"))
    }

    /// A proxy in front of this address.
    fn proxy(upstream: SocketAddr, arguments: &[&str]) -> Server {
        let mut proxy = Command::new(example("proxy"));
        Server::of(proxy.args(arguments).arg("127.0.0.1:0").arg(upstream.to_string()))
    }

    /// Counters on this many rings.
    fn shards(rings: u32, arguments: &[&str]) -> Server {
        let mut shards = Command::new(example("shards"));
        Server::of(shards.args(["127.0.0.1:0", "--rings", &rings.to_string()]).args(arguments))
    }

    /// The same program with at most this many descriptors.
    fn with_few_descriptors(limit: u32, program: &str, arguments: &[&str]) -> Server {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!(r#"ulimit -n {limit} && exec "$0" "$@""#)]);
        Server::of(shell.arg(example(program)).args(arguments))
    }

    fn of(command: &mut Command) -> Server {
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr: ChildStderr = child.stderr.take().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.strip_prefix("listening on ").unwrap_or_else(|| panic!("first line: {line:?}"));
        let address = address.trim_end().parse().unwrap();
        Server { child, address, stderr: Some(drain(stderr)) }
    }

    /// A client with a time limit of [`PATIENCE`] for everything.
    fn connect(&self) -> TcpStream {
        let client = TcpStream::connect_timeout(&self.address, PATIENCE).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.set_write_timeout(Some(PATIENCE)).unwrap();
        client
    }

    #[track_caller]
    fn assert_alive(&self) {
        assert_echoes(&mut self.connect(), b"still there?");
    }

    fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    fn signal(&self, signal: i32) {
        let child = i32::try_from(self.child.id()).unwrap();
        // SAFETY: a plain call; the child was not waited for, so the number is still its own.
        assert_eq!(unsafe { libc::kill(child, signal) }, 0);
    }

    /// Stops the server, and returns what it has printed on standard error.
    #[track_caller]
    fn stop(mut self, signal: i32) -> String {
        self.signal(signal);
        let status = wait(&mut self.child);
        let stderr = self.stderr.take().unwrap().join().unwrap();
        assert_eq!(status.code(), Some(0), "{stderr}");
        assert!(stderr.contains("with 0 requests in flight"), "{stderr}");
        stderr
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.stderr.is_some() {
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }
}

#[track_caller]
fn assert_echoes(client: &mut TcpStream, message: &[u8]) {
    client.write_all(message).unwrap();
    let mut answer = vec![0; message.len()];
    client.read_exact(&mut answer).unwrap();
    assert!(answer == message, "the answer differs");
}

/// Bytes that show when something is missing, doubled or out of order.
fn pattern(length: usize) -> Vec<u8> {
    (0..length as u32)
        .flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes())
        .take(length)
        .collect()
}

/// Writes until the server takes no more. Returns how many bytes it took.
fn write_until_it_blocks(client: &mut TcpStream, bytes: &[u8]) -> usize {
    client.set_nonblocking(true).unwrap();
    let mut written = 0;
    let mut last = Instant::now();
    // The server may go on after a moment; it is blocked when nothing has moved for a while.
    while last.elapsed() < Duration::from_millis(200) && written < bytes.len() {
        match client.write(&bytes[written..]) {
            Ok(count) => (written, last) = (written + count, Instant::now()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                thread::sleep(Duration::from_millis(5))
            }
            Err(error) => panic!("{error}"),
        }
    }
    client.set_nonblocking(false).unwrap();
    written
}

/// Reads all there is, up to the end or a reset.
fn read_what_comes(client: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    match client.read_to_end(&mut bytes) {
        Err(error) if error.kind() != io::ErrorKind::ConnectionReset => panic!("{error}"),
        _ => bytes,
    }
}

/// Calls this again if it was interrupted. The kernel interrupts it when it ends the ring of [`ring_or_skip`], and
/// calls with a timeout are not restarted.
fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Reads what comes next: nothing at the end, or after a reset.
fn read_some(client: &mut TcpStream) -> Vec<u8> {
    let mut bytes = vec![0; 100];
    let read = match uninterrupted(|| client.read(&mut bytes)) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => 0,
        read => read.unwrap(),
    };
    bytes.truncate(read);
    bytes
}

/// Leaves with the answer unread, which resets the connection.
fn reset(mut client: TcpStream) {
    client.write_all(b"never mind").unwrap();
    uninterrupted(|| client.peek(&mut [0])).unwrap();
}

#[test]
fn echo_sends_back_what_it_gets() {
    if ring_or_skip() {
        let server = Server::start(&[]);
        let mut client = server.connect();
        for length in [1, 2, 4095, 4096, 4097, 50_000] {
            assert_echoes(&mut client, &pattern(length));
        }
        server.stop(libc::SIGTERM);
    }
}

#[test]
fn a_half_closed_client_gets_all_its_bytes_back() {
    if ring_or_skip() {
        let server = Server::start(&["--buffers", "64", "--buffer-size", "1000"]);
        let client = server.connect();
        let sent = pattern(5_000_000);
        let writer = thread::spawn({
            let (mut client, sent) = (client.try_clone().unwrap(), sent.clone());
            move || {
                client.write_all(&sent).unwrap();
                client.shutdown(Shutdown::Write).unwrap();
            }
        });
        let mut received = Vec::new();
        (&client).read_to_end(&mut received).unwrap();
        writer.join().unwrap();
        assert!(received == sent, "{} of {} bytes", received.len(), sent.len());
        server.stop(libc::SIGTERM);
    }
}

#[test]
fn a_client_that_reads_only_after_it_has_sent_all_gets_all_its_bytes_back() {
    if ring_or_skip() {
        let server = Server::start(&["--buffers", "16", "--buffer-size", "512"]);
        let mut client = server.connect();
        let sent = pattern(100_000);
        client.write_all(&sent).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert!(read_what_comes(&mut client) == sent);
        server.stop(libc::SIGINT);
    }
}

#[test]
fn echo_loses_no_byte_under_a_simulated_kernel() {
    assert_pass_in("echo", 2);
}

/// Runs the tests in `examples/NAME/tests.rs`; if they fail, they print their seeds.
#[track_caller]
fn assert_pass_in(name: &str, tests: usize) {
    // They are built.
    example(name);
    assert!(TESTED.contains(&name));
    let (mut cargo, _) = cargo("test");
    let ran = run(cargo.args(["--example", name])).succeeded();
    assert!(ran.stdout.contains(&format!("{tests} passed")), "{ran:?}");
}

#[test]
fn clients_that_come_and_go_leave_nothing_behind() {
    if ring_or_skip() {
        let server = Server::start(&["--buffers", "32", "--buffer-size", "300"]);
        let before = server.descriptors();
        thread::scope(|scope| {
            for worker in 0..8 {
                let server = &server;
                scope.spawn(move || {
                    for round in 0..100 {
                        let mut client = server.connect();
                        match (worker + round) % 5 {
                            0 => {}
                            1 => assert_echoes(&mut client, &pattern(10 + 13 * round)),
                            2 => client.write_all(&pattern(2000)).unwrap(),
                            3 => reset(client),
                            _ => {
                                let sent = pattern(1 + 37 * round);
                                client.write_all(&sent).unwrap();
                                client.shutdown(Shutdown::Write).unwrap();
                                assert!(read_what_comes(&mut client) == sent);
                            }
                        }
                    }
                });
            }
        });
        until("all descriptors closed", || server.descriptors() == before);
        server.assert_alive();
        let said = server.stop(libc::SIGTERM);
        assert!(said.contains("after 801 connections"), "{said}");
    }
}

#[test]
fn a_client_that_does_not_read_starves_nobody() {
    if ring_or_skip() {
        // There are fewer buffers than such clients: each of them would hold one for ever.
        let server = Server::start(&["--buffers", "8", "--buffer-size", "1024"]);
        let before = server.descriptors();
        let sent = pattern(50_000_000);
        let mut deaf: Vec<_> = (0..12).map(|_| server.connect()).collect();
        let written = thread::scope(|scope| {
            let sent = &sent;
            let blocked = deaf.iter_mut().map(|client| scope.spawn(|| write_until_it_blocks(client, sent)));
            let blocked: Vec<_> = blocked.collect();
            blocked.into_iter().map(|writer| writer.join().unwrap()).collect::<Vec<_>>()
        });
        assert!(written.iter().all(|written| *written < sent.len()), "the server has taken all: {written:?}");
        for _ in 0..20 {
            assert_echoes(&mut server.connect(), &pattern(3000));
        }
        for (mut client, written) in deaf.into_iter().zip(written) {
            client.shutdown(Shutdown::Write).unwrap();
            let received = read_what_comes(&mut client);
            assert!(received == sent[..written], "{} of {written} bytes", received.len());
        }
        until("all descriptors closed", || server.descriptors() == before);
        server.stop(libc::SIGTERM);
    }
}

#[test]
fn echo_ends_clients_that_are_idle_for_too_long() {
    if ring_or_skip() {
        let server = Server::start(&["--idle-ms", "50", "--verbose"]);
        let mut client = server.connect();
        assert_eq!(read_what_comes(&mut client), b"");
        assert!(!server.stop(libc::SIGTERM).contains("operation `"), "that is no error");
    }
}

#[test]
fn a_client_that_leaves_without_reading_is_forgotten() {
    if ring_or_skip() {
        let server = Server::start(&["--buffers", "8", "--buffer-size", "1024", "--verbose"]);
        let before = server.descriptors();
        let sent = pattern(50_000_000);
        for _ in 0..3 {
            write_until_it_blocks(&mut server.connect(), &sent);
        }
        until("all descriptors closed", || server.descriptors() == before);
        server.assert_alive();
        let said = server.stop(libc::SIGTERM);
        assert!(said.contains("operation `"), "--verbose tells of clients that are lost: {said}");
    }
}

#[test]
fn signals_end_the_server_whatever_its_clients_do() {
    for signal in [libc::SIGINT, libc::SIGTERM] {
        if ring_or_skip() {
            let server = Server::start(&[]);
            let idle = server.connect();
            let mut used = server.connect();
            assert_echoes(&mut used, b"hello");
            let mut deaf = server.connect();
            let sent = pattern(50_000_000);
            let written = write_until_it_blocks(&mut deaf, &sent);
            let said = server.stop(signal);
            assert!(said.contains("after 3 connections"), "{said}");
            let received = read_what_comes(&mut deaf);
            assert!(sent[..written].starts_with(&received), "what came back is not what was sent");
            for mut client in [idle, used] {
                assert_eq!(read_what_comes(&mut client), b"");
            }
        }
    }
}

#[test]
fn a_server_without_descriptors_waits_until_there_are_some() {
    if ring_or_skip() {
        let server = Server::with_few_descriptors(20, "echo", &["127.0.0.1:0"]);
        let before = server.descriptors();
        // More clients than it can have; the others wait in the queue of the listener.
        let mut clients: Vec<_> = (0..40).map(|_| server.connect()).collect();
        assert_echoes(&mut clients[0], b"served");
        until("all descriptors in use", || server.descriptors() >= 20);
        for mut client in clients.drain(..) {
            // Each one that leaves makes room for another.
            assert_echoes(&mut client, b"at last");
        }
        until("all descriptors closed", || server.descriptors() == before);
        server.assert_alive();
        let said = server.stop(libc::SIGTERM);
        assert!(said.contains("can't accept connections for now: Too many open files"), "{said}");
        assert!(said.contains("after 41 connections"), "{said}");
    }
}

#[test]
fn addresses_that_cannot_be_listened_on_are_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let echo = || Command::new(example("echo"));
    run(echo().arg(&address)).failed_saying(&["echo: can't listen on", &address, "in use"]);
    run(echo().arg("192.0.2.1:7777")).failed_saying(&["can't listen on 192.0.2.1:7777"]);
    let nonsense = run(echo().arg("nonsense"));
    assert_eq!(nonsense.status.code(), Some(2));
}

// ---- proxy ------------------------------------------------------------------------------------------

/// A listener, and a proxy in front of it.
fn upstream_and_proxy(arguments: &[&str]) -> (TcpListener, Server) {
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = Server::proxy(upstream.local_addr().unwrap(), arguments);
    (upstream, proxy)
}

/// A client of the proxy, and its connection at the upstream.
fn connect_through(upstream: &TcpListener, proxy: &Server) -> (TcpStream, TcpStream) {
    let client = proxy.connect();
    let (server, _) = upstream.accept().unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    server.set_write_timeout(Some(PATIENCE)).unwrap();
    (client, server)
}

/// Sends all of this and then nothing more. Returns what the other end gets of it.
fn send_all(mut from: &TcpStream, mut to: &TcpStream, sent: &[u8]) -> Vec<u8> {
    let mut received = Vec::new();
    thread::scope(|scope| {
        scope.spawn(move || {
            from.write_all(sent).unwrap();
            from.shutdown(Shutdown::Write).unwrap();
        });
        to.read_to_end(&mut received).unwrap();
    });
    received
}

#[test]
fn the_proxy_moves_bytes_both_ways_at_once() {
    if ring_or_skip() {
        let (upstream, proxy) = upstream_and_proxy(&[]);
        let before = proxy.descriptors();
        let (client, server) = connect_through(&upstream, &proxy);
        let sent = pattern(20_000_000);
        let answer: Vec<_> = sent.iter().rev().copied().collect();
        thread::scope(|scope| {
            scope.spawn(|| assert!(send_all(&client, &server, &sent) == sent));
            assert!(send_all(&server, &client, &answer) == answer);
        });
        // Both sides have said that they send no more: that is the end.
        until("all descriptors closed", || proxy.descriptors() == before);
        proxy.stop(libc::SIGTERM);
    }
}

#[test]
fn the_proxy_goes_on_with_one_direction_when_the_other_is_over() {
    if ring_or_skip() {
        let (upstream, proxy) = upstream_and_proxy(&[]);
        let before = proxy.descriptors();
        for client_is_first in [true, false] {
            let (client, server) = connect_through(&upstream, &proxy);
            let (first, second) = if client_is_first { (&client, &server) } else { (&server, &client) };
            // Each one is over before the next thing is sent.
            assert_eq!(send_all(first, second, b"that is all"), b"that is all");
            (&mut &*second).write_all(b"not yet").unwrap();
            let mut begin = [0; 7];
            (&mut &*first).read_exact(&mut begin).unwrap();
            assert_eq!(&begin, b"not yet");
            let rest = pattern(3_000_000);
            assert!(send_all(second, first, &rest) == rest);
            // The proxy has closed both connections, though neither is closed at its other end.
            until("all descriptors closed", || proxy.descriptors() == before);
        }
        proxy.stop(libc::SIGTERM);
    }
}

#[test]
fn many_clients_of_the_proxy_come_and_go_and_leave_nothing_behind() {
    if ring_or_skip() {
        let server = Server::start(&[]);
        let proxy = Server::proxy(server.address, &[]);
        let before = (proxy.descriptors(), server.descriptors());
        thread::scope(|scope| {
            for worker in 0..8 {
                let proxy = &proxy;
                scope.spawn(move || {
                    for round in 0..100 {
                        let mut client = proxy.connect();
                        match (worker + round) % 5 {
                            0 => {}
                            1 => assert_echoes(&mut client, &pattern(10 + 613 * round)),
                            2 => client.write_all(&pattern(2000)).unwrap(),
                            3 => reset(client),
                            _ => {
                                let sent = pattern(1 + 3337 * round);
                                assert!(send_all(&client, &client, &sent) == sent);
                            }
                        }
                    }
                });
            }
        });
        until("all descriptors closed", || (proxy.descriptors(), server.descriptors()) == before);
        proxy.assert_alive();
        proxy.stop(libc::SIGTERM);
        server.stop(libc::SIGTERM);
    }
}

#[test]
fn the_proxy_takes_no_more_than_the_upstream_does() {
    if ring_or_skip() {
        let (upstream, proxy) = upstream_and_proxy(&[]);
        let (mut client, mut server) = connect_through(&upstream, &proxy);
        let sent = pattern(50_000_000);
        let written = write_until_it_blocks(&mut client, &sent);
        assert!(written < sent.len(), "the proxy has taken all");
        // Others are served meanwhile.
        let (others, its) = connect_through(&upstream, &proxy);
        assert_eq!(send_all(&others, &its, b"hello"), b"hello");
        client.shutdown(Shutdown::Write).unwrap();
        let received = read_what_comes(&mut server);
        assert!(received == sent[..written], "{} of {written} bytes", received.len());
        proxy.stop(libc::SIGTERM);
    }
}

#[test]
fn a_reset_of_one_side_is_a_reset_of_the_other() {
    if ring_or_skip() {
        let (upstream, proxy) = upstream_and_proxy(&["--verbose"]);
        let before = proxy.descriptors();
        for client_resets in [true, false] {
            let (client, server) = connect_through(&upstream, &proxy);
            let (leaves, mut stays) = if client_resets { (client, server) } else { (server, client) };
            // If a socket is closed with unread bytes, its peer gets a reset.
            stays.write_all(b"never mind").unwrap();
            uninterrupted(|| leaves.peek(&mut [0])).unwrap();
            drop(leaves);
            let told = uninterrupted(|| stays.read(&mut [0])).map_err(|error| error.kind());
            assert_eq!(told, Err(io::ErrorKind::ConnectionReset));
            until("all descriptors closed", || proxy.descriptors() == before);
        }
        let said = proxy.stop(libc::SIGTERM);
        assert_eq!(said.matches("operation `pumps`: Connection reset by peer").count(), 2, "{said}");
    }
}

#[test]
fn an_upstream_that_refuses_costs_the_proxy_one_client_each() {
    if ring_or_skip() {
        let (upstream, address) = deaf();
        let proxy = Server::proxy(address, &["--verbose"]);
        let before = proxy.descriptors();
        for _ in 0..3 {
            assert_eq!(read_what_comes(&mut proxy.connect()), b"");
        }
        until("all descriptors closed", || proxy.descriptors() == before);
        // When it is there, everything works.
        nix::sys::socket::listen(&upstream, nix::sys::socket::Backlog::new(128).unwrap()).unwrap();
        let upstream = TcpListener::from(upstream);
        let (client, server) = connect_through(&upstream, &proxy);
        assert_eq!(send_all(&client, &server, b"hello"), b"hello");
        let said = proxy.stop(libc::SIGTERM);
        assert_eq!(said.matches("operation `connector`: Connection refused").count(), 3, "{said}");
    }
}

/// Makes a listener answer nobody any more. What is returned keeps its queue full.
fn fill(listener: &TcpListener) -> Vec<TcpStream> {
    nix::sys::socket::listen(listener, nix::sys::socket::Backlog::new(0).unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let connect = || TcpStream::connect_timeout(&address, Duration::from_millis(500));
    let waiting: Vec<_> = std::iter::from_fn(|| connect().ok()).take(10).collect();
    assert!(waiting.len() < 10, "the queue of the listener is never full");
    waiting
}

#[test]
fn an_upstream_that_does_not_answer_is_given_up() {
    if ring_or_skip() {
        let (upstream, proxy) = upstream_and_proxy(&["--verbose", "--connect-ms", "300"]);
        let before = proxy.descriptors();
        let _waiting = fill(&upstream);
        let began = Instant::now();
        assert_eq!(read_what_comes(&mut proxy.connect()), b"");
        assert!(began.elapsed() >= Duration::from_millis(300), "given up after {:?}", began.elapsed());
        until("all descriptors closed", || proxy.descriptors() == before);
        let said = proxy.stop(libc::SIGTERM);
        assert!(said.contains("operation `connector`: timed out"), "{said}");
    }
}

#[test]
fn signals_end_the_proxy_whatever_its_clients_do() {
    for signal in [libc::SIGINT, libc::SIGTERM] {
        if ring_or_skip() {
            let (upstream, proxy) = upstream_and_proxy(&[]);
            let (mut idle, _its) = connect_through(&upstream, &proxy);
            let (mut deaf, _its) = connect_through(&upstream, &proxy);
            write_until_it_blocks(&mut deaf, &vec![7; 100_000_000]);
            let _waiting = fill(&upstream);
            let before = proxy.descriptors();
            let mut connecting = proxy.connect();
            until("the third is accepted", || proxy.descriptors() == before + 2);
            proxy.stop(signal);
            for client in [&mut idle, &mut deaf, &mut connecting] {
                assert_eq!(read_what_comes(client), b"");
            }
        }
    }
}

#[test]
fn a_proxy_without_descriptors_serves_again_when_there_are_some() {
    if ring_or_skip() {
        let server = Server::start(&[]);
        let upstream = server.address.to_string();
        let proxy = Server::with_few_descriptors(20, "proxy", &["127.0.0.1:0", &upstream]);
        let before = proxy.descriptors();
        // More clients than it can have: some are served, some wait until others have left, and some are turned away
        // because there is one descriptor for them but not two.
        for mut client in (0..40).map(|_| proxy.connect()).collect::<Vec<_>>() {
            client.write_all(b"?").ok();
            let answer = read_some(&mut client);
            assert!(answer == b"?" || answer == b"", "{answer:?}");
        }
        until("all descriptors closed", || proxy.descriptors() == before);
        proxy.assert_alive();
        let said = proxy.stop(libc::SIGTERM);
        assert!(said.contains("operation `acceptor`: ") && said.contains("Too many open files"), "{said}");
        server.stop(libc::SIGTERM);
    }
}

#[test]
fn the_proxy_loses_no_byte_under_a_simulated_kernel() {
    assert_pass_in("proxy", 3);
}

#[test]
fn addresses_that_the_proxy_cannot_listen_on_are_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let proxy = |arguments: &[&str]| run(Command::new(example("proxy")).args(arguments));
    proxy(&[&address, &address]).failed_saying(&["proxy: can't listen on", &address, "in use"]);
    for wrong in [&["nonsense", &*address][..], &[&*address]] {
        assert_eq!(proxy(wrong).status.code(), Some(2));
    }
}

// ---- shards -----------------------------------------------------------------------------------------

/// Sends lines, all at once, and returns the lines that answer them.
#[track_caller]
fn ask(client: &mut TcpStream, lines: &[impl AsRef<str>]) -> Vec<String> {
    let text: String = lines.iter().map(|line| format!("{}\n", line.as_ref())).collect();
    client.write_all(text.as_bytes()).unwrap();
    answers(client, lines.len())
}

/// Reads so many lines, after which no more are expected.
#[track_caller]
fn answers(client: &mut TcpStream, count: usize) -> Vec<String> {
    BufReader::new(client).lines().take(count).map(Result::unwrap).collect()
}

#[test]
fn clients_of_all_shards_count_together() {
    if !ring_or_skip() {
        return;
    }
    let keys = |command: &str| (0..100).map(|key| format!("{command} key{key}")).collect::<Vec<_>>();
    for rings in [1, 2, 5] {
        let server = Server::shards(rings, &[]);
        thread::scope(|scope| {
            for _ in 0..20 {
                scope.spawn(|| {
                    let mut client = server.connect();
                    let counts = ask(&mut client, &keys("INCR"));
                    // Nobody else's count can be this client's, and its own one is in all later answers.
                    assert!(
                        counts.iter().all(|count| (1..=20).contains(&count.parse().unwrap())),
                        "{counts:?}"
                    );
                    assert!(ask(&mut client, &["TOTAL"])[0].parse::<u64>().unwrap() >= 100);
                });
            }
        });
        let mut client = server.connect();
        assert_eq!(ask(&mut client, &keys("GET")), ["20"; 100]);
        assert_eq!(
            ask(&mut client, &["TOTAL", "GET nothing", "INCR key7", "TOTAL"]),
            ["2000", "0", "21", "2001"]
        );
        let said = server.stop(libc::SIGTERM);
        // Each ring has some of the keys.
        let (_, rest) = said.split_once('[').unwrap();
        let counts = rest.split_once(']').unwrap().0.split(", ").map(|count| count.parse().unwrap());
        let counts: Vec<u32> = counts.collect();
        assert!(counts.len() == rings as usize && !counts.contains(&0), "{said}");
        assert_eq!(counts.iter().sum::<u32>(), 100);
    }
}

#[test]
fn a_line_that_shards_do_not_understand_costs_an_error_and_one_without_end_the_connection() {
    if ring_or_skip() {
        let server = Server::shards(2, &[]);
        let mut client = server.connect();
        let lines = ["", "PUT key", "GET", "GET a b", "TOTAL key", "INCR key"];
        let told = ask(&mut client, &lines);
        assert!(told[..5].iter().all(|answer| answer.starts_with("ERROR")), "{told:?}");
        assert_eq!(told[5], "1");
        client.write_all(b"GET \xff\nGET ke").unwrap();
        assert!(answers(&mut client, 1)[0].starts_with("ERROR"));
        assert_eq!(ask(&mut client, &["y"]), ["1"]);
        client.write_all(&[b'x'; 5000]).unwrap();
        assert_eq!(read_what_comes(&mut client), b"");
        assert_eq!(ask(&mut server.connect(), &["GET key"]), ["1"]);
        server.stop(libc::SIGINT);
    }
}

#[test]
fn shards_stop_in_the_middle_of_their_work_and_still_answer_what_they_have_taken() {
    for round in 0..8 {
        if !ring_or_skip() {
            return;
        }
        let server = Server::shards(4, &["--idle-ms", "500"]);
        let mut idle = server.connect();
        let mut half_a_line = server.connect();
        half_a_line.write_all(b"INCR ke").unwrap();
        let mut deaf = server.connect();
        if round % 4 == 0 {
            // The answers are much longer.
            write_until_it_blocks(&mut deaf, &[b'\n'; 10_000_000]);
        }
        let busy: Vec<_> = (0..8)
            .map(|number| {
                let mut client = server.connect();
                thread::spawn(move || {
                    let lines = (0..20).map(|key| format!("INCR key{number}_{key}\n")).collect::<String>();
                    let mut answers = 0;
                    while client.write_all(lines.as_bytes()).is_ok() {
                        let answer = read_some(&mut client);
                        if answer.is_empty() {
                            break;
                        }
                        answers += answer.iter().filter(|byte| **byte == b'\n').count();
                    }
                    answers
                })
            })
            .collect();
        until("the busy ones are answered", || {
            ask(&mut server.connect(), &["TOTAL"])[0].parse::<u64>().unwrap() > 500
        });
        server.stop(if round % 2 == 0 { libc::SIGTERM } else { libc::SIGINT });
        for client in [&mut idle, &mut half_a_line] {
            assert_eq!(read_what_comes(client), b"");
        }
        assert!(busy.into_iter().map(|client| client.join().unwrap()).sum::<usize>() > 0);
    }
}

#[test]
fn shards_end_clients_that_are_idle_for_too_long() {
    if ring_or_skip() {
        let server = Server::shards(2, &["--idle-ms", "50"]);
        let mut client = server.connect();
        assert_eq!(ask(&mut client, &["INCR key"]), ["1"]);
        assert_eq!(read_what_comes(&mut client), b"");
        server.stop(libc::SIGTERM);
    }
}

#[test]
fn shards_without_descriptors_serve_again_when_there_are_some() {
    if ring_or_skip() {
        let server = Server::with_few_descriptors(30, "shards", &["127.0.0.1:0", "--rings", "2"]);
        let before = server.descriptors();
        let clients: Vec<_> = (0..40).map(|_| server.connect()).collect();
        until("no descriptor is left", || server.descriptors() >= 30);
        drop(clients);
        until("all descriptors closed", || server.descriptors() == before);
        assert_eq!(ask(&mut server.connect(), &["INCR key", "TOTAL"]), ["1", "1"]);
        let said = server.stop(libc::SIGTERM);
        assert!(said.contains("operation `acceptor`: ") && said.contains("Too many open files"), "{said}");
    }
}

#[test]
fn addresses_that_shards_cannot_listen_on_are_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let shards = |arguments: &[&str]| run(Command::new(example("shards")).args(arguments));
    shards(&[&address]).failed_saying(&["shards: can't listen on", &address, "in use"]);
    for wrong in [&["nonsense"][..], &["127.0.0.1:0", "--rings", "0"]] {
        assert_eq!(shards(wrong).status.code(), Some(2));
    }
}

// ---- wal --------------------------------------------------------------------------------------------

/// The numbers of lines that were reported to be safe.
fn safe(stdout: &str) -> Vec<usize> {
    let number = |line: &str| line.strip_suffix(" lines are safe").unwrap().parse().unwrap();
    stdout.lines().map(number).collect()
}

#[test]
fn wal_appends_what_it_reads_and_says_what_is_safe() {
    if !ring_or_skip() {
        return;
    }
    let directory = Directory::new("wal");
    let mut expected = Vec::new();
    // More than may wait, less than a line, nothing; each is appended.
    for (lines, rest) in [(3, ""), (300_000, ""), (0, "x"), (0, ""), (1, "y")] {
        let text: String = (0..lines).map(|line| format!("line {line}\n")).collect::<String>() + rest;
        let input = File::open(directory.file("input", &text)).unwrap();
        let mut wal = Command::new(example("wal"));
        let ran = run_with(wal.arg(directory.path("log")), input).succeeded();
        expected.extend(text.as_bytes());
        assert!(directory.read("log").unwrap() == expected, "{lines} lines and {rest:?}");
        let safe = safe(&ran.stdout);
        assert!(safe.is_sorted() && safe.last().is_none_or(|last| *last == lines), "{safe:?} of {lines}");
        assert_eq!((safe.is_empty(), &*ran.stderr), (text.is_empty(), ""));
    }
}

#[test]
fn wal_writes_when_no_more_lines_come() {
    if !ring_or_skip() {
        return;
    }
    let directory = Directory::new("linger");
    for linger in ["0", "1", "20"] {
        let mut wal = Command::new(example("wal"));
        let wal = wal.arg(directory.path("log")).args(["--linger-ms", linger]);
        let mut child = wal.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        let mut answers = BufReader::new(child.stdout.take().unwrap()).lines();
        for number in 1..=3 {
            // The next one is written only when this one is safe.
            writeln!(input, "line").unwrap();
            assert_eq!(answers.next().unwrap().unwrap(), format!("{number} lines are safe"));
        }
        drop(input);
        assert!(answers.next().is_none() && wait(&mut child).success());
    }
    assert_eq!(directory.read("log").unwrap(), b"line\n".repeat(9));
}

#[test]
fn wal_calls_nothing_safe_that_is_not_under_a_simulated_kernel() {
    assert_pass_in("wal", 3);
}

#[test]
fn wal_names_what_has_failed() {
    if !ring_or_skip() {
        return;
    }
    let wal = |file: &str| {
        let mut wal = Command::new(example("wal"));
        wal.arg(file);
        wal
    };
    run(&mut wal("/nowhere/log")).failed_saying(&["wal: can't open `/nowhere/log`", "No such file"]);
    let directory = Directory::new("full");
    let input = || File::open(directory.file("input", "line\n")).unwrap();
    run_with(&mut wal("/dev/full"), input()).failed_saying(&["wal: can't write", "No space left"]);
    // There is nothing to be synced.
    run_with(&mut wal("/dev/null"), input()).failed_saying(&["wal: can't sync", "Invalid argument"]);
    run_with(&mut wal("/dev/null"), File::open("/").unwrap())
        .failed_saying(&["wal: can't read", "directory"]);
}

// ---- cp ---------------------------------------------------------------------------------------------

#[track_caller]
fn cp(source: &Path, target: &Path, options: &[&str]) -> Ran {
    run(Command::new(example("cp")).arg(source).arg(target).args(options))
}

#[test]
fn cp_copies_files_of_any_size_with_blocks_of_any_size() {
    if !ring_or_skip() {
        return;
    }
    let directory = Directory::new("sizes");
    for (size, options) in [
        (0, &["--block-size", "4096"][..]),
        (1, &["--block-size", "4096"]),
        (4095, &["--block-size", "4096"]),
        (4096, &["--block-size", "4096"]),
        (4097, &["--block-size", "4096", "--depth", "1"]),
        (8192, &["--block-size", "4096", "--depth", "256"]),
        (1000, &["--block-size", "1", "--depth", "7"]),
        (100_000, &["--block-size", "77"]),
        (5_000_001, &["--block-size", "99991", "--depth", "5"]),
        (5_000_001, &["--block-size", "67108864"]),
        (8 << 20, &[]),
    ] {
        let source = directory.file("source", pattern(size));
        let target = directory.path("target");
        let ran = cp(&source, &target, options).succeeded();
        assert_eq!((&*ran.stdout, &*ran.stderr), ("", ""), "no progress bar where there is no terminal");
        assert!(fs::read(&target).unwrap() == pattern(size), "{size} bytes with {options:?}");
        fs::remove_file(target).unwrap();
    }
}

#[test]
fn cp_overwrites_only_when_told() {
    if !ring_or_skip() {
        return;
    }
    let directory = Directory::new("force");
    let source = directory.file("source", "new");
    let target = directory.file("target", "old, and longer");
    cp(&source, &target, &[]).failed_saying(&["target", "exists", "--force"]);
    assert_eq!(fs::read(&target).unwrap(), b"old, and longer");
    cp(&source, &target, &["--force"]).succeeded();
    assert_eq!(fs::read(&target).unwrap(), b"new");
}

#[test]
fn cp_keeps_the_permissions() {
    if !ring_or_skip() {
        return;
    }
    let directory = Directory::new("mode");
    for mode in [0o600, 0o444, 0o755, 0o777] {
        let source = directory.file("source", "content");
        fs::set_permissions(&source, fs::Permissions::from_mode(mode)).unwrap();
        let target = directory.path("target");
        cp(&source, &target, &[]).succeeded();
        assert_eq!(fs::metadata(&target).unwrap().mode() & 0o7777, mode);
        fs::remove_file(source).unwrap();
        fs::remove_file(target).unwrap();
    }
}

#[test]
fn cp_does_not_copy_a_file_onto_itself() {
    if !ring_or_skip() {
        return;
    }
    let directory = Directory::new("itself");
    let source = directory.file("source", "content");
    let linked = directory.path("linked");
    fs::hard_link(&source, &linked).unwrap();
    for target in [&source, &linked] {
        cp(&source, target, &[]).failed_saying(&["exists"]);
        cp(&source, target, &["--force"]).failed_saying(&["is the source itself"]);
        assert_eq!(fs::read(&source).unwrap(), b"content");
    }
}

#[test]
fn cp_names_the_file_and_the_cause() {
    if !ring_or_skip() {
        return;
    }
    let directory = Directory::new("errors");
    let source = directory.file("source", pattern(100_000));
    let target = directory.path("target");
    cp(&directory.path("missing"), &target, &[]).failed_saying(&["can't open", "missing", "No such file"]);
    cp(directory.root(), &target, &[]).failed_saying(&["can't open", "is a directory"]);
    assert!(!target.exists());
    cp(&source, directory.root(), &[]).failed_saying(&["exists"]);
    cp(&source, directory.root(), &["--force"]).failed_saying(&["can't open", "Is a directory"]);
    cp(&source, &directory.path("no/such"), &[]).failed_saying(&["can't create", "no/such"]);
    let full = Path::new("/dev/full");
    cp(&source, full, &["--force"]).failed_saying(&["can't write `/dev/full`", "No space left"]);
    assert!(full.exists(), "it was there before");
    for word in ["0", "-1", "x", "67108865"] {
        assert_eq!(cp(&source, &target, &["--block-size", word]).status.code(), Some(2), "{word}");
    }
    assert!(!target.exists());
}

#[test]
fn cp_removes_what_it_has_begun_when_it_fails() {
    if !ring_or_skip() {
        return;
    }
    let directory = Directory::new("partial");
    let target = directory.path("target");
    // Nothing is mapped at the address 0.
    cp(Path::new("/proc/self/mem"), &target, &[]).failed_saying(&["can't read `/proc/self/mem`"]);
    assert!(!target.exists());
    fs::write(&target, "old").unwrap();
    cp(Path::new("/proc/self/mem"), &target, &["--force"]).failed_saying(&["can't read"]);
    assert!(target.exists(), "it was there before");
}

#[test]
fn cp_copies_files_that_do_not_say_how_long_they_are() {
    if !ring_or_skip() {
        return;
    }
    let directory = Directory::new("proc");
    let target = directory.path("target");
    let source = Path::new("/proc/self/limits");
    assert_eq!(fs::metadata(source).unwrap().len(), 0);
    cp(source, &target, &["--block-size", "100"]).succeeded();
    let copied = fs::read_to_string(target).unwrap();
    assert!(
        copied.starts_with("Limit ") && copied.contains("Max open files") && copied.ends_with('\n'),
        "{copied}"
    );
}

#[test]
fn cp_copies_from_and_to_pipes() {
    if !ring_or_skip() {
        return;
    }
    let mut child = Command::new(example("cp"))
        .args(["/dev/stdin", "/dev/stdout", "--force", "--block-size", "1000"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let writer = thread::spawn(move || {
        for part in pattern(300_000).chunks(777) {
            input.write_all(part).unwrap();
        }
    });
    let mut output = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut output).unwrap();
    assert!(wait(&mut child).success());
    writer.join().unwrap();
    assert!(output == pattern(300_000), "{} bytes", output.len());
}

// ---- pixelflut --------------------------------------------------------------------------------------

/// Writes a picture of this size whose pixels all differ, and returns what it consists of.
fn write_picture(path: &Path, width: u32, height: u32) -> Vec<u8> {
    let pixels: Vec<u8> =
        (0..width * height).flat_map(|pixel| [pixel as u8, (pixel >> 8) as u8, 7]).collect();
    let mut file = format!("P6\n{width} {height}\n255\n").into_bytes();
    file.extend_from_slice(&pixels);
    fs::write(path, file).unwrap();
    pixels
}

fn draw(server: SocketAddr, picture: &Path, arguments: &[&str]) -> Command {
    let mut draw = Command::new(example("pixelflut"));
    draw.arg("draw").arg(server.to_string()).arg(picture).args(arguments);
    draw
}

#[test]
fn pixelflut_draws_a_picture() {
    if ring_or_skip() {
        let directory = Directory::new("pixelflut-draws");
        let (picture, canvas) = (directory.path("picture.ppm"), directory.path("canvas.ppm"));
        let pixels = write_picture(&picture, 64, 48);
        let mut serve = Command::new(example("pixelflut"));
        serve.args(["serve", "127.0.0.1:0", "--width", "80", "--height", "50", "--image"]).arg(&canvas);
        let server = Server::of(&mut serve);
        let ran =
            run(&mut draw(server.address, &picture, &["--connections", "7", "--x", "20", "--times", "3"]));
        assert_eq!(ran.succeeded().stdout, "9216 pixels are drawn\n");
        let mut client = server.connect();
        client.write_all(b"SIZE\nOFFSET 10 0\nPX 13 1\nPX 0 0\n").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        // The picture begins at 20: the first is its pixel (3, 1).
        assert_eq!(read_what_comes(&mut client), b"SIZE 80 50\nPX 13 1 430007\nPX 0 0 000000\n");
        server.stop(libc::SIGTERM);
        let mut expected = b"P6\n80 50\n255\n".to_vec();
        for y in 0..50 {
            expected.extend_from_slice(&[0; 3 * 20]);
            match pixels.chunks(3 * 64).nth(y) {
                Some(row) => expected.extend_from_slice(&row[..3 * 60]),
                None => expected.extend_from_slice(&[0; 3 * 60]),
            }
        }
        assert!(fs::read(&canvas).unwrap() == expected, "the canvas differs");
    }
}

#[test]
fn pixelflut_obeys_all_commands_under_a_simulated_kernel() {
    assert_pass_in("pixelflut", 5);
}

#[test]
fn pixelflut_goes_on_after_clients_that_make_mistakes_or_do_not_listen() {
    if ring_or_skip() {
        let mut serve = Command::new(example("pixelflut"));
        let server = Server::of(serve.args(["serve", "127.0.0.1:0", "--verbose"]));
        let before = server.descriptors();
        let mut deaf = server.connect();
        let questions = b"PX 1 2\n".repeat(5_000_000);
        assert!(write_until_it_blocks(&mut deaf, &questions) < questions.len());
        for mistake in [&b"GET / HTTP/1.1\r\n"[..], &[b'x'; 1 << 15]] {
            let mut client = server.connect();
            client.write_all(mistake).unwrap();
            assert_eq!(read_what_comes(&mut client), b"");
        }
        let mut client = server.connect();
        client.write_all(b"PX 5 5 010203\nPX 5 5\n").unwrap();
        assert_eq!(read_some(&mut client), b"PX 5 5 010203\n");
        drop(client);
        until("all but one are closed", || server.descriptors() == before + 1);
        let said = server.stop(libc::SIGINT);
        assert!(
            said.contains("not a command: GET / HTTP/1.1") && said.contains("a line without end"),
            "{said}"
        );
    }
}

#[test]
fn pixelflut_says_why_it_draws_nothing() {
    if ring_or_skip() {
        let directory = Directory::new("pixelflut-fails");
        let (picture, other) = (directory.path("picture.ppm"), directory.path("other"));
        write_picture(&picture, 2, 2);
        fs::write(&other, "P3\n1 1\n255\n1 2 3\n").unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        run(&mut draw(address, &directory.path("nothing"), &[]))
            .failed_saying(&["can't read", "No such file"]);
        run(&mut draw(address, &other, &[])).failed_saying(&["not a PPM file"]);
        // A server that does not read.
        let drawing = draw(address, &picture, &["--times", "100000000"]).stderr(Stdio::piped()).spawn();
        let mut drawing = drawing.unwrap();
        let _accepted: Vec<_> = (0..4).map(|_| listener.accept().unwrap()).collect();
        // SAFETY: a plain call; the child was not waited for, so the number is still its own.
        assert_eq!(unsafe { libc::kill(drawing.id() as i32, libc::SIGINT) }, 0);
        assert_eq!(wait(&mut drawing).code(), Some(1));
        let mut said = String::new();
        drawing.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(said, "pixelflut: interrupted\n");
        drop(listener);
        run(&mut draw(address, &picture, &[])).failed_saying(&["refused"]);
    }
}

// ---- simulated --------------------------------------------------------------------------------------

#[test]
fn the_simulation_finds_what_the_naive_server_forgets_and_finds_it_again_by_its_seed() {
    let said = run(Command::new(example("simulated")).env_remove("RUMMEL_SEED")).succeeded().stdout;
    assert_eq!(said, "the server is right under all kernels that were tried\n");
    let naive = || {
        let mut command = Command::new(example("simulated"));
        command.arg("--naive").env_remove("RUMMEL_SEED");
        command
    };
    let found = run(&mut naive());
    assert_eq!(found.status.code(), Some(101), "{found:?}");
    let (_, seed) = found.stderr.rsplit_once("RUMMEL_SEED=").unwrap();
    let (seed, _) = seed.split_once(' ').unwrap();
    let again = run(naive().env("RUMMEL_SEED", seed));
    assert_eq!(again.status.code(), Some(101), "{again:?}");
    for word in [&*format!("RUMMEL_SEED={seed}"), "TakenIn(RECV(", "Posted"] {
        assert!(again.stderr.contains(word), "no `{word}` in {again:?}");
    }
}

// ---- readme -----------------------------------------------------------------------------------------

#[test]
fn the_program_in_the_readme_counts_lines() {
    if !ring_or_skip() {
        return;
    }
    let directory = Directory::new("readme");
    for (lines, text) in [(0, String::new()), (1, "one\n".into()), (100_000, "line\n".repeat(100_000))] {
        let input = fs::File::open(directory.file("input", text)).unwrap();
        let ran = run_with(&mut Command::new(example("readme")), input).succeeded();
        assert_eq!(ran.stdout, format!("{lines} lines\n"));
    }
}
