//! `x-equipoise-*` request headers: what a client wants beyond an answer.

use std::collections::BTreeMap;

use equipoise_openai::ErrorResponse;
use equipoise_policy::{Preset, Weights, Wishes};
use equipoise_types::Timestamp;
use http::HeaderMap;
use std::time::Duration;

/// Who pays.
const TENANT: &str = "x-equipoise-tenant";
const WEIGHTS: &str = "x-equipoise-weights";
const QUALITY_MIN: &str = "x-equipoise-quality-min";
const TTFT_SLO_MS: &str = "x-equipoise-ttft-slo-ms";
const E2E_SLO_MS: &str = "x-equipoise-e2e-slo-ms";
const SLO_CONFIDENCE: &str = "x-equipoise-slo-confidence";
const COST_MAX_USD: &str = "x-equipoise-cost-max-usd";
const LABELS: &str = "x-equipoise-labels";
const PRIORITY: &str = "x-equipoise-priority";
const DEADLINE_MS: &str = "x-equipoise-deadline-ms";
const PRESET: &str = "x-equipoise-preset";
const MINIMIZE: &str = "x-equipoise-minimize";
const EXPLAIN: &str = "x-equipoise-explain";
const PREFIX: &str = "x-equipoise-";

/// A header that makes no sense, with the mend.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("header `{header}`: {reason}")]
pub(crate) struct HeaderError {
    pub(crate) header: String,
    reason: String,
}

impl From<HeaderError> for ErrorResponse {
    fn from(error: HeaderError) -> Self {
        Self::invalid_request(error.to_string())
            .with_param(error.header)
            .with_code("invalid_header")
    }
}

