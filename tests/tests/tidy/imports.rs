//! Who may import whom. Pure crates decide and compute; they see nothing that acts. The tables below are the
//! architecture: a new edge fails here until somebody agrees to it by adding it.

use crate::hold;
use crate::repository::{crates, table};

/// No input or output, no clock, no task: what is computed depends on arguments alone. Each sees those before it that
/// its line in [`ALLOWED`] names.
pub(crate) const PURE: &[&str] = &[
    "types",
    "engine",
    "predict",
    "estimate",
    "fleet",
    "policy",
    "scheduler",
    "energy",
    "chart",
];
/// Formats of files.
const FILES: &[&str] = &["trace", "config"];
/// Clients of the outside world.
const EDGE: &[&str] = &["proto", "telemetry", "store", "openai", "backend", "device"];
const SERVICES: &[&str] = &["router", "control-plane", "agent", "emulator"];

/// A crate (without the `equipoise-` before its name) and the crates of the workspace that it may import.
const ALLOWED: &[(&str, &[&[&str]])] = &[
    ("types", &[]),
    ("engine", &[&["types"]]),
    ("predict", &[&["types"]]),
    ("estimate", &[&["types", "engine", "predict"]]),
    ("fleet", &[&["types", "engine", "predict", "estimate"]]),
    ("policy", &[&["types", "engine", "predict", "estimate", "fleet"]]),
    ("scheduler", &[&["types", "engine", "estimate", "fleet", "policy"]]),
    ("energy", &[&["types"]]),
    ("chart", &[]),
    ("trace", &[PURE]),
    ("config", &[PURE]),
    ("simulator", &[PURE, FILES]),
    ("proto", &[]),
    ("telemetry", &[PURE, &["proto"]]),
    ("store", &[PURE, &["proto"]]),
    ("openai", &[PURE, &["proto"]]),
    ("backend", &[PURE, &["proto", "openai"]]),
    ("device", &[PURE, &["proto"]]),
    ("router", &[PURE, FILES, EDGE]),
    ("control-plane", &[PURE, FILES, EDGE]),
    ("agent", &[PURE, FILES, EDGE]),
    ("emulator", &[PURE, FILES, EDGE]),
    ("equipoise", &[PURE, FILES, EDGE, SERVICES, &["simulator"]]),
    ("tests", &[&["equipoise"]]),
    ("studies", &[PURE, FILES, &["simulator"]]),
    ("benches", &[PURE, FILES, EDGE, SERVICES, &["simulator", "equipoise"]]),
    // A build tool and a stand-in for a driver: nobody's code.
    ("protoc", &[]),
    ("nvml-double", &[]),
];

/// Packages that only these crates may use, each for its reason: a heavy or an acting dependency has one home.
const HOMES: &[(&str, &[&str])] = &[
    ("tonic", &["proto", "control-plane", "agent", "router", "equipoise"]),
    ("tonic-prost", &["proto"]),
    ("tonic-prost-build", &["proto"]),
    ("prost", &["proto", "control-plane"]),
    ("protox", &["proto", "protoc"]),
    ("nvml-wrapper", &["device"]),
    ("etcd-client", &["store"]),
    ("redb", &["store"]),
    ("parquet", &["trace"]),
    ("axum", &["control-plane", "agent"]),
    ("dashmap", &["router", "control-plane"]),
    ("prometheus-client", &["telemetry", "router"]),
    ("opentelemetry", &["telemetry"]),
    ("opentelemetry_sdk", &["telemetry"]),
    ("tracing-subscriber", &["telemetry"]),
    ("hdrhistogram", &["telemetry", "simulator", "benches"]),
    ("rand", &["types"]),
    ("rand_distr", &["types"]),
    ("rand_pcg", &["types"]),
    ("clap", &["equipoise", "benches", "studies"]),
    // Libraries say what is wrong in types of their own.
    ("anyhow", &["equipoise", "benches", "studies"]),
];

/// Packages that act: sockets, tasks, clocks, locks, logs, or the operating system's randomness.
const ACTING: &[&str] = &[
    "tokio",
    "tokio-stream",
    "tokio-util",
    "hyper",
    "hyper-util",
    "axum",
    "tonic",
    "tracing",
    "parking_lot",
    "dashmap",
    "getrandom",
    "fastrand",
];

