//! Modelled beside measured, and what that comes to.

/// Which half of the rows: constants are fitted on one, scored on the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Half {
    Fitted,
    HeldOut,
}

impl Half {
    /// The half of a row, by the CRC-32 of what names it: even rows are fitted on.
    pub(super) fn of(id: &str) -> Self {
        if crc32(id.as_bytes()) & 1 == 0 {
            Self::Fitted
        } else {
            Self::HeldOut
        }
    }
}

/// CRC-32 as zlib computes it, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            (crc >> 1) ^ (0xEDB8_8320 & 0_u32.wrapping_sub(crc & 1))
        })
    })
}

/// One figure of one row.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Comparison {
    /// What is compared, with its source: rows of a table.
    pub(super) set: String,
    /// Which figure: TPOT, TTFT, W, J/token, ...
    pub(super) figure: &'static str,
    /// The half that the row belongs to.
    pub(super) half: Half,
    pub(super) modelled: f64,
    pub(super) measured: f64,
}

impl Comparison {
    fn error(&self) -> f64 {
        self.modelled / self.measured - 1.0
    }
}

/// Errors of a group of rows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Errors {
    pub(super) rows: usize,
    /// Median of the absolute relative error.
    pub(super) median: f64,
    /// Its 90th percentile.
    pub(super) p90: f64,
    /// Median of the signed relative error.
    pub(super) bias: f64,
}

/// Errors of the rows that are asked for; `None` without any.
pub(super) fn errors(all: &[Comparison], wanted: impl Fn(&Comparison) -> bool) -> Option<Errors> {
    let mut signed: Vec<f64> = all.iter().filter(|row| wanted(row)).map(Comparison::error).collect();
    signed.sort_by(f64::total_cmp);
    let mut absolute: Vec<f64> = signed.iter().map(|error| error.abs()).collect();
    absolute.sort_by(f64::total_cmp);
    let quantile = equipoise_types::quantile_of_sorted;
    Some(Errors {
        rows: signed.len(),
        median: quantile(&absolute, 0.5)?,
        p90: quantile(&absolute, 0.9)?,
        bias: quantile(&signed, 0.5)?,
    })
}

/// A table of errors by set and figure, for one half.
pub(super) fn summary(all: &[Comparison], half: Half) -> Vec<Vec<String>> {
    let mut rows = vec![
        ["figure", "set", "rows", "median", "p90", "bias"]
            .map(str::to_owned)
            .to_vec(),
    ];
    let mut keys: Vec<(&str, &str)> = all.iter().map(|row| (row.figure, row.set.as_str())).collect();
    keys.sort_unstable();
    keys.dedup();
    for (figure, set) in keys {
        let wanted = |row: &Comparison| row.half == half && row.figure == figure && row.set == set;
        if let Some(errors) = errors(all, wanted) {
            rows.push(vec![
                figure.to_owned(),
                set.to_owned(),
                errors.rows.to_string(),
                percent(errors.median),
                percent(errors.p90),
                format!("{:+.1} %", 100.0 * errors.bias),
            ]);
        }
    }
    rows
}

pub(super) fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

/// Where the measurements lie, for tests; without them a test says aloud that it is skipped.
#[cfg(test)]
pub(super) fn data() -> Option<std::path::PathBuf> {
    let folder = std::env::var("EQUIPOISE_DATA").map(std::path::PathBuf::from);
    let folder =
        folder.unwrap_or_else(|_| std::path::PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"));
    let there = folder.join("performance").is_dir();
    if !there {
        eprintln!(
            "SKIPPED: no {}: set EQUIPOISE_DATA to score against measurements",
            folder.display()
        );
    }
    there.then_some(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_that_of_zlib() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
        assert_eq!(Half::of("123456789"), Half::Fitted);
    }

    #[test]
    fn errors_are_medians_over_the_rows_asked_for() {
        let row = |figure, modelled| Comparison {
            set: "s".to_owned(),
            figure,
            half: Half::HeldOut,
            modelled,
            measured: 1.0,
        };
        let all = [row("a", 1.1), row("a", 0.8), row("a", 0.7), row("b", 9.0)];
        let errors = errors(&all, |row| row.figure == "a").expect("three rows");
        assert_eq!(errors.rows, 3);
        assert!((errors.median - 0.2).abs() < 1e-12 && (errors.bias + 0.2).abs() < 1e-12);
        assert_eq!(summary(&all, Half::HeldOut).len(), 3);
        assert_eq!(summary(&all, Half::Fitted).len(), 1);
    }
}
