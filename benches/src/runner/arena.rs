//! Builds contestants and runs them, on the clock or counted.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use kit::{Line, Report, Result as Done};

use super::Error;

/// A contestant.
pub(crate) struct Contestant {
    pub(crate) name: &'static str,
    binary: &'static str,
    /// For a peer: the feature of the package without which the binary is not built.
    feature: Option<&'static str>,
    /// Further arguments, besides those of the work.
    extra: &'static [&'static str],
    /// If it belongs only in some tables: an argument that these tables have.
    only: Option<&'static str>,
    /// Whether it is the first of its tables once more: the difference between these two is noise.
    pub(crate) is_again: bool,
}

const fn own(name: &'static str) -> Contestant {
    Contestant { name, binary: name, feature: None, extra: &[], only: None, is_again: false }
}

const fn peer(name: &'static str) -> Contestant {
    Contestant { feature: Some(name), ..own(name) }
}

/// Mostly `raw`, with one thing done differently.
const fn trade(name: &'static str, only: &'static str, extra: &'static [&'static str]) -> Contestant {
    among(name, "trades", only, extra)
}

/// A variant, which belongs only in a table that compares variants.
const fn among(
    name: &'static str,
    binary: &'static str,
    only: &'static str,
    extra: &'static [&'static str],
) -> Contestant {
    Contestant { binary, extra, only: Some(only), ..own(name) }
}

/// The first of a table once more.
const fn again(name: &'static str, first: Contestant) -> Contestant {
    Contestant { name, is_again: true, ..first }
}

const RAW: Contestant = own("raw");
const TO_ITSELF: Contestant = among("to itself", "rummelplatz", "among=tags", &["to=self"]);
const WITH_DEADLINES: Contestant = among("raw with deadlines", "raw", "among=deadlines", &[]);

/// The first contestant of each table is its bar.
pub(crate) const CONTESTANTS: &[Contestant] = &[
    RAW,
    again("raw again", RAW),
    Contestant { binary: "raw", extra: &["fast=1"], ..own("raw fast") },
    among("pread", "raw", "mode=plain", &["mode=pread"]),
    among("one cancel with ANY", "raw", "requests=1000", &["cancel=any"]),
    among("one cancel with ANY", "raw", "requests=10000", &["cancel=any"]),
    among("newest first", "raw", "cancel=each", &["cancel=newest"]),
    trade("fixed files", "trade=oneshot", &["mode=fixed-files"]),
    among("rummelplatz, plain", "rummelplatz", "trade=oneshot", &[]),
    among("direct descriptors by rummelplatz", "rummelplatz", "trade=oneshot", &["mode=direct"]),
    trade("poll first", "trade=oneshot", &["mode=poll-first"]),
    trade("zero copy", "trade=oneshot", &["mode=zero-copy"]),
    trade("min wait", "trade=oneshot", &["wait=min-wait"]),
    trade("sqpoll", "trade=oneshot", &["wait=sqpoll"]),
    trade("zero copy", "trade=large", &["mode=zero-copy"]),
    trade("bundles", "trade=bundles", &["mode=bundles"]),
    among("bundles by rummelplatz", "rummelplatz", "trade=bundles", &["mode=bundles"]),
    among("buffers of 16 KiB", "raw", "trade=bundles", &["buffer=16384"]),
    among(
        "incremental by rummelplatz",
        "rummelplatz",
        "trade=bundles",
        &["mode=incremental", "buffer=65536"],
    ),
    trade("sqpoll", "trade=nop", &["wait=sqpoll"]),
    TO_ITSELF,
    again("to itself again", TO_ITSELF),
    among("to the neighbour", "rummelplatz", "among=tags", &["to=other"]),
    WITH_DEADLINES,
    again("raw with deadlines again", WITH_DEADLINES),
    among("rummelplatz with deadlines", "rummelplatz", "among=deadlines", &[]),
    own("floor"),
    peer("liburing"),
    own("boxed"),
    own("rummelplatz"),
    own("derived"),
    peer("agave-io-uring"),
    peer("tokio-uring"),
    peer("monoio"),
    peer("compio"),
    peer("glommio"),
    peer("mio"),
    peer("tokio"),
];

impl Contestant {
    /// Whether it is a contestant of its own, not just a variant for some tables.
    pub(crate) fn is_somebody(&self) -> bool {
        self.only.is_none()
    }

    pub(crate) fn is_peer(&self) -> bool {
        self.feature.is_some()
    }

