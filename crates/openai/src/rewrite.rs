//! Rewriting one member of a request body in place: every other byte stays as the client wrote it.

use crate::json::{Member, members, to_vec};
use bytes::Bytes;
use std::ops::Range;

/// Why a body could not be rewritten.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RewriteError {
    /// Not a JSON object.
    #[error("the request body is not a JSON object: it breaks at byte {offset}")]
    NotAnObject {
        /// Where it stops being one.
        offset: usize,
    },
    /// The member to replace is not there.
    #[error("the request body has no top-level member `{member}` to replace")]
    Missing {
        /// The member's name.
        member: &'static str,
    },
    /// `stream_options` is neither an object nor null.
    #[error("stream_options must be an object such as {{\"include_usage\": true}}, or null")]
    StreamOptionsType,
}

/// The body with the value of every top-level `model` member replaced by `name`.
///
/// Meant for a body that [`crate::RequestHead::parse`] has accepted; what is inside other members is not looked at.
///
/// # Errors
/// The body is not a JSON object or has no top-level `model`.
pub fn with_model(body: &Bytes, name: &str) -> Result<Bytes, RewriteError> {
    let top = top_level(body)?;
    let replacement = to_vec(&name);
    let edits: Vec<Edit> = named(&top, body, "model")
        .map(|member| Edit {
            at: member.value.clone(),
            with: replacement.clone(),
        })
        .collect();
    if edits.is_empty() {
        return Err(RewriteError::Missing { member: "model" });
    }
    Ok(splice(body, &edits))
}

/// The body with `stream_options.include_usage` true, so that the stream ends with a chunk of token counts.
///
/// Call it for a streaming request only ([`crate::RequestHead::needs_stream_usage`]): engines refuse `stream_options`
/// without `stream`. The extra chunk is recognised by [`crate::ChunkSummary::is_usage_only`] and must be hidden from
/// a client that did not ask for it. Options that have `continuous_usage_stats` come back unchanged, because there
/// `include_usage` would add counts to every chunk. (vLLM moves `system_fingerprint` to the extra chunk: that is the one
/// thing a client can miss.)
///
/// # Errors
/// The body is not a JSON object, or its `stream_options` is neither an object nor null.
pub fn with_stream_usage(body: &Bytes) -> Result<Bytes, RewriteError> {
    const OPTIONS: &str = r#"{"include_usage":true}"#;
    let top = top_level(body)?;
    let mut edits = Vec::new();
    for member in named(&top, body, "stream_options") {
        match &body[member.value.clone()] {
            b"null" => edits.push(Edit::new(member.value.clone(), OPTIONS)),
            [b'{', ..] => edits.extend(options_edits(body, member.value.clone())?),
            _ => return Err(RewriteError::StreamOptionsType),
        }
    }
    if named(&top, body, "stream_options").next().is_none() {
        edits.push(insertion(
            body,
            0,
            top.is_empty(),
            &format!("\"stream_options\":{OPTIONS}"),
        ));
    }
    Ok(splice(body, &edits))
}

fn options_edits(body: &[u8], object: Range<usize>) -> Result<Vec<Edit>, RewriteError> {
    let start = object.start;
    let options = members(body, object).map_err(|offset| RewriteError::NotAnObject { offset })?;
    if named(&options, body, "continuous_usage_stats").next().is_some() {
        return Ok(Vec::new());
    }
    let set: Vec<&Member> = named(&options, body, "include_usage").collect();
    if set.is_empty() {
        return Ok(vec![insertion(
            body,
            start,
            options.is_empty(),
            r#""include_usage":true"#,
        )]);
    }
    let not_true = set.into_iter().filter(|member| &body[member.value.clone()] != b"true");
    Ok(not_true.map(|member| Edit::new(member.value.clone(), "true")).collect())
}

/// Puts `member` first into the object whose brace is the first at or after `from`.
pub(crate) fn insertion(body: &[u8], from: usize, empty: bool, member: &str) -> Edit {
    let brace = body[from..]
        .iter()
        .position(|&byte| byte == b'{')
        .map_or(from, |offset| from + offset + 1);
    let comma = if empty { "" } else { "," };
    Edit::new(brace..brace, &format!("{member}{comma}"))
}

pub(crate) struct Edit {
    at: Range<usize>,
    with: Vec<u8>,
}

impl Edit {
    pub(crate) fn new(at: Range<usize>, with: &str) -> Self {
        Self {
            at,
            with: with.as_bytes().to_vec(),
        }
    }
}

pub(crate) fn top_level(body: &[u8]) -> Result<Vec<Member>, RewriteError> {
    members(body, 0..body.len()).map_err(|offset| RewriteError::NotAnObject { offset })
}

pub(crate) fn named<'a>(list: &'a [Member], body: &'a [u8], name: &'a str) -> impl Iterator<Item = &'a Member> {
    list.iter().filter(move |member| member.is_named(body, name))
}

