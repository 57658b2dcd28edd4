//! The repository as data: its files, and the manifests of its crates.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Where the workspace begins.
pub(crate) fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("tests/ lies in the workspace").to_owned()
}

/// Every file of the repository, relative to the root, with `/` between folders: what git knows of, or, in a copy
/// without git, all but build outputs.
pub(crate) fn files() -> Vec<String> {
    let listed = Command::new("git")
        .args(["ls-files", "-z"])
        .current_dir(root())
        .output();
    let mut files: Vec<String> = match listed {
        Ok(output) if output.status.success() => {
            let names = String::from_utf8(output.stdout).expect("file names are UTF-8");
            names
                .split_terminator('\0')
                .filter(|name| root().join(name).is_file())
                .map(str::to_owned)
                .collect()
        }
        _ => {
            let mut found = Vec::new();
            walk(&root(), &mut found);
            found
        }
    };
    files.sort();
    assert!(files.len() > 100, "only {} files: is this the repository?", files.len());
    files
}

fn walk(folder: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).expect("a folder can be listed") {
        let path = entry.expect("an entry can be read").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_symlink() || ["target", ".git"].contains(&name.as_str()) {
            continue;
        }
        if path.is_dir() {
            walk(&path, found);
        } else {
            let relative = path.strip_prefix(root()).expect("it lies in the repository");
            found.push(relative.to_string_lossy().replace('\\', "/"));
        }
    }
}

/// The Rust files.
pub(crate) fn sources() -> Vec<String> {
    files().into_iter().filter(|file| is_rust(file)).collect()
}

fn is_rust(file: &str) -> bool {
    Path::new(file).extension().is_some_and(|extension| extension == "rs")
}

/// A file's text; `None` for one that is not text.
pub(crate) fn text(file: &str) -> Option<String> {
    let bytes = std::fs::read(root().join(file)).unwrap_or_else(|error| panic!("{file} cannot be read: {error}"));
    String::from_utf8(bytes).ok().filter(|text| !text.contains('\0'))
}

/// One crate of the workspace.
pub(crate) struct Crate {
    /// As other manifests call it.
    pub(crate) name: String,
    /// Relative to the root.
    pub(crate) folder: String,
    pub(crate) manifest: toml::Table,
}

/// Every crate of the workspace.
pub(crate) fn crates() -> Vec<Crate> {
    let manifests = files().into_iter().filter(|file| file.ends_with("/Cargo.toml"));
    manifests
        .map(|file| {
            let manifest = table(&file);
            let name = manifest["package"]["name"].as_str().expect("a name").to_owned();
            let folder = file.trim_end_matches("/Cargo.toml").to_owned();
            Crate { name, folder, manifest }
        })
        .collect()
}

/// A TOML file of the repository.
pub(crate) fn table(file: &str) -> toml::Table {
    let text = text(file).unwrap_or_else(|| panic!("{file} is no text"));
    text.parse().unwrap_or_else(|error| panic!("{file}: {error}"))
}

impl Crate {
    /// What its product needs, with each entry's details: not what only its tests need.
    pub(crate) fn dependencies(&self) -> Vec<(String, toml::Value)> {
        let mut sections = vec![&self.manifest];
        let targets = self.manifest.get("target").and_then(toml::Value::as_table);
        sections.extend(
            targets
                .into_iter()
                .flatten()
                .filter_map(|(_, target)| target.as_table()),
        );
        let tables = sections.into_iter().flat_map(|section| {
            ["dependencies", "build-dependencies"].map(|kind| section.get(kind).and_then(toml::Value::as_table))
        });
        let entries = tables.flatten().flatten();
        entries.map(|(name, details)| (name.clone(), details.clone())).collect()
    }
}
