#!/usr/bin/env bash
# Our simulator beside NVIDIA's aisimulate-core on the same requests, in one run. Needs EQUIPOISE_DATA and, once, a registry.
set -euo pipefail
cd "$(dirname "$0")/../.."
ours() { cargo run --quiet --release -p equipoise-studies --bin simulator-speed -- "$@"; }
cargo build --quiet --release --manifest-path benches/aisimulate/Cargo.toml
peer="${CARGO_TARGET_DIR:-benches/aisimulate/target}/release/aisimulate-speed"
for row in round-robin-12:12:10000 round-robin-100:100:100000; do
    IFS=: read -r name workers requests <<<"$row"
    ours "$name" --requests "$requests"
    ours "$name" --requests "$requests" --step-by-step | tail -1
    ours "$name" --requests "$requests" --dump | "$peer" "$workers" 6400
done
