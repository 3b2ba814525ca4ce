//! The file that is read. Each block begins with its offset, by which it is recognised.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::{Args, Error, skip};

/// The size of a read. Offsets and buffers are multiples of it.
pub const BLOCK: usize = 4096;

/// The size of the file.
pub const SIZE: u64 = 64 << 20;

/// Creates the file, unless it exists in its full size.
///
/// # Errors
///
/// If it can't be written.
pub fn ensure(path: &Path) -> io::Result<()> {
    if fs::metadata(path).is_ok_and(|file| file.len() == SIZE) {
        return Ok(());
    }
    let mut file = io::BufWriter::new(File::create(path)?);
    let mut block = [0xA5; BLOCK];
    for offset in (0..SIZE).step_by(BLOCK) {
        block[..8].copy_from_slice(&offset.to_le_bytes());
        file.write_all(&block)?;
    }
    file.into_inner()?.sync_all()
}

/// Opens the file that `file=PATH` names, and creates it first if needed. For `mode=direct` and `mode=direct-fixed`, it
/// is opened with `O_DIRECT`. Otherwise it is read once, so that it is in the page cache.
///
/// # Errors
///
/// If it can't be created or opened; a file system without `O_DIRECT` is a reason to skip.
pub fn open(args: &Args) -> Result<File, Error> {
    let path = Path::new(args.get("file").ok_or("`file=PATH` is missing")?);
    ensure(path)?;
    if args.text("mode", "plain").starts_with("direct") {
        return OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECT)
            .open(path)
            .map_err(|error| skip(format!("{} can't be opened with O_DIRECT: {error}", path.display())));
    }
    let mut file = File::open(path)?;
    io::copy(&mut file, &mut io::sink())?;
    Ok(file)
}

/// Offsets of blocks, in an order that is random and always the same.
#[derive(Clone, Debug)]
pub struct Offsets(u64);

impl Default for Offsets {
    fn default() -> Self {
        Offsets(0x9E37_79B9_7F4A_7C15)
    }
}

impl Offsets {
    /// The next one, by xorshift.
    #[inline]
    pub fn draw(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % (SIZE / BLOCK as u64)) * BLOCK as u64
    }
}

/// A buffer for one block, aligned for `O_DIRECT`.
#[derive(Clone, Debug)]
#[repr(C, align(4096))]
pub struct Block(pub [u8; BLOCK]);

impl Default for Block {
    fn default() -> Self {
        Block([0; BLOCK])
    }
}

impl Block {
    /// Whether it begins with its offset.
    #[inline]
    pub fn is_from(&self, offset: u64) -> bool {
        is_from(&self.0, offset)
    }
}

/// Whether a block, in whatever kind of buffer, begins with its offset.
#[inline]
pub fn is_from(block: &[u8], offset: u64) -> bool {
    block.first_chunk().is_some_and(|head| u64::from_le_bytes(*head) == offset)
}
