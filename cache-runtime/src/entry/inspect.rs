//! What serde reports about a value and its JSON does not show.
//!
//! A `null` in JSON does not always round-trip: a `Some` around it becomes a `None`, and a non-finite float becomes a
//! `null` that no float accepts. Such a value must not be stored, or a hit would return a value that no body returned. And
//! an array in JSON may be a tuple, whose parts have an order, or a sequence, which may be a set.

use std::cell::RefCell;
use std::fmt::{self, Display};

use serde::ser::{self, Serialize, Serializer};

use super::layers::Layers;

/// Returns whether a value that contains a `null` in its JSON round-trips. Its layers are not written as a `null`.
pub(super) fn nulls_round_trip(
    layers: Layers,
    visit: impl FnOnce(Inspector<'_>) -> Result<Written, Lost>,
) -> bool {
    visit(Inspector::new(layers, None)).is_ok()
}

/// Returns what the arrays of a value's JSON are, in the order in which they begin, or [`None`] if the value does not
/// round-trip.
pub(super) fn arrays(
    layers: Layers,
    visit: impl FnOnce(Inspector<'_>) -> Result<Written, Lost>,
) -> Option<Vec<Array>> {
    let arrays = RefCell::default();
    visit(Inspector::new(layers, Some(&arrays))).ok()?;
    Some(arrays.into_inner())
}

/// What an array in JSON is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Array {
    /// A tuple, an array or bytes: their parts have an order.
    Tuple,
    /// A list or a set.
    Sequence,
}

/// Visits a value and writes nothing.
#[derive(Clone, Copy)]
pub(crate) struct Inspector<'a> {
    layers: Layers,
    arrays: Option<&'a RefCell<Vec<Array>>>,
    /// Inside a `RawValue`, whose text may be a null.
    is_raw: bool,
    /// Whether the text of a `RawValue` was one.
    is_null: bool,
}

/// How `serde_json` calls a `RawValue` towards its serializer.
const RAW_VALUE: &str = "$serde_json::private::RawValue";

impl<'a> Inspector<'a> {
    fn new(layers: Layers, arrays: Option<&'a RefCell<Vec<Array>>>) -> Self {
        Self {
            layers,
            arrays,
            is_raw: false,
            is_null: false,
        }
    }

    fn begin(self, array: Array) -> Self {
        if let Some(arrays) = self.arrays {
            arrays.borrow_mut().push(array);
        }
        self.inside()
    }

    /// Visits what is in the value.
    fn inside(self) -> Self {
        Self {
            layers: Layers::Nothing,
            is_raw: false,
            is_null: false,
            ..self
        }
    }
}

/// What a value is in JSON, as far as it matters here.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Written {
    Null,
    Other,
}

/// The value does not come back.
#[derive(Debug)]
pub(crate) struct Lost;

impl Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the value does not come back")
    }
}

impl std::error::Error for Lost {}

impl ser::Error for Lost {
    fn custom<T: Display>(_: T) -> Self {
        Self
    }
}

macro_rules! leaves {
    ($($name:ident $leaf:ty)*) => {$(
        fn $name(self, _: $leaf) -> Result<Written, Lost> {
            Ok(Written::Other)
        }
    )*};
}

