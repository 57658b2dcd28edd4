//! Detectors, one for each kind of personal data. Each reads a text once and looks a bounded way ahead, so that its time grows
//! with the text and not faster. They find what is written as people write it; they do not find what is hidden on purpose.

use super::checked::{iban, luhn};

/// Finds one kind of personal data.
pub(super) trait Detector: Send + Sync {
    /// A short name, for the metric and for refusals.
    fn name(&self) -> &str;

    /// Whether there is any in a text. In time that grows with the text only.
    fn finds(&self, text: &str) -> bool;
}

type Finds = fn(&[u8]) -> bool;

/// One that comes with the program.
struct BuiltIn {
    name: &'static str,
    finds: Finds,
}

impl Detector for BuiltIn {
    fn name(&self) -> &str {
        self.name
    }

    fn finds(&self, text: &str) -> bool {
        (self.finds)(text.as_bytes())
    }
}

const BUILT_IN: [(&str, Finds); 7] = [
    ("email", email),
    ("phone", phone),
    ("iban", account),
    ("credit-card", card),
    ("ipv4", ipv4),
    ("us-ssn", us_ssn),
    ("api-key", api_key),
];

/// The names of those that come with the program.
pub(super) fn built_in_names() -> impl Iterator<Item = &'static str> {
    BUILT_IN.into_iter().map(|(name, _)| name)
}

/// The one of a name.
pub(super) fn built_in(name: &str) -> Option<Box<dyn Detector>> {
    let (name, finds) = BUILT_IN.into_iter().find(|(known, _)| *known == name)?;
    Some(Box::new(BuiltIn { name, finds }))
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

/// Whether nothing that belongs to it stands before `at`.
fn begins(text: &[u8], at: usize) -> bool {
    at == 0 || !is_word(text[at - 1])
}

/// Whether nothing that belongs to it stands at `at`.
fn ends(text: &[u8], at: usize) -> bool {
    text.get(at).is_none_or(|byte| !is_word(*byte))
}

/// A name, `@`, and a domain with a dot in it (the common part of RFC 5322's addresses).
fn email(text: &[u8]) -> bool {
    const LONGEST: usize = 64;
    let local = |byte: u8| byte.is_ascii_alphanumeric() || b"._%+-".contains(&byte) || byte >= 0x80;
    let at_signs = text.iter().enumerate().filter(|(_, byte)| **byte == b'@');
    at_signs.into_iter().any(|(at, _)| {
        let before = at
            .checked_sub(1)
            .is_some_and(|last| local(text[last]) && text[last] != b'.');
        let domain = &text[at + 1..text.len().min(at + 1 + 4 * LONGEST)];
        let length = domain
            .iter()
            .take_while(|byte| byte.is_ascii_alphanumeric() || b".-".contains(byte) || **byte >= 0x80)
            .count();
        let labels = domain[..length].split(|byte| *byte == b'.');
        let mut labels: Vec<&[u8]> = labels.collect();
        // The full stop of a sentence.
        labels.pop_if(|last| last.is_empty());
        let top = labels.last().copied().unwrap_or_default();
        let is_top = top.len() >= 2
            && top
                .iter()
                .all(|byte| byte.is_ascii_alphabetic() || *byte == b'-' || *byte >= 0x80);
        before && labels.len() >= 2 && is_top && labels.iter().all(|label| !label.is_empty())
    })
}

/// Digits from `at` on, with at most one of `separators` between two of them: the digits, and where they end.
fn digits(text: &[u8], at: usize, most: usize, separators: &[u8]) -> (Vec<u8>, usize) {
    let (mut found, mut end, mut index) = (Vec::with_capacity(most), at, at);
    while let Some(&byte) = text.get(index) {
        if byte.is_ascii_digit() {
            if found.len() == most {
                // One too many: no number of this kind.
                return (Vec::new(), end);
            }
            found.push(byte);
            end = index + 1;
        } else if !separators.contains(&byte) || index != end {
            break;
        }
        index += 1;
    }
    (found, end)
}

/// Where a number may begin.
fn starts(text: &[u8]) -> impl Iterator<Item = usize> + '_ {
    let first = |at: &usize| text[*at].is_ascii_digit() && begins(text, *at) && (*at < 2 || !joined(text, *at));
    (0..text.len()).filter(first)
}

/// Whether the digit before a separator belongs to the same number.
fn joined(text: &[u8], at: usize) -> bool {
    matches!(text[at - 1], b'-' | b'.') && text[at - 2].is_ascii_digit()
}

/// 13 to 19 digits that pass Luhn's check, of an issuer's range (2 to 6), in groups or not.
fn card(text: &[u8]) -> bool {
    starts(text).any(|at| {
        let (number, end) = digits(text, at, 19, b" -");
        let fits = (13..=19).contains(&number.len()) && (b'2'..=b'6').contains(&number[0]);
        fits && ends(text, end) && luhn(&number)
    })
}

