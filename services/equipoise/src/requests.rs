//! `simulate --requests`: a line for every request, as Parquet.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use anyhow::Context as _;
use equipoise_simulator::{RequestRecord, RequestSink};
use equipoise_trace::{TableKind, TableValue, TableWriter, TraceError};

const COLUMNS: [(&str, TableKind); 18] = [
    ("policy", TableKind::Text),
    ("seed", TableKind::Integer),
    ("request", TableKind::Integer),
    ("arrival_s", TableKind::Real),
    ("tenant", TableKind::Text),
    ("model", TableKind::Text),
    ("instance", TableKind::Text),
    ("ending", TableKind::Text),
    ("prompt_tokens", TableKind::Integer),
    ("cached_tokens", TableKind::Integer),
    ("output_tokens", TableKind::Integer),
    ("ttft_s", TableKind::Real),
    ("e2e_s", TableKind::Real),
    ("energy_mj", TableKind::Integer),
    ("quality", TableKind::Real),
    ("queued", TableKind::Integer),
    ("truncated", TableKind::Integer),
    ("escalated", TableKind::Integer),
];

/// Writes requests of one run after the other.
pub(crate) struct RequestFile {
    table: TableWriter<BufWriter<File>>,
    /// The run that is being written.
    policy: String,
    seed: u64,
    failed: Option<TraceError>,
}

impl RequestFile {
    pub(crate) fn create(path: &Path) -> anyhow::Result<Self> {
        let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self {
            table: TableWriter::new(BufWriter::new(file), &path.display().to_string(), &COLUMNS)?,
            policy: String::new(),
            seed: 0,
            failed: None,
        })
    }

    /// What follows is of this run.
    pub(crate) fn begin(&mut self, policy: &str, seed: u64) {
        policy.clone_into(&mut self.policy);
        self.seed = seed;
    }

    pub(crate) fn finish(self) -> anyhow::Result<()> {
        if let Some(error) = self.failed {
            return Err(error.into());
        }
        self.table.finish()?;
        Ok(())
    }
}

impl RequestSink for RequestFile {
    fn request(&mut self, record: &RequestRecord<'_>) {
        if self.failed.is_some() {
            return;
        }
        let row: [TableValue; COLUMNS.len()] = [
            self.policy.as_str().into(),
            self.seed.into(),
            record.id.0.into(),
            record.arrival.as_secs_f64().into(),
            record.tenant.into(),
            record.model.into(),
            record.instance.into(),
            record.ending.code().into(),
            u64::from(record.prompt_tokens).into(),
            u64::from(record.cached_tokens).into(),
            u64::from(record.output_tokens).into(),
            record.ttft_s.into(),
            record.e2e_s.into(),
            record.energy.0.into(),
            record.quality.into(),
            u64::from(record.queued).into(),
            u64::from(record.truncated).into(),
            u64::from(record.escalated).into(),
        ];
        self.failed = self.table.write(row).err();
    }
}
