//! The Prometheus text exposition format 0.0.4 (and OpenMetrics as far as its lines are the same).

use std::borrow::Cow;

/// One line of data: borrowed from the text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample<'a> {
    /// The metric's name.
    pub name: &'a str,
    /// The value; counters may be NaN or infinite in a broken exporter.
    pub value: f64,
    labels: &'a str,
}

/// A line that is not in the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// It does not begin with a metric name.
    #[error("no metric name at the start of the line")]
    Name,
    /// The braces or the quotes of its labels do not match.
    #[error("the labels are not of the form {{name=\"value\",...}}")]
    Labels,
    /// There is no number after the name and labels.
    #[error("no number after the name")]
    Value,
}

/// The samples of a text, in order; comments and empty lines are left out, a bad line is one error and the next follows.
pub fn samples(text: &str) -> impl Iterator<Item = Result<Sample<'_>, LineError>> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(Sample::parse)
}

impl<'a> Sample<'a> {
    fn parse(line: &'a str) -> Result<Self, LineError> {
        let name_end = line.find(|c: char| !is_name(c)).unwrap_or(line.len());
        let (name, rest) = line.split_at(name_end);
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(LineError::Name);
        }
        let rest = rest.trim_start();
        let (labels, rest) = match rest.strip_prefix('{') {
            Some(inside) => {
                let end = labels_end(inside).ok_or(LineError::Labels)?;
                (&inside[..end], &inside[end + 1..])
            }
            None => ("", rest),
        };
        // What follows the value is a time stamp or an exemplar: neither matters here.
        let number = rest.split_ascii_whitespace().next().ok_or(LineError::Value)?;
        Ok(Self {
            name,
            value: number.parse().map_err(|_| LineError::Value)?,
            labels,
        })
    }

    /// The value of the label `name`, if there is one; allocates only if it holds escapes.
    #[must_use]
    pub fn label(&self, name: &str) -> Option<Cow<'a, str>> {
        let mut rest = self.labels;
        while let Some((key, after)) = rest.split_once('=') {
            let inside = after.trim_start().strip_prefix('"')?;
            let end = quote_end(inside)?;
            if key.trim_matches([',', ' ', '\t']) == name {
                return Some(unescape(&inside[..end]));
            }
            rest = &inside[end + 1..];
        }
        None
    }
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == ':'
}

/// The index of the closing brace; braces inside quotes do not count.
fn labels_end(inside: &str) -> Option<usize> {
    let mut at = 0;
    loop {
        at += inside[at..].find(['"', '}'])?;
        if inside.as_bytes()[at] == b'}' {
            return Some(at);
        }
        at += 1;
        at += quote_end(&inside[at..])? + 1;
    }
}

/// The index of the quote that ends a label value.
fn quote_end(inside: &str) -> Option<usize> {
    let mut escaped = false;
    inside.bytes().position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    })
}

fn unescape(raw: &str) -> Cow<'_, str> {
    if !raw.contains('\\') {
        return Cow::Borrowed(raw);
    }
    let mut text = String::with_capacity(raw.len());
    let mut chars = raw.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('n') => text.push('\n'),
                Some(other) => text.push(other),
                None => {}
            },
            plain => text.push(plain),
        }
    }
    Cow::Owned(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn one(line: &str) -> Result<Sample<'_>, LineError> {
        samples(line).next().expect("a line")
    }

    #[test]
    fn lines_of_every_kind_are_read() {
        let text = "# HELP a b\n\na 1\nb{} 2.5e3 1700000000\n  c{x=\"1\", y=\"}\\\"\\\\\\n{\",} +Inf\nd{x=\"1\"}NaN\n";
        let read: Vec<_> = samples(text).collect::<Result<_, _>>().expect("all are good");
        assert_eq!(
            read.iter().map(|sample| sample.name).collect::<Vec<_>>(),
            ["a", "b", "c", "d"]
        );
        assert_eq!(
            (read[0].value, read[1].value, read[2].value),
            (1.0, 2500.0, f64::INFINITY)
        );
        assert!(read[3].value.is_nan());
        assert_eq!(read[2].label("x").as_deref(), Some("1"));
        assert_eq!(read[2].label("y").as_deref(), Some("}\"\\\n{"));
        assert_eq!(read[2].label("z"), None);
        assert!(
            matches!(read[3].label("x"), Some(Cow::Borrowed("1"))),
            "no escape, no allocation"
        );
    }

    #[test]
    fn a_bad_line_does_not_spoil_the_next() {
        let read: Vec<_> = samples("{x=\"1\"} 1\na{x=\"1} 2\na{x=\"1\"}\n9a 1\na one\nb 3").collect();
        assert_eq!(read[0], Err(LineError::Name));
        assert_eq!(read[1], Err(LineError::Labels));
        assert_eq!(read[2], Err(LineError::Value));
        assert_eq!(read[3], Err(LineError::Name));
        assert_eq!(read[4], Err(LineError::Value));
        assert_eq!(read[5].expect("good").value, 3.0);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let text = String::from_utf8_lossy(&bytes);
            for sample in samples(&text).flatten() {
                prop_assert!(sample.label("engine").is_none_or(|value| value.len() <= text.len()));
            }
        }

        #[test]
        fn no_nearly_right_text_makes_it_panic(text in "([a-z:]{0,3}[{]?([a-zé]{0,2}=?\"?[}é\\\\\",=]{0,3}\"?,?){0,3}[}]? ?[0-9.eE+-]{0,4}\n?){0,6}") {
            for sample in samples(&text).flatten() {
                prop_assert!(sample.label("a").is_none_or(|value| value.len() <= text.len()));
            }
        }

        #[test]
        fn what_is_written_is_read(value in any::<f64>(), label in "\\PC{0,20}") {
            let escaped = label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let line = format!("m:x_total{{a=\"0\",l=\"{escaped}\"}} {value}");
            let sample = one(&line).expect("good");
            prop_assert_eq!(sample.value.to_bits(), value.to_bits());
            let read = sample.label("l");
            prop_assert_eq!(read.as_deref(), Some(label.as_str()));
        }
    }
}
