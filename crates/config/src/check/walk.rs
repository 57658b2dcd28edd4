//! A TOML document beside the JSON Schema of its types: as much of the language as those schemas use.

use std::ops::Range;

use serde_json::{Map, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Problems, each with its place in the text.
type Found = Vec<(Range<usize>, String)>;

/// A closer name than this many changes is worth asking for.
const NEAR: usize = 2;

struct Walk<'s> {
    root: &'s Value,
}

/// Walks a whole document.
pub(super) fn table(schema: &Value, document: &Spanned<DeTable<'_>>, found: &mut Found) {
    let walk = Walk { root: schema };
    walk.members(schema, document.get_ref(), &document.span(), "the file", found);
}

impl<'s> Walk<'s> {
    fn resolve(&self, schema: &'s Value) -> &'s Value {
        let name = schema.get("$ref").and_then(Value::as_str);
        let target = name.and_then(|name| self.root.pointer(name.trim_start_matches('#')));
        target.map_or(schema, |target| self.resolve(target))
    }

    /// The alternatives of a schema, but for `null`, which TOML does not have.
    fn alternatives(&self, schema: &'s Value) -> Vec<&'s Value> {
        let schema = self.resolve(schema);
        let any = ["anyOf", "oneOf"].iter().find_map(|key| schema.get(key)?.as_array());
        match any {
            Some(any) => any
                .iter()
                .flat_map(|one| self.alternatives(one))
                .filter(|one| one.get("type").and_then(Value::as_str) != Some("null"))
                .collect(),
            None => vec![schema],
        }
    }

    fn members(&self, schema: &'s Value, table: &DeTable<'_>, place: &Range<usize>, what: &str, found: &mut Found) {
        let properties = schema.get("properties").and_then(Value::as_object);
        let known = |name: &str| properties.and_then(|properties| properties.get(name));
        for (key, value) in table {
            let name = key.get_ref();
            if let Some(schema) = known(name) {
                self.value(schema, value, name, found);
                continue;
            }
            match schema.get("additionalProperties") {
                Some(Value::Bool(false)) => found.push((key.span(), unknown(name, what, properties))),
                Some(others @ Value::Object(_)) => self.value(others, value, name, found),
                _ => {}
            }
        }
        let required = schema.get("required").and_then(Value::as_array).into_iter().flatten();
        for name in required.filter_map(Value::as_str) {
            if !table.keys().any(|key| key.get_ref() == name) {
                found.push((place.clone(), format!("{what} has no `{name}`; it must")));
            }
        }
    }

    fn value(&self, schema: &'s Value, value: &Spanned<DeValue<'_>>, name: &str, found: &mut Found) {
        let alternatives = self.alternatives(schema);
        let mut best: Option<Found> = None;
        for alternative in &alternatives {
            let mut problems = Found::new();
            self.one(alternative, value, name, &mut problems);
            if problems.is_empty() {
                return;
            }
            // Of several ways to be right, the one that is missed in fewest places was meant.
            if best.as_ref().is_none_or(|best| problems.len() < best.len()) {
                best = Some(problems);
            }
        }
        let words: Vec<String> = alternatives
            .iter()
            .filter_map(|one| one.get("const"))
            .map(Value::to_string)
            .collect();
        if words.len() > 1 && words.len() == alternatives.len() {
            found.push((value.span(), format!("`{name}` must be one of {}", words.join(", "))));
        } else {
            found.extend(best.unwrap_or_default());
        }
    }

    fn one(&self, schema: &'s Value, value: &Spanned<DeValue<'_>>, name: &str, found: &mut Found) {
        let place = value.span();
        let kinds = kinds(schema);
        let kind = kind_of(value.get_ref());
        // A whole number is a number.
        let fits = |wanted: &&str| *wanted == kind || (*wanted == "number" && kind == "integer");
        if !kinds.is_empty() && !kinds.iter().any(fits) {
            let wanted: Vec<&str> = kinds.iter().map(|kind| in_words(kind)).collect();
            let problem = format!("`{name}` is {}; it must be {}", in_words(kind), wanted.join(" or "));
            found.push((place, problem));
            return;
        }
        match value.get_ref() {
            DeValue::Table(table) => self.members(schema, table, &place, &format!("`{name}`"), found),
            DeValue::Array(items) => {
                for item in items {
                    if let Some(schema) = schema.get("items") {
                        self.value(schema, item, name, found);
                    }
                }
            }
            DeValue::String(text) => {
                let words = schema.get("enum").and_then(Value::as_array);
                let constant = schema.get("const").map(std::slice::from_ref);
                if let Some(words) = words.map(Vec::as_slice).or(constant)
                    && !words.iter().any(|word| word.as_str() == Some(text))
                {
                    let words: Vec<String> = words.iter().map(Value::to_string).collect();
                    found.push((
                        place,
                        format!("`{name}` is {text:?}; it must be one of {}", words.join(", ")),
                    ));
                }
            }
            DeValue::Integer(_) | DeValue::Float(_) => {
                if let Some(number) = number(value.get_ref()) {
                    bounds(schema, number, name, place, found);
                }
            }
            DeValue::Boolean(_) | DeValue::Datetime(_) => {}
        }
    }
}

fn unknown(name: &str, what: &str, properties: Option<&Map<String, Value>>) -> String {
    let known: Vec<&str> = properties.into_iter().flat_map(Map::keys).map(String::as_str).collect();
    let near = known.iter().min_by_key(|candidate| distance(candidate, name));
    match near.filter(|near| distance(near, name) <= NEAR) {
        Some(near) => format!("`{name}` is not known in {what}; did you mean `{near}`?"),
        None => format!("`{name}` is not known in {what}; known are {}", known.join(", ")),
    }
}

/// Levenshtein's distance.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in other.iter().enumerate() {
            let changed = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}

fn kinds(schema: &Value) -> Vec<&str> {
    match schema.get("type") {
        Some(Value::String(kind)) => vec![kind],
        Some(Value::Array(kinds)) => {
            let kinds = kinds.iter().filter_map(Value::as_str);
            kinds.filter(|kind| *kind != "null").collect()
        }
        _ => Vec::new(),
    }
}

fn kind_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "string",
        DeValue::Integer(_) => "integer",
        DeValue::Float(_) => "number",
        DeValue::Boolean(_) => "boolean",
        DeValue::Datetime(_) => "date",
        DeValue::Array(_) => "array",
        DeValue::Table(_) => "object",
    }
}

