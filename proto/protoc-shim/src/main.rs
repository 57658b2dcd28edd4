//! protoc's command line, as far as prost-build uses it, over protox: compiles `.proto` files to one descriptor set.

use std::path::PathBuf;
use std::process::ExitCode;

use protox::Compiler;

/// What prost-build asks of protoc.
#[derive(Debug, Default)]
struct Invocation {
    include_paths: Vec<PathBuf>,
    proto_files: Vec<PathBuf>,
    descriptor_set_out: Option<PathBuf>,
    include_imports: bool,
    include_source_info: bool,
}

fn parse(arguments: impl Iterator<Item = String>) -> Result<Invocation, String> {
    let mut invocation = Invocation::default();
    let mut arguments = arguments;
    while let Some(argument) = arguments.next() {
        let mut value_of = |flag: &str| arguments.next().ok_or_else(|| format!("{flag} wants a value"));
        match argument.as_str() {
            "-I" | "--proto_path" => invocation.include_paths.push(value_of("-I")?.into()),
            "-o" | "--descriptor_set_out" => invocation.descriptor_set_out = Some(value_of("-o")?.into()),
            "--include_imports" => invocation.include_imports = true,
            "--include_source_info" => invocation.include_source_info = true,
            "--experimental_allow_proto3_optional" => {}
            other => {
                if let Some(path) = other.strip_prefix("--proto_path=").or_else(|| other.strip_prefix("-I")) {
                    invocation.include_paths.push(path.into());
                } else if let Some(path) = other
                    .strip_prefix("--descriptor_set_out=")
                    .or_else(|| other.strip_prefix("-o"))
                {
                    invocation.descriptor_set_out = Some(path.into());
                } else if other.starts_with('-') {
                    return Err(format!(
                        "{other} is not understood by this stand-in for protoc; install protoc"
                    ));
                } else {
                    invocation.proto_files.push(other.into());
                }
            }
        }
    }
    Ok(invocation)
}

fn compile(invocation: &Invocation) -> Result<(), String> {
    let out = invocation.descriptor_set_out.as_ref().ok_or("-o FILE is missing")?;
    let mut compiler = Compiler::new(&invocation.include_paths).map_err(|error| error.to_string())?;
    compiler
        .include_imports(invocation.include_imports)
        .include_source_info(invocation.include_source_info);
    compiler
        .open_files(&invocation.proto_files)
        .map_err(|error| error.to_string())?;
    std::fs::write(out, compiler.encode_file_descriptor_set()).map_err(|error| format!("{}: {error}", out.display()))
}

fn main() -> ExitCode {
    if std::env::args().any(|argument| argument == "--version") {
        write_line(&mut std::io::stdout(), "libprotoc 25.0");
        return ExitCode::SUCCESS;
    }
    match parse(std::env::args().skip(1)).and_then(|invocation| compile(&invocation)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            write_line(&mut std::io::stderr(), &format!("equipoise-protoc: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn write_line(out: &mut impl std::io::Write, line: &str) {
    // Nothing is left to tell anybody when the terminal itself is gone.
    drop(writeln!(out, "{line}"));
}
