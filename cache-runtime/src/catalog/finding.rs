//! What looks like a mistake in the annotated functions of a program.

use std::fmt;

use serde::{Serialize, Serializer};
use tracing::{info, warn};

/// Below this likeness a suggestion puzzles more than it helps.
const ALIKE: f64 = 0.7;

/// Something about annotated functions that is probably a mistake, or that is worth a decision.
///
/// ```
/// use cache_runtime::Config;
/// use cache_runtime::catalog::{Catalog, Code};
///
/// for finding in Catalog::new(&Config::default()).findings {
///     match finding.code {
///         Code::NeverEvicted => {} // values of this service only expire
///         _ => println!("{}: {}; {}", finding.code, finding.message, finding.advice),
///     }
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// What kind of finding it is.
    pub code: Code,
    /// The functions that it is about, with their module paths.
    pub functions: Vec<&'static str>,
    /// What was found.
    pub message: String,
    /// What to do about it.
    pub advice: String,
}

/// The kind of a [`Finding`]. As text it is a word such as `never-evicted`, which does not change between versions.
///
/// ```
/// use cache_runtime::catalog::Code;
///
/// assert_eq!(Code::NeverEvicted.as_str(), "never-evicted"); // as in `assert_catalog_clean!(…, allow = ["never-evicted"])`
/// assert_eq!(Code::ALL.len(), 11);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Code {
    /// `unmatched-eviction`: a target of an eviction matches no key and no tag of a function that stores.
    UnmatchedEviction,
    /// `never-evicted`: entries live for more than 1 hour, and no function evicts them or puts new ones.
    NeverEvicted,
    /// `none-not-evicted`: a stored `None` hides what is created later, because no function evicts it or puts a value.
    NoneNotEvicted,
    /// `value-types`: two functions store different types under the same key.
    ValueTypes,
    /// `overlapping-keys`: two different keys can name the same entry.
    OverlappingKeys,
    /// `overlapping-tags`: two different tags can have the same name.
    OverlappingTags,
    /// `unkeyed-argument`: the body reads an argument that is missing from the key, because its name begins with `_`.
    UnkeyedArgument,
    /// `text-in-key`: a client may choose a text in the key, so it can fill the cache.
    TextInKey,
    /// `local-tracks-all`: the process hears of the changes of all keys, because the key of a function with `local` begins with a
    /// placeholder.
    LocalTracksAll,
    /// `unknown-policy`: the configuration lacks the policy that a function names.
    UnknownPolicy,
    /// `unused-policy`: no function names a policy of the configuration.
    UnusedPolicy,
}

impl Code {
    /// All codes.
    pub const ALL: [Self; 11] = [
        Self::UnmatchedEviction,
        Self::NeverEvicted,
        Self::NoneNotEvicted,
        Self::ValueTypes,
        Self::OverlappingKeys,
        Self::OverlappingTags,
        Self::UnkeyedArgument,
        Self::TextInKey,
        Self::LocalTracksAll,
        Self::UnknownPolicy,
        Self::UnusedPolicy,
    ];

    /// Returns the code as text.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UnmatchedEviction => "unmatched-eviction",
            Self::NeverEvicted => "never-evicted",
            Self::NoneNotEvicted => "none-not-evicted",
            Self::ValueTypes => "value-types",
            Self::OverlappingKeys => "overlapping-keys",
            Self::OverlappingTags => "overlapping-tags",
            Self::UnkeyedArgument => "unkeyed-argument",
            Self::TextInKey => "text-in-key",
            Self::LocalTracksAll => "local-tracks-all",
            Self::UnknownPolicy => "unknown-policy",
            Self::UnusedPolicy => "unused-policy",
        }
    }

    /// Returns whether entries that only their TTL ends may be what the author wants.
    fn is_choice(self) -> bool {
        matches!(self, Self::NeverEvicted | Self::NoneNotEvicted)
    }
}

impl Finding {
    /// Logs it. What may well be intended is not a warning.
    pub(super) fn log(&self) {
        let Self {
            code,
            functions,
            message,
            advice,
        } = self;
        let functions = functions.join(", ");
        match code.is_choice() {
            true => info!(%code, functions, "{message}; {advice}"),
            false => warn!(%code, functions, "{message}; {advice}"),
        }
    }

    /// Returns whether a text such as `never-evicted shop::countries` names it: the code, and any of its functions, which may be
    /// without the beginning of their module path.
    pub(super) fn is_named(&self, text: &str) -> bool {
        let mut words = text.split_whitespace();
        let is_one_of = |word: &str| {
            self.functions.iter().any(|function| {
                function
                    .strip_suffix(word)
                    .is_some_and(|path| path.is_empty() || path.ends_with("::"))
            })
        };
        words.next() == Some(self.code.as_str()) && words.all(is_one_of)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl fmt::Display for Finding {
    /// As `allow` of [`assert_catalog_clean!`](crate::assert_catalog_clean) names it, what was found, and what to do.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        for function in &self.functions {
            write!(f, " {function}")?;
        }
        write!(f, ": {}\n  {}", self.message, self.advice)
    }
}

/// Returns the name that is most similar to `word`, if any is similar enough.
pub(super) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|name| (strsim::normalized_damerau_levenshtein(word, name), name))
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_named_by_its_code_and_functions() {
        let finding = Finding {
            code: Code::OverlappingKeys,
            functions: vec!["app::find", "app::latest"],
            message: String::new(),
            advice: String::new(),
        };

        for text in [
            "overlapping-keys",
            "overlapping-keys find",
            "overlapping-keys app::latest app::find",
        ] {
            assert!(finding.is_named(text), "{text}");
        }
        for text in [
            "",
            "value-types",
            "overlapping-keys ind",
            "overlapping-keys app::find app::other",
        ] {
            assert!(!finding.is_named(text), "{text}");
        }
    }
}
