//! Frontiers: quality against joules and against the tail of the time, side by side.

use equipoise_chart::{Anchor, Ground, Mark, Panel, Scale, Svg};

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

fn mark(svg: &mut Svg, family: Family, at: (f64, f64), title: &str) {
    let (shape, size) = match family {
        Family::Preset => (Mark::Circle, 6.0),
        Family::Sweep => (Mark::Circle, 3.5),
        Family::RouteBalance => (Mark::Square, 5.0),
        Family::Decoupled => (Mark::Triangle, 4.6),
        Family::Balancer => (Mark::Diamond, 4.4),
    };
    let style = format!("fill=\"{}\" stroke=\"#fff\" stroke-width=\"0.7\"", colour(family));
    shape.draw(svg, at, size, &style, title);
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
    let up = Scale::Linear {
        low: low - 0.02,
        high: high + 0.02,
    };
    let mut svg = Svg::new(WIDTH, HEIGHT, Ground::Paper, title);
    svg.text((LEFTS[0], 24.0), Anchor::Start, title, "font-size=\"15\"");
    svg.text((LEFTS[0] - 40.0, 50.0), Anchor::Start, "mean label", "");
    let titles = [
        "joules per request (engine steps)",
        "end-to-end time, 95th percentile, seconds",
    ];
    for (axis, left) in LEFTS.into_iter().enumerate() {
        let (least, most) = ends(points.iter().map(|point| point.2[axis]));
        let panel = Panel {
            left,
            top: TOP,
            width: SIDE.0,
            height: SIDE.1,
            across: Scale::Log {
                low: least * 0.88,
                high: most * 1.12,
            },
            up,
        };
        panel.grid(&mut svg);
        let middle = (left + SIDE.0 / 2.0, panel.bottom() + 38.0);
        svg.text(middle, Anchor::Middle, titles[axis], "");
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
                    label(&mut svg, &panel, at, arm);
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
        svg.text((LEFTS[1] + SIDE.0 + 30.0, y + 4.0), Anchor::Start, name, "");
    }
    svg.finish()
}

/// A preset's name beside its mark, inside the panel.
fn label(svg: &mut Svg, panel: &Panel, at: (f64, f64), arm: &Arm) {
    let (x, anchor) = if at.0 > panel.right() - 60.0 {
        (at.0 - 9.0, Anchor::End)
    } else {
        (at.0 + 9.0, Anchor::Start)
    };
    let style = format!(
        "fill=\"{}\" font-weight=\"bold\" stroke=\"#fff\" stroke-width=\"3\" paint-order=\"stroke\"",
        colour(arm.family)
    );
    svg.text(
        (x, at.1 - 6.0),
        anchor,
        arm.name.trim_start_matches("equipoise "),
        &style,
    );
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
