//! Bars, one for each contestant, with a line at the height of the reference contestant.

use std::path::Path;

use plotters::prelude::*;

use super::Error;

const ROW: u32 = 34;
const LEFT: i32 = 150;
const WIDTH: u32 = 760;

/// Draws `bars` with their labels. Each figure is written with this many decimal places and the unit. There is a line
/// at `line`.
pub(crate) fn bars(
    path: &Path,
    title: &str,
    places: usize,
    unit: &str,
    line: Option<f64>,
    bars: &[(String, f64)],
) -> Result<(), Error> {
    let height = 60 + ROW * bars.len() as u32;
    let area = SVGBackend::new(path, (WIDTH, height)).into_drawing_area();
    area.fill(&WHITE)?;
    area.draw(&Text::new(title.to_owned(), (16, 16), ("sans-serif", 18).into_font().color(&BLACK)))?;
    let most = bars.iter().map(|(_, figure)| *figure).fold(line.unwrap_or(0.0), f64::max);
    let scale = f64::from(WIDTH as i32 - LEFT - 110) / most.max(f64::MIN_POSITIVE);
    let label = ("sans-serif", 14).into_font().color(&BLACK);
    for (row, (name, figure)) in bars.iter().enumerate() {
        let top = 48 + row as i32 * ROW as i32;
        let color = match name.as_str() {
            "rummelplatz" | "derived" => RGBColor(214, 84, 42),
            _ => RGBColor(122, 146, 168),
        };
        let end = LEFT + (figure * scale) as i32;
        area.draw(&Rectangle::new([(LEFT, top), (end, top + 22)], color.filled()))?;
        area.draw(&Text::new(name.clone(), (16, top + 4), label.clone()))?;
        area.draw(&Text::new(format!("{figure:.places$}{unit}"), (end + 8, top + 4), label.clone()))?;
    }
    if let Some(line) = line {
        let line = LEFT + (line * scale) as i32;
        area.draw(&PathElement::new(vec![(line, 42), (line, height as i32 - 8)], BLACK.mix(0.6)))?;
    }
    area.present()?;
    Ok(())
}
