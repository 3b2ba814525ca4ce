//! Appends the lines of its standard input to a file, and says how many of them are safe on disk.
//!
//! A batch of lines is a chain: a write, and an `fdatasync` that begins when everything is written. Lines that come
//! meanwhile wait and form the next batch, so the program waits for the disk only once for all of them. When nothing is
//! being written, a read with a deadline waits a little for more lines of the batch.

#![forbid(unsafe_code)]

use std::error::Error;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use rummelplatz::{Completion, Request, RingError, RingOperation, Submitter, request, ring};

/// When this many bytes wait to be written, no more are read.
const MOST_WAITING: usize = 1 << 20;

/// Appends lines to a file, and says how many are safe.
#[derive(Parser)]
#[command(name = "wal", version)]
struct Arguments {
    /// The file to append to, which is made if there is none.
    file: PathBuf,
    /// How long to wait for more lines before those that have come are written.
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 2)]
    linger_ms: u64,
}

#[ring]
struct Wal {
    log: Log,
}

#[cfg(all(test, feature = "sim"))]
#[path = "wal/tests.rs"]
mod tests;

/// Reads, writes and syncs.
#[derive(RingOperation)]
#[ring_operation(ring = Wal, data = Step, error = Failure, setup, on_completion)]
struct Log {
    file: Arc<File>,
    linger: Duration,
    /// The bytes of the next batch, and the time since which the first of them waits.
    waiting: Vec<u8>,
    since: Instant,
    /// A batch is on its way.
    is_writing: bool,
    /// A batch of which only a part was written, and how much that was. The short write has ended its chain.
    unwritten: Option<(Vec<u8>, usize)>,
    /// The buffer to read into, while nothing is being read.
    buffer: Option<Box<[u8]>>,
    /// How many lines are on disk.
    safe: usize,
}

/// What a request does.
enum Step {
    Read { input: io::Stdin, buffer: Box<[u8]>, linger: Option<Duration> },
    Write { file: Arc<File>, bytes: Vec<u8>, written: usize },
    Sync { file: Arc<File>, lines: usize },
}

impl Step {
    fn request(&mut self) -> Request<'_> {
        match self {
            Step::Read { input, buffer, linger: None } => request::read(input, buffer),
            Step::Read { input, buffer, linger: Some(time) } => request::read(input, buffer).deadline(*time),
            Step::Write { file, bytes, written } => request::write(file, &bytes[*written..]),
            Step::Sync { file, .. } => request::fdatasync(file),
        }
    }
}

type Failure = Box<dyn Error + Send + Sync>;

fn failed(action: &str) -> impl FnOnce(io::Error) -> Failure {
    move |error| format!("can't {action}: {error}").into()
}

impl Log {
    fn new(file: File, linger: Duration) -> Log {
        Log {
            file: Arc::new(file),
            linger,
            waiting: Vec::new(),
            since: Instant::now(),
            is_writing: false,
            unwritten: None,
            buffer: Some(vec![0; 1 << 16].into()),
            safe: 0,
        }
    }

    fn setup(&mut self, mut submitter: Submitter<'_, Wal, Self>) -> Result<(), Failure> {
        if let Some(read) = self.next_read() {
            submitter.submit(read, Step::request)?;
        }
        Ok(())
    }

    fn on_completion(
        &mut self,
        completion: Completion,
        step: Step,
        mut submitter: Submitter<'_, Wal, Self>,
    ) -> Result<(), Failure> {
        let batch = match step {
            Step::Read { buffer, .. } if completion.timed_out() && completion.result().is_err() => {
                self.was_read(None, buffer)
            }
            Step::Read { buffer, .. } => {
                let read = completion.result().map_err(failed("read"))?;
                self.was_read(Some(read as usize), buffer)
            }
            Step::Write { bytes, written, .. } => {
                let result = completion.result().and_then(|wrote| match wrote {
                    0 => Err(io::ErrorKind::WriteZero.into()),
                    wrote => Ok(wrote),
                });
                let written = written + result.map_err(failed("write"))? as usize;
                self.unwritten = (written < bytes.len()).then_some((bytes, written));
                None
            }
            Step::Sync { .. } if self.unwritten.is_some() => self.unwritten.take(),
            sync if completion.is_cancelled() => {
                // Everything is written. Any request may end like this, though nobody has cancelled it.
                submitter.submit(sync, Step::request)?;
                None
            }
            Step::Sync { lines, .. } => {
                completion.result().map_err(failed("sync"))?;
                self.is_writing = false;
                self.safe += lines;
                writeln!(io::stdout(), "{} lines are safe", self.safe)?;
                self.next_batch()
            }
        };
        if let Some((bytes, written)) = batch {
            let lines = bytes.iter().filter(|byte| **byte == b'\n').count();
            let mut chain = submitter.chain();
            chain.link(Step::Write { file: Arc::clone(&self.file), bytes, written }, Step::request)?;
            chain.submit(Step::Sync { file: Arc::clone(&self.file), lines }, Step::request)?;
        }
        if let Some(read) = self.next_read() {
            submitter.submit(read, Step::request)?;
        }
        Ok(())
    }

    /// `read` bytes were read, or, with `None`, no bytes came in time. Returns the next batch, if it is time for that.
    fn was_read(&mut self, read: Option<usize>, buffer: Box<[u8]>) -> Option<(Vec<u8>, usize)> {
        if self.waiting.is_empty() {
            self.since = Instant::now();
        }
        self.waiting.extend_from_slice(&buffer[..read.unwrap_or(0)]);
        let has_ended = read == Some(0);
        if !has_ended {
            self.buffer = Some(buffer);
        }
        let is_full = self.waiting.len() >= MOST_WAITING;
        let is_time = has_ended || is_full || self.since.elapsed() >= self.linger;
        if is_time { self.next_batch() } else { None }
    }

    /// What waits and is not yet being written; `None` while something else is being written.
    fn next_batch(&mut self) -> Option<(Vec<u8>, usize)> {
        if self.is_writing || self.waiting.is_empty() {
            return None;
        }
        self.is_writing = true;
        Some((std::mem::take(&mut self.waiting), 0))
    }

    /// The next read; `None` while a read is in flight, if there is no room, or if there is nothing left to read. In
    /// the last case the ring ends when the last batch is on disk.
    fn next_read(&mut self) -> Option<Step> {
        if self.waiting.len() >= MOST_WAITING {
            return None;
        }
        let buffer = self.buffer.take()?;
        // If a batch is on its way, its end also ends the wait.
        let waits = !self.waiting.is_empty() && !self.is_writing;
        let linger = waits.then(|| self.linger.saturating_sub(self.since.elapsed()));
        Some(Step::Read { input: io::stdin(), buffer, linger })
    }
}

fn append(file: &Path, linger: Duration) -> Result<(), Failure> {
    let name = file.display();
    let file = OpenOptions::new().append(true).create(true).open(file);
    let file = file.map_err(|error| format!("can't open `{name}`: {error}"))?;
    match Wal::builder(Log::new(file, linger)).build()?.run() {
        Err(RingError::Completion(cause)) => {
            let WalCompletionError::Log(failure) = cause.error;
            Err(failure)
        }
        result => Ok(result?),
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match append(&arguments.file, Duration::from_millis(arguments.linger_ms)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("wal: {failure}");
            ExitCode::FAILURE
        }
    }
}
