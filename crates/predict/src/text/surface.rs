//! What can be seen of a prompt without understanding it: size, digits, marks of code and LaTeX, options, script.

use super::read_window;

/// How many surface features there are.
pub(crate) const SURFACE_FEATURES: usize = 34;

/// Counts of one pass over a text.
#[derive(Default)]
struct Counts {
    characters: f64,
    words: f64,
    word_characters: f64,
    lines: f64,
    digits: f64,
    upper: f64,
    spaces: f64,
    other: f64,
    beyond_ascii: f64,
    dollars: f64,
    backslashes: f64,
    brackets: f64,
    comparisons: f64,
    operators: f64,
    stops: f64,
    commas: f64,
    questions: f64,
    underscores: f64,
    quotes: f64,
    numbers: f64,
    largest_number: f64,
    sum_log_numbers: f64,
}

impl Counts {
    fn of(text: &str) -> Self {
        let mut counts = Self::default();
        let mut in_word = false;
        let mut number: Option<f64> = None;
        for byte in text.bytes() {
            if (byte & 0xc0) == 0x80 {
                continue; // not the first byte of its character
            }
            counts.characters += 1.0;
            if byte.is_ascii_digit() {
                counts.digits += 1.0;
                number = Some((number.unwrap_or(0.0) * 10.0 + f64::from(byte - b'0')).min(1e6));
            } else if byte != b',' {
                counts.end_number(&mut number);
            }
            let space = byte.is_ascii_whitespace();
            if space {
                counts.spaces += 1.0;
                in_word = false;
            } else {
                if !in_word {
                    counts.words += 1.0;
                }
                in_word = true;
                counts.word_characters += 1.0;
            }
            match byte {
                b'\n' => counts.lines += 1.0,
                b'$' => counts.dollars += 1.0,
                b'\\' => counts.backslashes += 1.0,
                b'(' | b')' | b'[' | b']' | b'{' | b'}' => counts.brackets += 1.0,
                b'=' | b'<' | b'>' => counts.comparisons += 1.0,
                b'+' | b'-' | b'*' | b'/' | b'^' | b'%' => counts.operators += 1.0,
                b'.' => counts.stops += 1.0,
                b',' => counts.commas += 1.0,
                b'?' => counts.questions += 1.0,
                b'_' => counts.underscores += 1.0,
                b'\'' | b'"' => counts.quotes += 1.0,
                byte if byte >= 0x80 => counts.beyond_ascii += 1.0,
                _ => {}
            }
            if byte.is_ascii_uppercase() {
                counts.upper += 1.0;
            }
            if byte.is_ascii_punctuation() {
                counts.other += 1.0;
            }
        }
        counts.end_number(&mut number);
        counts
    }

    fn end_number(&mut self, number: &mut Option<f64>) {
        if let Some(value) = number.take() {
            self.numbers += 1.0;
            self.largest_number = self.largest_number.max(value);
            self.sum_log_numbers += value.ln_1p();
        }
    }
}

/// Lettered options ("A. ..." to "J. ...", one a line): how many, and of their lengths mean, longest and spread, logarithms.
fn options(text: &str) -> [f64; 4] {
    let (mut count, mut sum, mut square, mut longest) = (0.0, 0.0, 0.0, 0.0_f64);
    for line in text.lines() {
        let bytes = line.as_bytes();
        if bytes.len() >= 3 && (b'A'..=b'J').contains(&bytes[0]) && matches!(bytes[1], b'.' | b')') && bytes[2] == b' '
        {
            let length = length_f64(line).ln_1p();
            count += 1.0;
            sum += length;
            square += length * length;
            longest = longest.max(length);
        }
    }
    if count == 0.0 {
        return [0.0; 4];
    }
    let mean = sum / count;
    [count, mean, longest, (square / count - mean * mean).max(0.0).sqrt()]
}

#[expect(clippy::cast_precision_loss, reason = "a length in bytes is far below 2^53")]
fn length_f64(text: &str) -> f64 {
    text.len() as f64
}

#[expect(clippy::cast_precision_loss, reason = "a count is far below 2^53")]
fn occurrences(text: &str, of: &str) -> f64 {
    (text.matches(of).count() as f64).ln_1p()
}

/// The surface features of `text`, unscaled. The first two see all of it, the others the part that is read.
pub(crate) fn surface_features(text: &str) -> [f32; SURFACE_FEATURES] {
    let (head, tail) = read_window(text);
    let mut counts = Counts::of(head);
    if !tail.is_empty() {
        let of_tail = Counts::of(tail);
        counts.questions += of_tail.questions;
        counts.numbers += of_tail.numbers;
    }
    let size = counts.characters + 1.0;
    let words = counts.words + 1.0;
    let [choices, choice_mean, choice_longest, choice_spread] = options(head);
    let negated = [" not ", " except", " NOT ", " EXCEPT", "n't "]
        .iter()
        .any(|word| head.contains(word));
    let features = [
        (length_f64(text) + 1.0).ln(),
        (length_f64(text) - length_f64(head) - length_f64(tail))
            .max(0.0)
            .ln_1p(),
        words.ln(),
        counts.lines.ln_1p(),
        counts.word_characters / words,
        counts.digits / size,
        counts.upper / size,
        counts.spaces / size,
        counts.other / size,
        counts.beyond_ascii / size,
        counts.numbers.ln_1p(),
        counts.largest_number.ln_1p(),
        counts.sum_log_numbers / counts.numbers.max(1.0),
        counts.dollars.ln_1p(),
        counts.backslashes.ln_1p(),
        counts.brackets.ln_1p(),
        counts.comparisons.ln_1p(),
        counts.operators.ln_1p(),
        counts.stops.ln_1p(),
        counts.commas.ln_1p(),
        counts.questions.ln_1p(),
        counts.underscores.ln_1p(),
        counts.quotes.ln_1p(),
        choices,
        choice_mean,
        choice_longest,
        choice_spread,
        f64::from(u8::from(
            head.contains("def ") || head.contains("fn ") || head.contains("#include"),
        )),
        occurrences(head, "for ") + occurrences(head, "while "),
        occurrences(head, "if "),
        occurrences(head, "return"),
        f64::from(u8::from(head.contains("[asy]"))),
        occurrences(head, "\\frac"),
        f64::from(u8::from(negated)),
    ];
    #[expect(clippy::cast_possible_truncation, reason = "features are stored in single precision")]
    features.map(|feature| feature as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_see_what_they_say() {
        let plain = surface_features("What is twelve plus three?");
        let maths = surface_features("Find $\\frac{1}{2} + 1,200$.");
        let choice = surface_features("Which?\nA. one\nB. two\nC. three");
        assert!(maths[13] > plain[13] && maths[32] > plain[32]);
        assert!(
            (f64::from(maths[11]) - 1201.0_f64.ln()).abs() < 1e-4,
            "a comma does not end a number"
        );
        assert!((choice[23] - 3.0).abs() < f32::EPSILON);
        assert!(
            plain
                .iter()
                .chain(&maths)
                .chain(&choice)
                .all(|feature| feature.is_finite())
        );
        assert!(surface_features("").iter().all(|feature| feature.is_finite()));
    }
}
