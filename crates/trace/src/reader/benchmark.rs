//! Results of load generators, replayed as workloads: when each request was sent and how long it was.
//!
//! Such a file is one JSON document. It is read once, in a stream, and three numbers per request are kept: texts and
//! per-token latencies are skipped over.

use std::io::BufRead;

use equipoise_types::Timestamp;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use super::RecordSource;
use crate::error::json_reason;
use crate::{TraceError, WorkloadRecord};

/// One request of a run.
struct Sent {
    start: Timestamp,
    prompt_tokens: u32,
    output_tokens: u32,
}

/// The requests of a document.
#[derive(Default)]
pub(super) struct BenchmarkSource {
    sent: std::vec::IntoIter<Sent>,
    notes: Vec<String>,
}

impl RecordSource for BenchmarkSource {
    fn next_record(&mut self) -> Option<Result<WorkloadRecord, TraceError>> {
        let sent = self.sent.next()?;
        Some(Ok(WorkloadRecord {
            arrival: sent.start,
            prompt_tokens: sent.prompt_tokens,
            output_tokens: sent.output_tokens,
            ..WorkloadRecord::default()
        }))
    }

    fn notes(&self) -> Vec<String> {
        self.notes.clone()
    }
}

/// What `vllm bench serve --save-result --save-detailed` writes (vLLM, `vllm/benchmarks/serve.py`): columns as arrays.
#[derive(Deserialize)]
#[serde(expecting = "a JSON object")]
struct VllmRun {
    input_lens: Option<Vec<u32>>,
    output_lens: Option<Vec<u32>>,
    /// Seconds of the client's monotonic clock. Not there in versions before 2026.
    start_times: Option<Vec<f64>>,
    /// One per request, empty where it succeeded.
    errors: Option<Vec<ErrorText>>,
}

/// An error of the run: only whether there is one.
struct ErrorText {
    any: bool,
}

impl<'de> Deserialize<'de> for ErrorText {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        Ok(Self {
            any: text.is_some_and(|text| !text.is_empty()),
        })
    }
}

/// A GuideLLM report (`guidellm/benchmark/schemas/report.py`): versions 1 and 2 differ in the name of the start.
#[derive(Deserialize)]
#[serde(expecting = "a JSON object")]
struct GuidellmReport {
    benchmarks: Vec<GuidellmBenchmark>,
}

#[derive(Deserialize)]
#[serde(expecting = "a benchmark of the report")]
struct GuidellmBenchmark {
    requests: GuidellmRequests,
}

#[derive(Deserialize)]
#[serde(expecting = "requests by status")]
struct GuidellmRequests {
    #[serde(default)]
    successful: Option<Vec<GuidellmRequest>>,
    #[serde(default)]
    incomplete: Option<Vec<IgnoredAny>>,
    #[serde(default)]
    errored: Option<Vec<IgnoredAny>>,
}

#[derive(Deserialize)]
#[serde(expecting = "a request of the report")]
struct GuidellmRequest {
    #[serde(default)]
    request_start_time: Option<f64>,
    #[serde(default)]
    start_time: Option<f64>,
    #[serde(default)]
    prompt_tokens: Option<u32>,
    #[serde(default)]
    output_tokens: Option<u32>,
}

fn document<T: DeserializeOwned>(input: impl BufRead, origin: &str, expected: &str) -> Result<T, TraceError> {
    serde_json::from_reader(input).map_err(|error| TraceError::Malformed {
        origin: origin.to_owned(),
        line: error.line() as u64,
        expected: expected.to_owned(),
        found: json_reason(&error),
    })
}

fn incomplete(origin: &str, expected: &str, found: &str) -> TraceError {
    TraceError::Malformed {
        origin: origin.to_owned(),
        line: 1,
        expected: expected.to_owned(),
        found: found.to_owned(),
    }
}

/// Within three centuries of 1970, or of a machine's start.
fn start_of(seconds: f64, origin: &str) -> Result<Timestamp, TraceError> {
    if (0.0..1e10).contains(&seconds) {
        Ok(Timestamp::from_secs_f64(seconds))
    } else {
        Err(incomplete(
            origin,
            "starts of requests in seconds",
            &seconds.to_string(),
        ))
    }
}

pub(super) fn vllm(input: impl BufRead, origin: &str) -> Result<BenchmarkSource, TraceError> {
    const EXPECTED: &str = "one result of `vllm bench serve --save-result --save-detailed`";
    let run: VllmRun = document(input, origin, EXPECTED)?;
    let (Some(prompts), Some(outputs)) = (run.input_lens, run.output_lens) else {
        let found =
            "no `input_lens` and `output_lens`: was it saved without --save-detailed, or of an embedding model?";
        return Err(incomplete(origin, EXPECTED, found));
    };
    let Some(starts) = run.start_times else {
        let found = "no `start_times`: this version of vLLM did not record when requests were sent";
        return Err(incomplete(origin, EXPECTED, found));
    };
    if prompts.len() != starts.len() || outputs.len() != starts.len() {
        let found = format!(
            "{} input_lens, {} output_lens, {} start_times",
            prompts.len(),
            outputs.len(),
            starts.len()
        );
        return Err(incomplete(origin, "arrays of one length", &found));
    }
    let errors = run.errors.unwrap_or_default();
    let mut sent = Vec::with_capacity(starts.len());
    for (index, start) in starts.iter().enumerate() {
        if errors.get(index).is_none_or(|error| !error.any) {
            sent.push(Sent {
                start: start_of(*start, origin)?,
                prompt_tokens: prompts[index],
                output_tokens: outputs[index],
            });
        }
    }
    let failed = starts.len() - sent.len();
    let notes = (failed > 0).then(|| format!("{failed} failed requests left out: their answers' lengths are unknown"));
    Ok(BenchmarkSource {
        sent: sent.into_iter(),
        notes: notes.into_iter().collect(),
    })
}

