//! The state machine: admission, queueing, dispatch, retry, drain.
