//! The base URL of an engine, and how a request's path and headers are put under it.

use crate::BackendError;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Uri};
use std::fmt;

/// The base URL of an engine, checked: HTTP or HTTPS, a host, maybe a port and a path that goes before every request's.
#[derive(Clone, Debug)]
pub struct Endpoint {
    is_secure: bool,
    authority: Authority,
    host: HeaderValue,
    /// Without a slash at the end; empty for the root.
    base_path: String,
}

impl Endpoint {
    /// Reads `http://host[:port][/base]`, or `https://` so.
    ///
    /// # Errors
    /// [`BackendError::Endpoint`] for anything else: another scheme, credentials, a query.
    pub fn parse(text: &str) -> Result<Self, BackendError> {
        let fail = |reason: &str| BackendError::Endpoint {
            endpoint: text.to_owned(),
            reason: reason.to_owned(),
        };
        let uri: Uri = text
            .parse()
            .map_err(|error: http::uri::InvalidUri| fail(&error.to_string()))?;
        let is_secure = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(fail("it must begin with http:// or https://")),
        };
        let authority = uri.authority().ok_or_else(|| fail("there is no host"))?;
        if authority.as_str().contains('@') {
            return Err(fail("it holds credentials"));
        }
        if authority.host().is_empty() {
            return Err(fail("there is no host"));
        }
        if uri.query().is_some() {
            return Err(fail("it holds a query"));
        }
        let host = HeaderValue::from_str(authority.as_str()).map_err(|error| fail(&error.to_string()))?;
        Ok(Self {
            is_secure,
            authority: authority.clone(),
            host,
            base_path: uri.path().trim_end_matches('/').to_owned(),
        })
    }

    /// The value of the `Host` header.
    #[must_use]
    pub fn host_header(&self) -> &HeaderValue {
        &self.host
    }

    /// True for `https://`.
    #[must_use]
    pub fn is_secure(&self) -> bool {
        self.is_secure
    }

    /// Host and port to connect to.
    #[must_use]
    pub fn address(&self) -> (&str, u16) {
        // An IPv6 address stands in brackets in a URL, and without them everywhere else.
        let host = self.authority.host().trim_start_matches('[').trim_end_matches(']');
        let usual = if self.is_secure { 443 } else { 80 };
        (host, self.authority.port_u16().unwrap_or(usual))
    }

    /// What stands in the first line of a request for `path` (path and query, beginning with a slash) at this engine.
    ///
    /// # Errors
    /// [`BackendError::Endpoint`] if base and path do not make a URI.
    pub fn target(&self, path: Option<&PathAndQuery>) -> Result<Uri, BackendError> {
        let path = match (path, self.base_path.is_empty()) {
            (Some(path), true) => path.clone(),
            (path, _) => {
                let joined = format!("{}{}", self.base_path, path.map_or("/", PathAndQuery::as_str));
                joined
                    .try_into()
                    .map_err(|error: http::uri::InvalidUri| self.unusable(&error.to_string()))?
            }
        };
        Ok(path.into())
    }

    fn unusable(&self, reason: &str) -> BackendError {
        BackendError::Endpoint {
            endpoint: self.to_string(),
            reason: reason.to_owned(),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_secure { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority, self.base_path)
    }
}

/// Headers that concern one connection only and must not be passed on (RFC 9110 §7.6.1).
static HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
];

/// Removes the headers that concern one connection only, and those that `Connection` names.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    // Most heads hold none: then one look at the names is all.
    if !headers.keys().any(|name| HOP_BY_HOP.contains(name)) {
        return;
    }
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_path_goes_before_every_path() {
        let endpoint = Endpoint::parse("http://[::1]:8000/engines/a/").expect("usable");
        let path = PathAndQuery::from_static("/v1/models?x=1");
        assert_eq!(endpoint.target(Some(&path)).expect("joins"), "/engines/a/v1/models?x=1");
        assert_eq!(endpoint.host_header(), "[::1]:8000");
        assert_eq!(endpoint.address(), ("::1", 8000));
        let root = Endpoint::parse("http://engine").expect("usable");
        assert_eq!(root.target(Some(&path)).expect("joins"), "/v1/models?x=1");
        assert_eq!(root.target(None).expect("joins"), "/");
        assert_eq!(root.address(), ("engine", 80));
        let secure = Endpoint::parse("https://engine/").expect("usable");
        assert_eq!((secure.address(), secure.is_secure()), (("engine", 443), true));
        assert_eq!(secure.to_string(), "https://engine");
    }

    #[test]
    fn unusable_endpoints_say_why() {
        for (text, reason) in [
            ("ftp://engine:8000", "https://"),
            ("engine:8000", "http://"),
            ("http://user:secret@engine", "credentials"),
            ("http://engine/?a=1", "query"),
            ("", "empty"),
            ("http://", ""),
        ] {
            let error = Endpoint::parse(text).expect_err(text).to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn headers_of_one_connection_stay_behind() {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONNECTION, HeaderValue::from_static("close, X-Mine"));
        headers.insert("x-mine", HeaderValue::from_static("1"));
        headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        headers.insert(header::AUTHORIZATION, HeaderValue::from_static("Bearer k"));
        strip_hop_by_hop(&mut headers);
        assert_eq!(headers.keys().collect::<Vec<_>>(), [header::AUTHORIZATION]);
    }
}
