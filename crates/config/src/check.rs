//! Everything that is wrong with a file, not only the first of it.

mod walk;

pub(crate) use walk::number;

use std::ops::Range;

use toml::de::DeTable;

use crate::error::Source;
use crate::{ConfigError, ConfigFile, schema};

/// What came of a check.
#[derive(Debug)]
pub struct Checked {
    /// The file, if nothing is wrong with it.
    pub file: Option<ConfigFile>,
    /// Everything wrong with it, from its top to its bottom.
    pub problems: Vec<ConfigError>,
}

/// Examines the text of a file; `origin` stands for its path. Its syntax and its keys are looked at first: only when all of
/// them are right do the values have a meaning that can be wrong.
#[must_use]
pub fn check(text: &str, origin: &str) -> Checked {
    let source = Source { text, origin };
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut found: Vec<(Range<usize>, String)> = errors
        .iter()
        .map(|error| {
            let message = error.message().trim().replace('\n', "; ");
            (error.span().unwrap_or(0..0), message)
        })
        .collect();
    if found.is_empty() {
        walk::table(&schema(), &table, &mut found);
    }
    if found.is_empty() {
        let (file, problems) = ConfigFile::examine(text, origin);
        return Checked { file, problems };
    }
    found.sort_by_key(|(place, _)| place.start);
    found.dedup();
    let problems = found.into_iter().map(|(place, problem)| source.invalid(place, problem));
    Checked {
        file: None,
        problems: problems.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<String> {
        let checked = check(text, "f.toml");
        assert_eq!(checked.file.is_none(), !checked.problems.is_empty());
        checked.problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_files_that_come_with_the_program_are_right_by_their_schema() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/fleets");
        let mut seen = 0;
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let text = std::fs::read_to_string(&path).expect("text");
            let checked = check(&text, &path.display().to_string());
            assert!(
                checked.problems.is_empty(),
                "{}: {:?}",
                path.display(),
                checked.problems
            );
            seen += 1;
        }
        assert!(seen >= 5, "only {seen} files");
    }

    #[test]
    fn every_wrong_key_and_value_is_said_with_its_place() {
        let text = "\
[scheduler]
policy = 3
queue_limt = 5
attempts_max = 0

[scheduler.settings.weights]
quality = -1
latency = 0.5
energy = \"much\"
cost = 0

[scheduler.settings.routebalance]
tie_break = \"coin\"

[tenants.acme]
usd_per_hour = true
labels = { zone = 1 }

[router]
listen = 8080
max_body_bytes = 12

[[model]]
quality = 2

[[pool]]
name = \"a\"
model = \"m\"
count = 1.5
capabilities = [\"tools\", \"magic\"]
colour = \"red\"
";
        let found = problems(text);
        for (line, column, words) in [
            (2, 10, "`policy` is a whole number; it must be a text"),
            (
                3,
                1,
                "`queue_limt` is not known in `scheduler`; did you mean `queue_limit`?",
            ),
            (4, 16, "`attempts_max` is 0; it must be from 1 to 100"),
            (7, 11, "`quality` is -1; it must be 0 or more"),
            (9, 10, "`energy` is a text; it must be a number"),
            (13, 13, "`tie_break` must be one of \"queue\", \"latency\""),
            (16, 16, "`usd_per_hour` is true or false; it must be a number"),
            (17, 19, "`zone` is a whole number; it must be a text"),
            (20, 10, "`listen` is a whole number; it must be a text"),
            (21, 18, "`max_body_bytes` is 12; it must be from 1024 to 1073741824"),
            (23, 1, "`model` has no `name`; it must"),
            (24, 11, "`quality` is 2; it must be from 0 to 1"),
            (29, 9, "`count` is a number; it must be a whole number"),
            (30, 26, "`capabilities` must be one of"),
            (31, 1, "`colour` is not known in `pool`; known are capabilities"),
        ] {
            let start = format!("f.toml:{line}:{column}: {words}");
            assert!(
                found.iter().any(|problem| problem.starts_with(&start)),
                "{start} is not in {found:#?}"
            );
        }
        assert_eq!(found.len(), 15, "{found:#?}");
    }

    #[test]
    fn every_value_without_a_meaning_is_said() {
        let found = problems(
            "[[model]]\nname = \"auto\"\n[[model]]\nname = \"m\"\narchitecture = \"nonsense\"\n\
             [[pool]]\nname = \"a\"\nmodel = \"m\"\ncount = 1\n[[pool]]\nname = \"b\"\nmodel = \"other\"\ncount = 1\n\
             [[pool]]\nname = \"a\"\nmodel = \"m\"\ncount = 1\n",
        );
        assert_eq!(found.len(), 4, "{found:#?}");
        for (problem, words) in found.iter().zip(["auto", "nonsense", "other", "a second [[pool]]"]) {
            assert!(problem.contains(words), "{problem}");
        }
    }

    #[test]
    fn every_slip_of_syntax_is_said() {
        let found = problems("[scheduler\nseed = 1\n[router]\nname = \n");
        assert!(found.len() >= 2, "{found:?}");
    }

    #[test]
    fn services_need_no_fleet_and_a_file_of_nothing_is_wrong() {
        let checked = check(
            "[router]\nlisten = \"0.0.0.0:80\"\n[tracing]\nsample_ratio = 0.1\n",
            "f.toml",
        );
        let file = checked.file.expect("right");
        assert_eq!(file.services.router.listen.map(|listen| listen.0.port()), Some(80));
        assert_eq!(file.services.tracing.sample_ratio, Some(0.1));
        assert!(problems("")[0].contains("the fleet is empty"));
        assert!(problems("[router]\nlisten = \"everywhere\"\n")[0].contains("ip:port"));
    }
}
