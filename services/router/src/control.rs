//! The control plane's stream: fleet state in, the ledger out. Both come back by themselves, and the router serves on
//! what it last knew while they are away.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use equipoise_fleet::FleetDelta;
use equipoise_proto::v1;
use equipoise_proto::v1::routing_service_client::RoutingServiceClient;
use equipoise_proto::v1::routing_update::Update;
use equipoise_scheduler::Event;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};

use crate::server::{StartError, State};
use crate::wire;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const LONGEST_BACKOFF: Duration = Duration::from_secs(1);
/// A heartbeat comes every second: silence for this long is a dead stream.
const SILENCE: Duration = Duration::from_secs(5);
/// While other routers are there, they hear of a change of the ledger so soon after it, with what else has changed by then;
/// later where that would take more than a tenth of the time.
const PUSH_PAUSE: Duration = Duration::from_millis(4);
/// A control plane that has just started may not have heard of every agent yet: what it does not name is kept this long.
const RESTART_GRACE: Duration = Duration::from_secs(10);

/// A channel that connects when it is used.
pub(crate) fn channel(url: &str, tls: Option<ClientTlsConfig>) -> Result<Channel, StartError> {
    let wrong = |reason: String| StartError::Control {
        url: url.to_owned(),
        reason,
    };
    let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|error| wrong(error.to_string()))?;
    let endpoint = match (endpoint.uri().scheme_str(), endpoint.uri().host()) {
        (Some("http"), Some(_)) => endpoint,
        (Some("https"), Some(_)) => endpoint
            .tls_config(tls.unwrap_or_default())
            .map_err(|error| wrong(error.to_string()))?,
        _ => {
            return Err(wrong(
                "it must begin with http:// or https:// and name a host".to_owned(),
            ));
        }
    };
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(Duration::from_secs(2))
        .keep_alive_timeout(Duration::from_secs(3))
        .connect_lazy())
}

/// Runs `attempt` for ever, with a pause that grows while it fails at once.
async fn keep_trying<F: Future<Output = tonic::Status>>(what: &str, mut attempt: impl FnMut() -> F) {
    let mut backoff = FIRST_BACKOFF;
    loop {
        let started = Instant::now();
        let status = attempt().await;
        if started.elapsed() > LONGEST_BACKOFF {
            backoff = FIRST_BACKOFF;
        }
        tracing::warn!("{what} is interrupted ({}); trying again", status.message());
        tokio::time::sleep(backoff).await;
        backoff = (backoff * 2).min(LONGEST_BACKOFF);
    }
}

/// What is known of the control plane's state, across reconnections.
#[derive(Default)]
struct Known {
    epoch: Option<u64>,
    names: BTreeSet<String>,
    /// Not named by a control plane that has just started; gone when this passes.
    unnamed_until: Option<Instant>,
    unnamed: BTreeSet<String>,
}

/// Follows the fleet's state; never returns.
pub(crate) async fn watch(state: Arc<State>, channel: Channel) {
    let known = Arc::new(tokio::sync::Mutex::new(Known::default()));
    keep_trying("the control plane's stream", || {
        let (state, channel, known) = (Arc::clone(&state), channel.clone(), Arc::clone(&known));
        async move {
            let mut known = known.lock().await;
            let status = follow(&state, channel, &mut known).await;
            state.set_connected(false);
            status
        }
    })
    .await;
}

async fn follow(state: &State, channel: Channel, known: &mut Known) -> tonic::Status {
    let mut client = RoutingServiceClient::new(channel).max_decoding_message_size(64 << 20);
    let request = v1::WatchRequest {
        router: state.name.clone(),
        instance: state.process.clone(),
    };
    let mut updates = match tokio::time::timeout(SILENCE, client.watch(request)).await {
        Ok(Ok(response)) => response.into_inner(),
        Ok(Err(status)) => return status,
        Err(_) => return tonic::Status::deadline_exceeded("no answer"),
    };
    loop {
        match tokio::time::timeout(SILENCE, updates.message()).await {
            Ok(Ok(Some(update))) => {
                state.set_connected(true);
                apply(state, known, update);
            }
            Ok(Ok(None)) => return tonic::Status::unavailable("the stream ended"),
            Ok(Err(status)) => return status,
            Err(_) => return tonic::Status::deadline_exceeded("the stream fell silent"),
        }
    }
}

