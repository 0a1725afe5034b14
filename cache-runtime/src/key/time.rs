//! Times in a key: instants and dates.

use std::time::{SystemTime, UNIX_EPOCH};

use super::{KeyPart, KeyWriter};

/// Nanoseconds since 1970 in UTC; negative before.
impl KeyPart for SystemTime {
    fn write_key(&self, key: &mut KeyWriter<'_>) {
        match self.duration_since(UNIX_EPOCH) {
            Ok(since) => key.number(itoa::Buffer::new().format(since.as_nanos())),
            Err(before) => key.number(&format!("-{}", before.duration().as_nanos())),
        }
    }
}

/// RFC 3339 in UTC, such as `2026-11-27T10:07:23.5Z`. Unlike a number, it distinguishes a leap second from the second after it.
#[cfg(feature = "chrono")]
impl<Z: chrono::TimeZone> KeyPart for chrono::DateTime<Z> {
    fn write_key(&self, key: &mut KeyWriter<'_>) {
        key.display(&format_args!("{:?}Z", self.naive_utc()));
    }
}

/// ISO 8601, such as `2026-11-27`.
#[cfg(feature = "chrono")]
impl KeyPart for chrono::NaiveDate {
    fn write_key(&self, key: &mut KeyWriter<'_>) {
        key.display(self);
    }
}

/// Nanoseconds since 1970 in UTC; negative before.
#[cfg(feature = "time")]
impl KeyPart for time::OffsetDateTime {
    fn write_key(&self, key: &mut KeyWriter<'_>) {
        key.number(itoa::Buffer::new().format(self.unix_timestamp_nanos()));
    }
}

/// ISO 8601, such as `2026-11-27`.
#[cfg(feature = "time")]
impl KeyPart for time::Date {
    fn write_key(&self, key: &mut KeyWriter<'_>) {
        key.display(self);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::key::Key;

    fn of(value: impl KeyPart) -> String {
        let key = Key::render("", |key| {
            key.value(&value);
        });
        key.as_str().to_owned()
    }

    #[test]
    fn a_system_time_is_nanoseconds_since_1970() {
        assert_eq!(of(UNIX_EPOCH), "0");
        assert_eq!(
            of(UNIX_EPOCH + Duration::new(1_700_000_000, 100)),
            "1700000000000000100"
        );
        assert_eq!(of(UNIX_EPOCH - Duration::from_millis(1)), "-1000000");
    }

    #[cfg(feature = "chrono")]
    #[test]
    fn equal_chrono_times_in_different_zones_have_one_text() {
        use chrono::{DateTime, FixedOffset, NaiveDate, NaiveTime, Utc};

        let utc = DateTime::<Utc>::from_timestamp_nanos(1_700_000_000_500_000_000);
        let east = FixedOffset::east_opt(3 * 3600 + 1800).expect("an offset");
        assert_eq!(of(utc), "2023-11-14T22%3A13%3A20.500Z");
        assert_eq!(of(utc.with_timezone(&east)), of(utc));

        let date = NaiveDate::from_ymd_opt(2016, 12, 31).expect("a date");
        let leap = NaiveTime::from_hms_milli_opt(23, 59, 59, 1_000).expect("a leap second");
        assert_eq!(of(date), "2016-12-31");
        assert_eq!(
            of(date.and_time(leap).and_utc()),
            "2016-12-31T23%3A59%3A60Z"
        );
        assert_eq!(of(NaiveDate::MAX), "+262142-12-31");
        assert_eq!(of(NaiveDate::MIN), "-262143-01-01");
    }

    #[cfg(feature = "time")]
    #[test]
    fn equal_offset_date_times_have_one_text() {
        use time::{Date, OffsetDateTime, UtcOffset};

        let utc = OffsetDateTime::from_unix_timestamp_nanos(1_700_000_000_000_000_100)
            .expect("an instant");
        let east = UtcOffset::from_hms(3, 30, 0).expect("an offset");
        assert_eq!(of(utc), "1700000000000000100");
        assert_eq!(of(utc.to_offset(east)), of(utc));
        assert_eq!(of(utc.date()), "2023-11-14");
        assert_eq!(of(Date::MIN), "-9999-01-01");
    }
}
