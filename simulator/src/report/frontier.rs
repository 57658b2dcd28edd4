//! Frontiers: two figures of every arm against each other, with intervals over the seeds.

use equipoise_chart::{Anchor, Ground, Panel, Scale, Svg};
use equipoise_types::Mean;

use super::style::Look;
use super::{Figure, Load, Row};

pub(super) const WIDTH: f64 = 400.0;
pub(super) const HEIGHT: f64 = 290.0;

/// One axis of a frontier.
pub(super) struct Axis {
    pub(super) title: &'static str,
    pub(super) figure: Figure,
    /// More is better.
    pub(super) more: bool,
    pub(super) log: bool,
}

/// A panel of the usual size.
pub(super) fn panel(across: Scale, up: Scale) -> Panel {
    Panel {
        left: 44.0,
        top: 22.0,
        width: WIDTH - 44.0 - 12.0,
        height: HEIGHT - 22.0 - 40.0,
        across,
        up,
    }
}

struct Point<'a> {
    arm: &'a str,
    look: Look,
    x: Mean,
    y: Mean,
}

/// The frontier of one load; `None` where no arm has both figures.
pub(super) fn frontier(load: &Load<'_>, arms: &[&str], across: &Axis, up: &Axis) -> Option<String> {
    let point = |row: &Row<'_>| {
        let index = arms.iter().position(|arm| *arm == row.arm)?;
        let (x, y) = (row.mean(across.figure)?, row.mean(up.figure)?);
        let arm = arms[index];
        (x.mean.is_finite() && y.mean.is_finite()).then_some(Point {
            arm,
            look: Look(index),
            x,
            y,
        })
    };
    let points: Vec<Point<'_>> = load.rows.iter().filter_map(point).collect();
    if points.is_empty() {
        return None;
    }
    let scale = |axis: &Axis, of: fn(&Point<'_>) -> Mean| {
        let ends = points.iter().flat_map(|point| {
            let Mean { mean, half } = of(point);
            let half = if half.is_finite() { half } else { 0.0 };
            [mean - half, mean + half]
        });
        if axis.log {
            Scale::log(ends)
        } else {
            Scale::linear(ends, false)
        }
    };
    let panel = panel(scale(across, |point| point.x), scale(up, |point| point.y));
    let title = format!("{} against {}", up.title, across.title);
    let mut svg = Svg::new(WIDTH, HEIGHT, Ground::Page, &title);
    panel.grid(&mut svg);
    panel.titles(&mut svg, across.title, up.title);
    let best = undominated(&points, across, up);
    let line: Vec<(f64, f64)> = best
        .iter()
        .map(|index| (points[*index].x.mean, points[*index].y.mean))
        .collect();
    panel.line(&mut svg, line, "class=\"frontier\"", "");
    for point in &points {
        let whisker = format!("class=\"whisker c{}\"", point.look.0 % 10);
        panel.interval(
            &mut svg,
            (point.x.mean, point.y.mean),
            (point.x.half, point.y.half),
            &whisker,
        );
    }
    for point in &points {
        let at = panel.at(point.x.mean, point.y.mean);
        let said = format!(
            "{}: {} {}, {} {}",
            point.arm,
            across.title,
            with_interval(point.x),
            up.title,
            with_interval(point.y)
        );
        point
            .look
            .mark()
            .draw(&mut svg, at, 5.0, &point.look.mark_style(), &said);
    }
    label(&mut svg, &panel, &points, &best);
    Some(svg.finish())
}

fn with_interval(mean: Mean) -> String {
    if mean.half.is_finite() {
        format!("{} ± {}", super::short(mean.mean), super::short(mean.half))
    } else {
        super::short(mean.mean)
    }
}

/// Whom nobody is ahead of on both axes, by the first axis.
fn undominated(points: &[Point<'_>], across: &Axis, up: &Axis) -> Vec<usize> {
    let worth = |mean: f64, axis: &Axis| if axis.more { mean } else { -mean };
    let of = |point: &Point<'_>| (worth(point.x.mean, across), worth(point.y.mean, up));
    let beaten = |index: usize| {
        let (x, y) = of(&points[index]);
        points.iter().any(|other| {
            let (other_x, other_y) = of(other);
            other_x >= x && other_y >= y && (other_x > x || other_y > y)
        })
    };
    let mut best: Vec<usize> = (0..points.len()).filter(|index| !beaten(*index)).collect();
    best.sort_by(|a, b| points[*a].x.mean.total_cmp(&points[*b].x.mean));
    best
}

/// Names those on the frontier, as far as there is room.
fn label(svg: &mut Svg, panel: &Panel, points: &[Point<'_>], best: &[usize]) {
    const LETTER: f64 = 5.6;
    let mut taken: Vec<(f64, f64, f64)> = Vec::new();
    for point in best.iter().map(|index| &points[*index]) {
        let (x, y) = panel.at(point.x.mean, point.y.mean);
        let width = LETTER * point.arm.chars().count() as f64;
        let (anchor, from) = if x + 9.0 + width > panel.right() {
            (Anchor::End, x - 9.0 - width)
        } else {
            (Anchor::Start, x + 9.0)
        };
        // Above its mark, or below it where another name stands there.
        let free = |y: f64| {
            let overlaps = |(left, right, other): &(f64, f64, f64)| {
                from < *right && from + width > *left && (y - other).abs() < 12.0
            };
            y > panel.top && y < panel.bottom() - 2.0 && !taken.iter().any(overlaps)
        };
        let Some(y) = [y - 6.0, y + 14.0, y + 4.0].into_iter().find(|y| free(*y)) else {
            continue;
        };
        taken.push((from, from + width, y));
        let place = if anchor == Anchor::End { from + width } else { from };
        svg.text((place, y), anchor, point.arm, "class=\"halo\"");
    }
}
