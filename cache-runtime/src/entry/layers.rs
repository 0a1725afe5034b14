//! The layers around a stored value that only the compiler knows: a generic function returns a `T`, which may be an
//! `Option` or a `Result`.
//!
//! The entry is the same as where the type is spelled out: what is inside `Ok` and `Some` is stored. Only the outermost
//! `Result` counts, and the `Option` directly in it; everything inside them is the value.

use std::any::type_name;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::mem;

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error as _, IntoDeserializer, VariantAccess, Visitor,
};

/// The layers around a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layers {
    /// The value is all there is.
    Nothing,
    /// `Option`
    Some,
    /// `Result`
    Ok,
    /// `Option` in `Result`
    OkSome,
}

/// The JSON of an `Ok(None)`.
pub(super) const OK_NONE: &[u8] = b"{\"Ok\":null}";
/// How serde writes a `Result` that is `Ok`, around its value.
const AROUND_OK: (&[u8], &[u8]) = (b"{\"Ok\":", b"}");

impl Layers {
    /// The layers of the return type of a function.
    #[inline]
    pub(crate) fn of<T>() -> Self {
        // By the path of the standard library, since a type of the user's that is called `Result` is a value like any other.
        match type_name::<T>().strip_prefix("core::result::Result<") {
            Some(value) if value.starts_with("core::option::Option<") => Self::OkSome,
            Some(_) => Self::Ok,
            None => Self::of_option::<T>(),
        }
    }

    /// The layers of the type inside `Ok`.
    #[inline]
    pub(crate) fn of_option<T>() -> Self {
        match type_name::<T>().starts_with("core::option::Option<") {
            true => Self::Some,
            false => Self::Nothing,
        }
    }

    /// Returns whether the value, which has these layers, is an `Err`.
    pub(crate) fn is_err<T>(self, value: &T) -> bool {
        matches!(self, Self::Ok | Self::OkSome) && is_same_variant(value, &Err::<(), ()>(()))
    }

    /// Returns whether the value, which has these layers, is a `None`. Inside of `Ok` only [`is_ok_none`](Self::is_ok_none) knows.
    pub(crate) fn is_none<T>(self, value: &T) -> bool {
        self == Self::Some && is_same_variant(value, &None::<()>)
    }

    /// Removes the JSON of these layers, from `start` on.
    pub(super) fn strip(self, json: &mut Vec<u8>, start: usize) {
        let (before, after) = AROUND_OK;
        if matches!(self, Self::Ok | Self::OkSome)
            && json[start..].starts_with(before)
            && json.ends_with(after)
        {
            json.truncate(json.len() - after.len());
            json.drain(start..start + before.len());
        }
    }

    /// How many bytes that takes off at most.
    pub(super) fn stripped(self) -> usize {
        match self {
            Self::Nothing | Self::Some => 0,
            Self::Ok | Self::OkSome => AROUND_OK.0.len() + AROUND_OK.1.len(),
        }
    }

    /// Returns the JSON of the `None` with these layers.
    pub(crate) fn none(self) -> Option<&'static [u8]> {
        match self {
            Self::Nothing | Self::Ok => None,
            Self::Some => Some(b"null"),
            Self::OkSome => Some(OK_NONE),
        }
    }
}

/// Returns whether two values of one enum, with other types in it perhaps, are of the same variant. They need no trait for that.
fn is_same_variant<T, U>(value: &T, other: &U) -> bool {
    let hash = |discriminant: &dyn Fn(&mut DefaultHasher)| {
        let mut hasher = DefaultHasher::new();
        discriminant(&mut hasher);
        hasher.finish()
    };
    hash(&|hasher| mem::discriminant(value).hash(hasher))
        == hash(&|hasher| mem::discriminant(other).hash(hasher))
}

/// Puts the layers around what is inside them, as a value is read. One type for all of them: each costs another copy of all code
/// that reads the value.
pub(super) struct Layered<D> {
    pub(super) layers: Layers,
    pub(super) inside: D,
}