impl Serializer for Inspector<'_> {
    type Ok = Written;
    type Error = Lost;
    type SerializeSeq = Self;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Self;
    type SerializeTupleVariant = Self;
    type SerializeMap = Self;
    type SerializeStruct = Self;
    type SerializeStructVariant = Self;

    leaves! {
        serialize_bool bool
        serialize_i8 i8
        serialize_i16 i16
        serialize_i32 i32
        serialize_i64 i64
        serialize_i128 i128
        serialize_u8 u8
        serialize_u16 u16
        serialize_u32 u32
        serialize_u64 u64
        serialize_u128 u128
        serialize_char char
    }

    fn serialize_str(self, text: &str) -> Result<Written, Lost> {
        Ok(match self.is_raw && text == "null" {
            true => Written::Null,
            false => Written::Other,
        })
    }

    fn serialize_bytes(self, _: &[u8]) -> Result<Written, Lost> {
        self.begin(Array::Tuple);
        Ok(Written::Other)
    }

    fn collect_str<T: Display + ?Sized>(self, _: &T) -> Result<Written, Lost> {
        Ok(Written::Other)
    }

    fn serialize_f32(self, float: f32) -> Result<Written, Lost> {
        self.serialize_f64(float.into())
    }

    fn serialize_f64(self, float: f64) -> Result<Written, Lost> {
        float.is_finite().then_some(Written::Other).ok_or(Lost)
    }

    fn serialize_none(self) -> Result<Written, Lost> {
        Ok(Written::Null)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Written, Lost> {
        match value.serialize(self.inside())? {
            Written::Null if self.layers != Layers::Some => Err(Lost),
            Written::Null | Written::Other => Ok(Written::Other),
        }
    }

    fn serialize_unit(self) -> Result<Written, Lost> {
        Ok(Written::Null)
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<Written, Lost> {
        Ok(Written::Null)
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
    ) -> Result<Written, Lost> {
        Ok(Written::Other)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<Written, Lost> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        value: &T,
    ) -> Result<Written, Lost> {
        let layers = match self.layers {
            Layers::OkSome => Layers::Some,
            Layers::Nothing | Layers::Some | Layers::Ok => Layers::Nothing,
        };
        value.serialize(Self { layers, ..self })?;
        Ok(Written::Other)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Self, Lost> {
        Ok(self.begin(Array::Sequence))
    }

    fn serialize_tuple(self, _: usize) -> Result<Self, Lost> {
        Ok(self.begin(Array::Tuple))
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self, Lost> {
        Ok(self.begin(Array::Tuple))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, Lost> {
        Ok(self.begin(Array::Tuple))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self, Lost> {
        Ok(self.inside())
    }

    fn serialize_struct(self, name: &'static str, _: usize) -> Result<Self, Lost> {
        Ok(Self {
            is_raw: name == RAW_VALUE,
            ..self.inside()
        })
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, Lost> {
        Ok(self.inside())
    }
}

macro_rules! parts {
    ($($part:ident $name:ident ($($key:ty)?))*) => {$(
        impl ser::$part for Inspector<'_> {
            type Ok = Written;
            type Error = Lost;

            fn $name<T: Serialize + ?Sized>(&mut self, $(_: $key,)? value: &T) -> Result<(), Lost> {
                let written = value.serialize(*self)?;
                self.is_null = self.is_raw && written == Written::Null;
                Ok(())
            }

            fn end(self) -> Result<Written, Lost> {
                Ok(match self.is_null {
                    true => Written::Null,
                    false => Written::Other,
                })
            }
        }
    )*};
}

parts! {
    SerializeSeq serialize_element ()
    SerializeTuple serialize_element ()
    SerializeTupleStruct serialize_field ()
    SerializeTupleVariant serialize_field ()
    SerializeStruct serialize_field (&'static str)
    SerializeStructVariant serialize_field (&'static str)
}

impl ser::SerializeMap for Inspector<'_> {
    type Ok = Written;
    type Error = Lost;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, _: &T) -> Result<(), Lost> {
        // JSON has no key that is null.
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Lost> {
        value.serialize(*self).map(drop)
    }

    fn end(self) -> Result<Written, Lost> {
        Ok(Written::Other)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Serialize;
    use serde::ser::{SerializeStruct, Serializer};
    use serde_json::{Value, json};

    use super::Layers;

    fn nulls_round_trip_in<T: Serialize>(layers: Layers, value: &T) -> bool {
        super::nulls_round_trip(layers, |inspector| value.serialize(inspector))
    }

    fn nulls_round_trip<T: Serialize>(value: &T) -> bool {
        nulls_round_trip_in(Layers::Nothing, value)
    }

    #[derive(Serialize)]
    struct Row<T> {
        value: T,
    }

    #[test]
    fn a_none_round_trips_and_a_some_of_none_does_not() {
        assert!(nulls_round_trip(&Row { value: None::<u8> }));
        assert!(nulls_round_trip(&[None, Some(1)]));
        assert!(nulls_round_trip(&()));
        assert!(nulls_round_trip(&json!({"a": null})));
        assert!(!nulls_round_trip(&Row {
            value: Some(None::<u8>)
        }));
        assert!(!nulls_round_trip(&[Some(())]));
        assert!(!nulls_round_trip(&BTreeMap::from([(1, Some(Value::Null))])));
    }

    #[test]
    fn outer_layers_are_not_stored_as_null() {
        assert!(nulls_round_trip_in(Layers::Some, &Some(None::<u8>)));
        assert!(nulls_round_trip_in(Layers::OkSome, &Ok::<_, u8>(Some(()))));
        assert!(!nulls_round_trip_in(Layers::Some, &Some(Some(None::<u8>))));
        assert!(!nulls_round_trip_in(Layers::Ok, &Ok::<_, u8>(Some(()))));
        assert!(!nulls_round_trip_in(Layers::Some, &vec![Some(())]));
    }

    /// Serializes like `serde_json::value::RawValue`.
    struct Raw(&'static str);

    impl Serialize for Raw {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let mut raw = serializer.serialize_struct(super::RAW_VALUE, 1)?;
            raw.serialize_field(super::RAW_VALUE, self.0)?;
            raw.end()
        }
    }

    #[test]
    fn a_raw_null_counts_as_null() {
        assert!(nulls_round_trip(&Row { value: Raw("null") }));
        assert!(nulls_round_trip(&[Some(Raw("[null]")), None]));
        assert!(!nulls_round_trip(&Row {
            value: Some(Raw("null"))
        }));
    }

    #[test]
    fn a_float_that_is_not_finite_does_not_round_trip() {
        assert!(nulls_round_trip(&(0.1, f32::MIN, -0.0)));
        assert!(!nulls_round_trip(&Some(Row { value: f64::NAN })));
        assert!(!nulls_round_trip(&vec![Ok::<f32, u8>(f32::INFINITY)]));
    }
}
