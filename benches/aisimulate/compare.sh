#!/usr/bin/env bash
# Our simulator beside NVIDIA's aisimulate-core on the same requests, in one run. Needs EQUIPOISE_DATA and, once, a registry.
#
# The peer is a package of its own that is put together here, so that nobody else compiles it.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
package="$(mktemp -d)"
trap 'rm -rf "$package"' EXIT
cat >"$package/Cargo.toml" <<MANIFEST
[package]
name = "aisimulate-speed"
version = "0.1.0"
edition = "2024"
[workspace]
[[bin]]
name = "aisimulate-speed"
path = "$here/replay.rs"
[dependencies]
aisimulate-core = "=0.13.0"
anyhow = "1"
serde_json = "1"
MANIFEST
built="${CARGO_TARGET_DIR:-$here/../../target}/aisimulate"
CARGO_TARGET_DIR="$built" cargo build --quiet --release --manifest-path "$package/Cargo.toml"
cd "$here/../.."
ours() { cargo run --quiet --release -p equipoise-studies --bin simulator-speed -- "$@"; }
for row in round-robin-12:12:10000 round-robin-100:100:100000; do
    IFS=: read -r name workers requests <<<"$row"
    ours "$name" --requests "$requests"
    ours "$name" --requests "$requests" --step-by-step | tail -1
    ours "$name" --requests "$requests" --dump | "$built/release/aisimulate-speed" "$workers" 6400
done
