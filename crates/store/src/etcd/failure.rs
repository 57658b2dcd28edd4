//! etcd's errors in the store's words.

use crate::StoreError;
use etcd_client::Error;

/// What etcd says about a lease it does not have.
pub(super) fn is_lease_gone(reason: &str) -> bool {
    reason.contains("lease not found")
}

/// Translates an error: what may pass by itself is `Unavailable`, the rest is `Refused`.
pub(super) fn store_error(operation: &str, error: &Error) -> StoreError {
    let (operation, reason) = (operation.to_owned(), reason_of(error));
    let passing = match error {
        // Codes by number (grpc.io/docs/guides/status-codes): etcd-client does not re-export tonic's type by name.
        // 1 cancelled, 2 unknown (a broken connection), 4 deadline, 8 exhausted, 10 aborted, 14 unavailable.
        Error::GRpcStatus(status) => matches!(i32::from(status.code()), 1 | 2 | 4 | 8 | 10 | 14),
        Error::IoError(_) | Error::TransportError(_) | Error::WatchError(_) => true,
        Error::LeaseKeepAliveError(_) => !is_lease_gone(&reason),
        _ => false,
    };
    if passing {
        StoreError::Unavailable { operation, reason }
    } else {
        StoreError::Refused { operation, reason }
    }
}

fn reason_of(error: &Error) -> String {
    match error {
        Error::GRpcStatus(status) => status.message().to_owned(),
        other => other.to_string(),
    }
}