    /// Whether it belongs in a table with these arguments.
    pub(crate) fn is_for(&self, args: &[&str]) -> bool {
        match self.only {
            Some(only) => args.contains(&only),
            // A trade is compared with `raw`; other tables may compare variants, too.
            None if args.iter().any(|arg| arg.starts_with("trade=")) => self.binary == "raw",
            None => !args.iter().any(|arg| arg.starts_with("among=")),
        }
    }
}

/// The profile for comparing contestants: each is one piece of code, optimised as a whole.
pub(crate) const CONTEST: &str = "contest";

/// A contestant that can run.
#[derive(Clone)]
pub(crate) struct Built {
    pub(crate) name: &'static str,
    pub(crate) contestant: &'static Contestant,
    path: PathBuf,
}

impl Built {
    /// A contestant whose program is at `path`.
    pub(crate) fn at(path: PathBuf, contestant: &'static Contestant) -> Built {
        Built { name: contestant.name, contestant, path }
    }
}

/// Where the contestants are built and run.
pub(crate) struct Arena {
    workspace: PathBuf,
    target: PathBuf,
    /// Whether all peers could be built. In that case everything is built with the same features, so that the crates
    /// which they share are compiled only once.
    with_peers: Cell<bool>,
}

impl Arena {
    pub(crate) fn new() -> Result<Arena, Error> {
        let package = Path::new(env!("CARGO_MANIFEST_DIR"));
        let workspace = package.parent().ok_or("the package has no workspace around it")?.to_owned();
        let target = match std::env::var_os("CARGO_TARGET_DIR") {
            Some(target) => target.into(),
            None => workspace.join("target"),
        };
        let arena = Arena { workspace, target, with_peers: Cell::new(false) };
        // Made here, so that no contestant makes it.
        std::fs::create_dir_all(arena.target.join(CONTEST))?;
        kit::file::ensure(&arena.file())?;
        Ok(arena)
    }

    pub(crate) fn workspace(&self) -> &Path {
        &self.workspace
    }

    pub(crate) fn target(&self) -> &Path {
        &self.target
    }

    fn cargo_build(&self, profile: &str, arguments: &[&str]) -> Result<(), Error> {
        let mut cargo = Command::new("cargo");
        cargo.current_dir(&self.workspace).args(["build", "--quiet", "--profile", profile]);
        succeed(cargo.args(["--package", env!("CARGO_PKG_NAME")]).args(arguments), "cargo build")
    }

    /// Builds all peers at once, if possible; if not, each is tried by itself.
    pub(crate) fn build_with_peers(&self) {
        self.with_peers.set(self.cargo_build(CONTEST, &["--bins", "--features=peers"]).is_ok());
    }

    /// Builds a contestant, in the profile `contest`.
    pub(crate) fn build(&self, contestant: &'static Contestant) -> Result<Built, Error> {
        self.build_in(CONTEST, contestant)
    }

    /// Builds a contestant in a profile. The profile's directory has the same name.
    pub(crate) fn build_in(&self, profile: &str, contestant: &'static Contestant) -> Result<Built, Error> {
        let path = self.target.join(profile).join(contestant.binary);
        let feature = if self.with_peers.get() { "peers" } else { contestant.feature.unwrap_or("") };
        self.cargo_build(profile, &["--bin", contestant.binary, "--features", feature])?;
        let built = Built::at(path, contestant);
        // A contestant that lacks something here says so.
        self.works(&built).map(|_| built)
    }

    /// The file that is read.
    fn file(&self) -> PathBuf {
        self.target.join(CONTEST).join("read.dat")
    }

    fn file_argument(&self) -> String {
        format!("file={}", self.file().display())
    }

    /// What a contestant can do.
    pub(crate) fn works(&self, built: &Built) -> Result<Vec<String>, Error> {
        let output = Command::new(&built.path).arg("works").output()?;
        if !output.status.success() {
            return Err(why(&output).into());
        }
        Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
    }

    /// The command for a work of a contestant, behind a command that runs it, if there is one.
    fn behind(&self, prefix: &[&str], built: &Built, work: &str, args: &[&str]) -> Command {
        let path = built.path.as_os_str();
        let mut words = prefix.iter().map(OsStr::new).chain([path]);
        let mut command = Command::new(words.next().unwrap_or(path));
        command.args(words).arg(work).args(args).args(built.contestant.extra).arg(self.file_argument());
        command.stdin(Stdio::null());
        command
    }

    /// The command for a work of a contestant.
    pub(crate) fn command(&self, built: &Built, work: &str, args: &[&str]) -> Command {
        self.behind(&[], built, work, args)
    }

