//! Values that are not stored, and entries that cannot be used. Each is counted, and logged once per function.

use tracing::{debug, error, warn};

use super::call::CallContext;
use super::types::Written;
use crate::entry::{self, Refusal, Unreadable};
use crate::error::{Error, ErrorKind};
use crate::metrics::{Event, Warning};

/// The bytes of another program's data that are logged. They help to find that program and are too short for a usual
/// secret.
const GLIMPSE: usize = 16;

impl CallContext<'_> {
    /// A lookup found `bytes` instead of a value of the type. [`None`] is a Redis value that is not a string.
    pub(super) fn unreadable(&self, reason: &Unreadable, bytes: Option<&[u8]>) -> Event {
        let is_masked = self.inner.config.mask_keys;
        let key = self.key.shown(is_masked);
        let (site, expected) = (self.site.name, self.of.name);
        let is_first = |warning| self.metrics.warn_once(warning);
        match reason {
            Unreadable::OtherKey => {
                if let Some(suppressed) = self.metrics.misplaced.admit() {
                    error!(site, %key, suppressed, "a reply belongs to another key; it is ignored");
                }
            }
            Unreadable::Foreign if is_first(Warning::Foreign) => {
                let found = match bytes {
                    None => "not a string".to_owned(),
                    Some(_) if is_masked => "not shown".to_owned(),
                    Some(bytes) => glimpse(bytes),
                };
                warn!(
                    site, %key, found,
                    "another program stores data under a key of this function, and the function replaces that data: use \
                     different keys, or give the cache its own `prefix`; this warning is logged once per function"
                );
            }
            Unreadable::OtherShape if is_first(Warning::OtherShape) => {
                let own = self.origin();
                match bytes.and_then(entry::origin_of) {
                    Some(other) if other.version != own.version => debug!(
                        site, %key, version = own.version, found = other.version,
                        "an entry of another version is replaced"
                    ),
                    Some(other) if own.is_same_build(&other) => {
                        let other = self.inner.types.with_type(other.of_type);
                        let (found, by) = other
                            .map_or(("another type", "another function"), |other| {
                                (other.name, other.function)
                            });
                        warn!(
                            site, %key, expected, found, by,
                            "two functions store values of different types under one key, so each replaces the entries of the \
                             other: give them different keys; this warning is logged once per function"
                        );
                    }
                    _ => warn!(
                        site, %key, expected,
                        "another release or program stores values of another type under a key of this function, and each \
                         replaces the entries of the other: this is expected during a deploy that changes the type; otherwise \
                         use different keys, or a separate `prefix`; this warning is logged once per function"
                    ),
                }
            }
            Unreadable::Undecodable(serde) if is_first(Warning::Lossy) => {
                warn!(
                    site, %key, expected, error = without_data(serde),
                    "the type cannot read its own stored value, so every call loads it again: make its `Deserialize` accept \
                     what its `Serialize` writes; this warning is logged once per function"
                );
            }
            reason => {
                let kind = kind_of(reason).1;
                debug!(site, %key, kind, "an entry cannot be used and is replaced");
            }
        }
        kind_of(reason).0
    }

    /// A value is not stored.
    pub(super) fn refused(&self, refusal: Refusal, written: &Written) -> Error {
        let refused = |text| Error::new(ErrorKind::Refused, text);
        let encode = |text| Error::new(ErrorKind::Encode, text);
        let mut serde = None;
        let (event, warning, error) = match refusal {
            Refusal::TooLarge { bytes } => {
                let most = self.inner.config.max_value;
                let text = format!(
                    "a value of at least {bytes} bytes is not stored: `max_value` is {most}"
                );
                (
                    Event::TooLarge,
                    Warning::TooLarge,
                    Error::new(ErrorKind::Refused, text),
                )
            }
            Refusal::Card => {
                let text =
                    "a value that contains a payment card number is not stored: `card_guard` is on";
                (Event::Card, Warning::Card, refused(text))
            }
            Refusal::Encode(cause) => {
                let text = "a value is not stored: it cannot be serialized to JSON";
                serde = Some(without_data(&cause.to_string()));
                (
                    Event::EncodeFailed,
                    Warning::Encode,
                    encode(text).because(cause),
                )
            }
            Refusal::TooDeep => {
                let text = "a value is not stored: it is nested more than 127 levels deep and could not be read back";
                (Event::Lossy, Warning::Lossy, encode(text))
            }
            Refusal::Undecodable(cause) => {
                written.set_lossy();
                let text = "a value is not stored: the `Deserialize` of its type does not accept what its `Serialize` writes";
                serde = Some(without_data(&cause.to_string()));
                (Event::Lossy, Warning::Lossy, encode(text).because(cause))
            }
            Refusal::Changed => {
                written.set_lossy();
                let text = "a value is not stored: the `Deserialize` of its type reads a different value than its `Serialize` \
                            writes (look for `skip_…`, `rename(serialize = …)`, and `untagged` enums with an earlier variant \
                            that also matches)";
                (Event::Lossy, Warning::Lossy, encode(text))
            }
        };
        self.metrics.count(event);
        if self.metrics.warn_once(warning) {
            let key = self.key.shown(self.inner.config.mask_keys);
            warn!(
                site = self.site.name, %key, %error, type_name = written.name, serde,
                "a value is not cached; this warning is logged once per function"
            );
        }
        error
    }
}

