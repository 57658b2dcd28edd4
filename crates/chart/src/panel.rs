//! A panel: two axes and what lies between them.

use crate::{Anchor, Scale, Svg, tick_label};

/// Two axes, pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Panel {
    /// Left edge.
    pub left: f64,
    /// Upper edge.
    pub top: f64,
    /// Width.
    pub width: f64,
    /// Height.
    pub height: f64,
    /// The axis across.
    pub across: Scale,
    /// The axis upwards.
    pub up: Scale,
}

impl Panel {
    /// Where a point lies.
    #[must_use]
    pub fn at(&self, x: f64, y: f64) -> (f64, f64) {
        (
            self.left + self.width * self.across.share(x),
            self.top + self.height * (1.0 - self.up.share(y)),
        )
    }

    /// Right edge.
    #[must_use]
    pub fn right(&self) -> f64 {
        self.left + self.width
    }

    /// Lower edge.
    #[must_use]
    pub fn bottom(&self) -> f64 {
        self.top + self.height
    }

    /// Grid lines at round values, their labels, and the frame.
    pub fn grid(&self, svg: &mut Svg) {
        let style = svg.grid_style();
        // A label takes about 38 pixels across, 32 upwards.
        for value in self.across.ticks((self.width / 55.0) as usize + 1) {
            let (x, _) = self.at(value, 0.0);
            svg.line([(x, self.top), (x, self.bottom())], style, "");
            svg.text(
                (x, self.bottom() + 15.0),
                Anchor::Middle,
                &tick_label(value),
                "class=\"faint\"",
            );
        }
        for value in self.up.ticks((self.height / 42.0) as usize + 1) {
            let (_, y) = self.at(0.0, value);
            svg.line([(self.left, y), (self.right(), y)], style, "");
            svg.text(
                (self.left - 6.0, y + 4.0),
                Anchor::End,
                &tick_label(value),
                "class=\"faint\"",
            );
        }
        let frame = svg.frame_style();
        svg.line(
            [
                (self.left, self.top),
                (self.left, self.bottom()),
                (self.right(), self.bottom()),
            ],
            frame,
            "",
        );
    }

    /// What the axes are: below, and at the upper left corner, where it can be read without turning the head.
    pub fn titles(&self, svg: &mut Svg, across: &str, up: &str) {
        svg.text((self.right(), self.bottom() + 31.0), Anchor::End, across, "");
        svg.text((self.left - 34.0, self.top - 9.0), Anchor::Start, up, "");
    }

    /// A line through points in values.
    pub fn line(&self, svg: &mut Svg, points: impl IntoIterator<Item = (f64, f64)>, style: &str, title: &str) {
        svg.line(points.into_iter().map(|(x, y)| self.at(x, y)), style, title);
    }

    /// A line that keeps each value until the next one.
    pub fn steps(&self, svg: &mut Svg, points: &[(f64, f64)], style: &str, title: &str) {
        let corners = points.windows(2).flat_map(|pair| [pair[0], (pair[1].0, pair[0].1)]);
        let last = points.last().copied();
        self.line(svg, corners.chain(last), style, title);
    }

    /// Intervals of a point in both directions, `half` the widths; what is not finite or zero is left out.
    pub fn interval(&self, svg: &mut Svg, (x, y): (f64, f64), half: (f64, f64), style: &str) {
        let some = |half: f64| half.is_finite() && half > 0.0;
        if some(half.0) {
            self.line(svg, [(x - half.0, y), (x + half.0, y)], style, "");
        }
        if some(half.1) {
            self.line(svg, [(x, y - half.1), (x, y + half.1)], style, "");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Ground;

    #[test]
    fn a_panel_holds_what_is_drawn_in_it() {
        let panel = Panel {
            left: 40.0,
            top: 20.0,
            width: 300.0,
            height: 200.0,
            across: Scale::log([0.1, 50.0]),
            up: Scale::Linear { low: 0.0, high: 1.0 },
        };
        assert_eq!(panel.at(1e9, -3.0), (340.0, 220.0));
        let mut svg = Svg::new(360.0, 260.0, Ground::Page, "test");
        panel.grid(&mut svg);
        panel.titles(&mut svg, "seconds", "share");
        panel.steps(&mut svg, &[(0.1, 0.2), (1.0, 0.5), (10.0, 0.9)], "class=\"s0\"", "a");
        panel.interval(&mut svg, (1.0, 0.5), (f64::INFINITY, 0.1), "class=\"s0\"");
        let text = svg.finish();
        assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
        assert!(
            text.contains(">10</text>") && text.contains(">seconds</text>"),
            "{text}"
        );
        // Two steps have five corners.
        assert!(text.lines().any(|line| line.matches('L').count() == 4), "{text}");
    }
}
