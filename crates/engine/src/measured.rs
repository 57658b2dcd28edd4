//! Tiers whose speed and energy were measured: a model on certain GPUs under a certain engine, as a few fitted constants.
//!
//! The tables lie in `tiers/*.toml`, with source, licence and fit error; `tests/measured_tiers.rs` fits them anew from the
//! published rows. A fleet file asks for a table by its name; what the table does not hold is an error, never a guess.

use std::fmt;

use serde::Deserialize;

use crate::deployment::Precision;
use crate::gpu::GpuSpec;
use crate::model::ModelSpec;

/// Every table, by name.
const TABLES: [(&str, &str); 1] = [("mlenergy-v2", include_str!("../tiers/mlenergy-v2.toml"))];

/// Context per sequence at which the rows were measured, tokens: a chat prompt (taken as 150, as in the other fits to
/// ML.ENERGY) and half an answer of 400. What differs from it costs what the roofline says.
pub(crate) const CONTEXT_TOKENS: f64 = 350.0;

/// What reading all experts of a mixture once costs.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpertStep {
    /// Milliseconds.
    pub ms: f64,
    /// Joules, over all GPUs.
    pub joules: f64,
}

/// Steps of one tier: `fixed + batch * per_seq`, and of a mixture the share of its experts that the batch touches.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeasuredTier {
    /// The model's name in the catalogue.
    pub model: String,
    /// The GPU's name in the catalogue.
    pub gpu: String,
    /// GPUs that share the model.
    pub tensor_parallel: u32,
    /// Format of the weights.
    #[serde(default)]
    pub weights: Precision,
    /// Duration of a step before its sequences, milliseconds.
    pub step_ms: f64,
    /// What each sequence adds, milliseconds.
    pub step_ms_per_seq: f64,
    /// Energy of a step before its sequences, joules, over all GPUs.
    pub step_joules: f64,
    /// What each sequence adds, joules.
    pub step_joules_per_seq: f64,
    /// Of a mixture: what reading all experts once adds to a step; a batch that touches a part of them adds that part.
    #[serde(default)]
    pub experts: Option<ExpertStep>,
    /// Prompts take the roofline's time multiplied by this: measured over modelled step time at the largest batch.
    pub prefill_scale: f64,
    /// Mean answer length of the rows, tokens.
    pub answer_tokens: f64,
    /// Rows that the fit is over.
    pub rows: u32,
    /// Least and largest mean batch of these rows.
    pub batches: [f64; 2],
    /// Largest relative errors over these rows.
    pub error: FitError,
}

/// Largest relative errors of a fit over its rows.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FitError {
    /// Of the time per output token.
    pub tpot: f64,
    /// Of the joules per output token.
    pub joules: f64,
}

/// A table of measured tiers.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeasuredTable {
    /// Where the rows were published.
    pub source: String,
    /// Under which licence.
    pub licence: String,
    /// What engine they are of.
    pub engine: String,
    /// The tiers.
    #[serde(rename = "tier")]
    pub tiers: Vec<MeasuredTier>,
}

/// As a table of a file: what [`measured_table`] reads.
impl fmt::Display for MeasuredTier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "[[tier]]\nmodel = {:?}\ngpu = {:?}\ntensor_parallel = {}",
            self.model, self.gpu, self.tensor_parallel
        )?;
        if self.weights != Precision::default() {
            writeln!(f, "weights = {:?}", self.weights.name())?;
        }
        writeln!(
            f,
            "step_ms = {:.4}\nstep_ms_per_seq = {:.6}\nstep_joules = {:.5}\nstep_joules_per_seq = {:.6}",
            self.step_ms, self.step_ms_per_seq, self.step_joules, self.step_joules_per_seq
        )?;
        if let Some(experts) = self.experts {
            writeln!(
                f,
                "experts = {{ ms = {:.4}, joules = {:.5} }}",
                experts.ms, experts.joules
            )?;
        }
        writeln!(
            f,
            "prefill_scale = {:.4}\nanswer_tokens = {:.1}\nrows = {}\nbatches = [{:.1}, {:.1}]\nerror = {{ tpot = {:.4}, joules = {:.4} }}",
            self.prefill_scale,
            self.answer_tokens,
            self.rows,
            self.batches[0],
            self.batches[1],
            self.error.tpot,
            self.error.joules
        )
    }
}

