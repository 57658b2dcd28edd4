//! A stand-in for NVIDIA's management library: a shared object with NVML's C ABI, as far as `equipoise-device` calls it,
//! whose GPUs and faults follow a small [script](mod@script). It lets tests and demonstrations meter GPUs where there are none.
//!
//! State: the loaded library owns its GPUs; every copy of the file is loaded with GPUs of its own. The script is the
//! file `<library>.script` beside the loaded library, or else the environment variable `NVML_DOUBLE`: a script, or
//! the path of one. As a Rust library it only finds and installs the shared object for tests.
//! Does not belong here: anything that NVML does not do. This is the only crate with `unsafe` code.
#![expect(unsafe_code, reason = "a C ABI is raw pointers and exported symbols")]

mod abi;
mod gpu;
pub mod script;

use std::io;
use std::path::{Path, PathBuf};

/// Finds the shared object that cargo built beside the running test.
///
/// # Errors
/// If there is none: the running program was not built by cargo with this crate as a dependency.
pub fn built_library() -> io::Result<PathBuf> {
    let program = std::env::current_exe()?;
    let name = |path: &Path| {
        path.file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("libnvml_double"))
    };
    let mut found: Vec<_> = program
        .ancestors()
        .skip(1)
        .take(2)
        .flat_map(|folder| [folder.to_owned(), folder.join("deps")])
        .filter_map(|folder| std::fs::read_dir(folder).ok())
        .flat_map(|entries| entries.flatten().map(|entry| entry.path()))
        .filter(|path| {
            name(path)
                && path
                    .extension()
                    .is_some_and(|end| end == std::env::consts::DLL_EXTENSION)
        })
        .filter_map(|path| Some((path.metadata().ok()?.modified().ok()?, path)))
        .collect();
    found.sort();
    found.pop().map(|(_, path)| path).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::NotFound,
            format!(
                "no libnvml_double beside {}: build nvml-double in the same profile",
                program.display()
            ),
        )
    })
}

/// Copies the shared object into `folder` with `script` beside it and returns the path to load.
///
/// # Errors
/// If there is no shared object, or the files cannot be written.
pub fn install(folder: &Path, script: &str) -> io::Result<PathBuf> {
    let path = folder.join(format!("libnvidia-ml-double.{}", std::env::consts::DLL_EXTENSION));
    std::fs::copy(built_library()?, &path)?;
    std::fs::write(script_beside(&path), script)?;
    Ok(path)
}

/// Where the script of the library at `path` lies.
fn script_beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".script");
    name.into()
}
