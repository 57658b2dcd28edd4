//! Where spans go: OpenTelemetry's environment variables
//! (<https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/> and the exporter's).

use std::time::Duration;

const SERVICE_NAME: &str = "equipoise-router";
const TIMEOUT: Duration = Duration::from_secs(10);

/// Where spans go and which.
#[derive(Clone, Debug, PartialEq)]
pub struct OtlpSettings {
    /// The collector's base URL, `http://host:port[/base]`; spans go to `/v1/traces` below it.
    pub endpoint: String,
    /// Headers of every export, for collectors that ask for them.
    pub headers: Vec<(String, String)>,
    /// Longest wait for the collector.
    pub timeout: Duration,
    /// The share of traces that begin here and are recorded, [0, 1]. Those of callers follow the caller's flag.
    pub sample_ratio: f64,
    /// Whose spans they are: `service.name` and others.
    pub resource: Vec<(String, String)>,
}

/// A variable that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{variable} is `{value}`: {mend}")]
pub struct OtlpError {
    /// Which.
    pub variable: &'static str,
    /// As it is.
    pub value: String,
    /// How to mend it.
    pub mend: &'static str,
}

impl OtlpSettings {
    /// Everything but the endpoint as it is by default: all traces, `equipoise-router`.
    #[must_use]
    pub fn new(endpoint: impl Into<String>) -> Self {
        Self {
            endpoint: endpoint.into(),
            headers: Vec::new(),
            timeout: TIMEOUT,
            sample_ratio: 1.0,
            resource: vec![("service.name".to_owned(), SERVICE_NAME.to_owned())],
        }
    }

    /// What the variables say over these settings, a configuration file's; their endpoint may be empty. `None`: no endpoint is
    /// named, or `OTEL_SDK_DISABLED` or `OTEL_TRACES_EXPORTER=none` says so.
    ///
    /// # Errors
    /// For a variable that makes no sense, and for protocols and schemes that are not spoken.
    pub fn under_variables(mut self, variable: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, OtlpError> {
        let read = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let off = read("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"))
            || read("OTEL_TRACES_EXPORTER").as_deref() == Some("none");
        let named = read("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT").or_else(|| read("OTEL_EXPORTER_OTLP_ENDPOINT"));
        if let Some(endpoint) = named {
            // The traces' own endpoint is the whole URL; the path is the same.
            let base = endpoint.trim_end_matches('/').trim_end_matches("/v1/traces");
            base.clone_into(&mut self.endpoint);
        }
        if off || self.endpoint.is_empty() {
            return Ok(None);
        }
        self.over(read).map(Some)
    }

    fn over(mut self, read: impl Fn(&str) -> Option<String>) -> Result<Self, OtlpError> {
        if !self.endpoint.starts_with("http://") {
            return Err(OtlpError {
                variable: "OTEL_EXPORTER_OTLP_ENDPOINT",
                value: self.endpoint,
                mend: "only http:// is spoken; run a collector beside the router, it can speak TLS further on",
            });
        }
        let protocol = ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];
        for variable in protocol {
            if let Some(value) = read(variable)
                && value != "http/protobuf"
            {
                return Err(OtlpError {
                    variable,
                    value,
                    mend: "only http/protobuf is spoken, to port 4318 by custom",
                });
            }
        }
        for variable in ["OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS"] {
            self.headers.extend(pairs(variable, read(variable))?);
        }
        let timeouts = ["OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"];
        for variable in timeouts {
            if let Some(value) = read(variable) {
                let ms = value.parse().map_err(|_| OtlpError {
                    variable,
                    value,
                    mend: "write milliseconds, like 10000",
                })?;
                self.timeout = Duration::from_millis(ms);
                break;
            }
        }
        if let Some(sampler) = read("OTEL_TRACES_SAMPLER") {
            self.sample_ratio = ratio(sampler, read("OTEL_TRACES_SAMPLER_ARG"))?;
        }
        let mut resource = pairs("OTEL_RESOURCE_ATTRIBUTES", read("OTEL_RESOURCE_ATTRIBUTES"))?;
        resource.extend(read("OTEL_SERVICE_NAME").map(|name| ("service.name".to_owned(), name)));
        for (key, value) in resource {
            self.resource.retain(|(held, _)| *held != key);
            self.resource.push((key, value));
        }
        Ok(self)
    }
}

fn pairs(variable: &'static str, value: Option<String>) -> Result<Vec<(String, String)>, OtlpError> {
    let Some(value) = value else { return Ok(Vec::new()) };
    let parts = value.split(',').map(str::trim).filter(|part| !part.is_empty());
    let read: Option<Vec<_>> = parts
        .map(|part| {
            let (key, value) = part.split_once('=')?;
            Some((key.trim().to_owned(), value.trim().to_owned()))
        })
        .collect();
    read.ok_or(OtlpError {
        variable,
        value,
        mend: "write key=value,key=value",
    })
}

fn ratio(sampler: String, argument: Option<String>) -> Result<f64, OtlpError> {
    match sampler.as_str() {
        "always_on" | "parentbased_always_on" => Ok(1.0),
        "always_off" | "parentbased_always_off" => Ok(0.0),
        "traceidratio" | "parentbased_traceidratio" => {
            let value = argument.unwrap_or_else(|| "1".to_owned());
            let ratio = value.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
            ratio.ok_or(OtlpError {
                variable: "OTEL_TRACES_SAMPLER_ARG",
                value,
                mend: "write a share from 0 to 1",
            })
        }
        _ => Err(OtlpError {
            variable: "OTEL_TRACES_SAMPLER",
            value: sampler,
            mend: "there are always_on, always_off, traceidratio, and each with parentbased_ before it",
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(endpoint: &str, variables: &[(&str, &str)]) -> Result<Option<OtlpSettings>, OtlpError> {
        OtlpSettings::new(endpoint).under_variables(|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn variables_go_before_the_file() {
        assert_eq!(read("", &[]), Ok(None));
        let file = "http://a:4318";
        assert_eq!(read(file, &[]), Ok(Some(OtlpSettings::new(file))));
        assert_eq!(read(file, &[("OTEL_SDK_DISABLED", "TRUE")]), Ok(None));
        let settings = read(
            file,
            &[
                ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://b:4318/"),
                ("OTEL_EXPORTER_OTLP_HEADERS", "x-key=1, y = 2"),
                ("OTEL_EXPORTER_OTLP_TIMEOUT", "500"),
                ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
                ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
                ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
                ("OTEL_RESOURCE_ATTRIBUTES", "service.name=x,zone=eu"),
                ("OTEL_SERVICE_NAME", "front"),
            ],
        );
        let settings = settings.expect("right").expect("an endpoint");
        assert_eq!(
            (settings.endpoint.as_str(), settings.sample_ratio),
            ("http://b:4318", 0.25)
        );
        assert_eq!(settings.timeout, Duration::from_millis(500));
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(settings.headers, [pair("x-key", "1"), pair("y", "2")]);
        assert_eq!(settings.resource, [pair("zone", "eu"), pair("service.name", "front")]);
        let own = read("", &[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://c:1/x/v1/traces")]);
        assert_eq!(own.expect("right").expect("an endpoint").endpoint, "http://c:1/x");
    }

    #[test]
    fn nonsense_is_named_with_its_variable() {
        let with = |name: &'static str, value: &'static str| {
            let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://b:4318");
            read("", &[(name, value), endpoint]).expect_err("nonsense").variable
        };
        for (variable, value) in [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://b:4318"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "x"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon"),
            ("OTEL_TRACES_SAMPLER", "often"),
        ] {
            assert_eq!(with(variable, value), variable);
        }
    }
}