/// The table as a file; its lines of comment are the writer's own.
impl fmt::Display for MeasuredTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "source = {:?}\nlicence = {:?}\nengine = {:?}",
            self.source, self.licence, self.engine
        )?;
        self.tiers.iter().try_for_each(|tier| write!(f, "\n{tier}"))
    }
}

/// Why a tier's measurements are not at hand.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum MeasuredError {
    /// No such table.
    #[error("no table of measured tiers is called `{name}`; there are: {known}")]
    UnknownTable {
        /// As asked for.
        name: String,
        /// Comma-separated.
        known: String,
    },
    /// The table is damaged.
    #[error("the table of measured tiers `{name}` cannot be read: {reason}")]
    Malformed {
        /// Which.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The table has no such tier.
    #[error("`{table}` has no measurement of {wanted}; it has {known}")]
    UnknownTier {
        /// Which table.
        table: String,
        /// Model, GPUs.
        wanted: String,
        /// What there is of this model, or of all.
        known: String,
    },
}

/// The table called `name`; or, where that has several lines, the table that it is: your own travel with the instance.
///
/// # Errors
/// When there is none, or it is damaged.
pub fn measured_table(name: &str) -> Result<MeasuredTable, MeasuredError> {
    if name.contains('\n') {
        return parse("your own table", name);
    }
    let Some((_, text)) = TABLES.iter().find(|(known, _)| *known == name) else {
        let known: Vec<&str> = TABLES.iter().map(|(known, _)| *known).collect();
        return Err(MeasuredError::UnknownTable {
            name: name.to_owned(),
            known: known.join(", "),
        });
    };
    parse(name, text)
}

fn parse(name: &str, text: &str) -> Result<MeasuredTable, MeasuredError> {
    toml::from_str(text).map_err(|error| MeasuredError::Malformed {
        name: name.to_owned(),
        reason: error.to_string(),
    })
}

/// What the table called `table` knows of a model on so many GPUs.
///
/// # Errors
/// When there is no such table, or it does not hold this tier; the message names what it holds.
pub fn measured_tier(
    table: &str,
    model: &ModelSpec,
    gpu: &GpuSpec,
    tensor_parallel: u32,
) -> Result<MeasuredTier, MeasuredError> {
    let tiers = measured_table(table)?.tiers;
    let is_it = |tier: &&MeasuredTier| {
        tier.model == model.name && tier.gpu == gpu.name && tier.tensor_parallel == tensor_parallel
    };
    if let Some(tier) = tiers.iter().find(is_it) {
        return Ok(tier.clone());
    }
    let title = |model: &str, gpu: &str, gpus: u32| format!("{model} on {gpus} x {gpu}");
    let of_model = tiers.iter().any(|tier| tier.model == model.name);
    let known = tiers.iter().filter(|tier| !of_model || tier.model == model.name);
    let known: Vec<String> = known
        .map(|tier| title(&tier.model, &tier.gpu, tier.tensor_parallel))
        .collect();
    Err(MeasuredError::UnknownTier {
        table: table.to_owned(),
        wanted: title(model.name, gpu.name, tensor_parallel),
        known: known.join(", "),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{gpu, model};

    #[test]
    fn every_table_can_be_read_and_makes_sense() {
        for (name, _) in TABLES {
            let table = measured_table(name).expect("it ships");
            assert!(!table.tiers.is_empty() && !table.source.is_empty() && !table.licence.is_empty());
            for tier in &table.tiers {
                let (model, gpu) = (model(&tier.model).expect("known"), gpu(&tier.gpu).expect("known"));
                let found = measured_tier(name, model, gpu, tier.tensor_parallel).expect("it is there");
                assert_eq!(&found, tier, "a tier stands twice in `{name}`");
                assert!(tier.step_ms > 0.0 && tier.step_joules > 0.0 && tier.prefill_scale > 0.0);
                assert!(tier.step_ms_per_seq >= 0.0 && tier.step_joules_per_seq > 0.0);
                assert!(tier.rows >= 2 && tier.batches[0] < tier.batches[1]);
            }
        }
    }

    #[test]
    fn what_is_not_there_is_named() {
        let (llama, h100) = (model("Llama-3.1-8B").expect("known"), gpu("H100").expect("known"));
        let error = measured_tier("mlenergy-v2", llama, h100, 8).expect_err("never measured");
        assert!(error.to_string().contains("Llama-3.1-8B on 1 x H100"), "{error}");
        assert!(matches!(
            measured_tier("hearsay", llama, h100, 1),
            Err(MeasuredError::UnknownTable { .. })
        ));
    }
}
