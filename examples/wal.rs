//! Appends the lines of its standard input to a file, and says how many of them are safe on disk.
//!
//! A batch of lines is a chain: a write, and an `fdatasync` that begins when all of it is written. Lines that come
//! meanwhile wait, and are the next batch: so the disk is waited for once for all of them. When nothing is being
//! written, a read with a deadline waits a little for more lines of the batch.

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

/// When so many bytes wait to be written, no more are read.
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

/// Reads, writes and syncs.
#[derive(RingOperation)]
#[ring_operation(ring = Wal, data = Step, error = Failure, setup, on_completion)]
struct Log {
    file: Arc<File>,
    linger: Duration,
    /// Bytes of the next batch, and since when the first of them waits.
    waiting: Vec<u8>,
    since: Instant,
    /// A batch is on its way.
    is_writing: bool,
    /// What is to be read into when there is room again.
    paused: Option<Box<[u8]>>,
    /// How many lines are on disk.
    safe: usize,
}

/// What a request is about.
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
            Step::Write { file, bytes, written } => request::write(&**file, &bytes[*written..]),
            Step::Sync { file, .. } => request::fdatasync(&**file),
        }
    }
}

type Failure = Box<dyn Error + Send + Sync>;

fn failed(action: &str) -> impl FnOnce(io::Error) -> Failure {
    move |error| format!("can't {action}: {error}").into()
}

impl Log {
    fn new(file: File, linger: Duration) -> Log {
        let (waiting, since, paused) = (Vec::new(), Instant::now(), None);
        Log { file: Arc::new(file), linger, waiting, since, is_writing: false, paused, safe: 0 }
    }

    fn setup(&mut self, submitter: Submitter<'_, Wal, Self>) -> Result<(), Failure> {
        self.read_on(vec![0; 1 << 16].into(), submitter)
    }

    fn on_completion(
        &mut self,
        completion: Completion,
        step: Step,
        submitter: Submitter<'_, Wal, Self>,
    ) -> Result<(), Failure> {
        match step {
            Step::Read { buffer, .. } if completion.timed_out() && completion.result().is_err() => {
                self.was_read(None, buffer, submitter)
            }
            Step::Read { buffer, .. } => {
                let read = completion.result().map_err(failed("read"))?;
                self.was_read(Some(read as usize), buffer, submitter)
            }
            Step::Write { bytes, written, .. } => {
                let written = written + completion.result().map_err(failed("write"))? as usize;
                match written < bytes.len() {
                    // That was the end of the chain: its sync did not begin.
                    true => self.write(bytes, written, submitter),
                    false => Ok(()),
                }
            }
            Step::Sync { .. } if completion.is_cancelled() => Ok(()),
            Step::Sync { lines, .. } => {
                completion.result().map_err(failed("sync"))?;
                self.was_synced(lines, submitter)
            }
        }
    }

    /// So many bytes were read, or none in time.
    fn was_read(
        &mut self,
        read: Option<usize>,
        buffer: Box<[u8]>,
        mut submitter: Submitter<'_, Wal, Self>,
    ) -> Result<(), Failure> {
        if self.waiting.is_empty() {
            self.since = Instant::now();
        }
        self.waiting.extend_from_slice(&buffer[..read.unwrap_or(0)]);
        let is_full = self.waiting.len() >= MOST_WAITING;
        let has_ended = read == Some(0);
        if has_ended || is_full || self.since.elapsed() >= self.linger {
            self.write_next(submitter.reborrow())?;
        }
        match has_ended {
            // Without a read, the ring ends when the last batch is on disk.
            true => Ok(()),
            false if self.waiting.len() >= MOST_WAITING => {
                self.paused = Some(buffer);
                Ok(())
            }
            false => self.read_on(buffer, submitter),
        }
    }

    fn read_on(&mut self, buffer: Box<[u8]>, mut submitter: Submitter<'_, Wal, Self>) -> Result<(), Failure> {
        // A batch that is on its way ends the wait itself.
        let waits = !self.waiting.is_empty() && !self.is_writing;
        let linger = waits.then(|| self.linger.saturating_sub(self.since.elapsed()));
        submitter.submit(Step::Read { input: io::stdin(), buffer, linger }, Step::request)?;
        Ok(())
    }

    /// Writes what waits, unless something is being written.
    fn write_next(&mut self, submitter: Submitter<'_, Wal, Self>) -> Result<(), Failure> {
        if self.is_writing || self.waiting.is_empty() {
            return Ok(());
        }
        self.is_writing = true;
        let bytes = std::mem::take(&mut self.waiting);
        self.write(bytes, 0, submitter)
    }

    fn write(
        &self,
        bytes: Vec<u8>,
        written: usize,
        mut submitter: Submitter<'_, Wal, Self>,
    ) -> Result<(), Failure> {
        let lines = bytes.iter().filter(|byte| **byte == b'\n').count();
        let mut chain = submitter.chain();
        chain.link(Step::Write { file: Arc::clone(&self.file), bytes, written }, Step::request)?;
        chain.submit(Step::Sync { file: Arc::clone(&self.file), lines }, Step::request)?;
        Ok(())
    }

    fn was_synced(&mut self, lines: usize, mut submitter: Submitter<'_, Wal, Self>) -> Result<(), Failure> {
        self.is_writing = false;
        self.safe += lines;
        writeln!(io::stdout(), "{} lines are safe", self.safe)?;
        self.write_next(submitter.reborrow())?;
        match self.paused.take() {
            Some(buffer) => self.read_on(buffer, submitter),
            None => Ok(()),
        }
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
