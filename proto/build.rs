//! Compiles the contracts with protox: no protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let ours = ["fleet", "telemetry", "routing", "energy", "admin", "feedback", "route"];
    let mut files = ours.map(|name| format!("equipoise/v1/{name}.proto")).to_vec();
    files.extend(["envoy/ext_proc.proto", "grpc/health.proto"].map(str::to_owned));
    let descriptors = protox::compile(&files, ["."])?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    for file in &files {
        println!("cargo:rerun-if-changed={file}");
    }
    Ok(())
}
