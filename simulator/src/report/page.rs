//! The page.

use std::fmt::Write as _;

use equipoise_chart::{Bar, Ground, Svg, escape, stacked_bars};

use super::curves::{distribution, over_loads, over_time};
use super::frontier::{Axis, WIDTH, frontier};
use super::style::{Look, style_sheet};
use super::summary::{Better, COLUMNS, Column, e2e_p95_s, joules_per_request, quality, ttft_p95_s};
use super::{Figure, Load, Report, Row};
use crate::RunOutcome;

/// Timelines of more arms than this are a tangle: the first ones are drawn.
const MOST_TIMELINES: usize = 8;

const QUALITY: Axis = Axis {
    title: "quality",
    figure: quality,
    more: true,
    log: false,
};
const E2E: Axis = Axis {
    title: "E2E p95, s",
    figure: e2e_p95_s,
    more: false,
    log: true,
};
const ENERGY: Axis = Axis {
    title: "J/request",
    figure: joules_per_request,
    more: false,
    log: true,
};

pub(super) fn page(report: &Report) -> String {
    let (arms, loads) = (report.arms(), report.loads());
    let mut body = String::new();
    for note in &report.notes {
        _ = writeln!(body, "<p class=\"note\">{}</p>", escape(note));
    }
    body.push_str(&legend(&arms));
    overview(&mut body, &loads, &arms);
    for (index, load) in loads.iter().enumerate() {
        // Of many loads, the highest tells most.
        let open = loads.len() <= 2 || index + 1 == loads.len();
        section(&mut body, load, &arms, open);
    }
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n<title>{title}</title>\n\
         <style>\n{style}\n</style></head>\n<body>\n<h1>{title}</h1>\n{body}<footer>{FOOTNOTE}</footer>\n</body></html>\n",
        title = escape(&report.title),
        style = style_sheet(),
    )
}

const FOOTNOTE: &str = "<p>Means over the seeds; ± and whiskers are 95 % confidence intervals of the mean (Student). \
    Frontiers join those whom nobody beats on both axes. Distributions hold the requests of all seeds, timelines show the \
    first seed, shaded while something was wrong. Energy is that of the engine model or of measured tiers, at the GPUs; \
    active is without the draw between steps. Times are as a client behind the router sees them. Written by \
    <code>equipoise</code>; the same scenario and seeds give the same bytes.</p>";

/// Colours and shapes, for the whole page.
fn legend(arms: &[&str]) -> String {
    let entry = |(index, arm): (usize, &&str)| {
        let look = Look(index);
        let mut svg = Svg::new(26.0, 14.0, Ground::Page, "");
        svg.line([(0.0, 7.0), (26.0, 7.0)], &look.line(), "");
        look.mark().draw(&mut svg, (13.0, 7.0), 4.5, &look.mark_style(), "");
        format!("<span>{}{}</span>", svg.finish(), escape(arm))
    };
    let entries: String = arms.iter().enumerate().map(entry).collect();
    format!("<div class=\"legend\">{entries}</div>\n")
}

fn figure(body: &mut String, caption: &str, svg: Option<String>) {
    if let Some(svg) = svg {
        _ = writeln!(
            body,
            "<figure><figcaption>{}</figcaption>\n{svg}</figure>",
            escape(caption)
        );
    }
}

