//! The parts of request bodies: types that cannot hold invalid values.

use cache_runtime::Sensitive;
use serde::de::{Deserialize, Deserializer, Error};

/// A whole number from `MIN` to `MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whole<const MIN: i64, const MAX: i64>(i64);

/// The id of a row. The database decides whether it exists.
pub type Id = Whole<{ i64::MIN }, { i64::MAX }>;

/// An amount in cents, up to 1,000,000 in the currency.
pub type Cents<const MIN: i64> = Whole<MIN, 100_000_000>;

impl<const MIN: i64, const MAX: i64> Whole<MIN, MAX> {
    /// The number.
    pub fn get(self) -> i64 {
        self.0
    }
}

impl<'de, const MIN: i64, const MAX: i64> Deserialize<'de> for Whole<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match i64::deserialize(deserializer)? {
            number if (MIN..=MAX).contains(&number) => Ok(Self(number)),
            _ => Err(D::Error::custom(format_args!(
                "it must be a whole number from {MIN} to {MAX}"
            ))),
        }
    }
}

/// Text of 1 to `MAX` characters that are not all white space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text<const MAX: usize>(String);

impl<const MAX: usize> Text<MAX> {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de, const MAX: usize> Deserialize<'de> for Text<MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match String::deserialize(deserializer)? {
            text if !text.trim().is_empty() && text.chars().count() <= MAX => Ok(Self(text)),
            _ => Err(D::Error::custom(format_args!(
                "it must be text of 1 to {MAX} characters, not all white space"
            ))),
        }
    }
}

/// Reads a payment card number. An error never repeats the input.
pub fn card_number<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Sensitive<String>, D::Error> {
    match String::deserialize(deserializer) {
        Ok(number) if is_card_number(&number) => Ok(number.into()),
        _ => Err(D::Error::custom(
            "it must be the 12 to 19 digits of a payment card",
        )),
    }
}

/// Reads a password. An error never repeats the input.
pub fn password<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Sensitive<String>, D::Error> {
    match String::deserialize(deserializer) {
        Ok(password) => Ok(password.into()),
        Err(_) => Err(D::Error::custom("it must be text")),
    }
}

/// The check sum of ISO/IEC 7812: from the right, every second digit counts double.
fn is_card_number(number: &str) -> bool {
    let digits: Option<Vec<u32>> = number
        .chars()
        .map(|character| character.to_digit(10))
        .collect();
    let Some(digits) = digits else { return false };
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(place, &digit)| {
            if place % 2 == 0 {
                digit
            } else {
                digit * 2 / 10 + digit * 2 % 10
            }
        })
        .sum();
    (12..=19).contains(&digits.len()) && sum > 0 && sum.is_multiple_of(10)
}

#[cfg(test)]
mod tests {
    use super::is_card_number;

    #[test]
    fn a_card_number_passes_its_check_sum() {
        assert!(is_card_number("4111111111111111"));
        assert!(is_card_number("378282246310005"));
        assert!(!is_card_number("4111111111111112"));
    }

    #[test]
    fn a_card_number_has_12_to_19_digits() {
        assert!(!is_card_number("00000000000"));
        assert!(!is_card_number("00000000000000"));
        assert!(!is_card_number("4111 1111 1111 1111"));
        assert!(!is_card_number("41111111111111110000"));
        assert!(!is_card_number(""));
    }
}