/// Applies edits that are in order and do not overlap.
pub(crate) fn splice(body: &Bytes, edits: &[Edit]) -> Bytes {
    if edits.is_empty() {
        return body.clone();
    }
    let grown: usize = edits.iter().map(|edit| edit.with.len()).sum();
    let mut out = Vec::with_capacity(body.len() + grown);
    let mut copied = 0;
    for edit in edits {
        out.extend_from_slice(&body[copied..edit.at.start]);
        out.extend_from_slice(&edit.with);
        copied = edit.at.end;
    }
    out.extend_from_slice(&body[copied..]);
    Bytes::from(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Map, Value, json};

    fn model(body: &str, name: &str) -> String {
        let out = with_model(&Bytes::copy_from_slice(body.as_bytes()), name).expect("rewritable");
        String::from_utf8(out.to_vec()).expect("UTF-8")
    }

    fn usage(body: &str) -> String {
        let out = with_stream_usage(&Bytes::copy_from_slice(body.as_bytes())).expect("rewritable");
        String::from_utf8(out.to_vec()).expect("UTF-8")
    }

    #[test]
    fn only_the_model_s_bytes_change() {
        assert_eq!(
            model(
                " {\"x\":{\"model\":\"a\"},\r\n \"model\" :\t\"au\\u0074o\\\"\" , \"n\":1.00}\n",
                "m/\"1\""
            ),
            " {\"x\":{\"model\":\"a\"},\r\n \"model\" :\t\"m/\\\"1\\\"\" , \"n\":1.00}\n"
        );
    }

    #[test]
    fn every_spelling_and_every_duplicate_is_replaced() {
        assert_eq!(
            model(r#"{"model":"a","mod\u0065l":null}"#, "b"),
            r#"{"model":"b","mod\u0065l":"b"}"#
        );
    }

    #[test]
    fn what_cannot_be_rewritten_is_refused() {
        let refused = |body: &'static str| with_model(&Bytes::from(body), "m");
        assert_eq!(refused(r#"{"x":1}"#), Err(RewriteError::Missing { member: "model" }));
        assert_eq!(refused("[]"), Err(RewriteError::NotAnObject { offset: 0 }));
        assert_eq!(
            with_stream_usage(&Bytes::from(r#"{"stream_options":3}"#)),
            Err(RewriteError::StreamOptionsType)
        );
    }

    #[test]
    fn usage_is_asked_for_in_every_form_of_the_options() {
        assert_eq!(
            usage(r#" {"a":1}"#),
            r#" {"stream_options":{"include_usage":true},"a":1}"#
        );
        assert_eq!(usage("{ }"), r#"{"stream_options":{"include_usage":true} }"#);
        assert_eq!(
            usage(r#"{"stream_options": null}"#),
            r#"{"stream_options": {"include_usage":true}}"#
        );
        assert_eq!(
            usage(r#"{"stream_options":{ "x":1}}"#),
            r#"{"stream_options":{"include_usage":true, "x":1}}"#
        );
        assert_eq!(
            usage(r#"{"stream_options":{"include_usage":false}}"#),
            r#"{"stream_options":{"include_usage":true}}"#
        );
        for unchanged in [
            r#"{"stream_options":{"include_usage": true}}"#,
            r#"{"stream_options":{"continuous_usage_stats":true}}"#,
        ] {
            assert_eq!(usage(unchanged), unchanged);
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                proptest::collection::vec((any_key(), inner), 0..5)
                    .prop_map(|members| Value::Object(members.into_iter().collect::<Map<_, _>>())),
            ]
        })
    }

    fn any_key() -> impl Strategy<Value = String> {
        prop_oneof![
            Just("model".to_owned()),
            Just("stream_options".to_owned()),
            any::<String>()
        ]
    }

    fn any_body() -> impl Strategy<Value = (Value, Bytes)> {
        let members = proptest::collection::vec((any::<String>(), any_json()), 0..6);
        (members, any::<String>(), any::<bool>()).prop_map(|(members, model, pretty)| {
            let mut object: Map<String, Value> = members.into_iter().collect();
            object.insert("model".to_owned(), Value::from(model));
            object.remove("stream_options");
            let value = Value::Object(object);
            let text = if pretty {
                serde_json::to_vec_pretty(&value)
            } else {
                serde_json::to_vec(&value)
            };
            (value, Bytes::from(text.expect("serializes")))
        })
    }

    proptest! {
        #[test]
        fn only_that_member_s_value_changes((mut value, body) in any_body(), name in any::<String>()) {
            let out = with_model(&body, &name).expect("an object with a model");
            value["model"] = Value::from(name);
            prop_assert_eq!(serde_json::from_slice::<Value>(&out).expect("still JSON"), value);
        }

        #[test]
        fn only_stream_options_are_added((mut value, body) in any_body()) {
            let out = with_stream_usage(&body).expect("an object");
            value["stream_options"] = json!({"include_usage": true});
            prop_assert_eq!(serde_json::from_slice::<Value>(&out).expect("still JSON"), value);
            prop_assert_eq!(with_stream_usage(&out).expect("an object"), out);
        }

        #[test]
        fn broken_bodies_never_panic(bytes in "[\\{\\}\\[\\]\",:\\\\model1 ]{0,60}") {
            let body = Bytes::from(bytes.into_bytes());
            let _ = (with_model(&body, "m").is_ok(), with_stream_usage(&body).is_ok());
        }
    }
}