    /// Runs a work and checks that it was done.
    pub(crate) fn run(&self, built: &Built, work: &str, args: &[&str]) -> Result<Report, Error> {
        let output = self.command(built, work, args).output()?;
        if !output.status.success() {
            return Err(why(&output).into());
        }
        report(&output.stdout)
    }

    /// Runs a work of `n` completions and one of three times as many behind a command that counts something, both at
    /// the same time. Returns the count per completion: what comes before and after the steady state cancels out.
    fn count(
        &self,
        prefix: &[&str],
        parse: fn(&str) -> Option<Counted>,
        built: &Built,
        work: &str,
        args: &[&str],
        (key, n): (&str, u64),
    ) -> Result<Counted, Error> {
        let last_cpu = std::thread::available_parallelism()?.get() - 1;
        let start = |n: u64, cpu: usize| {
            let mut command = self.behind(prefix, built, work, args);
            command.args([format!("{key}={n}"), format!("cpu={cpu}")]);
            let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
            child.map_err(|error| format!("{}: {error}", prefix[0]))
        };
        let finish = |child: Child| -> Result<(Counted, f64), Error> {
            let output = child.wait_with_output()?;
            let text = String::from_utf8_lossy(&output.stderr);
            let n = report(&output.stdout)?.n as f64;
            Ok((parse(&text).ok_or_else(|| format!("{}: {}", prefix[0], text.trim()))?, n))
        };
        let (few, many) = (start(n, 0)?, start(3 * n, last_cpu));
        // Both must have ended before either failure is reported, so that nothing runs beside what comes next.
        let (few, many) = (finish(few), many.map_err(Error::from).and_then(finish));
        let ((few, fewer), (many, more)) = (few?, many?);
        let counted = many.into_iter().map(|(name, count)| {
            let before = few.get(&name).copied().unwrap_or(0.0);
            (name, (count - before) / (more - fewer))
        });
        Ok(counted.collect())
    }

    /// How many user-space instructions a work takes for each completion.
    ///
    /// The client of an echo is not counted.
    pub(crate) fn instructions(
        &self,
        built: &Built,
        work: &str,
        args: &[&str],
        size: (&str, u64),
    ) -> Result<f64, Error> {
        const CALLGRIND: &[&str] = &[
            "valgrind",
            "--tool=callgrind",
            "--callgrind-out-file=/dev/null",
            "--toggle-collect=bench_client_batch",
            "--collect-atstart=yes",
        ];
        let counted = self.count(CALLGRIND, collected, built, work, args, size)?;
        Ok(counted.values().sum())
    }

    /// How many system calls a work makes for each completion.
    ///
    /// Those of the client of an echo are not counted.
    pub(crate) fn system_calls(
        &self,
        built: &Built,
        work: &str,
        args: &[&str],
        size: (&str, u64),
    ) -> Result<f64, Error> {
        let mut counted = self.count(&["strace", "-f", "-c"], called, built, work, args, size)?;
        if work == "echo" {
            for name in ["readv", "writev", "socket", "connect", "setsockopt"] {
                counted.remove(name);
            }
            // The client closes each connection, and the server may do so as well.
            if args.contains(&"churn=1") {
                *counted.entry("close".to_owned()).or_default() -= 1.0;
            }
        }
        Ok(counted.values().sum())
    }
}

/// What was counted, by name.
type Counted = BTreeMap<String, f64>;

/// What callgrind has collected.
fn collected(text: &str) -> Option<Counted> {
    let collected = text.lines().find_map(|line| line.split_once("Collected : "))?.1;
    Some(Counted::from([(String::new(), collected.trim().parse().ok()?)]))
}

/// The calls in strace's summary, whose rows are `% time, seconds, usecs/call, calls, errors, syscall`.
fn called(text: &str) -> Option<Counted> {
    let rows = text.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let is_row = words.first()?.parse::<f64>().is_ok();
        is_row.then(|| Some((words.last()?.to_string(), words.get(3)?.parse().ok()?)))?
    });
    let counted: Counted = rows.filter(|(name, _)| name != "total").collect();
    (!counted.is_empty()).then_some(counted)
}

/// Reads the last thing that a contestant has printed.
pub(crate) fn report(stdout: &[u8]) -> Result<Report, Error> {
    let text = String::from_utf8_lossy(stdout);
    let line = text.lines().last().ok_or("the contestant has printed nothing")?;
    match serde_json::from_str::<Line>(line)?.result {
        Done::Skipped { skipped } => Err(skipped.into()),
        Done::Done(report) if report.check == report.n => Ok(report),
        Done::Done(Report { n, check, .. }) => Err(format!("{check} of {n} were done").into()),
    }
}

