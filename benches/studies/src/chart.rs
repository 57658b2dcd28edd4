//! Frontiers as SVG, without a library: quality against joules and against the tail of the time, side by side.

use std::fmt::Write as _;

use crate::arm::{Arm, Family};
use crate::verdict::Cell;

const WIDTH: f64 = 1120.0;
const HEIGHT: f64 = 470.0;
const TOP: f64 = 62.0;
const SIDE: (f64, f64) = (400.0, 330.0);
const LEFTS: [f64; 2] = [70.0, 540.0];

fn colour(family: Family) -> &'static str {
    match family {
        Family::Preset => "#b2182b",
        Family::Sweep => "#f4a582",
        Family::RouteBalance => "#2166ac",
        Family::Decoupled => "#4d9221",
        Family::Balancer => "#888888",
    }
}

/// One panel: a logarithmic axis across, quality upwards.
struct Panel {
    left: f64,
    across: (f64, f64),
    up: (f64, f64),
}

impl Panel {
    fn at(&self, x: f64, y: f64) -> (f64, f64) {
        let share = (x.ln() - self.across.0.ln()) / (self.across.1.ln() - self.across.0.ln());
        let height = (y - self.up.0) / (self.up.1 - self.up.0);
        (self.left + share * SIDE.0, TOP + SIDE.1 * (1.0 - height))
    }

    fn frame(&self, svg: &mut String, title: &str) {
        let (right, bottom) = (self.left + SIDE.0, TOP + SIDE.1);
        for step in [1.0, 2.0, 5.0] {
            for decade in -1..5 {
                let value = step * 10_f64.powi(decade);
                if value < self.across.0 || value > self.across.1 {
                    continue;
                }
                let (x, _) = self.at(value, self.up.0);
                _ = writeln!(svg, "<path d=\"M{x:.1} {TOP}V{bottom}\" stroke=\"#e8e8e8\"/>");
                text(svg, x, bottom + 17.0, "middle", &format!("{value}"));
            }
        }
        let mut level = (self.up.0 * 20.0).ceil() / 20.0;
        while level <= self.up.1 + 1e-9 {
            let (_, y) = self.at(self.across.0, level);
            _ = writeln!(svg, "<path d=\"M{} {y:.1}H{right}\" stroke=\"#e8e8e8\"/>", self.left);
            text(svg, self.left - 7.0, y + 4.0, "end", &format!("{level:.2}"));
            level += 0.05;
        }
        _ = writeln!(
            svg,
            "<rect x=\"{}\" y=\"{TOP}\" width=\"{}\" height=\"{}\" fill=\"none\" stroke=\"#999\"/>",
            self.left, SIDE.0, SIDE.1
        );
        text(svg, self.left + SIDE.0 / 2.0, bottom + 38.0, "middle", title);
    }
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"
    );
}

fn mark(svg: &mut String, family: Family, (x, y): (f64, f64), title: &str) {
    let fill = colour(family);
    let shape = match family {
        Family::Preset => format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"6\""),
        Family::Sweep => format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\""),
        Family::RouteBalance => format!(
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"9\" height=\"9\"",
            x - 4.5,
            y - 4.5
        ),
        Family::Decoupled => format!("<path d=\"M{x:.1} {:.1}l5 9h-10z\"", y - 6.0),
        Family::Balancer => format!("<path d=\"M{x:.1} {:.1}l5 5l-5 5l-5 -5z\"", y - 5.0),
    };
    _ = writeln!(
        svg,
        "{shape} fill=\"{fill}\" stroke=\"#fff\" stroke-width=\"0.7\"><title>{title}</title></{}>",
        tag(family)
    );
}

fn tag(family: Family) -> &'static str {
    match family {
        Family::Preset | Family::Sweep => "circle",
        Family::RouteBalance => "rect",
        Family::Decoupled | Family::Balancer => "path",
    }
}