/// `+` and 8 to 15 digits (ITU-T E.164), or ten digits grouped as in North America.
fn phone(text: &[u8]) -> bool {
    let international = |at: usize| {
        let (mut count, mut index, mut gap) = (0, at + 1, 0);
        while let Some(&byte) = text.get(index) {
            match byte {
                b'0'..=b'9' => (count, gap) = (count + 1, 0),
                b' ' | b'-' | b'.' | b'(' | b')' | b'/' if gap < 2 && count > 0 => gap += 1,
                _ => break,
            }
            if count > 15 {
                return false;
            }
            index += 1;
        }
        (8..=15).contains(&count) && text.get(at + 1).is_some_and(|byte| (b'1'..=b'9').contains(byte))
    };
    let american = |at: usize| {
        let rest = &text[at..text.len().min(at + 14)];
        let (area, rest) = match rest {
            [b'(', a, b, c, b')', b' ', rest @ ..] | [b'(', a, b, c, b')', rest @ ..] => ([*a, *b, *c], rest),
            [a, b, c, b'-' | b'.' | b' ', rest @ ..] => ([*a, *b, *c], rest),
            _ => return false,
        };
        let [d, e, f, b'-' | b'.' | b' ', g, h, i, j, ..] = rest else {
            return false;
        };
        let all = [&area[..], &[*d, *e, *f, *g, *h, *i, *j]].concat();
        let end = at + text[at..].len().min(14) - rest.len() + 8;
        // Area code and exchange begin with 2 to 9.
        all.iter().all(u8::is_ascii_digit) && area[0] > b'1' && *d > b'1' && ends(text, end)
    };
    (0..text.len()).any(|at| match text[at] {
        b'+' => (at == 0 || !is_word(text[at - 1])) && international(at),
        b'(' => american(at),
        byte if byte.is_ascii_digit() && begins(text, at) && (at < 2 || !joined(text, at)) => american(at),
        _ => false,
    })
}

/// Two letters, two check digits and up to 30 more that pass the check, in groups of four or not.
fn account(text: &[u8]) -> bool {
    /// No country's is shorter (Norway) or longer (ISO 13616's limit).
    const LENGTHS: std::ops::RangeInclusive<usize> = 15..=34;
    let candidate = |at: usize| {
        let [a, b, c, d, ..] = text[at..] else { return false };
        if !(a.is_ascii_alphabetic() && b.is_ascii_alphabetic() && c.is_ascii_digit() && d.is_ascii_digit()) {
            return false;
        }
        let mut characters = Vec::with_capacity(*LENGTHS.end());
        let mut index = at;
        while let Some(&byte) = text.get(index) {
            if byte.is_ascii_alphanumeric() && characters.len() < *LENGTHS.end() {
                characters.push(byte);
            } else if byte != b' ' || characters.len() % 4 != 0 {
                break;
            }
            index += 1;
            // A word may follow after a group: what is there so far may be the whole.
            let whole = text.get(index).is_none_or(|next| !is_word(*next));
            if whole && LENGTHS.contains(&characters.len()) && iban(&characters) {
                return true;
            }
        }
        false
    };
    (0..text.len()).any(|at| begins(text, at) && candidate(at))
}

/// Four numbers from 0 to 255.
fn ipv4(text: &[u8]) -> bool {
    starts(text).any(|at| {
        let rest = &text[at..text.len().min(at + 16)];
        let length = rest
            .iter()
            .take_while(|byte| byte.is_ascii_digit() || **byte == b'.')
            .count();
        let written = std::str::from_utf8(&rest[..length]).unwrap_or_default();
        // The full stop of a sentence.
        let written = written.strip_suffix('.').unwrap_or(written);
        ends(text, at + written.len()) && written.parse::<std::net::Ipv4Addr>().is_ok()
    })
}

/// `AAA-GG-SSSS` as the Social Security Administration gives them out: no area 000, 666 or 9xx, no group 00, no serial 0000.
fn us_ssn(text: &[u8]) -> bool {
    starts(text).any(|at| {
        let [a, b, c, dash, d, e, other, f, g, h, i] = text[at..].first_chunk::<11>().copied().unwrap_or_default();
        let (area, group, serial) = ([a, b, c], [d, e], [f, g, h, i]);
        let all = [&area[..], &group, &serial].concat();
        matches!(dash, b'-' | b' ')
            && dash == other
            && all.iter().all(u8::is_ascii_digit)
            && (area != *b"000" && area != *b"666" && a != b'9')
            && (group != *b"00" && serial != *b"0000")
            && ends(text, at + 11)
            && text.get(at + 11) != Some(&b'-')
    })
}