/// `equipoise-fleet` is called `fleet` in the tables.
fn short(name: &str) -> &str {
    name.strip_prefix("equipoise-").unwrap_or(name)
}

#[test]
fn crates_import_only_what_the_table_allows() {
    let ours: Vec<String> = crates().into_iter().map(|krate| krate.name).collect();
    let mut offenders = Vec::new();
    for krate in crates() {
        let Some((_, allowed)) = ALLOWED.iter().find(|(name, _)| *name == short(&krate.name)) else {
            offenders.push(format!("{} is not in the table", krate.name));
            continue;
        };
        for (dependency, _) in krate.dependencies() {
            let permitted = allowed.iter().any(|layer| layer.contains(&short(&dependency)));
            if ours.contains(&dependency) && !permitted {
                offenders.push(format!("{} imports {dependency}", krate.name));
            }
        }
    }
    hold(
        "An import against the layers; move the code, or agree to the edge in ALLOWED:",
        &offenders,
    );
}

#[test]
fn every_line_of_the_table_is_a_crate() {
    let ours: Vec<String> = crates()
        .into_iter()
        .map(|krate| short(&krate.name).to_owned())
        .collect();
    let gone = ALLOWED.iter().filter(|(name, _)| !ours.iter().any(|ours| ours == name));
    let gone: Vec<String> = gone.map(|(name, _)| (*name).to_owned()).collect();
    hold("No such crate any more; take its line out of ALLOWED:", &gone);
}

#[test]
fn nothing_that_acts_is_in_a_crate_that_computes() {
    let mut offenders = Vec::new();
    for krate in crates() {
        let name = short(&krate.name);
        if !(PURE.contains(&name) || FILES.contains(&name) || name == "simulator") {
            continue;
        }
        let acting = krate
            .dependencies()
            .into_iter()
            .filter(|(name, _)| ACTING.contains(&name.as_str()));
        offenders.extend(acting.map(|(dependency, _)| format!("{} uses {dependency}", krate.name)));
    }
    hold(
        "These crates take time, randomness and input as arguments; act in a service:",
        &offenders,
    );
}

#[test]
fn heavy_packages_stay_in_their_homes() {
    let mut offenders = Vec::new();
    for krate in crates() {
        for (dependency, _) in krate.dependencies() {
            let home = HOMES.iter().find(|(name, _)| *name == dependency);
            if home.is_some_and(|(_, homes)| !homes.contains(&short(&krate.name))) {
                offenders.push(format!("{} uses {dependency}", krate.name));
            }
        }
    }
    hold(
        "A package outside its home; use the crate that wraps it, or agree in HOMES:",
        &offenders,
    );
}

/// A random draw that nobody seeded cannot be replayed.
#[test]
fn randomness_never_comes_from_the_operating_system() {
    const FROM_THE_SYSTEM: &[&str] = &["std", "os_rng", "sys_rng", "thread_rng"];
    let features = |details: &toml::Value| -> Vec<String> {
        let listed = details.get("features").and_then(toml::Value::as_array);
        let names = listed.into_iter().flatten().filter_map(toml::Value::as_str);
        names.map(str::to_owned).collect()
    };
    let workspace = table("Cargo.toml");
    let rand = workspace["workspace"]["dependencies"]["rand"].clone();
    assert_eq!(
        rand.get("default-features").and_then(toml::Value::as_bool),
        Some(false),
        "rand's default features read the system's randomness"
    );
    let mut offenders = Vec::new();
    let everywhere = crates().into_iter().flat_map(|krate| {
        let of_crate = krate.dependencies().into_iter().filter(|(name, _)| name == "rand");
        of_crate
            .map(|(_, details)| (krate.name.clone(), details))
            .collect::<Vec<_>>()
    });
    for (place, details) in everywhere.chain([("the workspace".to_owned(), rand)]) {
        let bad = features(&details)
            .into_iter()
            .filter(|name| FROM_THE_SYSTEM.contains(&name.as_str()));
        offenders.extend(bad.map(|feature| format!("{place}: rand with `{feature}`")));
    }
    hold("Draw from a seeded RandomStream instead:", &offenders);
}
