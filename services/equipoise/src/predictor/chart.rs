//! Diagrams as SVG, without a library: reliability, and accuracy against cost.

use std::fmt::Write as _;

use equipoise_predict::evaluation::{Bin, Point};

/// Side of the plotted square, pixels, and the room around it.
const SIDE: f64 = 260.0;
const MARGIN: f64 = 44.0;
const COLOURS: [&str; 9] = [
    "#999999", "#c7b299", "#8c6d31", "#6baed6", "#756bb1", "#31a354", "#d6272b", "#e08214", "#222222",
];

/// Axes from 0 to 1 across, and over `rows` upwards.
struct Plot {
    svg: String,
    low: f64,
    high: f64,
}

impl Plot {
    fn new(title: &str, across: &str, up: &str, low: f64, high: f64, legend_width: f64) -> Self {
        let (width, height) = (SIDE + 2.0 * MARGIN + legend_width, SIDE + 2.0 * MARGIN);
        let mut plot = Self {
            svg: String::new(),
            low,
            high,
        };
        plot.put(&format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"11\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>"
        ));
        let bottom = MARGIN + SIDE;
        plot.text(MARGIN + SIDE / 2.0, MARGIN - 18.0, "middle", title);
        plot.text(MARGIN + SIDE / 2.0, bottom + 34.0, "middle", across);
        let middle = MARGIN + SIDE / 2.0;
        plot.put(&format!(
            "<text transform=\"translate(12 {middle}) rotate(-90)\" text-anchor=\"middle\">{up}</text>"
        ));
        for step in 0..=5 {
            let share = f64::from(step) / 5.0;
            let (x, y) = (MARGIN + share * SIDE, bottom - share * SIDE);
            plot.put(&format!(
                "<path d=\"M{x} {MARGIN}V{bottom}M{MARGIN} {y}H{}\" stroke=\"#e5e5e5\" fill=\"none\"/>",
                MARGIN + SIDE
            ));
            plot.text(x, bottom + 15.0, "middle", &format!("{share:.1}"));
            plot.text(
                MARGIN - 5.0,
                y + 4.0,
                "end",
                &format!("{:.2}", low + share * (high - low)),
            );
        }
        plot
    }

    fn put(&mut self, element: &str) {
        self.svg.push_str(element);
        self.svg.push('\n');
    }

    fn text(&mut self, x: f64, y: f64, anchor: &str, text: &str) {
        self.put(&format!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"
        ));
    }

    fn at(&self, x: f64, y: f64) -> (f64, f64) {
        let share = ((y - self.low) / (self.high - self.low)).clamp(0.0, 1.0);
        (MARGIN + x * SIDE, MARGIN + SIDE - share * SIDE)
    }

    fn line(&mut self, points: impl Iterator<Item = (f64, f64)>, style: &str) {
        let mut path = String::new();
        for (index, (x, y)) in points.enumerate() {
            let (x, y) = self.at(x, y);
            // Writing to a string cannot fail.
            let _ = write!(path, "{}{x:.1} {y:.1}", if index == 0 { 'M' } else { 'L' });
        }
        self.put(&format!("<path d=\"{path}\" fill=\"none\" {style}/>"));
    }

    fn finish(mut self) -> String {
        self.put("</svg>");
        self.svg
    }
}

/// Observed against predicted frequency; the area of a dot grows with the predictions in its bin.
pub(super) fn reliability_diagram(title: &str, bins: &[Bin]) -> String {
    let mut plot = Plot::new(title, "predicted probability", "observed share", 0.0, 1.0, 0.0);
    plot.line(
        [(0.0, 0.0), (1.0, 1.0)].into_iter(),
        "stroke=\"#999999\" stroke-dasharray=\"4 3\"",
    );
    plot.line(
        bins.iter().map(|bin| (bin.predicted, bin.observed)),
        "stroke=\"#d6272b\" stroke-width=\"1.5\"",
    );
    let total: usize = bins.iter().map(|bin| bin.count).sum();
    for bin in bins {
        let (x, y) = plot.at(bin.predicted, bin.observed);
        #[expect(clippy::cast_precision_loss, reason = "counts for a drawing")]
        let radius = 2.0 + 16.0 * (bin.count as f64 / total.max(1) as f64).sqrt();
        plot.put(&format!(
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius:.1}\" fill=\"#d6272b\" fill-opacity=\"0.3\"/>"
        ));
    }
    plot.finish()
}

/// Accuracy against mean cost, one line per name.
pub(super) fn routed_diagram(title: &str, across: &str, curves: &[(String, &[Point])]) -> String {
    let scores = || {
        curves
            .iter()
            .flat_map(|(_, points)| points.iter().map(|point| point.score))
    };
    let low = (scores().fold(f64::INFINITY, f64::min) * 20.0).floor() / 20.0;
    let high = (scores().fold(f64::NEG_INFINITY, f64::max) * 20.0).ceil() / 20.0;
    let mut plot = Plot::new(title, across, "accuracy", low, high, 110.0);
    for (index, (name, points)) in curves.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let style = format!("stroke=\"{colour}\" stroke-width=\"1.6\"");
        plot.line(points.iter().map(|point| (point.cost, point.score)), &style);
        let y = MARGIN + 14.0 + 16.0 * f64::from(u8::try_from(index).unwrap_or(u8::MAX));
        let x = MARGIN + SIDE + 12.0;
        plot.put(&format!("<path d=\"M{x} {y}h14\" {style}/>"));
        plot.text(x + 20.0, y + 4.0, "start", name);
    }
    plot.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn diagrams_are_closed_and_hold_all_points() {
        let bins = [
            Bin {
                predicted: 0.2,
                observed: 0.3,
                count: 5,
            },
            Bin {
                predicted: 0.8,
                observed: 0.7,
                count: 50,
            },
        ];
        let svg = reliability_diagram("t", &bins);
        assert_eq!(svg.matches("<circle").count(), 2);
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        let points = [Point { cost: 0.0, score: 0.4 }, Point { cost: 1.0, score: 0.8 }];
        let svg = routed_diagram("t", "cost", &[("a".into(), &points), ("b".into(), &points)]);
        assert!(svg.contains(">a</text>") && svg.contains(">b</text>") && !svg.contains("NaN"));
    }
}
