//! What a router's doors are told: what to do with personal data, and with which certificates they answer.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

/// `[pii]`: requests whose text looks like personal data stay where they may, or are refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PiiSettings {
    /// Built-in detectors, by name; absent: all of them.
    pub detectors: Option<Vec<String>>,
    /// Detectors of one's own.
    pub custom: Vec<CustomPattern>,
    /// What is done with a request in which one of them finds something.
    pub action: PiiAction,
    /// Labels that an instance must carry to get such a request, whatever it asks for.
    pub labels: BTreeMap<String, String>,
    /// Most bytes of text that are read of one request; one with more is treated as if something had been found.
    pub scan_bytes: Option<usize>,
}

/// `[[pii.custom]]`: a regular expression, in the syntax of the `regex` crate; it runs in linear time.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CustomPattern {
    /// For the metric.
    pub name: String,
    /// What is looked for.
    pub pattern: String,
}

/// What happens to a request with personal data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PiiAction {
    /// It goes only to instances with the labels.
    #[default]
    Restrict,
    /// It is refused.
    Refuse,
}

/// `[engine_tls]`: how engines with an `https://` endpoint are spoken to. Files in PEM; all may be left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EngineTlsSettings {
    /// The authorities of their certificates; absent: those of the system.
    pub ca: Option<PathBuf>,
    /// A certificate to show to engines that ask for one.
    pub cert: Option<PathBuf>,
    /// Its private key.
    pub key: Option<PathBuf>,
}

/// `[tls]`: the public listener speaks TLS. Files in PEM; what changes on disk is taken over without a restart.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsSettings {
    /// The certificate, and those that lead from it to the authority.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Authorities of clients: with it, who has no certificate of theirs is not let in.
    #[serde(default)]
    pub client_ca: Option<PathBuf>,
}
