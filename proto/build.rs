//! Compiles the contracts with protox: no protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["fleet", "telemetry", "routing", "energy", "admin", "feedback"]
        .map(|name| format!("equipoise/v1/{name}.proto"));
    let descriptors = protox::compile(&files, ["."])?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    for file in &files {
        println!("cargo:rerun-if-changed={file}");
    }
    Ok(())
}
