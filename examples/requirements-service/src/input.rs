//! The parts of requests: types that cannot hold invalid values.

use cache_runtime::KeyPart;
use serde::{Deserialize, Serialize};

/// Text of 1 to `MAX` characters that are not all white space.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KeyPart)]
#[serde(try_from = "String")]
pub struct Text<const MAX: usize>(String);

impl<const MAX: usize> Text<MAX> {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<const MAX: usize> TryFrom<String> for Text<MAX> {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let is_blank = text.trim().is_empty();
        // Postgres has no NUL in a text.
        if is_blank || text.contains('\0') || text.chars().count() > MAX {
            return Err(format!(
                "it must be text of 1 to {MAX} characters, not all white space and without NUL"
            ));
        }
        Ok(Self(text))
    }
}

/// Defines an enum whose variants are words, spelled alike in JSON, in the database and in keys.
macro_rules! words {
    ($(#[$doc:meta])* pub enum $name:ident { $($variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[derive(serde::Serialize, serde::Deserialize, cache_runtime::KeyPart)]
        pub enum $name {
            $(#[serde(rename = $word)] $variant,)+
        }

        impl $name {
            /// Returns the word.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }

        impl sqlx::Type<sqlx::Any> for $name {
            fn type_info() -> sqlx::any::AnyTypeInfo {
                <String as sqlx::Type<sqlx::Any>>::type_info()
            }
        }

        impl<'r> sqlx::Decode<'r, sqlx::Any> for $name {
            fn decode(value: sqlx::any::AnyValueRef<'r>) -> Result<Self, sqlx::error::BoxDynError> {
                let word = <String as sqlx::Decode<'r, sqlx::Any>>::decode(value)?;
                match word.as_str() {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(format!("`{word}` is not a {}", stringify!($name)).into()),
                }
            }
        }
    };
}
