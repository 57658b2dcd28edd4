//! Vectors, scores and classes, made up from the text: the same text gives the same vector, and texts that share pieces are
//! near one another, so that a ranking looks sensible.

use crate::refusal;
use equipoise_openai::Endpoint;
use serde_json::{Value, json};

/// Dimensions of a vector, unless fewer or more are asked for.
const DIMENSIONS: usize = 256;
const MOST_DIMENSIONS: u64 = 8192;
/// Bytes of a piece of text that counts as a feature.
const PIECE: usize = 3;

/// What a request to a pooling endpoint asks for.
#[derive(Debug)]
pub(crate) struct Question {
    endpoint: Endpoint,
    body: Value,
    texts: Vec<String>,
}

type Refused = Box<http::Response<crate::body::AnswerBody>>;

fn wrong(param: &'static str, message: impl Into<String>) -> Refused {
    Box::new(refusal::bad_request(Some(param), message))
}

impl Question {
    /// Reads one that has been found to be well formed.
    pub(crate) fn read(endpoint: Endpoint, body: &[u8]) -> Result<Self, Refused> {
        let body: Value = serde_json::from_slice(body).map_err(|error| wrong("body", error.to_string()))?;
        let of = |names: &[&'static str]| -> Result<Vec<String>, Refused> {
            let found = names
                .iter()
                .find_map(|name| body.get(name).filter(|value| !value.is_null()));
            let found = found.ok_or_else(|| wrong(names[0], format!("Field required: {}", names.join(" or "))))?;
            Ok(texts(found))
        };
        let texts = match endpoint {
            Endpoint::Rerank | Endpoint::RerankV1 | Endpoint::RerankV2 => {
                let query = of(&["query"])?.concat();
                [vec![query], of(&["documents"])?].concat()
            }
            Endpoint::Score | Endpoint::ScoreV1 => {
                let left = of(&["queries", "text_1", "data_1"])?;
                let right = of(&["documents", "items", "text_2", "data_2"])?;
                pairs(left, right)?
            }
            _ => of(&["input", "messages"])?,
        };
        Ok(Self { endpoint, body, texts })
    }

    /// The answer, with the tokens that were counted.
    pub(crate) fn answer(&self, id: &str, model: &str, created: u64, tokens: u32) -> Result<String, Refused> {
        let usage = json!({
            "prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0, "prompt_tokens_details": null,
        });
        let answer = match self.endpoint {
            Endpoint::Rerank | Endpoint::RerankV1 | Endpoint::RerankV2 => json!({
                "id": format!("rerank-{id}"), "model": model, "results": self.ranking(),
                "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
            }),
            Endpoint::Score | Endpoint::ScoreV1 => json!({
                "id": format!("score-{id}"), "object": "list", "created": created, "model": model, "usage": usage,
                "data": self.scores(),
            }),
            Endpoint::Classify => json!({
                "id": format!("classify-{id}"), "object": "list", "created": created, "model": model, "usage": usage,
                "data": self.classes(),
            }),
            _ => {
                let (object, prefix) = match self.endpoint {
                    Endpoint::Pooling => ("pooling", "pool"),
                    _ => ("embedding", "embd"),
                };
                json!({
                    "id": format!("{prefix}-{id}"), "object": "list", "created": created, "model": model, "usage": usage,
                    "data": self.vectors(object)?,
                })
            }
        };
        Ok(answer.to_string())
    }

    fn vectors(&self, object: &str) -> Result<Vec<Value>, Refused> {
        let dimensions = match self.body.get("dimensions").filter(|value| !value.is_null()) {
            None => DIMENSIONS,
            Some(asked) => {
                let asked = asked.as_u64().filter(|asked| (1..=MOST_DIMENSIONS).contains(asked));
                asked.ok_or_else(|| wrong("dimensions", format!("dimensions must be from 1 to {MOST_DIMENSIONS}")))?
                    as usize
            }
        };
        let encoded = self.body.get("encoding_format").and_then(Value::as_str) == Some("base64");
        let named = if object == "pooling" { "data" } else { "embedding" };
        let rows = self.texts.iter().enumerate().map(|(index, text)| {
            let vector = vector(text, dimensions);
            let value = if encoded {
                let bytes: Vec<u8> = vector.iter().flat_map(|value| value.to_le_bytes()).collect();
                Value::from(base64(&bytes))
            } else {
                Value::from(vector)
            };
            json!({"index": index, "object": object, named: value})
        });
        Ok(rows.collect())
    }

