//! The product's binary under a name of its own, so that tests always run what was just built.

fn main() -> std::process::ExitCode {
    equipoise::main()
}
