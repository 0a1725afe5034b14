//! What the probe hands to a type that asks for parts: each part is a question of its own.

use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeSeed, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, VariantAccess, Visitor,
};

use super::probe::{Key, Probe};
use super::{Failure, Trace};

/// A sequence without elements.
pub(super) struct Nothing;

impl<'de> SeqAccess<'de> for Nothing {
    type Error = Failure;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        _: T,
    ) -> Result<Option<T::Value>, Failure> {
        Ok(None)
    }
}

/// Elements of whatever type.
pub(super) struct Elements<'t> {
    trace: &'t mut Trace,
    at: usize,
    left: usize,
}

impl<'t> Elements<'t> {
    pub(super) fn new(trace: &'t mut Trace, left: usize) -> Self {
        Self { trace, at: 0, left }
    }
}

impl<'de> SeqAccess<'de> for Elements<'_> {
    type Error = Failure;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Failure> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        let at = self.at;
        self.at += 1;
        self.trace
            .inside(at, |trace| seed.deserialize(Probe::new(trace)))
            .map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left)
    }
}

/// The entries of a map: those whose names were learned, and one of whatever name.
pub(super) struct Entries<'t> {
    trace: &'t mut Trace,
    names: Vec<&'static str>,
    generic: bool,
    at: usize,
}

impl<'t> Entries<'t> {
    pub(super) fn new(trace: &'t mut Trace, generic: bool) -> Self {
        let names = trace.place().names.clone();
        Self {
            trace,
            names,
            generic,
            at: 0,
        }
    }
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Failure;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Failure> {
        let key = match self.names.get(self.at) {
            Some(name) => Key::Named(name),
            None if std::mem::take(&mut self.generic) => Key::Any,
            None => return Ok(None),
        };
        // A key has no place in common with a value.
        let step = usize::MAX - self.at;
        self.at += 1;
        self.trace
            .inside(step, |trace| seed.deserialize(Probe::of_key(trace, key)))
            .map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Failure> {
        let at = self.at.saturating_sub(1);
        self.trace
            .inside(at, |trace| seed.deserialize(Probe::new(trace)))
    }
}

/// The fields of a struct, those last that are known to fail.
pub(super) struct Fields<'t> {
    trace: &'t mut Trace,
    fields: &'static [&'static str],
    /// From the last to the next.
    order: Vec<usize>,
    at: usize,
}

impl<'t> Fields<'t> {
    pub(super) fn new(trace: &'t mut Trace, fields: &'static [&'static str]) -> Self {
        let place = trace.place();
        let mut order: Vec<usize> = (0..fields.len())
            .filter(|field| !place.skip.contains(field))
            .collect();
        order.sort_by_key(|field| {
            place
                .late
                .iter()
                .position(|late| late == field)
                .map_or(0, |at| at + 1)
        });
        order.reverse();
        Self {
            trace,
            fields,
            order,
            at: 0,
        }
    }
}

impl<'de> MapAccess<'de> for Fields<'_> {
    type Error = Failure;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Failure> {
        let Some(at) = self.order.pop() else {
            return Ok(None);
        };
        self.at = at;
        self.trace.note(format_args!("field {at}"))?;
        self.trace.last_field = Some((self.trace.path.clone(), at));
        let name: StrDeserializer<'_, Failure> = self.fields[at].into_deserializer();
        seed.deserialize(name).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Failure> {
        let Self { trace, at, .. } = self;
        trace
            .inside(*at, |trace| seed.deserialize(Probe::new(trace)))
            .inspect_err(|_| {
                trace.failed_fields.push((trace.path.clone(), *at));
            })
    }
}

/// The variant of an enum that is looked into.
pub(super) struct Variant<'t> {
    trace: &'t mut Trace,
    variant: &'static str,
}

impl<'t> Variant<'t> {
    pub(super) fn new(trace: &'t mut Trace, variant: &'static str) -> Self {
        Self { trace, variant }
    }
}

impl<'de> EnumAccess<'de> for Variant<'_> {
    type Error = Failure;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Failure> {
        let name: StrDeserializer<'_, Failure> = self.variant.into_deserializer();
        Ok((seed.deserialize(name)?, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'_> {
    type Error = Failure;

    fn unit_variant(self) -> Result<(), Failure> {
        self.trace.note("unit")
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Failure> {
        self.trace.note("newtype")?;
        self.trace
            .inside(0, |trace| seed.deserialize(Probe::new(trace)))
    }

    fn tuple_variant<V: Visitor<'de>>(
        self,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, Failure> {
        self.trace.note(format_args!("tuple {length}"))?;
        visitor.visit_seq(Elements::new(self.trace, length))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        self.trace.note(format_args!("struct {fields:?}"))?;
        visitor.visit_map(Fields::new(self.trace, fields))
    }
}