    fn ranking(&self) -> Vec<Value> {
        let Some((query, documents)) = self.texts.split_first() else {
            return Vec::new();
        };
        let mut scored: Vec<(usize, f32)> = documents.iter().map(|text| likeness(query, text)).enumerate().collect();
        scored.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        let most = self.body.get("top_n").and_then(Value::as_u64).filter(|most| *most > 0);
        scored.truncate(most.map_or(usize::MAX, |most| most as usize));
        let row = |(index, score): (usize, f32)| {
            json!({
                "index": index, "document": {"text": documents[index], "multi_modal": null}, "relevance_score": score,
            })
        };
        scored.into_iter().map(row).collect()
    }

    fn scores(&self) -> Vec<Value> {
        let scores = self.texts.chunks_exact(2).map(|pair| likeness(&pair[0], &pair[1]));
        scores
            .enumerate()
            .map(|(index, score)| json!({"index": index, "object": "score", "score": score}))
            .collect()
    }

    fn classes(&self) -> Vec<Value> {
        let row = |(index, text): (usize, &String)| {
            let first = (1.0 + vector(text, 1)[0].clamp(-1.0, 1.0) * 0.8) / 2.0;
            let label = if first >= 0.5 { "LABEL_0" } else { "LABEL_1" };
            json!({"index": index, "label": label, "probs": [first, 1.0 - first], "num_classes": 2})
        };
        self.texts.iter().enumerate().map(row).collect()
    }
}

/// Left and right one by one, or one against all.
fn pairs(left: Vec<String>, right: Vec<String>) -> Result<Vec<String>, Refused> {
    if left.len() == right.len() {
        return Ok(left.into_iter().zip(right).flat_map(|(a, b)| [a, b]).collect());
    }
    match left.as_slice() {
        [one] => Ok(right.into_iter().flat_map(|other| [one.clone(), other]).collect()),
        _ => Err(wrong("text_2", "Input lengths must be either 1:1, 1:N or N:N")),
    }
}

/// Every text of a value: of a list each, of token ids their decimal form, of an object what is written in it.
fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::Array(list) if list.iter().any(Value::is_number) => vec![value.to_string()],
        Value::Array(list) => list.iter().map(written).collect(),
        _ => vec![written(value)],
    }
}

fn written(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Object(members) => {
            let parts = ["text", "content"].into_iter().filter_map(|name| members.get(name));
            parts.map(written).collect()
        }
        Value::Array(list) if !list.iter().any(Value::is_number) => list.iter().map(written).collect(),
        other => other.to_string(),
    }
}

/// A unit vector: each piece of the text adds to one dimension.
fn vector(text: &str, dimensions: usize) -> Vec<f32> {
    let lower = text.to_lowercase();
    let mut vector = vec![0.0_f32; dimensions];
    let bytes = [b" ", lower.as_bytes(), b" "].concat();
    for piece in bytes.windows(PIECE) {
        let hash = piece.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        let mixed = hash ^ (hash >> 31);
        let sign = if mixed & 1 == 0 { 1.0 } else { -1.0 };
        vector[((mixed >> 1) % dimensions as u64) as usize] += sign;
    }
    let length = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|value| *value /= length);
    }
    vector
}

/// From 0, nothing in common, to 1, the same.
fn likeness(a: &str, b: &str) -> f32 {
    let (a, b) = (vector(a, DIMENSIONS), vector(b, DIMENSIONS));
    let cosine: f32 = a.iter().zip(&b).map(|(a, b)| a * b).sum();
    cosine.clamp(0.0, 1.0)
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let byte = |index: usize| group.get(index).copied().unwrap_or(0);
        let bits = u32::from_be_bytes([0, byte(0), byte(1), byte(2)]);
        for (index, shift) in [18, 12, 6, 0].into_iter().enumerate() {
            let digit = DIGITS[((bits >> shift) & 63) as usize];
            text.push(if index <= group.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_as_in_the_rfc() {
        for (plain, encoded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
    }

    #[test]
    fn what_is_alike_is_near() {
        let (same, near, far) = (
            likeness("the cat sat", "The cat sat"),
            likeness("the cat sat", "a cat sat down"),
            likeness("the cat sat", "quantum flux"),
        );
        assert!(same > 0.999 && near > far, "{same} {near} {far}");
        let length: f32 = vector("some text", 64).iter().map(|value| value * value).sum();
        assert!((length - 1.0).abs() < 1e-5);
    }
}
