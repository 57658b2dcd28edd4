//! Where a setting of `[scheduler]` stands, for errors of those who own the settings and know nothing of files.

use std::ops::Range;

use equipoise_policy::SettingsError;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::check::number;
use crate::error::Source;

/// The place of the value that `error` is about; `None` if the file does not have it.
pub(super) fn place(source: &Source<'_>, error: &SettingsError) -> Option<Range<usize>> {
    let root = DeTable::parse(source.text).ok()?;
    let section = root.get_ref().get("scheduler")?.get_ref().as_table()?;
    match error {
        SettingsError::UnknownPolicy { .. } => section.get("policy").map(Spanned::span),
        SettingsError::Range { name, value, .. }
        | SettingsError::Weight { name, value }
        | SettingsError::Reference { name, value } => find(section, name, *value),
    }
}

/// The first key called `name` with this value, in the table or in one inside it: two policies may each have a weight of
/// that name.
fn find(table: &DeTable<'_>, name: &str, value: f64) -> Option<Range<usize>> {
    table.iter().find_map(|(key, entry)| match entry.get_ref() {
        DeValue::Table(inner) => find(inner, name, value),
        DeValue::Integer(_) | DeValue::Float(_) if key.get_ref() == name => {
            let written = number(entry.get_ref())?;
            (written == value || (written.is_nan() && value.is_nan())).then(|| entry.span())
        }
        _ => None,
    })
}