pub(super) fn guidellm(input: impl BufRead, origin: &str) -> Result<BenchmarkSource, TraceError> {
    let report: GuidellmReport = document(input, origin, "a report of GuideLLM (`benchmarks.json`)")?;
    let mut sent = Vec::new();
    let mut left_out = 0;
    let benchmarks = report.benchmarks.len();
    for GuidellmBenchmark { requests } in report.benchmarks {
        left_out += requests.incomplete.map_or(0, |them| them.len()) + requests.errored.map_or(0, |them| them.len());
        for request in requests.successful.unwrap_or_default() {
            match (
                request.request_start_time.or(request.start_time),
                request.prompt_tokens,
                request.output_tokens,
            ) {
                (Some(start), Some(prompt_tokens), Some(output_tokens)) => sent.push(Sent {
                    start: start_of(start, origin)?,
                    prompt_tokens,
                    output_tokens,
                }),
                _ => left_out += 1,
            }
        }
    }
    let mut notes = Vec::new();
    if left_out > 0 {
        notes.push(format!(
            "{left_out} requests left out that failed, were cut off, or were not timed and counted"
        ));
    }
    if benchmarks > 1 {
        notes.push(format!("{benchmarks} benchmarks, one after the other as they ran"));
    }
    // Requests are listed as they ended.
    sent.sort_by_key(|sent: &Sent| sent.start);
    Ok(BenchmarkSource {
        sent: sent.into_iter(),
        notes,
    })
}

#[cfg(test)]
mod tests {
    use crate::{ReadOptions, Workload, WorkloadFormat, WorkloadReader};
    use equipoise_types::Timestamp;

    const VLLM: &str = r#"{"date": "20260101-000000", "backend": "vllm", "num_prompts": 3, "request_rate": 2.0,
        "duration": 3.5, "completed": 2, "failed": 1, "input_lens": [20, 300, 7], "output_lens": [5, 60, 0],
        "ttfts": [0.1, 0.2, 0.0], "itls": [[0.01, 0.02], [], []], "start_times": [1000.5, 1001.75, 1002.0],
        "generated_texts": ["a \"quote\"", "b", ""], "errors": ["", "", "timed out"]}"#;

    const GUIDELLM: &str = r#"{"metadata": {"version": 2, "guidellm_version": "0.5"}, "config": {"profile": {}},
        "benchmarks": [{"type_": "generative_benchmark", "requests": {
            "successful": [
                {"request_id": "b", "request_start_time": 1700000002.5, "prompt_tokens": 30, "output_tokens": 6},
                {"request_id": "a", "request_start_time": 1700000000.0, "prompt_tokens": 10, "output_tokens": 4},
                {"request_id": "c", "request_start_time": null, "prompt_tokens": 10, "output_tokens": 4}],
            "incomplete": [{"request_id": "d"}], "errored": [], "total": null}},
        {"requests": {"successful": [{"start_time": 1700000010.0, "prompt_tokens": 1, "output_tokens": 2}]}}]}"#;

    fn read(text: &str) -> Workload {
        Workload::read(text.as_bytes(), "run", &ReadOptions::default()).expect("well formed")
    }

    fn error_of(text: &str) -> String {
        Workload::read(text.as_bytes(), "run", &ReadOptions::default())
            .expect_err("malformed")
            .to_string()
    }

    #[test]
    fn a_run_of_vllm_is_a_workload() {
        let workload = read(VLLM);
        let [first, second] = workload.records.as_slice() else {
            panic!("two succeeded: {workload:?}")
        };
        assert_eq!((first.prompt_tokens, first.output_tokens), (20, 5));
        assert_eq!(second.arrival, Timestamp(1_250_000_000));
        assert!(
            workload.notes[0].starts_with("1 failed requests left out"),
            "{:?}",
            workload.notes
        );
    }

    #[test]
    fn what_a_run_of_vllm_lacks_is_named() {
        assert!(error_of(&VLLM.replace("start_times", "starts")).contains("no `start_times`"));
        assert!(error_of(&VLLM.replace("input_lens", "inputs")).contains("--save-detailed"));
        assert!(error_of(&VLLM.replace("[20, 300, 7]", "[20, 300]")).contains("2 input_lens, 3 output_lens"));
        assert!(error_of(&VLLM.replace("1000.5", "-1.0")).contains("seconds"));
        assert!(error_of(&format!("{VLLM}\n{VLLM}")).contains("run:5: expected one result"));
        assert!(error_of(&VLLM.replace("[20, 300, 7]", "[20, x]")).starts_with("run:2: expected"));
    }

    #[test]
    fn a_report_of_guidellm_is_a_workload() {
        let workload = read(GUIDELLM);
        let seen: Vec<(u64, u32)> = workload
            .records
            .iter()
            .map(|record| (record.arrival.0 / 1_000_000, record.prompt_tokens))
            .collect();
        assert_eq!(seen, [(0, 10), (2500, 30), (10_000, 1)]);
        assert!(
            workload.notes[0].starts_with("2 requests left out"),
            "{:?}",
            workload.notes
        );
        let options = ReadOptions::default();
        let reader = WorkloadReader::new(GUIDELLM.as_bytes(), "run", &options).expect("known");
        assert_eq!(reader.format(), WorkloadFormat::GuidellmJson);
        assert!(error_of(&GUIDELLM.replace("\"requests\"", "\"calls\"")).contains("missing field `requests`"));
    }
}
