//! Formats of workload files, their names, and how to tell them from a file's first bytes.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};

/// A format of workload files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkloadFormat {
    /// CSV of Azure's public traces of 2023 and 2024: `TIMESTAMP,ContextTokens,GeneratedTokens`.
    AzureCsv,
    /// CSV of BurstGPT: `Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type`, release 2 with
    /// `Session ID,Elapsed time`.
    BurstGptCsv,
    /// JSON lines of Mooncake: `{"timestamp": ms, "input_length", "output_length", "hash_ids"}`.
    MooncakeJsonl,
    /// Our JSON lines: `{"arrival_s", "prompt_tokens", "output_tokens", "prefix_blocks"?, "tenant"?, "prompt_id"?}`.
    EquipoiseJsonl,
    /// Our Parquet files, see [`crate::WorkloadWriter`] for the columns.
    Parquet,
    /// A set of ServeGen clients, from which a workload is generated: a folder, or a tar archive of one.
    ServeGen,
    /// What `vllm bench serve --save-result --save-detailed` saves.
    VllmJson,
    /// What GuideLLM saves as `benchmarks.json`.
    GuidellmJson,
}

impl WorkloadFormat {
    /// Every format.
    pub const ALL: [Self; 8] = [
        Self::AzureCsv,
        Self::BurstGptCsv,
        Self::MooncakeJsonl,
        Self::EquipoiseJsonl,
        Self::Parquet,
        Self::ServeGen,
        Self::VllmJson,
        Self::GuidellmJson,
    ];

    /// Its name on a command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::AzureCsv => "azure",
            Self::BurstGptCsv => "burstgpt",
            Self::MooncakeJsonl => "mooncake",
            Self::EquipoiseJsonl => "jsonl",
            Self::Parquet => "parquet",
            Self::ServeGen => "servegen",
            Self::VllmJson => "vllm",
            Self::GuidellmJson => "guidellm",
        }
    }

    /// The format to write for a file's extension: `.parquet`, `.jsonl` (ours).
    #[must_use]
    pub fn of_extension(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "parquet" => Some(Self::Parquet),
            "jsonl" | "ndjson" => Some(Self::EquipoiseJsonl),
            _ => None,
        }
    }

    /// Whether its times count from an epoch of their own (1970, a process's start): the first request is then at zero.
    pub(crate) fn has_own_epoch(self) -> bool {
        matches!(self, Self::AzureCsv | Self::VllmJson | Self::GuidellmJson)
    }

    /// The format by a file's first bytes, tens of kilobytes if it has them.
    pub(crate) fn detect(head: &[u8]) -> Option<Self> {
        if head.starts_with(b"PAR1") {
            return Some(Self::Parquet);
        }
        // The mark of a tar archive: POSIX.1-1988 and GNU alike.
        if head.get(257..262) == Some(b"ustar") {
            return Some(Self::ServeGen);
        }
        let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start();
        if head.first() == Some(&b'{') {
            return Self::of_keys(&top_level_keys(head));
        }
        let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let line = String::from_utf8_lossy(line).to_ascii_lowercase();
        if line.contains("contexttokens") {
            return Some(Self::AzureCsv);
        }
        line.contains("request tokens").then_some(Self::BurstGptCsv)
    }

    fn of_keys(keys: &[String]) -> Option<Self> {
        let has = |name: &str| keys.iter().any(|key| key == name);
        if has("input_length") {
            Some(Self::MooncakeJsonl)
        } else if has("arrival_s") || has("prompt_tokens") {
            Some(Self::EquipoiseJsonl)
        } else if has("input_lens") || has("num_prompts") {
            Some(Self::VllmJson)
        } else if has("benchmarks") || (has("metadata") && (has("config") || has("args"))) {
            Some(Self::GuidellmJson)
        } else {
            None
        }
    }
}

impl fmt::Display for WorkloadFormat {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// A name that no format has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no format is called `{name}`; there are azure, burstgpt, mooncake, jsonl (ours), parquet, servegen, vllm, guidellm"
)]
pub struct UnknownFormatName {
    /// As given.
    pub name: String,
}

impl FromStr for WorkloadFormat {
    type Err = UnknownFormatName;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|format| format.name() == name);
        found.ok_or_else(|| UnknownFormatName { name: name.to_owned() })
    }
}

/// The keys of a JSON object that may be cut off: those that begin before the cut.
fn top_level_keys(head: &[u8]) -> Vec<String> {
    struct Keys<'a>(&'a mut Vec<String>);

    impl<'de> Visitor<'de> for Keys<'_> {
        type Value = ();

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("an object")
        }

        fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<(), M::Error> {
            while let Some(key) = map.next_key::<String>()? {
                self.0.push(key);
                map.next_value::<IgnoredAny>()?;
            }
            Ok(())
        }
    }

    impl<'de> DeserializeSeed<'de> for Keys<'_> {
        type Value = ();

        fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
            deserializer.deserialize_map(self)
        }
    }

    let mut keys = Vec::new();
    // Where the object is cut off this fails; what was seen until then is what is wanted.
    drop(Keys(&mut keys).deserialize(&mut serde_json::Deserializer::from_slice(head)));
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        for format in WorkloadFormat::ALL {
            assert_eq!(format.to_string().parse(), Ok(format));
        }
        let error = "xml".parse::<WorkloadFormat>().expect_err("no such format").to_string();
        for format in WorkloadFormat::ALL {
            assert!(error.contains(format.name()), "{error}");
        }
    }

    #[test]
    fn a_document_that_is_cut_off_shows_its_first_keys() {
        let detect = |text: &str| WorkloadFormat::detect(text.as_bytes());
        assert_eq!(
            detect("{\"date\": \"x\", \"num_prompts\": 3, \"input_le"),
            Some(WorkloadFormat::VllmJson)
        );
        assert_eq!(
            detect("\u{feff} {\n  \"metadata\": {\"input_length\": 1}, \"config\": {\"a\": [1, "),
            Some(WorkloadFormat::GuidellmJson)
        );
        assert_eq!(detect("{\"a\": {\"prompt_tokens\": 1}}"), None);
        assert_eq!(
            detect("Timestamp,Model,Request tokens,R"),
            Some(WorkloadFormat::BurstGptCsv)
        );
        assert_eq!(detect("PAR1..."), Some(WorkloadFormat::Parquet));
    }
}
