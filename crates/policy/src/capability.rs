//! What an engine can do beside answering text with text, and what a request needs of it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The label in which what a pool declares travels to the routers, words with spaces between them.
pub const CAPABILITIES_LABEL: &str = "capabilities";

/// One of them. A closed list: what a request needs is read from its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Capability {
    /// Calls tools.
    Tools,
    /// Reads images.
    Images,
    /// Hears audio.
    Audio,
    /// Answers in a given JSON schema, grammar or choice.
    Structured,
    /// Makes embeddings.
    Embeddings,
}

impl Capability {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Tools,
        Self::Images,
        Self::Audio,
        Self::Structured,
        Self::Embeddings,
    ];

    /// Its name, as declared.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tools => "tools",
            Self::Images => "images",
            Self::Audio => "audio",
            Self::Structured => "structured",
            Self::Embeddings => "embeddings",
        }
    }

    /// True where an instance with these labels has it. One that declares nothing is taken to have everything.
    #[must_use]
    pub fn is_in(self, labels: &BTreeMap<String, String>) -> bool {
        labels
            .get(CAPABILITIES_LABEL)
            .is_none_or(|declared| declared.split(' ').any(|name| name == self.name()))
    }
}
