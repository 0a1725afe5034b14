//! How durations, sizes and switches are written, and how a wrong one is shown.

use std::time::Duration;

use super::Quota;

/// A duration text such as `1h 30m`, or a number of seconds.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    if text
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.')
    {
        return Duration::try_from_secs_f64(text.parse().ok()?).ok();
    }
    // humantime adds with a check everywhere but in one carry, where it panics. Numbers of this length do not get
    // there.
    let longest_number = text
        .split(|c: char| !c.is_ascii_digit())
        .map(str::len)
        .max()
        .unwrap_or(0);
    if text.len() > 64 || longest_number > 10 {
        return None;
    }
    humantime::parse_duration(text).ok()
}

/// Units in a time: `100/60s`, or `5/s` for one second.
pub(super) fn quota(text: &str) -> Option<Quota> {
    let (limit, window) = text.split_once('/')?;
    let window = window.trim();
    let is_unit = !window.is_empty() && window.bytes().all(|byte| byte.is_ascii_alphabetic());
    let window = if is_unit {
        duration(&format!("1{window}"))
    } else {
        duration(window)
    };
    Some(Quota {
        limit: limit.trim().parse().ok()?,
        window: window?,
    })
}

pub(super) fn show_quota(quota: Quota) -> String {
    format!("{}/{}", quota.limit, show_duration(quota.window))
}

pub(super) fn show_duration(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

const UNITS: [(&str, u64); 7] = [
    ("gib", 1 << 30),
    ("mib", 1 << 20),
    ("kib", 1 << 10),
    ("gb", 1_000_000_000),
    ("mb", 1_000_000),
    ("kb", 1_000),
    ("b", 1),
];

/// A number of bytes, or a size such as `64MiB` or `64MB`.
pub(super) fn bytes(text: &str) -> Option<usize> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim_start().to_ascii_lowercase();
    let factor = if unit.is_empty() {
        1
    } else {
        UNITS.iter().find(|(name, _)| *name == unit)?.1
    };
    let bytes = number.parse::<u64>().ok()?.checked_mul(factor)?;
    usize::try_from(bytes).ok()
}

pub(super) fn show_bytes(bytes: usize) -> String {
    for (unit, factor) in [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
        if bytes > 0 && bytes.is_multiple_of(factor) {
            return format!("{}{unit}", bytes / factor);
        }
    }
    bytes.to_string()
}

/// A whole number of percent, with or without the sign.
pub(super) fn percent(text: &str) -> Option<u8> {
    text.strip_suffix('%')
        .unwrap_or(text)
        .trim_end()
        .parse()
        .ok()
}

/// `true` or `false`, in any of the usual spellings.
pub(super) fn switch(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "on" | "yes" => Some(true),
        "false" | "0" | "off" | "no" => Some(false),
        _ => None,
    }
}

/// A value as an error may show it: without credentials, on one line, and not at any length.
pub(super) fn shown(value: &str) -> String {
    const MAX_SHOWN: usize = 80;
    let masked = without_credentials(value);
    let mut shown: String = masked
        .chars()
        .take(MAX_SHOWN)
        .flat_map(char::escape_debug)
        .collect();
    if masked.chars().count() > MAX_SHOWN {
        shown.push('…');
    }
    shown
}

/// Returns the parts of an address that cannot be a secret, even if the address is malformed.
fn without_credentials(value: &str) -> String {
    let (scheme, rest) = match value.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None if value.contains('@') => (String::new(), value),
        None => return value.to_owned(),
    };
    // A password that was not encoded may itself contain an `@`, a `/` or a `?`: all before the last `@` may belong to
    // it.
    let (user, rest) = match rest.rsplit_once('@') {
        Some((_, rest)) => ("***@", rest),
        None => ("", rest),
    };
    let (rest, query) = match rest.find(['?', '#']) {
        Some(end) => (&rest[..end], "?***"),
        None => (rest, ""),
    };
    let (hosts, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let hosts: Vec<_> = hosts.split(',').map(without_strange_port).collect();
    format!("{scheme}{user}{}{path}{query}", hosts.join(","))
}

/// Where a port should be, a user may have written a password.
fn without_strange_port(host: &str) -> String {
    match host.split_once(':') {
        Some((name, port)) if !host.starts_with('[') && !is_number(port) => format!("{name}:***"),
        _ => host.to_owned(),
    }
}