fn apply(state: &State, known: &mut Known, update: v1::RoutingUpdate) {
    match update.update {
        Some(Update::Snapshot(snapshot)) => {
            let restarted = known
                .epoch
                .replace(update.epoch)
                .is_some_and(|epoch| epoch != update.epoch);
            let names: BTreeSet<String> = snapshot
                .instances
                .iter()
                .filter_map(|state| state.instance.as_ref())
                .map(|i| i.name.clone())
                .collect();
            let missing: Vec<String> = known.names.difference(&names).cloned().collect();
            if restarted && !missing.is_empty() {
                known.unnamed.extend(missing);
                known.unnamed_until = Some(Instant::now() + RESTART_GRACE);
            } else {
                for name in missing {
                    remove(state, name);
                }
            }
            known.names = names;
            for instance in snapshot.instances {
                upsert(state, known, instance);
            }
        }
        Some(Update::Delta(delta)) => {
            for instance in delta.upserted {
                if let Some(declared) = &instance.instance {
                    known.names.insert(declared.name.clone());
                }
                upsert(state, known, instance);
            }
            for name in delta.removed {
                known.names.remove(&name);
                remove(state, name);
            }
            for sample in delta.samples {
                let age_s = state.driver.age_s(sample.unix_ns);
                state.driver.on_event(Event::Fleet(wire::sample(sample, age_s)));
            }
            for peer in delta.peers {
                let age_s = match peer.oldest_unix_ns {
                    0 => 0.0,
                    unix_ns => state.driver.age_s(unix_ns),
                };
                state.driver.on_event(Event::Fleet(wire::peers(peer, age_s)));
            }
        }
        Some(Update::Heartbeat(_)) | None => {}
    }
    if known.unnamed_until.is_some_and(|until| Instant::now() >= until) {
        known.unnamed_until = None;
        for name in std::mem::take(&mut known.unnamed) {
            remove(state, name);
        }
    }
}

fn upsert(state: &State, known: &mut Known, instance: v1::InstanceState) {
    let Some(declared) = instance.instance else { return };
    known.unnamed.remove(&declared.name);
    let spec = wire::spec(declared);
    let admin = wire::admin(spec.name.clone(), &instance.admin.unwrap_or_default());
    let sample = instance.sample.map(|sample| {
        let age_s = state.driver.age_s(sample.unix_ns);
        wire::sample(sample, age_s)
    });
    // In one step: nothing is sent there before its client is made and the operator's wish is known.
    state.forecaster.declare(&spec.model);
    let deltas = [FleetDelta::Upsert(spec.clone()), admin].into_iter().chain(sample);
    state.driver.on_events(deltas.map(Event::Fleet), |scheduler| {
        if let Some(id) = scheduler.fleet().id_of(&spec.name) {
            state.engines.declare(id, &spec);
        }
    });
}

fn remove(state: &State, name: String) {
    tracing::info!(instance = name, "is gone");
    state.driver.on_event(Event::Fleet(FleetDelta::Remove { name }));
}

/// Publishes the ledger; never returns.
pub(crate) async fn publish(state: Arc<State>, channel: Channel, interval: Duration) {
    keep_trying("publishing the ledger", || {
        report(Arc::clone(&state), channel.clone(), interval)
    })
    .await;
}

async fn report(state: Arc<State>, channel: Channel, interval: Duration) -> tonic::Status {
    let (sender, receiver) = mpsc::channel(1);
    let mut client = RoutingServiceClient::new(channel);
    let stream = client.publish_ledger(ReceiverStream::new(receiver));
    let feed = async {
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let mut pause = PUSH_PAUSE;
        loop {
            let pushed = tokio::select! {
                _ = ticks.tick() => false,
                () = state.driver.ledger_changed() => {
                    tokio::time::sleep(pause).await;
                    true
                }
            };
            // While the other stream is down this one is likely to be: what is taken now would be lost. It keeps.
            if !state.is_connected() {
                continue;
            }
            // Room first: slices that are taken must be sent.
            let Ok(place) = sender.reserve().await else { return };
            let started = Instant::now();
            place.send(ledger(&state, pushed));
            pause = (9 * started.elapsed()).clamp(PUSH_PAUSE, interval);
        }
    };
    tokio::select! {
        answer = stream => match answer {
            Ok(_) => tonic::Status::unavailable("the control plane ended it"),
            Err(status) => status,
        },
        () = feed => tonic::Status::unavailable("the stream closed"),
    }
}

/// What is in flight; and, where it is not `pushed` between two reports, what has run since the last one.
fn ledger(state: &State, pushed: bool) -> v1::LedgerReport {
    let now = state.driver.now();
    let in_flight = state.driver.with_scheduler(|scheduler| {
        let fleet = scheduler.fleet();
        let report = |instance: &equipoise_fleet::Instance| {
            let load = fleet.ledger().load(now, instance.id);
            (load.in_flight > 0).then(|| v1::InFlight {
                instance: instance.spec.name.clone(),
                requests: load.in_flight,
                pending_prefill_tokens: load.pending_prefill_tokens,
                pending_decode_tokens: load.pending_decode_tokens,
                prefilling: load.prefilling,
                overdue_s: load.overdue_s,
            })
        };
        fleet.iter().filter_map(report).collect()
    });
    v1::LedgerReport {
        router: state.name.clone(),
        unix_ns: state.driver.unix_ns(now),
        in_flight,
        activity: if pushed {
            Vec::new()
        } else {
            state.activity.take(now, |at| state.driver.unix_ns(at))
        },
        in_flight_only: pushed,
    }
}
