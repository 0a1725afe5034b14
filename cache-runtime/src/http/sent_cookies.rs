//! The cookies that a request sends.

use ::http::{HeaderMap, header};

/// Returns the values of the cookies with this name, in the order received; an empty value if it is not text. Other cookies in the
/// line may have any content.
pub(super) fn values<'a>(headers: &'a HeaderMap, name: &'a str) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b';'))
        .filter_map(move |pair| {
            let (found, value) = pair.split_at(pair.iter().position(|byte| *byte == b'=')?);
            let value = std::str::from_utf8(&value[1..]).unwrap_or_default();
            (found.trim_ascii() == name.as_bytes()).then(|| value.trim_ascii())
        })
}
