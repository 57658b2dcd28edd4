//! An engine's address as gateways write it: `ip:port`.

use std::net::SocketAddr;
use std::time::Duration;

const RESOLVE_TIMEOUT: Duration = Duration::from_secs(2);
const HTTP_PORT: u16 = 80;

/// `host:port` of a base URL, with the port that http has where it names none.
fn authority(endpoint: &str) -> Option<String> {
    let uri: http::Uri = endpoint.parse().ok()?;
    let authority = uri.authority()?;
    let port = authority.port_u16().unwrap_or(HTTP_PORT);
    Some(format!("{}:{port}", authority.host()))
}

/// The address of an endpoint that is written as one.
pub(super) fn literal(endpoint: &str) -> Option<SocketAddr> {
    authority(endpoint)?.parse().ok()
}

/// The address of any endpoint: a name is looked up.
pub(super) async fn of(endpoint: &str) -> Option<SocketAddr> {
    if let Some(address) = literal(endpoint) {
        return Some(address);
    }
    let authority = authority(endpoint)?;
    let found = tokio::time::timeout(RESOLVE_TIMEOUT, tokio::net::lookup_host(authority)).await;
    found.ok()?.ok()?.next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_has_an_address_where_it_is_written_as_one() {
        let address = |endpoint| literal(endpoint).map(|address| address.to_string());
        assert_eq!(address("http://10.0.0.5:8000/base").as_deref(), Some("10.0.0.5:8000"));
        assert_eq!(address("http://10.0.0.5").as_deref(), Some("10.0.0.5:80"));
        assert_eq!(
            address("http://[2600:40::24ae]:80").as_deref(),
            Some("[2600:40::24ae]:80")
        );
        assert_eq!(address("http://engine.internal:8000"), None);
        assert_eq!(address("nonsense"), None);
    }
}
