//! The answer to `GET /v1/models`.

use serde::{Deserialize, Serialize};

/// The list of models that are served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelList {
    /// Always `list`.
    #[serde(default = "list")]
    pub object: String,
    /// One card per model.
    pub data: Vec<ModelCard>,
}

/// One served model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelCard {
    /// The name that clients put in `model`.
    pub id: String,
    /// Always `model`.
    #[serde(default = "model")]
    pub object: String,
    /// Seconds since the Unix epoch.
    #[serde(default)]
    pub created: u64,
    /// Who serves it.
    #[serde(default)]
    pub owned_by: String,
    /// Longest prompt and answer together, tokens (vLLM's addition).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_model_len: Option<u32>,
}

fn list() -> String {
    "list".to_owned()
}

fn model() -> String {
    "model".to_owned()
}

impl ModelList {
    /// A list of `data`.
    #[must_use]
    pub fn new(data: Vec<ModelCard>) -> Self {
        Self { object: list(), data }
    }

    /// As JSON bytes.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        crate::json::to_vec(self)
    }
}

impl ModelCard {
    /// A card with the fixed members filled in.
    #[must_use]
    pub fn new(id: impl Into<String>, owned_by: impl Into<String>, created: u64, max_model_len: Option<u32>) -> Self {
        Self {
            id: id.into(),
            object: model(),
            created,
            owned_by: owned_by.into(),
            max_model_len,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_survives_the_wire_and_vllm_s_is_understood() {
        let list = ModelList::new(vec![ModelCard::new("tiny", "equipoise", 7, Some(2048))]);
        let text = String::from_utf8(list.to_json()).expect("JSON is UTF-8");
        assert_eq!(
            text,
            r#"{"object":"list","data":[{"id":"tiny","object":"model","created":7,"owned_by":"equipoise","max_model_len":2048}]}"#
        );
        let real = r#"{"object":"list","data":[{"id":"tiny","object":"model","created":1795504992,"owned_by":"vllm",
            "root":"/x","parent":null,"max_model_len":2048,"permission":[{"id":"modelperm-1"}]}]}"#;
        let parsed: ModelList = serde_json::from_str(real).expect("a model list");
        assert_eq!(parsed.data[0].max_model_len, Some(2048));
    }
}
