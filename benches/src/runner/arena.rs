//! Builds contestants and runs them, on the clock or counted.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use kit::{Line, Report, Result as Done};

use super::Error;

/// Somebody who does the work.
pub(crate) struct Contestant {
    pub(crate) name: &'static str,
    binary: &'static str,
    /// What it is told beside the work.
    extra: &'static [&'static str],
}

const fn own(name: &'static str) -> Contestant {
    Contestant { name, binary: name, extra: &[] }
}

/// The first is the bar.
pub(crate) const CONTESTANTS: &[Contestant] = &[
    own("raw"),
    Contestant { name: "raw again", binary: "raw", extra: &[] },
    Contestant { name: "raw fast", binary: "raw", extra: &["fast=1"] },
    own("floor"),
    own("boxed"),
    own("rummelplatz"),
    own("derived"),
];

/// A contestant that can run.
#[derive(Clone)]
pub(crate) struct Built {
    path: PathBuf,
    extra: &'static [&'static str],
}

/// Where the contestants are built and run.
pub(crate) struct Arena {
    workspace: PathBuf,
    target: PathBuf,
}

impl Arena {
    pub(crate) fn new() -> Result<Arena, Error> {
        let package = Path::new(env!("CARGO_MANIFEST_DIR"));
        let workspace = package.parent().ok_or("the package has no workspace around it")?.to_owned();
        let target = match std::env::var_os("CARGO_TARGET_DIR") {
            Some(target) => target.into(),
            None => workspace.join("target"),
        };
        let arena = Arena { workspace, target };
        // Made here, so that no contestant does it.
        std::fs::create_dir_all(arena.target.join("contest"))?;
        kit::file::ensure(&arena.file())?;
        Ok(arena)
    }

    pub(crate) fn workspace(&self) -> &Path {
        &self.workspace
    }

    /// Builds a contestant, in the profile `contest`.
    pub(crate) fn build(&self, contestant: &Contestant) -> Result<Built, Error> {
        let path = self.target.join("contest").join(contestant.binary);
        let mut cargo = Command::new("cargo");
        cargo.current_dir(&self.workspace).args(["build", "--quiet", "--profile", "contest"]);
        cargo.args(["--package", env!("CARGO_PKG_NAME"), "--bin", contestant.binary]);
        succeed(&mut cargo, "cargo build")?;
        Ok(Built { path, extra: contestant.extra })
    }

    /// The file that is read.
    fn file(&self) -> PathBuf {
        self.target.join("contest/read.dat")
    }

    fn file_argument(&self) -> String {
        format!("file={}", self.file().display())
    }

    /// What a contestant can do.
    pub(crate) fn works(&self, built: &Built) -> Result<Vec<String>, Error> {
        let output = Command::new(&built.path).arg("works").output()?;
        Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
    }

    /// Runs a work and checks that it was done.
    pub(crate) fn run(&self, built: &Built, work: &str, args: &[&str]) -> Result<Report, Error> {
        let mut command = Command::new(&built.path);
        command.arg(work).args(args).args(built.extra).arg(self.file_argument()).stdin(Stdio::null());
        let output = command.output()?;
        if !output.status.success() {
            let error = String::from_utf8_lossy(&output.stderr);
            return Err(format!("{work} {args:?}: {}", error.trim()).into());
        }
        report(&output.stdout)
    }

    /// How many user-space instructions a work takes for each completion: the difference of a run of
    /// `n` completions and one of three times as many, so that what comes before and after cancels out.
    ///
    /// The client of an echo is left out.
    pub(crate) fn instructions(
        &self,
        built: &Built,
        work: &str,
        args: &[&str],
        (key, n): (&str, u64),
    ) -> Result<f64, Error> {
        let count = |n: u64| -> Result<(f64, f64), Error> {
            let mut valgrind = Command::new("valgrind");
            valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
            valgrind.args(["--toggle-collect=bench_client_batch", "--collect-atstart=yes"]);
            valgrind.arg(&built.path).arg(work).args(args).args(built.extra).arg(self.file_argument());
            valgrind.arg(format!("{key}={n}"));
            let output = valgrind.stdin(Stdio::null()).output();
            let output = output.map_err(|error| format!("valgrind: {error}; it is to be had by apt"))?;
            let text = String::from_utf8_lossy(&output.stderr);
            let collected = text.lines().find_map(|line| line.split_once("Collected : "));
            let (_, collected) = collected.ok_or_else(|| format!("valgrind: {}", text.trim()))?;
            Ok((collected.trim().parse()?, report(&output.stdout)?.n as f64))
        };
        let ((few, fewer), (many, more)) = (count(n)?, count(3 * n)?);
        Ok((many - few) / (more - fewer))
    }
}

/// Reads what a contestant has printed last.
fn report(stdout: &[u8]) -> Result<Report, Error> {
    let text = String::from_utf8_lossy(stdout);
    let line = text.lines().last().ok_or("the contestant has printed nothing")?;
    match serde_json::from_str::<Line>(line)?.result {
        Done::Skipped { skipped } => Err(skipped.into()),
        Done::Done(report) if report.check == report.n => Ok(report),
        Done::Done(Report { n, check, .. }) => Err(format!("{check} of {n} were done").into()),
    }
}

fn succeed(command: &mut Command, name: &str) -> Result<(), Error> {
    let output = command.output().map_err(|error| format!("{name}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let error = String::from_utf8_lossy(&output.stderr);
    let last = error.lines().rfind(|line| line.contains("error")).unwrap_or("it failed");
    Err(format!("{name}: {last}").into())
}

#[cfg(test)]
mod tests {
    use super::*;

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