/// Why a process has failed: in its own words, or by how it has ended.
fn why(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    words(&text).map_or_else(|| output.status.to_string(), str::to_owned)
}

/// The line in which a process says why it fails: the last line, except that a panic's line is above its backtrace.
pub(crate) fn words(stderr: &str) -> Option<&str> {
    let lines = || stderr.lines().map(str::trim).filter(|line| !line.is_empty());
    lines().skip_while(|line| !line.contains(" panicked at ")).nth(1).or_else(|| lines().next_back())
}

pub(crate) fn succeed(command: &mut Command, name: &str) -> Result<(), Error> {
    let output = command.output().map_err(|error| format!("{name}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let error = String::from_utf8_lossy(&output.stderr);
    let first = error.lines().find(|line| line.starts_with("error")).unwrap_or("it failed");
    Err(format!("{name}: {first}").into())
}

#[cfg(test)]
mod tests {
    use super::super::tables::{Kind, TABLES, Table};
    use super::*;

    #[test]
    fn summaries_are_read() {
        let summary = "% time     seconds  usecs/call     calls    errors syscall\n\
            ------ ----------- ----------- --------- --------- ----------------\n \
            99.00    0.000500           3       160           io_uring_enter\n  \
            1.00    0.000001           0        12         7 recvfrom\n\
            ------ ----------- ----------- --------- --------- ----------------\n\
            100.00    0.000501           2       172         7 total\n";
        let counted = called(summary).unwrap();
        assert_eq!(counted, Counted::from([("io_uring_enter".into(), 160.0), ("recvfrom".into(), 12.0)]));
        assert_eq!(called("strace: not permitted"), None);
        let collected = collected("==7== \n==7== Collected : 980053\n").unwrap();
        assert_eq!(collected.values().sum::<f64>(), 980_053.0);
    }

    #[test]
    fn variants_are_in_their_tables_only() {
        let who = |args: &[&str]| {
            let those = CONTESTANTS.iter().filter(|one| one.is_for(args));
            those.map(|one| one.name).collect::<Vec<_>>()
        };
        assert!(who(&["mode=plain"]).contains(&"pread") && who(&["mode=plain"]).contains(&"tokio"));
        assert!(!who(&["mode=fixed"]).contains(&"pread"));
        assert_eq!(who(&["trade=nop"]), ["raw", "raw again", "raw fast", "sqpoll"]);
        assert_eq!(who(&["among=tags"]), ["to itself", "to itself again", "to the neighbour"]);
        assert_eq!(who(&["among=deadlines"]).len(), 3);
    }

    #[test]
    fn each_table_that_is_timed_has_its_first_contestant_twice() {
        for Table { page, kind, args, .. } in TABLES {
            if !matches!(kind, Kind::Timed | Kind::Batches | Kind::Loaded) {
                continue;
            }
            let those: Vec<_> = CONTESTANTS.iter().filter(|one| one.is_for(args)).collect();
            let again: Vec<_> = those.iter().filter(|one| one.is_again).collect();
            assert!(!those[0].is_again && again.len() == 1, "{page}");
            assert_eq!((again[0].binary, again[0].extra), (those[0].binary, those[0].extra), "{page}");
        }
    }

    #[test]
    fn whoever_fails_says_why() {
        let ended = |script: &str| why(&Command::new("sh").args(["-c", script]).output().unwrap());
        assert_eq!(ended("echo one >&2; echo two >&2; exit 1"), "two");
        assert_eq!(ended("exit 3"), "exit status: 3");
        assert!(ended("kill -SEGV $$").starts_with("signal: 11"));
        let panic =
            "\nthread 'main' (7) panicked at src/main.rs:1:1:\nno ring\nstack backtrace:\n   0: main\n";
        assert_eq!(words(panic), Some("no ring"));
        assert_eq!(words("\n"), None);
    }

    #[test]
    fn work_that_was_not_done_is_no_figure() {
        let line = |n: u32, check: u32| {
            format!(
                r#"{{"name":"x","work":"nop","n":{n},"wall_ns":1,"cpu_ns":1,"allocs":0,"bytes":0,"check":{check},"rss_kib":7}}"#
            )
        };
        assert_eq!(report(line(3, 3).as_bytes()).unwrap().extra["rss_kib"], 7.0);
        assert_eq!(report(line(3, 2).as_bytes()).unwrap_err().to_string(), "2 of 3 were done");
        let skipped = br#"{"name":"x","work":"nop","skipped":"no ring"}"#;
        assert_eq!(report(skipped).unwrap_err().to_string(), "no ring");
        assert!(report(b"").is_err() && report(b"Segmentation fault").is_err());
    }
}
