//! The diagrams of `docs/predictors.md`: reliability, and accuracy against cost.

use equipoise_chart::{Anchor, Ground, Mark, Panel, Scale, Svg};
use equipoise_predict::evaluation::{Bin, Point};

/// Side of the plotted square, pixels, and the room around it.
const SIDE: f64 = 260.0;
const MARGIN: f64 = 44.0;
const COLOURS: [&str; 9] = [
    "#999999", "#c7b299", "#8c6d31", "#6baed6", "#756bb1", "#31a354", "#d6272b", "#e08214", "#222222",
];

/// An empty square from 0 to 1 across and over `up` upwards, with room for a legend.
fn square(title: &str, across: &str, upwards: &str, up: Scale, legend_width: f64) -> (Svg, Panel) {
    let (width, height) = (SIDE + 2.0 * MARGIN + legend_width, SIDE + 2.0 * MARGIN);
    let mut svg = Svg::new(width, height, Ground::Paper, title);
    let panel = Panel {
        left: MARGIN,
        top: MARGIN,
        width: SIDE,
        height: SIDE,
        across: Scale::Linear { low: 0.0, high: 1.0 },
        up,
    };
    panel.grid(&mut svg);
    let middle = MARGIN + SIDE / 2.0;
    svg.text((middle, MARGIN - 18.0), Anchor::Middle, title, "");
    svg.text((middle, panel.bottom() + 34.0), Anchor::Middle, across, "");
    svg.upwards((12.0, middle), upwards);
    (svg, panel)
}

/// Observed against predicted frequency; the area of a dot grows with the predictions in its bin.
pub(super) fn reliability_diagram(title: &str, bins: &[Bin]) -> String {
    let unit = Scale::Linear { low: 0.0, high: 1.0 };
    let (mut svg, panel) = square(title, "predicted probability", "observed share", unit, 0.0);
    panel.line(
        &mut svg,
        [(0.0, 0.0), (1.0, 1.0)],
        "stroke=\"#999999\" stroke-dasharray=\"4 3\"",
        "",
    );
    let points = bins.iter().map(|bin| (bin.predicted, bin.observed));
    panel.line(&mut svg, points, "stroke=\"#d6272b\" stroke-width=\"1.5\"", "");
    let total: usize = bins.iter().map(|bin| bin.count).sum();
    for bin in bins {
        #[expect(clippy::cast_precision_loss, reason = "counts for a drawing")]
        let radius = 2.0 + 16.0 * (bin.count as f64 / total.max(1) as f64).sqrt();
        let at = panel.at(bin.predicted, bin.observed);
        Mark::Circle.draw(&mut svg, at, radius, "fill=\"#d6272b\" fill-opacity=\"0.3\"", "");
    }
    svg.finish()
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
    let (mut svg, panel) = square(title, across, "accuracy", Scale::Linear { low, high }, 110.0);
    for (index, (name, points)) in curves.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let style = format!("stroke=\"{colour}\" stroke-width=\"1.6\"");
        panel.line(
            &mut svg,
            points.iter().map(|point| (point.cost, point.score)),
            &style,
            "",
        );
        let y = MARGIN + 14.0 + 16.0 * f64::from(u8::try_from(index).unwrap_or(u8::MAX));
        let x = MARGIN + SIDE + 12.0;
        svg.line([(x, y), (x + 14.0, y)], &style, "");
        svg.text((x + 20.0, y + 4.0), Anchor::Start, name, "");
    }
    svg.finish()
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
