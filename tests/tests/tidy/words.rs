//! What no file of the repository says. The words are put together here, so that this file does not say them either.

use crate::hold;
use crate::repository::{files, sources, text};

/// `file:line` of every line that contains one of the words.
fn lines_with(files: &[String], words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for file in files {
        let Some(text) = text(file) else { continue };
        for (number, line) in (1..).zip(text.lines()) {
            if let Some(word) = words.iter().find(|word| line.contains(**word)) {
                found.push(format!("{file}:{number} says `{word}`"));
            }
        }
    }
    found
}

#[test]
fn nothing_is_left_to_be_done_later() {
    let words = [
        concat!("to", "do!("),
        concat!("unimpl", "emented!("),
        concat!("FIX", "ME"),
        concat!("X", "XX"),
    ];
    hold(
        "Finish it, or write down in docs/ that it is not there:",
        &lines_with(&sources(), &words),
    );
}

#[test]
fn no_file_names_a_path_of_one_machine() {
    let words = [concat!("/wo", "rk/"), concat!("/ho", "me/"), concat!("/Us", "ers/")];
    hold(
        "Write the path relative to the repository:",
        &lines_with(&files(), &words),
    );
}

/// Where packages come from is the business of whoever builds.
#[test]
fn no_file_names_a_package_registry() {
    let words = [
        concat!("crates", ".io"),
        concat!("py", "pi.org"),
        concat!("npm", "js."),
        concat!("proxy.gol", "ang.org"),
        concat!("python", "hosted.org"),
        concat!("artif", "actory"),
    ];
    let written_by_people: Vec<String> = files().into_iter().filter(|file| file != "Cargo.lock").collect();
    hold("Take the host out:", &lines_with(&written_by_people, &words));
}

/// One source, the public one by its canonical name: builders redirect it in their own configuration.
#[test]
fn the_lock_file_names_the_public_registry_only() {
    let public = concat!("source = \"registry+https://github.com/rust-lang/crates", ".io-index\"");
    let lock = text("Cargo.lock").unwrap_or_default();
    let others = lock
        .lines()
        .filter(|line| line.starts_with("source = ") && *line != public);
    hold(
        "Lock against the public registry:",
        &others.map(str::to_owned).collect::<Vec<_>>(),
    );
}
