//! Workloads as JSON lines: Mooncake's (kvcache-ai/Mooncake, Apache-2.0) and our own.

use std::io::BufRead;

use equipoise_types::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::json_reason;
use crate::lines::Lines;
use crate::{TraceError, WorkloadRecord};

/// A line of Mooncake's traces. Fields that other editions add are ignored.
#[derive(Deserialize)]
#[serde(expecting = "a JSON object")]
struct MooncakeLine {
    /// Milliseconds from the start; whole in the published traces.
    timestamp: f64,
    input_length: u32,
    output_length: u32,
    #[serde(default)]
    hash_ids: Option<Vec<u64>>,
}

/// A line of ours.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a JSON object")]
pub(crate) struct EquipoiseLine {
    arrival_s: f64,
    prompt_tokens: u32,
    output_tokens: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    prefix_blocks: Option<Vec<u64>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tenant: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    prompt_id: Option<String>,
}

impl From<&WorkloadRecord> for EquipoiseLine {
    fn from(record: &WorkloadRecord) -> Self {
        Self {
            arrival_s: record.arrival.as_secs_f64(),
            prompt_tokens: record.prompt_tokens,
            output_tokens: record.output_tokens,
            prefix_blocks: record.prefix_blocks.clone(),
            tenant: record.tenant.clone(),
            prompt_id: record.prompt_id.clone(),
        }
    }
}

pub(super) fn mooncake<R: BufRead>(lines: &Lines<R>) -> Result<WorkloadRecord, TraceError> {
    const EXPECTED: &str =
        "a Mooncake request `{\"timestamp\": ms, \"input_length\": n, \"output_length\": n, \"hash_ids\": [n, …]}`";
    let line: MooncakeLine =
        serde_json::from_str(lines.current()).map_err(|error| lines.malformed(EXPECTED, json_reason(&error)))?;
    Ok(WorkloadRecord {
        arrival: arrival(lines, line.timestamp, 1e-3, "timestamp")?,
        prompt_tokens: line.input_length,
        output_tokens: line.output_length,
        prefix_blocks: line.hash_ids,
        ..WorkloadRecord::default()
    })
}

pub(super) fn equipoise<R: BufRead>(lines: &Lines<R>) -> Result<WorkloadRecord, TraceError> {
    const EXPECTED: &str = "a request `{\"arrival_s\": x, \"prompt_tokens\": n, \"output_tokens\": n}`, \
                            `\"prefix_blocks\": [n, …]`, `\"tenant\": \"…\"` and `\"prompt_id\": \"…\"` if you like";
    let line: EquipoiseLine =
        serde_json::from_str(lines.current()).map_err(|error| lines.malformed(EXPECTED, json_reason(&error)))?;
    Ok(WorkloadRecord {
        arrival: arrival(lines, line.arrival_s, 1.0, "arrival_s")?,
        prompt_tokens: line.prompt_tokens,
        output_tokens: line.output_tokens,
        prefix_blocks: line.prefix_blocks,
        tenant: line.tenant,
        prompt_id: line.prompt_id,
    })
}

/// A time that is not negative and fits, `unit_s` seconds each.
pub(super) fn arrival<R: BufRead>(
    lines: &Lines<R>,
    value: f64,
    unit_s: f64,
    name: &str,
) -> Result<Timestamp, TraceError> {
    let seconds = value * unit_s;
    if (0.0..1e9).contains(&seconds) {
        Ok(Timestamp::from_secs_f64(seconds))
    } else {
        Err(lines.malformed(
            format!("`{name}` to be zero or more, and less than thirty years"),
            value.to_string(),
        ))
    }
}