fn wrong(header: &str, reason: impl Into<String>) -> HeaderError {
    HeaderError {
        header: header.to_owned(),
        reason: reason.into(),
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, HeaderError> {
    if headers.get_all(name).iter().nth(1).is_some() {
        return Err(wrong(name, "comes twice; send it once"));
    }
    headers
        .get(name)
        .map(|value| {
            value
                .to_str()
                .map(str::trim)
                .map_err(|_| wrong(name, "is not printable ASCII"))
        })
        .transpose()
}

fn number(headers: &HeaderMap, name: &str, least: f64, most: f64) -> Result<Option<f64>, HeaderError> {
    let Some(value) = text(headers, name)? else {
        return Ok(None);
    };
    match value.parse::<f64>() {
        Ok(number) if number >= least && number <= most => Ok(Some(number)),
        _ => Err(wrong(name, format!("`{value}` is not a number from {least} to {most}"))),
    }
}

/// The tenant, if one is named.
pub(crate) fn tenant(headers: &HeaderMap) -> Result<Option<String>, HeaderError> {
    let Some(tenant) = text(headers, TENANT)? else {
        return Ok(None);
    };
    if tenant.is_empty() || tenant.len() > 128 || tenant == "-" {
        return Err(wrong(TENANT, "must have 1 to 128 characters and not be `-`"));
    }
    Ok(Some(tenant.to_owned()))
}

/// All wishes of a request.
pub(crate) fn wishes(headers: &HeaderMap, now: Timestamp) -> Result<Wishes, HeaderError> {
    const DAY_MS: f64 = 86_400_000.0;
    if !headers.keys().any(|name| name.as_str().starts_with(PREFIX)) {
        // As most requests: nothing needs to be looked up.
        return Ok(Wishes::default());
    }
    if let Some(unknown) = headers
        .keys()
        .map(http::HeaderName::as_str)
        .find(|name| is_unknown(name))
    {
        let known = KNOWN.join(", ");
        return Err(wrong(unknown, format!("is not understood; there are: {known}")));
    }
    let seconds = |name| Ok::<_, HeaderError>(number(headers, name, 1.0, DAY_MS)?.map(|ms| ms / 1e3));
    let deadline = seconds(DEADLINE_MS)?.map(|seconds| now + Duration::from_secs_f64(seconds));
    Ok(Wishes {
        weights: asked_weights(headers)?,
        quality_min: number(headers, QUALITY_MIN, 0.0, 1.0)?,
        ttft_slo_s: seconds(TTFT_SLO_MS)?,
        e2e_slo_s: seconds(E2E_SLO_MS)?,
        slo_confidence: slo_confidence(headers)?,
        cost_max_usd: number(headers, COST_MAX_USD, 0.0, 1e6)?,
        labels: labels(headers)?,
        only: std::collections::BTreeSet::new(),
        models: std::collections::BTreeSet::new(),
        needs: std::collections::BTreeSet::new(),
        priority: priority(headers)?,
        deadline,
    })
}

const KNOWN: [&str; 13] = [
    TENANT,
    WEIGHTS,
    PRESET,
    MINIMIZE,
    EXPLAIN,
    QUALITY_MIN,
    TTFT_SLO_MS,
    E2E_SLO_MS,
    SLO_CONFIDENCE,
    COST_MAX_USD,
    LABELS,
    PRIORITY,
    DEADLINE_MS,
];

fn is_unknown(name: &str) -> bool {
    name.starts_with(PREFIX) && !KNOWN.contains(&name)
}

type Pairs<'a> = Box<dyn Iterator<Item = Result<(&'a str, &'a str), HeaderError>> + 'a>;

fn pairs<'a>(header: &'static str, text: &'a str) -> Result<Pairs<'a>, HeaderError> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    Ok(Box::new(parts.map(move |part| {
        let (key, value) = part
            .split_once('=')
            .ok_or_else(|| wrong(header, format!("`{part}` is not key=value")))?;
        Ok((key.trim(), value.trim()))
    })))
}

fn priority(headers: &HeaderMap) -> Result<i32, HeaderError> {
    let Some(value) = text(headers, PRIORITY)? else {
        return Ok(0);
    };
    let priority = value.parse().ok().filter(|priority| (-100..=100).contains(priority));
    priority.ok_or_else(|| wrong(PRIORITY, format!("`{value}` is not a whole number from -100 to 100")))
}

/// Nothing is certain, and a promise of nothing is none.
fn slo_confidence(headers: &HeaderMap) -> Result<Option<f64>, HeaderError> {
    let confidence = number(headers, SLO_CONFIDENCE, 0.0, 1.0)?;
    if confidence.is_some_and(|confidence| confidence <= 0.0 || confidence >= 1.0) {
        return Err(wrong(
            SLO_CONFIDENCE,
            "must be between 0 and 1, neither of them; write 0.95",
        ));
    }
    Ok(confidence)
}

/// Labels that an instance must carry; one label cannot have two values.
fn labels(headers: &HeaderMap) -> Result<BTreeMap<String, String>, HeaderError> {
    let mut labels = BTreeMap::new();
    for pair in pairs(LABELS, text(headers, LABELS)?.unwrap_or_default())? {
        let (key, value) = pair?;
        if labels
            .insert(key.to_owned(), value.to_owned())
            .is_some_and(|before| before != value)
        {
            return Err(wrong(LABELS, format!("`{key}` has two values")));
        }
    }
    Ok(labels)
}

/// Whether the client wants to see why.
pub(crate) fn wants_explanation(headers: &HeaderMap) -> bool {
    headers
        .get(EXPLAIN)
        .is_some_and(|value| matches!(value.as_bytes(), b"1" | b"true"))
}

/// At most one way to say what counts: weights, a preset, or one force to minimize under the hard constraints.
fn asked_weights(headers: &HeaderMap) -> Result<Option<Weights>, HeaderError> {
    let given: Vec<&str> = [WEIGHTS, PRESET, MINIMIZE]
        .into_iter()
        .filter(|name| headers.contains_key(*name))
        .collect();
    let (name, value) = match given.as_slice() {
        [] => return Ok(None),
        [name] => (*name, text(headers, name)?.unwrap_or_default()),
        [first, second, ..] => return Err(wrong(second, format!("contradicts {first}; send one of them"))),
    };
    match name {
        WEIGHTS => weights(value).map(Some),
        PRESET => {
            let known = Preset::ALL.map(Preset::name).join(", ");
            let preset =
                Preset::by_name(value).ok_or_else(|| wrong(PRESET, format!("`{value}` is not one of {known}")))?;
            Ok(Some(preset.weights()))
        }
        _ => {
            // The others break ties only.
            let mut weights = Weights {
                quality: 1e-6,
                latency: 1e-6,
                energy: 1e-6,
                cost: 1e-6,
            };
            match value {
                "energy" => weights.energy = 1.0,
                "latency" => weights.latency = 1.0,
                "cost" => weights.cost = 1.0,
                _ => {
                    return Err(wrong(
                        MINIMIZE,
                        format!("`{value}` is not one of energy, latency, cost"),
                    ));
                }
            }
            Ok(Some(weights))
        }
    }
}

/// `quality=0.6,latency=0.3`; what is not named has no weight.
fn weights(text: &str) -> Result<Weights, HeaderError> {
    let mut weights = Weights {
        quality: 0.0,
        latency: 0.0,
        energy: 0.0,
        cost: 0.0,
    };
    let mut any = false;
    for pair in pairs(WEIGHTS, text)? {
        let (key, value) = pair?;
        let weight = value
            .parse()
            .ok()
            .filter(|weight: &f64| weight.is_finite() && *weight >= 0.0);
        let weight = weight.ok_or_else(|| wrong(WEIGHTS, format!("`{value}` is not a weight of zero or more")))?;
        match key {
            "quality" => weights.quality = weight,
            "latency" => weights.latency = weight,
            "energy" => weights.energy = weight,
            "cost" => weights.cost = weight,
            _ => {
                return Err(wrong(
                    WEIGHTS,
                    format!("`{key}` is not one of quality, latency, energy, cost"),
                ));
            }
        }
        any |= weight > 0.0;
    }
    if any {
        Ok(weights)
    } else {
        Err(wrong(
            WEIGHTS,
            "names no weight above zero; write quality=0.6,latency=0.4",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    fn read(pairs: &[(&'static str, &'static str)]) -> Result<Wishes, HeaderError> {
        wishes(&headers(pairs), Timestamp::ZERO)
    }

    #[test]
    fn every_wish_is_understood() {
        let wishes = read(&[
            ("x-equipoise-weights", "quality=0.6, energy=2"),
            ("x-equipoise-quality-min", "0.5"),
            ("x-equipoise-ttft-slo-ms", "500"),
            ("x-equipoise-labels", "residency=eu,zone = a"),
            ("x-equipoise-priority", "-3"),
            ("x-equipoise-deadline-ms", "1000"),
            ("x-equipoise-tenant", "acme"),
        ])
        .expect("valid");
        assert_eq!(
            wishes.weights,
            Some(Weights {
                quality: 0.6,
                latency: 0.0,
                energy: 2.0,
                cost: 0.0
            })
        );
        assert_eq!(
            (wishes.quality_min, wishes.ttft_slo_s, wishes.priority),
            (Some(0.5), Some(0.5), -3)
        );
        assert_eq!(wishes.labels.get("zone").map(String::as_str), Some("a"));
        assert_eq!(wishes.deadline, Some(Timestamp::from_secs_f64(1.0)));
        assert!(!wishes.are_plain());
    }

    #[test]
    fn there_is_one_way_at_a_time_to_say_what_counts() {
        let green = read(&[("x-equipoise-preset", "green")]).expect("valid").weights;
        assert_eq!(green, Some(Preset::Green.weights()));
        let least = read(&[("x-equipoise-minimize", "energy"), ("x-equipoise-quality-min", "0.5")]).expect("valid");
        assert!(
            least
                .weights
                .is_some_and(|weights| weights.energy > 1e3 * weights.quality)
        );
        let both = read(&[("x-equipoise-preset", "green"), ("x-equipoise-minimize", "energy")]);
        assert!(both.is_err_and(|error| error.to_string().contains("contradicts")));
    }

    #[test]
    fn nonsense_is_named_with_its_header() {
        for (name, value, mend) in [
            ("x-equipoise-weights", "quality", "key=value"),
            ("x-equipoise-weights", "speed=1", "quality, latency, energy, cost"),
            ("x-equipoise-weights", "quality=-1", "zero or more"),
            ("x-equipoise-weights", "quality=0", "above zero"),
            ("x-equipoise-quality-min", "1.5", "from 0 to 1"),
            ("x-equipoise-ttft-slo-ms", "NaN", "from 1 to"),
            ("x-equipoise-slo-confidence", "95", "from 0 to 1"),
            ("x-equipoise-slo-confidence", "1", "between 0 and 1"),
            ("x-equipoise-slo-confidence", "0", "between 0 and 1"),
            ("x-equipoise-priority", "1.9", "whole number"),
            ("x-equipoise-labels", "zone=a,zone=b", "two values"),
            ("x-equipoise-preset", "fast", "quality, balanced, latency, green, cheap"),
            ("x-equipoise-minimize", "quality", "energy, latency, cost"),
            ("x-equipoise-qualty-min", "0.5", "x-equipoise-quality-min"),
        ] {
            let error = read(&[(name, value)]).expect_err("nonsense");
            assert_eq!(error.header, name);
            assert!(error.to_string().contains(mend), "{error}");
        }
    }
}
