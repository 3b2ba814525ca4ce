//! The `main` of a contestant.

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

use crate::{Args, Line, Report, Result};

/// Whatever went wrong.
pub type Error = Box<dyn std::error::Error>;

/// What a work returns.
pub type Outcome = std::result::Result<Report, Error>;

/// A work that a contestant can do.
pub type Work = fn(&Args) -> Outcome;

/// Why a work can't be done here.
#[derive(Debug)]
struct Skip(String);

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Skip {}

/// The error of a work that can't be done here: `return Err(kit::skip("no O_DIRECT here"))`.
pub fn skip(reason: impl Into<String>) -> Error {
    Box::new(Skip(reason.into()))
}

/// Does the work that the command line names, and prints its line of JSON.
///
/// `NAME works` prints the works. A work that is not in `works` is skipped, which is no failure.
pub fn contest(name: &str, works: &[(&str, Work)]) -> ExitCode {
    match command(name, works) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            writeln!(io::stderr(), "{name}: {error}").ok();
            ExitCode::FAILURE
        }
    }
}

fn command(name: &str, works: &[(&str, Work)]) -> std::result::Result<(), Error> {
    let mut arguments = std::env::args().skip(1);
    let Some(work) = arguments.next() else {
        return Err(format!("usage: {name} WORK KEY=VALUE…, or {name} works").into());
    };
    if work == "works" {
        let mut stdout = io::stdout().lock();
        return works.iter().try_for_each(|(work, _)| Ok(writeln!(stdout, "{work}")?));
    }
    let args = Args::parse(arguments)?;
    // A server is loaded from the other core, by a runner that is pinned there.
    pin(args.number("cpu", 0)?)?;
    // A contestant that hangs is ended, so that the others need not wait.
    // SAFETY: sets a timer; no memory is involved.
    unsafe { libc::alarm(args.number("alarm", 100)?) };
    let outcome = match works.iter().find(|(known, _)| *known == work) {
        Some((_, run)) => run(&args),
        None => Err(skip("not among its works")),
    };
    let result = match outcome {
        Ok(report) => Result::Done(report),
        Err(error) if error.is::<Skip>() => Result::Skipped { skipped: error.to_string() },
        Err(error) => return Err(format!("{work}: {error}").into()),
    };
    let line = serde_json::to_string(&Line { name: name.to_owned(), work, result })?;
    Ok(writeln!(io::stdout(), "{line}")?)
}

/// Keeps this process on one CPU.
///
/// # Errors
///
/// What `sched_setaffinity(2)` says.
pub fn pin(cpu: usize) -> io::Result<()> {
    if cpu >= libc::CPU_SETSIZE as usize {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: a `cpu_set_t` is an array of integers, for which zeroes are values.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `cpu` is below CPU_SETSIZE, which is how many bits there are.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: `set` is as large as is said, and only read; 0 is this thread.
    check(unsafe { libc::sched_setaffinity(0, size_of_val(&set), &set) })?;
    Ok(())
}

/// The `errno` of a call that returned -1.
pub(crate) fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
