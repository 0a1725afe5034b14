//! Payment card numbers in a payload: what must not be stored by accident.
//!
//! Prefixes and lengths are those of the issuers' ranges in ISO/IEC 7812; the check digit is Luhn's (US patent 2,950,048).
//! Maestro (50, 56 to 69) is left out: its ranges are so broad that one number in ten of any kind would be refused.

/// First digits from … to, both of the same length, and the lengths of the whole number from … to.
struct Range {
    from: u32,
    to: u32,
    lengths: &'static [usize],
}

const fn range(from: u32, to: u32, lengths: &'static [usize]) -> Range {
    Range { from, to, lengths }
}

const RANGES: [Range; 13] = [
    // Visa
    range(4, 4, &[13, 16, 19]),
    // Mastercard
    range(51, 55, &[16]),
    range(2221, 2720, &[16]),
    // American Express
    range(34, 34, &[15]),
    range(37, 37, &[15]),
    // Discover
    range(6011, 6011, &[16, 17, 18, 19]),
    range(644, 649, &[16, 17, 18, 19]),
    range(65, 65, &[16, 17, 18, 19]),
    // Diners Club
    range(300, 305, &[14, 15, 16, 17, 18, 19]),
    range(36, 36, &[14, 15, 16, 17, 18, 19]),
    range(38, 39, &[14, 15, 16, 17, 18, 19]),
    // JCB
    range(3528, 3589, &[16, 17, 18, 19]),
    // UnionPay
    range(62, 62, &[16, 17, 18, 19]),
];

const MIN_DIGITS: usize = 13;
const MAX_DIGITS: usize = 19;

/// Returns whether a JSON text contains a card number, in a string or as a number: 13 to 19 digits in one run, or in groups
/// with one space or dash between them, that are not part of a longer run, a word, a decimal fraction or a UUID.
pub(super) fn contains(json: &[u8]) -> bool {
    let mut at = 0;
    // Whether the previous byte belongs to a word, and whether a group of digits and one space or dash precede it.
    let (mut in_word, mut in_groups) = (false, false);
    while let Some(&byte) = json.get(at) {
        if !in_word && is_uuid(&json[at..]) {
            at += UUID.len();
            in_word = true;
        } else if byte.is_ascii_digit() {
            let end = digits_end(json, at);
            if !in_word && begins_card(json, at, in_groups) {
                return true;
            }
            in_groups = !in_word && continues(json, end);
            // A separator that leads to the next group is passed with this one.
            at = end + usize::from(in_groups);
            in_word = !in_groups;
        } else {
            let fraction = byte == b'.'
                && in_word
                && json[at - 1].is_ascii_digit()
                && is_digit_at(json, at + 1);
            in_word = byte.is_ascii_alphanumeric() || fraction;
            at += match (byte, json.get(at + 1)) {
                (b'\\', Some(b'u')) => 6,
                (b'\\', _) => 2,
                _ => 1,
            };
        }
    }
    false
}

/// Returns whether a card number begins with the group of digits at `start`.
fn begins_card(json: &[u8], start: usize, in_groups: bool) -> bool {
    let mut digits = [0; MAX_DIGITS];
    let mut length = 0;
    let mut at = start;
    // Numbers in a row, such as a table's, must not add up to a card: either all of them are it, or they are grouped like one.
    let mut card_like = digits_end(json, start) - start == 4;
    loop {
        let end = digits_end(json, at);
        let group = &json[at..end];
        let Some(room) = digits.get_mut(length..length + group.len()) else {
            return false;
        };
        for (digit, byte) in room.iter_mut().zip(group) {
            *digit = byte - b'0';
        }
        length += group.len();
        card_like &= at == start || (2..=7).contains(&group.len());

        let more = continues(json, end);
        let complete = at == start || card_like || (!in_groups && !more);
        if complete && ends_number(json, end) && is_card(&digits[..length]) {
            return true;
        }
        if !more {
            return false;
        }
        at = end + 1;
    }
}

fn is_card(digits: &[u8]) -> bool {
    if !(MIN_DIGITS..=MAX_DIGITS).contains(&digits.len()) || !passes_luhn(digits) {
        return false;
    }
    RANGES.iter().any(|Range { from, to, lengths }| {
        let known = from.ilog10() as usize + 1;
        let prefix = digits[..known]
            .iter()
            .fold(0, |prefix, digit| prefix * 10 + u32::from(*digit));
        (*from..=*to).contains(&prefix) && lengths.contains(&digits.len())
    })
}

