//! Numbers that prove themselves: check digits of cards and accounts.

/// Luhn's check (ISO/IEC 7812-1, annex B) over decimal digits.
pub(super) fn luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(index, digit)| {
            let value = u32::from(digit - b'0');
            match index % 2 {
                0 => value,
                _ if value > 4 => 2 * value - 9,
                _ => 2 * value,
            }
        })
        .sum();
    sum.is_multiple_of(10)
}

/// The check of an IBAN (ISO 13616, ISO 7064 MOD 97-10): country, check digits and account, upper-case letters and digits.
pub(super) fn iban(characters: &[u8]) -> bool {
    let Some((front, account)) = characters.split_at_checked(4) else {
        return false;
    };
    let remainder = account.iter().chain(front).fold(0_u32, |remainder, &character| {
        let value = match character {
            b'0'..=b'9' => u32::from(character - b'0'),
            _ => u32::from(character.to_ascii_uppercase().wrapping_sub(b'A')) + 10,
        };
        let shift = if value > 9 { 100 } else { 10 };
        (remainder * shift + value) % 97
    });
    remainder == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_examples() {
        // Card numbers that payment companies publish for tests.
        for card in [
            "4111111111111111",
            "5555555555554444",
            "378282246310005",
            "6011111111111117",
        ] {
            assert!(luhn(card.as_bytes()), "{card}");
        }
        assert!(!luhn(b"4111111111111112"));
        // Examples of the IBAN registry.
        for account in [
            "DE89370400440532013000",
            "GB29NWBK60161331926819",
            "FR1420041010050500013M02606",
        ] {
            assert!(iban(account.as_bytes()), "{account}");
        }
        assert!(!iban(b"DE89370400440532013001") && !iban(b"DE"));
    }
}
