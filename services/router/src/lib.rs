//! The data plane: OpenAI HTTP in, one joint decision, a vLLM-style engine out.
//!
//! A router is a *driver* of the scheduler: it turns what happens on sockets and on the control plane's stream into
//! events, and carries the actions out. All decisions, and all state about instances, are the scheduler's, behind one
//! lock that is held for microseconds and never across an await. Does not belong here: choosing an instance.

mod access;
mod access_log;
mod activity;
mod admin;
mod cascade;
mod config;
mod connection;
mod control;
mod driver;
mod engines;
mod explain;
mod ext_proc;
mod feedback;
mod forecast;
mod grpc;
mod grpc_health;
mod head;
mod headers;
mod hedge;
mod journal;
mod keys;
mod limits;
mod live;
mod pick;
mod pii;
mod prompt;
mod proxy;
mod question;
mod refusal;
mod relay;
mod responses;
mod route;
mod routes;
mod server;
mod size;
mod span_export;
mod spans;
mod stream;
mod task;
mod ticket;
mod tls;
mod wire;

pub use access_log::AccessLogTarget;
pub use config::RouterConfig;
pub use driver::{Driver, DriverError};
pub use forecast::{PredictorError, PredictorSource};
pub use keys::{NewKey, NoRandomness, new_key};
pub use live::LiveSettings;
pub use pii::PiiError;
pub use server::{RunningRouter, StartError, start};
pub use tls::TlsError;
