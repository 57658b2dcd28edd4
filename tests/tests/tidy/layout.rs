//! How files and crates look.

use crate::hold;
use crate::imports::PURE;
use crate::repository::{crates, files, sources, text};

const MAX_LINES: usize = 800;

/// Names that say nothing of what is inside.
const EMPTY_NAMES: &[&str] = &[
    "util",
    "utils",
    "utility",
    "utilities",
    "helper",
    "helpers",
    "manager",
    "managers",
    "common",
    "misc",
];

#[test]
fn no_file_is_longer_than_a_reader_can_hold() {
    let lengths = sources().into_iter().filter_map(|file| {
        let lines = text(&file)?.lines().count();
        (lines > MAX_LINES).then(|| format!("{file} has {lines} lines"))
    });
    hold("At most 800 lines a file; split by idea:", &lengths.collect::<Vec<_>>());
}

#[test]
fn every_crate_says_what_it_is_for() {
    let roots = sources()
        .into_iter()
        .filter(|file| ["/src/lib.rs", "/src/main.rs"].iter().any(|root| file.ends_with(root)));
    let silent = roots.filter(|file| !text(file).unwrap_or_default().starts_with("//!"));
    hold(
        "Begins without `//!`; say what it is for and what does not belong:",
        &silent.collect::<Vec<_>>(),
    );
}

#[test]
fn every_crate_takes_the_lints_of_the_workspace() {
    let inherits = |krate: &crate::repository::Crate| {
        let lints = krate.manifest.get("lints").and_then(|lints| lints.get("workspace"));
        lints.and_then(toml::Value::as_bool) == Some(true)
    };
    let without = crates().into_iter().filter(|krate| !inherits(krate));
    let names: Vec<String> = without.map(|krate| krate.folder).collect();
    hold("Add `[lints]` with `workspace = true` to Cargo.toml:", &names);
}

/// A crate's own `clippy.toml` replaces the workspace's: it has to be complete.
#[test]
fn pure_crates_ban_clocks_threads_the_environment_and_unordered_maps() {
    const BANNED: &[&str] = &[
        "std::time::Instant::now",
        "std::time::SystemTime::now",
        "std::thread::spawn",
        "std::thread::sleep",
        "std::env::var",
        "std::env::set_var",
        "std::collections::HashMap",
        "std::collections::HashSet",
        "std::sync::Mutex",
        "std::sync::RwLock",
    ];
    let all = files();
    let mut offenders = Vec::new();
    for name in PURE {
        let file = format!("crates/{name}/clippy.toml");
        if !all.contains(&file) {
            offenders.push(format!("{file} is missing"));
            continue;
        }
        let rules = text(&file).unwrap_or_default();
        let missing = BANNED
            .iter()
            .filter(|path| !rules.contains(&format!("path = \"{path}\"")));
        offenders.extend(missing.map(|path| format!("{file} does not ban {path}")));
    }
    hold("Copy the bans from crates/types/clippy.toml:", &offenders);
}

#[test]
fn names_say_what_is_inside() {
    let empty = |name: &str| name.split(['_', '-']).any(|word| EMPTY_NAMES.contains(&word));
    let mut offenders: Vec<String> = sources()
        .into_iter()
        .filter(|file| file.trim_end_matches(".rs").split('/').any(empty))
        .collect();
    offenders.extend(crates().into_iter().map(|krate| krate.name).filter(|name| empty(name)));
    hold("Name it for its one idea:", &offenders);
}

#[test]
fn modules_are_files_beside_their_folders() {
    let old = sources().into_iter().filter(|file| file.ends_with("/mod.rs"));
    hold("Call it foo.rs beside foo/:", &old.collect::<Vec<_>>());
}