/// Figures over the load, where there are several.
fn overview(body: &mut String, loads: &[Load<'_>], arms: &[&str]) {
    if loads.len() < 2 {
        return;
    }
    body.push_str("<section><h2>Over the load</h2>\n<div class=\"plots\">\n");
    let not_served: Figure =
        |run| Some(100.0 * (1.0 - run.figures.finished as f64 / (run.figures.offered as f64).max(1.0)));
    let plots: [(&str, &str, bool, Figure); 5] = [
        ("Quality", "mean quality", false, quality),
        ("End-to-end time", "E2E p95, s", true, e2e_p95_s),
        ("Time to first token", "TTFT p95, s", true, ttft_p95_s),
        ("Energy", "J/request", true, joules_per_request),
        ("Not served", "% of requests", false, not_served),
    ];
    for (caption, title, log, value) in plots {
        figure(body, caption, over_loads(loads, arms, title, log, value));
    }
    body.push_str("</div></section>\n");
}

fn section(body: &mut String, load: &Load<'_>, arms: &[&str], open: bool) {
    let open = if open { " open" } else { "" };
    _ = writeln!(
        body,
        "<details{open}><summary><h2>{}</h2></summary>",
        escape(&load.title())
    );
    body.push_str(&table(&load.rows));
    refusals(body, load);
    body.push_str("<div class=\"plots\">\n");
    figure(body, "Quality and energy", frontier(load, arms, &ENERGY, &QUALITY));
    figure(body, "Quality and time", frontier(load, arms, &E2E, &QUALITY));
    figure(body, "Time and energy", frontier(load, arms, &ENERGY, &E2E));
    figure(
        body,
        "Time to first token",
        distribution(load, arms, "seconds to the first token", |run| &run.ttft_s),
    );
    figure(
        body,
        "End-to-end time",
        distribution(load, arms, "seconds to the last token", |run| &run.e2e_s),
    );
    figure(body, "Energy by cause", energy(load));
    figure(body, "Who answered", models(load));
    timelines(body, load, arms);
    body.push_str("</div></details>\n");
}

fn timelines(body: &mut String, load: &Load<'_>, arms: &[&str]) {
    let drawn = Load {
        rate_per_s: load.rate_per_s,
        rows: load.rows.iter().take(MOST_TIMELINES).cloned().collect(),
    };
    let per_second = |counts: &[f32], seconds: &[f32]| -> Vec<f32> {
        let pairs = counts.iter().zip(seconds);
        pairs.map(|(count, seconds)| count / seconds.max(1e-6)).collect()
    };
    // Everybody is asked the same.
    let asked = Load {
        rate_per_s: load.rate_per_s,
        rows: load.rows.iter().take(1).cloned().collect(),
    };
    let suffix = if load.rows.len() > MOST_TIMELINES {
        format!(" (the first {MOST_TIMELINES})")
    } else {
        String::new()
    };
    figure(
        body,
        "Load",
        over_time(&asked, arms, "arrivals/s", |time| {
            per_second(&time.arrived, &time.seconds)
        }),
    );
    figure(
        body,
        &format!("In the engines{suffix}"),
        over_time(&drawn, arms, "requests", |time| time.running.clone()),
    );
    figure(
        body,
        &format!("Waiting at the router{suffix}"),
        over_time(&drawn, arms, "requests", |time| time.queued.clone()),
    );
    figure(
        body,
        &format!("Power{suffix}"),
        over_time(&drawn, arms, "watts, all GPUs", |time| time.watts.clone()),
    );
    let steady = |row: &Row<'_>| {
        let serving = row.runs.first().map(|run| run.timeline.serving.as_slice());
        serving.is_none_or(|serving| serving.windows(2).all(|pair| pair[0] == pair[1]))
    };
    if !drawn.rows.iter().all(steady) {
        let caption = format!("Instances that serve{suffix}");
        figure(
            body,
            &caption,
            over_time(&drawn, arms, "instances", |time| time.serving.clone()),
        );
    }
}

fn refusals(body: &mut String, load: &Load<'_>) {
    for row in &load.rows {
        let mut reasons: std::collections::BTreeMap<&str, u64> = std::collections::BTreeMap::new();
        for run in &row.runs {
            for (reason, count) in &run.figures.refusals {
                *reasons.entry(reason).or_default() += count;
            }
        }
        if !reasons.is_empty() {
            let said: Vec<String> = reasons
                .iter()
                .map(|(reason, count)| format!("{count} {reason}"))
                .collect();
            let line = format!("{} refused: {}", row.arm, said.join(", "));
            _ = writeln!(body, "<p class=\"note\">{}</p>", escape(&line));
        }
    }
}

/// Mean joules per finished request, by cause.
fn energy(load: &Load<'_>) -> Option<String> {
    let per_request = |row: &Row<'_>, of: fn(&RunOutcome) -> f64| {
        let mean = row.mean(|run| Some(of(run) / (run.figures.finished as f64).max(1.0)));
        mean.map_or(0.0, |mean| mean.mean)
    };
    let bar = |row: &Row<'_>| Bar {
        name: row.arm.to_owned(),
        parts: vec![
            per_request(row, |run| run.figures.energy.prefill_joules),
            per_request(row, |run| run.figures.energy.decode_joules),
            per_request(row, |run| run.figures.energy.idle_joules),
            per_request(row, |run| run.figures.energy.unattributed_joules),
        ],
    };
    let bars: Vec<Bar> = load.rows.iter().map(bar).collect();
    let some = bars.iter().any(|bar| bar.parts.iter().any(|part| *part > 0.0));
    let lost = bars.iter().any(|bar| bar.parts[3] > 0.0);
    let names: &[(&str, usize)] = &[("prefill", 1), ("decode", 0), ("idle", 8), ("lost", 3)];
    let names = &names[..if lost { 4 } else { 3 }];
    let parts: Vec<(&str, String)> = names
        .iter()
        .map(|(name, colour)| (*name, Look(*colour).area()))
        .collect();
    some.then(|| swatches(&parts) + &stacked_bars(WIDTH, "", "J/request", &parts, &bars))
}