/// Secrets that say what they are: keys of model and cloud providers, tokens of GitHub and Slack, JSON web tokens, private keys.
fn api_key(text: &[u8]) -> bool {
    const KNOWN: [(&[u8], usize); 12] = [
        (b"sk-", 20),
        (b"AKIA", 16),
        (b"ASIA", 16),
        (b"AIza", 30),
        (b"ghp_", 30),
        (b"gho_", 30),
        (b"ghs_", 30),
        (b"github_pat_", 30),
        (b"glpat-", 20),
        (b"hf_", 30),
        (b"xoxb-", 20),
        (b"xoxp-", 20),
    ];
    const PRIVATE: &[u8] = b"-----BEGIN ";
    let secret = |byte: &&u8| byte.is_ascii_alphanumeric() || b"-_".contains(*byte);
    (0..text.len()).any(|at| {
        if !matches!(text[at], b's' | b'A' | b'g' | b'h' | b'x' | b'e' | b'-') {
            return false;
        }
        let rest = &text[at..text.len().min(at + 256)];
        if rest.starts_with(PRIVATE) {
            return rest[..rest.len().min(64)]
                .windows(11)
                .any(|window| window == b"PRIVATE KEY");
        }
        if !begins(text, at) {
            return false;
        }
        let token = rest.starts_with(b"eyJ") && {
            let mut parts = rest.split(|byte| *byte == b'.');
            let long = |part: Option<&[u8]>| part.is_some_and(|part| part.iter().take_while(secret).count() >= 10);
            long(parts.next()) && long(parts.next())
        };
        token
            || KNOWN.iter().any(|(prefix, least)| {
                let after = rest.strip_prefix(*prefix);
                after.is_some_and(|after| after.iter().take_while(secret).count() >= *least)
            })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write as _;

    fn found(text: &str) -> Vec<&'static str> {
        let hits = BUILT_IN.into_iter().filter(|(_, finds)| finds(text.as_bytes()));
        hits.map(|(name, _)| name).collect()
    }

    #[test]
    fn each_kind_is_found_as_people_write_it() {
        let cases: [(&str, &[&str]); 7] = [
            (
                "email",
                &[
                    "ann@example.org",
                    "Mail <ann.lee+x@mail.example.co.uk>.",
                    "an ann@bücher.example, please",
                ],
            ),
            (
                "phone",
                &[
                    "+49 30 1234567",
                    "call +1 (415) 555-0123!",
                    "(415) 555-0123",
                    "415-555-0123",
                    "415.555.0123 now",
                ],
            ),
            (
                "iban",
                &[
                    "DE89 3704 0044 0532 0130 00",
                    "to GB29NWBK60161331926819.",
                    "iban de89370400440532013000 ok",
                ],
            ),
            (
                "credit-card",
                &["4111 1111 1111 1111", "card 5555-5555-5555-4444,", "378282246310005"],
            ),
            ("ipv4", &["10.0.0.1", "at 192.168.17.254.", "ping 8.8.8.8, please"]),
            ("us-ssn", &["123-45-6789", "SSN: 078-05-1120."]),
            (
                "api-key",
                &[
                    "sk-proj-abcdefghijklmnopqrstuvwx",
                    "AKIAIOSFODNN7EXAMPLE",
                    "-----BEGIN RSA PRIVATE KEY-----",
                    "token eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.abc",
                ],
            ),
        ];
        for (name, texts) in cases {
            for text in texts {
                assert!(found(text).contains(&name), "{name} in `{text}`: {:?}", found(text));
            }
        }
    }

    #[test]
    fn what_only_looks_a_little_like_it_is_not() {
        for text in [
            "",
            "a @ b, me@home, x@y.z1, @example.org, ann@.org",
            "pi is 3.14159265358979, e is 2.718281828",
            "version 1.2.3, 1.2.3.4.5, 256.1.1.1, 1.2.3",
            "order 4111111111111112, 41111111111111111111111",
            "in 2024-11-24 at 15:30:59, pages 123-456",
            "000-12-3456, 666-12-3456, 912-12-3456, 123-00-4567, 123-45-0000, 1123-45-6789",
            "sk-short, risk-averse-and-some-more-words-here",
            "DE89370400440532013001",
            "+12, + 3, a+123456789012, 1+1=2",
            "The year 1984 had 366 days and 8784 hours",
        ] {
            assert_eq!(found(text), Vec::<&str>::new(), "`{text}`");
        }
    }

    /// What repeats a beginning over and over is the worst that a detector can be given.
    #[test]
    fn nothing_panics_and_every_end_is_an_end() {
        let mut all = String::new();
        for piece in [
            "4111 1111 ",
            "a@",
            "DE89 ",
            "(415) ",
            "+1 ",
            "eyJa.",
            "-----BEGIN ",
            "1.1.",
            "123-45-",
            "ä",
            "sk-",
        ] {
            let text = piece.repeat(300);
            let _ = write!(all, "{text}");
            for end in (0..text.len()).filter(|end| text.is_char_boundary(*end)).take(400) {
                drop(found(&text[..end]));
            }
        }
        drop(found(&all));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read(text in "[0-9+() .@a-zA-Z_\\-é]{0,80}") {
            drop(found(&text));
        }
    }
}
