//! What a gateway says of endpoints in Envoy's metadata.

use std::collections::BTreeSet;

use equipoise_proto::ext_proc::Metadata;
use equipoise_proto::prost_types::Value;
use equipoise_proto::prost_types::value::Kind;

const SUBSET_NAMESPACE: &str = "envoy.lb.subset_hint";
const SUBSET: &str = "x-gateway-destination-endpoint-subset";
const SERVED: &str = "x-gateway-destination-endpoint-served";

fn value<'a>(metadata: &'a Metadata, namespace: &str, key: &str) -> Option<&'a Kind> {
    metadata.filter_metadata.get(namespace)?.fields.get(key)?.kind.as_ref()
}

fn texts(value: &Kind) -> BTreeSet<String> {
    let split = |text: &str| -> Vec<String> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        parts.map(str::to_owned).collect()
    };
    match value {
        Kind::StringValue(text) => split(text).into_iter().collect(),
        Kind::ListValue(list) => {
            let of = |value: &Value| match &value.kind {
                Some(Kind::StringValue(text)) => split(text),
                _ => Vec::new(),
            };
            list.values.iter().flat_map(of).collect()
        }
        _ => BTreeSet::new(),
    }
}

/// The endpoints that one may be picked from, `ip:port`; `None`: all. An empty set is one: nobody may be picked.
pub(super) fn allowed(metadata: &Metadata) -> Option<BTreeSet<String>> {
    value(metadata, SUBSET_NAMESPACE, SUBSET).map(texts)
}

/// The endpoint that has answered, where the gateway says so.
pub(super) fn served(metadata: &Metadata) -> Option<String> {
    let said = value(metadata, super::answer::NAMESPACE, SERVED)?;
    texts(said).into_iter().next()
}
