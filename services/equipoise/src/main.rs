//! The `equipoise` binary.

fn main() -> std::process::ExitCode {
    equipoise::main()
}
