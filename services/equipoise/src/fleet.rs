//! `equipoise fleet`: looking after a fleet over the control plane's gRPC.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use equipoise_proto::v1;
use equipoise_proto::v1::admin_service_client::AdminServiceClient;
use tonic::transport::{Channel, Endpoint};

use crate::cli::{self, ControlTls, FleetAction};
use crate::secured;
use crate::terminal::{say, table};

/// Connects to a control plane, or says how to start one, or that something else answers there.
pub(crate) async fn connect(control: &str, tls: &ControlTls) -> anyhow::Result<Channel> {
    let endpoint = Endpoint::from_shared(control.to_owned())
        .with_context(|| format!("--control `{control}` is no address; write http://127.0.0.1:8090"))?;
    if !matches!(endpoint.uri().scheme_str(), Some("http" | "https")) {
        anyhow::bail!("--control `{control}` is no address; write http://127.0.0.1:8090");
    }
    let endpoint = match secured::control(control, tls)? {
        None => endpoint,
        Some(tls) => endpoint.tls_config(tls)?,
    };
    let endpoint = endpoint
        .connect_timeout(Duration::from_secs(2))
        .timeout(Duration::from_secs(10));
    let channel = endpoint.connect().await.with_context(|| {
        format!("no control plane answers at {control}; start `equipoise up`, or name another with --control")
    })?;
    // Every server takes a connection; only a control plane tells its configuration.
    let mut admin = AdminServiceClient::new(channel.clone());
    match admin.get_config(v1::GetConfigRequest {}).await {
        Ok(_) => Ok(channel),
        Err(status) => anyhow::bail!(
            "{control} answers, but is no Equipoise control plane; is it the router's or the page's port? ({})",
            details(&status)
        ),
    }
}

/// What went wrong, down to its cause, on one line.
fn details(status: &tonic::Status) -> String {
    let mut text = status.message().to_owned();
    let mut cause = std::error::Error::source(status);
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}

/// What a control plane refused, in its own words.
pub(crate) fn refused(status: &tonic::Status) -> anyhow::Error {
    anyhow::anyhow!("{}", status.message())
}

pub(crate) async fn run(options: cli::Fleet) -> anyhow::Result<()> {
    let mut admin = AdminServiceClient::new(connect(&options.control, &options.control_tls).await?);
    match options.action {
        FleetAction::List { pool } => {
            let response = admin
                .list_instances(v1::ListInstancesRequest { pool })
                .await
                .map_err(|e| refused(&e))?;
            say(&list(&response.into_inner()));
        }
        FleetAction::Describe { name } => {
            let request = v1::DescribeInstanceRequest { name };
            let state = admin
                .describe_instance(request)
                .await
                .map_err(|e| refused(&e))?
                .into_inner();
            say(&describe(&state));
        }
        FleetAction::Drain { name, undo } => {
            let request = v1::SetDrainingRequest {
                name: name.clone(),
                draining: !undo,
            };
            admin.set_draining(request).await.map_err(|e| refused(&e))?;
            say(&format!(
                "{name} {}",
                if undo {
                    "takes new work again"
                } else {
                    "takes no new work; what runs finishes"
                }
            ));
        }
        FleetAction::Weights { name, weight } => {
            let request = v1::SetWeightRequest {
                name: name.clone(),
                weight,
            };
            admin.set_weight(request).await.map_err(|e| refused(&e))?;
            say(&format!("{name} has weight {weight}"));
        }
    }
    Ok(())
}

fn state_word(state: &v1::InstanceState) -> &'static str {
    let admin = state.admin.unwrap_or_default();
    match &state.sample {
        _ if admin.draining => "draining",
        None => "unknown",
        Some(sample) if sample.healthy => "healthy",
        Some(_) => "unhealthy",
    }
}