/// The event that a miss is counted as, and its name in the log.
fn kind_of(reason: &Unreadable) -> (Event, &'static str) {
    match reason {
        Unreadable::Foreign => (Event::MissForeign, "foreign"),
        Unreadable::Format => (Event::MissFormat, "format"),
        Unreadable::Corrupted => (Event::MissCorrupted, "corrupted"),
        Unreadable::Undecodable(_) => (Event::MissCorrupted, "undecodable"),
        Unreadable::TooLarge => (Event::MissTooLarge, "too large"),
        Unreadable::OtherKey => (Event::MissOtherKey, "other key"),
        Unreadable::OtherShape => (Event::MissOtherShape, "other shape"),
    }
}

/// The beginning of the data, escaped.
fn glimpse(bytes: &[u8]) -> String {
    let start = &bytes[..bytes.len().min(GLIMPSE)];
    let rest = if bytes.len() > GLIMPSE { "…" } else { "" };
    format!("{}{rest}", start.escape_ascii())
}

/// The message of serde without the data that it quotes.
fn without_data(text: &str) -> String {
    const FOUND: [(&str, &str); 5] = [
        ("invalid type: ", ", expected "),
        ("invalid value: ", ", expected "),
        ("invalid length ", ", expected "),
        ("unknown variant `", "`, "),
        ("unknown field `", "`, "),
    ];
    for (before, after) in FOUND {
        if let Some(rest) = text.strip_prefix(before)
            && let Some((found, rest)) = rest.split_once(after)
        {
            let kind: String = found.split(['"', '`']).next().unwrap_or_default().into();
            let kind = if before.ends_with('`') {
                "…".into()
            } else {
                kind
            };
            return format!("{before}{}{after}{rest}", kind.trim_end());
        }
    }
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[test]
    fn an_error_of_serde_does_not_repeat_the_value() {
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        #[expect(dead_code, reason = "only their errors matter")]
        enum Kind {
            One { id: u8 },
        }
        let says = |json: &str| {
            let error = serde_json::from_str::<Kind>(json).expect_err(json);
            without_data(&error.to_string())
        };

        for json in [
            r#"{"One":{"id":"4111 secret, expected x"}}"#,
            r#"{"One":{"id":4111}}"#,
            r#"{"One":"4111"}"#,
            r#"{"One":{"4111":1}}"#,
            r#"{"4111":{}}"#,
        ] {
            let text = says(json);
            assert!(!text.contains("4111"), "{text}");
            assert!(text.contains("expected"), "{text}");
        }
        assert!(says(r#"{"One":{}}"#).starts_with("missing field `id`"));
    }

    #[test]
    fn the_shown_beginning_of_a_value_is_short_and_printable() {
        assert_eq!(glimpse(b"{}"), "{}");
        assert_eq!(
            glimpse(b"{\"id\":1,\"title\":\"x\"}"),
            "{\\\"id\\\":1,\\\"title\\\":…"
        );
        assert_eq!(glimpse(b"\x00\n"), "\\x00\\n");
    }
}
