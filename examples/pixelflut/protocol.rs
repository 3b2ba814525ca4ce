//! What a line of a client's means.

use crate::canvas::{Canvas, Color};

pub(crate) enum Command {
    Help,
    Size,
    Offset {
        x: u32,
        y: u32,
    },
    Ask {
        x: u32,
        y: u32,
    },
    /// Paint, with a thickness of up to 255.
    Paint {
        x: u32,
        y: u32,
        color: Color,
        alpha: u8,
    },
}

const HELP: &[u8] = b"HELP PX x y [rrggbb[aa]] | SIZE | OFFSET x y | HELP\n";

impl Command {
    /// The command in a line, if it is one.
    pub(crate) fn parse(line: &[u8]) -> Option<Command> {
        let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        let command = match words.next()? {
            b"PX" => {
                let (x, y) = (number(words.next()?)?, number(words.next()?)?);
                match words.next() {
                    Some(color) => {
                        let (color, alpha) = shade(color)?;
                        Command::Paint { x, y, color, alpha }
                    }
                    None => Command::Ask { x, y },
                }
            }
            b"SIZE" => Command::Size,
            b"OFFSET" => Command::Offset { x: number(words.next()?)?, y: number(words.next()?)? },
            b"HELP" => Command::Help,
            _ => return None,
        };
        words.next().is_none().then_some(command)
    }

    /// Obeys it, for a client with this offset. Pixels beside the canvas are left alone.
    pub(crate) fn obey(self, canvas: &mut Canvas, offset: &mut (u32, u32), answers: &mut Vec<u8>) {
        match self {
            Command::Help => answers.extend_from_slice(HELP),
            Command::Size => {
                let (width, height) = canvas.size();
                answers.extend_from_slice(format!("SIZE {width} {height}\n").as_bytes());
            }
            Command::Offset { x, y } => *offset = (x, y),
            Command::Ask { x, y } => {
                if let Some(color) = at(canvas, *offset, x, y) {
                    paint(answers, x, y, *color);
                }
            }
            Command::Paint { x, y, color, alpha } => {
                let Some(pixel) = at(canvas, *offset, x, y) else { return };
                for (old, new) in pixel.iter_mut().zip(color) {
                    let (thick, thin) = (u32::from(alpha), 255 - u32::from(alpha));
                    *old = ((u32::from(new) * thick + u32::from(*old) * thin) / 255) as u8;
                }
            }
        }
    }
}

fn at(canvas: &mut Canvas, offset: (u32, u32), x: u32, y: u32) -> Option<&mut Color> {
    canvas.pixel(x.checked_add(offset.0)?, y.checked_add(offset.1)?)
}

/// Writes the command that paints a pixel. It is also the answer to a question for it.
pub(crate) fn paint(bytes: &mut Vec<u8>, x: u32, y: u32, [red, green, blue]: Color) {
    bytes.extend_from_slice(format!("PX {x} {y} {red:02x}{green:02x}{blue:02x}\n").as_bytes());
}

fn number(word: &[u8]) -> Option<u32> {
    str::from_utf8(word).ok()?.parse().ok()
}

/// A color and its thickness, from six or eight hexadecimal digits.
fn shade(word: &[u8]) -> Option<(Color, u8)> {
    let mut bytes = [255; 4];
    if word.len() != 6 && word.len() != 8 {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(word.chunks(2)) {
        *byte = digits.iter().try_fold(0, |byte, digit| {
            let digit = char::from(*digit).to_digit(16)?;
            Some(byte << 4 | digit as u8)
        })?;
    }
    let [red, green, blue, alpha] = bytes;
    Some(([red, green, blue], alpha))
}