fn models(load: &Load<'_>) -> Option<String> {
    let mut names: Vec<&str> = Vec::new();
    let all = load
        .rows
        .iter()
        .flat_map(|row| &row.runs)
        .flat_map(|run| &run.figures.models);
    for (name, _) in all {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    if names.len() < 2 {
        return None;
    }
    let share = |row: &Row<'_>, name: &str| {
        let count = |run: &&RunOutcome| {
            let found = run.figures.models.iter().find(|(model, _)| model == name);
            found.map_or(0.0, |(_, count)| *count as f64)
        };
        let finished: f64 = row.runs.iter().map(|run| run.figures.finished as f64).sum();
        100.0 * row.runs.iter().map(count).sum::<f64>() / finished.max(1.0)
    };
    let bars: Vec<Bar> = load
        .rows
        .iter()
        .map(|row| Bar {
            name: row.arm.to_owned(),
            parts: names.iter().map(|name| share(row, name)).collect(),
        })
        .collect();
    let looks = names.iter().enumerate();
    let parts: Vec<(&str, String)> = looks.map(|(index, name)| (*name, Look(index).area())).collect();
    Some(swatches(&parts) + &stacked_bars(WIDTH, "", "% of requests", &parts, &bars))
}

/// What the colours of bars mean.
fn swatches(parts: &[(&str, String)]) -> String {
    let entry = |(name, style): &(&str, String)| {
        format!(
            "<span><svg viewBox=\"0 0 26 14\"><rect width=\"26\" height=\"14\" {style}/></svg>{}</span>",
            escape(name)
        )
    };
    let entries: String = parts.iter().map(entry).collect();
    format!("<div class=\"legend\">{entries}</div>\n")
}

/// The summary: a row per arm, the best of each column in bold.
fn table(rows: &[Row<'_>]) -> String {
    let shown: Vec<&Column> = COLUMNS
        .iter()
        .filter(|column| rows.iter().any(|row| column.mean(row).is_some()))
        .collect();
    let mut text = String::from("<div class=\"scroll\"><table><thead><tr><th>policy</th>");
    for column in &shown {
        let unit = if column.unit.is_empty() {
            String::new()
        } else {
            format!("<br>{}", column.unit)
        };
        _ = write!(text, "<th>{}{unit}</th>", column.heading);
    }
    text.push_str("</tr></thead><tbody>\n");
    let best: Vec<Option<f64>> = shown.iter().map(|column| best_of(column, rows)).collect();
    for row in rows {
        _ = write!(text, "<tr><td>{}</td>", escape(row.arm));
        for (column, best) in shown.iter().zip(&best) {
            let Some(mean) = column.mean(row) else {
                text.push_str("<td>–</td>");
                continue;
            };
            let class = if Some(mean.mean) == *best {
                " class=\"best\""
            } else {
                ""
            };
            let half = if mean.half.is_finite() && mean.half > 0.0 {
                format!(" <span class=\"pm\">±{}</span>", (column.text)(mean.half))
            } else {
                String::new()
            };
            _ = write!(text, "<td{class}>{}{half}</td>", (column.text)(mean.mean));
        }
        text.push_str("</tr>\n");
    }
    text.push_str("</tbody></table></div>\n");
    text
}

fn best_of(column: &Column, rows: &[Row<'_>]) -> Option<f64> {
    if rows.len() < 2 {
        return None;
    }
    let means = rows.iter().filter_map(|row| column.mean(row)).map(|mean| mean.mean);
    match column.better {
        Better::More => means.max_by(f64::total_cmp),
        Better::Less => means.min_by(f64::total_cmp),
        Better::Neither => None,
    }
}
