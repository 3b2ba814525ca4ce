//! Copies a file with several reads and writes in flight.
//!
//! The file is cut into blocks. Each block is a request whose data owns the block's buffer. It is read, then written,
//! and then goes on as the next block that nobody has begun.

#![forbid(unsafe_code)]

use std::error::Error;
use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io;
use std::num::NonZeroU32;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use rummelplatz::{Completion, Request, RingError, RingOperation, Submitter, request, ring};

/// The largest number of blocks that may be in flight.
const RING_ENTRIES: NonZeroU32 = NonZeroU32::new(256).unwrap();

/// Copies a file, with several reads and writes in flight.
#[derive(Parser)]
#[command(name = "cp", version)]
struct Arguments {
    /// The file to copy.
    source: PathBuf,
    /// The file to make of it.
    target: PathBuf,
    /// Overwrites the target if there is one.
    #[arg(short, long)]
    force: bool,
    /// How many bytes are read and written at a time, at most 64 MiB.
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 18, value_parser = clap::value_parser!(u32).range(1..=1 << 26))]
    block_size: u32,
    /// How many blocks are in flight, at most 256.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=256))]
    depth: u32,
}

#[ring]
struct FileCopy {
    copier: Copier,
}

/// Copies blocks.
#[derive(RingOperation)]
#[ring_operation(ring = FileCopy, data = Block, error = Failure, setup, on_completion)]
struct Copier {
    source: Arc<OpenFile>,
    target: Arc<OpenFile>,
    order: Order,
    block_size: u32,
    /// Where the next block begins.
    next: u64,
    /// Where the source ends, once a read has found that out.
    end: Option<u64>,
    /// Blocks in flight.
    active: u32,
    progress: ProgressBar,
}

#[derive(Clone, Copy, PartialEq)]
enum Order {
    /// Several blocks at a time, each at its offset.
    Parallel(u32),
    /// One block after the other, each where the one before has ended. This is for pipes and devices, which have no
    /// offsets, and for files such as those in `/proc`, which don't say how long they are.
    Sequential,
}

/// A file, with the name that it has in messages.
struct OpenFile {
    file: File,
    path: PathBuf,
    metadata: Metadata,
    /// The file did not exist before.
    created: bool,
}

impl OpenFile {
    fn source(path: &Path) -> Result<OpenFile, Failure> {
        let open = || {
            let file = File::open(path)?;
            let metadata = file.metadata()?;
            match metadata.is_dir() {
                true => Err(io::ErrorKind::IsADirectory.into()),
                false => Ok(OpenFile { file, path: path.to_owned(), metadata, created: false }),
            }
        };
        open().map_err(|error| failure("open", path, error))
    }

    /// Creates the target, or opens the existing one and empties it.
    fn target(path: &Path, source: &OpenFile, force: bool) -> Result<OpenFile, Failure> {
        let mut options = OpenOptions::new();
        options.write(true).mode(source.permissions().mode());
        let (file, created) = match options.clone().create_new(true).open(path) {
            Ok(file) => (file, true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && force => {
                let file = options.open(path).map_err(|error| failure("open", path, error))?;
                (file, false)
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(format!("`{}` exists; --force overwrites it", path.display()).into());
            }
            Err(error) => return Err(failure("create", path, error)),
        };
        let metadata = file.metadata().map_err(|error| failure("open", path, error))?;
        let target = OpenFile { file, path: path.to_owned(), metadata, created };
        if target.is(source) {
            return Err(format!("`{}` is the source itself", path.display()).into());
        }
        if target.metadata.is_file() {
            target.file.set_len(0).map_err(|error| failure("empty", path, error))?;
        }
        Ok(target)
    }

    /// The permissions for a copy of this file; pipes and devices don't serve as a model.
    fn permissions(&self) -> Permissions {
        let mode = if self.metadata.is_file() { self.metadata.mode() & 0o777 } else { 0o644 };
        Permissions::from_mode(mode)
    }

    fn is(&self, other: &OpenFile) -> bool {
        let identity = |file: &OpenFile| (file.metadata.dev(), file.metadata.ino());
        identity(self) == identity(other)
    }
}

type Failure = Box<dyn Error + Send + Sync>;

fn failure(action: &str, path: &Path, error: io::Error) -> Failure {
    format!("can't {action} `{}`: {error}", path.display()).into()
}

/// One block on its way from the source to the target.
struct Block {
    source: Arc<OpenFile>,
    target: Arc<OpenFile>,
    order: Order,
    buffer: Box<[u8]>,
    /// Where the block begins.
    offset: u64,
    /// How much of the buffer was read.
    filled: usize,
    state: State,
}

#[derive(Clone, Copy)]
enum State {
    Reading,
    Writing { written: usize },
    Syncing,
}

impl Block {
    /// The next thing to do.
    fn request(&mut self) -> Request<'_> {
        let Block { source, target, buffer, offset, filled, .. } = self;
        let (source, target) = (&source.file, &target.file);
        match (self.state, self.order) {
            (State::Reading, Order::Sequential) => request::read(source, &mut buffer[*filled..]),
            (State::Reading, Order::Parallel(_)) => {
                request::read_at(source, &mut buffer[*filled..], *offset + *filled as u64)
            }
            (State::Writing { written }, Order::Sequential) => {
                request::write(target, &buffer[written..*filled])
            }
            (State::Writing { written }, Order::Parallel(_)) => {
                request::write_at(target, &buffer[written..*filled], *offset + written as u64)
            }
            (State::Syncing, _) => request::fsync(target),
        }
    }
}

