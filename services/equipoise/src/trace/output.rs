//! The file that a trace is written to: whole, or not there.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use equipoise_trace::{WorkloadFormat, WorkloadRecord, WorkloadWriter};

use super::say_progress;

/// Writes beside the file and moves it into place when it is whole.
pub(super) struct Output {
    writer: Option<WorkloadWriter<BufWriter<File>>>,
    path: PathBuf,
    partial: PathBuf,
}

impl Output {
    /// Begins `path`, in `format` or as its extension says.
    pub(super) fn create(path: &Path, format: Option<WorkloadFormat>) -> anyhow::Result<Self> {
        let Some(format) = format.or_else(|| WorkloadFormat::of_extension(path)) else {
            bail!(
                "{}: in which format? Call it .parquet or .jsonl, or say --to",
                path.display()
            );
        };
        if path.is_dir() {
            bail!("{} is a directory: name a file in it", path.display());
        }
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let file = File::create(&partial).with_context(|| format!("cannot write {}", partial.display()))?;
        let origin = path.display().to_string();
        let writer = WorkloadWriter::new(BufWriter::with_capacity(1 << 16, file), &origin, format);
        let mut output = Self {
            writer: None,
            path: path.to_owned(),
            partial,
        };
        output.writer = Some(writer?);
        Ok(output)
    }

    pub(super) fn write(&mut self, record: WorkloadRecord) -> anyhow::Result<()> {
        if let Some(writer) = &mut self.writer {
            writer.write(record)?;
            say_progress(writer.written());
        }
        Ok(())
    }

    /// Moves the file into place and says how many requests are in it.
    pub(super) fn finish(mut self) -> anyhow::Result<u64> {
        let Some(writer) = self.writer.take() else { return Ok(0) };
        let written = writer.written();
        if written == 0 {
            bail!("{}: not written, there is no request for it", self.path.display());
        }
        writer.finish()?;
        std::fs::rename(&self.partial, &self.path)
            .with_context(|| format!("cannot move {} into place", self.partial.display()))?;
        Ok(written)
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        // Gone already if it was moved into place.
        drop(std::fs::remove_file(&self.partial));
    }
}
