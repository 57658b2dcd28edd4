//! From a URL to a store.

use crate::embedded::EmbeddedStore;
use crate::etcd::EtcdStore;
use crate::{SharedStore, StoreError};
use std::path::Path;
use std::sync::Arc;

/// The folder in etcd when the URL names none.
const DEFAULT_PREFIX: &str = "/equipoise/";

/// What a URL asks for.
#[derive(Debug, PartialEq, Eq)]
enum Target {
    Memory,
    File(String),
    Etcd { endpoints: Vec<String>, prefix: String },
}

/// Opens the store that `url` names: `embedded` (in memory), `embedded:PATH` (a file, made if it does not exist) or
/// `etcd://HOST:PORT[,HOST:PORT][/PREFIX]` (the prefix defaults to `/equipoise/`).
///
/// # Errors
/// A URL that is not understood, a file that cannot be opened or that another process owns, an etcd that does not
/// answer within a few seconds.
pub async fn open(url: &str) -> Result<SharedStore, StoreError> {
    Ok(match parse(url)? {
        Target::Memory => Arc::new(EmbeddedStore::open(None).await?),
        Target::File(path) => Arc::new(EmbeddedStore::open(Some(Path::new(&path))).await?),
        Target::Etcd { endpoints, prefix } => Arc::new(EtcdStore::connect(&endpoints, &prefix).await?),
    })
}

fn parse(url: &str) -> Result<Target, StoreError> {
    let invalid = |reason: &str| StoreError::InvalidUrl {
        url: url.to_owned(),
        reason: reason.to_owned(),
    };
    if url == "embedded" {
        return Ok(Target::Memory);
    }
    if let Some(path) = url.strip_prefix("embedded:") {
        if path.trim().is_empty() {
            return Err(invalid("no path after the colon"));
        }
        return Ok(Target::File(path.to_owned()));
    }
    let Some(rest) = url.strip_prefix("etcd://") else {
        return Err(invalid("the scheme is not known"));
    };
    if rest.contains(['@', '?', '#']) {
        return Err(invalid("users, passwords and parameters are not understood"));
    }
    let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
    let mut endpoints = Vec::new();
    for host in hosts.split(',') {
        let port = host
            .rsplit_once(':')
            .filter(|(name, _)| !name.is_empty())
            .map(|(_, port)| port.parse::<u16>());
        match port {
            Some(Ok(port)) if port > 0 => endpoints.push(format!("http://{host}")),
            _ => return Err(invalid(&format!("{host:?} is not HOST:PORT"))),
        }
    }
    let path = path.trim_matches('/');
    let prefix = if path.is_empty() {
        DEFAULT_PREFIX.to_owned()
    } else {
        format!("/{path}/")
    };
    Ok(Target::Etcd { endpoints, prefix })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn etcd(endpoints: &[&str], prefix: &str) -> Target {
        let endpoints = endpoints.iter().map(|&endpoint| endpoint.to_owned()).collect();
        Target::Etcd {
            endpoints,
            prefix: prefix.to_owned(),
        }
    }

    #[test]
    fn understood_urls() {
        assert_eq!(parse("embedded").expect("valid"), Target::Memory);
        assert_eq!(
            parse("embedded:a/b.redb").expect("valid"),
            Target::File("a/b.redb".to_owned())
        );
        assert_eq!(
            parse("etcd://a:2379").expect("valid"),
            etcd(&["http://a:2379"], "/equipoise/")
        );
        let two = etcd(&["http://a:1", "http://[::1]:2"], "/equipoise/staging/");
        assert_eq!(parse("etcd://a:1,[::1]:2/equipoise/staging").expect("valid"), two);
    }

    #[test]
    fn what_is_not_understood_is_told_what_is() {
        for url in [
            "",
            "embedded:",
            "embedded:  ",
            "consul://a:1",
            "etcd://",
            "etcd://a",
            "etcd://a:1,",
            "etcd://:1",
            "etcd://u:p@a:1",
            "etcd://a:0",
        ] {
            let error = parse(url).expect_err(url).to_string();
            assert!(
                error.contains("`embedded` (in memory)")
                    && error.contains("embedded:PATH")
                    && error.contains("etcd://HOST:PORT"),
                "{error}"
            );
        }
    }
}