fn is_number(text: &str) -> bool {
    text.len() <= 5 && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_text_or_seconds() {
        assert_eq!(duration("1h 30m"), Some(Duration::from_secs(5400)));
        assert_eq!(duration("100ms"), Some(Duration::from_millis(100)));
        assert_eq!(duration("90"), Some(Duration::from_secs(90)));
        assert_eq!(duration("0.25"), Some(Duration::from_millis(250)));
        for wrong in ["", "-1", "1 parsec", "soon", "1e3", ".", "5ms later"] {
            assert_eq!(duration(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_duration_that_overflows_in_the_parser_is_refused() {
        assert_eq!(duration("18446744073709551615s 1000ms"), None);
        assert_eq!(duration("18446744073709551616"), None);
        assert_eq!(duration("99999999999999999999999999999.5"), None);
    }

    #[test]
    fn a_quota_is_units_per_duration_or_per_unit_of_time() {
        for (text, limit, millis) in [
            ("100/60s", 100, 60_000),
            ("100/1m 30s", 100, 90_000),
            ("100/60", 100, 60_000),
            ("7/0.25", 7, 250),
            (" 3 / 250ms ", 3, 250),
            ("5/s", 5, 1_000),
            ("100/m", 100, 60_000),
            ("100/min", 100, 60_000),
            ("10/h", 10, 3_600_000),
            ("4294967295/ms", u32::MAX, 1),
        ] {
            let window = Duration::from_millis(millis);
            assert_eq!(quota(text), Some(Quota { limit, window }), "{text:?}");
        }
        for wrong in [
            "",
            "/",
            "100",
            "100/",
            "/60s",
            "-1/s",
            "1.5/s",
            "4294967296/s",
            "many/s",
            "1/soon",
            "1/m30s",
            "1/s/s",
            "100 per 60s",
        ] {
            assert_eq!(quota(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn sizes_are_bytes_or_have_a_unit() {
        assert_eq!(bytes("1024"), Some(1024));
        assert_eq!(bytes("64MiB"), Some(64 << 20));
        assert_eq!(bytes("64 MB"), Some(64_000_000));
        assert_eq!(bytes("3kib"), Some(3 << 10));
        for wrong in ["", "MiB", "-1", "1.5MiB", "64M", "99999999999999GiB"] {
            assert_eq!(bytes(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn percentages_are_whole_numbers() {
        assert_eq!(percent("10%"), Some(10));
        assert_eq!(percent("10"), Some(10));
        assert_eq!(percent("10 %"), Some(10));
        for wrong in ["", "%", "10%%", "%10", "-1", "1.5%", "256", "ten"] {
            assert_eq!(percent(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn possible_passwords_in_an_address_are_masked() {
        for (value, expected) in [
            (
                "redis://user:hunter2@host:6379/0",
                "redis://***@host:6379/0",
            ),
            ("redis://:hun/t@er2@host/0", "redis://***@host/0"),
            ("redis://host:hunter2", "redis://host:***"),
            ("redis://:hunter2", "redis://:***"),
            ("user:hunter2@host", "***@host"),
            (
                "unix:///run/redis.sock?pass=hunter2",
                "unix:///run/redis.sock?***",
            ),
            ("redis://[::1]:6379", "redis://[::1]:6379"),
            ("many", "many"),
        ] {
            assert_eq!(shown(value), expected);
        }
    }

    proptest! {
        #[test]
        fn printed_durations_and_sizes_parse_to_the_same_value(seconds in 0_u64..100_000_000_000, size: u32) {
            let moment = Duration::from_secs(seconds);

            prop_assert_eq!(duration(&show_duration(moment)), Some(moment));
            prop_assert_eq!(bytes(&show_bytes(size as usize)), Some(size as usize));
        }

        #[test]
        fn printed_quotas_parse_to_the_same_value(limit: u32, millis in 0_u64..4_000_000_000) {
            let given = Quota { limit, window: Duration::from_millis(millis) };

            prop_assert_eq!(quota(&show_quota(given)), Some(given));
        }

        #[test]
        fn no_text_causes_a_panic(text in ".*", number in "[0-9]{0,22}(s|ms|y|weeks|ns)? ?[0-9]{0,22}(s|ms|y|ns)?") {
            let _ = (duration(&text), bytes(&text), percent(&text), switch(&text), shown(&text), duration(&number), bytes(&number));
            let _ = (quota(&text), quota(&format!("1/{text}")), quota(&format!("{number}/{number}")));
        }
    }
}
