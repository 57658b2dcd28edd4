//! The gate for personal data: the text of a request is looked through before anything else reads it, and where something is
//! found the request stays where its operator wants it, or goes nowhere. Nothing of the text leaves this file but the names
//! of the detectors.

mod checked;
mod detector;
mod written;

use std::collections::BTreeMap;

use equipoise_config::{PiiAction, PiiSettings};
use equipoise_openai::ErrorResponse;
use equipoise_policy::Wishes;
use regex::{Regex, RegexBuilder};

use crate::access::Caller;
use detector::{Detector, built_in, built_in_names};

/// Text of one request that is read unless the settings say otherwise, bytes.
const SCAN_BYTES: usize = 4 << 20;
/// A pattern that compiles to more is a slip of the hand.
const PATTERN_BYTES: usize = 1 << 20;
/// The name of what was found where there was too much to read.
const UNREAD: &str = "unread";

/// Settings that make no sense.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PiiError {
    /// No such detector.
    #[error("[pii]: there is no detector `{name}`; there are {known}")]
    Unknown {
        /// As asked for.
        name: String,
        /// All there are.
        known: String,
    },
    /// A pattern that is none.
    #[error("[pii]: the pattern `{name}` is no regular expression: {reason}")]
    Pattern {
        /// Which.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// Nothing would happen.
    #[error("[pii]: `labels` is empty, so that what is found changes nothing; name labels, or set action = \"refuse\"")]
    NoLabels,
}

/// What was found in a request: detectors by their place in the gate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Found(Vec<usize>);

/// The gate.
pub(crate) struct Pii {
    detectors: Vec<Box<dyn Detector>>,
    action: PiiAction,
    labels: BTreeMap<String, String>,
    scan_bytes: usize,
}

impl std::fmt::Debug for Pii {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&str> = self.detectors.iter().map(|detector| detector.name()).collect();
        f.debug_struct("Pii").field("detectors", &names).finish_non_exhaustive()
    }
}

struct Custom {
    name: String,
    pattern: Regex,
}

impl Detector for Custom {
    fn name(&self) -> &str {
        &self.name
    }

    fn finds(&self, text: &str) -> bool {
        self.pattern.is_match(text)
    }
}

impl Pii {
    pub(crate) fn new(settings: &PiiSettings) -> Result<Self, PiiError> {
        if settings.action == PiiAction::Restrict && settings.labels.is_empty() {
            return Err(PiiError::NoLabels);
        }
        let names = match &settings.detectors {
            Some(names) => names.clone(),
            None => built_in_names().map(str::to_owned).collect(),
        };
        let mut detectors = Vec::new();
        for name in names {
            let detector = built_in(&name).ok_or_else(|| PiiError::Unknown {
                known: built_in_names().collect::<Vec<_>>().join(", "),
                name: name.clone(),
            })?;
            detectors.push(detector);
        }
        for custom in &settings.custom {
            let compiled = RegexBuilder::new(&custom.pattern).size_limit(PATTERN_BYTES).build();
            let pattern = compiled.map_err(|error| PiiError::Pattern {
                name: custom.name.clone(),
                reason: error.to_string(),
            })?;
            detectors.push(Box::new(Custom {
                name: custom.name.clone(),
                pattern,
            }));
        }
        Ok(Self {
            detectors,
            action: settings.action,
            labels: settings.labels.clone(),
            scan_bytes: settings.scan_bytes.unwrap_or(SCAN_BYTES),
        })
    }

    /// Looks through the text of a body, which is JSON. In time that grows with the text, up to the limit; what is beyond it
    /// counts as found.
    fn look(&self, body: &[u8]) -> (Found, bool) {
        let mut found = Found::default();
        let mut left = self.scan_bytes;
        let all_read = written::each_text(body, &mut |text| {
            if text.len() > left {
                return false;
            }
            left -= text.len();
            for (index, detector) in self.detectors.iter().enumerate() {
                if !found.0.contains(&index) && detector.finds(text) {
                    found.0.push(index);
                }
            }
            true
        });
        (found, all_read)
    }

    /// Looks through a request and binds its wishes where something was found. Gives the names of what was, each to be
    /// counted once.
    ///
    /// # Errors
    /// 400 where the request is refused. The error names the detectors, and nothing of the text.
    pub(crate) fn bind(
        &self,
        body: &[u8],
        caller: &Caller,
        wishes: &mut Wishes,
        mut count: impl FnMut(&str),
    ) -> Result<(), Box<ErrorResponse>> {
        let (found, all_read) = self.look(body);
        let mut names: Vec<&str> = found.0.iter().map(|index| self.detectors[*index].name()).collect();
        if !all_read {
            names.push(UNREAD);
        }
        if names.is_empty() {
            return Ok(());
        }
        names.iter().for_each(|name| count(name));
        let names = names.join(", ");
        if self.action == PiiAction::Refuse {
            return Err(Box::new(refused(format!(
                "The request is not served: its text holds what looks like personal data ({names}). Take it out."
            ))));
        }
        for (key, value) in &self.labels {
            // The tenant's own label is put over this one later: two that contradict leave no instance.
            if caller.label(key).is_some_and(|own| own != value) {
                return Err(Box::new(refused(format!(
                    "The request is not served: its text holds what looks like personal data ({names}), for which there is \
                     no place where this tenant's requests go."
                ))));
            }
            wishes.labels.insert(key.clone(), value.clone());
        }
        Ok(())
    }
}

