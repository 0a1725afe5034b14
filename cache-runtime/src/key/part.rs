//! The types that are allowed in a placeholder.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZero;
use std::rc::Rc;
use std::sync::Arc;

use super::KeyWriter;

/// A value that is allowed in a placeholder of a key.
///
/// These types are key parts:
///
/// - integers, `NonZero` integers, `bool`, `char` and strings
/// - IP addresses
/// - `SystemTime`, as nanoseconds since 1970 in UTC
/// - `uuid::Uuid` with the feature `uuid`
/// - `chrono::DateTime` and `chrono::NaiveDate` with the feature `chrono`, such as `2026-11-27T10:07:23Z` (in UTC) and `2026-11-27`
/// - `time::OffsetDateTime`, as nanoseconds since 1970 in UTC, and `time::Date`, such as `2026-11-27`, with the feature `time`
/// - references to these, and `Option`s of them
/// - tuples of 2 to 4 of these
/// - slices, arrays and `Vec`s of these, in their order. A list that is longer than 128 bytes in a key is hashed.
///
/// A time is one instant: times in different zones have the same text if they are equal.
///
/// [Derive](derive@crate::KeyPart) it for your own types:
///
/// ```
/// use cache_runtime::KeyPart;
///
/// #[derive(KeyPart)]
/// struct EventId(i64);
/// ```
///
/// Implement it by hand if a type has a text of its own:
///
/// ```
/// use cache_runtime::{KeyPart, KeyWriter};
///
/// struct Version {
///     major: u32,
///     minor: u32,
/// }
///
/// impl KeyPart for Version {
///     fn write_key(&self, key: &mut KeyWriter<'_>) {
///         key.display(&format_args!("{}.{}", self.major, self.minor));
///     }
/// }
/// ```
///
/// Different values must write different texts. For a type of another crate, write what one of its methods returns, such as
/// `<url.as_str()>`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be part of a key",
    label = "not a key part",
    note = "for a type of your own: `#[derive(cache_runtime::KeyPart)]`; for a type of another crate that can be printed: \
            `<value.to_string()>`",
    note = "key parts are integers, `bool`, `char`, strings, times, and references, `Option`s, tuples and lists of them; a float has no \
            exact text: round it to an integer first"
)]
pub trait KeyPart {
    /// Writes this value into a key.
    fn write_key(&self, key: &mut KeyWriter<'_>);
}

macro_rules! numbers {
    ($($number:ty)*) => {$(
        impl KeyPart for $number {
            fn write_key(&self, key: &mut KeyWriter<'_>) {
                key.number(itoa::Buffer::new().format(*self));
            }
        }

        impl KeyPart for NonZero<$number> {
            fn write_key(&self, key: &mut KeyWriter<'_>) {
                self.get().write_key(key);
            }
        }
    )*};
}

numbers! { i8 i16 i32 i64 i128 isize u8 u16 u32 u64 u128 usize }

impl KeyPart for bool {
    fn write_key(&self, key: &mut KeyWriter<'_>) {
        key.escaped(if *self { "true" } else { "false" });
    }
}

impl KeyPart for char {
    fn write_key(&self, key: &mut KeyWriter<'_>) {
        key.escaped(self.encode_utf8(&mut [0; 4]));
    }
}

impl KeyPart for str {
    fn write_key(&self, key: &mut KeyWriter<'_>) {
        key.escaped(self);
    }
}

impl KeyPart for String {
    fn write_key(&self, key: &mut KeyWriter<'_>) {
        key.escaped(self);
    }
}

#[cfg(feature = "uuid")]
impl KeyPart for uuid::Uuid {
    fn write_key(&self, key: &mut KeyWriter<'_>) {
        key.escaped(self.hyphenated().encode_lower(&mut Self::encode_buffer()));
    }
}

macro_rules! addresses {
    ($($address:ty)*) => {$(
        impl KeyPart for $address {
            fn write_key(&self, key: &mut KeyWriter<'_>) {
                key.display(self);
            }
        }
    )*};
}

// Without ports and scopes: their text is exact.
addresses! { IpAddr Ipv4Addr Ipv6Addr }

impl<T: KeyPart> KeyPart for Option<T> {
    fn write_key(&self, key: &mut KeyWriter<'_>) {
        key.option(self.as_ref());
    }
}

impl<T: KeyPart + ToOwned + ?Sized> KeyPart for Cow<'_, T> {
    fn write_key(&self, key: &mut KeyWriter<'_>) {
        (**self).write_key(key);
    }
}

macro_rules! pointers {
    ($($pointer:ty)*) => {$(
        impl<T: KeyPart + ?Sized> KeyPart for $pointer {
            fn write_key(&self, key: &mut KeyWriter<'_>) {
                (**self).write_key(key);
            }
        }
    )*};
}

pointers! { &T &mut T Box<T> Rc<T> Arc<T> }

macro_rules! tuples {
    ($($(($name:ident $at:tt))*,)*) => {$(
        impl<$($name: KeyPart),*> KeyPart for ($($name,)*) {
            fn write_key(&self, key: &mut KeyWriter<'_>) {
                key$(.value(&self.$at))*;
            }
        }
    )*};
}

tuples! {
    (A 0)(B 1),
    (A 0)(B 1)(C 2),
    (A 0)(B 1)(C 2)(D 3),
}

impl<T: KeyPart> KeyPart for [T] {
    fn write_key(&self, key: &mut KeyWriter<'_>) {
        key.list(self);
    }
}

impl<T: KeyPart> KeyPart for Vec<T> {
    fn write_key(&self, key: &mut KeyWriter<'_>) {
        key.list(self);
    }
}

impl<T: KeyPart, const N: usize> KeyPart for [T; N] {
    fn write_key(&self, key: &mut KeyWriter<'_>) {
        key.list(self);
    }
}
