//! What an answer of each model costs, for the routed curves.

use std::path::Path;

use anyhow::{Context as _, bail};
use equipoise_trace::GradedFormat;

/// Costs by model, and what they are.
pub(super) struct Costs {
    /// The set's model names with their costs.
    pub(super) of: Vec<(&'static str, f64)>,
    pub(super) unit: &'static str,
    pub(super) note: &'static str,
}

/// The models of ZeroEval whose energy was measured, with their names in the measurements.
const MEASURED: [(&str, &str); 7] = [
    ("gemma-2-2b", "google/gemma-2-2b-it"),
    ("gemma-2-9b", "google/gemma-2-9b-it"),
    ("gemma-2-27b", "google/gemma-2-27b-it"),
    ("llama-3.1-8b", "meta-llama/Meta-Llama-3.1-8B-Instruct"),
    ("llama-3.1-70b", "meta-llama/Meta-Llama-3.1-70B-Instruct"),
    ("llama-3.1-405b", "meta-llama/Meta-Llama-3.1-405B-Instruct"),
    ("mistral-large-123b", "mistralai/Mistral-Large-Instruct-2407"),
];

/// Parameters in billions, of the models' cards; all of them count in a mixture of experts. Left out: models whose size is
/// not published (Gemini, GPT-4o), and DeepSeek-Coder-V2, a seventh of whose answers are missing.
const PARAMETERS: [(&str, f64); 29] = [
    ("Llama-2-13b-hf-base", 13.0),
    ("Llama-2-70b-hf-base", 69.0),
    ("Llama-2-7b-hf-base", 6.74),
    ("Meta-Llama-3-70B-base", 70.6),
    ("Meta-Llama-3-8B-base", 8.03),
    ("Meta-Llama-3-8B-Instruct", 8.03),
    ("Meta-Llama-3_1-70B-base", 70.6),
    ("Meta-Llama-3_1-70B-Instruct", 70.6),
    ("Meta-Llama-3_1-8B-base", 8.03),
    ("Meta-Llama-3_1-8B-Instruct", 8.03),
    ("Mistral-7B-Instruct-v0.1", 7.24),
    ("Mistral-7B-Instruct-v0.2", 7.24),
    ("Mistral-7B-v0.1", 7.24),
    ("Mistral-7B-v0.2-hf", 7.24),
    ("Mixtral-8x7B-Instruct-v0.1", 46.7),
    ("Mixtral-8x7B-v0.1-base", 46.7),
    ("Phi-3-mini-4k-instruct", 3.82),
    ("Qwen1.5-110B-base", 111.0),
    ("Qwen1.5-72B-Chat", 72.3),
    ("Qwen1.5-7B-Chat", 7.72),
    ("Yi-34B-base", 34.4),
    ("Yi-6B-base", 6.06),
    ("Yi-6b-Chat", 6.06),
    ("c4ai-command-r-v01", 35.0),
    ("deepseek-v2", 236.0),
    ("gemma-7b-base", 8.54),
    ("jamba-1.5-large", 398.0),
    ("llama-3-8b-quantized", 8.03),
    ("mathstral-7B", 7.25),
];

/// The costs for a set. `data` holds `energy/mlenergy_v2.csv`.
pub(super) fn costs(format: GradedFormat, data: &Path) -> anyhow::Result<Costs> {
    match format {
        GradedFormat::ZeroEval => Ok(Costs {
            of: joules_per_request(&data.join("energy/mlenergy_v2.csv"))?,
            unit: "J/request",
            note: "Cost is measured joules per request: ml-energy/leaderboard-v2 (Apache-2.0), task `chat`, H100, of each model the \
                   row whose `max_bs` is nearest to 256 as a ratio. Seven models have both labels and such a row.",
        }),
        GradedFormat::MmluPro => Ok(Costs {
            of: PARAMETERS.to_vec(),
            unit: "10⁹ parameters",
            note: "Cost is the number of parameters, a stand-in: no energy was measured for most of these models. Experts of a \
                   mixture all count. Not routed to: models of unpublished size (Gemini, GPT-4o) and DeepSeek-Coder-V2, which \
                   has no answer to a seventh of the prompts.",
        }),
    }
}

/// Joules per request of each measured model on H100 at the batch limit nearest to 256.
fn joules_per_request(path: &Path) -> anyhow::Result<Vec<(&'static str, f64)>> {
    let origin = path.display();
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {origin}"))?;
    let mut lines = text.lines();
    let header: Vec<&str> = lines.next().unwrap_or_default().split(',').collect();
    let column = |name: &str| {
        header
            .iter()
            .position(|column| *column == name)
            .with_context(|| format!("{origin}: no column `{name}`"))
    };
    let columns = [
        column("task")?,
        column("model")?,
        column("gpu")?,
        column("max_bs")?,
        column("energy_per_req_J")?,
    ];
    let mut best: Vec<Option<(f64, f64)>> = vec![None; MEASURED.len()];
    for (index, line) in lines.enumerate() {
        let fields: Vec<&str> = line.split(',').collect();
        let [task, model, gpu, batch, joules] = columns.map(|column| fields.get(column).copied().unwrap_or_default());
        let Some(position) = MEASURED.iter().position(|(_, name)| *name == model) else {
            continue;
        };
        if task != "chat" || !gpu.contains("H100") {
            continue;
        }
        let number = |text: &str| text.parse::<f64>().ok().filter(|number| *number > 0.0);
        let (Some(batch), Some(joules)) = (number(batch), number(joules)) else {
            bail!(
                "{origin}:{}: `{batch}` or `{joules}` is no number above zero",
                index + 2
            );
        };
        let distance = (batch / 256.0).ln().abs();
        if best[position].is_none_or(|(nearest, _)| distance < nearest) {
            best[position] = Some((distance, joules));
        }
    }
    MEASURED
        .iter()
        .zip(best)
        .map(|((name, measured), best)| {
            let (_, joules) = best.with_context(|| format!("{origin}: no H100 chat row of {measured}"))?;
            Ok((*name, joules))
        })
        .collect()
}
