//! Does a model that is forecast to be better answer better? Forecasts of the held-out ZeroEval prompts against their labels,
//! for the models of a fleet: leads of one model over another, and what it is worth to prefer a cheaper model that is nearly as
//! good. No arrivals, no load: what any router can get from these forecasts at most.

use std::path::PathBuf;

use clap::Parser;
use equipoise_predict::{Predictor, canonical_model_name};
use equipoise_simulator::PromptSet;

/// Compares forecast and true leads of models, and of picks within a margin of the best forecast.
#[derive(Parser)]
#[command(about = "Does a model that is forecast to be better answer better?")]
struct Options {
    /// The folder that holds `quality/`.
    #[arg(long, env = "EQUIPOISE_DATA")]
    data: PathBuf,
    /// Models, the cheapest first.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "qwen2.5-3b,qwen2.5-7b,qwen2.5-32b,qwen2.5-72b"
    )]
    models: Vec<String>,
    /// A model counts as good as the best where its forecast is within so much of it.
    #[arg(long, value_delimiter = ',', default_value = "0,0.01,0.02,0.03,0.05,0.1")]
    margins: Vec<f64>,
}

/// Forecast and label of each model on one prompt.
type Row = Vec<(f64, f64)>;

/// Mean and standard error.
fn mean(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let square = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
    (mean, (square / (count - 1.0) / count).sqrt())
}

/// Of true over forecast leads, least squares.
fn slope(leads: &[(f64, f64)]) -> f64 {
    let (forecasts, truths): (Vec<f64>, Vec<f64>) = leads.iter().copied().unzip();
    let (x, y) = (mean(&forecasts).0, mean(&truths).0);
    let across: f64 = leads.iter().map(|(a, b)| (a - x) * (b - y)).sum();
    across / forecasts.iter().map(|a| (a - x).powi(2)).sum::<f64>()
}

/// The first, hence cheapest, whose forecast is within `margin` of the best.
fn pick(row: &[(f64, f64)], margin: f64) -> usize {
    let best = row.iter().map(|(forecast, _)| *forecast).fold(f64::MIN, f64::max);
    row.iter()
        .position(|(forecast, _)| *forecast >= best - margin)
        .unwrap_or(0)
}

/// How far each model is forecast to be ahead of each cheaper one, and how far it is.
fn leads(names: &[String], rows: &[Row]) -> Vec<Vec<String>> {
    let head = ["of", "over", "forecast", "true", "± s.e.", "true per forecast"];
    let mut table = vec![head.map(str::to_owned).to_vec()];
    for better in (1..names.len()).rev() {
        for other in (0..better).rev() {
            let lead = |row: &Row| (row[better].0 - row[other].0, row[better].1 - row[other].1);
            let pairs: Vec<(f64, f64)> = rows.iter().map(lead).collect();
            let (forecasts, truths): (Vec<f64>, Vec<f64>) = pairs.iter().copied().unzip();
            let (truth, error) = mean(&truths);
            let figures = [mean(&forecasts).0, truth, error, slope(&pairs)];
            let mut row = vec![names[better].clone(), names[other].clone()];
            row.extend(figures.map(|figure| format!("{figure:.3}")));
            table.push(row);
        }
    }
    table
}

/// What becomes of quality where the cheapest within a margin of the best forecast is taken.
fn margins(names: &[String], rows: &[Row], margins: &[f64]) -> Vec<Vec<String>> {
    let head = ["margin", "quality", "gain", "± s.e.", "won", "lost"];
    let shares = names.iter().map(|name| format!("{name}, %"));
    let mut table = vec![head.map(str::to_owned).into_iter().chain(shares).collect()];
    for &margin in margins {
        let label = |row: &Row, margin: f64| row[pick(row, margin)].1;
        let labels: Vec<f64> = rows.iter().map(|row| label(row, margin)).collect();
        let gains: Vec<f64> = rows.iter().map(|row| label(row, margin) - label(row, 0.0)).collect();
        let (gain, error) = mean(&gains);
        let mut row = vec![margin.to_string()];
        row.extend([mean(&labels).0, gain, error].map(|figure| format!("{figure:.3}")));
        row.push(gains.iter().filter(|gain| **gain > 0.0).count().to_string());
        row.push(gains.iter().filter(|gain| **gain < 0.0).count().to_string());
        row.extend((0..names.len()).map(|model| {
            let picked = rows.iter().filter(|row| pick(row, margin) == model).count();
            format!("{:.0}", 100.0 * picked as f64 / rows.len() as f64)
        }));
        table.push(row);
    }
    table
}

#[expect(clippy::print_stdout, reason = "what a command line is for")]
fn print(table: &[Vec<String>]) {
    for (index, row) in table.iter().enumerate() {
        println!("| {} |", row.join(" | "));
        if index == 0 {
            println!("|{}", " --- |".repeat(row.len()));
        }
    }
    println!();
}

#[expect(clippy::print_stdout, reason = "what a command line is for")]
fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let predictor = Predictor::embedded()?;
    let set = PromptSet::zero_eval(&options.data, &options.models, Some(&predictor))?;
    let names: Vec<String> = options.models.iter().map(|name| canonical_model_name(name)).collect();
    let asked = set.prompts().iter().filter_map(|prompt| {
        let forecast = prompt.forecast.as_ref()?;
        let of = |name: &String| Some((forecast.of(name)?.quality, prompt.answers.get(name)?.quality));
        names.iter().map(of).collect()
    });
    let rows: Vec<Row> = asked.collect();
    println!("{} prompts\n", rows.len());
    print(&leads(&names, &rows));
    print(&margins(&names, &rows, &options.margins));
    Ok(())
}
