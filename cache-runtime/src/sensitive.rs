//! Values that must never be cached.

use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Holds a value that must never be stored or logged, such as a card number, a password or a token.
///
/// It can be deserialized from a request but never serialized, so a type that contains it cannot be cached:
///
/// ```compile_fail
/// # use cache_runtime::Sensitive;
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct Payment {
///     card: Sensitive<String>,
/// }
/// ```
///
/// Leave such a field out of the cached value with `#[serde(skip)]`, or use a separate type for the cache.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sensitive<T>(T);

impl<T> Sensitive<T> {
    /// Returns a reference to the value. The caller is responsible for where the value goes.
    pub fn expose(&self) -> &T {
        &self.0
    }

    /// Returns the value.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T> From<T> for Sensitive<T> {
    fn from(value: T) -> Self {
        Self(value)
    }
}

impl<T> fmt::Debug for Sensitive<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sensitive(***)")
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Sensitive<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // The cause would say what was found.
        T::deserialize(deserializer)
            .map(Self)
            .map_err(|_| D::Error::custom("invalid sensitive value"))
    }
}

/// This bound is never satisfied. Without this impl, rustc would print serde's advice to derive `Serialize`; with it, rustc prints
/// why the type cannot be serialized.
impl<T> Serialize for Sensitive<T>
where
    T: MayBeStored,
{
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom(
            "a sensitive value is never stored",
        ))
    }
}

/// No type implements this trait, and other crates cannot name it.
#[diagnostic::on_unimplemented(
    message = "`Sensitive<{Self}>` must not be stored, so a type that holds it can be neither serialized nor cached",
    label = "this would be stored",
    note = "leave the field out with `#[serde(skip)]`, or cache a type that does not have it"
)]
pub trait MayBeStored {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_sensitive_value_is_not_shown_in_the_error() {
        let error =
            serde_json::from_str::<Sensitive<u64>>(r#""4111111111111111""#).expect_err("no number");

        assert!(!error.to_string().contains("4111"), "{error}");
    }

    #[test]
    fn a_sensitive_value_is_deserialized_but_not_shown() {
        let card: Sensitive<String> =
            serde_json::from_str(r#""4111111111111111""#).expect("a text");

        assert_eq!(card.expose(), "4111111111111111");
        assert_eq!(
            format!("{card:?} {:#?}", Some(&card)),
            "Sensitive(***) Some(\n    Sensitive(***),\n)"
        );
        assert_eq!(card.into_inner(), "4111111111111111");
    }
}