/// Every second digit from the right but one is doubled, with the two digits of the double added up; the sum of all ends in 0.
fn passes_luhn(digits: &[u8]) -> bool {
    let sum = digits.iter().rev().enumerate().fold(0, |sum, (at, digit)| {
        let doubled = digit * 2;
        sum + u32::from(match (at % 2, doubled) {
            (0, _) => *digit,
            (_, 10..) => doubled - 9,
            _ => doubled,
        })
    });
    sum % 10 == 0
}

fn digits_end(json: &[u8], start: usize) -> usize {
    let digits = json[start..]
        .iter()
        .take_while(|byte| byte.is_ascii_digit());
    start + digits.count()
}

/// Returns whether one space or dash and another group follow.
fn continues(json: &[u8], end: usize) -> bool {
    matches!(json.get(end), Some(b' ' | b'-')) && is_digit_at(json, end + 1)
}

fn ends_number(json: &[u8], end: usize) -> bool {
    match json.get(end) {
        Some(b'.') => !is_digit_at(json, end + 1),
        Some(byte) => !byte.is_ascii_alphanumeric(),
        None => true,
    }
}

fn is_digit_at(json: &[u8], at: usize) -> bool {
    json.get(at).is_some_and(u8::is_ascii_digit)
}

const UUID: &[u8; 36] = b"xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";

fn is_uuid(json: &[u8]) -> bool {
    json.get(..UUID.len()).is_some_and(|text| {
        text.iter().zip(UUID).all(|(byte, form)| match form {
            b'-' => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
    }) && !json.get(UUID.len()).is_some_and(u8::is_ascii_alphanumeric)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cards_are_found_in_any_spelling() {
        for json in [
            // Test numbers that the issuers publish.
            r#""4111111111111111""#,
            r#""4222222222222""#,
            r#""5555555555554444""#,
            r#""2223003122003222""#,
            r#""378282246310005""#,
            r#""6011111111111117""#,
            r#""30569309025904""#,
            r#""3530111333300000""#,
            r#""6200000000000005""#,
            "4111111111111111",
            r#"{"a":[1,4111111111111111],"b":2}"#,
            r#""4111 1111 1111 1111""#,
            r#""4111-1111-1111-1111""#,
            r#""3782 822463 10005""#,
            r#""41 11-11 11 11-1111 1 1""#,
            r#""card 4111111111111111, until 12/29""#,
            r#""card: 4111 1111 1111 1111 123""#,
            r#""12 4111 1111 1111 1111""#,
            r#""12 4111111111111111""#,
            r#""paid by 4111111111111111.""#,
            r#""line\n4111111111111111""#,
            r#""\u001f4111111111111111\\""#,
            r#""ß4111111111111111ß""#,
        ] {
            assert!(contains(json.as_bytes()), "{json}");
        }
    }

    #[test]
    fn other_numbers_are_not_cards() {
        for json in [
            "",
            "0",
            // A wrong check digit, an unknown issuer, and a length that the issuer does not use.
            "4111111111111112",
            "9111111111111111",
            "411111111111116",
            "22210000000000",
            // Longer runs of digits, words, and fractions.
            "41111111111111110000",
            "00004111111111111111",
            r#""x4111111111111111""#,
            r#""4111111111111111x""#,
            "0.4111111111111111",
            "4111111111111111.25",
            "1.4111111111111111e-7",
            // Times and identifiers.
            "1763643561000",
            "1763643561000000",
            "1763643561000000000",
            r#""2026-11-20T12:59:21.411111111111Z""#,
            r#""2026-11-20 12:59:21""#,
            r#""41111111-1111-1111-8abc-000000000000""#,
            r#""41111111-1111-1111-abcd-000000000000""#,
            r#""abcdefab-cdef-4111-1111-111111111111""#,
            r#""00000000-0000-0000-0000-000000000000""#,
            // Consecutive numbers.
            r#""4 11 1 1 1 11 111 1 1 1 1 1 7 9 3 2 1 4 5 6 7 8""#,
            "[4111,1111,1111,1111]",
            // Cut off in the middle of an escape.
            "\\u",
            "\\",
        ] {
            assert!(!contains(json.as_bytes()), "{json}");
        }
    }

    #[test]
    fn uuids_and_times_are_not_cards() {
        for n in 0..20_000_u64 {
            let time = 1_600_000_000_000 + n * 7_919_333;
            let uuid = format!(
                "{:08}-{:04}-4{:03}-8{:03}-{:012}",
                n * 4_111,
                n % 10_000,
                n % 1_000,
                n % 997,
                n * 41_111_111
            );
            let json = format!("[{time},{time}000,{time}000000,\"{uuid}\"]");
            assert!(!contains(json.as_bytes()), "{json}");
        }
    }
}