/// Ends of an axis that hold all of `values`.
fn ends(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (mut least, mut most) = (f64::INFINITY, 0.0_f64);
    for value in values.filter(|value| value.is_finite()) {
        least = least.min(value);
        most = most.max(value);
    }
    (least, most)
}

/// The frontier of one scenario: every arm a mark; what is up and to the left is better in both panels.
#[must_use]
pub fn frontier(title: &str, arms: &[Arm], cells: &[Cell]) -> String {
    let points: Vec<(&Arm, f64, [f64; 2])> = cells
        .iter()
        .map(|cell| {
            let mean = |figure: fn(&crate::outcome::Outcome) -> f64| cell.mean(figure).mean;
            (
                &arms[cell.arm],
                mean(|run| run.quality),
                [mean(|run| run.joules), mean(|run| run.e2e_p95_s)],
            )
        })
        .collect();
    let (low, high) = ends(points.iter().map(|point| point.1));
    let up = (low - 0.02, high + 0.02);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{HEIGHT}\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    );
    _ = writeln!(svg, "<text x=\"{}\" y=\"24\" font-size=\"15\">{title}</text>", LEFTS[0]);
    text(&mut svg, LEFTS[0] - 40.0, 50.0, "start", "mean label");
    let titles = [
        "joules per request (engine steps)",
        "end-to-end time, 95th percentile, seconds",
    ];
    for (axis, left) in LEFTS.into_iter().enumerate() {
        let (least, most) = ends(points.iter().map(|point| point.2[axis]));
        let panel = Panel {
            left,
            across: (least * 0.88, most * 1.12),
            up,
        };
        panel.frame(&mut svg, titles[axis]);
        // Baselines first, presets on top.
        for family in [
            Family::Balancer,
            Family::Decoupled,
            Family::Sweep,
            Family::RouteBalance,
            Family::Preset,
        ] {
            for (arm, quality, values) in points.iter().filter(|point| point.0.family == family) {
                let at = panel.at(values[axis], *quality);
                mark(&mut svg, family, at, &arm.name);
                if family == Family::Preset {
                    let name = arm.name.trim_start_matches("equipoise ");
                    let (x, anchor) = if at.0 > left + SIDE.0 - 60.0 {
                        (at.0 - 9.0, "end")
                    } else {
                        (at.0 + 9.0, "start")
                    };
                    _ = writeln!(
                        svg,
                        "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\" fill=\"{}\" font-weight=\"bold\" \
                         stroke=\"#fff\" stroke-width=\"3\" paint-order=\"stroke\">{name}</text>",
                        at.1 - 6.0,
                        colour(family)
                    );
                }
            }
        }
    }
    let legend = [
        (Family::Preset, "equipoise, presets"),
        (Family::Sweep, "equipoise, other weights"),
        (Family::RouteBalance, "RouteBalance"),
        (Family::Decoupled, "model router + balancer"),
        (Family::Balancer, "load balancer"),
    ];
    for (row, (family, name)) in legend.into_iter().enumerate() {
        let y = TOP + 14.0 + 20.0 * row as f64;
        mark(&mut svg, family, (LEFTS[1] + SIDE.0 + 18.0, y), name);
        text(&mut svg, LEFTS[1] + SIDE.0 + 30.0, y + 4.0, "start", name);
    }
    svg.push_str("</svg>\n");
    svg
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Outcome;

    #[test]
    fn every_arm_has_a_mark_in_both_panels() {
        let arms = Arm::baselines();
        let cell = |arm: usize| Cell {
            arm,
            runs: vec![Outcome {
                quality: 0.4 + 0.01 * arm as f64,
                joules: 50.0 + arm as f64,
                e2e_p95_s: 9.0 + arm as f64,
                ..Outcome::default()
            }],
        };
        let cells: Vec<Cell> = (0..arms.len()).map(cell).collect();
        let svg = frontier("a & b".replace('&', "and").as_str(), &arms, &cells);
        for arm in &arms {
            assert_eq!(
                svg.matches(&format!("<title>{}</title>", arm.name)).count(),
                2,
                "{}",
                arm.name
            );
        }
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }
}