macro_rules! forwarded {
    ($($method:ident($($argument:ident: $given:ty),*);)*) => {$(
        fn $method<V: Visitor<'de>>(self, $($argument: $given,)* visitor: V) -> Result<V::Value, D::Error> {
            self.inside.$method($($argument,)* visitor)
        }
    )*};
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Layered<D> {
    type Error = D::Error;

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        match self.layers {
            Layers::Some => visitor.visit_some(self.inside),
            Layers::Nothing | Layers::Ok | Layers::OkSome => {
                self.inside.deserialize_option(visitor)
            }
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let layers = match self.layers {
            Layers::Nothing | Layers::Some => {
                return self.inside.deserialize_enum(name, variants, visitor);
            }
            Layers::Ok => Layers::Nothing,
            Layers::OkSome => Layers::Some,
        };
        let inside = self.inside;
        visitor.visit_enum(InOk(Self { layers, inside }))
    }

    forwarded! {
        deserialize_any();
        deserialize_bool();
        deserialize_i8();
        deserialize_i16();
        deserialize_i32();
        deserialize_i64();
        deserialize_i128();
        deserialize_u8();
        deserialize_u16();
        deserialize_u32();
        deserialize_u64();
        deserialize_u128();
        deserialize_f32();
        deserialize_f64();
        deserialize_char();
        deserialize_str();
        deserialize_string();
        deserialize_bytes();
        deserialize_byte_buf();
        deserialize_unit();
        deserialize_unit_struct(name: &'static str);
        deserialize_newtype_struct(name: &'static str);
        deserialize_seq();
        deserialize_tuple(length: usize);
        deserialize_tuple_struct(name: &'static str, length: usize);
        deserialize_map();
        deserialize_struct(name: &'static str, fields: &'static [&'static str]);
        deserialize_identifier();
        deserialize_ignored_any();
    }

    fn is_human_readable(&self) -> bool {
        self.inside.is_human_readable()
    }
}

/// Stands for an `Ok` of what is in it.
struct InOk<D>(D);

impl<'de, D: Deserializer<'de>> EnumAccess<'de> for InOk<D> {
    type Error = D::Error;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), D::Error> {
        let variant = IntoDeserializer::<'_, D::Error>::into_deserializer("Ok");
        Ok((seed.deserialize(variant)?, self))
    }
}

impl<'de, D: Deserializer<'de>> VariantAccess<'de> for InOk<D> {
    type Error = D::Error;

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, D::Error> {
        seed.deserialize(self.0)
    }

    fn unit_variant(self) -> Result<(), D::Error> {
        Err(D::Error::custom("`Ok` has a value"))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, D::Error> {
        Err(D::Error::custom("`Ok` has one value"))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, D::Error> {
        Err(D::Error::custom("`Ok` has no fields"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Full = Result<Option<u8>, String>;

    #[test]
    fn only_the_outermost_standard_types_are_layers() {
        #[expect(dead_code, reason = "only its name matters")]
        enum Result<T> {
            Ok(T),
        }

        assert_eq!(Layers::of::<Full>(), Layers::OkSome);
        assert_eq!(Layers::of::<std::result::Result<u8, Full>>(), Layers::Ok);
        assert_eq!(Layers::of::<std::io::Result<()>>(), Layers::Ok);
        assert_eq!(Layers::of::<Option<Full>>(), Layers::Some);
        assert_eq!(Layers::of::<Result<Option<u8>>>(), Layers::Nothing);
        assert_eq!(Layers::of::<Vec<Option<u8>>>(), Layers::Nothing);
        assert_eq!(Layers::of_option::<Option<u8>>(), Layers::Some);
        assert_eq!(Layers::of_option::<Full>(), Layers::Nothing);
    }

    #[test]
    fn layers_distinguish_variants() {
        let (ok, none, err): (Full, Full, Full) = (Ok(Some(1)), Ok(None), Err(String::new()));
        let layers = Layers::of::<Full>();

        assert_eq!(
            [&ok, &none, &err].map(|value| layers.is_err(value)),
            [false, false, true]
        );
        assert_eq!(
            [&ok, &none, &err].map(|value| layers.is_ok_none(value)),
            [false, true, false]
        );
        assert!(Layers::Some.is_none(&None::<u8>) && !Layers::Some.is_none(&Some(None::<u8>)));
        assert!(!Layers::OkSome.is_ok_none(&Ok::<_, u8>(Some(None::<u8>))));
        assert!(!Layers::OkSome.is_ok_none(&Ok::<_, u8>(Some(()))));
    }
}