fn list(response: &v1::ListInstancesResponse) -> String {
    let head = [
        "instance", "pool", "model", "gpu", "state", "weight", "running", "waiting", "kv %", "watts",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for state in &response.instances {
        let instance = state.instance.clone().unwrap_or_default();
        let tier = instance.tier.clone().unwrap_or_default();
        let sample = state.sample.clone().filter(|sample| sample.healthy);
        let of_sample = |read: fn(&v1::EngineSample) -> String| sample.as_ref().map_or_else(|| "-".to_owned(), read);
        let gpu = if tier.gpu.is_empty() {
            "-".to_owned()
        } else {
            format!("{}x{}", tier.tensor_parallel.max(1), tier.gpu)
        };
        rows.push(vec![
            instance.name.clone(),
            instance.pool.clone(),
            instance.model.clone().unwrap_or_default().name,
            // A leading letter, so that the column is set as text.
            gpu.strip_prefix("1x").map_or(gpu.clone(), str::to_owned),
            state_word(state).to_owned(),
            format!("{}", state.admin.unwrap_or_default().weight.unwrap_or(1.0)),
            of_sample(|sample| sample.running.to_string()),
            of_sample(|sample| sample.waiting.to_string()),
            of_sample(|sample| format!("{:.1}", sample.kv_usage * 100.0)),
            of_sample(|sample| {
                sample
                    .power_mw
                    .map_or_else(|| "-".to_owned(), |mw| format!("{:.0}", f64::from(mw) / 1e3))
            }),
        ]);
    }
    let routers = if response.routers.is_empty() {
        "none".to_owned()
    } else {
        response.routers.join(", ")
    };
    format!("{}\n\nrouters: {routers}", table(&rows))
}

fn describe(state: &v1::InstanceState) -> String {
    let instance = state.instance.clone().unwrap_or_default();
    let (model, tier) = (
        instance.model.clone().unwrap_or_default(),
        instance.tier.clone().unwrap_or_default(),
    );
    let admin = state.admin.unwrap_or_default();
    let unknown = || "unknown".to_owned();
    let text = |text: &str| if text.is_empty() { unknown() } else { text.to_owned() };
    let mut rows = vec![
        ["name".to_owned(), instance.name.clone()],
        ["pool".to_owned(), instance.pool.clone()],
        ["state".to_owned(), state_word(state).to_owned()],
        ["weight".to_owned(), admin.weight.unwrap_or(1.0).to_string()],
        ["endpoint".to_owned(), instance.endpoint.clone()],
        ["node".to_owned(), text(&instance.node)],
        [
            "model".to_owned(),
            format!("{} ({})", model.name, text(&model.architecture)),
        ],
        [
            "quality".to_owned(),
            model
                .quality
                .map_or_else(unknown, |quality| format!("{quality} (declared)")),
        ],
        [
            "gpu".to_owned(),
            format!("{} x {}", tier.tensor_parallel.max(1), text(&tier.gpu)),
        ],
        [
            "served".to_owned(),
            if tier.serving.is_empty() {
                "as usual".to_owned()
            } else {
                tier.serving.trim_end().replace('\n', ", ")
            },
        ],
        [
            "emulated".to_owned(),
            if instance.emulated { "yes" } else { "no" }.to_owned(),
        ],
    ];
    let mut labels: Vec<String> = instance
        .labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    labels.sort();
    rows.push([
        "labels".to_owned(),
        if labels.is_empty() {
            "none".to_owned()
        } else {
            labels.join(", ")
        },
    ]);
    if let Some(sample) = &state.sample {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_nanos();
        let age_s = now.saturating_sub(u128::from(sample.unix_ns)) as f64 / 1e9;
        rows.push(["sampled".to_owned(), format!("{age_s:.1} s ago")]);
        rows.push(["running".to_owned(), sample.running.to_string()]);
        rows.push(["waiting".to_owned(), sample.waiting.to_string()]);
        rows.push(["kv in use".to_owned(), format!("{:.1} %", sample.kv_usage * 100.0)]);
        rows.push([
            "tokens".to_owned(),
            format!(
                "{} in, {} out",
                sample.prompt_tokens_total, sample.generation_tokens_total
            ),
        ]);
    }
    table(&rows.into_iter().map(|row| row.to_vec()).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use equipoise_control_plane::{ControlPlane, ControlPlaneConfig};

    #[tokio::test]
    async fn what_is_no_control_plane_is_named() {
        let any: std::net::SocketAddr = ([127, 0, 0, 1], 0).into();
        let config = ControlPlaneConfig {
            grpc_addr: any,
            page_addr: Some(any),
            ..ControlPlaneConfig::default()
        };
        let store = equipoise_store::open("embedded").await.expect("opens");
        let plane = ControlPlane::start(config, store).await.expect("starts");
        connect(&format!("http://{}", plane.grpc_addr()), &open())
            .await
            .expect("a control plane");
        let page = format!("http://{}", plane.page_addr().expect("served"));
        let error = format!("{:#}", connect(&page, &open()).await.expect_err("the page"));
        assert!(
            error.starts_with(&page) && error.contains("is no Equipoise control plane") && error.contains("router's"),
            "{error}"
        );
        // A gRPC server with other services, as etcd is.
        let listener = std::net::TcpListener::bind(any).expect("a port");
        let other = format!("http://{}", listener.local_addr().expect("bound"));
        listener.set_nonblocking(true).expect("for the runtime");
        let listener = tokio::net::TcpListener::from_std(listener).expect("for the runtime");
        let served = tonic::transport::Server::builder()
            .add_routes(tonic::service::Routes::default())
            .serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(listener));
        let served = tokio::spawn(served);
        let error = format!("{:#}", connect(&other, &open()).await.expect_err("another service"));
        assert!(error.contains("is no Equipoise control plane"), "{error}");
        served.abort();
    }

    fn open() -> ControlTls {
        ControlTls::default()
    }

    #[tokio::test]
    async fn addresses_that_cannot_work_say_why() {
        for (control, why) in [
            ("https://127.0.0.1:8090", "--control-ca"),
            ("127.0.0.1:8090", "is no address"),
            ("not a uri", "is no address"),
            ("http://127.0.0.1:1", "no control plane answers"),
        ] {
            let error = format!("{:#}", connect(control, &open()).await.expect_err(control));
            assert!(error.contains(why), "{control}: {error}");
        }
    }
}
