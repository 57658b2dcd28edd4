//! Azure's public LLM inference traces, 2023 and 2024 (AzurePublicDataset, CC-BY-4.0): one CSV line per request.

use std::io::BufRead;

use equipoise_types::Timestamp;

use super::csv::Column;
use crate::error::excerpt;
use crate::lines::Lines;
use crate::{TraceError, WorkloadRecord};

const HEADER: &str = "TIMESTAMP,ContextTokens,GeneratedTokens";

/// Which column holds what.
#[derive(Clone, Copy, Debug)]
pub(super) struct AzureColumns {
    time: Column,
    prompt: Column,
    output: Column,
}

impl AzureColumns {
    /// Finds the columns in the header, in any order and case.
    pub(super) fn of_header<R: BufRead>(lines: &Lines<R>) -> Result<Self, TraceError> {
        Ok(Self {
            time: Column::find(lines, "TIMESTAMP", HEADER)?,
            prompt: Column::find(lines, "ContextTokens", HEADER)?,
            output: Column::find(lines, "GeneratedTokens", HEADER)?,
        })
    }

    /// Parses the current line.
    pub(super) fn record<R: BufRead>(&self, lines: &Lines<R>) -> Result<WorkloadRecord, TraceError> {
        let time = self.time.text(lines)?;
        let arrival = parse_time(time)
            .ok_or_else(|| lines.malformed("a time like `2023-11-16 18:15:46.6805900` in TIMESTAMP", excerpt(time)))?;
        Ok(WorkloadRecord {
            arrival,
            prompt_tokens: self.prompt.tokens(lines)?,
            output_tokens: self.output.tokens(lines)?,
            ..WorkloadRecord::default()
        })
    }
}

/// Nanoseconds since 1970 of `YYYY-MM-DD hh:mm:ss[.fraction][Z|+hh:mm]`, `T` or space between date and time.
fn parse_time(text: &str) -> Option<Timestamp> {
    let (date, rest) = text.split_once([' ', 'T'])?;
    let mut date_parts = date.splitn(3, '-');
    let year = number(date_parts.next()?, 1970, 2500)?;
    let month = number(date_parts.next()?, 1, 12)?;
    let day = number(date_parts.next()?, 1, days_of_month(year, month))?;

    let (clock, offset_s) = split_offset(rest)?;
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let mut clock_parts = clock.splitn(3, ':');
    let hour = number(clock_parts.next()?, 0, 23)?;
    let minute = number(clock_parts.next()?, 0, 59)?;
    let second = number(clock_parts.next()?, 0, 60)?;

    let seconds = days_since_1970(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset_s;
    let nanos = u64::try_from(seconds).ok()?.checked_mul(1_000_000_000)?;
    nanos.checked_add(fraction_nanos(fraction)?).map(Timestamp)
}

/// A number of digits only, within bounds.
fn number(text: &str, least: i64, most: i64) -> Option<i64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let value = digits.then(|| text.parse::<i64>().ok()).flatten()?;
    (least..=most).contains(&value).then_some(value)
}

/// Splits a time of day from its distance to UTC, seconds.
fn split_offset(text: &str) -> Option<(&str, i64)> {
    if let Some(clock) = text.strip_suffix('Z') {
        return Some((clock, 0));
    }
    let Some(at) = text.rfind(['+', '-']) else {
        return Some((text, 0));
    };
    let (hours, minutes) = text[at + 1..].split_once(':').unwrap_or((&text[at + 1..], "0"));
    let seconds = number(hours, 0, 14)? * 3600 + number(minutes, 0, 59)? * 60;
    Some((
        &text[..at],
        if text.as_bytes()[at] == b'-' { -seconds } else { seconds },
    ))
}

/// Up to nine digits of a decimal fraction as nanoseconds; more digits are cut.
fn fraction_nanos(digits: &str) -> Option<u64> {
    let mut nanos = 0_u64;
    let mut unit = 100_000_000_u64;
    for byte in digits.bytes() {
        if !byte.is_ascii_digit() {
            return None;
        }
        nanos += u64::from(byte - b'0') * unit;
        unit /= 10;
    }
    Some(nanos)
}

fn days_of_month(year: i64, month: i64) -> i64 {
    let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 in the Gregorian calendar. Years are counted from March, so that the leap day comes last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    year * 365 + year / 4 - year / 100 + year / 400 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(text: &str) -> Option<f64> {
        parse_time(text).map(Timestamp::as_secs_f64)
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(parse_time("1970-01-01 00:00:00"), Some(Timestamp::ZERO));
        // `date -u -d '2023-11-16 18:15:46' +%s`, and with seven digits after the point.
        assert_eq!(
            parse_time("2023-11-16 18:15:46.6805900"),
            Some(Timestamp(1_700_158_546_680_590_000))
        );
        assert_eq!(seconds("2000-02-29 12:00:00"), Some(951_825_600.0));
        assert_eq!(seconds("2024-12-31T23:59:59Z"), Some(1_735_689_599.0));
        assert_eq!(
            parse_time("2024-05-10 00:00:00.009930+00:00"),
            Some(Timestamp(1_715_299_200_009_930_000))
        );
        assert_eq!(seconds("2024-05-10 02:00:00+02:00"), Some(1_715_299_200.0));
        assert_eq!(seconds("2024-05-09 22:30:00-01:30"), Some(1_715_299_200.0));
    }

    #[test]
    fn what_is_no_date_is_refused() {
        for text in [
            "",
            "18:15:46",
            "2023-02-29 00:00:00",
            "2023-13-01 00:00:00",
            "2023-11-16 24:00:00",
            "2023-11-16 1a:00:00",
            "2023-11-16 10:00",
            "2023-11-16 10:00:00.x",
        ] {
            assert_eq!(parse_time(text), None, "{text}");
        }
    }
}
