//! The picture, in memory and as a file.

use std::fs;
use std::io;
use std::path::Path;

/// Red, green and blue.
pub(crate) type Color = [u8; 3];

pub(crate) struct Canvas {
    width: u32,
    height: u32,
    /// Row by row.
    pixels: Vec<Color>,
}

impl Canvas {
    /// A black one.
    pub(crate) fn new(width: u32, height: u32) -> Canvas {
        Canvas { width, height, pixels: vec![[0; 3]; width as usize * height as usize] }
    }

    pub(crate) fn size(&self) -> (u32, u32) {
        (self.width, self.height)
    }

    /// A pixel, if it is on the canvas.
    pub(crate) fn pixel(&mut self, x: u32, y: u32) -> Option<&mut Color> {
        match x < self.width && y < self.height {
            true => self.pixels.get_mut(y as usize * self.width as usize + x as usize),
            false => None,
        }
    }

    /// All pixels, with their coordinates.
    pub(crate) fn pixels(&self) -> impl Iterator<Item = (u32, u32, Color)> {
        let width = self.width as usize;
        let place = move |index: usize| ((index % width) as u32, (index / width) as u32);
        self.pixels.iter().enumerate().map(move |(index, color)| {
            let (x, y) = place(index);
            (x, y, *color)
        })
    }

    /// Writes a PPM file.
    pub(crate) fn write(&self, path: &Path) -> io::Result<()> {
        let mut file = format!("P6\n{} {}\n255\n", self.width, self.height).into_bytes();
        file.extend_from_slice(self.pixels.as_flattened());
        fs::write(path, file)
    }

    /// Reads a PPM file of the raw kind (P6).
    pub(crate) fn read(path: &Path) -> io::Result<Canvas> {
        let file = fs::read(path)?;
        let wrong = || io::Error::new(io::ErrorKind::InvalidData, "not a PPM file (P6, with 255 shades)");
        let mut rest = &*file;
        if next_word(&mut rest) != Some(b"P6") {
            return Err(wrong());
        }
        let mut number = || str::from_utf8(next_word(&mut rest)?).ok()?.parse::<u32>().ok();
        let (Some(width @ 1..), Some(height @ 1..), Some(255)) = (number(), number(), number()) else {
            return Err(wrong());
        };
        let (pixels, _) = rest.as_chunks();
        let count = (width as usize).checked_mul(height as usize).filter(|count| *count == pixels.len());
        count.map(|_| Canvas { width, height, pixels: pixels.to_vec() }).ok_or_else(wrong)
    }
}

/// The next word of the head of a PPM file. Takes it out of `rest`, with the one space behind it.
fn next_word<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    loop {
        *rest = rest.trim_ascii_start();
        match rest.strip_prefix(b"#") {
            Some(comment) => *rest = &comment[comment.iter().position(|byte| *byte == b'\n')?..],
            None => break,
        }
    }
    let end = rest.iter().position(u8::is_ascii_whitespace)?;
    let word = &rest[..end];
    *rest = &rest[end + 1..];
    Some(word)
}
