//! Curves: distributions, figures over the load, the course of time.

use equipoise_chart::{Ground, Panel, Scale, Svg, escape};

use super::frontier::{HEIGHT, WIDTH, panel};
use super::style::Look;
use super::{Figure, Load, Row};
use crate::{Distribution, RunOutcome, Timeline};

/// Curves of a plot are thinned to about so many points.
const POINTS: usize = 120;

fn look(arms: &[&str], row: &Row<'_>) -> Look {
    Look(arms.iter().position(|arm| *arm == row.arm).unwrap_or(0))
}

/// Share of requests up to a time, on a logarithmic axis, all seeds together.
pub(super) fn distribution(
    load: &Load<'_>,
    arms: &[&str],
    title: &str,
    of: fn(&RunOutcome) -> &Distribution,
) -> Option<String> {
    let merged = |row: &Row<'_>| {
        let mut all = Distribution::default();
        row.runs.iter().for_each(|run| all.merge(of(run)));
        all
    };
    let rows: Vec<(&Row<'_>, Distribution)> = load.rows.iter().map(|row| (row, merged(row))).collect();
    // The last thousandth would squeeze everything else.
    let ends = rows
        .iter()
        .flat_map(|(_, all)| [all.quantile(0.001), all.quantile(0.999)].into_iter().flatten());
    let ends: Vec<f64> = ends.collect();
    if ends.is_empty() {
        return None;
    }
    let panel = panel(Scale::log(ends), Scale::Linear { low: 0.0, high: 1.0 });
    let mut svg = Svg::new(WIDTH, HEIGHT, Ground::Page, title);
    panel.grid(&mut svg);
    panel.titles(&mut svg, title, "share of requests");
    for (row, all) in &rows {
        let points = all.cumulative();
        let keep = points.len().div_ceil(POINTS).max(1);
        let last = points.len().saturating_sub(1);
        let thinned = points.into_iter().enumerate();
        let thinned = thinned
            .filter(|(index, _)| index % keep == 0 || *index == last)
            .map(|(_, point)| point);
        panel.line(&mut svg, thinned, &look(arms, row).line(), row.arm);
    }
    Some(svg.finish())
}

/// A figure over the loads, with intervals; `None` of fewer than two loads.
pub(super) fn over_loads(loads: &[Load<'_>], arms: &[&str], title: &str, log: bool, figure: Figure) -> Option<String> {
    let mut lines: Vec<(usize, Vec<(f64, equipoise_types::Mean)>)> = Vec::new();
    for (index, arm) in arms.iter().enumerate() {
        let points = loads.iter().filter_map(|load| {
            let row = load.rows.iter().find(|row| row.arm == *arm)?;
            Some((load.rate_per_s?, row.mean(figure)?))
        });
        lines.push((index, points.filter(|(_, mean)| mean.mean.is_finite()).collect()));
    }
    let all = || lines.iter().flat_map(|(_, points)| points);
    if loads.len() < 2 || all().next().is_none() {
        return None;
    }
    let values = all().map(|(_, mean)| mean.mean);
    let up = if log {
        Scale::log(values)
    } else {
        Scale::linear(values, false)
    };
    let panel = panel(Scale::linear(all().map(|(rate, _)| *rate), false), up);
    let mut svg = Svg::new(WIDTH, HEIGHT, Ground::Page, title);
    panel.grid(&mut svg);
    panel.titles(&mut svg, "requests/s", title);
    for (index, points) in &lines {
        let look = Look(*index);
        panel.line(
            &mut svg,
            points.iter().map(|(rate, mean)| (*rate, mean.mean)),
            &look.line(),
            arms[*index],
        );
        for (rate, mean) in points {
            let whisker = format!("class=\"whisker c{}\"", index % 10);
            panel.interval(&mut svg, (*rate, mean.mean), (0.0, mean.half), &whisker);
            let said = format!("{}: {} at {rate} requests/s", arms[*index], super::short(mean.mean));
            look.mark()
                .draw(&mut svg, panel.at(*rate, mean.mean), 3.4, &look.mark_style(), &said);
        }
    }
    Some(svg.finish())
}

/// One level in the course of time, of every arm's first seed.
pub(super) fn over_time(
    load: &Load<'_>,
    arms: &[&str],
    title: &str,
    of: impl Fn(&Timeline) -> Vec<f32>,
) -> Option<String> {
    let curve = |row: &Row<'_>| -> Vec<(f64, f64)> {
        let Some(timeline) = row.runs.first().map(|run| &run.timeline) else {
            return Vec::new();
        };
        let mut points: Vec<(f64, f64)> = of(timeline)
            .iter()
            .enumerate()
            .map(|(index, value)| (index as f64 * timeline.bin_s, f64::from(*value)))
            .collect();
        let end_s: f64 = timeline.seconds.iter().map(|seconds| f64::from(*seconds)).sum();
        points.extend(points.last().map(|last| (end_s.max(last.0), last.1)));
        points
    };
    let rows: Vec<(&Row<'_>, Vec<(f64, f64)>)> = load.rows.iter().map(|row| (row, curve(row))).collect();
    let all = || rows.iter().flat_map(|(_, points)| points);
    let highest = all().map(|point| point.1).fold(0.0, f64::max);
    if highest <= 0.0 {
        return None;
    }
    let high = all().map(|point| point.0).fold(0.0, f64::max);
    let panel = panel(
        Scale::Linear { low: 0.0, high },
        Scale::linear(all().map(|point| point.1), true),
    );
    let mut svg = Svg::new(WIDTH, HEIGHT, Ground::Page, title);
    panel.grid(&mut svg);
    panel.titles(&mut svg, "seconds", title);
    faults(&mut svg, &panel, load);
    for (row, points) in &rows {
        panel.steps(&mut svg, points, &look(arms, row).line(), row.arm);
    }
    Some(svg.finish())
}

/// Shades the times in which something was wrong.
fn faults(svg: &mut Svg, panel: &Panel, load: &Load<'_>) {
    let run = load.rows.first().and_then(|row| row.runs.first());
    for fault in run.iter().flat_map(|run| &run.faults) {
        let (from, _) = panel.at(fault.from_s, 0.0);
        let to = fault.until_s.map_or(panel.right(), |until| panel.at(until, 0.0).0);
        let until = fault
            .until_s
            .map_or_else(|| "on".to_owned(), |until| format!("to {until} s"));
        let said = escape(&format!("{}, from {} s {until}", fault.what, fault.from_s));
        svg.put(&format!(
            "<rect x=\"{from:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" class=\"fault\"><title>{said}</title></rect>",
            panel.top,
            (to - from).max(1.0),
            panel.height
        ));
    }
}