impl Copier {
    fn new(arguments: &Arguments) -> Result<Copier, Failure> {
        let source = OpenFile::source(&arguments.source)?;
        let target = OpenFile::target(&arguments.target, &source, arguments.force)?;
        let size = source.metadata.len();
        let blocks = size.div_ceil(arguments.block_size.into());
        let order = match source.metadata.is_file() && target.metadata.is_file() && size > 0 {
            true => Order::Parallel(arguments.depth.min(u32::try_from(blocks).unwrap_or(u32::MAX))),
            false => Order::Sequential,
        };
        Ok(Copier {
            source: source.into(),
            target: target.into(),
            order,
            block_size: arguments.block_size,
            next: 0,
            end: None,
            active: 0,
            progress: progress(size),
        })
    }

    fn setup(&mut self, mut submitter: Submitter<'_, FileCopy, Self>) -> Result<(), Failure> {
        let blocks = match self.order {
            Order::Parallel(blocks) => blocks,
            Order::Sequential => 1,
        };
        for _ in 0..blocks {
            let block = Block {
                source: self.source.clone(),
                target: self.target.clone(),
                order: self.order,
                buffer: vec![0; self.block_size as usize].into(),
                offset: 0,
                filled: 0,
                state: State::Reading,
            };
            self.active += 1;
            if let Some(block) = self.next_block(block)? {
                submitter.submit(block, Block::request)?;
            }
        }
        Ok(())
    }

    fn on_completion(
        &mut self,
        completion: Completion,
        mut block: Block,
        mut submitter: Submitter<'_, FileCopy, Self>,
    ) -> Result<(), Failure> {
        let next = match block.state {
            State::Reading => {
                let read = completion.result().map_err(|error| failure("read", &block.source.path, error))?;
                block.filled += read as usize;
                if read == 0 {
                    // If the source changes meanwhile, the copy ends at the first end that a read has found.
                    let end = block.offset + block.filled as u64;
                    self.end = Some(self.end.map_or(end, |other| other.min(end)));
                }
                let is_complete = read == 0 || block.filled == block.buffer.len();
                match block.filled {
                    0 => self.next_block(block)?,
                    _ if is_complete => Some(Block { state: State::Writing { written: 0 }, ..block }),
                    _ => Some(block),
                }
            }
            State::Writing { written } => {
                let result = completion.result().and_then(|wrote| match wrote {
                    0 => Err(io::ErrorKind::WriteZero.into()),
                    wrote => Ok(wrote),
                });
                let wrote = result.map_err(|error| failure("write", &block.target.path, error))?;
                self.progress.inc(wrote.into());
                let written = written + wrote as usize;
                match written == block.filled {
                    true => self.next_block(block)?,
                    false => Some(Block { state: State::Writing { written }, ..block }),
                }
            }
            State::Syncing => {
                completion.result().map_err(|error| failure("sync", &block.target.path, error))?;
                None
            }
        };
        if let Some(block) = next {
            submitter.submit(block, Block::request)?;
        }
        Ok(())
    }

    /// The next block; after the last one, what is done for the file as a whole.
    fn next_block(&mut self, mut block: Block) -> Result<Option<Block>, Failure> {
        if let Some(end) = self.end {
            self.active -= 1;
            if self.active > 0 || !self.target.metadata.is_file() {
                return Ok(None);
            }
            self.complete(end).map_err(|error| failure("complete", &self.target.path, error))?;
            block.state = State::Syncing;
        } else {
            block.offset = self.next;
            block.filled = 0;
            block.state = State::Reading;
            self.next += u64::from(self.block_size);
        }
        Ok(Some(block))
    }

    fn complete(&self, end: u64) -> io::Result<()> {
        self.target.file.set_len(end)?;
        self.target.file.set_permissions(self.source.permissions())
    }
}

/// A bar on standard error, or nothing if that is not a terminal. For an unknown size, a counter.
fn progress(size: u64) -> ProgressBar {
    let bar = if size > 0 { ProgressBar::new(size) } else { ProgressBar::no_length() };
    let template = match size {
        0 => "{bytes} {bytes_per_sec}",
        _ => "{wide_bar} {bytes}/{total_bytes} {bytes_per_sec}",
    };
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn copy(arguments: &Arguments) -> Result<(), Failure> {
    // Done before the target is touched.
    let raw = FileCopy::new_raw_ring(RING_ENTRIES)?;
    let copier = Copier::new(arguments)?;
    let (target, progress) = (copier.target.clone(), copier.progress.clone());
    let result = FileCopy::new(raw, None, copier).run();
    progress.finish_and_clear();
    if result.is_err() && target.created {
        // Report the error that made the copy partial, not this one.
        fs::remove_file(&target.path).ok();
    }
    match result {
        Err(RingError::Completion(cause)) => {
            let FileCopyCompletionError::Copier(failure) = cause.error;
            Err(failure)
        }
        result => Ok(result?),
    }
}

fn main() -> ExitCode {
    match copy(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cp: {error}");
            ExitCode::FAILURE
        }
    }
}
