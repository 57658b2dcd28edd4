//! Output: aligned rows on standard output.

use std::io::Write as _;

/// Prints a line. A reader that has gone (`| head`) is no error.
pub fn say(text: &str) {
    drop(writeln!(std::io::stdout().lock(), "{text}"));
}

/// Rows in aligned columns; the first row is the head, the first column is flushed left and all others right.
#[must_use]
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
    };
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
            if column == 0 {
                format!("{cell:<width$}")
            } else {
                format!("{cell:>width$}")
            }
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let row = |cells: [&str; 2]| cells.map(str::to_owned).to_vec();
        let text = table(&[row(["name", "ms"]), row(["a", "3.25"]), row(["long", "1"])]);
        assert_eq!(text, "name    ms\na     3.25\nlong     1");
    }
}