fn refused(message: String) -> ErrorResponse {
    ErrorResponse::invalid_request(message).with_code("personal_data")
}

#[cfg(test)]
mod tests {
    use super::*;
    use equipoise_config::CustomPattern;

    fn settings() -> PiiSettings {
        PiiSettings {
            labels: BTreeMap::from([("residency".to_owned(), "local".to_owned())]),
            ..PiiSettings::default()
        }
    }

    fn look(settings: &PiiSettings, body: &str) -> (Vec<String>, BTreeMap<String, String>, Option<u16>) {
        let pii = Pii::new(settings).expect("sound");
        let mut wishes = Wishes {
            labels: BTreeMap::from([("residency".to_owned(), "anywhere".to_owned())]),
            ..Wishes::default()
        };
        let mut names = Vec::new();
        let bound = pii.bind(body.as_bytes(), &Caller::default(), &mut wishes, |name| {
            names.push(name.to_owned());
        });
        (names, wishes.labels, bound.err().map(|problem| problem.status))
    }

    #[test]
    fn what_is_found_binds_and_a_client_cannot_widen_it() {
        let (names, labels, error) = look(
            &settings(),
            r#"{"messages":[{"content":"write to ann\u0040example.org"}]}"#,
        );
        assert_eq!((names, error), (vec!["email".to_owned()], None));
        assert_eq!(labels["residency"], "local");
        let (names, labels, _) = look(&settings(), r#"{"messages":[{"content":"nobody"}]}"#);
        assert!(names.is_empty() && labels["residency"] == "anywhere");
        // Wherever it stands: in a tool's arguments, a member's name, a bare number.
        for body in [
            r#"{"tools":[{"function":{"description":"mail ann@example.org"}}]}"#,
            r#"{"metadata":{"ann@example.org":1}}"#,
            r#"{"messages":[{"tool_calls":[{"function":{"arguments":"{\"to\":\"ann@example.org\"}"}}]}]}"#,
            r#"{"card":4111111111111111}"#,
        ] {
            assert_eq!(look(&settings(), body).1["residency"], "local", "{body}");
        }
    }

    #[test]
    fn refusing_names_the_detectors_and_not_the_text() {
        let refusing = PiiSettings {
            action: PiiAction::Refuse,
            custom: vec![CustomPattern {
                name: "badge".to_owned(),
                pattern: r"\bE-\d{6}\b".to_owned(),
            }],
            ..PiiSettings::default()
        };
        let pii = Pii::new(&refusing).expect("sound");
        let body = br#"{"input":"badge E-123456 of ann@example.org"}"#;
        let refused = pii.bind(body, &Caller::default(), &mut Wishes::default(), |_| {});
        let message = refused.expect_err("refused").body.message;
        assert!(message.contains("email, badge") && !message.contains("ann") && !message.contains("123456"));
    }

    #[test]
    fn too_much_to_read_counts_as_found() {
        let short = PiiSettings {
            scan_bytes: Some(100),
            ..settings()
        };
        let (names, labels, _) = look(&short, &format!(r#"{{"prompt":"{}"}}"#, "word ".repeat(30)));
        assert_eq!(
            (names, labels["residency"].as_str()),
            (vec![UNREAD.to_owned()], "local")
        );
        // An image is no text.
        let image = format!(r#"{{"url":"data:image/png;base64,{}"}}"#, "A".repeat(500));
        assert!(look(&short, &image).0.is_empty());
    }

    #[test]
    fn nonsense_is_refused_when_it_is_read() {
        assert!(matches!(Pii::new(&PiiSettings::default()), Err(PiiError::NoLabels)));
        let unknown = PiiSettings {
            detectors: Some(vec!["emial".to_owned()]),
            ..settings()
        };
        assert!(Pii::new(&unknown).is_err_and(|error| error.to_string().contains("email, phone")));
        let broken = PiiSettings {
            custom: vec![CustomPattern {
                name: "x".to_owned(),
                pattern: "(".to_owned(),
            }],
            ..settings()
        };
        assert!(matches!(Pii::new(&broken), Err(PiiError::Pattern { .. })));
    }
}
