//! The file's JSON Schema, made from the types that read it.

use serde_json::Value;

use crate::fleet_file::FileTable;

/// The JSON Schema of a configuration file, draft 2020-12.
#[must_use]
pub fn schema() -> Value {
    let mut schema = schemars::schema_for!(FileTable).to_value();
    if let Some(object) = schema.as_object_mut() {
        object.insert("title".to_owned(), "Equipoise configuration file".into());
        let about = "One file for a fleet and its services; see docs/config.md.";
        object.insert("description".to_owned(), about.into());
    }
    schema
}
