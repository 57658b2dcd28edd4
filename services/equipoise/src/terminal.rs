//! The terminal: the only place that prints.

use std::io::Write as _;

/// A line of the answer, to standard output. A reader that has gone (`| head`) is no error.
pub(crate) fn say(text: &str) {
    drop(writeln!(std::io::stdout().lock(), "{text}"));
}

/// A line about trouble or progress, to standard error.
pub(crate) fn complain(text: &str) {
    drop(writeln!(std::io::stderr().lock(), "{text}"));
}

/// Takes the place of the last line on standard error, which must be a terminal.
pub(crate) fn overwrite(text: &str) {
    let mut output = std::io::stderr().lock();
    drop(write!(output, "\r\x1b[2K{text}"));
    drop(output.flush());
}

/// Rows in aligned columns: the first row is the head. Columns whose cells all look like numbers are flushed right.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let cell = |row: &[String], column: usize| row.get(column).cloned().unwrap_or_default();
    let width = |column: usize| {
        rows.iter()
            .map(|row| cell(row, column).chars().count())
            .max()
            .unwrap_or(0)
    };
    let is_number = |text: &str| text.is_empty() || text == "-" || text.starts_with(|c: char| c.is_ascii_digit());
    let right: Vec<bool> = (0..columns)
        .map(|column| rows.iter().skip(1).all(|row| is_number(&cell(row, column))))
        .collect();
    let line = |row: &Vec<String>| {
        let cells: Vec<String> = (0..columns)
            .map(|column| {
                let (text, width) = (cell(row, column), width(column));
                if right[column] {
                    format!("{text:>width$}")
                } else {
                    format!("{text:<width$}")
                }
            })
            .collect();
        cells.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let row = |cells: [&str; 2]| cells.map(str::to_owned).to_vec();
        let text = table(&[row(["name", "running"]), row(["a-long-name", "3"]), row(["b", "12"])]);
        assert_eq!(text, "name         running\na-long-name        3\nb                 12");
    }
}
