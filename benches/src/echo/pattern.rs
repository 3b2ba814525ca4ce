//! What the messages are.

/// The number of places in the pattern at which a message may begin.
const OFFSETS: usize = 8191;

/// Messages are pieces of one pattern. Each begins at a different place, so that no two neighbours are the same.
#[derive(Debug)]
pub struct Pattern {
    bytes: Vec<u8>,
    size: usize,
}

impl Pattern {
    /// For messages of `size` bytes.
    pub fn new(size: usize) -> Pattern {
        Pattern { bytes: (0..size + OFFSETS).map(|at| (at * 31 + at / 256 * 7) as u8).collect(), size }
    }

    /// The message of this number on this connection.
    pub fn message(&self, number: usize, connection: usize) -> &[u8] {
        let begin = (number * 61 + connection * 127) % OFFSETS;
        &self.bytes[begin..begin + self.size]
    }
}