fn in_words(kind: &str) -> &str {
    match kind {
        "string" => "a text",
        "integer" => "a whole number",
        "number" => "a number",
        "boolean" => "true or false",
        "array" => "a list",
        "object" => "a table",
        "date" => "a date",
        other => other,
    }
}

/// The value of a number as it is written.
pub(crate) fn number(value: &DeValue<'_>) -> Option<f64> {
    match value {
        DeValue::Integer(integer) => i64::from_str_radix(integer.as_str(), integer.radix())
            .ok()
            .map(|integer| integer as f64),
        DeValue::Float(float) => float.as_str().parse().ok(),
        _ => None,
    }
}

fn bounds(schema: &Value, number: f64, name: &str, place: Range<usize>, found: &mut Found) {
    let bound = |key: &str| schema.get(key).and_then(Value::as_f64);
    let (least, most) = (bound("minimum"), bound("maximum"));
    let inside = least.is_none_or(|least| number >= least) && most.is_none_or(|most| number <= most);
    if !inside || number.is_nan() {
        let range = match (least, most) {
            (Some(least), Some(most)) => format!("from {least} to {most}"),
            (Some(least), None) => format!("{least} or more"),
            (None, Some(most)) => format!("{most} or less"),
            (None, None) => "a number".to_owned(),
        };
        found.push((place, format!("`{name}` is {number}; it must be {range}")));
    }
}
