//! Stacked bars: what a whole is made of, row by row.

use crate::svg::title_of;
use crate::{Anchor, Ground, Scale, Svg, tick_label};

const ROW: f64 = 22.0;
const TOP: f64 = 22.0;
const BOTTOM: f64 = 34.0;
/// About the width of a letter, pixels.
const LETTER: f64 = 6.2;

/// One row.
#[derive(Clone, Debug, PartialEq)]
pub struct Bar {
    /// Its name.
    pub name: String,
    /// Its parts, in the order of the styles; none negative.
    pub parts: Vec<f64>,
}

/// Bars from left to right, one below the other: `parts` names each part and gives its style, `unit` is written below.
#[must_use]
pub fn stacked_bars(width: f64, title: &str, unit: &str, parts: &[(&str, String)], bars: &[Bar]) -> String {
    let height = TOP + ROW * bars.len() as f64 + BOTTOM;
    let mut svg = Svg::new(width, height, Ground::Page, title);
    let longest = bars.iter().map(|bar| bar.name.chars().count()).max().unwrap_or(0);
    let left = (LETTER * longest as f64 + 10.0).clamp(40.0, 0.42 * width);
    let total = |bar: &Bar| bar.parts.iter().sum::<f64>();
    let most = bars.iter().map(total).fold(0.0, f64::max);
    let most = if most > 0.0 { most } else { 1.0 };
    let (low, high) = (0.0, 1.02 * most);
    let across = Scale::Linear { low, high };
    let at = |value: f64| left + (width - left - 14.0) * across.share(value);
    let bottom = TOP + ROW * bars.len() as f64;
    let grid = svg.grid_style();
    for value in across.ticks(((width - left) / 60.0) as usize) {
        svg.line([(at(value), TOP - 4.0), (at(value), bottom)], grid, "");
        svg.text(
            (at(value), bottom + 14.0),
            Anchor::Middle,
            &tick_label(value),
            "class=\"faint\"",
        );
    }
    svg.text((width - 14.0, bottom + 29.0), Anchor::End, unit, "");
    svg.text((0.0, 11.0), Anchor::Start, title, "");
    for (row, bar) in bars.iter().enumerate() {
        let y = TOP + ROW * row as f64;
        let most_letters = (left / LETTER) as usize;
        svg.text(
            (left - 6.0, y + 12.0),
            Anchor::End,
            &shortened(&bar.name, most_letters),
            "",
        );
        let mut from = 0.0;
        for ((name, style), part) in parts.iter().zip(&bar.parts) {
            if !(part.is_finite() && *part > 0.0) {
                continue;
            }
            let (x, end) = (at(from), at(from + part));
            let said = title_of(&format!("{}: {name} {part:.3} {unit}", bar.name));
            svg.put(&format!(
                "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\" {style}>{said}</rect>",
                (end - x).max(0.3),
                ROW - 6.0
            ));
            from += part;
        }
    }
    svg.finish()
}

/// The name, its middle left out where it is too long.
fn shortened(name: &str, most: usize) -> String {
    let letters: Vec<char> = name.chars().collect();
    if letters.len() <= most.max(5) {
        return name.to_owned();
    }
    let (head, tail) = ((most.max(5) - 1).div_ceil(2), (most.max(5) - 1) / 2);
    let head: String = letters[..head].iter().collect();
    let tail: String = letters[letters.len() - tail..].iter().collect();
    format!("{head}…{tail}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_that_is_there_is_drawn() {
        let bar = |name: &str, parts: [f64; 3]| Bar {
            name: name.to_owned(),
            parts: parts.to_vec(),
        };
        let bars = [
            bar("a", [1.0, 2.0, 3.0]),
            bar("a-name-that-is-much-too-long-for-its-place", [0.0, f64::NAN, 2.0]),
        ];
        let parts = ["x", "y", "z"].map(|name| (name, format!("class=\"{name}\"")));
        let svg = stacked_bars(400.0, "t", "J", &parts, &bars);
        assert_eq!(svg.matches("<rect").count(), 4, "{svg}");
        assert!(!svg.contains("\"NaN") && svg.contains('…'), "{svg}");
        assert!(!stacked_bars(400.0, "t", "J", &parts, &[]).contains("NaN"));
        assert_eq!(shortened("abcdefghij", 6), "abc…ij");
    }
}
