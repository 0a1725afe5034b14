//! The parameters of a request: its query, or the fields of a form.

use ::http::StatusCode;

use super::problem::Problem;
use crate::escape::excerpt;

/// Parameters that were decoded and checked against the names that a route knows.
#[derive(Debug, Default)]
pub(super) struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Parses `a=1&b=2`.
    pub(super) fn parse(text: &str, known: &[&str]) -> Result<Self, Problem> {
        let mut found: Vec<(String, String)> = Vec::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (Some(name), Some(value)) = (decoded(name), decoded(value)) else {
                return Err(bad("a parameter is not percent-encoded UTF-8; encode it as `encodeURIComponent` does".to_owned()));
            };
            if !known.contains(&name.as_str()) {
                let advice = match known {
                    [] => "this route has none".to_owned(),
                    known => format!("this route has `{}`", known.join("`, `")),
                };
                return Err(bad(format!(
                    "unknown parameter `{}`; {advice}",
                    excerpt(&name, 50)
                )));
            }
            if found.iter().any(|(other, _)| *other == name) {
                return Err(bad(format!(
                    "parameter `{name}` is given twice; give it once"
                )));
            }
            found.push((name, value));
        }
        Ok(Self(found))
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(super) fn required(&self, name: &str, example: &str) -> Result<&str, Problem> {
        match self.get(name) {
            Some(value) if !value.is_empty() => Ok(value),
            _ => Err(bad(format!(
                "parameter `{name}` is missing; give it, such as `{name}={example}`"
            ))),
        }
    }

    /// Returns a whole number from 1 to `most`.
    pub(super) fn number(&self, name: &str, default: usize, most: usize) -> Result<usize, Problem> {
        match self.get(name) {
            None => Ok(default),
            Some(text) => match text.parse() {
                Ok(number) if (1..=most).contains(&number) => Ok(number),
                _ => Err(bad(format!(
                    "invalid `{name}` of `{}`; use a whole number from 1 to {most}",
                    excerpt(text, 50)
                ))),
            },
        }
    }
}

fn bad(detail: String) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, detail)
}

/// Returns the text of a form-encoded value, in which `+` is a space.
pub(super) fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || rest.next().and_then(|byte| char::from(byte).to_digit(16));
                let (high, low) = (digit()?, digit()?);
                u8::try_from(high * 16 + low).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded() {
        let found = Parameters::parse("key=user%3Aa%2Bb&cursor=a+b&", &["key", "cursor"]).unwrap();

        assert_eq!(found.get("key"), Some("user:a+b"));
        assert_eq!(found.required("cursor", "1").unwrap(), "a b");
        assert_eq!(found.get("other"), None);
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_advice() {
        for (text, advice) in [
            ("kee=1", "this route has `key`, `count`"),
            ("key=1&key=2", "given twice"),
            ("key=%f", "percent-encoded"),
            ("key=%ff", "percent-encoded"),
            ("key=%+1", "percent-encoded"),
        ] {
            let problem = Parameters::parse(text, &["key", "count"]).unwrap_err();
            assert_eq!(problem.status, 400);
            assert!(
                problem.detail.contains(advice),
                "{text}: {}",
                problem.detail
            );
        }
        let empty = Parameters::parse("key=&count=0", &["key", "count"]).unwrap();
        assert!(
            empty
                .required("key", "event:1")
                .unwrap_err()
                .detail
                .contains("`key=event:1`")
        );
        assert!(
            empty
                .number("count", 10, 100)
                .unwrap_err()
                .detail
                .contains("from 1 to 100")
        );
    }
}
